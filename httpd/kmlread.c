/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET kml: whole records out of the log, as they are on disk.
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
