// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Sending the own log: it is read in segments, what is superseded is dropped,
 * and the rest is posted in order, with small content inline and large content
 * uploaded before.  A record is settled when the server's answer, or the server's
 * log, says what it became there; the position moves over whole segments.
 *
 * A segment's bounds are in the state before anything of it is sent, so that after a crash
 * or a lost answer the same records stand for the same changes.  The server is asked first what
 * became of them, and until it has answered neither push nor pull decide anything.
 */
#include "push.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util.h"

#define BATCH_RECORDS	2000
#define RETRY_MIN_MS	200
#define RETRY_MAX_MS	(15 * 1000)
#define TRIES_QUIET	6	/* then it counts as blocking */

/* --- failures --- */

static gboolean push_retry(gpointer data)
{
	IsdPush *p = data;

	p->retry = 0;
	for (GList *l = p->segments.head; l; l = l->next) {
		PushSegment *s = l->data;

		for (guint i = 0; i < s->push->len; i++) {
			PushOp *po = &g_array_index(s->push, PushOp, i);

			if (po->state == PUSH_FAILED)
				po->state = PUSH_READY;
		}
	}
	isd_push_go(p);
	return G_SOURCE_REMOVE;
}

static void push_retry_later(IsdPush *p)
{
	if (p->retry)
		return;
	p->retry = g_timeout_add(p->retry_ms, push_retry, p);
	p->retry_ms = MIN(p->retry_ms * 2, RETRY_MAX_MS);
}

void isd_push_pulled(IsdPush *p)
{
	if (!p->retry) {
		isd_push_kick(p);
		return;
	}
	g_clear_handle_id(&p->retry, g_source_remove);
	p->retry = g_idle_add(push_retry, p);
}

static void push_op_failed(IsdPush *p, PushOp *po, int err)
{
	const struct kml_record *r = &po->op->r;

	po->state = PUSH_FAILED;
	po->err = err;
	po->tries++;
	if (err == ENOENT && po->file)
		g_clear_pointer(&po->file, g_free);	/* the upload is gone */
	if (err == ECANCELED || ((err == ESTALE || err == EIDRM || err == EBUSY) &&
				 po->tries < TRIES_QUIET) ||
	    (p->blocking_recno && p->blocking_recno != r->recno))
		return;
	g_free(p->blocking);
	p->blocking_recno = r->recno;
	p->blocking = g_strdup_printf("%s of %.*s in %.*s: %s%s", kml_opcode_name(r->opcode),
				      (int)r->name.len, r->name.ptr ? r->name.ptr : "",
				      (int)r->dir.len, r->dir.ptr ? r->dir.ptr : "",
				      err > 0 ? "the server answers: " : "it is being changed",
				      err > 0 ? g_strerror(err) : "");
	if (po->tries == 1 || po->tries == TRIES_QUIET)
		isd_log(4, p->c->server, r->recno, "not sent: %s", p->blocking);
}

/* --- answers --- */

static gboolean push_take_answer(IsdPush *p, PushOp *po, const struct push_answer *a,
				 GError **error)
{
	struct kml_oid soid = { GUINT64_FROM_LE(a->ino), GUINT32_FROM_LE(a->gen) };
	guint32 status = GUINT32_FROM_LE(a->status);
	PushSegment *s;
	guint index;
	gboolean drop;

	if (po->state != PUSH_SENT)
		return TRUE;	/* the server's log told already */
	if (!isd_push_find_op(p, po->op->r.recno, &s, &index))
		return TRUE;
	if (!status)
		return isd_push_op_settled(p, s, index, soid, GUINT64_FROM_LE(a->server_recno),
					   error);
	isd_debug(ISD_D_KML, "own record %" G_GUINT64_FORMAT " %s: %s", (guint64)po->op->r.recno,
		  kml_opcode_name(po->op->r.opcode), g_strerror(status));
	push_op_failed(p, po, status);
	if (!isd_push_refused(p, po, a, &drop, error))
		return FALSE;
	if (drop || po->state != PUSH_FAILED)
		p->retry_ms = RETRY_MIN_MS;	/* what waits for it has not been tried yet */
	return !drop || isd_push_drop_op(p, s, index, error);
}

