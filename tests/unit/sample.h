/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Records of every kind, the same for ever: samples/ holds them as format
 * version 1 stored them, and the tests compare.
 */
#ifndef TESTS_UNIT_SAMPLE_H
#define TESTS_UNIT_SAMPLE_H

#include "klog.h"
#include "record.h"

#define SAMPLE_LOG	19	/* records that a log may hold, numbers 1 ... */
#define SAMPLE_WIRE	4	/* and of the wire, numbers SAMPLE_LOG + 1 ... */
#define SAMPLE_ALL	(SAMPLE_LOG + SAMPLE_WIRE)

extern const struct klog_header sample_header;

/* Record number recno (1 ... SAMPLE_ALL).  What it points to is static. */
void sample_record(unsigned int recno, struct kml_record *ret);

/* The name of the first field that differs, or NULL. */
const char *record_differs(const struct kml_record *a, const struct kml_record *b);

#endif
