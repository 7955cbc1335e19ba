/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside the client role: what its files share.  client.c connects and recovers;
 * attach.c takes the catalog in; want.c fetches what the catalog promised;
 * pull.c follows the server's log; push.c sends the own one; conflict.c keeps
 * both versions where they meet; data.c gets content; batch.c applies.
 *
 * Everything that has to survive is in the state database, so after any
 * error the parts are thrown away and begun again from it.
 */
#ifndef ISD_CLIENT_H
#define ISD_CLIENT_H

#include <sys/stat.h>

#include "core.h"
#include "fetch.h"
#include "statedb.h"

#define ISD_SMALL_MAX	KML_DATA_MAX	/* content that travels inside a record */
#define ISD_CONTENT_FULL 507		/* status of content for which there is no room here */

typedef enum {
	ISD_CLIENT_OFFLINE,
	ISD_CLIENT_CONNECTING,
	ISD_CLIENT_ATTACHING,
	ISD_CLIENT_ONLINE,
	ISD_CLIENT_BLOCKED,
} IsdClientPhase;

/* The state's value "attached" */
enum { ISD_ATTACH_NONE, ISD_ATTACH_NAMES, ISD_ATTACH_DONE };

typedef struct IsdClient IsdClient;
typedef struct IsdAttach IsdAttach;
typedef struct IsdWant IsdWant;
typedef struct IsdPull IsdPull;
typedef struct IsdPush IsdPush;
typedef struct IsdSettle IsdSettle;
typedef struct IsdHeal IsdHeal;

/* Wanted content that does not fit. */
typedef struct {
	gint64		id;		/* the smallest of them; 0: none */
	guint64		bytes;		/* what that takes */
	guint64		least;		/* of those that this pass has found; 0: none yet */
	guint		rows;		/* of client_want that are such */
} IsdShort;

struct IsdClient {
	IsdCore		*core;
	IsdState	*state;		/* core's */
	IsdFetcher	*fetcher;
	char		*server;	/* HOST:PORT */
	char		*fset;
	IsdClientPhase	phase;
	char		*reason;	/* why it is not online */
	gint64		since;		/* seconds, of this phase */
	guint		retry;		/* source */
	guint		retry_ms;
	guint		reset;		/* source: an error is being dealt with */
	guint		grown;		/* source: the own log grew */
	guint8		peer[16];	/* the server's replica uuid */
	guint64		epoch;
	guint64		pull_offset, pull_recno;	/* applied of the server's log */
	guint32		pull_crc;	/* of the record that ends there; 0: not known */
	guint64		end_offset, end_recno;		/* its end, as last heard */
	gint64		lag_since;	/* when it was found to be behind, 0: it is not */
	guint64		push_offset, push_recno;	/* settled of the own log */
	gboolean	unfinished;	/* a piece of the server's log that an earlier run has begun */
	gboolean	txn;		/* a transaction is open */
	guint		txn_records, txn_source;
	guint		full_ms;	/* pause after the disk was found full */
	guint64		promised;	/* bytes on the disk that content under way will take */
	gboolean	litter;		/* there may be files in incoming/ that nobody wants */
	IsdShort	shortage;	/* space.c */
	IsdAttach	*attach;
	IsdWant		*want;
	IsdPull		*pull;
	IsdPush		*push;
	IsdSettle	*settle;
	IsdHeal		*heal;
	struct IsdPushIndex *index;	/* push_index.c; NULL: nothing was asked for */
	struct IsdPolicies *policies;	/* NULL: none */
	GList		*syncs;		/* of struct IsdSync */
	guint		sync_source;
};

/* --- client.c --- */

/* The parts stop and begin again from the state, when it may help. */
void isd_client_fail(IsdClient *c, const GError *error);
/*
 * The same for a request with isd_client_which_log(): when the server's log is another one
 * (409), or no longer goes back to the position (410), catalogs are compared next.
 */
