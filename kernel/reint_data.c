// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Content of lower files, for REINT and recovery: written, cloned, patched with
 * holes as holes.
 */
#include "reint.h"

#include <linux/falloc.h>
#include <linux/file.h>
#include <linux/magic.h>
#include <linux/mm.h>

#define COPY_PIECE	(256u << 10)

int izo_write_data(struct izo_sb *sbi, struct dentry *lower, const struct kml_str *data)
{
	struct file *f = izo_meta_open(sbi, lower, O_WRONLY);
	int err;

	if (IS_ERR(f))
		return PTR_ERR(f);
	err = izo_pwrite(f, data->ptr, data->len, 0);
	fput(f);
	return err;
}

static int write_zeros(struct file *f, u64 off, u64 len)
{
	const struct page *zeros = ZERO_PAGE(0);
	size_t n;
	int err = 0;

	for (; len && !err; off += n, len -= n) {
		n = min_t(u64, len, PAGE_SIZE);
		err = izo_pwrite(f, page_address(zeros), n, off);
	}
	return err;
}

static int punch(struct file *f, u64 off, u64 len)
{
	int err = vfs_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len);

	return err == -EOPNOTSUPP ? write_zeros(f, off, len) : err;
}

static int copy_bytes(struct file *to, struct file *from, u64 off, u64 len)
{
	void *buf = kvmalloc(COPY_PIECE, GFP_KERNEL);
	size_t n;
	int err = buf ? 0 : -ENOMEM;

	for (; len && !err; off += n, len -= n) {
		n = min_t(u64, len, COPY_PIECE);
		err = izo_pread(from, buf, n, off);
		if (!err)
			err = izo_pwrite(to, buf, n, off);
		cond_resched();
	}
	kvfree(buf);
	return err;
}

/* Where the data at or behind off is; both end at most at end. */
static int next_data(struct file *f, u64 off, u64 end, u64 *ret_data, u64 *ret_hole)
{
	loff_t d = vfs_llseek(f, off, SEEK_DATA), h;

	if (d < 0 && d != -ENXIO)
		return d;
	*ret_data = d < 0 || d > end ? end : d;
	*ret_hole = end;
	if (*ret_data == end)
		return 0;
	h = vfs_llseek(f, d, SEEK_HOLE);
	if (h < 0)
		return h;
	*ret_hole = min_t(u64, h, end);
	return 0;
}

/* Make [off, end) of to what it is in from. */
static int copy_range(struct file *to, struct file *from, u64 off, u64 end)
{
	u64 data, hole;
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

static int allocate_range(struct file *to, struct file *from, u64 off, u64 end)
{
	u64 data, hole;
	int err = 0;

	for (; off < end && !err; off = hole) {
		err = next_data(from, off, end, &data, &hole);
		if (!err && hole > data)
			err = vfs_fallocate(to, FALLOC_FL_KEEP_SIZE, data, hole - data);
		if (err == -EOPNOTSUPP)
			err = 0;
	}
	return err;
}

typedef int (*range_fn)(struct file *to, struct file *from, u64 off, u64 end);

static int each_range(range_fn fn, struct file *to, struct file *from,
		      const struct kml_record *r, u64 size)
{
	u64 off, len;
	unsigned int n;
	int err = 0;

	if (r->flags & KML_F_RANGES_ALL || !r->has_ranges)
		return fn(to, from, 0, size);
	for (n = 0; n < r->n_ranges && !err; n++) {
		kml_range_get(r, n, &off, &len);
		if (off < size)
			err = fn(to, from, off, min(off + len, size));
	}
	return err;
}

/* Both ends of a copy */
struct pair {
	struct file *to, *from;
};

static int pair_open(struct izo_sb *sbi, struct pair *p, struct dentry *to, struct dentry *from)
{
	p->to = izo_meta_open(sbi, to, O_RDWR);
	if (IS_ERR(p->to))
		return PTR_ERR(p->to);
	p->from = izo_meta_open(sbi, from, O_RDONLY);
	if (!IS_ERR(p->from))
		return 0;
	fput(p->to);
	return PTR_ERR(p->from);
}

static void pair_close(struct pair *p)
{
	fput(p->to);
	fput(p->from);
}

int izo_patch_allocate(struct izo_sb *sbi, struct dentry *to, struct dentry *file,
		       const struct kml_record *r, u64 size)
{
	struct pair p;
	int err = pair_open(sbi, &p, to, file);

	if (err)
		return err;
	err = each_range(allocate_range, p.to, p.from, r, size);
	/* the source is durable before the first byte changes */
	if (!err)
		err = vfs_fsync(p.from, 0);
	pair_close(&p);
	return err;
}

int izo_patch(struct izo_sb *sbi, struct dentry *to, struct dentry *file,
	      const struct kml_record *r, u64 size)
{
	struct pair p;
	int err = pair_open(sbi, &p, to, file);

	if (err)
		return err;
	err = vfs_truncate(&p.to->f_path, size);
	if (!err)
		err = each_range(copy_range, p.to, p.from, r, size);
	if (!err)
		err = vfs_fsync(p.to, 0);
	pair_close(&p);
	return err;
}

int izo_copy_file(struct izo_sb *sbi, struct dentry *to, struct dentry *from, u64 size,
		  bool clone_only)
{
	struct pair p;
	int err = pair_open(sbi, &p, to, from);
	loff_t n;

	if (err)
		return err;
	n = vfs_clone_file_range(p.from, 0, p.to, 0, size, 0);
	if (n < 0 && clone_only)
		err = -EOPNOTSUPP;
	else if (n < 0)
		err = vfs_truncate(&p.to->f_path, size) ?: copy_range(p.to, p.from, 0, size);
	pair_close(&p);
	return err;
}

/*
 * A crash could cost both versions if the new one had its name before its data
 * is written.  ext4 and btrfs see to that themselves when a rename replaces.
 */
int izo_data_first(struct izo_sb *sbi, struct dentry *lower)
{
	const unsigned long magic = lower->d_sb->s_magic;
	struct file *f;
	int err;

	if (magic == EXT4_SUPER_MAGIC || magic == BTRFS_SUPER_MAGIC || magic == TMPFS_MAGIC)
		return 0;
	f = izo_meta_open(sbi, lower, O_WRONLY);
	if (IS_ERR(f))
		return PTR_ERR(f);
	err = vfs_fsync(f, 1);
	fput(f);
	return err;
}
