// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a record of the server's log does here.  Objects are found by the
 * server's numbers; where they are is what the state says, whatever the record's
 * names were, unless the record is about names.  REINT applies it guarded by what
 * the state has last seen; where the guard does not hold, the own log is taken in
 * and the decision made again.
 *
 * Records go in batches; one that needs what the batch changes waits for it
 * and for its commit, so that after a crash the file system is at most one
 * record ahead of the state for any object and name.
 */
#include "pull.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define TRIES		3
#define MTIME_TRIES	100
#define PATCH_RANGES	KML_RANGES_MAX

typedef struct {
	IsdPull		*p;
	IsdOp		*op;
	guint		tries;
	gint64		id, other;	/* rows: the object; what it replaces */
	gint64		parent, tparent;
	char		*name, *tname;
	guint64		content;	/* version that the batch brings, 0 none */
} Item;

static gboolean apply_op(IsdPull *p, IsdOp *op, guint tries, GError **error);

/* --- items --- */

static Item *item_new(IsdPull *p, IsdOp *op, guint tries, gint64 id)
{
	Item *it = g_new0(Item, 1);

	it->p = p;
	it->op = op;
	it->tries = tries;
	it->id = id;
	return it;
}

static void item_free(gpointer data)
{
	Item *it = data;

	g_free(it->name);
	g_free(it->tname);
	g_free(it);
}

/* --- what the batch touches --- */

static gint64 key_of(struct kml_oid oid)
{
	return (gint64)(oid.ino * 2654435761u) ^ oid.gen;
}

static gint64 key_of_name(struct kml_oid dir, struct kml_str name)
{
	guint64 h = 5381;

	for (gsize i = 0; i < name.len; i++)
		h = h * 33 + (guchar)name.ptr[i];
	return (gint64)(h ^ ((guint64)key_of(dir) << 7));
}

static guint touched_keys(const struct kml_record *r, gint64 keys[7], gboolean needs)
{
	guint n = 0;

	keys[n++] = key_of(r->obj);
	if (r->has_old)
		keys[n++] = key_of(r->old);
	if (r->name.ptr)
		keys[n++] = key_of_name(r->parent, r->name);
	if (r->tname.ptr)
		keys[n++] = key_of_name(r->tparent, r->tname);
	if (needs && r->parent.ino)
		keys[n++] = key_of(r->parent);
	if (needs && r->tparent.ino)
		keys[n++] = key_of(r->tparent);
	return n;
}

static gboolean is_touched(IsdPull *p, const struct kml_record *r)
{
	gint64 keys[7];
	guint n = touched_keys(r, keys, TRUE);

	for (guint i = 0; i < n; i++)
		if (g_hash_table_contains(p->touched, &keys[i]))
			return TRUE;
	return FALSE;
}

static void touch(IsdPull *p, const struct kml_record *r)
{
	gint64 keys[7];
	guint n = touched_keys(r, keys, FALSE);

	for (guint i = 0; i < n; i++)
		g_hash_table_add(p->touched, g_memdup2(&keys[i], sizeof(keys[i])));
}

gboolean isd_pull_flush(IsdPull *p, GError **error)
{
	while (isd_batch_count(p->batch))
		if (!isd_batch_flush(p->batch, error))
			return FALSE;
	if (!g_hash_table_size(p->touched))
		return TRUE;
	g_hash_table_remove_all(p->touched);
	return isd_client_begin(p->c, error) && isd_pull_mark(p, error) &&
	       isd_client_commit(p->c, error);
}

static gboolean queue(IsdPull *p, const struct kml_record *r, const struct izo_guard *guard,
		      const struct izo_guard *tguard, guint32 flags, IsdBatchResult result,
		      Item *it, GError **error)
{
	touch(p, &it->op->r);
	return isd_batch_add(p->batch, r, guard, tguard, flags, result, it, item_free, error);
}

/* --- rows and places --- */

/* By the server's number, also one that a push of ours has changed meanwhile. */
static gboolean find_row(IsdPull *p, struct kml_oid soid, IsdObject *ret, gboolean *ret_found,
			 GError **error)
{
	sqlite3_stmt *st;
	gint64 id;
	int rc;

	if (!isd_state_by_soid(p->c->state, soid, ret, ret_found, error))
		return FALSE;
	if (*ret_found)
		return TRUE;
	rc = isd_sql_row(p->c->state, error, &st,
			 "SELECT id FROM client_was WHERE sino = ? AND sgen = ?", "iu",
			 (gint64)soid.ino, soid.gen);
	if (rc <= 0)
		return rc == 0;
	id = sqlite3_column_int64(st, 0);
	sqlite3_reset(st);
	return isd_state_by_id(p->c->state, id, ret, ret_found, error);
}

static gboolean find_soid(IsdPull *p, struct kml_oid soid, IsdObject *ret, gboolean *ret_found,
			  GError **error)
{
	if (!find_row(p, soid, ret, ret_found, error))
		return FALSE;
	return !*ret_found || ret->oid.ino || !S_ISREG(ret->attr.mode) ||
	       isd_want_is_active(p->c->want, ret->id) || isd_want_adopt(p->c, ret, error);
}

static gboolean is_old_number(IsdPull *p, struct kml_oid soid)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(p->c->state, NULL, &st,
			     "SELECT 1 FROM client_was WHERE sino = ? AND sgen = ?", "iu",
			     (gint64)soid.ino, soid.gen);

	if (rc > 0)
		sqlite3_reset(st);
	return rc > 0;
}

/* The object of a record, also when the record says that it has a new number. */
static gboolean find_object(IsdPull *p, const struct kml_record *r, IsdObject *ret,
			    gboolean *ret_found, GError **error)
{
	if (!find_soid(p, r->obj, ret, ret_found, error))
		return FALSE;
	if (*ret_found || !(r->flags & KML_F_REPLACED) || !r->has_old)
		return TRUE;
	return find_soid(p, r->old, ret, ret_found, error);
}

/* A directory that is deleted here and changed on the server comes back. */
static gboolean revive_dir(IsdPull *p, IsdObject *dir, GError **error)
{
	struct izo_guard absent = isd_guard_absent();
	struct kml_record r = {
		.opcode = KML_MKDIR, .attr = dir->attr, .has_attr = true,
	};
	g_auto(IsdName) n = { 0 };
	g_auto(IsdPlace) at = { 0 };
	struct izo_reint_result res;
	gboolean found;

	if (!isd_push_find_removal(p->c, dir->oid, &n, &found, error))
		return FALSE;
	if (found && !isd_place_by_id(p->c, n.parent, &at, &found, error))
		return FALSE;
	if (!found)
		return TRUE;
	r.attr.valid = 0;
	isd_place_source(&r, &at, n.name);
	if (!isd_push_cover(p->c, dir->oid, p->c->core->log_recno, 0, error) ||
	    !isd_reint_one(p->c, &r, &absent, NULL, 0, &res, error))
		return FALSE;
	if (res.error)
		return !isd_result_is_fatal(&res, error);
	dir->oid = isd_result_oid(&res);
	dir->attr.ctime = isd_result_ctime(&res);
	n.id = dir->id;
	n.lver = 0;
	return isd_state_put_object(p->c->state, dir, error) &&
	       isd_state_put_name(p->c->state, &n, error);
}

