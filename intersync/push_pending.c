// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What is known of own records that the server does not have yet: which are covered by others,
 * which renames are not to be sent, what the objects were called.  The pull asks here
 * before it changes anything.
 */
#include "push.h"

#include <string.h>

char *isd_push_key(struct kml_oid oid)
{
	return g_strdup_printf("%" G_GUINT64_FORMAT ".%u", (guint64)oid.ino, oid.gen);
}

gboolean isd_push_find(IsdClient *c, struct kml_oid oid, IsdObject *ret, gboolean *ret_found,
		       GError **error)
{
	sqlite3_stmt *st;
	gint64 id;
	int rc;

	if (!isd_state_by_oid(c->state, oid, ret, ret_found, error) || *ret_found)
		return !error || !*error;
	rc = isd_sql_row(c->state, error, &st, "SELECT id FROM client_alias WHERE ino = ? AND"
			 " gen = ?", "iu", (gint64)oid.ino, oid.gen);
	if (rc <= 0)
		return rc == 0;
	id = sqlite3_column_int64(st, 0);
	sqlite3_reset(st);
	return isd_state_by_id(c->state, id, ret, ret_found, error);
}

gboolean isd_push_alias(IsdClient *c, struct kml_oid was, gint64 id, GError **error)
{
	if (!was.ino || c->push_recno >= c->core->log_recno)
		return TRUE;
	return isd_sql_run(c->state, error, "INSERT OR REPLACE INTO client_alias VALUES(?, ?, ?)",
			   "iui", (gint64)was.ino, was.gen, id);
}

/* --- what is covered, what is pending --- */

gboolean isd_push_cover(IsdClient *c, struct kml_oid oid, guint64 upto, guint64 carrier,
			GError **error)
{
	return isd_sql_run(c->state, error,
			   "INSERT OR REPLACE INTO client_cover VALUES(?, ?, ?, ?)", "iuii",
			   (gint64)oid.ino, oid.gen, (gint64)upto, (gint64)carrier);
}

gboolean isd_push_is_covered(IsdClient *c, struct kml_oid oid, guint64 recno)
{
	sqlite3_stmt *st;
	gboolean covered;

	if (isd_sql_row(c->state, NULL, &st, "SELECT upto, carrier FROM client_cover"
			" WHERE ino = ? AND gen = ?", "iu", (gint64)oid.ino, oid.gen) <= 0)
		return FALSE;
	covered = recno <= (guint64)sqlite3_column_int64(st, 0) &&
		recno != (guint64)sqlite3_column_int64(st, 1);
	sqlite3_reset(st);
	return covered;
}

/*
 * The record that covers this one makes the object under its first name; a LINK of
 * another name that it has is still to be sent.
 */
gboolean isd_push_is_further_name(IsdClient *c, const struct kml_record *r)
{
	g_autofree char *tname = isd_str(r->tname);
	g_auto(IsdObject) o = { 0 }, dir = { 0 };
	g_auto(IsdName) first = { 0 }, n = { 0 };
	gboolean found = FALSE;
	sqlite3_stmt *st;

	if (r->opcode != KML_LINK ||
	    isd_sql_row(c->state, NULL, &st, "SELECT 1 FROM client_cover WHERE ino = ? AND gen = ?"
			" AND carrier <> 0", "iu", (gint64)r->obj.ino, r->obj.gen) <= 0)
		return FALSE;
	sqlite3_reset(st);
	return isd_push_find(c, r->obj, &o, &found, NULL) && found &&
	       isd_push_find(c, r->tparent, &dir, &found, NULL) && found &&
	       isd_state_a_name(c->state, o.id, &first, &found, NULL) && found &&
	       (first.parent != dir.id || strcmp(first.name, tname)) &&
	       isd_state_lookup(c->state, dir.id, tname, &n, &found, NULL) && found && n.id == o.id;
}

gboolean isd_push_void_renames(IsdClient *c, gint64 id, guint64 carrier, GError **error)
{
	return isd_sql_run(c->state, error, "INSERT OR REPLACE INTO client_void VALUES(?, ?, ?)",
			   "iii", id, (gint64)c->core->log_recno, (gint64)carrier);
}

gboolean isd_push_is_void(IsdClient *c, gint64 id, guint64 recno, gboolean *ret_moved)
{
	sqlite3_stmt *st;
	gboolean is;

	*ret_moved = isd_sql_row(c->state, NULL, &st, "SELECT upto, carrier FROM client_void"
				 " WHERE id = ?", "i", id) > 0;
	if (!*ret_moved)
		return FALSE;
	is = recno <= (guint64)sqlite3_column_int64(st, 0) &&
		recno != (guint64)sqlite3_column_int64(st, 1);
	sqlite3_reset(st);
	return is;
}

