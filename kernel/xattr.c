// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Extended attributes and ACLs: those of the lower file system, and the two of
 * the root that tell where the channel is and what the fileset is called.
 */
#include "intermezzo.h"

#include <intermezzo/channel.h>

static const char *virtual_value(const struct inode *inode, const char *name)
{
	const struct super_block *sb = inode->i_sb;

	if (inode != d_inode(sb->s_root))
		return NULL;
	if (strcmp(name, IZO_XATTR_FILESET) == 0)
		return izo_sb(sb)->params.fileset;
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

static int izo_xattr_get(const struct xattr_handler *handler, struct dentry *dentry,
			 struct inode *inode, const char *name, void *buffer, size_t size)
{
	const char *value = virtual_value(inode, name);

	if (value)
		return give_value(value, buffer, size);
	return vfs_getxattr(&nop_mnt_idmap, izo_lower_dentry(inode), name, buffer, size);
}

static int change_lower(struct inode *inode, const char *name, const void *value,
			size_t size, int flags)
{
	struct dentry *lower = izo_lower_dentry(inode);

	if (value)
		return vfs_setxattr(&nop_mnt_idmap, lower, name, value, size, flags);
	return vfs_removexattr(&nop_mnt_idmap, lower, name);
}

static int izo_xattr_set(const struct xattr_handler *handler, struct mnt_idmap *idmap,
			 struct dentry *dentry, struct inode *inode, const char *name,
			 const void *value, size_t size, int flags)
{
	struct vfsmount *mnt = izo_sb(inode->i_sb)->lower_mnt;
	int err;

	if (virtual_value(inode, name))
		return -EPERM;
	err = mnt_want_write(mnt);
	if (err)
		return err;
	err = change_lower(inode, name, value, size, flags);
	izo_copy_attr(inode);
	mnt_drop_write(mnt);
	return err;
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

/* ACLs */

struct posix_acl *izo_get_inode_acl(struct inode *inode, int type, bool rcu)
{
	struct inode *lower = izo_lower_inode(inode);

	if (!IS_POSIXACL(lower))
		return NULL;
	return rcu ? get_cached_acl_rcu(lower, type) : get_inode_acl(lower, type);
}

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

int izo_set_acl(struct mnt_idmap *idmap, struct dentry *dentry, struct posix_acl *acl, int type)
{
	struct inode *inode = d_inode(dentry);
	struct vfsmount *mnt = izo_sb(inode->i_sb)->lower_mnt;
	int err;

	err = mnt_want_write(mnt);
	if (err)
		return err;
	err = change_acl(izo_lower_dentry(inode), acl, type);
	izo_copy_attr(inode);
	mnt_drop_write(mnt);
	return err;
}
