// SPDX-License-Identifier: GPL-2.0-or-later
/* izoctl check's comparison: says nothing of equal things, finds each difference. */
#include "fixture.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon.h"
#include "util.h"

static GString *said;

static void found(const char *sentence, gpointer data)
{
	g_string_append_printf(said, "%s\n", sentence);
}

static void set_up(Fixture *f)
{
	struct klog_header h = { .epoch = 1, .first_offset = KML_HEADER_SIZE, .first_recno = 1 };

	fixture_set_up(f);
	strcpy(h.fileset, "f");
	g_assert_cmpint(klog_create(f->meta_fd, "kml", &h), ==, 0);
	said = g_string_new(NULL);
}

static void tear_down(Fixture *f)
{
	fixture_tear_down(f);
	g_string_free(said, TRUE);
}

/* Make the file for real and tell the state of it. */
static void make_file(Fixture *f, const char *name)
{
	int fd = openat(f->root_fd, name, O_CREAT | O_WRONLY | O_EXCL, 0644);
	struct kml_record r = rec(f, KML_CREATE, 1, f->root, name);
	struct stat st;

	g_assert_cmpint(write(fd, "abc", 3), ==, 3);
	g_assert_cmpint(fstat(fd, &st), ==, 0);
	r.obj.ino = st.st_ino;
	g_assert_cmpint(inode_generation(fd, "", &r.obj.gen), ==, 0);
	r.attr.mode = st.st_mode;
	r.attr.size = 3;
	r.attr.mtime = (struct kml_time) { st.st_mtim.tv_sec, st.st_mtim.tv_nsec };
	g_assert_cmpint(fstat(f->root_fd, &st), ==, 0);
	r.has_ptime = true;
	r.ptime = (struct kml_time) { st.st_mtim.tv_sec, st.st_mtim.tv_nsec };
	assert_ok(isd_state_apply(f->s, &r, TRUE, E));
	close(fd);
}

static guint64 differences(Fixture *f)
{
	IsdCheckCounts n;

	g_string_truncate(said, 0);
	assert_ok(isd_check(f->root_fd, f->meta_fd, found, NULL, &n, E));
	return n.differences;
}

static void keep_root_mtime(Fixture *f, const struct stat *st)
{
	struct timespec t[2] = { { .tv_nsec = UTIME_OMIT }, st->st_mtim };

	g_assert_cmpint(futimens(f->root_fd, t), ==, 0);
}

static void test_check(void)
{
	Fixture f;
	struct stat st;
	int fd;

	set_up(&f);
	make_file(&f, "a");
	make_file(&f, "b\n");
	g_assert_cmpuint(differences(&f), ==, 0);
	g_assert_cmpint(fstat(f.root_fd, &st), ==, 0);
	g_assert_cmpint(fchmodat(f.root_fd, "a", 0600, 0), ==, 0);
	g_assert_cmpuint(differences(&f), ==, 1);
	g_assert_cmpstr(said->str, ==, "/a: the mode\n");
	g_assert_cmpint(fchmodat(f.root_fd, "a", 0644, 0), ==, 0);
	g_assert_cmpint(unlinkat(f.root_fd, "b\n", 0), ==, 0);
	keep_root_mtime(&f, &st);
	g_assert_cmpuint(differences(&f), ==, 1);
	g_assert_cmpstr(said->str, ==, "/b\\012: the state has it, the tree has not\n");
	fd = openat(f.root_fd, "b\n", O_CREAT | O_WRONLY, 0644);
	close(fd);
	fd = openat(f.root_fd, "c", O_CREAT | O_WRONLY, 0644);
	close(fd);
	keep_root_mtime(&f, &st);
	g_assert_cmpuint(differences(&f), ==, 2);
	g_assert_nonnull(strstr(said->str, "/c: the tree has it, the state has not\n"));
	g_assert_nonnull(strstr(said->str, "/b\\012: it is another object"));
	tear_down(&f);
}

static void test_root(void)
{
	Fixture f;

	set_up(&f);
	make_file(&f, "a");
	g_assert_cmpint(fchmod(f.root_fd, 0711), ==, 0);
	g_assert_cmpuint(differences(&f), ==, 1);
	g_assert_cmpstr(said->str, ==, "/: the mode\n");
	tear_down(&f);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/check/names", test_check);
	g_test_add_func("/check/root", test_root);
	return g_test_run();
}
