// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a record of the own log does to the state, and filling an empty state
 * from the file "base" that mkizofs leaves.  Objects are found by number
 * alone; a record's directory paths are for people.
 */
#include "statedb.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util.h"

#define BASE_FILE	"base"
#define BASE_BATCH	20000	/* records per transaction */

/* One record and the rows it is about. */
typedef struct {
	IsdState		*s;
	const struct kml_record	*r;
	gboolean		is_server;
	IsdObject		obj;
	gboolean		known;
	gint64			parent, tparent;	/* rows; 0: unknown */
} Apply;

static void content_changed(const Apply *a, IsdObject *o)
{
	if (a->is_server)
		o->cver = a->r->recno;
	else
		o->lcver = a->r->recno;
}

static void attrs_changed(const Apply *a, IsdObject *o)
{
	if (a->is_server)
		o->aver = a->r->recno;
	else
		o->laver = a->r->recno;
}

static gboolean bind_name(const Apply *a, gint64 parent, struct kml_str name, gint64 id,
			  GError **error)
{
	guint64 n = a->r->recno;

	return isd_name_bind(a->s, parent, name, id, a->is_server ? n : 0, a->is_server ? 0 : n,
			     !a->is_server, error);
}

/* Is this attribute told by the record?  valid 0 means all. */
static gboolean has(const struct kml_attrs *attr, guint32 bit)
{
	return attr->valid == 0 || (attr->valid & bit);
}

static void take_owner_mode(IsdObject *o, const struct kml_attrs *attr)
{
	if (has(attr, KML_A_MODE))
		o->attr.mode = attr->mode;
	if (has(attr, KML_A_UID))
		o->attr.uid = attr->uid;
	if (has(attr, KML_A_GID))
		o->attr.gid = attr->gid;
}

/* What every record with ATTR or OLD says: the guard's time and the number of names. */
static void take_inode(IsdObject *o, const struct kml_attrs *attr)
{
	if (attr->ctime.sec || attr->ctime.nsec)
		o->attr.ctime = attr->ctime;
	if (attr->nlink)
		o->attr.nlink = attr->nlink;
}

static void take_ctime(IsdObject *o, const struct kml_record *r)
{
	if (r->has_attr)
		take_inode(o, &r->attr);
}

static void take_link(IsdObject *o, const struct kml_record *r)
{
	isd_object_clear(o);
	if (!r->link.ptr)
		return;
	o->link = g_strndup(r->link.ptr, r->link.len);
	o->link_len = r->link.len;
}

static gboolean put_made(const Apply *a, IsdObject *o, GError **error)
{
	if (!a->known)
		return isd_state_add_object(a->s, o, error);
	return isd_sql_run(a->s, error, "DELETE FROM xattr WHERE id = ?", "i", o->id) &&
	       isd_obj_update(a->s, &a->obj, o, error);
}

/*
 * On lower file systems without generations the number of an object that is
 * gone comes again: its row, if it waits for the client, lets go of it.
 */
static gboolean free_number(Apply *a, GError **error)
{
	IsdObject n = a->obj;
	gboolean nameless = FALSE;

	if (!a->known)
		return TRUE;
	if (!isd_obj_is_nameless(a->s, a->obj.id, &nameless, error))
		return FALSE;
	if (!nameless)
		return TRUE;
	n.oid = (struct kml_oid) { 0 };
	if (!isd_obj_update(a->s, &a->obj, &n, error))
		return FALSE;
	isd_object_clear(&a->obj);
	memset(&a->obj, 0, sizeof(a->obj));
	a->known = FALSE;
	return TRUE;
}

/* CREATE, MKDIR, SYMLINK, MKNOD; also of an object that is known already. */
static gboolean apply_make(Apply *a, GError **error)
{
	const struct kml_record *r = a->r;
	g_auto(IsdObject) o = { .oid = r->obj };

	if (!a->parent || !r->name.ptr || !r->obj.ino)
		return TRUE;
	if (!free_number(a, error))
		return FALSE;
	o.id = a->obj.id;
	o.soid = a->obj.soid;
	if (r->has_attr)
		o.attr = r->attr;
	o.attr.valid = 0;
	if (!o.attr.nlink)
		o.attr.nlink = 1;
	take_link(&o, r);
	content_changed(a, &o);
	attrs_changed(a, &o);
	if (!put_made(a, &o, error) ||
	    !isd_obj_put_xattrs(a->s, o.id, r->xattrs, r->xattrs_len, error) ||
	    !bind_name(a, a->parent, r->name, o.id, error))
		return FALSE;
	a->known = TRUE;
	a->obj.id = o.id;
	return TRUE;
}

