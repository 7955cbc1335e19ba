// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A tree in memory, made from records; see model.h.  Strict: a record that
 * names what is not there, makes what is there already or removes something
 * else than it says is a fault of the log.
 */
#include "model.h"

#include <err.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "util.h"

static void *zalloc(size_t n)
{
	void *p = calloc(1, n ? n : 1);

	if (!p)
		err(2, "memory");
	return p;
}

static bool __attribute__((format(printf, 3, 4)))
fault(struct model *m, const struct kml_record *r, const char *fmt, ...)
{
	char *name = name_escape(r->name.ptr ? r->name.ptr : "", r->name.len);
	const char *op = kml_opcode_name(r->opcode);
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(m->why, sizeof(m->why), "record %llu %s \"%.255s\" (object %llu): %s",
		 (unsigned long long)r->recno, op ? op : "?", name ? name : "",
		 (unsigned long long)r->obj.ino, text);
	free(name);
	return false;
}

static size_t hash(uint64_t a, const void *bytes, size_t len)
{
	uint64_t h = (a + 1) * 0x9e3779b97f4a7c15ull;

	for (size_t i = 0; i < len; i++)
		h = (h ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3ull;
	return h ^ h >> 29;
}

void model_init(struct model *m)
{
	memset(m, 0, sizeof(*m));
	m->object_size = m->entry_size = 1 << 18;
	m->objects = zalloc(m->object_size * sizeof(*m->objects));
	m->entries = zalloc(m->entry_size * sizeof(*m->entries));
}

static struct object **object_slot(struct model *m, struct kml_oid oid)
{
	struct object **o = &m->objects[hash(oid.ino, NULL, 0) % m->object_size];

	while (*o && ((*o)->oid.ino != oid.ino || (*o)->oid.gen != oid.gen))
		o = &(*o)->next;
	return o;
}

struct object *model_object(struct model *m, struct kml_oid oid)
{
	return *object_slot(m, oid);
}

static struct entry **entry_slot(struct model *m, const struct object *dir,
				 const char *name, size_t len)
{
	struct entry **e = &m->entries[hash(dir->oid.ino, name, len) % m->entry_size];

	while (*e && ((*e)->dir != dir || (*e)->len != len ||
		      memcmp((*e)->name, name, len)))
		e = &(*e)->next;
	return e;
}

struct entry *model_entry(struct model *m, const struct object *dir,
			  const char *name, size_t len)
{
	return *entry_slot(m, dir, name, len);
}

const struct xattr *model_xattr(const struct object *o, const char *name, size_t len)
{
	const struct xattr *x;

	for (x = o->xattrs; x; x = x->next)
		if (x->name_len == len && !memcmp(x->bytes, name, len))
			return x;
	return NULL;
}

static bool xattr_remove(struct object *o, const char *name, size_t len)
{
	for (struct xattr **x = &o->xattrs; *x; x = &(*x)->next) {
		struct xattr *old = *x;

		if (old->name_len != len || memcmp(old->bytes, name, len))
			continue;
		*x = old->next;
		free(old);
		return true;
	}
	return false;
}

static void xattr_set(struct object *o, const struct kml_str *name,
		      const struct kml_str *value)
{
	struct xattr *x = zalloc(sizeof(*x) + name->len + value->len);

	xattr_remove(o, name->ptr, name->len);
	x->name_len = name->len;
	x->value_len = value->len;
	memcpy(x->bytes, name->ptr, name->len);
	if (value->len)
		memcpy(x->bytes + name->len, value->ptr, value->len);
	x->next = o->xattrs;
	o->xattrs = x;
}

static void xattrs_set(struct object *o, const struct kml_record *r)
{
	struct kml_str name, value;
	size_t pos = 0;

	while (kml_xattr_next(r->xattrs, r->xattrs_len, &pos, &name, &value))
		xattr_set(o, &name, &value);
}

static void object_free(struct object *o)
{
	while (o->xattrs) {
		struct xattr *x = o->xattrs;

		o->xattrs = x->next;
		free(x);
	}
	free(o->link);
	free(o);
}

static void object_drop(struct model *m, struct object *o)
{
	struct object **slot = object_slot(m, o->oid);

	*slot = o->next;
	m->n_objects--;
	object_free(o);
}

static struct object *object_make(struct model *m, const struct kml_record *r)
{
	struct object *o = zalloc(sizeof(*o)), **slot;

	o->oid = r->obj;
	o->attr = r->attr;
	o->ctime = r->attr.ctime;
	if (r->link.ptr) {
		o->link = zalloc(r->link.len + 1);
		memcpy(o->link, r->link.ptr, r->link.len);
		o->link_len = r->link.len;
	}
	xattrs_set(o, r);
	slot = object_slot(m, o->oid);
	*slot = o;
	m->n_objects++;
	return o;
}

static void entry_make(struct model *m, struct object *dir, const struct kml_str *name,
		       struct object *o)
{
	struct entry *e = zalloc(sizeof(*e) + name->len + 1), **slot;

	e->dir = dir;
	e->obj = o;
	e->len = name->len;
	memcpy(e->name, name->ptr, name->len);
	slot = entry_slot(m, dir, e->name, e->len);
	*slot = e;
	m->n_entries++;
	o->names++;
	dir->children++;
}

static void entry_drop(struct model *m, struct entry *e)
{
	struct entry **slot = entry_slot(m, e->dir, e->name, e->len);

	*slot = e->next;
	e->obj->names--;
	e->dir->children--;
	m->n_entries--;
	free(e);
}

/* the directory that a record speaks of */
static struct object *dir_of(struct model *m, struct kml_oid oid)
{
	struct object *d = model_object(m, oid);

	return d && S_ISDIR(d->attr.mode) && (d->names || d == m->root) ? d : NULL;
}

static bool apply_make(struct model *m, const struct kml_record *r)
{
	struct object *dir = dir_of(m, r->parent), *old = model_object(m, r->obj);

	if (!r->has_attr)
		return fault(m, r, "no attributes");
	if (r->opcode == KML_MKDIR && !r->name.len && !m->root) {
		m->root = object_make(m, r);
		m->root->names = 1;
		return true;
	}
	if (!dir)
		return fault(m, r, "parent %llu is no directory",
			     (unsigned long long)r->parent.ino);
	if (!r->name.len)
		return fault(m, r, "no name");
	if (model_entry(m, dir, r->name.ptr, r->name.len))
		return fault(m, r, "the name exists");
	if (old && old->names)
		return fault(m, r, "the object exists under another name");
	if (old)	/* unlinked, and its number used again */
		object_drop(m, old);
	entry_make(m, dir, &r->name, object_make(m, r));
	return true;
}

static bool apply_link(struct model *m, const struct kml_record *r)
{
	struct object *dir = dir_of(m, r->tparent), *o = model_object(m, r->obj);

	if (!dir)
		return fault(m, r, "target parent is no directory");
	if (!o)
		return fault(m, r, "no such object");
	if (model_entry(m, dir, r->tname.ptr, r->tname.len))
		return fault(m, r, "the new name exists");
	entry_make(m, dir, &r->tname, o);
	if (r->has_attr)
		o->ctime = r->attr.ctime;
	return true;
}

static struct entry *named(struct model *m, const struct kml_record *r)
{
	struct object *dir = dir_of(m, r->parent);
	struct entry *e = dir ? model_entry(m, dir, r->name.ptr, r->name.len) : NULL;

	if (!dir)
		fault(m, r, "parent %llu is no directory",
		      (unsigned long long)r->parent.ino);
	else if (!e)
		fault(m, r, "no such name");
	return e;
}

static bool same(const struct object *o, struct kml_oid oid)
{
	return o->oid.ino == oid.ino && o->oid.gen == oid.gen;
}

static bool removable(struct model *m, const struct kml_record *r, const struct object *o,
		      bool old_needed)
{
	if (S_ISDIR(o->attr.mode) && o->children)
		return fault(m, r, "the directory is not empty");
	if (old_needed && !r->has_old)
		return fault(m, r, "does not say what it removed (OLD)");
	if (r->has_old && !same(o, r->old))
		return fault(m, r, "OLD is object %llu, but the name is %llu",
			     (unsigned long long)r->old.ino,
			     (unsigned long long)o->oid.ino);
	return true;
}

static bool apply_unlink(struct model *m, const struct kml_record *r)
{
	struct entry *e = named(m, r);

	if (!e)
		return false;
	if (!same(e->obj, r->obj))
		return fault(m, r, "the name is object %llu",
			     (unsigned long long)e->obj->oid.ino);
	if (!S_ISDIR(e->obj->attr.mode) != (r->opcode == KML_UNLINK))
		return fault(m, r, "wrong operation for this type");
	if (!removable(m, r, e->obj, true))
		return false;
	entry_drop(m, e);
	return true;
}

static bool apply_exchange(struct model *m, const struct kml_record *r, struct entry *e,
			   struct entry *t)
{
	struct object *o;

	if (!t)
		return fault(m, r, "exchange with a name that does not exist");
	if (r->has_old && !same(t->obj, r->old))
		return fault(m, r, "OLD is object %llu, but the other name is %llu",
			     (unsigned long long)r->old.ino,
			     (unsigned long long)t->obj->oid.ino);
	o = e->obj;
	e->obj = t->obj;
	t->obj = o;
	return true;
}

static bool apply_rename(struct model *m, const struct kml_record *r)
{
	struct object *tdir = dir_of(m, r->tparent), *o;
	struct entry *e = named(m, r), *t;

	if (!e)
		return false;
	if (!tdir)
		return fault(m, r, "target parent is no directory");
	o = e->obj;
	if (!same(o, r->obj))
		return fault(m, r, "the name is object %llu",
			     (unsigned long long)o->oid.ino);
	t = model_entry(m, tdir, r->tname.ptr, r->tname.len);
	if (r->flags & KML_F_EXCHANGE)
		return apply_exchange(m, r, e, t);
	if (t && r->flags & KML_F_NOREPLACE)
		return fault(m, r, "noreplace, but the new name exists");
	if (t && !removable(m, r, t->obj, true))
		return false;
	if (!t && r->has_old)
		return fault(m, r, "says that it replaced something");
	if (t)
		entry_drop(m, t);
	entry_make(m, tdir, &r->tname, o);
	entry_drop(m, e);
	if (r->has_attr)
		o->ctime = r->attr.ctime;
	return true;
}

static void take_attr(struct object *o, const struct kml_record *r)
{
	uint32_t valid = r->attr.valid ? r->attr.valid : ~0u;

	if (valid & KML_A_MODE)
		o->attr.mode = r->attr.mode;
	if (valid & KML_A_UID)
		o->attr.uid = r->attr.uid;
	if (valid & KML_A_GID)
		o->attr.gid = r->attr.gid;
	if (valid & KML_A_SIZE)
		o->attr.size = r->attr.size;
	if (valid & KML_A_MTIME)
		o->attr.mtime = r->attr.mtime;
	o->ctime = r->attr.ctime;
	o->unsure = false;
}

/* New content came as a new inode: the object has another number now. */
static bool renumber(struct model *m, const struct kml_record *r)
{
	struct object *o = model_object(m, r->old), **slot;

	if (!o)
		return fault(m, r, "replaces an object that is not there");
	slot = object_slot(m, o->oid);
	*slot = o->next;
	o->next = NULL;
	o->oid = r->obj;
	slot = object_slot(m, o->oid);
	if (*slot)
		return fault(m, r, "the new inode is another object already");
	*slot = o;
	return true;
}

static bool apply_attr(struct model *m, const struct kml_record *r)
{
	struct object *o;

	if (r->flags & KML_F_REPLACED && !renumber(m, r))
		return false;
	o = model_object(m, r->obj);
	if (!o)
		return fault(m, r, "no such object");
	if (!r->has_attr)
		return fault(m, r, "no attributes");
	take_attr(o, r);
	return true;
}

static bool apply_xattr(struct model *m, const struct kml_record *r)
{
	struct object *o = model_object(m, r->obj);
	struct kml_str name, value;
	size_t pos = 0;

	if (!o)
		return fault(m, r, "no such object");
	if (!kml_xattr_next(r->xattrs, r->xattrs_len, &pos, &name, &value))
		return fault(m, r, "no xattr");
	if (r->opcode == KML_SETXATTR)
		xattr_set(o, &name, &value);
	else if (!xattr_remove(o, name.ptr, name.len))
		return fault(m, r, "the object does not have that xattr");
	if (r->has_attr) {	/* an ACL is the mode, too */
		o->attr.mode = r->attr.mode;
		o->ctime = r->attr.ctime;
	}
	return true;
}

static bool apply_resync(struct model *m, const struct kml_record *r)
{
	struct object *o = model_object(m, r->obj);

	m->resyncs++;
	if (o)
		o->unsure = true;
	return true;
}

static bool apply_op(struct model *m, const struct kml_record *r)
{
	switch (r->opcode) {
	case KML_CREATE:
	case KML_MKDIR:
	case KML_SYMLINK:
	case KML_MKNOD:
		return apply_make(m, r);
	case KML_LINK:
		return apply_link(m, r);
	case KML_UNLINK:
	case KML_RMDIR:
		return apply_unlink(m, r);
	case KML_RENAME:
		return apply_rename(m, r);
	case KML_CLOSE:
	case KML_SETATTR:
		return apply_attr(m, r);
	case KML_SETXATTR:
	case KML_REMOVEXATTR:
		return apply_xattr(m, r);
	case KML_RESYNC:
	case KML_LOOK:
		return apply_resync(m, r);
	case KML_CATALOG_END:
		return true;
	}
	return fault(m, r, "unknown operation");
}

void model_excuse(struct model *m)
{
	for (size_t i = 0; i < m->entry_size; i++)
		for (struct entry *e = m->entries[i]; e; e = e->next)
			e->obj->excused |= e->dir->unsure;
}

bool model_apply(struct model *m, const struct kml_record *r)
{
	struct object *d;

	if (!apply_op(m, r))
		return false;
	if (!r->has_ptime)
		return true;
	d = model_object(m, r->parent);
	if (d)
		d->attr.mtime = r->ptime;
	d = model_object(m, r->tparent);
	if (d && (r->opcode == KML_RENAME || r->opcode == KML_LINK))
		d->attr.mtime = r->tptime;
	return true;
}
