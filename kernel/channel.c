// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The channel to intersync (doc/channel.md): /dev/intermezzoN, a message per
 * read() and write().  A request is done within the write() that brings it; its
 * answer waits in a queue for a read().
 *
 * The device can be held open longer than the file system is mounted: then it
 * answers as if the other side had gone.  Locks: busy (one request at a time, held
 * while it is done), then lock (the queue), a spinlock.
 */
#include "reint.h"
#include "izo_trace.h"

#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/poll.h>
#include <linux/sched/mm.h>
#include <linux/uaccess.h>

static_assert(sizeof(struct izo_msg) == 24);
static_assert(sizeof(struct izo_info) == 168);

#define ANSWERS_MAX	64		/* then it does not read them, and is not waited for */

struct answer {
	struct list_head	list;
	size_t			len;
	char			data[];
};

struct izo_channel {
	struct kref		ref;
	struct miscdevice	misc;
	unsigned int		minor;
	struct mutex		busy;		/* a request is being done */
	struct izo_sb		*sbi;		/* NULL: unmounted; under busy */
	spinlock_t		lock;
	wait_queue_head_t	wait;
	bool			open, dead;
	struct list_head	answers;
	unsigned int		n_answers;
	/* the GROWN request that waits, if one does */
	bool			grown_waits;
	u64			grown_id, grown_offset;
};

static DEFINE_MUTEX(minors_lock);
static DECLARE_BITMAP(minors, IZO_MINORS);

static void channel_free(struct kref *ref)
{
	struct izo_channel *c = container_of(ref, struct izo_channel, ref);

	kfree(c->misc.name);
	kfree(c);
}

/* Answers */

static struct answer *answer_new(const struct izo_msg *req, int error, const void *body, size_t len)
{
	struct answer *a = kvmalloc(struct_size(a, data, sizeof(struct izo_msg) + len), GFP_KERNEL);
	struct izo_msg msg = {
		.len = cpu_to_le32(sizeof(msg) + len),
		.type = req->type,
		.id = req->id,
		.error = cpu_to_le32(error),
	};

	if (!a)
		return NULL;
	a->len = sizeof(msg) + len;
	memcpy(a->data, &msg, sizeof(msg));
	if (len)
		memcpy(a->data + sizeof(msg), body, len);
	return a;
}

/* False: it does not read them. */
static bool answer_queue(struct izo_channel *c, struct answer *a)
{
	bool room;

	spin_lock(&c->lock);
	room = c->open && c->n_answers < ANSWERS_MAX;
	if (room) {
		list_add_tail(&a->list, &c->answers);
		c->n_answers++;
	}
	spin_unlock(&c->lock);
	if (room)
		wake_up(&c->wait);
	else
		kvfree(a);
	return room;
}

static int answer(struct izo_channel *c, const struct izo_msg *req, int error, const void *body,
		  size_t len)
{
	struct answer *a = answer_new(req, error, body, len);

	if (!a)
		return -ENOMEM;
	return answer_queue(c, a) ? 0 : -ENOBUFS;
}

static int answer_pos(struct izo_channel *c, const struct izo_msg *req, u64 offset, u64 recno)
{
	const struct izo_pos pos = { cpu_to_le64(offset), cpu_to_le64(recno) };

	return answer(c, req, 0, &pos, sizeof(pos));
}

static int answer_end(struct izo_channel *c, const struct izo_msg *req)
{
	u64 offset, recno;

	izo_journal_end(c->sbi->journal, &offset, &recno);
	return answer_pos(c, req, offset, recno);
}

/* Requests */

static int do_info(struct izo_channel *c, const struct izo_msg *req)
{
	const struct inode *root = d_inode(c->sbi->sb->s_root);
	const struct izo_journal *j = c->sbi->journal;
	struct izo_info info = {
		.version = cpu_to_le32(IZO_CHANNEL_VERSION),
		.epoch = cpu_to_le64(j->epoch),
		.first_offset = cpu_to_le64(j->first_offset),
		.root_ino = cpu_to_le64(root->i_ino),
		.root_gen = cpu_to_le32(root->i_generation),
		.minor = cpu_to_le32(c->minor),
	};
	u64 offset, recno;

	izo_journal_end(c->sbi->journal, &offset, &recno);
	info.end_offset = cpu_to_le64(offset);
	info.last_recno = cpu_to_le64(recno);
	memcpy(info.fileset_uuid, j->fileset_uuid, 16);
	memcpy(info.replica_uuid, j->replica_uuid, 16);
	strscpy(info.fileset, c->sbi->params.fileset, sizeof(info.fileset));
	strscpy(info.cache_type, c->sbi->lower_root->d_sb->s_type->name, sizeof(info.cache_type));
	return answer(c, req, 0, &info, sizeof(info));
}

