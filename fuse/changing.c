// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The set of directories and files that are being changed (doc/lml.md), for
 * the case that the whole machine stops.  The lower file system writes our logs and
 * the tree in an order that we do not know; so whatever changes is in this
 * set, durably, before it does, and stays there until a checkpoint has made the tree and
 * its records durable.  Recovery then has to look at nothing else (look.c).
 *
 * Time is divided into rounds, one for each checkpoint.  An operation belongs to the
 * round in which it began, and the checkpoint waits for those of its own.
 * Once an inode is known to be covered in a round that costs a comparison;
 * else its directory is looked for, and put in with a sync that all who
 * wait share.  Not everything needs a slot of its own:
 *
 * - Names are covered by their directory, attributes of what has one name by the
 *   directory of that: its entries are compared with the state, ctime included.
 * - What was made in this round is covered: either the log has its record, or
 *   it is unknown below a directory that is in the set.
 * - Content that begins with an empty file is like attributes.  Only what
 *   overwrites needs the file itself: blocks may be written before their inode.
 * - Where several directories of one directory change it goes in with those below
 *   it, up to DEPTH_MAX deep.  A directory that moves goes in with those below it if
 *   they may have been covered from where it was.
 *
 * What was touched in the round of a checkpoint stays for another one, so
 * that steady work in the same places costs no more syncs.
 */
#include <config.h>

#include "changing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "journal.h"
#include "util.h"

#define SLOTS		8192
#define SLOTS_BLOCK	(CHG_BLOCK / sizeof(struct chg_slot))
#define BLOCKS		(SLOTS / SLOTS_BLOCK)
#define FIRST_BLOCK	2		/* behind the headers */
#define BUCKETS		4096
#define DEPTH_MAX	3
#define CHILDREN_MAX	1		/* more than that: their parent instead */
#define ROUND_LOG	(32u << 20)	/* bytes of the KML */

_Static_assert(sizeof(struct chg_header) == 80, "size of a header");
_Static_assert(sizeof(struct chg_slot) == 64, "size of a slot");
_Static_assert(SLOTS % SLOTS_BLOCK == 0, "whole blocks");

/* What the slot of the same number is to us. */
struct member {
	uint32_t	next;		/* in its bucket or among the free; SLOTS: none */
	uint32_t	touched;	/* the last round that needed it */
	uint64_t	version;	/* durable once this one is */
};

static struct {
	int			fd;
	struct chg_header	header;
	struct chg_slot		slots[SLOTS];

	pthread_mutex_t		lock;
	pthread_cond_t		changed;	/* durable, emptied, or nobody in a round */
	pthread_cond_t		work;		/* for the thread */
	struct member		members[SLOTS];
	uint32_t		buckets[BUCKETS], free;
	unsigned int		n;
	bool			dirty[BLOCKS];
	uint64_t		version, durable;	/* of the slots */
	bool			syncing, full, stop;
	int			error;		/* of the last checkpoint */
	_Atomic uint64_t	round_end;	/* in the KML */
	pthread_t		thread;
	bool			started;
} set = {
	.fd = -1,
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.changed = PTHREAD_COND_INITIALIZER,
};

static _Atomic uint32_t current_round = 1;
static _Atomic uint32_t inside[2];	/* operations of this round and the one before */

/* The file */

static int boot_id(uint8_t ret_id[16])
{
	char text[UUID_TEXT];
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, UUID_TEXT - 1);

	if (fd >= 0)
		close(fd);
	if (n != UUID_TEXT - 1)
		return -EIO;
	text[n] = 0;
	return uuid_parse(text, ret_id) ? 0 : -EIO;
}

static uint32_t header_crc(const struct chg_header *h)
{
	struct chg_header copy = *h;

	copy.crc = 0;
	return crc32c(0, &copy, sizeof(copy));
}

static bool header_ok(const struct chg_header *h)
{
	return memcmp(h->magic, CHG_MAGIC, sizeof(h->magic)) == 0 &&
	       le32_to_cpu(h->version) == CHG_VERSION && le32_to_cpu(h->crc) == header_crc(h) &&
	       le32_to_cpu(h->slots) == SLOTS &&
	       memcmp(h->replica_uuid, fs.log.replica_uuid, 16) == 0 &&
	       le64_to_cpu(h->epoch) == fs.log.epoch;
}

