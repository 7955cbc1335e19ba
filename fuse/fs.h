/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the FUSE file system know of each other, grouped by file.
 *
 * Locks, in the order in which they are taken: directory stripes (dir_lock(),
 * two in the order of their addresses), file stripes (file_lock()), the
 * session stripe of a file, the journal's.  Directory stripes are held shared
 * by lookups and listings and exclusively by everything that changes names;
 * file stripes are held shared by FUSE requests and exclusively by REINT.
 * What FUSE requests do to one inode at the same time is the kernel's to order.
 * The invalidations that REINT sends to the kernel can wait for a FUSE request,
 * therefore it sends them when it holds none of these.
 */
#ifndef FUSE_FS_H
#define FUSE_FS_H

#define FUSE_USE_VERSION 312

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include <intermezzo/channel.h>
#include <intermezzo/kml.h>

#include "klog.h"
#include "record.h"

#define META_DIR	".intermezzo"
#define LOST_FOUND	"lost+found"

/* main.c */

struct options {
	const char	*source, *mountpoint, *fileset, *options, *lower;
	int		lower_fd;
	int		minor;		/* -1: the smallest that is free */
	bool		foreground, debug;
	unsigned int	lml_mib;	/* size of a new lml */
	unsigned int	close_mib;	/* CLOSE after so much was written, 0 never */
	unsigned int	close_sec;	/* or after so long */
	unsigned int	checkpoint_sec;	/* while something changes */
	unsigned int	threads;
};

struct fs {
	struct options		opt;
	struct fuse_session	*se;
	int			root_fd;	/* lower root, O_PATH */
	int			mount_fd;	/* lower root, O_RDONLY: for file handles */
	int			proc_fd;	/* /proc/self/fd */
	int			meta_fd;	/* .intermezzo/<fileset> */
	int			incoming_fd;
	bool			have_handles;	/* the lower has file handles */
	char			channel_path[64];
	unsigned int		minor;
	struct klog_header	log;		/* of the kml */
	_Atomic bool		stopping;
};

extern struct fs fs;

/* One sentence on stderr or, once daemonized, in the system's log. */
void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* fault.c: named points where tests let the process die */

extern bool fault_armed;
int fault_parse(const char *arg);	/* NAME:N */
void fault_hit(const char *name);

static inline void fault(const char *name)
{
	if (__builtin_expect(fault_armed, 0))
		fault_hit(name);
}

/* inode.c: objects of the lower file system that are in use */

#define HANDLE_INLINE	24

struct handle {
	uint8_t		len;		/* 0: none */
	uint8_t		type;
	uint8_t		bytes[HANDLE_INLINE];
};

struct session;

struct inode {
	struct inode	*next;		/* in its bucket */
	uint64_t	nodeid;		/* what the kernel calls it */
	uint64_t	ino;		/* of the lower, as dev and gen */
	dev_t		dev;
	uint32_t	gen;
	mode_t		type;		/* S_IFMT bits */
	struct handle	handle;
	/* Under the bucket's lock. */
	uint64_t	nlookup;	/* references of the kernel */
	uint32_t	refs;		/* our own */
	/* Under the descriptor stripe. */
	uint32_t	fd_users;
	int		fd;		/* O_PATH, -1: open it by its handle */
	bool		fd_recent;
	bool		fd_keep;	/* nothing else leads to the inode */
	/* Under the name stripe: where it was seen last. */
	struct inode	*parent;
	char		*name;
	/* Under the session stripe. */
	struct session	*session;
	uint32_t	writers;	/* open for write */
	uint32_t	readers;	/* open for reading only */
	bool		flushed;	/* a writer's descriptor was closed since the last write() */
	_Atomic int8_t	default_acl;	/* directory: 1 has one, 0 has none, -1 unknown */
	bool		meta;		/* .intermezzo or below: never logged */
	_Atomic bool	gone;		/* REINT replaced or removed it */
	/* How often REINT wrote into it, and how often an open has said so. */
	_Atomic uint32_t changed, told;
	/* Rounds of changing.c in which it is covered, and in which it was made. */
	_Atomic uint32_t covered, made;
	/* Under its lock: directories in this one that went in by themselves. */
	uint32_t	children, children_round;
	uint32_t	moved;		/* a directory that moved, in this round */
};

