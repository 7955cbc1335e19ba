// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Names and files on this side: where a row of the state is, and what the lower
 * file system has there.
 */
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util.h"

#define COMPARE_BLOCK	(128 * 1024)
#define COMPARE_MAX	(256ULL << 20)	/* larger files count as different */
#define PATH_STEP	2048		/* bytes of a path that one open takes */

gboolean isd_time_equal(struct kml_time a, struct kml_time b)
{
	return a.sec == b.sec && a.nsec == b.nsec;
}

gboolean isd_oid_equal(struct kml_oid a, struct kml_oid b)
{
	return a.ino == b.ino && a.gen == b.gen;
}

char *isd_str(struct kml_str s)
{
	return g_strndup(s.ptr, s.len);
}

/* --- places --- */

void isd_place_clear(IsdPlace *p)
{
	g_clear_pointer(&p->path, g_free);
}

static gboolean place_of(IsdClient *c, const IsdObject *o, IsdPlace *ret, gboolean *ret_found,
			 GError **error)
{
	g_auto(IsdName) name = { 0 };
	gboolean named = o->id == ISD_ROOT_ID;

	*ret_found = FALSE;
	if (!named && !isd_state_a_name(c->state, o->id, &name, &named, error))
		return FALSE;
	if (!named)
		return TRUE;
	ret->path = isd_state_path(c->state, o->id, error);
	if (!ret->path)
		return FALSE;
	ret->id = o->id;
	ret->oid = o->oid;
	ret->mtime = o->attr.mtime;
	*ret_found = TRUE;
	return TRUE;
}

gboolean isd_place_by_id(IsdClient *c, gint64 id, IsdPlace *ret, gboolean *ret_found, GError **error)
{
	g_auto(IsdObject) o = { 0 };

	if (!isd_state_by_id(c->state, id, &o, ret_found, error))
		return FALSE;
	return !*ret_found || place_of(c, &o, ret, ret_found, error);
}

gboolean isd_place_by_soid(IsdClient *c, struct kml_oid soid, IsdPlace *ret, gboolean *ret_found,
			   GError **error)
{
	g_auto(IsdObject) o = { 0 };

	if (!isd_state_by_soid(c->state, soid, &o, ret_found, error))
		return FALSE;
	return !*ret_found || place_of(c, &o, ret, ret_found, error);
}

void isd_place_source(struct kml_record *r, const IsdPlace *p, const char *name)
{
	r->parent = p->oid;
	r->dir = (struct kml_str) { p->path, strlen(p->path) };
	r->name = (struct kml_str) { name, strlen(name) };
}

void isd_place_target(struct kml_record *r, const IsdPlace *p, const char *name)
{
	r->tparent = p->oid;
	r->tdir = (struct kml_str) { p->path, strlen(p->path) };
	r->tname = (struct kml_str) { name, strlen(name) };
}

/* --- the lower file system --- */

/* Of a path without leading slash: how much of it to open at once. */
static gsize local_step(const char *path)
{
	gsize len = strlen(path), n;

	if (len <= PATH_STEP)
		return len;
	for (n = PATH_STEP; n && path[n] != '/'; n--)
		;
	return n;
}

static int local_open_step(int dirfd, const char *path, gsize len)
{
	g_autofree char *part = g_strndup(path, len);
	struct open_how how = {
		.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
	};
	int fd = syscall(SYS_openat2, dirfd, part, &how, sizeof(how));

	return fd < 0 ? -errno : fd;
}

int isd_local_dir(int root_fd, const char *path)
{
	int fd = local_open_step(root_fd, ".", 1);

	while (*path == '/')
		path++;
	while (fd >= 0 && *path) {
		gsize n = local_step(path);
		int next = local_open_step(fd, path, n);

		close(fd);
		fd = next;
		for (path += n; *path == '/'; path++)
			;
	}
	return fd;
}

int isd_local_parent(IsdClient *c, int root_fd, gint64 parent)
{
	g_autofree char *path = isd_state_path(c->state, parent, NULL);

	return path ? isd_local_dir(root_fd, path) : -ENOENT;
}

