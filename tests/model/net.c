// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The simulated network, in place of intersync/fetch.c: requests take a while,
 * come in any order, and are lost on the way there or back, or in the middle, as the
 * history says.  What is asked is answered by serve.c.
 */
#include "sim.h"

#include <string.h>

#include "fetch.h"
#include "util.h"

#define LATENCY_US	5000	/* at most, each way */
#define REFUSED_US	1000	/* until nobody answers */

struct IsdFetcher {
	struct host	*h;
	IsdFetchHeaders	headers;
	gpointer	headers_data;
	GPtrArray	*all;		/* IsdRequest that somebody waits for */
};

typedef enum { LOSE_NOT, LOSE_REQUEST, LOSE_ANSWER, LOSE_MIDDLE } Lose;

struct IsdRequest {
	IsdFetcher	*f;		/* NULL: nobody waits for the answer */
	struct host	*h;
	IsdFetchSpec	spec;
	GHashTable	*headers;
	GByteArray	*sent;
	Lose		lose;
	Answer		*answer;
	gsize		given;		/* of its body */
	guint		source, waits;
	gboolean	at_server, ended;
	GError		*error;
};

static GPtrArray *waiting;	/* IsdRequest: long polls at the server */

static void request_free(IsdRequest *r)
{
	if (waiting)
		g_ptr_array_remove(waiting, r);
	if (r->source)
		sim_cancel(r->source);
	if (r->waits)
		sim_cancel(r->waits);
	g_free(r->spec.path);
	g_clear_pointer(&r->headers, g_hash_table_unref);
	g_clear_pointer(&r->sent, g_byte_array_unref);
	g_clear_pointer(&r->answer, answer_free);
	g_clear_error(&r->error);
	g_free(r);
}

static void end(IsdRequest *r, GError *error)
{
	g_autoptr(GError) e = error;

	if (!r->f) {
		request_free(r);
		return;
	}
	g_ptr_array_remove(r->f->all, r);
	r->ended = TRUE;
	sim_trace(r->h, "%s %s: %u%s%s", r->spec.method, r->spec.path,
		  r->answer ? r->answer->status : 0, e ? " " : "", e ? e->message : "");
	r->spec.done(r, e, r->spec.data);
	request_free(r);
}

static GError *lost(const char *why)
{
	return g_error_new_literal(ISD_ERROR, ISD_ERROR_NETWORK, why);
}

static gboolean fail_later(gpointer data)
{
	IsdRequest *r = data;

	r->source = 0;
	end(r, lost("connection lost"));
	return G_SOURCE_REMOVE;
}

static void lose(IsdRequest *r)
{
	if (r->source)
		sim_cancel(r->source);
	r->source = sim_after(r->h, REFUSED_US, fail_later, r);
}

/* --- the way back --- */

static gboolean give(IsdRequest *r, gsize len)
{
	const guint8 *from = r->answer->body->data + r->given;

	r->given += len;
	if (!len || !r->spec.on_data || r->answer->status / 100 != 2)
		return TRUE;
	return r->spec.on_data(r, from, len, r->spec.data, &r->error);
}

static gboolean arrive_back(gpointer data)
{
	IsdRequest *r = data;
	gsize left = r->answer->body->len - r->given;
	gsize len = left > 1 && r->spec.on_data ? 1 + sim_random(left) : left;

	r->source = 0;
	if (r->lose == LOSE_MIDDLE)
		len /= 2;
	if (!give(r, len)) {
		end(r, g_steal_pointer(&r->error));
	} else if (r->lose == LOSE_MIDDLE || (len == left && r->answer->broken)) {
		end(r, lost("connection lost in the middle"));
	} else if (len < left) {
		r->source = sim_after(r->h, sim_random(LATENCY_US), arrive_back, r);
	} else {
		end(r, isd_fetch_refused(r->answer->status, r->answer->body));
	}
	return G_SOURCE_REMOVE;
}

static void send_back(IsdRequest *r)
{
	if (!r->f)
		request_free(r);
	else if (r->lose == LOSE_ANSWER)
		lose(r);
	else
		r->source = sim_after(r->h, sim_random(LATENCY_US), arrive_back, r);
}

