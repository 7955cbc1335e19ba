// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The lower file system: mounted by us where nobody can reach it, or a clone
 * of the mount that a directory is on.
 */
#include "intermezzo.h"

#include <linux/module.h>

/* What the lower file system says about its mount goes where ours does. */
static void share_log(struct fs_context *lower, struct fs_context *fc)
{
	if (!fc->log.log)
		return;
	refcount_inc(&fc->log.log->usage);
	lower->log.log = fc->log.log;
}

static int give_params(struct fs_context *lower, const struct izo_params *p)
{
	unsigned int k;
	int err = 0;

	for (k = 0; k < p->n_lower && !err; k++)
		err = izo_parse_fs_string(lower, p->lower[k].key, p->lower[k].value);
	return err;
}

static const char *lower_type(const struct izo_params *p)
{
	if (p->cache_type)
		return p->cache_type;
	return p->virtual ? "tmpfs" : "ext4, xfs or btrfs";
}

static struct file_system_type *find_type(struct fs_context *fc, const char *name)
{
	struct file_system_type *type = get_fs_type(name);

	if (!type) {
		errorfc(fc, "cache_type=%s: no such file system in this kernel", name);
		return ERR_PTR(-ENODEV);
	}
	if (type == &izo_fs_type || type == &izo_virtual_fs_type) {
		module_put(type->owner);
		errorfc(fc, "cache_type=%s: cannot be its own lower file system", name);
		return ERR_PTR(-EINVAL);
	}
	return type;
}

static struct vfsmount *mount_context(struct fs_context *lower, const char *source,
				      const struct izo_params *p)
{
	int err;

	err = izo_parse_fs_string(lower, "source", source);
	/* a private tmpfs is no place for everybody, unless somebody says so */
	if (!err && strcmp(lower->fs_type->name, "tmpfs") == 0)
		err = izo_parse_fs_string(lower, "mode", "0755");
	if (!err)
		err = give_params(lower, p);
	return err ? ERR_PTR(err) : izo_fc_mount(lower);
}

static struct vfsmount *mount_type(struct izo_sb *sbi, struct fs_context *fc,
				   const char *source, const char *name, unsigned int flags)
{
	struct file_system_type *type = find_type(fc, name);
	struct fs_context *lower;
	struct vfsmount *mnt;

	if (IS_ERR(type))
		return ERR_CAST(type);
	lower = fs_context_for_mount(type, flags);
	module_put(type->owner);
	if (IS_ERR(lower))
		return ERR_CAST(lower);
	if (!(flags & SB_SILENT))
		share_log(lower, fc);
	/* a superblock that is there already is somebody else's, who would pass us by */
	izo_exclusive(lower);
	mnt = mount_context(lower, source, &sbi->params);
	put_fs_context(lower);
	return mnt;
}

/* Nobody says what is on the device: the usual ones, until one finds itself there. */
static struct vfsmount *mount_any(struct izo_sb *sbi, struct fs_context *fc, const char *source)
{
	static const char *const types[] = { "ext4", "xfs", "btrfs" };
	struct vfsmount *mnt = ERR_PTR(-EINVAL);
	unsigned int k;

	if (sbi->params.cache_type || sbi->params.virtual)
		return mount_type(sbi, fc, source, lower_type(&sbi->params), 0);
	for (k = 0; k < ARRAY_SIZE(types) && PTR_ERR_OR_ZERO(mnt) == -EINVAL; k++)
		mnt = mount_type(sbi, fc, source, types[k], SB_SILENT);
	return mnt;
}

static int mount_private(struct izo_sb *sbi, struct fs_context *fc, const char *source)
{
	struct vfsmount *mnt = mount_any(sbi, fc, source);

	if (IS_ERR(mnt)) {
		if (PTR_ERR(mnt) == -EBUSY)
			errorfc(fc, "%s is mounted or otherwise in use", source);
		else
			errorfc(fc, "%s: cannot be mounted as %s", source,
				lower_type(&sbi->params));
		return PTR_ERR(mnt);
	}
	/* and nobody may come later */
	mnt->mnt_sb->s_flags |= SB_NOUSER;
	sbi->lower_mnt = mnt;
	sbi->lower_root = dget(mnt->mnt_root);
	sbi->lower_private = true;
	return 0;
}

