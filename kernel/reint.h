/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * REINT: changes of a peer are made true here (doc/channel.md).
 *
 * One batch at a time, by the task that writes to the channel.  Names are changed
 * by calls of the VFS on upper dentries, so that everybody's locks, the dentry cache
 * and watchers are served.  What these calls then ask of us (dir.c, attr.c) finds
 * that it comes from here: with all locks held the guards are checked, the record gets
 * its origin, and directories their mtimes.  New objects and new content are prepared
 * in incoming/ and get their names by one rename.
 */
#ifndef INTERMEZZO_REINT_H
#define INTERMEZZO_REINT_H

#include "journal.h"

#include <intermezzo/channel.h>

#define IZO_REINT_TEMP	".reint"	/* in incoming/: what recovery may remove */

/* Who may not open the object meanwhile (izo_inode.busy). */
enum { IZO_FREE, IZO_NO_WRITERS, IZO_NOBODY };

struct izo_reint_run {
	struct izo_sb		*sbi;
	bool			log;
	u64			*recnos;
	struct dentry		*incoming;	/* upper */
};

/* One entry; all dentries are upper ones. */
struct izo_reint_entry_run {
	struct izo_reint_run	*run;
	unsigned int		index;
	u32			flags;		/* IZO_RE_* */
	struct izo_guard	guard, tguard;
	struct kml_record	r;
	struct izo_reint_result	*result;
	u64			seq;		/* the operation's, or the last one's before it */
	struct dentry		*parent, *tparent;	/* counted */
	struct qstr		name, tname;
	/* What the guards are about, set when their directories are locked. */
	struct dentry		*d, *td;
	struct inode		*victim;	/* busy; counted */
	bool			quiet;		/* preparing: nothing is logged or checked */
	bool			peek;		/* check only: writers may still come */
	bool			checked;	/* the guards held, and the locks are still held */
	bool			finish;		/* a rename from incoming/ is the operation */
	struct kml_str		file;		/* the content's name in incoming/ */
	struct inode		*content;	/* and its inode */
};

/* The entry in progress if it is this task that does it, else NULL. */
static inline struct izo_reint_entry_run *izo_reint(const struct super_block *sb)
{
	const struct izo_sb *sbi = izo_sb(sb);

	return READ_ONCE(sbi->reint_task) == current ? sbi->reint : NULL;
}

/* reint.c */

int izo_reint_apply(struct izo_sb *sbi, const void *body, size_t len, void **ret_reply,
		    size_t *ret_len);
/* Called with all locks held, before the intent: 0 or -ESTALE. */
int izo_reint_guards(struct izo_reint_entry_run *e);
/* Afterwards: PTIME of the record, and the directories' mtimes. */
void izo_reint_ptime(struct izo_reint_entry_run *e, struct izo_op *op, struct inode *dir,
		     struct inode *tdir);
/* Who and when: the peer's. */
void izo_reint_origin(struct izo_reint_entry_run *e, struct izo_op *op);
void izo_reint_result_is(struct izo_reint_entry_run *e, struct inode *inode);

/* The directory at path, "/a/b" or "/", counted.  Links are not followed. */
struct dentry *izo_reint_walk(struct super_block *sb, const struct kml_str *path);

/* reint_alias.c */

/* inode, in incoming/ under e->file, replaces old under all its names. */
int izo_reint_replace_all(struct izo_reint_entry_run *e, struct inode *inode, struct inode *old);
/* For recovery: obj is the lower object that has the record's own name already. */
int izo_redo_aliases(struct izo_sb *sbi, struct dentry *obj, const struct kml_record *r);

/* reint_ops.c */

/* The record of inode, which replaces what new is in tdir. */
struct izo_op *izo_reint_replace_op(struct izo_reint_entry_run *e, struct inode *inode,
				    struct inode *tdir, struct dentry *new);

int izo_reint_do(struct izo_reint_entry_run *e);
/* The rename from incoming/: called by izo_rename() instead of its own. */
int izo_reint_finish(struct izo_reint_entry_run *e, struct inode *dir, struct dentry *old,
		     struct inode *tdir, struct dentry *new);

/* reint_there.c: it is so already, and is only logged */

int izo_reint_there(struct izo_reint_entry_run *e);

/* reint_data.c */

int izo_write_data(struct izo_sb *sbi, struct dentry *lower, const struct kml_str *data);
int izo_copy_file(struct izo_sb *sbi, struct dentry *to, struct dentry *from, u64 size,
		  bool clone_only);
/* Allocate what the patch will write, so that it cannot fail half-way for space. */
int izo_patch_allocate(struct izo_sb *sbi, struct dentry *to, struct dentry *file,
		       const struct kml_record *r, u64 size);
/*
 * Write the ranges of file into to and make it size bytes long, durably; holes
 * become holes.  Repeating it changes nothing.  r: RANGES, or KML_F_RANGES_ALL.
 */
int izo_patch(struct izo_sb *sbi, struct dentry *to, struct dentry *file,
	      const struct kml_record *r, u64 size);
/* Its data is on disk, where the lower file system does not see to it before a rename. */
int izo_data_first(struct izo_sb *sbi, struct dentry *lower);

/* reint_attr.c: lower objects, directly */

int izo_lower_setattr(struct izo_sb *sbi, struct dentry *lower, const struct kml_attrs *a,
		      u32 valid);
int izo_lower_set_items(struct izo_sb *sbi, struct dentry *lower, const void *items, size_t len);
int izo_lower_copy_xattrs(struct izo_sb *sbi, struct dentry *to, struct dentry *from);

#endif
