// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * model: runs random histories of a server and its clients in the simulated world and
 * verifies what is left.  Each runs in a process of its own, so that one that crashes the engine
 * or never ends is found as well.  What fails is shrunk and printed with the command that repeats
 * it.  0: all went well, 1: one did not, 2: usage.
 */
#include "sim.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE	60	/* seconds of real time for a history */
#define SHRINK_RUNS	600	/* at most, to shrink a history */

static gint64 opt_seed = -1;
static int opt_count = 1000, opt_seconds, opt_clients, opt_length, opt_debug;
static gboolean opt_no_shrink, opt_trace, opt_single, opt_print, opt_keep_going;
static char *opt_history, *opt_ops, *opt_dir;

static const GOptionEntry entries[] = {
	{ "seed", 's', 0, G_OPTION_ARG_INT64, &opt_seed, "Of the first history; those behind it have the following ones", "N" },
	{ "count", 'n', 0, G_OPTION_ARG_INT, &opt_count, "So many histories (1000)", "N" },
	{ "seconds", 't', 0, G_OPTION_ARG_INT, &opt_seconds, "As many as go into that time", "N" },
	{ "clients", 'c', 0, G_OPTION_ARG_INT, &opt_clients, "So many clients (1 to 3, by chance)", "N" },
	{ "length", 'l', 0, G_OPTION_ARG_INT, &opt_length, "At most so many events (40)", "N" },
	{ "ops", 'o', 0, G_OPTION_ARG_STRING, &opt_ops, "Nothing but these, separated by commas", "LIST" },
	{ "single", '1', 0, G_OPTION_ARG_NONE, &opt_single, "One writer: a conflict is a fault", NULL },
	{ "history", 'f', 0, G_OPTION_ARG_FILENAME, &opt_history, "Run the history in FILE", "FILE" },
	{ "print", 'p', 0, G_OPTION_ARG_NONE, &opt_print, "Print the history of --seed", NULL },
	{ "trace", 'v', 0, G_OPTION_ARG_NONE, &opt_trace, "Say what happens", NULL },
	{ "debug", 'D', 0, G_OPTION_ARG_INT, &opt_debug, "With --trace: the daemon's bits as well", "N" },
	{ "no-shrink", 0, 0, G_OPTION_ARG_NONE, &opt_no_shrink, "Print what fails as it is", NULL },
	{ "keep-going", 'k', 0, G_OPTION_ARG_NONE, &opt_keep_going, "Go on behind a failure", NULL },
	{ "dir", 'd', 0, G_OPTION_ARG_FILENAME, &opt_dir, "A directory on tmpfs (/dev/shm)", "DIR" },
	{ NULL }
};

