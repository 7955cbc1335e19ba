/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Between push.c, which decides what of the own log is sent when, the push_*.c, which
 * know what was sent and what became of it, encode_push.c, which says it as the
 * server understands it, and upload.c, which sends large content.
 */
#ifndef ISD_PUSH_H
#define ISD_PUSH_H

#include "client.h"
#include "coalesce.h"

typedef enum {
	PUSH_UNKNOWN,	/* may have been sent before: the server is asked first */
	PUSH_READY,
	PUSH_SENT,
	PUSH_DONE,	/* settled, or nothing to be done */
	PUSH_FAILED,	/* to be tried again */
} PushState;

typedef struct {
	IsdOp		*op;
	PushState	state;
	int		err;
	guint		tries;
	char		*file;		/* name of its finished upload */
	gboolean	patch;		/* that holds only the spans */
	GArray		*spans;		/* of IsdSpan: those */
	guint64		sent_recno;	/* the number it was sent under */
	struct kml_oid	sent_soid;	/* and the server's number of its object; 0: our own */
	struct kml_oid	sent_dirs[2];	/* and numbers of its directories ... */
	guint32		sent_own;	/* ... KML_REF_*: which are our own */
	guint64		size;		/* of the content in it */
	struct kml_time	mtime;
	gboolean	bare;		/* sent without its content, which follows as a CLOSE */
	gboolean	anew;		/* refused: sent as what it comes to by now */
	gboolean	tried;		/* and that is all that can be tried */
	guint64		made;		/* number under which it went so, and is settled */
} PushOp;

/*
 * What was read from the log at once and coalesced; sent with the same
 * bounds again after a crash, so that the same records stand for the same changes.
 */
typedef struct {
	guint64		start, end, first_recno, last_recno;
	gboolean	again;		/* it was begun before */
	GByteArray	*buf;
	GArray		*recs;
	IsdOps		*ops;
	GArray		*push;		/* of PushOp, one per op */
} PushSegment;

struct IsdPush {
	IsdClient	*c;
	int		log_fd;
	GQueue		segments;	/* of PushSegment, in order */
	GHashTable	*settled;	/* recno (gint64) behind push_recno that is done */
	GHashTable	*held;		/* keys of what ops that are not done are about */
	GHashTable	*making;	/* own ino.gen of what is made by ops that are not done */
	GHashTable	*carry;		/* own ino.gen -> GArray of IsdSpan not sent with an earlier CLOSE */
	gboolean	asking;		/* what became of what was sent is not known yet */
	GPtrArray	*sent;		/* of PushOp, in the POST under way */
	guint64		base;		/* of the server's log: that POST has seen so much */
	GHashTable	*replaced;	/* own ino.gen whose number on the server that POST may change */
	IsdRequest	*post;
	struct PushUpload *upload;
	guint		retry, kick;	/* sources */
	guint		retry_ms;
	guint64		punched;	/* up to here the log was given back */
	guint64		blocking_recno;
	char		*blocking;
};

/* Of POST reint, per record; little-endian. */
struct push_answer {
	guint64	recno, server_recno, ino;
	guint32	gen, status;
};

/* --- push.c --- */

void isd_push_go(IsdPush *p);
/* Takes body over. */
void isd_push_post(IsdPush *p, GByteArray *body, IsdFetchDone done);

/* --- push_segment.c --- */

void isd_segment_free(PushSegment *s);
/* *ret_loaded: there is one more. */
gboolean isd_segment_load(IsdPush *p, gboolean *ret_loaded, GError **error);
/* What was being sent when this ended last. */
gboolean isd_push_reload(IsdPush *p, GError **error);
/* The position moves over the segments that are done. */
gboolean isd_push_advance(IsdPush *p, GError **error);

/* --- push_settle.c --- */

