// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * chan.c, against a peer that a thread of this test plays.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "byteorder.h"
#include "chan.h"
#include "tap.h"

static char big[IZO_MSG_MAX];

static void make_pair(int fds[2])
{
	int size = 4 * IZO_MSG_MAX;

	need(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0, "no sockets");
	setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

static void send_and_receive(void)
{
	static char buf[IZO_MSG_MAX];
	struct izo_msg *msg = (void *) buf;
	int fds[2], fd = 77;
	ssize_t n;

	make_pair(fds);
	ok(chan_send(fds[0], IZO_MSG_SYNC, 3, 1ULL << 50, "body", 4) == 0, "sent");
	n = chan_recv(fds[1], buf, sizeof(buf), &fd);
	ok(n == sizeof(*msg) + 4 && le32_to_cpu(msg->len) == n && fd == -1 &&
	   le16_to_cpu(msg->type) == IZO_MSG_SYNC && le16_to_cpu(msg->flags) == 3 &&
	   le64_to_cpu(msg->id) == 1ULL << 50 && !memcmp(msg + 1, "body", 4), "received");
	ok(chan_send(fds[0], 1, 0, 1, big, sizeof(big) - sizeof(*msg) + 1) == -EMSGSIZE,
	   "a message has its limit");
	ok(chan_send(fds[0], 1, 0, 1, big, 100000) == 0 &&
	   chan_recv(fds[1], buf, 1000, &fd) == -EMSGSIZE, "a buffer that is too small");
	need(send(fds[0], "short", 5, 0) == 5, "cannot send");
	ok(chan_recv(fds[1], buf, sizeof(buf), &fd) == -EBADMSG, "a message without its head");
	msg->len = cpu_to_le32(100);
	need(send(fds[0], buf, sizeof(*msg), 0) == sizeof(*msg), "cannot send");
	ok(chan_recv(fds[1], buf, sizeof(buf), &fd) == -EBADMSG, "a length that is wrong");
	fcntl(fds[1], F_SETFL, O_NONBLOCK);
	ok(chan_recv(fds[1], buf, sizeof(buf), &fd) == -EAGAIN, "nothing there");
	close(fds[0]);
	ok(chan_recv(fds[1], buf, sizeof(buf), &fd) == 0, "the end");
	ok(chan_send(fds[1], 1, 0, 1, NULL, 0) == -EPIPE, "no signal, an error");
	close(fds[1]);
}

static void full(void)
{
	int fds[2], sent = 0, rc;

	make_pair(fds);
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	while ((rc = chan_send(fds[0], 1, 0, sent, big, 4096)) == 0 && sent < 100000)
		sent++;
	ok(rc == -EAGAIN && sent > 0, "full after %d messages", sent);
	close(fds[0]);
	close(fds[1]);
}

/* The peer: answers one request, as how says. */
struct peer {
	int		fd;
	enum { GOOD, ERROR, OTHER_ID, SILENT, LONG } how;
	bool		with_fd;
	pthread_t	thread;
};

static void answer(const struct peer *p, const struct izo_msg *request)
{
	struct {
		struct izo_msg	msg;
		char		body[200];
	} reply = { .msg = *request };
	union {
		char		room[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr	c;
	} control = { .c = { CMSG_LEN(2 * sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
	size_t len = sizeof(reply.msg) + (p->how == LONG ? 200 : 8);
	struct iovec iov = { &reply, len };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	int fds[2] = { STDIN_FILENO, STDOUT_FILENO };

	reply.msg.len = cpu_to_le32(len);
	if (p->how == ERROR)
		reply.msg.error = cpu_to_le32(ENOSPC);
	if (p->how == OTHER_ID)
		reply.msg.id ^= cpu_to_le64(1);
	memcpy(reply.body, "answered", 8);
	if (p->with_fd) {
		memcpy(CMSG_DATA(&control.c), fds, sizeof(fds));
		mh.msg_control = &control;
		mh.msg_controllen = sizeof(control);
	}
	need(sendmsg(p->fd, &mh, MSG_NOSIGNAL) == (ssize_t) len, "the peer cannot answer");
}

static void *peer_main(void *arg)
{
	struct peer *p = arg;
	static char buf[IZO_MSG_MAX];
	int fd;

	if (chan_recv(p->fd, buf, sizeof(buf), &fd) > 0 && p->how != SILENT)
		answer(p, (void *) buf);
	close(p->fd);
	return NULL;
}

static ssize_t call(int how, bool with_fd, void *body, size_t size, int *ret_fd)
{
	struct peer p = { .how = how, .with_fd = with_fd };
	int fds[2];
	ssize_t n;

	make_pair(fds);
	p.fd = fds[1];
	need(pthread_create(&p.thread, NULL, peer_main, &p) == 0, "no thread");
	n = chan_call(fds[0], IZO_MSG_INFO, 0, "x", 1, body, size, ret_fd);
	pthread_join(p.thread, NULL);
	close(fds[0]);
	return n;
}

static int open_files(void)
{
	int fd, n = 0;

	for (fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void calls(void)
{
	int before = open_files(), fd = 99;
	char body[8];

	ok(call(GOOD, false, body, 8, &fd) == 8 && !memcmp(body, "answered", 8) && fd == -1,
	   "a call");
	ok(call(GOOD, true, body, 8, &fd) == 8 && fd >= 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC),
	   "with a descriptor");
	close(fd);
	ok(call(GOOD, true, body, 8, NULL) == 8, "that nobody wants");
	ok(call(ERROR, true, body, 8, &fd) == -ENOSPC, "the peer's error");
	ok(call(OTHER_ID, false, body, 8, &fd) == -EBADMSG, "somebody else's answer");
	ok(call(SILENT, false, body, 8, &fd) == -ECONNRESET, "a peer that goes away");
	ok(call(LONG, true, body, 8, &fd) == -EMSGSIZE, "more than there is room for");
	ok(open_files() == before, "no descriptor is left open");
}

/* chan_open() while a child accepts once and answers as how says. */
static int open_against(const char *dir, int s, int how)
{
	struct peer p = { .how = how };
	pid_t child = fork();
	int fd, status;

	need(child >= 0, "cannot fork");
	if (child == 0) {
		p.fd = accept(s, NULL, NULL);
		peer_main(&p);
		_exit(0);
	}
	fd = chan_open(dir);
	waitpid(child, &status, 0);
	return fd;
}

static void find_channel(void)
{
	char dir[] = "/tmp/chan-test-XXXXXX";
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd, s;

	need(mkdtemp(dir) != NULL, "no directory");
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/channel", dir);
	ok(chan_open(dir) == -ENOTTY, "no fileset");
	if (setxattr(dir, IZO_XATTR_CHANNEL, addr.sun_path, strlen(addr.sun_path), 0) != 0) {
		printf("# trusted attributes cannot be set here: %s\n", strerror(errno));
		ok(true, "finding a channel # SKIP needs root");
		rmdir(dir);
		return;
	}
	ok(chan_open(dir) == -ECONNREFUSED, "a file system that is gone");
	s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	need(bind(s, (void *) &addr, sizeof(addr)) == 0, "cannot bind");
	ok(chan_open(dir) == -ECONNREFUSED, "nobody listens");
	need(listen(s, 5) == 0, "cannot listen");
	ok(open_against(dir, s, SILENT) == -EBUSY, "another daemon has it");
	ok(open_against(dir, s, ERROR) == -ENOSPC, "it answers with an error");
	fd = open_against(dir, s, GOOD);
	ok(fd >= 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC), "it is opened");
	close(fd);
	close(s);
	unlink(addr.sun_path);
	rmdir(dir);
}

int main(void)
{
	send_and_receive();
	full();
	calls();
	find_channel();
	return tap_done();
}
