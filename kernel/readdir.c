// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Listings: the lower directory's, without what the root hides.
 */
#include "journal.h"

#include <linux/file.h>

struct izo_dir_context {
	struct dir_context	ctx;
	struct dir_context	*caller;
	bool			root;
};

static bool left_out(const struct izo_dir_context *c, const char *name, int len)
{
	const struct qstr q = QSTR_INIT(name, len);

	return c->root && (izo_name_is(&q, IZO_META_DIR) || izo_name_is(&q, IZO_LOST_FOUND));
}

static bool izo_actor(struct dir_context *ctx, const char *name, int len, loff_t pos, u64 ino,
		      unsigned int type)
{
	struct izo_dir_context *c = container_of(ctx, struct izo_dir_context, ctx);

	if (left_out(c, name, len))
		return true;
	c->caller->pos = pos;
	return c->caller->actor(c->caller, name, len, pos, ino, type);
}

static int izo_iterate(struct file *file, struct dir_context *caller)
{
	struct inode *dir = file_inode(file);
	struct file *real = file->private_data;
	struct izo_dir_context c = {
		.ctx.actor	= izo_actor,
		.caller		= caller,
		.root		= dir == d_inode(dir->i_sb->s_root),
	};
	int err;

	real->f_pos = caller->pos;
	err = iterate_dir(real, &c.ctx);
	caller->pos = real->f_pos;
	return err;
}

/* A lower file system may do more about a new position than remember it. */
static loff_t izo_dir_llseek(struct file *file, loff_t offset, int whence)
{
	struct file *real = file->private_data;
	loff_t pos;

	inode_lock(file_inode(file));
	real->f_pos = file->f_pos;
	pos = vfs_llseek(real, offset, whence);
	if (pos >= 0)
		file->f_pos = pos;
	inode_unlock(file_inode(file));
	return pos;
}

static int izo_dir_open(struct inode *dir, struct file *file)
{
	const struct path lower = izo_lower_path(dir);
	struct file *real;

	real = dentry_open(&lower, file->f_flags | O_NOATIME, current_cred());
	if (IS_ERR(real))
		return PTR_ERR(real);
	file->private_data = real;
	return 0;
}

static int izo_dir_release(struct inode *dir, struct file *file)
{
	fput(file->private_data);
	return 0;
}

static int izo_dir_fsync(struct file *file, loff_t start, loff_t end, int datasync)
{
	struct inode *dir = file_inode(file);
	int err = 0;

	if (!izo_i(dir)->meta)
		err = izo_journal_sync(izo_sb(dir->i_sb)->journal);
	return err ?: vfs_fsync_range(file->private_data, start, end, datasync);
}

const struct file_operations izo_dir_fops = {
	.owner		= THIS_MODULE,
	.open		= izo_dir_open,
	.release	= izo_dir_release,
	.iterate_shared	= izo_iterate,
	.llseek		= izo_dir_llseek,
	.read		= generic_read_dir,
	.fsync		= izo_dir_fsync,
	.unlocked_ioctl	= izo_ioctl,
};
