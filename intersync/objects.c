// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Rows of the state database: objects, names, xattrs; looking them up and
 * changing them directly.  Used by apply.c for records and by the roles for
 * what became true without one.
 */
#include "statedb.h"

#include <string.h>
#include <sys/stat.h>

#define OBJ_COLS \
	"id, ino, gen, sino, sgen, mode, uid, gid, nlink, rmaj, rmin, size," \
	" mtime_s, mtime_ns, ctime_s, ctime_ns, cver, aver, lcver, laver, link"
/* What an object may hang below: a loop in a damaged database ends here. */
#define DEPTH_MAX	100000

void isd_object_clear(IsdObject *o)
{
	g_clear_pointer(&o->link, g_free);
	o->link_len = 0;
}

void isd_name_clear(IsdName *n)
{
	g_clear_pointer(&n->name, g_free);
}

static void get_link(sqlite3_stmt *st, int col, IsdObject *o)
{
	const void *blob = sqlite3_column_blob(st, col);

	if (!blob)
		return;
	o->link_len = sqlite3_column_bytes(st, col);
	o->link = g_malloc(o->link_len + 1);
	memcpy(o->link, blob, o->link_len);
	o->link[o->link_len] = '\0';
}

/* A row of OBJ_COLS. */
static void get_object(sqlite3_stmt *st, IsdObject *o)
{
	int i = 0;

	memset(o, 0, sizeof(*o));
	o->id = sqlite3_column_int64(st, i++);
	o->oid.ino = sqlite3_column_int64(st, i++);
	o->oid.gen = sqlite3_column_int64(st, i++);
	o->soid.ino = sqlite3_column_int64(st, i++);
	o->soid.gen = sqlite3_column_int64(st, i++);
	o->attr.mode = sqlite3_column_int64(st, i++);
	o->attr.uid = sqlite3_column_int64(st, i++);
	o->attr.gid = sqlite3_column_int64(st, i++);
	o->attr.nlink = sqlite3_column_int64(st, i++);
	o->attr.rdev_major = sqlite3_column_int64(st, i++);
	o->attr.rdev_minor = sqlite3_column_int64(st, i++);
	o->attr.size = sqlite3_column_int64(st, i++);
	o->attr.mtime.sec = sqlite3_column_int64(st, i++);
	o->attr.mtime.nsec = sqlite3_column_int64(st, i++);
	o->attr.ctime.sec = sqlite3_column_int64(st, i++);
	o->attr.ctime.nsec = sqlite3_column_int64(st, i++);
	o->cver = sqlite3_column_int64(st, i++);
	o->aver = sqlite3_column_int64(st, i++);
	o->lcver = sqlite3_column_int64(st, i++);
	o->laver = sqlite3_column_int64(st, i++);
	get_link(st, i, o);
}

static gboolean one_object(sqlite3_stmt *st, int rc, IsdObject *ret, gboolean *ret_found)
{
	if (rc < 0)
		return FALSE;
	*ret_found = rc > 0;
	if (rc > 0) {
		get_object(st, ret);
		sqlite3_reset(st);
	}
	return TRUE;
}

gboolean isd_state_by_id(IsdState *s, gint64 id, IsdObject *ret, gboolean *ret_found,
			 GError **error)
{
	sqlite3_stmt *st = NULL;
	int rc = isd_sql_row(s, error, &st, "SELECT " OBJ_COLS " FROM obj WHERE id = ?",
			     "i", id);

	return one_object(st, rc, ret, ret_found);
}

gboolean isd_state_by_oid(IsdState *s, struct kml_oid oid, IsdObject *ret,
			  gboolean *ret_found, GError **error)
{
	sqlite3_stmt *st = NULL;
	int rc = isd_sql_row(s, error, &st, "SELECT " OBJ_COLS " FROM obj"
			     " WHERE ino = ? AND gen = ? AND ino <> 0",
			     "iu", (gint64) oid.ino, oid.gen);

	return one_object(st, rc, ret, ret_found);
}

gboolean isd_state_by_soid(IsdState *s, struct kml_oid soid, IsdObject *ret,
			   gboolean *ret_found, GError **error)
{
	sqlite3_stmt *st = NULL;
	int rc = isd_sql_row(s, error, &st, "SELECT " OBJ_COLS " FROM obj"
			     " WHERE sino = ? AND sgen = ? AND sino <> 0",
			     "iu", (gint64) soid.ino, soid.gen);

	return one_object(st, rc, ret, ret_found);
}

