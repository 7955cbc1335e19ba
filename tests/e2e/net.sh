# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# A small network of hosts for the end-to-end tests, each with its own
# addresses, mounts, /run, /etc and /var/log; everything lives in name spaces
# that end with the test, so nothing leaks and runs do not see each other.
#
#	. "$(dirname "$0")/net.sh"		(sources ../lib.sh)
#	host server 10.77.0.1; make_fs server; start_server server ...
#
# A watchdog ends a hanging test after E2E_TIMEOUT seconds (3600) with the
# status of every host and the ends of the logs.  To look into a failure:
# E2E_DEBUG=SUM runs the daemons with --debug=SUM, E2E_SAVE=DIR keeps the files of
# all hosts (kml, lml, state.db, logs).
. "$(dirname "$0")/../lib.sh"
need_root
need_program ip unshare nsenter "$MKIZOFS" "$MOUNT_IZO" "$FUSE_IZO" "$INTERSYNC" \
	"$IZOCTL" "$KMLPRINT"
[ -c /dev/fuse ] || skip_all "no /dev/fuse"

: "${E2E_TIMEOUT:=3600}"
: "${SYNC_TIMEOUT:=300}"
: "${TEST_SEED:=$(date +%s)}"
LOADGEN=$TOP_BUILDDIR/tests/fs/loadgen
CUTPROXY=$TOP_BUILDDIR/tests/e2e/cutproxy
INTERMEZZO_FUSE=$FUSE_IZO
INTERSYNC_MODULE=$TOP_BUILDDIR/httpd/.libs/mod_intersync.so
export INTERMEZZO_FUSE INTERSYNC_MODULE TEST_SEED

if [ -z "$E2E_INSIDE" ]; then
	# The inner shell is process 1 of its own process name space: when it
	# ends, all that it started has ended, too.
	E2E_INSIDE=$TMP unshare --net --mount --pid --fork --kill-child \
		--mount-proc --propagation private sh "$0" "$@"
	inner_status=$?
	tap_done=1
	exit $inner_status
fi

rmdir "$TMP"
TMP=$E2E_INSIDE
chmod 755 "$TMP"
mount -t tmpfs -o mode=755 tmpfs "$TMP" || bail "cannot mount a tmpfs"
keep_tmp=1	# a mount: the outer shell removes it
ip link set lo up
ip link add br0 type bridge && ip link set br0 up || bail "no bridge"
hosts=

watchdog()
{
	sleep "$E2E_TIMEOUT"
	echo "# timed out after $E2E_TIMEOUT s; this runs:"
	ps -e -o pid,ppid,stat,etimes,args 2>/dev/null | head -n 60 | sed 's/^/#   /'
	diagnose
	echo "Bail out! timed out"
	# everything but process 1, which then goes on and ends
	kill -TERM 1
	kill -9 -1
}

# value NAME KEY: a host's variable; set_value NAME KEY VALUE
value()
{
	eval "printf '%s' \"\$${2}_$1\""
}

set_value()
{
	eval "${2}_$1=\$3"
}

# host NAME ADDRESS
host()
{
	mkdir -p "$TMP/$1/etc" "$TMP/$1/mnt"
	mkfifo "$TMP/$1/ready"
	unshare --net --mount --uts --propagation private sh -c '
		hostname "$1"
		mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/lock
		mount -t tmpfs -o mode=755 tmpfs /var/log
		mount -t tmpfs -o mode=755 tmpfs "$2/etc"
		cp -a /etc/. "$2/etc" 2>/dev/null
		mount --bind "$2/etc" /etc
		ip link set lo up
		echo ready >"$2/ready"
		exec sleep infinity' - "$1" "$TMP/$1" </dev/null &
	set_value "$1" pid $!
	set_value "$1" ip "$2"
	read -r host_ready <"$TMP/$1/ready"
	[ "$host_ready" = ready ] || bail "host $1 does not start"
	ip link add "v$1" type veth peer name eth0 netns "$(value "$1" pid)" ||
		bail "no veth"
	ip link set "v$1" master br0
	ip link set "v$1" up
	on "$1" ip addr add "$2/24" dev eth0
	on "$1" ip link set eth0 up
	hosts="$hosts $1"
}

