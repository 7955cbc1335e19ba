// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Write sessions: what changed in a file's content since its last CLOSE.
 *
 * The first change takes a slot in the LML (openw.c), so that a crash is
 * followed by a CLOSE; the ranges are kept in memory.  CLOSE is logged when
 * the last writer and the last writable mapping go, at fsync, and after a settable
 * amount or time.  A change that was in progress meanwhile belongs to the next
 * session, too: its bytes may have come after the CLOSE.
 *
 * An inode whose session is dirty is on the superblock's list and counted.
 * Its lock is taken below i_rwsem and below mmap_lock; inside it the journal is waited for.
 */
#include "changing.h"
#include "izo_trace.h"
#include "reint.h"

#include <linux/cred.h>
#include <linux/wait_bit.h>

struct izo_range {
	u64	off, end;
};

struct izo_session {
	bool		dirty;
	bool		all;		/* which bytes is unknown */
	unsigned int	inflight;	/* changes in progress */
	unsigned int	changes;	/* since it is dirty */
	unsigned int	generation;	/* counts CLOSEs */
	int		slot;
	struct kml_attrs old;		/* before the session */
	unsigned long	since;		/* jiffies */
	u32		pid, uid, gid;	/* who changed it last */
	u64		bytes;
	unsigned int	n;
	struct izo_range ranges[KML_RANGES_MAX + 1];
};

static struct izo_journal *journal_of(const struct inode *inode)
{
	return izo_sb(inode->i_sb)->journal;
}

/* Ranges */

/* Join the two neighbours with the smallest gap. */
static void join_nearest(struct izo_session *s)
{
	unsigned int k, best = 1;

	for (k = 2; k < s->n; k++)
		if (s->ranges[k].off - s->ranges[k - 1].end <
		    s->ranges[best].off - s->ranges[best - 1].end)
			best = k;
	s->ranges[best - 1].end = s->ranges[best].end;
	s->n--;
	memmove(&s->ranges[best], &s->ranges[best + 1],
		(s->n - best) * sizeof(struct izo_range));
}

static void record_range(struct izo_session *s, u64 off, u64 len)
{
	struct izo_range r = { off, off + len };
	unsigned int first, behind;

	if (len == 0)
		return;
	/* [first, behind) are the ranges that touch the new one */
	for (first = s->n; first > 0 && s->ranges[first - 1].end >= r.off; first--)
		;
	for (behind = first; behind < s->n && s->ranges[behind].off <= r.end; behind++)
		;
	if (behind > first) {
		r.off = min(r.off, s->ranges[first].off);
		r.end = max(r.end, s->ranges[behind - 1].end);
	}
	memmove(&s->ranges[first + 1], &s->ranges[behind],
		(s->n - behind) * sizeof(struct izo_range));
	s->ranges[first] = r;
	s->n += 1 - (behind - first);
	if (s->n > KML_RANGES_MAX)
		join_nearest(s);
}

/* What lies in the file now, as the record stores it. */
static unsigned int put_ranges(const struct izo_session *s, u64 size, struct kml_range *d)
{
	unsigned int k, n = 0;

	for (k = 0; k < s->n && s->ranges[k].off < size; k++, n++) {
		u64 end = min(s->ranges[k].end, size);

		d[n].off = cpu_to_le64(s->ranges[k].off);
		d[n].len = cpu_to_le64(end - s->ranges[k].off);
	}
	return n;
}

/* The list of dirty ones */

static void list_dirty(struct inode *inode)
{
	struct izo_sb *sbi = izo_sb(inode->i_sb);

	ihold(inode);
	spin_lock(&sbi->dirty_lock);
	list_add_tail(&izo_i(inode)->dirty, &sbi->dirty);
	spin_unlock(&sbi->dirty_lock);
}

/* The reference is the caller's now, who must not drop it under the inode's lock. */
static void unlist_dirty(struct inode *inode)
{
	struct izo_sb *sbi = izo_sb(inode->i_sb);

	spin_lock(&sbi->dirty_lock);
	list_del_init(&izo_i(inode)->dirty);
	spin_unlock(&sbi->dirty_lock);
}

/* CLOSE */

static void begin_anew(struct inode *inode, struct izo_session *s)
{
	s->generation++;
	izo_attr_of(&s->old, izo_lower_inode(inode));
	s->n = 0;
	s->all = false;
	s->bytes = 0;
	s->since = jiffies;
}

/* The slot stays while a change is in progress.  True: the list's reference is ours. */
static bool end(struct inode *inode, struct izo_session *s, u64 seq)
{
	begin_anew(inode, s);
	if (s->inflight)
		return false;
	izo_openw_end(journal_of(inode), s->slot, seq);
	s->dirty = false;
	unlist_dirty(inode);
	return true;
}