static gboolean find_place(IsdPull *p, struct kml_oid soid, IsdPlace *ret, gboolean *ret_found,
			   GError **error)
{
	g_auto(IsdObject) o = { 0 };

	if (!isd_place_by_soid(p->c, soid, ret, ret_found, error))
		return FALSE;
	if (*ret_found)
		return TRUE;
	if (!find_soid(p, soid, &o, ret_found, error) || !*ret_found)
		return !error || !*error;
	if (!revive_dir(p, &o, error))
		return FALSE;
	return isd_place_by_soid(p->c, soid, ret, ret_found, error);
}

/* Where the object is: its name in the record if it still has that, else any. */
static gboolean find_name(IsdPull *p, const IsdObject *o, struct kml_oid dir, struct kml_str name,
			  IsdName *ret, gboolean *ret_found, GError **error)
{
	g_autofree char *text = name.ptr ? isd_str(name) : NULL;
	g_auto(IsdObject) d = { 0 };
	gboolean found = FALSE;

	if (text && !find_soid(p, dir, &d, &found, error))
		return FALSE;
	if (found && !isd_state_lookup(p->c->state, d.id, text, ret, &found, error))
		return FALSE;
	if (found && ret->id == o->id) {
		*ret_found = TRUE;
		return TRUE;
	}
	if (found)
		isd_name_clear(ret);
	return isd_state_a_name(p->c->state, o->id, ret, ret_found, error);
}

static gboolean set_ptime(IsdPull *p, const Item *it, GError **error)
{
	const struct kml_record *r = &it->op->r;

	if (!r->has_ptime)
		return TRUE;
	if (it->parent && r->opcode != KML_LINK &&
	    !isd_obj_set_mtime(p->c->state, it->parent, r->ptime, error))
		return FALSE;
	return !it->tparent || isd_obj_set_mtime(p->c->state, it->tparent, r->tptime, error);
}

static void take_ptime(struct kml_record *to, const struct kml_record *from)
{
	to->has_ptime = from->has_ptime;
	to->ptime = from->ptime;
	to->tptime = from->tptime;
}

static gboolean pending_content(IsdPull *p, const IsdObject *o)
{
	return isd_push_is_pending(p->c, o->oid, o->lcver);
}

/* --- when the file system did not agree --- */

/*
 * The row gets the number and change time of what is there, unless a local program
 * changed it: looked at first, then everything local is logged, then decided.
 */
static gboolean refresh(IsdPull *p, gint64 id, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 };
	struct stat st = { 0 };
	struct kml_oid oid = { 0 };
	gboolean found, named = FALSE, there;

	if (!id)
		return isd_client_follow(p->c, TRUE, error);
	if (!isd_state_a_name(p->c->state, id, &n, &named, error))
		return FALSE;
	there = named && isd_local_stat(p->c, n.parent, n.name, &st, &oid) == 0;
	if (!isd_client_follow(p->c, TRUE, error) ||
	    !isd_state_by_id(p->c->state, id, &o, &found, error))
		return FALSE;
	if (!found || !there || (st.st_mode & S_IFMT) != (o.attr.mode & S_IFMT) ||
	    isd_push_is_pending(p->c, o.oid, MAX(o.lcver, o.laver)))
		return TRUE;
	o.oid = oid;
	o.attr.ctime = (struct kml_time) { st.st_ctim.tv_sec, st.st_ctim.tv_nsec };
	return isd_state_put_object(p->c->state, &o, error);
}

/* After a result that is not success: decide again, or give this record up. */
static gboolean again(Item *it, const struct izo_reint_result *res, GError **error)
{
	const struct kml_record *r = &it->op->r;
	int err = GUINT32_FROM_LE(res->error);

	if (isd_result_is_fatal(res, error))
		return FALSE;
	if (it->tries < TRIES)
		return refresh(it->p, it->id, error) &&
		       apply_op(it->p, it->op, it->tries + 1, error) &&
		       isd_pull_flush(it->p, error);
	isd_log(3, it->p->c->server, r->recno, "%s of %.*s in %.*s cannot be applied here: %s",
		kml_opcode_name(r->opcode), (int)r->name.len, r->name.ptr, (int)r->dir.len,
		r->dir.ptr, g_strerror(err));
	return TRUE;
}

/* --- content --- */

static gboolean want_exists(IsdPull *p, gint64 id, gboolean *ret, GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(p->c->state, error, &st,
			     "SELECT 1 FROM client_want WHERE id = ? LIMIT 1", "i", id);

	if (rc > 0)
		sqlite3_reset(st);
	*ret = rc > 0;
	return rc >= 0;
}

/* As many as one record can hold: neighbours become one. */
static void limit_ranges(GArray *a)
{
	while (a->len > PATCH_RANGES)
		for (guint i = 0; i + 1 < a->len; i++) {
			struct kml_range *x = &g_array_index(a, struct kml_range, i);
			const struct kml_range *y = x + 1;

			x->len = y->off + y->len - x->off;
			g_array_remove_index(a, i + 1);
		}
}

/* The bytes that differ from the version that is here; NULL: take all of it. */
static GArray *patch_ranges(IsdPull *p, const IsdOp *op, const IsdObject *o)
{
	const GArray *carry = g_hash_table_lookup(p->carry, &o->id);
	guint64 size = op->r.attr.size, base = MIN(o->attr.size, op->min_size), sum = 0;
	GArray *spans = NULL, *a = g_array_new(FALSE, FALSE, sizeof(struct kml_range));

	for (guint i = 0; op->spans && i < op->spans->len; i++)
		isd_spans_add(&spans, g_array_index(op->spans, IsdSpan, i).off,
			      g_array_index(op->spans, IsdSpan, i).end);
	for (guint i = 0; carry && i < carry->len; i++)
		isd_spans_add(&spans, g_array_index(carry, IsdSpan, i).off,
			      g_array_index(carry, IsdSpan, i).end);
	isd_spans_add(&spans, base, size);
	for (guint i = 0; i < spans->len; i++) {
		const IsdSpan *s = &g_array_index(spans, IsdSpan, i);
		struct kml_range x = { s->off, MIN(s->end, size) - s->off };

		if (s->off >= size)
			break;
		sum += x.len;
		g_array_append_val(a, x);
	}
	g_array_unref(spans);
	limit_ranges(a);
	if (sum <= size - size / 4)
		return a;
	g_array_unref(a);
	return NULL;
}

gboolean isd_pull_content(IsdPull *p, IsdOp *op, IsdContent **ret, GError **error)
{
	const struct kml_record *r = &op->r;
	g_auto(IsdObject) o = { 0 };
	gboolean found, wanted = FALSE;
	guint64 size = r->has_attr ? r->attr.size : 0;

	if (!find_object(p, r, &o, &found, error) ||
	    (found && !want_exists(p, o.id, &wanted, error)))
		return FALSE;
	if (r->opcode == KML_CREATE) {
		if (!found)
			*ret = isd_content_new(r->obj, op->content_recno, size);
		return TRUE;
	}
	/* not here (yet): want.c gets it; or it is here already */
	if (!found || !o.oid.ino || o.cver >= op->content_recno)
		return TRUE;
	*ret = isd_content_new(r->obj, op->content_recno, size);
	if (!op->whole && size > ISD_SMALL_MAX && o.cver && !pending_content(p, &o) &&
	    (!wanted || g_hash_table_contains(p->carry, &o.id)))
		(*ret)->ranges = patch_ranges(p, op, &o);
	return TRUE;
}

