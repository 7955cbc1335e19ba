// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The journal's two threads, the KML's space, and starting and stopping it all.
 */
#include "changing.h"
#include "izo_trace.h"

#include <linux/falloc.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/sizes.h>

#define KML_CHUNK	(4u << 20)	/* allocated ahead at once */
#define KML_AHEAD	SZ_1M		/* less than that: the worker allocates more */
#define KML_KEEP	(512u << 10)	/* of it for removing */
#define APPEND_MAX	SZ_1M		/* bytes of one write */
#define BATCH_MSEC	2		/* the worker lets records gather so long */
#define FLUSH_SEC	5		/* and the flusher so long */
#define DATA_SEC	30		/* and content to be on disk before its CLOSE counts */
#define RETRY_MSEC	500

/* The lock is held when this is called and when it returns. */
long izo_wait_on(struct mutex *lock, wait_queue_head_t *wq, unsigned int state, long timeout)
{
	DEFINE_WAIT(wait);

	prepare_to_wait(wq, &wait, state);
	mutex_unlock(lock);
	/* who stops a thread does not hold the lock when it wakes it */
	if (state != TASK_IDLE || !kthread_should_stop())
		timeout = schedule_timeout(timeout);
	finish_wait(wq, &wait);
	mutex_lock(lock);
	return timeout;
}

static void wait_space(struct izo_journal *j)
{
	izo_wait(j, &j->space, TASK_UNINTERRUPTIBLE, MAX_SCHEDULE_TIMEOUT);
}

static void nap(struct izo_journal *j, unsigned int msec)
{
	mutex_unlock(&j->lock);
	schedule_timeout_idle(msecs_to_jiffies(msec) ?: 1);
	mutex_lock(&j->lock);
}

void izo_request_flush(struct izo_journal *j)
{
	j->flush_now = true;
	wake_up(&j->flush);
}

/* The KML's space */

/* The worker's: allocate ahead.  Called with the lock held, gives it up meanwhile. */
static void kml_allocate(struct izo_journal *j, u64 until)
{
	const u64 from = j->allocated;
	const u64 chunk = round_up(until - from, KML_CHUNK);
	int err = 0;

	if (!j->no_fallocate) {
		mutex_unlock(&j->lock);
		err = vfs_fallocate(j->kml, FALLOC_FL_KEEP_SIZE, from, chunk);
		mutex_lock(&j->lock);
		if (err == -EOPNOTSUPP) {
			j->no_fallocate = true;
			err = 0;
		}
	}
	if (!err)
		j->allocated += chunk;
	j->alloc_tries++;
	wake_up_all(&j->space);
}

/*
 * The last of it is for what frees space: on a full disk something can be
 * removed, and then the log gets room again.
 */
int izo_kml_reserve(struct izo_journal *j, u64 bytes, bool frees)
{
	unsigned int tries = j->alloc_tries;
	u64 until;

	while ((until = j->end + j->reserved + bytes) + KML_KEEP > j->allocated) {
		if (tries != j->alloc_tries && (!frees || until > j->allocated))
			return -ENOSPC;
		if (tries != j->alloc_tries)
			break;
		j->wanted = max(j->wanted, until + KML_KEEP);
		wake_up(&j->work);
		while (tries == j->alloc_tries && until + KML_KEEP > j->allocated)
			wait_space(j);
	}
	j->reserved += bytes;
	return 0;
}

void izo_kml_unreserve(struct izo_journal *j, u64 bytes)
{
	j->reserved -= bytes;
}

/* The worker */

/* Records gathered for one write, and how far in the ring they reach. */
struct batch {
	char	*buf;
	size_t	len;
	u64	pos, seq, recno, room;
};

static void batch_add(struct izo_journal *j, struct batch *b, struct lml_entry *e)
{
	const u32 len = le32_to_cpu(e->record_len);
	const u32 reint = le32_to_cpu(e->reint);

	if (izo_entry_state(e) == LML_E_DONE && len) {
		memcpy(b->buf + b->len, izo_entry_intent(e) + le32_to_cpu(e->intent_len), len);
		kml_seal(b->buf + b->len, ++b->recno, le64_to_cpu(e->seq));
		b->len += len;
		if (reint && j->reint_recnos)
			j->reint_recnos[reint - 1] = b->recno;
	}
	b->pos += le32_to_cpu(e->len);
	b->seq = le64_to_cpu(e->seq) + 1;
	b->room += le64_to_cpu(e->kml_room);
}

static bool entry_finished(const struct lml_entry *e)
{
	const u32 state = izo_entry_state(e);

	return state != LML_E_RESERVED && state != LML_E_INTENT;
}