static gboolean push_is_settled(IsdClient *c, guint64 recno)
{
	gint64 key = recno;

	return recno <= c->push_recno ||
		(c->push && g_hash_table_contains(c->push->settled, &key));
}

gboolean isd_push_is_pending(IsdClient *c, struct kml_oid oid, guint64 own_recno)
{
	return own_recno && !push_is_settled(c, own_recno) && !isd_push_is_covered(c, oid, own_recno);
}

gboolean isd_push_gone(IsdClient *c, struct kml_oid oid, struct kml_oid *ret, GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(c->state, error, &st, "SELECT sino, sgen FROM client_gone WHERE"
			     " ino = ? AND gen = ?", "iu", (gint64)oid.ino, oid.gen);

	*ret = (struct kml_oid) { 0 };
	if (rc > 0) {
		ret->ino = sqlite3_column_int64(st, 0);
		ret->gen = sqlite3_column_int64(st, 1);
		sqlite3_reset(st);
	}
	return rc >= 0;
}

/* It was removed here before the server said what it is called there. */
gboolean isd_push_remember_gone(IsdClient *c, struct kml_oid oid, struct kml_oid soid,
				GError **error)
{
	return !soid.ino || isd_sql_run(c->state, error,
					"INSERT OR REPLACE INTO client_gone VALUES(?, ?, ?, ?)",
					"iuiu", (gint64)oid.ino, oid.gen, (gint64)soid.ino,
					soid.gen);
}

/* --- records about one object --- */

typedef struct {
	IsdClient	*c;
	GArray		*oids;		/* what it is called in them */
	guint32		valid;
	GHashTable	*xattrs;
	IsdName		name;
	gboolean	found;
	guint64		recno;
	struct kml_attrs attr;
	GArray		*spans;
	gboolean	whole;
} Pending;

static gboolean is_called(const Pending *w, struct kml_oid oid)
{
	for (guint i = 0; i < w->oids->len; i++)
		if (isd_oid_equal(g_array_index(w->oids, struct kml_oid, i), oid))
			return TRUE;
	return FALSE;
}

/* Is called with the object's records that the server has not taken in yet; FALSE: enough. */
typedef gboolean (*PendingFunc)(Pending *w, const struct kml_record *r);

static gboolean each_at(Pending *w, const GArray *offsets, PendingFunc each, GError **error)
{
	gboolean end = FALSE;

	for (guint i = 0; i < offsets->len && !end; i++) {
		struct kml_record r;
		guint64 next;

		if (!isd_push_read_log(w->c, g_array_index(offsets, guint64, i), &r, &next, &end,
				       error))
			return FALSE;
		if (!end && is_called(w, r.obj) && !push_is_settled(w->c, r.recno))
			end = !each(w, &r);
	}
	return TRUE;
}

static gboolean each_pending(Pending *w, struct kml_oid oid, PendingFunc each, GError **error)
{
	g_autoptr(GArray) offsets = NULL;

	w->oids = w->oids ? w->oids : g_array_new(FALSE, FALSE, sizeof(oid));
	g_array_append_val(w->oids, oid);
	offsets = isd_push_index_find(w->c, w->oids, error);
	if (!offsets || !each_at(w, offsets, each, error)) {
		g_array_unref(w->oids);
		return FALSE;
	}
	g_array_unref(w->oids);
	return TRUE;
}

/* The same for a row, with the numbers that the object had before. */
static gboolean each_pending_of(Pending *w, gint64 id, PendingFunc each, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	sqlite3_stmt *st;
	gboolean found;
	int rc;

	if (!isd_state_by_id(w->c->state, id, &o, &found, error))
		return FALSE;
	w->oids = g_array_new(FALSE, FALSE, sizeof(struct kml_oid));
	rc = isd_sql_row(w->c->state, error, &st, "SELECT ino, gen FROM client_alias WHERE id = ?",
			 "i", id);
	for (; rc > 0; rc = isd_sql_next(w->c->state, st, error)) {
		struct kml_oid was = { sqlite3_column_int64(st, 0), sqlite3_column_int64(st, 1) };

		g_array_append_val(w->oids, was);
	}
	if (rc == 0)
		return each_pending(w, o.oid, each, error);
	g_array_unref(w->oids);
	return FALSE;
}

static gboolean pending_attr(Pending *w, const struct kml_record *r)
{
	struct kml_str name, value;
	size_t pos = 0;

	if (isd_push_is_covered(w->c, r->obj, r->recno))
		return TRUE;
	if (r->opcode == KML_SETATTR && r->has_attr)
		w->valid |= r->attr.valid ? r->attr.valid : ~0U;
	if (isd_makes(r->opcode))
		w->valid = ~0U;
	if (r->opcode == KML_SETXATTR || r->opcode == KML_REMOVEXATTR)
		while (kml_xattr_next(r->xattrs, r->xattrs_len, &pos, &name, &value))
			g_hash_table_add(w->xattrs, isd_str(name));
	return TRUE;
}

