// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Own records as the server takes them: with its numbers where they are known, with
 * content, and as a creation where the server has nothing that a change could be
 * one of.  Used by push.c.
 */
#include "push.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util.h"

#define BODY_MAX	(4 * 1024 * 1024 - 4096)

/* A record in the making and what it points into. */
typedef struct {
	IsdPush		*p;
	PushOp		*po;
	struct kml_record r;
	IsdObject	o;
	gboolean	known;		/* there is a row */
	char		*name;
	GBytes		*xattrs;
	guint8		*data;
	struct kml_range *ranges;
} Encode;

static void encode_clear(Encode *e)
{
	isd_object_clear(&e->o);
	g_free(e->name);
	g_clear_pointer(&e->xattrs, g_bytes_unref);
	g_free(e->data);
	g_free(e->ranges);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Encode, encode_clear)

/* An own number as the server's, or as the own one with the bit that says so. */
static gboolean encode_number(Encode *e, struct kml_oid *oid, guint32 bit, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	if (!oid->ino)
		return TRUE;
	if (!isd_push_find(e->p->c, *oid, &o, &found, error) ||
	    (!found && !isd_push_gone(e->p->c, *oid, &o.soid, error)))
		return FALSE;
	if (o.soid.ino) {
		*oid = o.soid;
		return TRUE;
	}
	if (found)
		*oid = o.oid;
	e->r.ref_own |= bit;
	return TRUE;
}

/* Is there a record before this one that makes the object? */
static gboolean is_being_made(Encode *e)
{
	g_autofree char *key = isd_push_key(e->po->op->r.obj);

	return g_hash_table_contains(e->p->making, key);
}

static guint16 opcode_for(guint32 mode)
{
	return S_ISREG(mode) ? KML_CREATE : S_ISDIR(mode) ? KML_MKDIR :
		S_ISLNK(mode) ? KML_SYMLINK : KML_MKNOD;
}

/*
 * The server does not have the object: whatever the record was, it becomes the creation of
 * what is here now, and covers all own records so far.
 */
static gboolean encode_as_new(Encode *e, gboolean *ret_moot, GError **error)
{
	IsdClient *c = e->p->c;
	g_auto(IsdName) n = { 0 };
	g_auto(IsdObject) dir = { 0 };
	guint64 recno = e->r.recno;
	gboolean found;

	if (!isd_state_a_name(c->state, e->o.id, &n, &found, error) ||
	    (found && !isd_state_by_id(c->state, n.parent, &dir, &found, error)))
		return FALSE;
	*ret_moot = !found;
	if (!found)
		return TRUE;
	if (!isd_push_cover(c, e->o.oid, c->core->log_recno, recno, error) ||
	    !isd_state_xattrs(c->state, e->o.id, &e->xattrs, error))
		return FALSE;
	e->name = g_steal_pointer(&n.name);
	e->r.opcode = opcode_for(e->o.attr.mode);
	e->r.flags = 0;
	e->r.obj = e->o.oid;
	e->r.parent = dir.oid;
	e->r.tparent = (struct kml_oid) { 0 };
	e->r.name = (struct kml_str) { e->name, strlen(e->name) };
	e->r.tname = e->r.dir = e->r.tdir = (struct kml_str) { 0 };
	e->r.has_old = e->r.has_ranges = false;
	e->r.has_attr = true;
	e->r.attr = e->o.attr;
	e->r.attr.valid = 0;
	e->r.link = (struct kml_str) { e->o.link, e->o.link_len };
	e->r.xattrs = NULL;
	e->r.xattrs_len = 0;
	if (e->xattrs)
		e->r.xattrs = g_bytes_get_data(e->xattrs, &e->r.xattrs_len);
	e->r.has_ptime = true;
	e->r.ptime = dir.attr.mtime;
	e->po->op->content = S_ISREG(e->o.attr.mode);
	e->po->op->whole = TRUE;
	if (e->po->patch) {
		/* an upload for the object that the server had: of some bytes alone */
		g_clear_pointer(&e->po->file, g_free);
		e->po->patch = FALSE;
	}
	if (!e->po->op->content_recno)
		e->po->op->content_recno = recno;
	return TRUE;
}

/* --- content --- */

