/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Backing files: files of the lower file system that know the upper file's path.
 * Before Linux 6.8 there were none to be had by modules; then a file whose path is the
 * upper one and whose inode is the lower one does it, and its requests are synchronous.
 */
#ifndef INTERMEZZO_COMPAT_BACKING_H
#define INTERMEZZO_COMPAT_BACKING_H

#ifdef IZO_HAVE_BACKING_FILE
#include <linux/backing-file.h>
#else
/* file_dentry() of such a file, which file systems ask for, is had by ->d_real(). */
#define IZO_D_REAL
#include <linux/file.h>
#include <linux/mm.h>
#include <linux/splice.h>
#include <linux/uio.h>

struct backing_file_ctx {
	const struct cred *cred;
	struct file *user_file;
	void (*accessed)(struct file *file);
};

static inline struct file *backing_file_open(const struct file *user_file, int flags,
					     const struct path *real_path,
					     const struct cred *cred)
{
	return open_with_fake_path(&user_file->f_path, flags, d_inode(real_path->dentry), cred);
}

static inline const struct path *backing_file_user_path(struct file *f)
{
	return &f->f_path;
}

static inline struct file *backing_tmpfile_open(const struct file *user_file, int flags,
						const struct path *parent, umode_t mode,
						const struct cred *cred)
{
	return vfs_tmpfile_open(&nop_mnt_idmap, parent, mode, flags, cred);
}

#define IZO_RW_FLAGS	(IOCB_NOWAIT | IOCB_HIPRI | IOCB_DSYNC | IOCB_SYNC | IOCB_APPEND)

static inline ssize_t backing_file_read_iter(struct file *file, struct iov_iter *iter,
					     struct kiocb *iocb, int flags,
					     struct backing_file_ctx *ctx)
{
	ssize_t n;

	if (iocb->ki_flags & IOCB_DIRECT && !(file->f_mode & FMODE_CAN_ODIRECT))
		return -EINVAL;
	n = vfs_iter_read(file, iter, &iocb->ki_pos, (__force rwf_t)(flags & IZO_RW_FLAGS));
	if (ctx->accessed)
		ctx->accessed(ctx->user_file);
	return n;
}

static inline ssize_t backing_file_write_iter(struct file *file, struct iov_iter *iter,
					      struct kiocb *iocb, int flags,
					      struct backing_file_ctx *ctx)
{
	ssize_t n = file_remove_privs(ctx->user_file);

	if (n)
		return n;
	if (iocb->ki_flags & IOCB_DIRECT && !(file->f_mode & FMODE_CAN_ODIRECT))
		return -EINVAL;
	file_start_write(file);
	n = vfs_iter_write(file, iter, &iocb->ki_pos, (__force rwf_t)(flags & IZO_RW_FLAGS));
	file_end_write(file);
	return n;
}

static inline ssize_t backing_file_splice_read(struct file *in, loff_t *pos,
					       struct pipe_inode_info *pipe, size_t len,
					       unsigned int flags, struct backing_file_ctx *ctx)
{
	ssize_t n;

	if (!in->f_op->splice_read)
		return -EINVAL;
	n = in->f_op->splice_read(in, pos, pipe, len, flags);
	if (ctx->accessed)
		ctx->accessed(ctx->user_file);
	return n;
}

static inline ssize_t backing_file_splice_write(struct pipe_inode_info *pipe, struct file *out,
						loff_t *pos, size_t len, unsigned int flags,
						struct backing_file_ctx *ctx)
{
	ssize_t n = out->f_op->splice_write ? file_remove_privs(ctx->user_file) : -EINVAL;

	if (n)
		return n;
	file_start_write(out);
	n = out->f_op->splice_write(pipe, out, pos, len, flags);
	file_end_write(out);
	return n;
}

static inline int backing_file_mmap(struct file *file, struct vm_area_struct *vma,
				    struct backing_file_ctx *ctx)
{
	int err;

	if (!file->f_op->mmap)
		return -ENODEV;
	vma_set_file(vma, file);
	err = call_mmap(vma->vm_file, vma);
	if (ctx->accessed)
		ctx->accessed(ctx->user_file);
	return err;
}
#endif

#ifndef __FMODE_NONOTIFY
#define IZO_FMODE_NONOTIFY 0
#else
#define IZO_FMODE_NONOTIFY __FMODE_NONOTIFY
#endif

#ifdef IZO_HAVE_BACKING_KIOCB
#define IZO_BACKING_CTX(file, ...)		\
	{ .cred = current_cred(), ##__VA_ARGS__ }

static inline ssize_t izo_backing_splice_read(struct file *real, struct file *file, loff_t *pos,
					      struct pipe_inode_info *pipe, size_t len,
					      unsigned int flags, struct backing_file_ctx *ctx)
{
	struct kiocb iocb;
	ssize_t n;

	init_sync_kiocb(&iocb, file);
	iocb.ki_pos = *pos;
	n = backing_file_splice_read(real, &iocb, pipe, len, flags, ctx);
	*pos = iocb.ki_pos;
	return n;
}

static inline ssize_t izo_backing_splice_write(struct pipe_inode_info *pipe, struct file *real,
					       struct file *file, loff_t *pos, size_t len,
					       unsigned int flags, struct backing_file_ctx *ctx)
{
	struct kiocb iocb;
	ssize_t n;

	init_sync_kiocb(&iocb, file);
	iocb.ki_pos = *pos;
	n = backing_file_splice_write(pipe, real, &iocb, len, flags, ctx);
	*pos = iocb.ki_pos;
	return n;
}
#else
#define IZO_BACKING_CTX(file, ...)		\
	{ .cred = current_cred(), .user_file = (file), ##__VA_ARGS__ }
#define izo_backing_splice_read(real, file, pos, pipe, len, flags, ctx)	\
	backing_file_splice_read(real, pos, pipe, len, flags, ctx)
#define izo_backing_splice_write(pipe, real, file, pos, len, flags, ctx)	\
	backing_file_splice_write(pipe, real, pos, len, flags, ctx)
#endif

#endif
