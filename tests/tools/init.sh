#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The init script: actions, messages and exit statuses in every state, with stand-ins
# for the programs it runs, which write down what they are told; a tmpfs
# is the mount.  tests/e2e runs it with the real ones.

# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"
need_root
need_program "$MKIZOFS" flock

chmod 755 "$TMP"
bin=$TMP/bin
log=$TMP/log
mkdir "$bin"
ln -s "$MKIZOFS" "$bin/mkizofs"
cat >"$bin/mount.intermezzo" <<END
#!/bin/sh
echo "mount \$*" >>"$log"
[ ! -e "$TMP/mount-fails" ] || exit 32
exec mount -t tmpfs "\$1" "\$2"
END
# the name of its process has to be intersync: what a script is called
cat >"$bin/intersync" <<END
#!/bin/sh
echo "intersync \$* nice \$(nice)" >>"$log"
[ ! -e "$TMP/daemon-fails" ] || { echo "intersync: no" >&2; exit 1; }
for arg; do
	case \$arg in --pidfile=*) file=\${arg#*=} ;; esac
done
if [ -z "\$DAEMON" ]; then
	rm -f "\$file"
	DAEMON=1 setsid "\$0" "\$@" >/dev/null 2>&1 &
	while [ ! -s "\$file" ]; do sleep 0.05; done
	exit 0
fi
echo \$\$ >"\$file"
trap 'echo TERM >>"$log"; rm -f "\$file"; exit' TERM
while :; do sleep 0.1; done
END
cat >"$bin/izoctl" <<END
#!/bin/sh
echo "role: pretended (\$*)"
cat "$TMP/state" 2>/dev/null
[ ! -e "$TMP/status-fails" ]
END
chmod +x "$bin"/*

conf=$TMP/intersync
sed -e "s|@sbindir@|$bin|; s|@bindir@|$bin|; s|@mountdir@|$bin|; s|@defaultsdir@|$TMP|g" \
	-e "s|@sysrundir@|$TMP/run|; s|@sysvardir@|$TMP/var|; s|@systemdunitdir@|$TMP/none|" \
	-e 's/intermezzo | fuse\.intermezzo)/tmpfs)/' \
	"$TOP_SRCDIR/init/intersync-service.in" >"$TMP/intersync-service"
sed -e "s|@pkglibexecdir@|$TMP|" "$TOP_SRCDIR/init/intersync.in" >"$TMP/init"
chmod +x "$TMP/intersync-service"
run=$TMP/run/intersync
init()
{
	sh "$TMP/init" "$@"
}

# exits TEXT STATUS COMMAND...
exits()
{
	x_text=$1
	x_status=$2
	shift 2
	"$@" >"$TMP/exits.out" 2>&1
	x_got=$?
	[ "$x_got" -eq "$x_status" ] && ok "$x_text" && return
	echo "exit status $x_got, expected $x_status" >>"$TMP/exits.out"
	not_ok "$x_text" "$TMP/exits.out"
}

cache=$TMP/the\ cache
cleanup()
{
	for c_pid in "$run"/*.pid; do
		[ ! -s "$c_pid" ] || kill -KILL "$(cat "$c_pid")"
	done
	umount "$cache" "$TMP/second" "$TMP/third" 2>/dev/null
}
at_exit cleanup

# configure LINE...: a configuration of these lines
configure()
{
	printf '%s\n' "$@" >"$conf"
	rm -f "$log"
}

# Not configured, not possible

try "the template is shell, and says nothing" sh -c \
	". '$TOP_SRCDIR/etc/intersync.default'; [ -z \"\$DEVICE\$CACHE\$FSET\" ]"
fails "no action" 2 'Usage' init
fails "an unknown action" 2 'Usage' init frobnicate
for action in start restart force-reload; do
	fails "$action, no configuration" 6 'no fileset is configured; set SERVER_OPTS' init $action
done
fails "try-restart, no configuration" 0 'no fileset is configured' init try-restart
exits "configured, no configuration" 1 "$TMP/intersync-service" configured
fails "stop, no configuration" 0 'no fileset is configured' init stop
fails "status, no configuration" 3 'no fileset is configured' init status
cp "$TOP_SRCDIR/etc/intersync.default" "$conf"
fails "start, the template alone" 6 'no fileset is configured' init start
for action in start stop restart force-reload try-restart; do
	fails "$action, not root" 4 'must be run as root' \
		setpriv --reuid=65534 --clear-groups sh "$TMP/init" $action
done
configure 'if'
fails "start, not shell" 6 'is no shell script' init start
configure FSET=fset0 FORMAT=yes SIZE=1G
fails "start, a name alone" 6 'no fileset is configured' init start
configure DEVICE="$TMP/image" CACHE=relative
fails "start with a relative CACHE" 6 'must be the path' init start
configure DEVICE="$TMP/image" CACHE="'$cache'" FSET=../x
fails "start with a bad FSET" 6 'FSET="../x" in ' init start
configure DEVICE="$TMP/image" CACHE="'$cache'" FSET=fset0 SIZE=20M
fails "start, nothing there, not told to format" 6 'holds no fileset; FORMAT="yes"' init start
[ ! -e "$TMP/image" ] && ok "and nothing was made" || not_ok "and nothing was made"
mv "$bin/intersync" "$bin/away"
fails "start, daemon not installed" 5 'program intersync is not installed' init start
mv "$bin/away" "$bin/intersync"
mv "$TMP/intersync-service" "$TMP/away"
for action in start restart force-reload try-restart; do
	fails "$action, removed but its script" 5 'is not installed' init $action
done
exits "stop, removed but its script" 0 init stop
exits "status, removed but its script" 4 init status
mv "$TMP/away" "$TMP/intersync-service"

# The whole way

configure DEVICE="$TMP/image" CACHE="'$cache/'" FSET=fset0 SIZE=20M FORMAT=yes \
	SERVICE_RUN_NICE_LEVEL=3 MOUNT_OPTS=noatime SERVER_OPTS='"--port=1 --debug=3"'
fails "status before" 3 'fset0: is stopped' init status
fails "stop before" 0 'fset0: is stopped' init stop
fails "start formats, mounts, runs" 0 'fset0: started \(server, .*the cache\)' init start
[ "$(blkid -p -o value -s TYPE "$TMP/image")" = ext4 ] && ok "an image was made" ||
	not_ok "an image was made"
grep -qx "mount $TMP/image $cache -o fileset=fset0,noatime" "$log" && ok "mounted as told" ||
	not_ok "mounted as told" "$log"
grep -qx "intersync --port=1 --debug=3 --pidfile=$run/fset0.pid $cache nice $(($(nice) + 3))" "$log" &&
	ok "daemon run as told" || not_ok "daemon run as told" "$log"
[ "$(readlink "$TMP/var/intermezzo/cache")" = "$cache" ] && ok "the link to the cache" ||
	not_ok "the link to the cache"
fails "status" 0 'fset0: runs \(server, .*process [0-9]+\)' init status
fails "status has what izoctl says" 0 'role: pretended \(status .*the cache\)' init status
echo "state        restarting: httpd has ended and will be started again" >"$TMP/state"
fails "status, httpd is dead" 4 'httpd has ended' init status
rm "$TMP/state"
: >"$TMP/status-fails"
fails "status, the daemon does not answer" 4 'runs' init status
rm "$TMP/status-fails"
fails "status has the peers of a server" 0 'role: pretended \(peers .*the cache\)' init status
try "status as anybody" setpriv --reuid=65534 --clear-groups sh "$TMP/init" status
rm "$log"
fails "start again" 0 'runs already' init start
[ ! -e "$log" ] && ok "did nothing" || not_ok "did nothing" "$log"

# Wait until a process has ended; killed, it does.
gone()
{
	while [ -d "/proc/$1" ] && ! grep -q '^State:.*Z' "/proc/$1/status" 2>/dev/null; do
		sleep 0.05
	done
}

old=$(cat "$run/fset0.pid")
for action in restart force-reload try-restart; do
	fails "$action" 0 'fset0: started' init $action
	new=$(cat "$run/fset0.pid")
	[ "$old" != "$new" ] && ok "with a new process" || not_ok "with a new process"
	old=$new
done

kill -KILL "$old"
gone "$old"
fails "status after a crash" 1 'daemon does not run; .*is mounted' init status
fails "start after a crash" 0 'started' init start
old=$(cat "$run/fset0.pid")
kill -KILL "$old"
gone "$old"
echo $$ >"$run/fset0.pid"
fails "the process of somebody else is not ours" 1 'daemon does not run' init status
exits "try-restart after a crash does nothing" 0 init try-restart
fails "the daemon is still dead" 1 'daemon does not run' init status
fails "stop after a crash" 0 'fset0: stopped' init stop
exits "try-restart, stopped" 0 init try-restart
fails "status after that" 3 'is stopped' init status
fails "start once more" 0 'started' init start

(
	cd "$cache" || exit
	exec sleep 3600
) &
user=$!
while [ "$(readlink "/proc/$user/cwd")" != "$cache" ]; do sleep 0.05; done
for action in restart force-reload try-restart; do
	fails "$action while somebody works there" 0 'fset0: started' init $action
done
umount -l "$cache"
fails "status, the daemon runs and nothing is mounted" 4 'is not mounted' init status
fails "start then" 0 'fset0: started' init start
kill $user
wait $user 2>/dev/null
(
	cd "$cache" || exit
	exec sleep 3600
) &
user=$!
while [ "$(readlink "/proc/$user/cwd")" != "$cache" ]; do sleep 0.05; done
fails "stop while somebody works there" 1 'still in use and stays mounted' init stop
fails "status then" 3 'daemon does not run; .* is mounted' init status
kill $user
wait $user 2>/dev/null
fails "stop when they are gone" 0 'fset0: stopped' init stop
[ ! -L "$TMP/var/intermezzo/cache" ] && ok "the link is gone" || not_ok "the link is gone"
fails "stop again" 0 'is stopped' init stop
grep -q 'tmpfs' /proc/self/mounts && ! grep -q "$(printf '%s' "$cache" | sed 's/ /.040/')" \
	/proc/self/mounts && ok "nothing is mounted" || not_ok "nothing is mounted"

# What goes wrong on the way

: >"$TMP/mount-fails"
fails "the mount fails" 1 'was not mounted' init start
rm "$TMP/mount-fails"
: >"$TMP/daemon-fails"
fails "the daemon fails" 1 'daemon did not start; .* is mounted' init start
rm "$TMP/daemon-fails"
fails "start heals that" 0 'started' init start
init stop >/dev/null
mkdir -p "$cache"
mount -t ramfs none "$cache"
fails "something else is mounted there" 1 'something else is mounted' init start
umount "$cache"

# A target that holds something is never formatted

truncate -s 20M "$TMP/precious"
mkfs.ext4 -q -F "$TMP/precious"
sum=$(cksum <"$TMP/precious")
configure DEVICE="$TMP/precious" CACHE="'$cache'" FORMAT=yes
init start >/dev/null 2>&1
init stop >/dev/null 2>&1
[ "$(cksum <"$TMP/precious")" = "$sum" ] && ok "FORMAT overwrites nothing" ||
	not_ok "FORMAT overwrites nothing"
mkdir "$TMP/tree"
: >"$TMP/tree/file"
configure DEVICE="$TMP/tree" CACHE="'$cache'" FORMAT=yes
fails "a directory is adopted" 0 'started' init start
[ -e "$TMP/tree/.intermezzo/fset0/kml" ] && ok "with a fileset" || not_ok "with a fileset"
init stop >/dev/null

# One line is enough

sed -i "s|^LIB=.*|LIB=$TMP/lib|; s|:=/srv/|:=$TMP/|" "$TMP/intersync-service"
sed -i 's|"10G"|"20M"|; s|:=10G|:=20M|' "$TMP/intersync-service"
configure 'SERVER_OPTS="--port=1"'
try "configured" "$TMP/intersync-service" configured
fails "a server of one line" 0 'fset0: started \(server, .*/fset0\)' init start
[ -s "$TMP/lib/fset0.img" ] && ok "an image was made for it" || not_ok "an image was made for it"
init stop >/dev/null
try "what it makes for systemd" "$TMP/intersync-service" generate "$TMP/units"
grep -qx "ReadWritePaths=\"-$TMP/fset0\"" "$TMP/units/intersync@fset0.service.d/fileset.conf" &&
	grep -q NET_BIND_SERVICE "$TMP/units/intersync@fset0.service.d/fileset.conf" &&
	grep -q "^RequiresMountsFor=.*lib/fset0.img" \
		"$TMP/units/intersync-mount@fset0.service.d/fileset.conf" &&
	ok "has path and port" || not_ok "has path and port"
