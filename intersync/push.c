// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Sending the own log: it is read in segments, what is superseded is dropped,
 * and the rest is posted in order, with small content inline and large content
 * uploaded before.  A record is settled when the server's answer, or the server's
 * log, says what it became there; the position moves over whole segments.
 *
 * A segment's bounds are in the state before anything of it is sent, so that after a crash
 * or a lost answer the same records stand for the same changes.  The server is asked first what
 * became of them, and until it has answered neither push nor pull decide anything.
 */
#include "push.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util.h"

#define SEGMENT_BYTES	(512 * 1024)
#define SEGMENTS_MAX	4
#define BATCH_RECORDS	2000
#define RETRY_MIN_MS	200
#define RETRY_MAX_MS	(15 * 1000)
#define TRIES_QUIET	6	/* then it counts as blocking */
#define PUNCH_BYTES	(16ULL << 20)

struct answer {
	guint64	recno, server_recno, ino;
	guint32	gen, status;
};

static void push_go(IsdPush *p);

char *isd_push_key(struct kml_oid oid)
{
	return g_strdup_printf("%" G_GUINT64_FORMAT ".%u", (guint64)oid.ino, oid.gen);
}

static gboolean makes(unsigned int opcode)
{
	return opcode == KML_CREATE || opcode == KML_MKDIR || opcode == KML_SYMLINK ||
		opcode == KML_MKNOD;
}

gboolean isd_push_find(IsdClient *c, struct kml_oid oid, IsdObject *ret, gboolean *ret_found,
		       GError **error)
{
	sqlite3_stmt *st;
	gint64 id;
	int rc;

	if (!isd_state_by_oid(c->state, oid, ret, ret_found, error) || *ret_found)
		return !error || !*error;
	rc = isd_sql_row(c->state, error, &st, "SELECT id FROM client_alias WHERE ino = ? AND"
			 " gen = ?", "iu", (gint64)oid.ino, oid.gen);
	if (rc <= 0)
		return rc == 0;
	id = sqlite3_column_int64(st, 0);
	sqlite3_reset(st);
	return isd_state_by_id(c->state, id, ret, ret_found, error);
}

gboolean isd_push_alias(IsdClient *c, struct kml_oid was, gint64 id, GError **error)
{
	if (!was.ino || c->push_recno >= c->core->log_recno)
		return TRUE;
	return isd_sql_run(c->state, error, "INSERT OR REPLACE INTO client_alias VALUES(?, ?, ?)",
			   "iui", (gint64)was.ino, was.gen, id);
}

/* --- what is covered, what is pending --- */

gboolean isd_push_cover(IsdClient *c, struct kml_oid oid, guint64 upto, guint64 carrier,
			GError **error)
{
	return isd_sql_run(c->state, error,
			   "INSERT OR REPLACE INTO client_cover VALUES(?, ?, ?, ?)", "iuii",
			   (gint64)oid.ino, oid.gen, (gint64)upto, (gint64)carrier);
}

static gboolean push_is_covered(IsdClient *c, struct kml_oid oid, guint64 recno)
{
	sqlite3_stmt *st;
	gboolean covered;

	if (isd_sql_row(c->state, NULL, &st, "SELECT upto, carrier FROM client_cover"
			" WHERE ino = ? AND gen = ?", "iu", (gint64)oid.ino, oid.gen) <= 0)
		return FALSE;
	covered = recno <= (guint64)sqlite3_column_int64(st, 0) &&
		recno != (guint64)sqlite3_column_int64(st, 1);
	sqlite3_reset(st);
	return covered;
}

gboolean isd_push_void_renames(IsdClient *c, struct kml_oid oid, guint64 carrier, GError **error)
{
	return isd_sql_run(c->state, error, "INSERT OR REPLACE INTO client_void VALUES(?, ?, ?, ?)",
			   "iuii", (gint64)oid.ino, oid.gen, (gint64)c->core->log_recno,
			   (gint64)carrier);
}

gboolean isd_push_is_void(IsdClient *c, struct kml_oid oid, guint64 recno, gboolean *ret_moved)
{
	sqlite3_stmt *st;
	gboolean is;

	*ret_moved = isd_sql_row(c->state, NULL, &st, "SELECT upto, carrier FROM client_void"
				 " WHERE ino = ? AND gen = ?", "iu", (gint64)oid.ino, oid.gen) > 0;
	if (!*ret_moved)
		return FALSE;
	is = recno <= (guint64)sqlite3_column_int64(st, 0) &&
		recno != (guint64)sqlite3_column_int64(st, 1);
	sqlite3_reset(st);
	return is;
}

static gboolean push_is_settled(IsdClient *c, guint64 recno)
{
	gint64 key = recno;

	return recno <= c->push_recno ||
		(c->push && g_hash_table_contains(c->push->settled, &key));
}

gboolean isd_push_is_pending(IsdClient *c, struct kml_oid oid, guint64 own_recno)
{
	return own_recno && !push_is_settled(c, own_recno) && !push_is_covered(c, oid, own_recno);
}

gboolean isd_push_gone(IsdClient *c, struct kml_oid oid, struct kml_oid *ret, GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(c->state, error, &st, "SELECT sino, sgen FROM client_gone WHERE"
			     " ino = ? AND gen = ?", "iu", (gint64)oid.ino, oid.gen);

	*ret = (struct kml_oid) { 0 };
	if (rc > 0) {
		ret->ino = sqlite3_column_int64(st, 0);
		ret->gen = sqlite3_column_int64(st, 1);
		sqlite3_reset(st);
	}
	return rc >= 0;
}

/* It was removed here before the server said what it is called there. */
static gboolean push_remember_gone(IsdClient *c, struct kml_oid oid, struct kml_oid soid,
				   GError **error)
{
	return !soid.ino || isd_sql_run(c->state, error,
					"INSERT OR REPLACE INTO client_gone VALUES(?, ?, ?, ?)",
					"iuiu", (gint64)oid.ino, oid.gen, (gint64)soid.ino,
					soid.gen);
}

