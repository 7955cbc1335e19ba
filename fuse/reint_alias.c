// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * REINT of content for an object with several names, when a reader has it
 * open: the new inode takes the place of the old one under all of its names, at once
 * for everybody who looks, because all their directories are locked.  What can
 * fail for want of space happens before the intent.  Recovery completes the renames.
 */
#include <config.h>

#include "reint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void temp_name(char buf[32], unsigned int n)
{
	snprintf(buf, 32, REINT_TEMP ".%u", n);
}

/* "/a/b/name" into its directory and its name, which has at most 255 bytes. */
static void split(const struct kml_str *path, struct kml_str *ret_dir, char ret_name[256])
{
	const char *slash = memrchr(path->ptr, '/', path->len);
	const size_t dir = slash - path->ptr, len = path->len - dir - 1;

	ret_dir->ptr = path->ptr;
	ret_dir->len = dir ? dir : 1;
	memcpy(ret_name, slash + 1, len);
	ret_name[len] = 0;
}

static unsigned int count(const struct kml_record *r)
{
	struct kml_str path;
	unsigned int n = 0;
	size_t pos = 0;

	while (kml_alias_next(r->aliases, r->aliases_len, &pos, &path))
		n++;
	return n;
}

/* One place for each directory: that is what keeps its mtime. */
static void share_place(struct reint_entry *e, struct alias *a)
{
	struct alias *b;

	a->place = &a->own;
	if (a->own.inode == e->run->place.inode)
		a->place = &e->run->place;
	for (b = e->aliases; b < a; b++)
		if (b->place->inode == a->own.inode)
			a->place = b->place;
	if (a->place != &a->own)
		place_clear(&a->own);
}

int aliases_open(struct reint_entry *e)
{
	struct kml_str path, dir;
	size_t pos = 0;
	int err = 0;

	e->aliases = calloc(count(&e->r) + 1, sizeof(*e->aliases));
	if (!e->aliases)
		return -ENOMEM;
	while (!err && kml_alias_next(e->r.aliases, e->r.aliases_len, &pos, &path)) {
		struct alias *a = &e->aliases[e->n_aliases];

		split(&path, &dir, a->name);
		err = place_open(&a->own, &dir);
		if (err)
			break;
		share_place(e, a);
		e->n_aliases++;
		if (name_hidden(a->place->inode, a->name))
			err = -ENOENT;
	}
	return err == -ENOENT || err == -ENOTDIR || err == -ELOOP || err == -EXDEV ? -ESTALE : err;
}

void aliases_close(struct reint_entry *e)
{
	unsigned int n;

	for (n = 0; n < e->n_aliases; n++)
		place_clear(&e->aliases[n].own);
	free(e->aliases);
	e->aliases = NULL;
	e->n_aliases = 0;
}

int aliases_lock(struct reint_entry *e, unsigned int **ret_stripes, unsigned int *ret_n)
{
	unsigned int *stripes = calloc(e->n_aliases + 1, sizeof(*stripes)), n;

	if (!stripes)
		return -ENOMEM;
	for (n = 0; n < e->n_aliases; n++)
		stripes[n] = dir_stripe(e->aliases[n].place->inode->ino);
	stripes[n++] = dir_stripe(e->run->place.inode->ino);
	n = dir_stripes(stripes, n);
	dir_lock_stripes(stripes, n);
	*ret_stripes = stripes;
	*ret_n = n;
	return 0;
}

int aliases_dirs(struct reint_entry *e, struct inode ***ret_dirs)
{
	struct inode **dirs = calloc(e->n_aliases + 1, sizeof(*dirs));
	unsigned int n;

	if (!dirs)
		return -ENOMEM;
	for (n = 0; n < e->n_aliases; n++)
		dirs[n] = e->aliases[n].place->inode;
	e->op.also = dirs;
	e->op.n_also = n;
	*ret_dirs = dirs;
	return 0;
}

static bool same_name(const struct place *p, const char *name, const struct alias *b)
{
	return p->inode == b->place->inode && strcmp(name, b->name) == 0;
}

int aliases_check(const struct reint_entry *e)
{
	unsigned int n, k;
	struct stat st;

	for (n = 0; n < e->n_aliases; n++) {
		const struct alias *a = &e->aliases[n];

		if (fstatat(a->place->fd, a->name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
		    st.st_ino != e->obj.st.st_ino || same_name(&e->run->place, e->name, a))
			return -ESTALE;
		for (k = 0; k < n; k++)
			if (same_name(a->place, a->name, &e->aliases[k]))
				return -ESTALE;
	}
	return 0;
}

int aliases_prepare(const struct reint_entry *e, const char *from)
{
	unsigned int n;
	char temp[32];

	for (n = 0; n < e->n_aliases; n++) {
		temp_name(temp, n);
		unlinkat(fs.incoming_fd, temp, 0);
		if (linkat(fs.incoming_fd, from, fs.incoming_fd, temp, 0) != 0)
			return -errno;
	}
	return 0;
}

void aliases_unprepare(const struct reint_entry *e)
{
	unsigned int n;
	char temp[32];

	for (n = 0; n < e->n_aliases; n++) {
		temp_name(temp, n);
		unlinkat(fs.incoming_fd, temp, 0);
	}
}

void aliases_move(struct reint_entry *e)
{
	struct stat dir;
	unsigned int n;
	char temp[32];

	for (n = 0; n < e->n_aliases; n++) {
		struct alias *a = &e->aliases[n];
		const bool known = fstatat(a->place->fd, "", &dir, AT_EMPTY_PATH) == 0;

		temp_name(temp, n);
		if (renameat(fs.incoming_fd, temp, a->place->fd, a->name) != 0)
			complain("%s: %s: a name of a replaced file could not be moved: %s",
				 fs.opt.source, a->name, strerror(errno));
		else if (known)
			place_keep_mtime(e->run, a->place, &dir.st_mtim);
	}
}

void aliases_tell_kernel(const struct reint_entry *e)
{
	unsigned int n;

	for (n = 0; n < e->n_aliases; n++)
		forget_name(e->aliases[n].place, e->aliases[n].name);
}

static int redo_one(int dirfd, const char *name, const struct kml_str *path, uint64_t old)
{
	char alias[256], temp[32];
	struct kml_str dir;
	struct stat st;
	int fd, err = 0;

	split(path, &dir, alias);
	fd = reint_walk(dir.ptr, dir.len);
	if (fd < 0)
		return 0;
	temp_name(temp, 0);
	unlinkat(fs.incoming_fd, temp, 0);
	if (fstatat(fd, alias, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino == old &&
	    (linkat(dirfd, name, fs.incoming_fd, temp, 0) != 0 ||
	     renameat(fs.incoming_fd, temp, fd, alias) != 0))
		err = -errno;
	close(fd);
	return err;
}

int aliases_redo(int dirfd, const char *name, const struct kml_record *r)
{
	struct kml_str path;
	size_t pos = 0;
	int err = 0;

	while (!err && kml_alias_next(r->aliases, r->aliases_len, &pos, &path))
		err = redo_one(dirfd, name, &path, r->old.ino);
	return err;
}

void reint_clean(void)
{
	int fd = fcntl(fs.incoming_fd, F_DUPFD_CLOEXEC, 0);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;

	if (!d && fd >= 0)
		close(fd);
	while (d && (de = readdir(d)))
		if (strncmp(de->d_name, REINT_TEMP, strlen(REINT_TEMP)) == 0)
			unlinkat(fs.incoming_fd, de->d_name, 0);
	if (d)
		closedir(d);
}