/* Called with the lock held. */
static bool work_there(struct izo_journal *j)
{
	return j->appended < j->head && !izo_dead(j->sbi) &&
	       entry_finished(izo_ring_entry(j, j->appended));
}

static void batch_gather(struct izo_journal *j, struct batch *b, u64 head)
{
	while (b->pos < head && b->len + KML_REC_MAX <= APPEND_MAX) {
		struct lml_entry *e = izo_ring_entry(j, b->pos);

		if (!entry_finished(e))
			break;
		batch_add(j, b, e);
	}
}

static int batch_write(struct izo_journal *j, const struct batch *b)
{
	int err = b->len ? izo_pwrite(j->kml, b->buf, b->len, j->end) : 0;

	trace_izo_kml_append(j, j->end, j->end + b->len, b->recno, err);
	if (err && !j->error)
		pr_err_ratelimited("%s: cannot append to the kml: error %d; trying again\n",
				   j->sbi->params.fileset, err);
	return err;
}

/* Called with the lock held. */
static void batch_commit(struct izo_journal *j, const struct batch *b)
{
	/* else it is awake already, or waits for its time */
	const bool first = j->appended == j->tail;

	if (!izo_dead(j->sbi))
		j->error = 0;
	j->appended = b->pos;
	j->appended_seq = b->seq;
	j->end += b->len;
	j->recno = b->recno;
	j->reserved -= b->room;
	if (first)
		wake_up(&j->flush);
	wake_up_all(&j->space);
	izo_changing_grown(j);
}

/* Append what is finished.  Called with the lock held, gives it up meanwhile. */
static void append_finished(struct izo_journal *j, char *buf)
{
	struct batch b = {
		.buf = buf,
		.pos = j->appended,
		.seq = j->appended_seq,
		.recno = j->recno,
	};
	u64 head = j->head;
	int err;

	mutex_unlock(&j->lock);
	batch_gather(j, &b, head);
	err = batch_write(j, &b);
	if (b.len && izo_fault(j->sbi, "after-append"))
		err = -EIO;
	mutex_lock(&j->lock);
	if (err) {
		j->error = err;
		wake_up_all(&j->space);
		nap(j, RETRY_MSEC);
		return;
	}
	batch_commit(j, &b);
	izo_debug(IZO_D_KML, "%s: the log ends at %llu, record %llu\n", j->sbi->params.fileset,
		  j->end, j->recno);
	if (b.len)
		izo_channel_grown(j->sbi);
}

static void work(struct izo_journal *j, char *buf)
{
	const u64 ahead = j->end + j->reserved + KML_AHEAD;

	if (j->wanted > j->allocated)
		kml_allocate(j, j->wanted);
	else if (ahead > j->allocated && j->appended < j->head && !j->no_fallocate && !j->error)
		kml_allocate(j, ahead);
	j->wanted = 0;
	if (!work_there(j))
		return;
	if (!j->drainers && !kthread_should_stop())
		nap(j, BATCH_MSEC);
	append_finished(j, buf);
}

static int worker(void *arg)
{
	struct izo_journal *j = arg;
	char *buf = j->sbi->append_buf;

	mutex_lock(&j->lock);
	while (!kthread_should_stop() || (work_there(j) && !j->error)) {
		if (j->wanted || work_there(j))
			work(j, buf);
		else
			izo_wait(j, &j->work, TASK_IDLE, MAX_SCHEDULE_TIMEOUT);
	}
	mutex_unlock(&j->lock);
	return 0;
}

/* The flusher */

/*
 * A CLOSE can be durable before the content that it tells of.  After a crash
 * all that was closed since the last time the content was seen to is logged again, so it is
 * seen to now and then; most of it is on disk by then.  (Where there is a set of what is being
 * changed its checkpoints do that.)  Called with the lock held.
 */
static void sync_data(struct izo_journal *j)
{
	struct super_block *lsb = j->sbi->lower_root->d_sb;
	const u64 end = j->end, recno = j->recno;
	int err;

	if (j->changing || end == j->data_end ||
	    time_before(jiffies, j->data_synced + DATA_SEC * HZ))
		return;
	mutex_unlock(&j->lock);
	err = -EAGAIN;
	if (down_read_trylock(&lsb->s_umount)) {
		err = sync_filesystem(lsb);
		up_read(&lsb->s_umount);
	}
	if (!err)
		izo_journal_data_synced(j, end, recno);
	mutex_lock(&j->lock);
}

