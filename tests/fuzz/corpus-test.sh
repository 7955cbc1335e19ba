#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Every stored input of the fuzz targets, once.
here=$(cd "$(dirname "$0")" && pwd)
points=0
for target in record klog last_rcvd reint judge; do
	points=$((points + 1))
	if ./fuzz-$target "$here/corpus/$target"/*; then
		echo "ok $points - corpus of $target"
	else
		echo "not ok $points - corpus of $target"
	fi
done
echo "1..$points"
