// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The catalog of an existing tree (doc/catalog.md), written in one walk.
 *
 * The walk holds one descriptor, of the directory it is in: down by name, up
 * by "..", each time checking that it got where it wanted.  So neither depth
 * nor path length has a limit, and a tree that changes meanwhile is noticed
 * instead of being mixed up.
 */
#include <config.h>

#include "catalog.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "record.h"
#include "util.h"

#define OUT_SIZE	(1024 * 1024)
#define DENTS_SIZE	(256 * 1024)
/* of one record: the rest of its 160 KiB is for everything else */
#define BLOB_SIZE	(128 * 1024)
#define STATX_WANTED	STATX_BASIC_STATS

/* A file with several names, of which not all have been met. */
struct linked {
	struct linked	*next;
	uint64_t	ino;
	uint32_t	left;		/* names not met yet */
	struct kml_oid	parent;		/* of the first name */
	uint8_t		name_len;
	char		name[];
};

/* Before each name in struct level's list of subdirectories. */
struct subdir {
	struct kml_oid	oid;
	uint16_t	name_len;
};

/* A directory on the way from the root to where the walk is. */
struct level {
	struct kml_oid	oid;
	char		*subdirs;	/* struct subdir, name, NUL; unaligned */
	size_t		used, next, size;
	size_t		path_len;	/* of this directory in walk->path */
};

struct walk {
	int		fd;		/* the current directory */
	int		out_fd;
	char		*out;
	size_t		out_used;
	uint64_t	recno;
	uint32_t	dev_major, dev_minor;
	struct kml_time	now;
	struct level	*levels;
	size_t		depth, levels_size;
	char		*path;		/* of the current directory, for messages */
	size_t		path_size;
	struct linked	**buckets;
	size_t		n_buckets, n_linked;
	char		*dents, *list, *value, *blob;
	const volatile sig_atomic_t *stop;
	struct catalog_report *rep;
};

static int complain(struct walk *w, const char *name, int error, const char *what)
{
	size_t n = w->depth ? w->levels[w->depth - 1].path_len : 0;
	char *dir = name_escape(w->path ? w->path : "", n);
	char *base = name_escape(name, strlen(name));

	snprintf(w->rep->why, sizeof(w->rep->why), "%s%s%s: %s", dir ? dir : "",
		 n ? "/" : "", base ? base : "", what ? what : strerror(-error));
	free(dir);
	free(base);
	return error;
}

static int flush(struct walk *w)
{
	int rc = pwrite_all(w->out_fd, w->out, w->out_used, w->rep->bytes);

	if (rc)
		return complain(w, "catalog", rc, NULL);
	w->rep->bytes += w->out_used;
	w->out_used = 0;
	return 0;
}

static int emit(struct walk *w, struct kml_record *r, const char *name)
{
	size_t need = kml_encoded_size(r);
	ssize_t len;
	int rc;

	if (need > OUT_SIZE - w->out_used) {
		rc = flush(w);
		if (rc)
			return rc;
	}
	r->time = w->now;
	r->pid = getpid();
	r->auid = ~0U;
	len = kml_encode(w->out + w->out_used, OUT_SIZE - w->out_used, r);
	if (len < 0)
		return complain(w, name, len, "cannot be described by a log record");
	kml_seal(w->out + w->out_used, ++w->recno, 0);
	w->out_used += len;
	return 0;
}

/* Extended attributes */

static bool xattr_wanted(const char *name)
{
	static const char *const spaces[] = {
		"user.", "security.", "trusted.", "system.posix_acl_",
	};
	size_t i;

	if (strncmp(name, "trusted.intermezzo.", 19) == 0)
		return false;
	for (i = 0; i < sizeof(spaces) / sizeof(spaces[0]); i++)
		if (strncmp(name, spaces[i], strlen(spaces[i])) == 0)
			return true;
	return false;
}

/* There is no llistxattrat() in older kernels; the name alone may be 255 bytes. */
static void xattr_path(struct walk *w, const char *name, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "/proc/self/fd/%d/%s", w->fd, name);
}

