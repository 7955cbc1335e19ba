// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Names: lookup, and all that makes, moves and removes them.
 *
 * Each change follows the same steps: lock the directory, look at what is
 * there as far as the record needs it, write the intent, do it as the caller,
 * complete the record.
 */
#include <config.h>

#include "fs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifndef RENAME_EXCHANGE
#define RENAME_NOREPLACE	1
#define RENAME_EXCHANGE		2
#endif

void time_from_ts(struct kml_time *t, const struct timespec *ts)
{
	t->sec = ts->tv_sec;
	t->nsec = ts->tv_nsec;
}

void attr_from_stat(struct kml_attrs *a, const struct stat *st)
{
	*a = (struct kml_attrs) {
		.mode = st->st_mode,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.nlink = st->st_nlink,
		.rdev_major = major(st->st_rdev),
		.rdev_minor = minor(st->st_rdev),
		.size = st->st_size,
	};
	time_from_ts(&a->mtime, &st->st_mtim);
	time_from_ts(&a->ctime, &st->st_ctim);
}

/* What is special in the root */

bool name_hidden(struct inode *parent, const char *name)
{
	return parent == root_inode && strcmp(name, LOST_FOUND) == 0;
}

bool name_protected(struct inode *parent, const char *name)
{
	return parent == root_inode &&
	       (strcmp(name, LOST_FOUND) == 0 || strcmp(name, META_DIR) == 0);
}

bool dir_default_acl(struct inode *dir, int dirfd)
{
	char path[32];

	if (dir->default_acl < 0) {
		proc_path(path, dirfd);
		dir->default_acl =
			getxattr(path, "system.posix_acl_default", NULL, 0) > 0;
	}
	return dir->default_acl;
}

/* The most that the ACLs inherited from dirfd can take in a record. */
static size_t acl_room(struct inode *dir, int dirfd)
{
	char path[32];
	ssize_t n;

	if (!dir_default_acl(dir, dirfd))
		return 0;
	proc_path(path, dirfd);
	n = getxattr(path, "system.posix_acl_default", NULL, 0);
	return n > 0 ? 2 * (n + 64) : 0;
}

void op_ptime(struct op *op, int dirfd, int tdirfd)
{
	struct stat st;

	if (op->nolog || fstatat(dirfd, "", &st, AT_EMPTY_PATH) != 0)
		return;
	op->r.has_ptime = true;
	time_from_ts(&op->r.ptime, &st.st_mtim);
	if (tdirfd >= 0 && fstatat(tdirfd, "", &st, AT_EMPTY_PATH) == 0)
		time_from_ts(&op->r.tptime, &st.st_mtim);
}

/* Lookup */

static void entry_init(struct fuse_entry_param *e, struct inode *i, const struct stat *st)
{
	memset(e, 0, sizeof(*e));
	e->attr = *st;
	e->attr_timeout = cache_time(i);
	e->entry_timeout = cache_time(i);
	e->ino = i->nodeid;
	e->generation = i->gen;
}

static void reply_entry(fuse_req_t req, struct inode *i, const struct stat *st)
{
	struct fuse_entry_param e;

	entry_init(&e, i, st);
	if (fuse_reply_entry(req, &e) != 0)
		inode_forget(i, 1);
}

static void reply_absent(fuse_req_t req, const struct inode *dir)
{
	struct fuse_entry_param e = { .entry_timeout = cache_time(dir) };

	fuse_reply_entry(req, &e);
}

/* "." of a number from a file handle (NFS) */
static void lookup_self(fuse_req_t req, fuse_ino_t ino)
{
	struct inode *i = inode_find_nodeid(ino);
	struct stat st;
	int err;

	if (!i) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	err = inode_stat(i, &st);
	if (err) {
		inode_forget(i, 1);
		fuse_reply_err(req, -err);
		return;
	}
	reply_entry(req, i, &st);
}

