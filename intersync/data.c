// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Content from the server: many small files in one bundle, each large or
 * sparse one as a stream of frames into a file in incoming/.  A stream ascends, so
 * the size of an unfinished file says where to go on.  Used by pull.c and want.c.
 */
#include "client.h"

#include <dirent.h>
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
#define WRITE_BACK	(8 * 1024 * 1024)	/* written at a time, of large files */
#define FILE_OVERHEAD	8192	/* on the disk, of a small file: half a block, inode, name, log */

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
	guint64		promised;	/* of the client's room, for its bundles */
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
	guint64		off, left;	/* of the frame's data: written, to come */
	guint8		*buf;		/* FRAME_MAX bytes */
	gsize		buffered;	/* of the frame, at off */
	guint64		written_back;	/* the disk was told to write what is before it */
	guint64		need;		/* bytes that it takes on the disk */
	guint64		promised;	/* of the client's room: what of that is to come */
	gboolean	ended;
} DataPart;

static gboolean data_stream(IsdDataJob *job, IsdContent *content, GError **error);

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
	part->job->c->promised -= part->promised;
	g_free(part->buf);
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
	/* one part may end while others are still being started */
	if (!g_hash_table_size(job->parts))
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
		return data_stream(part->job, t, error);
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

static gboolean stream_failed(DataPart *part, int err, GError **error)
{
	g_set_error(error, ISD_ERROR,
		    err == ENOSPC || err == EDQUOT ? ISD_ERROR_NOSPC : ISD_ERROR_FAILED,
		    "writing to incoming/%s: %s", part->content->file, g_strerror(err));
	return FALSE;
}

/* What of the room was taken. */
static void stream_took(DataPart *part, guint64 n)
{
	n = MIN(n, part->promised);
	part->promised -= n;
	part->job->c->promised -= n;
}

/*
 * The disk works while the rest comes.  Otherwise the rename that puts a large file
 * in its place waits for all of it.
 */
static void stream_write_back(DataPart *part)
{
	if (part->off - part->written_back < WRITE_BACK && part->off >= part->written_back)
		return;
	if (part->off > part->written_back)
		sync_file_range(part->fd, part->written_back, part->off - part->written_back,
				SYNC_FILE_RANGE_WRITE);
	part->written_back = part->off;
}

/* libcurl hands out 16 KiB at a time, wherever they begin: whole frames are written. */
static gboolean stream_flush(DataPart *part, GError **error)
{
	int err = pwrite_all(part->fd, part->buf, part->buffered, part->off);

	if (err)
		return stream_failed(part, -err, error);
	part->off += part->buffered;
	stream_took(part, part->buffered);
	part->buffered = 0;
	stream_write_back(part);
	return TRUE;
}

static gboolean stream_write(DataPart *part, const guint8 **buf, gsize *len, GError **error)
{
	gsize n = MIN(part->left, (guint64)*len);

	if (!part->buf)
		part->buf = g_malloc(FRAME_MAX);
	memcpy(part->buf + part->buffered, *buf, n);
	part->buffered += n;
	part->left -= n;
	*buf += n;
	*len -= n;
	return part->left || stream_flush(part, error);
}

