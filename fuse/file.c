// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Open files: reading, writing and all else that changes content.
 *
 * The kernel's writeback cache stays off.  With it write() would return
 * before we hear of it: records would come late and in another order, mtimes
 * would be the kernel's, and a crash of this process would lose what programs
 * believe written.  Pages that were changed through mmap are written back by the
 * kernel before it releases the descriptor they came from, so the CLOSE at the
 * last release covers them.
 *
 * What is open for reading is not passed through to the lower file, although
 * newer kernels could: while it is, mmap() by every other opener fails with ENODEV
 * (fuse_file_mmap() in the kernel), and a reader must not break a writer.  What is
 * read again comes from the page cache, one way or the other.
 *
 * Flags that the kernel applies itself (O_APPEND, O_DIRECT, O_SYNC) are not
 * passed on: offsets come from it, and syncs as requests.
 */
#include <config.h>

#include "fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define LOWER_FLAGS	(O_ACCMODE | O_NOATIME | O_LARGEFILE)
#define REPLY_COPY	8192	/* shorter answers are copied, longer ones spliced */

struct file *file_new(struct inode *i, int fd, bool write)
{
	struct file *f = malloc(sizeof(*f));

	if (!f)
		return NULL;
	f->fd = fd;
	f->inode = i;
	f->write = write;
	session_open(i, write);
	return f;
}

void file_free(struct file *f, fuse_req_t req)
{
	session_release(f->inode, f->write, req);
	close(f->fd);
	free(f);
}

/* Content between the old and the new size is what changes. */
int file_truncate(fuse_req_t req, struct inode *i, int fd, uint64_t size)
{
	struct change change;
	struct stat st;
	uint64_t off, end;
	int err;

	if (fstat(fd, &st) != 0)
		return -errno;
	off = size < (uint64_t) st.st_size ? size : (uint64_t) st.st_size;
	end = size < (uint64_t) st.st_size ? (uint64_t) st.st_size : size;
	err = session_change(i, fd, off, end - off, size == 0, &change);
	if (err)
		return err;
	if (ftruncate(fd, size) != 0)
		err = -errno;
	session_changed(i, req, &change);
	return err;
}

static int open_lower(fuse_req_t req, struct inode *i, int flags, struct file **ret_f)
{
	const bool write = (flags & O_ACCMODE) != O_RDONLY;
	struct file *f;
	int fd, err;

	if (write && i->meta)
		return -EROFS;
	if (write && i->gone) {
		writer_comes();
		return -ESTALE;
	}
	fd = inode_open(i, flags & LOWER_FLAGS);
	if (write)
		writer_came();
	if (fd < 0)
		return fd;
	f = file_new(i, fd, write);
	if (!f) {
		close(fd);
		return -ENOMEM;
	}
	if (write && flags & O_TRUNC) {
		err = file_truncate(req, i, fd, 0);
		if (!err)
			err = attr_truncated(req, i);
		if (err) {
			file_free(f, req);
			return err;
		}
	}
	*ret_f = f;
	return 0;
}

/*
 * Not again once somebody has it open: the kernel drops an answer to GETATTR that
 * meets an invalidation, and reads with the size that it knew before.
 */
static void tell_once(struct inode *i, uint32_t changed)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

	pthread_mutex_lock(&lock);
	if (i->told != changed)
		fuse_lowlevel_notify_inval_inode(fs.se, i->nodeid, -1, 0);
	i->told = changed;
	pthread_mutex_unlock(&lock);
}

int file_open(fuse_req_t req, struct inode *i, struct fuse_file_info *fi)
{
	struct file *f;
	uint32_t changed;
	int err;

	file_lock_shared(i->ino);
	err = open_lower(req, i, fi->flags, &f);
	changed = i->changed;
	file_unlock(i->ino);
	if (err)
		return err;
	fi->fh = (uintptr_t) f;
	/*
	 * Whatever changes content behind the kernel's back tells it so.  But a
	 * lookup's answer may have been on its way then, with the size from
	 * before: who opens is told again.  (Attributes alone: no page is waited
	 * for.)  What is below .intermezzo changes without a word.
	 */
	fi->direct_io = i->meta;
#ifdef HAVE_STRUCT_FUSE_FILE_INFO_NOFLUSH
	fi->noflush = !f->write;	/* it tells us nothing */
#endif
	fi->keep_cache = !i->meta && i->told == changed;
	if (!fi->keep_cache && !i->meta)
		tell_once(i, changed);
	return 0;
}

