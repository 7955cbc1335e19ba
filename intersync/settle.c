// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Settling conflicts: what somebody has chosen with izoctl, or a policy chooses once both
 * versions are here, is done with ordinary operations through the mount, which are
 * logged and go to the server like anybody's.  client.c calls this when it has made progress.
 */
#include "coalesce.h"
#include "conflict.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A program that decides, while it runs. */
struct IsdSettle {
	IsdClient	*c;
	guint		source;		/* look for what can be settled */
	GSubprocess	*program;
	guint		timer;
	gint64		no;		/* the conflict that it decides */
};

/* --- what is chosen is done --- */

static int remove_one(IsdClient *c, gint64 parent, const char *name)
{
	int err = isd_local_remove(c, parent, name);

	return err == -ENOENT ? 0 : err;
}

/* The version of here takes the place of the server's. */
static int take_place(IsdClient *c, const IsdConflict *e)
{
	struct stat mine, theirs;
	struct kml_oid oid;
	int err = isd_local_stat(c, e->cparent, e->cname, &mine, &oid);

	if (err == -ENOENT)
		return 0;
	if (err)
		return err;
	err = isd_local_stat(c, e->parent, e->name, &theirs, &oid);
	if (err == -ENOENT)
		return isd_local_move(c, e->cparent, e->cname, e->parent, e->name, ISD_MOVE_TO_FREE);
	if (err)
		return err;
	if (S_ISREG(mine.st_mode) && S_ISREG(theirs.st_mode) && theirs.st_nlink > 1) {
		/* its other names are to have it, too */
		err = isd_local_copy(c, e->cparent, e->cname, e->parent, e->name);
		return err ? err : remove_one(c, e->cparent, e->cname);
	}
	if (!S_ISDIR(mine.st_mode) && !S_ISDIR(theirs.st_mode))
		return isd_local_move(c, e->cparent, e->cname, e->parent, e->name, ISD_MOVE_OVER);
	err = isd_local_move(c, e->cparent, e->cname, e->parent, e->name, ISD_MOVE_EXCHANGE);
	return err ? err : remove_one(c, e->cparent, e->cname);
}

/* The name that it has is the server's; it gets the one of here. */
static int rename_back(IsdClient *c, const IsdConflict *e)
{
	int err = isd_local_move(c, e->parent, e->name, e->cparent, e->cname, ISD_MOVE_TO_FREE);

	return err == -ENOENT ? 0 : err;
}

/* A directory goes only without what is in it. */
static int remove_empty(IsdClient *c, const IsdConflict *e)
{
	int err = isd_local_rmdir(c, e->parent, e->name);

	return err == -ENOENT ? 0 : err;
}

static int do_choice(IsdClient *c, const IsdConflict *e, IsdKeep keep)
{
	if (keep == ISD_KEEP_BOTH)
		return 0;
	switch (e->kind) {
	case ISD_CONFLICT_UPDATE:
	case ISD_CONFLICT_NAME:
	case ISD_CONFLICT_TYPE:
		return keep == ISD_KEEP_SERVER ? remove_one(c, e->cparent, e->cname) : take_place(c, e);
	case ISD_CONFLICT_UPDATE_DELETE:
		return keep == ISD_KEEP_SERVER ? remove_one(c, e->parent, e->name) : 0;
	case ISD_CONFLICT_DELETE_UPDATE:
		return keep == ISD_KEEP_CLIENT ? remove_one(c, e->parent, e->name) : 0;
	case ISD_CONFLICT_RENAME:
		return keep == ISD_KEEP_CLIENT ? rename_back(c, e) : 0;
	case ISD_CONFLICT_INTO_DELETE:
		return keep == ISD_KEEP_SERVER ? remove_empty(c, e) : 0;
	case ISD_CONFLICT_DELETE_INTO:
		return keep == ISD_KEEP_CLIENT ? remove_empty(c, e) : 0;
	case ISD_CONFLICT_CYCLE:
		return keep == ISD_KEEP_CLIENT ? -ELOOP : 0;
	}
	return -EINVAL;
}

static const char *why_not(const IsdConflict *e, int err)
{
	if (err == -ENOTEMPTY || err == -EEXIST)
		return e->kind == ISD_CONFLICT_RENAME ? "that name is taken: rename what has it first" :
			"the directory is not empty: move away or remove what is in it first";
	if (err == -ELOOP)
		return "each of the directories was moved into the other: move them as they should "
		       "be, then keep both";
	return g_strerror(-err);
}

