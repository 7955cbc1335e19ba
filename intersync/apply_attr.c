// SPDX-License-Identifier: GPL-2.0-or-later
/* SETATTR, SETXATTR and REMOVEXATTR of the server's log. */
#include "apply_pull.h"

#include <string.h>
#include <sys/stat.h>

static gboolean is_about_acl(const struct kml_record *r)
{
	static const char acl[] = "system.posix_acl_access";
	struct kml_str name, value;
	size_t pos = 0;

	return r->xattrs && kml_xattr_next(r->xattrs, r->xattrs_len, &pos, &name, &value) &&
	       name.len == strlen(acl) && !memcmp(name.ptr, acl, name.len);
}

/* What a record sets of the attributes; one about an ACL, the mode. */
static guint32 attr_bits(const IsdObject *o, const IsdOp *op)
{
	const struct kml_record *r = &op->r;
	guint32 bits = r->attr.valid & ~KML_A_SIZE;

	if (!r->has_attr)
		return 0;
	if (r->opcode == KML_SETXATTR || r->opcode == KML_REMOVEXATTR)
		return is_about_acl(r) ? KML_A_MODE : 0;
	if (S_ISREG(o->attr.mode) && op->content)
		bits &= ~KML_A_MTIME;	/* that of content which is still to come */
	return bits;
}

static gboolean take_bits(IsdClient *c, IsdObject *o, const IsdOp *op, guint32 bits, GError **error)
{
	isd_apply_take_attrs(o, &op->r.attr, bits);
	return !(bits & KML_A_MTIME) || isd_want_mtime(c, o->id, op->r.attr.mtime, error);
}

static gboolean attr_done(IsdClient *c, gpointer item, const struct izo_reint_result *res,
			  GError **error)
{
	IsdApply *it = item;
	g_auto(IsdObject) o = { 0 };
	const struct kml_record *r = &it->op->r;
	struct kml_str name, value;
	size_t pos = 0;
	gboolean found;

	if (res->error)
		return isd_apply_again(it, res, error);
	if (!isd_state_by_id(c->state, it->id, &o, &found, error))
		return FALSE;
	if (!found)
		return TRUE;
	o.attr.ctime = isd_result_ctime(res);
	o.aver = MAX(o.aver, r->recno);
	if (!take_bits(c, &o, it->op, it->valid ? it->valid : attr_bits(&o, it->op), error) ||
	    !isd_state_put_object(c->state, &o, error))
		return FALSE;
	if (r->opcode != KML_SETXATTR && r->opcode != KML_REMOVEXATTR)
		return TRUE;
	while (r->xattrs && kml_xattr_next(r->xattrs, r->xattrs_len, &pos, &name, &value))
		if (!isd_state_set_xattr(c->state, o.id, name.ptr, name.len, value.ptr,
					 r->opcode == KML_SETXATTR ? (gssize)value.len : -1, error))
			return FALSE;
	return TRUE;
}

/* What own records that the server has not seen, or that come later there, set anyhow stays. */
static gboolean less_pending(IsdPull *p, IsdOp *op, const IsdObject *o, gboolean *ret_left,
			     GError **error)
{
	g_autoptr(GHashTable) xattrs = NULL;
	struct kml_record *r = &op->r;
	struct kml_str name, value;
	size_t pos = 0;
	guint32 valid = 0;

	*ret_left = TRUE;
	if (S_ISREG(o->attr.mode) && (isd_apply_pending_content(p, o) || o->cver > r->recno))
		r->attr.valid &= ~KML_A_MTIME;
	if (isd_push_is_pending(p->c, o->oid, o->laver) &&
	    !isd_push_pending_attrs(p->c, o->oid, &valid, &xattrs, error))
		return FALSE;
	if (r->opcode == KML_SETATTR || r->opcode == KML_CLOSE) {
		r->attr.valid &= ~valid;
		*ret_left = r->attr.valid != 0;
	} else if (xattrs && kml_xattr_next(r->xattrs, r->xattrs_len, &pos, &name, &value)) {
		g_autofree char *text = isd_str(name);

		*ret_left = !g_hash_table_contains(xattrs, text);
	}
	return TRUE;
}

static gboolean attr_wanted(IsdPull *p, const IsdOp *op, IsdObject *o, GError **error)
{
	const struct kml_record *r = &op->r;
	struct kml_str name, value;
	size_t pos = 0;

	if (!take_bits(p->c, o, op, attr_bits(o, op), error))
		return FALSE;
	o->aver = r->recno;
	while (r->xattrs && kml_xattr_next(r->xattrs, r->xattrs_len, &pos, &name, &value))
		if (!isd_state_set_xattr(p->c->state, o->id, name.ptr, name.len, value.ptr,
					 r->opcode == KML_SETXATTR ? (gssize)value.len : -1, error))
			return FALSE;
	return isd_state_put_object(p->c->state, o, error);
}