/* Make the KML durable, then say so in the LML; its space is free from then on. */
static int flush_once(struct izo_journal *j)
{
	u64 end = j->end, recno = j->recno, pos = j->appended, seq = j->appended_seq;
	int err = 0;

	if (pos == j->tail || izo_dead(j->sbi))
		return 0;
	sync_data(j);
	mutex_unlock(&j->lock);
	if (end != j->durable_end)
		err = vfs_fsync(j->kml, 1);
	if (!err) {
		mutex_lock(&j->lock);
		j->durable_end = end;
		j->durable_recno = recno;
		j->durable_seq = seq;
		mutex_unlock(&j->lock);
		err = izo_lml_state_put(j, pos, 0);
	}
	if (!err)
		err = j->ops->flush(j, pos);
	mutex_lock(&j->lock);
	if (err)
		return err;
	j->tail = pos;
	izo_openw_recycle(j);
	return 0;
}

/* Called with the lock held, gives it up meanwhile. */
static int flush(struct izo_journal *j)
{
	int err;

	while (j->flushing)
		wait_space(j);
	j->flushing = true;
	j->flush_now = false;
	err = flush_once(j);
	trace_izo_lml_flush(j, j->tail, j->head, j->durable_recno, err);
	izo_debug(IZO_D_JOURNAL, "%s: the log is durable up to record %llu, error %d\n",
		  j->sbi->params.fileset, j->durable_recno, err);
	if (err && !j->flush_error)
		pr_err_ratelimited("%s: the kml cannot be written out: error %d; trying again\n",
				   j->sbi->params.fileset, err);
	j->flush_error = err;
	j->flushing = false;
	wake_up_all(&j->space);
	return err;
}

static bool sync_due(const struct izo_journal *j)
{
	return j->sync_wanted != j->sync_done;
}

/* One sync serves all who came before it began.  The lock is given up meanwhile. */
static void sync_lml(struct izo_journal *j)
{
	const u64 wanted = j->sync_wanted, tail = j->tail;
	int err;

	mutex_unlock(&j->lock);
	err = izo_dead(j->sbi) ? -EIO : j->ops->flush(j, tail);
	mutex_lock(&j->lock);
	j->sync_done = wanted;
	j->sync_error = err;
	wake_up_all(&j->space);
}

/* Sleep until there is something to flush and it is time to. */
static void flusher_wait(struct izo_journal *j)
{
	long left = FLUSH_SEC * HZ;

	while (!kthread_should_stop() && j->appended == j->tail && !sync_due(j))
		izo_wait(j, &j->flush, TASK_IDLE, MAX_SCHEDULE_TIMEOUT);
	while (!kthread_should_stop() && !j->flush_now && !sync_due(j) && left)
		left = izo_wait(j, &j->flush, TASK_IDLE, left);
}

static int flusher(void *arg)
{
	struct izo_journal *j = arg;

	mutex_lock(&j->lock);
	while (!kthread_should_stop()) {
		flusher_wait(j);
		if (sync_due(j))
			sync_lml(j);
		else if (flush(j) != 0)
			nap(j, RETRY_MSEC);
	}
	mutex_unlock(&j->lock);
	return 0;
}

/* Waiting for them */

void izo_journal_data_synced(struct izo_journal *j, u64 offset, u64 recno)
{
	mutex_lock(&j->lock);
	if (offset > j->data_end) {
		j->data_end = offset;
		j->data_recno = recno;
		j->data_synced = jiffies;
	}
	mutex_unlock(&j->lock);
}

/* Who waits sees an error that does not go away. */
void izo_journal_die(struct izo_journal *j)
{
	mutex_lock(&j->lock);
	WRITE_ONCE(j->sbi->dead, true);
	j->error = -EIO;
	wake_up_all(&j->space);
	mutex_unlock(&j->lock);
}

void izo_journal_drain(struct izo_journal *j)
{
	u64 head;

	mutex_lock(&j->lock);
	head = j->head;
	j->drainers++;
	wake_up(&j->work);
	while (j->appended < head && !j->error)
		wait_space(j);
	j->drainers--;
	mutex_unlock(&j->lock);
}

void izo_journal_drain_logged(struct izo_journal *j)
{
	bool all;

	mutex_lock(&j->lock);
	all = j->appended_seq > j->logged_seq;
	mutex_unlock(&j->lock);
	if (!all)
		izo_journal_drain(j);
}

int izo_journal_sync(struct izo_journal *j)
{
	return izo_dead(j->sbi) ? -EIO : j->ops->sync(j);
}

int izo_journal_flush_lml(struct izo_journal *j)
{
	u64 ticket;
	int err;

	mutex_lock(&j->lock);
	ticket = ++j->sync_wanted;
	wake_up(&j->flush);
	while (j->sync_done < ticket)
		wait_space(j);
	err = j->sync_error;
	mutex_unlock(&j->lock);
	return err;
}

/*
 * The flusher does it, whom no signal can interrupt; one flush serves all who
 * came before it began.
 */
