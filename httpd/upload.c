/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Uploads: the files of peers in incoming/.  Only their owner's uuid leads to
 * them, and a lock keeps intersync from taking one that is still being written
 * (intersync/serve_reint.c takes the same lock).
 */
#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "util.h"

static bool name_ok(const char *name)
{
	size_t len = strlen(name);

	return len && len <= MIS_NAME_MAX &&
	       strspn(name, "0123456789abcdefghijklmnopqrstuvwxyz.-") == len;
}

bool mis_upload_name(char *ret, size_t size, const char *peer, const char *name)
{
	int len;

	if (!name_ok(name))
		return false;
	len = snprintf(ret, size, "incoming/%s-%s", peer, name);
	return len > 0 && (size_t) len < size;
}

static int status_of(int err)
{
	switch (err) {
	case ENOENT:
		return 404;
	case EWOULDBLOCK:
		return 409;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return 507;
	default:
		return 500;
	}
}

/* After the lock: is it still the file that has the name? */
static bool still_there(int meta_fd, const char *file, int fd)
{
	struct stat a, b;

	return !fstat(fd, &a) && !fstatat(meta_fd, file, &b, AT_SYMLINK_NOFOLLOW) &&
	       a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

int mis_upload_open(const struct mis_fileset *f, const char *file, int *ret_fd)
{
	int tries, fd, err;

	for (tries = 0; tries < 3; tries++) {
		fd = openat(f->meta_fd, file, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd < 0)
			return status_of(errno);
		if (flock(fd, LOCK_EX | LOCK_NB)) {
			err = errno;
			close(fd);
			return status_of(err);
		}
		if (still_there(f->meta_fd, file, fd)) {
			*ret_fd = fd;
			return 200;
		}
		close(fd);
	}
	return 409;
}

/*
 * The reserve is kept here, with a piece, and not by the writes: a disk that is
 * full to the last byte could not take the state's changes either.
 */
int mis_upload_room(const struct mis_fileset *f, uint64_t bytes)
{
	uint64_t room;

	if (room_for_content(f->meta_fd, &room))
		return 200;	/* the write will tell */
	return bytes > room ? 507 : 200;
}

int mis_upload_rest_fits(const struct mis_fileset *f, const char *file, uint64_t bytes)
{
	struct stat st;
	uint64_t have = 0;

	if (!fstatat(f->meta_fd, file, &st, AT_SYMLINK_NOFOLLOW))
		have = (uint64_t) st.st_blocks * 512;
	return bytes > have ? mis_upload_room(f, bytes - have) : 200;
}

int mis_upload_write(int fd, const void *buf, size_t len, uint64_t off)
{
	int err = off + len > INT64_MAX ? -EFBIG : pwrite_all(fd, buf, len, off);

	return err ? status_of(-err) : 200;
}

int mis_upload_size(int fd, uint64_t size)
{
	int err;

	do {
		err = ftruncate(fd, size) ? errno : 0;
	} while (err == EINTR);
	return err ? status_of(err) : 200;
}

int mis_upload_length(const struct mis_fileset *f, const char *file, uint64_t *ret_length)
{
	struct stat st;

	if (fstatat(f->meta_fd, file, &st, AT_SYMLINK_NOFOLLOW))
		return status_of(errno);
	*ret_length = st.st_size;
	return 200;
}

int mis_upload_delete(const struct mis_fileset *f, const char *file)
{
	if (unlinkat(f->meta_fd, file, 0))
		return status_of(errno);
	return 200;
}
