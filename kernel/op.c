// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One operation and its record: who does what where, the intent in the LML
 * before, the completed record after.
 */
#include "changing.h"
#include "izo_trace.h"
#include "reint.h"

#include <linux/audit.h>
#include <linux/cred.h>
#include <linux/exportfs.h>
#include <linux/mm.h>

#define DIR_FIRST	sizeof_field(struct izo_op, dir_first)
#define DIR_ROOM	32768		/* longer paths are left out */

static struct kmem_cache *op_cachep;

int izo_op_cache_init(void)
{
	op_cachep = kmem_cache_create("izo_op", sizeof(struct izo_op), 0, 0, NULL);
	return op_cachep ? 0 : -ENOMEM;
}

void izo_op_cache_exit(void)
{
	kmem_cache_destroy(op_cachep);
}

/* What is known of things */

void izo_time_of(struct kml_time *t, const struct timespec64 *ts)
{
	t->sec = ts->tv_sec;
	t->nsec = ts->tv_nsec;
}

void izo_attr_of(struct kml_attrs *a, const struct inode *inode)
{
	const struct timespec64 mtime = inode_get_mtime(inode), ctime = inode_get_ctime(inode);

	*a = (struct kml_attrs) {
		.mode = inode->i_mode,
		.uid = from_kuid(&init_user_ns, inode->i_uid),
		.gid = from_kgid(&init_user_ns, inode->i_gid),
		.nlink = inode->i_nlink,
		.rdev_major = MAJOR(inode->i_rdev),
		.rdev_minor = MINOR(inode->i_rdev),
		.size = i_size_read(inode),
	};
	izo_time_of(&a->mtime, &mtime);
	izo_time_of(&a->ctime, &ctime);
}

static void set_oid(struct kml_oid *oid, const struct inode *inode)
{
	oid->ino = inode->i_ino;
	oid->gen = inode->i_generation;
}

void izo_handle_of(struct lml_handle *h, const struct inode *inode)
{
	struct inode *lower = inode ? izo_lower_inode(inode) : NULL;
	u32 fid[sizeof(h->bytes) / 4];
	int words = ARRAY_SIZE(fid), type;

	memset(h, 0, sizeof(*h));
	if (!lower || !lower->i_sb->s_export_op || !lower->i_sb->s_export_op->fh_to_dentry)
		return;
	type = izo_encode_inode_fh(lower, (struct fid *)fid, &words, NULL);
	if (type <= 0 || type >= FILEID_INVALID)
		return;
	h->len = words * 4;
	h->type = type;
	memcpy(h->bytes, fid, h->len);
}

/*
 * The path of a directory from the root; absent where it cannot be had.  first has
 * DIR_FIRST bytes, which do for most.
 */
static void set_dir(struct kml_str *s, char *first, char **buf, struct dentry *dir)
{
	size_t size = DIR_FIRST;
	char *p;

	if (!is_subdir(dir, dir->d_sb->s_root))
		return;
	p = dentry_path_raw(dir, first, size);
	while (IS_ERR(p)) {
		if (PTR_ERR(p) != -ENAMETOOLONG || size >= DIR_ROOM)
			return;
		size *= 8;
		kvfree(*buf);
		*buf = kvmalloc(size, GFP_KERNEL);
		if (!*buf)
			return;
		p = dentry_path_raw(dir, *buf, size);
	}
	s->ptr = p;
	s->len = strlen(p);
}

/* Beginning one */

static struct izo_op *op_new(struct super_block *sb, unsigned int opcode)
{
	struct izo_op *op = kmem_cache_alloc(op_cachep, GFP_KERNEL);
	struct izo_reint_entry_run *e;
	struct timespec64 now;

	if (!op)
		return ERR_PTR(-ENOMEM);
	memset(op, 0, offsetof(struct izo_op, dir_first));
	ktime_get_real_ts64(&now);
	op->j = izo_sb(sb)->journal;
	op->r.opcode = opcode;
	izo_time_of(&op->r.time, &now);
	op->r.pid = task_tgid_nr(current);
	op->r.auid = from_kuid(&init_user_ns, audit_get_loginuid(current));
	op->r.fsuid = from_kuid(&init_user_ns, current_fsuid());
	op->r.fsgid = from_kgid(&init_user_ns, current_fsgid());
	e = izo_reint(sb);
	if (e && e->quiet) {
		op->nolog = true;
	} else if (e) {
		op->reint = e;
		izo_reint_origin(e, op);
	}
	return op;
}

static void set_name(struct kml_str *s, const struct qstr *name)
{
	s->ptr = name->name;
	s->len = name->len;
}

