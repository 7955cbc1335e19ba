// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * logtest DIR [NAME...]: after each kind of operation the modification log has
 * exactly the records that it must have, with the right fields, and no others.
 * DIR lies in a mounted fileset whose root is $IZO_ROOT; nobody else may work
 * in it meanwhile.  The channel's SYNC says when the log is complete.
 */
#include "t.h"

#include <endian.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>

#include "chan.h"
#include "record.h"
#include "util.h"

#define MAX_RECS	20000

static int chan, kml;
static uint64_t pos, next_recno;
static char *raw;
static struct kml_record rec[MAX_RECS];
static unsigned int n_recs;

static struct izo_pos sync_log(void)
{
	struct izo_pos p;
	ssize_t n = chan_call(chan, IZO_MSG_SYNC, 0, NULL, 0, &p, sizeof(p), NULL);

	if (n != sizeof(p))
		FAIL("SYNC: %s", n < 0 ? strerror(-n) : "short answer");
	return p;
}

/* What follows is what log_is() will look at. */
static void begin(void)
{
	struct izo_pos p = sync_log();

	pos = le64toh(p.offset);
	next_recno = le64toh(p.recno) + 1;
}

static void take(void)
{
	uint64_t end = le64toh(sync_log().offset);
	size_t size = end - pos, at = 0;
	ssize_t n;

	free(raw);
	raw = malloc(size + 1);
	OK(!pread_all(kml, raw, size, pos));
	for (n_recs = 0; at < size; n_recs++) {
		OK(n_recs < MAX_RECS);
		n = kml_decode(raw + at, size - at, &rec[n_recs]);
		if (n < 0)
			FAIL("record at %llu: %s", (unsigned long long)(pos + at),
			     strerror(-n));
		EQ(rec[n_recs].recno, next_recno++);
		OK(t_recent((struct timespec){ rec[n_recs].time.sec, 0 }));
		at += n;
	}
	pos = end;
}

static void t_log_is(const char *want, int line)
{
	char got[4096] = "";

	take();
	for (unsigned int i = 0; i < n_recs && strlen(got) < 3900; i++) {
		const char *op = kml_opcode_name(rec[i].opcode);

		sprintf(got + strlen(got), "%s%s", i ? " " : "", op ? op : "?");
	}
	if (strcmp(got, want))
		t_fail(__FILE__, line, "logged \"%s\", expected \"%s\"", got, want);
}

#define LOG(want) t_log_is(want, __LINE__)

static bool str_is(const struct kml_str *s, const char *want)
{
	return s->ptr ? s->len == strlen(want) && !memcmp(s->ptr, want, s->len) : !*want;
}

static void t_str(const struct kml_str *s, const char *want, const char *what, int line)
{
	if (!str_is(s, want))
		t_fail(__FILE__, line, "%s is \"%.*s\", expected \"%s\"", what,
		       (int)s->len, s->ptr ? s->ptr : "", want);
}

#define STR(s, want) t_str(&(s), want, #s, __LINE__)

static bool time_is(const struct kml_time *t, const struct timespec *ts)
{
	return t->sec == ts->tv_sec && t->nsec == ts->tv_nsec;
}

