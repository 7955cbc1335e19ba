// SPDX-License-Identifier: GPL-2.0-or-later
/* An own record is on the server: what it is called there goes into the state. */
#include "push.h"

#include <string.h>

/* --- settling --- */

static guint64 *version_of(IsdObject *o, const struct kml_record *r)
{
	switch (r->opcode) {
	case KML_CLOSE:
	case KML_RESYNC:
		return &o->cver;
	case KML_SETATTR:
	case KML_SETXATTR:
	case KML_REMOVEXATTR:
		return &o->aver;
	default:
		return NULL;
	}
}

static gboolean settle_names(IsdClient *c, const struct kml_record *r, gint64 id, guint64 recno,
			     GError **error)
{
	gboolean to = r->opcode == KML_RENAME || r->opcode == KML_LINK;
	struct kml_oid dir = to ? r->tparent : r->parent;
	struct kml_str name = to ? r->tname : r->name;
	g_auto(IsdObject) d = { 0 };
	gboolean found, moved;

	if ((!to && !isd_makes(r->opcode)) || !name.ptr)
		return TRUE;
	isd_push_is_void(c, id, r->recno, &moved);
	if (moved)
		return isd_sql_run(c->state, error, "UPDATE name SET ver = max(ver, ?)"
				   " WHERE id = ?", "ii", (gint64)recno, id);
	if (!isd_push_find(c, dir, &d, &found, error))
		return FALSE;
	return !found || isd_sql_run(c->state, error, "UPDATE name SET ver = max(ver, ?)"
				     " WHERE parent = ? AND name = ? AND id = ?", "iibi",
				     (gint64)recno, d.id, name.ptr, name.len, id);
}

/* Rows without a name were kept for their number on the server. */
static gboolean settle_removed(IsdClient *c, struct kml_oid oid, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 };
	gboolean found, named;

	if (!isd_push_find(c, oid, &o, &found, error) || !found)
		return !error || !*error;
	if (!o.oid.ino || o.id == ISD_ROOT_ID)
		return TRUE;
	if (!isd_state_a_name(c->state, o.id, &n, &named, error))
		return FALSE;
	/* it may have had more names, whose removal is still to be sent */
	return named || (isd_push_remember_gone(c, o.oid, o.soid, error) &&
			 isd_state_drop_object(c->state, o.id, error));
}

/* Records of the server before this one, still to be pulled, use the old number. */
static gboolean settle_number(IsdClient *c, const IsdObject *o, struct kml_oid soid, guint64 recno,
			      GError **error)
{
	if (!o->soid.ino || isd_oid_equal(o->soid, soid) || recno <= c->pull_recno)
		return TRUE;
	return isd_sql_run(c->state, error, "INSERT OR REPLACE INTO client_was VALUES(?, ?, ?, ?)",
			   "iuii", (gint64)o->soid.ino, o->soid.gen, o->id, (gint64)recno);
}

/* The server has own record r as its record recno, about the object soid. */
static gboolean settle_state(IsdClient *c, const struct kml_record *r, gboolean content,
			     struct kml_oid soid, guint64 recno, GError **error)
{
	g_auto(IsdObject) o = { 0 }, theirs = { 0 };
	guint64 *version;
	gboolean found, has;

	if (r->opcode == KML_UNLINK || r->opcode == KML_RMDIR)
		return settle_removed(c, r->obj, error);
	if (!isd_state_by_soid(c->state, soid, &theirs, &has, error))
		return FALSE;
	if (!isd_push_find(c, r->obj, &o, &found, error) ||
	    (!found && !isd_push_remember_gone(c, r->obj, soid, error)))
		return FALSE;
	if (found && has && theirs.id != o.id)
		return isd_heal_add(c, theirs.id, error);
	if (found) {
		if (soid.ino && (!o.soid.ino || recno >= MAX(o.cver, o.aver))) {
			if (!settle_number(c, &o, soid, recno, error))
				return FALSE;
			o.soid = soid;
		}
		if (isd_makes(r->opcode))
			o.aver = MAX(o.aver, recno);
		if (isd_makes(r->opcode) || content)
			o.cver = MAX(o.cver, recno);
		version = version_of(&o, r);
		if (version)
			*version = MAX(*version, recno);
		if (!isd_state_put_object(c->state, &o, error) ||
		    !settle_names(c, r, o.id, recno, error))
			return FALSE;
	}
	return r->opcode != KML_RENAME || !r->has_old || (r->flags & KML_F_EXCHANGE) ||
	       settle_removed(c, r->old, error);
}

/* Known to be done also after a restart: what the server changes later was seen by us. */
static gboolean settled_add(IsdPush *p, gint64 recno, GError **error)
{
	g_hash_table_add(p->settled, g_memdup2(&recno, sizeof(recno)));
	return isd_sql_run(p->c->state, error, "INSERT OR IGNORE INTO client_settled VALUES(?)",
			   "i", recno);
}

gboolean isd_segment_op_done(IsdPush *p, PushSegment *s, guint index, GError **error)
{
	PushOp *po = &g_array_index(s->push, PushOp, index);
	g_autofree char *key = isd_push_key(po->op->r.obj);

	po->state = PUSH_DONE;
	if (isd_makes(po->op->r.opcode))
		g_hash_table_remove(p->making, key);
	if (p->blocking_recno == po->op->r.recno) {
		p->blocking_recno = 0;
		g_clear_pointer(&p->blocking, g_free);
	}
	if (!isd_client_begin(p->c, error))
		return FALSE;
	for (guint i = 0; i < s->recs->len; i++)
		if (g_array_index(s->ops->owner, guint, i) == index &&
		    !settled_add(p, g_array_index(s->recs, struct kml_record, i).recno, error))
			return FALSE;
	return TRUE;
}

