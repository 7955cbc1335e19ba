// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a client reads: profile, kml, catalog, data, bundle.
 */
#include "http.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BIG (3 << 20)

static char big[BIG];

static void fill(char *buf, size_t len, unsigned int seed)
{
	size_t i;

	for (i = 0; i < len; i++)
		buf[i] = (seed = seed * 1103515245 + 12345) >> 16;
}

static uint64_t number_in(const char *json, const char *key)
{
	char pattern[64];
	const char *p;

	snprintf(pattern, sizeof(pattern), "\"%s\": ", key);
	p = strstr(json, pattern);
	return p ? strtoull(p + strlen(pattern), NULL, 10) : 0;
}

static void profile(void)
{
	unsigned long long epoch;

	get("profile");
	check_status(200, "profile");
	epoch = number_in(a.body, "epoch");
	check(strstr(a.body, "\"protocol\": [1]") && epoch, "profile has protocol and epoch");
	check(strtoull(header("InterSync-Epoch"), NULL, 10) == epoch, "the epoch is in a header");
	position_offset = number_in(a.body, "first_offset");
	get("profile?epoch=%llu", epoch);
	check_status(200, "the right epoch");
	get("profile?epoch=%llu", epoch + 1);
	check_status(409, "another epoch");
	get("status");
	check(a.status == 200 && strstr(a.body, "<h1>"), "status is a page");
	get("metrics");
	check(a.status == 200 && strstr(a.body, "\nintersync_log_records{"), "metrics");
}

static void wrong_requests(void)
{
	static const char *const lost[] = {
		"nix", "", "kml/x", "data", "data/1/2", "data/x.y/z", "data/1.2/3/4",
		"data/../profile/x", "../nix/profile", "data/1.4294967296/0",
	};
	static const char *const hostile[] = {
		"data%2f1", "data/%00", "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
		"../../../../etc/passwd", "data/..%2f..%2fx",
	};
	static const char *const numbers[] = {
		"kml?after=x", "kml?after=", "kml?after=-1", "kml?after=1&max=z",
		"kml?after=99999999999999999999", "kml?wait=1x&after=0",
	};
	size_t i;

	for (i = 0; i < sizeof(lost) / sizeof(*lost); i++) {
		get("%s", lost[i]);
		check_status(404, lost[i]);
	}
	for (i = 0; i < sizeof(hostile) / sizeof(*hostile); i++) {
		get("%s", hostile[i]);
		check(a.status == 404 || a.status == 400, "%s: %ld", hostile[i], a.status);
	}
	for (i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
		get("%s", numbers[i]);
		check_status(400, numbers[i]);
	}
	request("POST", "profile", "", 0, NULL);
	check_status(405, "POST profile");
	request("GET", "bundle", NULL, 0, NULL);
	check_status(405, "GET bundle");
	request("GET", "profile", NULL, 0, "InterSync-Position: 1");
	check(a.status == 400, "two positions, one malformed");
}

static void log_records(void)
{
	struct kml_record r;
	char *first;
	ssize_t n;

	put_file("log-a", "one", 3);
	put_file("log-b", "two", 3);
	settle();
	get("kml?after=%llu&max=1", (unsigned long long) position_offset);
	check_status(200, "kml from the beginning");
	n = a.len ? kml_decode(a.body, a.len, &r) : 0;
	check(n > 0 && (size_t) n == a.len, "max=1 gives one record");
	check(strtoull(header("InterSync-Next"), NULL, 10) == position_offset + a.len,
	      "InterSync-Next is behind it");
	first = malloc(a.len);
	memcpy(first, a.body, a.len);
	request("GET", "kml", NULL, 0, "Range: bytes=0-99");
	check(a.status == 206 && a.len == 100 && !memcmp(a.body, first, 100),
	      "the log as a file has ranges");
	free(first);
	get("kml?after=%llu", (unsigned long long) position_offset + 8);
	check_status(400, "kml from within a record");
	get("kml?after=0");
	check_status(410, "kml from before its beginning");
	get("kml?after=%llu", 1ULL << 60);
	check_status(409, "kml from behind its end");
	catch_up();
	check(a.status == 204, "nothing new");
}

