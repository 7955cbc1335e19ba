// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * replay [--base=FILE] [--kml=FILE] [--no-sync] DIR: is the tree mounted at DIR
 * what its log says?  Builds the tree in memory from the catalog "base" that
 * mkizofs left and the whole log, and compares names, types, modes, owners,
 * sizes, mtimes, hard links, symlinks, devices and xattrs with the tree.
 * Works over every implementation.  0 equal, 1 different, 2 trouble.
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

static void compare_attr(const struct object *o, const struct stat *st)
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
	if (!S_ISDIR(st->st_mode) && st->st_nlink != o->names)
		differ("%lu names, log %u", (unsigned long)st->st_nlink, o->names);
	if ((S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)) &&
	    (major(st->st_rdev) != a->rdev_major || minor(st->st_rdev) != a->rdev_minor))
		differ("device %u:%u, log %u:%u", major(st->st_rdev), minor(st->st_rdev),
		       a->rdev_major, a->rdev_minor);
}

/* name in the current directory against what the model has there */
static void compare_object(const struct object *o, const char *name,
			   const struct stat *st)
{
	if (o->oid.ino != st->st_ino)
		differ("inode %llu, log %llu", (unsigned long long)st->st_ino,
		       (unsigned long long)o->oid.ino);
	if ((o->attr.mode ^ st->st_mode) & S_IFMT) {
		differ("type %o, log %o", st->st_mode & S_IFMT, o->attr.mode & S_IFMT);
		return;
	}
	if (o->unsure)
		return;
	compare_attr(o, st);
	compare_xattrs(o, name);
	if (S_ISLNK(st->st_mode))
		compare_link(o, name);
}

static bool own_name(const char *name)
{
	return !strcmp(name, ".intermezzo") || !strcmp(name, "lost+found");
}

static void walk(struct object *dir);

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
	if (lstat(name, &st)) {
		differ("%s", strerror(errno));
	} else if (!e) {
		differ("here, but not in the log");
	} else {
		e->seen = true;
		compare_object(e->obj, name, &st);
		if (S_ISDIR(st.st_mode) && S_ISDIR(e->obj->attr.mode)) {
			if (chdir(name))
				err(2, "%s", name);
			walk(e->obj);
			if (chdir(".."))
				err(2, "%s/..", name);
		}
	}
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

static void compare_tree(const char *dir)
{
	struct stat st;

	if (chdir(dir) || stat(".", &st))
		err(2, "%s", dir);
	if (!model.root)
		errx(1, "the catalog has no root");
	compare_object(model.root, ".", &st);
	walk(model.root);
	for (size_t i = 0; i < model.entry_size; i++) {
		for (struct entry *e = model.entries[i]; e; e = e->next) {
			if (e->seen)
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
		else
			sync = false;
	}
	if (argc - optind != 1)
		errx(2, "usage: replay [--base=FILE] [--kml=FILE] [--no-sync] DIR");
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
	compare_tree(argv[optind]);
	if (model.resyncs)
		printf("%lu RESYNC records\n", model.resyncs);
	if (differences)
		printf("%lu differences\n", differences);
	return differences ? 1 : 0;
}
