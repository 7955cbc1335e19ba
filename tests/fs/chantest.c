// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * chantest DIR [NAME...]: a client of the channel that tries everything
 * doc/channel.md promises.  DIR lies in the mounted fileset whose root is
 * $IZO_ROOT, and nobody else has the channel.  With CHAN_LOG=1 all that is
 * reintegrated is logged as on a server, with 0 it is not, as on a client.
 * "punch" gives back the log's front, so it comes after everything that wants
 * to replay the whole log.
 */
#include "t.h"

#include <dirent.h>
#include <endian.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include "chan.h"
#include "klog.h"
#include "last_rcvd.h"
#include "record.h"
#include "util.h"

static int chan, lower = -1;
static bool logged;
static struct izo_info info;
static char fset[64], here[PATH_MAX];	/* here: the test's directory, from the root */
static const uint8_t peer[16] = "a peer of tests";
static uint64_t origin_recno = 1000;

static char msg[IZO_MSG_MAX];
static size_t msg_len;
static struct {
	struct izo_pos pos;
	struct izo_reint_result r[4096];
} reply;

static int kml_fd(void)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), ".intermezzo/%s/kml", fset);
	return Z(openat(lower, path, O_RDONLY | O_CLOEXEC));
}

static struct izo_pos call_sync(unsigned int flags)
{
	struct izo_pos p;

	EQ(chan_call(chan, IZO_MSG_SYNC, flags, NULL, 0, &p, sizeof(p), NULL), sizeof(p));
	return p;
}

/* A path below the test's directory, from the root of the lower file system. */
static const char *below(const char *name)
{
	static char path[2 * PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", here + 1, name);
	return path;
}

static void setup(void)
{
	char root[PATH_MAX], cwd[PATH_MAX];

	OK(realpath(getenv("IZO_ROOT"), root) && getcwd(cwd, sizeof(cwd)));
	snprintf(here, sizeof(here), "%s", cwd + strlen(root));
}

/* building a batch */
static void batch(void)
{
	struct izo_reint *h = (void *)msg;

	if (!*here)
		setup();
	memset(h, 0, sizeof(*h));
	h->flags = htole32(logged ? IZO_REINT_F_LOG : 0);
	memcpy(h->peer, peer, 16);
	msg_len = sizeof(*h);
}

static void add(struct kml_record *r, const struct izo_guard *g,
		const struct izo_guard *tg, unsigned int flags)
{
	struct izo_reint *h = (void *)msg;
	struct izo_reint_entry *e = (void *)(msg + msg_len);
	ssize_t n;

	if (!r->dir.ptr)
		r->dir = (struct kml_str){ here, strlen(here) };
	r->recno = 1;
	r->has_origin = true;
	memcpy(r->origin_replica, peer, 16);
	r->origin_recno = ++origin_recno;
	r->origin_obj = (struct kml_oid){ 4711, 1 };
	memset(e, 0, sizeof(*e));
	if (g)
		e->guard = *g;
	if (tg)
		e->tguard = *tg;
	n = kml_encode(e + 1, sizeof(msg) - msg_len - sizeof(*e), r);
	if (n < 0)
		FAIL("encode: %s", strerror(-n));
	kml_seal(e + 1, 1, 0);
	e->len = htole32(sizeof(*e) + n);
	e->flags = htole32(flags);
	msg_len += sizeof(*e) + n;
	h->count = htole32(le32toh(h->count) + 1);
}

static int send_batch(void)
{
	ssize_t n = chan_call(chan, IZO_MSG_REINT, 0, msg, msg_len, &reply,
			      sizeof(reply), NULL);
	unsigned int count = le32toh(((struct izo_reint *)msg)->count);

	if (n < 0)
		return n;
	EQ(n, sizeof(reply.pos) + count * sizeof(reply.r[0]));
	return 0;
}

static int one(struct kml_record *r, const struct izo_guard *g,
	       const struct izo_guard *tg, unsigned int flags)
{
	batch();
	add(r, g, tg, flags);
	EQ(send_batch(), 0);
	return le32toh(reply.r[0].error);
}

/*
 * What the library would not encode: r with a placeholder, which is then
 * replaced by bytes of the same length.
 */
static int one_forged(struct kml_record *r, const char *placeholder, const char *bytes)
{
	struct izo_reint_entry *e = (void *)(msg + sizeof(struct izo_reint));
	static const struct izo_guard nothing = { .flags = IZO_G_ABSENT };
	char *at;

	EQ(strlen(placeholder), strlen(bytes));
	batch();
	add(r, &nothing, NULL, 0);
	at = memmem(msg, msg_len, placeholder, strlen(placeholder));
	OK(at);
	memcpy(at, bytes, strlen(bytes));
	kml_seal(e + 1, 1, 0);
	if (send_batch())
		return EINVAL;
	return le32toh(reply.r[0].error);
}

static const struct izo_guard absent = { .flags = 1 /* IZO_G_ABSENT */ };

static struct izo_guard guard(const char *name, unsigned int flags)
{
	struct stat st;
	uint32_t gen;

	if (!*here)
		setup();
	Z(fstatat(lower, below(name), &st, AT_SYMLINK_NOFOLLOW));
	EQ(inode_generation(lower, below(name), &gen), 0);
	return (struct izo_guard){
		.ino = htole64(st.st_ino), .gen = htole32(gen),
		.flags = htole32(flags), .ctime_sec = htole64(st.st_ctim.tv_sec),
		.ctime_nsec = htole32(st.st_ctim.tv_nsec)
	};
}

#define INO	IZO_G_INO
#define CTIME	(IZO_G_INO | IZO_G_CTIME)
#define QUIET	(IZO_G_INO | IZO_G_CTIME | IZO_G_NOWRITER)

/*
 * With QUIET, on a file that was written a moment ago: its last close may
 * still be on its way to the file system, which is no fault.
 */
static int one_quiet(struct kml_record *r, const char *name, unsigned int flags)
{
	struct izo_guard g;
	int e = ESTALE;

	for (int i = 0; i < 5000 && e == ESTALE; i++) {
		if (i)
			usleep(20000);
		g = guard(name, QUIET);
		e = one(r, &g, NULL, flags);
	}
	return e;
}

static struct kml_str str(const char *s)
{
	return (struct kml_str){ s, strlen(s) };
}

static struct kml_record record(unsigned int op, const char *name)
{
	struct kml_record r = { .opcode = op, .time = { 1600000000, 1 },
				.fsuid = 3, .fsgid = 4, .pid = 5 };

	r.name = str(name);
	r.has_attr = true;
	r.attr.mode = S_IFREG | 0640;
	r.attr.uid = 11;
	r.attr.gid = 12;
	r.attr.mtime = (struct kml_time){ 1500000000, 123456789 };
	r.has_ptime = true;
	r.ptime = r.tptime = (struct kml_time){ 1500000001, 987654321 };
	return r;
}

static void is_made(const char *name, const struct kml_record *r)
{
	struct stat st = t_stat(name), dir = t_stat(".");

	EQ(st.st_mode, r->attr.mode);
	EQ(st.st_uid, r->attr.uid);
	EQ(st.st_gid, r->attr.gid);
	EQ(st.st_mtim.tv_sec, r->attr.mtime.sec);
	EQ(st.st_mtim.tv_nsec, r->attr.mtime.nsec);
	EQ(st.st_ino, le64toh(reply.r[0].ino));
	EQ(st.st_ctim.tv_sec, le64toh(reply.r[0].ctime_sec));
	EQ(st.st_ctim.tv_nsec, le32toh(reply.r[0].ctime_nsec));
	EQ(dir.st_mtim.tv_sec, r->ptime.sec);
	EQ(dir.st_mtim.tv_nsec, r->ptime.nsec);
}

/* the log's end before an operation, and what it is afterwards */
static struct izo_pos mark;

static void log_mark(void)
{
	mark = call_sync(0);
}

static void t_logged(unsigned int op, int line)
{
	struct izo_pos end = call_sync(0);
	struct kml_record r;
	struct klog *log;
	uint64_t next;

	if (!logged) {
		if (end.recno != mark.recno)
			t_fail(__FILE__, line, "%lld records were logged",
			       (long long)(le64toh(end.recno) - le64toh(mark.recno)));
		return;
	}
	if (le64toh(end.recno) != le64toh(mark.recno) + 1)
		t_fail(__FILE__, line, "%lld records, expected one",
		       (long long)(le64toh(end.recno) - le64toh(mark.recno)));
	OK(!klog_open_fd(kml_fd(), &log));
	EQ(klog_read(log, le64toh(mark.offset), &r, &next), 1);
	EQ(next, le64toh(end.offset));
	EQ(r.opcode, op);
	OK(r.has_origin);
	OK(!memcmp(r.origin_replica, peer, 16));
	EQ(r.origin_recno, origin_recno);
	EQ(r.origin_obj.ino, 4711);
	EQ(r.recno, le64toh(reply.r[0].recno));
	klog_close(log);
}

#define LOGGED(op) t_logged(op, __LINE__)

/* a finished file in incoming/ */
static void incoming(const char *name, const void *data, size_t len, off_t at)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), ".intermezzo/%s/incoming/%s", fset, name);
	fd = Z(openat(lower, path, O_CREAT | O_TRUNC | O_WRONLY, 0600));
	EQ(pwrite(fd, data, len, at), len);
	Z(close(fd));
}