struct izo_op *izo_op_name(struct inode *dir, unsigned int opcode, const struct dentry *dentry)
{
	struct izo_op *op = op_new(dir->i_sb, opcode);

	if (IS_ERR(op))
		return op;
	op->nolog |= izo_i(dir)->meta;
	op->parent = dir;
	set_oid(&op->r.parent, dir);
	set_name(&op->r.name, &dentry->d_name);
	if (!op->nolog)
		set_dir(&op->r.dir, op->dir_first, &op->dir_buf, dentry->d_parent);
	return op;
}

void izo_op_target(struct izo_op *op, struct inode *tdir, const struct dentry *dentry)
{
	op->tparent = tdir;
	set_oid(&op->r.tparent, tdir);
	set_name(&op->r.tname, &dentry->d_name);
	if (!op->nolog)
		set_dir(&op->r.tdir, op->tdir_first, &op->tdir_buf, dentry->d_parent);
}

void izo_op_object(struct izo_op *op, struct inode *inode)
{
	op->obj = inode;
	set_oid(&op->r.obj, inode);
	op->nolog |= izo_i(inode)->meta;
}

/* A name of inode that leads to it from the root, counted; or NULL. */
static struct dentry *any_name(struct inode *inode, struct dentry *dentry)
{
	struct dentry *d;

	if (dentry && !d_unhashed(dentry) && !IS_ROOT(dentry))
		return dget(dentry);
	d = d_find_alias(inode);
	if (d && IS_ROOT(d) && d != inode->i_sb->s_root) {
		dput(d);
		d = NULL;
	}
	return d;
}

/* The name may change at any time: taken as it is, with its directory. */
static void name_object(struct izo_op *op, struct dentry *d)
{
	struct dentry *parent;

	for (;;) {
		parent = dget_parent(d);
		take_dentry_name_snapshot(&op->snap, d);
		if (READ_ONCE(d->d_parent) == parent)
			break;
		release_dentry_name_snapshot(&op->snap);
		dput(parent);
	}
	op->has_snap = true;
	op->named_parent = parent;
	set_name(&op->r.name, &op->snap.name);
	set_oid(&op->r.parent, d_inode(parent));
	set_dir(&op->r.dir, op->dir_first, &op->dir_buf, parent);
}

struct izo_op *izo_op_inode(struct inode *inode, unsigned int opcode, struct dentry *dentry)
{
	struct izo_op *op = op_new(inode->i_sb, opcode);
	struct dentry *d;

	if (IS_ERR(op))
		return op;
	izo_op_object(op, inode);
	op->nolog |= !inode->i_nlink;
	if (op->nolog)
		return op;
	if (inode == d_inode(inode->i_sb->s_root)) {
		op->r.dir = (struct kml_str) { "/", 1 };
		return op;
	}
	d = any_name(inode, dentry);
	if (d)
		name_object(op, d);
	dput(d);
	return op;
}

void izo_op_free(struct izo_op *op)
{
	izo_changing_leave(op->j, op->round);
	if (op->has_snap)
		release_dentry_name_snapshot(&op->snap);
	dput(op->named_parent);
	kvfree(op->dir_buf);
	kvfree(op->tdir_buf);
	kvfree(op->items);
	kmem_cache_free(op_cachep, op);
}

/* Filling in */

void izo_op_attr(struct izo_op *op, const struct inode *inode, u32 valid)
{
	op->r.has_attr = true;
	izo_attr_of(&op->r.attr, izo_lower_inode(inode));
	op->r.attr.valid = valid;
}

void izo_op_old(struct izo_op *op, const struct inode *inode)
{
	op->r.has_old = true;
	set_oid(&op->r.old, inode);
	izo_attr_of(&op->r.old_attr, izo_lower_inode(inode));
}

void izo_op_ptime(struct izo_op *op, struct inode *dir, struct inode *tdir)
{
	if (op->reint)
		izo_reint_ptime(op->reint, op, dir, tdir);
	else
		izo_op_ptime_now(op, dir, tdir);
}

void izo_op_ptime_now(struct izo_op *op, struct inode *dir, struct inode *tdir)
{
	struct timespec64 mtime = inode_get_mtime(izo_lower_inode(dir));

	op->r.has_ptime = true;
	izo_time_of(&op->r.ptime, &mtime);
	if (!tdir)
		return;
	mtime = inode_get_mtime(izo_lower_inode(tdir));
	izo_time_of(&op->r.tptime, &mtime);
}

/* The ring */

/* What a record gains between intent and completion. */
size_t izo_growth(size_t extra)
{
	return 2 * sizeof(struct kml_item) + sizeof(struct kml_attr) + sizeof(struct kml_old) +
	       sizeof(struct kml_item) + sizeof(struct kml_ptime) + extra;
}

