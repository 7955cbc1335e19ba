// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * CLOSE of the server's log: which bytes to fetch, and new content for a file that is here, was
 * changed here as well, or was removed here.
 */
#include "apply_pull.h"
#include "conflict.h"

#include <errno.h>
#include <string.h>

#define PATCH_RANGES	KML_RANGES_MAX

/* --- content --- */

static gboolean want_exists(IsdPull *p, gint64 id, gboolean *ret, GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(p->c->state, error, &st,
			     "SELECT 1 FROM client_want WHERE id = ? LIMIT 1", "i", id);

	if (rc > 0)
		sqlite3_reset(st);
	*ret = rc > 0;
	return rc >= 0;
}

/* As many as one record can hold: neighbours become one. */
static void limit_ranges(GArray *a)
{
	while (a->len > PATCH_RANGES)
		for (guint i = 0; i + 1 < a->len; i++) {
			struct kml_range *x = &g_array_index(a, struct kml_range, i);
			const struct kml_range *y = x + 1;

			x->len = y->off + y->len - x->off;
			g_array_remove_index(a, i + 1);
		}
}

/* The bytes that differ from the version that is here; NULL: take all of it. */
static GArray *patch_ranges(IsdPull *p, const IsdOp *op, const IsdObject *o)
{
	const GArray *carry = g_hash_table_lookup(p->carry, &o->id);
	guint64 size = op->r.attr.size, base = MIN(o->attr.size, op->min_size), sum = 0;
	GArray *spans = NULL, *a = g_array_new(FALSE, FALSE, sizeof(struct kml_range));

	for (guint i = 0; op->spans && i < op->spans->len; i++)
		isd_spans_add(&spans, g_array_index(op->spans, IsdSpan, i).off,
			      g_array_index(op->spans, IsdSpan, i).end);
	for (guint i = 0; carry && i < carry->len; i++)
		isd_spans_add(&spans, g_array_index(carry, IsdSpan, i).off,
			      g_array_index(carry, IsdSpan, i).end);
	isd_spans_add(&spans, base, size);
	for (guint i = 0; i < spans->len; i++) {
		const IsdSpan *s = &g_array_index(spans, IsdSpan, i);
		struct kml_range x = { s->off, MIN(s->end, size) - s->off };

		if (s->off >= size)
			break;
		sum += x.len;
		g_array_append_val(a, x);
	}
	g_array_unref(spans);
	limit_ranges(a);
	if (sum <= size - size / 4)
		return a;
	g_array_unref(a);
	return NULL;
}

gboolean isd_pull_content(IsdPull *p, IsdOp *op, IsdContent **ret, GError **error)
{
	const struct kml_record *r = &op->r;
	g_auto(IsdObject) o = { 0 };
	gboolean found, wanted = FALSE;
	guint64 size = r->has_attr ? r->attr.size : 0;

	if (!isd_apply_find_object(p, r, &o, &found, error) ||
	    (found && !want_exists(p, o.id, &wanted, error)))
		return FALSE;
	if (r->opcode == KML_CREATE) {
		if (!found)
			*ret = isd_content_new(r->obj, op->content_recno, size);
		return TRUE;
	}
	/* not here (yet): want.c gets it; or it is here already */
	if (!found || !o.oid.ino || o.cver >= op->content_recno)
		return TRUE;
	*ret = isd_content_new(r->obj, op->content_recno, size);
	if (!op->whole && size > ISD_SMALL_MAX && o.cver && !isd_apply_pending_content(p, &o) &&
	    (!wanted || g_hash_table_contains(p->carry, &o.id)))
		(*ret)->ranges = patch_ranges(p, op, &o);
	return TRUE;
}

void isd_apply_set_content(struct kml_record *r, const IsdContent *t)
{
	if (!t || t->status)
		return;
	if (t->file)
		r->file = (struct kml_str) { t->file, strlen(t->file) };
	else
		r->data = (struct kml_str) { t->size ? (const char *)t->data : "", t->size };
}

/* --- CLOSE --- */

