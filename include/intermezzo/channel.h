/* SPDX-License-Identifier: GPL-2.0-or-later WITH Linux-syscall-note */
/*
 * The channel between a mounted file system and intersync.
 *
 * One message per read or write: on /dev/intermezzoN (kernel module) or on a
 * SOCK_SEQPACKET socket (FUSE).  Every exchange is a request of the daemon and
 * one reply with the same id; replies may come in any order.  See
 * doc/channel.md.
 */
#ifndef INTERMEZZO_CHANNEL_H
#define INTERMEZZO_CHANNEL_H

#include <linux/types.h>

#define IZO_CHANNEL_VERSION	1
#define IZO_MSG_MAX		(512 * 1024)	/* bytes of one message */

/* getxattr() of the mount's root says where the channel is; root only */
#define IZO_XATTR_CHANNEL	"trusted.intermezzo.channel"
#define IZO_XATTR_FILESET	"trusted.intermezzo.fileset"

enum izo_msg_type {
	IZO_MSG_INFO	= 1,	/* reply: struct izo_info; FUSE adds the lower root's descriptor (SCM_RIGHTS) */
	IZO_MSG_GROWN	= 2,	/* struct izo_pos: answered once the log ends behind it */
	IZO_MSG_REINT	= 3,	/* struct izo_reint and entries: apply them */
	IZO_MSG_SYNC	= 4,	/* log what is in flight; reply: struct izo_pos */
	IZO_MSG_PUNCH	= 5,	/* struct izo_pos: give back the log before it */
};

struct izo_msg {
	__le32	len;		/* of all of it */
	__le16	type;
	__le16	flags;		/* IZO_MSG_F_* */
	__le64	id;
	__le32	error;		/* reply: 0 or an errno, positive */
	__le32	pad;
};

#define IZO_MSG_F_DURABLE	0x0001	/* SYNC: also fsync log and data */

struct izo_pos {
	__le64	offset;		/* in the KML */
	__le64	recno;		/* last record before offset */
};

struct izo_info {
	__le32	version;
	__le32	flags;		/* IZO_INFO_F_* */
	__u8	fileset_uuid[16];
	__u8	replica_uuid[16];
	__u8	fileset[64];	/* NUL-terminated */
	__u8	cache_type[16];	/* lower file system, NUL-terminated */
	__le64	epoch;
	__le64	first_offset;
	__le64	end_offset;	/* whole records end here */
	__le64	last_recno;
	__le64	root_ino;
	__le32	root_gen;
	__le32	minor;		/* the N of /dev/intermezzoN and /etc/intermezzo-N */
};

#define IZO_INFO_F_FUSE		0x0001

/*
 * REINT: struct izo_reint, then count entries, each of them
 * struct izo_reint_entry, an encoded struct kml_rec, 8-aligned.
 * The reply: struct izo_pos, then count times struct izo_reint_result.
 */
struct izo_reint {
	__le32	count;
	__le32	flags;		/* IZO_REINT_F_* */
	__u8	peer[16];	/* whose records these are: last_rcvd */
	__le64	remote_recno;	/* last_rcvd after this batch; 0: leave it */
	__le64	remote_offset;
};

#define IZO_REINT_F_LOG		0x0001	/* log them, with ORIGIN (server) */

struct izo_guard {
	__le64	ino;
	__le32	gen;
	__le32	flags;		/* IZO_G_* */
	__le64	ctime_sec;
	__le32	ctime_nsec;
	__le32	pad;
};

#define IZO_G_ABSENT	0x0001	/* the name must not exist */
#define IZO_G_INO	0x0002	/* the name must be this inode */
#define IZO_G_CTIME	0x0004	/* and have this change time */
#define IZO_G_NOWRITER	0x0008	/* and nobody may hold it open for write */

struct izo_reint_entry {
	__le32	len;		/* with the record, a multiple of 8 */
	__le32	flags;		/* IZO_RE_* */
	struct izo_guard guard;	/* of the object, or of the name to be made */
	struct izo_guard tguard;/* RENAME: of the name it is moved to */
};

#define IZO_RE_PATCH	0x0001	/* FILE holds only the record's RANGES */
#define IZO_RE_THERE	0x0002	/* it is so already: only log it (needs IZO_REINT_F_LOG) */

struct izo_reint_result {
	__le32	error;		/* 0; ESTALE: a guard did not hold; ECANCELED: not tried; or another errno */
	__le32	gen;
	__le64	ino;		/* the object now; 0: absent */
	__le64	recno;		/* its record here; without IZO_REINT_F_LOG the SEQ it comes behind */
	__le64	ctime_sec;	/* the object's change time now */
	__le32	ctime_nsec;
	__le32	tgen;
	__le64	tino;		/* ESTALE of RENAME: what is at the new name */
};

#endif
