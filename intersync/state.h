/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state database: names, objects and positions of this replica, a view of
 * its log.  SQLite in .intermezzo/<fileset>/state.db.  The server answers
 * catalog, data and reint from it; the client maps the server's objects to
 * its own with it.  mod_intersync opens it for reading only (state_open_ro()).
 *
 * Written by one thread; readers have their own connection and see one
 * position of the log per transaction.  Nothing here logs or does I/O elsewhere.
 */
#ifndef ISD_STATE_H
#define ISD_STATE_H

#include <glib.h>

#include "record.h"

typedef struct IsdState IsdState;
struct sqlite3;
struct sqlite3_stmt;

#define ISD_ROOT_ID 1		/* the root directory's row */

/* What is known of an object.  All numbers are this replica's unless named s*. */
typedef struct {
	gint64		id;		/* row, never used again */
	struct kml_oid	oid;		/* inode here; ino 0: not here yet */
	struct kml_oid	soid;		/* client: the server's inode; ino 0: not there yet */
	struct kml_attrs attr;		/* as last seen here; ctime is the guard's */
	guint64		cver, aver;	/* server: own record numbers; client: the server's */
	guint64		lcver, laver;	/* client: own record that last changed it; 0 none */
	char		*link;		/* SYMLINK's text, bytes, or NULL */
	gsize		link_len;
} IsdObject;

typedef struct {
	gint64		parent;		/* object row */
	char		*name;		/* bytes, NUL-terminated (no name contains NUL) */
	gint64		id;		/* object row */
	guint64		ver;		/* record that bound it: own number (server), server's (client) */
	guint64		lver;		/* client: own record that bound it, 0 none */
} IsdName;

void isd_object_clear(IsdObject *o);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(IsdObject, isd_object_clear)
void isd_name_clear(IsdName *n);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(IsdName, isd_name_clear)

/* Open or make it below dirfd (.intermezzo/<fileset>); a version that is not ours is an error. */
IsdState *isd_state_open(int dirfd, GError **error);
IsdState *isd_state_open_ro(int dirfd, GError **error);
/* Rename a damaged database to state.db.damaged; nobody has it open. */
gboolean isd_state_set_aside(int dirfd, GError **error);
void isd_state_close(IsdState *s);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(IsdState, isd_state_close)

/*
 * After opening, as root: the database and its -wal belong to root and gid, read only, and
 * its -shm to uid and gid, writable, as SQLite's readers need it.  mod_intersync's user.
 */
gboolean isd_state_share(IsdState *s, guint uid, guint gid, GError **error);

/*
 * For tables of a role's own (names with the role's prefix, CREATE TABLE IF
 * NOT EXISTS): the connection, and statements that are prepared once.  sql must
 * be a literal, it is remembered by its address; reset the statement after use.  statedb.h has more.
 */
struct sqlite3 *isd_state_db(IsdState *s);
struct sqlite3_stmt *isd_state_prepare(IsdState *s, const char *sql, GError **error);

/*
 * Transactions nest; the outermost commits.  After a rollback inside, nothing
 * but a rollback of the outermost is possible: its commit fails.
 */
gboolean isd_state_begin(IsdState *s, GError **error);
gboolean isd_state_commit(IsdState *s, GError **error);
void isd_state_rollback(IsdState *s);
/* What was committed, and the own log before it, are on the disk. */
gboolean isd_state_sync(IsdState *s, GError **error);

/* Small values by name: "local_offset", "pull_offset", "server_epoch" ... */
gboolean isd_state_get_u64(IsdState *s, const char *key, guint64 *ret, GError **error);	/* 0 when unset */
gboolean isd_state_set_u64(IsdState *s, const char *key, guint64 value, GError **error);
gboolean isd_state_get_text(IsdState *s, const char *key, char **ret, GError **error);	/* NULL when unset */
gboolean isd_state_set_text(IsdState *s, const char *key, const char *value, GError **error);

/* Does the operation make an object? */
gboolean isd_makes(unsigned int opcode);

/*
 * Take one record of the own log into the view: names, objects, attributes,
 * xattrs, mtimes of the parents, versions (server: cver/aver/ver = recno,
 * client: lcver/laver/lver = recno), origins, and "local_recno".  Records about unknown objects
 * (unlinked while open) change nothing.  Idempotent for a repeated record.
 *
 * An object goes with its last name; but a client's that the server has (soid) stays
 * without names until the client has settled it and drops it.
 */
gboolean isd_state_apply(IsdState *s, const struct kml_record *r, gboolean is_server,
			 GError **error);

