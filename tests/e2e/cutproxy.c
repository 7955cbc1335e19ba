// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * cutproxy: a TCP relay that is as bad as a network can be.  The end-to-end
 * tests put it between client and server.
 *
 *	cutproxy --listen=ADDR:PORT --to=ADDR:PORT [--cut=BYTES] [--cuts=N]
 *		 [--rate=BYTES] [--seed=N]
 *
 * --cut: break a connection after a random number of bytes, at most BYTES,
 * half of them with a reset; --cuts: only the first N connections.  --rate: at
 * most that many bytes a second each way.  Says "ready" when it listens.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static unsigned long cut, cuts = ~0ul, rate;

static struct sockaddr_in address(const char *text)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	char host[64];
	int port;

	if (sscanf(text, "%63[^:]:%d", host, &port) != 2 ||
	    inet_pton(AF_INET, host, &sa.sin_addr) != 1)
		errx(2, "%s: not ADDRESS:PORT", text);
	sa.sin_port = htons(port);
	return sa;
}

static bool send_all(int fd, const char *buf, size_t len)
{
	while (len) {
		ssize_t n = send(fd, buf, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		buf += n;
		len -= n;
	}
	return true;
}

static void break_off(int a, int b)
{
	const struct linger now = { 1, 0 };

	if (rand() & 1) {
		setsockopt(a, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		setsockopt(b, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	}
	close(a);
	close(b);
	_exit(0);
}

/* One read of fd to the other side; false at its end. */
static bool move(int fd, int to, unsigned long *left, int a, int b)
{
	char buf[16384];
	size_t want = sizeof(buf);
	ssize_t n;

	if (rate && want > rate / 20 + 1)
		want = rate / 20 + 1;
	if (want > *left)
		want = *left;
	n = recv(fd, buf, want, 0);
	if (n <= 0)
		return false;
	if (!send_all(to, buf, n))
		break_off(a, b);
	*left -= n;
	if (!*left)
		break_off(a, b);
	if (rate)
		usleep(50000);
	return true;
}

static void __attribute__((noreturn)) relay(int a, int b, unsigned long left)
{
	struct pollfd p[2] = { { a, POLLIN, 0 }, { b, POLLIN, 0 } };
	int open = 2;

	while (open) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		for (int i = 0; i < 2; i++) {
			if (p[i].fd < 0 || !(p[i].revents & (POLLIN | POLLHUP | POLLERR)))
				continue;
			if (!move(p[i].fd, i ? a : b, &left, a, b)) {
				shutdown(i ? a : b, SHUT_WR);
				p[i].fd = -1;
				open--;
			}
		}
	}
	_exit(0);
}

static void serve(int fd, const struct sockaddr_in *to)
{
	unsigned long left = ~0ul;
	int b;

	if (cut && cuts) {
		cuts--;
		left = 1 + (((unsigned long)rand() << 16) ^ rand()) % cut;
	}
	srand(rand());
	if (fork())
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	b = socket(AF_INET, SOCK_STREAM, 0);
	if (b < 0 || connect(b, (const struct sockaddr *)to, sizeof(*to)))
		_exit(0);	/* as if nobody listened */
	relay(fd, b, left);
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "listen", required_argument, NULL, 'l' },
		{ "to", required_argument, NULL, 't' },
		{ "cut", required_argument, NULL, 'c' },
		{ "cuts", required_argument, NULL, 'n' },
		{ "rate", required_argument, NULL, 'r' },
		{ "seed", required_argument, NULL, 's' },
		{ NULL }
	};
	struct sockaddr_in from = { 0 }, to = { 0 };
	unsigned int seed = time(NULL);
	int c, fd, one = 1;

	while ((c = getopt_long(argc, argv, "", opts, NULL)) >= 0) {
		switch (c) {
		case 'l': from = address(optarg); break;
		case 't': to = address(optarg); break;
		case 'c': cut = strtoul(optarg, NULL, 0); break;
		case 'n': cuts = strtoul(optarg, NULL, 0); break;
		case 'r': rate = strtoul(optarg, NULL, 0); break;
		case 's': seed = strtoul(optarg, NULL, 0); break;
		default: return 2;
		}
	}
	if (!from.sin_port || !to.sin_port)
		errx(2, "--listen and --to are needed");
	srand(seed);
	signal(SIGCHLD, SIG_IGN);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (fd < 0 || bind(fd, (struct sockaddr *)&from, sizeof(from)) || listen(fd, 64))
		err(2, "listen");
	puts("ready");
	fflush(stdout);
	for (;;) {
		int s = accept(fd, NULL, NULL);

		if (s < 0)
			continue;
		serve(s, &to);
		close(s);
	}
}
