// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Objects that the server has and this replica wants: named in the catalog and
 * not made yet, or to be brought to a newer version once nobody writes to them.
 * The table client_want lists them; this file fetches their content, several bundles
 * ahead, and applies it while the next ones are on their way.
 *
 * Names of objects that are not made yet are in this table alone: the names
 * of the state are those that exist here.
 */
#include "client.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define WANT_JOBS	3		/* being fetched or waiting to be applied */
#define WANT_FLIGHTS	4		/* batches with the file system */
#define JOB_OBJECTS	1024
#define JOB_BYTES	(4 * 1024 * 1024)
#define RETRY_SECONDS	3
#define SOON_MS		50

struct IsdWant {
	IsdClient	*c;
	gint64		cursor;		/* seq of the last row that was planned */
	GHashTable	*active;	/* ids (gint64) that are being fetched or applied */
	GHashTable	*jobs;		/* of IsdDataJob, being fetched */
	GQueue		ready;		/* IsdDataJob: fetched, to be applied from next on */
	guint		next;
	IsdBatch	*batch;
	IsdPlace	place;		/* of the file applied last */
	guint		flights;
	guint		retry;		/* source */
	gboolean	more;		/* the catalog is still coming */
	gboolean	again;		/* a conflict was cleared away: no need to wait */
	gboolean	dead;		/* freed when the last batch has landed */
	guint64		files_done, bytes_done;
};

/* One row of the table with its object. */
typedef struct {
	IsdWant		*w;
	gint64		seq, id, parent;
	char		*name;		/* NULL: new content for an object that is here */
	guint64		version, size;
	IsdObject	obj;
} WantItem;

/* --- the table --- */

static const char client_schema[] =
	"CREATE TABLE IF NOT EXISTS client_want(seq INTEGER PRIMARY KEY AUTOINCREMENT,"
	" id INTEGER, parent INTEGER, name BLOB, version INTEGER, size INTEGER,"
	" mtime_s INTEGER, mtime_ns INTEGER);"
	"CREATE INDEX IF NOT EXISTS client_want_id ON client_want(id);"
	"CREATE TABLE IF NOT EXISTS client_segment(start INTEGER PRIMARY KEY,"
	" end INTEGER, first_recno INTEGER, last_recno INTEGER);"
	"CREATE TABLE IF NOT EXISTS client_bare(recno INTEGER PRIMARY KEY);"
	"CREATE TABLE IF NOT EXISTS client_settled(recno INTEGER PRIMARY KEY);"
	"CREATE TABLE IF NOT EXISTS client_cover(ino INTEGER, gen INTEGER, upto INTEGER,"
	" carrier INTEGER, PRIMARY KEY(ino, gen)) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS client_alias(ino INTEGER, gen INTEGER, id INTEGER,"
	" PRIMARY KEY(ino, gen)) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS client_void(id INTEGER PRIMARY KEY, upto INTEGER,"
	" carrier INTEGER);"
	"CREATE TABLE IF NOT EXISTS client_gone(ino INTEGER, gen INTEGER, sino INTEGER,"
	" sgen INTEGER, PRIMARY KEY(ino, gen)) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS client_was(sino INTEGER, sgen INTEGER, id INTEGER,"
	" upto INTEGER, PRIMARY KEY(sino, sgen)) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS client_conflict(no INTEGER PRIMARY KEY AUTOINCREMENT,"
	" kind INTEGER, planned INTEGER, policy INTEGER, time INTEGER, recno INTEGER, id INTEGER,"
	" parent INTEGER, name BLOB, cparent INTEGER, cname BLOB, peer TEXT,"
	" theirs BLOB, mine BLOB, base BLOB);"
	"CREATE TABLE IF NOT EXISTS client_heal(id INTEGER, sino INTEGER, sgen INTEGER,"
	" PRIMARY KEY(id, sino, sgen)) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS client_merge(no INTEGER PRIMARY KEY, spans BLOB,"
	" version INTEGER);"
	"CREATE INDEX IF NOT EXISTS client_conflict_id ON client_conflict(id);"
	"CREATE TABLE IF NOT EXISTS client_listed(parent INTEGER, name BLOB, sino INTEGER,"
	" sgen INTEGER, PRIMARY KEY(parent, name)) WITHOUT ROWID;"
	"CREATE INDEX IF NOT EXISTS client_listed_soid ON client_listed(sino, sgen);"
	"CREATE TABLE IF NOT EXISTS client_mark(recno INTEGER PRIMARY KEY, offset INTEGER,"
	" crc INTEGER);"
	"CREATE TABLE IF NOT EXISTS client_unsent(ino INTEGER, gen INTEGER,"
	" PRIMARY KEY(ino, gen)) WITHOUT ROWID;";

