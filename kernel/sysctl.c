// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * /proc/sys/intermezzo (man/intermezzo.4): messages for all, and for each channel what can be
 * set while it is mounted, what the last recovery looked at, and where it is to fail.
 *
 * Failing (errorval) is for tests: at the Nth passage of a point with a name the mounted
 * file system dies as if its machine had been switched off at that moment, but for what
 * the lower file system has in memory.  Nothing is written to the log from then on, and
 * what would have to be answers EIO; unmounting and mounting again recovers.
 */
#include "journal.h"

#include "compat/sysctl.h"

unsigned int izo_debug_mask, izo_trace_ops;

static const char *const fault_names[] = {
	"before-intent", "before-op", "after-op", "after-record", "after-append",
	"after-openw", "reint-mid", "reint-replaced", "reint-patch", "last-rcvd",
};

struct izo_sysctl {
	struct ctl_table_header	*header;
	struct izo_sb		*sbi;
	struct mutex		lock;		/* one reader or writer of errorval at a time */
	char			errorval[40];
	char			recovery[160];
	struct ctl_table	table[7];
};

/* For all */

static struct ctl_table_header *global_header;

static struct ctl_table global_table[] = {
	{
		.procname	= "debug",
		.data		= &izo_debug_mask,
		.maxlen		= sizeof(izo_debug_mask),
		.mode		= 0644,
		.proc_handler	= proc_douintvec,
	}, {
		.procname	= "trace",
		.data		= &izo_trace_ops,
		.maxlen		= sizeof(izo_trace_ops),
		.mode		= 0644,
		.proc_handler	= proc_douintvec,
	},
	{}
};

/* A kernel without /proc/sys has none of it. */
void izo_sysctl_init(void)
{
	global_header = izo_register_sysctl("intermezzo", global_table,
					    ARRAY_SIZE(global_table) - 1);
}

void izo_sysctl_exit(void)
{
	if (global_header)
		unregister_sysctl_table(global_header);
}

/* Failing */

/* True at the moment when it happens. */
bool izo_fault_hit(struct izo_sb *sbi, const char *name)
{
	if (strcmp(READ_ONCE(sbi->fault), name) != 0 ||
	    atomic_dec_return(&sbi->fault_left) != 0)
		return false;
	pr_notice("%s: fails at %s, as errorval says\n", sbi->params.fileset, name);
	izo_journal_die(sbi->journal);
	return true;
}

static int fault_set(struct izo_sb *sbi, char *arg)
{
	char *colon = strchr(arg, ':');
	int n = 1, k;

	if (colon) {
		*colon = 0;
		if (kstrtoint(colon + 1, 10, &n) || n < 1)
			return -EINVAL;
	}
	if (!*arg || strcmp(arg, "none") == 0) {
		WRITE_ONCE(sbi->fault, NULL);
		return 0;
	}
	k = match_string(fault_names, ARRAY_SIZE(fault_names), arg);
	if (k < 0)
		return -EINVAL;
	atomic_set(&sbi->fault_left, n);
	WRITE_ONCE(sbi->fault, fault_names[k]);
	return 0;
}

static void fault_tell(struct izo_sysctl *s)
{
	struct izo_sb *sbi = s->sbi;

	if (!sbi->fault)
		strscpy(s->errorval, "none", sizeof(s->errorval));
	else if (izo_dead(sbi))
		snprintf(s->errorval, sizeof(s->errorval), "%s", sbi->fault);
	else
		snprintf(s->errorval, sizeof(s->errorval), "%s:%d", sbi->fault,
			 atomic_read(&sbi->fault_left));
}

static int do_errorval(izo_ctl_table *table, int write, void *buf, size_t *len, loff_t *pos)
{
	struct izo_sysctl *s = container_of(table->data, struct izo_sysctl, errorval);
	int err;

	mutex_lock(&s->lock);
	if (!write)
		fault_tell(s);
	err = proc_dostring(table, write, buf, len, pos);
	if (!err && write)
		err = izo_dead(s->sbi) ? -EIO : fault_set(s->sbi, strim(s->errorval));
	mutex_unlock(&s->lock);
	return err;
}

/* For a channel */

static void set_table(struct izo_sysctl *s)
{
	struct izo_sb *sbi = s->sbi;
	struct ctl_table *t = s->table;

	*t++ = (struct ctl_table) {
		.procname = "timeout", .data = &sbi->timeout, .maxlen = sizeof(sbi->timeout),
		.mode = 0644, .proc_handler = proc_douintvec,
	};
	*t++ = (struct ctl_table) {
		.procname = "close_after", .data = &sbi->close_after,
		.maxlen = sizeof(sbi->close_after), .mode = 0644, .proc_handler = proc_douintvec,
	};
	*t++ = (struct ctl_table) {
		.procname = "close_every", .data = &sbi->close_every,
		.maxlen = sizeof(sbi->close_every), .mode = 0644, .proc_handler = proc_douintvec,
	};
	*t++ = (struct ctl_table) {
		.procname = "checkpoint_every", .data = &sbi->checkpoint_every,
		.maxlen = sizeof(sbi->checkpoint_every), .mode = 0644,
		.proc_handler = proc_douintvec,
	};
	*t++ = (struct ctl_table) {
		.procname = "errorval", .data = s->errorval, .maxlen = sizeof(s->errorval),
		.mode = 0644, .proc_handler = do_errorval,
	};
	*t++ = (struct ctl_table) {
		.procname = "recovery", .data = s->recovery, .maxlen = sizeof(s->recovery),
		.mode = 0444, .proc_handler = proc_dostring,
	};
}

static void tell_recovery(struct izo_sysctl *s)
{
	const struct izo_recovery_counts *n = &s->sbi->journal->recovered;

	snprintf(s->recovery, sizeof(s->recovery),
		 "entries %llu slots %llu closed %llu looked %llu records %llu members %llu below %llu",
		 n->entries, n->slots, n->closed, n->looked, n->records, n->members, n->below);
}

int izo_sysctl_open(struct izo_sb *sbi, const char *channel)
{
	struct izo_sysctl *s = kzalloc(sizeof(*s), GFP_KERNEL);
	char path[64];

	if (!s)
		return -ENOMEM;
	s->sbi = sbi;
	mutex_init(&s->lock);
	set_table(s);
	tell_recovery(s);
	snprintf(path, sizeof(path), "intermezzo/%s", channel);
	s->header = izo_register_sysctl(path, s->table, ARRAY_SIZE(s->table) - 1);
	sbi->sysctl = s;
	return 0;
}

/* Waits for who reads or writes one of them. */
void izo_sysctl_close(struct izo_sb *sbi)
{
	if (!sbi->sysctl)
		return;
	if (sbi->sysctl->header)
		unregister_sysctl_table(sbi->sysctl->header);
	kfree(sbi->sysctl);
	sbi->sysctl = NULL;
}
