// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Where both sides have moved names about, some own records are never sent: they are
 * covered by others, or refused for good.  What they were about is remembered in the table client_heal.
 * When all else is sent and taken in, the server is asked where these objects are (POST where), and
 * there they go (heal_place.c); what it does not have is sent as new.  So of everything that is
 * not in the table, both sides have the same once all is sent and taken in, and the
 * table gets empty.  Called by push_refused.c and want.c, which fill the table, and by client.c.
 */
#include "heal.h"
#include "push.h"

#include <string.h>

#define ASK_MAX		256	/* rows of the table at once */
#define NAMES_MAX	1000	/* of one object; the others are asked after when they are in the way */
#define BODY_MAX	(1 << 20)
#define SOON_MS		20
#define LATER_MAX_MS	2000
#define CALM		(10 * G_USEC_PER_SEC)	/* after so long without one, rounds are quick again */
#define QUIET		8	/* rounds; then it is worth a line in the log */

typedef struct {
	gint64		id;		/* row; 0: there is none */
	struct kml_oid	soid;
} Asked;

struct IsdHeal {
	IsdClient	*c;
	guint		source;
	guint		later_ms;
	gint64		last;		/* round, monotonic time */
	guint		rounds;		/* without an end */
	IsdRequest	*post;
	GArray		*asked;		/* of Asked, in that POST */
};

/* --- the table --- */

static gboolean heal_insert(IsdClient *c, gint64 id, struct kml_oid soid, GError **error)
{
	return isd_client_begin(c, error) &&
	       isd_sql_run(c->state, error, "INSERT OR IGNORE INTO client_heal VALUES(?, ?, ?)",
			   "iiu", id, (gint64)soid.ino, soid.gen);
}

gboolean isd_heal_add(IsdClient *c, gint64 id, GError **error)
{
	return heal_insert(c, id, (struct kml_oid) { 0 }, error);
}

gboolean isd_heal_add_soid(IsdClient *c, struct kml_oid soid, GError **error)
{
	return heal_insert(c, 0, soid, error);
}

static gboolean heal_delete(IsdClient *c, const Asked *a, GError **error)
{
	struct kml_oid soid = a->id ? (struct kml_oid) { 0 } : a->soid;

	return isd_sql_run(c->state, error, "DELETE FROM client_heal WHERE id = ? AND sino = ? AND"
			   " sgen = ?", "iiu", a->id, (gint64)soid.ino, soid.gen);
}

gboolean isd_heal_is_needed(IsdClient *c)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(c->state, NULL, &st, "SELECT 1 FROM client_heal LIMIT 1", "");

	if (rc > 0)
		sqlite3_reset(st);
	return rc > 0;
}

static gboolean heal_load(IsdHeal *h, GError **error)
{
	sqlite3_stmt *st;
	int rc = isd_sql_row(h->c->state, error, &st, "SELECT id, sino, sgen FROM client_heal LIMIT ?",
			     "u", ASK_MAX);

	h->asked = g_array_new(FALSE, FALSE, sizeof(Asked));
	for (; rc > 0; rc = isd_sql_next(h->c->state, st, error)) {
		Asked a = { .id = sqlite3_column_int64(st, 0) };

		a.soid.ino = sqlite3_column_int64(st, 1);
		a.soid.gen = sqlite3_column_int64(st, 2);
		g_array_append_val(h->asked, a);
	}
	return rc == 0;
}

/* --- the question --- */

static void question(GByteArray *body, const struct kml_record *r)
{
	guint at = body->len;

	g_byte_array_set_size(body, at + kml_encoded_size(r));
	g_byte_array_set_size(body, at + kml_encode(body->data + at, body->len - at, r));
}

static void ask_object(GByteArray *body, struct kml_oid soid)
{
	struct kml_record r = { .opcode = KML_RESYNC, .obj = soid };

	if (soid.ino)
		question(body, &r);
}

