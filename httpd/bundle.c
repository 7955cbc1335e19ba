/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST bundle: many small files in one answer.  Here the cost per file is what
 * counts: two queries, open, stat, read, stat, close.
 */
#include "serve.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util.h"

struct bundle_req {
	uint64_t	ino;
	uint32_t	gen;
	uint32_t	pad;
	uint64_t	version;
};

struct bundle_head {
	uint64_t	ino;
	uint32_t	gen;
	uint32_t	status;
	uint64_t	version;
	uint64_t	size;
};

struct out {
	char		*buf;
	size_t		len;
	mis_sink	sink;
	void		*data;
};

static bool has_holes(int fd, const struct stat *st)
{
	if ((uint64_t) st->st_blocks * 512 >= (uint64_t) st->st_size)
		return false;
	return lseek(fd, 0, SEEK_HOLE) < st->st_size;
}

/* Read it all; 200, 413 or 425. */
static int read_small(int fd, const struct mis_stamp *stamp, char *buf)
{
	struct stat st;

	if (stamp->size > MIS_SMALL_MAX)
		return 413;
	if (fstat(fd, &st))
		return 425;
	if (has_holes(fd, &st))
		return 413;
	if (pread_all(fd, buf, stamp->size, 0))
		return 425;
	return mis_unchanged(fd, stamp) ? 200 : 425;
}

static int out_flush(struct out *o)
{
	char *buf = o->buf;
	size_t len = o->len;

	o->buf = NULL;
	o->len = 0;
	if (!len) {
		free(buf);
		return 0;
	}
	return o->sink(o->data, buf, len);
}

/* Room for the largest entry. */
static int out_room(struct out *o)
{
	const size_t entry = sizeof(struct bundle_head) + MIS_SMALL_MAX;

	if (o->buf && o->len + entry > MIS_CHUNK && out_flush(o))
		return MIS_BROKEN;
	if (!o->buf)
		o->buf = malloc(MIS_CHUNK);
	return o->buf ? 0 : MIS_BROKEN;
}

static int bundle_one(const struct mis_fileset *f, struct mis_reader *r,
		      const struct bundle_req *q, struct out *o)
{
	struct kml_oid oid = { .ino = le64toh(q->ino), .gen = le32toh(q->gen) };
	struct bundle_head h = { .ino = q->ino, .gen = q->gen, .version = q->version };
	struct mis_stamp stamp;
	size_t size = 0;
	int status, fd;
	char *p;

	if (out_room(o))
		return MIS_BROKEN;
	p = o->buf + o->len;
	status = mis_object_open(f, r, oid, le64toh(q->version), &fd, &stamp);
	if (status == 200) {
		status = read_small(fd, &stamp, p + sizeof(h));
		close(fd);
	}
	if (status == 200)
		size = stamp.size;
	h.status = htole32(status == 200 ? 0 : status);
	h.size = htole64(size);
	memcpy(p, &h, sizeof(h));
	memset(p + sizeof(h) + size, 0, -size & 7);
	o->len += sizeof(h) + ((size + 7) & ~(size_t) 7);
	return 0;
}

int mis_bundle(const struct mis_fileset *f, struct mis_reader *r, const void *req, size_t len,
	       mis_sink sink, void *data)
{
	const char *p = req;
	struct out o = { .sink = sink, .data = data };
	size_t i;

	if (len % sizeof(struct bundle_req) || len / sizeof(struct bundle_req) > MIS_BUNDLE_MAX)
		return 400;
	for (i = 0; i < len; i += sizeof(struct bundle_req)) {
		struct bundle_req q;

		memcpy(&q, p + i, sizeof(q));
		if (bundle_one(f, r, &q, &o)) {
			free(o.buf);
			return MIS_BROKEN;
		}
	}
	return out_flush(&o) ? MIS_BROKEN : 200;
}
