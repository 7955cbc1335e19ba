// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzz target for kml files.  The input becomes what is behind a header; its
 * first byte says how many of the records that can be seen in it are mended
 * (numbers, lengths, checksums), what is left is damage.  Then all ways to read the
 * log must agree.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "byteorder.h"
#include "klog.h"
#include "sample.h"
#include "util.h"

#define RECORD_MIN	(sizeof(struct kml_rec) + sizeof(struct kml_rec_tail))
#define OFFSETS		4096
#define OWN_HEADER	0xff	/* the input has its own header */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good)
{
	if (!good)
		abort();
}

/* Make whole records of the bytes at p, at most n of them. */
static void mend(char *p, size_t size, unsigned int n)
{
	uint64_t recno = 1;
	size_t len;

	for (; n && size >= RECORD_MIN; n--, p += len, size -= len) {
		struct kml_rec_tail tail = { .magic = cpu_to_le32(KML_REC_MAGIC) };
		struct kml_rec head;

		memcpy(&head, p, sizeof(head));
		len = le32_to_cpu(head.len) & ~7u;
		if (len < RECORD_MIN || len > size)
			len = RECORD_MIN;
		head.len = tail.len = cpu_to_le32(len);
		head.magic = cpu_to_le16(KML_REC_MAGIC);
		head.head_len = cpu_to_le16(sizeof(head));
		memcpy(p, &head, sizeof(head));
		memcpy(p + len - sizeof(tail), &tail, sizeof(tail));
		kml_seal(p, recno++, 0);
	}
}

static void make_header(char *block)
{
	struct kml_header h = {
		.version = cpu_to_le32(KML_VERSION),
		.first_offset = cpu_to_le64(KML_HEADER_SIZE),
		.first_recno = cpu_to_le64(1),
		.fileset = "fset0",
	};

	memcpy(h.magic, KML_MAGIC, sizeof(h.magic));
	h.crc = cpu_to_le32(crc32c(0, &h, sizeof(h)));
	memset(block, 0, KML_HEADER_SIZE);
	memcpy(block, &h, sizeof(h));
}

static void mend_header(char *file)
{
	struct kml_header h;

	memcpy(&h, file, sizeof(h));
	h.crc = 0;
	h.crc = cpu_to_le32(crc32c(0, &h, sizeof(h)));
	memcpy(file, &h, sizeof(h));
}

static int make_file(const uint8_t *data, size_t size)
{
	size_t len = size - 1 + (data[0] == OWN_HEADER ? 0 : KML_HEADER_SIZE);
	char *file = malloc(len ? len : 1);
	int fd = memfd_create("kml", 0);

	must(file && fd >= 0);
	memcpy(file + len - (size - 1), data + 1, size - 1);
	if (data[0] != OWN_HEADER) {
		make_header(file);
		mend(file + KML_HEADER_SIZE, size - 1, data[0]);
	} else if (len >= sizeof(struct kml_header)) {
		mend_header(file);
	}
	must(pwrite_all(fd, file, len, 0) == 0);
	free(file);
	return fd;
}

/* Reads forwards to the end or to damage: the number of offsets passed. */
static size_t forwards(struct klog *log, uint64_t *at, int *ret_rc)
{
	struct klog_header h;
	struct kml_record r;
	size_t n = 0;

	must(klog_header(log, &h) == 0);
	at[0] = h.first_offset;
	while (n < OFFSETS - 1) {
		*ret_rc = klog_read(log, at[n], &r, &at[n + 1]);
		if (*ret_rc != 1)
			break;
		n++;
	}
	return n;
}

static void check_backwards(struct klog *log, const uint64_t *at, size_t n)
{
	struct kml_record r;
	uint64_t prev;

	for (; n; n--)
		must(klog_read_back(log, at[n], &r, &prev) == 1 && prev == at[n - 1]);
	must(klog_read_back(log, at[0], &r, &prev) == 0);
}

static void check_punch(struct klog *log, int fd, const uint64_t *at, size_t n)
{
	uint64_t records, prev;
	struct kml_record r;
	char why[200];

	if (klog_verify(log, &records, why, sizeof(why)) != 0)
		return;
	must(records == n);
	if (n == 0)
		return;
	must(klog_read_back(log, at[n / 2 + 1], &r, &prev) == 1);
	must(klog_punch(fd, at[n / 2 + 1], r.recno) == 0);
	must(klog_verify(log, &records, why, sizeof(why)) == 0 && records == n - n / 2 - 1);
}

static void check(struct klog *log, int fd)
{
	static uint64_t at[OFFSETS];
	uint64_t end, recno, run_end, run_recno;
	int rc = 0, err;
	size_t n = forwards(log, at, &rc);

	if (rc == 1)
		return;
	must(rc == 0 || rc == -EBADMSG);
	err = klog_end(log, &end, &recno);
	if (err) {
		must(err == -EBADMSG && n == 0);
		return;
	}
	must(rc == 0 ? end == at[n] : end > at[n]);
	check_backwards(log, at, n);
	must(klog_end_from(log, at[0], 0, &run_end, &run_recno) == 0 && run_end <= at[n]);
	if (rc == 0)
		check_punch(log, fd, at, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct klog *log;
	int fd, own;

	if (size == 0)
		return 0;
	fd = make_file(data, size);
	own = dup(fd);
	if (klog_open_fd(own, &log) == 0) {
		check(log, fd);
		klog_close(log);
	} else {
		close(own);
	}
	close(fd);
	return 0;
}
