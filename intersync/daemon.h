/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside the daemon's frame: what main.c, core.c, channel.c, control.c, log.c
 * and fault.c have with each other.  The roles need core.h only.
 */
#ifndef ISD_DAEMON_H
#define ISD_DAEMON_H

#include <sys/stat.h>

#include "core.h"

void isd_fault_init(void);

/*
 * log.c.  Foreground: stderr.  Otherwise the journal, or syslog where there is none, and
 * <log directory>/<fileset>-<N>.log; isd_log_reopen() after it was moved away.
 */
void isd_log_init(gboolean foreground);
void isd_log_open(const char *fileset, guint minor);
void isd_log_reopen(void);
/* Errors no longer go to stderr: the program is in the background now. */
void isd_log_background(void);

/* channel.c; fd belongs to the channel from then on. */
struct IsdChannel *isd_channel_new(IsdCore *core, int fd);
void isd_channel_free(struct IsdChannel *c);
/* Keep a GROWN request out; the role hears of each growth. */
void isd_channel_watch_log(struct IsdChannel *c);

/* core.c */
IsdCore *isd_core_new(const char *dir, const char *name, gboolean is_server, GError **error);
void isd_core_free(IsdCore *core);
/*
 * A core without state, channel and role, for izoctl when no daemon runs; the
 * channel, which keeps a daemon away, is the caller's to close.
 */
IsdCore *isd_core_open(const char *dir, int *ret_channel, GError **error);
/* Make the state usable: base once, the position in the log; the role follows from there. */
gboolean isd_core_load(IsdCore *core, GError **error);
/* Runs until isd_core_quit(); returns its status. */
int isd_core_run(IsdCore *core);

/*
 * address.c: the host of HOST, HOST:PORT or [V6]:PORT, and its port if there is one; NULL: no port
 * number.  Does the host lead to this machine and nowhere else?
 */
char *isd_address_host(const char *address, guint *ret_port);
gboolean isd_address_is_loopback(const char *host);

/*
 * check.c: compare log, state and tree.  found gets one sentence per difference;
 * FALSE: the comparison itself failed.  Blocks; any thread, with its own connection.
 */
typedef struct {
	guint64	records, objects, names, differences;
} IsdCheckCounts;
typedef void (*IsdCheckFound)(const char *sentence, gpointer data);
gboolean isd_check(int root_fd, int meta_fd, IsdCheckFound found, gpointer data,
		   IsdCheckCounts *ret, GError **error);

/* The counts as members. */
void isd_check_report(const IsdCheckCounts *n, JsonBuilder *b);

/* tree.c: a directory of the tree by its path, or -1 with errno. */
int isd_tree_open_dir(int root_fd, const char *path);
/* As a record has them, all valid. */
void isd_tree_attrs_of(const struct stat *st, struct kml_attrs *ret);
/* Of extended attributes: do replicas share it? */
gboolean isd_tree_shares_xattr(const char *name);
/*
 * meet.c: what the record is about gets rows where the tree has it and the state does not.  A client's.
 */
gboolean isd_meet(IsdCore *core, const struct kml_record *r, GError **error);
/* What the tree has for this object by one of the names that the state knows. */
gboolean isd_tree_attrs(IsdCore *core, struct kml_oid oid, struct kml_attrs *ret,
			gboolean *ret_found, GError **error);

/* status.c */
void isd_core_status(IsdCore *core, JsonBuilder *b);
void isd_core_saw_log(IsdCore *core, const struct izo_pos *pos);
/* Members of the object that b is in; bytes that are no UTF-8 are replaced. */
void isd_json_text(JsonBuilder *b, const char *name, const char *value);
void isd_json_number(JsonBuilder *b, const char *name, guint64 value);

/* control.c: the socket that izoctl talks to. */
struct IsdControl *isd_control_start(IsdCore *core, GError **error);
void isd_control_stop(struct IsdControl *c);

#endif
