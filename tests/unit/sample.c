// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The sample records (see sample.h), and how records are compared.
 */
#include "sample.h"

#include <string.h>

#include "byteorder.h"

#define STR(s)	{ s, sizeof(s) - 1 }

const struct klog_header sample_header = {
	.fileset_uuid = { 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17,
			  0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f },
	.replica_uuid = { 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27,
			  0x28, 0x29, 0x2a, 0x2b, 0x2c, 0x2d, 0x2e, 0x2f },
	.epoch = 0x0123456789abcdef,
	.fileset = "fset0",
};

#define FILE_ATTR { \
	.mode = 0100644, .uid = 1000, .gid = 100, .nlink = 1, .size = 12345, \
	.mtime = { 1767225600, 123456789 }, .ctime = { 1767225601, 999999999 }, \
}

#define DIR_ATTR { \
	.mode = 042775, .uid = 1000, .gid = 100, .nlink = 2, .size = 4096, \
	.mtime = { -1, 1 }, .ctime = { 1767225602, 0 }, \
}

#define NODE_ATTR { \
	.mode = 060660, .gid = 6, .nlink = 1, .rdev_major = 259, .rdev_minor = 1048575, \
	.mtime = { 4294967296, 0 }, .ctime = { 1767225602, 5 }, \
}

static struct kml_range ranges[KML_RANGES_MAX];
static char xattr_one[64], xattr_many[4096];

