# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# Small Debian systems for the package tests: debootstrapped once and kept in
# $PACKAGES_CACHE (/var/tmp/izo-packages).  What a machine over one of them is made of is in
# a file of its own (spaces.sh), and what is done with it is written without knowing.
# MACHINES says which, when it is made.  Sourced after ../lib.sh.
#
#	machine NAME SUITE		started; ends with the test
#	boot NAME			true when systemd has come up
#	reboot NAME			as by an administrator; then boot
#	wire A ADDRESS B ADDRESS	a cable between two
#	on NAME COMMAND...		run there, as root
#	apt NAME ARGUMENT...		local_apt: without the network of this machine
#	put NAME DIR TARGET		copy the files in DIR into a directory there
: "${PACKAGES_CACHE:=/var/tmp/izo-packages}"
: "${MACHINES:=space}"
need_root
need_program debootstrap unshare nsenter ip
mkdir -p "$PACKAGES_CACHE" || bail "$PACKAGES_CACHE cannot be made"
WORK=$(mktemp -d -p "$PACKAGES_CACHE") || bail "no working directory"
machines=
APT="apt-get -q -y -o Dpkg::Options::=--force-confold -o Dpkg::Options::=--force-unsafe-io
	-o APT::Keep-Downloaded-Packages=true -o Acquire::Languages=none"

# shellcheck source=tests/packages/spaces.sh
. "$TOP_SRCDIR/tests/packages/spaces.sh"

leave_machines()
{
	for lm_name in $machines; do
		as "$lm_name" kill
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

# Where this system gets Debian's archive from
mirror()
{
	# for apt, not for the shell
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' \
		"Codename: $(. /etc/os-release && echo "$VERSION_CODENAME")" | head -n 1
}

# base SUITE: the path of a minimal system
base()
{
	b_dir=$PACKAGES_CACHE/$1
	if [ ! -e "$b_dir/etc/debian_version" ]; then
		rm -rf "$b_dir.new"
		# one word, or none
		# shellcheck disable=SC2046
		debootstrap --variant=minbase "$1" "$b_dir.new" ${MIRROR:-$(mirror)} \
			>"$b_dir.log" 2>&1 || {
			tail -n 5 "$b_dir.log" >&2
			return 1
		}
		mv "$b_dir.new" "$b_dir"
	fi
	echo "$b_dir"
}

# as NAME VERB ARGUMENT...: by what the machine is made of
as()
{
	as_kind=$(cat "$WORK/$1/kind")_$2
	as_name=$1
	shift 2
	"$as_kind" "$as_name" "$@"
}

machine()
{
	mkdir -p "$WORK/$1"
	echo "$MACHINES" >"$WORK/$1/kind"
	machines="$machines $1"
	as "$1" make "$2"
}

# boot NAME: false if systemd does not come up
boot()
{
	as "$1" boot || return
	for _ in $(seq 3000); do
		case $(on "$1" systemctl is-system-running 2>/dev/null) in
		running | degraded) return 0 ;;
		esac
		sleep 0.2
	done
	on "$1" systemctl list-jobs
	return 1
}

reboot()
{
	as "$1" reboot && boot "$1"
}

wire()
{
	as "$1" wire "$@"
}

on()
{
	on_name=$1
	shift
	as "$on_name" on "$@"
}

apt()
{
	apt_name=$1
	shift
	as "$apt_name" apt "$@"
}

local_apt()
{
	apt_name=$1
	shift
	as "$apt_name" local_apt "$@"
}

put()
{
	as "$1" put "$2" "$3"
}

# give_repository NAME DIR: the packages in DIR can be installed
give_repository()
{
	on "$1" rm -rf /srv/packages &&
	put "$1" "$2" /srv/packages &&
	on "$1" sh -c 'echo "deb [trusted=yes] file:/srv/packages ./" \
		>/etc/apt/sources.list.d/intermezzo.list' &&
	apt "$1" update
}
