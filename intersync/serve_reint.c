// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * POST reint: a client's records, one after the other, are judged (judge.c)
 * and made true by the file system, which logs them with their origin.
 *
 * Records that have nothing to do with each other go in one REINT batch; one
 * that touches what a record in the batch touches waits until that is done and
 * taken into the state.  All of a POST is one transaction of the state; what the log has
 * and the state lost with it is taken in again by following the log.
 */
#include "judge.h"
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>

#include "util.h"

#define BATCH_MAX	256	/* records, and with them open uploads */
#define NO_ROOM_MAX	16	/* records that find no space until the rest is not tried */

struct reint_answer {
	guint64	recno, server_recno, ino;	/* little-endian */
	guint32	gen, status;
};

/* A record in the batch. */
typedef struct {
	guint			index;	/* of its answer */
	const guint8		*at;	/* in the body */
	IsdDeed			deed;
} Pending;

typedef struct {
	IsdJudge	judge;
	IsdCore		*core;
	IsdReint	*batch;
	GArray		*pending;	/* of Pending */
	GArray		*answers;	/* of struct reint_answer */
	GHashTable	*changed;	/* rows that the batch changes */
	GHashTable	*entered;	/* rows of directories in which it does */
	GHashTable	*names;		/* "row/name" */
	GHashTable	*failed;	/* "ino.gen", client's numbers of what was not made */
	guint64		end;		/* of the log, when the body came */
	gboolean	full;		/* the rest is not tried */
	guint		no_room;	/* records that found no space */
	IsdReintCounts	*counts;
	GError		*error;
} Push;

static gboolean refresh_row(IsdCore *core, IsdObject *o, GError **error)
{
	g_auto(IsdName) n = { 0 };
	g_autofree char *dir = NULL, *path = NULL;
	struct stat st;
	gboolean found;

	if (S_ISDIR(o->attr.mode))
		return TRUE;
	if (!isd_state_a_name(core->state, o->id, &n, &found, error))
		return FALSE;
	dir = found ? isd_state_path(core->state, n.parent, NULL) : NULL;
	if (!dir)
		return TRUE;
	path = g_strdup_printf("%s/%s", dir + strspn(dir, "/"), n.name);
	if (fstatat(core->root_fd, path + strspn(path, "/"), &st, AT_SYMLINK_NOFOLLOW) ||
	    st.st_ino != o->oid.ino || (guint64) st.st_size != o->attr.size ||
	    st.st_mtim.tv_sec != o->attr.mtime.sec ||
	    st.st_mtim.tv_nsec != (long) o->attr.mtime.nsec)
		return TRUE;
	if (st.st_ctim.tv_sec == o->attr.ctime.sec &&
	    st.st_ctim.tv_nsec == (long) o->attr.ctime.nsec)
		return TRUE;
	o->attr.ctime.sec = st.st_ctim.tv_sec;
	o->attr.ctime.nsec = st.st_ctim.tv_nsec;
	return isd_state_put_object(core->state, o, error);
}

static gboolean sync_and_follow(IsdCore *core, GError **error)
{
	return isd_channel_call(core->channel, IZO_MSG_SYNC, 0, NULL, 0, NULL, error) &&
	       isd_follow(core, NULL, error);
}

gboolean isd_serve_refresh(IsdCore *core, struct kml_oid oid, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	return sync_and_follow(core, error) &&
	       isd_state_by_oid(core->state, oid, &o, &found, error) &&
	       (!found || refresh_row(core, &o, error));
}

/* Until the state has our record recno. */
static gboolean follow_to(IsdCore *core, guint64 recno, GError **error)
{
	guint64 have;

	if (!isd_follow(core, NULL, error) ||
	    !isd_state_get_u64(core->state, "local_recno", &have, error))
		return FALSE;
	if (have >= recno)
		return TRUE;
	if (!sync_and_follow(core, error) ||
	    !isd_state_get_u64(core->state, "local_recno", &have, error))
		return FALSE;
	if (have >= recno)
		return TRUE;
	g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED, "%s: record %" G_GUINT64_FORMAT
		    " was promised and is not in the log", core->dir, recno);
	return FALSE;
}

static struct reint_answer *answer_at(Push *p, guint index)
{
	return &g_array_index(p->answers, struct reint_answer, index);
}

static char *own_key(struct kml_oid oid)
{
	return g_strdup_printf("%" G_GUINT64_FORMAT ".%" G_GUINT32_FORMAT, (guint64) oid.ino,
			       (guint32) oid.gen);
}

static void count(Push *p, guint32 status)
{
	if (!status)
		p->counts->done++;
	else if (status == ESTALE || status == EIDRM)
		p->counts->stale++;
	else if (status == ECANCELED)
		p->counts->cancelled++;
	else
		p->counts->failed++;
}

