// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Where both sides have changed the same thing, nothing is lost: the server's
 * version has the name, and the local one stays beside it under a name that says
 * so, or under its own if the server has removed its.  Each decision is an entry in the table
 * of conflicts.  Called by attach.c, want.c and the apply_*.c.
 */
#include "conflict.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "util.h"

#define NAME_BYTES	255
#define PEER_BYTES	64
#define EXT_BYTES	32	/* a longer one is no extension */
#define TRIES		1000
#define DEPTH_MAX	100000	/* of directories in each other */

/* Where the extension begins: ".gz" of "a.tar.gz", nothing of ".profile". */
static const char *conflict_extension(const char *name)
{
	const char *dot = strrchr(name, '.');

	if (!dot || dot == name || strlen(dot) > EXT_BYTES || !dot[1])
		return name + strlen(name);
	return dot;
}

/* Not in the middle of a character, if it is UTF-8. */
static gsize conflict_cut(const char *name, gsize len, gsize max)
{
	if (len <= max)
		return len;
	while (max && ((guchar)name[max] & 0xc0) == 0x80)
		max--;
	return max;
}

char *isd_conflict_name(const char *name, const char *peer, gint64 now, guint n)
{
	const char *ext = conflict_extension(name);
	g_autoptr(GDateTime) t = g_date_time_new_from_unix_utc(now);
	g_autofree char *stamp = g_date_time_format(t, "%Y%m%dT%H%M%SZ");
	g_autofree char *who = g_strndup(peer, conflict_cut(peer, strlen(peer), PEER_BYTES));
	g_autofree char *again = n ? g_strdup_printf("-%u", n) : g_strdup("");
	g_autofree char *middle = NULL;
	gsize keep;

	g_strdelimit(who, "/", '-');
	middle = g_strdup_printf(ISD_CONFLICT_MARK "%s-%s%s", who, stamp, again);
	keep = conflict_cut(name, ext - name, NAME_BYTES - strlen(middle) - strlen(ext));
	return g_strdup_printf("%.*s%s%s", (int)keep, name, middle, ext);
}

/* --- entries --- */

/* Who has made a version that the server has. */
static char *peer_of(IsdClient *c, const struct kml_record *r)
{
	char uuid[UUID_TEXT];

	if (!r || !r->has_origin)
		return g_strdup(c->server);
	uuid_format(r->origin_replica, uuid);
	return g_strdup(uuid);
}

static void entry_begin(IsdClient *c, IsdConflict *e, IsdConflictKind kind, const IsdObject *o,
			const struct kml_record *theirs)
{
	e->kind = kind;
	e->time = g_get_real_time() / G_USEC_PER_SEC;
	e->recno = c->core->log_recno;
	e->id = o->id;
	e->mine = o->attr;
	e->peer = peer_of(c, theirs);
	if (theirs && theirs->has_attr)
		e->theirs = theirs->attr;
}

static void entry_log(IsdClient *c, const IsdConflict *e)
{
	g_autofree char *path = isd_conflict_path(c, e->parent, e->name);
	g_autofree char *cpath = isd_conflict_path(c, e->cparent, e->cname);

	isd_log(5, c->server, 0, "conflict %" G_GINT64_FORMAT ", %s: %s%s%s", e->no,
		isd_conflict_kind(e->kind), path ? path : e->name,
		g_strcmp0(path, cpath) ? ", the version of here is " : "",
		g_strcmp0(path, cpath) ? (cpath ? cpath : e->cname) : "");
}

static gboolean entry_note(IsdClient *c, IsdConflict *e, GError **error)
{
	if (!isd_client_begin(c, error) || !isd_conflict_add(c, e, error))
		return FALSE;
	entry_log(c, e);
	return TRUE;
}

/*
 * What was done here in this directory is not sent, but its mtime is: otherwise nobody could
 * say which one all are to have.
 */
