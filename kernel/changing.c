// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The set of directories and files that are being changed, for the case that the
 * whole machine stops.  The lower file system writes our log and the tree in an order that
 * we do not know; so whatever changes is in this set, durably, before it does, and stays
 * there until a checkpoint has made the tree and its records durable.  Recovery
 * then has to look at nothing else (look.c).  doc/lml.md has the rules.
 *
 * Time is divided into rounds, one for each checkpoint.  An operation belongs to the
 * round in which it began, and the checkpoint waits for those of its own.  Once an inode
 * is known to be covered in a round that costs a comparison; else its directory is
 * looked for, and put in with a sync that all who wait share.
 *
 * - Names are covered by their directory, attributes of what has one name by the
 *   directory of that: its entries are compared with the state, ctime included.
 * - What was made in this round is covered: either the log has its record, or it is
 *   unknown below a directory that is in the set.
 * - Content that begins with an empty file is like attributes.  Only what overwrites
 *   needs the file itself: blocks may be written before their inode.
 * - Where several directories of one directory change it goes in with those below it, up to
 *   DEPTH_MAX deep.  A directory that moves goes in with those below it: durably before it
 *   moves if it may have been covered from above, else when something below it changes.
 *
 * What was touched in the round of a checkpoint stays for another one, so that steady work
 * in the same places costs no more syncs.
 *
 * The file is written by a worker without anybody's limits.  changing.lock is
 * taken inside everything else, so it is not held while the file is written, which is what
 * file_lock is for; who waits for the set holds none but the VFS's and izo_inode.lock,
 * and is in no round when it waits for room.
 */
#include "changing.h"
#include "izo_trace.h"

#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/random.h>
#include <linux/sizes.h>
#include <linux/uuid.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>

#include "../lib/crc32c.h"

#define SLOTS		8192		/* as intermezzo-fuse has it */
#define SLOTS_BLOCK	(CHG_BLOCK / sizeof(struct chg_slot))
#define BLOCKS		(SLOTS / SLOTS_BLOCK)
#define FIRST_BLOCK	2		/* behind the headers */
#define BUCKETS		4096
#define DEPTH_MAX	3
#define CHILDREN_MAX	1		/* more than that: their parent instead */
#define ROUND_LOG	SZ_32M		/* bytes of the KML */
#define RETRY_MSEC	500
#define SET_FILE	"changing"

static_assert(sizeof(struct chg_header) == 80);
static_assert(sizeof(struct chg_slot) == 64);

/* What the slot of the same number is to us. */
struct member {
	u32	next;		/* in its bucket or among the free; SLOTS: none */
	u32	touched;	/* the last round that needed it */
	u64	version;	/* durable once this one is */
};

struct izo_changing {
	struct izo_journal	*j;
	struct file		*file;
	struct chg_header	header;
	u8			boot_id[16];	/* of this kernel */
	struct mutex		file_lock;	/* one writes slots at a time */
	void			*block;		/* of slots on its way to the file */

	struct mutex		lock;		/* of all that follows */
	struct chg_slot		*slots;
	wait_queue_head_t	changed;	/* durable, emptied, or nobody in a round */
	wait_queue_head_t	work;		/* for the thread */
	struct workqueue_struct	*wq;
	struct work_struct	sync;
	struct member		*members;
	u32			buckets[BUCKETS], free;
	unsigned int		n;
	DECLARE_BITMAP(dirty, BLOCKS);
	u64			version, wanted, durable, failed;	/* of the slots */
	int			sync_error;	/* why up to failed could not be made durable */
	bool			full;
	int			error;		/* of the last checkpoint */
	u64			round_end;	/* in the KML */
	u32			round;
	atomic_t		inside[2];	/* operations of this round and the one before */
	struct task_struct	*thread;
};

/* The file */

