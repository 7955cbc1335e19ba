// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * REINT: batches, guards and results.  Called by the channel, one batch at a time.
 */
#include "reint.h"

#include <linux/cred.h>
#include <linux/mm.h>

#include <intermezzo/last_rcvd.h>

#include "../lib/crc32c.h"
#include "../lib/reint_msg.h"

static_assert(sizeof(struct last_rcvd_slot) == 64);

/* Places */

static bool first_is(const struct kml_str *path, const char *name)
{
	const size_t n = strlen(name);

	return path->len > n && memcmp(path->ptr + 1, name, n) == 0 &&
	       (path->len == n + 1 || path->ptr[n + 1] == '/');
}

static struct dentry *step(struct dentry *dir, const char *name, size_t len)
{
	struct qstr q = QSTR_INIT(name, len);
	struct dentry *d;
	int err;

	if (len > NAME_MAX || (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'))))
		return ERR_PTR(-ENOENT);
	d = lookup_noperm_unlocked(&q, dir);
	if (IS_ERR(d))
		return d;
	if (d_is_dir(d))
		return d;
	err = d_is_negative(d) ? -ENOENT : -ENOTDIR;
	dput(d);
	return ERR_PTR(err);
}

struct dentry *izo_reint_walk(struct super_block *sb, const struct kml_str *path)
{
	struct dentry *dir = dget(sb->s_root), *next;
	const char *p = path->ptr, *end = p + path->len, *slash;

	if (first_is(path, IZO_META_DIR) || first_is(path, IZO_LOST_FOUND)) {
		dput(dir);
		return ERR_PTR(-ENOENT);
	}
	while (p < end) {
		if (*p == '/') {
			p++;
			continue;
		}
		slash = memchr(p, '/', end - p) ?: end;
		next = step(dir, p, slash - p);
		dput(dir);
		if (IS_ERR(next))
			return next;
		dir = next;
		p = slash;
	}
	return dir;
}

static struct dentry *enter(struct super_block *sb, const struct kml_str *path,
			    const struct kml_oid *want)
{
	struct dentry *dir = izo_reint_walk(sb, path);
	const struct inode *inode;

	if (IS_ERR(dir))
		return dir;
	inode = d_inode(dir);
	if (!want->ino || (inode->i_ino == want->ino &&
			   (!want->gen || inode->i_generation == want->gen)))
		return dir;
	dput(dir);
	return ERR_PTR(-ESTALE);
}

/* Guards */

static bool same_ctime(const struct izo_guard *g, const struct inode *lower)
{
	const struct timespec64 ctime = inode_get_ctime(lower);

	return ctime.tv_sec == (s64)le64_to_cpu(g->ctime_sec) &&
	       ctime.tv_nsec == le32_to_cpu(g->ctime_nsec);
}

static int guard_check(const struct izo_guard *g, const struct inode *inode)
{
	const u32 flags = le32_to_cpu(g->flags);

	if ((flags & IZO_G_ABSENT) && inode)
		return -ESTALE;
	if (!(flags & (IZO_G_INO | IZO_G_CTIME | IZO_G_NOWRITER)))
		return 0;
	if (!inode)
		return -ESTALE;
	if ((flags & IZO_G_INO) && (inode->i_ino != le64_to_cpu(g->ino) ||
				    inode->i_generation != le32_to_cpu(g->gen)))
		return -ESTALE;
	return (flags & IZO_G_CTIME) && !same_ctime(g, izo_lower_inode(inode)) ? -ESTALE : 0;
}

/* The object that is about to lose its name or its content keeps writers waiting. */
static int hold_writers(struct izo_reint_entry_run *e, const struct izo_guard *g,
			struct inode *inode)
{
	struct izo_inode *ii = izo_i(inode);
	int err = 0;

	mutex_lock(&ii->lock);
	if ((le32_to_cpu(g->flags) & IZO_G_NOWRITER) && (ii->writers || ii->maps))
		err = -ESTALE;
	else if (ii->busy == IZO_FREE)
		ii->busy = IZO_NO_WRITERS;
	mutex_unlock(&ii->lock);
	if (!err && !e->victim) {
		ihold(inode);
		e->victim = inode;
	}
	return err;
}

static void let_writers(struct izo_reint_entry_run *e)
{
	struct inode *inode = e->victim;

	if (!inode)
		return;
	mutex_lock(&izo_i(inode)->lock);
	izo_i(inode)->busy = IZO_FREE;
	mutex_unlock(&izo_i(inode)->lock);
	wake_up_var(&izo_i(inode)->busy);
	iput(inode);
	e->victim = NULL;
}

static bool no_writers(const struct izo_guard *g, const struct inode *inode)
{
	return !(le32_to_cpu(g->flags) & IZO_G_NOWRITER) ||
	       !(izo_i(inode)->writers || izo_i(inode)->maps);
}

int izo_reint_guards(struct izo_reint_entry_run *e)
{
	struct inode *inode = e->d ? d_inode(e->d) : NULL;
	struct inode *target = e->td ? d_inode(e->td) : NULL;
	int err;

	if (e->quiet || e->checked)
		return 0;
	err = guard_check(&e->guard, inode);
	if (!err && kml_has_target(e->r.opcode))
		err = guard_check(&e->tguard, target);
	if (err)
		return err;
	switch (e->r.opcode) {
	case KML_CLOSE:
	case KML_UNLINK:
		if (inode && !e->peek)
			return hold_writers(e, &e->guard, inode);
		break;
	case KML_RENAME:
		if (target && S_ISREG(target->i_mode) && !(e->r.flags & KML_F_EXCHANGE))
			err = hold_writers(e, &e->tguard, target);
		break;
	}
	if (!err && inode && !no_writers(&e->guard, inode))
		err = -ESTALE;
	return err;
}

/* Records and results */

void izo_reint_origin(struct izo_reint_entry_run *e, struct izo_op *op)
{
	const struct kml_record *from = &e->r;
	struct kml_record *to = &op->r;

	to->time = from->time;
	to->pid = from->pid;
	to->auid = from->auid;
	to->fsuid = from->fsuid;
	to->fsgid = from->fsgid;
	to->has_origin = from->has_origin;
	memcpy(to->origin_replica, from->origin_replica, sizeof(to->origin_replica));
	to->origin_recno = from->origin_recno;
	to->origin_obj = from->origin_obj;
	op->nolog = !e->run->log;
	op->reint_index = e->run->log ? e->index + 1 : 0;
}

static void set_mtime(struct izo_sb *sbi, struct inode *dir, const struct kml_time *t)
{
	const struct kml_attrs a = { .mtime = *t };

	(void)izo_lower_setattr(sbi, izo_lower_dentry(dir), &a, KML_A_MTIME);
	izo_copy_attr(dir);
}

void izo_reint_ptime(struct izo_reint_entry_run *e, struct izo_op *op, struct inode *dir,
		     struct inode *tdir)
{
	if (!e->r.has_ptime) {
		izo_op_ptime_now(op, dir, tdir);
		return;
	}
	op->r.has_ptime = true;
	op->r.ptime = e->r.ptime;
	op->r.tptime = e->r.tptime;
	if (e->r.opcode != KML_LINK && dir != tdir)
		set_mtime(e->run->sbi, dir, &e->r.ptime);
	if (tdir)
		set_mtime(e->run->sbi, tdir, &e->r.tptime);
}

void izo_reint_result_is(struct izo_reint_entry_run *e, struct inode *inode)
{
	const struct timespec64 ctime = inode_get_ctime(izo_lower_inode(inode));

	WRITE_ONCE(izo_i(inode)->ctime_seen, true);
	e->result->ino = cpu_to_le64(inode->i_ino);
	e->result->gen = cpu_to_le32(inode->i_generation);
	e->result->ctime_sec = cpu_to_le64(ctime.tv_sec);
	e->result->ctime_nsec = cpu_to_le32(ctime.tv_nsec);
}

static struct inode *what_is(struct dentry *parent, struct qstr *name)
{
	struct dentry *d;
	struct inode *inode;

	if (IS_ERR_OR_NULL(parent))
		return NULL;
	d = name->len ? lookup_noperm_unlocked(name, parent) : dget(parent);
	if (IS_ERR(d))
		return NULL;
	inode = d_inode(d);
	if (inode)
		ihold(inode);
	dput(d);
	return inode;
}

/* What is there now, for who was told ESTALE. */
static void result_of_names(struct izo_reint_entry_run *e)
{
	struct inode *inode = what_is(e->parent, &e->name);

	if (inode)
		izo_reint_result_is(e, inode);
	iput(inode);
	if (!kml_has_target(e->r.opcode))
		return;
	inode = what_is(e->tparent, &e->tname);
	if (inode) {
		e->result->tino = cpu_to_le64(inode->i_ino);
		e->result->tgen = cpu_to_le32(inode->i_generation);
	}
	iput(inode);
}

/* One entry */

static bool has_guard(const struct izo_guard *g)
{
	return le32_to_cpu(g->flags) & (IZO_G_INO | IZO_G_CTIME | IZO_G_NOWRITER);
}

static void set_name(struct qstr *q, const struct kml_str *s)
{
	*q = (struct qstr)QSTR_INIT(s->ptr, s->ptr ? s->len : 0);
}

static int enter_places(struct izo_reint_entry_run *e)
{
	struct super_block *sb = e->run->sbi->sb;

	e->parent = enter(sb, &e->r.dir, &e->r.parent);
	if (IS_ERR(e->parent))
		return PTR_ERR(e->parent);
	if (kml_has_target(e->r.opcode)) {
		e->tparent = enter(sb, &e->r.tdir, &e->r.tparent);
		if (IS_ERR(e->tparent))
			return PTR_ERR(e->tparent);
	}
	if (izo_name_protected(d_inode(e->parent), &e->name) ||
	    (e->tparent && izo_name_protected(d_inode(e->tparent), &e->tname)))
		return -ENOENT;
	return 0;
}

static int apply(struct izo_reint_entry_run *e)
{
	int err = enter_places(e);

	/* a directory that is not where the sender thinks: the tree is not as the guard says */
	if (err)
		return err == -ENOENT || err == -ENOTDIR ? -ESTALE : err;
	err = izo_reint_do(e);
	if (!err)
		izo_fault(e->run->sbi, "reint-mid");
	if (err == -ENOENT && (has_guard(&e->guard) || has_guard(&e->tguard)))
		err = -ESTALE;
	let_writers(e);
	if (err)
		result_of_names(e);
	return err;
}

static void leave(struct dentry *d)
{
	if (!IS_ERR(d))
		dput(d);
}

static int entry_run(struct izo_reint_run *run, struct izo_reint_entry_run *e, unsigned int index,
		     const struct izo_reint_entry *head, struct izo_reint_result *result)
{
	int err;

	e->run = run;
	e->index = index;
	e->flags = le32_to_cpu(head->flags);
	e->guard = head->guard;
	e->tguard = head->tguard;
	e->result = result;
	e->parent = NULL;
	e->tparent = NULL;
	set_name(&e->name, &e->r.name);
	set_name(&e->tname, &e->r.tname);
	err = apply(e);
	leave(e->parent);
	leave(e->tparent);
	result->error = cpu_to_le32(-err);
	if (!run->log && !err)
		result->recno = cpu_to_le64(e->seq);
	return err;
}

/* last_rcvd */

static u32 slot_crc(const struct last_rcvd_slot *slot)
{
	struct last_rcvd_slot copy = *slot;

	copy.crc = 0;
	return izo_crc32c(0, &copy, sizeof(copy));
}

static bool slot_used(const struct last_rcvd_slot *slot)
{
	return le32_to_cpu(slot->magic) == LAST_RCVD_MAGIC &&
	       le32_to_cpu(slot->crc) == slot_crc(slot);
}

/* The peer's slot, or the first that is not in use, maybe behind the end. */
static int find_slot(struct file *f, const u8 peer[16], u64 *ret_off)
{
	struct last_rcvd_slot slot;
	bool have_free = false;
	u64 off;
	int err;

	for (off = 0; !(err = izo_pread(f, &slot, sizeof(slot), off)); off += sizeof(slot)) {
		if (slot_used(&slot) && memcmp(slot.peer, peer, 16) == 0) {
			*ret_off = off;
			return 0;
		}
		if (!slot_used(&slot) && !have_free) {
			have_free = true;
			*ret_off = off;
		}
	}
	if (err != -ENODATA)
		return err;
	if (!have_free)
		*ret_off = off;
	return 0;
}

static void move_last_rcvd(struct izo_sb *sbi, const struct izo_reint *head, u64 local_recno)
{
	struct last_rcvd_slot slot = {
		.magic = cpu_to_le32(LAST_RCVD_MAGIC),
		.remote_recno = head->remote_recno,
		.remote_offset = head->remote_offset,
		.local_recno = cpu_to_le64(local_recno),
		.time_sec = cpu_to_le64(ktime_get_real_seconds()),
	};
	u64 off = 0;
	int err;

	if (!head->remote_recno)
		return;
	memcpy(slot.peer, head->peer, sizeof(slot.peer));
	slot.crc = cpu_to_le32(slot_crc(&slot));
	err = find_slot(sbi->journal->last_rcvd, head->peer, &off);
	if (!err)
		err = izo_pwrite(sbi->journal->last_rcvd, &slot, sizeof(slot), off);
	if (err)
		pr_err_ratelimited("%s: last_rcvd cannot be written: error %d\n",
				   sbi->params.fileset, err);
}

/* The batch */

static bool ends_batch(int err)
{
	return err == -ENOSPC || err == -EDQUOT || err == -EIO;
}

/*
 * Numbers of the records, once the worker has given them; and who reads the log finds
 * everything that came before what was not logged.
 */
static u64 collect_recnos(struct izo_reint_run *run, struct izo_reint_result *results, u32 count)
{
	u64 last = 0;
	u32 n;

	izo_journal_drain_logged(run->sbi->journal);
	for (n = 0; n < count && run->log; n++) {
		results[n].recno = cpu_to_le64(run->recnos[n]);
		if (run->recnos[n])
			last = run->recnos[n];
	}
	return last;
}

/* True if last_rcvd may move. */
static bool apply_all(struct izo_reint_run *run, struct izo_reint_entry_run *e, const void *body,
		      size_t len, struct izo_reint_result *results)
{
	struct izo_reint_entry head;
	size_t pos = sizeof(struct izo_reint);
	bool stop = false, settled = true;
	unsigned int n;
	int err;

	for (n = 0;; n++) {
		memset(e, 0, sizeof(*e));
		if (reint_entry_next(body, len, &pos, &head, &e->r) <= 0)
			break;
		if (stop) {
			results[n].error = cpu_to_le32(ECANCELED);
			continue;
		}
		err = entry_run(run, e, n, &head, &results[n]);
		stop = ends_batch(err);
		settled &= !err || err == -ESTALE;
		cond_resched();
	}
	return settled;
}

static struct dentry *find_dir(struct dentry *parent, const char *name)
{
	struct qstr q = QSTR_INIT(name, strlen(name));
	struct dentry *d = lookup_noperm_unlocked(&q, parent);

	dput(parent);
	if (!IS_ERR(d) && !d_is_dir(d)) {
		dput(d);
		return ERR_PTR(-ENOENT);
	}
	return d;
}

static struct dentry *find_incoming(struct izo_sb *sbi)
{
	struct dentry *d = find_dir(dget(sbi->sb->s_root), IZO_META_DIR);

	if (!IS_ERR(d))
		d = find_dir(d, sbi->params.fileset);
	return IS_ERR(d) ? d : find_dir(d, "incoming");
}

/* As root, whoever the daemon runs as; writes to the file system are on. */
static bool run_batch(struct izo_reint_run *run, struct izo_reint_entry_run *e, const void *body,
		      size_t len, struct izo_reint_result *results)
{
	struct izo_sb *sbi = run->sbi;
	const struct cred *old = override_creds(sbi->creds);
	bool settled;

	sb_start_write(sbi->sb);
	sbi->journal->reint_recnos = run->log ? run->recnos : NULL;
	sbi->reint = e;
	WRITE_ONCE(sbi->reint_task, current);
	settled = apply_all(run, e, body, len, results);
	WRITE_ONCE(sbi->reint_task, NULL);
	sbi->reint = NULL;
	sb_end_write(sbi->sb);
	revert_creds(old);
	return settled;
}

static int apply_batch(struct izo_reint_run *run, struct izo_reint_entry_run *e,
		       const struct izo_reint *head, const void *body, size_t len,
		       struct izo_pos *pos)
{
	struct izo_reint_result *results = (struct izo_reint_result *)(pos + 1);
	u64 offset, recno;
	bool settled;

	run->incoming = find_incoming(run->sbi);
	if (IS_ERR(run->incoming))
		return PTR_ERR(run->incoming);
	settled = run_batch(run, e, body, len, results);
	recno = collect_recnos(run, results, le32_to_cpu(head->count));
	run->sbi->journal->reint_recnos = NULL;
	/* it must not look as if a change whose record is lost had been taken in */
	if (izo_fault(run->sbi, "last-rcvd") || izo_dead(run->sbi))
		settled = false;
	if (settled)
		move_last_rcvd(run->sbi, head, recno);
	dput(run->incoming);
	if (izo_dead(run->sbi))
		return -EIO;
	izo_journal_end(run->sbi->journal, &offset, &recno);
	pos->offset = cpu_to_le64(offset);
	pos->recno = cpu_to_le64(recno);
	return 0;
}

int izo_reint_apply(struct izo_sb *sbi, const void *body, size_t len, void **ret_reply,
		    size_t *ret_len)
{
	struct izo_reint_entry_run *e = kzalloc(sizeof(*e), GFP_KERNEL);
	struct izo_reint_run run = { .sbi = sbi };
	struct izo_pos *pos = NULL;
	struct izo_reint head;
	size_t count, size;
	int err;

	if (!e)
		return -ENOMEM;
	err = reint_parse(body, len, &head, &e->r);
	if (err)
		goto out;
	count = le32_to_cpu(head.count);
	size = sizeof(*pos) + count * sizeof(struct izo_reint_result);
	run.log = le32_to_cpu(head.flags) & IZO_REINT_F_LOG;
	pos = kvzalloc(size, GFP_KERNEL);
	run.recnos = kvcalloc(count + 1, sizeof(*run.recnos), GFP_KERNEL);
	err = pos && run.recnos ? apply_batch(&run, e, &head, body, len, pos) : -ENOMEM;
	if (!err) {
		*ret_reply = pos;
		*ret_len = size;
		pos = NULL;
	}
out:
	kvfree(pos);
	kvfree(run.recnos);
	kfree(e);
	return err;
}
