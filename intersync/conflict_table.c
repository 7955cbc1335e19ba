// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The table of conflicts in the client's state.  An entry is made in the transaction in which
 * the decision is taken, and stays until the conflict is settled: by izoctl, by a
 * policy, or by somebody who removes the copy or gives it a name of its own.
 */
#include "conflict.h"

#include <string.h>

#define PRUNE_STEP	256
#define KINDS_WITH_COPY	"1, 4, 5"	/* what isd_conflict_has_copy() says */

static const char *const kinds[] = {
	[ISD_CONFLICT_UPDATE] = "update/update",
	[ISD_CONFLICT_UPDATE_DELETE] = "update/delete",
	[ISD_CONFLICT_DELETE_UPDATE] = "delete/update",
	[ISD_CONFLICT_NAME] = "name/name",
	[ISD_CONFLICT_TYPE] = "type/type",
	[ISD_CONFLICT_RENAME] = "rename/rename",
	[ISD_CONFLICT_INTO_DELETE] = "into/delete",
	[ISD_CONFLICT_DELETE_INTO] = "delete/into",
	[ISD_CONFLICT_CYCLE] = "cycle",
};

const char *isd_conflict_kind(IsdConflictKind kind)
{
	return kind < G_N_ELEMENTS(kinds) && kinds[kind] ? kinds[kind] : "unknown";
}

void isd_conflict_clear(IsdConflict *e)
{
	g_clear_pointer(&e->name, g_free);
	g_clear_pointer(&e->cname, g_free);
	g_clear_pointer(&e->peer, g_free);
	g_clear_pointer(&e->spans, g_bytes_unref);
}

gboolean isd_conflict_add(IsdClient *c, IsdConflict *e, GError **error)
{
	if (!isd_sql_run(c->state, error, "INSERT INTO client_conflict(kind, planned, policy, time,"
			 " recno, id, parent, name, cparent, cname, peer, theirs, mine, base)"
			 " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			 "uuuiiiibibtbbb", (guint32)e->kind, (guint32)e->planned,
			 (guint32)e->policy, e->time, (gint64)e->recno, e->id,
			 e->parent, e->name, strlen(e->name),
			 e->cparent, e->cname, strlen(e->cname), e->peer,
			 &e->theirs, sizeof(e->theirs), &e->mine, sizeof(e->mine),
			 &e->base, sizeof(e->base)))
		return FALSE;
	e->no = sqlite3_last_insert_rowid(c->state->db);
	return !e->spans ||
	       isd_sql_run(c->state, error, "INSERT INTO client_merge VALUES(?, ?, ?)", "ibi", e->no,
			   g_bytes_get_data(e->spans, NULL), g_bytes_get_size(e->spans),
			   (gint64)e->sversion);
}

gboolean isd_conflict_load_spans(IsdClient *c, IsdConflict *e, GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(c->state, error, &st, "SELECT spans, version FROM client_merge"
			     " WHERE no = ?", "i", e->no);

	if (rc <= 0)
		return rc == 0;
	e->spans = g_bytes_new(sqlite3_column_blob(st, 0), sqlite3_column_bytes(st, 0));
	e->sversion = sqlite3_column_int64(st, 1);
	sqlite3_reset(st);
	return TRUE;
}

gboolean isd_conflict_is_there(IsdClient *c, gint64 no, GError **error)
{
	return isd_sql_run(c->state, error, "UPDATE client_conflict SET planned = 0 WHERE no = ?",
			   "i", no);
}

gboolean isd_conflict_set_policy(IsdClient *c, gint64 no, int policy, GError **error)
{
	return isd_sql_run(c->state, error, "UPDATE client_conflict SET policy = ? WHERE no = ?",
			   "ui", (guint32)policy, no);
}

gboolean isd_conflict_drop(IsdClient *c, gint64 no, GError **error)
{
	return isd_sql_run(c->state, error, "DELETE FROM client_conflict WHERE no = ?", "i", no) &&
	       isd_sql_run(c->state, error, "DELETE FROM client_merge WHERE no = ?", "i", no);
}

gboolean isd_conflict_is_known(IsdClient *c, IsdConflictKind kind, gint64 id, gboolean *ret,
			       GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(c->state, error, &st, "SELECT 1 FROM client_conflict WHERE id = ?"
			     " AND kind = ?", "iu", id, (guint32)kind);

	if (rc > 0)
		sqlite3_reset(st);
	*ret = rc > 0;
	return rc >= 0;
}

static char *column_name(sqlite3_stmt *st, int i)
{
	return g_strndup(sqlite3_column_blob(st, i), sqlite3_column_bytes(st, i));
}

/* Another version of the program may have written another size. */
static void column_attrs(sqlite3_stmt *st, int i, struct kml_attrs *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (sqlite3_column_bytes(st, i) == sizeof(*ret))
		memcpy(ret, sqlite3_column_blob(st, i), sizeof(*ret));
}