/* Where it cannot be had every boot is another one. */
static void get_boot_id(u8 id[16])
{
	char text[UUID_STRING_LEN + 1] = "";
	struct file *f = izo_proc_open("sys/kernel/random/boot_id");
	int err = PTR_ERR_OR_ZERO(f);
	uuid_t uuid;

	if (!err) {
		err = izo_pread(f, text, UUID_STRING_LEN, 0);
		fput(f);
	}
	if (err || uuid_parse(text, &uuid))
		generate_random_uuid(id);
	else
		export_uuid(id, &uuid);
}

static u32 header_crc(const struct chg_header *h)
{
	struct chg_header copy = *h;

	copy.crc = 0;
	return izo_crc32c(0, &copy, sizeof(copy));
}

static bool header_ok(const struct izo_journal *j, const struct chg_header *h)
{
	return memcmp(h->magic, CHG_MAGIC, sizeof(h->magic)) == 0 &&
	       le32_to_cpu(h->version) == CHG_VERSION && le32_to_cpu(h->crc) == header_crc(h) &&
	       le32_to_cpu(h->slots) == SLOTS && le64_to_cpu(h->epoch) == j->epoch &&
	       memcmp(h->replica_uuid, j->replica_uuid, 16) == 0;
}

static int header_write(struct izo_changing *c, u64 kml_offset)
{
	struct chg_header *h = &c->header;
	const u64 serial = le64_to_cpu(h->serial) + 1;

	h->serial = cpu_to_le64(serial);
	h->kml_offset = cpu_to_le64(kml_offset);
	h->crc = cpu_to_le32(header_crc(h));
	return izo_pwrite(c->file, h, sizeof(*h), (serial & 1) * CHG_BLOCK);
}

static int header_read(struct izo_changing *c)
{
	struct chg_header h;
	bool found = false;
	int k, err;

	for (k = 0; k < 2; k++) {
		err = izo_pread(c->file, &h, sizeof(h), k * CHG_BLOCK);
		if (err)
			return err;
		if (!header_ok(c->j, &h))
			continue;
		if (!found || le64_to_cpu(h.serial) > le64_to_cpu(c->header.serial))
			c->header = h;
		found = true;
	}
	return found ? 0 : -EBADMSG;
}

static int write_slots(struct izo_changing *c)
{
	return izo_pwrite(c->file, c->slots, SLOTS * sizeof(*c->slots), FIRST_BLOCK * CHG_BLOCK);
}

static int write_new(struct izo_changing *c)
{
	const u64 offset = c->j->first_offset;
	struct chg_header *h = &c->header;
	int err;

	memcpy(h->magic, CHG_MAGIC, sizeof(h->magic));
	h->version = cpu_to_le32(CHG_VERSION);
	memcpy(h->replica_uuid, c->j->replica_uuid, 16);
	h->epoch = cpu_to_le64(c->j->epoch);
	h->slots = cpu_to_le32(SLOTS);
	memcpy(h->boot_id, c->boot_id, 16);
	err = write_slots(c);
	if (!err)
		err = header_write(c, offset);
	if (!err)
		err = header_write(c, offset);
	return err ?: vfs_fsync(c->file, 0);
}

/* All its blocks are written, so that changing them needs no space. */
static int make_file(struct izo_changing *c)
{
	struct izo_sb *sbi = c->j->sbi;
	int err;

	c->file = izo_meta_create(sbi, SET_FILE ".new");
	if (IS_ERR(c->file)) {
		err = PTR_ERR(c->file);
		c->file = NULL;
		return err;
	}
	err = write_new(c);
	if (!err)
		err = izo_meta_rename(sbi, sbi->meta, SET_FILE ".new", SET_FILE);
	return err ?: izo_meta_sync(sbi);
}

static int read_file(struct izo_changing *c, struct dentry *d)
{
	struct file *f = izo_meta_open(c->j->sbi, d, O_RDWR);
	int err;

	if (IS_ERR(f))
		return PTR_ERR(f);
	c->file = f;
	err = header_read(c);
	return err ?: izo_pread(f, c->slots, SLOTS * sizeof(*c->slots), FIRST_BLOCK * CHG_BLOCK);
}

static struct izo_changing *set_new(struct izo_journal *j)
{
	struct izo_changing *c = kvzalloc(sizeof(*c), GFP_KERNEL);

