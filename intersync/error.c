// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The error domain, in a file of its own because mod_intersync links the
 * state without the daemon.
 */
#include "error.h"

G_DEFINE_QUARK(isd-error-quark, isd_error)
