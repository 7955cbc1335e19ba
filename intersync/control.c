// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The control socket, /run/intersync/<N>/control: izoctl's way into the daemon.
 * A request is one line of JSON, {"cmd": "status"}; the answer is a line of JSON, and
 * for "check" as many lines as there are differences before it.
 */
#include "daemon.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include <gio/gunixsocketaddress.h>

#include "util.h"

struct IsdControl {
	IsdCore		*core;
	GSocketService	*service;
	char		*path;
	GHashTable	*open;		/* Conn: those that the service still answers */
};

/* One izoctl.  Held by each operation in flight. */
typedef struct {
	gatomicrefcount		refs;
	struct IsdControl	*control;
	GSocketConnection	*socket;
	GDataInputStream	*in;
	GCancellable		*cancel;
	char			*out;
} Conn;

static void next_request(Conn *c);

static Conn *conn_ref(Conn *c)
{
	g_atomic_ref_count_inc(&c->refs);
	return c;
}

static void conn_unref(Conn *c)
{
	if (!g_atomic_ref_count_dec(&c->refs))
		return;
	g_object_unref(c->in);
	g_object_unref(c->socket);
	g_object_unref(c->cancel);
	g_free(c->out);
	g_free(c);
}

static void conn_end(Conn *c)
{
	if (!g_cancellable_is_cancelled(c->cancel))
		g_hash_table_remove(c->control->open, c);
}

static char *to_line(JsonBuilder *b)
{
	g_autoptr(JsonNode) root = json_builder_get_root(b);
	g_autofree char *text = json_to_string(root, FALSE);

	return g_strconcat(text, "\n", NULL);
}

static void written(GObject *stream, GAsyncResult *result, gpointer data)
{
	Conn *c = data;

	g_clear_pointer(&c->out, g_free);
	if (g_output_stream_write_all_finish(G_OUTPUT_STREAM(stream), result, NULL, NULL))
		next_request(c);
	else
		conn_end(c);
	conn_unref(c);
}

static void reply(Conn *c, JsonBuilder *b)
{
	c->out = to_line(b);
	g_output_stream_write_all_async(
		g_io_stream_get_output_stream(G_IO_STREAM(c->socket)), c->out, strlen(c->out),
		G_PRIORITY_DEFAULT, c->cancel, written, conn_ref(c));
}

static JsonBuilder *answer(gboolean ok, const char *message)
{
	JsonBuilder *b = json_builder_new();

	json_builder_begin_object(b);
	json_builder_set_member_name(b, "ok");
	json_builder_add_boolean_value(b, ok);
	if (message) {
		json_builder_set_member_name(b, "message");
		json_builder_add_string_value(b, message);
	}
	return b;
}

static void reply_simple(Conn *c, gboolean ok, const char *message)
{
	g_autoptr(JsonBuilder) b = answer(ok, message);

	json_builder_end_object(b);
	reply(c, b);
}

static void cmd_status(Conn *c, JsonObject *request)
{
	IsdCore *core = c->control->core;
	g_autoptr(JsonBuilder) b = answer(TRUE, NULL);

	isd_core_status(core, b);
	if (core->role && core->is_server)
		isd_server_status(core, b);
	else if (core->role)
		isd_client_status(core, b);
	json_builder_end_object(b);
	reply(c, b);
}

static void cmd_peers(Conn *c, JsonObject *request)
{
	IsdCore *core = c->control->core;
	g_autoptr(JsonBuilder) b = NULL;

	if (!core->is_server) {
		reply_simple(c, FALSE, "this is a client: its server knows the peers");
		return;
	}
	b = answer(TRUE, NULL);
	json_builder_set_member_name(b, "peers");
	isd_server_peers(core, b);
	json_builder_end_object(b);
	reply(c, b);
}

static const char *argument(JsonObject *request, const char *name)
{
	return json_object_get_string_member_with_default(request, name, "");
}

static const char no_client[] =
	"this is the server, its versions keep their names: ask the clients for conflicts";

static void cmd_conflicts(Conn *c, JsonObject *request)
{
	IsdCore *core = c->control->core;
	g_autoptr(GError) error = NULL;
	g_autoptr(JsonBuilder) b = answer(TRUE, NULL);

	if (core->is_server) {
		reply_simple(c, FALSE, no_client);
		return;
	}
	if (!isd_client_conflicts(core, g_ascii_strtoll(argument(request, "after"), NULL, 10), b,
				  &error)) {
		reply_simple(c, FALSE, error->message);
		return;
	}
	json_builder_end_object(b);
	reply(c, b);
}

