// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Own records that the server refuses although they were sent by somebody who had seen all
 * of its log: since both sides have moved names about they fit no more, and never will.  What
 * such a record comes to by now is tried once; if that does not fit either, the record is dropped,
 * and heal.c finds out later what is left to be done.  Called by push.c.
 */
#include "push.h"

#include <errno.h>

/* On the server nothing has that number: the object that had it here is ours alone. */
static gboolean forget_number(IsdPush *p, IsdObject *o, GError **error)
{
	isd_debug(ISD_D_KML, "the server no longer has object %" G_GINT64_FORMAT, o->id);
	o->soid = (struct kml_oid) { 0 };
	o->cver = o->aver = 0;
	return isd_state_put_object(p->c->state, o, error) && isd_want_drop(p->c, o->id, error);
}

/* A directory that the server does not have: it is waited for as long as a record makes it. */
static gboolean missing_dir(IsdPush *p, IsdObject *o, gboolean *ret_drop, GError **error)
{
	IsdClient *c = p->c;
	g_auto(IsdName) n = { 0 };
	gboolean found;

	*ret_drop = FALSE;
	if (o->soid.ino) {
		if (!forget_number(p, o, error) ||
		    !isd_state_a_name(c->state, o->id, &n, &found, error))
			return FALSE;
		if (found)
			isd_local_touch(c, n.parent, n.name);
		return isd_client_follow(c, TRUE, error);
	}
	*ret_drop = !isd_push_is_pending(c, o->oid, MAX(o->lcver, o->laver));
	return !*ret_drop || isd_heal_add(c, o->id, error);
}

/* The row that was meant by a number that the server does not know. */
static gboolean find_missing(IsdPush *p, const PushOp *po, struct kml_oid missing, IsdObject *ret,
			     gboolean *ret_found, GError **error)
{
	gboolean own = !po->sent_soid.ino || !isd_oid_equal(po->sent_soid, missing);

	if (isd_oid_equal(po->sent_dirs[0], missing) && !(po->sent_own & KML_REF_PARENT))
		own = FALSE;
	if (isd_oid_equal(po->sent_dirs[1], missing) && !(po->sent_own & KML_REF_TPARENT))
		own = FALSE;
	return own ? isd_push_find(p->c, missing, ret, ret_found, error) :
		isd_state_by_soid(p->c->state, missing, ret, ret_found, error);
}

/*
 * Something that the record names does not exist there.  If it is the object itself, that is
 * made anew; if it is a directory, that one comes first.
 */
static gboolean is_missing(IsdPush *p, PushOp *po, const struct push_answer *a, gboolean *ret_drop,
			   GError **error)
{
	struct kml_oid missing = { GUINT64_FROM_LE(a->ino), GUINT32_FROM_LE(a->gen) };
	const struct kml_record *r = &po->op->r;
	g_auto(IsdObject) o = { 0 }, own = { 0 };
	gboolean found, mine, removes = r->opcode == KML_UNLINK || r->opcode == KML_RMDIR;

	*ret_drop = TRUE;
	if (!isd_push_find(p->c, r->obj, &own, &mine, error) ||
	    !find_missing(p, po, missing, &o, &found, error))
		return FALSE;
	if (found && o.id == ISD_ROOT_ID)
		return TRUE;
	if (found && (!mine || o.id != own.id))
		return missing_dir(p, &o, ret_drop, error);
	if (found && o.soid.ino && !forget_number(p, &o, error))
		return FALSE;
	/* it was made anew, or nobody has that number any more: other numbers are tried */
	if (!mine || (removes && found) || po->tried)
		return TRUE;
	*ret_drop = FALSE;
	po->tried = TRUE;
	po->state = PUSH_READY;
	return TRUE;
}

/* Of a rename one of the names on its way is somebody else's there: what counts is its end. */
static gboolean void_renames(IsdPush *p, const IsdObject *o, GError **error)
{
	guint64 last;

	return isd_push_last_rename(p->c, o->id, &last, error) &&
	       isd_push_void_renames(p->c, o->id, last, error);
}

