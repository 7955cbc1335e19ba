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
#include "apply_pull.h"

/* --- items --- */

IsdApply *isd_apply_item_new(IsdPull *p, IsdOp *op, guint tries, gint64 id)
{
	IsdApply *it = g_new0(IsdApply, 1);

	it->p = p;
	it->op = op;
	it->tries = tries;
	it->id = id;
	return it;
}

static void item_free(gpointer data)
{
	IsdApply *it = data;

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

gboolean isd_apply_queue(IsdPull *p, const struct kml_record *r, const struct izo_guard *guard,
			 const struct izo_guard *tguard, guint32 flags, IsdBatchResult result,
			 IsdApply *it, GError **error)
{
	touch(p, &it->op->r);
	return isd_batch_add(p->batch, r, guard, tguard, flags, result, it, item_free, error);
}

/* --- all --- */

gboolean isd_apply_op(IsdPull *p, IsdOp *op, guint tries, GError **error)
{
	switch (op->r.opcode) {
	case KML_CREATE:
	case KML_MKDIR:
	case KML_SYMLINK:
	case KML_MKNOD:
		return isd_apply_make(p, op, tries, error);
	case KML_CLOSE:
	case KML_RESYNC:
		return isd_apply_close(p, op, tries, error);
	case KML_SETATTR:
	case KML_SETXATTR:
	case KML_REMOVEXATTR:
		return isd_apply_attr(p, op, tries, error);
	case KML_UNLINK:
	case KML_RMDIR:
		return isd_apply_remove(p, op, tries, error);
	case KML_LINK:
		return isd_apply_link(p, op, tries, error);
	case KML_RENAME:
		return isd_apply_rename(p, op, tries, error);
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
		return isd_push_settle(p->c, &op->r, error) && isd_apply_echo(p, op, error);
	return isd_apply_op(p, op, 0, error);
}

gboolean isd_pull_must_wait(IsdPull *p, const IsdOp *op)
{
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	return isd_want_is_busy(p->c->want) &&
	       isd_apply_find_object(p, &op->r, &o, &found, NULL) && found &&
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
