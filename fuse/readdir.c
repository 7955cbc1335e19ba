// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Listings.  Offsets are the lower file system's, so a program may come back
 * to one at any time.  Entries of the root that are hidden are left out here.
 */
#include <config.h>

#include "fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BUF_SIZE	32768

struct dirent64_ {
	uint64_t	ino;
	int64_t		off;
	uint16_t	len;
	uint8_t		type;
	char		name[];
};

struct listing {
	struct inode	*dir;
	int		fd;
	pthread_mutex_t	lock;
	off_t		off;		/* where the entry at pos is */
	size_t		pos, len;
	char		buf[BUF_SIZE] __attribute__((aligned(8)));
};

static struct listing *listing_of(struct fuse_file_info *fi)
{
	return (struct listing *) (uintptr_t) fi->fh;
}

void ll_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct inode *dir = inode_of(ino);
	struct listing *l;
	int fd, lower;

	lower = inode_get_fd(dir);
	if (lower < 0) {
		fuse_reply_err(req, -lower);
		return;
	}
	fd = openat(lower, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		fd = -errno;
	inode_put_fd(dir);
	l = fd < 0 ? NULL : malloc(sizeof(*l));
	if (!l) {
		if (fd >= 0)
			close(fd);
		fuse_reply_err(req, fd < 0 ? -fd : ENOMEM);
		return;
	}
	l->dir = dir;
	l->fd = fd;
	l->off = 0;
	l->pos = l->len = 0;
	pthread_mutex_init(&l->lock, NULL);
	fi->fh = (uintptr_t) l;
	if (fuse_reply_open(req, fi) != 0) {
		close(fd);
		free(l);
	}
}

void ll_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct listing *l = listing_of(fi);

	close(l->fd);
	pthread_mutex_destroy(&l->lock);
	free(l);
	fuse_reply_err(req, 0);
}

void ll_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	int err = inode_of(ino)->meta ? 0 : journal_sync();

	if (!err && fsync(listing_of(fi)->fd) != 0)
		err = -errno;
	fuse_reply_err(req, -err);
}

/* The entry at the position: 1, 0 at the end. */
static int next_entry(struct listing *l, struct dirent64_ **ret_d)
{
	long n;

	if (l->pos >= l->len) {
		n = syscall(SYS_getdents64, l->fd, l->buf, BUF_SIZE);
		l->pos = 0;
		l->len = n > 0 ? n : 0;
		/* a removed directory has no entries */
		if (n < 0)
			return errno == ENOENT ? 0 : -errno;
		if (n == 0)
			return 0;
	}
	*ret_d = (struct dirent64_ *) (l->buf + l->pos);
	return 1;
}

static bool left_out(const struct inode *dir, const char *name)
{
	return dir == root_inode &&
	       (strcmp(name, META_DIR) == 0 || strcmp(name, LOST_FOUND) == 0);
}

static bool is_dot(const char *name)
{
	return name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0));
}

static size_t add_plain(fuse_req_t req, const struct dirent64_ *d, char *buf, size_t room)
{
	struct stat st = { .st_ino = d->ino, .st_mode = (mode_t) d->type << 12 };

	return fuse_add_direntry(req, buf, room, d->name, &st, d->off);
}

/* With attributes: a lookup, but for "." and "..". */
static size_t add_plus(fuse_req_t req, struct listing *l, const struct dirent64_ *d, char *buf,
		       size_t room)
{
	struct fuse_entry_param e = {
		.attr.st_ino = d->ino,
		.attr.st_mode = (mode_t) d->type << 12,
	};
	struct inode *i = NULL;
	size_t n;

	/* what cannot be looked up now is listed all the same */
	if (!is_dot(d->name) && inode_lookup(l->dir, l->fd, d->name, true, &e.attr, &i) == 0) {
		e.ino = i->nodeid;
		e.generation = i->gen;
		e.attr_timeout = cache_time(i);
		e.entry_timeout = cache_time(i);
	}
	n = fuse_add_direntry_plus(req, buf, room, d->name, &e, d->off);
	if (i && n > room)
		inode_forget(i, 1);
	return n;
}

static ssize_t list(fuse_req_t req, struct listing *l, char *buf, size_t size, bool plus)
{
	struct dirent64_ *d = NULL;
	size_t used = 0, n;
	int rc = 0;

	while ((rc = next_entry(l, &d)) > 0) {
		if (!left_out(l->dir, d->name)) {
			n = plus ? add_plus(req, l, d, buf + used, size - used) :
				   add_plain(req, d, buf + used, size - used);
			if (n > size - used)
				break;
			used += n;
		}
		l->pos += d->len;
		l->off = d->off;
	}
	return used || rc >= 0 ? (ssize_t) used : rc;
}

static int go_to(struct listing *l, off_t off)
{
	/* at the start always anew: rewinddir() */
	if (off == l->off && off != 0)
		return 0;
	if (lseek(l->fd, off, SEEK_SET) < 0)
		return -errno;
	l->off = off;
	l->pos = l->len = 0;
	return 0;
}

static void reply_list(fuse_req_t req, size_t size, off_t off, struct fuse_file_info *fi,
		       bool plus)
{
	struct listing *l = listing_of(fi);
	char *buf = malloc(size);
	ssize_t n = -ENOMEM;

	if (buf) {
		pthread_mutex_lock(&l->lock);
		dir_lock_shared(l->dir->ino);
		n = go_to(l, off);
		if (n == 0)
			n = list(req, l, buf, size, plus);
		dir_unlock(l->dir->ino);
		pthread_mutex_unlock(&l->lock);
	}
	if (n < 0)
		fuse_reply_err(req, -n);
	else
		fuse_reply_buf(req, buf, n);
	free(buf);
}

void ll_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		struct fuse_file_info *fi)
{
	reply_list(req, size, off, fi, false);
}

void ll_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	reply_list(req, size, off, fi, true);
}
