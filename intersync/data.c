// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Content from the server: many small files in one bundle, each large or
 * sparse one as a stream of frames into a file in incoming/.  A stream ascends, so
 * the size of an unfinished file says where to go on.  Used by pull.c and want.c.
 */
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util.h"

#define BUNDLE_OBJECTS	1024
#define BUNDLE_BYTES	(4 * 1024 * 1024)
#define FRAME_MAX	(1024 * 1024)

struct bundle_ask {
	guint64	ino;
	guint32	gen, pad;
	guint64	version;
};

struct bundle_head {
	guint64	ino;
	guint32	gen, status;
	guint64	version, size;
};

struct frame {
	guint64	off, len;
};

struct IsdDataJob {
	IsdClient	*c;
	GPtrArray	*contents;
	GPtrArray	*bodies;	/* GByteArray that contents point into */
	GHashTable	*parts;		/* of DataPart, what is under way */
	IsdDataDone	done;
	gpointer	data;
	GError		*error;
	guint		idle;
};

/* One request of a job. */
typedef struct {
	IsdDataJob	*job;
	IsdRequest	*request;
	GPtrArray	*asked;		/* bundle: IsdContent, in order */
	IsdContent	*content;	/* stream */
	int		fd;
	struct frame	frame;		/* as received */
	guint		head_len;	/* bytes of it */
	guint64		off, left;	/* of the frame's data */
	gboolean	ended;
} DataPart;

static void data_stream(IsdDataJob *job, IsdContent *content);

IsdContent *isd_content_new(struct kml_oid soid, guint64 version, guint64 size)
{
	IsdContent *t = g_new0(IsdContent, 1);

	t->soid = soid;
	t->version = version;
	t->size = size;
	return t;
}

static void data_content_free(gpointer p)
{
	IsdContent *t = p;

	g_clear_pointer(&t->ranges, g_array_unref);
	g_free(t->file);
	g_free(t);
}

static void data_part_free(gpointer p)
{
	DataPart *part = p;

	if (part->request)
		isd_fetch_cancel(part->request);
	if (part->fd >= 0)
		close(part->fd);
	g_clear_pointer(&part->asked, g_ptr_array_unref);
	g_free(part);
}

static DataPart *data_part_new(IsdDataJob *job)
{
	DataPart *part = g_new0(DataPart, 1);

	part->job = job;
	part->fd = -1;
	g_hash_table_add(job->parts, part);
	return part;
}

/* --- the end of a job --- */

static gboolean data_finish(gpointer p)
{
	IsdDataJob *job = p;

	job->idle = 0;
	job->done(job, job->error, job->data);
	return G_SOURCE_REMOVE;
}

static void data_check_end(IsdDataJob *job)
{
	if (!g_hash_table_size(job->parts) && !job->idle)
		job->idle = g_idle_add_full(G_PRIORITY_DEFAULT, data_finish, job, NULL);
}

/* A part came to its end; the first error ends the others. */
static void data_part_end(DataPart *part, const GError *error)
{
	IsdDataJob *job = part->job;

	part->request = NULL;
	g_hash_table_remove(job->parts, part);
	if (error && !job->error) {
		job->error = g_error_copy(error);
		g_hash_table_remove_all(job->parts);
	}
	data_check_end(job);
}

static gboolean data_protocol(GError **error, const char *what)
{
	g_set_error(error, ISD_ERROR, ISD_ERROR_PROTOCOL, "content from the server: %s", what);
	return FALSE;
}

/* --- bundles --- */

static gboolean bundle_one(DataPart *part, guint i, const GByteArray *body, gsize *pos,
			   GError **error)
{
	IsdContent *t = g_ptr_array_index(part->asked, i);
	struct bundle_head h;
	guint64 padded;

	if (body->len - *pos < sizeof(h))
		return data_protocol(error, "a bundle ends early");
	memcpy(&h, body->data + *pos, sizeof(h));
	*pos += sizeof(h);
	if (GUINT64_FROM_LE(h.ino) != t->soid.ino || GUINT32_FROM_LE(h.gen) != t->soid.gen)
		return data_protocol(error, "a bundle has other objects than asked for");
	t->status = GUINT32_FROM_LE(h.status);
	if (t->status == 413) {
		t->status = 0;
		data_stream(part->job, t);
		return TRUE;
	}
	if (t->status)
		return TRUE;
	t->size = GUINT64_FROM_LE(h.size);
	padded = (t->size + 7) & ~7ULL;
	if (t->size > ISD_SMALL_MAX || body->len - *pos < padded)
		return data_protocol(error, "a bundle ends early");
	t->data = body->data + *pos;
	*pos += padded;
	return TRUE;
}