/* --- one history --- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void child(const History *h, const char *top, int fd)
{
	g_autofree char *why = NULL;

	alarm(PATIENCE);
	why = history_run(h, top);
	if (why && write(fd, why, strlen(why)) < 0)
		_exit(2);
	_exit(0);
}

static char *read_all(int fd)
{
	g_autoptr(GString) s = g_string_new(NULL);
	char buf[4096];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		g_string_append_len(s, buf, n);
	return s->len ? g_string_free(g_steal_pointer(&s), FALSE) : NULL;
}

static char *end_of(int status)
{
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
		return g_strdup_printf("hangs: more than %d seconds", PATIENCE);
	if (WIFSIGNALED(status))
		return g_strdup_printf("crash: %s", strsignal(WTERMSIG(status)));
	return WEXITSTATUS(status) ? g_strdup_printf("crash: status %d", WEXITSTATUS(status)) : NULL;
}

/* NULL: fine; otherwise "KIND: what is wrong". */
static char *run(const History *h)
{
	g_autofree char *top = g_strdup_printf("%s/izo-model.%d", opt_dir, (int) getpid());
	char *why = NULL;
	int fds[2], status;
	pid_t pid;

	if (mkdir(top, 0700) < 0 || pipe2(fds, O_CLOEXEC) < 0)
		g_error("%s: %s", top, g_strerror(errno));
	fflush(stdout);
	pid = fork();
	if (pid == 0)
		child(h, top, fds[1]);
	close(fds[1]);
	why = read_all(fds[0]);
	close(fds[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!why)
		why = end_of(status);
	nftw(top, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return why;
}

/* --- shrinking --- */

static gboolean same_kind(const char *a, const char *b)
{
	return a && b && strcspn(a, ":") == strcspn(b, ":") && !strncmp(a, b, strcspn(a, ":"));
}

static History *without(const History *h, guint at, guint n)
{
	History *c = history_copy(h);

	g_ptr_array_remove_range(c->events, at, MIN(n, c->events->len - at));
	return c;
}

/* One pass in pieces of n; TRUE if something could go. */
static gboolean shrink_pass(History **h, guint n, char **why, guint *runs)
{
	gboolean any = FALSE;

	for (guint at = 0; at < (*h)->events->len && *runs; ) {
		History *less = without(*h, at, n);
		char *still = run(less);

		--*runs;
		if (same_kind(still, *why)) {
			g_free(*why);
			*why = still;
			history_free(*h);
			*h = less;
			any = TRUE;
			continue;
		}
		g_free(still);
		history_free(less);
		at += n;
	}
	return any;
}

static void shrink(History **h, char **why)
{
	guint runs = SHRINK_RUNS;
	guint n = MAX((*h)->events->len / 2, 1);

	while (runs) {
		gboolean any = shrink_pass(h, n, why, &runs);

		if (n == 1 && !any)
			return;
		n = MAX(n / 2, 1);
	}
}

static void report(const History *h, char **why)
{
	g_autoptr(History) least = history_copy(h);
	g_autofree char *text = NULL;

	printf("not ok seed %" G_GUINT64_FORMAT ": %s\n", h->seed, *why);
	fflush(stdout);
	if (!opt_no_shrink && !opt_history) {
		History *smaller = g_steal_pointer(&least);

		shrink(&smaller, why);
		least = smaller;
	}
	text = history_text(least);
	printf("# the least that fails so (model --history=FILE; --trace says what happens):\n"
	       "%s# %s\n", text, *why);
}

/* --- many --- */

static char *command(void)
{
	g_autoptr(GString) s = g_string_new("model");

	if (opt_clients)
		g_string_append_printf(s, " --clients=%d", opt_clients);
	if (opt_length)
		g_string_append_printf(s, " --length=%d", opt_length);
	if (opt_ops)
		g_string_append_printf(s, " --ops=%s", opt_ops);
	if (opt_single)
		g_string_append(s, " --single");
	return g_string_free(g_steal_pointer(&s), FALSE);
}

/* TRUE: it went well. */
static gboolean one(guint64 seed, const Recipe *recipe)
{
	g_autoptr(History) h = history_random(seed, recipe);
	g_autofree char *why = run(h), *again = NULL;

	if (!why)
		return TRUE;
	again = command();
	printf("# %s --count=1 --seed=%" G_GUINT64_FORMAT "\n", again, seed);
	report(h, &why);
	return FALSE;
}

static int many(const Recipe *recipe)
{
	gint64 begin = time(NULL), said = begin;
	g_autofree char *again = command();
	guint done = 0, failed = 0;

	printf("# %s --seed=%" G_GINT64_FORMAT "\n", again, opt_seed);
	while (opt_seconds ? time(NULL) - begin < opt_seconds : done < (guint) opt_count) {
		if (!one(opt_seed + done++, recipe)) {
			failed++;
			if (!opt_keep_going)
				break;
		}
		if (time(NULL) - said >= 60) {
			said = time(NULL);
			printf("# %u histories, %u failed\n", done, failed);
			fflush(stdout);
		}
	}
	printf("# %u histories, %u failed, %" G_GINT64_FORMAT " seconds\n", done, failed,
	       (gint64) time(NULL) - begin);
	return failed ? 1 : 0;
}

static int from_file(void)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(History) h = history_read(opt_history, &error);
	g_autofree char *why = NULL;

	if (!h) {
		fprintf(stderr, "model: %s\n", error->message);
		return 2;
	}
	why = run(h);
	if (why)
		printf("not ok %s: %s\n", opt_history, why);
	else
		printf("ok %s\n", opt_history);
	return why ? 1 : 0;
}

/* Memory at the same addresses each time: what is sorted by them is, too. */
static void no_randomness(char **argv)
{
	int persona = personality(0xffffffff);

	if (persona < 0 || (persona & ADDR_NO_RANDOMIZE))
		return;
	if (personality(persona | ADDR_NO_RANDOMIZE) >= 0)
		execv("/proc/self/exe", argv);
}

static gboolean parse(int argc, char **argv)
{
	g_autoptr(GOptionContext) c = g_option_context_new(NULL);
	g_autoptr(GError) error = NULL;
	g_autofree char *about = g_strdup_printf("What there is for --ops: %s", history_ops());

	g_option_context_add_main_entries(c, entries, NULL);
	g_option_context_set_description(c, about);
	if (g_option_context_parse(c, &argc, &argv, &error) && argc == 1)
		return TRUE;
	fprintf(stderr, "model: %s\n", error ? error->message : "there are no arguments but options");
	return FALSE;
}

int main(int argc, char **argv)
{
	Recipe recipe = { 0 };

	no_randomness(argv);
	if (!parse(argc, argv))
		return 2;
	umask(022);
	if (!opt_dir)
		opt_dir = g_strdup("/dev/shm");
	if (opt_seed < 0)
		opt_seed = g_get_monotonic_time() * 1000 + getpid();
	sim_traces = opt_trace;
	isd_debug_bits = opt_trace ? opt_debug : 0;
	recipe = (Recipe) { .hosts = opt_clients ? MIN(opt_clients, HOSTS_MAX - 1) + 1 : 0,
			    .ops = opt_ops, .length = opt_length, .single = opt_single };
	if (opt_print) {
		g_autoptr(History) h = history_random(opt_seed, &recipe);
		g_autofree char *text = history_text(h);

		printf("%s", text);
		return 0;
	}
	return opt_history ? from_file() : many(&recipe);
}