static bool in_incoming(const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), ".intermezzo/%s/incoming/%s", fset, name);
	return faccessat(lower, path, F_OK, 0) == 0;
}

TEST(chan_info)
{
	char root[64];
	ssize_t n = getxattr(getenv("IZO_ROOT"), IZO_XATTR_FILESET, root, sizeof(root));
	struct izo_pos p = call_sync(0);

	EQ(le32toh(info.version), IZO_CHANNEL_VERSION);
	EQ(strlen((char *)info.fileset), n);
	OK(!memcmp(info.fileset, root, n));
	EQ(le64toh(info.root_ino), t_stat(getenv("IZO_ROOT")).st_ino);
	OK(info.cache_type[0]);
	OK(le64toh(info.first_offset) >= KML_HEADER_SIZE);
	OK(le64toh(p.offset) >= le64toh(info.end_offset));
	OK(memcmp(info.replica_uuid, info.fileset_uuid, 16));
	call_sync(IZO_MSG_F_DURABLE);
}

TEST(chan_one_daemon)
{
	int second = chan_open(getenv("IZO_ROOT"));

	EQ(second, -EBUSY);
}

TEST(chan_grown)
{
	struct pollfd p = { chan, POLLIN, 0 };
	static char buf[IZO_MSG_MAX];
	struct izo_msg *m = (void *)buf;
	struct izo_pos pos = call_sync(0), *got = (void *)(m + 1);
	int fd;

	EQ(chan_send(chan, IZO_MSG_GROWN, 0, 501, &pos, sizeof(pos)), 0);
	EQ(poll(&p, 1, 300), 0);
	Z(mkdir("d", 0755));
	EQ(poll(&p, 1, -1), 1);
	OK(chan_recv(chan, buf, sizeof(buf), &fd) > 0);
	EQ(le16toh(m->type), IZO_MSG_GROWN);
	EQ(le64toh(m->id), 501);
	EQ(m->error, 0);
	OK(le64toh(got->offset) > le64toh(pos.offset));
	/* a position in the past is answered at once */
	EQ(chan_send(chan, IZO_MSG_GROWN, 0, 502, &pos, sizeof(pos)), 0);
	EQ(poll(&p, 1, -1), 1);
	OK(chan_recv(chan, buf, sizeof(buf), &fd) > 0);
	EQ(le64toh(m->id), 502);
	/* another one replaces it */
	pos = call_sync(0);
	EQ(chan_send(chan, IZO_MSG_GROWN, 0, 503, &pos, sizeof(pos)), 0);
	EQ(chan_send(chan, IZO_MSG_GROWN, 0, 504, &pos, sizeof(pos)), 0);
	EQ(poll(&p, 1, -1), 1);
	OK(chan_recv(chan, buf, sizeof(buf), &fd) > 0);
	EQ(le64toh(m->id), 503);
	EQ(le32toh(m->error), ECANCELED);
	Z(rmdir("d"));
	EQ(poll(&p, 1, -1), 1);
	OK(chan_recv(chan, buf, sizeof(buf), &fd) > 0);
	EQ(le64toh(m->id), 504);
}

TEST(chan_unknown_and_malformed)
{
	struct izo_pos before = call_sync(0), after;
	struct izo_reint *h = (void *)msg;
	struct izo_reint_entry *e = (void *)(h + 1);
	struct kml_record r = record(KML_MKDIR, "d");

	EQ(chan_call(chan, 999, 0, NULL, 0, &reply, sizeof(reply), NULL), -EOPNOTSUPP);
	EQ(chan_call(chan, IZO_MSG_GROWN, 0, "x", 1, &reply, sizeof(reply), NULL), -EINVAL);
	EQ(chan_call(chan, IZO_MSG_PUNCH, 0, "abc", 3, &reply, sizeof(reply), NULL), -EINVAL);
	EQ(chan_call(chan, IZO_MSG_REINT, 0, "abc", 3, &reply, sizeof(reply), NULL), -EINVAL);
	r.attr.mode = S_IFDIR | 0755;
	batch();
	add(&r, &absent, NULL, 0);
	h->count = htole32(2);		/* says more than there is */
	EQ(send_batch(), -EINVAL);
	h->count = htole32(1);
	msg_len -= 8;			/* cut short */
	EQ(send_batch(), -EINVAL);
	msg_len += 8;
	e->len = htole32(le32toh(e->len) - 4);
	EQ(send_batch(), -EINVAL);
	e->len = htole32(0);
	EQ(send_batch(), -EINVAL);
	e->len = htole32(0xfffffff8);
	EQ(send_batch(), -EINVAL);
	batch();
	add(&r, &absent, NULL, 0);
	msg[msg_len - 20] ^= 1;		/* checksum */
	OK(send_batch() == -EINVAL || reply.r[0].error);
	OK(!t_exists("d"));
	after = call_sync(0);
	EQ(after.recno, before.recno);
	EQ(one(&r, &absent, NULL, 0), 0);	/* and it still works */
	OK(t_exists("d"));
}

