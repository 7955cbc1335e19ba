// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Records of the KML, encoded and decoded: the same code as in user space.
 */
#include "../lib/record.c"
