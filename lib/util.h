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

#include "crc32c.h"

/* 36 characters and NUL */
#define UUID_TEXT	37
void uuid_format(const uint8_t uuid[16], char ret_text[UUID_TEXT]);
bool uuid_parse(const char *text, uint8_t ret_uuid[16]);
/* A random (version 4) uuid; 0 or -errno. */
int uuid_make(uint8_t ret_uuid[16]);

/*
 * The length of the UTF-8 sequence (RFC 3629) at p, of which len > 0 bytes are
 * there; 0 if there is none.
 */
size_t utf8_len(const char *p, size_t len);

/*
 * A name as people see it: bytes below 33, 127, '\\', bytes that are not
 * valid UTF-8 and the control characters U+0080 to U+009F become \ooo.
 * Returns a new string (free()), or NULL.
 */
char *name_escape(const char *name, size_t len);

/* 1..63 of [A-Za-z0-9._-], not beginning with a dot or a dash */
bool fileset_name_ok(const char *name);

/* All of it, EINTR and short counts handled; 0 or -errno (-ENODATA: early end). */
int pread_all(int fd, void *buf, size_t len, uint64_t off);
int pwrite_all(int fd, const void *buf, size_t len, uint64_t off);

/*
 * Bytes that content from a peer may take in the file system of fd: what is
 * free but for a reserve, so that log and state can still be written and local
 * programs do not find the disk full of what came over the network.  0 or -errno.
 */
int room_for_content(int fd, uint64_t *ret_bytes);

/*
 * The generation number that names an inode together with its number, taken
 * from the kernel's file handle; a checksum of the handle where its layout is
 * unknown, 0 where there are no handles.  path "" with fd: fd itself.
 * The first function is for those who have the handle already.
 */
struct file_handle;
uint32_t file_handle_generation(const struct file_handle *h);
int inode_generation(int dirfd, const char *path, uint32_t *ret_gen);

#endif