/* --- at the server --- */

static Ask ask_of(const IsdRequest *r)
{
	gboolean cut = r->lose == LOSE_MIDDLE && r->sent->len;

	return (Ask) {
		.method = r->spec.method, .path = r->spec.path, .body = r->sent->data,
		.len = cut ? r->sent->len / 2 : r->sent->len, .cut = cut, .headers = r->headers,
	};
}

static void poll_over(IsdRequest *r)
{
	Ask ask = ask_of(r);

	g_ptr_array_remove(waiting, r);
	if (r->waits)
		sim_cancel(r->waits);
	r->waits = 0;
	sim_current = &sim_hosts[SERVER];
	serve_kml(&ask, r->answer);
	sim_current = NULL;
	send_back(r);
}

static gboolean poll_timeout(gpointer data)
{
	IsdRequest *r = data;

	r->waits = 0;
	poll_over(r);
	return G_SOURCE_REMOVE;
}

void net_moved(guint64 end)
{
	struct host *was = sim_current;

	for (guint i = 0; waiting && i < waiting->len; ) {
		IsdRequest *r = g_ptr_array_index(waiting, i);

		if (r->answer->after < end)
			poll_over(r);
		else
			i++;
	}
	sim_current = was;
}

static gboolean arrive(gpointer data)
{
	IsdRequest *r = data;
	Ask ask = ask_of(r);

	r->source = 0;
	if (r->f && (!sim_hosts[SERVER].core || r->lose == LOSE_REQUEST || !r->h->up)) {
		lose(r);
		return G_SOURCE_REMOVE;
	}
	if (!sim_hosts[SERVER].core) {
		request_free(r);
		return G_SOURCE_REMOVE;
	}
	r->answer = answer_new();
	r->at_server = TRUE;
	sim_current = &sim_hosts[SERVER];
	serve(&ask, r->answer);
	sim_current = NULL;
	r->at_server = FALSE;
	if (!r->answer->waits) {
		send_back(r);
		return G_SOURCE_REMOVE;
	}
	g_ptr_array_add(waiting, r);
	r->waits = sim_after(NULL, (gint64) r->answer->seconds * 1000000, poll_timeout, r);
	return G_SOURCE_REMOVE;
}

/* --- the way there --- */

static GHashTable *headers_of(IsdFetcher *f)
{
	GHashTable *t = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	struct curl_slist *list = f->headers(f->headers_data);

	for (struct curl_slist *l = list; l; l = l->next) {
		const char *colon = strchr(l->data, ':');

		g_hash_table_insert(t, g_ascii_strdown(l->data, colon - l->data),
				    g_strdup(colon + 2));
	}
	curl_slist_free_all(list);
	return t;
}

static GByteArray *body_of(const IsdFetchSpec *spec)
{
	GByteArray *b = g_byte_array_new();
	gsize len = 0;
	const guint8 *p = spec->body ? g_bytes_get_data(spec->body, &len) : NULL;

	if (p) {
		g_byte_array_append(b, p, len);
	} else if (spec->len) {
		g_byte_array_set_size(b, spec->len);
		if (pread_all(spec->fd, b->data, spec->len, spec->off))
			g_byte_array_set_size(b, 0);
	}
	return b;
}

static Lose chance_of(struct host *h, const IsdFetchSpec *spec)
{
	guint *left[] = { NULL, &h->lose_request, &h->lose_answer, &h->lose_middle };

	/* the long poll is for ever on its way: the others are lost */
	if (spec->now)
		return LOSE_NOT;
	for (Lose l = LOSE_REQUEST; l <= LOSE_MIDDLE; l++) {
		if (!*left[l])
			continue;
		--*left[l];
		return l;
	}
	return LOSE_NOT;
}

