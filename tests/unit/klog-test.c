// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * klog.c: reading both ways, finding the end behind every kind of torn tail,
 * telling it from damage, verifying, giving back the front.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sample.h"
#include "tap.h"
#include "util.h"

#define MANY	3000

static char dir[] = "/tmp/klog-test-XXXXXX";

/* A log in memory, and where its records begin (and the last one ends). */
struct test_log {
	int		fd;
	struct klog	*log;
	uint64_t	at[MANY + 1];
	unsigned int	n;
};

static int memory_file(void)
{
	char path[64], name[32];
	struct klog_header h = sample_header;
	char block[KML_HEADER_SIZE];
	int fd, from;

	snprintf(name, sizeof(name), "header");
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	unlink(path);
	need(klog_create(AT_FDCWD, path, &h) == 0, "cannot create a log");
	from = open(path, O_RDONLY);
	fd = memfd_create("kml", 0);
	need(from >= 0 && fd >= 0, "no file");
	need(pread_all(from, block, sizeof(block), 0) == 0, "a log of less than its header");
	need(pwrite_all(fd, block, sizeof(block), 0) == 0, "cannot write");
	close(from);
	unlink(path);
	return fd;
}

static ssize_t encode(char *buf, size_t size, uint64_t recno)
{
	struct kml_record r;
	ssize_t n;

	sample_record((recno - 1) % SAMPLE_LOG + 1, &r);
	r.recno = recno;
	n = kml_encode(buf, size, &r);
	need(n > 0, "cannot encode");
	return n;
}

static void append(struct test_log *t)
{
	char buf[16384];
	ssize_t n = encode(buf, sizeof(buf), t->n + 1);

	need(pwrite_all(t->fd, buf, n, t->at[t->n]) == 0, "cannot write");
	t->at[t->n + 1] = t->at[t->n] + n;
	t->n++;
}

static void open_log(struct test_log *t)
{
	need(klog_open_fd(dup(t->fd), &t->log) == 0, "cannot open a log");
}

static void make_log(struct test_log *t, unsigned int n)
{
	t->fd = memory_file();
	t->n = 0;
	t->at[0] = KML_HEADER_SIZE;
	while (t->n < n)
		append(t);
	open_log(t);
}

static void free_log(struct test_log *t)
{
	klog_close(t->log);
	close(t->fd);
}

static bool ends_with(struct test_log *t, unsigned int n)
{
	uint64_t off = 0, recno = 0;
	int rc = klog_end(t->log, &off, &recno);

	if (rc == 0 && off == t->at[n] && recno == n)
		return true;
	printf("# end: %d, offset %lu recno %lu, not %lu %u\n", rc, off, recno, t->at[n], n);
	return false;
}

static void create_and_open(void)
{
	struct klog_header h = sample_header, back;
	char path[64];
	struct klog *log;

	snprintf(path, sizeof(path), "%s/kml", dir);
	ok(klog_create(AT_FDCWD, path, &h) == 0, "a log is created");
	ok(klog_create(AT_FDCWD, path, &h) == -EEXIST, "but not over another one");
	ok(klog_open(AT_FDCWD, path, &log) == 0, "and opened");
	ok(klog_header(log, &back) == 0 && back.first_offset == KML_HEADER_SIZE &&
	   back.first_recno == 1 && back.epoch == h.epoch && !strcmp(back.fileset, h.fileset) &&
	   !memcmp(back.fileset_uuid, h.fileset_uuid, 16) &&
	   !memcmp(back.replica_uuid, h.replica_uuid, 16), "with the header it was given");
	klog_close(log);
	unlink(path);
	strcpy(h.fileset, "no/name");
	ok(klog_create(AT_FDCWD, path, &h) == -EINVAL, "an invalid fileset name");
	ok(klog_open(AT_FDCWD, path, &log) == -ENOENT, "leaves no file");
	ok(klog_open(AT_FDCWD, dir, &log) < 0, "a directory is no log");
	ok(klog_open(AT_FDCWD, "/dev/null", &log) == -EBADMSG, "nor is a device");
	strcpy(h.fileset, "fset0");
	h.first_offset = 1 << 20;
	h.first_recno = 77;
	ok(klog_create(AT_FDCWD, path, &h) == 0 && klog_open(AT_FDCWD, path, &log) == 0,
	   "a log that begins later");
	ok(klog_end(log, &h.first_offset, &h.first_recno) == 0 && h.first_offset == 1 << 20 &&
	   h.first_recno == 76, "ends where it begins");
	klog_close(log);
	unlink(path);
}

