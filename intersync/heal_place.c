// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Bringing objects to the names that they have on the server, with operations that are not
 * logged.  An object whose name is taken by another one that the server has elsewhere changes
 * places with it: each such step brings one of them home, so that there is an end of it.  What
 * the server does not have moves aside and is kept.  Called by heal.c.
 */
#include "heal.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define PASSES_MAX	1000

/* --- what is where --- */

/* The directory and what has that name in it here; *ret_dir 0: there is no such directory. */
static gboolean look(Heal *h, const HealName *n, gint64 *ret_dir, IsdName *ret, gboolean *ret_taken,
		     GError **error)
{
	g_auto(IsdPlace) at = { 0 };
	gboolean found;

	*ret_dir = 0;
	*ret_taken = FALSE;
	if (!isd_place_by_soid(h->c, n->dir, &at, &found, error))
		return FALSE;
	if (!found || !at.oid.ino)
		return TRUE;
	*ret_dir = at.id;
	return isd_state_lookup(h->c->state, at.id, n->name, ret, ret_taken, error);
}

/* Does the server have the object under that name of here? */
static gboolean is_name_of(Heal *h, const HealTold *t, const IsdName *n, gboolean *ret, GError **error)
{
	g_auto(IsdObject) dir = { 0 };
	gboolean found;

	*ret = FALSE;
	if (!isd_state_by_id(h->c->state, n->parent, &dir, &found, error))
		return FALSE;
	for (guint i = 0; found && t && i < t->names->len && !*ret; i++) {
		const HealName *there = &g_array_index(t->names, HealName, i);

		*ret = isd_oid_equal(there->dir, dir.soid) && !strcmp(there->name, n->name);
	}
	return TRUE;
}

/* A name of here that the server does not have (home FALSE), or one that it has, but for `but`. */
static gboolean find_name(Heal *h, const HealTold *t, gint64 id, gboolean home, const IsdName *but,
			  IsdName *ret, gboolean *ret_found, GError **error)
{
	g_autoptr(GArray) names = NULL;
	gboolean is;

	*ret_found = FALSE;
	if (!isd_state_names(h->c->state, id, &names, error))
		return FALSE;
	for (guint i = 0; i < names->len && !*ret_found; i++) {
		IsdName *n = &g_array_index(names, IsdName, i);

		if (but && n->parent == but->parent && !strcmp(n->name, but->name))
			continue;
		/* made in this round: the server is to have it */
		if (!home && n->lver > h->c->push_recno)
			continue;
		if (!is_name_of(h, t, n, &is, error))
			return FALSE;
		if (is != home)
			continue;
		*ret = *n;
		ret->name = g_strdup(n->name);
		*ret_found = TRUE;
	}
	return TRUE;
}

/* Names under which it is here, and those under which it is wanted. */
static gboolean all_names(Heal *h, gint64 id, GArray **ret, GError **error)
{
	sqlite3_stmt *st;
	int rc;

	if (!isd_state_names(h->c->state, id, ret, error))
		return FALSE;
	rc = isd_sql_row(h->c->state, error, &st, "SELECT parent, name FROM client_want WHERE id = ?"
			 " AND name IS NOT NULL", "i", id);
	for (; rc > 0; rc = isd_sql_next(h->c->state, st, error)) {
		IsdName n = { .id = id, .parent = sqlite3_column_int64(st, 0) };

		n.name = g_strndup(sqlite3_column_blob(st, 1), sqlite3_column_bytes(st, 1));
		g_array_append_val(*ret, n);
	}
	return rc == 0;
}

gboolean isd_heal_is_placed(Heal *h, const HealTold *t, gboolean *ret_same, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	g_autoptr(GArray) names = NULL;
	gboolean found;

	*ret_same = FALSE;
	if (!isd_state_by_soid(h->c->state, t->r.obj, &o, &found, error) || !found)
		return !error || !*error;
	if (!all_names(h, o.id, &names, error))
		return FALSE;
	*ret_same = names->len == t->names->len;
	for (guint i = 0; i < names->len && *ret_same; i++)
		if (!is_name_of(h, t, &g_array_index(names, IsdName, i), ret_same, error))
			return FALSE;
	return TRUE;
}

