// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Open files: a backing file below each of them does the work.
 */
#include "journal.h"

#include <linux/falloc.h>
#include <linux/file.h>
#include <linux/splice.h>
#include <linux/uio.h>

/* Flags that F_SETFL may change while a file is open. */
#define IZO_SETFL_FLAGS	(O_APPEND | O_NONBLOCK | O_NDELAY | O_DIRECT)

/*
 * Access times are the upper mount's business (see izo_update_time()), and
 * notifications come from the upper file.
 */
#define IZO_OPEN_FLAGS	(O_NOATIME | IZO_FMODE_NONOTIFY)

static int izo_open(struct inode *inode, struct file *file)
{
	const struct path lower = izo_lower_path(inode);
	struct file *real;
	int err;

	if (file->f_mode & FMODE_WRITE && izo_is_log(inode))
		return -EPERM;
	err = izo_session_open(inode, file->f_mode & FMODE_WRITE);
	/* the VFS tries once more for this than for ESTALE */
	if (err)
		return err == -ESTALE ? -EOPENSTALE : err;
	file->f_flags &= ~(O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC);
	real = backing_file_open(file, file->f_flags | IZO_OPEN_FLAGS, &lower, current_cred());
	if (IS_ERR(real)) {
		izo_session_release(inode, file->f_mode & FMODE_WRITE, file->f_path.dentry);
		return PTR_ERR(real);
	}
	file->f_mode |= real->f_mode & FMODE_CAN_ODIRECT;
	file->private_data = real;
	return 0;
}

static int izo_release(struct inode *inode, struct file *file)
{
	izo_session_release(inode, file->f_mode & FMODE_WRITE, file->f_path.dentry);
	fput(file->private_data);
	return 0;
}

static void take_flags(struct file *real, unsigned int flags)
{
	spin_lock(&real->f_lock);
	real->f_flags = (real->f_flags & ~IZO_SETFL_FLAGS) | (flags & IZO_SETFL_FLAGS);
	real->f_iocb_flags = iocb_flags(real);
	spin_unlock(&real->f_lock);
}

/* The file below, with the flags that this one has now. */
struct file *izo_real_file(struct file *file)
{
	struct file *real = file->private_data;

	if (unlikely((file->f_flags ^ real->f_flags) & IZO_SETFL_FLAGS))
		take_flags(real, file->f_flags);
	return real;
}

static void izo_accessed(struct file *file)
{
	if (!(file->f_flags & O_NOATIME))
		touch_atime(&file->f_path);
}

static void file_changed(struct inode *inode)
{
	izo_copy_attr(inode);
}

/* Reading */

static ssize_t izo_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct file *file = iocb->ki_filp;
	struct backing_file_ctx ctx = IZO_BACKING_CTX(file, .accessed = izo_accessed);

	return backing_file_read_iter(izo_real_file(file), to, iocb, iocb->ki_flags, &ctx);
}

static ssize_t izo_splice_read(struct file *in, loff_t *pos, struct pipe_inode_info *pipe,
			       size_t len, unsigned int flags)
{
	struct backing_file_ctx ctx = IZO_BACKING_CTX(in, .accessed = izo_accessed);

	return izo_backing_splice_read(izo_real_file(in), in, pos, pipe, len, flags, &ctx);
}

/*
 * Where data and holes are only the lower file knows; the position is this
 * file's alone.
 */
static loff_t izo_llseek(struct file *file, loff_t offset, int whence)
{
	struct inode *inode = file_inode(file);
	loff_t pos;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return generic_file_llseek_size(file, offset, whence, inode->i_sb->s_maxbytes,
						i_size_read(izo_lower_inode(inode)));
	pos = vfs_llseek(izo_real_file(file), offset, whence);
	return pos < 0 ? pos : vfs_setpos(file, pos, inode->i_sb->s_maxbytes);
}

/* Changing */

/*
 * All writers of a file pass here one by one, so that what each of them changed
 * is known.  Asynchronous requests are done when this returns.
 */
static ssize_t write_locked(struct kiocb *iocb, struct iov_iter *from)
{
	struct file *file = iocb->ki_filp;
	struct backing_file_ctx ctx = IZO_BACKING_CTX(file);
	struct kiocb sync;
	ssize_t n;

	init_sync_kiocb(&sync, file);
	sync.ki_flags = iocb->ki_flags;
	sync.ki_ioprio = iocb->ki_ioprio;
	sync.ki_pos = iocb->ki_pos;
	n = backing_file_write_iter(izo_real_file(file), from, &sync, sync.ki_flags, &ctx);
	iocb->ki_pos = sync.ki_pos;
	return n;
}

