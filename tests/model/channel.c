// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The channel between the engine and a simulated file system, in place of
 * intersync/channel.c and lib/chan.c.  Requests are done in order, each a little
 * later; a call that waits is done at once, behind those before it.
 */
#include "sim.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define WORK_US	2000	/* at most, until a request is done */

typedef struct {
	guint		type;
	GBytes		*body;
	IsdChannelDone	done;
	gpointer	data;
	/* the reply */
	struct IsdChannel *c;
	int		error;
	GByteArray	*reply;
} Request;

struct IsdChannel {
	IsdCore		*core;
	struct host	*h;
	GQueue		todo;		/* Request */
	gboolean	working;
	Request		*grown;
	guint64		grown_after;
};

static void request_free(Request *r)
{
	g_bytes_unref(r->body);
	g_byte_array_unref(r->reply);
	g_free(r);
}

static gboolean deliver(gpointer data)
{
	Request *r = data;

	r->done(r->error, r->reply->len ? r->reply->data : NULL, r->reply->len, r->data);
	request_free(r);
	return G_SOURCE_REMOVE;
}

static void answer(struct IsdChannel *c, Request *r)
{
	sim_after(c->h, 0, deliver, r);
}

static void position(struct host *h, GByteArray *reply)
{
	struct izo_pos pos = { GUINT64_TO_LE(h->kml_end), GUINT64_TO_LE(h->recno) };

	g_byte_array_append(reply, (guint8 *) &pos, sizeof(pos));
}

static int punch(struct host *h, const guint8 *body)
{
	struct izo_pos pos;
	int err;

	memcpy(&pos, body, sizeof(pos));
	err = -klog_punch(h->kml_fd, GUINT64_FROM_LE(pos.offset), GUINT64_FROM_LE(pos.recno));
	if (!err) {
		h->head.first_offset = GUINT64_FROM_LE(pos.offset);
		h->head.first_recno = GUINT64_FROM_LE(pos.recno) + 1;
	}
	return err;
}

static int work(struct host *h, guint type, const guint8 *body, gsize len, GByteArray *reply)
{
	history_intrude(h);
	switch (type) {
	case IZO_MSG_SYNC:
		fs_drain(h);
		position(h, reply);
		return 0;
	case IZO_MSG_REINT:
		return reint_apply(h, body, len, reply);
	case IZO_MSG_PUNCH:
		return punch(h, body);
	default:
		return EOPNOTSUPP;
	}
}

/* Answered when the log grows; there is one at most. */
static void watch(struct IsdChannel *c, Request *r)
{
	struct izo_pos pos;

	memcpy(&pos, g_bytes_get_data(r->body, NULL), sizeof(pos));
	c->grown_after = GUINT64_FROM_LE(pos.offset);
	c->grown = r;
	channel_grew(c->h);
}

void channel_grew(struct host *h)
{
	struct IsdChannel *c = h->channel;
	Request *r;

	if (!c || !c->grown || h->kml_end <= c->grown_after)
		return;
	r = g_steal_pointer(&c->grown);
	position(h, r->reply);
	answer(c, r);
}

static void do_one(struct IsdChannel *c)
{
	Request *r = g_queue_pop_head(&c->todo);
	gsize len;
	const guint8 *body = g_bytes_get_data(r->body, &len);

	r->error = work(c->h, r->type, body, len, r->reply);
	answer(c, r);
}

static gboolean work_later(gpointer data)
{
	struct IsdChannel *c = data;

	if (c->todo.length)
		do_one(c);
	if (c->todo.length)
		return G_SOURCE_CONTINUE;
	c->working = FALSE;
	return G_SOURCE_REMOVE;
}