/* The row of a directory by its number here, 0 when there is none. */
gboolean isd_obj_dir_id(IsdState *s, struct kml_oid oid, gint64 *ret_id, GError **error)
{
	sqlite3_stmt *st;
	int rc;

	if (s->dir_id && s->dir_oid.ino == oid.ino && s->dir_oid.gen == oid.gen) {
		*ret_id = s->dir_id;
		return TRUE;
	}
	rc = isd_sql_row(s, error, &st,
			 "SELECT id FROM obj WHERE ino = ? AND gen = ? AND ino <> 0",
			 "iu", (gint64) oid.ino, oid.gen);
	if (rc < 0)
		return FALSE;
	*ret_id = rc ? sqlite3_column_int64(st, 0) : 0;
	if (rc)
		sqlite3_reset(st);
	s->dir_oid = oid;
	s->dir_id = *ret_id;
	return TRUE;
}

static guint64 counted_size(const IsdObject *o)
{
	return S_ISREG(o->attr.mode) ? o->attr.size : 0;
}

static void count(IsdState *s, gint64 objects, guint64 bytes)
{
	s->objects += objects;
	s->bytes += bytes;
	s->dirty = TRUE;
}

static gboolean insert_object(IsdState *s, IsdObject *o, GError **error)
{
	const struct kml_attrs *a = &o->attr;

	if (!isd_sql_run(s, error,
			 "INSERT INTO obj VALUES(nullif(?,0),?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
			 "iiuiuuuuuuuiiuiuiiiib",
			 o->id, (gint64) o->oid.ino, o->oid.gen, (gint64) o->soid.ino, o->soid.gen,
			 a->mode, a->uid, a->gid, a->nlink, a->rdev_major, a->rdev_minor,
			 (gint64) a->size, (gint64) a->mtime.sec, a->mtime.nsec,
			 (gint64) a->ctime.sec, a->ctime.nsec,
			 (gint64) o->cver, (gint64) o->aver, (gint64) o->lcver, (gint64) o->laver,
			 o->link, o->link_len))
		return FALSE;
	o->id = sqlite3_last_insert_rowid(s->db);
	count(s, 1, counted_size(o));
	return TRUE;
}

gboolean isd_state_add_object(IsdState *s, IsdObject *o, GError **error)
{
	if (!isd_state_begin(s, error))
		return FALSE;
	if (!insert_object(s, o, error)) {
		isd_state_rollback(s);
		return FALSE;
	}
	if (s->dir_oid.ino == o->oid.ino)
		s->dir_id = 0;
	return isd_state_commit(s, error);
}

static gboolean update_oids(IsdState *s, const IsdObject *o, GError **error)
{
	s->dir_id = 0;
	return isd_sql_run(s, error,
			   "UPDATE obj SET ino = ?, gen = ?, sino = ?, sgen = ? WHERE id = ?",
			   "iuiui", (gint64) o->oid.ino, o->oid.gen, (gint64) o->soid.ino,
			   o->soid.gen, o->id);
}

static gboolean same_oid(struct kml_oid a, struct kml_oid b)
{
	return a.ino == b.ino && a.gen == b.gen;
}

/* The numbers are indexed, and so only written when they have changed. */
gboolean isd_obj_update(IsdState *s, const IsdObject *old, const IsdObject *o, GError **error)
{
	const struct kml_attrs *a = &o->attr;

	if ((!same_oid(old->oid, o->oid) || !same_oid(old->soid, o->soid)) &&
	    !update_oids(s, o, error))
		return FALSE;
	count(s, 0, counted_size(o) - counted_size(old));
	return isd_sql_run(s, error,
			   "UPDATE obj SET mode = ?, uid = ?, gid = ?, nlink = ?, rmaj = ?,"
			   " rmin = ?, size = ?, mtime_s = ?, mtime_ns = ?, ctime_s = ?,"
			   " ctime_ns = ?, cver = ?, aver = ?, lcver = ?, laver = ?, link = ?"
			   " WHERE id = ?", "uuuuuuiiuiuiiiibi",
			   a->mode, a->uid, a->gid, a->nlink, a->rdev_major, a->rdev_minor,
			   (gint64) a->size, (gint64) a->mtime.sec, a->mtime.nsec,
			   (gint64) a->ctime.sec, a->ctime.nsec,
			   (gint64) o->cver, (gint64) o->aver, (gint64) o->lcver, (gint64) o->laver,
			   o->link, o->link_len, o->id);
}

static gboolean put_object(IsdState *s, const IsdObject *o, GError **error)
{
	g_auto(IsdObject) old = { 0 };
	gboolean found;

	if (!isd_state_by_id(s, o->id, &old, &found, error))
		return FALSE;
	if (found)
		return isd_obj_update(s, &old, o, error);
	g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED,
		    "state.db: no object %" G_GINT64_FORMAT " to change", o->id);
	return FALSE;
}