static void close_record(struct izo_op *op, struct inode *inode, const struct izo_session *s,
			 struct kml_range *ranges)
{
	op->prepaid = true;
	op->r.pid = s->pid;
	op->r.fsuid = s->uid;
	op->r.fsgid = s->gid;
	izo_op_attr(op, inode, KML_A_SIZE | KML_A_MTIME);
	op->r.has_old = true;
	op->r.old = op->r.obj;
	op->r.old_attr = s->old;
	if (s->all) {
		op->r.flags = KML_F_RANGES_ALL;
		return;
	}
	op->r.has_ranges = true;
	op->r.ranges = ranges;
	op->r.n_ranges = put_ranges(s, op->r.attr.size, ranges);
}

static int log_close(struct inode *inode, struct izo_session *s, struct dentry *dentry,
		     u64 *ret_seq)
{
	struct kml_range *ranges = kmalloc_array(KML_RANGES_MAX, sizeof(*ranges), GFP_KERNEL);
	struct izo_op *op;
	int err;

	if (!ranges)
		return -ENOMEM;
	op = izo_op_inode(inode, KML_CLOSE, dentry);
	err = PTR_ERR_OR_ZERO(op);
	if (err)
		goto out;
	close_record(op, inode, s, ranges);
	err = izo_op_begin(op);
	if (err) {
		izo_op_free(op);
		goto out;
	}
	*ret_seq = op->seq;
	izo_debug(IZO_D_FILE, "%s: CLOSE of inode %lu, %u ranges\n", op->j->sbi->params.fileset,
		  (unsigned long)inode->i_ino, op->r.n_ranges);
	izo_op_done(op);
out:
	kfree(ranges);
	return err;
}

/*
 * Called with the inode's lock held.  *ret_put: the caller drops a reference to the
 * inode when it has given up the lock.
 */
static int log_locked(struct inode *inode, struct dentry *dentry, bool *ret_put)
{
	struct izo_session *s = izo_i(inode)->session;
	unsigned int k;
	u64 seq = 0;
	int err = 0;

	if (!s || !s->dirty)
		return 0;
	/* pages that can be stored to without a fault would escape the next session */
	if (izo_i(inode)->maps)
		for (k = 0; k < s->n; k++)
			izo_mmap_protect(inode, s->ranges[k].off, s->ranges[k].end);
	if (izo_i(inode)->setting)
		izo_i(inode)->closed_meanwhile = true;
	if (inode->i_nlink)
		err = log_close(inode, s, dentry, &seq);
	if (!err)
		*ret_put = end(inode, s, seq);
	return err;
}

static void unlock(struct inode *inode, bool put)
{
	mutex_unlock(&izo_i(inode)->lock);
	if (put)
		iput(inode);
}

int izo_session_log(struct inode *inode, struct dentry *dentry)
{
	bool put = false;
	int err;

	mutex_lock(&izo_i(inode)->lock);
	err = log_locked(inode, dentry, &put);
	unlock(inode, put);
	return err;
}

void izo_session_setting(struct inode *inode)
{
	mutex_lock(&izo_i(inode)->lock);
	izo_i(inode)->setting++;
	mutex_unlock(&izo_i(inode)->lock);
}

/* With the inode's lock held, so that no CLOSE can come in between again. */
static void log_mtime(struct inode *inode, struct dentry *dentry)
{
	struct izo_op *op = izo_op_inode(inode, KML_SETATTR, dentry);
	struct izo_reint_entry_run *e;

	if (IS_ERR(op))
		return;
	/* a peer's has its own record, and what its guards were about has happened */
	e = op->reint;
	if (e)
		e->checked = true;
	op->r.has_origin = false;
	op->reint_index = 0;
	izo_op_attr(op, inode, KML_A_MTIME);
	izo_op_old(op, inode);
	if (izo_op_begin(op) == 0)
		izo_op_done(op);
	else
		izo_op_free(op);
	if (e)
		e->checked = false;
}

void izo_session_set(struct inode *inode, struct dentry *dentry)
{
	struct izo_inode *ii = izo_i(inode);

	mutex_lock(&ii->lock);
	if (ii->closed_meanwhile)
		log_mtime(inode, dentry);
	if (--ii->setting == 0)
		ii->closed_meanwhile = false;
	mutex_unlock(&ii->lock);
}

static void log_flushed(struct inode *inode, bool force)
{
	struct izo_inode *ii = izo_i(inode);
	bool put = false;

	mutex_lock(&ii->lock);
	if (force || ii->flushed || (!ii->writers && !ii->maps))
		(void)log_locked(inode, NULL, &put);
	unlock(inode, put);
}

