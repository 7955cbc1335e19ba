// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Records of what is here already, for a server that has lost it: the file system logs them
 * and does nothing else (IZO_RE_THERE), so that the push takes them there.
 */
#include "client.h"

#include <sys/stat.h>

typedef struct {
	IsdClient	*c;
	IsdReint	*batch;
	IsdPlace	place;
	struct kml_record r;		/* its name, in place */
	struct izo_guard guard;
} Announce;

static gboolean announce_begin(Announce *a, const IsdObject *o, const IsdName *n, GError **error)
{
	gboolean found;

	if (!isd_place_by_id(a->c, n->parent, &a->place, &found, error))
		return FALSE;
	if (!found) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED,
			    "the state has %s in a directory that it has not", n->name);
		return FALSE;
	}
	a->batch = isd_reint_new(TRUE, a->c->peer);
	a->guard = isd_guard_object(o, 0);
	a->r.obj = o->oid;
	isd_place_source(&a->r, &a->place, n->name);
	return TRUE;
}

/* Somebody who has changed it meanwhile has made records himself: that is no error. */
static gboolean announce_send(Announce *a, GError **error)
{
	const struct izo_reint_result *results;
	guint n = isd_reint_count(a->batch);

	if (!n)
		return TRUE;
	if (!isd_reint_send(a->batch, a->c->core, 0, 0, &results, error))
		return FALSE;
	for (guint i = 0; i < n; i++)
		if (isd_result_is_fatal(&results[i], error))
			return FALSE;
	return TRUE;
}

static gboolean announce_add(Announce *a, const struct kml_record *r, const struct izo_guard *tguard,
			     GError **error)
{
	if (isd_reint_add(a->batch, r, &a->guard, tguard, IZO_RE_THERE))
		return TRUE;
	return announce_send(a, error) &&
	       isd_reint_add(a->batch, r, &a->guard, tguard, IZO_RE_THERE);
}

static void announce_end(Announce *a)
{
	g_clear_pointer(&a->batch, isd_reint_free);
	isd_place_clear(&a->place);
}

static gboolean announce_xattrs(Announce *a, const IsdObject *o, GError **error)
{
	g_autoptr(GBytes) all = NULL;
	struct kml_str name, value;
	size_t pos = 0, before = 0, len = 0;
	const char *blob;

	if (!isd_state_xattrs(a->c->state, o->id, &all, error))
		return FALSE;
	blob = all ? g_bytes_get_data(all, &len) : NULL;
	while (len && kml_xattr_next(blob, len, &pos, &name, &value)) {
		struct kml_record r = a->r;

		r.opcode = KML_SETXATTR;
		r.xattrs = blob + before;
		r.xattrs_len = pos - before;
		before = pos;
		if (!announce_add(a, &r, NULL, error))
			return FALSE;
	}
	return TRUE;
}

gboolean isd_announce_object(IsdClient *c, const IsdObject *o, const IsdName *n, gboolean content,
			     GError **error)
{
	Announce a = { .c = c };
	struct kml_record r;
	gboolean ok = announce_begin(&a, o, n, error) && announce_xattrs(&a, o, error);

	if (ok && content) {
		r = a.r;
		r.opcode = KML_CLOSE;
		ok = announce_add(&a, &r, NULL, error);
	}
	if (ok) {
		r = a.r;
		r.opcode = KML_SETATTR;
		ok = announce_add(&a, &r, NULL, error) && announce_send(&a, error);
	}
	announce_end(&a);
	return ok;
}

/* A record about two names: n, and other, which is one of the object's now. */
static gboolean announce_names(IsdClient *c, const IsdObject *o, const IsdName *n,
			       const IsdName *other, guint16 opcode, const struct izo_guard *guard,
			       GError **error)
{
	Announce a = { .c = c };
	g_auto(IsdPlace) to = { 0 };
	struct izo_guard same = isd_guard_object(o, 0);
	gboolean found, ok = announce_begin(&a, o, n, error) &&
			     isd_place_by_id(c, other->parent, &to, &found, error);

	if (ok && found) {
		struct kml_record r = a.r;

		a.guard = *guard;
		r.opcode = opcode;
		isd_place_target(&r, &to, other->name);
		ok = announce_add(&a, &r, &same, error) && announce_send(&a, error);
	}
	announce_end(&a);
	return ok;
}

gboolean isd_announce_link(IsdClient *c, const IsdObject *o, const IsdName *n, const IsdName *other,
			   GError **error)
{
	struct izo_guard same = isd_guard_object(o, 0);

	return announce_names(c, o, n, other, KML_LINK, &same, error);
}

gboolean isd_announce_rename(IsdClient *c, const IsdObject *o, const IsdName *from,
			     const IsdName *to, GError **error)
{
	struct izo_guard any = { 0 };

	return announce_names(c, o, from, to, KML_RENAME, &any, error);
}
