// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * POST reint: what a client sends becomes true, is answered the same when it
 * is sent again, and is refused when the client has not seen what it changes.
 */
#include "http.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define BODY_MAX (4 << 20)

static char body[BODY_MAX + 8];
static size_t body_len;
static uint64_t next_recno = 1;
static uint64_t next_ino = 1000;	/* the client's own numbers */

struct reint_answer {
	uint64_t	recno, server_recno, ino;
	uint32_t	gen, status;
};

static struct kml_str str(const char *text)
{
	return (struct kml_str) { text, text ? strlen(text) : 0 };
}

static struct kml_record record(unsigned int opcode, const char *name, struct kml_oid parent)
{
	return (struct kml_record) {
		.opcode = opcode,
		.recno = next_recno++,
		.time = { 1700000000, 5 },
		.name = str(name),
		.parent = parent,
	};
}

static void add(const struct kml_record *r)
{
	ssize_t n = kml_encode(body + body_len, sizeof(body) - body_len, r);

	if (n < 0)
		printf("Bail out! a record cannot be encoded: %s\n", strerror(-n));
	else
		body_len += n;
}

/* Send what was added, knowing the server's log up to the position. */
static void post(void)
{
	char path[64];

	snprintf(path, sizeof(path), "reint?base=%llu", (unsigned long long) position_recno);
	request("POST", path, body, body_len, NULL);
	body_len = 0;
}

static struct reint_answer answer(size_t i)
{
	struct reint_answer r = { .status = 9999 };

	if (a.status == 200 && (i + 1) * sizeof(r) <= a.len)
		memcpy(&r, a.body + i * sizeof(r), sizeof(r));
	return r;
}

static void post_expect(const char *what, uint32_t status)
{
	post();
	check(a.status == 200 && answer(0).status == status, "%s: %s (%u)", what,
	      status ? strerror(status) : "done", answer(0).status);
}

static struct kml_record make(unsigned int opcode, const char *name, struct kml_oid parent,
			      uint32_t mode)
{
	struct kml_record r = record(opcode, name, parent);

	r.obj.ino = next_ino++;
	r.obj.gen = 1;
	r.ref_own = KML_REF_OBJ;
	r.has_attr = true;
	r.attr = (struct kml_attrs) {
		.mode = mode, .uid = 1000, .gid = 1001, .nlink = 1,
		.mtime = { 1600000000, 123456789 },
	};
	return r;
}

static void set_data(struct kml_record *r, const char *data)
{
	r->data = str(data);
	r->attr.size = strlen(data);
}

static struct kml_record content(struct kml_oid oid, const char *data)
{
	struct kml_record r = record(KML_CLOSE, NULL, (struct kml_oid) { 0 });

	r.obj = oid;
	r.flags = KML_F_RANGES_ALL;
	r.has_attr = true;
	r.attr = (struct kml_attrs) {
		.valid = KML_A_SIZE | KML_A_MTIME, .mode = S_IFREG | 0644,
		.mtime = { 1600000001, 7 },
	};
	set_data(&r, data);
	return r;
}

static bool file_is(const char *name, const char *data)
{
	char buf[4096];
	long n = read_file(name, buf, sizeof(buf));

	return n == (long) strlen(data) && !memcmp(buf, data, n);
}

/* A directory and what is in it, in one POST, by the client's own numbers. */
static struct kml_oid tree(void)
{
	struct kml_oid root = oid_of(""), own, made;
	struct kml_record dir, r;
	struct stat st;
	char first[32];

