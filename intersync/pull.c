// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Following the server's log: a long poll brings a piece of it, what later
 * records supersede is dropped, the content that is needed is fetched, and
 * the rest is applied in order.  What each record does is in apply_pull.c.
 *
 * The position moves when a piece is done.  A piece that was begun before a crash or a lost
 * connection is taken up with the same end, so that the same records are dropped, and
 * at the op where it was left; what of the last batch is already so is recognised.
 */
#include "pull.h"

#include <string.h>

#define PIECE_BYTES	(512 * 1024)
#define POLL_SECONDS	60
#define WINDOW_OBJECTS	1024
#define WINDOW_BYTES	(8 * 1024 * 1024)
#define WINDOW_LARGE	8
#define LATER_MS	500

static void pull_ask(IsdPull *p, guint wait);
static void pull_step(IsdPull *p);

/* --- one piece --- */

static void pull_drop_piece(IsdPull *p)
{
	g_clear_pointer(&p->job, isd_data_job_free);
	g_clear_pointer(&p->contents, g_hash_table_unref);
	g_clear_pointer(&p->ops, isd_ops_free);
	g_clear_pointer(&p->recs, g_array_unref);
	g_clear_pointer(&p->piece, g_byte_array_unref);
	p->next = p->window = 0;
	p->unlisted = FALSE;
}

static gboolean pull_is_own(const struct kml_record *r, gpointer data)
{
	IsdPull *p = data;

	return r->has_origin && !memcmp(r->origin_replica, p->own, 16);
}

gboolean isd_pull_mark(IsdPull *p, GError **error)
{
	return isd_state_set_u64(p->c->state, "pull_op", p->next, error);
}

/* Where this piece ends must be known again after a crash; it may have been begun before one. */
static gboolean pull_begin_piece(IsdPull *p, guint64 begun, GError **error)
{
	guint64 next = 0;

	if (begun == p->piece_next && !isd_state_get_u64(p->c->state, "pull_op", &next, error))
		return FALSE;
	p->next = p->window = MIN(next, p->ops->ops->len);
	return isd_client_begin(p->c, error) &&
	       isd_state_set_u64(p->c->state, "pull_piece", p->piece_next, error) &&
	       isd_pull_mark(p, error) && isd_client_commit(p->c, error);
}

static guint32 pull_crc(const guint8 *record)
{
	struct kml_rec head;

	memcpy(&head, record, sizeof(head));
	return GUINT32_FROM_LE(head.crc);
}

static gboolean pull_decode(IsdPull *p, GError **error)
{
	guint64 begun;
	gsize pos = 0;

	if (!isd_state_get_u64(p->c->state, "pull_piece", &begun, error))
		return FALSE;
	if (begun <= p->c->pull_offset)
		begun = G_MAXUINT64;
	p->recs = g_array_new(FALSE, FALSE, sizeof(struct kml_record));
	while (pos < p->piece->len && p->c->pull_offset + pos < begun) {
		struct kml_record r;
		ssize_t len = kml_decode(p->piece->data + pos, p->piece->len - pos, &r);

		if (len <= 0) {
			g_set_error(error, ISD_ERROR, ISD_ERROR_PROTOCOL,
				    "the server's log is damaged behind record %" G_GUINT64_FORMAT,
				    p->piece_recno);
			return FALSE;
		}
		g_array_append_val(p->recs, r);
		p->piece_recno = r.recno;
		p->piece_crc = pull_crc(p->piece->data + pos);
		pos += len;
	}
	if (pos < p->piece->len) {
		p->piece_next = p->c->pull_offset + pos;
		p->more = TRUE;
	}
	p->ops = isd_coalesce((struct kml_record *)p->recs->data, p->recs->len, pull_is_own, p);
	return pull_begin_piece(p, begun, error);
}

/* The position moves behind the piece. */
static gboolean pull_move(IsdPull *p, GError **error)
{
	IsdClient *c = p->c;

	c->pull_offset = p->piece_next;
	c->pull_recno = p->piece_recno;
	c->pull_crc = p->piece_crc;
	return isd_state_set_u64(c->state, "pull_offset", c->pull_offset, error) &&
	       isd_state_set_u64(c->state, "pull_recno", c->pull_recno, error) &&
	       isd_state_set_u64(c->state, "pull_crc", c->pull_crc, error) &&
	       isd_apart_mark(c, error) &&
	       isd_sql_run(c->state, error, "DELETE FROM client_was WHERE upto <= ?", "i",
			   (gint64)c->pull_recno);
}

