// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The mtimes of directories: everybody ends with what the last record in the server's log says,
 * whoever made it, so own records that come back set them as well.
 */
#include "apply_pull.h"

#include <string.h>
#include <sys/stat.h>

#define MTIME_TRIES	100

static void note_mtime(IsdPull *p, struct kml_oid dir, struct kml_time t)
{
	if (dir.ino)
		g_hash_table_replace(p->mtimes, g_memdup2(&dir, sizeof(dir)),
				     g_memdup2(&t, sizeof(t)));
}

/* In the order of the log, whoever made them. */
static void note_mtimes(IsdPull *p)
{
	for (guint i = 0; i < p->recs->len; i++) {
		const struct kml_record *r = &g_array_index(p->recs, struct kml_record, i);

		if (r->has_ptime && r->opcode != KML_LINK)
			note_mtime(p, r->parent, r->ptime);
		if (r->has_ptime && r->tparent.ino)
			note_mtime(p, r->tparent, r->tptime);
		/* of one that was made here as well it is the server's that counts */
		if (r->opcode == KML_MKDIR && r->has_attr)
			note_mtime(p, r->obj, r->attr.mtime);
		if (r->opcode == KML_SETATTR && r->has_attr && S_ISDIR(r->attr.mode) &&
		    (!r->attr.valid || (r->attr.valid & KML_A_MTIME)))
			note_mtime(p, r->obj, r->attr.mtime);
	}
}

/* What the directory is like at this moment, and where. */
static gboolean stat_dir(IsdPull *p, const IsdObject *o, IsdName *ret_name, IsdPlace *ret_at,
			 struct stat *ret_st, gboolean *ret_found, GError **error)
{
	struct kml_oid oid;

	*ret_found = fstat(p->c->core->root_fd, ret_st) == 0;
	if (o->id == ISD_ROOT_ID)
		return TRUE;
	if (!isd_state_a_name(p->c->state, o->id, ret_name, ret_found, error) || !*ret_found)
		return !error || !*error;
	if (!isd_place_by_id(p->c, ret_name->parent, ret_at, ret_found, error) || !*ret_found)
		return !error || !*error;
	*ret_found = isd_local_stat(p->c, ret_name->parent, ret_name->name, ret_st, &oid) == 0 &&
		isd_oid_equal(oid, o->oid);
	return TRUE;
}

/* The same when a local program has just moved it, and the state does not know yet. */
static gboolean find_dir(IsdPull *p, const IsdObject *o, IsdName *ret_name, IsdPlace *ret_at,
			 struct stat *ret_st, gboolean *ret_found, GError **error)
{
	if (!stat_dir(p, o, ret_name, ret_at, ret_st, ret_found, error))
		return FALSE;
	if (*ret_found)
		return TRUE;
	isd_name_clear(ret_name);
	isd_place_clear(ret_at);
	return isd_client_follow(p->c, TRUE, error) &&
	       stat_dir(p, o, ret_name, ret_at, ret_st, ret_found, error);
}

/*
 * One try.  If it is changed while this looks at it, its change time is another one, nothing is
 * done, and *ret_done is FALSE.
 */
static gboolean try_mtime(IsdPull *p, struct kml_oid soid, struct kml_time t, gboolean *ret_done,
			  GError **error)
{
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 };
	g_auto(IsdPlace) at = { 0 };
	struct kml_record r = { .opcode = KML_SETATTR, .has_attr = true, .dir = { "/", 1 },
				.attr = { .valid = KML_A_MTIME, .mtime = t } };
	struct izo_reint_result res;
	struct izo_guard guard;
	struct stat st;
	gboolean found;

	*ret_done = TRUE;
	if (!isd_apply_find_soid(p, soid, &o, &found, error))
		return FALSE;
	if (found && !find_dir(p, &o, &n, &at, &st, &found, error))
		return FALSE;
	if (!found)
		return TRUE;
	if (st.st_mtim.tv_sec == t.sec && st.st_mtim.tv_nsec == (long)t.nsec)
		return isd_time_equal(o.attr.mtime, t) ||
		       isd_obj_set_mtime(p->c->state, o.id, t, error);
	if (!isd_client_follow(p->c, TRUE, error))
		return FALSE;
	if (n.name)
		isd_place_source(&r, &at, n.name);
	r.obj = o.oid;
	r.attr.mode = o.attr.mode;
	guard = isd_guard_object(&o, 0);
	guard.flags |= GUINT32_TO_LE(IZO_G_CTIME);
	guard.ctime_sec = GUINT64_TO_LE(st.st_ctim.tv_sec);
	guard.ctime_nsec = GUINT32_TO_LE(st.st_ctim.tv_nsec);
	if (!isd_reint_one(p->c, &r, &guard, NULL, 0, &res, error))
		return FALSE;
	*ret_done = !res.error;
	return res.error ? !isd_result_is_fatal(&res, error) :
		isd_obj_set_mtime(p->c->state, o.id, t, error);
}

/*
 * A local change in between may have been one of the mode alone, so it is tried again; if it
 * was one of the names, the record of that will come back, and set it as well.
 */
static gboolean set_mtime(IsdPull *p, struct kml_oid soid, struct kml_time t, GError **error)
{
	gboolean done = FALSE;

	for (guint i = 0; i < MTIME_TRIES && !done; i++)
		if (!try_mtime(p, soid, t, &done, error))
			return FALSE;
	return TRUE;
}

gboolean isd_pull_set_mtimes(IsdPull *p, GError **error)
{
	GHashTableIter it;
	gpointer soid, t;

	note_mtimes(p);
	g_hash_table_iter_init(&it, p->mtimes);
	while (g_hash_table_iter_next(&it, &soid, &t))
		if (!set_mtime(p, *(struct kml_oid *)soid, *(struct kml_time *)t, error))
			return FALSE;
	g_hash_table_remove_all(p->mtimes);
	return TRUE;
}
