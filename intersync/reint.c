// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * REINT batches: records with their guards, sent to the file system, which
 * makes them true.  Both roles use it: the server with logging, the client
 * without.  doc/channel.md has the rules.
 */
#include "daemon.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define BATCH_MAX	(IZO_MSG_MAX - sizeof(struct izo_msg))
/* The kernel needs contiguous memory for a message: a batch is larger only for one record. */
#define BATCH_FULL	(128 * 1024)
#define RECORD_USUAL	4096		/* a record's fields, names and xattrs, seldom more */

struct IsdReint {
	struct izo_reint	head;
	GByteArray		*body;		/* head, entries */
	guint			sent;		/* entries in body */
	GArray			*local;		/* guint32 per record: 0, or why it is not in body */
	GArray			*results;	/* struct izo_reint_result per record */
};

static void empty(IsdReint *b)
{
	b->sent = 0;
	g_array_set_size(b->local, 0);
	g_byte_array_set_size(b->body, 0);
	g_byte_array_append(b->body, (guint8 *) &b->head, sizeof(b->head));
}

IsdReint *isd_reint_new(gboolean log, const guint8 peer[16])
{
	IsdReint *b = g_new0(IsdReint, 1);

	b->head.flags = htole32(log ? IZO_REINT_F_LOG : 0);
	memcpy(b->head.peer, peer, 16);
	b->body = g_byte_array_new();
	b->local = g_array_new(FALSE, TRUE, sizeof(guint32));
	b->results = g_array_new(FALSE, TRUE, sizeof(struct izo_reint_result));
	empty(b);
	return b;
}

void isd_reint_free(IsdReint *b)
{
	if (!b)
		return;
	g_byte_array_unref(b->body);
	g_array_unref(b->local);
	g_array_unref(b->results);
	g_free(b);
}

guint isd_reint_count(const IsdReint *b)
{
	return b->local->len;
}

gboolean isd_reint_has_room(const IsdReint *b, gsize data)
{
	return !b->sent || b->body->len + RECORD_USUAL + data <= BATCH_FULL;
}

static void not_sent(IsdReint *b, guint32 why)
{
	g_array_append_val(b->local, why);
}

gboolean isd_reint_add(IsdReint *b, const struct kml_record *r, const struct izo_guard *guard,
		       const struct izo_guard *tguard, guint32 flags)
{
	struct izo_reint_entry e = { .flags = htole32(flags) };
	gsize need = sizeof(e) + kml_encoded_size(r);
	guint at = b->body->len;
	ssize_t len;

	if (b->sent && at + need > BATCH_FULL)
		return FALSE;
	if (at + need > BATCH_MAX) {
		not_sent(b, EMSGSIZE);
		return TRUE;
	}
	g_byte_array_set_size(b->body, at + need);
	len = kml_encode(b->body->data + at + sizeof(e), need - sizeof(e), r);
	if (len < 0) {
		g_byte_array_set_size(b->body, at);
		not_sent(b, -len);
		return TRUE;
	}
	e.len = htole32(sizeof(e) + len);
	if (guard)
		e.guard = *guard;
	if (tguard)
		e.tguard = *tguard;
	memcpy(b->body->data + at, &e, sizeof(e));
	g_byte_array_set_size(b->body, at + sizeof(e) + len);
	b->sent++;
	not_sent(b, 0);
	return TRUE;
}

static void seal(IsdReint *b, guint64 remote_recno, guint64 remote_offset)
{
	struct izo_reint *h = (struct izo_reint *) b->body->data;

	h->count = htole32(b->sent);
	h->remote_recno = htole64(remote_recno);
	h->remote_offset = htole64(remote_offset);
}

/* One result per record, in the order in which they were added. */
static void collect(IsdReint *b, const struct izo_reint_result *from)
{
	g_array_set_size(b->results, 0);
	for (guint i = 0; i < b->local->len; i++) {
		guint32 why = g_array_index(b->local, guint32, i);
		struct izo_reint_result r = { .error = htole32(why) };

		if (!why)
			memcpy(&r, from++, sizeof(r));
		g_array_append_val(b->results, r);
	}
}

