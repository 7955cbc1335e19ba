// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Attaching: take in the server's catalog, for a new client or one that was
 * away for too long.  Directories, symlinks and nodes are made as they come; files
 * become rows of client_want, which want.c fetches meanwhile.  What is here
 * already is kept where it is equal and moved aside where it is not.  What an earlier catalog
 * or the log has told and this one does not is for unlisted.c; where the histories
 * are apart, apart.c knows up to where they were one.
 *
 * An interrupted attach begins the catalog again and passes over what it knows.
 */
#include "client.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PUMP_RECORDS	512	/* new files after which fetching is started */
#define LOCAL_STEP	500	/* own objects that are logged at a time */

struct IsdAttach {
	IsdClient	*c;
	IsdRequest	*catalog;
	GByteArray	*buf;		/* received and not decoded */
	IsdBatch	*batch;		/* directories, symlinks, nodes, attributes */
	IsdPlace	place;		/* the parent of the last record */
	struct kml_oid	place_soid;
	gboolean	fresh;		/* nothing has a number of the server yet */
	gboolean	noted;		/* a further catalog: unlisted.c is told what it lists */
	gboolean	ended;
	guint64		offset, recno;	/* where to follow the log from */
	guint32		crc;		/* of the record before */
	gboolean	apart;		/* the server's history is another one behind common */
	guint64		common;
	IsdApart	*find;		/* asking for common */
	guint		new_files;
	guint		local;		/* source: logging what is here alone */
	gint64		local_after;	/* row that was logged last */
};

/* Something that is being made or changed: the row says what it is to be. */
typedef struct {
	gint64		id, parent;
	char		*name;
} AttachItem;

static void attach_item_free(gpointer p)
{
	AttachItem *it = p;

	g_free(it->name);
	g_free(it);
}

static AttachItem *attach_item_new(gint64 id, gint64 parent, const char *name)
{
	AttachItem *it = g_new0(AttachItem, 1);

	it->id = id;
	it->parent = parent;
	it->name = g_strdup(name);
	return it;
}

/* --- making what is no file --- */

static guint16 attach_opcode(guint32 mode)
{
	return S_ISDIR(mode) ? KML_MKDIR : S_ISLNK(mode) ? KML_SYMLINK : KML_MKNOD;
}

/* The record that makes the object of a row; the strings stay the row's. */
static gboolean attach_build(IsdClient *c, const IsdObject *o, const IsdPlace *p,
			     const char *name, struct kml_record *r, GBytes **ret_xattrs,
			     GError **error)
{
	*r = (struct kml_record) {
		.opcode = attach_opcode(o->attr.mode), .attr = o->attr, .has_attr = true,
		.ptime = p->mtime, .has_ptime = true,
	};
	r->attr.valid = 0;
	if (o->link)
		r->link = (struct kml_str) { o->link, o->link_len };
	isd_place_source(r, p, name);
	if (!isd_state_xattrs(c->state, o->id, ret_xattrs, error))
		return FALSE;
	if (*ret_xattrs)
		r->xattrs = g_bytes_get_data(*ret_xattrs, &r->xattrs_len);
	return TRUE;
}

static gboolean attach_set_oid(IsdClient *c, gint64 id, struct kml_oid oid, struct kml_time ctime,
			       GError **error)
{
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	if (!isd_state_by_id(c->state, id, &o, &found, error))
		return FALSE;
	if (!found)
		return TRUE;
	o.oid = oid;
	o.attr.ctime = ctime;
	return isd_state_put_object(c->state, &o, error);
}

/* What is there is what the row wants, whoever made it. */
static gboolean attach_is_so(IsdClient *c, const IsdObject *o, const AttachItem *it,
			     struct stat *st, struct kml_oid *ret_oid)
{
	if (isd_local_stat(c, it->parent, it->name, st, ret_oid) ||
	    (st->st_mode & S_IFMT) != (o->attr.mode & S_IFMT))
		return FALSE;
	if (S_ISLNK(st->st_mode))
		return (gsize)st->st_size == o->link_len;
	return TRUE;
}

/* A local program made the same directory at the same time: one row for both. */
static gboolean attach_merge_rows(IsdClient *c, gint64 id, gint64 other, GError **error)
{
	IsdObject o;
	gboolean found;

	if (!isd_state_by_id(c->state, other, &o, &found, error))
		return FALSE;
	isd_object_clear(&o);
	return isd_push_cover(c, o.oid, c->core->log_recno, 0, error) &&
	       isd_sql_run(c->state, error, "UPDATE OR IGNORE name SET parent = ? WHERE parent = ?",
			   "ii", id, other) &&
	       isd_state_drop_object(c->state, other, error);
}

