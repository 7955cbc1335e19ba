// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a server tells about itself: GET status for people, GET metrics for
 * Prometheus, and its part of `izoctl status --json`.
 */
#include "server.h"

#include <string.h>

static guint64 lag_records(const IsdServerView *v, const IsdPeer *p)
{
	return v->recno > p->recno ? v->recno - p->recno : 0;
}

static guint64 lag_bytes(const IsdServerView *v, const IsdPeer *p)
{
	return v->end > p->offset ? v->end - p->offset : 0;
}

static char *time_text(gint64 seconds)
{
	g_autoptr(GDateTime) t = g_date_time_new_from_unix_utc(seconds);

	return t ? g_date_time_format(t, "%Y-%m-%d %H:%M:%S UTC") : g_strdup("?");
}

static char *size_text(guint64 bytes)
{
	return g_format_size_full(bytes, G_FORMAT_SIZE_IEC_UNITS);
}

static void append(GByteArray *reply, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void append(GByteArray *reply, const char *format, ...)
{
	g_autofree char *text = NULL;
	va_list ap;

	va_start(ap, format);
	text = g_strdup_vprintf(format, ap);
	va_end(ap);
	g_byte_array_append(reply, (const guint8 *) text, strlen(text));
}

static void html_peer(const IsdServerView *v, const IsdPeer *p, GByteArray *reply)
{
	g_autofree char *name = g_markup_escape_text(p->name ? p->name : "", -1);
	g_autofree char *address = g_markup_escape_text(p->address ? p->address : "", -1);
	g_autofree char *seen = time_text(p->last_seen);
	g_autofree char *lag = size_text(lag_bytes(v, p));

	append(reply, "<tr><td title=\"%s\">%s</td><td>%s</td><td>%s</td>"
	       "<td class=n>%" G_GUINT64_FORMAT "</td>"
	       "<td class=n>%" G_GUINT64_FORMAT "</td><td class=n>%s</td></tr>\n",
	       p->uuid_text, name, address, seen, p->recno, lag_records(v, p), lag);
}

static void html_peers(const IsdServerView *v, GByteArray *reply)
{
	g_autoptr(GPtrArray) list = isd_peers_list(v->peers);

	append(reply, "<h2>Clients</h2>\n");
	if (!list->len) {
		append(reply, "<p>None has asked yet.</p>\n");
		return;
	}
	append(reply, "<table>\n<tr><th>name</th><th>address</th><th>last seen</th>"
	       "<th>has record</th><th>records behind</th><th>bytes behind</th></tr>\n");
	for (guint i = 0; i < list->len; i++)
		html_peer(v, list->pdata[i], reply);
	append(reply, "</table>\n");
}

void isd_pages_html(const IsdServerView *v, GByteArray *reply)
{
	g_autofree char *name = g_markup_escape_text(v->core->name, -1);
	guint64 objects = 0, bytes = 0;
	g_autofree char *size = NULL, *log = NULL;

	isd_state_counts(v->core->state, &objects, &bytes, NULL);
	size = size_text(bytes);
	log = size_text(v->end - le64toh(v->core->info.first_offset));
	append(reply, "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>"
	       "<title>%s on %s</title>\n<style>body{font:16px sans-serif;margin:2em auto;"
	       "max-width:60em}td,th{text-align:left;padding:.2em 1em .2em 0}"
	       ".n{text-align:right}</style></head><body>\n"
	       "<h1>Fileset %s on %s</h1>\n", v->core->fileset, name, v->core->fileset, name);
	append(reply, "<p>%" G_GUINT64_FORMAT " objects, %s. The log ends with record %"
	       G_GUINT64_FORMAT " (%s kept).</p>\n", objects, size, v->recno, log);
	if (v->blocked)
		append(reply, "<p><b>Clients do not see new changes: %s</b></p>\n", v->blocked);
	html_peers(v, reply);
	append(reply, "<h2>Changes of clients</h2>\n<p>%" G_GUINT64_FORMAT " taken, %"
	       G_GUINT64_FORMAT " stale, %" G_GUINT64_FORMAT " asked again, %"
	       G_GUINT64_FORMAT " failed since intersync was started.</p>\n</body></html>\n",
	       v->counts.done, v->counts.stale, v->counts.repeated,
	       v->counts.failed + v->counts.cancelled);
}

/* A label's value: backslash, quote and newline are escaped. */
static char *label(const char *text)
{
	GString *s = g_string_new(NULL);

	for (; text && *text; text++) {
		if (*text == '\n') {
			g_string_append(s, "\\n");
			continue;
		}
		if (*text == '"' || *text == '\\')
			g_string_append_c(s, '\\');
		g_string_append_c(s, *text);
	}
	return g_string_free(s, FALSE);
}

static void gauge(GByteArray *reply, const IsdServerView *v, const char *name, const char *type,
		  guint64 value)
{
	append(reply, "# TYPE intersync_%s %s\nintersync_%s{fileset=\"%s\"} %" G_GUINT64_FORMAT "\n",
	       name, type, name, v->core->fileset, value);
}

static void metrics_peers(const IsdServerView *v, GByteArray *reply)
{
	g_autoptr(GPtrArray) list = isd_peers_list(v->peers);
	static const char *const names[] = {
		"peer_lag_records", "peer_lag_bytes", "peer_last_seen_seconds",
	};

	for (guint n = 0; n < G_N_ELEMENTS(names); n++) {
		append(reply, "# TYPE intersync_%s gauge\n", names[n]);
		for (guint i = 0; i < list->len; i++) {
			const IsdPeer *p = list->pdata[i];
			g_autofree char *name = label(p->name);
			guint64 values[] = { lag_records(v, p), lag_bytes(v, p), p->last_seen };

			append(reply, "intersync_%s{fileset=\"%s\",peer=\"%s\",uuid=\"%s\"} %"
			       G_GUINT64_FORMAT "\n", names[n], v->core->fileset, name,
			       p->uuid_text, values[n]);
		}
	}
}

static void metrics_reint(const IsdServerView *v, GByteArray *reply)
{
	const struct {
		const char	*result;
		guint64		n;
	} counts[] = {
		{ "done", v->counts.done }, { "stale", v->counts.stale },
		{ "cancelled", v->counts.cancelled }, { "failed", v->counts.failed },
		{ "repeated", v->counts.repeated },
	};

	append(reply, "# TYPE intersync_reint_records_total counter\n");
	for (guint i = 0; i < G_N_ELEMENTS(counts); i++)
		append(reply, "intersync_reint_records_total{fileset=\"%s\",result=\"%s\"} %"
		       G_GUINT64_FORMAT "\n", v->core->fileset, counts[i].result, counts[i].n);
}

void isd_pages_metrics(const IsdServerView *v, GByteArray *reply)
{
	guint64 objects = 0, bytes = 0;

	isd_state_counts(v->core->state, &objects, &bytes, NULL);
	gauge(reply, v, "log_first_offset_bytes", "gauge", le64toh(v->core->info.first_offset));
	gauge(reply, v, "log_end_offset_bytes", "gauge", v->end);
	gauge(reply, v, "log_records", "gauge", v->recno);
	gauge(reply, v, "objects", "gauge", objects);
	gauge(reply, v, "content_bytes", "gauge", bytes);
	gauge(reply, v, "httpd_restarts_total", "counter", isd_httpd_restarts(v->httpd));
	metrics_peers(v, reply);
	metrics_reint(v, reply);
}

static void add_u64(JsonBuilder *b, const char *name, guint64 value)
{
	json_builder_set_member_name(b, name);
	json_builder_add_int_value(b, value);
}

static void add_text(JsonBuilder *b, const char *name, const char *value)
{
	json_builder_set_member_name(b, name);
	json_builder_add_string_value(b, value ? value : "");
}

static void json_peer(const IsdServerView *v, const IsdPeer *p, JsonBuilder *b)
{
	json_builder_begin_object(b);
	add_text(b, "name", p->name);
	add_text(b, "replica", p->uuid_text);
	add_text(b, "address", p->address);
	json_builder_set_member_name(b, "position");
	json_builder_begin_object(b);
	add_u64(b, "offset", p->offset);
	add_u64(b, "recno", p->recno);
	json_builder_end_object(b);
	json_builder_set_member_name(b, "lag");
	json_builder_begin_object(b);
	add_u64(b, "records", lag_records(v, p));
	add_u64(b, "bytes", lag_bytes(v, p));
	json_builder_end_object(b);
	add_u64(b, "acked", p->acked);
	add_u64(b, "first_seen", p->first_seen);
	add_u64(b, "last_seen", p->last_seen);
	json_builder_end_object(b);
}

void isd_pages_peers(const IsdServerView *v, JsonBuilder *b)
{
	g_autoptr(GPtrArray) list = isd_peers_list(v->peers);

	json_builder_begin_array(b);
	for (guint i = 0; i < list->len; i++)
		json_peer(v, list->pdata[i], b);
	json_builder_end_array(b);
}

static void json_httpd(const IsdServerView *v, JsonBuilder *b)
{
	json_builder_set_member_name(b, "httpd");
	json_builder_begin_object(b);
	add_u64(b, "pid", isd_httpd_pid(v->httpd));
	add_u64(b, "restarts", isd_httpd_restarts(v->httpd));
	json_builder_end_object(b);
}

static void json_reint(const IsdServerView *v, JsonBuilder *b)
{
	json_builder_set_member_name(b, "reint");
	json_builder_begin_object(b);
	add_u64(b, "done", v->counts.done);
	add_u64(b, "stale", v->counts.stale);
	add_u64(b, "cancelled", v->counts.cancelled);
	add_u64(b, "failed", v->counts.failed);
	add_u64(b, "repeated", v->counts.repeated);
	json_builder_end_object(b);
}

void isd_pages_status(const IsdServerView *v, JsonBuilder *b)
{
	g_autofree char *listen = g_strdup_printf(strchr(v->address, ':') ? "[%s]:%u" : "%s:%u",
						  v->address, v->port);
	gboolean up = isd_httpd_pid(v->httpd) != 0;

	add_text(b, "state", v->blocked ? "blocked" : up ? "serving" : "restarting");
	if (v->blocked || !up)
		add_text(b, "reason", v->blocked ? v->blocked :
			 "httpd has ended and will be started again");
	add_u64(b, "since", v->since);
	add_text(b, "listen", listen);
	json_httpd(v, b);
	json_reint(v, b);
}