static void refuse(Push *p, guint index, const struct kml_record *r, guint32 status)
{
	struct reint_answer *a = answer_at(p, index);

	a->status = htole32(status);
	a->server_recno = htole64(p->end);
	if (status == EIDRM) {
		a->ino = htole64(p->judge.missing.ino);
		a->gen = htole32(p->judge.missing.gen);
	}
	count(p, status);
	/* a smaller one may fit, and a removal makes room */
	if (status == ENOSPC || status == EDQUOT)
		p->full = ++p->no_room >= NO_ROOM_MAX;
	else if (status == EIO)
		p->full = TRUE;
	if (isd_makes(r->opcode) && (r->ref_own & KML_REF_OBJ))
		g_hash_table_add(p->failed, own_key(r->obj));
	isd_debug(ISD_D_REINT, "peer %s record %" G_GUINT64_FORMAT " %s: %s", p->judge.peer_text,
		  (guint64) r->recno, kml_opcode_name(r->opcode), g_strerror(status));
}

static void accept(Push *p, guint index, const struct izo_reint_result *res)
{
	struct reint_answer *a = answer_at(p, index);

	a->server_recno = res->recno;
	a->ino = res->ino;
	a->gen = res->gen;
	a->status = 0;
	count(p, 0);
}

/* Nothing was to be done, and no record of ours is about it: it is so at this position. */
static gboolean accept_as_is(Push *p, guint index, const IsdDeed *d)
{
	struct reint_answer *a = answer_at(p, index);
	guint64 recno;

	if (!isd_state_get_u64(p->core->state, "local_recno", &recno, &p->error))
		return FALSE;
	a->server_recno = htole64(recno);
	a->ino = htole64(d->r.obj.ino);
	a->gen = htole32(d->r.obj.gen);
	count(p, 0);
	return TRUE;
}

static gboolean in_failed(Push *p, struct kml_oid oid)
{
	g_autofree char *key = own_key(oid);

	return g_hash_table_contains(p->failed, key);
}

static gboolean needs_failed(Push *p, const struct kml_record *r)
{
	if (!g_hash_table_size(p->failed))
		return FALSE;
	return ((r->ref_own & KML_REF_OBJ) && !isd_makes(r->opcode) && in_failed(p, r->obj)) ||
	       ((r->ref_own & KML_REF_PARENT) && in_failed(p, r->parent)) ||
	       ((r->ref_own & KML_REF_TPARENT) && in_failed(p, r->tparent)) ||
	       ((r->ref_own & KML_REF_OLD) && in_failed(p, r->old));
}

static char *name_key(gint64 parent, struct kml_str name)
{
	return g_strdup_printf("%" G_GINT64_FORMAT "/%.*s", parent, (int) name.len, name.ptr);
}

static gboolean has_row(GHashTable *set, gint64 id)
{
	return id && g_hash_table_contains(set, &id);
}

static void add_row(GHashTable *set, gint64 id)
{
	if (id)
		g_hash_table_add(set, g_memdup2(&id, sizeof(id)));
}

static gboolean has_name(Push *p, gint64 parent, struct kml_str name)
{
	g_autofree char *key = NULL;

	if (!name.ptr)
		return FALSE;
	key = name_key(parent, name);
	return g_hash_table_contains(p->names, key);
}

/* Does the deed touch what the batch touches? */
static gboolean touches(Push *p, const IsdDeed *d)
{
	return has_row(p->changed, d->obj) || has_row(p->changed, d->old) ||
	       has_row(p->entered, d->obj) || has_row(p->entered, d->old) ||
	       has_row(p->changed, d->parent) || has_row(p->changed, d->tparent) ||
	       has_name(p, d->parent, d->r.name) || has_name(p, d->tparent, d->r.tname);
}

static void remember(Push *p, const IsdDeed *d)
{
	add_row(p->changed, d->obj);
	add_row(p->changed, d->old);
	add_row(p->entered, d->parent);
	add_row(p->entered, d->tparent);
	if (d->r.name.ptr)
		g_hash_table_add(p->names, name_key(d->parent, d->r.name));
	if (d->r.tname.ptr)
		g_hash_table_add(p->names, name_key(d->tparent, d->r.tname));
}

static void forget_batch(Push *p)
{
	g_hash_table_remove_all(p->changed);
	g_hash_table_remove_all(p->entered);
	g_hash_table_remove_all(p->names);
	for (guint i = 0; i < p->pending->len; i++)
		isd_deed_clear(&g_array_index(p->pending, Pending, i).deed);
	g_array_set_size(p->pending, 0);
}

static gboolean broken(Push *p)
{
	g_propagate_error(&p->error, g_steal_pointer(&p->judge.error));
	return FALSE;
}

