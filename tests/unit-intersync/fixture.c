// SPDX-License-Identifier: GPL-2.0-or-later
/* A fileset on a temporary directory: see fixture.h. */
#include "fixture.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util.h"

void fixture_set_up(Fixture *f)
{
	struct stat st;

	memset(f, 0, sizeof(*f));
	f->top = g_dir_make_tmp("intersync-test-XXXXXX", NULL);
	f->root_fd = open(f->top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	g_assert_cmpint(mkdirat(f->root_fd, ".intermezzo", 0700), ==, 0);
	g_assert_cmpint(mkdirat(f->root_fd, ".intermezzo/f", 0700), ==, 0);
	f->meta_fd = openat(f->root_fd, ".intermezzo/f", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	g_assert_cmpint(fstat(f->root_fd, &st), ==, 0);
	f->root.ino = st.st_ino;
	g_assert_cmpint(inode_generation(f->root_fd, "", &f->root.gen), ==, 0);
	f->s = NULL;
	fixture_reopen(f);
	assert_ok(isd_state_load_base(f->s, f->meta_fd, E));
}

void fixture_reopen(Fixture *f)
{
	isd_state_close(f->s);
	f->s = NULL;
	assert_ok((f->s = isd_state_open(f->meta_fd, E)) != NULL);
}

void fixture_tear_down(Fixture *f)
{
	const char *argv[] = { "rm", "-rf", f->top, NULL };

	isd_state_close(f->s);
	close(f->meta_fd);
	close(f->root_fd);
	g_spawn_sync(NULL, (char **) argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL,
		     NULL, NULL);
	g_free(f->top);
}

struct kml_oid oid(guint64 ino)
{
	return (struct kml_oid) { ino, 7 };
}

struct kml_str str(const char *s)
{
	return (struct kml_str) { s, strlen(s) };
}

struct kml_record rec(Fixture *f, unsigned int opcode, guint64 ino, struct kml_oid parent,
		      const char *name)
{
	struct kml_record r = {
		.opcode = opcode,
		.recno = ++f->recno,
		.obj = oid(ino),
		.parent = parent,
		.has_attr = true,
		.attr = {
			.mode = (opcode == KML_MKDIR || opcode == KML_RMDIR ? S_IFDIR :
				 opcode == KML_SYMLINK ? S_IFLNK : S_IFREG) | 0644,
			.nlink = 1,
			.mtime = { f->recno, 1 },
			.ctime = { f->recno, 2 },
		},
	};

	if (name)
		r.name = str(name);
	return r;
}

void append_record(int fd, const struct kml_record *r)
{
	gsize size = kml_encoded_size(r);
	g_autofree char *buf = g_malloc0(size);
	ssize_t n = kml_encode(buf, size, r);

	g_assert_cmpint(n, >, 0);
	kml_seal(buf, r->recno, r->recno);
	g_assert_cmpint(write(fd, buf, n), ==, n);
}
