// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * cutload: what a power cut is to happen to (run-cut).
 *
 *	cutload [--seed=N] --setup DIR		make a tree to work in
 *	cutload [--seed=N] --seconds=S --lower=LOWER DIR
 *	cutload --other-boot FILE		"changing" as another kernel left it
 *
 * Several writers change names, attributes and content all over one tree, at random;
 * what does not work because of another one does not matter.  A file
 * consists of one byte, which is in its xattr user.v, too, so that old, new and
 * torn content can be told apart.  Meanwhile a process that works below the file
 * system under test, in LOWER, makes the tree durable at random, or a file of it,
 * without the log: that is the order which is worst for the log.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include <intermezzo/lml.h>

#include "byteorder.h"
#include "util.h"

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE	2
#endif

enum { WRITERS = 4, DIRS = 150, FILES = 6, MAX = 60000, PAUSE = 6000 };

static uint64_t state;
static int writer;

static unsigned int rnd(unsigned int n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 11) % n;
}

/* Somewhere in the tree, two deep at most; directories belong to everybody. */
static const char *a_dir(char buf[64])
{
	unsigned int d = rnd(DIRS);

	if (rnd(3))
		snprintf(buf, 64, "d%u", d);
	else
		snprintf(buf, 64, "d%u/s%u", d, rnd(3));
	return buf;
}

static const char *a_file(char buf[128])
{
	char dir[64];

	snprintf(buf, 128, "%s/w%df%u", a_dir(dir), writer, rnd(FILES));
	return buf;
}

static void fill(int fd, char v, off_t from, off_t end)
{
	static char buf[MAX];

	memset(buf, v, sizeof(buf));
	while (from < end) {
		size_t n = end - from < MAX ? end - from : MAX;

		if (pwrite(fd, buf, n, from) != (ssize_t)n)
			return;
		from += n;
	}
}

static void tell(int fd, char v)
{
	(void)fsetxattr(fd, "user.v", &v, 1, 0);
}

static void write_new(const char *name, char v)
{
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);

	if (fd < 0)
		return;
	tell(fd, v);
	fill(fd, v, 0, rnd(MAX));
	if (rnd(1000) == 0)
		(void)fsync(fd);
	close(fd);
}

static void write_over(const char *name, char v)
{
	int fd = open(name, O_RDWR);
	struct stat st;

	if (fd < 0 || fstat(fd, &st)) {
		close(fd);
		return;
	}
	if (rnd(2))
		st.st_size = rnd(MAX);
	fill(fd, v, 0, st.st_size);
	if (ftruncate(fd, st.st_size) == 0)
		tell(fd, v);
	if (rnd(1000) == 0)
		(void)fsync(fd);
	close(fd);
}

static void write_more(const char *name)
{
	int fd = open(name, O_RDWR);
	struct stat st;
	char v;

	if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size < 4 * MAX &&
	    fgetxattr(fd, "user.v", &v, 1) == 1)
		fill(fd, v, st.st_size, st.st_size + rnd(MAX));
	close(fd);
}

static void change_attr(const char *name)
{
	struct timespec ts[2] = { { 0, UTIME_OMIT }, { 1000000 + rnd(1000000), rnd(1000000000) } };
	char v = rnd(256);

	switch (rnd(4)) {
	case 0:
		(void)chmod(name, 0600 + rnd(0200));
		break;
	case 1:
		(void)lchown(name, rnd(100), rnd(100));
		break;
	case 2:
		(void)utimensat(AT_FDCWD, name, ts, 0);
		break;
	default:
		if (lsetxattr(name, "user.other", &v, 1, 0) == 0 && rnd(2))
			(void)lremovexattr(name, "user.other");
	}
}

static void change_dir(const char *dir, const char *other)
{
	switch (rnd(8)) {
	case 0:
	case 1:
		(void)mkdir(dir, 0755);
		break;
	case 2:
		(void)rmdir(dir);
		break;
	case 3:
		(void)rename(dir, other);
		break;
	case 4:
		(void)renameat2(AT_FDCWD, dir, AT_FDCWD, other, RENAME_EXCHANGE);
		break;
	default:
		change_attr(dir);
	}
}

static void change_name(const char *name, const char *other)
{
	switch (rnd(6)) {
	case 0:
		(void)unlink(name);
		break;
	case 1:
		(void)link(name, other);
		break;
	case 2:
		(void)symlink(other, name);
		break;
	case 3:
		(void)renameat2(AT_FDCWD, name, AT_FDCWD, other, RENAME_EXCHANGE);
		break;
	default:
		(void)rename(name, other);
	}
}