/*
 * The file system refused what the state allowed: the state was behind.  Bring
 * it up to date, judge again, and if it still may be, try once more.
 */
static gboolean second_try(Push *p, guint index, const struct kml_record *r, gint64 row)
{
	const struct izo_reint_result *res;
	g_auto(IsdDeed) d = { .upload = -1 };
	g_auto(IsdObject) o = { 0 };
	gboolean found = FALSE;
	gboolean judged;
	int err;

	if (!sync_and_follow(p->core, &p->error))
		return FALSE;
	if (row && (!isd_state_by_id(p->core->state, row, &o, &found, &p->error) ||
		    (found && !refresh_row(p->core, &o, &p->error))))
		return FALSE;
	err = isd_judge(&p->judge, r, TRUE, &d);
	if (err < 0)
		return broken(p);
	judged = !err;
	if (!err && d.is_so)
		return accept_as_is(p, index, &d);
	if (!err) {
		isd_reint_add(p->batch, &d.r, &d.guard, &d.tguard, d.flags);
		if (!isd_reint_send(p->batch, p->core, 0, 0, &res, &p->error))
			return FALSE;
		err = le32toh(res->error);
	}
	if (err) {
		/* all that is known here allows it: somebody has it open */
		refuse(p, index, r, err == ESTALE && judged ? EBUSY : err);
		return TRUE;
	}
	accept(p, index, res);
	return follow_to(p->core, le64toh(res->recno), &p->error);
}

/*
 * The results of a batch, but for what is tried again: what was stale, and what the file
 * system left untried because something before it found no space.
 */
static guint64 take_results(Push *p, const struct izo_reint_result *res, GArray *again)
{
	gboolean no_room = FALSE;
	guint64 last = 0;

	for (guint i = 0; i < p->pending->len; i++) {
		const Pending *q = &g_array_index(p->pending, Pending, i);
		guint32 err = le32toh(res[i].error);
		struct kml_record r;

		kml_decode(q->at, KML_REC_MAX * 2, &r);
		no_room |= err == ENOSPC || err == EDQUOT;
		if (err == ESTALE || (err == ECANCELED && no_room)) {
			Pending copy = { .index = q->index, .at = q->at,
					 .deed.obj = q->deed.old ? q->deed.old : q->deed.obj };

			g_array_append_val(again, copy);
		} else if (err) {
			refuse(p, q->index, &r, err);
		} else {
			accept(p, q->index, &res[i]);
			last = MAX(last, le64toh(res[i].recno));
		}
	}
	return last;
}

static gboolean flush(Push *p)
{
	g_autoptr(GArray) again = g_array_new(FALSE, TRUE, sizeof(Pending));
	const struct izo_reint_result *res;
	guint64 last;

	if (!p->pending->len)
		return TRUE;
	if (!isd_reint_send(p->batch, p->core, 0, 0, &res, &p->error))
		return FALSE;
	last = take_results(p, res, again);
	forget_batch(p);
	if (last && !follow_to(p->core, last, &p->error))
		return FALSE;
	for (guint i = 0; i < again->len; i++) {
		const Pending *q = &g_array_index(again, Pending, i);
		struct kml_record r;

		kml_decode(q->at, KML_REC_MAX * 2, &r);
		if (p->full || needs_failed(p, &r))
			refuse(p, q->index, &r, ECANCELED);
		else if (!second_try(p, q->index, &r, q->deed.obj))
			return FALSE;
	}
	return TRUE;
}

static gboolean queue(Push *p, guint index, const guint8 *at, IsdDeed *d)
{
	Pending q = { .index = index, .at = at };

	if (!isd_reint_add(p->batch, &d->r, &d->guard, &d->tguard, d->flags)) {
		if (!flush(p))
			return FALSE;
		isd_reint_add(p->batch, &d->r, &d->guard, &d->tguard, d->flags);
	}
	remember(p, d);
	q.deed = *d;
	memset(d, 0, sizeof(*d));
	d->upload = -1;
	g_array_append_val(p->pending, q);
	/* Paths below a directory that moves are others afterwards. */
	return (p->pending->len < BATCH_MAX && !q.deed.moves_dir) || flush(p);
}

static gboolean known(Push *p, guint index, const struct kml_record *r, gboolean *ret_known)
{
	struct reint_answer *a = answer_at(p, index);
	struct kml_oid oid = { 0 };
	guint64 own = 0;

	if (!isd_state_origin(p->core->state, p->judge.peer, r->recno, &own, &oid, ret_known,
			      &p->error))
		return FALSE;
	if (*ret_known) {
		a->server_recno = htole64(own);
		a->ino = htole64(oid.ino);
		a->gen = htole32(oid.gen);
		p->counts->repeated++;
	}
	return TRUE;
}

