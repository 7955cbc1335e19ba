// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * REINT's operations, one entry at a time.
 */
#include "reint.h"

#include <linux/mm.h>

#define TEMP	IZO_REINT_TEMP ".new"	/* one batch at a time, so one name */

static struct izo_sb *sbi_of(const struct izo_reint_entry_run *e)
{
	return e->run->sbi;
}

/* Preparing in incoming/ */

static int remove_temp(struct izo_reint_entry_run *e, const struct kml_str *name)
{
	struct qstr q = QSTR_INIT(name->ptr, name->len);
	struct dentry *d;
	int err;

	d = start_removing_noperm(e->run->incoming, &q);
	if (IS_ERR(d))
		return PTR_ERR(d) == -ENOENT ? 0 : PTR_ERR(d);
	e->quiet = true;
	if (d_is_dir(d))
		err = izo_vfs_rmdir(d_inode(e->run->incoming), d);
	else
		err = vfs_unlink(&nop_mnt_idmap, d_inode(e->run->incoming), d, NULL);
	e->quiet = false;
	end_removing(d);
	return err;
}

static const struct kml_str temp_name = { TEMP, sizeof(TEMP) - 1 };

static struct dentry *make_in(struct izo_reint_entry_run *e, struct dentry *d, umode_t mode)
{
	struct inode *dir = d_inode(e->run->incoming);
	const struct kml_attrs *a = &e->r.attr;
	int err;

	switch (mode & S_IFMT) {
	case S_IFREG:
		err = izo_vfs_create(dir, d, mode);
		break;
	case S_IFDIR:
		return izo_vfs_mkdir(dir, d, mode);
	case S_IFLNK: {
		char *text = kmemdup_nul(e->r.link.ptr, e->r.link.len, GFP_KERNEL);

		err = text ? izo_vfs_symlink(dir, d, text) : -ENOMEM;
		kfree(text);
		break;
	}
	default:
		err = izo_vfs_mknod(dir, d, mode, MKDEV(a->rdev_major, a->rdev_minor));
		break;
	}
	return err ? ERR_PTR(err) : d;
}

/* A new object under the temporary name; its inode, counted. */
static struct inode *make_temp(struct izo_reint_entry_run *e, umode_t mode)
{
	struct qstr q = QSTR_INIT(temp_name.ptr, temp_name.len);
	struct dentry *d, *made;
	struct inode *inode;
	int err;

	err = remove_temp(e, &temp_name);
	if (err)
		return ERR_PTR(err);
	d = start_creating_noperm(e->run->incoming, &q);
	if (IS_ERR(d))
		return ERR_CAST(d);
	e->quiet = true;
	made = make_in(e, d, mode);
	e->quiet = false;
	if (IS_ERR(made)) {
		end_creating(d);
		return ERR_CAST(made);
	}
	inode = d_inode(made);
	ihold(inode);
	end_creating(made);
	return inode;
}

/* The sender's finished file; a regular one with the size that it says. */
static struct inode *find_incoming(struct izo_reint_entry_run *e, bool whole)
{
	struct qstr q = QSTR_INIT(e->file.ptr, e->file.len);
	struct dentry *d = lookup_noperm_unlocked(&q, e->run->incoming);
	struct inode *inode;

	if (IS_ERR(d))
		return ERR_CAST(d);
	inode = d_inode(d);
	if (inode)
		ihold(inode);
	dput(d);
	if (!inode)
		return ERR_PTR(-ENODATA);
	izo_copy_attr(inode);
	if (!S_ISREG(inode->i_mode) || inode->i_nlink != 1 ||
	    (whole && i_size_read(inode) != e->r.attr.size)) {
		iput(inode);
		return ERR_PTR(-EINVAL);
	}
	return inode;
}

/* The content of the record as a file in incoming/; its inode, counted. */
static struct inode *content(struct izo_reint_entry_run *e, bool whole)
{
	struct inode *inode;
	int err;