/* --- steps --- */

static gboolean not_done(Heal *h, const struct izo_reint_result *res, const char *name, GError **error)
{
	if (isd_result_is_fatal(res, error))
		return FALSE;
	isd_debug(ISD_D_REINT, "%s cannot go where the server has it yet: %s", name,
		  g_strerror(GUINT32_FROM_LE(res->error)));
	return isd_client_follow(h->c, TRUE, error);
}

static gboolean put_name(Heal *h, gint64 parent, const char *name, gint64 id, GError **error)
{
	IsdName n = {
		.parent = parent, .name = (char *)name, .id = id, .ver = h->c->pull_recno,
	};

	return isd_state_put_name(h->c->state, &n, error);
}

static gboolean add_links(Heal *h, gint64 id, int by, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	if (!isd_state_by_id(h->c->state, id, &o, &found, error) || !found)
		return !error || !*error;
	o.attr.nlink = MAX((int)o.attr.nlink + by, 1);
	return isd_state_put_object(h->c->state, &o, error);
}

/* The record's two places, with the mtimes that their directories keep. */
static gboolean set_places(Heal *h, struct kml_record *r, const IsdName *from, gint64 to,
			   const char *name, IsdPlace *a, IsdPlace *b, gboolean *ret_found,
			   GError **error)
{
	if (!isd_place_by_id(h->c, from->parent, a, ret_found, error) ||
	    (*ret_found && !isd_place_by_id(h->c, to, b, ret_found, error)))
		return FALSE;
	if (!*ret_found)
		return TRUE;
	isd_place_source(r, a, from->name);
	isd_place_target(r, b, name);
	r->has_ptime = true;
	r->ptime = a->mtime;
	r->tptime = b->mtime;
	return TRUE;
}

/* From one name to the other; with other they change places. */
static gboolean step_rename(Heal *h, const IsdObject *o, const IsdName *from, gint64 to,
			    const char *name, const IsdObject *other, GError **error)
{
	struct izo_guard guard = isd_guard_object(o, 0);
	struct izo_guard tguard = other ? isd_guard_object(other, 0) : isd_guard_absent();
	struct kml_record r = {
		.opcode = KML_RENAME, .obj = o->oid, .flags = other ? KML_F_EXCHANGE : 0,
	};
	g_auto(IsdPlace) a = { 0 }, b = { 0 };
	struct izo_reint_result res;
	gboolean found;

	if (!set_places(h, &r, from, to, name, &a, &b, &found, error) || !found)
		return !error || !*error;
	if (!isd_reint_one(h->c, &r, &guard, &tguard, 0, &res, error))
		return FALSE;
	if (res.error)
		return not_done(h, &res, from->name, error);
	h->changed = TRUE;
	isd_log(5, h->c->server, 0, "%s/%s is called %s/%s, as on the server", a.path, from->name,
		b.path, name);
	if (!isd_state_drop_name(h->c->state, from->parent, from->name, error) ||
	    !put_name(h, to, name, o->id, error) ||
	    (other && !put_name(h, from->parent, from->name, other->id, error)))
		return FALSE;
	return isd_local_refresh(h->c, o->id, error) &&
	       (!other || isd_local_refresh(h->c, other->id, error));
}

static gboolean step_link(Heal *h, const IsdObject *o, const IsdName *from, gint64 to,
			  const char *name, GError **error)
{
	struct izo_guard guard = isd_guard_object(o, 0), absent = isd_guard_absent();
	struct kml_record r = { .opcode = KML_LINK, .obj = o->oid };
	g_auto(IsdPlace) a = { 0 }, b = { 0 };
	struct izo_reint_result res;
	gboolean found;

	if (!set_places(h, &r, from, to, name, &a, &b, &found, error) || !found)
		return !error || !*error;
	if (!isd_reint_one(h->c, &r, &guard, &absent, 0, &res, error))
		return FALSE;
	if (res.error)
		return not_done(h, &res, name, error);
	h->changed = TRUE;
	return put_name(h, to, name, o->id, error) && add_links(h, o->id, 1, error) &&
	       isd_local_refresh(h->c, o->id, error);
}