/* One name less, OLD tells how the object is then; it goes with the last one. */
static gboolean lose_name(Apply *a, const IsdObject *o, gint64 parent, struct kml_str name,
			  GError **error)
{
	IsdObject n = *o;

	if (n.attr.nlink > 1 && !S_ISDIR(n.attr.mode))
		n.attr.nlink--;
	if (a->r->has_old)
		take_inode(&n, &a->r->old_attr);
	return isd_name_unbind(a->s, parent, name, o->id, error) &&
	       isd_obj_update(a->s, o, &n, error) &&
	       isd_obj_drop_if_nameless(a->s, o->id, !a->is_server, error);
}

static gboolean apply_unlink(Apply *a, GError **error)
{
	if (!a->known || !a->parent || !a->r->name.ptr)
		return TRUE;
	return lose_name(a, &a->obj, a->parent, a->r->name, error);
}

static gboolean apply_link(Apply *a, GError **error)
{
	IsdObject n = a->obj;
	g_autofree char *tname = NULL;
	g_auto(IsdName) there = { 0 };
	gboolean found;

	if (!a->known || !a->tparent || !a->r->tname.ptr)
		return TRUE;
	tname = g_strndup(a->r->tname.ptr, a->r->tname.len);
	if (!isd_state_lookup(a->s, a->tparent, tname, &there, &found, error))
		return FALSE;
	/* a record of a name that was there before (IZO_RE_THERE) adds none */
	if (!found || there.id != n.id)
		n.attr.nlink++;
	take_ctime(&n, a->r);
	return isd_obj_update(a->s, &a->obj, &n, error) &&
	       bind_name(a, a->tparent, a->r->tname, a->obj.id, error);
}

static gboolean exchange(Apply *a, const IsdObject *other, GError **error)
{
	IsdObject n = *other;

	take_inode(&n, &a->r->old_attr);
	return isd_name_unbind(a->s, a->tparent, a->r->tname, other->id, error) &&
	       bind_name(a, a->tparent, a->r->tname, a->obj.id, error) &&
	       bind_name(a, a->parent, a->r->name, other->id, error) &&
	       isd_obj_update(a->s, other, &n, error);
}

static gboolean move(Apply *a, GError **error)
{
	const struct kml_record *r = a->r;
	g_auto(IsdObject) other = { 0 };
	gboolean found = FALSE;

	if (r->has_old && !isd_state_by_oid(a->s, r->old, &other, &found, error))
		return FALSE;
	if (!isd_name_unbind(a->s, a->parent, r->name, a->obj.id, error))
		return FALSE;
	if (r->flags & KML_F_EXCHANGE)
		return !found || exchange(a, &other, error);
	if (found && other.id != a->obj.id &&
	    !lose_name(a, &other, a->tparent, r->tname, error))
		return FALSE;
	return bind_name(a, a->tparent, r->tname, a->obj.id, error);
}

static gboolean apply_rename(Apply *a, GError **error)
{
	IsdObject n = a->obj;

	if (!a->known || !a->parent || !a->tparent || !a->r->name.ptr || !a->r->tname.ptr)
		return TRUE;
	take_ctime(&n, a->r);
	return isd_obj_update(a->s, &a->obj, &n, error) && move(a, error);
}

/* With REPLACED the content is a new inode's, and the object is called after it. */
static gboolean apply_close(Apply *a, GError **error)
{
	const struct kml_record *r = a->r;
	g_auto(IsdObject) before = { 0 };
	gboolean found = FALSE;
	IsdObject n;

	if (!a->known && (r->flags & KML_F_REPLACED) && r->has_old) {
		if (!isd_state_by_oid(a->s, r->old, &before, &found, error))
			return FALSE;
		a->obj = before;
		memset(&before, 0, sizeof(before));
		a->known = found;
	}
	if (!a->known)
		return TRUE;
	n = a->obj;
	n.oid = r->obj;
	if (r->has_attr) {
		take_owner_mode(&n, &r->attr);
		n.attr.size = r->attr.size;
		n.attr.mtime = r->attr.mtime;
	}
	take_ctime(&n, r);
	content_changed(a, &n);
	return isd_obj_update(a->s, &a->obj, &n, error);
}