/* Calls each with the records of the own log that the server has not taken in yet. */
typedef gboolean (*PendingFunc)(IsdClient *c, const struct kml_record *r, gpointer data);

static gboolean push_each_pending(IsdClient *c, PendingFunc each, gpointer data, GError **error)
{
	guint64 at = MAX(c->push_offset, (guint64)KML_HEADER_SIZE);

	while (at < c->core->applied) {
		struct kml_record r;
		uint64_t next;
		int rc = klog_read(c->core->log, at, &r, &next);

		if (rc < 0) {
			g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED, "the own log: %s",
				    g_strerror(-rc));
			return FALSE;
		}
		if (rc == 0)
			break;
		if (!push_is_settled(c, r.recno) && !each(c, &r, data))
			break;
		at = next;
	}
	return TRUE;
}

typedef struct {
	struct kml_oid	oid;
	guint32		valid;
	GHashTable	*xattrs;
	IsdName		name;
	gboolean	found;
	guint64		recno;
} Pending;

static gboolean pending_attr(IsdClient *c, const struct kml_record *r, gpointer data)
{
	Pending *w = data;
	struct kml_str name, value;
	size_t pos = 0;

	if (!isd_oid_equal(r->obj, w->oid) || push_is_covered(c, r->obj, r->recno))
		return TRUE;
	if (r->opcode == KML_SETATTR && r->has_attr)
		w->valid |= r->attr.valid ? r->attr.valid : ~0U;
	if (makes(r->opcode))
		w->valid = ~0U;
	if (r->opcode == KML_SETXATTR || r->opcode == KML_REMOVEXATTR)
		while (kml_xattr_next(r->xattrs, r->xattrs_len, &pos, &name, &value))
			g_hash_table_add(w->xattrs, isd_str(name));
	return TRUE;
}

gboolean isd_push_pending_attrs(IsdClient *c, struct kml_oid oid, guint32 *ret_valid,
				GHashTable **ret_xattrs, GError **error)
{
	Pending w = { .oid = oid };

	w.xattrs = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	*ret_xattrs = w.xattrs;
	if (!push_each_pending(c, pending_attr, &w, error))
		return FALSE;
	*ret_valid = w.valid;
	return TRUE;
}

static gboolean pending_removal(IsdClient *c, const struct kml_record *r, gpointer data)
{
	Pending *w = data;
	gboolean removes = r->opcode == KML_UNLINK || r->opcode == KML_RMDIR;
	g_auto(IsdObject) dir = { 0 };
	gboolean found;

	if (!removes || !isd_oid_equal(r->obj, w->oid))
		return TRUE;
	if (!isd_push_find(c, r->parent, &dir, &found, NULL) || !found)
		return FALSE;
	w->name.parent = dir.id;
	w->name.name = isd_str(r->name);
	w->found = TRUE;
	return FALSE;
}

gboolean isd_push_find_removal(IsdClient *c, struct kml_oid oid, IsdName *ret, gboolean *ret_found,
			       GError **error)
{
	Pending w = { .oid = oid };

	if (!push_each_pending(c, pending_removal, &w, error))
		return FALSE;
	*ret = w.name;
	*ret_found = w.found;
	return TRUE;
}

static gboolean pending_rename(IsdClient *c, const struct kml_record *r, gpointer data)
{
	Pending *w = data;

	if (r->opcode == KML_RENAME && isd_oid_equal(r->obj, w->oid))
		w->recno = r->recno;
	return TRUE;
}

gboolean isd_push_last_rename(IsdClient *c, struct kml_oid oid, guint64 *ret_recno, GError **error)
{
	Pending w = { .oid = oid };
	gboolean ok = push_each_pending(c, pending_rename, &w, error);

	*ret_recno = w.recno;
	return ok;
}

/* --- segments --- */

static void push_op_clear(gpointer data)
{
	PushOp *po = data;

	g_free(po->file);
	g_clear_pointer(&po->spans, g_array_unref);
}

static void segment_free(PushSegment *s)
{
	g_clear_pointer(&s->push, g_array_unref);
	g_clear_pointer(&s->ops, isd_ops_free);
	g_clear_pointer(&s->recs, g_array_unref);
	g_clear_pointer(&s->buf, g_byte_array_unref);
	g_free(s);
}

static gboolean segment_read(IsdPush *p, PushSegment *s, guint64 end, GError **error)
{
	gsize len = end - s->start;
	int err;

	s->buf = g_byte_array_sized_new(len);
	g_byte_array_set_size(s->buf, len);
	err = pread_all(p->log_fd, s->buf->data, len, s->start);
	if (!err)
		return TRUE;
	g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED, "reading the own log: %s", g_strerror(-err));
	return FALSE;
}

/* Whole records only; where the last one ends is the segment's end. */
static gboolean segment_decode(PushSegment *s, GError **error)
{
	gsize pos = 0;

	s->recs = g_array_new(FALSE, FALSE, sizeof(struct kml_record));
	while (pos < s->buf->len) {
		struct kml_record r;
		ssize_t len = kml_decode(s->buf->data + pos, s->buf->len - pos, &r);

		if (len == -EAGAIN)
			break;
		if (len < 0) {
			g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED,
				    "the own log is damaged at offset %" G_GUINT64_FORMAT
				    ": see kmlprint --verify", s->start + pos);
			return FALSE;
		}
		g_array_append_val(s->recs, r);
		pos += len;
	}
	s->end = s->start + pos;
	if (s->recs->len) {
		s->first_recno = g_array_index(s->recs, struct kml_record, 0).recno;
		s->last_recno = g_array_index(s->recs, struct kml_record, s->recs->len - 1).recno;
	}
	return TRUE;
}

/* Was it sent without its content before a restart? */
static gboolean segment_was_bare(IsdPush *p, guint64 recno)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(p->c->state, NULL, &st, "SELECT 1 FROM client_bare WHERE recno = ?",
			     "i", (gint64)recno);

	if (rc > 0)
		sqlite3_reset(st);
	return rc > 0;
}

static gboolean segment_op_was_done(IsdPush *p, const IsdOp *op)
{
	gint64 recno = op->r.recno;

	return op->dropped || g_hash_table_contains(p->settled, &recno);
}

