// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Messages of REINT (doc/channel.md), taken apart and checked: nothing of one is
 * done before all of it is known to be well formed.  Shared by the kernel module
 * and the FUSE file system: no allocation, no I/O.
 */
#include "reint_msg.h"

#ifdef __KERNEL__
#include <linux/errno.h>
#include <linux/string.h>
#else
#include <errno.h>
#include <string.h>
#endif

#include "byteorder.h"

#define NAME_LEN_MAX	255

_Static_assert(sizeof(struct izo_reint) == 40, "size of the head");
_Static_assert(sizeof(struct izo_guard) == 32, "size of a guard");
_Static_assert(sizeof(struct izo_reint_entry) == 72, "size of an entry's head");
_Static_assert(sizeof(struct izo_reint_result) == 48, "size of a result");

int reint_entry_next(const void *body, size_t len, size_t *pos,
		     struct izo_reint_entry *ret_head, struct kml_record *ret_r)
{
	const char *at = (const char *) body + *pos;
	size_t room = len - *pos, size;
	ssize_t n;

	if (room == 0)
		return 0;
	if (room < sizeof(*ret_head))
		return -EINVAL;
	memcpy(ret_head, at, sizeof(*ret_head));
	size = le32_to_cpu(ret_head->len);
	if (size < sizeof(*ret_head) || size > room || size % 8)
		return -EINVAL;
	n = kml_decode(at + sizeof(*ret_head), size - sizeof(*ret_head), ret_r);
	if (n < 0 || (size_t) n != size - sizeof(*ret_head))
		return -EINVAL;
	*pos += size;
	return 1;
}

static bool path_ok(const struct kml_str *dir)
{
	return dir->ptr && dir->len && dir->ptr[0] == '/' && !memchr(dir->ptr, 0, dir->len);
}

static bool file_ok(const struct kml_str *file)
{
	return !file->ptr || (file->len && file->len <= NAME_LEN_MAX && file->ptr[0] != '.' &&
			      !memchr(file->ptr, '/', file->len) &&
			      !memchr(file->ptr, 0, file->len));
}

/* Only SETATTR and xattrs can be about the root, which has no name. */
static bool may_be_root(const struct kml_record *r)
{
	return r->opcode == KML_SETATTR || r->opcode == KML_SETXATTR ||
	       r->opcode == KML_REMOVEXATTR;
}

static bool items_ok(const struct kml_record *r)
{
	switch (r->opcode) {
	case KML_CREATE:
	case KML_MKDIR:
	case KML_MKNOD:
	case KML_SETATTR:
		return r->has_attr;
	case KML_SYMLINK:
		return r->has_attr && r->link.ptr && r->link.len;
	case KML_CLOSE:
		return r->has_attr && (r->data.ptr || r->file.ptr);
	case KML_SETXATTR:
	case KML_REMOVEXATTR:
		return r->xattrs_len;
	case KML_UNLINK:
	case KML_RMDIR:
	case KML_RENAME:
	case KML_LINK:
		return true;
	default:
		return false;
	}
}

static bool known_op(const struct kml_record *r)
{
	return kml_makes(r->opcode) || may_be_root(r) || kml_has_target(r->opcode) || r->opcode == KML_CLOSE ||
	       r->opcode == KML_UNLINK || r->opcode == KML_RMDIR;
}

static bool entry_ok(const struct izo_reint_entry *head, const struct kml_record *r)
{
	const bool patch = le32_to_cpu(head->flags) & IZO_RE_PATCH;
	const bool there = le32_to_cpu(head->flags) & IZO_RE_THERE;

	if (!path_ok(&r->dir) || !file_ok(&r->file) || (there ? !known_op(r) : !items_ok(r)))
		return false;
	if (there && (patch || r->file.ptr || r->data.ptr))
		return false;
	if (!r->name.ptr && !(may_be_root(r) && r->dir.len == 1))
		return false;
	if (kml_has_target(r->opcode) && (!path_ok(&r->tdir) || !r->tname.ptr))
		return false;
	if (r->aliases_len && r->opcode != KML_CLOSE)
		return false;
	if (r->data.ptr && (r->file.ptr || r->data.len != r->attr.size))
		return false;
	return !patch || (r->opcode == KML_CLOSE && r->file.ptr && r->has_ranges);
}

int reint_parse(const void *body, size_t len, struct izo_reint *ret_head, struct kml_record *scratch)
{
	struct izo_reint_entry head;
	size_t pos = sizeof(*ret_head);
	uint32_t n;
	int more;

	if (len < sizeof(*ret_head))
		return -EINVAL;
	memcpy(ret_head, body, sizeof(*ret_head));
	for (n = 0; (more = reint_entry_next(body, len, &pos, &head, scratch)) > 0; n++)
		if (!entry_ok(&head, scratch))
			return -EINVAL;
	return more < 0 || n != le32_to_cpu(ret_head->count) ? -EINVAL : 0;
}
