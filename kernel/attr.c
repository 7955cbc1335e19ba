// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Attributes: asked of the lower file system, changed there, copied back.
 */
#include "intermezzo.h"

#include <linux/fiemap.h>

int izo_getattr(struct mnt_idmap *idmap, const struct path *path, struct kstat *stat,
		u32 request_mask, unsigned int flags)
{
	struct inode *inode = d_inode(path->dentry);
	const struct path lower = izo_lower_path(inode);
	int err;

	err = vfs_getattr_nosec(&lower, stat, request_mask, flags);
	if (err)
		return err;
	stat->dev = inode->i_sb->s_dev;
	/* what is below .intermezzo changes without passing here */
	if (izo_i(inode)->meta)
		izo_copy_attr(inode);
	return 0;
}

static int notify_lower(struct dentry *lower, struct iattr *attr)
{
	int err;

	inode_lock(d_inode(lower));
	err = notify_change(&nop_mnt_idmap, lower, attr, NULL);
	inode_unlock(d_inode(lower));
	return err;
}

/* The attributes as the lower file system is to set them. */
static void lower_attr(struct iattr *attr)
{
	/* it finds out itself what becomes of the mode */
	if (attr->ia_valid & (ATTR_KILL_SUID | ATTR_KILL_SGID))
		attr->ia_valid &= ~ATTR_MODE;
	/* the file is ours; and it has not been opened with O_TRUNC below */
	attr->ia_valid &= ~(ATTR_FILE | ATTR_OPEN);
}

static int change_lower(struct inode *inode, struct iattr *attr)
{
	struct vfsmount *mnt = izo_sb(inode->i_sb)->lower_mnt;
	int err;

	err = mnt_want_write(mnt);
	if (err)
		return err;
	err = notify_lower(izo_lower_dentry(inode), attr);
	izo_copy_attr(inode);
	mnt_drop_write(mnt);
	return err;
}

/* O_RDWR opens of the lower file are ours alone: one of them may deny writing. */
static int truncate_lower(struct inode *inode, struct iattr *attr)
{
	struct inode *lower = izo_lower_inode(inode);
	int err;

	err = get_write_access(lower);
	if (err)
		return err;
	err = change_lower(inode, attr);
	put_write_access(lower);
	return err;
}

int izo_setattr(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr)
{
	struct inode *inode = d_inode(dentry);
	struct iattr lower = *attr;
	int err;

	err = setattr_prepare(&nop_mnt_idmap, dentry, attr);
	if (err)
		return err;
	lower_attr(&lower);
	if (lower.ia_valid & ATTR_SIZE)
		return truncate_lower(inode, &lower);
	return change_lower(inode, &lower);
}

/*
 * The upper mount says whether access times are kept (relatime ...).  All other times
 * are set by the lower file system when it does what changes them.
 */
static void touch_lower(struct inode *inode)
{
	const struct path lower = izo_lower_path(inode);

	touch_atime(&lower);
	izo_copy_times(inode);
}

#ifdef IZO_HAVE_FS_UPDATE_TIME
int izo_update_time(struct inode *inode, enum fs_update_time type, unsigned int flags)
{
	if (type == FS_UPD_ATIME)
		touch_lower(inode);
	return 0;
}
#else
int izo_update_time(struct inode *inode, int flags)
{
	if (flags & S_ATIME)
		touch_lower(inode);
	return 0;
}
#endif

/* chattr */

int izo_fileattr_get(struct dentry *dentry, struct file_kattr *fa)
{
	return vfs_fileattr_get(izo_lower_dentry(d_inode(dentry)), fa);
}

int izo_fileattr_set(struct mnt_idmap *idmap, struct dentry *dentry, struct file_kattr *fa)
{
	struct inode *inode = d_inode(dentry);
	struct vfsmount *mnt = izo_sb(inode->i_sb)->lower_mnt;
	int err;

	err = mnt_want_write(mnt);
	if (err)
		return err;
	err = vfs_fileattr_set(&nop_mnt_idmap, izo_lower_dentry(inode), fa);
	izo_copy_attr(inode);
	mnt_drop_write(mnt);
	return err;
}

int izo_fiemap(struct inode *inode, struct fiemap_extent_info *info, u64 start, u64 len)
{
	struct inode *lower = izo_lower_inode(inode);

	if (!lower->i_op->fiemap)
		return -EOPNOTSUPP;
	return lower->i_op->fiemap(lower, info, start, len);
}
