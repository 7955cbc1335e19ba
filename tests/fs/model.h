/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A tree in memory, made from a catalog and a log alone.  The replayer of the
 * file-system suite compares it with the tree on disk: log = truth.
 */
#ifndef TESTS_FS_MODEL_H
#define TESTS_FS_MODEL_H

#include <stdbool.h>

#include "record.h"

struct xattr {
	struct xattr	*next;
	size_t		name_len, value_len;
	char		bytes[];	/* name, value */
};

struct object {
	struct object	*next;		/* hash chain */
	struct kml_oid	oid;
	struct kml_attrs attr;
	unsigned int	names;		/* how many name it; the root has one */
	unsigned int	children;
	bool		unsure;		/* RESYNC or LOOK named it: it may differ */
	bool		excused;	/* one of its directories is unsure */
	/* By the comparison: */
	bool		walked;
	bool		elsewhere;	/* a directory that may differ has another name of it */
	unsigned int	nlink;		/* here */
	struct kml_time	ctime;		/* after the last record that told it */
	char		*link;
	size_t		link_len;
	struct xattr	*xattrs;
};

struct entry {
	struct entry	*next;		/* hash chain */
	struct object	*dir, *obj;
	bool		seen;		/* by the comparison */
	size_t		len;
	char		name[];
};

struct model {
	struct object	**objects;
	struct entry	**entries;
	size_t		object_size, entry_size;
	size_t		n_objects, n_entries;
	struct object	*root;
	unsigned long	resyncs;
	char		why[1024];	/* the first thing that did not fit */
};

void model_init(struct model *m);
/* Take a record in.  false: it does not fit, m->why says what is wrong. */
bool model_apply(struct model *m, const struct kml_record *r);
/* After all records: objects in a directory that LOOK named may differ, too. */
void model_excuse(struct model *m);
struct object *model_object(struct model *m, struct kml_oid oid);
struct entry *model_entry(struct model *m, const struct object *dir,
			  const char *name, size_t len);
const struct xattr *model_xattr(const struct object *o, const char *name, size_t len);

#endif
