// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/fs.h>

static int probe_update_time(struct inode *inode, int flags)
{
	return 0;
}

extern const struct inode_operations probe;
const struct inode_operations probe = { .update_time = probe_update_time };
