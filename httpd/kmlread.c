/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET kml: whole records out of the log, as they are on disk; and whether it is still
 * the log that somebody has followed.
 */
#include "serve.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util.h"

/* How many of len bytes are whole records, at most max but for the first one. */
static size_t whole_records(const char *buf, size_t len, size_t max)
{
	size_t done = 0;

	while (len - done >= sizeof(struct kml_rec)) {
		struct kml_rec rec;
		size_t size;

		memcpy(&rec, buf + done, sizeof(rec));
		size = le32toh(rec.len);
		if (le16toh(rec.magic) != KML_REC_MAGIC || size < sizeof(rec) || size & 7 ||
		    size > len - done)
			break;
		if (done && done + size > max)
			break;
		done += size;
	}
	return done;
}

/* Was the front given back while we read? */
static bool front_gone(int fd, uint64_t after)
{
	struct kml_header h;

	return pread_all(fd, &h, sizeof(h), 0) || le64toh(h.first_offset) > after;
}

static int read_at(int fd, uint64_t after, uint64_t end, size_t max, char *buf, size_t *ret_len)
{
	size_t len = end - after < max + KML_REC_MAX ? end - after : max + KML_REC_MAX;
	struct kml_record rec;

	if (pread_all(fd, buf, len, after))
		return 500;
	if (front_gone(fd, after))
		return 410;
	if (kml_decode(buf, len, &rec) < 0)
		return 400;
	*ret_len = whole_records(buf, len, max);
	return 200;
}

int mis_kml_read(const struct mis_fileset *f, uint64_t after, uint64_t end, size_t max,
		 void **ret_buf, size_t *ret_len)
{
	int fd = openat(f->meta_fd, "kml", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	char *buf;
	int status;

	if (fd < 0)
		return 500;
	buf = malloc(max + KML_REC_MAX);
	status = buf ? read_at(fd, after, end, max, buf, ret_len) : 500;
	close(fd);
	if (status == 200)
		*ret_buf = buf;
	else
		free(buf);
	return status;
}

/* The checksum of the record that ends at offset, as it is on disk. */
static int sum_at(int fd, uint64_t offset, uint32_t *ret_crc)
{
	struct kml_rec_tail tail;
	struct kml_header h;
	struct kml_rec rec;
	uint32_t len;

	if (pread_all(fd, &h, sizeof(h), 0))
		return 500;
	if (offset < le64toh(h.first_offset) + sizeof(rec) + sizeof(tail))
		return 410;
	if (pread_all(fd, &tail, sizeof(tail), offset - sizeof(tail)))
		return 404;
	len = le32toh(tail.len);
	if (le32toh(tail.magic) != KML_REC_MAGIC || len > offset - le64toh(h.first_offset) ||
	    pread_all(fd, &rec, sizeof(rec), offset - len) || rec.len != tail.len ||
	    le16toh(rec.magic) != KML_REC_MAGIC)
		return 404;
	if (front_gone(fd, offset - len))
		return 410;
	*ret_crc = le32toh(rec.crc);
	return 200;
}

int mis_kml_sum(const struct mis_fileset *f, uint64_t offset, uint32_t *ret_crc)
{
	int fd = openat(f->meta_fd, "kml", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	int status;

	if (fd < 0)
		return 500;
	status = sum_at(fd, offset, ret_crc);
	close(fd);
	return status;
}