/*
 * Fill the database from the file "base", or with the root alone when there
 * is none.  What was in it is dropped.  Sets "base_loaded" at its end: without it, call it (again).
 */
gboolean isd_state_load_base(IsdState *s, int dirfd, GError **error);
/* Forget everything: objects, names, xattrs, origins, values. */
gboolean isd_state_wipe(IsdState *s, GError **error);

/*
 * Lookups: TRUE and *ret_found; rows that are absent are no error.
 */
gboolean isd_state_by_id(IsdState *s, gint64 id, IsdObject *ret, gboolean *ret_found, GError **error);
gboolean isd_state_by_oid(IsdState *s, struct kml_oid oid, IsdObject *ret, gboolean *ret_found, GError **error);
gboolean isd_state_by_soid(IsdState *s, struct kml_oid soid, IsdObject *ret, gboolean *ret_found, GError **error);
gboolean isd_state_lookup(IsdState *s, gint64 parent, const char *name, IsdName *ret, gboolean *ret_found, GError **error);
/* Some name of the object (the root has none). */
gboolean isd_state_a_name(IsdState *s, gint64 id, IsdName *ret, gboolean *ret_found, GError **error);
/* All of them, an array of IsdName. */
gboolean isd_state_names(IsdState *s, gint64 id, GArray **ret, GError **error);
/* "/a/b" of a directory's row ("/" for the root); NULL if it hangs nowhere. */
char *isd_state_path(IsdState *s, gint64 id, GError **error);
/*
 * The object's names but for (parent, name), as a blob of KML_I_ALIAS items: how REINT
 * gives new content to all of them.  NULL when there is none.
 */
gboolean isd_state_aliases(IsdState *s, const IsdObject *o, gint64 parent, const char *name,
			   GBytes **ret, GError **error);
gboolean isd_state_is_empty_dir(IsdState *s, gint64 id, gboolean *ret, GError **error);
gboolean isd_state_counts(IsdState *s, guint64 *ret_objects, guint64 *ret_bytes, GError **error);

/*
 * Direct changes: what REINT or the catalog made true without a record in the
 * own log.  Each does what it says and no more: put_name rebinds a name that was
 * another object's, drop_name leaves the object; drop_object takes its names,
 * xattrs and origins along.  Drop objects that lost their last name: isd_state_a_name() tells.
 */
gboolean isd_state_add_object(IsdState *s, IsdObject *o, GError **error);	/* sets o->id */
gboolean isd_state_put_object(IsdState *s, const IsdObject *o, GError **error);
gboolean isd_state_drop_object(IsdState *s, gint64 id, GError **error);
gboolean isd_state_put_name(IsdState *s, const IsdName *n, GError **error);
gboolean isd_state_drop_name(IsdState *s, gint64 parent, const char *name, GError **error);
gboolean isd_state_set_xattr(IsdState *s, gint64 id, const char *name, gsize name_len,
			     const void *value, gssize value_len, GError **error);	/* -1: remove */
/* All xattrs of an object as a blob of KML_I_XATTR items; NULL when none. */
gboolean isd_state_xattrs(IsdState *s, gint64 id, GBytes **ret, GError **error);

/*
 * Names in one directory, in byte order, behind `after` (NULL: from the
 * start), at most `max`; an array of IsdName.  How the catalog walks.
 */
gboolean isd_state_list(IsdState *s, gint64 parent, const char *after, guint max,
			GArray **ret, GError **error);

/*
 * Origins (server): which own record a peer's record became, with the object's names here and there.
 */
gboolean isd_state_origin(IsdState *s, const guint8 peer[16], guint64 recno,
			  guint64 *ret_own_recno, struct kml_oid *ret_oid,
			  gboolean *ret_found, GError **error);
/* The object that a peer calls `theirs`. */
gboolean isd_state_origin_object(IsdState *s, const guint8 peer[16], struct kml_oid theirs,
				 IsdObject *ret, gboolean *ret_found, GError **error);
gboolean isd_state_origin_forget(IsdState *s, const guint8 peer[16], guint64 upto, GError **error);
/*
 * The same, but for own records behind `seen`: as long as the peer has not come
 * past them in our log, isd_state_last_by() has to know that they were its own.
 */
gboolean isd_state_origin_forget_seen(IsdState *s, const guint8 peer[16], guint64 upto,
				      guint64 seen, GError **error);
/* Was the object's content/attributes last changed by this peer's own record? */
gboolean isd_state_last_by(IsdState *s, const guint8 peer[16], guint64 own_recno,
			   gboolean *ret, GError **error);

#endif
