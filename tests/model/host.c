// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The daemons of the simulated hosts: started as main.c does, killed at any point,
 * and brought to rest.  Also what the engine says: its log, and the points at which a test can
 * make it die.
 */
#include "sim.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client.h"

#define ROUNDS		40
#define ROUND_US	G_GINT64_CONSTANT(300000000)	/* five minutes */
#define ROUND_STEPS	20000
#define QUIET_US	(3 * 1000000)			/* everything is committed then */

unsigned int isd_debug_bits;
gboolean isd_fault_armed = TRUE;

void __wrap_isd_core_quit(IsdCore *core, int status, const char *format, ...)
	G_GNUC_PRINTF(3, 4);

/* --- in place of log.c and fault.c --- */

void isd_log(int priority, const char *peer, guint64 recno, const char *format, ...)
{
	g_autofree char *text = NULL;
	va_list ap;

	if (!sim_traces)
		return;
	va_start(ap, format);
	text = g_strdup_vprintf(format, ap);
	va_end(ap);
	sim_trace(sim_current, "    %s", text);
}

void isd_log_open(const char *fileset, guint minor)
{
}

void isd_fault_point(const char *name)
{
	struct host *h = sim_current;

	if (!h || !h->kill_in || --h->kill_in)
		return;
	sim_trace(h, "dies at %s", name);
	sim_die();
}

static gboolean quit_later(gpointer data)
{
	host_kill(data);
	return G_SOURCE_REMOVE;
}

void __wrap_isd_core_quit(IsdCore *core, int status, const char *format, ...)
{
	struct host *h = sim_current;
	va_list ap;

	if (!h->quit) {
		va_start(ap, format);
		h->quit = g_strdup_vprintf(format, ap);
		va_end(ap);
	}
	sim_trace(h, "ends: %s", h->quit);
	sim_after(NULL, 0, quit_later, h);
}

/* --- one daemon --- */

static gboolean start_role(IsdCore *core, GError **error)
{
	if (core->is_server) {
		core->log_grew = isd_server_log_grew;
		return isd_server_start(core, &(IsdServerOptions) { .port = 1 }, error);
	}
	core->log_grew = isd_client_log_grew;
	return isd_client_start(core, &(IsdClientOptions) { .server = "server" }, error);
}

gboolean host_start(struct host *h, char **ret_why)
{
	g_autoptr(GError) error = NULL;
	guint64 kill_in = h->kill_in;
	IsdCore *core;
	gboolean ok;

	if (h->core)
		return TRUE;
	sim_trace(h, "starts");
	sim_current = h;
	h->kill_in = 0;
	core = isd_core_new(h->dir, h->name, h->index == SERVER, &error);
	ok = core && isd_core_load(core, &error) && start_role(core, &error);
	if (ok) {
		h->core = core;
		core->log_grew(core);
		isd_channel_watch_log(core->channel);
	} else {
		*ret_why = g_strdup_printf("start: %s: %s", h->name, error->message);
	}
	h->kill_in = kill_in;
	sim_current = NULL;
	return ok;
}

/* Files of incoming/ that the daemon had open, and with them its locks. */
static void close_uploads(struct host *h)
{
	g_autofree char *incoming = g_strconcat(h->dir, "/.intermezzo/" FILESET "/incoming/", NULL);
	g_autoptr(GDir) d = g_dir_open("/proc/self/fd", 0, NULL);
	const char *name;

	while (d && (name = g_dir_read_name(d))) {
		g_autofree char *path = g_strconcat("/proc/self/fd/", name, NULL);
		g_autofree char *file = g_file_read_link(path, NULL);

		if (file && g_str_has_prefix(file, incoming))
			close(atoi(name));
	}
}

/* What it had in memory is lost; SQLite forgets what was not committed. */
void host_kill(struct host *h)
{
	IsdCore *core = g_steal_pointer(&h->core);

	if (!core)
		return;
	sim_trace(h, "is killed");
	h->kill_in = 0;
	sim_drop_sources(h);
	net_drop(h);
	if (h->index == SERVER)
		serve_stop();
	channel_drop(core->channel);
	close_uploads(h);
	isd_state_close(core->state);
	klog_close(core->log);
	close(core->incoming_fd);
	close(core->meta_fd);
	close(core->root_fd);
}