/* Names of extended attributes, NUL-separated, into w->list. */
static ssize_t xattr_list(struct walk *w, const char *name)
{
	char path[PATH_MAX];
	ssize_t n;

	xattr_path(w, name, path);
	n = llistxattr(path, w->list, XATTR_LIST_MAX);
	if (n >= 0)
		return n;
	if (errno == EOPNOTSUPP)
		return 0;
	return complain(w, name, -errno, errno == E2BIG ?
			"has more extended attributes than can be listed" : NULL);
}

/* Append one attribute to w->blob.  Returns its length there, -ENOSPC when the blob is full. */
static ssize_t xattr_add(struct walk *w, const char *name, const char *attr, size_t used)
{
	char path[PATH_MAX];
	ssize_t n;

	xattr_path(w, name, path);
	n = lgetxattr(path, attr, w->value, XATTR_SIZE_MAX);
	if (n < 0)
		return errno == ENODATA ? 0 : complain(w, name, -errno, NULL);
	n = kml_xattr_put(w->blob + used, BLOB_SIZE - used, attr, strlen(attr), w->value, n);
	if (n < 0 && n != -ENOSPC)
		return complain(w, name, n, "has an extended attribute that cannot be logged");
	return n;
}

/* What did not fit into the object's own record: a SETXATTR for each. */
static int emit_more_xattrs(struct walk *w, const struct kml_record *obj, const char *name,
			    const char *list, const char *end)
{
	struct kml_record r = {
		.opcode = KML_SETXATTR, .obj = obj->obj, .parent = obj->parent,
		.name = obj->name, .has_attr = true, .attr = obj->attr, .xattrs = w->blob,
	};
	const char *attr;
	ssize_t n;
	int rc;

	for (attr = list; attr < end; attr += strlen(attr) + 1) {
		if (!xattr_wanted(attr))
			continue;
		n = xattr_add(w, name, attr, 0);
		if (n < 0)
			return n;
		r.xattrs_len = n;
		rc = n ? emit(w, &r, name) : 0;
		if (rc)
			return rc;
	}
	return 0;
}

/* Write an object's record with its extended attributes. */
static int emit_object(struct walk *w, struct kml_record *r, const char *name)
{
	ssize_t len = xattr_list(w, name), n;
	const char *attr = w->list, *end;
	int rc;

	if (len < 0)
		return len;
	end = w->list + len;
	for (; attr < end; attr += strlen(attr) + 1) {
		n = xattr_wanted(attr) ? xattr_add(w, name, attr, r->xattrs_len) : 0;
		if (n == -ENOSPC)
			break;
		if (n < 0)
			return n;
		r->xattrs_len += n;
	}
	r->xattrs = w->blob;
	rc = emit(w, r, name);
	if (rc || attr >= end)
		return rc;
	return emit_more_xattrs(w, r, name, attr, end);
}

/* Hard links */

static struct linked **linked_find(struct walk *w, uint64_t ino)
{
	struct linked **p = &w->buckets[ino * 0x9e3779b97f4a7c15ULL % w->n_buckets];

	while (*p && (*p)->ino != ino)
		p = &(*p)->next;
	return p;
}

static int linked_grow(struct walk *w)
{
	size_t i, old_n = w->n_buckets, n = old_n ? old_n * 2 : 1024;
	struct linked **old = w->buckets, *l, *next, **p;

	p = calloc(n, sizeof(*p));
	if (!p)
		return -ENOMEM;
	w->buckets = p;
	w->n_buckets = n;
	for (i = 0; i < old_n; i++) {
		for (l = old[i]; l; l = next) {
			next = l->next;
			p = linked_find(w, l->ino);
			l->next = *p;
			*p = l;
		}
	}
	free(old);
	return 0;
}