static gboolean touch_dir(IsdClient *c, gint64 id, GError **error)
{
	g_auto(IsdName) n = { 0 };
	gboolean found;

	if (id == ISD_ROOT_ID) {
		isd_local_touch(c, id, ".");
		return TRUE;
	}
	if (!isd_state_a_name(c->state, id, &n, &found, error))
		return FALSE;
	if (found)
		isd_local_touch(c, n.parent, n.name);
	return TRUE;
}

gboolean isd_conflict_note(IsdClient *c, IsdConflictKind kind, gint64 id, gint64 parent,
			   const char *name, gint64 cparent, const char *cname,
			   const struct kml_record *theirs, GError **error)
{
	IsdConflict e = { 0 };
	g_auto(IsdObject) o = { 0 };
	gboolean found, known, ok;

	if (!touch_dir(c, parent, error) || (cparent != parent && !touch_dir(c, cparent, error)) ||
	    !isd_client_follow(c, TRUE, error) ||
	    !isd_state_by_id(c->state, id, &o, &found, error) ||
	    !isd_conflict_is_known(c, kind, id, &known, error))
		return FALSE;
	if (!found || known)
		return TRUE;
	entry_begin(c, &e, kind, &o, theirs);
	e.parent = parent;
	e.name = (char *)name;
	e.cparent = cparent;
	e.cname = (char *)cname;
	e.policy = isd_policy_applies(c, &e, &o, theirs);
	ok = entry_note(c, &e, error);
	g_free(e.peer);
	return ok;
}

/* --- a copy under a name of its own --- */

/* One of the further names that the server has, too: it is the server's version's. */
static gboolean give_name(IsdClient *c, IsdObject *o, const IsdName *n, gint64 to, guint64 version,
			  GError **error)
{
	struct izo_guard guard = isd_guard_object(o, 0);
	struct kml_record r = { .opcode = KML_UNLINK, .obj = o->oid };
	struct izo_reint_result res;
	g_auto(IsdPlace) at = { 0 };
	gboolean found;

	if (!isd_place_by_id(c, n->parent, &at, &found, error) || !found)
		return !error || !*error;
	isd_place_source(&r, &at, n->name);
	r.has_ptime = true;
	r.ptime = at.mtime;
	if (!isd_reint_one(c, &r, &guard, NULL, 0, &res, error))
		return FALSE;
	/* not that object any more: a local program was faster, and its record tells */
	if (res.error && res.ino)
		return !isd_result_is_fatal(&res, error);
	o->attr.nlink--;
	return isd_state_drop_name(c->state, n->parent, n->name, error) &&
	       isd_want_add(c, to, n->parent, n->name, version, o->attr.size, error);
}

/* Of a file with several names the version of here has the copy's, and links that are not sent yet. */
static gboolean give_names(IsdClient *c, IsdObject *o, gint64 to, guint64 version, GError **error)
{
	g_autoptr(GArray) names = NULL;
	gboolean ok = TRUE;

	if (o->attr.nlink < 2)
		return TRUE;
	if (!isd_state_names(c->state, o->id, &names, error))
		return FALSE;
	for (guint i = 0; i < names->len && ok; i++) {
		const IsdName *n = &g_array_index(names, IsdName, i);

		if (!isd_push_is_pending(c, o->oid, n->lver))
			ok = give_name(c, o, n, to, version, error);
	}
	return ok;
}

/* The server's object gets a row of its own, and wants the names that this one had. */
static gboolean conflict_split(IsdClient *c, IsdObject *o, gint64 parent, const char *name,
			       gint64 *ret_new_id, GError **error)
{
	g_auto(IsdObject) theirs = {
		.soid = o->soid, .attr = o->attr, .cver = 0, .aver = o->aver,
	};
	g_autoptr(GBytes) xattrs = NULL;
	guint64 version = o->cver;

	o->soid = (struct kml_oid) { 0 };
	o->cver = o->aver = 0;
	if (!isd_state_put_object(c->state, o, error) ||
	    !isd_state_add_object(c->state, &theirs, error) ||
	    !isd_state_xattrs(c->state, o->id, &xattrs, error))
		return FALSE;
	if (xattrs && !isd_obj_put_xattrs(c->state, theirs.id, g_bytes_get_data(xattrs, NULL),
					  g_bytes_get_size(xattrs), error))
		return FALSE;
	*ret_new_id = theirs.id;
	/* its attributes may be those of here */
	return isd_heal_add(c, theirs.id, error) && isd_want_drop(c, o->id, error) &&
	       isd_want_add(c, theirs.id, parent, name, version, o->attr.size, error) &&
	       give_names(c, o, theirs.id, version, error) &&
	       isd_state_put_object(c->state, o, error);
}

