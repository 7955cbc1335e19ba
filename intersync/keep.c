// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * How much of its log a server keeps: what a peer has not got yet, but no more than it
 * was told to; a peer that is further behind compares catalogs.  The last of it always
 * stays, for those who come for the first time and for a look by people.
 */
#include "server.h"

#include "util.h"

#define STEP_MAX	(64ULL << 20)	/* bytes that are given back at a time */
#define LAST_MAX	(16ULL << 20)	/* bytes that stay in any case */

/* The log may go up to here, as far as the peers are concerned. */
static guint64 keep_goal(const IsdServerView *v, guint64 keep, guint64 last)
{
	g_autoptr(GPtrArray) peers = isd_peers_list(v->peers);
	guint64 goal = v->end > last ? v->end - last : 0;
	guint64 least = v->end > keep ? v->end - keep : 0;

	for (guint i = 0; i < peers->len; i++) {
		const IsdPeer *p = peers->pdata[i];

		/* one without a position is taking the catalog in */
		goal = MIN(goal, MAX(p->offset, least));
	}
	return goal;
}

/* Where the last record ends that ends at goal or before, and its number. */
static int keep_boundary(IsdCore *core, guint64 first, guint64 goal, guint64 *ret_offset,
			 guint64 *ret_recno)
{
	guint64 at = first;

	*ret_offset = *ret_recno = 0;
	for (;;) {
		struct kml_record r;
		uint64_t next;
		int rc = klog_read(core->log, at, &r, &next);

		if (rc <= 0)
			return rc;
		if (next > goal)
			return 0;
		*ret_offset = at = next;
		*ret_recno = r.recno;
	}
}

void isd_keep_log(const IsdServerView *v, guint64 keep)
{
	const guint64 last = MIN(keep / 4, LAST_MAX);
	guint64 first = GUINT64_FROM_LE(v->core->info.first_offset);
	guint64 goal = MIN(keep_goal(v, keep, last), first + STEP_MAX);
	guint64 offset, recno;
	g_autoptr(GError) error = NULL;
	int rc;

	if (goal < first + MAX(last, 1))
		return;
	rc = keep_boundary(v->core, first, goal, &offset, &recno);
	if (rc < 0)
		isd_log(4, NULL, 0, "the log cannot be given back: %s; see kmlprint --verify",
			g_strerror(-rc));
	else if (offset && !isd_core_give_back(v->core, offset, recno, &error))
		isd_log(4, NULL, recno, "the log cannot be given back: %s", error->message);
}
