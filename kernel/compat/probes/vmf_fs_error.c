// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/mm.h>

vm_fault_t probe(int err);
vm_fault_t probe(int err)
{
	return vmf_fs_error(err);
}
