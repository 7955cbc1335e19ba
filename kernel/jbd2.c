// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The LML in blocks that are journaled as metadata: the back end for a lower ext4 of
 * our own.  Its journal commits in order, so an intent whose transaction was closed
 * before the operation began is on disk whenever the operation is.
 *
 * The file's blocks are written once through the file, then only through the block
 * device's cache, in handles of our own; the file must keep its blocks as long as it is
 * used so (there are no revoke records for them), hence S_SWAPFILE.  The image in memory is what
 * counts; a write copies from there.
 *
 * Which journal it is, ext4 tells nobody but /proc/fs/jbd2: a private instance of proc is asked.
 */
#include "journal.h"

#include <linux/buffer_head.h>
#include <linux/jbd2.h>
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/proc_fs.h>

struct lml_jbd2 {
	journal_t		*journal;
	struct super_block	*lsb;
	unsigned int		bits;		/* of a block's size */
	unsigned int		n;
	struct buffer_head	**bh;		/* of each block of the file, held */
	tid_t			last_tid;	/* of the last write */
};

static int jbd2_start(struct izo_journal *j, size_t bytes, struct izo_trans *t)
{
	struct lml_jbd2 *b = j->ops_data;
	const int blocks = (bytes >> b->bits) + 4;
	handle_t *handle;

	t->error = 0;
	sb_start_intwrite(b->lsb);
	handle = jbd2__journal_start(b->journal, blocks, 0, 0, GFP_NOFS, 0, 0);
	if (IS_ERR(handle)) {
		sb_end_intwrite(b->lsb);
		return PTR_ERR(handle);
	}
	t->handle = handle;
	return 0;
}

static int write_block(struct izo_journal *j, handle_t *handle, unsigned int block, size_t from,
		       size_t len)
{
	struct lml_jbd2 *b = j->ops_data;
	struct buffer_head *bh = b->bh[block];
	int err;

	err = jbd2_journal_get_write_access(handle, bh);
	if (err)
		return err;
	memcpy(bh->b_data + from, j->image + ((size_t)block << b->bits) + from, len);
	return jbd2_journal_dirty_metadata(handle, bh);
}

static void jbd2_write(struct izo_journal *j, struct izo_trans *t, size_t off, size_t len)
{
	struct lml_jbd2 *b = j->ops_data;
	const size_t size = 1 << b->bits;
	size_t from, n;
	int err = 0;

	for (; len && !err; off += n, len -= n) {
		from = off & (size - 1);
		n = min(len, size - from);
		err = write_block(j, t->handle, off >> b->bits, from, n);
	}
	if (err)
		t->error = err;
	WRITE_ONCE(b->last_tid, ((handle_t *)t->handle)->h_transaction->t_tid);
}

static void jbd2_stop(struct izo_journal *j, struct izo_trans *t)
{
	struct lml_jbd2 *b = j->ops_data;
	int err = jbd2_journal_stop(t->handle);

	if (err && !t->error)
		t->error = err;
	sb_end_intwrite(b->lsb);
}

static int jbd2_sync(struct izo_journal *j)
{
	struct lml_jbd2 *b = j->ops_data;

	return jbd2_complete_transaction(b->journal, READ_ONCE(b->last_tid));
}

/* What is written is ordered: what uses its space again comes later. */
static int jbd2_flush(struct izo_journal *j, u64 tail)
{
	return 0;
}

/* In-place changes of content could reach the disk before the intent that tells of them. */
static void jbd2_hasten(struct izo_journal *j)
{
	struct lml_jbd2 *b = j->ops_data;

	jbd2_journal_start_commit(b->journal, NULL);
}

static void put_blocks(struct lml_jbd2 *b)
{
	unsigned int k;

	for (k = 0; b->bh && k < b->n; k++)
		brelse(b->bh[k]);
	kvfree(b->bh);
}

static void jbd2_close(struct izo_journal *j)
{
	struct inode *inode = file_inode(j->lml);
	struct lml_jbd2 *b = j->ops_data;

	(void)jbd2_sync(j);
	put_blocks(b);
	inode_lock(inode);
	inode->i_flags &= ~S_SWAPFILE;
	inode_unlock(inode);
	/* the next who reads the file shall not find what it was before us */
	invalidate_mapping_pages(inode->i_mapping, 0, -1);
	kfree(b);
}

