// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What is below the mount to be: a device, an image, a directory or a new tmpfs,
 * mounted where only we can reach it, and the fileset in it.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fileset.h"
#include "lower.h"
#include "mount.h"

#define WAIT_SECONDS	10
#define TMPFS_OPTIONS	"mode=0755"

static int fail(const char *object, const char *what)
{
	say("%s: %s", object, what);
	return -EX_FAIL;
}

static bool is_ext(const char *type)
{
	return !strcmp(type, "ext2") || !strcmp(type, "ext3") || !strcmp(type, "ext4");
}

static void plain_field(char *s)
{
	char *d = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] && s[2] && s[3]) {
			*d++ = (s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0');
			s += 3;
		} else {
			*d++ = *s;
		}
	}
	*d = 0;
}

/* The kernel's file system shows the loop device in place of the image. */
static bool backed_by(const char *device, const char *image)
{
	char path[64], line[PATH_MAX + 2];
	bool same = false;
	FILE *f;

	if (strncmp(device, "/dev/loop", 9) != 0)
		return false;
	snprintf(path, sizeof(path), "/sys/block/%.16s/loop/backing_file", device + 5);
	f = fopen(path, "re");
	if (!f)
		return false;
	if (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		same = strcmp(line, image) == 0;
	}
	fclose(f);
	return same;
}

/* Does /proc/self/mounts show something mounted from this source? */
static bool shown_mounted(const char *source)
{
	FILE *f = fopen("/proc/self/mounts", "re");
	char *line = NULL;
	bool found = false;
	size_t size = 0;

	if (!f)
		return false;
	while (!found && getline(&line, &size, f) > 0) {
		line[strcspn(line, " ")] = 0;
		plain_field(line);
		found = strcmp(line, source) == 0 || backed_by(line, source);
	}
	free(line);
	fclose(f);
	return found;
}

/*
 * umount(2) of a FUSE file system does not wait for its process, which then still has
 * to write out and leave the lower one.  So what nobody has mounted any
 * more gets time to become free: true, try again.
 */
static bool wait_free(const struct mount_options *o, unsigned int *tries)
{
	const char *source = o->lowerdir ? o->lowerdir : o->source;
	const struct timespec tenth = { .tv_nsec = 100000000 };

	if (++*tries > WAIT_SECONDS * 10 || shown_mounted(source))
		return false;
	nanosleep(&tenth, NULL);
	return true;
}

/*
 * The type to mount: what is there.  cache_type= is what somebody expects; the
 * members of the ext family stand for each other, as old lines say ext3.
 */
