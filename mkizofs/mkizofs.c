// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * mkizofs: make a fileset on a block device, in an image file, or of a directory
 * that exists.  See mkizofs(8).
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <intermezzo/channel.h>

#include "fileset.h"
#include "lower.h"
#include "mkfs.h"
#include "util.h"

struct options {
	const char	*fileset;
	const char	*type;
	uint64_t	size;
	bool		has_size, has_type, force;
	const char	*target;
};

static volatile sig_atomic_t stop;

static void on_signal(int sig)
{
	stop = sig;
}

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
	va_list args;

	fprintf(stderr, "mkizofs: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

static void usage(FILE *f)
{
	fprintf(f, "Usage: mkizofs [-r FILESET] [-t TYPE] [-s SIZE] [-f] TARGET\n"
		"\n"
		"Make an InterMezzo fileset on TARGET: a block device, an image file, or a\n"
		"directory, whose files then belong to the fileset as they are.\n"
		"\n"
		"  -r, --fileset=FILESET  name of the fileset (" FILESET_DEFAULT ")\n"
		"  -t, --type=TYPE        file system to make: " MKFS_TYPES " (ext4)\n"
		"  -s, --size=SIZE        make the image file; K, M, G, T for powers of 1024\n"
		"  -f, --force            overwrite what is there; replace an older fileset\n"
		"  -h, --help             this text\n"
		"  -V, --version          the version\n");
}

static bool parse_size(const char *text, uint64_t *ret_size)
{
	static const char units[] = "KMGT";
	unsigned long long n;
	const char *unit;
	int shift = 0;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno)
		return false;
	unit = *end ? strchr(units, *end >= 'a' ? *end - 32 : *end) : NULL;
	if (unit) {
		shift = (unit - units + 1) * 10;
		end++;
	}
	if (*end || !n || n > (uint64_t) INT64_MAX >> shift)
		return false;
	*ret_size = n << shift;
	return true;
}

/* 0, or the exit status + 1 */
static int parse_option(int c, struct options *o)
{
	switch (c) {
	case 'r':
		o->fileset = optarg;
		return 0;
	case 't':
		o->type = optarg;
		o->has_type = true;
		return 0;
	case 's':
		o->has_size = true;
		if (parse_size(optarg, &o->size))
			return 0;
		say("-s %s: no size; say for example 500M or 10G", optarg);
		return 2;
	case 'f':
		o->force = true;
		return 0;
	case 'h':
		usage(stdout);
		return 1;
	case 'V':
		printf("mkizofs (%s) %s\n", PACKAGE_NAME, PACKAGE_VERSION);
		return 1;
	default:
		usage(stderr);
		return 2;
	}
}

static int check_options(const struct options *o)
{
	if (!fileset_name_ok(o->fileset)) {
		say("%s: no name for a fileset: 1 to 63 of A-Z a-z 0-9 . _ -, not beginning with . or -",
		    o->fileset);
		return 2;
	}
	if (!mkfs_type_ok(o->type)) {
		say("-t %s: not known; known are " MKFS_TYPES, o->type);
		return 2;
	}
	return 0;
}

static int parse_options(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{ "fileset", required_argument, NULL, 'r' },
		{ "type", required_argument, NULL, 't' },
		{ "size", required_argument, NULL, 's' },
		{ "force", no_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL }
	};
	int c, rc;

	while ((c = getopt_long(argc, argv, "r:t:s:fhV", longs, NULL)) != -1) {
		rc = parse_option(c, o);
		if (rc)
			return rc;
	}
	if (optind != argc - 1) {
		usage(stderr);
		return 2;
	}
	o->target = argv[optind];
	return check_options(o);
}

/* Make the fileset in the tree at root_fd, tell of it.  0 or -errno, said. */
static int make_fileset(const struct options *o, int root_fd, bool adopt)
{
	struct catalog_report report;
	int rc;

	rc = fileset_make(root_fd, o->fileset, o->force, &stop, &report);
	if (rc) {
		say("%s: %s", o->target, report.why);
		return rc;
	}
	if (syncfs(root_fd)) {
		rc = -errno;
		say("%s: %s", o->target, strerror(-rc));
		return rc;
	}
	if (report.outside)
		say("warning: %" PRIu64 " hard-linked file%s of %s also ha%s names outside of it; "
		    "what is written through those is not noticed", report.outside,
		    report.outside == 1 ? "" : "s", o->target, report.outside == 1 ? "s" : "ve");
	if (adopt)
		printf("%s: %s, %" PRIu64 " files and directories\n", o->target, o->fileset,
		       report.objects);
	else
		printf("%s: %s, new %s file system\n", o->target, o->fileset, o->type);
	return 0;
}

static int adopt(const struct options *o)
{
	int fd, rc;

	if (o->has_size || o->has_type) {
		say("%s is a directory: its file system is used as it is, without -%c",
		    o->target, o->has_size ? 's' : 't');
		return -EINVAL;
	}
	fd = open(o->target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		rc = -errno;
		say("%s: %s", o->target, strerror(-rc));
		return rc;
	}
	if (fgetxattr(fd, IZO_XATTR_FILESET, NULL, 0) >= 0) {
		say("%s is a mounted fileset; unmount it first", o->target);
		rc = -EBUSY;
	} else {
		rc = make_fileset(o, fd, true);
	}
	close(fd);
	return rc;
}

/* Nothing may be lost: 0 if the device or image at fd may be formatted. */
static int check_content(const struct options *o, int fd)
{
	char what[64];
	int rc = mkfs_installed(o->type);

	if (rc)
		return rc;
	rc = lower_probe(fd, what, sizeof(what));
	if (rc < 0) {
		say("%s: cannot be read: %s", o->target, strerror(-rc));
		return rc;
	}
	if (rc && !o->force) {
		say("%s holds a file system or data already (%s); -f overwrites it", o->target, what);
		return -EEXIST;
	}
	rc = rc ? lower_wipe(fd) : 0;
	if (rc)
		say("%s: cannot be written: %s", o->target, strerror(-rc));
	return rc;
}

