// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The LML's header and states (doc/lml.md).  Shared by the kernel module and the
 * FUSE file system: no allocation, no I/O.
 */
#include "lml_format.h"

#ifdef __KERNEL__
#include <linux/errno.h>
#include <linux/stddef.h>
#include <linux/string.h>
#else
#include <errno.h>
#include <string.h>
#endif

#include "byteorder.h"
#include "crc32c.h"

#define OPENW_SLOTS	4096

_Static_assert(sizeof(struct lml_state) == 48, "size of a state");
_Static_assert(sizeof(struct lml_header) == 168, "size of the header");
_Static_assert(sizeof(struct lml_openw) == 256, "size of a slot");
_Static_assert(sizeof(struct lml_entry) == 160, "size of an entry");

static uint32_t header_crc(const struct lml_header *h)
{
	struct lml_header copy = *h;

	copy.crc = 0;
	return izo_crc32c(0, &copy, offsetof(struct lml_header, states));
}

static uint32_t state_crc(const struct lml_state *s)
{
	struct lml_state copy = *s;

	copy.crc = 0;
	return izo_crc32c(0, &copy, sizeof(copy));
}

void lml_header_make(struct lml_header *h, uint64_t size, const uint8_t replica[16],
		     uint64_t epoch)
{
	const uint64_t ring = LML_HEADER_SIZE + OPENW_SLOTS * sizeof(struct lml_openw);

	memset(h, 0, sizeof(*h));
	memcpy(h->magic, LML_MAGIC, sizeof(h->magic));
	h->version = cpu_to_le32(LML_VERSION);
	memcpy(h->replica_uuid, replica, 16);
	h->epoch = cpu_to_le64(epoch);
	h->openw_offset = cpu_to_le64(LML_HEADER_SIZE);
	h->openw_slots = cpu_to_le64(OPENW_SLOTS);
	h->ring_offset = cpu_to_le64(ring);
	h->ring_size = cpu_to_le64(size - ring);
	h->crc = cpu_to_le32(header_crc(h));
}

int lml_header_check(const struct lml_header *h, uint64_t size, uint64_t ring_min,
		     const uint8_t replica[16], uint64_t epoch)
{
	const uint64_t off = le64_to_cpu(h->openw_offset), slots = le64_to_cpu(h->openw_slots);
	const uint64_t ring = le64_to_cpu(h->ring_offset), ring_size = le64_to_cpu(h->ring_size);

	if (memcmp(h->magic, LML_MAGIC, sizeof(h->magic)) != 0)
		return -EBADMSG;
	if (le32_to_cpu(h->version) != LML_VERSION)
		return -EPROTONOSUPPORT;
	if (le32_to_cpu(h->crc) != header_crc(h) || off != LML_HEADER_SIZE || slots > 1u << 20)
		return -EBADMSG;
	if (ring != off + slots * sizeof(struct lml_openw) || ring % LML_ALIGN ||
	    ring_size % LML_ALIGN || ring > size || ring_size != size - ring ||
	    ring_size < ring_min)
		return -EBADMSG;
	if (memcmp(h->replica_uuid, replica, 16) != 0 || le64_to_cpu(h->epoch) != epoch)
		return -ESTALE;
	return 0;
}

bool lml_state_get(const struct lml_header *h, struct lml_state *ret_s)
{
	bool found = false;
	int k;

	for (k = 0; k < 2; k++) {
		const struct lml_state *s = &h->states[k];

		if (le32_to_cpu(s->crc) != state_crc(s) || s->serial == 0)
			continue;
		if (found && le64_to_cpu(s->serial) < le64_to_cpu(ret_s->serial))
			continue;
		*ret_s = *s;
		found = true;
	}
	return found;
}

struct lml_state *lml_state_put(struct lml_header *h, struct lml_state *s)
{
	struct lml_state *to = &h->states[le64_to_cpu(s->serial) & 1];

	s->crc = cpu_to_le32(state_crc(s));
	*to = *s;
	return to;
}

uint32_t lml_entry_crc(const struct lml_entry *e, size_t intent_len)
{
	return izo_crc32c(0, e->handles, sizeof(e->handles) + intent_len);
}
