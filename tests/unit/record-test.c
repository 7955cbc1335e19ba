// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * record.c: what is encoded is decoded the same, damage of any byte is seen,
 * and neither side takes what the format does not allow.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "byteorder.h"
#include "sample.h"
#include "tap.h"
#include "util.h"

static char buf[KML_REC_MAX + KML_DATA_MAX + 4096];

static ssize_t encode_sample(unsigned int recno, struct kml_record *r)
{
	ssize_t n;

	sample_record(recno, r);
	n = kml_encode(buf, sizeof(buf), r);
	need(n > 0, "a sample record cannot be encoded");
	return n;
}

static void round_trips(void)
{
	struct kml_record r, back;
	const char *differs;
	unsigned int i;
	ssize_t n;

	for (i = 1; i <= SAMPLE_ALL; i++) {
		n = encode_sample(i, &r);
		memset(&back, 0x55, sizeof(back));
		ok(n % 8 == 0 && (size_t) n == kml_encoded_size(&r), "sample %u: its size", i);
		ok(kml_decode(buf, n, &back) == n, "sample %u: decoded", i);
		differs = record_differs(&r, &back);
		ok(!differs, "sample %u: the same (%s)", i, differs ? differs : "-");
		ok(kml_encode(buf, n - 1, &r) == -ENOSPC, "sample %u: a byte too little", i);
	}
}

static void unaligned(void)
{
	static char odd[16384];
	struct kml_record r, back;
	bool good = true;
	unsigned int i, shift;
	ssize_t n;

	for (i = 1; i <= SAMPLE_ALL; i++) {
		n = encode_sample(i, &r);
		for (shift = 1; shift < 8; shift++) {
			memcpy(odd + shift, buf, n);
			good = good && kml_decode(odd + shift, n, &back) == n &&
			       !record_differs(&r, &back);
		}
	}
	ok(good, "records are decoded at any alignment");
}

static void flips(void)
{
	struct kml_record r;
	unsigned int i, bit, missed;
	ssize_t n, at;

	for (i = 1; i <= SAMPLE_ALL; i++) {
		n = encode_sample(i, &r);
		missed = 0;
		for (at = 0; at < n; at++) {
			for (bit = 0; bit < 8; bit++) {
				buf[at] ^= 1 << bit;
				missed += kml_decode(buf, n, &r) >= 0;
				buf[at] ^= 1 << bit;
			}
			buf[at] ^= 0xff;
			missed += kml_decode(buf, n, &r) >= 0;
			buf[at] ^= 0xff;
		}
		ok(missed == 0, "sample %u: no byte changes unseen", i);
	}
}

static void truncations(void)
{
	struct kml_record r;
	unsigned int i, wrong;
	ssize_t n, len;
	char *copy;

	for (i = 1; i <= SAMPLE_ALL; i++) {
		n = encode_sample(i, &r);
		wrong = 0;
		for (len = 0; len < n; len++) {
			/* of exactly this size, so that a sanitizer sees more reads */
			copy = malloc(len ? len : 1);
			memcpy(copy, buf, len);
			wrong += kml_decode(copy, len, &r) != -EAGAIN;
			free(copy);
		}
		ok(wrong == 0, "sample %u: not whole at any length", i);
	}
}

static void seal(void)
{
	struct kml_record r, back;
	ssize_t n = encode_sample(2, &r);

	kml_seal(buf, 1ULL << 60, 99);
	ok(kml_decode(buf, n, &back) == n && back.recno == 1ULL << 60 && back.seq == 99,
	   "a sealed record has its number");
	back.recno = r.recno;
	back.seq = r.seq;
	ok(!record_differs(&r, &back), "and is the same otherwise");
}

static void refused(const char *what, const struct kml_record *r)
{
	ok(kml_encode(buf, sizeof(buf), r) == -EINVAL, "not encoded: %s", what);
}

static void bad_names(void)
{
	static const struct kml_str names[] = {
		{ "", 0 }, { ".", 1 }, { "..", 2 }, { "a/b", 3 }, { "a\0b", 3 },
	};
	static const struct kml_str paths[] = {
		{ "", 0 }, { "a", 1 }, { "//", 2 }, { "/a/", 3 }, { "/a//b", 5 },
		{ "/a/..", 5 }, { "/./a", 4 }, { "/a\0", 3 },
	};
	struct kml_record r = { .opcode = KML_CREATE };
	char longest[256];
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		r.name = names[i];
		refused("an invalid name", &r);
	}
	memset(longest, 'x', sizeof(longest));
	r.name = (struct kml_str) { longest, 256 };
	refused("a name of 256 bytes", &r);
	r.name.len = 255;
	ok(kml_encode(buf, sizeof(buf), &r) > 0, "a name of 255 bytes");
	for (i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		r.dir = paths[i];
		refused("an invalid path", &r);
	}
}

