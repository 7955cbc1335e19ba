// SPDX-License-Identifier: GPL-2.0-or-later
/* Modes, owners, times, permissions, xattrs and POSIX ACLs. */
#include "t.h"

#include <endian.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/xattr.h>
#include <time.h>

#define NOBODY	65534

TEST(chmod_chown)
{
	struct stat st;

	t_write("f", "x");
	t_backdate("f");
	Z(chmod("f", 07751));
	st = t_stat("f");
	EQ(st.st_mode & 07777, 07751);
	OK(t_recent(st.st_ctim));
	EQ(st.st_mtim.tv_sec, 1000000000);
	Z(chmod("f", 0644));
	Z(chown("f", 12, 34));
	Z(chown("f", -1, 35));
	st = t_stat("f");
	EQ(st.st_uid, 12);
	EQ(st.st_gid, 35);
	Z(chown("f", 4000000000u, 4000000001u));
	st = t_stat("f");
	EQ(st.st_uid, 4000000000u);
	EQ(st.st_gid, 4000000001u);
	E(ENOENT, chmod("none", 0644));
	E(ENOENT, chown("none", 1, 1));
}

TEST(chown_clears_suid)
{
	t_write("f", "x");
	Z(chmod("f", 06755));
	Z(chown("f", 1, 1));
	EQ(t_stat("f").st_mode & 07777, 0755);
	Z(chmod("f", 02644));	/* no group execute: mandatory locking's mark */
	Z(chown("f", 2, -1));
	EQ(t_stat("f").st_mode & 07777, 02644);
	Z(mkdir("d", 0755));
	Z(chmod("d", 06755));
	Z(chown("d", 1, 1));
	EQ(t_stat("d").st_mode & 07777, 06755);
}

static void write_as_nobody(const char *name)
{
	int fd = Z(open(name, O_WRONLY));

	EQ(write(fd, "y", 1), 1);
	Z(close(fd));
}

TEST(write_clears_suid)
{
	t_write("f", "xx");
	Z(chmod("f", 06777));
	AS(NOBODY, NOBODY, write_as_nobody("f"));
	EQ(t_stat("f").st_mode & 07777, 0777);
	Z(chmod("f", 06777));
	AS(NOBODY, NOBODY, Z(truncate("f", 1)));
	EQ(t_stat("f").st_mode & 07777, 0777);
	Z(chmod("f", 06777));
	AS(NOBODY, NOBODY, Z(close(Z(open("f", O_WRONLY | O_TRUNC)))));
	EQ(t_stat("f").st_mode & 07777, 0777);
	Z(chmod("f", 06777));
	write_as_nobody("f");	/* root may */
	EQ(t_stat("f").st_mode & 07777, 06777);
}

TEST(chmod_drops_sgid_of_foreign_group)
{
	t_write("f", "x");
	Z(chown("f", NOBODY, 77));
	AS(NOBODY, NOBODY, Z(chmod("f", 02755)));
	EQ(t_stat("f").st_mode & 07777, 0755);
	Z(chown("f", NOBODY, NOBODY));
	AS(NOBODY, NOBODY, Z(chmod("f", 02755)));
	EQ(t_stat("f").st_mode & 07777, 02755);
}

static void make_in_sgid(void)
{
	t_write("d/f", "x");
	Z(mkdir("d/s", 0755));
	Z(symlink("x", "d/l"));
	Z(close(Z(open("d/x", O_CREAT | O_WRONLY, 02777))));
}

TEST(sgid_directory)
{
	Z(mkdir("d", 0777));
	Z(chown("d", 0, 99));
	Z(chmod("d", 02777));
	AS(NOBODY, NOBODY, make_in_sgid());
	EQ(t_stat("d/f").st_gid, 99);
	EQ(t_stat("d/f").st_uid, NOBODY);
	EQ(t_stat("d/s").st_gid, 99);
	EQ(t_stat("d/s").st_mode & 07777, 02755);
	EQ(t_stat("d/l").st_gid, 99);
	EQ(t_stat("d/x").st_gid, 99);
	EQ(t_stat("d/x").st_mode & 07777, 0755);
}

