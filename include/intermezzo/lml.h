/* SPDX-License-Identifier: GPL-2.0-or-later WITH Linux-syscall-note */
/*
 * The local modification log (LML) of the FUSE file system: what is in flight,
 * what is open for write, what is not safely in the KML yet.
 *
 * A file of fixed size that is mapped into memory: a header, a table of files that
 * are open for write and changed, a ring of entries.  See doc/lml.md.
 */
#ifndef INTERMEZZO_LML_H
#define INTERMEZZO_LML_H

#include <linux/types.h>

#define LML_MAGIC		"IZOLML\r\n"	/* 8 bytes, no NUL */
#define LML_VERSION		1
#define LML_HEADER_SIZE		4096
#define LML_ALIGN		256		/* of entries in the ring; more than their head */

/* Where the ring begins and up to where the KML is durable; two, used in turn. */
struct lml_state {
	__le64	serial;		/* the higher one counts */
	__le64	tail;		/* position of the oldest entry; never wraps */
	__le64	seq;		/* and its sequence number */
	__le64	kml_offset;	/* the KML is durable up to here */
	__le64	kml_recno;
	__le32	flags;		/* LML_S_* */
	__le32	crc;		/* CRC-32C of this struct, this field zero */
};

#define LML_S_CLEAN	0x0001	/* unmounted; nothing is in the ring or the table */

/* The first block; zero behind it. */
struct lml_header {
	__u8	magic[8];
	__le32	version;
	__le32	crc;		/* CRC-32C of the fields up to states, this field zero */
	__u8	replica_uuid[16];
	__le64	epoch;		/* of the kml */
	__le64	openw_offset;
	__le64	openw_slots;
	__le64	ring_offset;
	__le64	ring_size;
	struct lml_state states[2];
};

/* A file handle of the lower file system; len 0: none. */
struct lml_handle {
	__u8	len;
	__u8	type;
	__u8	bytes[30];
};

/* One of the table: a file that changed since its last CLOSE. */
struct lml_openw {
	__le32	state;		/* LML_O_* */
	__le32	gen;
	__le64	ino;
	__le64	old_size;
	__le64	close_seq;	/* LML_O_CLOSED: the entry that holds its CLOSE; 0: none */
	struct lml_handle handle;
	__le32	pad;
	__le32	path_len;	/* only where there are no handles */
	__u8	path[184];	/* from the root, "/a/b" */
};

#define LML_O_FREE	0
#define LML_O_OPEN	1
#define LML_O_CLOSED	2	/* free once close_seq is durable in the KML */

/*
 * An entry of the ring: this, handles of parent, tparent and object, the
 * intent (a record without what is only known afterwards), the completed record.
 */
struct lml_entry {
	__le32	magic;		/* LML_ENTRY_MAGIC */
	__le32	len;		/* of all of it, a multiple of LML_ALIGN */
	__le64	seq;		/* 1, 2, 3 ... */
	__le32	state;		/* LML_E_* */
	__le32	flags;		/* LML_F_* */
	__le32	intent_len;
	__le32	record_len;	/* LML_E_DONE: of the completed record behind the intent */
	__le32	reint;		/* 1 + index in the batch, or 0 */
	__le32	crc;		/* CRC-32C of handles and intent */
	__le64	kml_room;	/* reserved in the KML */
	__u8	pad[16];
	struct lml_handle handles[3];
};

#define LML_ENTRY_MAGIC	0x4c4d

#define LML_E_RESERVED	0	/* nothing has happened yet */
#define LML_E_INTENT	1	/* it may have happened */
#define LML_E_DONE	2	/* it has, and the record is complete */
#define LML_E_ABORTED	3	/* it failed and changed nothing */
#define LML_E_PAD	4	/* up to the ring's end */

#define LML_F_NOLOG	0x0001	/* gets no record: from a peer, on a client */
#define LML_F_REINT	0x0002	/* of a peer: completed or undone by recovery */

/*
 * The file "changing" beside the LML: directories and files that changed, or are
 * about to, since tree and log were last made durable together.  A header in
 * each of the first two blocks, the sound one with the higher serial counts; then slots.
 */
#define CHG_MAGIC		"IZOCHG\r\n"	/* 8 bytes, no NUL */
#define CHG_VERSION		1
#define CHG_BLOCK		4096

struct chg_header {
	__u8	magic[8];
	__le32	version;
	__le32	crc;		/* CRC-32C of this struct, this field zero */
	__u8	replica_uuid[16];
	__le64	epoch;		/* of the kml */
	__le64	serial;
	__u8	boot_id[16];	/* of the kernel that it was mounted with */
	__le64	kml_offset;	/* the tree has all that the KML says before this */
	__le32	slots;
	__le32	pad;
};

struct chg_slot {
	__le64	ino;		/* 0: free */
	__le32	gen;
	__le32	depth;		/* directories so far below a directory belong to it */
	struct lml_handle handle;
	__u8	pad[16];
};

#endif
