// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Shared mappings that can be written to.  They map the lower file; for each store
 * to a page that was clean the lower file system is asked, and so are we.
 *
 * Each of the lower file system's tables of operations gets a copy with three of ours.
 * A lower file system may be asked once for a whole folio: then all of it counts.
 */
#include "intermezzo.h"

#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>

struct izo_vm_ops {
	struct list_head			list;	/* in sbi->vm_ops */
	const struct vm_operations_struct	*lower;
	struct vm_operations_struct		ops;
};

static struct inode *upper_inode(const struct vm_area_struct *vma)
{
	return d_inode(backing_file_user_path(vma->vm_file)->dentry);
}

static const struct vm_operations_struct *lower_ops(const struct vm_area_struct *vma)
{
	return container_of(vma->vm_ops, struct izo_vm_ops, ops)->lower;
}

static void izo_vm_open(struct vm_area_struct *vma)
{
	izo_session_map(upper_inode(vma));
	if (lower_ops(vma)->open)
		lower_ops(vma)->open(vma);
}

static void izo_vm_close(struct vm_area_struct *vma)
{
	if (lower_ops(vma)->close)
		lower_ops(vma)->close(vma);
	izo_session_unmap(upper_inode(vma));
}

/* A lower file system that need not be asked: the page stays locked until it is mapped. */
static vm_fault_t lock_page_of(struct vm_fault *vmf)
{
	struct folio *folio = page_folio(vmf->page);

	folio_lock(folio);
	if (!folio->mapping) {
		folio_unlock(folio);
		return VM_FAULT_NOPAGE;
	}
	return VM_FAULT_LOCKED;
}

static vm_fault_t ask_lower(struct vm_fault *vmf)
{
	const struct vm_operations_struct *ops = lower_ops(vmf->vma);

	return ops->page_mkwrite ? ops->page_mkwrite(vmf) : lock_page_of(vmf);
}

/* What a store to the page can change. */
static void range_of(struct inode *inode, struct vm_fault *vmf, u64 *ret_off, u64 *ret_len)
{
	struct folio *folio = page_folio(vmf->page);
	const u64 size = i_size_read(izo_lower_inode(inode));

	*ret_off = folio_pos(folio);
	*ret_len = *ret_off < size ? min_t(u64, folio_size(folio), size - *ret_off) : 0;
}

/*
 * The change is over when the page is mapped, which it is before its lock can be had:
 * izo_mmap_protect() waits for that.
 */
static vm_fault_t izo_page_mkwrite(struct vm_fault *vmf)
{
	struct inode *inode = upper_inode(vmf->vma);
	struct izo_change change;
	vm_fault_t ret;
	u64 off, len;
	int err;

	sb_start_pagefault(inode->i_sb);
	range_of(inode, vmf, &off, &len);
	err = izo_session_change(inode, off, len, &change);
	if (err) {
		ret = vmf_fs_error(err);
		goto out;
	}
	change.mapped = true;
	ret = ask_lower(vmf);
	izo_session_changed(inode, &change, NULL, 0);
out:
	sb_end_pagefault(inode->i_sb);
	return ret;
}

static struct izo_vm_ops *find_ops(struct izo_sb *sbi, const struct vm_operations_struct *lower)
{
	struct izo_vm_ops *o;

	list_for_each_entry(o, &sbi->vm_ops, list)
		if (o->lower == lower)
			return o;
	o = kzalloc(sizeof(*o), GFP_KERNEL);
	if (!o)
		return NULL;
	o->lower = lower;
	o->ops = *lower;
	o->ops.open = izo_vm_open;
	o->ops.close = izo_vm_close;
	o->ops.page_mkwrite = izo_page_mkwrite;
	list_add(&o->list, &sbi->vm_ops);
	return o;
}

static int watch(struct inode *inode, struct vm_area_struct *vma)
{
	struct izo_sb *sbi = izo_sb(inode->i_sb);
	struct izo_vm_ops *o;

	if (!vma->vm_ops || vma_is_dax(vma))
		return -EOPNOTSUPP;
	mutex_lock(&sbi->vm_ops_lock);
	o = find_ops(sbi, vma->vm_ops);
	mutex_unlock(&sbi->vm_ops_lock);
	if (!o)
		return -ENOMEM;
	vma->vm_ops = &o->ops;
	izo_session_map(inode);
	return 0;
}

static void accessed(struct file *file)
{
	if (!(file->f_flags & O_NOATIME))
		touch_atime(&file->f_path);
}

int izo_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct backing_file_ctx ctx = IZO_BACKING_CTX(file, .accessed = accessed);
	struct inode *inode = file_inode(file);
	int err;

	err = backing_file_mmap(izo_real_file(file), vma, &ctx);
	if (err || izo_i(inode)->meta || !(vma->vm_flags & VM_SHARED) ||
	    !(vma->vm_flags & VM_MAYWRITE))
		return err;
	return watch(inode, vma);
}

static void protect(struct address_space *mapping, struct folio *folio)
{
	folio_lock(folio);
	if (folio->mapping == mapping && folio_mkclean(folio))
		folio_mark_dirty(folio);
	folio_unlock(folio);
}

void izo_mmap_protect(struct inode *inode, u64 off, u64 end)
{
	struct address_space *mapping = izo_lower_inode(inode)->i_mapping;
	pgoff_t index = off >> PAGE_SHIFT;
	struct folio_batch batch;
	unsigned int k;

	folio_batch_init(&batch);
	while (filemap_get_folios(mapping, &index, (end - 1) >> PAGE_SHIFT, &batch)) {
		for (k = 0; k < folio_batch_count(&batch); k++)
			protect(mapping, batch.folios[k]);
		folio_batch_release(&batch);
		cond_resched();
	}
}

void izo_mmap_exit(struct izo_sb *sbi)
{
	struct izo_vm_ops *o, *next;

	list_for_each_entry_safe(o, next, &sbi->vm_ops, list)
		kfree(o);
}