/* the attributes are what the object has now */
static void t_attr(const struct kml_record *r, const char *path, int line)
{
	struct stat st = t_stat(path);
	const struct kml_attrs *a = &r->attr;

	if (!r->has_attr)
		t_fail(__FILE__, line, "no ATTR");
	if (a->mode != st.st_mode)
		t_fail(__FILE__, line, "mode %o, is %o", a->mode, st.st_mode);
	if (a->uid != st.st_uid || a->gid != st.st_gid)
		t_fail(__FILE__, line, "owner %u:%u, is %u:%u", a->uid, a->gid,
		       st.st_uid, st.st_gid);
	if (S_ISREG(st.st_mode) && a->size != (uint64_t)st.st_size)
		t_fail(__FILE__, line, "size %llu, is %lld",
		       (unsigned long long)a->size, (long long)st.st_size);
	if (!time_is(&a->mtime, &st.st_mtim))
		t_fail(__FILE__, line, "mtime %lld.%09u, is %lld.%09ld",
		       (long long)a->mtime.sec, a->mtime.nsec,
		       (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	if (r->obj.ino != st.st_ino)
		t_fail(__FILE__, line, "object %llu, is %llu",
		       (unsigned long long)r->obj.ino, (unsigned long long)st.st_ino);
}

#define ATTR(r, path) t_attr(r, path, __LINE__)

static void t_ptime(const struct kml_time *t, bool has, const char *dir, int line)
{
	struct stat st = t_stat(dir);

	if (!has)
		t_fail(__FILE__, line, "no PTIME");
	if (!time_is(t, &st.st_mtim))
		t_fail(__FILE__, line, "PTIME %lld.%09u, %s has %lld.%09ld",
		       (long long)t->sec, t->nsec, dir,
		       (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

#define PTIME(r, dir) t_ptime(&(r)->ptime, (r)->has_ptime, dir, __LINE__)
#define TPTIME(r, dir) t_ptime(&(r)->tptime, (r)->has_ptime, dir, __LINE__)

/* Who, and the directory by number and by path. */
static void t_head(const struct kml_record *r, const char *dir, int line)
{
	char root[PATH_MAX], want[2 * PATH_MAX], here[PATH_MAX];
	struct stat st = t_stat(dir);

	if (r->pid != (uint32_t)getpid())
		t_fail(__FILE__, line, "pid %u, is %d", r->pid, getpid());
	if (r->fsuid != geteuid() || r->fsgid != getegid())
		t_fail(__FILE__, line, "fsuid %u fsgid %u", r->fsuid, r->fsgid);
	if (r->parent.ino != st.st_ino)
		t_fail(__FILE__, line, "parent %llu, %s is %llu",
		       (unsigned long long)r->parent.ino, dir,
		       (unsigned long long)st.st_ino);
	if (r->has_origin)
		t_fail(__FILE__, line, "has an ORIGIN");
	OK(realpath(getenv("IZO_ROOT"), root) && realpath(dir, here));
	snprintf(want, sizeof(want), "%s", here + strlen(root));
	t_str(&r->dir, *want ? want : "/", "DIR", line);
}

#define HEAD(r, dir) t_head(r, dir, __LINE__)

/*
 * Ranges: every byte of must is in them, and nothing outside of must and may
 * rounded to pages.  "off+len off+len ..."
 */
static bool in_list(const char *list, uint64_t byte, bool round)
{
	unsigned long long off, len;
	int n;

	for (; sscanf(list, " %llu+%llu%n", &off, &len, &n) == 2; list += n) {
		unsigned long long from = round ? off & ~4095ull : off;
		unsigned long long to = round ? (off + len + 4095) & ~4095ull : off + len;

		if (len && byte >= from && byte < to)
			return true;
	}
	return false;
}

static bool in_ranges(const struct kml_record *r, uint64_t byte)
{
	uint64_t off, len;

	for (unsigned int i = 0; i < r->n_ranges; i++) {
		kml_range_get(r, i, &off, &len);
		if (byte >= off && byte - off < len)
			return true;
	}
	return false;
}

static void t_must(const struct kml_record *r, const char *must, int line)
{
	unsigned long long off, len;
	int n;

	for (; sscanf(must, " %llu+%llu%n", &off, &len, &n) == 2; must += n)
		for (unsigned long long b = off; b < off + len; b++)
			if (!in_ranges(r, b))
				t_fail(__FILE__, line, "byte %llu was written, but is in no range", b);
}

static void t_ranges(const struct kml_record *r, const char *must, const char *may,
		     int line)
{
	uint64_t off, len;

	if (r->flags & KML_F_RANGES_ALL)
		t_fail(__FILE__, line, "says \"all\", expected %s", must);
	t_must(r, must, line);
	for (unsigned int i = 0; i < r->n_ranges; i++) {
		kml_range_get(r, i, &off, &len);
		for (uint64_t b = off; b < off + len; b = (b & ~4095ull) + 4096)
			if (!in_list(must, b, true) && !in_list(may, b, true))
				t_fail(__FILE__, line,
				       "range %llu+%llu, but only %s was written",
				       (unsigned long long)off, (unsigned long long)len, must);
	}
}

#define RANGES(r, must) t_ranges(r, must, "", __LINE__)
#define RANGES2(r, must, may) t_ranges(r, must, may, __LINE__)

/* of a file that is new in this session, "all" is as good */
static void new_content(const struct kml_record *r, uint64_t size)
{
	char must[32];

	sprintf(must, "0+%llu", (unsigned long long)size);
	if (!(r->flags & KML_F_RANGES_ALL))
		RANGES(r, must);
}

TEST(log_create)
{
	int fd;

	begin();
	fd = Z(open("f", O_CREAT | O_EXCL | O_WRONLY, 0640));
	LOG("CREATE");
	HEAD(&rec[0], ".");
	STR(rec[0].name, "f");
	ATTR(&rec[0], "f");
	PTIME(&rec[0], ".");
	EQ(rec[0].attr.size, 0);
	OK(!rec[0].has_old);
	EQ(write(fd, "hello", 5), 5);
	Z(close(fd));
	LOG("CLOSE");
	ATTR(&rec[0], "f");
	EQ(rec[0].attr.size, 5);
	new_content(&rec[0], 5);
	EQ(rec[0].pid, getpid());
}

TEST(log_create_without_writing)
{
	begin();
	Z(close(Z(open("f", O_CREAT | O_WRONLY, 0644))));
	Z(close(Z(open("f", O_CREAT | O_WRONLY, 0644))));
	Z(close(Z(open("f", O_RDWR))));
	LOG("CREATE");
}

TEST(log_mkdir)
{
	begin();
	Z(mkdir("d", 0751));
	LOG("MKDIR");
	HEAD(&rec[0], ".");
	STR(rec[0].name, "d");
	ATTR(&rec[0], "d");
	PTIME(&rec[0], ".");
	Z(mkdir("d/e", 0700));
	LOG("MKDIR");
	HEAD(&rec[0], "d");
	PTIME(&rec[0], "d");
	EQ(rec[0].parent.ino, t_stat("d").st_ino);
}

TEST(log_symlink)
{
	begin();
	Z(symlink("some/where else", "l"));
	LOG("SYMLINK");
	HEAD(&rec[0], ".");
	STR(rec[0].name, "l");
	STR(rec[0].link, "some/where else");
	ATTR(&rec[0], "l");
	PTIME(&rec[0], ".");
}

TEST(log_mknod)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX, .sun_path = "s" };

	begin();
	Z(mknod("c", S_IFCHR | 0620, makedev(5, 70000)));
	LOG("MKNOD");
	HEAD(&rec[0], ".");
	STR(rec[0].name, "c");
	ATTR(&rec[0], "c");
	EQ(rec[0].attr.rdev_major, 5);
	EQ(rec[0].attr.rdev_minor, 70000);
	PTIME(&rec[0], ".");
	Z(mkfifo("p", 0600));
	LOG("MKNOD");
	ATTR(&rec[0], "p");
	Z(bind(Z(socket(AF_UNIX, SOCK_DGRAM, 0)), (struct sockaddr *)&sa, sizeof(sa)));
	take();
	OK(n_recs >= 1 && rec[0].opcode == KML_MKNOD);
	OK(S_ISSOCK(rec[0].attr.mode));
	Z(mknod("r", S_IFREG | 0604, 0));
	take();
	EQ(n_recs, 1);
	OK(rec[0].opcode == KML_CREATE || rec[0].opcode == KML_MKNOD);
	ATTR(&rec[0], "r");
}

TEST(log_link)
{
	t_write("a", "x");
	Z(mkdir("d", 0755));
	begin();
	Z(link("a", "d/b"));
	LOG("LINK");
	STR(rec[0].tname, "b");
	EQ(rec[0].tparent.ino, t_stat("d").st_ino);
	EQ(rec[0].obj.ino, t_stat("a").st_ino);
	EQ(rec[0].attr.nlink, 2);
	TPTIME(&rec[0], "d");
	PTIME(&rec[0], ".");	/* where the old name is: as it was */
	if (rec[0].name.ptr) {
		STR(rec[0].name, "a");
		EQ(rec[0].parent.ino, t_stat(".").st_ino);
	}
}

TEST(log_unlink)
{
	struct stat st;

	t_write("f", "12345");
	st = t_stat("f");
	begin();
	Z(unlink("f"));
	LOG("UNLINK");
	HEAD(&rec[0], ".");
	STR(rec[0].name, "f");
	EQ(rec[0].obj.ino, st.st_ino);
	OK(rec[0].has_old);
	EQ(rec[0].old.ino, st.st_ino);
	EQ(rec[0].old_attr.size, 5);
	EQ(rec[0].old_attr.nlink, 0);
	EQ(rec[0].old_attr.mode, st.st_mode);
	OK(time_is(&rec[0].old_attr.mtime, &st.st_mtim));
	PTIME(&rec[0], ".");
}

TEST(log_unlink_one_of_two)
{
	t_write("a", "x");
	Z(link("a", "b"));
	begin();
	Z(unlink("a"));
	LOG("UNLINK");
	EQ(rec[0].obj.ino, t_stat("b").st_ino);
	EQ(rec[0].old_attr.size, 1);
	EQ(rec[0].old_attr.nlink, 1);
}

TEST(log_rmdir)
{
	ino_t ino;

	Z(mkdir("d", 0711));
	ino = t_stat("d").st_ino;
	begin();
	Z(rmdir("d"));
	LOG("RMDIR");
	HEAD(&rec[0], ".");
	STR(rec[0].name, "d");
	EQ(rec[0].obj.ino, ino);
	OK(rec[0].has_old);
	EQ(rec[0].old_attr.mode, S_IFDIR | 0711);
	PTIME(&rec[0], ".");
}

TEST(log_rename)
{
	ino_t a, b;

	t_write("a", "A");
	Z(mkdir("d", 0755));
	a = t_stat("a").st_ino;
	begin();
	Z(rename("a", "d/b"));
	LOG("RENAME");
	HEAD(&rec[0], ".");
	STR(rec[0].name, "a");
	STR(rec[0].tname, "b");
	EQ(rec[0].tparent.ino, t_stat("d").st_ino);
	EQ(rec[0].obj.ino, a);
	OK(!rec[0].has_old);
	PTIME(&rec[0], ".");
	TPTIME(&rec[0], "d");
	t_write("c", "CCC");
	b = t_stat("d/b").st_ino;
	begin();
	Z(rename("c", "d/b"));
	LOG("RENAME");
	OK(rec[0].has_old);
	EQ(rec[0].old.ino, b);
	EQ(rec[0].old_attr.size, 1);
	EQ(rec[0].obj.ino, t_stat("d/b").st_ino);
	Z(link("d/b", "same"));
	begin();
	Z(rename("d/b", "same"));	/* the same object: nothing happens */
	LOG("");
}

TEST(log_rename_flags)
{
	ino_t a, b;

	t_write("a", "A");
	Z(mkdir("b", 0755));
	a = t_stat("a").st_ino;
	b = t_stat("b").st_ino;
	begin();
	Z(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE));
	LOG("RENAME");
	OK(rec[0].flags & KML_F_EXCHANGE);
	EQ(rec[0].obj.ino, a);
	EQ(t_stat("a").st_ino, b);
	OK(rec[0].has_old);
	EQ(rec[0].old.ino, b);
	PTIME(&rec[0], ".");
	TPTIME(&rec[0], ".");
	Z(renameat2(AT_FDCWD, "a", AT_FDCWD, "c", RENAME_NOREPLACE));
	LOG("RENAME");
	OK(rec[0].flags & KML_F_NOREPLACE);
	OK(!(rec[0].flags & KML_F_EXCHANGE));
}

TEST(log_setattr)
{
	t_write("f", "x");
	begin();
	Z(chmod("f", 04711));
	LOG("SETATTR");
	ATTR(&rec[0], "f");
	OK(rec[0].has_old);
	EQ(rec[0].old_attr.mode, S_IFREG | 0644);
	OK(rec[0].attr.valid & KML_A_MODE);
	OK(!(rec[0].attr.valid & (KML_A_SIZE | KML_A_MTIME)));
	EQ(rec[0].pid, getpid());
	Z(chown("f", 7, -1));
	LOG("SETATTR");
	ATTR(&rec[0], "f");
	OK(rec[0].attr.valid & KML_A_UID);
	EQ(rec[0].attr.mode, S_IFREG | 0711);	/* suid went away with it */
	OK(rec[0].attr.valid & KML_A_MODE);
	Z(chown("f", -1, 8));
	LOG("SETATTR");
	OK(rec[0].attr.valid & KML_A_GID);
	EQ(rec[0].attr.gid, 8);
	Z(utimensat(AT_FDCWD, "f", (struct timespec[2]){ { 1, 2 }, { 3, 4 } }, 0));
	LOG("SETATTR");
	ATTR(&rec[0], "f");
	OK(rec[0].attr.valid & KML_A_MTIME);
	EQ(rec[0].attr.mtime.nsec, 4);
	Z(mkdir("d", 0755));
	begin();
	Z(chmod("d", 0700));
	LOG("SETATTR");
	ATTR(&rec[0], "d");
	Z(symlink("x", "l"));
	begin();
	Z(lchown("l", 3, 4));
	LOG("SETATTR");
	ATTR(&rec[0], "l");
}

TEST(log_atime_is_nobodys_business)
{
	char c;
	int fd;

	t_write("f", "x");
	t_backdate("f");
	begin();
	Z(utimensat(AT_FDCWD, "f", (struct timespec[2]){ { 1, 2 }, { 0, UTIME_OMIT } }, 0));
	fd = Z(open("f", O_RDONLY));
	EQ(read(fd, &c, 1), 1);
	Z(close(fd));
	take();
	for (unsigned int i = 0; i < n_recs; i++)
		OK(rec[i].opcode == KML_SETATTR && !(rec[i].attr.valid & KML_A_MTIME));
}

TEST(log_reading_is_silent)
{
	char buf[100], *m;
	struct stat st;
	int fd;

	t_write("f", "some text");
	Z(mkdir("d", 0755));
	Z(symlink("f", "l"));
	begin();
	t_text("f", "some text");
	t_text("l", "some text");
	EQ(t_entries("."), 3);
	EQ(t_entries("d"), 0);
	Z(stat("f", &st));
	Z(readlink("l", buf, sizeof(buf)));
	Z(access("f", W_OK));
	listxattr("f", buf, sizeof(buf));
	fd = Z(open("f", O_RDWR));
	EQ(read(fd, buf, 4), 4);
	m = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	OK(m != MAP_FAILED && m[0] == 's');
	Z(munmap(m, 4096));
	Z(fsync(fd));
	Z(close(fd));
	LOG("");
}

TEST(log_failures_are_silent)
{
	t_write("f", "x");
	Z(mkdir("d", 0755));
	t_write("d/in", "x");
	Z(chmod(".", 0755));
	begin();
	E(EEXIST, mkdir("d", 0755));
	E(EEXIST, symlink("x", "f"));
	E(EEXIST, link("f", "d"));
	E(EEXIST, mknod("f", S_IFIFO | 0644, 0));
	E(EEXIST, open("f", O_CREAT | O_EXCL | O_WRONLY, 0644));
	E(ENOTEMPTY, rmdir("d"));
	E(ENOENT, unlink("none"));
	E(ENOENT, rename("none", "x"));
	E(EISDIR, rename("f", "d"));
	E(EEXIST, renameat2(AT_FDCWD, "f", AT_FDCWD, "d", RENAME_NOREPLACE));
	E(EINVAL, rename("d", "d/x"));
	E(ENODATA, removexattr("f", "user.none"));
	E(EEXIST, (setxattr("f", "user.x", "1", 1, 0),
		   setxattr("f", "user.x", "1", 1, XATTR_CREATE)));
	AS(65534, 65534, {
		E(EACCES, open("f", O_WRONLY));
		E(EPERM, chmod("f", 0777));
		E(EACCES, unlink("f"));
		E(EACCES, mkdir("d/x", 0755));
		E(EACCES, truncate("f", 0));
	});
	LOG("SETXATTR");
}

TEST(log_xattr)
{
	struct kml_str name, value;
	size_t at = 0;

	t_write("f", "x");
	begin();
	Z(setxattr("f", "user.key", "some\0value", 10, 0));
	LOG("SETXATTR");
	EQ(rec[0].obj.ino, t_stat("f").st_ino);
	OK(kml_xattr_next(rec[0].xattrs, rec[0].xattrs_len, &at, &name, &value));
	STR(name, "user.key");
	EQ(value.len, 10);
	OK(!memcmp(value.ptr, "some\0value", 10));
	OK(!kml_xattr_next(rec[0].xattrs, rec[0].xattrs_len, &at, &name, &value));
	Z(removexattr("f", "user.key"));
	LOG("REMOVEXATTR");
	at = 0;
	OK(kml_xattr_next(rec[0].xattrs, rec[0].xattrs_len, &at, &name, &value));
	STR(name, "user.key");
	Z(setxattr("f", "user.empty", "", 0, 0));
	LOG("SETXATTR");
}

TEST(log_big_xattr)
{
	static char big[60000];
	struct kml_str name, value;
	size_t at = 0, n = sizeof(big);

	t_fill(big, n, 5);
	t_write("f", "x");
	begin();
	while (setxattr("f", "user.big", big, n, 0)) {
		OK(errno == ENOSPC || errno == E2BIG);
		n /= 2;
	}
	LOG("SETXATTR");
	OK(kml_xattr_next(rec[0].xattrs, rec[0].xattrs_len, &at, &name, &value));
	EQ(value.len, n);
	OK(!memcmp(value.ptr, big, n));
}

static const uint32_t acl[] = {	/* u::rwx u:77:rw g::r m::rw o::- */
	2, 7 << 16 | 1, -1, 6 << 16 | 2, 77, 4 << 16 | 4, -1, 6 << 16 | 16, -1, 32, -1
};

TEST(log_acl)
{
	struct kml_str name, value;
	bool found = false;
	size_t at = 0;

	t_write("f", "x");
	begin();
	Z(setxattr("f", "system.posix_acl_access", acl, sizeof(acl), 0));
	LOG("SETXATTR");
	OK(kml_xattr_next(rec[0].xattrs, rec[0].xattrs_len, &at, &name, &value));
	STR(name, "system.posix_acl_access");
	EQ(value.len, sizeof(acl));
	OK(rec[0].has_attr);
	EQ(rec[0].attr.mode, S_IFREG | 0760);
	EQ(t_stat("f").st_mode & 07777, 0760);
	Z(mkdir("d", 0755));
	Z(setxattr("d", "system.posix_acl_default", acl, sizeof(acl), 0));
	begin();
	Z(close(Z(open("d/f", O_CREAT | O_WRONLY, 0666))));
	LOG("CREATE");
	ATTR(&rec[0], "d/f");
	at = 0;
	while (kml_xattr_next(rec[0].xattrs, rec[0].xattrs_len, &at, &name, &value))
		found |= str_is(&name, "system.posix_acl_access");
	OK(found);	/* what it inherited comes with the CREATE */
}

/* an old file of 64 KiB, whose next sessions are looked at */
static int old_file(int flags)
{
	static char buf[65536];
	int fd = Z(open("f", O_CREAT | O_WRONLY, 0644));

	t_fill(buf, sizeof(buf), 1);
	EQ(write(fd, buf, sizeof(buf)), sizeof(buf));
	Z(close(fd));
	begin();
	return flags < 0 ? -1 : (int)Z(open("f", flags));
}

TEST(log_ranges_of_write)
{
	int fd = old_file(O_RDWR);

	EQ(pwrite(fd, "abc", 3, 10000), 3);
	EQ(pwrite(fd, "defg", 4, 50000), 4);
	LOG("");	/* still open */
	Z(close(fd));
	LOG("CLOSE");
	OK(rec[0].has_old);
	EQ(rec[0].old_attr.size, 65536);
	RANGES(&rec[0], "10000+3 50000+4");
	ATTR(&rec[0], "f");
	HEAD(&rec[0], ".");
	STR(rec[0].name, "f");
}

/* Across pages, and larger than one request of any file system. */
TEST(log_ranges_of_large_writes)
{
	static char buf[3 << 20];
	int fd = old_file(O_WRONLY);

	EQ(pwrite(fd, buf, 20001, 12345), 20001);
	EQ(pwrite(fd, buf, sizeof(buf), 100000), sizeof(buf));
	Z(close(fd));
	LOG("CLOSE");
	RANGES(&rec[0], "12345+20001 100000+3145728");
	EQ(rec[0].attr.size, 100000 + sizeof(buf));
}

TEST(log_ranges_of_append)
{
	int fd = old_file(O_WRONLY | O_APPEND);

	EQ(write(fd, "tail", 4), 4);
	EQ(write(fd, "more", 4), 4);
	Z(close(fd));
	LOG("CLOSE");
	RANGES(&rec[0], "65536+8");
	EQ(rec[0].attr.size, 65544);
}

TEST(log_ranges_merge)
{
	int fd = old_file(O_WRONLY);

	for (int i = 0; i < 500; i++)
		EQ(pwrite(fd, "0123456789", 10, 20000 + i * 10), 10);
	for (int i = 99; i >= 0; i--)
		EQ(pwrite(fd, "0123456789", 10, 1000 + i * 5), 10);
	Z(close(fd));
	LOG("CLOSE");
	RANGES(&rec[0], "1000+505 20000+5000");
	OK(rec[0].n_ranges <= 2);
}

TEST(log_many_ranges)
{
	int fd = old_file(O_WRONLY);

	Z(ftruncate(fd, 4000 * 8192));
	for (int i = 0; i < 3000; i++)
		EQ(pwrite(fd, "x", 1, i * 8192ll), 1);
	Z(close(fd));
	LOG("CLOSE");
	OK(rec[0].n_ranges <= KML_RANGES_MAX);
	if (!(rec[0].flags & KML_F_RANGES_ALL))
		for (int i = 0; i < 3000; i++)
			OK(in_ranges(&rec[0], i * 8192ll));
}

/*
 * Over the module a store counts for as much as one fault makes writable, which
 * may be a whole large folio where the kernel has these.
 */
static const char *mapped_with_it(void)
{
	struct statfs st;

	Z(statfs(".", &st));
	return st.f_type == FUSE_SUPER_MAGIC ||
	       access("/sys/kernel/mm/transparent_hugepage", F_OK) ? "" : "0+65536";
}

TEST(log_ranges_of_mmap)
{
	char *m;
	int fd = old_file(O_RDWR);

	m = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	OK(m != MAP_FAILED);
	m[5000]++;
	memset(m + 40000, 'm', 3000);
	Z(munmap(m, 65536));
	Z(close(fd));
	LOG("CLOSE");
	RANGES2(&rec[0], "5000+1 40000+3000", mapped_with_it());
	ATTR(&rec[0], "f");
}

TEST(log_mmap_after_close)
{
	char *m;
	int fd = old_file(O_RDWR);

	m = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	OK(m != MAP_FAILED);
	Z(close(fd));
	m[12345]++;
	Z(munmap(m, 65536));
	take();
	OK(n_recs >= 1);
	EQ(rec[n_recs - 1].opcode, KML_CLOSE);
	RANGES2(&rec[n_recs - 1], "12345+1", mapped_with_it());
	ATTR(&rec[n_recs - 1], "f");
}

TEST(log_ranges_of_truncate)
{
	int fd = old_file(-1);

	Z(truncate("f", 1000));
	LOG("CLOSE");
	EQ(rec[0].attr.size, 1000);
	RANGES2(&rec[0], "", "1000+64536");
	ATTR(&rec[0], "f");
	fd = Z(open("f", O_RDWR));
	Z(ftruncate(fd, 500));
	Z(ftruncate(fd, 1000));	/* 500 bytes are zero now */
	Z(close(fd));
	LOG("CLOSE");
	EQ(rec[0].attr.size, 1000);
	RANGES(&rec[0], "500+500");
	fd = Z(open("f", O_RDWR));
	Z(ftruncate(fd, 400));
	EQ(pwrite(fd, "x", 1, 799), 1);
	Z(close(fd));
	LOG("CLOSE");
	EQ(rec[0].attr.size, 800);
	t_must(&rec[0], "799+1", __LINE__);
	if (!in_ranges(&rec[0], 400))	/* then the size before tells of it */
		OK(rec[0].has_old && rec[0].old_attr.size == 1000);
	Z(truncate("f", 1000));
	LOG("CLOSE");
	Z(truncate("f", 100000));
	LOG("CLOSE");
	EQ(rec[0].attr.size, 100000);
	RANGES2(&rec[0], "", "1000+99000");
	Z(close(Z(open("f", O_WRONLY | O_TRUNC))));
	LOG("CLOSE");
	EQ(rec[0].attr.size, 0);
}

TEST(log_truncate_and_write)
{
	int fd = old_file(O_WRONLY | O_TRUNC);

	EQ(write(fd, "short", 5), 5);
	Z(close(fd));
	LOG("CLOSE");
	EQ(rec[0].attr.size, 5);
	new_content(&rec[0], 5);
}

TEST(log_ranges_of_fallocate)
{
	int fd = old_file(O_RDWR);

	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, 8192))
		FAIL("no holes can be punched here");
	Z(close(fd));
	LOG("CLOSE");
	RANGES(&rec[0], "8192+8192");
	EQ(rec[0].attr.size, 65536);
	fd = Z(open("f", O_RDWR));
	Z(fallocate(fd, 0, 65536, 4096));
	Z(close(fd));
	LOG("CLOSE");
	EQ(rec[0].attr.size, 69632);
	RANGES2(&rec[0], "", "65536+4096");
	fd = Z(open("f", O_RDWR));
	if (fallocate(fd, FALLOC_FL_ZERO_RANGE, 100, 5000) == 0) {
		Z(close(fd));
		LOG("CLOSE");
		RANGES(&rec[0], "100+5000");
	}
}

