/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside izoctl: the daemon's socket (daemon.c) and the status for people
 * (status.c).
 */
#ifndef IZOCTL_H
#define IZOCTL_H

#include <glib.h>
#include <json-glib/json-glib.h>

/* The number of the fileset mounted at dir, from its channel's path; -1 with *error. */
int izoctl_minor(const char *dir, GError **error);

/*
 * Send {"cmd": cmd} to the daemon of fileset N and hand each line of the answer to
 * each(), until it returns FALSE or there is an "ok" member.  timeout: seconds, 0: none.
 * Returns the last object, NULL with *error: G_IO_ERROR_NOT_FOUND no daemon runs,
 * G_IO_ERROR_TIMED_OUT.
 */
typedef void (*IzoctlLine)(JsonObject *line, gpointer data);
JsonObject *izoctl_ask(int minor, const char *cmd, guint timeout, IzoctlLine each,
		       gpointer data, GError **error);

/* What `izoctl status` prints without --json. */
void izoctl_print_status(JsonObject *o);
void izoctl_print_peers(JsonObject *o);

#endif
