// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Points where tests let the file system die as kill -9 would: --fault=NAME:N
 * ends the process at the Nth passage of the point called NAME.
 */
#include <config.h>

#include "fs.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool fault_armed;

static char *fault_name;
static atomic_long fault_left;

int fault_parse(const char *arg)
{
	const char *colon = strrchr(arg, ':');
	char *end;
	long n;

	if (!colon || colon == arg)
		return -EINVAL;
	n = strtol(colon + 1, &end, 10);
	if (*end || n < 1)
		return -EINVAL;
	free(fault_name);
	fault_name = strndup(arg, colon - arg);
	if (!fault_name)
		return -ENOMEM;
	fault_left = n;
	fault_armed = true;
	return 0;
}

void fault_hit(const char *name)
{
	if (strcmp(name, fault_name) == 0 && atomic_fetch_sub(&fault_left, 1) == 1)
		kill(getpid(), SIGKILL);
}
