// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * intermezzo-fuse: mounts a fileset through FUSE.  Started by the mount helper
 * with a descriptor of the lower file system's private mount; see
 * intermezzo-fuse(8).
 */
#include <config.h>

#include "fs.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/fuse.h>
#include <linux/mount.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "util.h"

#define MAX_WRITE	(1u << 20)
#define OPCODE_TMPFILE	51	/* the kernel's FUSE_TMPFILE, newer than some headers */
#define LML_MIB_MIN	4
#define LML_MIB_MAX	1024
#define THREADS_MAX	256
#define UNMOUNT_WAIT	10		/* seconds for those who still use it */


struct fs fs = {
	.opt = {
		.lower_fd = -1,
		.minor = -1,
		.options = "",
		.lml_mib = 8,
		.close_mib = 64,
		.close_sec = 30,
		.checkpoint_sec = 30,
		.threads = 16,
	},
	.root_fd = -1,
};

static bool use_syslog;

void complain(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (use_syslog) {
		vsyslog(LOG_ERR, fmt, ap);
	} else {
		fputs("intermezzo-fuse: ", stderr);
		vfprintf(stderr, fmt, ap);
		fputc('\n', stderr);
	}
	va_end(ap);
}

/* Options */

static const char usage_text[] =
	"usage: intermezzo-fuse {--lower-fd=N|--lower=DIR} --fileset=NAME [OPTION]...\n"
	"                       SOURCE MOUNTPOINT\n"
	"Mount a fileset through FUSE; mount(8) does it with -t intermezzo.\n"
	"\n"
	"  --lower-fd=N        descriptor of the lower file system's root\n"
	"  --lower=DIR         the lower file system's root as a directory\n"
	"  --fileset=NAME      the fileset to mount\n"
	"  --minor=N           number of the channel (default: the first free one)\n"
	"  --options=OPTS      mount options, separated by commas\n"
	"  --lml-size=MIB      size of a new lml (default 8)\n"
	"  --close-after=MIB   log a long-open file after so much was written (64)\n"
	"  --close-every=SEC   or after so long (30)\n"
	"  --checkpoint-every=SEC  make tree and log durable so often while there are\n"
	"                      changes (30)\n"
	"  --threads=N         threads that serve requests (16)\n"
	"  --foreground        stay in the foreground\n"
	"  --debug             show requests on stderr; implies --foreground\n"
	"  --fault=NAME:N      for tests: die at the Nth passage of a point\n"
	"  --help, --version\n";

enum {
	OPT_LOWER_FD = 256, OPT_LOWER, OPT_FILESET, OPT_MINOR, OPT_OPTIONS, OPT_FOREGROUND,
	OPT_DEBUG, OPT_LML_SIZE, OPT_CLOSE_AFTER, OPT_CLOSE_EVERY,
	OPT_CHECKPOINT_EVERY, OPT_THREADS, OPT_FAULT,
};

static const struct option long_options[] = {
	{ "lower-fd", required_argument, NULL, OPT_LOWER_FD },
	{ "lower", required_argument, NULL, OPT_LOWER },
	{ "fileset", required_argument, NULL, OPT_FILESET },
	{ "minor", required_argument, NULL, OPT_MINOR },
	{ "options", required_argument, NULL, OPT_OPTIONS },
	{ "foreground", no_argument, NULL, OPT_FOREGROUND },
	{ "debug", no_argument, NULL, OPT_DEBUG },
	{ "lml-size", required_argument, NULL, OPT_LML_SIZE },
	{ "close-after", required_argument, NULL, OPT_CLOSE_AFTER },
	{ "close-every", required_argument, NULL, OPT_CLOSE_EVERY },
	{ "checkpoint-every", required_argument, NULL, OPT_CHECKPOINT_EVERY },
	{ "threads", required_argument, NULL, OPT_THREADS },
	{ "fault", required_argument, NULL, OPT_FAULT },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{ NULL },
};

static void usage_error(const char *what, const char *arg)
{
	fprintf(stderr, "intermezzo-fuse: %s%s%s; see intermezzo-fuse --help\n", what,
		arg ? ": " : "", arg ? arg : "");
	exit(2);
}

static unsigned int number(const char *arg, unsigned int min, unsigned int max)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(arg, &end, 10);
	if (errno || *arg < '0' || *arg > '9' || *end || n < min || n > max)
		usage_error("not a number in the range allowed", arg);
	return n;
}

