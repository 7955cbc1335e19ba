// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The status for people: is it working, how far behind, what blocks.  Members
 * are those that intersync/core.h names; what is absent is not printed.
 */
#include "izoctl.h"

#include <stdio.h>

static gint64 number(JsonObject *o, const char *name)
{
	return o ? json_object_get_int_member_with_default(o, name, 0) : 0;
}

static const char *text(JsonObject *o, const char *name)
{
	return json_object_get_string_member_with_default(o, name, "");
}

static JsonObject *object(JsonObject *o, const char *name)
{
	JsonNode *n = o ? json_object_get_member(o, name) : NULL;

	return n && JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
}

static void line(const char *name, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void line(const char *name, const char *format, ...)
{
	va_list ap;

	printf("%-12s ", name);
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	putchar('\n');
}

static char *size(gint64 bytes)
{
	return g_format_size_full(bytes, G_FORMAT_SIZE_IEC_UNITS);
}

static char *elapsed(gint64 then)
{
	gint64 s = g_get_real_time() / G_USEC_PER_SEC - then;

	if (s < 120)
		return g_strdup_printf("%" G_GINT64_FORMAT " s", s < 0 ? 0 : s);
	if (s < 7200)
		return g_strdup_printf("%" G_GINT64_FORMAT " min", s / 60);
	if (s < 172800)
		return g_strdup_printf("%" G_GINT64_FORMAT " h", s / 3600);
	return g_strdup_printf("%" G_GINT64_FORMAT " days", s / 86400);
}

static void print_head(JsonObject *o)
{
	const char *role = text(o, "role");

	line("fileset", "%s at %s (%s over %s)", text(o, "fileset"), text(o, "dir"),
	     text(o, "backend"), text(o, "lower"));
	if (*role)
		line("role", "%s, %s%s%s", role, text(o, "mode"),
		     *text(o, "name") ? ", called " : "", text(o, "name"));
	if (*text(o, "listen"))
		line("serves on", "%s", text(o, "listen"));
	if (*text(o, "server"))
		line("server", "%s", text(o, "server"));
}

static void print_state(JsonObject *o)
{
	g_autofree char *since = number(o, "since") ? elapsed(number(o, "since")) : NULL;
	const char *reason = text(o, "reason");

	if (!*text(o, "state"))
		return;
	line("state", "%s%s%s%s%s", text(o, "state"), since ? ", for " : "",
	     since ? since : "", *reason ? ": " : "", reason);
}

static void print_progress(JsonObject *p)
{
	g_autofree char *done = size(number(p, "bytes"));
	g_autofree char *all = size(number(p, "of_bytes"));

	if (p)
		line("attached", "%" G_GINT64_FORMAT " of %" G_GINT64_FORMAT
		     " objects, %s of %s", number(p, "objects"), number(p, "of_objects"),
		     done, all);
}

static void print_amount(const char *name, JsonObject *a, const char *none)
{
	g_autofree char *bytes = size(number(a, "bytes"));

	if (!a)
		return;
	if (!number(a, "records") && !number(a, "bytes"))
		line(name, "%s", none);
	else if (json_object_has_member(a, "seconds"))
		line(name, "%" G_GINT64_FORMAT " records, %s, %" G_GINT64_FORMAT " s",
		     number(a, "records"), bytes, number(a, "seconds"));
	else
		line(name, "%" G_GINT64_FORMAT " records, %s", number(a, "records"), bytes);
}

static void print_position(const char *name, JsonObject *p)
{
	if (p)
		line(name, "record %" G_GINT64_FORMAT ", offset %" G_GINT64_FORMAT,
		     number(p, "recno"), number(p, "offset"));
}

static void print_trouble(JsonObject *o)
{
	JsonObject *b = object(o, "blocked");

	if (number(o, "conflicts"))
		line("conflicts", "%" G_GINT64_FORMAT " to be settled: see izoctl conflicts",
		     number(o, "conflicts"));
	else if (json_object_has_member(o, "conflicts"))
		line("conflicts", "none");
	if (b && number(b, "recno"))
		line("blocked by", "record %" G_GINT64_FORMAT " %s: %s", number(b, "recno"),
		     text(b, "what"), text(b, "why"));
	else if (b)
		line("blocked by", "%s: %s", text(b, "what"), text(b, "why"));
}

void izoctl_print_status(JsonObject *o)
{
	g_autofree char *bytes = size(number(o, "bytes"));

	print_head(o);
	print_state(o);
	print_progress(object(o, "progress"));
	print_amount("behind", object(o, "lag"), "nothing");
	print_amount("to send", object(o, "pending"), "nothing");
	print_trouble(o);
	print_position("own log", object(o, "log"));
	print_position("state", object(o, "applied"));
	print_position("server's log", object(o, "server_end"));
	print_position("applied", object(o, "position"));
	if (json_object_has_member(o, "objects"))
		line("content", "%" G_GINT64_FORMAT " objects, %s", number(o, "objects"), bytes);
}

static void print_peer(JsonObject *p)
{
	g_autofree char *seen = elapsed(number(p, "last_seen"));

	printf("%-20s %-24s record %-10" G_GINT64_FORMAT " behind %-8" G_GINT64_FORMAT " seen %s ago\n",
	       text(p, "name"), text(p, "address"), number(object(p, "position"), "recno"),
	       number(object(p, "lag"), "records"), seen);
}

void izoctl_print_peers(JsonObject *o)
{
	JsonArray *peers = json_object_get_array_member(o, "peers");

	for (guint i = 0; peers && i < json_array_get_length(peers); i++)
		print_peer(json_array_get_object_element(peers, i));
}

static void print_version(const char *who, JsonObject *v)
{
	g_autofree char *bytes = size(number(v, "size"));
	g_autoptr(GDateTime) t = g_date_time_new_from_unix_utc(number(v, "mtime"));
	g_autofree char *when = t ? g_date_time_format(t, "%Y-%m-%d %H:%M:%S UTC") : NULL;

	if (!v)
		printf("     %-8s removed\n", who);
	else if (json_object_has_member(v, "mtime"))
		printf("     %-8s %s, written %s\n", who, bytes, when ? when : "");
}

void izoctl_print_conflict(JsonObject *o)
{
	g_autofree char *ago = elapsed(number(o, "time"));

	printf("%-4" G_GINT64_FORMAT " %s: %s, %s ago\n", number(o, "conflict"), text(o, "kind"),
	       text(o, "path"), ago);
	if (*text(o, "copy"))
		printf("     copy     %s\n", text(o, "copy"));
	if (*text(o, "client_path"))
		printf("     here     %s\n", text(o, "client_path"));
	print_version("server", object(o, "server"));
	print_version("client", object(o, "client"));
}
