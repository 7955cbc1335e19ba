/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mod_intersync: the HTTP resources of filesets (doc/protocol.md) in the
 * private Apache httpd that intersync starts.  This file holds the hooks, the one directive,
 *
 *	InterSyncFileset NAME root=FD meta=FD epoch=N gateway=PATH
 *
 * (descriptors that httpd has inherited), and the way from a URL to a resource.
 */
#include "mod_intersync.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "util.h"

struct mis_counters *mis_counters;

/* of the server; filesets: struct mis_fileset * */
struct mis_config {
	apr_array_header_t	*filesets;
};

static void *config_create(apr_pool_t *pool, server_rec *s)
{
	struct mis_config *c = apr_pcalloc(pool, sizeof(*c));

	c->filesets = apr_array_make(pool, 1, sizeof(struct mis_fileset *));
	return c;
}

/* One "key=value" of the directive; an error message or NULL. */
static const char *take_option(cmd_parms *cmd, struct mis_fileset *f, const char **gateway,
			       const char *option)
{
	const char *value = strchr(option, '=');
	uint64_t number = 0;

	if (!value)
		return apr_psprintf(cmd->pool, "%s: expected KEY=VALUE", option);
	value++;
	if (!strncmp(option, "gateway=", 8)) {
		*gateway = apr_pstrdup(cmd->pool, value);
		return NULL;
	}
	if (!mis_number(value, &number))
		return apr_psprintf(cmd->pool, "%s: not a number", option);
	if (!strncmp(option, "root=", 5))
		f->root_fd = number;
	else if (!strncmp(option, "meta=", 5))
		f->meta_fd = number;
	else if (!strncmp(option, "epoch=", 6))
		f->epoch = number;
	else
		return apr_psprintf(cmd->pool, "%s: unknown", option);
	return NULL;
}

/*
 * A child that is told to end at once leaves while its other threads still serve requests:
 * what these use goes with the process.
 */
static int is_child;

static apr_status_t free_gate(void *gate)
{
	if (!is_child)
		gate_free(gate);
	return APR_SUCCESS;
}

static const char *add_fileset(cmd_parms *cmd, void *dir, const char *args)
{
	struct mis_config *c = ap_get_module_config(cmd->server->module_config, &intersync_module);
	struct mis_fileset *f = apr_pcalloc(cmd->pool, sizeof(*f));
	const char *gateway = NULL, *error = NULL;

	f->root_fd = f->meta_fd = -1;
	f->name = ap_getword_conf(cmd->pool, &args);
	if (!fileset_name_ok(f->name))
		return "InterSyncFileset: not the name of a fileset";
	while (*args && !error)
		error = take_option(cmd, f, &gateway, ap_getword_conf(cmd->pool, &args));
	if (error)
		return apr_pstrcat(cmd->pool, "InterSyncFileset: ", error, NULL);
	if (f->root_fd < 0 || f->meta_fd < 0 || !gateway)
		return "InterSyncFileset: root=, meta= and gateway= are needed";
	f->gate = gate_new(gateway);
	if (!f->gate)
		return "InterSyncFileset: the path of the gateway is too long";
	apr_pool_cleanup_register(cmd->pool, f->gate, free_gate, apr_pool_cleanup_null);
	*(struct mis_fileset **) apr_array_push(c->filesets) = f;
	return NULL;
}

static const command_rec directives[] = {
	AP_INIT_RAW_ARGS("InterSyncFileset", add_fileset, NULL, RSRC_CONF,
			 "NAME root=FD meta=FD epoch=N gateway=PATH"),
	{ NULL }
};

int mis_serves(server_rec *s)
{
	struct mis_config *c;

	for (; s; s = s->next) {
		c = ap_get_module_config(s->module_config, &intersync_module);
		if (c && c->filesets->nelts)
			return 1;
	}
	return 0;
}

static apr_status_t drop_counters(void *unused)
{
	if (!is_child)
		munmap(mis_counters, sizeof(*mis_counters));
	return APR_SUCCESS;
}

/* A sandbox may refuse what every answer needs: it would look as if all files were gone. */
static int can_open(server_rec *s)
{
	struct mis_config *c = ap_get_module_config(s->module_config, &intersync_module);
	int i, fd;

	for (i = 0; i < c->filesets->nelts; i++) {
		struct mis_fileset *f = APR_ARRAY_IDX(c->filesets, i, struct mis_fileset *);

		fd = mis_open_root(f->root_fd);
		if (fd < 0) {
			ap_log_error(APLOG_MARK, APLOG_CRIT, errno, s,
				     "intersync: %s cannot be read (openat2): the sandbox of the "
				     "service must allow that system call", f->name);
			return 0;
		}
		close(fd);
	}
	return 1;
}

static int post_config(apr_pool_t *conf, apr_pool_t *log, apr_pool_t *temp, server_rec *s)
{
	void *p = mmap(NULL, sizeof(*mis_counters), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED || !can_open(s))
		return HTTP_INTERNAL_SERVER_ERROR;
	mis_counters = p;
	apr_pool_cleanup_register(conf, NULL, drop_counters, apr_pool_cleanup_null);
	return OK;
}

/*
 * Before anything of the child is taken down: its threads may still serve requests, and must
 * not find what they use half gone.  There is nothing to be saved.
 */
static apr_status_t leave(void *unused)
{
	_exit(0);
}

