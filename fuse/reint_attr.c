// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * REINT of new objects without a finished file, and of attributes.
 */
#include <config.h>

#include "byteorder.h"
#include "reint.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define ACL_ACCESS	"system.posix_acl_access"
#define ACL_DEFAULT	"system.posix_acl_default"

static void xattr_name(char buf[256], const struct kml_str *name)
{
	size_t n = name->len < 255 ? name->len : 255;

	memcpy(buf, name->ptr, n);
	buf[n] = 0;
}

int set_xattrs(int fd, const void *items, size_t len)
{
	struct kml_str name, value;
	char self[32], n[256];
	size_t pos = 0;

	proc_path(self, fd);
	while (items && kml_xattr_next(items, len, &pos, &name, &value)) {
		xattr_name(n, &name);
		if (setxattr(self, n, value.ptr ? value.ptr : "", value.len, 0) != 0)
			return -errno;
	}
	return 0;
}

int set_mtime(int fd, const struct kml_time *t)
{
	const struct timespec ts[2] = {
		{ .tv_nsec = UTIME_OMIT },
		{ .tv_sec = t->sec, .tv_nsec = t->nsec },
	};

	return utimensat(fd, "", ts, AT_EMPTY_PATH) != 0 ? -errno : 0;
}

static int set_owner(int fd, const struct kml_attrs *want, uint32_t valid, const struct stat *st)
{
	const uid_t uid = valid & KML_A_UID ? want->uid : st->st_uid;
	const gid_t gid = valid & KML_A_GID ? want->gid : st->st_gid;

	if (uid == st->st_uid && gid == st->st_gid)
		return 0;
	return fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0 ? -errno : 0;
}

/* After the owner, whose change clears suid and sgid. */
static int set_mode(int fd, mode_t mode)
{
	char self[32];
	struct stat st;

	if (fstatat(fd, "", &st, AT_EMPTY_PATH) != 0)
		return -errno;
	if (S_ISLNK(st.st_mode) || (st.st_mode & 07777) == (mode & 07777))
		return 0;
	proc_path(self, fd);
	return chmod(self, mode & 07777) != 0 ? -errno : 0;
}

int set_attrs(int fd, const struct kml_attrs *want, uint32_t valid)
{
	struct stat st;
	int err;

	if (fstatat(fd, "", &st, AT_EMPTY_PATH) != 0)
		return -errno;
	err = set_owner(fd, want, valid, &st);
	if (!err)
		err = set_mode(fd, valid & KML_A_MODE ? want->mode : st.st_mode);
	if (!err && (valid & KML_A_MTIME))
		err = set_mtime(fd, &want->mtime);
	return err;
}

void drop_inherited_acl(const struct reint_entry *e, int fd, bool is_dir)
{
	char self[32];

	if (!dir_default_acl(e->run->place.inode, e->run->place.fd))
		return;
	proc_path(self, fd);
	(void) removexattr(self, ACL_ACCESS);
	if (is_dir)
		(void) removexattr(self, ACL_DEFAULT);
}