void isd_apply_take_attrs(IsdObject *o, const struct kml_attrs *a, guint32 valid)
{
	if (valid & KML_A_MODE)
		o->attr.mode = a->mode;
	if (valid & KML_A_UID)
		o->attr.uid = a->uid;
	if (valid & KML_A_GID)
		o->attr.gid = a->gid;
	if (valid & KML_A_MTIME)
		o->attr.mtime = a->mtime;
	if (valid & KML_A_SIZE)
		o->attr.size = a->size;
}

static void carry_spans(IsdPull *p, const IsdOp *op, const IsdObject *o)
{
	GArray *a = g_hash_table_lookup(p->carry, &o->id);
	gpointer key;

	if (op->whole) {
		g_hash_table_remove(p->carry, &o->id);
		return;
	}
	if (a)
		g_hash_table_steal_extended(p->carry, &o->id, &key, NULL);
	else
		key = g_memdup2(&o->id, sizeof(o->id));
	isd_spans_add(&a, MIN(op->min_size, o->attr.size), op->r.attr.size);
	for (guint i = 0; op->spans && i < op->spans->len; i++)
		isd_spans_add(&a, g_array_index(op->spans, IsdSpan, i).off,
			      g_array_index(op->spans, IsdSpan, i).end);
	g_hash_table_insert(p->carry, key, a);
}

/* Of the record that comes with content, what is not content. */
static gboolean all_but_content(IsdPull *p, IsdOp *op, IsdObject *o, guint tries, GError **error)
{
	guint32 valid = op->r.attr.valid & (KML_A_MODE | KML_A_UID | KML_A_GID);
	g_auto(IsdName) n = { 0 };
	g_auto(IsdPlace) at = { 0 };
	gboolean found;

	o->soid = op->r.obj;
	if (!isd_state_put_object(p->c->state, o, error) ||
	    !isd_state_a_name(p->c->state, o->id, &n, &found, error))
		return FALSE;
	if (!valid || !found)
		return TRUE;
	if (!isd_place_by_id(p->c, n.parent, &at, &found, error))
		return FALSE;
	return !found || isd_apply_queue_attrs(p, op, o, &at, n.name, valid, tries, error);
}

/* Not now: want.c brings it when it can be had and nobody writes here. */
static gboolean put_off(IsdPull *p, IsdOp *op, IsdObject *o, guint tries, GError **error)
{
	carry_spans(p, op, o);
	return isd_want_version(p->c, o->id, op->content_recno, &op->r.attr, error) &&
	       all_but_content(p, op, o, tries, error);
}

static gboolean closed(IsdClient *c, gpointer item, const struct izo_reint_result *res,
		       GError **error)
{
	IsdApply *it = item;
	const struct kml_record *r = &it->op->r;
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	if (res->error && it->tries && GUINT32_FROM_LE(res->error) == ESTALE) {
		/* not changed, and yet not free: somebody has it open for write */
		if (!isd_state_by_id(c->state, it->id, &o, &found, error))
			return FALSE;
		return !found || put_off(it->p, it->op, &o, it->tries, error);
	}
	if (res->error)
		return isd_apply_again(it, res, error);
	if (!isd_state_by_id(c->state, it->id, &o, &found, error))
		return FALSE;
	if (!found)
		return TRUE;
	if (!isd_oid_equal(o.oid, isd_result_oid(res)) &&
	    !isd_push_alias(c, o.oid, o.id, error))
		return FALSE;
	o.oid = isd_result_oid(res);
	if (!isd_apply_is_old_number(it->p, r->obj))
		o.soid = r->obj;
	isd_apply_take_attrs(&o, &r->attr, r->attr.valid | KML_A_SIZE | KML_A_MTIME);
	o.attr.ctime = isd_result_ctime(res);
	o.cver = it->op->content_recno;
	g_hash_table_remove(it->p->carry, &o.id);
	return isd_state_put_object(c->state, &o, error) && isd_want_drop(c, o.id, error);
}

