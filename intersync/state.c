// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The state database: its file, its transactions, its small values.  The rows
 * are in objects.c and origin.c, what a record does to them in apply.c.
 *
 * The fileset may lie on a mount that is attached nowhere, so the only way to
 * it is a descriptor.  SQLite wants a path: it gets one through /proc/self/fd,
 * and a VFS that leaves this path alone (SQLite would follow the link as
 * text and end up in the wrong place).
 */
#include "statedb.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATE_VERSION	1
#define STATE_FILE	"state.db"
#define CHECKPOINT_PAGES 1000	/* of the WAL, as SQLite has it */
#define VFS_NAME	"intersync"

static const char schema[] =
	"CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;"
	"CREATE TABLE obj(id INTEGER PRIMARY KEY AUTOINCREMENT,"
	" ino INTEGER, gen INTEGER, sino INTEGER, sgen INTEGER,"
	" mode INTEGER, uid INTEGER, gid INTEGER, nlink INTEGER, rmaj INTEGER, rmin INTEGER,"
	" size INTEGER, mtime_s INTEGER, mtime_ns INTEGER, ctime_s INTEGER, ctime_ns INTEGER,"
	" cver INTEGER, aver INTEGER, lcver INTEGER, laver INTEGER, link BLOB);"
	"CREATE INDEX obj_ino ON obj(ino, gen) WHERE ino <> 0;"
	"CREATE INDEX obj_sino ON obj(sino, sgen) WHERE sino <> 0;"
	"CREATE TABLE name(parent INTEGER, name BLOB, id INTEGER, ver INTEGER, lver INTEGER,"
	" PRIMARY KEY(parent, name)) WITHOUT ROWID;"
	"CREATE INDEX name_id ON name(id);"
	"CREATE TABLE xattr(id INTEGER, name BLOB, value BLOB,"
	" PRIMARY KEY(id, name)) WITHOUT ROWID;"
	"CREATE TABLE origin(peer BLOB, recno INTEGER, own INTEGER,"
	" pino INTEGER, pgen INTEGER, id INTEGER, ino INTEGER, gen INTEGER,"
	" PRIMARY KEY(peer, recno)) WITHOUT ROWID;"
	"CREATE INDEX origin_own ON origin(own);"
	"CREATE INDEX origin_obj ON origin(peer, pino, pgen, recno) WHERE id <> 0;"
	"CREATE INDEX origin_id ON origin(id) WHERE id <> 0;"
	"PRAGMA user_version = " G_STRINGIFY(STATE_VERSION) ";";

static int plain_path(sqlite3_vfs *vfs, const char *name, int size, char *ret)
{
	if (g_strlcpy(ret, name, size) >= (gsize) size)
		return SQLITE_CANTOPEN;
	return SQLITE_OK;
}

/* access(2) leaves capabilities out, and mod_intersync's are its way to the fileset. */
static int may_access(const char *path, int mode)
{
	return faccessat(AT_FDCWD, path, mode, AT_EACCESS);
}

static void register_vfs(void)
{
	static gsize done;
	static sqlite3_vfs vfs;

	if (!g_once_init_enter(&done))
		return;
	vfs = *sqlite3_vfs_find(NULL);
	vfs.zName = VFS_NAME;
	vfs.pNext = NULL;
	vfs.xFullPathname = plain_path;
	vfs.xSetSystemCall(&vfs, "access", (sqlite3_syscall_ptr) may_access);
	sqlite3_vfs_register(&vfs, 0);
	g_once_init_leave(&done, 1);
}

static void finalize(gpointer st)
{
	sqlite3_finalize(st);
}

gboolean isd_sql_failed(IsdState *s, GError **error)
{
	int rc = sqlite3_errcode(s->db);
	int code = rc == SQLITE_FULL ? ISD_ERROR_NOSPC :
		   rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB ? ISD_ERROR_DAMAGED :
		   ISD_ERROR_FAILED;

	g_set_error(error, ISD_ERROR, code, "%s: %s", STATE_FILE, sqlite3_errmsg(s->db));
	return FALSE;
}

static gboolean exec(IsdState *s, const char *sql, GError **error)
{
	if (sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK)
		return TRUE;
	return isd_sql_failed(s, error);
}

