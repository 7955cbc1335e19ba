// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Recovery at mount: what the LML holds becomes records of the KML.
 *
 * Completed records that the KML does not have yet are appended.  For an
 * operation that was in flight the tree is asked whether it happened; if it did, its
 * record is made from the intent and what is there now.  What a peer's record
 * was in the middle of is undone or done again.  A file that was open for write gets its
 * CLOSE.  All of it can be interrupted and begun again: records carry the
 * LML's sequence numbers, and the LML is emptied last.
 *
 * Whatever the LML holds is checked before it is believed.
 */
#include <config.h>

#include "changing.h"
#include "journal.h"
#include "reint.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "lml_format.h"
#include "util.h"

/* After a crash sequence numbers go on far behind those that may be around. */
#define SEQ_JUMP	(1u << 20)

static char record_buf[KML_REC_MAX + 4096];

int recover_append(struct kml_record *r, uint64_t seq)
{
	ssize_t n;
	int err;

	r->recno = journal.recno + 1;
	r->seq = seq;
	r->file.ptr = NULL;
	r->data.ptr = NULL;
	n = kml_encode(record_buf, sizeof(record_buf), r);
	if (n < 0)
		return n;
	err = pwrite_all(journal.kml_fd, record_buf, n, journal.end);
	if (err)
		return err;
	journal.end += n;
	journal.recno++;
	return 0;
}

/* Where things are */