static void segment_set_up(IsdPush *p, PushSegment *s)
{
	s->ops = isd_coalesce((struct kml_record *)s->recs->data, s->recs->len, NULL, NULL);
	s->push = g_array_new(FALSE, TRUE, sizeof(PushOp));
	g_array_set_clear_func(s->push, push_op_clear);
	g_array_set_size(s->push, s->ops->ops->len);
	for (guint i = 0; i < s->push->len; i++) {
		PushOp *po = &g_array_index(s->push, PushOp, i);

		po->op = &g_array_index(s->ops->ops, IsdOp, i);
		if (segment_op_was_done(p, po->op)) {
			po->state = PUSH_DONE;
			continue;
		}
		po->state = s->again ? PUSH_UNKNOWN : PUSH_READY;
		if (makes(po->op->r.opcode)) {
			g_hash_table_add(p->making, isd_push_key(po->op->r.obj));
			po->bare = segment_was_bare(p, po->op->r.recno);
		}
	}
}

/* Where the segment that begins at start ended when it was first sent; 0: it was not. */
static gboolean segment_bounds(IsdPush *p, guint64 start, guint64 *ret_end, GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(p->c->state, error, &st,
			     "SELECT end FROM client_segment WHERE start = ?", "i", (gint64)start);

	*ret_end = 0;
	if (rc > 0) {
		*ret_end = sqlite3_column_int64(st, 0);
		sqlite3_reset(st);
	}
	return rc >= 0;
}

static gboolean segment_fill(IsdPush *p, PushSegment *s, GError **error)
{
	guint64 end;

	if (!segment_bounds(p, s->start, &end, error))
		return FALSE;
	s->again = end != 0;
	if (!s->again)
		end = MIN(p->c->core->applied, s->start + SEGMENT_BYTES);
	if (!segment_read(p, s, end, error) || !segment_decode(s, error))
		return FALSE;
	if (!s->recs->len)
		return TRUE;
	segment_set_up(p, s);
	return s->again || isd_sql_run(p->c->state, error,
				    "INSERT INTO client_segment VALUES(?, ?, ?, ?)", "iiii",
				    (gint64)s->start, (gint64)s->end, (gint64)s->first_recno,
				    (gint64)s->last_recno);
}

/* *ret_loaded: there is one more. */
static gboolean segment_load(IsdPush *p, gboolean *ret_loaded, GError **error)
{
	PushSegment *last = g_queue_peek_tail(&p->segments);
	PushSegment *s;
	guint64 start = last ? last->end : MAX(p->c->push_offset, (guint64)KML_HEADER_SIZE);

	*ret_loaded = FALSE;
	if (p->segments.length == SEGMENTS_MAX || start >= p->c->core->applied)
		return TRUE;
	if (!isd_client_begin(p->c, error))
		return FALSE;
	s = g_new0(PushSegment, 1);
	s->start = start;
	if (!segment_fill(p, s, error) || !s->recs->len) {
		segment_free(s);
		return !error || !*error;
	}
	g_queue_push_tail(&p->segments, s);
	*ret_loaded = TRUE;
	return isd_client_commit(p->c, error);
}

static gboolean settled_reload(IsdPush *p, GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(p->c->state, error, &st, "SELECT recno FROM client_settled", "");

	for (; rc > 0; rc = isd_sql_next(p->c->state, st, error)) {
		gint64 recno = sqlite3_column_int64(st, 0);

		g_hash_table_add(p->settled, g_memdup2(&recno, sizeof(recno)));
	}
	return rc >= 0;
}

/* What was being sent when this ended last: the server's log may speak of it at once. */
static gboolean push_reload(IsdPush *p, GError **error)
{
	guint64 start = MAX(p->c->push_offset, (guint64)KML_HEADER_SIZE), end;
	gboolean loaded = TRUE;

	if (!settled_reload(p, error))
		return FALSE;
	while (loaded) {
		if (!segment_bounds(p, start, &end, error))
			return FALSE;
		if (!end)
			return TRUE;
		if (!segment_load(p, &loaded, error))
			return FALSE;
		p->asking |= loaded;
		start = end;
	}
	return TRUE;
}

/* --- settling --- */

static guint64 *version_of(IsdObject *o, const struct kml_record *r)
{
	switch (r->opcode) {
	case KML_CLOSE:
	case KML_RESYNC:
		return &o->cver;
	case KML_SETATTR:
	case KML_SETXATTR:
	case KML_REMOVEXATTR:
		return &o->aver;
	default:
		return NULL;
	}
}

static gboolean settle_names(IsdClient *c, const struct kml_record *r, gint64 id, guint64 recno,
			     GError **error)
{
	gboolean to = r->opcode == KML_RENAME || r->opcode == KML_LINK;
	struct kml_oid dir = to ? r->tparent : r->parent;
	struct kml_str name = to ? r->tname : r->name;
	g_auto(IsdObject) d = { 0 };
	gboolean found, moved;

	if ((!to && !makes(r->opcode)) || !name.ptr)
		return TRUE;
	isd_push_is_void(c, r->obj, r->recno, &moved);
	if (moved)
		return isd_sql_run(c->state, error, "UPDATE name SET ver = max(ver, ?)"
				   " WHERE id = ?", "ii", (gint64)recno, id);
	if (!isd_push_find(c, dir, &d, &found, error))
		return FALSE;
	return !found || isd_sql_run(c->state, error, "UPDATE name SET ver = max(ver, ?)"
				     " WHERE parent = ? AND name = ? AND id = ?", "iibi",
				     (gint64)recno, d.id, name.ptr, name.len, id);
}

/* Rows without a name were kept for their number on the server. */
static gboolean settle_removed(IsdClient *c, struct kml_oid oid, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 };
	gboolean found, named;

	if (!isd_push_find(c, oid, &o, &found, error) || !found)
		return !error || !*error;
	if (!o.oid.ino || o.id == ISD_ROOT_ID)
		return TRUE;
	if (!isd_state_a_name(c->state, o.id, &n, &named, error))
		return FALSE;
	/* it may have had more names, whose removal is still to be sent */
	return named || (push_remember_gone(c, o.oid, o.soid, error) &&
			 isd_state_drop_object(c->state, o.id, error));
}

