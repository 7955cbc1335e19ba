// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * REINT batches whose records each have a function that takes their result into
 * the state.  Used by all parts of the client role; reint.c does the encoding.
 */
#include "client.h"

#include <errno.h>

typedef struct {
	IsdBatchResult	result;
	gpointer	item;
	GDestroyNotify	free_item;
} BatchItem;

struct IsdBatch {
	IsdClient	*c;
	IsdReint	*reint;
	GArray		*items;
};

typedef struct {
	IsdClient	*c;
	GArray		*items;
	IsdBatchDone	done;
	gpointer	data;
} BatchFlight;

static void batch_clear_item(gpointer p)
{
	BatchItem *i = p;

	if (i->free_item)
		i->free_item(i->item);
}

static GArray *batch_items_new(void)
{
	GArray *a = g_array_new(FALSE, FALSE, sizeof(BatchItem));

	g_array_set_clear_func(a, batch_clear_item);
	return a;
}

IsdBatch *isd_batch_new(IsdClient *c)
{
	IsdBatch *b = g_new0(IsdBatch, 1);

	b->c = c;
	b->reint = isd_reint_new(FALSE, c->peer);
	b->items = batch_items_new();
	return b;
}

void isd_batch_free(IsdBatch *b)
{
	if (!b)
		return;
	isd_reint_free(b->reint);
	g_array_unref(b->items);
	g_free(b);
}

guint isd_batch_count(const IsdBatch *b)
{
	return b->items->len;
}

gboolean isd_batch_has_room(const IsdBatch *b, gsize bytes)
{
	return isd_reint_has_room(b->reint, bytes);
}

gboolean isd_batch_add(IsdBatch *b, const struct kml_record *r, const struct izo_guard *guard,
		       const struct izo_guard *tguard, guint32 flags,
		       IsdBatchResult result, gpointer item, GDestroyNotify free_item,
		       GError **error)
{
	BatchItem i = { result, item, free_item };

	if (!isd_reint_add(b->reint, r, guard, tguard, flags)) {
		if (!isd_batch_flush(b, error))
			return FALSE;
		isd_reint_add(b->reint, r, guard, tguard, flags);
	}
	g_array_append_val(b->items, i);
	return TRUE;
}

struct kml_time isd_result_ctime(const struct izo_reint_result *res)
{
	return (struct kml_time) { (gint64)GUINT64_FROM_LE(res->ctime_sec),
				   GUINT32_FROM_LE(res->ctime_nsec) };
}

struct kml_oid isd_result_oid(const struct izo_reint_result *res)
{
	return (struct kml_oid) { GUINT64_FROM_LE(res->ino), GUINT32_FROM_LE(res->gen) };
}

gboolean isd_result_is_fatal(const struct izo_reint_result *res, GError **error)
{
	int err = GUINT32_FROM_LE(res->error);
	gboolean full = err == ENOSPC || err == EDQUOT;

	if (!full && err != EIO && err != EROFS && err != ECANCELED)
		return FALSE;
	g_set_error(error, ISD_ERROR, full ? ISD_ERROR_NOSPC : ISD_ERROR_FAILED,
		    "the local file system answers: %s%s", g_strerror(err),
		    full ? " (make space: what is missing follows then)" : "");
	return TRUE;
}

/* What local programs did before this was done is in the state before this is. */
static gboolean batch_follow(IsdClient *c, const struct izo_reint_result *res, GError **error)
{
	const IsdCore *core = c->core;
	guint64 before = core->applied;

	if (core->applied >= core->log_end)
		return TRUE;
	if (!isd_follow_seq(c->core, GUINT64_FROM_LE(res->recno), error))
		return FALSE;
	if (core->applied != before && c->push)
		isd_push_kick(c->push);
	return TRUE;
}

/* The results that are success, or those that are not. */
static gboolean batch_take_some(IsdClient *c, GArray *items, const struct izo_reint_result *results,
				gboolean success, GError **error)
{
	for (guint i = 0; i < items->len; i++) {
		BatchItem *it = &g_array_index(items, BatchItem, i);

		if ((results[i].error == 0) != success)
			continue;
		isd_debug(ISD_D_REINT, "reint: %s", g_strerror(GUINT32_FROM_LE(results[i].error)));
		if (success && !batch_follow(c, &results[i], error))
			return FALSE;
		if (!it->result(c, it->item, &results[i], error))
			return FALSE;
	}
	return TRUE;
}

/*
 * What was done goes into the state in the order in which it was done, and local programs did
 * what they did, before anything is decided about what was not: for that all of the own log
 * may be taken in, with records about what was just made.
 */
static gboolean batch_take(IsdClient *c, GArray *items, const struct izo_reint_result *results,
			   GError **error)
{
	return isd_client_begin(c, error) && batch_take_some(c, items, results, TRUE, error) &&
	       batch_take_some(c, items, results, FALSE, error) &&
	       isd_client_did(c, items->len, error);
}

gboolean isd_batch_flush(IsdBatch *b, GError **error)
{
	const struct izo_reint_result *results;
	g_autofree struct izo_reint_result *copy = NULL;
	g_autoptr(GArray) items = NULL;

	if (!b->items->len)
		return TRUE;
	if (!isd_reint_send(b->reint, b->c->core, 0, 0, &results, error))
		return FALSE;
	/* what is done about a result may use the batch again */
	items = g_steal_pointer(&b->items);
	b->items = batch_items_new();
	copy = g_memdup2(results, items->len * sizeof(*results));
	return batch_take(b->c, items, copy, error);
}

static void batch_landed(int err, const struct izo_reint_result *results, guint count,
			 gpointer data)
{
	BatchFlight *f = data;
	g_autoptr(GError) error = NULL;

	if (err)
		g_set_error(&error, ISD_ERROR, ISD_ERROR_FAILED, "reintegrating: %s",
			    g_strerror(err));
	else
		batch_take(f->c, f->items, results, &error);
	f->done(f->c, error, f->data);
	g_array_unref(f->items);
	g_free(f);
}

void isd_batch_submit(IsdBatch *b, IsdBatchDone done, gpointer data)
{
	BatchFlight *f = g_new0(BatchFlight, 1);

	f->c = b->c;
	f->items = g_steal_pointer(&b->items);
	f->done = done;
	f->data = data;
	b->items = batch_items_new();
	isd_reint_submit(b->reint, b->c->core, 0, 0, batch_landed, f);
}

gboolean isd_reint_one(IsdClient *c, const struct kml_record *r, const struct izo_guard *guard,
		       const struct izo_guard *tguard, guint32 flags,
		       struct izo_reint_result *ret, GError **error)
{
	g_autoptr(IsdReint) b = isd_reint_new(FALSE, c->peer);
	const struct izo_reint_result *results;

	isd_reint_add(b, r, guard, tguard, flags);
	if (!isd_reint_send(b, c->core, 0, 0, &results, error))
		return FALSE;
	*ret = results[0];
	return TRUE;
}