/* What the server has under the name, and the directory itself: its mtime counts, too. */
static gboolean ask_name(IsdClient *c, const IsdName *n, GByteArray *body, GError **error)
{
	struct kml_record r = {
		.opcode = KML_RESYNC, .tname = { n->name, strlen(n->name) },
	};
	g_auto(IsdObject) dir = { 0 };
	gboolean found;

	if (!isd_state_by_id(c->state, n->parent, &dir, &found, error))
		return FALSE;
	if (!found || !dir.soid.ino)
		return !found || isd_heal_add(c, dir.id, error);
	r.tparent = dir.soid;
	question(body, &r);
	ask_object(body, dir.soid);
	return TRUE;
}

static gboolean ask_one(IsdClient *c, Asked *a, GByteArray *body, GError **error)
{
	g_auto(IsdObject) o = { 0 };
	g_autoptr(GArray) names = NULL;
	gboolean found;

	if (!a->id) {
		ask_object(body, a->soid);
		return TRUE;
	}
	if (!isd_state_by_id(c->state, a->id, &o, &found, error))
		return FALSE;
	if (!found)
		return heal_delete(c, a, error);
	a->soid = o.soid;
	ask_object(body, o.soid);
	if (!isd_state_names(c->state, o.id, &names, error))
		return FALSE;
	for (guint i = 0; i < MIN(names->len, NAMES_MAX); i++)
		if (!ask_name(c, &g_array_index(names, IsdName, i), body, error))
			return FALSE;
	return TRUE;
}

/* Nothing else is under way that could change the answer's meaning. */
static gboolean heal_may(IsdClient *c)
{
	return isd_client_is_up(c) && c->phase == ISD_CLIENT_ONLINE && c->pull && c->push &&
	       isd_pull_is_idle(c->pull) && isd_push_is_idle(c->push);
}

/* --- the answer --- */

static guint soid_hash(gconstpointer p)
{
	const struct kml_oid *oid = p;

	return (guint)oid->ino ^ oid->gen;
}

static gboolean soid_equal(gconstpointer a, gconstpointer b)
{
	return isd_oid_equal(*(const struct kml_oid *)a, *(const struct kml_oid *)b);
}

static void name_clear(gpointer p)
{
	g_free(((HealName *)p)->name);
}

static void told_free(gpointer p)
{
	HealTold *t = p;

	g_array_unref(t->names);
	g_free(t);
}

static void answer_clear(Heal *h)
{
	g_clear_pointer(&h->list, g_ptr_array_unref);
	g_clear_pointer(&h->told, g_hash_table_unref);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Heal, answer_clear)

HealTold *isd_heal_told(const Heal *h, struct kml_oid soid)
{
	return g_hash_table_lookup(h->told, &soid);
}

static void told_name(HealTold *t, struct kml_oid dir, struct kml_str name)
{
	HealName n = { dir, name.ptr ? isd_str(name) : NULL };

	for (guint i = 0; i < t->names->len; i++) {
		const HealName *x = &g_array_index(t->names, HealName, i);

		if (isd_oid_equal(x->dir, dir) && !g_strcmp0(x->name, n.name)) {
			g_free(n.name);
			return;		/* it was asked after twice */
		}
	}
	if (n.name)
		g_array_append_val(t->names, n);
}

static gboolean told_record(Heal *h, const struct kml_record *r)
{
	HealTold *t = isd_heal_told(h, r->obj);

	if (isd_makes(r->opcode) && r->has_attr && !t) {
		t = g_new0(HealTold, 1);
		t->r = *r;
		t->names = g_array_new(FALSE, FALSE, sizeof(HealName));
		g_array_set_clear_func(t->names, name_clear);
		g_ptr_array_add(h->list, t);
		g_hash_table_insert(h->told, &t->r.obj, t);
	}
	if (!t || (r->opcode == KML_LINK && !r->tname.ptr))
		return FALSE;
	told_name(t, r->opcode == KML_LINK ? r->tparent : r->parent,
		  r->opcode == KML_LINK ? r->tname : r->name);
	return TRUE;
}

static gboolean answer_decode(Heal *h, GError **error)
{
	gsize pos = 0;

	h->told = g_hash_table_new(soid_hash, soid_equal);
	h->list = g_ptr_array_new_with_free_func(told_free);
	while (pos < h->body->len) {
		struct kml_record r;
		ssize_t len = kml_decode(h->body->data + pos, h->body->len - pos, &r);

		if (len > 0 && r.opcode == KML_CATALOG_END)
			return TRUE;
		if (len <= 0 || !told_record(h, &r))
			break;
		pos += len;
	}
	g_set_error(error, ISD_ERROR, ISD_ERROR_PROTOCOL,
		    "the server does not say where its objects are");
	return FALSE;
}

