// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Looking at the lower tree: what an object of the state is like there now.
 * For check.c, and for records that say "look at it" (follow.c).
 */
#include "daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "util.h"

/* Step by step, for paths of any length; no links are followed. */
int isd_tree_open_dir(int root_fd, const char *path)
{
	g_auto(GStrv) parts = g_strsplit(path, "/", -1);
	int fd = openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	for (char **p = parts; *p && fd >= 0; p++) {
		int next;

		if (!**p)
			continue;
		next = openat(fd, *p, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		close(fd);
		fd = next;
	}
	return fd;
}

void isd_tree_attrs_of(const struct stat *st, struct kml_attrs *a)
{
	*a = (struct kml_attrs) {
		.mode = st->st_mode,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.nlink = st->st_nlink,
		.rdev_major = major(st->st_rdev),
		.rdev_minor = minor(st->st_rdev),
		.size = st->st_size,
		.mtime = { st->st_mtim.tv_sec, st->st_mtim.tv_nsec },
		.ctime = { st->st_ctim.tv_sec, st->st_ctim.tv_nsec },
	};
}

/* Is what has this name the object?  Then its attributes, too. */
static gboolean look(int dirfd, const char *name, struct kml_oid oid, struct kml_attrs *ret)
{
	struct stat st;
	guint32 gen;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_ino != oid.ino)
		return FALSE;
	if (inode_generation(dirfd, name, &gen) < 0 || gen != oid.gen)
		return FALSE;
	isd_tree_attrs_of(&st, ret);
	return TRUE;
}

gboolean isd_tree_attrs(IsdCore *core, struct kml_oid oid, struct kml_attrs *ret,
			gboolean *ret_found, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 };
	g_autofree char *dir = NULL;
	gboolean known, named;
	int fd;

	*ret_found = FALSE;
	if (!isd_state_by_oid(core->state, oid, &o, &known, error) ||
	    (known && !isd_state_a_name(core->state, o.id, &n, &named, error)))
		return FALSE;
	if (!known || !named)
		return TRUE;
	dir = isd_state_path(core->state, n.parent, error);
	if (!dir)
		return FALSE;
	fd = isd_tree_open_dir(core->root_fd, dir);
	if (fd < 0)
		return TRUE;
	*ret_found = look(fd, n.name, oid, ret);
	close(fd);
	return TRUE;
}
