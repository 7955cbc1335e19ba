// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * REINT of content for an object with several names while somebody has it open:
 * the new inode takes the place of the old one under all of them, at once for
 * everybody who looks.
 *
 * All the directories are locked, below s_vfs_rename_mutex so that none moves, those
 * nearer to the root first as the VFS does.  The names leave the dentry cache before the first
 * is changed: who looks for one waits for its directory.  What can fail for want of
 * space happens before the intent.  Recovery completes the renames.
 */
#include "reint.h"

#include <linux/mm.h>
#include <linux/sort.h>

/* One name of the object. */
struct alias {
	struct dentry		*dir;		/* upper, counted */
	struct qstr		name;
	struct dentry		*d;		/* what it is, counted */
	struct timespec64	mtime;		/* of dir, before */
	char			temp[24];	/* the new inode's name for it in incoming/ */
};

struct aliases {
	unsigned int	n;			/* the record's own name is the first */
	struct alias	*a;
	struct dentry	**locked;		/* directories, in their order */
	unsigned int	n_locked;
};

/* "/a/b/name" into its directory and its name. */
static void split(const struct kml_str *path, struct kml_str *ret_dir, struct qstr *ret_name)
{
	const char *slash = path->ptr + path->len;

	while (*--slash != '/')
		;
	ret_dir->ptr = path->ptr;
	ret_dir->len = slash == path->ptr ? 1 : slash - path->ptr;
	*ret_name = (struct qstr)QSTR_INIT(slash + 1, path->ptr + path->len - slash - 1);
}

static unsigned int count(const struct kml_record *r)
{
	struct kml_str path;
	unsigned int n = 0;
	size_t pos = 0;

	while (kml_alias_next(r->aliases, r->aliases_len, &pos, &path))
		n++;
	return n;
}

static void aliases_close(struct aliases *s)
{
	unsigned int k;

	for (k = 0; k < s->n; k++) {
		dput(s->a[k].d);
		dput(s->a[k].dir);
	}
	kvfree(s->a);
	kvfree(s->locked);
}

static int add(struct izo_reint_entry_run *e, struct aliases *s, const struct kml_str *path)
{
	struct alias *a = &s->a[s->n];
	struct kml_str dir;
	struct dentry *d;

	split(path, &dir, &a->name);
	d = izo_reint_walk(e->run->sbi->sb, &dir);
	if (IS_ERR(d))
		return PTR_ERR(d) == -ENOENT || PTR_ERR(d) == -ENOTDIR ? -ESTALE : PTR_ERR(d);
	a->dir = d;
	snprintf(a->temp, sizeof(a->temp), IZO_REINT_TEMP ".%u", s->n);
	s->n++;
	return izo_name_protected(d_inode(d), &a->name) ? -ESTALE : 0;
}

static int aliases_open(struct izo_reint_entry_run *e, struct aliases *s)
{
	const unsigned int n = count(&e->r) + 1;
	struct kml_str path;
	size_t pos = 0;
	int err = 0;

	s->a = kvcalloc(n, sizeof(*s->a), GFP_KERNEL);
	s->locked = kvcalloc(n + 1, sizeof(*s->locked), GFP_KERNEL);
	if (!s->a || !s->locked)
		return -ENOMEM;
	s->a[0].dir = dget(e->parent);
	s->a[0].name = e->name;
	s->n = 1;
	while (!err && kml_alias_next(e->r.aliases, e->r.aliases_len, &pos, &path))
		err = add(e, s, &path);
	return err;
}

/* Locking */

static unsigned int depth(const struct dentry *d)
{
	unsigned int n = 0;

	for (; !IS_ROOT(d); d = d->d_parent)
		n++;
	return n;
}

static int nearer_first(const void *a, const void *b)
{
	const struct dentry *d = *(const struct dentry **)a, *f = *(const struct dentry **)b;
	const int diff = (int)depth(d) - (int)depth(f);

	if (diff)
		return diff;
	return d < f ? -1 : d > f;
}

static void lock_all(struct izo_reint_entry_run *e, struct aliases *s)
{
	struct super_block *sb = e->run->sbi->sb;
	unsigned int k, n = 0;

	mutex_lock(&sb->s_vfs_rename_mutex);
	for (k = 0; k < s->n; k++)
		s->locked[n++] = s->a[k].dir;
	s->locked[n++] = e->run->incoming;
	sort(s->locked, n, sizeof(*s->locked), nearer_first, NULL);
	for (k = 0; k < n; k++)
		if (k == 0 || s->locked[k] != s->locked[s->n_locked - 1])
			s->locked[s->n_locked++] = s->locked[k];
	for (k = 0; k < s->n_locked; k++)
		down_write_nest_lock(&d_inode(s->locked[k])->i_rwsem, &sb->s_vfs_rename_mutex);
}