# on HOST COMMAND...
on()
{
	on_host=$1
	shift
	nsenter -t "$(value "$on_host" pid)" -m -n -u -- "$@"
}

# spawn HOST FILE COMMAND...: in the background, its output to FILE (which may
# be a FIFO); its process is $spawned
spawn()
{
	on_host=$1
	spawn_out=$2
	shift 2
	nsenter -t "$(value "$on_host" pid)" -m -n -u -- "$@" >"$spawn_out" 2>&1 &
	spawned=$!
}

# Where HOST has its fileset: as the host itself says, and as seen from here.
mnt()
{
	printf '%s' "$TMP/$1/mnt"
}

seen()
{
	printf '%s' "/proc/$(value "$1" pid)/root$TMP/$1/mnt"
}

net_down()
{
	ip link set "v$1" down
}

net_up()
{
	ip link set "v$1" up
}

# Bytes that HOST has sent and received.
net_bytes()
{
	on "$1" awk -F: '$1 ~ /eth0/ { split($2, n, " "); print n[1] + n[9] }' /proc/net/dev
}

# make_fs HOST [SIZE [TYPE]]: an image with an empty fileset, mounted
make_fs()
{
	on "$1" "$MKIZOFS" -r fset0 -s "${2:-300M}" -t "${3:-ext4}" "$TMP/$1/img" \
		>"$TMP/$1/mkizofs.out" 2>&1 ||
		{ cat "$TMP/$1/mkizofs.out"; bail "$1: mkizofs"; }
	mount_fs "$1"
}

mount_fs()
{
	# the one before may still be on its way out
	for _ in $(seq 240); do
		on "$1" env INTERMEZZO_FUSE="$FUSE_IZO" "$MOUNT_IZO" \
			"${2:-$TMP/$1/img}" "$(mnt "$1")" -o "${3:-loop,fileset=fset0}" \
			>"$TMP/$1/mount.out" 2>&1 && return 0
		grep -q 'mounted already\|in use' "$TMP/$1/mount.out" || break
		sleep 0.25
	done
	sed 's/^/# /' "$TMP/$1/mount.out"
	bail "$1: mount"
}

# start_server HOST [OPTIONS...]; start_client HOST [SERVER-HOST [OPTIONS...]]
start_server()
{
	ss_host=$1
	shift
	daemon "$ss_host" --listen="$(value "$ss_host" ip)" --insecure "$@" \
		"$(mnt "$ss_host")"
}

start_client()
{
	sc_host=$1
	sc_server=${2:-server}
	shift
	[ $# -eq 0 ] || shift
	daemon "$sc_host" --server="$(value "$sc_server" ip)" --insecure "$@" \
		"$(mnt "$sc_host")"
}

daemon()
{
	d_host=$1
	shift
	[ -z "$E2E_DEBUG" ] || set -- --debug="$E2E_DEBUG" "$@"
	if ! on "$d_host" timeout 300 "$INTERSYNC" --pidfile="$TMP/$d_host/pid" "$@" \
		>"$TMP/$d_host/start.out" 2>&1 </dev/null; then
		sed 's/^/# /' "$TMP/$d_host/start.out"
		return 1
	fi
}

# alive PID: and not just waiting to be reaped
alive()
{
	[ -n "$1" ] && [ -d "/proc/$1" ] &&
		! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null
}

# Wait until a process has ended (two minutes end a hang).
gone()
{
	for _ in $(seq 1200); do
		alive "$1" || return 0
		sleep 0.1
	done
	return 1
}

intersync_pid()
{
	cat "$TMP/$1/pid" 2>/dev/null
}

# The processes of NAME (comm) that belong to HOST's mounts.
pids_of()
{
	pids_ns=$(readlink "/proc/$(value "$1" pid)/ns/uts")
	for pids_d in /proc/[0-9]*; do
		[ "$(cat "$pids_d/comm" 2>/dev/null)" = "$2" ] &&
		[ "$(readlink "$pids_d/ns/uts" 2>/dev/null)" = "$pids_ns" ] &&
		alive "${pids_d#/proc/}" && echo "${pids_d#/proc/}"
	done
	return 0
}

stop()
{
	stop_pid=$(intersync_pid "$1") || return 0
	[ -n "$stop_pid" ] && alive "$stop_pid" || return 0
	kill "$stop_pid"
	gone "$stop_pid" || { note "$1: intersync $stop_pid does not end"; return 1; }
}

# kill9 HOST intersync|fuse|httpd
kill9()
{
	case $2 in
	intersync) kill9_pids=$(intersync_pid "$1") ;;
	fuse) kill9_pids=$(pids_of "$1" intermezzo-fuse) ;;
	httpd) kill9_pids=$(pids_of "$1" apache2; pids_of "$1" httpd) ;;
	esac
	[ -n "$kill9_pids" ] || { note "$1: no $2 to kill"; return 1; }
	# shellcheck disable=SC2086 # several
	kill -9 $kill9_pids 2>/dev/null
	for kill9_p in $kill9_pids; do
		gone "$kill9_p"
	done
	if [ "$2" = fuse ]; then
		on "$1" umount -l "$(mnt "$1")"
	fi
}