	e->file = e->r.file;
	if (!e->r.data.ptr)
		return find_incoming(e, whole);
	e->file = temp_name;
	inode = make_temp(e, S_IFREG | 0600);
	if (IS_ERR(inode))
		return inode;
	err = izo_write_data(sbi_of(e), izo_lower_dentry(inode), &e->r.data);
	if (!err)
		return inode;
	iput(inode);
	(void)remove_temp(e, &temp_name);
	return ERR_PTR(err);
}

/* Its name, by one rename; the rest is done by izo_reint_finish() below. */
static int give_name(struct izo_reint_entry_run *e)
{
	struct izo_renaming r = {
		.old_parent	= e->run->incoming,
		.new_parent	= e->parent,
		.old_name	= QSTR_INIT(e->file.ptr, e->file.len),
		.new_name	= e->name,
	};
	int err;

	err = izo_start_renaming(&r);
	if (err)
		return err;
	e->d = r.new;
	/* first: the VFS has an opinion of its own about what may be replaced by what */
	err = izo_reint_guards(e);
	if (!err && e->r.opcode != KML_CLOSE && d_is_positive(r.new))
		err = -EEXIST;
	e->finish = true;
	if (!err)
		err = izo_vfs_rename(r.old_parent, r.old, r.new_parent, r.new, 0);
	e->finish = false;
	e->d = NULL;
	izo_end_renaming(&r);
	return err;
}

/* What the CLOSE set, so that who reads the log sets no more and no less. */
static u32 close_valid(const struct izo_reint_entry_run *e)
{
	return (e->r.attr.valid & (KML_A_MODE | KML_A_UID | KML_A_GID)) |
	       KML_A_SIZE | KML_A_MTIME;
}

static void record_ranges(struct izo_reint_entry_run *e, struct izo_op *op,
			  const struct inode *old)
{
	struct kml_record *r = &op->r;

	r->has_ranges = e->r.has_ranges;
	r->ranges = e->r.ranges;
	r->n_ranges = e->r.n_ranges;
	r->flags |= e->r.flags & KML_F_RANGES_ALL;
	if (!r->has_ranges)
		r->flags |= KML_F_RANGES_ALL;
	izo_op_old(op, old);
}

/* The record of an object that comes from incoming/, which itself is not logged. */
struct izo_op *izo_reint_replace_op(struct izo_reint_entry_run *e, struct inode *inode,
				    struct inode *tdir, struct dentry *new)
{
	struct izo_op *op = izo_op_name(tdir, e->r.opcode, new);

	if (IS_ERR(op))
		return op;
	op->obj = inode;
	op->r.obj = (struct kml_oid) { inode->i_ino, inode->i_generation };
	op->r.link = e->r.link;
	op->r.xattrs = e->r.xattrs;
	op->r.xattrs_len = e->r.xattrs_len;
	izo_op_attr(op, inode, 0);
	if (e->r.opcode == KML_CLOSE) {
		op->r.attr.valid = close_valid(e);
		op->r.flags |= KML_F_REPLACED;
		if (d_is_positive(new))
			record_ranges(e, op, d_inode(new));
	}
	return op;
}

/* New content is no change of a directory: its mtime stays what it was. */
static void keep_mtime(struct izo_reint_entry_run *e, struct inode *dir,
		       const struct timespec64 *was)
{
	struct kml_attrs a = { };

	izo_time_of(&a.mtime, was);
	(void)izo_lower_setattr(sbi_of(e), izo_lower_dentry(dir), &a, KML_A_MTIME);
	izo_copy_attr(dir);
}

static void finished(struct izo_reint_entry_run *e, struct izo_op *op, struct inode *inode,
		     struct inode *tdir, struct inode *old, const struct timespec64 *mtime)
{
	izo_i(inode)->meta = false;
	izo_copy_attr(inode);
	izo_op_attr(op, inode, op->r.attr.valid);
	if (e->r.opcode == KML_CLOSE)
		keep_mtime(e, tdir, mtime);
	else
		izo_reint_ptime(e, op, tdir, NULL);
	if (old)
		izo_i(old)->gone = true;
	izo_reint_result_is(e, inode);
}

