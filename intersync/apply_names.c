// SPDX-License-Identifier: GPL-2.0-or-later
/* UNLINK, RMDIR, LINK and RENAME of the server's log. */
#include "apply_pull.h"
#include "conflict.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* --- UNLINK, RMDIR --- */

static gboolean lost_name(IsdClient *c, gint64 id, gint64 parent, const char *name, GError **error)
{
	g_auto(IsdName) n = { 0 };
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	if (!isd_state_drop_name(c->state, parent, name, error) ||
	    !isd_state_a_name(c->state, id, &n, &found, error))
		return FALSE;
	if (!found)
		return isd_want_drop(c, id, error) && isd_state_drop_object(c->state, id, error);
	if (!isd_state_by_id(c->state, id, &o, &found, error) || !found || o.attr.nlink < 2)
		return !error || !*error;
	o.attr.nlink--;
	return isd_state_put_object(c->state, &o, error);
}

/* A name less of a file that stays: its change time moved, nobody says to what. */
static gboolean reread_ctime(IsdClient *c, gint64 id, GError **error)
{
	g_auto(IsdName) n = { 0 };
	g_auto(IsdObject) o = { 0 };
	struct stat st;
	struct kml_oid oid;
	gboolean found;

	if (!isd_state_a_name(c->state, id, &n, &found, error) || !found ||
	    isd_local_stat(c, n.parent, n.name, &st, &oid) ||
	    !isd_state_by_id(c->state, id, &o, &found, error) || !found)
		return !error || !*error;
	if (!isd_oid_equal(o.oid, oid))
		return TRUE;
	o.attr.ctime = (struct kml_time) { st.st_ctim.tv_sec, st.st_ctim.tv_nsec };
	return isd_state_put_object(c->state, &o, error);
}

static gboolean removed(IsdClient *c, gpointer item, const struct izo_reint_result *res,
			GError **error)
{
	IsdApply *it = item;
	int err = GUINT32_FROM_LE(res->error);
	gboolean gone = !err || err == ENOENT;
	g_auto(IsdName) n = { 0 };

	if (err == ESTALE && !res->ino)
		gone = TRUE;
	/* done by an earlier run; or a program was faster, and its record tells where it is */
	if (gone && err && (!isd_client_follow(c, TRUE, error) ||
			    !isd_state_lookup(c->state, it->parent, it->name, &n, &gone, error)))
		return FALSE;
	if (gone && err && n.id != it->id)
		gone = FALSE;
	if (gone)
		return lost_name(c, it->id, it->parent, it->name, error) &&
		       reread_ctime(c, it->id, error) && isd_apply_set_ptime(it->p, it, error);
	if (err == ENOTEMPTY || err == EEXIST || (err == ESTALE && it->tries))
		return isd_client_follow(c, TRUE, error) &&
		       isd_conflict_survive(c, it->id, &it->op->r, error);
	return isd_apply_again(it, res, error);
}

static gboolean queue_remove(IsdPull *p, IsdOp *op, const IsdObject *o, const IsdName *n,
			     guint tries, GError **error)
{
	gboolean dir = S_ISDIR(o->attr.mode);
	struct izo_guard guard = isd_guard_object(o, S_ISREG(o->attr.mode) && o->attr.nlink < 2 ?
						     IZO_G_CTIME | IZO_G_NOWRITER : 0);
	struct kml_record r = { .opcode = dir ? KML_RMDIR : KML_UNLINK, .obj = o->oid };
	g_auto(IsdPlace) at = { 0 };
	gboolean found;
	IsdApply *it;

	if (!isd_place_by_id(p->c, n->parent, &at, &found, error) || !found)
		return !error || !*error;
	isd_place_source(&r, &at, n->name);
	if (op->r.opcode == r.opcode)
		isd_apply_take_ptime(&r, &op->r);
	it = isd_apply_item_new(p, op, tries, o->id);
	it->parent = n->parent;
	it->name = g_strdup(n->name);
	return isd_apply_queue(p, &r, &guard, NULL, 0, removed, it, error);
}

/* Is it the server's name? */
static gboolean is_name(IsdPull *p, const IsdName *n, struct kml_oid dir, struct kml_str name,
			gboolean *ret, GError **error)
{
	g_autofree char *text = isd_str(name);
	g_auto(IsdObject) d = { 0 };

	if (!isd_apply_find_soid(p, dir, &d, ret, error))
		return FALSE;
	*ret = *ret && n->parent == d.id && !strcmp(n->name, text);
	return TRUE;
}

