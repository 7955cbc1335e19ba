/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Small things that every program needs: checksums, uuids, names for people,
 * whole reads and writes.
 */
#ifndef LIB_UTIL_H
#define LIB_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* CRC-32C (Castagnoli, RFC 3720 B.4); start with crc 0, chain by passing the result. */
uint32_t crc32c(uint32_t crc, const void *buf, size_t len);

/* 36 characters and NUL */
#define UUID_TEXT	37
void uuid_format(const uint8_t uuid[16], char ret_text[UUID_TEXT]);
bool uuid_parse(const char *text, uint8_t ret_uuid[16]);
/* A random (version 4) uuid; 0 or -errno. */
int uuid_make(uint8_t ret_uuid[16]);

/*
 * A name as people see it: bytes below 33, 127, '\\' and bytes that are not
 * valid UTF-8 become \ooo.  Returns a new string (free()), or NULL.
 */
char *name_escape(const char *name, size_t len);

/* 1..63 of [A-Za-z0-9._-], not beginning with a dot or a dash */
bool fileset_name_ok(const char *name);

/* All of it, EINTR and short counts handled; 0 or -errno (-ENODATA: early end). */
int pread_all(int fd, void *buf, size_t len, uint64_t off);
int pwrite_all(int fd, const void *buf, size_t len, uint64_t off);

/*
 * The generation number that names an inode together with its number, taken
 * from the kernel's file handle; a checksum of the handle where its layout is
 * unknown, 0 where there are no handles.  path "" with fd: fd itself.
 */
int inode_generation(int dirfd, const char *path, uint32_t *ret_gen);

#endif
