// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fstest DIR [NAME...]: POSIX behaviour of the file system at DIR.  Knows
 * nothing of InterMezzo, so that it can be checked against any local file
 * system; the tests are in the other files of this directory.
 */
#include "t.h"

int main(int argc, char **argv)
{
	return t_main(argc, argv);
}
