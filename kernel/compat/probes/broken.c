// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/fs.h>

int broken(struct inode *inode);
int broken(struct inode *inode)
{
	return izo_there_is_no_such_function(inode);
}
