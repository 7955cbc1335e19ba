// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Names: lookup, and all that makes, moves and removes them.
 *
 * The VFS holds the upper directories' locks.  Below them each operation takes those of
 * the lower directories, looks the names up there, and does the same thing.
 */
#include "journal.h"
#include "reint.h"

#include <linux/fs_stack.h>

/* What is special in the root */

bool izo_name_is(const struct qstr *name, const char *what)
{
	return name->len == strlen(what) && memcmp(name->name, what, name->len) == 0;
}

static bool is_root(const struct inode *dir)
{
	return dir == d_inode(dir->i_sb->s_root);
}

bool izo_name_hidden(const struct inode *dir, const struct qstr *name)
{
	return is_root(dir) && izo_name_is(name, IZO_LOST_FOUND);
}

bool izo_name_protected(const struct inode *dir, const struct qstr *name)
{
	return is_root(dir) && (izo_name_is(name, IZO_LOST_FOUND) ||
				izo_name_is(name, IZO_META_DIR));
}

static bool meta_child(const struct inode *dir, const struct qstr *name)
{
	return izo_i(dir)->meta || (is_root(dir) && izo_name_is(name, IZO_META_DIR));
}

/* Lookup */

static struct dentry *izo_lookup(struct inode *dir, struct dentry *dentry, unsigned int flags)
{
	struct qstr name = QSTR_INIT(dentry->d_name.name, dentry->d_name.len);
	struct inode *inode = NULL;
	struct dentry *lower;

	if (dentry->d_name.len > NAME_MAX)
		return ERR_PTR(-ENAMETOOLONG);
	if (izo_name_hidden(dir, &dentry->d_name))
		return d_splice_alias(NULL, dentry);
	lower = lookup_noperm_unlocked(&name, izo_lower_dentry(dir));
	if (IS_ERR(lower))
		return lower;
	/* ext4's encryption without its key: the names are not those they will be */
	if (lower->d_flags & DCACHE_NOKEY_NAME)
		inode = ERR_PTR(-ENOKEY);
	else if (d_is_positive(lower))
		inode = izo_iget(dir->i_sb, lower, meta_child(dir, &dentry->d_name));
	dput(lower);
	return d_splice_alias(inode, dentry);
}

/* Making objects */

/* What is to be made; link for a symlink. */
struct make {
	umode_t		mode;
	dev_t		rdev;
	const char	*link;
};

/* The dentry of what was made, which for a directory may be another one. */
static struct dentry *make_lower(struct inode *dir, struct dentry *lower, const struct make *m)
{
	int err;

	switch (m->mode & S_IFMT) {
	case S_IFREG:
		err = izo_vfs_create(dir, lower, m->mode);
		break;
	case S_IFDIR:
		return izo_vfs_mkdir(dir, lower, m->mode);
	case S_IFLNK:
		err = izo_vfs_symlink(dir, lower, m->link);
		break;
	default:
		err = izo_vfs_mknod(dir, lower, m->mode, m->rdev);
		break;
	}
	return err ? ERR_PTR(err) : lower;
}

static int make_locked(struct inode *dir, struct dentry *dentry, const struct make *m)
{
	struct qstr name = QSTR_INIT(dentry->d_name.name, dentry->d_name.len);
	struct dentry *lower, *made;
	struct inode *inode;
	int err = 0;

	lower = start_creating_noperm(izo_lower_dentry(dir), &name);
	if (IS_ERR(lower))
		return PTR_ERR(lower);
	made = make_lower(izo_lower_inode(dir), lower, m);
	if (IS_ERR(made)) {
		err = PTR_ERR(made);
		goto out;
	}
	lower = made;
	inode = izo_iget(dir->i_sb, lower, izo_i(dir)->meta);
	if (IS_ERR(inode))
		err = PTR_ERR(inode);
	else
		d_instantiate(dentry, inode);
out:
	izo_copy_attr(dir);
	end_creating(lower);
	return err;
}

static unsigned int make_opcode(const struct make *m)
{
	switch (m->mode & S_IFMT) {
	case S_IFDIR:
		return KML_MKDIR;
	case S_IFLNK:
		return KML_SYMLINK;
	case S_IFREG:
		return KML_CREATE;
	default:
		return KML_MKNOD;
	}
}

static struct izo_op *make_begin(struct inode *dir, struct dentry *dentry, const struct make *m)
{
	struct izo_op *op = izo_op_name(dir, make_opcode(m), dentry);
	int err;

