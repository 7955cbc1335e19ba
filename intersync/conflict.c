// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Where both sides have changed the same thing, nothing is lost: the server's
 * version has the name, and the local one stays beside it under a name that says
 * so, or under its own if the server has removed its. Called by attach.c,
 * want.c and pull.c.
 */
#include "client.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define NAME_BYTES	255
#define PEER_BYTES	64
#define EXT_BYTES	32	/* a longer one is no extension */
#define TRIES		1000

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
	middle = g_strdup_printf(".conflict-%s-%s%s", who, stamp, again);
	keep = conflict_cut(name, ext - name, NAME_BYTES - strlen(middle) - strlen(ext));
	return g_strdup_printf("%.*s%s%s", (int)keep, name, middle, ext);
}

/* The new name, or NULL if the old one is gone (*ret_err 0) or cannot be moved. */
static char *conflict_rename(IsdClient *c, gint64 parent, const char *name, int *ret_err)
{
	gint64 now = g_get_real_time() / G_USEC_PER_SEC;

	for (guint n = 0; n < TRIES; n++) {
		g_autofree char *to = isd_conflict_name(name, c->core->name, now, n);
		int err = isd_local_rename(c, parent, name, to);

		*ret_err = err == -ENOENT ? 0 : err;
		if (!err)
			return g_steal_pointer(&to);
		if (err != -EEXIST)
			break;
	}
	return NULL;
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
	return isd_want_drop(c, o->id, error) &&
	       isd_want_add(c, theirs.id, parent, name, version, o->attr.size, error);
}

static gboolean conflict_count(IsdClient *c, const char *from, const char *to, GError **error)
{
	guint64 n;

	isd_log(5, c->server, 0, "conflict: the local version of %s is kept as %s", from, to);
	return isd_state_get_u64(c->state, "conflicts", &n, error) &&
	       isd_state_set_u64(c->state, "conflicts", n + 1, error);
}

/* What the server learns of it: a new file, or that the object is called otherwise now. */
static gboolean conflict_tell(IsdClient *c, IsdObject *o, gint64 parent, const char *name,
			      guint64 upto, gint64 *ret_new_id, GError **error)
{
	guint64 renamed;

	if (!o->soid.ino)
		return isd_push_cover(c, o->oid, upto, 0, error);
	if (!S_ISDIR(o->attr.mode) && isd_push_is_pending(c, o->oid, o->lcver))
		return isd_push_cover(c, o->oid, upto, 0, error) &&
		       conflict_split(c, o, parent, name, ret_new_id, error);
	if (!S_ISDIR(o->attr.mode) && o->attr.nlink > 1)
		return TRUE;
	return isd_push_last_rename(c, o->id, &renamed, error) &&
	       isd_push_void_renames(c, o->id, renamed, error);
}

gboolean isd_conflict_keep(IsdClient *c, gint64 id, gint64 parent, const char *name,
			   gint64 *ret_new_id, GError **error)
{
	g_autofree char *to = NULL;
	g_auto(IsdObject) o = { 0 };
	gint64 new_id = 0;
	guint64 upto;
	gboolean found;
	int err;

	if (!isd_client_follow(c, TRUE, error))
		return FALSE;
	upto = c->core->log_recno;
	to = conflict_rename(c, parent, name, &err);
	if (err) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED,
			    "%s/%s cannot be moved out of the way: %s", c->core->dir, name,
			    g_strerror(-err));
		return FALSE;
	}
	if (!isd_client_follow(c, TRUE, error) ||
	    !isd_state_by_id(c->state, id, &o, &found, error) ||
	    (to && found && !conflict_tell(c, &o, parent, name, upto, &new_id, error)) ||
	    (to && !conflict_count(c, name, to, error)))
		return FALSE;
	if (ret_new_id)
		*ret_new_id = new_id;
	/* the tree has it: the state must not forget */
	return isd_client_commit(c, error) && isd_client_begin(c, error);
}

gboolean isd_conflict_survive(IsdClient *c, gint64 id, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 };
	gboolean found, named;

	if (!isd_state_by_id(c->state, id, &o, &found, error) ||
	    !isd_state_a_name(c->state, id, &n, &named, error))
		return FALSE;
	if (!found || !named)
		return TRUE;
	o.soid = (struct kml_oid) { 0 };
	o.cver = o.aver = 0;
	if (!isd_state_put_object(c->state, &o, error) || !isd_want_drop(c, id, error))
		return FALSE;
	isd_log(5, c->server, 0, "conflict: %s was removed on the server and changed here: it stays",
		n.name);
	if (!S_ISDIR(o.attr.mode) && isd_push_is_pending(c, o.oid, o.lcver))
		return TRUE;
	/* a record that its creation on the server can hang on */
	isd_local_touch(c, n.parent, n.name);
	return isd_client_follow(c, TRUE, error);
}
