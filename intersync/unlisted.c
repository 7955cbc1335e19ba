// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a further catalog does not list.  The server had it once, so it was removed there
 * while its log was not followed: pull.c gets a record for each such name, as if the log
 * still had them, and all the rules about conflicts hold.  attach.c says what is listed.
 */
#include "client.h"

#include <string.h>
#include <sys/stat.h>

/* This row is known to the server and not in the catalog. */
#define UNLISTED_OBJECT							\
	"o.sino <> 0 AND o.id <> 1 AND NOT EXISTS (SELECT 1 FROM client_listed l"	\
	" WHERE l.sino = o.sino AND l.sgen = o.sgen)"

/* A name that is to go: of files first, of directories the deepest first. */
typedef struct {
	gint64		parent;
	char		*name;
	struct kml_oid	soid, dir;
	struct kml_time	mtime;		/* of dir */
	guint		depth;		/* 0: no directory */
} Unlisted;

static void unlisted_free(gpointer p)
{
	Unlisted *u = p;

	g_free(u->name);
	g_free(u);
}

gboolean isd_unlisted_begin(IsdClient *c, GError **error)
{
	return isd_sql_run(c->state, error, "DELETE FROM client_listed", "");
}

gboolean isd_unlisted_mark(IsdClient *c, gint64 parent, const char *name, struct kml_oid soid,
			   GError **error)
{
	return isd_sql_run(c->state, error, "INSERT OR REPLACE INTO client_listed VALUES(?, ?, ?, ?)",
			   "ibiu", parent, name, strlen(name), (gint64)soid.ino, soid.gen);
}

/* What is only known and not here needs no record. */
static gboolean unlisted_drop_wanted(IsdClient *c, GError **error)
{
	c->litter = TRUE;
	return isd_sql_run(c->state, error, "DELETE FROM client_want WHERE id IN"
			   " (SELECT o.id FROM obj o WHERE " UNLISTED_OBJECT ")", "") &&
	       isd_sql_run(c->state, error, "DELETE FROM obj WHERE ino = 0 AND id IN"
			   " (SELECT o.id FROM obj o WHERE " UNLISTED_OBJECT " AND NOT EXISTS"
			   " (SELECT 1 FROM name n WHERE n.id = o.id))", "");
}

gboolean isd_unlisted_settle(IsdClient *c, gboolean apart, guint64 common, GError **error)
{
	/* made behind the common part: the server has lost it, and gets it as something new */
	if (apart &&
	    !isd_sql_run(c->state, error, "UPDATE obj SET sino = 0, sgen = 0, cver = 0, aver = 0"
			 " WHERE id IN (SELECT o.id FROM obj o WHERE " UNLISTED_OBJECT
			 " AND (o.cver > ? OR o.aver > ? OR EXISTS (SELECT 1 FROM name n"
			 " WHERE n.id = o.id AND n.ver > ?)))", "iii", (gint64)common,
			 (gint64)common, (gint64)common))
		return FALSE;
	return unlisted_drop_wanted(c, error) &&
	       isd_state_set_u64(c->state, "unlisted", 1, error);
}

/* --- the records --- */

static gboolean unlisted_depth(IsdClient *c, gint64 id, guint *ret, GError **error)
{
	*ret = 1;
	while (id != ISD_ROOT_ID) {
		g_auto(IsdName) n = { 0 };
		gboolean found;

		if (!isd_state_a_name(c->state, id, &n, &found, error))
			return FALSE;
		if (!found)
			break;
		id = n.parent;
		++*ret;
	}
	return TRUE;
}

static Unlisted *unlisted_row(sqlite3_stmt *st)
{
	Unlisted *u = g_new0(Unlisted, 1);

	u->parent = sqlite3_column_int64(st, 0);
	u->name = g_strndup(sqlite3_column_blob(st, 1), sqlite3_column_bytes(st, 1));
	u->soid.ino = sqlite3_column_int64(st, 2);
	u->soid.gen = sqlite3_column_int64(st, 3);
	u->dir.ino = sqlite3_column_int64(st, 4);
	u->dir.gen = sqlite3_column_int64(st, 5);
	u->mtime.sec = sqlite3_column_int64(st, 6);
	u->mtime.nsec = sqlite3_column_int64(st, 7);
	u->depth = S_ISDIR(sqlite3_column_int64(st, 8));
	return u;
}