/* Records of the server before this one, still to be pulled, use the old number. */
static gboolean settle_number(IsdClient *c, const IsdObject *o, struct kml_oid soid, guint64 recno,
			      GError **error)
{
	if (!o->soid.ino || isd_oid_equal(o->soid, soid) || recno <= c->pull_recno)
		return TRUE;
	return isd_sql_run(c->state, error, "INSERT OR REPLACE INTO client_was VALUES(?, ?, ?, ?)",
			   "iuii", (gint64)o->soid.ino, o->soid.gen, o->id, (gint64)recno);
}

/* The server has own record r as its record recno, about the object soid. */
static gboolean settle_state(IsdClient *c, const struct kml_record *r, gboolean content,
			     struct kml_oid soid, guint64 recno, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	guint64 *version;
	gboolean found;

	if (r->opcode == KML_UNLINK || r->opcode == KML_RMDIR)
		return settle_removed(c, r->obj, error);
	if (!isd_push_find(c, r->obj, &o, &found, error) ||
	    (!found && !push_remember_gone(c, r->obj, soid, error)))
		return FALSE;
	if (found) {
		if (soid.ino && (!o.soid.ino || recno >= MAX(o.cver, o.aver))) {
			if (!settle_number(c, &o, soid, recno, error))
				return FALSE;
			o.soid = soid;
		}
		if (makes(r->opcode))
			o.aver = MAX(o.aver, recno);
		if (makes(r->opcode) || content)
			o.cver = MAX(o.cver, recno);
		version = version_of(&o, r);
		if (version)
			*version = MAX(*version, recno);
		if (!isd_state_put_object(c->state, &o, error) ||
		    !settle_names(c, r, o.id, recno, error))
			return FALSE;
	}
	return r->opcode != KML_RENAME || !r->has_old || (r->flags & KML_F_EXCHANGE) ||
	       settle_removed(c, r->old, error);
}

/* Known to be done also after a restart: what the server changes later was seen by us. */
static gboolean settled_add(IsdPush *p, gint64 recno, GError **error)
{
	g_hash_table_add(p->settled, g_memdup2(&recno, sizeof(recno)));
	return isd_sql_run(p->c->state, error, "INSERT OR IGNORE INTO client_settled VALUES(?)",
			   "i", recno);
}

static gboolean segment_op_done(IsdPush *p, PushSegment *s, guint index, GError **error)
{
	PushOp *po = &g_array_index(s->push, PushOp, index);
	g_autofree char *key = isd_push_key(po->op->r.obj);

	po->state = PUSH_DONE;
	if (makes(po->op->r.opcode))
		g_hash_table_remove(p->making, key);
	if (p->blocking_recno == po->op->r.recno) {
		p->blocking_recno = 0;
		g_clear_pointer(&p->blocking, g_free);
	}
	if (!isd_client_begin(p->c, error))
		return FALSE;
	for (guint i = 0; i < s->recs->len; i++)
		if (g_array_index(s->ops->owner, guint, i) == index &&
		    !settled_add(p, g_array_index(s->recs, struct kml_record, i).recno, error))
			return FALSE;
	return TRUE;
}

static PushOp *push_find_op(IsdPush *p, guint64 recno, PushSegment **ret_s, guint *ret_index)
{
	for (GList *l = p->segments.head; l; l = l->next) {
		PushSegment *s = l->data;

		if (recno < s->first_recno || recno > s->last_recno)
			continue;
		for (guint i = 0; i < s->push->len; i++) {
			PushOp *po = &g_array_index(s->push, PushOp, i);

			if (po->op->dropped || (po->op->r.recno != recno && po->made != recno &&
						!(po->bare && po->op->content_recno == recno)))
				continue;
			*ret_s = s;
			*ret_index = i;
			return po;
		}
	}
	return NULL;
}

/* What went without its content sends that as a CLOSE, under the CLOSE's own number. */
static void push_bare_done(IsdPush *p, PushOp *po)
{
	if (p->blocking_recno == po->op->r.recno)
		p->blocking_recno = po->op->content_recno;
	po->bare = FALSE;
	po->made = po->op->r.recno;
	po->state = PUSH_READY;
	po->op->r.opcode = KML_CLOSE;
	po->op->r.flags = KML_F_RANGES_ALL;
	po->op->r.recno = po->op->content_recno;
	po->op->r.attr.valid = KML_A_SIZE | KML_A_MTIME;
	po->op->r.xattrs = NULL;
	po->op->r.xattrs_len = 0;
	po->op->r.has_ptime = false;
}

static gboolean push_op_settled(IsdPush *p, PushSegment *s, guint index, struct kml_oid soid,
				guint64 server_recno, GError **error)
{
	PushOp *po = &g_array_index(s->push, PushOp, index);
	gboolean content = po->op->content && !po->bare;

	if (po->state == PUSH_DONE)
		return TRUE;
	isd_debug(ISD_D_KML, "own record %" G_GUINT64_FORMAT " is %" G_GUINT64_FORMAT
		  " on the server", (guint64)po->op->r.recno, server_recno);
	if (!isd_client_begin(p->c, error) ||
	    !settle_state(p->c, &po->op->r, content, soid, server_recno, error) ||
	    (content && !isd_push_carried(p, po->op->r.obj, error)))
		return FALSE;
	if (!po->bare || po->op->content_recno == po->op->r.recno)
		return segment_op_done(p, s, index, error);
	push_bare_done(p, po);
	return TRUE;
}

/*
 * Whatever was sent and is not settled is in the segments, since those that were sent
 * from are read at the start.  What needs not be sent again may all the same
 * have been sent before, and its answer lost: only this tells the number that came of it.
 */
