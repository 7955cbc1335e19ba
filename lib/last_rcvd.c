// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The last_rcvd file (doc/last_rcvd.md): an array of slots, one for each
 * peer.  Moved by the file system with each batch, read by the daemon.
 */
#include <config.h>

#include "last_rcvd.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "byteorder.h"
#include "util.h"

_Static_assert(sizeof(struct last_rcvd_slot) == 64, "size of a slot");
_Static_assert(offsetof(struct last_rcvd_slot, crc) == 4, "offset of crc");
_Static_assert(offsetof(struct last_rcvd_slot, peer) == 8, "offset of peer");
_Static_assert(offsetof(struct last_rcvd_slot, remote_recno) == 24, "offset of remote_recno");
_Static_assert(offsetof(struct last_rcvd_slot, time_sec) == 48, "offset of time_sec");

static uint32_t slot_crc(const struct last_rcvd_slot *slot)
{
	struct last_rcvd_slot copy = *slot;

	copy.crc = 0;
	return crc32c(0, &copy, sizeof(copy));
}

static bool slot_used(const struct last_rcvd_slot *slot)
{
	return le32_to_cpu(slot->magic) == LAST_RCVD_MAGIC &&
	       le32_to_cpu(slot->crc) == slot_crc(slot);
}

int last_rcvd_slot(int fd, unsigned int n, struct last_rcvd *ret)
{
	struct last_rcvd_slot slot;
	int err = pread_all(fd, &slot, sizeof(slot), (uint64_t) n * sizeof(slot));

	if (err)
		return err;
	if (!slot_used(&slot))
		return 0;
	memcpy(ret->peer, slot.peer, sizeof(ret->peer));
	ret->remote_recno = le64_to_cpu(slot.remote_recno);
	ret->remote_offset = le64_to_cpu(slot.remote_offset);
	ret->local_recno = le64_to_cpu(slot.local_recno);
	ret->time_sec = le64_to_cpu(slot.time_sec);
	return 1;
}

/*
 * The peer's slot: 1 and its number and content.  0 if it has none; *ret_n is
 * then the first slot that is not in use, maybe the one behind the end.
 */
static int find(int fd, const uint8_t peer[16], unsigned int *ret_n, struct last_rcvd *ret)
{
	unsigned int n, unused = 0;
	bool have_unused = false;
	struct last_rcvd lr;
	int rc;

	for (n = 0; (rc = last_rcvd_slot(fd, n, &lr)) >= 0; n++) {
		if (rc == 1 && memcmp(lr.peer, peer, sizeof(lr.peer)) == 0) {
			*ret_n = n;
			*ret = lr;
			return 1;
		}
		if (rc == 0 && !have_unused) {
			have_unused = true;
			unused = n;
		}
	}
	if (rc != -ENODATA)
		return rc;
	*ret_n = have_unused ? unused : n;
	return 0;
}

int last_rcvd_get(int fd, const uint8_t peer[16], struct last_rcvd *ret)
{
	unsigned int n;
	int rc = find(fd, peer, &n, ret);

	if (rc == 0)
		return -ENOENT;
	return rc < 0 ? rc : 0;
}

int last_rcvd_set(int fd, const struct last_rcvd *lr)
{
	struct last_rcvd_slot slot = {
		.magic = cpu_to_le32(LAST_RCVD_MAGIC),
		.remote_recno = cpu_to_le64(lr->remote_recno),
		.remote_offset = cpu_to_le64(lr->remote_offset),
		.local_recno = cpu_to_le64(lr->local_recno),
		.time_sec = cpu_to_le64(lr->time_sec),
	};
	struct last_rcvd before;
	unsigned int n;
	int rc = find(fd, lr->peer, &n, &before);

	if (rc < 0)
		return rc;
	memcpy(slot.peer, lr->peer, sizeof(slot.peer));
	slot.crc = cpu_to_le32(slot_crc(&slot));
	return pwrite_all(fd, &slot, sizeof(slot), (uint64_t) n * sizeof(slot));
}
