// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * treecmp A B: are two trees equal in everything that replicas promise each
 * other: names, types, modes, owners, nanosecond mtimes, xattrs and ACLs,
 * hard-link structure, symlink targets, device numbers, sizes, holes (in
 * blocks of 4 KiB) and content.  Used by all tests that compare trees, and by
 * people.  Only the machinery's own names in the roots, .intermezzo and
 * lost+found, are left out.
 *
 * One line per difference; exit code 0 equal, 1 different, 2 trouble.
 *
 * Memory is that of the names in the directories on the current path, plus
 * one entry per object with several names.  One directory of each tree is
 * open at a time; the way back up is "..", checked against the inode seen on
 * the way down, so neither PATH_MAX nor the number of descriptors limits the
 * depth.
 */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define BLOCK	4096
#define CHUNK	(256 * 1024)
#define NAMES	(256 * 1024)	/* bytes of an xattr list or value */

struct names {
	char **v;
	size_t n, i;
};

/* A directory on the way down: what is left of it, and what it was. */
struct frame {
	struct frame *up;
	struct names a, b;
	struct stat st[2];
	size_t path_len;
};

/* An object with several names: the pair of inodes it was first seen as. */
struct link {
	struct link *next;
	dev_t dev;
	ino_t ino;
	ino_t other;
};

struct link_map {
	struct link **bucket;
	size_t size, used;
};

static bool no_times, no_holes;
static const char **globs;
static size_t n_globs;
static unsigned long differences, troubles, max_report;
static int dirfd_[2] = { -1, -1 };
static char *path;
static size_t path_len, path_size;
static struct link_map links[2];

static void *xrealloc(void *p, size_t n)
{
	p = realloc(p, n ? n : 1);
	if (!p)
		err(2, "treecmp: memory");
	return p;
}

static void print_escaped(FILE *f, const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = s[i];

		if (c <= ' ' || c == '\\' || c >= 127)
			fprintf(f, "\\%03o", c);
		else
			putc(c, f);
	}
}

static void print_path(FILE *f)
{
	if (path_len)
		print_escaped(f, path, path_len);
	else
		putc('.', f);
}

static bool reported(void)
{
	differences++;
	return !max_report || differences <= max_report;
}

static void __attribute__((format(printf, 2, 3)))
differ(const char *what, const char *fmt, ...)
{
	va_list ap;

	if (!reported())
		return;
	printf("%s ", what);
	print_path(stdout);
	fputs(": ", stdout);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

static void trouble(const char *what)
{
	int e = errno;

	troubles++;
	fflush(stdout);
	fputs("treecmp: ", stderr);
	print_path(stderr);
	fprintf(stderr, ": %s: %s\n", what, strerror(e));
}

/* path: append "/name", and cut it back */
static void path_push(const char *name)
{
	size_t len = strlen(name);

	if (path_len + len + 2 > path_size) {
		path_size = (path_len + len + 2) * 2;
		path = xrealloc(path, path_size);
	}
	if (path_len)
		path[path_len++] = '/';
	memcpy(path + path_len, name, len + 1);
	path_len += len;
}

static void path_cut(size_t len)
{
	path_len = len;
	if (path)
		path[len] = '\0';
}

static bool excluded(const char *name, bool at_root)
{
	bool hit = false;
	size_t cut = path_len;

	if (at_root && (!strcmp(name, ".intermezzo") ||
			!strcmp(name, "lost+found")))
		return true;
	if (!n_globs)
		return false;
	path_push(name);
	for (size_t i = 0; i < n_globs && !hit; i++)
		hit = !fnmatch(globs[i], name, 0) || !fnmatch(globs[i], path, 0);
	path_cut(cut);
	return hit;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_free(struct names *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i]);
	free(l->v);
	memset(l, 0, sizeof(*l));
}

