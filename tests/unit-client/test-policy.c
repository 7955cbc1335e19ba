// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The file of policies for conflicts: which line is for a path, what is read again, and
 * that a file with a fault is none.
 */
#include "conflict.h"

#include <glib/gstdio.h>
#include <unistd.h>

static IsdClient client = { .server = (char *)"test" };
static char *file;

/* A new inode each time, so that it is seen to have changed. */
static void write_rules(const char *text)
{
	g_autofree char *other = g_strconcat(file, ".new", NULL);

	g_assert_true(g_file_set_contents(other, text, -1, NULL));
	g_assert_cmpint(g_rename(other, file), ==, 0);
}

static void is(const char *path, IsdKeep keep)
{
	g_auto(IsdPolicy) p = { 0 };

	isd_policy_find(&client, path, &p);
	g_assert_cmpint(p.keep, ==, keep);
}

static void test_patterns(void)
{
	write_rules("# first\n"
		    "/mail/*  server\n"
		    "\t*.log newest\r\n"
		    "\n"
		    "dir/sub/x keep-both\n"
		    "\"a b\" client\n"
		    "* merge-ranges\n");
	is("mail/x.log", ISD_KEEP_SERVER);
	is("mail/deep/in/it", ISD_KEEP_SERVER);
	is("other/mail/x", ISD_KEEP_RANGES);
	is("x.log", ISD_KEEP_NEWEST);
	is("dir/x.log", ISD_KEEP_NEWEST);
	is("dir/sub/x", ISD_KEEP_BOTH);
	is("sub/x", ISD_KEEP_RANGES);
	is("anywhere/a b", ISD_KEEP_CLIENT);
}

static void test_program(void)
{
	g_auto(IsdPolicy) p = { 0 }, q = { 0 };

	write_rules("a program /bin/x 'one two' three\nb program:7 /bin/y\n");
	isd_policy_find(&client, "a", &p);
	g_assert_cmpint(p.keep, ==, ISD_KEEP_PROGRAM);
	g_assert_cmpuint(p.seconds, ==, 60);
	g_assert_cmpuint(g_strv_length(p.argv), ==, 3);
	g_assert_cmpstr(p.argv[1], ==, "one two");
	isd_policy_find(&client, "b", &q);
	g_assert_cmpuint(q.seconds, ==, 7);
}

static void test_faults(void)
{
	static const char *const bad[] = {
		"nobody", "a", "a nobody", "a server too much", "a program", "a program:0 /bin/x",
		"a program:x /bin/x", "a 'server",
	};

	for (guint i = 0; i < G_N_ELEMENTS(bad); i++) {
		g_autofree char *text = g_strconcat("* client\n", bad[i], "\n", NULL);

		write_rules(text);
		is("a", ISD_KEEP_BOTH);
	}
	write_rules("* client\n");
	is("a", ISD_KEEP_CLIENT);
	g_assert_cmpint(g_unlink(file), ==, 0);
	is("a", ISD_KEEP_BOTH);
}

int main(int argc, char **argv)
{
	g_autofree char *dir = g_dir_make_tmp(NULL, NULL);
	int rc;

	g_test_init(&argc, &argv, NULL);
	g_test_set_nonfatal_assertions();
	file = g_build_filename(dir, "conflicts", NULL);
	client.policies = isd_policies_new(file);
	g_test_add_func("/policy/patterns", test_patterns);
	g_test_add_func("/policy/program", test_program);
	g_test_add_func("/policy/faults", test_faults);
	rc = g_test_run();
	isd_policies_free(client.policies);
	g_unlink(file);
	g_rmdir(dir);
	g_free(file);
	return rc;
}
