// SPDX-License-Identifier: GPL-2.0-or-later
/* The frame of the file-system suite; see t.h. */
#include "t.h"

#include <dirent.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

const char *t_root;

static struct test *first, **last = &first;
static unsigned long long random_state;

void t_register(struct test *t)
{
	*last = t;
	last = &t->next;
}

void t_fail(const char *file, int line, const char *fmt, ...)
{
	const char *base = strrchr(file, '/');
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	dprintf(1, "# %s:%d: %s\n", base ? base + 1 : file, line, text);
	_exit(1);
}

long long t_good(long long value, const char *call, const char *file, int line)
{
	if (value < 0)
		t_fail(file, line, "%s: %s", call, strerror(errno));
	return value;
}

void t_skip(const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	dprintf(1, "# SKIP %s\n", text);
	_exit(77);
}

void t_note(const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	dprintf(1, "# %s\n", text);
}

pid_t t_fork(void)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		FAIL("fork: %s", strerror(errno));
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

void t_wait(pid_t pid, const char *file, int line)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			t_fail(file, line, "waitpid: %s", strerror(errno));
	if (WIFSIGNALED(status))
		t_fail(file, line, "child killed by signal %d", WTERMSIG(status));
	if (WEXITSTATUS(status) == 77)
		_exit(77);
	if (WEXITSTATUS(status))
		t_fail(file, line, "child failed");
}

void t_become(uid_t uid, gid_t gid, const gid_t *groups, size_t n)
{
	if (setgroups(n, groups) || setresgid(gid, gid, gid) ||
	    setresuid(uid, uid, uid))
		FAIL("cannot become %u:%u: %s", uid, gid, strerror(errno));
}

void t_write(const char *path, const char *text)
{
	int fd = Z(open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644));

	EQ(write(fd, text, strlen(text)), strlen(text));
	Z(close(fd));
}

void t_expect(const char *path, const void *data, size_t len)
{
	char *buf = malloc(len + 1);
	int fd = Z(open(path, O_RDONLY));
	size_t done = 0;
	ssize_t n;

	while (done < len + 1) {
		n = Z(read(fd, buf + done, len + 1 - done));
		if (!n)
			break;
		done += n;
	}
	EQ(done, len);
	for (size_t i = 0; i < len; i++)
		if (buf[i] != ((const char *)data)[i])
			FAIL("%s: byte %zu is %d, expected %d", path, i, buf[i],
			     ((const char *)data)[i]);
	Z(close(fd));
	free(buf);
}

void t_text(const char *path, const char *text)
{
	t_expect(path, text, strlen(text));
}

struct stat t_stat(const char *path)
{
	struct stat st;

	if (lstat(path, &st))
		FAIL("lstat %s: %s", path, strerror(errno));
	return st;
}

bool t_exists(const char *path)
{
	struct stat st;

	if (!lstat(path, &st))
		return true;
	if (errno != ENOENT)
		FAIL("lstat %s: %s", path, strerror(errno));
	return false;
}

void t_backdate(const char *path)
{
	const struct timespec ts[2] = { { 1000000000, 5 }, { 1000000000, 6 } };

	Z(utimensat(AT_FDCWD, path, ts, AT_SYMLINK_NOFOLLOW));
}

bool t_recent(struct timespec ts)
{
	time_t now = time(NULL);

	return ts.tv_sec > now - 300 && ts.tv_sec <= now + 5;
}

void t_fill(char *buf, size_t len, unsigned int seed)
{
	uint32_t x = seed * 2654435761u + 12345;

	for (size_t i = 0; i < len; i++) {
		x = x * 1664525 + 1013904223;
		buf[i] = x >> 24;
	}
}

unsigned int t_entries(const char *dir)
{
	DIR *d = opendir(dir);
	unsigned int n = 0;
	struct dirent *e;

	if (!d)
		FAIL("opendir %s: %s", dir, strerror(errno));
	while (errno = 0, (e = readdir(d)))
		n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
	EQ(errno, 0);
	closedir(d);
	return n;
}

