// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Histories: what programs, networks and machines do, one event on a line, made from
 * a seed, written down, read again, and run in the simulated world.
 *
 *	MILLISECONDS HOST WHAT ARGUMENTS
 *
 * after the hosts have been attached; HOST is s, c1, c2 ..., or "all".
 */
#include "sim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INTRUDE	4	/* one of so many times, if there is an event */
#define NEAR	6	/* among so many */

typedef struct {
	struct host	*h;
	char		**arg;		/* behind WHAT, NULL-terminated */
	const char	*text;		/* unlike that of all other events */
} Event;

/* NAMED: only where --ops names it. */
typedef enum { OP, NET, DAEMON, NAMED, ALL } Kind;

/* Arguments: p path, t text, m mode, n number, x name of an xattr. */
typedef struct {
	const char	*name, *args;
	guint		weight;
	Kind		kind;
	int		(*run)(const Event *e);
} What;

static guint number(const char *text)
{
	return g_ascii_strtoull(text, NULL, 10);
}

/* --- what there is --- */

static int run_write(const Event *e)
{
	return op_write(e->h, e->arg[0], e->text);
}

static int run_append(const Event *e)
{
	return op_append(e->h, e->arg[0], e->text);
}

static int run_patch(const Event *e)
{
	return op_patch(e->h, e->arg[0], number(e->arg[1]), e->text);
}

static int run_truncate(const Event *e)
{
	return op_truncate(e->h, e->arg[0], number(e->arg[1]));
}

static int run_big(const Event *e)
{
	return op_big(e->h, e->arg[0], e->text);
}

static int run_save(const Event *e)
{
	return op_save(e->h, e->arg[0], e->text);
}

static int run_hold(const Event *e)
{
	return op_hold(e->h, e->arg[0], e->text);
}

static int run_release(const Event *e)
{
	return op_release(e->h, e->arg[0]);
}

static int run_mkdir(const Event *e)
{
	return op_mkdir(e->h, e->arg[0]);
}

static int run_rmdir(const Event *e)
{
	return op_rmdir(e->h, e->arg[0]);
}

static int run_unlink(const Event *e)
{
	return op_unlink(e->h, e->arg[0]);
}

static int run_symlink(const Event *e)
{
	return op_symlink(e->h, e->arg[0], e->text);
}

static int run_link(const Event *e)
{
	return op_link(e->h, e->arg[0], e->arg[1]);
}

static int run_rename(const Event *e)
{
	return op_rename(e->h, e->arg[0], e->arg[1]);
}

static int run_exchange(const Event *e)
{
	return op_exchange(e->h, e->arg[0], e->arg[1]);
}

static int run_chmod(const Event *e)
{
	return op_chmod(e->h, e->arg[0], strtoul(e->arg[1], NULL, 8));
}

static int run_utime(const Event *e)
{
	return op_utime(e->h, e->arg[0]);
}

static int run_setxattr(const Event *e)
{
	return op_setxattr(e->h, e->arg[0], e->arg[1], e->text);
}

static int run_rmxattr(const Event *e)
{
	return op_rmxattr(e->h, e->arg[0], e->arg[1]);
}

static int run_down(const Event *e)
{
	net_down(e->h);
	return 0;
}

static int run_up(const Event *e)
{
	e->h->up = TRUE;
	return 0;
}

static int run_lose_request(const Event *e)
{
	e->h->lose_request++;
	return 0;
}

static int run_lose_answer(const Event *e)
{
	e->h->lose_answer++;
	return 0;
}

static int run_lose_middle(const Event *e)
{
	e->h->lose_middle++;
	return 0;
}

static int run_kill(const Event *e)
{
	host_kill(e->h);
	return 0;
}

static int run_power_cut(const Event *e)
{
	host_power_cut(e->h);
	return 0;
}

static int run_full(const Event *e)
{
	e->h->full = TRUE;
	return 0;
}

static int run_room(const Event *e)
{
	e->h->full = FALSE;
	return 0;
}

/* At the Nth point from here at which a crash would hurt. */
static int run_kill_in(const Event *e)
{
	e->h->kill_in = number(e->arg[0]);
	return 0;
}

static int run_start(const Event *e)
{
	g_autofree char *why = NULL;

	return host_start(e->h, &why) ? 0 : -EIO;
}

