/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET data?sparse: what is not a hole, as frames of offset, length and bytes.
 * Every frame is compared with the version before it goes out.
 */
#include "serve.h"

#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util.h"

#define RANGES_MAX 4096

static bool parse_number(const char **text, uint64_t *ret)
{
	char *end;

	if (!isdigit((unsigned char) **text))
		return false;
	errno = 0;
	*ret = strtoull(*text, &end, 10);
	*text = end;
	return !errno && *ret <= INT64_MAX;
}

static bool parse_range(const char **text, struct mis_range *ret)
{
	if (!parse_number(text, &ret->start) || *(*text)++ != '-')
		return false;
	return parse_number(text, &ret->end) && ret->start < ret->end;
}

bool mis_ranges_parse(const char *text, struct mis_range **ret_ranges, size_t *ret_n)
{
	size_t n = 0, max = 1;
	struct mis_range *ranges;
	const char *p;

	for (p = text; *p; p++)
		max += *p == ',';
	if (max > RANGES_MAX)
		return false;
	ranges = calloc(max, sizeof(*ranges));
	if (!ranges)
		return false;
	for (p = text; n < max; n++, p++) {
		if (!parse_range(&p, &ranges[n]) || (*p && *p != ',') ||
		    (n && ranges[n].start < ranges[n - 1].end)) {
			free(ranges);
			return false;
		}
	}
	*ret_ranges = ranges;
	*ret_n = n;
	return true;
}

static int send_frame(int fd, const struct mis_stamp *stamp, uint64_t off, uint64_t len,
		      mis_sink sink, void *data)
{
	uint64_t head[2] = { htole64(off), htole64(len) };
	char *buf = malloc(sizeof(head) + len);

	if (!buf)
		return MIS_BROKEN;
	memcpy(buf, head, sizeof(head));
	if (len && (pread_all(fd, buf + sizeof(head), len, off) || !mis_unchanged(fd, stamp))) {
		free(buf);
		return MIS_BROKEN;
	}
	return sink(data, buf, sizeof(head) + len) ? MIS_BROKEN : 0;
}

/* The data within [start, end): a file system without SEEK_DATA has no holes. */
static int send_range(int fd, const struct mis_stamp *stamp, uint64_t start, uint64_t end,
		      mis_sink sink, void *data)
{
	while (start < end) {
		off_t from = lseek(fd, start, SEEK_DATA), to;

		if (from < 0 && errno == ENXIO)
			return 0;
		if (from < 0)
			from = start;
		if ((uint64_t) from >= end)
			return 0;
		to = lseek(fd, from, SEEK_HOLE);
		if (to < 0 || (uint64_t) to > end)
			to = end;
		for (start = from; start < (uint64_t) to;) {
			uint64_t len = to - start < MIS_CHUNK ? to - start : MIS_CHUNK;

			if (send_frame(fd, stamp, start, len, sink, data))
				return MIS_BROKEN;
			start += len;
		}
	}
	return 0;
}

int mis_sparse(int fd, const struct mis_stamp *stamp, const struct mis_range *ranges, size_t n,
	       mis_sink sink, void *data)
{
	const struct mis_range all = { 0, stamp->size };
	size_t i;

	if (!n) {
		ranges = &all;
		n = 1;
	}
	for (i = 0; i < n; i++) {
		uint64_t end = ranges[i].end < stamp->size ? ranges[i].end : stamp->size;

		if (send_range(fd, stamp, ranges[i].start, end, sink, data))
			return MIS_BROKEN;
	}
	if (!mis_unchanged(fd, stamp))
		return MIS_BROKEN;
	return send_frame(fd, stamp, stamp->size, 0, sink, data) ? MIS_BROKEN : 200;
}
