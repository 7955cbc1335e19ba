# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# For tests/vm/run: a machine of QEMU, emulated (no /dev/kvm is needed), with one of
# Debian's own kernels, fetched by debian-kernel with the compiler for its headers.
# Its root is this system's, read-only, by 9p; a small initramfs gets it that far.
#
# vm_prepare: kernel and $VM/intermezzo.ko; vm_start [cut]: run $VM/command; cut: in a
# process group of its own, in place of this shell, to be killed; vm_is_off: after that.

# What the initramfs needs, in the order of their dependencies, and what tests do.
FIRST_MODULES="virtio_pci 9pnet_virtio 9p"
MODULES="virtio_blk virtio_net loop ext4 xfs btrfs fuse overlay veth bridge
	dm-mod dm-flakey crc32c xxhash_generic nfsd quota_tree quota_v2"

# in_root COMMAND...: with the kernel's own compiler; a name space's root is enough
in_root()
{
	if [ "$(id -u)" -eq 0 ]; then user=; else user=-r; fi
	# shellcheck disable=SC2086,SC2016 # none or one; for the inner shell
	unshare $user -m sh -c '
		root=$1
		shift
		mount --rbind /proc "$root/proc" && mount --rbind /dev "$root/dev" &&
		exec chroot "$root" /usr/bin/env -i DEB_BUILD_ARCH=amd64 DEB_HOST_ARCH=amd64 \
			LC_ALL=C PATH=/usr/bin:/bin "$@"' - "$ROOT" "$@"
}

build_in_root()
{
	for dir in kernel lib include; do
		mkdir -p "$ROOT/src/$dir" && cp -Rup "$TOP/$dir/." "$ROOT/src/$dir/" || return
	done
	in_root make -j "$JOBS" -C /src/kernel "KDIR=/usr/src/linux-headers-$VERSION"
}

# The files of modules and of all that they need
module_files()
{
	modprobe -d "$ROOT" -S "$VERSION" -aD "$@" 2>/dev/null |
		awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}

# busybox copies of decompressed modules, loaded in this order
make_initramfs()
{
	INITRAMFS=$DEBIAN/initramfs
	[ ! -f "$INITRAMFS" ] || return 0
	tree=$DEBIAN/initramfs.d
	rm -rf "$tree"
	mkdir -p "$tree/bin" "$tree/modules" "$tree/proc" "$tree/dev" "$tree/root" || return
	cp "$(command -v busybox)" "$tree/bin/busybox" || return
	# shellcheck disable=SC2046 # one word each
	for lib in $(ldd "$tree/bin/busybox" 2>/dev/null | grep -o '/[^ ]*'); do
		mkdir -p "$tree$(dirname "$lib")" && cp "$lib" "$tree$lib" || return
	done
	# shellcheck disable=SC2086 # several words
	for file in $(module_files $FIRST_MODULES); do
		name=$(basename "${file%%.ko*}")
		case $file in
		*.xz) xz -dc "$file" ;;
		*.zst) zstd -dc "$file" ;;
		*) cat "$file" ;;
		esac >"$tree/modules/$name.ko" || return
		echo "$name" >>"$tree/modules/list"
	done
	cat >"$tree/init" <<-'END'
	#!/bin/busybox sh
	bb=/bin/busybox
	$bb mount -t proc proc /proc
	$bb mount -t devtmpfs devtmpfs /dev
	for module in $($bb cat /modules/list); do
		$bb insmod "/modules/$module.ko"
	done
	$bb mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,ro,msize=262144 root /root ||
		$bb poweroff -f
	for word in $($bb cat /proc/cmdline); do
		case $word in
		izo.init=*) init=${word#izo.init=} ;;
		esac
	done
	$bb umount /proc
	exec $bb switch_root /root "$init"
	END
	chmod 755 "$tree/init"
	(cd "$tree" && find . | busybox cpio -o -H newc) 2>/dev/null >"$INITRAMFS.new" &&
		mv "$INITRAMFS.new" "$INITRAMFS"
}

vm_prepare()
{
	for program in qemu-system-x86_64 busybox modprobe unshare; do
		command -v $program >/dev/null || die "$program is missing"
	done
	DEBIAN=$VM_CACHE/debian-$KERNEL
	"$HERE/debian-kernel" "$KERNEL" "$DEBIAN" || exit 1
	ROOT=$DEBIAN/root
	VERSION=$(cat "$DEBIAN/version")
	module_built "$ROOT/src" build_in_root
	strip --strip-debug "$VM/intermezzo.ko" || exit 1
	make_initramfs || die "no initramfs could be made in $DEBIAN"
	# shellcheck disable=SC2086 # several words
	module_files $MODULES >"$VM/modules"
	echo "$ROOT/usr/lib/modules" >"$VM/modules-dir"
}

# An emulated machine may be kept waiting by this one for long: no fault of its kernel.
PATIENCE="rcupdate.rcu_cpu_stall_suppress=1 watchdog_thresh=60"

vm_start()
{
	if [ "$1" = cut ]; then
		run="exec timeout -s KILL"
	else
		run="timeout --foreground -s KILL"
	fi
	# shellcheck disable=SC2086 # several words
	$run "$VM_TIMEOUT" qemu-system-x86_64 -machine q35 -accel tcg,thread=multi -cpu max \
		-smp "$VM_CPUS" -m "$VM_MEMORY" -nodefaults -no-reboot -display none \
		-serial stdio -kernel "$DEBIAN/vmlinuz" -initrd "$INITRAMFS" \
		-virtfs local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap \
		-virtfs "local,path=$VM,mount_tag=vm,security_model=none,multidevs=remap" \
		${DISK:+-drive "file=$DISK,if=virtio,format=raw,cache=writeback"} \
		-object rng-random,filename=/dev/urandom,id=rng -device virtio-rng-pci,rng=rng \
		$VM_NETWORK \
		-append "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off $PATIENCE izo.init=$HERE/init izo.share=9p" \
		</dev/null
}

vm_is_off()
{
	:
}
