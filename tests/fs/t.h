/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The small frame that the C programs of the file-system suite share: each
 * test is a function that runs in a child process, in a fresh directory of
 * its own on the file system under test, with a time limit.  A check that
 * fails ends that test with a line that says where and why.  Output is TAP.
 */
#ifndef TESTS_FS_T_H
#define TESTS_FS_T_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

struct test {
	const char	*name;
	void		(*fn)(void);
	unsigned int	seconds;	/* far more than it takes; ten times that ends a hang */
	struct test	*next;
};

void t_register(struct test *t);

#define TEST_T(id, limit)						\
	static void id(void);						\
	static struct test t_##id = { #id, id, limit, NULL };		\
	static void __attribute__((constructor)) r_##id(void)		\
	{								\
		t_register(&t_##id);					\
	}								\
	static void id(void)
#define TEST(id) TEST_T(id, 60)

/* Runs all tests whose name contains one of the arguments after DIR. */
int t_main(int argc, char **argv);

/* The directory given on the command line, absolute. */
extern const char *t_root;

void __attribute__((noreturn, format(printf, 3, 4)))
t_fail(const char *file, int line, const char *fmt, ...);
void __attribute__((noreturn, format(printf, 1, 2))) t_skip(const char *fmt, ...);
void __attribute__((format(printf, 1, 2))) t_note(const char *fmt, ...);

long long t_good(long long value, const char *call, const char *file, int line);

#define FAIL(...) t_fail(__FILE__, __LINE__, __VA_ARGS__)

#define OK(cond) do {							\
	if (!(cond))							\
		FAIL("%s", #cond);					\
} while (0)

/* a == b, as numbers */
#define EQ(a, b) do {							\
	long long a_ = (long long)(a), b_ = (long long)(b);		\
	if (a_ != b_)							\
		FAIL("%s is %lld, expected %s = %lld", #a, a_, #b, b_);	\
} while (0)

/* a call that must succeed; its value */
#define Z(call) \
	t_good((errno = 0, (long long)(call)), #call, __FILE__, __LINE__)

/* a call that must fail with this errno */
#define E(e, call) do {							\
	errno = 0;							\
	long long r_ = (long long)(call);				\
	int e_ = errno;							\
	if (r_ >= 0)							\
		FAIL("%s: succeeded, expected %s", #call, strerror(e));	\
	if (e_ != (e))							\
		FAIL("%s: %s, expected %s", #call, strerror(e_), strerror(e)); \
} while (0)

/* the same where POSIX or Linux leaves a choice of two */
#define E2(e, f, call) do {						\
	errno = 0;							\
	long long r_ = (long long)(call);				\
	int e_ = errno;							\
	if (r_ >= 0)							\
		FAIL("%s: succeeded, expected %s", #call, strerror(e));	\
	if (e_ != (e) && e_ != (f))					\
		FAIL("%s: %s, expected %s", #call, strerror(e_), strerror(e)); \
} while (0)

/* statement in a child process with these ids; fails if a check in it does */
#define AS(uid, gid, stmt) do {						\
	pid_t p_ = t_fork();						\
	if (!p_) {							\
		t_become(uid, gid, NULL, 0);				\
		stmt;							\
		_exit(0);						\
	}								\
	t_wait(p_, __FILE__, __LINE__);					\
} while (0)

pid_t t_fork(void);
void t_wait(pid_t pid, const char *file, int line);
void t_become(uid_t uid, gid_t gid, const gid_t *groups, size_t n);

/* small things that many tests need; all fail the test on error */
void t_write(const char *path, const char *text);	/* make a file */
void t_expect(const char *path, const void *data, size_t len);
void t_text(const char *path, const char *text);
struct stat t_stat(const char *path);			/* lstat */
bool t_exists(const char *path);
void t_backdate(const char *path);	/* atime, mtime: 2001 */
bool t_recent(struct timespec ts);	/* within the last few minutes */
void t_fill(char *buf, size_t len, unsigned int seed);
unsigned int t_entries(const char *dir);	/* without "." and ".." */

/* random numbers that can be repeated: TEST_SEED, printed */
unsigned long t_seed(void);
void t_reseed(unsigned long seed);
unsigned long t_rand(unsigned long n);

#endif