	if (IS_ERR(op))
		return op;
	op->extra = izo_acl_room(dir);
	op->r.has_attr = true;
	op->r.attr.mode = m->mode;
	if (m->link)
		op->r.link = (struct kml_str) { m->link, strlen(m->link) };
	err = izo_op_begin(op);
	if (!err)
		return op;
	izo_op_free(op);
	return ERR_PTR(err);
}

static void make_done(struct izo_op *op, struct inode *dir, struct inode *inode)
{
	izo_op_object(op, inode);
	izo_op_attr(op, inode, 0);
	izo_op_ptime(op, dir, NULL);
	/* ACLs from the parent become part of the record */
	if (op->extra && !op->nolog &&
	    izo_acl_items(izo_lower_inode(inode), &op->items, &op->r.xattrs_len) == 0)
		op->r.xattrs = op->items;
	izo_op_done(op);
}

static int make(struct inode *dir, struct dentry *dentry, const struct make *m)
{
	struct vfsmount *mnt = izo_sb(dir->i_sb)->lower_mnt;
	struct izo_op *op;
	int err;

	if (izo_name_protected(dir, &dentry->d_name))
		return -EPERM;
	op = make_begin(dir, dentry, m);
	if (IS_ERR(op))
		return PTR_ERR(op);
	err = mnt_want_write(mnt);
	if (!err) {
		err = make_locked(dir, dentry, m);
		mnt_drop_write(mnt);
	}
	if (err)
		izo_op_abort(op);
	else
		make_done(op, dir, d_inode(dentry));
	return err;
}

static int izo_create(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry,
		      umode_t mode IZO_CREATE_ARGS)
{
	return make(dir, dentry, &(struct make){ .mode = S_IFREG | (mode & S_IALLUGO) });
}

static izo_mkdir_result izo_mkdir(struct mnt_idmap *idmap, struct inode *dir,
				  struct dentry *dentry, umode_t mode)
{
	const struct make m = { .mode = S_IFDIR | (mode & S_IALLUGO) };

	return IZO_MKDIR_RESULT(make(dir, dentry, &m));
}

static int izo_mknod(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry,
		     umode_t mode, dev_t rdev)
{
	return make(dir, dentry, &(struct make){ .mode = mode, .rdev = rdev });
}

static int izo_symlink(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry,
		       const char *link)
{
	return make(dir, dentry, &(struct make){ .mode = S_IFLNK | 0777, .link = link });
}

/* A file without a name; lower and upper get their own when they are linked. */
static int tmpfile_lower(struct inode *dir, struct file *file, umode_t mode)
{
	const struct path parent = izo_lower_path(dir);
	struct inode *inode;
	struct file *real;

	real = backing_tmpfile_open(file, file->f_flags, &parent, mode, current_cred());
	if (IS_ERR(real))
		return PTR_ERR(real);
	inode = izo_iget(dir->i_sb, real->f_path.dentry, izo_i(dir)->meta);
	fput(real);
	if (IS_ERR(inode))
		return PTR_ERR(inode);
	izo_d_tmpfile(file, inode);
	return 0;
}

static int izo_tmpfile(struct mnt_idmap *idmap, struct inode *dir, struct file *file,
		       umode_t mode)
{
	struct vfsmount *mnt = izo_sb(dir->i_sb)->lower_mnt;
	int err;

	err = mnt_want_write(mnt);
	if (err)
		return err;
	err = tmpfile_lower(dir, file, mode);
	mnt_drop_write(mnt);
	return finish_open_simple(file, err);
}

static int link_locked(struct inode *inode, struct inode *dir, struct dentry *dentry)
{
	struct qstr name = QSTR_INIT(dentry->d_name.name, dentry->d_name.len);
	struct dentry *lower;
	int err;

	lower = start_creating_noperm(izo_lower_dentry(dir), &name);
	if (IS_ERR(lower))
		return PTR_ERR(lower);
	err = vfs_link(izo_lower_dentry(inode), &nop_mnt_idmap, izo_lower_inode(dir), lower, NULL);
	izo_copy_attr(inode);
	izo_copy_attr(dir);
	end_creating(lower);
	return err;
}

/* The record: another name, or for a file without any its creation. */
static struct izo_op *link_op(struct inode *inode, struct dentry *old, struct inode *dir,
			      struct dentry *dentry)
{
	struct izo_op *op;

