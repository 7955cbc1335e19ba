// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The simulated file system of a host: a directory on tmpfs, whose inodes get
 * numbers, generations and change times of the simulation, and a log.  What programs
 * do is in ops.c, what the daemon asks for in reint.c; both write their records here.
 *
 * stat and its like are replaced by link (--wrap), so that the engine sees the same
 * numbers when it looks into the tree.
 */
#include "sim.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fileset.h"
#include "util.h"

#define DRAIN_US	4000	/* at most, until a record is in the log */
#define KEY_PLAIN	48	/* bytes of content that are their own key */

int __real_fstatat(int fd, const char *path, struct stat *ret, int flags);
int __wrap_fstatat(int fd, const char *path, struct stat *ret, int flags);
int __real_fstat(int fd, struct stat *ret);
int __wrap_fstat(int fd, struct stat *ret);
int __real_statx(int fd, const char *path, int flags, unsigned int mask, struct statx *ret);
int __wrap_statx(int fd, const char *path, int flags, unsigned int mask, struct statx *ret);
int __wrap_inode_generation(int dirfd, const char *path, uint32_t *ret_gen);

static GHashTable *vnodes;	/* real number -> struct vnode */
static guint32 last_gen;

/* --- inodes --- */

void fs_reset(void)
{
	if (vnodes)
		g_hash_table_unref(vnodes);
	vnodes = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, g_free);
	last_gen = 1000;
}

static struct vnode *find(guint64 real)
{
	return vnodes ? g_hash_table_lookup(vnodes, &real) : NULL;
}

static void show(struct stat *st)
{
	const struct vnode *v = find(st->st_ino);

	if (!v)
		return;
	st->st_ino = v->ino;
	st->st_ctim.tv_sec = v->ctime / 1000000000;
	st->st_ctim.tv_nsec = v->ctime % 1000000000;
}

int __wrap_fstatat(int fd, const char *path, struct stat *ret, int flags)
{
	int rc = __real_fstatat(fd, path, ret, flags);

	if (rc == 0)
		show(ret);
	return rc;
}

int __wrap_fstat(int fd, struct stat *ret)
{
	int rc = __real_fstat(fd, ret);

	if (rc == 0)
		show(ret);
	return rc;
}

/* mkizofs' library looks with it, at a root that is empty. */
int __wrap_statx(int fd, const char *path, int flags, unsigned int mask, struct statx *ret)
{
	int rc = __real_statx(fd, path, flags, mask, ret);
	const struct vnode *v = rc == 0 ? find(ret->stx_ino) : NULL;

	if (!v)
		return rc;
	ret->stx_ino = v->ino;
	ret->stx_ctime.tv_sec = v->ctime / 1000000000;
	ret->stx_ctime.tv_nsec = v->ctime % 1000000000;
	return rc;
}

int __wrap_inode_generation(int dirfd, const char *path, uint32_t *ret_gen)
{
	const struct vnode *v;
	struct stat st;

	if (__real_fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) < 0)
		return -errno;
	v = find(st.st_ino);
	*ret_gen = v ? v->gen : 0;
	return 0;
}

/* Numbers of removed inodes are used again, as ext4 does. */
static guint64 take_ino(struct host *h)
{
	guint64 ino;

	if (!h->free_inos->len || sim_random(2))
		return ++h->last_ino;
	ino = g_array_index(h->free_inos, guint64, 0);
	g_array_remove_index(h->free_inos, 0);
	return ino;
}

struct vnode *fs_vnode_new(struct host *h, int fd, const char *name)
{
	struct vnode *v = g_new0(struct vnode, 1);
	struct stat st;

	if (__real_fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) < 0)
		g_error("%s: %s: %s", h->name, name, g_strerror(errno));
	v->real = st.st_ino;
	v->host = h;
	v->ino = take_ino(h);
	v->gen = ++last_gen;
	v->ctime = sim_stamp();
	g_hash_table_replace(vnodes, &v->real, v);
	return v;
}

void fs_vnode_gone(struct vnode *v)
{
	g_array_append_val(v->host->free_inos, v->ino);
	g_hash_table_remove(vnodes, &v->real);
}

