// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Mount options: ours, those that everybody has, those that are for mount(8)
 * and fstab alone, and the rest, which belongs to the lower file system.
 */
#include <config.h>

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "mount.h"
#include "util.h"

#define MINOR_MAX	1023

/*
 * What a flag of mount(8) does.  Access times are kept by the lower file system;
 * the other flags belong to the mount that people see.  The lower one is
 * never read-only, or a read-only replica could not follow its server.
 */
static const struct flag {
	const char	*name;
	unsigned long	set, clear;
	unsigned int	lower;		/* replaces the time setting of the lower mount */
	bool		fuse;
} flags[] = {
	{ "ro", MS_RDONLY, 0, 0, true },
	{ "rw", 0, MS_RDONLY },
	{ "nosuid", MS_NOSUID, 0, 0, true },
	{ "suid", 0, MS_NOSUID },
	{ "nodev", MS_NODEV, 0, 0, true },
	{ "dev", 0, MS_NODEV },
	{ "noexec", MS_NOEXEC, 0, 0, true },
	{ "exec", 0, MS_NOEXEC },
	{ "sync", MS_SYNCHRONOUS, 0, 0, true },
	{ "async", 0, MS_SYNCHRONOUS },
	{ "dirsync", MS_DIRSYNC, 0, 0, true },
	{ "noatime", MS_NOATIME, MS_STRICTATIME, MOUNT_ATTR_NOATIME },
	{ "atime", 0, MS_NOATIME },
	{ "strictatime", MS_STRICTATIME, MS_NOATIME, MOUNT_ATTR_STRICTATIME },
	{ "relatime", MS_RELATIME, MS_NOATIME | MS_STRICTATIME, MOUNT_ATTR_RELATIME },
	{ "nodiratime", MS_NODIRATIME },
	{ "diratime", 0, MS_NODIRATIME },
};

/* For mount(8), fstab and systemd alone. */
static const char *const ignored[] = {
	"defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group",
	"_netdev", "silent", "loud", "mand", "nomand", "norelatime",
	"nostrictatime", "lazytime", "nolazytime", "_rnetdev",
};

static const char *const ignored_prefixes[] = {
	"x-", "X-", "comment=", "user=", "uhelper=", "helper=",
};

static int append(char **list, const char *option)
{
	char *old = *list;

	if (asprintf(list, "%s%s%s", old ? old : "", old ? "," : "", option) < 0) {
		*list = old;
		say("%s", strerror(ENOMEM));
		return EX_SYSERR;
	}
	free(old);
	return 0;
}

static int set_string(char **member, const char *name, const char *value)
{
	if (!*value) {
		say("option %s needs a value", name);
		return EX_USAGE;
	}
	free(*member);
	*member = strdup(value);
	if (*member)
		return 0;
	say("%s", strerror(ENOMEM));
	return EX_SYSERR;
}

static int set_backend(struct mount_options *o, const char *value)
{
	static const char *const names[] = { "auto", "kernel", "fuse" };
	int i;

	for (i = 0; i < 3; i++) {
		if (strcmp(value, names[i]) == 0) {
			o->backend = i;
			return 0;
		}
	}
	say("backend=%s: auto, kernel or fuse", value);
	return EX_USAGE;
}

/* channel= and the prestodev= of old: /dev/intermezzoN, or N */
static int set_minor(struct mount_options *o, const char *name, const char *value)
{
	static const char device[] = "/dev/intermezzo";
	const char *digits = value;
	size_t len;

	if (strncmp(digits, device, strlen(device)) == 0)
		digits += strlen(device);
	len = strlen(digits);
	if (!len || len > 4 || strspn(digits, "0123456789") != len || atoi(digits) > MINOR_MAX) {
		say("%s=%s: must be /dev/intermezzo0 to /dev/intermezzo%d", name, value,
		    MINOR_MAX);
		return EX_USAGE;
	}
	o->minor = atoi(digits);
	return 0;
}