/* The record as if it had written all that its op stands for; *ret_ranges is what it points to. */
static struct kml_record whole_record(const IsdOp *op, struct kml_range **ret_ranges)
{
	struct kml_record r = op->r;
	guint n = op->spans ? op->spans->len : 0;
	struct kml_range *x = *ret_ranges = g_new0(struct kml_range, n + 1);

	for (guint i = 0; i < n; i++) {
		const IsdSpan *s = &g_array_index(op->spans, IsdSpan, i);

		x[i] = (struct kml_range) { GUINT64_TO_LE(s->off), GUINT64_TO_LE(s->end - s->off) };
	}
	r.recno = op->content_recno;
	r.ranges = x;
	r.n_ranges = n;
	r.has_ranges = true;
	if (op->whole || op->min_size != r.attr.size)
		r.flags |= KML_F_RANGES_ALL;
	return r;
}

/* Both have changed it. */
static gboolean both_changed(IsdPull *p, IsdOp *op, IsdObject *o, const IsdName *n, GError **error)
{
	const IsdContent *t = g_hash_table_lookup(p->contents, op);
	g_auto(IsdObject) theirs = { 0 };
	g_autofree struct kml_range *ranges = NULL;
	struct kml_record whole = whole_record(op, &ranges);
	gint64 new_id;
	gboolean found, same = FALSE;

	if (t && !t->status && !t->ranges)
		same = t->file ? isd_local_same_file(p->c, n->parent, n->name, o->oid, t->file,
						     t->size) :
			isd_local_same_bytes(p->c, n->parent, n->name, o->oid, t->data, t->size);
	/* or it is what was changed here: seen before, whatever its number is now */
	if (same || isd_push_is_ancestor(p->c, o->id, &op->r.attr)) {
		o->soid = op->r.obj;
		o->cver = op->content_recno;
		return isd_state_put_object(p->c->state, o, error);
	}
	if (!isd_conflict_keep(p->c, o->id, n->parent, n->name, &whole, &new_id, error))
		return FALSE;
	if (!new_id)
		return isd_apply_op(p, op, ISD_APPLY_TRIES, error);
	if (!isd_state_by_id(p->c->state, new_id, &theirs, &found, error) || !found)
		return FALSE;
	theirs.soid = op->r.obj;
	isd_apply_take_attrs(&theirs, &op->r.attr, op->r.attr.valid | KML_A_SIZE | KML_A_MTIME);
	if (!isd_state_put_object(p->c->state, &theirs, error) ||
	    !isd_want_version(p->c, new_id, op->content_recno, &op->r.attr, error))
		return FALSE;
	isd_want_soon(p->c->want);
	return TRUE;
}

/* Deleted here, changed on the server: the server's version comes back where it is there. */
gboolean isd_apply_revive_file(IsdPull *p, IsdOp *op, IsdObject *o, struct kml_oid dir,
			       struct kml_str name, GError **error)
{
	g_autofree char *text = isd_str(name);
	g_auto(IsdPlace) at = { 0 };
	g_auto(IsdName) there = { 0 };
	gboolean found, bound, taken;

	if (!isd_apply_find_place(p, &op->r, dir, &at, &found, error))
		return FALSE;
	if (!found)
		return TRUE;
	if (!isd_state_lookup(p->c->state, at.id, text, &there, &taken, error))
		return FALSE;
	if (!isd_push_cover(p->c, o->oid, p->c->core->log_recno, 0, error) ||
	    !isd_apply_clear_name(p, op, &at, text, ISD_APPLY_TRIES, &bound, error))
		return FALSE;
	o->oid = (struct kml_oid) { 0 };
	o->soid = op->r.obj;
	if (op->r.has_attr)
		isd_apply_take_attrs(o, &op->r.attr, op->r.attr.valid | KML_A_SIZE | KML_A_MTIME);
	if (!isd_state_put_object(p->c->state, o, error) || !isd_heal_add(p->c, o->id, error) ||
	    !isd_want_add(p->c, o->id, at.id, text, op->content ? op->content_recno : o->cver,
			  o->attr.size, error))
		return FALSE;
	/* replaced here by what has its name: that has become a conflict of two versions already */
	if (!taken && !isd_conflict_note(p->c, ISD_CONFLICT_DELETE_UPDATE, o->id, at.id, text, at.id,
					 text, &op->r, error))
		return FALSE;
	isd_want_soon(p->c->want);
	return TRUE;
}

