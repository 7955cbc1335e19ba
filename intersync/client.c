// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The client role: connects to the server, decides between attaching and
 * following, and begins again after errors, with growing pauses.  Also the answers
 * to `izoctl status` and `izoctl sync`.  Called by main.c through core.h.
 */
#include "push.h"

#include <stdlib.h>
#include <string.h>

#include "util.h"

#define RETRY_MIN_MS	400
#define RETRY_MAX_MS	(30 * 1000)
#define BLOCKED_MS	(20 * 1000)
#define FULL_MIN_MS	(2 * 1000)
#define FULL_MAX_MS	(30 * 1000)
#define FULL_FORGET	60	/* seconds that went well: the next full disk is a new one */
#define FIRST_CONTACT	5	/* seconds */
#define PROFILE_TIMEOUT	15
#define COMMIT_MS	1000
#define COMMIT_RECORDS	4096
#define GROWN_MS	20	/* a CREATE is usually followed by its CLOSE */

enum { SYNC_PUSH, SYNC_ASK, SYNC_ASKED, SYNC_PULL, SYNC_REST };

struct IsdSync {
	IsdClient	*c;
	IsdSyncDone	done;
	gpointer	data;
	int		stage;
	guint64		own_recno;	/* settle up to here */
	guint64		server_end;	/* apply up to here */
};

typedef struct {
	char		*fileset_uuid, *replica_uuid;
	guint64		epoch, end_offset, last_recno;
} Profile;

static void client_connect(IsdClient *c);
static void sync_ask(struct IsdSync *y);

static void profile_clear(Profile *p)
{
	g_free(p->fileset_uuid);
	g_free(p->replica_uuid);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Profile, profile_clear)

/* --- phases and errors --- */

static const char *const phase_names[] = {
	[ISD_CLIENT_OFFLINE] = "offline",
	[ISD_CLIENT_CONNECTING] = "connecting",
	[ISD_CLIENT_ATTACHING] = "attaching",
	[ISD_CLIENT_ONLINE] = "following",
	[ISD_CLIENT_BLOCKED] = "blocked",
};

static gint64 now_seconds(void)
{
	return g_get_real_time() / G_USEC_PER_SEC;
}

void isd_client_set_phase(IsdClient *c, IsdClientPhase phase, const char *reason)
{
	gboolean told = c->phase == phase && g_strcmp0(c->reason, reason) == 0;
	g_autofree char *text = g_strdup(reason);

	/* a try to connect is no news */
	if (phase != ISD_CLIENT_CONNECTING && !told)
		isd_log(phase == ISD_CLIENT_ONLINE || phase == ISD_CLIENT_ATTACHING ? 6 : 4,
			c->server, 0, "%s: %s%s%s", c->server, phase_names[phase],
			text ? ": " : "", text ? text : "");
	if (phase == ISD_CLIENT_CONNECTING && c->phase != ISD_CLIENT_ONLINE)
		return;
	if (c->phase != phase)
		c->since = now_seconds();
	c->phase = phase;
	g_free(c->reason);
	c->reason = g_steal_pointer(&text);
}

gboolean isd_client_is_up(const IsdClient *c)
{
	return !c->reset && (c->phase == ISD_CLIENT_ATTACHING || c->phase == ISD_CLIENT_ONLINE);
}

/* Throw the parts away; what they did is in the state. */
static void client_drop_parts(IsdClient *c)
{
	isd_settle_stop(c);
	isd_heal_stop(c);
	g_clear_pointer(&c->attach, isd_attach_free);
	g_clear_pointer(&c->want, isd_want_free);
	g_clear_pointer(&c->pull, isd_pull_free);
	g_clear_pointer(&c->push, isd_push_free);
	isd_fetch_cancel_all(c->fetcher);
	for (GList *l = c->syncs; l; l = l->next) {
		struct IsdSync *y = l->data;

		if (y->stage == SYNC_ASKED)
			y->stage = SYNC_ASK;
	}
}

