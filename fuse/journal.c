// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Logging: intents and records in the LML's ring (doc/lml.md), and the worker
 * that takes them from there into the KML.
 *
 * The ring is memory that the kernel keeps when the process dies, so an intent
 * costs no system call.  Space in ring and KML is reserved under the journal's
 * lock before the operation starts, in the order in which operations that depend
 * on each other hold their locks; all else happens outside it.  The worker appends
 * completed records in that order up to the oldest operation in flight.  The
 * flusher makes KML and LML durable, and only then is ring space used again.
 *
 * Both sleep when there is nothing to do.
 */
#include <config.h>

#include "changing.h"
#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "lml_format.h"
#include "util.h"

#define RING_MIN	(4 * KML_REC_MAX)	/* of the LML */
#define KML_CHUNK	(4u << 20)	/* allocated ahead at once */
#define KML_AHEAD	(1u << 20)	/* less than that: the worker allocates more */
#define KML_KEEP	(512u << 10)	/* of it for removing */
#define APPEND_MAX	(1u << 20)	/* bytes of one write */
#define DIR_ROOM	32768		/* longer paths are left out */
#define BATCH_NSEC	2000000		/* the worker lets records gather so long */
#define FLUSH_SEC	5		/* and the flusher so long */

struct journal journal = {
	.lml_fd = -1,
	.kml_fd = -1,
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.work = PTHREAD_COND_INITIALIZER,
	.space = PTHREAD_COND_INITIALIZER,
};

void (*journal_grown)(void);
uint64_t *journal_reint_recno;

/* The LML's header */

void journal_put_state(uint64_t tail, uint32_t flags)
{
	struct lml_state s = {
		.serial = cpu_to_le64(++journal.serial),
		.tail = cpu_to_le64(tail),
		.seq = cpu_to_le64(journal.durable_seq),
		.kml_offset = cpu_to_le64(journal.durable_end),
		.kml_recno = cpu_to_le64(journal.durable_recno),
		.flags = cpu_to_le32(flags),
	};

	lml_state_put(journal.header, &s);
}

/* Of an empty file: it is to be written in place. */
void nocow(int fd)
{
	int flags;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
		flags |= FS_NOCOW_FL;
		(void) ioctl(fd, FS_IOC_SETFLAGS, &flags);
	}
}

/*
 * Give the file blocks that are written, so that storing into its memory
 * never needs any, in place where the file system would copy on write.
 */
static int lml_fill(int fd, uint64_t size)
{
	const size_t piece = 1u << 20;
	char *zeros = calloc(1, piece);
	int err = 0;
	uint64_t off;

	if (!zeros)
		return -ENOMEM;
	nocow(fd);
	for (off = 0; off < size && !err; off += piece)
		err = pwrite_all(fd, zeros, size - off < piece ? size - off : piece, off);
	free(zeros);
	return err;
}

