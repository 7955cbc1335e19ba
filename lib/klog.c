// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * kml files (doc/kml.md): open, read both ways, find the end, verify, give
 * back the front.  Readers need no lock: a log only grows, and what is not
 * whole yet fails its checksum and is looked at again.
 */
#include <config.h>

#include "klog.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "byteorder.h"
#include "util.h"

#define BUF_SIZE	(256 * 1024)	/* more than KML_REC_MAX: any record fits */
#define RECORD_MIN	(sizeof(struct kml_rec) + sizeof(struct kml_rec_tail))
#define HEADER_TRIES	10

_Static_assert(BUF_SIZE > KML_REC_MAX, "a record must fit into the buffer");
_Static_assert(sizeof(struct kml_header) <= KML_HEADER_SIZE, "size of the header");

struct klog {
	int			fd;
	struct klog_header	header;
	/* A window of the file. */
	uint64_t		buf_off;
	size_t			buf_len;
	char			buf[BUF_SIZE];
};

/* Header */

static uint32_t header_crc(const struct kml_header *d)
{
	struct kml_header copy = *d;

	copy.crc = 0;
	return crc32c(0, &copy, sizeof(copy));
}

static void header_to_disk(struct kml_header *d, const struct klog_header *h)
{
	*d = (struct kml_header) {
		.version = cpu_to_le32(KML_VERSION),
		.epoch = cpu_to_le64(h->epoch),
		.first_offset = cpu_to_le64(h->first_offset),
		.first_recno = cpu_to_le64(h->first_recno),
	};
	memcpy(d->magic, KML_MAGIC, sizeof(d->magic));
	memcpy(d->fileset_uuid, h->fileset_uuid, sizeof(d->fileset_uuid));
	memcpy(d->replica_uuid, h->replica_uuid, sizeof(d->replica_uuid));
	memcpy(d->fileset, h->fileset, strnlen(h->fileset, KML_FSET_MAX));
	d->crc = cpu_to_le32(header_crc(d));
}

/* -EAGAIN: the checksum is wrong. */
static int header_from_disk(struct klog_header *h, const struct kml_header *d)
{
	if (memcmp(d->magic, KML_MAGIC, sizeof(d->magic)) != 0)
		return -EBADMSG;
	if (le32_to_cpu(d->version) != KML_VERSION)
		return -EPROTONOSUPPORT;
	if (le32_to_cpu(d->crc) != header_crc(d))
		return -EAGAIN;
	if (d->flags)
		return -EPROTONOSUPPORT;
	h->epoch = le64_to_cpu(d->epoch);
	h->first_offset = le64_to_cpu(d->first_offset);
	h->first_recno = le64_to_cpu(d->first_recno);
	memcpy(h->fileset_uuid, d->fileset_uuid, sizeof(h->fileset_uuid));
	memcpy(h->replica_uuid, d->replica_uuid, sizeof(h->replica_uuid));
	memcpy(h->fileset, d->fileset, sizeof(h->fileset));
	if (h->first_offset < KML_HEADER_SIZE || h->first_offset % 8 || h->first_recno == 0 ||
	    h->first_offset > INT64_MAX || h->fileset[sizeof(h->fileset) - 1])
		return -EBADMSG;
	return 0;
}

static int header_read_once(int fd, struct klog_header *h)
{
	struct kml_header d;
	int err = pread_all(fd, &d, sizeof(d), 0);

	if (err == -ENODATA)
		return -EBADMSG;
	return err ? err : header_from_disk(h, &d);
}

/* Reading and writing are not atomic: a header may be half the new one. */
static int header_read(int fd, struct klog_header *h)
{
	const struct timespec nap = { 0, 1000000 };
	int i, err;

	for (i = 0; i < HEADER_TRIES; i++) {
		if (i)
			nanosleep(&nap, NULL);
		err = header_read_once(fd, h);
		if (err != -EAGAIN)
			return err;
	}
	return -EBADMSG;
}

