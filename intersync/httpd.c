// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The private httpd of a server: its configuration, written anew at each
 * start, and its process, watched, started again when it dies, and gone when
 * the daemon is gone (also after kill -9: it asks the kernel for a SIGTERM then).
 */
#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netdb.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#define ROOT_TARGET	3	/* descriptors in httpd */
#define META_TARGET	4
#define PORT_MS		3000	/* an httpd that is ending has so long to leave the port */
#define START_MS	15000
#define BACKOFF_MAX	30	/* seconds between restarts */
#define GOOD_RUN	5	/* seconds: one that ran so long has not failed to start */

struct IsdHttpd {
	IsdCore		*core;
	char		*program, *module;
	char		*address;
	guint		port;
	char		*conf, *pidfile, *errlog, *gateway;
	const IsdAccount *account;
	GSubprocess	*process;
	GCancellable	*stopping;
	gint64		started;	/* monotonic, microseconds */
	guint		backoff, timer, restarts;
};

static gboolean fail(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);
static gboolean fail(GError **error, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	if (error)
		*error = g_error_new_valist(ISD_ERROR, ISD_ERROR_FATAL, format, ap);
	va_end(ap);
	return FALSE;
}

void isd_account_clear(IsdAccount *a)
{
	g_clear_pointer(&a->user, g_free);
	g_clear_pointer(&a->group, g_free);
}

/* An account of our own if the package has made one, else what httpd's package uses. */
gboolean isd_httpd_account(IsdAccount *ret, GError **error)
{
	static const char *const names[] = { "intersync", "www-data", "apache", "nobody" };

	for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
		const struct passwd *pw = getpwnam(names[i]);
		const struct group *gr = pw ? getgrgid(pw->pw_gid) : NULL;

		if (!gr || !pw->pw_uid)
			continue;
		ret->user = g_strdup(names[i]);
		ret->group = g_strdup(gr->gr_name);
		ret->uid = pw->pw_uid;
		ret->gid = pw->pw_gid;
		return TRUE;
	}
	return fail(error, "httpd needs an account that is not root: "
		    "run useradd --system intersync");
}

static char *find_program(GError **error)
{
	const char *env = g_getenv("INTERSYNC_HTTPD");
	char *path;

	if (env && *env)
		return g_strdup(env);
	if (access(ISD_HTTPD, X_OK) == 0)
		return g_strdup(ISD_HTTPD);
	path = g_find_program_in_path("apache2");
	if (!path)
		path = g_find_program_in_path("httpd");
	if (!path)
		fail(error, "Apache httpd is not installed: install apache2-bin (Debian, Ubuntu) "
		     "or httpd (Fedora, RHEL, SUSE: apache2)");
	return path;
}

static char *find_module(GError **error)
{
	const char *env = g_getenv("INTERSYNC_MODULE");
	const char *path = env && *env ? env : ISD_MODULE;

	if (path[0] != '/' || strpbrk(path, "\"\\\n"))
		fail(error, "INTERSYNC_MODULE=%s: not an absolute path that httpd can take", path);
	else if (access(path, R_OK) == 0)
		return g_strdup(path);
	else
		fail(error, "%s: %s: it is installed with intersync (make install)", path,
		     g_strerror(errno));
	return NULL;
}

static const char limits[] =
	"ServerTokens Prod\n"
	"ServerSignature Off\n"
	"TraceEnable Off\n"
	"HttpProtocolOptions Strict\n"
	"Timeout 60\n"
	"KeepAlive On\n"
	"KeepAliveTimeout 60\n"
	"MaxKeepAliveRequests 0\n"
	"GracefulShutdownTimeout 2\n"
	"\n"
	"# The module bounds what it keeps of a body; uploads are as large as files.\n"
	"LimitRequestBody 0\n"
	"LimitRequestFields 60\n"
	"\n"
	"# Content is checked while it is sent: no mapping, no sendfile.\n"
	"EnableMMAP Off\n"
	"EnableSendfile Off\n"
	"\n"
	"# A client that waits for news occupies a thread: 512 of them at most.\n"
	"StartServers 1\n"
	"ServerLimit 8\n"
	"ThreadLimit 64\n"
	"ThreadsPerChild 64\n"
	"MinSpareThreads 8\n"
	"MaxSpareThreads 128\n"
	"MaxRequestWorkers 512\n"
	"MaxConnectionsPerChild 0\n";

static void conf_module(GString *s, const char *name, const char *file)
{
	g_string_append_printf(s, "<IfModule !%s>\n\tLoadModule %s \"" ISD_HTTPD_MODDIR
			       "/%s\"\n</IfModule>\n", name, name, file);
}