TEST(sticky_directory)
{
	Z(mkdir("d", 0777));
	Z(chmod("d", 01777));
	t_write("d/root", "x");
	AS(NOBODY, NOBODY, {
		E(EPERM, unlink("d/root"));
		E(EPERM, rename("d/root", "d/x"));
		t_write("d/mine", "x");
		E(EPERM, rename("d/mine", "d/root"));
		Z(rename("d/mine", "d/mine2"));
		Z(unlink("d/mine2"));
	});
	AS(1, 1, t_write("d/other", "x"));
	AS(NOBODY, NOBODY, E(EPERM, unlink("d/other")));
	Z(chown("d", NOBODY, 0));
	AS(NOBODY, NOBODY, Z(unlink("d/other")));
	EQ(t_entries("d"), 1);
}

TEST(permissions_of_others)
{
	t_write("secret", "x");
	Z(chmod("secret", 0600));
	t_write("group", "x");
	Z(chmod("group", 0060));
	Z(chown("group", 0, 4242));
	Z(mkdir("closed", 0700));
	t_write("closed/f", "x");
	Z(chmod("closed/f", 0666));
	Z(mkdir("blind", 0711));
	t_write("blind/f", "x");
	Z(mkdir("fixed", 0755));
	AS(NOBODY, NOBODY, {
		E(EACCES, open("secret", O_RDONLY));
		E(EACCES, open("secret", O_WRONLY));
		E(EACCES, access("secret", R_OK));
		E(EACCES, open("group", O_RDONLY));
		E(EACCES, open("closed/f", O_RDONLY));
		E(EACCES, open("blind", O_RDONLY | O_DIRECTORY));
		Z(open("blind/f", O_RDONLY));
		E(EACCES, open("blind/f", O_WRONLY));
		E(EACCES, open("fixed/x", O_CREAT | O_WRONLY, 0644));
		E(EACCES, mkdir("fixed/x", 0755));
		E(EACCES, symlink("a", "fixed/x"));
		E2(EACCES, EPERM, link("blind/f", "fixed/x"));
		E(EACCES, unlink("blind/f"));
		E(EPERM, chmod("secret", 0666));
		E(EPERM, chown("secret", NOBODY, -1));
		E(EPERM, utimensat(AT_FDCWD, "secret",
				   (struct timespec[2]){ { 1, 1 }, { 1, 1 } }, 0));
		E(EACCES, truncate("secret", 0));
		E2(EPERM, EACCES, setxattr("secret", "user.x", "1", 1, 0));
		E(EPERM, setxattr("blind/f", "trusted.x", "1", 1, 0));
	});
	t_text("secret", "x");
}

static void as_group(gid_t group)
{
	pid_t pid = t_fork();

	if (!pid) {
		const gid_t groups[] = { 7, group, 9000 };

		t_become(NOBODY, NOBODY, groups, 3);
		Z(open("g", O_RDWR));
		Z(close(Z(open("d/by-group", O_CREAT | O_EXCL | O_WRONLY, 0644))));
		_exit(0);
	}
	t_wait(pid, __FILE__, __LINE__);
}

TEST(supplementary_groups)
{
	t_write("g", "x");
	Z(chown("g", 0, 4242));
	Z(chmod("g", 0660));
	Z(mkdir("d", 0755));
	Z(chown("d", 0, 4242));
	Z(chmod("d", 0775));
	AS(NOBODY, NOBODY, {
		E(EACCES, open("g", O_RDWR));
		E(EACCES, open("d/x", O_CREAT | O_WRONLY, 0644));
	});
	as_group(4242);
	EQ(t_stat("d/by-group").st_uid, NOBODY);
	EQ(t_stat("d/by-group").st_gid, NOBODY);
	Z(chown("d/by-group", NOBODY, NOBODY));
	pid_t pid = t_fork();
	if (!pid) {
		const gid_t groups[] = { 4242 };

		t_become(NOBODY, NOBODY, groups, 1);
		Z(chown("d/by-group", -1, 4242));
		E(EPERM, chown("d/by-group", -1, 4243));
		Z(chmod("d/by-group", 02775));
		_exit(0);
	}
	t_wait(pid, __FILE__, __LINE__);
	EQ(t_stat("d/by-group").st_gid, 4242);
	EQ(t_stat("d/by-group").st_mode & 07777, 02775);
}

