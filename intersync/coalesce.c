// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Dropping what later records supersede.  The rules:
 *
 * - an object's content moves once, at its last CLOSE; with its CREATE if that is here
 * - its CREATE, CLOSEs and SETATTRs that follow each other become one record, so
 *   that content and the permissions for it come together: content is
 *   never visible with the mode of another moment
 * - what is made and removed in the run was never there
 * - names: everything else keeps its order
 *
 * A CLOSE moves to the place of a later CLOSE or SETATTR, never before an earlier
 * record of the object; names in a CLOSE are informational, so that moving it
 * past a RENAME does no harm.
 */
#include "coalesce.h"

#include <string.h>
#include <sys/stat.h>

#define NONE	G_MAXUINT

/* What the run has said of one object so far. */
typedef struct {
	guint		create;		/* op that made it, or NONE */
	guint		content;	/* op that carries its content, or NONE */
	guint		last;		/* last op about it, or NONE */
	gboolean	pinned;		/* linked or renamed: removing a name does not cancel it */
	GArray		*all;		/* ops about it, or that name it as replaced */
} Track;

typedef struct {
	const struct kml_record *recs;
	IsdOps		*out;
	GHashTable	*tracks;	/* struct kml_oid -> Track; two numbers can have the same */
} Coalesce;

/* --- spans --- */

void isd_spans_add(GArray **spans, guint64 off, guint64 end)
{
	GArray *a = *spans ? *spans : (*spans = g_array_new(FALSE, FALSE, sizeof(IsdSpan)));
	IsdSpan s = { off, end };
	guint i, j;

	if (off >= end)
		return;
	for (i = 0; i < a->len && g_array_index(a, IsdSpan, i).end < off; i++)
		;
	for (j = i; j < a->len && g_array_index(a, IsdSpan, j).off <= end; j++) {
		const IsdSpan *old = &g_array_index(a, IsdSpan, j);

		s.off = MIN(s.off, old->off);
		s.end = MAX(s.end, old->end);
	}
	if (j > i)
		g_array_remove_range(a, i, j - i);
	g_array_insert_val(a, i, s);
}

static void take_content(IsdOp *op, const struct kml_record *r)
{
	guint64 size = r->has_attr ? r->attr.size : 0;

	op->min_size = MIN(op->content ? op->min_size : G_MAXUINT64, size);
	if (r->has_old)
		op->min_size = MIN(op->min_size, r->old_attr.size);
	op->content = TRUE;
	op->content_recno = r->recno;
	if ((r->flags & KML_F_RANGES_ALL) || r->opcode == KML_RESYNC || !r->has_attr)
		op->whole = TRUE;
	for (guint i = 0; i < r->n_ranges && r->has_ranges; i++) {
		uint64_t off, len;

		kml_range_get(r, i, &off, &len);
		isd_spans_add(&op->spans, off, off + len);
	}
	if (op->spans && op->spans->len > ISD_SPANS_MAX)
		op->whole = TRUE;
}

/* The content of an earlier op becomes part of a later one. */
static void inherit_content(IsdOp *op, const IsdOp *from)
{
	if (!from->content)
		return;
	op->min_size = op->content ? MIN(op->min_size, from->min_size) : from->min_size;
	op->whole |= from->whole;
	if (!op->content)
		op->content_recno = from->content_recno;
	op->content = TRUE;
	for (guint i = 0; from->spans && i < from->spans->len; i++) {
		const IsdSpan *s = &g_array_index(from->spans, IsdSpan, i);

		isd_spans_add(&op->spans, s->off, s->end);
	}
}

/* --- objects --- */

static guint oid_hash(gconstpointer p)
{
	const struct kml_oid *o = p;

	return (guint)o->ino * 31 + o->gen + (guint)(o->ino >> 32);
}

static gboolean oid_equal(gconstpointer a, gconstpointer b)
{
	const struct kml_oid *x = a, *y = b;

	return x->ino == y->ino && x->gen == y->gen;
}

static void track_free(gpointer p)
{
	Track *t = p;

	g_array_unref(t->all);
	g_free(t);
}

static Track *track_find(Coalesce *c, struct kml_oid oid)
{
	return g_hash_table_lookup(c->tracks, &oid);
}

static void track_set(Coalesce *c, struct kml_oid oid, Track *t)
{
	g_hash_table_replace(c->tracks, g_memdup2(&oid, sizeof(oid)), t);
}

