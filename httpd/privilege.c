/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the workers of an httpd that serves filesets may do: read every file
 * (CAP_DAC_READ_SEARCH), nothing else; an httpd without filesets is left as it is.  mod_unixd changes the user in the hook drop_privileges; the first
 * function here runs before it and makes the capabilities survive, the
 * second one runs after it and drops all but that one.
 */
#include "mod_intersync.h"

#include <linux/capability.h>
#include <mpm_common.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static pid_t parent;

static int set_caps(uint64_t caps)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[2] = {
		{ .effective = caps, .permitted = caps },
		{ .effective = caps >> 32, .permitted = caps >> 32 },
	};

	return syscall(SYS_capset, &h, d);
}

static int keep_caps(apr_pool_t *pool, server_rec *s)
{
	if (geteuid() == 0 && mis_serves(s) && prctl(PR_SET_KEEPCAPS, 1)) {
		ap_log_error(APLOG_MARK, APLOG_CRIT, errno, s,
			     "intersync: cannot keep capabilities");
		return HTTP_INTERNAL_SERVER_ERROR;
	}
	return OK;
}

static int drop_bounding_set(void)
{
	int cap;

	for (cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
		if (prctl(PR_CAPBSET_DROP, cap))
			return -1;
	return 0;
}

/* A worker does not outlive the httpd that watches it. */
static int die_with_parent(void)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL))
		return -1;
	return getppid() == parent ? 0 : -1;
}

static int drop_caps(apr_pool_t *pool, server_rec *s)
{
	const uint64_t keep = 1ULL << CAP_DAC_READ_SEARCH;

	if (!mis_serves(s))
		return OK;
	if (die_with_parent())
		return HTTP_INTERNAL_SERVER_ERROR;
	if (geteuid() == 0 || prctl(PR_GET_KEEPCAPS) == 0)
		return OK;
	if (set_caps(keep | 1ULL << CAP_SETPCAP) || drop_bounding_set() || set_caps(keep) ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_KEEPCAPS, 0)) {
		ap_log_error(APLOG_MARK, APLOG_CRIT, errno, s,
			     "intersync: cannot reduce the worker to CAP_DAC_READ_SEARCH: "
			     "intersync has to be started with all capabilities of root");
		return HTTP_INTERNAL_SERVER_ERROR;
	}
	return OK;
}

static int remember_parent(apr_pool_t *conf, apr_pool_t *log, apr_pool_t *temp, server_rec *s)
{
	parent = getpid();
	return OK;
}

void mis_privilege_hooks(apr_pool_t *pool)
{
	ap_hook_post_config(remember_parent, NULL, NULL, APR_HOOK_MIDDLE);
	ap_hook_drop_privileges(keep_caps, NULL, NULL, APR_HOOK_REALLY_FIRST);
	ap_hook_drop_privileges(drop_caps, NULL, NULL, APR_HOOK_REALLY_LAST);
}
