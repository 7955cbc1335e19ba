// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/fs_context.h>

int probe(struct fs_context *fc);
int probe(struct fs_context *fc)
{
	return vfs_parse_fs_string(fc, "key", "value");
}
