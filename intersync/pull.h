/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Between pull.c, which gets the server's log and the content for it, and
 * apply_pull.c, which makes one record after the other true.
 */
#ifndef ISD_PULL_H
#define ISD_PULL_H

#include "client.h"
#include "coalesce.h"

struct IsdPull {
	IsdClient	*c;
	guint8		own[16];
	IsdRequest	*poll;
	gboolean	asked;		/* the server has said how far its log goes */
	gboolean	more;		/* it goes on behind this piece */
	gboolean	began;		/* what the catalog lacked was looked for */
	guint		later;		/* source: something had to wait */
	/* the piece */
	GByteArray	*piece;
	GArray		*recs;		/* of struct kml_record, pointing into piece */
	IsdOps		*ops;
	guint64		piece_next, piece_recno;
	guint32		piece_crc;	/* of its last record */
	gboolean	unlisted;	/* it is none of the log: what the catalog lacked */
	guint		next;		/* op to be applied */
	guint		window;		/* ops before this one have their content */
	gboolean	fetched;
	IsdDataJob	*job;
	GHashTable	*contents;	/* IsdOp -> IsdContent of job */
	/* apply_pull.c */
	IsdBatch	*batch;
	GHashTable	*touched;	/* objects and names that the batch changes */
	GHashTable	*mtimes;	/* soid of a directory -> struct kml_time */
	GHashTable	*carry;		/* row id -> GArray of IsdSpan that a skipped CLOSE wrote */
};

void isd_pull_apply_init(IsdPull *p);
void isd_pull_apply_clear(IsdPull *p);
/* What to fetch for an op that changes content; NULL: nothing. */
gboolean isd_pull_content(IsdPull *p, IsdOp *op, IsdContent **ret, GError **error);
/* want.c is just making that object. */
gboolean isd_pull_must_wait(IsdPull *p, const IsdOp *op);
gboolean isd_pull_apply(IsdPull *p, IsdOp *op, GError **error);
/* The ops before p->next are in the state. */
gboolean isd_pull_mark(IsdPull *p, GError **error);
/* Everything applied so far is done and in the state. */
gboolean isd_pull_flush(IsdPull *p, GError **error);
/* Directories get the mtimes that the server's log gives them. */
gboolean isd_pull_set_mtimes(IsdPull *p, GError **error);

#endif
