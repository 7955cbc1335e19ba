// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Records as text.  Three forms of the same: brief and full in the manner of
 * the kmlprint of 2002, and one JSON object per line for programs.
 */
#include <config.h>

#include "print.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "util.h"

static void *need(void *p)
{
	if (!p) {
		fputs("kmlprint: out of memory\n", stderr);
		exit(1);
	}
	return p;
}

static char *join(const struct kml_str *dir, const struct kml_str *name)
{
	size_t dir_len = dir->ptr ? dir->len : 0, name_len = name->ptr ? name->len : 0;
	char *path = need(malloc(dir_len + name_len + 2)), *p = path;

	if (dir_len) {
		memcpy(p, dir->ptr, dir_len);
		p += dir_len;
		if (name_len && p[-1] != '/')
			*p++ = '/';
	}
	if (name_len)
		memcpy(p, name->ptr, name_len);
	p[name_len] = 0;
	return path;
}

char *record_path(const struct kml_record *r)
{
	return r->name.ptr || r->dir.ptr ? join(&r->dir, &r->name) : NULL;
}

char *record_target_path(const struct kml_record *r)
{
	return r->tname.ptr || r->tdir.ptr ? join(&r->tdir, &r->tname) : NULL;
}

/* Pieces of text */

struct flag {
	unsigned int bit;
	const char *name;
};

static const struct flag record_flags[] = {
	{ KML_F_EXCHANGE,	"exchange" },
	{ KML_F_NOREPLACE,	"noreplace" },
	{ KML_F_RANGES_ALL,	"ranges_all" },
	{ KML_F_RECOVERED,	"recovered" },
	{ KML_F_REPLACED,	"replaced" },
	{ 0, NULL }
};

static const struct flag valid_flags[] = {
	{ KML_A_MODE,	"mode" },
	{ KML_A_UID,	"uid" },
	{ KML_A_GID,	"gid" },
	{ KML_A_SIZE,	"size" },
	{ KML_A_MTIME,	"mtime" },
	{ 0, NULL }
};

/* The flags that are set, each quoted by quote; unknown ones as one number. */
static void put_flags(const struct flag *f, unsigned int set, const char *quote)
{
	const char *comma = "";

	for (; f->name; f++) {
		if (!(set & f->bit))
			continue;
		printf("%s%s%s%s", comma, quote, f->name, quote);
		comma = ",";
		set &= ~f->bit;
	}
	if (set)
		printf("%s%s0x%x%s", comma, quote, set, quote);
}

static void put_escaped(const char *text, size_t len)
{
	char *escaped = need(name_escape(text, len));

	fputs(escaped, stdout);
	free(escaped);
}

/* ISO 8601 in UTC; seconds since 1970 where the calendar does not reach. */
static void put_time(const struct kml_time *t)
{
	time_t sec = t->sec;
	struct tm tm;
	char text[32];

	if (t->sec >= -62167219200 && t->sec <= 253402300799 && gmtime_r(&sec, &tm) &&
	    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm))
		printf("%s.%09uZ", text, t->nsec);
	else
		printf("@%" PRId64 ".%09u", t->sec, t->nsec);
}

static void put_opcode(unsigned int opcode)
{
	const char *name = kml_opcode_name(opcode);

	if (name)
		fputs(name, stdout);
	else
		printf("OP%u", opcode);
}

/* Brief */

static void put_path(const struct kml_record *r)
{
	char *path = record_path(r);

	if (path)
		put_escaped(path, strlen(path));
	else
		printf("[%" PRIu64 ":%u]", r->obj.ino, r->obj.gen);
	free(path);
}

static void put_xattr_names(const struct kml_record *r)
{
	struct kml_str name, value;
	size_t pos = 0;

	while (kml_xattr_next(r->xattrs, r->xattrs_len, &pos, &name, &value)) {
		putchar(' ');
		put_escaped(name.ptr, name.len);
	}
}

void print_brief(const struct entry *e)
{
	const struct kml_record *r = &e->rec;
	char *target = record_target_path(r);

	printf("%" PRIu64 " ", r->recno);
	put_opcode(r->opcode);
	putchar(' ');
	put_path(r);
	if (target || r->link.ptr) {
		putchar(' ');
		if (target)
			put_escaped(target, strlen(target));
		else
			put_escaped(r->link.ptr, r->link.len);
	}
	if (r->opcode == KML_SETXATTR || r->opcode == KML_REMOVEXATTR)
		put_xattr_names(r);
	putchar('\n');
	free(target);
}

/* Full: one labelled field per line, an empty line behind each record */

static void label(const char *name)
{
	int n = printf("%s:", name);

	printf("%*s", n < 12 ? 12 - n : 1, "");
}

static void full_number(const char *name, uint64_t n)
{
	label(name);
	printf("%" PRIu64 "\n", n);
}

/* uids: all ones is "nobody knows" */
static void full_id(const char *name, uint32_t id)
{
	label(name);
	if (id == UINT32_MAX)
		puts("-");
	else
		printf("%u\n", id);
}

