// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Promise 3, nothing written is lost: each content that a program wrote is somewhere in the
 * end, unless a program that had it before its eyes has put an end to it (written
 * over it, removed its last name or renamed something over that).
 */
#include "sim.h"

typedef struct {
	char		writer[8];
	gboolean	ended;
} Version;

static GHashTable *versions;	/* key -> Version */

void versions_reset(void)
{
	if (versions)
		g_hash_table_unref(versions);
	versions = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
}

void versions_written(const struct host *h, char *key)
{
	Version *v = g_new0(Version, 1);

	g_strlcpy(v->writer, h->name, sizeof(v->writer));
	g_hash_table_replace(versions, key, v);
}

void versions_ended(const char *key)
{
	Version *v = g_hash_table_lookup(versions, key);

	if (v)
		v->ended = TRUE;
}

char *versions_lost(GHashTable *present)
{
	g_autoptr(GList) keys = g_list_sort(g_hash_table_get_keys(versions),
					    (GCompareFunc) g_strcmp0);

	for (GList *l = keys; l; l = l->next) {
		const Version *v = g_hash_table_lookup(versions, l->data);

		if (!v->ended && !g_hash_table_contains(present, l->data))
			return g_strdup_printf("lost: what %s wrote: %s", v->writer,
					       (char *) l->data);
	}
	return NULL;
}
