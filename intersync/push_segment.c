// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Segments: pieces of the own log, coalesced, with where each op has got to.  A segment's
 * bounds are in the state before anything of it is sent, and the position moves over whole
 * segments.
 */
#include "push.h"

#include <string.h>

#include "util.h"

#define SEGMENT_BYTES	(512 * 1024)
#define SEGMENTS_MAX	4
#define PUNCH_BYTES	(16ULL << 20)

/* --- segments --- */

static void push_op_clear(gpointer data)
{
	PushOp *po = data;

	g_free(po->file);
	g_clear_pointer(&po->spans, g_array_unref);
}

void isd_segment_free(PushSegment *s)
{
	g_clear_pointer(&s->push, g_array_unref);
	g_clear_pointer(&s->ops, isd_ops_free);
	g_clear_pointer(&s->recs, g_array_unref);
	g_clear_pointer(&s->buf, g_byte_array_unref);
	g_free(s);
}

static gboolean segment_read(IsdPush *p, PushSegment *s, guint64 end, GError **error)
{
	gsize len = end - s->start;
	int err;

	s->buf = g_byte_array_sized_new(len);
	g_byte_array_set_size(s->buf, len);
	err = pread_all(p->log_fd, s->buf->data, len, s->start);
	if (!err)
		return TRUE;
	g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED, "reading the own log: %s", g_strerror(-err));
	return FALSE;
}

/* Whole records only; where the last one ends is the segment's end. */
static gboolean segment_decode(PushSegment *s, GError **error)
{
	gsize pos = 0;

	s->recs = g_array_new(FALSE, FALSE, sizeof(struct kml_record));
	while (pos < s->buf->len) {
		struct kml_record r;
		ssize_t len = kml_decode(s->buf->data + pos, s->buf->len - pos, &r);

		if (len == -EAGAIN)
			break;
		if (len < 0) {
			g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED,
				    "the own log is damaged at offset %" G_GUINT64_FORMAT
				    ": see kmlprint --verify", s->start + pos);
			return FALSE;
		}
		g_array_append_val(s->recs, r);
		pos += len;
	}
	s->end = s->start + pos;
	if (s->recs->len) {
		s->first_recno = g_array_index(s->recs, struct kml_record, 0).recno;
		s->last_recno = g_array_index(s->recs, struct kml_record, s->recs->len - 1).recno;
	}
	return TRUE;
}

/* Was it sent without its content before a restart? */
static gboolean segment_was_bare(IsdPush *p, guint64 recno)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(p->c->state, NULL, &st, "SELECT 1 FROM client_bare WHERE recno = ?",
			     "i", (gint64)recno);

	if (rc > 0)
		sqlite3_reset(st);
	return rc > 0;
}

static gboolean segment_op_was_done(IsdPush *p, const IsdOp *op)
{
	gint64 recno = op->r.recno;

	return op->dropped || g_hash_table_contains(p->settled, &recno);
}

static void segment_set_up(IsdPush *p, PushSegment *s)
{
	s->ops = isd_coalesce((struct kml_record *)s->recs->data, s->recs->len, NULL, NULL);
	s->push = g_array_new(FALSE, TRUE, sizeof(PushOp));
	g_array_set_clear_func(s->push, push_op_clear);
	g_array_set_size(s->push, s->ops->ops->len);
	for (guint i = 0; i < s->push->len; i++) {
		PushOp *po = &g_array_index(s->push, PushOp, i);

		po->op = &g_array_index(s->ops->ops, IsdOp, i);
		if (segment_op_was_done(p, po->op)) {
			po->state = PUSH_DONE;
			continue;
		}
		po->state = s->again ? PUSH_UNKNOWN : PUSH_READY;
		if (isd_makes(po->op->r.opcode)) {
			g_hash_table_add(p->making, isd_push_key(po->op->r.obj));
			po->bare = segment_was_bare(p, po->op->r.recno);
		}
	}
}

/* Where the segment that begins at start ended when it was first sent; 0: it was not. */
static gboolean segment_bounds(IsdPush *p, guint64 start, guint64 *ret_end, GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(p->c->state, error, &st,
			     "SELECT end FROM client_segment WHERE start = ?", "i", (gint64)start);

	*ret_end = 0;
	if (rc > 0) {
		*ret_end = sqlite3_column_int64(st, 0);
		sqlite3_reset(st);
	}
	return rc >= 0;
}

static gboolean segment_fill(IsdPush *p, PushSegment *s, GError **error)
{
	guint64 end;

	if (!segment_bounds(p, s->start, &end, error))
		return FALSE;
	s->again = end != 0;
	if (!s->again)
		end = MIN(p->c->core->applied, s->start + SEGMENT_BYTES);
	if (!segment_read(p, s, end, error) || !segment_decode(s, error))
		return FALSE;
	if (!s->recs->len)
		return TRUE;
	segment_set_up(p, s);
	return s->again || isd_sql_run(p->c->state, error,
				    "INSERT INTO client_segment VALUES(?, ?, ?, ?)", "iiii",
				    (gint64)s->start, (gint64)s->end, (gint64)s->first_recno,
				    (gint64)s->last_recno);
}