static int find_type(const struct mount_options *o, const char *device, char ret_type[64])
{
	int fd, rc;

	fd = open(device, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return fail(o->source, strerror(errno));
	rc = lower_probe(fd, ret_type, 64);
	close(fd);
	if (rc < 0)
		return fail(o->source, strerror(-rc));
	if (!rc)
		return fail(o->source, "holds no file system; run mkizofs first");
	if (!o->cache_type || !strcmp(o->cache_type, "auto") ||
	    !strcmp(o->cache_type, ret_type) || (is_ext(o->cache_type) && is_ext(ret_type)))
		return 0;
	say("%s: holds %s, not %s as cache_type= says", o->source, ret_type, o->cache_type);
	return -EX_FAIL;
}

static int wait_device(const struct mount_options *o, const char *device)
{
	unsigned int tries = 0;
	int rc;

	while ((rc = lower_device_free(device)) == -EBUSY && wait_free(o, &tries))
		;
	if (rc)
		return fail(o->source, rc == -EBUSY ? "is mounted or otherwise in use" :
			    strerror(-rc));
	return 0;
}

static int open_device(const struct mount_options *o, const char *device)
{
	char type[64], why[512];
	int fd, rc;

	rc = wait_device(o, device);
	if (rc)
		return rc;
	rc = find_type(o, device, type);
	if (rc)
		return rc;
	fd = lower_mount(type, device, o->lower, o->lower_attrs, why, sizeof(why));
	return fd < 0 ? fail(o->source, why) : fd;
}

static int attach(const struct mount_options *o, char ret_path[32])
{
	unsigned int tries = 0;
	int image_fd, fd;

	image_fd = open(o->source, O_RDWR | O_CLOEXEC);
	if (image_fd < 0)
		return fail(o->source, strerror(errno));
	while ((fd = lower_loop(image_fd, false, ret_path)) == -EBUSY && wait_free(o, &tries))
		;
	close(image_fd);
	if (fd == -EBUSY)
		return fail(o->source, "is mounted or otherwise in use");
	if (fd == -ENOENT)
		return fail(o->source, "no loop devices here: modprobe loop");
	return fd < 0 ? fail(o->source, strerror(-fd)) : fd;
}

static int open_image(const struct mount_options *o)
{
	char device[32];
	int loop_fd, fd;

	loop_fd = attach(o, device);
	if (loop_fd < 0)
		return loop_fd;
	fd = open_device(o, device);
	close(loop_fd);
	return fd;
}

static int open_directory(const struct mount_options *o, const char *dir)
{
	char why[512];
	int fd;

	if (o->lower) {
		say("%s: option %s is not known", dir, o->lower);
		return -EX_USAGE;
	}
	fd = lower_clone(dir, o->lower_attrs, why, sizeof(why));
	return fd < 0 ? fail(dir, why) : fd;
}

/* vintermezzo: a file system that begins and ends with the mount */
static int open_virtual(struct mount_options *o)
{
	const char *type = o->cache_type ? o->cache_type : "tmpfs";
	struct catalog_report report;
	char why[512], *options;
	int fd, rc;

	if (!o->fileset && !(o->fileset = strdup(FILESET_DEFAULT)))
		return fail(type, strerror(ENOMEM));
	if (asprintf(&options, "%s%s%s", TMPFS_OPTIONS, o->lower ? "," : "",
		     o->lower ? o->lower : "") < 0)
		return fail(type, strerror(ENOMEM));
	fd = lower_mount(type, o->source, options, o->lower_attrs, why, sizeof(why));
	free(options);
	if (fd < 0)
		return fail(type, why);
	rc = fileset_make(fd, o->fileset, 0, NULL, &report);
	if (!rc)
		return fd;
	close(fd);
	return fail(type, report.why);
}

static int open_any(struct mount_options *o)
{
	struct stat st;

	if (o->virtual)
		return open_virtual(o);
	if (o->lowerdir)
		return open_directory(o, o->lowerdir);
	if (stat(o->source, &st))
		return fail(o->source, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return open_directory(o, o->source);
	if (S_ISBLK(st.st_mode))
		return open_device(o, o->source);
	if (S_ISREG(st.st_mode))
		return open_image(o);
	return fail(o->source, "no block device, no file, no directory");
}

/* Which fileset, and is it free? */
static int find_fileset(struct mount_options *o, int root_fd)
{
	const char *object = o->lowerdir ? o->lowerdir : o->source;
	unsigned int tries = 0;
	char name[64];
	int rc;

	rc = fileset_find(root_fd, name);
	if (rc == -ENOENT)
		return fail(object, "holds no fileset; run mkizofs first");
	if (rc == -ENOTUNIQ && !o->fileset)
		return fail(object, "holds several filesets; say which with fileset=");
	if (rc && rc != -ENOTUNIQ)
		return fail(object, strerror(-rc));
	if (!o->fileset && !(o->fileset = strdup(name)))
		return fail(object, strerror(ENOMEM));
	rc = fileset_exists(root_fd, o->fileset);
	if (rc == -ENOENT) {
		say("%s: holds the fileset %s, not %s", object, name, o->fileset);
		return -EX_FAIL;
	}
	if (rc)
		return fail(object, strerror(-rc));
	while ((rc = fileset_idle(root_fd, o->fileset)) == -EBUSY && wait_free(o, &tries))
		;
	if (rc)
		return fail(object, rc == -EBUSY ? "its fileset is mounted already" :
			    strerror(-rc));
	return 0;
}

int lower_side_open(struct mount_options *o)
{
	int fd, rc;

	fd = open_any(o);
	if (fd < 0)
		return fd;
	rc = find_fileset(o, fd);
	if (rc) {
		close(fd);
		return rc;
	}
	return fd;
}

/* The module need not guess what is there, nor people what it should have been. */
static int use_type(struct mount_options *o, const char *device)
{
	char type[64];
	int rc;

	rc = find_type(o, device, type);
	if (rc)
		return rc;
	free(o->cache_type);
	o->cache_type = strdup(type);
	return o->cache_type ? 0 : fail(o->source, strerror(ENOMEM));
}

int lower_side_device(struct mount_options *o, char ret_path[32], const char **ret_source)
{
	struct stat st;
	int fd = -1, rc;

	*ret_source = o->source;
	if (o->virtual || o->lowerdir)
		return -1;
	if (stat(o->source, &st))
		return fail(o->source, strerror(errno)) - 1;
	if (S_ISREG(st.st_mode)) {
		fd = attach(o, ret_path);
		if (fd < 0)
			return fd - 1;
		*ret_source = ret_path;
	} else if (S_ISBLK(st.st_mode)) {
		rc = wait_device(o, o->source);
		if (rc)
			return rc - 1;
	} else {
		return -1;
	}
	rc = use_type(o, *ret_source);
	if (rc) {
		if (fd >= 0)
			close(fd);
		return rc - 1;
	}
	return fd;
}