int inode_init(void);
extern struct inode *root_inode;
struct inode *inode_of(fuse_ino_t nodeid);
/*
 * For numbers that do not come from the kernel's memory (NFS): referenced for
 * the kernel, or NULL if stale.
 */
struct inode *inode_find_nodeid(fuse_ino_t nodeid);
/*
 * The inode called name in the directory dirfd.  The reference in *ret_inode
 * is the kernel's (nlookup) if for_kernel, else the caller's.
 */
int inode_lookup(struct inode *parent, int dirfd, const char *name, bool for_kernel,
		 struct stat *ret_st, struct inode **ret_inode);
/* The same for an object that is open at fd, which stays the caller's. */
int inode_of_fd(struct inode *parent, int fd, const char *name, bool for_kernel,
		const struct stat *st, struct inode **ret_inode);
/* The directory at path, referenced, if name leads from there to what st is of. */
bool inode_of_path(const char *path, const struct stat *st, const char *name,
		   struct inode **ret_dir);
/* Only if it is in use already; the reference is the caller's. */
struct inode *inode_find(dev_t dev, uint64_t ino);
void inode_ref(struct inode *i);
void inode_unref(struct inode *i);
void inode_forget(struct inode *i, uint64_t nlookup);
/* An O_PATH descriptor to use until inode_put_fd(); -errno. */
int inode_get_fd(struct inode *i);
void inode_put_fd(struct inode *i);
/* Keep a descriptor from now on: its last name is about to go. */
int inode_keep_fd(struct inode *i);
/* A new descriptor with flags (O_RDONLY ...). */
int inode_open(struct inode *i, int flags);
void inode_set_name(struct inode *i, struct inode *parent, const char *name);
/* Forget the name if it is this one. */
void inode_clear_name(struct inode *i, struct inode *parent, const char *name);
/* Its path from the root, for people; its length, 0 where it is not known. */
size_t inode_path(struct inode *dir, char *buf, size_t size);
/* Copies the name; the parent is referenced for the caller.  False: unknown. */
bool inode_get_name(struct inode *i, char name[256], struct inode **ret_parent);
int inode_stat(struct inode *i, struct stat *ret_st);
void proc_name(char buf[16], int fd);
/* "/proc/self/fd/N" */
void proc_path(char buf[32], int fd);
int handle_get(int dirfd, const char *path, struct handle *ret_h, uint32_t *ret_gen);
int handle_open(const struct handle *h, int flags);
/* Do all inodes that the kernel knows. */
void inode_each(void (*fn)(struct inode *i, void *arg), void *arg);

/* lock.c: striped locks and the caller's identity */

void dir_lock(uint64_t ino);
void dir_lock_shared(uint64_t ino);
void dir_unlock(uint64_t ino);
void dir_lock2(uint64_t a, uint64_t b);
void dir_unlock2(uint64_t a, uint64_t b);
/* More than two: their stripes, sorted, each once; how many are left. */
unsigned int dir_stripe(uint64_t ino);
unsigned int dir_stripes(unsigned int *stripes, unsigned int n);
void dir_lock_stripes(const unsigned int *stripes, unsigned int n);
void dir_unlock_stripes(const unsigned int *stripes, unsigned int n);
void file_lock(uint64_t ino);
void file_lock_shared(uint64_t ino);
void file_unlock(uint64_t ino);
void file_lock2_shared(uint64_t a, uint64_t b);
void file_unlock2(uint64_t a, uint64_t b);
/* Every thread that does operations: own umask, capabilities stay. */
int worker_init(void);
/* Make objects as the caller of req, and root again. */
void creds_enter(fuse_req_t req);
void creds_leave(void);

/* journal.c: the LML ring, the KML's writer */

struct lml_entry;