static const What whats[] = {
	{ "write", "p", 24, OP, run_write },
	{ "append", "p", 8, OP, run_append },
	{ "patch", "pn", 6, OP, run_patch },
	{ "truncate", "pn", 4, OP, run_truncate },
	{ "big", "p", 2, OP, run_big },
	{ "save", "p", 6, OP, run_save },
	{ "hold", "p", 3, OP, run_hold },
	{ "release", "p", 3, OP, run_release },
	{ "mkdir", "p", 10, OP, run_mkdir },
	{ "rmdir", "p", 5, OP, run_rmdir },
	{ "unlink", "p", 10, OP, run_unlink },
	{ "symlink", "p", 3, OP, run_symlink },
	{ "link", "pp", 5, OP, run_link },
	{ "rename", "pp", 18, OP, run_rename },
	{ "exchange", "pp", 4, OP, run_exchange },
	{ "chmod", "pm", 5, OP, run_chmod },
	{ "utime", "p", 2, OP, run_utime },
	{ "setxattr", "px", 4, OP, run_setxattr },
	{ "rmxattr", "px", 2, OP, run_rmxattr },
	{ "down", "", 6, NET, run_down },
	{ "up", "", 6, NET, run_up },
	{ "lose-request", "", 2, NET, run_lose_request },
	{ "lose-answer", "", 3, NET, run_lose_answer },
	{ "lose-middle", "", 3, NET, run_lose_middle },
	{ "kill", "", 2, DAEMON, run_kill },
	{ "kill-in", "k", 4, DAEMON, run_kill_in },
	{ "start", "", 8, DAEMON, run_start },
	{ "power-cut", "", 2, NAMED, run_power_cut },
	{ "full", "", 3, NAMED, run_full },
	{ "room", "", 4, NAMED, run_room },
	{ "sync", "", 5, ALL, NULL },
};

const char *history_ops(void)
{
	static char *all;
	g_autoptr(GString) s = g_string_new(NULL);

	for (guint i = 0; i < G_N_ELEMENTS(whats); i++)
		g_string_append_printf(s, "%s%s", i ? "," : "", whats[i].name);
	g_free(all);
	all = g_strdup(s->str);
	return all;
}

/* --- making one --- */

/* Few names, so that hosts meet; directories and files have them alike. */
static const char *some_path(void)
{
	static const char *const paths[] = {
		"/a", "/b", "/c", "/d", "/e", "/d/a", "/d/b", "/d/e", "/e/a", "/e/b", "/d/e/a",
		"/d/e/b",
	};

	return paths[sim_random(G_N_ELEMENTS(paths))];
}

/* Names that are to be directories are made so more often than not. */
static const char *some_dir(void)
{
	static const char *const paths[] = { "/d", "/e", "/d/e", "/d", "/e", "/a", "/d/a" };

	return paths[sim_random(G_N_ELEMENTS(paths))];
}

static void add_argument(GString *s, char kind, gboolean is_dir)
{
	static const char *const xattrs[] = { "user.x", "user.y" };
	static const guint modes[] = { 0600, 0644, 0700, 0755 };

	switch (kind) {
	case 'p':
		g_string_append_printf(s, " %s", is_dir ? some_dir() : some_path());
		break;
	case 'n':
		g_string_append_printf(s, " %u", sim_random(10));
		break;
	case 'k':
		g_string_append_printf(s, " %u", 1 + sim_random(12));
		break;
	case 'm':
		g_string_append_printf(s, " %o", modes[sim_random(G_N_ELEMENTS(modes))]);
		break;
	case 'x':
		g_string_append_printf(s, " %s", xattrs[sim_random(G_N_ELEMENTS(xattrs))]);
		break;
	}
}

static gboolean is_wanted(const What *w, const Recipe *recipe)
{
	g_auto(GStrv) ops = recipe->ops ? g_strsplit(recipe->ops, ",", -1) : NULL;

	if (w->kind == ALL || !ops)
		return w->kind != NAMED;
	return g_strv_contains((const char *const *) ops, w->name);
}

static const What *some_what(const Recipe *recipe)
{
	guint sum = 0, at;

	for (guint i = 0; i < G_N_ELEMENTS(whats); i++)
		if (is_wanted(&whats[i], recipe))
			sum += whats[i].weight;
	at = sim_random(sum);
	for (guint i = 0; i < G_N_ELEMENTS(whats); i++) {
		if (!is_wanted(&whats[i], recipe))
			continue;
		if (at < whats[i].weight)
			return &whats[i];
		at -= whats[i].weight;
	}
	return NULL;
}

