/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The set of what is being changed, for journal.c, recover.c and look.c; what
 * operations call is in fs.h.
 */
#ifndef FUSE_CHANGING_H
#define FUSE_CHANGING_H

#include <stdbool.h>
#include <stdint.h>

#include <intermezzo/lml.h>

/* Open the file or make it; recovery can ask what it holds. */
int changing_open(void);
/* It was written under another kernel: that one stopped without unmounting. */
bool changing_other_boot(void);
/* Where the KML's records begin that the tree may not have. */
uint64_t changing_kml_offset(void);
/* The next slot in use from *pos on; NULL at the end. */
const struct chg_slot *changing_next(unsigned int *pos);
/* Empty it, for this boot: tree and log agree up to kml_offset. */
int changing_reset(uint64_t kml_offset);
int changing_start(void);
/* Make all durable, leave the set empty; 0 or -errno, then it is not. */
int changing_stop(void);
/* The log has become long: called by the worker, with the journal's lock held. */
void changing_log_end(uint64_t end);

#endif
