/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readers: a read-only connection to intersync's state and the directories
 * that were opened last.  A request takes one from the pool of its worker process,
 * reads one position of the log with it, and puts it back.
 */
#include "reader.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#define KEEP_MAX 32		/* readers that are kept open */

struct mis_pool {
	pthread_mutex_t		lock;
	struct mis_reader	*free[KEEP_MAX];
	unsigned int		n_free;
};

struct mis_pool *mis_pool_new(const struct mis_fileset *f)
{
	struct mis_pool *p = calloc(1, sizeof(*p));

	if (p)
		pthread_mutex_init(&p->lock, NULL);
	return p;
}

static void reader_free(struct mis_reader *r)
{
	unsigned int i;

	for (i = 0; i < MIS_DIRS; i++)
		if (r->dirs[i].fd >= 0)
			close(r->dirs[i].fd);
	isd_state_close(r->state);
	free(r);
}

static struct mis_reader *reader_new(const struct mis_fileset *f, GError **error)
{
	struct mis_reader *r = calloc(1, sizeof(*r));
	unsigned int i;

	if (!r)
		return NULL;
	for (i = 0; i < MIS_DIRS; i++)
		r->dirs[i].fd = -1;
	r->state = isd_state_open_ro(f->meta_fd, error);
	if (!r->state) {
		free(r);
		return NULL;
	}
	return r;
}

struct mis_reader *mis_reader_get(const struct mis_fileset *f, char *why, size_t size)
{
	struct mis_pool *p = f->pool;
	struct mis_reader *r = NULL;
	g_autoptr(GError) error = NULL;

	pthread_mutex_lock(&p->lock);
	if (p->n_free)
		r = p->free[--p->n_free];
	pthread_mutex_unlock(&p->lock);
	if (!r)
		r = reader_new(f, &error);
	if (r && !isd_state_begin(r->state, &error)) {
		reader_free(r);
		r = NULL;
	}
	if (r)
		r->refreshes = 0;
	else
		g_strlcpy(why, error ? error->message : "no memory", size);
	return r;
}

void mis_reader_put(const struct mis_fileset *f, struct mis_reader *r)
{
	struct mis_pool *p = f->pool;

	if (!r)
		return;
	isd_state_rollback(r->state);
	pthread_mutex_lock(&p->lock);
	if (p->n_free < KEEP_MAX) {
		p->free[p->n_free++] = r;
		r = NULL;
	}
	pthread_mutex_unlock(&p->lock);
	if (r)
		reader_free(r);
}

bool mis_reader_refresh(const struct mis_fileset *f, struct mis_reader *r, struct kml_oid oid)
{
	struct gate_check check = { .ino = oid.ino, .gen = oid.gen };
	void *body;
	size_t len;
	int status;

	isd_state_rollback(r->state);
	status = gate_call(f->gate, GATE_CHECK, &check, sizeof(check), NULL, 0, -1, 30,
			   &body, &len);
	free(body);
	return isd_state_begin(r->state, NULL) && status == 200;
}

bool mis_reader_position(struct mis_reader *r, uint64_t *ret_offset, uint64_t *ret_recno)
{
	guint64 offset, recno;

	if (!isd_state_get_u64(r->state, "local_offset", &offset, NULL) ||
	    !isd_state_get_u64(r->state, "local_recno", &recno, NULL))
		return false;
	*ret_offset = offset;
	*ret_recno = recno;
	return true;
}
