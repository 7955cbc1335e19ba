// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Recovery at mount: what the LML holds becomes records of the KML (doc/lml.md).
 *
 * Completed records that the KML does not have yet are appended.  For an
 * operation that was in flight the lower file system is asked whether it happened;
 * if it did, its record is made from the intent and what is there now.  What a peer's
 * record was in the middle of is undone or done again.  A file that was open for write
 * gets its CLOSE.  All of it can be interrupted and begun again: records carry the
 * LML's sequence numbers, and the LML is emptied last.
 *
 * Whatever the LML holds is checked before it is believed.
 */
#include "recover.h"
#include "changing.h"
#include "izo_trace.h"

#include <linux/exportfs.h>
#include <linux/mm.h>
#include <linux/sizes.h>
#include <linux/sort.h>

#define IZO_FILEID_XFS64	0x81	/* XFS's: a number of 64 bits, and the generation */

/* After a crash sequence numbers go on far behind those that may be around. */
#define SEQ_JUMP	SZ_1M

/* Objects that get a record of their own in the end */

void izo_recover_note(struct recovery *rec, const struct kml_oid *oid)
{
	struct kml_oid *more, *last = rec->objects + rec->n_objects - 1;
	size_t max;

	if (!oid->ino)
		return;
	if (rec->n_objects && last->ino == oid->ino && last->gen == oid->gen)
		return;
	if (rec->n_objects == rec->max_objects) {
		max = 2 * rec->max_objects + 256;
		more = kvmalloc_array(max, sizeof(*more), GFP_KERNEL);
		if (!more) {
			rec->no_memory = true;
			return;
		}
		memcpy(more, rec->objects, rec->n_objects * sizeof(*more));
		kvfree(rec->objects);
		rec->objects = more;
		rec->max_objects = max;
	}
	rec->objects[rec->n_objects++] = *oid;
}

static int by_number(const void *a, const void *b)
{
	const struct kml_oid *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return x->gen < y->gen ? -1 : x->gen > y->gen;
}

int izo_recover_each(struct recovery *rec,
		     int (*fn)(struct recovery *rec, const struct kml_oid *oid))
{
	int err = rec->no_memory ? -ENOMEM : 0;
	size_t k;

	sort(rec->objects, rec->n_objects, sizeof(*rec->objects), by_number, NULL);
	for (k = 0; k < rec->n_objects && !err; k++)
		if (!k || by_number(&rec->objects[k], &rec->objects[k - 1]) != 0)
			err = fn(rec, &rec->objects[k]);
	return err;
}

/*
 * Content that was closed, but may not have been on disk (see sync_data()): what is
 * there now is logged once more.
 */
static void note_closed(const struct kml_record *r, void *data)
{
	/* the number may be another object's by now */
	if (r->opcode == KML_CLOSE)
		izo_recover_note(data, &r->obj);
}

static void note_nothing(const struct kml_record *r, void *data)
{
}

int izo_recover_append(struct recovery *rec, struct kml_record *r, u64 seq)
{
	struct izo_journal *j = rec->j;
	ssize_t n;
	int err;

	r->recno = j->recno + 1;
	r->seq = seq;
	r->file.ptr = NULL;
	r->data.ptr = NULL;
	r->aliases_len = 0;
	n = kml_encode(rec->buf, KML_REC_MAX, r);
	if (n < 0)
		return n;
	err = izo_pwrite(j->kml, rec->buf, n, j->end);
	if (err)
		return err;
	j->end += n;
	j->recno++;
	j->recovered.records++;
	return 0;
}

/* Where things are */

static bool is_object(const struct dentry *d, const struct kml_oid *oid)
{
	return d_is_positive(d) && d_inode(d)->i_ino == oid->ino &&
	       d_inode(d)->i_generation == oid->gen;
}

