/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The parts of the mount helper: options, the lower side, and the mount. */
#ifndef MOUNT_MOUNT_H
#define MOUNT_MOUNT_H

#include <stdbool.h>
#include <stddef.h>

/* Exit status of mount(8) */
#define EX_USAGE	1
#define EX_SYSERR	2
#define EX_FAIL		32

enum backend { BACKEND_AUTO, BACKEND_KERNEL, BACKEND_FUSE };

struct mount_options {
	const char	*source;
	const char	*dir;
	bool		virtual;	/* vintermezzo: over a tmpfs */
	bool		fake, verbose;
	enum backend	backend;
	int		minor;		/* -1: any */
	bool		loop;
	bool		nofail;		/* a source that is not there is no failure */
	unsigned long	flags;		/* MS_*: of what people see */
	unsigned int	lower_attrs;	/* MOUNT_ATTR_*: of the lower mount */
	char		*fileset, *cache_type, *mtpt, *lowerdir;
	char		*fuse;		/* "ro,nosuid": flags, for intermezzo-fuse */
	char		*lower;		/* what we do not know: for the lower file system */
};

/* Program name and object before, newline behind. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Take in the comma-separated options of one -o; 0 or an exit status (said). */
int options_parse(struct mount_options *o, const char *text);
/* After the last -o. */
int options_check(struct mount_options *o);
void options_free(struct mount_options *o);

/*
 * The lower root with its fileset, found or (vintermezzo) made: a descriptor, and
 * o->fileset set; or minus an exit status, said.
 */
int lower_side_open(struct mount_options *o);

/*
 * For the kernel's file system: what is to be its source, a device for an image,
 * and o->cache_type what is on it.  The descriptor keeps that device until the mount
 * has it; -1: none needed, less: minus an exit status - 1.
 */
int lower_side_device(struct mount_options *o, char ret_path[32], const char **ret_source);

/* Does the kernel know the type, maybe after loading the module? */
bool kernel_side_has(const char *type);
/* Mount it; 0 or an exit status (said). */
int kernel_side_mount(const struct mount_options *o, const char *type, const char *source);

#endif
