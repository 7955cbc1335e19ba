/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The body of a REINT message: struct izo_reint, then entries, each with a KML
 * record (doc/channel.md).  For those who apply them: kernel/ and fuse/.
 */
#ifndef LIB_REINT_MSG_H
#define LIB_REINT_MSG_H

#include <intermezzo/channel.h>

#include "record.h"

/*
 * Check a whole body of len bytes and return its head.  0 or -EINVAL.  scratch is
 * room for a record, too large for the kernel's stack; what is in it afterwards
 * means nothing.
 */
int reint_parse(const void *body, size_t len, struct izo_reint *ret_head,
		struct kml_record *scratch);

/*
 * The entry at *pos, which starts at sizeof(struct izo_reint), and move *pos to the
 * next.  ret_r leads into body.  1, 0 at the end, -EINVAL: never in a checked body.
 */
int reint_entry_next(const void *body, size_t len, size_t *pos,
		     struct izo_reint_entry *ret_head, struct kml_record *ret_r);

#endif