int isd_local_stat(IsdClient *c, gint64 parent, const char *name, struct stat *ret,
		   struct kml_oid *ret_oid)
{
	int fd = isd_local_parent(c, c->core->root_fd, parent);
	uint32_t gen = 0;
	int err = 0;

	if (fd < 0)
		return fd;
	if (fstatat(fd, name, ret, AT_SYMLINK_NOFOLLOW) < 0)
		err = -errno;
	else
		err = inode_generation(fd, name, &gen);
	close(fd);
	if (!err)
		*ret_oid = (struct kml_oid) { ret->st_ino, gen };
	return err;
}

gboolean isd_local_refresh(IsdClient *c, gint64 id, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 }, now = { 0 };
	struct stat st = { 0 };
	struct kml_oid oid = { 0 };
	gboolean found, named = FALSE, there;

	if (!id)
		return isd_client_follow(c, TRUE, error);
	if (!isd_state_a_name(c->state, id, &n, &named, error))
		return FALSE;
	/* looked at first, then everything local is logged, then decided */
	there = named && isd_local_stat(c, n.parent, n.name, &st, &oid) == 0;
	if (!isd_client_follow(c, TRUE, error) || !isd_state_by_id(c->state, id, &o, &found, error))
		return FALSE;
	if (!found || !there || (st.st_mode & S_IFMT) != (o.attr.mode & S_IFMT) ||
	    isd_push_is_pending(c, o.oid, MAX(o.lcver, o.laver)))
		return TRUE;
	if (!isd_state_lookup(c->state, n.parent, n.name, &now, &found, error))
		return FALSE;
	if (!found || now.id != id)
		return TRUE;
	o.oid = oid;
	o.attr.ctime = (struct kml_time) { st.st_ctim.tv_sec, st.st_ctim.tv_nsec };
	return isd_state_put_object(c->state, &o, error);
}

int isd_local_open(IsdClient *c, gint64 parent, const char *name, struct kml_oid oid)
{
	int dir = isd_local_parent(c, c->core->root_fd, parent);
	uint32_t gen;
	struct stat st;
	int fd;

	if (dir < 0)
		return dir;
	fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		fd = -errno;
	close(dir);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_ino == oid.ino &&
	    inode_generation(fd, "", &gen) == 0 && gen == oid.gen)
		return fd;
	close(fd);
	return -ESTALE;
}

/* --- comparing --- */

static gboolean local_size_is(int fd, guint64 size)
{
	struct stat st;

	return fstat(fd, &st) == 0 && (guint64)st.st_size == size;
}

gboolean isd_local_same_bytes(IsdClient *c, gint64 parent, const char *name, struct kml_oid oid,
			      const guint8 *data, guint64 size)
{
	g_autofree guint8 *buf = NULL;
	int fd = isd_local_open(c, parent, name, oid);
	gboolean same;

	if (fd < 0)
		return FALSE;
	buf = g_malloc(size + 1);
	same = local_size_is(fd, size) && pread_all(fd, buf, size, 0) == 0 &&
	       (!size || !memcmp(buf, data, size));
	close(fd);
	return same;
}

static gboolean local_same_fds(int a, int b, guint64 size)
{
	g_autofree guint8 *buf = g_malloc(2 * COMPARE_BLOCK);

	for (guint64 off = 0; off < size; off += COMPARE_BLOCK) {
		gsize n = MIN((guint64)COMPARE_BLOCK, size - off);

		if (pread_all(a, buf, n, off) || pread_all(b, buf + COMPARE_BLOCK, n, off) ||
		    memcmp(buf, buf + COMPARE_BLOCK, n))
			return FALSE;
	}
	return TRUE;
}

gboolean isd_local_same_file(IsdClient *c, gint64 parent, const char *name, struct kml_oid oid,
			     const char *file, guint64 size)
{
	int a, b;
	gboolean same = FALSE;

	if (size > COMPARE_MAX)
		return FALSE;
	a = isd_local_open(c, parent, name, oid);
	if (a < 0)
		return FALSE;
	b = openat(c->core->incoming_fd, file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (b >= 0) {
		same = local_size_is(a, size) && local_same_fds(a, b, size);
		close(b);
	}
	close(a);
	return same;
}
