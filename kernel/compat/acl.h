/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ACLs.  Before Linux 6.2 they were extended attributes like others to file
 * systems, which had only to tell them for permission checks.
 */
#ifndef INTERMEZZO_COMPAT_ACL_H
#define INTERMEZZO_COMPAT_ACL_H

/* In memory of its own, as the newest posix_acl_to_xattr() has it. */
static inline void *izo_acl_to_xattr(const struct posix_acl *acl, size_t *ret_size)
{
#ifdef IZO_HAVE_ACL_TO_XATTR_ALLOC
	return posix_acl_to_xattr(&init_user_ns, acl, ret_size, GFP_KERNEL);
#else
	const size_t size = posix_acl_xattr_size(acl->a_count);
	void *value = kmalloc(size, GFP_KERNEL);

	if (value && posix_acl_to_xattr(&init_user_ns, acl, value, size) < 0) {
		kfree(value);
		return NULL;
	}
	*ret_size = size;
	return value;
#endif
}

#ifdef IZO_HAVE_VFS_ACL
#define IZO_ACL_OPS
#define IZO_ACL_IOPS						\
	.get_inode_acl	= izo_get_inode_acl,			\
	.get_acl	= izo_get_acl,				\
	.set_acl	= izo_set_acl
#else
#define IZO_ACL_IOPS						\
	.get_acl	= izo_get_inode_acl

#define get_inode_acl	get_acl

static inline const char *posix_acl_xattr_name(int type)
{
	return type == ACL_TYPE_ACCESS ? XATTR_NAME_POSIX_ACL_ACCESS :
					 XATTR_NAME_POSIX_ACL_DEFAULT;
}

static inline bool is_posix_acl_xattr(const char *name)
{
	return strcmp(name, XATTR_NAME_POSIX_ACL_ACCESS) == 0 ||
	       strcmp(name, XATTR_NAME_POSIX_ACL_DEFAULT) == 0;
}

static inline struct posix_acl *vfs_get_acl(struct user_namespace *ns, struct dentry *d,
					    const char *name)
{
	return get_acl(d_inode(d), strcmp(name, XATTR_NAME_POSIX_ACL_ACCESS) ?
		       ACL_TYPE_DEFAULT : ACL_TYPE_ACCESS);
}

static inline int vfs_set_acl(struct user_namespace *ns, struct dentry *d, const char *name,
			      struct posix_acl *acl)
{
	size_t size;
	void *value = izo_acl_to_xattr(acl, &size);
	int err;

	if (!value)
		return -ENOMEM;
	err = vfs_setxattr(ns, d, name, value, size, 0);
	kfree(value);
	return err;
}

static inline int vfs_remove_acl(struct user_namespace *ns, struct dentry *d, const char *name)
{
	return vfs_removexattr(ns, d, name);
}
#endif

#endif