/* One of several names goes. */
static gboolean step_unlink(Heal *h, const IsdObject *o, const IsdName *n, gboolean *ret_done,
			    GError **error)
{
	struct izo_guard guard = isd_guard_object(o, 0);
	struct kml_record r = { .opcode = KML_UNLINK, .obj = o->oid, .has_ptime = true };
	g_auto(IsdPlace) at = { 0 };
	struct izo_reint_result res;
	gboolean found;

	*ret_done = FALSE;
	if (!isd_place_by_id(h->c, n->parent, &at, &found, error) || !found)
		return !error || !*error;
	isd_place_source(&r, &at, n->name);
	r.ptime = at.mtime;
	if (!isd_reint_one(h->c, &r, &guard, NULL, 0, &res, error))
		return FALSE;
	if (res.error)
		return not_done(h, &res, n->name, error);
	*ret_done = h->changed = TRUE;
	return isd_state_drop_name(h->c->state, n->parent, n->name, error) &&
	       add_links(h, o->id, -1, error) && isd_local_refresh(h->c, o->id, error);
}

/* --- one name that the server has and we have not --- */

/* Something else has it.  *ret_free: it no longer does. */
static gboolean make_way(Heal *h, const HealTold *t, const IsdName *there, const IsdObject *o,
			 const IsdName *extra, gboolean *ret_free, GError **error)
{
	g_auto(IsdObject) z = { 0 };
	g_auto(IsdName) home = { 0 };
	const HealTold *zt;
	gboolean found;

	*ret_free = FALSE;
	if (!isd_state_by_id(h->c->state, there->id, &z, &found, error) || !found)
		return !error || !*error;
	if (!z.soid.ino) {
		*ret_free = h->changed = TRUE;
		return isd_conflict_keep(h->c, z.id, there->parent, there->name, &t->r, NULL, error);
	}
	zt = isd_heal_told(h, z.soid);
	if (!zt)
		return isd_heal_add(h->c, z.id, error);
	if (extra)
		return step_rename(h, o, extra, there->parent, there->name, &z, error);
	if (!S_ISDIR(z.attr.mode) &&
	    !find_name(h, zt, z.id, TRUE, there, &home, &found, error))
		return FALSE;
	if (!S_ISDIR(z.attr.mode) && found)
		return step_unlink(h, &z, there, ret_free, error);
	return TRUE;	/* its own turn comes */
}

static gboolean place_name(Heal *h, const HealTold *t, const HealName *n, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) there = { 0 }, extra = { 0 }, any = { 0 };
	gboolean here, taken, has_extra = FALSE, named = FALSE, is_free;
	gint64 dir;

	if (!isd_state_by_soid(h->c->state, t->r.obj, &o, &here, error) ||
	    !look(h, n, &dir, &there, &taken, error))
		return FALSE;
	if (!dir)
		return isd_heal_add_soid(h->c, n->dir, error);
	here = here && o.oid.ino;
	if (taken && here && there.id == o.id)
		return TRUE;
	if (here && !find_name(h, t, o.id, FALSE, NULL, &extra, &has_extra, error))
		return FALSE;
	is_free = !taken;
	if (taken && !make_way(h, t, &there, &o, has_extra ? &extra : NULL, &is_free, error))
		return FALSE;
	if (!is_free || !here)
		return TRUE;
	if (has_extra)
		return step_rename(h, &o, &extra, dir, n->name, NULL, error);
	if (!isd_state_a_name(h->c->state, o.id, &any, &named, error))
		return FALSE;
	return !named || step_link(h, &o, &any, dir, n->name, error);
}

/* --- names that the server does not have --- */

static gboolean is_taken_there(Heal *h, const IsdName *n, gboolean *ret, GError **error)
{
	*ret = FALSE;
	for (guint i = 0; i < h->list->len && !*ret; i++)
		if (!is_name_of(h, g_ptr_array_index(h->list, i), n, ret, error))
			return FALSE;
	return TRUE;
}

/*
 * A further name of a file whose LINK did not get there: it goes, and if the server has nothing of
 * that name it is made again, so that this is logged and sent.
 */