sqlite3 *isd_state_db(IsdState *s)
{
	return s->db;
}

sqlite3_stmt *isd_state_prepare(IsdState *s, const char *sql, GError **error)
{
	sqlite3_stmt *st = g_hash_table_lookup(s->stmts, sql);

	if (st)
		return st;
	if (sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &st, NULL) != SQLITE_OK) {
		isd_sql_failed(s, error);
		return NULL;
	}
	g_hash_table_insert(s->stmts, (gpointer) sql, st);
	return st;
}

static int bind_one(sqlite3_stmt *st, int i, char type, va_list *ap)
{
	const void *ptr;
	gsize len;

	switch (type) {
	case 'i':
		return sqlite3_bind_int64(st, i, va_arg(*ap, gint64));
	case 'u':
		return sqlite3_bind_int64(st, i, va_arg(*ap, guint32));
	case 't':
		return sqlite3_bind_text(st, i, va_arg(*ap, const char *), -1, SQLITE_STATIC);
	default:
		ptr = va_arg(*ap, const void *);
		len = va_arg(*ap, gsize);
		return sqlite3_bind_blob64(st, i, ptr, len, SQLITE_STATIC);
	}
}

static sqlite3_stmt *prepare_bound(IsdState *s, GError **error, const char *sql,
				   const char *types, va_list *ap)
{
	sqlite3_stmt *st = isd_state_prepare(s, sql, error);

	for (int i = 0; st && types[i]; i++) {
		if (bind_one(st, i + 1, types[i], ap) == SQLITE_OK)
			continue;
		isd_sql_failed(s, error);
		sqlite3_reset(st);
		return NULL;
	}
	return st;
}

int isd_sql_next(IsdState *s, sqlite3_stmt *st, GError **error)
{
	int rc = sqlite3_step(st);

	if (rc == SQLITE_ROW)
		return 1;
	if (rc != SQLITE_DONE)
		isd_sql_failed(s, error);
	sqlite3_reset(st);
	return rc == SQLITE_DONE ? 0 : -1;
}

int isd_sql_row(IsdState *s, GError **error, sqlite3_stmt **ret_st, const char *sql,
		const char *types, ...)
{
	sqlite3_stmt *st;
	va_list ap;

	va_start(ap, types);
	st = prepare_bound(s, error, sql, types, &ap);
	va_end(ap);
	if (!st)
		return -1;
	*ret_st = st;
	return isd_sql_next(s, st, error);
}

gboolean isd_sql_run(IsdState *s, GError **error, const char *sql, const char *types, ...)
{
	sqlite3_stmt *st;
	va_list ap;
	int rc;

	va_start(ap, types);
	st = prepare_bound(s, error, sql, types, &ap);
	va_end(ap);
	if (!st)
		return FALSE;
	rc = isd_sql_next(s, st, error);
	if (rc > 0)
		sqlite3_reset(st);
	return rc >= 0;
}

/* The values that are kept in memory, as the database has them. */
static gboolean load_values(IsdState *s, GError **error)
{
	s->dirty = FALSE;
	s->dir_id = 0;
	return isd_state_get_u64(s, "objects", &s->objects, error) &&
	       isd_state_get_u64(s, "bytes", &s->bytes, error) &&
	       isd_state_get_u64(s, "local_recno", &s->local_recno, error);
}

static gboolean put_u64(IsdState *s, const char *key, guint64 value, GError **error)
{
	return isd_sql_run(s, error, "INSERT OR REPLACE INTO meta VALUES(?, ?)", "ti",
			   key, (gint64) value);
}

static gboolean flush_values(IsdState *s, GError **error)
{
	if (!s->dirty)
		return TRUE;
	s->dirty = FALSE;
	return put_u64(s, "objects", s->objects, error) &&
	       put_u64(s, "bytes", s->bytes, error) &&
	       put_u64(s, "local_recno", s->local_recno, error);
}

static gboolean make_schema(IsdState *s, GError **error)
{
	g_autoptr(GError) local = NULL;

	if (!exec(s, "BEGIN IMMEDIATE", error))
		return FALSE;
	if (exec(s, schema, &local) && exec(s, "COMMIT", &local))
		return TRUE;
	sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
	g_propagate_error(error, g_steal_pointer(&local));
	return FALSE;
}