gboolean isd_state_put_object(IsdState *s, const IsdObject *o, GError **error)
{
	if (!isd_state_begin(s, error))
		return FALSE;
	if (put_object(s, o, error))
		return isd_state_commit(s, error);
	isd_state_rollback(s);
	return FALSE;
}

static gboolean drop_object(IsdState *s, gint64 id, GError **error)
{
	g_auto(IsdObject) old = { 0 };
	gboolean found;

	if (!isd_state_by_id(s, id, &old, &found, error))
		return FALSE;
	if (!found)
		return TRUE;
	if (s->dir_id == id)
		s->dir_id = 0;
	count(s, -1, -counted_size(&old));
	return isd_sql_run(s, error, "DELETE FROM xattr WHERE id = ?", "i", id) &&
	       isd_sql_run(s, error, "UPDATE origin SET id = 0 WHERE id = ? AND id <> 0",
			   "i", id) &&
	       isd_sql_run(s, error, "DELETE FROM name WHERE id = ?", "i", id) &&
	       isd_sql_run(s, error, "DELETE FROM obj WHERE id = ?", "i", id);
}

gboolean isd_state_drop_object(IsdState *s, gint64 id, GError **error)
{
	if (!isd_state_begin(s, error))
		return FALSE;
	if (drop_object(s, id, error))
		return isd_state_commit(s, error);
	isd_state_rollback(s);
	return FALSE;
}

gboolean isd_obj_is_nameless(IsdState *s, gint64 id, gboolean *ret, GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(s, error, &st, "SELECT 1 FROM name WHERE id = ? LIMIT 1", "i", id);

	if (rc < 0)
		return FALSE;
	*ret = rc == 0 && id != ISD_ROOT_ID;
	if (rc > 0)
		sqlite3_reset(st);
	return TRUE;
}

gboolean isd_obj_drop_if_nameless(IsdState *s, gint64 id, gboolean keep_known, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	gboolean nameless, found;

	if (!isd_obj_is_nameless(s, id, &nameless, error))
		return FALSE;
	if (!nameless)
		return TRUE;
	if (keep_known && !isd_state_by_id(s, id, &o, &found, error))
		return FALSE;
	return o.soid.ino ? TRUE : drop_object(s, id, error);
}

gboolean isd_obj_set_mtime(IsdState *s, gint64 id, struct kml_time t, GError **error)
{
	return isd_sql_run(s, error, "UPDATE obj SET mtime_s = ?, mtime_ns = ? WHERE id = ?",
			   "iui", (gint64) t.sec, t.nsec, id);
}

/* A row of parent, name, id, ver, lver. */
static void get_name(sqlite3_stmt *st, IsdName *n)
{
	const void *name = sqlite3_column_blob(st, 1);
	int len = sqlite3_column_bytes(st, 1);

	n->parent = sqlite3_column_int64(st, 0);
	n->name = g_strndup(name ? name : "", len);
	n->id = sqlite3_column_int64(st, 2);
	n->ver = sqlite3_column_int64(st, 3);
	n->lver = sqlite3_column_int64(st, 4);
}

static gboolean one_name(sqlite3_stmt *st, int rc, IsdName *ret, gboolean *ret_found)
{
	if (rc < 0)
		return FALSE;
	*ret_found = rc > 0;
	if (rc > 0) {
		get_name(st, ret);
		sqlite3_reset(st);
	}
	return TRUE;
}

gboolean isd_state_lookup(IsdState *s, gint64 parent, const char *name, IsdName *ret,
			  gboolean *ret_found, GError **error)
{
	sqlite3_stmt *st = NULL;
	int rc = isd_sql_row(s, error, &st, "SELECT parent, name, id, ver, lver FROM name"
			     " WHERE parent = ? AND name = ?", "ib", parent, name, strlen(name));

	return one_name(st, rc, ret, ret_found);
}

gboolean isd_state_a_name(IsdState *s, gint64 id, IsdName *ret, gboolean *ret_found,
			  GError **error)
{
	sqlite3_stmt *st = NULL;
	int rc = isd_sql_row(s, error, &st, "SELECT parent, name, id, ver, lver FROM name"
			     " WHERE id = ? LIMIT 1", "i", id);

	return one_name(st, rc, ret, ret_found);
}

static void prepend(GString *path, const IsdName *n)
{
	g_string_prepend(path, n->name);
	g_string_prepend_c(path, '/');
}