umount_fs()
{
	on "$1" umount "$(mnt "$1")"
}

# sync_one HOST: all that was changed here is on the server, and the reverse
sync_one()
{
	on "$1" "$IZOCTL" sync --timeout="$SYNC_TIMEOUT" "$(mnt "$1")" \
		>"$TMP/$1/sync.out" 2>&1 || {
		sed "s/^/# $1: izoctl sync: /" "$TMP/$1/sync.out"
		return 1
	}
}

clients()
{
	for clients_h in $hosts; do
		[ "$clients_h" = server ] || echo "$clients_h"
	done
}

# Each pushes its own, then each takes in the others'.
sync_all()
{
	for _ in 1 2; do
		for sync_h in $(clients); do
			sync_one "$sync_h" || return 1
		done
	done
}

# wait_equal TEXT: synchronised, then all trees are equal
wait_equal()
{
	sync_all >"$TMP/equal.out" 2>&1 || {
		not_ok "$1: synchronised" "$TMP/equal.out"
		diagnose
		return 1
	}
	for equal_h in $(clients); do
		# shellcheck disable=SC2086 # options
		"$TREECMP" --max=30 $TREECMP_OPTIONS "$(seen server)" "$(seen "$equal_h")" \
			>>"$TMP/equal.out" 2>&1 || {
			echo "server (A) and $equal_h (B) differ" >>"$TMP/equal.out"
			not_ok "$1" "$TMP/equal.out"
			diagnose
			return 1
		}
	done
	ok "$1"
}

# status HOST KEY: a number or string of izoctl status --json
status()
{
	on "$1" "$IZOCTL" status --json "$(mnt "$1")" |
		python3 -c '
import json, sys
v = json.load(sys.stdin)
for k in sys.argv[1].split("."):
    v = v[int(k)] if k.isdigit() else v.get(k)
print(v)' "$2"
}

save_files()
{
	mkdir -p "$E2E_SAVE/$1"
	cp -r "/proc/$(value "$1" pid)/root/var/log" "$E2E_SAVE/$1/"
	on "$1" timeout 20 cp -r "$(mnt "$1")/.intermezzo" "$E2E_SAVE/$1/meta"
}

diagnose()
{
	for diag_h in $hosts; do
		{
			echo "--- $diag_h: izoctl status"
			timeout 30 nsenter -t "$(value "$diag_h" pid)" -m -n -u -- \
				"$IZOCTL" status "$(mnt "$diag_h")" 2>&1 | head -n 20
			for diag_l in "/proc/$(value "$diag_h" pid)/root/var/log/"*/*; do
				[ -f "$diag_l" ] || continue
				echo "--- $diag_h: $diag_l" | sed 's,/proc/[0-9]*/root,,'
				tail -n "${E2E_LOG_LINES:-15}" "$diag_l"
			done
			[ -s "$TMP/$diag_h/start.out" ] && cat "$TMP/$diag_h/start.out"
		} 2>&1 | sed 's/^/# /'
		[ -z "$E2E_SAVE" ] || save_files "$diag_h"
	done
}

