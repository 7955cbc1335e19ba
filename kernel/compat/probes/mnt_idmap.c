// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/mount.h>
#include <linux/fs.h>

struct mnt_idmap *probe(void);
struct mnt_idmap *probe(void)
{
	return &nop_mnt_idmap;
}