gboolean isd_client_tables(IsdState *s, GError **error)
{
	if (sqlite3_exec(s->db, client_schema, NULL, NULL, NULL) == SQLITE_OK)
		return TRUE;
	return isd_sql_failed(s, error);
}

gboolean isd_want_add(IsdClient *c, gint64 id, gint64 parent, const char *name,
		      guint64 version, guint64 size, GError **error)
{
	return isd_sql_run(c->state, error,
			   "INSERT INTO client_want(id, parent, name, version, size)"
			   " VALUES(?, ?, ?, ?, ?)", "iibii", id, parent, name,
			   name ? strlen(name) : (gsize)0, (gint64)version, (gint64)size);
}

gboolean isd_want_drop(IsdClient *c, gint64 id, GError **error)
{
	c->litter = TRUE;
	return isd_sql_run(c->state, error, "DELETE FROM client_want WHERE id = ?", "i", id);
}

gboolean isd_want_drop_name(IsdClient *c, gint64 id, gint64 parent, const char *name, GError **error)
{
	return isd_sql_run(c->state, error,
			   "DELETE FROM client_want WHERE id = ? AND parent = ? AND name = ?",
			   "iib", id, parent, name, strlen(name));
}

gboolean isd_want_move(IsdClient *c, gint64 id, gint64 parent, const char *name,
		       gint64 tparent, const char *tname, GError **error)
{
	return isd_sql_run(c->state, error,
			   "UPDATE client_want SET parent = ?, name = ?"
			   " WHERE id = ? AND parent = ? AND name = ?",
			   "ibiib", tparent, tname, strlen(tname), id, parent, name, strlen(name));
}

gboolean isd_want_version(IsdClient *c, gint64 id, guint64 version, const struct kml_attrs *attr,
			  GError **error)
{
	c->litter = TRUE;	/* what is there of an older one */
	if (!isd_sql_run(c->state, error, "UPDATE client_want SET version = ?, size = ?,"
			 " mtime_s = ?, mtime_ns = ? WHERE id = ?", "iiiui", (gint64)version,
			 (gint64)attr->size, (gint64)attr->mtime.sec, attr->mtime.nsec, id))
		return FALSE;
	/* while a catalog comes attach.c starts the fetching */
	if (c->pull && c->want)
		isd_want_soon(c->want);
	if (sqlite3_changes(c->state->db))
		return TRUE;
	return isd_sql_run(c->state, error,
			   "INSERT INTO client_want(id, parent, version, size, mtime_s, mtime_ns)"
			   " VALUES(?, 0, ?, ?, ?, ?)", "iiiiu", id, (gint64)version,
			   (gint64)attr->size, (gint64)attr->mtime.sec, attr->mtime.nsec);
}

gboolean isd_want_mtime(IsdClient *c, gint64 id, struct kml_time mtime, GError **error)
{
	return isd_sql_run(c->state, error, "UPDATE client_want SET mtime_s = ?, mtime_ns = ?"
			   " WHERE id = ?", "iui", (gint64)mtime.sec, mtime.nsec, id);
}

gboolean isd_want_is_newer(IsdClient *c, const IsdObject *o, gboolean *ret, GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(c->state, error, &st, "SELECT 1 FROM client_want WHERE id = ? AND"
			     " version > ? LIMIT 1", "ii", o->id, (gint64)o->cver);

	if (rc > 0)
		sqlite3_reset(st);
	*ret = rc > 0;
	return rc >= 0;
}

gboolean isd_want_count(IsdClient *c, guint64 *ret_files, guint64 *ret_bytes, GError **error)
{
	sqlite3_stmt *st;

	if (isd_sql_row(c->state, error, &st,
			"SELECT count(*), coalesce(sum(size), 0) FROM client_want", "") <= 0)
		return FALSE;
	*ret_files = sqlite3_column_int64(st, 0);
	*ret_bytes = sqlite3_column_int64(st, 1);
	sqlite3_reset(st);
	return TRUE;
}

gboolean isd_want_name_of(IsdClient *c, gint64 id, IsdName *ret, gboolean *ret_found, GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(c->state, error, &st, "SELECT parent, name FROM client_want"
			     " WHERE id = ? AND name IS NOT NULL LIMIT 1", "i", id);

	*ret_found = rc > 0;
	if (rc <= 0)
		return rc == 0;
	memset(ret, 0, sizeof(*ret));
	ret->id = id;
	ret->parent = sqlite3_column_int64(st, 0);
	ret->name = g_strndup(sqlite3_column_blob(st, 1), sqlite3_column_bytes(st, 1));
	sqlite3_reset(st);
	return TRUE;
}

