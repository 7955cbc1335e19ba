/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TAP (the Test Anything Protocol) for the unit tests: ok() for each point,
 * return tap_done() from main().
 */
#ifndef TESTS_UNIT_TAP_H
#define TESTS_UNIT_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static unsigned int tap_points, tap_failed;

__attribute__((format(printf, 2, 3)))
static inline bool ok(bool good, const char *format, ...)
{
	va_list ap;

	printf("%sok %u - ", good ? "" : "not ", ++tap_points);
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
	if (!good)
		tap_failed++;
	return good;
}

/* What must hold for the test to go on at all. */
static inline void need(bool good, const char *what)
{
	if (good)
		return;
	printf("Bail out! %s\n", what);
	exit(1);
}

static inline int tap_done(void)
{
	printf("1..%u\n", tap_points);
	return tap_failed != 0;
}

/* A seed, from $IZO_SEED to repeat a run, printed. */
static inline unsigned int tap_seed(void)
{
	const char *text = getenv("IZO_SEED");
	unsigned int seed = text ? strtoul(text, NULL, 0) : (unsigned int) time(NULL);

	printf("# IZO_SEED=%u\n", seed);
	return seed;
}

#endif
