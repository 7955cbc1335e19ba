// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What is left of a run of records when the superseded ones are dropped: the
 * rules at the top of intersync/coalesce.c, one after the other.
 */
#include "coalesce.h"

#include <string.h>
#include <sys/stat.h>

#define DIR_MODE	(S_IFDIR | 0755)
#define FILE_MODE	(S_IFREG | 0644)

static struct kml_record recs[64];
static struct kml_range ranges[64];
static guint n_recs;

static struct kml_oid oid(guint64 ino)
{
	return (struct kml_oid) { ino, 7 };
}

static struct kml_str str(const char *s)
{
	return (struct kml_str) { s, strlen(s) };
}

static struct kml_record *add(guint opcode, guint64 ino, const char *name)
{
	struct kml_record *r = &recs[n_recs++];

	memset(r, 0, sizeof(*r));
	r->opcode = opcode;
	r->recno = n_recs;
	r->obj = oid(ino);
	r->parent = oid(1);
	r->name = str(name);
	r->has_attr = true;
	r->attr.mode = opcode == KML_MKDIR ? DIR_MODE : FILE_MODE;
	return r;
}

static struct kml_record *add_close(guint64 ino, guint64 size, guint64 off, guint64 len)
{
	struct kml_record *r = add(KML_CLOSE, ino, "f");

	r->attr.valid = KML_A_SIZE | KML_A_MTIME;
	r->attr.size = size;
	r->attr.mtime.sec = 1000 + n_recs;
	if (!len)
		return r;
	ranges[n_recs] = (struct kml_range) { GUINT64_TO_LE(off), GUINT64_TO_LE(len) };
	r->ranges = &ranges[n_recs];
	r->n_ranges = 1;
	r->has_ranges = true;
	return r;
}

static struct kml_record *add_chmod(guint64 ino, guint32 mode)
{
	struct kml_record *r = add(KML_SETATTR, ino, "f");

	r->attr.valid = KML_A_MODE;
	r->attr.mode = (r->attr.mode & S_IFMT) | mode;
	return r;
}

static void add_rename(guint64 ino, const char *from, const char *to, guint64 old)
{
	struct kml_record *r = add(KML_RENAME, ino, from);

	r->tparent = oid(1);
	r->tname = str(to);
	if (!old)
		return;
	r->has_old = true;
	r->old = oid(old);
}

static gboolean own_is_barrier(const struct kml_record *r, gpointer data)
{
	return r->has_origin;
}

static IsdOps *run(void)
{
	IsdOps *ops = isd_coalesce(recs, n_recs, own_is_barrier, NULL);

	g_assert_cmpuint(ops->owner->len, ==, n_recs);
	n_recs = 0;
	return ops;
}

/* The op that record n (from 1) became; NULL: nothing is done for it. */
static IsdOp *op_of(IsdOps *ops, guint n)
{
	guint i = g_array_index(ops->owner, guint, n - 1);
	IsdOp *op = i == G_MAXUINT ? NULL : &g_array_index(ops->ops, IsdOp, i);

	g_assert_true(!op || !op->dropped);
	return op;
}

static guint left(IsdOps *ops)
{
	guint n = 0;

	for (guint i = 0; i < ops->ops->len; i++)
		n += !g_array_index(ops->ops, IsdOp, i).dropped;
	return n;
}

static void test_create_takes_content(void)
{
	g_autoptr(IsdOps) ops = NULL;

	add(KML_CREATE, 10, "f");
	add_close(10, 5, 0, 5);
	add_close(10, 9, 5, 4);
	add_chmod(10, 0600);
	ops = run();
	g_assert_cmpuint(left(ops), ==, 1);
	g_assert_true(op_of(ops, 1) == op_of(ops, 3));
	g_assert_cmpuint(op_of(ops, 1)->r.opcode, ==, KML_CREATE);
	g_assert_true(op_of(ops, 1)->content && op_of(ops, 1)->whole);
	g_assert_cmpuint(op_of(ops, 1)->content_recno, ==, 3);
	g_assert_cmpuint(op_of(ops, 1)->r.attr.size, ==, 9);
	g_assert_cmpuint(op_of(ops, 1)->r.attr.mode, ==, S_IFREG | 0600);
	g_assert_cmpuint(op_of(ops, 1)->r.recno, ==, 1);
}

