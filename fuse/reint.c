// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * REINT: changes of a peer are made true here (doc/channel.md).  Runs in the
 * channel's thread, one batch at a time.
 *
 * Every entry takes the locks that local operations take: its directories
 * exclusively, then the object that loses a name or gets content.  Under them the
 * guards are checked and the operation is done, so nobody sees it half made.
 * The kernel's caches are told when no lock is held.
 *
 * An operation on several system calls has an intent with op.redo:
 * recovery removes what CREATE, MKDIR, SYMLINK and MKNOD left under the name that
 * was free; CLOSE without KML_F_REPLACED is written again from FILE; all others
 * are one system call and have happened or not.
 */
#include <config.h>

#include "byteorder.h"
#include "reint.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "last_rcvd.h"
#include "reint_msg.h"
#include "util.h"

#define PIECE	3072		/* of a path, for one openat2() */

/* Places */

static int open_below(int dirfd, const char *path)
{
	struct open_how how = {
		.flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS |
			   RESOLVE_NO_XDEV,
	};
	int fd = syscall(SYS_openat2, dirfd, path, &how, sizeof(how));

	return fd < 0 ? -errno : fd;
}

/* Walk a path of any length, a piece at a time; path is "/a/b", or "/". */
int reint_walk(const char *path, size_t len)
{
	char piece[PIECE + 256];
	int fd = fcntl(fs.root_fd, F_DUPFD_CLOEXEC, 0), next;
	size_t at = 0, n;
	const char *slash;

	while (fd >= 0) {
		while (at < len && path[at] == '/')
			at++;
		if (at == len)
			return fd;
		n = len - at;
		if (n > PIECE) {
			slash = memchr(path + at + PIECE, '/', n - PIECE);
			n = slash ? (size_t) (slash - path - at) : n;
		}
		if (n >= sizeof(piece)) {
			close(fd);
			return -ENAMETOOLONG;
		}
		memcpy(piece, path + at, n);
		piece[n] = 0;
		next = open_below(fd, piece);
		close(fd);
		fd = next;
		at += n;
	}
	return fd;
}

static bool first_is(const char *path, size_t len, const char *name)
{
	size_t n = strlen(name);

	return len > n && memcmp(path + 1, name, n) == 0 && (len == n + 1 || path[n + 1] == '/');
}

/* Leave the place: its mtime is set now if nobody else changed the directory. */
void place_clear(struct place *p)
{
	struct stat st;
	uint32_t round;

	if (!p->inode)
		return;
	if (p->mtime_due) {
		dir_lock(p->inode->ino);
		if (fstatat(p->fd, "", &st, AT_EMPTY_PATH) == 0 &&
		    st.st_mtim.tv_sec == p->seen.tv_sec &&
		    st.st_mtim.tv_nsec == p->seen.tv_nsec && changing_dir(p->inode, &round) == 0) {
			set_mtime(p->fd, &p->mtime);
			changing_leave(round);
		}
		dir_unlock(p->inode->ino);
		forget_data(p->inode);
	}
	close(p->fd);
	free(p->path);
	inode_unref(p->inode);
	memset(p, 0, sizeof(*p));
	p->fd = -1;
}

int place_open(struct place *p, const struct kml_str *dir)
{
	struct stat st;
	int err;

	if (first_is(dir->ptr, dir->len, META_DIR) || first_is(dir->ptr, dir->len, LOST_FOUND))
		return -ENOENT;
	p->fd = reint_walk(dir->ptr, dir->len);
	if (p->fd < 0)
		return p->fd;
	p->path = malloc(dir->len);
	if (!p->path || fstatat(p->fd, "", &st, AT_EMPTY_PATH) != 0) {
		err = -ENOMEM;
		goto fail;
	}
	memcpy(p->path, dir->ptr, dir->len);
	p->path_len = dir->len;
	err = inode_of_fd(root_inode, p->fd, "/", false, &st, &p->inode);
	if (!err)
		return 0;
fail:
	free(p->path);
	p->path = NULL;
	close(p->fd);
	p->fd = -1;
	return err;
}