static gboolean drop_extra(Heal *h, const HealTold *t, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) extra = { 0 }, home = { 0 };
	gboolean found, taken, done;

	if (!isd_state_by_soid(h->c->state, t->r.obj, &o, &found, error))
		return FALSE;
	if (!found || !o.oid.ino || S_ISDIR(o.attr.mode))
		return TRUE;
	if (!find_name(h, t, o.id, FALSE, NULL, &extra, &found, error) ||
	    (found && !find_name(h, t, o.id, TRUE, NULL, &home, &found, error)))
		return FALSE;
	if (!found)
		return TRUE;
	if (!is_taken_there(h, &extra, &taken, error) || !step_unlink(h, &o, &extra, &done, error))
		return FALSE;
	if (done && !taken)
		isd_local_link(h->c, home.parent, home.name, extra.parent, extra.name);
	return TRUE;
}

/* --- objects that are not here --- */

static gboolean want_names(Heal *h, const HealTold *t, IsdObject *o, GError **error)
{
	o->attr = t->r.attr;
	o->attr.valid = 0;
	o->attr.ctime = (struct kml_time) { 0 };
	o->oid = (struct kml_oid) { 0 };
	o->cver = 0;
	if (!isd_want_drop(h->c, o->id, error) || !isd_state_put_object(h->c->state, o, error))
		return FALSE;
	for (guint i = 0; i < t->names->len; i++) {
		const HealName *n = &g_array_index(t->names, HealName, i);
		g_auto(IsdName) there = { 0 };
		gboolean taken;
		gint64 dir;

		if (!look(h, n, &dir, &there, &taken, error))
			return FALSE;
		if (dir && !taken &&
		    !isd_want_add(h->c, o->id, dir, n->name, t->r.version_content, t->r.attr.size,
				  error))
			return FALSE;
	}
	isd_want_soon(h->c->want);
	return TRUE;
}

/* Is it just that version that is wanted? */
static gboolean has_want(Heal *h, const IsdObject *o, const HealTold *t)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(h->c->state, NULL, &st, "SELECT 1 FROM client_want WHERE id = ? AND"
			     " version = ?", "ii", o->id, (gint64)t->r.version_content);

	if (rc > 0)
		sqlite3_reset(st);
	return rc > 0;
}

/* It comes, to all of its names at once. */
static gboolean bring(Heal *h, HealTold *t, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 }, there = { 0 };
	gboolean found, named = FALSE, taken, same;
	gint64 dir;

	if (!t->names->len)
		return TRUE;	/* the root */
	if (!isd_state_by_soid(h->c->state, t->r.obj, &o, &found, error) ||
	    (found && !isd_state_a_name(h->c->state, o.id, &n, &named, error)))
		return FALSE;
	if ((named && o.oid.ino) || !isd_heal_is_placed(h, t, &same, error))
		return !error || !*error;
	if (same && S_ISREG(t->r.attr.mode))
		return o.cver >= t->r.version_content || has_want(h, &o, t) ||
		       isd_want_version(h->c, o.id, t->r.version_content, &t->r.attr, error);
	if (isd_want_is_active(h->c->want, o.id))
		return TRUE;
	if (!look(h, &g_array_index(t->names, HealName, 0), &dir, &there, &taken, error))
		return FALSE;
	if (!dir || (taken && there.id != o.id))
		return TRUE;
	h->changed = TRUE;
	if (found && S_ISREG(t->r.attr.mode))
		return want_names(h, t, &o, error);
	/* a row that was kept for its number: what is made gets one of its own */
	if (found && (!isd_want_drop(h->c, o.id, error) ||
		      !isd_state_drop_object(h->c->state, o.id, error)))
		return FALSE;
	if (!isd_attach_one(h->c, &t->r, error))
		return FALSE;
	if (S_ISREG(t->r.attr.mode) && t->names->len > 1)
		return isd_state_by_soid(h->c->state, t->r.obj, &o, &found, error) &&
		       (!found || want_names(h, t, &o, error));
	isd_want_soon(h->c->want);
	return TRUE;
}

/* --- all of them --- */

static gboolean each(Heal *h, gboolean (*step)(Heal *h, HealTold *t, GError **error), GError **error)
{
	for (guint i = 0; i < h->list->len; i++)
		if (!step(h, g_ptr_array_index(h->list, i), error))
			return FALSE;
	return TRUE;
}

