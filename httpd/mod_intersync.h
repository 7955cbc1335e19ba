/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside mod_intersync: what its files share.  serve.h is the library below.
 */
#ifndef MOD_INTERSYNC_H
#define MOD_INTERSYNC_H

#include <httpd.h>
#include <http_config.h>
#include <http_core.h>
#include <http_log.h>
#include <http_protocol.h>
#include <http_request.h>
#include <ap_mmn.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include <util_filter.h>

#include "serve.h"

#if !AP_MODULE_MAGIC_AT_LEAST(20120211, 92)
#error "mod_intersync needs Apache httpd 2.4.41 or newer"
#endif

extern module AP_MODULE_DECLARE_DATA intersync_module;

/* What GET metrics tells about this httpd: in memory that its processes share. */
enum mis_kind {
	MIS_KML, MIS_DATA, MIS_BUNDLE, MIS_CATALOG, MIS_UPLOAD, MIS_REINT, MIS_OTHER, MIS_KINDS
};
struct mis_counters {
	uint64_t	requests[MIS_KINDS];
	uint64_t	bytes[MIS_KINDS];	/* of bodies, in the direction of the name */
	uint64_t	errors[MIS_KINDS];	/* answers with a status from 400 on */
	uint64_t	broken;			/* answers that were broken off */
};
extern struct mis_counters *mis_counters;

static inline void mis_count(uint64_t *counter, uint64_t n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

/* One request below /intersync/<fileset>/. */
struct mis_request {
	request_rec		*r;
	const struct mis_fileset *f;
	enum mis_kind		kind;
	const char		*rest;		/* of the path behind the resource, "" if none */
	apr_table_t		*args;		/* the query */
	const char		*peer;		/* uuid as text, NULL: not told */
	struct gate_peer	told;
};

/* resources.c: finds the resource and answers. */
int mis_answer(struct mis_request *q, const char *resource);

/* answer.c */
int mis_fail(struct mis_request *q, int status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* The status of the library, with the sentence that goes with it. */
int mis_fail_status(struct mis_request *q, int status);
/* Nobody may take what was sent for the whole answer. */
int mis_break_off(struct mis_request *q);
/* buf from malloc(); Content-Length and all. */
int mis_send(struct mis_request *q, const char *type, void *buf, size_t len);
int mis_send_text(struct mis_request *q, const char *type, const char *text);
/* text as a JSON string, with its quotes */
const char *mis_json_string(apr_pool_t *pool, const char *text);
/* A mis_sink; data is the request. */
int mis_sink_client(void *data, void *buf, size_t len);
/* Ends an answer that went through mis_sink_client(). */
int mis_finish(struct mis_request *q, int status);
/* A number of the query: 1 there, 0 absent, -1 nonsense. */
int mis_arg(struct mis_request *q, const char *key, uint64_t *ret);
bool mis_number(const char *text, uint64_t *ret);
/* The body, at most max bytes; 200 or a status. */
int mis_read_body(struct mis_request *q, size_t max, char **ret_buf, size_t *ret_len);
/* The body piece by piece; take() returns 200 or a status that ends it. */
typedef int (*mis_take)(void *data, const char *buf, size_t len);
int mis_each_body(struct mis_request *q, mis_take take, void *data);
int mis_client_socket(request_rec *r);

/* bucket.c: a part of a file that is read only while check() holds. */
typedef bool (*mis_check)(int fd, const void *data);
apr_bucket *mis_bucket_create(apr_bucket_alloc_t *list, int fd, uint64_t start, uint64_t len,
			      mis_check check, const void *data);

/* privilege.c: workers keep CAP_DAC_READ_SEARCH and nothing else. */
/* Does any of the servers from s on have a fileset? */
int mis_serves(server_rec *s);
void mis_privilege_hooks(apr_pool_t *pool);

#endif