/* The bare object; a descriptor of it. */
static int make_bare(struct reint_entry *e)
{
	const mode_t mode = e->r.attr.mode & 07777;
	int dirfd = e->run->place.fd, err = 0, fd;
	char text[4096];

	switch (e->r.opcode) {
	case KML_CREATE:
		fd = openat(dirfd, e->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			    mode);
		return fd < 0 ? -errno : fd;
	case KML_MKDIR:
		err = mkdirat(dirfd, e->name, mode);
		break;
	case KML_MKNOD:
		err = mknodat(dirfd, e->name, (e->r.attr.mode & S_IFMT) | mode,
			      makedev(e->r.attr.rdev_major, e->r.attr.rdev_minor));
		break;
	case KML_SYMLINK:
		if (e->r.link.len >= sizeof(text))
			return -ENAMETOOLONG;
		memcpy(text, e->r.link.ptr, e->r.link.len);
		text[e->r.link.len] = 0;
		err = symlinkat(text, dirfd, e->name);
		break;
	}
	if (err)
		return -errno;
	fd = openat(dirfd, e->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int make_whole(struct reint_entry *e, int fd)
{
	int err = 0;

	if (e->r.data.ptr)
		err = write_data(fd, &e->r.data);
	if (!err && !S_ISLNK(e->r.attr.mode))
		drop_inherited_acl(e, fd, e->r.opcode == KML_MKDIR);
	if (!err)
		err = set_attrs(fd, &e->r.attr, KML_A_UID | KML_A_GID | KML_A_MODE);
	if (!err)
		err = set_xattrs(fd, e->r.xattrs, e->r.xattrs_len);
	if (!err)
		err = set_mtime(fd, &e->r.attr.mtime);
	return err;
}

static int made(struct reint_entry *e, int fd)
{
	struct handle h;
	struct stat st;
	uint32_t gen;
	int err;

	if (fstatat(fd, "", &st, AT_EMPTY_PATH) != 0)
		return -errno;
	err = handle_get(fd, "", &h, &gen);
	if (!err)
		entry_is(e, &st, gen);
	return err;
}

int reint_make(struct reint_entry *e)
{
	int fd, err;

	/* recovery removes what has the name: it must be free before the intent */
	if (e->obj.exists)
		return -EEXIST;
	entry_op(e, e->r.opcode);
	e->op.redo = true;
	e->op.r.link = e->r.link;
	e->op.r.xattrs = e->r.xattrs;
	e->op.r.xattrs_len = e->r.xattrs_len;
	err = op_begin(&e->op);
	if (err)
		return err;
	fd = make_bare(e);
	if (fd < 0) {
		op_abort(&e->op);
		return fd;
	}
	err = make_whole(e, fd);
	if (!err)
		err = made(e, fd);
	close(fd);
	if (err) {
		unlinkat(e->run->place.fd, e->name, e->r.opcode == KML_MKDIR ? AT_REMOVEDIR : 0);
		op_abort(&e->op);
		return err;
	}
	entry_ptime(e);
	op_done(&e->op);
	return 0;
}

/* Put back what was there, as far as that can be done. */
static void undo_attrs(struct reint_entry *e)
{
	struct kml_attrs old;

	attr_from_stat(&old, &e->obj.st);
	(void) set_attrs(e->obj.fd, &old, KML_A_UID | KML_A_GID | KML_A_MODE | KML_A_MTIME);
}

static void object_now(struct reint_entry *e)
{
	struct stat st;

	if (fstatat(e->obj.fd, "", &st, AT_EMPTY_PATH) == 0)
		entry_is(e, &st, e->obj.gen);
}

int reint_setattr(struct reint_entry *e)
{
	const uint32_t valid = e->r.attr.valid ? e->r.attr.valid :
			       KML_A_UID | KML_A_GID | KML_A_MODE | KML_A_MTIME;
	int err;

	if (!e->obj.exists)
		return -ENOENT;
	entry_op(e, KML_SETATTR);
	op_object(&e->op, e->inode);
	e->op.r.has_old = true;
	e->op.r.old = e->op.r.obj;
	attr_from_stat(&e->op.r.old_attr, &e->obj.st);
	err = op_begin(&e->op);
	if (err)
		return err;
	err = set_attrs(e->obj.fd, &e->r.attr, valid);
	if (err) {
		undo_attrs(e);
		op_abort(&e->op);
		return err;
	}
	object_now(e);
	e->op.r.attr.valid = valid;
	op_done(&e->op);
	return 0;
}

static int change_xattr(struct reint_entry *e)
{
	struct kml_str name, value;
	char self[32], n[256];
	size_t pos = 0;

	if (e->r.opcode == KML_SETXATTR)
		return set_xattrs(e->obj.fd, e->r.xattrs, e->r.xattrs_len);
	if (!kml_xattr_next(e->r.xattrs, e->r.xattrs_len, &pos, &name, &value))
		return -EINVAL;
	xattr_name(n, &name);
	proc_path(self, e->obj.fd);
	return removexattr(self, n) != 0 && errno != ENODATA ? -errno : 0;
}

/* An ACL is part of the mode: what the record says comes out. */
static int acl_mode(struct reint_entry *e)
{
	struct kml_str name, value;
	size_t pos = 0;

	if (!e->r.has_attr || !kml_xattr_next(e->r.xattrs, e->r.xattrs_len, &pos, &name, &value) ||
	    name.len != strlen(ACL_ACCESS) || memcmp(name.ptr, ACL_ACCESS, name.len) != 0)
		return 0;
	return set_attrs(e->obj.fd, &e->r.attr, KML_A_MODE);
}

int reint_xattr(struct reint_entry *e)
{
	int err;

	if (!e->obj.exists)
		return -ENOENT;
	entry_op(e, e->r.opcode);
	op_object(&e->op, e->inode);
	e->op.r.xattrs = e->r.xattrs;
	e->op.r.xattrs_len = e->r.xattrs_len;
	err = op_begin(&e->op);
	if (err)
		return err;
	err = change_xattr(e);
	if (!err)
		err = acl_mode(e);
	if (err) {
		op_abort(&e->op);
		return err;
	}
	if (S_ISDIR(e->obj.st.st_mode))
		e->inode->default_acl = -1;
	object_now(e);
	op_done(&e->op);
	return 0;
}
