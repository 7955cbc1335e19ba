// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Write sessions: what changed in a file's content since its last CLOSE.
 *
 * The first change takes a slot in the LML (openw.c), so that a crash is
 * followed by a CLOSE; the ranges are kept in memory.  CLOSE is logged when
 * the last writer goes, at fsync, and after a settable amount or time.  A
 * change that was in progress meanwhile belongs to the next session, too: its
 * bytes may have come after the CLOSE.
 */
#include <config.h>

#include "fs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "byteorder.h"

#define STRIPES	1024

struct range {
	uint64_t	off, end;
};

struct session {
	bool		dirty;
	bool		all;		/* which bytes is unknown */
	unsigned int	inflight;	/* changes in progress */
	unsigned int	generation;	/* counts CLOSEs */
	int		slot;
	struct stat	old;		/* before the session */
	struct timespec	since;
	uint32_t	pid, uid, gid;	/* who changed it last */
	uint64_t	bytes;
	unsigned int	n;
	struct range	ranges[KML_RANGES_MAX + 1];
};

static pthread_mutex_t locks[STRIPES] = { [0 ... STRIPES - 1] = PTHREAD_MUTEX_INITIALIZER };

static pthread_mutex_t *lock_of(const struct inode *i)
{
	return &locks[i->ino * 0x9e3779b97f4a7c15ULL >> 54];
}

/* Ranges */

/* Join the two neighbours with the smallest gap. */
static void join_nearest(struct session *s)
{
	unsigned int k, best = 1;

	for (k = 2; k < s->n; k++)
		if (s->ranges[k].off - s->ranges[k - 1].end <
		    s->ranges[best].off - s->ranges[best - 1].end)
			best = k;
	s->ranges[best - 1].end = s->ranges[best].end;
	s->n--;
	memmove(&s->ranges[best], &s->ranges[best + 1], (s->n - best) * sizeof(struct range));
}

static void add_range(struct session *s, uint64_t off, uint64_t len)
{
	struct range r = { off, off + len };
	unsigned int first, behind;

	if (len == 0)
		return;
	/* [first, behind) are the ranges that touch the new one */
	for (first = s->n; first > 0 && s->ranges[first - 1].end >= r.off; first--)
		;
	for (behind = first; behind < s->n && s->ranges[behind].off <= r.end; behind++)
		;
	if (behind > first) {
		if (s->ranges[first].off < r.off)
			r.off = s->ranges[first].off;
		if (s->ranges[behind - 1].end > r.end)
			r.end = s->ranges[behind - 1].end;
	}
	memmove(&s->ranges[first + 1], &s->ranges[behind],
		(s->n - behind) * sizeof(struct range));
	s->ranges[first] = r;
	s->n += 1 - (behind - first);
	if (s->n > KML_RANGES_MAX)
		join_nearest(s);
}

/* What lies in the file now, as the record stores it. */
static unsigned int put_ranges(const struct session *s, uint64_t size, struct kml_range *d)
{
	unsigned int k, n = 0;

	for (k = 0; k < s->n && s->ranges[k].off < size; k++, n++) {
		uint64_t end = s->ranges[k].end < size ? s->ranges[k].end : size;

		d[n].off = cpu_to_le64(s->ranges[k].off);
		d[n].len = cpu_to_le64(end - s->ranges[k].off);
	}
	return n;
}

/* CLOSE */

static void begin_anew(struct session *s, const struct stat *st)
{
	s->generation++;
	s->old = *st;
	s->n = 0;
	s->all = false;
	s->bytes = 0;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &s->since);
}

/* The slot stays while a change is in progress. */
static void end(struct session *s, const struct stat *st, uint64_t seq)
{
	begin_anew(s, st);
	if (s->inflight)
		return;
	openw_end(s->slot, seq);
	s->dirty = false;
}

static int log_close(struct inode *i, struct session *s, fuse_req_t req, const struct stat *st)
{
	struct kml_range ranges[KML_RANGES_MAX];
	struct op op;
	int err;

	op_init_object(&op, req, KML_CLOSE, i);
	op.prepaid = true;
	op.r.pid = s->pid;
	op.r.fsuid = s->uid;
	op.r.fsgid = s->gid;
	op.r.has_attr = op.r.has_old = true;
	attr_from_stat(&op.r.attr, st);
	op.r.attr.valid = KML_A_SIZE | KML_A_MTIME;
	op.r.old = op.r.obj;
	attr_from_stat(&op.r.old_attr, &s->old);
	if (s->all) {
		op.r.flags = KML_F_RANGES_ALL;
	} else {
		op.r.has_ranges = true;
		op.r.ranges = ranges;
		op.r.n_ranges = put_ranges(s, st->st_size, ranges);
	}
	err = op_begin(&op);
	if (err)
		return err;
	op_done(&op);
	end(s, st, op.seq);
	return 0;
}

/* Called with the stripe locked. */
static int log_locked(struct inode *i, fuse_req_t req)
{
	struct session *s = i->session;
	struct stat st;
	int err;

	if (!s || !s->dirty)
		return 0;
	err = inode_stat(i, &st);
	if (!err && st.st_nlink)
		return log_close(i, s, req, &st);
	if (!err || err == -ESTALE) {
		if (err)
			st = s->old;
		end(s, &st, 0);
		return 0;
	}
	return err;
}

