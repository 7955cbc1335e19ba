// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The code of the tracepoints in izo_trace.h.
 */
#define CREATE_TRACE_POINTS
#include "izo_trace.h"