static void full_oid(const char *name, const struct kml_oid *oid)
{
	label(name);
	printf("%" PRIu64 ":%u\n", oid->ino, oid->gen);
}

static void full_time(const char *name, const struct kml_time *t)
{
	label(name);
	put_time(t);
	putchar('\n');
}

static void full_text(const char *name, const char *text, size_t len)
{
	label(name);
	put_escaped(text, len);
	putchar('\n');
}

static void full_head(const struct entry *e)
{
	const struct kml_record *r = &e->rec;

	full_number("Recno", r->recno);
	full_number("KML off", e->off);
	full_number("Version", KML_VERSION);
	full_number("Len", e->len);
	full_number("Suf len", e->len);
	full_time("Time", &r->time);
	full_number("Opcode", r->opcode);
	label("Op");
	put_opcode(r->opcode);
	putchar('\n');
	if (r->flags) {
		label("Flags");
		put_flags(record_flags, r->flags, "");
		putchar('\n');
	}
	full_number("Seq", r->seq);
	full_number("Pid", r->pid);
	full_id("AUid", r->auid);
	full_id("Fsuid", r->fsuid);
	full_id("Fsgid", r->fsgid);
	full_number("Inode", r->obj.ino);
	full_number("Gen num", r->obj.gen);
}

static void full_names(const struct kml_record *r)
{
	char *path = record_path(r), *target = record_target_path(r);

	if (path)
		full_text("Path", path, strlen(path));
	if (target)
		full_text("Tgt", target, strlen(target));
	if (r->link.ptr)
		full_text("Tgt", r->link.ptr, r->link.len);
	free(path);
	free(target);
}

static void full_old(const struct kml_record *r)
{
	const struct kml_attrs *a = &r->old_attr;

	full_oid("Old object", &r->old);
	label("Old mode");
	printf("%07o\n", a->mode);
	full_number("Old uid", a->uid);
	full_number("Old gid", a->gid);
	full_number("Old size", a->size);
	full_number("Old nlink", a->nlink);
	label("Old rdev");
	printf("%u:%u\n", a->rdev_major, a->rdev_minor);
	full_time("Old mtime", &a->mtime);
}

static void full_attr(const struct kml_attrs *a)
{
	label("Valid");
	if (a->valid)
		put_flags(valid_flags, a->valid, "");
	else
		fputs("all", stdout);
	putchar('\n');
	label("mode");
	printf("%07o\n", a->mode);
	full_number("uid", a->uid);
	full_number("gid", a->gid);
	full_number("nlink", a->nlink);
	full_number("size", a->size);
	full_time("mtime", &a->mtime);
	full_time("ctime", &a->ctime);
	label("rdev");
	printf("%u:%u\n", a->rdev_major, a->rdev_minor);
}

static void full_ranges(const struct kml_record *r)
{
	uint64_t off, len;
	unsigned int i;

	label("Ranges");
	for (i = 0; i < r->n_ranges; i++) {
		kml_range_get(r, i, &off, &len);
		printf("%s%" PRIu64 "+%" PRIu64, i ? " " : "", off, len);
	}
	puts(r->n_ranges ? "" : "none");
}

static void full_xattrs(const struct kml_record *r)
{
	struct kml_str name, value;
	size_t pos = 0;

	while (kml_xattr_next(r->xattrs, r->xattrs_len, &pos, &name, &value)) {
		label("Xattr");
		put_escaped(name.ptr, name.len);
		printf(" (%zu bytes)\n", value.len);
	}
}

static void full_origin(const struct kml_record *r)
{
	char uuid[UUID_TEXT];

	uuid_format(r->origin_replica, uuid);
	label("Origin");
	printf("%s %" PRIu64 " %" PRIu64 ":%u\n", uuid, r->origin_recno,
	       r->origin_obj.ino, r->origin_obj.gen);
}

/* What the original called versions: the objects, and when they changed. */
static void full_objects(const struct kml_record *r)
{
	full_oid("object", &r->obj);
	full_oid("parent", &r->parent);
	if (r->has_ptime)
		full_time("parent mtime", &r->ptime);
	if (r->tparent.ino == 0)
		return;
	full_oid("target", &r->tparent);
	if (r->has_ptime)
		full_time("target mtime", &r->tptime);
}

void print_full(const struct entry *e)
{
	const struct kml_record *r = &e->rec;

	full_head(e);
	full_names(r);
	if (r->has_old)
		full_old(r);
	if (r->has_attr)
		full_attr(&r->attr);
	if (r->flags & KML_F_RANGES_ALL) {
		label("Ranges");
		puts("all");
	} else if (r->has_ranges) {
		full_ranges(r);
	}
	full_xattrs(r);
	if (r->has_origin)
		full_origin(r);
	full_objects(r);
	putchar('\n');
}

/* JSON */

/*
 * A string.  JSON has only text, names may hold any byte: a byte that is not
 * UTF-8, and so that this can be undone the backslash, too, becomes \ooo.
 */
