// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * REINT of content: a finished file gets its name, replaces another one, or
 * is written into it.  New inodes are prepared in incoming/ under a name that
 * recovery removes, and take their place by one rename.
 */
#include <config.h>

#include "byteorder.h"
#include "reint.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "util.h"

#define COPY_PIECE	(1u << 20)
#define TEMP		REINT_TEMP ".new"	/* one batch at a time, so one name */

int write_data(int fd, const struct kml_str *data)
{
	return pwrite_all(fd, data->ptr, data->len, 0);
}

static void file_name(char buf[256], const struct kml_str *file)
{
	memcpy(buf, file->ptr, file->len);
	buf[file->len] = 0;
}

/* The sender's finished file; a regular one with the size that it says. */
static int open_incoming(const struct reint_entry *e, int flags, bool whole)
{
	char name[256];
	struct stat st;
	int fd;

	file_name(name, &e->r.file);
	fd = openat(fs.incoming_fd, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ENODATA : -errno;
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_nlink != 1 ||
	    (whole && (uint64_t) st.st_size != e->r.attr.size)) {
		close(fd);
		return -EINVAL;
	}
	return fd;
}

static int temp_make(void)
{
	int fd;

	unlinkat(fs.incoming_fd, TEMP, 0);
	fd = openat(fs.incoming_fd, TEMP, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

/* Copying with holes */

static int punch(int fd, uint64_t off, uint64_t len)
{
	static const char zeros[65536];
	size_t n;
	int err = 0;

	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len) == 0)
		return 0;
	if (errno != EOPNOTSUPP)
		return -errno;
	for (; len && !err; off += n, len -= n) {
		n = len < sizeof(zeros) ? len : sizeof(zeros);
		err = pwrite_all(fd, zeros, n, off);
	}
	return err;
}

static int copy_bytes(int to, int from, uint64_t off, uint64_t len)
{
	char *buf = malloc(COPY_PIECE);
	size_t n;
	int err = buf ? 0 : -ENOMEM;

	for (; len && !err; off += n, len -= n) {
		n = len < COPY_PIECE ? len : COPY_PIECE;
		err = pread_all(from, buf, n, off);
		if (!err)
			err = pwrite_all(to, buf, n, off);
	}
	free(buf);
	return err;
}

/* Where the data at or behind off is; both end at most at end. */
static int next_data(int fd, uint64_t off, uint64_t end, uint64_t *ret_data, uint64_t *ret_hole)
{
	off_t d = lseek(fd, off, SEEK_DATA), h;

	if (d < 0 && errno != ENXIO)
		return -errno;
	*ret_data = d < 0 || (uint64_t) d > end ? end : (uint64_t) d;
	*ret_hole = end;
	if (*ret_data == end)
		return 0;
	h = lseek(fd, d, SEEK_HOLE);
	if (h < 0)
		return -errno;
	if ((uint64_t) h < end)
		*ret_hole = h;
	return 0;
}

/* Make [off, end) of to what it is in from. */
static int copy_range(int to, int from, uint64_t off, uint64_t end)
{
	uint64_t data, hole;
	int err = 0;

	for (; off < end && !err; off = hole) {
		err = next_data(from, off, end, &data, &hole);
		if (!err && data > off)
			err = punch(to, off, data - off);
		if (!err && hole > data)
			err = copy_bytes(to, from, data, hole - data);
	}
	return err;
}

/* Allocate what the patch will write, so that it cannot fail half-way for space. */
static int allocate_range(int to, int from, uint64_t off, uint64_t end)
{
	uint64_t data, hole;
	int err = 0;

	for (; off < end && !err; off = hole) {
		err = next_data(from, off, end, &data, &hole);
		if (!err && hole > data &&
		    fallocate(to, FALLOC_FL_KEEP_SIZE, data, hole - data) != 0 &&
		    errno != EOPNOTSUPP)
			err = -errno;
	}
	return err;
}

typedef int (*range_fn)(int to, int from, uint64_t off, uint64_t end);

static int each_range(range_fn fn, int fd, int file, const struct kml_record *r, uint64_t size)
{
	uint64_t off, len;
	unsigned int n;
	int err = 0;

	if (r->flags & KML_F_RANGES_ALL || !r->has_ranges)
		return fn(fd, file, 0, size);
	for (n = 0; n < r->n_ranges && !err; n++) {
		kml_range_get(r, n, &off, &len);
		if (off < size)
			err = fn(fd, file, off, len < size - off ? off + len : size);
	}
	return err;
}

