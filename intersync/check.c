// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * izoctl check: do log, state and tree agree?  The log is read and verified;
 * every row of the state is compared with the tree, every entry of the tree is
 * looked for in the state.  Streaming: one directory's page of names at a time.
 *
 * The tree may be in use.  What differs is therefore looked at again a little
 * later, in a newer view of the state, and told only if it still differs.
 */
#include "daemon.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "statedb.h"
#include "util.h"

#define PAGE		1024	/* names of a directory at a time */
#define TRIES		20	/* times that a difference is looked at */
#define PAUSE		100000	/* microseconds between them */

typedef struct {
	int		root_fd;
	IsdState	*s;
	IsdCheckFound	found;
	gpointer	data;
	IsdCheckCounts	*n;
} Check;

G_GNUC_PRINTF(2, 3)
static void differ(Check *c, const char *format, ...)
{
	g_autofree char *text = NULL;
	va_list ap;

	va_start(ap, format);
	text = g_strdup_vprintf(format, ap);
	va_end(ap);
	c->n->differences++;
	c->found(text, c->data);
}

/* "/a/b" for people */
static char *shown(const char *dir, const char *name)
{
	g_autofree char *path = g_strconcat(dir, dir[1] ? "/" : "", name, NULL);
	char *raw = name_escape(path, strlen(path));
	char *text = g_strdup(raw ? raw : "?");

	free(raw);
	return text;
}

static gboolean link_differs(int dirfd, const char *name, const IsdObject *o)
{
	char text[PATH_MAX];
	ssize_t n = readlinkat(dirfd, name, text, sizeof(text));

	return n < 0 || (gsize) n != o->link_len || memcmp(text, o->link, n);
}

gboolean isd_tree_shares_xattr(const char *name)
{
	if (g_str_has_prefix(name, "trusted.intermezzo."))
		return FALSE;
	return g_str_has_prefix(name, "user.") || g_str_has_prefix(name, "security.") ||
	       g_str_has_prefix(name, "trusted.") ||
	       g_str_has_prefix(name, "system.posix_acl_");
}

static gboolean xattr_differs(const char *path, const char *name, struct kml_str value)
{
	g_autofree char *buf = g_malloc(value.len + 1);
	ssize_t n = lgetxattr(path, name, buf, value.len + 1);

	return n < 0 || (gsize) n != value.len || memcmp(buf, value.ptr, n);
}

/* How many the tree has; -1 where they cannot be listed. */
static int count_xattrs(const char *path)
{
	ssize_t n = llistxattr(path, NULL, 0);
	g_autofree char *list = NULL;
	int count = 0;

	if (n <= 0)
		return n < 0 && errno != ENOTSUP ? -1 : 0;
	list = g_malloc(n);
	n = llistxattr(path, list, n);
	for (char *p = list; n > 0 && p < list + n; p += strlen(p) + 1)
		count += isd_tree_shares_xattr(p);
	return count;
}

static gboolean xattrs_differ(Check *c, int dirfd, const char *name, gint64 id, GError **error)
{
	g_autofree char *path = g_strdup_printf("/proc/self/fd/%d/%s", dirfd, name);
	g_autoptr(GBytes) blob = NULL;
	struct kml_str key, value;
	size_t pos = 0;
	int count = 0;

	if (!isd_state_xattrs(c->s, id, &blob, error))
		return FALSE;
	while (blob && kml_xattr_next(g_bytes_get_data(blob, NULL), g_bytes_get_size(blob), &pos,
				      &key, &value)) {
		g_autofree char *text = g_strndup(key.ptr, key.len);

		count++;
		if (xattr_differs(path, text, value))
			return TRUE;
	}
	return count != count_xattrs(path);
}

/* What of the attributes differs, or NULL. */
static const char *attrs_differ(const IsdObject *o, const struct stat *st)
{
	const struct kml_attrs *a = &o->attr;

	if ((a->mode & S_IFMT) != (st->st_mode & S_IFMT))
		return "the type";
	if (!S_ISLNK(a->mode) && a->mode != st->st_mode)
		return "the mode";
	if (a->uid != st->st_uid || a->gid != st->st_gid)
		return "the owner";
	if (S_ISREG(a->mode) && a->size != (guint64) st->st_size)
		return "the size";
	if (a->mtime.sec != st->st_mtim.tv_sec || a->mtime.nsec != st->st_mtim.tv_nsec)
		return "the mtime";
	if (!S_ISDIR(a->mode) && a->nlink != st->st_nlink)
		return "the number of links";
	if ((S_ISCHR(a->mode) || S_ISBLK(a->mode)) &&
	    makedev(a->rdev_major, a->rdev_minor) != st->st_rdev)
		return "the device number";
	return NULL;
}