TEST(log_ranges_of_collapse)
{
	int fd = old_file(O_RDWR);

	if (fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 16384, 16384)) {
		EQ(errno, EOPNOTSUPP);	/* a right answer, too */
		Z(close(fd));
		LOG("");
		return;
	}
	Z(close(fd));
	LOG("CLOSE");
	EQ(rec[0].attr.size, 49152);
	if (!(rec[0].flags & KML_F_RANGES_ALL))
		t_must(&rec[0], "16384+32768", __LINE__);
}

TEST(log_ranges_of_copy_file_range)
{
	loff_t in = 0, out = 30000;
	int fd = old_file(O_RDWR), from;

	t_write("src", "0123456789abcdef");
	from = Z(open("src", O_RDONLY));
	begin();
	EQ(copy_file_range(from, &in, fd, &out, 16, 0), 16);
	Z(close(from));
	Z(close(fd));
	LOG("CLOSE");
	RANGES(&rec[0], "30000+16");
	EQ(rec[0].obj.ino, t_stat("f").st_ino);
}

TEST(log_two_writers_one_close)
{
	int a = old_file(O_RDWR), b = Z(open("f", O_WRONLY));

	EQ(pwrite(a, "a", 1, 0), 1);
	EQ(pwrite(b, "b", 1, 20000), 1);
	Z(close(a));
	Z(close(b));
	take();
	OK(n_recs >= 1);
	for (unsigned int i = 0; i < n_recs; i++) {
		EQ(rec[i].opcode, KML_CLOSE);
		RANGES2(&rec[i], "", "0+1 20000+1");
	}
	ATTR(&rec[n_recs - 1], "f");
	OK(in_ranges(&rec[0], 0));
	OK(in_ranges(&rec[n_recs - 1], 20000));
}

