// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * catlist FILE: check a catalog (doc/catalog.md) and print a line for each name in
 * it, to be compared with what find(1) says about the tree.
 *
 *	TYPE MODE UID GID SIZE MTIME XATTRS PATH[ -> LINK]
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "record.h"
#include "util.h"

struct object {
	struct kml_oid	oid;
	struct kml_attrs attr;
	unsigned int	xattrs;
	char		*path;
	struct object	*next;		/* in its chain */
};

#define CHAINS	65536

static struct object *chains[CHAINS], *last;

static void die(uint64_t recno, const char *what)
{
	fprintf(stderr, "catlist: record %" PRIu64 ": %s\n", recno, what);
	exit(1);
}

static struct object *find(struct kml_oid oid)
{
	struct object *o = chains[oid.ino % CHAINS];

	while (o && (o->oid.ino != oid.ino || o->oid.gen != oid.gen))
		o = o->next;
	return o;
}

static char *path_below(const struct kml_record *r, struct kml_oid parent, struct kml_str name)
{
	struct object *dir = find(parent);
	char *path, *base;

	if (!dir)
		die(r->recno, "its directory has not been described");
	if (!S_ISDIR(dir->attr.mode))
		die(r->recno, "its parent is no directory");
	base = name_escape(name.ptr, name.len);
	if (!base || asprintf(&path, "%s/%s", dir->path, base) < 0)
		die(r->recno, strerror(ENOMEM));
	free(base);
	return path;
}

static unsigned int count_xattrs(const struct kml_record *r)
{
	struct kml_str name, value;
	unsigned int n = 0;
	size_t pos = 0;

	while (kml_xattr_next(r->xattrs, r->xattrs_len, &pos, &name, &value))
		n++;
	return n;
}

static const struct {
	unsigned int	type;
	uint16_t	opcode;
	char		letter;
} types[] = {
	{ S_IFREG, KML_CREATE, 'f' }, { S_IFDIR, KML_MKDIR, 'd' }, { S_IFLNK, KML_SYMLINK, 'l' },
	{ S_IFCHR, KML_MKNOD, 'c' }, { S_IFBLK, KML_MKNOD, 'b' }, { S_IFIFO, KML_MKNOD, 'p' },
	{ S_IFSOCK, KML_MKNOD, 's' },
};

static char type_letter(const struct kml_record *r, unsigned int mode)
{
	size_t i;

	for (i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (types[i].type == (mode & S_IFMT) &&
		    (types[i].opcode == r->opcode || r->opcode == KML_LINK))
			return types[i].letter;
	die(r->recno, "mode and operation do not agree");
	return 0;
}

static void print(const struct kml_record *r, const struct object *o, const char *path)
{
	const struct kml_attrs *a = &o->attr;

	printf("%c %o %u %u %" PRIu64 " %" PRId64 ".%09u %u %s", type_letter(r, a->mode),
	       a->mode & 07777, a->uid, a->gid, S_ISDIR(a->mode) ? 0 : a->size, a->mtime.sec,
	       a->mtime.nsec, o->xattrs, *path ? path : "/");
	if (r->link.ptr)
		printf(" -> %.*s", (int) r->link.len, r->link.ptr);
	putchar('\n');
}

static void on_object(const struct kml_record *r)
{
	struct object **chain = &chains[r->obj.ino % CHAINS], *o;

	if (find(r->obj))
		die(r->recno, "describes an object for the second time");
	o = malloc(sizeof(*o));
	if (!o)
		die(r->recno, strerror(ENOMEM));
	*o = (struct object) { .oid = r->obj, .attr = r->attr, .xattrs = count_xattrs(r),
			       .next = *chain };
	if (!last && !r->name.ptr)
		o->path = strdup("");
	else
		o->path = path_below(r, r->parent, r->name);
	*chain = last = o;
	print(r, o, o->path);
}

static void on_link(const struct kml_record *r)
{
	struct object *o = find(r->obj);
	char *first = path_below(r, r->parent, r->name);
	char *path = path_below(r, r->tparent, r->tname);

	if (!o || strcmp(o->path, first))
		die(r->recno, "LINK does not tell the object's first name");
	print(r, o, path);
	free(first);
	free(path);
}

static void on_setxattr(const struct kml_record *r)
{
	struct object *o = last;

	if (!o || o->oid.ino != r->obj.ino || count_xattrs(r) != 1)
		die(r->recno, "SETXATTR does not follow its object");
	printf("x %s\n", o->path);
}

static void on_record(const struct kml_record *r)
{
	switch (r->opcode) {
	case KML_LINK:
		on_link(r);
		break;
	case KML_SETXATTR:
		on_setxattr(r);
		break;
	default:
		on_object(r);
	}
}

static char *read_all(const char *file, size_t *ret_len)
{
	FILE *f = fopen(file, "re");
	char *buf = NULL;
	size_t size = 0, n;

	if (!f) {
		perror(file);
		exit(1);
	}
	for (*ret_len = 0;; *ret_len += n) {
		if (*ret_len == size) {
			size = size ? size * 2 : 65536;
			buf = realloc(buf, size);
			if (!buf)
				exit(1);
		}
		n = fread(buf + *ret_len, 1, size - *ret_len, f);
		if (!n)
			break;
	}
	fclose(f);
	return buf;
}

int main(int argc, char **argv)
{
	uint64_t expected = 1;
	struct kml_record r = { 0 };
	size_t len, at;
	ssize_t n;
	char *buf;

	if (argc != 2)
		return 2;
	buf = read_all(argv[1], &len);
	for (at = 0; at < len; at += n, expected++) {
		if (r.opcode == KML_CATALOG_END)
			die(r.recno, "is not the last one");
		n = kml_decode(buf + at, len - at, &r);
		if (n < 0)
			die(expected, strerror(-n));
		if (r.recno != expected)
			die(expected, "has another number");
		if (r.opcode != KML_CATALOG_END)
			on_record(&r);
	}
	if (r.opcode != KML_CATALOG_END)
		die(expected, "the end is missing");
	return 0;
}