static gboolean client_load(IsdClient *c, GError **error)
{
	guint64 crc;

	if (!isd_state_get_u64(c->state, "pull_crc", &crc, error))
		return FALSE;
	c->pull_crc = crc;
	return isd_state_get_u64(c->state, "server_epoch", &c->epoch, error) &&
	       isd_state_get_u64(c->state, "pull_offset", &c->pull_offset, error) &&
	       isd_state_get_u64(c->state, "pull_recno", &c->pull_recno, error) &&
	       isd_state_get_u64(c->state, "push_offset", &c->push_offset, error) &&
	       isd_state_get_u64(c->state, "push_recno", &c->push_recno, error);
}

static gboolean client_retry(gpointer data)
{
	IsdClient *c = data;

	if (c->full_ms && c->phase == ISD_CLIENT_BLOCKED && !isd_space_usable(c))
		return G_SOURCE_CONTINUE;	/* a look costs nothing, a try does */
	c->retry = 0;
	client_connect(c);
	return G_SOURCE_REMOVE;
}

static void client_retry_in(IsdClient *c, guint ms)
{
	if (!c->retry)
		c->retry = g_timeout_add(ms + g_random_int_range(0, ms / 4 + 1), client_retry, c);
}

static gboolean client_reset(gpointer data)
{
	IsdClient *c = data;
	g_autoptr(GError) error = NULL;

	c->reset = 0;
	client_drop_parts(c);
	/* SQLite has rolled back by itself (disk full): there is nothing to be committed */
	if (c->txn && sqlite3_get_autocommit(c->state->db))
		isd_client_abort(c);
	if (!isd_client_commit(c, &error) || !client_load(c, &error))
		isd_client_set_phase(c, ISD_CLIENT_BLOCKED, error->message);
	if (c->phase == ISD_CLIENT_BLOCKED) {
		client_retry_in(c, c->full_ms ? c->full_ms : BLOCKED_MS);
		return G_SOURCE_REMOVE;
	}
	client_retry_in(c, c->retry_ms);
	c->retry_ms = MIN(c->retry_ms * 2, RETRY_MAX_MS);
	return G_SOURCE_REMOVE;
}

/* How long to wait for room; 0: that is not what is missing. */
static void client_note_full(IsdClient *c, gboolean full)
{
	gboolean again = c->full_ms && now_seconds() - c->since < FULL_FORGET;

	c->full_ms = !full ? 0 : again ? MIN(c->full_ms * 2, FULL_MAX_MS) : FULL_MIN_MS;
}

void isd_client_fail(IsdClient *c, const GError *error)
{
	gboolean net = g_error_matches(error, ISD_ERROR, ISD_ERROR_NETWORK);
	gboolean again = net || g_error_matches(error, ISD_ERROR, ISD_ERROR_EPOCH) ||
		g_error_matches(error, ISD_ERROR, ISD_ERROR_GONE);

	if (c->reset)
		return;
	client_note_full(c, g_error_matches(error, ISD_ERROR, ISD_ERROR_NOSPC));
	if (!net && g_error_matches(error, ISD_ERROR, ISD_ERROR_FAILED) && c->txn)
		isd_client_abort(c);
	isd_client_set_phase(c, again ? ISD_CLIENT_OFFLINE : ISD_CLIENT_BLOCKED, error->message);
	c->reset = g_idle_add_full(G_PRIORITY_HIGH, client_reset, c, NULL);
}

void isd_client_fail_log(IsdClient *c, guint status, const GError *error)
{
	g_autoptr(GError) local = NULL;
	gboolean noted = TRUE;

	if (status == 409)
		noted = isd_apart_begin(c, &local);
	else if (status == 410)
		noted = isd_state_set_u64(c->state, "attached", ISD_ATTACH_NONE, &local);
	isd_client_fail(c, noted ? error : local);
}

/* --- transactions --- */

static gboolean client_commit_timer(gpointer data)
{
	IsdClient *c = data;
	g_autoptr(GError) error = NULL;

	c->txn_source = 0;
	if (!isd_client_commit(c, &error))
		isd_client_fail(c, error);
	return G_SOURCE_REMOVE;
}

gboolean isd_client_begin(IsdClient *c, GError **error)
{
	if (c->txn)
		return TRUE;
	if (!isd_state_begin(c->state, error))
		return FALSE;
	c->txn = TRUE;
	c->txn_records = 0;
	if (!c->txn_source)
		c->txn_source = g_timeout_add(COMMIT_MS, client_commit_timer, c);
	return TRUE;
}

