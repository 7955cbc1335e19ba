/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Filesets on a lower file system: make one, find it, see whether it is in
 * use.  Called by mkizofs and the mount helper (doc/fileset.md).
 */
#ifndef LIB_FILESET_H
#define LIB_FILESET_H

#include <signal.h>

#include "catalog.h"

#define FILESET_DEFAULT	"rootfset"

/*
 * Make a fileset of the tree at root_fd, whatever is in it: .intermezzo/<name>
 * with kml, last_rcvd, incoming/ and base.  It appears at once
 * and is on disk on return.  -EEXIST if there is one already (force: it is replaced), -EBUSY
 * if that one is mounted, or an error of catalog_write(); report->why
 * is a sentence then.
 */
int fileset_make(int root_fd, const char *name, int force,
		 const volatile sig_atomic_t *stop, struct catalog_report *report);

/*
 * The name of the one fileset at root_fd.  -ENOENT: none; -ENOTUNIQ: several.
 */
int fileset_find(int root_fd, char ret_name[64]);

/* 0: it is there; -ENOENT */
int fileset_exists(int root_fd, const char *name);

/*
 * 0 if nobody has the fileset mounted; -EBUSY; -ENOENT.  Who mounts it holds a
 * lock (flock, exclusive) on its kml.
 */
int fileset_idle(int root_fd, const char *name);

#endif
