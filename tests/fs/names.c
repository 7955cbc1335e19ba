// SPDX-License-Identifier: GPL-2.0-or-later
/* Making, linking, moving and removing names: results and error numbers. */
#include "t.h"

#include <limits.h>
#include <linux/fs.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

static char long_name[NAME_MAX + 2];	/* 256 bytes: one too many */

static const char *too_long(void)
{
	memset(long_name, 'x', NAME_MAX + 1);
	return long_name;
}

TEST(create_file)
{
	struct stat st;
	int fd = Z(open("f", O_RDWR | O_CREAT | O_EXCL, 0640));

	Z(fstat(fd, &st));
	OK(S_ISREG(st.st_mode));
	EQ(st.st_mode & 07777, 0640);
	EQ(st.st_nlink, 1);
	EQ(st.st_size, 0);
	EQ(st.st_uid, 0);
	OK(t_recent(st.st_mtim) && t_recent(st.st_ctim) && t_recent(st.st_atim));
	EQ(t_stat("f").st_ino, st.st_ino);
	Z(close(fd));
	E(EEXIST, open("f", O_RDWR | O_CREAT | O_EXCL, 0644));
	fd = Z(open("f", O_RDWR | O_CREAT, 0777));
	Z(fstat(fd, &st));
	EQ(st.st_mode & 07777, 0640);
}

TEST(create_errors)
{
	t_write("f", "x");
	Z(mkdir("d", 0755));
	Z(symlink("nowhere", "dangling"));
	Z(symlink("loop", "loop"));
	E(ENOENT, open("none", O_RDONLY));
	E(ENOENT, open("none/x", O_CREAT | O_WRONLY, 0644));
	E(ENOTDIR, open("f/x", O_CREAT | O_WRONLY, 0644));
	E(EISDIR, open("d", O_WRONLY));
	E(EISDIR, open("d", O_RDWR));
	E(EEXIST, open("dangling", O_CREAT | O_EXCL | O_WRONLY, 0644));
	E(ENOTDIR, open("f/../loop", O_RDONLY));
	E(ELOOP, open("loop", O_RDONLY));
	E(ELOOP, open("dangling", O_RDONLY | O_NOFOLLOW));
	E(ENAMETOOLONG, open(too_long(), O_CREAT | O_WRONLY, 0644));
	E(ENAMETOOLONG, mkdir(too_long(), 0755));
	E(ENAMETOOLONG, symlink("x", too_long()));
	E(ENAMETOOLONG, link("f", too_long()));
	E(ENAMETOOLONG, rename("f", too_long()));
	E(ENAMETOOLONG, unlink(too_long()));
	E(ENOTDIR, open("f", O_RDONLY | O_DIRECTORY));
	E(ENOTDIR, mkdir("f/d", 0755));
	OK(!t_exists("nowhere"));
	Z(close(Z(open("dangling", O_CREAT | O_WRONLY, 0644))));
	OK(t_exists("nowhere"));
}

TEST(create_through_umask)
{
	umask(0);
	Z(close(Z(open("open", O_CREAT | O_WRONLY, 0666))));
	EQ(t_stat("open").st_mode & 07777, 0666);
	umask(077);
	Z(close(Z(open("f", O_CREAT | O_WRONLY, 0666))));
	Z(mkdir("d", 0777));
	Z(mkfifo("p", 0666));
	EQ(t_stat("f").st_mode & 07777, 0600);
	EQ(t_stat("d").st_mode & 07777, 0700);
	EQ(t_stat("p").st_mode & 07777, 0600);
}

TEST(create_updates_parent)
{
	struct stat before;

	Z(mkdir("d", 0755));
	t_backdate("d");
	before = t_stat("d");
	t_write("d/f", "x");
	OK(t_recent(t_stat("d").st_mtim));
	t_backdate("d");
	Z(mkdir("d/s", 0755));
	OK(t_recent(t_stat("d").st_mtim));
	t_backdate("d");
	Z(link("d/f", "d/g"));
	OK(t_recent(t_stat("d").st_mtim));
	t_backdate("d");
	Z(rename("d/g", "d/h"));
	OK(t_recent(t_stat("d").st_mtim));
	t_backdate("d");
	Z(unlink("d/h"));
	OK(t_recent(t_stat("d").st_mtim));
	t_backdate("d");
	Z(rmdir("d/s"));
	OK(t_recent(t_stat("d").st_mtim));
	t_backdate("d");
	E(EEXIST, mkdir("d/f", 0755));
	E(ENOENT, unlink("d/none"));
	EQ(t_stat("d").st_mtim.tv_sec, before.st_mtim.tv_sec);
}