	if (!c)
		return NULL;
	j->changing = c;
	c->j = j;
	c->round = 1;
	mutex_init(&c->file_lock);
	mutex_init(&c->lock);
	init_waitqueue_head(&c->changed);
	init_waitqueue_head(&c->work);
	get_boot_id(c->boot_id);
	c->slots = vzalloc(SLOTS * sizeof(*c->slots));
	c->members = kvcalloc(SLOTS, sizeof(*c->members), GFP_KERNEL);
	c->block = kmalloc(CHG_BLOCK, GFP_KERNEL);
	return c->slots && c->members && c->block ? c : NULL;
}

/* Also where it is not needed, but somebody else has left one. */
int izo_changing_open(struct izo_journal *j, struct fs_context *fc)
{
	const bool needed = j->ops == &izo_lml_file_ops;
	struct dentry *d = izo_meta_lookup(j->sbi->meta, SET_FILE);
	const bool missing = PTR_ERR_OR_ZERO(d) == -ENOENT;
	int err;

	if (missing && !needed)
		return 0;
	if (IS_ERR(d) && !missing)
		return PTR_ERR(d);
	if (!set_new(j))
		err = -ENOMEM;
	else
		err = missing ? make_file(j->changing) : read_file(j->changing, d);
	if (!missing)
		dput(d);
	if (err) {
		errorfc(fc, "its set of changing files cannot be used: error %d", err);
		errorfc(fc, "remove .intermezzo/%s/changing to go on without it",
			j->sbi->params.fileset);
		errorfc(fc, "then compare with another replica if the machine stopped uncleanly");
	}
	return err;
}

void izo_changing_close(struct izo_journal *j)
{
	struct izo_changing *c = j->changing;

	if (!c)
		return;
	if (c->wq)
		destroy_workqueue(c->wq);
	if (c->file)
		fput(c->file);
	vfree(c->slots);
	kvfree(c->members);
	kfree(c->block);
	kvfree(c);
	j->changing = NULL;
}

bool izo_changing_stopped(const struct izo_journal *j)
{
	const struct izo_changing *c = j->changing;

	return c && memcmp(c->boot_id, c->header.boot_id, 16) != 0;
}

u64 izo_changing_kml_offset(const struct izo_journal *j)
{
	return le64_to_cpu(j->changing->header.kml_offset);
}

const struct chg_slot *izo_changing_next(const struct izo_journal *j, unsigned int *pos)
{
	while (*pos < SLOTS) {
		const struct chg_slot *s = &j->changing->slots[(*pos)++];

		if (s->ino)
			return s;
	}
	return NULL;
}

/*
 * For no boot: a module does not end without its machine, so what is not CLEAN when the
 * file is read again was left by one that stopped (or by a device that was lost).
 */
static int reset(struct izo_changing *c)
{
	int err;

	memset(c->slots, 0, SLOTS * sizeof(*c->slots));
	err = write_slots(c);
	memset(c->header.boot_id, 0, 16);
	if (!err)
		err = header_write(c, c->j->end);
	return err ?: vfs_fsync(c->file, 1);
}

int izo_changing_begin(struct izo_journal *j)
{
	struct izo_sb *sbi = j->sbi;
	int err;

	if (!j->changing)
		return 0;
	if (j->ops == &izo_lml_file_ops)
		return reset(j->changing);
	/* the LML in ext4's journal needs none; an old one would be mistaken for its own */
	err = izo_meta_remove(sbi, sbi->meta, SET_FILE);
	if (!err)
		err = izo_meta_sync(sbi);
	if (!err)
		izo_changing_close(j);
	return err;
}

/* Members.  All called with the lock held. */

static u32 *bucket_of(struct izo_changing *c, u64 ino)
{
	return &c->buckets[(ino * 0x9e3779b97f4a7c15ULL >> 40) % BUCKETS];
}

