// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzz target for last_rcvd files.  The first byte says how many slots are
 * given their magic and checksum first.  A slot that is set must be read the same,
 * and must leave the others as they were.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "byteorder.h"
#include "last_rcvd.h"
#include "util.h"

#define SLOTS	256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good)
{
	if (!good)
		abort();
}

static void mend(uint8_t *p, size_t size, unsigned int n)
{
	for (; n && size >= sizeof(struct last_rcvd_slot); n--) {
		struct last_rcvd_slot slot;

		memcpy(&slot, p, sizeof(slot));
		slot.magic = cpu_to_le32(LAST_RCVD_MAGIC);
		slot.crc = 0;
		slot.crc = cpu_to_le32(crc32c(0, &slot, sizeof(slot)));
		memcpy(p, &slot, sizeof(slot));
		p += sizeof(slot);
		size -= sizeof(slot);
	}
}

static int make_file(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size);
	int fd = memfd_create("last_rcvd", 0);

	must(copy && fd >= 0);
	memcpy(copy, data, size);
	mend(copy + 1, size - 1, copy[0]);
	must(pwrite_all(fd, copy + 1, size - 1, 0) == 0);
	free(copy);
	return fd;
}

static bool same(const struct last_rcvd *a, const struct last_rcvd *b)
{
	return memcmp(a->peer, b->peer, sizeof(a->peer)) == 0 &&
	       a->remote_recno == b->remote_recno && a->remote_offset == b->remote_offset &&
	       a->local_recno == b->local_recno && a->time_sec == b->time_sec;
}

/* All slots in use of at most SLOTS, the number of slots looked at. */
static unsigned int read_all(int fd, struct last_rcvd *all, bool *used)
{
	unsigned int n;
	int rc;

	for (n = 0; n < SLOTS; n++) {
		rc = last_rcvd_slot(fd, n, &all[n]);
		if (rc == -ENODATA)
			break;
		must(rc == 0 || rc == 1);
		used[n] = rc;
	}
	return n;
}

static void check(int fd)
{
	static struct last_rcvd before[SLOTS], after[SLOTS], lr, got;
	static bool used_before[SLOTS], used_after[SLOTS];
	unsigned int n = read_all(fd, before, used_before), i, changed = 0;

	lr = n ? before[n / 2] : (struct last_rcvd) { .peer = "new" };
	if (n && !used_before[n / 2])
		memset(lr.peer, 0x5a, sizeof(lr.peer));
	lr.remote_recno++;
	must(last_rcvd_set(fd, &lr) == 0);
	must(last_rcvd_get(fd, lr.peer, &got) == 0 && same(&got, &lr));
	read_all(fd, after, used_after);
	for (i = 0; i < n; i++)
		if (used_before[i] && (!used_after[i] || !same(&before[i], &after[i])))
			changed++;
	must(changed <= 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd;

	if (size == 0)
		return 0;
	fd = make_file(data, size);
	check(fd);
	close(fd);
	return 0;
}
