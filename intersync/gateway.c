// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The daemon's end of the gateway to mod_intersync: accepts, reads whole
 * messages, answers in order, lets those wait who want to.  httpd/gate.h
 * describes the messages; server.c answers them.
 */
#include "server.h"

#include <errno.h>
#include <glib-unix.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#define CONNS_MAX	2048
#define READ_MAX	(256 * 1024)

struct IsdGateway {
	int		fd;
	guint		source;
	char		*path;
	uid_t		uid;
	IsdGatewayFunc	func;
	gpointer	data;
	GPtrArray	*conns;
};

typedef struct {
	IsdGateway	*g;
	int		fd;
	guint		source, timer;
	GByteArray	*in, *out;
	gboolean	waiting;
	guint64		after;
} Conn;

static void conn_free(Conn *c)
{
	if (c->source)
		g_source_remove(c->source);
	if (c->timer)
		g_source_remove(c->timer);
	g_byte_array_unref(c->in);
	g_byte_array_unref(c->out);
	close(c->fd);
	g_free(c);
}

static void drop(Conn *c)
{
	g_ptr_array_remove_fast(c->g->conns, c);
}

static gboolean conn_ready(gint fd, GIOCondition cond, gpointer data);

static void watch(Conn *c)
{
	GIOCondition cond = c->out->len ? G_IO_OUT : G_IO_IN;

	if (c->source)
		g_source_remove(c->source);
	c->source = g_unix_fd_add(c->fd, cond, conn_ready, c);
}

/* FALSE: the other end has gone. */
static gboolean flush(Conn *c)
{
	while (c->out->len) {
		ssize_t n = send(c->fd, c->out->data, c->out->len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			return FALSE;
		g_byte_array_remove_range(c->out, 0, n);
	}
	watch(c);
	return TRUE;
}

static void answer(Conn *c, guint reply_to, guint ask, const guint8 *body, gsize len)
{
	struct gate_head h = { .type = reply_to };
	guint at = c->out->len;
	guint status;

	g_byte_array_append(c->out, (guint8 *) &h, sizeof(h));
	status = c->g->func(ask, body, len, c->out, c->g->data);
	if (!status) {
		g_byte_array_set_size(c->out, at);
		return;
	}
	h.status = status;
	h.len = c->out->len - at - sizeof(h);
	memcpy(c->out->data + at, &h, sizeof(h));
}

static gboolean wait_over(gpointer data);

static void stop_waiting(Conn *c)
{
	c->waiting = FALSE;
	if (c->timer)
		g_source_remove(c->timer);
	c->timer = 0;
	answer(c, GATE_WAIT, GATE_INFO, NULL, 0);
}

static guint64 visible_end(IsdGateway *g)
{
	g_autoptr(GByteArray) reply = g_byte_array_new();
	struct gate_info info;

	if (g->func(GATE_INFO, NULL, 0, reply, g->data) != 200 || reply->len != sizeof(info))
		return 0;
	memcpy(&info, reply->data, sizeof(info));
	return info.end_offset;
}

static gboolean begin_waiting(Conn *c, const guint8 *body, gsize len)
{
	struct gate_wait w;

	if (len != sizeof(w))
		return FALSE;
	memcpy(&w, body, sizeof(w));
	if (w.seconds > GATE_WAIT_MAX)
		return FALSE;
	c->after = w.after;
	c->waiting = TRUE;
	if (visible_end(c->g) > w.after || !w.seconds)
		stop_waiting(c);
	else
		c->timer = g_timeout_add(w.seconds * 1000, wait_over, c);
	return TRUE;
}

/* One message, if it is whole.  1: served, 0: not whole, -1: nonsense. */
static int serve_one(Conn *c)
{
	struct gate_head h;
	const guint8 *body = c->in->data + sizeof(h);

	if (c->waiting || c->in->len < sizeof(h))
		return 0;
	memcpy(&h, c->in->data, sizeof(h));
	if (h.len > GATE_BODY_MAX || h.status)
		return -1;
	if (c->in->len < sizeof(h) + h.len)
		return 0;
	if (h.type != GATE_WAIT)
		answer(c, h.type, h.type, body, h.len);
	else if (!begin_waiting(c, body, h.len))
		return -1;
	g_byte_array_remove_range(c->in, 0, sizeof(h) + h.len);
	return 1;
}

/* FALSE: the connection is at its end. */
static gboolean serve(Conn *c)
{
	int rc;

	do
		rc = serve_one(c);
	while (rc > 0);
	return rc == 0 && flush(c);
}

static gboolean wait_over(gpointer data)
{
	Conn *c = data;

	c->timer = 0;
	stop_waiting(c);
	if (!serve(c))
		drop(c);
	return G_SOURCE_REMOVE;
}

static gboolean fill(Conn *c)
{
	guint at = c->in->len;
	ssize_t n;

	if (at > sizeof(struct gate_head) + GATE_BODY_MAX)
		return FALSE;
	g_byte_array_set_size(c->in, at + READ_MAX);
	do
		n = recv(c->fd, c->in->data + at, READ_MAX, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	g_byte_array_set_size(c->in, at + MAX(n, 0));
	return n > 0 || (n < 0 && errno == EAGAIN);
}

static gboolean conn_ready(gint fd, GIOCondition cond, gpointer data)
{
	Conn *c = data;
	gboolean ok;

	c->source = 0;
	ok = cond & G_IO_OUT ? flush(c) : fill(c) && serve(c);
	if (!ok)
		drop(c);
	return G_SOURCE_REMOVE;
}

/* Root and httpd's workers. */
static gboolean may_ask(IsdGateway *g, int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) &&
	       (cred.uid == 0 || cred.uid == g->uid);
}

static gboolean new_conn(gint listener, GIOCondition cond, gpointer data)
{
	IsdGateway *g = data;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	Conn *c;

	if (fd < 0)
		return G_SOURCE_CONTINUE;
	if (g->conns->len >= CONNS_MAX || !may_ask(g, fd)) {
		close(fd);
		return G_SOURCE_CONTINUE;
	}
	c = g_new0(Conn, 1);
	c->g = g;
	c->fd = fd;
	c->in = g_byte_array_new();
	c->out = g_byte_array_new();
	g_ptr_array_add(g->conns, c);
	watch(c);
	return G_SOURCE_CONTINUE;
}

static gboolean path_error(const char *path, GError **error)
{
	g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED, "%s: %s", path, g_strerror(errno));
	return FALSE;
}