/* What the server learns of it: a new file, or that the object is called otherwise now. */
static gboolean conflict_tell(IsdClient *c, IsdObject *o, const IsdConflict *e,
			      gint64 *ret_new_id, GError **error)
{
	guint64 renamed;

	/* unless its creation is just on its way: then it is a rename */
	if (!o->soid.ino && !isd_push_is_on_its_way(c, o->oid) &&
	    !isd_push_cover(c, o->oid, e->recno, 0, error))
		return FALSE;
	/* another one has its name there: it is called otherwise, and what was written goes there */
	if (o->soid.ino && !S_ISDIR(o->attr.mode) && e->kind != ISD_CONFLICT_NAME &&
	    isd_push_is_pending(c, o->oid, o->lcver))
		return conflict_split(c, o, e->parent, e->name, ret_new_id, error) &&
		       isd_push_cover(c, o->oid, e->recno, 0, error);
	if (!S_ISDIR(o->attr.mode) && o->attr.nlink > 1)
		return TRUE;
	return isd_push_last_rename(c, o->id, &renamed, error) &&
	       isd_push_void_renames(c, o->id, renamed, error);
}

/* The tree has the copy: now the state. */
static gboolean conflict_made(IsdClient *c, const IsdConflict *e, gint64 *ret_new_id,
			      GError **error)
{
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	if (!isd_state_by_id(c->state, e->id, &o, &found, error) ||
	    (found && !conflict_tell(c, &o, e, ret_new_id, error)) ||
	    !isd_conflict_is_there(c, e->no, error))
		return FALSE;
	entry_log(c, e);
	/* the tree has it: the state must not forget */
	return isd_client_commit(c, error) && isd_client_begin(c, error);
}

/* A name that nothing has; some are tried. */
static gboolean conflict_choose(IsdClient *c, IsdConflict *e, guint *n, GError **error)
{
	g_auto(IsdName) there = { 0 };
	gboolean taken = TRUE;

	while (taken && *n < TRIES) {
		g_free(e->cname);
		e->cname = isd_conflict_name(e->name, c->core->name, e->time, (*n)++);
		if (!isd_state_lookup(c->state, e->cparent, e->cname, &there, &taken, error))
			return FALSE;
		isd_name_clear(&there);
	}
	return TRUE;
}

/*
 * What is to be done is in the state before the tree has it: after a crash in between it
 * is still known whose version that copy is.  *ret_err 0 and *ret_done FALSE: the old name is gone.
 */
static gboolean conflict_rename(IsdClient *c, IsdConflict *e, gboolean *ret_done, int *ret_err,
				GError **error)
{
	guint n = 0;

	e->planned = TRUE;
	do {
		if (!conflict_choose(c, e, &n, error) || !isd_conflict_add(c, e, error) ||
		    !isd_client_commit(c, error))
			return FALSE;
		isd_fault("conflict-planned");
		*ret_err = isd_local_rename(c, e->parent, e->name, e->cname);
		isd_fault("conflict-renamed");
		if (!isd_client_begin(c, error) ||
		    (*ret_err && !isd_conflict_drop(c, e->no, error)))
			return FALSE;
	} while (*ret_err == -EEXIST && n < TRIES);
	*ret_done = !*ret_err;
	if (*ret_err == -ENOENT)
		*ret_err = 0;
	return TRUE;
}

