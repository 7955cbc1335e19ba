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

/*
 * Make a new log of a header alone, durably; fails with -EEXIST if the file is
 * there.  first_offset and first_recno 0: those of a log that begins.
 */
int klog_create(int dirfd, const char *path, const struct klog_header *h);
/* Open for reading.  -EBADMSG: no KML; -EPROTONOSUPPORT: another version. */
int klog_open(int dirfd, const char *path, struct klog **ret_log);
/* The same for a descriptor, which then belongs to the log (not on failure). */
int klog_open_fd(int fd, struct klog **ret_log);
void klog_close(struct klog *log);
/* Read the header again (the front may have been given back).  ret_h may be NULL. */
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
 * Where the unbroken run of records ends that begins at offset with number
 * recno + 1.  For the log's owner after a crash, who knows up to where the log
 * was durable: nothing counts behind the first record that is not whole, even if
 * later ones are, because their pages may have been written in any order.
 */
int klog_end_from(struct klog *log, uint64_t offset, uint64_t recno,
		  uint64_t *ret_offset, uint64_t *ret_recno);

/*
 * Read all records and check numbers, lengths, checksums.  why gets a sentence
 * about the first fault (-EBADMSG).  A tail that is not whole is no fault.
 */
int klog_verify(struct klog *log, uint64_t *ret_records, char *why, size_t why_size);

/*
 * Move the front to offset, where record recno ends (as in struct izo_pos; it
 * is the last one that is given back): header first, durably, then the hole.
 * -EINVAL if recno does not end there, -ERANGE if it is given back already.
 */
int klog_punch(int fd, uint64_t offset, uint64_t recno);

#endif