/* --- planning --- */

static void want_item_free(gpointer p)
{
	WantItem *it = p;

	isd_object_clear(&it->obj);
	g_free(it->name);
	g_free(it);
}

static WantItem *want_row(IsdWant *w, sqlite3_stmt *st)
{
	WantItem *it = g_new0(WantItem, 1);
	const void *name = sqlite3_column_blob(st, 3);

	it->w = w;
	it->seq = sqlite3_column_int64(st, 0);
	it->id = sqlite3_column_int64(st, 1);
	it->parent = sqlite3_column_int64(st, 2);
	it->name = name ? g_strndup(name, sqlite3_column_bytes(st, 3)) : NULL;
	it->version = sqlite3_column_int64(st, 4);
	it->size = sqlite3_column_int64(st, 5);
	it->obj.attr.mtime.sec = sqlite3_column_int64(st, 6);
	it->obj.attr.mtime.nsec = sqlite3_column_int64(st, 7);
	return it;
}

/* The object of a row; FALSE with *ret_skip: there is nothing to do for it now. */
static gboolean want_object(IsdWant *w, WantItem *it, gboolean *ret_skip, GError **error)
{
	struct kml_time mtime = it->obj.attr.mtime;
	gboolean found;

	*ret_skip = TRUE;
	if (g_hash_table_contains(w->active, &it->id)) {
		w->again = TRUE;	/* a further name of a file that is being made */
		return TRUE;
	}
	if (!isd_state_by_id(w->c->state, it->id, &it->obj, &found, error))
		return FALSE;
	if (!found || !it->obj.soid.ino)
		return isd_want_drop(w->c, it->id, error);
	/* only files have content; what else comes back is made by heal.c, but for further names */
	if (!S_ISREG(it->obj.attr.mode) && !it->obj.oid.ino)
		return isd_heal_add(w->c, it->id, error);
	/* where it is to be is not known yet: heal.c asks */
	if (!it->name && !it->obj.oid.ino)
		return isd_sql_run(w->c->state, error, "DELETE FROM client_want WHERE seq = ?", "i",
				   it->seq) && isd_heal_add(w->c, it->id, error);
	if (!it->name) {
		it->obj.attr.size = it->size;
		it->obj.attr.mtime = mtime;
	}
	*ret_skip = FALSE;
	return TRUE;
}

static void want_plan_add(IsdWant *w, GPtrArray *plan, WantItem *it)
{
	gboolean link = it->name && it->obj.oid.ino;
	IsdContent *t = isd_content_new(it->obj.soid, it->version, link ? 0 : it->size);

	t->user = it;
	g_hash_table_add(w->active, g_memdup2(&it->id, sizeof(it->id)));
	g_ptr_array_add(plan, t);
}

/* The next rows that make one job. */
static gboolean want_plan(IsdWant *w, GPtrArray *plan, GError **error)
{
	guint64 bytes = 0;
	sqlite3_stmt *st;
	int rc;

	rc = isd_sql_row(w->c->state, error, &st,
			 "SELECT seq, id, parent, name, version, size, mtime_s, mtime_ns"
			 " FROM client_want WHERE seq > ? ORDER BY seq", "i", w->cursor);
	for (; rc > 0; rc = isd_sql_next(w->c->state, st, error)) {
		WantItem *it = want_row(w, st);
		gboolean skip;

		bytes += it->size;
		if (plan->len == JOB_OBJECTS || (plan->len && bytes > JOB_BYTES)) {
			want_item_free(it);
			break;
		}
		w->cursor = it->seq;
		if (!want_object(w, it, &skip, error)) {
			want_item_free(it);
			rc = -1;
			break;
		}
		if (skip)
			want_item_free(it);
		else
			want_plan_add(w, plan, it);
	}
	if (rc > 0)
		sqlite3_reset(st);
	return rc >= 0;
}

/* --- results --- */

static gboolean want_names_done(IsdClient *c, const WantItem *it, GError **error)
{
	IsdName n = { .parent = it->parent, .name = it->name, .id = it->id, .ver = it->version };

	return isd_state_put_name(c->state, &n, error) &&
	       isd_sql_run(c->state, error, "DELETE FROM client_want WHERE seq = ?", "i", it->seq);
}

static void want_inactive(IsdWant *w, WantItem *it)
{
	g_hash_table_remove(w->active, &it->id);
}