/* mkfs and the fileset on a device that is ours. */
static int format(const struct options *o, const char *device)
{
	char why[512];
	int root_fd, rc;

	rc = mkfs_run(o->type, device);
	if (rc) {
		say("%s: no %s file system was made", o->target, o->type);
		return rc;
	}
	if (stop) {
		say("%s: interrupted", o->target);
		return -EINTR;
	}
	root_fd = lower_mount(o->type, device, NULL, 0, why, sizeof(why));
	if (root_fd < 0) {
		say("%s: cannot mount the new file system: %s", o->target, why);
		return root_fd;
	}
	rc = make_fileset(o, root_fd, false);
	close(root_fd);
	return rc;
}

/* An error or a signal: leave nothing that looks like something. */
static void wipe_device(const char *path)
{
	int fd = open(path, O_RDWR | O_EXCL | O_CLOEXEC);

	if (fd < 0)
		return;
	lower_wipe(fd);
	close(fd);
}

static int format_device(const struct options *o)
{
	int fd, rc;

	if (o->has_size) {
		say("%s is a device: -s is for image files", o->target);
		return -EINVAL;
	}
	/* O_EXCL: whoever mounted it, or uses it for RAID, LVM or swap, has it */
	fd = open(o->target, O_RDWR | O_EXCL | O_CLOEXEC);
	if (fd < 0) {
		rc = -errno;
		say("%s: %s", o->target, rc == -EBUSY ?
		    "is mounted or otherwise in use" : strerror(-rc));
		return rc;
	}
	rc = check_content(o, fd);
	close(fd);
	if (rc)
		return rc;
	rc = format(o, o->target);
	if (rc)
		wipe_device(o->target);
	return rc;
}

/* Open the image, made if -s says how large.  *ret_made: remove it again on failure. */
static int open_image(const struct options *o, bool *ret_made)
{
	int fd, rc;

	*ret_made = false;
	fd = open(o->target, O_RDWR | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT && o->has_size) {
		fd = open(o->target, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		*ret_made = fd >= 0;
	} else if (fd < 0 && errno == ENOENT) {
		say("%s does not exist; -s SIZE makes an image file", o->target);
		return -ENOENT;
	}
	if (fd < 0) {
		rc = -errno;
		say("%s: %s", o->target, strerror(-rc));
		return rc;
	}
	return fd;
}

static int resize_image(const struct options *o, int fd)
{
	struct stat st;
	int rc;

	if (o->has_size && ftruncate(fd, o->size)) {
		rc = -errno;
		say("%s: %s", o->target, strerror(-rc));
		return rc;
	}
	if (fstat(fd, &st))
		return -errno;
	if (st.st_size)
		return 0;
	say("%s is empty; -s SIZE says how large it is to be", o->target);
	return -EINVAL;
}

static int format_image(const struct options *o, int fd)
{
	char device[32];
	int loop_fd, rc;

	rc = check_content(o, fd);
	if (rc)
		return rc;
	rc = resize_image(o, fd);
	if (rc)
		return rc;
	loop_fd = lower_loop(fd, false, device);
	if (loop_fd < 0) {
		say("%s: %s", o->target, loop_fd == -EBUSY ? "is mounted or otherwise in use" :
		    loop_fd == -ENOENT ? "no loop devices here: modprobe loop" :
		    strerror(-loop_fd));
		return loop_fd;
	}
	rc = format(o, device);
	close(loop_fd);
	if (!rc && fsync(fd))
		rc = -errno;
	if (rc)
		lower_wipe(fd);
	return rc;
}

/* In use is to be found out before anything is looked at or written. */
static int image(const struct options *o)
{
	bool made;
	int fd, rc;

	fd = open_image(o, &made);
	if (fd < 0)
		return fd;
	rc = lower_image_free(fd);
	if (rc)
		say("%s: %s", o->target, rc == -EBUSY ? "is mounted or otherwise in use" :
		    strerror(-rc));
	else
		rc = format_image(o, fd);
	if (rc && made)
		unlink(o->target);
	close(fd);
	return rc;
}

static int run(const struct options *o)
{
	struct stat st;

	if (stat(o->target, &st)) {
		if (errno != ENOENT) {
			say("%s: %s", o->target, strerror(errno));
			return -errno;
		}
		return image(o);
	}
	if (S_ISDIR(st.st_mode))
		return adopt(o);
	if (S_ISBLK(st.st_mode))
		return format_device(o);
	if (S_ISREG(st.st_mode))
		return image(o);
	say("%s: no block device, no file, no directory", o->target);
	return -EINVAL;
}

/*
 * Signals end the run at a point where it can clean up.  mkfs, in the same
 * process group, gets those of the terminal itself.
 */
static void catch_signals(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction sa = { .sa_handler = on_signal };
	size_t i;

	sigemptyset(&sa.sa_mask);
	for (i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &sa, NULL);
}

int main(int argc, char **argv)
{
	struct options o = { .fileset = FILESET_DEFAULT, .type = "ext4" };
	int rc = parse_options(argc, argv, &o);

	if (rc)
		return rc - 1;
	if (geteuid() != 0) {
		say("must be run as root");
		return 1;
	}
	catch_signals();
	rc = run(&o);
	if (fflush(stdout) || ferror(stdout)) {
		say("standard output: %s", strerror(errno));
		return 1;
	}
	return rc ? 1 : 0;
}