static void long_path(void)
{
	struct kml_record r = { .opcode = KML_CREATE, .name = { "x", 1 } }, back;
	static char path[100 * 256];
	ssize_t n;
	int i;

	memset(path, 'd', sizeof(path));
	for (i = 0; i < 100; i++)
		path[i * 256] = '/';
	r.dir = (struct kml_str) { path, sizeof(path) };
	n = kml_encode(buf, sizeof(buf), &r);
	ok(n > 0 && kml_decode(buf, n, &back) == n && !record_differs(&r, &back),
	   "a path of 25600 bytes");
}

static void bad_values(void)
{
	static struct kml_range ranges[KML_RANGES_MAX + 1];
	static const struct { uint64_t off1, len1, off2, len2; } bad[] = {
		{ 10, 5, 14, 1 }, { 10, 5, 0, 1 }, { 10, 0, 20, 1 },
		{ 10, 5, 1ULL << 63, 1 }, { 10, 5, 20, 1ULL << 63 },
	};
	struct kml_record r = { .opcode = KML_CLOSE, .time.nsec = 1000000000 };
	size_t i;

	refused("a billion nanoseconds", &r);
	r.time.nsec = 0;
	r.has_attr = true;
	r.attr.size = 1ULL << 63;
	refused("a size beyond loff_t", &r);
	r.attr.size = 0;
	r.attr.mtime.nsec = 1000000000;
	refused("an mtime's nanoseconds", &r);
	r.attr.mtime.nsec = 0;
	r.has_ranges = true;
	r.ranges = ranges;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		r.n_ranges = 2;
		ranges[0].off = cpu_to_le64(bad[i].off1);
		ranges[0].len = cpu_to_le64(bad[i].len1);
		ranges[1].off = cpu_to_le64(bad[i].off2);
		ranges[1].len = cpu_to_le64(bad[i].len2);
		refused("ranges out of order or too far", &r);
	}
	for (i = 0; i <= KML_RANGES_MAX; i++) {
		ranges[i].off = cpu_to_le64(i * 2);
		ranges[i].len = cpu_to_le64(1);
	}
	r.n_ranges = KML_RANGES_MAX + 1;
	refused("too many ranges", &r);
	r.n_ranges = KML_RANGES_MAX;
	ok(kml_encode(buf, sizeof(buf), &r) > 0, "as many ranges as there may be");
}

static void xattrs(void)
{
	static char blob[3 * 65536 + 4096], value[65537];
	struct kml_record r = { .opcode = KML_CREATE, .xattrs = blob }, back;
	struct kml_str name, got;
	char longest[256];
	size_t pos = 0;
	ssize_t n;

	memset(longest, 'n', sizeof(longest));
	ok(kml_xattr_put(NULL, 0, "user.a", 6, NULL, 3) == 8 + 24, "an xattr is measured");
	ok(kml_xattr_put(blob, 31, "user.a", 6, "abc", 3) == -ENOSPC, "and needs its room");
	ok(kml_xattr_put(blob, 9999, "", 0, "abc", 3) == -EINVAL, "a name must not be empty");
	ok(kml_xattr_put(blob, 9999, longest, 256, "", 0) == -EINVAL, "nor have 256 bytes");
	ok(kml_xattr_put(blob, sizeof(blob), "a", 1, value, 65537) == -EINVAL,
	   "a value must not have more than 65536");
	n = kml_xattr_put(blob, sizeof(blob), longest, 255, value, 65536);
	ok(n > 65536, "the largest is taken");
	r.xattrs_len = n;
	n = kml_encode(buf, sizeof(buf), &r);
	ok(n > 0 && kml_decode(buf, n, &back) == n && !record_differs(&r, &back),
	   "and comes back");
	ok(kml_xattr_next(back.xattrs, back.xattrs_len, &pos, &name, &got) &&
	   name.len == 255 && got.len == 65536 &&
	   !kml_xattr_next(back.xattrs, back.xattrs_len, &pos, &name, &got), "and is stepped over");
	r.xattrs_len -= 8;
	refused("a blob that is cut off", &r);
	r.xattrs_len += 8;
	for (int i = 0; i < 2; i++)
		r.xattrs_len += kml_xattr_put(blob + r.xattrs_len, sizeof(blob) - r.xattrs_len,
					      "x", 1, value, 65536);
	refused("a record that is longer than a log may hold", &r);
}

/* A record with the items at items, sealed but not checked by the encoder. */
static ssize_t forge(const void *items, size_t len, size_t extra_head)
{
	struct kml_rec head = {
		.len = cpu_to_le32(sizeof(head) + extra_head + len + 8),
		.magic = cpu_to_le16(KML_REC_MAGIC),
		.head_len = cpu_to_le16(sizeof(head) + extra_head),
		.opcode = cpu_to_le16(KML_CREATE),
	};
	struct kml_rec_tail tail = { head.len, cpu_to_le32(KML_REC_MAGIC) };
	char *p = buf;

	memcpy(p, &head, sizeof(head));
	memset(p + sizeof(head), 0xee, extra_head);
	p += sizeof(head) + extra_head;
	memcpy(p, items, len);
	memcpy(p + len, &tail, sizeof(tail));
	kml_seal(buf, 1, 1);
	return le32_to_cpu(head.len);
}

