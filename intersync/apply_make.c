// SPDX-License-Identifier: GPL-2.0-or-later
/* CREATE, MKDIR, SYMLINK and MKNOD of the server's log. */
#include "apply_pull.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* --- CREATE, MKDIR, SYMLINK, MKNOD --- */

static gboolean put_made(IsdApply *it, struct kml_oid oid, struct kml_time ctime, GError **error)
{
	IsdClient *c = it->p->c;
	const struct kml_record *r = &it->op->r;
	g_auto(IsdObject) o = {
		.oid = oid, .soid = r->obj, .attr = r->attr, .cver = it->content, .aver = r->recno,
		.link = r->link.ptr ? isd_str(r->link) : NULL, .link_len = r->link.len,
	};
	IsdName n = { .parent = it->parent, .name = it->name, .ver = r->recno };

	o.attr.valid = 0;
	o.attr.nlink = MAX(o.attr.nlink, 1);
	o.attr.ctime = ctime;
	if (!isd_state_add_object(c->state, &o, error) ||
	    !isd_obj_put_xattrs(c->state, o.id, r->xattrs, r->xattrs_len, error))
		return FALSE;
	n.id = o.id;
	if (!isd_state_put_name(c->state, &n, error) || !isd_apply_set_ptime(it->p, it, error))
		return FALSE;
	return !it->op->content || it->content ||
	       isd_want_version(c, o.id, it->op->content_recno, &r->attr, error);
}

/*
 * It is there and no local program made it (its record would be in the state): an
 * earlier run did, and was killed before it was written down.
 */
static gboolean adopt_made(IsdApply *it, gboolean *ret_done, GError **error)
{
	IsdClient *c = it->p->c;
	g_auto(IsdName) n = { 0 };
	struct stat st;
	struct kml_oid oid;
	gboolean named;

	*ret_done = FALSE;
	if (!isd_client_follow(c, TRUE, error) ||
	    !isd_state_lookup(c->state, it->parent, it->name, &n, &named, error))
		return FALSE;
	if (named || isd_local_stat(c, it->parent, it->name, &st, &oid) ||
	    (st.st_mode & S_IFMT) != (it->op->r.attr.mode & S_IFMT))
		return TRUE;
	*ret_done = TRUE;
	/* its content is taken again: it may be that of an earlier moment */
	it->content = 0;
	return put_made(it, oid, (struct kml_time) { st.st_ctim.tv_sec, st.st_ctim.tv_nsec }, error);
}

static gboolean made(IsdClient *c, gpointer item, const struct izo_reint_result *res,
		     GError **error)
{
	IsdApply *it = item;
	gboolean done;

	if (!res->error)
		return put_made(it, isd_result_oid(res), isd_result_ctime(res), error);
	if (isd_result_is_fatal(res, error) || !adopt_made(it, &done, error))
		return FALSE;
	return done || isd_apply_again(it, res, error);
}

/* The local object under that name is as good as the server's. */
static gboolean matches(IsdPull *p, const IsdOp *op, const IsdObject *o, const IsdName *n)
{
	const struct kml_record *r = &op->r;
	const IsdContent *t = g_hash_table_lookup(p->contents, op);

	if (o->soid.ino || (o->attr.mode & S_IFMT) != (r->attr.mode & S_IFMT))
		return FALSE;
	if (S_ISDIR(o->attr.mode))
		return TRUE;
	if (S_ISLNK(o->attr.mode))
		return o->link && o->link_len == r->link.len &&
		       !memcmp(o->link, r->link.ptr, o->link_len);
	if (!S_ISREG(o->attr.mode))
		return o->attr.rdev_major == r->attr.rdev_major &&
		       o->attr.rdev_minor == r->attr.rdev_minor;
	if (!t || t->status)
		return !op->content && !o->attr.size;
	return t->file ? isd_local_same_file(p->c, n->parent, n->name, o->oid, t->file, t->size) :
		isd_local_same_bytes(p->c, n->parent, n->name, o->oid, t->data, t->size);
}

