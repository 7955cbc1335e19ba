# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# For tests/vm/run: a machine of User-Mode Linux.  The kernel is built once, from
# Debian's linux-source; the machine's root is this system's, read-only, by hostfs.
#
# vm_prepare: kernel and $VM/intermezzo.ko; vm_start [cut]: run $VM/command; cut: in a
# process group of its own, in place of this shell, to be killed; vm_is_off: after that.

# Debian has it for the system that is here, or for another one.
unpack_source()
{
	[ -f "$SOURCE/Makefile" ] && return
	tar=$(find /usr/src -maxdepth 1 -name "linux-source-$KERNEL.tar.xz" \
		-o -maxdepth 1 -name "linux-source-$KERNEL.[0-9]*.tar.xz" | sort -V | tail -n 1)
	if [ -z "$tar" ]; then
		"$HERE/debian-kernel" --source "$KERNEL" "$VM_CACHE/debian-source-$KERNEL" || exit 1
		tar=$VM_CACHE/debian-source-$KERNEL/linux-source.tar.xz
	fi
	mkdir -p "$SOURCE.new" &&
	tar -xf "$tar" -C "$SOURCE.new" --strip-components=1 &&
	mv "$SOURCE.new" "$SOURCE" || die "cannot unpack $tar into $SOURCE"
}

# Built when there is none, or its configuration has changed.
build_kernel()
{
	[ -x "$OBJ/linux" ] && [ -f "$OBJ/Module.symvers" ] &&
		cmp -s "$OBJ/izo.config" "$CONFIG" && return
	for program in gcc make flex bison bc; do
		command -v $program >/dev/null || die "$program is missing"
	done
	unpack_source
	mkdir -p "$OBJ" || exit 1
	echo "building Linux $KERNEL for user mode in $OBJ (some minutes)" >&2
	make -s -C "$SOURCE" ARCH=um SUBARCH=x86_64 O="$OBJ" KCONFIG_ALLCONFIG="$CONFIG" \
		allnoconfig >"$OBJ/build.log" 2>&1 &&
	nice make -s -C "$SOURCE" ARCH=um SUBARCH=x86_64 O="$OBJ" -j "$JOBS" all \
		>>"$OBJ/build.log" 2>&1 ||
		die "the kernel could not be built, see $OBJ/build.log"
	cp "$CONFIG" "$OBJ/izo.config"
}

# shellcheck disable=SC2154 # $kind is set by run
vm_prepare()
{
	SOURCE=$VM_CACHE/linux-$KERNEL
	OBJ=$VM_CACHE/uml-$KERNEL-$kind
	CONFIG=$VM/config
	cat "$HERE/uml.config" >"$CONFIG" || exit 1
	[ $kind = plain ] || cat "$HERE/debug.config" >>"$CONFIG"
	build_kernel
	module_built "$OBJ/module" "$TOP/scripts/build-module" "$OBJ" "$OBJ/module"
}

vm_start()
{
	if [ "$1" = cut ]; then
		run="exec timeout -s KILL"
	else
		run="timeout --foreground -s KILL"
	fi
	# shellcheck disable=SC2086 # several words
	$run "$VM_TIMEOUT" env TMPDIR="${VM_TMPDIR:-/dev/shm}" "$OBJ/linux" mem="$VM_MEMORY" \
		${DISK:+"ubd0=$DISK"} root=/dev/root rootfstype=hostfs rootflags=/ ro \
		init="$HERE/init" izo.vm="$VM" izo.share=hostfs \
		con0=null,fd:1 con=null ssl=null quiet loglevel=4 panic=1 </dev/null
}

# A helper process of a machine that outlives it keeps the disk locked.
vm_is_off()
{
	find /proc/[0-9]*/fd -maxdepth 1 -lname "$DISK" 2>/dev/null | while read -r fd; do
		pid=${fd#/proc/}
		kill -9 "${pid%%/*}" 2>/dev/null
	done
	sleep 0.5
}