static void bad_headers(void)
{
	struct klog *log;
	unsigned int at, opened = 0;
	struct test_log t;
	char c;

	make_log(&t, 1);
	for (at = 0; at < sizeof(struct kml_header); at++) {
		int rc;

		pread_all(t.fd, &c, 1, at);
		c ^= 0x10;
		pwrite_all(t.fd, &c, 1, at);
		rc = klog_open_fd(t.fd, &log);
		if (rc != -EBADMSG && !(rc == -EPROTONOSUPPORT && at >= 8 && at < 12))
			opened++;
		c ^= 0x10;
		pwrite_all(t.fd, &c, 1, at);
		if (at % 16 == 0)
			need(klog_header(t.log, NULL) == 0, "the header was not restored");
	}
	ok(opened == 0, "no byte of the header changes unseen");
	need(ftruncate(t.fd, 100) == 0, "cannot truncate");
	ok(klog_open_fd(t.fd, &log) == -EBADMSG, "a header that is cut off");
	free_log(&t);
}

static void read_both_ways(void)
{
	struct kml_record r, want;
	uint64_t off, prev;
	struct test_log t;
	unsigned int i, wrong = 0;

	make_log(&t, MANY);
	for (i = 0, off = t.at[0]; i < t.n; i++) {
		sample_record(i % SAMPLE_LOG + 1, &want);
		want.recno = i + 1;
		wrong += off != t.at[i] || klog_read(t.log, off, &r, &off) != 1 ||
			 record_differs(&r, &want) != NULL;
	}
	ok(wrong == 0, "%u records read forwards", t.n);
	ok(off == t.at[t.n] && klog_read(t.log, off, &r, &off) == 0, "then the end");
	for (i = t.n, wrong = 0; i > 0; i--) {
		sample_record((i - 1) % SAMPLE_LOG + 1, &want);
		want.recno = i;
		wrong += klog_read_back(t.log, off, &r, &prev) != 1 || prev != t.at[i - 1] ||
			 record_differs(&r, &want) != NULL;
		off = prev;
	}
	ok(wrong == 0, "and the same backwards");
	ok(klog_read_back(t.log, off, &r, &prev) == 0, "then the front");
	ok(klog_read(t.log, 0, &r, &off) == -ERANGE &&
	   klog_read_back(t.log, 4088, &r, &off) == -ERANGE, "nothing is before it");
	ok(klog_read(t.log, t.at[1] + 8, &r, &off) == -EBADMSG &&
	   klog_read(t.log, t.at[1] + 1, &r, &off) == -EBADMSG &&
	   klog_read_back(t.log, t.at[2] - 8, &r, &off) == -EBADMSG,
	   "nor between records");
	ok(klog_read(t.log, UINT64_MAX - 7, &r, &off) == -EBADMSG &&
	   klog_read_back(t.log, UINT64_MAX - 7, &r, &off) == -EBADMSG,
	   "nor at the end of all numbers");
	free_log(&t);
}

/* A reader that has seen the end sees what comes later. */
static void follow(void)
{
	struct test_log t;
	struct kml_record r;
	uint64_t off = KML_HEADER_SIZE, prev;
	unsigned int i, wrong = 0;
	char buf[16384];

	make_log(&t, 0);
	for (i = 0; i < 200; i++) {
		ssize_t n = encode(buf, sizeof(buf), i + 1), cut = n / 8 * 3;

		wrong += klog_read(t.log, off, &r, &off) != 0;
		pwrite_all(t.fd, buf, cut, t.at[i]);
		wrong += klog_read(t.log, off, &r, &off) != 0;
		append(&t);
		wrong += klog_read(t.log, off, &r, &off) != 1 || r.recno != i + 1;
		wrong += klog_read_back(t.log, off, &r, &prev) != 1 || prev != t.at[i];
	}
	ok(wrong == 0, "a growing log is followed");
	free_log(&t);
}

/* The last record is written up to every byte; behind it is what tail says. */
static void torn_at_each_byte(const char *what, const char *tail, size_t tail_len)
{
	struct test_log t;
	struct kml_record r;
	unsigned int wrong = 0;
	char buf[16384];
	uint64_t next;
	ssize_t n, cut;

	make_log(&t, 20);
	n = encode(buf, sizeof(buf), 21);
	for (cut = 0; cut < n; cut++) {
		/* zeros in a record are what preallocation leaves */
		if (tail_len && !tail[0] && cut >= n - 3)
			break;
		need(ftruncate(t.fd, t.at[20]) == 0, "cannot truncate");
		pwrite_all(t.fd, buf, cut, t.at[20]);
		pwrite_all(t.fd, tail, tail_len, t.at[20] + cut);
		wrong += !ends_with(&t, 20);
		wrong += klog_read(t.log, t.at[20], &r, &next) != 0;
		wrong += klog_read(t.log, t.at[19], &r, &next) != 1;
		wrong += klog_read_back(t.log, t.at[20], &r, &next) != 1;
	}
	ok(wrong == 0, "torn at each of %zd bytes, then %s", n, what);
	free_log(&t);
}