/* A further name is made from whatever name there is, if it is still that object's here. */
static gboolean link_anew(IsdPush *p, PushOp *po, const IsdObject *o, GError **error)
{
	const struct kml_record *r = &po->op->r;
	g_autofree char *name = isd_str(r->tname);
	g_auto(IsdObject) dir = { 0 };
	g_auto(IsdName) n = { 0 };
	gboolean found;

	if (!isd_push_find(p->c, r->tparent, &dir, &found, error) ||
	    (found && !isd_state_lookup(p->c->state, dir.id, name, &n, &found, error)))
		return FALSE;
	po->anew = found && n.id == o->id;
	return TRUE;
}

static gboolean is_about_names(unsigned int op)
{
	return isd_makes(op) || op == KML_RENAME || op == KML_LINK || op == KML_UNLINK ||
	       op == KML_RMDIR;
}

/* FALSE in *ret_drop: it goes as something else now. */
static gboolean is_stale(IsdPush *p, PushOp *po, gboolean *ret_drop, GError **error)
{
	const struct kml_record *r = &po->op->r;
	g_auto(IsdObject) o = { 0 };
	gboolean found, makes, several, removes;

	*ret_drop = FALSE;
	if (!isd_push_find(p->c, r->obj, &o, &found, error))
		return FALSE;
	/* what the server does not have is made, whatever the record says: see encode_push.c */
	makes = isd_makes(r->opcode) || (found && !o.soid.ino);
	several = o.attr.nlink > 1 && !S_ISDIR(o.attr.mode);
	if (!makes && !is_about_names(r->opcode))
		return TRUE;
	removes = r->opcode == KML_UNLINK || r->opcode == KML_RMDIR;
	*ret_drop = po->tried || (!found && !removes) || (!makes && (r->flags & KML_F_EXCHANGE)) ||
		(several && !makes && r->opcode != KML_LINK);
	if (*ret_drop)
		return TRUE;
	po->tried = TRUE;
	po->state = PUSH_READY;
	if (removes) {
		/* from where the server has it, if that is all that it did not know */
		po->anew = TRUE;
		return TRUE;
	}
	if (makes) {
		/* under the name that it has here by now */
		po->anew = TRUE;
		return o.soid.ino || isd_push_void_renames(p->c, o.id, 0, error);
	}
	if (r->opcode != KML_LINK)
		return void_renames(p, &o, error);
	if (!link_anew(p, po, &o, error))
		return FALSE;
	*ret_drop = !po->anew;
	return TRUE;
}

/* Once more would be refused once more: of those errors that are about what is where. */
static gboolean is_final(int err)
{
	return err == ESTALE || err == EIDRM || err == ENOTEMPTY || err == EEXIST ||
	       err == ENOTDIR || err == EISDIR || err == EINVAL || err == ELOOP;
}

gboolean isd_push_refused(IsdPush *p, PushOp *po, const struct push_answer *a, gboolean *ret_drop,
			  GError **error)
{
	guint64 end = GUINT64_FROM_LE(a->server_recno);

	*ret_drop = FALSE;
	if (!end || !is_final(po->err))
		return TRUE;
	/* there was more to be taken in, which may change what is sent */
	if (end > p->base || p->c->pull_recno > p->base)
		return TRUE;
	if (po->err == EIDRM)
		return is_missing(p, po, a, ret_drop, error);
	return is_stale(p, po, ret_drop, error);
}

/* What it was about is to be compared, if the server knows it or has to learn of it. */
static gboolean heal_own(IsdClient *c, struct kml_oid oid, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	if (!oid.ino || !isd_push_find(c, oid, &o, &found, error))
		return !oid.ino;
	if (found)
		return isd_heal_add(c, o.id, error);
	return isd_push_gone(c, oid, &o.soid, error) &&
	       (!o.soid.ino || isd_heal_add_soid(c, o.soid, error));
}

gboolean isd_push_drop_op(IsdPush *p, PushSegment *s, guint index, GError **error)
{
	const PushOp *po = &g_array_index(s->push, PushOp, index);
	const struct kml_record *r = &po->op->r;

	if (!isd_client_begin(p->c, error))
		return FALSE;
	if ((is_about_names(r->opcode) || po->err) &&
	    (!heal_own(p->c, r->obj, error) || (r->has_old && !heal_own(p->c, r->old, error)) ||
	     !heal_own(p->c, r->parent, error) || !heal_own(p->c, r->tparent, error)))
		return FALSE;
	return isd_segment_op_done(p, s, index, error);
}