static gboolean apply_setattr(Apply *a, GError **error)
{
	const struct kml_record *r = a->r;
	IsdObject n = a->obj;

	if (!a->known || !r->has_attr)
		return TRUE;
	take_owner_mode(&n, &r->attr);
	if (has(&r->attr, KML_A_MTIME))
		n.attr.mtime = r->attr.mtime;
	if (has(&r->attr, KML_A_SIZE) && S_ISREG(n.attr.mode) && n.attr.size != r->attr.size) {
		n.attr.size = r->attr.size;
		content_changed(a, &n);
	}
	take_ctime(&n, r);
	attrs_changed(a, &n);
	return isd_obj_update(a->s, &a->obj, &n, error);
}

static gboolean change_xattrs(Apply *a, GError **error)
{
	const struct kml_record *r = a->r;
	struct kml_str name, value;
	size_t pos = 0;

	if (r->opcode == KML_SETXATTR)
		return isd_obj_put_xattrs(a->s, a->obj.id, r->xattrs, r->xattrs_len, error);
	while (r->xattrs && kml_xattr_next(r->xattrs, r->xattrs_len, &pos, &name, &value))
		if (!isd_state_set_xattr(a->s, a->obj.id, name.ptr, name.len, NULL, -1, error))
			return FALSE;
	return TRUE;
}

static gboolean apply_xattr(Apply *a, GError **error)
{
	IsdObject n = a->obj;

	if (!a->known)
		return TRUE;
	if (a->r->has_attr)
		take_owner_mode(&n, &a->r->attr);
	take_ctime(&n, a->r);
	attrs_changed(a, &n);
	return isd_obj_update(a->s, &a->obj, &n, error) && change_xattrs(a, error);
}

static gboolean apply_ptime(Apply *a, GError **error)
{
	const struct kml_record *r = a->r;

	if (!r->has_ptime)
		return TRUE;
	if (r->opcode != KML_LINK && a->parent &&
	    !isd_obj_set_mtime(a->s, a->parent, r->ptime, error))
		return FALSE;
	return !a->tparent || isd_obj_set_mtime(a->s, a->tparent, r->tptime, error);
}

static gboolean apply_op(Apply *a, GError **error)
{
	switch (a->r->opcode) {
	case KML_CREATE:
	case KML_MKDIR:
	case KML_SYMLINK:
	case KML_MKNOD:
		return apply_make(a, error);
	case KML_UNLINK:
	case KML_RMDIR:
		return apply_unlink(a, error);
	case KML_LINK:
		return apply_link(a, error);
	case KML_RENAME:
		return apply_rename(a, error);
	case KML_CLOSE:
		return apply_close(a, error);
	case KML_SETATTR:
		return apply_setattr(a, error);
	case KML_SETXATTR:
	case KML_REMOVEXATTR:
		return apply_xattr(a, error);
	default:
		return TRUE;
	}
}

static gboolean find_rows(Apply *a, GError **error)
{
	const struct kml_record *r = a->r;

	if (!isd_state_by_oid(a->s, r->obj, &a->obj, &a->known, error))
		return FALSE;
	if (r->parent.ino && !isd_obj_dir_id(a->s, r->parent, &a->parent, error))
		return FALSE;
	return !r->tparent.ino || isd_obj_dir_id(a->s, r->tparent, &a->tparent, error);
}

/* The row that the record's object has after it, for the origin; 0: none. */
static gboolean apply_origin(Apply *a, GError **error)
{
	IsdObject now = { 0 };
	gboolean found = FALSE;

	if (!a->r->has_origin)
		return TRUE;
	if (!isd_state_by_oid(a->s, a->r->obj, &now, &found, error))
		return FALSE;
	isd_object_clear(&now);
	return isd_origin_add(a->s, a->r, found ? now.id : 0, error);
}

static gboolean apply_whole(Apply *a, GError **error)
{
	gboolean ok = find_rows(a, error) && apply_op(a, error) && apply_ptime(a, error) &&
		      apply_origin(a, error);

	isd_object_clear(&a->obj);
	return ok;
}