void fs_look(int dirfd, const char *name, struct seen *ret)
{
	struct stat st;

	*ret = (struct seen) { 0 };
	if (__real_fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) < 0)
		return;
	ret->v = find(st.st_ino);
	if (!ret->v)
		return;
	show(&st);
	ret->exists = TRUE;
	ret->st = st;
	ret->oid = (struct kml_oid) { ret->v->ino, ret->v->gen };
}

/* --- places --- */

int fs_where_in(struct host *h, const char *dir, const char *name, struct where *ret)
{
	struct seen s;

	*ret = (struct where) { .fd = isd_tree_open_dir(h->root_fd, dir) };
	if (ret->fd < 0)
		return -errno;
	fs_look(ret->fd, "", &s);
	ret->oid = s.oid;
	ret->path = g_strdup(dir);
	ret->name = g_strdup(name);
	return 0;
}

int fs_where(struct host *h, const char *path, struct where *ret)
{
	g_autofree char *dir = g_path_get_dirname(path);
	g_autofree char *name = g_path_get_basename(path);

	return fs_where_in(h, dir, name, ret);
}

void fs_where_clear(struct where *w)
{
	if (!w->path)
		return;
	close(w->fd);
	g_clear_pointer(&w->path, g_free);
	g_clear_pointer(&w->name, g_free);
}

/* --- times --- */

/* Its ctime moves; s has it then. */
void fs_changed(struct seen *s)
{
	s->v->ctime = sim_stamp();
	s->st.st_ctim.tv_sec = s->v->ctime / 1000000000;
	s->st.st_ctim.tv_nsec = s->v->ctime % 1000000000;
}

void fs_set_mtime(int fd, const char *name, gint64 ns)
{
	const struct timespec t[2] = {
		{ .tv_nsec = UTIME_OMIT }, { ns / 1000000000, ns % 1000000000 },
	};

	utimensat(fd, name, t, AT_SYMLINK_NOFOLLOW | (*name ? 0 : AT_EMPTY_PATH));
}

gint64 fs_get_mtime(int fd)
{
	struct stat st;

	if (__real_fstat(fd, &st) < 0)
		return 0;
	return (gint64) st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
}

void fs_dir_changed(struct where *w, gint64 ns)
{
	struct seen s;

	fs_set_mtime(w->fd, "", ns);
	fs_look(w->fd, "", &s);
	if (s.exists)
		fs_changed(&s);
}

/* --- records --- */

struct kml_record fs_record(struct host *h, guint opcode, const struct where *w)
{
	struct kml_record r = {
		.opcode = opcode,
		.seq = ++h->seq,
		.time = sim_time(sim_stamp()),
		.pid = 1,
		.auid = ~0u,
		.parent = w->oid,
		.dir = { w->path, strlen(w->path) },
	};

	if (*w->name)
		r.name = (struct kml_str) { w->name, strlen(w->name) };
	return r;
}

void fs_record_target(struct kml_record *r, const struct where *t)
{
	r->tparent = t->oid;
	r->tdir = (struct kml_str) { t->path, strlen(t->path) };
	r->tname = (struct kml_str) { t->name, strlen(t->name) };
}

void fs_record_ptime(struct kml_record *r, const struct where *w, const struct where *t)
{
	r->has_ptime = true;
	r->ptime = sim_time(fs_get_mtime(w->fd));
	if (t)
		r->tptime = sim_time(fs_get_mtime(t->fd));
}

static gboolean drain_later(gpointer data)
{
	fs_drain(data);
	return G_SOURCE_REMOVE;
}

void fs_log(struct host *h, struct kml_record *r)
{
	gsize size = kml_encoded_size(r);
	GByteArray *rec = g_byte_array_sized_new(size);
	ssize_t len;

	g_byte_array_set_size(rec, size);
	r->recno = 1;	/* the log gives the number */
	len = kml_encode(rec->data, size, r);
	if (len < 0)
		g_error("%s: a record of %s cannot be encoded: %s", h->name,
			kml_opcode_name(r->opcode), g_strerror(-len));
	g_byte_array_set_size(rec, len);
	g_queue_push_tail(&h->lml, rec);
	if (h->draining)
		return;
	h->draining = TRUE;
	sim_after(NULL, sim_random(DRAIN_US), drain_later, h);
}

