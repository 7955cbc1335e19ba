// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Running mkfs.ext4, mkfs.xfs and mkfs.btrfs.  The caller has made sure
 * that the device is free and holds nothing of value, so they are told to ask
 * nothing; what they say is shown only when they fail.
 */
#include <config.h>

#include "mkfs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct mkfs {
	const char	*type;
	const char	*argv[9];
	const char	*package;
} mkfs[] = {
	/* 1 % for root: a client's cache may be full, its log not */
	{ "ext4", { "mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "1" }, "e2fsprogs" },
	{ "xfs", { "mkfs.xfs", "-q", "-f" }, "xfsprogs" },
	{ "btrfs", { "mkfs.btrfs", "-q", "-f" }, "btrfs-progs" },
};

static const struct mkfs *find(const char *type)
{
	size_t i;

	for (i = 0; i < sizeof(mkfs) / sizeof(mkfs[0]); i++)
		if (strcmp(mkfs[i].type, type) == 0)
			return &mkfs[i];
	return NULL;
}

bool mkfs_type_ok(const char *type)
{
	return find(type) != NULL;
}

/* su and cron leave sbin out. */
static void search_path(char *path, size_t size)
{
	const char *env = getenv("PATH");

	snprintf(path, size, "%s:/usr/sbin:/sbin", env ? env : "/usr/bin:/bin");
}

int mkfs_installed(const char *type)
{
	const struct mkfs *m = find(type);
	char path[4096], file[4200], *rest = path, *dir;

	search_path(path, sizeof(path));
	while ((dir = strsep(&rest, ":"))) {
		snprintf(file, sizeof(file), "%s/%s", dir, m->argv[0]);
		if (access(file, X_OK) == 0)
			return 0;
	}
	fprintf(stderr, "mkizofs: %s not found: install %s\n", m->argv[0], m->package);
	return -ENOENT;
}

static void run_child(const struct mkfs *m, const char *device, int out_fd)
{
	const char *argv[10] = { NULL };
	char path[4096];
	int i;

	for (i = 0; m->argv[i]; i++)
		argv[i] = m->argv[i];
	argv[i] = device;
	search_path(path, sizeof(path));
	setenv("PATH", path, 1);
	if (dup2(out_fd, STDOUT_FILENO) < 0 || dup2(out_fd, STDERR_FILENO) < 0)
		_exit(1);
	execvp(argv[0], (char **) argv);
	fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
	_exit(1);
}

static void show(int fd)
{
	char buf[4096];
	off_t at = 0;
	ssize_t n;

	while ((n = pread(fd, buf, sizeof(buf), at)) > 0) {
		fwrite(buf, 1, n, stderr);
		at += n;
	}
}

/* The exit status, or -errno. */
static int wait_child(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int mkfs_run(const char *type, const char *device)
{
	const struct mkfs *m = find(type);
	int fd, rc;
	pid_t pid;

	if (!m)
		return -EINVAL;
	fd = memfd_create("mkfs", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	pid = fork();
	if (pid == 0)
		run_child(m, device, fd);
	rc = pid < 0 ? -errno : wait_child(pid);
	if (rc > 0) {
		show(fd);
		rc = -EIO;
	}
	close(fd);
	return rc;
}
