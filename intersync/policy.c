// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The policies of a fileset, in the file of the option --conflicts (intersync(8)): which version of
 * what path is kept.  Read again when the file has changed; a file that
 * cannot be understood is none, and its fault is logged once.
 */
#include "conflict.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util.h"

#define POLICY_BYTES	(256 * 1024)
#define PROGRAM_SECONDS	60

typedef struct {
	char		*pattern;
	IsdPolicy	policy;
} Rule;

struct IsdPolicies {
	char		*file;
	struct stat	st;		/* of the file that was read; st_ino 0: there was none */
	gboolean	looked;
	GArray		*rules;
};

static const struct {
	const char	*name;
	IsdKeep		keep;
} words[] = {
	{ "keep-both", ISD_KEEP_BOTH },
	{ "server", ISD_KEEP_SERVER },
	{ "client", ISD_KEEP_CLIENT },
	{ "newest", ISD_KEEP_NEWEST },
	{ "program", ISD_KEEP_PROGRAM },
	{ "merge-ranges", ISD_KEEP_RANGES },
};

void isd_policy_clear(IsdPolicy *p)
{
	g_clear_pointer(&p->argv, g_strfreev);
}

static void rule_clear(gpointer data)
{
	Rule *r = data;

	g_free(r->pattern);
	isd_policy_clear(&r->policy);
}

/* "program:SECONDS" */
static gboolean parse_seconds(const char *text, guint *ret)
{
	char *end;
	guint64 n = g_ascii_strtoull(text, &end, 10);

	if (end == text || *end || !n || n > 86400)
		return FALSE;
	*ret = n;
	return TRUE;
}

static gboolean parse_word(const char *word, IsdPolicy *p)
{
	if (g_str_has_prefix(word, "program:")) {
		p->keep = ISD_KEEP_PROGRAM;
		return parse_seconds(word + strlen("program:"), &p->seconds);
	}
	p->seconds = PROGRAM_SECONDS;
	for (gsize i = 0; i < G_N_ELEMENTS(words); i++)
		if (!strcmp(word, words[i].name)) {
			p->keep = words[i].keep;
			return TRUE;
		}
	return FALSE;
}

/* PATTERN POLICY [PROGRAM ARGUMENT...], quoted as in a shell. */
static gboolean parse_line(const char *line, Rule *ret)
{
	g_auto(GStrv) words_of = NULL;
	int n;

	if (!g_shell_parse_argv(line, &n, &words_of, NULL) || n < 2 ||
	    !parse_word(words_of[1], &ret->policy) ||
	    (n > 2) != (ret->policy.keep == ISD_KEEP_PROGRAM))
		return FALSE;
	ret->pattern = g_strdup(words_of[0]);
	if (n > 2)
		ret->policy.argv = g_strdupv(words_of + 2);
	return TRUE;
}

/* The number of the first line that is wrong; 0: none. */
static guint parse_rules(const char *text, GArray *rules)
{
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

	for (guint i = 0; lines[i]; i++) {
		const char *line = g_strstrip(lines[i]);
		Rule r = { 0 };

		if (!*line || *line == '#')
			continue;
		if (!parse_line(line, &r))
			return i + 1;
		g_array_append_val(rules, r);
	}
	return 0;
}

static void read_rules(IsdClient *c, int fd)
{
	struct IsdPolicies *p = c->policies;
	g_autofree char *text = g_malloc0(POLICY_BYTES + 1);
	guint line;

	if (!p->st.st_ino || p->st.st_size > POLICY_BYTES ||
	    pread_all(fd, text, p->st.st_size, 0)) {
		isd_log(4, c->server, 0, "%s: is not there, no file, or too large: no policy "
			"for conflicts applies", p->file);
		return;
	}
	line = parse_rules(text, p->rules);
	if (!line)
		return;
	g_array_set_size(p->rules, 0);
	isd_log(4, c->server, 0, "%s: line %u is no policy, so none applies: see intersync(8)",
		p->file, line);
}

static gboolean is_unchanged(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static void read_again(IsdClient *c)
{
	struct IsdPolicies *p = c->policies;
	struct stat st = { 0 };
	int fd = open(p->file, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)))
		memset(&st, 0, sizeof(st));
	if (!p->looked || !is_unchanged(&st, &p->st)) {
		p->looked = TRUE;
		p->st = st;
		g_array_set_size(p->rules, 0);
		read_rules(c, fd);
	}
	if (fd >= 0)
		close(fd);
}

struct IsdPolicies *isd_policies_new(const char *file)
{
	struct IsdPolicies *p = g_new0(struct IsdPolicies, 1);

	p->file = g_strdup(file);
	p->rules = g_array_new(FALSE, TRUE, sizeof(Rule));
	g_array_set_clear_func(p->rules, rule_clear);
	return p;
}

void isd_policies_free(struct IsdPolicies *p)
{
	if (!p)
		return;
	g_array_unref(p->rules);
	g_free(p->file);
	g_free(p);
}

/* With a slash it is about the whole path, else about the name. */
static gboolean rule_fits(const Rule *r, const char *path, const char *name)
{
	if (r->pattern[0] == '/')
		return fnmatch(r->pattern + 1, path, 0) == 0;
	return fnmatch(r->pattern, strchr(r->pattern, '/') ? path : name, 0) == 0;
}

void isd_policy_find(IsdClient *c, const char *path, IsdPolicy *ret)
{
	struct IsdPolicies *p = c->policies;
	const char *slash = strrchr(path, '/');

	*ret = (IsdPolicy) { .keep = ISD_KEEP_BOTH };
	if (!p)
		return;
	read_again(c);
	for (guint i = 0; i < p->rules->len; i++) {
		const Rule *r = &g_array_index(p->rules, Rule, i);

		if (!rule_fits(r, path, slash ? slash + 1 : path))
			continue;
		*ret = r->policy;
		ret->argv = g_strdupv(r->policy.argv);
		return;
	}
}
