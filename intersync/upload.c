// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Sending large content ahead of its record: data ranges of the file, or of what was
 * written to it, in pieces.  The upload's name tells the state of the file
 * that it is of, so an interrupted one goes on where it was.  Used by push.c.
 */
#include "push.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE_BYTES	(16 * 1024 * 1024)

struct PushUpload {
	IsdPush		*p;
	PushOp		*po;
	PushUploadDone	done;
	IsdRequest	*request;
	int		fd;
	struct stat	st;
	char		*name;
	GArray		*spans;		/* of IsdSpan, what is to be sent */
	guint		span;
	guint64		at;		/* everything before it is there */
};

static void upload_next(struct PushUpload *u);

void isd_push_upload_free(struct PushUpload *u)
{
	if (!u)
		return;
	if (u->request)
		isd_fetch_cancel(u->request);
	close(u->fd);
	g_array_unref(u->spans);
	g_free(u->name);
	g_free(u);
}

/* Only size and mtime: a chmod meanwhile does not concern the content. */
static gboolean upload_unchanged(struct PushUpload *u)
{
	struct stat now;

	return fstat(u->fd, &now) == 0 && now.st_size == u->st.st_size &&
		now.st_mtim.tv_sec == u->st.st_mtim.tv_sec &&
		now.st_mtim.tv_nsec == u->st.st_mtim.tv_nsec;
}

static void upload_forgotten(IsdRequest *r, const GError *error, gpointer data)
{
}

/* Another state of the file has another name: nobody goes on with this one. */
static void upload_forget(struct PushUpload *u)
{
	IsdFetchSpec spec = { .method = "DELETE", .done = upload_forgotten };

	spec.path = g_strdup_printf("incoming/%s", u->name);
	isd_fetch(u->p->c->fetcher, &spec);
}

static void upload_end(struct PushUpload *u, const GError *error)
{
	UploadEnd end = upload_unchanged(u) ? UPLOAD_OK : UPLOAD_CHANGED;
	IsdPush *p = u->p;
	PushOp *po = u->po;
	PushUploadDone done = u->done;

	if (!error && end == UPLOAD_OK) {
		g_free(po->file);
		po->file = g_strdup(u->name);
		po->size = u->st.st_size;
		po->mtime = (struct kml_time) { u->st.st_mtim.tv_sec, u->st.st_mtim.tv_nsec };
	}
	if (!error && end == UPLOAD_CHANGED)
		upload_forget(u);
	p->upload = NULL;
	isd_push_upload_free(u);
	done(p, po, end, error);
}

static void upload_put_done(IsdRequest *r, const GError *error, gpointer data)
{
	struct PushUpload *u = data;

	u->request = NULL;
	if (error && g_error_matches(error, ISD_ERROR, ISD_ERROR_BUSY))
		error = NULL;	/* the file became shorter: it has changed */
	else if (!error) {
		upload_next(u);
		return;
	}
	upload_end(u, error);
}

static void upload_last_done(IsdRequest *r, const GError *error, gpointer data)
{
	struct PushUpload *u = data;

	u->request = NULL;
	upload_end(u, error);
}

/* The next data at or behind u->at; FALSE: there is none. */
static gboolean upload_data(struct PushUpload *u, guint64 *ret_off, guint64 *ret_len)
{
	for (; u->span < u->spans->len; u->span++) {
		const IsdSpan *s = &g_array_index(u->spans, IsdSpan, u->span);
		guint64 from = MAX(s->off, u->at), end = MIN(s->end, (guint64)u->st.st_size);
		off_t data, hole;

		if (from >= end)
			continue;
		data = lseek(u->fd, from, SEEK_DATA);
		if (data < 0 && errno != ENXIO)
			data = from;	/* a file system without holes */
		if (data < 0 || (guint64)data >= end)
			continue;
		hole = lseek(u->fd, data, SEEK_HOLE);
		if (hole < 0)
			hole = end;
		*ret_off = data;
		*ret_len = MIN(MIN((guint64)hole, end) - data, (guint64)PIECE_BYTES);
		return TRUE;
	}
	return FALSE;
}

/* All that is to be sent, but for holes. */
static guint64 upload_bytes(struct PushUpload *u)
{
	guint64 off, len, sum = 0;

	while (upload_data(u, &off, &len)) {
		sum += len;
		u->at = off + len;
	}
	u->at = 0;
	u->span = 0;
	return sum;
}

static void upload_next(struct PushUpload *u)
{
	IsdFetchSpec spec = {
		.method = "PUT", .fd = u->fd, .done = upload_put_done, .data = u,
	};

	isd_fault("upload-piece");
	if (upload_data(u, &spec.off, &spec.len)) {
		u->at = spec.off + spec.len;
		spec.path = g_strdup_printf("incoming/%s?offset=%" G_GUINT64_FORMAT, u->name,
					    spec.off);
	} else {
		spec.done = upload_last_done;
		spec.path = g_strdup_printf("incoming/%s?offset=0&size=%" G_GUINT64_FORMAT,
					    u->name, (guint64)u->st.st_size);
	}
	u->request = isd_fetch(u->p->c->fetcher, &spec);
}

static void upload_asked(IsdRequest *r, const GError *error, gpointer data)
{
	struct PushUpload *u = data;
	const char *have = isd_fetch_header(r, "InterSync-Length");

	u->request = NULL;
	if (error && isd_fetch_status(r) != 404) {
		upload_end(u, error);
		return;
	}
	if (!error && have)
		u->at = g_ascii_strtoull(have, NULL, 10);
	upload_next(u);
}

