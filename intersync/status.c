// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What `izoctl status --json` says about the core: fileset, log, state.  Used by
 * the control socket, and by izoctl itself when no daemon runs.
 */
#include "daemon.h"

#include <endian.h>
#include <stdio.h>
#include <unistd.h>

#include "util.h"

void isd_core_saw_log(IsdCore *core, const struct izo_pos *pos)
{
	if (le64toh(pos->offset) <= core->log_end)
		return;
	core->log_end = le64toh(pos->offset);
	core->log_recno = le64toh(pos->recno);
}

void isd_json_text(JsonBuilder *b, const char *name, const char *value)
{
	g_autofree char *valid = g_utf8_make_valid(value ? value : "", -1);

	json_builder_set_member_name(b, name);
	json_builder_add_string_value(b, valid);
}

void isd_json_number(JsonBuilder *b, const char *name, guint64 value)
{
	json_builder_set_member_name(b, name);
	json_builder_add_int_value(b, value);
}

static void position(JsonBuilder *b, const char *name, guint64 offset, guint64 recno)
{
	json_builder_set_member_name(b, name);
	json_builder_begin_object(b);
	isd_json_number(b, "offset", offset);
	isd_json_number(b, "recno", recno);
	json_builder_end_object(b);
}

/* Resident memory in bytes; 0 where it cannot be known. */
static guint64 resident(void)
{
	unsigned long size, pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (!f)
		return 0;
	if (fscanf(f, "%lu %lu", &size, &pages) != 2)
		pages = 0;
	fclose(f);
	return (guint64) pages * sysconf(_SC_PAGESIZE);
}

static void state_status(IsdCore *core, JsonBuilder *b)
{
	guint64 objects, bytes, recno, at;

	if (!isd_state_counts(core->state, &objects, &bytes, NULL) ||
	    !isd_state_get_u64(core->state, "local_recno", &recno, NULL) ||
	    !isd_state_get_u64(core->state, "local_offset", &at, NULL))
		return;
	position(b, "applied", at, recno);
	isd_json_number(b, "objects", objects);
	isd_json_number(b, "bytes", bytes);
}

void isd_core_status(IsdCore *core, JsonBuilder *b)
{
	struct klog_header h;
	char uuid[UUID_TEXT];

	uuid_format(core->info.fileset_uuid, uuid);
	isd_json_text(b, "fileset", core->fileset);
	isd_json_text(b, "fileset_uuid", uuid);
	isd_json_text(b, "replica", core->replica);
	isd_json_text(b, "dir", core->dir);
	if (core->name) {
		isd_json_text(b, "name", core->name);
		isd_json_text(b, "role", core->is_server ? "server" : "client");
		isd_json_number(b, "pid", getpid());
		isd_json_number(b, "resident", resident());
	}
	isd_json_text(b, "mode", "replicate");
	isd_json_text(b, "backend",
		      le32toh(core->info.flags) & IZO_INFO_F_FUSE ? "fuse" : "kernel");
	isd_json_text(b, "lower", (const char *) core->info.cache_type);
	isd_json_number(b, "minor", le32toh(core->info.minor));
	isd_json_number(b, "epoch", le64toh(core->info.epoch));
	position(b, "log", core->log_end, core->log_recno);
	if (klog_header(core->log, &h) == 0)
		position(b, "log_first", h.first_offset, h.first_recno);
	if (core->state)
		state_status(core, b);
}