static IsdConflictKind kind_of(const IsdObject *o, const struct kml_record *theirs)
{
	guint32 type = theirs->opcode == KML_CLOSE || theirs->opcode == KML_RESYNC ? S_IFREG :
		theirs->has_attr ? theirs->attr.mode & S_IFMT : 0;

	if (type && type != (o->attr.mode & S_IFMT))
		return ISD_CONFLICT_TYPE;
	if (theirs->opcode == KML_CLOSE || theirs->opcode == KML_RESYNC)
		return ISD_CONFLICT_UPDATE;
	/* another version of it that was moved over it */
	return theirs->opcode == KML_RENAME && theirs->has_old &&
	       isd_oid_equal(theirs->old, o->soid) ? ISD_CONFLICT_UPDATE : ISD_CONFLICT_NAME;
}

static gboolean conflict_copy(IsdClient *c, IsdConflict *e, gint64 *ret_new_id, GError **error)
{
	gboolean done;
	int err;

	if (!conflict_rename(c, e, &done, &err, error))
		return FALSE;
	if (err) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED,
			    "%s/%s cannot be moved out of the way: %s", c->core->dir, e->name,
			    g_strerror(-err));
		return FALSE;
	}
	return isd_client_follow(c, TRUE, error) &&
	       (!done || conflict_made(c, e, ret_new_id, error));
}

gboolean isd_conflict_keep(IsdClient *c, gint64 id, gint64 parent, const char *name,
			   const struct kml_record *theirs, gint64 *ret_new_id, GError **error)
{
	g_auto(IsdConflict) e = { 0 };
	g_auto(IsdObject) o = { 0 };
	gint64 new_id = 0;
	gboolean found;

	if (!isd_client_follow(c, TRUE, error) ||
	    !isd_state_by_id(c->state, id, &o, &found, error))
		return FALSE;
	if (found) {
		entry_begin(c, &e, kind_of(&o, theirs), &o, theirs);
		e.parent = e.cparent = parent;
		e.name = g_strdup(name);
		e.policy = isd_policy_applies(c, &e, &o, theirs);
		if (!conflict_copy(c, &e, &new_id, error))
			return FALSE;
	}
	if (ret_new_id)
		*ret_new_id = new_id;
	return TRUE;
}

/* One that was planned when the program ended: has the copy got its name? */
static gboolean recover_one(IsdClient *c, const IsdConflict *e, GError **error)
{
	g_auto(IsdName) n = { 0 };
	gboolean found;
	gint64 new_id;

	if (!isd_state_lookup(c->state, e->cparent, e->cname, &n, &found, error))
		return FALSE;
	if (found && n.id == e->id)
		return conflict_made(c, e, &new_id, error);
	return isd_conflict_drop(c, e->no, error);
}

gboolean isd_conflict_recover(IsdClient *c, GError **error)
{
	gboolean found = TRUE;
	gint64 after = 0;

	if (!isd_client_begin(c, error))
		return FALSE;
	while (found) {
		g_auto(IsdConflict) e = { 0 };

		if (!isd_conflict_next(c, ISD_CONFLICT_PLANNED, after, &e, &found, error) ||
		    (found && !recover_one(c, &e, error)))
			return FALSE;
		after = e.no;
	}
	return TRUE;
}

/* --- two directories moved into each other --- */

/* On the way up from `id` to the directory `top`: one that was moved here; 0: there is none. */
static gboolean find_moved(IsdClient *c, gint64 id, gint64 top, gint64 *ret_id, IsdName *ret,
			   GError **error)
{
	*ret_id = 0;
	for (guint depth = 0; id != top; depth++) {
		g_auto(IsdName) n = { 0 };
		g_auto(IsdObject) o = { 0 };
		gboolean found = id != ISD_ROOT_ID && depth < DEPTH_MAX, known;

		if (found && (!isd_state_a_name(c->state, id, &n, &found, error) ||
			      !isd_state_by_id(c->state, id, &o, &known, error)))
			return FALSE;
		if (!found) {
			*ret_id = 0;
			return TRUE;
		}
		if (!*ret_id && isd_push_is_pending(c, o.oid, n.lver)) {
			*ret_id = id;
			*ret = n;
			memset(&n, 0, sizeof(n));
			id = ret->parent;
		} else {
			id = n.parent;
		}
	}
	return TRUE;
}

