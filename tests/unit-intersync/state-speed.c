// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * state-speed [OBJECTS]: how fast a base is loaded and records are applied,
 * and how much memory that takes.  Run by hand and by bench/.
 */
#include "fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static guint64 ino_of(guint64 i)
{
	return 1000 + i;
}

/* 1000 files per directory. */
static struct kml_record nth(Fixture *f, guint64 i, char *name, gsize size)
{
	g_snprintf(name, size, "file-%" G_GUINT64_FORMAT ".dat", i);
	if (i % 1000 == 0)
		return rec(f, KML_MKDIR, ino_of(i), f->root, name);
	return rec(f, KML_CREATE, ino_of(i), oid(ino_of(i - i % 1000)), name);
}

static void write_base(Fixture *f, guint64 objects)
{
	int fd = openat(f->meta_fd, "base", O_WRONLY | O_CREAT, 0600);
	struct kml_record r = rec(f, KML_MKDIR, 2, (struct kml_oid) { 0 }, NULL);
	char name[64];

	r.obj = f->root;
	append_record(fd, &r);
	for (guint64 i = 0; i < objects; i++) {
		r = nth(f, i, name, sizeof(name));
		append_record(fd, &r);
	}
	r = (struct kml_record) { .opcode = KML_CATALOG_END, .recno = ++f->recno };
	append_record(fd, &r);
	close(fd);
}

static void report(const char *what, guint64 n, gint64 since)
{
	double s = (g_get_monotonic_time() - since) / 1e6;
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	printf("%-8s %10" G_GUINT64_FORMAT " in %7.2f s: %8.0f/s, %ld KiB resident at most\n",
	       what, n, s, n / s, u.ru_maxrss);
}

static void apply_all(Fixture *f, guint64 objects)
{
	char name[64];

	for (guint64 i = 0; i < objects; i++) {
		struct kml_record r;

		if (i % 8192 == 0)
			assert_ok(isd_state_begin(f->s, E));
		r = nth(f, i, name, sizeof(name));
		r.has_ptime = true;
		r.ptime = r.attr.mtime;
		assert_ok(isd_state_apply(f->s, &r, TRUE, E));
		if (i % 8192 == 8191 || i == objects - 1)
			assert_ok(isd_state_commit(f->s, E));
	}
}

int main(int argc, char **argv)
{
	guint64 objects = argc > 1 ? g_ascii_strtoull(argv[1], NULL, 10) : 100000;
	Fixture f;
	gint64 t;

	fixture_set_up(&f);
	write_base(&f, objects);
	t = g_get_monotonic_time();
	assert_ok(isd_state_load_base(f.s, f.meta_fd, E));
	report("base", objects, t);
	g_assert_cmpint(unlinkat(f.meta_fd, "base", 0), ==, 0);
	assert_ok(isd_state_load_base(f.s, f.meta_fd, E));
	f.recno = 0;
	t = g_get_monotonic_time();
	apply_all(&f, objects);
	report("records", objects, t);
	fixture_tear_down(&f);
	return 0;
}
