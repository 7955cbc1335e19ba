// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What programs do on a simulated host: each change is made on tmpfs and gets the
 * record that fuse/ and kernel/ write for it (doc/kml.md).  What cannot be done (no
 * such name ...) answers -errno, changes nothing and is not logged.
 */
#include "sim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "byteorder.h"
#include "util.h"

#define BIG	(KML_DATA_MAX + 4096)	/* bytes that do not fit into a record */

/* A file that is being written. */
struct change {
	struct host	*h;
	Where		w;
	int		fd;
	struct seen	was;
};

/* A file that a program keeps open for writing. */
struct held {
	int		fd;
	struct seen	was;
	struct kml_range range;
};

static void stat_attrs(struct kml_record *r, const struct seen *s)
{
	r->has_attr = true;
	isd_tree_attrs_of(&s->st, &r->attr);
}

static void record_object(struct kml_record *r, const struct seen *s)
{
	r->obj = s->oid;
	stat_attrs(r, s);
}

static void record_old(struct kml_record *r, const struct seen *s)
{
	r->has_old = true;
	r->old = s->oid;
	isd_tree_attrs_of(&s->st, &r->old_attr);
}

/* The content that s has is no longer what somebody wants: he saw it. */
static void content_ends(int dirfd, const char *name)
{
	int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	g_autofree char *key = fd < 0 ? NULL : fs_content_key(fd);

	if (fd >= 0)
		close(fd);
	if (key)
		versions_ended(key);
}

static void content_is(struct host *h, int fd)
{
	char *key = fs_content_key(fd);

	if (key && *key)
		versions_written(h, key);
	else
		g_free(key);
}

/* --- new objects --- */

static void made(struct host *h, guint opcode, struct where *w, const char *link)
{
	struct kml_record r;
	struct seen s;
	gint64 now = sim_stamp();

	fs_vnode_new(h, w->fd, w->name);
	fs_set_mtime(w->fd, w->name, now);
	fs_dir_changed(w, now);
	fs_look(w->fd, w->name, &s);
	r = fs_record(h, opcode, w);
	record_object(&r, &s);
	if (link)
		r.link = (struct kml_str) { link, strlen(link) };
	fs_record_ptime(&r, w, NULL);
	fs_log(h, &r);
}

int op_mkdir(struct host *h, const char *path)
{
	g_auto(Where) w = { 0 };
	int err = h->full ? -ENOSPC : fs_where(h, path, &w);

	if (err || mkdirat(w.fd, w.name, 0755) < 0)
		return err ? err : -errno;
	made(h, KML_MKDIR, &w, NULL);
	return 0;
}

int op_symlink(struct host *h, const char *path, const char *text)
{
	g_auto(Where) w = { 0 };
	int err = h->full ? -ENOSPC : fs_where(h, path, &w);

	if (err || symlinkat(text, w.fd, w.name) < 0)
		return err ? err : -errno;
	made(h, KML_SYMLINK, &w, text);
	return 0;
}

/* --- content --- */