static int linked_add(struct walk *w, const struct statx *st, const char *name)
{
	size_t len = strlen(name);
	struct linked *l, **p;
	int rc;

	if (w->n_linked >= w->n_buckets) {
		rc = linked_grow(w);
		if (rc)
			return rc;
	}
	l = malloc(sizeof(*l) + len + 1);
	if (!l)
		return -ENOMEM;
	p = linked_find(w, st->stx_ino);
	*l = (struct linked) {
		.next = *p, .ino = st->stx_ino, .left = st->stx_nlink - 1,
		.parent = w->levels[w->depth - 1].oid, .name_len = len,
	};
	memcpy(l->name, name, len + 1);
	*p = l;
	w->n_linked++;
	return 0;
}

/* A further name of l: its record; l goes once all names have been met. */
static int emit_link(struct walk *w, struct linked **p, struct kml_record *r, const char *name)
{
	struct linked *l = *p;
	int rc;

	r->opcode = KML_LINK;
	r->tparent = r->parent;
	r->tname = r->name;
	r->parent = l->parent;
	r->name = (struct kml_str) { l->name, l->name_len };
	rc = emit(w, r, name);
	if (--l->left == 0) {
		*p = l->next;
		free(l);
		w->n_linked--;
	}
	return rc;
}

static void linked_free(struct walk *w)
{
	struct linked *l, *next;
	size_t i;

	for (i = 0; i < w->n_buckets; i++) {
		for (l = w->buckets[i]; l; l = next) {
			next = l->next;
			free(l);
		}
	}
	free(w->buckets);
}

/* Directories on the way */

static int subdir_add(struct walk *w, struct kml_oid oid, const char *name)
{
	struct level *v = &w->levels[w->depth - 1];
	struct subdir s = { .oid = oid, .name_len = strlen(name) };
	size_t need = v->used + sizeof(s) + s.name_len + 1;
	char *p;

	if (need > v->size) {
		p = realloc(v->subdirs, need * 2);
		if (!p)
			return -ENOMEM;
		v->subdirs = p;
		v->size = need * 2;
	}
	memcpy(v->subdirs + v->used, &s, sizeof(s));
	memcpy(v->subdirs + v->used + sizeof(s), name, s.name_len + 1);
	v->used = need;
	return 0;
}

static int level_push(struct walk *w, struct kml_oid oid, const char *name)
{
	size_t at = w->depth ? w->levels[w->depth - 1].path_len : 0;
	size_t need = at + strlen(name) + 2;
	void *p;

	if (w->depth == w->levels_size) {
		p = realloc(w->levels, (w->levels_size + 64) * sizeof(*w->levels));
		if (!p)
			return -ENOMEM;
		w->levels = p;
		w->levels_size += 64;
	}
	if (need > w->path_size) {
		p = realloc(w->path, need * 2);
		if (!p)
			return -ENOMEM;
		w->path = p;
		w->path_size = need * 2;
	}
	if (at)
		w->path[at++] = '/';
	strcpy(w->path + at, name);
	w->levels[w->depth++] = (struct level) { .oid = oid, .path_len = at + strlen(name) };
	return 0;
}

/* Leave the current directory for name in it, which must be inode ino. */
static int go(struct walk *w, const char *name, uint64_t ino)
{
	static const char changed[] =
		"changed while the tree was read; stop what works in it and run this again";
	struct statx st;
	int fd, rc;

	fd = openat(w->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return complain(w, name, -errno, errno == ENOENT ? changed : NULL);
	if (statx(fd, "", AT_EMPTY_PATH, STATX_INO, &st)) {
		rc = -errno;
		close(fd);
		return complain(w, name, rc, NULL);
	}
	if (st.stx_ino != ino) {
		close(fd);
		return complain(w, name, -ESTALE, changed);
	}
	close(w->fd);
	w->fd = fd;
	return 0;
}

/* Objects */

static void attrs_fill(struct kml_attrs *a, const struct statx *st)
{
	*a = (struct kml_attrs) {
		.valid = KML_A_MODE | KML_A_UID | KML_A_GID | KML_A_SIZE | KML_A_MTIME,
		.mode = st->stx_mode,
		.uid = st->stx_uid,
		.gid = st->stx_gid,
		.nlink = st->stx_nlink,
		.rdev_major = st->stx_rdev_major,
		.rdev_minor = st->stx_rdev_minor,
		.size = st->stx_size,
		.mtime = { st->stx_mtime.tv_sec, st->stx_mtime.tv_nsec },
		.ctime = { st->stx_ctime.tv_sec, st->stx_ctime.tv_nsec },
	};
}

static uint16_t make_opcode(unsigned int mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return KML_MKDIR;
	case S_IFREG:
		return KML_CREATE;
	case S_IFLNK:
		return KML_SYMLINK;
	default:
		return KML_MKNOD;
	}
}