/* A file was made: the row has had its attributes since it was added. */
static gboolean want_made(IsdClient *c, const WantItem *it, struct kml_oid oid,
			  struct kml_time ctime, GError **error)
{
	it->w->files_done++;
	it->w->bytes_done += it->size;
	return isd_sql_run(c->state, error, "UPDATE obj SET ino = ?, gen = ?, ctime_s = ?,"
			   " ctime_ns = ?, cver = ? WHERE id = ?", "iuiuii", (gint64)oid.ino,
			   oid.gen, (gint64)ctime.sec, ctime.nsec, (gint64)it->version, it->id) &&
	       want_names_done(c, it, error);
}

/* Is it there, and no local program made it (its record would be in the state)? */
static gboolean want_is_there(IsdClient *c, gint64 parent, const char *name, struct stat *ret,
			      struct kml_oid *ret_oid, gboolean *ret_is, GError **error)
{
	g_auto(IsdName) n = { 0 };
	gboolean named;

	*ret_is = FALSE;
	if (isd_local_stat(c, parent, name, ret, ret_oid) || !S_ISREG(ret->st_mode))
		return TRUE;
	if (!isd_client_follow(c, TRUE, error) ||
	    !isd_state_lookup(c->state, parent, name, &n, &named, error))
		return FALSE;
	*ret_is = !named;
	return TRUE;
}

/* What an earlier run made is this version: REINT makes files whole or not at all. */
static gboolean want_is_whole(const struct stat *st, const struct kml_attrs *attr)
{
	return (guint64)st->st_size == attr->size && st->st_mtim.tv_sec == attr->mtime.sec &&
	       (guint32)st->st_mtim.tv_nsec == attr->mtime.nsec;
}

gboolean isd_want_adopt(IsdClient *c, IsdObject *o, GError **error)
{
	g_auto(IsdName) n = { 0 };
	struct kml_oid oid;
	struct stat st;
	gboolean is;

	if (!isd_want_name_of(c, o->id, &n, &is, error))
		return FALSE;
	if (is && !want_is_there(c, n.parent, n.name, &st, &oid, &is, error))
		return FALSE;
	if (!is)
		return TRUE;
	isd_debug(ISD_D_REINT, "%s was made by an earlier run", n.name);
	o->oid = oid;
	o->attr.ctime = (struct kml_time) { st.st_ctim.tv_sec, st.st_ctim.tv_nsec };
	return isd_state_put_object(c->state, o, error) && isd_state_put_name(c->state, &n, error) &&
	       isd_sql_run(c->state, error, "UPDATE client_want SET name = NULL, mtime_s = ?,"
			   " mtime_ns = ? WHERE id = ? AND parent = ? AND name = ?", "iuiib",
			   (gint64)o->attr.mtime.sec, o->attr.mtime.nsec, o->id, n.parent, n.name,
			   strlen(n.name));
}

/* There is no local file of that name by the state, and yet it is there. */
static gboolean want_was_made(IsdClient *c, WantItem *it, GError **error)
{
	struct kml_oid oid;
	struct stat st;
	gboolean found;

	if (isd_local_stat(c, it->parent, it->name, &st, &oid) || !S_ISREG(st.st_mode))
		return TRUE;
	if (it->obj.oid.ino)
		return !isd_oid_equal(it->obj.oid, oid) || want_names_done(c, it, error);
	if (want_is_whole(&st, &it->obj.attr))
		return want_made(c, it, oid, (struct kml_time) { st.st_ctim.tv_sec,
								 st.st_ctim.tv_nsec }, error);
	it->w->again = TRUE;
	isd_object_clear(&it->obj);
	return isd_state_by_id(c->state, it->id, &it->obj, &found, error) &&
	       (!found || it->obj.oid.ino || isd_want_adopt(c, &it->obj, error));
}

/* Something else has the name. */
static gboolean want_in_the_way(IsdClient *c, WantItem *it, GError **error)
{
	struct kml_record theirs = { .opcode = KML_CREATE, .attr = it->obj.attr, .has_attr = true };
	g_auto(IsdName) n = { 0 };
	gboolean found;

	if (!isd_client_follow(c, TRUE, error) ||
	    !isd_state_lookup(c->state, it->parent, it->name, &n, &found, error))
		return FALSE;
	if (!found)
		return want_was_made(c, it, error);
	it->w->again = TRUE;
	return isd_conflict_keep(c, n.id, it->parent, it->name, &theirs, NULL, error);
}