struct dentry *izo_recover_object(struct recovery *rec, const struct lml_handle *h,
				  const struct kml_oid *oid)
{
	struct izo_sb *sbi = rec->j->sbi;
	struct dentry *d;
	u32 fid[sizeof(h->bytes) / 4];

	if (!oid->ino || !h->len || h->len > sizeof(h->bytes))
		return NULL;
	memcpy(fid, h->bytes, sizeof(fid));
	rec->j->recovered.looked++;
	d = izo_decode_handle(sbi, fid, h->len / 4, h->type);
	if (IS_ERR_OR_NULL(d))
		return NULL;
	if (is_object(d, oid))
		return d;
	dput(d);
	return NULL;
}

/* An entry that was in flight. */
struct flight {
	struct recovery		*rec;
	struct lml_entry	*e;
	struct kml_record	r;
	u32			flags;		/* LML_F_* */
	struct dentry		*dir, *tdir;	/* NULL: not there */
	struct dentry		*obj;
};

static struct dentry *name_in(struct recovery *rec, struct dentry *dir, const struct kml_str *name)
{
	struct qstr q = QSTR_INIT(name->ptr, name->len);
	struct dentry *d;

	if (!dir || !name->ptr)
		return NULL;
	rec->j->recovered.looked++;
	d = lookup_noperm_unlocked(&q, dir);
	if (IS_ERR(d))
		return NULL;
	if (d_is_positive(d))
		return d;
	dput(d);
	return NULL;
}

static void flight_get(struct flight *f)
{
	const struct kml_record *r = &f->r;

	f->dir = izo_recover_object(f->rec, &f->e->handles[0], &r->parent);
	f->tdir = izo_recover_object(f->rec, &f->e->handles[1], &r->tparent);
	f->obj = izo_recover_object(f->rec, &f->e->handles[2], &r->obj);
	if (f->obj || !r->obj.ino)
		return;
	f->obj = name_in(f->rec, f->dir, &r->name);
	if (f->obj && !is_object(f->obj, &r->obj)) {
		dput(f->obj);
		f->obj = NULL;
	}
}

static void flight_put(struct flight *f)
{
	dput(f->dir);
	dput(f->tdir);
	dput(f->obj);
}

static bool name_is(struct recovery *rec, struct dentry *dir, const struct kml_str *name,
		    const struct kml_oid *oid)
{
	struct dentry *d = name_in(rec, dir, name);
	bool is = d && is_object(d, oid);

	dput(d);
	return is;
}

static void put_attr(struct kml_record *r, const struct dentry *d)
{
	const u32 valid = r->attr.valid;

	r->has_attr = true;
	izo_attr_of(&r->attr, d_inode(d));
	r->attr.valid = valid;
}

static void put_ptime(struct flight *f)
{
	struct timespec64 mtime;

	if (!f->dir)
		return;
	mtime = inode_get_mtime(d_inode(f->dir));
	f->r.has_ptime = true;
	izo_time_of(&f->r.ptime, &mtime);
	if (!f->tdir)
		return;
	mtime = inode_get_mtime(d_inode(f->tdir));
	izo_time_of(&f->r.tptime, &mtime);
}

static int log_flight(struct flight *f)
{
	if (f->flags & LML_F_NOLOG)
		return 0;
	f->r.flags |= KML_F_RECOVERED;
	return izo_recover_append(f->rec, &f->r, le64_to_cpu(f->e->seq));
}

/* Each operation: 0 or -errno */

/* Made no earlier than the intent?  (A second of grace: clocks have ticks.) */
static bool is_young(struct flight *f, struct dentry *d)
{
	const struct path path = { .mnt = f->rec->j->sbi->lower_mnt, .dentry = d };
	struct kstat st;
	s64 made;

	if (vfs_getattr_nosec(&path, &st, STATX_BTIME | STATX_CTIME, 0))
		return false;
	made = st.result_mask & STATX_BTIME ? st.btime.tv_sec : st.ctime.tv_sec;
	return made + 1 >= f->r.time.sec;
}

static int log_created(struct flight *f, struct dentry *d)
{
	void *items = NULL;
	int err;

	f->r.obj.ino = d_inode(d)->i_ino;
	f->r.obj.gen = d_inode(d)->i_generation;
	put_attr(&f->r, d);
	put_ptime(f);
	if (!f->r.xattrs && izo_acl_items(d_inode(d), &items, &f->r.xattrs_len) == 0)
		f->r.xattrs = items;
	err = log_flight(f);
	kvfree(items);
	return err;
}

