/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The resources of a fileset; doc/protocol.md says what each does.
 */
#include "mod_intersync.h"

#include <endian.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "util.h"

#define WRITE_BACK_FROM	(8 << 20)	/* smaller uploads wait in memory as other files do */
#define OCTETS		"application/octet-stream"
#define KML_MAX_DEFAULT	(1 << 20)
#define KML_MAX		(8 << 20)
#define WHERE_MAX	(4 << 20)	/* bytes of questions */

/* Who asks, for `izoctl peers`; not for every file that is fetched. */
static void tell_peer(struct mis_request *q)
{
	if (q->peer)
		gate_tell(q->f->gate, GATE_PEER, &q->told, sizeof(q->told));
}

static int get_info(struct mis_request *q, const struct gate_wait *wait, struct gate_info *info)
{
	int client = wait ? mis_client_socket(q->r) : -1;

	return gate_info(q->f->gate, wait, client, info);
}

/* NULL: the error log says why. */
static struct mis_reader *get_reader(struct mis_request *q)
{
	char why[256];
	struct mis_reader *reader = mis_reader_get(q->f, why, sizeof(why));

	if (!reader)
		ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, q->r, "intersync: %s", why);
	return reader;
}

/*
 * Is it not the log that the client has followed up to there?  After a server was set back
 * (a backup, a power cut) its numbers are used again, for other records.
 */
static bool is_other_log(struct mis_request *q, uint64_t after, uint64_t crc)
{
	uint32_t is = 0;
	int status = mis_kml_sum(q->f, after, &is);

	return status == HTTP_NOT_FOUND || (status == HTTP_OK && is != crc);
}

/* True, and answered, if the client's position (InterSync-Position) with crc=CRC is another log's. */
static bool refuse_other_log(struct mis_request *q, int *ret_status)
{
	uint64_t crc;

	if (mis_arg(q, "crc", &crc) != 1 || !is_other_log(q, q->told.offset, crc))
		return false;
	*ret_status = mis_fail(q, HTTP_CONFLICT, "the record that ends at %" PRIu64
			       " is another one than it was", q->told.offset);
	return true;
}

static int answer_profile(struct mis_request *q)
{
	char fileset[UUID_TEXT], replica[UUID_TEXT];
	struct gate_info info;
	int status;

	tell_peer(q);
	status = get_info(q, NULL, &info);
	if (status != HTTP_OK)
		return mis_fail_status(q, status);
	uuid_format(info.fileset_uuid, fileset);
	uuid_format(info.replica_uuid, replica);
	return mis_send_text(q, "application/json", apr_psprintf(q->r->pool,
		"{\"fileset\": \"%s\", \"fileset_uuid\": \"%s\", \"replica_uuid\": \"%s\", "
		"\"epoch\": %" PRIu64 ", \"protocol\": [1], \"first_offset\": %" PRIu64 ", "
		"\"end_offset\": %" PRIu64 ", \"last_recno\": %" PRIu64 ", "
		"\"name\": %s, \"time\": %" APR_TIME_T_FMT "}\n",
		q->f->name, fileset, replica, info.epoch, info.first_offset,
		info.end_offset, info.last_recno, mis_json_string(q->r->pool, info.name),
		apr_time_sec(q->r->request_time)));
}

/* fd and stamp of an open version; in the request's pool */
struct open_file {
	int			fd;
	struct mis_stamp	stamp;
};

static apr_status_t close_file(void *data)
{
	struct open_file *o = data;

	close(o->fd);
	return APR_SUCCESS;
}

static struct open_file *new_file(struct mis_request *q, int fd)
{
	struct open_file *o = apr_pcalloc(q->r->pool, sizeof(*o));

	o->fd = fd;
	apr_pool_cleanup_register(q->r->pool, o, close_file, apr_pool_cleanup_null);
	return o;
}

/*
 * Hand a part of a file to httpd, whose filters do ranges.  Buckets of at most
 * 1 GiB: their length is a size_t.
 */
