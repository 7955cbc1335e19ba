// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * intermezzo.ko: loading and unloading, and the two file system types.
 */
#include "journal.h"

#include <linux/module.h>

struct file_system_type izo_fs_type = {
	.owner			= THIS_MODULE,
	.name			= "intermezzo",
	.init_fs_context	= izo_init_fs_context,
	.kill_sb		= izo_kill_sb,
};

struct file_system_type izo_virtual_fs_type = {
	.owner			= THIS_MODULE,
	.name			= "vintermezzo",
	.init_fs_context	= izo_init_virtual_fs_context,
	.kill_sb		= izo_kill_sb,
};

static int __init izo_init(void)
{
	int err;

	err = izo_inode_cache_init();
	if (err)
		return err;
	err = izo_op_cache_init();
	if (err)
		goto out_cache;
	err = register_filesystem(&izo_fs_type);
	if (err)
		goto out_ops;
	err = register_filesystem(&izo_virtual_fs_type);
	if (err)
		goto out_type;
	izo_sysctl_init();
	return 0;

out_type:
	unregister_filesystem(&izo_fs_type);
out_ops:
	izo_op_cache_exit();
out_cache:
	izo_inode_cache_exit();
	return err;
}

static void __exit izo_exit(void)
{
	izo_sysctl_exit();
	unregister_filesystem(&izo_virtual_fs_type);
	unregister_filesystem(&izo_fs_type);
	izo_op_cache_exit();
	izo_inode_cache_exit();
}

module_init(izo_init);
module_exit(izo_exit);
MODULE_ALIAS_FS("intermezzo");
MODULE_ALIAS_FS("vintermezzo");
MODULE_DESCRIPTION("InterMezzo, a replicating file system");
MODULE_LICENSE("GPL");