TEST(chan_bad_names)
{
	struct kml_record r = record(KML_MKDIR, "x");
	char root[] = "/", climb[PATH_MAX + 20];

	r.attr.mode = S_IFDIR | 0755;
	r.dir = str(root);
	r.name = str(".intermezzo");
	OK(one(&r, NULL, NULL, 0) != 0);
	r.name = str("lost+found");
	OK(one(&r, &absent, NULL, 0) != 0);
	if (!*here)
		setup();
	r.name = str("x");
	snprintf(climb, sizeof(climb), "%s/aa/bb", here);
	r.dir = str(climb);
	OK(one_forged(&r, "/aa/bb", "/../..") != 0);
	r.dir = str(here);
	r.name = str("abc");
	OK(one_forged(&r, "abc", "a/b") != 0);
	OK(one_forged(&r, "abc", "../") != 0);
	r.name = str("xy");
	OK(one_forged(&r, "xy", "..") != 0);
	EQ(t_entries("."), 0);
	r.name = str("x");
	Z(mkdir("real", 0755));
	Z(symlink("real", "link"));
	snprintf(climb, sizeof(climb), "%s/link", here);
	r.dir = str(climb);
	OK(one(&r, &absent, NULL, 0) != 0);	/* symlinks are not followed */
	EQ(t_entries("real"), 0);
	snprintf(climb, sizeof(climb), "%s/none", here);
	r.dir = str(climb);
	OK(one(&r, &absent, NULL, 0) != 0);
	snprintf(climb, sizeof(climb), "%s/real", here);
	r.dir = str(climb);
	r.parent.ino = 1;	/* another directory than expected */
	OK(one(&r, &absent, NULL, 0) != 0);
	r.dir = str("/.intermezzo");
	r.parent.ino = 0;
	OK(one(&r, &absent, NULL, 0) != 0);
	EQ(t_entries("real"), 0);
}

TEST(reint_create)
{
	struct kml_record r = record(KML_CREATE, "f");
	char xattrs[256], value[16];
	ssize_t n;

	r.data = str("content");
	r.attr.size = 7;
	r.attr.mode = S_IFREG | 04751;
	n = kml_xattr_put(xattrs, sizeof(xattrs), "user.a", 6, "va", 2);
	OK(n > 0);
	n += kml_xattr_put(xattrs + n, sizeof(xattrs) - n, "trusted.b", 9, "vb!", 3);
	r.xattrs = xattrs;
	r.xattrs_len = n;
	log_mark();
	EQ(one(&r, &absent, NULL, 0), 0);
	is_made("f", &r);
	t_text("f", "content");
	EQ(getxattr("f", "user.a", value, 16), 2);
	EQ(getxattr("f", "trusted.b", value, 16), 3);
	LOGGED(KML_CREATE);
}

TEST(reint_create_empty_and_file)
{
	struct kml_record r = record(KML_CREATE, "empty"), s = record(KML_CREATE, "big");
	static char buf[300000];

	log_mark();
	EQ(one(&r, &absent, NULL, 0), 0);
	is_made("empty", &r);
	EQ(t_stat("empty").st_size, 0);
	LOGGED(KML_CREATE);
	t_fill(buf, sizeof(buf), 3);
	incoming("up1", buf, sizeof(buf), 0);
	s.file = str("up1");
	s.attr.size = sizeof(buf);
	log_mark();
	EQ(one(&s, &absent, NULL, 0), 0);
	is_made("big", &s);
	t_expect("big", buf, sizeof(buf));
	OK(!in_incoming("up1"));
	LOGGED(KML_CREATE);
	s = record(KML_CREATE, "none");
	s.file = str("does-not-exist");
	OK(one(&s, &absent, NULL, 0) != 0);
	OK(!t_exists("none"));
	s.file = str("ab_kml");
	OK(one_forged(&s, "ab_kml", "../kml") != 0);
}

TEST(reint_file_keeps_holes)
{
	struct kml_record r = record(KML_CREATE, "sparse");
	int fd;

	incoming("up2", "end", 3, 1 << 20);
	r.file = str("up2");
	r.attr.size = (1 << 20) + 3;
	EQ(one(&r, &absent, NULL, 0), 0);
	fd = Z(open("sparse", O_RDONLY));
	EQ(lseek(fd, 0, SEEK_DATA) & ~4095, 1 << 20);
	EQ(t_stat("sparse").st_size, (1 << 20) + 3);
}

TEST(reint_mkdir_symlink_mknod)
{
	struct kml_record d = record(KML_MKDIR, "d"), l = record(KML_SYMLINK, "l");
	struct kml_record n = record(KML_MKNOD, "n"), p = record(KML_MKNOD, "p");
	char text[16];

	d.attr.mode = S_IFDIR | 02770;
	log_mark();
	EQ(one(&d, &absent, NULL, 0), 0);
	is_made("d", &d);
	LOGGED(KML_MKDIR);
	l.attr.mode = S_IFLNK | 0777;
	l.link = str("to there");
	l.attr.size = 8;
	log_mark();
	EQ(one(&l, &absent, NULL, 0), 0);
	is_made("l", &l);
	EQ(readlink("l", text, 16), 8);
	LOGGED(KML_SYMLINK);
	n.attr.mode = S_IFBLK | 0600;
	n.attr.rdev_major = 300;
	n.attr.rdev_minor = 70000;
	log_mark();
	EQ(one(&n, &absent, NULL, 0), 0);
	is_made("n", &n);
	LOGGED(KML_MKNOD);
	p.attr.mode = S_IFIFO | 0622;
	EQ(one(&p, &absent, NULL, 0), 0);
	is_made("p", &p);
}

TEST(reint_close_replaces)
{
	struct kml_record r = record(KML_CLOSE, "f");
	char buf[16], value[16];
	struct stat old;
	int fd;

	t_write("f", "old text");
	Z(chmod("f", 0604));
	Z(chown("f", 21, 22));
	Z(setxattr("f", "user.keep", "k", 1, 0));
	old = t_stat("f");
	fd = Z(open("f", O_RDONLY));
	r.data = str("new");
	r.attr.size = 3;
	r.attr.valid = KML_A_SIZE | KML_A_MTIME;
	r.has_ptime = false;
	t_backdate(".");
	log_mark();
	EQ(one_quiet(&r, "f", 0), 0);
	t_text("f", "new");
	EQ(t_stat("f").st_mode & 07777, 0604);
	EQ(t_stat("f").st_uid, 21);
	EQ(t_stat("f").st_mtim.tv_nsec, 123456789);
	EQ(t_stat("f").st_ino, le64toh(reply.r[0].ino));
	EQ(t_stat(".").st_mtim.tv_sec, 1000000000);	/* no name changed */
	EQ(getxattr("f", "user.keep", value, 16), 1);
	EQ(pread(fd, buf, 16, 0), 8);	/* who had it open keeps the old one */
	OK(!memcmp(buf, "old text", 8));
	LOGGED(KML_CLOSE);
	OK(old.st_nlink == 1);
}

