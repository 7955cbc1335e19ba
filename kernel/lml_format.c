// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The LML's header and states: the same code as in user space.
 */
#include "../lib/lml_format.c"
