// SPDX-License-Identifier: GPL-2.0-or-later
/* Following a log: in order, once, resumed where the last commit was. */
#include "fixture.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util.h"

typedef struct {
	Fixture	f;
	IsdCore	core;
	int	kml;
} Followed;

static guint64 seen, last_seen, fail_at;

static gboolean each(IsdCore *core, const struct kml_record *r, guint64 offset, guint64 next,
		     GError **error)
{
	g_assert_cmpuint(r->recno, ==, last_seen + 1);
	g_assert_cmpuint(next, >, offset);
	if (r->recno == fail_at) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED, "told to fail");
		return FALSE;
	}
	last_seen = r->recno;
	seen++;
	return TRUE;
}

static void set_up(Followed *t)
{
	struct klog_header h = { .epoch = 1, .first_offset = KML_HEADER_SIZE, .first_recno = 1 };

	seen = last_seen = fail_at = 0;
	memset(t, 0, sizeof(*t));
	fixture_set_up(&t->f);
	strcpy(h.fileset, "f");
	g_assert_cmpint(klog_create(t->f.meta_fd, "kml", &h), ==, 0);
	t->kml = openat(t->f.meta_fd, "kml", O_WRONLY | O_APPEND);
	g_assert_cmpint(klog_open(t->f.meta_fd, "kml", &t->core.log), ==, 0);
	t->core.dir = t->f.top;
	t->core.state = t->f.s;
	t->core.is_server = TRUE;
	assert_ok(isd_state_set_u64(t->f.s, "local_offset", KML_HEADER_SIZE, E));
}

static void tear_down(Followed *t)
{
	klog_close(t->core.log);
	close(t->kml);
	fixture_tear_down(&t->f);
}

static void add(Followed *t, guint n)
{
	for (guint i = 0; i < n; i++) {
		g_autofree char *name = g_strdup_printf("n%" G_GUINT64_FORMAT, t->f.recno);
		struct kml_record r = rec(&t->f, KML_CREATE, 100 + t->f.recno, t->f.root, name);

		append_record(t->kml, &r);
	}
}

static guint64 objects(Followed *t)
{
	guint64 n, b;

	assert_ok(isd_state_counts(t->f.s, &n, &b, E));
	return n;
}

static void test_all(void)
{
	Followed t;
	guint64 at;

	set_up(&t);
	assert_ok(isd_follow(&t.core, each, E));
	g_assert_cmpuint(seen, ==, 0);
	add(&t, 10000);
	assert_ok(isd_follow(&t.core, each, E));
	g_assert_cmpuint(seen, ==, 10000);
	g_assert_cmpuint(t.core.log_recno, ==, 10000);
	g_assert_cmpuint(objects(&t), ==, 10001);
	assert_ok(isd_state_get_u64(t.f.s, "local_offset", &at, E));
	g_assert_cmpuint(at, ==, t.core.applied);
	g_assert_cmpuint(at, ==, lseek(t.kml, 0, SEEK_END));
	add(&t, 1);
	assert_ok(isd_follow(&t.core, each, E));
	g_assert_cmpuint(seen, ==, 10001);
	tear_down(&t);
}

/* What fails in the middle is done again from the last commit. */
static void test_failing(void)
{
	Followed t;
	g_autoptr(GError) error = NULL;

	set_up(&t);
	add(&t, 10);
	fail_at = 5;
	g_assert_false(isd_follow(&t.core, each, &error));
	g_assert_error(error, ISD_ERROR, ISD_ERROR_FAILED);
	g_assert_cmpuint(t.core.applied, ==, KML_HEADER_SIZE);
	g_assert_cmpuint(objects(&t), ==, 1);
	fail_at = last_seen = 0;
	assert_ok(isd_follow(&t.core, each, E));
	g_assert_cmpuint(objects(&t), ==, 11);
	tear_down(&t);
}

/* The caller's transaction takes everything back. */
static void test_caller_rolls_back(void)
{
	Followed t;

	set_up(&t);
	add(&t, 10);
	assert_ok(isd_state_begin(t.f.s, E));
	assert_ok(isd_follow(&t.core, each, E));
	isd_state_rollback(t.f.s);
	last_seen = 0;
	assert_ok(isd_follow(&t.core, each, E));
	g_assert_cmpuint(seen, ==, 20);
	g_assert_cmpuint(objects(&t), ==, 11);
	tear_down(&t);
}

/* A record that is only half there is the end for now; damage is an error. */
static void test_half(void)
{
	Followed t;
	g_autoptr(GError) error = NULL;
	off_t end;

	set_up(&t);
	add(&t, 3);
	end = lseek(t.kml, 0, SEEK_END);
	g_assert_cmpint(ftruncate(t.kml, end - 8), ==, 0);
	assert_ok(isd_follow(&t.core, each, E));
	g_assert_cmpuint(seen, ==, 2);
	tear_down(&t);
}

/* A file that changed unseen: its attributes come from the tree. */
static void test_resync(void)
{
	Followed t;
	struct kml_record r;
	g_auto(IsdObject) o = { 0 };
	gboolean found;
	struct stat st;
	int fd;

	set_up(&t);
	t.core.root_fd = t.f.root_fd;
	fd = openat(t.f.root_fd, "a", O_CREAT | O_WRONLY, 0600);
	g_assert_cmpint(write(fd, "abc", 3), ==, 3);
	g_assert_cmpint(fstat(fd, &st), ==, 0);
	r = rec(&t.f, KML_CREATE, st.st_ino, t.f.root, "a");
	g_assert_cmpint(inode_generation(fd, "", &r.obj.gen), ==, 0);
	close(fd);
	append_record(t.kml, &r);
	r.opcode = KML_RESYNC;
	r.has_attr = false;
	r.recno = ++t.f.recno;
	append_record(t.kml, &r);
	assert_ok(isd_follow(&t.core, each, E));
	assert_ok(isd_state_by_oid(t.f.s, r.obj, &o, &found, E));
	g_assert_true(found);
	g_assert_cmpuint(o.attr.size, ==, 3);
	g_assert_cmpuint(o.attr.mode, ==, S_IFREG | 0600);
	g_assert_cmpint(o.attr.mtime.nsec, ==, st.st_mtim.tv_nsec);
	g_assert_cmpuint(o.cver, ==, 2);
	tear_down(&t);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/follow/all", test_all);
	g_test_add_func("/follow/failing", test_failing);
	g_test_add_func("/follow/caller-rolls-back", test_caller_rolls_back);
	g_test_add_func("/follow/half", test_half);
	g_test_add_func("/follow/resync", test_resync);
	return g_test_run();
}
