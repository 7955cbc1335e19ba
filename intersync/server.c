// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The server role: makes the fileset readable through a private httpd, and
 * answers what mod_intersync asks over the gateway.  Everything runs in the main
 * loop; what clients may see is what the state has committed.
 */
#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "util.h"

#define PEERS_FLUSH	10		/* seconds */
#define FULL_RETRY	2		/* seconds until a full disk is tried again */
#define KEEP_DEFAULT	(1ULL << 30)	/* bytes */
#define SWEEP		3600		/* seconds between looks at incoming/ */
#define UPLOAD_AGE	(7 * 86400)	/* seconds without a write: nobody comes back */

typedef struct {
	IsdServerView	v;
	IsdAccount	account;
	IsdGateway	*gateway;
	guint64		keep;		/* bytes of the log, for peers that are behind */
	guint		flush_timer, sweep_timer, full_timer, moved_idle;
} IsdServer;

static gboolean tell_moved(gpointer data)
{
	IsdServer *s = data;

	s->moved_idle = 0;
	isd_gateway_moved(s->gateway, s->v.end);
	return G_SOURCE_REMOVE;
}

/* What is committed may be seen.  Those who wait are told from the main loop. */
static gboolean publish(IsdServer *s, GError **error)
{
	guint64 recno;

	if (!isd_state_get_u64(s->v.core->state, "local_recno", &recno, error))
		return FALSE;
	if (s->v.core->applied == s->v.end)
		return TRUE;
	s->v.end = s->v.core->applied;
	s->v.recno = recno;
	if (s->gateway && !s->moved_idle)
		s->moved_idle = g_idle_add(tell_moved, s);
	return TRUE;
}

static gboolean follow(IsdServer *s, GError **error)
{
	return isd_follow(s->v.core, NULL, error) && publish(s, error);
}

static void log_failure(const char *what, GError *error)
{
	isd_log(LOG_ERR, NULL, 0, "%s: %s", what, error->message);
}

static gboolean try_again(gpointer data)
{
	IsdServer *s = data;

	s->full_timer = 0;
	isd_server_log_grew(s->v.core);
	return G_SOURCE_REMOVE;
}

/* Clients see the log up to here until there is room for the state again. */
static void disk_full(IsdServer *s, const char *message)
{
	if (!s->v.blocked) {
		isd_log(LOG_ERR, NULL, 0, "%s: clients do not see changes until there is room",
			message);
		s->v.blocked = g_strdup(message);
	}
	if (!s->full_timer)
		s->full_timer = g_timeout_add_seconds(FULL_RETRY, try_again, s);
}

void isd_server_log_grew(IsdCore *core)
{
	IsdServer *s = core->role;
	g_autoptr(GError) error = NULL;

	if (follow(s, &error)) {
		if (s->v.blocked)
			isd_log(LOG_NOTICE, NULL, 0, "there is room for the state again");
		g_clear_pointer(&s->v.blocked, g_free);
	} else if (g_error_matches(error, ISD_ERROR, ISD_ERROR_NOSPC)) {
		disk_full(s, error->message);
	} else {
		isd_core_quit(core, 1, "%s", error->message);
	}
}

static guint sentence(GByteArray *reply, guint status, const char *text)
{
	g_byte_array_append(reply, (const guint8 *) text, strlen(text));
	return status;
}

static guint give_info(IsdServer *s, GByteArray *reply)
{
	const struct izo_info *i = &s->v.core->info;
	struct gate_info info = {
		.epoch = le64toh(i->epoch),
		.first_offset = le64toh(i->first_offset),
		.end_offset = s->v.end,
		.last_recno = s->v.recno,
		.log_end = MAX(s->v.core->log_end, s->v.end),
	};

	memcpy(info.fileset_uuid, i->fileset_uuid, 16);
	memcpy(info.replica_uuid, i->replica_uuid, 16);
	g_strlcpy(info.name, s->v.core->name, sizeof(info.name));
	g_byte_array_append(reply, (guint8 *) &info, sizeof(info));
	return 200;
}

static guint take_peer(IsdServer *s, const guint8 *body, gsize len)
{
	struct gate_peer told;
	gboolean is_new;
	IsdPeer *p;

	if (len != sizeof(told))
		return 0;
	memcpy(&told, body, len);
	told.name[sizeof(told.name) - 1] = 0;
	told.address[sizeof(told.address) - 1] = 0;
	p = isd_peers_seen(s->v.peers, &told, &is_new);
	if (is_new)
		isd_log(LOG_INFO, p->name, 0, "first request, from %s, replica %s", p->address,
			p->uuid_text);
	return 0;
}

