// SPDX-License-Identifier: GPL-2.0-or-later
/* Content: reading, writing, mapping, holes, allocation, copying. */
#include "t.h"

#include <linux/falloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define PAGE	4096

/* For what not every file system can do: saying so is a right answer. */
static bool tried(int r)
{
	if (r && errno == EOPNOTSUPP) {
		t_note("not supported here");
		_exit(0);
	}
	return Z(r) == 0;
}

TEST(read_write)
{
	static char buf[300000], got[300000];
	char c;
	int fd = Z(open("f", O_RDWR | O_CREAT, 0644));

	EQ(read(fd, &c, 1), 0);
	t_fill(buf, sizeof(buf), 3);
	EQ(write(fd, buf, sizeof(buf)), sizeof(buf));
	EQ(pread(fd, got, sizeof(got), 0), sizeof(got));
	OK(!memcmp(buf, got, sizeof(buf)));
	EQ(pread(fd, got, 100, sizeof(buf) - 10), 10);
	EQ(pread(fd, got, 100, sizeof(buf)), 0);
	EQ(pread(fd, got, 100, sizeof(buf) + 5000), 0);
	EQ(pwrite(fd, "mid", 3, 123456), 3);
	memcpy(buf + 123456, "mid", 3);
	EQ(lseek(fd, 0, SEEK_CUR), sizeof(buf));
	EQ(lseek(fd, -5, SEEK_END), sizeof(buf) - 5);
	E(EINVAL, lseek(fd, -1, SEEK_SET));
	Z(fdatasync(fd));
	Z(fsync(fd));
	Z(close(fd));
	t_expect("f", buf, sizeof(buf));
}

TEST(vectors)
{
	char a[3] = "", b[4] = "";
	struct iovec w[2] = { { "abc", 3 }, { "defg", 4 } };
	struct iovec r[2] = { { a, 3 }, { b, 4 } };
	int fd = Z(open("f", O_RDWR | O_CREAT, 0644));

	EQ(writev(fd, w, 2), 7);
	EQ(preadv(fd, r, 2, 0), 7);
	OK(!memcmp(a, "abc", 3) && !memcmp(b, "defg", 4));
	EQ(pwritev(fd, w, 2, 5), 7);
	t_text("f", "abcdeabcdefg");
}

TEST(two_descriptors_see_each_other)
{
	char c;
	int a = Z(open("f", O_RDWR | O_CREAT, 0644));
	int b = Z(open("f", O_RDONLY));

	for (int i = 0; i < 200; i++) {
		char w = i;

		EQ(pwrite(a, &w, 1, i * 37), 1);
		EQ(pread(b, &c, 1, i * 37), 1);
		EQ(c, w);
		EQ(t_stat("f").st_size, i * 37 + 1);
	}
}

TEST(file_size_limit)
{
	const struct rlimit lim = { 1000, 1000 };

	signal(SIGXFSZ, SIG_IGN);
	Z(setrlimit(RLIMIT_FSIZE, &lim));
	int fd = Z(open("f", O_RDWR | O_CREAT, 0644));
	E(EFBIG, pwrite(fd, "x", 1, 1000));
	EQ(pwrite(fd, "xxxx", 4, 998), 2);
	E(EFBIG, ftruncate(fd, 1001));
	EQ(t_stat("f").st_size, 1000);
}

TEST(truncate_grow_and_shrink)
{
	static char buf[20000], zero[20000];
	int fd;

	t_fill(buf, sizeof(buf), 9);
	fd = Z(open("f", O_RDWR | O_CREAT, 0644));
	EQ(write(fd, buf, sizeof(buf)), sizeof(buf));
	Z(ftruncate(fd, 5001));
	Z(ftruncate(fd, 20000));
	memset(buf + 5001, 0, sizeof(buf) - 5001);
	t_expect("f", buf, sizeof(buf));
	Z(truncate("f", 0));
	Z(truncate("f", 20000));
	t_expect("f", zero, sizeof(zero));
	E(EINVAL, ftruncate(fd, -1));
	Z(mkdir("d", 0755));
	E(EISDIR, truncate("d", 0));
	E(ENOENT, truncate("none", 0));
	Z(truncate("f", 1ll << 40));
	EQ(t_stat("f").st_size, 1ll << 40);
	EQ(pwrite(fd, "e", 1, (1ll << 40) - 1), 1);
	EQ(t_stat("f").st_size, 1ll << 40);
}

