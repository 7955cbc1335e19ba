// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The LML's table of files that changed since their last CLOSE.  A slot is
 * taken before the first change and keeps space in the KML for the CLOSE; when
 * that is logged the slot waits until the KML holds it durably.
 */
#include "journal.h"

int izo_openw_init(struct izo_journal *j)
{
	unsigned int k;

	j->free_slots = kvcalloc(j->n_openw, sizeof(*j->free_slots), GFP_KERNEL);
	j->closed_slots = kvcalloc(j->n_openw, sizeof(*j->closed_slots), GFP_KERNEL);
	if (!j->free_slots || !j->closed_slots)
		return -ENOMEM;
	for (k = j->n_openw; k-- > 0;)
		j->free_slots[j->n_free++] = k;
	return 0;
}

void izo_openw_exit(struct izo_journal *j)
{
	kvfree(j->free_slots);
	kvfree(j->closed_slots);
}

static unsigned int closed_at(const struct izo_journal *j, unsigned int k)
{
	k += j->closed_first;
	return k < j->n_openw ? k : k - j->n_openw;
}

/* A slot that is CLOSED with an entry that is long gone is as good as free. */
void izo_openw_recycle(struct izo_journal *j)
{
	while (j->n_closed) {
		unsigned int slot = j->closed_slots[j->closed_first];
		struct lml_openw *o = &j->openw[slot];

		if (le64_to_cpu(o->close_seq) >= j->durable_seq)
			break;
		o->state = cpu_to_le32(LML_O_FREE);
		j->free_slots[j->n_free++] = slot;
		j->closed_first = closed_at(j, 1);
		j->n_closed--;
	}
}

static int take_slot(struct izo_journal *j)
{
	int err;

	mutex_lock(&j->lock);
	while (j->n_free == 0 && j->n_closed && !izo_journal_error(j)) {
		izo_request_flush(j);
		izo_wait(j, &j->space, TASK_UNINTERRUPTIBLE, MAX_SCHEDULE_TIMEOUT);
	}
	if (j->n_free < j->n_openw / 4)
		izo_request_flush(j);
	if (j->n_free)
		err = izo_kml_reserve(j, IZO_CLOSE_ROOM, false);
	else
		err = izo_journal_error(j) ? -ENOSPC : -EAGAIN;
	/* the lock was given up while space was reserved */
	if (!err && !j->n_free) {
		izo_kml_unreserve(j, IZO_CLOSE_ROOM);
		err = -EAGAIN;
	}
	if (!err)
		err = j->free_slots[--j->n_free];
	mutex_unlock(&j->lock);
	return err;
}

static int put_slot(struct izo_journal *j, struct lml_openw *o)
{
	return izo_lml_write(j, izo_image_offset(j, o), sizeof(*o));
}

/* Called with the lock held. */
static void free_slot(struct izo_journal *j, unsigned int slot)
{
	j->free_slots[j->n_free++] = slot;
	wake_up_all(&j->space);
}

int izo_openw_begin(struct izo_journal *j, struct inode *inode, u64 old_size)
{
	struct lml_openw *o;
	int slot = take_slot(j), err;

	if (slot < 0)
		return slot;
	o = &j->openw[slot];
	memset(o, 0, sizeof(*o));
	o->gen = cpu_to_le32(inode->i_generation);
	o->ino = cpu_to_le64(inode->i_ino);
	o->old_size = cpu_to_le64(old_size);
	izo_handle_of(&o->handle, inode);
	o->state = cpu_to_le32(LML_O_OPEN);
	err = put_slot(j, o);
	if (!err && old_size && j->ops->hasten)
		j->ops->hasten(j);
	if (!err)
		return slot;
	mutex_lock(&j->lock);
	o->state = cpu_to_le32(LML_O_FREE);
	izo_kml_unreserve(j, IZO_CLOSE_ROOM);
	free_slot(j, slot);
	mutex_unlock(&j->lock);
	return err;
}

void izo_openw_end(struct izo_journal *j, int slot, u64 close_seq)
{
	struct lml_openw *o = &j->openw[slot];

	if (izo_dead(j->sbi))
		return;
	o->close_seq = cpu_to_le64(close_seq);
	o->state = cpu_to_le32(close_seq ? LML_O_CLOSED : LML_O_FREE);
	(void)put_slot(j, o);
	mutex_lock(&j->lock);
	izo_kml_unreserve(j, IZO_CLOSE_ROOM);
	if (close_seq) {
		j->closed_slots[closed_at(j, j->n_closed)] = slot;
		j->n_closed++;
	} else {
		free_slot(j, slot);
	}
	mutex_unlock(&j->lock);
}