	if (inode->i_nlink) {
		op = izo_op_inode(inode, KML_LINK, old);
		if (!IS_ERR(op))
			izo_op_target(op, dir, dentry);
		return op;
	}
	op = izo_op_name(dir, KML_CREATE, dentry);
	if (IS_ERR(op))
		return op;
	izo_op_object(op, inode);
	if (!op->nolog &&
	    izo_xattr_items(izo_sb(inode->i_sb), izo_lower_dentry(inode), &op->items,
			    &op->r.xattrs_len) == 0)
		op->r.xattrs = op->items;
	return op;
}

static struct izo_op *link_begin(struct inode *inode, struct dentry *old, struct inode *dir,
				 struct dentry *dentry)
{
	struct izo_op *op = link_op(inode, old, dir, dentry);
	int err;

	if (IS_ERR(op))
		return op;
	izo_op_attr(op, inode, 0);
	err = izo_op_begin(op);
	if (!err)
		return op;
	izo_op_free(op);
	return ERR_PTR(err);
}

static void link_done(struct izo_op *op, struct inode *inode, struct inode *dir,
		      struct dentry *dentry)
{
	const bool is_new = op->r.opcode == KML_CREATE;

	izo_op_attr(op, inode, 0);
	/* the directory of the name that was there keeps its mtime */
	if (is_new)
		izo_op_ptime(op, dir, NULL);
	else
		izo_op_ptime(op, op->named_parent ? d_inode(op->named_parent) : dir, dir);
	izo_op_done(op);
	if (is_new)
		izo_session_named(inode, dentry);
}

static int link_lower(struct inode *inode, struct inode *dir, struct dentry *dentry)
{
	struct vfsmount *mnt = izo_sb(dir->i_sb)->lower_mnt;
	int err;

	err = mnt_want_write(mnt);
	if (err)
		return err;
	err = link_locked(inode, dir, dentry);
	mnt_drop_write(mnt);
	if (err)
		return err;
	ihold(inode);
	d_instantiate(dentry, inode);
	return 0;
}

static int link_logged(struct inode *inode, struct dentry *old, struct inode *dir,
		       struct dentry *dentry)
{
	struct izo_op *op = link_begin(inode, old, dir, dentry);
	int err;

	if (IS_ERR(op))
		return PTR_ERR(op);
	err = link_lower(inode, dir, dentry);
	if (err)
		izo_op_abort(op);
	else
		link_done(op, inode, dir, dentry);
	return err;
}

static int izo_link(struct dentry *old, struct inode *dir, struct dentry *dentry)
{
	struct inode *inode = d_inode(old);
	int err;

	if (izo_name_protected(dir, &dentry->d_name))
		return -EPERM;
	if (izo_i(inode)->meta != izo_i(dir)->meta)
		return -EXDEV;
	/* its first name: there has been no CLOSE */
	if (!inode->i_nlink)
		return link_logged(inode, old, dir, dentry);
	izo_session_setting(inode);
	err = link_logged(inode, old, dir, dentry);
	izo_session_set(inode, NULL);
	return err;
}

/* Removing and moving them */

/* Nobody but us changes the lower names, but a directory is not ours alone. */
static bool same_object(const struct dentry *lower, const struct dentry *dentry)
{
	if (d_is_negative(dentry))
		return d_is_negative(lower);
	return d_inode(lower) == izo_lower_inode(d_inode(dentry));
}

static int remove_locked(struct inode *dir, struct dentry *dentry, bool is_dir)
{
	struct qstr name = QSTR_INIT(dentry->d_name.name, dentry->d_name.len);
	struct inode *inode = d_inode(dentry);
	struct dentry *lower;
	int err = -ESTALE;

	lower = start_removing_noperm(izo_lower_dentry(dir), &name);
	if (IS_ERR(lower))
		return PTR_ERR(lower);
	if (!same_object(lower, dentry))
		goto out;
	if (is_dir)
		err = izo_vfs_rmdir(izo_lower_inode(dir), lower);
	else
		err = vfs_unlink(&nop_mnt_idmap, izo_lower_inode(dir), lower, NULL);
	izo_copy_attr(inode);
	izo_copy_attr(dir);
out:
	end_removing(lower);
	return err;
}

static struct izo_op *remove_begin(struct inode *dir, struct dentry *dentry, bool is_dir)
{
	struct izo_op *op = izo_op_name(dir, is_dir ? KML_RMDIR : KML_UNLINK, dentry);
	int err;