	dir = make(KML_MKDIR, "push", root, S_IFDIR | 0711);
	add(&dir);
	own = dir.obj;
	r = make(KML_CREATE, "file", own, S_IFREG | 0640);
	r.ref_own |= KML_REF_PARENT;
	set_data(&r, "pushed");
	add(&r);
	r = make(KML_SYMLINK, "sym", own, S_IFLNK | 0777);
	r.ref_own |= KML_REF_PARENT;
	r.link = str("a/b");
	add(&r);
	r = make(KML_MKNOD, "fifo", own, S_IFIFO | 0600);
	r.ref_own |= KML_REF_PARENT;
	add(&r);
	post();
	check(a.status == 200 && a.len == 4 * sizeof(struct reint_answer) && !answer(0).status &&
	      !answer(1).status && !answer(2).status && !answer(3).status,
	      "a directory with a file, a symlink and a pipe");
	made = (struct kml_oid) { answer(0).ino, answer(0).gen };
	memcpy(first, a.body + sizeof(struct reint_answer), 32);
	check(file_is("push/file", "pushed"), "the content is there");
	check(!stat(in_mount("push/file"), &st) && (st.st_mode & 07777) == 0640 &&
	      st.st_uid == 1000 && st.st_gid == 1001 && st.st_mtim.tv_sec == 1600000000 &&
	      st.st_mtim.tv_nsec == 123456789, "mode, owner, mtime");
	check(!lstat(in_mount("push/sym"), &st) && S_ISLNK(st.st_mode) &&
	      !lstat(in_mount("push/fifo"), &st) && S_ISFIFO(st.st_mode), "types");
	next_recno -= 4;
	next_ino -= 4;
	dir = make(KML_MKDIR, "push", root, S_IFDIR | 0711);
	add(&dir);
	r = make(KML_CREATE, "file", own, S_IFREG | 0640);
	r.ref_own |= KML_REF_PARENT;
	set_data(&r, "pushed");
	add(&r);
	next_recno += 2;
	next_ino += 2;
	post();
	check(a.status == 200 && a.len == 64 && !memcmp(a.body + 32, first, 32),
	      "sent again, answered as before");
	return made;
}

static void contents(struct kml_oid dir)
{
	struct kml_range range = { htole64(2), htole64(3) };
	struct kml_record r;
	struct kml_oid oid;

	oid = oid_of("push/file");
	r = content(oid, "second");
	add(&r);
	post_expect("new content", 0);
	check(file_is("push/file", "second"), "... is there");
	oid = (struct kml_oid) { answer(0).ino, answer(0).gen };
	request("PUT", "incoming/patch?offset=2", "XYZ", 3, NULL);
	r = content(oid, "");
	r.data.ptr = NULL;
	r.file = str("patch");
	r.flags = 0;
	r.ranges = &range;
	r.n_ranges = 1;
	r.has_ranges = true;
	r.attr.size = 6;
	add(&r);
	post_expect("a patch", 0);
	check(file_is("push/file", "seXYZd"), "... is laid over the content");
	oid = (struct kml_oid) { answer(0).ino, answer(0).gen };
	request("PUT", "incoming/whole?offset=0", "uploaded", 8, NULL);
	r = content(oid, "");
	r.data.ptr = NULL;
	r.file = str("whole");
	r.attr.size = 8;
	add(&r);
	post_expect("an uploaded content", 0);
	check(file_is("push/file", "uploaded"), "... is there");
	request("HEAD", "incoming/whole", "", 0, NULL);
	check(a.status == 404, "the upload is used up");
	r = make(KML_CREATE, "lost", dir, S_IFREG | 0600);
	r.file = str("nothing");
	add(&r);
	post_expect("a file without its upload", ENOENT);
	r.recno = next_recno++;
	r.file = str("..kml_");
	add(&r);
	post_expect("an upload whose name is none", EUCLEAN);
	check(access(in_mount("push/lost"), F_OK), "nothing was made");
}

static void attributes(void)
{
	char xattr[128], value[8];
	struct kml_record r = record(KML_SETATTR, NULL, (struct kml_oid) { 0 });
	struct stat st;

	r.obj = oid_of("push/file");
	r.has_attr = true;
	r.attr = (struct kml_attrs) { .valid = KML_A_MODE, .mode = S_IFREG | 0604 };
	add(&r);
	post_expect("SETATTR", 0);
	check(!stat(in_mount("push/file"), &st) && (st.st_mode & 07777) == 0604, "... the mode");
	r = record(KML_SETXATTR, NULL, (struct kml_oid) { 0 });
	r.obj = oid_of("push/file");
	r.xattrs = xattr;
	r.xattrs_len = kml_xattr_put(xattr, sizeof(xattr), "user.k", 6, "val", 3);
	add(&r);
	post_expect("SETXATTR", 0);
	check(getxattr(in_mount("push/file"), "user.k", value, sizeof(value)) == 3,
	      "... the attribute");
	r.opcode = KML_REMOVEXATTR;
	r.recno = next_recno++;
	add(&r);
	post_expect("REMOVEXATTR", 0);
	check(getxattr(in_mount("push/file"), "user.k", value, sizeof(value)) < 0, "... is gone");
}

