/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a reader consists of: for the parts of the library that use it
 * (reader.c, object.c, catalog.c).
 */
#ifndef MIS_READER_H
#define MIS_READER_H

#include "serve.h"
#include "state.h"

#define MIS_DIRS	16	/* directories that a reader keeps open */
#define MIS_REFRESHES	4	/* times that one request may have the state brought up to date */

struct mis_dir {
	int64_t		id;	/* the directory's row; rows are never used again */
	int		fd;	/* -1: free */
	uint64_t	used;
};

struct mis_reader {
	IsdState	*state;
	struct mis_dir	dirs[MIS_DIRS];
	uint64_t	clock;
	unsigned int	refreshes;	/* in this request */
};

#endif