static gboolean one_record(Push *p, guint index, const guint8 *at, const struct kml_record *r)
{
	g_auto(IsdDeed) d = { .upload = -1 };
	gboolean was_done;
	int err;

	if (!known(p, index, r, &was_done))
		return FALSE;
	if (was_done)
		return TRUE;
	if (r->opcode == KML_RESYNC) {
		answer_at(p, index)->status = htole32(ENOENT);	/* it was just a question */
		return TRUE;
	}
	if (p->full || needs_failed(p, r)) {
		refuse(p, index, r, ECANCELED);
		return TRUE;
	}
	err = isd_judge(&p->judge, r, FALSE, &d);
	if (err >= 0 && p->pending->len && (err || touches(p, &d))) {
		isd_deed_clear(&d);
		if (!flush(p))
			return FALSE;
		err = p->full || needs_failed(p, r) ? ECANCELED :
		      isd_judge(&p->judge, r, FALSE, &d);
	}
	if (err < 0)
		return broken(p);
	if (!err && d.is_so)
		return accept_as_is(p, index, &d);
	if (!err)
		return queue(p, index, at, &d);
	refuse(p, index, r, err);
	return TRUE;
}

/* All of it is well-formed, in order, or nothing is done. */
static gboolean check_body(const guint8 *body, gsize len)
{
	guint64 before = 0;
	gsize pos = 0;

	while (pos < len) {
		struct kml_record r;
		ssize_t n = kml_decode(body + pos, len - pos, &r);

		if (n <= 0 || r.recno <= before)
			return FALSE;
		before = r.recno;
		pos += n;
	}
	return TRUE;
}

static gboolean all_records(Push *p, const guint8 *body, gsize len)
{
	gsize pos = 0;

	if (!isd_follow(p->core, NULL, &p->error) ||
	    !isd_state_get_u64(p->core->state, "local_recno", &p->end, &p->error))
		return FALSE;
	while (pos < len) {
		struct reint_answer a = { 0 };
		struct kml_record r;
		ssize_t n = kml_decode(body + pos, len - pos, &r);

		a.recno = htole64(r.recno);
		g_array_append_val(p->answers, a);
		if (!one_record(p, p->answers->len - 1, body + pos, &r))
			return FALSE;
		pos += n;
	}
	return flush(p);
}

static gboolean run(Push *p, const guint8 *body, gsize len)
{
	if (!isd_state_begin(p->core->state, &p->error))
		return FALSE;
	if (all_records(p, body, len))
		return isd_state_commit(p->core->state, &p->error);
	isd_state_rollback(p->core->state);
	return FALSE;
}

static void push_clear(Push *p)
{
	forget_batch(p);
	isd_reint_free(p->batch);
	g_array_unref(p->pending);
	g_array_unref(p->answers);
	g_hash_table_unref(p->changed);
	g_hash_table_unref(p->entered);
	g_hash_table_unref(p->names);
	g_hash_table_unref(p->failed);
	g_clear_error(&p->error);
}

static void push_init(Push *p, IsdCore *core, const guint8 peer[16], guint64 base)
{
	p->core = p->judge.core = core;
	p->judge.peer = peer;
	p->judge.base = base;
	uuid_format(peer, p->judge.peer_text);
	p->batch = isd_reint_new(TRUE, peer);
	p->pending = g_array_new(FALSE, TRUE, sizeof(Pending));
	p->answers = g_array_new(FALSE, TRUE, sizeof(struct reint_answer));
	p->changed = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
	p->entered = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
	p->names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	p->failed = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
}

static guint sentence(GByteArray *reply, guint status, const char *text)
{
	g_byte_array_append(reply, (const guint8 *) text, strlen(text));
	return status;
}

static guint failure(Push *p, const char *peer_name, GByteArray *reply)
{
	guint status = g_error_matches(p->error, ISD_ERROR, ISD_ERROR_NOSPC) ? 507 : 503;

	isd_log(LOG_ERR, peer_name, 0, "changes not taken: %s", p->error->message);
	return sentence(reply, status, p->error->message);
}

guint isd_serve_reint(IsdCore *core, const guint8 peer[16], const char *peer_name, guint64 base,
		      const guint8 *body, gsize len, GByteArray *reply, IsdReintCounts *counts)
{
	Push p = { .counts = counts };
	guint status = 200;

	if (!check_body(body, len))
		return sentence(reply, 400, "the body is not a sequence of records");
	push_init(&p, core, peer, base);
	if (run(&p, body, len))
		g_byte_array_append(reply, (guint8 *) p.answers->data,
				    p.answers->len * sizeof(struct reint_answer));
	else
		status = failure(&p, peer_name, reply);
	push_clear(&p);
	return status;
}
