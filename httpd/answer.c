/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading requests and writing answers: queries, bodies, errors as JSON.
 */
#include "mod_intersync.h"

#include <apr_portable.h>
#include <http_connection.h>
#include <stdlib.h>

const char *mis_json_string(apr_pool_t *pool, const char *text)
{
	char *out = apr_palloc(pool, strlen(text) * 6 + 3), *p = out;

	*p++ = '"';
	for (; *text; text++) {
		unsigned char c = *text;

		if (c == '"' || c == '\\')
			*p++ = '\\';
		if (c < 0x20)
			p += sprintf(p, "\\u%04x", c);
		else
			*p++ = c;
	}
	*p++ = '"';
	*p = 0;
	return out;
}

int mis_fail(struct mis_request *q, int status, const char *format, ...)
{
	request_rec *r = q->r;
	const char *text;
	va_list ap;

	va_start(ap, format);
	text = apr_pvsprintf(r->pool, format, ap);
	va_end(ap);
	mis_count(&mis_counters->errors[q->kind], 1);
	r->status = status;
	if (status == 425)	/* httpd does not know it */
		r->status_line = "425 Too Early";
	if (status == HTTP_SERVICE_UNAVAILABLE)
		apr_table_setn(r->headers_out, "Retry-After", "1");
	text = apr_pstrcat(r->pool, "{\"error\": ", mis_json_string(r->pool, text), "}\n", NULL);
	return mis_send_text(q, "application/json", text);
}

int mis_fail_status(struct mis_request *q, int status)
{
	switch (status) {
	case HTTP_NOT_FOUND:
		return mis_fail(q, status, "there is no such object or version");
	case HTTP_CONFLICT:
		return mis_fail(q, status, "another request is using it");
	case HTTP_GONE:
		return mis_fail(q, status, "that is no longer there");
	case HTTP_REQUEST_ENTITY_TOO_LARGE:
		q->r->connection->keepalive = AP_CONN_CLOSE;
		return mis_fail(q, status, "the body is too large");
	case 425:
		return mis_fail(q, status, "the object is being changed: ask again later");
	case HTTP_SERVICE_UNAVAILABLE:
		return mis_fail(q, status, "intersync is not running");
	case HTTP_INSUFFICIENT_STORAGE:
		q->r->connection->keepalive = AP_CONN_CLOSE;
		return mis_fail(q, status, "no space on the server");
	case HTTP_BAD_REQUEST:
		return mis_fail(q, status, "malformed request");
	default:
		return mis_fail(q, status, "failed, see the log of the server");
	}
}

int mis_break_off(struct mis_request *q)
{
	mis_count(&mis_counters->broken, 1);
	q->r->connection->keepalive = AP_CONN_CLOSE;
	q->r->connection->aborted = 1;
	return OK;
}

static int pass(request_rec *r, apr_bucket *b)
{
	apr_bucket_brigade *bb = apr_brigade_create(r->pool, r->connection->bucket_alloc);
	apr_status_t rv;

	APR_BRIGADE_INSERT_TAIL(bb, b);
	rv = ap_pass_brigade(r->output_filters, bb);
	apr_brigade_destroy(bb);
	return rv != APR_SUCCESS || r->connection->aborted ? -1 : 0;
}

int mis_send(struct mis_request *q, const char *type, void *buf, size_t len)
{
	request_rec *r = q->r;

	ap_set_content_type(r, type);
	ap_set_content_length(r, len);
	if (r->status < 400)
		mis_count(&mis_counters->bytes[q->kind], len);
	pass(r, apr_bucket_heap_create(buf, len, free, r->connection->bucket_alloc));
	return OK;
}

int mis_send_text(struct mis_request *q, const char *type, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		return HTTP_INTERNAL_SERVER_ERROR;
	return mis_send(q, type, copy, strlen(copy));
}

