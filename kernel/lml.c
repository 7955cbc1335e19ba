// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The LML's file: made, checked, read into memory; and the back ends that need
 * no help of the lower file system.
 */
#include "journal.h"

#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/vmalloc.h>

#define RING_MIN	(8 * KML_REC_MAX)	/* of the LML */

/* No file: a lower file system that ends with the mount */

static int none_start(struct izo_journal *j, size_t bytes, struct izo_trans *t)
{
	t->error = 0;
	return 0;
}

static void none_write(struct izo_journal *j, struct izo_trans *t, size_t off, size_t len)
{
}

static void none_stop(struct izo_journal *j, struct izo_trans *t)
{
}

static int none_sync(struct izo_journal *j)
{
	return 0;
}

static int none_flush(struct izo_journal *j, u64 tail)
{
	return 0;
}

static void none_close(struct izo_journal *j)
{
}

const struct izo_lml_ops izo_lml_none_ops = {
	.start	= none_start,
	.write	= none_write,
	.stop	= none_stop,
	.sync	= none_sync,
	.flush	= none_flush,
	.close	= none_close,
};

/*
 * A plain file: pages of the image that changed are written by the flusher.
 * Records are made durable in the KML; here it is only what is not there yet.
 */

static void file_write(struct izo_journal *j, struct izo_trans *t, size_t off, size_t len)
{
	unsigned long *dirty = j->ops_data;
	size_t page;

	for (page = off >> PAGE_SHIFT; page <= (off + len - 1) >> PAGE_SHIFT; page++)
		if (!test_bit(page, dirty))
			set_bit(page, dirty);
}

static int write_pages(struct izo_journal *j)
{
	const unsigned long pages = j->image_size >> PAGE_SHIFT;
	unsigned long *dirty = j->ops_data, page;
	int err;

	for_each_set_bit(page, dirty, pages) {
		clear_bit(page, dirty);
		smp_mb__after_atomic();	/* what is stored from now on sets it again */
		err = izo_pwrite(j->lml, j->image + (page << PAGE_SHIFT), PAGE_SIZE,
				 (u64)page << PAGE_SHIFT);
		if (err) {
			set_bit(page, dirty);
			return err;
		}
	}
	return vfs_fsync(j->lml, 1);
}

static void clean_pages(struct izo_journal *j, u64 from, u64 to)
{
	unsigned long *dirty = j->ops_data;
	const u64 base = izo_image_offset(j, j->ring);

	for (from = round_up(base + from, PAGE_SIZE); from + PAGE_SIZE <= base + to;
	     from += PAGE_SIZE)
		clear_bit(from >> PAGE_SHIFT, dirty);
}

/*
 * What lies before the tail is in the KML and need not be written.  Pages from the
 * head on may be taken at any moment and stay as they are.
 */
static void clean_before(struct izo_journal *j, u64 pos)
{
	u64 head = j->ring_size - izo_ring_rest(j, j->head + j->promised);
	u64 tail = j->ring_size - izo_ring_rest(j, pos);

	if (j->head + j->promised - pos >= j->ring_size)
		return;
	if (head <= tail) {
		clean_pages(j, head, tail);
	} else {
		clean_pages(j, 0, tail);
		clean_pages(j, head, j->ring_size);
	}
}

static int file_flush(struct izo_journal *j, u64 tail)
{
	mutex_lock(&j->lock);
	clean_before(j, tail);
	mutex_unlock(&j->lock);
	return write_pages(j);
}

static int file_sync(struct izo_journal *j)
{
	return izo_journal_flush_lml(j);
}

static void file_close(struct izo_journal *j)
{
	bitmap_free(j->ops_data);
}

const struct izo_lml_ops izo_lml_file_ops = {
	.start	= none_start,
	.write	= file_write,
	.stop	= none_stop,
	.sync	= file_sync,
	.flush	= file_flush,
	.close	= file_close,
};

int izo_lml_write(struct izo_journal *j, size_t off, size_t len)
{
	struct izo_trans t;
	int err;

	if (izo_dead(j->sbi))
		return -EIO;
	err = j->ops->start(j, len, &t);
	if (err)
		return err;
	j->ops->write(j, &t, off, len);
	j->ops->stop(j, &t);
	return t.error;
}

/* The header */