TEST(mkdir_rmdir)
{
	struct stat st;
	nlink_t links = t_stat(".").st_nlink;

	Z(mkdir("d", 0751));
	st = t_stat("d");
	OK(S_ISDIR(st.st_mode));
	EQ(st.st_mode & 07777, 0751);
	if (links > 1) {	/* btrfs counts no subdirectories */
		EQ(t_stat(".").st_nlink, links + 1);
		EQ(st.st_nlink, 2);
	}
	E(EEXIST, mkdir("d", 0755));
	Z(mkdir("d/s", 0755));
	E(ENOTEMPTY, rmdir("d"));
	E(EISDIR, unlink("d"));
	E(EINVAL, rmdir("d/."));
	E(ENOTEMPTY, rmdir("d/s/.."));
	Z(rmdir("d/s"));
	E(ENOENT, rmdir("d/s"));
	Z(rmdir("d"));
	EQ(t_stat(".").st_nlink, links);
	t_write("f", "");
	E(ENOTDIR, rmdir("f"));
	E(ENOENT, mkdir("", 0755));
}

TEST(rmdir_in_use)
{
	struct stat st;
	int fd;

	Z(mkdir("d", 0755));
	fd = Z(open("d", O_RDONLY | O_DIRECTORY));
	Z(rmdir("d"));
	Z(fstat(fd, &st));
	OK(S_ISDIR(st.st_mode));
	EQ(t_entries("."), 0);
	E(ENOENT, openat(fd, "x", O_CREAT | O_WRONLY, 0644));
	E(ENOENT, mkdirat(fd, "x", 0755));
	Z(mkdir("d", 0755));
	OK(t_stat("d").st_ino != 0);
}

TEST(symlinks)
{
	char text[PATH_MAX + 1], got[PATH_MAX];
	struct stat st;

	Z(symlink("some/target", "s"));
	EQ(readlink("s", got, sizeof(got)), 11);
	OK(!memcmp(got, "some/target", 11));
	st = t_stat("s");
	OK(S_ISLNK(st.st_mode));
	EQ(st.st_size, 11);
	EQ(st.st_mode & 07777, 0777);
	E(EEXIST, symlink("x", "s"));
	EQ(readlink("s", got, 4), 4);
	t_write("f", "x");
	E(EINVAL, readlink("f", got, sizeof(got)));
	E(ENOENT, symlink("", "empty"));
	for (size_t len = 1; len < PATH_MAX; len = len * 3 + 1) {
		t_fill(text, len, len);
		for (size_t i = 0; i < len; i++)
			text[i] = text[i] ? text[i] : 'z';
		text[len] = '\0';
		if (symlink(text, "l")) {	/* xfs takes 1023 bytes */
			EQ(errno, ENAMETOOLONG);
			OK(len > 1023);
			continue;
		}
		EQ(readlink("l", got, sizeof(got)), len);
		OK(!memcmp(text, got, len));
		Z(unlink("l"));
	}
	memset(text, 'y', PATH_MAX);
	text[PATH_MAX] = '\0';
	E(ENAMETOOLONG, symlink(text, "l"));
	Z(lchown("s", 5, 6));
	EQ(t_stat("s").st_uid, 5);
	EQ(t_stat("s").st_gid, 6);
}

TEST(special_files)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX, .sun_path = "sock" };
	struct stat st;
	int s;

	Z(mknod("c", S_IFCHR | 0600, makedev(1, 3)));
	Z(mknod("b", S_IFBLK | 0640, makedev(259, 70000)));
	Z(mknod("p", S_IFIFO | 0644, 0));
	Z(mknod("r", S_IFREG | 0604, 0));
	st = t_stat("c");
	OK(S_ISCHR(st.st_mode));
	EQ(st.st_rdev, makedev(1, 3));
	st = t_stat("b");
	OK(S_ISBLK(st.st_mode));
	EQ(st.st_rdev, makedev(259, 70000));
	EQ(st.st_mode & 07777, 0640);
	OK(S_ISFIFO(t_stat("p").st_mode));
	st = t_stat("r");
	OK(S_ISREG(st.st_mode));
	EQ(st.st_mode & 07777, 0604);
	E(EEXIST, mknod("c", S_IFCHR | 0600, makedev(1, 3)));
	s = Z(socket(AF_UNIX, SOCK_STREAM, 0));
	Z(bind(s, (struct sockaddr *)&sa, sizeof(sa)));
	OK(S_ISSOCK(t_stat("sock").st_mode));
	Z(listen(s, 1));
	Z(connect(Z(socket(AF_UNIX, SOCK_STREAM, 0)), (struct sockaddr *)&sa,
		  sizeof(sa)));
	E(EADDRINUSE, bind(Z(socket(AF_UNIX, SOCK_STREAM, 0)),
			   (struct sockaddr *)&sa, sizeof(sa)));
	AS(65534, 65534, E(EACCES, open("c", O_RDONLY)));
}