void isd_client_fail_log(IsdClient *c, guint status, const GError *error);
gboolean isd_client_is_up(const IsdClient *c);
void isd_client_set_phase(IsdClient *c, IsdClientPhase phase, const char *reason);
/*
 * Arguments of a request that makes sense only to a server whose log still is the one that
 * was followed up to the position; another one answers 409.  The caller's to free.
 */
char *isd_client_which_log(const IsdClient *c);
/* The attach is complete: follow and push. */
void isd_client_attached(IsdClient *c);
/* Something moved: is a sync that somebody waits for complete? */
void isd_client_progress(IsdClient *c);

/* One transaction for many records: committed every second and every 4096 records. */
gboolean isd_client_begin(IsdClient *c, GError **error);
gboolean isd_client_did(IsdClient *c, guint records, GError **error);
gboolean isd_client_commit(IsdClient *c, GError **error);
void isd_client_abort(IsdClient *c);

/* Take the own log into the state; with sync the file system first logs what is in flight. */
gboolean isd_client_follow(IsdClient *c, gboolean sync, GError **error);

/* --- batch.c: REINT with what to do about each result --- */

typedef struct IsdBatch IsdBatch;
/* FALSE ends everything; a record that failed is dealt with in it. */
typedef gboolean (*IsdBatchResult)(IsdClient *c, gpointer item,
				   const struct izo_reint_result *res, GError **error);
typedef void (*IsdBatchDone)(IsdClient *c, const GError *error, gpointer data);

IsdBatch *isd_batch_new(IsdClient *c);
/* Items that were never sent are freed. */
void isd_batch_free(IsdBatch *b);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(IsdBatch, isd_batch_free)
/* A full batch is flushed first.  item is taken over when TRUE. */
gboolean isd_batch_add(IsdBatch *b, const struct kml_record *r, const struct izo_guard *guard,
		       const struct izo_guard *tguard, guint32 flags,
		       IsdBatchResult result, gpointer item, GDestroyNotify free_item,
		       GError **error);
guint isd_batch_count(const IsdBatch *b);
/* Will a usual record with so many bytes of content still go in, without a flush? */
gboolean isd_batch_has_room(const IsdBatch *b, gsize bytes);
/* Send it and deal with the results; waits for the file system. */
gboolean isd_batch_flush(IsdBatch *b, GError **error);
/*
 * The same without waiting; b is empty at once.  The results are dealt with,
 * then done is called; also when the client was reset meanwhile.
 */
void isd_batch_submit(IsdBatch *b, IsdBatchDone done, gpointer data);
/* One record, now. */
gboolean isd_reint_one(IsdClient *c, const struct kml_record *r, const struct izo_guard *guard,
		       const struct izo_guard *tguard, guint32 flags,
		       struct izo_reint_result *ret, GError **error);
/* No use in trying the others: full or broken disk, file system gone. */
gboolean isd_result_is_fatal(const struct izo_reint_result *res, GError **error);
struct kml_time isd_result_ctime(const struct izo_reint_result *res);
struct kml_oid isd_result_oid(const struct izo_reint_result *res);

/* --- data.c: content from the server --- */

typedef struct {
	struct kml_oid	soid;
	guint64		version;
	guint64		size;		/* expected; then what came */
	GArray		*ranges;	/* of struct kml_range in the host's order; NULL: all of it */
	gpointer	user;
	/* the answer */
	guint		status;		/* 0, or 404, 410, 425, ISD_CONTENT_FULL */
	guint64		need;		/* ISD_CONTENT_FULL: the bytes that it takes here */
	const guint8	*data;		/* small: size bytes */
	char		*file;		/* large: its name in incoming/ */
} IsdContent;

typedef struct IsdDataJob IsdDataJob;
/* error: of the whole job, then no content is valid. */
typedef void (*IsdDataDone)(IsdDataJob *job, const GError *error, gpointer data);

