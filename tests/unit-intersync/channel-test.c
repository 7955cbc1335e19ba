// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The channel and REINT against a file system that is played by the test: a
 * thread at the other end of a socket pair.
 */
#include "daemon.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define assert_ok(call) do { \
	g_autoptr(GError) e_ = NULL; \
	gboolean ok_ = (call); \
	g_assert_no_error(e_); \
	g_assert_true(ok_); \
} while (0)
#define E (&e_)

static const guint8 peer[16] = "peer";

typedef struct {
	IsdCore	core;
	int	fs;		/* the file system's end */
	int	grew;
	GThread	*thread;
} Test;

static Test *the_test;

static void grew(IsdCore *core)
{
	the_test->grew++;
}

static void set_up(Test *t, GThreadFunc fs)
{
	int fds[2], size = 2 * IZO_MSG_MAX;

	memset(t, 0, sizeof(*t));
	the_test = t;
	g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), ==, 0);
	/* A whole message has to fit, as in chan_open(). */
	g_assert_cmpint(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)), ==, 0);
	t->core.dir = (char *) "/test";
	t->core.log_grew = grew;
	t->core.channel = isd_channel_new(&t->core, fds[0]);
	t->fs = fds[1];
	t->thread = fs ? g_thread_new("fs", fs, t) : NULL;
}

static void tear_down(Test *t)
{
	if (t->thread)
		g_thread_join(t->thread);
	isd_channel_free(t->core.channel);
	if (t->fs >= 0)
		close(t->fs);
}

static void respond(int fd, const struct izo_msg *to, guint32 error, const void *body, gsize len)
{
	g_autofree char *buf = g_malloc(sizeof(*to) + len);
	struct izo_msg m = *to;

	m.len = htole32(sizeof(m) + len);
	m.error = htole32(error);
	memcpy(buf, &m, sizeof(m));
	if (len)
		memcpy(buf + sizeof(m), body, len);
	g_assert_cmpint(send(fd, buf, sizeof(m) + len, 0), ==, sizeof(m) + len);
}

static gsize take(int fd, char *buf)
{
	ssize_t n = recv(fd, buf, IZO_MSG_MAX, 0);

	g_assert_cmpint(n, >=, sizeof(struct izo_msg));
	return n;
}

/* Answers the second request first. */
static gpointer reordering_fs(gpointer data)
{
	Test *t = data;
	g_autofree char *a = g_malloc(IZO_MSG_MAX), *b = g_malloc(IZO_MSG_MAX);

	take(t->fs, a);
	take(t->fs, b);
	respond(t->fs, (struct izo_msg *) b, 0, "second", 6);
	respond(t->fs, (struct izo_msg *) a, 0, "first", 5);
	return NULL;
}

static void keep(int error, const void *body, gsize len, gpointer data)
{
	GString *s = data;

	g_string_append_printf(s, "%d:%.*s", error, (int) len, (const char *) body);
}

static void test_order(void)
{
	Test t;
	g_autoptr(GString) first = g_string_new(NULL);
	g_autoptr(GByteArray) second = g_byte_array_new();

	set_up(&t, reordering_fs);
	isd_channel_request(t.core.channel, IZO_MSG_SYNC, 0, NULL, 0, keep, first);
	assert_ok(isd_channel_call(t.core.channel, IZO_MSG_SYNC, 0, "x", 1, second, E));
	g_assert_cmpmem(second->data, second->len, "second", 6);
	while (!first->len)
		g_main_context_iteration(NULL, TRUE);
	g_assert_cmpstr(first->str, ==, "0:first");
	tear_down(&t);
}

static gpointer failing_fs(gpointer data)
{
	Test *t = data;
	g_autofree char *a = g_malloc(IZO_MSG_MAX);

	take(t->fs, a);
	respond(t->fs, (struct izo_msg *) a, ENOSPC, NULL, 0);
	take(t->fs, a);
	close(t->fs);
	t->fs = -1;
	return NULL;
}

static void test_errors(void)
{
	Test t;
	g_autoptr(GError) error = NULL;
	g_autoptr(GString) other = g_string_new(NULL);

	set_up(&t, failing_fs);
	g_assert_false(isd_channel_call(t.core.channel, IZO_MSG_SYNC, 0, NULL, 0, NULL, &error));
	g_assert_error(error, ISD_ERROR, ISD_ERROR_NOSPC);
	g_clear_error(&error);
	isd_channel_request(t.core.channel, IZO_MSG_SYNC, 0, NULL, 0, keep, other);
	while (!other->len)
		g_main_context_iteration(NULL, TRUE);
	g_assert_true(g_str_has_prefix(other->str, "107:"));
	g_assert_false(isd_channel_call(t.core.channel, IZO_MSG_SYNC, 0, NULL, 0, NULL, &error));
	g_assert_error(error, ISD_ERROR, ISD_ERROR_FATAL);
	tear_down(&t);
}

static gpointer growing_fs(gpointer data)
{
	Test *t = data;
	g_autofree char *a = g_malloc(IZO_MSG_MAX);
	struct izo_pos pos;

	for (guint64 i = 1; i <= 3; i++) {
		take(t->fs, a);
		memcpy(&pos, a + sizeof(struct izo_msg), sizeof(pos));
		g_assert_cmpuint(le64toh(pos.offset), ==, (i - 1) * 100);
		pos.offset = htole64(i * 100);
		pos.recno = htole64(i);
		respond(t->fs, (struct izo_msg *) a, 0, &pos, sizeof(pos));
	}
	return NULL;
}