int izo_reint_finish(struct izo_reint_entry_run *e, struct inode *dir, struct dentry *old,
		     struct inode *tdir, struct dentry *new)
{
	const struct timespec64 mtime = inode_get_mtime(izo_lower_inode(tdir));
	struct inode *inode = d_inode(old), *victim = d_inode(new);
	struct izo_op *op;
	int err;

	/* only CLOSE is about something that is there */
	if (e->r.opcode == KML_CLOSE ? !victim : !!victim)
		return izo_reint_guards(e) ?: (victim ? -EEXIST : -ENOENT);
	op = izo_reint_replace_op(e, inode, tdir, new);
	if (IS_ERR(op))
		return PTR_ERR(op);
	err = izo_op_begin(op);
	if (err) {
		izo_op_free(op);
		return err;
	}
	err = izo_move_lower(dir, old, tdir, new, 0);
	if (err) {
		izo_op_abort(op);
		return err;
	}
	izo_fault(sbi_of(e), "reint-replaced");
	finished(e, op, inode, tdir, victim, &mtime);
	izo_op_done(op);
	return 0;
}

/* Making objects */

static int dress_new(struct izo_reint_entry_run *e, struct inode *inode)
{
	struct dentry *lower = izo_lower_dentry(inode);
	struct izo_sb *sbi = sbi_of(e);
	int err;

	err = izo_lower_setattr(sbi, lower, &e->r.attr, KML_A_UID | KML_A_GID | KML_A_MODE);
	if (!err)
		err = izo_lower_set_items(sbi, lower, e->r.xattrs, e->r.xattrs_len);
	if (!err)
		err = izo_lower_setattr(sbi, lower, &e->r.attr, KML_A_MTIME);
	izo_copy_attr(inode);
	return err;
}

static umode_t type_of(const struct izo_reint_entry_run *e)
{
	switch (e->r.opcode) {
	case KML_MKDIR:
		return S_IFDIR | 0700;
	case KML_SYMLINK:
		return S_IFLNK | 0777;
	case KML_MKNOD:
		return (e->r.attr.mode & S_IFMT) | 0600;
	default:
		return S_IFREG | 0600;
	}
}

static int do_make(struct izo_reint_entry_run *e)
{
	struct inode *inode;
	int err;

	if (e->r.data.ptr || e->r.file.ptr) {
		inode = content(e, true);
	} else {
		e->file = temp_name;
		inode = make_temp(e, type_of(e));
	}
	if (IS_ERR(inode))
		return PTR_ERR(inode);
	err = dress_new(e, inode);
	if (!err)
		err = give_name(e);
	iput(inode);
	/* the sender's file stays for another try */
	if (err && !e->r.file.ptr)
		(void)remove_temp(e, &temp_name);
	return err;
}

/* Removing, moving, linking: the VFS and dir.c do it all */

static int do_remove(struct izo_reint_entry_run *e)
{
	struct dentry *d = start_removing_noperm(e->parent, &e->name);
	struct inode *inode, *dir = d_inode(e->parent);
	int err;

	if (IS_ERR(d))
		return PTR_ERR(d);
	inode = d_inode(d);
	ihold(inode);
	e->d = d;
	err = izo_reint_guards(e);
	if (!err && e->r.opcode == KML_RMDIR)
		err = izo_vfs_rmdir(dir, d);
	else if (!err)
		err = vfs_unlink(&nop_mnt_idmap, dir, d, NULL);
	e->d = NULL;
	end_removing(d);
	if (!err && !inode->i_nlink)
		izo_i(inode)->gone = true;
	iput(inode);
	return err;
}