int reint_patch(int fd, int file, const struct kml_record *r, uint64_t size)
{
	int err;

	if (ftruncate(fd, size) != 0)
		return -errno;
	err = each_range(copy_range, fd, file, r, size);
	if (!err && fsync(fd) != 0)
		err = -errno;
	return err;
}

/* A whole copy of from, cloned where that works. */
static int copy_file(int to, int from, uint64_t size, bool clone_only)
{
	if (ioctl(to, FICLONE, from) == 0)
		return 0;
	if (clone_only)
		return -EOPNOTSUPP;
	if (ftruncate(to, size) != 0)
		return -errno;
	return copy_range(to, from, 0, size);
}

/* Taking the old one's place */

static int copy_xattrs(int to, int from_path_fd)
{
	char from[32], *names, *p;
	ssize_t n, len;
	void *value = NULL;
	int err = 0;

	proc_path(from, from_path_fd);
	n = listxattr(from, NULL, 0);
	if (n <= 0)
		return n < 0 && errno != EOPNOTSUPP ? -errno : 0;
	names = malloc(n);
	value = malloc(XATTR_SIZE_MAX);
	if (!names || !value)
		err = -ENOMEM;
	else
		n = listxattr(from, names, n);
	for (p = names; !err && n > 0 && p < names + n; p += strlen(p) + 1) {
		len = getxattr(from, p, value, XATTR_SIZE_MAX);
		if (len >= 0 && fsetxattr(to, p, value, len, 0) != 0)
			err = -errno;
	}
	free(names);
	free(value);
	return err;
}

/* Owner, mode, xattrs of the old inode where the record does not say otherwise; mtime. */
static int dress(const struct reint_entry *e, int fd)
{
	const uint32_t valid = e->r.attr.valid;
	struct kml_attrs want;
	int err;

	attr_from_stat(&want, &e->obj.st);
	if (valid & KML_A_MODE)
		want.mode = e->r.attr.mode;
	if (valid & KML_A_UID)
		want.uid = e->r.attr.uid;
	if (valid & KML_A_GID)
		want.gid = e->r.attr.gid;
	err = set_attrs(fd, &want, KML_A_UID | KML_A_GID);
	if (!err)
		err = copy_xattrs(fd, e->obj.fd);
	if (!err)
		err = set_attrs(fd, &want, KML_A_MODE);
	return err ? err : set_mtime(fd, &e->r.attr.mtime);
}

/* What the CLOSE set, so that who reads the log sets no more and no less. */
static uint32_t close_valid(const struct reint_entry *e)
{
	return (e->r.attr.valid & (KML_A_MODE | KML_A_UID | KML_A_GID)) | KML_A_SIZE | KML_A_MTIME;
}

static void record_ranges(struct reint_entry *e)
{
	struct kml_record *r = &e->op.r;

	r->has_ranges = e->r.has_ranges;
	r->ranges = e->r.ranges;
	r->n_ranges = e->r.n_ranges;
	r->flags |= e->r.flags & KML_F_RANGES_ALL;
	if (!r->has_ranges)
		r->flags |= KML_F_RANGES_ALL;
	r->has_old = true;
	r->old.ino = e->obj.st.st_ino;
	r->old.gen = e->obj.gen;
	attr_from_stat(&r->old_attr, &e->obj.st);
}

/*
 * A crash could cost both versions if the new one had its name before its data
 * is written.  ext4 and btrfs see to that themselves when a rename replaces.
 */
static int data_first(int fd)
{
	struct statfs st;

	if (fstatfs(fd, &st) == 0 && ((uint32_t) st.f_type == EXT4_SUPER_MAGIC ||
				      (uint32_t) st.f_type == BTRFS_SUPER_MAGIC ||
				      (uint32_t) st.f_type == TMPFS_MAGIC))
		return 0;
	return fdatasync(fd) ? -errno : 0;
}

