/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The log: operations in flight and files open for write in the LML, completed
 * records in the KML.  doc/kml.md and doc/lml.md specify both; what is said here
 * is how they are written.
 *
 * The whole LML is in memory (image).  How it gets to disk is its back end's
 * business (struct izo_lml_ops).  Two threads serve it: the worker appends finished
 * records to the KML and allocates the KML's space ahead, the flusher makes the KML
 * durable and gives back the LML's space.  Both run as root without limits, so no
 * caller's signals, limits or quota can keep a record out.
 *
 * journal.lock guards positions, seqs and reservations.  It is taken inside a
 * back end's transaction; nothing that waits for the threads may hold either.
 */
#ifndef INTERMEZZO_JOURNAL_H
#define INTERMEZZO_JOURNAL_H

#include "intermezzo.h"

#include <linux/wait.h>

#include <intermezzo/kml.h>
#include <intermezzo/lml.h>

#include "../lib/lml_format.h"
#include "../lib/record.h"

#define IZO_LML_SIZE	(8u << 20)	/* of a new one */
#define IZO_CLOSE_ROOM	6144		/* bytes of the KML that a CLOSE may take */

struct izo_journal;
struct izo_changing;

/* A transaction of the back end, and a place for its answer. */
struct izo_trans {
	void	*handle;
	int	error;
};

/*
 * Where the image is kept.  start() and stop() make all writes in between one
 * transaction; transactions become durable in the order of their starts.
 */
struct izo_lml_ops {
	int	(*start)(struct izo_journal *j, size_t bytes, struct izo_trans *t);
	void	(*write)(struct izo_journal *j, struct izo_trans *t, size_t off, size_t len);
	void	(*stop)(struct izo_journal *j, struct izo_trans *t);
	/* All that was written so far is durable.  From any context that may sleep. */
	int	(*sync)(struct izo_journal *j);
	/* The flusher's: as sync, of what counts from position tail on. */
	int	(*flush)(struct izo_journal *j, u64 tail);
	/* Commit soon (or NULL): content that is on disk already is about to change. */
	void	(*hasten)(struct izo_journal *j);
	void	(*close)(struct izo_journal *j);
};

extern const struct izo_lml_ops izo_lml_file_ops, izo_lml_none_ops;

/* What recovery had to do: in proportion to what was in progress, never to the tree. */
struct izo_recovery_counts {
	u64	entries;	/* of the ring */
	u64	slots;		/* files that were open for write */
	u64	closed;		/* objects closed since content was seen to be on disk */
	u64	looked;		/* names and handles looked up in the tree */
	u64	records;	/* appended */
	u64	members;	/* of the set of what was being changed */
	u64	below;		/* directories below those */
};

struct izo_journal {
	struct izo_sb		*sbi;
	struct file		*kml, *lml, *last_rcvd;
	/* of the kml's header */
	u8			fileset_uuid[16], replica_uuid[16];
	u64			epoch, first_offset, first_recno;

	const struct izo_lml_ops *ops;
	void			*ops_data;
	char			*image;
	size_t			image_size;
	struct lml_header	*header;
	struct lml_openw	*openw;
	unsigned int		n_openw;
	char			*ring;
	u64			ring_size;

	struct mutex		lock;		/* see above */
	wait_queue_head_t	work;		/* for the worker */
	wait_queue_head_t	flush;		/* for the flusher */
	wait_queue_head_t	space;		/* tail, end, space or durability moved */
	/* Positions in the ring; they never wrap. */
	u64			head, tail, appended;
	u64			promised;	/* bytes behind head, not taken yet */
	u64			next_seq, appended_seq, durable_seq;	/* all below are so */
	u64			logged_seq;	/* the last that is for the log */
	u64			serial;
	/* The kml: its end, what is allocated, what operations may still append. */
	u64			end, recno, allocated, reserved;
	u64			wanted;		/* somebody waits until so much is allocated */
	unsigned int		alloc_tries;
	u64			durable_end, durable_recno;
	u64			data_end, data_recno;	/* the content that these tell of is, too */
	unsigned long		data_synced;	/* jiffies */
	bool			no_fallocate;
	int			error;		/* of the last append, 0 once one succeeded */
	int			flush_error;	/* of the last flush, likewise */
	bool			flush_now, flushing;
	unsigned int		drainers;
	u64			sync_wanted, sync_done;	/* requests to make the LML durable */
	int			sync_error;	/* of the last one */
	struct task_struct	*worker, *flusher;
	/* openw.c: a stack of free slots, a queue of closed ones */
	unsigned int		*free_slots, n_free;
	unsigned int		*closed_slots, closed_first, n_closed;
	/* where the worker leaves record numbers of the REINT batch in progress */
	u64			*reint_recnos;
	struct izo_recovery_counts recovered;
	struct izo_changing	*changing;	/* or NULL: changing.c */
};