/*
 * One operation: what it will log and where.  op_init(), fill in the record,
 * op_begin() (the intent is then in the LML), the operation, complete the
 * record, op_done() or op_abort().
 */
struct op {
	struct kml_record	r;
	struct inode		*parent, *tparent, *obj;	/* their handles go into the intent */
	size_t			extra;		/* what the record may still grow */
	bool			nolog;		/* below .intermezzo, or no name any more */
	bool			prepaid;	/* the KML's space was reserved before */
	bool			redo;		/* REINT: done or undone as a whole */
	unsigned int		reint_index;	/* 1 + index in the batch, for its recno */
	/* Directories that are moved; of aliases whose names get another object. */
	struct inode		*moved, *exchanged;
	struct inode		**also;
	unsigned int		n_also;
	struct lml_entry	*entry;
	uint64_t		seq;
	uint32_t		round;		/* of changing.c */
	size_t			room;		/* for the completed record */
	char			name[256];
};

int journal_open(void);			/* with recovery */
int journal_start(void);		/* its threads */
void journal_stop(void);
/* req NULL: root did it.  dirfd gives the path of the parent, -1 none. */
void op_init(struct op *op, fuse_req_t req, unsigned int opcode, struct inode *parent,
	     int dirfd, const char *name);
void op_target(struct op *op, struct inode *tparent, int dirfd, const char *name);
/* The record is about i. */
void op_object(struct op *op, struct inode *i);
/* op_init() for an operation on i itself, under the name it was seen last. */
void op_init_object(struct op *op, fuse_req_t req, unsigned int opcode, struct inode *i);
int op_begin(struct op *op);
void op_done(struct op *op);
void op_abort(struct op *op);
/* Wait until everything that is complete now is in the kml. */
void journal_drain(void);
/* The same, but only if there is something on its way that is for the log. */
void journal_drain_logged(void);
/* Make all that was logged durable (in the LML). */
int journal_sync(void);
/* The same in the kml. */
int journal_sync_kml(void);
void journal_end(uint64_t *ret_offset, uint64_t *ret_recno);
int journal_punch(uint64_t offset, uint64_t recno);
/* A writer was told to look its file up again: let it come through. */
void writer_comes(void);
void writer_came(void);
void writer_wait(void);
/* Called by the worker when the log grew. */
extern void (*journal_grown)(void);
/* Where the worker leaves record numbers of the REINT batch in progress. */
extern uint64_t *journal_reint_recno;

/* openw.c: files that changed since their last CLOSE, in the LML */

#define CLOSE_ROOM	6144		/* bytes of the KML that a CLOSE may take */

/* A slot; -EAGAIN: all are in use by open files; -errno. */
int openw_begin(struct inode *i, uint64_t old_size);
/* Its CLOSE is the entry close_seq; 0: there is nothing to log. */
void openw_end(int slot, uint64_t close_seq);

/* changing.c: what may differ from the log if the machine stops */

/* Before the operation; on an error nothing may change. */
int changing_op(struct op *op);
/*
 * Before a session of writing begins.  emptied: the first thing is that the
 * file is cut to nothing.  To be followed by changing_leave().
 */
int changing_content(struct inode *i, const struct stat *st, bool emptied, uint32_t *ret_round);
/* Before a directory's own attributes change by no operation. */
int changing_dir(struct inode *dir, uint32_t *ret_round);
void changing_leave(uint32_t round);

/* dir.c: names */

void attr_from_stat(struct kml_attrs *a, const struct stat *st);
void time_from_ts(struct kml_time *t, const struct timespec *ts);
/* False for what the root hides or protects. */
bool name_hidden(struct inode *parent, const char *name);
bool name_protected(struct inode *parent, const char *name);
bool dir_default_acl(struct inode *dir, int dirfd);
/* After an exchange: the mtime of what is at fd is what it was. */
void keep_mtime(int fd, const struct stat *was);
void op_ptime(struct op *op, int dirfd, int tdirfd);
void ll_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void ll_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup);
void ll_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void ll_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void ll_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void ll_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name);
void ll_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void ll_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void ll_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
	       const char *newname, unsigned int flags);
