/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the tests of the HTTP resources share: requests, TAP, and a client that
 * makes records.
 */
#ifndef TESTS_HTTP_H
#define TESTS_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "record.h"

/* The answer to the last request. */
struct answer {
	long	status;		/* 0: none, the connection broke */
	bool	whole;		/* as long as was promised */
	char	*body;
	size_t	len;
	char	headers[4096];
};

extern struct answer a;
extern const char *mount_dir, *base_url;
extern char peer_uuid[37];
extern uint64_t position_offset, position_recno, acked;

/* method path, with the headers of a client; more: one header more, or NULL. */
void request(const char *method, const char *path, const void *body, size_t len, const char *more);
void get(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A header of the answer, "" when it is not there. */
const char *header(const char *name);

void check(bool good, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The status, and an error as JSON from 400 on. */
void check_status(long status, const char *what);

/* Paths in the mounted fileset. */
char *in_mount(const char *name);
void put_file(const char *name, const void *data, size_t len);
/* -1: not there */
long read_file(const char *name, void *buf, size_t size);
struct kml_oid oid_of(const char *name);

/* Everything that has happened in the mount so far is in the log, ... */
void settle(void);
/* ... and the position is behind it. */
void catch_up(void);
/* Number of the last record about this object's content. */
uint64_t version_of(const char *name);

/* reading.c, writing.c */
void test_reading(void);
void test_uploads(void);
void test_reint(void);

#endif