gboolean isd_push_settle(IsdClient *c, const struct kml_record *r, GError **error)
{
	PushSegment *s;
	guint index;
	PushOp *po = c->push ? push_find_op(c->push, r->origin_recno, &s, &index) : NULL;

	if (po && (po->state == PUSH_DONE || po->made == r->origin_recno))
		return settle_state(c, &po->op->r, r->opcode == KML_CLOSE, r->obj, r->recno, error);
	if (po)
		return push_op_settled(c->push, s, index, r->obj, r->recno, error);
	if (r->origin_recno > c->push_recno)
		isd_log(4, c->server, r->recno, "the server has our record %" G_GUINT64_FORMAT
			", which was not sent", (guint64)r->origin_recno);
	return TRUE;
}

/* --- the position --- */

static gboolean segment_is_done(const PushSegment *s)
{
	for (guint i = 0; i < s->push->len; i++)
		if (g_array_index(s->push, PushOp, i).state != PUSH_DONE)
			return FALSE;
	return TRUE;
}

static gboolean settled_before(gpointer key, gpointer value, gpointer data)
{
	return (guint64)*(gint64 *)key <= *(guint64 *)data;
}

/* Nothing is pending: what was remembered about pending records is of no use. */
static gboolean push_forget(IsdPush *p, GError **error)
{
	IsdState *s = p->c->state;

	return isd_sql_run(s, error, "DELETE FROM client_cover", "") &&
	       isd_sql_run(s, error, "DELETE FROM client_void", "") &&
	       isd_sql_run(s, error, "DELETE FROM client_gone", "") &&
	       isd_sql_run(s, error, "DELETE FROM client_alias", "");
}

static void push_punched(int error, const void *body, gsize len, gpointer data)
{
}

/* Everything before it is on the server: the log's front can be given back. */
static void push_punch(IsdPush *p)
{
	struct izo_pos pos = { GUINT64_TO_LE(p->c->push_offset), GUINT64_TO_LE(p->c->push_recno) };

	if (p->c->push_offset - p->punched < PUNCH_BYTES)
		return;
	p->punched = p->c->push_offset;
	isd_channel_request(p->c->core->channel, IZO_MSG_PUNCH, 0, &pos, sizeof(pos),
			    push_punched, NULL);
}

static gboolean push_advance(IsdPush *p, GError **error)
{
	IsdClient *c = p->c;
	PushSegment *s;
	gboolean moved = FALSE;

	while ((s = g_queue_peek_head(&p->segments)) && segment_is_done(s)) {
		if (!isd_client_begin(c, error) ||
		    !isd_state_set_u64(c->state, "push_offset", s->end, error) ||
		    !isd_state_set_u64(c->state, "push_recno", s->last_recno, error) ||
		    !isd_sql_run(c->state, error, "DELETE FROM client_segment WHERE start = ?",
				 "i", (gint64)s->start) ||
		    !isd_sql_run(c->state, error, "DELETE FROM client_bare WHERE recno <= ?",
				 "i", (gint64)s->last_recno) ||
		    !isd_sql_run(c->state, error, "DELETE FROM client_settled WHERE recno <= ?",
				 "i", (gint64)s->last_recno))
			return FALSE;
		c->push_offset = s->end;
		c->push_recno = s->last_recno;
		g_hash_table_foreach_remove(p->settled, settled_before, &c->push_recno);
		segment_free(g_queue_pop_head(&p->segments));
		moved = TRUE;
	}
	if (!moved)
		return TRUE;
	if (c->push_recno >= c->core->log_recno && !push_forget(p, error))
		return FALSE;
	if (!isd_client_commit(c, error))
		return FALSE;
	push_punch(p);
	isd_client_progress(c);
	return TRUE;
}

/* --- failures --- */

static gboolean push_retry(gpointer data)
{
	IsdPush *p = data;

	p->retry = 0;
	for (GList *l = p->segments.head; l; l = l->next) {
		PushSegment *s = l->data;

		for (guint i = 0; i < s->push->len; i++) {
			PushOp *po = &g_array_index(s->push, PushOp, i);

			if (po->state == PUSH_FAILED)
				po->state = PUSH_READY;
		}
	}
	push_go(p);
	return G_SOURCE_REMOVE;
}

static void push_retry_later(IsdPush *p)
{
	if (p->retry)
		return;
	p->retry = g_timeout_add(p->retry_ms, push_retry, p);
	p->retry_ms = MIN(p->retry_ms * 2, RETRY_MAX_MS);
}

void isd_push_pulled(IsdPush *p)
{
	if (!p->retry)
		return;
	g_clear_handle_id(&p->retry, g_source_remove);
	p->retry = g_idle_add(push_retry, p);
}

static void push_op_failed(IsdPush *p, PushOp *po, int err)
{
	const struct kml_record *r = &po->op->r;

	po->state = PUSH_FAILED;
	po->err = err;
	po->tries++;
	if (err == ENOENT && po->file)
		g_clear_pointer(&po->file, g_free);	/* the upload is gone */
	if (err == ECANCELED || (err == ESTALE && po->tries < TRIES_QUIET) ||
	    (p->blocking_recno && p->blocking_recno != r->recno))
		return;
	g_free(p->blocking);
	p->blocking_recno = r->recno;
	p->blocking = g_strdup_printf("%s of %.*s in %.*s: %s%s", kml_opcode_name(r->opcode),
				      (int)r->name.len, r->name.ptr ? r->name.ptr : "",
				      (int)r->dir.len, r->dir.ptr ? r->dir.ptr : "",
				      err > 0 ? "the server answers: " : "it is being changed",
				      err > 0 ? g_strerror(err) : "");
	if (po->tries == 1 || po->tries == TRIES_QUIET)
		isd_log(4, p->c->server, r->recno, "not sent: %s", p->blocking);
}

/* After too many tries about something that no longer exists here there is nothing to do. */
static gboolean push_is_moot(IsdPush *p, const PushOp *po, gboolean *ret, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	*ret = FALSE;
	if (po->err != ESTALE && po->err != ENOENT)
		return TRUE;
	if (!isd_push_find(p->c, po->op->r.obj, &o, &found, error))
		return FALSE;
	*ret = (!found && po->tries >= TRIES_QUIET) || ((po->op->r.opcode == KML_UNLINK || po->op->r.opcode == KML_RMDIR) &&
			  po->tries >= TRIES_QUIET && !o.soid.ino);
	return TRUE;
}

