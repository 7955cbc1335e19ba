// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Lower file systems, mounted where nobody but the holder of a descriptor can
 * reach them: with fsopen() and open_tree(), never through a path.
 */
#include <config.h>

#include "lower.h"

#include <blkid/blkid.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef LOOP_CONFIGURE
#error "too old headers: LOOP_CONFIGURE (Linux 5.8) is needed"
#endif

/* Since Linux 6.6; the enum of older headers lacks it. */
#define CMD_CREATE_EXCL	8

static blkid_probe probe_new(int fd)
{
	blkid_probe pr = blkid_new_probe();

	if (!pr)
		return NULL;
	if (blkid_probe_set_device(pr, fd, 0, 0)) {
		blkid_free_probe(pr);
		return NULL;
	}
	blkid_probe_enable_superblocks(pr, 1);
	blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_MAGIC);
	blkid_probe_enable_partitions(pr, 1);
	blkid_probe_set_partitions_flags(pr, BLKID_PARTS_MAGIC);
	return pr;
}

int lower_probe(int fd, char *ret_what, size_t size)
{
	blkid_probe pr;
	const char *type;
	struct stat st;
	int rc;

	if (fstat(fd, &st))
		return -errno;
	if (S_ISREG(st.st_mode) && st.st_size == 0)
		return 0;
	errno = 0;
	pr = probe_new(fd);
	if (!pr)
		return errno ? -errno : -EIO;
	rc = blkid_do_safeprobe(pr);
	if (rc == 0 && !blkid_probe_lookup_value(pr, "TYPE", &type, NULL))
		rc = snprintf(ret_what, size, "%s", type);
	else if (rc == 0 && !blkid_probe_lookup_value(pr, "PTTYPE", &type, NULL))
		rc = snprintf(ret_what, size, "%s partition table", type);
	else if (rc == -2)
		rc = snprintf(ret_what, size, "several file systems at once");
	else
		rc = rc < 0 ? -EIO : 0;
	blkid_free_probe(pr);
	return rc > 0 ? 1 : rc;
}

int lower_wipe(int fd)
{
	blkid_probe pr;
	struct stat st;
	int rc;

	if (fstat(fd, &st))
		return -errno;
	if (S_ISREG(st.st_mode) && st.st_size == 0)
		return 0;
	pr = probe_new(fd);
	if (!pr)
		return -EIO;
	while ((rc = blkid_do_probe(pr)) == 0) {
		errno = 0;
		rc = blkid_do_wipe(pr, 0);
		if (rc)
			break;
	}
	blkid_free_probe(pr);
	if (rc < 0)
		return errno ? -errno : -EIO;
	return fsync(fd) ? -errno : 0;
}

/* Loop devices */

/* Is the file st attached to the loop device of this name ("loop3")? */
static bool loop_has(const char *name, const struct stat *st)
{
	struct loop_info64 info;
	char path[300];
	bool has;
	int fd;

	snprintf(path, sizeof(path), "/dev/%s", name);
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return false;
	has = ioctl(fd, LOOP_GET_STATUS64, &info) == 0 && info.lo_device == st->st_dev &&
	      info.lo_inode == st->st_ino;
	close(fd);
	return has;
}

static bool any_loop_has(const struct stat *st)
{
	DIR *dir = opendir("/sys/block");
	bool found = false;
	struct dirent *d;

	if (!dir)
		return false;
	while (!found && (d = readdir(dir)))
		found = strncmp(d->d_name, "loop", 4) == 0 && loop_has(d->d_name, st);
	closedir(dir);
	return found;
}