static int clone_directory(struct izo_sb *sbi, struct fs_context *fc, const struct path *path)
{
	struct vfsmount *mnt;

	if (sbi->params.n_lower)
		return invalfc(fc, "option %s is not known", sbi->params.lower[0].key);
	mnt = clone_private_mount(path);
	if (IS_ERR(mnt)) {
		errorfc(fc, "this directory's mount cannot be cloned");
		return PTR_ERR(mnt);
	}
	if (is_idmapped_mnt(mnt)) {
		kern_unmount(mnt);
		return invalfc(fc, "an idmapped mount cannot be the lower file system");
	}
	/* how the directory is mounted elsewhere is no matter here */
	mnt->mnt_flags &= ~(MNT_READONLY | MNT_NODEV | MNT_ATIME_MASK);
	sbi->lower_mnt = mnt;
	sbi->lower_root = dget(path->dentry);
	return 0;
}

static int mount_source(struct izo_sb *sbi, struct fs_context *fc, const char *source)
{
	struct path path;
	int err;

	err = kern_path(source, LOOKUP_FOLLOW, &path);
	if (err) {
		errorfc(fc, "%s: no such device or directory", source);
		return err;
	}
	if (d_is_dir(path.dentry)) {
		err = clone_directory(sbi, fc, &path);
	} else if (S_ISBLK(d_inode(path.dentry)->i_mode)) {
		err = mount_private(sbi, fc, source);
	} else {
		errorfc(fc, "%s: neither a block device nor a directory", source);
		err = -ENOTBLK;
	}
	path_put(&path);
	return err;
}

/* Without these nothing of the design holds. */
static int check_lower(struct izo_sb *sbi, struct fs_context *fc)
{
	const struct super_block *lsb = sbi->lower_root->d_sb;

	if (sb_rdonly(lsb)) {
		errorfc(fc, "the lower file system is read-only");
		return -EROFS;
	}
	if (sb_has_encoding(lsb))
		return invalfc(fc, "the lower file system folds case");
	/* on a device it is for encryption: see izo_lookup() */
	if (sbi->lower_root->d_flags & DCACHE_OP_REVALIDATE &&
	    !(lsb->s_type->fs_flags & FS_REQUIRES_DEV))
		return invalfc(fc, "the lower file system is not a local one");
	if (lsb->s_stack_depth >= FILESYSTEM_MAX_STACK_DEPTH)
		return invalfc(fc, "too many file systems are stacked already");
	return 0;
}

int izo_lower_mount(struct izo_sb *sbi, struct fs_context *fc)
{
	const struct izo_params *p = &sbi->params;
	int err;

	if (p->virtual && p->lowerdir)
		return invalfc(fc, "lowerdir= is for the type intermezzo");
	if (!p->virtual && !p->lowerdir && !fc->source)
		return invalfc(fc, "which device or directory?");
	if (p->virtual)
		err = mount_private(sbi, fc, fc->source ?: "none");
	else
		err = mount_source(sbi, fc, p->lowerdir ?: fc->source);
	return err ?: check_lower(sbi, fc);
}

/* Where the system has proc is nobody's business. */

static struct vfsmount *mount_proc(void)
{
	struct file_system_type *type = get_fs_type("proc");
	struct fs_context *fc;
	struct vfsmount *mnt;

	if (!type)
		return ERR_PTR(-ENODEV);
	fc = fs_context_for_mount(type, SB_KERNMOUNT);
	module_put(type->owner);
	if (IS_ERR(fc))
		return ERR_CAST(fc);
	mnt = fc_mount(fc);
	put_fs_context(fc);
	return mnt;
}

struct file *izo_proc_open(const char *name)
{
	struct vfsmount *proc = mount_proc();
	struct path root;
	struct file *f;

	if (IS_ERR(proc))
		return ERR_CAST(proc);
	root = (struct path){ .mnt = proc, .dentry = proc->mnt_root };
	f = file_open_root(&root, name, O_RDONLY, 0);
	mntput(proc);
	return f;
}

void izo_lower_unmount(struct izo_sb *sbi)
{
	dput(sbi->meta);
	dput(sbi->lower_root);
	if (sbi->lower_mnt)
		kern_unmount(sbi->lower_mnt);
}