static bool frees_space(const struct izo_op *op)
{
	return op->r.opcode == KML_UNLINK || op->r.opcode == KML_RMDIR;
}

/*
 * Room for len bytes of the ring and a pad of less than that; not taken yet,
 * since that must happen inside a transaction and this may wait.
 */
static int promise(struct izo_op *op, u64 len, u64 kml_room)
{
	struct izo_journal *j = op->j;
	int err = 0;

	mutex_lock(&j->lock);
	if (izo_dead(j->sbi)) {
		err = -EIO;
		goto out;
	}
	while (j->head + j->promised + 2 * len - j->tail > j->ring_size) {
		if (izo_journal_error(j)) {
			err = -ENOSPC;
			goto out;
		}
		izo_request_flush(j);
		izo_wait(j, &j->space, TASK_UNINTERRUPTIBLE, MAX_SCHEDULE_TIMEOUT);
	}
	if (op->prepaid)
		j->reserved += kml_room;
	else
		err = izo_kml_reserve(j, kml_room, frees_space(op));
	if (err)
		goto out;
	j->promised += 2 * len;
	if (j->head + j->promised - j->tail > j->ring_size / 2)
		izo_request_flush(j);
out:
	mutex_unlock(&j->lock);
	return err;
}

static void unpromise(struct izo_op *op, u64 len, u64 kml_room)
{
	struct izo_journal *j = op->j;

	mutex_lock(&j->lock);
	j->promised -= 2 * len;
	izo_kml_unreserve(j, kml_room);
	wake_up_all(&j->space);
	mutex_unlock(&j->lock);
}

/* Its head; what it becomes is written in the same transaction. */
static struct lml_entry *ring_put(struct izo_journal *j, u64 len, u32 state)
{
	struct lml_entry *e = izo_ring_entry(j, j->head);

	memset(e, 0, sizeof(*e));
	e->magic = cpu_to_le32(LML_ENTRY_MAGIC);
	e->len = cpu_to_le32(len);
	e->seq = cpu_to_le64(j->next_seq);
	izo_entry_set_state(e, state);
	j->next_seq++;
	j->head += len;
	return e;
}

/* An entry never crosses the ring's end: another one fills it up. */
static void take(struct izo_op *op, struct izo_trans *t, u64 len, u64 kml_room)
{
	struct izo_journal *j = op->j;
	struct lml_entry *pad;
	u64 rest;

	mutex_lock(&j->lock);
	rest = izo_ring_rest(j, j->head);
	if (rest < len) {
		pad = ring_put(j, rest, LML_E_PAD);
		j->ops->write(j, t, izo_image_offset(j, pad), sizeof(*pad));
	}
	op->seq = j->next_seq;
	if (!op->nolog)
		j->logged_seq = op->seq;
	op->entry = ring_put(j, len, LML_E_RESERVED);
	op->entry->kml_room = cpu_to_le64(kml_room);
	j->promised -= 2 * len;
	mutex_unlock(&j->lock);
}

/* Multiples of LML_ALIGN: a pad's head fits into whatever is left of the ring. */
static u64 entry_len(size_t bytes)
{
	return round_up(sizeof(struct lml_entry) + bytes, LML_ALIGN);
}

static int put_intent(struct izo_op *op, struct izo_trans *t, size_t size)
{
	struct lml_entry *e = op->entry;
	ssize_t n;

	izo_handle_of(&e->handles[0], op->parent);
	izo_handle_of(&e->handles[1], op->tparent);
	izo_handle_of(&e->handles[2], op->obj);
	n = kml_encode(izo_entry_intent(e), size, &op->r);
	if (n < 0)
		return n == -EINVAL ? -EINVAL : -EIO;
	e->intent_len = cpu_to_le32(n);
	e->flags = cpu_to_le32((op->nolog ? LML_F_NOLOG : 0) | (op->redo ? LML_F_REINT : 0));
	e->reint = cpu_to_le32(op->reint_index);
	e->crc = cpu_to_le32(lml_entry_crc(e, n));
	izo_entry_set_state(e, LML_E_INTENT);
	op->j->ops->write(op->j, t, izo_image_offset(op->j, e), sizeof(*e) + n);
	return t->error;
}