static int rename_locked(struct izo_reint_entry_run *e, struct izo_renaming *r)
{
	struct inode *inode = d_inode(r->old), *target = d_inode(r->new);
	unsigned int flags = e->r.flags & KML_F_EXCHANGE ? RENAME_EXCHANGE : 0;
	int err;

	if (flags && !target)
		return -ENOENT;
	ihold(inode);
	if (target)
		ihold(target);
	e->d = r->old;
	e->td = r->new;
	err = izo_reint_guards(e);
	if (!err)
		err = izo_vfs_rename(r->old_parent, r->old, r->new_parent, r->new, flags);
	e->d = NULL;
	e->td = NULL;
	if (!err)
		izo_reint_result_is(e, inode);
	if (!err && target && !target->i_nlink)
		izo_i(target)->gone = true;
	iput(target);
	iput(inode);
	return err;
}

static int do_rename(struct izo_reint_entry_run *e)
{
	struct izo_renaming r = {
		.old_parent	= e->parent,
		.new_parent	= e->tparent,
		.old_name	= e->name,
		.new_name	= e->tname,
		.flags		= e->r.flags & KML_F_EXCHANGE ? RENAME_EXCHANGE : 0,
	};
	int err;

	err = izo_start_renaming(&r);
	if (err)
		return err;
	err = rename_locked(e, &r);
	izo_end_renaming(&r);
	return err;
}

/* Both directories are locked as for a rename, so that both names stay what they are. */
static int do_link(struct izo_reint_entry_run *e)
{
	struct izo_renaming r = {
		.old_parent	= e->parent,
		.new_parent	= e->tparent,
		.old_name	= e->name,
		.new_name	= e->tname,
	};
	int err;

	err = izo_start_renaming(&r);
	if (err)
		return err;
	e->d = r.old;
	e->td = r.new;
	err = izo_reint_guards(e);
	if (!err && d_is_positive(r.new))
		err = -EEXIST;
	if (!err)
		err = vfs_link(r.old, &nop_mnt_idmap, d_inode(r.new_parent), r.new, NULL);
	if (!err)
		izo_reint_result_is(e, d_inode(r.old));
	e->d = NULL;
	e->td = NULL;
	izo_end_renaming(&r);
	return err;
}

/* The object alone: its directory is locked, too, so that the name stays its. */

typedef int (*object_fn)(struct izo_reint_entry_run *e, struct dentry *d);

static int on_object_locked(struct izo_reint_entry_run *e, struct dentry *d, object_fn fn)
{
	struct inode *inode = d_inode(d);
	int err;

	e->d = d;
	if (!inode)
		return izo_reint_guards(e) ?: -ENOENT;
	inode_lock_nested(inode, I_MUTEX_CHILD);
	err = fn(e, d);
	if (!err)
		izo_reint_result_is(e, inode);
	inode_unlock(inode);
	return err;
}

static int on_root(struct izo_reint_entry_run *e, object_fn fn)
{
	struct dentry *root = sbi_of(e)->sb->s_root;
	int err;

	inode_lock(d_inode(root));
	e->d = root;
	err = fn(e, root);
	if (!err)
		izo_reint_result_is(e, d_inode(root));
	inode_unlock(d_inode(root));
	e->d = NULL;
	return err;
}

static int on_object(struct izo_reint_entry_run *e, object_fn fn)
{
	struct inode *dir = d_inode(e->parent);
	struct dentry *d;
	int err;

	if (!e->name.len)
		return on_root(e, fn);
	inode_lock_nested(dir, I_MUTEX_PARENT);
	d = lookup_noperm(&e->name, e->parent);
	err = PTR_ERR_OR_ZERO(d);
	if (!err) {
		err = on_object_locked(e, d, fn);
		dput(d);
	}
	e->d = NULL;
	inode_unlock(dir);
	return err;
}