TEST(reint_close_with_attributes)
{
	struct kml_record r = record(KML_CLOSE, "f");

	t_write("f", "old text");
	r.data = str("newer");
	r.attr.size = 5;
	r.attr.mode = S_IFREG | 0711;
	r.attr.valid = KML_A_SIZE | KML_A_MTIME | KML_A_MODE | KML_A_UID | KML_A_GID;
	r.has_ptime = false;
	EQ(one_quiet(&r, "f", 0), 0);
	EQ(t_stat("f").st_mode & 07777, 0711);
	EQ(t_stat("f").st_uid, 11);
	EQ(t_stat("f").st_gid, 12);
}

TEST(reint_close_hard_linked)
{
	struct kml_record r = record(KML_CLOSE, "a");
	static char buf[100000];
	ino_t ino;

	t_write("a", "old");
	Z(link("a", "b"));
	ino = t_stat("a").st_ino;
	r.data = str("new content");
	r.attr.size = 11;
	r.attr.valid = KML_A_SIZE | KML_A_MTIME;
	r.has_ptime = false;
	log_mark();
	EQ(one_quiet(&r, "a", 0), 0);
	t_text("a", "new content");
	t_text("b", "new content");
	EQ(t_stat("a").st_ino, t_stat("b").st_ino);
	EQ(t_stat("b").st_ino, ino);
	EQ(t_stat("b").st_nlink, 2);
	EQ(le64toh(reply.r[0].ino), ino);
	LOGGED(KML_CLOSE);
	t_fill(buf, sizeof(buf), 4);
	incoming("up3", buf, sizeof(buf), 0);
	r = record(KML_CLOSE, "b");
	r.file = str("up3");
	r.attr.size = sizeof(buf);
	r.attr.valid = KML_A_SIZE | KML_A_MTIME;
	r.has_ptime = false;
	EQ(one_quiet(&r, "b", 0), 0);
	t_expect("a", buf, sizeof(buf));
	EQ(t_stat("a").st_nlink, 2);
	OK(!in_incoming("up3"));
}

static int patch(const char *name, const char *text, uint64_t off, uint64_t size)
{
	struct kml_range range = { htole64(off), htole64(strlen(text)) };
	struct kml_record r = record(KML_CLOSE, name);

	incoming("patch", text, strlen(text), off);
	r.file = str("patch");
	r.attr.size = size;
	r.attr.valid = KML_A_SIZE | KML_A_MTIME;
	r.has_ranges = true;
	r.ranges = &range;
	r.n_ranges = 1;
	r.has_ptime = false;
	return one_quiet(&r, name, IZO_RE_PATCH);
}

TEST(reint_patch)
{
	static char buf[200000];
	char got[4];
	int fd = Z(open("f", O_CREAT | O_WRONLY, 0644));

	t_fill(buf, sizeof(buf), 9);
	EQ(write(fd, buf, sizeof(buf)), sizeof(buf));
	Z(close(fd));
	log_mark();
	EQ(patch("f", "PATCHED", 100001, sizeof(buf)), 0);
	memcpy(buf + 100001, "PATCHED", 7);
	t_expect("f", buf, sizeof(buf));
	LOGGED(KML_CLOSE);
	EQ(t_stat("f").st_mtim.tv_sec, 1500000000);
	EQ(t_stat("f").st_ino, le64toh(reply.r[0].ino));
	/* shorter, and longer with a hole */
	EQ(patch("f", "x", 5, 50000), 0);
	buf[5] = 'x';
	t_expect("f", buf, 50000);
	memset(buf + 50000, 0, 50000);
	EQ(patch("f", "END", 100000 - 3, 100000), 0);
	memcpy(buf + 100000 - 3, "END", 3);
	t_expect("f", buf, 100000);
	/* a reader has it open: he keeps what he has, or sees it whole */
	fd = Z(open("f", O_RDONLY));
	EQ(pread(fd, got, 4, 0), 4);
	EQ(patch("f", "####", 0, 100000), 0);
	memcpy(buf, "####", 4);
	t_expect("f", buf, 100000);
	EQ(t_stat("f").st_ino, le64toh(reply.r[0].ino));
	/* two names: both see it, and it stays one object */
	Z(link("f", "g"));
	EQ(patch("g", "two names", 10, 100000), 0);
	memcpy(buf + 10, "two names", 9);
	t_expect("f", buf, 100000);
	EQ(t_stat("f").st_nlink, 2);
	OK(!in_incoming("patch"));
}

TEST(reint_unlink_rmdir)
{
	struct kml_record u = record(KML_UNLINK, "f"), d = record(KML_RMDIR, "d");
	struct izo_guard g;

	t_write("f", "x");
	Z(mkdir("d", 0755));
	u.has_attr = d.has_attr = false;
	g = guard("f", CTIME);
	log_mark();
	EQ(one(&u, &g, NULL, 0), 0);
	OK(!t_exists("f"));
	EQ(le64toh(reply.r[0].ino), 0);
	EQ(t_stat(".").st_mtim.tv_sec, 1500000001);
	EQ(t_stat(".").st_mtim.tv_nsec, 987654321);
	LOGGED(KML_UNLINK);
	g = guard("d", CTIME);
	log_mark();
	EQ(one(&d, &g, NULL, 0), 0);
	OK(!t_exists("d"));
	LOGGED(KML_RMDIR);
	Z(mkdir("d", 0755));
	t_write("d/in", "x");
	g = guard("d", INO);
	EQ(one(&d, &g, NULL, 0), ENOTEMPTY);
	t_text("d/in", "x");
}

TEST(reint_unlink_open_file)
{
	struct kml_record u = record(KML_UNLINK, "f");
	char buf[8];
	int fd;

	t_write("f", "content");
	fd = Z(open("f", O_RDONLY));
	EQ(one_quiet(&u, "f", 0), 0);
	EQ(pread(fd, buf, 7, 0), 7);
	OK(!memcmp(buf, "content", 7));
}

static int rename_to(const char *name, const char *tdir, const char *tname,
		     const struct izo_guard *g, const struct izo_guard *tg, int flags)
{
	struct kml_record r = record(KML_RENAME, name);
	char path[2 * PATH_MAX];

	if (!*here)
		setup();
	snprintf(path, sizeof(path), "%s%s%s", here, *tdir ? "/" : "", tdir);
	r.tdir = str(path);
	r.tname = str(tname);
	r.flags = flags;
	r.has_attr = false;
	r.tptime.sec++;
	return one(&r, g, tg, 0);
}

