// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The objects of the lower file system that the kernel or an operation uses:
 * found by number, reached by a cached O_PATH descriptor or by file handle.
 *
 * The kernel's name for an inode is its slot in a table and the slot's serial
 * number, so that numbers that come from outside (NFS) can be checked.
 * Descriptors beyond a limit are closed again, the least recently used ones first
 * (a clock goes round the table); where the lower file system has no handles
 * all of them stay open.
 */
#include <config.h>

#include "fs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util.h"

#define CHUNK_BITS	10
#define CHUNK_SIZE	(1u << CHUNK_BITS)
#define CHUNKS		(1u << 18)
#define BUCKET_BITS	18
#define BUCKETS		(1u << BUCKET_BITS)
#define STRIPES		1024
#define FDS_MAX		65536
#define FDS_RESERVE	1024		/* for open files */
#define CLOCK_STEPS	256

static struct inode *chunks[CHUNKS];
static unsigned int n_chunks;
static struct inode *free_list;
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;

static struct inode *buckets[BUCKETS];
static pthread_mutex_t bucket_locks[STRIPES], fd_locks[STRIPES], name_locks[STRIPES];

static atomic_int n_fds;
static int max_fds;
static _Atomic unsigned int clock_hand;

struct inode *root_inode;

static unsigned int bucket_of(dev_t dev, uint64_t ino)
{
	uint64_t h = (ino ^ (uint64_t) dev << 40) * 0x9e3779b97f4a7c15ULL;

	return h >> (64 - BUCKET_BITS);
}

static pthread_mutex_t *bucket_lock(unsigned int b)
{
	return &bucket_locks[b % STRIPES];
}

static unsigned int stripe(const struct inode *i)
{
	return i->nodeid % STRIPES;
}

/* The table */

static int table_grow(void)
{
	struct inode *chunk;
	unsigned int k;

	if (n_chunks == CHUNKS)
		return -ENOMEM;
	chunk = calloc(CHUNK_SIZE, sizeof(*chunk));
	if (!chunk)
		return -ENOMEM;
	for (k = CHUNK_SIZE; k-- > 0;) {
		chunk[k].nodeid = FUSE_ROOT_ID + n_chunks * CHUNK_SIZE + k;
		chunk[k].next = free_list;
		free_list = &chunk[k];
	}
	__atomic_store_n(&chunks[n_chunks], chunk, __ATOMIC_RELEASE);
	n_chunks++;
	return 0;
}

static struct inode *table_alloc(void)
{
	struct inode *i = NULL;
	uint64_t nodeid;

	pthread_mutex_lock(&table_lock);
	if (free_list || table_grow() == 0) {
		i = free_list;
		free_list = i->next;
	}
	pthread_mutex_unlock(&table_lock);
	if (!i)
		return NULL;
	nodeid = i->nodeid;
	memset(i, 0, sizeof(*i));
	i->nodeid = nodeid;
	i->fd = -1;
	i->default_acl = -1;
	return i;
}

/* The slot's next inode has another number. */
static void table_free(struct inode *i)
{
	pthread_mutex_lock(&table_lock);
	i->nodeid += 1ULL << 32;
	i->next = free_list;
	free_list = i;
	pthread_mutex_unlock(&table_lock);
}

struct inode *inode_of(fuse_ino_t nodeid)
{
	uint32_t slot = (uint32_t) nodeid - FUSE_ROOT_ID;

	return &chunks[slot >> CHUNK_BITS][slot & (CHUNK_SIZE - 1)];
}

/* The slot may be anything: only an inode that is in its bucket counts. */
static struct inode *find_by_nodeid(const struct inode *slot, uint64_t nodeid)
{
	unsigned int b = bucket_of(slot->dev, slot->ino);
	struct inode *i;

	pthread_mutex_lock(bucket_lock(b));
	for (i = buckets[b]; i && !(i == slot && i->nodeid == nodeid); i = i->next)
		;
	if (i)
		i->nlookup++;
	pthread_mutex_unlock(bucket_lock(b));
	return i;
}

struct inode *inode_find_nodeid(fuse_ino_t nodeid)
{
	uint32_t slot = (uint32_t) nodeid - FUSE_ROOT_ID;

