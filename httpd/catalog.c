/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET catalog: the whole fileset at one position of the log, as records.
 *
 * A walk from the root, parents first, with a stack of directories on the heap:
 * neither a deep nor a wide tree needs much memory.  An object with several
 * names is made at one of them (the one that isd_state_a_name() tells); a
 * second walk, only if there are such objects, adds the others as LINKs.
 */
#include "reader.h"

#include <stdlib.h>
#include <string.h>

#define PAGE_NAMES	256	/* names that a directory has read ahead */
#define PAGE_DEEP	8	/* ... when the stack is deep */
#define DEEP		64
#define REC_ROOM	(2 * KML_REC_MAX)

struct frame {
	int64_t		id;
	struct kml_oid	oid;
	GArray		*page;	/* of IsdName */
	guint		next;	/* in page */
	gboolean	last;	/* no page follows this one */
};

struct walk {
	IsdState	*state;
	GArray		*stack;	/* of struct frame */
	gboolean	links;	/* the second walk */
	gboolean	more;	/* there are objects with several names */
	uint64_t	recno;
	char		*buf;
	size_t		len;
	mis_sink	sink;
	void		*data;
};

static int flush(struct walk *w)
{
	char *buf = w->buf;
	size_t len = w->len;

	w->buf = NULL;
	w->len = 0;
	if (len)
		return w->sink(w->data, buf, len) ? MIS_BROKEN : 0;
	free(buf);
	return 0;
}

static int put(struct walk *w, struct kml_record *rec)
{
	ssize_t n;

	if (w->len > MIS_CHUNK && flush(w))
		return MIS_BROKEN;
	if (!w->buf)
		w->buf = malloc(MIS_CHUNK + REC_ROOM);
	if (!w->buf)
		return MIS_BROKEN;
	rec->recno = ++w->recno;
	n = kml_encode(w->buf + w->len, MIS_CHUNK + REC_ROOM - w->len, rec);
	if (n < 0)
		return MIS_BROKEN;
	w->len += n;
	return 0;
}

static unsigned int opcode_of(uint32_t mode)
{
	if (S_ISREG(mode))
		return KML_CREATE;
	if (S_ISDIR(mode))
		return KML_MKDIR;
	return S_ISLNK(mode) ? KML_SYMLINK : KML_MKNOD;
}

/* name NULL: the root */
static int put_object(struct walk *w, const IsdObject *o, struct kml_oid parent, const char *name)
{
	struct kml_record rec = {
		.opcode = opcode_of(o->attr.mode),
		.obj = o->oid,
		.parent = parent,
		.name = { name, name ? strlen(name) : 0 },
		.link = { o->link, o->link_len },
		.has_attr = true,
		.attr = o->attr,
		.has_version = true,
		.version_content = o->cver,
		.version_attr = o->aver,
	};
	g_autoptr(GBytes) xattrs = NULL;

	if (!isd_state_xattrs(w->state, o->id, &xattrs, NULL))
		return MIS_BROKEN;
	if (xattrs)
		rec.xattrs = g_bytes_get_data(xattrs, &rec.xattrs_len);
	rec.attr.valid = 0;
	return put(w, &rec);
}

static void push(struct walk *w, const IsdObject *o)
{
	struct frame f = { .id = o->id, .oid = o->oid };

	g_array_append_val(w->stack, f);
}

static void pop(struct walk *w)
{
	struct frame *f = &g_array_index(w->stack, struct frame, w->stack->len - 1);

	g_clear_pointer(&f->page, g_array_unref);
	g_array_set_size(w->stack, w->stack->len - 1);
}

/* The next page of the directory on top; sets *ret_done behind the last one. */
static int turn_page(struct walk *w, struct frame *f, gboolean *ret_done)
{
	guint max = w->stack->len > DEEP ? PAGE_DEEP : PAGE_NAMES;
	g_autofree char *after = NULL;

	*ret_done = f->last;
	if (f->last)
		return 0;
	if (f->page && f->page->len)
		after = g_strdup(g_array_index(f->page, IsdName, f->page->len - 1).name);
	g_clear_pointer(&f->page, g_array_unref);
	if (!isd_state_list(w->state, f->id, after, max, &f->page, NULL))
		return MIS_BROKEN;
	f->next = 0;
	f->last = f->page->len < max;
	*ret_done = !f->page->len;
	return 0;
}

/* Is this the name at which the object is made? */
static int is_first(struct walk *w, const IsdObject *o, const IsdName *n, gboolean *ret)
{
	g_auto(IsdName) first = { 0 };
	gboolean found;

	if (!isd_state_a_name(w->state, o->id, &first, &found, NULL) || !found)
		return MIS_BROKEN;
	*ret = first.parent == n->parent && !strcmp(first.name, n->name);
	return 0;
}

static int put_link(struct walk *w, const IsdObject *o, struct kml_oid tparent, const IsdName *n)
{
	struct kml_record rec = {
		.opcode = KML_LINK,
		.obj = o->oid,
		.tparent = tparent,
		.tname = { n->name, strlen(n->name) },
		.has_attr = true,
		.attr = o->attr,
	};
	g_auto(IsdName) first = { 0 };
	g_auto(IsdObject) dir = { 0 };
	gboolean found;

	if (!isd_state_a_name(w->state, o->id, &first, &found, NULL) || !found ||
	    !isd_state_by_id(w->state, first.parent, &dir, &found, NULL) || !found)
		return MIS_BROKEN;
	rec.parent = dir.oid;
	rec.name.ptr = first.name;
	rec.name.len = strlen(first.name);
	rec.attr.valid = 0;
	return put(w, &rec);
}

