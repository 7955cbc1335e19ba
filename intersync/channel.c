// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The channel to the file system within the main loop.  Requests go out in
 * order, replies come back in any; each is found by its id.  A call that waits
 * polls the same descriptor and leaves replies to others for the main loop.
 */
#include "daemon.h"

#define MEMORY_PAUSE	20	/* ms until a message that found no memory is sent again */

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include <glib-unix.h>

typedef struct {
	guint64		id;
	guint16		type, flags;
	GBytes		*body;
	IsdChannelDone	done;
	gpointer	data;
	/* a reply that waits for the main loop */
	int		error;
	GBytes		*reply;
} Request;

struct IsdChannel {
	IsdCore		*core;
	int		fd;
	guint64		last_id;
	GQueue		unsent;		/* Request */
	GHashTable	*sent;		/* id -> Request */
	GQueue		answered;	/* Request, with its reply */
	guint		in_source, out_source, idle_source, retry_source;
	gboolean	dead;
	char		*buf;		/* IZO_MSG_MAX */
};

static gboolean flush(struct IsdChannel *c);

static void request_free(Request *r)
{
	if (r->body)
		g_bytes_unref(r->body);
	if (r->reply)
		g_bytes_unref(r->reply);
	g_free(r);
}

static gboolean dispatch_answered(gpointer data)
{
	struct IsdChannel *c = data;
	Request *r = g_queue_pop_head(&c->answered);

	if (r) {
		gsize len = 0;
		const void *body = r->reply ? g_bytes_get_data(r->reply, &len) : NULL;

		r->done(r->error, body, len, r->data);
		request_free(r);
	}
	if (!g_queue_is_empty(&c->answered))
		return G_SOURCE_CONTINUE;
	c->idle_source = 0;
	return G_SOURCE_REMOVE;
}

static void answered(struct IsdChannel *c, Request *r, int error, const void *body, gsize len)
{
	r->error = error;
	if (len)
		r->reply = g_bytes_new(body, len);
	g_queue_push_tail(&c->answered, r);
	if (!c->idle_source)
		c->idle_source = g_idle_add_full(G_PRIORITY_DEFAULT, dispatch_answered, c, NULL);
}

/* Everything outstanding is answered ENOTCONN, and the daemon ends. */
static void gone(struct IsdChannel *c, int error)
{
	GHashTableIter it;
	gpointer r;

	if (c->dead)
		return;
	c->dead = TRUE;
	g_hash_table_iter_init(&it, c->sent);
	while (g_hash_table_iter_next(&it, NULL, &r)) {
		g_hash_table_iter_steal(&it);
		answered(c, r, ENOTCONN, NULL, 0);
	}
	while ((r = g_queue_pop_head(&c->unsent)))
		answered(c, r, ENOTCONN, NULL, 0);
	isd_core_quit(c->core, 1, "%s: the file system is gone (%s): mount it and start "
		      "intersync again", c->core->dir, error ? g_strerror(error) : "unmounted");
}

static gboolean no_memory(int rc)
{
	return rc == -ENOBUFS || rc == -ENOMEM;
}

static gboolean retry_flush(gpointer data)
{
	struct IsdChannel *c = data;

	if (!flush(c))
		return G_SOURCE_CONTINUE;
	c->retry_source = 0;
	return G_SOURCE_REMOVE;
}

/* TRUE when everything is sent (or nothing can be any more). */
static gboolean flush(struct IsdChannel *c)
{
	Request *r;

	while (!c->dead && (r = g_queue_peek_head(&c->unsent))) {
		gsize len = 0;
		const void *body = r->body ? g_bytes_get_data(r->body, &len) : NULL;
		int rc = chan_send(c->fd, r->type, r->flags, r->id, body, len);

		if (no_memory(rc) && !c->retry_source)
			c->retry_source = g_timeout_add(MEMORY_PAUSE, retry_flush, c);
		if (rc == -EAGAIN || no_memory(rc))
			return FALSE;
		if (rc < 0) {
			gone(c, -rc);
			break;
		}
		g_queue_pop_head(&c->unsent);
		g_clear_pointer(&r->body, g_bytes_unref);
		g_hash_table_insert(c->sent, &r->id, r);
	}
	return TRUE;
}

static void receive_one(struct IsdChannel *c, gsize len)
{
	const struct izo_msg *m = (const struct izo_msg *) c->buf;
	guint64 id = le64toh(m->id);
	Request *r = g_hash_table_lookup(c->sent, &id);

	if (!r)
		return;
	g_hash_table_steal(c->sent, &id);
	answered(c, r, le32toh(m->error), c->buf + sizeof(*m), len - sizeof(*m));
}

/* All that is there now. */
static void receive(struct IsdChannel *c)
{
	while (!c->dead) {
		int fd = -1;
		ssize_t n = chan_recv(c->fd, c->buf, IZO_MSG_MAX, &fd);

		if (fd >= 0)
			close(fd);
		if (n == -EAGAIN)
			return;
		if (n <= 0)
			gone(c, -n);
		else
			receive_one(c, n);
	}
}

static gboolean readable(int fd, GIOCondition condition, gpointer data)
{
	struct IsdChannel *c = data;

	receive(c);
	if (!c->dead)
		return G_SOURCE_CONTINUE;
	c->in_source = 0;
	return G_SOURCE_REMOVE;
}

static gboolean writable(int fd, GIOCondition condition, gpointer data)
{
	struct IsdChannel *c = data;

	if (!flush(c))
		return G_SOURCE_CONTINUE;
	c->out_source = 0;
	return G_SOURCE_REMOVE;
}

