# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# Machines made of one name space of each kind, over a minimal system through an overlay that
# is thrown away.  They have no service manager until they are booted, and the kernel is
# this one's.  Sourced by machine.sh.

machine_pid()
{
	cat "$WORK/$1/pid" 2>/dev/null
}

# Where the files of NAME are, seen from here.
root_of()
{
	echo "/proc/$(machine_pid "$1")/root"
}

space_make()
{
	m_base=$(base "$2") || bail "no $2 by debootstrap"
	m_dir=$WORK/$1
	m_archives=$m_base.archives
	mkdir -p "$m_dir/root" "$m_dir/upper" "$m_dir/work" "$m_archives"
	mount -t overlay -o "lowerdir=$m_base,upperdir=$m_dir/upper,workdir=$m_dir/work" overlay \
		"$m_dir/root" 2>/dev/null || cp -a "$m_base/." "$m_dir/root/"
	# what was fetched once; a directory of its own, as apt locks it
	cp -al "$m_archives" "$m_dir/archives"
	rm -f "$m_dir/archives/lock"
	ln -s "$m_archives" "$m_dir/kept"
	# how this system reaches its archive
	apt-config dump | grep -E '^Acquire::(https?|Check)' >"$m_dir/root/etc/apt/apt.conf.d/90host"
	mkfifo "$m_dir/ready"
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
		{ echo "127.0.0.1 localhost $1"; cat /etc/hosts; } >etc/hosts
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

space_kill()
{
	kill -KILL "$(machine_pid "$1")" 2>/dev/null
}

# power_off NAME COMMAND...: by that command of it, or, with none, by pulling the plug
power_off()
{
	p_unshare=$(cat "$WORK/$1/unshare")
	if [ $# -gt 1 ]; then
		on "$@"
	else
		space_kill "$1"
	fi
	wait "$p_unshare" 2>/dev/null
}

# From now on systemd is its first process.
space_boot()
{
	[ -x "$(root_of "$1")/sbin/init" ] || apt "$1" install systemd-sysv dbus || return
	: >"$(root_of "$1")/run/boot"
}

space_reboot()
{
	power_off "$1" systemctl poweroff
	power_on "$1"
}

space_wire()
{
	shift
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

space_on()
{
	s_name=$1
	shift
	with "$s_name" -n "$@"
}

# With the network of this machine, where the mirror is, or with that of the machine
# itself, where daemons belong.
space_apt()
{
	apt_get '' "$@"
}

space_local_apt()
{
	apt_get -n "$@"
}

apt_get()
{
	apt_spaces=$1
	apt_name=$2
	shift 2
	# one word each
	# shellcheck disable=SC2086
	with "$apt_name" "$apt_spaces" $APT "$@"
	apt_status=$?
	cp -ln "$WORK/$apt_name/archives/"*.deb "$WORK/$apt_name/kept/" 2>/dev/null
	return $apt_status
}

space_put()
{
	mkdir -p "$(root_of "$1")$3" && cp -R "$2/." "$(root_of "$1")$3/"
}