PushOp *isd_push_find_op(IsdPush *p, guint64 recno, PushSegment **ret_s, guint *ret_index);
gboolean isd_segment_op_done(IsdPush *p, PushSegment *s, guint index, GError **error);
/* The server has it as its record server_recno, about the object soid. */
gboolean isd_push_op_settled(IsdPush *p, PushSegment *s, guint index, struct kml_oid soid,
			     guint64 server_recno, GError **error);

/*
 * It is not sent, or was refused for good: what it was about is compared with the server's
 * state when all else is sent, see heal.c.
 */
gboolean isd_push_drop_op(IsdPush *p, PushSegment *s, guint index, GError **error);

/* --- push_refused.c --- */

/* The server does not do it, and that may be for good; *ret_drop: it is. */
gboolean isd_push_refused(IsdPush *p, PushOp *po, const struct push_answer *a, gboolean *ret_drop,
			  GError **error);

/* --- push_ask.c --- */

void isd_push_ask(IsdPush *p);

/* --- push_index.c --- */

void isd_push_index_free(struct IsdPushIndex *x);
/* Offsets (guint64) of pending records, ascending, which may be about these objects; NULL: error. */
GArray *isd_push_index_find(IsdClient *c, const GArray *oids, GError **error);
/* The record at that offset of the own log; it lives until the next one is read. */
gboolean isd_push_read_log(IsdClient *c, guint64 at, struct kml_record *ret, guint64 *ret_next,
			   gboolean *ret_end, GError **error);

/* --- push_pending.c --- */

gboolean isd_push_is_covered(IsdClient *c, struct kml_oid oid, guint64 recno);
/* ... but the LINK r still gives it a name that the other record does not. */
gboolean isd_push_is_further_name(IsdClient *c, const struct kml_record *r);
/* It was removed here before the server said what it is called there. */
gboolean isd_push_remember_gone(IsdClient *c, struct kml_oid oid, struct kml_oid soid,
				GError **error);
char *isd_push_key(struct kml_oid oid);
/* The row of an own number, also one that the object had before. */
gboolean isd_push_find(IsdClient *c, struct kml_oid oid, IsdObject *ret, gboolean *ret_found,
		       GError **error);

/* The server's number of an object that is no longer here; ino 0: unknown. */
gboolean isd_push_gone(IsdClient *c, struct kml_oid oid, struct kml_oid *ret, GError **error);
/* *ret_moved: the server may know the object by another name than this record says. */
gboolean isd_push_is_void(IsdClient *c, gint64 id, guint64 recno, gboolean *ret_moved);
/* upload.c is done with it. */
void isd_push_uploaded(IsdPush *p, PushOp *po, gboolean changed, const GError *error);

/* --- encode_push.c --- */

typedef enum {
	ENCODE_FAIL,	/* error is set */
	ENCODE_DONE,	/* appended to the body */
	ENCODE_FULL,	/* send what there is first */
	ENCODE_UPLOAD,	/* its content has to be uploaded first */
	ENCODE_MOOT,	/* nothing to be sent */
	ENCODE_LATER,	/* it is being changed */
} EncodeResult;
EncodeResult isd_push_encode(IsdPush *p, PushOp *po, GByteArray *body, GError **error);

/* --- upload.c --- */

typedef enum { UPLOAD_OK, UPLOAD_CHANGED } UploadEnd;
typedef void (*PushUploadDone)(IsdPush *p, PushOp *po, UploadEnd end, const GError *error);
/* spans NULL: all of it. */
gboolean isd_push_upload(IsdPush *p, PushOp *po, int fd, GArray *spans, PushUploadDone done,
			 GError **error);
void isd_push_upload_free(struct PushUpload *u);
/* The spans of a CLOSE that suffice (a new array), or NULL for all of it. */
GArray *isd_push_spans(IsdPush *p, const PushOp *po, const IsdObject *o, guint64 size);
/* Skipped now, a later CLOSE sends it. */
gboolean isd_push_carry(IsdPush *p, const PushOp *po, const IsdObject *o, GError **error);
gboolean isd_push_carried(IsdPush *p, struct kml_oid oid, GError **error);

#endif