static guint take_reint(IsdServer *s, const guint8 *body, gsize len, GByteArray *reply)
{
	g_autoptr(GError) error = NULL;
	struct gate_reint head;
	guint status;

	if (len < sizeof(head))
		return sentence(reply, 400, "too short");
	memcpy(&head, body, sizeof(head));
	status = isd_serve_reint(s->v.core, head.peer, isd_peers_name(s->v.peers, head.peer),
				 head.base, body + sizeof(head), len - sizeof(head), reply,
				 &s->v.counts);
	if (!publish(s, &error))
		log_failure("reint", error);
	return status;
}

static guint check_object(IsdServer *s, const guint8 *body, gsize len)
{
	g_autoptr(GError) error = NULL;
	struct gate_check check;

	if (len != sizeof(check))
		return 400;
	memcpy(&check, body, len);
	if (isd_serve_refresh(s->v.core, (struct kml_oid) { check.ino, check.gen }, &error) &&
	    publish(s, &error))
		return 200;
	log_failure("check", error);
	return 500;
}

static guint handle(guint type, const guint8 *body, gsize len, GByteArray *reply, gpointer data)
{
	IsdServer *s = data;

	switch (type) {
	case GATE_INFO:
		return give_info(s, reply);
	case GATE_PEER:
		return take_peer(s, body, len);
	case GATE_REINT:
		return take_reint(s, body, len, reply);
	case GATE_CHECK:
		return check_object(s, body, len);
	case GATE_STATUS:
		isd_pages_html(&s->v, reply);
		return 200;
	case GATE_METRICS:
		isd_pages_metrics(&s->v, reply);
		return 200;
	default:
		return sentence(reply, 400, "unknown request");
	}
}

static gboolean flush_peers(gpointer data)
{
	IsdServer *s = data;
	g_autoptr(GError) error = NULL;

	if (!isd_peers_flush(s->v.peers, &error))
		log_failure("peers", error);
	else
		isd_keep_log(&s->v, s->keep);
	return G_SOURCE_CONTINUE;
}

/* "<uuid>-<name>": what a peer has uploaded; other files are not ours. */
static gboolean is_upload(const char *name)
{
	return strlen(name) > 37 && name[8] == '-' && name[13] == '-' && name[18] == '-' &&
	       name[23] == '-' && name[36] == '-';
}

/*
 * The peer knows the fate of the record that it is for: "<uuid>-all<recno>-...", as
 * clients name them.  Other names have only their age.
 */
static gboolean is_spent(IsdServer *s, const char *name)
{
	const char *number = name + 37 + strspn(name + 37, "abcdefghijklmnopqrstuvwxyz");
	guint64 recno = g_ascii_strtoull(number, NULL, 10);
	g_autofree char *text = g_strndup(name, 36);
	guint8 uuid[16];
	const IsdPeer *p = uuid_parse(text, uuid) ? isd_peers_find(s->v.peers, uuid) : NULL;

	return p && recno && recno <= p->acked;
}

/* Uploads that nobody will use. */
static gboolean sweep(gpointer data)
{
	IsdServer *s = data;
	int fd = s->v.core->incoming_fd;
	g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
	g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
	gint64 now = g_get_real_time() / G_USEC_PER_SEC;
	const char *name;

	while (dir && (name = g_dir_read_name(dir))) {
		struct stat st;

		if (is_upload(name) && !fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) &&
		    (st.st_mtime < now - UPLOAD_AGE || is_spent(s, name)))
			unlinkat(fd, name, 0);
	}
	return G_SOURCE_CONTINUE;
}

static gboolean is_loopback(const struct sockaddr *a)
{
	const struct sockaddr_in *in = (const void *) a;
	const struct sockaddr_in6 *in6 = (const void *) a;

	if (a->sa_family == AF_INET)
		return ntohl(in->sin_addr.s_addr) >> 24 == 127;
	return a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
}