static Request *request_new(struct IsdChannel *c, unsigned int type, unsigned int flags,
			    const void *body, gsize len)
{
	Request *r = g_new0(Request, 1);

	r->id = ++c->last_id;
	r->type = type;
	r->flags = flags;
	r->body = len ? g_bytes_new(body, len) : NULL;
	return r;
}

void isd_channel_request(struct IsdChannel *c, unsigned int type, unsigned int flags,
			 const void *body, gsize len, IsdChannelDone done, gpointer data)
{
	Request *r = request_new(c, type, flags, body, len);

	r->done = done;
	r->data = data;
	if (c->dead) {
		answered(c, r, ENOTCONN, NULL, 0);
		return;
	}
	isd_debug(ISD_D_UPCALL, "channel: request %u, id %" G_GUINT64_FORMAT, type, r->id);
	g_queue_push_tail(&c->unsent, r);
	if (!flush(c) && !c->out_source)
		c->out_source = g_unix_fd_add(c->fd, G_IO_OUT, writable, c);
}

typedef struct {
	gboolean	done;
	int		error;
	GByteArray	*reply;
} Call;

static void call_done(int error, const void *body, gsize len, gpointer data)
{
	Call *call = data;

	call->done = TRUE;
	call->error = error;
	if (call->reply && len)
		g_byte_array_append(call->reply, body, len);
}

/* Take the reply to this call out of the queue, if it is there. */
static gboolean take_answer(struct IsdChannel *c, Call *call)
{
	for (GList *l = c->answered.head; l; l = l->next) {
		Request *r = l->data;

		if (r->data != call)
			continue;
		r->done(r->error, r->reply ? g_bytes_get_data(r->reply, NULL) : NULL,
			r->reply ? g_bytes_get_size(r->reply) : 0, call);
		request_free(r);
		g_queue_delete_link(&c->answered, l);
		return TRUE;
	}
	return FALSE;
}

static void wait_for(struct IsdChannel *c)
{
	struct pollfd p = { .fd = c->fd, .events = POLLIN };

	/* It may be memory that is missing, which poll() does not tell. */
	if (!flush(c)) {
		p.events |= POLLOUT;
		g_usleep(1000);
	}
	if (!c->dead && poll(&p, 1, c->unsent.length ? MEMORY_PAUSE : -1) > 0)
		receive(c);
}

gboolean isd_channel_call(struct IsdChannel *c, unsigned int type, unsigned int flags,
			  const void *body, gsize len, GByteArray *reply, GError **error)
{
	Call call = { .reply = reply };

	isd_channel_request(c, type, flags, body, len, call_done, &call);
	while (!take_answer(c, &call))
		wait_for(c);
	if (call.error == 0)
		return TRUE;
	g_set_error(error, ISD_ERROR,
		    call.error == ENOSPC || call.error == EDQUOT ? ISD_ERROR_NOSPC :
		    call.error == ENOTCONN ? ISD_ERROR_FATAL : ISD_ERROR_FAILED,
		    "%s: the file system answered: %s", c->core->dir, g_strerror(call.error));
	return FALSE;
}

static void log_grew(int error, const void *body, gsize len, gpointer data)
{
	struct IsdChannel *c = data;
	IsdCore *core = c->core;
	struct izo_pos pos;

	if (error == ENOTCONN || error == ECANCELED)
		return;
	if (error || len != sizeof(pos)) {
		isd_core_quit(core, 1, "%s: the file system does not tell of its log: %s",
			      core->dir, g_strerror(error ? error : EPROTO));
		return;
	}
	memcpy(&pos, body, sizeof(pos));
	isd_core_saw_log(core, &pos);
	core->log_grew(core);
	isd_channel_watch_log(c);
}

void isd_channel_watch_log(struct IsdChannel *c)
{
	struct izo_pos pos = {
		.offset = htole64(c->core->log_end),
		.recno = htole64(c->core->log_recno),
	};

	isd_channel_request(c, IZO_MSG_GROWN, 0, &pos, sizeof(pos), log_grew, c);
}

struct IsdChannel *isd_channel_new(IsdCore *core, int fd)
{
	struct IsdChannel *c = g_new0(struct IsdChannel, 1);

	c->core = core;
	c->fd = fd;
	c->buf = g_malloc(IZO_MSG_MAX);
	c->sent = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, NULL);
	g_unix_set_fd_nonblocking(fd, TRUE, NULL);
	c->in_source = g_unix_fd_add(fd, G_IO_IN | G_IO_HUP | G_IO_ERR, readable, c);
	return c;
}

static void remove_source(guint *id)
{
	if (*id)
		g_source_remove(*id);
	*id = 0;
}

void isd_channel_free(struct IsdChannel *c)
{
	GHashTableIter it;
	gpointer r;

	if (!c)
		return;
	remove_source(&c->in_source);
	remove_source(&c->out_source);
	remove_source(&c->idle_source);
	remove_source(&c->retry_source);
	g_hash_table_iter_init(&it, c->sent);
	while (g_hash_table_iter_next(&it, NULL, &r))
		request_free(r);
	g_hash_table_destroy(c->sent);
	g_queue_clear_full(&c->unsent, (GDestroyNotify) request_free);
	g_queue_clear_full(&c->answered, (GDestroyNotify) request_free);
	g_free(c->buf);
	close(c->fd);
	g_free(c);
}