	if (IS_ERR(op))
		return op;
	izo_op_object(op, d_inode(dentry));
	izo_op_old(op, d_inode(dentry));
	err = izo_op_begin(op);
	if (!err)
		return op;
	izo_op_free(op);
	return ERR_PTR(err);
}

static int remove_lower(struct inode *dir, struct dentry *dentry, bool is_dir)
{
	struct vfsmount *mnt = izo_sb(dir->i_sb)->lower_mnt;
	int err;

	err = mnt_want_write(mnt);
	if (err)
		return err;
	err = remove_locked(dir, dentry, is_dir);
	mnt_drop_write(mnt);
	return err;
}

static int remove_name(struct inode *dir, struct dentry *dentry, bool is_dir)
{
	struct izo_op *op;
	int err;

	if (izo_name_protected(dir, &dentry->d_name) || izo_is_log(d_inode(dentry)))
		return -EPERM;
	op = remove_begin(dir, dentry, is_dir);
	if (IS_ERR(op))
		return PTR_ERR(op);
	err = remove_lower(dir, dentry, is_dir);
	if (err) {
		izo_op_abort(op);
		return err;
	}
	/* OLD tells the links that are left */
	izo_op_old(op, d_inode(dentry));
	izo_op_ptime(op, dir, NULL);
	izo_op_done(op);
	return 0;
}

static int izo_unlink(struct inode *dir, struct dentry *dentry)
{
	struct inode *inode = d_inode(dentry);
	int err;

	izo_session_setting(inode);
	err = remove_name(dir, dentry, false);
	izo_session_set(inode, NULL);
	return err;
}

static int izo_rmdir(struct inode *dir, struct dentry *dentry)
{
	int err = remove_name(dir, dentry, true);

	if (!err)
		clear_nlink(d_inode(dentry));
	return err;
}

/* Both ends of a rename. */
struct move {
	struct inode	*dir, *tdir;
	struct dentry	*old, *new;
	unsigned int	flags;
};

static void move_copy_attr(const struct move *m)
{
	izo_copy_attr(d_inode(m->old));
	if (d_is_positive(m->new))
		izo_copy_attr(d_inode(m->new));
	izo_copy_attr(m->dir);
	if (m->tdir != m->dir)
		izo_copy_attr(m->tdir);
}

static void keep_mtime(struct dentry *lower, const struct timespec64 *was)
{
	const struct timespec64 now = inode_get_mtime(d_inode(lower));
	struct iattr attr = {
		.ia_valid = ATTR_MTIME | ATTR_MTIME_SET | ATTR_FORCE,
		.ia_mtime = *was,
	};

	if (timespec64_equal(&now, was))
		return;
	inode_lock_nested(d_inode(lower), I_MUTEX_CHILD);
	(void)notify_change(&nop_mnt_idmap, lower, &attr, NULL);
	inode_unlock(d_inode(lower));
}

/*
 * xfs gives a directory that is exchanged with something of another directory
 * another mtime.  Nothing in it has changed, and the record says nothing of it.
 */
static int exchange(const struct izo_renaming *r)
{
	const struct timespec64 old = inode_get_mtime(d_inode(r->old));
	const struct timespec64 new = inode_get_mtime(d_inode(r->new));
	int err;

	err = izo_vfs_rename(r->old_parent, r->old, r->new_parent, r->new, r->flags);
	if (!err && r->old_parent != r->new_parent) {
		keep_mtime(r->old, &old);
		keep_mtime(r->new, &new);
	}
	return err;
}

static int move_locked(const struct move *m, struct izo_renaming *r)
{
	int err = -ESTALE;

	if (!same_object(r->old, m->old) || !same_object(r->new, m->new))
		return err;
	if (m->flags & RENAME_EXCHANGE && d_is_positive(r->new))
		err = exchange(r);
	else
		err = izo_vfs_rename(r->old_parent, r->old, r->new_parent, r->new, m->flags);
	move_copy_attr(m);
	return err;
}

static int move(const struct move *m)
{
	struct izo_renaming r = {
		.old_parent	= izo_lower_dentry(m->dir),
		.new_parent	= izo_lower_dentry(m->tdir),
		.old_name	= m->old->d_name,
		.new_name	= m->new->d_name,
		.flags		= m->flags,
	};
	int err;

	err = izo_start_renaming(&r);
	if (err)
		return err;
	err = move_locked(m, &r);
	izo_end_renaming(&r);
	return err;
}