static u32 find(struct izo_changing *c, const struct inode *inode)
{
	u32 k;

	for (k = *bucket_of(c, inode->i_ino); k < SLOTS; k = c->members[k].next)
		if (le64_to_cpu(c->slots[k].ino) == inode->i_ino &&
		    le32_to_cpu(c->slots[k].gen) == inode->i_generation)
			break;
	return k;
}

static void slot_changed(struct izo_changing *c, u32 k)
{
	set_bit(k / SLOTS_BLOCK, c->dirty);
	c->members[k].version = ++c->version;
}

static u32 insert(struct izo_changing *c, const struct inode *inode)
{
	u32 *bucket = bucket_of(c, inode->i_ino);
	const u32 k = c->free;
	struct chg_slot *s;

	if (k >= SLOTS)
		return SLOTS;
	s = &c->slots[k];
	c->free = c->members[k].next;
	c->members[k].next = *bucket;
	*bucket = k;
	s->ino = cpu_to_le64(inode->i_ino);
	s->gen = cpu_to_le32(inode->i_generation);
	c->members[k].touched = 0;
	izo_handle_of(&s->handle, inode);
	slot_changed(c, k);
	/* the first one: now there is something to check */
	if (c->n++ == 0)
		wake_up(&c->work);
	return k;
}

static void drop(struct izo_changing *c, u32 k)
{
	u32 *p = bucket_of(c, le64_to_cpu(c->slots[k].ino));

	while (*p != k)
		p = &c->members[*p].next;
	*p = c->members[k].next;
	c->members[k].next = c->free;
	c->free = k;
	memset(&c->slots[k], 0, sizeof(c->slots[k]));
	set_bit(k / SLOTS_BLOCK, c->dirty);
	c->n--;
}

static int write_block(struct izo_changing *c, unsigned int b)
{
	int err;

	if (!test_bit(b, c->dirty))
		return 0;
	mutex_lock(&c->lock);
	clear_bit(b, c->dirty);
	memcpy(c->block, &c->slots[b * SLOTS_BLOCK], CHG_BLOCK);
	mutex_unlock(&c->lock);
	err = izo_pwrite(c->file, c->block, CHG_BLOCK, (u64)(FIRST_BLOCK + b) * CHG_BLOCK);
	if (err)
		set_bit(b, c->dirty);
	return err;
}

/*
 * Into the file, not to the disk yet.  What fails stays to be written.  Called without
 * the lock, as all that writes.
 */
static int write_dirty(struct izo_changing *c)
{
	unsigned int b;
	int err = 0;

	mutex_lock(&c->file_lock);
	for (b = 0; b < BLOCKS && !err; b++)
		err = write_block(c, b);
	mutex_unlock(&c->file_lock);
	return err;
}

/* Making it durable: one sync serves all who wait */

/* Called with the lock held, gives it up meanwhile. */
static void sync_once(struct izo_changing *c)
{
	const u64 last = c->version;
	int err;

	mutex_unlock(&c->lock);
	err = write_dirty(c);
	if (!err)
		err = vfs_fsync(c->file, 1);
	mutex_lock(&c->lock);
	if (err) {
		c->sync_error = err;
		c->failed = last;
	} else {
		c->durable = last;
	}
	wake_up_all(&c->changed);
}

static void sync_work(struct work_struct *work)
{
	struct izo_changing *c = container_of(work, struct izo_changing, sync);

	mutex_lock(&c->lock);
	while (max(c->durable, c->failed) < c->wanted)
		sync_once(c);
	mutex_unlock(&c->lock);
}

static void wait_changed(struct izo_changing *c)
{
	izo_wait_on(&c->lock, &c->changed, TASK_UNINTERRUPTIBLE, MAX_SCHEDULE_TIMEOUT);
}

/* Called with the lock held. */
static int make_durable(struct izo_changing *c, u64 version)
{
	if (c->durable >= version)
		return 0;
	/* what failed before is tried again */
	if (c->failed >= version)
		c->failed = version - 1;
	c->wanted = max(c->wanted, version);
	queue_work(c->wq, &c->sync);
	while (max(c->durable, c->failed) < version)
		wait_changed(c);
	return c->durable >= version ? 0 : c->sync_error;
}