static int emit_symlink(struct walk *w, struct kml_record *r, const char *name)
{
	char text[PATH_MAX];
	ssize_t n = readlinkat(w->fd, name, text, sizeof(text));

	if (n < 0)
		return complain(w, name, -errno, NULL);
	r->link = (struct kml_str) { text, n };
	return emit_object(w, r, name);
}

static int check_mount(struct walk *w, const struct statx *st, const char *name)
{
	if (st->stx_attributes & STATX_ATTR_MOUNT_ROOT)
		return complain(w, name, -EXDEV,
				"is a mount point; unmount it, or make it a fileset of its own");
	if (st->stx_dev_major != w->dev_major || st->stx_dev_minor != w->dev_minor)
		return complain(w, name, -EXDEV,
				"is another file system or subvolume; a fileset cannot span two");
	return 0;
}

static int walk_entry(struct walk *w, const char *name)
{
	struct kml_record r = { .has_attr = true };
	struct linked **p;
	struct statx st;
	int rc;

	if (statx(w->fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_WANTED, &st))
		return errno == ENOENT ? 0 : complain(w, name, -errno, NULL);
	rc = check_mount(w, &st, name);
	if (rc)
		return rc;
	r.opcode = make_opcode(st.stx_mode);
	r.obj.ino = st.stx_ino;
	rc = inode_generation(w->fd, name, &r.obj.gen);
	if (rc)
		return complain(w, name, rc, NULL);
	r.parent = w->levels[w->depth - 1].oid;
	r.name = (struct kml_str) { name, strlen(name) };
	attrs_fill(&r.attr, &st);
	if (!S_ISDIR(st.stx_mode) && st.stx_nlink > 1) {
		p = w->n_buckets ? linked_find(w, st.stx_ino) : NULL;
		if (p && *p)
			return emit_link(w, p, &r, name);
		rc = linked_add(w, &st, name);
	}
	if (S_ISDIR(st.stx_mode))
		rc = subdir_add(w, r.obj, name);
	if (rc)
		return complain(w, name, rc, NULL);
	w->rep->objects++;
	if (S_ISLNK(st.stx_mode))
		return emit_symlink(w, &r, name);
	return emit_object(w, &r, name);
}

static bool entry_hidden(struct walk *w, const char *name)
{
	if (!strcmp(name, ".") || !strcmp(name, ".."))
		return true;
	return w->depth == 1 && (!strcmp(name, ".intermezzo") || !strcmp(name, "lost+found"));
}

static int by_inode(const void *a, const void *b)
{
	const struct dirent64 *const *x = a, *const *y = b;

	return ((*x)->d_ino > (*y)->d_ino) - ((*x)->d_ino < (*y)->d_ino);
}

/*
 * One buffer of entries, in the order of their inodes: as they lie on the disk,
 * which the order of names in a large directory is not.
 */
static int walk_entries(struct walk *w, size_t len)
{
	struct dirent64 **order, *d;
	size_t at, n = 0, i;
	int rc = 0;

	order = malloc(len / offsetof(struct dirent64, d_name) * sizeof(*order));
	if (!order)
		return complain(w, "", -ENOMEM, NULL);
	for (at = 0; at < len; at += d->d_reclen) {
		d = (struct dirent64 *) (w->dents + at);
		if (!entry_hidden(w, d->d_name))
			order[n++] = d;
	}
	qsort(order, n, sizeof(*order), by_inode);
	for (i = 0; i < n && !rc; i++)
		rc = w->stop && *w->stop ? complain(w, "", -EINTR, "interrupted") :
					   walk_entry(w, order[i]->d_name);
	free(order);
	return rc;
}