TEST(log_dup_is_one_writer)
{
	int fd = old_file(O_RDWR), d = Z(dup(fd));

	EQ(write(fd, "x", 1), 1);
	Z(close(fd));
	take();		/* SYNC: flushed, so it may get its CLOSE now */
	EQ(write(d, "y", 1), 1);
	Z(close(d));
	take();
	OK(n_recs >= 1);
	EQ(rec[n_recs - 1].opcode, KML_CLOSE);
	OK(in_ranges(&rec[n_recs - 1], 1));
}

TEST(log_fchmod_of_open_file)
{
	int fd = old_file(O_RDWR);

	EQ(write(fd, "x", 1), 1);
	Z(fchmod(fd, 0600));
	Z(futimens(fd, (struct timespec[2]){ { 1, 2 }, { 3, 4 } }));
	Z(close(fd));
	take();
	OK(n_recs >= 2);
	ATTR(&rec[n_recs - 1], "f");
	EQ(t_stat("f").st_mtim.tv_sec, 3);
}

TEST(log_rename_of_open_file)
{
	int fd = old_file(O_RDWR);

	EQ(write(fd, "x", 1), 1);
	Z(mkdir("d", 0755));
	Z(rename("f", "d/g"));
	Z(close(fd));
	LOG("MKDIR RENAME CLOSE");
	EQ(rec[2].obj.ino, t_stat("d/g").st_ino);
	STR(rec[2].name, "g");
	EQ(rec[2].parent.ino, t_stat("d").st_ino);
}