static gboolean attach_made(IsdClient *c, gpointer item, const struct izo_reint_result *res,
			    GError **error);

static gboolean attach_make_again(IsdClient *c, const IsdObject *o, AttachItem *it, GError **error)
{
	struct izo_guard absent = isd_guard_absent();
	g_auto(IsdPlace) p = { 0 };
	g_autoptr(GBytes) xattrs = NULL;
	struct kml_record r;
	struct izo_reint_result res;
	gboolean found;

	if (!isd_place_by_id(c, it->parent, &p, &found, error))
		return FALSE;
	if (!found || !attach_build(c, o, &p, it->name, &r, &xattrs, error) ||
	    !isd_reint_one(c, &r, &absent, NULL, 0, &res, error))
		return FALSE;
	if (!res.error)
		return attach_made(c, it, &res, error);
	g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED, "%s cannot be made in %s: %s", it->name,
		    p.path, g_strerror(GUINT32_FROM_LE(res.error)));
	return FALSE;
}

static gboolean attach_in_the_way(IsdClient *c, AttachItem *it, GError **error)
{
	g_auto(IsdObject) o = { 0 }, other = { 0 };
	IsdName mine = { .parent = it->parent, .name = it->name, .id = it->id };
	struct kml_record theirs = { .opcode = KML_MKNOD, .has_attr = true };
	gboolean found, here;
	struct stat st;
	struct kml_oid oid;

	if (!isd_client_follow(c, TRUE, error) ||
	    !isd_state_by_id(c->state, it->id, &o, &found, error) || !found)
		return !error || !*error;
	theirs.attr = o.attr;
	if (isd_local_stat(c, it->parent, it->name, &st, &oid) == 0) {
		struct kml_time ctime = { st.st_ctim.tv_sec, st.st_ctim.tv_nsec };

		if (!isd_state_by_oid(c->state, oid, &other, &here, error))
			return FALSE;
		here = here && other.id != o.id;
		if (attach_is_so(c, &o, it, &st, &oid) && (!here || S_ISDIR(st.st_mode)))
			return (!here || attach_merge_rows(c, o.id, other.id, error)) &&
			       attach_set_oid(c, o.id, oid, ctime, error) &&
			       isd_state_put_name(c->state, &mine, error);
		if (here && !isd_conflict_keep(c, other.id, it->parent, it->name, &theirs, NULL,
					       error))
			return FALSE;
	}
	return isd_state_put_name(c->state, &mine, error) && attach_make_again(c, &o, it, error);
}

static gboolean attach_made(IsdClient *c, gpointer item, const struct izo_reint_result *res,
			    GError **error)
{
	AttachItem *it = item;

	if (!res->error)
		return attach_set_oid(c, it->id, isd_result_oid(res), isd_result_ctime(res), error);
	if (isd_result_is_fatal(res, error))
		return FALSE;
	return attach_in_the_way(c, it, error);
}

static gboolean attach_make(IsdAttach *a, const IsdObject *o, const char *name, GError **error)
{
	struct izo_guard absent = isd_guard_absent();
	g_autoptr(GBytes) xattrs = NULL;
	struct kml_record r;

	return attach_build(a->c, o, &a->place, name, &r, &xattrs, error) &&
	       isd_batch_add(a->batch, &r, &absent, NULL, 0, attach_made,
			     attach_item_new(o->id, a->place.id, name), attach_item_free, error);
}

/* --- attributes of what is here --- */

static gboolean attach_attr_set(IsdClient *c, gpointer item, const struct izo_reint_result *res,
				GError **error)
{
	AttachItem *it = item;

	if (!res->error)
		return attach_set_oid(c, it->id, isd_result_oid(res), isd_result_ctime(res), error);
	/* it is no longer that object: its own record tells what it became */
	return !isd_result_is_fatal(res, error);
}

static gboolean attach_xattr_set(IsdClient *c, gpointer item, const struct izo_reint_result *res,
				 GError **error)
{
	return !isd_result_is_fatal(res, error);
}

