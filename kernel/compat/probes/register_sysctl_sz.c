// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/sysctl.h>

void *probe(struct ctl_table *table);
void *probe(struct ctl_table *table)
{
	return register_sysctl_sz("x", table, 1);
}
