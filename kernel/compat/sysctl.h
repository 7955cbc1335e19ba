/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * /proc/sys.  Tables end with an empty entry, which counts before Linux 6.6 only;
 * later the size does.
 */
#ifndef INTERMEZZO_COMPAT_SYSCTL_H
#define INTERMEZZO_COMPAT_SYSCTL_H

#include <linux/sysctl.h>

#ifdef IZO_HAVE_REGISTER_SYSCTL_SZ
#define izo_register_sysctl(path, table, n) register_sysctl_sz(path, table, n)
#else
#define izo_register_sysctl(path, table, n) register_sysctl(path, table)
#endif

#ifdef IZO_HAVE_SYSCTL_CONST
typedef const struct ctl_table izo_ctl_table;
#else
typedef struct ctl_table izo_ctl_table;
#endif

#endif
