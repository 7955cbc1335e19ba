// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Attributes.  The kernel clears set-id bits itself (we do not ask for
 * HANDLE_KILLPRIV), so that this comes as an operation and is logged; only what
 * the lower file system clears at chown we have to look for.
 */
#include <config.h>

#include "fs.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define SET_TIMES	(FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | \
			 FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW)

void ll_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct inode *i = inode_of(ino);
	struct stat st;
	int err = inode_stat(i, &st);

	if (err)
		fuse_reply_err(req, -err);
	else
		fuse_reply_attr(req, &st, cache_time(i));
}

static int set_owner(int fd, const struct stat *attr, int to_set)
{
	uid_t uid = to_set & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t) -1;
	gid_t gid = to_set & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t) -1;

	return fchownat(fd, "", uid, gid, AT_EMPTY_PATH) ? -errno : 0;
}

static int set_mode(int fd, const struct stat *attr)
{
	char name[16];

	proc_name(name, fd);
	return fchmodat(fs.proc_fd, name, attr->st_mode & 07777, 0) ? -errno : 0;
}

static int set_times(int fd, const struct stat *attr, int to_set)
{
	struct timespec ts[2] = { { 0, UTIME_OMIT }, { 0, UTIME_OMIT } };
	char name[16];

	if (to_set & FUSE_SET_ATTR_ATIME_NOW)
		ts[0].tv_nsec = UTIME_NOW;
	else if (to_set & FUSE_SET_ATTR_ATIME)
		ts[0] = attr->st_atim;
	if (to_set & FUSE_SET_ATTR_MTIME_NOW)
		ts[1].tv_nsec = UTIME_NOW;
	else if (to_set & FUSE_SET_ATTR_MTIME)
		ts[1] = attr->st_mtim;
	proc_name(name, fd);
	return utimensat(fs.proc_fd, name, ts, 0) ? -errno : 0;
}

static uint32_t valid_bits(const struct inode *i, int to_set)
{
	uint32_t valid = 0;

	if (to_set & FUSE_SET_ATTR_MODE)
		valid |= KML_A_MODE;
	if (to_set & FUSE_SET_ATTR_UID)
		valid |= KML_A_UID;
	if (to_set & FUSE_SET_ATTR_GID)
		valid |= KML_A_GID;
	if (to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW))
		valid |= KML_A_MTIME;
	/* a change of owner may cost the set-id bits */
	if (valid & (KML_A_UID | KML_A_GID) && S_ISREG(i->type))
		valid |= KML_A_MODE;
	return valid;
}

/* ret_some: something was changed, even if not all could be. */
static int set_lower(int fd, const struct stat *attr, int to_set, bool *ret_some)
{
	int err = 0;

	*ret_some = false;
	if (to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) {
		err = set_owner(fd, attr, to_set);
		*ret_some |= !err;
	}
	if (!err && to_set & FUSE_SET_ATTR_MODE) {
		err = set_mode(fd, attr);
		*ret_some |= !err;
	}
	if (!err && to_set & SET_TIMES) {
		err = set_times(fd, attr, to_set);
		*ret_some |= !err;
	}
	return err;
}

static int set_logged(fuse_req_t req, struct inode *i, int fd, const struct stat *attr,
		      int to_set)
{
	struct stat st;
	struct op op;
	bool some;
	int err;

	if (fstatat(fd, "", &st, AT_EMPTY_PATH) != 0)
		return -errno;
	op_init_object(&op, req, KML_SETATTR, i);
	op.r.has_attr = true;
	attr_from_stat(&op.r.attr, &st);
	op.r.attr.valid = valid_bits(i, to_set);
	op.r.has_old = true;
	op.r.old = op.r.obj;
	attr_from_stat(&op.r.old_attr, &st);
	op.nolog |= st.st_nlink == 0 || op.r.attr.valid == 0;
	err = op_begin(&op);
	if (err)
		return err;
	err = set_lower(fd, attr, to_set, &some);
	if (!some || fstatat(fd, "", &st, AT_EMPTY_PATH) != 0) {
		op_abort(&op);
		return err;
	}
	op.r.attr = (struct kml_attrs) { 0 };
	attr_from_stat(&op.r.attr, &st);
	op.r.attr.valid = valid_bits(i, to_set);
	op_done(&op);
	return err;
}

static int set_size(fuse_req_t req, struct inode *i, uint64_t size, struct fuse_file_info *fi)
{
	int fd, err;

	if (fi)
		return file_truncate(req, i, file_of(fi)->fd, size);
	if (i->gone)
		return -ESTALE;
	fd = inode_open(i, O_WRONLY);
	if (fd < 0)
		return fd;
	err = file_truncate(req, i, fd, size);
	close(fd);
	return err;
}

static int set_attr(fuse_req_t req, struct inode *i, const struct stat *attr, int to_set,
		    struct fuse_file_info *fi)
{
	int err = 0, fd;

	if (to_set & FUSE_SET_ATTR_SIZE)
		err = set_size(req, i, attr->st_size, fi);
	if (err || !(to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID | FUSE_SET_ATTR_MODE |
			       SET_TIMES)))
		return err;
	fd = inode_get_fd(i);
	if (fd < 0)
		return fd;
	err = set_logged(req, i, fd, attr, to_set);
	inode_put_fd(i);
	return err;
}

static int drop_set_id(fuse_req_t req, struct inode *i)
{
	struct stat st;
	int fd, err;

	err = inode_stat(i, &st);
	if (err)
		return err;
	if (!(st.st_mode & S_ISUID) &&
	    (st.st_mode & (S_ISGID | S_IXGRP)) != (S_ISGID | S_IXGRP))
		return 0;
	st.st_mode &= ~S_ISUID;
	if (st.st_mode & S_IXGRP)
		st.st_mode &= ~S_ISGID;
	fd = inode_get_fd(i);
	if (fd < 0)
		return fd;
	err = set_logged(req, i, fd, &st, FUSE_SET_ATTR_MODE);
	inode_put_fd(i);
	/* what the kernel remembers; it changes only the size itself */
	fuse_lowlevel_notify_inval_inode(fs.se, i->nodeid, -1, 0);
	return err;
}

int attr_truncated(fuse_req_t req, struct inode *i)
{
	int err = fuse_req_ctx(req)->uid ? drop_set_id(req, i) : 0;

	return err ? err : xattr_drop(req, i, "security.capability");
}

void ll_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		struct fuse_file_info *fi)
{
	struct inode *i = inode_of(ino);
	struct stat st;
	int err;

	if (i->meta) {
		fuse_reply_err(req, EROFS);
		return;
	}
	file_lock_shared(i->ino);
	err = set_attr(req, i, attr, to_set, fi);
	if (!err)
		err = inode_stat(i, &st);
	file_unlock(i->ino);
	if (err)
		fuse_reply_err(req, -err);
	else
		fuse_reply_attr(req, &st, cache_time(i));
}

void ll_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st;

	if (fstatvfs(fs.mount_fd, &st) != 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_statfs(req, &st);
}
