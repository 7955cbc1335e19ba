/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The error domain of intersync and of what is built from its state
 * (mod_intersync).
 */
#ifndef ISD_ERROR_H
#define ISD_ERROR_H

#include <glib.h>

#define ISD_ERROR isd_error_quark()
GQuark isd_error_quark(void);

typedef enum {
	ISD_ERROR_FAILED,
	ISD_ERROR_STALE,	/* a guard or a version did not hold */
	ISD_ERROR_EPOCH,	/* 409 */
	ISD_ERROR_GONE,		/* 410 */
	ISD_ERROR_BUSY,		/* 425 */
	ISD_ERROR_NETWORK,	/* try again later */
	ISD_ERROR_PROTOCOL,	/* the peer sends nonsense */
	ISD_ERROR_NOSPC,
	ISD_ERROR_DAMAGED,	/* the state is no database (any more) */
	ISD_ERROR_FATAL,	/* no use in going on: wrong fileset ... */
	ISD_ERROR_REFUSED,	/* what somebody asked for cannot be done as things are */
} IsdError;

#endif