/* What differs between a name of the state and the tree; NULL: nothing. */
static const char *entry_differs(Check *c, int dirfd, const char *name, gint64 id, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	gboolean known;
	const char *what;
	struct stat st;
	guint32 gen = 0;

	if (!isd_state_by_id(c->s, id, &o, &known, error))
		return NULL;
	if (!known)
		return "the state has a name without an object";
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? "the state has it, the tree has not" : g_strerror(errno);
	if (st.st_ino != o.oid.ino ||
	    (inode_generation(dirfd, name, &gen) == 0 && gen != o.oid.gen))
		return "it is another object than the state says";
	what = attrs_differ(&o, &st);
	if (what)
		return what;
	if (S_ISLNK(st.st_mode) && link_differs(dirfd, name, &o))
		return "the target of the link";
	return xattrs_differ(c, dirfd, name, id, error) ? "the extended attributes" : NULL;
}

/* A newer view of the state. */
static gboolean renew(Check *c, GError **error)
{
	return isd_state_commit(c->s, error) && isd_state_begin(c->s, error);
}

static const char *name_differs(Check *c, gint64 parent, const char *name, GError **error)
{
	g_autofree char *path = NULL;
	g_auto(IsdName) n = { 0 };
	const char *what = NULL;
	gboolean found;
	struct stat st;
	int fd;

	if (!parent)
		return entry_differs(c, c->root_fd, ".", ISD_ROOT_ID, error);
	/* A directory that is gone by now is its own entry's difference. */
	path = isd_state_path(c->s, parent, NULL);
	if (!path || !isd_state_lookup(c->s, parent, name, &n, &found, error))
		return NULL;
	fd = isd_tree_open_dir(c->root_fd, path);
	if (fd < 0)
		return NULL;
	if (found)
		what = entry_differs(c, fd, name, n.id, error);
	else if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		what = "the tree has it, the state has not";
	close(fd);
	return what;
}

/* A name that looked different (parent 0: the root): look until it agrees, or tell it. */
static gboolean doubt(Check *c, gint64 parent, const char *dir, const char *name, GError **error)
{
	g_autofree char *text = NULL;
	g_autoptr(GError) local = NULL;
	const char *what = NULL;

	/* Many differences are no passing thing: do not wait for each. */
	for (guint i = c->n->differences > 50 ? TRIES - 1 : 0; i < TRIES; i++) {
		if (!renew(c, error))
			return FALSE;
		what = name_differs(c, parent, name, &local);
		if (local) {
			g_propagate_error(error, g_steal_pointer(&local));
			return FALSE;
		}
		if (!what)
			return TRUE;
		g_usleep(PAUSE);
	}
	text = shown(dir, name);
	differ(c, "%s: %s", text, what);
	return TRUE;
}

static gboolean hidden(gint64 dir, const char *name)
{
	if (!strcmp(name, ".") || !strcmp(name, ".."))
		return TRUE;
	return dir == ISD_ROOT_ID && (!strcmp(name, ".intermezzo") || !strcmp(name, "lost+found"));
}

/* Every name that the state has in one directory. */
static gboolean check_names(Check *c, gint64 dir, const char *path, int fd, GError **error)
{
	g_autofree char *after = NULL;
	g_autoptr(GArray) page = NULL;

	do {
		g_clear_pointer(&page, g_array_unref);
		if (!isd_state_list(c->s, dir, after, PAGE, &page, error))
			return FALSE;
		for (guint i = 0; i < page->len; i++) {
			IsdName *n = &g_array_index(page, IsdName, i);
			g_autoptr(GError) local = NULL;
			const char *what = entry_differs(c, fd, n->name, n->id, &local);

			c->n->names++;
			if (what && !doubt(c, dir, path, n->name, error))
				return FALSE;
			if (local) {
				g_propagate_error(error, g_steal_pointer(&local));
				return FALSE;
			}
		}
		if (page->len) {
			g_free(after);
			after = g_strdup(g_array_index(page, IsdName, page->len - 1).name);
		}
	} while (page->len == PAGE);
	return TRUE;
}

/* Every entry of the tree in one directory; takes fd. */
static gboolean check_entries(Check *c, gint64 dir, const char *path, int fd, GError **error)
{
	DIR *d = fdopendir(fd);
	gboolean ok = TRUE;
	struct dirent *e;

	if (!d) {
		close(fd);
		differ(c, "%s: %s", path, g_strerror(errno));
		return TRUE;
	}
	while (ok && (e = readdir(d))) {
		g_auto(IsdName) n = { 0 };
		gboolean found;

		if (hidden(dir, e->d_name))
			continue;
		ok = isd_state_lookup(c->s, dir, e->d_name, &n, &found, error) &&
		     (found || doubt(c, dir, path, e->d_name, error));
	}
	closedir(d);
	return ok;
}

static gboolean check_dir(Check *c, gint64 id, GError **error)
{
	g_autofree char *path = NULL;
	int fd;

	/* A view that is kept for long keeps SQLite from emptying its WAL. */
	if (!renew(c, error))
		return FALSE;
	path = isd_state_path(c->s, id, NULL);
	/* It hangs nowhere: renamed away or removed by now, or check_lost() tells it. */
	if (!path)
		return TRUE;
	fd = isd_tree_open_dir(c->root_fd, path);
	if (fd < 0)
		return TRUE;
	if (check_names(c, id, path, fd, error))
		return check_entries(c, id, path, fd, error);
	close(fd);
	return FALSE;
}

