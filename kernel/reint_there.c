// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * REINT of what has happened already: after the machine stopped the daemon has found,
 * where a LOOK sent it, that the tree differs from the log (doc/kml.md), and now the
 * log is told.  Nothing is done to the tree.
 */
#include "reint.h"

#include <linux/mm.h>

static bool type_fits(const struct izo_reint_entry_run *e, umode_t mode)
{
	switch (e->r.opcode) {
	case KML_CREATE:
	case KML_CLOSE:
		return S_ISREG(mode);
	case KML_MKDIR:
		return S_ISDIR(mode);
	case KML_SYMLINK:
		return S_ISLNK(mode);
	case KML_MKNOD:
		return !S_ISREG(mode) && !S_ISDIR(mode) && !S_ISLNK(mode);
	default:
		return true;
	}
}

/* Who and when are the daemon's, see izo_reint_origin(). */
static int log_it(struct izo_reint_entry_run *e, struct izo_op *op)
{
	int err;

	if (e->name.len)
		izo_op_ptime_now(op, d_inode(e->parent), e->tparent ? d_inode(e->tparent) : NULL);
	err = izo_op_begin(op);
	if (err)
		izo_op_free(op);
	else
		izo_op_done(op);
	return err;
}

/* The name does not lead to it any more: OLD is what the log has there. */
static int log_removal(struct izo_reint_entry_run *e)
{
	const struct inode *inode = d_inode(e->d);
	const struct kml_oid *old = &e->r.old;
	struct izo_op *op;

	if (!e->r.has_old)
		return -EINVAL;
	if (inode && inode->i_ino == old->ino && inode->i_generation == old->gen)
		return -ESTALE;
	op = izo_op_name(d_inode(e->parent), e->r.opcode, e->d);
	if (IS_ERR(op))
		return PTR_ERR(op);
	op->r.has_old = true;
	op->r.obj = *old;
	op->r.old = *old;
	op->r.old_attr = e->r.old_attr;
	return log_it(e, op);
}

/* The xattr that the record names, as it is; without a value it is not there. */
static int put_xattr(struct izo_reint_entry_run *e, struct izo_op *op, struct dentry *lower)
{
	char c[XATTR_NAME_MAX + 1];
	struct kml_str name, value;
	size_t pos = 0;
	ssize_t n;
	void *buf;
	int err = -ESTALE;

	if (!kml_xattr_next(e->r.xattrs, e->r.xattrs_len, &pos, &name, &value))
		return -EINVAL;
	memcpy(c, name.ptr, name.len);
	c[name.len] = 0;
	buf = kvmalloc(KML_REC_MAX, GFP_KERNEL);
	if (!buf)
		return -ENOMEM;
	n = izo_lower_getxattr(lower, c, buf, KML_REC_MAX);
	if (e->r.opcode == (n < 0 ? KML_REMOVEXATTR : KML_SETXATTR))
		err = izo_op_xattr(op, c, n < 0 ? NULL : buf, max_t(ssize_t, n, 0));
	kvfree(buf);
	return err;
}

/* Of what was made all that the log would have said. */
static int put_made(struct izo_reint_entry_run *e, struct izo_op *op, struct dentry *lower,
		    struct delayed_call *done)
{
	const char *text;
	int err;

	if (!S_ISLNK(d_inode(lower)->i_mode)) {
		err = izo_xattr_items(e->run->sbi, lower, &op->items, &op->r.xattrs_len);
		op->r.xattrs = op->items;
		return err;
	}
	text = vfs_get_link(lower, done);
	if (IS_ERR(text))
		return PTR_ERR(text);
	op->r.link = (struct kml_str){ text, strlen(text) };
	return 0;
}

static int put_all(struct izo_reint_entry_run *e, struct izo_op *op, struct inode *inode,
		   struct delayed_call *done)
{
	switch (e->r.opcode) {
	case KML_CLOSE:
		op->r.flags |= KML_F_RANGES_ALL;
		op->r.attr.valid = KML_A_SIZE | KML_A_MTIME;
		izo_op_old(op, inode);
		if (e->r.has_old)
			op->r.old_attr = e->r.old_attr;
		return 0;
	case KML_SETATTR:
		op->r.attr.valid = KML_A_UID | KML_A_GID | KML_A_MODE | KML_A_MTIME;
		return 0;
	case KML_SETXATTR:
	case KML_REMOVEXATTR:
		return put_xattr(e, op, izo_lower_dentry(inode));
	case KML_RENAME:
	case KML_LINK:
		op->r.flags |= e->r.flags & (KML_F_EXCHANGE | KML_F_NOREPLACE);
		op->r.has_old = e->r.has_old;
		op->r.old = e->r.old;
		op->r.old_attr = e->r.old_attr;
		return 0;
	default:
		return put_made(e, op, izo_lower_dentry(inode), done);
	}
}