TEST(new_files_belong_to_maker)
{
	AS(1234, 4321, {
		t_write("f", "x");
		Z(mkdir("d", 0755));
		Z(symlink("x", "l"));
		Z(mkfifo("p", 0644));
	});
	for (const char *const *p = (const char *const []){ "f", "d", "l", "p", NULL };
	     *p; p++) {
		EQ(t_stat(*p).st_uid, 1234);
		EQ(t_stat(*p).st_gid, 4321);
	}
}

TEST(times_nanoseconds)
{
	struct timespec ts[2] = { { 1234567890, 123456789 }, { 987654321, 987654321 } };
	struct stat st;

	t_write("f", "x");
	Z(mkdir("d", 0755));
	Z(symlink("f", "l"));
	Z(utimensat(AT_FDCWD, "f", ts, 0));
	Z(utimensat(AT_FDCWD, "d", ts, 0));
	Z(utimensat(AT_FDCWD, "l", ts, AT_SYMLINK_NOFOLLOW));
	for (const char *const *p = (const char *const []){ "f", "d", "l", NULL }; *p; p++) {
		st = t_stat(*p);
		EQ(st.st_atim.tv_sec, 1234567890);
		EQ(st.st_atim.tv_nsec, 123456789);
		EQ(st.st_mtim.tv_sec, 987654321);
		EQ(st.st_mtim.tv_nsec, 987654321);
		OK(t_recent(st.st_ctim));
	}
	ts[0].tv_nsec = UTIME_OMIT;
	ts[1] = (struct timespec){ 5, 999999999 };
	Z(utimensat(AT_FDCWD, "f", ts, 0));
	st = t_stat("f");
	EQ(st.st_atim.tv_nsec, 123456789);
	EQ(st.st_mtim.tv_sec, 5);
	EQ(st.st_mtim.tv_nsec, 999999999);
	ts[0] = (struct timespec){ 0, UTIME_NOW };
	ts[1] = (struct timespec){ 0, UTIME_OMIT };
	Z(utimensat(AT_FDCWD, "f", ts, 0));
	st = t_stat("f");
	OK(t_recent(st.st_atim));
	EQ(st.st_mtim.tv_sec, 5);
	ts[1] = (struct timespec){ 0, UTIME_NOW };
	Z(utimensat(AT_FDCWD, "f", ts, 0));
	OK(t_recent(t_stat("f").st_mtim));
	ts[0] = ts[1] = (struct timespec){ -3, 5 };	/* before 1970 */
	Z(utimensat(AT_FDCWD, "f", ts, 0));
	EQ(t_stat("f").st_mtim.tv_sec, -3);
	EQ(t_stat("f").st_mtim.tv_nsec, 5);
	ts[0].tv_nsec = 1000000000;
	E(EINVAL, utimensat(AT_FDCWD, "f", ts, 0));
}

TEST(times_rules)
{
	char c;
	int fd;

	t_write("f", "abc");
	t_backdate("f");
	fd = Z(open("f", O_RDWR));
	EQ(pread(fd, &c, 1, 0), 1);
	EQ(t_stat("f").st_mtim.tv_sec, 1000000000);
	EQ(pwrite(fd, "x", 1, 0), 1);
	OK(t_recent(t_stat("f").st_mtim) && t_recent(t_stat("f").st_ctim));
	t_backdate("f");
	Z(ftruncate(fd, 2));
	OK(t_recent(t_stat("f").st_mtim));
	t_backdate("f");
	Z(ftruncate(fd, 2));	/* also without a change of size */
	OK(t_recent(t_stat("f").st_mtim));
	t_backdate("f");
	Z(close(fd));
	EQ(t_stat("f").st_mtim.tv_sec, 1000000000);
	EQ(t_stat("f").st_mtim.tv_nsec, 6);
	Z(close(Z(open("f", O_WRONLY | O_TRUNC))));
	OK(t_recent(t_stat("f").st_mtim));
	t_backdate("f");
	Z(close(Z(open("f", O_WRONLY | O_APPEND))));	/* nothing written */
	EQ(t_stat("f").st_mtim.tv_sec, 1000000000);
	AS(NOBODY, NOBODY, E(EACCES, utimensat(AT_FDCWD, "f", NULL, 0)));
	Z(chmod("f", 0666));
	AS(NOBODY, NOBODY, Z(utimensat(AT_FDCWD, "f", NULL, 0)));
	OK(t_recent(t_stat("f").st_mtim));
}

