// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What has to be so when all is at rest: all trees are equal in everything that
 * promise 5 of the design names, nothing written is lost, log, state and tree of each
 * host agree, each record was taken in once, and there is no conflict where only one wrote.
 */
#include "sim.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

typedef struct {
	struct host	*h;
	GPtrArray	*lines;		/* one for each name */
	GHashTable	*first;		/* inode -> its first name */
	GHashTable	*contents;	/* keys of what is there; NULL: not wanted */
	gboolean	conflicts;
} Walk;

static void walk(Walk *w, const char *dir);

static int by_name(gconstpointer a, gconstpointer b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

static GPtrArray *names_in(struct host *h, const char *dir)
{
	g_autofree char *full = g_strconcat(h->dir, dir, NULL);
	GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
	g_autoptr(GDir) d = g_dir_open(full, 0, NULL);
	const char *name;

	while (d && (name = g_dir_read_name(d)))
		if (dir[1] || strcmp(name, ".intermezzo"))
			g_ptr_array_add(names, g_strdup(name));
	g_ptr_array_sort(names, by_name);
	return names;
}

static void add_xattrs(GString *s, const char *full)
{
	g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func(g_free);
	char names[4096], value[4096];
	ssize_t n = llistxattr(full, names, sizeof(names)), len;

	for (const char *p = names; n > 0 && p < names + n; p += strlen(p) + 1) {
		len = lgetxattr(full, p, value, sizeof(value));
		g_ptr_array_add(list, g_strdup_printf(" %s=%.*s", p, (int) MAX(len, 0), value));
	}
	g_ptr_array_sort(list, by_name);
	for (guint i = 0; i < list->len; i++)
		g_string_append(s, g_ptr_array_index(list, i));
}

static void add_content(Walk *w, GString *s, const char *full, const struct stat *st)
{
	char link[4096];
	ssize_t n;
	char *key;
	int fd;

	if (S_ISLNK(st->st_mode)) {
		n = readlink(full, link, sizeof(link));
		g_string_append_printf(s, " -> %.*s", (int) MAX(n, 0), link);
	}
	if (!S_ISREG(st->st_mode))
		return;
	fd = open(full, O_RDONLY | O_CLOEXEC);
	key = fs_content_key(fd);
	close(fd);
	g_string_append_printf(s, " '%s'", key);
	if (w->contents)
		g_hash_table_add(w->contents, key);
	else
		g_free(key);
}

/* The name by which it was met first: equal in all trees, as inode numbers are not. */
static const char *first_name(Walk *w, const struct stat *st, const char *path)
{
	guint64 ino = st->st_ino;
	const char *first = g_hash_table_lookup(w->first, &ino);

	if (first || S_ISDIR(st->st_mode))
		return first;
	g_hash_table_insert(w->first, g_memdup2(&ino, sizeof(ino)), g_strdup(path));
	return NULL;
}

static void add(Walk *w, const char *path)
{
	g_autofree char *full = g_strconcat(w->h->dir, path, NULL);
	GString *s = g_string_new(path);
	const char *first;
	struct stat st;

	if (lstat(full, &st) < 0)
		g_error("%s: %s", full, g_strerror(errno));
	first = first_name(w, &st, path);
	g_string_append_printf(s, " %o %u:%u", st.st_mode, st.st_uid, st.st_gid);
	if (!S_ISDIR(st.st_mode))
		g_string_append_printf(s, " links %u", (guint) st.st_nlink);
	g_string_append_printf(s, " mtime %" G_GINT64_FORMAT ".%09" G_GINT64_FORMAT,
			       (gint64) st.st_mtim.tv_sec, (gint64) st.st_mtim.tv_nsec);
	if (first)
		g_string_append_printf(s, " = %s", first);
	add_xattrs(s, full);
	add_content(w, s, full, &st);
	g_ptr_array_add(w->lines, g_string_free(s, FALSE));
	w->conflicts |= strstr(path, ".conflict-") != NULL;
	if (S_ISDIR(st.st_mode))
		walk(w, path);
}

static void walk(Walk *w, const char *dir)
{
	g_autoptr(GPtrArray) names = names_in(w->h, dir);

	for (guint i = 0; i < names->len; i++) {
		g_autofree char *path = g_strconcat(dir, dir[1] ? "/" : "",
						    g_ptr_array_index(names, i), NULL);

		add(w, path);
	}
}

static void walk_begin(Walk *w, struct host *h, GHashTable *contents)
{
	w->h = h;
	w->lines = g_ptr_array_new_with_free_func(g_free);
	w->first = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, g_free);
	w->contents = contents;
	add(w, "/");
}

