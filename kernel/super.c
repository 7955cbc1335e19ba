// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The superblock: putting upper on lower and taking it off again.
 */
#include "journal.h"

#include <linux/cred.h>
#include <linux/sched/task.h>
#include <linux/seq_file.h>
#include <linux/statfs.h>

static int izo_statfs(struct dentry *dentry, struct kstatfs *buf)
{
	const struct path lower = izo_lower_path(d_inode(dentry));
	int err = vfs_statfs(&lower, buf);

	buf->f_type = IZO_SUPER_MAGIC;
	return err;
}

static int izo_sync_fs(struct super_block *sb, int wait)
{
	struct super_block *lsb = izo_lower_sb(sb);
	struct izo_journal *j = izo_sb(sb)->journal;
	u64 end, recno;
	int err;

	/* the lower file system gets its own call for the first, quick round */
	if (!wait)
		return 0;
	err = izo_journal_sync_kml(j);
	if (err)
		return err;
	izo_journal_end(j, &end, &recno);
	down_read(&lsb->s_umount);
	err = sync_filesystem(lsb);
	up_read(&lsb->s_umount);
	if (!err)
		izo_journal_data_synced(j, end, recno);
	return err;
}

/*
 * Writers are kept out already.  A lower file system of ours is frozen with
 * us, so that its device can be copied.
 */
static int izo_freeze_fs(struct super_block *sb)
{
	int err = izo_sync_fs(sb, 1);

	if (err || !izo_sb(sb)->lower_private)
		return err;
	return izo_freeze(izo_lower_sb(sb));
}

static int izo_unfreeze_fs(struct super_block *sb)
{
	if (!izo_sb(sb)->lower_private)
		return 0;
	return izo_thaw(izo_lower_sb(sb));
}

static int izo_show_options(struct seq_file *m, struct dentry *root)
{
	struct izo_sb *sbi = izo_sb(root->d_sb);
	const struct super_operations *ops = sbi->lower_root->d_sb->s_op;

	seq_show_option(m, "fileset", sbi->params.fileset);
	seq_show_option(m, "channel", sbi->channel_path);
	seq_show_option(m, "cache_type", sbi->lower_root->d_sb->s_type->name);
	if (sbi->params.lowerdir)
		seq_show_option(m, "lowerdir", sbi->params.lowerdir);
	if (sbi->lower_private && ops->show_options)
		return ops->show_options(m, sbi->lower_root);
	return 0;
}

static const struct super_operations izo_super_ops = {
	.alloc_inode	= izo_alloc_inode,
	.free_inode	= izo_free_inode,
	.drop_inode	= inode_just_drop,
	.evict_inode	= izo_evict_inode,
	.statfs		= izo_statfs,
	.sync_fs	= izo_sync_fs,
	.freeze_fs	= izo_freeze_fs,
	.unfreeze_fs	= izo_unfreeze_fs,
	.show_options	= izo_show_options,
};

/*
 * ro and rw are the mount's; the superblock stays writable for what comes from peers.
 * Nothing of ours can be changed.
 */
int izo_reconfigure(struct fs_context *fc)
{
	fc->sb_flags &= ~SB_RDONLY;
	sync_filesystem(fc->root->d_sb);
	return 0;
}

static void init_sb(struct super_block *sb, struct izo_sb *sbi)
{
	const struct super_block *lsb = sbi->lower_root->d_sb;

	sb->s_op = &izo_super_ops;
#ifdef IZO_D_REAL
	sb->s_d_op = &izo_dentry_ops;
#endif
	sb->s_xattr = izo_xattrs;
	sb->s_magic = IZO_SUPER_MAGIC;
	sb->s_maxbytes = lsb->s_maxbytes;
	sb->s_blocksize = lsb->s_blocksize;
	sb->s_blocksize_bits = lsb->s_blocksize_bits;
	sb->s_time_gran = lsb->s_time_gran;
	sb->s_time_min = lsb->s_time_min;
	sb->s_time_max = lsb->s_time_max;
	sb->s_stack_depth = lsb->s_stack_depth + 1;
	sb->s_flags |= lsb->s_flags & SB_POSIXACL;
	if (lsb->s_export_op && lsb->s_export_op->fh_to_dentry)
		sb->s_export_op = &izo_export_ops;
}

static int make_root(struct super_block *sb, struct izo_sb *sbi)
{
	struct inode *inode = izo_iget(sb, sbi->lower_root, false);

	if (IS_ERR(inode))
		return PTR_ERR(inode);
	sb->s_root = d_make_root(inode);
	return sb->s_root ? 0 : -ENOMEM;
}

int izo_fill_super(struct super_block *sb, struct fs_context *fc)
{
	struct izo_sb *sbi = sb->s_fs_info;
	int err;

	sbi->sb = sb;
	sbi->timeout = 1;
	sbi->close_after = 64;
	sbi->close_every = 30;
	sbi->checkpoint_every = 30;
	sbi->creds = prepare_kernel_cred(&init_task);
	if (!sbi->creds)
		return -ENOMEM;
	izo_sessions_init(sbi);
	mutex_init(&sbi->vm_ops_lock);
	INIT_LIST_HEAD(&sbi->vm_ops);
	/* a replica that nobody here may change still follows its server */
	sb->s_flags &= ~SB_RDONLY;
	err = izo_lower_mount(sbi, fc);
	if (err)
		return err;
	if (sbi->params.virtual)
		err = izo_fileset_make(sbi, fc);
	else
		err = izo_fileset_find(sbi, fc);
	if (err)
		return err;
	err = izo_journal_open(sbi, fc);
	if (err)
		return err;
	init_sb(sb, sbi);
	err = make_root(sb, sbi);
	if (!err)
		err = izo_channel_open(sbi, fc);
	if (!err)
		izo_debug(IZO_D_SUPER, "%s: mounted, channel %s\n", sbi->params.fileset,
			  sbi->channel_path);
	return err;
}

/* Also after a mount that failed half way. */
void izo_kill_sb(struct super_block *sb)
{
	struct izo_sb *sbi = sb->s_fs_info;

	if (sbi && sbi->channel)
		izo_channel_close(sbi);
	if (sbi && sb->s_root)
		izo_sessions_end(sbi);
	kill_anon_super(sb);
	if (!sbi)
		return;
	izo_debug(IZO_D_SUPER, "%s: unmounted\n", sbi->params.fileset ?: "");
	izo_journal_close(sbi);
	izo_mmap_exit(sbi);
	izo_lower_unmount(sbi);
	izo_free_params(&sbi->params);
	if (sbi->creds)
		put_cred(sbi->creds);
	kfree(sbi);
}