static int send_file(struct mis_request *q, int fd, uint64_t start, uint64_t len,
		     mis_check check, const void *data)
{
	request_rec *r = q->r;
	apr_bucket_alloc_t *list = r->connection->bucket_alloc;
	apr_bucket_brigade *bb = apr_brigade_create(r->pool, list);
	const uint64_t piece = 1 << 30;

	ap_set_content_type(r, OCTETS);
	ap_set_accept_ranges(r);
	ap_set_content_length(r, len);
	while (len) {
		uint64_t n = len < piece ? len : piece;

		APR_BRIGADE_INSERT_TAIL(bb, mis_bucket_create(list, fd, start, n, check, data));
		start += n;
		len -= n;
	}
	APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_eos_create(list));
	if (ap_pass_brigade(r->output_filters, bb) != APR_SUCCESS)
		return r->status >= 400 ? OK : mis_break_off(q);	/* 416 is out already */
	mis_count(&mis_counters->bytes[q->kind], r->bytes_sent);
	return OK;
}

/* The front of the log may be given back while it is sent. */
static bool front_kept(int fd, const void *data)
{
	const uint64_t *first = data;
	struct kml_header h;

	return !pread_all(fd, &h, sizeof(h), 0) && le64toh(h.first_offset) <= *first;
}