static const struct kml_record records[SAMPLE_ALL] = {
	{ .opcode = KML_CREATE, .name = STR("file"), .dir = STR("/"),
	  .has_attr = true, .attr = { .mode = 0100600, .nlink = 1 }, .has_ptime = true,
	  .ptime = { 1767225600, 1 } },
	{ .opcode = KML_CREATE, .name = STR("with xattrs"), .dir = STR("/a/b"),
	  .has_attr = true, .attr = FILE_ATTR, .has_ptime = true, .xattrs = xattr_many },
	{ .opcode = KML_MKDIR, .name = STR("\xff\xfe\n\t \\\"\x01\x7f"),
	  .dir = STR("/\xc3\xa4/\xe2\x82\xac"), .has_attr = true, .attr = DIR_ATTR,
	  .has_ptime = true, .ptime = { -2, 2 } },
	{ .opcode = KML_UNLINK, .name = STR("file"), .dir = STR("/"), .has_old = true,
	  .old = { 11, 12 }, .old_attr = FILE_ATTR, .has_ptime = true },
	{ .opcode = KML_RMDIR, .name = STR("dir"), .dir = STR("/a"), .has_old = true,
	  .old = { 0xffffffffffffffff, 0xffffffff }, .old_attr = DIR_ATTR, .has_ptime = true },
	{ .opcode = KML_CLOSE, .name = STR("file"), .dir = STR("/a"), .has_attr = true,
	  .attr = FILE_ATTR, .has_old = true, .old_attr = { .size = 12000 },
	  .has_ranges = true, .ranges = ranges, .n_ranges = 3 },
	{ .opcode = KML_CLOSE, .flags = KML_F_RANGES_ALL | KML_F_REPLACED, .name = STR("file"),
	  .dir = STR("/a"), .has_attr = true, .attr = FILE_ATTR, .has_old = true,
	  .old = { 77, 78 }, .old_attr = FILE_ATTR, .has_origin = true,
	  .origin_replica = { 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37,
			      0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f },
	  .origin_recno = 4711, .origin_obj = { 815, 7 } },
	{ .opcode = KML_CLOSE, .flags = KML_F_RECOVERED, .name = STR("many"), .dir = STR("/"),
	  .has_attr = true, .attr = FILE_ATTR, .has_ranges = true, .ranges = ranges,
	  .n_ranges = KML_RANGES_MAX },
	{ .opcode = KML_SYMLINK, .name = STR("link"), .dir = STR("/a"),
	  .link = STR("../no/such/place"), .has_attr = true,
	  .attr = { .mode = 0120777, .nlink = 1, .size = 16 }, .has_ptime = true },
	{ .opcode = KML_RENAME, .name = STR("old"), .dir = STR("/a"), .tname = STR("new"),
	  .tdir = STR("/b/c"), .has_attr = true, .attr = FILE_ATTR, .has_old = true,
	  .old = { 21, 22 }, .old_attr = FILE_ATTR, .has_ptime = true,
	  .ptime = { 1767225600, 10 }, .tptime = { 1767225600, 11 } },
	{ .opcode = KML_RENAME, .flags = KML_F_EXCHANGE, .name = STR("x"), .dir = STR("/"),
	  .tname = STR("y"), .tdir = STR("/d"), .has_attr = true, .attr = DIR_ATTR,
	  .has_old = true, .old = { 31, 32 }, .old_attr = FILE_ATTR, .has_ptime = true },
	{ .opcode = KML_SETATTR, .name = STR("file"), .dir = STR("/a"), .has_attr = true,
	  .attr = { .valid = KML_A_MODE | KML_A_MTIME, .mode = 0100755, .nlink = 1,
		    .mtime = { 1, 2 }, .ctime = { 3, 4 } },
	  .has_old = true, .old_attr = FILE_ATTR },
	{ .opcode = KML_LINK, .name = STR("file"), .dir = STR("/a"), .tname = STR("second"),
	  .tdir = STR("/"), .has_attr = true, .attr = FILE_ATTR, .has_ptime = true },
	{ .opcode = KML_MKNOD, .name = STR("disk"), .dir = STR("/dev"), .has_attr = true,
	  .attr = NODE_ATTR, .has_ptime = true },
	{ .opcode = KML_SETXATTR, .name = STR("file"), .dir = STR("/a"), .has_attr = true,
	  .attr = FILE_ATTR, .xattrs = xattr_one },
	{ .opcode = KML_REMOVEXATTR, .name = STR("file"), .dir = STR("/a"), .has_attr = true,
	  .attr = FILE_ATTR, .xattrs = xattr_one },
	{ .opcode = KML_SETATTR, .has_attr = true, .dir = STR("/"), .attr = DIR_ATTR },
	{ .opcode = KML_RESYNC, .name = STR("a"), .dir = STR("/"), .flags = KML_F_RECOVERED },
	{ .opcode = 200, .flags = 0xffff, .name = STR("of a later version") },
	/* the wire's */
	{ .opcode = KML_CREATE, .name = STR("inline"), .dir = STR("/"), .has_attr = true,
	  .attr = FILE_ATTR, .data = STR("the content\0of the file"), .has_version = true,
	  .version_content = 5, .version_attr = 6, .ref_own = KML_REF_OBJ | KML_REF_PARENT },
	{ .opcode = KML_CLOSE, .name = STR("big"), .dir = STR("/"), .has_attr = true,
	  .attr = FILE_ATTR, .has_ranges = true, .ranges = ranges, .n_ranges = 1,
	  .file = STR("0123456789abcdef-17") },
	{ .opcode = KML_CREATE, .name = STR("empty"), .dir = STR("/"), .has_attr = true,
	  .attr = FILE_ATTR, .data = { "", 0 }, .ref_own = 0x8000000f },
	{ .opcode = KML_CATALOG_END },
};

static size_t add_xattr(char *buf, size_t size, size_t at, const char *name,
			const void *value, size_t value_len)
{
	ssize_t n = kml_xattr_put(buf + at, size - at, name, strlen(name), value, value_len);

	return n > 0 ? at + n : 0;
}