gboolean isd_makes(unsigned int opcode)
{
	return opcode == KML_CREATE || opcode == KML_MKDIR || opcode == KML_SYMLINK ||
	       opcode == KML_MKNOD;
}

gboolean isd_state_apply(IsdState *s, const struct kml_record *r, gboolean is_server,
			 GError **error)
{
	Apply a = { .s = s, .r = r, .is_server = is_server };

	if (r->recno <= s->local_recno)
		return TRUE;
	if (!isd_state_begin(s, error))
		return FALSE;
	if (!apply_whole(&a, error)) {
		isd_state_rollback(s);
		return FALSE;
	}
	s->local_recno = r->recno;
	s->dirty = TRUE;
	return isd_state_commit(s, error);
}

/*
 * base: the reader keeps a buffer of one largest record and refills it.
 */
typedef struct {
	int	fd;
	char	*buf;
	gsize	have, pos, size;
	gboolean eof;
} Base;

static gboolean base_fill(Base *b, GError **error)
{
	ssize_t n;

	memmove(b->buf, b->buf + b->pos, b->have - b->pos);
	b->have -= b->pos;
	b->pos = 0;
	do
		n = read(b->fd, b->buf + b->have, b->size - b->have);
	while (n < 0 && errno == EINTR);
	if (n < 0) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED, "%s: %s", BASE_FILE,
			    g_strerror(errno));
		return FALSE;
	}
	b->have += n;
	b->eof = n == 0;
	return TRUE;
}

static gboolean base_next(Base *b, struct kml_record *r, GError **error)
{
	for (;;) {
		ssize_t n = kml_decode(b->buf + b->pos, b->have - b->pos, r);

		if (n > 0) {
			b->pos += n;
			return TRUE;
		}
		if (n == -EAGAIN && !b->eof && (b->pos || b->have < b->size)) {
			if (!base_fill(b, error))
				return FALSE;
			continue;
		}
		g_set_error(error, ISD_ERROR, ISD_ERROR_FATAL,
			    "%s is %s: make the fileset anew with mkizofs", BASE_FILE,
			    n == -EAGAIN ? "cut off" : "damaged");
		return FALSE;
	}
}

static gboolean base_object(IsdState *s, const struct kml_record *r, gint64 id, gint64 *ret_id,
			    GError **error)
{
	g_auto(IsdObject) o = { .id = id, .oid = r->obj, .attr = r->attr };

	o.attr.valid = 0;
	o.cver = r->has_version ? r->version_content : 0;
	o.aver = r->has_version ? r->version_attr : 0;
	take_link(&o, r);
	if (!isd_state_add_object(s, &o, error))
		return FALSE;
	*ret_id = o.id;
	return isd_obj_put_xattrs(s, o.id, r->xattrs, r->xattrs_len, error);
}

static gboolean base_bad(const struct kml_record *r, GError **error)
{
	g_set_error(error, ISD_ERROR, ISD_ERROR_FATAL,
		    "%s: record %" G_GUINT64_FORMAT " does not fit what is before it: "
		    "make the fileset anew with mkizofs", BASE_FILE, r->recno);
	return FALSE;
}

static gboolean base_link(IsdState *s, const struct kml_record *r, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	gboolean found;
	gint64 parent;

	if (!isd_obj_dir_id(s, r->tparent, &parent, error) ||
	    !isd_state_by_oid(s, r->obj, &o, &found, error))
		return FALSE;
	if (!parent || !found || !r->tname.ptr)
		return base_bad(r, error);
	return isd_name_bind(s, parent, r->tname, o.id, 0, 0, FALSE, error);
}

/* Attributes that did not fit into the record of the object. */
static gboolean base_xattr(IsdState *s, const struct kml_record *r, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	if (!isd_state_by_oid(s, r->obj, &o, &found, error))
		return FALSE;
	if (!found)
		return base_bad(r, error);
	return isd_obj_put_xattrs(s, o.id, r->xattrs, r->xattrs_len, error);
}

