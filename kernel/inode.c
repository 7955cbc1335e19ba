// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Upper inodes: found by the lower inode they stand for.
 */
#include "intermezzo.h"

#include <linux/fs_stack.h>
#include <linux/module.h>

/*
 * What of the lower inode's flags is meant for programs, too; and S_NOSEC: the lower file
 * system has found that a write need not look for set-id bits and capabilities.
 */
#define IZO_INODE_FLAGS	(S_SYNC | S_APPEND | S_IMMUTABLE | S_NOATIME | S_DIRSYNC | S_NOSEC)

static struct kmem_cache *izo_inode_cachep;

static void inode_init_once_cb(void *p)
{
	struct izo_inode *ii = p;

	inode_init_once(&ii->vfs_inode);
	mutex_init(&ii->lock);
	INIT_LIST_HEAD(&ii->dirty);
}

int izo_inode_cache_init(void)
{
	izo_inode_cachep = kmem_cache_create("izo_inode", sizeof(struct izo_inode), 0,
					     SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT,
					     inode_init_once_cb);
	return izo_inode_cachep ? 0 : -ENOMEM;
}

void izo_inode_cache_exit(void)
{
	rcu_barrier();	/* inodes are freed by RCU */
	kmem_cache_destroy(izo_inode_cachep);
}

struct inode *izo_alloc_inode(struct super_block *sb)
{
	struct izo_inode *ii = alloc_inode_sb(sb, izo_inode_cachep, GFP_KERNEL);

	if (!ii)
		return NULL;
	ii->lower = NULL;
	ii->lower_inode = NULL;
	ii->meta = false;
	ii->gone = false;
	ii->ctime_seen = false;
	ii->busy = 0;
	ii->session = NULL;
	ii->writers = 0;
	ii->readers = 0;
	ii->maps = 0;
	ii->flushed = false;
	ii->covered = 0;
	ii->made = 0;
	ii->children = 0;
	ii->children_round = 0;
	ii->setting = 0;
	ii->closed_meanwhile = false;
	return &ii->vfs_inode;
}

void izo_free_inode(struct inode *inode)
{
	kmem_cache_free(izo_inode_cachep, izo_i(inode));
}

void izo_evict_inode(struct inode *inode)
{
	truncate_inode_pages_final(&inode->i_data);
	clear_inode(inode);
	izo_session_free(izo_i(inode));
	dput(izo_i(inode)->lower);
	izo_i(inode)->lower = NULL;
}

void izo_copy_times(struct inode *inode)
{
	fsstack_copy_attr_times(inode, izo_lower_inode(inode));
}

void izo_copy_size(struct inode *inode)
{
	fsstack_copy_inode_size(inode, izo_lower_inode(inode));
}

/*
 * Change times tell versions apart, but before Linux 6.13 two changes within a tick of the
 * clock have the same: then the lower inode gets a finer one.  Nor may it go back to
 * one that it had.
 */
static void distinguish(struct inode *inode)
{
	const struct timespec64 old = inode_get_ctime(inode);
	struct inode *lower = izo_lower_inode(inode);
	struct timespec64 ctime = inode_get_ctime(lower);
	int order = timespec64_compare(&ctime, &old);

	if (order > 0 || (order == 0 && !izo_i(inode)->ctime_seen))
		return;
	ktime_get_real_ts64(&ctime);
	if (timespec64_compare(&ctime, &old) <= 0) {
		ctime = old;
		ctime = timespec64_add(ctime, ns_to_timespec64(lower->i_sb->s_time_gran));
	}
	inode_set_ctime_to_ts(lower, timestamp_truncate(ctime, lower));
	mark_inode_dirty(lower);
}

void izo_copy_attr(struct inode *inode)
{
	const struct inode *lower = izo_lower_inode(inode);

	if (!izo_i(inode)->meta && lower->i_nlink && !izo_inode_is_new(inode))
		distinguish(inode);
	izo_i(inode)->ctime_seen = false;
	inode->i_mode = lower->i_mode;
	inode->i_uid = lower->i_uid;
	inode->i_gid = lower->i_gid;
	if (inode->i_nlink != lower->i_nlink)
		set_nlink(inode, lower->i_nlink);
	inode_set_flags(inode, lower->i_flags & IZO_INODE_FLAGS, IZO_INODE_FLAGS);
	izo_copy_times(inode);
	izo_copy_size(inode);
}

static void set_ops(struct inode *inode)
{
	switch (inode->i_mode & S_IFMT) {
	case S_IFREG:
		inode->i_op = &izo_file_iops;
		inode->i_fop = &izo_file_fops;
		break;
	case S_IFDIR:
		inode->i_op = &izo_dir_iops;
		inode->i_fop = &izo_dir_fops;
		break;
	case S_IFLNK:
		inode->i_op = &izo_link_iops;
		break;
	default:
		inode->i_op = &izo_special_iops;
		init_special_inode(inode, inode->i_mode, izo_lower_inode(inode)->i_rdev);
		break;
	}
}

static int same_lower(struct inode *inode, void *lower)
{
	return izo_lower_inode(inode) == lower;
}

static int set_lower(struct inode *inode, void *lower)
{
	izo_i(inode)->lower_inode = lower;
	return 0;
}

/*
 * The lower inode stays in memory as long as the upper one, by its dentry, so its
 * address is the key.
 */
struct inode *izo_iget(struct super_block *sb, struct dentry *lower, bool meta)
{
	struct inode *lower_inode = d_inode(lower);
	struct inode *inode;

	inode = iget5_locked(sb, (unsigned long)lower_inode, same_lower, set_lower,
			     lower_inode);
	if (!inode)
		return ERR_PTR(-ENOMEM);
	if (!izo_inode_is_new(inode))
		return inode;
	inode->i_ino = lower_inode->i_ino;
	inode->i_generation = lower_inode->i_generation;
	izo_i(inode)->lower = dget(lower);
	izo_i(inode)->meta = meta;
	izo_copy_attr(inode);
	set_ops(inode);
	/* the lower inode has them; ours would only be a second, older copy */
	cache_no_acl(inode);
	inode->i_acl = ACL_DONT_CACHE;
	inode->i_default_acl = ACL_DONT_CACHE;
	unlock_new_inode(inode);
	return inode;
}