TEST(log_write_to_unlinked_file)
{
	int fd = old_file(O_RDWR);

	Z(unlink("f"));
	LOG("UNLINK");
	EQ(write(fd, "x", 1), 1);
	Z(close(fd));
	take();
	for (unsigned int i = 0; i < n_recs; i++)	/* it has no name to be sent to */
		OK(rec[i].opcode == KML_CLOSE && !rec[i].name.ptr);
}

TEST(log_tmpfile)
{
	char proc[64];
	int fd;

	begin();
	fd = open(".", O_TMPFILE | O_RDWR, 0640);
	if (fd < 0 && errno == EOPNOTSUPP)
		t_skip("no O_TMPFILE here");
	Z(fd);
	EQ(write(fd, "hello", 5), 5);
	LOG("");
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	Z(linkat(AT_FDCWD, proc, AT_FDCWD, "f", AT_SYMLINK_FOLLOW));
	Z(close(fd));
	take();
	OK(n_recs >= 1);
	EQ(rec[0].opcode, KML_CREATE);
	STR(rec[0].name, "f");
	EQ(rec[0].parent.ino, t_stat(".").st_ino);
	EQ(rec[n_recs - 1].opcode, KML_CLOSE);
	ATTR(&rec[n_recs - 1], "f");
	EQ(rec[n_recs - 1].attr.size, 5);
	new_content(&rec[n_recs - 1], 5);
	for (unsigned int i = 0; i < n_recs; i++)
		EQ(rec[i].obj.ino, t_stat("f").st_ino);
}