static gboolean base_record(IsdState *s, const struct kml_record *r, GError **error)
{
	gint64 parent, id;

	if (r->opcode == KML_LINK)
		return base_link(s, r, error);
	if (r->opcode == KML_SETXATTR)
		return base_xattr(s, r, error);
	if (r->opcode != KML_MKDIR && r->opcode != KML_CREATE && r->opcode != KML_SYMLINK &&
	    r->opcode != KML_MKNOD)
		return base_bad(r, error);
	if (!r->name.ptr)
		return r->opcode == KML_MKDIR ? base_object(s, r, ISD_ROOT_ID, &id, error)
					      : base_bad(r, error);
	if (!isd_obj_dir_id(s, r->parent, &parent, error))
		return FALSE;
	if (!parent || !r->has_attr)
		return base_bad(r, error);
	return base_object(s, r, 0, &id, error) &&
	       isd_sql_run(s, error, "INSERT INTO name VALUES(?, ?, ?, 0, 0)", "ibi",
			   parent, r->name.ptr, r->name.len, id);
}

/* One transaction's worth; *ret_end at the end of the file. */
static gboolean base_batch(IsdState *s, Base *b, gboolean *ret_end, GError **error)
{
	struct kml_record r;

	for (guint i = 0; i < BASE_BATCH; i++) {
		if (!base_next(b, &r, error))
			return FALSE;
		if (r.opcode == KML_CATALOG_END) {
			*ret_end = TRUE;
			return isd_state_set_u64(s, "base_loaded", 1, error);
		}
		if (!base_record(s, &r, error))
			return FALSE;
	}
	return TRUE;
}

static gboolean base_all(IsdState *s, Base *b, GError **error)
{
	gboolean end = FALSE;

	while (!end) {
		if (!isd_state_begin(s, error))
			return FALSE;
		if (!base_batch(s, b, &end, error)) {
			isd_state_rollback(s);
			return FALSE;
		}
		if (!isd_state_commit(s, error))
			return FALSE;
	}
	return TRUE;
}

gboolean isd_state_wipe(IsdState *s, GError **error)
{
	if (!isd_state_begin(s, error))
		return FALSE;
	s->dir_id = 0;
	s->objects = s->bytes = s->local_recno = 0;
	s->dirty = TRUE;
	if (isd_sql_run(s, error, "DELETE FROM obj", "") &&
	    isd_sql_run(s, error, "DELETE FROM name", "") &&
	    isd_sql_run(s, error, "DELETE FROM xattr", "") &&
	    isd_sql_run(s, error, "DELETE FROM origin", "") &&
	    isd_sql_run(s, error, "DELETE FROM meta", ""))
		return isd_state_commit(s, error);
	isd_state_rollback(s);
	return FALSE;
}

/* A fileset that was made empty has no base: there is its root alone. */
static gboolean load_root(IsdState *s, int dirfd, GError **error)
{
	IsdObject o = { .id = ISD_ROOT_ID };
	struct stat st;
	int rc = fstatat(dirfd, "../..", &st, 0) < 0 ? -errno :
		 inode_generation(dirfd, "../..", &o.oid.gen);

	if (rc < 0) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED, "root of the fileset: %s",
			    g_strerror(-rc));
		return FALSE;
	}
	o.oid.ino = st.st_ino;
	o.attr.mode = st.st_mode;
	o.attr.uid = st.st_uid;
	o.attr.gid = st.st_gid;
	o.attr.nlink = st.st_nlink;
	o.attr.mtime = (struct kml_time) { st.st_mtim.tv_sec, st.st_mtim.tv_nsec };
	o.attr.ctime = (struct kml_time) { st.st_ctim.tv_sec, st.st_ctim.tv_nsec };
	if (!isd_state_begin(s, error))
		return FALSE;
	if (isd_state_add_object(s, &o, error) && isd_state_set_u64(s, "base_loaded", 1, error))
		return isd_state_commit(s, error);
	isd_state_rollback(s);
	return FALSE;
}

gboolean isd_state_load_base(IsdState *s, int dirfd, GError **error)
{
	Base b = { .size = 2 * KML_REC_MAX };
	gboolean ok;

	if (!isd_state_wipe(s, error))
		return FALSE;
	b.fd = openat(dirfd, BASE_FILE, O_RDONLY | O_CLOEXEC);
	if (b.fd < 0 && errno == ENOENT)
		return load_root(s, dirfd, error);
	if (b.fd < 0) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED, "%s: %s", BASE_FILE,
			    g_strerror(errno));
		return FALSE;
	}
	b.buf = g_malloc(b.size);
	ok = base_all(s, &b, error);
	g_free(b.buf);
	close(b.fd);
	return ok;
}