static int visit(struct walk *w, struct kml_oid parent, const IsdName *n)
{
	g_auto(IsdObject) o = { 0 };
	gboolean found, first = TRUE;

	if (!isd_state_by_id(w->state, n->id, &o, &found, NULL) || !found)
		return MIS_BROKEN;
	if (S_ISDIR(o.attr.mode)) {
		if (!w->links && put_object(w, &o, parent, n->name))
			return MIS_BROKEN;
		push(w, &o);
		return 0;
	}
	if (o.attr.nlink > 1) {
		w->more = TRUE;
		if (is_first(w, &o, n, &first))
			return MIS_BROKEN;
	}
	if (first)
		return w->links ? 0 : put_object(w, &o, parent, n->name);
	return w->links ? put_link(w, &o, parent, n) : 0;
}

static int walk_tree(struct walk *w, const IsdObject *root)
{
	push(w, root);
	while (w->stack->len) {
		struct frame *f = &g_array_index(w->stack, struct frame, w->stack->len - 1);
		gboolean done = FALSE;

		if ((!f->page || f->next == f->page->len) && turn_page(w, f, &done))
			return MIS_BROKEN;
		if (done)
			pop(w);
		else if (visit(w, f->oid, &g_array_index(f->page, IsdName, f->next++)))
			return MIS_BROKEN;
	}
	return 0;
}

static int catalog(struct walk *w)
{
	struct kml_record end = { .opcode = KML_CATALOG_END };
	g_auto(IsdObject) root = { 0 };
	gboolean found;

	if (!isd_state_by_id(w->state, ISD_ROOT_ID, &root, &found, NULL) || !found)
		return MIS_BROKEN;
	if (put_object(w, &root, (struct kml_oid) { 0 }, NULL) || walk_tree(w, &root))
		return MIS_BROKEN;
	w->links = TRUE;
	if (w->more && walk_tree(w, &root))
		return MIS_BROKEN;
	if (put(w, &end))
		return MIS_BROKEN;
	return flush(w);
}

/* --- some objects alone --- */

/* At the name that a catalog would make it at, then its other names. */
static int tell(struct walk *w, const IsdObject *o)
{
	g_autoptr(GArray) names = NULL;
	gboolean first;
	guint i;

	if (o->id == ISD_ROOT_ID)
		return put_object(w, o, (struct kml_oid) { 0 }, NULL);
	if (!isd_state_names(w->state, o->id, &names, NULL))
		return MIS_BROKEN;
	for (w->links = FALSE; ; w->links = TRUE) {
		for (i = 0; i < names->len; i++) {
			const IsdName *n = &g_array_index(names, IsdName, i);
			g_auto(IsdObject) dir = { 0 };
			gboolean found;

			if (is_first(w, o, n, &first) ||
			    !isd_state_by_id(w->state, n->parent, &dir, &found, NULL) || !found)
				return MIS_BROKEN;
			if (first == w->links)
				continue;
			if (first ? put_object(w, o, dir.oid, n->name) :
				    put_link(w, o, dir.oid, n))
				return MIS_BROKEN;
		}
		if (w->links)
			return 0;
	}
}

/* The object that a question is about: itself, or what has a name. */
static int find_asked(struct walk *w, const struct kml_record *q, IsdObject *ret, gboolean *ret_found)
{
	g_autofree char *name = NULL;
	g_auto(IsdObject) dir = { 0 };
	g_auto(IsdName) n = { 0 };

	if (!q->tname.ptr)
		return isd_state_by_oid(w->state, q->obj, ret, ret_found, NULL) ? 0 : MIS_BROKEN;
	name = g_strndup(q->tname.ptr, q->tname.len);
	if (!isd_state_by_oid(w->state, q->tparent, &dir, ret_found, NULL) ||
	    (*ret_found && !isd_state_lookup(w->state, dir.id, name, &n, ret_found, NULL)) ||
	    (*ret_found && !isd_state_by_id(w->state, n.id, ret, ret_found, NULL)))
		return MIS_BROKEN;
	return 0;
}

static int where(struct walk *w, const char *req, size_t len)
{
	struct kml_record q, end = { .opcode = KML_CATALOG_END };
	size_t pos;

	for (pos = 0; pos < len; ) {
		g_auto(IsdObject) o = { 0 };
		gboolean found;

		pos += kml_decode(req + pos, len - pos, &q);
		if (find_asked(w, &q, &o, &found) || (found && tell(w, &o)))
			return MIS_BROKEN;
	}
	return put(w, &end) ? MIS_BROKEN : flush(w);
}

static bool is_asking(const char *req, size_t len)
{
	size_t pos = 0;

	while (pos < len) {
		struct kml_record q;
		ssize_t step = kml_decode(req + pos, len - pos, &q);

		if (step <= 0 || q.opcode != KML_RESYNC)
			return false;
		pos += step;
	}
	return true;
}

int mis_where(const struct mis_fileset *f, struct mis_reader *r, const void *req, size_t len,
	      mis_sink sink, void *data)
{
	struct walk w = { .state = r->state, .sink = sink, .data = data };
	int err;

	if (!is_asking(req, len))
		return 400;
	err = where(&w, req, len);
	free(w.buf);
	return err ? MIS_BROKEN : 200;
}

/* --- all of it --- */

int mis_catalog(const struct mis_fileset *f, struct mis_reader *r, mis_sink sink, void *data)
{
	struct walk w = { .state = r->state, .sink = sink, .data = data };
	int err;

	w.stack = g_array_new(FALSE, TRUE, sizeof(struct frame));
	err = catalog(&w);
	while (w.stack->len)
		pop(&w);
	g_array_unref(w.stack);
	free(w.buf);
	return err ? MIS_BROKEN : 200;
}