/* The waiting GROWN, if the log ends behind what it asked for. */
static bool take_grown(struct izo_channel *c, u64 offset, struct izo_msg *ret_req)
{
	bool due;

	spin_lock(&c->lock);
	due = c->grown_waits && offset > c->grown_offset;
	if (due)
		c->grown_waits = false;
	*ret_req = (struct izo_msg) {
		.type = cpu_to_le16(IZO_MSG_GROWN),
		.id = cpu_to_le64(c->grown_id),
	};
	spin_unlock(&c->lock);
	return due;
}

/* Called by the journal's worker, with its lock held. */
void izo_channel_grown(struct izo_sb *sbi)
{
	struct izo_channel *c = READ_ONCE(sbi->channel);
	struct izo_msg req;
	unsigned int flags;

	if (!c || !take_grown(c, sbi->journal->end, &req))
		return;
	/* memory must not be had by writing to the file system whose log waits for us */
	flags = memalloc_nofs_save();
	(void)answer_pos(c, &req, sbi->journal->end, sbi->journal->recno);
	memalloc_nofs_restore(flags);
}

static int do_grown(struct izo_channel *c, const struct izo_msg *req, const struct izo_pos *pos)
{
	struct izo_msg old = { .type = cpu_to_le16(IZO_MSG_GROWN) };
	bool replaced;
	u64 offset, recno;

	spin_lock(&c->lock);
	replaced = c->grown_waits;
	old.id = cpu_to_le64(c->grown_id);
	c->grown_id = le64_to_cpu(req->id);
	c->grown_offset = le64_to_cpu(pos->offset);
	c->grown_waits = true;
	spin_unlock(&c->lock);
	if (replaced)
		(void)answer(c, &old, ECANCELED, NULL, 0);
	izo_journal_end(c->sbi->journal, &offset, &recno);
	if (take_grown(c, offset, &old))
		return answer_pos(c, &old, offset, recno);
	return 0;
}

static int do_sync(struct izo_channel *c, const struct izo_msg *req)
{
	struct super_block *sb = c->sbi->sb;
	int err = 0;

	flush_work(&c->sbi->close_work);
	izo_session_log_all(c->sbi, false);
	izo_journal_drain(c->sbi->journal);
	if (le16_to_cpu(req->flags) & IZO_MSG_F_DURABLE)
		err = sb->s_op->sync_fs(sb, 1);
	return err ? answer(c, req, -err, NULL, 0) : answer_end(c, req);
}

static int do_punch(struct izo_channel *c, const struct izo_msg *req, const struct izo_pos *pos)
{
	const u64 offset = le64_to_cpu(pos->offset), recno = le64_to_cpu(pos->recno);
	struct izo_journal *j = c->sbi->journal;
	u64 end, last;
	int err = 0;

	izo_journal_end(j, &end, &last);
	if (offset > end || recno > last)
		err = -EINVAL;
	if (!err)
		err = izo_journal_sync_kml(j);
	if (!err)
		err = izo_kml_punch(j, offset, recno);
	return err ? answer(c, req, -err, NULL, 0) : answer_end(c, req);
}

static int do_reint(struct izo_channel *c, const struct izo_msg *req, const void *body, size_t len)
{
	size_t reply_len;
	void *reply;
	int err;

	err = izo_reint_apply(c->sbi, body, len, &reply, &reply_len);
	if (err)
		return answer(c, req, -err, NULL, 0);
	err = answer(c, req, 0, reply, reply_len);
	kvfree(reply);
	return err;
}