static gboolean pull_piece_done(IsdPull *p, GError **error)
{
	IsdClient *c = p->c;

	if (!isd_pull_flush(p, error) || !isd_pull_set_mtimes(p, error) ||
	    !isd_client_begin(c, error) ||
	    !(p->unlisted ? isd_unlisted_done(c, error) : pull_move(p, error)) ||
	    !isd_client_commit(c, error))
		return FALSE;
	if (c->pull_recno >= c->end_recno)
		c->lag_since = 0;
	c->unfinished = FALSE;
	pull_drop_piece(p);
	if (c->push)
		isd_push_pulled(c->push);
	isd_client_progress(c);
	return TRUE;
}

/* --- content for a window of ops --- */

/* What this op needs fetched, or NULL. */
static gboolean pull_plan(IsdPull *p, IsdOp *op, IsdContent **ret, GError **error)
{
	*ret = NULL;
	if (op->dropped || op->barrier || !op->content)
		return TRUE;
	return isd_pull_content(p, op, ret, error);
}

static gboolean pull_plan_window(IsdPull *p, GPtrArray *plan, GError **error)
{
	guint64 bytes = 0;
	guint large = 0;

	for (p->window = p->next; p->window < p->ops->ops->len; p->window++) {
		IsdOp *op = &g_array_index(p->ops->ops, IsdOp, p->window);
		IsdContent *t;

		if (plan->len >= WINDOW_OBJECTS || bytes >= WINDOW_BYTES || large >= WINDOW_LARGE)
			break;
		if (!pull_plan(p, op, &t, error))
			return FALSE;
		if (!t)
			continue;
		if (t->size > ISD_SMALL_MAX || t->ranges)
			large++;
		else
			bytes += t->size;
		g_ptr_array_add(plan, t);
		g_hash_table_insert(p->contents, op, t);
	}
	return TRUE;
}

static gboolean pull_later(gpointer data)
{
	IsdPull *p = data;

	p->later = 0;
	pull_step(p);
	return G_SOURCE_REMOVE;
}

/* 1: the window is applied; 0: not yet; -1: error */
static int pull_apply_window(IsdPull *p, GError **error)
{
	while (p->next < p->window) {
		IsdOp *op = &g_array_index(p->ops->ops, IsdOp, p->next);

		if (isd_pull_must_wait(p, op)) {
			if (!isd_pull_flush(p, error))
				return -1;
			if (!p->later)
				p->later = g_timeout_add(LATER_MS, pull_later, p);
			return 0;
		}
		if (!op->dropped && !isd_pull_apply(p, op, error))
			return -1;
		p->next++;
	}
	/* the batch points into the window's content */
	return isd_pull_flush(p, error) ? 1 : -1;
}

static void pull_got(IsdDataJob *job, const GError *error, gpointer data)
{
	IsdPull *p = data;

	if (error) {
		isd_client_fail(p->c, error);
		return;
	}
	p->fetched = TRUE;
	pull_step(p);
}

static gboolean pull_fetch(IsdPull *p, GError **error)
{
	GPtrArray *plan = g_ptr_array_new();

	g_clear_pointer(&p->job, isd_data_job_free);
	g_clear_pointer(&p->contents, g_hash_table_unref);
	p->contents = g_hash_table_new(NULL, NULL);
	p->fetched = FALSE;
	if (!pull_plan_window(p, plan, error)) {
		g_ptr_array_unref(plan);
		return FALSE;
	}
	p->fetched = !plan->len;
	p->job = isd_data_get(p->c, plan, pull_got, p);
	return TRUE;
}

/* Go on with the piece as far as possible. */
static gboolean pull_go(IsdPull *p, GError **error)
{
	while (p->ops) {
		int done = 1;

		if (p->job && p->fetched)
			done = pull_apply_window(p, error);
		else if (p->job)
			return TRUE;
		if (done <= 0)
			return done == 0;
		if (p->next == p->ops->ops->len)
			return pull_piece_done(p, error);
		if (!pull_fetch(p, error))
			return FALSE;
		if (!p->fetched)
			return TRUE;
	}
	return TRUE;
}