int izo_lml_state_put(struct izo_journal *j, u64 tail, u32 flags)
{
	struct lml_state s = {
		.serial = cpu_to_le64(++j->serial),
		.tail = cpu_to_le64(tail),
		.seq = cpu_to_le64(j->durable_seq),
		.kml_offset = cpu_to_le64(j->data_end),
		.kml_recno = cpu_to_le64(j->data_recno),
		.flags = cpu_to_le32(flags),
	};
	struct lml_state *to = lml_state_put(j->header, &s);

	return izo_lml_write(j, izo_image_offset(j, to), sizeof(*to));
}

static void set_parts(struct izo_journal *j)
{
	j->header = (struct lml_header *)j->image;
	j->n_openw = le64_to_cpu(j->header->openw_slots);
	j->openw = (struct lml_openw *)(j->image + le64_to_cpu(j->header->openw_offset));
	j->ring = j->image + le64_to_cpu(j->header->ring_offset);
	j->ring_size = le64_to_cpu(j->header->ring_size);
}

/* The file */

static int alloc_image(struct izo_journal *j, size_t size)
{
	j->image_size = size;
	j->image = vzalloc(size);
	return j->image ? 0 : -ENOMEM;
}

/*
 * All its blocks are written, so that no write to it needs space ever again.
 * Until it has its name a crash leaves nothing that counts.
 */
static int make_file(struct izo_journal *j)
{
	struct file *f = izo_meta_create(j->sbi, "lml.new");
	int err;

	if (IS_ERR(f))
		return PTR_ERR(f);
	j->lml = f;
	err = alloc_image(j, IZO_LML_SIZE);
	if (err)
		return err;
	lml_header_make((struct lml_header *)j->image, j->image_size, j->replica_uuid, j->epoch);
	err = izo_pwrite(f, j->image, j->image_size, 0);
	if (!err)
		err = vfs_fsync(f, 0);
	if (!err)
		err = izo_meta_rename(j->sbi, j->sbi->meta, "lml.new", "lml");
	return err;
}

static int read_file(struct izo_journal *j, struct dentry *d)
{
	struct file *f = izo_meta_open(j->sbi, d, O_RDWR);
	loff_t size;
	int err;

	if (IS_ERR(f))
		return PTR_ERR(f);
	j->lml = f;
	size = i_size_read(file_inode(f));
	if (size < 2 << 20 || size > 1 << 30 || size % PAGE_SIZE)
		return -EBADMSG;
	err = alloc_image(j, size);
	if (!err)
		err = izo_pread(f, j->image, size, 0);
	return err;
}

static int open_file(struct izo_journal *j, struct fs_context *fc)
{
	struct dentry *d = izo_meta_lookup(j->sbi->meta, "lml");
	int err;

	if (PTR_ERR_OR_ZERO(d) == -ENOENT) {
		err = make_file(j);
		if (err)
			errorfc(fc, "its lml cannot be made: error %d", err);
		return err;
	}
	if (IS_ERR(d))
		return PTR_ERR(d);
	err = read_file(j, d);
	dput(d);
	if (!err)
		err = lml_header_check((struct lml_header *)j->image, j->image_size, RING_MIN,
				       j->replica_uuid, j->epoch);
	if (!err)
		return 0;
	errorfc(fc, "its lml cannot be used: error %d", err);
	errorfc(fc, "remove .intermezzo/%s/lml to go on without the changes that it may hold",
		j->sbi->params.fileset);
	return err;
}

int izo_lml_open(struct izo_journal *j, struct fs_context *fc)
{
	int err;

	if (j->sbi->params.virtual) {
		err = alloc_image(j, IZO_LML_SIZE);
		if (err)
			return err;
		lml_header_make((struct lml_header *)j->image, j->image_size, j->replica_uuid,
				j->epoch);
		j->ops = &izo_lml_none_ops;
	} else {
		err = open_file(j, fc);
		if (err)
			return err;
		set_parts(j);
		if (izo_lml_jbd2_open(j)) {
			pr_info("%s: the lml is in the journal\n", j->sbi->params.fileset);
			return 0;
		}
		j->ops_data = bitmap_zalloc(j->image_size >> PAGE_SHIFT, GFP_KERNEL);
		if (!j->ops_data)
			return -ENOMEM;
		j->ops = &izo_lml_file_ops;
	}
	set_parts(j);
	return 0;
}

void izo_lml_close(struct izo_journal *j)
{
	if (j->ops)
		j->ops->close(j);
	vfree(j->image);
	if (j->lml)
		fput(j->lml);
}
