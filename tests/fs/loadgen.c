// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * loadgen: writes files under load and remembers outside of the file system,
 * in a journal, what it wrote and closed; later it checks that none of it was
 * lost.  Used by the crash tests of the file-system suite and by the
 * end-to-end tests.
 *
 *	loadgen --journal=FILE [--seed=N] [--writers=N] [--seconds=S] [--ops=N]
 *		[--pause=MS] DIR
 *	loadgen --journal=FILE --check [--conflicts] DIR
 *
 * Each writer is a process with a directory DIR/wN and a journal FILE.N of its
 * own.  A line is written before an operation (B) and after it (D: done, F:
 * failed).  What a failed or unfinished operation has done is not known; the
 * file is "uncertain" until it is written as a whole again.  A writer ends
 * when its file system goes away.
 *
 * --check: the content of each file is what its writer left.  With --conflicts
 * it may be in a conflict copy instead.  0 fine, 1 lost, 2 trouble.
 */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { FILES = 24, MAX = 120000 };

struct op {
	char what;		/* W all, R all by rename, P part, M mapped part, U unlink, N new name */
	int file, to;
	unsigned long off, len, seed;
};

struct file {
	bool there, uncertain;
	size_t len;
	char *data;
};

static struct file files[FILES];
static uint64_t state;
static int journal;
static unsigned long counter;

static unsigned long rnd(unsigned long n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 11) % n;
}

static void fill(char *buf, size_t len, unsigned long seed)
{
	uint32_t x = seed * 2654435761u + 1;

	for (size_t i = 0; i < len; i++) {
		x = x * 1664525 + 1013904223;
		buf[i] = x >> 24;
	}
}

static void __attribute__((format(printf, 1, 2))) note(const char *fmt, ...)
{
	char line[256];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (write(journal, line, n) != n)
		err(2, "journal");
}

/* What an operation that was done makes of what we know. */
static void model(const struct op *o)
{
	struct file *f = &files[o->file], *t = &files[o->to];

	switch (o->what) {
	case 'W':
	case 'R':
		fill(f->data, o->len, o->seed);
		f->len = o->len;
		f->there = true;
		f->uncertain = false;
		break;
	case 'P':
	case 'M':
		if (o->off > f->len)
			memset(f->data + f->len, 0, o->off - f->len);
		fill(f->data + o->off, o->len, o->seed);
		if (o->off + o->len > f->len)
			f->len = o->off + o->len;
		break;
	case 'U':
		f->there = f->uncertain = false;
		break;
	case 'N':
		memcpy(t->data, f->data, f->len);
		t->len = f->len;
		t->there = f->there;
		t->uncertain = f->uncertain;
		f->there = false;
		break;
	}
}

static void model_unknown(const struct op *o)
{
	files[o->file].uncertain = true;
	if (o->what == 'N')
		files[o->to].uncertain = true;
}

static int write_all(const char *name, int flags, const char *buf, size_t len, off_t off)
{
	int fd = open(name, flags, 0644);
	size_t done = 0;

	if (fd < 0)
		return -1;
	while (done < len) {
		ssize_t n = pwrite(fd, buf + done, len - done, off + done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			int e = errno;

			close(fd);
			errno = e;
			return -1;
		}
		done += n;
	}
	if (rnd(16) == 0 && fsync(fd)) {
		close(fd);
		return -1;
	}
	return close(fd);
}

/* Only inside of the file: a mapping cannot make it longer. */
static int write_mapped(const char *name, const struct op *o)
{
	int fd = open(name, O_RDWR), r = 0;
	off_t from = o->off & ~4095ul;
	size_t len = o->off + o->len - from;
	char *m;

	if (fd < 0)
		return -1;
	m = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, from);
	if (m == MAP_FAILED) {
		close(fd);
		return -1;
	}
	fill(m + (o->off - from), o->len, o->seed);
	/* what was stored is in the file when this has succeeded */
	if (msync(m, len, MS_SYNC))
		r = -1;
	munmap(m, len);
	return close(fd) ? -1 : r;
}

static int perform(const struct op *o)
{
	static char buf[MAX];
	char name[32], other[40];

	snprintf(name, sizeof(name), "f%d", o->file);
	switch (o->what) {
	case 'W':
		fill(buf, o->len, o->seed);
		return write_all(name, O_CREAT | O_TRUNC | O_WRONLY, buf, o->len, 0);
	case 'R':
		snprintf(other, sizeof(other), ".%s.tmp", name);
		fill(buf, o->len, o->seed);
		if (write_all(other, O_CREAT | O_TRUNC | O_WRONLY, buf, o->len, 0))
			return -1;
		return rename(other, name);
	case 'P':
		fill(buf, o->len, o->seed);
		return write_all(name, O_WRONLY, buf, o->len, o->off);
	case 'M':
		return write_mapped(name, o);
	case 'U':
		return unlink(name);
	default:
		snprintf(other, sizeof(other), "f%d", o->to);
		return rename(name, other);
	}
}