void sample_record(unsigned int recno, struct kml_record *ret)
{
	static size_t many_len, one_len;
	unsigned int i;

	for (i = 0; i < KML_RANGES_MAX; i++) {
		ranges[i].off = cpu_to_le64(i * 4096ULL + (i == 63 ? 1ULL << 62 : 0));
		ranges[i].len = cpu_to_le64(i % 2 ? 4096 : 1 + i);
	}
	one_len = add_xattr(xattr_one, sizeof(xattr_one), 0, "user.one",
			    recno % 2 ? "value" : "", recno % 2 ? 5 : 0);
	many_len = add_xattr(xattr_many, sizeof(xattr_many), 0, "user.binary", "\0\1\2\xff", 4);
	many_len = add_xattr(xattr_many, sizeof(xattr_many), many_len, "security.x", "12345678", 8);
	many_len = add_xattr(xattr_many, sizeof(xattr_many), many_len, "user.empty", "", 0);

	*ret = records[recno - 1];
	ret->recno = recno;
	ret->seq = 1000 + recno;
	ret->time = (struct kml_time) { 1767225600 + recno, recno * 1000003 };
	ret->pid = 100 + recno;
	ret->auid = recno % 3 ? 1000 : UINT32_MAX;
	ret->fsuid = 2000 + recno;
	ret->fsgid = 3000 + recno;
	ret->obj = (struct kml_oid) { 1ULL << 40 | recno, 0xf0000000 | recno };
	if (ret->name.ptr)
		ret->parent = (struct kml_oid) { 2, 0 };
	if (ret->tname.ptr)
		ret->tparent = (struct kml_oid) { 3, 0xabcdef };
	if (ret->xattrs)
		ret->xattrs_len = ret->xattrs == xattr_one ? one_len : many_len;
}

static bool same_bytes(const void *a, size_t a_len, const void *b, size_t b_len)
{
	return a_len == b_len && (a == NULL) == (b == NULL) &&
	       (a_len == 0 || memcmp(a, b, a_len) == 0);
}

static bool same_str(const struct kml_str *a, const struct kml_str *b)
{
	return same_bytes(a->ptr, a->len, b->ptr, b->len);
}

static bool same_oid(const struct kml_oid *a, const struct kml_oid *b)
{
	return a->ino == b->ino && a->gen == b->gen;
}

static bool same_time(const struct kml_time *a, const struct kml_time *b)
{
	return a->sec == b->sec && a->nsec == b->nsec;
}

static bool same_attr(const struct kml_attrs *a, const struct kml_attrs *b)
{
	return a->valid == b->valid && a->mode == b->mode && a->uid == b->uid &&
	       a->gid == b->gid && a->nlink == b->nlink &&
	       a->rdev_major == b->rdev_major && a->rdev_minor == b->rdev_minor &&
	       a->size == b->size && same_time(&a->mtime, &b->mtime) &&
	       same_time(&a->ctime, &b->ctime);
}

#define SAME(field)		do { if (a->field != b->field) return #field; } while (0)
#define SAME_BY(how, field)	do { if (!how(&a->field, &b->field)) return #field; } while (0)

static const char *items_differ(const struct kml_record *a, const struct kml_record *b)
{
	SAME_BY(same_str, name);
	SAME_BY(same_str, dir);
	SAME_BY(same_str, tname);
	SAME_BY(same_str, tdir);
	SAME_BY(same_str, link);
	SAME_BY(same_str, data);
	SAME_BY(same_str, file);
	SAME(has_attr);
	SAME_BY(same_attr, attr);
	SAME(has_old);
	SAME_BY(same_oid, old);
	SAME_BY(same_attr, old_attr);
	SAME(has_ranges);
	if (!same_bytes(a->ranges, a->n_ranges * sizeof(struct kml_range),
			b->ranges, b->n_ranges * sizeof(struct kml_range)))
		return "ranges";
	if (!same_bytes(a->xattrs, a->xattrs_len, b->xattrs, b->xattrs_len))
		return "xattrs";
	SAME(has_origin);
	SAME(origin_recno);
	SAME_BY(same_oid, origin_obj);
	if (memcmp(a->origin_replica, b->origin_replica, 16) != 0)
		return "origin_replica";
	SAME(has_ptime);
	SAME_BY(same_time, ptime);
	SAME_BY(same_time, tptime);
	SAME(has_version);
	SAME(version_content);
	SAME(version_attr);
	SAME(ref_own);
	return NULL;
}

const char *record_differs(const struct kml_record *a, const struct kml_record *b)
{
	SAME(opcode);
	SAME(flags);
	SAME(recno);
	SAME(seq);
	SAME_BY(same_time, time);
	SAME(pid);
	SAME(auid);
	SAME(fsuid);
	SAME(fsgid);
	SAME_BY(same_oid, obj);
	SAME_BY(same_oid, parent);
	SAME_BY(same_oid, tparent);
	return items_differ(a, b);
}