/* REINT found the name absent, so it goes again (intermezzo-fuse makes objects in place). */
static int undo_create(struct flight *f)
{
	struct qstr q = QSTR_INIT(f->r.name.ptr, f->r.name.len);
	struct vfsmount *mnt = f->rec->j->sbi->lower_mnt;
	struct dentry *d;
	int err;

	err = mnt_want_write(mnt);
	if (err)
		return err;
	d = start_removing_noperm(f->dir, &q);
	err = PTR_ERR_OR_ZERO(d);
	if (!err) {
		if (d_is_dir(d))
			err = izo_vfs_rmdir(d_inode(f->dir), d);
		else
			err = vfs_unlink(&nop_mnt_idmap, d_inode(f->dir), d, NULL);
		end_removing(d);
	}
	mnt_drop_write(mnt);
	return err == -ENOENT ? 0 : err;
}

static int recover_create(struct flight *f)
{
	struct dentry *d = name_in(f->rec, f->dir, &f->r.name);
	int err = 0;

	if (!d)
		return 0;
	/* a peer's object got its name by one rename, or may be half made */
	if (f->flags & LML_F_REINT && !f->r.obj.ino)
		err = undo_create(f);
	else if (f->r.obj.ino ? is_object(d, &f->r.obj) : is_young(f, d))
		err = log_created(f, d);
	dput(d);
	return err;
}

static int recover_remove(struct flight *f)
{
	if (!f->dir || name_is(f->rec, f->dir, &f->r.name, &f->r.obj))
		return 0;
	put_ptime(f);
	return log_flight(f);
}

static int recover_move(struct flight *f)
{
	struct dentry *d;

	if (!name_is(f->rec, f->tdir, &f->r.tname, &f->r.obj))
		return 0;
	d = name_in(f->rec, f->tdir, &f->r.tname);
	if (d)
		put_attr(&f->r, d);
	dput(d);
	put_ptime(f);
	return log_flight(f);
}

/* A peer's attributes are set again. */
static void redo_attr(struct flight *f)
{
	(void)izo_lower_setattr(f->rec->j->sbi, f->obj, &f->r.attr,
				f->r.attr.valid & ~KML_A_SIZE);
}

static int recover_attr(struct flight *f)
{
	if (!f->obj)
		return 0;
	if (f->flags & LML_F_REINT)
		redo_attr(f);
	put_attr(&f->r, f->obj);
	return log_flight(f);
}

/*
 * The value that is there now; none: it was removed.  What was to be set and is not there
 * never was (removing asks for it before the intent).
 */
static int log_xattr(struct flight *f, const char *name, void *buf)
{
	ssize_t n = izo_lower_getxattr(f->obj, name, buf + KML_REC_MAX, KML_REC_MAX);

	if (n < 0 && f->r.opcode == KML_SETXATTR)
		return 0;
	f->r.opcode = n < 0 ? KML_REMOVEXATTR : KML_SETXATTR;
	n = kml_xattr_put(buf, KML_REC_MAX, name, strlen(name), buf + KML_REC_MAX,
			  n < 0 ? 0 : n);
	if (n < 0)
		return n;
	f->r.xattrs = buf;
	f->r.xattrs_len = n;
	put_attr(&f->r, f->obj);
	return log_flight(f);
}

static int recover_xattr(struct flight *f)
{
	struct kml_str name, value;
	char c[XATTR_NAME_MAX + 1];
	size_t pos = 0;
	void *buf;
	int err;

	if (!f->obj || !kml_xattr_next(f->r.xattrs, f->r.xattrs_len, &pos, &name, &value))
		return 0;
	memcpy(c, name.ptr, name.len);
	c[name.len] = 0;
	if (f->flags & LML_F_REINT)
		(void)izo_lower_setxattr(f->rec->j->sbi, f->obj, c,
					 f->r.opcode == KML_SETXATTR ? value.ptr ?: "" : NULL,
					 value.len);
	buf = kvmalloc(2 * KML_REC_MAX, GFP_KERNEL);
	if (!buf)
		return -ENOMEM;
	err = log_xattr(f, c, buf);
	kvfree(buf);
	return err;
}

