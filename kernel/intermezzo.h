/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of intermezzo.ko know of each other, grouped by file.
 *
 * "Upper" is what programs see, "lower" the private file system below it.  An
 * upper inode belongs to one lower inode for its whole life and keeps one lower
 * dentry of it; all attributes are copies that are made again after each
 * operation.  Upper regular files have no pages of their own: data is read,
 * written and mapped through the lower file's.
 *
 * Nobody else can change the lower file system (a directory that is used as
 * lower excepted, where nobody should), so there is nothing to revalidate.
 * Names are nevertheless looked up again below the lower directory's lock by
 * every operation: no lower dentry but the inode's own is ever kept.
 *
 * Credentials: permission is asked of the upper inode, by the VFS, with the caller's.  The
 * lower operation runs with the caller's, too (unlike overlayfs, where the lower tree can be
 * somebody else's): the new object is the caller's, quota and reserved blocks are charged to the
 * caller, set-id bits go unless the caller may keep them, and as both inodes have the same
 * attributes the second check says what the first did.  Nobody has to reach the lower
 * mount by a path.  Root's are used for values of extended attributes, which are what the
 * VFS has made of them above already; for the log, which is nobody's; and for what comes from
 * peers.  Labels of security modules are the lower file system's attributes; a policy
 * has to name the type intermezzo for them to count on the upper inodes.
 *
 * Locks, in the order in which they are taken:
 *	upper sb_writers (the VFS)
 *	upper i_rwsem of directories and files, s_vfs_rename_mutex; mmap_lock (the VFS)
 *	izo_inode.lock (write sessions)
 *	a transaction of the LML, journal.lock (see journal.h): given up again before
 *	lower sb_writers (mnt_want_write())
 *	lower i_rwsem, s_vfs_rename_mutex
 */
#ifndef INTERMEZZO_KERNEL_H
#define INTERMEZZO_KERNEL_H

#define pr_fmt(fmt) "intermezzo: " fmt

#include <linux/dcache.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/mount.h>
#include <linux/namei.h>
#include <linux/path.h>
#include <linux/slab.h>

#include "compat/compat.h"

#define IZO_SUPER_MAGIC	0x47114711	/* that of 1999 */
#define IZO_META_DIR	".intermezzo"
#define IZO_LOST_FOUND	"lost+found"
#define IZO_FSET_MAX	63
#define IZO_MINORS	1024

/* main.c */

extern struct file_system_type izo_fs_type, izo_virtual_fs_type;

/* params.c: mount options */

struct izo_lower_param {
	char	*key, *value;		/* value NULL: a flag */
};

struct izo_params {
	bool	virtual;		/* vintermezzo */
	char	*fileset;		/* NULL: the only one that is there */
	char	*cache_type;		/* NULL: ext4, tmpfs */
	char	*lowerdir;
	int	minor;			/* -1: the smallest that is free */
	struct izo_lower_param *lower;
	unsigned int n_lower;
};

int izo_init_fs_context(struct fs_context *fc);
int izo_init_virtual_fs_context(struct fs_context *fc);
void izo_free_params(struct izo_params *p);

/* super.c */

struct izo_sb {
	struct super_block	*sb;
	struct vfsmount		*lower_mnt;
	struct dentry		*lower_root;
	bool			lower_private;	/* nobody else can have it mounted */
	struct dentry		*meta;		/* .intermezzo/<fileset> */
	struct izo_params	params;
	struct izo_journal	*journal;
	void			*append_buf;	/* the journal's worker's */
	struct izo_channel	*channel;
	char			channel_path[32];
	struct task_struct	*reint_task;	/* applies a batch of a peer: see reint.h */
	struct izo_reint_entry_run *reint;	/* its entry in progress */
	const struct cred	*creds;		/* root's */
	/* session.c */
	spinlock_t		dirty_lock;
	struct list_head	dirty;		/* inodes that changed since their last CLOSE */
	struct work_struct	close_work;
	bool			writer_comes;	/* it was told ESTALE: REINT waits a moment */
	/* mmap.c */
	struct mutex		vm_ops_lock;
	struct list_head	vm_ops;
	/* sysctl.c */
	struct izo_sysctl	*sysctl;
	unsigned int		timeout;	/* REINT waits so many seconds for a writer */
	/* MiB or seconds until a file that is held open gets a CLOSE; 0 never */
	unsigned int		close_after, close_every;
	unsigned int		checkpoint_every;	/* seconds, where there is a set */
	const char		*fault;		/* where to fail, or NULL */
	atomic_t		fault_left;
	bool			dead;		/* it has */
};

static inline struct izo_sb *izo_sb(const struct super_block *sb)
{
	return sb->s_fs_info;
}

static inline struct super_block *izo_lower_sb(const struct super_block *sb)
{
	return izo_sb(sb)->lower_root->d_sb;
}

int izo_fill_super(struct super_block *sb, struct fs_context *fc);
int izo_reconfigure(struct fs_context *fc);
void izo_kill_sb(struct super_block *sb);

/* lower.c: the mount that is ours alone */