	if (slot >> CHUNK_BITS >= CHUNKS ||
	    !__atomic_load_n(&chunks[slot >> CHUNK_BITS], __ATOMIC_ACQUIRE))
		return NULL;
	return find_by_nodeid(inode_of(nodeid), nodeid);
}

/* Handles */

void proc_name(char buf[16], int fd)
{
	snprintf(buf, 16, "%d", fd);
}

void proc_path(char buf[32], int fd)
{
	snprintf(buf, 32, "/proc/self/fd/%d", fd);
}

union any_handle {
	struct file_handle	h;
	char			room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
};

int handle_get(int dirfd, const char *path, struct handle *ret_h, uint32_t *ret_gen)
{
	union any_handle u;
	int mount_id;

	ret_h->len = 0;
	*ret_gen = 0;
	u.h.handle_bytes = MAX_HANDLE_SZ;
	if (name_to_handle_at(dirfd, path, &u.h, &mount_id, *path ? 0 : AT_EMPTY_PATH) != 0)
		return errno == EOPNOTSUPP ? 0 : -errno;
	*ret_gen = file_handle_generation(&u.h);
	if (!fs.have_handles || u.h.handle_bytes > HANDLE_INLINE || u.h.handle_type > 255)
		return 0;
	ret_h->len = u.h.handle_bytes;
	ret_h->type = u.h.handle_type;
	memcpy(ret_h->bytes, u.h.f_handle, ret_h->len);
	return 0;
}