/* Rounds */

static u32 enter(struct izo_changing *c)
{
	u32 round;

	for (;;) {
		round = READ_ONCE(c->round);
		atomic_inc(&c->inside[round & 1]);
		smp_mb__after_atomic();	/* who begins the next round sees it, or we see that */
		if (round == READ_ONCE(c->round))
			return round;
		izo_changing_leave(c->j, round);
	}
}

void izo_changing_leave(struct izo_journal *j, u32 round)
{
	struct izo_changing *c = j->changing;

	if (!round || !atomic_dec_and_test(&c->inside[round & 1]) ||
	    round == READ_ONCE(c->round))
		return;
	mutex_lock(&c->lock);
	wake_up_all(&c->changed);
	mutex_unlock(&c->lock);
}

/* Putting in */

/* What an operation is covered by, so far. */
struct cover {
	struct izo_changing *c;
	u32	round;
	u64	version;	/* of the slots that it needs */
	int	err;
};

/* A directory and those above it, as far as an entry up there can reach down. */
struct chain {
	unsigned int	n;
	struct inode	*up[DEPTH_MAX + 1];
	struct dentry	*d[DEPTH_MAX + 1];	/* counted, or NULL */
};

static bool have_handles(const struct inode *inode)
{
	const struct export_operations *ops = izo_lower_inode(inode)->i_sb->s_export_op;

	return ops && ops->fh_to_dentry;
}

static void chain_get(struct chain *up, struct inode *dir)
{
	struct dentry *d = d_find_any_alias(dir);

	*up = (struct chain) { .n = 1, .up[0] = dir, .d[0] = d };
	/* without handles recovery cannot find what is below */
	while (d && !IS_ROOT(d) && up->n <= DEPTH_MAX && have_handles(dir)) {
		d = dget_parent(d);
		up->d[up->n] = d;
		up->up[up->n++] = d_inode(d);
	}
}

static void chain_put(struct chain *up)
{
	while (up->n-- > 0)
		dput(up->d[up->n]);
}

static bool is_covered(const struct cover *c, const struct inode *inode)
{
	return READ_ONCE(izo_i(inode)->covered) == c->round;
}

static void set_covered(const struct cover *c, struct inode *inode)
{
	WRITE_ONCE(izo_i(inode)->covered, c->round);
}

/* How many directories of dir went in by themselves in this round. */
static unsigned int one_more(struct inode *dir, u32 round)
{
	struct izo_inode *ii = izo_i(dir);

	if (ii->children_round != round)
		ii->children = 0;
	ii->children_round = round;
	return ++ii->children;
}

/* True if it is durable. */
static bool slot_touch(struct cover *c, u32 k)
{
	struct member *m = &c->c->members[k];

	m->touched = max(m->touched, c->round);
	c->version = max(c->version, m->version);
	return m->version <= c->c->durable;
}

static void put_slot(struct cover *c, const struct inode *inode, unsigned int depth)
{
	struct izo_changing *set = c->c;
	u32 k = find(set, inode);

	if (k == SLOTS)
		k = insert(set, inode);
	if (k == SLOTS) {
		set->full = true;
		wake_up(&set->work);
		c->err = -EAGAIN;
		return;
	}
	if (depth > le32_to_cpu(set->slots[k].depth)) {
		set->slots[k].depth = cpu_to_le32(depth);
		slot_changed(set, k);
	}
	(void)slot_touch(c, k);
}

/* The entry that covers the first of them, or SLOTS. */
static u32 find_above(struct izo_changing *c, const struct chain *up, unsigned int from)
{
	unsigned int depth;
	u32 k;

	for (depth = from; depth < up->n; depth++) {
		k = find(c, up->up[depth]);
		if (k < SLOTS && le32_to_cpu(c->slots[k].depth) >= depth)
			return k;
	}
	return SLOTS;
}