/* Attributes that were pulled since the plan was made; size is the content's. */
static gboolean want_refresh(IsdClient *c, const WantItem *it, struct kml_attrs *attr,
			     GError **error)
{
	g_auto(IsdObject) now = { 0 };
	gboolean found;

	if (!isd_state_by_id(c->state, it->id, &now, &found, error))
		return FALSE;
	if (!found)
		return TRUE;
	attr->mode = now.attr.mode;
	attr->uid = now.attr.uid;
	attr->gid = now.attr.gid;
	if (now.attr.size == attr->size)
		attr->mtime = now.attr.mtime;
	return TRUE;
}

static gboolean same_attrs(const struct kml_attrs *a, const struct kml_attrs *b)
{
	return a->mode == b->mode && a->uid == b->uid && a->gid == b->gid &&
	       a->mtime.sec == b->mtime.sec && a->mtime.nsec == b->mtime.nsec;
}

/* Attributes that were pulled while the file was being made are set on it now. */
static gboolean want_late_attrs(IsdClient *c, WantItem *it, struct kml_oid oid, GError **error)
{
	struct kml_record r = { .opcode = KML_SETATTR, .obj = oid, .has_attr = true };
	IsdObject made = { .oid = oid };
	struct izo_guard guard = isd_guard_object(&made, 0);
	struct izo_reint_result res;
	g_auto(IsdPlace) at = { 0 };
	gboolean found;

	r.attr = it->obj.attr;
	if (!want_refresh(c, it, &r.attr, error))
		return FALSE;
	if (same_attrs(&r.attr, &it->obj.attr))
		return TRUE;
	if (!isd_place_by_id(c, it->parent, &at, &found, error) || !found)
		return !error || !*error;
	r.attr.valid = KML_A_MODE | KML_A_UID | KML_A_GID | KML_A_MTIME;
	isd_place_source(&r, &at, it->name);
	if (!isd_reint_one(c, &r, &guard, NULL, 0, &res, error))
		return FALSE;
	/* Anything but success: somebody here was faster, and that will be sent. */
	return res.error ||
	       isd_sql_run(c->state, error, "UPDATE obj SET ctime_s = ?, ctime_ns = ? WHERE id = ?",
			   "iui", (gint64)isd_result_ctime(&res).sec, isd_result_ctime(&res).nsec,
			   it->id);
}

static gboolean want_created(IsdClient *c, gpointer item, const struct izo_reint_result *res,
			     GError **error)
{
	WantItem *it = item;
	guint32 err = GUINT32_FROM_LE(res->error);

	want_inactive(it->w, it);
	if (!err)
		return want_made(c, it, isd_result_oid(res), isd_result_ctime(res), error) &&
		       want_late_attrs(c, it, isd_result_oid(res), error);
	if (isd_result_is_fatal(res, error))
		return FALSE;
	isd_debug(ISD_D_REINT, "%s: %s", it->name, g_strerror(err));
	return want_in_the_way(c, it, error);
}

/* A later record tells what became of it; if none does, the server is asked. */
static gboolean want_not_now(IsdWant *w, WantItem *it, gboolean lost, GError **error)
{
	gboolean ok = !lost || isd_heal_add(w->c, it->id, error);

	if (lost)
		w->again = FALSE;	/* its other names would be tried at once, for ever */
	want_inactive(w, it);
	want_item_free(it);
	return ok;
}

/* A further name of an object that is there. */
static gboolean want_linked(IsdClient *c, gpointer item, const struct izo_reint_result *res,
			    GError **error)
{
	WantItem *it = item;
	struct kml_time ctime = isd_result_ctime(res);

	want_inactive(it->w, it);
	if (isd_result_is_fatal(res, error))
		return FALSE;
	if (res->error)
		return want_in_the_way(c, it, error);
	it->w->files_done++;
	return isd_sql_run(c->state, error, "UPDATE obj SET ctime_s = ?, ctime_ns = ? WHERE id = ?",
			   "iui", (gint64)ctime.sec, ctime.nsec, it->id) &&
	       want_names_done(c, it, error);
}

/* New content; ESTALE: somebody writes to it, it is tried again. */
static gboolean want_replaced(IsdClient *c, gpointer item, const struct izo_reint_result *res,
			      GError **error)
{
	WantItem *it = item;
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	want_inactive(it->w, it);
	if (isd_result_is_fatal(res, error))
		return FALSE;
	if (res->error)
		return isd_local_refresh(c, it->id, error);
	it->w->files_done++;
	it->w->bytes_done += it->size;
	/* what was planned may be older than the row is now */
	if (!isd_push_alias(c, it->obj.oid, it->id, error) ||
	    !isd_state_by_id(c->state, it->id, &o, &found, error))
		return FALSE;
	if (!found)
		return TRUE;
	o.oid = isd_result_oid(res);
	o.cver = it->version;
	o.attr.size = it->obj.attr.size;
	o.attr.mtime = it->obj.attr.mtime;
	o.attr.ctime = isd_result_ctime(res);
	return isd_state_put_object(c->state, &o, error) && isd_want_drop(c, it->id, error);
}