static int dispatch(struct izo_channel *c, const struct izo_msg *req, const void *body, size_t len)
{
	switch (le16_to_cpu(req->type)) {
	case IZO_MSG_INFO:
		if (len == 0)
			return do_info(c, req);
		break;
	case IZO_MSG_GROWN:
		if (len == sizeof(struct izo_pos))
			return do_grown(c, req, body);
		break;
	case IZO_MSG_SYNC:
		if (len == 0)
			return do_sync(c, req);
		break;
	case IZO_MSG_PUNCH:
		if (len == sizeof(struct izo_pos))
			return do_punch(c, req, body);
		break;
	case IZO_MSG_REINT:
		return do_reint(c, req, body, len);
	default:
		return answer(c, req, EOPNOTSUPP, NULL, 0);
	}
	return answer(c, req, EINVAL, NULL, 0);
}

/* The file system stays mounted while a request is done; what the last user leaves is ours. */
static int serve(struct izo_channel *c, const struct izo_msg *req, const void *body, size_t len)
{
	struct super_block *sb;
	int err;

	err = mutex_lock_killable(&c->busy);
	if (err)
		return err;
	sb = c->sbi ? c->sbi->sb : NULL;
	if (!sb || !atomic_inc_not_zero(&sb->s_active)) {
		mutex_unlock(&c->busy);
		return -EPIPE;
	}
	err = dispatch(c, req, body, len);
	trace_izo_request(sb, le16_to_cpu(req->type), len, err);
	izo_debug(IZO_D_DOWNCALL, "%s: request %u of %zu bytes, error %d\n",
		  c->sbi->params.fileset, le16_to_cpu(req->type), len, err);
	mutex_unlock(&c->busy);
	deactivate_super(sb);
	return err;
}

/* The device */

static struct izo_channel *channel_of(struct file *file)
{
	return file->private_data;
}

static ssize_t chan_write(struct kiocb *iocb, struct iov_iter *from)
{
	const size_t len = iov_iter_count(from);
	struct izo_msg req = { };
	char *buf;
	int err;

	if (len > IZO_MSG_MAX)
		return -EMSGSIZE;
	buf = kvmalloc(max(len, sizeof(req)), GFP_KERNEL);
	if (!buf)
		return -ENOMEM;
	err = -EFAULT;
	if (!copy_from_iter_full(buf, len, from))
		goto out;
	memcpy(&req, buf, min(len, sizeof(req)));
	if (len < sizeof(req) || le32_to_cpu(req.len) != len)
		err = answer(channel_of(iocb->ki_filp), &req, EINVAL, NULL, 0);
	else
		err = serve(channel_of(iocb->ki_filp), &req, buf + sizeof(req),
			    len - sizeof(req));
out:
	kvfree(buf);
	return err ?: len;
}

static struct answer *take_answer(struct izo_channel *c)
{
	struct answer *a;

	spin_lock(&c->lock);
	a = list_first_entry_or_null(&c->answers, struct answer, list);
	if (a) {
		list_del(&a->list);
		c->n_answers--;
	}
	spin_unlock(&c->lock);
	return a;
}

/* A whole message; what does not fit is lost, as with a datagram. */
static ssize_t chan_read(struct kiocb *iocb, struct iov_iter *to)
{
	struct izo_channel *c = channel_of(iocb->ki_filp);
	struct answer *a;
	ssize_t n;
	int err;

	while (!(a = take_answer(c))) {
		if (READ_ONCE(c->dead))
			return 0;
		if (iocb->ki_filp->f_flags & O_NONBLOCK || iocb->ki_flags & IOCB_NOWAIT)
			return -EAGAIN;
		err = wait_event_interruptible(c->wait, READ_ONCE(c->n_answers) ||
					       READ_ONCE(c->dead));
		if (err)
			return err;
	}
	n = copy_to_iter(a->data, a->len, to);
	if (n < a->len)
		n = iov_iter_count(to) ? -EFAULT : -EMSGSIZE;
	kvfree(a);
	return n;
}

static __poll_t chan_poll(struct file *file, poll_table *table)
{
	struct izo_channel *c = channel_of(file);
	__poll_t mask = EPOLLOUT | EPOLLWRNORM;

	poll_wait(file, &c->wait, table);
	if (READ_ONCE(c->n_answers))
		mask |= EPOLLIN | EPOLLRDNORM;
	if (READ_ONCE(c->dead))
		mask |= EPOLLIN | EPOLLRDNORM | EPOLLHUP;
	return mask;
}