/* The directory goes back to where the server has it, which does not hear of its move. */
static gboolean undo_move(IsdClient *c, gint64 id, const IsdName *now, const IsdName *was,
			  gboolean *ret_done, GError **error)
{
	IsdName back = { .parent = was->parent, .name = was->name, .id = id };
	struct kml_record r = { .opcode = KML_RENAME };
	struct izo_guard guard, absent = isd_guard_absent();
	g_auto(IsdPlace) from = { 0 }, to = { 0 };
	g_auto(IsdObject) o = { 0 };
	struct izo_reint_result res;
	gboolean found;

	if (!isd_state_by_id(c->state, id, &o, &found, error) ||
	    !isd_place_by_id(c, now->parent, &from, &found, error) ||
	    (found && !isd_place_by_id(c, was->parent, &to, &found, error)))
		return FALSE;
	if (!found)
		return TRUE;
	r.obj = o.oid;
	isd_place_source(&r, &from, now->name);
	isd_place_target(&r, &to, was->name);
	guard = isd_guard_object(&o, 0);
	if (!isd_reint_one(c, &r, &guard, &absent, 0, &res, error))
		return FALSE;
	if (res.error)
		return !isd_result_is_fatal(&res, error);
	*ret_done = TRUE;
	return isd_push_void_renames(c, id, 0, error) &&
	       isd_state_drop_name(c->state, now->parent, now->name, error) &&
	       isd_state_put_name(c->state, &back, error);
}

gboolean isd_conflict_break_cycle(IsdClient *c, gint64 moved, gint64 into,
				  const struct kml_record *theirs, gboolean *ret_done, GError **error)
{
	g_auto(IsdName) now = { 0 }, was = { 0 }, there = { 0 };
	gboolean found;
	gint64 id;

	*ret_done = FALSE;
	if (!find_moved(c, into, moved, &id, &now, error) ||
	    (id && !isd_push_first_rename(c, id, &was, &found, error)))
		return FALSE;
	if (!id || !found)
		return TRUE;
	if (!isd_state_lookup(c->state, was.parent, was.name, &there, &found, error) ||
	    (found && !isd_conflict_keep(c, there.id, was.parent, was.name, theirs, NULL, error)))
		return FALSE;
	if (!undo_move(c, id, &now, &was, ret_done, error) || !*ret_done)
		return !error || !*error;
	return isd_conflict_note(c, ISD_CONFLICT_CYCLE, id, was.parent, was.name, now.parent,
				 now.name, theirs, error);
}

/* --- removed there, changed here --- */

gboolean isd_conflict_survive(IsdClient *c, gint64 id, const struct kml_record *theirs,
			      GError **error)
{
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 };
	gboolean found, named;

	if (!isd_state_by_id(c->state, id, &o, &found, error) ||
	    !isd_state_a_name(c->state, id, &n, &named, error))
		return FALSE;
	if (!found || !named)
		return TRUE;
	if (!isd_conflict_note(c, S_ISDIR(o.attr.mode) ? ISD_CONFLICT_INTO_DELETE :
			       ISD_CONFLICT_UPDATE_DELETE, id, n.parent, n.name, n.parent, n.name,
			       theirs, error))
		return FALSE;
	o.soid = (struct kml_oid) { 0 };
	o.cver = o.aver = 0;
	if (!isd_state_put_object(c->state, &o, error) || !isd_want_drop(c, id, error))
		return FALSE;
	if (!S_ISDIR(o.attr.mode) && isd_push_is_pending(c, o.oid, o.lcver))
		return TRUE;
	/* a record that its creation on the server can hang on */
	isd_local_touch(c, n.parent, n.name);
	return isd_client_follow(c, TRUE, error);
}
