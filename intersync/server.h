/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside the server role: what server.c, httpd.c, gateway.c, peers.c and
 * serve_reint.c have with each other.  The rest of the daemon sees core.h only.
 */
#ifndef ISD_SERVER_H
#define ISD_SERVER_H

#include <sys/types.h>

#include "core.h"
#include "gate.h"

/* Who httpd's workers are. */
typedef struct {
	char	*user, *group;
	uid_t	uid;
	gid_t	gid;
} IsdAccount;

/*
 * gateway.c: the socket that mod_intersync asks on.  The handler appends the
 * reply's body and returns an HTTP status; GATE_WAIT comes to it as GATE_INFO when it
 * is due.  0: no reply.
 */
typedef struct IsdGateway IsdGateway;
typedef guint (*IsdGatewayFunc)(guint type, const guint8 *body, gsize len, GByteArray *reply,
				gpointer data);
IsdGateway *isd_gateway_new(const char *path, uid_t uid, IsdGatewayFunc func, gpointer data,
			    GError **error);
void isd_gateway_free(IsdGateway *g);
/* The log that clients may see ends at end now: answers those who wait for it. */
void isd_gateway_moved(IsdGateway *g, guint64 end);

/* httpd.c: the private httpd. */
typedef struct IsdHttpd IsdHttpd;
gboolean isd_httpd_account(IsdAccount *ret, GError **error);
void isd_account_clear(IsdAccount *a);
/* Writes its configuration, starts it, waits until it answers; restarts it when it dies. */
IsdHttpd *isd_httpd_start(IsdCore *core, const char *address, guint port,
			  const IsdAccount *account, const char *gateway, GError **error);
void isd_httpd_stop(IsdHttpd *h);
pid_t isd_httpd_pid(const IsdHttpd *h);
guint isd_httpd_restarts(const IsdHttpd *h);

/* peers.c: who has asked, and how far each has come. */
typedef struct {
	guint8		uuid[16];
	char		uuid_text[37];
	char		*name, *address;
	gint64		first_seen, last_seen;	/* seconds */
	guint64		offset, recno;		/* applied of our log */
	guint64		acked;			/* of its own records */
	gboolean	dirty;
} IsdPeer;
typedef struct IsdPeers IsdPeers;
IsdPeers *isd_peers_new(IsdState *state, GError **error);
/* Writes what has changed. */
void isd_peers_free(IsdPeers *p);
gboolean isd_peers_flush(IsdPeers *p, GError **error);
IsdPeer *isd_peers_seen(IsdPeers *p, const struct gate_peer *told, gboolean *ret_is_new);
/* NULL: it was never here. */
const IsdPeer *isd_peers_find(IsdPeers *p, const guint8 uuid[16]);
const char *isd_peers_name(IsdPeers *p, const guint8 uuid[16]);
/* Array of IsdPeer *, by name. */
GPtrArray *isd_peers_list(IsdPeers *p);

/* serve_reint.c: POST reint. */
typedef struct {
	guint64	done, stale, cancelled, failed, repeated;
} IsdReintCounts;
/*
 * Judge and apply the records in body, append an answer for each to reply.
 * Returns an HTTP status; from 400 on reply holds a sentence instead.
 */
guint isd_serve_reint(IsdCore *core, const guint8 peer[16], const char *peer_name, guint64 base,
		      const guint8 *body, gsize len, GByteArray *reply, IsdReintCounts *counts);
/*
 * SYNC and take in the log; then, if the object differs from its row in nothing but
 * ctime (changed by something that is not logged), take that over.
 */
gboolean isd_serve_refresh(IsdCore *core, struct kml_oid oid, GError **error);

/* pages.c: what a server tells about itself. */
typedef struct {
	IsdCore		*core;
	IsdPeers	*peers;
	IsdHttpd	*httpd;
	char		*address;
	guint		port;
	gint64		since;		/* seconds since 1970 */
	guint64		end, recno;	/* what clients may see: committed in the state */
	char		*blocked;	/* why changes are not seen, or NULL */
	IsdReintCounts	counts;
} IsdServerView;

/* keep.c: give back what is not to be kept of the log; keep: bytes for peers that are behind. */
void isd_keep_log(const IsdServerView *v, guint64 keep);

void isd_pages_html(const IsdServerView *v, GByteArray *reply);
void isd_pages_metrics(const IsdServerView *v, GByteArray *reply);
/* Members of an object; one value. */
void isd_pages_status(const IsdServerView *v, JsonBuilder *b);
void isd_pages_peers(const IsdServerView *v, JsonBuilder *b);

#endif