TEST(log_fsync_of_long_open_file)
{
	int fd = old_file(O_RDWR);

	EQ(pwrite(fd, "x", 1, 5), 1);
	Z(fsync(fd));
	take();
	if (n_recs) {	/* held open long: an fsync may give it its CLOSE */
		EQ(n_recs, 1);
		EQ(rec[0].opcode, KML_CLOSE);
		RANGES(&rec[0], "5+1");
	}
	EQ(pwrite(fd, "y", 1, 9000), 1);
	Z(close(fd));
	take();
	EQ(n_recs, 1);
	OK(in_ranges(&rec[0], 9000));
}

TEST(log_suid_clearing_by_write)
{
	int fd = old_file(-1);

	Z(chmod("f", 06777));
	begin();
	AS(65534, 65534, {
		fd = Z(open("f", O_WRONLY));
		EQ(write(fd, "x", 1), 1);
		Z(close(fd));
	});
	take();
	OK(n_recs >= 1);
	EQ(rec[n_recs - 1].attr.mode, S_IFREG | 0777);
	EQ(rec[n_recs - 1].fsuid, 65534);
	if (n_recs == 1)	/* no SETATTR: then the CLOSE carries the mode */
		OK(!rec[0].attr.valid || rec[0].attr.valid & KML_A_MODE);
}

