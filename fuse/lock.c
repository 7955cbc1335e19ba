// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Striped locks for directories and files (their order is in fs.h), and
 * the identity with which a thread makes objects.
 *
 * setfsuid() and setfsgid() of the system, not of libc, which would change
 * all threads; SECBIT_NO_SETUID_FIXUP keeps root's capabilities, because what
 * the caller may do has been checked by the kernel already.
 */
#include <config.h>

#include "fs.h"

#include <errno.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define STRIPES	1024

static pthread_rwlock_t dirs[STRIPES] = { [0 ... STRIPES - 1] = PTHREAD_RWLOCK_INITIALIZER };
static pthread_rwlock_t files[STRIPES] = { [0 ... STRIPES - 1] = PTHREAD_RWLOCK_INITIALIZER };

static unsigned int stripe(uint64_t ino)
{
	return ino * 0x9e3779b97f4a7c15ULL >> 54;
}

void dir_lock(uint64_t ino)
{
	pthread_rwlock_wrlock(&dirs[stripe(ino)]);
}

void dir_lock_shared(uint64_t ino)
{
	pthread_rwlock_rdlock(&dirs[stripe(ino)]);
}

void dir_unlock(uint64_t ino)
{
	pthread_rwlock_unlock(&dirs[stripe(ino)]);
}

/* Two stripes in their order; lock is pthread_rwlock_wrlock or _rdlock. */
static void lock2(pthread_rwlock_t *locks, uint64_t a, uint64_t b,
		  int (*lock)(pthread_rwlock_t *l))
{
	unsigned int x = stripe(a), y = stripe(b);

	lock(&locks[x < y ? x : y]);
	if (x != y)
		lock(&locks[x < y ? y : x]);
}

static void unlock2(pthread_rwlock_t *locks, uint64_t a, uint64_t b)
{
	unsigned int x = stripe(a), y = stripe(b);

	pthread_rwlock_unlock(&locks[x]);
	if (x != y)
		pthread_rwlock_unlock(&locks[y]);
}

void dir_lock2(uint64_t a, uint64_t b)
{
	lock2(dirs, a, b, pthread_rwlock_wrlock);
}

void dir_unlock2(uint64_t a, uint64_t b)
{
	unlock2(dirs, a, b);
}

static int by_number(const void *a, const void *b)
{
	const unsigned int x = *(const unsigned int *) a, y = *(const unsigned int *) b;

	return x < y ? -1 : x > y;
}

unsigned int dir_stripes(unsigned int *stripes, unsigned int n)
{
	unsigned int k, used = 0;

	qsort(stripes, n, sizeof(*stripes), by_number);
	for (k = 0; k < n; k++)
		if (!used || stripes[used - 1] != stripes[k])
			stripes[used++] = stripes[k];
	return used;
}

unsigned int dir_stripe(uint64_t ino)
{
	return stripe(ino);
}

void dir_lock_stripes(const unsigned int *stripes, unsigned int n)
{
	unsigned int k;

	for (k = 0; k < n; k++)
		pthread_rwlock_wrlock(&dirs[stripes[k]]);
}

void dir_unlock_stripes(const unsigned int *stripes, unsigned int n)
{
	unsigned int k;

	for (k = 0; k < n; k++)
		pthread_rwlock_unlock(&dirs[stripes[k]]);
}

void file_lock(uint64_t ino)
{
	pthread_rwlock_wrlock(&files[stripe(ino)]);
}

void file_lock_shared(uint64_t ino)
{
	pthread_rwlock_rdlock(&files[stripe(ino)]);
}

void file_unlock(uint64_t ino)
{
	pthread_rwlock_unlock(&files[stripe(ino)]);
}

void file_lock2_shared(uint64_t a, uint64_t b)
{
	lock2(files, a, b, pthread_rwlock_rdlock);
}

void file_unlock2(uint64_t a, uint64_t b)
{
	unlock2(files, a, b);
}

/*
 * Who opens a file for writing that REINT has just replaced gets ESTALE and is
 * sent by the kernel to look once more.  If REINT replaced it again meanwhile
 * the program would see the error; so REINT waits until as many have come
 * as were sent, or for a while, as some may have been killed on their way.
 */
#define COMING_NSEC	1000000000LL
#define COMING_NAP	1000000

static _Atomic int64_t sent_at;
static _Atomic unsigned int sent;

static int64_t now_nsec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

void writer_comes(void)
{
	sent_at = now_nsec();
	sent++;
}

void writer_came(void)
{
	unsigned int n = sent;

	while (n && !atomic_compare_exchange_weak(&sent, &n, n - 1))
		;
}

void writer_wait(void)
{
	const struct timespec nap = { 0, COMING_NAP };

	while (sent && now_nsec() - sent_at < COMING_NSEC)
		nanosleep(&nap, NULL);
	sent = 0;
}

/* What the thread is now.  The umask stays until another caller has another one. */
static __thread uid_t thread_uid;
static __thread gid_t thread_gid;
static __thread mode_t thread_umask;

int worker_init(void)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	if (unshare(CLONE_FS) != 0)
		return -errno;
	umask(0);
	if (prctl(PR_SET_SECUREBITS, prctl(PR_GET_SECUREBITS) | SECBIT_NO_SETUID_FIXUP) != 0)
		return -errno;
	return 0;
}

void creds_enter(fuse_req_t req)
{
	const struct fuse_ctx *ctx;

	if (!req)
		return;
	ctx = fuse_req_ctx(req);
	if (ctx->gid != thread_gid)
		syscall(SYS_setfsgid, ctx->gid);
	if (ctx->uid != thread_uid)
		syscall(SYS_setfsuid, ctx->uid);
	thread_gid = ctx->gid;
	thread_uid = ctx->uid;
	if (ctx->umask != thread_umask) {
		umask(ctx->umask);
		thread_umask = ctx->umask;
	}
}

void creds_leave(void)
{
	if (thread_uid != 0)
		syscall(SYS_setfsuid, 0);
	if (thread_gid != 0)
		syscall(SYS_setfsgid, 0);
	thread_uid = 0;
	thread_gid = 0;
}