/*
 * A rename that stays stale although everything was taken in: one of the names on its way is
 * somebody else's on the server.  What counts is where the object ended up.
 */
static gboolean push_shorten_renames(IsdPush *p, const PushOp *po, GError **error)
{
	const struct kml_record *r = &po->op->r;
	g_auto(IsdObject) o = { 0 };
	guint64 last;
	gboolean found, moved;

	if (po->err != ESTALE || po->tries < TRIES_QUIET || r->opcode != KML_RENAME)
		return TRUE;
	isd_push_is_void(p->c, r->obj, r->recno, &moved);
	if (moved || !isd_push_find(p->c, r->obj, &o, &found, error))
		return moved;
	if (!found || !o.soid.ino || (o.attr.nlink > 1 && !S_ISDIR(o.attr.mode)))
		return TRUE;
	return isd_push_last_rename(p->c, r->obj, &last, error) &&
	       isd_push_void_renames(p->c, r->obj, last, error);
}

/* --- answers --- */

static gboolean push_take_answer(IsdPush *p, PushOp *po, const struct answer *a, GError **error)
{
	struct kml_oid soid = { GUINT64_FROM_LE(a->ino), GUINT32_FROM_LE(a->gen) };
	guint32 status = GUINT32_FROM_LE(a->status);
	PushSegment *s;
	guint index;
	gboolean moot;

	if (po->state != PUSH_SENT)
		return TRUE;	/* the server's log told already */
	if (!push_find_op(p, po->op->r.recno, &s, &index))
		return TRUE;
	if (!status)
		return push_op_settled(p, s, index, soid, GUINT64_FROM_LE(a->server_recno), error);
	isd_debug(ISD_D_KML, "own record %" G_GUINT64_FORMAT " %s: %s", (guint64)po->op->r.recno,
		  kml_opcode_name(po->op->r.opcode), g_strerror(status));
	push_op_failed(p, po, status);
	if (!push_shorten_renames(p, po, error) || !push_is_moot(p, po, &moot, error))
		return FALSE;
	return !moot || segment_op_done(p, s, index, error);
}

static gboolean push_take_answers(IsdPush *p, const GByteArray *body, GPtrArray *sent,
				  GError **error)
{
	gboolean failed = FALSE;

	if (body->len != sent->len * sizeof(struct answer)) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_PROTOCOL,
			    "the server answers %u records with %u bytes", sent->len, body->len);
		return FALSE;
	}
	for (guint i = 0; i < sent->len; i++) {
		PushOp *po = g_ptr_array_index(sent, i);
		struct answer a;

		memcpy(&a, body->data + i * sizeof(a), sizeof(a));
		if (GUINT64_FROM_LE(a.recno) != po->sent_recno) {
			g_set_error(error, ISD_ERROR, ISD_ERROR_PROTOCOL,
				    "the server answers other records than were sent");
			return FALSE;
		}
		if (!push_take_answer(p, po, &a, error))
			return FALSE;
		failed |= po->state == PUSH_FAILED;
	}
	if (failed)
		push_retry_later(p);
	else
		p->retry_ms = RETRY_MIN_MS;
	return isd_client_did(p->c, sent->len, error);
}

static void push_post(IsdPush *p, GByteArray *body, IsdFetchDone done)
{
	g_autoptr(GBytes) bytes = g_byte_array_free_to_bytes(body);
	IsdFetchSpec spec = {
		.method = "POST", .body = bytes, .done = done, .data = p,
	};

	spec.path = g_strdup_printf("reint?base=%" G_GUINT64_FORMAT "&epoch=%" G_GUINT64_FORMAT,
				    p->c->pull_recno, p->c->epoch);
	isd_fault("push-post");
	p->post = isd_fetch(p->c->fetcher, &spec);
}

static void push_posted(IsdRequest *r, const GError *error, gpointer data)
{
	IsdPush *p = data;
	g_autoptr(GError) local = NULL;
	g_autoptr(GPtrArray) sent = g_steal_pointer(&p->sent);

	p->post = NULL;
	isd_fault("push-answered");
	if (g_error_matches(error, ISD_ERROR, ISD_ERROR_NOSPC)) {
		/* the server's disk: what comes from there is not held up */
		for (guint i = 0; i < sent->len; i++)
			push_op_failed(p, g_ptr_array_index(sent, i), ENOSPC);
		push_retry_later(p);
		return;
	}
	if (error || !push_take_answers(p, isd_fetch_body(r), sent, &local)) {
		isd_client_fail(p->c, error ? error : local);
		return;
	}
	push_go(p);
}

/* --- asking what became of what was sent --- */

typedef struct {
	guint64	recno;
	PushOp	*po;
} Asked;

static gint asked_order(gconstpointer a, gconstpointer b)
{
	guint64 x = ((const Asked *)a)->recno, y = ((const Asked *)b)->recno;

	return x < y ? -1 : x > y;
}

/* What went without its content has two records: the other one is that of the content. */
static GArray *ask_collect(IsdPush *p)
{
	GArray *a = g_array_new(FALSE, FALSE, sizeof(Asked));

	for (GList *l = p->segments.head; l; l = l->next) {
		PushSegment *s = l->data;

		for (guint i = 0; i < s->push->len; i++) {
			PushOp *po = &g_array_index(s->push, PushOp, i);
			Asked made = { po->op->r.recno, po }, content = { po->op->content_recno, po };

			if (po->state != PUSH_UNKNOWN)
				continue;
			g_array_append_val(a, made);
			if (po->bare && content.recno != made.recno)
				g_array_append_val(a, content);
		}
	}
	g_array_sort(a, asked_order);
	return a;
}