void ll_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname);
void ll_readlink(fuse_req_t req, fuse_ino_t ino);
void ll_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	       struct fuse_file_info *fi);

/* readdir.c: listings */

void ll_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ll_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		struct fuse_file_info *fi);
void ll_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi);
void ll_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ll_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);

/* attr.c: attributes */

#define TIMEOUT		86400.0		/* seconds; whatever changes, changes through us */

/*
 * How long the kernel may keep what it knows of i (NULL: of nothing).  What is
 * below .intermezzo changes behind its back.
 */
static inline double cache_time(const struct inode *i)
{
	return i && i->meta ? 0 : TIMEOUT;
}

void ll_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ll_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		struct fuse_file_info *fi);
void ll_statfs(fuse_req_t req, fuse_ino_t ino);
/* O_TRUNC by others than root costs set-id bits, and by anybody capabilities. */
int attr_truncated(fuse_req_t req, struct inode *i);

/* xattr.c */

void ll_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
		 size_t size, int flags);
void ll_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void ll_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void ll_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);
/* Remove it, logged, if it is there. */
int xattr_drop(fuse_req_t req, struct inode *i, const char *name);
/* All xattrs of what fd leads to, as items; freed by the caller. */
int xattr_items(int fd, bool only_acl, void **ret_items, size_t *ret_len);

/* session.c: what a file's writers changed since its last CLOSE */

/* Between session_change() and session_changed(). */
struct change {
	unsigned int	generation;
	bool		mapped;		/* pages written back, not a write() */
	uint64_t	off, len;
};

/* A descriptor of i is opened or closed. */
void session_open(struct inode *i, bool write);
void session_release(struct inode *i, bool write, fuse_req_t req);
/*
 * Before bytes of content change; fd of the open file, or -1.  On an error they
 * must not change.  emptied: the file is cut to nothing.
 */
int session_change(struct inode *i, int fd, uint64_t off, uint64_t len, bool emptied,
		   struct change *ret_change);
/* Afterwards, also if it failed. */
void session_changed(struct inode *i, fuse_req_t req, const struct change *change);
/* Log CLOSE if something changed.  if_flushed: only if flushed since then. */
int session_log(struct inode *i, fuse_req_t req, bool if_flushed);
/* A descriptor of a writer was closed; log it if it may have been the last one. */
void session_flushed(struct inode *i, fuse_req_t req);
bool session_has_writers(struct inode *i);
bool session_is_open(struct inode *i);
/* All content counts as changed: a nameless file got a name. */
void session_named(struct inode *i, fuse_req_t req, bool has_content);
/* CLOSE for all files that were flushed since they changed. */
void session_log_all(bool force);
void session_free(struct inode *i);

/* file.c: open files */

struct file {
	int		fd;
	struct inode	*inode;
	bool		write;
};

void ll_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ll_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void ll_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
	      struct fuse_file_info *fi);
void ll_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ll_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ll_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void ll_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
		  struct fuse_file_info *fi);
void ll_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
			struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
			struct fuse_file_info *fi_out, size_t len, int flags);
void ll_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
/* The open file for a new descriptor, counted; NULL: no memory. */
struct file *file_new(struct inode *i, int fd, bool write);
void file_free(struct file *f, fuse_req_t req);
int file_open(fuse_req_t req, struct inode *i, struct fuse_file_info *fi);
/* Change the size; fd open for write. */
int file_truncate(fuse_req_t req, struct inode *i, int fd, uint64_t size);

static inline struct file *file_of(struct fuse_file_info *fi)
{
	return (struct file *) (uintptr_t) fi->fh;
}

/* channel.c */

int channel_listen(void);		/* chooses fs.minor */
int channel_start(void);
void channel_stop(void);

/* reint.c */

/* Apply a whole request; -EINVAL: nothing was done.  The reply's body is freed by the caller. */
int reint_apply(const void *body, size_t len, void **ret_reply, size_t *ret_len);

#endif
