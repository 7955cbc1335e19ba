// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a file system in the kernel has to keep besides POSIX: file capabilities and
 * other attributes of the security modules, also for who is root in a user namespace
 * only, file handles, freezing, remounting, leases.  Run by tests/vm/behave, which
 * compares log and tree afterwards.  DIR must be the root of the mounted fileset.
 */
#include "t.h"

#include <linux/capability.h>
#include <linux/fs.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#define CAPS	"security.capability"

enum { NS_ROOT = 100000 };

static struct vfs_cap_data some_caps(void)
{
	struct vfs_cap_data c = { .magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE };

	c.data[0].permitted = 1 << CAP_NET_RAW;
	return c;
}

static void give_caps(const char *name)
{
	struct vfs_cap_data c = some_caps();

	Z(setxattr(name, CAPS, &c, sizeof(c), 0));
	EQ(getxattr(name, CAPS, NULL, 0), sizeof(c));
}

static void drop_caches(void)
{
	int fd = Z(open("/proc/sys/vm/drop_caches", O_WRONLY));

	sync();
	EQ(write(fd, "3", 1), 1);
	close(fd);
}

TEST(capabilities_stay_and_go_with_the_content)
{
	struct vfs_cap_data c = some_caps(), got;
	char *m;
	int fd;

	t_write("f", "content");
	give_caps("f");
	Z(chmod("f", 0700));
	Z(rename("f", "g"));
	drop_caches();
	EQ(getxattr("g", CAPS, &got, sizeof(got)), sizeof(got));
	OK(!memcmp(&c, &got, sizeof(c)));

	/* write() */
	fd = Z(open("g", O_RDWR));
	EQ(write(fd, "x", 1), 1);
	E(ENODATA, getxattr("g", CAPS, NULL, 0));
	/* and again: nothing may remember that there was none */
	give_caps("g");
	EQ(write(fd, "x", 1), 1);
	E(ENODATA, getxattr("g", CAPS, NULL, 0));
	/* truncation */
	give_caps("g");
	Z(ftruncate(fd, 3));
	E(ENODATA, getxattr("g", CAPS, NULL, 0));
	give_caps("g");
	close(Z(open("g", O_WRONLY | O_TRUNC)));
	E(ENODATA, getxattr("g", CAPS, NULL, 0));
	/* fallocate, copy_file_range */
	t_write("from", "0123456789");
	give_caps("g");
	Z(posix_fallocate(fd, 0, 5000));
	E(ENODATA, getxattr("g", CAPS, NULL, 0));
	give_caps("g");
	EQ(copy_file_range(Z(open("from", O_RDONLY)), NULL, fd, NULL, 10, 0), 10);
	E(ENODATA, getxattr("g", CAPS, NULL, 0));
	/* chown, as on ext4 */
	give_caps("g");
	Z(chown("g", 5, 5));
	E(ENODATA, getxattr("g", CAPS, NULL, 0));
	/* what is only read, or changes attributes alone, keeps them */
	give_caps("g");
	Z(chmod("g", 0755));
	m = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	OK(m != MAP_FAILED);
	OK(*(volatile char *)m != 1);
	EQ(getxattr("g", CAPS, NULL, 0), sizeof(c));
	close(fd);
}

TEST(capabilities_work)
{
	char cat[] = "./cat", data[16] = { 0 };
	int from = Z(open("/bin/cat", O_RDONLY)), to = Z(open("cat", O_CREAT | O_WRONLY, 0755));
	struct vfs_cap_data c = some_caps();
	struct stat st;
	int p[2];

	Z(fstat(from, &st));
	EQ(sendfile(to, from, NULL, st.st_size), st.st_size);
	close(to);
	t_write("secret", "only root's");
	Z(chmod("secret", 0600));
	Z(chmod(".", 0755));
	c.data[0].permitted = 1 << CAP_DAC_OVERRIDE;
	Z(setxattr("cat", CAPS, &c, sizeof(c), 0));
	Z(pipe(p));
	AS(1000, 1000, {
		E(EACCES, open("secret", O_RDONLY));
		dup2(p[1], 1);
		execl(cat, cat, "secret", NULL);
		FAIL("exec");
	});
	EQ(read(p[0], data, sizeof(data)), 11);
	OK(!memcmp(data, "only root's", 11));
}