/* Only who has followed this log may go on with it. */
static void same_log(void)
{
	unsigned long long start = position_offset, next;
	struct kml_rec rec;

	put_file("same-log", "x", 1);
	settle();
	get("kml?after=%llu&max=1&crc=1", start);
	check_status(start == KML_HEADER_SIZE ? 200 : 409, start == KML_HEADER_SIZE ?
		     "kml from the beginning, whatever crc says" : "kml behind another record");
	get("kml?after=%llu&max=1", start);
	check(a.status == 200 && a.len >= sizeof(rec), "a record");
	memcpy(&rec, a.body, sizeof(rec));
	next = start + a.len;
	put_file("same-log-2", "x", 1);
	settle();
	get("kml?after=%llu&max=1&crc=%lu", next, (unsigned long) le32toh(rec.crc));
	check_status(200, "kml behind the record that ends there");
	get("kml?after=%llu&max=1&crc=%lu", next, (unsigned long) le32toh(rec.crc) ^ 1);
	check_status(409, "kml behind another record than ends there");
	get("kml?after=%llu&max=1&crc=%lu", next + 8, (unsigned long) le32toh(rec.crc));
	check_status(409, "kml where no record ends");
	get("kml?after=%llu&crc=%lu&wait=200", 1ULL << 50, (unsigned long) le32toh(rec.crc));
	check_status(409, "kml far behind the end, without waiting");
	get("kml?after=%llu&crc=-1", next);
	check_status(400, "crc is a number");
	catch_up();
}

/* A change in the mount after a while, by another process. */
static pid_t change_later(const char *name, unsigned int ms)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	usleep(ms * 1000);
	put_file(name, "late", 4);
	_exit(0);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void long_poll(void)
{
	double start = now();
	pid_t pid;

	catch_up();
	start = now();
	get("kml?after=%llu&wait=1", (unsigned long long) position_offset);
	check(a.status == 204 && now() - start >= 0.9, "nothing comes: 204 after the time");
	pid = change_later("late", 500);
	start = now();
	get("kml?after=%llu&wait=240", (unsigned long long) position_offset);
	check(a.status == 200 && a.len && now() - start < 200, "a change ends the wait");
	waitpid(pid, NULL, 0);
	catch_up();
}

static void catalog(void)
{
	struct kml_record r = { 0 };
	uint64_t count = 0, links = 0, files = 0;
	unsigned long long crc;
	bool ordered = true;
	size_t pos = 0;
	char *end;

	mkdir(in_mount("cat"), 0750);
	put_file("cat/file", "x", 1);
	check(!link(in_mount("cat/file"), in_mount("cat/other")) &&
	      !symlink("where\nto", in_mount("cat/sym")) && !mkfifo(in_mount("cat/pipe"), 0600),
	      "a link, a symlink and a pipe");
	catch_up();
	get("catalog");
	check_status(200, "catalog");
	while (pos < a.len) {
		ssize_t n = kml_decode(a.body + pos, a.len - pos, &r);

		if (n <= 0)
			break;
		pos += n;
		ordered = ordered && r.recno == ++count;
		files += r.opcode == KML_CREATE && r.name.len == 4 && !memcmp(r.name.ptr, "file", 4);
		files += r.opcode == KML_CREATE && r.name.len == 5 && !memcmp(r.name.ptr, "other", 5);
		links += r.opcode == KML_LINK;
	}
	check(ordered && pos == a.len && r.opcode == KML_CATALOG_END, "it is whole, and numbered");
	check(files == 1 && links == 1, "a file with two names is one object and a link");
	check(strtoull(header("InterSync-Position"), &end, 10) == position_offset,
	      "it tells its position");
	strtoull(end, &end, 10);
	crc = strtoull(end, &end, 10);
	get("kml?after=%llu&crc=%llu", (unsigned long long) position_offset, crc);
	check_status(204, "and the checksum of the record before");
}

