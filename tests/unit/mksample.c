// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * mksample LOG WIRE LAST_RCVD: write the sample records as files.  Made
 * samples/ once for each released version of the formats; what is stored there
 * is never written again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "last_rcvd.h"
#include "sample.h"
#include "util.h"

static int append(int fd, unsigned int from, unsigned int to, uint64_t off)
{
	char buf[16384];
	struct kml_record r;
	ssize_t n;
	int err;

	for (; from <= to; from++, off += n) {
		sample_record(from, &r);
		n = kml_encode(buf, sizeof(buf), &r);
		if (n < 0)
			return n;
		err = pwrite_all(fd, buf, n, off);
		if (err)
			return err;
	}
	return 0;
}

static int write_last_rcvd(int fd)
{
	struct last_rcvd lr = { .remote_recno = 7, .remote_offset = 4096 + 8 * 77,
				.local_recno = 5, .time_sec = 1767225600 };
	int i, err = 0;

	for (i = 0; i < 3 && !err; i++) {
		memset(lr.peer, 0x40 + i, sizeof(lr.peer));
		lr.remote_recno += i;
		err = last_rcvd_set(fd, &lr);
	}
	return err;
}

int main(int argc, char **argv)
{
	int log, wire, last, err;

	if (argc != 4)
		return 2;
	err = klog_create(AT_FDCWD, argv[1], &sample_header);
	log = open(argv[1], O_WRONLY | O_CLOEXEC);
	wire = open(argv[2], O_WRONLY | O_CLOEXEC | O_CREAT | O_EXCL, 0666);
	last = open(argv[3], O_RDWR | O_CLOEXEC | O_CREAT | O_EXCL, 0666);
	if (!err && (log < 0 || wire < 0 || last < 0))
		err = -errno;
	if (!err)
		err = append(log, 1, SAMPLE_LOG, KML_HEADER_SIZE);
	if (!err)
		err = append(wire, SAMPLE_LOG + 1, SAMPLE_ALL, 0);
	if (!err)
		err = write_last_rcvd(last);
	if (err)
		fprintf(stderr, "mksample: %s\n", strerror(-err));
	return err != 0;
}