static int kml_file(struct mis_request *q, const struct gate_info *info)
{
	int fd = openat(q->f->meta_fd, "kml", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	uint64_t *first;

	if (fd < 0)
		return mis_fail_status(q, HTTP_INTERNAL_SERVER_ERROR);
	new_file(q, fd);
	first = apr_pmemdup(q->r->pool, &info->first_offset, sizeof(*first));
	return send_file(q, fd, *first, info->end_offset - *first, front_kept, first);
}

static int kml_nothing(struct mis_request *q)
{
	q->r->status = HTTP_NO_CONTENT;
	return OK;
}

static void set_end(struct mis_request *q, const struct gate_info *info)
{
	apr_table_setn(q->r->headers_out, "InterSync-End",
		       apr_psprintf(q->r->pool, "%" PRIu64 " %" PRIu64, info->end_offset,
				    info->last_recno));
}

static int kml_records(struct mis_request *q, const struct gate_info *info, uint64_t after,
		       uint64_t max)
{
	void *buf;
	size_t len;
	int status;

	set_end(q, info);
	if (after < info->first_offset)
		return mis_fail(q, HTTP_GONE, "the log begins at %" PRIu64, info->first_offset);
	if (after > info->log_end)
		return mis_fail(q, HTTP_CONFLICT, "the log ends at %" PRIu64
				": it is not the one this position belongs to", info->log_end);
	if (after >= info->end_offset)
		return kml_nothing(q);
	status = mis_kml_read(q->f, after, info->end_offset, max, &buf, &len);
	if (status == HTTP_BAD_REQUEST)
		return mis_fail(q, status, "no record begins at %" PRIu64, after);
	if (status != HTTP_OK)
		return mis_fail_status(q, status);
	apr_table_setn(q->r->headers_out, "InterSync-Next",
		       apr_psprintf(q->r->pool, "%" PRIu64, after + len));
	return mis_send(q, OCTETS, buf, len);
}

static int answer_kml(struct mis_request *q)
{
	struct gate_wait wait = { 0 };
	uint64_t max = KML_MAX_DEFAULT, crc = 0;
	struct gate_info info;
	int status, has_after, has_crc;

	q->kind = MIS_KML;
	has_after = mis_arg(q, "after", &wait.after);
	has_crc = mis_arg(q, "crc", &crc);
	if (has_after < 0 || mis_arg(q, "wait", &wait.seconds) < 0 ||
	    mis_arg(q, "max", &max) < 0 || has_crc < 0)
		return mis_fail(q, HTTP_BAD_REQUEST, "after, wait, max and crc are numbers");
	if (wait.seconds > GATE_WAIT_MAX)
		wait.seconds = GATE_WAIT_MAX;
	if (max > KML_MAX)
		max = KML_MAX;
	tell_peer(q);
	if (has_after && has_crc && is_other_log(q, wait.after, crc))
		return mis_fail(q, HTTP_CONFLICT, "the record that ends at %" PRIu64
				" is another one than it was", wait.after);
	status = get_info(q, has_after && wait.seconds ? &wait : NULL, &info);
	if (!status)	/* the client did not wait */
		return mis_break_off(q);
	if (status != HTTP_OK)
		return mis_fail_status(q, status);
	return has_after ? kml_records(q, &info, wait.after, max) : kml_file(q, &info);
}

/* A reader, and the header that says at which position it reads. */
static int get_reader_at(struct mis_request *q, struct mis_reader **ret)
{
	struct mis_reader *r = get_reader(q);
	uint64_t offset, recno;
	uint32_t crc;

	if (!r)
		return HTTP_SERVICE_UNAVAILABLE;
	if (!mis_reader_position(r, &offset, &recno)) {
		mis_reader_put(q->f, r);
		return HTTP_INTERNAL_SERVER_ERROR;
	}
	apr_table_setn(q->r->headers_out, "InterSync-Position",
		       mis_kml_sum(q->f, offset, &crc) == HTTP_OK ?
		       apr_psprintf(q->r->pool, "%" PRIu64 " %" PRIu64 " %" PRIu32, offset,
				    recno, crc) :
		       apr_psprintf(q->r->pool, "%" PRIu64 " %" PRIu64, offset, recno));
	ap_set_content_type(q->r, OCTETS);
	*ret = r;
	return HTTP_OK;
}

static int answer_catalog(struct mis_request *q)
{
	struct mis_reader *r;
	int status;

	q->kind = MIS_CATALOG;
	tell_peer(q);
	status = get_reader_at(q, &r);
	if (status != HTTP_OK)
		return mis_fail_status(q, status);
	status = q->r->header_only ? HTTP_OK : mis_catalog(q->f, r, mis_sink_client, q);
	mis_reader_put(q->f, r);
	return mis_finish(q, status);
}

/* "INO.GEN/VERSION" */
static bool parse_object(struct mis_request *q, struct kml_oid *ret_oid, uint64_t *ret_version)
{
	char *text = apr_pstrdup(q->r->pool, q->rest);
	char *dot = strchr(text, '.'), *slash = strchr(text, '/');
	uint64_t gen;

	if (!dot || !slash || dot > slash)
		return false;
	*dot++ = 0;
	*slash++ = 0;
	if (!mis_number(text, &ret_oid->ino) || !mis_number(dot, &gen) || gen > UINT32_MAX)
		return false;
	ret_oid->gen = gen;
	return mis_number(slash, ret_version);
}

static bool still_version(int fd, const void *data)
{
	return mis_unchanged(fd, data);
}

static int send_sparse(struct mis_request *q, struct open_file *o, const char *text)
{
	struct mis_range *ranges = NULL;
	size_t n = 0;
	int status;

	if (*text && !mis_ranges_parse(text, &ranges, &n))
		return mis_fail(q, HTTP_BAD_REQUEST, "sparse: expected START-END,START-END...");
	ap_set_content_type(q->r, OCTETS);
	status = q->r->header_only ? HTTP_OK :
		 mis_sparse(o->fd, &o->stamp, ranges, n, mis_sink_client, q);
	free(ranges);
	return mis_finish(q, status);
}

static int send_plain(struct mis_request *q, struct open_file *o)
{
	request_rec *r = q->r;
	int status;

	apr_table_setn(r->headers_out, "Cache-Control", "max-age=31536000, immutable");
	status = ap_meets_conditions(r);
	if (status != OK)
		return status;
	return send_file(q, o->fd, 0, o->stamp.size, still_version, &o->stamp);
}

/* What a copy takes, for a client that has little space. */
static void tell_allocated(struct mis_request *q, int fd)
{
	struct stat st;

	if (!fstat(fd, &st))
		apr_table_setn(q->r->headers_out, "InterSync-Allocated",
			       apr_psprintf(q->r->pool, "%" PRIu64,
					    (uint64_t) st.st_blocks * 512));
}

static int answer_data(struct mis_request *q)
{
	struct mis_reader *reader;
	struct mis_stamp stamp;
	struct open_file *o;
	struct kml_oid oid;
	uint64_t version;
	const char *ranges;
	int status, fd;

	q->kind = MIS_DATA;
	if (!parse_object(q, &oid, &version))
		return mis_fail(q, HTTP_NOT_FOUND, "expected data/INO.GEN/VERSION");
	reader = get_reader(q);
	if (!reader)
		return mis_fail_status(q, HTTP_SERVICE_UNAVAILABLE);
	status = mis_object_open(q->f, reader, oid, version, &fd, &stamp);
	mis_reader_put(q->f, reader);
	if (status != HTTP_OK)
		return mis_fail_status(q, status);
	o = new_file(q, fd);
	o->stamp = stamp;
	tell_allocated(q, fd);
	ranges = apr_table_get(q->args, "sparse");
	apr_table_setn(q->r->headers_out, "ETag",
		       apr_psprintf(q->r->pool, "\"%" PRIu64 ".%" PRIu32 "-%" PRIu64 "%s\"",
				    oid.ino, oid.gen, version, ranges ? "-sparse" : ""));
	return ranges ? send_sparse(q, o, ranges) : send_plain(q, o);
}

static int answer_bundle(struct mis_request *q)
{
	struct mis_reader *reader;
	char *req;
	size_t len;
	int status;

	q->kind = MIS_BUNDLE;
	status = mis_read_body(q, MIS_BUNDLE_MAX * 24, &req, &len);
	if (status != HTTP_OK)
		return mis_fail_status(q, status);
	reader = get_reader(q);
	if (reader) {
		ap_set_content_type(q->r, OCTETS);
		status = mis_bundle(q->f, reader, req, len, mis_sink_client, q);
		mis_reader_put(q->f, reader);
	} else {
		status = HTTP_SERVICE_UNAVAILABLE;
	}
	free(req);
	return mis_finish(q, status);
}

static int answer_where(struct mis_request *q)
{
	struct mis_reader *r;
	char *req;
	size_t len;
	int status;

	q->kind = MIS_CATALOG;
	if (refuse_other_log(q, &status))
		return status;
	status = mis_read_body(q, WHERE_MAX, &req, &len);
	if (status != HTTP_OK)
		return mis_fail_status(q, status);
	status = get_reader_at(q, &r);
	if (status == HTTP_OK) {
		status = mis_where(q->f, r, req, len, mis_sink_client, q);
		mis_reader_put(q->f, r);
	}
	free(req);
	return mis_finish(q, status);
}

/* PUT collects what comes in small pieces and writes large ones. */
struct upload {
	struct mis_request	*q;
	int			fd;
	uint64_t		off;
	size_t			len;
	char			*buf;	/* MIS_CHUNK bytes */
};

static int upload_flush(struct upload *u)
{
	int status = u->len ? mis_upload_write(u->fd, u->buf, u->len, u->off) : HTTP_OK;

	if (status == HTTP_OK)
		mis_count(&mis_counters->bytes[MIS_UPLOAD], u->len);
	/* the disk works while the rest comes; the rename at the end has less to wait for */
	if (status == HTTP_OK && u->off >= WRITE_BACK_FROM)
		sync_file_range(u->fd, u->off, u->len, SYNC_FILE_RANGE_WRITE);
	u->off += u->len;
	u->len = 0;
	return status;
}

static int upload_take(void *data, const char *buf, size_t len)
{
	struct upload *u = data;
	int status = HTTP_OK;

	while (len && status == HTTP_OK) {
		size_t n = MIS_CHUNK - u->len < len ? MIS_CHUNK - u->len : len;

		memcpy(u->buf + u->len, buf, n);
		u->len += n;
		buf += n;
		len -= n;
		if (u->len == MIS_CHUNK)
			status = upload_flush(u);
	}
	return status;
}

/* What arrived of a body that was cut off is kept: the upload goes on from there. */
static int upload_body(struct upload *u, bool has_size, uint64_t size)
{
	int status = mis_each_body(u->q, upload_take, u);
	int flushed = upload_flush(u);

	if (status == HTTP_OK)
		status = flushed;
	if (status == HTTP_OK && has_size)
		status = mis_upload_size(u->fd, size);
	return status;
}

/* The length of the body, if it is told before. */
static uint64_t promised_body(struct mis_request *q)
{
	const char *text = apr_table_get(q->r->headers_in, "Content-Length");
	uint64_t len = 0;

	return text && mis_number(text, &len) ? len : 0;
}

/* What does not fit leaves nothing behind: it would only keep the disk full. */
static int put_body(struct mis_request *q, struct upload *u, const char *file, bool has_size,
		    uint64_t size)
{
	int status = mis_upload_room(q->f, promised_body(q));

	u->buf = malloc(MIS_CHUNK);
	if (status == HTTP_OK)
		status = u->buf ? upload_body(u, has_size, size) : HTTP_INTERNAL_SERVER_ERROR;
	free(u->buf);
	if (status == HTTP_INSUFFICIENT_STORAGE)
		mis_upload_delete(q->f, file);
	return status;
}

static int put_incoming(struct mis_request *q, const char *file)
{
	struct upload u = { .q = q };
	uint64_t size = 0;
	int status, has_size = mis_arg(q, "size", &size);

	if (mis_arg(q, "offset", &u.off) != 1 || has_size < 0)
		return mis_fail(q, HTTP_BAD_REQUEST, "offset and size are numbers");
	status = mis_upload_open(q->f, file, &u.fd);
	if (status != HTTP_OK)
		return mis_fail_status(q, status);
	status = put_body(q, &u, file, has_size, size);
	close(u.fd);
	if (status != HTTP_OK)
		return mis_fail_status(q, status);
	return kml_nothing(q);
}

static int head_incoming(struct mis_request *q, const char *file)
{
	uint64_t length, need = 0;
	int status;

	if (mis_arg(q, "need", &need) < 0)
		return mis_fail(q, HTTP_BAD_REQUEST, "need is a number");
	status = mis_upload_rest_fits(q->f, file, need);
	if (status == HTTP_OK)
		status = mis_upload_length(q->f, file, &length);
	if (status != HTTP_OK)
		return mis_fail_status(q, status);
	apr_table_setn(q->r->headers_out, "InterSync-Length",
		       apr_psprintf(q->r->pool, "%" PRIu64, length));
	return OK;
}

static int not_allowed(struct mis_request *q, const char *allowed)
{
	apr_table_setn(q->r->headers_out, "Allow", allowed);
	return mis_fail(q, HTTP_METHOD_NOT_ALLOWED, "use %s", allowed);
}

static int answer_incoming(struct mis_request *q)
{
	char file[sizeof("incoming/-") + UUID_TEXT + MIS_NAME_MAX];
	int status;

	q->kind = MIS_UPLOAD;
	if (!q->peer)
		return mis_fail(q, HTTP_BAD_REQUEST, "the header InterSync-Peer is missing");
	if (!mis_upload_name(file, sizeof(file), q->peer, q->rest))
		return mis_fail(q, HTTP_BAD_REQUEST, "the name of an upload is 1 to %d of [0-9a-z.-]",
				MIS_NAME_MAX);
	if (q->r->method_number == M_PUT)
		return put_incoming(q, file);
	if (q->r->method_number == M_GET && q->r->header_only)
		return head_incoming(q, file);
	if (q->r->method_number != M_DELETE)
		return not_allowed(q, "HEAD, PUT, DELETE");
	status = mis_upload_delete(q->f, file);
	return status == HTTP_OK ? kml_nothing(q) : mis_fail_status(q, status);
}

static int relay(struct mis_request *q, int status, const char *type, void *body, size_t len)
{
	if (status == HTTP_OK)
		return mis_send(q, type, body, len);
	status = body && len ? mis_fail(q, status, "%s", (char *) body) :
			       mis_fail_status(q, status);
	free(body);
	return status;
}

static int answer_reint(struct mis_request *q)
{
	struct gate_reint head;
	size_t len, reply_len;
	void *reply;
	char *body;
	int status;

	q->kind = MIS_REINT;
	if (!q->peer || mis_arg(q, "base", &head.base) != 1)
		return mis_fail(q, HTTP_BAD_REQUEST, "the header InterSync-Peer and base=RECNO are needed");
	if (refuse_other_log(q, &status))
		return status;
	memcpy(head.peer, q->told.uuid, sizeof(head.peer));
	status = mis_read_body(q, GATE_REINT_MAX, &body, &len);
	if (status != HTTP_OK)
		return mis_fail_status(q, status);
	tell_peer(q);
	mis_count(&mis_counters->bytes[MIS_REINT], len);
	status = gate_call(q->f->gate, GATE_REINT, &head, sizeof(head), body, len, -1, 900,
			   &reply, &reply_len);
	free(body);
	return relay(q, status, OCTETS, reply, reply_len);
}

static int answer_status(struct mis_request *q)
{
	void *body;
	size_t len;
	int status = gate_call(q->f->gate, GATE_STATUS, NULL, 0, NULL, 0, -1, 30, &body, &len);

	return relay(q, status, "text/html; charset=utf-8", body, len);
}

static const char *const kind_names[MIS_KINDS] = {
	"kml", "data", "bundle", "catalog", "incoming", "reint", "other",
};

static const char *metric(struct mis_request *q, const char *name, const uint64_t *values)
{
	apr_pool_t *pool = q->r->pool;
	const char *text = apr_psprintf(pool, "# TYPE intersync_http_%s_total counter\n", name);
	int i;

	for (i = 0; i < MIS_KINDS; i++)
		text = apr_psprintf(pool, "%sintersync_http_%s_total{fileset=\"%s\",resource=\"%s\"} %"
				    PRIu64 "\n", text, name, q->f->name, kind_names[i],
				    __atomic_load_n(&values[i], __ATOMIC_RELAXED));
	return text;
}

static int answer_metrics(struct mis_request *q)
{
	const struct mis_counters *c = mis_counters;
	void *body;
	size_t len;
	int status = gate_call(q->f->gate, GATE_METRICS, NULL, 0, NULL, 0, -1, 30, &body, &len);
	const char *text;

	if (status != HTTP_OK)
		return relay(q, status, NULL, body, len);
	text = apr_pstrcat(q->r->pool, body, metric(q, "requests", c->requests),
			   metric(q, "bytes", c->bytes), metric(q, "errors", c->errors),
			   apr_psprintf(q->r->pool, "# TYPE intersync_http_broken_off_total counter\n"
					"intersync_http_broken_off_total{fileset=\"%s\"} %" PRIu64 "\n",
					q->f->name, c->broken), NULL);
	free(body);
	return mis_send_text(q, "text/plain; version=0.0.4", text);
}

static const struct resource {
	const char	*name;
	int		method;		/* M_INVALID: it sees to that itself */
	bool		has_rest;
	int		(*answer)(struct mis_request *q);
} resources[] = {
	{ "profile",	M_GET,	false,	answer_profile },
	{ "kml",	M_GET,	false,	answer_kml },
	{ "catalog",	M_GET,	false,	answer_catalog },
	{ "data",	M_GET,	true,	answer_data },
	{ "bundle",	M_POST,	false,	answer_bundle },
	{ "where",	M_POST,	false,	answer_where },
	{ "incoming",	M_INVALID,	true,	answer_incoming },
	{ "reint",	M_POST,	false,	answer_reint },
	{ "status",	M_GET,	false,	answer_status },
	{ "metrics",	M_GET,	false,	answer_metrics },
};

int mis_answer(struct mis_request *q, const char *resource)
{
	const struct resource *p;
	int answer;

	for (p = resources; p < resources + sizeof(resources) / sizeof(*resources); p++)
		if (!strcmp(p->name, resource))
			break;
	if (p == resources + sizeof(resources) / sizeof(*resources) ||
	    (*q->rest != 0) != p->has_rest)
		return mis_fail(q, HTTP_NOT_FOUND, "there is no such resource");
	if (p->method != M_INVALID && q->r->method_number != p->method)
		return not_allowed(q, p->method == M_GET ? "GET, HEAD" : "POST");
	answer = p->answer(q);
	mis_count(&mis_counters->requests[q->kind], 1);
	return answer;
}