TEST(device_and_fifo_work)
{
	char c = 1;
	int fd, r, w;
	struct statvfs sv;

	Z(statvfs(".", &sv));
	Z(mkfifo("p", 0600));
	r = Z(open("p", O_RDONLY | O_NONBLOCK));
	w = Z(open("p", O_WRONLY));
	EQ(write(w, "q", 1), 1);
	EQ(read(r, &c, 1), 1);
	EQ(c, 'q');
	if (sv.f_flag & ST_NODEV)
		t_skip("mounted nodev");
	Z(mknod("zero", S_IFCHR | 0666, makedev(1, 5)));
	fd = Z(open("zero", O_RDWR));
	EQ(read(fd, &c, 1), 1);
	EQ(c, 0);
}

TEST(hard_links)
{
	struct stat a, b;

	t_write("a", "text");
	t_backdate("a");
	Z(link("a", "b"));
	a = t_stat("a");
	b = t_stat("b");
	EQ(a.st_ino, b.st_ino);
	EQ(a.st_nlink, 2);
	OK(t_recent(a.st_ctim));
	EQ(a.st_mtim.tv_sec, 1000000000);
	E(EEXIST, link("a", "b"));
	E(ENOENT, link("none", "c"));
	Z(mkdir("d", 0755));
	E(EPERM, link("d", "e"));
	Z(link("a", "d/c"));
	EQ(t_stat("a").st_nlink, 3);
	t_write("b", "new");
	t_text("d/c", "new");
	Z(chmod("b", 0600));
	EQ(t_stat("d/c").st_mode & 07777, 0600);
	Z(unlink("a"));
	EQ(t_stat("b").st_nlink, 2);
	Z(unlink("b"));
	EQ(t_stat("d/c").st_nlink, 1);
	t_text("d/c", "new");
}

TEST(hard_links_of_others)
{
	Z(symlink("x", "s"));
	Z(linkat(AT_FDCWD, "s", AT_FDCWD, "t", 0));
	EQ(t_stat("s").st_ino, t_stat("t").st_ino);
	OK(S_ISLNK(t_stat("t").st_mode));
	E(ENOENT, linkat(AT_FDCWD, "s", AT_FDCWD, "u", AT_SYMLINK_FOLLOW));
	t_write("x", "file");
	Z(linkat(AT_FDCWD, "s", AT_FDCWD, "u", AT_SYMLINK_FOLLOW));
	EQ(t_stat("u").st_ino, t_stat("x").st_ino);
	Z(mkfifo("p", 0644));
	Z(link("p", "q"));
	EQ(t_stat("p").st_nlink, 2);
}

TEST(unlink_open_file)
{
	char buf[8] = "";
	struct stat st;
	int fd;

	t_write("f", "content");
	fd = Z(open("f", O_RDWR));
	Z(unlink("f"));
	OK(!t_exists("f"));
	EQ(t_entries("."), 0);
	Z(fstat(fd, &st));
	EQ(st.st_nlink, 0);
	EQ(pread(fd, buf, 7, 0), 7);
	OK(!strcmp(buf, "content"));
	EQ(pwrite(fd, "CON", 3, 0), 3);
	Z(fchmod(fd, 0600));
	Z(ftruncate(fd, 5));
	Z(fstat(fd, &st));
	EQ(st.st_size, 5);
	EQ(st.st_mode & 07777, 0600);
	t_write("f", "other");
	EQ(pread(fd, buf, 7, 0), 5);
	OK(!memcmp(buf, "CONte", 5));
	Z(close(fd));
	t_text("f", "other");
}

TEST(unlink_one_of_two_while_open)
{
	struct stat st;
	int fd;

	t_write("a", "x");
	Z(link("a", "b"));
	fd = Z(open("a", O_RDWR));
	Z(unlink("a"));
	Z(fstat(fd, &st));
	EQ(st.st_nlink, 1);
	EQ(pwrite(fd, "yz", 2, 0), 2);
	Z(close(fd));
	t_text("b", "yz");
}