static char *conf_text(const IsdHttpd *h)
{
	GString *s = g_string_new(NULL);
	gboolean v6 = strchr(h->address, ':') != NULL;

	g_string_append_printf(s, "# The httpd of fileset %s.  intersync writes this file at each "
			       "start: changes are lost.\n", h->core->fileset);
	g_string_append_printf(s, "ServerRoot \"%s/%u\"\nDefaultRuntimeDir \"%s/%u\"\n",
			       ISD_RUN_DIR, le32toh(h->core->info.minor),
			       ISD_RUN_DIR, le32toh(h->core->info.minor));
	g_string_append_printf(s, "ServerName intersync\nListen %s%s%s:%u\nPidFile \"%s\"\n",
			       v6 ? "[" : "", h->address, v6 ? "]" : "", h->port, h->pidfile);
	conf_module(s, "mpm_event_module", "mod_mpm_event.so");
	conf_module(s, "unixd_module", "mod_unixd.so");
	g_string_append_printf(s, "LoadModule intersync_module \"%s\"\n", h->module);
	g_string_append_printf(s, "User %s\nGroup %s\nErrorLog \"%s\"\nLogLevel warn\n",
			       h->account->user, h->account->group, h->errlog);
	if (isd_debug_bits & ISD_D_HTTP) {
		conf_module(s, "log_config_module", "mod_log_config.so");
		g_string_append_printf(s, "CustomLog \"" ISD_LOG_DIR "/httpd-%u.access.log\" "
				       "\"%%t %%h %%{InterSync-Name}i \\\"%%r\\\" %%>s %%B %%D\"\n",
				       le32toh(h->core->info.minor));
	}
	g_string_append(s, limits);
	g_string_append_printf(s, "\nInterSyncFileset %s root=%d meta=%d epoch=%" G_GUINT64_FORMAT
			       " gateway=%s\n", h->core->fileset, ROOT_TARGET, META_TARGET,
			       (guint64) le64toh(h->core->info.epoch), h->gateway);
	return g_string_free(s, FALSE);
}

static gboolean write_conf(IsdHttpd *h, GError **error)
{
	g_autofree char *dir = g_path_get_dirname(h->conf);
	g_autofree char *text = conf_text(h);
	g_autoptr(GError) local = NULL;

	if (g_mkdir_with_parents(dir, 0755))
		return fail(error, "%s: %s", dir, g_strerror(errno));
	if (g_mkdir_with_parents(ISD_LOG_DIR, 0750))
		return fail(error, "%s: %s", ISD_LOG_DIR, g_strerror(errno));
	if (g_file_set_contents_full(h->conf, text, -1, G_FILE_SET_CONTENTS_CONSISTENT, 0644,
				     &local))
		return TRUE;
	return fail(error, "%s", local->message);
}

/* Is this process an httpd that was started with our configuration? */
static gboolean is_ours(const IsdHttpd *h, pid_t pid)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/cmdline", (int) pid);
	g_autofree char *args = NULL;
	gsize len, at;

	if (!g_file_get_contents(path, &args, &len, NULL))
		return FALSE;
	for (at = 0; at < len; at += strlen(args + at) + 1)
		if (!strcmp(args + at, h->conf))
			return TRUE;
	return FALSE;
}

static gboolean wait_gone(const IsdHttpd *h, pid_t pid, guint ms)
{
	for (; is_ours(h, pid); ms -= 20) {
		if (ms < 20)
			return FALSE;
		g_usleep(20000);
	}
	return TRUE;
}

/* One that a daemon before us has left: it has the port. */
static gboolean stop_stale(const IsdHttpd *h, GError **error)
{
	g_autofree char *text = NULL;
	pid_t pid;

	if (!g_file_get_contents(h->pidfile, &text, NULL, NULL))
		return TRUE;
	pid = atoi(text);
	if (pid > 1 && is_ours(h, pid)) {
		kill(pid, SIGTERM);
		if (!wait_gone(h, pid, 8000))
			kill(pid, SIGKILL);
		if (!wait_gone(h, pid, 2000))
			return fail(error, "the old httpd (process %d) does not end", (int) pid);
	}
	unlink(h->pidfile);
	return TRUE;
}

static struct addrinfo *resolve(const IsdHttpd *h, GError **error)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST };
	g_autofree char *port = g_strdup_printf("%u", h->port);
	struct addrinfo *ai = NULL;
	int rc = getaddrinfo(h->address, port, &hints, &ai);

	if (rc)
		fail(error, "%s port %u: %s", h->address, h->port, gai_strerror(rc));
	return rc ? NULL : ai;
}

/* 0 or errno: could a server listen there? */
static int try_port(const struct addrinfo *ai)
{
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1, err = 0;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(fd, ai->ai_addr, ai->ai_addrlen) || listen(fd, 1))
		err = errno;
	if (fd >= 0)
		close(fd);
	return err;
}

