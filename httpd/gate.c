/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The asking end of the gateway to intersync: connections that are kept, one
 * request at a time on each.  Called by mod_intersync's worker threads.
 */
#include "gate.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define IDLE_MAX 32		/* connections that are kept */

struct gate {
	pthread_mutex_t		lock;
	struct sockaddr_un	address;
	int			idle[IDLE_MAX];
	unsigned int		n_idle;
};

struct gate *gate_new(const char *path)
{
	struct gate *g = calloc(1, sizeof(*g));

	if (!g)
		return NULL;
	g->address.sun_family = AF_UNIX;
	if (strlen(path) >= sizeof(g->address.sun_path)) {
		free(g);
		return NULL;
	}
	strcpy(g->address.sun_path, path);
	pthread_mutex_init(&g->lock, NULL);
	return g;
}

void gate_free(struct gate *g)
{
	if (!g)
		return;
	while (g->n_idle)
		close(g->idle[--g->n_idle]);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

static int gate_connect(struct gate *g)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	while (connect(fd, (struct sockaddr *) &g->address, sizeof(g->address))) {
		if (errno == EINTR)
			continue;
		close(fd);
		return -1;
	}
	return fd;
}

/* A kept connection if there is one whose other end still lives. */
static int gate_take(struct gate *g, bool *ret_kept)
{
	int fd = -1;

	pthread_mutex_lock(&g->lock);
	if (g->n_idle)
		fd = g->idle[--g->n_idle];
	pthread_mutex_unlock(&g->lock);
	*ret_kept = fd >= 0;
	return fd >= 0 ? fd : gate_connect(g);
}

static void gate_give(struct gate *g, int fd)
{
	pthread_mutex_lock(&g->lock);
	if (g->n_idle < IDLE_MAX) {
		g->idle[g->n_idle++] = fd;
		fd = -1;
	}
	pthread_mutex_unlock(&g->lock);
	if (fd >= 0)
		close(fd);
}

static int send_all(int fd, struct iovec *iov, int n)
{
	while (n) {
		struct msghdr msg = { .msg_iov = iov, .msg_iovlen = n };
		ssize_t sent = sendmsg(fd, &msg, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return -errno;
		while (n && (size_t) sent >= iov->iov_len) {
			sent -= iov->iov_len;
			iov++;
			n--;
		}
		if (n) {
			iov->iov_base = (char *) iov->iov_base + sent;
			iov->iov_len -= sent;
		}
	}
	return 0;
}

static int send_message(int fd, unsigned int type, const void *head, size_t head_len,
			const void *body, size_t body_len)
{
	struct gate_head h = { .len = head_len + body_len, .type = type };
	struct iovec iov[3] = {
		{ &h, sizeof(h) },
		{ (void *) head, head_len },
		{ (void *) body, body_len },
	};

	return send_all(fd, iov, 3);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* 0: fd has something; -ETIMEDOUT; -ECONNABORTED: the client has gone. */
static int wait_for(int fd, int client_fd, int64_t until)
{
	struct pollfd p[2] = {
		{ .fd = fd, .events = POLLIN },
		{ .fd = client_fd, .events = POLLRDHUP },
	};

	for (;;) {
		int64_t left = until - now_ms();
		int n = left > 0 ? poll(p, 2, left) : 0;

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n < 0)
			continue;
		if (!n)
			return -ETIMEDOUT;
		if (p[0].revents)
			return 0;
		if (p[1].revents)
			return -ECONNABORTED;
	}
}

static int recv_all(int fd, void *buf, size_t len, int client_fd, int64_t until)
{
	char *p = buf;

	while (len) {
		int err = wait_for(fd, client_fd, until);
		ssize_t n;

		if (err)
			return err;
		n = recv(fd, p, len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -EPIPE;
		p += n;
		len -= n;
	}
	return 0;
}

static int recv_reply(int fd, unsigned int type, int client_fd, unsigned int timeout,
		      int *ret_status, void **ret_body, size_t *ret_len)
{
	int64_t until = now_ms() + (int64_t) timeout * 1000;
	struct gate_head h;
	char *body;
	int err;

	err = recv_all(fd, &h, sizeof(h), client_fd, until);
	if (err)
		return err;
	if (h.type != type || h.len > GATE_REPLY_MAX)
		return -EPROTO;
	body = malloc((size_t) h.len + 1);
	if (!body)
		return -ENOMEM;
	err = recv_all(fd, body, h.len, -1, until);
	if (err) {
		free(body);
		return err;
	}
	body[h.len] = 0;
	*ret_status = h.status;
	*ret_body = body;
	*ret_len = h.len;
	return 0;
}

int gate_call(struct gate *g, unsigned int type, const void *head, size_t head_len,
	      const void *body, size_t body_len, int client_fd, unsigned int timeout,
	      void **ret_body, size_t *ret_len)
{
	int status = 503;
	bool kept;
	int err;

	*ret_body = NULL;
	*ret_len = 0;
	do {
		int fd = gate_take(g, &kept);

		if (fd < 0)
			return 503;
		err = send_message(fd, type, head, head_len, body, body_len);
		if (!err)
			err = recv_reply(fd, type, client_fd, timeout, &status,
					 ret_body, ret_len);
		if (!err)
			gate_give(g, fd);
		else
			close(fd);
		/*
		 * A kept connection may be one to an intersync that has ended
		 * since; asking twice does no harm, records are known by number.
		 */
	} while (kept && (err == -EPIPE || err == -ECONNRESET));
	if (err == -ECONNABORTED)
		return 0;
	return err ? 503 : status;
}

void gate_tell(struct gate *g, unsigned int type, const void *body, size_t len)
{
	bool kept;
	int fd = gate_take(g, &kept);

	if (fd < 0)
		return;
	if (send_message(fd, type, body, len, NULL, 0))
		close(fd);
	else
		gate_give(g, fd);
}

int gate_info(struct gate *g, const struct gate_wait *wait, int client_fd,
	      struct gate_info *ret)
{
	unsigned int timeout = 30 + (wait ? wait->seconds : 0);
	void *body;
	size_t len;
	int status;

	status = gate_call(g, wait ? GATE_WAIT : GATE_INFO, wait, wait ? sizeof(*wait) : 0,
			   NULL, 0, client_fd, timeout, &body, &len);
	if (status == 200 && len == sizeof(*ret))
		memcpy(ret, body, sizeof(*ret));
	else if (status == 200)
		status = 503;
	free(body);
	return status;
}