static struct op choose(void)
{
	struct op o = { .file = rnd(FILES), .seed = rnd(1000000000) };
	struct file *f = &files[o.file];
	unsigned int kind = rnd(10);

	o.to = o.file;
	o.len = rnd(8) ? rnd(8000) : rnd(MAX);
	if (!f->there || f->uncertain || kind < 3) {
		o.what = rnd(2) ? 'W' : 'R';
	} else if (kind < 6) {
		o.what = 'P';
		o.len = 1 + rnd(5000);
		o.off = rnd(f->len + 1);
		if (o.off + o.len > MAX)
			o.off = MAX - o.len;
	} else if (kind < 7 && f->len > 1) {
		o.what = 'M';
		o.off = rnd(f->len - 1);
		o.len = 1 + rnd(f->len - o.off);
	} else if (kind < 8) {
		o.what = 'U';
	} else {
		o.what = 'N';
		while (o.to == o.file)
			o.to = rnd(FILES);
	}
	return o;
}

/* Other operations around it, whose result the tree comparisons check. */
static void noise(void)
{
	char a[64], b[64];
	int n = rnd(5), m = rnd(5);

	snprintf(a, sizeof(a), "n/d%d", n);
	snprintf(b, sizeof(b), "n/d%d/x%d", m, n);
	switch (rnd(9)) {
	case 0: mkdir(a, 0755); break;
	case 1: rmdir(a); break;
	case 2: rename(a, b); break;
	case 3: symlink("../f1", b); break;
	case 4: link("f2", b); break;
	case 5: unlink(b); break;
	case 6: chmod(a, rnd(2) ? 0700 : 0755); break;
	case 7: setxattr(a, "user.load", b, strlen(b), 0); break;
	default: mkfifo(b, 0644); break;
	}
}

static bool gone(int e)
{
	return e == ENOTCONN || e == ECONNABORTED || e == EIO || e == ESHUTDOWN;
}

static int writer(const char *dir, int n, unsigned long seed, unsigned long ops,
		  unsigned int seconds, unsigned int pause)
{
	time_t end = seconds ? time(NULL) + seconds : 0;
	char path[PATH_MAX];

	state = (seed + n) * 0x9e3779b97f4a7c15ull + 1;
	snprintf(path, sizeof(path), "%s/w%d", dir, n);
	if (mkdir(path, 0755) && errno != EEXIST)
		return gone(errno) ? 0 : 2;
	if (chdir(path))
		return gone(errno) ? 0 : 2;
	mkdir("n", 0755);
	while ((!ops || counter < ops) && (!end || time(NULL) < end)) {
		struct op o = choose();

		note("B %lu %c %d %d %lu %lu %lu\n", ++counter, o.what, o.file, o.to,
		     o.off, o.len, o.seed);
		errno = 0;
		if (perform(&o)) {
			int e = errno;

			note("F %lu %d\n", counter, e);
			model_unknown(&o);
			if (gone(e))
				return 0;
		} else {
			note("D %lu\n", counter);
			model(&o);
		}
		if (rnd(3) == 0)
			noise();
		if (pause)
			usleep(rnd(2000 * pause));
	}
	return 0;
}

static void open_journal(const char *file, int n, int flags)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s.%d", file, n);
	journal = open(path, flags, 0644);
}

static void forget(void)
{
	for (int i = 0; i < FILES; i++) {
		if (!files[i].data)
			files[i].data = malloc(MAX);
		if (!files[i].data)
			err(2, "memory");
		files[i].there = files[i].uncertain = false;
	}
	counter = 0;
}

/* Take in a journal; also when a writer goes on where it was. */
static void replay_journal(void)
{
	FILE *f = fdopen(dup(journal), "r");
	struct op o = { 0 }, next;
	char line[256];
	unsigned long n;
	bool open = false;

	forget();
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "B %lu %c %d %d %lu %lu %lu", &n, &next.what,
			   &next.file, &next.to, &next.off, &next.len,
			   &next.seed) == 7) {
			if (open)	/* the writer was killed in between */
				model_unknown(&o);
			o = next;
			open = true;
			counter = n;
			continue;
		}
		if (line[0] == 'D')
			model(&o);
		else
			model_unknown(&o);
		open = false;
	}
	if (open)
		model_unknown(&o);
	if (f)
		fclose(f);
}

static bool same(const char *path, const struct file *f)
{
	static char buf[MAX + 1];
	int fd = open(path, O_RDONLY);
	size_t done = 0;
	ssize_t n = 0;

	if (fd < 0)
		return false;
	while (done < sizeof(buf) && (n = read(fd, buf + done, sizeof(buf) - done)) > 0)
		done += n;
	close(fd);
	return n >= 0 && done == f->len && !memcmp(buf, f->data, done);
}