static void take_option(int c)
{
	struct options *o = &fs.opt;

	switch (c) {
	case OPT_LOWER_FD:
		o->lower_fd = number(optarg, 0, INT32_MAX);
		break;
	case OPT_LOWER:
		o->lower = optarg;
		break;
	case OPT_FILESET:
		o->fileset = optarg;
		break;
	case OPT_MINOR:
		o->minor = number(optarg, 0, 65535);
		break;
	case OPT_OPTIONS:
		o->options = optarg;
		break;
	case OPT_DEBUG:
		o->debug = true;
		o->foreground = true;
		break;
	case OPT_FOREGROUND:
		o->foreground = true;
		break;
	case OPT_LML_SIZE:
		o->lml_mib = number(optarg, LML_MIB_MIN, LML_MIB_MAX);
		break;
	case OPT_CLOSE_AFTER:
		o->close_mib = number(optarg, 0, INT32_MAX);
		break;
	case OPT_CLOSE_EVERY:
		o->close_sec = number(optarg, 0, INT32_MAX);
		break;
	case OPT_CHECKPOINT_EVERY:
		o->checkpoint_sec = number(optarg, 1, INT32_MAX);
		break;
	case OPT_THREADS:
		o->threads = number(optarg, 1, THREADS_MAX);
		break;
	case OPT_FAULT:
		if (fault_parse(optarg) != 0)
			usage_error("not NAME:N", optarg);
		break;
	case 'h':
		fputs(usage_text, stdout);
		exit(0);
	case 'V':
		puts("intermezzo-fuse (" PACKAGE_STRING ")");
		exit(0);
	default:
		usage_error("wrong option", NULL);
	}
}

static void parse(int argc, char **argv)
{
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, "hV", long_options, NULL)) != -1)
		take_option(c);
	if (argc - optind != 2)
		usage_error("SOURCE and MOUNTPOINT are needed", NULL);
	fs.opt.source = argv[optind];
	fs.opt.mountpoint = realpath(argv[optind + 1], NULL);
	if (!fs.opt.mountpoint) {
		complain("%s: %s", argv[optind + 1], strerror(errno));
		exit(1);
	}
	if (!fs.opt.fileset || !fileset_name_ok(fs.opt.fileset))
		usage_error("--fileset=NAME is needed: 1 to 63 of A-Z a-z 0-9 . _ -", NULL);
	if ((fs.opt.lower_fd >= 0) == (fs.opt.lower != NULL))
		usage_error("one of --lower-fd and --lower is needed", NULL);
}

/* The lower file system */

