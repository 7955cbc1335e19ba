// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * parallel: many tasks change one tree at the same time, at random: what
 * "tests/vm/run stress" and its power cuts have for a load.
 *
 *	parallel [--seed=N] [--tasks=N] [--seconds=S] [--pause=USEC] DIR
 *
 * Half of the names are in one directory that all tasks use, the others in many.
 * What fails because another task was faster does not matter, anything else
 * does: then the exit status is 1, and 2 if the load could not be started.  The
 * tree stays small however long it runs.  Who calls it compares tree and log afterwards.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/falloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum { DIRS = 40, SUBDIRS = 3, NAMES = 8, SHARED = 120, MAX = 80000 };

struct counts {
	unsigned long tried, done, odd;
};

static struct counts *counts;	/* one per kind of operation, shared by all tasks */
static uint64_t state;
static char buf[MAX];

static unsigned int rnd(unsigned int n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 11) % n;
}

static const char *a_dir(char name[64])
{
	unsigned int d = rnd(DIRS);

	if (rnd(2))
		snprintf(name, 64, "many/d%u", d);
	else
		snprintf(name, 64, "many/d%u/s%u", d, rnd(SUBDIRS));
	return name;
}

static const char *a_name(char name[128])
{
	char dir[64];

	if (rnd(2))
		snprintf(name, 128, "one/f%u", rnd(SHARED));
	else
		snprintf(name, 128, "%s/f%u", a_dir(dir), rnd(NAMES));
	return name;
}

/* The result of what is done with a descriptor, which is closed. */
static int finish(int fd, int r)
{
	int e = errno;

	close(fd);
	errno = e;
	return r;
}

static int do_create(const char *name, const char *other)
{
	int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0600 + rnd(0200));

	return fd < 0 ? -1 : finish(fd, rnd(4) ? write(fd, buf, rnd(MAX)) : 0);
}

static int do_write(const char *name, const char *other)
{
	int fd = open(name, O_CREAT | O_WRONLY | O_NOFOLLOW | O_NONBLOCK |
		      (rnd(4) ? 0 : O_TRUNC) | (rnd(4) ? 0 : O_APPEND), 0644);
	int r = 0;

	if (fd < 0)
		return -1;
	for (unsigned int n = rnd(4); n-- && r >= 0;)
		r = pwrite(fd, buf, rnd(MAX / 4), rnd(MAX));
	if (rnd(64) == 0 && r >= 0)
		r = fsync(fd);
	return finish(fd, r);
}

/* Only where the file is: a store behind its end would be the task's end, too. */
static int store(int fd, off_t size)
{
	char *m = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	int r = 0;

	if (m == MAP_FAILED)
		return -1;
	/* the file can be cut meanwhile: the kernel tells it as an error of a system call */
	for (unsigned int n = 1 + rnd(6); n--;)
		(void)!pread(fd, m + rnd(size), 1, rnd(size));
	if (rnd(3) == 0)
		r = msync(m, size, rnd(2) ? MS_SYNC : MS_ASYNC);
	munmap(m, size);
	return r;
}

static int do_map(const char *name, const char *other)
{
	int fd = open(name, O_RDWR | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;

	if (fd < 0)
		return -1;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size == 0)
		return finish(fd, 0);
	return finish(fd, store(fd, st.st_size));
}

static int do_truncate(const char *name, const char *other)
{
	return truncate(name, rnd(MAX));
}

static int do_allocate(const char *name, const char *other)
{
	static const int modes[] = { 0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE };
	int fd = open(name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK);

	return fd < 0 ? -1 : finish(fd, fallocate(fd, modes[rnd(4)], rnd(MAX), 1 + rnd(MAX)));
}