int handle_open(const struct handle *h, int flags)
{
	union any_handle u;
	int fd;

	if (h->len == 0)
		return -ESTALE;
	u.h.handle_bytes = h->len;
	u.h.handle_type = h->type;
	memcpy(u.h.f_handle, h->bytes, h->len);
	fd = open_by_handle_at(fs.mount_fd, &u.h, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Descriptors */

static bool fd_evict(struct inode *i)
{
	pthread_mutex_t *lock = &fd_locks[stripe(i)];
	int fd = -1;

	if (i->fd < 0 || pthread_mutex_trylock(lock) != 0)
		return false;
	if (i->fd_recent)
		i->fd_recent = false;
	else if (i->fd >= 0 && i->fd_users == 0 && !i->fd_keep && i->handle.len) {
		fd = i->fd;
		i->fd = -1;
	}
	pthread_mutex_unlock(lock);
	if (fd < 0)
		return false;
	close(fd);
	n_fds--;
	return true;
}

static void fd_reclaim(void)
{
	unsigned int steps, at, size = n_chunks * CHUNK_SIZE;

	for (steps = 0; steps < CLOCK_STEPS && n_fds > max_fds; steps++) {
		at = clock_hand++ % size;
		fd_evict(&chunks[at >> CHUNK_BITS][at & (CHUNK_SIZE - 1)]);
	}
}

int inode_get_fd(struct inode *i)
{
	pthread_mutex_t *lock = &fd_locks[stripe(i)];
	int fd;

	pthread_mutex_lock(lock);
	if (i->fd < 0) {
		fd = handle_open(&i->handle, O_PATH);
		if (fd < 0) {
			pthread_mutex_unlock(lock);
			return fd;
		}
		i->fd = fd;
		n_fds++;
	}
	i->fd_users++;
	i->fd_recent = true;
	fd = i->fd;
	pthread_mutex_unlock(lock);
	if (n_fds > max_fds)
		fd_reclaim();
	return fd;
}

void inode_put_fd(struct inode *i)
{
	pthread_mutex_t *lock = &fd_locks[stripe(i)];

	pthread_mutex_lock(lock);
	i->fd_users--;
	pthread_mutex_unlock(lock);
}

int inode_keep_fd(struct inode *i)
{
	int fd = inode_get_fd(i);

	if (fd < 0)
		return fd;
	i->fd_keep = true;
	inode_put_fd(i);
	return 0;
}

int inode_open(struct inode *i, int flags)
{
	char name[16];
	int fd, lower;

	if (i->handle.len && !i->fd_keep) {
		fd = handle_open(&i->handle, flags);
		if (fd != -ESTALE)
			return fd;
	}
	lower = inode_get_fd(i);
	if (lower < 0)
		return lower;
	proc_name(name, lower);
	fd = openat(fs.proc_fd, name, flags | O_CLOEXEC);
	if (fd < 0)
		fd = -errno;
	inode_put_fd(i);
	return fd;
}

int inode_stat(struct inode *i, struct stat *ret_st)
{
	int fd = inode_get_fd(i);
	int err = 0;

	if (fd < 0)
		return fd;
	if (fstatat(fd, "", ret_st, AT_EMPTY_PATH) != 0)
		err = -errno;
	inode_put_fd(i);
	return err;
}

/* Names */

void inode_set_name(struct inode *i, struct inode *parent, const char *name)
{
	pthread_mutex_t *lock = &name_locks[stripe(i)];
	struct inode *old;
	char *copy;

	pthread_mutex_lock(lock);
	if (i->parent == parent && i->name && strcmp(i->name, name) == 0) {
		pthread_mutex_unlock(lock);
		return;
	}
	copy = strdup(name);
	old = i->parent;
	free(i->name);
	i->name = copy;
	i->parent = copy ? parent : NULL;
	if (i->parent)
		inode_ref(parent);
	pthread_mutex_unlock(lock);
	if (old)
		inode_unref(old);
}

void inode_clear_name(struct inode *i, struct inode *parent, const char *name)
{
	pthread_mutex_t *lock = &name_locks[stripe(i)];
	struct inode *old = NULL;

	pthread_mutex_lock(lock);
	if (i->parent == parent && i->name && strcmp(i->name, name) == 0) {
		old = i->parent;
		free(i->name);
		i->name = NULL;
		i->parent = NULL;
	}
	pthread_mutex_unlock(lock);
	if (old)
		inode_unref(old);
}

bool inode_get_name(struct inode *i, char name[256], struct inode **ret_parent)
{
	pthread_mutex_t *lock = &name_locks[stripe(i)];
	bool known;

	pthread_mutex_lock(lock);
	known = i->name;
	if (known) {
		snprintf(name, 256, "%s", i->name);
		inode_ref(i->parent);
		*ret_parent = i->parent;
	}
	pthread_mutex_unlock(lock);
	return known;
}

/* Put name and a slash before what is at *pos. */
static bool path_push(char *buf, size_t *pos, const char *name)
{
	size_t n = strlen(name);

	if (n + 1 > *pos)
		return false;
	*pos -= n;
	memcpy(buf + *pos, name, n);
	buf[--*pos] = '/';
	return true;
}

/*
 * Up the names by which directories were found: no system call, and no limit
 * of PATH_MAX.
 */
size_t inode_path(struct inode *dir, char *buf, size_t size)
{
	struct inode *i = dir, *parent;
	size_t pos = size, len;
	char name[256];
	bool ok = true;

	if (i == root_inode) {
		buf[0] = '/';
		return 1;
	}
	inode_ref(i);
	while (ok && i != root_inode) {
		ok = inode_get_name(i, name, &parent);
		if (!ok)
			break;
		inode_unref(i);
		i = parent;
		ok = path_push(buf, &pos, name);
	}
	inode_unref(i);
	if (!ok)
		return 0;
	len = size - pos;
	memmove(buf, buf + pos, len);
	return len;
}

/* References */

void inode_ref(struct inode *i)
{
	pthread_mutex_t *lock = bucket_lock(bucket_of(i->dev, i->ino));

	pthread_mutex_lock(lock);
	i->refs++;
	pthread_mutex_unlock(lock);
}

static void unhash(struct inode *i, unsigned int b)
{
	struct inode **p = &buckets[b];

	while (*p != i)
		p = &(*p)->next;
	*p = i->next;
}

/* Drop references; the parent whose own reference went with the inode, or NULL. */
static struct inode *drop(struct inode *i, uint64_t nlookup, uint32_t refs)
{
	unsigned int b = bucket_of(i->dev, i->ino);
	struct inode *parent;

	pthread_mutex_lock(bucket_lock(b));
	i->nlookup -= nlookup;
	i->refs -= refs;
	if (i->nlookup || i->refs) {
		pthread_mutex_unlock(bucket_lock(b));
		return NULL;
	}
	unhash(i, b);
	pthread_mutex_unlock(bucket_lock(b));
	pthread_mutex_lock(&fd_locks[stripe(i)]);
	if (i->fd >= 0) {
		close(i->fd);
		n_fds--;
		i->fd = -1;
	}
	pthread_mutex_unlock(&fd_locks[stripe(i)]);
	session_free(i);
	free(i->name);
	parent = i->parent;
	i->name = NULL;
	i->parent = NULL;
	table_free(i);
	return parent;
}

void inode_unref(struct inode *i)
{
	while (i)
		i = drop(i, 0, 1);
}

void inode_forget(struct inode *i, uint64_t nlookup)
{
	i = drop(i, nlookup, 0);
	inode_unref(i);
}

static bool same(const struct inode *i, const struct inode *key)
{
	return i->ino == key->ino && i->dev == key->dev && i->gen == key->gen;
}

static void take(struct inode *i, bool for_kernel)
{
	if (for_kernel)
		i->nlookup++;
	else
		i->refs++;
}

/* The inode with the key's numbers: one that is there, or the key made one. */
static struct inode *insert(const struct inode *key, bool for_kernel, bool *ret_new)
{
	unsigned int b = bucket_of(key->dev, key->ino);
	struct inode *i, *made = table_alloc();

	if (!made)
		return NULL;
	made->ino = key->ino;
	made->dev = key->dev;
	made->gen = key->gen;
	made->type = key->type;
	made->handle = key->handle;
	made->meta = key->meta;
	made->fd = key->fd;
	pthread_mutex_lock(bucket_lock(b));
	for (i = buckets[b]; i && !same(i, key); i = i->next)
		;
	*ret_new = !i;
	if (!i) {
		i = made;
		i->next = buckets[b];
		buckets[b] = i;
	}
	take(i, for_kernel);
	pthread_mutex_unlock(bucket_lock(b));
	if (!*ret_new)
		table_free(made);
	else if (made->fd >= 0)
		n_fds++;
	return i;
}

/*
 * A known inode of these numbers.  It is what the name leads to only if its
 * number cannot have been used again: while it has a descriptor.
 */
static struct inode *find_pinned(dev_t dev, uint64_t ino, bool for_kernel)
{
	unsigned int b = bucket_of(dev, ino);
	struct inode *i;

	pthread_mutex_lock(bucket_lock(b));
	for (i = buckets[b]; i; i = i->next)
		if (i->ino == ino && i->dev == dev && i->fd >= 0)
			break;
	if (i)
		take(i, for_kernel);
	pthread_mutex_unlock(bucket_lock(b));
	return i;
}

struct inode *inode_find(dev_t dev, uint64_t ino)
{
	unsigned int b = bucket_of(dev, ino);
	struct inode *i;

	pthread_mutex_lock(bucket_lock(b));
	for (i = buckets[b]; i; i = i->next)
		if (i->ino == ino && i->dev == dev && !i->gone)
			break;
	if (i)
		i->refs++;
	pthread_mutex_unlock(bucket_lock(b));
	return i;
}

static bool meta_child(const struct inode *parent, const char *name)
{
	return parent->meta || (parent == root_inode && strcmp(name, META_DIR) == 0);
}

static void key_init(struct inode *key, const struct inode *parent, const char *name,
		     const struct stat *st)
{
	memset(key, 0, sizeof(*key));
	key->ino = st->st_ino;
	key->dev = st->st_dev;
	key->type = st->st_mode & S_IFMT;
	key->meta = meta_child(parent, name);
	key->fd = -1;
}

/* The key's descriptor is the new inode's, or closed. */
static struct inode *insert_or_close(const struct inode *key, bool for_kernel)
{
	bool is_new = false;
	struct inode *i = insert(key, for_kernel, &is_new);

	if (key->fd >= 0 && !(i && is_new))
		close(key->fd);
	return i;
}

int inode_lookup(struct inode *parent, int dirfd, const char *name, bool for_kernel,
		 struct stat *ret_st, struct inode **ret_inode)
{
	struct inode key, *i;
	struct stat st;
	int err;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return -errno;
	i = find_pinned(st.st_dev, st.st_ino, for_kernel);
	if (!i) {
		key_init(&key, parent, name, &st);
		err = handle_get(dirfd, name, &key.handle, &key.gen);
		if (err)
			return err;
		if (key.handle.len == 0) {
			key.fd = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
			if (key.fd < 0)
				return -errno;
		}
		i = insert_or_close(&key, for_kernel);
		if (!i)
			return -ENOMEM;
	}
	inode_set_name(i, parent, name);
	*ret_st = st;
	*ret_inode = i;
	return 0;
}

int inode_of_fd(struct inode *parent, int fd, const char *name, bool for_kernel,
		const struct stat *st, struct inode **ret_inode)
{
	struct inode key, *i;
	char self[16];
	int err;

	key_init(&key, parent, name, st);
	err = handle_get(fd, "", &key.handle, &key.gen);
	if (err)
		return err;
	if (key.handle.len == 0) {
		proc_name(self, fd);
		key.fd = openat(fs.proc_fd, self, O_PATH | O_CLOEXEC);
		if (key.fd < 0)
			return -errno;
	}
	i = insert_or_close(&key, for_kernel);
	if (!i)
		return -ENOMEM;
	if (*name != '/')
		inode_set_name(i, parent, name);
	*ret_inode = i;
	return 0;
}

bool inode_of_path(const char *path, const struct stat *st, const char *name,
		   struct inode **ret_dir)
{
	struct open_how how = {
		.flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	struct stat dst, now;
	int fd = syscall(SYS_openat2, fs.root_fd, path[1] ? path + 1 : ".", &how, sizeof(how));
	bool found;

	if (fd < 0)
		return false;
	found = fstatat(fd, name, &now, AT_SYMLINK_NOFOLLOW) == 0 &&
		now.st_ino == st->st_ino && now.st_dev == st->st_dev &&
		fstatat(fd, "", &dst, AT_EMPTY_PATH) == 0 &&
		inode_of_fd(root_inode, fd, "/", false, &dst, ret_dir) == 0;
	close(fd);
	return found;
}

void inode_each(void (*fn)(struct inode *i, void *arg), void *arg)
{
	unsigned int b;
	struct inode *i, *next;

	for (b = 0; b < BUCKETS; b++) {
		if (!buckets[b])
			continue;
		pthread_mutex_lock(bucket_lock(b));
		i = buckets[b];
		if (i)
			i->refs++;
		pthread_mutex_unlock(bucket_lock(b));
		while (i) {
			fn(i, arg);
			pthread_mutex_lock(bucket_lock(b));
			next = i->next;
			if (next)
				next->refs++;
			pthread_mutex_unlock(bucket_lock(b));
			inode_unref(i);
			i = next;
		}
	}
}

/* Start */

static void raise_fd_limit(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) != 0)
		return;
	rl.rlim_cur = rl.rlim_max = rl.rlim_max < 1048576 ? 1048576 : rl.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &rl) != 0 && getrlimit(RLIMIT_NOFILE, &rl) == 0) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
	getrlimit(RLIMIT_NOFILE, &rl);
	max_fds = FDS_MAX;
	if (rl.rlim_cur < 2 * FDS_MAX)
		max_fds = rl.rlim_cur / 2;
}

