// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * izoctl: look at a mounted fileset and its daemon, and steer it.  Exit codes:
 * 0 fine, 1 failed (not in order, not in time), 2 wrong usage.
 */
#include "config.h"

#include "izoctl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <gio/gio.h>

#include "daemon.h"

static gboolean opt_json, opt_version;
static char *opt_keep;
static int opt_timeout;

static const GOptionEntry options[] = {
	{ "json", 'j', 0, G_OPTION_ARG_NONE, &opt_json, "print JSON", NULL },
	{ "timeout", 't', 0, G_OPTION_ARG_INT, &opt_timeout,
	  "give up after so many seconds (default: never; status: 10)", "S" },
	{ "keep", 'k', 0, G_OPTION_ARG_STRING, &opt_keep,
	  "resolve: the version to keep, server, client or both", "VERSION" },
	{ "version", 'V', 0, G_OPTION_ARG_NONE, &opt_version, "show the version", NULL },
	{ NULL }
};

static const char summary[] =
	"Look at the InterMezzo fileset mounted at DIR, and steer its intersync.\n\n"
	"Commands:\n"
	"  status DIR   is it working, how far behind, what blocks\n"
	"  sync DIR     wait until all of both sides is on the other\n"
	"  check DIR    compare log, state and tree\n"
	"  peers DIR    who follows this server, and how far\n"
	"  conflicts DIR  what was changed here and on the server\n"
	"  resolve --keep=server|client|both DIR CONFLICT|PATH  settle one of them";

G_GNUC_PRINTF(1, 2)
static int usage(const char *format, ...)
{
	va_list ap;

	fputs("izoctl: ", stderr);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputs("\nTry 'izoctl --help'.\n", stderr);
	return 2;
}

static int fail(const char *dir, const char *message)
{
	fprintf(stderr, "izoctl: %s: %s\n", dir, message);
	return 1;
}

static void print_json(JsonObject *o)
{
	g_autoptr(JsonNode) node = json_node_init_object(json_node_alloc(), o);
	g_autofree char *s = json_to_string(node, TRUE);

	puts(s);
}

/* The answer says by itself whether it is a success. */
static int outcome(const char *dir, JsonObject *o)
{
	const char *message = json_object_get_string_member_with_default(o, "message", NULL);
	gboolean ok = json_object_get_boolean_member_with_default(o, "ok", FALSE);

	if (message)
		fail(dir, message);
	return ok ? 0 : 1;
}

/* intersync is not there: the log and the state can still be read. */
static JsonObject *status_without_daemon(const char *dir, GError **error)
{
	g_autoptr(JsonBuilder) b = json_builder_new();
	g_autoptr(JsonNode) root = NULL;
	int channel;
	IsdCore *core = isd_core_open(dir, &channel, error);

	if (!core)
		return NULL;
	core->state = isd_state_open_ro(core->meta_fd, NULL);
	json_builder_begin_object(b);
	json_builder_set_member_name(b, "ok");
	json_builder_add_boolean_value(b, FALSE);
	isd_json_text(b, "state", "stopped");
	isd_json_text(b, "reason", "intersync does not run");
	isd_core_status(core, b);
	json_builder_end_object(b);
	isd_core_free(core);
	close(channel);
	root = json_builder_get_root(b);
	return json_object_ref(json_node_get_object(root));
}

static int cmd_status(const char *dir, int minor)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(JsonObject) o = izoctl_ask(minor, "status", opt_timeout ? opt_timeout : 10,
					     NULL, NULL, &error);

	if (!o && g_error_matches(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND)) {
		g_clear_error(&error);
		o = status_without_daemon(dir, &error);
	}
	if (!o && g_error_matches(error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT))
		return fail(dir, "intersync runs, but does not answer: it is starting, or busy");
	if (!o && g_error_matches(error, ISD_ERROR, ISD_ERROR_BUSY))
		return fail(dir, "intersync is starting and does not answer yet");
	if (!o && error->domain == G_IO_ERROR)
		return fail(dir, error->message);
	if (!o) {
		fprintf(stderr, "izoctl: %s\n", error->message);
		return 1;
	}
	if (opt_json)
		print_json(o);
	else
		izoctl_print_status(o);
	return json_object_get_boolean_member(o, "ok") ? 0 : 1;
}

static int cmd_sync(const char *dir, int minor)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(JsonObject) o = izoctl_ask(minor, "sync", opt_timeout, NULL, NULL, &error);

	if (!o && g_error_matches(error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT))
		return fail(dir, "not everything was on both sides in time: see izoctl status");
	if (!o)
		return fail(dir, error->message);
	if (opt_json)
		print_json(o);
	return outcome(dir, o);
}

static int cmd_peers(const char *dir, int minor)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(JsonObject) o = izoctl_ask(minor, "peers", opt_timeout, NULL, NULL, &error);

	if (!o)
		return fail(dir, error->message);
	if (opt_json)
		print_json(o);
	else if (json_object_has_member(o, "peers"))
		izoctl_print_peers(o);
	return outcome(dir, o);
}

static void tell(const char *sentence, gpointer unused)
{
	if (opt_json) {
		g_autoptr(JsonObject) o = json_object_new();
		g_autoptr(JsonNode) node = json_node_init_object(json_node_alloc(), o);
		g_autofree char *text = NULL;

		json_object_set_string_member(o, "difference", sentence);
		text = json_to_string(node, FALSE);
		puts(text);
	} else {
		puts(sentence);
	}
}