/* One daemon at a time. */
static int chan_open(struct inode *inode, struct file *file)
{
	struct izo_channel *c = container_of(file->private_data, struct izo_channel, misc);
	int err = 0;

	/* the misc device keeps it as long as its list is locked, which it is */
	spin_lock(&c->lock);
	if (c->open || c->dead)
		err = c->dead ? -ENODEV : -EBUSY;
	else
		c->open = true;
	spin_unlock(&c->lock);
	if (err)
		return err;
	izo_debug(IZO_D_PSDEV, "%s is opened by %s[%d]\n", c->misc.name, current->comm,
		  task_tgid_nr(current));
	kref_get(&c->ref);
	file->private_data = c;
	return stream_open(inode, file);
}

/* It loses nothing: what it has not read it will ask for again. */
static int chan_release(struct inode *inode, struct file *file)
{
	struct izo_channel *c = channel_of(file);
	struct answer *a;

	spin_lock(&c->lock);
	c->open = false;
	c->grown_waits = false;
	spin_unlock(&c->lock);
	while ((a = take_answer(c)))
		kvfree(a);
	izo_debug(IZO_D_PSDEV, "%s is closed\n", c->misc.name);
	kref_put(&c->ref, channel_free);
	return 0;
}

static const struct file_operations chan_fops = {
	.owner		= THIS_MODULE,
	.open		= chan_open,
	.release	= chan_release,
	.read_iter	= chan_read,
	.write_iter	= chan_write,
	.poll		= chan_poll,
};

/* With the mount */

static int take_minor(int wanted)
{
	int minor = wanted;

	mutex_lock(&minors_lock);
	if (minor < 0)
		minor = find_first_zero_bit(minors, IZO_MINORS);
	if (minor >= IZO_MINORS || test_bit(minor, minors))
		minor = -EBUSY;
	else
		set_bit(minor, minors);
	mutex_unlock(&minors_lock);
	return minor;
}

static void give_minor(unsigned int minor)
{
	mutex_lock(&minors_lock);
	clear_bit(minor, minors);
	mutex_unlock(&minors_lock);
}

static struct izo_channel *channel_new(struct izo_sb *sbi, unsigned int minor)
{
	struct izo_channel *c = kzalloc(sizeof(*c), GFP_KERNEL);

	if (!c)
		return NULL;
	kref_init(&c->ref);
	mutex_init(&c->busy);
	spin_lock_init(&c->lock);
	init_waitqueue_head(&c->wait);
	INIT_LIST_HEAD(&c->answers);
	c->sbi = sbi;
	c->minor = minor;
	c->misc.minor = MISC_DYNAMIC_MINOR;
	c->misc.mode = 0600;
	c->misc.fops = &chan_fops;
	c->misc.name = kasprintf(GFP_KERNEL, "intermezzo%u", minor);
	if (!c->misc.name) {
		kfree(c);
		return NULL;
	}
	return c;
}

int izo_channel_open(struct izo_sb *sbi, struct fs_context *fc)
{
	int minor = take_minor(sbi->params.minor), err;
	struct izo_channel *c;

	if (minor < 0) {
		errorfc(fc, "channel %d: in use by another mounted fileset", sbi->params.minor);
		return minor;
	}
	c = channel_new(sbi, minor);
	err = c ? misc_register(&c->misc) : -ENOMEM;
	if (err) {
		if (c)
			kref_put(&c->ref, channel_free);
		give_minor(minor);
		return err;
	}
	snprintf(sbi->channel_path, sizeof(sbi->channel_path), "/dev/%s", c->misc.name);
	WRITE_ONCE(sbi->channel, c);
	return izo_sysctl_open(sbi, c->misc.name);
}

/* Waits for the request that is being done. */
void izo_channel_close(struct izo_sb *sbi)
{
	struct izo_channel *c = sbi->channel;

	izo_sysctl_close(sbi);
	misc_deregister(&c->misc);
	mutex_lock(&c->busy);
	c->sbi = NULL;
	mutex_unlock(&c->busy);
	spin_lock(&c->lock);
	WRITE_ONCE(c->dead, true);
	spin_unlock(&c->lock);
	wake_up_all(&c->wait);
	/* the journal's worker has it until it is stopped */
	mutex_lock(&sbi->journal->lock);
	WRITE_ONCE(sbi->channel, NULL);
	mutex_unlock(&sbi->journal->lock);
	give_minor(c->minor);
	kref_put(&c->ref, channel_free);
}