static int change_begin(struct change *c, struct host *h, const char *path)
{
	int err = h->full ? -ENOSPC : fs_where(h, path, &c->w);

	c->h = h;
	c->fd = -1;
	if (err)
		return err;
	fs_look(c->w.fd, c->w.name, &c->was);
	if (c->was.exists && !S_ISREG(c->was.st.st_mode))
		return S_ISDIR(c->was.st.st_mode) ? -EISDIR : -ELOOP;
	if (c->was.exists && c->was.v->writers)
		return -EBUSY;
	c->fd = openat(c->w.fd, c->w.name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (c->fd < 0)
		return -errno;
	if (!c->was.exists)
		made(h, KML_CREATE, &c->w, NULL);
	else
		content_ends(c->w.fd, c->w.name);
	fs_look(c->w.fd, c->w.name, &c->was);
	return 0;
}

static void log_close(struct host *h, struct where *w, const struct seen *was,
		      const struct kml_range *range)
{
	struct kml_record r;
	struct seen s;

	fs_set_mtime(w->fd, w->name, sim_stamp());
	fs_look(w->fd, w->name, &s);
	fs_changed(&s);
	r = fs_record(h, KML_CLOSE, w);
	record_object(&r, &s);
	r.attr.valid = KML_A_SIZE | KML_A_MTIME;
	record_old(&r, was);
	r.has_ranges = true;
	r.ranges = range;
	r.n_ranges = range->len ? 1 : 0;
	fs_log(h, &r);
}

static void change_end(struct change *c, guint64 off, guint64 len)
{
	const struct kml_range range = { cpu_to_le64(off), cpu_to_le64(len) };

	if (c->fd >= 0) {
		log_close(c->h, &c->w, &c->was, &range);
		content_is(c->h, c->fd);
		close(c->fd);
	}
	fs_where_clear(&c->w);
}

static int change_failed(struct change *c, int err)
{
	if (c->fd >= 0)
		close(c->fd);
	fs_where_clear(&c->w);
	return err;
}

static int write_bytes(struct host *h, const char *path, const char *bytes, gsize len)
{
	struct change c = { 0 };
	int err = change_begin(&c, h, path);

	if (err)
		return change_failed(&c, err);
	if (ftruncate(c.fd, 0) < 0 || pwrite_all(c.fd, bytes, len, 0))
		g_error("%s%s: cannot be written", h->dir, path);
	change_end(&c, 0, len);
	return 0;
}

int op_write(struct host *h, const char *path, const char *text)
{
	return write_bytes(h, path, text, strlen(text));
}

/* The text, and then zeros. */
int op_big(struct host *h, const char *path, const char *text)
{
	g_autofree char *bytes = g_malloc0(BIG);

	memcpy(bytes, text, strlen(text));
	memcpy(bytes + BIG - strlen(text), text, strlen(text));
	return write_bytes(h, path, bytes, BIG);
}

static int change_at(struct host *h, const char *path, gint64 off, const char *text)
{
	struct change c = { 0 };
	int err = change_begin(&c, h, path);

	if (err)
		return change_failed(&c, err);
	if (off < 0)
		off = c.was.st.st_size;
	if (pwrite_all(c.fd, text, strlen(text), off))
		g_error("%s%s: cannot be written", h->dir, path);
	change_end(&c, off, strlen(text));
	return 0;
}

int op_append(struct host *h, const char *path, const char *text)
{
	return change_at(h, path, -1, text);
}

int op_patch(struct host *h, const char *path, guint off, const char *text)
{
	return change_at(h, path, off, text);
}

int op_truncate(struct host *h, const char *path, guint size)
{
	struct change c = { 0 };
	int err = change_begin(&c, h, path);

	if (err)
		return change_failed(&c, err);
	if (ftruncate(c.fd, size) < 0)
		g_error("%s%s: cannot be truncated", h->dir, path);
	change_end(&c, 0, 0);
	return 0;
}

/* As editors do. */
int op_save(struct host *h, const char *path, const char *text)
{
	g_autofree char *temp = g_strconcat(path, "~", NULL);
	int err = op_write(h, temp, text);

	return err ? err : op_rename(h, temp, path);
}

int op_hold(struct host *h, const char *path, const char *text)
{
	struct change c = { 0 };
	struct held *held;
	int err;

	if (g_hash_table_contains(h->held, path))
		return -EBUSY;
	err = change_begin(&c, h, path);
	if (err)
		return change_failed(&c, err);
	held = g_new0(struct held, 1);
	held->fd = c.fd;
	held->was = c.was;
	held->range.off = cpu_to_le64(c.was.st.st_size);
	held->range.len = cpu_to_le64(strlen(text));
	if (pwrite_all(c.fd, text, strlen(text), c.was.st.st_size))
		g_error("%s%s: cannot be written", h->dir, path);
	fs_set_mtime(c.w.fd, c.w.name, sim_stamp());
	c.was.v->ctime = sim_stamp();
	c.was.v->writers++;
	g_hash_table_insert(h->held, g_strdup(path), held);
	fs_where_clear(&c.w);
	return 0;
}

/* A name of the inode in the directory, or below it. */
static gboolean find_name(struct host *h, const char *dir, const struct vnode *v, Where *ret)
{
	g_autofree char *full = g_strconcat(h->dir, dir, NULL);
	g_autoptr(GDir) d = g_dir_open(full, 0, NULL);
	const char *name;

	while (d && (name = g_dir_read_name(d))) {
		g_autofree char *path = g_strconcat(dir, dir[1] ? "/" : "", name, NULL);
		struct seen s;
		Where w;

		if (fs_where_in(h, dir, name, &w))
			continue;
		fs_look(w.fd, name, &s);
		if (s.exists && s.v == v) {
			*ret = w;
			return TRUE;
		}
		fs_where_clear(&w);
		if (s.exists && S_ISDIR(s.st.st_mode) && find_name(h, path, v, ret))
			return TRUE;
	}
	return FALSE;
}

int op_release(struct host *h, const char *path)
{
	struct held *held = g_hash_table_lookup(h->held, path);
	g_auto(Where) w = { 0 };

	if (!held)
		return -ENOENT;
	held->was.v->writers--;
	/* one that has no name any more has no record either */
	if (find_name(h, "/", held->was.v, &w)) {
		log_close(h, &w, &held->was, &held->range);
		content_is(h, held->fd);
	} else {
		fs_vnode_gone(held->was.v);
	}
	close(held->fd);
	g_hash_table_remove(h->held, path);
	return 0;
}

void op_release_all(struct host *h)
{
	GList *paths = g_list_sort(g_hash_table_get_keys(h->held), (GCompareFunc) strcmp);

	for (GList *l = paths; l; l = l->next)
		op_release(h, l->data);
	g_list_free(paths);
}

/* --- names --- */

/* It has lost a name; what is left of it. */
static void lost_name(struct seen *s)
{
	s->st.st_nlink--;
	if (S_ISDIR(s->st.st_mode))
		s->st.st_nlink = 0;
	fs_changed(s);
	if (!s->st.st_nlink && !s->v->writers)
		fs_vnode_gone(s->v);
}

int op_unlink_at(struct host *h, struct where *w, int flags)
{
	struct kml_record r;
	struct seen s;

	fs_look(w->fd, w->name, &s);
	if (!s.exists)
		return -ENOENT;
	/* of several names each may be removed by somebody who sees the others */
	if (S_ISREG(s.st.st_mode))
		content_ends(w->fd, w->name);
	if (unlinkat(w->fd, w->name, flags) < 0)
		return -errno;
	r = fs_record(h, flags ? KML_RMDIR : KML_UNLINK, w);
	r.obj = s.oid;
	lost_name(&s);
	record_old(&r, &s);
	fs_dir_changed(w, sim_stamp());
	fs_record_ptime(&r, w, NULL);
	fs_log(h, &r);
	return 0;
}

int op_unlink(struct host *h, const char *path)
{
	g_auto(Where) w = { 0 };
	int err = fs_where(h, path, &w);

	return err ? err : op_unlink_at(h, &w, 0);
}

int op_rmdir(struct host *h, const char *path)
{
	g_auto(Where) w = { 0 };
	int err = fs_where(h, path, &w);

	return err ? err : op_unlink_at(h, &w, AT_REMOVEDIR);
}

static void log_rename(struct host *h, struct where *w, struct where *t, const struct seen *old,
		       guint flags)
{
	gint64 now = sim_stamp();
	struct kml_record r;
	struct seen s;

	fs_dir_changed(w, now);
	fs_dir_changed(t, now);
	fs_look(t->fd, t->name, &s);
	fs_changed(&s);
	r = fs_record(h, KML_RENAME, w);
	fs_record_target(&r, t);
	r.flags = flags & RENAME_EXCHANGE ? KML_F_EXCHANGE :
		  flags & RENAME_NOREPLACE ? KML_F_NOREPLACE : 0;
	record_object(&r, &s);
	if (old->exists)
		record_old(&r, old);
	fs_record_ptime(&r, w, t);
	fs_log(h, &r);
}

int op_rename_at(struct host *h, struct where *w, struct where *t, guint flags)
{
	gboolean swap = flags & RENAME_EXCHANGE;
	struct seen s, old;

	fs_look(w->fd, w->name, &s);
	fs_look(t->fd, t->name, &old);
	if (!s.exists)
		return -ENOENT;
	if (s.v == old.v)
		return flags & RENAME_NOREPLACE ? -EEXIST : 0;	/* nothing happens */
	if (!swap && old.exists && S_ISREG(old.st.st_mode)) {
		g_autofree char *key = NULL;
		int fd = openat(t->fd, t->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

		key = fs_content_key(fd);
		close(fd);
		if (renameat2(w->fd, w->name, t->fd, t->name, flags) < 0)
			return -errno;
		versions_ended(key);
	} else if (renameat2(w->fd, w->name, t->fd, t->name, flags) < 0) {
		return -errno;
	}
	if (old.exists && swap)
		fs_changed(&old);
	else if (old.exists)
		lost_name(&old);
	log_rename(h, w, t, &old, flags);
	return 0;
}

static int rename_paths(struct host *h, const char *path, const char *to, guint flags)
{
	g_auto(Where) w = { 0 };
	g_auto(Where) t = { 0 };
	int err = fs_where(h, path, &w);

	if (!err)
		err = fs_where(h, to, &t);
	return err ? err : op_rename_at(h, &w, &t, flags);
}

int op_rename(struct host *h, const char *path, const char *to)
{
	return rename_paths(h, path, to, 0);
}

int op_exchange(struct host *h, const char *path, const char *to)
{
	return rename_paths(h, path, to, RENAME_EXCHANGE);
}

int op_link_at(struct host *h, struct where *w, struct where *t)
{
	struct kml_record r;
	struct seen s;

	if (linkat(w->fd, w->name, t->fd, t->name, 0) < 0)
		return -errno;
	fs_dir_changed(t, sim_stamp());
	fs_look(t->fd, t->name, &s);
	fs_changed(&s);
	r = fs_record(h, KML_LINK, w);
	fs_record_target(&r, t);
	record_object(&r, &s);
	fs_record_ptime(&r, w, t);
	fs_log(h, &r);
	return 0;
}

int op_link(struct host *h, const char *path, const char *to)
{
	g_auto(Where) w = { 0 };
	g_auto(Where) t = { 0 };
	int err = fs_where(h, path, &w);

	if (!err)
		err = fs_where(h, to, &t);
	return err ? err : op_link_at(h, &w, &t);
}

/* --- attributes --- */

static void log_setattr(struct host *h, struct where *w, const struct seen *was, guint32 valid)
{
	struct kml_record r;
	struct seen s;

	fs_look(w->fd, w->name, &s);
	fs_changed(&s);
	r = fs_record(h, KML_SETATTR, w);
	record_object(&r, &s);
	r.attr.valid = valid;
	record_old(&r, was);
	fs_log(h, &r);
}

int op_chmod(struct host *h, const char *path, guint mode)
{
	g_auto(Where) w = { 0 };
	struct seen s;
	int err = fs_where(h, path, &w);

	if (err)
		return err;
	fs_look(w.fd, w.name, &s);
	if (!s.exists || S_ISLNK(s.st.st_mode))
		return s.exists ? -EOPNOTSUPP : -ENOENT;
	if (fchmodat(w.fd, w.name, mode, 0) < 0)
		return -errno;
	log_setattr(h, &w, &s, KML_A_MODE);
	return 0;
}

int op_utime_at(struct host *h, struct where *w, gint64 ns)
{
	struct seen s;

	fs_look(w->fd, w->name, &s);
	if (!s.exists)
		return -ENOENT;
	if (ns >= 0)
		fs_set_mtime(w->fd, w->name, ns);
	log_setattr(h, w, &s, KML_A_MTIME);
	return 0;
}

int op_utime(struct host *h, const char *path)
{
	g_auto(Where) w = { 0 };
	int err = fs_where(h, path, &w);

	return err ? err : op_utime_at(h, &w, sim_stamp() - G_GINT64_CONSTANT(1000000000000));
}

static int change_xattr(struct host *h, const char *path, const char *name, const char *value)
{
	g_autofree char *full = g_strconcat(h->dir, path, NULL);
	g_auto(Where) w = { 0 };
	struct kml_record r;
	struct seen s;
	char blob[512];
	ssize_t len;
	int err = fs_where(h, path, &w);

	if (err)
		return err;
	fs_look(w.fd, w.name, &s);
	if (!s.exists || S_ISLNK(s.st.st_mode))
		return s.exists ? -EPERM : -ENOENT;
	if (value ? lsetxattr(full, name, value, strlen(value), 0) : lremovexattr(full, name))
		return -errno;
	fs_changed(&s);
	r = fs_record(h, value ? KML_SETXATTR : KML_REMOVEXATTR, &w);
	record_object(&r, &s);
	len = kml_xattr_put(blob, sizeof(blob), name, strlen(name), value ? value : "",
			    value ? strlen(value) : 0);
	r.xattrs = blob;
	r.xattrs_len = len;
	fs_log(h, &r);
	return 0;
}

int op_setxattr(struct host *h, const char *path, const char *name, const char *value)
{
	return change_xattr(h, path, name, value);
}

int op_rmxattr(struct host *h, const char *path, const char *name)
{
	return change_xattr(h, path, name, NULL);
}