/* The next row behind id that is a directory; 0: none. */
static gboolean next_dir(Check *c, gint64 after, gint64 *ret, GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(c->s, error, &st,
			     "SELECT id FROM obj WHERE id > ? AND (mode & 61440) = 16384"
			     " AND ino <> 0 ORDER BY id LIMIT 1", "i", after);

	if (rc < 0)
		return FALSE;
	*ret = rc ? sqlite3_column_int64(st, 0) : 0;
	if (rc)
		sqlite3_reset(st);
	return TRUE;
}

static gboolean check_tree(Check *c, GError **error)
{
	gint64 id = 0;

	while (next_dir(c, id, &id, error)) {
		if (!id)
			return TRUE;
		if (!check_dir(c, id, error))
			return FALSE;
	}
	return FALSE;
}

/*
 * Objects that no name leads to.  A client keeps those that the server still
 * has (soid) until it has told it, so only others are lost.
 */
static gboolean check_lost(Check *c, GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(c->s, error, &st,
			     "SELECT id, ino FROM obj WHERE id <> 1 AND sino = 0 AND NOT EXISTS"
			     " (SELECT 1 FROM name WHERE name.id = obj.id)", "");

	for (; rc > 0; rc = isd_sql_next(c->s, st, error))
		differ(c, "the state has object %lld (inode %lld) without a name",
		       (long long) sqlite3_column_int64(st, 0),
		       (long long) sqlite3_column_int64(st, 1));
	if (rc < 0)
		return FALSE;
	rc = isd_sql_row(c->s, error, &st,
			 "SELECT parent, name FROM name WHERE NOT EXISTS"
			 " (SELECT 1 FROM obj WHERE obj.id = name.parent)", "");
	for (; rc > 0; rc = isd_sql_next(c->s, st, error))
		differ(c, "the state has a name in directory %lld, which it does not have",
		       (long long) sqlite3_column_int64(st, 0));
	return rc == 0;
}

/* The log's last record, and a verdict on all of them in why. */
static int verify(Check *c, int meta_fd, guint64 *ret_last, char *why, gsize size)
{
	struct klog *log;
	uint64_t records = 0, end, last = 0;
	int rc = klog_open(meta_fd, "kml", &log);

	if (rc < 0)
		return rc;
	rc = klog_verify(log, &records, why, size);
	c->n->records = records;
	if (rc == 0)
		rc = klog_end(log, &end, &last);
	klog_close(log);
	*ret_last = last;
	return rc;
}

/* A running daemon needs a moment to take in the last records. */
static gboolean check_lag(Check *c, guint64 last, gboolean *ret_behind, GError **error)
{
	guint64 have = 0;

	for (guint i = 0; i < TRIES; i++) {
		if (!isd_state_get_u64(c->s, "local_recno", &have, error))
			return FALSE;
		*ret_behind = have < last;
		if (!*ret_behind)
			return TRUE;
		g_usleep(PAUSE);
	}
	differ(c, "the state has the log up to record %" G_GUINT64_FORMAT " of %"
	       G_GUINT64_FORMAT ": intersync has to run to take in the rest", have, last);
	return TRUE;
}

static gboolean check_log(Check *c, int meta_fd, gboolean *ret_behind, GError **error)
{
	char why[256] = "";
	guint64 last = 0;
	int rc = verify(c, meta_fd, &last, why, sizeof(why));

	if (rc == -EBADMSG)
		differ(c, "the log is damaged: %s", why);
	else if (rc < 0) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED, "kml: %s", g_strerror(-rc));
		return FALSE;
	}
	return check_lag(c, last, ret_behind, error);
}

static gboolean check_state(Check *c, GError **error)
{
	guint64 bytes;

	return isd_state_counts(c->s, &c->n->objects, &bytes, error) &&
	       doubt(c, 0, "/", "", error) && check_tree(c, error) && check_lost(c, error);
}

gboolean isd_check(int root_fd, int meta_fd, IsdCheckFound found, gpointer data,
		   IsdCheckCounts *ret, GError **error)
{
	g_autoptr(IsdState) s = isd_state_open_ro(meta_fd, error);
	Check c = { .root_fd = root_fd, .s = s, .found = found, .data = data, .n = ret };

	gboolean behind = FALSE;

	memset(ret, 0, sizeof(*ret));
	if (!s || !check_log(&c, meta_fd, &behind, error))
		return FALSE;
	if (behind)
		return TRUE;
	if (!isd_state_begin(s, error))
		return FALSE;
	if (check_state(&c, error))
		return isd_state_commit(s, error);
	isd_state_rollback(s);
	return FALSE;
}

void isd_check_report(const IsdCheckCounts *n, JsonBuilder *b)
{
	isd_json_number(b, "records", n->records);
	isd_json_number(b, "objects", n->objects);
	isd_json_number(b, "names", n->names);
	isd_json_number(b, "differences", n->differences);
}
