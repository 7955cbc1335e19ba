// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * quota DEVICE UID [KIB]: what the user uses of the ext4 on DEVICE; with KIB, that is the
 * limit from now on.  For tests/vm/behave: the device's file system is mounted where no
 * path leads to.
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/quota.h>

int main(int argc, char **argv)
{
	struct dqblk q;
	int uid;

	if (argc < 3)
		errx(2, "usage: quota DEVICE UID [KIB]");
	uid = atoi(argv[2]);
	if (argc > 3) {
		q = (struct dqblk) { .dqb_valid = QIF_BLIMITS };
		q.dqb_bhardlimit = strtoul(argv[3], NULL, 0);
		if (quotactl(QCMD(Q_SETQUOTA, USRQUOTA), argv[1], uid, (void *)&q))
			err(1, "%s: limit", argv[1]);
	}
	if (quotactl(QCMD(Q_GETQUOTA, USRQUOTA), argv[1], uid, (void *)&q))
		err(1, "%s", argv[1]);
	printf("%d uses %llu KiB\n", uid, (unsigned long long)q.dqb_curspace >> 10);
	return 0;
}