# No line in any log that must never be there.
clean_logs()
{
	for logs_h in $hosts; do
		grep -rE 'AddressSanitizer|runtime error|CRITICAL|[Aa]ssert|Segmentation|SIGSEGV|exit signal' \
			"/proc/$(value "$logs_h" pid)/root/var/log/" 2>/dev/null |
			sed "s/^/$logs_h: /"
	done >"$TMP/logs.out"
	[ ! -s "$TMP/logs.out" ]
}

# End of each scenario: logs verify, log, state and tree agree, stop and unmount.
finish()
{
	for fin_h in $hosts; do
		if on "$fin_h" mountpoint -q "$(mnt "$fin_h")"; then
			try "$fin_h: kmlprint --verify" on "$fin_h" "$KMLPRINT" --verify "$(mnt "$fin_h")"
			try "$fin_h: izoctl check" on "$fin_h" timeout 600 "$IZOCTL" check "$(mnt "$fin_h")"
		fi
	done
	for fin_h in $(clients) server; do
		try "$fin_h: intersync stops" stop "$fin_h"
		[ -z "$(pids_of "$fin_h" apache2)$(pids_of "$fin_h" httpd)" ] ||
			{ echo "apache still runs" >"$TMP/x"; not_ok "$fin_h: httpd stopped with it" "$TMP/x"; }
		if on "$fin_h" mountpoint -q "$(mnt "$fin_h")"; then
			try "$fin_h: umount" umount_fs "$fin_h"
		fi
	done
	if clean_logs; then
		ok "nothing in the logs that must not be there"
	else
		not_ok "nothing in the logs that must not be there" "$TMP/logs.out"
	fi
	done_testing
}

# The usual network: one server and two clients with empty filesets.
usual_hosts()
{
	host server 10.77.0.1
	host client1 10.77.0.2
	host client2 10.77.0.3
	for usual_h in $hosts; do
		make_fs "$usual_h" "${1:-300M}"
	done
}

usual_network()
{
	usual_hosts "$@"
	try "server starts" start_server server || { diagnose; finish; }
	try "client1 starts" start_client client1 || { diagnose; finish; }
	try "client2 starts" start_client client2 || { diagnose; finish; }
}

# Every type of object, with everything that must travel.
sample_tree()
{
	mkdir -p "$1/dir/sub" "$1/empty"
	echo one >"$1/file"
	seq 1 200000 >"$1/dir/big"
	: >"$1/dir/nothing"
	ln "$1/file" "$1/dir/second name"
	ln -s ../file "$1/dir/link"
	ln -s /nowhere/at/all "$1/dangling"
	ln "$1/dangling" "$1/dangling2"
	mknod "$1/char" c 1 3
	mknod "$1/block" b 7 200
	mkfifo "$1/fifo"
	python3 -c 'import socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1])' "$1/socket"
	truncate -s 10M "$1/sparse"
	printf tail | dd of="$1/sparse" bs=1 seek=5000000 conv=notrunc status=none
	setfattr -n user.name -v value "$1/file"
	setfattr -n trusted.name -v secret "$1/dir"
	setfattr -h -n trusted.on.link -v x "$1/dangling"
	dd if=/dev/urandom bs=3000 count=1 status=none | base64 -w0 >"$TMP/value"
	setfattr -n user.large -v "$(head -c 2000 "$TMP/value")" "$1/file"
	setfacl -m u:4711:rw,g:4712:r "$1/file"
	setfacl -d -m u:4711:rwx "$1/dir"
	: >"$1/dir/inherits"
	chown 1000:1001 "$1/dir/big"
	chown -h 1002:1003 "$1/dangling"
	chmod 4755 "$1/dir/nothing"
	chmod 1777 "$1/empty"
	chmod 2750 "$1/dir/sub"
	: >"$1/$(printf 'new\nline\ttab\001\377')"
	: >"$1/$(printf '%0255d' 0 | tr 0 x)"
	: >"$1/%41 ?&#;\\'\"*"
	mkdir "$1/-rf"
	touch -d '1970-01-01 00:00:01.000000001 UTC' "$1/dir/big"
	touch -h -d '2030-12-31 23:59:59.999999999 UTC' "$1/dangling"
	touch -d '2001-02-03 04:05:06.789012345 UTC' "$1/empty"
}

watchdog 2>&1 &
note "TEST_SEED=$TEST_SEED"
