// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Where in the own log, behind what is settled, the records about an object are: the pull asks for
 * each object that it changes, and cannot read a backlog of a month each time.  A chained
 * hash over an array, 16 bytes per record; it grows with the log and is dropped when nothing
 * is pending.  Used by push_pending.c.
 */
#include "push.h"

#define HEADS_MIN	256

typedef struct {
	guint64	offset;
	guint32	hash;
	guint32	next;		/* index + 1, 0: the last one */
} Entry;

struct IsdPushIndex {
	GArray	*entries;	/* of Entry, by offset */
	guint32	*heads;		/* index + 1 of the last entry */
	guint	n_heads;	/* a power of two */
	guint64	end;		/* the log is indexed up to here */
};

static guint32 hash_of(struct kml_oid oid)
{
	guint64 h = (oid.ino ^ ((guint64)oid.gen << 32)) * G_GUINT64_CONSTANT(0x9e3779b97f4a7c15);

	return h >> 32;
}

static void link_entry(struct IsdPushIndex *x, guint i)
{
	Entry *e = &g_array_index(x->entries, Entry, i);
	guint32 *head = &x->heads[e->hash & (x->n_heads - 1)];

	e->next = *head;
	*head = i + 1;
}

static void index_grow(struct IsdPushIndex *x)
{
	g_free(x->heads);
	x->n_heads = MAX(x->n_heads * 2, HEADS_MIN);
	x->heads = g_new0(guint32, x->n_heads);
	for (guint i = 0; i < x->entries->len; i++)
		link_entry(x, i);
}

static void index_add(struct IsdPushIndex *x, struct kml_oid oid, guint64 offset)
{
	Entry e = { .offset = offset, .hash = hash_of(oid) };

	if (x->entries->len >= x->n_heads)
		index_grow(x);
	g_array_append_val(x->entries, e);
	link_entry(x, x->entries->len - 1);
}

void isd_push_index_free(struct IsdPushIndex *x)
{
	if (!x)
		return;
	g_array_unref(x->entries);
	g_free(x->heads);
	g_free(x);
}

gboolean isd_push_read_log(IsdClient *c, guint64 at, struct kml_record *ret, guint64 *ret_next,
			   gboolean *ret_end, GError **error)
{
	uint64_t next;
	int rc = klog_read(c->core->log, at, ret, &next);

	if (rc < 0) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED, "the own log: %s", g_strerror(-rc));
		return FALSE;
	}
	*ret_end = rc == 0;
	*ret_next = next;
	return TRUE;
}

/* The index has the log up to what the state has. */
static gboolean index_extend(IsdClient *c, GError **error)
{
	guint64 from = MAX(c->push_offset, (guint64)KML_HEADER_SIZE);
	struct IsdPushIndex *x = c->index;
	gboolean end = FALSE;

	if (x && (from >= x->end || x->end > c->core->applied))
		g_clear_pointer(&c->index, isd_push_index_free);
	if (!c->index) {
		c->index = g_new0(struct IsdPushIndex, 1);
		c->index->entries = g_array_new(FALSE, FALSE, sizeof(Entry));
		c->index->end = from;
		index_grow(c->index);
	}
	for (x = c->index; x->end < c->core->applied && !end; ) {
		struct kml_record r;
		guint64 next;

		if (!isd_push_read_log(c, x->end, &r, &next, &end, error))
			return FALSE;
		if (end)
			break;
		index_add(x, r.obj, x->end);
		x->end = next;
	}
	return TRUE;
}

static gint offset_order(gconstpointer a, gconstpointer b)
{
	guint64 x = *(const guint64 *)a, y = *(const guint64 *)b;

	return x < y ? -1 : x > y;
}

GArray *isd_push_index_find(IsdClient *c, const GArray *oids, GError **error)
{
	GArray *ret;

	if (!index_extend(c, error))
		return NULL;
	ret = g_array_new(FALSE, FALSE, sizeof(guint64));
	for (guint i = 0; i < oids->len; i++) {
		guint32 hash = hash_of(g_array_index(oids, struct kml_oid, i));
		guint32 at = c->index->heads[hash & (c->index->n_heads - 1)];

		while (at) {
			const Entry *e = &g_array_index(c->index->entries, Entry, at - 1);

			if (e->hash == hash && e->offset >= c->push_offset)
				g_array_append_val(ret, e->offset);
			at = e->next;
		}
	}
	g_array_sort(ret, offset_order);
	return ret;
}
