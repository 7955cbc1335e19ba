// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * httptest URL DIR CONTROL: the resources of a running server, asked as a client
 * asks, and compared with the fileset mounted at DIR; CONTROL is the daemon's
 * socket for izoctl.  Started by tests/http/run.
 */
#include "http.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "util.h"

struct answer a;
const char *mount_dir, *base_url;
char peer_uuid[37] = "11111111-2222-4333-8444-555555555555";
uint64_t position_offset, position_recno, acked;

static CURL *curl;
static const char *control;
static int tests, failed;

void check(bool good, const char *format, ...)
{
	va_list ap;

	tests++;
	failed += !good;
	printf("%sok %d - ", good ? "" : "not ", tests);
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	putchar('\n');
	if (!good)
		printf("# status %ld, %zu bytes: %.200s\n", a.status, a.len,
		       a.body && a.status >= 400 ? a.body : "");
	fflush(stdout);
}

void check_status(long status, const char *what)
{
	bool json = status < 400 || (a.body && !strncmp(a.body, "{\"error\": \"", 11));

	check(a.status == status && json, "%s: %ld", what, status);
}

static size_t take_body(char *data, size_t size, size_t n, void *unused)
{
	char *bigger = realloc(a.body, a.len + size * n + 1);

	if (!bigger)
		return 0;
	a.body = bigger;
	memcpy(a.body + a.len, data, size * n);
	a.len += size * n;
	a.body[a.len] = 0;
	return size * n;
}

static size_t take_header(char *data, size_t size, size_t n, void *unused)
{
	size_t have = strlen(a.headers);

	if (have + size * n < sizeof(a.headers)) {
		memcpy(a.headers + have, data, size * n);
		a.headers[have + size * n] = 0;
	}
	return size * n;
}

const char *header(const char *name)
{
	static char value[512];
	size_t len = strlen(name);
	const char *p;

	value[0] = 0;
	for (p = a.headers; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
		if (!strncasecmp(p, name, len) && p[len] == ':')
			sscanf(p + len + 1, " %511[^\r\n]", value);
	return value;
}

static struct curl_slist *add_header(struct curl_slist *list, const char *format, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	return curl_slist_append(list, line);
}

static struct curl_slist *client_headers(const char *more)
{
	struct curl_slist *list = NULL;

	if (*peer_uuid)
		list = add_header(list, "InterSync-Peer: %s", peer_uuid);
	list = add_header(list, "InterSync-Name: tester");
	list = add_header(list, "InterSync-Acked: %llu", (unsigned long long) acked);
	list = add_header(list, "InterSync-Position: %llu %llu",
			  (unsigned long long) position_offset,
			  (unsigned long long) position_recno);
	list = add_header(list, "Content-Type:");
	list = add_header(list, "Expect:");
	return more ? curl_slist_append(list, more) : list;
}

void request(const char *method, const char *path, const void *body, size_t len, const char *more)
{
	struct curl_slist *list = client_headers(more);
	char url[4096];
	CURLcode rc;

	snprintf(url, sizeof(url), "%s/%s", base_url, path);
	free(a.body);
	memset(&a, 0, sizeof(a));
	curl_easy_reset(curl);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, list);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT, 600L);
	if (body || strcmp(method, "GET")) {
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body ? body : "");
		curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) len);
	}
	curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
	if (!strcmp(method, "HEAD"))
		curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, take_header);
	rc = curl_easy_perform(curl);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &a.status);
	a.whole = rc == CURLE_OK;
	curl_slist_free_all(list);
}

void get(const char *format, ...)
{
	char path[4096];
	va_list ap;

	va_start(ap, format);
	vsnprintf(path, sizeof(path), format, ap);
	va_end(ap);
	request("GET", path, NULL, 0, NULL);
}

char *in_mount(const char *name)
{
	static char paths[4][4096];
	static int turn;
	char *path = paths[turn++ & 3];

	snprintf(path, sizeof(paths[0]), "%s/%s", mount_dir, name);
	return path;
}