static size_t put_question(char *buf, size_t size, struct kml_oid obj, struct kml_oid dir,
			   const char *name)
{
	struct kml_record r = {
		.opcode = KML_RESYNC, .obj = obj, .tparent = dir,
		.tname = { name, name ? strlen(name) : 0 },
	};
	ssize_t n = kml_encode(buf, size, &r);

	return n > 0 ? n : 0;
}

/* The opcodes of the answer, in order: "CREATE LINK CATALOG_END ". */
static const char *opcodes(void)
{
	static char text[256];
	struct kml_record r;
	size_t pos = 0;

	text[0] = 0;
	while (pos < a.len) {
		ssize_t n = kml_decode(a.body + pos, a.len - pos, &r);
		size_t at = strlen(text);

		if (n <= 0)
			break;
		pos += n;
		snprintf(text + at, sizeof(text) - at, "%s ", kml_opcode_name(r.opcode));
	}
	return text;
}

/* After catalog(): a file with two names in "cat". */
static void where(void)
{
	const struct kml_oid none = { 0 }, unknown = { .ino = 1, .gen = 1 };
	struct kml_oid cat = oid_of("cat");
	char body[1024];
	size_t n;

	n = put_question(body, sizeof(body), none, cat, "other");
	n += put_question(body + n, sizeof(body) - n, none, cat, "nothing");
	n += put_question(body + n, sizeof(body) - n, unknown, none, NULL);
	n += put_question(body + n, sizeof(body) - n, cat, none, NULL);
	request("POST", "where", body, n, NULL);
	check_status(200, "where");
	check(!strcmp(opcodes(), "CREATE LINK MKDIR CATALOG_END "),
	      "what is asked for, with all names: %s", opcodes());
	check(strtoull(header("InterSync-Position"), NULL, 10) == position_offset,
	      "at that position");
	request("POST", "where", body, n - 8, NULL);
	check_status(400, "where with half a question");
}

static void get_data(const char *name, const char *more, const char *query)
{
	char path[256];
	struct kml_oid oid = oid_of(name);

	snprintf(path, sizeof(path), "data/%llu.%u/%llu%s", (unsigned long long) oid.ino, oid.gen,
		 (unsigned long long) version_of(name), query);
	request("GET", path, NULL, 0, more);
}

static void data(void)
{
	char tag[256], old[256];
	struct kml_oid oid;

	fill(big, BIG, 1);
	put_file("big", big, BIG);
	get_data("big", NULL, "");
	check(a.status == 200 && a.len == BIG && !memcmp(a.body, big, BIG), "data is the content");
	snprintf(tag, sizeof(tag), "If-None-Match: %s", header("ETag"));
	get_data("big", tag, "");
	check(a.status == 304, "unchanged: 304");
	get_data("big", "Range: bytes=1000000-1999999", "");
	check(a.status == 206 && a.len == 1000000 && !memcmp(a.body, big + 1000000, 1000000),
	      "a range of it");
	get_data("big", "Range: bytes=99999999-", "");
	check(a.status == 416, "a range behind its end");
	oid = oid_of("big");
	snprintf(old, sizeof(old), "data/%llu.%u/%llu", (unsigned long long) oid.ino, oid.gen,
		 (unsigned long long) version_of("big"));
	put_file("big", big, BIG / 2);
	catch_up();
	get("%s", old);
	check_status(410, "a superseded version");
	get("data/1.1/0");
	check_status(410, "an object that nobody knows");
	oid = oid_of("big");
	get("data/%llu.%u/999999999", (unsigned long long) oid.ino, oid.gen);
	check_status(404, "a version that is not yet");
	oid = oid_of("cat");
	get("data/%llu.%u/0", (unsigned long long) oid.ino, oid.gen);
	check_status(404, "a directory has no data");
}

/* The frames of a sparse answer laid over zeros; false: they are malformed. */
static bool unfold(char *ret, size_t size, size_t *ret_bytes)
{
	size_t pos = 0;

	memset(ret, 0, size);
	*ret_bytes = 0;
	while (pos + 16 <= a.len) {
		uint64_t off, len;

		memcpy(&off, a.body + pos, 8);
		memcpy(&len, a.body + pos + 8, 8);
		off = le64toh(off);
		len = le64toh(len);
		pos += 16;
		if (!len)
			return off == size && pos == a.len;
		if (off + len > size || pos + len > a.len)
			return false;
		memcpy(ret + off, a.body + pos, len);
		*ret_bytes += len;
		pos += len;
	}
	return false;
}

