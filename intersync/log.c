// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Logging: one line per change of state, to the journal with fields (or
 * syslog), to the fileset's own log file, or to stderr in the foreground.
 */
#include "daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

unsigned int isd_debug_bits;

static gboolean to_stderr = TRUE, to_system;
static char *log_fileset, *log_path;
static int log_fd = -1;

void isd_log_init(gboolean foreground)
{
	to_system = !foreground;
	if (to_system)
		openlog("intersync", LOG_PID, LOG_DAEMON);
}

void isd_log_background(void)
{
	to_stderr = FALSE;
}

void isd_log_reopen(void)
{
	if (!log_path)
		return;
	if (log_fd >= 0)
		close(log_fd);
	log_fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
	if (log_fd < 0)
		isd_log(LOG_WARNING, NULL, 0, "%s: %s", log_path, g_strerror(errno));
}

void isd_log_open(const char *fileset, guint minor)
{
	g_free(log_fileset);
	log_fileset = g_strdup(fileset);
	if (!to_system)
		return;
	g_free(log_path);
	log_path = g_strdup_printf("%s/%s-%u.log", ISD_LOG_DIR, fileset, minor);
	g_mkdir_with_parents(ISD_LOG_DIR, 0750);
	isd_log_reopen();
}

static void write_all(int fd, const char *line, gsize len)
{
	while (len) {
		ssize_t n = write(fd, line, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		line += n;
		len -= n;
	}
}

static void write_file(int priority, const char *what, const char *message)
{
	static const char *const names[] = {
		"emerg", "alert", "crit", "error", "warning", "notice", "info", "debug"
	};
	g_autoptr(GDateTime) now = g_date_time_new_now_utc();
	g_autofree char *time = g_date_time_format(now, "%Y-%m-%dT%H:%M:%S.%fZ");
	g_autofree char *line = g_strdup_printf("%s %s:%s %s\n", time, names[priority & 7],
						what, message);

	write_all(log_fd, line, strlen(line));
}

static void write_system(int priority, const char *peer, guint64 recno, const char *what,
			 const char *message)
{
	g_autofree char *prio = g_strdup_printf("%d", priority);
	g_autofree char *number = g_strdup_printf("%" G_GUINT64_FORMAT, recno);
	g_autofree char *text = g_strdup_printf("%s:%s %s", log_fileset ? log_fileset : "-",
						what, message);
	GLogField fields[] = {
		{ "MESSAGE", text, -1 },
		{ "PRIORITY", prio, -1 },
		{ "SYSLOG_IDENTIFIER", "intersync", -1 },
		{ "INTERSYNC_FILESET", log_fileset ? log_fileset : "", -1 },
		{ "INTERSYNC_PEER", peer ? peer : "", -1 },
		{ "INTERSYNC_RECNO", number, -1 },
	};

	if (g_log_writer_journald(G_LOG_LEVEL_MESSAGE, fields, G_N_ELEMENTS(fields), NULL) !=
	    G_LOG_WRITER_HANDLED)
		syslog(priority, "%s", text);
}

/* " peer NAME record 17", or nothing */
static char *subject(const char *peer, guint64 recno)
{
	GString *s = g_string_new(NULL);

	if (peer)
		g_string_append_printf(s, " peer %s", peer);
	if (recno)
		g_string_append_printf(s, " record %" G_GUINT64_FORMAT, recno);
	if (s->len)
		g_string_append_c(s, ':');
	return g_string_free(s, FALSE);
}

void isd_log(int priority, const char *peer, guint64 recno, const char *format, ...)
{
	g_autofree char *message = NULL, *what = subject(peer, recno);
	va_list ap;

	va_start(ap, format);
	message = g_strdup_vprintf(format, ap);
	va_end(ap);
	if (to_stderr && (!to_system || priority <= LOG_WARNING)) {
		g_autofree char *line = g_strdup_printf("intersync:%s%s%s%s %s\n",
			log_fileset ? " " : "", log_fileset ? log_fileset : "",
			log_fileset ? ":" : "", what, message);

		write_all(STDERR_FILENO, line, strlen(line));
	}
	if (to_system)
		write_system(priority, peer, recno, what, message);
	if (log_fd >= 0)
		write_file(priority, what, message);
}