/*
 * The server does not have the copy yet: it takes the other's place when it has, so that all see
 * first the one and then the other.
 */
static gboolean must_wait(IsdClient *c, const IsdConflict *e, IsdKeep keep, gboolean *ret,
			  GError **error)
{
	g_auto(IsdName) n = { 0 };
	g_auto(IsdObject) o = { 0 };
	gboolean found;

	*ret = FALSE;
	if (keep != ISD_KEEP_CLIENT || !isd_conflict_has_copy(e->kind))
		return TRUE;
	if (!isd_state_lookup(c->state, e->cparent, e->cname, &n, &found, error) ||
	    (found && !isd_state_by_id(c->state, n.id, &o, &found, error)))
		return FALSE;
	*ret = found && !o.soid.ino;
	return TRUE;
}

gboolean isd_settle(IsdClient *c, const IsdConflict *e, IsdKeep keep, GError **error)
{
	g_autofree char *path = isd_conflict_path(c, e->parent, e->name);
	gboolean wait;
	int err;

	if (!must_wait(c, e, keep, &wait, error))
		return FALSE;
	if (wait)
		return isd_client_begin(c, error) &&
		       isd_conflict_set_policy(c, e->no, ISD_BY_CHOICE, error) &&
		       isd_client_commit(c, error);
	if (!isd_client_commit(c, error))
		return FALSE;
	err = do_choice(c, e, keep);
	isd_fault("conflict-settled");
	if (err) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_REFUSED, "%s: %s", path ? path : e->name,
			    why_not(e, err));
		return FALSE;
	}
	return isd_client_follow(c, TRUE, error) && isd_conflict_drop(c, e->no, error) &&
	       isd_client_commit(c, error);
}

/* --- policies --- */

static gboolean is_disjoint(const GArray *mine, const struct kml_record *theirs)
{
	for (guint i = 0; i < theirs->n_ranges; i++) {
		uint64_t off, len;

		kml_range_get(theirs, i, &off, &len);
		for (guint j = 0; j < mine->len; j++) {
			const IsdSpan *s = &g_array_index(mine, IsdSpan, j);

			if (s->off < off + len && off < s->end)
				return FALSE;
		}
	}
	return TRUE;
}

/* What was written here, if the server's version has other bytes changed and the same size. */
static void note_spans(IsdClient *c, IsdConflict *e, const struct kml_record *theirs)
{
	g_autoptr(GArray) mine = NULL;

	if (e->kind != ISD_CONFLICT_UPDATE || !theirs || theirs->opcode != KML_CLOSE ||
	    !theirs->has_ranges || (theirs->flags & KML_F_RANGES_ALL) ||
	    theirs->attr.size != e->mine.size)
		return;
	mine = isd_push_pending_spans(c, e->id);
	if (!mine || !is_disjoint(mine, theirs))
		return;
	e->spans = g_bytes_new(mine->data, mine->len * sizeof(IsdSpan));
	e->sversion = theirs->recno;
}

gboolean isd_policy_applies(IsdClient *c, IsdConflict *e, const IsdObject *o,
			    const struct kml_record *theirs)
{
	g_autofree char *path = isd_conflict_path(c, e->parent, e->name);
	g_auto(IsdPolicy) p = { 0 };

	if (!path || S_ISDIR(o->attr.mode) || S_ISDIR(e->theirs.mode))
		return FALSE;
	isd_policy_find(c, path, &p);
	if (p.keep == ISD_KEEP_PROGRAM && isd_conflict_has_copy(e->kind))
		isd_push_ancestor(c, o->id, &e->base);
	if (p.keep == ISD_KEEP_RANGES)
		note_spans(c, e, theirs);
	return p.keep != ISD_KEEP_BOTH;
}

/* The object at a name, once all of it is here. */
static gboolean is_here(IsdClient *c, gint64 parent, const char *name, IsdObject *ret,
			gboolean *ret_wait, gboolean *ret_found, GError **error)
{
	g_auto(IsdName) n = { 0 };
	sqlite3_stmt *st;
	int rc;

	*ret_wait = FALSE;
	if (!isd_state_lookup(c->state, parent, name, &n, ret_found, error) ||
	    (*ret_found && !isd_state_by_id(c->state, n.id, ret, ret_found, error)))
		return FALSE;
	rc = isd_sql_row(c->state, error, &st, "SELECT 1 FROM client_want WHERE id = ? OR"
			 " (parent = ? AND name = ?) LIMIT 1", "iib", n.id, parent, name, strlen(name));
	if (rc > 0)
		sqlite3_reset(st);
	*ret_wait = rc > 0;
	return rc >= 0;
}