TEST(rename_files)
{
	struct stat st;

	t_write("a", "A");
	t_backdate("a");
	st = t_stat("a");
	Z(rename("a", "b"));
	OK(!t_exists("a"));
	EQ(t_stat("b").st_ino, st.st_ino);
	EQ(t_stat("b").st_mtim.tv_nsec, 6);
	t_write("c", "C");
	Z(rename("b", "c"));
	t_text("c", "A");
	EQ(t_entries("."), 1);
	Z(rename("c", "c"));
	t_text("c", "A");
	Z(link("c", "d"));
	Z(rename("c", "d"));	/* same object: nothing happens */
	OK(t_exists("c") && t_exists("d"));
	EQ(t_stat("c").st_nlink, 2);
	E(ENOENT, rename("none", "e"));
	E(ENOENT, rename("c", "none/e"));
}

TEST(rename_directories)
{
	nlink_t links;

	Z(mkdir("a", 0755));
	Z(mkdir("a/in", 0755));
	t_write("a/in/f", "x");
	Z(mkdir("b", 0755));
	Z(mkdir("empty", 0755));
	t_write("file", "x");
	E(EINVAL, rename("a", "a/in/x"));
	E(EISDIR, rename("file", "b"));
	E(ENOTDIR, rename("b", "file"));
	E2(ENOTEMPTY, EEXIST, rename("b", "a"));
	Z(rename("a", "empty"));
	t_text("empty/in/f", "x");
	links = t_stat("b").st_nlink;
	Z(rename("empty/in", "b/moved"));
	t_text("b/moved/f", "x");
	if (links > 1) {
		EQ(t_stat("b").st_nlink, links + 1);
		EQ(t_stat("empty").st_nlink, 2);
	}
	EQ(t_stat("b/moved/..").st_ino, t_stat("b").st_ino);
	E2(EBUSY, EINVAL, rename("b/.", "z"));
}

TEST(rename_over_open_file)
{
	char buf[8] = "";
	struct stat st;
	int fd;

	t_write("old", "old");
	t_write("new", "newer");
	fd = Z(open("old", O_RDWR));
	Z(rename("new", "old"));
	Z(fstat(fd, &st));
	EQ(st.st_nlink, 0);
	EQ(pread(fd, buf, 8, 0), 3);
	OK(!memcmp(buf, "old", 3));
	EQ(pwrite(fd, "OLD+", 4, 0), 4);
	t_text("old", "newer");
	Z(close(fd));
	t_text("old", "newer");
}

TEST(rename_open_file)
{
	int fd;

	t_write("a", "1");
	Z(mkdir("d", 0755));
	fd = Z(open("a", O_WRONLY | O_APPEND));
	Z(rename("a", "d/b"));
	EQ(write(fd, "2", 1), 1);
	Z(rename("d", "e"));
	EQ(write(fd, "3", 1), 1);
	Z(close(fd));
	t_text("e/b", "123");
}

TEST(rename_exchange)
{
	ino_t a, d;

	t_write("a", "A");
	Z(mkdir("d", 0755));
	t_write("d/in", "x");
	a = t_stat("a").st_ino;
	d = t_stat("d").st_ino;
	Z(renameat2(AT_FDCWD, "a", AT_FDCWD, "d", RENAME_EXCHANGE));
	EQ(t_stat("a").st_ino, d);
	EQ(t_stat("d").st_ino, a);
	t_text("a/in", "x");
	t_text("d", "A");
	E(ENOENT, renameat2(AT_FDCWD, "a", AT_FDCWD, "none", RENAME_EXCHANGE));
	E(ENOENT, renameat2(AT_FDCWD, "none", AT_FDCWD, "a", RENAME_EXCHANGE));
	Z(renameat2(AT_FDCWD, "d", AT_FDCWD, "a/in", RENAME_EXCHANGE));
	t_text("d", "x");
	t_text("a/in", "A");
	E(EINVAL, renameat2(AT_FDCWD, "a", AT_FDCWD, "a/in", RENAME_EXCHANGE));
	E(EINVAL, renameat2(AT_FDCWD, "a", AT_FDCWD, "d",
			    RENAME_EXCHANGE | RENAME_NOREPLACE));
}

/* What is in them has not changed, and the log's replay says so, too. */
TEST(rename_exchange_directories)
{
	const struct timespec ts[2] = { { 5, 0 }, { 7, 8 } };
	struct stat st;

	Z(mkdir("a", 0755));
	Z(mkdir("b", 0755));
	Z(mkdir("a/x", 0755));
	Z(mkdir("b/y", 0755));
	Z(utimensat(AT_FDCWD, "a/x", ts, 0));
	Z(utimensat(AT_FDCWD, "b/y", ts, 0));
	Z(renameat2(AT_FDCWD, "a/x", AT_FDCWD, "b/y", RENAME_EXCHANGE));
	st = t_stat("a/x");
	EQ(st.st_mtim.tv_sec, 7);
	EQ(st.st_mtim.tv_nsec, 8);
	st = t_stat("b/y");
	EQ(st.st_mtim.tv_sec, 7);
	EQ(st.st_mtim.tv_nsec, 8);
}