TEST(log_who)
{
	Z(chmod(".", 0777));
	begin();
	AS(1234, 4321, Z(mkdir("d", 0755)));
	LOG("MKDIR");
	EQ(rec[0].fsuid, 1234);
	EQ(rec[0].fsgid, 4321);
	EQ(rec[0].attr.uid, 1234);
	EQ(rec[0].attr.gid, 4321);
}

TEST(log_odd_names)
{
	char name[NAME_MAX + 1];

	for (unsigned int i = 0; i < NAME_MAX; i++)
		name[i] = i + 1 == '/' ? 'S' : i + 1;
	name[NAME_MAX] = '\0';
	begin();
	Z(mkdir(name, 0755));
	LOG("MKDIR");
	EQ(rec[0].name.len, NAME_MAX);
	OK(!memcmp(rec[0].name.ptr, name, NAME_MAX));
	Z(chdir(name));
	t_write("in\nside", "x");
	LOG("CREATE CLOSE");
	STR(rec[0].name, "in\nside");
	HEAD(&rec[0], ".");
}

TEST(log_deep_path)
{
	char name[201];

	memset(name, 'd', 200);
	name[200] = '\0';
	for (int i = 0; i < 30; i++) {
		Z(mkdir(name, 0755));
		Z(chdir(name));
	}
	begin();
	t_write("bottom", "x");
	LOG("CREATE CLOSE");
	EQ(rec[0].parent.ino, t_stat(".").st_ino);
	OK(rec[0].dir.len > 6000);
}