static int lml_create(int *ret_fd)
{
	const uint64_t size = (uint64_t) fs.opt.lml_mib << 20;
	struct lml_header h;
	int fd, err;

	fd = openat(fs.meta_fd, "lml.new", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	err = lml_fill(fd, size);
	lml_header_make(&h, size, fs.log.replica_uuid, fs.log.epoch);
	if (!err)
		err = pwrite_all(fd, &h, sizeof(h), 0);
	if (!err && fsync(fd) != 0)
		err = -errno;
	if (!err && renameat(fs.meta_fd, "lml.new", fs.meta_fd, "lml") != 0)
		err = -errno;
	if (err) {
		close(fd);
		unlinkat(fs.meta_fd, "lml.new", 0);
		return err;
	}
	*ret_fd = fd;
	return 0;
}

static int lml_map(int fd)
{
	struct stat st;
	void *map;
	int err;

	if (fstat(fd, &st) != 0)
		return -errno;
	if (st.st_size < LML_HEADER_SIZE || st.st_size > 1 << 30)
		return -EBADMSG;
	map = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	err = lml_header_check(map, st.st_size, RING_MIN, fs.log.replica_uuid, fs.log.epoch);
	if (err) {
		munmap(map, st.st_size);
		return err;
	}
	journal.lml_fd = fd;
	journal.lml_size = st.st_size;
	journal.map = map;
	journal.header = map;
	journal.n_openw = le64_to_cpu(journal.header->openw_slots);
	journal.openw = (void *) (journal.map + le64_to_cpu(journal.header->openw_offset));
	journal.ring = journal.map + le64_to_cpu(journal.header->ring_offset);
	journal.ring_size = le64_to_cpu(journal.header->ring_size);
	return 0;
}

static int lml_open(void)
{
	int fd, err = 0;

	fd = openat(fs.meta_fd, "lml", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT) {
		err = lml_create(&fd);
		if (err) {
			complain("%s: cannot make the lml: %s", fs.opt.source, strerror(-err));
			return err;
		}
	} else if (fd < 0) {
		return -errno;
	}
	err = lml_map(fd);
	if (err) {
		complain("%s: its lml cannot be used (%s): remove .intermezzo/%s/lml "
			 "to go on without the changes it may hold",
			 fs.opt.source, strerror(-err), fs.opt.fileset);
		close(fd);
	}
	return err;
}

/* The KML's space */

/* Allocate ahead.  Called with the lock held, as the next two. */
static int kml_allocate(uint64_t upto)
{
	const uint64_t chunk = (upto - journal.allocated + KML_CHUNK - 1) / KML_CHUNK * KML_CHUNK;

	if (journal.no_fallocate) {
		journal.allocated += chunk;
		return 0;
	}
	if (fallocate(journal.kml_fd, FALLOC_FL_KEEP_SIZE, journal.allocated, chunk) != 0) {
		if (errno != EOPNOTSUPP)
			return errno == EINTR ? -EAGAIN : -ENOSPC;
		journal.no_fallocate = true;
	}
	journal.allocated += chunk;
	return 0;
}

/*
 * The last of it is for what frees space: on a full disk something can be
 * removed, and then the log gets room again.
 */
int kml_reserve(uint64_t bytes, bool frees)
{
	const uint64_t upto = journal.end + journal.reserved + bytes;
	int err = 0;

	if (upto + KML_KEEP > journal.allocated)
		err = kml_allocate(upto + KML_KEEP);
	if (err == -ENOSPC && frees && upto <= journal.allocated)
		err = 0;
	if (!err)
		journal.reserved += bytes;
	return err;
}

void kml_unreserve(uint64_t bytes)
{
	journal.reserved -= bytes;
}

/* Operations */

static void set_str(struct kml_str *s, const char *p)
{
	s->ptr = p;
	s->len = strlen(p);
}

/* Paths of the thread's operation; there is one at a time. */
static __thread char dir_path[DIR_ROOM], tdir_path[DIR_ROOM];

/* The path of a directory below the root; absent where it cannot be had. */
static void set_dir(struct kml_str *s, char *buf, struct inode *dir, int dirfd)
{
	ssize_t n = inode_path(dir, buf, DIR_ROOM);
	char name[16];

	if (n == 0 && dirfd >= 0) {
		proc_name(name, dirfd);
		n = readlinkat(fs.proc_fd, name, buf, 4095);
		if (n >= 4095)
			n = 0;
	}
	if (n <= 0 || buf[0] != '/')
		return;
	s->ptr = buf;
	s->len = n;
}

static void set_oid(struct kml_oid *oid, const struct inode *i)
{
	oid->ino = i->ino;
	oid->gen = i->gen;
}

void op_init(struct op *op, fuse_req_t req, unsigned int opcode, struct inode *parent,
	     int dirfd, const char *name)
{
	const struct fuse_ctx *ctx = req ? fuse_req_ctx(req) : NULL;
	struct timespec now;

	memset(op, 0, offsetof(struct op, name));
	clock_gettime(CLOCK_REALTIME, &now);
	op->r.opcode = opcode;
	time_from_ts(&op->r.time, &now);
	op->r.auid = ~0u;
	if (ctx) {
		op->r.pid = ctx->pid;
		op->r.fsuid = ctx->uid;
		op->r.fsgid = ctx->gid;
	}
	if (!parent)
		return;
	op->parent = parent;
	op->nolog = parent->meta;
	set_oid(&op->r.parent, parent);
	if (name)
		set_str(&op->r.name, name);
	if (!op->nolog)
		set_dir(&op->r.dir, dir_path, parent, dirfd);
}

void op_target(struct op *op, struct inode *tparent, int dirfd, const char *name)
{
	op->tparent = tparent;
	set_oid(&op->r.tparent, tparent);
	set_str(&op->r.tname, name);
	if (!op->nolog)
		set_dir(&op->r.tdir, tdir_path, tparent, dirfd);
}

void op_object(struct op *op, struct inode *i)
{
	op->obj = i;
	set_oid(&op->r.obj, i);
	op->nolog |= i->meta;
}

/*
 * The name that it was known by is gone and another one has not been looked up
 * yet: the lower file system may remember one.
 */
static bool find_name(struct inode *i, char name[256], struct inode **ret_parent)
{
	char self[16], path[4096], *slash;
	int fd = inode_get_fd(i);
	struct stat st;
	ssize_t n;
	bool found;

	if (fd < 0)
		return false;
	proc_name(self, fd);
	n = readlinkat(fs.proc_fd, self, path, sizeof(path) - 1);
	found = n > 1 && (size_t) n < sizeof(path) - 1 && fstatat(fd, "", &st, AT_EMPTY_PATH) == 0;
	inode_put_fd(i);
	if (!found)
		return false;
	path[n] = 0;
	slash = strrchr(path, '/');
	if (!slash || path[0] != '/' || !slash[1] || strlen(slash + 1) > 255)
		return false;
	strcpy(name, slash + 1);
	slash[slash == path] = 0;
	found = inode_of_path(path, &st, name, ret_parent);
	if (found)
		inode_set_name(i, *ret_parent, name);
	return found;
}

/*
 * The parent's handle is not needed: recovery finds the object by its own, or
 * by the path.
 */
void op_init_object(struct op *op, fuse_req_t req, unsigned int opcode, struct inode *i)
{
	struct inode *parent = NULL;
	int dirfd = -1;

	if (!i->meta && (inode_get_name(i, op->name, &parent) || find_name(i, op->name, &parent)))
		dirfd = inode_get_fd(parent);
	op_init(op, req, opcode, parent, dirfd, parent ? op->name : NULL);
	op->parent = NULL;
	if (dirfd >= 0)
		inode_put_fd(parent);
	if (parent)
		inode_unref(parent);
	if (i == root_inode)
		set_str(&op->r.dir, "/");
	op_object(op, i);
}

void put_handle(struct lml_handle *d, const struct inode *i)
{
	memset(d, 0, sizeof(*d));
	if (!i || i->handle.len == 0)
		return;
	d->len = i->handle.len;
	d->type = i->handle.type;
	memcpy(d->bytes, i->handle.bytes, i->handle.len);
}

/* What a record gains between intent and completion. */
static size_t growth(const struct op *op)
{
	return 2 * sizeof(struct kml_item) + sizeof(struct kml_attr) + sizeof(struct kml_old) +
	       sizeof(struct kml_item) + sizeof(struct kml_ptime) + op->extra;
}

void journal_request_flush(void)
{
	journal.flush_now = true;
	pthread_cond_signal(&journal.flush);
}

/* Wait until len bytes of the ring are free.  Called with the lock held. */
static int ring_wait(uint64_t len)
{
	while (journal.head + len - journal.tail > journal.ring_size) {
		if (journal.error)
			return -ENOSPC;
		journal_request_flush();
		pthread_cond_wait(&journal.space, &journal.lock);
	}
	if (journal.head + len - journal.tail > journal.ring_size / 2)
		journal_request_flush();
	return 0;
}

static struct lml_entry *ring_put(uint64_t len, uint32_t state)
{
	struct lml_entry *e = ring_entry(journal.head);

	e->len = cpu_to_le32(len);
	e->seq = cpu_to_le64(journal.next_seq);
	e->flags = 0;
	e->intent_len = 0;
	e->record_len = 0;
	e->reint = 0;
	e->kml_room = 0;
	entry_set_state(e, state);
	__atomic_store_n(&e->magic, cpu_to_le32(LML_ENTRY_MAGIC), __ATOMIC_RELEASE);
	journal.next_seq++;
	journal.head += len;
	return e;
}

static bool frees_space(const struct op *op)
{
	return op->r.opcode == KML_UNLINK || op->r.opcode == KML_RMDIR;
}

/* An entry never crosses the ring's end: another one fills it up. */
static int reserve(struct op *op, uint64_t len, uint64_t kml_room)
{
	uint64_t rest;
	int err;

	pthread_mutex_lock(&journal.lock);
	do {
		rest = journal.ring_size - journal.head % journal.ring_size;
		err = ring_wait(rest < len ? rest + len : len);
	} while (!err && rest != journal.ring_size - journal.head % journal.ring_size);
	if (!err && op->prepaid)
		journal.reserved += kml_room;
	else if (!err)
		err = kml_reserve(kml_room, frees_space(op));
	if (!err) {
		if (rest < len)
			ring_put(rest, LML_E_PAD);
		op->seq = journal.next_seq;
		if (!op->nolog)
			journal.logged_seq = op->seq;
		op->entry = ring_put(len, LML_E_RESERVED);
		op->entry->kml_room = cpu_to_le64(kml_room);
	}
	pthread_mutex_unlock(&journal.lock);
	return err;
}

static void wake_worker(void)
{
	if (!journal.idle)
		return;
	pthread_mutex_lock(&journal.lock);
	pthread_cond_signal(&journal.work);
	pthread_mutex_unlock(&journal.lock);
}

static void finish(struct lml_entry *e, uint32_t state)
{
	entry_set_state(e, state);
	wake_worker();
}

/* Multiples of LML_ALIGN: a pad's head fits into whatever is left of the ring. */
static uint64_t entry_len(size_t bytes)
{
	return (sizeof(struct lml_entry) + bytes + LML_ALIGN - 1) / LML_ALIGN * LML_ALIGN;
}

/* What has an entry by now comes before what begins now. */
static uint64_t last_seq(void)
{
	uint64_t seq;

	pthread_mutex_lock(&journal.lock);
	seq = journal.next_seq - 1;
	pthread_mutex_unlock(&journal.lock);
	return seq;
}

int op_begin(struct op *op)
{
	size_t intent = kml_encoded_size(&op->r);
	ssize_t n;
	int err;

	if (op->nolog && !op->redo) {
		op->seq = last_seq();
		return 0;
	}
	fault("before-intent");
	op->room = intent + growth(op);
	if (op->room > KML_REC_MAX)
		return -E2BIG;
	if (op->nolog)
		op->room = 0;
	err = changing_op(op);
	if (err)
		return err;
	err = reserve(op, entry_len(intent + op->room), op->room);
	if (err) {
		changing_leave(op->round);
		return err;
	}
	put_handle(&op->entry->handles[0], op->parent);
	put_handle(&op->entry->handles[1], op->tparent);
	put_handle(&op->entry->handles[2], op->obj);
	n = kml_encode(entry_intent(op->entry), intent, &op->r);
	if (n < 0) {
		op_abort(op);
		return n == -EINVAL ? -EINVAL : -EIO;
	}
	op->entry->intent_len = cpu_to_le32(n);
	op->entry->flags = cpu_to_le32((op->nolog ? LML_F_NOLOG : 0) |
				       (op->redo ? LML_F_REINT : 0));
	op->entry->reint = cpu_to_le32(op->reint_index);
	op->entry->crc = cpu_to_le32(lml_entry_crc(op->entry, n));
	entry_set_state(op->entry, LML_E_INTENT);
	fault("before-op");
	return 0;
}

/* The paths are for people; a record that is too long goes without. */
static ssize_t encode_smaller(void *buf, struct op *op)
{
	op->r.dir.ptr = NULL;
	op->r.tdir.ptr = NULL;
	return kml_encode(buf, op->room, &op->r);
}

/* Something new that has a record. */
static bool made(const struct op *op)
{
	const unsigned int opcode = op->r.opcode;

	return op->obj && !op->nolog && (opcode == KML_CREATE || opcode == KML_MKDIR ||
					 opcode == KML_SYMLINK || opcode == KML_MKNOD);
}

void op_done(struct op *op)
{
	struct lml_entry *e = op->entry;
	char *buf;
	ssize_t n = 0;

	if (!e)
		return;
	fault("after-op");
	if (!op->nolog) {
		buf = entry_intent(e) + le32_to_cpu(e->intent_len);
		n = kml_encode(buf, op->room, &op->r);
		if (n < 0)
			n = encode_smaller(buf, op);
		if (n < 0)
			complain("%s: a record could not be encoded: %s", fs.opt.source,
				 strerror(-n));
	}
	e->record_len = cpu_to_le32(n > 0 ? n : 0);
	finish(e, LML_E_DONE);
	if (made(op))
		op->obj->made = op->obj->covered = op->round;
	changing_leave(op->round);
	fault("after-record");
}

void op_abort(struct op *op)
{
	if (!op->entry)
		return;
	finish(op->entry, LML_E_ABORTED);
	changing_leave(op->round);
}

/* The worker */

/* Records gathered for one write, and how far in the ring they reach. */
struct batch {
	char		*buf;
	size_t		len;
	uint64_t	pos, seq, recno, room;
	bool		any;
};

static void batch_add(struct batch *b, struct lml_entry *e)
{
	const uint32_t len = le32_to_cpu(e->record_len);
	const uint32_t reint = le32_to_cpu(e->reint);

	if (entry_state(e) == LML_E_DONE && len) {
		memcpy(b->buf + b->len, entry_intent(e) + le32_to_cpu(e->intent_len), len);
		kml_seal(b->buf + b->len, ++b->recno, le64_to_cpu(e->seq));
		b->len += len;
		if (reint && journal_reint_recno)
			journal_reint_recno[reint - 1] = b->recno;
	}
	b->pos += le32_to_cpu(e->len);
	b->seq = le64_to_cpu(e->seq) + 1;
	b->room += le64_to_cpu(e->kml_room);
	b->any = true;
}

static bool entry_finished(const struct lml_entry *e)
{
	const uint32_t state = entry_state(e);

	return state != LML_E_RESERVED && state != LML_E_INTENT;
}

/* Called with the lock held. */
static bool work_there(void)
{
	return journal.appended < journal.head && entry_finished(ring_entry(journal.appended));
}

static void batch_gather(struct batch *b, uint64_t head)
{
	while (b->pos < head && b->len + KML_REC_MAX <= APPEND_MAX) {
		struct lml_entry *e = ring_entry(b->pos);

		if (!entry_finished(e))
			break;
		batch_add(b, e);
	}
}

static int batch_write(const struct batch *b)
{
	int err = b->len ? pwrite_all(journal.kml_fd, b->buf, b->len, journal.end) : 0;

	if (err && !journal.error)
		complain("%s: cannot append to the kml: %s; trying again", fs.opt.source,
			 strerror(-err));
	return err;
}

/* Called with the lock held. */
static void batch_commit(const struct batch *b)
{
	journal.error = 0;
	journal.appended = b->pos;
	journal.appended_seq = b->seq;
	journal.end += b->len;
	journal.recno = b->recno;
	journal.reserved -= b->room;
	if (journal.end + journal.reserved + KML_AHEAD > journal.allocated)
		(void) kml_allocate(journal.end + journal.reserved + KML_AHEAD);
	if (journal.flusher_idle)
		pthread_cond_signal(&journal.flush);
	pthread_cond_broadcast(&journal.space);
	changing_log_end(journal.end);
}

static void nap(long nsec)
{
	const struct timespec ts = { nsec / 1000000000, nsec % 1000000000 };

	nanosleep(&ts, NULL);
}

/* Append what is finished.  Called with the lock held, gives it up meanwhile. */
static void work(char *buf)
{
	struct batch b = {
		.buf = buf,
		.pos = journal.appended,
		.seq = journal.appended_seq,
		.recno = journal.recno,
	};
	uint64_t head = journal.head;
	int err;

	pthread_mutex_unlock(&journal.lock);
	batch_gather(&b, head);
	err = batch_write(&b);
	fault("after-append");
	if (err)
		nap(500000000);
	pthread_mutex_lock(&journal.lock);
	if (err) {
		journal.error = err;
		pthread_cond_broadcast(&journal.space);
		return;
	}
	batch_commit(&b);
	if (b.len && journal_grown)
		journal_grown();
}

static void *worker(void *arg)
{
	char *buf = arg;

	(void) worker_init();
	pthread_mutex_lock(&journal.lock);
	for (;;) {
		journal.idle = true;
		while (!journal.stop && !work_there())
			pthread_cond_wait(&journal.work, &journal.lock);
		journal.idle = false;
		if (!work_there())
			break;
		if (!journal.drainers && !journal.stop) {
			pthread_mutex_unlock(&journal.lock);
			nap(BATCH_NSEC);
			pthread_mutex_lock(&journal.lock);
		}
		work(buf);
	}
	pthread_mutex_unlock(&journal.lock);
	free(buf);
	return NULL;
}

/* The flusher */

/* Give up the lock for a sync of fd. */
static int sync_unlocked(int fd)
{
	int err = 0;

	pthread_mutex_unlock(&journal.lock);
	if (fdatasync(fd) != 0)
		err = -errno;
	pthread_mutex_lock(&journal.lock);
	return err;
}

/* Make the KML durable, then say so in the LML; its space is free from then on. */
static int flush_locked(void)
{
	uint64_t end = journal.end, recno = journal.recno, pos = journal.appended;
	uint64_t seq = journal.appended_seq;
	int err = 0;

	if (pos == journal.tail)
		return 0;
	if (end != journal.durable_end)
		err = sync_unlocked(journal.kml_fd);
	if (err)
		return err;
	journal.durable_end = end;
	journal.durable_recno = recno;
	journal.durable_seq = seq;
	journal_put_state(pos, 0);
	err = sync_unlocked(journal.lml_fd);
	if (err)
		return err;
	journal.tail = pos;
	openw_recycle();
	return 0;
}

/* Called with the lock held, gives it up meanwhile. */
static int flush(void)
{
	int err;

	while (journal.flushing)
		pthread_cond_wait(&journal.space, &journal.lock);
	journal.flushing = true;
	journal.flush_now = false;
	err = flush_locked();
	journal.flushing = false;
	pthread_cond_broadcast(&journal.space);
	return err;
}

/* Sleep until there is something to flush and it is time to. */
static void flusher_wait(void)
{
	struct timespec until;

	journal.flusher_idle = true;
	while (!journal.stop && journal.appended == journal.tail)
		pthread_cond_wait(&journal.flush, &journal.lock);
	journal.flusher_idle = false;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += FLUSH_SEC;
	while (!journal.stop && !journal.flush_now)
		if (pthread_cond_timedwait(&journal.flush, &journal.lock, &until) == ETIMEDOUT)
			break;
}

static void *flusher(void *arg)
{
	(void) worker_init();
	pthread_mutex_lock(&journal.lock);
	while (!journal.stop) {
		flusher_wait();
		if (flush() != 0) {
			pthread_mutex_unlock(&journal.lock);
			nap(500000000);
			pthread_mutex_lock(&journal.lock);
		}
	}
	pthread_mutex_unlock(&journal.lock);
	return NULL;
}

/* Waiting for them */

void journal_drain_logged(void)
{
	bool all;

	pthread_mutex_lock(&journal.lock);
	all = journal.appended_seq > journal.logged_seq;
	pthread_mutex_unlock(&journal.lock);
	if (!all)
		journal_drain();
}

void journal_drain(void)
{
	uint64_t head;

	pthread_mutex_lock(&journal.lock);
	head = journal.head;
	journal.drainers++;
	pthread_cond_signal(&journal.work);
	while (journal.appended < head && !journal.error)
		pthread_cond_wait(&journal.space, &journal.lock);
	journal.drainers--;
	pthread_mutex_unlock(&journal.lock);
}

/* One sync serves all who came before it began. */
static int group_sync(int fd)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static uint64_t synced;
	uint64_t head, target;
	int err = 0;

	pthread_mutex_lock(&journal.lock);
	target = journal.next_seq;
	pthread_mutex_unlock(&journal.lock);
	pthread_mutex_lock(&lock);
	if (synced < target) {
		pthread_mutex_lock(&journal.lock);
		head = journal.next_seq;
		pthread_mutex_unlock(&journal.lock);
		if (fdatasync(fd) != 0)
			err = -errno;
		else
			synced = head;
	}
	pthread_mutex_unlock(&lock);
	return err;
}

