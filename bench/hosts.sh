# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# Two hosts for a measurement: network name spaces $S (10.99.0.1) and $C (10.99.0.2), a
# directory $work, and the programs of the build tree $build.  Mounts in $work whose names
# are in $mounts and processes in $pids end with the script.

if [ "$(id -u)" != 0 ]; then
	echo "$0: mounts file systems and makes network namespaces: run it as root" >&2
	exit 2
fi
export PATH=$build/mkizofs:$build/mount:$build/fuse:$build/intersync:$build/izoctl:$build/kmlprint:$PATH
export INTERMEZZO_FUSE=$build/fuse/intermezzo-fuse
export INTERSYNC_MODULE=$build/httpd/.libs/mod_intersync.so
id=$$
S=izb$id-s
C=izb$id-c
work=$(mktemp -d)
pids=
mounts="izo-s izo-c"

cleanup() {
	set +e
	for p in $pids; do kill "$p" 2>/dev/null; done
	for p in $pids; do tail --pid="$p" -f /dev/null 2>/dev/null; done
	for m in $mounts; do
		mountpoint -q "$work/$m" && umount "$work/$m"
	done
	ip netns del $S 2>/dev/null
	ip netns del $C 2>/dev/null
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

on() {				# on HOST COMMAND...
	local h=$1
	shift
	nsenter --net=/run/netns/"$h" -- "$@"
}

hosts() {
	ip netns add $S
	ip netns add $C
	ip link add vs$id netns $S type veth peer name vc$id netns $C
	on $S ip addr add 10.99.0.1/24 dev vs$id
	on $C ip addr add 10.99.0.2/24 dev vc$id
	on $S ip link set lo up
	on $C ip link set lo up
	on $S ip link set vs$id up
	on $C ip link set vc$id up
}

# make_fileset NAME SIZE
make_fileset() {
	mkdir "$work/$1"
	mkizofs -r bench -s "$2" "$work/$1.img" >/dev/null
	mount.intermezzo "$work/$1.img" "$work/$1"
}

start_server() {
	on $S intersync --listen=10.99.0.1 --insecure --pidfile="$work/s.pid" "$work/izo-s"
	pids="$pids $(cat "$work/s.pid")"
}

start_client() {
	on $C intersync --server=10.99.0.1 --insecure --pidfile="$work/c.pid" "$work/izo-c"
	pids="$pids $(cat "$work/c.pid")"
}

now() { date +%s.%N; }
izo_sync() { izoctl sync --timeout=3600 "$work/izo-c"; }
trees_are_equal() {
	"$build/tests/treecmp/treecmp" "$work/izo-s" "$work/izo-c" && echo "# trees are equal"
}