TEST(log_order_of_many)
{
	enum { N = 2000 };
	char name[32];

	begin();
	for (int i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		t_write(name, name);
		if (i % 3 == 0)
			Z(unlink(name));
	}
	take();
	for (unsigned int i = 0, f = 0; i < n_recs; f++) {
		snprintf(name, sizeof(name), "f%u", f);
		EQ(rec[i].opcode, KML_CREATE);
		STR(rec[i++].name, name);
		/* one that is gone at once need not say what was in it */
		if (f % 3 || rec[i].opcode == KML_CLOSE) {
			EQ(rec[i].opcode, KML_CLOSE);
			EQ(rec[i++].attr.size, strlen(name));
		}
		if (f % 3 == 0)
			EQ(rec[i++].opcode, KML_UNLINK);
	}
}

/*
 * How programs replace a file: a peer must never get the new name before the
 * new content, so what close() ended is in the log before the rename.
 */
TEST(log_content_before_rename)
{
	begin();
	for (int i = 0; i < 200; i++) {
		t_write("f.tmp", "new content");
		Z(rename("f.tmp", "f"));
	}
	take();
	EQ(n_recs, 600);
	for (int i = 0; i < 600; i += 3) {
		EQ(rec[i].opcode, KML_CREATE);
		EQ(rec[i + 1].opcode, KML_CLOSE);
		EQ(rec[i + 2].opcode, KML_RENAME);
		EQ(rec[i + 1].obj.ino, rec[i + 2].obj.ino);
		EQ(rec[i + 1].attr.size, 11);
	}
}

TEST(log_whole_directory_is_one_record)
{
	Z(mkdir("d", 0755));
	for (int i = 0; i < 500; i++) {
		char name[32];

		snprintf(name, sizeof(name), "d/f%d", i);
		Z(mknod(name, S_IFREG | 0644, 0));
	}
	begin();
	Z(rename("d", "e"));
	LOG("RENAME");
}

TEST(log_of_the_machinery_is_silent)
{
	char path[PATH_MAX], fset[64] = "";
	int dir;

	EQ(getxattr(getenv("IZO_ROOT"), IZO_XATTR_FILESET, fset, 63) > 0, 1);
	snprintf(path, sizeof(path), "%s/.intermezzo/%s/incoming", getenv("IZO_ROOT"), fset);
	dir = open(path, O_RDONLY | O_DIRECTORY);
	begin();
	if (dir >= 0) {
		int fd = openat(dir, "test-file", O_CREAT | O_WRONLY, 0600);

		if (fd >= 0) {
			EQ(write(fd, "x", 1), 1);
			Z(close(fd));
			Z(unlinkat(dir, "test-file", 0));
		}
	}
	OK(setxattr(getenv("IZO_ROOT"), IZO_XATTR_FILESET, "x", 1, 0) < 0);
	OK(removexattr(getenv("IZO_ROOT"), IZO_XATTR_CHANNEL) < 0);
	LOG("");
}

int main(int argc, char **argv)
{
	const char *root = getenv("IZO_ROOT");
	char path[PATH_MAX], fset[64] = "";
	struct izo_info info;
	int lower = -1;

	if (!root || getxattr(root, IZO_XATTR_FILESET, fset, 63) <= 0) {
		printf("Bail out! IZO_ROOT is no mounted fileset\n");
		return 1;
	}
	chan = chan_open(root);
	if (chan < 0) {
		printf("Bail out! channel: %s\n", strerror(-chan));
		return 1;
	}
	if (chan_call(chan, IZO_MSG_INFO, 0, NULL, 0, &info, sizeof(info), &lower) < 0 ||
	    lower < 0)
		lower = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	snprintf(path, sizeof(path), ".intermezzo/%s/kml", fset);
	kml = openat(lower, path, O_RDONLY | O_CLOEXEC);
	if (kml < 0) {
		printf("Bail out! %s: %s\n", path, strerror(errno));
		return 1;
	}
	return t_main(argc, argv);
}
