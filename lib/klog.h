/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * kml files: open, read forwards and backwards, verify, find the end, append.
 * Used by kmlprint, intersync, mod_intersync, mkizofs and the FUSE file system.
 * One thread at a time per struct klog.  All functions return 0 or -errno
 * unless they say otherwise; offsets and lengths are bytes.
 */
#ifndef LIB_KLOG_H
#define LIB_KLOG_H

#include "record.h"

struct klog;

struct klog_header {
	uint8_t		fileset_uuid[16];
	uint8_t		replica_uuid[16];
	uint64_t	epoch;
	uint64_t	first_offset;
	uint64_t	first_recno;
	char		fileset[64];
};

/* Make a new log of a header alone; fails with -EEXIST if the file is there. */
int klog_create(int dirfd, const char *path, const struct klog_header *h);
/* Open for reading.  -EBADMSG: no KML; -EPROTONOSUPPORT: another version. */
int klog_open(int dirfd, const char *path, struct klog **ret_log);
/* The same for a descriptor, which then belongs to the log. */
int klog_open_fd(int fd, struct klog **ret_log);
void klog_close(struct klog *log);
/* Read the header again (the front may have been given back). */
int klog_header(struct klog *log, struct klog_header *ret_h);

/*
 * The record that begins at offset.  The record lives until the next call on
 * this log.  Returns 1 and sets *ret_next to the offset behind it; 0 at the end
 * of the log (also at a record that is not whole yet: call again later);
 * -EBADMSG for damage; -ERANGE for an offset before the first one kept.
 */
int klog_read(struct klog *log, uint64_t offset, struct kml_record *ret_rec,
	      uint64_t *ret_next);
/* The record that ends at offset; *ret_prev is where it begins. */
int klog_read_back(struct klog *log, uint64_t offset, struct kml_record *ret_rec,
		   uint64_t *ret_prev);

/*
 * Where the last whole record ends, and its number (first_recno - 1 when
 * there is none).  Looks from the end of the file backwards, so its cost is
 * that of the damage, not of the log.
 */
int klog_end(struct klog *log, uint64_t *ret_offset, uint64_t *ret_recno);

/*
 * Read all records and check numbers, lengths, checksums.  why gets a sentence about the
 * first fault (-EBADMSG).  counts the records.
 */
int klog_verify(struct klog *log, uint64_t *ret_records, char *why, size_t why_size);

/* Move the front: header first, durably, then the hole before offset. */
int klog_punch(int fd, uint64_t offset, uint64_t recno);

#endif