static int header_write(uint64_t kml_offset)
{
	struct chg_header *h = &set.header;
	const uint64_t serial = le64_to_cpu(h->serial) + 1;

	h->serial = cpu_to_le64(serial);
	h->kml_offset = cpu_to_le64(kml_offset);
	h->crc = cpu_to_le32(header_crc(h));
	return pwrite_all(set.fd, h, sizeof(*h), serial % 2 * CHG_BLOCK);
}

static int header_read(void)
{
	struct chg_header h;
	bool found = false;
	int k, err = 0;

	for (k = 0; k < 2 && !err; k++) {
		err = pread_all(set.fd, &h, sizeof(h), k * CHG_BLOCK);
		if (err || !header_ok(&h))
			continue;
		if (!found || le64_to_cpu(h.serial) > le64_to_cpu(set.header.serial))
			set.header = h;
		found = true;
	}
	return err ? err : found ? 0 : -EBADMSG;
}

/* All its blocks are written, so that changing them needs no space. */
static int create(void)
{
	struct chg_header *h = &set.header;
	int err;

	set.fd = openat(fs.meta_fd, "changing.new", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (set.fd < 0)
		return -errno;
	nocow(set.fd);
	memcpy(h->magic, CHG_MAGIC, sizeof(h->magic));
	h->version = cpu_to_le32(CHG_VERSION);
	memcpy(h->replica_uuid, fs.log.replica_uuid, 16);
	h->epoch = cpu_to_le64(fs.log.epoch);
	h->slots = cpu_to_le32(SLOTS);
	err = boot_id(h->boot_id);
	if (!err)
		err = pwrite_all(set.fd, set.slots, sizeof(set.slots), FIRST_BLOCK * CHG_BLOCK);
	if (!err)
		err = header_write(fs.log.first_offset);
	if (!err)
		err = header_write(fs.log.first_offset);
	if (!err && fsync(set.fd) != 0)
		err = -errno;
	if (!err && renameat(fs.meta_fd, "changing.new", fs.meta_fd, "changing") != 0)
		err = -errno;
	if (!err && fsync(fs.meta_fd) != 0)
		err = -errno;
	return err;
}

static int open_file(void)
{
	int err;

	set.fd = openat(fs.meta_fd, "changing", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (set.fd < 0)
		return errno == ENOENT ? create() : -errno;
	err = header_read();
	if (!err)
		err = pread_all(set.fd, set.slots, sizeof(set.slots), FIRST_BLOCK * CHG_BLOCK);
	return err;
}

int changing_open(void)
{
	int err = open_file();

	if (err)
		complain("%s: its set of changing files cannot be used (%s): remove "
			 ".intermezzo/%s/changing, and after an unclean stop of the machine compare "
			 "this replica with another one", fs.opt.source, strerror(-err),
			 fs.opt.fileset);
	return err;
}

bool changing_other_boot(void)
{
	uint8_t now[16];

	return boot_id(now) != 0 || memcmp(now, set.header.boot_id, sizeof(now)) != 0;
}

uint64_t changing_kml_offset(void)
{
	return le64_to_cpu(set.header.kml_offset);
}

const struct chg_slot *changing_next(unsigned int *pos)
{
	while (*pos < SLOTS) {
		const struct chg_slot *s = &set.slots[(*pos)++];

		if (s->ino)
			return s;
	}
	return NULL;
}

int changing_reset(uint64_t kml_offset)
{
	int err;

	memset(set.slots, 0, sizeof(set.slots));
	err = pwrite_all(set.fd, set.slots, sizeof(set.slots), FIRST_BLOCK * CHG_BLOCK);
	if (!err)
		err = boot_id(set.header.boot_id);
	if (!err)
		err = header_write(kml_offset);
	if (!err && fdatasync(set.fd) != 0)
		err = -errno;
	return err;
}

/* Members.  All called with the lock held. */

static uint32_t *bucket_of(uint64_t ino)
{
	return &set.buckets[(ino * 0x9e3779b97f4a7c15ULL >> 40) % BUCKETS];
}

static uint32_t find(const struct inode *i)
{
	uint32_t k;

	for (k = *bucket_of(i->ino); k < SLOTS; k = set.members[k].next)
		if (le64_to_cpu(set.slots[k].ino) == i->ino &&
		    le32_to_cpu(set.slots[k].gen) == i->gen)
			break;
	return k;
}

static void slot_changed(uint32_t k)
{
	set.dirty[k / SLOTS_BLOCK] = true;
	set.members[k].version = ++set.version;
}

static uint32_t insert(const struct inode *i)
{
	const uint32_t k = set.free;

	if (k >= SLOTS)
		return SLOTS;
	set.free = set.members[k].next;
	set.members[k].next = *bucket_of(i->ino);
	*bucket_of(i->ino) = k;
	set.slots[k].ino = cpu_to_le64(i->ino);
	set.slots[k].gen = cpu_to_le32(i->gen);
	set.members[k].touched = 0;
	put_handle(&set.slots[k].handle, i);
	set.n++;
	slot_changed(k);
	return k;
}

static void drop(uint32_t k)
{
	uint32_t *p = bucket_of(le64_to_cpu(set.slots[k].ino));

	while (*p != k)
		p = &set.members[*p].next;
	*p = set.members[k].next;
	set.members[k].next = set.free;
	set.free = k;
	memset(&set.slots[k], 0, sizeof(set.slots[k]));
	set.dirty[k / SLOTS_BLOCK] = true;
	set.n--;
}

static int write_block(unsigned int b)
{
	return pwrite_all(set.fd, &set.slots[b * SLOTS_BLOCK], CHG_BLOCK,
			  (FIRST_BLOCK + b) * CHG_BLOCK);
}

/* Into the file, not to the disk yet.  What fails stays to be written. */
static int write_dirty(void)
{
	unsigned int b;
	int err;

	for (b = 0; b < BLOCKS; b++) {
		if (!set.dirty[b])
			continue;
		err = write_block(b);
		if (err)
			return err;
		set.dirty[b] = false;
	}
	return 0;
}

/* One sync serves all who wait. */
static int make_durable(uint64_t version)
{
	uint64_t upto;
	int err = 0;

	while (set.durable < version && !err) {
		if (set.syncing) {
			pthread_cond_wait(&set.changed, &set.lock);
			continue;
		}
		set.syncing = true;
		upto = set.version;
		err = write_dirty();
		pthread_mutex_unlock(&set.lock);
		if (!err && fdatasync(set.fd) != 0)
			err = -errno;
		pthread_mutex_lock(&set.lock);
		set.syncing = false;
		if (!err)
			set.durable = upto;
		pthread_cond_broadcast(&set.changed);
	}
	return err;
}

/* Rounds */

static uint32_t enter(void)
{
	uint32_t round;

	for (;;) {
		round = current_round;
		inside[round & 1]++;
		if (round == current_round)
			return round;
		changing_leave(round);
	}
}

void changing_leave(uint32_t round)
{
	if (!round || atomic_fetch_sub(&inside[round & 1], 1) != 1 || round == current_round)
		return;
	pthread_mutex_lock(&set.lock);
	pthread_cond_broadcast(&set.changed);
	pthread_mutex_unlock(&set.lock);
}

/* Putting in */

/* What an operation is covered by, so far. */
struct cover {
	uint32_t	round;
	uint64_t	version;	/* of the slots that it needs */
	int		err;
};

/* How many directories of dir went in by themselves in this round. */
static unsigned int one_more(struct inode *dir, uint32_t round)
{
	if (dir->children_round != round)
		dir->children = 0;
	dir->children_round = round;
	return ++dir->children;
}

static bool slot_touch(struct cover *c, uint32_t k)
{
	struct member *m = &set.members[k];

	if (m->touched < c->round)
		m->touched = c->round;
	if (m->version > c->version)
		c->version = m->version;
	return m->version <= set.durable;
}

static void put_slot(struct cover *c, const struct inode *i, unsigned int depth)
{
	uint32_t k = find(i);

	if (k == SLOTS)
		k = insert(i);
	if (k == SLOTS) {
		set.full = true;
		pthread_cond_signal(&set.work);
		c->err = -EAGAIN;
		return;
	}
	if (depth > le32_to_cpu(set.slots[k].depth)) {
		set.slots[k].depth = cpu_to_le32(depth);
		slot_changed(k);
	}
	(void) slot_touch(c, k);
	if (set.n == 1)
		pthread_cond_signal(&set.work);
}

/* up[0], or one of the n - 1 directories above it for it. */
static void put(struct cover *c, struct inode **up, unsigned int n)
{
	unsigned int depth;
	uint32_t k;

	pthread_mutex_lock(&set.lock);
	for (depth = 0; depth < n; depth++)
		if (up[depth]->moved == c->round)
			n = depth + 1;
	for (depth = 0; depth < n; depth++) {
		k = find(up[depth]);
		if (k == SLOTS || le32_to_cpu(set.slots[k].depth) < depth)
			continue;
		if (slot_touch(c, k))
			up[0]->covered = c->round;
		pthread_mutex_unlock(&set.lock);
		return;
	}
	for (depth = 0; depth + 1 < n; depth++)
		if (one_more(up[depth + 1], c->round) <= CHILDREN_MAX)
			break;
	put_slot(c, up[depth], depth);
	pthread_mutex_unlock(&set.lock);
}

static void cover_file(struct cover *c, struct inode *i)
{
	if (i && i->covered != c->round)
		put(c, &i, 1);
}

/* Names lead up from up[0], as far as an entry up there can reach down. */
static unsigned int above(struct inode *up[DEPTH_MAX + 1])
{
	unsigned int n = 1;
	char name[256];

	/* without handles recovery cannot find what is below */
	while (fs.have_handles && n <= DEPTH_MAX && up[n - 1] != root_inode &&
	       inode_get_name(up[n - 1], name, &up[n]))
		n++;
	return n;
}

static void above_put(struct inode **up, unsigned int n)
{
	while (n-- > 1)
		inode_unref(up[n]);
}

static void cover_dir(struct cover *c, struct inode *dir)
{
	struct inode *up[DEPTH_MAX + 1] = { dir };
	unsigned int n;

	if (!dir || dir->covered == c->round)
		return;
	n = above(up);
	put(c, up, n);
	above_put(up, n);
}

/*
 * A directory is about to leave those that may have covered what is below it:
 * then it goes in itself, with what is below.  And from now on they do not any more.
 */
static void cover_moved(struct cover *c, struct inode *dir)
{
	struct inode *up[DEPTH_MAX + 1] = { dir };
	unsigned int n, k;
	uint32_t slot;

	if (!dir || dir->made == c->round)
		return;
	n = above(up);
	pthread_mutex_lock(&set.lock);
	dir->moved = c->round;
	for (k = 1; k < n; k++) {
		slot = find(up[k]);
		if (slot < SLOTS && le32_to_cpu(set.slots[slot].depth) >= k)
			break;
	}
	if (k < n)
		put_slot(c, dir, DEPTH_MAX);
	pthread_mutex_unlock(&set.lock);
	above_put(up, n);
}

/* By the directory in which it is compared, unless other names lead there. */
static void cover_attr(struct cover *c, struct inode *i, const struct stat *st)
{
	struct inode *parent = NULL;
	char name[256];

	if (i->covered == c->round || st->st_nlink == 0)
		return;
	if (S_ISDIR(st->st_mode) || st->st_nlink == 1)
		(void) inode_get_name(i, name, &parent);
	if (parent)
		cover_dir(c, parent);
	else if (S_ISDIR(st->st_mode))
		cover_dir(c, i);
	else
		cover_file(c, i);
	inode_unref(parent);
}

static void cover_close(struct cover *c, const struct op *op)
{
	unsigned int k;

	if (!op->redo)
		return;			/* it tells what was covered when it was written */
	if (!(op->r.flags & KML_F_REPLACED)) {
		cover_file(c, op->obj);
		return;
	}
	cover_dir(c, op->parent);
	for (k = 0; k < op->n_also; k++)
		cover_dir(c, op->also[k]);
}

static void cover_op(struct cover *c, const struct op *op)
{
	struct stat st;

	switch (op->r.opcode) {
	case KML_RENAME:
		cover_dir(c, op->parent);
		cover_dir(c, op->tparent);
		cover_moved(c, op->moved);
		cover_moved(c, op->exchanged);
		break;
	case KML_LINK:
		cover_dir(c, op->tparent);
		break;
	case KML_SETATTR:
	case KML_SETXATTR:
	case KML_REMOVEXATTR:
		c->err = op->obj->covered == c->round ? 0 : inode_stat(op->obj, &st);
		if (!c->err && op->obj->covered != c->round)
			cover_attr(c, op->obj, &st);
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
	pthread_mutex_lock(&set.lock);
	err = make_durable(c->version);
	pthread_mutex_unlock(&set.lock);
	return err;
}

/* After the checkpoint there is room again.  The caller has left its round. */
static int wait_for_room(void)
{
	int err;

	pthread_mutex_lock(&set.lock);
	while (set.full && !set.error)
		pthread_cond_wait(&set.changed, &set.lock);
	err = set.error;
	pthread_mutex_unlock(&set.lock);
	return err;
}

/* Leave the round if it failed; true: try again. */
static bool cover_again(const struct cover *c, int *err)
{
	if (!*err)
		return false;
	changing_leave(c->round);
	if (*err != -EAGAIN)
		return false;
	*err = wait_for_room();
	return !*err;
}

int changing_op(struct op *op)
{
	struct cover c;
	int err;

	do {
		c = (struct cover) { .round = enter() };
		cover_op(&c, op);
		err = cover_done(&c);
	} while (cover_again(&c, &err));
	if (!err)
		op->round = c.round;
	return err;
}

int changing_content(struct inode *i, const struct stat *st, bool emptied, uint32_t *ret_round)
{
	struct cover c;
	int err;

	do {
		c = (struct cover) { .round = enter() };
		if (st->st_nlink && (emptied || st->st_size == 0))
			cover_attr(&c, i, st);
		else if (st->st_nlink)
			cover_file(&c, i);
		err = cover_done(&c);
	} while (cover_again(&c, &err));
	if (err)
		return err;
	/* for the rest of the round: what is written next has a record before it */
	i->covered = c.round;
	*ret_round = c.round;
	return 0;
}

int changing_dir(struct inode *dir, uint32_t *ret_round)
{
	struct cover c;
	int err;

	do {
		c = (struct cover) { .round = enter() };
		cover_dir(&c, dir);
		err = cover_done(&c);
	} while (cover_again(&c, &err));
	if (!err)
		*ret_round = c.round;
	return err;
}

/* Checkpoints */

void changing_log_end(uint64_t end)
{
	if (end > set.round_end)
		pthread_cond_signal(&set.work);
}

static uint64_t log_end(void)
{
	uint64_t end, recno;

	journal_end(&end, &recno);
	return end;
}

/* Who waits for room gets all of it; else what was used lately stays. */
static void drop_older(uint32_t round)
{
	uint32_t k;

	for (k = 0; k < SLOTS; k++)
		if (set.slots[k].ino &&
		    (set.members[k].touched < round ||
		     (set.full && set.members[k].touched == round)))
			drop(k);
}

/* The log's position is from before the round: what begins in it is behind. */
static int make_all_durable(uint32_t round)
{
	int err = 0;

	while (inside[round & 1])
		pthread_cond_wait(&set.changed, &set.lock);
	pthread_mutex_unlock(&set.lock);
	if (syncfs(fs.mount_fd) != 0)
		err = -errno;
	pthread_mutex_lock(&set.lock);
	return err;
}

/* Called with the lock held, gives it up meanwhile. */
static void checkpoint(void)
{
	const uint64_t end = log_end();
	const uint32_t round = current_round;
	int err;

	current_round = round + 1;
	err = make_all_durable(round);
	while (!err && set.syncing)
		pthread_cond_wait(&set.changed, &set.lock);
	if (!err) {
		drop_older(round);
		err = header_write(end);
	}
	if (!err)
		err = write_dirty();
	if (err && !set.error)
		complain("%s: cannot be made durable: %s; trying again", fs.opt.source,
			 strerror(-err));
	set.error = err;
	set.full &= err != 0;
	pthread_cond_broadcast(&set.changed);
}

/* Until the round has lasted long enough; nothing changes: as long as that. */
static void wait_for_end(void)
{
	struct timespec until;

	while (!set.stop && set.n == 0)
		pthread_cond_wait(&set.work, &set.lock);
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += fs.opt.checkpoint_sec;
	set.round_end = log_end() + ROUND_LOG;
	while (!set.stop && (!set.full || set.error) && log_end() <= set.round_end)
		if (pthread_cond_timedwait(&set.work, &set.lock, &until) == ETIMEDOUT)
			break;
}

static void *checkpointer(void *arg)
{
	(void) worker_init();
	pthread_mutex_lock(&set.lock);
	for (;;) {
		wait_for_end();
		if (set.stop)
			break;
		checkpoint();
	}
	pthread_mutex_unlock(&set.lock);
	return NULL;
}

int changing_start(void)
{
	pthread_condattr_t monotonic;
	unsigned int k;
	int err;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&set.work, &monotonic);
	for (k = 0; k < BUCKETS; k++)
		set.buckets[k] = SLOTS;
	for (k = 0; k < SLOTS; k++)
		set.members[k].next = k + 1;
	err = pthread_create(&set.thread, NULL, checkpointer, NULL);
	set.started = !err;
	return -err;
}

int changing_stop(void)
{
	if (!set.started)
		return 0;
	pthread_mutex_lock(&set.lock);
	set.stop = true;
	pthread_cond_signal(&set.work);
	pthread_mutex_unlock(&set.lock);
	pthread_join(set.thread, NULL);
	if (syncfs(fs.mount_fd) != 0)
		return -errno;
	return changing_reset(log_end());
}
