// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What an HTTP status means for who asked.  Used by fetch.c, and by the simulated
 * network of tests/model in its place.
 */
#include "fetch.h"

#include <json-glib/json-glib.h>

#include "error.h"

static int fetch_code_of_status(guint status)
{
	switch (status) {
	case 404:
		return ISD_ERROR_FATAL;
	case 409:
		return ISD_ERROR_EPOCH;
	case 410:
		return ISD_ERROR_GONE;
	case 425:
		return ISD_ERROR_BUSY;
	case 507:
		return ISD_ERROR_NOSPC;
	default:
		return status >= 500 || status == 408 || status == 429 ?
			ISD_ERROR_NETWORK : ISD_ERROR_PROTOCOL;
	}
}

/* The sentence in {"error": "..."}; NULL if the body is something else. */
static char *fetch_sentence(const GByteArray *body)
{
	g_autoptr(JsonParser) p = json_parser_new();
	JsonNode *root;
	JsonObject *o;

	if (!body->len || !json_parser_load_from_data(p, (const char *)body->data, body->len, NULL))
		return NULL;
	root = json_parser_get_root(p);
	if (!root || !JSON_NODE_HOLDS_OBJECT(root))
		return NULL;
	o = json_node_get_object(root);
	if (!json_object_has_member(o, "error") ||
	    !JSON_NODE_HOLDS_VALUE(json_object_get_member(o, "error")))
		return NULL;
	return g_strdup(json_object_get_string_member(o, "error"));
}

GError *isd_fetch_refused(guint status, const GByteArray *body)
{
	g_autofree char *sentence = NULL;

	if (status / 100 == 2)
		return NULL;
	sentence = fetch_sentence(body);
	if (sentence)
		return g_error_new_literal(ISD_ERROR, fetch_code_of_status(status), sentence);
	return g_error_new(ISD_ERROR, fetch_code_of_status(status),
			   "the server answers with HTTP status %u", status);
}
