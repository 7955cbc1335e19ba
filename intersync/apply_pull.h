/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Between the apply_*.c: making one record of the server's log after the other
 * true here.  apply_pull.c has the batch and decides which file a record is for.
 */
#ifndef ISD_APPLY_PULL_H
#define ISD_APPLY_PULL_H

#include "pull.h"

#define ISD_APPLY_TRIES	3

/* What a record in the batch is about; passed to the function that gets its result. */
typedef struct {
	IsdPull		*p;
	IsdOp		*op;
	guint		tries;
	gint64		id, other;	/* rows: the object; what it replaces */
	gint64		parent, tparent;
	char		*name, *tname;
	guint64		content;	/* version that the batch brings, 0 none */
	guint32		valid;		/* attributes that it sets, where the record does not say */
} IsdApply;

/* --- apply_pull.c --- */

IsdApply *isd_apply_item_new(IsdPull *p, IsdOp *op, guint tries, gint64 id);
/* Into the batch; takes it over. */
gboolean isd_apply_queue(IsdPull *p, const struct kml_record *r, const struct izo_guard *guard,
			 const struct izo_guard *tguard, guint32 flags, IsdBatchResult result,
			 IsdApply *it, GError **error);
/* tries: how often it was decided already. */
gboolean isd_apply_op(IsdPull *p, IsdOp *op, guint tries, GError **error);

/* --- apply_rows.c --- */

/* By the server's number, also one that a push of ours has changed meanwhile. */
gboolean isd_apply_find_soid(IsdPull *p, struct kml_oid soid, IsdObject *ret, gboolean *ret_found,
			     GError **error);
gboolean isd_apply_is_old_number(IsdPull *p, struct kml_oid soid);
/* The object of a record, also when the record says that it has a new number. */
gboolean isd_apply_find_object(IsdPull *p, const struct kml_record *r, IsdObject *ret,
			       gboolean *ret_found, GError **error);
/* A directory of the record; it comes back if it was removed here. */
gboolean isd_apply_find_place(IsdPull *p, const struct kml_record *r, struct kml_oid soid,
			      IsdPlace *ret, gboolean *ret_found, GError **error);
/* Where the object is: its name in the record if it still has that, else any. */
gboolean isd_apply_find_name(IsdPull *p, const IsdObject *o, struct kml_oid dir,
			     struct kml_str name, IsdName *ret, gboolean *ret_found,
			     GError **error);
/* The record's mtimes of its directories, into the state. */
gboolean isd_apply_set_ptime(IsdPull *p, const IsdApply *it, GError **error);
void isd_apply_take_ptime(struct kml_record *to, const struct kml_record *from);
/* Was it changed here, and the server does not know? */
gboolean isd_apply_pending_content(IsdPull *p, const IsdObject *o);
/* After a result that is not success: decide again, or give this record up. */
gboolean isd_apply_again(IsdApply *it, const struct izo_reint_result *res, GError **error);

/* --- apply_content.c --- */

void isd_apply_set_content(struct kml_record *r, const IsdContent *t);
void isd_apply_take_attrs(IsdObject *o, const struct kml_attrs *a, guint32 valid);
/* Deleted here, changed on the server: the server's version comes back where it is there. */
gboolean isd_apply_revive_file(IsdPull *p, IsdOp *op, IsdObject *o, struct kml_oid dir,
			       struct kml_str name, GError **error);
gboolean isd_apply_close(IsdPull *p, IsdOp *op, guint tries, GError **error);

/* --- apply_make.c --- */

/* Somebody has the name: *ret_bound if that is what the record makes; else it is moved aside. */
gboolean isd_apply_clear_name(IsdPull *p, IsdOp *op, const IsdPlace *at, const char *name,
			      guint tries, gboolean *ret_bound, GError **error);
gboolean isd_apply_make(IsdPull *p, IsdOp *op, guint tries, GError **error);

/* --- apply_attr.c --- */

/* Set what is in valid of op's attributes; name NULL: of the root. */
gboolean isd_apply_queue_attrs(IsdPull *p, IsdOp *op, const IsdObject *o, const IsdPlace *at,
			       const char *name, guint32 valid, guint tries, GError **error);
gboolean isd_apply_attr(IsdPull *p, IsdOp *op, guint tries, GError **error);
/*
 * An own record comes back: records that came between to the server before it may have been applied
 * here after it, and its attributes are those that count.
 */
gboolean isd_apply_echo(IsdPull *p, IsdOp *op, GError **error);

/* --- apply_names.c --- */

gboolean isd_apply_remove(IsdPull *p, IsdOp *op, guint tries, GError **error);
gboolean isd_apply_link(IsdPull *p, IsdOp *op, guint tries, GError **error);
gboolean isd_apply_rename(IsdPull *p, IsdOp *op, guint tries, GError **error);

#endif