static gboolean same_content(const struct stat *a, const struct stat *b)
{
	return a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
		a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static EncodeResult encode_inline(Encode *e, int fd, const struct stat *before)
{
	struct stat after;

	e->data = g_malloc(before->st_size + 1);
	if (pread_all(fd, e->data, before->st_size, 0) || fstat(fd, &after) < 0 ||
	    !same_content(before, &after))
		return ENCODE_LATER;
	e->r.data = (struct kml_str) { (const char *)e->data, before->st_size };
	e->r.attr.size = before->st_size;
	e->r.attr.mtime = (struct kml_time) { before->st_mtim.tv_sec, before->st_mtim.tv_nsec };
	e->r.flags |= e->r.opcode == KML_CLOSE ? KML_F_RANGES_ALL : 0;
	return ENCODE_DONE;
}

static void encode_upload_done(IsdPush *p, PushOp *po, UploadEnd end, const GError *error)
{
	isd_push_uploaded(p, po, end == UPLOAD_CHANGED, error);
}

/* The upload is finished: the record says what it holds. */
static void encode_file(Encode *e)
{
	PushOp *po = e->po;

	e->r.file = (struct kml_str) { po->file, strlen(po->file) };
	e->r.attr.size = po->size;
	e->r.attr.mtime = po->mtime;
	if (!po->patch) {
		e->r.flags |= e->r.opcode == KML_CLOSE ? KML_F_RANGES_ALL : 0;
		return;
	}
	e->ranges = g_new0(struct kml_range, KML_RANGES_MAX);
	e->r.n_ranges = po->spans->len;
	for (guint i = 0; i < po->spans->len; i++) {
		const IsdSpan *s = &g_array_index(po->spans, IsdSpan, i);

		e->ranges[i].off = GUINT64_TO_LE(s->off);
		e->ranges[i].len = GUINT64_TO_LE(s->end - s->off);
	}
	e->r.ranges = e->ranges;
	e->r.has_ranges = true;
}

/* A descriptor; -ENODATA: it has no name any more; -errno: it is not where it was. */
static int encode_open(Encode *e, struct stat *ret)
{
	g_auto(IsdName) n = { 0 };
	gboolean found = FALSE;
	int fd;

	if (!e->known || !isd_state_a_name(e->p->c->state, e->o.id, &n, &found, NULL) || !found)
		return -ENODATA;
	fd = isd_local_open(e->p->c, n.parent, n.name, e->o.oid);
	if (fd >= 0 && fstat(fd, ret) < 0) {
		close(fd);
		return -EIO;
	}
	return fd;
}

static EncodeResult encode_content(Encode *e, gboolean may_upload, GError **error)
{
	struct stat st;
	GArray *spans;
	EncodeResult res;
	int fd;

	if (e->po->file) {
		encode_file(e);
		return ENCODE_DONE;
	}
	fd = encode_open(e, &st);
	if (fd == -ENODATA)
		return ENCODE_MOOT;
	if (fd < 0)
		/* it has moved, or gone, and the state does not know yet */
		return ENCODE_LATER;
	if (st.st_size <= ISD_SMALL_MAX && (guint64)st.st_blocks * 512 >= (guint64)st.st_size) {
		res = encode_inline(e, fd, &st);
		close(fd);
		return res;
	}
	if (!may_upload) {
		close(fd);
		return ENCODE_FULL;
	}
	spans = isd_push_spans(e->p, e->po, &e->o, st.st_size);
	g_clear_pointer(&e->po->spans, g_array_unref);
	e->po->spans = spans ? g_array_copy(spans) : NULL;
	return isd_push_upload(e->p, e->po, fd, spans, encode_upload_done, error) ?
		ENCODE_UPLOAD : ENCODE_FAIL;
}

/* --- the record --- */

/* The server is to take the name that it has for the object. */
static void encode_any_name(Encode *e)
{
	e->r.name = e->r.dir = (struct kml_str) { 0 };
	e->r.parent = (struct kml_oid) { 0 };
	e->r.has_ptime = false;		/* of a directory that it may not be in there */
}

/* The server may have another name for the object than the record says.  FALSE: not to be sent. */
static gboolean encode_name(Encode *e)
{
	const unsigned int op = e->r.opcode;
	gboolean moved, is_void;

	if (e->po->anew && (op == KML_LINK || op == KML_RENAME)) {
		encode_any_name(e);
		e->r.opcode = KML_LINK;
		e->r.flags = 0;
		e->r.has_old = false;
		return TRUE;
	}
	if (op != KML_RENAME && op != KML_UNLINK && op != KML_RMDIR)
		return TRUE;
	is_void = isd_push_is_void(e->p->c, e->o.id, e->r.recno, &moved);
	if (moved || (e->po->anew && op != KML_RENAME))
		encode_any_name(e);
	/* the other one would come to where nobody has had it */
	if (moved && op == KML_RENAME && (e->r.flags & KML_F_EXCHANGE))
		return FALSE;
	return op != KML_RENAME || !is_void;
}

/* The server does not have it, and no record before this one makes it. */
static gboolean encode_is_new(Encode *e)
{
	if (!e->known || e->o.soid.ino)
		return FALSE;
	return e->po->anew || (!isd_makes(e->r.opcode) && !is_being_made(e));
}

/* What the record removes has a version on the server that whoever removed it had not seen. */
static gboolean removes_unseen(Encode *e, gboolean *ret, GError **error)
{
	gboolean replaces = e->r.opcode == KML_RENAME && e->r.has_old && !(e->r.flags & KML_F_EXCHANGE);
	gboolean found = e->known;
	g_auto(IsdObject) old = { 0 };

	*ret = FALSE;
	if (!replaces && e->r.opcode != KML_UNLINK)
		return TRUE;
	if (replaces && !isd_push_find(e->p->c, e->r.old, &old, &found, error))
		return FALSE;
	return !found || isd_want_is_newer(e->p->c, replaces ? &old : &e->o, ret, error);
}

static EncodeResult encode_prepare(Encode *e, gboolean may_upload, GError **error)
{
	const IsdOp *op = e->po->op;
	gboolean moot = FALSE, regular, newer = FALSE;

	e->r = op->r;
	if (e->r.opcode == KML_RESYNC)
		e->r.opcode = KML_CLOSE;
	if (!isd_push_find(e->p->c, op->r.obj, &e->o, &e->known, error))
		return ENCODE_FAIL;
	if (!removes_unseen(e, &moot, error))
		return ENCODE_FAIL;
	if (moot || !encode_name(e))
		return ENCODE_MOOT;
	/* it came back since, or the server has removed it as well */
	if (e->r.opcode == KML_RENAME && e->r.has_old && !(e->r.flags & KML_F_EXCHANGE) &&
	    isd_push_is_covered(e->p->c, e->r.old, e->r.recno))
		e->r.has_old = false;
	if (encode_is_new(e)) {
		if (op->r.opcode == KML_UNLINK || op->r.opcode == KML_RMDIR)
			return ENCODE_MOOT;
		if (!encode_as_new(e, &moot, error))
			return ENCODE_FAIL;
	}
	if (moot || (!e->known && (op->r.opcode == KML_CLOSE || op->r.opcode == KML_SETATTR ||
				   op->r.opcode == KML_SETXATTR || op->r.opcode == KML_RESYNC ||
				   op->r.opcode == KML_REMOVEXATTR)))
		return ENCODE_MOOT;
	regular = !e->r.has_attr || S_ISREG(e->r.attr.mode) || e->r.opcode == KML_CLOSE;
	if (!op->content || !regular || e->po->bare)
		return ENCODE_DONE;
	/* who wrote this had not seen what is still to come: want.c finds out that both were written */
	if (!isd_makes(e->r.opcode) && e->o.oid.ino &&
	    !isd_want_is_newer(e->p->c, &e->o, &newer, error))
		return ENCODE_FAIL;
	if (newer)
		return ENCODE_LATER;
	e->r.has_ranges = false;
	e->r.n_ranges = 0;
	e->r.flags &= ~KML_F_RANGES_ALL;
	return encode_content(e, may_upload, error);
}

static gboolean encode_numbers(Encode *e, GError **error)
{
	if (isd_makes(e->r.opcode))
		e->r.ref_own |= KML_REF_OBJ;
	else if (!encode_number(e, &e->r.obj, KML_REF_OBJ, error))
		return FALSE;
	if (e->r.flags & KML_F_REPLACED) {
		e->r.flags &= ~KML_F_REPLACED;
		e->r.has_old = false;
	}
	return encode_number(e, &e->r.parent, KML_REF_PARENT, error) &&
	       encode_number(e, &e->r.tparent, KML_REF_TPARENT, error) &&
	       (!e->r.has_old || encode_number(e, &e->r.old, KML_REF_OLD, error));
}

/*
 * Content that cannot be had now: the creation goes without it.  That is remembered, since
 * the server may say so after a restart.
 */
static gboolean encode_bare(Encode *e, GError **error)
{
	e->r.attr.size = 0;
	e->r.data = e->r.file = (struct kml_str) { 0 };
	return isd_sql_run(e->p->c->state, error, "INSERT OR IGNORE INTO client_bare VALUES(?)",
			   "i", (gint64)e->po->op->r.recno);
}

EncodeResult isd_push_encode(IsdPush *p, PushOp *po, GByteArray *body, GError **error)
{
	g_auto(Encode) e = { .p = p, .po = po };
	EncodeResult res = encode_prepare(&e, !body->len, error);
	guint at = body->len;
	ssize_t len;

	if (isd_makes(po->op->r.opcode) &&
	    (res == ENCODE_LATER || (res == ENCODE_MOOT && !po->anew))) {
		/* what comes after it in the log needs it, whatever became of it */
		po->bare = TRUE;
		res = ENCODE_DONE;
	}
	if (res != ENCODE_DONE)
		return res;
	if (po->bare && !encode_bare(&e, error))
		return ENCODE_FAIL;
	if (!encode_numbers(&e, error))
		return ENCODE_FAIL;
	po->sent_soid = e.r.ref_own & KML_REF_OBJ ? (struct kml_oid) { 0 } : e.r.obj;
	po->sent_dirs[0] = e.r.parent;
	po->sent_dirs[1] = e.r.tparent;
	po->sent_own = e.r.ref_own;
	if (body->len && body->len + kml_encoded_size(&e.r) > BODY_MAX)
		return ENCODE_FULL;
	g_byte_array_set_size(body, at + kml_encoded_size(&e.r));
	len = kml_encode(body->data + at, body->len - at, &e.r);
	g_byte_array_set_size(body, at + MAX(len, 0));
	if (len > 0)
		return ENCODE_DONE;
	po->err = -len;
	return ENCODE_LATER;
}