/* The server has removed a name (or replaced what it stood for). */
static gboolean remove_object(IsdPull *p, IsdOp *op, IsdObject *o, struct kml_oid dir,
			      struct kml_str name, guint tries, GError **error)
{
	g_auto(IsdName) n = { 0 };
	gboolean named, same = TRUE;

	if (!isd_apply_find_name(p, o, dir, name, &n, &named, error) ||
	    (named && !is_name(p, &n, dir, name, &same, error)))
		return FALSE;
	/* which of several names here is that one? */
	if (named && !same && o->attr.nlink > 1 && !S_ISDIR(o->attr.mode))
		return isd_heal_add(p->c, o->id, error);
	if (!named && o->oid.ino)
		/* gone on both sides */
		return isd_push_cover(p->c, o->oid, p->c->core->log_recno, 0, error) &&
		       isd_state_drop_object(p->c->state, o->id, error);
	if (named && n.ver >= op->r.recno)
		return TRUE;
	if (named && S_ISREG(o->attr.mode) && o->attr.nlink < 2 && isd_apply_pending_content(p, o))
		return isd_conflict_survive(p->c, o->id, &op->r, error);
	return !named || queue_remove(p, op, o, &n, tries, error);
}

static gboolean remove_wanted(IsdPull *p, const IsdObject *o, struct kml_oid dir,
			      struct kml_str name, GError **error)
{
	g_autofree char *text = isd_str(name);
	g_auto(IsdObject) d = { 0 };
	g_auto(IsdName) n = { 0 };
	gboolean found;

	if (!isd_apply_find_soid(p, dir, &d, &found, error) ||
	    (found && !isd_want_drop_name(p->c, o->id, d.id, text, error)) ||
	    !isd_want_name_of(p->c, o->id, &n, &found, error))
		return FALSE;
	return found || isd_state_drop_object(p->c->state, o->id, error);
}

gboolean isd_apply_remove(IsdPull *p, IsdOp *op, guint tries, GError **error)
{
	const struct kml_record *r = &op->r;
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	if (!isd_apply_find_soid(p, r->obj, &o, &found, error))
		return FALSE;
	if (!found)
		return TRUE;
	if (!o.oid.ino && !S_ISDIR(o.attr.mode))
		return remove_wanted(p, &o, r->parent, r->name, error);
	return remove_object(p, op, &o, r->parent, r->name, tries, error);
}

/* --- LINK --- */

static gboolean linked(IsdClient *c, gpointer item, const struct izo_reint_result *res,
		       GError **error)
{
	IsdApply *it = item;
	IsdName n = { .parent = it->tparent, .name = it->tname, .id = it->id,
		      .ver = it->op->r.recno };
	g_auto(IsdObject) o = { 0 };
	struct stat st;
	struct kml_oid oid;
	gboolean found;

	if (!isd_state_by_id(c->state, it->id, &o, &found, error) || !found)
		return !error || !*error;
	if (res->error && (isd_local_stat(c, it->tparent, it->tname, &st, &oid) ||
			   !isd_oid_equal(oid, o.oid)))
		return isd_apply_again(it, res, error);
	/* done by an earlier run: later records about it may have told the state how many there are */
	o.attr.nlink = res->error ? st.st_nlink : o.attr.nlink + 1;
	if (!isd_state_put_object(c->state, &o, error) || !isd_state_put_name(c->state, &n, error))
		return FALSE;
	return reread_ctime(c, it->id, error) && isd_apply_set_ptime(it->p, it, error);
}

static gboolean queue_link(IsdPull *p, IsdOp *op, const IsdObject *o, const IsdName *from,
			   const IsdPlace *to, const char *tname, guint tries, GError **error)
{
	struct izo_guard guard = isd_guard_object(o, 0), absent = isd_guard_absent();
	struct kml_record r = { .opcode = KML_LINK, .obj = o->oid };
	g_auto(IsdPlace) at = { 0 };
	gboolean found;
	IsdApply *it;

	if (!isd_place_by_id(p->c, from->parent, &at, &found, error) || !found)
		return !error || !*error;
	isd_place_source(&r, &at, from->name);
	isd_place_target(&r, to, tname);
	isd_apply_take_ptime(&r, &op->r);
	r.ptime = at.mtime;	/* a directory that the LINK does not change */
	it = isd_apply_item_new(p, op, tries, o->id);
	it->tparent = to->id;
	it->tname = g_strdup(tname);
	return isd_apply_queue(p, &r, &guard, &absent, 0, linked, it, error);
}