/* journal.c */

int izo_journal_open(struct izo_sb *sbi, struct fs_context *fc);	/* with recovery */
void izo_journal_close(struct izo_sb *sbi);
/* From now on nothing reaches the log any more (see sysctl.c). */
void izo_journal_die(struct izo_journal *j);
/* Wait until everything that is complete now is in the kml. */
void izo_journal_drain(struct izo_journal *j);
/* The same, but only if there is something on its way that is for the log. */
void izo_journal_drain_logged(struct izo_journal *j);
/* The lower file system has been synced after the log ended there. */
void izo_journal_data_synced(struct izo_journal *j, u64 offset, u64 recno);
/* Make all that was logged durable. */
int izo_journal_sync(struct izo_journal *j);
/* The same in the kml. */
int izo_journal_sync_kml(struct izo_journal *j);
/* Let the flusher call ops->flush(), and wait for it. */
int izo_journal_flush_lml(struct izo_journal *j);
void izo_journal_end(struct izo_journal *j, u64 *ret_offset, u64 *ret_recno);
/* Called with the lock held: space in the KML (may wait); wake the flusher. */
int izo_kml_reserve(struct izo_journal *j, u64 bytes, bool frees);
void izo_kml_unreserve(struct izo_journal *j, u64 bytes);
void izo_request_flush(struct izo_journal *j);
/*
 * Wait for wq, giving up the lock meanwhile; timeout in jiffies.  TASK_IDLE is for threads of
 * ours: not once they are to stop.
 */
long izo_wait_on(struct mutex *lock, wait_queue_head_t *wq, unsigned int state, long timeout);

static inline long izo_wait(struct izo_journal *j, wait_queue_head_t *wq, unsigned int state,
			    long timeout)
{
	return izo_wait_on(&j->lock, wq, state, timeout);
}

/* Nothing gets better by waiting.  Called with the lock held. */
static inline int izo_journal_error(const struct izo_journal *j)
{
	return j->error ?: j->flush_error;
}

static inline struct lml_entry *izo_ring_entry(struct izo_journal *j, u64 pos)
{
	u64 off;

	div64_u64_rem(pos, j->ring_size, &off);
	return (struct lml_entry *)(j->ring + off);
}

static inline u64 izo_ring_rest(struct izo_journal *j, u64 pos)
{
	u64 off;

	div64_u64_rem(pos, j->ring_size, &off);
	return j->ring_size - off;
}

/* Who sees a state also sees what was stored before it was set. */
static inline u32 izo_entry_state(const struct lml_entry *e)
{
	/* see above */
	return le32_to_cpu((__force __le32)smp_load_acquire((__force u32 *)&e->state));
}

static inline void izo_entry_set_state(struct lml_entry *e, u32 state)
{
	/* see above */
	smp_store_release((__force u32 *)&e->state, (__force u32)cpu_to_le32(state));
}

static inline char *izo_entry_intent(struct lml_entry *e)
{
	return (char *)(e + 1);
}

static inline size_t izo_image_offset(struct izo_journal *j, const void *p)
{
	return (const char *)p - j->image;
}

/* op.c: one operation */

/*
 * What it will log and where.  izo_op_new() or one of the others, fill in the record,
 * izo_op_begin() (the intent is then in the LML), the operation, complete the
 * record, izo_op_done() or izo_op_abort(), which free it.
 */
struct izo_op {
	struct kml_record	r;
	struct izo_journal	*j;
	/* upper ones; their handles go into the intent */
	struct inode		*parent, *tparent, *obj;
	/* what changing.c has to know besides: */
	struct inode		*exchanged;	/* with obj */
	struct dentry		**also;		/* directories whose names change, too */
	unsigned int		n_also;
	u32			round;
	size_t			extra;		/* what the record may still grow */
	bool			nolog;		/* below .intermezzo, or no name any more */
	bool			prepaid;	/* the KML's space was reserved before */
	bool			redo;		/* REINT: done or undone as a whole */
	struct izo_reint_entry_run *reint;	/* a peer's: its guards are checked first */
	unsigned int		reint_index;	/* 1 + index in the batch, for its recno */
	struct lml_entry	*entry;
	u64			seq;
	size_t			room;		/* for the completed record */
	char			*dir_buf, *tdir_buf;
	void			*items;		/* xattrs of the record */
	struct name_snapshot	snap;
	bool			has_snap;
	struct dentry		*named_parent;	/* counted */
	/* paths that are not long; not cleared at first */
	char			dir_first[160], tdir_first[160];
};