TEST(mmap_shared_and_write)
{
	char *m, c;
	int fd = Z(open("f", O_RDWR | O_CREAT, 0644));

	Z(ftruncate(fd, 4 * PAGE));
	m = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	OK(m != MAP_FAILED);
	m[5] = 'A';
	EQ(pread(fd, &c, 1, 5), 1);
	EQ(c, 'A');
	EQ(pwrite(fd, "B", 1, 6), 1);
	EQ(m[6], 'B');
	EQ(pwrite(fd, "C", 1, 2 * PAGE + 7), 1);
	EQ(m[2 * PAGE + 7], 'C');
	m[3 * PAGE] = 'D';
	Z(msync(m, 4 * PAGE, MS_SYNC));
	Z(close(fd));
	m[1] = 'E';	/* after the close */
	Z(munmap(m, 4 * PAGE));
	fd = Z(open("f", O_RDONLY));
	for (const char *p = "E1A5B6"; *p; p += 2) {
		EQ(pread(fd, &c, 1, p[1] - '0'), 1);
		EQ(c, *p);
	}
	EQ(pread(fd, &c, 1, 3 * PAGE), 1);
	EQ(c, 'D');
	OK(t_recent(t_stat("f").st_mtim));
}

TEST(mmap_between_processes)
{
	char *m;
	int fd = Z(open("f", O_RDWR | O_CREAT, 0644));

	Z(ftruncate(fd, PAGE));
	m = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	OK(m != MAP_FAILED);
	AS(0, 0, {
		int fd2 = Z(open("f", O_RDWR));
		char *n = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd2, 0);

		OK(n != MAP_FAILED);
		n[100] = 'Z';
	});
	EQ(m[100], 'Z');
}

TEST(mmap_private)
{
	char *m;
	int fd;

	t_write("f", "original");
	fd = Z(open("f", O_RDONLY));
	m = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	OK(m != MAP_FAILED);
	m[0] = 'X';
	EQ(m[8], 0);
	t_text("f", "original");
	OK(!memcmp(m, "Xriginal", 8));
	E(EACCES, mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) ==
	  MAP_FAILED ? -1 : 0);
}

TEST(mmap_and_truncate)
{
	char *m;
	int fd = Z(open("f", O_RDWR | O_CREAT, 0644));
	pid_t pid;
	int status;

	Z(ftruncate(fd, 3 * PAGE));
	m = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	OK(m != MAP_FAILED);
	memset(m, 'x', 3 * PAGE);
	Z(ftruncate(fd, PAGE + 10));
	EQ(m[PAGE + 9], 'x');
	EQ(m[PAGE + 10], 0);
	pid = t_fork();
	if (!pid) {
		signal(SIGBUS, SIG_DFL);
		m[2 * PAGE] = 1;
		_exit(0);
	}
	Z(waitpid(pid, &status, 0));
	OK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
	Z(ftruncate(fd, 3 * PAGE));
	EQ(m[PAGE + 10], 0);
	EQ(m[2 * PAGE], 0);
	m[2 * PAGE] = 'y';
	Z(msync(m, 3 * PAGE, MS_SYNC));
	Z(munmap(m, 3 * PAGE));
	char c;
	EQ(pread(fd, &c, 1, 2 * PAGE), 1);
	EQ(c, 'y');
}

