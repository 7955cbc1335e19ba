// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzz target for kml_decode().  The first byte chooses: the rest is a record
 * as it is, or its frame and checksum are mended first, so that the fuzzer gets
 * to the items.  What can be decoded must be encodable and come back the same.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "byteorder.h"
#include "crc32c.h"
#include "sample.h"

#define MEND		0x01
#define LONG_HEAD	0x02

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good)
{
	if (!good)
		abort();
}

static void mend(char *rec, size_t len, unsigned int how)
{
	struct kml_rec_tail tail = { cpu_to_le32(len), cpu_to_le32(KML_REC_MAGIC) };
	struct kml_rec head;

	memcpy(&head, rec, sizeof(head));
	head.len = tail.len;
	head.magic = cpu_to_le16(KML_REC_MAGIC);
	if (!(how & LONG_HEAD))
		head.head_len = cpu_to_le16(sizeof(head));
	memcpy(rec, &head, sizeof(head));
	memcpy(rec + len - sizeof(tail), &tail, sizeof(tail));
	kml_seal(rec, le64_to_cpu(head.recno), le64_to_cpu(head.seq));
}

static void use(const struct kml_record *r)
{
	struct kml_str name, value;
	size_t pos = 0;
	uint64_t off, len, sum = 0;
	unsigned int i;

	while (kml_xattr_next(r->xattrs, r->xattrs_len, &pos, &name, &value))
		must(name.len > 0 && !memchr(name.ptr, 0, name.len) &&
		     crc32c(0, value.ptr, value.len) == crc32c_table(0, value.ptr, value.len));
	must(pos == r->xattrs_len);
	for (i = 0; i < r->n_ranges; i++) {
		kml_range_get(r, i, &off, &len);
		must(off >= sum && len > 0 && off + len <= INT64_MAX);
		sum = off + len;
	}
}

static void check(const char *rec, size_t size)
{
	struct kml_record r, back;
	ssize_t n = kml_decode(rec, size, &r), m;
	char *again;

	if (n < 0)
		return;
	must((size_t) n <= size);
	use(&r);
	m = kml_encoded_size(&r);
	must(m <= n);
	again = malloc(m);
	must(again && kml_encode(again, m, &r) == m);
	must(kml_decode(again, m, &back) == m && !record_differs(&r, &back));
	free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t len = size ? size - 1 : 0;
	char *rec;

	if (size == 0)
		return 0;
	if (data[0] & MEND) {
		len &= ~(size_t) 7;
		if (len < sizeof(struct kml_rec) + sizeof(struct kml_rec_tail))
			return 0;
	}
	rec = malloc(len ? len : 1);
	must(rec != NULL);
	memcpy(rec, data + 1, len);
	if (data[0] & MEND)
		mend(rec, len, data[0]);
	check(rec, len);
	free(rec);
	return 0;
}
