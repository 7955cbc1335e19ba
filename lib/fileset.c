// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Making and finding filesets.  A new one is made as .intermezzo/.new and then
 * renamed: what an interrupted run leaves is no fileset, and the next
 * run removes it.
 */
#include <config.h>

#include "fileset.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "klog.h"
#include "util.h"

#define META	".intermezzo"
#define NEW	".new"

static int open_dir(int dirfd, const char *name)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/*
 * Remove what is at name, a tree perhaps.  Only what is below .intermezzo is ever
 * removed: a few directories, not deep, so recursion is fine.
 */
static int remove_tree(int dirfd, const char *name)
{
	struct dirent *d;
	int fd, rc = 0;
	DIR *dir;

	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	fd = open_dir(dirfd, name);
	if (fd < 0)
		return fd;
	dir = fdopendir(fd);
	if (!dir) {
		rc = -errno;
		close(fd);
		return rc;
	}
	while (!rc && (errno = 0, d = readdir(dir)))
		if (strcmp(d->d_name, ".") && strcmp(d->d_name, ".."))
			rc = remove_tree(fd, d->d_name);
	if (!rc && errno)
		rc = -errno;
	closedir(dir);
	if (!rc && unlinkat(dirfd, name, AT_REMOVEDIR))
		rc = -errno;
	return rc;
}

static int is_fileset(int meta_fd, const char *name)
{
	char path[80];

	if (!fileset_name_ok(name))
		return 0;
	snprintf(path, sizeof(path), "%.63s/kml", name);
	return faccessat(meta_fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

int fileset_exists(int root_fd, const char *name)
{
	int fd = open_dir(root_fd, META), rc;

	if (fd < 0)
		return fd == -ENOTDIR || fd == -ELOOP ? -ENOENT : fd;
	rc = is_fileset(fd, name) ? 0 : -ENOENT;
	close(fd);
	return rc;
}

/* Call each() for every fileset until it returns nonzero; that is the result. */
static int for_each_fileset(int root_fd, int (*each)(int meta_fd, const char *name, void *data),
			    void *data)
{
	int fd = open_dir(root_fd, META), rc = 0;
	struct dirent *d;
	DIR *dir;

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	dir = fdopendir(fd);
	if (!dir) {
		rc = -errno;
		close(fd);
		return rc;
	}
	while (!rc && (errno = 0, d = readdir(dir)))
		if (is_fileset(fd, d->d_name))
			rc = each(fd, d->d_name, data);
	if (!rc && errno)
		rc = -errno;
	closedir(dir);
	return rc;
}

static int take_name(int meta_fd, const char *name, void *data)
{
	char *ret_name = data;

	if (*ret_name)
		return -ENOTUNIQ;
	snprintf(ret_name, 64, "%s", name);
	return 0;
}

int fileset_find(int root_fd, char ret_name[64])
{
	int rc;

	*ret_name = 0;
	rc = for_each_fileset(root_fd, take_name, ret_name);
	if (rc)
		return rc;
	return *ret_name ? 0 : -ENOENT;
}

static int check_idle(int meta_fd, const char *name, void *data)
{
	char path[80];
	int fd, rc = 0;

	snprintf(path, sizeof(path), "%.63s/kml", name);
	fd = openat(meta_fd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB))
		rc = errno == EWOULDBLOCK ? -EBUSY : -errno;
	close(fd);
	return rc;
}

int fileset_idle(int root_fd, const char *name)
{
	int fd = open_dir(root_fd, META), rc;

	if (fd < 0)
		return fd;
	rc = check_idle(fd, name, NULL);
	close(fd);
	return rc;
}

static int make_kml(int new_fd, const char *name)
{
	struct klog_header h = { .first_offset = KML_HEADER_SIZE, .first_recno = 1 };
	struct timespec now;
	int rc;

	rc = uuid_make(h.fileset_uuid);
	if (!rc)
		rc = uuid_make(h.replica_uuid);
	if (rc)
		return rc;
	clock_gettime(CLOCK_REALTIME, &now);
	h.epoch = (uint64_t) now.tv_sec * 1000000000 + now.tv_nsec;
	snprintf(h.fileset, sizeof(h.fileset), "%s", name);
	return klog_create(new_fd, "kml", &h);
}

static int sync_file(int dirfd, const char *name)
{
	int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC), rc;

	if (fd < 0)
		return -errno;
	rc = fsync(fd) ? -errno : 0;
	close(fd);
	return rc;
}