/* All entries of the current directory. */
static int walk_dir(struct walk *w)
{
	ssize_t n;
	int rc;

	for (;;) {
		n = getdents64(w->fd, w->dents, DENTS_SIZE);
		if (n < 0)
			return complain(w, "", -errno, NULL);
		if (n == 0)
			return 0;
		rc = walk_entries(w, n);
		if (rc)
			return rc;
	}
}

static int walk_down(struct walk *w)
{
	struct level *v = &w->levels[w->depth - 1];
	const char *name = v->subdirs + v->next + sizeof(struct subdir);
	struct subdir s;
	int rc;

	memcpy(&s, v->subdirs + v->next, sizeof(s));
	v->next += sizeof(s) + s.name_len + 1;
	rc = go(w, name, s.oid.ino);
	if (rc)
		return rc;
	rc = level_push(w, s.oid, name);
	if (rc)
		return complain(w, name, rc, NULL);
	return walk_dir(w);
}

static int walk_up(struct walk *w)
{
	free(w->levels[w->depth - 1].subdirs);
	w->depth--;
	return w->depth ? go(w, "..", w->levels[w->depth - 1].oid.ino) : 0;
}

static int walk_root(struct walk *w)
{
	struct kml_record r = { .opcode = KML_MKDIR, .has_attr = true };
	struct statx st;
	int rc;

	if (statx(w->fd, "", AT_EMPTY_PATH, STATX_WANTED, &st))
		return complain(w, "/", -errno, NULL);
	w->dev_major = st.stx_dev_major;
	w->dev_minor = st.stx_dev_minor;
	r.obj.ino = st.stx_ino;
	rc = inode_generation(w->fd, "", &r.obj.gen);
	if (rc)
		return complain(w, "/", rc, NULL);
	attrs_fill(&r.attr, &st);
	rc = level_push(w, r.obj, "");
	if (rc)
		return complain(w, "/", rc, NULL);
	w->rep->objects++;
	rc = emit_object(w, &r, ".");
	return rc ? rc : walk_dir(w);
}

static int walk_all(struct walk *w)
{
	struct kml_record end = { .opcode = KML_CATALOG_END };
	const struct level *v;
	int rc;

	for (rc = walk_root(w); !rc && w->depth;) {
		v = &w->levels[w->depth - 1];
		rc = v->next < v->used ? walk_down(w) : walk_up(w);
	}
	if (rc)
		return rc;
	w->rep->outside = w->n_linked;
	rc = emit(w, &end, "");
	return rc ? rc : flush(w);
}

static void walk_free(struct walk *w)
{
	while (w->depth)
		free(w->levels[--w->depth].subdirs);
	free(w->levels);
	linked_free(w);
	free(w->path);
	free(w->out);
	free(w->dents);
	free(w->list);
	free(w->value);
	free(w->blob);
	if (w->fd >= 0)
		close(w->fd);
}

int catalog_write(int root_fd, int out_fd, const volatile sig_atomic_t *stop,
		  struct catalog_report *ret_report)
{
	struct walk w = { .out_fd = out_fd, .stop = stop, .rep = ret_report };
	struct timespec now;
	int rc;

	*ret_report = (struct catalog_report) { 0 };
	clock_gettime(CLOCK_REALTIME, &now);
	w.now = (struct kml_time) { now.tv_sec, now.tv_nsec };
	w.out = malloc(OUT_SIZE);
	w.dents = malloc(DENTS_SIZE);
	w.list = malloc(XATTR_LIST_MAX);
	w.value = malloc(XATTR_SIZE_MAX);
	w.blob = malloc(BLOB_SIZE);
	w.fd = openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (w.fd < 0)
		rc = complain(&w, "/", -errno, NULL);
	else if (!w.out || !w.dents || !w.list || !w.value || !w.blob)
		rc = complain(&w, "/", -ENOMEM, NULL);
	else
		rc = walk_all(&w);
	walk_free(&w);
	return rc;
}