/* --- applying --- */

static void want_content(struct kml_record *r, const IsdContent *t)
{
	if (t->file)
		r->file = (struct kml_str) { t->file, strlen(t->file) };
	else
		r->data = (struct kml_str) { t->size ? (const char *)t->data : "", t->size };
}

static gboolean want_place(IsdWant *w, gint64 parent, gboolean *ret_found, GError **error)
{
	if (w->place.path && w->place.id == parent) {
		*ret_found = TRUE;
		return TRUE;
	}
	isd_place_clear(&w->place);
	return isd_place_by_id(w->c, parent, &w->place, ret_found, error);
}

static gboolean want_add_create(IsdWant *w, WantItem *it, const IsdContent *t, GError **error)
{
	struct izo_guard absent = isd_guard_absent();
	g_autoptr(GBytes) xattrs = NULL;
	struct kml_record r = {
		.opcode = KML_CREATE, .has_attr = true,
		.ptime = w->place.mtime, .has_ptime = true,
	};

	if (!want_refresh(w->c, it, &it->obj.attr, error))
		return FALSE;
	r.attr = it->obj.attr;
	r.attr.size = t->size;
	if (!isd_state_xattrs(w->c->state, it->id, &xattrs, error))
		return FALSE;
	if (xattrs)
		r.xattrs = g_bytes_get_data(xattrs, &r.xattrs_len);
	isd_place_source(&r, &w->place, it->name);
	want_content(&r, t);
	return isd_batch_add(w->batch, &r, &absent, NULL, 0, want_created, it, want_item_free, error);
}

static gboolean want_add_link(IsdWant *w, WantItem *it, GError **error)
{
	struct izo_guard same = isd_guard_object(&it->obj, 0), absent = isd_guard_absent();
	struct kml_record r = {
		.opcode = KML_LINK, .tptime = w->place.mtime, .has_ptime = true,
	};
	g_auto(IsdName) first = { 0 };
	g_auto(IsdPlace) at = { 0 };
	gboolean found;

	if (!isd_state_a_name(w->c->state, it->id, &first, &found, error))
		return FALSE;
	if (found && !isd_place_by_id(w->c, first.parent, &at, &found, error))
		return FALSE;
	if (!found) {
		want_inactive(w, it);
		want_item_free(it);
		return TRUE;
	}
	r.obj = it->obj.oid;
	r.ptime = at.mtime;
	isd_place_source(&r, &at, first.name);
	isd_place_target(&r, &w->place, it->name);
	return isd_batch_add(w->batch, &r, &same, &absent, 0, want_linked, it, want_item_free, error);
}

/* The server's version came while a local program was writing: it gets name and row of its own. */
static gboolean want_split(IsdClient *c, const WantItem *it, const IsdName *n, GError **error)
{
	struct kml_record r = { .opcode = KML_CLOSE, .attr = it->obj.attr, .has_attr = true };
	g_auto(IsdObject) theirs = { 0 };
	gboolean found;
	gint64 id;

	it->w->again = TRUE;
	if (!isd_conflict_keep(c, it->id, n->parent, n->name, &r, &id, error))
		return FALSE;
	if (!id)
		return TRUE;
	if (!isd_state_by_id(c->state, id, &theirs, &found, error) || !found)
		return !error || !*error;
	theirs.soid = it->obj.soid;
	theirs.attr.size = it->obj.attr.size;
	theirs.attr.mtime = it->obj.attr.mtime;
	return isd_state_put_object(c->state, &theirs, error) &&
	       isd_want_version(c, id, it->version, &theirs.attr, error);
}

/* What was written here is not sent before this has decided: see encode_push.c. */
static gboolean want_both_changed(IsdWant *w, WantItem *it, const IsdName *n, const IsdContent *t,
				  GError **error)
{
	IsdClient *c = w->c;
	g_auto(IsdObject) o = { 0 };
	gboolean found, same;

	if (!c->push || isd_push_is_asking(c->push))
		return TRUE;
	if (!isd_client_follow(c, TRUE, error) || !isd_state_by_id(c->state, it->id, &o, &found, error))
		return FALSE;
	if (!found || !isd_push_is_pending(c, o.oid, o.lcver))
		return TRUE;
	same = o.cver >= it->version ||
		(t->file ? isd_local_same_file(c, n->parent, n->name, o.oid, t->file, t->size) :
		 isd_local_same_bytes(c, n->parent, n->name, o.oid, t->data, t->size));
	if (!same)
		return want_split(c, it, n, error);
	o.cver = MAX(o.cver, it->version);
	return isd_state_put_object(c->state, &o, error) && isd_want_drop(c, it->id, error);
}