void put_file(const char *name, const void *data, size_t len)
{
	int fd = open(in_mount(name), O_WRONLY | O_CREAT | O_TRUNC, 0644);

	if (fd < 0 || pwrite_all(fd, data, len, 0) || close(fd))
		printf("Bail out! %s: %s\n", in_mount(name), strerror(errno));
}

long read_file(const char *name, void *buf, size_t size)
{
	int fd = open(in_mount(name), O_RDONLY);
	long n = fd < 0 ? -1 : read(fd, buf, size);

	if (fd >= 0)
		close(fd);
	return n;
}

/*
 * As the server calls it: found through the log or the catalog, since the mount may number inodes
 * as it likes.
 */
static void find_oid(const char *body, size_t len, const char *name, struct kml_oid *ret,
		     uint64_t *ret_version)
{
	struct kml_record r;
	size_t pos = 0;

	while (pos < len) {
		ssize_t n = kml_decode(body + pos, len - pos, &r);

		if (n <= 0)
			break;
		pos += n;
		if (r.opcode == KML_CREATE || r.opcode == KML_MKDIR || r.opcode == KML_SYMLINK ||
		    r.opcode == KML_MKNOD) {
			if (!name ? r.name.ptr != NULL : !r.name.ptr || r.name.len != strlen(name) ||
			    memcmp(r.name.ptr, name, r.name.len))
				continue;
			*ret = r.obj;
			*ret_version = r.version_content;
		}
	}
}

/* The last part of the name has to be unique in the fileset. */
static void ask_catalog(const char *name, struct kml_oid *ret, uint64_t *ret_version)
{
	const char *slash = strrchr(name, '/');

	memset(ret, 0, sizeof(*ret));
	*ret_version = 0;
	catch_up();
	get("catalog");
	find_oid(a.body, a.len, !*name ? NULL : slash ? slash + 1 : name, ret, ret_version);
}

struct kml_oid oid_of(const char *name)
{
	struct kml_oid oid;
	uint64_t version;

	ask_catalog(name, &oid, &version);
	return oid;
}

uint64_t version_of(const char *name)
{
	struct kml_oid oid;
	uint64_t version;

	ask_catalog(name, &oid, &version);
	return version;
}

/* Records in the last answer; the number of the last one. */
static uint64_t last_recno(void)
{
	struct kml_record r = { 0 };
	size_t pos = 0;

	while (pos < a.len) {
		ssize_t n = kml_decode(a.body + pos, a.len - pos, &r);

		if (n <= 0)
			return 0;
		pos += n;
	}
	return r.recno;
}

/*
 * SYNC of the channel, which the daemon has: asked as izoctl does, but by this
 * process, since a child that ends is to the file system as if the test had closed its files.
 */
void settle(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char reply[512] = "";

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", control);
	if (connect(fd, (struct sockaddr *) &sa, sizeof(sa)) ||
	    dprintf(fd, "{\"cmd\": \"sync\"}\n") < 0 ||
	    read(fd, reply, sizeof(reply) - 1) <= 0 || !strstr(reply, "true")) {
		printf("Bail out! %s: sync: %s %s\n", control, strerror(errno), reply);
		exit(1);
	}
	close(fd);
}

void catch_up(void)
{
	settle();
	for (;;) {
		get("kml?after=%llu", (unsigned long long) position_offset);
		if (a.status != 200)
			return;
		position_recno = last_recno();
		position_offset += a.len;
	}
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: httptest URL DIR CONTROL\n");
		return 2;
	}
	base_url = argv[1];
	mount_dir = argv[2];
	control = argv[3];
	curl = curl_easy_init();
	if (!curl)
		return 1;
	test_reading();
	test_uploads();
	test_reint();
	curl_easy_cleanup(curl);
	free(a.body);
	printf("1..%d\n", tests);
	return failed ? 1 : 0;
}
