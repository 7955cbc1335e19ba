// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The core of the daemon: from a mount point to a channel, the lower tree, the
 * log and a state that has taken in all of it.  main.c makes it, the roles
 * live on it.
 */
#include "daemon.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "util.h"

#define BUSY_TRIES	20	/* tenths of a second that the channel may be another's */

static GMainLoop *loop;
static int exit_status = -1;

void isd_core_quit(IsdCore *core, int status, const char *format, ...)
{
	g_autofree char *message = NULL;
	va_list ap;

	va_start(ap, format);
	message = g_strdup_vprintf(format, ap);
	va_end(ap);
	if (*message)
		isd_log(status ? LOG_ERR : LOG_NOTICE, NULL, 0, "%s", message);
	if (exit_status <= 0)
		exit_status = status;
	if (loop)
		g_main_loop_quit(loop);
}

int isd_core_run(IsdCore *core)
{
	loop = g_main_loop_new(NULL, FALSE);
	if (exit_status < 0)
		g_main_loop_run(loop);
	g_clear_pointer(&loop, g_main_loop_unref);
	return exit_status < 0 ? 0 : exit_status;
}

static gboolean no_channel(const char *dir, int rc, GError **error)
{
	const char *hint;

	switch (-rc) {
	case ENOTTY:
		hint = "no InterMezzo file system is mounted there: mount it first "
		       "(mount -t intermezzo ...)";
		break;
	case ECONNREFUSED:
		hint = "the file system's program is gone: unmount and mount it again";
		break;
	case EBUSY:
		hint = "another intersync has it already: see izoctl status";
		break;
	case EPERM:
	case EACCES:
		hint = "only root may reach its channel: run intersync as root";
		break;
	default:
		hint = g_strerror(-rc);
	}
	g_set_error(error, ISD_ERROR, rc == -EBUSY ? ISD_ERROR_BUSY : ISD_ERROR_FATAL,
		    "%s: %s", dir, hint);
	return FALSE;
}

static gboolean take_info(IsdCore *core, ssize_t len, GError **error)
{
	struct izo_info *i = &core->info;

	if (len < (ssize_t) sizeof(*i) || le32toh(i->version) != IZO_CHANNEL_VERSION) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_FATAL,
			    "%s: the mounted file system speaks another version of the channel: "
			    "install file system and intersync from one release", core->dir);
		return FALSE;
	}
	i->fileset[sizeof(i->fileset) - 1] = '\0';
	i->cache_type[sizeof(i->cache_type) - 1] = '\0';
	memcpy(core->fileset, i->fileset, sizeof(core->fileset));
	uuid_format(i->replica_uuid, core->replica);
	core->log_end = le64toh(i->end_offset);
	core->log_recno = le64toh(i->last_recno);
	return TRUE;
}

/* The module gives no descriptor: the mount itself is the way to the tree. */
static gboolean open_channel(IsdCore *core, int *ret_fd, GError **error)
{
	int fd = chan_open(core->dir);
	ssize_t len;

	if (fd < 0)
		return no_channel(core->dir, fd, error);
	len = chan_call(fd, IZO_MSG_INFO, 0, NULL, 0, &core->info, sizeof(core->info),
			&core->root_fd);
	if (len < 0) {
		close(fd);
		return no_channel(core->dir, len, error);
	}
	*ret_fd = fd;
	return take_info(core, len, error);
}

