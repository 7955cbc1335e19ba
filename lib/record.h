/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * KML records in memory: one struct, encoded to and decoded from the format
 * of <intermezzo/kml.h>.  No allocation, no I/O: the kernel module compiles
 * record.c as it is.
 */
#ifndef LIB_RECORD_H
#define LIB_RECORD_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#endif

#include <intermezzo/kml.h>

/* An object of one replica: inode number and generation.  ino 0: none. */
struct kml_oid {
	uint64_t	ino;
	uint32_t	gen;
};

/* Bytes somewhere else; ptr NULL: the item is not there.  Not terminated. */
struct kml_str {
	const char	*ptr;
	size_t		len;
};

struct kml_time {
	int64_t		sec;
	uint32_t	nsec;
};

/* struct kml_attr in the host's byte order */
struct kml_attrs {
	uint32_t	valid;
	uint32_t	mode;
	uint32_t	uid;
	uint32_t	gid;
	uint32_t	nlink;
	uint32_t	rdev_major;
	uint32_t	rdev_minor;
	uint64_t	size;
	struct kml_time	mtime;
	struct kml_time	ctime;
};

/*
 * A record.  All pointers lead into the caller's memory (encode) or into the
 * decoded buffer (decode) and live as long as that.
 */
struct kml_record {
	uint16_t	opcode;
	uint16_t	flags;
	uint64_t	recno;
	uint64_t	seq;
	struct kml_time	time;
	uint32_t	pid, auid, fsuid, fsgid;
	struct kml_oid	obj, parent, tparent;

	struct kml_str	name, dir, tname, tdir, link;
	bool		has_attr, has_old, has_ranges, has_origin, has_version, has_ptime;
	struct kml_time	ptime, tptime;	/* mtimes of parent and tparent */
	struct kml_attrs attr;
	struct kml_oid	old;
	struct kml_attrs old_attr;
	const struct kml_range *ranges;	/* as stored: little-endian */
	unsigned int	n_ranges;
	const void	*xattrs;	/* raw KML_I_XATTR items, see below */
	size_t		xattrs_len;
	uint8_t		origin_replica[16];
	uint64_t	origin_recno;
	struct kml_oid	origin_obj;
	const void	*aliases;	/* raw KML_I_ALIAS items: channel only */
	size_t		aliases_len;
	/* wire and channel only */
	struct kml_str	data, file;
	uint64_t	version_content, version_attr;
	uint32_t	ref_own;	/* KML_REF_* */
};

/* Does the operation make an object? */
static inline bool kml_makes(unsigned int opcode)
{
	return opcode == KML_CREATE || opcode == KML_MKDIR || opcode == KML_SYMLINK ||
	       opcode == KML_MKNOD;
}

/* Is it about two names: name in dir and tname in tdir? */
static inline bool kml_has_target(unsigned int opcode)
{
	return opcode == KML_RENAME || opcode == KML_LINK;
}

/* The most bytes that kml_encode() will need for r. */
size_t kml_encoded_size(const struct kml_record *r);

/*
 * Encode r into buf.  Returns the record's length (a multiple of 8), -ENOSPC
 * if size is too small, -EINVAL for a record that the format cannot hold.
 */
ssize_t kml_encode(void *buf, size_t size, const struct kml_record *r);

/*
 * Decode and check the record at buf.  Returns its length, -EAGAIN if size
 * ends within it, -EBADMSG if it is damaged.  Unknown items are skipped; an
 * unknown opcode is no error.  Item contents are checked: lengths, ascending
 * disjoint ranges, names without '/' and NUL and neither empty, "." nor "..".
 */
ssize_t kml_decode(const void *buf, size_t size, struct kml_record *r);

/* Give an encoded record its final number (and seq) and checksum. */
void kml_seal(void *rec, uint64_t recno, uint64_t seq);

/*
 * xattr blobs (r->xattrs): append one item, buf NULL only measures.
 * Returns the bytes the item takes, -ENOSPC or -EINVAL.
 */
ssize_t kml_xattr_put(void *buf, size_t size, const char *name, size_t name_len,
		      const void *value, size_t value_len);
/* Step through a blob: *pos starts at 0; false at the end. */
bool kml_xattr_next(const void *blob, size_t len, size_t *pos,
		    struct kml_str *ret_name, struct kml_str *ret_value);

/*
 * Alias blobs (r->aliases): append the path of one more name ("/a/b"), as
 * kml_xattr_put(); step through them as kml_xattr_next().
 */
ssize_t kml_alias_put(void *buf, size_t size, const char *path, size_t len);
bool kml_alias_next(const void *blob, size_t len, size_t *pos, struct kml_str *ret_path);

/* Range i of a decoded record in the host's byte order. */
void kml_range_get(const struct kml_record *r, unsigned int i,
		   uint64_t *ret_off, uint64_t *ret_len);

/* "CREATE", "SETATTR" ...; NULL for an unknown opcode. */
const char *kml_opcode_name(unsigned int opcode);
/* The opcode of a name (any case), or -1. */
int kml_opcode_parse(const char *name);

#endif