/* Each xattr of the server, one record for each; those it does not have stay. */
static gboolean attach_set_xattrs(IsdAttach *a, const IsdObject *o, struct kml_record *at,
				  const struct kml_record *r, GError **error)
{
	struct izo_guard guard = isd_guard_object(o, 0);
	struct kml_str name, value;
	size_t pos = 0, before = 0;

	while (r->xattrs && kml_xattr_next(r->xattrs, r->xattrs_len, &pos, &name, &value)) {
		at->opcode = KML_SETXATTR;
		at->xattrs = (const char *)r->xattrs + before;
		at->xattrs_len = pos - before;
		before = pos;
		if (!isd_state_set_xattr(a->c->state, o->id, name.ptr, name.len, value.ptr,
					 value.len, error) ||
		    !isd_batch_add(a->batch, at, &guard, NULL, 0, attach_xattr_set, NULL, NULL,
				   error))
			return FALSE;
	}
	return TRUE;
}

/* The object is here as o; make mode, owner, xattrs and mtime what the record says. */
static gboolean attach_set_attrs(IsdAttach *a, const IsdObject *o, const char *name,
				 const struct kml_record *r, gboolean mtime, GError **error)
{
	struct izo_guard guard = isd_guard_object(o, 0);
	struct kml_record at = { .opcode = KML_SETATTR, .obj = o->oid };

	if (name)
		isd_place_source(&at, &a->place, name);
	else
		at.dir = (struct kml_str) { "/", 1 };
	if (!attach_set_xattrs(a, o, &at, r, error))
		return FALSE;
	at.opcode = KML_SETATTR;
	at.xattrs = NULL;
	at.xattrs_len = 0;
	at.has_attr = true;
	at.attr = r->attr;
	at.attr.valid = (S_ISLNK(r->attr.mode) ? 0 : KML_A_MODE) | KML_A_UID | KML_A_GID |
		(mtime ? KML_A_MTIME : 0);
	return isd_batch_add(a->batch, &at, &guard, NULL, 0, attach_attr_set,
			     attach_item_new(o->id, 0, NULL), attach_item_free, error);
}

/* The row takes over what the record says of attributes and versions. */
static gboolean attach_bind(IsdAttach *a, IsdObject *o, const char *name,
			    const struct kml_record *r, gboolean content, GError **error)
{
	struct kml_time ctime = o->attr.ctime;
	guint64 size = o->attr.size;

	o->soid = r->obj;
	o->aver = r->version_attr;
	o->attr = r->attr;
	o->attr.valid = 0;
	o->attr.ctime = ctime;
	if (content)
		o->cver = r->version_content;
	else
		o->attr.size = size;
	return isd_state_put_object(a->c->state, o, error) &&
	       attach_set_attrs(a, o, name, r, content, error);
}

static gboolean attach_root(IsdAttach *a, const struct kml_record *r, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	if (!isd_state_by_id(a->c->state, ISD_ROOT_ID, &o, &found, error))
		return FALSE;
	if (found)
		return attach_bind(a, &o, NULL, r, TRUE, error);
	g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED, "the state has no root");
	return FALSE;
}

/* --- records of the catalog --- */

static gboolean attach_place(IsdAttach *a, struct kml_oid soid, GError **error)
{
	gboolean found;

	if (a->place.path && isd_oid_equal(a->place_soid, soid))
		return TRUE;
	isd_place_clear(&a->place);
	if (!isd_place_by_soid(a->c, soid, &a->place, &found, error))
		return FALSE;
	a->place_soid = soid;
	if (found)
		return TRUE;
	g_set_error(error, ISD_ERROR, ISD_ERROR_PROTOCOL,
		    "the catalog names something in a directory that it did not name before");
	return FALSE;
}

/* An object that is not here under any number or name. */
static gboolean attach_new(IsdAttach *a, const struct kml_record *r, const char *name,
			   GError **error)
{
	IsdClient *c = a->c;
	g_auto(IsdObject) o = {
		.soid = r->obj, .attr = r->attr, .aver = r->version_attr,
		.link = r->link.ptr ? isd_str(r->link) : NULL, .link_len = r->link.len,
	};
	IsdName n = { .parent = a->place.id, .name = (char *)name };

	o.attr.valid = 0;
	o.attr.ctime = (struct kml_time) { 0 };
	if (r->opcode != KML_CREATE)
		o.cver = r->version_content;
	if (!isd_state_add_object(c->state, &o, error) ||
	    !isd_obj_put_xattrs(c->state, o.id, r->xattrs, r->xattrs_len, error))
		return FALSE;
	if (r->opcode == KML_CREATE) {
		a->new_files++;
		return isd_want_add(c, o.id, a->place.id, name, r->version_content,
				    r->attr.size, error);
	}
	n.id = o.id;
	return isd_state_put_name(c->state, &n, error) && attach_make(a, &o, name, error);
}

static gboolean attach_same_content(const IsdObject *o, const struct kml_record *r)
{
	return o->cver == r->version_content ||
	       (o->attr.size == r->attr.size && isd_time_equal(o->attr.mtime, r->attr.mtime));
}