IsdContent *isd_content_new(struct kml_oid soid, guint64 version, guint64 size);
/* Takes contents (of IsdContent) over.  done is called from the main loop, never from within. */
IsdDataJob *isd_data_get(IsdClient *c, GPtrArray *contents, IsdDataDone done, gpointer data);
GPtrArray *isd_data_contents(IsdDataJob *job);
/* Also cancels what is under way. */
void isd_data_job_free(IsdDataJob *job);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(IsdDataJob, isd_data_job_free)
/*
 * Remove downloads from incoming/ that nobody wants: what was superseded, or left by
 * an earlier run.  Only while neither pull nor want has anything under way.
 */
void isd_data_clean(IsdClient *c);

/* --- space.c: room for what comes --- */

/* Bytes that content may take now; what is under way is taken off. */
guint64 isd_space_room(IsdClient *c);
/* want.c: a pass over the wanted begins; this row did not fit; it ends. */
void isd_space_pass(IsdClient *c);
void isd_space_short(IsdClient *c, gint64 id, guint64 bytes);
void isd_space_passed(IsdClient *c);
/* All `rows` that are wanted only wait for room, and there is not enough for any of them. */
gboolean isd_space_waits(IsdClient *c, guint64 rows);
/* What does not fit, for people; NULL: everything does. */
char *isd_space_why(IsdClient *c);
/* Is there as much as state and log need to go on? */
gboolean isd_space_usable(IsdClient *c);

/* --- local.c: names and files here --- */

/* A directory: what a record says of it. */
typedef struct {
	gint64		id;
	struct kml_oid	oid;
	struct kml_time	mtime;
	char		*path;
} IsdPlace;

void isd_place_clear(IsdPlace *p);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(IsdPlace, isd_place_clear)
/* *ret_found FALSE: there is no such directory here. */
gboolean isd_place_by_id(IsdClient *c, gint64 id, IsdPlace *ret, gboolean *ret_found, GError **error);
gboolean isd_place_by_soid(IsdClient *c, struct kml_oid soid, IsdPlace *ret, gboolean *ret_found,
			   GError **error);
void isd_place_source(struct kml_record *r, const IsdPlace *p, const char *name);
void isd_place_target(struct kml_record *r, const IsdPlace *p, const char *name);
/*
 * Open a directory ("/a/b") below a root without following links, whatever its
 * length.  A descriptor (O_PATH) or -errno.
 */
int isd_local_dir(int root_fd, const char *path);
/* The directory with that row below root_fd, likewise. */
int isd_local_parent(IsdClient *c, int root_fd, gint64 parent);
/* What is at (parent, name) in the lower file system: 0 or -errno. */
int isd_local_stat(IsdClient *c, gint64 parent, const char *name, struct stat *ret,
		   struct kml_oid *ret_oid);
/*
 * The row gets the number and change time of what is there: an earlier run may have changed it
 * and not have said so.  Not if a local program did.  id 0: only the own log is taken in.
 */
gboolean isd_local_refresh(IsdClient *c, gint64 id, GError **error);
/* Open a regular file there for reading, only if it is this inode. */
int isd_local_open(IsdClient *c, gint64 parent, const char *name, struct kml_oid oid);
/* Are these the bytes of that file here? */
gboolean isd_local_same_bytes(IsdClient *c, gint64 parent, const char *name, struct kml_oid oid,
			      const guint8 *data, guint64 size);
/* The same for a file in incoming/. */
gboolean isd_local_same_file(IsdClient *c, gint64 parent, const char *name, struct kml_oid oid,
			     const char *file, guint64 size);
gboolean isd_time_equal(struct kml_time a, struct kml_time b);
gboolean isd_oid_equal(struct kml_oid a, struct kml_oid b);
/* A string of a record as a C string. */
char *isd_str(struct kml_str s);

/* --- local_mount.c: through the mount --- */

