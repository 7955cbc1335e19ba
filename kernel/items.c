// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Extended attributes as items of a record: one that is set, or those that a new
 * object has.
 */
#include "journal.h"

#include <linux/mm.h>

#define LIST_MAX	65536
#define VALUE_MAX	65536

struct items {
	void	*buf;
	size_t	len, size;
};

static int items_add(struct items *it, const char *name, const void *value, size_t size)
{
	ssize_t need = kml_xattr_put(NULL, 0, name, strlen(name), value, size);
	void *more;

	if (need < 0)
		return need;
	if (it->len + need > it->size) {
		more = kvmalloc(2 * it->size + need, GFP_KERNEL);
		if (!more)
			return -ENOMEM;
		memcpy(more, it->buf, it->len);
		kvfree(it->buf);
		it->buf = more;
		it->size = 2 * it->size + need;
	}
	kml_xattr_put(it->buf + it->len, need, name, strlen(name), value, size);
	it->len += need;
	return 0;
}

int izo_op_xattr(struct izo_op *op, const char *name, const void *value, size_t size)
{
	struct items it = { };
	int err = items_add(&it, name, value ?: "", size);

	if (err)
		return err == -EINVAL ? -ERANGE : err;
	op->items = it.buf;
	op->r.xattrs = it.buf;
	op->r.xattrs_len = it.len;
	return 0;
}

/* ACLs */

size_t izo_acl_room(const struct inode *dir)
{
	struct inode *lower = izo_lower_inode(dir);
	struct posix_acl *acl;
	size_t room = 0;

	if (!IS_POSIXACL(lower))
		return 0;
	acl = get_inode_acl(lower, ACL_TYPE_DEFAULT);
	if (!IS_ERR_OR_NULL(acl))
		room = 2 * (posix_acl_xattr_size(acl->a_count) + 64);
	if (!IS_ERR(acl))
		posix_acl_release(acl);
	return room;
}

static int add_acl(struct items *it, struct inode *lower, int type)
{
	struct posix_acl *acl = get_inode_acl(lower, type);
	size_t size;
	void *value;
	int err;

	if (IS_ERR_OR_NULL(acl))
		return PTR_ERR_OR_ZERO(acl);
	value = izo_acl_to_xattr(acl, &size);
	err = value ? items_add(it, posix_acl_xattr_name(type), value, size) : -ENOMEM;
	kfree(value);
	posix_acl_release(acl);
	return err;
}

int izo_acl_items(struct inode *lower, void **ret_items, size_t *ret_len)
{
	struct items it = { };
	int err = 0;

	if (IS_POSIXACL(lower) && !S_ISLNK(lower->i_mode)) {
		err = add_acl(&it, lower, ACL_TYPE_ACCESS);
		if (!err && S_ISDIR(lower->i_mode))
			err = add_acl(&it, lower, ACL_TYPE_DEFAULT);
	}
	if (err) {
		kvfree(it.buf);
		return err;
	}
	*ret_items = it.buf;
	*ret_len = it.len;
	return 0;
}

/* All */

static bool is_acl(const char *name)
{
	return strcmp(name, XATTR_NAME_POSIX_ACL_ACCESS) == 0 ||
	       strcmp(name, XATTR_NAME_POSIX_ACL_DEFAULT) == 0;
}

static int add_named(struct items *it, struct izo_sb *sbi, struct dentry *lower, const char *name,
		     void *value)
{
	ssize_t n;

	if (is_acl(name))
		return add_acl(it, d_inode(lower), strcmp(name, XATTR_NAME_POSIX_ACL_ACCESS) ?
			       ACL_TYPE_DEFAULT : ACL_TYPE_ACCESS);
	n = izo_lower_getxattr_as_is(sbi, lower, name, value, VALUE_MAX);
	/* one that is gone meanwhile is left out */
	return n < 0 ? 0 : items_add(it, name, value, n);
}

int izo_xattr_items(struct izo_sb *sbi, struct dentry *lower, void **ret_items, size_t *ret_len)
{
	char *names = kvmalloc(LIST_MAX + VALUE_MAX, GFP_KERNEL), *p;
	struct items it = { };
	ssize_t n;
	int err = 0;

	if (!names)
		return -ENOMEM;
	n = vfs_listxattr(lower, names, LIST_MAX);
	for (p = names; n > 0 && p < names + n && !err; p += strlen(p) + 1)
		err = add_named(&it, sbi, lower, p, names + LIST_MAX);
	kvfree(names);
	if (err) {
		kvfree(it.buf);
		return err;
	}
	*ret_items = it.buf;
	*ret_len = it.len;
	return 0;
}