static gboolean start_listening(IsdGateway *g, GError **error)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	if (g_strlcpy(a.sun_path, g->path, sizeof(a.sun_path)) >= sizeof(a.sun_path)) {
		errno = ENAMETOOLONG;
		return path_error(g->path, error);
	}
	unlink(g->path);
	g->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (g->fd < 0 || bind(g->fd, (struct sockaddr *) &a, sizeof(a)) ||
	    chmod(g->path, 0600) || chown(g->path, g->uid, -1) || listen(g->fd, 128))
		return path_error(g->path, error);
	g->source = g_unix_fd_add(g->fd, G_IO_IN, new_conn, g);
	return TRUE;
}

IsdGateway *isd_gateway_new(const char *path, uid_t uid, IsdGatewayFunc func, gpointer data,
			    GError **error)
{
	IsdGateway *g = g_new0(IsdGateway, 1);

	g->fd = -1;
	g->path = g_strdup(path);
	g->uid = uid;
	g->func = func;
	g->data = data;
	g->conns = g_ptr_array_new_with_free_func((GDestroyNotify) conn_free);
	if (start_listening(g, error))
		return g;
	isd_gateway_free(g);
	return NULL;
}

void isd_gateway_free(IsdGateway *g)
{
	if (!g)
		return;
	g_ptr_array_unref(g->conns);
	if (g->source) {
		g_source_remove(g->source);
		unlink(g->path);
	}
	if (g->fd >= 0)
		close(g->fd);
	g_free(g->path);
	g_free(g);
}

void isd_gateway_moved(IsdGateway *g, guint64 end)
{
	for (guint i = g->conns->len; i-- > 0;) {
		Conn *c = g->conns->pdata[i];

		if (!c->waiting || c->after >= end)
			continue;
		stop_waiting(c);
		if (!serve(c))
			drop(c);
	}
}