static int loop_configure(int fd, bool read_only, char ret_path[32])
{
	struct loop_config config = { .fd = fd };
	int control, loop, n, rc, tries;

	config.info.lo_flags = LO_FLAGS_AUTOCLEAR | (read_only ? LO_FLAGS_READ_ONLY : 0);
	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (control < 0)
		return -errno;
	/* somebody else may take the free one before us */
	for (rc = -EBUSY, tries = 0; rc == -EBUSY && tries < 100; tries++) {
		n = ioctl(control, LOOP_CTL_GET_FREE);
		if (n < 0) {
			rc = -errno;
			break;
		}
		snprintf(ret_path, 32, "/dev/loop%d", n);
		loop = open(ret_path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
		if (loop < 0) {
			rc = -errno;
			break;
		}
		rc = ioctl(loop, LOOP_CONFIGURE, &config) ? -errno : loop;
		if (rc < 0)
			close(loop);
	}
	close(control);
	return rc;
}

int lower_image_free(int fd)
{
	struct stat st;

	/*
	 * The loop device keeps this open file and so the lock: two mounts of
	 * one image, each with a cache of its own, would destroy it.
	 */
	if (flock(fd, LOCK_EX | LOCK_NB))
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	if (fstat(fd, &st))
		return -errno;
	return any_loop_has(&st) ? -EBUSY : 0;
}

int lower_loop(int fd, bool read_only, char ret_path[32])
{
	int rc = lower_image_free(fd);

	return rc ? rc : loop_configure(fd, read_only, ret_path);
}

int lower_device_free(const char *path)
{
	int fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

/* Mounts */

/* The messages of the file system, one per read: "e ext4: what it says". */
static void fs_messages(int fs_fd, char *why, size_t why_size)
{
	char line[512];
	size_t used = 0;
	ssize_t n;

	*why = 0;
	while ((n = read(fs_fd, line, sizeof(line) - 1)) > 0) {
		line[n] = 0;
		line[strcspn(line, "\n")] = 0;
		if (n < 3 || line[0] != 'e' || used >= why_size)
			continue;
		used += snprintf(why + used, why_size - used, "%s%s", used ? "; " : "", line + 2);
	}
}

static int set_option(int fs_fd, char *option)
{
	char *value = strchr(option, '=');
	int rc;

	if (!*option)
		return 0;
	if (value) {
		*value++ = 0;
		rc = fsconfig(fs_fd, FSCONFIG_SET_STRING, option, value, 0);
	} else {
		rc = fsconfig(fs_fd, FSCONFIG_SET_FLAG, option, NULL, 0);
	}
	return rc ? -errno : 0;
}

static int set_options(int fs_fd, const char *options, char *why, size_t why_size)
{
	char *copy, *rest, *option;
	int rc = 0;

	copy = rest = strdup(options ? options : "");
	if (!copy)
		return -ENOMEM;
	while (!rc && (option = strsep(&rest, ","))) {
		rc = set_option(fs_fd, option);
		if (rc) {
			fs_messages(fs_fd, why, why_size);
			if (!*why)
				snprintf(why, why_size, "option %s: %s", option, strerror(-rc));
		}
	}
	free(copy);
	return rc;
}

/*
 * CREATE alone would share the superblock of a mount that is there already.
 * Kernels before 6.6 cannot refuse that; lower_device_free() has looked.
 */
static int create(int fs_fd)
{
	if (fsconfig(fs_fd, CMD_CREATE_EXCL, NULL, NULL, 0) == 0)
		return 0;
	if (errno != EOPNOTSUPP)
		return -errno;
	return fsconfig(fs_fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) ? -errno : 0;
}

/* A mount's descriptor becomes its root, open for reading. */
static int mount_root(int mount_fd)
{
	int fd = openat(mount_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		fd = -errno;
	close(mount_fd);
	return fd;
}

static int configure(int fs_fd, const char *source, const char *options, char *why,
		     size_t why_size)
{
	int rc;

	if (fsconfig(fs_fd, FSCONFIG_SET_STRING, "source", source, 0))
		return -errno;
	rc = set_options(fs_fd, options, why, why_size);
	if (rc)
		return rc;
	rc = create(fs_fd);
	if (rc)
		fs_messages(fs_fd, why, why_size);
	return rc;
}

int lower_mount(const char *type, const char *source, const char *options,
		unsigned int attrs, char *why, size_t why_size)
{
	int fs_fd, fd, rc;

	*why = 0;
	fs_fd = fsopen(type, FSOPEN_CLOEXEC);
	if (fs_fd < 0) {
		rc = -errno;
		snprintf(why, why_size, rc == -ENODEV ? "this kernel has no file system %s" :
			 "cannot mount %s", type);
		return rc;
	}
	rc = configure(fs_fd, source, options, why, why_size);
	if (!rc) {
		fd = fsmount(fs_fd, FSMOUNT_CLOEXEC, attrs);
		rc = fd < 0 ? -errno : mount_root(fd);
	}
	if (rc < 0 && !*why)
		snprintf(why, why_size, "%s", rc == -EBUSY ? "is mounted already" : strerror(-rc));
	close(fs_fd);
	return rc;
}

int lower_clone(const char *dir, unsigned int attrs, char *why, size_t why_size)
{
	struct mount_attr attr = { .attr_set = attrs };
	int fd, rc;

	if (attrs & MOUNT_ATTR__ATIME)
		attr.attr_clr = MOUNT_ATTR__ATIME;
	fd = open_tree(AT_FDCWD, dir, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (fd < 0) {
		rc = -errno;
	} else if (attrs && mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr))) {
		rc = -errno;
		close(fd);
	} else {
		rc = mount_root(fd);
	}
	if (rc < 0)
		snprintf(why, why_size, "%s", strerror(-rc));
	return rc;
}