static void cmd_resolve(Conn *c, JsonObject *request)
{
	IsdCore *core = c->control->core;
	g_autoptr(GError) error = NULL;

	if (core->is_server)
		reply_simple(c, FALSE, no_client);
	else if (!isd_client_resolve(core, argument(request, "conflict"),
				     argument(request, "escaped"), argument(request, "keep"), &error))
		reply_simple(c, FALSE, error->message);
	else
		reply_simple(c, TRUE, NULL);
}

static void sync_done(gboolean ok, const char *message, gpointer data)
{
	Conn *c = data;

	if (!g_cancellable_is_cancelled(c->cancel))
		reply_simple(c, ok, message);
	conn_unref(c);
}

/* The file system has logged everything: now it is the role's turn. */
static void sync_logged(int error, const void *body, gsize len, gpointer data)
{
	Conn *c = data;
	struct izo_pos pos;

	if (g_cancellable_is_cancelled(c->cancel)) {
		conn_unref(c);
		return;
	}
	if (error || len != sizeof(pos)) {
		sync_done(FALSE, g_strerror(error ? error : EPROTO), c);
		return;
	}
	memcpy(&pos, body, sizeof(pos));
	isd_core_saw_log(c->control->core, &pos);
	c->control->core->log_grew(c->control->core);
	if (!c->control->core->is_server)
		isd_client_sync(c->control->core, sync_done, c);
	else if (c->control->core->applied >= le64toh(pos.offset))
		sync_done(TRUE, NULL, c);
	else
		sync_done(FALSE, "the server's state does not follow its log: see its log file", c);
}

static void cmd_sync(Conn *c, JsonObject *request)
{
	isd_channel_request(c->control->core->channel, IZO_MSG_SYNC, 0, NULL, 0, sync_logged,
			    conn_ref(c));
}

/*
 * check: a thread with its own connection to the state, which writes to izoctl by
 * itself.  The main loop does not touch the connection meanwhile.
 */
typedef struct {
	Conn	*conn;
	int	root_fd, meta_fd;
	char	*last;		/* the final line */
} CheckRun;

static void check_run_free(CheckRun *run)
{
	conn_unref(run->conn);
	close(run->root_fd);
	close(run->meta_fd);
	g_free(run->last);
	g_free(run);
}

static void check_write(Conn *c, const char *line)
{
	GOutputStream *out = g_io_stream_get_output_stream(G_IO_STREAM(c->socket));

	g_output_stream_write_all(out, line, strlen(line), NULL, c->cancel, NULL);
}

static void check_found(const char *sentence, gpointer data)
{
	CheckRun *run = data;
	g_autoptr(JsonBuilder) b = json_builder_new();
	g_autofree char *line = NULL;

	json_builder_begin_object(b);
	json_builder_set_member_name(b, "difference");
	json_builder_add_string_value(b, sentence);
	json_builder_end_object(b);
	line = to_line(b);
	check_write(run->conn, line);
}

static void check_thread(GTask *task, gpointer source, gpointer data, GCancellable *cancel)
{
	CheckRun *run = data;
	g_autoptr(GError) error = NULL;
	g_autoptr(JsonBuilder) b = NULL;
	IsdCheckCounts n = { 0 };
	gboolean ok = isd_check(run->root_fd, run->meta_fd, check_found, run, &n, &error);

	b = answer(ok && n.differences == 0, error ? error->message : NULL);
	isd_check_report(&n, b);
	json_builder_end_object(b);
	run->last = to_line(b);
	check_write(run->conn, run->last);
	g_task_return_boolean(task, TRUE);
}

static void check_done(GObject *source, GAsyncResult *result, gpointer data)
{
	CheckRun *run = data;

	if (!g_cancellable_is_cancelled(run->conn->cancel))
		next_request(run->conn);
	check_run_free(run);
}

static void check_logged(int error, const void *body, gsize len, gpointer data)
{
	Conn *c = data;
	IsdCore *core = c->control->core;
	g_autoptr(GTask) task = NULL;
	CheckRun *run;

	if (g_cancellable_is_cancelled(c->cancel) || error) {
		if (error != ENOTCONN && !g_cancellable_is_cancelled(c->cancel))
			reply_simple(c, FALSE, g_strerror(error));
		conn_unref(c);
		return;
	}
	core->log_grew(core);
	run = g_new0(CheckRun, 1);
	run->conn = c;
	run->root_fd = dup(core->root_fd);
	run->meta_fd = dup(core->meta_fd);
	task = g_task_new(NULL, NULL, check_done, run);
	g_task_set_task_data(task, run, NULL);
	g_task_run_in_thread(task, check_thread);
}

