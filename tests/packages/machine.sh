# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# Small Debian systems for the package tests: debootstrapped once and kept in
# $PACKAGES_CACHE (/var/tmp/izo-packages), then used through an overlay that is thrown
# away.  A machine is a name space of each kind over such a root, without a
# service manager until it is booted.  Sourced after ../lib.sh.
: "${PACKAGES_CACHE:=/var/tmp/izo-packages}"
need_root
need_program debootstrap unshare nsenter ip
mkdir -p "$PACKAGES_CACHE" || bail "$PACKAGES_CACHE cannot be made"
WORK=$(mktemp -d -p "$PACKAGES_CACHE") || bail "no working directory"
machines=

leave_machines()
{
	for lm_name in $machines; do
		kill -KILL "$(machine_pid "$lm_name")" 2>/dev/null
	done
	# a file system in use ends a moment after its last process
	for _ in $(seq 100); do
		for lm_dir in "$WORK"/*/root; do
			! mountpoint -q "$lm_dir" || umount "$lm_dir" 2>/dev/null
		done
		grep -q " $WORK/" /proc/self/mounts || break
		sleep 0.1
	done
	rm -rf --one-file-system "$WORK"
}
at_exit leave_machines

# base SUITE: the path of a minimal system
base()
{
	b_dir=$PACKAGES_CACHE/$1
	if [ ! -e "$b_dir/etc/debian_version" ]; then
		rm -rf "$b_dir.new"
		# one word, or none
		# shellcheck disable=SC2086
		debootstrap --variant=minbase "$1" "$b_dir.new" $MIRROR >"$b_dir.log" 2>&1 || {
			tail -n 5 "$b_dir.log" >&2
			return 1
		}
		mv "$b_dir.new" "$b_dir"
	fi
	echo "$b_dir"
}

machine_pid()
{
	cat "$WORK/$1/pid" 2>/dev/null
}

# machine NAME SUITE: started; ends with the test
machine()
{
	m_base=$(base "$2") || bail "no $2 by debootstrap"
	m_dir=$WORK/$1
	mkdir -p "$m_dir/root" "$m_dir/upper" "$m_dir/work" "$m_base.archives"
	mount -t overlay -o "lowerdir=$m_base,upperdir=$m_dir/upper,workdir=$m_dir/work" overlay \
		"$m_dir/root" 2>/dev/null || cp -a "$m_base/." "$m_dir/root/"
	# what was fetched once; a directory of its own, as apt locks it
	cp -al "$m_base.archives" "$m_dir/archives"
	rm -f "$m_dir/archives/lock"
	ln -s "$m_base.archives" "$m_dir/kept"
	mkfifo "$m_dir/ready"
	machines="$machines $1"
	power_on "$1"
}

# power_on NAME: its first process waits until it is booted
power_on()
{
	m_dir=$WORK/$1
	# in the inner shell
	# shellcheck disable=SC2016
	unshare --mount --uts --ipc --pid --net --cgroup --fork --kill-child --propagation private sh -c '
		hostname "$1"
		mount --rbind "$2/root" "$2/root" && cd "$2/root" || exit
		mount -t proc proc proc
		mount --rbind /sys sys
		mount --rbind /dev dev
		mount -t tmpfs -o mode=755 tmpfs run
		mount -t tmpfs -o mode=1777 tmpfs tmp
		mount --bind "$2/archives" var/cache/apt/archives
		cp -L /etc/resolv.conf etc/resolv.conf
		echo "127.0.0.1 localhost $1" >etc/hosts
		echo "$1" >etc/hostname
		ip link set lo up
		exec 3>"$2/ready"
		pivot_root . . && umount -l . || exit
		echo ready >&3
		exec 3>&-
		while [ ! -e /run/boot ]; do sleep 0.2; done
		umount -R -l /sys
		mount -t sysfs sysfs /sys
		mount -t cgroup2 cgroup2 /sys/fs/cgroup
		exec env -i container=izo /sbin/init' sh "$1" "$m_dir" >"$m_dir/out" 2>&1 </dev/null &
	m_unshare=$!
	read -r m_ready <"$m_dir/ready" || m_ready=
	[ "$m_ready" = ready ] || { cat "$m_dir/out"; bail "machine $1 does not start"; }
	pgrep -P "$m_unshare" | head -n 1 >"$m_dir/pid"
	echo "$m_unshare" >"$m_dir/unshare"
}

# power_off NAME COMMAND...: by that command of it, or, with none, by pulling the plug
power_off()
{
	p_unshare=$(cat "$WORK/$1/unshare")
	if [ $# -gt 1 ]; then
		on "$@"
	else
		kill -KILL "$(machine_pid "$1")"
	fi
	wait "$p_unshare" 2>/dev/null
}

# boot NAME: from now on systemd is its first process; false if it does not come up
boot()
{
	[ -x "$(root_of "$1")/sbin/init" ] || apt "$1" install systemd-sysv dbus || return
	: >"$(root_of "$1")/run/boot"
	for _ in $(seq 600); do
		case $(on "$1" systemctl is-system-running 2>/dev/null) in
		running | degraded) return 0 ;;
		esac
		sleep 0.2
	done
	on "$1" systemctl list-jobs
	return 1
}

# wire A ADDRESS B ADDRESS: a cable between two machines
wire()
{
	ip link add eth0 netns "$(machine_pid "$1")" type veth peer name eth0 \
		netns "$(machine_pid "$3")" || bail "no veth"
	for w in "$1 $2" "$3 $4"; do
		nsenter -t "$(machine_pid "${w% *}")" -n sh -c \
			"ip addr add ${w#* }/24 dev eth0 && ip link set eth0 up"
	done
}

# with NAME NAMESPACES COMMAND...
with()
{
	with_pid=$(machine_pid "$1")
	with_spaces=$2
	shift 2
	# one option each
	# shellcheck disable=SC2086
	nsenter -t "$with_pid" -m -u -i -p -C $with_spaces -r -w -- env -i HOME=/root TERM=dumb LC_ALL=C.UTF-8 \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		DEBIAN_FRONTEND=noninteractive ${http_proxy:+"http_proxy=$http_proxy"} "$@" </dev/null
}

# on NAME COMMAND...
on()
{
	on_name=$1
	shift
	with "$on_name" -n "$@"
}

# apt NAME ARGUMENT...: with the network of this machine, where the mirror is;
# local_apt NAME ARGUMENT...: with that of the machine itself, where daemons belong
apt()
{
	apt_get "$1" '' "$@"
}

local_apt()
{
	apt_get "$1" -n "$@"
}

apt_get()
{
	apt_name=$1
	apt_spaces=$2
	shift 3
	apt_run "$@"
	apt_status=$?
	cp -ln "$WORK/$apt_name/archives/"*.deb "$WORK/$apt_name/kept/" 2>/dev/null
	return $apt_status
}

apt_run()
{
	with "$apt_name" "$apt_spaces" apt-get -q -y -o Dpkg::Options::=--force-confold \
		-o Dpkg::Options::=--force-unsafe-io \
		-o APT::Keep-Downloaded-Packages=true -o Acquire::Languages=none "$@"
}

# Where the files of NAME are, seen from here.
root_of()
{
	echo "/proc/$(machine_pid "$1")/root"
}

# give_repository NAME DIR: the packages in DIR can be installed
give_repository()
{
	mkdir -p "$(root_of "$1")/srv/packages"
	cp "$2"/* "$(root_of "$1")/srv/packages/"
	echo "deb [trusted=yes] file:/srv/packages ./" \
		>"$(root_of "$1")/etc/apt/sources.list.d/intermezzo.list"
	apt "$1" update
}
