// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/filelock.h>

void probe(struct file_lock *fl);
void probe(struct file_lock *fl)
{
	fl->c.flc_flags = FL_FLOCK;
}