static int lower_clone(const char *dir)
{
	int fd = syscall(SYS_open_tree, AT_FDCWD, dir, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int lower_open(void)
{
	char path[sizeof(META_DIR) + KML_FSET_MAX + 1];
	int err;

	fs.root_fd = fs.opt.lower ? lower_clone(fs.opt.lower) : fs.opt.lower_fd;
	if (fs.root_fd < 0) {
		complain("%s: cannot clone the mount: %s", fs.opt.lower, strerror(-fs.root_fd));
		return fs.root_fd;
	}
	(void) fcntl(fs.root_fd, F_SETFD, FD_CLOEXEC);
	fs.mount_fd = openat(fs.root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fs.proc_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fs.mount_fd < 0 || fs.proc_fd < 0) {
		err = -errno;
		complain("%s: %s", fs.mount_fd < 0 ? fs.opt.source : "/proc/self/fd",
			 strerror(errno));
		return err;
	}
	snprintf(path, sizeof(path), META_DIR "/%s", fs.opt.fileset);
	fs.meta_fd = openat(fs.root_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fs.meta_fd < 0) {
		err = -errno;
		complain("%s: no fileset %s there (%s); mkizofs makes one", fs.opt.source,
			 fs.opt.fileset, strerror(errno));
		return err;
	}
	if (mkdirat(fs.meta_fd, "incoming", 0700) != 0 && errno != EEXIST)
		return -errno;
	fs.incoming_fd = openat(fs.meta_fd, "incoming",
				O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fs.incoming_fd < 0 ? -errno : 0;
}

/* FUSE */

static void want(struct fuse_conn_info *conn, unsigned int caps)
{
	conn->want |= conn->capable & caps;
}

/*
 * No AUTO_INVAL_DATA: what changes content behind the kernel's back tells it
 * so, and a file that was written keeps its pages.
 */
static void ll_init(void *userdata, struct fuse_conn_info *conn)
{
	conn->want &= ~(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_WRITEBACK_CACHE |
			FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_SPLICE_READ |
			FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_POSIX_LOCKS);
	want(conn, FUSE_CAP_ASYNC_READ | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_EXPORT_SUPPORT |
		   FUSE_CAP_DONT_MASK | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_READDIRPLUS |
		   FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS |
		   FUSE_CAP_POSIX_ACL | FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_EXPLICIT_INVAL_DATA);
	conn->max_write = MAX_WRITE;
	conn->max_background = 64;
	conn->congestion_threshold = 48;
	conn->time_gran = 1;
}

static const struct fuse_lowlevel_ops ops = {
	.init = ll_init,
	.lookup = ll_lookup,
	.forget = ll_forget,
	.forget_multi = ll_forget_multi,
	.getattr = ll_getattr,
	.setattr = ll_setattr,
	.readlink = ll_readlink,
	.mknod = ll_mknod,
	.mkdir = ll_mkdir,
	.symlink = ll_symlink,
	.unlink = ll_unlink,
	.rmdir = ll_rmdir,
	.rename = ll_rename,
	.link = ll_link,
	.create = ll_create,
	.open = ll_open,
	.read = ll_read,
	.write = ll_write,
	.flush = ll_flush,
	.release = ll_release,
	.fsync = ll_fsync,
	.fallocate = ll_fallocate,
	.copy_file_range = ll_copy_file_range,
	.lseek = ll_lseek,
	.opendir = ll_opendir,
	.readdir = ll_readdir,
	.readdirplus = ll_readdirplus,
	.releasedir = ll_releasedir,
	.fsyncdir = ll_fsyncdir,
	.statfs = ll_statfs,
	.setxattr = ll_setxattr,
	.getxattr = ll_getxattr,
	.listxattr = ll_listxattr,
	.removexattr = ll_removexattr,
};

/*
 * O_TMPFILE is unknown to older libfuse.  The request has the form of CREATE
 * with a name that no file can have, so it becomes that; see ll_create().
 */
static void adapt(struct fuse_buf *buf)
{
	struct fuse_in_header *h = buf->mem;

	if (!(buf->flags & FUSE_BUF_IS_FD) && buf->size >= sizeof(*h) &&
	    h->opcode == OPCODE_TMPFILE)
		h->opcode = FUSE_CREATE;
}

static void *serve(void *arg)
{
	struct fuse_buf buf = { .mem = NULL };
	int n;

	(void) worker_init();
	while (!fuse_session_exited(fs.se)) {
		n = fuse_session_receive_buf(fs.se, &buf);
		if (n == -EINTR)
			continue;
		if (n <= 0)
			break;
		adapt(&buf);
		fuse_session_process_buf(fs.se, &buf);
	}
	/* the others sit in read() until there is a request: none comes any more */
	fuse_session_exit(fs.se);
	free(buf.mem);
	return NULL;
}

/* A comma in the source ends an option unless it is escaped. */
static char *mount_options(void)
{
	const char *s = fs.opt.source;
	size_t size = 2 * strlen(s) + strlen(fs.opt.options) + 128;
	char *o = malloc(size), *p;

	if (!o)
		return NULL;
	p = o + sprintf(o, "allow_other,default_permissions,dev,suid,subtype=intermezzo,fsname=");
	for (; *s; s++) {
		if (*s == ',' || *s == '\\')
			*p++ = '\\';
		*p++ = *s;
	}
	sprintf(p, "%s%s", *fs.opt.options ? "," : "", fs.opt.options);
	return o;
}

static int session_make(void)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	char *options = mount_options();
	int err = -ENOMEM;

	if (!options)
		return err;
	if (fuse_opt_add_arg(&args, "intermezzo-fuse") == 0 &&
	    fuse_opt_add_arg(&args, "-o") == 0 && fuse_opt_add_arg(&args, options) == 0 &&
	    (!fs.opt.debug || fuse_opt_add_arg(&args, "-d") == 0)) {
		fs.se = fuse_session_new(&args, &ops, sizeof(ops), NULL);
		err = fs.se ? 0 : -EINVAL;
	}
	fuse_opt_free_args(&args);
	free(options);
	if (!err && fuse_session_mount(fs.se, fs.opt.mountpoint) != 0) {
		fuse_session_destroy(fs.se);
		fs.se = NULL;
		err = -EINVAL;
	}
	return err;
}

/* Life and death */

static pthread_t threads[THREADS_MAX];
static atomic_uint n_serving;

static void *serve_and_tell(void *arg)
{
	serve(arg);
	/* the last one wakes the main thread */
	if (atomic_fetch_sub(&n_serving, 1) == 1)
		kill(getpid(), SIGUSR1);
	return NULL;
}

static int start_threads(void)
{
	unsigned int k;
	int err;

	n_serving = fs.opt.threads;
	for (k = 0; k < fs.opt.threads; k++) {
		err = pthread_create(&threads[k], NULL, serve_and_tell, NULL);
		if (err)
			return -err;
	}
	return 0;
}

/* Unmount on SIGTERM: others may go on until they close, but not for ever. */
static void unmount(void)
{
	const struct timespec wait = { UNMOUNT_WAIT, 0 };
	sigset_t set;
	int fd;

	fd = open(fs.opt.mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		(void) syncfs(fd);
		close(fd);
	}
	if (umount2(fs.opt.mountpoint, 0) != 0)
		(void) umount2(fs.opt.mountpoint, MNT_DETACH);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	while (sigtimedwait(&set, NULL, &wait) < 0 && errno == EINTR)
		;
}

/* Until the file system is unmounted or a signal says so. */
static void wait_for_end(void)
{
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	do {
		if (sigwait(&set, &sig) != 0)
			sig = SIGTERM;
	} while (sig == SIGHUP);
	if (sig != SIGUSR1)
		unmount();
}

static void block_signals(void)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
}

/* From here on messages go to the system's log. */
static void detach(void)
{
	int null = open("/dev/null", O_RDWR);

	openlog("intermezzo-fuse", LOG_PID, LOG_DAEMON);
	use_syslog = true;
	setsid();
	if (chdir("/") != 0 || null < 0)
		return;
	dup2(null, 0);
	dup2(null, 1);
	dup2(null, 2);
	if (null > 2)
		close(null);
}

/* tell: a pipe to the parent, which waits until the mount answers. */
static int run(int tell)
{
	struct stat st;
	int err;

	block_signals();
	err = lower_open();
	if (!err)
		err = inode_init();
	if (!err)
		err = journal_open();
	if (!err)
		err = channel_listen();
	if (err)
		return err;
	err = session_make();
	if (err) {
		complain("%s: cannot be mounted on %s", fs.opt.source, fs.opt.mountpoint);
		return err;
	}
	err = journal_start();
	if (!err)
		err = channel_start();
	if (!err)
		err = start_threads();
	if (err) {
		complain("%s: cannot start: %s", fs.opt.source, strerror(-err));
		fuse_session_unmount(fs.se);
		return err;
	}
	if (stat(fs.opt.mountpoint, &st) != 0)
		complain("%s: does not answer: %s", fs.opt.mountpoint, strerror(errno));
	if (tell >= 0) {
		detach();
		if (write(tell, "", 1) != 1)
			complain("%s: the program that mounts it is gone", fs.opt.source);
		close(tell);
	}
	wait_for_end();
	fs.stopping = true;
	channel_stop();
	session_log_all(true);
	journal_stop();
	return 0;
}

/* The parent's exit status: what the child says, or how it ended. */
static int await(int fd, pid_t child)
{
	char c;
	int status;
	ssize_t n;

	do {
		n = read(fd, &c, 1);
	} while (n < 0 && errno == EINTR);
	if (n == 1)
		return 0;
	if (waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status))
		return WEXITSTATUS(status);
	return 1;
}

int main(int argc, char **argv)
{
	int tell[2];
	pid_t child;

	parse(argc, argv);
	if (fs.opt.foreground)
		return run(-1) ? 1 : 0;
	if (pipe2(tell, O_CLOEXEC) != 0) {
		complain("%s: %s", fs.opt.source, strerror(errno));
		return 1;
	}
	child = fork();
	if (child < 0) {
		complain("%s: %s", fs.opt.source, strerror(errno));
		return 1;
	}
	if (child) {
		close(tell[1]);
		return await(tell[0], child);
	}
	close(tell[0]);
	return run(tell[1]) ? 1 : 0;
}
