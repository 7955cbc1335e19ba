// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Several processes at once, each checking itself: what it wrote in its own
 * files must be there, whatever the others do around it, and in the part they
 * share an operation may lose a race but never break.
 */
#include "t.h"

#include <limits.h>
#include <linux/fs.h>
#include <sys/wait.h>

enum { FILES = 12, ROUNDS = 250, PROCS = 4 };

struct own {
	bool there;
	unsigned int seed;
	size_t len;
};

static void own_name(char *buf, size_t size, int me, int i)
{
	snprintf(buf, size, "p%d/d%d/f%d", me, i % 3, i);
}

static void own_check(int me, struct own *f, int i)
{
	static char buf[40000];
	char name[64];

	own_name(name, sizeof(name), me, i);
	if (!f->there) {
		OK(!t_exists(name));
		return;
	}
	t_fill(buf, f->len, f->seed);
	t_expect(name, buf, f->len);
}

static void own_write(int me, struct own *f, int i)
{
	static char buf[40000];
	char name[64], temp[80];
	bool by_rename = t_rand(2);
	int fd;

	f->there = true;
	f->seed = t_rand(1000000);
	f->len = t_rand(sizeof(buf));
	own_name(name, sizeof(name), me, i);
	snprintf(temp, sizeof(temp), "%s.tmp", name);
	t_fill(buf, f->len, f->seed);
	fd = Z(open(by_rename ? temp : name, O_CREAT | O_TRUNC | O_WRONLY, 0644));
	EQ(write(fd, buf, f->len), f->len);
	if (t_rand(8) == 0)
		Z(fsync(fd));
	Z(close(fd));
	if (by_rename)
		Z(rename(temp, name));
}

static void own_move(int me, struct own *f, int a, int b)
{
	char na[64], nb[64];
	struct own t;

	if (a == b || !f[a].there)
		return;
	own_name(na, sizeof(na), me, a);
	own_name(nb, sizeof(nb), me, b);
	if (f[b].there && t_rand(2)) {
		if (renameat2(AT_FDCWD, na, AT_FDCWD, nb, RENAME_EXCHANGE)) {
			EQ(errno, EINVAL);
			return;
		}
		t = f[a];
		f[a] = f[b];
		f[b] = t;
		return;
	}
	Z(rename(na, nb));
	f[b] = f[a];
	f[a].there = false;
}

static bool race(int r)
{
	if (!r)
		return true;
	switch (errno) {
	case ENOENT: case EEXIST: case ENOTEMPTY: case ENOTDIR: case EISDIR:
	case EINVAL: case EBUSY: case ELOOP: case EPERM:
		return false;
	}
	FAIL("unexpected error in the shared part: %s", strerror(errno));
}

static void shared_step(void)
{
	char a[32], b[64];
	int fd;

	snprintf(a, sizeof(a), "s/n%lu", t_rand(6));
	snprintf(b, sizeof(b), t_rand(3) ? "s/n%lu" : "s/n%lu/x", t_rand(6));
	switch (t_rand(8)) {
	case 0: race(mkdir(a, 0755)); break;
	case 1: race(rmdir(a)); break;
	case 2: race(unlink(a)); break;
	case 3: race(rename(a, b)); break;
	case 4: race(link(a, b)); break;
	case 5: race(symlink("n1", a)); break;
	case 6: race(renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE)); break;
	default:
		fd = open(b, O_CREAT | O_RDWR | O_NOFOLLOW, 0644);
		if (fd < 0) {
			race(-1);
			break;
		}
		EQ(write(fd, "shared", 6), 6);
		Z(fchmod(fd, t_rand(2) ? 0600 : 0644));
		close(fd);
	}
}

static void worker(int me, unsigned long seed)
{
	struct own f[FILES] = { { 0 } };
	char name[64];

	t_reseed(seed + me);
	snprintf(name, sizeof(name), "p%d", me);
	Z(mkdir(name, 0755));
	for (int i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "p%d/d%d", me, i);
		Z(mkdir(name, 0755));
	}
	for (int r = 0; r < ROUNDS; r++) {
		int i = t_rand(FILES);

		switch (t_rand(6)) {
		case 0: case 1: own_write(me, &f[i], i); break;
		case 2: own_check(me, &f[i], i); break;
		case 3: own_move(me, f, i, t_rand(FILES)); break;
		case 4:
			own_name(name, sizeof(name), me, i);
			if (f[i].there)
				Z(unlink(name));
			f[i].there = false;
			break;
		default: shared_step();
		}
	}
	for (int i = 0; i < FILES; i++)
		own_check(me, &f[i], i);
}

TEST_T(concurrent_processes, 120)
{
	unsigned long seed = t_seed();
	pid_t pid[PROCS];

	Z(mkdir("s", 0755));
	for (int i = 0; i < PROCS; i++) {
		pid[i] = t_fork();
		if (!pid[i]) {
			worker(i, seed);
			_exit(0);
		}
	}
	for (int i = 0; i < PROCS; i++)
		t_wait(pid[i], __FILE__, __LINE__);
}

TEST_T(rename_storm_keeps_every_file, 60)
{
	enum { N = 40, MOVES = 400 };
	unsigned long seed = t_seed();
	pid_t pid[PROCS];
	char a[32], b[32];

	Z(mkdir("a", 0755));
	Z(mkdir("b", 0755));
	for (int i = 0; i < N; i++) {
		snprintf(a, sizeof(a), "a/%d", i);
		t_write(a, a + 2);
	}
	for (int p = 0; p < PROCS; p++) {
		pid[p] = t_fork();
		if (pid[p])
			continue;
		t_reseed(seed + p);
		for (int i = 0; i < MOVES; i++) {
			int n = t_rand(N);

			snprintf(a, sizeof(a), "%c/%d", t_rand(2) ? 'a' : 'b', n);
			snprintf(b, sizeof(b), "%c/%d", t_rand(2) ? 'a' : 'b', n);
			if (rename(a, b))
				EQ(errno, ENOENT);
		}
		_exit(0);
	}
	for (int p = 0; p < PROCS; p++)
		t_wait(pid[p], __FILE__, __LINE__);
	EQ(t_entries("a") + t_entries("b"), N);
	for (int i = 0; i < N; i++) {
		snprintf(a, sizeof(a), "a/%d", i);
		snprintf(b, sizeof(b), "b/%d", i);
		t_text(t_exists(a) ? a : b, a + 2);
	}
}

TEST_T(readers_during_replace, 60)
{
	static char buf[2][20000], got[20000];
	pid_t pid;

	t_fill(buf[0], sizeof(buf[0]), 1);
	t_fill(buf[1], sizeof(buf[1]), 2);
	for (int i = 0; i < 2; i++) {
		char n[2] = { "ab"[i], 0 };
		int fd = Z(open(n, O_CREAT | O_WRONLY, 0644));

		EQ(write(fd, buf[i], sizeof(buf[i])), sizeof(buf[i]));
		Z(close(fd));
	}
	Z(link("a", "f"));
	pid = t_fork();
	if (!pid) {
		for (int i = 0; i < 300; i++) {
			Z(link(i % 2 ? "a" : "b", "t"));
			Z(rename("t", "f"));
			unlink("t");	/* rename of the same inode does nothing */
		}
		_exit(0);
	}
	for (int i = 0; i < 300; i++) {
		int fd = Z(open("f", O_RDONLY));

		EQ(read(fd, got, sizeof(got)), sizeof(got));
		OK(!memcmp(got, buf[0], sizeof(got)) || !memcmp(got, buf[1], sizeof(got)));
		Z(close(fd));
	}
	t_wait(pid, __FILE__, __LINE__);
}
