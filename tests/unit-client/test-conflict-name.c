// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The names of conflict copies: extension kept, length bounded, no character
 * cut in two.
 */
#include "client.h"

#include <string.h>

#define NOON	1795262400	/* 2026-11-21T12:00:00Z */

static void same(const char *name, guint n, const char *expected)
{
	g_autofree char *got = isd_conflict_name(name, "laptop", NOON, n);

	g_assert_cmpstr(got, ==, expected);
}

static void test_extension(void)
{
	same("a.txt", 0, "a.conflict-laptop-20261121T120000Z.txt");
	same("a.tar.gz", 0, "a.tar.conflict-laptop-20261121T120000Z.gz");
	same("Makefile", 0, "Makefile.conflict-laptop-20261121T120000Z");
	same(".profile", 0, ".profile.conflict-laptop-20261121T120000Z");
	same("ends.", 0, "ends..conflict-laptop-20261121T120000Z");
	same("a.txt", 3, "a.conflict-laptop-20261121T120000Z-3.txt");
}

static void test_peer(void)
{
	g_autofree char *got = isd_conflict_name("f", "a/b", NOON, 0);

	g_assert_cmpstr(got, ==, "f.conflict-a-b-20261121T120000Z");
}

static void test_length(void)
{
	g_autofree char *ascii = g_strnfill(255, 'x');
	g_autoptr(GString) utf8 = g_string_new(NULL);
	g_autofree char *a = isd_conflict_name(ascii, "laptop", NOON, 0);
	g_autofree char *b = NULL;

	g_assert_cmpuint(strlen(a), ==, 255);
	g_assert_true(g_str_has_suffix(a, ".conflict-laptop-20261121T120000Z"));
	while (utf8->len + 2 <= 251)
		g_string_append(utf8, "\303\244");
	g_string_append(utf8, ".txt");
	b = isd_conflict_name(utf8->str, "laptop", NOON, 0);
	g_assert_cmpuint(strlen(b), <=, 255);
	g_assert_cmpuint(strlen(b), >=, 254);
	g_assert_true(g_utf8_validate(b, -1, NULL));
	g_assert_true(g_str_has_suffix(b, "Z.txt"));
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_set_nonfatal_assertions();
	g_test_add_func("/conflict-name/extension", test_extension);
	g_test_add_func("/conflict-name/peer", test_peer);
	g_test_add_func("/conflict-name/length", test_length);
	return g_test_run();
}