int session_log(struct inode *i, fuse_req_t req, bool if_flushed)
{
	int err = 0;

	pthread_mutex_lock(lock_of(i));
	if (!if_flushed || i->flushed)
		err = log_locked(i, req);
	pthread_mutex_unlock(lock_of(i));
	return err;
}

static void log_one(struct inode *i, void *arg)
{
	const bool *force = arg;

	if (i->session)
		(void) session_log(i, NULL, !*force);
}

void session_log_all(bool force)
{
	inode_each(log_one, &force);
}

/* Changes */

static bool due(const struct session *s)
{
	struct timespec now;

	if (fs.opt.close_mib && s->bytes >> 20 >= fs.opt.close_mib)
		return true;
	if (!fs.opt.close_sec)
		return false;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return now.tv_sec - s->since.tv_sec >= (time_t) fs.opt.close_sec;
}

static int begin(struct inode *i, int fd, bool emptied, struct session *s)
{
	uint32_t round;
	struct stat st;
	int err = 0;

	if (fd < 0)
		err = inode_stat(i, &st);
	else if (fstat(fd, &st) != 0)
		err = -errno;
	if (err)
		return err;
	err = changing_content(i, &st, emptied, &round);
	if (err)
		return err;
	s->slot = openw_begin(i, st.st_size);
	changing_leave(round);
	if (s->slot < 0)
		return s->slot;
	begin_anew(s, &st);
	s->dirty = true;
	fault("after-openw");
	return 0;
}

static int change_locked(struct inode *i, int fd, uint64_t off, uint64_t len, bool emptied,
			 struct change *ret_change)
{
	struct session *s = i->session;
	int err;

	if (!s) {
		s = i->session = calloc(1, sizeof(*s));
		if (!s)
			return -ENOMEM;
	}
	if (!s->dirty) {
		err = begin(i, fd, emptied, s);
		if (err)
			return err;
	}
	add_range(s, off, len);
	s->inflight++;
	*ret_change = (struct change) { s->generation, false, off, len };
	return 0;
}

static void drop_unused(struct inode *i)
{
	const struct session *s = i->session;

	if (i->writers == 0 && s && !s->dirty && !s->inflight)
		session_free(i);
}

int session_change(struct inode *i, int fd, uint64_t off, uint64_t len, bool emptied,
		   struct change *ret_change)
{
	int err;

	if (i->meta)
		return 0;
	for (;;) {
		pthread_mutex_lock(lock_of(i));
		err = change_locked(i, fd, off, len, emptied, ret_change);
		pthread_mutex_unlock(lock_of(i));
		if (err != -EAGAIN)
			return err;
		/* So many files are being written that some must end their session. */
		session_log_all(true);
	}
}

void session_changed(struct inode *i, fuse_req_t req, const struct change *change)
{
	struct session *s = i->session;

	if (i->meta)
		return;
	pthread_mutex_lock(lock_of(i));
	s->inflight--;
	if (s->generation != change->generation)
		add_range(s, change->off, change->len);
	if (!change->mapped)
		i->flushed = false;
	s->bytes += change->len;
	if (req) {
		s->pid = fuse_req_ctx(req)->pid;
		s->uid = fuse_req_ctx(req)->uid;
		s->gid = fuse_req_ctx(req)->gid;
	}
	if (s->inflight == 0 && (i->writers == 0 || due(s)))
		(void) log_locked(i, req);
	drop_unused(i);
	pthread_mutex_unlock(lock_of(i));
}

/* Openers */

void session_open(struct inode *i, bool write)
{
	pthread_mutex_lock(lock_of(i));
	if (write)
		i->writers++;
	else
		i->readers++;
	pthread_mutex_unlock(lock_of(i));
}

void session_release(struct inode *i, bool write, fuse_req_t req)
{
	pthread_mutex_lock(lock_of(i));
	if (!write)
		i->readers--;
	else if (--i->writers == 0)
		(void) log_locked(i, req);
	drop_unused(i);
	pthread_mutex_unlock(lock_of(i));
}

/*
 * close() waits for the answer to this, but not for the release: what it ended is
 * to be in the log before whatever comes next (a rename).  If the descriptor has
 * duplicates that go on writing there will be another CLOSE.
 */
void session_flushed(struct inode *i, fuse_req_t req)
{
	struct session *s;

	pthread_mutex_lock(lock_of(i));
	s = i->session;
	i->flushed = true;
	if (s && s->dirty && i->writers == 1 && !s->inflight)
		(void) log_locked(i, req);
	pthread_mutex_unlock(lock_of(i));
}

bool session_has_writers(struct inode *i)
{
	return i->writers != 0;
}

bool session_is_open(struct inode *i)
{
	return i->writers || i->readers;
}

void session_named(struct inode *i, fuse_req_t req, bool has_content)
{
	struct change change;

	if (i->meta || !has_content || session_change(i, -1, 0, 0, false, &change) != 0)
		return;
	pthread_mutex_lock(lock_of(i));
	i->session->all = true;
	pthread_mutex_unlock(lock_of(i));
	session_changed(i, req, &change);
}

void session_free(struct inode *i)
{
	free(i->session);
	i->session = NULL;
}
