// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What `izoctl conflicts` and `izoctl resolve` ask of a client; called by control.c.  Paths are
 * written as kmlprint writes names, so that any byte can be in them.
 */
#include "conflict.h"

#include <stdlib.h>
#include <string.h>

#include "daemon.h"
#include "util.h"

#define LIST_MAX	500	/* entries in one answer */

static char *shown_path(IsdClient *c, gint64 parent, const char *name)
{
	g_autofree char *path = isd_conflict_path(c, parent, name);
	char *text = name_escape(path ? path : name, strlen(path ? path : name));
	char *ret = g_strdup(text);

	free(text);
	return ret;
}

/* --- the list --- */

static void list_version(JsonBuilder *b, const char *name, const struct kml_attrs *a)
{
	json_builder_set_member_name(b, name);
	json_builder_begin_object(b);
	if (a->mtime.sec || a->mtime.nsec) {
		isd_json_number(b, "size", a->size);
		isd_json_number(b, "mtime", a->mtime.sec);
		isd_json_number(b, "mtime_nsec", a->mtime.nsec);
	}
	if (a->mode)
		isd_json_number(b, "mode", a->mode);
	json_builder_end_object(b);
}

static gboolean is_removed(const IsdConflict *e, gboolean here)
{
	return here ? e->kind == ISD_CONFLICT_DELETE_UPDATE || e->kind == ISD_CONFLICT_DELETE_INTO :
		e->kind == ISD_CONFLICT_UPDATE_DELETE || e->kind == ISD_CONFLICT_INTO_DELETE;
}

static void list_entry(IsdClient *c, const IsdConflict *e, JsonBuilder *b)
{
	g_autofree char *path = shown_path(c, e->parent, e->name);
	g_autofree char *cpath = shown_path(c, e->cparent, e->cname);

	json_builder_begin_object(b);
	isd_json_number(b, "conflict", e->no);
	isd_json_text(b, "kind", isd_conflict_kind(e->kind));
	isd_json_text(b, "path", path);
	if (strcmp(path, cpath))
		isd_json_text(b, isd_conflict_has_copy(e->kind) ? "copy" : "client_path", cpath);
	isd_json_number(b, "time", e->time);
	isd_json_text(b, "peer", e->peer);
	if (e->policy == ISD_BY_CHOICE)
		isd_json_text(b, "chosen", "client");
	if (!is_removed(e, FALSE))
		list_version(b, "server", &e->theirs);
	if (!is_removed(e, TRUE))
		list_version(b, "client", &e->mine);
	json_builder_end_object(b);
}

gboolean isd_client_conflicts(IsdCore *core, gint64 after, JsonBuilder *b, GError **error)
{
	IsdClient *c = core->role;
	gboolean found = TRUE;
	guint n = 0;

	if (!isd_client_follow(c, TRUE, error) || !isd_conflict_prune(c, error))
		return FALSE;
	json_builder_set_member_name(b, "conflicts");
	json_builder_begin_array(b);
	while (n < LIST_MAX) {
		g_auto(IsdConflict) e = { 0 };

		if (!isd_conflict_next(c, ISD_CONFLICT_ALL, after, &e, &found, error))
			return FALSE;
		if (!found)
			break;
		after = e.no;
		if (e.planned)
			continue;
		list_entry(c, &e, b);
		n++;
	}
	json_builder_end_array(b);
	if (found)
		isd_json_number(b, "after", after);
	return TRUE;
}

/* --- settling one --- */

static gboolean refuse(GError **error, const char *what, const char *why)
{
	g_set_error(error, ISD_ERROR, ISD_ERROR_REFUSED, "%s: %s", what, why);
	return FALSE;
}

static gboolean is_path(const char *what, const char *raw, const char *shown)
{
	return !strcmp(what, raw) || !strcmp(what, shown);
}

/* Is it called so, in either version? */
static gboolean has_path(IsdClient *c, const IsdConflict *e, const char *raw, const char *shown)
{
	g_autofree char *path = shown_path(c, e->parent, e->name);
	g_autofree char *cpath = shown_path(c, e->cparent, e->cname);

	return is_path(path, raw, shown) || is_path(cpath, raw, shown);
}

/* what: as people typed it, escaped once more. */
static gboolean find_by_path(IsdClient *c, const char *raw, const char *shown, IsdConflict *ret,
			     GError **error)
{
	gboolean found = TRUE, have = FALSE;
	gint64 after = 0;

	while (found) {
		g_auto(IsdConflict) e = { 0 };

		if (!isd_conflict_next(c, ISD_CONFLICT_ALL, after, &e, &found, error))
			return FALSE;
		after = e.no;
		if (!found || e.planned || !has_path(c, &e, raw, shown))
			continue;
		if (have)
			return refuse(error, raw, "several conflicts are about it: name one by its "
				      "number, see izoctl conflicts");
		*ret = e;
		memset(&e, 0, sizeof(e));
		have = TRUE;
	}
	return have || refuse(error, raw, "no conflict is about it: see izoctl conflicts");
}

static gboolean find_by_number(IsdClient *c, const char *what, gint64 no, IsdConflict *ret,
			       GError **error)
{
	gboolean found;

	if (!isd_conflict_next(c, ISD_CONFLICT_ALL, no - 1, ret, &found, error))
		return FALSE;
	return (found && ret->no == no && !ret->planned) ||
	       refuse(error, what, "there is no conflict of this number (any more): see izoctl conflicts");
}

static gboolean find_conflict(IsdClient *c, const char *raw, const char *shown, IsdConflict *ret,
			      GError **error)
{
	char *end;
	guint64 no = g_ascii_strtoull(raw, &end, 10);

	if (g_ascii_isdigit(*raw) && !*end && no && no <= G_MAXINT64)
		return find_by_number(c, raw, no, ret, error);
	return find_by_path(c, raw, shown, ret, error);
}

static gboolean choice(const char *keep, IsdKeep *ret)
{
	*ret = !strcmp(keep, "server") ? ISD_KEEP_SERVER : !strcmp(keep, "client") ?
		ISD_KEEP_CLIENT : ISD_KEEP_BOTH;
	return *ret != ISD_KEEP_BOTH || !strcmp(keep, "both");
}

gboolean isd_client_resolve(IsdCore *core, const char *raw, const char *shown, const char *keep,
			    GError **error)
{
	IsdClient *c = core->role;
	g_auto(IsdConflict) e = { 0 };
	IsdKeep how;

	if (!choice(keep, &how))
		return refuse(error, keep, "one of server, client and both can be kept");
	if (!isd_client_follow(c, TRUE, error) || !isd_conflict_prune(c, error) ||
	    !find_conflict(c, raw, shown, &e, error) || !isd_settle(c, &e, how, error))
		return FALSE;
	isd_log(5, c->server, 0, "conflict %" G_GINT64_FORMAT ", %s: settled, kept: %s", e.no,
		e.name, keep);
	if (c->push)
		isd_push_kick(c->push);
	isd_client_progress(c);
	return TRUE;
}