/* 0 and *ret_known, or an exit status */
static int own_option(struct mount_options *o, const char *name, const char *value,
		      bool *ret_known)
{
	*ret_known = true;
	if (strcmp(name, "fileset") == 0)
		return set_string(&o->fileset, name, value);
	if (strcmp(name, "cache_type") == 0)
		return set_string(&o->cache_type, name, value);
	if (strcmp(name, "mtpt") == 0)
		return set_string(&o->mtpt, name, value);
	if (strcmp(name, "lowerdir") == 0)
		return set_string(&o->lowerdir, name, value);
	if (strcmp(name, "backend") == 0)
		return set_backend(o, value);
	if (strcmp(name, "channel") == 0 || strcmp(name, "prestodev") == 0)
		return set_minor(o, name, value);
	if (strcmp(name, "loop") == 0) {
		o->loop = true;
		return 0;
	}
	if (strcmp(name, "nofail") == 0) {
		o->nofail = true;
		return 0;
	}
	*ret_known = false;
	return 0;
}

static bool flag_option(struct mount_options *o, const char *option)
{
	const struct flag *f;
	size_t i;

	for (i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		f = &flags[i];
		if (strcmp(option, f->name))
			continue;
		o->flags = (o->flags & ~f->clear) | f->set;
		if ((f->set | f->clear) & (MS_NOATIME | MS_STRICTATIME))
			o->lower_attrs = (o->lower_attrs & ~MOUNT_ATTR__ATIME) | f->lower;
		if ((f->set | f->clear) & MS_NODIRATIME)
			o->lower_attrs = f->set ? o->lower_attrs | MOUNT_ATTR_NODIRATIME :
						  o->lower_attrs & ~MOUNT_ATTR_NODIRATIME;
		return true;
	}
	return false;
}

static bool ignored_option(const char *option)
{
	size_t i;

	for (i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		if (strcmp(option, ignored[i]) == 0)
			return true;
	for (i = 0; i < sizeof(ignored_prefixes) / sizeof(ignored_prefixes[0]); i++)
		if (strncmp(option, ignored_prefixes[i], strlen(ignored_prefixes[i])) == 0)
			return true;
	return false;
}

static int parse_one(struct mount_options *o, const char *option)
{
	const char *eq = strchr(option, '=');
	char name[64];
	bool known;
	int rc;

	if (!*option || flag_option(o, option) || ignored_option(option))
		return 0;
	snprintf(name, sizeof(name), "%.63s", option);
	name[strcspn(name, "=")] = 0;
	rc = own_option(o, name, eq ? eq + 1 : "", &known);
	if (rc || known)
		return rc;
	return append(&o->lower, option);
}

int options_parse(struct mount_options *o, const char *text)
{
	char *copy, *rest, *option;
	int rc = 0;

	copy = rest = strdup(text);
	if (!copy) {
		say("%s", strerror(ENOMEM));
		return EX_SYSERR;
	}
	while (!rc && (option = strsep(&rest, ",")))
		rc = parse_one(o, option);
	free(copy);
	return rc;
}

static int check_mtpt(const struct mount_options *o)
{
	char mtpt[PATH_MAX], dir[PATH_MAX];

	if (!o->mtpt || !realpath(o->dir, dir))
		return 0;
	if (realpath(o->mtpt, mtpt) && strcmp(mtpt, dir) == 0)
		return 0;
	say("mtpt=%s is not the mount point %s; leave mtpt= out", o->mtpt, o->dir);
	return EX_USAGE;
}

int options_check(struct mount_options *o)
{
	size_t i;
	int rc;

	if (o->fileset && !fileset_name_ok(o->fileset)) {
		say("fileset=%s: no name for a fileset", o->fileset);
		return EX_USAGE;
	}
	if (o->virtual && o->lowerdir) {
		say("lowerdir= is for the type intermezzo: vintermezzo is over a file system of its own");
		return EX_USAGE;
	}
	for (i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		if (!flags[i].fuse || !(o->flags & flags[i].set))
			continue;
		rc = append(&o->fuse, flags[i].name);
		if (rc)
			return rc;
	}
	return check_mtpt(o);
}

void options_free(struct mount_options *o)
{
	free(o->fileset);
	free(o->cache_type);
	free(o->mtpt);
	free(o->lowerdir);
	free(o->fuse);
	free(o->lower);
}