/* The first of them, or one of the directories above it for it. */
static void put(struct cover *c, const struct chain *up)
{
	unsigned int depth;
	u32 k;

	mutex_lock(&c->c->lock);
	k = find_above(c->c, up, 0);
	if (k < SLOTS) {
		if (slot_touch(c, k))
			set_covered(c, up->up[0]);
	} else {
		for (depth = 0; depth + 1 < up->n; depth++)
			if (one_more(up->up[depth + 1], c->round) <= CHILDREN_MAX)
				break;
		put_slot(c, up->up[depth], depth);
	}
	mutex_unlock(&c->c->lock);
}

static void cover_file(struct cover *c, struct inode *inode)
{
	const struct chain self = { .n = 1, .up[0] = inode };

	if (inode && !is_covered(c, inode))
		put(c, &self);
}

static void cover_dir(struct cover *c, struct inode *dir)
{
	struct chain up;

	if (!dir || is_covered(c, dir))
		return;
	chain_get(&up, dir);
	put(c, &up);
	chain_put(&up);
}

/*
 * A directory is about to leave those that cover what is below it, or others may
 * seem to do so: it goes in itself, with what is below.  Only if it is covered from above now
 * something may have been changed that needs this entry; else it counts from
 * the next change on.
 */
static void cover_moved(struct cover *c, struct inode *dir)
{
	struct chain up;
	u64 version;

	if (!dir || !S_ISDIR(dir->i_mode) || READ_ONCE(izo_i(dir)->made) == c->round)
		return;
	chain_get(&up, dir);
	mutex_lock(&c->c->lock);
	version = c->version;
	put_slot(c, dir, DEPTH_MAX);
	if (find_above(c->c, &up, 1) == SLOTS)
		c->version = version;
	mutex_unlock(&c->c->lock);
	chain_put(&up);
}

/* A directory's attributes are like those of what is in it: its parent compares them. */
static struct inode *parent_of(struct inode *inode, struct dentry **ret_parent)
{
	struct dentry *d = d_find_alias(inode);

	*ret_parent = NULL;
	if (d && !IS_ROOT(d))
		*ret_parent = dget_parent(d);
	dput(d);
	return *ret_parent ? d_inode(*ret_parent) : NULL;
}

/* By the directory in which it is compared, unless other names lead there. */
static void cover_attr(struct cover *c, struct inode *inode)
{
	const struct inode *lower = izo_lower_inode(inode);
	struct dentry *d = NULL;
	struct inode *parent = NULL;

	if (is_covered(c, inode) || lower->i_nlink == 0)
		return;
	if (S_ISDIR(lower->i_mode) || lower->i_nlink == 1)
		parent = parent_of(inode, &d);
	if (parent || S_ISDIR(lower->i_mode))
		cover_dir(c, parent ?: inode);
	else
		cover_file(c, inode);
	dput(d);
}

static void cover_close(struct cover *c, const struct izo_op *op)
{
	unsigned int k;

	if (op->r.flags & KML_F_REPLACED) {
		cover_dir(c, op->parent);
		for (k = 0; k < op->n_also; k++)
			cover_dir(c, d_inode(op->also[k]));
	} else if (op->redo) {
		cover_file(c, op->obj);
	}
	/* any other tells what was covered when it was written */
}

static void cover_op(struct cover *c, const struct izo_op *op)
{
	switch (op->r.opcode) {
	case KML_RENAME:
		cover_dir(c, op->parent);
		cover_dir(c, op->tparent);
		cover_moved(c, op->obj);
		cover_moved(c, op->exchanged);
		break;
	case KML_LINK:
		cover_dir(c, op->tparent);
		break;
	case KML_SETATTR:
	case KML_SETXATTR:
	case KML_REMOVEXATTR:
		cover_attr(c, op->obj);
		break;
	case KML_CLOSE:
		cover_close(c, op);
		break;
	default:
		cover_dir(c, op->parent);
	}
}

static int cover_done(const struct cover *c)
{
	int err = c->err;

	if (err || !c->version)
		return err;
	mutex_lock(&c->c->lock);
	err = make_durable(c->c, c->version);
	mutex_unlock(&c->c->lock);
	return err;
}

