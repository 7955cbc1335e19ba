/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serving a fileset, without httpd: objects by number, the catalog, bundles,
 * sparse content, the log and uploads.  mod_intersync.c calls it with sinks that write
 * to the client.  Everything it reads comes from the state database of
 * intersync and straight from the lower file system.
 *
 * Functions that answer a request return the HTTP status (200, 404, 410, 425
 * ...); MIS_BROKEN means that part of the answer is out and must be broken off.
 */
#ifndef MIS_SERVE_H
#define MIS_SERVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "gate.h"
#include "record.h"

#define MIS_BROKEN	(-1)
#define MIS_CHUNK	(256 * 1024)	/* bytes handed to a sink at once */

#define MIS_BUNDLE_MAX	1024		/* objects in one request */
#define MIS_SMALL_MAX	(64 * 1024)	/* bytes of a file in a bundle */

/* One fileset, shared by all threads of a worker process. */
struct mis_fileset {
	const char	*name;
	int		root_fd;	/* lower root */
	int		meta_fd;	/* .intermezzo/<fileset> */
	uint64_t	epoch;
	struct gate	*gate;
	struct mis_pool	*pool;
};

/* Kept readers of the state: one thread uses one at a time. */
struct mis_pool *mis_pool_new(const struct mis_fileset *f);

struct mis_reader;
/*
 * NULL: the state cannot be read (503), why says the reason.  Reads one position of
 * the log until put back.
 */
struct mis_reader *mis_reader_get(const struct mis_fileset *f, char *why, size_t size);
void mis_reader_put(const struct mis_fileset *f, struct mis_reader *r);
/* Ask intersync to look at an object and its log again, and read from there. */
bool mis_reader_refresh(const struct mis_fileset *f, struct mis_reader *r, struct kml_oid oid);
/* The position of the log that this reader reads. */
bool mis_reader_position(struct mis_reader *r, uint64_t *ret_offset, uint64_t *ret_recno);

/* What content must look like as long as it is one version. */
struct mis_stamp {
	uint64_t	ino;
	uint64_t	size;
	struct timespec	mtime, ctime;
};

/* The fileset's root again, O_PATH; -1 and errno. */
int mis_open_root(int root_fd);

/*
 * Open a version of an object.  200: *ret_fd is the caller's, and the content
 * is that version as long as mis_unchanged() says so.  404, 410, 425 otherwise.
 */
int mis_object_open(const struct mis_fileset *f, struct mis_reader *r, struct kml_oid oid,
		    uint64_t version, int *ret_fd, struct mis_stamp *ret_stamp);
bool mis_unchanged(int fd, const struct mis_stamp *stamp);

/*
 * Where an answer goes: len bytes from malloc(), which belong to the sink,
 * also when it fails (not 0: stop, nobody listens).
 */
typedef int (*mis_sink)(void *data, void *buf, size_t len);

struct mis_range {
	uint64_t	start, end;
};

/* "START-END[,START-END...]", ascending; *ret_ranges from malloc(). */
bool mis_ranges_parse(const char *text, struct mis_range **ret_ranges, size_t *ret_n);
/* Frames of GET data?sparse; n 0: all of it. */
int mis_sparse(int fd, const struct mis_stamp *stamp, const struct mis_range *ranges, size_t n,
	       mis_sink sink, void *data);

/* POST bundle: req as it came.  *ret_sent counts bytes of content. */
int mis_bundle(const struct mis_fileset *f, struct mis_reader *r, const void *req, size_t len,
	       mis_sink sink, void *data);

/* GET catalog; r says at which position. */
int mis_catalog(const struct mis_fileset *f, struct mis_reader *r, mis_sink sink, void *data);

/* POST where: the same of the objects and names that req, as it came, asks for. */
int mis_where(const struct mis_fileset *f, struct mis_reader *r, const void *req, size_t len,
	      mis_sink sink, void *data);

/*
 * GET kml: whole records from `after` on and before `end`, about max bytes.
 * *ret_buf is malloc()ed.  200, 400 (no record begins there), 410 or 500.
 */
int mis_kml_read(const struct mis_fileset *f, uint64_t after, uint64_t end, size_t max,
		 void **ret_buf, size_t *ret_len);
/* The checksum of the record that ends at offset.  200, 404 (none ends there), 410 or 500. */
int mis_kml_sum(const struct mis_fileset *f, uint64_t offset, uint32_t *ret_crc);

/*
 * Uploads: files in incoming/.  Statuses: 200, 400 bad name, 404, 409 in use,
 * 507 full, 500.
 */
#define MIS_NAME_MAX	100
bool mis_upload_name(char *ret, size_t size, const char *peer, const char *name);
int mis_upload_open(const struct mis_fileset *f, const char *file, int *ret_fd);
/* Is there room for so many bytes?  Of an upload: but for what of it is there. */
int mis_upload_room(const struct mis_fileset *f, uint64_t bytes);
int mis_upload_rest_fits(const struct mis_fileset *f, const char *file, uint64_t bytes);
int mis_upload_write(int fd, const void *buf, size_t len, uint64_t off);
int mis_upload_size(int fd, uint64_t size);
int mis_upload_length(const struct mis_fileset *f, const char *file, uint64_t *ret_length);
int mis_upload_delete(const struct mis_fileset *f, const char *file);

#endif