static Track *track_get(Coalesce *c, struct kml_oid oid)
{
	Track *t = track_find(c, oid);

	if (t)
		return t;
	t = g_new0(Track, 1);
	t->create = t->content = t->last = NONE;
	t->all = g_array_new(FALSE, FALSE, sizeof(guint));
	track_set(c, oid, t);
	return t;
}

static void track_forget(Coalesce *c, struct kml_oid oid)
{
	g_hash_table_remove(c->tracks, &oid);
}

static IsdOp *op_at(Coalesce *c, guint i)
{
	return &g_array_index(c->out->ops, IsdOp, i);
}

static void own(Coalesce *c, guint rec, guint op)
{
	g_array_index(c->out->owner, guint, rec) = op;
}

static guint add(Coalesce *c, Track *t, guint rec)
{
	IsdOp op = { .r = c->recs[rec] };
	guint i = c->out->ops->len;

	g_array_append_val(c->out->ops, op);
	own(c, rec, i);
	if (t) {
		g_array_append_val(t->all, i);
		t->last = i;
	}
	return i;
}

/* All records of op `from` are `to`'s now; records before `upto`. */
static void hand_over(Coalesce *c, guint from, guint to, guint upto)
{
	op_at(c, from)->dropped = TRUE;
	for (guint i = 0; i < upto; i++)
		if (g_array_index(c->out->owner, guint, i) == from)
			own(c, i, to);
}

static void merge_attrs(struct kml_attrs *to, const struct kml_attrs *from, guint32 bits)
{
	if (bits & KML_A_MODE)
		to->mode = from->mode;
	if (bits & KML_A_UID)
		to->uid = from->uid;
	if (bits & KML_A_GID)
		to->gid = from->gid;
	if (bits & KML_A_MTIME)
		to->mtime = from->mtime;
	if (bits & KML_A_SIZE)
		to->size = from->size;
	to->ctime = from->ctime;
	if (to->valid)
		to->valid |= bits;
}

static guint32 bits_of(const struct kml_record *r)
{
	guint32 all = KML_A_MODE | KML_A_UID | KML_A_GID | KML_A_MTIME;

	if (r->opcode == KML_CLOSE)
		all = KML_A_MTIME | KML_A_SIZE;
	if (!r->has_attr)
		return 0;
	return r->attr.valid ? r->attr.valid | (r->opcode == KML_CLOSE ? all : 0) : all;
}

static gboolean is(Coalesce *c, guint i, unsigned int opcode)
{
	return i != NONE && op_at(c, i)->r.opcode == opcode && !op_at(c, i)->dropped;
}

/* --- the records --- */

static void on_make(Coalesce *c, guint rec)
{
	const struct kml_record *r = &c->recs[rec];
	Track *t;

	track_forget(c, r->obj);
	t = track_get(c, r->obj);
	t->create = add(c, t, rec);
	if (r->opcode != KML_CREATE || !r->has_attr || !r->attr.size)
		return;
	/* made with content: linked O_TMPFILE, or it came to the server like that */
	take_content(op_at(c, t->create), r);
	op_at(c, t->create)->whole = TRUE;
	t->content = t->create;
}

/* In the track's ops behind op `behind` the object is called `to` instead of `from`. */
static void renumber(Coalesce *c, const Track *t, guint behind, struct kml_oid from,
		     struct kml_oid to)
{
	for (guint i = t->all->len; i > 0 && g_array_index(t->all, guint, i - 1) > behind; i--) {
		struct kml_record *r = &op_at(c, g_array_index(t->all, guint, i - 1))->r;

		if (oid_equal(&r->obj, &from))
			r->obj = to;
		if (r->has_old && oid_equal(&r->old, &from))
			r->old = to;
	}
}

/* What the object's SETATTRs behind its CREATE set is as this later record has it. */
static void later_attrs(Coalesce *c, const Track *t, const struct kml_record *r)
{
	for (guint i = 0; i < t->all->len; i++) {
		struct kml_record *at = &op_at(c, g_array_index(t->all, guint, i))->r;

		if (at->opcode == KML_SETATTR)
			merge_attrs(&at->attr, &r->attr, bits_of(r) & at->attr.valid);
	}
}

/* A CREATE that is here takes content and attributes over. */
static void into_create(Coalesce *c, Track *t, guint rec)
{
	const struct kml_record *r = &c->recs[rec];
	IsdOp *op = op_at(c, t->create);
	struct kml_oid was = op->r.obj;

	own(c, rec, t->create);
	take_content(op, r);
	op->whole = TRUE;
	/* it is made under its last number: so it is called in what was between */
	op->r.obj = r->obj;
	renumber(c, t, t->create, was, r->obj);
	merge_attrs(&op->r.attr, &r->attr, bits_of(r));
	later_attrs(c, t, r);
	t->content = t->create;
}

