// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * When the server's log is no longer the one that was followed: the server was set back
 * to a backup, or a power cut took the end of its log.  Up to some record both histories
 * are one.  Which record that is tell marks, checksums of records here and there, that
 * the server is asked about; then catalogs are compared with that in mind (attach.c).
 * A version up to there both sides have seen, a later one only one of them.
 */
#include "client.h"

#include <sys/stat.h>

/* --- marks --- */

/*
 * Keeps the newest and about one in each doubling of the distance from it, so that
 * their number is the logarithm of the log's length.
 */
static gboolean apart_thin(IsdClient *c, GError **error)
{
	g_autoptr(GArray) drop = g_array_new(FALSE, FALSE, sizeof(gint64));
	gint64 kept = 0, middle = 0;
	sqlite3_stmt *st;
	int rc = isd_sql_row(c->state, error, &st,
			     "SELECT ? - recno FROM client_mark ORDER BY recno DESC", "i",
			     (gint64)c->pull_recno);

	for (; rc > 0; rc = isd_sql_next(c->state, st, error)) {
		gint64 distance = sqlite3_column_int64(st, 0);

		if (middle && distance <= 2 * kept) {
			gint64 recno = c->pull_recno - middle;

			g_array_append_val(drop, recno);
		} else {
			kept = middle;
		}
		middle = distance;
	}
	for (guint i = 0; rc == 0 && i < drop->len; i++)
		if (!isd_sql_run(c->state, error, "DELETE FROM client_mark WHERE recno = ?", "i",
				 g_array_index(drop, gint64, i)))
			return FALSE;
	return rc == 0;
}

gboolean isd_apart_mark(IsdClient *c, GError **error)
{
	return !c->pull_crc ||
	       (isd_sql_run(c->state, error, "INSERT OR REPLACE INTO client_mark VALUES(?, ?, ?)",
			    "iiu", (gint64)c->pull_recno, (gint64)c->pull_offset, c->pull_crc) &&
		apart_thin(c, error));
}

gboolean isd_apart_begin(IsdClient *c, GError **error)
{
	return isd_state_set_u64(c->state, "apart", 1, error) &&
	       isd_state_set_u64(c->state, "attached", ISD_ATTACH_NONE, error);
}

/* --- the last common record --- */

struct IsdApart {
	IsdClient	*c;
	IsdRequest	*request;
	gint64		recno;		/* of the mark that is asked about */
	IsdApartDone	done;
	gpointer	data;
};

static void apart_ask(IsdApart *a);

/* What is newer is of the other history; numbers of it mean nothing any more. */
static gboolean apart_found(IsdApart *a, guint64 recno, GError **error)
{
	IsdState *s = a->c->state;

	isd_log(5, a->c->server, recno, "%s: its log is another one behind record %"
		G_GUINT64_FORMAT ": it was set back; comparing catalogs, nothing that it has "
		"not seen is removed", a->c->server, recno);
	return isd_client_begin(a->c, error) &&
	       isd_sql_run(s, error, "DELETE FROM client_mark WHERE recno > ?", "i",
			   (gint64)recno) &&
	       isd_sql_run(s, error, "DELETE FROM client_was", "") &&
	       isd_state_set_u64(s, "common", recno, error) &&
	       isd_state_set_u64(s, "apart", 2, error) && isd_client_commit(a->c, error);
}

static void apart_end(IsdApart *a, guint64 recno)
{
	g_autoptr(GError) error = NULL;

	if (apart_found(a, recno, &error))
		a->done(recno, a->data);
	else
		isd_client_fail(a->c, error);
}

static void apart_asked(IsdRequest *r, const GError *error, gpointer data)
{
	IsdApart *a = data;
	guint status = isd_fetch_status(r);

	a->request = NULL;
	if (!error)
		apart_end(a, a->recno);
	else if (status == 409)
		apart_ask(a);
	else if (status == 410)
		apart_end(a, 0);	/* it has given back what would tell */
	else
		isd_client_fail(a->c, error);
}

static void apart_ask(IsdApart *a)
{
	g_autoptr(GError) error = NULL;
	IsdFetchSpec spec = { .method = "GET", .now = TRUE, .done = apart_asked, .data = a };
	sqlite3_stmt *st;
	int rc = isd_sql_row(a->c->state, &error, &st,
			     "SELECT recno, offset, crc FROM client_mark WHERE recno < ?"
			     " ORDER BY recno DESC LIMIT 1", "i", a->recno);

	if (rc < 0) {
		isd_client_fail(a->c, error);
		return;
	}
	if (rc == 0) {
		apart_end(a, 0);
		return;
	}
	a->recno = sqlite3_column_int64(st, 0);
	spec.path = g_strdup_printf("kml?after=%" G_GINT64_FORMAT "&crc=%" G_GINT64_FORMAT "&max=1",
				    (gint64)sqlite3_column_int64(st, 1),
				    (gint64)sqlite3_column_int64(st, 2));
	sqlite3_reset(st);
	a->request = isd_fetch(a->c->fetcher, &spec);
}

IsdApart *isd_apart_find(IsdClient *c, IsdApartDone done, gpointer data)
{
	IsdApart *a = g_new0(IsdApart, 1);

	a->c = c;
	a->recno = G_MAXINT64;
	a->done = done;
	a->data = data;
	apart_ask(a);
	return a;
}

void isd_apart_free(IsdApart *a)
{
	if (!a)
		return;
	if (a->request)
		isd_fetch_cancel(a->request);
	g_free(a);
}

/* --- which one is newer --- */

IsdWhose isd_apart_content(const IsdObject *o, const struct kml_record *r, guint64 common)
{
	if (!S_ISREG(o->attr.mode) || (o->attr.size == r->attr.size &&
				       isd_time_equal(o->attr.mtime, r->attr.mtime)))
		return ISD_WHOSE_SAME;
	if (o->cver <= common)
		return ISD_WHOSE_THEIRS;
	return r->version_content <= common ? ISD_WHOSE_OURS : ISD_WHOSE_BOTH;
}

gboolean isd_apart_attrs_are_ours(const IsdObject *o, const struct kml_record *r, guint64 common)
{
	return o->aver > common && r->version_attr <= common;
}
