/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The set of directories and files that are being changed (doc/lml.md), for lower file
 * systems whose journal the LML cannot be part of.  What operations and sessions call
 * does nothing where there is none.
 */
#ifndef INTERMEZZO_CHANGING_H
#define INTERMEZZO_CHANGING_H

#include "journal.h"

/* Open the file, or make it where one is needed; recovery can ask what it holds. */
int izo_changing_open(struct izo_journal *j, struct fs_context *fc);
void izo_changing_close(struct izo_journal *j);
/* The machine stopped since it was written, and the LML is not CLEAN. */
bool izo_changing_stopped(const struct izo_journal *j);
/* Where the KML's records begin that the tree may not have. */
u64 izo_changing_kml_offset(const struct izo_journal *j);
/* The next slot in use from *pos on; NULL at the end. */
const struct chg_slot *izo_changing_next(const struct izo_journal *j, unsigned int *pos);
/* After recovery: tree and log agree up to the log's end.  Empties or gives up the set. */
int izo_changing_begin(struct izo_journal *j);
int izo_changing_start(struct izo_journal *j);
/* Nothing is changed any more: the tree is made durable; then LML may be CLEAN. */
int izo_changing_stop(struct izo_journal *j);
/* The log has become longer. */
void izo_changing_grown(struct izo_journal *j);

/*
 * Before something changes: what covers it is durable.  Until izo_changing_leave()
 * no checkpoint gives that up again.  0 or -errno, then nothing may change.
 */
int izo_changing_op(struct izo_op *op);
int izo_changing_content(struct inode *inode, bool emptied, u32 *ret_round);
void izo_changing_leave(struct izo_journal *j, u32 round);
/* The operation has made something that has a record. */
void izo_changing_made(struct izo_op *op);

#endif