/* ".." likewise; the root is its own parent. */
static int find_parent(struct inode *dir, struct stat *ret_st, struct inode **ret_inode)
{
	struct inode *parent = NULL;
	char name[256];
	int err;

	if (dir == root_inode)
		inode_ref(parent = dir);
	else if (!inode_get_name(dir, name, &parent))
		return -ESTALE;
	err = inode_stat(parent, ret_st);
	if (!err)
		*ret_inode = inode_find_nodeid(parent->nodeid);
	inode_unref(parent);
	return err;
}

/*
 * .intermezzo and what is below can be read through the mount (by root) and
 * not changed: who means it has the lower file system.
 */
static int lookup(struct inode *parent, int dirfd, const char *name, struct stat *ret_st,
		  struct inode **ret_inode)
{
	int err;

	if (name_hidden(parent, name))
		return -ENOENT;
	dir_lock_shared(parent->ino);
	err = inode_lookup(parent, dirfd, name, true, ret_st, ret_inode);
	dir_unlock(parent->ino);
	return err;
}

static int lookup_any(struct inode *dir, const char *name, struct stat *ret_st,
		      struct inode **ret_inode)
{
	int fd, err;

	if (strcmp(name, "..") == 0)
		return find_parent(dir, ret_st, ret_inode);
	fd = inode_get_fd(dir);
	if (fd < 0)
		return fd;
	err = lookup(dir, fd, name, ret_st, ret_inode);
	inode_put_fd(dir);
	return err;
}

/* Nothing of ours is touched once a request is answered: it may be gone. */
void ll_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct inode *i;
	struct stat st;
	int err;

	if (strcmp(name, ".") == 0) {
		lookup_self(req, parent);
		return;
	}
	err = lookup_any(inode_of(parent), name, &st, &i);
	if (!err)
		reply_entry(req, i, &st);
	else if (err == -ENOENT)
		reply_absent(req, inode_of(parent));
	else
		fuse_reply_err(req, -err);
}

void ll_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	inode_forget(inode_of(ino), nlookup);
	fuse_reply_none(req);
}

void ll_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	size_t k;

	for (k = 0; k < count; k++)
		inode_forget(inode_of(forgets[k].ino), forgets[k].nlookup);
	fuse_reply_none(req);
}

void ll_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct inode *i = inode_of(ino);
	char buf[4097];
	ssize_t n;
	int fd = inode_get_fd(i);

	if (fd < 0) {
		fuse_reply_err(req, -fd);
		return;
	}
	n = readlinkat(fd, "", buf, sizeof(buf) - 1);
	if (n < 0)
		n = -errno;
	inode_put_fd(i);
	if (n < 0) {
		fuse_reply_err(req, -n);
	} else {
		buf[n] = 0;
		fuse_reply_readlink(req, buf);
	}
}

/* Making objects */

/* What is to be made; link for a symlink, tmpfile and fd for an open file. */
struct make {
	const char	*name, *link;
	mode_t		mode;
	dev_t		rdev;
	int		flags;		/* of open */
	bool		open, tmpfile;
	int		fd;
};

static unsigned int make_opcode(const struct make *m)
{
	switch (m->mode & S_IFMT) {
	case S_IFDIR:
		return KML_MKDIR;
	case S_IFLNK:
		return KML_SYMLINK;
	case S_IFREG:
		return KML_CREATE;
	default:
		return KML_MKNOD;
	}
}

static int make_open(struct make *m, int dirfd)
{
	const int flags = m->flags & ~(O_CREAT | O_EXCL | O_TRUNC | O_APPEND | O_DIRECT |
				       O_SYNC | O_DSYNC | O_TMPFILE);

	if (m->tmpfile)
		m->fd = openat(dirfd, ".", flags | O_TMPFILE | O_CLOEXEC, m->mode & 07777);
	else
		m->fd = openat(dirfd, m->name, flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			       m->mode & 07777);
	return m->fd < 0 ? -errno : 0;
}