TEST(times_after_cached_writes)
{
	struct stat st;
	int fd;

	t_write("f", "");
	fd = Z(open("f", O_RDWR));
	for (int i = 0; i < 100; i++)
		EQ(write(fd, "0123456789", 10), 10);
	Z(futimens(fd, (const struct timespec[2]){ { 11, 22 }, { 33, 44 } }));
	Z(fsync(fd));
	Z(close(fd));
	st = t_stat("f");
	EQ(st.st_mtim.tv_sec, 33);
	EQ(st.st_mtim.tv_nsec, 44);
	EQ(st.st_atim.tv_sec, 11);
	EQ(st.st_size, 1000);
}

TEST(xattr_basics)
{
	char buf[256];

	t_write("f", "x");
	if (setxattr("f", "user.one", "1", 1, 0) && errno == EOPNOTSUPP)
		t_skip("no user xattrs here");
	EQ(getxattr("f", "user.one", buf, sizeof(buf)), 1);
	EQ(buf[0], '1');
	E(EEXIST, setxattr("f", "user.one", "2", 1, XATTR_CREATE));
	E(ENODATA, setxattr("f", "user.two", "2", 1, XATTR_REPLACE));
	Z(setxattr("f", "user.two", "two", 3, XATTR_CREATE));
	Z(setxattr("f", "user.two", "second", 6, XATTR_REPLACE));
	EQ(getxattr("f", "user.two", NULL, 0), 6);
	E(ERANGE, getxattr("f", "user.two", buf, 3));
	E(ENODATA, getxattr("f", "user.none", buf, 3));
	E(ENODATA, removexattr("f", "user.none"));
	EQ(listxattr("f", NULL, 0), 18);
	EQ(listxattr("f", buf, sizeof(buf)), 18);
	E(ERANGE, listxattr("f", buf, 5));
	Z(removexattr("f", "user.one"));
	EQ(listxattr("f", buf, sizeof(buf)), 9);
	OK(!strcmp(buf, "user.two"));
	Z(setxattr("f", "user.empty", "", 0, 0));
	EQ(getxattr("f", "user.empty", buf, sizeof(buf)), 0);
	E(EOPNOTSUPP, setxattr("f", "nonsense.x", "1", 1, 0));
	Z(rename("f", "g"));
	EQ(getxattr("g", "user.two", buf, sizeof(buf)), 6);
	OK(t_recent(t_stat("g").st_ctim));
}

TEST(xattr_limits)
{
	char name[XATTR_NAME_MAX + 2], value[2000], got[2000];

	t_write("f", "x");
	memcpy(name, "user.", 5);
	memset(name + 5, 'n', XATTR_NAME_MAX - 5);
	name[XATTR_NAME_MAX] = '\0';
	t_fill(value, sizeof(value), 1);
	if (setxattr("f", name, value, sizeof(value), 0) && errno == EOPNOTSUPP)
		t_skip("no user xattrs here");
	EQ(getxattr("f", name, got, sizeof(got)), sizeof(value));
	OK(!memcmp(got, value, sizeof(value)));
	name[XATTR_NAME_MAX] = 'n';
	name[XATTR_NAME_MAX + 1] = '\0';
	E(ERANGE, setxattr("f", name, "1", 1, 0));
	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "user.%d", i);
		Z(setxattr("f", name, value, 50, 0));
	}
	OK(listxattr("f", NULL, 0) > 100);
}

TEST(xattr_big_value)
{
	static char value[65540], got[65536];
	size_t n = sizeof(got);

	t_write("f", "x");
	t_fill(value, sizeof(value), 7);
	while (setxattr("f", "user.big", value, n, 0)) {
		if (errno == EOPNOTSUPP)
			t_skip("no user xattrs here");
		if (errno != ENOSPC && errno != E2BIG)
			FAIL("setxattr of %zu bytes: %s", n, strerror(errno));
		n /= 2;
		OK(n > 1000);
	}
	EQ(getxattr("f", "user.big", got, sizeof(got)), n);
	OK(!memcmp(got, value, n));
	E(E2BIG, setxattr("f", "user.big2", value, 65537, 0));
}