static int open_dir(int at, const char *path)
{
	int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static gboolean open_fileset(IsdCore *core, GError **error)
{
	g_autofree char *meta = g_strdup_printf(".intermezzo/%s", core->fileset);
	int rc;

	if (core->root_fd < 0)
		core->root_fd = open_dir(AT_FDCWD, core->dir);
	rc = core->root_fd < 0 ? core->root_fd : open_dir(core->root_fd, meta);
	if (rc >= 0) {
		core->meta_fd = rc;
		rc = open_dir(core->meta_fd, "incoming");
	}
	if (rc >= 0) {
		core->incoming_fd = rc;
		rc = klog_open(core->meta_fd, "kml", &core->log);
	}
	if (rc >= 0)
		return TRUE;
	g_set_error(error, ISD_ERROR, ISD_ERROR_FATAL, "%s: fileset %s cannot be opened: %s",
		    core->dir, core->fileset, g_strerror(-rc));
	return FALSE;
}

/* For status, check and the like: the fileset without state and main loop. */
IsdCore *isd_core_open(const char *dir, int *ret_channel, GError **error)
{
	IsdCore *core = g_new0(IsdCore, 1);

	core->root_fd = core->meta_fd = core->incoming_fd = -1;
	core->dir = g_canonicalize_filename(dir, NULL);
	*ret_channel = -1;
	if (open_channel(core, ret_channel, error) && open_fileset(core, error))
		return core;
	if (*ret_channel >= 0)
		close(*ret_channel);
	isd_core_free(core);
	return NULL;
}

/* izoctl may have the channel for a moment to look at a fileset without a daemon. */
static IsdCore *open_patiently(const char *dir, int *ret_channel, GError **error)
{
	for (int tries = BUSY_TRIES; ; tries--) {
		g_autoptr(GError) local = NULL;
		IsdCore *core = isd_core_open(dir, ret_channel, &local);

		if (core)
			return core;
		if (!g_error_matches(local, ISD_ERROR, ISD_ERROR_BUSY) || tries == 0) {
			g_propagate_error(error, g_steal_pointer(&local));
			return NULL;
		}
		g_usleep(G_USEC_PER_SEC / 10);
	}
}

/*
 * A client's state also says what the server has of its log, which no log
 * tells: a new one would send everything again, over newer changes of others.
 */
static void cannot_rebuild(IsdCore *core, const char *why, GError **error)
{
	g_set_error(error, ISD_ERROR, ISD_ERROR_FATAL,
		    "%s: the state of the fileset cannot be used (%s): unmount it and take the "
		    "tree in anew with mkizofs -f; the files stay", core->dir, why);
}

/* A server's state is a view of the log: if it is damaged, another one can be made. */
static IsdState *open_state(IsdCore *core, GError **error)
{
	g_autoptr(GError) local = NULL;
	IsdState *s = isd_state_open(core->meta_fd, &local);

	if (s)
		return s;
	if (!g_error_matches(local, ISD_ERROR, ISD_ERROR_DAMAGED)) {
		g_propagate_error(error, g_steal_pointer(&local));
		return NULL;
	}
	if (!core->is_server) {
		cannot_rebuild(core, local->message, error);
		return NULL;
	}
	isd_log(LOG_WARNING, NULL, 0, "%s; it is made anew, the old one is kept as "
		"state.db.damaged", local->message);
	return isd_state_set_aside(core->meta_fd, error) ?
	       isd_state_open(core->meta_fd, error) : NULL;
}

IsdCore *isd_core_new(const char *dir, const char *name, gboolean is_server, GError **error)
{
	int channel;
	IsdCore *core = open_patiently(dir, &channel, error);

	if (!core)
		return NULL;
	core->name = g_strdup(name ? name : g_get_host_name());
	core->is_server = is_server;
	core->channel = isd_channel_new(core, channel);
	isd_log_open(core->fileset, le32toh(core->info.minor));
	core->state = open_state(core, error);
	if (core->state)
		return core;
	isd_core_free(core);
	return NULL;
}

static void gave_back(int error, const void *body, gsize len, gpointer data)
{
	if (error && error != ENOTCONN)
		isd_log(LOG_WARNING, NULL, 0, "the log cannot be given back: %s",
			g_strerror(error));
}

gboolean isd_core_give_back(IsdCore *core, guint64 offset, guint64 recno, GError **error)
{
	struct izo_pos pos = { GUINT64_TO_LE(offset), GUINT64_TO_LE(recno) };

	if (!isd_state_sync(core->state, error))
		return FALSE;
	core->info.first_offset = pos.offset;	/* nobody is to rely on it from now on */
	isd_channel_request(core->channel, IZO_MSG_PUNCH, 0, &pos, sizeof(pos), gave_back, NULL);
	return TRUE;
}

void isd_core_free(IsdCore *core)
{
	if (!core)
		return;
	isd_channel_free(core->channel);
	isd_state_close(core->state);
	if (core->log)
		klog_close(core->log);
	if (core->incoming_fd >= 0)
		close(core->incoming_fd);
	if (core->meta_fd >= 0)
		close(core->meta_fd);
	if (core->root_fd >= 0)
		close(core->root_fd);
	g_free(core->dir);
	g_free(core->name);
	g_free(core);
}

/* Why the state cannot be gone on with; NULL if it can; and if error, neither. */
static const char *unusable(IsdCore *core, const struct klog_header *h, GError **error)
{
	guint64 loaded, epoch, at, end, recno;
	g_autofree char *replica = NULL;

	if (!isd_state_get_u64(core->state, "base_loaded", &loaded, error) ||
	    !isd_state_get_u64(core->state, "epoch", &epoch, error) ||
	    !isd_state_get_u64(core->state, "local_offset", &at, error) ||
	    !isd_state_get_text(core->state, "replica", &replica, error))
		return NULL;
	if (!loaded || at == 0)
		return "the state is empty";
	if (g_strcmp0(replica, core->replica) || epoch != h->epoch)
		return "the log began anew";
	if (klog_end(core->log, &end, &recno) == 0 && at > end)
		return "the end of the log was lost in a crash";
	return NULL;
}

/*
 * What is in base and all of the log are the state.  Once the front of the log
 * was given back that is no longer enough.
 */
static gboolean rebuild(IsdCore *core, const struct klog_header *h, const char *why,
			GError **error)
{
	guint64 objects, bytes, pushed = 0;

	if (!core->is_server &&
	    !isd_state_get_u64(core->state, "push_recno", &pushed, error))
		return FALSE;
	if (h->first_recno > 1 || pushed) {
		cannot_rebuild(core, why, error);
		return FALSE;
	}
	if (!isd_state_load_base(core->state, core->meta_fd, error) ||
	    !isd_state_set_u64(core->state, "epoch", h->epoch, error) ||
	    !isd_state_set_text(core->state, "replica", core->replica, error) ||
	    !isd_state_set_u64(core->state, "local_offset", h->first_offset, error) ||
	    !isd_state_counts(core->state, &objects, &bytes, error))
		return FALSE;
	isd_log(LOG_NOTICE, NULL, 0, "state made anew from %" G_GUINT64_FORMAT
		" objects (%s)", objects, why);
	return TRUE;
}

gboolean isd_core_load(IsdCore *core, GError **error)
{
	g_autoptr(GError) local = NULL;
	struct klog_header h;
	const char *why;
	int rc = klog_header(core->log, &h);

	if (rc < 0) {
		g_set_error(error, ISD_ERROR, ISD_ERROR_FATAL, "%s: kml: %s", core->dir,
			    g_strerror(-rc));
		return FALSE;
	}
	why = unusable(core, &h, &local);
	if (local) {
		g_propagate_error(error, g_steal_pointer(&local));
		return FALSE;
	}
	return (!why || rebuild(core, &h, why, error)) &&
	       isd_state_get_u64(core->state, "local_offset", &core->applied, error);
}