static void test_grown(void)
{
	Test t;

	set_up(&t, growing_fs);
	isd_channel_watch_log(t.core.channel);
	while (t.grew < 3)
		g_main_context_iteration(NULL, TRUE);
	g_assert_cmpuint(t.core.log_end, ==, 300);
	g_assert_cmpuint(t.core.log_recno, ==, 3);
	tear_down(&t);
}

/* Checks what comes, answers the entry's number as inode, every second ESTALE. */
static gpointer reint_fs(gpointer data)
{
	Test *t = data;
	g_autofree char *a = g_malloc(IZO_MSG_MAX);
	g_autoptr(GByteArray) out = g_byte_array_new();
	struct izo_pos pos = { .offset = htole64(4711), .recno = htole64(3) };
	gsize len = take(t->fs, a), at = sizeof(struct izo_msg);
	struct izo_reint h;

	memcpy(&h, a + at, sizeof(h));
	at += sizeof(h);
	g_assert_cmpmem(h.peer, 16, peer, 16);
	g_assert_cmpuint(le64toh(h.remote_recno), ==, 55);
	g_byte_array_append(out, (guint8 *) &pos, sizeof(pos));
	for (guint i = 0; i < le32toh(h.count); i++) {
		struct izo_reint_result res = { .ino = htole64(i),
						.error = htole32(i % 2 ? ESTALE : 0) };
		struct izo_reint_entry e;
		struct kml_record r;

		memcpy(&e, a + at, sizeof(e));
		g_assert_cmpint(kml_decode(a + at + sizeof(e), len - at - sizeof(e), &r), ==,
				le32toh(e.len) - sizeof(e));
		g_assert_cmpuint(le32toh(e.guard.flags), ==, IZO_G_ABSENT);
		at += le32toh(e.len);
		g_byte_array_append(out, (guint8 *) &res, sizeof(res));
	}
	g_assert_cmpuint(at, ==, len);
	respond(t->fs, (struct izo_msg *) a, 0, out->data, out->len);
	return NULL;
}

static guint fill(IsdReint *b)
{
	struct izo_guard absent = isd_guard_absent();
	struct kml_record r = {
		.opcode = KML_CREATE, .name = { "name", 4 }, .dir = { "/", 1 },
		.has_attr = true, .attr.mode = S_IFREG | 0644,
	};
	struct kml_record bad = r;
	static char huge[600 * 1024];

	bad.name = (struct kml_str) { "a/b", 3 };
	g_assert_true(isd_reint_add(b, &r, &absent, NULL, 0));
	g_assert_true(isd_reint_add(b, &bad, &absent, NULL, 0));
	while (isd_reint_add(b, &r, &absent, NULL, 0))
		;
	bad = r;
	bad.data = (struct kml_str) { huge, sizeof(huge) };
	g_assert_false(isd_reint_add(b, &bad, &absent, NULL, 0));
	return isd_reint_count(b);
}

static void assert_results(const struct izo_reint_result *r, guint n)
{
	guint64 sent = 0;

	for (guint i = 0; i < n; i++) {
		if (i == 1) {
			g_assert_cmpuint(le32toh(r[i].error), ==, EINVAL);
			continue;
		}
		g_assert_cmpuint(le64toh(r[i].ino), ==, sent);
		g_assert_cmpuint(le32toh(r[i].error), ==, sent % 2 ? ESTALE : 0);
		sent++;
	}
}

static void test_reint(void)
{
	Test t;
	g_autoptr(IsdReint) b = isd_reint_new(TRUE, peer);
	const struct izo_reint_result *r;
	guint n;

	set_up(&t, reint_fs);
	n = fill(b);
	g_assert_cmpuint(n, >, 100);
	assert_ok(isd_reint_send(b, &t.core, 55, 66, &r, E));
	assert_results(r, n);
	g_assert_cmpuint(t.core.log_end, ==, 4711);
	g_assert_cmpuint(isd_reint_count(b), ==, 0);
	tear_down(&t);
}

static void landed(int error, const struct izo_reint_result *r, guint count, gpointer data)
{
	g_assert_cmpint(error, ==, 0);
	g_assert_cmpuint(count, ==, *(guint *) data);
	assert_results(r, count);
	*(guint *) data = 0;
}

static void test_submit(void)
{
	Test t;
	g_autoptr(IsdReint) b = isd_reint_new(FALSE, peer);
	guint n;

	set_up(&t, reint_fs);
	n = fill(b);
	isd_reint_submit(b, &t.core, 55, 66, landed, &n);
	g_assert_cmpuint(isd_reint_count(b), ==, 0);
	while (n)
		g_main_context_iteration(NULL, TRUE);
	tear_down(&t);
}

static void test_guards(void)
{
	IsdObject o = { .oid = { 5, 6 }, .attr = { .mode = S_IFREG, .ctime = { 7, 8 } } };
	struct izo_guard g = isd_guard_object(&o, IZO_G_CTIME | IZO_G_NOWRITER);

	g_assert_cmpuint(le32toh(g.flags), ==, IZO_G_INO | IZO_G_CTIME | IZO_G_NOWRITER);
	g_assert_cmpuint(le64toh(g.ino), ==, 5);
	g_assert_cmpuint(le32toh(g.ctime_nsec), ==, 8);
	o.attr.mode = S_IFDIR;
	g = isd_guard_object(&o, IZO_G_CTIME);
	g_assert_cmpuint(le32toh(g.flags), ==, IZO_G_INO);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/channel/order", test_order);
	g_test_add_func("/channel/errors", test_errors);
	g_test_add_func("/channel/grown", test_grown);
	g_test_add_func("/reint/send", test_reint);
	g_test_add_func("/reint/submit", test_submit);
	g_test_add_func("/reint/guards", test_guards);
	return g_test_run();
}