static void put(const char *file, const char *text)
{
	int fd = Z(open(file, O_WRONLY));

	EQ(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

/* fn in a user namespace whose root is NS_ROOT here */
static void in_user_namespace(void (*fn)(void))
{
	int up[2], down[2];
	char path[64], c;
	pid_t pid;

	Z(pipe(up));
	Z(pipe(down));
	pid = t_fork();
	if (!pid) {
		if (unshare(CLONE_NEWUSER))
			FAIL("unshare: %s", strerror(errno));
		EQ(write(up[1], "", 1), 1);
		EQ(read(down[0], &c, 1), 1);
		Z(setgid(0));
		Z(setuid(0));
		fn();
		_exit(0);
	}
	EQ(read(up[0], &c, 1), 1);
	snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
	put(path, "0 100000 65536");
	snprintf(path, sizeof(path), "/proc/%d/gid_map", pid);
	put(path, "0 100000 65536");
	EQ(write(down[1], "", 1), 1);
	t_wait(pid, __FILE__, __LINE__);
}

static void root_of_a_namespace(void)
{
	struct vfs_cap_data c = some_caps(), got;
	int fd;

	Z(setxattr("f", CAPS, &c, sizeof(c), 0));
	EQ(getxattr("f", CAPS, &got, sizeof(got)), sizeof(got));
	OK(!memcmp(&c, &got, sizeof(c)));
	E(EPERM, setxattr("f", "trusted.x", "y", 1, 0));
	/* somebody else's there */
	E(EPERM, setxattr("other", CAPS, &c, sizeof(c), 0));
	fd = Z(open("made", O_CREAT | O_EXCL | O_WRONLY, 0644));
	EQ(write(fd, "x", 1), 1);
	Z(chown("made", 5, 6));
	close(fd);
}

TEST(capabilities_of_a_user_namespace)
{
	struct vfs_ns_cap_data got;

	t_write("f", "content");
	Z(chown("f", NS_ROOT, NS_ROOT));
	t_write("other", "content");
	Z(chmod(".", 0777));
	in_user_namespace(root_of_a_namespace);
	EQ(getxattr("f", CAPS, &got, sizeof(got)), sizeof(got));
	EQ(got.magic_etc & VFS_CAP_REVISION_MASK, VFS_CAP_REVISION_3);
	EQ(got.rootid, NS_ROOT);
	EQ(t_stat("made").st_uid, NS_ROOT + 5);
	EQ(t_stat("made").st_gid, NS_ROOT + 6);
	put("f", "x");
	E(ENODATA, getxattr("f", CAPS, NULL, 0));
}

TEST(attributes_of_security_modules)
{
	char buf[32];

	t_write("f", "content");
	Z(mkdir("d", 0755));
	Z(setxattr("f", "security.test", "label", 5, 0));
	Z(setxattr("d", "security.test", "other", 5, 0));
	drop_caches();
	put("f", "CONTENT");
	EQ(getxattr("f", "security.test", buf, sizeof(buf)), 5);
	OK(!memcmp(buf, "label", 5));
	EQ(getxattr("d", "security.test", buf, sizeof(buf)), 5);
	AS(1000, 1000, E(EPERM, setxattr("f", "security.test", "x", 1, 0)));
	Z(removexattr("d", "security.test"));
	E(ENODATA, getxattr("d", "security.test", NULL, 0));
}

/* File handles */

union handle {
	struct file_handle h;
	char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
};

static union handle handle_of(const char *name)
{
	union handle u = { .h.handle_bytes = MAX_HANDLE_SZ };
	int mount_id;

	Z(name_to_handle_at(AT_FDCWD, name, &u.h, &mount_id, 0));
	return u;
}

static int by_handle(union handle *u, int flags)
{
	int at = Z(open(".", O_RDONLY | O_DIRECTORY)), fd, e;

	fd = open_by_handle_at(at, &u->h, flags);
	e = errno;
	close(at);
	errno = e;
	return fd;
}

TEST(handles)
{
	union handle f, d;
	char link[64], path[4096], buf[8];
	struct stat st;
	int fd;

	Z(mkdir("d", 0755));
	Z(mkdir("d/e", 0755));
	t_write("d/e/f", "content");
	f = handle_of("d/e/f");
	d = handle_of("d/e");
	st = t_stat("d/e/f");
	drop_caches();
	fd = Z(by_handle(&f, O_RDWR));
	EQ(t_stat("d/e/f").st_ino, st.st_ino);
	EQ(write(fd, "handled", 7), 7);
	Z(close(fd));
	t_text("d/e/f", "handled");
	/* a directory finds its way to the root */
	drop_caches();
	fd = Z(by_handle(&d, O_RDONLY | O_DIRECTORY));
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	memset(path, 0, sizeof(path));
	Z(readlink(link, path, sizeof(path) - 1));
	OK(strlen(path) > 4 && !strcmp(path + strlen(path) - 4, "/d/e"));
	close(Z(openat(fd, "f", O_RDONLY)));
	close(fd);
	/* by another name, and by none */
	Z(rename("d/e/f", "g"));
	fd = Z(by_handle(&f, O_RDONLY));
	EQ(read(fd, buf, sizeof(buf)), 7);
	close(fd);
	Z(unlink("g"));
	drop_caches();
	E(ESTALE, by_handle(&f, O_RDONLY));
	Z(chmod(".", 0755));
	AS(1000, 1000, E(EPERM, by_handle(&d, O_RDONLY)));
}

/* Freezing */

TEST(freezing)
{
	int dir = Z(open(".", O_RDONLY)), status, p[2];
	struct pollfd done;
	pid_t pid;

	t_write("f", "content");
	Z(pipe(p));
	Z(ioctl(dir, FIFREEZE, 0));
	E(EBUSY, ioctl(dir, FIFREEZE, 0));
	pid = t_fork();
	if (!pid) {
		put("f", "CONTENT");
		Z(mkdir("d", 0755));
		EQ(write(p[1], "", 1), 1);
		_exit(0);
	}
	t_text("f", "content");
	done = (struct pollfd) { .fd = p[0], .events = POLLIN };
	status = poll(&done, 1, 500);
	Z(ioctl(dir, FITHAW, 0));
	EQ(status, 0);
	t_wait(pid, __FILE__, __LINE__);
	t_text("f", "CONTENT");
	OK(t_exists("d"));
	E(EINVAL, ioctl(dir, FITHAW, 0));
}

/* Remounting */

TEST(read_only_and_back)
{
	int fd;

	t_write("f", "content");
	fd = Z(open("f", O_WRONLY));
	E(EBUSY, mount(NULL, t_root, NULL, MS_REMOUNT | MS_RDONLY, NULL));
	EQ(write(fd, "C", 1), 1);
	Z(close(fd));
	Z(mount(NULL, t_root, NULL, MS_REMOUNT | MS_RDONLY, NULL));
	E(EROFS, open("f", O_WRONLY));
	E(EROFS, mkdir("d", 0755));
	E(EROFS, unlink("f"));
	E(EROFS, setxattr("f", "user.x", "y", 1, 0));
	E(EROFS, chmod("f", 0600));
	t_text("f", "Content");
	Z(mount(NULL, t_root, NULL, MS_REMOUNT, NULL));
	put("f", "CON");
	t_text("f", "CONtent");
}

/* Leases */

static volatile sig_atomic_t broken;

static void on_break(int sig)
{
	broken++;
}

/* A lease on f, stmt of another process waits for it to be given up. */
#define BREAKS(type, flags, stmt) do {						\
	int fd_ = Z(open("f", flags)), p_[2];					\
	struct pollfd done_;							\
	pid_t pid_;								\
										\
	broken = 0;								\
	Z(pipe(p_));								\
	Z(fcntl(fd_, F_SETLEASE, type));					\
	EQ(fcntl(fd_, F_GETLEASE), type);					\
	pid_ = t_fork();							\
	if (!pid_) {								\
		stmt;								\
		EQ(write(p_[1], "", 1), 1);					\
		_exit(0);							\
	}									\
	while (!broken)								\
		usleep(1000);							\
	done_ = (struct pollfd) { .fd = p_[0], .events = POLLIN };		\
	EQ(poll(&done_, 1, 200), 0);						\
	Z(fcntl(fd_, F_SETLEASE, F_UNLCK));					\
	t_wait(pid_, __FILE__, __LINE__);					\
	close(fd_);								\
	close(p_[0]);								\
	close(p_[1]);								\
} while (0)

TEST(leases)
{
	struct sigaction sa = { .sa_handler = on_break };
	int fd;

	sigaction(SIGIO, &sa, NULL);
	t_write("f", "content");
	BREAKS(F_RDLCK, O_RDONLY, put("f", "x"));
	BREAKS(F_RDLCK, O_RDONLY, Z(truncate("f", 3)));
	BREAKS(F_WRLCK, O_RDWR, close(Z(open("f", O_RDONLY))));
	/* who does not wait is told; who only reads does not break a read lease */
	fd = Z(open("f", O_RDONLY));
	Z(fcntl(fd, F_SETLEASE, F_RDLCK));
	close(Z(open("f", O_RDONLY)));
	E(EAGAIN, open("f", O_WRONLY | O_NONBLOCK));
	Z(fcntl(fd, F_SETLEASE, F_UNLCK));
	/* none while there is a writer */
	close(Z(open("f", O_WRONLY)));
	E(EAGAIN, ({ int w = Z(open("f", O_WRONLY)); int r = fcntl(fd, F_SETLEASE, F_RDLCK);
		     int e = errno; close(w); errno = e; r; }));
	close(fd);
}

int main(int argc, char **argv)
{
	return t_main(argc, argv);
}
