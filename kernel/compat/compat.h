/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What differs between kernels, and nothing else.  The module is written for
 * the newest one; for older ones the newest names are made of what there is.
 * compat/probes/ has a file for each IZO_HAVE_*, which conftest.sh tries to compile.
 *
 * Where arguments differ the calls on the lower file system have wrappers of our own,
 * izo_do_*(): they need no idmap (lower mounts have none) and no delegation (see
 * izo_break()).
 */
#ifndef INTERMEZZO_COMPAT_H
#define INTERMEZZO_COMPAT_H

#include "config.h"

#include <linux/exportfs.h>
#include <linux/fileattr.h>
#ifdef IZO_HAVE_FILELOCK_H
#include <linux/filelock.h>
#endif
#ifdef IZO_HAVE_FOLIO_BATCH_H
#include <linux/folio_batch.h>
#else
#include <linux/pagevec.h>
#endif
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/mount.h>
#include <linux/namei.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <linux/xattr.h>

/* Types and names */

#ifndef IZO_HAVE_MNT_IDMAP
#define mnt_idmap	user_namespace
#define nop_mnt_idmap	init_user_ns
#endif

#ifdef IZO_HAVE_XATTR_HANDLERS_CONST
typedef const struct xattr_handler *const *izo_xattr_handlers;
#define IZO_XATTR_HANDLERS(name) static const struct xattr_handler *const name[]
#else
typedef const struct xattr_handler **izo_xattr_handlers;
#define IZO_XATTR_HANDLERS(name) static const struct xattr_handler *name[]
#endif

#ifndef IZO_HAVE_INODE_GET_MTIME
#define inode_get_mtime(inode) ((inode)->i_mtime)
#endif

#ifndef IZO_HAVE_VMF_FS_ERROR
#define vmf_fs_error vmf_error
#endif

#ifndef IZO_HAVE_FILE_KATTR
#define file_kattr fileattr
#endif

#ifndef IZO_HAVE_INODE_JUST_DROP
#define inode_just_drop generic_delete_inode
#endif

#ifdef IZO_HAVE_INODE_STATE_READ
#define izo_inode_is_new(inode) (inode_state_read_once(inode) & I_NEW)
#else
#define izo_inode_is_new(inode) ((inode)->i_state & I_NEW)
#endif

/* freezing */

static inline int izo_freeze(struct super_block *sb)
{
#if defined(IZO_HAVE_FREEZE_OWNER)
	return freeze_super(sb, FREEZE_HOLDER_KERNEL, NULL);
#elif defined(IZO_HAVE_FREEZE_HOLDER)
	return freeze_super(sb, FREEZE_HOLDER_KERNEL);
#else
	return freeze_super(sb);
#endif
}

static inline int izo_thaw(struct super_block *sb)
{
#if defined(IZO_HAVE_FREEZE_OWNER)
	return thaw_super(sb, FREEZE_HOLDER_KERNEL, NULL);
#elif defined(IZO_HAVE_FREEZE_HOLDER)
	return thaw_super(sb, FREEZE_HOLDER_KERNEL);
#else
	return thaw_super(sb);
#endif
}

/* file handles */

#ifdef IZO_HAVE_EXPORTFS_FLAGS
#define izo_encode_inode_fh(inode, fid, len, parent) \
	exportfs_encode_inode_fh(inode, fid, len, parent, 0)
#define izo_decode_fh_raw(mnt, fid, len, type, acceptable) \
	exportfs_decode_fh_raw(mnt, fid, len, type, 0, acceptable, NULL)
#else
#define izo_encode_inode_fh(inode, fid, len, parent) \
	exportfs_encode_inode_fh(inode, fid, len, parent)
#define izo_decode_fh_raw(mnt, fid, len, type, acceptable) \
	exportfs_decode_fh_raw(mnt, fid, len, type, acceptable, NULL)
#endif

/* nameless files */

#ifndef IZO_HAVE_D_MARK_TMPFILE
/* d_tmpfile() takes a link away, which the new inode does not have here (any more). */
static inline void izo_d_tmpfile(struct file *file, struct inode *inode)
{
	set_nlink(inode, 1);
	d_tmpfile(file, inode);
}
#else
static inline void izo_d_tmpfile(struct file *file, struct inode *inode)
{
	d_mark_tmpfile(file, inode);
	d_instantiate(file->f_path.dentry, inode);
}
#endif

#ifndef IZO_HAVE_SB_HAS_ENCODING
static inline bool sb_has_encoding(const struct super_block *sb)
{
#if IS_ENABLED(CONFIG_UNICODE)
	return sb->s_encoding;
#else
	return false;
#endif
}
#endif

/* i_op->update_time() */

