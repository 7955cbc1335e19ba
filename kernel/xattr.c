// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Extended attributes and ACLs: those of the lower file system, and the two of
 * the root that tell where the channel is and what the fileset is called.
 */
#include "journal.h"

#include <linux/cred.h>

#include <intermezzo/channel.h>

static const char *virtual_value(const struct inode *inode, const char *name)
{
	const struct super_block *sb = inode->i_sb;

	if (inode != d_inode(sb->s_root))
		return NULL;
	if (strcmp(name, IZO_XATTR_FILESET) == 0)
		return izo_sb(sb)->params.fileset;
	if (strcmp(name, IZO_XATTR_CHANNEL) == 0)
		return izo_sb(sb)->channel_path;
	return NULL;
}

static int give_value(const char *value, void *buffer, size_t size)
{
	size_t len = strlen(value);

	if (size == 0)
		return len;
	if (len > size)
		return -ERANGE;
	memcpy(buffer, value, len);
	return len;
}

/*
 * As root: who may see it has been asked above.  With the caller's credentials the VFS
 * would translate file capabilities of user namespaces once more than is right.
 */
ssize_t izo_lower_getxattr_as_is(struct izo_sb *sbi, struct dentry *lower, const char *name,
				 void *buf, size_t size)
{
	const struct cred *old = override_creds(sbi->creds);
	ssize_t n = vfs_getxattr(&nop_mnt_idmap, lower, name, buf, size);

	revert_creds(old);
	return n;
}

static int izo_xattr_get(const struct xattr_handler *handler, struct dentry *dentry,
			 struct inode *inode, const char *name, void *buffer, size_t size)
{
	const char *value = virtual_value(inode, name);

	if (value)
		return give_value(value, buffer, size);
	return izo_lower_getxattr_as_is(izo_sb(inode->i_sb), izo_lower_dentry(inode), name, buffer,
					size);
}

/* Changes, with their record */

static struct izo_op *begin(struct inode *inode, struct dentry *dentry, const char *name,
			    const void *value, size_t size)
{
	struct izo_op *op;
	int err;

	op = izo_op_inode(inode, value ? KML_SETXATTR : KML_REMOVEXATTR, dentry);
	if (IS_ERR(op))
		return op;
	err = op->nolog ? 0 : izo_op_xattr(op, name, value, value ? size : 0);
	if (!err) {
		izo_op_attr(op, inode, 0);
		err = izo_op_begin(op);
	}
	if (!err)
		return op;
	izo_op_free(op);
	return ERR_PTR(err);
}

static int finish(struct izo_op *op, struct inode *inode, int err)
{
	if (err) {
		izo_op_abort(op);
		return err;
	}
	izo_op_attr(op, inode, 0);
	izo_op_done(op);
	return 0;
}

/*
 * As root, see above; but for an ACL, which older kernels have set like any other attribute: what
 * it takes to set one, and what becomes of the mode then, is asked by the lower file system.
 */
static int change_lower(struct inode *inode, const char *name, const void *value,
			size_t size, int flags)
{
	const struct cred *old = NULL;
	struct dentry *lower = izo_lower_dentry(inode);
	int err;

	if (!is_posix_acl_xattr(name))
		old = override_creds(izo_sb(inode->i_sb)->creds);
	if (value)
		err = vfs_setxattr(&nop_mnt_idmap, lower, name, value, size, flags);
	else
		err = vfs_removexattr(&nop_mnt_idmap, lower, name);
	if (old)
		revert_creds(old);
	return err;
}

static int izo_xattr_set(const struct xattr_handler *handler, struct mnt_idmap *idmap,
			 struct dentry *dentry, struct inode *inode, const char *name,
			 const void *value, size_t size, int flags)
{
	struct vfsmount *mnt = izo_sb(inode->i_sb)->lower_mnt;
	struct izo_op *op;
	int err;

	if (virtual_value(inode, name) || izo_is_log(inode))
		return -EPERM;
	/* recovery takes an attribute that is not there any more for one that was removed */
	if (!value) {
		err = izo_lower_getxattr_as_is(izo_sb(inode->i_sb), izo_lower_dentry(inode),
					       name, NULL, 0);
		if (err < 0)
			return err;
	}
	op = begin(inode, dentry, name, value, size);
	if (IS_ERR(op))
		return PTR_ERR(op);
	err = mnt_want_write(mnt);
	if (!err) {
		err = change_lower(inode, name, value, size, flags);
		izo_copy_attr(inode);
		mnt_drop_write(mnt);
	}
	return finish(op, inode, err);
}