/* Of the same kind, whatever is in it. */
static gboolean attach_alike(const IsdObject *o, const struct kml_record *r)
{
	if ((o->attr.mode & S_IFMT) != (r->attr.mode & S_IFMT))
		return FALSE;
	if (S_ISLNK(o->attr.mode))
		return o->link_len == r->link.len && o->link &&
		       !memcmp(o->link, r->link.ptr, o->link_len);
	return S_ISREG(o->attr.mode) || S_ISDIR(o->attr.mode) ||
	       (o->attr.rdev_major == r->attr.rdev_major &&
		o->attr.rdev_minor == r->attr.rdev_minor);
}

/* Equal enough to be the server's object under that name. */
static gboolean attach_matches(const IsdObject *o, const struct kml_record *r)
{
	return !o->soid.ino && attach_alike(o, r) &&
	       (!S_ISREG(o->attr.mode) || (o->attr.size == r->attr.size &&
					   isd_time_equal(o->attr.mtime, r->attr.mtime)));
}

/* An object that is here has another name on the server. */
static gboolean attach_move(IsdAttach *a, const IsdObject *o, const struct kml_record *r,
			    const char *name, GError **error)
{
	struct izo_guard same = isd_guard_object(o, 0), absent = isd_guard_absent();
	struct kml_record mv = { .opcode = KML_RENAME, .obj = o->oid };
	struct izo_reint_result res;
	IsdName to = { .parent = a->place.id, .name = (char *)name, .id = o->id };
	g_auto(IsdName) n = { 0 };
	g_auto(IsdPlace) from = { 0 };
	gboolean found;

	if (!isd_state_a_name(a->c->state, o->id, &n, &found, error))
		return FALSE;
	if (found && a->noted && isd_push_is_pending(a->c, o->oid, n.lver))
		return TRUE;	/* renamed here: the push and the log find out */
	if (found && a->apart && n.ver > a->common)
		return isd_announce_rename(a->c, o, &to, &n, error);
	if (!found || (r->attr.nlink > 1 && r->opcode != KML_MKDIR))
		return isd_want_add(a->c, o->id, a->place.id, name, r->version_content,
				    r->attr.size, error);
	if (!isd_batch_flush(a->batch, error) ||
	    !isd_place_by_id(a->c, n.parent, &from, &found, error))
		return FALSE;
	isd_place_source(&mv, &from, n.name);
	isd_place_target(&mv, &a->place, name);
	mv.ptime = from.mtime;
	mv.tptime = a->place.mtime;
	mv.has_ptime = true;
	if (!isd_reint_one(a->c, &mv, &same, &absent, 0, &res, error))
		return FALSE;
	isd_place_clear(&a->place);
	if (res.error)
		return !isd_result_is_fatal(&res, error);
	return isd_state_drop_name(a->c->state, n.parent, n.name, error) &&
	       isd_state_put_name(a->c->state, &to, error) &&
	       attach_place(a, r->parent, error);
}

/* Was it written here, if at all, by somebody who had the version before him that the server has? */
static gboolean attach_has_seen(IsdClient *c, const IsdObject *o, const struct kml_record *r)
{
	return o->cver == r->version_content || !isd_push_is_pending(c, o->oid, o->lcver) ||
	       isd_push_is_ancestor(c, o->id, &r->attr);
}

/* All of its names were removed here, and the server does not know yet. */
static gboolean attach_is_removed(IsdClient *c, const IsdObject *o, gboolean *ret, GError **error)
{
	g_auto(IsdName) n = { 0 };
	gboolean named = TRUE, wanted = FALSE;

	if (o->oid.ino && !isd_state_a_name(c->state, o->id, &n, &named, error))
		return FALSE;
	if (!named && !isd_want_name_of(c, o->id, &n, &wanted, error))
		return FALSE;
	*ret = !named && !wanted;
	return TRUE;
}

/*
 * Removed here and not yet there.  A version that nobody here has seen comes back, as
 * edits win over removals: then the record of the removal is not sent.
 */
static gboolean attach_removed(IsdAttach *a, IsdObject *o, const struct kml_record *r,
			       const char *name, GError **error)
{
	IsdClient *c = a->c;

	if (r->opcode != KML_CREATE || o->cver >= r->version_content)
		return TRUE;
	return isd_push_cover(c, o->oid, c->core->log_recno, 0, error) &&
	       isd_state_drop_object(c->state, o->id, error) && attach_new(a, r, name, error);
}

