// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Messages of REINT, taken apart and checked: the same code as in user space.
 */
#include "../lib/reint_msg.c"