/* rename(2) within a directory through the mount: logged.  0 or -errno. */
int isd_local_rename(IsdClient *c, gint64 parent, const char *from, const char *to);
/* What izoctl or a policy settles, through the mount as well.  0 or -errno. */
typedef enum { ISD_MOVE_TO_FREE, ISD_MOVE_OVER, ISD_MOVE_EXCHANGE } IsdMove;
int isd_local_move(IsdClient *c, gint64 parent, const char *from, gint64 tparent, const char *to,
		   IsdMove how);
/* With all that is in it. */
int isd_local_remove(IsdClient *c, gint64 parent, const char *name);
int isd_local_rmdir(IsdClient *c, gint64 parent, const char *name);
/* Content of one file into another, which stays the same inode. */
int isd_local_copy(IsdClient *c, gint64 parent, const char *from, gint64 tparent, const char *to);
/* These bytes of it (of IsdSpan) alone. */
int isd_local_merge(IsdClient *c, gint64 parent, const char *from, gint64 tparent, const char *to,
		    GBytes *spans);
int isd_local_link(IsdClient *c, gint64 parent, const char *from, gint64 tparent, const char *to);
/* Set its mtime to what it is through the mount, so that there is a record of it. */
int isd_local_touch(IsdClient *c, gint64 parent, const char *name);

/* --- announce.c: records of what is here already --- */

/* Attributes, xattrs and, with content, a CLOSE of all of it. */
gboolean isd_announce_object(IsdClient *c, const IsdObject *o, const IsdName *n, gboolean content,
			     GError **error);
/* n and other are both names of it. */
gboolean isd_announce_link(IsdClient *c, const IsdObject *o, const IsdName *n, const IsdName *other,
			   GError **error);
/* The server has it as `from`, here it is `to` since. */
gboolean isd_announce_rename(IsdClient *c, const IsdObject *o, const IsdName *from,
			     const IsdName *to, GError **error);

/* --- unlisted.c: what a further catalog no longer lists --- */

gboolean isd_unlisted_begin(IsdClient *c, GError **error);
/* The catalog has this name, of the server's object soid. */
gboolean isd_unlisted_mark(IsdClient *c, gint64 parent, const char *name, struct kml_oid soid,
			   GError **error);
/*
 * The catalog is complete.  What it does not list was removed there; when both histories
 * were apart behind record common, what is newer is a new object of ours.
 */
gboolean isd_unlisted_settle(IsdClient *c, gboolean apart, guint64 common, GError **error);
/* Records of removal for pull.c, or NULL: there is no such catalog to deal with. */
gboolean isd_unlisted_records(IsdClient *c, GByteArray **ret, GError **error);
/* They are applied. */
gboolean isd_unlisted_done(IsdClient *c, GError **error);

/* --- apart.c: the server's log is another one than was followed --- */

/* Remember the record at the position, by its checksum. */
gboolean isd_apart_mark(IsdClient *c, GError **error);
/* It is: next time the catalogs are compared. */
gboolean isd_apart_begin(IsdClient *c, GError **error);
/*
 * Ask for the last record that both have.  done, from the main loop, gets its number,
 * 0: nothing is known to be common.  Also in the state then, as "common", with "apart" 2.
 */
typedef struct IsdApart IsdApart;
typedef void (*IsdApartDone)(guint64 common, gpointer data);
IsdApart *isd_apart_find(IsdClient *c, IsdApartDone done, gpointer data);
void isd_apart_free(IsdApart *a);
/* Of an object that both have, whose content is the newer one? */
typedef enum { ISD_WHOSE_SAME, ISD_WHOSE_THEIRS, ISD_WHOSE_OURS, ISD_WHOSE_BOTH } IsdWhose;
IsdWhose isd_apart_content(const IsdObject *o, const struct kml_record *r, guint64 common);
gboolean isd_apart_attrs_are_ours(const IsdObject *o, const struct kml_record *r, guint64 common);

/* --- want.c: objects that are known and not here, or not in that version --- */

/* tables of the client in the state database */
gboolean isd_client_tables(IsdState *s, GError **error);
gboolean isd_want_add(IsdClient *c, gint64 id, gint64 parent, const char *name,
		      guint64 version, guint64 size, GError **error);