TEST(xattr_on_everything)
{
	char buf[8];

	Z(mkdir("d", 0755));
	Z(symlink("x", "l"));
	Z(mkfifo("p", 0644));
	Z(lsetxattr("d", "user.x", "1", 1, 0));
	EQ(lgetxattr("d", "user.x", buf, 8), 1);
	E(EPERM, lsetxattr("l", "user.x", "1", 1, 0));
	E(EPERM, lsetxattr("p", "user.x", "1", 1, 0));
	Z(lsetxattr("l", "trusted.x", "l", 1, 0));
	Z(lsetxattr("p", "trusted.x", "p", 1, 0));
	EQ(lgetxattr("l", "trusted.x", buf, 8), 1);
	EQ(buf[0], 'l');
	EQ(llistxattr("p", NULL, 0), 10);
	Z(lsetxattr("d", "trusted.x", "d", 1, 0));
	Z(chmod("d", 0777));
	AS(NOBODY, NOBODY, {
		E(ENODATA, lgetxattr("d", "trusted.x", buf, 8));
	});
	Z(lremovexattr("l", "trusted.x"));
	EQ(llistxattr("l", NULL, 0), 0);
}

/* A POSIX ACL as the kernel takes it. */
struct acl {
	uint32_t version;
	struct {
		uint16_t tag, perm;
		uint32_t id;
	} e[8];
};

enum { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };

static size_t acl_make(struct acl *a, int u, unsigned int user, int up,
		       int g, int m, int o)
{
	const uint32_t none = htole32(-1);

	a->version = htole32(2);
	a->e[0].tag = htole16(USER_OBJ), a->e[0].perm = htole16(u), a->e[0].id = none;
	a->e[1].tag = htole16(USER), a->e[1].perm = htole16(up), a->e[1].id = htole32(user);
	a->e[2].tag = htole16(GROUP_OBJ), a->e[2].perm = htole16(g), a->e[2].id = none;
	a->e[3].tag = htole16(MASK), a->e[3].perm = htole16(m), a->e[3].id = none;
	a->e[4].tag = htole16(OTHER), a->e[4].perm = htole16(o), a->e[4].id = none;
	return 4 + 5 * 8;
}

#define ACCESS	"system.posix_acl_access"
#define DEFAULT	"system.posix_acl_default"

TEST(acl_access)
{
	struct acl a, b;
	size_t n = acl_make(&a, 6, NOBODY, 4, 0, 6, 0);

	t_write("f", "x");
	if (setxattr("f", ACCESS, &a, n, 0) && errno == EOPNOTSUPP)
		t_skip("no ACLs here");
	EQ(getxattr("f", ACCESS, &b, sizeof(b)), n);
	OK(!memcmp(&a, &b, n));
	EQ(t_stat("f").st_mode & 07777, 0660);	/* group bits are the mask */
	AS(NOBODY, NOBODY, {
		Z(open("f", O_RDONLY));
		E(EACCES, open("f", O_WRONLY));
	});
	AS(1, 1, E(EACCES, open("f", O_RDONLY)));
	Z(chmod("f", 0600));	/* mask: nothing */
	AS(NOBODY, NOBODY, E(EACCES, open("f", O_RDONLY)));
	EQ(getxattr("f", ACCESS, &b, sizeof(b)), n);
	EQ(le16toh(b.e[3].perm), 0);
	Z(removexattr("f", ACCESS));
	E(ENODATA, getxattr("f", ACCESS, &b, sizeof(b)));
	a.e[1].tag = htole16(77);
	E(EINVAL, setxattr("f", ACCESS, &a, n, 0));
	n = acl_make(&a, 6, NOBODY, 4, 0, 6, 0);
	AS(NOBODY, NOBODY, E(EPERM, setxattr("f", ACCESS, &a, n, 0)));
	E(EACCES, setxattr("f", DEFAULT, &a, n, 0));
}

TEST(acl_equal_to_mode)
{
	struct acl a = { .version = htole32(2) }, b;

	t_write("f", "x");
	a.e[0].tag = htole16(USER_OBJ), a.e[0].perm = htole16(7), a.e[0].id = -1;
	a.e[1].tag = htole16(GROUP_OBJ), a.e[1].perm = htole16(5), a.e[1].id = -1;
	a.e[2].tag = htole16(OTHER), a.e[2].perm = htole16(1), a.e[2].id = -1;
	if (setxattr("f", ACCESS, &a, 4 + 3 * 8, 0) && errno == EOPNOTSUPP)
		t_skip("no ACLs here");
	EQ(t_stat("f").st_mode & 07777, 0751);
	E(ENODATA, getxattr("f", ACCESS, &b, sizeof(b)));
}