static int make_lower(fuse_req_t req, struct make *m, int dirfd)
{
	int err = 0;

	creds_enter(req);
	if (m->open)
		err = make_open(m, dirfd);
	else if (S_ISDIR(m->mode))
		err = mkdirat(dirfd, m->name, m->mode & 07777) ? -errno : 0;
	else if (S_ISLNK(m->mode))
		err = symlinkat(m->link, dirfd, m->name) ? -errno : 0;
	else
		err = mknodat(dirfd, m->name, m->mode, m->rdev) ? -errno : 0;
	creds_leave();
	return err;
}

/* The new object's inode and attributes. */
static int make_find(struct inode *dir, int dirfd, struct make *m, struct stat *ret_st,
		     struct inode **ret_inode)
{
	if (!m->open)
		return inode_lookup(dir, dirfd, m->name, true, ret_st, ret_inode);
	if (fstat(m->fd, ret_st) != 0)
		return -errno;
	return inode_of_fd(dir, m->fd, m->name, true, ret_st, ret_inode);
}

/* ACLs from the parent become part of the record. */
static void make_acl(struct op *op, struct inode *i, void **ret_items)
{
	int fd;

	if (!op->extra || op->nolog || S_ISLNK(i->type))
		return;
	fd = inode_get_fd(i);
	if (fd < 0)
		return;
	if (xattr_items(fd, true, ret_items, &op->r.xattrs_len) == 0)
		op->r.xattrs = *ret_items;
	inode_put_fd(i);
}

static void make_record(struct op *op, int dirfd, struct inode *i, const struct stat *st)
{
	void *items = NULL;

	op_object(op, i);
	op->r.has_attr = true;
	attr_from_stat(&op->r.attr, st);
	op_ptime(op, dirfd, -1);
	make_acl(op, i, &items);
	op_done(op);
	free(items);
}

/*
 * It was made but cannot be reached (no memory, no descriptors): undo it,
 * nobody has seen it.
 */
static void make_undo(struct make *m, int dirfd, struct op *op)
{
	if (!m->tmpfile)
		unlinkat(dirfd, m->name, S_ISDIR(m->mode) ? AT_REMOVEDIR : 0);
	if (m->fd >= 0)
		close(m->fd);
	m->fd = -1;
	op_abort(op);
}

static int make_locked(fuse_req_t req, struct inode *dir, int dirfd, struct make *m,
		       struct stat *ret_st, struct inode **ret_inode)
{
	struct op op;
	int err;

	op_init(&op, req, make_opcode(m), dir, dirfd, m->tmpfile ? NULL : m->name);
	op.nolog |= m->tmpfile;
	op.extra = acl_room(dir, dirfd);
	op.r.has_attr = true;
	op.r.attr.mode = m->mode;
	if (m->link) {
		op.r.link.ptr = m->link;
		op.r.link.len = strlen(m->link);
	}
	err = op_begin(&op);
	if (err)
		return err;
	err = make_lower(req, m, dirfd);
	if (err) {
		op_abort(&op);
		return err;
	}
	err = make_find(dir, dirfd, m, ret_st, ret_inode);
	if (err)
		make_undo(m, dirfd, &op);
	else
		make_record(&op, dirfd, *ret_inode, ret_st);
	return err;
}

static int make(fuse_req_t req, fuse_ino_t parent, struct make *m, struct stat *ret_st,
		struct inode **ret_inode)
{
	struct inode *dir = inode_of(parent);
	int fd, err;

	m->fd = -1;
	if (dir->meta)
		return -EROFS;
	if (!m->tmpfile && name_protected(dir, m->name))
		return -EPERM;
	fd = inode_get_fd(dir);
	if (fd < 0)
		return fd;
	dir_lock(dir->ino);
	err = make_locked(req, dir, fd, m, ret_st, ret_inode);
	dir_unlock(dir->ino);
	inode_put_fd(dir);
	return err;
}

static void make_and_reply(fuse_req_t req, fuse_ino_t parent, struct make *m)
{
	struct inode *i;
	struct stat st;
	int err = make(req, parent, m, &st, &i);

	if (err)
		fuse_reply_err(req, -err);
	else
		reply_entry(req, i, &st);
}

