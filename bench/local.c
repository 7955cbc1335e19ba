// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What bench/local measures: one kind of operation many times, in the current
 * directory.
 *
 *	localbench WHAT N
 *
 * create, stat, open (and close), chmod, rename, unlink: N small files, in this order;
 * write, rewrite, read: N MiB of the file "big" in pieces of 1 MiB, write and rewrite with
 * fsync; randwrite, randread: N pieces of 4 KiB of it, randwrite with fsync.
 * Prints microseconds per file or piece.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MIB = 1 << 20, PIECE = 4096, PER_DIR = 2000 };

static char buf[MIB];

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e6 + ts.tv_nsec / 1e3;
}

static const char *name(char out[64], unsigned int n, const char *suffix)
{
	snprintf(out, 64, "d%u/file-%u%s", n / PER_DIR, n, suffix);
	return out;
}

static void check(int r, const char *what)
{
	if (r < 0)
		err(1, "%s", what);
}

static void one_file(const char *what, unsigned int n)
{
	char a[64], b[64];
	struct stat st;

	if (!strcmp(what, "create")) {
		if (n % PER_DIR == 0) {
			snprintf(a, sizeof(a), "d%u", n / PER_DIR);
			check(mkdir(a, 0755), a);
		}
		check(close(open(name(a, n, ""), O_CREAT | O_EXCL | O_WRONLY, 0644)), what);
	} else if (!strcmp(what, "stat")) {
		check(stat(name(a, n, ""), &st), what);
	} else if (!strcmp(what, "open")) {
		check(close(open(name(a, n, ""), O_RDONLY)), what);
	} else if (!strcmp(what, "chmod")) {
		check(chmod(name(a, n, ""), 0600), what);
	} else if (!strcmp(what, "rename")) {
		check(rename(name(a, n, ""), name(b, n, ".renamed")), what);
	} else if (!strcmp(what, "unlink")) {
		check(unlink(name(a, n, ".renamed")), what);
	} else {
		errx(2, "unknown: %s", what);
	}
}

static int is_data(const char *what)
{
	return !strcmp(what + (strncmp(what, "rand", 4) ? 0 : 4), "write") ||
	       !strcmp(what + (strncmp(what, "rand", 4) ? 0 : 4), "read") ||
	       !strcmp(what, "rewrite");
}

static void data(const char *what, unsigned int n)
{
	const int writes = !!strstr(what, "write"), random = !strncmp(what, "rand", 4);
	int fd = open("big", writes ? O_RDWR | O_CREAT : O_RDONLY, 0644);
	const size_t len = random ? PIECE : MIB;
	unsigned long long x = 88172645463325252ull;
	struct stat st;
	off_t off;

	check(fd, "big");
	check(fstat(fd, &st), "big");
	if (random && st.st_size < PIECE)
		errx(1, "big: write it first");
	for (unsigned int i = 0; i < n; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		off = random ? x % (st.st_size / PIECE) * PIECE : (off_t)i * MIB;
		if ((writes ? pwrite(fd, buf, len, off) : pread(fd, buf, len, off)) != (ssize_t)len)
			err(1, "%s", what);
	}
	if (writes)
		check(fsync(fd), "fsync");
	close(fd);
}

int main(int argc, char **argv)
{
	unsigned int n;
	double t;

	if (argc != 3)
		errx(2, "usage: localbench WHAT N");
	n = atoi(argv[2]);
	memset(buf, 'x', sizeof(buf));
	t = now();
	if (is_data(argv[1]))
		data(argv[1], n);
	else
		for (unsigned int k = 0; k < n; k++)
			one_file(argv[1], k);
	printf("%.3f\n", (now() - t) / n);
	return 0;
}
