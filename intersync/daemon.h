/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside the daemon's frame: what main.c, core.c, channel.c, control.c, log.c
 * and fault.c have with each other.  The roles need core.h only.
 */
#ifndef ISD_DAEMON_H
#define ISD_DAEMON_H

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
/* State and log: load the base once, take in what the log has more. */
gboolean isd_core_load(IsdCore *core, GError **error);
/* Runs until isd_core_quit(); returns its status. */
int isd_core_run(IsdCore *core);
/* The role's callback on a growing log. */
void isd_core_log_grew(IsdCore *core);

/* control.c: the socket that izoctl talks to. */
struct IsdControl *isd_control_start(IsdCore *core, GError **error);
void isd_control_stop(struct IsdControl *c);

#endif