static void set_content(struct kml_record *r, const IsdContent *t)
{
	if (!t || t->status)
		return;
	if (t->file)
		r->file = (struct kml_str) { t->file, strlen(t->file) };
	else
		r->data = (struct kml_str) { t->size ? (const char *)t->data : "", t->size };
}

/* --- CREATE, MKDIR, SYMLINK, MKNOD --- */

static gboolean put_made(Item *it, struct kml_oid oid, struct kml_time ctime, GError **error)
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
	if (!isd_state_put_name(c->state, &n, error) || !set_ptime(it->p, it, error))
		return FALSE;
	return !it->op->content || it->content ||
	       isd_want_version(c, o.id, it->op->content_recno, &r->attr, error);
}

/*
 * It is there and no local program made it (its record would be in the state): an
 * earlier run did, and was killed before it was written down.
 */
static gboolean adopt_made(Item *it, gboolean *ret_done, GError **error)
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
	Item *it = item;
	gboolean done;

	if (!res->error)
		return put_made(it, isd_result_oid(res), isd_result_ctime(res), error);
	if (isd_result_is_fatal(res, error) || !adopt_made(it, &done, error))
		return FALSE;
	return done || again(it, res, error);
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

static gboolean attr_done(IsdClient *c, gpointer item, const struct izo_reint_result *res,
			  GError **error);

static gboolean queue_attrs(IsdPull *p, IsdOp *op, const IsdObject *o, const IsdPlace *at,
			    const char *name, guint32 valid, guint tries, GError **error)
{
	struct izo_guard guard = isd_guard_object(o, 0);
	struct kml_record r = {
		.opcode = KML_SETATTR, .obj = o->oid, .attr = op->r.attr, .has_attr = true,
	};

	if (name)
		isd_place_source(&r, at, name);
	else
		r.dir = (struct kml_str) { "/", 1 };
	r.attr.valid = valid;
	if (S_ISLNK(o->attr.mode))
		r.attr.valid &= ~KML_A_MODE;
	return queue(p, &r, &guard, NULL, 0, attr_done, item_new(p, op, tries, o->id), error);
}

/* Both have made the same: from now on it is one object; the server's attributes count. */
static gboolean bind_both(IsdPull *p, IsdOp *op, IsdObject *o, const IsdPlace *at, const char *name,
		     guint tries, GError **error)
{
	o->soid = op->r.obj;
	o->cver = op->content ? op->content_recno : op->r.recno;
	return isd_push_cover(p->c, o->oid, p->c->core->log_recno, 0, error) &&
	       isd_state_put_object(p->c->state, o, error) &&
	       queue_attrs(p, op, o, at, name, KML_A_MODE | KML_A_UID | KML_A_GID |
			   (S_ISDIR(o->attr.mode) ? 0 : KML_A_MTIME), tries, error);
}

/* Somebody has the name: *ret_bound if that is what the record makes. */
static gboolean clear_name(IsdPull *p, IsdOp *op, const IsdPlace *at, const char *name,
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
	return isd_conflict_keep(p->c, n.id, at->id, name, NULL, error);
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

static gboolean apply_make(IsdPull *p, IsdOp *op, guint tries, GError **error)
{
	const struct kml_record *r = &op->r;
	const IsdContent *t = g_hash_table_lookup(p->contents, op);
	struct izo_guard absent = isd_guard_absent();
	struct kml_record m = { .opcode = r->opcode, .attr = r->attr, .has_attr = true };
	g_autofree char *name = isd_str(r->name);
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdPlace) at = { 0 };
	gboolean found, bound;
	Item *it;

	if (!r->has_attr || !find_soid(p, r->obj, &o, &found, error))
		return !error || !*error;
	if (found)
		return TRUE;
	if (!find_place(p, r->parent, &at, &found, error))
		return FALSE;
	if (!found)
		return TRUE;
	if (!clear_name(p, op, &at, name, tries, &bound, error) || bound)
		return bound && (!error || !*error);
	if (t && t->status == ISD_CONTENT_FULL)
		return make_later(p, op, &at, name, error);
	m.attr.valid = 0;
	m.link = r->link;
	m.xattrs = r->xattrs;
	m.xattrs_len = r->xattrs_len;
	take_ptime(&m, r);
	isd_place_source(&m, &at, name);
	set_content(&m, t);
	if (!m.data.ptr && !m.file.ptr && op->content && !(t && !t->status && !t->size))
		m.attr.size = 0;
	it = item_new(p, op, tries, 0);
	it->parent = at.id;
	it->name = g_steal_pointer(&name);
	it->content = !op->content ? r->recno : t && !t->status ? op->content_recno : 0;
	return queue(p, &m, &absent, NULL, 0, made, it, error);
}

/* --- CLOSE --- */

static void take_attrs(IsdObject *o, const struct kml_attrs *a, guint32 valid)
{
	if (valid & KML_A_MODE)
		o->attr.mode = a->mode;
	if (valid & KML_A_UID)
		o->attr.uid = a->uid;
	if (valid & KML_A_GID)
		o->attr.gid = a->gid;
	if (valid & KML_A_MTIME)
		o->attr.mtime = a->mtime;
	if (valid & KML_A_SIZE)
		o->attr.size = a->size;
}

static void carry_spans(IsdPull *p, const IsdOp *op, const IsdObject *o)
{
	GArray *a = g_hash_table_lookup(p->carry, &o->id);
	gpointer key;

	if (op->whole) {
		g_hash_table_remove(p->carry, &o->id);
		return;
	}
	if (a)
		g_hash_table_steal_extended(p->carry, &o->id, &key, NULL);
	else
		key = g_memdup2(&o->id, sizeof(o->id));
	isd_spans_add(&a, MIN(op->min_size, o->attr.size), op->r.attr.size);
	for (guint i = 0; op->spans && i < op->spans->len; i++)
		isd_spans_add(&a, g_array_index(op->spans, IsdSpan, i).off,
			      g_array_index(op->spans, IsdSpan, i).end);
	g_hash_table_insert(p->carry, key, a);
}

/* Not now: want.c brings it when it can be had and nobody writes here. */
static gboolean put_off(IsdPull *p, IsdOp *op, IsdObject *o, guint tries, GError **error)
{
	guint32 valid = op->r.attr.valid & (KML_A_MODE | KML_A_UID | KML_A_GID);
	g_auto(IsdName) n = { 0 };
	g_auto(IsdPlace) at = { 0 };
	gboolean found;

	carry_spans(p, op, o);
	o->soid = op->r.obj;
	if (!isd_state_put_object(p->c->state, o, error) ||
	    !isd_want_version(p->c, o->id, op->content_recno, &op->r.attr, error) ||
	    !isd_state_a_name(p->c->state, o->id, &n, &found, error))
		return FALSE;
	if (!valid || !found)
		return TRUE;
	if (!isd_place_by_id(p->c, n.parent, &at, &found, error))
		return FALSE;
	return !found || queue_attrs(p, op, o, &at, n.name, valid, tries, error);
}