exits "mount, for systemd" 0 "$TMP/intersync-service" mount fset0
fails "mounted alone is not running" 3 'daemon does not run; .*is mounted' init status
exits "unmount, for systemd" 0 "$TMP/intersync-service" unmount fset0
fails "a fileset of another name" 6 'no fileset other is configured' \
	"$TMP/intersync-service" mount other

# A client, its old names, and further filesets

configure DEVICE="$TMP/tree" INTERSYNC_CACHE="'$cache'" \
	INTERSYNC_CLIENT_OPTS=--server=192.0.2.1
mkdir "$conf.d" "$TMP/a" "$TMP/b"
printf '%s\n' FSET=second DEVICE="$TMP/a" CACHE="$TMP/second" FORMAT=yes >"$conf.d/a.conf"
printf '%s\n' FSET=third DEVICE="$TMP/b" CACHE="$TMP/third" >"$conf.d/b.conf"
: >"$conf.d/ignored"
fails "one of three fails: status" 6 'third|holds no fileset' init start
fails "a client" 0 'fset0: runs \(client' sh -c "sh '$TMP/init' status | grep fset0"
grep -q 'intersync --server=192.0.2.1 --pidfile' "$log" && ok "with its options" ||
	not_ok "with its options" "$log"
echo FORMAT=yes >>"$conf.d/b.conf"
printf '%s\n' FSET=third DEVICE="$TMP/c" CACHE="$TMP/fourth" >"$conf.d/c.conf"
fails "two of one name" 6 'c.conf: FSET="third" is configured in .*b.conf, too' init start
rm "$conf.d/c.conf"
fails "all three run" 0 'third: runs already' init start
fails "status of all" 0 'third: runs \(server' init status
[ "$(readlink "$TMP/var/intermezzo/second")" = "$TMP/second" ] && ok "a link for each" ||
	not_ok "a link for each"
fails "stop all" 0 'third: stopped' init stop
fails "all are stopped" 3 'second: is stopped' init status

done_testing