typedef enum { SETTLE_LATER, SETTLE_NOW, SETTLE_NEVER } When;

/* Both versions are here, and nobody has written to either since. */
static gboolean settle_when(IsdClient *c, const IsdConflict *e, IsdObject *ret_theirs,
			    When *ret, GError **error)
{
	g_auto(IsdObject) mine = { 0 };
	gboolean wait, found, copy = isd_conflict_has_copy(e->kind);

	*ret = SETTLE_LATER;
	if (!is_here(c, e->parent, e->name, ret_theirs, &wait, &found, error))
		return FALSE;
	if (wait)
		return TRUE;
	*ret = SETTLE_NEVER;
	if (!found || ret_theirs->lcver > e->recno)
		return TRUE;
	if (copy && !is_here(c, e->cparent, e->cname, &mine, &wait, &found, error))
		return FALSE;
	if (found && !wait && (!copy || mine.lcver <= e->recno))
		*ret = SETTLE_NOW;
	return TRUE;
}

static gboolean is_newer(struct kml_time a, struct kml_time b)
{
	return a.sec != b.sec ? a.sec > b.sec : a.nsec > b.nsec;
}

/* A choice that could not be done is none. */
static gboolean settle_by_policy(IsdClient *c, const IsdConflict *e, IsdKeep keep,
				 gboolean by_program, GError **error)
{
	g_autofree char *path = isd_conflict_path(c, e->parent, e->name);
	g_autoptr(GError) local = NULL;
	gboolean wait;

	if (!must_wait(c, e, keep, &wait, error))
		return FALSE;
	if (wait)
		/* what a program has said it is not asked again */
		return !by_program || isd_conflict_set_policy(c, e->no, ISD_BY_CHOICE, error);
	if (keep == ISD_KEEP_BOTH)
		return isd_conflict_set_policy(c, e->no, ISD_BY_HAND, error);
	if (isd_settle(c, e, keep, &local)) {
		isd_log(5, c->server, 0, "conflict %" G_GINT64_FORMAT ", %s: settled, kept: %s",
			e->no, path, keep == ISD_KEEP_SERVER ? "server" : "client");
		return TRUE;
	}
	if (!g_error_matches(local, ISD_ERROR, ISD_ERROR_REFUSED)) {
		g_propagate_error(error, g_steal_pointer(&local));
		return FALSE;
	}
	isd_log(4, c->server, 0, "conflict %" G_GINT64_FORMAT ": %s", e->no, local->message);
	return isd_client_begin(c, error) && isd_conflict_set_policy(c, e->no, ISD_BY_HAND, error);
}

/* As izoctl has said: the client's version, once the server has it. */
static gboolean settle_chosen(IsdClient *c, const IsdConflict *e, GError **error)
{
	return settle_by_policy(c, e, ISD_KEEP_CLIENT, FALSE, error);
}

/* --- programs --- */

static void program_end(IsdSettle *s)
{
	g_clear_handle_id(&s->timer, g_source_remove);
	g_clear_object(&s->program);
	s->no = 0;
}

/* It has a group of its own: what it has started ends with it. */
static void program_setup(gpointer unused)
{
	setpgid(0, 0);
}

static void program_kill(IsdSettle *s)
{
	const char *pid = g_subprocess_get_identifier(s->program);

	if (pid && atoi(pid) > 1)
		kill(-atoi(pid), SIGKILL);
}

static IsdKeep program_choice(const char *out)
{
	g_autofree char *word = out ? g_strstrip(g_strdup(out)) : NULL;

	if (!g_strcmp0(word, "server"))
		return ISD_KEEP_SERVER;
	return !g_strcmp0(word, "client") ? ISD_KEEP_CLIENT : ISD_KEEP_BOTH;
}

static gboolean program_decided(IsdSettle *s, gint64 no, IsdKeep keep, GError **error)
{
	g_auto(IsdConflict) e = { 0 };
	gboolean found;

	if (!isd_client_follow(s->c, TRUE, error) ||
	    !isd_conflict_next(s->c, ISD_CONFLICT_POLICY, no - 1, &e, &found, error))
		return FALSE;
	return !found || e.no != no || settle_by_policy(s->c, &e, keep, TRUE, error);
}