/*
 * Say so before anything is started.  The httpd of an intersync that was killed
 * removes its pid file before its last process has left the port.
 */
static gboolean check_port(const IsdHttpd *h, GError **error)
{
	struct addrinfo *ai = resolve(h, error);
	int err;

	if (!ai)
		return FALSE;
	err = try_port(ai);
	for (guint ms = 0; err == EADDRINUSE && ms < PORT_MS; ms += 50) {
		g_usleep(50 * 1000);
		err = try_port(ai);
	}
	freeaddrinfo(ai);
	if (err == EADDRINUSE)
		return fail(error, "port %u on %s is in use: stop the program that listens there, "
			    "or serve on another port", h->port, h->address);
	return !err || fail(error, "port %u on %s: %s", h->port, h->address, g_strerror(err));
}

/* Does it answer?  It need not know the resource. */
static gboolean answers(const IsdHttpd *h)
{
	static const char request[] = "GET / HTTP/1.0\r\n\r\n";
	struct timeval limit = { .tv_sec = 2 };
	struct addrinfo *ai = resolve(h, NULL);
	char reply[8] = "";
	gboolean ok;
	int fd;

	if (!ai)
		return FALSE;
	fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ok = fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) &&
	     !connect(fd, ai->ai_addr, ai->ai_addrlen) &&
	     send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) == sizeof(request) - 1 &&
	     recv(fd, reply, 5, MSG_WAITALL) == 5 && !memcmp(reply, "HTTP/", 5);
	if (fd >= 0)
		close(fd);
	freeaddrinfo(ai);
	return ok;
}

/* What httpd complained about last, without date and module. */
static char *last_words(const IsdHttpd *h)
{
	g_autofree char *text = NULL;
	char *line, *p;

	if (!g_file_get_contents(h->errlog, &text, NULL, NULL))
		return g_strdup("(no error log)");
	g_strchomp(text);
	line = strrchr(text, '\n');
	line = line ? line + 1 : text;
	while (*line == '[' && (p = strstr(line, "] ")))
		line = p + 2;
	return *line ? g_strdup(line) : g_strdup("(nothing in its error log)");
}

static void child_setup(gpointer unused)
{
	prctl(PR_SET_PDEATHSIG, SIGTERM);
}

