// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Following the own log: every record behind core->applied goes to the role
 * and into the state.  Called by core.c at the start, and by the roles when
 * the log has grown.
 */
#include "daemon.h"
#include "statedb.h"

#include <errno.h>
#include <sys/stat.h>

#define BATCH	8192	/* records per transaction */

static void bad_log(IsdCore *core, int rc, GError **error)
{
	if (rc == -ERANGE)
		g_set_error(error, ISD_ERROR, ISD_ERROR_FATAL,
			    "%s: the log no longer has what the state needs (offset %"
			    G_GUINT64_FORMAT "): the state has to be made anew", core->dir,
			    core->applied);
	else
		g_set_error(error, ISD_ERROR, ISD_ERROR_FATAL,
			    "%s: the log cannot be read at offset %" G_GUINT64_FORMAT
			    ": %s; see kmlprint --verify", core->dir, core->applied,
			    g_strerror(-rc));
}

/*
 * RESYNC says that a file may have changed unseen: that is a CLOSE of all of
 * it, with the attributes that it has now.  Nothing if it is not there.
 */
static gboolean resync(IsdCore *core, struct kml_record *r, GError **error)
{
	struct kml_attrs now;
	gboolean found;

	if (!isd_tree_attrs(core, r->obj, &now, &found, error))
		return FALSE;
	if (!found || !S_ISREG(now.mode))
		return TRUE;
	r->opcode = KML_CLOSE;
	r->flags |= KML_F_RANGES_ALL;
	r->has_attr = true;
	r->attr = now;
	return TRUE;
}

/* Has the state what the record is about? */
static gboolean is_known(IsdCore *core, const struct kml_record *r, gboolean *ret, GError **error)
{
	gint64 parent = 1, tparent = 1;
	g_auto(IsdObject) o = { 0 };
	gboolean found = TRUE;

	if ((r->parent.ino && !isd_obj_dir_id(core->state, r->parent, &parent, error)) ||
	    (r->tparent.ino && !isd_obj_dir_id(core->state, r->tparent, &tparent, error)) ||
	    (!isd_makes(r->opcode) && !isd_state_by_oid(core->state, r->obj, &o, &found, error)))
		return FALSE;
	*ret = parent && tparent && found;
	return TRUE;
}

/* 1: taken in; 0: there is no more up to seq; -1: error */
static int one_record(IsdCore *core, guint64 seq, IsdRecordFunc each, GError **error)
{
	struct kml_record r;
	gboolean known = TRUE;
	guint64 at = core->applied;
	uint64_t next;
	int rc = klog_read(core->log, at, &r, &next);

	if (rc < 0)
		bad_log(core, rc, error);
	if (rc <= 0 || r.seq > seq)
		return rc < 0 ? -1 : 0;
	isd_debug(ISD_D_KML, "record %" G_GUINT64_FORMAT " %s", (guint64) r.recno,
		  kml_opcode_name(r.opcode) ? kml_opcode_name(r.opcode) : "?");
	if (r.opcode == KML_RESYNC && !resync(core, &r, error))
		return -1;
	if (!core->is_server && !is_known(core, &r, &known, error))
		return -1;
	if ((!known && !isd_meet(core, &r, error)) ||
	    !isd_state_apply(core->state, &r, core->is_server, error))
		return -1;
	if (each && !each(core, &r, at, next, error))
		return -1;
	core->applied = next;
	if (next > core->log_end) {
		core->log_end = next;
		core->log_recno = r.recno;
	}
	return 1;
}

/* One transaction; *ret_more if there may be more behind it. */
static gboolean one_batch(IsdCore *core, guint64 seq, IsdRecordFunc each, gboolean *ret_more,
			  GError **error)
{
	guint64 before = core->applied;
	int rc = 1;

	for (guint i = 0; i < BATCH && rc > 0; i++)
		rc = one_record(core, seq, each, error);
	*ret_more = rc > 0;
	if (rc < 0)
		return FALSE;
	return core->applied == before ||
	       isd_state_set_u64(core->state, "local_offset", core->applied, error);
}

static gboolean follow(IsdCore *core, guint64 seq, IsdRecordFunc each, GError **error)
{
	gboolean more = TRUE;

	/* The caller may have rolled back what an earlier call did. */
	if (!isd_state_get_u64(core->state, "local_offset", &core->applied, error))
		return FALSE;
	while (more) {
		guint64 before = core->applied;

		if (!isd_state_begin(core->state, error))
			return FALSE;
		if (!one_batch(core, seq, each, &more, error)) {
			isd_state_rollback(core->state);
			core->applied = before;
			return FALSE;
		}
		isd_fault("follow-commit");
		if (!isd_state_commit(core->state, error)) {
			core->applied = before;
			return FALSE;
		}
	}
	return TRUE;
}

gboolean isd_follow(IsdCore *core, IsdRecordFunc each, GError **error)
{
	return follow(core, G_MAXUINT64, each, error);
}

gboolean isd_follow_seq(IsdCore *core, guint64 seq, GError **error)
{
	return follow(core, seq, NULL, error);
}