gboolean isd_apply_link(IsdPull *p, IsdOp *op, guint tries, GError **error)
{
	const struct kml_record *r = &op->r;
	g_autofree char *tname = isd_str(r->tname);
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 }, from = { 0 };
	g_auto(IsdPlace) to = { 0 };
	gboolean found, named, bound;

	if (!isd_apply_find_soid(p, r->obj, &o, &found, error) ||
	    (!found && !isd_heal_add_soid(p->c, r->obj, error)))
		return FALSE;
	if (found && !isd_apply_find_place(p, r, r->tparent, &to, &found, error))
		return FALSE;
	if (!found)
		return TRUE;
	if (!o.oid.ino)
		return isd_want_drop_name(p->c, o.id, to.id, tname, error) &&
		       isd_want_add(p->c, o.id, to.id, tname, o.cver, o.attr.size, error);
	if (!isd_state_lookup(p->c->state, to.id, tname, &n, &named, error))
		return FALSE;
	if (named && n.id == o.id)
		return TRUE;
	if (!isd_apply_clear_name(p, op, &to, tname, tries, &bound, error) ||
	    !isd_apply_find_name(p, &o, r->parent, r->name, &from, &named, error))
		return FALSE;
	if (!named)
		return isd_apply_revive_file(p, op, &o, r->tparent, r->tname, error);
	return queue_link(p, op, &o, &from, &to, tname, tries, error);
}

/* --- RENAME --- */

static gboolean put_renamed(IsdApply *it, GError **error)
{
	IsdClient *c = it->p->c;
	const struct kml_record *r = &it->op->r;
	IsdName to = { .parent = it->tparent, .name = it->tname, .id = it->id, .ver = r->recno };
	IsdName back = { .parent = it->parent, .name = it->name, .id = it->other, .ver = r->recno };

	if (!isd_state_drop_name(c->state, it->parent, it->name, error))
		return FALSE;
	if (it->other && !(r->flags & KML_F_EXCHANGE) &&
	    (!lost_name(c, it->other, it->tparent, it->tname, error) ||
	     !reread_ctime(c, it->other, error)))
		return FALSE;
	if (!isd_state_put_name(c->state, &to, error))
		return FALSE;
	if ((r->flags & KML_F_EXCHANGE) && it->other &&
	    (!isd_state_put_name(c->state, &back, error) || !reread_ctime(c, it->other, error)))
		return FALSE;
	return reread_ctime(c, it->id, error) && isd_apply_set_ptime(it->p, it, error);
}

/* The old name is gone and the new one is the object: done before a crash. */
static gboolean is_renamed(IsdApply *it, gboolean *ret, GError **error)
{
	IsdClient *c = it->p->c;
	g_auto(IsdObject) o = { 0 };
	struct stat st;
	struct kml_oid oid;
	gboolean found;

	*ret = FALSE;
	if (!isd_state_by_id(c->state, it->id, &o, &found, error) || !found)
		return !error || !*error;
	*ret = isd_local_stat(c, it->tparent, it->tname, &st, &oid) == 0 &&
		isd_oid_equal(oid, o.oid) &&
		(isd_local_stat(c, it->parent, it->name, &st, &oid) == -ENOENT ||
		 (it->op->r.flags & KML_F_EXCHANGE));
	return TRUE;
}

static gboolean renamed(IsdClient *c, gpointer item, const struct izo_reint_result *res,
			GError **error)
{
	IsdApply *it = item;
	gboolean done = !res->error;

	if (!done && (isd_result_is_fatal(res, error) || !is_renamed(it, &done, error)))
		return FALSE;
	if (done)
		return put_renamed(it, error);
	return (!it->other || isd_local_refresh(it->p->c, it->other, error)) &&
	       isd_apply_again(it, res, error);
}

/*
 * What is at the new name: *ret_other if it is what the server has replaced (or
 * exchanged) there and may be; anything else is moved aside.
 */