static int header_write(int fd, const struct klog_header *h)
{
	struct kml_header d;
	int err;

	header_to_disk(&d, h);
	err = pwrite_all(fd, &d, sizeof(d), 0);
	if (!err && fdatasync(fd) != 0)
		err = -errno;
	return err;
}

static int fill_new(int fd, const struct klog_header *h)
{
	if (ftruncate(fd, h->first_offset) != 0)
		return -errno;
	return header_write(fd, h);
}

int klog_create(int dirfd, const char *path, const struct klog_header *h)
{
	struct klog_header first = *h;
	int fd, err;

	if (first.first_offset == 0)
		first.first_offset = KML_HEADER_SIZE;
	if (first.first_recno == 0)
		first.first_recno = 1;
	if (first.first_offset < KML_HEADER_SIZE || first.first_offset % 8 ||
	    !memchr(h->fileset, 0, sizeof(h->fileset)) || !fileset_name_ok(h->fileset))
		return -EINVAL;
	fd = openat(dirfd, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	err = fill_new(fd, &first);
	if (close(fd) != 0 && !err)
		err = -errno;
	if (err)
		unlinkat(dirfd, path, 0);
	return err;
}

int klog_open_fd(int fd, struct klog **ret_log)
{
	struct klog *log;
	struct stat st;
	int err;

	if (fstat(fd, &st) != 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EBADMSG;
	log = malloc(sizeof(*log));
	if (!log)
		return -ENOMEM;
	err = header_read(fd, &log->header);
	if (err) {
		free(log);
		return err;
	}
	log->fd = fd;
	log->buf_off = 0;
	log->buf_len = 0;
	*ret_log = log;
	return 0;
}

int klog_open(int dirfd, const char *path, struct klog **ret_log)
{
	/* O_NONBLOCK: not to hang on a fifo */
	int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int err;

	if (fd < 0)
		return -errno;
	err = klog_open_fd(fd, ret_log);
	if (err)
		close(fd);
	return err;
}

void klog_close(struct klog *log)
{
	if (!log)
		return;
	close(log->fd);
	free(log);
}

int klog_header(struct klog *log, struct klog_header *ret_h)
{
	struct klog_header h;
	int err = header_read(log->fd, &h);

	if (err)
		return err;
	log->header = h;
	if (ret_h)
		*ret_h = h;
	return 0;
}

/* The window */

static uint64_t buf_end(const struct klog *log)
{
	return log->buf_off + log->buf_len;
}

/* Read the window at off; it is short where the file ends. */
static int fill(struct klog *log, uint64_t off)
{
	log->buf_off = off;
	log->buf_len = 0;
	while (log->buf_len < BUF_SIZE) {
		ssize_t n = pread(log->fd, log->buf + log->buf_len, BUF_SIZE - log->buf_len,
				  buf_end(log));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			log->buf_len = 0;
			return -errno;
		}
		if (n == 0)
			break;
		log->buf_len += n;
	}
	return 0;
}

/* Read the window that ends at end. */
static int fill_back(struct klog *log, uint64_t end)
{
	return fill(log, end > BUF_SIZE ? end - BUF_SIZE : 0);
}

static ssize_t decode_window(struct klog *log, uint64_t off, struct kml_record *rec)
{
	ssize_t n;

	if (off < log->buf_off || off > buf_end(log))
		return -EAGAIN;
	n = kml_decode(log->buf + (off - log->buf_off), buf_end(log) - off, rec);
	return n > KML_REC_MAX ? -EBADMSG : n;
}

static bool not_whole(ssize_t n)
{
	return n == -EAGAIN || n == -EBADMSG;
}

/*
 * The record at off: its length, or -EAGAIN or -EBADMSG as from kml_decode().
 * The window may have been read while the record was being written, so only
 * what a fresh one says counts.
 */
static ssize_t load(struct klog *log, uint64_t off, struct kml_record *rec)
{
	ssize_t n = decode_window(log, off, rec);
	int err;

	if (!not_whole(n))
		return n;
	err = fill(log, off);
	return err ? err : decode_window(log, off, rec);
}

/*
 * The record that ends at end, if one does: its length, 0 if there is none.
 * The 8 bytes before end are in the window.
 */
static ssize_t ends_at(struct klog *log, uint64_t end, struct kml_record *rec)
{
	struct kml_rec_tail tail;
	uint64_t len;
	int err;

	memcpy(&tail, log->buf + (end - sizeof(tail) - log->buf_off), sizeof(tail));
	if (le32_to_cpu(tail.magic) != KML_REC_MAGIC)
		return 0;
	len = le32_to_cpu(tail.len);
	if (len % 8 || len < RECORD_MIN || len > KML_REC_MAX ||
	    len > end - log->header.first_offset)
		return 0;
	if (end - len < log->buf_off) {
		err = fill_back(log, end);
		if (err)
			return err;
		if (buf_end(log) < end)
			return 0;
	}
	if (kml_decode(log->buf + (end - len - log->buf_off), len, rec) != (ssize_t) len)
		return 0;
	return len;
}

static bool in_window(const struct klog *log, uint64_t end)
{
	return end >= log->buf_off + sizeof(struct kml_rec_tail) && end <= buf_end(log);
}

/* Reading */

/*
 * No whole record at offset: is this the end of the log, or damage?  Damage
 * if whole records follow; but then the writer may have finished this one
 * since we read it.
 */
static int read_failed(struct klog *log, uint64_t offset, struct kml_record *ret_rec,
		       uint64_t *ret_next)
{
	uint64_t end, recno;
	ssize_t n;
	int err;

	if (offset >= buf_end(log))
		return 0;
	err = klog_end(log, &end, &recno);
	if (err)
		return err;
	if (offset < log->header.first_offset)
		return -ERANGE;
	if (end <= offset)
		return 0;
	n = load(log, offset, ret_rec);
	if (n > 0) {
		*ret_next = offset + n;
		return 1;
	}
	return not_whole(n) ? -EBADMSG : n;
}

int klog_read(struct klog *log, uint64_t offset, struct kml_record *ret_rec,
	      uint64_t *ret_next)
{
	ssize_t n;

	if (offset < log->header.first_offset)
		return -ERANGE;
	if (offset % 8 || offset > INT64_MAX - BUF_SIZE)
		return -EBADMSG;
	n = load(log, offset, ret_rec);
	if (n > 0) {
		*ret_next = offset + n;
		return 1;
	}
	return not_whole(n) ? read_failed(log, offset, ret_rec, ret_next) : n;
}

/* 1 and the record that ends at offset, or 0. */
static ssize_t load_back(struct klog *log, uint64_t offset, struct kml_record *rec)
{
	ssize_t n = in_window(log, offset) ? ends_at(log, offset, rec) : 0;
	int err;

	if (n)
		return n;
	err = fill_back(log, offset);
	if (err)
		return err;
	return in_window(log, offset) ? ends_at(log, offset, rec) : 0;
}

int klog_read_back(struct klog *log, uint64_t offset, struct kml_record *ret_rec,
		   uint64_t *ret_prev)
{
	ssize_t n;
	int err;

	if (offset % 8 || offset > INT64_MAX - BUF_SIZE)
		return -EBADMSG;
	if (offset > log->header.first_offset) {
		n = load_back(log, offset, ret_rec);
		if (n > 0) {
			*ret_prev = offset - n;
			return 1;
		}
		if (n < 0)
			return n;
		/* Given back while we read? */
		err = klog_header(log, NULL);
		if (err)
			return err;
	}
	if (offset == log->header.first_offset)
		return 0;
	return offset < log->header.first_offset ? -ERANGE : -EBADMSG;
}

/* The end */

/* Records that follow each other without a gap. */
struct chain {
	uint64_t	start, end;
	uint64_t	last;		/* number of the last record */
	bool		sound;		/* cannot lie within a torn record, see below */
};

/*
 * Whether nothing was ever written there: space that is reserved.  Only saves
 * looking at it, so a file system that does not know is no error.
 */
static bool is_hole(const struct klog *log, uint64_t from, uint64_t to)
{
	off_t data = lseek(log->fd, from, SEEK_DATA);

	return data < 0 ? errno == ENXIO : (uint64_t) data >= to;
}

/*
 * Get the window that ends at p, which may move back over a hole or behind
 * the end of a file that has just become shorter.
 */
static int window_back(struct klog *log, uint64_t *p)
{
	uint64_t from = *p > BUF_SIZE ? *p - BUF_SIZE : 0;
	int err;

	if (is_hole(log, from, *p)) {
		*p = from;
		return 0;
	}
	err = fill_back(log, *p);
	if (!err && !in_window(log, *p))
		*p = buf_end(log) & ~(uint64_t) 7;
	return err;
}

/* The last record that ends at pos or before: 1 and where, or 0. */
static int find_back(struct klog *log, uint64_t pos, struct kml_record *rec,
		     uint64_t *ret_start, uint64_t *ret_end)
{
	uint64_t p = pos & ~(uint64_t) 7;
	ssize_t n;
	int err;

	while (p >= log->header.first_offset + RECORD_MIN) {
		if (!in_window(log, p)) {
			err = window_back(log, &p);
			if (err)
				return err;
			continue;
		}
		n = ends_at(log, p, rec);
		if (n < 0)
			return n;
		if (n > 0) {
			*ret_start = p - n;
			*ret_end = p;
			return 1;
		}
		p -= 8;
	}
	return 0;
}

/*
 * The last chain that ends at pos or before; an empty one at the front if there
 * is none.  It is followed back to the front or for more than KML_REC_MAX bytes.
 */
static int find_chain(struct klog *log, uint64_t pos, struct chain *c)
{
	const struct klog_header *h = &log->header;
	struct kml_record rec;
	uint64_t first;
	ssize_t n;
	int rc;

	*c = (struct chain) { h->first_offset, h->first_offset, h->first_recno - 1, true };
	rc = find_back(log, pos, &rec, &c->start, &c->end);
	if (rc <= 0)
		return rc;
	c->last = first = rec.recno;
	while (c->start > h->first_offset && c->end - c->start <= KML_REC_MAX) {
		n = load_back(log, c->start, &rec);
		if (n < 0)
			return n;
		if (n == 0 || rec.recno != first - 1)
			break;
		c->start -= n;
		first = rec.recno;
	}
	c->sound = c->end - c->start > KML_REC_MAX ||
		   (c->start == h->first_offset && first == h->first_recno);
	return 0;
}

/*
 * Whether a chain lies within one torn record: the head of record recno is at
 * off and claims all its bytes.  Not if the chain follows a trailer that agrees
 * with off: then that is a whole record whose head is damaged.
 */
static bool swallowed(struct klog *log, uint64_t off, uint64_t recno, const struct chain *c)
{
	struct kml_rec_tail tail;
	struct kml_rec d;

	if (c->start < off + RECORD_MIN || pread_all(log->fd, &d, sizeof(d), off) != 0 ||
	    pread_all(log->fd, &tail, sizeof(tail), c->start - sizeof(tail)) != 0)
		return false;
	if (le32_to_cpu(tail.magic) == KML_REC_MAGIC && le32_to_cpu(tail.len) == c->start - off)
		return false;
	return le16_to_cpu(d.magic) == KML_REC_MAGIC && le64_to_cpu(d.recno) == recno &&
	       le32_to_cpu(d.len) <= KML_REC_MAX && off + le32_to_cpu(d.len) > c->end;
}

/*
 * An extended attribute may hold the very bytes of records.  If the record
 * that carries it is torn, they are not the end of the log: a chain that can
 * lie within one record counts only if none claims it.
 */
int klog_end(struct klog *log, uint64_t *ret_offset, uint64_t *ret_recno)
{
	const struct klog_header *h = &log->header;
	struct chain best, c;
	struct stat st;
	uint64_t pos;
	int rc;

	rc = klog_header(log, NULL);
	if (rc)
		return rc;
	if (fstat(log->fd, &st) != 0)
		return -errno;
	pos = st.st_size;
	if (pos < h->first_offset)
		return -EBADMSG;
	log->buf_len = 0;
	rc = find_chain(log, pos, &best);
	for (c = best; !rc && !c.sound;) {
		rc = find_chain(log, c.start, &c);
		if (!rc && swallowed(log, c.end, c.last + 1, &best))
			best = c;
	}
	if (rc)
		return rc;
	*ret_offset = best.end;
	*ret_recno = best.last;
	return 0;
}

int klog_end_from(struct klog *log, uint64_t offset, uint64_t recno,
		  uint64_t *ret_offset, uint64_t *ret_recno)
{
	struct kml_record rec;
	ssize_t n;

	if (offset < log->header.first_offset)
		return -ERANGE;
	if (offset % 8 || offset > INT64_MAX - BUF_SIZE)
		return -EBADMSG;
	log->buf_len = 0;
	while ((n = load(log, offset, &rec)) > 0 && rec.recno == recno + 1) {
		offset += n;
		recno++;
	}
	if (n < 0 && !not_whole(n))
		return n;
	*ret_offset = offset;
	*ret_recno = recno;
	return 0;
}

/* Verify */

static int check_record(const struct kml_record *rec, uint64_t off, uint64_t recno,
			char *why, size_t why_size)
{
	if (rec->recno != recno) {
		snprintf(why, why_size, "the record at offset %" PRIu64 " has number %" PRIu64
			 ", but %" PRIu64 " is due", off, rec->recno, recno);
		return -EBADMSG;
	}
	if (rec->data.ptr || rec->file.ptr || rec->has_version || rec->ref_own) {
		snprintf(why, why_size, "record %" PRIu64 " at offset %" PRIu64
			 " holds items that never are in a log", recno, off);
		return -EBADMSG;
	}
	return 0;
}

int klog_verify(struct klog *log, uint64_t *ret_records, char *why, size_t why_size)
{
	uint64_t off, next, recno, count = 0;
	struct kml_record rec;
	int rc;

	rc = klog_header(log, NULL);
	if (rc)
		return rc;
	off = log->header.first_offset;
	recno = log->header.first_recno;
	while ((rc = klog_read(log, off, &rec, &next)) != 0) {
		if (rc == -ERANGE && log->header.first_offset > off) {
			/* given back while we read */
			off = log->header.first_offset;
			recno = log->header.first_recno;
			continue;
		}
		if (rc == -EBADMSG)
			snprintf(why, why_size, "record %" PRIu64 " at offset %" PRIu64
				 " is damaged", recno, off);
		if (rc < 0)
			return rc;
		rc = check_record(&rec, off, recno, why, why_size);
		if (rc)
			return rc;
		off = next;
		recno++;
		count++;
	}
	*ret_records = count;
	return 0;
}

/* The front */

/* Whether record recno ends at offset. */
static int check_boundary(int fd, uint64_t offset, uint64_t recno)
{
	struct kml_record rec;
	struct klog *log;
	uint64_t prev;
	int rc, own;

	own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (own < 0)
		return -errno;
	rc = klog_open_fd(own, &log);
	if (rc) {
		close(own);
		return rc;
	}
	rc = klog_read_back(log, offset, &rec, &prev);
	if (rc > 0)
		rc = rec.recno == recno ? 0 : -EINVAL;
	else if (rc == 0)
		rc = log->header.first_recno - 1 == recno ? 0 : -EINVAL;
	klog_close(log);
	return rc == -EBADMSG ? -EINVAL : rc;
}

int klog_punch(int fd, uint64_t offset, uint64_t recno)
{
	const uint64_t end = offset & ~(uint64_t) (KML_HEADER_SIZE - 1);
	struct klog_header h;
	int err;

	err = check_boundary(fd, offset, recno);
	if (err)
		return err;
	err = header_read(fd, &h);
	if (err)
		return err;
	h.first_offset = offset;
	h.first_recno = recno + 1;
	err = header_write(fd, &h);
	if (err || end <= KML_HEADER_SIZE)
		return err;
	/* Also what an earlier call did not come to. */
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, KML_HEADER_SIZE,
		      end - KML_HEADER_SIZE) != 0 && errno != EOPNOTSUPP)
		return -errno;
	return 0;
}