/* What is newer here goes to the server as a change of the version that it has. */
static gboolean attach_ours(IsdAttach *a, IsdObject *o, const IsdName *n,
			    const struct kml_record *r, gboolean content, GError **error)
{
	IsdClient *c = a->c;

	o->soid = r->obj;
	o->cver = r->version_content;
	o->aver = r->version_attr;
	return (!content || isd_push_mark_unsent(c, o->oid, error)) &&
	       isd_state_put_object(c->state, o, error) &&
	       isd_announce_object(c, o, n, content, error);
}

/* 1: dealt with; 0: as if the histories were one; -1: error */
static int attach_apart(IsdAttach *a, IsdObject *o, const struct kml_record *r, const char *name,
			GError **error)
{
	IsdWhose whose = isd_apart_content(o, r, a->common);
	gboolean pending = isd_push_is_pending(a->c, o->oid, MAX(o->lcver, o->laver));
	g_auto(IsdName) n = { 0 };
	gboolean named, ok;

	if (!isd_state_a_name(a->c->state, o->id, &n, &named, error))
		return -1;
	if (!named)
		return 0;
	if (pending) {
		/* its base: one that the server has, or one that says it has not been seen */
		o->cver = whose == ISD_WHOSE_SAME || r->version_content <= a->common ?
			r->version_content : MIN(o->cver, a->common);
		o->aver = r->version_attr <= a->common ? r->version_attr :
			MIN(o->aver, a->common);
		return isd_state_put_object(a->c->state, o, error) ? 0 : -1;
	}
	if (whose == ISD_WHOSE_BOTH) {
		ok = isd_batch_flush(a->batch, error) &&
		     isd_conflict_keep(a->c, o->id, n.parent, n.name, r, NULL, error) &&
		     attach_new(a, r, name, error);
		return ok ? 1 : -1;
	}
	if (whose != ISD_WHOSE_OURS &&
	    (whose == ISD_WHOSE_THEIRS || !isd_apart_attrs_are_ours(o, r, a->common))) {
		o->cver = whose == ISD_WHOSE_SAME ? r->version_content : MIN(o->cver, a->common);
		return 0;
	}
	return attach_ours(a, o, &n, r, whose == ISD_WHOSE_OURS, error) ? 1 : -1;
}

/*
 * The same object under another number: what replaced its content behind the common part
 * gave it a new one, or another client has brought it back.
 */
static gboolean attach_was_it(const IsdAttach *a, const IsdObject *o, const IsdName *n,
			      const struct kml_record *r)
{
	return a->apart && o->soid.ino && attach_alike(o, r) &&
	       MAX(MAX(o->cver, o->aver), n->ver) > a->common;
}

static gboolean attach_same_name(IsdAttach *a, IsdObject *o, const struct kml_record *r,
				 const char *name, GError **error)
{
	int rc;

	o->soid = r->obj;
	rc = attach_apart(a, o, r, name, error);
	if (rc || isd_push_is_pending(a->c, o->oid, MAX(o->lcver, o->laver)))
		return rc >= 0;
	return attach_bind(a, o, name, r, TRUE, error);
}

/* The name is taken here. */
static gboolean attach_meet(IsdAttach *a, const struct kml_record *r, const IsdName *n,
			    GError **error)
{
	IsdClient *c = a->c;
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	if (!isd_state_by_id(c->state, n->id, &o, &found, error))
		return FALSE;
	if (found && attach_was_it(a, &o, n, r))
		return attach_same_name(a, &o, r, n->name, error);
	if (found && attach_matches(&o, r))
		return isd_push_cover(c, o.oid, c->core->log_recno, 0, error) &&
		       attach_bind(a, &o, n->name, r, TRUE, error);
	return isd_batch_flush(a->batch, error) &&
	       isd_conflict_keep(c, n->id, n->parent, n->name, r, NULL, error) &&
	       attach_new(a, r, n->name, error);
}

