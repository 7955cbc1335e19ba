/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What both roles of the daemon share: the mounted fileset, its channel, its
 * log and its state.  main.c makes it; server.c and client.c live on it.
 */
#ifndef ISD_CORE_H
#define ISD_CORE_H

#include <gio/gio.h>
#include <json-glib/json-glib.h>

#include "chan.h"
#include "error.h"
#include "klog.h"
#include "state.h"

typedef struct IsdCore {
	char		*dir;		/* mount point */
	char		*name;		/* of this replica, for people */
	struct izo_info	info;
	char		fileset[64];
	char		replica[37];	/* uuid as text */
	int		root_fd;	/* the lower root: data */
	int		meta_fd;	/* .intermezzo/<fileset> */
	int		incoming_fd;
	gboolean	is_server;
	IsdState	*state;
	struct klog	*log;		/* own log, for reading */
	guint64		log_end, log_recno;	/* as GROWN said */
	guint64		applied;	/* offset up to which state has the own log */
	gboolean	met;		/* the state has rows of what no record is about */
	struct IsdChannel *channel;
	gpointer	role;		/* IsdServer or IsdClient, set by its start function */
	void		(*log_grew)(struct IsdCore *core);	/* the role's */
} IsdCore;

/*
 * channel.c: requests on the channel within the main loop.  The reply's body
 * is valid during the callback alone; error is 0, a positive errno, or ENOTCONN when
 * the file system went away.
 */
typedef void (*IsdChannelDone)(int error, const void *body, gsize len, gpointer data);
void isd_channel_request(struct IsdChannel *c, unsigned int type, unsigned int flags,
			 const void *body, gsize len, IsdChannelDone done, gpointer data);
/* The same, waiting: runs no main loop; replies to others are kept and dispatched later. */
gboolean isd_channel_call(struct IsdChannel *c, unsigned int type, unsigned int flags,
			  const void *body, gsize len, GByteArray *reply, GError **error);

/*
 * follow.c: read the own log from core->applied to its end into the state
 * (one transaction of the caller's or its own) and tell the role of each record.
 */
/* Called after the record was taken into the state, in the same transaction. */
typedef gboolean (*IsdRecordFunc)(IsdCore *core, const struct kml_record *r,
				  guint64 offset, guint64 next, GError **error);
/* On an error the state and core->applied are as at the last commit. */
gboolean isd_follow(IsdCore *core, IsdRecordFunc each, GError **error);
/* Only what has a SEQ up to this. */
gboolean isd_follow_seq(IsdCore *core, guint64 seq, GError **error);

/*
 * reint.c: build a REINT batch and send it.  One batch at a time per IsdReint.
 */
typedef struct IsdReint IsdReint;
IsdReint *isd_reint_new(gboolean log, const guint8 peer[16]);
void isd_reint_free(IsdReint *b);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(IsdReint, isd_reint_free)
/* FALSE when the batch is full: send it first.  r is encoded at once. */
gboolean isd_reint_add(IsdReint *b, const struct kml_record *r, const struct izo_guard *guard,
		       const struct izo_guard *tguard, guint32 flags);
guint isd_reint_count(const IsdReint *b);
/* Will a usual record with so many bytes of content still go in? */
gboolean isd_reint_has_room(const IsdReint *b, gsize data);
/*
 * Send; results (little-endian, as in channel.h; one per added record) live in b
 * until the next call.  Empties the batch.  A record that could not be encoded gets
 * EMSGSIZE or EINVAL as its result and is not sent.  An empty batch only moves last_rcvd.
 */
gboolean isd_reint_send(IsdReint *b, IsdCore *core, guint64 remote_recno, guint64 remote_offset,
			const struct izo_reint_result **ret_results, GError **error);
/*
 * The same without waiting: done gets 0, an errno, or ENOTCONN, and the results, which are
 * valid during the callback.  b is empty at once and can be filled again.
 */
typedef void (*IsdReintDone)(int error, const struct izo_reint_result *results, guint count,
			     gpointer data);
void isd_reint_submit(IsdReint *b, IsdCore *core, guint64 remote_recno, guint64 remote_offset,
		      IsdReintDone done, gpointer data);
struct izo_guard isd_guard_absent(void);
/*
 * "It is still this object", with more IZO_G_* in flags.  IZO_G_CTIME is left
 * out for directories: the log does not tell their change times.
 */
struct izo_guard isd_guard_object(const IsdObject *o, guint32 flags);

