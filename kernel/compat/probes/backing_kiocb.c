// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/backing-file.h>

static void end_write(struct kiocb *iocb, ssize_t n)
{
}

extern const struct backing_file_ctx probe;
const struct backing_file_ctx probe = { .end_write = end_write };
