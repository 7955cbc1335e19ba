/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * HTTP requests within the main loop.  Hides libcurl's multi-socket interface: one
 * GLib source per socket and one timer, a queue in front of a few transfers that
 * run at a time, connections kept between them.  Used by the client role.
 *
 * Errors are ISD_ERROR codes: what a retry may heal is NETWORK, and the
 * statuses of doc/protocol.md have their own.
 */
#include "fetch.h"

#include <errno.h>
#include <string.h>

#include <glib-unix.h>

#include "core.h"
#include "util.h"

#define FETCH_ACTIVE_MAX	6	/* transfers at a time, the long poll not counted */
#define FETCH_CONNECT_TIMEOUT	10	/* seconds */
#define FETCH_STALL_TIMEOUT	30	/* seconds below FETCH_STALL_SPEED */
#define FETCH_STALL_SPEED	16	/* bytes a second */
#define FETCH_BUFFER		(256 * 1024)
#define FETCH_ERROR_BODY_MAX	4096
#define FETCH_BODY_MAX		(64 * 1024 * 1024)

struct IsdFetcher {
	CURLM		*multi;
	char		*base;
	IsdFetchHeaders	headers;
	gpointer	headers_data;
	guint		timer;
	guint		active;
	GQueue		waiting;	/* IsdRequest, not yet given to libcurl */
	GHashTable	*all;		/* IsdRequest: waiting or running */
	gboolean	in_data;	/* libcurl is on the stack and takes no new transfer */
};

struct IsdRequest {
	IsdFetcher	*f;
	IsdFetchSpec	spec;
	CURL		*easy;
	struct curl_slist *headers;
	GHashTable	*answer;	/* header lines, names in lower case */
	GByteArray	*body;
	guint64		sent;
	guint		status;
	GError		*error;		/* of on_data or of reading the file */
	char		message[CURL_ERROR_SIZE];
	gboolean	running;
	gboolean	ended;		/* its callback runs */
};

typedef struct {
	IsdFetcher	*f;
	guint		source;
} FetchSocket;

static void fetch_free(IsdRequest *r)
{
	if (r->easy)
		curl_easy_cleanup(r->easy);
	curl_slist_free_all(r->headers);
	g_hash_table_unref(r->answer);
	g_clear_pointer(&r->body, g_byte_array_unref);
	g_clear_pointer(&r->spec.body, g_bytes_unref);
	g_clear_error(&r->error);
	g_free(r->spec.path);
	g_free(r);
}

/* --- what libcurl calls for a transfer --- */

static guint fetch_now_status(IsdRequest *r)
{
	long status = 0;

	curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
	return (guint)status;
}

static gboolean fetch_take(IsdRequest *r, const char *buf, gsize len)
{
	gboolean good = r->status / 100 == 2;
	gsize max = good ? FETCH_BODY_MAX : FETCH_ERROR_BODY_MAX;

	if (good && r->spec.on_data) {
		gboolean ok;

		r->f->in_data = TRUE;
		ok = r->spec.on_data(r, buf, len, r->spec.data, &r->error);
		r->f->in_data = FALSE;
		return ok;
	}
	if (r->body->len + len > max) {
		if (good)
			g_set_error(&r->error, ISD_ERROR, ISD_ERROR_PROTOCOL,
				    "the answer is longer than %d bytes", FETCH_BODY_MAX);
		return !good;
	}
	g_byte_array_append(r->body, (const guint8 *)buf, len);
	return TRUE;
}

static size_t fetch_on_write(char *buf, size_t size, size_t n, void *data)
{
	IsdRequest *r = data;

	r->status = fetch_now_status(r);
	return fetch_take(r, buf, size * n) ? size * n : 0;
}

static size_t fetch_on_header(char *line, size_t size, size_t n, void *data)
{
	IsdRequest *r = data;
	gsize len = size * n;
	const char *colon = memchr(line, ':', len);
	char *value;

	/* the lines of an interim answer (100) are not those of the answer */
	if (len > 5 && !memcmp(line, "HTTP/", 5))
		g_hash_table_remove_all(r->answer);
	if (!colon)
		return len;
	value = g_strndup(colon + 1, len - (colon + 1 - line));
	g_hash_table_replace(r->answer, g_ascii_strdown(line, colon - line), g_strstrip(value));
	return len;
}