/* --- what the server does not have --- */

/* What is in the directory has to be looked for, too. */
static gboolean add_children(IsdClient *c, gint64 id, GError **error)
{
	return isd_sql_run(c->state, error, "INSERT OR IGNORE INTO client_heal"
			   " SELECT id, 0, 0 FROM name WHERE parent = ?", "i", id);
}

/* It gets a record with which it is sent as new, once its directory is there. */
static gboolean send_new(Heal *h, const IsdObject *o, const IsdName *n, gboolean *ret_done,
			 GError **error)
{
	g_auto(IsdObject) dir = { 0 };
	gboolean found;

	if (!isd_state_by_id(h->c->state, n->parent, &dir, &found, error))
		return FALSE;
	*ret_done = found && dir.soid.ino;
	if (*ret_done && !isd_push_is_pending(h->c, o->oid, MAX(o->lcver, o->laver)))
		isd_local_touch(h->c, n->parent, n->name);
	return TRUE;
}

static gboolean not_there(Heal *h, const Asked *a, gboolean *ret_done, GError **error)
{
	IsdClient *c = h->c;
	g_auto(IsdObject) o = { 0 };
	g_auto(IsdName) n = { 0 };
	gboolean found, named;

	*ret_done = TRUE;
	if (a->id ? !isd_state_by_id(c->state, a->id, &o, &found, error) :
		    !isd_state_by_soid(c->state, a->soid, &o, &found, error))
		return FALSE;
	if (!found || o.id == ISD_ROOT_ID)
		return TRUE;
	if (!isd_state_a_name(c->state, o.id, &n, &named, error))
		return FALSE;
	if (!named)
		return isd_want_drop(c, o.id, error) && isd_state_drop_object(c->state, o.id, error);
	if (o.soid.ino) {
		isd_debug(ISD_D_KML, "the server does not have %s: it is sent as new", n.name);
		o.soid = (struct kml_oid) { 0 };
		o.cver = o.aver = 0;
		if (!isd_state_put_object(c->state, &o, error) || !isd_want_drop(c, o.id, error) ||
		    (S_ISDIR(o.attr.mode) && !add_children(c, o.id, error)))
			return FALSE;
	}
	return send_new(h, &o, &n, ret_done, error);
}

/* --- a round --- */

/* Numbers that the server does not know come first: they are in nobody's way then. */
static gboolean heal_new_ones(IsdHeal *x, Heal *h, GError **error)
{
	for (guint i = 0; i < x->asked->len; i++) {
		const Asked *a = &g_array_index(x->asked, Asked, i);
		gboolean done;

		if (a->soid.ino && isd_heal_told(h, a->soid))
			continue;
		if (!not_there(h, a, &done, error) || (done && !heal_delete(h->c, a, error)))
			return FALSE;
	}
	return TRUE;
}

/* Out of the table with what is where it belongs, and into it with what is not. */
static gboolean heal_mark(IsdHeal *x, Heal *h, gboolean *ret_all, GError **error)
{
	*ret_all = TRUE;
	for (guint i = 0; i < h->list->len; i++) {
		const HealTold *t = g_ptr_array_index(h->list, i);
		gboolean same;

		if (!isd_heal_is_placed(h, t, &same, error))
			return FALSE;
		if (!same && !isd_heal_add_soid(h->c, t->r.obj, error))
			return FALSE;
		*ret_all &= same;
	}
	for (guint i = 0; i < x->asked->len; i++) {
		const Asked *a = &g_array_index(x->asked, Asked, i);
		HealTold *t = isd_heal_told(h, a->soid);
		gboolean same = FALSE;

		if (t && !isd_heal_is_placed(h, t, &same, error))
			return FALSE;
		if (same && !heal_delete(h->c, a, error))
			return FALSE;
	}
	return TRUE;
}