/* The finished inode at fd, called from in incoming/, gets the entry's name. */
static int put_in_place(struct reint_entry *e, int fd, const char *from, bool replaces)
{
	struct place *p = &e->run->place;
	struct inode **also;
	struct stat st, dir;
	struct handle h;
	uint32_t gen;
	int err;

	if (fstat(fd, &st) != 0 || fstatat(p->fd, "", &dir, AT_EMPTY_PATH) != 0)
		return -errno;
	err = handle_get(fd, "", &h, &gen);
	if (!err && replaces)
		err = data_first(fd);
	if (err)
		return err;
	entry_op(e, e->r.opcode);
	entry_is(e, &st, gen);
	if (replaces) {
		e->op.r.attr.valid = close_valid(e);
		record_ranges(e);
		e->op.r.flags |= KML_F_REPLACED;
	}
	e->op.redo = true;
	e->op.r.xattrs = e->r.xattrs;
	e->op.r.xattrs_len = e->r.xattrs_len;
	e->op.r.aliases = e->r.aliases;
	e->op.r.aliases_len = replaces ? e->r.aliases_len : 0;
	err = aliases_dirs(e, &also);
	if (err)
		return err;
	err = op_begin(&e->op);
	free(also);
	if (err)
		return err;
	if (renameat2(fs.incoming_fd, from, p->fd, e->name, replaces ? 0 : RENAME_NOREPLACE) != 0) {
		err = -errno;
		op_abort(&e->op);
		return err;
	}
	fault("reint-replaced");
	aliases_move(e);
	e->op.r.aliases_len = 0;
	if (fstat(fd, &st) == 0)
		entry_is(e, &st, gen);
	if (e->r.opcode == KML_CLOSE)
		e->op.r.attr.valid = close_valid(e);
	if (replaces)
		place_keep_mtime(e->run, p, &dir.st_mtim);
	else
		entry_ptime(e);
	op_done(&e->op);
	return 0;
}

int reint_create_file(struct reint_entry *e)
{
	char name[256];
	int fd = open_incoming(e, O_RDONLY, true), err;

	if (fd < 0)
		return fd;
	file_name(name, &e->r.file);
	err = set_attrs(fd, &e->r.attr, KML_A_UID | KML_A_GID | KML_A_MODE);
	if (!err)
		err = set_xattrs(fd, e->r.xattrs, e->r.xattrs_len);
	if (!err)
		err = set_mtime(fd, &e->r.attr.mtime);
	if (!err)
		err = put_in_place(e, fd, name, false);
	close(fd);
	return err;
}

static int replace_with(struct reint_entry *e, int fd, const char *name)
{
	int err;

	(void) inode_keep_fd(e->inode);
	err = dress(e, fd);
	if (!err)
		err = aliases_prepare(e, name);
	if (!err)
		err = put_in_place(e, fd, name, true);
	if (err) {
		aliases_unprepare(e);
		return err;
	}
	inode_clear_name(e->inode, e->run->place.inode, e->name);
	e->inode->gone = true;
	return 0;
}

static int replace_by_data(struct reint_entry *e)
{
	int fd = temp_make(), err;

	if (fd < 0)
		return fd;
	err = write_data(fd, &e->r.data);
	if (!err)
		err = replace_with(e, fd, TEMP);
	close(fd);
	if (err)
		unlinkat(fs.incoming_fd, TEMP, 0);
	return err;
}

static int replace_by_file(struct reint_entry *e)
{
	char name[256];
	int fd = open_incoming(e, O_RDONLY, true), err;

	if (fd < 0)
		return fd;
	file_name(name, &e->r.file);
	err = replace_with(e, fd, name);
	close(fd);
	return err;
}

/*
 * A copy is patched and replaces the file, so readers keep what they have open.
 * -EOPNOTSUPP: it cannot be cloned here, and nothing was done.
 */
static int replace_by_patched(struct reint_entry *e, bool clone_only)
{
	int patch = open_incoming(e, O_RDONLY, false), from = -1, fd = -1, err;
	char name[256];

	if (patch < 0)
		return patch;
	from = inode_open(e->inode, O_RDONLY);
	fd = from < 0 ? from : temp_make();
	err = fd < 0 ? fd : copy_file(fd, from, e->obj.st.st_size, clone_only);
	if (!err)
		err = reint_patch(fd, patch, &e->r, e->r.attr.size);
	if (!err)
		err = replace_with(e, fd, TEMP);
	if (fd >= 0)
		close(fd);
	if (from >= 0)
		close(from);
	close(patch);
	file_name(name, &e->r.file);
	unlinkat(fs.incoming_fd, err ? TEMP : name, 0);
	return err;
}