gboolean isd_client_did(IsdClient *c, guint records, GError **error)
{
	c->txn_records += records;
	return c->txn_records < COMMIT_RECORDS || isd_client_commit(c, error);
}

gboolean isd_client_commit(IsdClient *c, GError **error)
{
	g_clear_handle_id(&c->txn_source, g_source_remove);
	if (!c->txn)
		return TRUE;
	c->txn = FALSE;
	isd_fault("client-commit");
	return isd_state_commit(c->state, error);
}

/* What was done since the last commit is found again by looking at the files. */
void isd_client_abort(IsdClient *c)
{
	g_clear_handle_id(&c->txn_source, g_source_remove);
	if (!c->txn)
		return;
	c->txn = FALSE;
	isd_state_rollback(c->state);
}

gboolean isd_client_follow(IsdClient *c, gboolean sync, GError **error)
{
	g_autoptr(GByteArray) reply = g_byte_array_new();
	struct izo_pos pos;
	guint64 before = c->core->applied;

	if (sync) {
		if (!isd_channel_call(c->core->channel, IZO_MSG_SYNC, 0, NULL, 0, reply, error))
			return FALSE;
		if (reply->len >= sizeof(pos)) {
			memcpy(&pos, reply->data, sizeof(pos));
			c->core->log_end = MAX(c->core->log_end, GUINT64_FROM_LE(pos.offset));
			c->core->log_recno = MAX(c->core->log_recno, GUINT64_FROM_LE(pos.recno));
		}
	}
	if (!isd_client_begin(c, error) || !isd_follow(c->core, NULL, error))
		return FALSE;
	if (c->core->met)
		isd_client_log_grew(c->core);
	if (c->core->applied != before && c->push)
		isd_push_kick(c->push);
	return TRUE;
}

/* --- connecting --- */

char *isd_client_which_log(const IsdClient *c)
{
	g_autofree char *crc = c->pull_crc ? g_strdup_printf("&crc=%u", c->pull_crc) : NULL;

	return g_strdup_printf("epoch=%" G_GUINT64_FORMAT "%s", c->epoch, crc ? crc : "");
}

static struct curl_slist *client_headers(gpointer data)
{
	IsdClient *c = data;
	g_autofree char *peer = g_strdup_printf("InterSync-Peer: %s", c->core->replica);
	g_autofree char *name = g_strdup_printf("InterSync-Name: %s", c->core->name);
	g_autofree char *acked = g_strdup_printf("InterSync-Acked: %" G_GUINT64_FORMAT,
						 c->push_recno);
	g_autofree char *pos = g_strdup_printf("InterSync-Position: %" G_GUINT64_FORMAT
					       " %" G_GUINT64_FORMAT, c->pull_offset,
					       c->pull_recno);
	struct curl_slist *l = curl_slist_append(NULL, peer);

	l = curl_slist_append(l, name);
	l = curl_slist_append(l, acked);
	return curl_slist_append(l, pos);
}

static gboolean profile_number(JsonObject *o, const char *key, guint64 *ret)
{
	JsonNode *n = json_object_get_member(o, key);

	if (!n || !JSON_NODE_HOLDS_VALUE(n))
		return FALSE;
	*ret = json_node_get_int(n);
	return TRUE;
}

static gboolean profile_text(JsonObject *o, const char *key, char **ret)
{
	JsonNode *n = json_object_get_member(o, key);

	if (!n || !JSON_NODE_HOLDS_VALUE(n) || !json_node_get_string(n))
		return FALSE;
	*ret = json_node_dup_string(n);
	return TRUE;
}

static gboolean profile_speaks(JsonObject *o)
{
	JsonNode *n = json_object_get_member(o, "protocol");
	JsonArray *a = n && JSON_NODE_HOLDS_ARRAY(n) ? json_node_get_array(n) : NULL;

	for (guint i = 0; a && i < json_array_get_length(a); i++)
		if (json_array_get_int_element(a, i) == 1)
			return TRUE;
	return FALSE;
}