static gboolean clear_target(IsdPull *p, IsdOp *op, const IsdPlace *to, const char *tname,
			     gint64 id, IsdObject *ret_other, GError **error)
{
	g_auto(IsdName) n = { 0 };
	g_auto(IsdObject) old = { 0 };
	gboolean found;

	if (!isd_state_lookup(p->c->state, to->id, tname, &n, &found, error))
		return FALSE;
	if (!found || n.id == id)
		return TRUE;
	/* also by a number that it had before a push of ours */
	if ((op->r.has_old && !isd_apply_find_soid(p, op->r.old, &old, &found, error)) ||
	    !isd_state_by_id(p->c->state, n.id, ret_other, &found, error))
		return FALSE;
	if (found && old.id == n.id &&
	    ((op->r.flags & KML_F_EXCHANGE) || !isd_apply_pending_content(p, ret_other)))
		return TRUE;
	isd_object_clear(ret_other);
	memset(ret_other, 0, sizeof(*ret_other));
	return isd_conflict_keep(p->c, n.id, to->id, tname, &op->r, NULL, error);
}

static gboolean queue_rename(IsdPull *p, IsdOp *op, const IsdObject *o, const IsdName *from,
			     const IsdPlace *to, const char *tname, const IsdObject *other,
			     guint tries, GError **error)
{
	gboolean swap = (op->r.flags & KML_F_EXCHANGE) && other->id;
	struct izo_guard guard = isd_guard_object(o, 0), tguard = isd_guard_absent();
	struct kml_record r = { .opcode = KML_RENAME, .obj = o->oid,
				.flags = swap ? KML_F_EXCHANGE : 0 };
	g_auto(IsdPlace) at = { 0 };
	gboolean found, dir = S_ISDIR(o->attr.mode) || S_ISDIR(other->attr.mode);
	IsdApply *it;

	if (!isd_place_by_id(p->c, from->parent, &at, &found, error) || !found)
		return !error || !*error;
	if (other->id)
		tguard = isd_guard_object(other, swap || !S_ISREG(other->attr.mode) ? 0 :
					  IZO_G_CTIME | IZO_G_NOWRITER);
	isd_place_source(&r, &at, from->name);
	isd_place_target(&r, to, tname);
	isd_apply_take_ptime(&r, &op->r);
	it = isd_apply_item_new(p, op, tries, o->id);
	it->other = other->id;
	it->parent = from->parent;
	it->name = g_strdup(from->name);
	it->tparent = to->id;
	it->tname = g_strdup(tname);
	if (!isd_apply_queue(p, &r, &guard, &tguard, 0, renamed, it, error))
		return FALSE;
	/* paths below it are others from now on */
	return !dir || isd_pull_flush(p, error);
}

/* The object that this one has replaced is somewhere else here: it goes, too. */
static gboolean remove_replaced(IsdPull *p, IsdOp *op, guint tries, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	if (!op->r.has_old || (op->r.flags & KML_F_EXCHANGE))
		return TRUE;
	if (!isd_apply_find_soid(p, op->r.old, &o, &found, error))
		return FALSE;
	if (!found || o.attr.nlink > 1)
		return TRUE;
	if (!o.oid.ino)
		return remove_wanted(p, &o, op->r.tparent, op->r.tname, error);
	return remove_object(p, op, &o, op->r.tparent, op->r.tname, tries, error);
}

static gboolean rename_wanted(IsdPull *p, IsdOp *op, const IsdObject *o, const IsdPlace *to,
			      const char *tname, guint tries, GError **error)
{
	const struct kml_record *r = &op->r;
	g_autofree char *name = isd_str(r->name);
	g_auto(IsdObject) from = { 0 }, other = { 0 };
	gboolean found;

	/* what is at the new name has to go where there is nothing to be exchanged yet */
	if (r->flags & KML_F_EXCHANGE)
		return isd_want_drop(p->c, o->id, error) && isd_heal_add(p->c, o->id, error) &&
		       isd_heal_add_soid(p->c, r->old, error);
	if (!isd_apply_find_soid(p, r->parent, &from, &found, error))
		return FALSE;
	if (found && !isd_want_move(p->c, o->id, from.id, name, to->id, tname, error))
		return FALSE;
	if (!clear_target(p, op, to, tname, o->id, &other, error))
		return FALSE;
	if (!other.id)
		return remove_replaced(p, op, tries, error);
	return remove_object(p, op, &other, r->tparent, r->tname, tries, error);
}

