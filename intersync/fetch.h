/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * HTTP requests within the main loop: a queue in front of libcurl's multi
 * interface, several at a time over kept connections.  Used by the client role
 * alone.
 */
#ifndef ISD_FETCH_H
#define ISD_FETCH_H

#include <curl/curl.h>
#include <gio/gio.h>

typedef struct IsdFetcher IsdFetcher;
typedef struct IsdRequest IsdRequest;

/* A piece of a 2xx answer's body.  FALSE breaks the request off with *error. */
typedef gboolean (*IsdFetchData)(IsdRequest *r, const void *buf, gsize len, gpointer data, GError **error);
/*
 * The end, exactly once unless the request was cancelled.  error is NULL after
 * a 2xx answer; r lives until the callback returns.
 */
typedef void (*IsdFetchDone)(IsdRequest *r, const GError *error, gpointer data);
/* The header lines that every request carries. */
typedef struct curl_slist *(*IsdFetchHeaders)(gpointer data);

typedef struct {
	const char	*method;	/* GET, HEAD, POST, PUT, DELETE */
	char		*path;		/* below the base, with the query; taken over */
	GBytes		*body;		/* POST, PUT; NULL: none; a reference is taken */
	int		fd;		/* PUT without body: send this file's bytes ... */
	guint64		off, len;	/* ... from off on, len of them; len 0: no body */
	guint		timeout;	/* seconds for all of it; 0: only while it moves */
	gboolean	now;		/* not behind the queue: the long poll */
	IsdFetchData	on_data;	/* NULL: collect the body */
	IsdFetchDone	done;
	gpointer	data;
} IsdFetchSpec;

/* base ends in '/'.  headers is called for each request. */
IsdFetcher *isd_fetcher_new(const char *base, IsdFetchHeaders headers, gpointer data);
/* Cancels what is left. */
void isd_fetcher_free(IsdFetcher *f);

IsdRequest *isd_fetch(IsdFetcher *f, const IsdFetchSpec *spec);
/* done is not called.  Not from within the request's own callbacks. */
void isd_fetch_cancel(IsdRequest *r);
void isd_fetch_cancel_all(IsdFetcher *f);

/* The first contact: waits at most `timeout` seconds; runs no main loop. */
gboolean isd_fetch_wait(IsdFetcher *f, const char *path, guint timeout,
			GByteArray **ret_body, GError **error);

/* Within the callbacks: */
guint isd_fetch_status(const IsdRequest *r);		/* HTTP status, 0: none */
const char *isd_fetch_header(const IsdRequest *r, const char *name);
GByteArray *isd_fetch_body(IsdRequest *r);		/* not to be kept */
GByteArray *isd_fetch_steal_body(IsdRequest *r);

/* fetch_error.c: the error that an answer stands for; NULL: none.  The caller's to free. */
GError *isd_fetch_refused(guint status, const GByteArray *body);

#endif