static void copy_file(int dirfd, const char *from, const char *to)
{
	int in = openat(dirfd, from, O_RDONLY | O_CLOEXEC), out;
	struct stat st;

	unlinkat(dirfd, to, 0);
	if (in < 0)
		return;
	out = openat(dirfd, to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fstat(in, &st) || copy_file_range(in, NULL, out, NULL, st.st_size, 0) != st.st_size)
		g_error("%s: cannot be copied", from);
	close(in);
	close(out);
}

void host_keep_state(struct host *h)
{
	copy_file(h->meta_fd, "state.db", "kept.db");
	copy_file(h->meta_fd, "state.db-wal", "kept.db-wal");
}

void host_power_cut(struct host *h)
{
	host_kill(h);
	op_release_all(h);
	fs_drain(h);
	if (faccessat(h->meta_fd, "kept.db", F_OK, 0))
		return;
	sim_trace(h, "has the state of the last rest");
	unlinkat(h->meta_fd, "state.db-shm", 0);
	copy_file(h->meta_fd, "kept.db", "state.db");
	copy_file(h->meta_fd, "kept.db-wal", "state.db-wal");
	if (h->index == SERVER)
		serve_reset();
}

/* --- rest --- */

static void synced(gboolean ok, const char *message, gpointer data)
{
	gboolean *done = data;

	*done = TRUE;
}

static char *describe(struct host *h)
{
	g_autoptr(JsonBuilder) b = json_builder_new();
	g_autoptr(JsonNode) root = NULL;

	if (!h->core)
		return g_strdup("does not run");
	json_builder_begin_object(b);
	isd_client_status(h->core, b);
	json_builder_end_object(b);
	root = json_builder_get_root(b);
	return json_to_string(root, FALSE);
}

static char *blocked(const gboolean *done)
{
	g_autoptr(GString) s = g_string_new("blocked:");

	for (guint i = 1; i < sim_n_hosts; i++) {
		g_autofree char *text = done[i] ? NULL : describe(&sim_hosts[i]);

		if (text)
			g_string_append_printf(s, "\n  %s: %s", sim_hosts[i].name, text);
	}
	return g_string_free(g_steal_pointer(&s), FALSE);
}

static char *ended(void)
{
	for (guint i = 0; i < sim_n_hosts; i++)
		if (sim_hosts[i].quit)
			return g_strdup_printf("ended: %s: %s", sim_hosts[i].name,
					       sim_hosts[i].quit);
	return NULL;
}

static char *wake_all(void)
{
	char *why = NULL;

	for (guint i = 0; i < sim_n_hosts && !why; i++) {
		struct host *h = &sim_hosts[i];

		h->up = TRUE;
		h->full = FALSE;
		h->lose_request = h->lose_answer = h->lose_middle = 0;
		op_release_all(h);
		fs_drain(h);
		host_start(h, &why);
		h->kill_in = 0;
	}
	return why;
}

static gboolean all(const gboolean *done)
{
	for (guint i = 1; i < sim_n_hosts; i++)
		if (!done[i])
			return FALSE;
	return TRUE;
}

/* Everybody waits until he has all and all of his is at the server. */
static char *sync_all(void)
{
	static gboolean done[HOSTS_MAX];
	gint64 until = sim_now() + ROUND_US;
	char *why = NULL;

	for (guint i = 1; i < sim_n_hosts; i++) {
		done[i] = FALSE;
		sim_current = &sim_hosts[i];
		isd_client_sync(sim_hosts[i].core, synced, &done[i]);
		sim_current = NULL;
	}
	for (guint n = 0; n < ROUND_STEPS && !all(done) && !why && sim_step(until); n++)
		why = ended();
	return why ? why : all(done) ? NULL : blocked(done);
}

static guint64 all_records(void)
{
	guint64 n = 0;

	for (guint i = 0; i < sim_n_hosts; i++) {
		fs_drain(&sim_hosts[i]);
		n += sim_hosts[i].recno;
	}
	return n;
}

char *host_rest(void)
{
	guint64 before = 0;
	char *why = wake_all();

	for (guint i = 0; i < ROUNDS && !why; i++) {
		gint64 until;

		why = sync_all();
		if (why)
			return why;
		until = sim_now() + QUIET_US;
		while (!why && sim_step(until))
			why = ended();
		if (!why && before == all_records()) {
			for (guint n = 0; n < sim_n_hosts; n++)
				host_keep_state(&sim_hosts[n]);
			return NULL;
		}
		before = all_records();
	}
	return why ? why : g_strdup("restless: the logs go on growing");
}