static gboolean push_take_answers(IsdPush *p, const GByteArray *body, GPtrArray *sent,
				  GError **error)
{
	gboolean failed = FALSE;

	if (body->len != sent->len * sizeof(struct push_answer)) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_PROTOCOL,
			    "the server answers %u records with %u bytes", sent->len, body->len);
		return FALSE;
	}
	for (guint i = 0; i < sent->len; i++) {
		PushOp *po = g_ptr_array_index(sent, i);
		struct push_answer a;

		memcpy(&a, body->data + i * sizeof(a), sizeof(a));
		if (GUINT64_FROM_LE(a.recno) != po->sent_recno) {
			g_set_error(error, ISD_ERROR, ISD_ERROR_PROTOCOL,
				    "the server answers other records than were sent");
			return FALSE;
		}
		if (!push_take_answer(p, po, &a, error))
			return FALSE;
		failed |= po->state == PUSH_FAILED;
	}
	if (failed)
		push_retry_later(p);
	else
		p->retry_ms = RETRY_MIN_MS;
	return isd_client_did(p->c, sent->len, error);
}

void isd_push_post(IsdPush *p, GByteArray *body, IsdFetchDone done)
{
	g_autoptr(GBytes) bytes = g_byte_array_free_to_bytes(body);
	g_autofree char *log = isd_client_which_log(p->c);
	IsdFetchSpec spec = {
		.method = "POST", .body = bytes, .done = done, .data = p,
	};

	spec.path = g_strdup_printf("reint?base=%" G_GUINT64_FORMAT "&%s", p->c->pull_recno, log);
	p->base = p->c->pull_recno;
	isd_fault("push-post");
	p->post = isd_fetch(p->c->fetcher, &spec);
}

static void push_posted(IsdRequest *r, const GError *error, gpointer data)
{
	IsdPush *p = data;
	g_autoptr(GError) local = NULL;
	g_autoptr(GPtrArray) sent = g_steal_pointer(&p->sent);

	p->post = NULL;
	isd_fault("push-answered");
	if (g_error_matches(error, ISD_ERROR, ISD_ERROR_NOSPC)) {
		/* the server's disk: what comes from there is not held up */
		for (guint i = 0; i < sent->len; i++)
			push_op_failed(p, g_ptr_array_index(sent, i), ENOSPC);
		push_retry_later(p);
		return;
	}
	if (error || !push_take_answers(p, isd_fetch_body(r), sent, &local)) {
		isd_client_fail_log(p->c, isd_fetch_status(r), error ? error : local);
		return;
	}
	isd_push_go(p);
}

/* --- sending --- */

void isd_push_uploaded(IsdPush *p, PushOp *po, gboolean changed, const GError *error)
{
	po->state = PUSH_READY;
	if (g_error_matches(error, ISD_ERROR, ISD_ERROR_NOSPC)) {
		push_op_failed(p, po, ENOSPC);
		push_retry_later(p);
	} else if (error) {
		isd_client_fail(p->c, error);
		return;
	}
	if (changed && !error) {
		push_op_failed(p, po, 0);
		push_retry_later(p);
	}
	isd_push_go(p);
}

/*
 * The file is changing while it is read: if a later CLOSE is in the log that
 * one sends it, otherwise it is looked at again in a moment.
 */
static gboolean push_changing(IsdPush *p, PushSegment *s, guint index, GError **error)
{
	PushOp *po = &g_array_index(s->push, PushOp, index);
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	if (!isd_push_find(p->c, po->op->r.obj, &o, &found, error))
		return FALSE;
	if (found && o.lcver > po->op->content_recno && !isd_makes(po->op->r.opcode))
		return isd_segment_op_done(p, s, index, error) && isd_push_carry(p, po, &o, error);
	push_op_failed(p, po, po->err);
	push_retry_later(p);
	return TRUE;
}

static gboolean is_replaced(IsdPush *p, struct kml_oid oid)
{
	g_autofree char *key = isd_push_key(oid);

	return oid.ino && g_hash_table_contains(p->replaced, key);
}

/*
 * Its numbers are only known when what is in the body already is answered; or it
 * would break the order of the body's records.
 */
