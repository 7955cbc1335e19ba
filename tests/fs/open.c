// SPDX-License-Identifier: GPL-2.0-or-later
/* Opening: races, appending, descriptors in other clothes; directories. */
#include "t.h"

#include <dirent.h>
#include <limits.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

TEST(o_excl_race)
{
	enum { PROCS = 6, NAMES = 100 };
	pid_t pid[PROCS];
	char name[32];
	int pipefd[2], got = 0;
	char c;

	Z(pipe(pipefd));
	for (int p = 0; p < PROCS; p++) {
		pid[p] = t_fork();
		if (pid[p])
			continue;
		for (int i = 0; i < NAMES; i++) {
			int fd;

			snprintf(name, sizeof(name), "n%d", i);
			fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);
			if (fd < 0 && errno != EEXIST)
				FAIL("open: %s", strerror(errno));
			if (fd >= 0) {
				EQ(write(pipefd[1], "w", 1), 1);
				close(fd);
			}
		}
		_exit(0);
	}
	close(pipefd[1]);
	while (read(pipefd[0], &c, 1) == 1)
		got++;
	for (int p = 0; p < PROCS; p++)
		t_wait(pid[p], __FILE__, __LINE__);
	EQ(got, NAMES);
	EQ(t_entries("."), NAMES);
}

TEST(mkdir_race)
{
	enum { PROCS = 4, NAMES = 60 };
	pid_t pid[PROCS];
	char name[32];

	for (int p = 0; p < PROCS; p++) {
		pid[p] = t_fork();
		if (pid[p])
			continue;
		for (int i = 0; i < NAMES; i++) {
			snprintf(name, sizeof(name), "d%d", i);
			if (mkdir(name, 0755) && errno != EEXIST)
				FAIL("mkdir: %s", strerror(errno));
			snprintf(name, sizeof(name), "d%d/f%d", i, p);
			t_write(name, "x");
		}
		_exit(0);
	}
	for (int p = 0; p < PROCS; p++)
		t_wait(pid[p], __FILE__, __LINE__);
	EQ(t_entries("."), NAMES);
	EQ(t_entries("d0"), PROCS);
}

TEST(o_append_from_several_processes)
{
	enum { PROCS = 4, LINES = 300, LEN = 100 };
	static char all[PROCS * LINES * LEN + 1];
	int seen[PROCS] = { 0 };
	pid_t pid[PROCS];
	int fd;

	t_write("log", "");
	for (int p = 0; p < PROCS; p++) {
		char line[LEN + 1];

		pid[p] = t_fork();
		if (pid[p])
			continue;
		fd = Z(open("log", O_WRONLY | O_APPEND));
		for (int i = 0; i < LINES; i++) {
			memset(line, 'a' + p, LEN);
			snprintf(line, LEN, "%d %d", p, i);
			line[strlen(line)] = ' ';
			line[LEN - 1] = '\n';
			EQ(write(fd, line, LEN), LEN);
		}
		Z(close(fd));
		_exit(0);
	}
	for (int p = 0; p < PROCS; p++)
		t_wait(pid[p], __FILE__, __LINE__);
	fd = Z(open("log", O_RDONLY));
	EQ(t_stat("log").st_size, PROCS * LINES * LEN);
	EQ(read(fd, all, sizeof(all)), PROCS * LINES * LEN);
	for (int i = 0; i < PROCS * LINES; i++) {
		int p, n;

		OK(all[i * LEN + LEN - 1] == '\n');
		EQ(sscanf(all + i * LEN, "%d %d ", &p, &n), 2);
		OK(p >= 0 && p < PROCS);
		EQ(n, seen[p]++);	/* none lost, each in its order */
	}
}

TEST(o_append_and_pwrite)
{
	int fd;

	t_write("f", "abc");
	fd = Z(open("f", O_RDWR | O_APPEND));
	EQ(write(fd, "d", 1), 1);
	EQ(lseek(fd, 0, SEEK_SET), 0);
	EQ(write(fd, "e", 1), 1);
	t_text("f", "abcde");
	Z(fcntl(fd, F_SETFL, 0));
	EQ(pwrite(fd, "X", 1, 0), 1);
	t_text("f", "Xbcde");
	Z(fcntl(fd, F_SETFL, O_APPEND));
	EQ(lseek(fd, 1, SEEK_SET), 1);
	EQ(write(fd, "f", 1), 1);
	t_text("f", "Xbcdef");
}

TEST(o_trunc)
{
	t_write("f", "content");
	E(EEXIST, open("f", O_CREAT | O_EXCL | O_TRUNC | O_WRONLY, 0644));
	t_text("f", "content");
	Z(close(Z(open("f", O_WRONLY | O_TRUNC))));
	EQ(t_stat("f").st_size, 0);
	Z(truncate("f", 100));
	EQ(t_stat("f").st_size, 100);
}