static void bundle_done(IsdRequest *r, const GError *error, gpointer data)
{
	DataPart *part = data;
	g_autoptr(GError) bad = NULL;
	GByteArray *body;
	gsize pos = 0;

	if (error) {
		data_part_end(part, error);
		return;
	}
	body = isd_fetch_steal_body(r);
	g_ptr_array_add(part->job->bodies, body);
	for (guint i = 0; i < part->asked->len; i++)
		if (!bundle_one(part, i, body, &pos, &bad))
			break;
	data_part_end(part, bad);
}

static void bundle_send(DataPart *part)
{
	g_autoptr(GBytes) body = NULL;
	struct bundle_ask *ask = g_new0(struct bundle_ask, part->asked->len);
	IsdFetchSpec spec = {
		.method = "POST", .path = g_strdup("bundle"), .done = bundle_done, .data = part,
	};

	for (guint i = 0; i < part->asked->len; i++) {
		const IsdContent *t = g_ptr_array_index(part->asked, i);

		ask[i].ino = GUINT64_TO_LE(t->soid.ino);
		ask[i].gen = GUINT32_TO_LE(t->soid.gen);
		ask[i].version = GUINT64_TO_LE(t->version);
	}
	body = g_bytes_new_take(ask, part->asked->len * sizeof(*ask));
	spec.body = body;
	part->request = isd_fetch(part->job->c->fetcher, &spec);
}

/* --- streams --- */

static gboolean stream_write(DataPart *part, const guint8 **buf, gsize *len, GError **error)
{
	gsize n = MIN(part->left, (guint64)*len);
	int err = pwrite_all(part->fd, *buf, n, part->off);

	if (err) {
		g_set_error(error, ISD_ERROR,
			    err == -ENOSPC || err == -EDQUOT ? ISD_ERROR_NOSPC : ISD_ERROR_FAILED,
			    "writing to incoming/%s: %s", part->content->file, g_strerror(-err));
		return FALSE;
	}
	part->off += n;
	part->left -= n;
	*buf += n;
	*len -= n;
	return TRUE;
}

static gboolean stream_frame(DataPart *part, GError **error)
{
	part->head_len = 0;
	part->off = GUINT64_FROM_LE(part->frame.off);
	part->left = GUINT64_FROM_LE(part->frame.len);
	if (part->left > FRAME_MAX || part->off > G_MAXINT64 - FRAME_MAX)
		return data_protocol(error, "a frame is out of bounds");
	if (part->left)
		return TRUE;
	part->ended = TRUE;
	part->content->size = part->off;
	if (ftruncate(part->fd, part->off) == 0)
		return TRUE;
	g_set_error(error, ISD_ERROR, errno == ENOSPC ? ISD_ERROR_NOSPC : ISD_ERROR_FAILED,
		    "incoming/%s: %s", part->content->file, g_strerror(errno));
	return FALSE;
}

static gboolean stream_data(IsdRequest *r, const void *p, gsize len, gpointer data, GError **error)
{
	DataPart *part = data;
	const guint8 *buf = p;

	while (len) {
		gsize n = MIN(sizeof(part->frame) - part->head_len, len);

		if (part->ended)
			return data_protocol(error, "there is something behind the last frame");
		if (part->left) {
			if (!stream_write(part, &buf, &len, error))
				return FALSE;
			continue;
		}
		memcpy((guint8 *)&part->frame + part->head_len, buf, n);
		part->head_len += n;
		buf += n;
		len -= n;
		if (part->head_len == sizeof(part->frame) && !stream_frame(part, error))
			return FALSE;
	}
	return TRUE;
}

static void stream_done(IsdRequest *r, const GError *error, gpointer data)
{
	DataPart *part = data;
	guint status = isd_fetch_status(r);
	g_autoptr(GError) bad = NULL;

	if (status == 404 || status == 410 || status == 425) {
		part->content->status = status;
		data_part_end(part, NULL);
		return;
	}
	if (!error && !part->ended) {
		g_set_error(&bad, ISD_ERROR, ISD_ERROR_NETWORK,
			    "the server broke the content of a file off");
		error = bad;
	}
	data_part_end(part, error);
}

/* The query: what is still missing. */
static char *stream_query(const IsdContent *t, guint64 have)
{
	GString *q = g_string_new("sparse");

	if (!t->ranges) {
		if (have)
			g_string_append_printf(q, "=%" G_GUINT64_FORMAT "-%" G_GUINT64_FORMAT,
					       have, t->size);
		return g_string_free(q, FALSE);
	}
	for (guint i = 0; i < t->ranges->len; i++) {
		const struct kml_range *r = &g_array_index(t->ranges, struct kml_range, i);

		g_string_append_printf(q, "%c%" G_GUINT64_FORMAT "-%" G_GUINT64_FORMAT,
				       i ? ',' : '=', (guint64)r->off, (guint64)(r->off + r->len));
	}
	return g_string_free(q, FALSE);
}

