/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects by number: from inode and version to an open file that has this
 * content, and whether it still has it.
 *
 * The state says which name the object has; the name is opened below the
 * lower root without following symbolic links, and what was opened has to be what the
 * state says in inode, size, mtime and ctime.  Every change of content moves
 * ctime, but only in the steps of the kernel's coarse clock; that is why content
 * younger than that is looked at a second time.
 */
#include "reader.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define COARSE_MS 20		/* twice the longest tick of the kernel's clock */
#define MIS_LAGS 1		/* not an HTTP status: the state is behind the tree */

/* Open below dirfd; a path longer than PATH_MAX is taken in pieces. */
static int open_beneath(int dirfd, const char *path, int flags)
{
	struct open_how how = {
		.flags = flags | O_CLOEXEC | O_NOFOLLOW,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};

	return syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
}

int mis_open_root(int root_fd)
{
	return open_beneath(root_fd, ".", O_PATH | O_DIRECTORY);
}

/* The last '/' of path that leaves less than PATH_MAX before it, or NULL. */
static const char *piece_end(const char *path)
{
	const char *p;

	if (strlen(path) < PATH_MAX)
		return NULL;
	for (p = path + PATH_MAX - 2; p > path; p--)
		if (*p == '/')
			return p;
	return NULL;
}

static int open_dir_path(int root_fd, const char *path)
{
	int fd = mis_open_root(root_fd);

	while (*path == '/')
		path++;
	while (fd >= 0 && *path) {
		const char *end = piece_end(path);
		char piece[PATH_MAX];
		size_t len = end ? (size_t) (end - path) : strlen(path);
		int next;

		if (len >= sizeof(piece)) {
			close(fd);
			errno = ENAMETOOLONG;
			return -1;
		}
		memcpy(piece, path, len);
		piece[len] = 0;
		next = open_beneath(fd, piece, O_PATH | O_DIRECTORY);
		close(fd);
		fd = next;
		path += len;
		while (*path == '/')
			path++;
	}
	return fd;
}

/* The slot of a directory: its own, or the one that was used longest ago. */
static struct mis_dir *dir_slot(struct mis_reader *r, int64_t id)
{
	struct mis_dir *oldest = &r->dirs[0];
	unsigned int i;

	for (i = 0; i < MIS_DIRS; i++) {
		struct mis_dir *d = &r->dirs[i];

		if (d->fd >= 0 && d->id == id)
			return d;
		if (d->fd < 0 || (oldest->fd >= 0 && d->used < oldest->used))
			oldest = d;
	}
	if (oldest->fd >= 0)
		close(oldest->fd);
	oldest->fd = -1;
	return oldest;
}

/*
 * A descriptor of the directory.  It stays good while the directory is moved; it
 * may be one that was removed, then names are not found below it.
 */
static struct mis_dir *dir_open(const struct mis_fileset *f, struct mis_reader *r, int64_t id)
{
	struct mis_dir *d = dir_slot(r, id);
	char *path;

	d->used = ++r->clock;
	if (d->fd >= 0)
		return d;
	path = isd_state_path(r->state, id, NULL);
	if (!path)
		return NULL;
	d->fd = open_dir_path(f->root_fd, path);
	d->id = id;
	g_free(path);
	return d->fd >= 0 ? d : NULL;
}

static void dir_forget(struct mis_dir *d)
{
	close(d->fd);
	d->fd = -1;
}

static int open_name(const struct mis_fileset *f, struct mis_reader *r, int64_t id)
{
	g_auto(IsdName) name = { 0 };
	gboolean found;
	struct mis_dir *d;
	int fd;

	if (!isd_state_a_name(r->state, id, &name, &found, NULL) || !found)
		return -1;
	d = dir_open(f, r, name.parent);
	if (!d)
		return -1;
	fd = open_beneath(d->fd, name.name, O_RDONLY | O_NONBLOCK);
	if (fd < 0)
		dir_forget(d);
	return fd;
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

bool mis_unchanged(int fd, const struct mis_stamp *s)
{
	struct stat st;

	return !fstat(fd, &st) && st.st_ino == s->ino && (uint64_t) st.st_size == s->size &&
	       same_time(&st.st_mtim, &s->mtime) && same_time(&st.st_ctim, &s->ctime);
}

/* Let the coarse clock move on if a change now could leave ctime as it is. */
static void wait_for_clock(const struct timespec *ctime)
{
	struct timespec now, pause = { 0 };
	int64_t age;

	clock_gettime(CLOCK_REALTIME, &now);
	age = (now.tv_sec - ctime->tv_sec) * INT64_C(1000) +
	      (now.tv_nsec - ctime->tv_nsec) / 1000000;
	if (age < 0 || age >= COARSE_MS)
		return;
	pause.tv_nsec = (COARSE_MS - age) * 1000000;
	nanosleep(&pause, NULL);
}

static void stamp_of(const IsdObject *o, struct mis_stamp *ret)
{
	ret->ino = o->oid.ino;
	ret->size = o->attr.size;
	ret->mtime.tv_sec = o->attr.mtime.sec;
	ret->mtime.tv_nsec = o->attr.mtime.nsec;
	ret->ctime.tv_sec = o->attr.ctime.sec;
	ret->ctime.tv_nsec = o->attr.ctime.nsec;
}

static int open_once(const struct mis_fileset *f, struct mis_reader *r, struct kml_oid oid,
		     uint64_t version, int *ret_fd, struct mis_stamp *stamp)
{
	g_auto(IsdObject) o = { 0 };
	gboolean found;
	int fd;

	if (!isd_state_by_oid(r->state, oid, &o, &found, NULL))
		return 500;
	if (!found)
		return 410;	/* removed or replaced, for all that is known */
	if (!S_ISREG(o.attr.mode) || o.cver < version)
		return 404;
	if (o.cver > version)
		return 410;
	stamp_of(&o, stamp);
	fd = open_name(f, r, o.id);
	if (fd < 0)
		return MIS_LAGS;
	wait_for_clock(&stamp->ctime);
	if (!mis_unchanged(fd, stamp)) {
		close(fd);
		return MIS_LAGS;
	}
	*ret_fd = fd;
	return 200;
}

int mis_object_open(const struct mis_fileset *f, struct mis_reader *r, struct kml_oid oid,
		    uint64_t version, int *ret_fd, struct mis_stamp *ret_stamp)
{
	int status = open_once(f, r, oid, version, ret_fd, ret_stamp);

	if (status == MIS_LAGS && r->refreshes++ < MIS_REFRESHES &&
	    mis_reader_refresh(f, r, oid))
		status = open_once(f, r, oid, version, ret_fd, ret_stamp);
	return status == MIS_LAGS ? 425 : status;
}