static gboolean take_reply(IsdReint *b, IsdCore *core, const void *body, gsize len,
			   GError **error)
{
	struct izo_pos pos;

	if (len != sizeof(pos) + b->sent * sizeof(struct izo_reint_result)) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_PROTOCOL,
			    "%s: the file system answered %" G_GSIZE_FORMAT
			    " bytes to REINT of %u records", core->dir, len, b->sent);
		return FALSE;
	}
	memcpy(&pos, body, sizeof(pos));
	isd_core_saw_log(core, &pos);
	collect(b, (const void *) ((const char *) body + sizeof(pos)));
	return TRUE;
}

gboolean isd_reint_send(IsdReint *b, IsdCore *core, guint64 remote_recno, guint64 remote_offset,
			const struct izo_reint_result **ret_results, GError **error)
{
	g_autoptr(GByteArray) reply = g_byte_array_new();
	gboolean ok = TRUE;

	seal(b, remote_recno, remote_offset);
	isd_debug(ISD_D_REINT, "REINT of %u records, up to record %" G_GUINT64_FORMAT
		  " of the peer", b->sent, remote_recno);
	isd_fault("reint-before");
	if (b->sent || remote_recno)
		ok = isd_channel_call(core->channel, IZO_MSG_REINT, 0, b->body->data,
				      b->body->len, reply, error) &&
		     take_reply(b, core, reply->data, reply->len, error);
	else
		collect(b, NULL);
	isd_fault("reint-after");
	empty(b);
	if (ok && ret_results)
		*ret_results = (const void *) b->results->data;
	return ok;
}

typedef struct {
	IsdReint	*b;		/* what is in flight: no body, for collect() */
	IsdCore		*core;
	IsdReintDone	done;
	gpointer	data;
} Flight;

static void landed(int error, const void *body, gsize len, gpointer data)
{
	Flight *f = data;
	g_autoptr(GError) why = NULL;

	isd_fault("reint-after");
	if (!error && !take_reply(f->b, f->core, body, len, &why)) {
		isd_log(3, NULL, 0, "%s", why->message);
		error = EPROTO;
	}
	if (error)
		g_array_set_size(f->b->results, 0);
	f->done(error, (const void *) f->b->results->data, f->b->results->len, f->data);
	isd_reint_free(f->b);
	g_free(f);
}

/* What collect() needs of b goes into a batch of its own. */
static Flight *take_off(IsdReint *b, IsdCore *core, IsdReintDone done, gpointer data)
{
	Flight *f = g_new0(Flight, 1);
	GArray *local = b->local;

	f->b = isd_reint_new(FALSE, b->head.peer);
	b->local = f->b->local;
	f->b->local = local;
	f->b->sent = b->sent;
	f->core = core;
	f->done = done;
	f->data = data;
	return f;
}

void isd_reint_submit(IsdReint *b, IsdCore *core, guint64 remote_recno, guint64 remote_offset,
		      IsdReintDone done, gpointer data)
{
	Flight *f;

	seal(b, remote_recno, remote_offset);
	f = take_off(b, core, done, data);
	isd_fault("reint-before");
	isd_channel_request(core->channel, IZO_MSG_REINT, 0, b->body->data, b->body->len,
			    landed, f);
	empty(b);
}

struct izo_guard isd_guard_absent(void)
{
	return (struct izo_guard) { .flags = htole32(IZO_G_ABSENT) };
}

struct izo_guard isd_guard_object(const IsdObject *o, guint32 flags)
{
	flags |= IZO_G_INO;
	if (S_ISDIR(o->attr.mode))
		flags &= ~IZO_G_CTIME;
	return (struct izo_guard) {
		.ino = htole64(o->oid.ino),
		.gen = htole32(o->oid.gen),
		.flags = htole32(flags),
		.ctime_sec = htole64(o->attr.ctime.sec),
		.ctime_nsec = htole32(o->attr.ctime.nsec),
	};
}