static Track *track_of_close(Coalesce *c, const struct kml_record *r)
{
	gpointer key, t;

	if (!(r->flags & KML_F_REPLACED) || !r->has_old)
		return track_get(c, r->obj);
	/* a new inode: the object goes on under another number */
	track_get(c, r->old);
	g_hash_table_steal_extended(c->tracks, &r->old, &key, &t);
	g_free(key);
	track_set(c, r->obj, t);
	return t;
}

/*
 * Op i replaces the content of t's op before: what replaced the inode on the way is all
 * one, and in between it is still called as it was before.
 */
static void take_number(Coalesce *c, const Track *t, guint i)
{
	const struct kml_record *first = &op_at(c, t->content)->r;
	struct kml_record *r = &op_at(c, i)->r;

	if (!(first->flags & KML_F_REPLACED) || !first->has_old)
		return;
	r->old = first->old;
	r->has_old = true;
	r->flags |= KML_F_REPLACED;
	renumber(c, t, t->content, first->obj, first->old);
	if (oid_equal(&r->obj, &first->old))
		r->obj = first->obj;	/* this one kept the inode */
}

static void on_close(Coalesce *c, guint rec)
{
	const struct kml_record *r = &c->recs[rec];
	Track *t = track_of_close(c, r);
	guint before = is(c, t->last, KML_SETATTR) ? t->last : NONE;
	guint i;

	if (t->create != NONE) {
		into_create(c, t, rec);
		return;
	}
	i = add(c, t, rec);
	take_content(op_at(c, i), r);
	if (op_at(c, i)->r.attr.valid)
		op_at(c, i)->r.attr.valid |= bits_of(r);
	else
		op_at(c, i)->r.attr.valid = bits_of(r);
	if (before != NONE) {
		op_at(c, i)->r.attr.valid |= bits_of(&op_at(c, before)->r) & ~KML_A_MTIME;
		hand_over(c, before, i, rec);
	}
	if (t->content != NONE) {
		inherit_content(op_at(c, i), op_at(c, t->content));
		op_at(c, i)->r.attr.valid |= op_at(c, t->content)->r.attr.valid;
		hand_over(c, t->content, i, rec);
		take_number(c, t, i);
	}
	t->content = i;
}

static void on_setattr(Coalesce *c, guint rec)
{
	const struct kml_record *r = &c->recs[rec];
	Track *t = track_get(c, r->obj);
	gboolean dir = r->has_attr && S_ISDIR(r->attr.mode);
	guint into = NONE, before = t->last;
	guint i;

	if (!dir && (t->last == t->create || is(c, t->last, KML_CLOSE)))
		into = t->last;
	if (into != NONE && r->has_attr) {
		own(c, rec, into);
		merge_attrs(&op_at(c, into)->r.attr, &r->attr, bits_of(r) & ~KML_A_SIZE);
		return;
	}
	i = add(c, t, rec);
	op_at(c, i)->r.attr.valid = bits_of(r);
	if (is(c, before, KML_SETATTR)) {
		op_at(c, i)->r.attr.valid |= bits_of(&op_at(c, before)->r);
		hand_over(c, before, i, rec);
	}
}

/* The same xattr again: only the last value counts. */
static gboolean same_xattr(const struct kml_record *a, const struct kml_record *b)
{
	struct kml_str na, nb, v;
	size_t pa = 0, pb = 0;

	return kml_xattr_next(a->xattrs, a->xattrs_len, &pa, &na, &v) && pa == a->xattrs_len &&
	       kml_xattr_next(b->xattrs, b->xattrs_len, &pb, &nb, &v) && pb == b->xattrs_len &&
	       na.len == nb.len && !memcmp(na.ptr, nb.ptr, na.len);
}

static void on_xattr(Coalesce *c, guint rec)
{
	const struct kml_record *r = &c->recs[rec];
	Track *t = track_get(c, r->obj);
	guint before = t->last;
	guint i = add(c, t, rec);

	if ((is(c, before, KML_SETXATTR) || is(c, before, KML_REMOVEXATTR)) &&
	    same_xattr(&op_at(c, before)->r, r))
		hand_over(c, before, i, rec);
}

/* Does anything that is left name this directory? */
static gboolean is_used(Coalesce *c, struct kml_oid dir, const Track *t)
{
	for (guint i = t->create + 1; i < c->out->ops->len; i++) {
		const IsdOp *op = op_at(c, i);

		if (!op->dropped && (oid_equal(&op->r.parent, &dir) ||
				     oid_equal(&op->r.tparent, &dir)) &&
		    !oid_equal(&op->r.obj, &dir))
			return TRUE;
	}
	return FALSE;
}

