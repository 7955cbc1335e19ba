// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * File handles (NFS, open_by_handle_at()): those of the lower file system.
 */
#include "intermezzo.h"

#include <linux/exportfs.h>

static int izo_encode_fh(struct inode *inode, __u32 *fh, int *max_len, struct inode *parent)
{
	return izo_encode_inode_fh(izo_lower_inode(inode), (struct fid *)fh, max_len,
				   parent ? izo_lower_inode(parent) : NULL);
}

static int any_alias(void *context, struct dentry *dentry)
{
	return 1;
}

/* What lies outside of a directory that is the lower root is not ours. */
static bool inside(struct izo_sb *sbi, struct dentry *lower)
{
	if (sbi->lower_root == sbi->lower_root->d_sb->s_root)
		return true;
	return is_subdir(lower, sbi->lower_root);
}

/* The lower object of a handle, counted; NULL or an error if there is none. */
struct dentry *izo_decode_handle(struct izo_sb *sbi, void *fid, int words, int type)
{
	struct dentry *lower;

	lower = izo_decode_fh_raw(sbi->lower_mnt, fid, words, type, any_alias);
	if (!IS_ERR_OR_NULL(lower) && !inside(sbi, lower)) {
		dput(lower);
		return ERR_PTR(-ESTALE);
	}
	return lower;
}

static bool is_meta(struct izo_sb *sbi, struct dentry *lower)
{
	struct dentry *d = dget(lower), *parent;
	bool meta = false;

	while (!meta && d != sbi->lower_root && !IS_ROOT(d)) {
		parent = dget_parent(d);
		meta = parent == sbi->lower_root && izo_name_is(&d->d_name, IZO_META_DIR);
		dput(d);
		d = parent;
	}
	dput(d);
	return meta;
}

static struct dentry *alias_of(struct super_block *sb, struct dentry *lower)
{
	struct inode *inode = izo_iget(sb, lower, is_meta(izo_sb(sb), lower));

	return d_obtain_alias(inode);
}

static struct dentry *izo_fh_to_dentry(struct super_block *sb, struct fid *fid, int fh_len,
				       int fh_type)
{
	struct dentry *lower = izo_decode_handle(izo_sb(sb), fid, fh_len, fh_type), *dentry;

	if (IS_ERR_OR_NULL(lower))
		return lower;
	dentry = alias_of(sb, lower);
	dput(lower);
	return dentry;
}

/* Lower directories are connected as soon as they are decoded. */
static struct dentry *izo_get_parent(struct dentry *dentry)
{
	struct dentry *lower = dget_parent(izo_lower_dentry(d_inode(dentry)));
	struct dentry *parent = alias_of(dentry->d_sb, lower);

	dput(lower);
	return parent;
}

const struct export_operations izo_export_ops = {
	.encode_fh	= izo_encode_fh,
	.fh_to_dentry	= izo_fh_to_dentry,
	.get_parent	= izo_get_parent,
};