static gboolean closed(IsdClient *c, gpointer item, const struct izo_reint_result *res,
		       GError **error)
{
	Item *it = item;
	const struct kml_record *r = &it->op->r;
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	if (res->error && it->tries && GUINT32_FROM_LE(res->error) == ESTALE) {
		/* not changed, and yet not free: somebody has it open for write */
		if (!isd_state_by_id(c->state, it->id, &o, &found, error))
			return FALSE;
		return !found || put_off(it->p, it->op, &o, it->tries, error);
	}
	if (res->error)
		return again(it, res, error);
	if (!isd_state_by_id(c->state, it->id, &o, &found, error))
		return FALSE;
	if (!found)
		return TRUE;
	if (!isd_oid_equal(o.oid, isd_result_oid(res)) &&
	    !isd_push_alias(c, o.oid, o.id, error))
		return FALSE;
	o.oid = isd_result_oid(res);
	if (!is_old_number(it->p, r->obj))
		o.soid = r->obj;
	take_attrs(&o, &r->attr, r->attr.valid | KML_A_SIZE | KML_A_MTIME);
	o.attr.ctime = isd_result_ctime(res);
	o.cver = it->op->content_recno;
	g_hash_table_remove(it->p->carry, &o.id);
	return isd_state_put_object(c->state, &o, error) && isd_want_drop(c, o.id, error);
}

/* Both have changed it. */
static gboolean both_changed(IsdPull *p, IsdOp *op, IsdObject *o, const IsdName *n, GError **error)
{
	const IsdContent *t = g_hash_table_lookup(p->contents, op);
	g_auto(IsdObject) theirs = { 0 };
	gint64 new_id;
	gboolean found, same = FALSE;

	if (t && !t->status && !t->ranges)
		same = t->file ? isd_local_same_file(p->c, n->parent, n->name, o->oid, t->file,
						     t->size) :
			isd_local_same_bytes(p->c, n->parent, n->name, o->oid, t->data, t->size);
	if (same) {
		o->soid = op->r.obj;
		o->cver = op->content_recno;
		return isd_state_put_object(p->c->state, o, error);
	}
	if (!isd_conflict_keep(p->c, o->id, n->parent, n->name, &new_id, error))
		return FALSE;
	if (!new_id)
		return apply_op(p, op, TRIES, error);
	if (!isd_state_by_id(p->c->state, new_id, &theirs, &found, error) || !found)
		return FALSE;
	theirs.soid = op->r.obj;
	take_attrs(&theirs, &op->r.attr, op->r.attr.valid | KML_A_SIZE | KML_A_MTIME);
	if (!isd_state_put_object(p->c->state, &theirs, error) ||
	    !isd_want_version(p->c, new_id, op->content_recno, &op->r.attr, error))
		return FALSE;
	isd_want_soon(p->c->want);
	return TRUE;
}

/* Deleted here, changed on the server: the server's version comes back where it is there. */
static gboolean revive_file(IsdPull *p, IsdOp *op, IsdObject *o, struct kml_oid dir,
			    struct kml_str name, GError **error)
{
	g_autofree char *text = isd_str(name);
	g_auto(IsdPlace) at = { 0 };
	gboolean found, bound;

	if (!find_place(p, dir, &at, &found, error))
		return FALSE;
	if (!found)
		return TRUE;
	if (!isd_push_cover(p->c, o->oid, p->c->core->log_recno, 0, error) ||
	    !clear_name(p, op, &at, text, TRIES, &bound, error))
		return FALSE;
	o->oid = (struct kml_oid) { 0 };
	o->soid = op->r.obj;
	if (op->r.has_attr)
		take_attrs(o, &op->r.attr, op->r.attr.valid | KML_A_SIZE | KML_A_MTIME);
	if (!isd_state_put_object(p->c->state, o, error) ||
	    !isd_want_add(p->c, o->id, at.id, text, op->content ? op->content_recno : o->cver,
			  o->attr.size, error))
		return FALSE;
	isd_log(5, p->c->server, op->r.recno,
		"conflict: %s was removed here and changed on the server: it comes back", text);
	isd_want_soon(p->c->want);
	return TRUE;
}

static gboolean queue_close(IsdPull *p, IsdOp *op, const IsdObject *o, const IsdName *n,
			    const IsdContent *t, guint tries, GError **error)
{
	struct izo_guard guard = isd_guard_object(o, IZO_G_CTIME | IZO_G_NOWRITER);
	struct kml_record r = {
		.opcode = KML_CLOSE, .obj = o->oid, .attr = op->r.attr, .has_attr = true,
		.flags = t->ranges ? 0 : KML_F_RANGES_ALL,
	};
	g_auto(IsdPlace) at = { 0 };
	g_autofree struct kml_range *ranges = NULL;
	g_autoptr(GBytes) aliases = NULL;
	gboolean found;

	if (!isd_place_by_id(p->c, n->parent, &at, &found, error) || !found)
		return !error || !*error;
	if (!isd_state_aliases(p->c->state, o, n->parent, n->name, &aliases, error))
		return FALSE;
	if (aliases)
		r.aliases = g_bytes_get_data(aliases, &r.aliases_len);
	isd_place_source(&r, &at, n->name);
	r.attr.size = t->size;
	r.attr.valid |= KML_A_SIZE | KML_A_MTIME;
	set_content(&r, t);
	if (t->ranges) {
		ranges = g_new0(struct kml_range, t->ranges->len + 1);
		for (guint i = 0; i < t->ranges->len; i++) {
			const struct kml_range *x = &g_array_index(t->ranges, struct kml_range, i);

			ranges[i] = (struct kml_range) { GUINT64_TO_LE(x->off),
							 GUINT64_TO_LE(x->len) };
		}
		r.ranges = ranges;
		r.n_ranges = t->ranges->len;
		r.has_ranges = true;
	}
	return queue(p, &r, &guard, NULL, t->ranges ? IZO_RE_PATCH : 0, closed,
		     item_new(p, op, tries, o->id), error);
}

/* Not made yet: what is made will be this version. */
static gboolean close_wanted(IsdPull *p, const IsdOp *op, IsdObject *o, GError **error)
{
	o->soid = op->r.obj;
	take_attrs(o, &op->r.attr, op->r.attr.valid | KML_A_SIZE | KML_A_MTIME);
	return isd_state_put_object(p->c->state, o, error) &&
	       isd_want_version(p->c, o->id, op->content_recno, &op->r.attr, error);
}

static gboolean apply_close(IsdPull *p, IsdOp *op, guint tries, GError **error)
{
	const IsdContent *t = g_hash_table_lookup(p->contents, op);
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 };
	gboolean found, named;

	if (!find_object(p, &op->r, &o, &found, error))
		return FALSE;
	if (!found || o.cver >= op->content_recno)
		return TRUE;
	if (!op->r.has_attr)
		op->r.attr = o.attr;	/* RESYNC */
	if (!o.oid.ino)
		return close_wanted(p, op, &o, error);
	if (!find_name(p, &o, op->r.parent, op->r.name, &n, &named, error))
		return FALSE;
	if (!named)
		return revive_file(p, op, &o, op->r.parent, op->r.name, error);
	if (pending_content(p, &o))
		return both_changed(p, op, &o, &n, error);
	if (!t || t->status)
		return put_off(p, op, &o, tries, error);
	return queue_close(p, op, &o, &n, t, tries, error);
}

/* --- attributes --- */