static int set_logged(struct izo_reint_entry_run *e, struct dentry *d, u32 valid)
{
	struct inode *inode = d_inode(d);
	struct izo_op *op = izo_op_inode(inode, KML_SETATTR, d);
	int err;

	if (IS_ERR(op))
		return PTR_ERR(op);
	izo_op_attr(op, inode, valid);
	izo_op_old(op, inode);
	err = izo_op_begin(op);
	if (err) {
		izo_op_free(op);
		return err;
	}
	err = izo_lower_setattr(sbi_of(e), izo_lower_dentry(inode), &e->r.attr, valid);
	izo_copy_attr(inode);
	if (err) {
		izo_op_abort(op);
		return err;
	}
	izo_op_attr(op, inode, valid);
	izo_op_done(op);
	return 0;
}

/* A local CLOSE that is logged at the same time may have the mtime of before. */
static int set_attr(struct izo_reint_entry_run *e, struct dentry *d)
{
	const u32 valid = e->r.attr.valid ?: KML_A_UID | KML_A_GID | KML_A_MODE | KML_A_MTIME;
	struct inode *inode = d_inode(d);
	int err;

	if (!(valid & KML_A_MTIME) || !S_ISREG(inode->i_mode))
		return set_logged(e, d, valid);
	izo_session_setting(inode);
	err = set_logged(e, d, valid);
	izo_session_set(inode, d);
	return err;
}

/* An ACL is part of the mode: what the record says comes out. */
static int change_xattr(struct izo_reint_entry_run *e, struct dentry *lower)
{
	char c[XATTR_NAME_MAX + 1];
	struct kml_str name, value;
	size_t pos = 0;
	int err;

	if (!kml_xattr_next(e->r.xattrs, e->r.xattrs_len, &pos, &name, &value))
		return -EINVAL;
	memcpy(c, name.ptr, name.len);
	c[name.len] = 0;
	err = izo_lower_setxattr(sbi_of(e), lower, c,
				 e->r.opcode == KML_SETXATTR ? value.ptr ?: "" : NULL, value.len);
	if (!err && e->r.has_attr && strcmp(c, XATTR_NAME_POSIX_ACL_ACCESS) == 0)
		err = izo_lower_setattr(sbi_of(e), lower, &e->r.attr, KML_A_MODE);
	return err;
}

static int set_xattr(struct izo_reint_entry_run *e, struct dentry *d)
{
	struct inode *inode = d_inode(d);
	struct izo_op *op = izo_op_inode(inode, e->r.opcode, d);
	int err;

	if (IS_ERR(op))
		return PTR_ERR(op);
	op->r.xattrs = e->r.xattrs;
	op->r.xattrs_len = e->r.xattrs_len;
	izo_op_attr(op, inode, 0);
	err = izo_op_begin(op);
	if (err) {
		izo_op_free(op);
		return err;
	}
	err = change_xattr(e, izo_lower_dentry(inode));
	izo_copy_attr(inode);
	if (err) {
		izo_op_abort(op);
		return err;
	}
	izo_op_attr(op, inode, 0);
	izo_op_done(op);
	return 0;
}

/* New content */

/* Owner, mode, xattrs of the old inode where the record does not say otherwise; mtime. */
static int dress_as(struct izo_reint_entry_run *e, struct inode *inode, struct inode *old)
{
	const u32 valid = e->r.attr.valid;
	struct dentry *lower = izo_lower_dentry(inode);
	struct izo_sb *sbi = sbi_of(e);
	struct kml_attrs want;
	int err;

	izo_attr_of(&want, izo_lower_inode(old));
	if (valid & KML_A_MODE)
		want.mode = e->r.attr.mode;
	if (valid & KML_A_UID)
		want.uid = e->r.attr.uid;
	if (valid & KML_A_GID)
		want.gid = e->r.attr.gid;
	want.mtime = e->r.attr.mtime;
	err = izo_lower_setattr(sbi, lower, &want, KML_A_UID | KML_A_GID);
	if (!err)
		err = izo_lower_copy_xattrs(sbi, lower, izo_lower_dentry(old));
	if (!err)
		err = izo_lower_setattr(sbi, lower, &want, KML_A_MODE | KML_A_MTIME);
	izo_copy_attr(inode);
	return err;
}

