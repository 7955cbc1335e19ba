// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fault injection: ISD_FAULT=name:N in the environment kills the daemon at the
 * Nth pass of the point called name, without any clean-up, as a crash would.
 */
#include "daemon.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

gboolean isd_fault_armed;
static char *fault_name;
static guint64 fault_left;

void isd_fault_init(void)
{
	const char *spec = g_getenv("ISD_FAULT");
	const char *colon = spec ? strrchr(spec, ':') : NULL;

	if (!spec || !*spec)
		return;
	fault_name = colon ? g_strndup(spec, colon - spec) : g_strdup(spec);
	fault_left = colon ? g_ascii_strtoull(colon + 1, NULL, 10) : 1;
	isd_fault_armed = TRUE;
}

void isd_fault_point(const char *name)
{
	if (strcmp(name, fault_name) || fault_left == 0 || --fault_left)
		return;
	kill(getpid(), SIGKILL);
}
