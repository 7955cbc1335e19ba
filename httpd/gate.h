/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gateway: how mod_intersync asks intersync.
 *
 * A SOCK_STREAM Unix socket that intersync listens on and only the user of
 * httpd's workers (and root) may use.  A worker sends one request, and gets
 * one reply before it sends the next; GATE_PEER has no reply.  Each message is
 * a struct gate_head and len bytes.  Both ends run on one machine: numbers are
 * in its byte order.  status of a request is 0, that of a reply is the status that the HTTP
 * answer should have; from 400 on the body is a sentence for people.
 *
 *	GATE_INFO	-			struct gate_info
 *	GATE_WAIT	struct gate_wait	struct gate_info, once the log ends
 *						behind `after` or the time is out
 *	GATE_PEER	struct gate_peer	no reply
 *	GATE_REINT	struct gate_reint,	the answers of POST reint
 *			encoded records
 *	GATE_STATUS	-			HTML
 *	GATE_METRICS	-			Prometheus text
 *	GATE_CHECK	struct gate_check	-: the state has been brought up to
 *						date, look at this object again
 *
 * Used by gate.c (the asking end, in httpd) and intersync/gateway.c.
 */
#ifndef MIS_GATE_H
#define MIS_GATE_H

#include <stddef.h>
#include <stdint.h>

enum gate_type {
	GATE_INFO	= 1,
	GATE_WAIT	= 2,
	GATE_PEER	= 3,
	GATE_REINT	= 4,
	GATE_STATUS	= 5,
	GATE_METRICS	= 6,
	GATE_CHECK	= 7,
};

#define GATE_REINT_MAX	(4 << 20)		/* bytes of records in one POST */
#define GATE_BODY_MAX	(GATE_REINT_MAX + 4096)	/* bytes of a request's body */
#define GATE_REPLY_MAX	(16 << 20)
#define GATE_WAIT_MAX	300			/* seconds */

struct gate_head {
	uint32_t	len;		/* of the body */
	uint16_t	type;
	uint16_t	status;
};

struct gate_info {
	uint8_t		fileset_uuid[16];
	uint8_t		replica_uuid[16];
	uint64_t	epoch;
	uint64_t	first_offset;
	uint64_t	end_offset;	/* what the state has: clients may see that much */
	uint64_t	last_recno;	/* before end_offset */
	uint64_t	log_end;	/* what the log has */
	char		name[256];	/* of the replica, NUL-terminated */
};

struct gate_wait {
	uint64_t	after;
	uint64_t	seconds;
};

struct gate_peer {
	uint8_t		uuid[16];
	uint64_t	acked;
	uint64_t	offset;
	uint64_t	recno;
	char		name[128];	/* both NUL-terminated */
	char		address[64];
};

struct gate_reint {
	uint8_t		peer[16];
	uint64_t	base;
};

struct gate_check {
	uint64_t	ino;
	uint64_t	gen;
};

/* The asking end: connections to one gateway, kept for the next request. */
struct gate;

/* NULL: no memory.  path is copied. */
struct gate *gate_new(const char *path);
void gate_free(struct gate *g);

/*
 * One request and its reply.  Returns the reply's HTTP status, or 503 when
 * nobody answers.  *ret_body (free()) is NUL-terminated behind *ret_len bytes.  client_fd:
 * give up with 0 when that socket hangs up; -1: none.  timeout in seconds.
 */
int gate_call(struct gate *g, unsigned int type, const void *head, size_t head_len,
	      const void *body, size_t body_len, int client_fd, unsigned int timeout,
	      void **ret_body, size_t *ret_len);

/* GATE_PEER: one way. */
void gate_tell(struct gate *g, unsigned int type, const void *body, size_t len);

/* GATE_INFO or GATE_WAIT with its fixed reply. */
int gate_info(struct gate *g, const struct gate_wait *wait, int client_fd,
	      struct gate_info *ret);

#endif