static int names_read(int fd, struct names *ret, bool at_root)
{
	size_t room = 0;
	struct dirent *d;
	DIR *dir;
	int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	memset(ret, 0, sizeof(*ret));
	dir = own < 0 ? NULL : fdopendir(own);
	if (!dir) {
		if (own >= 0)
			close(own);
		return -1;
	}
	while (errno = 0, (d = readdir(dir))) {
		if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, "..") ||
		    excluded(d->d_name, at_root))
			continue;
		if (ret->n == room) {
			room = room ? room * 2 : 64;
			ret->v = xrealloc(ret->v, room * sizeof(*ret->v));
		}
		ret->v[ret->n] = strdup(d->d_name);
		if (!ret->v[ret->n++])
			err(2, "treecmp: memory");
	}
	if (errno) {
		int e = errno;

		closedir(dir);
		names_free(ret);
		errno = e;
		return -1;
	}
	closedir(dir);
	if (ret->n)
		qsort(ret->v, ret->n, sizeof(*ret->v), by_name);
	return 0;
}

static const char *type_name(mode_t m)
{
	switch (m & S_IFMT) {
	case S_IFREG: return "file";
	case S_IFDIR: return "directory";
	case S_IFLNK: return "symlink";
	case S_IFCHR: return "char-device";
	case S_IFBLK: return "block-device";
	case S_IFIFO: return "fifo";
	case S_IFSOCK: return "socket";
	}
	return "unknown";
}

/* hard links: each inode of one side has one partner on the other */
static struct link **link_slot(struct link_map *m, dev_t dev, ino_t ino)
{
	struct link **l = &m->bucket[(ino * 0x9e3779b97f4a7c15ull >> 20) % m->size];

	while (*l && ((*l)->dev != dev || (*l)->ino != ino))
		l = &(*l)->next;
	return l;
}

static void link_grow(struct link_map *m)
{
	struct link_map bigger = { .size = m->size ? m->size * 4 : 1024 };

	bigger.bucket = calloc(bigger.size, sizeof(*bigger.bucket));
	if (!bigger.bucket)
		err(2, "treecmp: memory");
	for (size_t i = 0; i < m->size; i++) {
		struct link *l, *next;

		for (l = m->bucket[i]; l; l = next) {
			struct link **to = link_slot(&bigger, l->dev, l->ino);

			next = l->next;
			l->next = NULL;
			*to = l;
		}
	}
	bigger.used = m->used;
	free(m->bucket);
	*m = bigger;
}

/* The partner of st's inode, after making it "other" if it had none. */
static ino_t link_partner(struct link_map *m, const struct stat *st, ino_t other)
{
	struct link **slot;

	if (m->used >= m->size)
		link_grow(m);
	slot = link_slot(m, st->st_dev, st->st_ino);
	if (!*slot) {
		*slot = xrealloc(NULL, sizeof(**slot));
		**slot = (struct link){ NULL, st->st_dev, st->st_ino, other };
		m->used++;
	}
	return (*slot)->other;
}

static void compare_links(const struct stat *a, const struct stat *b)
{
	if (a->st_nlink != b->st_nlink)
		differ("links", "%ju %ju", (uintmax_t)a->st_nlink,
		       (uintmax_t)b->st_nlink);
	if (a->st_nlink < 2 && b->st_nlink < 2)
		return;
	if (link_partner(&links[0], a, b->st_ino) != b->st_ino ||
	    link_partner(&links[1], b, a->st_ino) != a->st_ino)
		differ("hardlink", "not the same object as its other names");
}

/* xattrs; the current directory is changed so that every depth works */
static ssize_t xattr_list(int side, const char *name, char *buf)
{
	ssize_t n;

	if (fchdir(dirfd_[side]))
		return -1;
	n = llistxattr(name, buf, NAMES);
	return n < 0 && errno == ENOTSUP ? 0 : n;
}

static ssize_t xattr_get(int side, const char *name, const char *key, char *buf)
{
	if (fchdir(dirfd_[side]))
		return -1;
	return lgetxattr(name, key, buf, NAMES);
}

static bool xattr_in(const char *list, ssize_t len, const char *key)
{
	for (const char *p = list; p < list + len; p += strlen(p) + 1)
		if (!strcmp(p, key))
			return true;
	return false;
}

static void differ_xattr(const char *key, const char *how)
{
	if (!reported())
		return;
	fputs("xattr ", stdout);
	print_path(stdout);
	fputs(": ", stdout);
	print_escaped(stdout, key, strlen(key));
	printf(" %s\n", how);
}

