/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Running the real mkfs, for mkizofs. */
#ifndef MKIZOFS_MKFS_H
#define MKIZOFS_MKFS_H

#include <stdbool.h>

#define MKFS_TYPES	"ext4, xfs, btrfs"

bool mkfs_type_ok(const char *type);

/* 0 if the program for this type is installed; -ENOENT, said. */
int mkfs_installed(const char *type);

/*
 * Make a file system of this type on device.  Its program is silent unless it fails:
 * then its last words go to standard error.  0, or -errno: -EIO if it failed.
 */
int mkfs_run(const char *type, const char *device);

#endif