char *isd_state_path(IsdState *s, gint64 id, GError **error)
{
	g_autoptr(GString) path = g_string_new(NULL);

	for (guint depth = 0; id != ISD_ROOT_ID; depth++) {
		g_auto(IsdName) n = { 0 };
		gboolean found;

		if (!isd_state_a_name(s, id, &n, &found, error))
			return NULL;
		if (!found || depth == DEPTH_MAX) {
			g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED,
				    "state.db: object %" G_GINT64_FORMAT
				    " does not hang below the root", id);
			return NULL;
		}
		prepend(path, &n);
		id = n.parent;
	}
	if (!path->len)
		g_string_append_c(path, '/');
	return g_string_free(g_steal_pointer(&path), FALSE);
}

static gboolean names_of(IsdState *s, gint64 id, GArray *ret, GError **error)
{
	sqlite3_stmt *st = NULL;
	int rc = isd_sql_row(s, error, &st, "SELECT parent, name, id, ver, lver FROM name"
			     " WHERE id = ?", "i", id);

	while (rc > 0) {
		IsdName n = { 0 };

		get_name(st, &n);
		g_array_append_val(ret, n);
		rc = isd_sql_next(s, st, error);
	}
	return rc == 0;
}

static void clear_name(gpointer n)
{
	isd_name_clear(n);
}

gboolean isd_state_names(IsdState *s, gint64 id, GArray **ret, GError **error)
{
	g_autoptr(GArray) names = g_array_new(FALSE, FALSE, sizeof(IsdName));

	g_array_set_clear_func(names, clear_name);
	if (!names_of(s, id, names, error))
		return FALSE;
	*ret = g_steal_pointer(&names);
	return TRUE;
}

static gboolean add_alias(IsdState *s, const IsdName *n, GByteArray *blob, GError **error)
{
	g_autofree char *dir = isd_state_path(s, n->parent, error), *path = NULL;
	gsize at = blob->len;
	gssize len;

	if (!dir)
		return FALSE;
	path = g_strconcat(strcmp(dir, "/") ? dir : "", "/", n->name, NULL);
	len = kml_alias_put(NULL, 0, path, strlen(path));
	if (len < 0 || at + len > KML_REC_MAX / 2)
		return TRUE;
	g_byte_array_set_size(blob, at + len);
	kml_alias_put(blob->data + at, len, path, strlen(path));
	return TRUE;
}

gboolean isd_state_aliases(IsdState *s, const IsdObject *o, gint64 parent, const char *name,
			   GBytes **ret, GError **error)
{
	g_autoptr(GByteArray) blob = g_byte_array_new();
	g_autoptr(GArray) names = g_array_new(FALSE, FALSE, sizeof(IsdName));

	*ret = NULL;
	if (o->attr.nlink < 2)
		return TRUE;
	g_array_set_clear_func(names, (GDestroyNotify)isd_name_clear);
	if (!names_of(s, o->id, names, error))
		return FALSE;
	for (guint i = 0; i < names->len; i++) {
		const IsdName *n = &g_array_index(names, IsdName, i);

		if ((n->parent != parent || strcmp(n->name, name)) &&
		    !add_alias(s, n, blob, error))
			return FALSE;
	}
	if (blob->len)
		*ret = g_byte_array_free_to_bytes(g_steal_pointer(&blob));
	return TRUE;
}

gboolean isd_state_is_empty_dir(IsdState *s, gint64 id, gboolean *ret, GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(s, error, &st, "SELECT 1 FROM name WHERE parent = ? LIMIT 1",
			     "i", id);

	if (rc < 0)
		return FALSE;
	*ret = rc == 0;
	if (rc)
		sqlite3_reset(st);
	return TRUE;
}

gboolean isd_state_counts(IsdState *s, guint64 *ret_objects, guint64 *ret_bytes, GError **error)
{
	return isd_state_get_u64(s, "objects", ret_objects, error) &&
	       isd_state_get_u64(s, "bytes", ret_bytes, error);
}

/* The object that a name is bound to at present, 0 for none. */
static gboolean bound_to(IsdState *s, gint64 parent, struct kml_str name, gint64 *ret_id,
			 GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(s, error, &st,
			     "SELECT id FROM name WHERE parent = ? AND name = ?",
			     "ib", parent, name.ptr, name.len);

	if (rc < 0)
		return FALSE;
	*ret_id = rc ? sqlite3_column_int64(st, 0) : 0;
	if (rc)
		sqlite3_reset(st);
	return TRUE;
}