int izo_op_cache_init(void);
void izo_op_cache_exit(void);
/* The name dentry in the directory dir, whose lock is held. */
struct izo_op *izo_op_name(struct inode *dir, unsigned int opcode, const struct dentry *dentry);
void izo_op_target(struct izo_op *op, struct inode *tdir, const struct dentry *dentry);
/* The record is about inode. */
void izo_op_object(struct izo_op *op, struct inode *inode);
/* An operation on inode itself; dentry is a name of it, or NULL: any. */
struct izo_op *izo_op_inode(struct inode *inode, unsigned int opcode, struct dentry *dentry);
int izo_op_begin(struct izo_op *op);
void izo_op_done(struct izo_op *op);
void izo_op_abort(struct izo_op *op);
void izo_op_free(struct izo_op *op);
void izo_op_ptime(struct izo_op *op, struct inode *dir, struct inode *tdir);
/* The same, whatever REINT says. */
void izo_op_ptime_now(struct izo_op *op, struct inode *dir, struct inode *tdir);
void izo_op_attr(struct izo_op *op, const struct inode *inode, u32 valid);
void izo_op_old(struct izo_op *op, const struct inode *inode);
void izo_attr_of(struct kml_attrs *a, const struct inode *inode);
void izo_time_of(struct kml_time *t, const struct timespec64 *ts);
void izo_handle_of(struct lml_handle *h, const struct inode *inode);
size_t izo_growth(size_t extra);

/* items.c: xattrs of a record */

/* One attribute; the item belongs to the operation. */
int izo_op_xattr(struct izo_op *op, const char *name, const void *value, size_t size);
/* The most that the ACLs inherited from dir can take in a record. */
size_t izo_acl_room(const struct inode *dir);
/* All ACLs of the lower inode, or all xattrs of the lower dentry; *items is freed by kvfree(). */
int izo_acl_items(struct inode *lower, void **ret_items, size_t *ret_len);
int izo_xattr_items(struct izo_sb *sbi, struct dentry *lower, void **ret_items, size_t *ret_len);

/* openw.c: files that changed since their last CLOSE, in the LML */

int izo_openw_init(struct izo_journal *j);
void izo_openw_exit(struct izo_journal *j);
/* A slot; -EAGAIN: all are in use by open files; -errno. */
int izo_openw_begin(struct izo_journal *j, struct inode *inode, u64 old_size);
/* Its CLOSE is the entry close_seq; 0: there is nothing to log. */
void izo_openw_end(struct izo_journal *j, int slot, u64 close_seq);
/* Called with the lock held when durable_seq has moved. */
void izo_openw_recycle(struct izo_journal *j);

/* lml.c: the LML's file and header */

int izo_lml_open(struct izo_journal *j, struct fs_context *fc);
void izo_lml_close(struct izo_journal *j);
/* Write the LML's next state: the tail, and the journal's durable positions. */
int izo_lml_state_put(struct izo_journal *j, u64 tail, u32 flags);
/* A transaction of one write. */
int izo_lml_write(struct izo_journal *j, size_t off, size_t len);

/* jbd2.c: the back end for a lower ext4; false if it cannot be had */

bool izo_lml_jbd2_open(struct izo_journal *j);

/* kml.c: the KML's file */

int izo_kml_open(struct izo_journal *j, struct fs_context *fc);
int izo_pread(struct file *f, void *buf, size_t len, u64 off);
int izo_pwrite(struct file *f, const void *buf, size_t len, u64 off);
/*
 * Where the unbroken run of records ends that begins at offset with number recno + 1,
 * and the LML's number of the last one that is there (0: none).  fn sees each.
 */
int izo_kml_find_end(struct izo_journal *j, u64 offset, u64 recno, u64 *ret_logged,
		     void (*fn)(const struct kml_record *r, void *data), void *data);
/* fn sees each record from offset on, as far as there are whole ones. */
int izo_kml_each(struct izo_journal *j, u64 offset,
		 void (*fn)(const struct kml_record *r, void *data), void *data);
int izo_kml_punch(struct izo_journal *j, u64 offset, u64 recno);

/* recover.c */

/* Find the log's end and take in what the LML holds; leaves both empty. */
int izo_recover(struct izo_journal *j);

#endif