gboolean isd_push_upload(IsdPush *p, PushOp *po, int fd, GArray *spans, PushUploadDone done,
			 GError **error)
{
	struct PushUpload *u = g_new0(struct PushUpload, 1);
	IsdFetchSpec spec = { .method = "HEAD", .done = upload_asked, .data = u };
	IsdSpan all = { 0 };

	u->p = p;
	u->po = po;
	u->done = done;
	u->fd = fd;
	u->spans = spans;
	if (fstat(fd, &u->st) < 0) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED, "reading what is to be sent: %s",
			    g_strerror(errno));
		if (!spans)
			u->spans = g_array_new(FALSE, FALSE, sizeof(IsdSpan));
		isd_push_upload_free(u);
		return FALSE;
	}
	po->patch = spans != NULL;
	if (!spans) {
		all.end = u->st.st_size;
		u->spans = g_array_new(FALSE, FALSE, sizeof(IsdSpan));
		g_array_append_val(u->spans, all);
	}
	u->name = g_strdup_printf("%s%" G_GUINT64_FORMAT "-%" G_GUINT64_FORMAT "-%" G_GINT64_FORMAT
				  ".%ld", po->patch ? "rng" : "all", po->op->content_recno,
				  (guint64)u->st.st_size, (gint64)u->st.st_mtim.tv_sec,
				  u->st.st_mtim.tv_nsec);
	spec.path = g_strdup_printf("incoming/%s?need=%" G_GUINT64_FORMAT, u->name,
				    upload_bytes(u));
	p->upload = u;
	u->request = isd_fetch(p->c->fetcher, &spec);
	return TRUE;
}

/* --- what of a file has to be sent --- */

gboolean isd_push_mark_unsent(IsdClient *c, struct kml_oid oid, GError **error)
{
	return isd_sql_run(c->state, error, "INSERT OR REPLACE INTO client_unsent VALUES(?, ?)",
			   "iu", (gint64)oid.ino, oid.gen);
}

static gboolean unsent(IsdPush *p, struct kml_oid oid)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(p->c->state, NULL, &st,
			     "SELECT 1 FROM client_unsent WHERE ino = ? AND gen = ?", "iu",
			     (gint64)oid.ino, oid.gen);

	if (rc > 0)
		sqlite3_reset(st);
	return rc != 0;
}

GArray *isd_push_spans(IsdPush *p, const PushOp *po, const IsdObject *o, guint64 size)
{
	g_autofree char *key = isd_push_key(o->oid);
	const GArray *carry = g_hash_table_lookup(p->carry, key);
	const IsdOp *op = po->op;
	GArray *spans = NULL;
	guint64 sum = 0;

	if (op->whole || op->r.opcode != KML_CLOSE || !o->soid.ino || size <= ISD_SMALL_MAX ||
	    (!carry && unsent(p, o->oid)))
		return NULL;
	isd_spans_add(&spans, MIN(op->min_size, size), size);
	for (guint i = 0; op->spans && i < op->spans->len; i++)
		isd_spans_add(&spans, g_array_index(op->spans, IsdSpan, i).off,
			      MIN(g_array_index(op->spans, IsdSpan, i).end, size));
	for (guint i = 0; carry && i < carry->len; i++)
		isd_spans_add(&spans, g_array_index(carry, IsdSpan, i).off,
			      MIN(g_array_index(carry, IsdSpan, i).end, size));
	while (spans->len > KML_RANGES_MAX)
		for (guint i = 0; i + 1 < spans->len; i++) {
			g_array_index(spans, IsdSpan, i).end =
				g_array_index(spans, IsdSpan, i + 1).end;
			g_array_remove_index(spans, i + 1);
		}
	for (guint i = 0; i < spans->len; i++)
		sum += g_array_index(spans, IsdSpan, i).end - g_array_index(spans, IsdSpan, i).off;
	if (sum <= size - size / 4)
		return spans;
	g_array_unref(spans);
	return NULL;
}

gboolean isd_push_carry(IsdPush *p, const PushOp *po, const IsdObject *o, GError **error)
{
	g_autofree char *key = isd_push_key(o->oid);
	GArray *a = g_hash_table_lookup(p->carry, key);
	const IsdOp *op = po->op;
	gboolean usable = !op->whole && op->r.opcode == KML_CLOSE && (a || !unsent(p, o->oid));

	if (!usable) {
		g_hash_table_remove(p->carry, key);
	} else {
		g_autoptr(GArray) sum = NULL;

		for (guint i = 0; a && i < a->len; i++)
			isd_spans_add(&sum, g_array_index(a, IsdSpan, i).off,
				      g_array_index(a, IsdSpan, i).end);
		isd_spans_add(&sum, op->min_size, op->r.attr.size);
		for (guint i = 0; op->spans && i < op->spans->len; i++)
			isd_spans_add(&sum, g_array_index(op->spans, IsdSpan, i).off,
				      g_array_index(op->spans, IsdSpan, i).end);
		g_hash_table_replace(p->carry, g_steal_pointer(&key), g_steal_pointer(&sum));
	}
	return isd_push_mark_unsent(p->c, o->oid, error);
}

gboolean isd_push_carried(IsdPush *p, struct kml_oid oid, GError **error)
{
	g_autofree char *key = isd_push_key(oid);

	g_hash_table_remove(p->carry, key);
	return isd_sql_run(p->c->state, error, "DELETE FROM client_unsent WHERE ino = ? AND gen = ?",
			   "iu", (gint64)oid.ino, oid.gen);
}
