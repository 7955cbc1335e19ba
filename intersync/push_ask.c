// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * After a lost answer or a restart: the server is asked what became of the records
 * that may have been sent, and until it has answered neither push nor pull decide anything.
 */
#include "push.h"

#include <string.h>

/* --- asking what became of what was sent --- */

typedef struct {
	guint64	recno;
	PushOp	*po;
} Asked;

static gint asked_order(gconstpointer a, gconstpointer b)
{
	guint64 x = ((const Asked *)a)->recno, y = ((const Asked *)b)->recno;

	return x < y ? -1 : x > y;
}

/* What went without its content has two records: the other one is that of the content. */
static GArray *ask_collect(IsdPush *p)
{
	GArray *a = g_array_new(FALSE, FALSE, sizeof(Asked));

	for (GList *l = p->segments.head; l; l = l->next) {
		PushSegment *s = l->data;

		for (guint i = 0; i < s->push->len; i++) {
			PushOp *po = &g_array_index(s->push, PushOp, i);
			Asked made = { po->op->r.recno, po };
			Asked content = { po->op->content_recno, po };

			if (po->state != PUSH_UNKNOWN)
				continue;
			g_array_append_val(a, made);
			if (po->bare && content.recno != made.recno)
				g_array_append_val(a, content);
		}
	}
	g_array_sort(a, asked_order);
	return a;
}

static gboolean ask_take(IsdPush *p, const Asked *q, const struct push_answer *a, GError **error)
{
	struct kml_oid soid = { GUINT64_FROM_LE(a->ino), GUINT32_FROM_LE(a->gen) };
	PushSegment *s;
	guint index;

	if (GUINT64_FROM_LE(a->recno) != q->recno) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_PROTOCOL,
			    "the server answers other records than were asked for");
		return FALSE;
	}
	if (q->po->state == PUSH_UNKNOWN)
		q->po->state = PUSH_READY;
	return a->status || !isd_push_find_op(p, q->recno, &s, &index) ||
	       isd_push_op_settled(p, s, index, soid, GUINT64_FROM_LE(a->server_recno), error);
}

static gboolean ask_take_all(IsdPush *p, const GByteArray *body, GError **error)
{
	g_autoptr(GArray) asked = ask_collect(p);

	if (body->len != asked->len * sizeof(struct push_answer)) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_PROTOCOL,
			    "the server answers %u questions with %u bytes", asked->len, body->len);
		return FALSE;
	}
	if (!isd_client_begin(p->c, error))
		return FALSE;
	for (guint i = 0; i < asked->len; i++) {
		struct push_answer a;

		memcpy(&a, body->data + i * sizeof(a), sizeof(a));
		if (!ask_take(p, &g_array_index(asked, Asked, i), &a, error))
			return FALSE;
	}
	return isd_client_commit(p->c, error);
}

static void ask_done(IsdPush *p)
{
	p->asking = FALSE;
	isd_push_go(p);
	if (p->c->pull)
		isd_pull_kick(p->c->pull);
}

static void push_asked(IsdRequest *r, const GError *error, gpointer data)
{
	IsdPush *p = data;
	g_autoptr(GError) local = NULL;

	p->post = NULL;
	if (error || !ask_take_all(p, isd_fetch_body(r), &local))
		isd_client_fail_log(p->c, isd_fetch_status(r), error ? error : local);
	else
		ask_done(p);
}

static void ask_encode(GByteArray *body, guint64 recno)
{
	struct kml_record r = { .opcode = KML_RESYNC, .recno = recno };
	guint at = body->len;

	g_byte_array_set_size(body, at + kml_encoded_size(&r));
	kml_encode(body->data + at, body->len - at, &r);
}

void isd_push_ask(IsdPush *p)
{
	g_autoptr(GArray) asked = ask_collect(p);
	g_autoptr(GByteArray) body = g_byte_array_new();

	for (guint i = 0; i < asked->len; i++)
		ask_encode(body, g_array_index(asked, Asked, i).recno);
	if (asked->len)
		isd_push_post(p, g_steal_pointer(&body), push_asked);
	else
		ask_done(p);
}

gboolean isd_push_is_asking(const IsdPush *p)
{
	return p->asking;
}
