// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * REINT on a simulated host, as doc/channel.md says it: guards are checked, the
 * operation is done on tmpfs with all its attributes, and logged if the batch says so.
 */
#include "sim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "byteorder.h"
#include "last_rcvd.h"
#include "util.h"

#define TEMP	".reint"

struct entry {
	struct host	*h;
	gboolean	log;
	guint32		flags;
	struct izo_guard guard, tguard;
	struct kml_record r;		/* as it came */
	struct kml_record out;		/* for the log */
	Where		w, t;
	struct seen	obj, target;
	struct izo_reint_result *res;
};

static gboolean has_target(const struct kml_record *r)
{
	return r->opcode == KML_RENAME || r->opcode == KML_LINK;
}

/* --- guards --- */

static int check(const struct izo_guard *g, const struct seen *s)
{
	guint32 flags = le32_to_cpu(g->flags);
	gint64 ctime = (gint64) le64_to_cpu(g->ctime_sec) * 1000000000 + le32_to_cpu(g->ctime_nsec);

	if ((flags & IZO_G_ABSENT) && s->exists)
		return ESTALE;
	if (!(flags & (IZO_G_INO | IZO_G_CTIME | IZO_G_NOWRITER)))
		return 0;
	if (!s->exists)
		return ESTALE;
	if ((flags & IZO_G_INO) &&
	    (s->oid.ino != le64_to_cpu(g->ino) || s->oid.gen != le32_to_cpu(g->gen)))
		return ESTALE;
	if ((flags & IZO_G_CTIME) && s->v->ctime != ctime)
		return ESTALE;
	return (flags & IZO_G_NOWRITER) && s->v->writers ? ESTALE : 0;
}

/* --- what comes of it --- */

static void begin(struct entry *e, guint opcode)
{
	e->out = fs_record(e->h, opcode, &e->w);
	if (has_target(&e->r))
		fs_record_target(&e->out, &e->t);
	e->out.time = e->r.time;
	e->out.has_origin = e->r.has_origin;
	memcpy(e->out.origin_replica, e->r.origin_replica, 16);
	e->out.origin_recno = e->r.origin_recno;
	e->out.origin_obj = e->r.origin_obj;
}

static void is_now(struct entry *e, struct seen *s)
{
	e->out.obj = s->oid;
	e->out.has_attr = true;
	isd_tree_attrs_of(&s->st, &e->out.attr);
	e->res->ino = cpu_to_le64(s->oid.ino);
	e->res->gen = cpu_to_le32(s->oid.gen);
	e->res->ctime_sec = cpu_to_le64(s->st.st_ctim.tv_sec);
	e->res->ctime_nsec = cpu_to_le32(s->st.st_ctim.tv_nsec);
}

static void refused(struct entry *e)
{
	if (e->obj.exists) {
		e->res->ino = cpu_to_le64(e->obj.oid.ino);
		e->res->gen = cpu_to_le32(e->obj.oid.gen);
		e->res->ctime_sec = cpu_to_le64(e->obj.st.st_ctim.tv_sec);
		e->res->ctime_nsec = cpu_to_le32(e->obj.st.st_ctim.tv_nsec);
	}
	if (e->target.exists) {
		e->res->tino = cpu_to_le64(e->target.oid.ino);
		e->res->tgen = cpu_to_le32(e->target.oid.gen);
	}
}

static void old_is(struct entry *e, const struct seen *s)
{
	e->out.has_old = true;
	e->out.old = s->oid;
	isd_tree_attrs_of(&s->st, &e->out.old_attr);
}

static gint64 ns_of(struct kml_time t)
{
	return t.sec * 1000000000 + t.nsec;
}

/* The mtimes of the directories become what the record says, or now. */
static void dirs_changed(struct entry *e)
{
	gboolean two = has_target(&e->r), one_dir = two && e->w.oid.ino == e->t.oid.ino;
	gint64 now = sim_stamp();

	if (e->r.opcode != KML_LINK && !one_dir)
		fs_dir_changed(&e->w, e->r.has_ptime ? ns_of(e->r.ptime) : now);
	if (two)
		fs_dir_changed(&e->t, e->r.has_ptime ? ns_of(e->r.tptime) : now);
	if (!e->r.has_ptime) {
		fs_record_ptime(&e->out, &e->w, two ? &e->t : NULL);
		return;
	}
	e->out.has_ptime = true;
	e->out.ptime = e->r.ptime;
	e->out.tptime = e->r.tptime;
}