/* After the checkpoint there is room again.  The caller has left its round. */
static int wait_for_room(struct izo_changing *c)
{
	int err;

	mutex_lock(&c->lock);
	while (c->full && !c->error)
		wait_changed(c);
	err = c->error;
	mutex_unlock(&c->lock);
	return err;
}

/* Leave the round if it failed; true: try again. */
static bool cover_again(const struct cover *c, int *err)
{
	if (!*err)
		return false;
	izo_changing_leave(c->c->j, c->round);
	if (*err != -EAGAIN)
		return false;
	*err = wait_for_room(c->c);
	return !*err;
}

static struct cover cover_begin(struct izo_changing *c)
{
	return (struct cover) { .c = c, .round = enter(c) };
}

int izo_changing_op(struct izo_op *op)
{
	struct cover c;
	int err;

	if (!op->j->changing)
		return 0;
	do {
		c = cover_begin(op->j->changing);
		cover_op(&c, op);
		err = cover_done(&c);
	} while (cover_again(&c, &err));
	if (!err)
		op->round = c.round;
	return err;
}

int izo_changing_content(struct inode *inode, bool emptied, u32 *ret_round)
{
	struct izo_changing *set = izo_sb(inode->i_sb)->journal->changing;
	const struct inode *lower = izo_lower_inode(inode);
	struct cover c;
	int err;

	*ret_round = 0;
	if (!set)
		return 0;
	do {
		c = cover_begin(set);
		if (lower->i_nlink && (emptied || i_size_read(lower) == 0))
			cover_attr(&c, inode);
		else if (lower->i_nlink)
			cover_file(&c, inode);
		err = cover_done(&c);
	} while (cover_again(&c, &err));
	if (err)
		return err;
	/* for the rest of the round: what is written next has a record before it */
	set_covered(&c, inode);
	*ret_round = c.round;
	return 0;
}

void izo_changing_made(struct izo_op *op)
{
	const unsigned int opcode = op->r.opcode;

	if (!op->round || !op->obj || op->nolog ||
	    (opcode != KML_CREATE && opcode != KML_MKDIR && opcode != KML_SYMLINK &&
	     opcode != KML_MKNOD))
		return;
	WRITE_ONCE(izo_i(op->obj)->made, op->round);
	WRITE_ONCE(izo_i(op->obj)->covered, op->round);
}

/* Checkpoints */

void izo_changing_grown(struct izo_journal *j)
{
	if (j->changing && j->end > READ_ONCE(j->changing->round_end))
		wake_up(&j->changing->work);
}

/* Who waits for room gets all of it; else what was used lately stays. */
static void drop_older(struct izo_changing *c, u32 round)
{
	u32 k;

	for (k = 0; k < SLOTS; k++)
		if (c->slots[k].ino && (c->members[k].touched < round ||
					(c->full && c->members[k].touched == round)))
			drop(c, k);
}

/* The LML, so that it has every file that is open for write, then all there is. */
static int sync_all(struct izo_changing *c)
{
	struct super_block *lsb = c->j->sbi->lower_root->d_sb;
	int err;

	err = izo_journal_sync(c->j);
	if (err)
		return err;
	/* somebody freezes it */
	if (!down_read_trylock(&lsb->s_umount))
		return -EAGAIN;
	err = sync_filesystem(lsb);
	up_read(&lsb->s_umount);
	return err;
}

/* Called with the lock held, gives it up meanwhile. */
static int make_all_durable(struct izo_changing *c, u32 round)
{
	int err;

	while (atomic_read(&c->inside[round & 1]))
		wait_changed(c);
	mutex_unlock(&c->lock);
	err = sync_all(c);
	mutex_lock(&c->lock);
	return err;
}

/* Called with the lock held, gives it up meanwhile. */
static int forget_older(struct izo_changing *c, u32 round, u64 end)
{
	int err;

	drop_older(c, round);
	mutex_unlock(&c->lock);
	err = header_write(c, end);
	if (!err)
		err = write_dirty(c);
	mutex_lock(&c->lock);
	return err;
}

/*
 * The log's position is from before the round ends: what begins later is behind it.
 * Called with the lock held.
 */