static int open_path(const char *path, size_t len)
{
	struct open_how how = {
		.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	char buf[4096];
	int fd;

	if (len == 0 || len >= sizeof(buf) || path[0] != '/')
		return -ENOENT;
	memcpy(buf, path + 1, len - 1);
	buf[len - 1] = 0;
	fd = syscall(SYS_openat2, fs.root_fd, len == 1 ? "." : buf, &how, sizeof(how));
	return fd < 0 ? -errno : fd;
}

static bool is_object(int fd, const struct kml_oid *oid)
{
	uint32_t gen;
	struct stat st;

	return fstatat(fd, "", &st, AT_EMPTY_PATH) == 0 && st.st_ino == oid->ino &&
	       inode_generation(fd, "", &gen) == 0 && gen == oid->gen;
}

/* What the handle leads to, or the path, if it is the object it should be. */
static int open_object(const struct lml_handle *d, const struct kml_str *path,
		       const struct kml_oid *oid)
{
	struct handle h = { .len = d->len, .type = d->type };
	int fd = -ENOENT;

	if (oid->ino == 0)
		return -ENOENT;
	if (d->len && d->len <= HANDLE_INLINE) {
		memcpy(h.bytes, d->bytes, h.len);
		fd = handle_open(&h, O_PATH);
	} else if (path->ptr) {
		fd = open_path(path->ptr, path->len);
	}
	if (fd >= 0 && !is_object(fd, oid)) {
		close(fd);
		fd = -ENOENT;
	}
	return fd;
}

/* The name's bytes as a string. */
static const char *c_name(const struct kml_str *s, char buf[256])
{
	if (!s->ptr || s->len > 255)
		return NULL;
	memcpy(buf, s->ptr, s->len);
	buf[s->len] = 0;
	return buf;
}

/* An entry that was in flight. */
struct flight {
	struct lml_entry	*e;
	struct kml_record	r;
	uint32_t		flags;		/* LML_F_* */
	int			dirfd, tdirfd;	/* -1: not there */
	int			fd;		/* the object */
	char			name[256], tname[256];
};

static void flight_put(struct flight *f)
{
	if (f->dirfd >= 0)
		close(f->dirfd);
	if (f->tdirfd >= 0)
		close(f->tdirfd);
	if (f->fd >= 0)
		close(f->fd);
}

static int open_name(int dirfd, const char *name)
{
	int fd = dirfd < 0 ? -1 : openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -ENOENT : fd;
}

static void flight_get(struct flight *f)
{
	const struct kml_record *r = &f->r;

	f->name[0] = f->tname[0] = 0;
	c_name(&r->name, f->name);
	c_name(&r->tname, f->tname);
	f->dirfd = open_object(&f->e->handles[0], &r->dir, &r->parent);
	f->tdirfd = open_object(&f->e->handles[1], &r->tdir, &r->tparent);
	f->fd = -1;
	if (r->obj.ino == 0)
		return;
	f->fd = f->e->handles[2].len ? open_object(&f->e->handles[2], &r->dir, &r->obj) : -1;
	if (f->fd < 0 && f->dirfd >= 0 && f->name[0])
		f->fd = open_name(f->dirfd, f->name);
	if (f->fd >= 0 && !is_object(f->fd, &r->obj)) {
		close(f->fd);
		f->fd = -1;
	}
}

static bool name_is(int dirfd, const char *name, const struct kml_oid *oid)
{
	int fd = open_name(dirfd, name);
	bool is;

	if (fd < 0)
		return false;
	is = is_object(fd, oid);
	close(fd);
	return is;
}

static void put_attr(struct kml_record *r, int fd)
{
	const uint32_t valid = r->attr.valid;
	struct stat st;

	if (fstatat(fd, "", &st, AT_EMPTY_PATH) != 0)
		return;
	r->has_attr = true;
	attr_from_stat(&r->attr, &st);
	r->attr.valid = valid;
}

static void put_ptime(struct flight *f)
{
	struct stat st;

	if (f->dirfd < 0 || fstatat(f->dirfd, "", &st, AT_EMPTY_PATH) != 0)
		return;
	f->r.has_ptime = true;
	time_from_ts(&f->r.ptime, &st.st_mtim);
	if (f->tdirfd >= 0 && fstatat(f->tdirfd, "", &st, AT_EMPTY_PATH) == 0)
		time_from_ts(&f->r.tptime, &st.st_mtim);
}

static int log_flight(struct flight *f)
{
	if (f->flags & LML_F_NOLOG)
		return 0;
	f->r.flags |= KML_F_RECOVERED;
	return recover_append(&f->r, le64_to_cpu(f->e->seq));
}

/* Each operation: 0 or -errno */

/* Made no earlier than the intent?  (A second of grace: clocks have ticks.) */
static bool is_young(int fd, const struct kml_time *intent)
{
	struct statx sx;
	int64_t made;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME | STATX_CTIME, &sx) != 0)
		return false;
	made = sx.stx_mask & STATX_BTIME ? sx.stx_btime.tv_sec : sx.stx_ctime.tv_sec;
	return made + 1 >= intent->sec;
}

/* A peer's object may be half made: REINT found the name absent, so it goes again. */
static int undo_create(struct flight *f)
{
	const int flags = f->r.opcode == KML_MKDIR ? AT_REMOVEDIR : 0;

	return unlinkat(f->dirfd, f->name, flags) && errno != ENOENT ? -errno : 0;
}

static int recover_create(struct flight *f)
{
	int fd = open_name(f->dirfd, f->name), err = 0;
	void *items = NULL;
	struct stat st;

	if (fd < 0)
		return 0;
	if (fstatat(fd, "", &st, AT_EMPTY_PATH) != 0)
		goto out;
	if (f->flags & LML_F_REINT) {
		/* a finished file got its name by one rename; all else may be half made */
		if (!f->r.obj.ino)
			err = undo_create(f);
		if (f->r.obj.ino != st.st_ino)
			goto out;
	} else if (!is_young(fd, &f->r.time)) {
		goto out;
	}
	f->r.obj.ino = st.st_ino;
	err = inode_generation(fd, "", &f->r.obj.gen);
	if (err)
		goto out;
	put_attr(&f->r, fd);
	put_ptime(f);
	if (!S_ISLNK(st.st_mode) && !f->r.xattrs &&
	    xattr_items(fd, true, &items, &f->r.xattrs_len) == 0)
		f->r.xattrs = items;
	err = log_flight(f);
	free(items);
out:
	close(fd);
	return err;
}