static void take_row(sqlite3_stmt *st, IsdConflict *ret)
{
	*ret = (IsdConflict) {
		.no = sqlite3_column_int64(st, 0),
		.kind = sqlite3_column_int(st, 1),
		.planned = sqlite3_column_int(st, 2),
		.policy = sqlite3_column_int(st, 3),
		.time = sqlite3_column_int64(st, 4),
		.recno = sqlite3_column_int64(st, 5),
		.id = sqlite3_column_int64(st, 6),
		.parent = sqlite3_column_int64(st, 7),
		.name = column_name(st, 8),
		.cparent = sqlite3_column_int64(st, 9),
		.cname = column_name(st, 10),
		.peer = g_strdup((const char *)sqlite3_column_text(st, 11)),
	};
	column_attrs(st, 12, &ret->theirs);
	column_attrs(st, 13, &ret->mine);
	column_attrs(st, 14, &ret->base);
}

gboolean isd_conflict_next(IsdClient *c, IsdConflictWhich which, gint64 after, IsdConflict *ret,
			   gboolean *ret_found, GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(c->state, error, &st, "SELECT no, kind, planned, policy, time, recno,"
			     " id, parent, name, cparent, cname, peer, theirs, mine, base"
			     " FROM client_conflict WHERE no > ?1 AND (?2 = 0 OR"
			     " (?2 = 1 AND planned) OR (?2 = 2 AND policy AND NOT planned))"
			     " ORDER BY no LIMIT 1", "iu", after, (guint32)which);

	*ret_found = rc > 0;
	if (rc > 0) {
		take_row(st, ret);
		sqlite3_reset(st);
	}
	return rc >= 0;
}

gboolean isd_conflict_count(IsdClient *c, guint64 *ret, GError **error)
{
	sqlite3_stmt *st;

	if (!isd_conflict_prune(c, error) ||
	    isd_sql_row(c->state, error, &st, "SELECT count(*) FROM client_conflict"
			" WHERE NOT planned", "") <= 0)
		return FALSE;
	*ret = sqlite3_column_int64(st, 0);
	sqlite3_reset(st);
	return TRUE;
}

gboolean isd_conflict_unsettled(IsdClient *c)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(c->state, NULL, &st, "SELECT 1 FROM client_conflict WHERE policy"
			     " LIMIT 1", "");

	if (rc > 0)
		sqlite3_reset(st);
	return rc > 0;
}

/* --- what has settled itself --- */

typedef struct {
	gint64	no, id;
	gboolean copy;
} Stale;

gboolean isd_conflict_has_copy(IsdConflictKind kind)
{
	return kind == ISD_CONFLICT_UPDATE || kind == ISD_CONFLICT_NAME ||
	       kind == ISD_CONFLICT_TYPE;
}

/* Entries whose copy's name is nobody's any more; where there is no copy: whose object is gone. */
static gboolean find_stale(IsdClient *c, Stale *ret, guint max, guint *ret_n, GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(c->state, error, &st, "SELECT no, id, kind FROM client_conflict AS e"
			     " WHERE NOT planned AND CASE WHEN kind IN (" KINDS_WITH_COPY ") THEN"
			     " NOT EXISTS(SELECT 1 FROM name WHERE parent = e.cparent AND"
			     " name = e.cname) ELSE"
			     " NOT EXISTS(SELECT 1 FROM name WHERE id = e.id) AND"
			     " NOT EXISTS(SELECT 1 FROM client_want WHERE id = e.id) END"
			     " LIMIT ?", "u", max);

	*ret_n = 0;
	for (; rc > 0; rc = isd_sql_next(c->state, st, error))
		ret[(*ret_n)++] = (Stale) {
			.no = sqlite3_column_int64(st, 0),
			.id = sqlite3_column_int64(st, 1),
			.copy = isd_conflict_has_copy(sqlite3_column_int(st, 2)),
		};
	return rc >= 0;
}

/* The copy was moved: it still is one as long as its name says so. */
static gboolean follow_copy(IsdClient *c, const Stale *s, gboolean *ret_follows, GError **error)
{
	g_auto(IsdName) n = { 0 };

	*ret_follows = FALSE;
	if (!s->copy)
		return TRUE;
	if (!isd_state_a_name(c->state, s->id, &n, ret_follows, error))
		return FALSE;
	*ret_follows = *ret_follows && strstr(n.name, ISD_CONFLICT_MARK);
	return !*ret_follows ||
	       isd_sql_run(c->state, error, "UPDATE client_conflict SET cparent = ?, cname = ?"
			   " WHERE no = ?", "ibi", n.parent, n.name, strlen(n.name), s->no);
}

gboolean isd_conflict_prune(IsdClient *c, GError **error)
{
	Stale stale[PRUNE_STEP];
	gboolean follows;
	guint n = PRUNE_STEP;

	while (n == PRUNE_STEP) {
		if (!find_stale(c, stale, PRUNE_STEP, &n, error))
			return FALSE;
		if (n && !isd_client_begin(c, error))
			return FALSE;
		for (guint i = 0; i < n; i++)
			if (!follow_copy(c, &stale[i], &follows, error) ||
			    (!follows && !isd_conflict_drop(c, stale[i].no, error)))
				return FALSE;
	}
	return TRUE;
}

/* --- names for people --- */

char *isd_conflict_path(IsdClient *c, gint64 parent, const char *name)
{
	g_autofree char *dir = isd_state_path(c->state, parent, NULL);

	if (!dir)
		return NULL;
	return g_strconcat(dir + 1, dir[1] ? "/" : "", name, NULL);
}