/* The empty prefix is every name's. */
static const struct xattr_handler izo_xattr_handler = {
	.prefix	= "",
	.get	= izo_xattr_get,
	.set	= izo_xattr_set,
};

IZO_XATTR_HANDLERS(izo_xattr_list) = {
	&izo_xattr_handler,
	NULL
};

izo_xattr_handlers izo_xattrs = izo_xattr_list;

ssize_t izo_listxattr(struct dentry *dentry, char *list, size_t size)
{
	return vfs_listxattr(izo_lower_dentry(d_inode(dentry)), list, size);
}

/* Any attribute of a lower object, ACLs too. */
ssize_t izo_lower_getxattr(struct dentry *lower, const char *name, void *buf, size_t size)
{
	struct posix_acl *acl;
	size_t value_size;
	void *value;

	if (!is_posix_acl_xattr(name))
		return vfs_getxattr(&nop_mnt_idmap, lower, name, buf, size);
	acl = vfs_get_acl(&nop_mnt_idmap, lower, name);
	if (IS_ERR_OR_NULL(acl))
		return acl ? PTR_ERR(acl) : -ENODATA;
	value = izo_acl_to_xattr(acl, &value_size);
	posix_acl_release(acl);
	if (!value)
		return -ENOMEM;
	if (value_size <= size)
		memcpy(buf, value, value_size);
	kfree(value);
	return value_size <= size ? (ssize_t)value_size : -ERANGE;
}

/* ACLs */

struct posix_acl *izo_get_inode_acl(struct inode *inode, int type, bool rcu)
{
	struct inode *lower = izo_lower_inode(inode);

	if (!IS_POSIXACL(lower))
		return NULL;
	return rcu ? get_cached_acl_rcu(lower, type) : get_inode_acl(lower, type);
}

#ifdef IZO_ACL_OPS
struct posix_acl *izo_get_acl(struct mnt_idmap *idmap, struct dentry *dentry, int type)
{
	return vfs_get_acl(&nop_mnt_idmap, izo_lower_dentry(d_inode(dentry)),
			   posix_acl_xattr_name(type));
}

static int change_acl(struct dentry *lower, struct posix_acl *acl, int type)
{
	const char *name = posix_acl_xattr_name(type);

	if (acl)
		return vfs_set_acl(&nop_mnt_idmap, lower, name, acl);
	return vfs_remove_acl(&nop_mnt_idmap, lower, name);
}

static struct izo_op *begin_acl(struct inode *inode, struct dentry *dentry,
				struct posix_acl *acl, int type)
{
	size_t size = 0;
	void *value = acl ? izo_acl_to_xattr(acl, &size) : NULL;
	struct izo_op *op;

	if (acl && !value)
		return ERR_PTR(-ENOMEM);
	op = begin(inode, dentry, posix_acl_xattr_name(type), value, size);
	kfree(value);
	return op;
}

int izo_set_acl(struct mnt_idmap *idmap, struct dentry *dentry, struct posix_acl *acl, int type)
{
	struct inode *inode = d_inode(dentry);
	struct vfsmount *mnt = izo_sb(inode->i_sb)->lower_mnt;
	struct izo_op *op;
	int err;

	/* there is none: no record of its removal */
	if (!acl && izo_lower_getxattr(izo_lower_dentry(inode), posix_acl_xattr_name(type), NULL,
				       0) == -ENODATA)
		return 0;
	op = begin_acl(inode, dentry, acl, type);
	if (IS_ERR(op))
		return PTR_ERR(op);
	err = mnt_want_write(mnt);
	if (!err) {
		err = change_acl(izo_lower_dentry(inode), acl, type);
		izo_copy_attr(inode);
		mnt_drop_write(mnt);
	}
	return finish(op, inode, err);
}
#endif