static gboolean check_version(IsdState *s, GError **error)
{
	sqlite3_stmt *st;
	int version;

	if (isd_sql_row(s, error, &st, "PRAGMA user_version", "") < 0)
		return FALSE;
	version = sqlite3_column_int(st, 0);
	sqlite3_reset(st);
	if (version == STATE_VERSION)
		return TRUE;
	if (version == 0 && !s->readonly)
		return make_schema(s, error);
	g_set_error(error, ISD_ERROR, ISD_ERROR_FATAL,
		    "%s has version %d, this program needs %d: use the version of "
		    "intersync that wrote it", STATE_FILE, version, STATE_VERSION);
	return FALSE;
}

static int sync_file(IsdState *s, const char *name)
{
	int fd = openat(s->dirfd, name, O_RDONLY | O_CLOEXEC);
	int rc = 0;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (fdatasync(fd) < 0)
		rc = -errno;
	close(fd);
	return rc;
}

/* The log first, then what was committed, which may be in SQLite's own log alone. */
gboolean isd_state_sync(IsdState *s, GError **error)
{
	int rc = sync_file(s, "kml");

	if (!rc)
		rc = sync_file(s, STATE_FILE "-wal");
	if (!rc)
		rc = sync_file(s, STATE_FILE);
	if (!rc)
		return TRUE;
	g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED, "%s: %s", STATE_FILE, g_strerror(-rc));
	return FALSE;
}

/*
 * In place of SQLite's own checkpoint, which makes the database durable: the
 * log goes first, so that after a power cut the state does not know of records that are lost.
 */
static int checkpoint(void *data, sqlite3 *db, const char *name, int pages)
{
	IsdState *s = data;

	/* What cannot be done now is done after the next commit. */
	if (pages >= CHECKPOINT_PAGES && !sync_file(s, "kml"))
		sqlite3_wal_checkpoint_v2(db, name, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
	return SQLITE_OK;
}

static gboolean set_up(IsdState *s, GError **error)
{
	sqlite3_busy_timeout(s->db, 10000);
	sqlite3_extended_result_codes(s->db, 0);
	if (s->readonly)
		return exec(s, "PRAGMA cache_size = -2048", error) && check_version(s, error);
	sqlite3_wal_hook(s->db, checkpoint, s);
	return exec(s, "PRAGMA journal_mode = WAL;"
		       "PRAGMA synchronous = NORMAL;"
		       "PRAGMA cache_size = -6144;"
		       "PRAGMA journal_size_limit = 16777216;", error) &&
	       check_version(s, error) && load_values(s, error);
}

static IsdState *open_state(int dirfd, gboolean readonly, GError **error)
{
	g_autoptr(IsdState) s = g_new0(IsdState, 1);
	g_autofree char *path = NULL;
	int flags = readonly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;

	register_vfs();
	s->readonly = readonly;
	s->stmts = g_hash_table_new_full(NULL, NULL, NULL, finalize);
	s->dirfd = fcntl(dirfd, F_DUPFD_CLOEXEC, 3);
	if (s->dirfd < 0) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED, "%s: %s", STATE_FILE,
			    g_strerror(errno));
		return NULL;
	}
	path = g_strdup_printf("/proc/self/fd/%d/" STATE_FILE, s->dirfd);
	if (sqlite3_open_v2(path, &s->db, flags | SQLITE_OPEN_NOMUTEX, VFS_NAME) != SQLITE_OK) {
		isd_sql_failed(s, error);
		return NULL;
	}
	if (!set_up(s, error))
		return NULL;
	return g_steal_pointer(&s);
}

IsdState *isd_state_open(int dirfd, GError **error)
{
	return open_state(dirfd, FALSE, error);
}

IsdState *isd_state_open_ro(int dirfd, GError **error)
{
	return open_state(dirfd, TRUE, error);
}

gboolean isd_state_set_aside(int dirfd, GError **error)
{
	unlinkat(dirfd, STATE_FILE "-wal", 0);
	unlinkat(dirfd, STATE_FILE "-shm", 0);
	if (renameat(dirfd, STATE_FILE, dirfd, STATE_FILE ".damaged") == 0)
		return TRUE;
	g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED, "%s: %s", STATE_FILE,
		    g_strerror(errno));
	return FALSE;
}