gboolean isd_name_bind(IsdState *s, gint64 parent, struct kml_str name, gint64 id,
		       guint64 ver, guint64 lver, gboolean keep_known, GError **error)
{
	gint64 before;

	if (!bound_to(s, parent, name, &before, error) ||
	    !isd_sql_run(s, error, "INSERT OR REPLACE INTO name VALUES(?, ?, ?, ?, ?)", "ibiii",
			 parent, name.ptr, name.len, id, (gint64) ver, (gint64) lver))
		return FALSE;
	return before == 0 || before == id ||
	       isd_obj_drop_if_nameless(s, before, keep_known, error);
}

gboolean isd_name_unbind(IsdState *s, gint64 parent, struct kml_str name, gint64 id,
			 GError **error)
{
	return isd_sql_run(s, error, "DELETE FROM name WHERE parent = ? AND name = ? AND id = ?",
			   "ibi", parent, name.ptr, name.len, id);
}

gboolean isd_state_put_name(IsdState *s, const IsdName *n, GError **error)
{
	return isd_sql_run(s, error, "INSERT OR REPLACE INTO name VALUES(?, ?, ?, ?, ?)", "ibiii",
			   n->parent, n->name, strlen(n->name), n->id, (gint64) n->ver,
			   (gint64) n->lver);
}

gboolean isd_state_drop_name(IsdState *s, gint64 parent, const char *name, GError **error)
{
	return isd_sql_run(s, error, "DELETE FROM name WHERE parent = ? AND name = ?", "ib",
			   parent, name, strlen(name));
}

gboolean isd_state_list(IsdState *s, gint64 parent, const char *after, guint max,
			GArray **ret, GError **error)
{
	g_autoptr(GArray) a = g_array_new(FALSE, FALSE, sizeof(IsdName));
	sqlite3_stmt *st;
	IsdName n;
	int rc;

	g_array_set_clear_func(a, (GDestroyNotify) isd_name_clear);
	rc = isd_sql_row(s, error, &st, "SELECT parent, name, id, ver, lver FROM name"
			 " WHERE parent = ? AND name > ? ORDER BY name LIMIT ?", "ibu",
			 parent, after ? after : "", after ? strlen(after) : (gsize) 0, max);
	for (; rc > 0; rc = isd_sql_next(s, st, error)) {
		get_name(st, &n);
		g_array_append_val(a, n);
	}
	if (rc < 0)
		return FALSE;
	*ret = g_steal_pointer(&a);
	return TRUE;
}

gboolean isd_state_set_xattr(IsdState *s, gint64 id, const char *name, gsize name_len,
			     const void *value, gssize value_len, GError **error)
{
	if (value_len < 0)
		return isd_sql_run(s, error, "DELETE FROM xattr WHERE id = ? AND name = ?",
				   "ib", id, name, name_len);
	return isd_sql_run(s, error, "INSERT OR REPLACE INTO xattr VALUES(?, ?, ?)", "ibb",
			   id, name, name_len, value ? value : "", (gsize) value_len);
}

gboolean isd_obj_put_xattrs(IsdState *s, gint64 id, const void *blob, gsize len, GError **error)
{
	struct kml_str name, value;
	size_t pos = 0;

	while (blob && kml_xattr_next(blob, len, &pos, &name, &value))
		if (!isd_state_set_xattr(s, id, name.ptr, name.len, value.ptr, value.len, error))
			return FALSE;
	return TRUE;
}

static void append_xattr(GByteArray *a, sqlite3_stmt *st)
{
	const void *name = sqlite3_column_blob(st, 0), *value = sqlite3_column_blob(st, 1);
	int name_len = sqlite3_column_bytes(st, 0), value_len = sqlite3_column_bytes(st, 1);
	guint at = a->len;
	ssize_t need;

	value = value ? value : "";
	need = kml_xattr_put(NULL, 0, name, name_len, value, value_len);
	if (need <= 0)
		return;
	g_byte_array_set_size(a, at + need);
	kml_xattr_put(a->data + at, need, name, name_len, value, value_len);
}

gboolean isd_state_xattrs(IsdState *s, gint64 id, GBytes **ret, GError **error)
{
	g_autoptr(GByteArray) a = g_byte_array_new();
	sqlite3_stmt *st;
	int rc;

	rc = isd_sql_row(s, error, &st, "SELECT name, value FROM xattr WHERE id = ? ORDER BY name",
			 "i", id);
	for (; rc > 0; rc = isd_sql_next(s, st, error))
		append_xattr(a, st);
	if (rc < 0)
		return FALSE;
	*ret = a->len ? g_byte_array_free_to_bytes(g_steal_pointer(&a)) : NULL;
	return TRUE;
}
