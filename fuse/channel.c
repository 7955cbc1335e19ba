// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The channel to intersync (doc/channel.md): a SOCK_SEQPACKET socket below
 * /run/intermezzo, served by one thread.  That thread is also the one that
 * applies REINT batches and tells the kernel what changed.
 */
#include <config.h>

#include "fs.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/un.h>
#include <unistd.h>

#include "byteorder.h"

#define RUN_DIR		"/run/intermezzo"
#define MINORS		65536
#define SOCKET_BUF	(4 << 20)

static int listener = -1, lock_fd = -1, event_fd = -1;
static int conn = -1;
static pthread_t thread;
static bool started;
static char *request;

/* The GROWN request that waits, if one does. */
static struct {
	_Atomic bool	waiting;
	uint64_t	id, offset;
} grown;

/* Finding a number */

/* A lock, so that the socket of one who died can be told from one in use. */
static int lock_minor(unsigned int n)
{
	char path[64];
	int fd, err;

	snprintf(path, sizeof(path), RUN_DIR "/%u", n);
	if (mkdir(path, 0755) != 0 && errno != EEXIST)
		return -errno;
	snprintf(path, sizeof(path), RUN_DIR "/%u/lock", n);
	fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		err = errno == EWOULDBLOCK ? -EBUSY : -errno;
		close(fd);
		return err;
	}
	fs.minor = n;
	lock_fd = fd;
	return 0;
}

static int choose_minor(void)
{
	unsigned int n;
	int err = -EBUSY;

	if (mkdir(RUN_DIR, 0755) != 0 && errno != EEXIST)
		return -errno;
	if (fs.opt.minor >= 0)
		return lock_minor(fs.opt.minor);
	for (n = 0; n < MINORS && err == -EBUSY; n++)
		err = lock_minor(n);
	return err;
}

static int bind_socket(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	snprintf(fs.channel_path, sizeof(fs.channel_path), RUN_DIR "/%u/channel", fs.minor);
	strcpy(addr.sun_path, fs.channel_path);
	if (unlink(fs.channel_path) != 0 && errno != ENOENT)
		return -errno;
	listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (listener < 0)
		return -errno;
	/* nobody can connect before listen() */
	if (bind(listener, (struct sockaddr *) &addr, sizeof(addr)) != 0 ||
	    chmod(fs.channel_path, 0600) != 0 || listen(listener, 8) != 0)
		return -errno;
	return 0;
}

int channel_listen(void)
{
	int err = choose_minor();

	if (err) {
		if (fs.opt.minor >= 0)
			complain("%s: channel %d: %s", fs.opt.source, fs.opt.minor,
				 err == -EBUSY ? "in use by another mounted fileset" :
						 strerror(-err));
		else
			complain("%s: " RUN_DIR ": %s", fs.opt.source, strerror(-err));
		return err;
	}
	err = bind_socket();
	if (err)
		complain("%s: %s", fs.channel_path, strerror(-err));
	return err;
}

/* Answers */

static void disconnect(void)
{
	if (conn >= 0)
		close(conn);
	conn = -1;
	grown.waiting = false;
}

/*
 * A daemon that does not take its answers is not waited for: it may come
 * again.
 */
