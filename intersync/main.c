// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * intersync: keeps a mounted fileset and its replicas on other machines equal.
 * One process per mounted fileset, as its server or as a client of one.
 */
#include "config.h"

#include "daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include <glib-unix.h>

static char *opt_server, *opt_fset, *opt_listen, *opt_name, *opt_pidfile, *opt_conflicts;
static int opt_port, opt_keep_log;
static gboolean opt_insecure, opt_foreground, opt_version;

static const GOptionEntry options[] = {
	{ "server", 's', 0, G_OPTION_ARG_STRING, &opt_server,
	  "be a client of this server", "HOST[:PORT]" },
	{ "fset", 'f', 0, G_OPTION_ARG_STRING, &opt_fset,
	  "what the server calls the fileset, if not as it is called here", "NAME" },
	{ "conflicts", 'c', 0, G_OPTION_ARG_FILENAME, &opt_conflicts,
	  "client: the file that says which version of a file to keep", "FILE" },
	{ "listen", 'l', 0, G_OPTION_ARG_STRING, &opt_listen,
	  "serve on this address (default: this machine only)", "ADDRESS" },
	{ "port", 'p', 0, G_OPTION_ARG_INT, &opt_port,
	  "serve on this port (default: " G_STRINGIFY(ISD_PORT) ")", "PORT" },
	{ "keep-log", 'k', 0, G_OPTION_ARG_INT, &opt_keep_log,
	  "serve: keep so much of the log for clients that are behind (default: 1024)", "MIB" },
	{ "insecure", 0, 0, G_OPTION_ARG_NONE, &opt_insecure,
	  "allow plain HTTP to and from other machines", NULL },
	{ "name", 'n', 0, G_OPTION_ARG_STRING, &opt_name,
	  "what this replica is called (default: the host's name)", "NAME" },
	{ "foreground", 'F', 0, G_OPTION_ARG_NONE, &opt_foreground,
	  "stay in the foreground and log to stderr", NULL },
	{ "pidfile", 0, 0, G_OPTION_ARG_FILENAME, &opt_pidfile,
	  "write the process number there", "FILE" },
	{ "debug", 'd', 0, G_OPTION_ARG_INT, &isd_debug_bits,
	  "sum of INFO 1, KML 2, UPCALL 4, HTTP 8, REINT 16", "N" },
	{ "version", 'V', 0, G_OPTION_ARG_NONE, &opt_version, "show the version", NULL },
	{ NULL }
};

static int ready_fd = -1;	/* where the waiting parent listens */

G_GNUC_PRINTF(1, 2)
static int usage(const char *format, ...)
{
	va_list ap;

	fputs("intersync: ", stderr);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputs("\nTry 'intersync --help'.\n", stderr);
	return 2;
}

static int fail(const char *message)
{
	isd_log(LOG_ERR, NULL, 0, "%s", message);
	return 1;
}

/* 0, or the exit status */
static int check_options(void)
{
	if (opt_fset && !opt_server)
		return usage("--fset says what a server calls the fileset: it needs --server");
	if (opt_conflicts && !opt_server)
		return usage("--conflicts is for clients, a server has none: it needs --server");
	if (opt_server && (opt_listen || opt_port))
		return usage("--listen and --port are a server's, --server makes a client");
	if (opt_server && opt_keep_log)
		return usage("--keep-log is a server's, --server makes a client");
	if (opt_keep_log < 0)
		return usage("--keep-log=%d: a number of MiB, from 1 on", opt_keep_log);
	if (opt_port < 0 || opt_port > 65535)
		return usage("--port %d: a port is a number from 1 to 65535", opt_port);
	return 0;
}

/* Until there is TLS, what leaves the machine can be read and changed on its way. */
static int check_security(void)
{
	guint port = ISD_PORT;
	g_autofree char *host = NULL;

	if (!opt_server && !opt_listen)
		return 0;
	host = opt_server ? isd_address_host(opt_server, &port) : g_strdup(opt_listen);
	if (!host || !*host)
		return usage("--server=%s: HOST or HOST:PORT is needed", opt_server);
	if (opt_insecure || isd_address_is_loopback(host))
		return 0;
	return usage("%s is not this machine alone, and everything would go over the network "
		     "unencrypted and unchecked: if the network is trusted, say --insecure", host);
}

static int parse(int argc, char **argv)
{
	g_autoptr(GOptionContext) context = g_option_context_new("DIR");
	g_autoptr(GError) error = NULL;
	int rc;

	g_option_context_set_summary(context,
		"Serve the InterMezzo fileset mounted at DIR, or make it a client of a server.");
	g_option_context_add_main_entries(context, options, NULL);
	if (!g_option_context_parse(context, &argc, &argv, &error))
		return usage("%s", error->message);
	if (opt_version) {
		printf("intersync %s\n", PACKAGE_VERSION);
		exit(fflush(stdout) ? 1 : 0);
	}
	if (argc != 2)
		return usage(argc < 2 ? "the directory where the fileset is mounted is missing" :
				       "only one directory can be named");
	rc = check_options();
	return rc ? rc : check_security();
}

/* The parent ends with success only when the daemon says that it works. */
static void wait_until_ready(pid_t child, int fd)
{
	char ok;
	ssize_t n;
	int status;

	do
		n = read(fd, &ok, 1);
	while (n < 0 && errno == EINTR);
	if (n == 1)
		_exit(0);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	_exit(WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : 1);
}

static gboolean fork_daemon(void)
{
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return FALSE;
	pid = fork();
	if (pid < 0)
		return FALSE;
	if (pid > 0) {
		close(fds[1]);
		wait_until_ready(pid, fds[0]);
	}
	close(fds[0]);
	ready_fd = fds[1];
	setsid();
	return TRUE;
}