void isd_channel_request(struct IsdChannel *c, unsigned int type, unsigned int flags,
			 const void *body, gsize len, IsdChannelDone done, gpointer data)
{
	Request *r = g_new0(Request, 1);

	*r = (Request) { .type = type, .body = g_bytes_new(body, len), .done = done, .data = data,
			 .c = c, .reply = g_byte_array_new() };
	if (type == IZO_MSG_GROWN) {
		watch(c, r);
		return;
	}
	g_queue_push_tail(&c->todo, r);
	if (!c->working)
		g_timeout_add(1 + sim_random(WORK_US) / 1000, work_later, c);
	c->working = TRUE;
}

gboolean isd_channel_call(struct IsdChannel *c, unsigned int type, unsigned int flags,
			  const void *body, gsize len, GByteArray *reply, GError **error)
{
	g_autoptr(GByteArray) own = g_byte_array_new();
	int err;

	while (c->todo.length)
		do_one(c);
	err = work(c->h, type, body, len, own);
	if (reply)
		g_byte_array_append(reply, own->data, own->len);
	if (!err)
		return TRUE;
	g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED, "%s: the file system answered: %s",
		    c->core->dir, g_strerror(err));
	return FALSE;
}

static void log_grew(int error, const void *body, gsize len, gpointer data)
{
	struct IsdChannel *c = data;
	struct izo_pos pos;

	memcpy(&pos, body, sizeof(pos));
	isd_core_saw_log(c->core, &pos);
	c->core->log_grew(c->core);
	isd_channel_watch_log(c);
}

void isd_channel_watch_log(struct IsdChannel *c)
{
	struct izo_pos pos = {
		.offset = GUINT64_TO_LE(c->core->log_end),
		.recno = GUINT64_TO_LE(c->core->log_recno),
	};

	isd_channel_request(c, IZO_MSG_GROWN, 0, &pos, sizeof(pos), log_grew, c);
}

struct IsdChannel *isd_channel_new(IsdCore *core, int fd)
{
	struct IsdChannel *c = g_new0(struct IsdChannel, 1);

	close(fd);
	c->core = core;
	c->h = sim_current;
	c->h->channel = c;
	return c;
}

void isd_channel_free(struct IsdChannel *c)
{
	if (!c)
		return;
	channel_drop(c);
	g_free(c);
}

void channel_drop(struct IsdChannel *c)
{
	gboolean read = TRUE;	/* it was, and so was what is before it */
	Request *r;

	c->h->channel = NULL;
	while ((r = g_queue_pop_head(&c->todo))) {
		gsize len;
		const guint8 *body = g_bytes_get_data(r->body, &len);

		read = read && sim_random(2);
		if (read)
			work(c->h, r->type, body, len, r->reply);
		request_free(r);
	}
	g_clear_pointer(&c->grown, request_free);
}

/* --- the first contact --- */

int chan_open(const char *dir)
{
	return fcntl(sim_current->root_fd, F_DUPFD_CLOEXEC, 3);
}

ssize_t chan_call(int fd, unsigned int type, unsigned int flags, const void *body, size_t body_len,
		  void *ret_body, size_t size, int *ret_fd)
{
	const struct host *h = sim_current;
	struct izo_info info = {
		.version = GUINT32_TO_LE(IZO_CHANNEL_VERSION),
		.flags = GUINT32_TO_LE(IZO_INFO_F_FUSE),
		.fileset = FILESET,
		.cache_type = "tmpfs",
		.epoch = GUINT64_TO_LE(h->head.epoch),
		.first_offset = GUINT64_TO_LE(h->head.first_offset),
		.end_offset = GUINT64_TO_LE(h->kml_end),
		.last_recno = GUINT64_TO_LE(h->recno),
		.minor = GUINT32_TO_LE(h->index),
	};

	memcpy(info.fileset_uuid, h->head.fileset_uuid, 16);
	memcpy(info.replica_uuid, h->head.replica_uuid, 16);
	memcpy(ret_body, &info, sizeof(info));
	*ret_fd = fcntl(h->root_fd, F_DUPFD_CLOEXEC, 3);
	return sizeof(info);
}
