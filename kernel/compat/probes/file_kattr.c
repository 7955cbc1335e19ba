// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/fs.h>
#include <linux/fileattr.h>

u32 probe(const struct file_kattr *fa);
u32 probe(const struct file_kattr *fa)
{
	return fa->flags;
}