static gboolean heal_round(IsdHeal *x, IsdRequest *r, gboolean *ret_done, GError **error)
{
	const char *pos = isd_fetch_header(r, "InterSync-Position");
	g_auto(Heal) h = { .c = x->c, .body = isd_fetch_body(r) };
	gboolean all;
	char *end;

	*ret_done = FALSE;
	if (!answer_decode(&h, error) || !isd_client_follow(x->c, TRUE, error))
		return FALSE;
	if (pos)
		g_ascii_strtoull(pos, &end, 10);
	/* it is about what was taken in, and nothing is on its way */
	if (!pos || g_ascii_strtoull(end, NULL, 10) != x->c->pull_recno || !heal_may(x->c))
		return TRUE;
	if (!heal_new_ones(x, &h, error) || !isd_heal_place(&h, error) ||
	    !heal_mark(x, &h, &all, error) || !isd_client_follow(x->c, TRUE, error))
		return FALSE;
	isd_debug(ISD_D_KML, "compared %u with %u of the server: %s", x->asked->len, h.list->len,
		  all ? "equal" : "not all of them yet");
	*ret_done = all;
	return isd_client_commit(x->c, error);
}

static void heal_told(IsdRequest *r, const GError *error, gpointer data)
{
	IsdHeal *x = data;
	g_autoptr(GError) local = NULL;
	gboolean done = FALSE;

	x->post = NULL;
	if (error || !heal_round(x, r, &done, &local)) {
		isd_client_fail_log(x->c, isd_fetch_status(r), error ? error : local);
		return;
	}
	x->rounds = done ? 0 : x->rounds + 1;
	x->later_ms = g_get_monotonic_time() - x->last > CALM ? SOON_MS :
		MIN(x->later_ms * 2, LATER_MAX_MS);
	x->last = g_get_monotonic_time();
	if (x->rounds == QUIET)
		isd_log(4, x->c->server, 0, "some names still differ from the server's; "
			"it is tried again");
	isd_client_progress(x->c);
}

static gboolean heal_ask(IsdHeal *x, GError **error)
{
	g_autoptr(GByteArray) body = g_byte_array_new();
	g_autoptr(GBytes) bytes = NULL;
	g_autofree char *log = NULL;
	IsdFetchSpec spec = { .method = "POST", .done = heal_told, .data = x };

	g_clear_pointer(&x->asked, g_array_unref);
	if (!isd_client_follow(x->c, TRUE, error) || !heal_load(x, error))
		return FALSE;
	for (guint i = 0; i < x->asked->len; i++) {
		if (!ask_one(x->c, &g_array_index(x->asked, Asked, i), body, error))
			return FALSE;
		if (body->len > BODY_MAX)
			g_array_set_size(x->asked, i + 1);
	}
	if (!isd_client_commit(x->c, error))
		return FALSE;
	bytes = g_byte_array_free_to_bytes(g_steal_pointer(&body));
	spec.body = bytes;
	log = isd_client_which_log(x->c);
	spec.path = g_strdup_printf("where?%s", log);
	x->post = isd_fetch(x->c->fetcher, &spec);
	return TRUE;
}

static gboolean heal_run(gpointer data)
{
	IsdHeal *x = data;
	g_autoptr(GError) error = NULL;

	x->source = 0;
	if (heal_may(x->c) && isd_heal_is_needed(x->c) && !heal_ask(x, &error))
		isd_client_fail(x->c, error);
	return G_SOURCE_REMOVE;
}

void isd_heal_soon(IsdClient *c)
{
	if (!heal_may(c) || !isd_heal_is_needed(c))
		return;
	if (!c->heal) {
		c->heal = g_new0(IsdHeal, 1);
		c->heal->c = c;
		c->heal->later_ms = SOON_MS;
	}
	if (!c->heal->source && !c->heal->post)
		c->heal->source = g_timeout_add(c->heal->later_ms, heal_run, c->heal);
}

void isd_heal_stop(IsdClient *c)
{
	IsdHeal *x = c->heal;

	if (!x)
		return;
	g_clear_handle_id(&x->source, g_source_remove);
	if (x->post)
		isd_fetch_cancel(x->post);
	x->post = NULL;
	g_clear_pointer(&x->asked, g_array_unref);
	x->later_ms = SOON_MS;
}
