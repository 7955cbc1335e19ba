// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Extended attributes and ACLs, and the two of the root that tell where the
 * channel is and what the fileset is called.
 */
#include <config.h>

#include "fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#define ACL_ACCESS	"system.posix_acl_access"
#define ACL_DEFAULT	"system.posix_acl_default"
#define VALUE_MAX	65536
#define LIST_MAX	65536

/* The value of a virtual attribute, or NULL. */
static const char *virtual_value(const struct inode *i, const char *name)
{
	if (i != root_inode)
		return NULL;
	if (strcmp(name, IZO_XATTR_CHANNEL) == 0)
		return fs.channel_path;
	if (strcmp(name, IZO_XATTR_FILESET) == 0)
		return fs.opt.fileset;
	return NULL;
}

/* An answer of n bytes, or its size alone, or -errno. */
static void reply_value(fuse_req_t req, const char *value, ssize_t n, size_t size)
{
	if (n < 0)
		fuse_reply_err(req, -n);
	else if (size == 0)
		fuse_reply_xattr(req, n);
	else if ((size_t) n > size)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, value, n);
}

/* name NULL: the list of names */
static ssize_t get_lower(struct inode *i, const char *name, char *buf, size_t size)
{
	char path[32];
	ssize_t n;
	int fd = inode_get_fd(i);

	if (fd < 0)
		return fd;
	proc_path(path, fd);
	n = name ? getxattr(path, name, buf, size) : listxattr(path, buf, size);
	if (n < 0)
		n = -errno;
	inode_put_fd(i);
	return n;
}

static void reply_lower(fuse_req_t req, struct inode *i, const char *name, size_t size)
{
	char *buf = size ? malloc(size) : NULL;

	if (size && !buf)
		fuse_reply_err(req, ENOMEM);
	else
		reply_value(req, buf, get_lower(i, name, buf, size), size);
	free(buf);
}

void ll_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct inode *i = inode_of(ino);
	const char *value = virtual_value(i, name);

	if (value)
		reply_value(req, value, strlen(value), size);
	else
		reply_lower(req, i, name, size);
}

void ll_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	reply_lower(req, inode_of(ino), NULL, size);
}

/* Items of records */

/* Append one attribute to *items; one that is gone meanwhile is left out. */
static int add_item(const char *path, const char *name, void **items, size_t *len)
{
	char *value = malloc(VALUE_MAX), *more;
	ssize_t n, need;
	int err = 0;

	if (!value)
		return -ENOMEM;
	n = getxattr(path, name, value, VALUE_MAX);
	if (n < 0)
		goto out;
	need = kml_xattr_put(NULL, 0, name, strlen(name), value, n);
	more = need < 0 ? NULL : realloc(*items, *len + need);
	if (!more) {
		err = need < 0 ? need : -ENOMEM;
		goto out;
	}
	*items = more;
	kml_xattr_put(more + *len, need, name, strlen(name), value, n);
	*len += need;
out:
	free(value);
	return err;
}

static bool is_acl(const char *name)
{
	return strcmp(name, ACL_ACCESS) == 0 || strcmp(name, ACL_DEFAULT) == 0;
}

int xattr_items(int fd, bool only_acl, void **ret_items, size_t *ret_len)
{
	char path[32], *names = malloc(LIST_MAX), *p;
	void *items = NULL;
	size_t len = 0;
	ssize_t n;
	int err = 0;

	if (!names)
		return -ENOMEM;
	proc_path(path, fd);
	n = listxattr(path, names, LIST_MAX);
	for (p = names; n > 0 && p < names + n && !err; p += strlen(p) + 1)
		if (!only_acl || is_acl(p))
			err = add_item(path, p, &items, &len);
	free(names);
	if (err) {
		free(items);
		return err;
	}
	*ret_items = items;
	*ret_len = len;
	return 0;
}

/* Changes */

struct change_xattr {
	const char	*name, *value;	/* value NULL: remove it */
	size_t		size;
	int		flags;
};

static int change_lower(int fd, const struct change_xattr *x)
{
	char path[32];
	int rc;

	proc_path(path, fd);
	if (x->value)
		rc = setxattr(path, x->name, x->value, x->size, x->flags);
	else
		rc = removexattr(path, x->name);
	return rc ? -errno : 0;
}

/* Or cannot be asked for: then removing it tells. */
static bool has_xattr(int fd, const char *name)
{
	char path[32];

	proc_path(path, fd);
	return getxattr(path, name, NULL, 0) >= 0 || errno != ENODATA;
}

static int change_logged(fuse_req_t req, struct inode *i, int fd, const struct change_xattr *x)
{
	const char *value = x->value ? x->value : "";
	ssize_t n = kml_xattr_put(NULL, 0, x->name, strlen(x->name), value, x->size);
	struct stat st;
	char *item;
	struct op op;
	int err;

	if (n < 0)
		return n == -EINVAL ? -ERANGE : n;
	item = malloc(n);
	if (!item)
		return -ENOMEM;
	kml_xattr_put(item, n, x->name, strlen(x->name), value, x->size);
	op_init_object(&op, req, x->value ? KML_SETXATTR : KML_REMOVEXATTR, i);
	op.r.xattrs = item;
	op.r.xattrs_len = n;
	op.r.has_attr = true;
	err = fstatat(fd, "", &st, AT_EMPTY_PATH) ? -errno : 0;
	/* recovery takes one that is gone for one that was removed */
	if (!err && !x->value && !has_xattr(fd, x->name))
		err = -ENODATA;
	if (!err) {
		attr_from_stat(&op.r.attr, &st);
		op.nolog |= st.st_nlink == 0;
		err = op_begin(&op);
	}
	if (err)
		goto out;
	err = change_lower(fd, x);
	if (err) {
		op_abort(&op);
		goto out;
	}
	if (fstatat(fd, "", &st, AT_EMPTY_PATH) == 0)
		attr_from_stat(&op.r.attr, &st);
	op_done(&op);
out:
	free(item);
	return err;
}

static void change(fuse_req_t req, fuse_ino_t ino, const struct change_xattr *x)
{
	struct inode *i = inode_of(ino);
	int fd, err;

	if (i->meta || virtual_value(i, x->name)) {
		fuse_reply_err(req, i->meta ? EROFS : EPERM);
		return;
	}
	fd = inode_get_fd(i);
	if (fd < 0) {
		fuse_reply_err(req, -fd);
		return;
	}
	file_lock_shared(i->ino);
	err = change_logged(req, i, fd, x);
	if (strcmp(x->name, ACL_DEFAULT) == 0)
		i->default_acl = -1;
	file_unlock(i->ino);
	inode_put_fd(i);
	fuse_reply_err(req, -err);
}

int xattr_drop(fuse_req_t req, struct inode *i, const char *name)
{
	const struct change_xattr x = { .name = name };
	char path[32];
	int fd = inode_get_fd(i), err = 0;

	if (fd < 0)
		return fd;
	proc_path(path, fd);
	if (getxattr(path, name, NULL, 0) > 0)
		err = change_logged(req, i, fd, &x);
	inode_put_fd(i);
	return err == -ENODATA ? 0 : err;
}

void ll_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
		 size_t size, int flags)
{
	const struct change_xattr x = { name, value ? value : "", size, flags };

	change(req, ino, &x);
}

void ll_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	const struct change_xattr x = { .name = name };

	change(req, ino, &x);
}
