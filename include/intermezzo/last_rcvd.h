/* SPDX-License-Identifier: GPL-2.0-or-later WITH Linux-syscall-note */
/*
 * last_rcvd: per peer, the last of its records that was applied here.
 *
 * A file of slots, each written in place with one write.  The file system
 * moves a slot with the REINT batch that it belongs to.  See doc/last_rcvd.md.
 */
#ifndef INTERMEZZO_LAST_RCVD_H
#define INTERMEZZO_LAST_RCVD_H

#include <linux/types.h>

#define LAST_RCVD_MAGIC		0x52435631	/* "1VCR" */

struct last_rcvd_slot {
	__le32	magic;		/* 0: the slot is free */
	__le32	crc;		/* CRC-32C of the slot, this field zero */
	__u8	peer[16];	/* the peer's replica uuid */
	__le64	remote_recno;	/* its last record applied here */
	__le64	remote_offset;	/* where the next one begins in its log */
	__le64	local_recno;	/* the last record here that it caused, or 0 */
	__le64	time_sec;
	__le64	pad;
};

#endif