/*
 * Where a request will write, as far as can be said before: what the lower file
 * makes of it, an append too, is not moved by others meanwhile.
 */
static u64 write_pos(const struct kiocb *iocb)
{
	if (iocb->ki_flags & IOCB_APPEND)
		return i_size_read(izo_lower_inode(file_inode(iocb->ki_filp)));
	return iocb->ki_pos;
}

static ssize_t izo_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct file *file = iocb->ki_filp;
	struct inode *inode = file_inode(file);
	struct izo_change change;
	ssize_t n;

	if (!iov_iter_count(from))
		return 0;
	inode_lock(inode);
	n = izo_session_change(inode, write_pos(iocb), iov_iter_count(from), &change);
	if (n)
		goto out;
	n = write_locked(iocb, from);
	file_changed(inode);
	izo_session_changed(inode, &change, file->f_path.dentry, n);
out:
	inode_unlock(inode);
	return n;
}

static ssize_t izo_splice_write(struct pipe_inode_info *pipe, struct file *out, loff_t *pos,
				size_t len, unsigned int flags)
{
	struct backing_file_ctx ctx = IZO_BACKING_CTX(out);
	struct inode *inode = file_inode(out);
	struct izo_change change;
	ssize_t n;

	inode_lock(inode);
	n = izo_session_change(inode, *pos, len, &change);
	if (n)
		goto out;
	n = izo_backing_splice_write(pipe, izo_real_file(out), out, pos, len, flags, &ctx);
	file_changed(inode);
	izo_session_changed(inode, &change, out->f_path.dentry, n);
out:
	inode_unlock(inode);
	return n;
}

static long izo_fallocate(struct file *file, int mode, loff_t offset, loff_t len)
{
	const int moves = FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE;
	struct inode *inode = file_inode(file);
	struct izo_change change;
	int err;

	inode_lock(inode);
	/* what moves all that is behind it changes all that is behind it */
	err = izo_session_change(inode, offset, mode & moves ? MAX_LFS_FILESIZE - offset : len,
				 &change);
	if (err)
		goto out;
	err = file_remove_privs(file);
	if (!err)
		err = vfs_fallocate(izo_real_file(file), mode, offset, len);
	file_changed(inode);
	izo_session_changed(inode, &change, file->f_path.dentry, err);
out:
	inode_unlock(inode);
	return err;
}

enum copy_op { COPY, CLONE, DEDUPE };

static loff_t copy_lower(struct file *in, loff_t pos_in, struct file *out, loff_t pos_out,
			 loff_t len, unsigned int flags, enum copy_op op)
{
	switch (op) {
	case COPY:
		return vfs_copy_file_range(in, pos_in, out, pos_out, len, flags);
	case CLONE:
		return vfs_clone_file_range(in, pos_in, out, pos_out, len, flags);
	default:
		return vfs_dedupe_file_range_one(in, pos_in, out, pos_out, len, flags);
	}
}

static loff_t copy_locked(struct file *in, loff_t pos_in, struct file *out, loff_t pos_out,
			  loff_t len, unsigned int flags, enum copy_op op)
{
	loff_t n = op == DEDUPE ? 0 : file_remove_privs(out);

	if (n)
		return n;
	return copy_lower(izo_real_file(in), pos_in, izo_real_file(out), pos_out, len, flags, op);
}

/* To the end of the file: length 0 of a clone.  Deduplication changes no content. */
static u64 copy_length(const struct file *in, loff_t pos_in, loff_t len, enum copy_op op)
{
	if (op == CLONE && !len)
		return i_size_read(file_inode(in)) - pos_in;
	return op == DEDUPE ? 0 : len;
}

static loff_t copy(struct file *in, loff_t pos_in, struct file *out, loff_t pos_out,
		   loff_t len, unsigned int flags, enum copy_op op)
{
	struct inode *inode = file_inode(out);
	struct izo_change change;
	loff_t n;

	/* a file of another superblock of ours has nothing that we could reach */
	if (file_inode(in)->i_sb != inode->i_sb)
		return -EXDEV;
	inode_lock(inode);
	n = izo_session_change(inode, pos_out, copy_length(in, pos_in, len, op), &change);
	if (n)
		goto out;
	n = copy_locked(in, pos_in, out, pos_out, len, flags, op);
	file_changed(inode);
	izo_session_changed(inode, &change, out->f_path.dentry, n);
out:
	inode_unlock(inode);
	return n;
}

