// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The LML's table of files that changed since their last CLOSE.  A slot is
 * taken before the first change and keeps space in the KML for the CLOSE; when
 * that is logged the slot waits until the KML holds it durably.
 */
#include <config.h>

#include "journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Under the journal's lock: a stack of free slots, a queue of closed ones. */
static unsigned int *free_slots, n_free;
static unsigned int *closed_slots, closed_first, n_closed;

int openw_init(void)
{
	unsigned int n = journal.n_openw, k;

	free_slots = calloc(n, sizeof(*free_slots));
	closed_slots = calloc(n, sizeof(*closed_slots));
	if (!free_slots || !closed_slots)
		return -ENOMEM;
	for (k = n; k-- > 0;)
		free_slots[n_free++] = k;
	return 0;
}

void openw_recycle(void)
{
	while (n_closed) {
		unsigned int slot = closed_slots[closed_first];
		struct lml_openw *o = &journal.openw[slot];

		if (le64_to_cpu(o->close_seq) >= journal.durable_seq)
			break;
		o->state = cpu_to_le32(LML_O_FREE);
		free_slots[n_free++] = slot;
		closed_first = (closed_first + 1) % journal.n_openw;
		n_closed--;
	}
}

static int take_slot(void)
{
	int err;

	pthread_mutex_lock(&journal.lock);
	while (n_free == 0 && n_closed && !journal.error) {
		journal_request_flush();
		pthread_cond_wait(&journal.space, &journal.lock);
	}
	if (n_free < journal.n_openw / 4)
		journal_request_flush();
	if (n_free)
		err = kml_reserve(CLOSE_ROOM, false);
	else
		err = journal.error ? -ENOSPC : -EAGAIN;
	if (!err)
		err = free_slots[--n_free];
	pthread_mutex_unlock(&journal.lock);
	return err;
}

static void put_path(struct lml_openw *o, struct inode *i)
{
	char name[16];
	ssize_t n = -1;
	int fd;

	o->path_len = 0;
	if (i->handle.len)
		return;
	fd = inode_get_fd(i);
	if (fd < 0)
		return;
	proc_name(name, fd);
	n = readlinkat(fs.proc_fd, name, (char *) o->path, sizeof(o->path));
	inode_put_fd(i);
	if (n > 0 && (size_t) n < sizeof(o->path))
		o->path_len = cpu_to_le32(n);
}

int openw_begin(struct inode *i, uint64_t old_size)
{
	struct lml_openw *o;
	int slot = take_slot();

	if (slot < 0)
		return slot;
	o = &journal.openw[slot];
	o->gen = cpu_to_le32(i->gen);
	o->ino = cpu_to_le64(i->ino);
	o->old_size = cpu_to_le64(old_size);
	o->close_seq = 0;
	memset(&o->handle, 0, sizeof(o->handle));
	o->handle.len = i->handle.len;
	o->handle.type = i->handle.type;
	memcpy(o->handle.bytes, i->handle.bytes, i->handle.len);
	put_path(o, i);
	__atomic_store_n(&o->state, cpu_to_le32(LML_O_OPEN), __ATOMIC_SEQ_CST);
	return slot;
}

void openw_end(int slot, uint64_t close_seq)
{
	struct lml_openw *o = &journal.openw[slot];

	o->close_seq = cpu_to_le64(close_seq);
	__atomic_store_n(&o->state, cpu_to_le32(close_seq ? LML_O_CLOSED : LML_O_FREE),
			 __ATOMIC_SEQ_CST);
	pthread_mutex_lock(&journal.lock);
	kml_unreserve(CLOSE_ROOM);
	if (close_seq) {
		closed_slots[(closed_first + n_closed) % journal.n_openw] = slot;
		n_closed++;
	} else {
		free_slots[n_free++] = slot;
		pthread_cond_broadcast(&journal.space);
	}
	pthread_mutex_unlock(&journal.lock);
}