/* Whether descriptors can be had from handles here. */
static bool handles_work(void)
{
	struct handle h;
	uint32_t gen;
	int fd;

	fs.have_handles = true;
	if (handle_get(fs.root_fd, "", &h, &gen) != 0 || h.len == 0)
		return false;
	fd = handle_open(&h, O_PATH);
	if (fd < 0)
		return false;
	close(fd);
	return true;
}

int inode_init(void)
{
	struct inode key = { .type = S_IFDIR };
	struct stat st;
	unsigned int k;
	bool is_new;

	for (k = 0; k < STRIPES; k++) {
		pthread_mutex_init(&bucket_locks[k], NULL);
		pthread_mutex_init(&fd_locks[k], NULL);
		pthread_mutex_init(&name_locks[k], NULL);
	}
	raise_fd_limit();
	fs.have_handles = handles_work();
	if (fstatat(fs.root_fd, "", &st, AT_EMPTY_PATH) != 0)
		return -errno;
	key.ino = st.st_ino;
	key.dev = st.st_dev;
	(void) handle_get(fs.root_fd, "", &key.handle, &key.gen);
	key.fd = fcntl(fs.root_fd, F_DUPFD_CLOEXEC, 0);
	if (key.fd < 0)
		return -errno;
	root_inode = insert(&key, false, &is_new);
	if (!root_inode)
		return -ENOMEM;
	root_inode->fd_keep = true;
	return 0;
}