/* Be in dir, which must be the inode want (if that is known). */
static int place_enter(struct place *p, const struct kml_str *dir, const struct kml_oid *want)
{
	int err = 0;

	if (!p->inode || p->path_len != dir->len || memcmp(p->path, dir->ptr, dir->len) != 0) {
		place_clear(p);
		err = place_open(p, dir);
	}
	if (!err && want->ino &&
	    (p->inode->ino != want->ino || (want->gen && p->inode->gen != want->gen)))
		err = -ESTALE;
	return err;
}

/* Guards */

void found_clear(struct found *f)
{
	if (f->fd >= 0)
		close(f->fd);
	memset(f, 0, sizeof(*f));
	f->fd = -1;
}

int find_name(int dirfd, const char *name, struct found *f)
{
	struct handle h;
	char self[32];

	found_clear(f);
	if (*name)
		f->fd = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	else
		f->fd = fcntl(dirfd, F_DUPFD_CLOEXEC, 0);
	if (f->fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (fstatat(f->fd, "", &f->st, AT_EMPTY_PATH) != 0)
		return -errno;
	proc_path(self, f->fd);
	f->exists = true;
	return handle_get(f->fd, "", &h, &f->gen);
}

static bool has_writers(const struct found *f)
{
	struct inode *i = inode_find(f->st.st_dev, f->st.st_ino);
	bool writers = i && session_has_writers(i);

	inode_unref(i);
	return writers;
}

int guard_check(const struct izo_guard *g, const struct found *f)
{
	const uint32_t flags = le32_to_cpu(g->flags);

	if ((flags & IZO_G_ABSENT) && f->exists)
		return -ESTALE;
	if (!(flags & (IZO_G_INO | IZO_G_CTIME | IZO_G_NOWRITER)))
		return 0;
	if (!f->exists)
		return -ESTALE;
	if ((flags & IZO_G_INO) &&
	    (f->st.st_ino != le64_to_cpu(g->ino) || f->gen != le32_to_cpu(g->gen)))
		return -ESTALE;
	if ((flags & IZO_G_CTIME) && (f->st.st_ctim.tv_sec != (int64_t) le64_to_cpu(g->ctime_sec) ||
				      f->st.st_ctim.tv_nsec != le32_to_cpu(g->ctime_nsec)))
		return -ESTALE;
	return (flags & IZO_G_NOWRITER) && has_writers(f) ? -ESTALE : 0;
}

/*
 * Find the object, lock it, and look at it again: its attributes may have
 * moved while we waited.  Locked if obj.exists, also when a guard fails.
 */
static int lock_and_check(const struct izo_guard *g, int dirfd, const char *name, struct found *f)
{
	int err = find_name(dirfd, name, f);

	if (err || !f->exists)
		return err ? err : guard_check(g, f);
	file_lock(f->st.st_ino);
	if (fstatat(f->fd, "", &f->st, AT_EMPTY_PATH) != 0)
		return -errno;
	return guard_check(g, f);
}

/* Records and results */

static void copy_origin(struct kml_record *to, const struct kml_record *from)
{
	to->time = from->time;
	to->pid = from->pid;
	to->auid = from->auid;
	to->fsuid = from->fsuid;
	to->fsgid = from->fsgid;
	to->has_origin = from->has_origin;
	memcpy(to->origin_replica, from->origin_replica, sizeof(to->origin_replica));
	to->origin_recno = from->origin_recno;
	to->origin_obj = from->origin_obj;
}

void entry_op(struct reint_entry *e, unsigned int opcode)
{
	struct reint_run *run = e->run;

	op_init(&e->op, NULL, opcode, run->place.inode, run->place.fd,
		e->r.name.ptr ? e->name : NULL);
	copy_origin(&e->op.r, &e->r);
	e->op.r.dir = e->r.dir;
	if (kml_has_target(e->r.opcode)) {
		op_target(&e->op, run->tplace.inode, run->tplace.fd, e->tname);
		e->op.r.tdir = e->r.tdir;
	}
	e->op.nolog = !run->log;
	e->op.reint_index = run->log ? e->index + 1 : 0;
}

static void set_result(struct izo_reint_result *res, const struct stat *st, uint32_t gen)
{
	res->ino = cpu_to_le64(st->st_ino);
	res->gen = cpu_to_le32(gen);
	res->ctime_sec = cpu_to_le64(st->st_ctim.tv_sec);
	res->ctime_nsec = cpu_to_le32(st->st_ctim.tv_nsec);
}

void entry_is(struct reint_entry *e, const struct stat *st, uint32_t gen)
{
	struct kml_record *r = &e->op.r;

	r->obj.ino = st->st_ino;
	r->obj.gen = gen;
	r->has_attr = true;
	attr_from_stat(&r->attr, st);
	set_result(e->result, st, gen);
}

/* Both places may be the same directory: what is due in it is due in one of them, now in p. */
static void take_over(struct reint_run *run, struct place *p)
{
	struct place *q = p == &run->place ? &run->tplace : &run->place;

	if (q->inode != p->inode || !q->mtime_due)
		return;
	q->mtime_due = false;
	p->mtime_due = true;
	p->mtime = q->mtime;
	p->seen = q->seen;
}

static void due(struct reint_run *run, struct place *p, const struct kml_time *t)
{
	struct stat st;

	take_over(run, p);
	if (fstatat(p->fd, "", &st, AT_EMPTY_PATH) != 0)
		return;
	p->mtime_due = true;
	p->mtime = *t;
	p->seen = st.st_mtim;
}

static void not_due(struct reint_run *run, struct place *p)
{
	take_over(run, p);
	p->mtime_due = false;
}

void entry_ptime_now(struct reint_entry *e)
{
	op_ptime(&e->op, e->run->place.fd, kml_has_target(e->r.opcode) ? e->run->tplace.fd : -1);
}

void entry_ptime(struct reint_entry *e)
{
	struct place *p = &e->run->place, *t = &e->run->tplace;
	const bool two = kml_has_target(e->r.opcode);
	const bool one_dir = two && p->inode == t->inode;

	if (!e->r.has_ptime) {
		entry_ptime_now(e);
		not_due(e->run, p);
		if (two)
			not_due(e->run, t);
		return;
	}
	e->op.r.has_ptime = true;
	e->op.r.ptime = e->r.ptime;
	e->op.r.tptime = e->r.tptime;
	if (e->r.opcode != KML_LINK && !one_dir)
		due(e->run, p, &e->r.ptime);
	if (two)
		due(e->run, t, &e->r.tptime);
}

void place_keep_mtime(struct reint_run *run, struct place *p, const struct timespec *was)
{
	struct kml_time t;
	struct stat st;

	take_over(run, p);
	if (p->mtime_due && p->seen.tv_sec == was->tv_sec && p->seen.tv_nsec == was->tv_nsec)
		t = p->mtime;
	else
		time_from_ts(&t, was);
	if (fstatat(p->fd, "", &st, AT_EMPTY_PATH) != 0)
		return;
	p->mtime_due = true;
	p->mtime = t;
	p->seen = st.st_mtim;
}

static void result_of_name(struct reint_entry *e)
{
	if (e->obj.exists)
		set_result(e->result, &e->obj.st, e->obj.gen);
	if (e->target.exists) {
		e->result->tino = cpu_to_le64(e->target.st.st_ino);
		e->result->tgen = cpu_to_le32(e->target.gen);
	}
}

/* The kernel's caches */

void forget_data(const struct inode *i)
{
	if (fs.se && (i->nlookup || i == root_inode))
		fuse_lowlevel_notify_inval_inode(fs.se, i == root_inode ? FUSE_ROOT_ID : i->nodeid,
						 0, 0);
}

void forget_size(const struct inode *i)
{
	if (fs.se && (i->nlookup || i == root_inode))
		fuse_lowlevel_notify_inval_inode(fs.se, i->nodeid, -1, 0);
}

void forget_name(const struct place *p, const char *name)
{
	const struct inode *i = p->inode;

	if (fs.se && (i->nlookup || i == root_inode))
		fuse_lowlevel_notify_inval_entry(fs.se, i == root_inode ? FUSE_ROOT_ID : i->nodeid,
						 name, strlen(name));
}

/* Names */

/* f loses a name: its inode must not be found by new openers once it is gone. */
static struct inode *losing(const struct found *f)
{
	struct inode *i = inode_find(f->st.st_dev, f->st.st_ino);

	if (i && (S_ISDIR(f->st.st_mode) || f->st.st_nlink == 1))
		(void) inode_keep_fd(i);
	return i;
}

static void lost(struct inode *i, const struct found *f, const struct place *p, const char *name)
{
	if (!i)
		return;
	inode_clear_name(i, p->inode, name);
	if (S_ISDIR(f->st.st_mode) || f->st.st_nlink == 1)
		i->gone = true;
}

static void record_old(struct kml_record *r, const struct found *f)
{
	r->has_old = true;
	r->old.ino = f->st.st_ino;
	r->old.gen = f->gen;
	attr_from_stat(&r->old_attr, &f->st);
}

/* OLD tells the links that are left. */
static void record_after(struct kml_record *r, const struct found *f)
{
	struct stat st;

	if (fstatat(f->fd, "", &st, AT_EMPTY_PATH) == 0)
		attr_from_stat(&r->old_attr, &st);
}

static int reint_remove(struct reint_entry *e)
{
	const int flags = e->r.opcode == KML_RMDIR ? AT_REMOVEDIR : 0;
	struct place *p = &e->run->place;
	struct inode *i;
	int err;

	if (!e->obj.exists)
		return -ENOENT;
	i = losing(&e->obj);
	entry_op(e, e->r.opcode);
	e->op.r.obj.ino = e->obj.st.st_ino;
	e->op.r.obj.gen = e->obj.gen;
	record_old(&e->op.r, &e->obj);
	err = op_begin(&e->op);
	if (err)
		goto out;
	if (unlinkat(p->fd, e->name, flags) != 0) {
		err = -errno;
		op_abort(&e->op);
		goto out;
	}
	lost(i, &e->obj, p, e->name);
	record_after(&e->op.r, &e->obj);
	entry_ptime(e);
	op_done(&e->op);
out:
	inode_unref(i);
	return err;
}

static unsigned int rename_flags(const struct reint_entry *e)
{
	if (e->r.flags & KML_F_EXCHANGE)
		return RENAME_EXCHANGE;
	return e->target.exists ? 0 : RENAME_NOREPLACE;
}

/* The kernel's inodes know where they are now. */
static void moved(const struct reint_entry *e, struct inode *i, struct inode *other)
{
	const struct reint_run *run = e->run;

	if (i)
		inode_set_name(i, run->tplace.inode, e->tname);
	if (other && (e->r.flags & KML_F_EXCHANGE))
		inode_set_name(other, run->place.inode, e->name);
	else
		lost(other, &e->target, &run->tplace, e->tname);
}

static int reint_rename(struct reint_entry *e)
{
	struct reint_run *run = e->run;
	struct inode *i = NULL, *other = NULL;
	int err;

	if (!e->obj.exists)
		return -ENOENT;
	entry_op(e, KML_RENAME);
	e->op.r.flags = e->r.flags & (KML_F_EXCHANGE | KML_F_NOREPLACE);
	e->op.r.obj.ino = e->obj.st.st_ino;
	e->op.r.obj.gen = e->obj.gen;
	i = inode_find(e->obj.st.st_dev, e->obj.st.st_ino);
	if (e->target.exists) {
		record_old(&e->op.r, &e->target);
		other = losing(&e->target);
	}
	if (S_ISDIR(e->obj.st.st_mode))
		e->op.moved = i;
	if (e->r.flags & KML_F_EXCHANGE && S_ISDIR(e->target.st.st_mode))
		e->op.exchanged = other;
	err = op_begin(&e->op);
	if (err)
		goto out;
	if (renameat2(run->place.fd, e->name, run->tplace.fd, e->tname, rename_flags(e)) != 0) {
		err = -errno;
		op_abort(&e->op);
		goto out;
	}
	moved(e, i, other);
	if (e->r.flags & KML_F_EXCHANGE && run->place.inode != run->tplace.inode) {
		keep_mtime(e->obj.fd, &e->obj.st);
		keep_mtime(e->target.fd, &e->target.st);
	}
	if (fstatat(e->obj.fd, "", &e->obj.st, AT_EMPTY_PATH) == 0)
		entry_is(e, &e->obj.st, e->obj.gen);
	if (e->target.exists)
		record_after(&e->op.r, &e->target);
	entry_ptime(e);
	op_done(&e->op);
out:
	inode_unref(i);
	inode_unref(other);
	return err;
}

static int reint_link(struct reint_entry *e)
{
	struct reint_run *run = e->run;
	int err;

	if (!e->obj.exists)
		return -ENOENT;
	entry_op(e, KML_LINK);
	e->op.r.obj.ino = e->obj.st.st_ino;
	e->op.r.obj.gen = e->obj.gen;
	err = op_begin(&e->op);
	if (err)
		return err;
	if (linkat(run->place.fd, e->name, run->tplace.fd, e->tname, 0) != 0) {
		err = -errno;
		op_abort(&e->op);
		return err;
	}
	if (fstatat(e->obj.fd, "", &e->obj.st, AT_EMPTY_PATH) == 0)
		entry_is(e, &e->obj.st, e->obj.gen);
	entry_ptime(e);
	op_done(&e->op);
	return 0;
}

/* One entry */

static int do_op(struct reint_entry *e)
{
	if (e->flags & IZO_RE_THERE)
		return reint_there(e);
	switch (e->r.opcode) {
	case KML_CREATE:
		return e->r.file.ptr ? reint_create_file(e) : reint_make(e);
	case KML_MKDIR:
	case KML_SYMLINK:
	case KML_MKNOD:
		return reint_make(e);
	case KML_CLOSE:
		return reint_close(e);
	case KML_UNLINK:
	case KML_RMDIR:
		return reint_remove(e);
	case KML_RENAME:
		return reint_rename(e);
	case KML_LINK:
		return reint_link(e);
	case KML_SETATTR:
		return reint_setattr(e);
	default:
		return reint_xattr(e);
	}
}

/* The object keeps its inode: the record and recovery name it. */
static int take_inode(struct reint_entry *e)
{
	struct inode *parent = e->run->place.inode;

	if (kml_makes(e->r.opcode) || kml_has_target(e->r.opcode) || !e->obj.exists)
		return 0;
	return inode_of_fd(parent, e->obj.fd, e->r.name.ptr ? e->name : "/", false, &e->obj.st,
			   &e->inode);
}

static int entry_locked(struct reint_entry *e)
{
	struct reint_run *run = e->run;
	int err;

	if (kml_has_target(e->r.opcode)) {
		/* The object only moves: nobody needs to be kept off it. */
		err = find_name(run->place.fd, e->name, &e->obj);
		if (!err)
			err = find_name(run->tplace.fd, e->tname, &e->target);
		if (!err)
			err = guard_check(&e->guard, &e->obj);
		if (e->target.exists)
			file_lock(e->target.st.st_ino);
		if (!err && e->target.exists &&
		    fstatat(e->target.fd, "", &e->target.st, AT_EMPTY_PATH) != 0)
			err = -errno;
		if (!err)
			err = guard_check(&e->tguard, &e->target);
	} else {
		err = lock_and_check(&e->guard, run->place.fd, e->name, &e->obj);
	}
	if (!err)
		err = take_inode(e);
	if (!err)
		err = do_op(e);
	if (err)
		result_of_name(e);
	if (kml_has_target(e->r.opcode) && e->target.exists)
		file_unlock(e->target.st.st_ino);
	else if (!kml_has_target(e->r.opcode) && e->obj.exists)
		file_unlock(e->obj.st.st_ino);
	return err;
}

/* What the kernel may have cached and is no longer so. */
static void tell_kernel(struct reint_entry *e)
{
	const struct reint_run *run = e->run;

	switch (e->r.opcode) {
	case KML_SETATTR:
	case KML_SETXATTR:
	case KML_REMOVEXATTR:
		if (e->inode)
			forget_data(e->inode);
		return;
	case KML_CLOSE:
		/* waits for lookups on their way, so that there is an inode to tell */
		forget_name(&run->place, e->name);
		aliases_tell_kernel(e);
		/*
		 * Of the inode nothing: what was written into it was told before
		 * anybody could open it, and what was replaced is as it was.
		 */
		return;
	case KML_RENAME:
	case KML_LINK:
		forget_name(&run->tplace, e->tname);
		if (e->r.opcode == KML_LINK)
			return;
		break;
	}
	forget_name(&run->place, e->name);
}

/* The links of an object that keeps other names are fewer, or more. */
static void tell_links(const struct found *f)
{
	struct inode *i;

	if (!f->exists || S_ISDIR(f->st.st_mode))
		return;
	i = inode_find(f->st.st_dev, f->st.st_ino);
	if (i && i->nlookup)
		fuse_lowlevel_notify_inval_inode(fs.se, i->nodeid, -1, 0);
	inode_unref(i);
}

static void copy_name(char to[256], const struct kml_str *s)
{
	memcpy(to, s->ptr ? s->ptr : "", s->ptr ? s->len : 0);
	to[s->ptr ? s->len : 0] = 0;
}

static int enter_places(struct reint_entry *e)
{
	struct reint_run *run = e->run;
	int err = place_enter(&run->place, &e->r.dir, &e->r.parent);

	if (!err && kml_has_target(e->r.opcode))
		err = place_enter(&run->tplace, &e->r.tdir, &e->r.tparent);
	if (!err && (name_hidden(run->place.inode, e->name) ||
		     (kml_has_target(e->r.opcode) && name_hidden(run->tplace.inode, e->tname))))
		err = -ENOENT;
	/* A directory that is not where the sender thinks: the tree is not as the guard says. */
	return err == -ENOENT || err == -ENOTDIR || err == -ELOOP || err == -EXDEV ? -ESTALE : err;
}

static int entry_with_aliases(struct reint_entry *e)
{
	unsigned int *stripes, n;
	int err = aliases_open(e);

	if (!err)
		err = aliases_lock(e, &stripes, &n);
	if (err)
		return err;
	err = entry_locked(e);
	dir_unlock_stripes(stripes, n);
	free(stripes);
	return err;
}

static int entry_with_names(struct reint_entry *e)
{
	const struct reint_run *run = e->run;
	const uint64_t dir = run->place.inode->ino;
	const uint64_t tdir = kml_has_target(e->r.opcode) ? run->tplace.inode->ino : dir;
	int err;

	dir_lock2(dir, tdir);
	err = entry_locked(e);
	dir_unlock2(dir, tdir);
	return err;
}

static int entry_apply(struct reint_entry *e)
{
	int err = enter_places(e);

	if (err)
		return err;
	if (e->r.opcode == KML_CLOSE)
		writer_wait();
	err = e->r.aliases_len ? entry_with_aliases(e) : entry_with_names(e);
	if (!err) {
		fault("reint-mid");
		tell_kernel(e);
		if (e->r.opcode == KML_UNLINK || kml_has_target(e->r.opcode))
			tell_links(&e->obj);
		if (kml_has_target(e->r.opcode))
			tell_links(&e->target);
	}
	return err;
}

static int entry_run(struct reint_run *run, unsigned int index, const struct izo_reint_entry *head,
		     const struct kml_record *r, struct izo_reint_result *result)
{
	struct reint_entry *e = calloc(1, sizeof(*e));
	int err;

	if (!e)
		return -ENOMEM;
	e->run = run;
	e->index = index;
	e->flags = le32_to_cpu(head->flags);
	e->guard = head->guard;
	e->tguard = head->tguard;
	e->r = *r;
	e->obj.fd = e->target.fd = -1;
	e->result = result;
	copy_name(e->name, &r->name);
	copy_name(e->tname, &r->tname);
	err = entry_apply(e);
	aliases_close(e);
	found_clear(&e->obj);
	found_clear(&e->target);
	if (e->inode)
		inode_unref(e->inode);
	if (!run->log && !err)
		result->recno = cpu_to_le64(e->op.seq);
	free(e);
	result->error = cpu_to_le32(-err);
	return err;
}

/* The batch */

static bool ends_batch(int err)
{
	return err == -ENOSPC || err == -EDQUOT || err == -EIO;
}

static void move_last_rcvd(const struct izo_reint *head, uint64_t local_recno)
{
	struct last_rcvd lr = {
		.remote_recno = le64_to_cpu(head->remote_recno),
		.remote_offset = le64_to_cpu(head->remote_offset),
		.local_recno = local_recno,
		.time_sec = time(NULL),
	};
	int fd, err;

	if (!lr.remote_recno)
		return;
	memcpy(lr.peer, head->peer, sizeof(lr.peer));
	fd = openat(fs.meta_fd, "last_rcvd", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	err = fd < 0 ? -errno : last_rcvd_set(fd, &lr);
	if (err)
		complain("%s: last_rcvd cannot be written: %s", fs.opt.source, strerror(-err));
	if (fd >= 0)
		close(fd);
}

/*
 * Numbers of the records, once the worker has given them; and who reads the log finds
 * everything that came before what was not logged.
 */
static uint64_t collect_recnos(const struct reint_run *run, struct izo_reint_result *results,
			       uint32_t count)
{
	uint64_t last = 0;
	uint32_t n;

	journal_drain_logged();
	for (n = 0; n < count && run->log; n++) {
		results[n].recno = cpu_to_le64(run->recnos[n]);
		if (run->recnos[n])
			last = run->recnos[n];
	}
	return last;
}

/* True if last_rcvd may move. */
static bool apply_all(struct reint_run *run, const void *body, size_t len,
		      struct izo_reint_result *results)
{
	struct izo_reint_entry head;
	struct kml_record r;
	size_t pos = sizeof(struct izo_reint);
	bool stop = false, settled = true;
	unsigned int n;
	int err;

	for (n = 0; reint_entry_next(body, len, &pos, &head, &r) > 0; n++) {
		if (stop) {
			results[n].error = cpu_to_le32(ECANCELED);
			continue;
		}
		err = entry_run(run, n, &head, &r, &results[n]);
		stop = ends_batch(err);
		settled &= !err || err == -ESTALE;
	}
	place_clear(&run->place);
	place_clear(&run->tplace);
	return settled;
}

int reint_apply(const void *body, size_t len, void **ret_reply, size_t *ret_len)
{
	struct reint_run run = { .place.fd = -1, .tplace.fd = -1 };
	struct izo_reint_result *results;
	struct kml_record r;
	struct izo_reint head;
	struct izo_pos *pos;
	uint64_t offset, recno;
	uint32_t count;
	size_t size;
	bool settled;
	int err;

	err = reint_parse(body, len, &head, &r);
	if (err)
		return err;
	count = le32_to_cpu(head.count);
	size = sizeof(*pos) + count * sizeof(*results);
	pos = calloc(1, size);
	run.recnos = calloc(count + 1, sizeof(*run.recnos));
	if (!pos || !run.recnos) {
		free(pos);
		free(run.recnos);
		return -ENOMEM;
	}
	results = (struct izo_reint_result *) (pos + 1);
	run.log = le32_to_cpu(head.flags) & IZO_REINT_F_LOG;
	journal_reint_recno = run.log ? run.recnos : NULL;
	settled = apply_all(&run, body, len, results);
	recno = collect_recnos(&run, results, count);
	journal_reint_recno = NULL;
	if (settled)
		move_last_rcvd(&head, recno);
	journal_end(&offset, &recno);
	pos->offset = cpu_to_le64(offset);
	pos->recno = cpu_to_le64(recno);
	free(run.recnos);
	*ret_reply = pos;
	*ret_len = size;
	return 0;
}