TEST(access_modes)
{
	char c;
	int fd;

	t_write("f", "x");
	fd = Z(open("f", O_RDONLY));
	E(EBADF, write(fd, "y", 1));
	E(EINVAL, ftruncate(fd, 0));
	Z(close(fd));
	fd = Z(open("f", O_WRONLY));
	E(EBADF, read(fd, &c, 1));
	Z(close(fd));
	Z(chmod("f", 0));
	fd = Z(open("g", O_CREAT | O_RDWR, 0));	/* mode 0, still writable */
	EQ(write(fd, "z", 1), 1);
	Z(close(fd));
	AS(65534, 65534, {
		E(EACCES, open("f", O_RDONLY));
		E(EACCES, open("g", O_RDONLY));
	});
}

TEST(create_read_only_file_for_writing)
{
	Z(chmod(".", 0777));
	AS(65534, 65534, {
		int fd = Z(open("f", O_CREAT | O_EXCL | O_WRONLY, 0444));

		EQ(write(fd, "x", 1), 1);
		Z(close(fd));
		E(EACCES, open("f", O_WRONLY));
	});
	t_text("f", "x");
}

TEST(descriptor_outlives_permission)
{
	char c;
	int fd;

	t_write("f", "xyz");
	fd = Z(open("f", O_RDWR));
	Z(chmod("f", 0));
	AS(65534, 65534, {
		EQ(pread(fd, &c, 1, 2), 1);
		EQ(pwrite(fd, "Q", 1, 0), 1);
	});
	t_text("f", "Qyz");
}

TEST(proc_self_fd)
{
	char proc[64], buf[PATH_MAX];
	struct stat st;
	ssize_t n;
	int fd, fd2;

	t_write("f", "abc");
	fd = Z(open("f", O_PATH));
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	fd2 = Z(open(proc, O_RDWR));
	EQ(write(fd2, "ABC", 3), 3);
	t_text("f", "ABC");
	n = Z(readlink(proc, buf, sizeof(buf) - 1));
	buf[n] = '\0';
	OK(strlen(buf) > 2 && !strcmp(buf + strlen(buf) - 2, "/f"));
	Z(unlink("f"));
	fd2 = Z(open(proc, O_RDONLY));	/* open again what has no name */
	Z(fstat(fd2, &st));
	EQ(st.st_nlink, 0);
	EQ(read(fd2, buf, 10), 3);
	OK(!memcmp(buf, "ABC", 3));
}

TEST(o_path_and_symlink)
{
	char buf[16];
	struct stat st;
	int fd;

	Z(symlink("target", "l"));
	fd = Z(open("l", O_PATH | O_NOFOLLOW));
	Z(fstat(fd, &st));
	OK(S_ISLNK(st.st_mode));
	EQ(readlinkat(fd, "", buf, sizeof(buf)), 6);
	Z(mkdir("d", 0755));
	fd = Z(open("d", O_PATH));
	Z(close(Z(openat(fd, "f", O_CREAT | O_WRONLY, 0644))));
	OK(t_exists("d/f"));
	Z(fchdir(fd));
	OK(t_exists("f"));
}

TEST(statfs_numbers)
{
	struct statfs s;
	struct statvfs v;

	Z(statfs(".", &s));
	Z(statvfs(".", &v));
	OK(s.f_bsize >= 512);
	OK(s.f_blocks > 0 && s.f_bfree <= s.f_blocks);
	EQ(s.f_namelen, NAME_MAX);
	EQ(v.f_namemax, NAME_MAX);
}

static bool event(int fd, uint32_t mask, const char *name)
{
	static char buf[16384] __attribute__((aligned(8)));
	static ssize_t len, pos;
	struct pollfd p = { fd, POLLIN, 0 };

	for (;;) {
		struct inotify_event *e;

		if (pos >= len) {
			if (poll(&p, 1, 60000) <= 0)
				return false;
			len = read(fd, buf, sizeof(buf));
			pos = 0;
			if (len <= 0)
				return false;
		}
		e = (void *)(buf + pos);
		pos += sizeof(*e) + e->len;
		if (e->mask & mask && (!name || (e->len && !strcmp(e->name, name))))
			return true;
	}
}

TEST(inotify_events)
{
	int in = Z(inotify_init1(IN_CLOEXEC)), fd;

	Z(mkdir("d", 0755));
	Z(inotify_add_watch(in, "d", IN_ALL_EVENTS));
	fd = Z(open("d/f", O_CREAT | O_RDWR, 0644));
	OK(event(in, IN_CREATE, "f"));
	EQ(write(fd, "x", 1), 1);
	OK(event(in, IN_MODIFY, "f"));
	Z(close(fd));
	OK(event(in, IN_CLOSE_WRITE, "f"));
	Z(chmod("d/f", 0600));
	OK(event(in, IN_ATTRIB, "f"));
	Z(rename("d/f", "d/g"));
	OK(event(in, IN_MOVED_FROM, "f"));
	OK(event(in, IN_MOVED_TO, "g"));
	Z(mkdir("d/s", 0755));
	OK(event(in, IN_CREATE, "s"));
	Z(unlink("d/g"));
	OK(event(in, IN_DELETE, "g"));
}

