// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the engine does through the mount like any program, on a simulated host: in
 * place of intersync/local_mount.c.
 */
#include "sim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "client.h"

/* "." is the directory itself. */
static int place(IsdClient *c, gint64 parent, const char *name, struct where *ret)
{
	g_autofree char *dir = isd_state_path(c->state, parent, NULL);

	if (dir && !strcmp(name, "."))
		return dir[1] ? fs_where(sim_current, dir, ret) :
				fs_where_in(sim_current, dir, "", ret);
	return dir ? fs_where_in(sim_current, dir, name, ret) : -ENOENT;
}

static int both_places(IsdClient *c, gint64 parent, const char *from, struct where *w,
		       gint64 tparent, const char *to, struct where *t)
{
	int err = place(c, parent, from, w);

	return err ? err : place(c, tparent, to, t);
}

int isd_local_move(IsdClient *c, gint64 parent, const char *from, gint64 tparent, const char *to,
		   IsdMove how)
{
	guint flags = how == ISD_MOVE_TO_FREE ? RENAME_NOREPLACE :
		      how == ISD_MOVE_EXCHANGE ? RENAME_EXCHANGE : 0;
	g_auto(Where) w = { 0 };
	g_auto(Where) t = { 0 };
	int err = both_places(c, parent, from, &w, tparent, to, &t);

	if (!err)
		err = op_rename_at(sim_current, &w, &t, flags);
	sim_trace(sim_current, "moves %s to %s: %s", from, to, err ? g_strerror(-err) : "done");
	return err;
}

int isd_local_link(IsdClient *c, gint64 parent, const char *from, gint64 tparent, const char *to)
{
	g_auto(Where) w = { 0 };
	g_auto(Where) t = { 0 };
	int err = both_places(c, parent, from, &w, tparent, to, &t);

	if (!err)
		err = op_link_at(sim_current, &w, &t);
	sim_trace(sim_current, "links %s to %s: %s", from, to, err ? g_strerror(-err) : "done");
	return err;
}

int isd_local_rename(IsdClient *c, gint64 parent, const char *from, const char *to)
{
	return isd_local_move(c, parent, from, parent, to, ISD_MOVE_TO_FREE);
}

static int remove_in(IsdClient *c, gint64 parent, const char *name, int flags)
{
	g_auto(Where) w = { 0 };
	int err = place(c, parent, name, &w);

	if (!err)
		err = op_unlink_at(sim_current, &w, flags);
	sim_trace(sim_current, "removes %s: %s", name, err ? g_strerror(-err) : "done");
	return err;
}

int isd_local_rmdir(IsdClient *c, gint64 parent, const char *name)
{
	return remove_in(c, parent, name, AT_REMOVEDIR);
}

/* Policies and izoctl have no part in histories: of directories only what is empty goes. */
int isd_local_remove(IsdClient *c, gint64 parent, const char *name)
{
	int err = remove_in(c, parent, name, 0);

	return err == -EISDIR ? isd_local_rmdir(c, parent, name) : err;
}

int isd_local_merge(IsdClient *c, gint64 parent, const char *from, gint64 tparent, const char *to,
		    GBytes *spans)
{
	return -EOPNOTSUPP;
}

int isd_local_copy(IsdClient *c, gint64 parent, const char *from, gint64 tparent, const char *to)
{
	return isd_local_merge(c, parent, from, tparent, to, NULL);
}

int isd_local_touch(IsdClient *c, gint64 parent, const char *name)
{
	g_auto(Where) w = { 0 };
	int err = place(c, parent, name, &w);

	return err ? err : op_utime_at(sim_current, &w, -1);
}