/* Each that is on the list now, once: those that stay go to its end. */
void izo_session_log_all(struct izo_sb *sbi, bool force)
{
	struct izo_inode *ii;
	struct inode *inode;
	LIST_HEAD(todo);

	spin_lock(&sbi->dirty_lock);
	list_splice_init(&sbi->dirty, &todo);
	while (!list_empty(&todo)) {
		ii = list_first_entry(&todo, struct izo_inode, dirty);
		list_move_tail(&ii->dirty, &sbi->dirty);
		inode = &ii->vfs_inode;
		ihold(inode);
		spin_unlock(&sbi->dirty_lock);
		log_flushed(inode, force);
		iput(inode);
		spin_lock(&sbi->dirty_lock);
	}
	spin_unlock(&sbi->dirty_lock);
}

/* What vm_ops->close(), which must not wait, has left to do. */
static void close_work(struct work_struct *work)
{
	izo_session_log_all(container_of(work, struct izo_sb, close_work), false);
}

void izo_sessions_init(struct izo_sb *sbi)
{
	spin_lock_init(&sbi->dirty_lock);
	INIT_LIST_HEAD(&sbi->dirty);
	INIT_WORK(&sbi->close_work, close_work);
}

/* One that cannot be logged stays in the LML's table, and gets its CLOSE at the next mount. */
static void abandon(struct izo_sb *sbi)
{
	struct izo_inode *ii, *next;

	list_for_each_entry_safe(ii, next, &sbi->dirty, dirty) {
		list_del_init(&ii->dirty);
		ii->session->dirty = false;
		iput(&ii->vfs_inode);
	}
}

void izo_sessions_end(struct izo_sb *sbi)
{
	cancel_work_sync(&sbi->close_work);
	izo_session_log_all(sbi, true);
	abandon(sbi);
}

/* Changes */

static bool due(const struct izo_sb *sbi, const struct izo_session *s)
{
	const u64 bytes = (u64)READ_ONCE(sbi->close_after) << 20;
	const u64 seconds = READ_ONCE(sbi->close_every);

	return (bytes && s->bytes >= bytes) || (seconds && jiffies - s->since >= seconds * HZ);
}

static int begin(struct inode *inode, struct izo_session *s, bool emptied)
{
	struct izo_journal *j = journal_of(inode);
	u32 round;
	int slot, err;

	err = izo_changing_content(inode, emptied, &round);
	if (err)
		return err;
	slot = izo_openw_begin(j, inode, i_size_read(izo_lower_inode(inode)));
	izo_changing_leave(j, round);
	if (slot < 0)
		return slot;
	s->slot = slot;
	begin_anew(inode, s);
	s->dirty = true;
	s->changes = 0;
	list_dirty(inode);
	/* the slot stays, as if the machine had stopped here */
	return izo_fault(izo_sb(inode->i_sb), "after-openw") ? -EIO : 0;
}

static int change_locked(struct inode *inode, u64 off, u64 len, bool emptied,
			 struct izo_change *ret_change)
{
	struct izo_inode *ii = izo_i(inode);
	struct izo_session *s = ii->session;
	int err;

	if (!s) {
		s = kzalloc(sizeof(*s), GFP_KERNEL);
		if (!s)
			return -ENOMEM;
		ii->session = s;
	}
	if (!s->dirty) {
		err = begin(inode, s, emptied);
		if (err)
			return err;
	}
	trace_izo_change(inode, off, len);
	record_range(s, off, len);
	s->inflight++;
	s->changes++;
	*ret_change = (struct izo_change) { s->generation, false, off, len };
	return 0;
}

static bool nolog(const struct inode *inode)
{
	return izo_i(inode)->meta || izo_sb(inode->i_sb)->reint_task == current;
}

static int change(struct inode *inode, u64 off, u64 len, bool emptied,
		  struct izo_change *ret_change)
{
	int err;

	if (nolog(inode))
		return 0;
	for (;;) {
		mutex_lock(&izo_i(inode)->lock);
		err = change_locked(inode, off, len, emptied, ret_change);
		mutex_unlock(&izo_i(inode)->lock);
		if (err != -EAGAIN)
			return err;
		/* So many files are being written that some must end their session. */
		izo_session_log_all(izo_sb(inode->i_sb), true);
	}
}

int izo_session_change(struct inode *inode, u64 off, u64 len, struct izo_change *ret_change)
{
	return change(inode, off, len, false, ret_change);
}

int izo_session_empty(struct inode *inode, struct izo_change *ret_change)
{
	return change(inode, 0, i_size_read(izo_lower_inode(inode)), true, ret_change);
}

static void who(struct izo_session *s)
{
	s->pid = task_tgid_nr(current);
	s->uid = from_kuid(&init_user_ns, current_fsuid());
	s->gid = from_kgid(&init_user_ns, current_fsgid());
}

