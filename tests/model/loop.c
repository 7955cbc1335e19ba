// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The simulated clock and what is due by it.  GLib's sources, the system's clocks
 * and chance are replaced by link (--wrap, see Makefile.am), so that a run depends on
 * its seed alone and waiting costs nothing.
 */
#include "sim.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

#define BEGIN		G_GINT64_CONSTANT(1700000000)	/* seconds since 1970 */
#define IDLE_STEP	1				/* microseconds */

typedef struct {
	guint		id;
	gint64		due;
	int		priority;
	guint64		order;
	gint64		interval;	/* -1: once */
	GSourceFunc	func;
	gpointer	data;
	struct host	*host;
	gboolean	running, removed;
} Source;

struct host *sim_current;
struct host sim_hosts[HOSTS_MAX];
guint sim_n_hosts;
gboolean sim_traces;

static GPtrArray *sources;		/* of Source */
static gint64 now_ns;
static guint64 order, chance;
static guint last_id;
static jmp_buf dead;

void sim_reset(guint64 seed)
{
	if (sources)
		g_ptr_array_unref(sources);
	sources = g_ptr_array_new_with_free_func(g_free);
	now_ns = BEGIN * 1000000000;
	order = last_id = 0;
	chance = seed;
	sim_current = NULL;
}

gint64 sim_now(void)
{
	return now_ns / 1000;
}

gint64 sim_stamp(void)
{
	now_ns += 1000;
	return now_ns;
}

struct kml_time sim_time(gint64 ns)
{
	return (struct kml_time) { .sec = ns / 1000000000, .nsec = ns % 1000000000 };
}

