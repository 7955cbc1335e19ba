// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * kmlprint: show a modification log, a kml file or that of a fileset's
 * directory.  A tool for people and scripts; it only reads.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <getopt.h>
#include <glob.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <intermezzo/channel.h>

#include "klog.h"
#include "print.h"
#include "util.h"

#define EXIT_USAGE	2

/*
 * A file that is reached through FUSE is changed behind the kernel's back, so
 * inotify is silent there and only looking again helps.
 */
#define FUSE_LOOK_MS	250

struct options {
	void		(*print)(const struct entry *e);
	bool		follow, reverse, verify;
	uint64_t	from, to;	/* record numbers, inclusive */
	bool		any_op;
	bool		ops[64];	/* by opcode */
	const char	*glob;
	const char	*path;		/* of the kml file */
};

static void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void complain(const char *format, ...)
{
	va_list ap;

	/* in order with what has been printed, where both go to one place */
	fflush(stdout);
	fputs("kmlprint: ", stderr);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
}

static const char *explain(int err)
{
	switch (err) {
	case -EBADMSG:
		return "this is no kml file, or its header is damaged";
	case -EPROTONOSUPPORT:
		return "this kml file is of a later format: use a newer kmlprint";
	default:
		return strerror(-err);
	}
}

static void usage(FILE *to)
{
	fputs("Usage: kmlprint [OPTION]... FILE|DIR\n"
	      "Show the modification log FILE, or that of the fileset DIR.\n"
	      "\n"
	      "  -l, --full           all fields of each record\n"
	      "  -j, --json           one JSON object per record and line\n"
	      "  -f, --follow         wait for more records, until interrupted\n"
	      "  -r, --range=A-B      only records number A to B; A-, -B or A, too\n"
	      "  -o, --op=NAME[,...]  only these operations, such as CREATE,RENAME\n"
	      "  -p, --path=GLOB      only records with a path that matches\n"
	      "  -R, --reverse        last record first\n"
	      "  -c, --verify         print nothing, check the whole log\n"
	      "  -h, --help           show this help\n"
	      "  -V, --version        show the version\n", to);
}

/* Options */

static const char *parse_number(const char *p, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(p, &end, 10);
	return errno ? NULL : end;
}

/* "A-B", "A-", "-B" or "A" */
static bool parse_range(const char *p, struct options *o)
{
	uint64_t from = 0, to = UINT64_MAX;
	bool digits = *p >= '0' && *p <= '9';

	if (digits && !(p = parse_number(p, &from)))
		return false;
	if (digits && *p == 0) {
		to = from;
	} else {
		if (*p++ != '-' || (!digits && *p == 0))
			return false;
		if (*p >= '0' && *p <= '9' && !(p = parse_number(p, &to)))
			return false;
		if (*p)
			return false;
	}
	o->from = from;
	o->to = to;
	return from <= to;
}