static int recover_remove(struct flight *f)
{
	if (f->dirfd < 0 || name_is(f->dirfd, f->name, &f->r.obj))
		return 0;
	put_ptime(f);
	return log_flight(f);
}

static int recover_move(struct flight *f)
{
	int fd;

	if (!name_is(f->tdirfd, f->tname, &f->r.obj))
		return 0;
	fd = open_name(f->tdirfd, f->tname);
	if (fd >= 0) {
		put_attr(&f->r, fd);
		close(fd);
	}
	put_ptime(f);
	return log_flight(f);
}

/* A peer's attributes are set again. */
static void redo_attr(struct flight *f)
{
	const struct kml_attrs *a = &f->r.attr;
	struct timespec ts[2] = { { 0, UTIME_OMIT }, { a->mtime.sec, a->mtime.nsec } };
	char name[16];

	proc_name(name, f->fd);
	if (a->valid & (KML_A_UID | KML_A_GID))
		(void) fchownat(f->fd, "", a->valid & KML_A_UID ? a->uid : (uid_t) -1,
				a->valid & KML_A_GID ? a->gid : (gid_t) -1, AT_EMPTY_PATH);
	if (a->valid & KML_A_MODE)
		(void) fchmodat(fs.proc_fd, name, a->mode & 07777, 0);
	if (a->valid & KML_A_MTIME)
		(void) utimensat(fs.proc_fd, name, ts, 0);
}

static int recover_attr(struct flight *f)
{
	if (f->fd < 0)
		return 0;
	if (f->flags & LML_F_REINT)
		redo_attr(f);
	put_attr(&f->r, f->fd);
	return log_flight(f);
}

/* The value that is there now; none: it was removed. */
static int recover_xattr(struct flight *f)
{
	struct kml_str name, value;
	char path[32], c[256], *buf;
	size_t pos = 0;
	ssize_t n;
	int err;

	if (f->fd < 0 || !kml_xattr_next(f->r.xattrs, f->r.xattrs_len, &pos, &name, &value) ||
	    !c_name(&name, c))
		return 0;
	proc_path(path, f->fd);
	if (f->flags & LML_F_REINT && f->r.opcode == KML_SETXATTR)
		(void) setxattr(path, c, value.ptr, value.len, 0);
	else if (f->flags & LML_F_REINT)
		(void) removexattr(path, c);
	buf = malloc(2 * KML_REC_MAX);
	if (!buf)
		return -ENOMEM;
	n = getxattr(path, c, buf + KML_REC_MAX, KML_REC_MAX);
	if (n == -1 && errno == ENODATA && f->r.opcode == KML_SETXATTR) {
		/* it did not come to that, and there was none before */
		free(buf);
		return 0;
	}
	f->r.opcode = n < 0 ? KML_REMOVEXATTR : KML_SETXATTR;
	n = kml_xattr_put(buf, KML_REC_MAX, c, strlen(c), buf + KML_REC_MAX, n < 0 ? 0 : n);
	f->r.xattrs = buf;
	f->r.xattrs_len = n < 0 ? 0 : n;
	put_attr(&f->r, f->fd);
	err = n < 0 ? n : log_flight(f);
	free(buf);
	return err;
}