static struct izo_op *object_op(struct izo_reint_entry_run *e, struct inode *inode)
{
	struct izo_op *op;

	if (!e->name.len)
		return izo_op_inode(inode, e->r.opcode, e->d);
	op = izo_op_name(d_inode(e->parent), e->r.opcode, e->d);
	if (!IS_ERR(op) && e->td)
		izo_op_target(op, d_inode(e->tparent), e->td);
	return op;
}

/* It is about the object that d leads to: of two names the second. */
static int log_object(struct izo_reint_entry_run *e, struct dentry *d)
{
	struct inode *inode = d_inode(d);
	DEFINE_DELAYED_CALL(done);
	struct izo_op *op;
	int err;

	if (!inode || !type_fits(e, inode->i_mode))
		return -ESTALE;
	op = object_op(e, inode);
	if (IS_ERR(op))
		return PTR_ERR(op);
	izo_op_object(op, inode);
	izo_op_attr(op, inode, 0);
	err = put_all(e, op, inode, &done);
	if (err)
		izo_op_free(op);
	else
		err = log_it(e, op);
	do_delayed_call(&done);
	if (!err)
		izo_reint_result_is(e, inode);
	return err;
}

/* With all locks held. */
static int log_checked(struct izo_reint_entry_run *e)
{
	int err;

	/* nobody has to be kept out */
	e->peek = true;
	err = izo_reint_guards(e);
	if (err)
		return err;
	e->checked = true;
	if (e->r.opcode == KML_UNLINK || e->r.opcode == KML_RMDIR)
		err = log_removal(e);
	else
		err = log_object(e, e->td ?: e->d);
	e->checked = false;
	return err;
}

static int there_root(struct izo_reint_entry_run *e)
{
	struct dentry *root = e->run->sbi->sb->s_root;
	int err;

	inode_lock(d_inode(root));
	e->d = root;
	err = log_checked(e);
	e->d = NULL;
	inode_unlock(d_inode(root));
	return err;
}

static int there_name(struct izo_reint_entry_run *e)
{
	int err;

	e->d = lookup_noperm(&e->name, e->parent);
	err = PTR_ERR_OR_ZERO(e->d);
	if (!err) {
		err = log_checked(e);
		dput(e->d);
	}
	e->d = NULL;
	return err;
}

static int there_two_names(struct izo_reint_entry_run *e)
{
	int err;

	e->td = lookup_noperm(&e->tname, e->tparent);
	err = PTR_ERR_OR_ZERO(e->td);
	if (!err) {
		err = there_name(e);
		dput(e->td);
	}
	e->td = NULL;
	return err;
}

/* As for a rename, of which the first name need not be there. */
static int there_two(struct izo_reint_entry_run *e)
{
	struct super_block *sb = e->run->sbi->sb;
	struct inode *first = d_inode(e->parent), *second = d_inode(e->tparent);
	int err;

	mutex_lock(&sb->s_vfs_rename_mutex);
	if (is_subdir(e->parent, e->tparent))
		swap(first, second);
	down_write_nest_lock(&first->i_rwsem, &sb->s_vfs_rename_mutex);
	if (second != first)
		down_write_nest_lock(&second->i_rwsem, &sb->s_vfs_rename_mutex);
	err = there_two_names(e);
	if (second != first)
		inode_unlock(second);
	inode_unlock(first);
	mutex_unlock(&sb->s_vfs_rename_mutex);
	return err;
}

int izo_reint_there(struct izo_reint_entry_run *e)
{
	struct inode *dir = d_inode(e->parent);
	int err;

	if (!e->run->log)
		return -EINVAL;
	if (e->tparent)
		return there_two(e);
	if (!e->name.len)
		return there_root(e);
	inode_lock_nested(dir, I_MUTEX_PARENT);
	err = there_name(e);
	inode_unlock(dir);
	return err;
}