int izo_journal_sync_kml(struct izo_journal *j)
{
	u64 seq;
	int err;

	izo_journal_drain(j);
	mutex_lock(&j->lock);
	seq = j->appended_seq;
	j->flush_error = 0;	/* a new try */
	while (j->durable_seq < seq && !izo_journal_error(j)) {
		izo_request_flush(j);
		wait_space(j);
	}
	err = izo_journal_error(j);
	mutex_unlock(&j->lock);
	return err;
}

void izo_journal_end(struct izo_journal *j, u64 *ret_offset, u64 *ret_recno)
{
	mutex_lock(&j->lock);
	*ret_offset = j->end;
	*ret_recno = j->recno;
	mutex_unlock(&j->lock);
}

static bool is_file(const struct file *f, const struct inode *inode)
{
	return f && file_inode(f) == izo_lower_inode(inode);
}

bool izo_is_log(const struct inode *inode)
{
	const struct izo_journal *j = izo_sb(inode->i_sb)->journal;

	return izo_i(inode)->meta &&
	       (is_file(j->kml, inode) || is_file(j->lml, inode) || is_file(j->last_rcvd, inode));
}

/* Start and stop */

static int start_threads(struct izo_journal *j)
{
	struct task_struct *t;

	j->sbi->append_buf = kvmalloc(APPEND_MAX, GFP_KERNEL);
	if (!j->sbi->append_buf)
		return -ENOMEM;
	t = kthread_run(worker, j, "izo_kml/%s", j->sbi->params.fileset);
	if (IS_ERR(t))
		return PTR_ERR(t);
	j->worker = t;
	t = kthread_run(flusher, j, "izo_flush/%s", j->sbi->params.fileset);
	if (IS_ERR(t))
		return PTR_ERR(t);
	j->flusher = t;
	return 0;
}

static int open_last_rcvd(struct izo_journal *j)
{
	struct dentry *d = izo_meta_lookup(j->sbi->meta, "last_rcvd");
	struct file *f;

	if (PTR_ERR_OR_ZERO(d) == -ENOENT)
		d = izo_meta_make(j->sbi, j->sbi->meta, "last_rcvd", S_IFREG);
	if (IS_ERR(d))
		return PTR_ERR(d);
	f = izo_meta_open(j->sbi, d, O_RDWR);
	dput(d);
	if (IS_ERR(f))
		return PTR_ERR(f);
	j->last_rcvd = f;
	return 0;
}

int izo_journal_open(struct izo_sb *sbi, struct fs_context *fc)
{
	struct izo_journal *j = kzalloc(sizeof(*j), GFP_KERNEL);
	int err;

	if (!j)
		return -ENOMEM;
	sbi->journal = j;
	j->sbi = sbi;
	mutex_init(&j->lock);
	init_waitqueue_head(&j->work);
	init_waitqueue_head(&j->flush);
	init_waitqueue_head(&j->space);
	err = izo_kml_open(j, fc);
	if (!err)
		err = open_last_rcvd(j);
	if (!err)
		err = izo_lml_open(j, fc);
	if (err)
		return err;
	err = izo_changing_open(j, fc);
	if (err)
		return err;
	err = izo_recover(j);
	if (err) {
		errorfc(fc, "its log cannot be recovered: error %d", err);
		return err;
	}
	err = izo_openw_init(j);
	if (!err)
		err = start_threads(j);
	return err ?: izo_changing_start(j);
}

/* Nothing is in flight any more: leave a clean, durable log. */
static void stop_threads(struct izo_journal *j)
{
	int err;

	izo_journal_drain(j);
	err = izo_changing_stop(j);
	if (j->worker)
		kthread_stop(j->worker);
	if (!j->flusher)
		return;
	kthread_stop(j->flusher);
	if (izo_dead(j->sbi)) {
		/* as it was in memory then */
		(void)j->ops->flush(j, j->tail);
		return;
	}
	mutex_lock(&j->lock);
	if (flush(j) == 0 && !err && j->tail == j->head && j->n_free + j->n_closed == j->n_openw) {
		mutex_unlock(&j->lock);
		if (!izo_lml_state_put(j, j->tail, LML_S_CLEAN))
			(void)j->ops->flush(j, j->tail);
	} else {
		mutex_unlock(&j->lock);
	}
}

/* Also one that was opened only half. */
void izo_journal_close(struct izo_sb *sbi)
{
	struct izo_journal *j = sbi->journal;

	if (!j)
		return;
	stop_threads(j);
	izo_openw_exit(j);
	izo_changing_close(j);
	izo_lml_close(j);
	if (j->last_rcvd)
		fput(j->last_rcvd);
	if (j->kml)
		fput(j->kml);
	kvfree(sbi->append_buf);
	sbi->journal = NULL;
	kfree(j);
}