static int move_allowed(const struct move *m)
{
	if (m->flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	if (izo_name_protected(m->dir, &m->old->d_name) ||
	    izo_name_protected(m->tdir, &m->new->d_name))
		return -EPERM;
	if (izo_is_log(d_inode(m->old)) || (d_is_positive(m->new) && izo_is_log(d_inode(m->new))))
		return -EPERM;
	if (izo_i(m->dir)->meta != izo_i(m->tdir)->meta)
		return -EXDEV;
	return 0;
}

static struct izo_op *move_begin(const struct move *m)
{
	struct izo_op *op = izo_op_name(m->dir, KML_RENAME, m->old);
	int err;

	if (IS_ERR(op))
		return op;
	izo_op_target(op, m->tdir, m->new);
	izo_op_object(op, d_inode(m->old));
	izo_op_attr(op, d_inode(m->old), 0);
	if (m->flags & RENAME_EXCHANGE) {
		op->r.flags |= KML_F_EXCHANGE;
		op->exchanged = d_inode(m->new);
	}
	if (m->flags & RENAME_NOREPLACE)
		op->r.flags |= KML_F_NOREPLACE;
	if (op->reint)
		op->r.flags |= op->reint->r.flags & KML_F_NOREPLACE;
	if (d_is_positive(m->new))
		izo_op_old(op, d_inode(m->new));
	err = izo_op_begin(op);
	if (!err)
		return op;
	izo_op_free(op);
	return ERR_PTR(err);
}

static int move_lower(const struct move *m)
{
	struct vfsmount *mnt = izo_sb(m->dir->i_sb)->lower_mnt;
	int err;

	err = mnt_want_write(mnt);
	if (err)
		return err;
	err = move(m);
	mnt_drop_write(mnt);
	return err;
}

int izo_move_lower(struct inode *dir, struct dentry *old, struct inode *tdir,
		   struct dentry *new, unsigned int flags)
{
	return move_lower(&(struct move){ dir, tdir, old, new, flags });
}

static int move_logged(const struct move *m)
{
	struct izo_op *op = move_begin(m);
	int err;

	if (IS_ERR(op))
		return PTR_ERR(op);
	err = move_lower(m);
	if (err) {
		izo_op_abort(op);
		return err;
	}
	izo_op_attr(op, d_inode(m->old), 0);
	if (d_is_positive(m->new))
		izo_op_old(op, d_inode(m->new));
	izo_op_ptime(op, m->dir, m->tdir);
	izo_op_done(op);
	return 0;
}

static int izo_rename(struct mnt_idmap *idmap, struct inode *dir, struct dentry *old,
		      struct inode *tdir, struct dentry *new, unsigned int flags)
{
	const struct move m = { dir, tdir, old, new, flags };
	struct izo_reint_entry_run *e = izo_reint(dir->i_sb);
	struct inode *target = d_inode(new);
	int err;

	if (e && e->finish)
		return izo_reint_finish(e, dir, old, tdir, new);
	err = move_allowed(&m);
	if (err)
		return err;
	if (!target)
		return move_logged(&m);
	/* it may lose a name */
	izo_session_setting(target);
	err = move_logged(&m);
	izo_session_set(target, NULL);
	return err;
}

const struct inode_operations izo_dir_iops = {
	.lookup		= izo_lookup,
	.create		= izo_create,
	.mkdir		= izo_mkdir,
	.mknod		= izo_mknod,
	.symlink	= izo_symlink,
	.tmpfile	= izo_tmpfile,
	.link		= izo_link,
	.unlink		= izo_unlink,
	.rmdir		= izo_rmdir,
	.rename		= izo_rename,
	.getattr	= izo_getattr,
	.setattr	= izo_setattr,
	.update_time	= izo_update_time,
	.listxattr	= izo_listxattr,
	IZO_ACL_IOPS,
	.fileattr_get	= izo_fileattr_get,
	.fileattr_set	= izo_fileattr_set,
	.fiemap		= izo_fiemap,
};

#ifdef IZO_D_REAL
/* Of a file whose path is the upper one and whose inode is the lower one: the lower one. */
static struct dentry *izo_d_real(struct dentry *dentry, const struct inode *inode)
{
	struct dentry *lower;

	if (!inode || d_is_negative(dentry) || inode == d_inode(dentry))
		return dentry;
	lower = izo_lower_dentry(d_inode(dentry));
	return d_inode(lower) == inode ? lower : dentry;
}

const struct dentry_operations izo_dentry_ops = {
	.d_real	= izo_d_real,
};
#endif