static gboolean ask_take(IsdPush *p, const Asked *q, const struct answer *a, GError **error)
{
	struct kml_oid soid = { GUINT64_FROM_LE(a->ino), GUINT32_FROM_LE(a->gen) };
	PushSegment *s;
	guint index;

	if (GUINT64_FROM_LE(a->recno) != q->recno) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_PROTOCOL,
			    "the server answers other records than were asked for");
		return FALSE;
	}
	if (q->po->state == PUSH_UNKNOWN)
		q->po->state = PUSH_READY;
	return a->status || !push_find_op(p, q->recno, &s, &index) ||
	       push_op_settled(p, s, index, soid, GUINT64_FROM_LE(a->server_recno), error);
}

static gboolean ask_take_all(IsdPush *p, const GByteArray *body, GError **error)
{
	g_autoptr(GArray) asked = ask_collect(p);

	if (body->len != asked->len * sizeof(struct answer)) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_PROTOCOL,
			    "the server answers %u questions with %u bytes", asked->len, body->len);
		return FALSE;
	}
	if (!isd_client_begin(p->c, error))
		return FALSE;
	for (guint i = 0; i < asked->len; i++) {
		struct answer a;

		memcpy(&a, body->data + i * sizeof(a), sizeof(a));
		if (!ask_take(p, &g_array_index(asked, Asked, i), &a, error))
			return FALSE;
	}
	return isd_client_commit(p->c, error);
}

static void ask_done(IsdPush *p)
{
	p->asking = FALSE;
	push_go(p);
	if (p->c->pull)
		isd_pull_kick(p->c->pull);
}

static void push_asked(IsdRequest *r, const GError *error, gpointer data)
{
	IsdPush *p = data;
	g_autoptr(GError) local = NULL;

	p->post = NULL;
	if (error || !ask_take_all(p, isd_fetch_body(r), &local))
		isd_client_fail(p->c, error ? error : local);
	else
		ask_done(p);
}

static void ask_encode(GByteArray *body, guint64 recno)
{
	struct kml_record r = { .opcode = KML_RESYNC, .recno = recno };
	guint at = body->len;

	g_byte_array_set_size(body, at + kml_encoded_size(&r));
	kml_encode(body->data + at, body->len - at, &r);
}

static void push_ask(IsdPush *p)
{
	g_autoptr(GArray) asked = ask_collect(p);
	g_autoptr(GByteArray) body = g_byte_array_new();

	for (guint i = 0; i < asked->len; i++)
		ask_encode(body, g_array_index(asked, Asked, i).recno);
	if (asked->len)
		push_post(p, g_steal_pointer(&body), push_asked);
	else
		ask_done(p);
}

gboolean isd_push_is_asking(const IsdPush *p)
{
	return p->asking;
}

/* --- sending --- */


void isd_push_uploaded(IsdPush *p, PushOp *po, gboolean changed, const GError *error)
{
	po->state = PUSH_READY;
	if (g_error_matches(error, ISD_ERROR, ISD_ERROR_NOSPC)) {
		push_op_failed(p, po, ENOSPC);
		push_retry_later(p);
	} else if (error) {
		isd_client_fail(p->c, error);
		return;
	}
	if (changed && !error) {
		push_op_failed(p, po, 0);
		push_retry_later(p);
	}
	push_go(p);
}

/*
 * The file is changing while it is read: if a later CLOSE is in the log that
 * one sends it, otherwise it is looked at again in a moment.
 */
static gboolean push_changing(IsdPush *p, PushSegment *s, guint index, GError **error)
{
	PushOp *po = &g_array_index(s->push, PushOp, index);
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	if (!isd_push_find(p->c, po->op->r.obj, &o, &found, error))
		return FALSE;
	if (found && o.lcver > po->op->content_recno && !makes(po->op->r.opcode))
		return segment_op_done(p, s, index, error) && isd_push_carry(p, po, &o, error);
	push_op_failed(p, po, po->err);
	push_retry_later(p);
	return TRUE;
}

static gboolean is_replaced(IsdPush *p, struct kml_oid oid)
{
	g_autofree char *key = isd_push_key(oid);

	return oid.ino && g_hash_table_contains(p->replaced, key);
}

/*
 * Its numbers are only known when what is in the body already is answered; or it
 * would break the order of the body's records.
 */
static gboolean push_must_wait(IsdPush *p, const IsdOp *op)
{
	const PushOp *last = p->sent->len ? g_ptr_array_index(p->sent, p->sent->len - 1) : NULL;

	if (last && op->r.recno <= last->sent_recno)
		return TRUE;
	return g_hash_table_size(p->replaced) &&
		(is_replaced(p, op->r.obj) || (op->r.has_old && is_replaced(p, op->r.old)));
}

static void push_sent(IsdPush *p, PushOp *po)
{
	po->state = PUSH_SENT;
	po->sent_recno = po->op->r.recno;
	g_ptr_array_add(p->sent, po);
	/* new content is a new inode there */
	if (po->op->content && !makes(po->op->r.opcode))
		g_hash_table_add(p->replaced, isd_push_key(po->op->r.obj));
}

/* One op into the body.  *ret_stop: send what there is, or wait for an upload. */
static gboolean push_add(IsdPush *p, PushSegment *s, guint index, GByteArray *body,
			 gboolean *ret_stop, GError **error)
{
	PushOp *po = &g_array_index(s->push, PushOp, index);

	if (push_is_covered(p->c, po->op->r.obj, po->op->r.recno)) {
		isd_debug(ISD_D_KML, "own record %" G_GUINT64_FORMAT " is covered by another one",
			  (guint64)po->op->r.recno);
		return segment_op_done(p, s, index, error);
	}
	if (push_must_wait(p, po->op)) {
		*ret_stop = TRUE;
		return TRUE;
	}
	switch (isd_push_encode(p, po, body, error)) {
	case ENCODE_FAIL:
		return FALSE;
	case ENCODE_DONE:
		push_sent(p, po);
		*ret_stop = p->sent->len == BATCH_RECORDS;
		return TRUE;
	case ENCODE_MOOT:
		isd_debug(ISD_D_KML, "own record %" G_GUINT64_FORMAT " needs not be sent",
			  (guint64)po->op->r.recno);
		return segment_op_done(p, s, index, error);
	case ENCODE_LATER:
		return push_changing(p, s, index, error);
	case ENCODE_FULL:
	case ENCODE_UPLOAD:
		*ret_stop = TRUE;
	}
	return TRUE;
}