TEST(reint_rename)
{
	struct izo_guard g, tg;
	ino_t a, b;

	t_write("a", "A");
	Z(mkdir("d", 0755));
	a = t_stat("a").st_ino;
	g = guard("a", INO);
	log_mark();
	EQ(rename_to("a", "d", "b", &g, &absent, 0), 0);
	EQ(t_stat("d/b").st_ino, a);
	OK(!t_exists("a"));
	EQ(t_stat(".").st_mtim.tv_sec, 1500000001);
	EQ(t_stat("d").st_mtim.tv_sec, 1500000002);
	LOGGED(KML_RENAME);
	t_write("c", "C");
	b = t_stat("c").st_ino;
	g = guard("c", INO);
	tg = guard("d/b", CTIME);
	log_mark();
	EQ(rename_to("c", "d", "b", &g, &tg, 0), 0);	/* replaces */
	EQ(t_stat("d/b").st_ino, b);
	t_text("d/b", "C");
	LOGGED(KML_RENAME);
	t_write("x", "X");
	g = guard("x", INO);
	tg = guard("d", INO);
	log_mark();
	EQ(rename_to("x", "", "d", &g, &tg, KML_F_EXCHANGE), 0);
	t_text("d", "X");
	t_text("x/b", "C");
	LOGGED(KML_RENAME);
}

TEST(reint_link)
{
	struct kml_record r = record(KML_LINK, "a");
	struct izo_guard g;

	t_write("a", "A");
	g = guard("a", INO);
	setup();
	r.tdir = str(here);
	r.tname = str("b");
	r.has_attr = false;
	log_mark();
	EQ(one(&r, &g, &absent, 0), 0);
	EQ(t_stat("a").st_ino, t_stat("b").st_ino);
	EQ(t_stat("a").st_nlink, 2);
	EQ(t_stat(".").st_mtim.tv_sec, 1500000001);
	LOGGED(KML_LINK);
}

TEST(reint_setattr)
{
	struct kml_record r = record(KML_SETATTR, "f");
	struct izo_guard g;

	t_write("f", "text");
	g = guard("f", INO);
	r.attr.mode = S_IFREG | 06711;
	r.attr.valid = KML_A_MODE | KML_A_UID | KML_A_GID | KML_A_MTIME;
	r.has_ptime = false;
	log_mark();
	EQ(one(&r, &g, NULL, 0), 0);
	EQ(t_stat("f").st_mode & 07777, 06711);
	EQ(t_stat("f").st_uid, 11);
	EQ(t_stat("f").st_gid, 12);
	EQ(t_stat("f").st_mtim.tv_nsec, 123456789);
	t_text("f", "text");
	LOGGED(KML_SETATTR);
	g = guard("f", INO);
	r.attr.valid = KML_A_MTIME;
	r.attr.mode = S_IFREG;
	r.attr.uid = 99;
	r.attr.mtime.nsec = 5;
	EQ(one(&r, &g, NULL, 0), 0);
	EQ(t_stat("f").st_mode & 07777, 06711);
	EQ(t_stat("f").st_uid, 11);
	EQ(t_stat("f").st_mtim.tv_nsec, 5);
}

TEST(reint_setattr_of_directory_and_symlink)
{
	struct kml_record r = record(KML_SETATTR, "d");
	struct izo_guard g;

	Z(mkdir("d", 0755));
	Z(symlink("d", "l"));
	r.attr.mode = S_IFDIR | 0500;
	r.attr.valid = KML_A_MODE | KML_A_MTIME;
	r.has_ptime = false;
	g = guard("d", INO);
	EQ(one(&r, &g, NULL, 0), 0);
	EQ(t_stat("d").st_mode & 07777, 0500);
	EQ(t_stat("d").st_mtim.tv_nsec, 123456789);
	r.name = str("l");
	r.attr.mode = S_IFLNK | 0777;
	r.attr.valid = KML_A_UID | KML_A_MTIME;
	g = guard("l", INO);
	EQ(one(&r, &g, NULL, 0), 0);
	EQ(t_stat("l").st_uid, 11);
	EQ(t_stat("l").st_mtim.tv_nsec, 123456789);
	EQ(t_stat("d").st_uid, 0);
}

TEST(reint_xattr)
{
	struct kml_record r = record(KML_SETXATTR, "f");
	char xattrs[128], value[16];
	struct izo_guard g;

	t_write("f", "text");
	t_backdate("f");
	r.has_attr = r.has_ptime = false;
	r.xattrs = xattrs;
	r.xattrs_len = kml_xattr_put(xattrs, sizeof(xattrs), "user.k", 6, "val", 3);
	g = guard("f", INO);
	log_mark();
	EQ(one(&r, &g, NULL, 0), 0);
	EQ(getxattr("f", "user.k", value, 16), 3);
	LOGGED(KML_SETXATTR);
	r.opcode = KML_REMOVEXATTR;
	r.xattrs_len = kml_xattr_put(xattrs, sizeof(xattrs), "user.k", 6, "", 0);
	g = guard("f", INO);
	log_mark();
	EQ(one(&r, &g, NULL, 0), 0);
	E(ENODATA, getxattr("f", "user.k", value, 16));
	EQ(t_stat("f").st_mtim.tv_sec, 1000000000);
	LOGGED(KML_REMOVEXATTR);
}

/* What must not have changed when a guard did not hold. */
struct snapshot {
	struct stat dir, f, d;
	char text[16];
	struct izo_pos pos;
};

static void snapshot(struct snapshot *s)
{
	int fd = Z(open("f", O_RDONLY));

	memset(s, 0, sizeof(*s));
	s->pos = call_sync(0);
	s->dir = t_stat(".");
	s->f = t_stat("f");
	s->d = t_stat("d");
	EQ(read(fd, s->text, 16) >= 0, 1);
	Z(close(fd));
	s->f.st_atim = s->dir.st_atim = s->d.st_atim = (struct timespec){ 0, 0 };
}

static void t_stale(struct kml_record *r, const struct izo_guard *g,
		    const struct izo_guard *tg, unsigned int flags, int line)
{
	struct snapshot before, after;
	int e;

	snapshot(&before);
	e = one(r, g, tg, flags);
	if (e != ESTALE)
		t_fail(__FILE__, line, "%s: %s, expected ESTALE",
		       kml_opcode_name(r->opcode), e ? strerror(e) : "succeeded");
	snapshot(&after);
	if (memcmp(&before, &after, sizeof(before)))
		t_fail(__FILE__, line, "%s: something changed", kml_opcode_name(r->opcode));
}

#define STALE(r, g, tg) t_stale(r, g, tg, 0, __LINE__)

static void stale_by_each_guard(struct kml_record *r, const char *name)
{
	struct izo_guard good = guard(name, CTIME), g;

	STALE(r, &absent, NULL);
	EQ(le64toh(reply.r[0].ino), t_stat(name).st_ino);	/* what is there */
	EQ(le64toh(reply.r[0].ctime_sec), t_stat(name).st_ctim.tv_sec);
	EQ(le32toh(reply.r[0].ctime_nsec), t_stat(name).st_ctim.tv_nsec);
	g = good;
	g.ino ^= htole64(1);
	STALE(r, &g, NULL);
	g = good;
	g.gen ^= htole32(1);
	STALE(r, &g, NULL);
	g = good;
	g.ctime_nsec ^= htole32(1);
	STALE(r, &g, NULL);
	g = good;
	g.ctime_sec = htole64(le64toh(g.ctime_sec) - 1);
	STALE(r, &g, NULL);
}