int mis_sink_client(void *data, void *buf, size_t len)
{
	struct mis_request *q = data;
	apr_bucket_alloc_t *list = q->r->connection->bucket_alloc;

	mis_count(&mis_counters->bytes[q->kind], len);
	return pass(q->r, apr_bucket_heap_create(buf, len, free, list));
}

int mis_finish(struct mis_request *q, int status)
{
	if (status == HTTP_OK)
		return OK;
	return status == MIS_BROKEN ? mis_break_off(q) : mis_fail_status(q, status);
}

bool mis_number(const char *text, uint64_t *ret)
{
	char *end;

	if (!apr_isdigit(*text))
		return false;
	errno = 0;
	*ret = strtoull(text, &end, 10);
	return !errno && !*end;
}

int mis_arg(struct mis_request *q, const char *key, uint64_t *ret)
{
	const char *text = apr_table_get(q->args, key);

	if (!text)
		return 0;
	return mis_number(text, ret) && *ret <= INT64_MAX ? 1 : -1;
}

static int take_bucket(apr_bucket *b, mis_take take, void *data)
{
	const char *buf;
	apr_size_t len;

	if (APR_BUCKET_IS_METADATA(b))
		return HTTP_OK;
	if (apr_bucket_read(b, &buf, &len, APR_BLOCK_READ) != APR_SUCCESS)
		return HTTP_BAD_REQUEST;
	return len ? take(data, buf, len) : HTTP_OK;
}

int mis_each_body(struct mis_request *q, mis_take take, void *data)
{
	request_rec *r = q->r;
	apr_bucket_brigade *bb = apr_brigade_create(r->pool, r->connection->bucket_alloc);
	int status = HTTP_OK;
	bool end = false;

	while (!end && status == HTTP_OK) {
		apr_status_t rv = ap_get_brigade(r->input_filters, bb, AP_MODE_READBYTES,
						 APR_BLOCK_READ, MIS_CHUNK);
		apr_bucket *b;

		if (rv != APR_SUCCESS) {
			status = ap_map_http_request_error(rv, HTTP_BAD_REQUEST);
			break;
		}
		while (status == HTTP_OK && !APR_BRIGADE_EMPTY(bb)) {
			b = APR_BRIGADE_FIRST(bb);
			end = end || APR_BUCKET_IS_EOS(b);
			status = take_bucket(b, take, data);
			apr_bucket_delete(b);
		}
		apr_brigade_cleanup(bb);
	}
	if (status != HTTP_OK)	/* what is left of the body is not worth reading */
		r->connection->keepalive = AP_CONN_CLOSE;
	return status;
}

struct collect {
	char	*buf;
	size_t	len, size, max;
};

static int collect(void *data, const char *buf, size_t len)
{
	struct collect *c = data;

	if (len > c->max - c->len)
		return HTTP_REQUEST_ENTITY_TOO_LARGE;
	if (c->len + len > c->size) {
		size_t size = c->size * 2 > c->len + len ? c->size * 2 : c->len + len;
		char *bigger = realloc(c->buf, size);

		if (!bigger)
			return HTTP_INTERNAL_SERVER_ERROR;
		c->buf = bigger;
		c->size = size;
	}
	memcpy(c->buf + c->len, buf, len);
	c->len += len;
	return HTTP_OK;
}

int mis_read_body(struct mis_request *q, size_t max, char **ret_buf, size_t *ret_len)
{
	struct collect c = { .max = max };
	int status;

	status = mis_each_body(q, collect, &c);
	if (status != HTTP_OK) {
		free(c.buf);
		return status;
	}
	*ret_buf = c.buf;
	*ret_len = c.len;
	return HTTP_OK;
}

int mis_client_socket(request_rec *r)
{
	apr_socket_t *sock = ap_get_conn_socket(r->connection);
	int fd;

	if (!sock || apr_os_sock_get(&fd, sock) != APR_SUCCESS)
		return -1;
	return fd;
}
