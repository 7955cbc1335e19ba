// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Room for what comes: whether content of the server fits here, what did not
 * fit, and whether it is worth another look.  A full disk is an answer: what
 * does not fit waits in client_want while everything else goes on.  Used by data.c
 * before it fetches, by want.c, and by client.c for the status.
 */
#include "client.h"

#include <sys/statvfs.h>

#include "util.h"

#define USABLE_BYTES	(2 * 1024 * 1024)	/* a few transactions of the state */

guint64 isd_space_room(IsdClient *c)
{
	guint64 room;

	if (room_for_content(c->core->incoming_fd, &room))
		return G_MAXUINT64;	/* the write will tell */
	return room > c->promised ? room - c->promised : 0;
}

gboolean isd_space_usable(IsdClient *c)
{
	struct statvfs st;

	return fstatvfs(c->core->incoming_fd, &st) ||
	       (guint64)st.f_bavail * st.f_frsize >= USABLE_BYTES;
}

void isd_space_pass(IsdClient *c)
{
	c->shortage.least = 0;
	c->shortage.rows = 0;
}

/* With the further names of the object, which wait for the first one. */
static guint space_rows(IsdClient *c, gint64 id)
{
	sqlite3_stmt *st;
	guint n = 0;

	if (isd_sql_row(c->state, NULL, &st, "SELECT count(*) FROM client_want WHERE id = ?", "i",
			id) > 0) {
		n = sqlite3_column_int(st, 0);
		sqlite3_reset(st);
	}
	return n;
}

void isd_space_short(IsdClient *c, gint64 id, guint64 bytes)
{
	IsdShort *s = &c->shortage;
	gboolean news = !s->id;

	s->rows += space_rows(c, id);
	if (s->least && s->least <= bytes)
		return;
	s->least = s->bytes = bytes;
	s->id = id;
	if (news) {
		g_autofree char *why = isd_space_why(c);

		isd_log(4, c->server, 0, "waiting for room: %s", why ? why : "disk full");
	}
}

void isd_space_passed(IsdClient *c)
{
	if (!c->shortage.id || c->shortage.least)
		return;
	c->shortage.id = 0;
	isd_log(5, c->server, 0, "everything that is wanted fits again");
}

gboolean isd_space_waits(IsdClient *c, guint64 rows)
{
	const IsdShort *s = &c->shortage;

	return s->least && s->rows >= rows && isd_space_room(c) < s->least && space_rows(c, s->id);
}

/* "/dir/name", as far as it is known. */
static char *space_path(IsdClient *c, gint64 id)
{
	g_auto(IsdName) n = { 0 };
	g_autofree char *dir = NULL;
	gboolean found;

	if ((!isd_want_name_of(c, id, &n, &found, NULL) || !found) &&
	    (!isd_state_a_name(c->state, id, &n, &found, NULL) || !found))
		return NULL;
	dir = isd_state_path(c->state, n.parent, NULL);
	return dir ? g_build_filename(dir, n.name, NULL) : NULL;
}

char *isd_space_why(IsdClient *c)
{
	const IsdShort *s = &c->shortage;
	g_autofree char *path = NULL, *need = NULL, *room = NULL;

	if (!s->id || !space_rows(c, s->id))
		return NULL;
	path = space_path(c, s->id);
	need = g_format_size_full(s->bytes, G_FORMAT_SIZE_IEC_UNITS);
	room = g_format_size_full(isd_space_room(c), G_FORMAT_SIZE_IEC_UNITS);
	return g_strdup_printf("%s takes %s and %s can be used on this disk: make room, or remove "
			       "it on the server", path ? path : "a file", need, room);
}
