// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * mount.intermezzo and mount.vintermezzo: what mount(8) runs for `mount -t intermezzo`.
 * The kernel's file system where there is one, else intermezzo-fuse, which gets
 * the lower root as a descriptor.  See mount.intermezzo(8).
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mount.h"

static const char *program = "mount.intermezzo";

void say(const char *format, ...)
{
	va_list args;

	fprintf(stderr, "%s: ", program);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

static void usage(FILE *f)
{
	fprintf(f, "Usage: %s SOURCE DIR [-fhnrsvVw] [-t TYPE] [-o OPTION[,OPTION]...]\n"
		"\n"
		"Helper of mount(8) for InterMezzo.  SOURCE is a block device, an image file or\n"
		"a directory on which mkizofs has made a fileset.\n"
		"\n"
		"Options: fileset=NAME cache_type=TYPE channel=/dev/intermezzoN mtpt=DIR loop\n"
		"backend=auto|kernel|fuse lowerdir=DIR, those of mount(8), and those of the\n"
		"lower file system.  See mount.intermezzo(8).\n", program);
}

/* -t TYPE, from mount(8) when it was called for another name of the type */
static int set_type(struct mount_options *o, const char *type)
{
	const char *dot = strchr(type, '.');

	if (dot && strncmp(type, "fuse.", 5) == 0)
		type = dot + 1;
	if (strcmp(type, "vintermezzo") == 0) {
		o->virtual = true;
	} else if (strcmp(type, "intermezzo") != 0) {
		say("-t %s: not a type of ours", type);
		return EX_USAGE;
	}
	return 0;
}

static int parse_flag(struct mount_options *o, int c)
{
	switch (c) {
	case 'f':
		o->fake = true;
		return 0;
	case 'v':
		o->verbose = true;
		return 0;
	case 'r':
		return options_parse(o, "ro");
	case 'w':
		return options_parse(o, "rw");
	case 'o':
		return options_parse(o, optarg);
	case 't':
		return set_type(o, optarg);
	case 'n':	/* there is no mtab */
	case 's':	/* what we do not know is for the lower file system anyway */
		return 0;
	case 'h':
		usage(stdout);
		exit(0);
	case 'V':
		printf("%s (%s) %s\n", program, PACKAGE_NAME, PACKAGE_VERSION);
		exit(0);
	default:
		usage(stderr);
		return EX_USAGE;
	}
}

/* /proc/mounts is to show a path that means something everywhere. */
static void full_source(struct mount_options *o)
{
	static char path[PATH_MAX];

	if (!o->virtual && !o->lowerdir && realpath(o->source, path))
		o->source = path;
}

/* mount(8) puts SOURCE and DIR first: GNU getopt finds them anywhere. */
static int parse(int argc, char **argv, struct mount_options *o)
{
	int c, rc;

	while ((c = getopt(argc, argv, "fhno:rst:vVw")) != -1) {
		rc = parse_flag(o, c);
		if (rc)
			return rc;
	}
	if (argc - optind != 2) {
		usage(stderr);
		return EX_USAGE;
	}
	o->source = argv[optind];
	o->dir = argv[optind + 1];
	rc = options_check(o);
	if (!rc)
		full_source(o);
	return rc;
}

static int check_dir(const struct mount_options *o)
{
	struct stat st;

	if (stat(o->dir, &st)) {
		say("%s: %s", o->dir, strerror(errno));
		return EX_FAIL;
	}
	if (!S_ISDIR(st.st_mode)) {
		say("%s: mount point is not a directory", o->dir);
		return EX_FAIL;
	}
	return 0;
}

/* The kernel's file system */

static int mount_kernel(struct mount_options *o, const char *type)
{
	char device[32];
	const char *source;
	int loop_fd, rc = 0;

	loop_fd = lower_side_device(o, device, &source);
	if (loop_fd < -1)
		return -(loop_fd + 1);
	if (o->verbose)
		printf("%s: %s on %s, the kernel's\n", program,
		       o->lowerdir ? o->lowerdir : o->source, o->dir);
	if (!o->fake)
		rc = kernel_side_mount(o, type, source);
	if (loop_fd >= 0)
		close(loop_fd);
	return rc;
}

/* FUSE */

/* Where intermezzo-fuse is: told, beside us in the build tree, or installed. */
static const char *fuse_program(char buf[PATH_MAX])
{
	const char *told = getenv("INTERMEZZO_FUSE");
	char exe[PATH_MAX];
	const char *dir;
	ssize_t n;

	if (told && *told)
		return told;
	n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (n > 0) {
		exe[n] = 0;
		dir = dirname(exe);
		if (snprintf(buf, PATH_MAX, "%s/../fuse/intermezzo-fuse", dir) < PATH_MAX &&
		    n > 6 && strcmp(dir + strlen(dir) - 6, "/mount") == 0 &&
		    access(buf, X_OK) == 0)
			return buf;
	}
	return SBINDIR "/intermezzo-fuse";
}

static void exec_fuse(const struct mount_options *o, int root_fd)
{
	char fd[32], fileset[80], minor[32], *options = NULL, path[PATH_MAX];
	const char *argv[10], *prog = fuse_program(path);
	int n = 0;

	snprintf(fd, sizeof(fd), "--lower-fd=%d", root_fd);
	snprintf(fileset, sizeof(fileset), "--fileset=%s", o->fileset);
	snprintf(minor, sizeof(minor), "--minor=%d", o->minor);
	argv[n++] = prog;
	argv[n++] = fd;
	argv[n++] = fileset;
	if (o->minor >= 0)
		argv[n++] = minor;
	if (o->fuse && asprintf(&options, "--options=%s", o->fuse) < 0)
		_exit(EX_SYSERR);
	if (options)
		argv[n++] = options;
	argv[n++] = o->lowerdir ? o->lowerdir : o->source;
	argv[n++] = o->dir;
	argv[n] = NULL;
	if (fcntl(root_fd, F_SETFD, 0) == 0)
		execv(prog, (char **) argv);
	say("cannot run %s: %s", prog, strerror(errno));
	_exit(EX_SYSERR);
}

/* intermezzo-fuse goes to the background once it is mounted. */
static int run_fuse(const struct mount_options *o, int root_fd)
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		say("%s", strerror(errno));
		return EX_SYSERR;
	}
	if (pid == 0)
		exec_fuse(o, root_fd);
	while (waitpid(pid, &status, 0) < 0) {
		if (errno == EINTR)
			continue;
		say("%s", strerror(errno));
		return EX_SYSERR;
	}
	if (WIFSIGNALED(status))
		say("%s: intermezzo-fuse was killed by signal %d", o->dir, WTERMSIG(status));
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	return WIFEXITED(status) && WEXITSTATUS(status) == EX_SYSERR ? EX_SYSERR : EX_FAIL;
}