/* An object that an earlier attach has seen. */
static gboolean attach_known(IsdAttach *a, IsdObject *o, const struct kml_record *r,
			     const char *name, GError **error)
{
	IsdClient *c = a->c;
	g_auto(IsdName) n = { 0 };
	gboolean named, content, removed = FALSE;
	int rc;

	if (a->noted && !attach_is_removed(c, o, &removed, error))
		return FALSE;
	if (removed)
		return attach_removed(a, o, r, name, error);
	if (!o->oid.ino && r->opcode != KML_CREATE)
		return attach_make(a, o, name, error);
	if (!o->oid.ino)
		return isd_want_version(c, o->id, r->version_content, &r->attr, error);
	if (!isd_state_lookup(c->state, a->place.id, name, &n, &named, error))
		return FALSE;
	if (named && n.id != o->id &&
	    (!isd_batch_flush(a->batch, error) ||
	     !isd_conflict_keep(c, n.id, a->place.id, name, r, NULL, error)))
		return FALSE;
	if ((!named || n.id != o->id) && !attach_move(a, o, r, name, error))
		return FALSE;
	rc = a->apart ? attach_apart(a, o, r, name, error) : 0;
	if (rc)
		return rc > 0;
	if (isd_push_is_pending(c, o->oid, MAX(o->lcver, o->laver)))
		/* want.c and the push find out which version is current */
		return r->opcode != KML_CREATE || attach_has_seen(c, o, r) ||
		       isd_want_version(c, o->id, r->version_content, &r->attr, error);
	content = r->opcode != KML_CREATE || attach_same_content(o, r);
	if (!content && !isd_want_version(c, o->id, r->version_content, &r->attr, error))
		return FALSE;
	return attach_bind(a, o, name, r, content, error);
}

static gboolean attach_object(IsdAttach *a, const struct kml_record *r, GError **error)
{
	g_autofree char *name = isd_str(r->name);
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 };
	gboolean found = FALSE;

	if (!attach_place(a, r->parent, error))
		return FALSE;
	if (a->fresh)
		return attach_new(a, r, name, error);
	if (a->noted && !isd_unlisted_mark(a->c, a->place.id, name, r->obj, error))
		return FALSE;
	if (!isd_state_by_soid(a->c->state, r->obj, &o, &found, error))
		return FALSE;
	if (found)
		return attach_known(a, &o, r, name, error);
	if (!isd_state_lookup(a->c->state, a->place.id, name, &n, &found, error))
		return FALSE;
	return found ? attach_meet(a, r, &n, error) : attach_new(a, r, name, error);
}

/* A further name: made once the object is here. */
static gboolean attach_link(IsdAttach *a, const struct kml_record *r, GError **error)
{
	g_autofree char *name = isd_str(r->tname);
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 };
	gboolean found, named;

	if (!attach_place(a, r->tparent, error) ||
	    (a->noted && !isd_unlisted_mark(a->c, a->place.id, name, r->obj, error)) ||
	    !isd_state_by_soid(a->c->state, r->obj, &o, &found, error) ||
	    !isd_state_lookup(a->c->state, a->place.id, name, &n, &named, error))
		return FALSE;
	if (!found || (named && n.id == o.id))
		return TRUE;
	if (named && (!isd_batch_flush(a->batch, error) ||
		      !isd_conflict_keep(a->c, n.id, a->place.id, name, r, NULL, error)))
		return FALSE;
	a->new_files++;
	return isd_want_drop_name(a->c, o.id, a->place.id, name, error) &&
	       isd_want_add(a->c, o.id, a->place.id, name, r->version_content, o.attr.size, error);
}

static gboolean attach_record(IsdAttach *a, const struct kml_record *r, GError **error)
{
	switch (r->opcode) {
	case KML_MKDIR:
		if (!r->name.ptr)
			return attach_root(a, r, error);
		/* fall through */
	case KML_CREATE:
	case KML_SYMLINK:
	case KML_MKNOD:
		if (r->name.ptr && r->has_attr)
			return attach_object(a, r, error);
		break;
	case KML_LINK:
		if (r->name.ptr && r->tname.ptr)
			return attach_link(a, r, error);
		break;
	case KML_CATALOG_END:
		a->ended = TRUE;
		return TRUE;
	}
	g_set_error(error, ISD_ERROR, ISD_ERROR_PROTOCOL,
		    "the catalog has a record that does not belong there (opcode %u)", r->opcode);
	return FALSE;
}

gboolean isd_attach_one(IsdClient *c, const struct kml_record *r, GError **error)
{
	g_autoptr(IsdBatch) batch = isd_batch_new(c);
	IsdAttach a = { .c = c, .batch = batch };
	gboolean ok = attach_record(&a, r, error) && isd_batch_flush(batch, error);

	isd_place_clear(&a.place);
	return ok;
}

/* --- the stream --- */

static gboolean attach_decode(IsdAttach *a, GError **error)
{
	gsize pos = 0;
	guint n = 0;

	if (!isd_client_begin(a->c, error))
		return FALSE;
	while (!a->ended) {
		struct kml_record r;
		ssize_t len = kml_decode(a->buf->data + pos, a->buf->len - pos, &r);

		if (len == -EAGAIN)
			break;
		if (len < 0) {
			g_set_error(error, ISD_ERROR, ISD_ERROR_PROTOCOL,
				    "the catalog is damaged");
			return FALSE;
		}
		if (!attach_record(a, &r, error))
			return FALSE;
		pos += len;
		n++;
	}
	g_byte_array_remove_range(a->buf, 0, pos);
	return isd_client_did(a->c, n, error);
}