void ll_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct make m = { .name = name, .mode = mode, .rdev = rdev };

	make_and_reply(req, parent, &m);
}

void ll_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct make m = { .name = name, .mode = (mode & 07777) | S_IFDIR };

	make_and_reply(req, parent, &m);
}

void ll_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	struct make m = { .name = name, .mode = 0777 | S_IFLNK, .link = link };

	make_and_reply(req, parent, &m);
}

/* The name appeared since the kernel looked: the file is opened as it is. */
static void open_existing(fuse_req_t req, struct inode *dir, const char *name,
			  struct fuse_file_info *fi)
{
	struct fuse_entry_param e;
	struct inode *i;
	struct stat st;
	int fd = inode_get_fd(dir), err;

	err = fd < 0 ? fd : lookup(dir, fd, name, &st, &i);
	if (fd >= 0)
		inode_put_fd(dir);
	if (err) {
		fuse_reply_err(req, -err);
		return;
	}
	err = S_ISREG(i->type) ? file_open(req, i, fi) : -EEXIST;
	if (!err)
		err = inode_stat(i, &st);
	if (err) {
		inode_forget(i, 1);
		fuse_reply_err(req, -err);
		return;
	}
	entry_init(&e, i, &st);
	fuse_reply_create(req, &e, fi);
}

/*
 * Also O_TMPFILE, which comes as the creation of a file called "/": such a file
 * is not logged until it gets a name.
 */
void ll_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	       struct fuse_file_info *fi)
{
	const bool write = (fi->flags & O_ACCMODE) != O_RDONLY;
	struct make m = {
		.name = name,
		.mode = (mode & 07777) | S_IFREG,
		.open = true,
		.tmpfile = strcmp(name, "/") == 0,
		.flags = fi->flags,
	};
	struct fuse_entry_param e;
	struct inode *i;
	struct file *f;
	struct stat st;
	int err;

	err = make(req, parent, &m, &st, &i);
	if (err == -EEXIST && !(fi->flags & O_EXCL)) {
		open_existing(req, inode_of(parent), name, fi);
		return;
	}
	if (err) {
		fuse_reply_err(req, -err);
		return;
	}
	if (m.tmpfile)
		(void) inode_keep_fd(i);
	f = file_new(i, m.fd, write);
	if (!f) {
		close(m.fd);
		inode_forget(i, 1);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	fi->fh = (uintptr_t) f;
	fi->keep_cache = !i->meta;
	fi->direct_io = i->meta;
	entry_init(&e, i, &st);
	if (fuse_reply_create(req, &e, fi) != 0) {
		file_free(f, NULL);
		inode_forget(i, 1);
	}
}

/* Removing and moving them */

/* What a name leads to; the descriptor keeps its number from being used again. */
struct found {
	int		fd;		/* -1: nothing */
	struct stat	st;
	uint32_t	gen;
	struct handle	handle;
	struct inode	*inode;		/* referenced, if it is in use */
};

static void found_put(struct found *f)
{
	if (f->inode)
		inode_unref(f->inode);
	if (f->fd >= 0)
		close(f->fd);
}

static int found_get(int dirfd, const char *name, struct found *f)
{
	int err;

	f->inode = NULL;
	f->fd = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (f->fd < 0)
		return -errno;
	err = fstatat(f->fd, "", &f->st, AT_EMPTY_PATH) ? -errno : 0;
	if (!err)
		err = handle_get(f->fd, "", &f->handle, &f->gen);
	if (err) {
		found_put(f);
		f->fd = -1;
		return err;
	}
	f->inode = inode_find(f->st.st_dev, f->st.st_ino);
	if (f->inode && f->inode->gen != f->gen) {
		inode_unref(f->inode);
		f->inode = NULL;
	}
	return 0;
}

static void found_old(struct op *op, const struct found *f)
{
	op->r.has_old = true;
	op->r.old = (struct kml_oid) { f->st.st_ino, f->gen };
	attr_from_stat(&op->r.old_attr, &f->st);
}

/* OLD tells the links that are left. */
static void found_after(struct op *op, const struct found *f)
{
	struct stat st;

	if (!op->nolog && f->fd >= 0 && fstatat(f->fd, "", &st, AT_EMPTY_PATH) == 0)
		attr_from_stat(&op->r.old_attr, &st);
}

/* The inode stays within reach of those who use it without its last name. */
static void found_keep(const struct found *f)
{
	if (f->inode && (f->st.st_nlink == 1 || S_ISDIR(f->st.st_mode)))
		(void) inode_keep_fd(f->inode);
}

static int remove_locked(fuse_req_t req, struct inode *dir, int dirfd, const char *name,
			 bool is_dir)
{
	struct found f;
	struct op op;
	int err;

	err = found_get(dirfd, name, &f);
	if (err)
		return err;
	op_init(&op, req, is_dir ? KML_RMDIR : KML_UNLINK, dir, dirfd, name);
	op.r.obj = (struct kml_oid) { f.st.st_ino, f.gen };
	found_old(&op, &f);
	found_keep(&f);
	err = op_begin(&op);
	if (err)
		goto out;
	if (unlinkat(dirfd, name, is_dir ? AT_REMOVEDIR : 0) != 0) {
		err = -errno;
		op_abort(&op);
		goto out;
	}
	found_after(&op, &f);
	op_ptime(&op, dirfd, -1);
	op_done(&op);
	if (f.inode)
		inode_clear_name(f.inode, dir, name);
out:
	found_put(&f);
	return err;
}

static void remove_name(fuse_req_t req, fuse_ino_t parent, const char *name, bool is_dir)
{
	struct inode *dir = inode_of(parent);
	int fd, err;

	if (dir->meta || name_protected(dir, name)) {
		fuse_reply_err(req, dir->meta ? EROFS : EPERM);
		return;
	}
	fd = inode_get_fd(dir);
	if (fd < 0) {
		fuse_reply_err(req, -fd);
		return;
	}
	dir_lock(dir->ino);
	err = remove_locked(req, dir, fd, name, is_dir);
	dir_unlock(dir->ino);
	inode_put_fd(dir);
	fuse_reply_err(req, -err);
}

void ll_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, false);
}

