/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The journal's insides, for journal.c, openw.c and recover.c.
 */
#ifndef FUSE_JOURNAL_H
#define FUSE_JOURNAL_H

#include <intermezzo/lml.h>

#include "byteorder.h"
#include "fs.h"

struct journal {
	int			lml_fd, kml_fd;
	size_t			lml_size;
	char			*map;
	struct lml_header	*header;
	struct lml_openw	*openw;
	uint64_t		n_openw;
	char			*ring;
	uint64_t		ring_size;

	pthread_mutex_t		lock;
	pthread_cond_t		work;		/* for the worker */
	pthread_cond_t		flush;		/* for the flusher */
	pthread_cond_t		space;		/* tail, end or durability moved */
	/* Positions in the ring; they never wrap. */
	uint64_t		head, tail, appended;
	uint64_t		next_seq, appended_seq, durable_seq;	/* all below are so */
	uint64_t		logged_seq;	/* the last that is for the log */
	uint64_t		serial;
	/* The kml: its end, what is allocated, what operations may still append. */
	uint64_t		end, recno, allocated, reserved;
	uint64_t		durable_end, durable_recno;
	bool			no_fallocate;
	int			error;		/* of the last append, 0 once one succeeded */
	bool			flush_now, flushing, stop;
	bool			flusher_idle;	/* nothing to flush */
	unsigned int		drainers;
	_Atomic bool		idle;		/* the worker sleeps */
	bool			started;
	pthread_t		worker, flusher;
};

extern struct journal journal;

static inline struct lml_entry *ring_entry(uint64_t pos)
{
	return (struct lml_entry *) (journal.ring + pos % journal.ring_size);
}

static inline uint32_t entry_state(const struct lml_entry *e)
{
	return le32_to_cpu(__atomic_load_n(&e->state, __ATOMIC_SEQ_CST));
}

static inline void entry_set_state(struct lml_entry *e, uint32_t state)
{
	__atomic_store_n(&e->state, cpu_to_le32(state), __ATOMIC_SEQ_CST);
}

static inline char *entry_intent(struct lml_entry *e)
{
	return (char *) (e + 1);
}

void put_handle(struct lml_handle *d, const struct inode *i);
/* Where the file system copies on write: not this file, which is still empty. */
void nocow(int fd);
/* Write the LML's next state: the tail, and the journal's durable positions. */
void journal_put_state(uint64_t tail, uint32_t flags);
/* Called with the lock held: space in the KML; wake the flusher. */
int kml_reserve(uint64_t bytes, bool frees);
void kml_unreserve(uint64_t bytes);
void journal_request_flush(void);

/* openw.c */

int openw_init(void);
/* Called with the lock held when durable_seq has moved. */
void openw_recycle(void);

/* recover.c */

/* Find the log's end and take in what the LML holds; leaves both empty. */
int recover(void);
/* Append a record; its number and the end follow. */
int recover_append(struct kml_record *r, uint64_t seq);

/* look.c: after the machine stopped */

/* LOOK for one object, once. */
int look_object(const struct kml_oid *oid);
/* For all that the records from the last checkpoint on, and the set, name. */
int look_all(void);

#endif