/* What a record sets of the attributes; one about an ACL, the mode. */
static guint32 attr_bits(const IsdObject *o, const IsdOp *op)
{
	const struct kml_record *r = &op->r;
	guint32 bits = r->attr.valid & ~KML_A_SIZE;

	if (!r->has_attr)
		return 0;
	if (r->opcode == KML_SETXATTR || r->opcode == KML_REMOVEXATTR)
		return KML_A_MODE;
	if (S_ISREG(o->attr.mode) && op->content)
		bits &= ~KML_A_MTIME;	/* that of content which is still to come */
	return bits;
}

static gboolean take_bits(IsdClient *c, IsdObject *o, const IsdOp *op, GError **error)
{
	guint32 bits = attr_bits(o, op);

	take_attrs(o, &op->r.attr, bits);
	return !(bits & KML_A_MTIME) || isd_want_mtime(c, o->id, op->r.attr.mtime, error);
}

static gboolean attr_done(IsdClient *c, gpointer item, const struct izo_reint_result *res,
			  GError **error)
{
	Item *it = item;
	g_auto(IsdObject) o = { 0 };
	const struct kml_record *r = &it->op->r;
	struct kml_str name, value;
	size_t pos = 0;
	gboolean found;

	if (res->error)
		return again(it, res, error);
	if (!isd_state_by_id(c->state, it->id, &o, &found, error))
		return FALSE;
	if (!found)
		return TRUE;
	o.attr.ctime = isd_result_ctime(res);
	o.aver = r->recno;
	if (!take_bits(c, &o, it->op, error) || !isd_state_put_object(c->state, &o, error))
		return FALSE;
	if (r->opcode != KML_SETXATTR && r->opcode != KML_REMOVEXATTR)
		return TRUE;
	while (r->xattrs && kml_xattr_next(r->xattrs, r->xattrs_len, &pos, &name, &value))
		if (!isd_state_set_xattr(c->state, o.id, name.ptr, name.len, value.ptr,
					 r->opcode == KML_SETXATTR ? (gssize)value.len : -1, error))
			return FALSE;
	return TRUE;
}

/* What own records that the server has not seen will set anyhow stays. */
static gboolean less_pending(IsdPull *p, IsdOp *op, const IsdObject *o, gboolean *ret_left,
			     GError **error)
{
	g_autoptr(GHashTable) xattrs = NULL;
	struct kml_record *r = &op->r;
	struct kml_str name, value;
	size_t pos = 0;
	guint32 valid = 0;

	*ret_left = TRUE;
	if (pending_content(p, o) && S_ISREG(o->attr.mode))
		r->attr.valid &= ~KML_A_MTIME;
	if (isd_push_is_pending(p->c, o->oid, o->laver) &&
	    !isd_push_pending_attrs(p->c, o->oid, &valid, &xattrs, error))
		return FALSE;
	if (r->opcode == KML_SETATTR) {
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

	if (!take_bits(p->c, o, op, error))
		return FALSE;
	o->aver = r->recno;
	while (r->xattrs && kml_xattr_next(r->xattrs, r->xattrs_len, &pos, &name, &value))
		if (!isd_state_set_xattr(p->c->state, o->id, name.ptr, name.len, value.ptr,
					 r->opcode == KML_SETXATTR ? (gssize)value.len : -1, error))
			return FALSE;
	return isd_state_put_object(p->c->state, o, error);
}

static gboolean apply_attr(IsdPull *p, IsdOp *op, guint tries, GError **error)
{
	struct kml_record *r = &op->r;
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 };
	g_auto(IsdPlace) at = { 0 };
	struct izo_guard guard;
	struct kml_record x = { .opcode = r->opcode, .has_attr = r->has_attr };
	gboolean found, left;

	if (!find_object(p, r, &o, &found, error))
		return FALSE;
	if (!found || o.aver >= r->recno)
		return TRUE;
	if (!o.oid.ino)
		return attr_wanted(p, op, &o, error);
	if (!less_pending(p, op, &o, &left, error))
		return FALSE;
	found = left;
	if (found && o.id != ISD_ROOT_ID)
		if (!find_name(p, &o, r->parent, r->name, &n, &found, error) ||
		    (found && !isd_place_by_id(p->c, n.parent, &at, &found, error)))
			return FALSE;
	if (!found)
		return TRUE;
	if (r->opcode == KML_SETATTR)
		return queue_attrs(p, op, &o, &at, n.name, r->attr.valid & ~KML_A_SIZE, tries,
				   error);
	x.attr = r->attr;
	x.obj = o.oid;
	x.xattrs = r->xattrs;
	x.xattrs_len = r->xattrs_len;
	if (n.name)
		isd_place_source(&x, &at, n.name);
	else
		x.dir = (struct kml_str) { "/", 1 };
	guard = isd_guard_object(&o, 0);
	return queue(p, &x, &guard, NULL, 0, attr_done, item_new(p, op, tries, o.id), error);
}

/* --- UNLINK, RMDIR --- */

static gboolean lost_name(IsdClient *c, gint64 id, gint64 parent, const char *name, GError **error)
{
	g_auto(IsdName) n = { 0 };
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	if (!isd_state_drop_name(c->state, parent, name, error) ||
	    !isd_state_a_name(c->state, id, &n, &found, error))
		return FALSE;
	if (!found)
		return isd_want_drop(c, id, error) && isd_state_drop_object(c->state, id, error);
	if (!isd_state_by_id(c->state, id, &o, &found, error) || !found || o.attr.nlink < 2)
		return !error || !*error;
	o.attr.nlink--;
	return isd_state_put_object(c->state, &o, error);
}

/* A name less of a file that stays: its change time moved, nobody says to what. */
static gboolean reread_ctime(IsdClient *c, gint64 id, GError **error)
{
	g_auto(IsdName) n = { 0 };
	g_auto(IsdObject) o = { 0 };
	struct stat st;
	struct kml_oid oid;
	gboolean found;

	if (!isd_state_a_name(c->state, id, &n, &found, error) || !found ||
	    isd_local_stat(c, n.parent, n.name, &st, &oid) ||
	    !isd_state_by_id(c->state, id, &o, &found, error) || !found)
		return !error || !*error;
	if (!isd_oid_equal(o.oid, oid))
		return TRUE;
	o.attr.ctime = (struct kml_time) { st.st_ctim.tv_sec, st.st_ctim.tv_nsec };
	return isd_state_put_object(c->state, &o, error);
}

static gboolean removed(IsdClient *c, gpointer item, const struct izo_reint_result *res,
			GError **error)
{
	Item *it = item;
	int err = GUINT32_FROM_LE(res->error);
	gboolean gone = !err || err == ENOENT;

	if (err == ESTALE && !res->ino)
		gone = TRUE;
	if (gone)
		return lost_name(c, it->id, it->parent, it->name, error) &&
		       reread_ctime(c, it->id, error) && set_ptime(it->p, it, error);
	if (err == ENOTEMPTY || err == EEXIST || (err == ESTALE && it->tries))
		return isd_client_follow(c, TRUE, error) &&
		       isd_conflict_survive(c, it->id, error);
	return again(it, res, error);
}