/*
 * core.c: end the program after the current callback; "" logs nothing.  A role
 * calls it when there is no use in going on (status 1).
 */
void isd_core_quit(IsdCore *core, int status, const char *format, ...) G_GNUC_PRINTF(3, 4);

/*
 * core.c: give back the own log up to there, where record recno ends.  The state
 * is made durable first, as it cannot be made again from what is left of the log.
 */
gboolean isd_core_give_back(IsdCore *core, guint64 offset, guint64 recno, GError **error);

/*
 * fault.c: a named point where a test can make the daemon die as by kill -9:
 * ISD_FAULT=name:N in the environment, at the Nth pass.  Costs a comparison.
 */
void isd_fault_point(const char *name);
extern gboolean isd_fault_armed;
#define isd_fault(name) do { if (G_UNLIKELY(isd_fault_armed)) isd_fault_point(name); } while (0)

/* log.c: one line per change of state; debug bits INFO 1 KML 2 UPCALL 4 HTTP 8 REINT 16 */
enum { ISD_D_INFO = 1, ISD_D_KML = 2, ISD_D_UPCALL = 4, ISD_D_HTTP = 8, ISD_D_REINT = 16 };
extern unsigned int isd_debug_bits;
void isd_log(int priority, const char *peer, guint64 recno, const char *format, ...) G_GNUC_PRINTF(4, 5);
#define isd_debug(bit, ...) do { if (G_UNLIKELY(isd_debug_bits & (bit))) isd_log(7, NULL, 0, __VA_ARGS__); } while (0)

#define ISD_PORT	8402	/* unless --port or HOST:PORT says otherwise */

/*
 * Roles.  status adds members to the JSON object that `izoctl status --json`
 * prints, after those of core.c (role, fileset, dir, log, applied, objects ...).
 * izoctl knows these (leave out what does not apply; times in seconds since 1970):
 *
 *   state: "attaching", "following", "offline", "serving" ...; reason: a sentence;
 *   since: time
 *   both: blocked: { recno, what, why } the record that blocks, absent if none does
 *   server: listen: "ADDRESS:PORT"
 *   client: server: "HOST:PORT"; progress: { objects, of_objects, bytes, of_bytes } of the attach;
 *     position: { offset, recno } applied of the server's log; server_end: { offset, recno };
 *     lag: { records, bytes, seconds } behind the server;
 *     pending: { records, bytes } of the own log that the server has not yet;
 *     conflicts: how many nobody has settled
 */
typedef struct {
	const char	*listen;	/* address, NULL: loopback */
	guint		port;
	gboolean	insecure;
	guint64		keep;		/* bytes of the log for peers that are behind; 0: default */
} IsdServerOptions;
typedef struct {
	const char	*server;	/* HOST[:PORT] */
	const char	*fset;		/* NULL: as the own fileset is called */
	const char	*conflicts;	/* file of policies, or NULL */
	gboolean	insecure;
} IsdClientOptions;

/*
 * start: the state is at core->applied, the log may have more: the role calls
 * isd_follow().  log_grew is called once after start, too, and the main loop runs then.
 */
gboolean isd_server_start(IsdCore *core, const IsdServerOptions *o, GError **error);
void isd_server_log_grew(IsdCore *core);
void isd_server_status(IsdCore *core, JsonBuilder *b);
/* One value, an array of { name, replica, address, position: { offset, recno }, lag: { records }, last_seen }. */
void isd_server_peers(IsdCore *core, JsonBuilder *b);
void isd_server_stop(IsdCore *core);

gboolean isd_client_start(IsdCore *core, const IsdClientOptions *o, GError **error);
void isd_client_log_grew(IsdCore *core);
void isd_client_status(IsdCore *core, JsonBuilder *b);
/* sync: done(TRUE) once all of both sides is on the other (izoctl sync). */
typedef void (*IsdSyncDone)(gboolean ok, const char *message, gpointer data);
void isd_client_sync(IsdCore *core, IsdSyncDone done, gpointer data);
/*
 * conflict_list.c.  Members "conflicts", an array of { conflict, kind, path, copy, ... }, from the number
 * behind `after` on, and "after" if there may be more.
 */
gboolean isd_client_conflicts(IsdCore *core, gint64 after, JsonBuilder *b, GError **error);
/* The conflict of that number or path (as typed, and by name_escape()); ISD_ERROR_REFUSED: why not. */
gboolean isd_client_resolve(IsdCore *core, const char *raw, const char *shown, const char *keep,
			    GError **error);
void isd_client_stop(IsdCore *core);

#endif