static struct kml_record two_names(unsigned int opcode, struct kml_oid oid, struct kml_oid dir,
				   const char *from, const char *to)
{
	struct kml_record r = record(opcode, from, dir);

	r.obj = oid;
	r.tparent = dir;
	r.tname = str(to);
	return r;
}

static void names(struct kml_oid dir)
{
	struct kml_oid file = oid_of("push/file");
	struct kml_record r;

	r = two_names(KML_LINK, file, dir, "file", "linked");
	add(&r);
	r = two_names(KML_RENAME, file, dir, "linked", "moved");
	add(&r);
	r = record(KML_UNLINK, "file", dir);
	r.obj = file;
	add(&r);
	post();
	check(a.status == 200 && !answer(0).status && !answer(1).status && !answer(2).status,
	      "LINK, RENAME and UNLINK of one file in one POST (%u %u %u)", answer(0).status,
	      answer(1).status, answer(2).status);
	check(file_is("push/moved", "uploaded") && access(in_mount("push/file"), F_OK),
	      "one name is left");
	r = make(KML_CREATE, "target", dir, S_IFREG | 0600);
	set_data(&r, "old");
	add(&r);
	post();
	catch_up();
	r = two_names(KML_RENAME, file, dir, "moved", "target");
	add(&r);
	post_expect("RENAME over what the client does not know of", ESTALE);
	r.recno = next_recno++;
	r.has_old = true;
	r.old = oid_of("push/target");
	r.old_attr.mode = S_IFREG | 0600;
	add(&r);
	post_expect("RENAME over what it knows", 0);
	check(file_is("push/target", "uploaded"), "... has replaced it");
	r = record(KML_RMDIR, "push", oid_of(""));
	r.obj = dir;
	add(&r);
	post_expect("RMDIR of a full directory", ESTALE);
}

/* The server's own changes that the client has not seen. */
static void stale(struct kml_oid dir)
{
	struct kml_oid oid;
	struct kml_record r;
	uint64_t seen_offset, seen_recno;

	put_file("push/shared", "server 1", 8);
	oid = oid_of("push/shared");
	seen_offset = position_offset;
	seen_recno = position_recno;
	put_file("push/shared", "server 2", 8);
	r = content(oid, "client");
	add(&r);
	post_expect("content over unseen content", ESTALE);
	check(file_is("push/shared", "server 2"), "... the server's stays");
	r = record(KML_UNLINK, "shared", dir);
	r.obj = oid;
	add(&r);
	post_expect("UNLINK of unseen content", ESTALE);
	r = record(KML_SETATTR, NULL, (struct kml_oid) { 0 });
	r.obj = oid;
	r.has_attr = true;
	r.attr = (struct kml_attrs) { .valid = KML_A_MODE, .mode = S_IFREG | 0600 };
	add(&r);
	post_expect("chmod meets no write", 0);
	r = make(KML_CREATE, "shared", dir, S_IFREG | 0600);
	add(&r);
	post_expect("CREATE of a name that is taken", ESTALE);
	catch_up();
	check(position_offset > seen_offset && position_recno > seen_recno, "the client takes it in");
	r = content(oid, "client");
	add(&r);
	post_expect("now it may", 0);
	check(file_is("push/shared", "client"), "... and it is there");
	r = content((struct kml_oid) { answer(0).ino, answer(0).gen }, "client again");
	add(&r);
	post_expect("its own change is no stranger's", 0);
}

static void writer(void)
{
	struct kml_record r;
	int fd;

	put_file("push/open", "1", 1);
	r = content(oid_of("push/open"), "client");
	fd = open(in_mount("push/open"), O_WRONLY | O_APPEND);
	check(fd >= 0 && write(fd, "2", 1) == 1, "a program on the server writes");
	add(&r);
	post_expect("content under a writer", EBUSY);
	close(fd);
	check(file_is("push/open", "12"), "... the writer's stays");
	catch_up();
}

