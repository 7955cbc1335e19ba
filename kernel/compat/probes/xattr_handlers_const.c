// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/fs.h>
#include <linux/xattr.h>

static const struct xattr_handler *const list[] = { NULL };

void probe(struct super_block *sb);
void probe(struct super_block *sb)
{
	sb->s_xattr = list;
}