static gboolean queue_remove(IsdPull *p, IsdOp *op, const IsdObject *o, const IsdName *n,
			     guint tries, GError **error)
{
	gboolean dir = S_ISDIR(o->attr.mode);
	struct izo_guard guard = isd_guard_object(o, S_ISREG(o->attr.mode) && o->attr.nlink < 2 ?
						     IZO_G_CTIME | IZO_G_NOWRITER : 0);
	struct kml_record r = { .opcode = dir ? KML_RMDIR : KML_UNLINK, .obj = o->oid };
	g_auto(IsdPlace) at = { 0 };
	gboolean found;
	Item *it;

	if (!isd_place_by_id(p->c, n->parent, &at, &found, error) || !found)
		return !error || !*error;
	isd_place_source(&r, &at, n->name);
	if (op->r.opcode == r.opcode)
		take_ptime(&r, &op->r);
	it = item_new(p, op, tries, o->id);
	it->parent = n->parent;
	it->name = g_strdup(n->name);
	return queue(p, &r, &guard, NULL, 0, removed, it, error);
}

/* The server has removed a name (or replaced what it stood for). */
static gboolean remove_object(IsdPull *p, IsdOp *op, IsdObject *o, struct kml_oid dir,
			      struct kml_str name, guint tries, GError **error)
{
	g_auto(IsdName) n = { 0 };
	gboolean named;

	if (!find_name(p, o, dir, name, &n, &named, error))
		return FALSE;
	if (!named && o->oid.ino)
		/* gone on both sides */
		return isd_push_cover(p->c, o->oid, p->c->core->log_recno, 0, error) &&
		       isd_state_drop_object(p->c->state, o->id, error);
	if (named && n.ver >= op->r.recno)
		return TRUE;
	if (named && S_ISREG(o->attr.mode) && o->attr.nlink < 2 && pending_content(p, o))
		return isd_conflict_survive(p->c, o->id, error);
	return !named || queue_remove(p, op, o, &n, tries, error);
}

static gboolean remove_wanted(IsdPull *p, const IsdObject *o, struct kml_oid dir,
			      struct kml_str name, GError **error)
{
	g_autofree char *text = isd_str(name);
	g_auto(IsdObject) d = { 0 };
	g_auto(IsdName) n = { 0 };
	gboolean found;

	if (!find_soid(p, dir, &d, &found, error) ||
	    (found && !isd_want_drop_name(p->c, o->id, d.id, text, error)) ||
	    !isd_want_name_of(p->c, o->id, &n, &found, error))
		return FALSE;
	return found || isd_state_drop_object(p->c->state, o->id, error);
}

static gboolean apply_remove(IsdPull *p, IsdOp *op, guint tries, GError **error)
{
	const struct kml_record *r = &op->r;
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	if (!find_soid(p, r->obj, &o, &found, error))
		return FALSE;
	if (!found)
		return TRUE;
	if (!o.oid.ino && !S_ISDIR(o.attr.mode))
		return remove_wanted(p, &o, r->parent, r->name, error);
	return remove_object(p, op, &o, r->parent, r->name, tries, error);
}

/* --- LINK --- */

static gboolean linked(IsdClient *c, gpointer item, const struct izo_reint_result *res,
		       GError **error)
{
	Item *it = item;
	IsdName n = { .parent = it->tparent, .name = it->tname, .id = it->id,
		      .ver = it->op->r.recno };
	g_auto(IsdObject) o = { 0 };
	struct stat st;
	struct kml_oid oid;
	gboolean found;

	if (!isd_state_by_id(c->state, it->id, &o, &found, error) || !found)
		return !error || !*error;
	if (res->error && (isd_local_stat(c, it->tparent, it->tname, &st, &oid) ||
			   !isd_oid_equal(oid, o.oid)))
		return again(it, res, error);
	o.attr.nlink++;
	if (!isd_state_put_object(c->state, &o, error) || !isd_state_put_name(c->state, &n, error))
		return FALSE;
	return reread_ctime(c, it->id, error) && set_ptime(it->p, it, error);
}

static gboolean queue_link(IsdPull *p, IsdOp *op, const IsdObject *o, const IsdName *from,
			   const IsdPlace *to, const char *tname, guint tries, GError **error)
{
	struct izo_guard guard = isd_guard_object(o, 0), absent = isd_guard_absent();
	struct kml_record r = { .opcode = KML_LINK, .obj = o->oid };
	g_auto(IsdPlace) at = { 0 };
	gboolean found;
	Item *it;

	if (!isd_place_by_id(p->c, from->parent, &at, &found, error) || !found)
		return !error || !*error;
	isd_place_source(&r, &at, from->name);
	isd_place_target(&r, to, tname);
	take_ptime(&r, &op->r);
	r.ptime = at.mtime;	/* a directory that the LINK does not change */
	it = item_new(p, op, tries, o->id);
	it->tparent = to->id;
	it->tname = g_strdup(tname);
	return queue(p, &r, &guard, &absent, 0, linked, it, error);
}

static gboolean apply_link(IsdPull *p, IsdOp *op, guint tries, GError **error)
{
	const struct kml_record *r = &op->r;
	g_autofree char *tname = isd_str(r->tname);
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 }, from = { 0 };
	g_auto(IsdPlace) to = { 0 };
	gboolean found, named, bound;

	if (!find_soid(p, r->obj, &o, &found, error))
		return FALSE;
	if (found && !find_place(p, r->tparent, &to, &found, error))
		return FALSE;
	if (!found)
		return TRUE;
	if (!o.oid.ino)
		return isd_want_drop_name(p->c, o.id, to.id, tname, error) &&
		       isd_want_add(p->c, o.id, to.id, tname, o.cver, o.attr.size, error);
	if (!isd_state_lookup(p->c->state, to.id, tname, &n, &named, error))
		return FALSE;
	if (named && n.id == o.id)
		return TRUE;
	if (!clear_name(p, op, &to, tname, tries, &bound, error) ||
	    !find_name(p, &o, r->parent, r->name, &from, &named, error))
		return FALSE;
	if (!named)
		return revive_file(p, op, &o, r->tparent, r->tname, error);
	return queue_link(p, op, &o, &from, &to, tname, tries, error);
}

/* --- RENAME --- */

static gboolean put_renamed(Item *it, GError **error)
{
	IsdClient *c = it->p->c;
	const struct kml_record *r = &it->op->r;
	IsdName to = { .parent = it->tparent, .name = it->tname, .id = it->id, .ver = r->recno };
	IsdName back = { .parent = it->parent, .name = it->name, .id = it->other, .ver = r->recno };

	if (!isd_state_drop_name(c->state, it->parent, it->name, error))
		return FALSE;
	if (it->other && !(r->flags & KML_F_EXCHANGE) &&
	    (!lost_name(c, it->other, it->tparent, it->tname, error) ||
	     !reread_ctime(c, it->other, error)))
		return FALSE;
	if (!isd_state_put_name(c->state, &to, error))
		return FALSE;
	if ((r->flags & KML_F_EXCHANGE) && it->other &&
	    (!isd_state_put_name(c->state, &back, error) || !reread_ctime(c, it->other, error)))
		return FALSE;
	return reread_ctime(c, it->id, error) && set_ptime(it->p, it, error);
}

