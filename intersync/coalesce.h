/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is left of a run of log records when everything that a later one
 * supersedes is dropped.  Pure: no state, no I/O.  Used by pull.c for the
 * server's log and by push.c for the own one.
 */
#ifndef ISD_COALESCE_H
#define ISD_COALESCE_H

#include <glib.h>

#include "record.h"

/* Bytes [off, end) of a file */
typedef struct {
	guint64	off, end;
} IsdSpan;

typedef struct {
	struct kml_record r;	/* numbers, names and final attributes; strings are the input's */
	gboolean	dropped;	/* superseded: nothing is to be done */
	gboolean	barrier;
	gboolean	content;	/* the object's content has changed */
	gboolean	whole;		/* any byte of it */
	GArray		*spans;		/* of IsdSpan, ascending, disjoint; NULL: none */
	guint64		content_recno;	/* the last record that changed it */
	guint64		min_size;	/* the smallest size it had on the way */
} IsdOp;

typedef struct {
	GArray	*ops;		/* of IsdOp, in an order that keeps dependencies */
	GArray	*owner;		/* guint per record: its op; G_MAXUINT: cancelled */
} IsdOps;

/*
 * barrier tells of records that must stay as they are, and that nothing on the two sides
 * of may be merged about the same object; NULL: none.
 */
typedef gboolean (*IsdIsBarrier)(const struct kml_record *r, gpointer data);
IsdOps *isd_coalesce(const struct kml_record *recs, guint n, IsdIsBarrier barrier, gpointer data);
void isd_ops_free(IsdOps *ops);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(IsdOps, isd_ops_free)

/* Add bytes to a sorted array of spans (made when NULL). */
void isd_spans_add(GArray **spans, guint64 off, guint64 end);
#define ISD_SPANS_MAX	256	/* more count as "whole" */

#endif
