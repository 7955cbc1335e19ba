// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * replay [--base=FILE] [--kml=FILE] [--no-sync] [--content] DIR: is the tree mounted at DIR
 * what its log says?  Builds the tree in memory from the catalog "base" that
 * mkizofs left and the whole log, and compares names, types, modes, owners,
 * sizes, mtimes, hard links, symlinks, devices and xattrs with the tree.
 * Works over every implementation.  0 equal, 1 different, 2 trouble.
 *
 * After the machine stopped LOOK names what may differ: the attributes and
 * content of that object; for a directory its names, what is new below them,
 * and the attributes of what is in it, if its ctime is not the log's either.
 *
 * --content: files that have the xattr user.v consist of nothing but that byte.
 */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "chan.h"
#include "klog.h"
#include "model.h"
#include "util.h"

static struct model model;
static unsigned long differences;
static char path[1 << 20];	/* only what is printed may be cut short */
static size_t path_len;

static void __attribute__((format(printf, 1, 2))) differ(const char *fmt, ...)
{
	char *name = name_escape(path, path_len);
	va_list ap;

	if (++differences <= 50) {
		printf("%s: ", path_len ? name : ".");
		va_start(ap, fmt);
		vprintf(fmt, ap);
		va_end(ap);
		putchar('\n');
	}
	free(name);
}

static void apply_or_end(const struct kml_record *r, const char *where)
{
	if (model_apply(&model, r))
		return;
	printf("%s: %s\n", where, model.why);
	exit(1);
}

static int lower = AT_FDCWD;	/* where base and kml are looked for */

static void load_base(const char *file)
{
	int fd = openat(lower, file, O_RDONLY | O_CLOEXEC);
	struct kml_record r = { 0 };
	struct stat st;
	char *buf;
	size_t pos = 0;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st))
		err(2, "%s", file);
	buf = malloc(st.st_size + 1);
	if (!buf || pread_all(fd, buf, st.st_size, 0))
		err(2, "%s", file);
	while (pos < (size_t)st.st_size) {
		n = kml_decode(buf + pos, st.st_size - pos, &r);
		if (n < 0)
			errx(1, "%s: record at %zu: %s", file, pos, strerror(-n));
		apply_or_end(&r, "base");
		pos += n;
	}
	if (r.opcode != KML_CATALOG_END)
		errx(1, "%s: no end of catalog", file);
	free(buf);
	close(fd);
}

static void load_log(const char *file)
{
	struct kml_record r;
	struct klog_header h;
	struct klog *log;
	uint64_t pos, next;
	int e = klog_open(lower, file, &log);

	if (!e)
		e = klog_header(log, &h);
	if (e)
		errx(2, "%s: %s", file, strerror(-e));
	if (h.first_recno != 1)
		errx(2, "%s: the front of the log was given back", file);
	for (pos = h.first_offset; (e = klog_read(log, pos, &r, &next)) == 1; pos = next)
		apply_or_end(&r, "kml");
	if (e)
		errx(1, "%s: at %llu: %s", file, (unsigned long long)pos, strerror(-e));
	klog_close(log);
}

static void compare_xattrs(const struct object *o, const char *name)
{
	static char list[65536], value[65536];
	const struct xattr *x;
	ssize_t n = llistxattr(name, list, sizeof(list)), v;
	unsigned int count = 0, have = 0;

	if (n < 0 && errno != ENOTSUP) {
		differ("xattrs: %s", strerror(errno));
		return;
	}
	for (const char *k = list; k < list + n; k += strlen(k) + 1) {
		have++;
		x = model_xattr(o, k, strlen(k));
		v = lgetxattr(name, k, value, sizeof(value));
		if (!x)
			differ("xattr %s is not in the log", k);
		else if (v < 0)
			differ("xattr %s: %s", k, strerror(errno));
		else if ((size_t)v != x->value_len ||
			 memcmp(value, x->bytes + x->name_len, v))
			differ("xattr %s has another value in the log", k);
	}
	for (x = o->xattrs; x; x = x->next)
		count++;
	if (count > have)
		differ("%u xattrs in the log, %u here", count, have);
}

static void compare_link(const struct object *o, const char *name)
{
	static char text[65536];
	ssize_t n = readlink(name, text, sizeof(text));

	if (n < 0 || (size_t)n != o->link_len || memcmp(text, o->link, n))
		differ("symlink's text differs from the log");
}