int izo_lower_mount(struct izo_sb *sbi, struct fs_context *fc);
void izo_lower_unmount(struct izo_sb *sbi);
/* A file of proc, by a mount of our own. */
struct file *izo_proc_open(const char *name);

/* journal.c and others, see journal.h: the log */

struct izo_journal;
/* One of the log's own files, which only we change. */
bool izo_is_log(const struct inode *inode);

/* fileset.c: .intermezzo/<fileset> */

int izo_fileset_find(struct izo_sb *sbi, struct fs_context *fc);
int izo_fileset_make(struct izo_sb *sbi, struct fs_context *fc);

struct dentry *izo_meta_lookup(struct dentry *dir, const char *name);
struct dentry *izo_meta_make(struct izo_sb *sbi, struct dentry *dir, const char *name,
			     umode_t type);
int izo_meta_remove(struct izo_sb *sbi, struct dentry *dir, const char *name);
int izo_meta_rename(struct izo_sb *sbi, struct dentry *dir, const char *from, const char *to);
struct file *izo_meta_open(struct izo_sb *sbi, struct dentry *d, int flags);
/* A new file, in place of one that may be there; what is written is where it stays. */
struct file *izo_meta_create(struct izo_sb *sbi, const char *name);
/* Names in the directory of the fileset are durable. */
int izo_meta_sync(struct izo_sb *sbi);

/* inode.c */

struct izo_inode {
	struct inode	*lower_inode;	/* the key; kept by: */
	struct dentry	*lower;		/* counted; any of the lower inode's */
	bool		meta;		/* .intermezzo or below it: never logged */
	bool		gone;		/* REINT replaced or removed it */
	bool		ctime_seen;	/* somebody may have it as a guard */
	u8		busy;		/* REINT: IZO_NO_WRITERS, IZO_NOBODY may open it now */
	/* session.c, under lock */
	struct mutex	lock;
	struct izo_session *session;
	unsigned int	writers;	/* open for write */
	unsigned int	readers;	/* open for reading only */
	unsigned int	maps;		/* shared mappings that can be written to */
	bool		flushed;	/* a descriptor was closed since the last write() */
	struct list_head dirty;		/* in sbi->dirty; the inode is counted then */
	/* changing.c: rounds in which it is known to be covered, or was made */
	u32		covered, made;
	u32		children, children_round;
	unsigned int	setting;	/* its times are being set */
	bool		closed_meanwhile;
	struct inode	vfs_inode;
};

static inline struct izo_inode *izo_i(const struct inode *inode)
{
	return container_of(inode, struct izo_inode, vfs_inode);
}

static inline struct dentry *izo_lower_dentry(const struct inode *inode)
{
	return izo_i(inode)->lower;
}

static inline struct inode *izo_lower_inode(const struct inode *inode)
{
	return izo_i(inode)->lower_inode;
}

/* Not counted: valid as long as the inode. */
static inline struct path izo_lower_path(const struct inode *inode)
{
	return (struct path) {
		.mnt = izo_sb(inode->i_sb)->lower_mnt,
		.dentry = izo_lower_dentry(inode),
	};
}

int izo_inode_cache_init(void);
void izo_inode_cache_exit(void);
struct inode *izo_alloc_inode(struct super_block *sb);
void izo_free_inode(struct inode *inode);
void izo_evict_inode(struct inode *inode);
struct inode *izo_iget(struct super_block *sb, struct dentry *lower, bool meta);
/* What the lower inode's attributes are now, after a change of it. */
void izo_copy_attr(struct inode *inode);
void izo_copy_times(struct inode *inode);
void izo_copy_size(struct inode *inode);

/* attr.c */

int izo_getattr(struct mnt_idmap *idmap, const struct path *path, struct kstat *stat,
		u32 request_mask, unsigned int flags);
int izo_setattr(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr);
int izo_update_time(struct inode *inode, IZO_UPDATE_TIME_ARGS);
int izo_fileattr_get(struct dentry *dentry, struct file_kattr *fa);
int izo_fileattr_set(struct mnt_idmap *idmap, struct dentry *dentry, struct file_kattr *fa);
int izo_fiemap(struct inode *inode, struct fiemap_extent_info *info, u64 start, u64 len);

/* xattr.c */

extern izo_xattr_handlers izo_xattrs;
int izo_lower_setxattr(struct izo_sb *sbi, struct dentry *lower, const char *name,
		       const void *value, size_t size);
ssize_t izo_lower_getxattr_as_is(struct izo_sb *sbi, struct dentry *lower, const char *name,
				 void *buf, size_t size);
ssize_t izo_lower_getxattr(struct dentry *lower, const char *name, void *buf, size_t size);
ssize_t izo_listxattr(struct dentry *dentry, char *list, size_t size);
struct posix_acl *izo_get_inode_acl(struct inode *inode, int type, bool rcu);
#ifdef IZO_ACL_OPS
struct posix_acl *izo_get_acl(struct mnt_idmap *idmap, struct dentry *dentry, int type);
int izo_set_acl(struct mnt_idmap *idmap, struct dentry *dentry, struct posix_acl *acl, int type);
#endif