#if defined(IZO_HAVE_FS_UPDATE_TIME)
#define IZO_UPDATE_TIME_ARGS enum fs_update_time type, unsigned int flags
#define IZO_UPDATES_ATIME (type == FS_UPD_ATIME)
#elif defined(IZO_HAVE_UPDATE_TIME_2)
#define IZO_UPDATE_TIME_ARGS int flags
#define IZO_UPDATES_ATIME (flags & S_ATIME)
#else
#define IZO_UPDATE_TIME_ARGS struct timespec64 *time, int flags
#define IZO_UPDATES_ATIME (flags & S_ATIME)
#endif

/* i_op->create() */

#ifdef IZO_HAVE_CREATE_4
#define IZO_CREATE_ARGS
#else
#define IZO_CREATE_ARGS , bool excl
#endif

/* mounting */

static inline int izo_parse_fs_string(struct fs_context *fc, const char *key, const char *value)
{
#ifdef IZO_HAVE_PARSE_FS_STRING_3
	return vfs_parse_fs_string(fc, key, value);
#else
	return vfs_parse_fs_string(fc, key, value, value ? strlen(value) : 0);
#endif
}

static inline struct vfsmount *izo_fc_mount(struct fs_context *fc)
{
#ifdef IZO_HAVE_FC_MOUNT_LONGTERM
	return fc_mount_longterm(fc);
#else
	return fc_mount(fc);
#endif
}

#ifdef IZO_HAVE_FC_EXCLUSIVE
#define izo_exclusive(fc) ((fc)->exclusive = true)
#else
#define izo_exclusive(fc) do { } while (0)
#endif

/* locking a file as a whole, for ourselves */

static inline int izo_flock(struct file *file)
{
	struct file_lock fl;

	locks_init_lock(&fl);
#ifdef IZO_HAVE_FILE_LOCK_CORE
	fl.c.flc_file = file;
	fl.c.flc_owner = file;
	fl.c.flc_pid = 0;
	fl.c.flc_flags = FL_FLOCK;
	fl.c.flc_type = F_WRLCK;
#else
	fl.fl_file = file;
	fl.fl_owner = file;
	fl.fl_flags = FL_FLOCK;
	fl.fl_type = F_WRLCK;
#endif
	fl.fl_end = OFFSET_MAX;
	return locks_lock_file_wait(file, &fl);
}

/* looking up, and locking the directories for a change */

#ifndef IZO_HAVE_START_CREATING
static inline struct dentry *lookup_noperm_unlocked(struct qstr *name, struct dentry *base)
{
	return lookup_one_len_unlocked(name->name, base, name->len);
}

/* The directory's lock is held. */
static inline struct dentry *lookup_noperm(struct qstr *name, struct dentry *base)
{
	return lookup_one_len(name->name, base, name->len);
}

static inline struct dentry *izo_lock_lookup(struct dentry *parent, const struct qstr *name)
{
	struct dentry *d;

	inode_lock_nested(d_inode(parent), I_MUTEX_PARENT);
	d = lookup_one_len(name->name, parent, name->len);
	if (IS_ERR(d))
		inode_unlock(d_inode(parent));
	return d;
}

/* Leave a directory that one of the start_*() has locked. */
static inline void end_dirop(struct dentry *d)
{
	struct dentry *parent = dget_parent(d);

	dput(d);
	inode_unlock(d_inode(parent));
	dput(parent);
}

#define end_creating	end_dirop
#define end_removing	end_dirop

static inline struct dentry *start_creating_noperm(struct dentry *parent, struct qstr *name)
{
	struct dentry *d = izo_lock_lookup(parent, name);

	if (!IS_ERR(d) && d_is_positive(d)) {
		end_dirop(d);
		return ERR_PTR(-EEXIST);
	}
	return d;
}

static inline struct dentry *start_removing_noperm(struct dentry *parent, struct qstr *name)
{
	struct dentry *d = izo_lock_lookup(parent, name);

	if (!IS_ERR(d) && d_is_negative(d)) {
		end_dirop(d);
		return ERR_PTR(-ENOENT);
	}
	return d;
}
#endif

/* Both ends of a rename on the lower file system, between start and end. */
struct izo_renaming {
	struct dentry	*old_parent, *new_parent;
	struct qstr	old_name, new_name;
	unsigned int	flags;
	struct dentry	*old, *new;
#ifdef IZO_HAVE_START_CREATING
	struct renamedata rd;
#else
	struct dentry	*trap;
#endif
};

#ifdef IZO_HAVE_START_CREATING
static inline int izo_start_renaming(struct izo_renaming *r)
{
	int err;

	r->rd = (struct renamedata) {
		.mnt_idmap	= &nop_mnt_idmap,
		.old_parent	= r->old_parent,
		.new_parent	= r->new_parent,
		.flags		= r->flags,
	};
	err = start_renaming(&r->rd, 0, &r->old_name, &r->new_name);
	r->old = r->rd.old_dentry;
	r->new = r->rd.new_dentry;
	return err;
}

