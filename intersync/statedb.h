/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside the state database: shared by state.c (connection, transactions,
 * values), objects.c (rows), origin.c and apply.c (records).  Roles that keep
 * tables of their own in it use isd_state_prepare() and isd_sql_*() too.
 */
#ifndef ISD_STATEDB_H
#define ISD_STATEDB_H

#include <sqlite3.h>

#include "error.h"
#include "state.h"

struct IsdState {
	sqlite3		*db;
	int		dirfd;
	gboolean	readonly;
	GHashTable	*stmts;		/* SQL literal -> sqlite3_stmt */
	guint		depth;		/* of nested transactions */
	gboolean	doomed;		/* an inner one was rolled back */
	/* Values that move with each record: written at the commit. */
	guint64		objects, bytes, local_recno;
	gboolean	dirty;
	/* The directory looked up last: records come in runs. */
	struct kml_oid	dir_oid;
	gint64		dir_id;
};

/*
 * Arguments of a statement by letter: i gint64, u guint32, b pointer and gsize
 * (a NULL pointer is SQL's NULL), t text or NULL.  They must live until the
 * statement is reset.  sql is a literal: statements are kept by its address.
 */
gboolean isd_sql_run(IsdState *s, GError **error, const char *sql, const char *types, ...);
/* 1: *ret_st stands on a row, reset it when done; 0: no row (already reset); -1: error. */
int isd_sql_row(IsdState *s, GError **error, sqlite3_stmt **ret_st, const char *sql,
		const char *types, ...);
/* The next row of the same statement, likewise. */
int isd_sql_next(IsdState *s, sqlite3_stmt *st, GError **error);
gboolean isd_sql_failed(IsdState *s, GError **error);

/* objects.c, for apply.c */
gboolean isd_obj_update(IsdState *s, const IsdObject *old, const IsdObject *o, GError **error);
gboolean isd_obj_dir_id(IsdState *s, struct kml_oid oid, gint64 *ret_id, GError **error);
gboolean isd_obj_set_mtime(IsdState *s, gint64 id, struct kml_time t, GError **error);
/* keep_known: not if the server has it, too */
gboolean isd_obj_drop_if_nameless(IsdState *s, gint64 id, gboolean keep_known, GError **error);
gboolean isd_obj_is_nameless(IsdState *s, gint64 id, gboolean *ret, GError **error);
gboolean isd_name_bind(IsdState *s, gint64 parent, struct kml_str name, gint64 id,
		       guint64 ver, guint64 lver, gboolean keep_known, GError **error);
/* Only if the name is that object's. */
gboolean isd_name_unbind(IsdState *s, gint64 parent, struct kml_str name, gint64 id,
			 GError **error);
gboolean isd_obj_put_xattrs(IsdState *s, gint64 id, const void *blob, gsize len, GError **error);

/* origin.c, for apply.c and objects.c */
gboolean isd_origin_add(IsdState *s, const struct kml_record *r, gint64 id, GError **error);

#endif
