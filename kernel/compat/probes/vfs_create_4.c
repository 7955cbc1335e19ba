// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/fs.h>

int probe(struct dentry *d);
int probe(struct dentry *d)
{
	return vfs_create(&nop_mnt_idmap, d, 0600, NULL);
}