static void unlock_all(struct izo_reint_entry_run *e, struct aliases *s)
{
	unsigned int k;

	for (k = s->n_locked; k-- > 0;)
		inode_unlock(d_inode(s->locked[k]));
	mutex_unlock(&e->run->sbi->sb->s_vfs_rename_mutex);
}

/* The names are these and no others, and lead to the object. */
static int find_names(struct aliases *s, const struct inode *old)
{
	unsigned int k, m;
	struct dentry *d;

	for (k = 0; k < s->n; k++) {
		d = lookup_noperm(&s->a[k].name, s->a[k].dir);
		if (IS_ERR(d))
			return PTR_ERR(d);
		s->a[k].d = d;
		if (d_inode(d) != old || d_mountpoint(d))
			return -ESTALE;
		for (m = 0; m < k; m++)
			if (s->a[m].d == d)
				return -ESTALE;
	}
	return old->i_nlink == s->n ? 0 : -ESTALE;
}

/* The new inode's names in incoming/ */

static int link_temp(struct izo_reint_entry_run *e, struct inode *inode, const char *name)
{
	struct qstr q = QSTR_INIT(name, strlen(name));
	struct dentry *dir = izo_lower_dentry(d_inode(e->run->incoming)), *d;
	int err;

	(void)izo_meta_remove(e->run->sbi, dir, name);
	err = mnt_want_write(e->run->sbi->lower_mnt);
	if (err)
		return err;
	d = start_creating_noperm(dir, &q);
	err = PTR_ERR_OR_ZERO(d);
	if (!err) {
		err = vfs_link(izo_lower_dentry(inode), &nop_mnt_idmap, d_inode(dir), d, NULL);
		end_creating(d);
	}
	mnt_drop_write(e->run->sbi->lower_mnt);
	return err;
}

static int prepare(struct izo_reint_entry_run *e, struct aliases *s, struct inode *inode)
{
	unsigned int k;
	int err = 0;

	for (k = 1; k < s->n && !err; k++)
		err = link_temp(e, inode, s->a[k].temp);
	return err;
}

static void unprepare(struct izo_reint_entry_run *e, struct aliases *s)
{
	struct dentry *dir = izo_lower_dentry(d_inode(e->run->incoming));
	unsigned int k;

	for (k = 1; k < s->n; k++)
		(void)izo_meta_remove(e->run->sbi, dir, s->a[k].temp);
}

/* Moving them */

static int move_one(struct izo_reint_entry_run *e, struct alias *a, const struct qstr *from)
{
	struct vfsmount *mnt = e->run->sbi->lower_mnt;
	struct izo_renaming r = {
		.old_parent	= izo_lower_dentry(d_inode(e->run->incoming)),
		.new_parent	= izo_lower_dentry(d_inode(a->dir)),
		.old_name	= *from,
		.new_name	= a->name,
	};
	int err;

	a->mtime = inode_get_mtime(d_inode(r.new_parent));
	err = mnt_want_write(mnt);
	if (err)
		return err;
	err = izo_start_renaming(&r);
	if (!err) {
		err = izo_vfs_rename(r.old_parent, r.old, r.new_parent, r.new, 0);
		izo_end_renaming(&r);
	}
	mnt_drop_write(mnt);
	return err;
}

static void keep_mtime(struct izo_reint_entry_run *e, const struct alias *a)
{
	struct inode *dir = d_inode(a->dir);
	struct kml_attrs attrs = { };

	izo_time_of(&attrs.mtime, &a->mtime);
	(void)izo_lower_setattr(e->run->sbi, izo_lower_dentry(dir), &attrs, KML_A_MTIME);
	izo_copy_attr(dir);
}

/* The sender's name in incoming/ is nobody's any more. */
static void forget_incoming(struct izo_reint_entry_run *e, struct qstr *name)
{
	struct dentry *d = lookup_noperm(name, e->run->incoming);

	if (IS_ERR(d))
		return;
	d_drop(d);
	dput(d);
}

/* After the first one there is no way back: recovery does what is left undone. */
static int move_all(struct izo_reint_entry_run *e, struct aliases *s)
{
	struct qstr from = QSTR_INIT(e->file.ptr, e->file.len);
	unsigned int k;
	int err;

	for (k = 0; k < s->n; k++)
		d_drop(s->a[k].d);
	forget_incoming(e, &from);
	err = move_one(e, &s->a[0], &from);
	if (err)
		return err;
	keep_mtime(e, &s->a[0]);
	for (k = 1; k < s->n; k++) {
		from = (struct qstr)QSTR_INIT(s->a[k].temp, strlen(s->a[k].temp));
		err = move_one(e, &s->a[k], &from);
		if (err)
			pr_err("%s: a name of a replaced file could not be moved: error %d\n",
			       e->run->sbi->params.fileset, err);
		else
			keep_mtime(e, &s->a[k]);
	}
	return 0;
}