static void compare_xattrs(const char *name)
{
	static char list[2][NAMES], value[2][NAMES];
	ssize_t len[2], vlen[2];

	for (int s = 0; s < 2; s++) {
		len[s] = xattr_list(s, name, list[s]);
		if (len[s] < 0) {
			trouble("xattrs");
			return;
		}
	}
	for (const char *k = list[1]; k < list[1] + len[1]; k += strlen(k) + 1)
		if (!xattr_in(list[0], len[0], k))
			differ_xattr(k, "only in B");
	for (const char *k = list[0]; k < list[0] + len[0]; k += strlen(k) + 1) {
		if (!xattr_in(list[1], len[1], k)) {
			differ_xattr(k, "only in A");
			continue;
		}
		vlen[0] = xattr_get(0, name, k, value[0]);
		vlen[1] = xattr_get(1, name, k, value[1]);
		if (vlen[0] < 0 || vlen[1] < 0)
			trouble(k);
		else if (vlen[0] != vlen[1] || memcmp(value[0], value[1], vlen[0]))
			differ_xattr(k, "differs");
	}
}

/* The next stretch of data at or behind pos, in whole blocks; false: none. */
static bool next_data(int fd, off_t size, off_t pos, off_t *ret_from, off_t *ret_to)
{
	off_t from, to;

	if (pos >= size)
		return false;
	from = lseek(fd, pos, SEEK_DATA);
	if (from < 0 && errno == ENXIO)
		return false;
	to = from < 0 ? size : lseek(fd, from, SEEK_HOLE);
	if (from < 0)
		from = pos;
	if (to < 0)
		to = size;
	*ret_from = from & ~(off_t)(BLOCK - 1);
	*ret_to = (to + BLOCK - 1) & ~(off_t)(BLOCK - 1);
	return true;
}

/* Stretches that touch after rounding are one. */
static bool next_stretch(int fd, off_t size, off_t pos, off_t *from, off_t *to)
{
	off_t f, t;

	if (!next_data(fd, size, pos, from, to))
		return false;
	while (next_data(fd, size, *to, &f, &t) && f <= *to)
		*to = t;
	return true;
}

static void compare_holes(const int fd[2], off_t size)
{
	off_t pos = 0, f[2], t[2];
	bool more[2];

	for (;;) {
		for (int s = 0; s < 2; s++)
			more[s] = next_stretch(fd[s], size, pos, &f[s], &t[s]);
		if (!more[0] && !more[1])
			return;
		if (more[0] != more[1] || f[0] != f[1] || t[0] != t[1])
			break;
		pos = t[0];
	}
	differ("holes", "first data at or behind %jd: A %jd-%jd B %jd-%jd",
	       (intmax_t)pos, more[0] ? (intmax_t)f[0] : -1,
	       more[0] ? (intmax_t)t[0] : -1, more[1] ? (intmax_t)f[1] : -1,
	       more[1] ? (intmax_t)t[1] : -1);
}

static ssize_t read_chunk(int fd, char *buf, size_t len, off_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, buf + done, len - done, off + done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (!n)
			break;
		done += n;
	}
	return done;
}

/* false: reported, no need to go on */
static bool compare_stretch(const int fd[2], off_t from, off_t to)
{
	static char buf[2][CHUNK];
	ssize_t n[2];

	while (from < to) {
		size_t want = to - from < CHUNK ? to - from : CHUNK;
		ssize_t i = 0;

		for (int s = 0; s < 2; s++) {
			n[s] = read_chunk(fd[s], buf[s], want, from);
			if (n[s] < 0) {
				trouble(s ? "read B" : "read A");
				return false;
			}
		}
		if (n[0] != n[1] || memcmp(buf[0], buf[1], n[0])) {
			while (i < n[0] && i < n[1] && buf[0][i] == buf[1][i])
				i++;
			differ("content", "first at %jd", (intmax_t)(from + i));
			return false;
		}
		if ((size_t)n[0] < want)
			return true;
		from += n[0];
	}
	return true;
}

/* Everything that is data on either side. */
static void compare_content(const int fd[2], off_t size)
{
	off_t pos = 0, f[2], t[2], from, to;
	bool more[2];

	for (;;) {
		for (int s = 0; s < 2; s++) {
			more[s] = next_data(fd[s], size, pos, &f[s], &t[s]);
			if (!more[s])
				f[s] = t[s] = size;
		}
		if (!more[0] && !more[1])
			return;
		from = f[0] < f[1] ? f[0] : f[1];
		to = f[0] < f[1] ? t[0] : t[1];
		if (to > size)
			to = size;
		if (!compare_stretch(fd, from < pos ? pos : from, to))
			return;
		pos = to;
	}
}