static void found_by_daemon(JsonObject *line, gpointer unused)
{
	const char *s = json_object_get_string_member_with_default(line, "difference", NULL);

	if (s)
		tell(s, NULL);
}

/* intersync is not there: compare here; its channel keeps it away meanwhile. */
static JsonObject *check_without_daemon(const char *dir, GError **error)
{
	g_autoptr(JsonBuilder) b = json_builder_new();
	g_autoptr(JsonNode) root = NULL;
	IsdCheckCounts n;
	gboolean ok;
	int channel;
	IsdCore *core = isd_core_open(dir, &channel, error);

	if (!core)
		return NULL;
	ok = isd_check(core->root_fd, core->meta_fd, tell, NULL, &n, error);
	isd_core_free(core);
	close(channel);
	if (!ok)
		return NULL;
	json_builder_begin_object(b);
	json_builder_set_member_name(b, "ok");
	json_builder_add_boolean_value(b, n.differences == 0);
	isd_check_report(&n, b);
	json_builder_end_object(b);
	root = json_builder_get_root(b);
	return json_object_ref(json_node_get_object(root));
}

static void print_check(JsonObject *o)
{
	if (!json_object_has_member(o, "records"))
		return;
	printf("%" G_GINT64_FORMAT " records, %" G_GINT64_FORMAT " objects, %" G_GINT64_FORMAT
	       " names: %" G_GINT64_FORMAT " differences\n",
	       json_object_get_int_member(o, "records"),
	       json_object_get_int_member(o, "objects"),
	       json_object_get_int_member(o, "names"),
	       json_object_get_int_member(o, "differences"));
}

static int cmd_check(const char *dir, int minor)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(JsonObject) o = izoctl_ask(minor, "check", opt_timeout, found_by_daemon, NULL,
					     &error);

	if (!o && g_error_matches(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND)) {
		g_clear_error(&error);
		o = check_without_daemon(dir, &error);
	}
	if (!o && error->domain == ISD_ERROR) {
		fprintf(stderr, "izoctl: %s\n", error->message);
		return 1;
	}
	if (!o)
		return fail(dir, error->message);
	if (opt_json)
		print_json(o);
	else
		print_check(o);
	return outcome(dir, o);
}

static int cmd_conflicts(const char *dir, int minor)
{
	return izoctl_conflicts(dir, minor, opt_timeout, opt_json);
}

static const struct {
	const char	*name;
	int		(*run)(const char *dir, int minor);
} commands[] = {
	{ "status", cmd_status },
	{ "sync", cmd_sync },
	{ "check", cmd_check },
	{ "peers", cmd_peers },
	{ "conflicts", cmd_conflicts },
};

static int run(const char *name, const char *dir, const char *what)
{
	g_autoptr(GError) error = NULL;
	int minor;

	if (what) {
		minor = izoctl_minor(dir, &error);
		if (minor >= 0)
			return izoctl_resolve(dir, minor, what, opt_keep, opt_timeout, opt_json);
		fprintf(stderr, "izoctl: %s\n", error->message);
		return 1;
	}
	for (gsize i = 0; i < G_N_ELEMENTS(commands); i++) {
		if (strcmp(name, commands[i].name))
			continue;
		minor = izoctl_minor(dir, &error);
		if (minor >= 0)
			return commands[i].run(dir, minor);
		fprintf(stderr, "izoctl: %s\n", error->message);
		return 1;
	}
	return usage("%s is no command", name);
}

/* 0, or the exit status */
static int check_arguments(int argc, char **argv)
{
	gboolean resolve = argc > 1 && !strcmp(argv[1], "resolve");

	if (argc < 3)
		return usage(argc < 2 ? "a command is missing" :
					"the directory of the fileset is missing");
	if (resolve && argc < 4)
		return usage("resolve: the number or the path of a conflict is missing");
	if (argc > 3 + resolve)
		return usage(resolve ? "only one conflict can be named" :
				       "only one directory can be named");
	if (resolve && g_strcmp0(opt_keep, "server") && g_strcmp0(opt_keep, "client") &&
	    g_strcmp0(opt_keep, "both"))
		return usage("resolve: --keep=server, --keep=client or --keep=both is needed");
	if (!resolve && opt_keep)
		return usage("--keep belongs to resolve");
	return 0;
}

int main(int argc, char **argv)
{
	g_autoptr(GOptionContext) context = g_option_context_new("COMMAND DIR");
	g_autoptr(GError) error = NULL;
	int rc;

	g_option_context_set_summary(context, summary);
	g_option_context_add_main_entries(context, options, NULL);
	if (!g_option_context_parse(context, &argc, &argv, &error))
		return usage("%s", error->message);
	if (opt_version) {
		printf("izoctl %s\n", PACKAGE_VERSION);
		return fflush(stdout) ? 1 : 0;
	}
	rc = check_arguments(argc, argv);
	if (rc)
		return rc;
	if (opt_timeout < 0)
		return usage("--timeout=%d: a number of seconds is needed", opt_timeout);
	rc = run(argv[1], argv[2], argc > 3 ? argv[3] : NULL);
	if (fflush(stdout) || ferror(stdout))
		return fail("output", g_strerror(errno));
	return rc;
}
