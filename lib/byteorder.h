/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's names for byte order conversion, for user space.  For code that
 * reads or writes the little-endian structures of include/intermezzo.
 */
#ifndef LIB_BYTEORDER_H
#define LIB_BYTEORDER_H

#ifdef __KERNEL__
#include <asm/byteorder.h>
#else
#include <endian.h>

#include <linux/types.h>

#define le16_to_cpu(x)	le16toh(x)
#define le32_to_cpu(x)	le32toh(x)
#define le64_to_cpu(x)	le64toh(x)
#define cpu_to_le16(x)	htole16(x)
#define cpu_to_le32(x)	htole32(x)
#define cpu_to_le64(x)	htole64(x)
#endif

#endif