static char *name_key(struct kml_oid dir, struct kml_str name)
{
	return g_strdup_printf("%" G_GUINT64_FORMAT ".%u/%.*s", (guint64)dir.ino, dir.gen,
			       (int)name.len, name.ptr);
}

/*
 * The keys of an op: its objects and names, *ret_own of them, then the directories
 * that it needs.
 */
static guint op_keys(const struct kml_record *r, char *keys[6], guint *ret_own)
{
	gboolean names = r->opcode != KML_CLOSE && r->opcode != KML_SETATTR &&
		r->opcode != KML_SETXATTR && r->opcode != KML_REMOVEXATTR &&
		r->opcode != KML_RESYNC;
	guint n = 0;

	keys[n++] = isd_push_key(r->obj);
	if (r->has_old && r->old.ino)
		keys[n++] = isd_push_key(r->old);
	if (names && r->name.ptr)
		keys[n++] = name_key(r->parent, r->name);
	if (names && r->tname.ptr)
		keys[n++] = name_key(r->tparent, r->tname);
	*ret_own = n;
	if (names && r->parent.ino)
		keys[n++] = isd_push_key(r->parent);
	if (names && r->tparent.ino)
		keys[n++] = isd_push_key(r->tparent);
	return n;
}

/*
 * An op about something that an earlier one is about, which could not be
 * done yet, waits for that one.
 */
static gboolean push_is_held(IsdPush *p, const PushOp *po)
{
	char *keys[6];
	guint own, n = op_keys(&po->op->r, keys, &own);
	/* content that could not be read just now holds nothing up */
	gboolean held = po->state == PUSH_FAILED && (po->err || po->op->r.opcode != KML_CLOSE);

	for (guint i = 0; i < n && !held; i++)
		held = g_hash_table_contains(p->held, keys[i]);
	for (guint i = 0; i < n; i++) {
		if (held && i < own)
			g_hash_table_add(p->held, keys[i]);
		else
			g_free(keys[i]);
	}
	return held;
}

static gboolean push_collect(IsdPush *p, GByteArray *body, GError **error)
{
	gboolean stop = FALSE;

	g_hash_table_remove_all(p->held);
	for (GList *l = p->segments.head; l && !stop; l = l->next) {
		PushSegment *s = l->data;

		for (guint i = 0; i < s->push->len && !stop; i++) {
			PushOp *po = &g_array_index(s->push, PushOp, i);

			if (po->state == PUSH_DONE || push_is_held(p, po))
				continue;
			if (po->state == PUSH_READY && !push_add(p, s, i, body, &stop, error))
				return FALSE;
			if (po->state == PUSH_FAILED)
				push_is_held(p, po);
		}
	}
	return TRUE;
}

static gboolean push_try(IsdPush *p, GError **error)
{
	gboolean loaded = TRUE;

	if (p->asking && !p->post)
		push_ask(p);
	while (loaded && !p->asking && !p->post && !p->upload) {
		g_autoptr(GByteArray) body = g_byte_array_new();

		if (!p->sent)
			p->sent = g_ptr_array_new();
		g_hash_table_remove_all(p->replaced);
		if (!isd_client_begin(p->c, error) || !push_collect(p, body, error) ||
		    !push_advance(p, error))
			return FALSE;
		if (body->len) {
			/* what the records stand for has to be known again after a crash */
			if (!isd_client_commit(p->c, error))
				return FALSE;
			push_post(p, g_steal_pointer(&body), push_posted);
			return TRUE;
		}
		if (p->upload)
			return isd_client_commit(p->c, error);
		if (!segment_load(p, &loaded, error))
			return FALSE;
	}
	return TRUE;
}

static void push_go(IsdPush *p)
{
	g_autoptr(GError) error = NULL;

	if (!isd_client_is_up(p->c) || p->c->phase != ISD_CLIENT_ONLINE)
		return;
	if (!push_try(p, &error))
		isd_client_fail(p->c, error);
}

static gboolean push_kicked(gpointer data)
{
	IsdPush *p = data;

	p->kick = 0;
	push_go(p);
	return G_SOURCE_REMOVE;
}

/* Not from within what may be in the middle of a decision about pending records. */
void isd_push_kick(IsdPush *p)
{
	if (!p->kick)
		p->kick = g_idle_add(push_kicked, p);
}

const char *isd_push_blocking(const IsdPush *p, guint64 *ret_recno)
{
	*ret_recno = p->blocking_recno;
	return p->blocking;
}

IsdPush *isd_push_start(IsdClient *c)
{
	IsdPush *p = g_new0(IsdPush, 1);
	g_autoptr(GError) error = NULL;

	p->c = c;
	p->log_fd = openat(c->core->meta_fd, "kml", O_RDONLY | O_CLOEXEC);
	p->settled = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
	p->held = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	p->replaced = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	p->making = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	p->carry = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
					 (GDestroyNotify)g_array_unref);
	p->retry_ms = RETRY_MIN_MS;
	p->punched = c->push_offset;
	g_queue_init(&p->segments);
	if (push_reload(p, &error))
		isd_push_kick(p);
	else
		isd_client_fail(c, error);
	return p;
}

void isd_push_free(IsdPush *p)
{
	PushSegment *s;

	if (p->post)
		isd_fetch_cancel(p->post);
	isd_push_upload_free(p->upload);
	g_clear_handle_id(&p->retry, g_source_remove);
	g_clear_handle_id(&p->kick, g_source_remove);
	while ((s = g_queue_pop_head(&p->segments)))
		segment_free(s);
	g_clear_pointer(&p->sent, g_ptr_array_unref);
	g_hash_table_unref(p->settled);
	g_hash_table_unref(p->making);
	g_hash_table_unref(p->held);
	g_hash_table_unref(p->replaced);
	g_hash_table_unref(p->carry);
	if (p->log_fd >= 0)
		close(p->log_fd);
	g_free(p->blocking);
	g_free(p);
}