TEST(stale_everything)
{
	struct kml_record r;
	struct izo_guard g;
	char xattrs[64];

	t_write("f", "content");
	Z(mkdir("d", 0755));
	setup();
	for (const int *op = (const int []){ KML_CLOSE, KML_UNLINK, KML_SETATTR,
	     KML_SETXATTR, KML_REMOVEXATTR, KML_RENAME, KML_LINK, 0 }; *op; op++) {
		r = record(*op, "f");
		r.attr.valid = KML_A_MODE;
		if (*op == KML_CLOSE) {
			r.data = str("bad");
			r.attr.size = 3;
			r.attr.valid = KML_A_SIZE | KML_A_MTIME;
		}
		if (*op == KML_SETXATTR || *op == KML_REMOVEXATTR) {
			r.has_attr = false;
			r.xattrs = xattrs;
			r.xattrs_len = kml_xattr_put(xattrs, sizeof(xattrs),
						     "user.k", 6, "v", 1);
		}
		if (*op == KML_RENAME || *op == KML_LINK) {
			r.tdir = str(here);
			r.tname = str("new");
		}
		stale_by_each_guard(&r, "f");
		g = guard("f", INO);
		r.name = str("none");	/* absent, but expected */
		STALE(&r, &g, NULL);
		EQ(le64toh(reply.r[0].ino), 0);
	}
	r = record(KML_RMDIR, "d");
	stale_by_each_guard(&r, "d");
	for (const int *op = (const int []){ KML_CREATE, KML_MKDIR, KML_SYMLINK,
	     KML_MKNOD, 0 }; *op; op++) {
		r = record(*op, "f");
		r.link = str("x");
		r.attr.mode = (*op == KML_CREATE ? S_IFREG : *op == KML_MKDIR ? S_IFDIR :
			       *op == KML_SYMLINK ? S_IFLNK : S_IFIFO) | 0644;
		STALE(&r, &absent, NULL);
		EQ(le64toh(reply.r[0].ino), t_stat("f").st_ino);
	}
}

TEST(stale_target_of_rename)
{
	struct kml_record r = record(KML_RENAME, "f");
	struct izo_guard g, tg;

	t_write("f", "content");
	t_write("t", "target");
	Z(mkdir("d", 0755));
	setup();
	r.tdir = str(here);
	r.tname = str("t");
	g = guard("f", INO);
	STALE(&r, &g, &absent);
	EQ(le64toh(reply.r[0].tino), t_stat("t").st_ino);
	tg = guard("t", CTIME);
	tg.ctime_nsec ^= htole32(1);
	STALE(&r, &g, &tg);
	tg = guard("t", INO);
	tg.gen ^= htole32(8);
	STALE(&r, &g, &tg);
	r.tname = str("none");
	tg = guard("t", INO);
	STALE(&r, &g, &tg);
	r = record(KML_LINK, "f");
	r.tdir = str(here);
	r.tname = str("t");
	STALE(&r, &g, &absent);
	t_text("t", "target");
}

TEST(stale_by_writer)
{
	struct kml_record r = record(KML_CLOSE, "f"), u = record(KML_UNLINK, "f");
	struct izo_guard g;
	int fd;
	char *m;

	t_write("f", "content");
	Z(mkdir("d", 0755));
	r.data = str("bad");
	r.attr.size = 3;
	r.attr.valid = KML_A_SIZE | KML_A_MTIME;
	g = guard("f", QUIET);
	fd = Z(open("f", O_RDWR));	/* not even written yet */
	STALE(&r, &g, NULL);
	STALE(&u, &g, NULL);
	m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	OK(m != MAP_FAILED);
	Z(close(fd));
	STALE(&r, &g, NULL);		/* the mapping can still write */
	Z(munmap(m, 4096));
	call_sync(0);
	EQ(one_quiet(&r, "f", 0), 0);
	t_text("f", "bad");
}

TEST(stale_after_local_change)
{
	struct kml_record r = record(KML_CLOSE, "f");
	struct izo_guard g;

	t_write("f", "content");
	Z(mkdir("d", 0755));
	r.data = str("bad");
	r.attr.size = 3;
	r.attr.valid = KML_A_SIZE | KML_A_MTIME;
	g = guard("f", CTIME);
	t_write("f", "changed");
	STALE(&r, &g, NULL);
	g = guard("f", CTIME);
	Z(chmod("f", 0600));
	STALE(&r, &g, NULL);
	g = guard("f", CTIME);
	t_write("n", "other object");
	Z(rename("n", "f"));
	STALE(&r, &g, NULL);
	t_text("f", "other object");
}

TEST(reint_one_failure_stops_nothing)
{
	struct kml_record a = record(KML_MKDIR, "a"), x = record(KML_MKDIR, "x");
	struct kml_record b = record(KML_MKDIR, "b");

	Z(mkdir("x", 0755));
	a.attr.mode = b.attr.mode = x.attr.mode = S_IFDIR | 0755;
	batch();
	add(&a, &absent, NULL, 0);
	add(&x, &absent, NULL, 0);
	add(&b, &absent, NULL, 0);
	EQ(send_batch(), 0);
	EQ(reply.r[0].error, 0);
	EQ(le32toh(reply.r[1].error), ESTALE);
	EQ(reply.r[2].error, 0);
	OK(t_exists("a") && t_exists("b"));
}

/* New content for some files comes behind what changed its names. */
static void add_contents(void)
{
	static char data[32768], names[8][8];

	for (int i = 0; i < 8; i++) {
		struct kml_record c;
		struct izo_guard g;

		snprintf(names[i], sizeof(names[i]), "f%d", i);
		c = record(KML_CLOSE, names[i]);
		c.data = (struct kml_str){ data, sizeof(data) };
		c.attr.size = sizeof(data);
		c.attr.valid = KML_A_SIZE | KML_A_MTIME;
		c.has_ptime = false;
		g = guard(names[i], INO);
		add(&c, &g, NULL, 0);
	}
}

TEST(reint_content_keeps_mtime_of_names)
{
	struct kml_record r = record(KML_RENAME, "a"), l = record(KML_LINK, "b");
	char name[8], sub[2 * PATH_MAX];
	struct izo_guard ga, gb;

	t_write("a", "A");
	t_write("b", "B");
	Z(mkdir("sub", 0755));
	for (int i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		t_write(name, "old");
	}
	call_sync(0);
	ga = guard("a", INO);
	gb = guard("b", INO);
	r.has_attr = l.has_attr = false;
	r.tdir = str(here);
	r.tname = str("c");
	l.tname = str("d");
	l.tptime.sec = 1500000007;
	batch();
	add(&r, &ga, &absent, 0);
	add_contents();
	/* and something in another directory */
	snprintf(sub, sizeof(sub), "%s/sub", here);
	l.tdir = str(sub);
	add(&l, &gb, &absent, 0);
	EQ(send_batch(), 0);
	EQ(t_stat(".").st_mtim.tv_sec, 1500000001);
	EQ(t_stat(".").st_mtim.tv_nsec, 987654321);
	EQ(t_stat("sub").st_mtim.tv_sec, 1500000007);
}