static size_t fetch_read_bytes(IsdRequest *r, char *buf, gsize max)
{
	gsize len;
	const char *p = g_bytes_get_data(r->spec.body, &len);
	gsize n = MIN(max, len - r->sent);

	if (n)
		memcpy(buf, p + r->sent, n);
	r->sent += n;
	return n;
}

static size_t fetch_on_read(char *buf, size_t size, size_t n, void *data)
{
	IsdRequest *r = data;
	gsize max = size * n;
	int err;

	if (r->spec.body)
		return fetch_read_bytes(r, buf, max);
	max = MIN(max, r->spec.len - r->sent);
	if (!max)
		return 0;
	err = pread_all(r->spec.fd, buf, max, r->spec.off + r->sent);
	if (err) {
		g_set_error(&r->error, ISD_ERROR, ISD_ERROR_BUSY,
			    "reading what is to be sent: %s", g_strerror(-err));
		return CURL_READFUNC_ABORT;
	}
	r->sent += max;
	return max;
}

/* A kept connection that turns out to be dead makes libcurl send again. */
static int fetch_on_seek(void *data, curl_off_t offset, int origin)
{
	IsdRequest *r = data;

	if (origin != SEEK_SET)
		return CURL_SEEKFUNC_CANTSEEK;
	r->sent = offset;
	return CURL_SEEKFUNC_OK;
}

/* --- the end of a transfer --- */

static GError *fetch_error(IsdRequest *r, CURLcode result)
{
	if (r->error)
		return g_steal_pointer(&r->error);
	if (result != CURLE_OK)
		return g_error_new(ISD_ERROR, ISD_ERROR_NETWORK, "%s",
				   *r->message ? r->message : curl_easy_strerror(result));
	return isd_fetch_refused(r->status, r->body);
}

static void fetch_stop_running(IsdRequest *r)
{
	if (!r->running)
		return;
	r->running = FALSE;
	curl_multi_remove_handle(r->f->multi, r->easy);
	if (!r->spec.now)
		r->f->active--;
}

static void fetch_end(IsdRequest *r, CURLcode result)
{
	g_autoptr(GError) error = NULL;

	r->status = fetch_now_status(r);
	error = fetch_error(r, result);
	fetch_stop_running(r);
	g_hash_table_remove(r->f->all, r);
	r->ended = TRUE;
	isd_debug(ISD_D_HTTP, "%s %s: %u%s%s", r->spec.method, r->spec.path, r->status,
		  error ? ": " : "", error ? error->message : "");
	r->spec.done(r, error, r->spec.data);
	fetch_free(r);
}

/* --- the queue --- */

static void fetch_set_upload(IsdRequest *r)
{
	curl_off_t len = r->spec.body ? g_bytes_get_size(r->spec.body) : r->spec.len;

	if (!strcmp(r->spec.method, "POST")) {
		curl_easy_setopt(r->easy, CURLOPT_POST, 1L);
		curl_easy_setopt(r->easy, CURLOPT_POSTFIELDSIZE_LARGE, len);
	} else {
		curl_easy_setopt(r->easy, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(r->easy, CURLOPT_INFILESIZE_LARGE, len);
	}
	curl_easy_setopt(r->easy, CURLOPT_READFUNCTION, fetch_on_read);
	curl_easy_setopt(r->easy, CURLOPT_READDATA, r);
	curl_easy_setopt(r->easy, CURLOPT_SEEKFUNCTION, fetch_on_seek);
	curl_easy_setopt(r->easy, CURLOPT_SEEKDATA, r);
}

static void fetch_set_method(IsdRequest *r)
{
	const char *m = r->spec.method;

	if (!strcmp(m, "HEAD"))
		curl_easy_setopt(r->easy, CURLOPT_NOBODY, 1L);
	else if (!strcmp(m, "POST") || !strcmp(m, "PUT"))
		fetch_set_upload(r);
	else if (strcmp(m, "GET"))
		curl_easy_setopt(r->easy, CURLOPT_CUSTOMREQUEST, m);
}

static void fetch_set_limits(CURL *easy, guint timeout)
{
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long)FETCH_CONNECT_TIMEOUT);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)FETCH_BUFFER);
	curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, (long)FETCH_BUFFER);
	/* a proxy of the environment is not meant for this */
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	if (timeout) {
		curl_easy_setopt(easy, CURLOPT_TIMEOUT, (long)timeout);
		return;
	}
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, (long)FETCH_STALL_SPEED);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)FETCH_STALL_TIMEOUT);
}