gboolean isd_want_drop(IsdClient *c, gint64 id, GError **error);
gboolean isd_want_drop_name(IsdClient *c, gint64 id, gint64 parent, const char *name, GError **error);
gboolean isd_want_move(IsdClient *c, gint64 id, gint64 parent, const char *name,
		       gint64 tparent, const char *tname, GError **error);
/* New content (attr: its size and mtime) for an object that may or may not be here. */
gboolean isd_want_version(IsdClient *c, gint64 id, guint64 version, const struct kml_attrs *attr,
			  GError **error);
/* The mtime was set after that content was written. */
gboolean isd_want_mtime(IsdClient *c, gint64 id, struct kml_time mtime, GError **error);
/* Has the server a version of its content that is not here yet? */
gboolean isd_want_is_newer(IsdClient *c, const IsdObject *o, gboolean *ret, GError **error);
gboolean isd_want_count(IsdClient *c, guint64 *ret_files, guint64 *ret_bytes, GError **error);
gboolean isd_want_name_of(IsdClient *c, gint64 id, IsdName *ret, gboolean *ret_found, GError **error);
/*
 * If an earlier run made this object and was killed before that was in the state, the row (o)
 * gets its number; its content is still wanted.
 */
gboolean isd_want_adopt(IsdClient *c, IsdObject *o, GError **error);

IsdWant *isd_want_new(IsdClient *c);
void isd_want_free(IsdWant *w);
/* Look for work.  more: names are still coming, so an empty table is not the end. */
void isd_want_pump(IsdWant *w, gboolean more);
/* Something new is in the table. */
void isd_want_soon(IsdWant *w);
gboolean isd_want_is_busy(const IsdWant *w);
/* It is just being fetched or applied. */
gboolean isd_want_is_active(const IsdWant *w, gint64 id);
guint64 isd_want_files_done(const IsdWant *w);
guint64 isd_want_bytes_done(const IsdWant *w);

/* --- attach.c --- */

IsdAttach *isd_attach_start(IsdClient *c);
/*
 * One record as the catalog has it: what it tells is made here, wanted, or gets the server's
 * attributes.  The name is free, or is that object.
 */
gboolean isd_attach_one(IsdClient *c, const struct kml_record *r, GError **error);
void isd_attach_free(IsdAttach *a);
/* want.c: nothing is left to fetch for now. */
void isd_attach_wanted_done(IsdAttach *a);
/* What is here alone and in no record gets one. */
gboolean isd_attach_log_unknown(IsdClient *c, GError **error);

/* --- pull.c --- */

IsdPull *isd_pull_start(IsdClient *c);
void isd_pull_free(IsdPull *p);
/* Ask now and not at the end of a long poll. */
void isd_pull_kick(IsdPull *p);
gboolean isd_pull_is_idle(const IsdPull *p);

/* --- heal.c: what both sides may have under different names --- */

/* A row, and an object that the server has, here gone or not known. */
gboolean isd_heal_add(IsdClient *c, gint64 id, GError **error);
gboolean isd_heal_add_soid(IsdClient *c, struct kml_oid soid, GError **error);
/* Something is still to be compared. */
gboolean isd_heal_is_needed(IsdClient *c);
/* Compare as soon as all is sent and taken in. */
void isd_heal_soon(IsdClient *c);
void isd_heal_stop(IsdClient *c);

/* --- push.c --- */