static int begin(struct izo_op *op, u64 len, size_t intent)
{
	struct izo_trans t;
	int err;

	err = op->j->ops->start(op->j, 2 * len, &t);
	if (err) {
		unpromise(op, len, op->room);
		return err;
	}
	take(op, &t, len, op->room);
	err = izo_fault(op->j->sbi, "before-intent") ? -EIO : put_intent(op, &t, intent);
	if (err) {
		izo_entry_set_state(op->entry, LML_E_ABORTED);
		op->j->ops->write(op->j, &t, izo_image_offset(op->j, op->entry),
				  sizeof(*op->entry));
		wake_up(&op->j->work);
		op->entry = NULL;
	}
	op->j->ops->stop(op->j, &t);
	if (!err && izo_fault(op->j->sbi, "before-op"))
		err = -EIO;
	return err;
}

/* What has an entry by now comes before what begins now. */
static u64 last_seq(struct izo_journal *j)
{
	u64 seq;

	mutex_lock(&j->lock);
	seq = j->next_seq - 1;
	mutex_unlock(&j->lock);
	return seq;
}

static void tell(const struct izo_op *op, const char *what, int result)
{
	pr_info("%s: %s opcode %u of %.*s in directory %llu, object %llu, entry %llu: %d\n",
		op->j->sbi->params.fileset, what, op->r.opcode, (int)op->r.name.len,
		op->r.name.ptr ?: "", op->r.parent.ino, op->r.obj.ino, op->seq, result);
}

static int begin_logged(struct izo_op *op)
{
	size_t intent;
	u64 len;
	int err;

	intent = kml_encoded_size(&op->r);
	op->room = intent + izo_growth(op->extra);
	if (op->room > KML_REC_MAX)
		return -E2BIG;
	if (op->nolog)
		op->room = 0;
	len = entry_len(intent + op->room);
	err = izo_changing_op(op);
	if (!err)
		err = promise(op, len, op->room);
	if (!err)
		err = begin(op, len, intent);
	trace_izo_op_begin(op);
	if (unlikely(READ_ONCE(izo_trace_ops)))
		tell(op, "begin", err);
	return err;
}

/* On an error the operation must not be done; the caller frees op. */
int izo_op_begin(struct izo_op *op)
{
	int err = op->reint ? izo_reint_guards(op->reint) : 0;

	if (err)
		return err;
	if (!op->nolog || op->redo)
		err = begin_logged(op);
	else if (op->reint)
		op->seq = last_seq(op->j);
	if (op->reint)
		op->reint->seq = op->seq;
	return err;
}

/* The paths are for people; a record that is too long goes without. */
static ssize_t encode_smaller(void *buf, struct izo_op *op)
{
	op->r.dir.ptr = NULL;
	op->r.tdir.ptr = NULL;
	return kml_encode(buf, op->room, &op->r);
}

static size_t put_record(struct izo_op *op)
{
	char *buf = izo_entry_intent(op->entry) + le32_to_cpu(op->entry->intent_len);
	ssize_t n;

	n = kml_encode(buf, op->room, &op->r);
	if (n < 0)
		n = encode_smaller(buf, op);
	if (WARN_ONCE(n < 0, "intermezzo: a record could not be encoded: error %zd\n", n))
		return 0;
	return n;
}

/*
 * Let the worker have it, then put on disk what it is now.  Should that fail the tree
 * tells recovery what happened.  The entry may be another one's as soon as it is
 * finished: what is written then is written once more than needed.
 */
static void finish(struct izo_op *op, u32 state, size_t len)
{
	struct izo_journal *j = op->j;
	const size_t head = izo_image_offset(j, op->entry);
	size_t size = sizeof(*op->entry);
	struct izo_trans t;

	if (izo_dead(j->sbi))
		return;

	/* once for both, with the intent that is between them */
	if (len)
		size += le32_to_cpu(op->entry->intent_len) + len;
	op->entry->record_len = cpu_to_le32(len);
	izo_entry_set_state(op->entry, state);
	wake_up(&j->work);
	if (j->ops->start(j, size, &t))
		return;
	j->ops->write(j, &t, head, size);
	j->ops->stop(j, &t);
	if (state == LML_E_DONE)
		izo_fault(j->sbi, "after-record");
}

void izo_op_done(struct izo_op *op)
{
	if (op->entry) {
		trace_izo_op_done(op);
		if (unlikely(READ_ONCE(izo_trace_ops)))
			tell(op, "done", 0);
		izo_fault(op->j->sbi, "after-op");
		finish(op, LML_E_DONE, op->nolog ? 0 : put_record(op));
		izo_changing_made(op);
	}
	izo_op_free(op);
}

void izo_op_abort(struct izo_op *op)
{
	if (op->entry) {
		trace_izo_op_abort(op);
		if (unlikely(READ_ONCE(izo_trace_ops)))
			tell(op, "failed", 0);
		finish(op, LML_E_ABORTED, 0);
	}
	izo_op_free(op);
}
