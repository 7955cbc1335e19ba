// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Copying content between lower files, for REINT and recovery.
 */
#include <config.h>

#include "fs.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "util.h"

#define PIECE	(1u << 20)

static int copy_by_hand(int in, int out, uint64_t off, uint64_t len)
{
	char *buf = malloc(PIECE);
	int err = buf ? 0 : -ENOMEM;

	while (len && !err) {
		size_t n = len < PIECE ? len : PIECE;

		err = pread_all(in, buf, n, off);
		if (!err)
			err = pwrite_all(out, buf, n, off);
		off += n;
		len -= n;
	}
	free(buf);
	return err == -ENODATA ? -EINVAL : err;
}

int copy_range(int in, int out, uint64_t off, uint64_t len)
{
	while (len) {
		off_t from = off, to = off;
		ssize_t n = copy_file_range(in, &from, out, &to, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		/* also what the file systems do not do, or the file's end */
		if (n <= 0)
			return copy_by_hand(in, out, off, len);
		off += n;
		len -= n;
	}
	return 0;
}

int copy_data(int in, int out, uint64_t size)
{
	off_t data = 0, hole = 0;
	int err = 0;

	while (!err && (uint64_t) hole < size) {
		data = lseek(in, hole, SEEK_DATA);
		if (data < 0)
			break;
		hole = lseek(in, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		if ((uint64_t) hole > size)
			hole = size;
		if (hole > data)
			err = copy_range(in, out, data, hole - data);
	}
	if (!err && data < 0 && errno != ENXIO)
		err = -errno;
	if (!err && ftruncate(out, size) != 0)
		err = -errno;
	return err;
}