void isd_state_close(IsdState *s)
{
	if (!s)
		return;
	g_hash_table_destroy(s->stmts);
	sqlite3_close_v2(s->db);
	if (s->dirfd >= 0)
		close(s->dirfd);
	g_free(s);
}

/* By name: closing a descriptor of these files would drop SQLite's locks on them. */
static gboolean share_one(IsdState *s, const char *name, mode_t mode, uid_t uid, gid_t gid,
			  GError **error)
{
	if (fchownat(s->dirfd, name, uid, gid, AT_SYMLINK_NOFOLLOW) == 0 &&
	    fchmodat(s->dirfd, name, mode, 0) == 0)
		return TRUE;
	if (errno == ENOENT)
		return TRUE;
	g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED, "%s: %s", name, g_strerror(errno));
	return FALSE;
}

/*
 * SQLite makes -wal and -shm anew with owner and mode of the database, so the
 * database goes first.
 */
gboolean isd_state_share(IsdState *s, uid_t uid, gid_t gid, GError **error)
{
	guint64 unused;

	return share_one(s, STATE_FILE, 0640, 0, gid, error) &&
	       isd_state_get_u64(s, "objects", &unused, error) &&
	       share_one(s, STATE_FILE "-wal", 0640, 0, gid, error) &&
	       share_one(s, STATE_FILE "-shm", 0660, uid, gid, error);
}

gboolean isd_state_begin(IsdState *s, GError **error)
{
	if (s->depth == 0 &&
	    !isd_sql_run(s, error, s->readonly ? "BEGIN" : "BEGIN IMMEDIATE", ""))
		return FALSE;
	s->depth++;
	return TRUE;
}

void isd_state_rollback(IsdState *s)
{
	if (--s->depth > 0) {
		s->doomed = TRUE;
		return;
	}
	s->doomed = FALSE;
	/* SQLite may have rolled back by itself (disk full): nothing to do then. */
	if (!sqlite3_get_autocommit(s->db))
		isd_sql_run(s, NULL, "ROLLBACK", "");
	if (!s->readonly)
		load_values(s, NULL);
}

gboolean isd_state_commit(IsdState *s, GError **error)
{
	if (s->depth > 1) {
		s->depth--;
		return TRUE;
	}
	if (s->doomed) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED,
			    "%s: a part of this transaction was rolled back", STATE_FILE);
	} else if (flush_values(s, error) && isd_sql_run(s, error, "COMMIT", "")) {
		s->depth = 0;
		return TRUE;
	}
	isd_state_rollback(s);
	return FALSE;
}

gboolean isd_state_get_u64(IsdState *s, const char *key, guint64 *ret, GError **error)
{
	sqlite3_stmt *st;
	int rc;

	if (!flush_values(s, error))
		return FALSE;
	rc = isd_sql_row(s, error, &st, "SELECT value FROM meta WHERE key = ?", "t", key);
	if (rc < 0)
		return FALSE;
	*ret = rc ? (guint64) sqlite3_column_int64(st, 0) : 0;
	if (rc)
		sqlite3_reset(st);
	return TRUE;
}

gboolean isd_state_set_u64(IsdState *s, const char *key, guint64 value, GError **error)
{
	if (!flush_values(s, error) || !put_u64(s, key, value, error))
		return FALSE;
	if (!strcmp(key, "local_recno"))
		s->local_recno = value;
	return TRUE;
}

gboolean isd_state_get_text(IsdState *s, const char *key, char **ret, GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(s, error, &st, "SELECT value FROM meta WHERE key = ?", "t", key);

	if (rc < 0)
		return FALSE;
	*ret = rc ? g_strdup((const char *) sqlite3_column_text(st, 0)) : NULL;
	if (rc)
		sqlite3_reset(st);
	return TRUE;
}

gboolean isd_state_set_text(IsdState *s, const char *key, const char *value, GError **error)
{
	return isd_sql_run(s, error, "INSERT OR REPLACE INTO meta VALUES(?, ?)", "tt",
			   key, value);
}