TEST(mmap_survives_unlink)
{
	char *m;
	int fd = Z(open("f", O_RDWR | O_CREAT, 0644));

	Z(ftruncate(fd, PAGE));
	m = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	OK(m != MAP_FAILED);
	Z(close(fd));
	Z(unlink("f"));
	memset(m, 'q', PAGE);
	Z(msync(m, PAGE, MS_SYNC));
	EQ(m[PAGE - 1], 'q');
	Z(munmap(m, PAGE));
}

TEST(holes)
{
	struct stat st;
	int fd = Z(open("f", O_RDWR | O_CREAT, 0644));
	char buf[PAGE];

	Z(ftruncate(fd, 16 << 20));
	memset(buf, 'd', sizeof(buf));
	EQ(pwrite(fd, buf, PAGE, 1 << 20), PAGE);
	EQ(pwrite(fd, buf, PAGE, 8 << 20), PAGE);
	Z(fsync(fd));
	Z(fstat(fd, &st));
	OK(st.st_blocks < 2048);
	EQ(lseek(fd, 0, SEEK_DATA), 1 << 20);
	EQ(lseek(fd, 1 << 20, SEEK_HOLE), (1 << 20) + PAGE);
	EQ(lseek(fd, (1 << 20) + PAGE, SEEK_DATA), 8 << 20);
	EQ(lseek(fd, 0, SEEK_HOLE), 0);
	EQ(lseek(fd, (8 << 20) + 1, SEEK_HOLE), (8 << 20) + PAGE);
	E(ENXIO, lseek(fd, (8 << 20) + PAGE, SEEK_DATA));
	E(ENXIO, lseek(fd, 16 << 20, SEEK_HOLE));
}

TEST(holes_before_sync)
{
	int fd = Z(open("f", O_RDWR | O_CREAT, 0644));

	EQ(pwrite(fd, "x", 1, 1 << 20), 1);
	EQ(lseek(fd, 0, SEEK_DATA) & ~(off_t)(PAGE - 1), 1 << 20);
	EQ(lseek(fd, 0, SEEK_HOLE), 0);
	EQ(lseek(fd, 0, SEEK_END), (1 << 20) + 1);
}

TEST(fallocate_plain)
{
	struct stat st;
	int fd = Z(open("f", O_RDWR | O_CREAT, 0644));

	Z(fallocate(fd, 0, 0, 100000));
	EQ(t_stat("f").st_size, 100000);
	Z(fstat(fd, &st));
	OK(st.st_blocks * 512 >= 100000);
	Z(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 200000));
	EQ(t_stat("f").st_size, 100000);
	E(EINVAL, fallocate(fd, 0, 0, 0));
	E(EBADF, fallocate(Z(open("f", O_RDONLY)), 0, 0, 10));
}

TEST(fallocate_punch)
{
	static char buf[5 * PAGE];
	int fd = Z(open("f", O_RDWR | O_CREAT, 0644));

	t_fill(buf, sizeof(buf), 4);
	EQ(write(fd, buf, sizeof(buf)), sizeof(buf));
	Z(fsync(fd));
	Z(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PAGE + 100, 3 * PAGE));
	memset(buf + PAGE + 100, 0, 3 * PAGE);
	t_expect("f", buf, sizeof(buf));
	EQ(lseek(fd, PAGE, SEEK_HOLE), 2 * PAGE);
	EQ(lseek(fd, 2 * PAGE, SEEK_DATA), 4 * PAGE);
	EQ(t_stat("f").st_size, sizeof(buf));
}

TEST(fallocate_zero)
{
	static char buf[5 * PAGE];
	int fd = Z(open("f", O_RDWR | O_CREAT, 0644));

	t_fill(buf, sizeof(buf), 4);
	EQ(write(fd, buf, sizeof(buf)), sizeof(buf));
	OK(tried(fallocate(fd, FALLOC_FL_ZERO_RANGE, 100, 2 * PAGE)));
	memset(buf + 100, 0, 2 * PAGE);
	t_expect("f", buf, sizeof(buf));
	OK(tried(fallocate(fd, FALLOC_FL_ZERO_RANGE, 5 * PAGE, PAGE)));
	EQ(t_stat("f").st_size, 6 * PAGE);
}