int journal_sync(void)
{
	return group_sync(journal.lml_fd);
}

int journal_sync_kml(void)
{
	int err;

	journal_drain();
	pthread_mutex_lock(&journal.lock);
	err = journal.error ? journal.error : flush();
	pthread_mutex_unlock(&journal.lock);
	return err;
}

void journal_end(uint64_t *ret_offset, uint64_t *ret_recno)
{
	pthread_mutex_lock(&journal.lock);
	*ret_offset = journal.end;
	*ret_recno = journal.recno;
	pthread_mutex_unlock(&journal.lock);
}

int journal_punch(uint64_t offset, uint64_t recno)
{
	uint64_t end, last;
	int err;

	journal_end(&end, &last);
	if (offset > end || recno > last)
		return -EINVAL;
	err = journal_sync_kml();
	return err ? err : klog_punch(journal.kml_fd, offset, recno);
}

/* Start and stop */

static int kml_open(void)
{
	struct klog *log;
	int fd, own, err;

	fd = openat(fs.meta_fd, "kml", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* one mount at a time; mkizofs and the mount helper ask for it, too */
	if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		err = errno == EWOULDBLOCK ? -EBUSY : -errno;
		close(fd);
		return err;
	}
	own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	err = own < 0 ? -errno : klog_open_fd(own, &log);
	if (!err) {
		err = klog_header(log, &fs.log);
		klog_close(log);
	} else if (own >= 0) {
		close(own);
	}
	if (err) {
		close(fd);
		return err;
	}
	journal.kml_fd = fd;
	return 0;
}

