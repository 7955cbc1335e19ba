/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Recovery, for recover.c and look.c.
 */
#ifndef INTERMEZZO_RECOVER_H
#define INTERMEZZO_RECOVER_H

#include "reint.h"

struct recovery {
	struct izo_journal	*j;
	void			*buf;		/* of one record */
	/* what may not be what the log says, and is to have a record of its own */
	struct kml_oid		*objects;
	size_t			n_objects, max_objects;
	bool			no_memory;
};

/* recover.c */

/* Append one record; recno and end follow. */
int izo_recover_append(struct recovery *rec, struct kml_record *r, u64 seq);
/* The lower object by its handle, counted; NULL if it is not there. */
struct dentry *izo_recover_object(struct recovery *rec, const struct lml_handle *h,
				  const struct kml_oid *oid);
/* Another one of the objects; and each of them once. */
void izo_recover_note(struct recovery *rec, const struct kml_oid *oid);
int izo_recover_each(struct recovery *rec,
		     int (*fn)(struct recovery *rec, const struct kml_oid *oid));

/* look.c */

int izo_look_all(struct recovery *rec);

#endif