/* dir.c: names */

extern const struct inode_operations izo_dir_iops;
#ifdef IZO_D_REAL
extern const struct dentry_operations izo_dentry_ops;
#endif
/* False for what the root hides or protects. */
bool izo_name_hidden(const struct inode *dir, const struct qstr *name);
bool izo_name_protected(const struct inode *dir, const struct qstr *name);
int izo_move_lower(struct inode *dir, struct dentry *old, struct inode *tdir,
		   struct dentry *new, unsigned int flags);
bool izo_name_is(const struct qstr *name, const char *what);

/* readdir.c */

extern const struct file_operations izo_dir_fops;

/* file.c */

extern const struct file_operations izo_file_fops;
extern const struct inode_operations izo_file_iops, izo_link_iops, izo_special_iops;
struct file *izo_real_file(struct file *file);
long izo_ioctl(struct file *file, unsigned int cmd, unsigned long arg);

/* session.c: what a file's writers changed since its last CLOSE */

/* Between izo_session_change() and izo_session_changed(). */
struct izo_change {
	unsigned int	generation;
	bool		mapped;		/* through a mapping, not by a call */
	u64		off, len;
};

void izo_sessions_init(struct izo_sb *sbi);
/* The last CLOSEs of a file system that is about to go. */
void izo_sessions_end(struct izo_sb *sbi);
/* A descriptor of the inode is opened (-ESTALE: look it up again) or closed. */
int izo_session_open(struct inode *inode, bool write);
/* REINT, before it replaces a file. */
void izo_session_writer_wait(struct izo_sb *sbi);
void izo_session_release(struct inode *inode, bool write, struct dentry *dentry);
/* A descriptor of a writer was closed; others may be left. */
void izo_session_flushed(struct inode *inode);
/* Before bytes of content change.  On an error they must not change. */
int izo_session_change(struct inode *inode, u64 off, u64 len, struct izo_change *ret_change);
/* The same, before all content goes. */
int izo_session_empty(struct inode *inode, struct izo_change *ret_change);
/* Afterwards, also if it failed; result is -errno then. */
void izo_session_changed(struct inode *inode, const struct izo_change *change,
			 struct dentry *dentry, long result);
/*
 * Around a change of the mtime or of the number of links.  A CLOSE may be logged at the same
 * time, with what was before: then the end logs once more what it is now.
 */
void izo_session_setting(struct inode *inode);
void izo_session_set(struct inode *inode, struct dentry *dentry);
/* Log CLOSE if something changed. */
int izo_session_log(struct inode *inode, struct dentry *dentry);
/* CLOSE for all files that were flushed since they changed, or for all. */
void izo_session_log_all(struct izo_sb *sbi, bool force);
/* All content counts as changed: a nameless file got a name. */
void izo_session_named(struct inode *inode, struct dentry *dentry);
void izo_session_map(struct inode *inode);
void izo_session_unmap(struct inode *inode);
void izo_session_free(struct izo_inode *ii);

/* sysctl.c: /proc/sys/intermezzo */

/* What "debug" consists of; the bits of old, as far as there is something to tell. */
enum {
	IZO_D_SUPER	= 1,
	IZO_D_FILE	= 4,
	IZO_D_JOURNAL	= 32,
	IZO_D_PSDEV	= 128,
	IZO_D_DOWNCALL	= 2048,
	IZO_D_KML	= 4096,
};

extern unsigned int izo_debug_mask, izo_trace_ops;

#define izo_debug(bit, fmt, ...)						\
	do {									\
		if (unlikely(READ_ONCE(izo_debug_mask) & (bit)))		\
			pr_info(fmt, ##__VA_ARGS__);				\
	} while (0)

void izo_sysctl_init(void);
void izo_sysctl_exit(void);
int izo_sysctl_open(struct izo_sb *sbi, const char *channel);
void izo_sysctl_close(struct izo_sb *sbi);
bool izo_fault_hit(struct izo_sb *sbi, const char *name);

/* A point where the file system can be made to die; true: it has just done so. */
static inline bool izo_fault(struct izo_sb *sbi, const char *name)
{
	return unlikely(READ_ONCE(sbi->fault)) && izo_fault_hit(sbi, name);
}

static inline bool izo_dead(const struct izo_sb *sbi)
{
	return unlikely(READ_ONCE(sbi->dead));
}

/* mmap.c */

int izo_mmap(struct file *file, struct vm_area_struct *vma);
/* Stores to pages of the range fault again, and are seen. */
void izo_mmap_protect(struct inode *inode, u64 off, u64 end);
void izo_mmap_exit(struct izo_sb *sbi);

/* channel.c: /dev/intermezzoN */

int izo_channel_open(struct izo_sb *sbi, struct fs_context *fc);
void izo_channel_close(struct izo_sb *sbi);
void izo_channel_grown(struct izo_sb *sbi);

/* export.c */

extern const struct export_operations izo_export_ops;
struct dentry *izo_decode_handle(struct izo_sb *sbi, void *fid, int words, int type);

#endif