void ll_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, true);
}

/* Both ends of a rename. */
struct move {
	struct inode	*dir, *tdir;
	int		dirfd, tdirfd;
	const char	*name, *tname;
	unsigned int	flags;
	struct found	from, to;
};

static void move_names(const struct move *m)
{
	struct inode *from = m->from.inode, *to = m->to.inode;

	if (to)
		inode_clear_name(to, m->tdir, m->tname);
	if (from)
		inode_set_name(from, m->tdir, m->tname);
	if (to && m->flags & RENAME_EXCHANGE)
		inode_set_name(to, m->dir, m->name);
}

static void move_record(struct op *op, const struct move *m)
{
	op->r.obj = (struct kml_oid) { m->from.st.st_ino, m->from.gen };
	op->r.has_attr = true;
	attr_from_stat(&op->r.attr, &m->from.st);
	if (m->flags & RENAME_EXCHANGE)
		op->r.flags |= KML_F_EXCHANGE;
	if (m->to.fd >= 0)
		found_old(op, &m->to);
	if (m->flags & RENAME_NOREPLACE)
		op->r.flags |= KML_F_NOREPLACE;
}

/*
 * xfs gives a directory that is exchanged with something of another directory
 * another mtime.  Nothing in it has changed, and the record says nothing of it.
 * The VFS keeps others from changing its names meanwhile if its parent changes.
 */