void ll_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	int err = file_open(req, inode_of(ino), fi);

	if (err)
		fuse_reply_err(req, -err);
	else if (fuse_reply_open(req, fi) != 0)
		file_free(file_of(fi), req);
}

static void read_copied(fuse_req_t req, struct file *f, size_t size, off_t off)
{
	char buf[REPLY_COPY];
	ssize_t n;

	do {
		n = pread(f->fd, buf, size, off);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, buf, n);
}

void ll_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct fuse_bufvec buf = FUSE_BUFVEC_INIT(size);
	struct file *f = file_of(fi);
	const uint64_t lower = f->inode->ino;

	/* once it is answered file and inode may be gone */
	file_lock_shared(lower);
	if (size <= REPLY_COPY) {
		read_copied(req, f, size, off);
	} else {
		buf.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
		buf.buf[0].fd = f->fd;
		buf.buf[0].pos = off;
		fuse_reply_data(req, &buf, 0);
	}
	file_unlock(lower);
}

static ssize_t write_all(int fd, const char *buf, size_t size, off_t off)
{
	size_t done = 0;
	ssize_t n;

	while (done < size) {
		n = pwrite(fd, buf + done, size - done, off + done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		done += n;
	}
	return done || !size ? (ssize_t) done : -errno;
}

void ll_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
	      struct fuse_file_info *fi)
{
	struct file *f = file_of(fi);
	struct change change;
	ssize_t n;

	file_lock_shared(f->inode->ino);
	n = session_change(f->inode, f->fd, off, size, false, &change);
	if (n == 0) {
		change.mapped = fi->writepage;
		n = write_all(f->fd, buf, size, off);
		session_changed(f->inode, req, &change);
	}
	file_unlock(f->inode->ino);
	if (n < 0)
		fuse_reply_err(req, -n);
	else
		fuse_reply_write(req, n);
}

/* A descriptor is closed: SYNC may now log what was written through it. */
void ll_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct file *f = file_of(fi);

	if (f->write)
		session_flushed(f->inode, req);
	fuse_reply_err(req, 0);
}

void ll_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct file *f = file_of(fi);
	const uint64_t lower = f->inode->ino;

	file_lock_shared(lower);
	file_free(f, req);
	file_unlock(lower);
	fuse_reply_err(req, 0);
}

/* The log is durable before the data is promised to be. */
void ll_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct file *f = file_of(fi);
	int err = 0;

	file_lock_shared(f->inode->ino);
	if (!f->inode->meta) {
		err = session_log(f->inode, req, false);
		if (!err)
			err = journal_sync();
	}
	if (!err && (datasync ? fdatasync(f->fd) : fsync(f->fd)) != 0)
		err = -errno;
	file_unlock(f->inode->ino);
	fuse_reply_err(req, -err);
}

void ll_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
		  struct fuse_file_info *fi)
{
	const int moves = FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE;
	struct file *f = file_of(fi);
	struct change change;
	uint64_t changes = len;
	int err;

	/* what moves all that is behind it changes all that is behind it */
	if (mode & moves)
		changes = INT64_MAX - off;
	file_lock_shared(f->inode->ino);
	err = session_change(f->inode, f->fd, off, changes, false, &change);
	if (!err) {
		if (fallocate(f->fd, mode, off, len) != 0)
			err = -errno;
		session_changed(f->inode, req, &change);
	}
	file_unlock(f->inode->ino);
	fuse_reply_err(req, -err);
}

void ll_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
			struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
			struct fuse_file_info *fi_out, size_t len, int flags)
{
	struct file *in = file_of(fi_in), *out = file_of(fi_out);
	struct change change;
	ssize_t n;

	file_lock2_shared(in->inode->ino, out->inode->ino);
	n = session_change(out->inode, out->fd, off_out, len, false, &change);
	if (n == 0) {
		n = copy_file_range(in->fd, &off_in, out->fd, &off_out, len, flags);
		if (n < 0)
			n = -errno;
		session_changed(out->inode, req, &change);
	}
	file_unlock2(in->inode->ino, out->inode->ino);
	if (n < 0)
		fuse_reply_err(req, -n);
	else
		fuse_reply_write(req, n);
}

void ll_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	off_t pos = lseek(file_of(fi)->fd, off, whence);

	if (pos < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_lseek(req, pos);
}