TEST(reint_in_order)
{
	struct kml_record d = record(KML_MKDIR, "d"), f = record(KML_CREATE, "f");
	char sub[PATH_MAX + 8];

	setup();
	snprintf(sub, sizeof(sub), "%s/d", here);
	d.attr.mode = S_IFDIR | 0755;
	f.dir = str(sub);
	f.data = str("in it");
	f.attr.size = 5;
	batch();
	add(&d, &absent, NULL, 0);
	add(&f, &absent, NULL, 0);
	EQ(send_batch(), 0);
	EQ(reply.r[0].error, 0);
	EQ(reply.r[1].error, 0);
	t_text("d/f", "in it");
	EQ(t_stat("d").st_mtim.tv_sec, 1500000001);
}

TEST(reint_big_batch)
{
	char name[32];

	batch();
	for (int i = 0; i < 1000; i++) {
		struct kml_record r = record(KML_CREATE, name);

		snprintf(name, sizeof(name), "file%d", i);
		r.name = str(name);
		r.data = str(name);
		r.attr.size = strlen(name);
		add(&r, &absent, NULL, 0);
	}
	EQ(send_batch(), 0);
	for (int i = 0; i < 1000; i++) {
		EQ(reply.r[i].error, 0);
		snprintf(name, sizeof(name), "file%d", i);
		if (i % 100 == 0)
			t_text(name, name);
	}
	EQ(t_entries("."), 1000);
}

TEST(reint_deeper_than_path_max)
{
	static char deep[12000];
	struct kml_record r = record(KML_CREATE, "f");
	char name[201];

	setup();
	memset(name, 'd', 200);
	name[200] = '\0';
	strcpy(deep, here);
	for (int i = 0; i < 40; i++) {
		Z(mkdir(name, 0755));
		Z(chdir(name));
		strcat(deep, "/");
		strcat(deep, name);
	}
	r.dir = str(deep);
	r.data = str("deep");
	r.attr.size = 4;
	EQ(one(&r, &absent, NULL, 0), 0);
	t_text("f", "deep");
}

TEST(reint_root_itself)
{
	struct kml_record r = record(KML_SETATTR, "");
	struct stat st = t_stat(getenv("IZO_ROOT"));

	r.name = (struct kml_str){ NULL, 0 };
	r.dir = str("/");
	r.has_ptime = false;
	r.attr.mode = st.st_mode;
	r.attr.valid = KML_A_MTIME;
	log_mark();
	EQ(one(&r, NULL, NULL, 0), 0);
	EQ(t_stat(getenv("IZO_ROOT")).st_mtim.tv_nsec, 123456789);
	LOGGED(KML_SETATTR);
}

TEST(reint_last_rcvd)
{
	struct kml_record a = record(KML_MKDIR, "a");
	struct izo_reint *h = (void *)msg;
	struct last_rcvd lr;
	char path[PATH_MAX];
	int fd;

	a.attr.mode = S_IFDIR | 0755;
	batch();
	add(&a, &absent, NULL, 0);
	h->remote_recno = htole64(77);
	h->remote_offset = htole64(8192);
	EQ(send_batch(), 0);
	EQ(reply.r[0].error, 0);
	call_sync(IZO_MSG_F_DURABLE);
	snprintf(path, sizeof(path), ".intermezzo/%s/last_rcvd", fset);
	fd = Z(openat(lower, path, O_RDONLY));
	EQ(last_rcvd_get(fd, peer, &lr), 0);
	EQ(lr.remote_recno, 77);
	EQ(lr.remote_offset, 8192);
	if (logged)
		EQ(lr.local_recno, le64toh(reply.r[0].recno));
}

/*
 * Readers see the old content or the new one, whole, whatever way it comes:
 * every version is one letter repeated, its length that letter's.
 */
static void check_version(void)
{
	static char buf[100000];
	struct stat st;
	int fd = open("f", O_RDONLY);
	ssize_t n;

	if (fd < 0) {
		EQ(errno, 0);
		return;
	}
	Z(fstat(fd, &st));
	n = Z(read(fd, buf, sizeof(buf)));
	EQ(n, 20000 + (buf[0] - 'a') * 1000);
	for (ssize_t i = 1; i < n; i++)
		if (buf[i] != buf[0])
			FAIL("a mixture: byte 0 is %c, byte %zd is %c", buf[0], i, buf[i]);
	Z(close(fd));
}

static void replace_by(int how, char letter, const char *alias)
{
	static char buf[100000];
	size_t len = 20000 + (letter - 'a') * 1000;
	struct kml_range range = { 0, htole64(len) };
	struct kml_record r = record(KML_CLOSE, "f");
	struct izo_guard g = guard("f", INO);
	static char blob[2 * PATH_MAX], path[2 * PATH_MAX];

	if (alias) {
		snprintf(path, sizeof(path), "%s/%s", here, alias);
		r.aliases = blob;
		r.aliases_len = Z(kml_alias_put(blob, sizeof(blob), path, strlen(path)));
	}
	memset(buf, letter, len);
	r.attr.size = len;
	r.attr.valid = KML_A_SIZE | KML_A_MTIME;
	r.has_ptime = false;
	if (how == 0) {
		r.data = (struct kml_str){ buf, len };
	} else {
		incoming("ver", buf, len, 0);
		r.file = str("ver");
	}
	if (how == 2) {
		r.has_ranges = true;
		r.ranges = &range;
		r.n_ranges = 1;
	}
	EQ(one(&r, &g, NULL, how == 2 ? IZO_RE_PATCH : 0), 0);
}

static void atomic_for_readers(bool two_names)
{
	static char buf[20000];
	pid_t reader[2];
	int fd = Z(open("f", O_CREAT | O_WRONLY, 0644));

	memset(buf, 'a', sizeof(buf));
	EQ(write(fd, buf, sizeof(buf)), sizeof(buf));
	Z(close(fd));
	if (two_names)
		Z(link("f", "other"));
	setup();
	for (int i = 0; i < 2; i++) {
		reader[i] = t_fork();
		if (!reader[i])
			for (;;)
				check_version();
	}
	for (int i = 0; i < 240; i++)
		replace_by(i % 3, 'a' + i % 20, two_names ? "other" : NULL);
	for (int i = 0; i < 2; i++) {
		int status;

		OK(waitpid(reader[i], &status, WNOHANG) == 0);
		kill(reader[i], SIGKILL);
		Z(waitpid(reader[i], &status, 0));
	}
	check_version();
}

TEST(atomic_replacement)
{
	atomic_for_readers(false);
}

TEST(atomic_replacement_of_two_names)
{
	atomic_for_readers(true);
}