static gboolean push_must_wait(IsdPush *p, const IsdOp *op)
{
	const PushOp *last = p->sent->len ? g_ptr_array_index(p->sent, p->sent->len - 1) : NULL;

	if (last && op->r.recno <= last->sent_recno)
		return TRUE;
	return g_hash_table_size(p->replaced) &&
		(is_replaced(p, op->r.obj) || (op->r.has_old && is_replaced(p, op->r.old)));
}

static void push_sent(IsdPush *p, PushOp *po)
{
	po->state = PUSH_SENT;
	po->sent_recno = po->op->r.recno;
	g_ptr_array_add(p->sent, po);
	/* new content is a new inode there */
	if (po->op->content && !isd_makes(po->op->r.opcode))
		g_hash_table_add(p->replaced, isd_push_key(po->op->r.obj));
}

/* One op into the body.  *ret_stop: send what there is, or wait for an upload. */
static gboolean push_add(IsdPush *p, PushSegment *s, guint index, GByteArray *body,
			 gboolean *ret_stop, GError **error)
{
	PushOp *po = &g_array_index(s->push, PushOp, index);

	if (isd_push_is_covered(p->c, po->op->r.obj, po->op->r.recno) &&
	    !isd_push_is_further_name(p->c, &po->op->r)) {
		isd_debug(ISD_D_KML, "own record %" G_GUINT64_FORMAT " is covered by another one",
			  (guint64)po->op->r.recno);
		return isd_push_drop_op(p, s, index, error);
	}
	if (push_must_wait(p, po->op)) {
		*ret_stop = TRUE;
		return TRUE;
	}
	switch (isd_push_encode(p, po, body, error)) {
	case ENCODE_FAIL:
		return FALSE;
	case ENCODE_DONE:
		push_sent(p, po);
		*ret_stop = p->sent->len == BATCH_RECORDS;
		return TRUE;
	case ENCODE_MOOT:
		isd_debug(ISD_D_KML, "own record %" G_GUINT64_FORMAT " needs not be sent",
			  (guint64)po->op->r.recno);
		return isd_push_drop_op(p, s, index, error);
	case ENCODE_LATER:
		return push_changing(p, s, index, error);
	case ENCODE_FULL:
	case ENCODE_UPLOAD:
		*ret_stop = TRUE;
	}
	return TRUE;
}

static char *name_key(struct kml_oid dir, struct kml_str name)
{
	return g_strdup_printf("%" G_GUINT64_FORMAT ".%u/%.*s", (guint64)dir.ino, dir.gen,
			       (int)name.len, name.ptr);
}

/*
 * The keys of an op: its objects and names, *ret_own of them, then the directories
 * that it needs.
 */
static guint op_keys(const struct kml_record *r, char *keys[6], guint *ret_own)
{
	gboolean names = r->opcode != KML_CLOSE && r->opcode != KML_SETATTR &&
		r->opcode != KML_SETXATTR && r->opcode != KML_REMOVEXATTR &&
		r->opcode != KML_RESYNC;
	guint n = 0;

	keys[n++] = isd_push_key(r->obj);
	if (r->has_old && r->old.ino)
		keys[n++] = isd_push_key(r->old);
	if (names && r->name.ptr)
		keys[n++] = name_key(r->parent, r->name);
	if (names && r->tname.ptr)
		keys[n++] = name_key(r->tparent, r->tname);
	*ret_own = n;
	if (names && r->parent.ino)
		keys[n++] = isd_push_key(r->parent);
	if (names && r->tparent.ino)
		keys[n++] = isd_push_key(r->tparent);
	return n;
}

/*
 * An op about something that an earlier one is about, which could not be
 * done yet, waits for that one.
 */
static gboolean push_is_held(IsdPush *p, const PushOp *po)
{
	char *keys[6];
	guint own, n = op_keys(&po->op->r, keys, &own);
	/* content that could not be read just now holds nothing up */
	gboolean held = po->state == PUSH_FAILED && (po->err || po->op->r.opcode != KML_CLOSE);

	for (guint i = 0; i < n && !held; i++)
		held = g_hash_table_contains(p->held, keys[i]);
	for (guint i = 0; i < n; i++) {
		if (held && i < own)
			g_hash_table_add(p->held, keys[i]);
		else
			g_free(keys[i]);
	}
	return held;
}