/* --- attributes --- */

static void set_xattrs(int fd, const void *items, gsize len)
{
	g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
	struct kml_str name, value;
	size_t pos = 0;

	while (items && kml_xattr_next(items, len, &pos, &name, &value)) {
		g_autofree char *n = g_strndup(name.ptr, name.len);

		if (setxattr(path, n, value.ptr ? value.ptr : "", value.len, 0))
			g_error("%s: %s", n, g_strerror(errno));
	}
}

static void set_attrs(int dirfd, const char *name, const struct kml_attrs *a, guint32 valid)
{
	int flags = AT_SYMLINK_NOFOLLOW | (*name ? 0 : AT_EMPTY_PATH);
	struct stat st;

	if (fstatat(dirfd, name, &st, flags) < 0)
		return;
	if (valid & (KML_A_UID | KML_A_GID))
		(void) !fchownat(dirfd, name, valid & KML_A_UID ? a->uid : st.st_uid,
				 valid & KML_A_GID ? a->gid : st.st_gid, flags);
	if ((valid & KML_A_MODE) && !S_ISLNK(st.st_mode)) {
		if (*name)
			fchmodat(dirfd, name, a->mode & 07777, 0);
		else
			fchmod(dirfd, a->mode & 07777);
	}
	if (valid & KML_A_MTIME)
		fs_set_mtime(dirfd, name, ns_of(a->mtime));
}

/* --- new objects --- */