/* The old name is gone and the new one is the object: done before a crash. */
static gboolean is_renamed(Item *it, gboolean *ret, GError **error)
{
	IsdClient *c = it->p->c;
	g_auto(IsdObject) o = { 0 };
	struct stat st;
	struct kml_oid oid;
	gboolean found;

	*ret = FALSE;
	if (!isd_state_by_id(c->state, it->id, &o, &found, error) || !found)
		return !error || !*error;
	*ret = isd_local_stat(c, it->tparent, it->tname, &st, &oid) == 0 &&
		isd_oid_equal(oid, o.oid) &&
		(isd_local_stat(c, it->parent, it->name, &st, &oid) == -ENOENT ||
		 (it->op->r.flags & KML_F_EXCHANGE));
	return TRUE;
}

static gboolean renamed(IsdClient *c, gpointer item, const struct izo_reint_result *res,
			GError **error)
{
	Item *it = item;
	gboolean done = !res->error;

	if (!done && (isd_result_is_fatal(res, error) || !is_renamed(it, &done, error)))
		return FALSE;
	if (done)
		return put_renamed(it, error);
	return (!it->other || refresh(it->p, it->other, error)) && again(it, res, error);
}

/*
 * What is at the new name: *ret_other if it is what the server has replaced (or
 * exchanged) there and may be; anything else is moved aside.
 */
static gboolean clear_target(IsdPull *p, IsdOp *op, const IsdPlace *to, const char *tname,
			     gint64 id, IsdObject *ret_other, GError **error)
{
	g_auto(IsdName) n = { 0 };
	gboolean found;

	if (!isd_state_lookup(p->c->state, to->id, tname, &n, &found, error))
		return FALSE;
	if (!found || n.id == id)
		return TRUE;
	if (!isd_state_by_id(p->c->state, n.id, ret_other, &found, error))
		return FALSE;
	if (found && op->r.has_old && isd_oid_equal(ret_other->soid, op->r.old) &&
	    ((op->r.flags & KML_F_EXCHANGE) || !pending_content(p, ret_other)))
		return TRUE;
	isd_object_clear(ret_other);
	memset(ret_other, 0, sizeof(*ret_other));
	return isd_conflict_keep(p->c, n.id, to->id, tname, NULL, error);
}

static gboolean queue_rename(IsdPull *p, IsdOp *op, const IsdObject *o, const IsdName *from,
			     const IsdPlace *to, const char *tname, const IsdObject *other,
			     guint tries, GError **error)
{
	gboolean swap = op->r.flags & KML_F_EXCHANGE;
	struct izo_guard guard = isd_guard_object(o, 0), tguard = isd_guard_absent();
	struct kml_record r = { .opcode = KML_RENAME, .obj = o->oid,
				.flags = swap ? KML_F_EXCHANGE : 0 };
	g_auto(IsdPlace) at = { 0 };
	gboolean found, dir = S_ISDIR(o->attr.mode) || S_ISDIR(other->attr.mode);
	Item *it;

	if (!isd_place_by_id(p->c, from->parent, &at, &found, error) || !found)
		return !error || !*error;
	if (other->id)
		tguard = isd_guard_object(other, swap || !S_ISREG(other->attr.mode) ? 0 :
					  IZO_G_CTIME | IZO_G_NOWRITER);
	isd_place_source(&r, &at, from->name);
	isd_place_target(&r, to, tname);
	take_ptime(&r, &op->r);
	it = item_new(p, op, tries, o->id);
	it->other = other->id;
	it->parent = from->parent;
	it->name = g_strdup(from->name);
	it->tparent = to->id;
	it->tname = g_strdup(tname);
	if (!queue(p, &r, &guard, &tguard, 0, renamed, it, error))
		return FALSE;
	/* paths below it are others from now on */
	return !dir || isd_pull_flush(p, error);
}

static gboolean rename_wanted(IsdPull *p, IsdOp *op, const IsdObject *o, const IsdPlace *to,
			      const char *tname, guint tries, GError **error)
{
	const struct kml_record *r = &op->r;
	g_autofree char *name = isd_str(r->name);
	g_auto(IsdObject) from = { 0 }, other = { 0 };
	gboolean found;

	if (!find_soid(p, r->parent, &from, &found, error))
		return FALSE;
	if (found && !isd_want_move(p->c, o->id, from.id, name, to->id, tname, error))
		return FALSE;
	if (!clear_target(p, op, to, tname, o->id, &other, error))
		return FALSE;
	return !other.id || remove_object(p, op, &other, r->tparent, r->tname, tries, error);
}

/* The object that this one has replaced is somewhere else here: it goes, too. */
static gboolean remove_replaced(IsdPull *p, IsdOp *op, guint tries, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	if (!op->r.has_old || (op->r.flags & KML_F_EXCHANGE))
		return TRUE;
	if (!find_soid(p, op->r.old, &o, &found, error))
		return FALSE;
	if (!found || o.attr.nlink > 1)
		return TRUE;
	if (!o.oid.ino)
		return remove_wanted(p, &o, op->r.tparent, op->r.tname, error);
	return remove_object(p, op, &o, op->r.tparent, op->r.tname, tries, error);
}

static gboolean apply_rename(IsdPull *p, IsdOp *op, guint tries, GError **error)
{
	const struct kml_record *r = &op->r;
	g_autofree char *tname = isd_str(r->tname);
	g_auto(IsdObject) o = { 0 }, other = { 0 };
	g_auto(IsdName) from = { 0 };
	g_auto(IsdPlace) to = { 0 };
	gboolean found, named;

	if (!find_soid(p, r->obj, &o, &found, error))
		return FALSE;
	if (!found)
		return remove_replaced(p, op, tries, error);
	if (!find_place(p, r->tparent, &to, &found, error))
		return FALSE;
	if (!found)
		return TRUE;
	if (!o.oid.ino)
		return rename_wanted(p, op, &o, &to, tname, tries, error);
	if (!find_name(p, &o, r->parent, r->name, &from, &named, error))
		return FALSE;
	if (!named)
		return revive_file(p, op, &o, r->tparent, r->tname, error);
	if (from.ver >= r->recno)
		return TRUE;
	/* renamed on both sides: the server's name counts */
	if (isd_push_is_pending(p->c, o.oid, from.lver) &&
	    !isd_push_void_renames(p->c, o.oid, 0, error))
		return FALSE;
	if (!clear_target(p, op, &to, tname, o.id, &other, error))
		return FALSE;
	if (from.parent == to.id && !strcmp(from.name, tname)) {
		from.ver = r->recno;
		return isd_state_put_name(p->c->state, &from, error) &&
		       remove_replaced(p, op, tries, error);
	}
	if (!other.id && !remove_replaced(p, op, tries, error))
		return FALSE;
	return queue_rename(p, op, &o, &from, &to, tname, &other, tries, error);
}

/* --- own records that come back --- */

static void note_mtime(IsdPull *p, struct kml_oid dir, struct kml_time t)
{
	if (dir.ino)
		g_hash_table_replace(p->mtimes, g_memdup2(&dir, sizeof(dir)),
				     g_memdup2(&t, sizeof(t)));
}

