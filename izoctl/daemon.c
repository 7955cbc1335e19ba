// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Talking to intersync: which fileset is mounted where, and one request over
 * its control socket.
 */
#include "izoctl.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <gio/gio.h>

#include <intermezzo/channel.h>

/* "/dev/intermezzo3", "/run/intermezzo/3/channel": the last number in it */
static int number_in(const char *path)
{
	const char *end = path + strlen(path);

	while (end > path && !g_ascii_isdigit(end[-1]))
		end--;
	if (end == path)
		return -1;
	while (end > path && g_ascii_isdigit(end[-1]))
		end--;
	return atoi(end);
}

int izoctl_minor(const char *dir, GError **error)
{
	char path[256];
	ssize_t n = getxattr(dir, IZO_XATTR_CHANNEL, path, sizeof(path) - 1);
	const char *why = "no InterMezzo file system is mounted there";

	if (n >= 0) {
		path[n] = '\0';
		if (number_in(path) >= 0)
			return number_in(path);
	} else if (geteuid() != 0) {
		why = "only root can look at it";
	} else if (errno != ENODATA && errno != ENOTSUP) {
		why = g_strerror(errno);
	}
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: %s", dir, why);
	return -1;
}

static int connect_to(int minor, GError **error)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), err;

	g_snprintf(sa.sun_path, sizeof(sa.sun_path), ISD_RUN_DIR "/%d/control", minor);
	if (fd >= 0 && connect(fd, (struct sockaddr *) &sa, sizeof(sa)) == 0)
		return fd;
	err = errno;
	if (fd >= 0)
		close(fd);
	if (err == ENOENT || err == ECONNREFUSED)
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
			    "intersync does not run for it");
	else
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: %s", sa.sun_path,
			    g_strerror(err));
	return -1;
}

static gboolean send_request(int fd, JsonObject *request, GError **error)
{
	g_autoptr(JsonNode) node = json_node_init_object(json_node_alloc(), request);
	g_autofree char *text = json_to_string(node, FALSE);
	g_autofree char *line = g_strconcat(text, "\n", NULL);
	size_t len = strlen(line);

	/* Shorter than any socket's buffer: it goes at once or not at all. */
	if (send(fd, line, len, MSG_NOSIGNAL) == (ssize_t) len)
		return TRUE;
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "intersync has just ended");
	return FALSE;
}

static JsonObject *parse_line(const char *line, gsize len)
{
	g_autoptr(JsonParser) parser = json_parser_new();
	JsonNode *root;

	if (!json_parser_load_from_data(parser, line, len, NULL))
		return NULL;
	root = json_parser_get_root(parser);
	if (!root || !JSON_NODE_HOLDS_OBJECT(root))
		return NULL;
	return json_object_ref(json_node_get_object(root));
}

/* Whole lines in buf go to each(); the one with "ok" is returned. */
static JsonObject *take_lines(GByteArray *buf, IzoctlLine each, gpointer data)
{
	const guint8 *end;

	while ((end = memchr(buf->data, '\n', buf->len))) {
		gsize len = end - buf->data + 1;
		g_autoptr(JsonObject) o = parse_line((const char *) buf->data, len);

		g_byte_array_remove_range(buf, 0, len);
		if (o && json_object_has_member(o, "ok"))
			return g_steal_pointer(&o);
		if (o && each)
			each(o, data);
	}
	return NULL;
}

/* More of the answer; FALSE at its end, on an error and when the time is over. */
static gboolean receive(int fd, GByteArray *buf, gint64 deadline, GError **error)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	gint64 left = deadline ? (deadline - g_get_monotonic_time()) / 1000 : -1;
	guint8 piece[8192];
	ssize_t n;

	if (deadline && left <= 0)
		left = 0;
	n = poll(&p, 1, left > G_MAXINT ? G_MAXINT : left);
	if (n < 0 && errno == EINTR)
		return TRUE;
	if (n == 0) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT, "the time is over");
		return FALSE;
	}
	n = recv(fd, piece, sizeof(piece), 0);
	if (n > 0) {
		g_byte_array_append(buf, piece, n);
		return TRUE;
	}
	if (n < 0 && errno == EINTR)
		return TRUE;
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "intersync has just ended");
	return FALSE;
}

JsonObject *izoctl_request(int minor, JsonObject *request, guint timeout, IzoctlLine each,
			   gpointer data, GError **error)
{
	gint64 deadline = timeout ? g_get_monotonic_time() + timeout * G_USEC_PER_SEC : 0;
	g_autoptr(GByteArray) buf = g_byte_array_new();
	JsonObject *last = NULL;
	int fd = connect_to(minor, error);

	if (fd < 0)
		return NULL;
	if (send_request(fd, request, error))
		while (!last && receive(fd, buf, deadline, error))
			last = take_lines(buf, each, data);
	close(fd);
	return last;
}

JsonObject *izoctl_ask(int minor, const char *cmd, guint timeout, IzoctlLine each,
		       gpointer data, GError **error)
{
	g_autoptr(JsonObject) request = json_object_new();

	json_object_set_string_member(request, "cmd", cmd);
	return izoctl_request(minor, request, timeout, each, data, error);
}
