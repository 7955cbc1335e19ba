/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Between heal.c, which asks the server where objects are, and heal_place.c, which brings
 * them there.
 */
#ifndef ISD_HEAL_H
#define ISD_HEAL_H

#include "client.h"

/* A name that the server has. */
typedef struct {
	struct kml_oid	dir;		/* the server's number */
	char		*name;
} HealName;

/* An object that the server has. */
typedef struct {
	struct kml_record r;		/* as the catalog tells it */
	GArray		*names;		/* of HealName; the first one is that of r */
} HealTold;

typedef struct {
	IsdClient	*c;
	GByteArray	*body;		/* what the records point into */
	GHashTable	*told;		/* soid -> HealTold */
	GPtrArray	*list;		/* the same, in the answer's order */
	gboolean	changed;	/* something was moved: another pass may do more */
} Heal;

HealTold *isd_heal_told(const Heal *h, struct kml_oid soid);
/* Passes over all of them until nothing changes. */
gboolean isd_heal_place(Heal *h, GError **error);
/* The names of here are those that the server has; *ret_same. */
gboolean isd_heal_is_placed(Heal *h, const HealTold *t, gboolean *ret_same, GError **error);

#endif