static ssize_t decode_forged(const void *items, size_t len)
{
	ssize_t n = forge(items, len, 0);
	struct kml_record r;
	ssize_t got = kml_decode(buf, n, &r);

	return got == n ? 0 : got;
}

static void forged(void)
{
	static const char unknown[] = "\x63\0\0\0\x03\0\0\0xyz\0\0\0\0\0";
	static const char too_long[] = "\x63\0\0\0\x09\0\0\0xyz\0\0\0\0\0";
	static const char huge[] = "\x63\0\0\0\xff\xff\xff\xffxyz\0\0\0\0\0";
	static const char twice[] = "\1\0\0\0\1\0\0\0a\0\0\0\0\0\0\0"
				    "\1\0\0\0\1\0\0\0b\0\0\0\0\0\0\0";
	static const char slash[] = "\1\0\0\0\3\0\0\0a/b\0\0\0\0\0";
	static const char dots[] = "\1\0\0\0\2\0\0\0..\0\0\0\0\0\0";
	static const char shorter[] = "\5\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0";
	static const char apart[] =
		"\x08\0\0\0\x09\0\0\0\0\0\0\0\1\0\0\0a\0\0\0\0\0\0\0\1\0\0\0\1\0\0\0b\0\0\0\0\0\0\0"
		"\x08\0\0\0\x09\0\0\0\0\0\0\0\1\0\0\0a\0\0\0\0\0\0\0";
	struct kml_record r;
	ssize_t n;

	ok(decode_forged(unknown, 16) == 0, "an unknown item is skipped");
	ok(decode_forged(too_long, 16) == -EBADMSG, "an item that ends in the trailer");
	ok(decode_forged(huge, 16) == -EBADMSG, "an item of four gigabytes");
	ok(decode_forged(unknown, 8) == -EBADMSG, "an item without its data");
	ok(decode_forged(twice, 32) == -EBADMSG, "two names");
	ok(decode_forged(slash, 16) == -EBADMSG, "a name with a slash");
	ok(decode_forged(dots, 16) == -EBADMSG, "the name \"..\"");
	ok(decode_forged(shorter, 16) == -EBADMSG, "an ATTR of 8 bytes");
	ok(decode_forged(apart, 24) == 0, "an xattr");
	ok(decode_forged(apart, 64) == -EBADMSG, "xattrs that are not together");
	n = forge(unknown, 16, 24);
	ok(kml_decode(buf, n, &r) == n && r.opcode == KML_CREATE, "a longer head");
}

static void opcodes(void)
{
	unsigned int i, named = 0;
	const char *name;

	for (i = 0; i < 256; i++) {
		name = kml_opcode_name(i);
		if (name && kml_opcode_parse(name) == (int) i)
			named++;
	}
	ok(named == 15, "15 operations have names that lead back");
	ok(kml_opcode_parse("rEnAmE") == KML_RENAME, "in any case");
	ok(kml_opcode_parse("RENAM") == -1 && kml_opcode_parse("RENAMED") == -1 &&
	   kml_opcode_parse("") == -1, "but whole");
}

/* What version 1 stored is read, and written, the same for ever. */
static void stored(const char *path, uint64_t off, unsigned int from, unsigned int to)
{
	static char file[65536];
	struct kml_record r, back;
	const char *differs;
	ssize_t n, len, size;
	int fd = open(path, O_RDONLY);

	size = fd < 0 ? -1 : pread(fd, file, sizeof(file), off);
	need(size > 0, path);
	close(fd);
	for (n = 0; from <= to; from++, n += len) {
		sample_record(from, &r);
		len = kml_decode(file + n, size - n, &back);
		differs = len < 0 ? "damaged" : record_differs(&r, &back);
		ok(!differs, "stored sample %u (%s)", from, differs ? differs : "-");
		if (len < 0)
			return;
		ok(kml_encode(buf, sizeof(buf), &r) == len && memcmp(buf, file + n, len) == 0,
		   "sample %u is stored as ever", from);
	}
	ok(n == size, "%s has no more", path);
}

/* Garbage that pretends to be a record must not be believed. */
static void garbage(void)
{
	unsigned int i, k, believed = 0;
	struct kml_record r;

	srandom(tap_seed());
	for (i = 0; i < 20000; i++) {
		static char items[512];
		size_t len = random() % 64 * 8;
		ssize_t n, got;

		for (k = 0; k < len; k++)
			items[k] = random() % 4 ? random() % 16 : random();
		n = forge(items, len, 0);
		got = kml_decode(buf, n, &r);
		believed += got != n && got != -EBADMSG;
	}
	ok(believed == 0, "random items are taken or refused");
}

int main(void)
{
	round_trips();
	unaligned();
	flips();
	truncations();
	seal();
	bad_names();
	long_path();
	bad_values();
	xattrs();
	forged();
	opcodes();
	stored(SAMPLES "/v1.kml", KML_HEADER_SIZE, 1, SAMPLE_LOG);
	stored(SAMPLES "/v1.wire", 0, SAMPLE_LOG + 1, SAMPLE_ALL);
	garbage();
	return tap_done();
}