static int make_bare(struct entry *e)
{
	mode_t mode = e->r.attr.mode & 07777;
	g_autofree char *text = NULL;
	int rc, fd;

	switch (e->r.opcode) {
	case KML_MKDIR:
		rc = mkdirat(e->w.fd, e->w.name, mode);
		break;
	case KML_SYMLINK:
		text = g_strndup(e->r.link.ptr, e->r.link.len);
		rc = symlinkat(text, e->w.fd, e->w.name);
		break;
	case KML_MKNOD:
		rc = mknodat(e->w.fd, e->w.name, e->r.attr.mode,
			     makedev(e->r.attr.rdev_major, e->r.attr.rdev_minor));
		break;
	default:
		rc = fd = openat(e->w.fd, e->w.name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
		if (fd >= 0 && e->r.data.ptr && pwrite_all(fd, e->r.data.ptr, e->r.data.len, 0))
			g_error("%s: cannot be written", e->w.name);
		if (fd >= 0)
			close(fd);
	}
	return rc < 0 ? errno : 0;
}

static int take_file(struct entry *e, char **ret_name)
{
	g_autofree char *name = g_strndup(e->r.file.ptr, e->r.file.len);
	struct stat st;

	if (fstatat(e->h->incoming_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? ENODATA : errno;
	if (!(e->flags & IZO_RE_PATCH) && (guint64) st.st_size != e->r.attr.size)
		return EINVAL;
	*ret_name = g_steal_pointer(&name);
	return 0;
}

static int make(struct entry *e)
{
	g_autofree char *file = NULL;
	int err, fd;

	if (e->obj.exists)
		return EEXIST;
	if (e->h->full)
		return ENOSPC;
	err = e->r.file.ptr ? take_file(e, &file) : make_bare(e);
	if (!err && file && renameat2(e->h->incoming_fd, file, e->w.fd, e->w.name, RENAME_NOREPLACE))
		err = errno;
	if (err)
		return err;
	begin(e, e->r.opcode);
	fs_vnode_new(e->h, e->w.fd, e->w.name);
	fd = openat(e->w.fd, e->w.name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	set_attrs(e->w.fd, e->w.name, &e->r.attr, KML_A_UID | KML_A_GID | KML_A_MODE);
	set_xattrs(fd, e->r.xattrs, e->r.xattrs_len);
	close(fd);
	fs_set_mtime(e->w.fd, e->w.name, ns_of(e->r.attr.mtime));
	fs_look(e->w.fd, e->w.name, &e->obj);
	e->out.link = e->r.link;
	e->out.xattrs = e->r.xattrs;
	e->out.xattrs_len = e->r.xattrs_len;
	is_now(e, &e->obj);
	dirs_changed(e);
	return 0;
}

/* --- names --- */

static void loses_name(struct seen *s)
{
	if (S_ISDIR(s->st.st_mode))
		s->st.st_nlink = 0;
	else
		s->st.st_nlink--;
	fs_changed(s);
	if (!s->st.st_nlink && !s->v->writers)
		fs_vnode_gone(s->v);
}

static int remove_name(struct entry *e)
{
	if (!e->obj.exists)
		return ENOENT;
	if (unlinkat(e->w.fd, e->w.name, e->r.opcode == KML_RMDIR ? AT_REMOVEDIR : 0) < 0)
		return errno;
	begin(e, e->r.opcode);
	e->out.obj = e->obj.oid;
	loses_name(&e->obj);
	old_is(e, &e->obj);
	dirs_changed(e);
	return 0;
}

static int rename_name(struct entry *e)
{
	gboolean swap = e->r.flags & KML_F_EXCHANGE;
	guint flags = swap ? RENAME_EXCHANGE : e->target.exists ? 0 : RENAME_NOREPLACE;

	if (!e->obj.exists)
		return ENOENT;
	if (renameat2(e->w.fd, e->w.name, e->t.fd, e->t.name, flags) < 0)
		return errno;
	begin(e, KML_RENAME);
	e->out.flags = e->r.flags & (KML_F_EXCHANGE | KML_F_NOREPLACE);
	if (e->target.exists && swap)
		fs_changed(&e->target);
	else if (e->target.exists && e->target.v != e->obj.v)
		loses_name(&e->target);
	if (e->target.exists)
		old_is(e, &e->target);
	fs_changed(&e->obj);
	is_now(e, &e->obj);
	dirs_changed(e);
	return 0;
}

static int link_name(struct entry *e)
{
	if (!e->obj.exists)
		return ENOENT;
	if (linkat(e->w.fd, e->w.name, e->t.fd, e->t.name, 0) < 0)
		return errno;
	begin(e, KML_LINK);
	fs_look(e->t.fd, e->t.name, &e->obj);
	fs_changed(&e->obj);
	is_now(e, &e->obj);
	dirs_changed(e);
	return 0;
}

/* --- attributes --- */

static int setattr(struct entry *e)
{
	guint32 valid = e->r.attr.valid ? e->r.attr.valid :
			KML_A_UID | KML_A_GID | KML_A_MODE | KML_A_MTIME;

	if (!e->obj.exists)
		return ENOENT;
	begin(e, KML_SETATTR);
	old_is(e, &e->obj);
	set_attrs(e->w.fd, e->w.name, &e->r.attr, valid);
	fs_look(e->w.fd, e->w.name, &e->obj);
	fs_changed(&e->obj);
	is_now(e, &e->obj);
	e->out.attr.valid = valid;
	return 0;
}

static int xattr(struct entry *e)
{
	g_autofree char *path = NULL, *n = NULL;
	struct kml_str name, value;
	size_t pos = 0;
	int fd;

	if (!e->obj.exists)
		return ENOENT;
	begin(e, e->r.opcode);
	fd = *e->w.name ? openat(e->w.fd, e->w.name, O_PATH | O_NOFOLLOW | O_CLOEXEC) :
			  fcntl(e->w.fd, F_DUPFD_CLOEXEC, 3);
	if (e->r.opcode == KML_SETXATTR) {
		set_xattrs(fd, e->r.xattrs, e->r.xattrs_len);
	} else if (kml_xattr_next(e->r.xattrs, e->r.xattrs_len, &pos, &name, &value)) {
		path = g_strdup_printf("/proc/self/fd/%d", fd);
		n = g_strndup(name.ptr, name.len);
		removexattr(path, n);
	}
	close(fd);
	e->out.xattrs = e->r.xattrs;
	e->out.xattrs_len = e->r.xattrs_len;
	fs_look(e->w.fd, e->w.name, &e->obj);
	fs_changed(&e->obj);
	is_now(e, &e->obj);
	return 0;
}

/* --- content --- */

static void copy_range(int to, int from, guint64 off, guint64 end)
{
	g_autofree guint8 *buf = g_malloc(end - off + 1);

	if (pread_all(from, buf, end - off, off) || pwrite_all(to, buf, end - off, off))
		g_error("a patch cannot be copied");
}

static void patch(struct entry *e, int fd, int from)
{
	guint64 off, len, size = e->r.attr.size;

	if (ftruncate(fd, size) < 0)
		g_error("a file cannot be set to %" G_GUINT64_FORMAT " bytes", size);
	if ((e->r.flags & KML_F_RANGES_ALL) || !e->r.has_ranges || !(e->flags & IZO_RE_PATCH)) {
		copy_range(fd, from, 0, size);
		return;
	}
	for (guint i = 0; i < e->r.n_ranges; i++) {
		kml_range_get(&e->r, i, &off, &len);
		if (off < size)
			copy_range(fd, from, off, MIN(off + len, size));
	}
}

/* The new content as a file of its own in incoming/: its name. */
static int prepare(struct entry *e, char **ret_name)
{
	g_autofree char *file = NULL;
	int err = e->r.file.ptr ? take_file(e, &file) : 0;
	int fd, from;

	if (err)
		return err;
	if (file && !(e->flags & IZO_RE_PATCH)) {
		*ret_name = g_steal_pointer(&file);
		return 0;
	}
	unlinkat(e->h->incoming_fd, TEMP, 0);
	fd = openat(e->h->incoming_fd, TEMP, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (file) {
		from = openat(e->w.fd, e->w.name, O_RDONLY | O_CLOEXEC);
		copy_range(fd, from, 0, e->obj.st.st_size);
		close(from);
		from = openat(e->h->incoming_fd, file, O_RDONLY | O_CLOEXEC);
		patch(e, fd, from);
		close(from);
		unlinkat(e->h->incoming_fd, file, 0);
	} else if (pwrite_all(fd, e->r.data.ptr, e->r.data.len, 0)) {
		g_error("%s: cannot be written", e->w.name);
	}
	close(fd);
	*ret_name = g_strdup(TEMP);
	return 0;
}

static void copy_xattrs(struct entry *e, const char *file)
{
	g_autofree char *from = g_strdup_printf("/proc/self/fd/%d/%s", e->w.fd, e->w.name);
	g_autofree char *to = g_strdup_printf("/proc/self/fd/%d/%s", e->h->incoming_fd, file);
	char names[4096], value[4096];
	ssize_t n = llistxattr(from, names, sizeof(names)), len;

	for (const char *p = names; n > 0 && p < names + n; p += strlen(p) + 1) {
		len = lgetxattr(from, p, value, sizeof(value));
		if (len >= 0)
			lsetxattr(to, p, value, len, 0);
	}
}

static void close_done(struct entry *e, guint flags)
{
	e->out.flags = flags | (e->r.flags & KML_F_RANGES_ALL);
	e->out.has_ranges = e->r.has_ranges;
	e->out.ranges = e->r.ranges;
	e->out.n_ranges = e->r.n_ranges;
	if (!e->out.has_ranges)
		e->out.flags |= KML_F_RANGES_ALL;
	fs_look(e->w.fd, e->w.name, &e->obj);
	fs_changed(&e->obj);
	is_now(e, &e->obj);
	e->out.attr.valid = (e->r.attr.valid & (KML_A_MODE | KML_A_UID | KML_A_GID)) |
			    KML_A_SIZE | KML_A_MTIME;
}

/* All other names of it get the new inode, too. */
static void move_aliases(struct entry *e)
{
	struct kml_str path;
	size_t pos = 0;

	while (kml_alias_next(e->r.aliases, e->r.aliases_len, &pos, &path)) {
		g_autofree char *p = g_strndup(path.ptr, path.len);
		g_auto(Where) w = { 0 };
		gint64 mtime;

		if (fs_where(e->h, p, &w))
			continue;
		mtime = fs_get_mtime(w.fd);
		unlinkat(w.fd, w.name, 0);
		if (linkat(e->w.fd, e->w.name, w.fd, w.name, 0))
			g_error("%s: %s", p, g_strerror(errno));
		fs_dir_changed(&w, mtime);
	}
}

/* A new inode under the names of the old one. */
static int replace(struct entry *e)
{
	struct seen old = e->obj;
	g_autofree char *file = NULL;
	struct kml_attrs want;
	gint64 mtime;
	int err = prepare(e, &file);

	if (err)
		return err;
	isd_tree_attrs_of(&old.st, &want);
	want.mode = e->r.attr.valid & KML_A_MODE ? e->r.attr.mode : want.mode;
	want.uid = e->r.attr.valid & KML_A_UID ? e->r.attr.uid : want.uid;
	want.gid = e->r.attr.valid & KML_A_GID ? e->r.attr.gid : want.gid;
	want.mtime = e->r.attr.mtime;
	copy_xattrs(e, file);
	set_attrs(e->h->incoming_fd, file, &want,
		  KML_A_UID | KML_A_GID | KML_A_MODE | KML_A_MTIME);
	begin(e, KML_CLOSE);
	old_is(e, &old);
	mtime = fs_get_mtime(e->w.fd);
	if (renameat(e->h->incoming_fd, file, e->w.fd, e->w.name))
		g_error("%s: %s", e->w.name, g_strerror(errno));
	fs_vnode_new(e->h, e->w.fd, e->w.name);
	move_aliases(e);
	if (!old.v->writers)
		fs_vnode_gone(old.v);
	fs_dir_changed(&e->w, mtime);
	close_done(e, KML_F_REPLACED);
	return 0;
}

static int write_into(struct entry *e)
{
	g_autofree char *file = NULL;
	int err, fd, from;

	if (e->r.file.ptr) {
		err = take_file(e, &file);
		if (err)
			return err;
	} else {
		prepare(e, &file);
	}
	begin(e, KML_CLOSE);
	old_is(e, &e->obj);
	fd = openat(e->w.fd, e->w.name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	from = openat(e->h->incoming_fd, file, O_RDONLY | O_CLOEXEC);
	patch(e, fd, from);
	close(from);
	close(fd);
	unlinkat(e->h->incoming_fd, file, 0);
	set_attrs(e->w.fd, e->w.name, &e->r.attr,
		  (e->r.attr.valid & (KML_A_MODE | KML_A_UID | KML_A_GID)) | KML_A_MTIME);
	close_done(e, 0);
	return 0;
}

static int aliases_check(struct entry *e, guint *ret_n)
{
	struct kml_str path;
	size_t pos = 0;

	for (*ret_n = 0; kml_alias_next(e->r.aliases, e->r.aliases_len, &pos, &path); ++*ret_n) {
		g_autofree char *p = g_strndup(path.ptr, path.len);
		g_auto(Where) w = { 0 };
		struct seen s;

		if (fs_where(e->h, p, &w))
			return ESTALE;
		fs_look(w.fd, w.name, &s);
		if (!s.exists || s.v != e->obj.v ||
		    (w.oid.ino == e->w.oid.ino && !strcmp(w.name, e->w.name)))
			return ESTALE;
	}
	return 0;
}

static int content(struct entry *e)
{
	gboolean is_patch = e->flags & IZO_RE_PATCH;
	guint aliases;
	int err;

	if (!e->obj.exists)
		return ENOENT;
	if (!S_ISREG(e->obj.st.st_mode))
		return EISDIR;
	err = aliases_check(e, &aliases);
	if (err)
		return err;
	if (e->h->full)
		return ENOSPC;
	if (e->obj.v->writers)
		return e->obj.st.st_nlink == 1 + aliases ? replace(e) : ESTALE;
	if (e->obj.st.st_nlink == 1 && (!is_patch || e->h->clones))
		return replace(e);
	return write_into(e);
}

/* --- one entry, a batch --- */

static int do_op(struct entry *e)
{
	switch (e->r.opcode) {
	case KML_CREATE:
	case KML_MKDIR:
	case KML_SYMLINK:
	case KML_MKNOD:
		return make(e);
	case KML_CLOSE:
		return content(e);
	case KML_UNLINK:
	case KML_RMDIR:
		return remove_name(e);
	case KML_RENAME:
		return rename_name(e);
	case KML_LINK:
		return link_name(e);
	case KML_SETATTR:
		return setattr(e);
	case KML_SETXATTR:
	case KML_REMOVEXATTR:
		return xattr(e);
	default:
		return EINVAL;
	}
}

static int enter(struct entry *e, struct kml_str dir, struct kml_str name, struct kml_oid want,
		 struct where *ret)
{
	g_autofree char *d = g_strndup(dir.ptr, dir.len);
	g_autofree char *n = g_strndup(name.ptr ? name.ptr : "", name.len);
	int err = -fs_where_in(e->h, d, n, ret);

	if (err)
		return err == ENOENT || err == ENOTDIR || err == ELOOP ? ESTALE : err;
	return want.ino && (want.ino != ret->oid.ino || (want.gen && want.gen != ret->oid.gen)) ?
		ESTALE : 0;
}

static int apply(struct entry *e)
{
	int err = enter(e, e->r.dir, e->r.name, e->r.parent, &e->w);

	if (!err && has_target(&e->r))
		err = enter(e, e->r.tdir, e->r.tname, e->r.tparent, &e->t);
	if (err)
		return err;
	fs_look(e->w.fd, e->w.name, &e->obj);
	if (has_target(&e->r))
		fs_look(e->t.fd, e->t.name, &e->target);
	err = check(&e->guard, &e->obj);
	if (!err && has_target(&e->r))
		err = check(&e->tguard, &e->target);
	if (!err)
		err = do_op(e);
	if (err)
		refused(e);
	else if (e->log)
		fs_log(e->h, &e->out);
	return err;
}

static int one(struct host *h, gboolean log, const guint8 *at, struct izo_reint_result *res)
{
	struct izo_reint_entry head;
	struct entry e = { .h = h, .log = log, .res = res };
	int err;

	memcpy(&head, at, sizeof(head));
	e.flags = le32_to_cpu(head.flags);
	e.guard = head.guard;
	e.tguard = head.tguard;
	if (kml_decode(at + sizeof(head), le32_to_cpu(head.len) - sizeof(head), &e.r) < 0)
		return EINVAL;
	err = e.flags & IZO_RE_THERE ? EINVAL : apply(&e);
	sim_trace(h, "reint %s %.*s/%.*s%s%.*s: %s", kml_opcode_name(e.r.opcode),
		  (int) e.r.dir.len, e.r.dir.ptr, (int) e.r.name.len,
		  e.r.name.ptr ? e.r.name.ptr : "", e.r.tname.ptr ? " -> " : "",
		  (int) e.r.tname.len, e.r.tname.ptr ? e.r.tname.ptr : "",
		  err ? g_strerror(err) : "done");
	fs_where_clear(&e.w);
	fs_where_clear(&e.t);
	if (!err && !log)
		res->recno = cpu_to_le64(h->seq);
	return err;
}

static void move_last_rcvd(struct host *h, const struct izo_reint *head)
{
	struct last_rcvd lr = {
		.remote_recno = le64_to_cpu(head->remote_recno),
		.remote_offset = le64_to_cpu(head->remote_offset),
	};
	int fd;

	if (!lr.remote_recno)
		return;
	memcpy(lr.peer, head->peer, 16);
	fd = openat(h->meta_fd, "last_rcvd", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	last_rcvd_set(fd, &lr);
	close(fd);
}

int reint_apply(struct host *h, const guint8 *body, gsize len, GByteArray *reply)
{
	struct izo_reint head;
	guint32 count;
	gboolean log, settled = TRUE, full = FALSE;
	g_autofree struct izo_reint_result *res = NULL;
	struct izo_pos pos;
	gsize at = sizeof(head);

	memcpy(&head, body, sizeof(head));
	count = le32_to_cpu(head.count);
	log = le32_to_cpu(head.flags) & IZO_REINT_F_LOG;
	res = g_new0(struct izo_reint_result, count + 1);
	fs_drain(h);
	for (guint i = 0; i < count; i++) {
		struct izo_reint_entry e;
		guint64 before = h->recno + h->lml.length;
		int err;

		memcpy(&e, body + at, sizeof(e));
		err = full ? ECANCELED : one(h, log, body + at, &res[i]);
		res[i].error = cpu_to_le32(err);
		full |= err == ENOSPC;
		settled &= !err || err == ESTALE;
		if (log && h->recno + h->lml.length > before)
			res[i].recno = cpu_to_le64(before + 1);
		at += le32_to_cpu(e.len);
	}
	fs_drain(h);
	if (settled)
		move_last_rcvd(h, &head);
	pos.offset = cpu_to_le64(h->kml_end);
	pos.recno = cpu_to_le64(h->recno);
	g_byte_array_append(reply, (guint8 *) &pos, sizeof(pos));
	g_byte_array_append(reply, (guint8 *) res, count * sizeof(*res));
	return 0;
}