static gboolean stream_frame(DataPart *part, GError **error)
{
	isd_fault("data-frame");
	part->head_len = 0;
	part->off = GUINT64_FROM_LE(part->frame.off);
	part->left = GUINT64_FROM_LE(part->frame.len);
	if (part->left > FRAME_MAX || part->off > G_MAXINT64 - FRAME_MAX)
		return data_protocol(error, "a frame is out of bounds");
	if (part->left)
		return TRUE;
	part->ended = TRUE;
	part->content->size = part->off;
	return ftruncate(part->fd, part->off) == 0 || stream_failed(part, errno, error);
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

/* It would only keep the disk full, or nobody asks for that version again. */
static void stream_drop(DataPart *part)
{
	IsdContent *t = part->content;

	unlinkat(part->job->c->core->incoming_fd, t->file, 0);
	g_clear_pointer(&t->file, g_free);
}

static void stream_full(DataPart *part)
{
	stream_drop(part);
	part->content->status = ISD_CONTENT_FULL;
	part->content->need = part->need;
	data_part_end(part, NULL);
}

static void stream_done(IsdRequest *r, const GError *error, gpointer data)
{
	DataPart *part = data;
	IsdContent *t = part->content;
	guint status = isd_fetch_status(r);
	g_autoptr(GError) bad = NULL;

	if (status == 404 || status == 410 || status == 425) {
		if (status != 425)
			stream_drop(part);
		t->status = status;
		data_part_end(part, NULL);
		return;
	}
	if (g_error_matches(error, ISD_ERROR, ISD_ERROR_NOSPC)) {
		stream_full(part);	/* somebody else took the room meanwhile */
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

	part->job->c->litter = TRUE;
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

static char *stream_path(const IsdContent *t, guint64 have)
{
	g_autofree char *query = stream_query(t, have);

	return g_strdup_printf("data/%" G_GUINT64_FORMAT ".%u/%" G_GUINT64_FORMAT "?%s",
			       (guint64)t->soid.ino, t->soid.gen, t->version, query);
}

static gboolean stream_begin(DataPart *part, GError **error)
{
	IsdContent *t = part->content;
	guint64 have = 0;
	IsdFetchSpec spec = {
		.method = "GET", .on_data = stream_data, .done = stream_done, .data = part,
	};

	part->promised = part->need;
	part->job->c->promised += part->need;
	if (!stream_open(part, &have, error))
		return FALSE;
	spec.path = stream_path(t, have);
	part->request = isd_fetch(part->job->c->fetcher, &spec);
	return TRUE;
}

/* What it takes here at most: all of it, or the ranges, but for what is here. */
static guint64 stream_need(const DataPart *part)
{
	const IsdContent *t = part->content;
	struct stat st;
	guint64 sum = 0, have;

	for (guint i = 0; t->ranges && i < t->ranges->len; i++)
		sum += g_array_index(t->ranges, struct kml_range, i).len;
	if (t->ranges)
		return sum;
	if (fstatat(part->job->c->core->incoming_fd, t->file, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return t->size;
	have = (guint64)st.st_blocks * 512;
	return t->size > have ? t->size - have : 0;
}

static void stream_asked(IsdRequest *r, const GError *error, gpointer data)
{
	DataPart *part = data;
	const char *allocated = isd_fetch_header(r, "InterSync-Allocated");
	g_autoptr(GError) local = NULL;

	part->request = NULL;
	if (error) {
		stream_done(r, error, data);
		return;
	}
	if (allocated)
		part->need = MIN(part->need, g_ascii_strtoull(allocated, NULL, 10));
	if (part->need > isd_space_room(part->job->c))
		stream_full(part);
	else if (!stream_begin(part, &local))
		stream_done(r, local, part);
}

/* It does not fit if it has no holes: the server knows. */
static void stream_ask(DataPart *part)
{
	IsdFetchSpec spec = { .method = "HEAD", .done = stream_asked, .data = part };

	spec.path = stream_path(part->content, 0);
	part->request = isd_fetch(part->job->c->fetcher, &spec);
}

static gboolean data_stream(IsdDataJob *job, IsdContent *t, GError **error)
{
	DataPart *part = data_part_new(job);
	g_autoptr(GError) local = NULL;

	part->content = t;
	g_free(t->file);
	t->file = g_strdup_printf("%s-%" G_GINT64_MODIFIER "x.%x-%" G_GUINT64_FORMAT,
				  t->ranges ? "rng" : "get", (guint64)t->soid.ino, t->soid.gen,
				  t->version);
	part->need = stream_need(part);
	if (part->need > isd_space_room(job->c)) {
		stream_ask(part);
		return TRUE;
	}
	if (stream_begin(part, &local))
		return TRUE;
	if (g_error_matches(local, ISD_ERROR, ISD_ERROR_NOSPC)) {
		stream_full(part);
		return TRUE;
	}
	g_hash_table_remove(job->parts, part);
	g_propagate_error(error, g_steal_pointer(&local));
	return FALSE;
}

/* --- jobs --- */

/*
 * What a bundle brings is in memory, and then has to find room on the disk.  *room is
 * asked for once and not for each of thousands.
 */
static gboolean data_bundle_fits(IsdDataJob *job, IsdContent *t, guint64 *room)
{
	guint64 need = t->size + FILE_OVERHEAD;

	if (need <= *room) {
		job->promised += need;
		job->c->promised += need;
		*room -= need;
		return TRUE;
	}
	t->status = ISD_CONTENT_FULL;
	t->need = need;
	return FALSE;
}

static void data_split(IsdDataJob *job)
{
	DataPart *bundle = NULL;
	guint64 bytes = 0, room = isd_space_room(job->c);

	for (guint i = 0; i < job->contents->len && !job->error; i++) {
		IsdContent *t = g_ptr_array_index(job->contents, i);

		if (!t->size && !t->ranges)
			continue;	/* nothing to fetch */
		if (t->ranges || t->size > ISD_SMALL_MAX) {
			data_stream(job, t, &job->error);
			room = isd_space_room(job->c);
			continue;
		}
		if (!data_bundle_fits(job, t, &room))
			continue;
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
	job->c->promised -= job->promised;
	g_ptr_array_unref(job->contents);
	g_ptr_array_unref(job->bodies);
	g_clear_error(&job->error);
	g_free(job);
}

/* --- what is left in incoming/ --- */

/* A version that is still wanted: what is there of it is gone on with. */
static gboolean data_is_wanted(IsdClient *c, const char *name)
{
	guint64 ino, version;
	guint gen;
	sqlite3_stmt *st;
	int rc;

	if (sscanf(name, "get-%" G_GINT64_MODIFIER "x.%x-%" G_GUINT64_FORMAT, &ino, &gen,
		   &version) != 3)
		return FALSE;
	rc = isd_sql_row(c->state, NULL, &st, "SELECT 1 FROM client_want JOIN obj USING(id)"
			 " WHERE sino = ? AND sgen = ? AND sino <> 0 AND version = ? LIMIT 1",
			 "iui", (gint64)ino, gen, (gint64)version);
	if (rc > 0)
		sqlite3_reset(st);
	return rc != 0;
}

void isd_data_clean(IsdClient *c)
{
	int fd = openat(c->core->incoming_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	c->litter = FALSE;
	while (dir && (e = readdir(dir)))
		if ((g_str_has_prefix(e->d_name, "get-") || g_str_has_prefix(e->d_name, "rng-")) &&
		    !data_is_wanted(c, e->d_name))
			unlinkat(fd, e->d_name, 0);
	if (dir)
		closedir(dir);
	else if (fd >= 0)
		close(fd);
}