static void send_with_fd(const struct izo_msg *req, int error, const void *body, size_t len,
			 int fd)
{
	struct izo_msg msg = {
		.len = cpu_to_le32(sizeof(msg) + len),
		.type = req->type,
		.id = req->id,
		.error = cpu_to_le32(error),
	};
	struct iovec iov[2] = { { &msg, sizeof(msg) }, { (void *) body, len } };
	union {
		char		room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr	align;
	} control = { { 0 } };
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = len ? 2 : 1 };
	struct cmsghdr *c;

	if (fd >= 0) {
		mh.msg_control = &control;
		mh.msg_controllen = sizeof(control);
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	if (sendmsg(conn, &mh, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		disconnect();
}

static void answer(const struct izo_msg *req, int error, const void *body, size_t len)
{
	send_with_fd(req, error, body, len, -1);
}

static void answer_pos(const struct izo_msg *req)
{
	uint64_t offset, recno;
	struct izo_pos pos;

	journal_end(&offset, &recno);
	pos.offset = cpu_to_le64(offset);
	pos.recno = cpu_to_le64(recno);
	answer(req, 0, &pos, sizeof(pos));
}

/* Requests */

static void lower_type(char buf[16])
{
	static const struct {
		uint32_t	magic;
		const char	*name;
	} types[] = {
		{ 0xef53, "ext4" }, { 0x58465342, "xfs" }, { 0x9123683e, "btrfs" },
		{ 0x01021994, "tmpfs" }, { 0x794c7630, "overlay" }, { 0xf2f52010, "f2fs" },
		{ 0x6969, "nfs" }, { 0x2fc12fc1, "zfs" }, { 0x00c36400, "ceph" },
		{ 0x65735546, "fuse" }, { 0xca451a4e, "bcachefs" },
	};
	struct statfs st;
	size_t k;

	memset(buf, 0, 16);
	if (fstatfs(fs.mount_fd, &st) != 0)
		return;
	snprintf(buf, 16, "0x%x", (unsigned int) st.f_type);
	for (k = 0; k < sizeof(types) / sizeof(types[0]); k++)
		if (types[k].magic == (uint32_t) st.f_type)
			snprintf(buf, 16, "%s", types[k].name);
}

static void do_info(const struct izo_msg *req)
{
	struct izo_info info = {
		.version = cpu_to_le32(IZO_CHANNEL_VERSION),
		.flags = cpu_to_le32(IZO_INFO_F_FUSE),
		.epoch = cpu_to_le64(fs.log.epoch),
		.first_offset = cpu_to_le64(fs.log.first_offset),
		.root_ino = cpu_to_le64(root_inode->ino),
		.root_gen = cpu_to_le32(root_inode->gen),
		.minor = cpu_to_le32(fs.minor),
	};
	uint64_t offset, recno;

	journal_end(&offset, &recno);
	info.end_offset = cpu_to_le64(offset);
	info.last_recno = cpu_to_le64(recno);
	memcpy(info.fileset_uuid, fs.log.fileset_uuid, 16);
	memcpy(info.replica_uuid, fs.log.replica_uuid, 16);
	strncpy((char *) info.fileset, fs.opt.fileset, sizeof(info.fileset) - 1);
	lower_type((char *) info.cache_type);
	send_with_fd(req, 0, &info, sizeof(info), fs.mount_fd);
}

static void check_grown(void)
{
	struct izo_msg msg = { .type = cpu_to_le16(IZO_MSG_GROWN) };
	uint64_t offset, recno;

	if (!grown.waiting)
		return;
	journal_end(&offset, &recno);
	if (offset <= grown.offset)
		return;
	grown.waiting = false;
	msg.id = cpu_to_le64(grown.id);
	answer_pos(&msg);
}

static void do_grown(const struct izo_msg *req, const struct izo_pos *pos)
{
	struct izo_msg old = { .type = cpu_to_le16(IZO_MSG_GROWN) };

	if (grown.waiting) {
		old.id = cpu_to_le64(grown.id);
		answer(&old, ECANCELED, NULL, 0);
	}
	grown.id = le64_to_cpu(req->id);
	grown.offset = le64_to_cpu(pos->offset);
	grown.waiting = true;
	check_grown();
}

static void do_sync(const struct izo_msg *req)
{
	int err = 0;

	session_log_all(false);
	journal_drain();
	if (le16_to_cpu(req->flags) & IZO_MSG_F_DURABLE) {
		err = journal_sync_kml();
		if (!err && syncfs(fs.mount_fd) != 0)
			err = -errno;
	}
	if (err)
		answer(req, -err, NULL, 0);
	else
		answer_pos(req);
}

static void do_punch(const struct izo_msg *req, const struct izo_pos *pos)
{
	const uint64_t offset = le64_to_cpu(pos->offset);
	int err = journal_punch(offset, le64_to_cpu(pos->recno));

	if (!err)
		fs.log.first_offset = offset;
	if (err)
		answer(req, -err, NULL, 0);
	else
		answer_pos(req);
}

static void do_reint(const struct izo_msg *req, const void *body, size_t len)
{
	size_t reply_len;
	void *reply;
	int err;

	err = reint_apply(body, len, &reply, &reply_len);
	if (err) {
		answer(req, -err, NULL, 0);
		return;
	}
	answer(req, 0, reply, reply_len);
	free(reply);
}

static void dispatch(const struct izo_msg *req, const void *body, size_t len)
{
	switch (le16_to_cpu(req->type)) {
	case IZO_MSG_INFO:
		if (len == 0) {
			do_info(req);
			return;
		}
		break;
	case IZO_MSG_GROWN:
		if (len == sizeof(struct izo_pos)) {
			do_grown(req, body);
			return;
		}
		break;
	case IZO_MSG_SYNC:
		if (len == 0) {
			do_sync(req);
			return;
		}
		break;
	case IZO_MSG_PUNCH:
		if (len == sizeof(struct izo_pos)) {
			do_punch(req, body);
			return;
		}
		break;
	case IZO_MSG_REINT:
		do_reint(req, body, len);
		return;
	default:
		answer(req, EOPNOTSUPP, NULL, 0);
		return;
	}
	answer(req, EINVAL, NULL, 0);
}

static void receive(void)
{
	struct iovec iov = { request, IZO_MSG_MAX };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct izo_msg req = { 0 };
	ssize_t n;

	n = recvmsg(conn, &mh, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		disconnect();
		return;
	}
	memcpy(&req, request, (size_t) n < sizeof(req) ? (size_t) n : sizeof(req));
	if ((size_t) n < sizeof(req) || mh.msg_flags & MSG_TRUNC ||
	    le32_to_cpu(req.len) != (size_t) n) {
		answer(&req, EINVAL, NULL, 0);
		return;
	}
	dispatch(&req, request + sizeof(req), n - sizeof(req));
}

/* Connections */

static bool is_root(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.uid == 0;
}

/* One daemon at a time; for another one the line is engaged. */
static void take_connection(void)
{
	const int size = SOCKET_BUF;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	if (conn >= 0 || !is_root(fd)) {
		close(fd);
		return;
	}
	(void) setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	(void) setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	conn = fd;
}

static void wake(void)
{
	const uint64_t one = 1;

	if (write(event_fd, &one, sizeof(one)) < 0)
		return;		/* it is awake already */
}

/* Called by the journal's worker. */
static void log_grew(void)
{
	if (grown.waiting)
		wake();
}

static void *channel(void *arg)
{
	struct pollfd p[3];
	uint64_t count;

	(void) worker_init();
	while (!fs.stopping) {
		p[0] = (struct pollfd) { event_fd, POLLIN, 0 };
		p[1] = (struct pollfd) { listener, POLLIN, 0 };
		p[2] = (struct pollfd) { conn, POLLIN, 0 };
		if (poll(p, 3, -1) < 0 && errno != EINTR)
			break;
		if (p[0].revents && read(event_fd, &count, sizeof(count)) > 0)
			check_grown();
		/* first the old connection: it may be gone */
		if (conn >= 0 && p[2].revents)
			receive();
		if (p[1].revents)
			take_connection();
	}
	disconnect();
	return NULL;
}

int channel_start(void)
{
	int err;

	request = malloc(IZO_MSG_MAX);
	event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!request || event_fd < 0)
		return request ? -errno : -ENOMEM;
	journal_grown = log_grew;
	err = pthread_create(&thread, NULL, channel, NULL);
	started = !err;
	return -err;
}

void channel_stop(void)
{
	if (!started)
		return;
	wake();
	pthread_join(thread, NULL);
	unlink(fs.channel_path);
}
