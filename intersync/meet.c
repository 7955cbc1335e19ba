// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the tree has and the state does not know: a client was killed after it had made a
 * directory or a file of the server's, and before that was written down; then a local program
 * used it.  Such an object gets a row, as one that was made here, before the record
 * about it is taken in: otherwise that record would be about nothing, and be lost.  When the pull comes to it again, both
 * are one.  Called by follow.c.
 */
#include "daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "util.h"

static gboolean copy_xattr(IsdCore *core, gint64 id, const char *path, const char *name,
			   GError **error)
{
	ssize_t n = lgetxattr(path, name, NULL, 0);
	g_autofree char *value = g_malloc(MAX(n, 0) + 1);

	n = n < 0 ? n : lgetxattr(path, name, value, n);
	return n < 0 || isd_state_set_xattr(core->state, id, name, strlen(name), value, n, error);
}

static gboolean copy_xattrs(IsdCore *core, gint64 id, int dirfd, const char *name, GError **error)
{
	g_autofree char *path = g_strdup_printf("/proc/self/fd/%d/%s", dirfd, name);
	ssize_t n = llistxattr(path, NULL, 0);
	g_autofree char *list = g_malloc(MAX(n, 0) + 1);

	n = n <= 0 ? n : llistxattr(path, list, n);
	for (char *p = list; n > 0 && p < list + n; p += strlen(p) + 1)
		if (isd_tree_shares_xattr(p) && !copy_xattr(core, id, path, p, error))
			return FALSE;
	return TRUE;
}

/* The file of a row was replaced by the server's new version: it goes on under that number. */
static gboolean meet_replaced(IsdCore *core, gint64 id, int dirfd, const char *name,
			      struct kml_oid want, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	gboolean found;
	struct stat st;
	guint32 gen;

	if (!isd_state_by_id(core->state, id, &o, &found, error))
		return FALSE;
	if (!found || !S_ISREG(o.attr.mode) || (o.oid.ino == want.ino && o.oid.gen == want.gen) ||
	    fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_ino != want.ino ||
	    !S_ISREG(st.st_mode) || inode_generation(dirfd, name, &gen) < 0 || gen != want.gen)
		return TRUE;
	o.oid = want;
	return isd_state_put_object(core->state, &o, error);
}

/*
 * The name gets a row if it is a directory or a file that no row has, and that object unless `want`
 * is any (ino 0).  *ret_id 0: it is not; otherwise the row that the name has.
 */
static gboolean meet_name(IsdCore *core, gint64 parent, int dirfd, const char *name,
			  struct kml_oid want, gint64 *ret_id, GError **error)
{
	g_auto(IsdName) n = { 0 };
	g_auto(IsdObject) known = { 0 };
	IsdObject o = { 0 };
	gboolean found;
	struct stat st;

	*ret_id = 0;
	if (!isd_state_lookup(core->state, parent, name, &n, &found, error))
		return FALSE;
	if (found) {
		*ret_id = n.id;
		return !want.ino || meet_replaced(core, n.id, dirfd, name, want, error);
	}
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	    !(S_ISDIR(st.st_mode) || (S_ISREG(st.st_mode) && st.st_nlink == 1)) ||
	    inode_generation(dirfd, name, &o.oid.gen) < 0)
		return TRUE;
	o.oid.ino = st.st_ino;
	if (want.ino && (want.ino != o.oid.ino || want.gen != o.oid.gen))
		return TRUE;
	if (!isd_state_by_oid(core->state, o.oid, &known, &found, error) || found)
		return !error || !*error;
	isd_tree_attrs_of(&st, &o.attr);
	if (!isd_state_add_object(core->state, &o, error) ||
	    !isd_state_put_name(core->state, &(IsdName) { .parent = parent, .name = (char *) name,
							  .id = o.id }, error))
		return FALSE;
	core->met = TRUE;
	*ret_id = o.id;
	return copy_xattrs(core, o.id, dirfd, name, error);
}

/* All directories of the path; *ret_id 0: it does not lead to `want`. */
static gboolean meet_dir(IsdCore *core, struct kml_str dir, struct kml_oid want, gint64 *ret_id,
			 GError **error)
{
	g_autofree char *path = g_strndup(dir.ptr, dir.len);
	g_auto(GStrv) parts = g_strsplit(path, "/", -1);
	g_autoptr(GString) at = g_string_new("/");
	int fd = isd_tree_open_dir(core->root_fd, path);
	gboolean ok = TRUE;
	struct stat st;
	guint32 gen;

	*ret_id = 0;
	if (fd < 0)
		return TRUE;
	if (fstat(fd, &st) == 0 && st.st_ino == want.ino &&
	    inode_generation(fd, "", &gen) == 0 && gen == want.gen)
		*ret_id = ISD_ROOT_ID;
	close(fd);
	for (char **p = parts; *p && *ret_id && ok; p++) {
		if (!**p)
			continue;
		fd = isd_tree_open_dir(core->root_fd, at->str);
		ok = fd < 0 || meet_name(core, *ret_id, fd, *p, (struct kml_oid) { 0 }, ret_id, error);
		if (fd >= 0)
			close(fd);
		g_string_append_printf(at, "%s/", *p);
	}
	return ok;
}

gboolean isd_meet(IsdCore *core, const struct kml_record *r, GError **error)
{
	gint64 parent = 0, id;
	gboolean ok;
	char *name;
	int fd;

	if (r->dir.ptr && !meet_dir(core, r->dir, r->parent, &parent, error))
		return FALSE;
	if (r->tdir.ptr && !meet_dir(core, r->tdir, r->tparent, &id, error))
		return FALSE;
	if (!parent || !r->name.ptr || isd_makes(r->opcode))
		return TRUE;
	name = g_strndup(r->dir.ptr, r->dir.len);
	fd = isd_tree_open_dir(core->root_fd, name);
	g_free(name);
	if (fd < 0)
		return TRUE;
	name = g_strndup(r->name.ptr, r->name.len);
	ok = meet_name(core, parent, fd, name, r->obj, &id, error);
	g_free(name);
	close(fd);
	return ok;
}