static void walk_end(Walk *w)
{
	g_ptr_array_unref(w->lines);
	g_hash_table_unref(w->first);
}

/* What one has and the other has not. */
static void only_in(GString *s, const Walk *a, const Walk *b)
{
	for (guint i = 0; i < a->lines->len; i++) {
		const char *line = g_ptr_array_index(a->lines, i);

		if (!g_ptr_array_find_with_equal_func(b->lines, line, g_str_equal, NULL))
			g_string_append_printf(s, "\n  %-2s %s", a->h->name, line);
	}
}

static char *compare(const Walk *a, const Walk *b)
{
	g_autoptr(GString) s = g_string_new(NULL);

	only_in(s, a, b);
	only_in(s, b, a);
	if (!s->len)
		return NULL;
	return g_strdup_printf("differ: the trees of %s and %s:%s", a->h->name, b->h->name, s->str);
}

static void found(const char *sentence, gpointer data)
{
	GString *s = data;

	g_string_append_printf(s, "\n  %s", sentence);
}

static char *check(struct host *h)
{
	g_autoptr(GString) s = g_string_new(NULL);
	g_autoptr(GError) error = NULL;
	IsdCheckCounts n;

	if (!isd_check(h->root_fd, h->meta_fd, found, s, &n, &error))
		g_string_append_printf(s, "\n  %s", error->message);
	return s->len ? g_strdup_printf("check: of %s:%s", h->name, s->str) : NULL;
}

/* A record of a client becomes one record of the server. */
static char *exactly_once(struct host *h)
{
	g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	struct klog_header head;
	struct kml_record r;
	struct klog *log;
	char *why = NULL;
	uint64_t at, next;

	if (klog_open(h->meta_fd, "kml", &log) < 0 || klog_header(log, &head) < 0)
		return g_strdup("once: the log of the server cannot be opened");
	at = head.first_offset;
	for (; !why && klog_read(log, at, &r, &next) > 0; at = next) {
		char *key;

		if (!r.has_origin)
			continue;
		key = g_strdup_printf("record %" G_GUINT64_FORMAT " of replica %02x%02x",
				      (guint64) r.origin_recno, r.origin_replica[0],
				      r.origin_replica[1]);
		if (!g_hash_table_add(seen, key))
			why = g_strdup_printf("once: %s was done twice", key);
	}
	klog_close(log);
	return why;
}

char *verify(gboolean conflicts_allowed)
{
	g_autoptr(GHashTable) contents = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
							       NULL);
	char *why = NULL;
	Walk server = { 0 };

	walk_begin(&server, &sim_hosts[SERVER], contents);
	for (guint i = 1; i < sim_n_hosts && !why; i++) {
		Walk client = { 0 };

		walk_begin(&client, &sim_hosts[i], NULL);
		why = compare(&server, &client);
		walk_end(&client);
	}
	if (!why && server.conflicts && !conflicts_allowed)
		why = g_strdup("conflict: there is one, and only one host wrote");
	if (!why)
		why = versions_lost(contents);
	for (guint i = 0; i < sim_n_hosts && !why; i++)
		why = check(&sim_hosts[i]);
	if (!why)
		why = exactly_once(&sim_hosts[SERVER]);
	walk_end(&server);
	return why;
}