static void fetch_set_up(IsdRequest *r)
{
	g_autofree char *url = g_strconcat(r->f->base, r->spec.path, NULL);

	r->easy = curl_easy_init();
	r->headers = r->f->headers(r->f->headers_data);
	r->headers = curl_slist_append(r->headers, "Expect:");
	r->headers = curl_slist_append(r->headers, "Content-Type: application/octet-stream");
	curl_easy_setopt(r->easy, CURLOPT_URL, url);
	curl_easy_setopt(r->easy, CURLOPT_PRIVATE, r);
	curl_easy_setopt(r->easy, CURLOPT_HTTPHEADER, r->headers);
	curl_easy_setopt(r->easy, CURLOPT_ERRORBUFFER, r->message);
	curl_easy_setopt(r->easy, CURLOPT_WRITEFUNCTION, fetch_on_write);
	curl_easy_setopt(r->easy, CURLOPT_WRITEDATA, r);
	curl_easy_setopt(r->easy, CURLOPT_HEADERFUNCTION, fetch_on_header);
	curl_easy_setopt(r->easy, CURLOPT_HEADERDATA, r);
	fetch_set_limits(r->easy, r->spec.timeout);
	fetch_set_method(r);
}

static void fetch_run(IsdRequest *r)
{
	fetch_set_up(r);
	r->running = TRUE;
	if (!r->spec.now)
		r->f->active++;
	curl_multi_add_handle(r->f->multi, r->easy);
}

static void fetch_run_waiting(IsdFetcher *f)
{
	while (!f->in_data && f->active < FETCH_ACTIVE_MAX && !g_queue_is_empty(&f->waiting))
		fetch_run(g_queue_pop_head(&f->waiting));
}

IsdRequest *isd_fetch(IsdFetcher *f, const IsdFetchSpec *spec)
{
	IsdRequest *r = g_new0(IsdRequest, 1);

	r->f = f;
	r->spec = *spec;
	if (spec->body)
		g_bytes_ref(spec->body);
	r->answer = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	r->body = g_byte_array_new();
	g_hash_table_add(f->all, r);
	if (spec->now && !f->in_data) {
		fetch_run(r);
	} else {
		g_queue_push_tail(&f->waiting, r);
		fetch_run_waiting(f);
	}
	return r;
}

void isd_fetch_cancel(IsdRequest *r)
{
	if (r->ended)
		return;
	g_queue_remove(&r->f->waiting, r);
	fetch_stop_running(r);
	g_hash_table_remove(r->f->all, r);
	fetch_free(r);
}

void isd_fetch_cancel_all(IsdFetcher *f)
{
	GHashTableIter it;
	gpointer r;

	g_hash_table_iter_init(&it, f->all);
	while (g_hash_table_iter_next(&it, &r, NULL)) {
		isd_fetch_cancel(r);
		g_hash_table_iter_init(&it, f->all);
	}
}

/* --- libcurl and the main loop --- */

static void fetch_collect_ended(IsdFetcher *f)
{
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(f->multi, &left))) {
		IsdRequest *r;
		CURLcode result = m->data.result;

		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&r);
		fetch_end(r, result);
	}
	fetch_run_waiting(f);
}

static void fetch_action(IsdFetcher *f, curl_socket_t fd, int mask)
{
	int running;

	curl_multi_socket_action(f->multi, fd, mask, &running);
	fetch_collect_ended(f);
}

static gboolean fetch_on_fd(gint fd, GIOCondition cond, gpointer data)
{
	FetchSocket *s = data;
	int mask = (cond & G_IO_IN ? CURL_CSELECT_IN : 0) |
		(cond & G_IO_OUT ? CURL_CSELECT_OUT : 0) |
		(cond & (G_IO_ERR | G_IO_HUP) ? CURL_CSELECT_ERR : 0);

	fetch_action(s->f, fd, mask);
	return G_SOURCE_CONTINUE;
}

