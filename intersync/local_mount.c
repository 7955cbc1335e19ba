// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The few operations that the client does through the mount like any program,
 * so that they are logged: what conflicts and their settling need.  The simulated
 * hosts of tests/model have their own.
 */
#include "client.h"
#include "coalesce.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util.h"

#define COPY_BLOCK	(128 * 1024)

static int local_mount(IsdClient *c, gint64 parent)
{
	int root = open(c->core->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd;

	if (root < 0)
		return -errno;
	fd = isd_local_parent(c, root, parent);
	close(root);
	return fd;
}

int isd_local_rename(IsdClient *c, gint64 parent, const char *from, const char *to)
{
	int fd = local_mount(c, parent);
	int err = 0;

	if (fd < 0)
		return fd;
	if (renameat2(fd, from, fd, to, RENAME_NOREPLACE) < 0)
		err = -errno;
	close(fd);
	return err;
}

/* Both directories; 0 or -errno, and each is to be closed with close_both(). */
static int open_both(IsdClient *c, gint64 parent, gint64 tparent, int fds[2])
{
	fds[0] = local_mount(c, parent);
	fds[1] = local_mount(c, tparent);
	return fds[0] < 0 ? fds[0] : fds[1] < 0 ? fds[1] : 0;
}

static void close_both(const int fds[2])
{
	for (int i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

int isd_local_link(IsdClient *c, gint64 parent, const char *from, gint64 tparent, const char *to)
{
	int fds[2], err = open_both(c, parent, tparent, fds);

	if (!err && linkat(fds[0], from, fds[1], to, 0) < 0)
		err = -errno;
	close_both(fds);
	return err;
}

int isd_local_move(IsdClient *c, gint64 parent, const char *from, gint64 tparent, const char *to,
		   IsdMove how)
{
	unsigned int flags = how == ISD_MOVE_TO_FREE ? RENAME_NOREPLACE :
		how == ISD_MOVE_EXCHANGE ? RENAME_EXCHANGE : 0;
	int fds[2], err = open_both(c, parent, tparent, fds);

	if (!err && renameat2(fds[0], from, fds[1], to, flags) < 0)
		err = -errno;
	close_both(fds);
	return err;
}

static int remove_at(int dirfd, const char *name);

/* Everything in the directory; takes fd over. */
static int empty_dir(int fd)
{
	DIR *d = fdopendir(fd);
	struct dirent *e;
	int err = 0;

	if (!d) {
		err = -errno;
		close(fd);
		return err;
	}
	while (!err && (errno = 0, e = readdir(d)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			err = remove_at(dirfd(d), e->d_name);
	if (!err && errno)
		err = -errno;
	closedir(d);
	return err;
}

static int remove_at(int dirfd, const char *name)
{
	int fd, err;

	if (unlinkat(dirfd, name, 0) == 0)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	err = empty_dir(fd);
	if (!err && unlinkat(dirfd, name, AT_REMOVEDIR) < 0)
		err = -errno;
	return err;
}

int isd_local_remove(IsdClient *c, gint64 parent, const char *name)
{
	int fd = local_mount(c, parent);
	int err;

	if (fd < 0)
		return fd;
	err = remove_at(fd, name);
	close(fd);
	return err;
}

int isd_local_rmdir(IsdClient *c, gint64 parent, const char *name)
{
	int fd = local_mount(c, parent);
	int err = 0;

	if (fd < 0)
		return fd;
	if (unlinkat(fd, name, AT_REMOVEDIR) < 0)
		err = -errno;
	close(fd);
	return err;
}

/* Bytes [off, end) to the same place. */
static int copy_span(int from, int to, guint64 off, guint64 end)
{
	g_autofree guint8 *buf = g_malloc(COPY_BLOCK);
	int err = 0;

	for (; off < end && !err; off += COPY_BLOCK) {
		gsize n = MIN((guint64)COPY_BLOCK, end - off);

		err = pread_all(from, buf, n, off);
		if (!err)
			err = pwrite_all(to, buf, n, off);
	}
	return err;
}

/* Content and mtime. */
static int copy_content(int from, int to)
{
	struct timespec t[2] = { { .tv_nsec = UTIME_OMIT } };
	struct stat st;
	int err;

	if (fstat(from, &st) < 0)
		return -errno;
	err = copy_span(from, to, 0, st.st_size);
	t[1] = st.st_mtim;
	if (!err && (ftruncate(to, st.st_size) < 0 || futimens(to, t) < 0 || fsync(to) < 0))
		err = -errno;
	return err;
}

static int open_in(IsdClient *c, gint64 parent, const char *name, int flags)
{
	int dir = local_mount(c, parent);
	int fd;

	if (dir < 0)
		return dir;
	fd = openat(dir, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		fd = -errno;
	close(dir);
	return fd;
}

static int copy_spans(int from, int to, GBytes *spans)
{
	gsize len;
	const IsdSpan *s = g_bytes_get_data(spans, &len);
	int err = 0;

	for (gsize i = 0; i < len / sizeof(*s) && !err; i++)
		err = copy_span(from, to, s[i].off, s[i].end);
	return !err && fsync(to) < 0 ? -errno : err;
}

int isd_local_copy(IsdClient *c, gint64 parent, const char *from, gint64 tparent, const char *to)
{
	return isd_local_merge(c, parent, from, tparent, to, NULL);
}

int isd_local_merge(IsdClient *c, gint64 parent, const char *from, gint64 tparent, const char *to,
		    GBytes *spans)
{
	int in = open_in(c, parent, from, O_RDONLY);
	int out = in < 0 ? in : open_in(c, tparent, to, O_WRONLY);
	int err = out < 0 ? out : spans ? copy_spans(in, out, spans) : copy_content(in, out);

	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
	return err;
}

int isd_local_touch(IsdClient *c, gint64 parent, const char *name)
{
	int fd = local_mount(c, parent);
	struct timespec t[2] = { { .tv_nsec = UTIME_OMIT } };
	struct stat st;
	int err = 0;

	if (fd < 0)
		return fd;
	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		err = -errno;
	} else {
		t[1] = st.st_mtim;
		if (utimensat(fd, name, t, AT_SYMLINK_NOFOLLOW) < 0)
			err = -errno;
	}
	close(fd);
	return err;
}
