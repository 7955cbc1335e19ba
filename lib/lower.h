/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Getting at a lower file system without showing it to anybody: what is on a
 * device, loop devices for images, mounts that have no place in the name space.
 * Called by mkizofs and the mount helper; needs libblkid.
 */
#ifndef LIB_LOWER_H
#define LIB_LOWER_H

#include <stdbool.h>
#include <stddef.h>

/*
 * What fd, a block device or an image, holds: "ext4", "LVM2_member", "dos partition table" ...
 * 1 and text in ret_what; 0: nothing that is known; -errno.
 */
int lower_probe(int fd, char *ret_what, size_t size);
/* Wipe all signatures that lower_probe() would find; fd open for writing. */
int lower_wipe(int fd);

/*
 * 0 if the image at fd is used by nobody, and locked (flock) for the caller from now
 * on; -EBUSY if it is a loop device or another of our programs has it; -errno.
 */
int lower_image_free(int fd);

/*
 * Attach the image at fd to a free loop device that detaches itself after its
 * last user.  Returns a descriptor of the device and its path (32 bytes), or -errno:
 * -EBUSY as lower_image_free() says.  The lock stays as long as the device.
 */
int lower_loop(int fd, bool read_only, char ret_path[32]);

/* 0: a file system or whatever else claims the device alone can have it; -EBUSY, -errno */
int lower_device_free(const char *path);

/*
 * Mount source privately.  options: comma-separated, for the file system, or NULL; attrs:
 * MOUNT_ATTR_*.  Returns the root directory, open for reading, or -errno with
 * a sentence in why: -EBUSY if the device is mounted elsewhere.  The mount
 * lives as long as descriptors in it.
 */
int lower_mount(const char *type, const char *source, const char *options,
		unsigned int attrs, char *why, size_t why_size);
/* The same for the tree at dir; what is mounted within it is not part of it. */
int lower_clone(const char *dir, unsigned int attrs, char *why, size_t why_size);

#endif