/* Renamed on both sides: the server's name counts; if it is not the same the other one is noted. */
static gboolean renamed_on_both(IsdPull *p, const IsdOp *op, const IsdObject *o,
				const IsdName *from, const IsdPlace *to, const char *tname,
				GError **error)
{
	if (!isd_push_void_renames(p->c, o->id, 0, error))
		return FALSE;
	if (from->parent == to->id && !strcmp(from->name, tname))
		return TRUE;
	return isd_conflict_note(p->c, ISD_CONFLICT_RENAME, o->id, to->id, tname, from->parent,
				 from->name, &op->r, error);
}

/*
 * An earlier run has renamed it and was killed before that was written down, and here the old name is
 * something else by now.
 */
static gboolean was_renamed(IsdPull *p, const IsdOp *op, const IsdObject *o, const IsdPlace *to,
			    const char *tname, gboolean *ret, GError **error)
{
	IsdClient *c = p->c;
	IsdName n = { .parent = to->id, .name = (char *)tname, .id = o->id, .ver = op->r.recno };
	g_auto(IsdName) there = { 0 };
	struct kml_oid oid;
	struct stat st;
	gboolean found;

	*ret = isd_local_stat(c, to->id, tname, &st, &oid) == 0 && isd_oid_equal(oid, o->oid);
	if (!*ret)
		return TRUE;
	if (!isd_state_lookup(c->state, to->id, tname, &there, &found, error) ||
	    (found && !lost_name(c, there.id, to->id, tname, error)))
		return FALSE;
	return isd_state_put_name(c->state, &n, error) && reread_ctime(c, o->id, error);
}

gboolean isd_apply_rename(IsdPull *p, IsdOp *op, guint tries, GError **error)
{
	const struct kml_record *r = &op->r;
	g_autofree char *tname = isd_str(r->tname);
	g_auto(IsdObject) o = { 0 }, other = { 0 };
	g_auto(IsdName) from = { 0 };
	g_auto(IsdPlace) to = { 0 };
	gboolean found, named, same;

	if (!isd_apply_find_soid(p, r->obj, &o, &found, error))
		return FALSE;
	if (!found)
		/* gone here, as we knew it: the server may have moved it before */
		return isd_heal_add_soid(p->c, r->obj, error) &&
		       remove_replaced(p, op, tries, error);
	if (!isd_apply_find_place(p, r, r->tparent, &to, &found, error))
		return FALSE;
	if (!found)
		return TRUE;
	if (!o.oid.ino)
		return rename_wanted(p, op, &o, &to, tname, tries, error);
	if (!isd_apply_find_name(p, &o, r->parent, r->name, &from, &named, error))
		return FALSE;
	if (!named && !was_renamed(p, op, &o, &to, tname, &found, error))
		return FALSE;
	if (!named && found)
		return TRUE;
	if (!named)
		return remove_replaced(p, op, tries, error) && isd_pull_flush(p, error) &&
		       isd_apply_revive_file(p, op, &o, r->tparent, r->tname, error);
	if (from.ver >= r->recno)
		return TRUE;
	if (!is_name(p, &from, r->parent, r->name, &same, error))
		return FALSE;
	/* which of several names here is that one? */
	if (!same && o.attr.nlink > 1 && !S_ISDIR(o.attr.mode))
		return isd_heal_add(p->c, o.id, error) && remove_replaced(p, op, tries, error);
	if (isd_push_is_pending(p->c, o.oid, from.lver) &&
	    !renamed_on_both(p, op, &o, &from, &to, tname, error))
		return FALSE;
	if (S_ISDIR(o.attr.mode)) {
		if (!isd_conflict_break_cycle(p->c, o.id, to.id, r, &found, error))
			return FALSE;
		if (found)
			return isd_apply_rename(p, op, tries, error);
	}
	if (!clear_target(p, op, &to, tname, o.id, &other, error))
		return FALSE;
	/* one of them has another name here: what does not come out right is put right later */
	if ((r->flags & KML_F_EXCHANGE) && (!same || !other.id) && (!isd_heal_add(p->c, o.id, error) || !isd_heal_add_soid(p->c, r->old, error)))
		return FALSE;
	if (from.parent == to.id && !strcmp(from.name, tname)) {
		from.ver = r->recno;
		return isd_state_put_name(p->c->state, &from, error) &&
		       remove_replaced(p, op, tries, error);
	}
	if (!other.id && !remove_replaced(p, op, tries, error))
		return FALSE;
	return queue_rename(p, op, &o, &from, &to, tname, &other, tries, error);
}