static void make_many(int n)
{
	char name[64];

	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "file-number-%d", i);
		Z(mknod(name, S_IFREG | 0644, 0));
	}
}

TEST_T(huge_directory, 120)
{
	enum { N = 20000 };
	static bool seen[N];
	struct dirent *e;
	int n = 0;
	DIR *d;

	make_many(N);
	d = opendir(".");
	OK(d);
	while ((e = readdir(d))) {
		int i;

		if (e->d_name[0] == '.')
			continue;
		EQ(sscanf(e->d_name, "file-number-%d", &i), 1);
		if (seen[i])
			FAIL("%s listed twice", e->d_name);
		seen[i] = true;
		OK(e->d_type == DT_REG || e->d_type == DT_UNKNOWN);
		n++;
	}
	EQ(n, N);
	closedir(d);
	/* remove while reading: everything goes, in one pass or a second */
	for (int pass = 0; pass < 2; pass++) {
		d = opendir(".");
		while ((e = readdir(d)))
			if (e->d_name[0] != '.')
				Z(unlink(e->d_name));
		closedir(d);
		if (!pass)
			n = t_entries(".");
	}
	EQ(t_entries("."), 0);
	EQ(n, 0);
}

TEST(readdir_sees_what_stays)
{
	enum { N = 3000 };
	static bool seen[N];
	struct dirent *e;
	char name[64];
	int n = 0;
	DIR *d;

	make_many(N);
	d = opendir(".");
	while ((e = readdir(d))) {
		int i;

		if (sscanf(e->d_name, "file-number-%d", &i) != 1)
			continue;
		if (i < N) {
			OK(!seen[i]);
			seen[i] = true;
		}
		/* others come and go meanwhile */
		snprintf(name, sizeof(name), "new-%d", n);
		t_write(name, "");
		if (n % 3 == 0) {
			snprintf(name, sizeof(name), "new-%d", n / 2);
			unlink(name);
		}
		if (++n > 4 * N)
			FAIL("the directory does not end");
	}
	closedir(d);
	for (int i = 0; i < N; i++)
		if (!seen[i])
			FAIL("file-number-%d was not listed", i);
}

TEST(telldir_seekdir)
{
	enum { N = 500 };
	static long pos[N + 2];
	static char names[N + 2][256];
	struct dirent *e;
	int n = 0;
	DIR *d;

	make_many(N);
	d = opendir(".");
	for (;;) {
		long at = telldir(d);

		e = readdir(d);
		if (!e)
			break;
		pos[n] = at;
		strcpy(names[n++], e->d_name);
	}
	EQ(n, N + 2);
	for (int i = n - 1; i >= 0; i -= 37) {
		seekdir(d, pos[i]);
		e = readdir(d);
		OK(e && !strcmp(e->d_name, names[i]));
	}
	rewinddir(d);
	e = readdir(d);
	OK(e && !strcmp(e->d_name, names[0]));
	t_write("added", "");
	rewinddir(d);
	n = 0;
	while ((e = readdir(d)))
		n += !strcmp(e->d_name, "added");
	EQ(n, 1);
	closedir(d);
}

TEST(readdir_inode_numbers)
{
	struct dirent *e;
	DIR *d;

	t_write("f", "");
	Z(mkdir("d", 0755));
	Z(symlink("x", "l"));
	d = opendir(".");
	while ((e = readdir(d))) {
		if (!strcmp(e->d_name, ".."))
			continue;
		EQ(e->d_ino, t_stat(e->d_name).st_ino);
		if (e->d_type != DT_UNKNOWN)
			EQ(DTTOIF(e->d_type), t_stat(e->d_name).st_mode & S_IFMT);
	}
	closedir(d);
}

TEST(machinery_is_hidden)
{
	struct dirent *e;
	DIR *d;

	Z(chdir(t_root));
	d = opendir(".");
	while ((e = readdir(d)))
		OK(strcmp(e->d_name, ".intermezzo"));
	closedir(d);
	AS(65534, 65534, OK(open(".intermezzo", O_RDONLY) < 0));
	AS(65534, 65534, OK(rename(".intermezzo", "x") < 0));
}

static int exit_status(const char *file, const char *arg)
{
	pid_t pid = t_fork();
	int status;

	if (!pid) {
		execl(file, file, arg, NULL);
		_exit(errno == ETXTBSY ? 26 : 99);
	}
	Z(waitpid(pid, &status, 0));
	return WEXITSTATUS(status);
}

TEST(execute)
{
	int fd;

	t_write("script", "#!/bin/sh\nexit $1\n");
	E(EACCES, execl("./script", "./script", NULL));
	Z(chmod("script", 0755));
	EQ(exit_status("./script", "17"), 17);
	fd = Z(open("script", O_WRONLY | O_APPEND));
	EQ(exit_status("./script", "1"), 26);	/* being written */
	Z(close(fd));
	EQ(exit_status("./script", "3"), 3);
}