/* It was refused before anything was done. */
static bool refused(long result)
{
	return result == -EOPNOTSUPP || result == -EINVAL || result == -EPERM ||
	       result == -EACCES || result == -ETXTBSY || result == -EFBIG ||
	       result == -EBADF || result == -ENODEV || result == -EISDIR;
}

/* Nothing has happened, and nothing else did: there is nothing to log. */
static bool take_back(struct inode *inode, struct izo_session *s, const struct izo_change *c)
{
	if (s->inflight || s->changes != 1 || s->generation != c->generation)
		return false;
	s->n = 0;
	return end(inode, s, 0);
}

void izo_session_changed(struct inode *inode, const struct izo_change *change,
			 struct dentry *dentry, long result)
{
	struct izo_inode *ii = izo_i(inode);
	struct izo_session *s = ii->session;
	bool put = false;

	if (nolog(inode))
		return;
	mutex_lock(&ii->lock);
	s->inflight--;
	if (refused(result) && take_back(inode, s, change)) {
		unlock(inode, true);
		return;
	}
	if (s->generation != change->generation)
		record_range(s, change->off, change->len);
	if (!change->mapped)
		ii->flushed = false;
	s->bytes += change->len;
	who(s);
	if (s->inflight == 0 && ((!ii->writers && !ii->maps) ||
				 (!change->mapped && due(izo_sb(inode->i_sb), s))))
		(void)log_locked(inode, dentry, &put);
	unlock(inode, put);
}

/* Openers */

/*
 * A writer was told to look its file up again, which the VFS does once only: before it
 * has come through no other version may take the name.
 */
static void writer(struct izo_sb *sbi, bool comes)
{
	if (READ_ONCE(sbi->writer_comes) == comes)
		return;
	WRITE_ONCE(sbi->writer_comes, comes);
	if (!comes)
		wake_up_var(&sbi->writer_comes);
}

int izo_session_open(struct inode *inode, bool write)
{
	struct izo_inode *ii = izo_i(inode);
	int err = mutex_lock_killable(&ii->lock);

	while (!err && (write ? ii->busy : ii->busy == IZO_NOBODY)) {
		mutex_unlock(&ii->lock);
		/* most likely it will have to look its file up again */
		if (write)
			writer(izo_sb(inode->i_sb), true);
		err = wait_var_event_killable(&ii->busy, READ_ONCE(ii->busy) == IZO_FREE);
		if (!err)
			err = mutex_lock_killable(&ii->lock);
	}
	if (err)
		return err;
	if (write && ii->gone)
		err = -ESTALE;
	else if (write)
		ii->writers++;
	else
		ii->readers++;
	mutex_unlock(&ii->lock);
	if (write)
		writer(izo_sb(inode->i_sb), err == -ESTALE);
	return err;
}

void izo_session_writer_wait(struct izo_sb *sbi)
{
	(void)wait_var_event_timeout(&sbi->writer_comes, !READ_ONCE(sbi->writer_comes),
				     min(READ_ONCE(sbi->timeout), 3600u) * HZ);
	WRITE_ONCE(sbi->writer_comes, false);
}

void izo_session_release(struct inode *inode, bool write, struct dentry *dentry)
{
	struct izo_inode *ii = izo_i(inode);
	bool put = false;

	mutex_lock(&ii->lock);
	if (!write)
		ii->readers--;
	else if (--ii->writers == 0 && !ii->maps)
		(void)log_locked(inode, dentry, &put);
	unlock(inode, put);
}

void izo_session_flushed(struct inode *inode)
{
	mutex_lock(&izo_i(inode)->lock);
	izo_i(inode)->flushed = true;
	mutex_unlock(&izo_i(inode)->lock);
}

void izo_session_map(struct inode *inode)
{
	mutex_lock(&izo_i(inode)->lock);
	izo_i(inode)->maps++;
	mutex_unlock(&izo_i(inode)->lock);
}

void izo_session_unmap(struct inode *inode)
{
	struct izo_inode *ii = izo_i(inode);
	bool last;

	mutex_lock(&ii->lock);
	ii->flushed = true;
	last = --ii->maps == 0 && !ii->writers && ii->session && ii->session->dirty;
	mutex_unlock(&ii->lock);
	if (last)
		schedule_work(&izo_sb(inode->i_sb)->close_work);
}

void izo_session_named(struct inode *inode, struct dentry *dentry)
{
	struct izo_change change;

	if (nolog(inode) || !i_size_read(izo_lower_inode(inode)) ||
	    izo_session_change(inode, 0, 0, &change) != 0)
		return;
	mutex_lock(&izo_i(inode)->lock);
	izo_i(inode)->session->all = true;
	mutex_unlock(&izo_i(inode)->lock);
	izo_session_changed(inode, &change, dentry, 0);
}

void izo_session_free(struct izo_inode *ii)
{
	kfree(ii->session);
	ii->session = NULL;
}
