// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The simulated httpd: the resources of doc/protocol.md over the serving library of
 * httpd/, which is the real one, and over the handler of the server role, which
 * isd_gateway_new() gives.  In place of httpd/resources.c, intersync/gateway.c and
 * intersync/httpd.c.
 */
#include "sim.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "byteorder.h"
#include "serve.h"
#include "server.h"
#include "util.h"

#define KML_MAX_DEFAULT	(1 << 20)

struct IsdGateway {
	IsdGatewayFunc	func;
	gpointer	data;
};

struct IsdHttpd {
	int	unused;
};

static IsdGateway *gateway;
static struct mis_fileset fileset;

/* --- answers --- */

Answer *answer_new(void)
{
	Answer *a = g_new0(Answer, 1);

	a->headers = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	a->body = g_byte_array_new();
	return a;
}

void answer_free(Answer *a)
{
	g_hash_table_unref(a->headers);
	g_byte_array_unref(a->body);
	g_free(a);
}

static void header(Answer *a, const char *name, char *value)
{
	g_hash_table_replace(a->headers, g_strdup(name), value);
}

static void refuse(Answer *a, guint status)
{
	g_autofree char *text = g_strdup_printf("{\"error\": \"refused with %u\"}", status);

	g_byte_array_set_size(a->body, 0);
	g_byte_array_append(a->body, (guint8 *) text, strlen(text));
	a->status = status;
}

/* --- the gateway --- */

static guint ask_gateway(guint type, const void *head, gsize head_len, const void *body, gsize len,
			 GByteArray *reply)
{
	g_autoptr(GByteArray) all = g_byte_array_new();

	if (!gateway)
		return 503;
	g_byte_array_append(all, head, head_len);
	if (len)
		g_byte_array_append(all, body, len);
	return gateway->func(type, all->data, all->len, reply, gateway->data);
}

int gate_call(struct gate *g, unsigned int type, const void *head, size_t head_len,
	      const void *body, size_t body_len, int client_fd, unsigned int timeout,
	      void **ret_body, size_t *ret_len)
{
	g_autoptr(GByteArray) reply = g_byte_array_new();
	guint status = ask_gateway(type, head, head_len, body, body_len, reply);

	*ret_len = reply->len;
	*ret_body = g_byte_array_free(g_steal_pointer(&reply), FALSE);
	return status;
}

void gate_free(struct gate *g)
{
}

IsdGateway *isd_gateway_new(const char *path, uid_t uid, IsdGatewayFunc func, gpointer data,
			    GError **error)
{
	gateway = g_new0(IsdGateway, 1);
	gateway->func = func;
	gateway->data = data;
	return gateway;
}

void isd_gateway_free(IsdGateway *g)
{
	g_free(g);
	gateway = NULL;
}

void isd_gateway_moved(IsdGateway *g, guint64 end)
{
	net_moved(end);
}

gboolean isd_httpd_account(IsdAccount *ret, GError **error)
{
	*ret = (IsdAccount) { .uid = getuid(), .gid = getgid() };
	return TRUE;
}

void isd_account_clear(IsdAccount *a)
{
}

/* Its workers have a root and a pool of their own, which outlive the daemon. */
IsdHttpd *isd_httpd_start(IsdCore *core, const char *address, guint port,
			  const IsdAccount *account, const char *path, GError **error)
{
	struct host *h = &sim_hosts[SERVER];

	if (!fileset.pool)
		fileset = (struct mis_fileset) {
			.name = FILESET, .root_fd = h->root_fd, .meta_fd = h->meta_fd,
			.epoch = h->head.epoch, .pool = mis_pool_new(&fileset),
		};
	return g_new0(IsdHttpd, 1);
}

void isd_httpd_stop(IsdHttpd *h)
{
	g_free(h);
}

pid_t isd_httpd_pid(const IsdHttpd *h)
{
	return 1;
}

guint isd_httpd_restarts(const IsdHttpd *h)
{
	return 0;
}

