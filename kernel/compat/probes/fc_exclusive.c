// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/fs_context.h>

void probe(struct fs_context *fc);
void probe(struct fs_context *fc)
{
	fc->exclusive = true;
}
