/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The last_rcvd file: find a peer's slot, move it.  Written by the file system, read
 * by intersync and izoctl.
 */
#ifndef LIB_LAST_RCVD_H
#define LIB_LAST_RCVD_H

#include <stdint.h>

#include <intermezzo/last_rcvd.h>

struct last_rcvd {
	uint8_t		peer[16];
	uint64_t	remote_recno, remote_offset, local_recno;
	int64_t		time_sec;
};

/* 0; -ENOENT: no such peer; -errno.  A damaged slot counts as absent. */
int last_rcvd_get(int fd, const uint8_t peer[16], struct last_rcvd *ret);
/* Write lr into its slot, a free one for a new peer.  Not synced. */
int last_rcvd_set(int fd, const struct last_rcvd *lr);
/* Slot n: 1 used, 0 free or damaged, -ENODATA behind the end, -errno. */
int last_rcvd_slot(int fd, unsigned int n, struct last_rcvd *ret);

#endif