TEST(fallocate_collapse_insert)
{
	static char buf[64 * 1024], out[128 * 1024];
	int fd = Z(open("f", O_RDWR | O_CREAT, 0644));

	t_fill(buf, sizeof(buf), 4);
	EQ(write(fd, buf, sizeof(buf)), sizeof(buf));
	Z(fsync(fd));
	OK(tried(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 16384, 16384)));
	EQ(t_stat("f").st_size, 49152);
	memcpy(out, buf, 16384);
	memcpy(out + 16384, buf + 32768, 32768);
	t_expect("f", out, 49152);
	OK(tried(fallocate(fd, FALLOC_FL_INSERT_RANGE, 16384, 16384)));
	memmove(out + 32768, out + 16384, 32768);
	memset(out + 16384, 0, 16384);
	t_expect("f", out, 65536);
}

TEST(copy_range)
{
	static char buf[200000], want[250000];
	loff_t in = 1000, out = 50000;
	int a, b;
	size_t left = 100000;

	t_fill(buf, sizeof(buf), 8);
	a = Z(open("a", O_RDWR | O_CREAT, 0644));
	EQ(write(a, buf, sizeof(buf)), sizeof(buf));
	b = Z(open("b", O_RDWR | O_CREAT, 0644));
	while (left) {
		ssize_t n = Z(copy_file_range(a, &in, b, &out, left, 0));

		OK(n > 0);
		left -= n;
	}
	memcpy(want + 50000, buf + 1000, 100000);
	t_expect("b", want, 150000);
	EQ(in, 101000);
	in = sizeof(buf) - 5;
	EQ(copy_file_range(a, &in, b, NULL, 100, 0), 5);
	memcpy(want, buf + sizeof(buf) - 5, 5);
	t_expect("b", want, 150000);
	in = sizeof(buf);
	EQ(copy_file_range(a, &in, b, NULL, 100, 0), 0);
	in = 0;
	out = 10;
	E(EINVAL, copy_file_range(a, &in, a, &out, 100, 0));	/* overlapping */
	out = 100000;
	EQ(copy_file_range(a, &in, a, &out, 5000, 0), 5000);
	memcpy(buf + 100000, buf, 5000);
	t_expect("a", buf, sizeof(buf));
}

TEST(sendfile_and_splice)
{
	static char buf[100000];
	int a, b, p[2];
	size_t left = sizeof(buf);
	off_t off = 0;

	t_fill(buf, sizeof(buf), 18);
	a = Z(open("a", O_RDWR | O_CREAT, 0644));
	EQ(write(a, buf, sizeof(buf)), sizeof(buf));
	b = Z(open("b", O_RDWR | O_CREAT, 0644));
	while (left)
		left -= Z(sendfile(b, a, &off, left));
	t_expect("b", buf, sizeof(buf));
	Z(pipe(p));
	Z(lseek(a, 0, SEEK_SET));
	b = Z(open("c", O_RDWR | O_CREAT, 0644));
	for (left = sizeof(buf); left; ) {
		ssize_t n = Z(splice(a, NULL, p[1], NULL, 4096, 0));

		OK(n > 0);
		left -= n;
		while (n)
			n -= Z(splice(p[0], NULL, b, NULL, n, 0));
	}
	t_expect("c", buf, sizeof(buf));
}