static const struct izo_lml_ops izo_lml_jbd2_ops = {
	.start	= jbd2_start,
	.write	= jbd2_write,
	.stop	= jbd2_stop,
	.sync	= jbd2_sync,
	.flush	= jbd2_flush,
	.hasten	= jbd2_hasten,
	.close	= jbd2_close,
};

/* Finding the journal */

static journal_t *journal_of(struct super_block *lsb)
{
	char name[96];
	journal_t *journal;
	struct file *f;

	snprintf(name, sizeof(name), "fs/jbd2/%pg-8/info", lsb->s_bdev);
	f = izo_proc_open(name);
	if (IS_ERR(f))
		return NULL;
	journal = pde_data(file_inode(f));
	fput(f);
	return journal;
}

/* The journal of an ext4 that is ours alone; NULL where things are not as they should be. */
static journal_t *find_journal(struct super_block *lsb)
{
	journal_t *journal = journal_of(lsb);

	if (!journal || journal->j_private != lsb || journal->j_fs_dev != lsb->s_bdev)
		return NULL;
	/* these commits would not have our blocks in them */
	if (jbd2_has_feature_fast_commit(journal))
		return NULL;
	return journal;
}

/* Taking the blocks over */

static int map_block(struct izo_journal *j, struct lml_jbd2 *b, unsigned int k)
{
	sector_t block = k;
	int err;

	err = bmap(file_inode(j->lml), &block);
	if (err)
		return err;
	/* a hole, or not written yet */
	if (!block)
		return -ENODATA;
	b->bh[k] = sb_bread(b->lsb, block);
	return b->bh[k] ? 0 : -EIO;
}

static int map_blocks(struct izo_journal *j, struct lml_jbd2 *b)
{
	unsigned int k;
	int err = 0;

	b->n = j->image_size >> b->bits;
	b->bh = kvcalloc(b->n, sizeof(*b->bh), GFP_KERNEL);
	if (!b->bh)
		return -ENOMEM;
	for (k = 0; k < b->n && !err; k++)
		err = map_block(j, b, k);
	return err;
}

/* Both views must agree before the file's own is given up. */
static int compare_blocks(struct izo_journal *j, struct lml_jbd2 *b)
{
	const size_t size = 1 << b->bits;
	unsigned int k;

	for (k = 0; k < b->n; k++)
		if (memcmp(b->bh[k]->b_data, j->image + k * size, size) != 0)
			return -ESTALE;
	return 0;
}

static int take_blocks(struct izo_journal *j, struct lml_jbd2 *b)
{
	struct inode *inode = file_inode(j->lml);
	int err;

	err = vfs_fsync(j->lml, 0);
	if (!err)
		err = map_blocks(j, b);
	if (!err)
		err = compare_blocks(j, b);
	if (err)
		return err;
	inode_lock(inode);
	inode->i_flags |= S_SWAPFILE;
	inode_unlock(inode);
	invalidate_mapping_pages(inode->i_mapping, 0, -1);
	return 0;
}

bool izo_lml_jbd2_open(struct izo_journal *j)
{
	struct super_block *lsb = j->sbi->lower_root->d_sb;
	struct lml_jbd2 *b;
	journal_t *journal;

	if (!j->sbi->lower_private || lsb->s_magic != EXT4_SUPER_MAGIC || !lsb->s_bdev)
		return false;
	journal = find_journal(lsb);
	if (!journal)
		return false;
	b = kzalloc(sizeof(*b), GFP_KERNEL);
	if (!b)
		return false;
	b->journal = journal;
	b->lsb = lsb;
	b->bits = lsb->s_blocksize_bits;
	j->ops_data = b;
	if (take_blocks(j, b)) {
		put_blocks(b);
		kfree(b);
		j->ops_data = NULL;
		return false;
	}
	j->ops = &izo_lml_jbd2_ops;
	return true;
}