static void bad_records(struct kml_oid dir)
{
	struct kml_oid own;
	struct kml_record r;
	char one = 0;

	r = make(KML_MKDIR, "x", (struct kml_oid) { 99999999, 9 }, S_IFDIR | 0700);
	own = r.obj;
	add(&r);
	r = make(KML_CREATE, "y", own, S_IFREG | 0600);
	r.ref_own |= KML_REF_PARENT;
	add(&r);
	r = make(KML_CREATE, "alone", dir, S_IFREG | 0600);
	add(&r);
	post();
	check(answer(0).status == EIDRM && answer(0).ino == 99999999 && answer(0).server_recno &&
	      answer(1).status == ECANCELED && !answer(2).status,
	      "what depends on a failure is cancelled, the rest is done");
	r = make(KML_CREATE, "typed", dir, S_IFDIR | 0600);
	add(&r);
	post_expect("CREATE of a directory", EUCLEAN);
	r = make(KML_SYMLINK, "textless", dir, S_IFLNK | 0777);
	add(&r);
	post_expect("a symlink to nothing", EUCLEAN);
	r = record(KML_CATALOG_END, NULL, dir);
	add(&r);
	post_expect("an operation that is none", EUCLEAN);
	r = make(KML_MKDIR, ".intermezzo", oid_of(""), S_IFDIR | 0700);
	add(&r);
	post();
	check(a.status == 200 && answer(0).status, "nobody makes .intermezzo");
	request("POST", "reint?base=0", "nonsense", 8, NULL);
	check_status(400, "a body that is no record");
	r = make(KML_MKDIR, "half", dir, S_IFDIR | 0700);
	add(&r);
	body[body_len / 2] ^= 1;
	post();
	check_status(400, "a damaged record");
	r = make(KML_MKDIR, "half", dir, S_IFDIR | 0700);
	add(&r);
	body_len -= 8;
	post();
	check_status(400, "half a record");
	check(access(in_mount("push/half"), F_OK), "nothing was done");
	request("POST", "reint", &one, 0, NULL);
	check_status(400, "without base");
	request("POST", "reint?base=0", body, BODY_MAX + 1, NULL);
	check_status(413, "a body of more than 4 MiB");
}

static void rename_into_itself(void)
{
	struct kml_oid outer = oid_of("push"), root = oid_of("");
	struct kml_record r = make(KML_MKDIR, "inner", outer, S_IFDIR | 0700);

	add(&r);
	post();
	r = record(KML_RENAME, "push", root);
	r.obj = outer;
	r.tparent = (struct kml_oid) { answer(0).ino, answer(0).gen };
	r.tname = str("push");
	catch_up();
	add(&r);
	post();
	check(a.status == 200 && answer(0).status, "a directory is not moved into itself (%u)",
	      answer(0).status);
}

static void many(struct kml_oid dir)
{
	unsigned int i, done = 0;
	char name[32];

	for (i = 0; i < 3000; i++) {
		struct kml_record r;

		snprintf(name, sizeof(name), "many-%u", i);
		r = make(KML_CREATE, name, dir, S_IFREG | 0600);
		set_data(&r, name);
		add(&r);
	}
	post();
	for (i = 0; i < 3000; i++)
		done += !answer(i).status;
	check(done == 3000, "%u of 3000 files in one POST", done);
	check(file_is("push/many-0", "many-0") && file_is("push/many-2999", "many-2999"),
	      "... are there");
}

static void moved_directory(struct kml_oid dir)
{
	struct kml_oid root = oid_of("");
	struct kml_record r = two_names(KML_RENAME, dir, root, "push", "pulled");

	add(&r);
	r = make(KML_CREATE, "in-moved", dir, S_IFREG | 0600);
	set_data(&r, "here");
	add(&r);
	post();
	check(!answer(0).status && !answer(1).status && file_is("pulled/in-moved", "here"),
	      "a file is made in a directory that was just moved");
}

void test_reint(void)
{
	struct kml_oid dir;

	catch_up();
	dir = tree();
	contents(dir);
	attributes();
	names(dir);
	stale(dir);
	writer();
	bad_records(dir);
	rename_into_itself();
	many(dir);
	moved_directory(dir);
}