int journal_open(void)
{
	const struct rlimit none = { RLIM_INFINITY, RLIM_INFINITY };
	pthread_condattr_t monotonic;
	int err;

	(void) setrlimit(RLIMIT_FSIZE, &none);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&journal.flush, &monotonic);
	err = kml_open();
	if (err) {
		if (err == -EBUSY)
			complain("%s: is mounted already", fs.opt.source);
		else
			complain("%s: its kml cannot be used: %s", fs.opt.source,
				 strerror(-err));
		return err;
	}
	err = lml_open();
	if (!err)
		err = changing_open();
	if (!err)
		err = recover();
	if (!err)
		err = openw_init();
	return err;
}

int journal_start(void)
{
	char *buf = malloc(APPEND_MAX);
	int err;

	if (!buf)
		return -ENOMEM;
	err = changing_start();
	if (err) {
		free(buf);
		return err;
	}
	err = pthread_create(&journal.worker, NULL, worker, buf);
	if (err) {
		free(buf);
		return -err;
	}
	err = pthread_create(&journal.flusher, NULL, flusher, NULL);
	if (err)
		return -err;
	journal.started = true;
	return 0;
}

/* Nothing is in flight any more: leave a clean, durable log. */
void journal_stop(void)
{
	bool durable;

	if (!journal.started)
		return;
	journal_drain();
	pthread_mutex_lock(&journal.lock);
	journal.stop = true;
	pthread_cond_signal(&journal.work);
	pthread_cond_signal(&journal.flush);
	pthread_mutex_unlock(&journal.lock);
	pthread_join(journal.worker, NULL);
	pthread_join(journal.flusher, NULL);
	durable = changing_stop() == 0;
	pthread_mutex_lock(&journal.lock);
	if (flush() == 0 && journal.tail == journal.head && durable) {
		journal_put_state(journal.tail, LML_S_CLEAN);
		(void) fdatasync(journal.lml_fd);
	}
	pthread_mutex_unlock(&journal.lock);
}
