// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * util.c, crc32c.c and last_rcvd.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "last_rcvd.h"
#include "tap.h"
#include "util.h"

/* RFC 3720, B.4, and the check value of the polynomial. */
static void crc_vectors(void)
{
	static const unsigned char read_command[48] = {
		0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 4, 0,
		0, 0, 0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
	};
	unsigned char zeros[32] = { 0 }, ones[32], up[32], down[32];
	int i;

	memset(ones, 0xff, sizeof(ones));
	for (i = 0; i < 32; i++) {
		up[i] = i;
		down[i] = 31 - i;
	}
	ok(crc32c(0, zeros, 32) == 0x8a9136aa, "crc32c of zeros");
	ok(crc32c(0, ones, 32) == 0x62a8ab43, "of ones");
	ok(crc32c(0, up, 32) == 0x46dd794e, "of 0 to 31");
	ok(crc32c(0, down, 32) == 0x113fdb5c, "of 31 to 0");
	ok(crc32c(0, read_command, 48) == 0xd9963a56, "of an iSCSI command");
	ok(crc32c(0, "123456789", 9) == 0xe3069283, "of digits");
	ok(crc32c(7, "", 0) == 7, "of nothing");
}

static void crc_same(void)
{
	static unsigned char buf[3000];
	unsigned int i, wrong = 0;

	for (i = 0; i < sizeof(buf); i++)
		buf[i] = random();
	for (i = 0; i < 2000; i++) {
		size_t at = random() % 64, len = random() % (sizeof(buf) - 64);
		size_t half = len ? random() % len : 0;
		uint32_t crc = crc32c(0, buf + at, len);

		wrong += crc != crc32c_table(0, buf + at, len);
		wrong += crc != crc32c(crc32c(0, buf + at, half), buf + at + half, len - half);
		wrong += crc != crc32c_table(crc32c(0, buf + at, half), buf + at + half,
					     len - half);
	}
	ok(wrong == 0, "by instruction, by table and in pieces the same");
}

static void escapes(const char *name, size_t len, const char *want)
{
	char *got = name_escape(name, len);

	ok(got && strcmp(got, want) == 0, "escaped: %s", got ? got : "-");
	free(got);
}