/* Content moves to before what was set in between: that must not undo its mtime. */
static void test_later_mtime(void)
{
	g_autoptr(IsdOps) ops = NULL;
	struct kml_record *r;

	add(KML_CREATE, 10, "f");
	add_close(10, 5, 0, 5);
	add_rename(10, "f", "g", 0);
	r = add_chmod(10, 0600);
	r->attr.valid |= KML_A_MTIME;
	r->attr.mtime.sec = 5;
	add_close(10, 9, 5, 4);
	ops = run();
	g_assert_cmpuint(left(ops), ==, 3);
	g_assert_true(op_of(ops, 5) == op_of(ops, 1));
	g_assert_cmpint(op_of(ops, 1)->r.attr.mtime.sec, ==, 1005);
	g_assert_cmpint(op_of(ops, 4)->r.attr.mtime.sec, ==, 1005);
	g_assert_cmpuint(op_of(ops, 4)->r.attr.mode, ==, S_IFREG | 0600);
}

static void test_close_union(void)
{
	g_autoptr(IsdOps) ops = NULL;
	const IsdOp *op;

	add_close(10, 1000, 100, 50);
	add_close(10, 400, 0, 0);
	add_close(10, 1000, 120, 100);
	ops = run();
	op = op_of(ops, 3);
	g_assert_true(op_of(ops, 1) == op && op_of(ops, 2) == op);
	g_assert_cmpuint(left(ops), ==, 1);
	g_assert_cmpuint(op->r.recno, ==, 3);
	g_assert_false(op->whole);
	/* what it was cut to on the way: behind that everything is new */
	g_assert_cmpuint(op->min_size, ==, 400);
	g_assert_cmpuint(op->spans->len, ==, 1);
	g_assert_cmpuint(g_array_index(op->spans, IsdSpan, 0).off, ==, 100);
	g_assert_cmpuint(g_array_index(op->spans, IsdSpan, 0).end, ==, 220);
}

static void test_close_all(void)
{
	g_autoptr(IsdOps) ops = NULL;

	add_close(10, 1000, 0, 0)->flags = KML_F_RANGES_ALL;
	add_close(10, 1000, 5, 5);
	ops = run();
	g_assert_true(op_of(ops, 2)->whole);
}

/* chmod, then the secret: it must not be there with the mode of before. */
static void test_mode_comes_with_content(void)
{
	g_autoptr(IsdOps) ops = NULL;

	add_chmod(10, 0600);
	add_close(10, 5, 0, 5);
	ops = run();
	g_assert_cmpuint(left(ops), ==, 1);
	g_assert_cmpuint(op_of(ops, 1)->r.opcode, ==, KML_CLOSE);
	g_assert_cmpuint(op_of(ops, 1)->r.attr.valid & KML_A_MODE, !=, 0);
}

static void test_made_and_removed(void)
{
	g_autoptr(IsdOps) ops = NULL;

	add(KML_MKDIR, 20, "d");
	add(KML_CREATE, 10, "f")->parent = oid(20);
	add_close(10, 5, 0, 5);
	add(KML_UNLINK, 10, "f")->parent = oid(20);
	add(KML_RMDIR, 20, "d");
	ops = run();
	g_assert_cmpuint(left(ops), ==, 0);
	for (guint i = 1; i <= 5; i++)
		g_assert_null(op_of(ops, i));
}

static void test_removed_dir_in_use(void)
{
	g_autoptr(IsdOps) ops = NULL;

	add(KML_MKDIR, 20, "d");
	add(KML_UNLINK, 11, "old")->parent = oid(20);
	add(KML_RMDIR, 20, "d");
	ops = run();
	g_assert_cmpuint(left(ops), ==, 3);
}

/* A rename may have replaced something: then it has to be done. */
static void test_renamed_is_kept(void)
{
	g_autoptr(IsdOps) ops = NULL;

	add(KML_CREATE, 10, "tmp");
	add_close(10, 5, 0, 5);
	add_rename(10, "tmp", "f", 11);
	add(KML_UNLINK, 10, "f");
	ops = run();
	g_assert_cmpuint(left(ops), ==, 3);
	g_assert_cmpuint(op_of(ops, 3)->r.opcode, ==, KML_RENAME);
}

static void test_reused_number(void)
{
	g_autoptr(IsdOps) ops = NULL;

	add(KML_CREATE, 10, "a");
	add(KML_UNLINK, 10, "a");
	add(KML_CREATE, 10, "b");
	add_close(10, 5, 0, 5);
	ops = run();
	g_assert_cmpuint(left(ops), ==, 1);
	g_assert_null(op_of(ops, 1));
	g_assert_true(op_of(ops, 3)->content);
}

static struct kml_record *add_replacing(guint64 ino, guint64 old, guint64 size)
{
	struct kml_record *r = add_close(ino, size, 0, size);

	r->flags = KML_F_REPLACED;
	r->has_old = true;
	r->old = oid(old);
	return r;
}