static int fetch_on_socket(CURL *easy, curl_socket_t fd, int what, void *data, void *socket_data)
{
	IsdFetcher *f = data;
	FetchSocket *s = socket_data;
	GIOCondition cond = G_IO_ERR | G_IO_HUP;

	if (s && s->source)
		g_source_remove(s->source);
	if (what == CURL_POLL_REMOVE) {
		g_free(s);
		curl_multi_assign(f->multi, fd, NULL);
		return 0;
	}
	if (!s) {
		s = g_new0(FetchSocket, 1);
		s->f = f;
		curl_multi_assign(f->multi, fd, s);
	}
	if (what & CURL_POLL_IN)
		cond |= G_IO_IN;
	if (what & CURL_POLL_OUT)
		cond |= G_IO_OUT;
	s->source = g_unix_fd_add(fd, cond, fetch_on_fd, s);
	return 0;
}

static gboolean fetch_on_timer(gpointer data)
{
	IsdFetcher *f = data;

	f->timer = 0;
	fetch_action(f, CURL_SOCKET_TIMEOUT, 0);
	return G_SOURCE_REMOVE;
}

static int fetch_set_timer(CURLM *multi, long ms, void *data)
{
	IsdFetcher *f = data;

	g_clear_handle_id(&f->timer, g_source_remove);
	if (ms >= 0)
		f->timer = g_timeout_add(ms, fetch_on_timer, f);
	return 0;
}

IsdFetcher *isd_fetcher_new(const char *base, IsdFetchHeaders headers, gpointer data)
{
	IsdFetcher *f = g_new0(IsdFetcher, 1);

	curl_global_init(CURL_GLOBAL_ALL);
	f->base = g_strdup(base);
	f->headers = headers;
	f->headers_data = data;
	f->all = g_hash_table_new(NULL, NULL);
	g_queue_init(&f->waiting);
	f->multi = curl_multi_init();
	curl_multi_setopt(f->multi, CURLMOPT_SOCKETFUNCTION, fetch_on_socket);
	curl_multi_setopt(f->multi, CURLMOPT_SOCKETDATA, f);
	curl_multi_setopt(f->multi, CURLMOPT_TIMERFUNCTION, fetch_set_timer);
	curl_multi_setopt(f->multi, CURLMOPT_TIMERDATA, f);
	curl_multi_setopt(f->multi, CURLMOPT_MAXCONNECTS, (long)FETCH_ACTIVE_MAX + 2);
	return f;
}

void isd_fetcher_free(IsdFetcher *f)
{
	if (!f)
		return;
	isd_fetch_cancel_all(f);
	curl_multi_cleanup(f->multi);
	g_clear_handle_id(&f->timer, g_source_remove);
	g_hash_table_unref(f->all);
	g_free(f->base);
	g_free(f);
}

gboolean isd_fetch_wait(IsdFetcher *f, const char *path, guint timeout,
			GByteArray **ret_body, GError **error)
{
	IsdRequest *r = g_new0(IsdRequest, 1);
	CURLcode result;
	GError *e;

	r->f = f;
	r->spec.method = "GET";
	r->spec.path = g_strdup(path);
	r->spec.timeout = timeout;
	r->answer = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	r->body = g_byte_array_new();
	fetch_set_up(r);
	curl_easy_setopt(r->easy, CURLOPT_CONNECTTIMEOUT, (long)timeout);
	result = curl_easy_perform(r->easy);
	r->status = fetch_now_status(r);
	e = fetch_error(r, result);
	if (!e)
		*ret_body = g_steal_pointer(&r->body);
	fetch_free(r);
	if (e)
		g_propagate_error(error, e);
	return !e;
}

/* --- what the callbacks ask --- */

guint isd_fetch_status(const IsdRequest *r)
{
	return r->status;
}

const char *isd_fetch_header(const IsdRequest *r, const char *name)
{
	g_autofree char *lower = g_ascii_strdown(name, -1);

	return g_hash_table_lookup(r->answer, lower);
}

GByteArray *isd_fetch_body(IsdRequest *r)
{
	return r->body;
}

GByteArray *isd_fetch_steal_body(IsdRequest *r)
{
	return g_steal_pointer(&r->body);
}