static void program_done(GObject *program, GAsyncResult *result, gpointer data)
{
	IsdSettle *s = data;
	g_autofree char *out = NULL;
	g_autoptr(GError) error = NULL;
	gboolean fine;
	gint64 no = s->no;

	if (G_SUBPROCESS(program) != s->program)
		return;		/* the client has gone on without it */
	fine = g_subprocess_communicate_utf8_finish(G_SUBPROCESS(program), result, &out, NULL, NULL) &&
	       g_subprocess_get_successful(G_SUBPROCESS(program));
	if (!fine)
		isd_log(4, s->c->server, 0, "conflict %" G_GINT64_FORMAT
			": the program has failed or took too long: both versions are kept", no);
	program_end(s);
	if (!program_decided(s, no, fine ? program_choice(out) : ISD_KEEP_BOTH, &error))
		isd_client_fail(s->c, error);
	else
		isd_client_progress(s->c);
}

static gboolean program_timeout(gpointer data)
{
	IsdSettle *s = data;

	s->timer = 0;
	program_kill(s);
	return G_SOURCE_REMOVE;
}

static void set_attrs(GSubprocessLauncher *l, const char *who, const struct kml_attrs *a)
{
	const struct {
		const char *what, *text;
	} v[] = {
		{ "SIZE", g_strdup_printf("%" G_GUINT64_FORMAT, (guint64)a->size) },
		{ "MTIME", g_strdup_printf("%" G_GINT64_FORMAT ".%09u", (gint64)a->mtime.sec,
					   a->mtime.nsec) },
		{ "MODE", g_strdup_printf("%o", a->mode) },
		{ "UID", g_strdup_printf("%u", a->uid) },
		{ "GID", g_strdup_printf("%u", a->gid) },
	};

	for (gsize i = 0; i < G_N_ELEMENTS(v); i++) {
		g_autofree char *name = g_strdup_printf("IZO_%s_%s", who, v[i].what);

		if (a->mode)
			g_subprocess_launcher_setenv(l, name, v[i].text, TRUE);
		g_free((char *)v[i].text);
	}
}

static GPtrArray *program_argv(IsdClient *c, const IsdConflict *e, const IsdPolicy *p)
{
	GPtrArray *a = g_ptr_array_new_with_free_func(g_free);
	g_autofree char *path = isd_conflict_path(c, e->parent, e->name);
	g_autofree char *cpath = isd_conflict_path(c, e->cparent, e->cname);

	for (guint i = 0; p->argv[i]; i++)
		g_ptr_array_add(a, g_strdup(p->argv[i]));
	g_ptr_array_add(a, g_build_filename(c->core->dir, path, NULL));
	g_ptr_array_add(a, g_build_filename(c->core->dir, cpath, NULL));
	g_ptr_array_add(a, NULL);
	return a;
}

static gboolean program_start(IsdSettle *s, const IsdConflict *e, const IsdPolicy *p,
			      const IsdObject *theirs, GError **error)
{
	g_autoptr(GSubprocessLauncher) l = g_subprocess_launcher_new(G_SUBPROCESS_FLAGS_STDOUT_PIPE);
	g_autoptr(GPtrArray) argv = program_argv(s->c, e, p);
	g_autoptr(GError) local = NULL;

	g_subprocess_launcher_set_child_setup(l, program_setup, NULL, NULL);
	g_subprocess_launcher_set_cwd(l, s->c->core->dir);
	set_attrs(l, "SERVER", &theirs->attr);
	set_attrs(l, "CLIENT", &e->mine);
	set_attrs(l, "BASE", &e->base);
	s->program = g_subprocess_launcher_spawnv(l, (const char *const *)argv->pdata, &local);
	if (!s->program) {
		isd_log(4, s->c->server, 0, "conflict %" G_GINT64_FORMAT
			": %s: both versions are kept", e->no, local->message);
		return isd_conflict_set_policy(s->c, e->no, ISD_BY_HAND, error);
	}
	s->no = e->no;
	s->timer = g_timeout_add_seconds(p->seconds, program_timeout, s);
	g_subprocess_communicate_utf8_async(s->program, NULL, NULL, program_done, s);
	return TRUE;
}

/* --- written ranges --- */

