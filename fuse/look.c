// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Recovery after the machine stopped: LOOK records for all that may differ
 * from the log.  That is what the records since the last checkpoint name (the tree
 * may be older than they are), and what is in the set of changing.c (the tree may be
 * newer).  What was open for write comes from recover.c.  Each object gets one.
 *
 * Interrupted, it begins again; a second LOOK says nothing else than the first.
 */
#include <config.h>

#include "changing.h"
#include "journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "util.h"

/* What has had its record: open addressing, at most half full. */
static struct kml_oid *seen;
static size_t seen_size, n_seen;

static struct kml_oid *seen_slot(const struct kml_oid *oid)
{
	size_t at = oid->ino * 0x9e3779b97f4a7c15ULL >> 20;

	for (;; at++) {
		struct kml_oid *s = &seen[at & (seen_size - 1)];

		if (!s->ino || (s->ino == oid->ino && s->gen == oid->gen))
			return s;
	}
}

static int seen_grow(void)
{
	struct kml_oid *old = seen;
	size_t n = seen_size, k;

	seen_size = n ? 2 * n : 1024;
	seen = calloc(seen_size, sizeof(*seen));
	if (!seen) {
		seen = old;
		seen_size = n;
		return -ENOMEM;
	}
	for (k = 0; k < n; k++)
		if (old[k].ino)
			*seen_slot(&old[k]) = old[k];
	free(old);
	return 0;
}

int look_object(const struct kml_oid *oid)
{
	struct kml_record r = {
		.opcode = KML_LOOK,
		.flags = KML_F_RECOVERED,
		.auid = ~0u,
		.obj = *oid,
	};
	struct kml_oid *s;
	struct timespec now;
	int err;

	if (!oid->ino)
		return 0;
	if (2 * n_seen >= seen_size) {
		err = seen_grow();
		if (err)
			return err;
	}
	s = seen_slot(oid);
	if (s->ino)
		return 0;
	*s = *oid;
	n_seen++;
	clock_gettime(CLOCK_REALTIME, &now);
	time_from_ts(&r.time, &now);
	return recover_append(&r, journal.next_seq++);
}

/* The log since the last checkpoint */

static int look_record(const struct kml_record *r)
{
	int err = look_object(&r->parent);

	if (!err)
		err = look_object(&r->tparent);
	return err ? err : look_object(&r->obj);
}

static int each_record(struct klog *log, uint64_t pos, uint64_t end)
{
	struct kml_record r;
	uint64_t next;
	int more = 1, err = 0;

	for (; !err && pos < end; pos = next) {
		more = klog_read(log, pos, &r, &next);
		if (more <= 0)
			return more < 0 ? more : -EBADMSG;
		err = look_record(&r);
	}
	return err;
}

static int look_log(void)
{
	struct klog_header h;
	const uint64_t end = journal.end;
	uint64_t from = changing_kml_offset();
	struct klog *log;
	int fd = fcntl(journal.kml_fd, F_DUPFD_CLOEXEC, 0), err;

	if (fd < 0)
		return -errno;
	err = klog_open_fd(fd, &log);
	if (err) {
		close(fd);
		return err;
	}
	err = klog_header(log, &h);
	if (!err && from < h.first_offset)
		from = h.first_offset;
	if (!err)
		err = each_record(log, from, end);
	klog_close(log);
	return err;
}

/* The set */

static int look_below(int dirfd, unsigned int depth);

static int look_dir(int dirfd, const char *name, unsigned int depth)
{
	struct kml_oid oid;
	struct stat st;
	int fd, err;

	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOTDIR || errno == ENOENT ? 0 : -errno;
	err = fstat(fd, &st) ? -errno : inode_generation(fd, "", &oid.gen);
	oid.ino = st.st_ino;
	if (!err)
		err = look_object(&oid);
	if (!err && depth)
		err = look_below(fd, depth);
	close(fd);
	return err;
}

/* Directories in dirfd, and so much deeper. */
static int look_below(int dirfd, unsigned int depth)
{
	struct stat st;
	const bool root = fstat(dirfd, &st) == 0 && st.st_ino == root_inode->ino;
	int fd = fcntl(dirfd, F_DUPFD_CLOEXEC, 0), err = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;

	if (!d) {
		err = -errno;
		if (fd >= 0)
			close(fd);
		return err;
	}
	while (!err && (errno = 0, de = readdir(d))) {
		if (de->d_type != DT_DIR && de->d_type != DT_UNKNOWN)
			continue;
		if (strcmp(de->d_name, ".") && strcmp(de->d_name, "..") &&
		    !(root && name_protected(root_inode, de->d_name)))
			err = look_dir(dirfd, de->d_name, depth - 1);
	}
	if (!err && errno)
		err = -errno;
	closedir(d);
	return err;
}

static int look_slot(const struct chg_slot *s)
{
	const struct kml_oid oid = { le64_to_cpu(s->ino), le32_to_cpu(s->gen) };
	const unsigned int depth = le32_to_cpu(s->depth);
	struct handle h = { .len = s->handle.len, .type = s->handle.type };
	int err = look_object(&oid), fd;

	if (err || !depth || !h.len || h.len > HANDLE_INLINE)
		return err;
	memcpy(h.bytes, s->handle.bytes, h.len);
	fd = handle_open(&h, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return fd == -ESTALE ? 0 : fd;
	err = look_below(fd, depth);
	close(fd);
	return err;
}

int look_all(void)
{
	const struct chg_slot *s;
	unsigned int pos = 0;
	int err = look_log();

	while (!err && (s = changing_next(&pos)))
		err = look_slot(s);
	free(seen);
	seen = NULL;
	seen_size = n_seen = 0;
	return err;
}