/* splitmix64: any seed will do */
guint32 sim_random(guint32 below)
{
	guint64 z = chance += G_GUINT64_CONSTANT(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * G_GUINT64_CONSTANT(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * G_GUINT64_CONSTANT(0x94d049bb133111eb);
	z ^= z >> 31;
	return below ? (z >> 32) % below : 0;
}

void sim_trace(const struct host *h, const char *format, ...)
{
	va_list ap;

	if (!sim_traces)
		return;
	printf("%9.3f %-3s ", (double) (now_ns / 1000 - BEGIN * 1000000) / 1000,
	       h ? h->name : "");
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

/* --- what is due --- */

static guint add(struct host *h, gint64 us, gboolean again, int priority, GSourceFunc func,
		 gpointer data)
{
	Source *s = g_new0(Source, 1);

	s->id = ++last_id;
	s->due = now_ns + us * 1000;
	s->interval = again ? us : -1;
	s->priority = priority;
	s->order = ++order;
	s->func = func;
	s->data = data;
	s->host = h;
	g_ptr_array_add(sources, s);
	return s->id;
}

guint sim_after(struct host *h, gint64 us, GSourceFunc func, gpointer data)
{
	return add(h, us, FALSE, G_PRIORITY_DEFAULT, func, data);
}

static void drop(Source *s)
{
	s->removed = TRUE;
	if (!s->running)
		g_ptr_array_remove(sources, s);
}

void sim_cancel(guint id)
{
	for (guint i = 0; i < sources->len; i++) {
		Source *s = g_ptr_array_index(sources, i);

		if (s->id != id)
			continue;
		drop(s);
		return;
	}
}

void sim_drop_sources(const struct host *h)
{
	for (guint i = sources->len; i-- > 0; ) {
		Source *s = g_ptr_array_index(sources, i);

		if (s->host == h)
			drop(s);
	}
}

static gboolean is_before(const Source *a, const Source *b)
{
	if (a->due != b->due)
		return a->due < b->due;
	return a->priority != b->priority ? a->priority < b->priority : a->order < b->order;
}

static Source *next_due(void)
{
	Source *best = NULL;

	for (guint i = 0; i < sources->len; i++) {
		Source *s = g_ptr_array_index(sources, i);

		if (!best || is_before(s, best))
			best = s;
	}
	return best;
}

/* A source that is to come again does, unless it was removed meanwhile. */
static void ended(Source *s, gboolean again)
{
	s->running = FALSE;
	if (again && !s->removed && s->interval >= 0) {
		s->due = now_ns + MAX(s->interval, IDLE_STEP) * 1000;
		s->order = ++order;
	} else {
		g_ptr_array_remove(sources, s);
	}
}

/* Nobody came back from it. */
static void end_running(void)
{
	for (guint i = sources->len; i-- > 0; ) {
		Source *s = g_ptr_array_index(sources, i);

		if (s->running)
			ended(s, FALSE);
	}
}

/* In a function of its own: nothing of the caller's is lost by the way back from sim_die(). */
static __attribute__((noinline)) void run_source(Source *s)
{
	sim_current = s->host;
	s->running = TRUE;
	if (setjmp(dead)) {
		host_kill(sim_current);
		end_running();
	} else {
		ended(s, s->func(s->data));
	}
	sim_current = NULL;
}

gboolean sim_step(gint64 until)
{
	Source *s = next_due();

	if (!s || s->due > until * 1000)
		return FALSE;
	now_ns = MAX(now_ns, s->due);
	run_source(s);
	return TRUE;
}

void sim_die(void)
{
	longjmp(dead, 1);
}

/* --- replaced --- */

guint __wrap_g_timeout_add(guint ms, GSourceFunc func, gpointer data);
guint __wrap_g_timeout_add_seconds(guint seconds, GSourceFunc func, gpointer data);
guint __wrap_g_idle_add(GSourceFunc func, gpointer data);
guint __wrap_g_idle_add_full(int priority, GSourceFunc func, gpointer data, GDestroyNotify notify);
gboolean __wrap_g_source_remove(guint id);
gint64 __wrap_g_get_real_time(void);
gint64 __wrap_g_get_monotonic_time(void);
void __wrap_g_usleep(gulong us);
gint32 __wrap_g_random_int_range(gint32 begin, gint32 end);
int __wrap_clock_gettime(clockid_t id, struct timespec *ret);
int __wrap_nanosleep(const struct timespec *t, struct timespec *left);
ssize_t __wrap_getrandom(void *buf, size_t len, unsigned int flags);
int __wrap_g_mkdir_with_parents(const char *path, int mode);
int __wrap_room_for_content(int fd, uint64_t *ret);
int __wrap_fstatvfs(int fd, struct statvfs *ret);

guint __wrap_g_timeout_add(guint ms, GSourceFunc func, gpointer data)
{
	return add(sim_current, (gint64) ms * 1000, TRUE, G_PRIORITY_DEFAULT, func, data);
}

guint __wrap_g_timeout_add_seconds(guint seconds, GSourceFunc func, gpointer data)
{
	return add(sim_current, (gint64) seconds * 1000000, TRUE, G_PRIORITY_DEFAULT, func, data);
}

guint __wrap_g_idle_add_full(int priority, GSourceFunc func, gpointer data, GDestroyNotify notify)
{
	return add(sim_current, IDLE_STEP, TRUE, priority, func, data);
}

guint __wrap_g_idle_add(GSourceFunc func, gpointer data)
{
	return add(sim_current, IDLE_STEP, TRUE, G_PRIORITY_DEFAULT_IDLE, func, data);
}

gboolean __wrap_g_source_remove(guint id)
{
	sim_cancel(id);
	return TRUE;
}

gint64 __wrap_g_get_real_time(void)
{
	return sim_now();
}

gint64 __wrap_g_get_monotonic_time(void)
{
	return sim_now();
}

void __wrap_g_usleep(gulong us)
{
	now_ns += (gint64) us * 1000;
}

gint32 __wrap_g_random_int_range(gint32 begin, gint32 end)
{
	return begin + (gint32) sim_random(end - begin);
}

int __wrap_clock_gettime(clockid_t id, struct timespec *ret)
{
	ret->tv_sec = now_ns / 1000000000;
	ret->tv_nsec = now_ns % 1000000000;
	return 0;
}

/* Change times are never the same here: nobody has to wait for the next one. */
int __wrap_nanosleep(const struct timespec *t, struct timespec *left)
{
	return 0;
}

ssize_t __wrap_getrandom(void *buf, size_t len, unsigned int flags)
{
	for (size_t i = 0; i < len; i++)
		((guint8 *) buf)[i] = sim_random(256);
	return len;
}

/* Nothing outside of the simulation is made. */
int __wrap_g_mkdir_with_parents(const char *path, int mode)
{
	return 0;
}

/* A full disk still has room for log and state: that is what the reserve is for. */
int __wrap_room_for_content(int fd, uint64_t *ret)
{
	*ret = sim_current && sim_current->full ? 0 : UINT64_C(1) << 40;
	return 0;
}

int __wrap_fstatvfs(int fd, struct statvfs *ret)
{
	*ret = (struct statvfs) {
		.f_bsize = 4096, .f_frsize = 4096, .f_blocks = 1 << 30, .f_bfree = 1 << 28,
		.f_bavail = 1 << 28,
	};
	return 0;
}
