/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The simulated world of the model test: a clock, hosts with trees and logs,
 * and a network, in one process.  The sync engine of intersync/ and the serving
 * library of httpd/ run in it as they are; what they ask of the system is answered
 * here by link-time replacement (tests/model/README.md).
 */
#ifndef TESTS_MODEL_SIM_H
#define TESTS_MODEL_SIM_H

#include <sys/stat.h>

#include "daemon.h"
#include "gate.h"

#define HOSTS_MAX	8
#define SERVER		0
#define FILESET		"model"

/* --- loop.c: the clock, what is due, chance --- */

struct host {
	guint		index;		/* 0: the server */
	char		name[8];
	char		*dir;
	int		root_fd, meta_fd, incoming_fd, kml_fd;
	struct klog_header head;
	guint64		kml_end, recno;	/* of the log */
	guint64		seq;		/* of the last operation */
	GQueue		lml;		/* GByteArray: records that are not in the log yet */
	gboolean	draining;	/* they will be soon */
	guint64		last_ino;
	GArray		*free_inos;	/* guint64: are used again */
	gboolean	clones;		/* the lower file system can clone files */
	GHashTable	*held;		/* path -> struct held */
	IsdCore		*core;		/* NULL: no daemon runs */
	struct IsdChannel *channel;
	struct IsdFetcher *fetcher;
	gboolean	up;		/* its network */
	guint		lose_request, lose_answer, lose_middle;	/* so many of the next */
	guint64		kill_in;	/* passes of fault points; 0: not */
	gboolean	full;		/* its disk */
	char		*quit;		/* why its daemon ended by itself */
};

extern struct host *sim_current;	/* whose code runs; NULL: the world's */
extern struct host sim_hosts[HOSTS_MAX];
extern guint sim_n_hosts;

void sim_reset(guint64 seed);
gint64 sim_now(void);			/* microseconds */
gint64 sim_stamp(void);			/* nanoseconds, never the same twice */
struct kml_time sim_time(gint64 ns);
guint32 sim_random(guint32 below);
/* Call func once, later, as that host (NULL: as the world). */
guint sim_after(struct host *h, gint64 us, GSourceFunc func, gpointer data);
void sim_cancel(guint id);
void sim_drop_sources(const struct host *h);
/* The next thing that is due, at most at `until`; FALSE: there is none. */
gboolean sim_step(gint64 until);
/* A daemon dies here: back to sim_step(), without coming back. */
void sim_die(void) G_GNUC_NORETURN;

/* One line of what happens, with --trace. */
extern gboolean sim_traces;
void sim_trace(const struct host *h, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* --- fs.c: trees --- */

/* What the simulation knows of an inode beside what tmpfs does. */
struct vnode {
	guint64		real;		/* its number on tmpfs */
	struct host	*host;
	guint64		ino;
	guint32		gen;
	gint64		ctime;		/* nanoseconds */
	guint		writers;	/* that hold it open */
};

/* A name in a directory, which is open. */
struct where {
	int		fd;
	char		*path;		/* of the directory */
	char		*name;
	struct kml_oid	oid;		/* of the directory */
};

/* What is there. */
struct seen {
	gboolean	exists;
	struct stat	st;		/* with the numbers of the simulation */
	struct kml_oid	oid;
	struct vnode	*v;
};

void fs_reset(void);
void fs_host_make(struct host *h, const char *top, guint index);
void fs_host_free(struct host *h);
/* tmpfs has a new inode at fd/name ("": fd itself), or one that comes from incoming/. */
struct vnode *fs_vnode_new(struct host *h, int fd, const char *name);
void fs_vnode_gone(struct vnode *v);
void fs_look(int dirfd, const char *name, struct seen *ret);

int fs_where(struct host *h, const char *path, struct where *ret);
int fs_where_in(struct host *h, const char *dir, const char *name, struct where *ret);
void fs_where_clear(struct where *w);
typedef struct where Where;
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Where, fs_where_clear)

/* Times of objects; ctime moves. */
void fs_changed(struct seen *s);
void fs_set_mtime(int fd, const char *name, gint64 ns);
gint64 fs_get_mtime(int fd);
void fs_dir_changed(struct where *w, gint64 ns);

/* A record of an operation at w, numbered; then its way to the log. */
struct kml_record fs_record(struct host *h, guint opcode, const struct where *w);
void fs_record_target(struct kml_record *r, const struct where *t);
void fs_record_ptime(struct kml_record *r, const struct where *w, const struct where *t);
void fs_log(struct host *h, struct kml_record *r);
/* All that is done is in the log now. */
void fs_drain(struct host *h);

/* Of the content of a file: what tells it from all others. */
char *fs_content_key(int fd);

/* --- ops.c: what programs do --- */