static void json_text(const char *p, size_t len)
{
	putchar('"');
	while (len) {
		unsigned char c = *p;
		size_t n = utf8_len(p, len);

		if (n == 0 || c == '\\')
			printf("\\\\%03o", c);
		else if (c == '"')
			fputs("\\\"", stdout);
		else if (c < 32 || c == 127)
			printf("\\u%04x", c);
		else if (c == 0xc2 && (unsigned char) p[1] < 0xa0)
			printf("\\u%04x", (unsigned char) p[1]);
		else
			fwrite(p, 1, n, stdout);
		n = n ? n : 1;
		p += n;
		len -= n;
	}
	putchar('"');
}

static void json_path(const char *key, char *path)
{
	if (!path)
		return;
	printf(",\"%s\":", key);
	json_text(path, strlen(path));
	free(path);
}

static void json_time(const char *key, const struct kml_time *t)
{
	printf(",\"%s\":\"", key);
	put_time(t);
	putchar('"');
}

static void json_oid(const char *key, const struct kml_oid *oid)
{
	printf(",\"%s\":{\"ino\":%" PRIu64 ",\"gen\":%u}", key, oid->ino, oid->gen);
}

static void json_id(const char *key, uint32_t id)
{
	if (id == UINT32_MAX)
		printf(",\"%s\":null", key);
	else
		printf(",\"%s\":%u", key, id);
}

static void json_attr(const char *key, const struct kml_attrs *a)
{
	printf(",\"%s\":{\"valid\":[", key);
	put_flags(valid_flags, a->valid, "\"");
	printf("],\"mode\":\"%07o\",\"uid\":%u,\"gid\":%u,\"nlink\":%u,\"size\":%" PRIu64
	       ",\"rdev\":\"%u:%u\"", a->mode, a->uid, a->gid, a->nlink, a->size,
	       a->rdev_major, a->rdev_minor);
	json_time("mtime", &a->mtime);
	json_time("ctime", &a->ctime);
	putchar('}');
}

static void json_ranges(const struct kml_record *r)
{
	uint64_t off, len;
	unsigned int i;

	fputs(",\"ranges\":[", stdout);
	for (i = 0; i < r->n_ranges; i++) {
		kml_range_get(r, i, &off, &len);
		printf("%s[%" PRIu64 ",%" PRIu64 "]", i ? "," : "", off, len);
	}
	putchar(']');
}

static void json_xattrs(const struct kml_record *r)
{
	struct kml_str name, value;
	const char *comma = "";
	size_t pos = 0, i;

	if (!r->xattrs_len)
		return;
	fputs(",\"xattrs\":[", stdout);
	while (kml_xattr_next(r->xattrs, r->xattrs_len, &pos, &name, &value)) {
		printf("%s{\"name\":", comma);
		json_text(name.ptr, name.len);
		fputs(",\"value\":\"", stdout);
		for (i = 0; i < value.len; i++)
			printf("%02x", (unsigned char) value.ptr[i]);
		fputs("\"}", stdout);
		comma = ",";
	}
	putchar(']');
}

static void json_origin(const struct kml_record *r)
{
	char uuid[UUID_TEXT];

	uuid_format(r->origin_replica, uuid);
	printf(",\"origin\":{\"replica\":\"%s\",\"recno\":%" PRIu64, uuid, r->origin_recno);
	json_oid("object", &r->origin_obj);
	putchar('}');
}

static void json_head(const struct entry *e)
{
	const struct kml_record *r = &e->rec;

	printf("{\"recno\":%" PRIu64 ",\"offset\":%" PRIu64 ",\"len\":%" PRIu64
	       ",\"opcode\":%u,\"op\":\"", r->recno, e->off, e->len, r->opcode);
	put_opcode(r->opcode);
	fputs("\",\"flags\":[", stdout);
	put_flags(record_flags, r->flags, "\"");
	printf("],\"seq\":%" PRIu64, r->seq);
	json_time("time", &r->time);
	printf(",\"pid\":%u", r->pid);
	json_id("auid", r->auid);
	json_id("fsuid", r->fsuid);
	json_id("fsgid", r->fsgid);
	json_oid("object", &r->obj);
}

void print_json(const struct entry *e)
{
	const struct kml_record *r = &e->rec;

	json_head(e);
	if (r->parent.ino)
		json_oid("parent", &r->parent);
	if (r->tparent.ino)
		json_oid("tparent", &r->tparent);
	json_path("path", record_path(r));
	json_path("target", record_target_path(r));
	if (r->link.ptr) {
		fputs(",\"link\":", stdout);
		json_text(r->link.ptr, r->link.len);
	}
	if (r->has_attr)
		json_attr("attr", &r->attr);
	if (r->has_old) {
		json_oid("old", &r->old);
		json_attr("old_attr", &r->old_attr);
	}
	if (r->has_ranges)
		json_ranges(r);
	json_xattrs(r);
	if (r->has_origin)
		json_origin(r);
	if (r->has_ptime) {
		json_time("parent_mtime", &r->ptime);
		if (r->tparent.ino)
			json_time("tparent_mtime", &r->tptime);
	}
	puts("}");
}