static gboolean attach_data(IsdRequest *r, const void *buf, gsize len, gpointer data,
			    GError **error)
{
	IsdAttach *a = data;
	const char *pos = isd_fetch_header(r, "InterSync-Position");
	char *end;

	if (!isd_client_is_up(a->c))
		return FALSE;
	if (!a->offset && pos) {
		a->offset = g_ascii_strtoull(pos, &end, 10);
		a->recno = g_ascii_strtoull(end, &end, 10);
		a->crc = g_ascii_strtoull(end, NULL, 10);
	}
	g_byte_array_append(a->buf, buf, len);
	if (!attach_decode(a, error))
		return FALSE;
	if (a->new_files < PUMP_RECORDS)
		return TRUE;
	a->new_files = 0;
	if (!isd_batch_flush(a->batch, error))
		return FALSE;
	isd_want_pump(a->c->want, TRUE);
	return TRUE;
}

/* --- the end --- */

static gboolean attach_names_done(IsdAttach *a, GError **error)
{
	IsdClient *c = a->c;

	c->pull_offset = a->offset;
	c->pull_recno = a->recno;
	c->pull_crc = a->crc;
	if (!isd_client_begin(c, error) ||
	    !isd_state_set_u64(c->state, "pull_offset", a->offset, error) ||
	    !isd_state_set_u64(c->state, "pull_recno", a->recno, error) ||
	    !isd_state_set_u64(c->state, "pull_crc", a->crc, error) ||
	    !isd_apart_mark(c, error) ||
	    !isd_state_set_u64(c->state, "pull_piece", 0, error) ||
	    !isd_state_set_u64(c->state, "apart", 0, error) ||
	    !isd_state_set_u64(c->state, "attached", ISD_ATTACH_NAMES, error) ||
	    !isd_client_commit(c, error))
		return FALSE;
	isd_want_pump(c->want, FALSE);
	return TRUE;
}

/* Its first name makes it on the server, the others are linked to that. */
static gboolean attach_log_one(IsdClient *c, gint64 id, GError **error)
{
	g_autoptr(GArray) names = NULL;
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	if (!isd_state_by_id(c->state, id, &o, &found, error) ||
	    !isd_state_names(c->state, id, &names, error))
		return FALSE;
	for (guint i = 0; i < names->len; i++) {
		const IsdName *first = &g_array_index(names, IsdName, 0);
		const IsdName *n = &g_array_index(names, IsdName, i);

		if (i == 0)
			isd_local_touch(c, n->parent, n->name);
		else if (!isd_announce_link(c, &o, first, n, error))
			return FALSE;
	}
	return TRUE;
}

/*
 * What is here alone and in no record that is still to be sent (a tree that was adopted, or
 * the server has lost it) gets one, so that the push finds it.  1: there may be more; 0: done;
 * -1: error.
 */
static int attach_log_some(IsdClient *c, gint64 *after, GError **error)
{
	gint64 ids[LOCAL_STEP];
	guint n = 0, rows = 0;
	sqlite3_stmt *st;
	int rc = isd_sql_row(c->state, error, &st,
			     "SELECT id, ino, gen, max(lcver, laver) FROM obj WHERE id > ? AND"
			     " sino = 0 AND ino <> 0 AND id <> 1 ORDER BY id LIMIT ?",
			     "iu", *after, LOCAL_STEP);

	for (; rc > 0; rc = isd_sql_next(c->state, st, error)) {
		struct kml_oid oid = { sqlite3_column_int64(st, 1), sqlite3_column_int64(st, 2) };

		*after = sqlite3_column_int64(st, 0);
		if (!isd_push_is_pending(c, oid, sqlite3_column_int64(st, 3)))
			ids[n++] = *after;
		rows++;
	}
	if (rc < 0)
		return -1;
	for (guint i = 0; i < n; i++)
		if (!attach_log_one(c, ids[i], error))
			return -1;
	return rows == LOCAL_STEP;
}

gboolean isd_attach_log_unknown(IsdClient *c, GError **error)
{
	gint64 after = 0;
	int more = 1;

	while (more > 0)
		more = attach_log_some(c, &after, error);
	return more == 0;
}