IsdPush *isd_push_start(IsdClient *c);
void isd_push_free(IsdPush *p);
void isd_push_kick(IsdPush *p);
/* A record about it was sent, and is not answered yet. */
gboolean isd_push_is_on_its_way(IsdClient *c, struct kml_oid oid);
/* Everything of the own log that is in the state is settled. */
gboolean isd_push_is_idle(const IsdPush *p);
/* What became of own records is not known: nothing may be decided about them. */
gboolean isd_push_is_asking(const IsdPush *p);
/* The server's log has this record of ours: what it is called there. */
gboolean isd_push_settle(IsdClient *c, const struct kml_record *server_record, GError **error);
/* Has this own record not been taken in by the server yet? */
gboolean isd_push_is_pending(IsdClient *c, struct kml_oid oid, guint64 own_recno);
/* Why a record does not go over, and which; NULL: none does not. */
const char *isd_push_blocking(const IsdPush *p, guint64 *ret_recno);
/* The pull has taken a piece in: what was stale may not be any more. */
void isd_push_pulled(IsdPush *p);
/*
 * Own renames of the object so far are not to be sent, but for `carrier` (0: none): the server's name
 * counts, or only where it ended.  What follows finds the object there wherever it is.
 */
gboolean isd_push_void_renames(IsdClient *c, gint64 id, guint64 carrier, GError **error);
/* The last own rename of the object that the server does not have; 0: there is none. */
gboolean isd_push_last_rename(IsdClient *c, gint64 id, guint64 *ret_recno, GError **error);
/* Where it was before the first of them. */
gboolean isd_push_first_rename(IsdClient *c, gint64 id, IsdName *ret, gboolean *ret_found,
			       GError **error);
/* The object was called so in records that are not sent yet. */
gboolean isd_push_alias(IsdClient *c, struct kml_oid was, gint64 id, GError **error);
/* Where a removed object was, as long as the server does not know that it is. */
gboolean isd_push_find_removal(IsdClient *c, struct kml_oid oid, IsdName *ret, gboolean *ret_found,
			       GError **error);
/* Own records up to `upto` about this object are not to be sent, but for `carrier`. */
gboolean isd_push_cover(IsdClient *c, struct kml_oid oid, guint64 upto, guint64 carrier, GError **error);
/* The server has no version of the content that the next one can be told by its differences. */
gboolean isd_push_mark_unsent(IsdClient *c, struct kml_oid oid, GError **error);
/* What of the attributes own records that are not sent yet have set. */
gboolean isd_push_pending_attrs(IsdClient *c, struct kml_oid oid, guint32 *ret_valid,
				GHashTable **ret_xattrs, GError **error);

/* Of the version before its first own record that is pending; mode stays 0: unknown. */
void isd_push_ancestor(IsdClient *c, gint64 id, struct kml_attrs *ret);
/* Is content of this size and mtime that version? */
gboolean isd_push_is_ancestor(IsdClient *c, gint64 id, const struct kml_attrs *attr);

/* The bytes that its pending records have written (of IsdSpan); NULL: any, or another size. */
GArray *isd_push_pending_spans(IsdClient *c, gint64 id);

/* --- conflict.c and settle.c; conflict.h has more --- */

/*
 * The local object gives its name up for the server's (theirs: the record, or what is known of
 * it): it is renamed to its conflict name, loses its soid, and goes to the server as a new file.
 * The row keeps its id; ret_new_id (may be NULL) gets a new row that has the soid.  Commits.
 */
gboolean isd_conflict_keep(IsdClient *c, gint64 id, gint64 parent, const char *name,
			   const struct kml_record *theirs, gint64 *ret_new_id, GError **error);
/* The server has removed it, here it was changed: it stays, as a new file. */
gboolean isd_conflict_survive(IsdClient *c, gint64 id, const struct kml_record *theirs,
			      GError **error);
char *isd_conflict_name(const char *name, const char *peer, gint64 now, guint n);
/* What an earlier run has begun, before anything else is decided. */
gboolean isd_conflict_recover(IsdClient *c, GError **error);
gboolean isd_conflict_count(IsdClient *c, guint64 *ret, GError **error);
/* A policy has still to settle something. */
gboolean isd_conflict_unsettled(IsdClient *c);
/* Look for what a policy can settle now. */
void isd_settle_soon(IsdClient *c);
void isd_settle_stop(IsdClient *c);
struct IsdPolicies *isd_policies_new(const char *file);
void isd_policies_free(struct IsdPolicies *p);

#endif
