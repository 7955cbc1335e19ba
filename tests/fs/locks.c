// SPDX-License-Identifier: GPL-2.0-or-later
/* Advisory locks: flock, fcntl, open file description locks; leases. */
#include "t.h"

#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>

static struct flock range(int type, off_t start, off_t len)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET,
			       .l_start = start, .l_len = len };
}

TEST(flock_excludes)
{
	int a, b;

	t_write("f", "x");
	a = Z(open("f", O_RDWR));
	b = Z(open("f", O_RDWR));
	Z(flock(a, LOCK_EX));
	E(EWOULDBLOCK, flock(b, LOCK_EX | LOCK_NB));
	E(EWOULDBLOCK, flock(b, LOCK_SH | LOCK_NB));
	Z(flock(a, LOCK_SH));
	Z(flock(b, LOCK_SH | LOCK_NB));
	E(EWOULDBLOCK, flock(a, LOCK_EX | LOCK_NB));
	Z(flock(b, LOCK_UN));
	Z(flock(a, LOCK_EX | LOCK_NB));
	Z(close(a));
	Z(flock(b, LOCK_EX | LOCK_NB));
}

TEST(flock_waits_for_process)
{
	int p[2], q[2], fd;
	char c;
	pid_t pid;

	t_write("f", "x");
	Z(pipe(p));
	Z(pipe(q));
	pid = t_fork();
	if (!pid) {
		fd = Z(open("f", O_RDWR));
		Z(flock(fd, LOCK_EX));
		EQ(write(p[1], "l", 1), 1);
		EQ(read(q[0], &c, 1), 1);
		usleep(200000);		/* most likely it waits by then */
		EQ(pwrite(fd, "done", 4, 0), 4);
		_exit(0);	/* death releases it */
	}
	EQ(read(p[0], &c, 1), 1);
	fd = Z(open("f", O_RDWR));
	E(EWOULDBLOCK, flock(fd, LOCK_EX | LOCK_NB));
	EQ(write(q[1], "w", 1), 1);
	Z(flock(fd, LOCK_EX));
	t_text("f", "done");
	t_wait(pid, __FILE__, __LINE__);
}

TEST(fcntl_ranges)
{
	struct flock l = range(F_WRLCK, 10, 10);
	pid_t pid;
	int fd;

	t_write("f", "x");
	fd = Z(open("f", O_RDWR));
	Z(fcntl(fd, F_SETLK, &l));
	pid = t_fork();
	if (!pid) {
		struct flock m = range(F_WRLCK, 0, 10);
		int mine = Z(open("f", O_RDWR));

		Z(fcntl(mine, F_SETLK, &m));
		m = range(F_RDLCK, 15, 1);
		E2(EAGAIN, EACCES, fcntl(mine, F_SETLK, &m));
		Z(fcntl(mine, F_GETLK, &m));
		EQ(m.l_type, F_WRLCK);
		EQ(m.l_start, 10);
		EQ(m.l_len, 10);
		EQ(m.l_pid, getppid());
		m = range(F_WRLCK, 20, 0);
		Z(fcntl(mine, F_SETLK, &m));
		_exit(0);
	}
	t_wait(pid, __FILE__, __LINE__);
	l = range(F_WRLCK, 0, 0);
	Z(fcntl(fd, F_SETLK, &l));
	Z(close(Z(open("f", O_RDONLY))));	/* POSIX: this releases all */
	AS(0, 0, {
		struct flock m = range(F_WRLCK, 0, 0);

		Z(fcntl(Z(open("f", O_RDWR)), F_SETLK, &m));
	});
}

TEST(fcntl_deadlock)
{
	struct flock l = range(F_WRLCK, 0, 1);
	int p[2], q[2], fd;
	char c;
	pid_t pid;

	t_write("f", "x");
	Z(pipe(p));
	Z(pipe(q));
	fd = Z(open("f", O_RDWR));
	Z(fcntl(fd, F_SETLK, &l));
	pid = t_fork();
	if (!pid) {
		int r;

		l = range(F_WRLCK, 1, 1);
		Z(fcntl(fd, F_SETLK, &l));
		EQ(write(p[1], "x", 1), 1);
		l = range(F_WRLCK, 0, 1);
		r = fcntl(fd, F_SETLKW, &l);
		OK(!r || errno == EDEADLK);
		_exit(0);
	}
	EQ(read(p[0], &c, 1), 1);
	usleep(100000);
	l = range(F_WRLCK, 1, 1);
	if (fcntl(fd, F_SETLKW, &l))
		EQ(errno, EDEADLK);
	l = range(F_UNLCK, 0, 0);
	Z(fcntl(fd, F_SETLK, &l));
	t_wait(pid, __FILE__, __LINE__);
}

TEST(ofd_locks)
{
	struct flock l = range(F_WRLCK, 0, 100), m = range(F_WRLCK, 50, 10);
	int a, b;

	t_write("f", "x");
	a = Z(open("f", O_RDWR));
	b = Z(open("f", O_RDWR));
	Z(fcntl(a, F_OFD_SETLK, &l));
	E2(EAGAIN, EACCES, fcntl(b, F_OFD_SETLK, &m));
	Z(fcntl(b, F_OFD_GETLK, &m));
	EQ(m.l_type, F_WRLCK);
	EQ(m.l_pid, -1);
	m = range(F_WRLCK, 100, 10);
	Z(fcntl(b, F_OFD_SETLK, &m));
	Z(close(Z(open("f", O_RDWR))));	/* releases nothing of them */
	m = range(F_WRLCK, 0, 1);
	E2(EAGAIN, EACCES, fcntl(b, F_OFD_SETLK, &m));
	Z(close(a));
	Z(fcntl(b, F_OFD_SETLK, &m));
}

TEST(lock_counter)
{
	enum { PROCS = 4, N = 50 };
	pid_t pid[PROCS];
	int value = 0, fd;

	t_write("counter", "");
	fd = Z(open("counter", O_RDWR));
	EQ(pwrite(fd, &value, sizeof(value), 0), sizeof(value));
	for (int i = 0; i < PROCS; i++) {
		pid[i] = t_fork();
		if (pid[i])
			continue;
		fd = Z(open("counter", O_RDWR));
		for (int n = 0; n < N; n++) {
			struct flock l = range(F_WRLCK, 0, 0);

			Z(fcntl(fd, F_SETLKW, &l));
			EQ(pread(fd, &value, sizeof(value), 0), sizeof(value));
			value++;
			EQ(pwrite(fd, &value, sizeof(value), 0), sizeof(value));
			l.l_type = F_UNLCK;
			Z(fcntl(fd, F_SETLK, &l));
		}
		_exit(0);
	}
	for (int i = 0; i < PROCS; i++)
		t_wait(pid[i], __FILE__, __LINE__);
	EQ(pread(fd, &value, sizeof(value), 0), sizeof(value));
	EQ(value, PROCS * N);
}