static void child_init(apr_pool_t *pool, server_rec *s)
{
	struct mis_config *c = ap_get_module_config(s->module_config, &intersync_module);
	int i;

	is_child = 1;
	if (c->filesets->nelts)
		apr_pool_pre_cleanup_register(pool, NULL, leave);
	for (i = 0; i < c->filesets->nelts; i++) {
		struct mis_fileset *f = APR_ARRAY_IDX(c->filesets, i, struct mis_fileset *);

		f->pool = mis_pool_new(f);
	}
}

/* URLs are no files: keep httpd from looking for one. */
static int no_file(request_rec *r)
{
	r->filename = apr_pstrdup(r->pool, r->uri);
	return OK;
}

/* map_to_storage and access_checker_ex: who reaches this httpd may ask. */
static int fine(request_rec *r)
{
	return OK;
}

static const struct mis_fileset *find_fileset(request_rec *r, const char *name)
{
	struct mis_config *c = ap_get_module_config(r->server->module_config, &intersync_module);
	int i;

	for (i = 0; i < c->filesets->nelts; i++) {
		struct mis_fileset *f = APR_ARRAY_IDX(c->filesets, i, struct mis_fileset *);

		if (!strcmp(f->name, name))
			return f;
	}
	return NULL;
}

/* The part of *path up to the next '/', and *path behind it. */
static char *next_part(apr_pool_t *pool, const char **path)
{
	const char *p = *path;
	const char *slash = strchr(p, '/');

	*path = slash ? slash + 1 : p + strlen(p);
	return apr_pstrndup(pool, p, slash ? (apr_size_t) (slash - p) : strlen(p));
}

static void parse_args(struct mis_request *q)
{
	char *args = apr_pstrdup(q->r->pool, q->r->args ? q->r->args : "");
	char *save, *part;

	q->args = apr_table_make(q->r->pool, 4);
	for (part = apr_strtok(args, "&", &save); part; part = apr_strtok(NULL, "&", &save)) {
		char *value = strchr(part, '=');

		if (value)
			*value++ = 0;
		apr_table_setn(q->args, part, value ? value : "");
	}
}

static void copy_text(char *ret, size_t size, const char *text)
{
	size_t i;

	for (i = 0; text && text[i] && i < size - 1; i++)
		ret[i] = (unsigned char) text[i] < 32 || text[i] == 127 ? '?' : text[i];
	ret[i] = 0;
}

/* The headers that every client sends; false: they are there and nonsense. */
static bool parse_peer(struct mis_request *q)
{
	apr_table_t *h = q->r->headers_in;
	const char *uuid = apr_table_get(h, "InterSync-Peer");
	const char *acked = apr_table_get(h, "InterSync-Acked");
	const char *position = apr_table_get(h, "InterSync-Position");
	struct gate_peer *p = &q->told;
	char text[UUID_TEXT];

	if (!uuid)
		return true;
	if (!uuid_parse(uuid, p->uuid))
		return false;
	uuid_format(p->uuid, text);
	q->peer = apr_pstrdup(q->r->pool, text);
	copy_text(p->name, sizeof(p->name), apr_table_get(h, "InterSync-Name"));
	copy_text(p->address, sizeof(p->address), q->r->useragent_ip);
	if (acked && !mis_number(acked, &p->acked))
		return false;
	if (position) {
		const char *offset = ap_getword_white(q->r->pool, &position);

		return mis_number(offset, &p->offset) && mis_number(position, &p->recno);
	}
	return true;
}

static int answer_fileset(struct mis_request *q, const char *name, const char *path)
{
	char *resource = next_part(q->r->pool, &path);
	uint64_t epoch;

	q->f = find_fileset(q->r, name);
	if (!q->f)
		return mis_fail(q, HTTP_NOT_FOUND, "there is no fileset %s here", name);
	q->rest = path;
	parse_args(q);
	apr_table_setn(q->r->headers_out, "InterSync-Epoch",
		       apr_psprintf(q->r->pool, "%" PRIu64, q->f->epoch));
	if (!parse_peer(q))
		return mis_fail(q, HTTP_BAD_REQUEST, "malformed InterSync header");
	if (mis_arg(q, "epoch", &epoch) && epoch != q->f->epoch)
		return mis_fail(q, HTTP_CONFLICT,
				"the log began anew: its epoch is %" PRIu64, q->f->epoch);
	return mis_answer(q, resource);
}

static int handler(request_rec *r)
{
	struct mis_request *q = apr_pcalloc(r->pool, sizeof(*q));
	const char *path = r->uri, *name;

	q->r = r;
	q->kind = MIS_OTHER;
	if (strncmp(path, "/intersync/", 11))
		return mis_fail(q, HTTP_NOT_FOUND, "filesets are below /intersync/");
	path += 11;
	name = next_part(r->pool, &path);
	return answer_fileset(q, name, path);
}

static void register_hooks(apr_pool_t *pool)
{
	ap_hook_post_config(post_config, NULL, NULL, APR_HOOK_MIDDLE);
	ap_hook_child_init(child_init, NULL, NULL, APR_HOOK_MIDDLE);
	ap_hook_translate_name(no_file, NULL, NULL, APR_HOOK_REALLY_FIRST);
	ap_hook_map_to_storage(fine, NULL, NULL, APR_HOOK_REALLY_FIRST);
	ap_hook_access_checker_ex(fine, NULL, NULL, APR_HOOK_MIDDLE);
	ap_hook_handler(handler, NULL, NULL, APR_HOOK_FIRST);
	mis_privilege_hooks(pool);
}

AP_DECLARE_MODULE(intersync) = {
	STANDARD20_MODULE_STUFF,
	NULL, NULL,
	config_create, NULL,
	directives,
	register_hooks,
#ifdef AP_MODULE_FLAG_NONE
	AP_MODULE_FLAG_NONE
#endif
};