static int replace_locked(struct izo_reint_entry_run *e, struct aliases *s, struct inode *inode,
			  struct inode *old)
{
	struct izo_op *op;
	int err;

	err = find_names(s, old);
	if (err)
		return err;
	e->d = s->a[0].d;
	op = izo_reint_replace_op(e, inode, d_inode(s->a[0].dir), s->a[0].d);
	if (IS_ERR(op))
		return PTR_ERR(op);
	op->r.aliases = e->r.aliases;
	op->r.aliases_len = e->r.aliases_len;
	op->redo = true;
	op->also = s->locked;
	op->n_also = s->n_locked;
	err = izo_op_begin(op);
	if (err) {
		izo_op_free(op);
		return err;
	}
	err = move_all(e, s);
	izo_copy_attr(old);
	if (err) {
		izo_op_abort(op);
		return err;
	}
	op->r.aliases_len = 0;
	izo_i(inode)->meta = false;
	izo_copy_attr(inode);
	izo_op_attr(op, inode, op->r.attr.valid);
	izo_i(old)->gone = true;
	izo_reint_result_is(e, inode);
	izo_op_done(op);
	return 0;
}

int izo_reint_replace_all(struct izo_reint_entry_run *e, struct inode *inode, struct inode *old)
{
	struct aliases s = { };
	int err = aliases_open(e, &s);

	if (!err)
		err = prepare(e, &s, inode);
	if (!err) {
		lock_all(e, &s);
		err = replace_locked(e, &s, inode, old);
		e->d = NULL;
		unlock_all(e, &s);
	}
	if (err && s.n)
		unprepare(e, &s);
	aliases_close(&s);
	return err;
}

/* After a crash: names that still lead to the old object follow the new one. */

static struct dentry *walk_lower(struct izo_sb *sbi, const struct kml_str *dir)
{
	struct dentry *d = dget(sbi->lower_root), *next;
	const char *p = dir->ptr, *end = p + dir->len, *slash;

	while (p < end) {
		struct qstr q;

		if (*p == '/') {
			p++;
			continue;
		}
		slash = memchr(p, '/', end - p) ?: end;
		q = (struct qstr)QSTR_INIT(p, slash - p);
		next = lookup_noperm_unlocked(&q, d);
		dput(d);
		if (IS_ERR(next))
			return NULL;
		d = next;
		if (!d_is_dir(d)) {
			dput(d);
			return NULL;
		}
		p = slash;
	}
	return d;
}

static bool leads_to(struct dentry *dir, struct qstr *name, u64 ino)
{
	struct dentry *d = lookup_noperm_unlocked(name, dir);
	bool does;

	if (IS_ERR(d))
		return false;
	does = d_is_positive(d) && d_inode(d)->i_ino == ino;
	dput(d);
	return does;
}

static int link_over(struct izo_sb *sbi, struct dentry *obj, struct dentry *incoming,
		     struct dentry *dir, struct qstr *name)
{
	const char *temp = IZO_REINT_TEMP ".0";
	struct qstr q = QSTR_INIT(temp, strlen(temp));
	struct izo_renaming r = {
		.old_parent = incoming, .new_parent = dir, .old_name = q, .new_name = *name,
	};
	struct dentry *d;
	int err;

	(void)izo_meta_remove(sbi, incoming, temp);
	err = mnt_want_write(sbi->lower_mnt);
	if (err)
		return err;
	d = start_creating_noperm(incoming, &q);
	err = PTR_ERR_OR_ZERO(d);
	if (!err) {
		err = vfs_link(obj, &nop_mnt_idmap, d_inode(incoming), d, NULL);
		end_creating(d);
	}
	if (!err)
		err = izo_start_renaming(&r);
	if (!err) {
		err = izo_vfs_rename(r.old_parent, r.old, r.new_parent, r.new, 0);
		izo_end_renaming(&r);
	}
	mnt_drop_write(sbi->lower_mnt);
	return err;
}

int izo_redo_aliases(struct izo_sb *sbi, struct dentry *obj, const struct kml_record *r)
{
	struct dentry *incoming = izo_meta_lookup(sbi->meta, "incoming"), *dir;
	struct kml_str path, dirpath;
	struct qstr name;
	size_t pos = 0;
	int err = 0;

	if (IS_ERR(incoming))
		return PTR_ERR(incoming);
	while (!err && kml_alias_next(r->aliases, r->aliases_len, &pos, &path)) {
		split(&path, &dirpath, &name);
		dir = walk_lower(sbi, &dirpath);
		if (dir && leads_to(dir, &name, r->old.ino))
			err = link_over(sbi, obj, incoming, dir, &name);
		dput(dir);
	}
	dput(incoming);
	return err;
}