static void cmd_check(Conn *c, JsonObject *request)
{
	isd_channel_request(c->control->core->channel, IZO_MSG_SYNC, 0, NULL, 0, check_logged,
			    conn_ref(c));
}

static const struct {
	const char	*name;
	void		(*run)(Conn *c, JsonObject *request);
} commands[] = {
	{ "status", cmd_status },
	{ "peers", cmd_peers },
	{ "sync", cmd_sync },
	{ "check", cmd_check },
	{ "conflicts", cmd_conflicts },
	{ "resolve", cmd_resolve },
};

static void handle(Conn *c, const char *line)
{
	g_autoptr(JsonParser) parser = json_parser_new();
	JsonNode *root;
	JsonObject *request = NULL;
	const char *cmd = NULL;

	if (json_parser_load_from_data(parser, line, -1, NULL)) {
		root = json_parser_get_root(parser);
		if (root && JSON_NODE_HOLDS_OBJECT(root))
			request = json_node_get_object(root);
	}
	if (request)
		cmd = json_object_get_string_member_with_default(request, "cmd", NULL);
	if (!c->control->core->role && g_strcmp0(cmd, "status")) {
		reply_simple(c, FALSE, "intersync is starting");
		return;
	}
	for (gsize i = 0; cmd && i < G_N_ELEMENTS(commands); i++) {
		if (strcmp(cmd, commands[i].name))
			continue;
		commands[i].run(c, request);
		return;
	}
	reply_simple(c, FALSE, "intersync does not know this command: use izoctl and intersync "
			       "of one release");
}

static void got_line(GObject *stream, GAsyncResult *result, gpointer data)
{
	Conn *c = data;
	g_autofree char *line = g_data_input_stream_read_line_finish(
		G_DATA_INPUT_STREAM(stream), result, NULL, NULL);

	if (line)
		handle(c, line);
	else
		conn_end(c);
	conn_unref(c);
}

static void next_request(Conn *c)
{
	g_data_input_stream_read_line_async(c->in, G_PRIORITY_DEFAULT, c->cancel, got_line,
					    conn_ref(c));
}

static gboolean incoming(GSocketService *service, GSocketConnection *socket, GObject *source,
			 gpointer data)
{
	struct IsdControl *control = data;
	Conn *c = g_new0(Conn, 1);

	g_atomic_ref_count_init(&c->refs);
	c->control = control;
	c->socket = g_object_ref(socket);
	c->in = g_data_input_stream_new(g_io_stream_get_input_stream(G_IO_STREAM(socket)));
	c->cancel = g_cancellable_new();
	g_hash_table_add(control->open, c);
	next_request(c);
	return TRUE;
}

/* From now on nothing that is still in flight may use the control. */
static void drop_conn(gpointer data)
{
	Conn *c = data;

	g_cancellable_cancel(c->cancel);
	conn_unref(c);
}

static gboolean bind_socket(struct IsdControl *t, GError **error)
{
	g_autoptr(GSocketAddress) address = NULL;
	mode_t before;
	gboolean ok;

	/* A socket that is there is a dead daemon's: the channel admits one at a time. */
	unlink(t->path);
	address = g_unix_socket_address_new(t->path);
	before = umask(0177);
	ok = g_socket_listener_add_address(G_SOCKET_LISTENER(t->service), address,
					   G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_DEFAULT, NULL,
					   NULL, error);
	umask(before);
	if (!ok)
		g_prefix_error(error, "%s: ", t->path);
	return ok;
}

struct IsdControl *isd_control_start(IsdCore *core, GError **error)
{
	struct IsdControl *t = g_new0(struct IsdControl, 1);
	g_autofree char *dir = g_strdup_printf("%s/%u", ISD_RUN_DIR,
					       le32toh(core->info.minor));

	t->core = core;
	t->path = g_strconcat(dir, "/control", NULL);
	t->service = g_socket_service_new();
	t->open = g_hash_table_new_full(NULL, NULL, drop_conn, NULL);
	if (g_mkdir_with_parents(dir, 0755) < 0)
		g_set_error(error, ISD_ERROR, ISD_ERROR_FAILED, "%s: %s", dir,
			    g_strerror(errno));
	else if (bind_socket(t, error)) {
		g_signal_connect(t->service, "incoming", G_CALLBACK(incoming), t);
		return t;
	}
	isd_control_stop(t);
	return NULL;
}

void isd_control_stop(struct IsdControl *t)
{
	if (!t)
		return;
	g_socket_service_stop(t->service);
	g_socket_listener_close(G_SOCKET_LISTENER(t->service));
	g_object_unref(t->service);
	g_hash_table_destroy(t->open);
	unlink(t->path);
	g_free(t->path);
	g_free(t);
}
