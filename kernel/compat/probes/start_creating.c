// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/namei.h>

struct dentry *probe(struct dentry *parent, struct qstr *name);
struct dentry *probe(struct dentry *parent, struct qstr *name)
{
	return start_creating_noperm(parent, name);
}