static gboolean attach_local_step(gpointer data)
{
	IsdAttach *a = data;
	g_autoptr(GError) error = NULL;
	gint64 after = a->local_after;
	int more = attach_log_some(a->c, &after, &error);

	a->local_after = after;
	if (more > 0)
		return G_SOURCE_CONTINUE;
	a->local = 0;
	if (more < 0 || !isd_client_follow(a->c, TRUE, &error) || !attach_names_done(a, &error))
		isd_client_fail(a->c, error);
	return G_SOURCE_REMOVE;
}

static void attach_catalog_done(IsdRequest *r, const GError *error, gpointer data)
{
	IsdAttach *a = data;
	g_autoptr(GError) local = NULL;

	a->catalog = NULL;
	if (!error && (!a->ended || !a->offset)) {
		g_set_error(&local, ISD_ERROR, ISD_ERROR_NETWORK, "the server broke the catalog off");
		error = local;
	}
	if (!error && (!isd_batch_flush(a->batch, &local) ||
		       (a->noted && !isd_unlisted_settle(a->c, a->apart, a->common, &local))))
		error = local;
	if (error)
		isd_client_fail(a->c, error);
	else
		a->local = g_idle_add(attach_local_step, a);
}

static gboolean attach_is_fresh(IsdClient *c, gboolean *ret, GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(c->state, error, &st, "SELECT 1 FROM obj WHERE id <> 1 LIMIT 1", "");

	if (rc > 0)
		sqlite3_reset(st);
	*ret = rc == 0;
	return rc >= 0;
}

static gboolean attach_ask(IsdAttach *a, GError **error)
{
	IsdFetchSpec spec = {
		.method = "GET", .on_data = attach_data, .done = attach_catalog_done, .data = a,
	};

	if (!isd_unlisted_begin(a->c, error) ||
	    (a->apart && !isd_sql_run(a->c->state, error, "UPDATE name SET ver = ? WHERE ver > ?",
				      "ii", (gint64)a->common + 1, (gint64)a->common)))
		return FALSE;
	a->noted = !a->fresh;
	spec.path = g_strdup("catalog");
	a->catalog = isd_fetch(a->c->fetcher, &spec);
	return TRUE;
}

static void attach_has_common(guint64 common, gpointer data)
{
	IsdAttach *a = data;
	g_autoptr(GError) error = NULL;

	a->common = common;
	if (!attach_ask(a, &error))
		isd_client_fail(a->c, error);
}

static gboolean attach_begin(IsdAttach *a, GError **error)
{
	guint64 attached, apart;

	if (!isd_state_get_u64(a->c->state, "attached", &attached, error) ||
	    !isd_state_get_u64(a->c->state, "apart", &apart, error) ||
	    !isd_state_get_u64(a->c->state, "common", &a->common, error) ||
	    !isd_client_follow(a->c, TRUE, error) || !attach_is_fresh(a->c, &a->fresh, error))
		return FALSE;
	a->apart = apart;
	if (attached == ISD_ATTACH_NAMES) {
		isd_want_pump(a->c->want, FALSE);
		return TRUE;
	}
	if (apart != 1)
		return attach_ask(a, error);
	a->find = isd_apart_find(a->c, attach_has_common, a);
	return TRUE;
}

static gboolean attach_finish(gpointer data)
{
	IsdAttach *a = data;
	IsdClient *c = a->c;
	g_autoptr(GError) error = NULL;

	a->local = 0;
	if (!isd_state_set_u64(c->state, "attached", ISD_ATTACH_DONE, &error)) {
		isd_client_fail(c, error);
		return G_SOURCE_REMOVE;
	}
	g_clear_pointer(&c->attach, isd_attach_free);
	isd_client_attached(c);
	return G_SOURCE_REMOVE;
}

void isd_attach_wanted_done(IsdAttach *a)
{
	if (!a->local)
		a->local = g_idle_add(attach_finish, a);
}

IsdAttach *isd_attach_start(IsdClient *c)
{
	IsdAttach *a = g_new0(IsdAttach, 1);
	g_autoptr(GError) error = NULL;

	a->c = c;
	a->buf = g_byte_array_new();
	a->batch = isd_batch_new(c);
	c->attach = a;
	if (!attach_begin(a, &error))
		isd_client_fail(c, error);
	return a;
}

void isd_attach_free(IsdAttach *a)
{
	g_clear_handle_id(&a->local, g_source_remove);
	isd_apart_free(a->find);
	if (a->catalog)
		isd_fetch_cancel(a->catalog);
	isd_batch_free(a->batch);
	isd_place_clear(&a->place);
	g_byte_array_unref(a->buf);
	g_free(a);
}