static int replace_with(struct izo_reint_entry_run *e, struct inode *inode, struct inode *old)
{
	struct izo_sb *sbi = sbi_of(e);
	int err;

	err = dress_as(e, inode, old);
	if (!err)
		err = izo_data_first(sbi, izo_lower_dentry(inode));
	if (err)
		return err;
	izo_session_writer_wait(sbi);
	return old->i_nlink > 1 ? izo_reint_replace_all(e, inode, old) : give_name(e);
}

static int replace(struct izo_reint_entry_run *e, struct inode *old)
{
	struct inode *inode = content(e, true);
	int err;

	if (IS_ERR(inode))
		return PTR_ERR(inode);
	err = replace_with(e, inode, old);
	iput(inode);
	if (err && e->r.data.ptr)
		(void)remove_temp(e, &temp_name);
	return err;
}

/*
 * A copy is patched and replaces the file, so readers keep what they have open.
 * -EOPNOTSUPP: it cannot be cloned here, and nothing was done.
 */
static int replace_by_patched(struct izo_reint_entry_run *e, struct inode *old, bool clone_only)
{
	struct izo_sb *sbi = sbi_of(e);
	struct inode *patch, *inode;
	int err;

	e->file = e->r.file;
	patch = find_incoming(e, false);
	if (IS_ERR(patch))
		return PTR_ERR(patch);
	inode = make_temp(e, S_IFREG | 0600);
	err = PTR_ERR_OR_ZERO(inode);
	if (err)
		goto out_patch;
	err = izo_copy_file(sbi, izo_lower_dentry(inode), izo_lower_dentry(old),
			    i_size_read(izo_lower_inode(old)), clone_only);
	if (!err)
		err = izo_patch(sbi, izo_lower_dentry(inode), izo_lower_dentry(patch), &e->r,
				e->r.attr.size);
	e->file = temp_name;
	if (!err)
		err = replace_with(e, inode, old);
	iput(inode);
	(void)remove_temp(e, err ? &temp_name : &e->r.file);
out_patch:
	iput(patch);
	return err;
}

/* The source is durable, and then the intent, before the first byte changes. */
static int write_into(struct izo_reint_entry_run *e, struct dentry *d, struct inode *file)
{
	struct inode *inode = d_inode(d);
	struct dentry *lower = izo_lower_dentry(inode), *from = izo_lower_dentry(file);
	struct izo_sb *sbi = sbi_of(e);
	struct izo_op *op;
	int err;

	op = izo_op_inode(inode, KML_CLOSE, d);
	if (IS_ERR(op))
		return PTR_ERR(op);
	record_ranges(e, op, inode);
	op->redo = true;
	op->r.file = e->file;
	op->r.has_attr = true;
	op->r.attr = e->r.attr;
	op->r.attr.valid = close_valid(e);
	err = izo_patch_allocate(sbi, lower, from, &op->r, e->r.attr.size);
	if (!err)
		err = izo_op_begin(op);
	if (err) {
		izo_op_free(op);
		return err;
	}
	err = izo_journal_sync(sbi->journal);
	if (!err)
		err = izo_patch(sbi, lower, from, &op->r, e->r.attr.size);
	izo_fault(sbi, "reint-patch");
	if (!err)
		err = izo_lower_setattr(sbi, lower, &e->r.attr, close_valid(e) & ~KML_A_SIZE);
	izo_copy_attr(inode);
	op->r.file.ptr = NULL;
	/* once it has begun it cannot be undone: what is there is logged */
	izo_op_attr(op, inode, close_valid(e));
	izo_op_done(op);
	return err;
}