static void sparse(void)
{
	static char want[BIG], got[BIG];
	int fd = open(in_mount("sparse"), O_RDWR | O_CREAT, 0644);
	size_t bytes;

	memcpy(want + (1 << 20), "island", 6);
	check(fd >= 0 && !ftruncate(fd, BIG) && pwrite(fd, "island", 6, 1 << 20) == 6 && !close(fd),
	      "a file with holes");
	get_data("sparse", NULL, "?sparse");
	check(a.status == 200 && unfold(got, BIG, &bytes) && !memcmp(got, want, BIG),
	      "sparse: all of it");
	check(bytes < 256 * 1024, "sparse: without the holes (%zu bytes)", bytes);
	get_data("sparse", NULL, "?sparse=0-10,1048576-1048578");
	check(a.status == 200 && unfold(got, BIG, &bytes) && bytes == 2 &&
	      !memcmp(got + (1 << 20), "is", 2), "sparse: ranges");
	get_data("sparse", NULL, "?sparse=10-5");
	check_status(400, "sparse: a range that ends before it begins");
	get_data("sparse", NULL, "?sparse=0-5,3-9");
	check_status(400, "sparse: ranges that overlap");
}

static void being_written(void)
{
	int fd;

	put_file("busy", "before", 6);
	oid_of("busy");
	fd = open(in_mount("busy"), O_RDWR);
	check(fd >= 0 && pwrite(fd, "during", 6, 0) == 6, "a file that is being written");
	get_data("busy", NULL, "");
	check_status(425, "... is not served");
	close(fd);
	get_data("busy", NULL, "");
	check(a.status == 200 && a.len == 6 && !memcmp(a.body, "during", 6), "... until it is closed");
}

static size_t bundle_entry(char *p, const char *name, uint64_t add)
{
	struct kml_oid oid = oid_of(name);
	uint64_t q[3] = { htole64(oid.ino), htole64(oid.gen), htole64(version_of(name) + add) };

	memcpy(p, q, sizeof(q));
	return sizeof(q);
}

static void bundle(void)
{
	static const uint32_t want[] = { 0, 413, 413, 404, 404 };
	char req[1025 * 24] = "";
	size_t len = 0, pos = 0, i;

	put_file("small", "content", 7);
	len += bundle_entry(req + len, "small", 0);
	len += bundle_entry(req + len, "big", 0);
	len += bundle_entry(req + len, "sparse", 0);
	len += bundle_entry(req + len, "cat", 0);
	len += bundle_entry(req + len, "small", 1000000);
	request("POST", "bundle", req, len, NULL);
	check_status(200, "bundle");
	for (i = 0; i < 5 && pos + 32 <= a.len; i++) {
		uint64_t head[4];
		uint32_t status;

		memcpy(head, a.body + pos, 32);
		status = le64toh(head[1]) >> 32;
		check(status == want[i], "bundle: entry %zu has status %u", i, status);
		if (i == 0)
			check(le64toh(head[3]) == 7 && !memcmp(a.body + pos + 32, "content", 7),
			      "bundle: content");
		pos += 32 + ((le64toh(head[3]) + 7) & ~7ULL);
	}
	check(i == 5 && pos == a.len, "bundle: nothing more");
	request("POST", "bundle", req, 23, NULL);
	check_status(400, "bundle: half an entry");
	request("POST", "bundle", "", 0, NULL);
	check(a.status == 200 && !a.len, "bundle: of nothing");
	request("POST", "bundle", req, sizeof(req), NULL);
	check_status(413, "bundle: too many");
}

void test_reading(void)
{
	profile();
	wrong_requests();
	log_records();
	same_log();
	long_poll();
	catalog();
	where();
	data();
	sparse();
	being_written();
	bundle();
}