static gboolean push_collect(IsdPush *p, GByteArray *body, GError **error)
{
	gboolean stop = FALSE;

	g_hash_table_remove_all(p->held);
	for (GList *l = p->segments.head; l && !stop; l = l->next) {
		PushSegment *s = l->data;

		for (guint i = 0; i < s->push->len && !stop; i++) {
			PushOp *po = &g_array_index(s->push, PushOp, i);

			if (po->state == PUSH_DONE || push_is_held(p, po))
				continue;
			if (po->state == PUSH_READY && !push_add(p, s, i, body, &stop, error))
				return FALSE;
			if (po->state == PUSH_FAILED)
				push_is_held(p, po);
		}
	}
	return TRUE;
}

static gboolean push_try(IsdPush *p, GError **error)
{
	gboolean loaded = TRUE;

	if (p->asking && !p->post)
		isd_push_ask(p);
	/* what it has made is perhaps not known yet, and was changed since */
	if (p->c->unfinished)
		return TRUE;
	while (loaded && !p->asking && !p->post && !p->upload) {
		g_autoptr(GByteArray) body = g_byte_array_new();

		if (!p->sent)
			p->sent = g_ptr_array_new();
		g_hash_table_remove_all(p->replaced);
		if (!isd_client_begin(p->c, error) || !push_collect(p, body, error) ||
		    !isd_push_advance(p, error))
			return FALSE;
		if (body->len) {
			/* what the records stand for has to be known again after a crash */
			if (!isd_client_commit(p->c, error))
				return FALSE;
			isd_push_post(p, g_steal_pointer(&body), push_posted);
			return TRUE;
		}
		if (p->upload)
			return isd_client_commit(p->c, error);
		if (!isd_segment_load(p, &loaded, error))
			return FALSE;
	}
	return TRUE;
}

void isd_push_go(IsdPush *p)
{
	g_autoptr(GError) error = NULL;

	if (!isd_client_is_up(p->c) || p->c->phase != ISD_CLIENT_ONLINE)
		return;
	if (!push_try(p, &error))
		isd_client_fail(p->c, error);
}

static gboolean push_kicked(gpointer data)
{
	IsdPush *p = data;

	p->kick = 0;
	isd_push_go(p);
	return G_SOURCE_REMOVE;
}

/* Not from within what may be in the middle of a decision about pending records. */
void isd_push_kick(IsdPush *p)
{
	if (!p->kick)
		p->kick = g_idle_add(push_kicked, p);
}

gboolean isd_push_is_idle(const IsdPush *p)
{
	return !p->asking && !p->post && !p->upload && !p->segments.length &&
	       MAX(p->c->push_offset, (guint64)KML_HEADER_SIZE) >= p->c->core->applied;
}

const char *isd_push_blocking(const IsdPush *p, guint64 *ret_recno)
{
	*ret_recno = p->blocking_recno;
	return p->blocking;
}

IsdPush *isd_push_start(IsdClient *c)
{
	IsdPush *p = g_new0(IsdPush, 1);
	g_autoptr(GError) error = NULL;

	p->c = c;
	p->log_fd = openat(c->core->meta_fd, "kml", O_RDONLY | O_CLOEXEC);
	p->settled = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
	p->held = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	p->replaced = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	p->making = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	p->carry = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
					 (GDestroyNotify)g_array_unref);
	p->retry_ms = RETRY_MIN_MS;
	p->punched = c->push_offset;
	g_queue_init(&p->segments);
	if (isd_push_reload(p, &error))
		isd_push_kick(p);
	else
		isd_client_fail(c, error);
	return p;
}

void isd_push_free(IsdPush *p)
{
	PushSegment *s;

	if (p->post)
		isd_fetch_cancel(p->post);
	isd_push_upload_free(p->upload);
	g_clear_handle_id(&p->retry, g_source_remove);
	g_clear_handle_id(&p->kick, g_source_remove);
	while ((s = g_queue_pop_head(&p->segments)))
		isd_segment_free(s);
	g_clear_pointer(&p->sent, g_ptr_array_unref);
	g_hash_table_unref(p->settled);
	g_hash_table_unref(p->making);
	g_hash_table_unref(p->held);
	g_hash_table_unref(p->replaced);
	g_hash_table_unref(p->carry);
	if (p->log_fd >= 0)
		close(p->log_fd);
	g_free(p->blocking);
	g_free(p);
}
