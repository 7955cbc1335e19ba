// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Origins: which own record a peer's record became, and which object here is
 * the one that it made there.  The server answers repeated pushes from it and
 * knows a peer's own changes by it.
 */
#include "statedb.h"

/* A record of the own log that came from a peer; id 0: its object is gone. */
gboolean isd_origin_add(IsdState *s, const struct kml_record *r, gint64 id, GError **error)
{
	return isd_sql_run(s, error,
			   "INSERT OR REPLACE INTO origin VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
			   "biiiuiiu", r->origin_replica, (gsize) 16, (gint64) r->origin_recno,
			   (gint64) r->recno, (gint64) r->origin_obj.ino, r->origin_obj.gen,
			   id, (gint64) r->obj.ino, r->obj.gen);
}

gboolean isd_state_origin(IsdState *s, const guint8 peer[16], guint64 recno,
			  guint64 *ret_own_recno, struct kml_oid *ret_oid,
			  gboolean *ret_found, GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(s, error, &st,
			     "SELECT own, coalesce(obj.ino, origin.ino),"
			     " coalesce(obj.gen, origin.gen)"
			     " FROM origin LEFT JOIN obj ON obj.id = origin.id"
			     " WHERE peer = ? AND recno = ?", "bi", peer, (gsize) 16,
			     (gint64) recno);

	if (rc < 0)
		return FALSE;
	*ret_found = rc > 0;
	if (rc == 0)
		return TRUE;
	*ret_own_recno = sqlite3_column_int64(st, 0);
	ret_oid->ino = sqlite3_column_int64(st, 1);
	ret_oid->gen = sqlite3_column_int64(st, 2);
	sqlite3_reset(st);
	return TRUE;
}

gboolean isd_state_origin_object(IsdState *s, const guint8 peer[16], struct kml_oid theirs,
				 IsdObject *ret, gboolean *ret_found, GError **error)
{
	sqlite3_stmt *st;
	gint64 id;
	/* Records about objects that are not the peer's own have 0 there. */
	int rc = isd_sql_row(s, error, &st,
			     "SELECT id FROM origin WHERE pino <> 0 AND peer = ? AND pino = ? AND pgen = ?"
			     " AND id <> 0 ORDER BY recno DESC LIMIT 1", "biu", peer, (gsize) 16,
			     (gint64) theirs.ino, theirs.gen);

	if (rc < 0)
		return FALSE;
	*ret_found = FALSE;
	if (rc == 0)
		return TRUE;
	id = sqlite3_column_int64(st, 0);
	sqlite3_reset(st);
	return isd_state_by_id(s, id, ret, ret_found, error);
}

gboolean isd_state_origin_forget_seen(IsdState *s, const guint8 peer[16], guint64 upto,
				      guint64 seen, GError **error)
{
	return isd_sql_run(s, error,
			   "DELETE FROM origin WHERE peer = ? AND recno <= ? AND own <= ?",
			   "bii", peer, (gsize) 16, (gint64) upto, (gint64) seen);
}

gboolean isd_state_origin_forget(IsdState *s, const guint8 peer[16], guint64 upto, GError **error)
{
	return isd_state_origin_forget_seen(s, peer, upto, G_MAXINT64, error);
}

gboolean isd_state_last_by(IsdState *s, const guint8 peer[16], guint64 own_recno,
			   gboolean *ret, GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(s, error, &st, "SELECT 1 FROM origin WHERE own = ? AND peer = ?",
			     "ib", (gint64) own_recno, peer, (gsize) 16);

	if (rc < 0)
		return FALSE;
	*ret = rc > 0;
	if (rc)
		sqlite3_reset(st);
	return TRUE;
}
