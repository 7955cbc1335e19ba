// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Which rows and places a record of the server's log is about, and what to do when the file
 * system does not agree with them.
 */
#include "apply_pull.h"
#include "conflict.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* --- rows and places --- */

/* By the server's number, also one that a push of ours has changed meanwhile. */
static gboolean find_row(IsdPull *p, struct kml_oid soid, IsdObject *ret, gboolean *ret_found,
			 GError **error)
{
	sqlite3_stmt *st;
	gint64 id;
	int rc;

	if (!isd_state_by_soid(p->c->state, soid, ret, ret_found, error))
		return FALSE;
	if (*ret_found)
		return TRUE;
	rc = isd_sql_row(p->c->state, error, &st,
			 "SELECT id FROM client_was WHERE sino = ? AND sgen = ?", "iu",
			 (gint64)soid.ino, soid.gen);
	if (rc <= 0)
		return rc == 0;
	id = sqlite3_column_int64(st, 0);
	sqlite3_reset(st);
	return isd_state_by_id(p->c->state, id, ret, ret_found, error);
}

gboolean isd_apply_find_soid(IsdPull *p, struct kml_oid soid, IsdObject *ret, gboolean *ret_found,
			     GError **error)
{
	if (!find_row(p, soid, ret, ret_found, error))
		return FALSE;
	return !*ret_found || ret->oid.ino || !S_ISREG(ret->attr.mode) ||
	       isd_want_is_active(p->c->want, ret->id) || isd_want_adopt(p->c, ret, error);
}

gboolean isd_apply_is_old_number(IsdPull *p, struct kml_oid soid)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(p->c->state, NULL, &st,
			     "SELECT 1 FROM client_was WHERE sino = ? AND sgen = ?", "iu",
			     (gint64)soid.ino, soid.gen);

	if (rc > 0)
		sqlite3_reset(st);
	return rc > 0;
}

/* The object of a record, also when the record says that it has a new number. */
gboolean isd_apply_find_object(IsdPull *p, const struct kml_record *r, IsdObject *ret,
			       gboolean *ret_found, GError **error)
{
	if (!isd_apply_find_soid(p, r->obj, ret, ret_found, error))
		return FALSE;
	if (*ret_found || !(r->flags & KML_F_REPLACED) || !r->has_old)
		return TRUE;
	return isd_apply_find_soid(p, r->old, ret, ret_found, error);
}

/* A directory that is deleted here and changed on the server comes back. */
static gboolean revive_dir(IsdPull *p, IsdObject *dir, GError **error)
{
	struct izo_guard absent = isd_guard_absent();
	struct kml_record r = {
		.opcode = KML_MKDIR, .attr = dir->attr, .has_attr = true,
	};
	g_auto(IsdName) n = { 0 };
	g_auto(IsdPlace) at = { 0 };
	struct izo_reint_result res;
	gboolean found;

	if (!isd_push_find_removal(p->c, dir->oid, &n, &found, error))
		return FALSE;
	if (found && !isd_place_by_id(p->c, n.parent, &at, &found, error))
		return FALSE;
	if (!found)
		return TRUE;
	r.attr.valid = 0;
	isd_place_source(&r, &at, n.name);
	if (!isd_push_cover(p->c, dir->oid, p->c->core->log_recno, 0, error) ||
	    !isd_reint_one(p->c, &r, &absent, NULL, 0, &res, error))
		return FALSE;
	if (res.error)
		return !isd_result_is_fatal(&res, error);
	dir->oid = isd_result_oid(&res);
	dir->attr.ctime = isd_result_ctime(&res);
	n.id = dir->id;
	n.lver = 0;
	return isd_state_put_object(p->c->state, dir, error) &&
	       isd_state_put_name(p->c->state, &n, error) &&
	       isd_conflict_note(p->c, ISD_CONFLICT_DELETE_INTO, dir->id, n.parent, n.name,
				 n.parent, n.name, NULL, error);
}

static gboolean find_place(IsdPull *p, struct kml_oid soid, IsdPlace *ret, gboolean *ret_found,
			   GError **error)
{
	g_auto(IsdObject) o = { 0 };

	if (!isd_place_by_soid(p->c, soid, ret, ret_found, error))
		return FALSE;
	if (*ret_found)
		return TRUE;
	if (!isd_apply_find_soid(p, soid, &o, ret_found, error) || !*ret_found)
		return !error || !*error;
	if (!revive_dir(p, &o, error))
		return FALSE;
	return isd_place_by_soid(p->c, soid, ret, ret_found, error);
}

gboolean isd_apply_find_place(IsdPull *p, const struct kml_record *r, struct kml_oid soid,
			      IsdPlace *ret, gboolean *ret_found, GError **error)
{
	/* here it may have been replaced by another one: heal.c brings it, and what is in it */
	return find_place(p, soid, ret, ret_found, error) &&
	       (*ret_found || isd_heal_add_soid(p->c, r->obj, error));
}

/* Where the object is: its name in the record if it still has that, else any. */
gboolean isd_apply_find_name(IsdPull *p, const IsdObject *o, struct kml_oid dir,
			     struct kml_str name, IsdName *ret, gboolean *ret_found,
			     GError **error)
{
	g_autofree char *text = name.ptr ? isd_str(name) : NULL;
	g_auto(IsdObject) d = { 0 };
	gboolean found = FALSE;

	if (text && !isd_apply_find_soid(p, dir, &d, &found, error))
		return FALSE;
	if (found && !isd_state_lookup(p->c->state, d.id, text, ret, &found, error))
		return FALSE;
	if (found && ret->id == o->id) {
		*ret_found = TRUE;
		return TRUE;
	}
	if (found)
		isd_name_clear(ret);
	return isd_state_a_name(p->c->state, o->id, ret, ret_found, error);
}

gboolean isd_apply_set_ptime(IsdPull *p, const IsdApply *it, GError **error)
{
	const struct kml_record *r = &it->op->r;

	if (!r->has_ptime)
		return TRUE;
	if (it->parent && r->opcode != KML_LINK &&
	    !isd_obj_set_mtime(p->c->state, it->parent, r->ptime, error))
		return FALSE;
	return !it->tparent || isd_obj_set_mtime(p->c->state, it->tparent, r->tptime, error);
}

void isd_apply_take_ptime(struct kml_record *to, const struct kml_record *from)
{
	to->has_ptime = from->has_ptime;
	to->ptime = from->ptime;
	to->tptime = from->tptime;
}

gboolean isd_apply_pending_content(IsdPull *p, const IsdObject *o)
{
	return isd_push_is_pending(p->c, o->oid, o->lcver);
}

/* --- when the file system did not agree --- */

/* After a result that is not success: decide again, or give this record up. */
gboolean isd_apply_again(IsdApply *it, const struct izo_reint_result *res, GError **error)
{
	const struct kml_record *r = &it->op->r;
	int err = GUINT32_FROM_LE(res->error);

	if (isd_result_is_fatal(res, error))
		return FALSE;
	if (it->tries < ISD_APPLY_TRIES)
		return isd_local_refresh(it->p->c, it->id, error) &&
		       isd_apply_op(it->p, it->op, it->tries + 1, error) &&
		       isd_pull_flush(it->p, error);
	isd_log(3, it->p->c->server, r->recno, "%s of %.*s in %.*s cannot be applied here: %s",
		kml_opcode_name(r->opcode), (int)r->name.len, r->name.ptr, (int)r->dir.len,
		r->dir.ptr, g_strerror(err));
	return isd_heal_add_soid(it->p->c, r->obj, error) &&
	       (!r->has_old || isd_heal_add_soid(it->p->c, r->old, error));
}
