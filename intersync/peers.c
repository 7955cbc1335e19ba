// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The peers of a server: who has asked, from where, how far each has come in
 * our log and in its own.  Kept in memory, written to the state now and then
 * (server.c) and at the end; what is lost by a crash is told again with the next request.
 */
#include "server.h"

#include <sqlite3.h>
#include <string.h>

#include "util.h"

struct IsdPeers {
	IsdState	*state;
	GHashTable	*table;	/* uuid text -> IsdPeer */
};

static void peer_free(gpointer data)
{
	IsdPeer *p = data;

	g_free(p->name);
	g_free(p->address);
	g_free(p);
}

static gboolean failed(IsdPeers *p, GError **error)
{
	g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED, "state.db: peers: %s",
		    sqlite3_errmsg(isd_state_db(p->state)));
	return FALSE;
}

static IsdPeer *add(IsdPeers *p, const guint8 uuid[16])
{
	IsdPeer *peer = g_new0(IsdPeer, 1);

	memcpy(peer->uuid, uuid, 16);
	uuid_format(uuid, peer->uuid_text);
	g_hash_table_insert(p->table, peer->uuid_text, peer);
	return peer;
}

static void load_row(IsdPeers *p, sqlite3_stmt *st)
{
	IsdPeer *peer;

	if (sqlite3_column_bytes(st, 0) != 16)
		return;
	peer = add(p, sqlite3_column_blob(st, 0));
	peer->name = g_strdup((const char *) sqlite3_column_text(st, 1));
	peer->address = g_strdup((const char *) sqlite3_column_text(st, 2));
	peer->first_seen = sqlite3_column_int64(st, 3);
	peer->last_seen = sqlite3_column_int64(st, 4);
	peer->offset = sqlite3_column_int64(st, 5);
	peer->recno = sqlite3_column_int64(st, 6);
	peer->acked = sqlite3_column_int64(st, 7);
}

static gboolean load(IsdPeers *p, GError **error)
{
	sqlite3_stmt *st;
	int rc;

	if (sqlite3_exec(isd_state_db(p->state),
			 "CREATE TABLE IF NOT EXISTS peer(uuid BLOB PRIMARY KEY, name TEXT,"
			 " address TEXT, first_seen INTEGER, last_seen INTEGER, offset INTEGER,"
			 " recno INTEGER, acked INTEGER) WITHOUT ROWID", NULL, NULL, NULL))
		return failed(p, error);
	st = isd_state_prepare(p->state, "SELECT uuid, name, address, first_seen, last_seen,"
			       " offset, recno, acked FROM peer", error);
	if (!st)
		return FALSE;
	while ((rc = sqlite3_step(st)) == SQLITE_ROW)
		load_row(p, st);
	sqlite3_reset(st);
	return rc == SQLITE_DONE || failed(p, error);
}

IsdPeers *isd_peers_new(IsdState *state, GError **error)
{
	IsdPeers *p = g_new0(IsdPeers, 1);

	p->state = state;
	p->table = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, peer_free);
	if (load(p, error))
		return p;
	g_hash_table_unref(p->table);
	g_free(p);
	return NULL;
}

static gboolean store(IsdPeers *p, const IsdPeer *peer, GError **error)
{
	sqlite3_stmt *st = isd_state_prepare(p->state,
		"INSERT OR REPLACE INTO peer VALUES(?,?,?,?,?,?,?,?)", error);
	int rc;

	if (!st)
		return FALSE;
	sqlite3_bind_blob(st, 1, peer->uuid, 16, SQLITE_STATIC);
	sqlite3_bind_text(st, 2, peer->name, -1, SQLITE_STATIC);
	sqlite3_bind_text(st, 3, peer->address, -1, SQLITE_STATIC);
	sqlite3_bind_int64(st, 4, peer->first_seen);
	sqlite3_bind_int64(st, 5, peer->last_seen);
	sqlite3_bind_int64(st, 6, peer->offset);
	sqlite3_bind_int64(st, 7, peer->recno);
	sqlite3_bind_int64(st, 8, peer->acked);
	rc = sqlite3_step(st);
	sqlite3_reset(st);
	return rc == SQLITE_DONE || failed(p, error);
}

/*
 * Origins are needed until the peer knows the fate of its record and has come
 * past it in our log.
 */
static gboolean flush_one(IsdPeers *p, IsdPeer *peer, GError **error)
{
	if (!store(p, peer, error))
		return FALSE;
	if (peer->acked &&
	    !isd_state_origin_forget_seen(p->state, peer->uuid, peer->acked, peer->recno, error))
		return FALSE;
	peer->dirty = FALSE;
	return TRUE;
}

gboolean isd_peers_flush(IsdPeers *p, GError **error)
{
	GHashTableIter i;
	gpointer peer;

	g_hash_table_iter_init(&i, p->table);
	while (g_hash_table_iter_next(&i, NULL, &peer))
		if (((IsdPeer *) peer)->dirty && !flush_one(p, peer, error))
			return FALSE;
	return TRUE;
}

void isd_peers_free(IsdPeers *p)
{
	if (!p)
		return;
	isd_peers_flush(p, NULL);
	g_hash_table_unref(p->table);
	g_free(p);
}

IsdPeer *isd_peers_seen(IsdPeers *p, const struct gate_peer *told, gboolean *ret_is_new)
{
	gint64 now = g_get_real_time() / G_USEC_PER_SEC;
	char text[UUID_TEXT];
	IsdPeer *peer;

	uuid_format(told->uuid, text);
	peer = g_hash_table_lookup(p->table, text);
	*ret_is_new = !peer;
	if (!peer) {
		peer = add(p, told->uuid);
		peer->first_seen = now;
	}
	g_free(peer->name);
	g_free(peer->address);
	peer->name = g_utf8_make_valid(told->name, -1);
	peer->address = g_utf8_make_valid(told->address, -1);
	peer->last_seen = now;
	/* Answers may overtake each other: what a peer once had it still has. */
	peer->acked = MAX(peer->acked, told->acked);
	if (told->offset)
		peer->offset = told->offset;
	if (told->recno)
		peer->recno = told->recno;
	peer->dirty = TRUE;
	return peer;
}

const IsdPeer *isd_peers_find(IsdPeers *p, const guint8 uuid[16])
{
	char text[UUID_TEXT];

	uuid_format(uuid, text);
	return g_hash_table_lookup(p->table, text);
}

const char *isd_peers_name(IsdPeers *p, const guint8 uuid[16])
{
	char text[UUID_TEXT];
	const IsdPeer *peer;

	uuid_format(uuid, text);
	peer = g_hash_table_lookup(p->table, text);
	return peer && peer->name && *peer->name ? peer->name : NULL;
}

static int by_name(gconstpointer a, gconstpointer b)
{
	const IsdPeer *x = *(IsdPeer *const *) a, *y = *(IsdPeer *const *) b;
	int rc = g_strcmp0(x->name, y->name);

	return rc ? rc : strcmp(x->uuid_text, y->uuid_text);
}

GPtrArray *isd_peers_list(IsdPeers *p)
{
	GPtrArray *list = g_ptr_array_new();
	GHashTableIter i;
	gpointer peer;

	g_hash_table_iter_init(&i, p->table);
	while (g_hash_table_iter_next(&i, NULL, &peer))
		g_ptr_array_add(list, peer);
	g_ptr_array_sort(list, by_name);
	return list;
}