static ssize_t izo_copy_file_range(struct file *in, loff_t pos_in, struct file *out,
				   loff_t pos_out, size_t len, unsigned int flags)
{
	return copy(in, pos_in, out, pos_out, len, flags, COPY);
}

static loff_t izo_remap_file_range(struct file *in, loff_t pos_in, struct file *out,
				   loff_t pos_out, loff_t len, unsigned int flags)
{
	if (flags & ~(REMAP_FILE_DEDUP | REMAP_FILE_ADVISORY))
		return -EINVAL;
	return copy(in, pos_in, out, pos_out, len, flags,
		    flags & REMAP_FILE_DEDUP ? DEDUPE : CLONE);
}

/* And the rest */

static int izo_flush(struct file *file, fl_owner_t id)
{
	struct file *real = izo_real_file(file);

	if (file->f_mode & FMODE_WRITE)
		izo_session_flushed(file_inode(file));
	return real->f_op->flush ? real->f_op->flush(real, id) : 0;
}

/* The log is durable before the data is promised to be. */
static int izo_fsync(struct file *file, loff_t start, loff_t end, int datasync)
{
	struct inode *inode = file_inode(file);
	int err = 0;

	if (!izo_i(inode)->meta) {
		err = izo_session_log(inode, file->f_path.dentry);
		if (!err)
			err = izo_journal_sync(izo_sb(inode->i_sb)->journal);
	}
	if (err)
		return err;
	return vfs_fsync_range(izo_real_file(file), start, end, datasync);
}

static int izo_fadvise(struct file *file, loff_t offset, loff_t len, int advice)
{
	return vfs_fadvise(izo_real_file(file), offset, len, advice);
}

/*
 * What is asked of a file passes through where it changes nothing that is
 * logged; FS_IOC_GETFLAGS and its like come by ->fileattr_get().
 */
#define IZO_IOC_SHUTDOWN	_IOR('X', 125, __u32)

static long lower_ioctl(struct file *real, unsigned int cmd, unsigned long arg)
{
	long n = -ENOTTY;

	if (real->f_op->unlocked_ioctl)
		n = real->f_op->unlocked_ioctl(real, cmd, arg);
	return n == -ENOIOCTLCMD ? -ENOTTY : n;
}

long izo_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	switch (cmd) {
	case IZO_IOC_SHUTDOWN:
	case FS_IOC_GETVERSION:
		return lower_ioctl(file->private_data, cmd, arg);
	default:
		return -ENOTTY;
	}
}

const struct file_operations izo_file_fops = {
	.owner			= THIS_MODULE,
	.open			= izo_open,
	.release		= izo_release,
	.flush			= izo_flush,
	.llseek			= izo_llseek,
	.read_iter		= izo_read_iter,
	.write_iter		= izo_write_iter,
	.splice_read		= izo_splice_read,
	.splice_write		= izo_splice_write,
	.fsync			= izo_fsync,
	.mmap			= izo_mmap,
	.fallocate		= izo_fallocate,
	.fadvise		= izo_fadvise,
	.copy_file_range	= izo_copy_file_range,
	.remap_file_range	= izo_remap_file_range,
	.unlocked_ioctl		= izo_ioctl,
};

static const char *izo_get_link(struct dentry *dentry, struct inode *inode,
				struct delayed_call *done)
{
	if (!dentry)
		return ERR_PTR(-ECHILD);
	return vfs_get_link(izo_lower_dentry(inode), done);
}

const struct inode_operations izo_file_iops = {
	.getattr	= izo_getattr,
	.setattr	= izo_setattr,
	.update_time	= izo_update_time,
	.listxattr	= izo_listxattr,
	IZO_ACL_IOPS,
	.fileattr_get	= izo_fileattr_get,
	.fileattr_set	= izo_fileattr_set,
	.fiemap		= izo_fiemap,
};

const struct inode_operations izo_link_iops = {
	.get_link	= izo_get_link,
	.getattr	= izo_getattr,
	.setattr	= izo_setattr,
	.update_time	= izo_update_time,
	.listxattr	= izo_listxattr,
};

const struct inode_operations izo_special_iops = {
	.getattr	= izo_getattr,
	.setattr	= izo_setattr,
	.update_time	= izo_update_time,
	.listxattr	= izo_listxattr,
	IZO_ACL_IOPS,
	.fileattr_get	= izo_fileattr_get,
	.fileattr_set	= izo_fileattr_set,
};