static void names(void)
{
	escapes("plain-name_1.txt", 16, "plain-name_1.txt");
	escapes("", 0, "");
	escapes(" a\tb\nc\\\x7f\0", 9, "\\040a\\011b\\012c\\134\\177\\000");
	escapes("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 9, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
	escapes("\xc3", 1, "\\303");
	escapes("\xe2\x82", 2, "\\342\\202");
	escapes("\xc0\xaf", 2, "\\300\\257");
	escapes("\xed\xa0\x80", 3, "\\355\\240\\200");
	escapes("\xf4\x90\x80\x80", 4, "\\364\\220\\200\\200");
	escapes("\xc2\x9b\x31m", 4, "\\302\\2331m");
	escapes("\xff\xfe\x80", 3, "\\377\\376\\200");
	ok(fileset_name_ok("fset0") && fileset_name_ok("A.b_c-9"), "fileset names");
	ok(!fileset_name_ok("") && !fileset_name_ok(".a") && !fileset_name_ok("-a") &&
	   !fileset_name_ok("a/b") && !fileset_name_ok("a b") && !fileset_name_ok("\xc3\xa4"),
	   "and what is none");
	ok(fileset_name_ok("a23456789012345678901234567890123456789012345678901234567890123") &&
	   !fileset_name_ok("a234567890123456789012345678901234567890123456789012345678901234"),
	   "63 bytes, not 64");
}

static void uuids(void)
{
	static const char text[] = "00112233-4455-6677-8899-aabbccddeeff";
	uint8_t uuid[16], other[16];
	char got[UUID_TEXT];

	ok(uuid_parse(text, uuid) && uuid[1] == 0x11 && uuid[15] == 0xff, "a uuid is parsed");
	uuid_format(uuid, got);
	ok(strcmp(got, text) == 0, "and formatted");
	ok(uuid_parse("00112233-4455-6677-8899-AABBCCDDEEFF", other) &&
	   memcmp(uuid, other, 16) == 0, "in upper case, too");
	ok(!uuid_parse("", other) && !uuid_parse("00112233-4455-6677-8899-aabbccddeef", other) &&
	   !uuid_parse("00112233-4455-6677-8899-aabbccddeeff0", other) &&
	   !uuid_parse("001122334455-6677-8899-aabbccddeeff-", other) &&
	   !uuid_parse("00112233-4455-6677-8899-aabbccddeefg", other), "and nothing else");
	ok(uuid_make(uuid) == 0 && uuid_make(other) == 0 && memcmp(uuid, other, 16) != 0 &&
	   (uuid[6] & 0xf0) == 0x40 && (uuid[8] & 0xc0) == 0x80, "random ones are of version 4");
}

static void whole_io(void)
{
	int fd = memfd_create("io", 0);
	char buf[16];

	ok(pwrite_all(fd, "0123456789", 10, 5) == 0, "written");
	ok(pread_all(fd, buf, 10, 5) == 0 && memcmp(buf, "0123456789", 10) == 0, "read");
	ok(pread_all(fd, buf, 16, 5) == -ENODATA, "beyond the end");
	ok(pread_all(fd, buf, 0, 5) == 0, "nothing");
	ok(pread_all(-1, buf, 1, 0) == -EBADF && pwrite_all(-1, buf, 1, 0) == -EBADF, "no file");
	close(fd);
}

static void generations(void)
{
	char path[] = "/tmp/util-test-XXXXXX";
	uint32_t gen = 0, again = 1;
	int fd = mkstemp(path);

	need(fd >= 0, "no file");
	ok(inode_generation(AT_FDCWD, path, &gen) == 0, "generation %u", gen);
	ok(inode_generation(fd, "", &again) == 0 && gen == again, "by descriptor the same");
	unlink(path);
	ok(inode_generation(AT_FDCWD, path, &gen) == -ENOENT, "of nothing");
	close(fd);
}

static void make_peer(struct last_rcvd *lr, unsigned int i)
{
	memset(lr->peer, 0, sizeof(lr->peer));
	lr->peer[0] = i;
	lr->peer[1] = i >> 8;
	lr->remote_recno = i * 1000ULL;
	lr->remote_offset = 4096 + i * 1000ULL;
	lr->local_recno = i;
	lr->time_sec = -(int64_t) i;
}

static bool has_peer(int fd, unsigned int i)
{
	struct last_rcvd want, got;

	make_peer(&want, i);
	return last_rcvd_get(fd, want.peer, &got) == 0 &&
	       memcmp(got.peer, want.peer, 16) == 0 && got.remote_recno == want.remote_recno &&
	       got.remote_offset == want.remote_offset &&
	       got.local_recno == want.local_recno && got.time_sec == want.time_sec;
}

static void last_rcvd(void)
{
	int fd = memfd_create("last_rcvd", 0);
	unsigned int i, wrong = 0;
	struct last_rcvd lr;
	char c;

	make_peer(&lr, 1);
	ok(last_rcvd_get(fd, lr.peer, &lr) == -ENOENT, "nothing received from nobody");
	for (i = 1; i <= 300; i++) {
		make_peer(&lr, i);
		wrong += last_rcvd_set(fd, &lr) != 0;
	}
	for (i = 1; i <= 300; i++)
		wrong += !has_peer(fd, i);
	ok(wrong == 0, "300 peers");
	make_peer(&lr, 7);
	lr.remote_recno = 5;
	ok(last_rcvd_set(fd, &lr) == 0 && last_rcvd_get(fd, lr.peer, &lr) == 0 &&
	   lr.remote_recno == 5 && lseek(fd, 0, SEEK_END) == 300 * 64, "a slot is moved in place");
	for (i = 0; i < 64; i++) {
		pread_all(fd, &c, 1, 64 + i);
		c ^= 1;
		pwrite_all(fd, &c, 1, 64 + i);
		wrong += last_rcvd_slot(fd, 1, &lr) != 0 || has_peer(fd, 2) || !has_peer(fd, 3);
		c ^= 1;
		pwrite_all(fd, &c, 1, 64 + i);
	}
	ok(wrong == 0 && has_peer(fd, 2), "a damaged slot is none");
	pwrite_all(fd, "\0\0\0\0", 4, 64);
	make_peer(&lr, 1000);
	ok(last_rcvd_set(fd, &lr) == 0 && has_peer(fd, 1000) &&
	   lseek(fd, 0, SEEK_END) == 300 * 64, "a free slot is used again");
	ok(last_rcvd_slot(fd, 300, &lr) == -ENODATA, "behind the last slot");
	close(fd);
}

static void stored_last_rcvd(void)
{
	int fd = open(SAMPLES "/v1.last_rcvd", O_RDONLY);
	struct last_rcvd lr;
	int i;

	need(fd >= 0, "no sample");
	for (i = 0; i < 3; i++)
		ok(last_rcvd_slot(fd, i, &lr) == 1 && lr.peer[0] == 0x40 + i &&
		   lr.peer[15] == 0x40 + i && lr.remote_recno == (i == 0 ? 7 : i == 1 ? 8 : 10) &&
		   lr.remote_offset == 4096 + 8 * 77 && lr.local_recno == 5 &&
		   lr.time_sec == 1767225600, "stored slot %d", i);
	ok(last_rcvd_slot(fd, 3, &lr) == -ENODATA, "and no more");
	close(fd);
}

static void room(void)
{
	FILE *f = tmpfile();
	struct statvfs st;
	uint64_t bytes = 0, avail;

	need(f && fstatvfs(fileno(f), &st) == 0, "no temporary file");
	avail = (uint64_t)st.f_bavail * st.f_frsize;
	ok(room_for_content(fileno(f), &bytes) == 0 && (bytes < avail || !avail),
	   "content leaves a reserve: %llu of %llu", (unsigned long long)bytes,
	   (unsigned long long)avail);
	ok(room_for_content(-1, &bytes) == -EBADF, "room of no file");
	fclose(f);
}

int main(void)
{
	srandom(tap_seed());
	crc_vectors();
	crc_same();
	names();
	uuids();
	whole_io();
	generations();
	room();
	last_rcvd();
	stored_last_rcvd();
	return tap_done();
}