static char *host_name(guint index)
{
	return index ? g_strdup_printf("c%u", index) : g_strdup("s");
}

/* Often at once, at times after a while. */
static guint64 some_pause(void)
{
	switch (sim_random(8)) {
	case 0:
		return sim_random(20000);
	case 1:
	case 2:
		return sim_random(1000);
	case 3:
	case 4:
		return sim_random(4);
	default:
		return sim_random(60);
	}
}

static void add_event(History *h, const Recipe *recipe, guint writer, guint64 at)
{
	const What *w = some_what(recipe);
	guint index = w->kind == NET ? 1 + sim_random(h->hosts - 1) : sim_random(h->hosts);
	g_autofree char *who = w->kind == ALL ? g_strdup("all") :
			       host_name(w->kind == OP && h->single ? writer : index);
	GString *s = g_string_new(NULL);

	g_string_append_printf(s, "%" G_GUINT64_FORMAT " %s %s", at, who, w->name);
	for (const char *a = w->args; *a; a++)
		add_argument(s, *a, !strcmp(w->name, "mkdir") || !strcmp(w->name, "rmdir"));
	g_ptr_array_add(h->events, g_string_free(s, FALSE));
}

static History *history_new(guint64 seed)
{
	History *h = g_new0(History, 1);

	h->seed = seed;
	h->events = g_ptr_array_new_with_free_func(g_free);
	return h;
}

History *history_random(guint64 seed, const Recipe *recipe)
{
	History *h = history_new(seed);
	guint length, writer;
	guint64 at = 0;

	sim_reset(seed);
	h->hosts = recipe->hosts ? recipe->hosts : 2 + sim_random(3);
	h->single = recipe->single;
	writer = sim_random(h->hosts);
	length = 4 + sim_random(recipe->length ? MAX(recipe->length, 5) - 4 : 36);
	for (guint i = 0; i < length; i++) {
		at += some_pause();
		add_event(h, recipe, writer, at);
	}
	return h;
}

/* --- as text --- */

char *history_text(const History *h)
{
	GString *s = g_string_new(NULL);

	g_string_append_printf(s, "seed %" G_GUINT64_FORMAT "\nhosts %u\n", h->seed, h->hosts);
	if (h->single)
		g_string_append(s, "single\n");
	for (guint i = 0; i < h->events->len; i++)
		g_string_append_printf(s, "%s\n", (char *) g_ptr_array_index(h->events, i));
	return g_string_free(s, FALSE);
}

static void read_line(History *h, const char *line)
{
	if (g_str_has_prefix(line, "seed "))
		h->seed = g_ascii_strtoull(line + 5, NULL, 10);
	else if (g_str_has_prefix(line, "hosts "))
		h->hosts = number(line + 6);
	else if (!strcmp(line, "single"))
		h->single = TRUE;
	else if (*line && *line != '#')
		g_ptr_array_add(h->events, g_strdup(line));
}

History *history_read(const char *file, GError **error)
{
	g_auto(GStrv) lines = NULL;
	g_autofree char *text = NULL;
	History *h;

	if (!g_file_get_contents(file, &text, NULL, error))
		return NULL;
	h = history_new(0);
	lines = g_strsplit(text, "\n", -1);
	for (char **l = lines; *l; l++)
		read_line(h, g_strstrip(*l));
	if (h->hosts >= 2 && h->hosts <= HOSTS_MAX)
		return h;
	g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED, "%s: \"hosts N\" is missing, N from 2 to %d",
		    file, HOSTS_MAX);
	history_free(h);
	return NULL;
}

History *history_copy(const History *h)
{
	History *c = history_new(h->seed);

	c->hosts = h->hosts;
	c->single = h->single;
	for (guint i = 0; i < h->events->len; i++)
		g_ptr_array_add(c->events, g_strdup(g_ptr_array_index(h->events, i)));
	return c;
}

void history_free(History *h)
{
	if (!h)
		return;
	g_ptr_array_unref(h->events);
	g_free(h);
}

/* --- running --- */

static struct host *host_of(const char *name)
{
	for (guint i = 0; i < sim_n_hosts; i++)
		if (!strcmp(sim_hosts[i].name, name))
			return &sim_hosts[i];
	return NULL;
}