static void torn_tails(void)
{
	static char zeros[70000], noise[3001], trailers[4096];
	struct kml_rec_tail tail = { 104, KML_REC_MAGIC };
	size_t i;

	for (i = 0; i < sizeof(noise); i++)
		noise[i] = random() | 1;
	for (i = 0; i < sizeof(trailers); i += 8)
		memcpy(trailers + i, &tail, 8);
	torn_at_each_byte("nothing", "", 0);
	torn_at_each_byte("zeros", zeros, sizeof(zeros));
	torn_at_each_byte("noise", noise, sizeof(noise));
	torn_at_each_byte("trailers", trailers, sizeof(trailers));
}

/* A torn record whose xattr holds the bytes of the records that would follow. */
static void record_in_record(void)
{
	static char inner[40000], blob[50000], outer[60000];
	struct kml_record r = { .opcode = KML_CREATE, .recno = 11, .xattrs = blob };
	size_t len = 0, i;
	struct test_log t;
	unsigned int wrong = 0;
	uint64_t next;
	ssize_t n;

	make_log(&t, 10);
	for (i = 0; i < 12; i++)
		len += encode(inner + len, sizeof(inner) - len, 12 + i);
	/* item 8, xattr 8, then a name that makes the value 8-aligned */
	r.xattrs_len = kml_xattr_put(blob, sizeof(blob), "user.abc", 8, inner, len);
	n = kml_encode(outer, sizeof(outer), &r);
	need(n > 0, "cannot encode");
	for (i = 120; i < (size_t) n; i += 8) {
		need(ftruncate(t.fd, t.at[10]) == 0, "cannot truncate");
		pwrite_all(t.fd, outer, i, t.at[10]);
		wrong += !ends_with(&t, 10);
		wrong += klog_read(t.log, t.at[10], &r, &next) != 0;
	}
	ok(wrong == 0, "records within a torn record do not count");
	pwrite_all(t.fd, outer, n, t.at[10]);
	t.at[11] = t.at[10] + n;
	ok(ends_with(&t, 11), "nor when it is whole");
	free_log(&t);
}

static void damage(void)
{
	struct test_log t;
	struct kml_record r;
	uint64_t off, recno, next, count;
	unsigned int wrong = 0;
	char why[200], c;

	make_log(&t, 30);
	for (off = t.at[14]; off < t.at[15]; off++) {
		pread_all(t.fd, &c, 1, off);
		c ^= 0x04;
		pwrite_all(t.fd, &c, 1, off);
		wrong += klog_read(t.log, t.at[14], &r, &next) != -EBADMSG;
		wrong += klog_read(t.log, t.at[15], &r, &next) != 1;
		wrong += klog_read_back(t.log, t.at[15], &r, &next) != -EBADMSG;
		wrong += klog_verify(t.log, &count, why, sizeof(why)) != -EBADMSG;
		wrong += klog_end_from(t.log, t.at[3], 3, &next, &recno) != 0 ||
			 next != t.at[14] || recno != 14;
		wrong += !ends_with(&t, 30);
		c ^= 0x04;
		pwrite_all(t.fd, &c, 1, off);
	}
	ok(wrong == 0, "damage at any byte is not the end (%u)", wrong);
	ok(klog_verify(t.log, &count, why, sizeof(why)) == 0 && count == 30, "mended, it is clean");
	free_log(&t);
}

static void wrong_numbers(void)
{
	struct test_log t;
	char buf[16384], why[200];
	uint64_t count, off, recno;
	struct kml_record r;
	ssize_t n;

	make_log(&t, 5);
	n = encode(buf, sizeof(buf), 7);
	pwrite_all(t.fd, buf, n, t.at[5]);
	ok(klog_verify(t.log, &count, why, sizeof(why)) == -EBADMSG, "a gap: %s", why);
	ok(klog_end_from(t.log, t.at[0], 0, &off, &recno) == 0 && off == t.at[5] && recno == 5,
	   "the run ends before it");
	sample_record(SAMPLE_LOG + 1, &r);
	r.recno = 6;
	n = kml_encode(buf, sizeof(buf), &r);
	need(ftruncate(t.fd, t.at[5]) == 0, "cannot truncate");
	pwrite_all(t.fd, buf, n, t.at[5]);
	ok(klog_verify(t.log, &count, why, sizeof(why)) == -EBADMSG, "content in a log: %s", why);
	free_log(&t);
}