TEST(atomic_creation)
{
	pid_t reader;
	int status;

	setup();
	reader = t_fork();
	if (!reader) {
		for (;;) {
			char got[8];
			int fd = open("f", O_RDONLY);

			if (fd < 0)
				continue;
			EQ(read(fd, got, 8), 5);	/* never half made */
			OK(!memcmp(got, "whole", 5));
			close(fd);
		}
	}
	for (int i = 0; i < 300; i++) {
		struct kml_record r = record(KML_CREATE, "f"), u = record(KML_UNLINK, "f");
		struct izo_guard g;

		r.data = str("whole");
		r.attr.size = 5;
		EQ(one(&r, &absent, NULL, 0), 0);
		g = guard("f", INO);
		EQ(one(&u, &g, NULL, 0), 0);
	}
	OK(waitpid(reader, &status, WNOHANG) == 0);
	kill(reader, SIGKILL);
	Z(waitpid(reader, &status, 0));
}

/* Local writers and REINT: a writer's finished version is never lost unseen. */
TEST(reint_against_local_writer)
{
	unsigned int done = 0, stale = 0;
	pid_t pid;
	int status;

	t_write("f", "local");
	setup();
	pid = t_fork();
	if (!pid) {
		for (int i = 0; i < 400; i++)
			t_write("f", "local");
		_exit(0);
	}
	while (waitpid(pid, &status, WNOHANG) == 0) {
		struct kml_record r = record(KML_CLOSE, "f");
		struct izo_guard g = guard("f", QUIET);
		int e;

		r.data = str("remote");
		r.attr.size = 6;
		r.attr.valid = KML_A_SIZE | KML_A_MTIME;
		r.has_ptime = false;
		e = one(&r, &g, NULL, 0);
		OK(e == 0 || e == ESTALE);
		e ? stale++ : done++;
	}
	EQ(status, 0);
	t_note("%u done, %u stale", done, stale);
	OK(done + stale > 0);
}

/*
 * The tree is not as the log says, as after a power cut: changed below the file
 * system.  What comes is logged, and the replay of the log is the tree.
 */
TEST(there_already)
{
	struct kml_record r;
	struct izo_guard g, none = { 0 };
	char to[8192], tdir[8192];
	int fd;

	if (!logged)
		t_skip("only where it is logged");
	t_write("lost", "x");
	t_write("moved", "x");
	t_write("changed", "old");
	setup();
	fd = Z(openat(lower, below("found"), O_CREAT | O_WRONLY, 0604));
	EQ(write(fd, "12345", 5), 5);
	Z(fsetxattr(fd, "user.a", "b", 1, 0));
	Z(close(fd));
	Z(symlinkat("text", lower, below("link")));
	Z(mkdirat(lower, below("dir"), 0701));
	r = record(KML_CREATE, "found");
	EQ(one(&r, &none, NULL, IZO_RE_THERE), 0);
	r = record(KML_SYMLINK, "link");
	EQ(one(&r, &none, NULL, IZO_RE_THERE), 0);
	r = record(KML_SYMLINK, "dir");
	EQ(one(&r, &none, NULL, IZO_RE_THERE), ESTALE);
	r.opcode = KML_MKDIR;
	g = guard("dir", INO);
	EQ(one(&r, &g, NULL, IZO_RE_THERE), 0);

	r = record(KML_UNLINK, "lost");
	g = guard("lost", INO);
	r.has_old = true;
	r.old = (struct kml_oid){ le64toh(g.ino), le32toh(g.gen) };
	r.old_attr.mode = S_IFREG | 0644;
	EQ(one(&r, &none, NULL, IZO_RE_THERE), ESTALE);
	Z(unlinkat(lower, below("lost"), 0));
	EQ(one(&r, &absent, NULL, IZO_RE_THERE), 0);

	snprintf(to, sizeof(to), "%s", below("dir/to"));
	snprintf(tdir, sizeof(tdir), "%s/dir", here);
	Z(renameat(lower, below("moved"), lower, to));
	r = record(KML_RENAME, "moved");
	r.tdir = str(tdir);
	r.tname = str("to");
	EQ(one(&r, &absent, NULL, IZO_RE_THERE), 0);

	fd = Z(openat(lower, below("changed"), O_WRONLY));
	EQ(write(fd, "longer", 6), 6);
	Z(fchmod(fd, 0611));
	Z(fsetxattr(fd, "user.c", "d", 1, 0));
	Z(close(fd));
	r = record(KML_CLOSE, "changed");
	EQ(one(&r, &none, NULL, IZO_RE_THERE), 0);
	r = record(KML_SETATTR, "changed");
	EQ(one(&r, &none, NULL, IZO_RE_THERE), 0);
}

TEST(open_for_write_finds_the_new_version)
{
	struct kml_record r = record(KML_CLOSE, "f");
	int fd;

	t_write("f", "old");
	fd = Z(open("f", O_RDONLY));
	r.data = str("new!");
	r.attr.size = 4;
	r.attr.valid = KML_A_SIZE | KML_A_MTIME;
	r.has_ptime = false;
	EQ(one_quiet(&r, "f", 0), 0);
	EQ(close(fd), 0);
	fd = Z(open("f", O_WRONLY | O_APPEND));
	EQ(write(fd, "+", 1), 1);
	Z(close(fd));
	t_text("f", "new!+");
}

TEST(punch)
{
	struct izo_pos p = call_sync(0);
	struct klog_header h;
	struct klog *log;
	char why[256] = "";
	uint64_t n;

	if (le64toh(p.offset) <= KML_HEADER_SIZE)
		t_skip("the log is empty");
	EQ(chan_call(chan, IZO_MSG_PUNCH, 0, &p, sizeof(p), &reply, sizeof(reply), NULL) < 0, 0);
	OK(!klog_open_fd(kml_fd(), &log));
	OK(!klog_header(log, &h));
	EQ(h.first_offset, le64toh(p.offset));
	EQ(h.first_recno, le64toh(p.recno) + 1);
	Z(mkdir("after", 0755));
	EQ(le64toh(call_sync(0).recno), le64toh(p.recno) + 1);
	if (klog_verify(log, &n, why, sizeof(why)))
		FAIL("verify: %s", why);
	EQ(n, 1);
	p.offset = htole64(le64toh(p.offset) + (1 << 30));	/* behind the end */
	OK(chan_call(chan, IZO_MSG_PUNCH, 0, &p, sizeof(p), &reply, sizeof(reply), NULL) < 0);
	klog_close(log);
}

static int start(void)
{
	const char *root = getenv("IZO_ROOT");
	const char *flag = getenv("CHAN_LOG");
	ssize_t n;

	logged = flag && *flag == '1';
	n = root ? getxattr(root, IZO_XATTR_FILESET, fset, sizeof(fset) - 1) : -1;
	if (n <= 0)
		return printf("Bail out! IZO_ROOT is no mounted fileset\n");
	fset[n] = '\0';
	chan = chan_open(root);
	if (chan < 0)
		return printf("Bail out! channel: %s\n", strerror(-chan));
	n = chan_call(chan, IZO_MSG_INFO, 0, NULL, 0, &info, sizeof(info), &lower);
	if (n != sizeof(info))
		return printf("Bail out! INFO: %s\n", n < 0 ? strerror(-n) : "short answer");
	if (lower < 0)
		lower = open(root, O_RDONLY | O_DIRECTORY);
	return 0;
}

int main(int argc, char **argv)
{
	if (start())
		return 1;
	return t_main(argc, argv);
}