static int do_copy(const char *name, const char *other)
{
	int in = open(name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
	int out = in < 0 ? -1 : open(other, O_WRONLY | O_NOFOLLOW | O_NONBLOCK);
	loff_t from = rnd(MAX), to = rnd(MAX);

	if (in < 0)
		return -1;
	if (out < 0)
		return finish(in, -1);
	return finish(in, finish(out, copy_file_range(in, &from, out, &to, rnd(MAX), 0)));
}

static int do_rename(const char *name, const char *other)
{
	return renameat2(AT_FDCWD, name, AT_FDCWD, other,
			 rnd(3) ? 0 : 1 << rnd(2) /* NOREPLACE, EXCHANGE */);
}

static int do_link(const char *name, const char *other)
{
	return link(name, other);
}

static int do_unlink(const char *name, const char *other)
{
	return unlink(name);
}

static int do_special(const char *name, const char *other)
{
	return rnd(2) ? symlink(other, name) : mknod(name, S_IFIFO | 0644, 0);
}

static int do_nameless(const char *name, const char *other)
{
	char dir[64], link[64];
	int fd = open(a_dir(dir), O_TMPFILE | O_RDWR, 0644);

	if (fd < 0)
		return -1;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if (write(fd, buf, rnd(MAX)) < 0)
		return finish(fd, -1);
	return finish(fd, linkat(AT_FDCWD, link, AT_FDCWD, name, AT_SYMLINK_FOLLOW));
}

static int do_xattr(const char *name, const char *other)
{
	char x[16];

	snprintf(x, sizeof(x), "user.x%u", rnd(3));
	if (rnd(3) == 0)
		return removexattr(name, x);
	return setxattr(name, x, buf, rnd(rnd(8) ? 60 : 1500), 0);
}

static int do_attr(const char *name, const char *other)
{
	struct timespec ts[2] = { { 0, UTIME_OMIT }, { 1000000 + rnd(1000000), rnd(1000000000) } };

	switch (rnd(3)) {
	case 0:
		return chmod(name, 0600 + rnd(0200));
	case 1:
		return lchown(name, rnd(100), rnd(100));
	default:
		return utimensat(AT_FDCWD, name, ts, AT_SYMLINK_NOFOLLOW);
	}
}

static int do_dirs(const char *name, const char *other)
{
	char a[64], b[64];

	a_dir(a);
	a_dir(b);
	switch (rnd(6)) {
	case 0:
		return rmdir(a);
	case 1:
		return rename(a, b);
	case 2:
		return renameat2(AT_FDCWD, a, AT_FDCWD, b, 2 /* EXCHANGE */);
	default:
		return mkdir(a, 0755);
	}
}

static const struct kind {
	const char *name;
	int (*fn)(const char *name, const char *other);
	unsigned int weight;
} kinds[] = {
	{ "create", do_create, 5 },
	{ "write", do_write, 6 },
	{ "map", do_map, 4 },
	{ "truncate", do_truncate, 2 },
	{ "allocate", do_allocate, 2 },
	{ "copy", do_copy, 2 },
	{ "rename", do_rename, 5 },
	{ "link", do_link, 3 },
	{ "unlink", do_unlink, 5 },
	{ "special", do_special, 1 },
	{ "nameless", do_nameless, 1 },
	{ "xattr", do_xattr, 3 },
	{ "attr", do_attr, 3 },
	{ "dirs", do_dirs, 3 },
};

enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

/* What another task that is faster, or what a file is, can lead to. */
static int expected(int e)
{
	switch (e) {
	case ENOENT: case EEXIST: case ENOTEMPTY: case ENOTDIR: case EISDIR: case EINVAL:
	case EBUSY: case ELOOP: case EPERM: case ENODATA: case ENXIO: case EFAULT:
	case EMLINK: case EOPNOTSUPP: case ETXTBSY: case ESPIPE: case EBADF:
		return 1;
	}
	return 0;
}

static unsigned int choose(void)
{
	unsigned int k, sum = 0, r;

	for (k = 0; k < KINDS; k++)
		sum += kinds[k].weight;
	r = rnd(sum);
	for (k = 0; r >= kinds[k].weight; k++)
		r -= kinds[k].weight;
	return k;
}

static void one_change(void)
{
	unsigned int k = choose();
	char name[128], other[128];

	a_name(name);
	a_name(other);
	__atomic_fetch_add(&counts[k].tried, 1, __ATOMIC_RELAXED);
	if (kinds[k].fn(name, other) >= 0) {
		__atomic_fetch_add(&counts[k].done, 1, __ATOMIC_RELAXED);
	} else if (!expected(errno)) {
		printf("%s of %s, %s: %s\n", kinds[k].name, name, other, strerror(errno));
		fflush(stdout);
		__atomic_fetch_add(&counts[k].odd, 1, __ATOMIC_RELAXED);
		usleep(100000);
	}
}

static void task(unsigned long seed, unsigned int me, time_t until, unsigned int pause)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	state = (seed + me) * 0x9e3779b97f4a7c15ull + 1;
	memset(buf, 'a' + me % 26, sizeof(buf));
	while (!until || time(NULL) < until) {
		one_change();
		if (pause)
			usleep(rnd(2 * pause));
	}
	_exit(0);
}

