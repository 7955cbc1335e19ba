// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The kernel's file system: is it there, and mounting it by fsopen(), so that what the
 * module says about a mount that fails is what people get to read.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "mount.h"

/* The kernel loads the module for this question if it finds one. */
bool kernel_side_has(const char *type)
{
	int fd = fsopen(type, FSOPEN_CLOEXEC);

	if (fd < 0)
		return false;
	close(fd);
	return true;
}

/* "e intermezzo: what it says", one per read; true if it said something */
static bool say_messages(const struct mount_options *o, const char *type, int fs_fd)
{
	const size_t prefix = strlen(type) + 2;
	bool said = false;
	char line[512];
	char *text;
	ssize_t n;

	while ((n = read(fs_fd, line, sizeof(line) - 1)) > 0) {
		line[n] = 0;
		line[strcspn(line, "\n")] = 0;
		if (n < 3 || line[0] != 'e')
			continue;
		text = line + 2;
		if (strncmp(text, type, strlen(type)) == 0 && strlen(text) > prefix)
			text += prefix;
		say("%s: %s", o->lowerdir ? o->lowerdir : o->source, text);
		said = true;
	}
	return said;
}

static int set(int fs_fd, const char *name, const char *value)
{
	if (!value)
		return 0;
	return fsconfig(fs_fd, FSCONFIG_SET_STRING, name, value, 0) ? -errno : 0;
}

/* What we do not know is the lower file system's, word by word. */
static int set_lower(const struct mount_options *o, int fs_fd)
{
	char *copy, *rest, *option, *value;
	int rc = 0;

	copy = rest = strdup(o->lower ? o->lower : "");
	if (!copy)
		return -ENOMEM;
	while (!rc && (option = strsep(&rest, ","))) {
		value = strchr(option, '=');
		if (value)
			*value++ = 0;
		if (*option && fsconfig(fs_fd, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG,
					option, value, 0))
			rc = -errno;
	}
	free(copy);
	return rc;
}

static int set_sync(const struct mount_options *o, int fs_fd)
{
	if (o->flags & MS_SYNCHRONOUS && fsconfig(fs_fd, FSCONFIG_SET_FLAG, "sync", NULL, 0))
		return -errno;
	if (o->flags & MS_DIRSYNC && fsconfig(fs_fd, FSCONFIG_SET_FLAG, "dirsync", NULL, 0))
		return -errno;
	return 0;
}

static int configure(const struct mount_options *o, const char *source, int fs_fd)
{
	char channel[40];
	int rc;

	snprintf(channel, sizeof(channel), "/dev/intermezzo%d", o->minor);
	rc = set(fs_fd, "source", source);
	if (!rc)
		rc = set(fs_fd, "fileset", o->fileset);
	if (!rc)
		rc = set(fs_fd, "cache_type", o->cache_type);
	if (!rc)
		rc = set(fs_fd, "lowerdir", o->lowerdir);
	if (!rc)
		rc = set(fs_fd, "channel", o->minor < 0 ? NULL : channel);
	if (!rc)
		rc = set_sync(o, fs_fd);
	if (!rc)
		rc = set_lower(o, fs_fd);
	if (!rc && fsconfig(fs_fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		rc = -errno;
	return rc;
}

/* Of the mount that people see; access times are counted through it, too. */
static unsigned int attributes(const struct mount_options *o)
{
	unsigned int attrs = o->lower_attrs;

	if (o->flags & MS_RDONLY)
		attrs |= MOUNT_ATTR_RDONLY;
	if (o->flags & MS_NOSUID)
		attrs |= MOUNT_ATTR_NOSUID;
	if (o->flags & MS_NODEV)
		attrs |= MOUNT_ATTR_NODEV;
	if (o->flags & MS_NOEXEC)
		attrs |= MOUNT_ATTR_NOEXEC;
	return attrs;
}

static int attach_mount(const struct mount_options *o, int fs_fd)
{
	int fd, rc;

	fd = fsmount(fs_fd, FSMOUNT_CLOEXEC, attributes(o));
	if (fd < 0)
		return -errno;
	rc = move_mount(fd, "", AT_FDCWD, o->dir, MOVE_MOUNT_F_EMPTY_PATH) ? -errno : 0;
	close(fd);
	return rc;
}

int kernel_side_mount(const struct mount_options *o, const char *type, const char *source)
{
	int fs_fd, rc;

	fs_fd = fsopen(type, FSOPEN_CLOEXEC);
	if (fs_fd < 0) {
		say("%s: file system %s is unknown to this kernel; load its module, or use backend=fuse",
		    o->dir, type);
		return EX_FAIL;
	}
	rc = configure(o, source, fs_fd);
	if (!rc)
		rc = attach_mount(o, fs_fd);
	if (rc && !say_messages(o, type, fs_fd))
		say("%s on %s: %s", o->source, o->dir, strerror(-rc));
	close(fs_fd);
	return rc ? EX_FAIL : 0;
}
