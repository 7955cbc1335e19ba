#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# conftest.sh MAKE KDIR: compile each file of probes/ against the kernel in KDIR, and
# write config.h, which says which of them could be.  Two of them tell whether the
# answers mean anything: canary must compile, and broken must not.

make=$1
kdir=$2
here=$(cd "$(dirname "$0")" && pwd) || exit 1
# always the same, so that a compiler's cache knows them again
dir=$here/conftest
rm -rf "$dir" && mkdir "$dir" || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM HUP

cp "$here"/probes/*.c "$dir/" || exit 1
cd "$dir" || exit 1
for probe in *.c; do
	echo "obj-m += ${probe%.c}.o"
done >Makefile
objects=$(echo *.c | sed 's/\.c/.o/g')
# shellcheck disable=SC2086 # several words
$make -k -C "$kdir" M="$dir" KCFLAGS="-Werror=implicit-function-declaration \
	-Werror=incompatible-pointer-types -Werror=int-conversion -Werror=discarded-qualifiers -Wno-unused" \
	$objects >log 2>&1

if [ ! -f canary.o ]; then
	cat log >&2
	echo "conftest: nothing can be compiled for the kernel in $kdir" >&2
	exit 1
fi
if [ -f broken.o ]; then
	echo "conftest: what is wrong compiles, too; check the compiler's options" >&2
	exit 1
fi
{
	echo "/* made by conftest.sh for $kdir */"
	for probe in *.c; do
		name=${probe%.c}
		case $name in
		canary | broken) continue ;;
		esac
		[ ! -f "$name.o" ] || echo "#define IZO_HAVE_$(echo "$name" | tr '[:lower:]' '[:upper:]') 1"
	done
} >config.h
cmp -s config.h "$here/config.h" || cp config.h "$here/config.h"