static gboolean profile_parse(const GByteArray *body, Profile *ret, GError **error)
{
	g_autoptr(JsonParser) parser = json_parser_new();
	JsonNode *root;
	JsonObject *o;

	if (!json_parser_load_from_data(parser, (const char *)body->data, body->len, NULL))
		goto bad;
	root = json_parser_get_root(parser);
	if (!root || !JSON_NODE_HOLDS_OBJECT(root))
		goto bad;
	o = json_node_get_object(root);
	if (!profile_text(o, "fileset_uuid", &ret->fileset_uuid) ||
	    !profile_text(o, "replica_uuid", &ret->replica_uuid) ||
	    !profile_number(o, "epoch", &ret->epoch) ||
	    !profile_number(o, "end_offset", &ret->end_offset) ||
	    !profile_number(o, "last_recno", &ret->last_recno))
		goto bad;
	if (profile_speaks(o))
		return TRUE;
	g_set_error(error, ISD_ERROR, ISD_ERROR_FATAL,
		    "the server speaks other versions of the protocol: use the same version "
		    "of intersync on both sides");
	return FALSE;
bad:
	g_set_error(error, ISD_ERROR, ISD_ERROR_PROTOCOL,
		    "what answers there is no intersync server: check --server");
	return FALSE;
}

/* Is it still the fileset and the server that this cache belongs to? */
static gboolean client_same(IsdClient *c, const char *key, const char *value, const char *what,
			    GError **error)
{
	g_autofree char *known = NULL;

	if (!isd_state_get_text(c->state, key, &known, error))
		return FALSE;
	if (!known)
		return isd_state_set_text(c->state, key, value, error);
	if (!strcmp(known, value))
		return TRUE;
	g_set_error(error, ISD_ERROR, ISD_ERROR_FATAL,
		    "%s is another %s than the one this cache was made from (%s, not %s): "
		    "nothing was changed; check --server and --fset, or make a new cache for it",
		    c->server, what, value, known);
	return FALSE;
}

static gboolean client_take_profile(IsdClient *c, const Profile *p, GError **error)
{
	guint64 epoch;

	if (!strcmp(p->replica_uuid, c->core->replica)) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_FATAL,
			    "%s serves this very replica: a client needs a cache of its own",
			    c->server);
		return FALSE;
	}
	if (!uuid_parse(p->replica_uuid, c->peer)) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_PROTOCOL, "the profile has no uuid");
		return FALSE;
	}
	if (!client_same(c, "server_fileset_uuid", p->fileset_uuid, "fileset", error) ||
	    !client_same(c, "server_replica_uuid", p->replica_uuid, "replica", error) ||
	    !isd_state_get_u64(c->state, "server_epoch", &epoch, error))
		return FALSE;
	c->end_offset = p->end_offset;
	c->end_recno = p->last_recno;
	if (epoch == p->epoch)
		return TRUE;
	/* the log began anew: what was followed so far says nothing about this one */
	c->epoch = p->epoch;
	return isd_state_set_u64(c->state, "server_epoch", p->epoch, error) &&
	       (!epoch || (isd_sql_run(c->state, error, "DELETE FROM client_mark", "") &&
			   isd_apart_begin(c, error)));
}

static gboolean client_go(IsdClient *c, GError **error)
{
	guint64 attached;

	if (!isd_state_get_u64(c->state, "attached", &attached, error) || !client_load(c, error))
		return FALSE;
	c->retry_ms = RETRY_MIN_MS;
	/* what could not be taken in, or was rolled back, when it failed */
	if (!isd_client_follow(c, FALSE, error))
		return FALSE;
	c->want = isd_want_new(c);
	if (attached < ISD_ATTACH_DONE && !isd_conflict_recover(c, error))
		return FALSE;
	if (attached >= ISD_ATTACH_DONE) {
		isd_client_attached(c);
	} else {
		isd_client_set_phase(c, ISD_CLIENT_ATTACHING, NULL);
		c->attach = isd_attach_start(c);
	}
	return TRUE;
}

void isd_client_attached(IsdClient *c)
{
	g_autoptr(GError) error = NULL;
	guint64 piece;

	isd_client_set_phase(c, ISD_CLIENT_ONLINE, NULL);
	if (!isd_state_get_u64(c->state, "pull_piece", &piece, &error)) {
		isd_client_fail(c, error);
		return;
	}
	c->unfinished = piece > c->pull_offset;
	c->push = isd_push_start(c);
	if (!isd_conflict_recover(c, &error)) {
		isd_client_fail(c, error);
		return;
	}
	c->pull = isd_pull_start(c);
	isd_want_pump(c->want, FALSE);
}