/* A name that was given here and is not sent yet is no name that the catalog lacks. */
static gboolean unlisted_is_ours(IsdClient *c, sqlite3_stmt *st)
{
	struct kml_oid oid = { sqlite3_column_int64(st, 10), sqlite3_column_int64(st, 11) };

	return !sqlite3_column_int64(st, 12) &&
	       isd_push_is_pending(c, oid, sqlite3_column_int64(st, 9));
}

static GPtrArray *unlisted_names(IsdClient *c, GError **error)
{
	GPtrArray *all = g_ptr_array_new_with_free_func(unlisted_free);
	sqlite3_stmt *st;
	int rc = isd_sql_row(c->state, error, &st,
		"SELECT n.parent, n.name, o.sino, o.sgen, d.sino, d.sgen, d.mtime_s, d.mtime_ns,"
		" o.mode, n.lver, o.ino, o.gen, " UNLISTED_OBJECT " FROM obj o"
		" JOIN name n ON n.id = o.id JOIN obj d ON d.id = n.parent"
		" WHERE o.sino <> 0 AND o.id <> 1 AND d.sino <> 0 AND NOT EXISTS"
		" (SELECT 1 FROM client_listed m WHERE m.parent = n.parent AND m.name = n.name"
		"  AND m.sino = o.sino AND m.sgen = o.sgen)", "");

	for (; rc > 0; rc = isd_sql_next(c->state, st, error))
		if (!unlisted_is_ours(c, st))
			g_ptr_array_add(all, unlisted_row(st));
	for (guint i = 0; rc == 0 && i < all->len; i++) {
		Unlisted *u = all->pdata[i];

		if (u->depth && !unlisted_depth(c, u->parent, &u->depth, error))
			rc = -1;
	}
	if (rc == 0)
		return all;
	g_ptr_array_unref(all);
	return NULL;
}

static int unlisted_order(gconstpointer a, gconstpointer b)
{
	const Unlisted *x = *(Unlisted *const *)a, *y = *(Unlisted *const *)b;

	if (!x->depth != !y->depth)
		return x->depth ? 1 : -1;
	return x->depth < y->depth ? 1 : x->depth > y->depth ? -1 : 0;
}

static void unlisted_put(GByteArray *to, const Unlisted *u, guint64 recno)
{
	struct kml_record r = {
		.opcode = u->depth ? KML_RMDIR : KML_UNLINK, .recno = recno,
		.obj = u->soid, .parent = u->dir, .name = { u->name, strlen(u->name) },
		.ptime = u->mtime, .has_ptime = true,
	};
	gsize at = to->len;
	ssize_t n;

	g_byte_array_set_size(to, at + kml_encoded_size(&r));
	n = kml_encode(to->data + at, to->len - at, &r);
	g_assert(n > 0);	/* names of the state are names of the format */
	kml_seal(to->data + at, recno, 0);
	g_byte_array_set_size(to, at + n);
}

gboolean isd_unlisted_records(IsdClient *c, GByteArray **ret, GError **error)
{
	g_autoptr(GPtrArray) all = NULL;
	guint64 due;

	*ret = NULL;
	if (!isd_state_get_u64(c->state, "unlisted", &due, error))
		return FALSE;
	if (!due)
		return TRUE;
	all = unlisted_names(c, error);
	if (!all)
		return FALSE;
	g_ptr_array_sort(all, unlisted_order);
	*ret = g_byte_array_new();
	for (guint i = 0; i < all->len; i++)
		unlisted_put(*ret, all->pdata[i], c->pull_recno);
	return TRUE;
}

gboolean isd_unlisted_done(IsdClient *c, GError **error)
{
	return isd_state_set_u64(c->state, "unlisted", 0, error) && isd_unlisted_begin(c, error);
}
