/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Conflicts: between conflict.c, which decides and keeps both versions,
 * conflict_table.c, which remembers them until they are settled, settle.c, which
 * does what izoctl or a policy has chosen, and policy.c, which reads the policies.
 */
#ifndef ISD_CONFLICT_H
#define ISD_CONFLICT_H

#include "client.h"

/* First what was done here, then what on the server.  The numbers are in the state. */
typedef enum {
	ISD_CONFLICT_UPDATE = 1,	/* both have written the file */
	ISD_CONFLICT_UPDATE_DELETE,	/* written here, removed there: it stays */
	ISD_CONFLICT_DELETE_UPDATE,	/* the reverse: it comes back */
	ISD_CONFLICT_NAME,		/* one name for two objects */
	ISD_CONFLICT_TYPE,		/* which are of different types */
	ISD_CONFLICT_RENAME,		/* two new names for one object */
	ISD_CONFLICT_INTO_DELETE,	/* the directory of something new was removed there */
	ISD_CONFLICT_DELETE_INTO,	/* the reverse */
	ISD_CONFLICT_CYCLE,		/* two directories moved into each other */
} IsdConflictKind;

/* Who settles it: people, a policy, or izoctl has said it, and it waits for the copy to be sent. */
enum { ISD_BY_HAND, ISD_BY_POLICY, ISD_BY_CHOICE };

#define ISD_CONFLICT_MARK ".conflict-"	/* in the name of each copy */

typedef enum {
	ISD_KEEP_BOTH,
	ISD_KEEP_SERVER,
	ISD_KEEP_CLIENT,
	ISD_KEEP_NEWEST,	/* policies only, as what follows */
	ISD_KEEP_PROGRAM,
	ISD_KEEP_RANGES,
} IsdKeep;

typedef struct {
	gint64		no;		/* how people call it; never used again */
	IsdConflictKind	kind;
	gboolean	planned;	/* the copy has perhaps not got its name yet */
	int		policy;		/* what is still to settle it, ISD_BY_* */
	gint64		time;		/* seconds */
	guint64		recno;		/* end of the own log when it was decided */
	gint64		id;		/* row of the version of here */
	gint64		parent, cparent;
	char		*name;		/* the server's version: in parent */
	char		*cname;		/* that of here: in cparent; what else it is depends on kind */
	char		*peer;		/* who has made the server's version */
	struct kml_attrs theirs, mine, base;	/* base: of the version before both; mode 0: unknown */
	GBytes		*spans;		/* of IsdSpan: what was written here and not there; or NULL */
	guint64		sversion;	/* of the server's content, with spans */
} IsdConflict;

void isd_conflict_clear(IsdConflict *e);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(IsdConflict, isd_conflict_clear)

/* --- conflict_table.c --- */

const char *isd_conflict_kind(IsdConflictKind kind);
/* Sets e->no. */
gboolean isd_conflict_add(IsdClient *c, IsdConflict *e, GError **error);
/* The copy has its name. */
gboolean isd_conflict_is_there(IsdClient *c, gint64 no, GError **error);
gboolean isd_conflict_set_policy(IsdClient *c, gint64 no, int policy, GError **error);
gboolean isd_conflict_drop(IsdClient *c, gint64 no, GError **error);
/* The spans of an entry, if it has any. */
gboolean isd_conflict_load_spans(IsdClient *c, IsdConflict *e, GError **error);
/* Is there one of this kind about the object already? */
gboolean isd_conflict_is_known(IsdClient *c, IsdConflictKind kind, gint64 id, gboolean *ret,
			       GError **error);
typedef enum { ISD_CONFLICT_ALL, ISD_CONFLICT_PLANNED, ISD_CONFLICT_POLICY } IsdConflictWhich;
/* The next one behind number `after`. */
gboolean isd_conflict_next(IsdClient *c, IsdConflictWhich which, gint64 after, IsdConflict *ret,
			   gboolean *ret_found, GError **error);
/* Is the version of here beside the server's, under a name that says so? */
gboolean isd_conflict_has_copy(IsdConflictKind kind);
/* Those whose copy is gone, or is called as people call files, are settled. */
gboolean isd_conflict_prune(IsdClient *c, GError **error);
/* "dir/name" below the root; NULL: it hangs nowhere. */
char *isd_conflict_path(IsdClient *c, gint64 parent, const char *name);

/* --- conflict.c --- */

/* A conflict without a copy: of that kind about the object there is one entry at most. */
gboolean isd_conflict_note(IsdClient *c, IsdConflictKind kind, gint64 id, gint64 parent,
			   const char *name, gint64 cparent, const char *cname,
			   const struct kml_record *theirs, GError **error);

/*
 * The server has moved a directory into one that is below it here, as that was moved here: that one
 * goes back, and *ret_done.
 */
gboolean isd_conflict_break_cycle(IsdClient *c, gint64 moved, gint64 into,
				  const struct kml_record *theirs, gboolean *ret_done, GError **error);

/* --- settle.c --- */

/* Is there a policy that settles it?  Notes what that will need.  theirs may be NULL. */
gboolean isd_policy_applies(IsdClient *c, IsdConflict *e, const IsdObject *o,
			    const struct kml_record *theirs);

/* Do what was chosen with ordinary local operations; both: nothing.  The entry goes, then. */
gboolean isd_settle(IsdClient *c, const IsdConflict *e, IsdKeep keep, GError **error);

/* --- policy.c --- */

typedef struct {
	IsdKeep		keep;
	guint		seconds;	/* PROGRAM: so long it may take */
	char		**argv;		/* and what it is */
} IsdPolicy;

void isd_policy_clear(IsdPolicy *p);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(IsdPolicy, isd_policy_clear)

/* For the file of that path. */
void isd_policy_find(IsdClient *c, const char *path, IsdPolicy *ret);

#endif