static void compare_attr(struct object *o, const struct stat *st)
{
	const struct kml_attrs *a = &o->attr;

	if (st->st_mode != a->mode)
		differ("mode %o, log %o", st->st_mode, a->mode);
	if (st->st_uid != a->uid || st->st_gid != a->gid)
		differ("owner %u:%u, log %u:%u", st->st_uid, st->st_gid, a->uid, a->gid);
	if (S_ISREG(st->st_mode) && (uint64_t)st->st_size != a->size)
		differ("size %lld, log %llu", (long long)st->st_size,
		       (unsigned long long)a->size);
	if (st->st_mtim.tv_sec != a->mtime.sec ||
	    (uint64_t)st->st_mtim.tv_nsec != a->mtime.nsec)
		differ("mtime %lld.%09ld, log %lld.%09u", (long long)st->st_mtim.tv_sec,
		       st->st_mtim.tv_nsec, (long long)a->mtime.sec, a->mtime.nsec);
	if (!S_ISDIR(st->st_mode))
		o->nlink = st->st_nlink;
	if ((S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)) &&
	    (major(st->st_rdev) != a->rdev_major || minor(st->st_rdev) != a->rdev_minor))
		differ("device %u:%u, log %u:%u", major(st->st_rdev), minor(st->st_rdev),
		       a->rdev_major, a->rdev_minor);
}

static bool check_content;

static void compare_content(const char *name, const struct stat *st)
{
	static char buf[65536];
	char v;
	ssize_t n;
	int fd;

	if (!S_ISREG(st->st_mode) || lgetxattr(name, "user.v", &v, 1) != 1)
		return;
	fd = open(name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) {
		differ("cannot be read: %s", strerror(errno));
		return;
	}
	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < n; i++) {
			if (buf[i] == v)
				continue;
			differ("byte %u in content that should be all %u",
			       (unsigned char)buf[i], (unsigned char)v);
			close(fd);
			return;
		}
	}
	close(fd);
}

/* A LOOK at its directory asks to look at it, and its ctime tells that it differs. */
static bool may_differ(const struct object *o, const struct stat *st)
{
	return o->unsure || (o->excused && (st->st_ctim.tv_sec != o->ctime.sec ||
					    (uint64_t)st->st_ctim.tv_nsec != o->ctime.nsec));
}

/* name in the current directory against what the model has there */
static void compare_object(struct object *o, const char *name,
			   const struct stat *st)
{
	if (o->oid.ino != st->st_ino)
		differ("inode %llu, log %llu", (unsigned long long)st->st_ino,
		       (unsigned long long)o->oid.ino);
	if ((o->attr.mode ^ st->st_mode) & S_IFMT) {
		differ("type %o, log %o", st->st_mode & S_IFMT, o->attr.mode & S_IFMT);
		return;
	}
	if (may_differ(o, st))
		return;
	compare_attr(o, st);
	compare_xattrs(o, name);
	if (S_ISLNK(st->st_mode))
		compare_link(o, name);
	if (check_content)
		compare_content(name, st);
}

static bool own_name(const char *name)
{
	return !strcmp(name, ".intermezzo") || !strcmp(name, "lost+found");
}

static void walk(struct object *dir);

static void walk_into(struct object *dir, const char *name)
{
	if (chdir(name))
		err(2, "%s", name);
	walk(dir);
	if (chdir(".."))
		err(2, "%s/..", name);
}

/*
 * Another object than the log has at this name of a directory that may differ:
 * new with all that is below, or known from elsewhere.
 */
static void visit_other(const char *name, const struct stat *st)
{
	struct kml_oid oid = { .ino = st->st_ino };
	struct object *o;

	if (inode_generation(AT_FDCWD, name, &oid.gen))
		return;
	o = model_object(&model, oid);
	if (o)
		o->elsewhere = true;
	if (o && S_ISDIR(st->st_mode) && S_ISDIR(o->attr.mode))
		walk_into(o, name);
}

static void visit_known(struct object *dir, struct entry *e, const char *name,
			const struct stat *st)
{
	e->seen = true;
	if (dir->unsure && e->obj->oid.ino != st->st_ino) {
		visit_other(name, st);
		return;
	}
	compare_object(e->obj, name, st);
	if (S_ISDIR(st->st_mode) && S_ISDIR(e->obj->attr.mode))
		walk_into(e->obj, name);
}

static void visit(struct object *dir, const char *name)
{
	struct entry *e = model_entry(&model, dir, name, strlen(name));
	size_t cut = path_len, len = strlen(name);
	struct stat st;

	if (path_len + len + 2 < sizeof(path)) {
		path[path_len++] = '/';
		memcpy(path + path_len, name, len);
		path_len += len;
	}
	if (lstat(name, &st))
		differ("%s", strerror(errno));
	else if (e)
		visit_known(dir, e, name, &st);
	else if (dir->unsure)
		visit_other(name, &st);
	else
		differ("here, but not in the log");
	path_len = cut;
}