static inline void izo_end_renaming(struct izo_renaming *r)
{
	end_renaming(&r->rd);
}
#else
static inline int izo_start_renaming(struct izo_renaming *r)
{
	int err;

	r->trap = lock_rename(r->old_parent, r->new_parent);
	if (IS_ERR(r->trap))
		return PTR_ERR(r->trap);
	r->old = lookup_one_len(r->old_name.name, r->old_parent, r->old_name.len);
	err = PTR_ERR_OR_ZERO(r->old);
	if (err)
		goto out_lock;
	r->new = lookup_one_len(r->new_name.name, r->new_parent, r->new_name.len);
	err = PTR_ERR_OR_ZERO(r->new);
	if (err)
		goto out_old;
	err = -ENOENT;
	if (d_is_negative(r->old))
		goto out_new;
	err = -EINVAL;
	if (r->old == r->trap)
		goto out_new;
	err = r->flags & RENAME_EXCHANGE ? -EINVAL : -ENOTEMPTY;
	if (r->new == r->trap)
		goto out_new;
	return 0;
out_new:
	dput(r->new);
out_old:
	dput(r->old);
out_lock:
	unlock_rename(r->old_parent, r->new_parent);
	return err;
}

static inline void izo_end_renaming(struct izo_renaming *r)
{
	dput(r->new);
	dput(r->old);
	unlock_rename(r->old_parent, r->new_parent);
}
#endif

/* the changes themselves; all under the locks of start_*() */

#ifdef IZO_HAVE_VFS_CREATE_4
#define izo_vfs_create(dir, d, mode) vfs_create(&nop_mnt_idmap, d, mode, NULL)
#else
#define izo_vfs_create(dir, d, mode) vfs_create(&nop_mnt_idmap, dir, d, mode, true)
#endif

#ifdef IZO_HAVE_DIROP_DELEGATION
#define izo_vfs_symlink(dir, d, to) vfs_symlink(&nop_mnt_idmap, dir, d, to, NULL)
#define izo_vfs_mknod(dir, d, mode, dev) vfs_mknod(&nop_mnt_idmap, dir, d, mode, dev, NULL)
#define izo_vfs_rmdir(dir, d) vfs_rmdir(&nop_mnt_idmap, dir, d, NULL)
#else
#define izo_vfs_symlink(dir, d, to) vfs_symlink(&nop_mnt_idmap, dir, d, to)
#define izo_vfs_mknod(dir, d, mode, dev) vfs_mknod(&nop_mnt_idmap, dir, d, mode, dev)
#define izo_vfs_rmdir(dir, d) vfs_rmdir(&nop_mnt_idmap, dir, d)
#endif

/*
 * The directory, maybe by another dentry than d, which is given up for it.  On
 * an error the caller keeps d in any case.
 */
static inline struct dentry *izo_vfs_mkdir(struct inode *dir, struct dentry *d, umode_t mode)
{
#if defined(IZO_HAVE_DIROP_DELEGATION)
	return vfs_mkdir(&nop_mnt_idmap, dir, d, mode, NULL);
#elif defined(IZO_HAVE_MKDIR_DENTRY)
	return vfs_mkdir(&nop_mnt_idmap, dir, d, mode);
#else
	int err = vfs_mkdir(&nop_mnt_idmap, dir, d, mode);

	return err ? ERR_PTR(err) : d;
#endif
}

/* i_op->mkdir returns a dentry or a number */
#if defined(IZO_HAVE_MKDIR_DENTRY)
typedef struct dentry *izo_mkdir_result;
#define IZO_MKDIR_RESULT(err) ERR_PTR(err)
#else
typedef int izo_mkdir_result;
#define IZO_MKDIR_RESULT(err) (err)
#endif

static inline int izo_vfs_rename(struct dentry *old_parent, struct dentry *old,
				 struct dentry *new_parent, struct dentry *new,
				 unsigned int flags)
{
	struct renamedata rd = {
#if defined(IZO_HAVE_RENAMEDATA_PARENT)
		.mnt_idmap	= &nop_mnt_idmap,
		.old_parent	= old_parent,
		.new_parent	= new_parent,
#else
#ifdef IZO_HAVE_MNT_IDMAP
		.old_mnt_idmap	= &nop_mnt_idmap,
		.new_mnt_idmap	= &nop_mnt_idmap,
#else
		.old_mnt_userns	= &init_user_ns,
		.new_mnt_userns	= &init_user_ns,
#endif
		.old_dir	= d_inode(old_parent),
		.new_dir	= d_inode(new_parent),
#endif
		.old_dentry	= old,
		.new_dentry	= new,
		.flags		= flags,
	};

	return vfs_rename(&rd);
}

#include "acl.h"
#include "backing.h"

#endif