static bool in_conflict_copy(const char *dir, const char *name, const struct file *f)
{
	DIR *d = opendir(dir);
	char path[PATH_MAX + 300];
	struct dirent *e;
	bool found = false;

	while (d && !found && (e = readdir(d))) {
		if (strncmp(e->d_name, name, strlen(name)) ||
		    !strstr(e->d_name, ".conflict-"))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		found = same(path, f);
	}
	if (d)
		closedir(d);
	return found;
}

static unsigned int check_writer(const char *dir, int n, bool conflicts,
				 unsigned int *unsure)
{
	unsigned int bad = 0;
	char path[PATH_MAX], name[32], sub[PATH_MAX];

	snprintf(sub, sizeof(sub), "%s/w%d", dir, n);
	for (int i = 0; i < FILES; i++) {
		struct stat st;
		bool there;

		snprintf(name, sizeof(name), "f%d", i);
		if (snprintf(path, sizeof(path), "%s/%s", sub, name) >= (int)sizeof(path))
			errx(2, "path too long");
		there = !lstat(path, &st);
		if (files[i].uncertain) {
			++*unsure;
		} else if (!files[i].there) {
			if (there) {
				printf("%s: was removed, but is there\n", path);
				bad++;
			}
		} else if (!(there && same(path, &files[i])) &&
			   !(conflicts && in_conflict_copy(sub, name, &files[i]))) {
			printf("%s: %s\n", path, there ? "not what was written" : "lost");
			bad++;
		}
	}
	return bad;
}

static int check(const char *file, const char *dir, bool conflicts)
{
	unsigned int bad = 0, unsure = 0;
	unsigned long ops = 0;
	int n;

	for (n = 0; open_journal(file, n, O_RDONLY), journal >= 0; n++) {
		replay_journal();
		close(journal);
		ops += counter;
		bad += check_writer(dir, n, conflicts, &unsure);
	}
	if (!n)
		errx(2, "%s.0: no journal", file);
	printf("%d writers, %lu operations, %u files uncertain, %u lost\n", n, ops,
	       unsure, bad);
	return bad ? 1 : 0;
}

static int run(const char *file, const char *dir, int writers, unsigned long seed,
	       unsigned long ops, unsigned int seconds, unsigned int pause)
{
	int status, worst = 0;

	printf("seed %lu\n", seed);
	fflush(stdout);
	if (mkdir(dir, 0755) && errno != EEXIST)
		err(2, "%s", dir);
	for (int n = 0; n < writers; n++) {
		pid_t pid = fork();

		if (pid < 0)
			err(2, "fork");
		if (pid)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		open_journal(file, n, O_RDWR | O_CREAT | O_APPEND);
		if (journal < 0)
			err(2, "%s", file);
		replay_journal();
		_exit(writer(dir, n, seed, ops ? counter + ops : 0, seconds, pause));
	}
	while (wait(&status) > 0)
		if (!WIFEXITED(status) || WEXITSTATUS(status))
			worst = 2;
	return worst;
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "journal", required_argument, NULL, 'j' },
		{ "seed", required_argument, NULL, 's' },
		{ "writers", required_argument, NULL, 'w' },
		{ "seconds", required_argument, NULL, 't' },
		{ "ops", required_argument, NULL, 'o' },
		{ "pause", required_argument, NULL, 'p' },
		{ "check", no_argument, NULL, 'c' },
		{ "conflicts", no_argument, NULL, 'C' },
		{ NULL }
	};
	unsigned long seed = time(NULL), ops = 0;
	unsigned int seconds = 0, pause = 0;
	bool checking = false, conflicts = false;
	const char *file = NULL;
	int c, writers = 3;

	while ((c = getopt_long(argc, argv, "", opts, NULL)) >= 0) {
		switch (c) {
		case 'j': file = optarg; break;
		case 's': seed = strtoul(optarg, NULL, 0); break;
		case 'w': writers = atoi(optarg); break;
		case 't': seconds = strtoul(optarg, NULL, 0); break;
		case 'o': ops = strtoul(optarg, NULL, 0); break;
		case 'p': pause = strtoul(optarg, NULL, 0); break;
		case 'c': checking = true; break;
		case 'C': conflicts = true; break;
		default: return 2;
		}
	}
	if (argc - optind != 1 || !file)
		errx(2, "usage: loadgen --journal=FILE [--check] DIR");
	signal(SIGPIPE, SIG_IGN);
	if (checking)
		return check(file, argv[optind], conflicts);
	return run(file, argv[optind], writers, seed, ops, seconds, pause);
}
