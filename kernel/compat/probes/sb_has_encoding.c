// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/fs.h>

bool probe(const struct super_block *sb);
bool probe(const struct super_block *sb)
{
	return sb_has_encoding(sb);
}