TEST(direct_io)
{
	char *buf, *got;
	int fd = open("f", O_RDWR | O_CREAT | O_DIRECT, 0644), plain;

	if (fd < 0 && errno == EINVAL)
		t_skip("no O_DIRECT here");
	Z(fd);
	EQ(posix_memalign((void **)&buf, PAGE, 8 * PAGE), 0);
	EQ(posix_memalign((void **)&got, PAGE, 8 * PAGE), 0);
	t_fill(buf, 8 * PAGE, 6);
	EQ(pwrite(fd, buf, 8 * PAGE, 0), 8 * PAGE);
	EQ(pread(fd, got, 8 * PAGE, 0), 8 * PAGE);
	OK(!memcmp(buf, got, 8 * PAGE));
	t_expect("f", buf, 8 * PAGE);
	plain = Z(open("f", O_RDWR));
	EQ(pwrite(plain, "plain", 5, PAGE), 5);
	EQ(pread(fd, got, PAGE, PAGE), PAGE);
	OK(!memcmp(got, "plain", 5));
	EQ(pwrite(fd, buf, PAGE, PAGE), PAGE);
	EQ(pread(plain, got, PAGE, PAGE), PAGE);
	OK(!memcmp(got, buf + 0, PAGE));
}

TEST(o_sync)
{
	int fd = Z(open("f", O_RDWR | O_CREAT | O_SYNC, 0644));

	EQ(write(fd, "abc", 3), 3);
	Z(syncfs(fd));
	Z(close(fd));
	t_text("f", "abc");
	fd = Z(open("f", O_RDWR | O_DSYNC | O_APPEND));
	EQ(write(fd, "d", 1), 1);
	t_text("f", "abcd");
	fd = Z(open(".", O_RDONLY | O_DIRECTORY));
	Z(fsync(fd));
}

TEST(no_space_is_an_answer)
{
	struct statvfs sv;
	int fd = Z(open("f", O_RDWR | O_CREAT, 0644)), r, e;

	Z(statvfs(".", &sv));
	if (sv.f_bavail > (8ull << 30) / sv.f_frsize)
		t_skip("too much space to fill");
	r = fallocate(fd, 0, 0, 1ll << 43);
	e = errno;
	if (r && e == EOPNOTSUPP)
		t_skip("no fallocate here");
	OK(r < 0 && (e == ENOSPC || e == EFBIG));
	Z(ftruncate(fd, 0));	/* it may have got a part */
	EQ(pwrite(fd, "x", 1, 0), 1);
	t_write("g", "still works");
	t_text("g", "still works");
}

/*
 * Random operations on one file against a copy of it in memory, through
 * several descriptors and a mapping.
 */
enum { FSX_MAX = 300000, FSX_OPS = 4000 };

static char *fsx_model;
static size_t fsx_size;
static int fsx_fd[2];

static void fsx_write(void)
{
	size_t off = t_rand(FSX_MAX), len = 1 + t_rand(20000);

	if (off + len > FSX_MAX)
		len = FSX_MAX - off;
	if (off > fsx_size)
		memset(fsx_model + fsx_size, 0, off - fsx_size);
	t_fill(fsx_model + off, len, t_rand(1000000));
	EQ(pwrite(fsx_fd[t_rand(2)], fsx_model + off, len, off), len);
	if (off + len > fsx_size)
		fsx_size = off + len;
}

static void fsx_read(void)
{
	static char buf[FSX_MAX];
	size_t off = t_rand(FSX_MAX), len = 1 + t_rand(50000);
	size_t want = off >= fsx_size ? 0 :
		      off + len > fsx_size ? fsx_size - off : len;

	if (off + len > FSX_MAX)
		len = FSX_MAX - off;
	if (want > len)
		want = len;
	EQ(pread(fsx_fd[t_rand(2)], buf, len, off), want);
	for (size_t i = 0; i < want; i++)
		if (buf[i] != fsx_model[off + i])
			FAIL("read: byte %zu is %02x, expected %02x (size %zu)",
			     off + i, buf[i] & 255, fsx_model[off + i] & 255,
			     fsx_size);
}

static void fsx_truncate(void)
{
	size_t size = t_rand(FSX_MAX);

	if (size > fsx_size)
		memset(fsx_model + fsx_size, 0, size - fsx_size);
	Z(ftruncate(fsx_fd[t_rand(2)], size));
	fsx_size = size;
}

