// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Uploads: made, continued after an interruption, finished, locked, removed;
 * names and offsets that are none.
 */
#include "http.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TRIES 5000	/* 20 ms apart: the end of a hang */

static void put(const char *path, const char *data)
{
	request("PUT", path, data, strlen(data), NULL);
}

/* -1: it is not there */
static long length_of(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "incoming/%s", name);
	request("HEAD", path, "", 0, NULL);
	return a.status == 200 ? atol(header("InterSync-Length")) : a.status == 404 ? -1 : -2;
}

static void length_is(const char *name, long length)
{
	check(length_of(name) == length, "%s has length %ld", name, length);
}

static void whole(void)
{
	length_is("a.1", -1);
	put("incoming/a.1?offset=0", "hello ");
	check(a.status == 204, "an upload");
	length_is("a.1", 6);
	put("incoming/a.1?offset=6", "world");
	length_is("a.1", 11);
	put("incoming/a.1?offset=11&size=100000", "");
	length_is("a.1", 100000);
	request("DELETE", "incoming/a.1", "", 0, NULL);
	check(a.status == 204, "... is removed");
	length_is("a.1", -1);
	request("DELETE", "incoming/a.1", "", 0, NULL);
	check(a.status == 404, "... and cannot be again");
}

static void refused(void)
{
	static const struct {
		const char *path;
		long status;
	} bad[] = {
		{ "incoming/A?offset=0", 400 },
		{ "incoming/a_b?offset=0", 400 },
		{ "incoming/a%0ab?offset=0", 400 },
		{ "incoming/a/b?offset=0", 400 },
		{ "incoming/?offset=0", 404 },
		{ "incoming/x", 400 },
		{ "incoming/x?offset=-1", 400 },
		{ "incoming/x?offset=0&size=y", 400 },
		{ "incoming/x?offset=9223372036854775807", 507 },
		{ "incoming/x?offset=0&size=9223372036854775807", 507 },
	};
	char name[256] = "incoming/";
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		put(bad[i].path, "data");
		check_status(bad[i].status, bad[i].path);
	}
	put("incoming/..%2fkml?offset=0", "data");
	check(a.status == 400 || a.status == 404, "incoming/..%%2fkml: %ld", a.status);
	put("incoming/../kml?offset=0", "data");
	check_status(405, "PUT incoming/../kml");
	memset(name + 9, 'n', 101);
	strcpy(name + 9 + 101, "?offset=0");
	put(name, "x");
	check_status(400, "a name of 101 bytes");
	put("kml", "data");
	check_status(405, "PUT kml");
	request("GET", "incoming/x", NULL, 0, NULL);
	check_status(405, "GET of an upload");
	request("DELETE", "incoming/x", "", 0, NULL);
}

/* Whether it fits is asked before anything is sent; what does not fit leaves nothing. */
static void room(void)
{
	request("HEAD", "incoming/r?need=1000", "", 0, NULL);
	check(a.status == 404, "HEAD of an upload that fits and is not there");
	request("HEAD", "incoming/r?need=x", "", 0, NULL);
	check(a.status == 400, "HEAD with a need that is no number");
	put("incoming/r?offset=0", "data");
	request("HEAD", "incoming/r?need=1000", "", 0, NULL);
	check(a.status == 200, "HEAD of an upload that fits");
	request("HEAD", "incoming/r?need=9000000000000000000", "", 0, NULL);
	check(a.status == 507, "HEAD of an upload that does not fit");
	length_is("r", 4);
	put("incoming/r?offset=4&size=9223372036854775807", "more");
	check_status(507, "an upload that does not fit");
	length_is("r", -1);
}

static int connect_to_server(void)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *ai;
	char host[64], port[16];
	int fd;

	if (sscanf(base_url, "http://%63[^:]:%15[0-9]", host, port) != 2 ||
	    getaddrinfo(host, port, &hints, &ai))
		return -1;
	fd = socket(ai->ai_family, ai->ai_socktype, 0);
	if (fd >= 0 && connect(fd, ai->ai_addr, ai->ai_addrlen)) {
		close(fd);
		fd = -1;
	}
	freeaddrinfo(ai);
	return fd;
}

/* The beginning of an upload of `promised` bytes, of which `sent` are sent. */
static int begin_upload(const char *name, size_t promised, size_t sent)
{
	const char *path = strchr(base_url + 7, '/');
	int fd = connect_to_server();
	char *data = calloc(1, sent);

	dprintf(fd, "PUT %s/incoming/%s?offset=0 HTTP/1.1\r\nHost: x\r\nInterSync-Peer: %s\r\n"
		"Content-Length: %zu\r\n\r\n", path, name, peer_uuid, promised);
	check(fd >= 0 && write(fd, data, sent) == (ssize_t) sent, "half an upload");
	free(data);
	for (int i = 0; i < TRIES && length_of(name) <= 0; i++)
		usleep(20000);
	return fd;
}

static void interrupted(void)
{
	int fd = begin_upload("cut", 1000000, 600000);

	put("incoming/cut?offset=0", "x");
	check_status(409, "an upload that another request writes");
	close(fd);
	/* httpd has yet to see that: then it writes what it had, and lets go */
	for (int i = 0; i < TRIES && length_of("cut") != 600000; i++)
		usleep(20000);
	length_is("cut", 600000);
	for (int i = 0; i < TRIES; i++) {
		put("incoming/cut?offset=600000", "the rest");
		if (a.status != 409)
			break;
		usleep(20000);
	}
	check(a.status == 204, "it goes on where it was cut off");
	length_is("cut", 600008);
	request("DELETE", "incoming/cut", "", 0, NULL);
}

/* Nobody reaches what another peer has uploaded. */
static void owners(void)
{
	char before[37];

	put("incoming/mine?offset=0", "mine");
	strcpy(before, peer_uuid);
	peer_uuid[0] = '2';
	length_is("mine", -1);
	peer_uuid[0] = 0;
	put("incoming/mine?offset=0", "x");
	check_status(400, "an upload by nobody");
	strcpy(peer_uuid, "../../../../../../../../../etc/passw");
	put("incoming/mine?offset=0", "x");
	check_status(400, "an upload by a path");
	strcpy(peer_uuid, before);
	request("DELETE", "incoming/mine", "", 0, NULL);
	check(a.status == 204, "the owner removes it");
}

void test_uploads(void)
{
	whole();
	refused();
	room();
	interrupted();
	owners();
}