TEST(acl_inheritance)
{
	struct acl a, b;
	size_t n = acl_make(&a, 7, NOBODY, 7, 5, 7, 0);

	Z(mkdir("d", 0755));
	if (setxattr("d", DEFAULT, &a, n, 0) && errno == EOPNOTSUPP)
		t_skip("no ACLs here");
	umask(077);	/* does not count where there is a default ACL */
	Z(close(Z(open("d/f", O_CREAT | O_WRONLY, 0664))));
	Z(mkdir("d/s", 0777));
	Z(mkfifo("d/p", 0666));
	Z(symlink("f", "d/l"));
	EQ(getxattr("d/f", ACCESS, &b, sizeof(b)), n);
	EQ(t_stat("d/f").st_mode & 07777, 0660);
	EQ(le16toh(b.e[1].perm), 7);
	EQ(le16toh(b.e[2].perm), 5);
	EQ(le16toh(b.e[3].perm), 6);
	E(ENODATA, getxattr("d/f", DEFAULT, &b, sizeof(b)));
	EQ(getxattr("d/s", DEFAULT, &b, sizeof(b)), n);
	OK(!memcmp(&a, &b, n));
	EQ(t_stat("d/s").st_mode & 07777, 0770);
	EQ(t_stat("d/p").st_mode & 07777, 0660);
	AS(NOBODY, NOBODY, {
		Z(open("d/f", O_RDWR));
		t_write("d/s/mine", "x");
	});
	EQ(getxattr("d/s/mine", ACCESS, &b, sizeof(b)), n);
	Z(removexattr("d", DEFAULT));
	umask(022);
	t_write("d/plain", "x");
	EQ(t_stat("d/plain").st_mode & 07777, 0644);
}

TEST(acl_inheritance_in_sgid)
{
	struct acl a;
	size_t n = acl_make(&a, 7, 55, 7, 7, 7, 0);

	Z(mkdir("d", 0755));
	Z(chown("d", 0, 99));
	Z(chmod("d", 02777));
	if (setxattr("d", DEFAULT, &a, n, 0) && errno == EOPNOTSUPP)
		t_skip("no ACLs here");
	AS(NOBODY, NOBODY, Z(mkdir("d/s", 0777)));
	EQ(t_stat("d/s").st_gid, 99);
	EQ(t_stat("d/s").st_mode & 07777, 02770);
}

TEST(stat_through_descriptors)
{
	struct stat a, b;
	int fd;

	t_write("f", "123");
	fd = Z(open("f", O_PATH));
	Z(fstat(fd, &a));
	EQ(a.st_size, 3);
	E(EBADF, write(fd, "x", 1));
	Z(fchownat(fd, "", 3, 4, AT_EMPTY_PATH));
	EQ(t_stat("f").st_uid, 3);
	Z(close(fd));
	fd = Z(open("f", O_RDWR));
	Z(fchmod(fd, 0611));
	Z(fchown(fd, 8, 9));
	EQ(write(fd, "abcdef", 6), 6);
	Z(fstat(fd, &a));
	b = t_stat("f");
	EQ(a.st_size, 6);
	EQ(b.st_size, 6);
	EQ(a.st_mode, b.st_mode);
	EQ(a.st_uid, 8);
	EQ(a.st_ino, b.st_ino);
	EQ(a.st_mtim.tv_nsec, b.st_mtim.tv_nsec);
}

TEST(statx_fields)
{
	struct statx x;
	struct stat st;

	t_write("f", "1234");
	st = t_stat("f");
	Z(statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS, &x));
	EQ(x.stx_mask & STATX_BASIC_STATS, STATX_BASIC_STATS);
	EQ(x.stx_size, 4);
	EQ(x.stx_ino, st.st_ino);
	EQ(x.stx_mtime.tv_nsec, st.st_mtim.tv_nsec);
	EQ(x.stx_blocks, st.st_blocks);
	OK(st.st_blksize >= 512);
}
