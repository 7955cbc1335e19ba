// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * izoctl conflicts and izoctl resolve: what both sides have changed, and which version is to stay.
 */
#include "izoctl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util.h"

static int fail(const char *dir, const char *message)
{
	fprintf(stderr, "izoctl: %s: %s\n", dir, message);
	return 1;
}

static int not_ok(const char *dir, JsonObject *o)
{
	if (json_object_get_boolean_member_with_default(o, "ok", FALSE))
		return 0;
	return fail(dir, json_object_get_string_member_with_default(o, "message", "failed"));
}

static void print_page(JsonArray *a, gboolean json, gboolean *first)
{
	for (guint i = 0; a && i < json_array_get_length(a); i++) {
		JsonNode *node = json_array_get_element(a, i);
		g_autofree char *text = NULL;

		if (!json) {
			izoctl_print_conflict(json_node_get_object(node));
			continue;
		}
		text = json_to_string(node, FALSE);
		printf("%s%s", *first ? "" : ",\n", text);
		*first = FALSE;
	}
}

/* The answers come in pieces, so that no number of conflicts is too large. */
static int print_all(const char *dir, int minor, guint timeout, gboolean json)
{
	gboolean first = TRUE;
	gint64 after = 0;

	while (after >= 0) {
		g_autoptr(JsonObject) request = json_object_new(), o = NULL;
		g_autofree char *from = g_strdup_printf("%" G_GINT64_FORMAT, after);
		g_autoptr(GError) error = NULL;

		json_object_set_string_member(request, "cmd", "conflicts");
		json_object_set_string_member(request, "after", from);
		o = izoctl_request(minor, request, timeout, NULL, NULL, &error);
		if (!o)
			return fail(dir, error->message);
		if (not_ok(dir, o))
			return 1;
		print_page(json_object_get_array_member(o, "conflicts"), json, &first);
		after = json_object_get_int_member_with_default(o, "after", -1);
	}
	return 0;
}

int izoctl_conflicts(const char *dir, int minor, guint timeout, gboolean json)
{
	int rc;

	if (json)
		fputs("[", stdout);
	rc = print_all(dir, minor, timeout, json);
	if (json)
		fputs("]\n", stdout);
	return rc;
}

/* Relative to the root of the fileset, however it was said. */
static char *path_in(const char *dir, const char *what)
{
	g_autofree char *root = g_canonicalize_filename(dir, NULL);
	gsize len = strlen(root);

	if (g_str_has_prefix(what, root) && what[len] == '/')
		what += len;
	while (*what == '/' || (what[0] == '.' && what[1] == '/'))
		what++;
	return g_strdup(what);
}

int izoctl_resolve(const char *dir, int minor, const char *what, const char *keep, guint timeout,
		   gboolean json)
{
	g_autofree char *path = path_in(dir, what);
	g_autofree char *raw = g_utf8_make_valid(path, -1);
	char *escaped = name_escape(path, strlen(path));
	g_autoptr(JsonObject) request = json_object_new(), o = NULL;
	g_autoptr(GError) error = NULL;

	json_object_set_string_member(request, "cmd", "resolve");
	json_object_set_string_member(request, "conflict", raw);
	json_object_set_string_member(request, "escaped", escaped ? escaped : raw);
	json_object_set_string_member(request, "keep", keep);
	free(escaped);
	o = izoctl_request(minor, request, timeout, NULL, NULL, &error);
	if (!o)
		return fail(dir, error->message);
	if (json) {
		g_autoptr(JsonNode) node = json_node_init_object(json_node_alloc(), o);
		g_autofree char *text = json_to_string(node, TRUE);

		puts(text);
	}
	return not_ok(dir, o);
}