TEST(rename_noreplace)
{
	t_write("a", "A");
	t_write("b", "B");
	E(EEXIST, renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE));
	t_text("a", "A");
	t_text("b", "B");
	Z(renameat2(AT_FDCWD, "a", AT_FDCWD, "c", RENAME_NOREPLACE));
	t_text("c", "A");
	OK(!t_exists("a"));
	E(EEXIST, renameat2(AT_FDCWD, "c", AT_FDCWD, "c", RENAME_NOREPLACE));
}

TEST(tmpfile_linkat)
{
	char proc[64];
	struct stat st;
	int fd = open(".", O_TMPFILE | O_RDWR, 0640);

	if (fd < 0 && errno == EOPNOTSUPP)
		t_skip("no O_TMPFILE here");
	Z(fd);
	Z(fstat(fd, &st));
	EQ(st.st_nlink, 0);
	EQ(st.st_mode & 07777, 0640);
	EQ(t_entries("."), 0);
	EQ(write(fd, "hello", 5), 5);
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	Z(linkat(AT_FDCWD, proc, AT_FDCWD, "f", AT_SYMLINK_FOLLOW));
	t_text("f", "hello");
	EQ(t_stat("f").st_ino, st.st_ino);
	EQ(t_stat("f").st_nlink, 1);
	EQ(write(fd, "!", 1), 1);
	Z(close(fd));
	t_text("f", "hello!");
	fd = Z(open(".", O_TMPFILE | O_RDWR | O_EXCL, 0600));
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	E(ENOENT, linkat(AT_FDCWD, proc, AT_FDCWD, "g", AT_SYMLINK_FOLLOW));
	Z(close(fd));
	EQ(t_entries("."), 1);
}

TEST(names_of_every_byte)
{
	char name[3] = "";
	unsigned int n = 0;

	for (int c = 1; c < 256; c++) {
		if (c == '/')
			continue;
		snprintf(name, sizeof(name), "%cx", c);
		t_write(name, name);
		n++;
	}
	EQ(t_entries("."), n);
	for (int c = 1; c < 256; c++) {
		if (c == '/')
			continue;
		snprintf(name, sizeof(name), "%cx", c);
		t_text(name, name);
	}
}

TEST(names_of_255_bytes)
{
	char name[NAME_MAX + 1], other[NAME_MAX + 1];

	for (unsigned int i = 0; i < NAME_MAX; i++)
		name[i] = i + 1 == '/' ? 'S' : i + 1;
	name[NAME_MAX] = '\0';
	memset(other, 0xff, NAME_MAX);
	other[NAME_MAX] = '\0';
	t_write(name, "x");
	Z(rename(name, other));
	Z(link(other, name));
	EQ(t_entries("."), 2);
	Z(unlink(other));
	t_text(name, "x");
	Z(mkdir(other, 0755));
	Z(chdir(other));
	t_write(name, "y");
	t_text(name, "y");
}

TEST(paths_beyond_path_max)
{
	char name[201];
	const int deep = 40;	/* 8000 bytes */

	memset(name, 'd', 200);
	name[200] = '\0';
	for (int i = 0; i < deep; i++) {
		Z(mkdir(name, 0755));
		Z(chdir(name));
	}
	t_write("bottom", "here");
	Z(rename("bottom", "moved"));
	Z(link("moved", "two"));
	Z(symlink("moved", "link"));
	Z(mkdir("dir", 0700));
	t_text("link", "here");
	Z(chmod("two", 0600));
	t_backdate("two");
	EQ(t_stat("moved").st_mtim.tv_sec, 1000000000);
	EQ(t_entries("."), 4);
	Z(unlink("two"));
	Z(unlink("link"));
	Z(unlink("moved"));
	Z(rmdir("dir"));
	for (int i = 0; i < deep; i++) {
		Z(chdir(".."));
		Z(rmdir(name));
	}
	EQ(t_entries("."), 0);
}

TEST(case_and_dots)
{
	t_write("a", "1");
	t_write("A", "2");
	t_write("...", "3");
	t_write(".hidden", "4");
	t_write(" ", "5");
	EQ(t_entries("."), 5);
	t_text("a", "1");
	t_text("A", "2");
	E(EEXIST, mkdir(".", 0755));
	E(EEXIST, mkdir("..", 0755));
}
