/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * CRC-32C (Castagnoli polynomial, RFC 3720 B.4), the checksum of all our
 * formats.  The kernel has its own; this says how ours is expressed by it.
 */
#ifndef LIB_CRC32C_H
#define LIB_CRC32C_H

#ifdef __KERNEL__
#include <linux/crc32c.h>
#include <linux/types.h>

static inline u32 izo_crc32c(u32 crc, const void *buf, size_t len)
{
	return ~crc32c(~crc, buf, len);
}
#else
#include <stddef.h>
#include <stdint.h>

/* Start with crc 0, chain by passing the result. */
uint32_t crc32c(uint32_t crc, const void *buf, size_t len);
/* The same without the CPU's instruction; for tests. */
uint32_t crc32c_table(uint32_t crc, const void *buf, size_t len);

#define izo_crc32c	crc32c
#endif

#endif
