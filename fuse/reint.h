/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * REINT's insides: one entry of a batch on its way, for reint.c (parsing,
 * guards, names), reint_attr.c (making objects, attributes) and reint_data.c (content).
 */
#ifndef FUSE_REINT_H
#define FUSE_REINT_H

#include "fs.h"

#define REINT_TEMP	".reint"	/* in incoming/: what recovery may remove */

/* A directory that entries are about; kept open while a run of them is. */
struct place {
	struct inode	*inode;
	int		fd;		/* O_PATH */
	char		*path;
	size_t		path_len;
	/* mtime to set at the end of the run, unless somebody local was here since */
	bool		mtime_due;
	struct kml_time	mtime;
	struct timespec	seen;
};

/* What a name leads to; st is valid if exists. */
struct found {
	bool		exists;
	struct stat	st;
	uint32_t	gen;
	int		fd;		/* O_PATH, -1 */
};

/* One more name of the object that CLOSE is about. */
struct alias {
	struct place	own;
	struct place	*place;		/* own, or another's of the same directory */
	char		name[256];
};

struct reint_run {
	bool			log;
	struct place		place, tplace;
	uint64_t		*recnos;	/* per entry, left by the journal's worker */
};

struct reint_entry {
	struct reint_run	*run;
	unsigned int		index;
	uint32_t		flags;		/* IZO_RE_* */
	struct izo_guard	guard, tguard;
	struct kml_record	r;
	char			name[256], tname[256];	/* terminated */
	struct found		obj, target;
	struct alias		*aliases;
	unsigned int		n_aliases;
	struct inode		*inode;		/* of obj, referenced; for what is not made here */
	struct op		op;
	struct izo_reint_result	*result;
};

/* reint.c */

int place_open(struct place *p, const struct kml_str *dir);
void place_clear(struct place *p);
/* New content is no change of a directory: its mtime stays what it was. */
void place_keep_mtime(struct reint_run *run, struct place *p, const struct timespec *was);
void found_clear(struct found *f);
/* What name is in dirfd now ("" for the directory itself). */
int find_name(int dirfd, const char *name, struct found *ret_f);
/* 0 or -ESTALE */
int guard_check(const struct izo_guard *g, const struct found *f);
/* Start the log record of the entry's operation. */
void entry_op(struct reint_entry *e, unsigned int opcode);
/* The object is now st/gen; goes into record and result. */
void entry_is(struct reint_entry *e, const struct stat *st, uint32_t gen);
/* PTIME of the record, or the directories' mtimes as they are. */
void entry_ptime(struct reint_entry *e);
/* The directories' mtimes as they are. */
void entry_ptime_now(struct reint_entry *e);
/* Drop what the kernel has cached of the file's data or attributes. */
void forget_data(const struct inode *i);
/* Its attributes alone: waits for nothing. */
void forget_size(const struct inode *i);
void forget_name(const struct place *p, const char *name);

/* A directory's O_PATH descriptor by its path from the root, of any length. */
int reint_walk(const char *path, size_t len);

/* reint_alias.c: the other names of an object that gets a new inode */

int aliases_open(struct reint_entry *e);
void aliases_close(struct reint_entry *e);
/* Lock the entry's directories, as reint.c does for entries without aliases. */
int aliases_lock(struct reint_entry *e, unsigned int **ret_stripes, unsigned int *ret_n);
/* For op_begin(): the directories of the aliases; freed by the caller. */
int aliases_dirs(struct reint_entry *e, struct inode ***ret_dirs);
/* All names are these, and lead to the object: 0 or -ESTALE. */
int aliases_check(const struct reint_entry *e);
/* The new inode, called from in incoming/, gets a name there for each alias ... */
int aliases_prepare(const struct reint_entry *e, const char *from);
void aliases_unprepare(const struct reint_entry *e);
/* ... which then replaces it; only renames over what is there. */
void aliases_move(struct reint_entry *e);
void aliases_tell_kernel(const struct reint_entry *e);
/* After a crash: the names that still lead to old follow the one in dirfd. */
int aliases_redo(int dirfd, const char *name, const struct kml_record *r);
/* Remove what a crash left in incoming/. */
void reint_clean(void);

/* reint_attr.c */

int set_xattrs(int fd, const void *items, size_t len);
int set_mtime(int fd, const struct kml_time *t);
/* Owner and mode of what is open (O_PATH or not) at fd, then mtime. */
int set_attrs(int fd, const struct kml_attrs *want, uint32_t valid);
/* After making an object in a directory with a default ACL: it has only its own. */
void drop_inherited_acl(const struct reint_entry *e, int fd, bool is_dir);
int reint_make(struct reint_entry *e);
int reint_setattr(struct reint_entry *e);
int reint_xattr(struct reint_entry *e);

/* reint_there.c: the tree has it, only the log does not */

int reint_there(struct reint_entry *e);

/* reint_data.c */

int write_data(int fd, const struct kml_str *data);
/* CREATE with FILE: the finished file gets its name. */
int reint_create_file(struct reint_entry *e);
int reint_close(struct reint_entry *e);
/*
 * Write the ranges of file (in incoming/) into fd and make it size bytes long,
 * durably; holes become holes.  Repeating it changes nothing.  r: RANGES, or
 * KML_F_RANGES_ALL.  For recovery, too.
 */
int reint_patch(int fd, int file, const struct kml_record *r, uint64_t size);

#endif