/* Nothing is left of the names, but their directory has another mtime since. */
static void keep_dir_mtime(Coalesce *c, guint rec)
{
	const struct kml_record *r = &c->recs[rec];
	Track *t = track_get(c, r->parent);
	guint before = t->last;
	guint i = add(c, t, rec);
	struct kml_record *m = &op_at(c, i)->r;

	*m = (struct kml_record) {
		.opcode = KML_SETATTR, .recno = r->recno, .time = r->time, .pid = r->pid,
		.auid = r->auid, .fsuid = r->fsuid, .fsgid = r->fsgid, .obj = r->parent,
		.has_attr = true, .attr = { .mode = S_IFDIR },
	};
	if (is(c, before, KML_SETATTR)) {
		m->attr = op_at(c, before)->r.attr;
		hand_over(c, before, i, rec);
	}
	m->attr.valid |= KML_A_MTIME;
	m->attr.mtime = r->ptime;
}

static void on_remove(Coalesce *c, guint rec)
{
	const struct kml_record *r = &c->recs[rec];
	Track *t = track_get(c, r->obj);

	if (t->create == NONE || t->pinned || (r->opcode == KML_RMDIR && is_used(c, r->obj, t))) {
		add(c, t, rec);
		if (r->opcode == KML_RMDIR)
			track_forget(c, r->obj);
		return;
	}
	for (guint i = 0; i < t->all->len; i++)
		hand_over(c, g_array_index(t->all, guint, i), NONE, rec);
	track_forget(c, r->obj);
	if (r->has_ptime && r->parent.ino)
		keep_dir_mtime(c, rec);
	else
		own(c, rec, NONE);
}

static void on_name(Coalesce *c, guint rec)
{
	const struct kml_record *r = &c->recs[rec];
	Track *t = track_get(c, r->obj);
	guint at;

	t->pinned = TRUE;
	at = add(c, t, rec);
	if (r->has_old) {
		t = track_get(c, r->old);
		t->pinned = TRUE;
		g_array_append_val(t->all, at);
	}
}

static void on_barrier(Coalesce *c, guint rec)
{
	const struct kml_record *r = &c->recs[rec];

	op_at(c, add(c, NULL, rec))->barrier = TRUE;
	track_forget(c, r->obj);
	if (r->has_old)
		track_forget(c, r->old);
}

static void on_record(Coalesce *c, guint rec)
{
	switch (c->recs[rec].opcode) {
	case KML_CREATE:
	case KML_MKDIR:
	case KML_SYMLINK:
	case KML_MKNOD:
		on_make(c, rec);
		break;
	case KML_CLOSE:
	case KML_RESYNC:
		on_close(c, rec);
		break;
	case KML_SETATTR:
		on_setattr(c, rec);
		break;
	case KML_SETXATTR:
	case KML_REMOVEXATTR:
		on_xattr(c, rec);
		break;
	case KML_UNLINK:
	case KML_RMDIR:
		on_remove(c, rec);
		break;
	case KML_RENAME:
	case KML_LINK:
		on_name(c, rec);
		break;
	default:
		own(c, rec, NONE);	/* of a later version: skipped, as the format says */
	}
}

static void op_clear(gpointer p)
{
	IsdOp *op = p;

	g_clear_pointer(&op->spans, g_array_unref);
}

IsdOps *isd_coalesce(const struct kml_record *recs, guint n, IsdIsBarrier barrier, gpointer data)
{
	Coalesce c = { .recs = recs };

	c.out = g_new0(IsdOps, 1);
	c.out->ops = g_array_new(FALSE, FALSE, sizeof(IsdOp));
	g_array_set_clear_func(c.out->ops, op_clear);
	c.out->owner = g_array_sized_new(FALSE, FALSE, sizeof(guint), n);
	g_array_set_size(c.out->owner, n);
	c.tracks = g_hash_table_new_full(oid_hash, oid_equal, g_free, track_free);
	for (guint i = 0; i < n; i++) {
		if (barrier && barrier(&recs[i], data))
			on_barrier(&c, i);
		else
			on_record(&c, i);
	}
	g_hash_table_unref(c.tracks);
	return c.out;
}

void isd_ops_free(IsdOps *ops)
{
	if (!ops)
		return;
	g_array_unref(ops->ops);
	g_array_unref(ops->owner);
	g_free(ops);
}
