// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The daemon's end of the channel (doc/channel.md): one message per read or
 * write, on the module's character device or the FUSE file system's socket.
 */
#include <config.h>

#include "chan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "byteorder.h"

#define SIZE_IS(type, size) \
	_Static_assert(sizeof(type) == (size), "size of " #type)

SIZE_IS(struct izo_msg, 24);
SIZE_IS(struct izo_pos, 16);
SIZE_IS(struct izo_info, 168);
SIZE_IS(struct izo_reint, 40);
SIZE_IS(struct izo_guard, 32);
SIZE_IS(struct izo_reint_entry, 72);
SIZE_IS(struct izo_reint_result, 48);

#define MAX_FDS	4	/* that a message may bring; all but one are closed */

/* Where dir's channel is; a terminated path. */
static int channel_path(const char *dir, char *path, size_t size)
{
	ssize_t n = getxattr(dir, IZO_XATTR_CHANNEL, path, size - 1);

	if (n < 0 && (errno == ENODATA || errno == EOPNOTSUPP))
		return -ENOTTY;
	if (n < 0)
		return -errno;
	if (n == 0 || path[0] != '/' || memchr(path, 0, n))
		return -ENOTTY;
	path[n] = 0;
	return 0;
}

/* A path that is not there any more belonged to a file system that is gone. */
static int gone(int err)
{
	return err == ENOENT || err == ENXIO || err == ENODEV ? -ECONNREFUSED : -err;
}

static int open_device(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	return fd < 0 ? gone(errno) : fd;
}

/*
 * A socket's send buffer must hold a whole message; beyond the system's usual
 * limit root may force it.
 */
static void grow_buffer(int fd)
{
	int size = 2 * IZO_MSG_MAX;

	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) != 0)
		(void) setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

/* A busy socket accepts and closes: only an answer tells that it is ours. */
static int check_ours(int fd)
{
	struct izo_info info;
	ssize_t n = chan_call(fd, IZO_MSG_INFO, 0, NULL, 0, &info, sizeof(info), NULL);

	if (n == -ECONNRESET || n == -EPIPE)
		return -EBUSY;
	return n < 0 ? n : 0;
}

static int open_socket(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd, err;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	grow_buffer(fd);
	if (connect(fd, (struct sockaddr *) &addr, sizeof(addr)) != 0)
		err = gone(errno);
	else
		err = check_ours(fd);
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

int chan_open(const char *dir)
{
	char path[4096];
	struct stat st;
	int err;

	err = channel_path(dir, path, sizeof(path));
	if (err)
		return err;
	if (stat(path, &st) != 0)
		return gone(errno);
	if (S_ISSOCK(st.st_mode))
		return open_socket(path);
	if (S_ISCHR(st.st_mode))
		return open_device(path);
	return -ENOTTY;
}

static ssize_t send_once(int fd, struct iovec *iov, int n)
{
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = n };
	ssize_t sent;

	do {
		sent = sendmsg(fd, &mh, MSG_NOSIGNAL);
		if (sent < 0 && errno == ENOTSOCK)
			sent = writev(fd, iov, n);
	} while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : sent;
}

int chan_send(int fd, unsigned int type, unsigned int flags, uint64_t id,
	      const void *body, size_t body_len)
{
	struct izo_msg msg = {
		.len = cpu_to_le32(sizeof(msg) + body_len),
		.type = cpu_to_le16(type),
		.flags = cpu_to_le16(flags),
		.id = cpu_to_le64(id),
	};
	struct iovec iov[2] = {
		{ &msg, sizeof(msg) },
		{ (void *) body, body_len },
	};
	ssize_t n;

	if (body_len > IZO_MSG_MAX - sizeof(msg))
		return -EMSGSIZE;
	n = send_once(fd, iov, body_len ? 2 : 1);
	if (n < 0)
		return n;
	return (size_t) n == sizeof(msg) + body_len ? 0 : -EIO;
}

/* The first descriptor that came with a message; the others are closed. */
static int take_fd(struct msghdr *mh)
{
	struct cmsghdr *c;
	int fd = -1;

	for (c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
		size_t i, n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		int fds[MAX_FDS];

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || n > MAX_FDS)
			continue;
		memcpy(fds, CMSG_DATA(c), n * sizeof(int));
		for (i = 0; i < n; i++) {
			if (fd < 0)
				fd = fds[i];
			else
				close(fds[i]);
		}
	}
	return fd;
}

static ssize_t recv_once(int fd, void *buf, size_t size, int *ret_fd, bool *ret_cut)
{
	union {
		char		room[CMSG_SPACE(MAX_FDS * sizeof(int))];
		struct cmsghdr	align;
	} control;
	struct iovec iov = { buf, size };
	struct msghdr mh = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n;

	*ret_fd = -1;
	*ret_cut = false;
	n = recvmsg(fd, &mh, MSG_CMSG_CLOEXEC);
	if (n < 0 && errno == ENOTSOCK) {
		n = read(fd, buf, size);
		mh.msg_controllen = 0;
	}
	if (n < 0)
		return -errno;
	*ret_fd = take_fd(&mh);
	*ret_cut = mh.msg_flags & MSG_TRUNC;
	return n;
}

ssize_t chan_recv(int fd, void *buf, size_t size, int *ret_fd)
{
	struct izo_msg msg;
	bool cut;
	ssize_t n;

	do {
		n = recv_once(fd, buf, size, ret_fd, &cut);
	} while (n == -EINTR);
	if (n <= 0)
		return n;
	if ((size_t) n >= sizeof(msg)) {
		memcpy(&msg, buf, sizeof(msg));
		if (!cut && le32_to_cpu(msg.len) == (size_t) n)
			return n;
	}
	if (*ret_fd >= 0)
		close(*ret_fd);
	*ret_fd = -1;
	return cut ? -EMSGSIZE : -EBADMSG;
}

/* Check that buf holds the reply to a request; the length of its body. */
static ssize_t check_reply(const void *buf, ssize_t n, unsigned int type, uint64_t id)
{
	struct izo_msg msg;
	uint32_t error;

	if (n == 0)
		return -ECONNRESET;
	if (n < 0)
		return n;
	memcpy(&msg, buf, sizeof(msg));
	if (le16_to_cpu(msg.type) != type || le64_to_cpu(msg.id) != id)
		return -EBADMSG;
	error = le32_to_cpu(msg.error);
	if (error > 4095)
		return -EBADMSG;
	return error ? -(ssize_t) error : n - (ssize_t) sizeof(msg);
}

ssize_t chan_call(int fd, unsigned int type, unsigned int flags,
		  const void *body, size_t body_len,
		  void *ret_body, size_t size, int *ret_fd)
{
	static atomic_uint_fast64_t last_id;
	uint64_t id = atomic_fetch_add(&last_id, 1) + 1;
	char *buf = malloc(sizeof(struct izo_msg) + size);
	int got_fd = -1;
	ssize_t n;

	if (!buf)
		return -ENOMEM;
	n = chan_send(fd, type, flags, id, body, body_len);
	if (n < 0)
		goto out;
	n = chan_recv(fd, buf, sizeof(struct izo_msg) + size, &got_fd);
	n = check_reply(buf, n, type, id);
	if (n > 0)
		memcpy(ret_body, buf + sizeof(struct izo_msg), n);
	if (n >= 0 && ret_fd)
		*ret_fd = got_fd;
	else if (got_fd >= 0)
		close(got_fd);
out:
	free(buf);
	return n;
}