static void client_profile_done(IsdRequest *r, const GError *error, gpointer data)
{
	IsdClient *c = data;
	g_auto(Profile) p = { 0 };
	g_autoptr(GError) local = NULL;

	if (error) {
		isd_client_fail(c, error);
		return;
	}
	if (!profile_parse(isd_fetch_body(r), &p, &local) ||
	    !client_take_profile(c, &p, &local) || !client_go(c, &local))
		isd_client_fail(c, local);
}

static void client_connect(IsdClient *c)
{
	IsdFetchSpec spec = {
		.method = "GET", .path = g_strdup("profile"), .timeout = PROFILE_TIMEOUT,
		.done = client_profile_done, .data = c,
	};

	isd_client_set_phase(c, ISD_CLIENT_CONNECTING, NULL);
	isd_fetch(c->fetcher, &spec);
}

/* --- syncs --- */

static void sync_end(struct IsdSync *y, gboolean ok, const char *message)
{
	y->c->syncs = g_list_remove(y->c->syncs, y);
	y->done(ok, message, y->data);
	g_free(y);
}

static void sync_asked(IsdRequest *r, const GError *error, gpointer data)
{
	struct IsdSync *y = data;
	g_auto(Profile) p = { 0 };

	if (!error && profile_parse(isd_fetch_body(r), &p, NULL)) {
		y->server_end = p.end_offset;
		y->stage = SYNC_PULL;
		if (y->c->pull)
			isd_pull_kick(y->c->pull);
	} else {
		y->stage = SYNC_ASK;
		if (error)
			isd_client_fail(y->c, error);
	}
	isd_client_progress(y->c);
}

static void sync_ask(struct IsdSync *y)
{
	IsdFetchSpec spec = {
		.method = "GET", .path = g_strdup("profile"), .timeout = PROFILE_TIMEOUT,
		.done = sync_asked, .data = y,
	};

	y->stage = SYNC_ASKED;
	isd_fetch(y->c->fetcher, &spec);
}

/* Everything wanted is here: the attach is done and nothing of it is left. */
static gboolean sync_is_here(IsdClient *c, guint64 end)
{
	guint64 files, bytes;

	return c->pull && c->pull_offset >= end && isd_pull_is_idle(c->pull) &&
	       isd_want_count(c, &files, &bytes, NULL) && !files && !isd_conflict_unsettled(c) &&
	       !isd_heal_is_needed(c);
}

/* One step; TRUE if there may be another. */
static gboolean sync_step(struct IsdSync *y)
{
	IsdClient *c = y->c;

	switch (y->stage) {
	case SYNC_PUSH:
		if (c->push_recno < y->own_recno)
			return FALSE;
		y->stage = SYNC_ASK;
		return TRUE;
	case SYNC_ASK:
		if (c->phase == ISD_CLIENT_ONLINE && !c->reset)
			sync_ask(y);
		return FALSE;
	case SYNC_PULL:
		if (!sync_is_here(c, y->server_end) || !isd_client_follow(c, TRUE, NULL))
			return FALSE;
		/* what conflicts left has to go over as well */
		y->own_recno = c->core->log_recno;
		y->stage = SYNC_REST;
		return TRUE;
	case SYNC_REST:
		if (c->push_recno < y->own_recno)
			return FALSE;
		if (!isd_heal_is_needed(c)) {
			sync_end(y, TRUE, NULL);
			return FALSE;
		}
		/* what was sent last has left something to be compared */
		y->stage = SYNC_PULL;
		return FALSE;
	default:
		return FALSE;
	}
}

static gboolean sync_check(gpointer data)
{
	IsdClient *c = data;
	GList *next;

	c->sync_source = 0;
	for (GList *l = c->syncs; l; l = next) {
		next = l->next;
		while (sync_step(l->data))
			;
	}
	return G_SOURCE_REMOVE;
}

void isd_client_progress(IsdClient *c)
{
	if (c->litter && c->pull && isd_pull_is_idle(c->pull) && !isd_want_is_busy(c->want))
		isd_data_clean(c);
	isd_settle_soon(c);
	isd_heal_soon(c);
	if (c->syncs && !c->sync_source)
		c->sync_source = g_idle_add(sync_check, c);
}