/* The current directory: all names first, so that depth costs no descriptor. */
static void walk(struct object *dir)
{
	char **names = NULL;
	size_t n = 0, room = 0;
	struct dirent *d;
	DIR *here = opendir(".");

	if (!here)
		err(2, "read directory");
	dir->walked = true;
	while (errno = 0, (d = readdir(here))) {
		if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, "..") ||
		    (dir == model.root && own_name(d->d_name)))
			continue;
		if (n == room)
			names = realloc(names, (room = room ? room * 2 : 64) * sizeof(*names));
		if (!names || !(names[n++] = strdup(d->d_name)))
			err(2, "memory");
	}
	if (errno)
		err(2, "read directory");
	closedir(here);
	for (size_t i = 0; i < n; i++) {
		visit(dir, names[i]);
		free(names[i]);
	}
	free(names);
}

/* When it is known whether a directory that may differ has, or had, one of its names. */
static void compare_links(void)
{
	path_len = 0;
	for (size_t i = 0; i < model.object_size; i++)
		for (const struct object *o = model.objects[i]; o; o = o->next)
			if (o->nlink && o->nlink != o->names && !o->excused && !o->elsewhere)
				differ("object %llu: %u names, log %u",
				       (unsigned long long)o->oid.ino, o->nlink, o->names);
}

static void compare_tree(const char *dir)
{
	struct stat st;

	if (chdir(dir) || stat(".", &st))
		err(2, "%s", dir);
	if (!model.root)
		errx(1, "the catalog has no root");
	compare_object(model.root, ".", &st);
	walk(model.root);
	compare_links();
	for (size_t i = 0; i < model.entry_size; i++) {
		for (struct entry *e = model.entries[i]; e; e = e->next) {
			/* gone with its directory, whose own name may differ */
			if (e->seen || e->dir->unsure || !e->dir->walked)
				continue;
			path_len = e->len < sizeof(path) ? e->len : 0;
			memcpy(path, e->name, path_len);
			differ("in the log (in directory %llu), but not here",
			       (unsigned long long)e->dir->oid.ino);
		}
	}
}

static void sync_log(const char *dir)
{
	struct izo_info info;
	struct izo_pos pos;
	int fd = chan_open(dir);
	ssize_t n;

	if (fd < 0)
		errx(2, "%s: channel: %s", dir, strerror(-fd));
	n = chan_call(fd, IZO_MSG_SYNC, 0, NULL, 0, &pos, sizeof(pos), NULL);
	if (n < 0)
		errx(2, "%s: SYNC: %s", dir, strerror(-n));
	/* past the file system under test, where there is one */
	n = chan_call(fd, IZO_MSG_INFO, 0, NULL, 0, &info, sizeof(info), &lower);
	if (n < 0)
		errx(2, "%s: INFO: %s", dir, strerror(-n));
	if (lower < 0)
		lower = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	close(fd);
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "base", required_argument, NULL, 'b' },
		{ "kml", required_argument, NULL, 'k' },
		{ "no-sync", no_argument, NULL, 'n' },
		{ "content", no_argument, NULL, 'c' },
		{ NULL }
	};
	char fset[64], *base = NULL, *kml = NULL;
	bool sync = true;
	int c;

	while ((c = getopt_long(argc, argv, "", opts, NULL)) >= 0) {
		if (c == '?')
			return 2;
		if (c == 'b')
			base = optarg;
		else if (c == 'k')
			kml = optarg;
		else if (c == 'c')
			check_content = true;
		else
			sync = false;
	}
	if (argc - optind != 1)
		errx(2, "usage: replay [--base=FILE] [--kml=FILE] [--no-sync] [--content] DIR");
	if (sync)
		sync_log(argv[optind]);
	if (!base || !kml) {
		ssize_t n = getxattr(argv[optind], IZO_XATTR_FILESET, fset, sizeof(fset) - 1);

		if (n < 0)
			err(2, "%s: which fileset", argv[optind]);
		fset[n] = '\0';
	}
	if (lower == AT_FDCWD)
		lower = open(argv[optind], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (!base && asprintf(&base, ".intermezzo/%s/base", fset) < 0)
		err(2, "memory");
	if (!kml && asprintf(&kml, ".intermezzo/%s/kml", fset) < 0)
		err(2, "memory");
	model_init(&model);
	load_base(base);
	load_log(kml);
	model_excuse(&model);
	compare_tree(argv[optind]);
	if (model.resyncs)
		printf("%lu RESYNC and LOOK records\n", model.resyncs);
	if (differences)
		printf("%lu differences\n", differences);
	return differences ? 1 : 0;
}
