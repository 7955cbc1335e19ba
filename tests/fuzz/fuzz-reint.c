// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzz target for the body of a REINT message, as both file systems check it
 * before anything is done.  The first byte says how many entries are mended
 * (lengths, checksums, the count).
 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "byteorder.h"
#include "reint_msg.h"

#define ENTRY_MIN	(sizeof(struct izo_reint_entry) + sizeof(struct kml_rec) + \
			 sizeof(struct kml_rec_tail))

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good)
{
	if (!good)
		abort();
}

static void mend_record(char *p, size_t len)
{
	struct kml_rec_tail tail = { cpu_to_le32(len), cpu_to_le32(KML_REC_MAGIC) };
	struct kml_rec head;

	memcpy(&head, p, sizeof(head));
	head.len = tail.len;
	head.magic = cpu_to_le16(KML_REC_MAGIC);
	head.head_len = cpu_to_le16(sizeof(head));
	memcpy(p, &head, sizeof(head));
	memcpy(p + len - sizeof(tail), &tail, sizeof(tail));
	kml_seal(p, le64_to_cpu(head.recno), le64_to_cpu(head.seq));
}

/* Make entries of at most n stretches of the body; its length is then *len. */
static void mend(char *body, size_t *len, unsigned int n)
{
	struct izo_reint_entry e;
	struct izo_reint head;
	size_t pos = sizeof(head), size;
	uint32_t count = 0;

	for (; n && *len - pos >= ENTRY_MIN; n--, count++, pos += size) {
		memcpy(&e, body + pos, sizeof(e));
		size = le32_to_cpu(e.len) & ~7u;
		if (size < ENTRY_MIN || size > *len - pos)
			size = ENTRY_MIN;
		e.len = cpu_to_le32(size);
		memcpy(body + pos, &e, sizeof(e));
		mend_record(body + pos + sizeof(e), size - sizeof(e));
	}
	if (!count)
		return;
	memcpy(&head, body, sizeof(head));
	head.count = cpu_to_le32(count);
	memcpy(body, &head, sizeof(head));
	if (!n)
		return;
	*len = pos;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t len = size ? size - 1 : 0;
	char *room, *body;
	struct izo_reint head;
	struct kml_record r;
	int rc;

	if (size == 0)
		return 0;
	room = malloc(len ? len : 1);
	must(room != NULL);
	memcpy(room, data + 1, len);
	if (len >= sizeof(struct izo_reint))
		mend(room, &len, data[0]);
	/* of exactly this size, so that a sanitizer sees reads behind it */
	body = realloc(room, len ? len : 1);
	must(body != NULL);
	rc = reint_parse(body, len, &head, &r);
	must(rc == 0 || rc == -EINVAL);
	free(body);
	return 0;
}