gboolean isd_push_is_on_its_way(IsdClient *c, struct kml_oid oid)
{
	const GPtrArray *sent = c->push && c->push->post ? c->push->sent : NULL;

	for (guint i = 0; sent && i < sent->len; i++) {
		const PushOp *po = g_ptr_array_index(sent, i);

		if (po->state == PUSH_SENT && isd_oid_equal(po->op->r.obj, oid))
			return TRUE;
	}
	return FALSE;
}

PushOp *isd_push_find_op(IsdPush *p, guint64 recno, PushSegment **ret_s, guint *ret_index)
{
	for (GList *l = p->segments.head; l; l = l->next) {
		PushSegment *s = l->data;

		if (recno < s->first_recno || recno > s->last_recno)
			continue;
		for (guint i = 0; i < s->push->len; i++) {
			PushOp *po = &g_array_index(s->push, PushOp, i);

			if (po->op->dropped || (po->op->r.recno != recno && po->made != recno &&
						!(po->bare && po->op->content_recno == recno)))
				continue;
			*ret_s = s;
			*ret_index = i;
			return po;
		}
	}
	return NULL;
}

/* What went without its content sends that as a CLOSE, under the CLOSE's own number. */
static void push_bare_done(IsdPush *p, PushOp *po)
{
	g_autofree char *key = isd_push_key(po->op->r.obj);

	g_hash_table_remove(p->making, key);
	if (p->blocking_recno == po->op->r.recno)
		p->blocking_recno = po->op->content_recno;
	po->bare = FALSE;
	po->made = po->op->r.recno;
	po->state = PUSH_READY;
	po->op->r.opcode = KML_CLOSE;
	po->op->r.flags = KML_F_RANGES_ALL;
	po->op->r.recno = po->op->content_recno;
	po->op->r.attr.valid = KML_A_SIZE | KML_A_MTIME;
	po->op->r.xattrs = NULL;
	po->op->r.xattrs_len = 0;
	po->op->r.has_ptime = false;
}

/*
 * While it was under way the object became another one here: the version of here moved aside and goes as
 * a new file.  Whatever has that number now is what was changed; how, is asked when all else is done.
 */
static gboolean settle_other(IsdClient *c, const PushOp *po, struct kml_oid soid, gboolean *ret_is,
			     GError **error)
{
	g_auto(IsdObject) o = { 0 }, theirs = { 0 };
	gboolean found, has;

	*ret_is = FALSE;
	if (!po->sent_soid.ino)
		return TRUE;
	if (!isd_push_find(c, po->op->r.obj, &o, &found, error) ||
	    !isd_state_by_soid(c->state, po->sent_soid, &theirs, &has, error))
		return FALSE;
	*ret_is = has ? !found || theirs.id != o.id : found && !o.soid.ino;
	if (!*ret_is)
		return TRUE;
	if (has && soid.ino) {
		theirs.soid = soid;
		if (!isd_state_put_object(c->state, &theirs, error))
			return FALSE;
	}
	return (!found || isd_heal_add(c, o.id, error)) &&
	       isd_heal_add_soid(c, soid.ino ? soid : po->sent_soid, error);
}

gboolean isd_push_op_settled(IsdPush *p, PushSegment *s, guint index, struct kml_oid soid,
			     guint64 server_recno, GError **error)
{
	PushOp *po = &g_array_index(s->push, PushOp, index);
	gboolean content = po->op->content && !po->bare, other;

	if (po->state == PUSH_DONE)
		return TRUE;
	isd_debug(ISD_D_KML, "own record %" G_GUINT64_FORMAT " is %" G_GUINT64_FORMAT
		  " on the server", (guint64)po->op->r.recno, server_recno);
	if (!isd_client_begin(p->c, error) || !settle_other(p->c, po, soid, &other, error))
		return FALSE;
	if (other)
		return isd_segment_op_done(p, s, index, error);
	if (!settle_state(p->c, &po->op->r, content, soid, server_recno, error) ||
	    (content && !isd_push_carried(p, po->op->r.obj, error)))
		return FALSE;
	if (!po->bare || po->op->content_recno == po->op->r.recno)
		return isd_segment_op_done(p, s, index, error);
	push_bare_done(p, po);
	return TRUE;
}

/*
 * Whatever was sent and is not settled is in the segments, since those that were sent
 * from are read at the start.  What needs not be sent again may all the same
 * have been sent before, and its answer lost: only this tells the number that came of it.
 */
gboolean isd_push_settle(IsdClient *c, const struct kml_record *r, GError **error)
{
	PushSegment *s;
	guint index;
	PushOp *po = c->push ? isd_push_find_op(c->push, r->origin_recno, &s, &index) : NULL;
	gboolean other = FALSE;

	if (po && !settle_other(c, po, r->obj, &other, error))
		return FALSE;
	if (other && po->state == PUSH_DONE)
		return TRUE;
	if (po && (po->state == PUSH_DONE || po->made == r->origin_recno))
		return settle_state(c, &po->op->r, r->opcode == KML_CLOSE, r->obj, r->recno, error);
	if (po)
		return isd_push_op_settled(c->push, s, index, r->obj, r->recno, error);
	if (r->origin_recno > c->push_recno)
		isd_log(4, c->server, r->recno, "the server has our record %" G_GUINT64_FORMAT
			", which was not sent", (guint64)r->origin_recno);
	return TRUE;
}