void serve_reset(void)
{
	gateway = NULL;
	fileset.pool = NULL;
}

void serve_stop(void)
{
	gateway = NULL;
}

/* --- requests --- */

/* "...?name=VALUE&..." */
static gboolean argument(const Ask *ask, const char *name, char **ret)
{
	const char *query = strchr(ask->path, '?');
	g_auto(GStrv) parts = g_strsplit(query ? query + 1 : "", "&", -1);
	gsize len = strlen(name);

	for (char **p = parts; *p; p++) {
		if (strncmp(*p, name, len) || ((*p)[len] && (*p)[len] != '='))
			continue;
		*ret = g_strdup((*p)[len] ? *p + len + 1 : "");
		return TRUE;
	}
	return FALSE;
}

static gboolean number(const Ask *ask, const char *name, guint64 *ret)
{
	g_autofree char *text = NULL;

	if (!argument(ask, name, &text))
		return FALSE;
	*ret = g_ascii_strtoull(text, NULL, 10);
	return TRUE;
}

static const char *said(const Ask *ask, const char *name)
{
	const char *v = g_hash_table_lookup(ask->headers, name);

	return v ? v : "";
}

static void tell_peer(const Ask *ask)
{
	struct gate_peer told = { 0 };
	char *end;

	if (!uuid_parse(said(ask, "intersync-peer"), told.uuid))
		return;
	g_strlcpy(told.name, said(ask, "intersync-name"), sizeof(told.name));
	told.acked = g_ascii_strtoull(said(ask, "intersync-acked"), NULL, 10);
	told.offset = g_ascii_strtoull(said(ask, "intersync-position"), &end, 10);
	told.recno = g_ascii_strtoull(end, NULL, 10);
	ask_gateway(GATE_PEER, &told, sizeof(told), NULL, 0, NULL);
}

static gboolean get_info(Answer *a, struct gate_info *info)
{
	g_autoptr(GByteArray) reply = g_byte_array_new();
	guint status = ask_gateway(GATE_INFO, NULL, 0, NULL, 0, reply);

	if (status == 200)
		memcpy(info, reply->data, sizeof(*info));
	else
		refuse(a, status);
	return status == 200;
}

static int sink(void *data, void *buf, size_t len)
{
	Answer *a = data;

	g_byte_array_append(a->body, buf, len);
	free(buf);
	return 0;
}

/* What a function of the library says. */
static void finish(Answer *a, int status)
{
	if (status == MIS_BROKEN)
		a->broken = TRUE;
	if (status == MIS_BROKEN || status == 200)
		a->status = 200;
	else
		refuse(a, status);
}

static struct mis_reader *get_reader(Answer *a)
{
	char why[256];
	struct mis_reader *r = mis_reader_get(&fileset, why, sizeof(why));

	if (!r)
		refuse(a, 503);
	return r;
}

static void profile(const Ask *ask, Answer *a)
{
	char fset[UUID_TEXT], replica[UUID_TEXT];
	struct gate_info info;
	g_autofree char *text = NULL;

	tell_peer(ask);
	if (!get_info(a, &info))
		return;
	uuid_format(info.fileset_uuid, fset);
	uuid_format(info.replica_uuid, replica);
	text = g_strdup_printf("{\"fileset_uuid\": \"%s\", \"replica_uuid\": \"%s\", \"epoch\": %"
			       G_GUINT64_FORMAT ", \"protocol\": [1], \"end_offset\": %"
			       G_GUINT64_FORMAT ", \"last_recno\": %" G_GUINT64_FORMAT "}",
			       fset, replica, (guint64) info.epoch, (guint64) info.end_offset,
			       (guint64) info.last_recno);
	g_byte_array_append(a->body, (guint8 *) text, strlen(text));
	a->status = 200;
}

