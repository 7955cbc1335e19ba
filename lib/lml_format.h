/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What <intermezzo/lml.h> leaves to code: the LML's header, its states and the
 * checksum of an entry.  For its two writers, kernel/ and fuse/.
 */
#ifndef LIB_LML_FORMAT_H
#define LIB_LML_FORMAT_H

#include <intermezzo/lml.h>

#include "record.h"

/*
 * Make the header of an empty LML of size bytes for this replica's log.  The ring
 * gets what the table of open files leaves.  *h has no state afterwards.
 */
void lml_header_make(struct lml_header *h, uint64_t size, const uint8_t replica[16],
		     uint64_t epoch);

/*
 * Is this the header of an LML of size bytes whose ring has ring_min or more, and of
 * this replica's log?  0; -EBADMSG: damaged, -EPROTONOSUPPORT: of another version,
 * -ESTALE: another log's.
 */
int lml_header_check(const struct lml_header *h, uint64_t size, uint64_t ring_min,
		     const uint8_t replica[16], uint64_t epoch);

/* The state of both copies that counts; false: neither is sound. */
bool lml_state_get(const struct lml_header *h, struct lml_state *ret_s);

/* Seal s, whose serial is one more than the last one's, and give its place in h. */
struct lml_state *lml_state_put(struct lml_header *h, struct lml_state *s);

/* The checksum of an entry whose intent, of intent_len bytes, follows it. */
uint32_t lml_entry_crc(const struct lml_entry *e, size_t intent_len);

#endif