static void leave_terminal(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	char ok = 1;

	isd_log_background();
	if (chdir("/") < 0 || fd < 0)
		isd_log(LOG_WARNING, NULL, 0, "/: %s", g_strerror(errno));
	for (int i = 0; i < 3 && fd >= 0; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
	if (write(ready_fd, &ok, 1) < 0)
		isd_log(LOG_WARNING, NULL, 0, "who started this program has gone");
	close(ready_fd);
	ready_fd = -1;
}

/* Tell systemd, if it wants to know; the same as sd_notify(3). */
static void notify(const char *what)
{
	const char *path = g_getenv("NOTIFY_SOCKET");
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	socklen_t len;
	int fd;

	if (!path || !*path || strlen(path) >= sizeof(sa.sun_path))
		return;
	memcpy(sa.sun_path, path, strlen(path));
	if (sa.sun_path[0] == '@')
		sa.sun_path[0] = '\0';
	len = offsetof(struct sockaddr_un, sun_path) + strlen(path);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (sendto(fd, what, strlen(what), MSG_NOSIGNAL, (struct sockaddr *) &sa, len) < 0)
		isd_log(LOG_WARNING, NULL, 0, "%s: %s", path, g_strerror(errno));
	close(fd);
}

/* The main loop goes round: half as long as systemd waits for that. */
static gboolean on_watchdog(gpointer unused)
{
	notify("WATCHDOG=1");
	return G_SOURCE_CONTINUE;
}

static void start_watchdog(void)
{
	const char *text = g_getenv("WATCHDOG_USEC"), *pid = g_getenv("WATCHDOG_PID");
	guint64 us = text ? g_ascii_strtoull(text, NULL, 10) : 0;

	if (us >= 2000 && (!pid || g_ascii_strtoll(pid, NULL, 10) == getpid()))
		g_timeout_add(MIN(us / 2000, G_MAXUINT), on_watchdog, NULL);
}

static gboolean write_pidfile(GError **error)
{
	g_autofree char *text = g_strdup_printf("%d\n", (int) getpid());

	return !opt_pidfile || g_file_set_contents(opt_pidfile, text, -1, error);
}

static gboolean on_stop(gpointer core)
{
	isd_core_quit(core, 0, "told to stop");
	return G_SOURCE_CONTINUE;
}

static gboolean on_hup(gpointer unused)
{
	isd_log_reopen();
	return G_SOURCE_CONTINUE;
}

static gboolean start_role(IsdCore *core, GError **error)
{
	if (core->is_server) {
		IsdServerOptions o = {
			.listen = opt_listen,
			.port = opt_port ? opt_port : ISD_PORT,
			.insecure = opt_insecure,
			.keep = (guint64)opt_keep_log << 20,
		};

		core->log_grew = isd_server_log_grew;
		return isd_server_start(core, &o, error);
	}
	core->log_grew = isd_client_log_grew;
	return isd_client_start(core, &(IsdClientOptions) {
		.server = opt_server,
		.fset = opt_fset,
		.conflicts = opt_conflicts,
		.insecure = opt_insecure,
	}, error);
}

static void stop_role(IsdCore *core)
{
	if (!core->role)
		return;
	if (core->is_server)
		isd_server_stop(core);
	else
		isd_client_stop(core);
}

static int serve(IsdCore *core)
{
	int status;

	core->log_grew(core);
	isd_channel_watch_log(core->channel);
	isd_log(LOG_NOTICE, NULL, 0, "%s: started as %s", core->dir,
		core->is_server ? "server" : "client");
	if (ready_fd >= 0)
		leave_terminal();
	notify("READY=1");
	start_watchdog();
	status = isd_core_run(core);
	notify("STOPPING=1");
	isd_log(LOG_NOTICE, NULL, 0, "%s: stopped", core->dir);
	return status;
}

static int run(IsdCore *core)
{
	g_autoptr(GError) error = NULL;
	struct IsdControl *control;
	int status = 1;

	g_unix_signal_add(SIGTERM, on_stop, core);
	g_unix_signal_add(SIGINT, on_stop, core);
	g_unix_signal_add(SIGHUP, on_hup, NULL);
	control = isd_core_load(core, &error) ? isd_control_start(core, &error) : NULL;
	if (control && start_role(core, &error) && write_pidfile(&error))
		status = serve(core);
	else
		fail(error->message);
	stop_role(core);
	isd_control_stop(control);
	if (opt_pidfile)
		unlink(opt_pidfile);
	return status;
}

int main(int argc, char **argv)
{
	g_autoptr(GError) error = NULL;
	g_autofree char *dir = NULL;
	IsdCore *core;
	int rc = parse(argc, argv);

	if (rc)
		return rc;
	/* A small daemon stays small: no arena per thread, give back what is free. */
	mallopt(M_ARENA_MAX, 2);
	mallopt(M_TRIM_THRESHOLD, 256 * 1024);
	mallopt(M_MMAP_THRESHOLD, 128 * 1024);
	signal(SIGPIPE, SIG_IGN);
	umask(022);
	dir = g_canonicalize_filename(argv[1], NULL);
	if (opt_pidfile)
		opt_pidfile = g_canonicalize_filename(opt_pidfile, NULL);
	if (opt_conflicts)
		opt_conflicts = g_canonicalize_filename(opt_conflicts, NULL);
	isd_fault_init();
	isd_log_init(opt_foreground);
	if (!opt_foreground && !fork_daemon())
		return fail(g_strerror(errno));
	core = isd_core_new(dir, opt_name, !opt_server, &error);
	if (!core)
		return fail(error->message);
	rc = run(core);
	isd_core_free(core);
	return rc;
}