/* Before anything else: what the catalog lacked. */
static gboolean pull_take_unlisted(IsdPull *p, GError **error)
{
	if (p->began)
		return TRUE;
	p->began = TRUE;
	if (!isd_unlisted_records(p->c, &p->piece, error))
		return FALSE;
	if (!p->piece)
		return TRUE;
	p->unlisted = p->more = TRUE;
	p->piece_next = p->c->pull_offset;
	p->piece_recno = p->c->pull_recno;
	return pull_decode(p, error);
}

static void pull_step(IsdPull *p)
{
	g_autoptr(GError) error = NULL;

	if (!isd_client_is_up(p->c) || isd_push_is_asking(p->c->push))
		return;
	if (!pull_take_unlisted(p, &error) || !pull_go(p, &error)) {
		isd_client_fail(p->c, error);
		return;
	}
	if (!p->ops && !p->poll)
		pull_ask(p, p->more ? 0 : POLL_SECONDS);
}

/* --- the long poll --- */

static void pull_take_end(IsdPull *p, IsdRequest *r)
{
	const char *end = isd_fetch_header(r, "InterSync-End");
	char *rest;

	if (!end)
		return;
	p->c->end_offset = g_ascii_strtoull(end, &rest, 10);
	p->c->end_recno = g_ascii_strtoull(rest, NULL, 10);
	if (p->c->end_recno > p->c->pull_recno && !p->c->lag_since)
		p->c->lag_since = g_get_real_time() / G_USEC_PER_SEC;
}

static gboolean pull_take(IsdPull *p, IsdRequest *r, GError **error)
{
	const char *next = isd_fetch_header(r, "InterSync-Next");

	pull_take_end(p, r);
	if (isd_fetch_status(r) == 204) {
		p->more = FALSE;
		return TRUE;
	}
	if (!next) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_PROTOCOL,
			    "the server's answer does not say where its log goes on");
		return FALSE;
	}
	p->piece = isd_fetch_steal_body(r);
	p->piece_next = g_ascii_strtoull(next, NULL, 10);
	p->piece_recno = p->c->pull_recno;
	p->more = p->piece_next < p->c->end_offset;
	if (!pull_decode(p, error))
		return FALSE;
	if (p->recs->len && g_array_index(p->recs, struct kml_record, 0).recno !=
			    p->c->pull_recno + 1) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_EPOCH,
			    "the server's log does not go on where it was left");
		return FALSE;
	}
	return TRUE;
}

static void pull_polled(IsdRequest *r, const GError *error, gpointer data)
{
	IsdPull *p = data;
	g_autoptr(GError) local = NULL;

	p->poll = NULL;
	if (error || !pull_take(p, r, &local)) {
		isd_client_fail_log(p->c, isd_fetch_status(r), error ? error : local);
		return;
	}
	p->asked = TRUE;
	pull_step(p);
	isd_client_progress(p->c);
}

static void pull_ask(IsdPull *p, guint wait)
{
	IsdFetchSpec spec = {
		.method = "GET", .timeout = wait + POLL_SECONDS, .now = TRUE,
		.done = pull_polled, .data = p,
	};
	g_autofree char *log = isd_client_which_log(p->c);

	spec.path = g_strdup_printf("kml?after=%" G_GUINT64_FORMAT "&wait=%u&max=%u&%s",
				    p->c->pull_offset, wait, PIECE_BYTES, log);
	p->poll = isd_fetch(p->c->fetcher, &spec);
}

/*
 * The outstanding long poll answers by itself as soon as there is
 * something; what may be missing is a look at what was put off.
 */
void isd_pull_kick(IsdPull *p)
{
	if (p->ops || !p->poll)
		pull_step(p);
}

gboolean isd_pull_is_idle(const IsdPull *p)
{
	return p->asked && !p->ops;
}

IsdPull *isd_pull_start(IsdClient *c)
{
	IsdPull *p = g_new0(IsdPull, 1);

	p->c = c;
	memcpy(p->own, c->core->info.replica_uuid, 16);
	isd_pull_apply_init(p);
	c->pull = p;
	p->more = TRUE;
	p->later = g_idle_add(pull_later, p);
	return p;
}

void isd_pull_free(IsdPull *p)
{
	if (p->poll)
		isd_fetch_cancel(p->poll);
	g_clear_handle_id(&p->later, g_source_remove);
	isd_pull_apply_clear(p);
	pull_drop_piece(p);
	g_free(p);
}