/* An empty file, or the catalog if report is given. */
static int make_file(int root_fd, int new_fd, const char *name,
		     const volatile sig_atomic_t *stop, struct catalog_report *report)
{
	int fd, rc = 0;

	fd = openat(new_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (report)
		rc = catalog_write(root_fd, fd, stop, report);
	if (!rc && fsync(fd))
		rc = -errno;
	if (close(fd) && !rc)
		rc = -errno;
	return rc;
}

static int fill(int root_fd, int new_fd, const char *name,
		const volatile sig_atomic_t *stop, struct catalog_report *report)
{
	int rc;

	rc = make_file(root_fd, new_fd, "base", stop, report);
	if (rc)
		return rc;
	rc = make_kml(new_fd, name);
	if (rc)
		return rc;
	rc = sync_file(new_fd, "kml");
	if (rc)
		return rc;
	rc = make_file(root_fd, new_fd, "last_rcvd", NULL, NULL);
	if (rc)
		return rc;
	if (mkdirat(new_fd, "incoming", 0700))
		return -errno;
	return fsync(new_fd) ? -errno : 0;
}

static int remove_fileset(int meta_fd, const char *name, void *data)
{
	return remove_tree(meta_fd, name);
}

/* .intermezzo/.new becomes .intermezzo/<name>, alone there. */
static int put_in_place(int root_fd, int meta_fd, const char *name)
{
	int rc = for_each_fileset(root_fd, remove_fileset, NULL);

	if (!rc)
		rc = remove_tree(meta_fd, name);
	if (rc)
		return rc;
	if (renameat(meta_fd, NEW, meta_fd, name))
		return -errno;
	if (fsync(meta_fd) || fsync(root_fd))
		return -errno;
	return 0;
}

static int build(int root_fd, int meta_fd, const char *name,
		 const volatile sig_atomic_t *stop, struct catalog_report *report)
{
	int new_fd, rc;

	rc = remove_tree(meta_fd, NEW);
	if (rc)
		return rc;
	if (mkdirat(meta_fd, NEW, 0700))
		return -errno;
	new_fd = open_dir(meta_fd, NEW);
	if (new_fd < 0)
		return new_fd;
	rc = fill(root_fd, new_fd, name, stop, report);
	close(new_fd);
	if (!rc)
		rc = put_in_place(root_fd, meta_fd, name);
	if (rc)
		remove_tree(meta_fd, NEW);
	return rc;
}

/* Is there one already, and may it go? */
static int check_old(int root_fd, int force, struct catalog_report *report)
{
	char old[64];
	int rc;

	rc = for_each_fileset(root_fd, check_idle, NULL);
	if (rc == -EBUSY)
		snprintf(report->why, sizeof(report->why),
			 "its fileset is mounted; unmount it first");
	if (rc)
		return rc;
	rc = fileset_find(root_fd, old);
	if (rc == -ENOENT || (force && (!rc || rc == -ENOTUNIQ)))
		return 0;
	if (rc && rc != -ENOTUNIQ)
		return rc;
	snprintf(report->why, sizeof(report->why),
		 "holds the fileset %s already; -f begins a new log and forgets the old one", old);
	return -EEXIST;
}

/* The root's mtime belongs to its owner's tree, and the catalog tells it. */
static int make_meta_dir(int root_fd)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT } };
	struct stat st;

	if (fstat(root_fd, &st))
		return -errno;
	if (mkdirat(root_fd, META, 0700))
		return errno == EEXIST ? 0 : -errno;
	times[1] = st.st_mtim;
	return futimens(root_fd, times) ? -errno : 0;
}

static int make_meta(int root_fd, const char *name, const volatile sig_atomic_t *stop,
		     struct catalog_report *report)
{
	int meta_fd, rc;

	rc = make_meta_dir(root_fd);
	if (rc)
		return rc;
	meta_fd = open_dir(root_fd, META);
	if (meta_fd < 0)
		return meta_fd;
	if (fchown(meta_fd, 0, 0) || fchmod(meta_fd, 0700))
		rc = -errno;
	else
		rc = build(root_fd, meta_fd, name, stop, report);
	close(meta_fd);
	if (rc)
		unlinkat(root_fd, META, AT_REMOVEDIR);
	return rc;
}

int fileset_make(int root_fd, const char *name, int force,
		 const volatile sig_atomic_t *stop, struct catalog_report *report)
{
	int rc;

	*report = (struct catalog_report) { 0 };
	rc = check_old(root_fd, force, report);
	if (!rc)
		rc = make_meta(root_fd, name, stop, report);
	if (rc && !*report->why)
		snprintf(report->why, sizeof(report->why), "%s", strerror(-rc));
	return rc;
}