static void punch(void)
{
	static struct test_log t;
	struct kml_record r;
	uint64_t next, count;
	struct klog_header h;
	char why[200], c;
	struct stat before, after;

	make_log(&t, 1000);
	need(fstat(t.fd, &before) == 0, "no stat");
	ok(klog_punch(t.fd, t.at[400] + 8, 400) == -EINVAL, "no front within a record");
	ok(klog_punch(t.fd, t.at[400], 401) == -EINVAL, "nor with another number");
	ok(klog_punch(t.fd, t.at[400], 400) == 0, "the front is given back");
	ok(klog_punch(t.fd, t.at[400], 400) == 0, "again");
	ok(klog_punch(t.fd, t.at[300], 300) == -ERANGE, "never forwards");
	need(fstat(t.fd, &after) == 0, "no stat");
	ok(after.st_blocks < before.st_blocks && after.st_size == before.st_size,
	   "its room is free, offsets stay (%ld, %ld blocks)", (long) before.st_blocks,
	   (long) after.st_blocks);
	ok(klog_read(t.log, t.at[0], &r, &next) <= 0 &&
	   klog_header(t.log, &h) == 0 && h.first_offset == t.at[400] && h.first_recno == 401 &&
	   klog_read(t.log, t.at[0], &r, &next) == -ERANGE, "it is not read any more");
	ok(klog_read(t.log, t.at[400], &r, &next) == 1 && r.recno == 401, "the rest is");
	ok(klog_read_back(t.log, t.at[400], &r, &next) == 0, "backwards ends there");
	ok(klog_verify(t.log, &count, why, sizeof(why)) == 0 && count == 600, "and is clean");
	ok(klog_punch(t.fd, t.at[1000], 1000) == 0 && ends_with(&t, 1000), "all of it");
	ok(pread_all(t.fd, &c, 1, 0) == 0 && c == 'I', "the header stays");
	append(&t);
	ok(klog_verify(t.log, &count, why, sizeof(why)) == 0 && count == 1, "and it goes on");
	free_log(&t);
}

/* Random logs with random tails: the end is that of the last whole record. */
static void random_tails(void)
{
	unsigned int round, wrong = 0;

	for (round = 0; round < 200; round++) {
		static struct test_log t;
		char junk[5000], buf[16384];
		size_t i, len = random() % sizeof(junk);
		ssize_t n;

		make_log(&t, random() % 60);
		n = encode(buf, sizeof(buf), t.n + 1);
		for (i = 0; i < len; i++)
			junk[i] = round % 3 ? random() : 0;
		pwrite_all(t.fd, buf, random() % (n - 20), t.at[t.n]);
		pwrite_all(t.fd, junk, len, lseek(t.fd, 0, SEEK_END));
		wrong += !ends_with(&t, t.n);
		free_log(&t);
	}
	ok(wrong == 0, "200 random logs with random tails");
}

/* Append many records in pieces, as a writer that is interrupted everywhere. */
static void write_in_pieces(int fd, unsigned int n)
{
	uint64_t off = KML_HEADER_SIZE;
	unsigned int recno = 1;
	static char buf[65536];

	while (recno <= n) {
		size_t len = 0, done = 0, piece;
		unsigned int batch = random() % 20 + 1;

		for (; batch && recno <= n; batch--)
			len += encode(buf + len, sizeof(buf) - len, recno++);
		if (random() % 50 == 0)
			need(fallocate(fd, 0, off, 1 << 20) == 0, "cannot reserve");
		for (; done < len; done += piece) {
			piece = random() % 1000 + 1;
			if (piece > len - done)
				piece = len - done;
			need(pwrite_all(fd, buf + done, piece, off + done) == 0, "cannot write");
		}
		off += len;
	}
}

static void concurrent(void)
{
	const unsigned int n = 20000;
	uint64_t off = KML_HEADER_SIZE, end, recno, seen = 0, last = 0;
	unsigned int wrong = 0;
	struct kml_record r;
	struct test_log t;
	pid_t child;
	int status, rc;

	make_log(&t, 0);
	child = fork();
	need(child >= 0, "cannot fork");
	if (child == 0) {
		write_in_pieces(t.fd, n);
		_exit(0);
	}
	while (seen < n && !wrong) {
		rc = klog_read(t.log, off, &r, &off);
		if (rc == 1)
			wrong += r.recno != ++seen;
		else if (rc < 0)
			wrong++;
		else
			sched_yield();
		if (rc == 1 && seen % 100)
			continue;
		wrong += klog_end(t.log, &end, &recno) != 0 || recno < seen || recno < last;
		last = recno;
	}
	ok(wrong == 0 && seen == n, "%u records read while they are written", n);
	ok(waitpid(child, &status, 0) == child && status == 0, "the writer is done");
	free_log(&t);
}

int main(void)
{
	alarm(1200);	/* rather than wait for a writer that is gone */
	srandom(tap_seed());
	need(mkdtemp(dir) != NULL, "no directory");
	create_and_open();
	bad_headers();
	read_both_ways();
	follow();
	torn_tails();
	record_in_record();
	damage();
	wrong_numbers();
	punch();
	random_tails();
	concurrent();
	rmdir(dir);
	return tap_done();
}