void fs_drain(struct host *h)
{
	GByteArray *rec;

	h->draining = FALSE;
	while ((rec = g_queue_pop_head(&h->lml))) {
		struct kml_record r;
		int err;

		kml_decode(rec->data, rec->len, &r);
		kml_seal(rec->data, ++h->recno, r.seq);
		err = pwrite_all(h->kml_fd, rec->data, rec->len, h->kml_end);
		if (err)
			g_error("%s: kml: %s", h->name, g_strerror(-err));
		sim_trace(h, "record %" G_GUINT64_FORMAT " %s %.*s/%.*s%s%.*s", h->recno,
			  kml_opcode_name(r.opcode), (int) r.dir.len, r.dir.ptr,
			  (int) r.name.len, r.name.ptr ? r.name.ptr : "",
			  r.tname.ptr ? " -> " : "", (int) r.tname.len,
			  r.tname.ptr ? r.tname.ptr : "");
		h->kml_end += rec->len;
		g_byte_array_unref(rec);
	}
	channel_grew(h);
}

/* --- content --- */

char *fs_content_key(int fd)
{
	struct stat st;
	g_autofree char *buf = NULL;
	g_autofree char *sum = NULL;

	if (__real_fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return NULL;
	buf = g_malloc(st.st_size + 1);
	if (pread_all(fd, buf, st.st_size, 0))
		return NULL;
	buf[st.st_size] = 0;
	if (st.st_size <= KEY_PLAIN && strlen(buf) == (gsize) st.st_size)
		return g_strdup(buf);
	sum = g_compute_checksum_for_data(G_CHECKSUM_SHA1, (guint8 *) buf, st.st_size);
	return g_strdup_printf("%.16s... (%" G_GINT64_FORMAT " bytes, %.8s)", buf,
			       (gint64) st.st_size, sum);
}

/* --- a host's --- */

static void open_host(struct host *h)
{
	struct klog *log;

	h->meta_fd = openat(h->root_fd, ".intermezzo/" FILESET, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	h->incoming_fd = openat(h->meta_fd, "incoming", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	h->kml_fd = openat(h->meta_fd, "kml", O_RDWR | O_CLOEXEC);
	if (h->kml_fd < 0 || klog_open(h->meta_fd, "kml", &log) < 0)
		g_error("%s: the log cannot be opened", h->dir);
	klog_header(log, &h->head);
	klog_close(log);
	h->kml_end = h->head.first_offset;
}

void fs_host_make(struct host *h, const char *top, guint index)
{
	struct catalog_report report;

	*h = (struct host) { .index = index, .up = TRUE, .last_ino = 10 };
	snprintf(h->name, sizeof(h->name), index ? "c%u" : "s", index);
	h->dir = g_build_filename(top, h->name, NULL);
	h->free_inos = g_array_new(FALSE, FALSE, sizeof(guint64));
	h->held = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	h->clones = sim_random(2);
	if (mkdir(h->dir, 0755) < 0)
		g_error("%s: %s", h->dir, g_strerror(errno));
	h->root_fd = open(h->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fs_vnode_new(h, h->root_fd, "");
	fs_set_mtime(h->root_fd, "", sim_stamp());
	if (fileset_make(h->root_fd, FILESET, 0, NULL, &report) < 0)
		g_error("%s: %s", h->dir, report.why);
	open_host(h);
}

void fs_host_free(struct host *h)
{
	close(h->kml_fd);
	close(h->incoming_fd);
	close(h->meta_fd);
	close(h->root_fd);
	g_array_unref(h->free_inos);
	g_hash_table_unref(h->held);
	g_queue_clear_full(&h->lml, (GDestroyNotify) g_byte_array_unref);
	g_free(h->dir);
	g_free(h->quit);
}
