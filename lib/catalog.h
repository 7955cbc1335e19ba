/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writing the catalog of a tree that exists already: one record for each
 * object, as doc/catalog.md says.  Called by fileset.c for mkizofs and for the
 * mount helper.
 */
#ifndef LIB_CATALOG_H
#define LIB_CATALOG_H

#include <signal.h>
#include <stdint.h>

struct catalog_report {
	uint64_t	objects;	/* files, directories ... in the tree */
	uint64_t	bytes;		/* of the catalog */
	uint64_t	outside;	/* files that have names outside the tree, too */
	char		why[1024];	/* after an error: a sentence about it */
};

/*
 * Write the catalog of the tree below root_fd (a directory, open for reading) to
 * out_fd, an empty file.  What a fileset hides (".intermezzo" and "lost+found" in
 * the root) is left out.  Returns 0 or -errno: -EXDEV for a mount
 * point within, -EINTR once *stop is not 0 (stop may be NULL).
 * Not synced.  Memory: the names of the subdirectories on the way down, and of
 * the hard-linked files whose other names have not been met yet.
 */
int catalog_write(int root_fd, int out_fd, const volatile sig_atomic_t *stop,
		  struct catalog_report *ret_report);

#endif