static gboolean want_add_close(IsdWant *w, WantItem *it, const IsdContent *t, GError **error)
{
	struct izo_guard guard = isd_guard_object(&it->obj, IZO_G_CTIME | IZO_G_NOWRITER);
	struct kml_record r = {
		.opcode = KML_CLOSE, .flags = KML_F_RANGES_ALL, .obj = it->obj.oid,
		.attr = it->obj.attr, .has_attr = true,
	};
	g_autoptr(GBytes) aliases = NULL;
	g_auto(IsdName) n = { 0 };
	gboolean found;

	if (!isd_state_a_name(w->c->state, it->id, &n, &found, error))
		return FALSE;
	if (found && !want_place(w, n.parent, &found, error))
		return FALSE;
	if (!found)
		return want_not_now(w, it, TRUE, error);
	if (isd_push_is_pending(w->c, it->obj.oid, it->obj.lcver)) {
		gboolean ok = want_both_changed(w, it, &n, t, error);

		want_inactive(w, it);
		want_item_free(it);
		return ok;
	}
	if (!isd_state_aliases(w->c->state, &it->obj, n.parent, n.name, &aliases, error))
		return FALSE;
	if (aliases)
		r.aliases = g_bytes_get_data(aliases, &r.aliases_len);
	r.attr.valid = KML_A_SIZE | KML_A_MTIME;
	isd_place_source(&r, &w->place, n.name);
	want_content(&r, t);
	return isd_batch_add(w->batch, &r, &guard, NULL, 0, want_replaced, it, want_item_free, error);
}

/* Takes the item over. */
static gboolean want_add(IsdWant *w, WantItem *it, const IsdContent *t, GError **error)
{
	gboolean found = TRUE;

	if (t->status == ISD_CONTENT_FULL)
		isd_space_short(w->c, it->id, t->need);
	if (t->status)
		return want_not_now(w, it, t->status == 404 || t->status == 410, error);
	if (it->name && !want_place(w, it->parent, &found, error)) {
		want_not_now(w, it, FALSE, NULL);
		return FALSE;
	}
	if (!found)
		return want_not_now(w, it, TRUE, error);
	if (!it->name)
		return want_add_close(w, it, t, error);
	return it->obj.oid.ino ? want_add_link(w, it, error) : want_add_create(w, it, t, error);
}

static gboolean want_pump_again(gpointer data)
{
	IsdWant *w = data;

	w->retry = 0;
	w->cursor = 0;
	isd_space_pass(w->c);
	isd_want_pump(w, w->more);
	return G_SOURCE_REMOVE;
}

/* Unless all that is left waits for room, and there is none. */
static gboolean want_look_again(gpointer data)
{
	IsdWant *w = data;
	guint64 files, bytes;

	if (isd_want_count(w->c, &files, &bytes, NULL) && isd_space_waits(w->c, files))
		return G_SOURCE_CONTINUE;
	return want_pump_again(w);
}

/* Nothing is left to be planned, fetched or applied. */
static void want_pass_done(IsdWant *w)
{
	guint64 files, bytes;
	g_autoptr(GError) error = NULL;

	if (w->more || w->retry)
		return;
	if (!isd_client_commit(w->c, &error) || !isd_want_count(w->c, &files, &bytes, &error)) {
		isd_client_fail(w->c, error);
		return;
	}
	if (files)
		w->retry = w->again && !w->c->shortage.rows ? g_idle_add(want_pump_again, w) :
			g_timeout_add_seconds(RETRY_SECONDS, want_look_again, w);
	isd_space_passed(w->c);
	if (!w->again && w->c->attach)
		isd_attach_wanted_done(w->c->attach);
	w->again = FALSE;
	isd_client_progress(w->c);
}

static void want_fail(IsdWant *w, const GError *error)
{
	isd_client_fail(w->c, error);
}

static void want_landed(IsdClient *c, const GError *error, gpointer data);

