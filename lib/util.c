// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Uuids, names for people, whole reads and writes, inode generations: what
 * every program of user space needs.
 */
#include <config.h>

#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/statvfs.h>
#include <unistd.h>

void uuid_format(const uint8_t uuid[16], char ret_text[UUID_TEXT])
{
	static const char hex[] = "0123456789abcdef";
	char *p = ret_text;
	int i;

	for (i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		*p++ = hex[uuid[i] >> 4];
		*p++ = hex[uuid[i] & 15];
	}
	*p = 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool uuid_parse(const char *text, uint8_t ret_uuid[16])
{
	uint8_t uuid[16];
	int i;

	for (i = 0; i < 16; i++) {
		int hi, lo;

		if ((i == 4 || i == 6 || i == 8 || i == 10) && *text++ != '-')
			return false;
		hi = hex_digit(text[0]);
		lo = hi < 0 ? -1 : hex_digit(text[1]);
		if (lo < 0)
			return false;
		uuid[i] = hi << 4 | lo;
		text += 2;
	}
	if (*text)
		return false;
	memcpy(ret_uuid, uuid, sizeof(uuid));
	return true;
}

int uuid_make(uint8_t ret_uuid[16])
{
	uint8_t uuid[16];
	ssize_t n;

	do {
		n = getrandom(uuid, sizeof(uuid), 0);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	uuid[6] = (uuid[6] & 0x0f) | 0x40;
	uuid[8] = (uuid[8] & 0x3f) | 0x80;
	memcpy(ret_uuid, uuid, sizeof(uuid));
	return 0;
}

/* No overlong forms, no surrogates, nothing above U+10FFFF. */
size_t utf8_len(const char *text, size_t len)
{
	const unsigned char *p = (const unsigned char *) text;
	unsigned char low = 0x80, high = 0xbf;
	size_t n, i;

	if (p[0] < 0x80)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf)
		n = 2;
	else if (p[0] >= 0xe0 && p[0] <= 0xef)
		n = 3;
	else if (p[0] >= 0xf0 && p[0] <= 0xf4)
		n = 4;
	else
		return 0;
	if (p[0] == 0xe0)
		low = 0xa0;
	else if (p[0] == 0xed)
		high = 0x9f;
	else if (p[0] == 0xf0)
		low = 0x90;
	else if (p[0] == 0xf4)
		high = 0x8f;
	if (len < n || p[1] < low || p[1] > high)
		return 0;
	for (i = 2; i < n; i++)
		if (p[i] < 0x80 || p[i] > 0xbf)
			return 0;
	return n;
}

/* How many bytes at p can be shown as they are; 0: escape one. */
static size_t plain_len(const unsigned char *p, size_t len)
{
	if (p[0] < 33 || p[0] == 127 || p[0] == '\\')
		return 0;
	/* U+0080 to U+009F: control characters, some terminals obey them */
	if (p[0] == 0xc2 && len > 1 && p[1] < 0xa0)
		return 0;
	return utf8_len((const char *) p, len);
}

char *name_escape(const char *name, size_t len)
{
	const unsigned char *p = (const unsigned char *) name;
	char *text = malloc(len * 4 + 1), *t = text;
	size_t n;

	if (!text)
		return NULL;
	while (len) {
		n = plain_len(p, len);
		if (n) {
			memcpy(t, p, n);
			t += n;
		} else {
			n = 1;
			*t++ = '\\';
			*t++ = '0' + (*p >> 6);
			*t++ = '0' + (*p >> 3 & 7);
			*t++ = '0' + (*p & 7);
		}
		p += n;
		len -= n;
	}
	*t = 0;
	return text;
}

bool fileset_name_ok(const char *name)
{
	static const char ok[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
		"abcdefghijklmnopqrstuvwxyz0123456789._-";
	size_t len = strlen(name);

	return len >= 1 && len <= 63 && *name != '.' && *name != '-' &&
	       strspn(name, ok) == len;
}

int pread_all(int fd, void *buf, size_t len, uint64_t off)
{
	char *p = buf;

	while (len) {
		ssize_t n = pread(fd, p, len, off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ENODATA;
		p += n;
		len -= n;
		off += n;
	}
	return 0;
}

int pwrite_all(int fd, const void *buf, size_t len, uint64_t off)
{
	const char *p = buf;

	while (len) {
		ssize_t n = pwrite(fd, p, len, off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		p += n;
		len -= n;
		off += n;
	}
	return 0;
}

/* Layouts of file handles (linux/exportfs.h and the file systems). */
#define FH_INO32_GEN		1	/* ext4, xfs: ino, gen; tmpfs: gen, ino, ino high */
#define FH_BTRFS		0x4d	/* objectid 64, root 64, gen 32 */
#define FH_BTRFS_PARENT_ROOT	0x4f
#define FH_INO64_GEN		0x81	/* xfs, fuse: ino 64, gen 32 */

/*
 * At least 16 MiB: the KML grows by chunks of 4 MiB, the state's WAL holds 4 MiB and
 * more before they are copied into the database, which takes as much again.  A 64th of
 * larger disks is for local programs; a disk of under 128 MiB gives an eighth.
 */
static uint64_t content_reserve(uint64_t total)
{
	const uint64_t least = UINT64_C(16) << 20, most = UINT64_C(256) << 20;

	if (total / 8 < least)
		return total / 8;
	if (total / 64 < least)
		return least;
	return total / 64 < most ? total / 64 : most;
}

int room_for_content(int fd, uint64_t *ret_bytes)
{
	struct statvfs st;
	uint64_t avail, reserve;

	if (fstatvfs(fd, &st))
		return -errno;
	avail = (uint64_t)st.f_bavail * st.f_frsize;
	reserve = content_reserve((uint64_t)st.f_blocks * st.f_frsize);
	*ret_bytes = avail > reserve ? avail - reserve : 0;
	return 0;
}

union handle {
	struct file_handle	h;
	char			room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
};

uint32_t file_handle_generation(const struct file_handle *h)
{
	unsigned int len = h->handle_bytes;
	size_t at;
	uint32_t gen;

	if (h->handle_type == FH_INO32_GEN && len == 8)
		at = 4;
	else if (h->handle_type == FH_INO32_GEN && len == 12)
		at = 0;
	else if (h->handle_type == FH_INO64_GEN && len >= 12)
		at = 8;
	else if (h->handle_type >= FH_BTRFS && h->handle_type <= FH_BTRFS_PARENT_ROOT &&
		 len >= 20)
		at = 16;
	else
		return crc32c(0, h->f_handle, len);
	memcpy(&gen, h->f_handle + at, sizeof(gen));
	return gen;
}

int inode_generation(int dirfd, const char *path, uint32_t *ret_gen)
{
	union handle u;
	int mount_id;

	u.h.handle_bytes = MAX_HANDLE_SZ;
	if (name_to_handle_at(dirfd, path, &u.h, &mount_id, *path ? 0 : AT_EMPTY_PATH) == 0)
		*ret_gen = file_handle_generation(&u.h);
	else if (errno == EOPNOTSUPP)
		*ret_gen = 0;
	else
		return -errno;
	return 0;
}