static bool parse_ops(char *list, struct options *o)
{
	char *save, *name;

	o->any_op = false;
	for (name = strtok_r(list, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
		int op = kml_opcode_parse(name);

		if (op < 0 || (size_t) op >= sizeof(o->ops)) {
			complain("there is no operation %s", name);
			return false;
		}
		o->ops[op] = true;
	}
	return true;
}

static bool parse_option(int c, struct options *o)
{
	switch (c) {
	case 'l':
		o->print = print_full;
		return true;
	case 'j':
		o->print = print_json;
		return true;
	case 'f':
		o->follow = true;
		return true;
	case 'r':
		if (parse_range(optarg, o))
			return true;
		complain("a range of record numbers looks like 10-20, not %s", optarg);
		return false;
	case 'o':
		return parse_ops(optarg, o);
	case 'p':
		o->glob = optarg;
		return true;
	case 'R':
		o->reverse = true;
		return true;
	case 'c':
		o->verify = true;
		return true;
	default:
		return false;
	}
}

static const struct option long_options[] = {
	{ "full",	no_argument,		NULL, 'l' },
	{ "json",	no_argument,		NULL, 'j' },
	{ "follow",	no_argument,		NULL, 'f' },
	{ "range",	required_argument,	NULL, 'r' },
	{ "op",		required_argument,	NULL, 'o' },
	{ "path",	required_argument,	NULL, 'p' },
	{ "reverse",	no_argument,		NULL, 'R' },
	{ "verify",	no_argument,		NULL, 'c' },
	{ "help",	no_argument,		NULL, 'h' },
	{ "version",	no_argument,		NULL, 'V' },
	{ NULL, 0, NULL, 0 }
};

/* -1: go on, else the exit code. */
static int parse_options(int argc, char **argv, struct options *o)
{
	int c;

	while ((c = getopt_long(argc, argv, "ljfr:o:p:RchV", long_options, NULL)) != -1) {
		if (c == 'h') {
			usage(stdout);
			return 0;
		}
		if (c == 'V') {
			puts("kmlprint (" PACKAGE_NAME ") " PACKAGE_VERSION);
			return 0;
		}
		if (!parse_option(c, o))
			goto wrong;
	}
	if (optind != argc - 1) {
		complain("one file or directory is needed");
		goto wrong;
	}
	if (o->follow && (o->reverse || o->verify)) {
		complain("--follow goes with neither --reverse nor --verify");
		goto wrong;
	}
	o->path = argv[optind];
	return -1;
wrong:
	fputs("Try 'kmlprint --help' for more information.\n", stderr);
	return EXIT_USAGE;
}

/* Which file */

/* The log below a directory that is not mounted: -1 found, else the exit code. */
static int find_unmounted(const char *dir, char *path, size_t size)
{
	glob_t found = { 0 };
	int code = 1;
	size_t i;

	if (chdir(dir) != 0) {
		complain("%s: %s", dir, strerror(errno));
		return 1;
	}
	if (glob(".intermezzo/*/kml", 0, NULL, &found) != 0) {
		complain("%s: no fileset is here", dir);
	} else if (found.gl_pathc > 1) {
		complain("%s: several filesets are here, name the file of one:", dir);
		for (i = 0; i < found.gl_pathc; i++)
			fprintf(stderr, "%s/%s\n", dir, found.gl_pathv[i]);
		code = EXIT_USAGE;
	} else if (strlen(found.gl_pathv[0]) < size) {
		strcpy(path, found.gl_pathv[0]);
		code = -1;
	}
	globfree(&found);
	return code;
}

/* The log of a directory's fileset: -1 found, else the exit code. */
static int find_log(const char *dir, char *path, size_t size)
{
	char fileset[KML_FSET_MAX + 1];
	ssize_t n = getxattr(dir, IZO_XATTR_FILESET, fileset, sizeof(fileset) - 1);

	if (n < 0)
		return find_unmounted(dir, path, size);
	fileset[n] = 0;
	if (!fileset_name_ok(fileset)) {
		complain("%s: its fileset has an invalid name", dir);
		return 1;
	}
	if ((size_t) snprintf(path, size, "%s/.intermezzo/%s/kml", dir, fileset) >= size) {
		complain("%s: %s", dir, strerror(ENAMETOOLONG));
		return 1;
	}
	return -1;
}

/* Which records */

static bool path_matches(char *path, const char *glob)
{
	bool ok = path && fnmatch(glob, path, 0) == 0;

	free(path);
	return ok;
}

static bool wanted(const struct options *o, const struct kml_record *r)
{
	if (r->recno < o->from || r->recno > o->to)
		return false;
	if (!o->any_op && (r->opcode >= sizeof(o->ops) || !o->ops[r->opcode]))
		return false;
	return !o->glob || path_matches(record_path(r), o->glob) ||
	       path_matches(record_target_path(r), o->glob);
}

/* Waiting for more */

struct waiter {
	int	fd;		/* inotify; -1: not following */
	int	timeout;	/* ms, -1: for ever */
	ino_t	ino;		/* of the file that is followed */
};

static int waiter_open(struct waiter *w, const char *path)
{
	struct statfs fs;
	struct stat st;

	if (statfs(path, &fs) != 0 || stat(path, &st) != 0)
		return -errno;
	w->ino = st.st_ino;
	w->timeout = fs.f_type == FUSE_SUPER_MAGIC ? FUSE_LOOK_MS : -1;
	w->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (w->fd < 0)
		return -errno;
	if (inotify_add_watch(w->fd, path, IN_MODIFY | IN_ATTRIB | IN_MOVE_SELF) < 0) {
		int err = -errno;

		close(w->fd);
		w->fd = -1;
		return err;
	}
	return 0;
}

/*
 * Wait until the file may have grown: 1, or 0 when it is gone (removed, replaced
 * by a new log, or unmounted), or -errno.
 */
static int waiter_wait(const struct waiter *w, const char *path)
{
	struct pollfd p = { .fd = w->fd, .events = POLLIN };
	_Alignas(struct inotify_event) char buf[4096];
	struct stat st;

	if (poll(&p, 1, w->timeout) < 0 && errno != EINTR)
		return -errno;
	while (read(w->fd, buf, sizeof(buf)) > 0)
		;
	return stat(path, &st) == 0 && st.st_ino == w->ino;
}

/* Printing */

static int write_failed(void)
{
	return ferror(stdout) ? -EIO : 0;
}

static int damaged(const struct options *o, uint64_t off, int err)
{
	if (err == -EBADMSG)
		complain("%s: the log is damaged at offset %" PRIu64, o->path, off);
	else
		complain("%s: at offset %" PRIu64 ": %s", o->path, off, strerror(-err));
	return 1;
}

/* The front has been given back while we read: go on where it is now. */
static int skip_given_back(struct klog *log, const struct options *o, uint64_t *off)
{
	struct klog_header h;
	int err = klog_header(log, &h);

	if (err)
		return err;
	if (h.first_offset <= *off)
		return -ERANGE;
	complain("%s: records before number %" PRIu64 " have been given back", o->path,
		 h.first_recno);
	*off = h.first_offset;
	return 0;
}

static int print_forwards(struct klog *log, const struct options *o, const struct waiter *w)
{
	struct klog_header h;
	struct entry e;
	uint64_t next;
	int rc;

	rc = klog_header(log, &h);
	if (rc)
		return damaged(o, 0, rc);
	for (e.off = h.first_offset;;) {
		rc = klog_read(log, e.off, &e.rec, &next);
		if (rc == 1) {
			e.len = next - e.off;
			if (wanted(o, &e.rec))
				o->print(&e);
			e.off = next;
			if (e.rec.recno >= o->to || write_failed())
				return 0;
			continue;
		}
		if (rc == 0 && w->fd >= 0 && fflush(stdout) == 0)
			rc = waiter_wait(w, o->path);
		else if (rc == -ERANGE)
			rc = skip_given_back(log, o, &e.off) ?: 1;
		if (rc == 0)
			return 0;
		if (rc < 0)
			return damaged(o, e.off, rc);
	}
}

static int print_backwards(struct klog *log, const struct options *o)
{
	struct entry e;
	uint64_t end, recno;
	int rc;

	rc = klog_end(log, &end, &recno);
	if (rc)
		return damaged(o, 0, rc);
	while ((rc = klog_read_back(log, end, &e.rec, &e.off)) == 1) {
		e.len = end - e.off;
		if (wanted(o, &e.rec))
			o->print(&e);
		end = e.off;
		if (e.rec.recno <= o->from || write_failed())
			return 0;
	}
	return rc < 0 && rc != -ERANGE ? damaged(o, end, rc) : 0;
}

static int verify(struct klog *log, const struct options *o)
{
	uint64_t records;
	char why[256] = "";
	int rc = klog_verify(log, &records, why, sizeof(why));

	if (rc == 0)
		return 0;
	complain("%s: %s", o->path, *why ? why : explain(rc));
	return 1;
}

static int run(const struct options *o)
{
	struct waiter w = { .fd = -1 };
	struct klog *log;
	int rc, code;

	/* first, so that nothing is missed between reading and waiting */
	rc = o->follow ? waiter_open(&w, o->path) : 0;
	if (!rc)
		rc = klog_open(AT_FDCWD, o->path, &log);
	if (rc) {
		complain("%s: %s", o->path, explain(rc));
		code = 1;
		goto out;
	}
	if (o->verify)
		code = verify(log, o);
	else if (o->reverse)
		code = print_backwards(log, o);
	else
		code = print_forwards(log, o, &w);
	klog_close(log);
out:
	if (w.fd >= 0)
		close(w.fd);
	return code;
}

/* What did not reach its destination was not printed. */
static int close_stdout(int code)
{
	bool failed = ferror(stdout);

	if (fclose(stdout) != 0 || failed) {
		fprintf(stderr, "kmlprint: standard output: %s\n", strerror(errno ? errno : EIO));
		return 1;
	}
	return code;
}

int main(int argc, char **argv)
{
	struct options o = { .print = print_brief, .to = UINT64_MAX, .any_op = true };
	char path[PATH_MAX];
	struct stat st;
	int code;

	code = parse_options(argc, argv, &o);
	if (code < 0 && stat(o.path, &st) == 0 && S_ISDIR(st.st_mode)) {
		code = find_log(o.path, path, sizeof(path));
		o.path = path;
	}
	if (code < 0)
		code = run(&o);
	return close_stdout(code);
}