static gboolean queue_close(IsdPull *p, IsdOp *op, const IsdObject *o, const IsdName *n,
			    const IsdContent *t, guint tries, GError **error)
{
	struct izo_guard guard = isd_guard_object(o, IZO_G_CTIME | IZO_G_NOWRITER);
	struct kml_record r = {
		.opcode = KML_CLOSE, .obj = o->oid, .attr = op->r.attr, .has_attr = true,
		.flags = t->ranges ? 0 : KML_F_RANGES_ALL,
	};
	g_auto(IsdPlace) at = { 0 };
	g_autofree struct kml_range *ranges = NULL;
	g_autoptr(GBytes) aliases = NULL;
	gboolean found;

	if (!isd_place_by_id(p->c, n->parent, &at, &found, error) || !found)
		return !error || !*error;
	if (!isd_state_aliases(p->c->state, o, n->parent, n->name, &aliases, error))
		return FALSE;
	if (aliases)
		r.aliases = g_bytes_get_data(aliases, &r.aliases_len);
	isd_place_source(&r, &at, n->name);
	r.attr.size = t->size;
	r.attr.valid |= KML_A_SIZE | KML_A_MTIME;
	isd_apply_set_content(&r, t);
	if (t->ranges) {
		ranges = g_new0(struct kml_range, t->ranges->len + 1);
		for (guint i = 0; i < t->ranges->len; i++) {
			const struct kml_range *x = &g_array_index(t->ranges, struct kml_range, i);

			ranges[i] = (struct kml_range) { GUINT64_TO_LE(x->off),
							 GUINT64_TO_LE(x->len) };
		}
		r.ranges = ranges;
		r.n_ranges = t->ranges->len;
		r.has_ranges = true;
	}
	return isd_apply_queue(p, &r, &guard, NULL, t->ranges ? IZO_RE_PATCH : 0, closed,
			       isd_apply_item_new(p, op, tries, o->id), error);
}

/* Not made yet: what is made will be this version. */
static gboolean close_wanted(IsdPull *p, const IsdOp *op, IsdObject *o, GError **error)
{
	o->soid = op->r.obj;
	isd_apply_take_attrs(o, &op->r.attr, op->r.attr.valid | KML_A_SIZE | KML_A_MTIME);
	return isd_state_put_object(p->c->state, o, error) &&
	       isd_want_version(p->c, o->id, op->content_recno, &op->r.attr, error);
}

gboolean isd_apply_close(IsdPull *p, IsdOp *op, guint tries, GError **error)
{
	const IsdContent *t = g_hash_table_lookup(p->contents, op);
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 };
	gboolean found, named;

	if (!isd_apply_find_object(p, &op->r, &o, &found, error))
		return FALSE;
	if (!found)
		/* perhaps what was done here was not done there, as it was moved before */
		return isd_heal_add_soid(p->c, op->r.obj, error);
	if (o.cver >= op->content_recno)
		return TRUE;
	if (!op->r.has_attr)
		op->r.attr = o.attr;	/* RESYNC */
	if (!o.oid.ino)
		return close_wanted(p, op, &o, error);
	if (!isd_apply_find_name(p, &o, op->r.parent, op->r.name, &n, &named, error))
		return FALSE;
	if (!named)
		return isd_apply_revive_file(p, op, &o, op->r.parent, op->r.name, error);
	/* There is a newer version there: its record, still to come, decides. */
	if (isd_apply_pending_content(p, &o) && t && t->status == 410)
		return all_but_content(p, op, &o, tries, error);
	/* what cannot be had just now is compared by want.c when it can */
	if (isd_apply_pending_content(p, &o) && (!t || !t->status))
		return both_changed(p, op, &o, &n, error);
	if (!t || t->status)
		return put_off(p, op, &o, tries, error);
	return queue_close(p, op, &o, &n, t, tries, error);
}
