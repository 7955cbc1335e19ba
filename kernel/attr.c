// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Attributes: asked of the lower file system, changed there, copied back.
 */
#include "journal.h"

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
	if (request_mask & STATX_CTIME)
		WRITE_ONCE(izo_i(inode)->ctime_seen, true);
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

/* The record: what of the attributes it sets. */
static u32 valid_bits(const struct inode *inode, unsigned int ia_valid)
{
	u32 valid = 0;

	if (ia_valid & ATTR_MODE)
		valid |= KML_A_MODE;
	if (ia_valid & ATTR_UID)
		valid |= KML_A_UID;
	if (ia_valid & ATTR_GID)
		valid |= KML_A_GID;
	/* that of a change of size is in its CLOSE */
	if (ia_valid & ATTR_MTIME && !(ia_valid & ATTR_SIZE))
		valid |= KML_A_MTIME;
	/* a change of owner may cost the set-id bits */
	if (valid & (KML_A_UID | KML_A_GID) && S_ISREG(inode->i_mode))
		valid |= KML_A_MODE;
	return valid;
}

static int set_attr(struct dentry *dentry, struct iattr *attr, u32 valid)
{
	struct inode *inode = d_inode(dentry);
	struct izo_op *op;
	int err;

	op = izo_op_inode(inode, KML_SETATTR, dentry);
	if (IS_ERR(op))
		return PTR_ERR(op);
	izo_op_attr(op, inode, valid);
	izo_op_old(op, inode);
	err = izo_op_begin(op);
	if (err) {
		izo_op_free(op);
		return err;
	}
	err = change_lower(inode, attr);
	if (err) {
		izo_op_abort(op);
		return err;
	}
	izo_op_attr(op, inode, valid);
	izo_op_done(op);
	return 0;
}

static int set_logged(struct dentry *dentry, struct iattr *attr, u32 valid)
{
	struct inode *inode = d_inode(dentry);
	int err;

	if (!valid)
		return change_lower(inode, attr);
	if (!(valid & KML_A_MTIME) || !S_ISREG(inode->i_mode))
		return set_attr(dentry, attr, valid);
	izo_session_setting(inode);
	err = set_attr(dentry, attr, valid);
	izo_session_set(inode, dentry);
	return err;
}

/* Content between the old and the new size is what changes. */
static int set_size(struct dentry *dentry, struct iattr *attr, u32 valid)
{
	struct inode *inode = d_inode(dentry);
	const u64 old = i_size_read(izo_lower_inode(inode)), size = attr->ia_size;
	struct izo_change change;
	int err;

	if (size)
		err = izo_session_change(inode, min(old, size), max(old, size) - min(old, size),
					 &change);
	else
		err = izo_session_empty(inode, &change);
	if (err)
		return err;
	err = set_logged(dentry, attr, valid);
	izo_session_changed(inode, &change, dentry, err);
	return err;
}

/* O_RDWR opens of the lower file are ours alone: one of them may deny writing. */
static int truncate_lower(struct dentry *dentry, struct iattr *attr, u32 valid)
{
	struct inode *lower = izo_lower_inode(d_inode(dentry));
	int err;

	err = get_write_access(lower);
	if (err)
		return err;
	err = set_size(dentry, attr, valid);
	put_write_access(lower);
	return err;
}

int izo_setattr(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr)
{
	const u32 valid = valid_bits(d_inode(dentry), attr->ia_valid);
	struct iattr lower = *attr;
	int err;

	if (izo_is_log(d_inode(dentry)))
		return -EPERM;
	/* it has just been replaced: the VFS looks its name up again */
	if (attr->ia_valid & ATTR_SIZE && !(attr->ia_valid & ATTR_FILE) &&
	    izo_i(d_inode(dentry))->gone)
		return -ESTALE;
	err = setattr_prepare(&nop_mnt_idmap, dentry, attr);
	if (err)
		return err;
	lower_attr(&lower);
	if (lower.ia_valid & ATTR_SIZE)
		return truncate_lower(dentry, &lower, valid);
	return set_logged(dentry, &lower, valid);
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

int izo_update_time(struct inode *inode, IZO_UPDATE_TIME_ARGS)
{
	if (IZO_UPDATES_ATIME)
		touch_lower(inode);
	return 0;
}

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
