// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * REINT of what has happened already: after the machine stopped the daemon has
 * found, where a LOOK sent it, that the tree differs from the log
 * (doc/kml.md), and now the log is told.  Nothing is done to the tree.
 */
#include <config.h>

#include "reint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

static bool type_fits(const struct reint_entry *e, mode_t mode)
{
	switch (e->r.opcode) {
	case KML_CREATE:
	case KML_CLOSE:
		return S_ISREG(mode);
	case KML_MKDIR:
		return S_ISDIR(mode);
	case KML_SYMLINK:
		return S_ISLNK(mode);
	case KML_MKNOD:
		return !S_ISREG(mode) && !S_ISDIR(mode) && !S_ISLNK(mode);
	default:
		return true;
	}
}

static int begin_and_end(struct reint_entry *e)
{
	int err;

	entry_ptime_now(e);
	err = op_begin(&e->op);
	if (!err)
		op_done(&e->op);
	return err;
}

/* The name does not lead to it any more: OLD is what the log has there. */
static int log_removal(struct reint_entry *e)
{
	struct kml_record *r = &e->op.r;

	if (!e->r.has_old)
		return -EINVAL;
	if (e->obj.exists && e->obj.st.st_ino == e->r.old.ino && e->obj.gen == e->r.old.gen)
		return -ESTALE;
	r->has_old = true;
	r->obj = r->old = e->r.old;
	r->old_attr = e->r.old_attr;
	return begin_and_end(e);
}

static int log_made(struct reint_entry *e, const struct found *f)
{
	struct kml_record *r = &e->op.r;
	char text[4097];
	void *items = NULL;
	ssize_t n;
	int err;

	if (S_ISLNK(f->st.st_mode)) {
		n = readlinkat(f->fd, "", text, sizeof(text));
		if (n <= 0 || n == sizeof(text))
			return -ESTALE;
		r->link = (struct kml_str) { text, n };
	} else {
		err = xattr_items(f->fd, false, &items, &r->xattrs_len);
		if (err)
			return err;
		r->xattrs = items;
	}
	err = begin_and_end(e);
	free(items);
	return err;
}

/* The xattr that the record names, as it is; without a value it is not there. */
static int log_xattr(struct reint_entry *e, const struct found *f)
{
	const size_t room = 2 * KML_REC_MAX;
	struct kml_str name, value;
	char path[32], c[256], *buf;
	size_t pos = 0;
	ssize_t n;
	int err;

	if (!kml_xattr_next(e->r.xattrs, e->r.xattrs_len, &pos, &name, &value))
		return -EINVAL;
	memcpy(c, name.ptr, name.len);
	c[name.len] = 0;
	buf = malloc(room);
	if (!buf)
		return -ENOMEM;
	proc_path(path, f->fd);
	n = getxattr(path, c, buf + KML_REC_MAX, KML_REC_MAX);
	err = (n >= 0) == (e->r.opcode == KML_SETXATTR) ? 0 : -ESTALE;
	n = kml_xattr_put(buf, KML_REC_MAX, c, name.len, buf + KML_REC_MAX, n < 0 ? 0 : n);
	if (!err && n < 0)
		err = n;
	e->op.r.xattrs = buf;
	e->op.r.xattrs_len = n < 0 ? 0 : n;
	if (!err)
		err = begin_and_end(e);
	free(buf);
	return err;
}

static int log_names(struct reint_entry *e)
{
	struct kml_record *r = &e->op.r;

	r->flags |= e->r.flags & (KML_F_EXCHANGE | KML_F_NOREPLACE);
	r->has_old = e->r.has_old;
	r->old = e->r.old;
	r->old_attr = e->r.old_attr;
	return begin_and_end(e);
}

static int log_content(struct reint_entry *e)
{
	struct kml_record *r = &e->op.r;

	r->flags |= KML_F_RANGES_ALL;
	r->attr.valid = KML_A_SIZE | KML_A_MTIME;
	r->has_old = true;
	r->old = r->obj;
	r->old_attr = e->r.has_old ? e->r.old_attr : r->attr;
	return begin_and_end(e);
}

static int log_attr(struct reint_entry *e)
{
	struct kml_record *r = &e->op.r;

	r->attr.valid = KML_A_UID | KML_A_GID | KML_A_MODE | KML_A_MTIME;
	return begin_and_end(e);
}

int reint_there(struct reint_entry *e)
{
	const struct found *f = kml_has_target(e->r.opcode) ? &e->target : &e->obj;
	const unsigned int opcode = e->r.opcode;

	if (!e->run->log)
		return -EINVAL;
	entry_op(e, opcode);
	if (opcode == KML_UNLINK || opcode == KML_RMDIR)
		return log_removal(e);
	if (!f->exists || !type_fits(e, f->st.st_mode))
		return -ESTALE;
	entry_is(e, &f->st, f->gen);
	if (e->inode)
		op_object(&e->op, e->inode);
	switch (opcode) {
	case KML_CLOSE:
		return log_content(e);
	case KML_SETATTR:
		return log_attr(e);
	case KML_SETXATTR:
	case KML_REMOVEXATTR:
		return log_xattr(e, f);
	case KML_RENAME:
	case KML_LINK:
		return log_names(e);
	default:
		return log_made(e, f);
	}
}