void keep_mtime(int fd, const struct stat *was)
{
	const struct timespec ts[2] = { { 0, UTIME_OMIT }, was->st_mtim };
	struct stat st;
	char name[16];

	if (fstatat(fd, "", &st, AT_EMPTY_PATH) != 0 ||
	    (st.st_mtim.tv_sec == was->st_mtim.tv_sec &&
	     st.st_mtim.tv_nsec == was->st_mtim.tv_nsec))
		return;
	proc_name(name, fd);
	(void) utimensat(fs.proc_fd, name, ts, 0);
}

/* Directories that move, known or not: what is below may have been changed. */
static int move_dirs(struct op *op, struct move *m)
{
	struct found *from = &m->from, *to = &m->to;
	int err = 0;

	if (S_ISDIR(from->st.st_mode) && !from->inode)
		err = inode_of_fd(m->dir, from->fd, m->name, false, &from->st, &from->inode);
	if (S_ISDIR(from->st.st_mode))
		op->moved = from->inode;
	if (!(m->flags & RENAME_EXCHANGE) || to->fd < 0 || !S_ISDIR(to->st.st_mode))
		return err;
	if (!err && !to->inode)
		err = inode_of_fd(m->tdir, to->fd, m->tname, false, &to->st, &to->inode);
	op->exchanged = to->inode;
	return err;
}

static int move_logged(fuse_req_t req, struct move *m)
{
	struct stat st;
	struct op op;
	int err;

	op_init(&op, req, KML_RENAME, m->dir, m->dirfd, m->name);
	op_target(&op, m->tdir, m->tdirfd, m->tname);
	move_record(&op, m);
	err = move_dirs(&op, m);
	if (err)
		return err;
	if (m->to.fd >= 0 && !(m->flags & RENAME_EXCHANGE))
		found_keep(&m->to);
	err = op_begin(&op);
	if (err)
		return err;
	if (renameat2(m->dirfd, m->name, m->tdirfd, m->tname, m->flags) != 0) {
		err = -errno;
		op_abort(&op);
		return err;
	}
	if (m->flags & RENAME_EXCHANGE && m->dir != m->tdir) {
		keep_mtime(m->from.fd, &m->from.st);
		keep_mtime(m->to.fd, &m->to.st);
	}
	if (fstatat(m->from.fd, "", &st, AT_EMPTY_PATH) == 0)
		attr_from_stat(&op.r.attr, &st);
	if (m->to.fd >= 0)
		found_after(&op, &m->to);
	op_ptime(&op, m->dirfd, m->tdirfd);
	move_names(m);
	op_done(&op);
	return 0;
}

/* Two names of one object: rename() does nothing then. */
static bool move_is_void(const struct move *m)
{
	return m->to.fd >= 0 && m->from.st.st_ino == m->to.st.st_ino &&
	       m->from.st.st_dev == m->to.st.st_dev;
}

static int move_locked(fuse_req_t req, struct move *m)
{
	int err;

	err = found_get(m->dirfd, m->name, &m->from);
	if (err)
		return err;
	err = found_get(m->tdirfd, m->tname, &m->to);
	if (!err && move_is_void(m))
		err = m->flags & RENAME_NOREPLACE ? -EEXIST : 0;
	else if (!err || err == -ENOENT)
		err = move_logged(req, m);
	found_put(&m->to);
	found_put(&m->from);
	return err;
}

static int move_allowed(const struct move *m)
{
	if (m->dir->meta || m->tdir->meta)
		return -EROFS;
	if (name_protected(m->dir, m->name) || name_protected(m->tdir, m->tname))
		return -EPERM;
	return m->flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE) ? -EINVAL : 0;
}

static int move(fuse_req_t req, struct move *m)
{
	int err = move_allowed(m);

	if (err)
		return err;
	m->dirfd = inode_get_fd(m->dir);
	if (m->dirfd < 0)
		return m->dirfd;
	m->tdirfd = inode_get_fd(m->tdir);
	if (m->tdirfd < 0) {
		inode_put_fd(m->dir);
		return m->tdirfd;
	}
	dir_lock2(m->dir->ino, m->tdir->ino);
	err = move_locked(req, m);
	dir_unlock2(m->dir->ino, m->tdir->ino);
	inode_put_fd(m->tdir);
	inode_put_fd(m->dir);
	return err;
}

