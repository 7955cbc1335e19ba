# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0-or-later
# For quickstart, run-tests and .ci/run: the packages that are needed, and building.
# The caller has set TOP to the source tree and LOG to a file.

# What building and running needs on Debian and its relatives
# used where this is sourced
# shellcheck disable=SC2034
PACKAGES_RUN="build-essential autoconf automake libtool pkg-config libfuse3-dev fuse3
	libglib2.0-dev libjson-glib-dev libcurl4-openssl-dev libsqlite3-dev apache2-dev
	apache2-bin libblkid-dev uuid-dev e2fsprogs"
# and what the tests need beside that
# shellcheck disable=SC2034
PACKAGES_TEST="xfsprogs btrfs-progs acl attr rsync iproute2 jq sqlite3 curl
	python3-minimal procps psmisc util-linux git gawk"
# what the kernel module's tests need in .ci/run
# shellcheck disable=SC2034
PACKAGES_KERNEL="linux-source-6.12 flex bison bc xz-utils busybox-static"
# what making packages and testing them needs
# shellcheck disable=SC2034
PACKAGES_PACKAGES="debhelper dh-dkms dpkg-dev lintian debootstrap rpm rpmlint
	xz-utils git iproute2 procps"

fail()
{
	echo "${0##*/}: $*" >&2
	exit 1
}

need_root()
{
	[ "$(id -u)" -eq 0 ] || fail "must be run as root: mounting needs it (try: sudo $0)"
}

# step TEXT COMMAND...: tell, run, and show the end of its output if it fails
step()
{
	step_text=$1
	shift
	printf '%s ... ' "$step_text"
	step_start=$(date +%s)
	step_at=$(wc -c <"$LOG")
	if "$@" >>"$LOG" 2>&1 </dev/null; then
		echo "done ($(($(date +%s) - step_start)) s)"
		return 0
	fi
	echo "failed"
	tail -c "+$((step_at + 1))" "$LOG" | tail -n 40 >&2
	fail "$step_text failed; all that was said is in $LOG"
}

missing_packages()
{
	command -v dpkg-query >/dev/null || return 0
	for m_package; do
		dpkg-query -W -f '${Status}\n' "$m_package" 2>/dev/null |
			grep -q 'install ok installed' || echo "$m_package"
	done
}

apt()
{
	DEBIAN_FRONTEND=noninteractive apt-get -q -y \
		-o Dpkg::Options::=--force-confold -o DPkg::Lock::Timeout=300 "$@"
}

install_packages()
{
	apt update && apt install --no-install-recommends "$@"
}

# need_packages PACKAGE...: install those that are missing
need_packages()
{
	# one word each
	# shellcheck disable=SC2046
	set -- $(missing_packages "$@")
	[ $# -gt 0 ] || return 0
	command -v apt-get >/dev/null || fail "these packages are needed: $*"
	step "Installing packages ($#)" install_packages "$@"
}

run_configure()
{
	[ -x "$TOP/configure" ] || "$TOP/autogen.sh" || return
	mkdir -p "$1" && cd "$1" || return
	shift
	"$TOP/configure" "$@"
}

# build DIR CONFIGURE-OPTION...
build()
{
	b_dir=$1
	if [ ! -f "$b_dir/config.status" ]; then
		step "Preparing the build" run_configure "$@"
	fi
	step "Building" make -C "$b_dir" -j "$(nproc)"
}

# FUSE and loop devices may be modules that nobody has needed so far.
need_devices()
{
	[ -e /dev/fuse ] || modprobe fuse 2>/dev/null
	[ -e /dev/fuse ] || fail "/dev/fuse is missing: the kernel needs FUSE (in a container: --device /dev/fuse)"
	[ -e /dev/loop-control ] || modprobe loop 2>/dev/null
	[ -e /dev/loop-control ] || fail "/dev/loop-control is missing: the kernel needs loop devices"
}