/* Open the file; *ret_have: as much of it is there. */
static gboolean stream_open(DataPart *part, guint64 *ret_have, GError **error)
{
	IsdContent *t = part->content;
	struct stat st;

	t->file = g_strdup_printf("%s-%" G_GINT64_MODIFIER "x.%x-%" G_GUINT64_FORMAT,
				  t->ranges ? "rng" : "get", (guint64)t->soid.ino, t->soid.gen,
				  t->version);
	part->fd = openat(part->job->c->core->incoming_fd, t->file,
			  O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | (t->ranges ? O_TRUNC : 0),
			  0600);
	if (part->fd < 0 || fstat(part->fd, &st) < 0 ||
	    ((guint64)st.st_size > t->size && ftruncate(part->fd, 0) < 0)) {
		g_set_error(error, ISD_ERROR, errno == ENOSPC ? ISD_ERROR_NOSPC : ISD_ERROR_FAILED,
			    "incoming/%s: %s", t->file, g_strerror(errno));
		return FALSE;
	}
	*ret_have = (guint64)st.st_size < t->size ? st.st_size : 0;
	/* whole already: only the end is asked for again */
	if ((guint64)st.st_size == t->size && t->size)
		*ret_have = t->size - 1;
	return TRUE;
}

static void data_stream(IsdDataJob *job, IsdContent *content)
{
	DataPart *part = data_part_new(job);
	g_autofree char *query = NULL;
	guint64 have = 0;
	IsdFetchSpec spec = {
		.method = "GET", .on_data = stream_data, .done = stream_done, .data = part,
	};

	part->content = content;
	if (!stream_open(part, &have, job->error ? NULL : &job->error)) {
		g_hash_table_remove(job->parts, part);
		return;
	}
	query = stream_query(content, have);
	spec.path = g_strdup_printf("data/%" G_GUINT64_FORMAT ".%u/%" G_GUINT64_FORMAT "?%s",
				    (guint64)content->soid.ino, content->soid.gen,
				    content->version, query);
	part->request = isd_fetch(job->c->fetcher, &spec);
}

/* --- jobs --- */

static void data_split(IsdDataJob *job)
{
	DataPart *bundle = NULL;
	guint64 bytes = 0;

	for (guint i = 0; i < job->contents->len && !job->error; i++) {
		IsdContent *t = g_ptr_array_index(job->contents, i);

		if (!t->size && !t->ranges)
			continue;	/* nothing to fetch */
		if (t->ranges || t->size > ISD_SMALL_MAX) {
			data_stream(job, t);
			continue;
		}
		if (bundle && (bundle->asked->len == BUNDLE_OBJECTS ||
			       bytes + t->size > BUNDLE_BYTES)) {
			bundle_send(bundle);
			bundle = NULL;
		}
		if (!bundle) {
			bundle = data_part_new(job);
			bundle->asked = g_ptr_array_new();
			bytes = 0;
		}
		g_ptr_array_add(bundle->asked, t);
		bytes += t->size;
	}
	if (bundle)
		bundle_send(bundle);
}

IsdDataJob *isd_data_get(IsdClient *c, GPtrArray *contents, IsdDataDone done, gpointer data)
{
	IsdDataJob *job = g_new0(IsdDataJob, 1);

	job->c = c;
	job->contents = contents;
	g_ptr_array_set_free_func(contents, data_content_free);
	job->bodies = g_ptr_array_new_with_free_func((GDestroyNotify)g_byte_array_unref);
	job->parts = g_hash_table_new_full(NULL, NULL, data_part_free, NULL);
	job->done = done;
	job->data = data;
	data_split(job);
	data_check_end(job);
	return job;
}

GPtrArray *isd_data_contents(IsdDataJob *job)
{
	return job->contents;
}

void isd_data_job_free(IsdDataJob *job)
{
	if (!job)
		return;
	g_clear_handle_id(&job->idle, g_source_remove);
	g_hash_table_unref(job->parts);
	g_ptr_array_unref(job->contents);
	g_ptr_array_unref(job->bodies);
	g_clear_error(&job->error);
	g_free(job);
}

void isd_data_clean(IsdClient *c)
{
	int fd = openat(c->core->incoming_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	g_autofree char *path = fd < 0 ? NULL : g_strdup_printf("/proc/self/fd/%d", fd);
	g_autoptr(GDir) dir = path ? g_dir_open(path, 0, NULL) : NULL;
	const char *name;

	while (dir && (name = g_dir_read_name(dir)))
		if (g_str_has_prefix(name, "get-") || g_str_has_prefix(name, "rng-"))
			unlinkat(fd, name, 0);
	if (fd >= 0)
		close(fd);
}