unsigned long t_seed(void)
{
	const char *s = getenv("TEST_SEED");
	unsigned long seed = s ? strtoul(s, NULL, 0) :
			     (unsigned long)time(NULL) ^ (unsigned long)getpid() << 16;

	t_note("TEST_SEED=%lu", seed);
	t_reseed(seed);
	return seed;
}

void t_reseed(unsigned long seed)
{
	random_state = seed * 0x9e3779b97f4a7c15ull + 1;
}

unsigned long t_rand(unsigned long n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (random_state >> 11) % n;
}

static void remove_tree(const char *dir)
{
	pid_t pid = fork();

	if (!pid) {
		execlp("rm", "rm", "-rf", "--", dir, NULL);
		_exit(1);
	}
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

static void copy_output(int fd, char *skip, size_t size)
{
	char line[2048];
	FILE *f = fdopen(fd, "r");

	*skip = '\0';
	while (f && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, "# SKIP ", 7)) {
			line[strcspn(line, "\n")] = '\0';
			snprintf(skip, size, "%.400s", line + 7);
		} else {
			fputs(line, stdout);
		}
	}
	if (f)
		fclose(f);
}

static void __attribute__((noreturn)) run_child(struct test *t, const char *dir, int out)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setpgid(0, 0);
	dup2(out, 1);
	dup2(out, 2);
	close(out);
	umask(022);
	if (chdir(t_root) || mkdir(dir, 0777) || chmod(dir, 0777) || chdir(dir)) {
		dprintf(1, "# %s: %s\n", dir, strerror(errno));
		_exit(1);
	}
	alarm(10 * t->seconds);	/* slow machines, sanitizers, load */
	t->fn();
	fflush(stdout);
	_exit(0);
}

static bool run_one(struct test *t, unsigned int n)
{
	char dir[128], skip[512];
	int p[2], status;
	pid_t pid;

	snprintf(dir, sizeof(dir), "t-%s", t->name);
	if (pipe(p))
		return false;
	/* what a failed run left */
	remove_tree(dir);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		close(p[0]);
		run_child(t, dir, p[1]);
	}
	close(p[1]);
	/* a grandchild that hangs would keep the pipe open: end all with the group */
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	kill(-pid, SIGKILL);
	copy_output(p[0], skip, sizeof(skip));
	if (WIFSIGNALED(status))
		printf("# %s\n", WTERMSIG(status) == SIGALRM ? "timed out" :
		       strsignal(WTERMSIG(status)));
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		printf("ok %u - %s # SKIP %s\n", n, t->name, skip);
		status = 0;
	} else {
		printf("%s %u - %s\n", status ? "not ok" : "ok", n, t->name);
	}
	fflush(stdout);
	if (!status && chdir(t_root) == 0)
		remove_tree(dir);
	return !status;
}

static bool selected(const struct test *t, char **patterns)
{
	if (!*patterns)
		return true;
	for (; *patterns; patterns++)
		if (strstr(t->name, *patterns))
			return true;
	return false;
}

int t_main(int argc, char **argv)
{
	static char root[PATH_MAX];
	unsigned int n = 0, failed = 0;

	if (argc < 2 || !realpath(argv[1], root)) {
		fprintf(stderr, "Usage: %s DIR [NAME...]\n", argv[0]);
		return 2;
	}
	t_root = root;
	if (chdir(root)) {
		perror(root);
		return 2;
	}
	for (struct test *t = first; t; t = t->next) {
		if (!selected(t, argv + 2) || run_one(t, ++n))
			continue;
		failed++;
		if (access(root, F_OK)) {
			printf("Bail out! %s: %s\n", root, strerror(errno));
			return 1;
		}
	}
	printf("1..%u\n", n);
	return failed ? 1 : 0;
}