/* An inode that was replaced: what is made goes by its last number everywhere. */
static void test_replaced(void)
{
	g_autoptr(IsdOps) ops = NULL;

	add(KML_CREATE, 10, "tmp");
	add_rename(10, "tmp", "f", 0);
	add_replacing(12, 10, 5);
	ops = run();
	g_assert_cmpuint(left(ops), ==, 2);
	g_assert_cmpuint(op_of(ops, 1)->r.obj.ino, ==, 12);
	g_assert_cmpuint(op_of(ops, 2)->r.obj.ino, ==, 12);
	g_assert_true(op_of(ops, 3) == op_of(ops, 1));
}

/* Of two contents the first is dropped: what is between them knows the object by its old number. */
static void test_replaced_between(void)
{
	g_autoptr(IsdOps) ops = NULL;

	add_replacing(11, 10, 5);
	add_rename(11, "f", "g", 0);
	add_rename(20, "tmp", "h", 11);
	add_replacing(12, 11, 6);
	ops = run();
	g_assert_cmpuint(left(ops), ==, 3);
	g_assert_cmpuint(op_of(ops, 2)->r.obj.ino, ==, 10);
	g_assert_cmpuint(op_of(ops, 3)->r.old.ino, ==, 10);
	g_assert_true(op_of(ops, 1) == op_of(ops, 4));
	g_assert_cmpuint(op_of(ops, 4)->r.old.ino, ==, 10);
	g_assert_cmpuint(op_of(ops, 4)->r.obj.ino, ==, 12);
}

static void test_barrier(void)
{
	g_autoptr(IsdOps) ops = NULL;

	add_close(10, 5, 0, 5);
	add_close(10, 6, 5, 1)->has_origin = true;
	add_close(10, 7, 6, 1);
	ops = run();
	g_assert_cmpuint(left(ops), ==, 3);
	g_assert_true(op_of(ops, 2)->barrier);
}

static void test_dir_mtime_keeps_its_place(void)
{
	g_autoptr(IsdOps) ops = NULL;
	struct kml_record *r;

	add(KML_MKDIR, 20, "d");
	add(KML_CREATE, 10, "f")->parent = oid(20);
	r = add(KML_SETATTR, 20, "d");
	r->attr.mode = DIR_MODE;
	r->attr.valid = KML_A_MTIME;
	ops = run();
	g_assert_cmpuint(left(ops), ==, 3);
	g_assert_true(op_of(ops, 3) > op_of(ops, 2));
}

/* Spans against a bitmap, at random; the seed is g_test_rand's. */
static void test_spans(void)
{
	guint8 want[256] = { 0 }, got[256] = { 0 };
	GArray *spans = NULL;

	for (guint i = 0; i < 40; i++) {
		guint off = g_test_rand_int_range(0, 250), end = g_test_rand_int_range(off, 256);

		memset(want + off, 1, end - off);
		isd_spans_add(&spans, off, end);
	}
	for (guint i = 0; i < spans->len; i++) {
		const IsdSpan *s = &g_array_index(spans, IsdSpan, i);

		g_assert_cmpuint(s->off, <, s->end);
		if (i)
			g_assert_cmpuint(g_array_index(spans, IsdSpan, i - 1).end, <, s->off);
		memset(got + s->off, 1, s->end - s->off);
	}
	g_assert_cmpmem(want, sizeof(want), got, sizeof(got));
	g_array_unref(spans);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_set_nonfatal_assertions();
	g_test_add_func("/coalesce/create-takes-content", test_create_takes_content);
	g_test_add_func("/coalesce/later-mtime", test_later_mtime);
	g_test_add_func("/coalesce/close-union", test_close_union);
	g_test_add_func("/coalesce/close-all", test_close_all);
	g_test_add_func("/coalesce/mode-comes-with-content", test_mode_comes_with_content);
	g_test_add_func("/coalesce/made-and-removed", test_made_and_removed);
	g_test_add_func("/coalesce/removed-dir-in-use", test_removed_dir_in_use);
	g_test_add_func("/coalesce/renamed-is-kept", test_renamed_is_kept);
	g_test_add_func("/coalesce/reused-number", test_reused_number);
	g_test_add_func("/coalesce/replaced", test_replaced);
	g_test_add_func("/coalesce/replaced-between", test_replaced_between);
	g_test_add_func("/coalesce/barrier", test_barrier);
	g_test_add_func("/coalesce/dir-mtime", test_dir_mtime_keeps_its_place);
	g_test_add_func("/coalesce/spans", test_spans);
	return g_test_run();
}
