/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Records as text, on standard output: one line, labelled fields, or JSON.
 * kmlprint.c chooses the records and one of these.
 */
#ifndef KMLPRINT_PRINT_H
#define KMLPRINT_PRINT_H

#include "record.h"

/* A record, and where it was in its log. */
struct entry {
	struct kml_record	rec;
	uint64_t		off;
	uint64_t		len;
};

void print_brief(const struct entry *e);
void print_full(const struct entry *e);
void print_json(const struct entry *e);

/*
 * The paths that a record names, as they were when it was logged: new strings,
 * not escaped.  NULL if the record has none.
 */
char *record_path(const struct kml_record *r);
char *record_target_path(const struct kml_record *r);

#endif