/* Nobody has it open, and who opens it waits. */
static int take_alone(struct inode *inode)
{
	struct izo_inode *ii = izo_i(inode);
	int err = 0;

	mutex_lock(&ii->lock);
	if (ii->writers || ii->readers || ii->maps ||
	    mapping_mapped(izo_lower_inode(inode)->i_mapping))
		err = -EBUSY;
	else
		ii->busy = IZO_NOBODY;
	mutex_unlock(&ii->lock);
	return err;
}

static void release(struct inode *inode)
{
	mutex_lock(&izo_i(inode)->lock);
	izo_i(inode)->busy = IZO_FREE;
	mutex_unlock(&izo_i(inode)->lock);
	wake_up_var(&izo_i(inode)->busy);
}

static int write_content(struct izo_reint_entry_run *e, struct dentry *d)
{
	int err;

	err = izo_reint_guards(e);
	if (err)
		return err;
	err = take_alone(d_inode(d));
	if (err)
		return err;
	/* making room for it changes the file's times already */
	e->checked = true;
	err = write_into(e, d, e->content);
	e->checked = false;
	release(d_inode(d));
	return err;
}

/* What is in incoming/ is seen to before and after: its lock is not taken below others. */
static int write_whole(struct izo_reint_entry_run *e)
{
	int err;

	e->content = content(e, !(e->flags & IZO_RE_PATCH));
	if (IS_ERR(e->content))
		return PTR_ERR(e->content);
	err = on_object(e, write_content);
	iput(e->content);
	if (!err || e->r.data.ptr)
		(void)remove_temp(e, &e->file);
	return err;
}

static bool is_open(struct inode *inode)
{
	const struct izo_inode *ii = izo_i(inode);

	return ii->writers || ii->readers || ii->maps ||
	       mapping_mapped(izo_lower_inode(inode)->i_mapping);
}

/*
 * A new inode keeps readers on the old one, but all names have to be known.  Where nobody
 * has the file open, writing into it does as well: who opens it waits, and that is cheaper for
 * a patch, unless it can be cloned.  -EBUSY: it was opened just now.
 */
static int close_once(struct izo_reint_entry_run *e, struct inode *inode)
{
	const bool patch = e->flags & IZO_RE_PATCH, open = is_open(inode);
	int err;

	if (open && inode->i_nlink > 1 && !e->r.aliases_len)
		return -ESTALE;
	if (open || inode->i_nlink == 1) {
		if (patch)
			err = replace_by_patched(e, inode, !open);
		else
			err = replace(e, inode);
		if (err != -EOPNOTSUPP)
			return err;
	}
	return write_whole(e);
}

static int do_close(struct izo_reint_entry_run *e)
{
	struct dentry *d;
	struct inode *inode;
	int err, tries = 0;

	izo_session_writer_wait(sbi_of(e));
	d = lookup_noperm_unlocked(&e->name, e->parent);
	if (IS_ERR(d))
		return PTR_ERR(d);
	inode = d_inode(d);
	/* before the work is done; nobody is kept waiting for that */
	e->d = d;
	e->peek = true;
	err = izo_reint_guards(e);
	e->peek = false;
	e->d = NULL;
	if (!err && !inode)
		err = -ENOENT;
	else if (!err && !S_ISREG(inode->i_mode))
		err = -EISDIR;
	if (!err) {
		do {
			err = close_once(e, inode);
		} while (err == -EBUSY && ++tries < 100);
	}
	dput(d);
	return err;
}

int izo_reint_do(struct izo_reint_entry_run *e)
{
	if (e->flags & IZO_RE_THERE)
		return izo_reint_there(e);
	switch (e->r.opcode) {
	case KML_CREATE:
	case KML_MKDIR:
	case KML_SYMLINK:
	case KML_MKNOD:
		return do_make(e);
	case KML_CLOSE:
		return do_close(e);
	case KML_UNLINK:
	case KML_RMDIR:
		return do_remove(e);
	case KML_RENAME:
		return do_rename(e);
	case KML_LINK:
		return do_link(e);
	case KML_SETATTR:
		return on_object(e, set_attr);
	default:
		return on_object(e, set_xattr);
	}
}