static guint32 differing(const struct kml_attrs *a, const struct kml_attrs *b, guint32 bits)
{
	return bits & ((a->mode != b->mode ? KML_A_MODE : 0) | (a->uid != b->uid ? KML_A_UID : 0) |
		       (a->gid != b->gid ? KML_A_GID : 0) |
		       (isd_time_equal(a->mtime, b->mtime) ? 0 : KML_A_MTIME));
}

/* Where the object is; *ret_found FALSE: it has no name here.  The root needs none. */
static gboolean find_at(IsdPull *p, const struct kml_record *r, const IsdObject *o, IsdName *ret,
			IsdPlace *ret_at, gboolean *ret_found, GError **error)
{
	*ret_found = TRUE;
	if (o->id == ISD_ROOT_ID)
		return TRUE;
	return isd_apply_find_name(p, o, r->parent, r->name, ret, ret_found, error) &&
	       (!*ret_found || isd_place_by_id(p->c, ret->parent, ret_at, ret_found, error));
}

gboolean isd_apply_echo(IsdPull *p, IsdOp *op, GError **error)
{
	struct kml_record *r = &op->r;
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 };
	g_auto(IsdPlace) at = { 0 };
	gboolean found, left;
	guint32 bits;

	if (!r->has_attr || (r->opcode != KML_SETATTR && r->opcode != KML_CLOSE))
		return TRUE;
	if (!isd_apply_find_object(p, r, &o, &found, error))
		return FALSE;
	if (!found || !o.oid.ino || !S_ISREG(o.attr.mode))
		return TRUE;
	if (!r->attr.valid)
		r->attr.valid = KML_A_MODE | KML_A_UID | KML_A_GID | KML_A_MTIME;
	if (r->opcode == KML_CLOSE)
		/* mode and owner that came along with content may have been left out there */
		r->attr.valid |= KML_A_MTIME | (o.aver <= r->recno && r->attr.mode ?
						KML_A_MODE | KML_A_UID | KML_A_GID : 0);
	if (!less_pending(p, op, &o, &left, error))
		return FALSE;
	bits = differing(&r->attr, &o.attr, r->attr.valid);
	if (!bits || !find_at(p, r, &o, &n, &at, &found, error) || !found)
		return !error || !*error;
	return isd_apply_queue_attrs(p, op, &o, &at, n.name, bits, 0, error);
}

gboolean isd_apply_attr(IsdPull *p, IsdOp *op, guint tries, GError **error)
{
	struct kml_record *r = &op->r;
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 };
	g_auto(IsdPlace) at = { 0 };
	struct izo_guard guard;
	struct kml_record x = { .opcode = r->opcode, .has_attr = r->has_attr };
	gboolean found, left;

	if (!isd_apply_find_object(p, r, &o, &found, error))
		return FALSE;
	if (!found || o.aver >= r->recno)
		return TRUE;
	if (!o.oid.ino)
		return attr_wanted(p, op, &o, error);
	if (!less_pending(p, op, &o, &left, error))
		return FALSE;
	if (!left || !find_at(p, r, &o, &n, &at, &found, error))
		return !error || !*error;
	if (!found)
		return attr_wanted(p, op, &o, error);	/* it may come back */
	if (r->opcode == KML_SETATTR)
		return isd_apply_queue_attrs(p, op, &o, &at, n.name,
					     r->attr.valid & ~KML_A_SIZE, tries, error);
	x.attr = r->attr;
	x.obj = o.oid;
	x.xattrs = r->xattrs;
	x.xattrs_len = r->xattrs_len;
	if (n.name)
		isd_place_source(&x, &at, n.name);
	else
		x.dir = (struct kml_str) { "/", 1 };
	guard = isd_guard_object(&o, 0);
	return isd_apply_queue(p, &x, &guard, NULL, 0, attr_done,
			       isd_apply_item_new(p, op, tries, o.id), error);
}

gboolean isd_apply_queue_attrs(IsdPull *p, IsdOp *op, const IsdObject *o, const IsdPlace *at,
			       const char *name, guint32 valid, guint tries, GError **error)
{
	struct izo_guard guard = isd_guard_object(o, 0);
	struct kml_record r = {
		.opcode = KML_SETATTR, .obj = o->oid, .attr = op->r.attr, .has_attr = true,
	};
	IsdApply *it = isd_apply_item_new(p, op, tries, o->id);

	if (name)
		isd_place_source(&r, at, name);
	else
		r.dir = (struct kml_str) { "/", 1 };
	r.attr.valid = valid;
	if (S_ISLNK(o->attr.mode))
		r.attr.valid &= ~KML_A_MODE;
	it->valid = r.attr.valid;
	return isd_apply_queue(p, &r, &guard, NULL, 0, attr_done, it, error);
}