static int open_errlog(const IsdHttpd *h)
{
	int fd = open(h->errlog, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
	struct stat st;

	/* Nobody rotates it in a container: begin anew when it has grown large. */
	if (fd >= 0 && !fstat(fd, &st) && st.st_size > 16 << 20 && ftruncate(fd, 0))
		g_debug("%s: %s", h->errlog, g_strerror(errno));
	return fd;
}

static void exited(GObject *source, GAsyncResult *result, gpointer data);

static gboolean spawn(IsdHttpd *h, GError **error)
{
	g_autoptr(GSubprocessLauncher) l = g_subprocess_launcher_new(G_SUBPROCESS_FLAGS_NONE);
	int log = open_errlog(h), in = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (log < 0 || in < 0)
		return fail(error, "%s: %s", h->errlog, g_strerror(errno));
	g_subprocess_launcher_set_child_setup(l, child_setup, NULL, NULL);
	g_subprocess_launcher_take_stdin_fd(l, in);
	g_subprocess_launcher_take_stdout_fd(l, fcntl(log, F_DUPFD_CLOEXEC, 3));
	g_subprocess_launcher_take_stderr_fd(l, log);
	g_subprocess_launcher_take_fd(l, fcntl(h->core->root_fd, F_DUPFD_CLOEXEC, 3), ROOT_TARGET);
	g_subprocess_launcher_take_fd(l, fcntl(h->core->meta_fd, F_DUPFD_CLOEXEC, 3), META_TARGET);
	g_subprocess_launcher_set_cwd(l, "/");
	unlink(h->pidfile);	/* of one that was killed: the next would warn of it */
	h->started = g_get_monotonic_time();
	h->process = g_subprocess_launcher_spawn(l, error, h->program, "-f", h->conf,
						 "-DFOREGROUND", NULL);
	if (!h->process) {
		g_prefix_error(error, "%s: ", h->program);
		return FALSE;
	}
	g_subprocess_wait_async(h->process, h->stopping, exited, h);
	return TRUE;
}

static gboolean running(const IsdHttpd *h)
{
	return h->process && g_subprocess_get_identifier(h->process);
}

static gboolean wait_ready(IsdHttpd *h, GError **error)
{
	g_autofree char *why = NULL;

	for (guint ms = 0; ms < START_MS && running(h); ms += 10) {
		if (answers(h))
			return TRUE;
		g_usleep(10000);
	}
	why = last_words(h);
	return fail(error, "httpd %s: %s (%s)", running(h) ? "does not answer" : "did not start",
		    why, h->errlog);
}

static gboolean restart(gpointer data)
{
	IsdHttpd *h = data;
	g_autoptr(GError) error = NULL;

	h->timer = 0;
	h->restarts++;
	if (spawn(h, &error))
		return G_SOURCE_REMOVE;
	isd_log(LOG_ERR, NULL, 0, "httpd: %s", error->message);
	h->backoff = MIN(h->backoff * 2, BACKOFF_MAX);
	h->timer = g_timeout_add_seconds(h->backoff, restart, h);
	return G_SOURCE_REMOVE;
}

/* "killed by signal 9", or what it said before it ended by itself */
static char *how_ended(const IsdHttpd *h)
{
	if (g_subprocess_get_if_signaled(h->process))
		return g_strdup_printf("killed by signal %d",
				       g_subprocess_get_term_sig(h->process));
	return last_words(h);
}

/* It was not we who ended it. */
static void exited(GObject *source, GAsyncResult *result, gpointer data)
{
	g_autofree char *why = NULL;
	IsdHttpd *h;

	if (!g_subprocess_wait_finish(G_SUBPROCESS(source), result, NULL))
		return;	/* we stop it; data may be gone */
	h = data;
	why = how_ended(h);
	g_clear_object(&h->process);
	if (g_get_monotonic_time() - h->started > GOOD_RUN * G_USEC_PER_SEC)
		h->backoff = 0;
	h->backoff = h->backoff ? MIN(h->backoff * 2, BACKOFF_MAX) : 1;
	isd_log(LOG_WARNING, NULL, 0, "httpd has ended and will be started again in %u s: %s",
		h->backoff, why);
	h->timer = g_timeout_add_seconds(h->backoff, restart, h);
}

static gboolean prepare(IsdHttpd *h, GError **error)
{
	h->program = find_program(error);
	if (!h->program)
		return FALSE;
	h->module = find_module(error);
	return h->module && stop_stale(h, error) && check_port(h, error) && write_conf(h, error);
}

/* Where systemd's unit says, or in a directory with the number of the fileset. */
static char *conf_path(guint minor)
{
	const char *dir = g_getenv("CONFIGURATION_DIRECTORY");

	if (dir && *dir == '/')
		return g_build_filename(dir, "intersync.conf", NULL);
	return g_strdup_printf("/etc/intermezzo-%u/intersync.conf", minor);
}

IsdHttpd *isd_httpd_start(IsdCore *core, const char *address, guint port,
			  const IsdAccount *account, const char *gateway, GError **error)
{
	guint minor = le32toh(core->info.minor);
	IsdHttpd *h = g_new0(IsdHttpd, 1);

	h->core = core;
	h->address = g_strdup(address);
	h->port = port;
	h->account = account;
	h->gateway = g_strdup(gateway);
	h->conf = conf_path(minor);
	h->pidfile = g_strdup_printf("%s/%u/httpd.pid", ISD_RUN_DIR, minor);
	h->errlog = g_strdup_printf("%s/httpd-%u.error.log", ISD_LOG_DIR, minor);
	h->stopping = g_cancellable_new();
	if (prepare(h, error) && spawn(h, error) && wait_ready(h, error))
		return h;
	isd_httpd_stop(h);
	return NULL;
}

static gboolean wait_exit(const IsdHttpd *h, guint ms)
{
	for (; running(h); ms -= 10) {
		if (ms < 10)
			return FALSE;
		g_usleep(10000);
	}
	return TRUE;
}

/* Gracefully: transfers in flight have GracefulShutdownTimeout to end. */
static void end_process(IsdHttpd *h)
{
	static const int signals[] = { SIGWINCH, SIGTERM, SIGKILL };

	for (guint i = 0; i < G_N_ELEMENTS(signals) && running(h); i++) {
		g_subprocess_send_signal(h->process, signals[i]);
		wait_exit(h, 5000);
	}
}

void isd_httpd_stop(IsdHttpd *h)
{
	if (!h)
		return;
	g_cancellable_cancel(h->stopping);
	if (h->timer)
		g_source_remove(h->timer);
	end_process(h);
	g_clear_object(&h->process);
	g_object_unref(h->stopping);
	g_free(h->program);
	g_free(h->module);
	g_free(h->address);
	g_free(h->gateway);
	g_free(h->conf);
	g_free(h->pidfile);
	g_free(h->errlog);
	g_free(h);
}

pid_t isd_httpd_pid(const IsdHttpd *h)
{
	return running(h) ? atoi(g_subprocess_get_identifier(h->process)) : 0;
}

guint isd_httpd_restarts(const IsdHttpd *h)
{
	return h->restarts;
}
