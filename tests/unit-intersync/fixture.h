/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A fileset on a temporary directory with a state, for the tests of state,
 * follow and check; and records in few words.
 */
#ifndef FIXTURE_H
#define FIXTURE_H

#include "core.h"

typedef struct {
	char		*top;		/* the root of the tree */
	int		root_fd, meta_fd;
	IsdState	*s;
	struct kml_oid	root;
	guint64		recno;		/* the last one used */
} Fixture;

/* Makes the directories; the state is loaded from base (the root alone, without). */
void fixture_set_up(Fixture *f);
void fixture_tear_down(Fixture *f);
void fixture_reopen(Fixture *f);

/* A record with the next number; obj gen is 7 throughout. */
struct kml_record rec(Fixture *f, unsigned int opcode, guint64 ino, struct kml_oid parent,
		      const char *name);
struct kml_oid oid(guint64 ino);
struct kml_str str(const char *s);
/* Append r to the kml file at fd. */
void append_record(int fd, const struct kml_record *r);

#define assert_ok(call) do { \
	g_autoptr(GError) e_ = NULL; \
	gboolean ok_ = (call); \
	g_assert_no_error(e_); \
	g_assert_true(ok_); \
} while (0)
#define E (&e_)

#endif
