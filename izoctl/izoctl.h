/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside izoctl: the daemon's socket (daemon.c), what is printed for people
 * (status.c), conflicts (conflicts.c).
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
/* The same with what else the command needs. */
JsonObject *izoctl_request(int minor, JsonObject *request, guint timeout, IzoctlLine each,
			   gpointer data, GError **error);

/* What `izoctl status` prints without --json. */
void izoctl_print_status(JsonObject *o);
void izoctl_print_peers(JsonObject *o);
void izoctl_print_conflict(JsonObject *o);

/* conflicts.c: exit statuses */
int izoctl_conflicts(const char *dir, int minor, guint timeout, gboolean json);
int izoctl_resolve(const char *dir, int minor, const char *what, const char *keep, guint timeout,
		   gboolean json);

#endif