/* Both have made the same: from now on it is one object; the server's attributes count. */
static gboolean bind_both(IsdPull *p, IsdOp *op, IsdObject *o, const IsdPlace *at, const char *name,
		     guint tries, GError **error)
{
	o->soid = op->r.obj;
	o->cver = op->content ? op->content_recno : op->r.recno;
	/* but not what was done to it since */
	return isd_push_cover(p->c, o->oid, o->lcver, 0, error) &&
	       isd_heal_add(p->c, o->id, error) &&
	       isd_state_put_object(p->c->state, o, error) &&
	       isd_apply_queue_attrs(p, op, o, at, name, KML_A_MODE | KML_A_UID | KML_A_GID |
				     (S_ISDIR(o->attr.mode) ? 0 : KML_A_MTIME), tries, error);
}

/* Somebody has the name: *ret_bound if that is what the record makes. */
gboolean isd_apply_clear_name(IsdPull *p, IsdOp *op, const IsdPlace *at, const char *name,
			      guint tries, gboolean *ret_bound, GError **error)
{
	g_auto(IsdName) n = { 0 };
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	*ret_bound = FALSE;
	if (!isd_state_lookup(p->c->state, at->id, name, &n, &found, error))
		return FALSE;
	if (!found)
		return TRUE;
	if (!isd_state_by_id(p->c->state, n.id, &o, &found, error))
		return FALSE;
	if (found && op->r.opcode != KML_RENAME && op->r.opcode != KML_LINK &&
	    matches(p, op, &o, &n)) {
		*ret_bound = TRUE;
		return bind_both(p, op, &o, at, name, tries, error);
	}
	return isd_conflict_keep(p->c, n.id, at->id, name, &op->r, NULL, error);
}

/* There is no room for it: nobody sees it before all of it is here. */
static gboolean make_later(IsdPull *p, const IsdOp *op, const IsdPlace *at, const char *name,
			   GError **error)
{
	const struct kml_record *r = &op->r;
	g_auto(IsdObject) o = { .soid = r->obj, .attr = r->attr, .aver = r->recno };

	o.attr.valid = 0;
	o.attr.ctime = (struct kml_time) { 0 };
	if (!isd_state_add_object(p->c->state, &o, error) ||
	    !isd_obj_put_xattrs(p->c->state, o.id, r->xattrs, r->xattrs_len, error) ||
	    !isd_want_add(p->c, o.id, at->id, name, op->content_recno, r->attr.size, error))
		return FALSE;
	isd_want_soon(p->c->want);
	return TRUE;
}

gboolean isd_apply_make(IsdPull *p, IsdOp *op, guint tries, GError **error)
{
	const struct kml_record *r = &op->r;
	const IsdContent *t = g_hash_table_lookup(p->contents, op);
	struct izo_guard absent = isd_guard_absent();
	struct kml_record m = { .opcode = r->opcode, .attr = r->attr, .has_attr = true };
	g_autofree char *name = isd_str(r->name);
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdPlace) at = { 0 };
	gboolean found, bound;
	IsdApply *it;

	if (!r->has_attr || !isd_apply_find_soid(p, r->obj, &o, &found, error))
		return !error || !*error;
	if (found)
		return TRUE;
	if (!isd_apply_find_place(p, r, r->parent, &at, &found, error))
		return FALSE;
	if (!found)
		return TRUE;
	if (!isd_apply_clear_name(p, op, &at, name, tries, &bound, error) || bound)
		return bound && (!error || !*error);
	if (t && t->status == ISD_CONTENT_FULL)
		return make_later(p, op, &at, name, error);
	m.attr.valid = 0;
	m.link = r->link;
	m.xattrs = r->xattrs;
	m.xattrs_len = r->xattrs_len;
	isd_apply_take_ptime(&m, r);
	isd_place_source(&m, &at, name);
	isd_apply_set_content(&m, t);
	if (!m.data.ptr && !m.file.ptr && op->content && !(t && !t->status && !t->size))
		m.attr.size = 0;
	it = isd_apply_item_new(p, op, tries, 0);
	it->parent = at.id;
	it->name = g_steal_pointer(&name);
	it->content = !op->content ? r->recno : t && !t->status ? op->content_recno : 0;
	return isd_apply_queue(p, &m, &absent, NULL, 0, made, it, error);
}