static const What *what_of(const char *name)
{
	for (guint i = 0; i < G_N_ELEMENTS(whats); i++)
		if (!strcmp(whats[i].name, name))
			return &whats[i];
	return NULL;
}

static const History *running;	/* NULL: nobody does anything now */
static guint next_event;
static GArray *early;			/* gboolean for each event: it was done before its time */

static char *rest_and_verify(const History *h)
{
	const History *was = g_steal_pointer(&running);
	char *why = host_rest();

	running = was;
	return why ? why : verify(!h->single);
}

/* word: MILLISECONDS HOST WHAT ARGUMENTS */
static char *run_words(const History *h, char **word, const char *line)
{
	const What *w = what_of(word[2]);
	g_autofree char *text = g_strdup_printf("<%s>", word[0]);
	Event e = { .h = host_of(word[1]), .arg = word + 3, .text = text };
	int err;

	if (!w || (!e.h && w->kind != ALL) || g_strv_length(e.arg) < strlen(w->args))
		return g_strdup_printf("history: cannot be understood: %s", line);
	sim_trace(e.h, "== %s", line);
	if (w->kind == ALL)
		return rest_and_verify(h);
	err = w->run(&e);
	if (err)
		sim_trace(e.h, "   %s", g_strerror(-err));
	return NULL;
}

/* The next event of that host, if it is not far; NULL: none that a program does. */
static const char *near_event(const struct host *h, guint *ret_index)
{
	for (guint i = next_event; running && i < MIN(next_event + NEAR, running->events->len); i++) {
		const char *line = g_ptr_array_index(running->events, i);
		g_auto(GStrv) word = g_strsplit(line, " ", -1);
		const What *w = g_strv_length(word) >= 3 ? what_of(word[2]) : NULL;

		if (!w || w->kind == ALL)
			return NULL;
		if (g_array_index(early, gboolean, i) || host_of(word[1]) != h)
			continue;
		*ret_index = i;
		return w->kind == OP ? line : NULL;
	}
	return NULL;
}

/*
 * The daemon of h has just decided something and asks its file system: at times a
 * program is faster.
 */
void history_intrude(struct host *h)
{
	guint index = 0;
	const char *line = sim_random(INTRUDE) ? NULL : near_event(h, &index);
	g_auto(GStrv) word = line ? g_strsplit(line, " ", -1) : NULL;
	g_autofree char *why = NULL;

	if (!line)
		return;
	g_array_index(early, gboolean, index) = TRUE;
	sim_trace(h, "(in between)");
	why = run_words(running, word, line);
}

static gint64 due(const char *line, gint64 begin)
{
	return begin + (gint64) g_ascii_strtoull(line, NULL, 10) * 1000;
}

/* The next one, when it is due. */
static char *run_event(const History *h, gint64 begin)
{
	const char *line = g_ptr_array_index(h->events, next_event);
	g_auto(GStrv) word = g_strsplit(line, " ", -1);

	if (g_strv_length(word) < 3)
		return g_strdup_printf("history: cannot be understood: %s", line);
	if (sim_step(MAX(due(line, begin), sim_now())))
		return NULL;
	if (g_array_index(early, gboolean, next_event++))
		return NULL;
	return run_words(h, word, line);
}

static void set_up(const History *h, const char *top)
{
	sim_reset(h->seed);
	fs_reset();
	serve_reset();
	versions_reset();
	sim_n_hosts = h->hosts;
	for (guint i = 0; i < h->hosts; i++)
		fs_host_make(&sim_hosts[i], top, i);
}

/* The clients begin empty, at a server that has something. */
static void first_files(void)
{
	struct host *s = &sim_hosts[SERVER];

	op_mkdir(s, "/d");
	op_mkdir(s, "/d/e");
	op_write(s, "/a", "first a");
	op_write(s, "/d/b", "first d/b");
}

char *history_run(const History *h, const char *top)
{
	char *why;
	gint64 begin;

	set_up(h, top);
	first_files();
	why = host_rest();
	if (!why)
		why = verify(FALSE);
	begin = sim_now();
	running = h;
	early = g_array_sized_new(FALSE, TRUE, sizeof(gboolean), h->events->len);
	g_array_set_size(early, h->events->len);
	for (next_event = 0; next_event < h->events->len && !why; )
		why = run_event(h, begin);
	running = NULL;
	g_array_unref(early);
	if (!why)
		why = rest_and_verify(h);
	return why;
}