/* *ret_loaded: there is one more. */
gboolean isd_segment_load(IsdPush *p, gboolean *ret_loaded, GError **error)
{
	PushSegment *last = g_queue_peek_tail(&p->segments);
	PushSegment *s;
	guint64 start = last ? last->end : MAX(p->c->push_offset, (guint64)KML_HEADER_SIZE);

	*ret_loaded = FALSE;
	if (p->segments.length == SEGMENTS_MAX || start >= p->c->core->applied)
		return TRUE;
	if (!isd_client_begin(p->c, error))
		return FALSE;
	s = g_new0(PushSegment, 1);
	s->start = start;
	if (!segment_fill(p, s, error) || !s->recs->len) {
		isd_segment_free(s);
		return !error || !*error;
	}
	g_queue_push_tail(&p->segments, s);
	*ret_loaded = TRUE;
	return isd_client_commit(p->c, error);
}

static gboolean settled_reload(IsdPush *p, GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(p->c->state, error, &st, "SELECT recno FROM client_settled", "");

	for (; rc > 0; rc = isd_sql_next(p->c->state, st, error)) {
		gint64 recno = sqlite3_column_int64(st, 0);

		g_hash_table_add(p->settled, g_memdup2(&recno, sizeof(recno)));
	}
	return rc >= 0;
}

/* What was being sent when this ended last: the server's log may speak of it at once. */
gboolean isd_push_reload(IsdPush *p, GError **error)
{
	guint64 start = MAX(p->c->push_offset, (guint64)KML_HEADER_SIZE), end;
	gboolean loaded = TRUE;

	if (!settled_reload(p, error))
		return FALSE;
	while (loaded) {
		if (!segment_bounds(p, start, &end, error))
			return FALSE;
		if (!end)
			return TRUE;
		if (!isd_segment_load(p, &loaded, error))
			return FALSE;
		p->asking |= loaded;
		start = end;
	}
	return TRUE;
}

/* --- the position --- */

static gboolean segment_is_done(const PushSegment *s)
{
	for (guint i = 0; i < s->push->len; i++)
		if (g_array_index(s->push, PushOp, i).state != PUSH_DONE)
			return FALSE;
	return TRUE;
}

static gboolean settled_before(gpointer key, gpointer value, gpointer data)
{
	return (guint64)*(gint64 *)key <= *(guint64 *)data;
}

/* Nothing is pending: what was remembered about pending records is of no use. */
static gboolean push_forget(IsdPush *p, GError **error)
{
	IsdState *s = p->c->state;

	return isd_sql_run(s, error, "DELETE FROM client_cover", "") &&
	       isd_sql_run(s, error, "DELETE FROM client_void", "") &&
	       isd_sql_run(s, error, "DELETE FROM client_gone", "") &&
	       isd_sql_run(s, error, "DELETE FROM client_alias", "");
}

/* Everything before it is on the server: the log's front can be given back. */
static gboolean push_punch(IsdPush *p, GError **error)
{
	if (p->c->push_offset - p->punched < PUNCH_BYTES)
		return TRUE;
	p->punched = p->c->push_offset;
	return isd_core_give_back(p->c->core, p->c->push_offset, p->c->push_recno, error);
}

gboolean isd_push_advance(IsdPush *p, GError **error)
{
	IsdClient *c = p->c;
	PushSegment *s;
	gboolean moved = FALSE;

	while ((s = g_queue_peek_head(&p->segments)) && segment_is_done(s)) {
		if (!isd_client_begin(c, error) ||
		    !isd_state_set_u64(c->state, "push_offset", s->end, error) ||
		    !isd_state_set_u64(c->state, "push_recno", s->last_recno, error) ||
		    !isd_sql_run(c->state, error, "DELETE FROM client_segment WHERE start = ?",
				 "i", (gint64)s->start) ||
		    !isd_sql_run(c->state, error, "DELETE FROM client_bare WHERE recno <= ?",
				 "i", (gint64)s->last_recno) ||
		    !isd_sql_run(c->state, error, "DELETE FROM client_settled WHERE recno <= ?",
				 "i", (gint64)s->last_recno))
			return FALSE;
		c->push_offset = s->end;
		c->push_recno = s->last_recno;
		g_hash_table_foreach_remove(p->settled, settled_before, &c->push_recno);
		isd_segment_free(g_queue_pop_head(&p->segments));
		moved = TRUE;
	}
	if (!moved)
		return TRUE;
	if (c->push_recno >= c->core->log_recno && !push_forget(p, error))
		return FALSE;
	if (!isd_client_commit(c, error) || !push_punch(p, error))
		return FALSE;
	isd_client_progress(c);
	return TRUE;
}