/* Write a peer's patch again from its file; without the file it was over. */
static int redo_patch(struct flight *f)
{
	struct izo_sb *sbi = f->rec->j->sbi;
	struct dentry *incoming, *file = NULL;
	int err = 0;

	if (!f->r.file.ptr)
		return 0;
	incoming = izo_meta_lookup(sbi->meta, "incoming");
	if (IS_ERR(incoming))
		return 0;
	file = name_in(f->rec, incoming, &f->r.file);
	if (file)
		err = izo_patch(sbi, f->obj, file, &f->r, f->r.attr.size);
	if (file && !err)
		redo_attr(f);
	dput(file);
	dput(incoming);
	return err;
}

static int recover_close(struct flight *f)
{
	int err = 0;

	if (!f->obj || (f->r.flags & KML_F_REPLACED &&
			!name_is(f->rec, f->dir, &f->r.name, &f->r.obj)))
		return 0;
	if (f->r.aliases_len)
		err = izo_redo_aliases(f->rec->j->sbi, f->obj, &f->r);
	if (!err && f->flags & LML_F_REINT && !(f->r.flags & KML_F_REPLACED))
		err = redo_patch(f);
	put_attr(&f->r, f->obj);
	return err ?: log_flight(f);
}

static int recover_intent(struct flight *f)
{
	switch (f->r.opcode) {
	case KML_CREATE:
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

static int in_flight(struct recovery *rec, struct lml_entry *e, u32 len)
{
	const u32 intent = le32_to_cpu(e->intent_len);
	struct flight *f;
	int err = 0;

	if (intent > len - sizeof(*e) || le32_to_cpu(e->crc) != lml_entry_crc(e, intent))
		return 0;	/* not written: then nothing was done either */
	f = kzalloc(sizeof(*f), GFP_KERNEL);
	if (!f)
		return -ENOMEM;
	f->rec = rec;
	f->e = e;
	f->flags = le32_to_cpu(e->flags);
	if (kml_decode(izo_entry_intent(e), intent, &f->r) == intent) {
		flight_get(f);
		err = recover_intent(f);
		flight_put(f);
	}
	kfree(f);
	return err;
}

/* Its record, if record_len says that there is one; false: torn. */
static bool record_of(struct lml_entry *e, u32 len, struct kml_record *ret_r)
{
	const u32 intent = le32_to_cpu(e->intent_len), n = le32_to_cpu(e->record_len);

	return n == 0 || (intent <= len - sizeof(*e) && n <= len - sizeof(*e) - intent &&
			  kml_decode(izo_entry_intent(e) + intent, n, ret_r) == n);
}

static int completed(struct recovery *rec, struct lml_entry *e, u32 len)
{
	struct kml_record r;

	if (!record_of(e, len, &r))
		return in_flight(rec, e, len);	/* a torn page: as if it were in flight */
	if (!e->record_len)
		return 0;
	note_closed(&r, rec);
	return izo_recover_append(rec, &r, le64_to_cpu(e->seq));
}

/* The entry at pos if it is the one due: its length, else 0. */
static u32 entry_at(struct izo_journal *j, u64 pos, u64 seq)
{
	const struct lml_entry *e = izo_ring_entry(j, pos);
	const u32 len = le32_to_cpu(e->len);

	if (le32_to_cpu(e->magic) != LML_ENTRY_MAGIC || le64_to_cpu(e->seq) != seq ||
	    len % LML_ALIGN || len == 0 || len > izo_ring_rest(j, pos))
		return 0;
	return len;
}

static int replay_entry(struct recovery *rec, struct lml_entry *e, u32 len)
{
	switch (izo_entry_state(e)) {
	case LML_E_DONE:
		return completed(rec, e, len);
	case LML_E_INTENT:
		return in_flight(rec, e, len);
	default:
		return 0;
	}
}

/*
 * After the machine stopped the pages of a ring that is not in a journal are of
 * different ages: an entry that seems to be in flight may be done, and what depends on
 * it may follow.  So the log ends before the first one that is not finished; look.c
 * sees to all else.
 */
static bool ends_log(struct lml_entry *e, u32 len)
{
	struct kml_record r;

	switch (izo_entry_state(e)) {
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
static void redo_last(struct recovery *rec, struct lml_entry *e)
{
	if (!e || izo_entry_state(e) != LML_E_INTENT)
		return;
	e->flags |= cpu_to_le32(LML_F_NOLOG);
	(void)in_flight(rec, e, le32_to_cpu(e->len));
}

static int replay_ring(struct recovery *rec, u64 pos, u64 seq, u64 logged, bool stopped)
{
	struct izo_journal *j = rec->j;
	struct lml_entry *e, *last = NULL;
	const u64 start = pos;
	bool ended = false;
	u32 len;
	int err = 0;

	while (!err && pos - start < j->ring_size && (len = entry_at(j, pos, seq)) != 0) {
		e = izo_ring_entry(j, pos);
		j->recovered.entries++;
		ended |= stopped && seq > logged && ends_log(e, len);
		if (seq > logged && !ended)
			err = replay_entry(rec, e, len);
		if (le32_to_cpu(e->flags) & LML_F_REINT)
			last = e;
		pos += len;
		seq++;
	}
	if (!err && ended)
		redo_last(rec, last);
	j->head = pos;
	j->next_seq = seq;
	return err;
}

/* Files that were open for write */

static int close_record(struct recovery *rec, const struct lml_openw *o, u64 seq)
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
	struct timespec64 now;
	struct dentry *d;
	int err = 0;

	ktime_get_real_ts64(&now);
	izo_time_of(&r.time, &now);
	d = izo_recover_object(rec, &o->handle, &r.obj);
	if (!d && o->handle.len)
		return 0;
	if (!d) {
		/* there are no handles here: someone has to look */
		r.opcode = KML_RESYNC;
		return izo_recover_append(rec, &r, seq);
	}
	if (d_inode(d)->i_nlink) {
		put_attr(&r, d);
		r.attr.valid = KML_A_SIZE | KML_A_MTIME;
		err = izo_recover_append(rec, &r, seq);
	}
	dput(d);
	return err;
}

static int replay_openw(struct recovery *rec, u64 seen)
{
	struct izo_journal *j = rec->j;
	unsigned int k;
	int err = 0;

	for (k = 0; k < j->n_openw && !err; k++) {
		const struct lml_openw *o = &j->openw[k];
		const u32 state = le32_to_cpu(o->state);

		if (state == LML_O_OPEN ||
		    (state == LML_O_CLOSED && le64_to_cpu(o->close_seq) >= seen)) {
			j->recovered.slots++;
			err = close_record(rec, o, j->next_seq++);
		}
	}
	return err;
}

/* A handle made of that of the root and of number and generation. */
static bool make_handle(struct recovery *rec, const struct kml_oid *oid, struct lml_handle *h)
{
	struct super_block *lsb = rec->j->sbi->lower_root->d_sb;
	u32 fid[sizeof(h->bytes) / 4] = { };
	int words = ARRAY_SIZE(fid), type;

	if (!lsb->s_export_op || !lsb->s_export_op->fh_to_dentry)
		return false;
	type = izo_encode_inode_fh(d_inode(rec->j->sbi->lower_root), (struct fid *)fid, &words,
				   NULL);
	switch (type) {
	case FILEID_INO32_GEN:
		fid[0] = oid->ino;
		fid[1] = oid->gen;
		break;
	case FILEID_BTRFS_WITHOUT_PARENT:
		memcpy(&fid[0], &oid->ino, 8);
		fid[4] = oid->gen;
		break;
	case IZO_FILEID_XFS64:
		memcpy(&fid[0], &oid->ino, 8);
		fid[2] = oid->gen;
		break;
	default:
		return false;
	}
	h->type = type;
	h->len = words * 4;
	memcpy(h->bytes, fid, h->len);
	return true;
}

static int log_closed(struct recovery *rec, const struct kml_oid *oid)
{
	struct lml_openw o = {
		.ino = cpu_to_le64(oid->ino),
		.gen = cpu_to_le32(oid->gen),
	};

	rec->j->recovered.closed++;
	return make_handle(rec, oid, &o.handle) ? close_record(rec, &o, rec->j->next_seq++) : 0;
}

/* All of it */

static int find_end(struct recovery *rec, const struct lml_state *s, u64 *ret_logged, bool stopped)
{
	struct izo_journal *j = rec->j;
	const loff_t size = i_size_read(file_inode(j->kml));
	int err;

	err = izo_kml_find_end(j, s ? le64_to_cpu(s->kml_offset) : 0,
			       s ? le64_to_cpu(s->kml_recno) : 0, ret_logged,
			       stopped ? note_nothing : note_closed, rec);
	/* what is behind the last whole record was never complete */
	if (!err && size > j->end)
		err = vfs_truncate(&j->kml->f_path, j->end);
	j->allocated = j->end;
	return err;
}

/* Everything is in the KML: make it durable, then forget the LML. */
static int start_anew(struct izo_journal *j, bool clean)
{
	int err = vfs_fsync(j->kml, 1);

	if (err)
		return err;
	if (!clean) {
		memset(j->openw, 0, j->n_openw * sizeof(*j->openw));
		err = izo_lml_write(j, izo_image_offset(j, j->openw),
				    j->n_openw * sizeof(*j->openw));
		if (err)
			return err;
		j->next_seq += SEQ_JUMP;
	}
	j->tail = j->head;
	j->appended = j->head;
	j->appended_seq = j->next_seq;
	j->durable_seq = j->next_seq;
	j->durable_end = j->end;
	j->durable_recno = j->recno;
	j->data_end = j->end;
	j->data_recno = j->recno;
	j->data_synced = jiffies;
	err = izo_lml_state_put(j, j->tail, 0);
	if (!err)
		err = j->ops->flush(j, j->tail);
	/* last: until then it says that the ring cannot be trusted */
	return err ?: izo_changing_begin(j);
}

static int replay(struct recovery *rec, const struct lml_state *s, u64 logged, bool stopped)
{
	struct izo_journal *j = rec->j;
	int err;

	j->serial = le64_to_cpu(s->serial);
	if (le64_to_cpu(s->tail) % LML_ALIGN)
		return -EBADMSG;
	err = replay_ring(rec, le64_to_cpu(s->tail), le64_to_cpu(s->seq), logged, stopped);
	if (j->next_seq <= logged)
		j->next_seq = logged + 1;
	if (err)
		return err;
	if (stopped) {
		/* content that was closed is among what is looked at */
		rec->n_objects = 0;
		return izo_look_all(rec);
	}
	return replay_openw(rec, j->next_seq);
}

int izo_recover(struct izo_journal *j)
{
	struct recovery rec = { .j = j };
	struct lml_state s;
	const bool have = lml_state_get(j->header, &s);
	const bool clean = !have || le32_to_cpu(s.flags) & LML_S_CLEAN;
	const bool stopped = !clean && izo_changing_stopped(j);
	u64 logged = 0;
	int err;

	rec.buf = kvmalloc(KML_REC_MAX, GFP_KERNEL);
	if (!rec.buf)
		return -ENOMEM;
	err = find_end(&rec, have ? &s : NULL, &logged, stopped);
	if (!err && have)
		err = replay(&rec, &s, logged, stopped);
	if (!err && !clean && !stopped)
		err = izo_recover_each(&rec, log_closed);
	if (j->next_seq <= logged)
		j->next_seq = logged + 1;
	if (!err)
		err = start_anew(j, clean);
	kvfree(rec.objects);
	kvfree(rec.buf);
	trace_izo_recover(j, err);
	if (!err && !clean)
		pr_info("%s: recovered from %llu entries and %llu open files: %llu lookups, %llu records; the log ends at record %llu\n",
			j->sbi->params.fileset, j->recovered.entries, j->recovered.slots,
			j->recovered.looked, j->recovered.records, j->recno);
	return err;
}