void isd_client_sync(IsdCore *core, IsdSyncDone done, gpointer data)
{
	IsdClient *c = core->role;
	struct IsdSync *y = g_new0(struct IsdSync, 1);
	g_autoptr(GError) error = NULL;

	y->c = c;
	y->done = done;
	y->data = data;
	c->syncs = g_list_append(c->syncs, y);
	if (!isd_client_follow(c, TRUE, &error)) {
		sync_end(y, FALSE, error->message);
		return;
	}
	y->own_recno = core->log_recno;
	if (c->retry && c->phase == ISD_CLIENT_OFFLINE) {
		/* somebody waits: no reason to be patient */
		g_clear_handle_id(&c->retry, g_source_remove);
		client_retry_in(c, 1);
	}
	if (c->push)
		isd_push_kick(c->push);
	isd_client_progress(c);
}

/* --- the role --- */

/* What was met in the tree gets a record: the server may not have it any more. */
static gboolean client_tell_met(IsdClient *c, GError **error)
{
	if (!c->core->met)
		return TRUE;
	c->core->met = FALSE;
	return isd_attach_log_unknown(c, error);
}

static gboolean client_grown(gpointer data)
{
	IsdClient *c = data;
	g_autoptr(GError) error = NULL;

	c->grown = 0;
	if (!isd_client_follow(c, FALSE, &error) || !client_tell_met(c, &error))
		isd_client_fail(c, error);
	else if (c->push)
		isd_push_kick(c->push);
	return G_SOURCE_REMOVE;
}

void isd_client_log_grew(IsdCore *core)
{
	IsdClient *c = core->role;

	if (c && !c->grown)
		c->grown = g_timeout_add(GROWN_MS, client_grown, c);
}

static char *client_base_url(IsdClient *c)
{
	return g_strdup_printf("http://%s/intersync/%s/", c->server, c->fset);
}

static char *client_with_port(const char *server)
{
	const char *bracket = strrchr(server, ']');
	const char *colon = strrchr(server, ':');
	gboolean bare6 = !bracket && colon && strchr(server, ':') != colon;

	if (bare6)
		return g_strdup_printf("[%s]:%d", server, ISD_PORT);
	if (colon && (!bracket || colon > bracket))
		return g_strdup(server);
	return g_strdup_printf("%s:%d", server, ISD_PORT);
}

/* FALSE: the server has answered, and there is no use in going on. */
static gboolean client_first_contact(IsdClient *c, GError **error)
{
	g_autoptr(GByteArray) body = NULL;
	g_autoptr(GError) local = NULL;
	g_auto(Profile) p = { 0 };

	if (isd_fetch_wait(c->fetcher, "profile", FIRST_CONTACT, &body, &local) &&
	    profile_parse(body, &p, &local) && client_take_profile(c, &p, &local))
		return TRUE;
	if (g_error_matches(local, ISD_ERROR, ISD_ERROR_FATAL)) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_FATAL, "%s, fileset %s: %s",
			    c->server, c->fset, local->message);
		return FALSE;
	}
	isd_client_set_phase(c, ISD_CLIENT_OFFLINE, local->message);
	return TRUE;
}

gboolean isd_client_start(IsdCore *core, const IsdClientOptions *o, GError **error)
{
	IsdClient *c = g_new0(IsdClient, 1);
	g_autofree char *base = NULL;

	core->role = c;
	c->core = core;
	c->state = core->state;
	c->server = client_with_port(o->server);
	c->fset = g_strdup(o->fset ? o->fset : core->fileset);
	c->policies = o->conflicts ? isd_policies_new(o->conflicts) : NULL;
	c->retry_ms = RETRY_MIN_MS;
	c->since = now_seconds();
	c->litter = TRUE;
	base = client_base_url(c);
	c->fetcher = isd_fetcher_new(base, client_headers, c);
	if (!isd_client_tables(c->state, error) || !client_load(c, error) ||
	    !client_first_contact(c, error)) {
		isd_client_stop(core);
		return FALSE;
	}
	c->retry = g_idle_add(client_retry, c);
	return TRUE;
}