static int report(void)
{
	unsigned long done = 0, odd = 0;

	for (unsigned int k = 0; k < KINDS; k++) {
		printf("%s %lu of %lu%s", kinds[k].name, counts[k].done, counts[k].tried,
		       k + 1 < KINDS ? ", " : "\n");
		done += counts[k].done;
		odd += counts[k].odd;
		if (!counts[k].done) {
			printf("%s has never worked\n", kinds[k].name);
			odd++;
		}
	}
	printf("%lu operations\n", done);
	return odd ? 1 : 0;
}

static void setup(const char *dir)
{
	char name[64];

	if (chdir(dir))
		err(2, "%s", dir);
	if ((mkdir("one", 0777) && errno != EEXIST) || (mkdir("many", 0777) && errno != EEXIST))
		err(2, "%s", dir);
	for (unsigned int d = 0; d < DIRS; d++) {
		snprintf(name, sizeof(name), "many/d%u", d);
		if (mkdir(name, 0777) && errno != EEXIST)
			err(2, "%s", name);
	}
	umask(0);
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "seed", required_argument, NULL, 's' },
		{ "tasks", required_argument, NULL, 'n' },
		{ "seconds", required_argument, NULL, 't' },
		{ "pause", required_argument, NULL, 'p' },
		{ NULL }
	};
	unsigned long seed = time(NULL);
	unsigned int tasks = 16, seconds = 0, pause = 0;
	int c, status, worst = 0;

	while ((c = getopt_long(argc, argv, "", opts, NULL)) >= 0) {
		switch (c) {
		case 's': seed = strtoul(optarg, NULL, 0); break;
		case 'n': tasks = strtoul(optarg, NULL, 0); break;
		case 't': seconds = strtoul(optarg, NULL, 0); break;
		case 'p': pause = strtoul(optarg, NULL, 0); break;
		default: return 2;
		}
	}
	if (argc - optind != 1)
		errx(2, "usage: parallel [--seed=N] [--tasks=N] [--seconds=S] [--pause=USEC] DIR");
	counts = mmap(NULL, sizeof(*counts) * KINDS, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (counts == MAP_FAILED)
		err(2, "memory");
	printf("seed %lu, %u tasks, %u s\n", seed, tasks, seconds);
	fflush(stdout);
	setup(argv[optind]);
	for (unsigned int n = 0; n < tasks; n++) {
		pid_t pid = fork();

		if (pid < 0)
			err(2, "fork");
		if (!pid)
			task(seed, n, seconds ? time(NULL) + seconds : 0, pause);
	}
	while (wait(&status) > 0)
		if (!WIFEXITED(status) || WEXITSTATUS(status))
			worst = 1;
	return report() | worst;
}