void ll_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
	       const char *newname, unsigned int flags)
{
	struct move m = {
		.dir = inode_of(parent),
		.tdir = inode_of(newparent),
		.name = name,
		.tname = newname,
		.flags = flags,
	};

	fuse_reply_err(req, -move(req, &m));
}

/* Links */

static int link_lower(int fd, int tdirfd, const char *name)
{
	char self[16];

	proc_name(self, fd);
	if (linkat(fd, "", tdirfd, name, AT_EMPTY_PATH) == 0 ||
	    linkat(fs.proc_fd, self, tdirfd, name, AT_SYMLINK_FOLLOW) == 0)
		return 0;
	return -errno;
}

/* The record: another name, or for a file without any its creation. */
static int link_record(struct op *op, fuse_req_t req, struct inode *i, int fd,
		       struct inode *dir, int dirfd, const char *name, void **ret_items)
{
	struct stat st;

	if (fstatat(fd, "", &st, AT_EMPTY_PATH) != 0)
		return -errno;
	if (st.st_nlink) {
		op_init_object(op, req, KML_LINK, i);
		op_target(op, dir, dirfd, name);
	} else {
		op_init(op, req, KML_CREATE, dir, dirfd, name);
		op_object(op, i);
		if (xattr_items(fd, false, ret_items, &op->r.xattrs_len) == 0)
			op->r.xattrs = *ret_items;
	}
	op->r.has_attr = true;
	attr_from_stat(&op->r.attr, &st);
	return 0;
}

/* The directory of the name that was there keeps its mtime. */
static void keep_ptime(struct op *op, struct inode *i)
{
	struct inode *parent;
	char known[256];
	struct stat st;

	if (!inode_get_name(i, known, &parent))
		return;
	if (inode_stat(parent, &st) == 0)
		time_from_ts(&op->r.ptime, &st.st_mtim);
	inode_unref(parent);
}

static int link_locked(fuse_req_t req, struct inode *i, int fd, struct inode *dir, int dirfd,
		       const char *name, struct stat *ret_st)
{
	void *items = NULL;
	bool is_new;
	struct op op;
	int err;

	err = link_record(&op, req, i, fd, dir, dirfd, name, &items);
	if (!err)
		err = op_begin(&op);
	if (err)
		goto out;
	is_new = op.r.opcode == KML_CREATE;
	err = link_lower(fd, dirfd, name);
	if (!err && fstatat(fd, "", ret_st, AT_EMPTY_PATH) != 0)
		err = -errno;
	if (err) {
		op_abort(&op);
		goto out;
	}
	attr_from_stat(&op.r.attr, ret_st);
	op_ptime(&op, dirfd, dirfd);
	if (!is_new)
		keep_ptime(&op, i);
	op_done(&op);
	inode_set_name(i, dir, name);
	if (is_new)
		session_named(i, req, ret_st->st_size != 0);
out:
	free(items);
	return err;
}

void ll_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	struct inode *i = inode_of(ino), *dir = inode_of(newparent);
	struct stat st;
	int fd, dirfd, err;

	if (i->meta || dir->meta || name_protected(dir, newname)) {
		fuse_reply_err(req, i->meta || dir->meta ? EROFS : EPERM);
		return;
	}
	fd = inode_get_fd(i);
	dirfd = inode_get_fd(dir);
	if (fd < 0 || dirfd < 0) {
		err = fd < 0 ? fd : dirfd;
	} else {
		dir_lock(dir->ino);
		err = link_locked(req, i, fd, dir, dirfd, newname, &st);
		dir_unlock(dir->ino);
	}
	if (fd >= 0)
		inode_put_fd(i);
	if (dirfd >= 0)
		inode_put_fd(dir);
	if (err) {
		fuse_reply_err(req, -err);
		return;
	}
	(void) inode_find_nodeid(ino);
	reply_entry(req, i, &st);
}