/* Fill one batch from what is ready; FALSE: there is nothing. */
static gboolean want_fill(IsdWant *w, GError **error)
{
	IsdDataJob *job = g_queue_peek_head(&w->ready);
	GPtrArray *contents = job ? isd_data_contents(job) : NULL;

	while (job && w->next < contents->len) {
		IsdContent *t = g_ptr_array_index(contents, w->next);

		if (!isd_batch_has_room(w->batch, t->data ? t->size : 0))
			break;
		w->next++;
		if (!want_add(w, g_steal_pointer(&t->user), t, error))
			return FALSE;
	}
	if (job && w->next == contents->len) {
		isd_data_job_free(g_queue_pop_head(&w->ready));
		w->next = 0;
	}
	return isd_batch_count(w->batch) > 0;
}

static void want_drain(IsdWant *w)
{
	g_autoptr(GError) error = NULL;

	isd_place_clear(&w->place);
	while (w->flights < WANT_FLIGHTS && (!g_queue_is_empty(&w->ready)) && !error)
		if (want_fill(w, &error) && !error) {
			w->flights++;
			isd_batch_submit(w->batch, want_landed, w);
		}
	if (error)
		want_fail(w, error);
}

static void want_landed(IsdClient *c, const GError *error, gpointer data)
{
	IsdWant *w = data;

	w->flights--;
	if (w->dead) {
		isd_want_free(w);
		return;
	}
	if (error) {
		want_fail(w, error);
		return;
	}
	if (isd_client_is_up(c)) {
		want_drain(w);
		isd_want_pump(w, w->more);
	}
}

static void want_free_job(gpointer job)
{
	GPtrArray *contents = isd_data_contents(job);

	for (guint i = 0; i < contents->len; i++) {
		IsdContent *t = g_ptr_array_index(contents, i);

		if (t->user)
			want_item_free(t->user);
	}
	isd_data_job_free(job);
}

static void want_got(IsdDataJob *job, const GError *error, gpointer data)
{
	IsdWant *w = data;

	if (error) {
		want_fail(w, error);
		return;
	}
	g_hash_table_steal(w->jobs, job);
	g_queue_push_tail(&w->ready, job);
	want_drain(w);
	isd_want_pump(w, w->more);
}

/* FALSE: nothing was found to do. */
static gboolean want_start_job(IsdWant *w, GError **error)
{
	GPtrArray *plan = g_ptr_array_new();

	if (!want_plan(w, plan, error) || !plan->len) {
		g_ptr_array_unref(plan);
		return FALSE;
	}
	g_hash_table_add(w->jobs, isd_data_get(w->c, plan, want_got, w));
	return TRUE;
}

void isd_want_pump(IsdWant *w, gboolean more)
{
	g_autoptr(GError) error = NULL;

	w->more = more;
	if (!isd_client_is_up(w->c))
		return;
	while (!w->retry && g_hash_table_size(w->jobs) + w->ready.length < WANT_JOBS)
		if (!want_start_job(w, &error))
			break;
	if (error)
		want_fail(w, error);
	else if (!g_hash_table_size(w->jobs) && !w->ready.length && !w->flights)
		want_pass_done(w);
}

void isd_want_soon(IsdWant *w)
{
	if (w->more)
		return;
	g_clear_handle_id(&w->retry, g_source_remove);
	w->retry = g_timeout_add(SOON_MS, want_pump_again, w);
}

gboolean isd_want_is_busy(const IsdWant *w)
{
	return g_hash_table_size(w->active) > 0;
}

gboolean isd_want_is_active(const IsdWant *w, gint64 id)
{
	return w && g_hash_table_contains(w->active, &id);
}

guint64 isd_want_files_done(const IsdWant *w)
{
	return w->files_done;
}

guint64 isd_want_bytes_done(const IsdWant *w)
{
	return w->bytes_done;
}

IsdWant *isd_want_new(IsdClient *c)
{
	IsdWant *w = g_new0(IsdWant, 1);

	w->c = c;
	w->active = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
	w->jobs = g_hash_table_new_full(NULL, NULL, want_free_job, NULL);
	w->batch = isd_batch_new(c);
	isd_space_pass(c);
	g_queue_init(&w->ready);
	return w;
}

void isd_want_free(IsdWant *w)
{
	IsdDataJob *job;

	if (!w)
		return;
	g_clear_handle_id(&w->retry, g_source_remove);
	g_hash_table_remove_all(w->jobs);
	while ((job = g_queue_pop_head(&w->ready)))
		want_free_job(job);
	w->dead = TRUE;
	if (w->flights)
		return;		/* their results are still taken in */
	isd_batch_free(w->batch);
	isd_place_clear(&w->place);
	g_hash_table_unref(w->jobs);
	g_hash_table_unref(w->active);
	g_free(w);
}