void serve_kml(const Ask *ask, Answer *a)
{
	guint64 after = 0, max = KML_MAX_DEFAULT;
	struct gate_info info;
	void *buf;
	size_t len;
	int status;

	number(ask, "after", &after);
	number(ask, "max", &max);
	a->waits = FALSE;
	if (!get_info(a, &info))
		return;
	header(a, "intersync-end", g_strdup_printf("%" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT,
						   (guint64) info.end_offset,
						   (guint64) info.last_recno));
	if (after < info.first_offset || after > info.log_end) {
		refuse(a, after < info.first_offset ? 410 : 409);
		return;
	}
	a->status = 204;
	if (after >= info.end_offset)
		return;
	status = mis_kml_read(&fileset, after, info.end_offset, max, &buf, &len);
	if (status == 200) {
		header(a, "intersync-next", g_strdup_printf("%" G_GUINT64_FORMAT, after + len));
		sink(a, buf, len);
	}
	finish(a, status);
}

/* The server was set back, and the record that ends there is another one than the client has. */
static gboolean is_other_log(const Ask *ask, guint64 after)
{
	guint64 crc;
	uint32_t is = 0;
	int status;

	if (!number(ask, "crc", &crc))
		return FALSE;
	status = mis_kml_sum(&fileset, after, &is);
	return status == 404 || (status == 200 && is != crc);
}

static void kml(const Ask *ask, Answer *a)
{
	guint64 after = 0, wait = 0;
	struct gate_info info;

	tell_peer(ask);
	number(ask, "after", &after);
	if (is_other_log(ask, after)) {
		refuse(a, 409);
		return;
	}
	number(ask, "wait", &wait);
	if (wait && get_info(a, &info) && after >= info.end_offset && after <= info.log_end) {
		a->waits = TRUE;
		a->after = after;
		a->seconds = wait;
		return;
	}
	if (!a->status)
		serve_kml(ask, a);
}

/* A reader, and the header that says at which position it reads. */
static struct mis_reader *get_reader_at(Answer *a)
{
	struct mis_reader *r = get_reader(a);
	uint64_t offset, recno;
	uint32_t crc;

	if (!r)
		return NULL;
	if (mis_reader_position(r, &offset, &recno) &&
	    mis_kml_sum(&fileset, offset, &crc) == 200) {
		header(a, "intersync-position", g_strdup_printf("%" G_GUINT64_FORMAT " %"
								G_GUINT64_FORMAT " %u",
								(guint64) offset,
								(guint64) recno, crc));
		return r;
	}
	mis_reader_put(&fileset, r);
	refuse(a, 500);
	return NULL;
}

static void catalog(const Ask *ask, Answer *a)
{
	struct mis_reader *r;

	tell_peer(ask);
	r = get_reader_at(a);
	if (!r)
		return;
	finish(a, mis_catalog(&fileset, r, sink, a));
	mis_reader_put(&fileset, r);
}

static void where(const Ask *ask, Answer *a)
{
	struct mis_reader *r = get_reader_at(a);

	if (!r)
		return;
	finish(a, mis_where(&fileset, r, ask->body, ask->len, sink, a));
	mis_reader_put(&fileset, r);
}

static void send_file(const Ask *ask, Answer *a, int fd, const struct mis_stamp *stamp)
{
	g_autofree char *text = NULL;
	struct mis_range *ranges = NULL;
	size_t n = 0;
	struct stat st;

	if (fstat(fd, &st) == 0)
		header(a, "intersync-allocated", g_strdup_printf("%" G_GUINT64_FORMAT,
								 (guint64) st.st_blocks * 512));
	if (!argument(ask, "sparse", &text) || (*text && !mis_ranges_parse(text, &ranges, &n))) {
		refuse(a, 400);
		return;
	}
	a->status = 200;
	if (strcmp(ask->method, "HEAD"))
		finish(a, mis_sparse(fd, stamp, ranges, n, sink, a));
	free(ranges);
}