/* The bytes that were written here go into the server's version, if it is still the same. */
static gboolean merge_ranges(IsdClient *c, IsdConflict *e, const IsdObject *theirs, IsdKeep *ret,
			     GError **error)
{
	int err;

	*ret = ISD_KEEP_BOTH;
	if (!isd_conflict_load_spans(c, e, error))
		return FALSE;
	if (!e->spans || theirs->cver != e->sversion)
		return TRUE;
	err = isd_local_merge(c, e->cparent, e->cname, e->parent, e->name, e->spans);
	if (err)
		isd_log(4, c->server, 0, "conflict %" G_GINT64_FORMAT ": %s: both versions are kept",
			e->no, g_strerror(-err));
	else
		*ret = ISD_KEEP_SERVER;
	return TRUE;
}

/* --- one after the other --- */

static gboolean settle_now(IsdSettle *s, IsdConflict *e, const IsdObject *theirs, GError **error)
{
	g_autofree char *path = isd_conflict_path(s->c, e->parent, e->name);
	gboolean copy = isd_conflict_has_copy(e->kind);
	g_auto(IsdPolicy) p = { 0 };

	isd_policy_find(s->c, path ? path : e->name, &p);
	if (p.keep == ISD_KEEP_PROGRAM && copy)
		return program_start(s, e, &p, theirs, error);
	if (p.keep == ISD_KEEP_NEWEST && copy)
		p.keep = is_newer(e->mine.mtime, theirs->attr.mtime) ? ISD_KEEP_CLIENT : ISD_KEEP_SERVER;
	if (p.keep == ISD_KEEP_RANGES && !merge_ranges(s->c, e, theirs, &p.keep, error))
		return FALSE;
	if (p.keep != ISD_KEEP_SERVER && p.keep != ISD_KEEP_CLIENT)
		p.keep = ISD_KEEP_BOTH;
	return settle_by_policy(s->c, e, p.keep, FALSE, error);
}

static gboolean settle_one(IsdSettle *s, gint64 *after, gboolean *ret_found, GError **error)
{
	g_auto(IsdConflict) e = { 0 };
	g_auto(IsdObject) theirs = { 0 };
	When when;

	if (!isd_conflict_next(s->c, ISD_CONFLICT_POLICY, *after, &e, ret_found, error))
		return FALSE;
	if (!*ret_found)
		return TRUE;
	*after = e.no;
	if (!settle_when(s->c, &e, &theirs, &when, error))
		return FALSE;
	if (e.policy == ISD_BY_CHOICE)
		return settle_chosen(s->c, &e, error);
	if (when == SETTLE_NEVER)
		return isd_conflict_set_policy(s->c, e.no, ISD_BY_HAND, error);
	return when == SETTLE_LATER || settle_now(s, &e, &theirs, error);
}

static gboolean settle_all(IsdSettle *s, GError **error)
{
	gboolean found = TRUE;
	gint64 after = 0;

	/* not before all that the server is known to have is here: it may have changed it again */
	if (!s->c->pull || !isd_pull_is_idle(s->c->pull) || s->c->pull_recno < s->c->end_recno ||
	    !isd_conflict_unsettled(s->c))
		return TRUE;
	if (!isd_client_follow(s->c, TRUE, error))
		return FALSE;
	while (found && !s->program)
		if (!isd_client_begin(s->c, error) || !settle_one(s, &after, &found, error))
			return FALSE;
	return TRUE;
}

static gboolean settle_run(gpointer data)
{
	IsdSettle *s = data;
	g_autoptr(GError) error = NULL;

	s->source = 0;
	if (!isd_client_is_up(s->c) || s->program)
		return G_SOURCE_REMOVE;
	if (!settle_all(s, &error))
		isd_client_fail(s->c, error);
	else if (!isd_conflict_unsettled(s->c))
		isd_client_progress(s->c);
	return G_SOURCE_REMOVE;
}

void isd_settle_soon(IsdClient *c)
{
	if (!c->settle) {
		c->settle = g_new0(IsdSettle, 1);
		c->settle->c = c;
	}
	if (!c->settle->source && !c->settle->program && isd_conflict_unsettled(c))
		c->settle->source = g_idle_add(settle_run, c->settle);
}

void isd_settle_stop(IsdClient *c)
{
	IsdSettle *s = c->settle;

	if (!s)
		return;
	g_clear_handle_id(&s->source, g_source_remove);
	if (s->program)
		program_kill(s);
	program_end(s);
}
