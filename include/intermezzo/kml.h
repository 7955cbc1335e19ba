/* SPDX-License-Identifier: GPL-2.0-or-later WITH Linux-syscall-note */
/*
 * The modification log (KML): its format on disk and on the wire.
 *
 * Compiled by the kernel module, the FUSE file system and every program; only
 * fixed-size types are used here.  Everything is little-endian and 8-aligned.
 * doc/kml.md tells what each field means and which operation carries what.
 */
#ifndef INTERMEZZO_KML_H
#define INTERMEZZO_KML_H

#include <linux/types.h>

#define KML_MAGIC		"IZOKML\r\n"	/* 8 bytes, no NUL */
#define KML_VERSION		1
#define KML_HEADER_SIZE		4096		/* first record's offset */
#define KML_FSET_MAX		63		/* bytes of a fileset's name */

#define KML_REC_MAGIC		0x4b4d
#define KML_REC_MAX		(160 * 1024)	/* bytes of a record in a log */
#define KML_RANGES_MAX		64		/* then "all" */
#define KML_DATA_MAX		(64 * 1024)	/* bytes of KML_I_DATA */

/* The first block of a kml file; the rest of the block is zero. */
struct kml_header {
	__u8	magic[8];
	__le32	version;
	__le32	crc;		/* CRC-32C of this struct, this field zero */
	__le32	flags;		/* zero */
	__le32	pad;
	__u8	fileset_uuid[16];
	__u8	replica_uuid[16];
	__le64	epoch;		/* changes when the log begins anew */
	__le64	first_offset;	/* where the first record that is kept begins */
	__le64	first_recno;	/* and its number */
	__u8	fileset[64];	/* name, NUL-terminated */
};

/* Opcodes.  0-18 are those of 2002; the gaps were never logged. */
enum kml_opcode {
	KML_CREATE	= 1,
	KML_MKDIR	= 2,
	KML_UNLINK	= 3,
	KML_RMDIR	= 4,
	KML_CLOSE	= 5,
	KML_SYMLINK	= 6,
	KML_RENAME	= 7,
	KML_SETATTR	= 8,
	KML_LINK	= 9,
	KML_MKNOD	= 11,
	KML_SETXATTR	= 15,
	KML_REMOVEXATTR	= 16,
	KML_RESYNC	= 32,	/* object may differ from the log: look at it */
	KML_LOOK	= 34,	/* so it may here, after the machine stopped; not for peers */
	KML_CATALOG_END	= 33,	/* last record of a catalog, never in a log */
};

/* Record flags. */
#define KML_F_EXCHANGE		0x0001	/* RENAME swapped the two names */
#define KML_F_NOREPLACE		0x0002	/* RENAME was asked not to replace */
#define KML_F_RANGES_ALL	0x0004	/* CLOSE: any byte may have changed */
#define KML_F_RECOVERED		0x0008	/* made by recovery: who and when unknown */
#define KML_F_REPLACED		0x0010	/* CLOSE: ino is a new inode; OLD tells the one before */

/*
 * One record: this head, items, and an 8-byte trailer.  A reader takes
 * head_len from the record, so the head can grow at its end.
 */
struct kml_rec {
	__le32	len;		/* of all of it, a multiple of 8 */
	__le32	crc;		/* CRC-32C of all of it, this field zero */
	__le16	magic;
	__le16	head_len;
	__le16	opcode;
	__le16	flags;
	__le64	recno;		/* 1, 2, 3 ... without gaps */
	__le64	seq;		/* the LML's sequence number, for recovery */
	__le64	time_sec;	/* signed */
	__le32	time_nsec;
	__le32	pid;
	__le32	auid;		/* login uid, ~0 unknown */
	__le32	fsuid;
	__le32	fsgid;
	__le32	gen;
	__le64	ino;		/* the object */
	__le64	parent_ino;	/* the directory that holds NAME */
	__le64	tparent_ino;	/* RENAME, LINK: the directory that holds TNAME */
	__le32	parent_gen;
	__le32	tparent_gen;
};

struct kml_rec_tail {
	__le32	len;		/* as in the head: walk backwards */
	__le32	magic;		/* KML_REC_MAGIC */
};

/* An item: this, then len bytes, then zeros up to a multiple of 8. */
struct kml_item {
	__le16	type;
	__le16	pad;
	__le32	len;		/* of the data alone */
};

enum kml_item_type {
	KML_I_NAME	= 1,	/* name below parent, no NUL */
	KML_I_DIR	= 2,	/* path of parent when it was logged, "/a/b"; for people */
	KML_I_TNAME	= 3,	/* RENAME, LINK: the new name */
	KML_I_TDIR	= 4,	/* path of its directory */
	KML_I_ATTR	= 5,	/* struct kml_attr after the operation */
	KML_I_OLD	= 6,	/* struct kml_old: what was removed or replaced */
	KML_I_LINK	= 7,	/* SYMLINK: its text */
	KML_I_XATTR	= 8,	/* struct kml_xattr, name, value; may repeat */
	KML_I_RANGES	= 9,	/* array of struct kml_range, ascending, disjoint */
	KML_I_ORIGIN	= 10,	/* struct kml_origin: the change came from a peer */
	KML_I_PTIME	= 11,	/* struct kml_ptime: directories' mtimes after the operation */
	/* never in a log: on the wire and on the channel only */
	KML_I_DATA	= 128,	/* the whole content */
	KML_I_FILE	= 129,	/* name of a finished file in incoming/ */
	KML_I_VERSION	= 130,	/* struct kml_version */
	KML_I_REF	= 131,	/* struct kml_ref: whose numbers ino, parent_ino, tparent_ino are */
	KML_I_ALIAS	= 132,	/* CLOSE: path of another name of the object; may repeat */
};

struct kml_attr {
	__le32	valid;		/* KML_A_* that the operation set; 0 is "all" */
	__le32	mode;		/* type and permissions */
	__le32	uid;
	__le32	gid;
	__le32	nlink;
	__le32	rdev_major;
	__le32	rdev_minor;
	__le32	mtime_nsec;
	__le64	size;
	__le64	mtime_sec;	/* signed */
	__le64	ctime_sec;	/* signed; local, for guards */
	__le32	ctime_nsec;
	__le32	pad;
};

#define KML_A_MODE	0x01
#define KML_A_UID	0x02
#define KML_A_GID	0x04
#define KML_A_SIZE	0x08
#define KML_A_MTIME	0x10

struct kml_old {
	__le64	ino;
	__le32	gen;
	__le32	pad;
	struct kml_attr attr;
};

struct kml_xattr {
	__le32	value_len;
	__le16	name_len;
	__le16	pad;
	/* name, value: no NUL, no padding between */
};

struct kml_range {
	__le64	off;
	__le64	len;
};

struct kml_origin {
	__u8	replica[16];	/* the log that the change was first written to */
	__le64	recno;		/* its number there */
	__le64	ino;		/* and the object there */
	__le32	gen;
	__le32	pad;
};

struct kml_ptime {
	__le64	sec;		/* parent */
	__le64	tsec;		/* tparent, RENAME and LINK */
	__le32	nsec;
	__le32	tnsec;
};

struct kml_version {
	__le64	content;	/* number of the record that last changed content */
	__le64	attr;		/* ... mode, owner, xattrs */
};

/* Bits: this number is the sender's own, not the receiver's. */
#define KML_REF_OBJ	0x01
#define KML_REF_PARENT	0x02
#define KML_REF_TPARENT	0x04
#define KML_REF_OLD	0x08
struct kml_ref {
	__le32	own;
	__le32	pad;
};

#endif
