// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Addresses that people type: HOST, HOST:PORT, [V6]:PORT; and whether they
 * lead to another machine, where plain HTTP is not allowed unasked.
 */
#include "daemon.h"

#include <netdb.h>
#include <string.h>

char *isd_address_host(const char *address, guint *ret_port)
{
	const char *colon = strrchr(address, ':');
	const char *close = strrchr(address, ']');
	gboolean bracket = address[0] == '[' && close;
	const char *port = NULL;

	if (bracket && close[1] == ':')
		port = close + 2;
	else if (!bracket && colon && strchr(address, ':') == colon)
		port = colon + 1;
	if (port) {
		guint64 n;

		if (!g_ascii_string_to_unsigned(port, 10, 1, 65535, &n, NULL))
			return NULL;
		*ret_port = n;
	}
	if (bracket)
		return g_strndup(address + 1, close - address - 1);
	return port ? g_strndup(address, colon - address) : g_strdup(address);
}

static gboolean is_loopback(const struct addrinfo *a)
{
	g_autoptr(GSocketAddress) s = g_socket_address_new_from_native(a->ai_addr, a->ai_addrlen);
	GInetAddress *inet;

	if (!G_IS_INET_SOCKET_ADDRESS(s))
		return FALSE;
	inet = g_inet_socket_address_get_address(G_INET_SOCKET_ADDRESS(s));
	return g_inet_address_get_is_loopback(inet);
}

/* A name that cannot be resolved now is not known to be this machine. */
gboolean isd_address_is_loopback(const char *host)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list;
	gboolean all = TRUE;

	if (getaddrinfo(host, NULL, &hints, &list) != 0)
		return FALSE;
	for (struct addrinfo *a = list; a; a = a->ai_next)
		all = all && is_loopback(a);
	freeaddrinfo(list);
	return all;
}