/* In the order of the log, whoever made them. */
static void note_mtimes(IsdPull *p)
{
	for (guint i = 0; i < p->recs->len; i++) {
		const struct kml_record *r = &g_array_index(p->recs, struct kml_record, i);

		if (r->has_ptime && r->opcode != KML_LINK)
			note_mtime(p, r->parent, r->ptime);
		if (r->has_ptime && r->tparent.ino)
			note_mtime(p, r->tparent, r->tptime);
		if (r->opcode == KML_SETATTR && r->has_attr && S_ISDIR(r->attr.mode) &&
		    (!r->attr.valid || (r->attr.valid & KML_A_MTIME)))
			note_mtime(p, r->obj, r->attr.mtime);
	}
}

/* What the directory is like at this moment, and where. */
static gboolean stat_dir(IsdPull *p, const IsdObject *o, IsdName *ret_name, IsdPlace *ret_at,
			 struct stat *ret_st, gboolean *ret_found, GError **error)
{
	struct kml_oid oid;

	*ret_found = fstat(p->c->core->root_fd, ret_st) == 0;
	if (o->id == ISD_ROOT_ID)
		return TRUE;
	if (!isd_state_a_name(p->c->state, o->id, ret_name, ret_found, error) || !*ret_found)
		return !error || !*error;
	if (!isd_place_by_id(p->c, ret_name->parent, ret_at, ret_found, error) || !*ret_found)
		return !error || !*error;
	*ret_found = isd_local_stat(p->c, ret_name->parent, ret_name->name, ret_st, &oid) == 0 &&
		isd_oid_equal(oid, o->oid);
	return TRUE;
}

/* The same when a local program has just moved it, and the state does not know yet. */
static gboolean find_dir(IsdPull *p, const IsdObject *o, IsdName *ret_name, IsdPlace *ret_at,
			 struct stat *ret_st, gboolean *ret_found, GError **error)
{
	if (!stat_dir(p, o, ret_name, ret_at, ret_st, ret_found, error))
		return FALSE;
	if (*ret_found)
		return TRUE;
	isd_name_clear(ret_name);
	isd_place_clear(ret_at);
	return isd_client_follow(p->c, TRUE, error) &&
	       stat_dir(p, o, ret_name, ret_at, ret_st, ret_found, error);
}

/*
 * One try.  If it is changed while this looks at it, its change time is another one, nothing is
 * done, and *ret_done is FALSE.
 */
static gboolean try_mtime(IsdPull *p, struct kml_oid soid, struct kml_time t, gboolean *ret_done,
			  GError **error)
{
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 };
	g_auto(IsdPlace) at = { 0 };
	struct kml_record r = { .opcode = KML_SETATTR, .has_attr = true, .dir = { "/", 1 },
				.attr = { .valid = KML_A_MTIME, .mtime = t } };
	struct izo_reint_result res;
	struct izo_guard guard;
	struct stat st;
	gboolean found;

	*ret_done = TRUE;
	if (!find_soid(p, soid, &o, &found, error))
		return FALSE;
	if (found && !find_dir(p, &o, &n, &at, &st, &found, error))
		return FALSE;
	if (!found || (st.st_mtim.tv_sec == t.sec && st.st_mtim.tv_nsec == (long)t.nsec))
		return TRUE;
	if (!isd_client_follow(p->c, TRUE, error))
		return FALSE;
	if (n.name)
		isd_place_source(&r, &at, n.name);
	r.obj = o.oid;
	r.attr.mode = o.attr.mode;
	guard = isd_guard_object(&o, 0);
	guard.flags |= GUINT32_TO_LE(IZO_G_CTIME);
	guard.ctime_sec = GUINT64_TO_LE(st.st_ctim.tv_sec);
	guard.ctime_nsec = GUINT32_TO_LE(st.st_ctim.tv_nsec);
	if (!isd_reint_one(p->c, &r, &guard, NULL, 0, &res, error))
		return FALSE;
	*ret_done = !res.error;
	return res.error ? !isd_result_is_fatal(&res, error) :
		isd_obj_set_mtime(p->c->state, o.id, t, error);
}

/*
 * A local change in between may have been one of the mode alone, so it is tried again; if it
 * was one of the names, the record of that will come back, and set it as well.
 */
static gboolean set_mtime(IsdPull *p, struct kml_oid soid, struct kml_time t, GError **error)
{
	gboolean done = FALSE;

	for (guint i = 0; i < MTIME_TRIES && !done; i++)
		if (!try_mtime(p, soid, t, &done, error))
			return FALSE;
	return TRUE;
}

gboolean isd_pull_set_mtimes(IsdPull *p, GError **error)
{
	GHashTableIter it;
	gpointer soid, t;

	note_mtimes(p);
	g_hash_table_iter_init(&it, p->mtimes);
	while (g_hash_table_iter_next(&it, &soid, &t))
		if (!set_mtime(p, *(struct kml_oid *)soid, *(struct kml_time *)t, error))
			return FALSE;
	g_hash_table_remove_all(p->mtimes);
	return TRUE;
}

/* --- all --- */

static gboolean apply_op(IsdPull *p, IsdOp *op, guint tries, GError **error)
{
	switch (op->r.opcode) {
	case KML_CREATE:
	case KML_MKDIR:
	case KML_SYMLINK:
	case KML_MKNOD:
		return apply_make(p, op, tries, error);
	case KML_CLOSE:
	case KML_RESYNC:
		return apply_close(p, op, tries, error);
	case KML_SETATTR:
	case KML_SETXATTR:
	case KML_REMOVEXATTR:
		return apply_attr(p, op, tries, error);
	case KML_UNLINK:
	case KML_RMDIR:
		return apply_remove(p, op, tries, error);
	case KML_LINK:
		return apply_link(p, op, tries, error);
	case KML_RENAME:
		return apply_rename(p, op, tries, error);
	default:
		return TRUE;
	}
}

gboolean isd_pull_apply(IsdPull *p, IsdOp *op, GError **error)
{
	isd_debug(ISD_D_KML, "server's record %" G_GUINT64_FORMAT " %s%s", (guint64)op->r.recno,
		  kml_opcode_name(op->r.opcode) ? kml_opcode_name(op->r.opcode) : "?",
		  op->barrier ? " (own)" : "");
	if (is_touched(p, &op->r) && !isd_pull_flush(p, error))
		return FALSE;
	if (!isd_client_begin(p->c, error))
		return FALSE;
	if (op->barrier)
		return isd_push_settle(p->c, &op->r, error);
	return apply_op(p, op, 0, error);
}

gboolean isd_pull_must_wait(IsdPull *p, const IsdOp *op)
{
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	return isd_want_is_busy(p->c->want) &&
	       find_object(p, &op->r, &o, &found, NULL) && found &&
	       isd_want_is_active(p->c->want, o.id);
}

static guint soid_hash(gconstpointer p)
{
	return (guint)key_of(*(const struct kml_oid *)p);
}

static gboolean soid_equal(gconstpointer a, gconstpointer b)
{
	return isd_oid_equal(*(const struct kml_oid *)a, *(const struct kml_oid *)b);
}

void isd_pull_apply_init(IsdPull *p)
{
	p->batch = isd_batch_new(p->c);
	p->touched = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
	p->mtimes = g_hash_table_new_full(soid_hash, soid_equal, g_free, g_free);
	p->carry = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free,
					 (GDestroyNotify)g_array_unref);
}

void isd_pull_apply_clear(IsdPull *p)
{
	isd_batch_free(p->batch);
	g_hash_table_unref(p->touched);
	g_hash_table_unref(p->mtimes);
	g_hash_table_unref(p->carry);
}