static void checkpoint(struct izo_changing *c)
{
	const u32 round = c->round;
	u64 end, recno;
	int err;

	izo_journal_end(c->j, &end, &recno);
	WRITE_ONCE(c->round, round + 1);
	smp_mb();	/* see enter() */
	err = make_all_durable(c, round);
	if (!err)
		err = forget_older(c, round, end);
	trace_izo_checkpoint(c->j, c->j->data_end, end, recno, err);
	if (!err)
		izo_journal_data_synced(c->j, end, recno);
	if (err && err != -EAGAIN && !izo_dead(c->j->sbi))
		pr_err_ratelimited("%s: cannot be made durable: error %d; trying again\n",
				   c->j->sbi->params.fileset, err);
	/* to be tried again soon; -EAGAIN is no reason to refuse changes */
	c->error = err == -EAGAIN ? 0 : err;
	c->full &= err != 0;
	wake_up_all(&c->changed);
}

static long thread_wait(struct izo_changing *c, long left)
{
	return izo_wait_on(&c->lock, &c->work, TASK_IDLE, left);
}

static bool round_is_over(struct izo_changing *c)
{
	u64 end, recno;

	izo_journal_end(c->j, &end, &recno);
	return end > c->round_end;
}

/* Until the round has lasted long enough; nothing changes: as long as that. */
static void wait_for_end(struct izo_changing *c)
{
	const unsigned int every = READ_ONCE(c->j->sbi->checkpoint_every);
	unsigned long until;
	u64 end, recno;

	while (!kthread_should_stop() && c->n == 0)
		thread_wait(c, MAX_SCHEDULE_TIMEOUT);
	until = jiffies + (unsigned long)every * HZ;
	izo_journal_end(c->j, &end, &recno);
	WRITE_ONCE(c->round_end, end + ROUND_LOG);
	while (!kthread_should_stop() && !c->full && !round_is_over(c) &&
	       (!every || time_before(jiffies, until)))
		thread_wait(c, every ? until - jiffies : MAX_SCHEDULE_TIMEOUT);
}

static int checkpointer(void *arg)
{
	struct izo_changing *c = arg;

	mutex_lock(&c->lock);
	for (;;) {
		wait_for_end(c);
		if (kthread_should_stop())
			break;
		checkpoint(c);
		if (c->full)
			thread_wait(c, msecs_to_jiffies(RETRY_MSEC));
	}
	mutex_unlock(&c->lock);
	return 0;
}

int izo_changing_start(struct izo_journal *j)
{
	struct izo_changing *c = j->changing;
	struct task_struct *t;
	unsigned int k;

	if (!c)
		return 0;
	for (k = 0; k < BUCKETS; k++)
		c->buckets[k] = SLOTS;
	for (k = 0; k < SLOTS; k++)
		c->members[k].next = k + 1;
	INIT_WORK(&c->sync, sync_work);
	c->wq = alloc_workqueue("izo_sync/%s", WQ_MEM_RECLAIM | WQ_UNBOUND, 1,
				j->sbi->params.fileset);
	if (!c->wq)
		return -ENOMEM;
	t = kthread_run(checkpointer, c, "izo_set/%s", j->sbi->params.fileset);
	if (IS_ERR(t))
		return PTR_ERR(t);
	c->thread = t;
	return 0;
}

int izo_changing_stop(struct izo_journal *j)
{
	struct izo_changing *c = j->changing;
	struct super_block *lsb = j->sbi->lower_root->d_sb;
	int err;

	if (!c || !c->thread)
		return 0;
	kthread_stop(c->thread);
	c->thread = NULL;
	drain_workqueue(c->wq);
	if (izo_dead(j->sbi)) {
		/* the machine goes on, and with it all that was written */
		memcpy(c->header.boot_id, c->boot_id, 16);
		return header_write(c, le64_to_cpu(c->header.kml_offset));
	}
	down_read(&lsb->s_umount);
	err = sync_filesystem(lsb);
	up_read(&lsb->s_umount);
	return err;
}