static void compare_file(const char *name, off_t size)
{
	int fd[2];

	for (int s = 0; s < 2; s++) {
		fd[s] = openat(dirfd_[s], name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		if (fd[s] < 0) {
			trouble(s ? "open B" : "open A");
			if (s)
				close(fd[0]);
			return;
		}
	}
	compare_content(fd, size);
	if (!no_holes)
		compare_holes(fd, size);
	close(fd[0]);
	close(fd[1]);
}

static void compare_target(const char *name)
{
	static char t[2][65536];
	ssize_t n[2];

	for (int s = 0; s < 2; s++) {
		n[s] = readlinkat(dirfd_[s], name, t[s], sizeof(t[s]));
		if (n[s] < 0) {
			trouble("readlink");
			return;
		}
	}
	if (n[0] == n[1] && !memcmp(t[0], t[1], n[0]))
		return;
	if (!reported())
		return;
	fputs("target ", stdout);
	print_path(stdout);
	fputs(": ", stdout);
	print_escaped(stdout, t[0], n[0]);
	putchar(' ');
	print_escaped(stdout, t[1], n[1]);
	putchar('\n');
}

static void compare_stat(const struct stat *a, const struct stat *b)
{
	if ((a->st_mode & 07777) != (b->st_mode & 07777))
		differ("mode", "%04o %04o", a->st_mode & 07777,
		       b->st_mode & 07777);
	if (a->st_uid != b->st_uid || a->st_gid != b->st_gid)
		differ("owner", "%u:%u %u:%u", a->st_uid, a->st_gid, b->st_uid,
		       b->st_gid);
	if (!no_times && (a->st_mtim.tv_sec != b->st_mtim.tv_sec ||
			  a->st_mtim.tv_nsec != b->st_mtim.tv_nsec))
		differ("mtime", "%jd.%09ld %jd.%09ld",
		       (intmax_t)a->st_mtim.tv_sec, a->st_mtim.tv_nsec,
		       (intmax_t)b->st_mtim.tv_sec, b->st_mtim.tv_nsec);
	if ((S_ISCHR(a->st_mode) || S_ISBLK(a->st_mode)) &&
	    a->st_rdev != b->st_rdev)
		differ("device", "%u:%u %u:%u", major(a->st_rdev),
		       minor(a->st_rdev), major(b->st_rdev), minor(b->st_rdev));
	if (!S_ISDIR(a->st_mode))
		compare_links(a, b);
}

/* true: both are directories, go into them */
static bool compare_entry(const char *name, struct stat st[2])
{
	for (int s = 0; s < 2; s++) {
		if (fstatat(dirfd_[s], name, &st[s], AT_SYMLINK_NOFOLLOW)) {
			trouble(s ? "stat B" : "stat A");
			return false;
		}
	}
	if ((st[0].st_mode ^ st[1].st_mode) & S_IFMT) {
		differ("type", "%s %s", type_name(st[0].st_mode),
		       type_name(st[1].st_mode));
		return false;
	}
	compare_stat(&st[0], &st[1]);
	compare_xattrs(name);
	if (S_ISREG(st[0].st_mode)) {
		if (st[0].st_size != st[1].st_size)
			differ("size", "%jd %jd", (intmax_t)st[0].st_size,
			       (intmax_t)st[1].st_size);
		else
			compare_file(name, st[0].st_size);
	} else if (S_ISLNK(st[0].st_mode)) {
		compare_target(name);
	}
	return S_ISDIR(st[0].st_mode);
}

static struct frame *frame_new(struct frame *up, const struct stat st[2])
{
	struct frame *f = xrealloc(NULL, sizeof(*f));

	memset(f, 0, sizeof(*f));
	f->up = up;
	f->path_len = path_len;
	f->st[0] = st[0];
	f->st[1] = st[1];
	if (names_read(dirfd_[0], &f->a, !up))
		trouble("read directory A");
	if (names_read(dirfd_[1], &f->b, !up))
		trouble("read directory B");
	return f;
}

static int move_to(int side, const char *name, const struct stat *want)
{
	struct stat st;
	int fd = openat(dirfd_[side], name,
			O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return -1;
	if (fstat(fd, &st) || st.st_dev != want->st_dev ||
	    st.st_ino != want->st_ino) {
		close(fd);
		errno = ESTALE;
		return -1;
	}
	if (dirfd_[side] >= 0)
		close(dirfd_[side]);
	dirfd_[side] = fd;
	return 0;
}

static struct frame *descend(struct frame *f, const char *name,
			     const struct stat st[2])
{
	if (move_to(0, name, &st[0])) {
		trouble("open directory A");
		return f;
	}
	if (move_to(1, name, &st[1])) {
		trouble("open directory B");
		if (move_to(0, "..", &f->st[0]))
			err(2, "treecmp: the tree changed on the way");
		return f;
	}
	return frame_new(f, st);
}

static struct frame *ascend(struct frame *f)
{
	struct frame *up = f->up;

	names_free(&f->a);
	names_free(&f->b);
	free(f);
	if (!up)
		return NULL;
	if (move_to(0, "..", &up->st[0]) || move_to(1, "..", &up->st[1]))
		err(2, "treecmp: the tree changed on the way");
	path_cut(up->path_len);
	return up;
}

static void only_in(const char *name, const char *side)
{
	size_t cut = path_len;

	path_push(name);
	if (reported()) {
		printf("only-in-%s ", side);
		print_path(stdout);
		putchar('\n');
	}
	path_cut(cut);
}

/* One step of the merge of two sorted directories; returns where to go on. */
static struct frame *step(struct frame *f)
{
	const char *a = f->a.i < f->a.n ? f->a.v[f->a.i] : NULL;
	const char *b = f->b.i < f->b.n ? f->b.v[f->b.i] : NULL;
	struct frame *next = f;
	struct stat st[2];
	int order;

	if (!a && !b)
		return ascend(f);
	order = !a ? 1 : !b ? -1 : strcmp(a, b);
	if (order <= 0)
		f->a.i++;
	if (order >= 0)
		f->b.i++;
	if (order) {
		only_in(order < 0 ? a : b, order < 0 ? "A" : "B");
		return f;
	}
	path_push(a);
	if (compare_entry(a, st))
		next = descend(f, a, st);
	if (next == f)
		path_cut(f->path_len);
	return next;
}

static void compare_trees(const char *const root[2])
{
	struct stat st[2];
	struct frame *f;

	for (int s = 0; s < 2; s++) {
		dirfd_[s] = open(root[s], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dirfd_[s] < 0 || fstat(dirfd_[s], &st[s]))
			err(2, "treecmp: %s", root[s]);
	}
	compare_stat(&st[0], &st[1]);
	compare_xattrs(".");
	for (f = frame_new(NULL, st); f; )
		f = step(f);
}

static void usage(FILE *f, int status)
{
	fputs("Usage: treecmp [--no-times] [--no-holes] [--exclude=GLOB]... [--max=N] A B\n"
	      "Print in what two trees differ; exit 0 equal, 1 different, 2 trouble.\n"
	      "  --no-times      do not compare mtimes\n"
	      "  --no-holes      do not compare where files have holes\n"
	      "  --exclude=GLOB  leave out what matches by name or by path from the root\n"
	      "  --max=N         print the first N differences only\n", f);
	exit(status);
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "no-times", no_argument, NULL, 't' },
		{ "no-holes", no_argument, NULL, 'H' },
		{ "exclude", required_argument, NULL, 'x' },
		{ "max", required_argument, NULL, 'm' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL }
	};
	int c;

	while ((c = getopt_long(argc, argv, "h", opts, NULL)) >= 0) {
		switch (c) {
		case 't': no_times = true; break;
		case 'H': no_holes = true; break;
		case 'm': max_report = strtoul(optarg, NULL, 10); break;
		case 'x':
			globs = xrealloc(globs, (n_globs + 1) * sizeof(*globs));
			globs[n_globs++] = optarg;
			break;
		case 'h': usage(stdout, 0); break;
		default: usage(stderr, 2);
		}
	}
	if (argc - optind != 2)
		usage(stderr, 2);
	compare_trees((const char *const[]){ argv[optind], argv[optind + 1] });
	if (fflush(stdout))
		err(2, "treecmp: output");
	if (differences)
		fprintf(stderr, "treecmp: %lu differences\n", differences);
	return troubles ? 2 : differences ? 1 : 0;
}