gboolean isd_push_pending_attrs(IsdClient *c, struct kml_oid oid, guint32 *ret_valid,
				GHashTable **ret_xattrs, GError **error)
{
	Pending w = { .c = c };

	w.xattrs = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	*ret_xattrs = w.xattrs;
	if (!each_pending(&w, oid, pending_attr, error))
		return FALSE;
	*ret_valid = w.valid;
	return TRUE;
}

/* The name that a record takes the object from, if its directory is here.  Always FALSE: enough. */
static gboolean take_name(Pending *w, const struct kml_record *r)
{
	g_auto(IsdObject) dir = { 0 };
	gboolean found;

	if (!isd_push_find(w->c, r->parent, &dir, &found, NULL) || !found)
		return FALSE;
	w->name.parent = dir.id;
	w->name.name = isd_str(r->name);
	w->found = TRUE;
	return FALSE;
}

static gboolean pending_removal(Pending *w, const struct kml_record *r)
{
	return (r->opcode != KML_UNLINK && r->opcode != KML_RMDIR) || take_name(w, r);
}

gboolean isd_push_find_removal(IsdClient *c, struct kml_oid oid, IsdName *ret, gboolean *ret_found,
			       GError **error)
{
	Pending w = { .c = c };

	if (!each_pending(&w, oid, pending_removal, error))
		return FALSE;
	*ret = w.name;
	*ret_found = w.found;
	return TRUE;
}

static gboolean pending_rename(Pending *w, const struct kml_record *r)
{
	if (r->opcode == KML_RENAME)
		w->recno = r->recno;
	return TRUE;
}

gboolean isd_push_last_rename(IsdClient *c, gint64 id, guint64 *ret_recno, GError **error)
{
	Pending w = { .c = c };
	gboolean ok = each_pending_of(&w, id, pending_rename, error);

	*ret_recno = w.recno;
	return ok;
}

static gboolean pending_first_rename(Pending *w, const struct kml_record *r)
{
	return r->opcode != KML_RENAME || take_name(w, r);
}

gboolean isd_push_first_rename(IsdClient *c, gint64 id, IsdName *ret, gboolean *ret_found,
			       GError **error)
{
	Pending w = { .c = c };

	if (!each_pending_of(&w, id, pending_first_rename, error))
		return FALSE;
	*ret = w.name;
	*ret_found = w.found;
	return TRUE;
}

static gboolean pending_ancestor(Pending *w, const struct kml_record *r)
{
	gboolean tells = r->opcode == KML_CLOSE || r->opcode == KML_SETATTR || r->opcode == KML_RENAME;

	if (!tells || !r->has_old)
		return TRUE;
	w->attr = r->old_attr;
	return FALSE;
}

void isd_push_ancestor(IsdClient *c, gint64 id, struct kml_attrs *ret)
{
	Pending w = { .c = c };

	if (each_pending_of(&w, id, pending_ancestor, NULL))
		*ret = w.attr;
}

gboolean isd_push_is_ancestor(IsdClient *c, gint64 id, const struct kml_attrs *attr)
{
	struct kml_attrs base = { 0 };

	isd_push_ancestor(c, id, &base);
	return base.mode && base.size == attr->size && isd_time_equal(base.mtime, attr->mtime);
}

static void take_spans(Pending *w, const struct kml_record *r)
{
	w->whole |= (r->flags & KML_F_RANGES_ALL) || !r->has_attr || !r->has_old ||
		r->attr.size != r->old_attr.size;
	for (guint i = 0; i < r->n_ranges && r->has_ranges; i++) {
		uint64_t off, len;

		kml_range_get(r, i, &off, &len);
		isd_spans_add(&w->spans, off, off + len);
	}
}

static gboolean pending_spans(Pending *w, const struct kml_record *r)
{
	if (r->opcode == KML_CLOSE)
		take_spans(w, r);
	else
		w->whole |= isd_makes(r->opcode) || r->opcode == KML_RESYNC ||
			(r->opcode == KML_SETATTR && (!r->attr.valid || (r->attr.valid & KML_A_SIZE)));
	return !w->whole;
}

GArray *isd_push_pending_spans(IsdClient *c, gint64 id)
{
	Pending w = { .c = c };

	if (each_pending_of(&w, id, pending_spans, NULL) && !w.whole)
		return w.spans;
	g_clear_pointer(&w.spans, g_array_unref);
	return NULL;
}
