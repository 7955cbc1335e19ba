// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * CRC-32C in user space: by the CPU's own instruction where there is one
 * (SSE 4.2), by eight tables otherwise (M. E. Kounavis, F. L. Berry: "A
 * systematic approach to building high performance software-based CRC
 * generators", 2005).  Called for every record, slot and block header.
 */
#include "crc32c.h"

#include <stdbool.h>
#include <string.h>

#include "byteorder.h"

#define POLY	0x82f63b78u	/* reversed */

static uint32_t table[8][256];
static uint32_t (*best)(uint32_t crc, const void *buf, size_t len) = crc32c_table;

static void make_table(void)
{
	unsigned int i, k;

	for (i = 0; i < 256; i++) {
		uint32_t c = i;

		for (k = 0; k < 8; k++)
			c = c & 1 ? c >> 1 ^ POLY : c >> 1;
		table[0][i] = c;
	}
	for (i = 0; i < 256; i++)
		for (k = 1; k < 8; k++)
			table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 0xff];
}

static uint32_t table_word(uint32_t crc, const unsigned char *p)
{
	uint32_t lo, hi;

	memcpy(&lo, p, 4);
	memcpy(&hi, p + 4, 4);
	lo = le32_to_cpu(lo) ^ crc;
	hi = le32_to_cpu(hi);
	return table[7][lo & 0xff] ^ table[6][lo >> 8 & 0xff] ^
	       table[5][lo >> 16 & 0xff] ^ table[4][lo >> 24] ^
	       table[3][hi & 0xff] ^ table[2][hi >> 8 & 0xff] ^
	       table[1][hi >> 16 & 0xff] ^ table[0][hi >> 24];
}

uint32_t crc32c_table(uint32_t crc, const void *buf, size_t len)
{
	const unsigned char *p = buf;

	crc = ~crc;
	for (; len >= 8; len -= 8, p += 8)
		crc = table_word(crc, p);
	while (len--)
		crc = crc >> 8 ^ table[0][(crc ^ *p++) & 0xff];
	return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2")))
static uint32_t crc32c_sse42(uint32_t crc, const void *buf, size_t len)
{
	const unsigned char *p = buf;
	uint64_t c = (uint32_t) ~crc;

	for (; len >= 8; len -= 8, p += 8) {
		uint64_t word;

		memcpy(&word, p, 8);
		c = __builtin_ia32_crc32di(c, word);
	}
	while (len--)
		c = __builtin_ia32_crc32qi((uint32_t) c, *p++);
	return ~(uint32_t) c;
}

static void choose(void)
{
	__builtin_cpu_init();
	if (__builtin_cpu_supports("sse4.2"))
		best = crc32c_sse42;
}
#else
static void choose(void)
{
}
#endif

/* Before main(), so that no thread ever sees a half made table. */
__attribute__((constructor))
static void init(void)
{
	make_table();
	choose();
}

uint32_t crc32c(uint32_t crc, const void *buf, size_t len)
{
	return best(crc, buf, len);
}