static void fsx_map(bool write)
{
	size_t off, len;
	char *m;

	if (!fsx_size)
		return;
	off = t_rand(fsx_size);
	len = 1 + t_rand(fsx_size - off);
	m = mmap(NULL, fsx_size, PROT_READ | PROT_WRITE, MAP_SHARED,
		 fsx_fd[t_rand(2)], 0);
	OK(m != MAP_FAILED);
	if (write) {
		t_fill(fsx_model + off, len, t_rand(1000000));
		memcpy(m + off, fsx_model + off, len);
		if (t_rand(4) == 0)
			Z(msync(m, fsx_size, MS_SYNC));
	} else {
		OK(!memcmp(m + off, fsx_model + off, len));
	}
	Z(munmap(m, fsx_size));
}

static void fsx_punch(void)
{
	size_t off = t_rand(FSX_MAX), len = 1 + t_rand(30000);

	if (fallocate(fsx_fd[0], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      off, len)) {
		EQ(errno, EOPNOTSUPP);
		return;
	}
	if (off < fsx_size)
		memset(fsx_model + off, 0,
		       off + len > fsx_size ? fsx_size - off : len);
}

static void fsx_allocate(void)
{
	size_t off = t_rand(FSX_MAX - 30000), len = 1 + t_rand(30000);

	if (fallocate(fsx_fd[1], 0, off, len)) {
		EQ(errno, EOPNOTSUPP);
		return;
	}
	if (off + len > fsx_size) {
		memset(fsx_model + fsx_size, 0, off + len - fsx_size);
		fsx_size = off + len;
	}
}

static void fsx_copy(void)
{
	size_t len;
	loff_t in, out;

	if (fsx_size < 1000)
		return;
	len = 1 + t_rand(fsx_size / 3);
	in = t_rand(fsx_size / 2 - len / 2);
	out = in + len + t_rand(1000);
	if (in + len > fsx_size || out + len > FSX_MAX)
		return;
	if ((size_t)out > fsx_size)
		memset(fsx_model + fsx_size, 0, out - fsx_size);
	memcpy(fsx_model + out, fsx_model + in, len);
	if (out + len > fsx_size)
		fsx_size = out + len;
	while (len) {
		ssize_t n = Z(copy_file_range(fsx_fd[0], &in, fsx_fd[1], &out, len, 0));

		OK(n > 0);
		len -= n;
	}
}

static void fsx_other(void)
{
	int i = t_rand(2);

	switch (t_rand(3)) {
	case 0:
		Z(fsync(fsx_fd[i]));
		break;
	case 1:
		Z(close(fsx_fd[i]));
		fsx_fd[i] = Z(open("f", O_RDWR));
		break;
	default:
		Z(posix_fadvise(fsx_fd[i], 0, 0, POSIX_FADV_DONTNEED) ? -1 : 0);
	}
	EQ(t_stat("f").st_size, fsx_size);
}

TEST_T(random_io_against_model, 120)
{
	t_seed();
	fsx_model = calloc(1, FSX_MAX);
	for (int i = 0; i < 2; i++)
		fsx_fd[i] = Z(open("f", O_RDWR | O_CREAT, 0644));
	for (int i = 0; i < FSX_OPS; i++) {
		switch (t_rand(10)) {
		case 0: case 1: case 2: fsx_write(); break;
		case 3: case 4: fsx_read(); break;
		case 5: fsx_truncate(); break;
		case 6: fsx_map(t_rand(2)); break;
		case 7: t_rand(2) ? fsx_punch() : fsx_allocate(); break;
		case 8: fsx_copy(); break;
		default: fsx_other();
		}
	}
	Z(close(fsx_fd[0]));
	Z(close(fsx_fd[1]));
	t_expect("f", fsx_model, fsx_size);
}