static int mount_fuse(struct mount_options *o)
{
	int fd, rc = 0;

	fd = lower_side_open(o);
	if (fd < 0)
		return -fd;
	if (o->verbose)
		printf("%s: fileset %s of %s on %s, FUSE\n", program, o->fileset,
		       o->lowerdir ? o->lowerdir : o->source, o->dir);
	if (!o->fake)
		rc = run_fuse(o, fd);
	close(fd);
	return rc;
}

/* mount(8) leaves this to its helpers. */
static bool may_be_missing(const struct mount_options *o)
{
	struct stat st;

	return o->nofail && !o->virtual && stat(o->source, &st) && errno == ENOENT;
}

static int mount_any(struct mount_options *o)
{
	const char *type = o->virtual ? "vintermezzo" : "intermezzo";
	bool kernel = o->backend == BACKEND_KERNEL;

	if (may_be_missing(o))
		return 0;
	if (o->backend == BACKEND_AUTO)
		kernel = kernel_side_has(type);
	return kernel ? mount_kernel(o, type) : mount_fuse(o);
}

int main(int argc, char **argv)
{
	struct mount_options o = { .minor = -1 };
	int rc;

	if (argc > 0 && strcmp(basename(argv[0]), "mount.vintermezzo") == 0) {
		program = "mount.vintermezzo";
		o.virtual = true;
	}
	rc = parse(argc, argv, &o);
	if (!rc && geteuid() != 0) {
		say("must be run as root");
		rc = EX_USAGE;
	}
	if (!rc)
		rc = check_dir(&o);
	if (!rc)
		rc = mount_any(&o);
	options_free(&o);
	return rc;
}