IsdRequest *isd_fetch(IsdFetcher *f, const IsdFetchSpec *spec)
{
	IsdRequest *r = g_new0(IsdRequest, 1);

	r->f = f;
	r->h = f->h;
	r->spec = *spec;
	r->headers = headers_of(f);
	r->sent = body_of(spec);
	r->lose = chance_of(f->h, spec);
	g_ptr_array_add(f->all, r);
	if (f->h->up)
		r->source = sim_after(NULL, sim_random(LATENCY_US), arrive, r);
	else
		lose(r);
	return r;
}

/* What is on its way may arrive all the same. */
void isd_fetch_cancel(IsdRequest *r)
{
	if (r->ended)
		return;
	g_ptr_array_remove(r->f->all, r);
	r->f = NULL;
	if (!r->at_server && (r->answer || !r->h->up || sim_random(2)))
		request_free(r);
}

void isd_fetch_cancel_all(IsdFetcher *f)
{
	while (f->all->len)
		isd_fetch_cancel(g_ptr_array_index(f->all, 0));
}

IsdFetcher *isd_fetcher_new(const char *base, IsdFetchHeaders headers, gpointer data)
{
	IsdFetcher *f = g_new0(IsdFetcher, 1);

	if (!waiting)
		waiting = g_ptr_array_new();
	f->h = sim_current;
	f->headers = headers;
	f->headers_data = data;
	f->all = g_ptr_array_new();
	f->h->fetcher = f;
	return f;
}

void isd_fetcher_free(IsdFetcher *f)
{
	if (!f)
		return;
	isd_fetch_cancel_all(f);
	f->h->fetcher = NULL;
	g_ptr_array_unref(f->all);
	g_free(f);
}

gboolean isd_fetch_wait(IsdFetcher *f, const char *path, guint timeout,
			GByteArray **ret_body, GError **error)
{
	struct host *was = sim_current;
	g_autoptr(GHashTable) headers = headers_of(f);
	Ask ask = { .method = "GET", .path = path, .headers = headers };
	Answer *a = answer_new();
	GError *e;

	if (f->h->up && sim_hosts[SERVER].core) {
		sim_current = &sim_hosts[SERVER];
		serve(&ask, a);
		sim_current = was;
		e = isd_fetch_refused(a->status, a->body);
	} else {
		e = lost("nobody answers");
	}
	if (!e)
		*ret_body = g_byte_array_ref(a->body);
	else
		g_propagate_error(error, e);
	answer_free(a);
	return !e;
}

/* --- machines and cables --- */

void net_down(struct host *h)
{
	GPtrArray *all = h->fetcher ? h->fetcher->all : NULL;

	h->up = FALSE;
	for (guint i = 0; all && i < all->len; i++) {
		IsdRequest *r = g_ptr_array_index(all, i);

		g_ptr_array_remove(waiting, r);
		lose(r);
	}
}

static void server_gone(void)
{
	for (guint n = 1; n < sim_n_hosts; n++) {
		GPtrArray *all = sim_hosts[n].fetcher ? sim_hosts[n].fetcher->all : NULL;

		for (guint i = 0; all && i < all->len; i++) {
			IsdRequest *r = g_ptr_array_index(all, i);

			/* what was asked and not answered yet */
			if (!r->at_server && !g_ptr_array_find(waiting, r, NULL))
				continue;
			r->at_server = FALSE;
			g_ptr_array_remove(waiting, r);
			lose(r);
		}
	}
}

void net_drop(struct host *h)
{
	if (h->index == SERVER)
		server_gone();
	else if (h->fetcher)
		isd_fetch_cancel_all(h->fetcher);
	h->fetcher = NULL;
}

/* --- what the callbacks ask --- */

guint isd_fetch_status(const IsdRequest *r)
{
	return r->answer ? r->answer->status : 0;
}

const char *isd_fetch_header(const IsdRequest *r, const char *name)
{
	g_autofree char *lower = g_ascii_strdown(name, -1);

	return r->answer ? g_hash_table_lookup(r->answer->headers, lower) : NULL;
}

GByteArray *isd_fetch_body(IsdRequest *r)
{
	return r->answer->body;
}

GByteArray *isd_fetch_steal_body(IsdRequest *r)
{
	return g_byte_array_ref(r->answer->body);
}