/* Write a peer's patch again from its file; without the file it was over. */
static int redo_patch(struct flight *f)
{
	char name[256], self[16];
	int in, out, err;

	if (!c_name(&f->r.file, name))
		return 0;
	in = openat(fs.incoming_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (in < 0)
		return 0;
	proc_name(self, f->fd);
	out = openat(fs.proc_fd, self, O_RDWR | O_CLOEXEC);
	err = out < 0 ? -errno : reint_patch(out, in, &f->r, f->r.attr.size);
	if (out >= 0)
		close(out);
	close(in);
	if (!err)
		unlinkat(fs.incoming_fd, name, 0);
	return err;
}

static int recover_close(struct flight *f)
{
	const uint32_t valid = f->r.attr.valid;
	int err = 0;

	if (f->r.flags & KML_F_REPLACED) {
		if (!name_is(f->dirfd, f->name, &f->r.obj))
			return 0;
		err = aliases_redo(f->dirfd, f->name, &f->r);
		f->r.aliases_len = 0;
	} else if (f->fd < 0) {
		return 0;
	} else if (f->flags & LML_F_REINT) {
		err = redo_patch(f);
		if (!err)
			redo_attr(f);
	}
	if (f->fd >= 0)
		put_attr(&f->r, f->fd);
	f->r.attr.valid = valid;
	return err ? err : log_flight(f);
}

static int recover_intent(struct flight *f)
{
	switch (f->r.opcode) {
	case KML_CREATE:
		/* a nameless file that was given a name: as a link */
		if (f->r.obj.ino && !(f->flags & LML_F_REINT))
			return name_is(f->dirfd, f->name, &f->r.obj) ? recover_create(f) : 0;
		return recover_create(f);
	case KML_MKDIR:
	case KML_SYMLINK:
	case KML_MKNOD:
		return recover_create(f);
	case KML_UNLINK:
	case KML_RMDIR:
		return recover_remove(f);
	case KML_RENAME:
	case KML_LINK:
		return recover_move(f);
	case KML_SETATTR:
		return recover_attr(f);
	case KML_SETXATTR:
	case KML_REMOVEXATTR:
		return recover_xattr(f);
	case KML_CLOSE:
		return recover_close(f);
	default:
		return 0;
	}
}

/* The ring */

static int in_flight(struct lml_entry *e, uint32_t len)
{
	const uint32_t intent = le32_to_cpu(e->intent_len);
	struct flight f = { .e = e, .flags = le32_to_cpu(e->flags) };
	int err;

	if (intent > len - sizeof(*e) || le32_to_cpu(e->crc) != lml_entry_crc(e, intent) ||
	    kml_decode(entry_intent(e), intent, &f.r) != (ssize_t) intent)
		return 0;	/* not written: then nothing was done either */
	flight_get(&f);
	err = recover_intent(&f);
	flight_put(&f);
	return err;
}

/* Its record, if record_len says that there is one; false: torn. */
static bool record_of(struct lml_entry *e, uint32_t len, struct kml_record *ret_r)
{
	const uint32_t intent = le32_to_cpu(e->intent_len), n = le32_to_cpu(e->record_len);

	return n == 0 || (intent <= len - sizeof(*e) && n <= len - sizeof(*e) - intent &&
			  kml_decode(entry_intent(e) + intent, n, ret_r) == (ssize_t) n);
}

static int completed(struct lml_entry *e, uint32_t len)
{
	struct kml_record r;

	if (!record_of(e, len, &r))
		return in_flight(e, len);	/* a torn page: as if it were in flight */
	return le32_to_cpu(e->record_len) ? recover_append(&r, le64_to_cpu(e->seq)) : 0;
}

/* The entry at pos if it is the one due: its length, else 0. */
static uint32_t entry_at(uint64_t pos, uint64_t seq)
{
	const struct lml_entry *e = ring_entry(pos);
	const uint64_t rest = journal.ring_size - pos % journal.ring_size;
	const uint32_t len = le32_to_cpu(e->len);

	if (le32_to_cpu(e->magic) != LML_ENTRY_MAGIC || le64_to_cpu(e->seq) != seq ||
	    len % LML_ALIGN || len == 0 || len > rest)
		return 0;
	return len;
}

static int replay_entry(struct lml_entry *e, uint32_t len)
{
	switch (entry_state(e)) {
	case LML_E_DONE:
		return completed(e, len);
	case LML_E_INTENT:
		return in_flight(e, len);
	default:
		return 0;
	}
}

/*
 * After the machine stopped the ring's pages are of different ages: an entry that
 * seems to be in flight may be done, and what depends on it may follow.  So
 * the log ends before the first one that is not finished; look.c sees to all else.
 */
static bool ends_log(struct lml_entry *e, uint32_t len)
{
	struct kml_record r;

	switch (entry_state(e)) {
	case LML_E_DONE:
		return !record_of(e, len, &r);
	case LML_E_RESERVED:
	case LML_E_INTENT:
		return true;
	default:
		return false;
	}
}

/*
 * Then only a peer's change that may be half made is completed or undone, unlogged:
 * there is one at a time, so no other one is behind it.
 */
static void redo_last(struct lml_entry *e, uint32_t len)
{
	if (!e || entry_state(e) != LML_E_INTENT)
		return;
	e->flags |= cpu_to_le32(LML_F_NOLOG);
	(void) in_flight(e, len);
}

static int replay_ring(uint64_t pos, uint64_t seq, uint64_t logged, bool stopped)
{
	struct lml_entry *e, *last = NULL;
	uint32_t len, last_len = 0;
	uint64_t start = pos;
	bool ended = false;
	int err = 0;

	while (!err && pos - start < journal.ring_size && (len = entry_at(pos, seq)) != 0) {
		e = ring_entry(pos);
		ended |= stopped && seq > logged && ends_log(e, len);
		if (seq > logged && !ended)
			err = replay_entry(e, len);
		if (le32_to_cpu(e->flags) & LML_F_REINT) {
			last = e;
			last_len = len;
		}
		pos += len;
		seq++;
	}
	if (!err && ended)
		redo_last(last, last_len);
	journal.head = pos;
	journal.next_seq = seq;
	return err;
}

/* Files that were open for write */

static int close_record(const struct lml_openw *o, uint64_t seq)
{
	struct kml_record r = {
		.opcode = KML_CLOSE,
		.flags = KML_F_RECOVERED | KML_F_RANGES_ALL,
		.auid = ~0u,
		.obj = { le64_to_cpu(o->ino), le32_to_cpu(o->gen) },
		.has_old = true,
		.old = { le64_to_cpu(o->ino), le32_to_cpu(o->gen) },
		.old_attr.size = le64_to_cpu(o->old_size),
	};
	struct kml_str path = { (const char *) o->path, le32_to_cpu(o->path_len) };
	struct timespec now;
	struct stat st;
	int fd, err;

	if (path.len == 0 || path.len > sizeof(o->path))
		path.ptr = NULL;
	clock_gettime(CLOCK_REALTIME, &now);
	time_from_ts(&r.time, &now);
	fd = open_object(&o->handle, &path, &r.obj);
	if (fd < 0 && o->handle.len)
		return 0;
	if (fd < 0) {
		/* its path was too long to keep, or has changed: someone has to look */
		r.opcode = KML_RESYNC;
		return recover_append(&r, seq);
	}
	err = fstatat(fd, "", &st, AT_EMPTY_PATH) ? -errno : 0;
	close(fd);
	if (err || st.st_nlink == 0)
		return err;
	r.has_attr = true;
	attr_from_stat(&r.attr, &st);
	r.attr.valid = KML_A_SIZE | KML_A_MTIME;
	return recover_append(&r, seq);
}

/*
 * When the machine stopped nothing more is known of it: the entry with its CLOSE
 * may be behind the log's end, or its data not on the disk.
 */
static int look_openw(void)
{
	uint64_t k;
	int err = 0;

	for (k = 0; k < journal.n_openw && !err; k++) {
		const struct lml_openw *o = &journal.openw[k];
		const struct kml_oid oid = { le64_to_cpu(o->ino), le32_to_cpu(o->gen) };

		if (le32_to_cpu(o->state) != LML_O_FREE)
			err = look_object(&oid);
	}
	return err;
}

static int replay_openw(uint64_t seen)
{
	uint64_t k;
	int err = 0;

	for (k = 0; k < journal.n_openw && !err; k++) {
		const struct lml_openw *o = &journal.openw[k];
		const uint32_t state = le32_to_cpu(o->state);

		if (state == LML_O_OPEN ||
		    (state == LML_O_CLOSED && le64_to_cpu(o->close_seq) >= seen))
			err = close_record(o, journal.next_seq++);
	}
	return err;
}

/* All of it */

static int find_end(const struct lml_state *s, uint64_t *ret_logged)
{
	struct kml_record rec;
	struct klog *log;
	uint64_t prev;
	int own, err = -ERANGE;

	own = fcntl(journal.kml_fd, F_DUPFD_CLOEXEC, 0);
	if (own < 0)
		return -errno;
	err = klog_open_fd(own, &log);
	if (err) {
		close(own);
		return err;
	}
	err = -ERANGE;
	if (s && le64_to_cpu(s->kml_offset) >= fs.log.first_offset)
		err = klog_end_from(log, le64_to_cpu(s->kml_offset), le64_to_cpu(s->kml_recno),
				    &journal.end, &journal.recno);
	if (err == -ERANGE)
		err = klog_end(log, &journal.end, &journal.recno);
	*ret_logged = 0;
	if (!err && klog_read_back(log, journal.end, &rec, &prev) == 1)
		*ret_logged = rec.seq;
	klog_close(log);
	return err;
}

/* What is behind the last whole record was never complete. */
static int cut_tail(void)
{
	struct stat st;

	if (fstat(journal.kml_fd, &st) != 0)
		return -errno;
	if ((uint64_t) st.st_size > journal.end && ftruncate(journal.kml_fd, journal.end) != 0)
		return -errno;
	journal.allocated = journal.end;
	return 0;
}

/* Everything is in the KML: make it durable, then forget the LML. */
static int start_anew(bool clean)
{
	if (fdatasync(journal.kml_fd) != 0)
		return -errno;
	memset(journal.openw, 0, journal.n_openw * sizeof(*journal.openw));
	if (!clean)
		journal.next_seq += SEQ_JUMP;
	journal.tail = journal.appended = journal.head;
	journal.appended_seq = journal.durable_seq = journal.next_seq;
	journal.durable_end = journal.end;
	journal.durable_recno = journal.recno;
	journal_put_state(journal.tail, 0);
	if (fdatasync(journal.lml_fd) != 0)
		return -errno;
	/* last: until then it says that the ring cannot be trusted */
	return changing_reset(journal.end);
}

int recover(void)
{
	struct lml_state s;
	const bool have = lml_state_get(journal.header, &s);
	const bool clean = !have || le32_to_cpu(s.flags) & LML_S_CLEAN;
	const bool stopped = !clean && changing_other_boot();
	uint64_t logged = 0;
	int err;

	err = find_end(have ? &s : NULL, &logged);
	if (!err)
		err = cut_tail();
	if (!err && have) {
		journal.serial = le64_to_cpu(s.serial);
		if (le64_to_cpu(s.tail) % LML_ALIGN)
			err = -EBADMSG;
		else
			err = replay_ring(le64_to_cpu(s.tail), le64_to_cpu(s.seq), logged,
					  stopped);
	}
	if (journal.next_seq <= logged)
		journal.next_seq = logged + 1;
	if (!err && have)
		err = stopped ? look_openw() : replay_openw(journal.next_seq);
	if (!err && stopped)
		err = look_all();
	if (!err)
		err = start_anew(clean);
	if (!err)
		reint_clean();
	if (err)
		complain("%s: its log cannot be recovered: %s", fs.opt.source, strerror(-err));
	return err;
}