static void one_change(char v)
{
	char name[128], other[128];

	a_file(name);
	switch (rnd(10)) {
	case 0:
	case 1:
	case 2:
		write_new(name, v);
		break;
	case 3:
	case 4:
		write_over(name, v);
		break;
	case 5:
		write_more(name);
		break;
	case 6:
		change_attr(name);
		break;
	case 7:
		change_dir(a_dir(name), a_dir(other));
		break;
	default:
		change_name(name, a_file(other));
	}
}

static void work(time_t until)
{
	char v = 0;

	while (time(NULL) < until) {
		one_change(++v);
		usleep(rnd(PAUSE));
	}
	exit(0);
}

/* Below the log: what is in memory of the tree, or of one file, goes to the disk. */
static void commit(const char *lower, time_t until)
{
	char name[128];
	int fd;

	if (chdir(lower))
		err(2, "%s", lower);
	while (time(NULL) < until) {
		usleep(5000 + rnd(100000));
		writer = rnd(WRITERS);
		fd = open(rnd(3) ? a_file(name) : ".intermezzo/commit", O_RDWR);
		if (fd < 0 && errno == ENOENT)
			fd = open(".intermezzo/commit", O_RDWR | O_CREAT, 0600);
		if (fd < 0)
			continue;
		if (rnd(2))
			(void)fsync(fd);
		else
			(void)fdatasync(fd);
		close(fd);
	}
	unlink(".intermezzo/commit");
	exit(0);
}

static int load(const char *lower, unsigned int seconds)
{
	const time_t until = time(NULL) + seconds;
	int status, bad = 0;

	for (writer = 0; writer <= WRITERS; writer++) {
		pid_t pid = fork();

		if (pid < 0)
			err(2, "fork");
		state += 0x9e3779b97f4a7c15ull;
		if (pid == 0 && writer < WRITERS)
			work(until);
		else if (pid == 0)
			commit(lower, until);
	}
	while (wait(&status) > 0)
		bad |= status != 0;
	return bad ? 1 : 0;
}

static int setup(void)
{
	char name[128];

	for (unsigned int d = 0; d < DIRS; d++) {
		for (unsigned int s = 0; s < 4; s++) {
			snprintf(name, sizeof(name), s < 3 ? "d%u/s%u" : "d%u", d, s);
			if (s == 0) {
				char top[16];

				snprintf(top, sizeof(top), "d%u", d);
				if (mkdir(top, 0755))
					err(2, "%s", top);
			}
			if (s < 3 && mkdir(name, 0755))
				err(2, "%s", name);
		}
	}
	for (writer = 0; writer < WRITERS; writer++)
		for (unsigned int n = 0; n < DIRS * FILES; n++)
			write_new(a_file(name), n);
	return 0;
}

/* Both headers, so that it does not matter which one counts. */
static int other_boot(const char *file)
{
	struct chg_header h;
	int fd = open(file, O_RDWR);

	if (fd < 0)
		err(2, "%s", file);
	for (int k = 0; k < 2; k++) {
		if (pread(fd, &h, sizeof(h), k * CHG_BLOCK) != sizeof(h))
			err(2, "%s", file);
		if (memcmp(h.magic, CHG_MAGIC, sizeof(h.magic)))
			errx(2, "%s: not what it should be", file);
		h.boot_id[0] ^= 1;
		h.crc = 0;
		h.crc = cpu_to_le32(crc32c(0, &h, sizeof(h)));
		if (pwrite(fd, &h, sizeof(h), k * CHG_BLOCK) != sizeof(h))
			err(2, "%s", file);
	}
	return close(fd) ? 1 : 0;
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "seed", required_argument, NULL, 's' },
		{ "setup", no_argument, NULL, 'u' },
		{ "seconds", required_argument, NULL, 't' },
		{ "lower", required_argument, NULL, 'l' },
		{ "other-boot", no_argument, NULL, 'b' },
		{ NULL }
	};
	unsigned int seconds = 0, seed = 1;
	const char *lower = NULL;
	int c, what = 0;

	while ((c = getopt_long(argc, argv, "", opts, NULL)) >= 0) {
		switch (c) {
		case 's':
			seed = atoi(optarg);
			break;
		case 't':
			seconds = atoi(optarg);
			break;
		case 'l':
			lower = optarg;
			break;
		case '?':
			return 2;
		default:
			what = c;
		}
	}
	if (argc - optind != 1 || !(what || lower))
		errx(2, "usage: cutload {--setup|--seconds=S --lower=LOWER|--other-boot} FILE");
	if (what == 'b')
		return other_boot(argv[optind]);
	if (chdir(argv[optind]))
		err(2, "%s", argv[optind]);
	state = seed * 0x9e3779b97f4a7c15ull + 1;
	return what == 'u' ? setup() : load(lower, seconds);
}