/* Writing into the inode */

static int set_content_attrs(struct reint_entry *e, int fd)
{
	const uint32_t valid = e->r.attr.valid & (KML_A_UID | KML_A_GID | KML_A_MODE);

	return set_attrs(fd, &e->r.attr, valid | KML_A_MTIME);
}

/* The source is durable, and then the intent, before the first byte changes. */
static int write_into(struct reint_entry *e, int file)
{
	int fd = inode_open(e->inode, O_RDWR), err;
	struct stat st;

	if (fd < 0)
		return fd;
	entry_op(e, KML_CLOSE);
	op_object(&e->op, e->inode);
	record_ranges(e);
	e->op.redo = true;
	e->op.r.file = e->r.file;
	e->op.r.has_attr = true;
	e->op.r.attr = e->r.attr;
	e->op.r.attr.valid = close_valid(e);
	err = each_range(allocate_range, fd, file, &e->op.r, e->r.attr.size);
	if (!err && fsync(file) != 0)
		err = -errno;
	if (!err)
		err = op_begin(&e->op);
	if (err)
		goto out;
	err = journal_sync();
	if (!err)
		err = reint_patch(fd, file, &e->op.r, e->r.attr.size);
	fault("reint-patch");
	if (!err)
		err = set_content_attrs(e, fd);
	if (!err && fstat(fd, &st) != 0)
		err = -errno;
	e->op.r.file.ptr = NULL;
	if (!err) {
		entry_is(e, &st, e->obj.gen);
		e->op.r.attr.valid = close_valid(e);
	}
	/*
	 * Who opens it next must not see the old size, even if a lookup that told
	 * it is still on its way.  Where nobody has it open no page of it waits for an
	 * answer from us, and this cannot block; the others are told of the size.
	 */
	e->inode->changed++;
	if (!session_is_open(e->inode))
		forget_data(e->inode);
	else
		forget_size(e->inode);
	/* Once it has begun it cannot be undone: what is there is logged. */
	op_done(&e->op);
out:
	close(fd);
	return err;
}

static int write_file_into(struct reint_entry *e, bool whole)
{
	char name[256];
	int file = open_incoming(e, O_RDONLY, whole), err;

	if (file < 0)
		return file;
	err = write_into(e, file);
	close(file);
	file_name(name, &e->r.file);
	if (!err)
		unlinkat(fs.incoming_fd, name, 0);
	return err;
}

static int write_data_into(struct reint_entry *e)
{
	int file = temp_make(), err;

	if (file < 0)
		return file;
	err = write_data(file, &e->r.data);
	e->r.file = (struct kml_str) { TEMP, strlen(TEMP) };
	if (!err)
		err = write_into(e, file);
	close(file);
	unlinkat(fs.incoming_fd, TEMP, 0);
	return err;
}

static int replace(struct reint_entry *e, bool patch)
{
	if (patch)
		return replace_by_patched(e, false);
	return e->r.data.ptr ? replace_by_data(e) : replace_by_file(e);
}

/*
 * A new inode keeps readers on the old one, but all names have to be known.
 * Where nobody has the file open, writing into it does as well: who opens it
 * waits, and that is cheaper for a patch, unless it can be cloned.
 */
int reint_close(struct reint_entry *e)
{
	const bool patch = e->flags & IZO_RE_PATCH;
	int err;

	if (!e->obj.exists)
		return -ENOENT;
	if (!S_ISREG(e->obj.st.st_mode))
		return -EISDIR;
	err = aliases_check(e);
	if (err)
		return err;
	if (session_is_open(e->inode))
		return e->obj.st.st_nlink == 1 + e->n_aliases ? replace(e, patch) : -ESTALE;
	if (e->obj.st.st_nlink == 1) {
		err = patch ? replace_by_patched(e, true) : replace(e, false);
		if (err != -EOPNOTSUPP)
			return err;
	}
	if (e->r.data.ptr)
		return write_data_into(e);
	return write_file_into(e, !patch);
}