int op_write(struct host *h, const char *path, const char *text);
int op_append(struct host *h, const char *path, const char *text);
int op_patch(struct host *h, const char *path, guint off, const char *text);
int op_truncate(struct host *h, const char *path, guint size);
int op_big(struct host *h, const char *path, const char *text);
int op_save(struct host *h, const char *path, const char *text);
int op_hold(struct host *h, const char *path, const char *text);
int op_release(struct host *h, const char *path);
void op_release_all(struct host *h);
int op_mkdir(struct host *h, const char *path);
int op_rmdir(struct host *h, const char *path);
int op_unlink(struct host *h, const char *path);
int op_symlink(struct host *h, const char *path, const char *text);
int op_link(struct host *h, const char *path, const char *to);
int op_rename(struct host *h, const char *path, const char *to);
int op_exchange(struct host *h, const char *path, const char *to);
int op_chmod(struct host *h, const char *path, guint mode);
int op_utime(struct host *h, const char *path);
int op_setxattr(struct host *h, const char *path, const char *name, const char *value);
int op_rmxattr(struct host *h, const char *path, const char *name);
/* With open directories; flags of renameat2(). */
int op_rename_at(struct host *h, struct where *w, struct where *t, guint flags);
int op_link_at(struct host *h, struct where *w, struct where *t);
int op_unlink_at(struct host *h, struct where *w, int flags);
/* ns -1: to what it is. */
int op_utime_at(struct host *h, struct where *w, gint64 ns);

/* --- reint.c, channel.c --- */

/* body as in the message; reply gets that of the answer.  An errno. */
int reint_apply(struct host *h, const guint8 *body, gsize len, GByteArray *reply);
void channel_grew(struct host *h);
/* The daemon is gone; what it had sent may still be done. */
void channel_drop(struct IsdChannel *c);

/* --- net.c, serve.c: the network, and what httpd does --- */

typedef struct {
	guint		status;
	GHashTable	*headers;	/* lower case */
	GByteArray	*body;
	gboolean	broken;		/* broken off */
	gboolean	waits;		/* a long poll: comes later */
	guint64		after;		/* of it */
	guint		seconds;
} Answer;

typedef struct {
	const char	*method;
	const char	*path;
	guint8		*body;
	gsize		len;
	gboolean	cut;		/* the body ended early */
	GHashTable	*headers;	/* what the peer says of itself, lower case */
} Ask;

Answer *answer_new(void);
void answer_free(Answer *a);
void serve_reset(void);
/* The daemon behind httpd was killed. */
void serve_stop(void);
void serve(const Ask *ask, Answer *ret);
/* The answer to a long poll that is over. */
void serve_kml(const Ask *ask, Answer *ret);
/* The log that clients see has grown to here. */
void net_moved(guint64 end);
/* Requests of a host that is killed are nobody's any more; those to a killed server fail. */
void net_drop(struct host *h);
void net_down(struct host *h);

/* --- host.c: daemons --- */

gboolean host_start(struct host *h, char **ret_why);
void host_kill(struct host *h);
/* Its state as it is now is what a power cut leaves of it. */
void host_keep_state(struct host *h);
/*
 * The machine stops.  What SQLite had not made durable is gone, the tree and the log, which the
 * journal of the file system took along, are not.
 */
void host_power_cut(struct host *h);
/* Everything up and released; until all have all.  NULL, or what is wrong. */
char *host_rest(void);

/* --- versions.c: the model of what may be lost --- */

void versions_reset(void);
void versions_written(const struct host *h, char *key);
/* A program that saw this content put an end to it. */
void versions_ended(const char *key);
/* Which of the written contents is nowhere in the server's tree?  NULL: none. */
char *versions_lost(GHashTable *present);

/* --- verify.c --- */

/* NULL, or what is wrong at rest; conflicts: whether there may be any. */
char *verify(gboolean conflicts_allowed);

/* --- history.c --- */

typedef struct {
	guint64		seed;
	guint		hosts;
	gboolean	single;		/* one writer: no conflict is right */
	GPtrArray	*events;	/* of char *: "MILLISECONDS HOST WHAT ..." */
} History;

typedef struct {
	guint		hosts;		/* with the server; 0: any */
	const char	*ops;		/* which, comma-separated; NULL: all */
	guint		length;		/* at most so many events; 0: any */
	gboolean	single;
} Recipe;

History *history_random(guint64 seed, const Recipe *recipe);
History *history_read(const char *file, GError **error);
char *history_text(const History *h);
History *history_copy(const History *h);
void history_free(History *h);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(History, history_free)
const char *history_ops(void);
/* In the middle of what the daemon of h does. */
void history_intrude(struct host *h);
/* Run it in a directory of its own; NULL, or what is wrong. */
char *history_run(const History *h, const char *top);

#endif