static gboolean place(Heal *h, HealTold *t, GError **error)
{
	for (guint i = 0; i < t->names->len; i++)
		if (!place_name(h, t, &g_array_index(t->names, HealName, i), error))
			return FALSE;
	return TRUE;
}

static gboolean extras(Heal *h, HealTold *t, GError **error)
{
	return drop_extra(h, t, error);
}

static gboolean has_xattr(const struct kml_record *r, struct kml_str name)
{
	struct kml_str n, value;
	size_t pos = 0;

	while (r->xattrs && kml_xattr_next(r->xattrs, r->xattrs_len, &pos, &n, &value))
		if (n.len == name.len && !memcmp(n.ptr, name.ptr, n.len))
			return TRUE;
	return FALSE;
}

static gboolean drop_xattr(Heal *h, const IsdObject *o, const IsdPlace *at, const char *name,
			   const void *item, gsize len, struct kml_str xattr, GError **error)
{
	struct izo_guard guard = isd_guard_object(o, 0);
	struct kml_record r = {
		.opcode = KML_REMOVEXATTR, .obj = o->oid, .xattrs = item, .xattrs_len = len,
	};
	struct izo_reint_result res;

	if (name)
		isd_place_source(&r, at, name);
	else
		r.dir = (struct kml_str) { "/", 1 };
	if (!isd_reint_one(h->c, &r, &guard, NULL, 0, &res, error))
		return FALSE;
	if (res.error)
		return not_done(h, &res, name ? name : "/", error);
	return isd_state_set_xattr(h->c->state, o->id, xattr.ptr, xattr.len, NULL, -1, error) &&
	       isd_local_refresh(h->c, o->id, error);
}

/* Those that the server does not have. */
static gboolean drop_xattrs(Heal *h, const HealTold *t, const IsdObject *o, GError **error)
{
	g_autoptr(GBytes) mine = NULL;
	g_auto(IsdName) n = { 0 };
	g_auto(IsdPlace) at = { 0 };
	struct kml_str name, value;
	size_t pos = 0, before = 0, len;
	const guint8 *blob;
	gboolean found;

	if (!isd_state_xattrs(h->c->state, o->id, &mine, error) || !mine)
		return !error || !*error;
	if (o->id != ISD_ROOT_ID && (!isd_state_a_name(h->c->state, o->id, &n, &found, error) ||
				     !found || !isd_place_by_id(h->c, n.parent, &at, &found, error) ||
				     !found))
		return !error || !*error;
	blob = g_bytes_get_data(mine, &len);
	for (; kml_xattr_next(blob, len, &pos, &name, &value); before = pos)
		if (!has_xattr(&t->r, name) &&
		    !drop_xattr(h, o, &at, n.name, blob + before, pos - before, name, error))
			return FALSE;
	return TRUE;
}

/* Attributes and content of what is where it belongs. */
static gboolean update(Heal *h, HealTold *t, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	gboolean found, same;

	if (!isd_state_by_soid(h->c->state, t->r.obj, &o, &found, error))
		return FALSE;
	if (!found || !isd_heal_is_placed(h, t, &same, error))
		return !error || !*error;
	if (!same)
		return TRUE;
	if (o.oid.ino)
		return isd_attach_one(h->c, &t->r, error) && drop_xattrs(h, t, &o, error);
	/* still wanted: so it is to be made */
	o.attr = t->r.attr;
	o.attr.valid = 0;
	o.attr.ctime = (struct kml_time) { 0 };
	return isd_state_put_object(h->c->state, &o, error) &&
	       isd_sql_run(h->c->state, error, "DELETE FROM xattr WHERE id = ?", "i", o.id) &&
	       isd_obj_put_xattrs(h->c->state, o.id, t->r.xattrs, t->r.xattrs_len, error);
}

gboolean isd_heal_place(Heal *h, GError **error)
{
	guint passes = 0;

	do {
		h->changed = FALSE;
		if (!each(h, place, error) || !each(h, extras, error) || !each(h, bring, error))
			return FALSE;
	} while (h->changed && ++passes < PASSES_MAX);
	/* directories get their mtimes when nothing in them changes any more */
	return each(h, update, error);
}
