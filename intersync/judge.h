/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Judging one record of a client: may it be done, and what exactly is to be
 * done here.  Called by serve_reint.c.
 */
#ifndef ISD_JUDGE_H
#define ISD_JUDGE_H

#include "core.h"

/* Whose record, and what that client had seen of our log. */
typedef struct {
	IsdCore		*core;
	const guint8	*peer;
	char		peer_text[37];
	guint64		base;
	struct kml_oid	missing;	/* with EIDRM: what the record names and is not here */
	GError		*error;		/* with ISD_JUDGE_BROKEN */
} IsdJudge;

#define ISD_JUDGE_BROKEN (-1)	/* the state cannot be read */

/* A record as the file system will get it; all it points to lives as long as this and the client's. */
typedef struct {
	struct kml_record	r;
	struct izo_guard	guard, tguard;
	guint32			flags;		/* IZO_RE_* */
	char			*dir, *tdir, *name, *file;
	GBytes			*aliases;
	int			upload;		/* locked until it is done, or -1 */
	/* What it uses, rows of the state, 0: nothing. */
	gint64			obj, old, parent, tparent;
	gboolean		moves_dir;
	gboolean		is_so;		/* nothing is to be done: it is so already */
} IsdDeed;

void isd_deed_clear(IsdDeed *d);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(IsdDeed, isd_deed_clear)

/*
 * 0 and *ret, an errno that is the answer, or ISD_JUDGE_BROKEN.  again: the file
 * system has refused it once although the state allowed it.
 */
int isd_judge(IsdJudge *j, const struct kml_record *r, gboolean again, IsdDeed *ret);

#endif