void isd_client_stop(IsdCore *core)
{
	IsdClient *c = g_steal_pointer(&core->role);

	if (!c)
		return;
	while (c->syncs)
		sync_end(c->syncs->data, FALSE, "the daemon is being stopped");
	client_drop_parts(c);
	isd_client_commit(c, NULL);
	g_clear_handle_id(&c->retry, g_source_remove);
	g_clear_handle_id(&c->reset, g_source_remove);
	g_clear_handle_id(&c->grown, g_source_remove);
	g_clear_handle_id(&c->sync_source, g_source_remove);
	isd_fetcher_free(c->fetcher);
	isd_policies_free(c->policies);
	g_free(c->settle);
	g_free(c->heal);
	isd_push_index_free(c->index);
	g_free(c->server);
	g_free(c->fset);
	g_free(c->reason);
	g_free(c);
}

/* --- status --- */

static void status_text(JsonBuilder *b, const char *key, const char *value)
{
	json_builder_set_member_name(b, key);
	if (value)
		json_builder_add_string_value(b, value);
	else
		json_builder_add_null_value(b);
}

static void status_number(JsonBuilder *b, const char *key, guint64 value)
{
	json_builder_set_member_name(b, key);
	json_builder_add_int_value(b, value);
}

static void status_pair(JsonBuilder *b, const char *key, const char *one, guint64 first,
			const char *two, guint64 second)
{
	json_builder_set_member_name(b, key);
	json_builder_begin_object(b);
	status_number(b, one, first);
	status_number(b, two, second);
	json_builder_end_object(b);
}

static void status_progress(IsdClient *c, JsonBuilder *b)
{
	guint64 files = 0, bytes = 0;
	guint64 files_done = c->want ? isd_want_files_done(c->want) : 0;
	guint64 bytes_done = c->want ? isd_want_bytes_done(c->want) : 0;

	isd_want_count(c, &files, &bytes, NULL);
	if (!files && c->phase != ISD_CLIENT_ATTACHING)
		return;
	json_builder_set_member_name(b, "progress");
	json_builder_begin_object(b);
	status_number(b, "objects", files_done);
	status_number(b, "of_objects", files_done + files);
	status_number(b, "bytes", bytes_done);
	status_number(b, "of_bytes", bytes_done + bytes);
	json_builder_end_object(b);
}

static void status_blocked(IsdClient *c, JsonBuilder *b)
{
	g_autofree char *room = NULL;
	guint64 recno = 0;
	const char *what = "push", *why = c->push ? isd_push_blocking(c->push, &recno) : NULL;

	if (!why && c->phase == ISD_CLIENT_BLOCKED) {
		what = "connection";
		why = c->reason;
	}
	if (!why) {
		what = "room";
		why = room = isd_space_why(c);
	}
	if (!why)
		return;
	json_builder_set_member_name(b, "blocked");
	json_builder_begin_object(b);
	status_number(b, "recno", recno);
	status_text(b, "what", what);
	status_text(b, "why", why);
	json_builder_end_object(b);
}

static guint64 behind(guint64 end, guint64 at)
{
	return end > at ? end - at : 0;
}

static void status_lag(IsdClient *c, JsonBuilder *b)
{
	guint64 records = behind(c->end_recno, c->pull_recno);

	json_builder_set_member_name(b, "lag");
	json_builder_begin_object(b);
	status_number(b, "records", records);
	status_number(b, "bytes", behind(c->end_offset, c->pull_offset));
	status_number(b, "seconds", records && c->lag_since ? now_seconds() - c->lag_since : 0);
	json_builder_end_object(b);
}

void isd_client_status(IsdCore *core, JsonBuilder *b)
{
	IsdClient *c = core->role;
	guint64 conflicts = 0;

	isd_conflict_count(c, &conflicts, NULL);
	status_text(b, "server", c->server);
	status_text(b, "server_fileset", c->fset);
	status_text(b, "state", phase_names[c->phase]);
	status_number(b, "since", c->since);
	if (c->reason)
		status_text(b, "reason", c->reason);
	status_progress(c, b);
	status_pair(b, "position", "offset", c->pull_offset, "recno", c->pull_recno);
	status_pair(b, "server_end", "offset", c->end_offset, "recno", c->end_recno);
	status_lag(c, b);
	status_pair(b, "pending", "records", behind(core->log_recno, c->push_recno),
		    "bytes", c->push_offset ? behind(core->log_end, c->push_offset) : 0);
	status_number(b, "conflicts", conflicts);
	status_blocked(c, b);
}