/* "data/INO.GEN/VERSION" */
static void data(const Ask *ask, Answer *a)
{
	struct kml_oid oid;
	struct mis_stamp stamp;
	struct mis_reader *r;
	guint64 version;
	char *end;
	int status, fd;

	oid.ino = g_ascii_strtoull(ask->path + strlen("data/"), &end, 10);
	oid.gen = g_ascii_strtoull(end + 1, &end, 10);
	version = g_ascii_strtoull(end + 1, NULL, 10);
	r = get_reader(a);
	if (!r)
		return;
	status = mis_object_open(&fileset, r, oid, version, &fd, &stamp);
	mis_reader_put(&fileset, r);
	if (status != 200) {
		refuse(a, status);
		return;
	}
	send_file(ask, a, fd, &stamp);
	close(fd);
}

static void bundle(const Ask *ask, Answer *a)
{
	struct mis_reader *r = get_reader(a);

	if (!r)
		return;
	finish(a, mis_bundle(&fileset, r, ask->body, ask->len, sink, a));
	mis_reader_put(&fileset, r);
}

static void put_incoming(const Ask *ask, Answer *a, const char *file)
{
	guint64 offset = 0, size;
	int fd, status = mis_upload_open(&fileset, file, &fd);

	if (status != 200) {
		refuse(a, status);
		return;
	}
	number(ask, "offset", &offset);
	status = mis_upload_write(fd, ask->body, ask->len, offset);
	if (status == 200 && !ask->cut && number(ask, "size", &size))
		status = mis_upload_size(fd, size);
	close(fd);
	if (status == 200)
		a->status = 204;
	else
		refuse(a, status);
}

static void head_incoming(const Ask *ask, Answer *a, const char *file)
{
	uint64_t length;
	int status = mis_upload_length(&fileset, file, &length);

	if (status != 200) {
		refuse(a, status);
		return;
	}
	header(a, "intersync-length", g_strdup_printf("%" G_GUINT64_FORMAT, (guint64) length));
	a->status = 200;
}

static void incoming(const Ask *ask, Answer *a)
{
	g_autofree char *name = g_strdup(ask->path + strlen("incoming/"));
	char file[256];

	*strchrnul(name, '?') = 0;
	if (!mis_upload_name(file, sizeof(file), said(ask, "intersync-peer"), name))
		refuse(a, 400);
	else if (!strcmp(ask->method, "PUT"))
		put_incoming(ask, a, file);
	else if (!strcmp(ask->method, "HEAD"))
		head_incoming(ask, a, file);
	else if (mis_upload_delete(&fileset, file) == 200)
		a->status = 204;
	else
		refuse(a, 404);
}

static void reint(const Ask *ask, Answer *a)
{
	struct gate_reint head;
	guint64 base = 0;
	guint status;

	if (ask->cut || !uuid_parse(said(ask, "intersync-peer"), head.peer) ||
	    !number(ask, "base", &base)) {
		refuse(a, 400);
		return;
	}
	head.base = base;
	tell_peer(ask);
	status = ask_gateway(GATE_REINT, &head, sizeof(head), ask->body, ask->len, a->body);
	if (status == 200)
		a->status = 200;
	else
		refuse(a, status);
}

static const struct {
	const char	*path;
	void		(*func)(const Ask *ask, Answer *a);
} resources[] = {
	{ "profile", profile }, { "kml", kml }, { "catalog", catalog }, { "data/", data },
	{ "bundle", bundle }, { "where", where }, { "incoming/", incoming },
	{ "reint", reint },
};

void serve(const Ask *ask, Answer *a)
{
	guint64 epoch;

	header(a, "intersync-epoch", g_strdup_printf("%" G_GUINT64_FORMAT,
						     (guint64) fileset.epoch));
	if (number(ask, "epoch", &epoch) && epoch != fileset.epoch) {
		refuse(a, 409);
		return;
	}
	for (guint i = 0; i < G_N_ELEMENTS(resources); i++)
		if (g_str_has_prefix(ask->path, resources[i].path)) {
			resources[i].func(ask, a);
			return;
		}
	refuse(a, 404);
}
