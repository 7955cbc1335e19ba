// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * REINT (doc/channel.md): applies a batch of a peer's records.  Called by the
 * channel's thread.
 */
#include <config.h>

#include "fs.h"

#include <errno.h>

int reint_apply(const void *body, size_t len, void **ret_reply, size_t *ret_len)
{
	return -EOPNOTSUPP;
}
