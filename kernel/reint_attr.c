// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Attributes of lower objects, set past the upper ones: for what REINT prepares and
 * what recovery does again.
 */
#include "reint.h"

static int change(struct dentry *lower, struct iattr *attr)
{
	int err;

	inode_lock(d_inode(lower));
	err = notify_change(&nop_mnt_idmap, lower, attr, NULL);
	inode_unlock(d_inode(lower));
	return err;
}

static void fill(struct iattr *attr, const struct kml_attrs *a, u32 valid)
{
	attr->ia_valid = ATTR_CTIME;
	if (valid & KML_A_UID)
		attr->ia_valid |= ATTR_UID;
	if (valid & KML_A_GID)
		attr->ia_valid |= ATTR_GID;
	if (valid & KML_A_MODE)
		attr->ia_valid |= ATTR_MODE;
	if (valid & KML_A_MTIME)
		attr->ia_valid |= ATTR_MTIME | ATTR_MTIME_SET;
	attr->ia_uid = make_kuid(&init_user_ns, a->uid);
	attr->ia_gid = make_kgid(&init_user_ns, a->gid);
	attr->ia_mtime.tv_sec = a->mtime.sec;
	attr->ia_mtime.tv_nsec = a->mtime.nsec;
}

int izo_lower_setattr(struct izo_sb *sbi, struct dentry *lower, const struct kml_attrs *a,
		      u32 valid)
{
	const umode_t mode = d_inode(lower)->i_mode;
	struct iattr attr;
	int err;

	if (S_ISLNK(mode))
		valid &= ~KML_A_MODE;
	fill(&attr, a, valid);
	attr.ia_mode = (mode & S_IFMT) | (a->mode & S_IALLUGO);
	err = mnt_want_write(sbi->lower_mnt);
	if (err)
		return err;
	err = change(lower, &attr);
	mnt_drop_write(sbi->lower_mnt);
	return err;
}

static int set_acl(struct dentry *lower, const char *name, const void *value, size_t size)
{
	struct posix_acl *acl;
	int err;

	acl = posix_acl_from_xattr(&init_user_ns, value, size);
	if (IS_ERR(acl))
		return PTR_ERR(acl);
	if (acl)
		err = vfs_set_acl(&nop_mnt_idmap, lower, name, acl);
	else
		err = vfs_remove_acl(&nop_mnt_idmap, lower, name);
	posix_acl_release(acl);
	return err;
}

static int set_one(struct dentry *lower, const char *name, const void *value, size_t size)
{
	if (is_posix_acl_xattr(name) && value)
		return set_acl(lower, name, value, size);
	if (is_posix_acl_xattr(name))
		return vfs_remove_acl(&nop_mnt_idmap, lower, name);
	if (value)
		return vfs_setxattr(&nop_mnt_idmap, lower, name, value, size, 0);
	return vfs_removexattr(&nop_mnt_idmap, lower, name);
}

/* value NULL: remove it, which it may be already. */
int izo_lower_setxattr(struct izo_sb *sbi, struct dentry *lower, const char *name,
		       const void *value, size_t size)
{
	int err = mnt_want_write(sbi->lower_mnt);

	if (err)
		return err;
	err = set_one(lower, name, value, size);
	mnt_drop_write(sbi->lower_mnt);
	return err == -ENODATA && !value ? 0 : err;
}

int izo_lower_set_items(struct izo_sb *sbi, struct dentry *lower, const void *items, size_t len)
{
	char c[XATTR_NAME_MAX + 1];
	struct kml_str name, value;
	size_t pos = 0;
	int err = 0;

	while (!err && items && kml_xattr_next(items, len, &pos, &name, &value)) {
		memcpy(c, name.ptr, name.len);
		c[name.len] = 0;
		err = izo_lower_setxattr(sbi, lower, c, value.ptr ?: "", value.len);
	}
	return err;
}

int izo_lower_copy_xattrs(struct izo_sb *sbi, struct dentry *to, struct dentry *from)
{
	void *items = NULL;
	size_t len = 0;
	int err;

	err = izo_xattr_items(sbi, from, &items, &len);
	if (!err)
		err = izo_lower_set_items(sbi, to, items, len);
	kvfree(items);
	return err;
}
