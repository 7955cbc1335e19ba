// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Encoding and decoding of KML records (doc/kml.md).  Shared by the kernel
 * module and all of user space: no allocation, no I/O, nothing of libc but
 * the mem*() functions and strlen().  Buffers need no alignment.
 */
#include "record.h"

#ifdef __KERNEL__
#include <linux/errno.h>
#include <linux/stddef.h>
#include <linux/string.h>
#else
#include <errno.h>
#include <string.h>
#endif

#include "byteorder.h"
#include "crc32c.h"

#define NSEC_PER_SECOND	1000000000u
#define NAME_LEN_MAX	255
#define LINK_LEN_MAX	4095
#define XATTR_VALUE_MAX	65536
#define SIZE_LIMIT	0x7fffffffffffffffULL	/* of a file: loff_t */

#define SIZE_IS(type, size) \
	_Static_assert(sizeof(type) == (size), "size of " #type)
#define OFFSET_IS(type, field, off) \
	_Static_assert(offsetof(type, field) == (off), "offset of " #field)

SIZE_IS(struct kml_header, 144);
OFFSET_IS(struct kml_header, crc, 12);
OFFSET_IS(struct kml_header, fileset_uuid, 24);
OFFSET_IS(struct kml_header, epoch, 56);
OFFSET_IS(struct kml_header, first_recno, 72);
OFFSET_IS(struct kml_header, fileset, 80);
SIZE_IS(struct kml_rec, 96);
OFFSET_IS(struct kml_rec, crc, 4);
OFFSET_IS(struct kml_rec, magic, 8);
OFFSET_IS(struct kml_rec, opcode, 12);
OFFSET_IS(struct kml_rec, recno, 16);
OFFSET_IS(struct kml_rec, time_sec, 32);
OFFSET_IS(struct kml_rec, pid, 44);
OFFSET_IS(struct kml_rec, gen, 60);
OFFSET_IS(struct kml_rec, ino, 64);
OFFSET_IS(struct kml_rec, tparent_ino, 80);
OFFSET_IS(struct kml_rec, tparent_gen, 92);
SIZE_IS(struct kml_rec_tail, 8);
SIZE_IS(struct kml_item, 8);
SIZE_IS(struct kml_attr, 64);
OFFSET_IS(struct kml_attr, mtime_nsec, 28);
OFFSET_IS(struct kml_attr, size, 32);
OFFSET_IS(struct kml_attr, ctime_nsec, 56);
SIZE_IS(struct kml_old, 80);
OFFSET_IS(struct kml_old, attr, 16);
SIZE_IS(struct kml_xattr, 8);
SIZE_IS(struct kml_range, 16);
SIZE_IS(struct kml_origin, 40);
OFFSET_IS(struct kml_origin, gen, 32);
SIZE_IS(struct kml_ptime, 24);
OFFSET_IS(struct kml_ptime, nsec, 16);
SIZE_IS(struct kml_version, 16);
SIZE_IS(struct kml_ref, 8);

static size_t align8(size_t n)
{
	return (n + 7) & ~(size_t) 7;
}

/* The checksum of a record as if its crc field were zero. */
static uint32_t record_crc(const void *rec, size_t len)
{
	static const char zero[4];
	const size_t at = offsetof(struct kml_rec, crc);
	uint32_t crc;

	crc = izo_crc32c(0, rec, at);
	crc = izo_crc32c(crc, zero, sizeof(zero));
	return izo_crc32c(crc, (const char *) rec + at + 4, len - at - 4);
}

/*
 * What items may hold.  Encoder and decoder ask the same questions, so that
 * nothing can be written that cannot be read.
 */

static bool name_ok(const char *p, size_t len)
{
	if (len == 0 || len > NAME_LEN_MAX)
		return false;
	if (p[0] == '.' && (len == 1 || (len == 2 && p[1] == '.')))
		return false;
	return !memchr(p, '/', len) && !memchr(p, 0, len);
}

/* "/", or "/name" once or several times */
static bool path_ok(const char *p, size_t len)
{
	const char *end = p + len;

	if (len == 1)
		return *p == '/';
	while (p < end) {
		const char *slash;

		if (*p++ != '/')
			return false;
		slash = memchr(p, '/', end - p);
		if (!slash)
			slash = end;
		if (!name_ok(p, slash - p))
			return false;
		p = slash;
	}
	return len != 0;
}

static bool link_ok(const char *p, size_t len)
{
	return len != 0 && len <= LINK_LEN_MAX && !memchr(p, 0, len);
}

static bool data_ok(const char *p, size_t len)
{
	return len <= KML_DATA_MAX;
}

static bool time_ok(const struct kml_time *t)
{
	return t->nsec < NSEC_PER_SECOND;
}

static bool attr_ok(const struct kml_attrs *a)
{
	return a->size <= SIZE_LIMIT && time_ok(&a->mtime) && time_ok(&a->ctime);
}

static bool ranges_ok(const struct kml_record *r)
{
	uint64_t end = 0, off, len;
	unsigned int i;

	if (r->n_ranges > KML_RANGES_MAX)
		return false;
	for (i = 0; i < r->n_ranges; i++) {
		kml_range_get(r, i, &off, &len);
		if (len == 0 || off < end || off > SIZE_LIMIT || len > SIZE_LIMIT - off)
			return false;
		end = off + len;
	}
	return true;
}

/* One xattr item of len bytes of data; false if it is none. */
static bool xattr_parse(const char *p, size_t len, struct kml_str *ret_name,
			struct kml_str *ret_value)
{
	struct kml_xattr x;
	size_t name_len, value_len;

	if (len < sizeof(x))
		return false;
	memcpy(&x, p, sizeof(x));
	name_len = le16_to_cpu(x.name_len);
	value_len = le32_to_cpu(x.value_len);
	if (name_len == 0 || name_len > NAME_LEN_MAX || value_len > XATTR_VALUE_MAX)
		return false;
	if (len != sizeof(x) + name_len + value_len)
		return false;
	p += sizeof(x);
	if (memchr(p, 0, name_len))
		return false;
	ret_name->ptr = p;
	ret_name->len = name_len;
	ret_value->ptr = p + name_len;
	ret_value->len = value_len;
	return true;
}

/*
 * The item at pos of an area that ends at end: its type, data and what
 * follows it.  False if the area ends within it.
 */
static bool item_at(const char *area, size_t pos, size_t end, unsigned int *ret_type,
		    size_t *ret_len, size_t *ret_next)
{
	struct kml_item item;
	size_t len;

	if (end - pos < sizeof(item))
		return false;
	memcpy(&item, area + pos, sizeof(item));
	len = le32_to_cpu(item.len);
	if (len > end - pos - sizeof(item) || align8(len) > end - pos - sizeof(item))
		return false;
	*ret_type = le16_to_cpu(item.type);
	*ret_len = len;
	*ret_next = pos + sizeof(item) + align8(len);
	return true;
}

static bool xattrs_ok(const struct kml_record *r)
{
	struct kml_str name, value;
	size_t pos, len, next;
	unsigned int type;

	for (pos = 0; pos < r->xattrs_len; pos = next) {
		const char *p = (const char *) r->xattrs + pos + sizeof(struct kml_item);

		if (!item_at(r->xattrs, pos, r->xattrs_len, &type, &len, &next))
			return false;
		if (type != KML_I_XATTR || !xattr_parse(p, len, &name, &value))
			return false;
	}
	return true;
}

static bool alias_ok(const char *p, size_t len)
{
	return len > 1 && path_ok(p, len);
}

static bool aliases_ok(const struct kml_record *r)
{
	size_t pos, len, next;
	unsigned int type;

	for (pos = 0; pos < r->aliases_len; pos = next) {
		if (!item_at(r->aliases, pos, r->aliases_len, &type, &len, &next))
			return false;
		if (type != KML_I_ALIAS ||
		    !alias_ok((const char *) r->aliases + pos + sizeof(struct kml_item), len))
			return false;
	}
	return true;
}

/* Encoding */

/* Where the next item goes.  buf NULL: only count. */
struct out {
	char	*buf;
	size_t	len;
};

static void put(struct out *o, const void *p, size_t len)
{
	if (o->buf && len)
		memcpy(o->buf + o->len, p, len);
	o->len += len;
}

static void put_item(struct out *o, unsigned int type, const void *p, size_t len)
{
	static const char zeros[8];
	struct kml_item item = {
		.type = cpu_to_le16(type),
		.len = cpu_to_le32(len),
	};

	put(o, &item, sizeof(item));
	put(o, p, len);
	put(o, zeros, align8(len) - len);
}

static void put_str(struct out *o, unsigned int type, const struct kml_str *s)
{
	if (s->ptr)
		put_item(o, type, s->ptr, s->len);
}

static void attr_to_disk(struct kml_attr *d, const struct kml_attrs *a)
{
	*d = (struct kml_attr) {
		.valid = cpu_to_le32(a->valid),
		.mode = cpu_to_le32(a->mode),
		.uid = cpu_to_le32(a->uid),
		.gid = cpu_to_le32(a->gid),
		.nlink = cpu_to_le32(a->nlink),
		.rdev_major = cpu_to_le32(a->rdev_major),
		.rdev_minor = cpu_to_le32(a->rdev_minor),
		.mtime_nsec = cpu_to_le32(a->mtime.nsec),
		.size = cpu_to_le64(a->size),
		.mtime_sec = cpu_to_le64(a->mtime.sec),
		.ctime_sec = cpu_to_le64(a->ctime.sec),
		.ctime_nsec = cpu_to_le32(a->ctime.nsec),
	};
}

static void put_attr(struct out *o, const struct kml_attrs *a)
{
	struct kml_attr d;

	attr_to_disk(&d, a);
	put_item(o, KML_I_ATTR, &d, sizeof(d));
}

static void put_old(struct out *o, const struct kml_record *r)
{
	struct kml_old d = {
		.ino = cpu_to_le64(r->old.ino),
		.gen = cpu_to_le32(r->old.gen),
	};

	attr_to_disk(&d.attr, &r->old_attr);
	put_item(o, KML_I_OLD, &d, sizeof(d));
}

static void put_origin(struct out *o, const struct kml_record *r)
{
	struct kml_origin d = {
		.recno = cpu_to_le64(r->origin_recno),
		.ino = cpu_to_le64(r->origin_obj.ino),
		.gen = cpu_to_le32(r->origin_obj.gen),
	};

	memcpy(d.replica, r->origin_replica, sizeof(d.replica));
	put_item(o, KML_I_ORIGIN, &d, sizeof(d));
}

static void put_ptime(struct out *o, const struct kml_record *r)
{
	struct kml_ptime d = {
		.sec = cpu_to_le64(r->ptime.sec),
		.tsec = cpu_to_le64(r->tptime.sec),
		.nsec = cpu_to_le32(r->ptime.nsec),
		.tnsec = cpu_to_le32(r->tptime.nsec),
	};

	put_item(o, KML_I_PTIME, &d, sizeof(d));
}

static void put_version(struct out *o, const struct kml_record *r)
{
	struct kml_version d = {
		.content = cpu_to_le64(r->version_content),
		.attr = cpu_to_le64(r->version_attr),
	};

	put_item(o, KML_I_VERSION, &d, sizeof(d));
}

static void put_ref(struct out *o, const struct kml_record *r)
{
	struct kml_ref d = { .own = cpu_to_le32(r->ref_own) };

	put_item(o, KML_I_REF, &d, sizeof(d));
}

/* The order of the items of a record is that of their numbers. */
static void put_items(struct out *o, const struct kml_record *r)
{
	put_str(o, KML_I_NAME, &r->name);
	put_str(o, KML_I_DIR, &r->dir);
	put_str(o, KML_I_TNAME, &r->tname);
	put_str(o, KML_I_TDIR, &r->tdir);
	if (r->has_attr)
		put_attr(o, &r->attr);
	if (r->has_old)
		put_old(o, r);
	put_str(o, KML_I_LINK, &r->link);
	put(o, r->xattrs, r->xattrs_len);
	if (r->has_ranges)
		put_item(o, KML_I_RANGES, r->ranges,
			 (size_t) r->n_ranges * sizeof(struct kml_range));
	if (r->has_origin)
		put_origin(o, r);
	if (r->has_ptime)
		put_ptime(o, r);
	put_str(o, KML_I_DATA, &r->data);
	put_str(o, KML_I_FILE, &r->file);
	if (r->has_version)
		put_version(o, r);
	if (r->ref_own)
		put_ref(o, r);
	put(o, r->aliases, r->aliases_len);
}

static void put_head(struct out *o, const struct kml_record *r, size_t len)
{
	struct kml_rec d = {
		.len = cpu_to_le32(len),
		.magic = cpu_to_le16(KML_REC_MAGIC),
		.head_len = cpu_to_le16(sizeof(d)),
		.opcode = cpu_to_le16(r->opcode),
		.flags = cpu_to_le16(r->flags),
		.recno = cpu_to_le64(r->recno),
		.seq = cpu_to_le64(r->seq),
		.time_sec = cpu_to_le64(r->time.sec),
		.time_nsec = cpu_to_le32(r->time.nsec),
		.pid = cpu_to_le32(r->pid),
		.auid = cpu_to_le32(r->auid),
		.fsuid = cpu_to_le32(r->fsuid),
		.fsgid = cpu_to_le32(r->fsgid),
		.gen = cpu_to_le32(r->obj.gen),
		.ino = cpu_to_le64(r->obj.ino),
		.parent_ino = cpu_to_le64(r->parent.ino),
		.tparent_ino = cpu_to_le64(r->tparent.ino),
		.parent_gen = cpu_to_le32(r->parent.gen),
		.tparent_gen = cpu_to_le32(r->tparent.gen),
	};

	put(o, &d, sizeof(d));
}

size_t kml_encoded_size(const struct kml_record *r)
{
	struct out o = { NULL, sizeof(struct kml_rec) };

	put_items(&o, r);
	return o.len + sizeof(struct kml_rec_tail);
}

static bool strs_ok(const struct kml_record *r)
{
	return (!r->name.ptr || name_ok(r->name.ptr, r->name.len)) &&
	       (!r->dir.ptr || path_ok(r->dir.ptr, r->dir.len)) &&
	       (!r->tname.ptr || name_ok(r->tname.ptr, r->tname.len)) &&
	       (!r->tdir.ptr || path_ok(r->tdir.ptr, r->tdir.len)) &&
	       (!r->link.ptr || link_ok(r->link.ptr, r->link.len)) &&
	       (!r->file.ptr || name_ok(r->file.ptr, r->file.len)) &&
	       (!r->data.ptr || data_ok(r->data.ptr, r->data.len));
}

static bool record_ok(const struct kml_record *r)
{
	return strs_ok(r) && time_ok(&r->time) && xattrs_ok(r) && aliases_ok(r) &&
	       (!r->has_attr || attr_ok(&r->attr)) &&
	       (!r->has_old || attr_ok(&r->old_attr)) &&
	       (!r->has_ranges || ranges_ok(r)) &&
	       (!r->has_ptime || (time_ok(&r->ptime) && time_ok(&r->tptime)));
}

/* Content rides on a record, so its bytes do not count. */
static bool len_ok(const struct kml_record *r, size_t len)
{
	return len - (r->data.ptr ? align8(r->data.len) : 0) <= KML_REC_MAX;
}

ssize_t kml_encode(void *buf, size_t size, const struct kml_record *r)
{
	const size_t len = kml_encoded_size(r);
	struct kml_rec_tail tail = {
		.len = cpu_to_le32(len),
		.magic = cpu_to_le32(KML_REC_MAGIC),
	};
	struct out o = { buf, 0 };

	if (!record_ok(r) || !len_ok(r, len))
		return -EINVAL;
	if (len > size)
		return -ENOSPC;
	put_head(&o, r, len);
	put_items(&o, r);
	put(&o, &tail, sizeof(tail));
	kml_seal(buf, r->recno, r->seq);
	return len;
}

void kml_seal(void *rec, uint64_t recno, uint64_t seq)
{
	struct kml_rec d;

	memcpy(&d, rec, sizeof(d));
	d.recno = cpu_to_le64(recno);
	d.seq = cpu_to_le64(seq);
	memcpy(rec, &d, sizeof(d));
	d.crc = cpu_to_le32(record_crc(rec, le32_to_cpu(d.len)));
	memcpy(rec, &d, sizeof(d));
}

/* Decoding */

static bool get_str(struct kml_str *s, const char *p, size_t len,
		    bool (*ok)(const char *p, size_t len))
{
	if (s->ptr || !ok(p, len))
		return false;
	s->ptr = p;
	s->len = len;
	return true;
}

static bool attr_from_disk(struct kml_attrs *a, const struct kml_attr *d)
{
	*a = (struct kml_attrs) {
		.valid = le32_to_cpu(d->valid),
		.mode = le32_to_cpu(d->mode),
		.uid = le32_to_cpu(d->uid),
		.gid = le32_to_cpu(d->gid),
		.nlink = le32_to_cpu(d->nlink),
		.rdev_major = le32_to_cpu(d->rdev_major),
		.rdev_minor = le32_to_cpu(d->rdev_minor),
		.size = le64_to_cpu(d->size),
		.mtime.sec = le64_to_cpu(d->mtime_sec),
		.mtime.nsec = le32_to_cpu(d->mtime_nsec),
		.ctime.sec = le64_to_cpu(d->ctime_sec),
		.ctime.nsec = le32_to_cpu(d->ctime_nsec),
	};
	return attr_ok(a);
}

/*
 * A structure of the format; may only be there once.  A longer one is a later
 * version's, whose additions at its end are skipped.
 */
static bool get_struct(bool *has, void *d, size_t size, const char *p, size_t len)
{
	if (*has || len < size)
		return false;
	memcpy(d, p, size);
	*has = true;
	return true;
}

static bool get_attr(struct kml_record *r, const char *p, size_t len)
{
	struct kml_attr d;

	return get_struct(&r->has_attr, &d, sizeof(d), p, len) &&
	       attr_from_disk(&r->attr, &d);
}

static bool get_old(struct kml_record *r, const char *p, size_t len)
{
	struct kml_old d;

	if (!get_struct(&r->has_old, &d, sizeof(d), p, len))
		return false;
	r->old.ino = le64_to_cpu(d.ino);
	r->old.gen = le32_to_cpu(d.gen);
	return attr_from_disk(&r->old_attr, &d.attr);
}

static bool get_xattr(struct kml_record *r, const char *p, size_t len)
{
	const char *item = p - sizeof(struct kml_item);
	struct kml_str name, value;

	if (!xattr_parse(p, len, &name, &value))
		return false;
	if (!r->xattrs)
		r->xattrs = item;
	else if ((const char *) r->xattrs + r->xattrs_len != item)
		return false;
	r->xattrs_len += sizeof(struct kml_item) + align8(len);
	return true;
}

static bool get_alias(struct kml_record *r, const char *p, size_t len)
{
	const char *item = p - sizeof(struct kml_item);

	if (!alias_ok(p, len))
		return false;
	if (!r->aliases)
		r->aliases = item;
	else if ((const char *) r->aliases + r->aliases_len != item)
		return false;
	r->aliases_len += sizeof(struct kml_item) + align8(len);
	return true;
}

static bool get_ranges(struct kml_record *r, const char *p, size_t len)
{
	if (r->has_ranges || len % sizeof(struct kml_range) ||
	    len > KML_RANGES_MAX * sizeof(struct kml_range))
		return false;
	r->has_ranges = true;
	r->ranges = (const void *) p;
	r->n_ranges = len / sizeof(struct kml_range);
	return ranges_ok(r);
}

static bool get_origin(struct kml_record *r, const char *p, size_t len)
{
	struct kml_origin d;

	if (!get_struct(&r->has_origin, &d, sizeof(d), p, len))
		return false;
	memcpy(r->origin_replica, d.replica, sizeof(d.replica));
	r->origin_recno = le64_to_cpu(d.recno);
	r->origin_obj.ino = le64_to_cpu(d.ino);
	r->origin_obj.gen = le32_to_cpu(d.gen);
	return true;
}

static bool get_ptime(struct kml_record *r, const char *p, size_t len)
{
	struct kml_ptime d;

	if (!get_struct(&r->has_ptime, &d, sizeof(d), p, len))
		return false;
	r->ptime.sec = le64_to_cpu(d.sec);
	r->ptime.nsec = le32_to_cpu(d.nsec);
	r->tptime.sec = le64_to_cpu(d.tsec);
	r->tptime.nsec = le32_to_cpu(d.tnsec);
	return time_ok(&r->ptime) && time_ok(&r->tptime);
}

static bool get_version(struct kml_record *r, const char *p, size_t len)
{
	struct kml_version d;

	if (!get_struct(&r->has_version, &d, sizeof(d), p, len))
		return false;
	r->version_content = le64_to_cpu(d.content);
	r->version_attr = le64_to_cpu(d.attr);
	return true;
}

static bool get_ref(struct kml_record *r, const char *p, size_t len)
{
	bool has = r->ref_own != 0;
	struct kml_ref d;

	if (!get_struct(&has, &d, sizeof(d), p, len))
		return false;
	r->ref_own = le32_to_cpu(d.own);
	return true;
}

static bool get_item(struct kml_record *r, unsigned int type, const char *p, size_t len)
{
	switch (type) {
	case KML_I_NAME:
		return get_str(&r->name, p, len, name_ok);
	case KML_I_DIR:
		return get_str(&r->dir, p, len, path_ok);
	case KML_I_TNAME:
		return get_str(&r->tname, p, len, name_ok);
	case KML_I_TDIR:
		return get_str(&r->tdir, p, len, path_ok);
	case KML_I_ATTR:
		return get_attr(r, p, len);
	case KML_I_OLD:
		return get_old(r, p, len);
	case KML_I_LINK:
		return get_str(&r->link, p, len, link_ok);
	case KML_I_XATTR:
		return get_xattr(r, p, len);
	case KML_I_RANGES:
		return get_ranges(r, p, len);
	case KML_I_ORIGIN:
		return get_origin(r, p, len);
	case KML_I_PTIME:
		return get_ptime(r, p, len);
	case KML_I_DATA:
		return get_str(&r->data, p, len, data_ok);
	case KML_I_FILE:
		return get_str(&r->file, p, len, name_ok);
	case KML_I_VERSION:
		return get_version(r, p, len);
	case KML_I_REF:
		return get_ref(r, p, len);
	case KML_I_ALIAS:
		return get_alias(r, p, len);
	default:
		return true;
	}
}

static void get_head(struct kml_record *r, const struct kml_rec *d)
{
	*r = (struct kml_record) {
		.opcode = le16_to_cpu(d->opcode),
		.flags = le16_to_cpu(d->flags),
		.recno = le64_to_cpu(d->recno),
		.seq = le64_to_cpu(d->seq),
		.time.sec = le64_to_cpu(d->time_sec),
		.time.nsec = le32_to_cpu(d->time_nsec),
		.pid = le32_to_cpu(d->pid),
		.auid = le32_to_cpu(d->auid),
		.fsuid = le32_to_cpu(d->fsuid),
		.fsgid = le32_to_cpu(d->fsgid),
		.obj.ino = le64_to_cpu(d->ino),
		.obj.gen = le32_to_cpu(d->gen),
		.parent.ino = le64_to_cpu(d->parent_ino),
		.parent.gen = le32_to_cpu(d->parent_gen),
		.tparent.ino = le64_to_cpu(d->tparent_ino),
		.tparent.gen = le32_to_cpu(d->tparent_gen),
	};
}

/*
 * Whether the first 16 bytes can begin a record.  Looked at before its length
 * is believed, so that garbage is not taken for a record that is not whole yet.
 */
static bool head_plausible(const struct kml_rec *d)
{
	size_t len = le32_to_cpu(d->len), head_len = le16_to_cpu(d->head_len);

	return le16_to_cpu(d->magic) == KML_REC_MAGIC &&
	       len % 8 == 0 && len <= KML_REC_MAX + align8(KML_DATA_MAX) &&
	       head_len % 8 == 0 && head_len >= sizeof(*d) &&
	       len >= head_len + sizeof(struct kml_rec_tail);
}

static bool frame_ok(const char *buf, const struct kml_rec *d, size_t len)
{
	struct kml_rec_tail tail;

	memcpy(&tail, buf + len - sizeof(tail), sizeof(tail));
	return le32_to_cpu(tail.magic) == KML_REC_MAGIC &&
	       le32_to_cpu(tail.len) == len &&
	       le32_to_cpu(d->crc) == record_crc(buf, len);
}

static bool get_items(struct kml_record *r, const char *buf, size_t pos, size_t end)
{
	unsigned int type;
	size_t len, next;

	for (; pos < end; pos = next) {
		if (!item_at(buf, pos, end, &type, &len, &next))
			return false;
		if (!get_item(r, type, buf + pos + sizeof(struct kml_item), len))
			return false;
	}
	return true;
}

ssize_t kml_decode(const void *buf, size_t size, struct kml_record *r)
{
	const size_t peek = offsetof(struct kml_rec, recno);
	struct kml_rec d;
	size_t len;

	if (size < peek)
		return -EAGAIN;
	memcpy(&d, buf, peek);
	if (!head_plausible(&d))
		return -EBADMSG;
	len = le32_to_cpu(d.len);
	if (size < len)
		return -EAGAIN;
	memcpy(&d, buf, sizeof(d));
	if (!frame_ok(buf, &d, len))
		return -EBADMSG;
	get_head(r, &d);
	if (!get_items(r, buf, le16_to_cpu(d.head_len), len - sizeof(struct kml_rec_tail)))
		return -EBADMSG;
	if (!time_ok(&r->time) || !len_ok(r, len))
		return -EBADMSG;
	return len;
}

/* Extended attributes and ranges */

ssize_t kml_xattr_put(void *buf, size_t size, const char *name, size_t name_len,
		      const void *value, size_t value_len)
{
	struct kml_xattr x = {
		.value_len = cpu_to_le32(value_len),
		.name_len = cpu_to_le16(name_len),
	};
	struct kml_item item = { .type = cpu_to_le16(KML_I_XATTR) };
	size_t len = sizeof(x) + name_len + value_len, padded = align8(len);
	struct out o = { buf, 0 };

	if (name_len == 0 || name_len > NAME_LEN_MAX || value_len > XATTR_VALUE_MAX ||
	    memchr(name, 0, name_len))
		return -EINVAL;
	if (!buf)
		return sizeof(item) + padded;
	if (sizeof(item) + padded > size)
		return -ENOSPC;
	item.len = cpu_to_le32(len);
	put(&o, &item, sizeof(item));
	put(&o, &x, sizeof(x));
	put(&o, name, name_len);
	put(&o, value, value_len);
	memset(o.buf + o.len, 0, padded - len);
	return sizeof(item) + padded;
}

bool kml_xattr_next(const void *blob, size_t len, size_t *pos,
		    struct kml_str *ret_name, struct kml_str *ret_value)
{
	size_t item_len, next;
	unsigned int type;

	if (*pos >= len || !item_at(blob, *pos, len, &type, &item_len, &next))
		return false;
	if (type != KML_I_XATTR ||
	    !xattr_parse((const char *) blob + *pos + sizeof(struct kml_item), item_len,
			 ret_name, ret_value))
		return false;
	*pos = next;
	return true;
}

ssize_t kml_alias_put(void *buf, size_t size, const char *path, size_t len)
{
	const size_t whole = sizeof(struct kml_item) + align8(len);
	struct out o = { buf, 0 };

	if (!alias_ok(path, len))
		return -EINVAL;
	if (buf && whole > size)
		return -ENOSPC;
	put_item(&o, KML_I_ALIAS, path, len);
	return whole;
}

bool kml_alias_next(const void *blob, size_t len, size_t *pos, struct kml_str *ret_path)
{
	size_t item_len, next;
	unsigned int type;

	if (*pos >= len || !item_at(blob, *pos, len, &type, &item_len, &next))
		return false;
	ret_path->ptr = (const char *) blob + *pos + sizeof(struct kml_item);
	ret_path->len = item_len;
	*pos = next;
	return type == KML_I_ALIAS && alias_ok(ret_path->ptr, item_len);
}

void kml_range_get(const struct kml_record *r, unsigned int i,
		   uint64_t *ret_off, uint64_t *ret_len)
{
	struct kml_range d;

	memcpy(&d, (const char *) r->ranges + (size_t) i * sizeof(d), sizeof(d));
	*ret_off = le64_to_cpu(d.off);
	*ret_len = le64_to_cpu(d.len);
}

/* Names of the operations */

static const struct {
	unsigned int opcode;
	const char *name;
} opcodes[] = {
	{ KML_CREATE,		"CREATE" },
	{ KML_MKDIR,		"MKDIR" },
	{ KML_UNLINK,		"UNLINK" },
	{ KML_RMDIR,		"RMDIR" },
	{ KML_CLOSE,		"CLOSE" },
	{ KML_SYMLINK,		"SYMLINK" },
	{ KML_RENAME,		"RENAME" },
	{ KML_SETATTR,		"SETATTR" },
	{ KML_LINK,		"LINK" },
	{ KML_MKNOD,		"MKNOD" },
	{ KML_SETXATTR,		"SETXATTR" },
	{ KML_REMOVEXATTR,	"REMOVEXATTR" },
	{ KML_RESYNC,		"RESYNC" },
	{ KML_LOOK,		"LOOK" },
	{ KML_CATALOG_END,	"CATALOG_END" },
};

#define N_OPCODES	(sizeof(opcodes) / sizeof(opcodes[0]))

const char *kml_opcode_name(unsigned int opcode)
{
	unsigned int i;

	for (i = 0; i < N_OPCODES; i++)
		if (opcodes[i].opcode == opcode)
			return opcodes[i].name;
	return NULL;
}

static bool same_word(const char *a, const char *upper)
{
	for (; *a && *upper; a++, upper++) {
		char c = *a >= 'a' && *a <= 'z' ? *a - 'a' + 'A' : *a;

		if (c != *upper)
			return false;
	}
	return *a == *upper;
}

int kml_opcode_parse(const char *name)
{
	unsigned int i;

	for (i = 0; i < N_OPCODES; i++)
		if (same_word(name, opcodes[i].name))
			return opcodes[i].opcode;
	return -1;
}