/* A numeric address; plain HTTP leaves this machine only where it was asked for. */
static char *listen_address(const IsdServerOptions *o, GError **error)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
	const char *name = o->listen && *o->listen ? o->listen : "127.0.0.1";
	char text[NI_MAXHOST] = "";
	gboolean loopback;
	struct addrinfo *ai;
	int rc = getaddrinfo(name, NULL, &hints, &ai);

	if (rc) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_FATAL, "%s: %s", name, gai_strerror(rc));
		return NULL;
	}
	loopback = is_loopback(ai->ai_addr);
	getnameinfo(ai->ai_addr, ai->ai_addrlen, text, sizeof(text), NULL, 0, NI_NUMERICHOST);
	freeaddrinfo(ai);
	if (loopback || o->insecure)
		return g_strdup(text);
	g_set_error(error, ISD_ERROR, ISD_ERROR_FATAL,
		    "%s: without TLS everybody on the network could read and change the fileset: "
		    "listen on 127.0.0.1, or say --insecure", name);
	return NULL;
}

/* What httpd's workers need: to read the state, to write uploads, to reach the gateway. */
static gboolean share(IsdServer *s, GError **error)
{
	IsdCore *core = s->v.core;

	if (!isd_state_share(core->state, s->account.uid, s->account.gid, error))
		return FALSE;
	if (fchown(core->incoming_fd, s->account.uid, s->account.gid) == 0)
		return TRUE;
	g_set_error(error, ISD_ERROR, ISD_ERROR_FATAL, "%s: incoming: %s", core->dir,
		    g_strerror(errno));
	return FALSE;
}

static char *run_path(IsdCore *core, const char *name, GError **error)
{
	g_autofree char *dir = g_strdup_printf("%s/%u", ISD_RUN_DIR, le32toh(core->info.minor));

	if (g_mkdir_with_parents(dir, 0711) == 0)
		return g_build_filename(dir, name, NULL);
	g_set_error(error, ISD_ERROR, ISD_ERROR_FATAL, "%s: %s", dir, g_strerror(errno));
	return NULL;
}

static gboolean start(IsdServer *s, const IsdServerOptions *o, GError **error)
{
	IsdCore *core = s->v.core;
	g_autofree char *gateway = NULL;

	s->v.port = o->port ? o->port : ISD_PORT;
	s->v.address = listen_address(o, error);
	if (!s->v.address || !isd_httpd_account(&s->account, error))
		return FALSE;
	gateway = run_path(core, "gateway", error);
	if (!gateway || !follow(s, error) || !share(s, error))
		return FALSE;
	s->v.peers = isd_peers_new(core->state, error);
	if (!s->v.peers)
		return FALSE;
	s->gateway = isd_gateway_new(gateway, s->account.uid, handle, s, error);
	if (!s->gateway)
		return FALSE;
	s->v.httpd = isd_httpd_start(core, s->v.address, s->v.port, &s->account, gateway, error);
	if (!s->v.httpd)
		return FALSE;
	s->flush_timer = g_timeout_add_seconds(PEERS_FLUSH, flush_peers, s);
	sweep(s);
	s->sweep_timer = g_timeout_add_seconds(SWEEP, sweep, s);
	return TRUE;
}

gboolean isd_server_start(IsdCore *core, const IsdServerOptions *o, GError **error)
{
	IsdServer *s = g_new0(IsdServer, 1);

	s->v.core = core;
	s->keep = o->keep ? o->keep : KEEP_DEFAULT;
	s->v.since = g_get_real_time() / G_USEC_PER_SEC;
	core->role = s;
	if (!start(s, o, error)) {
		isd_server_stop(core);
		return FALSE;
	}
	isd_log(LOG_INFO, NULL, 0, "serving on %s port %u, log at record %" G_GUINT64_FORMAT,
		s->v.address, s->v.port, s->v.recno);
	return TRUE;
}

void isd_server_status(IsdCore *core, JsonBuilder *b)
{
	IsdServer *s = core->role;

	isd_pages_status(&s->v, b);
}

void isd_server_peers(IsdCore *core, JsonBuilder *b)
{
	IsdServer *s = core->role;

	isd_pages_peers(&s->v, b);
}

void isd_server_stop(IsdCore *core)
{
	IsdServer *s = core->role;

	if (!s)
		return;
	core->role = NULL;
	if (s->flush_timer)
		g_source_remove(s->flush_timer);
	if (s->sweep_timer)
		g_source_remove(s->sweep_timer);
	if (s->full_timer)
		g_source_remove(s->full_timer);
	if (s->moved_idle)
		g_source_remove(s->moved_idle);
	isd_gateway_free(s->gateway);	/* ends what waits, so that httpd ends quickly */
	isd_httpd_stop(s->v.httpd);
	isd_peers_free(s->v.peers);
	isd_account_clear(&s->account);
	g_free(s->v.address);
	g_free(s->v.blocked);
	g_free(s);
}
