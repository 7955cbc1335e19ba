# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# The packages where systemd manages services: units, init script, sandbox, watchdog.
# `run` sources it after scenario.sh; systemd_scenario SUITE REPOSITORY.

daemon_pid()
{
	on sd systemctl show -P MainPID intersync@fset0.service
}

# renewed PID: is the daemon another process by now, and does it work?
renewed()
{
	for _ in $(seq 600); do
		n_pid=$(daemon_pid)
		[ "$n_pid" = 0 ] || [ "$n_pid" = "$1" ] ||
			! on sd izoctl status /srv/fset0 >/dev/null || return 0
		sleep 0.2
	done
	on sd journalctl --no-pager -n 30
	return 1
}

units_are_sound()
{
	try "systemd-analyze verify" on sd systemd-analyze verify --man=no intersync.service \
		intersync@fset0.service intersync-mount@fset0.service
	[ ! -s "$TMP/try.out" ] && ok "without a word" ||
		not_ok "without a word" "$TMP/try.out"
	try "systemd-analyze security: 3.0 or better" on sd systemd-analyze security \
		--no-pager --threshold=30 intersync@fset0.service
}

# By /proc: what is promised is what is there.
sandbox_is_real()
{
	s_status=$(root_of sd)/proc/$(daemon_pid)/status
	try "no new privileges" grep -q 'NoNewPrivs:.*1' "$s_status"
	try "system calls are filtered" grep -q '^Seccomp:.*2' "$s_status"
	try "capabilities are bounded" sh -c "! grep 'CapBnd:.*3ffffffff' '$s_status'"
	for s_path in /usr/x /etc/x /var/lib/x /root/x; do
		fails "the daemon cannot write $s_path" any 'Read-only' on sd nsenter \
			-t "$(daemon_pid)" -m touch $s_path
	done
}

# Killed, hung, or told: what systemd does then.
supervision()
{
	s_pid=$(daemon_pid)
	on sd kill -KILL "$s_pid"
	try "killed, it is started again" renewed "$s_pid"
	mkdir -p "$(root_of sd)/run/systemd/system/intersync@.service.d"
	printf '[Service]\nWatchdogSec=3\n' \
		>"$(root_of sd)/run/systemd/system/intersync@.service.d/watchdog.conf"
	on sd systemctl daemon-reload
	init sd restart >"$TMP/out" 2>&1 || not_ok "restart" "$TMP/out"
	s_pid=$(daemon_pid)
	on sd kill -STOP "$s_pid"
	try "hung, it is started again" renewed "$s_pid"
	fails "because of the watchdog" 0 '[Ww]atchdog' on sd journalctl --no-pager -u 'intersync@*'
}

hand_over()
{
	try "enabled for the next boot" on sd systemctl -q is-enabled intersync.service
	try "systemctl start, not configured: nothing happens" on sd systemctl start intersync
	fails "it is not active" 3 'inactive' on sd systemctl is-active intersync
	fails "the script says so" 6 'set SERVER_OPTS' init sd start
	sed -i 's/^#SERVER_OPTS=.*/SERVER_OPTS="--port=402"/' "$(root_of sd)/etc/default/intersync"
	sed -i 's/^#SERVICE_RUN.*/SERVICE_RUN_NICE_LEVEL="-5"/' "$(root_of sd)/etc/default/intersync"
	fails "one line, and the script starts it" 0 'fset0: started' init sd start
	try "as a unit" unit_is sd intersync@fset0.service active
	try "with its mount" unit_is sd intersync-mount@fset0.service active
	try "and all of them" unit_is sd intersync.service active
	[ "$(on sd ps -o ni= -p "$(daemon_pid)" | tr -d ' ')" = -5 ] && ok "its priority" ||
		not_ok "its priority"
	fails "status by the script" 0 'role +server' init sd status
	try "systemctl stop" on sd systemctl stop intersync
	fails "it is stopped" 3 'is stopped' init sd status
	try "and unmounted" sh -c "! grep ' /srv/fset0 ' '$(root_of sd)/proc/self/mounts'"
	try "systemctl start" on sd systemctl start intersync
	fails "it runs" 0 'runs' init sd status
}

stays_in_use()
{
	on sd sh -c 'cd /srv/fset0 && exec sleep 3600' &
	s_user=$!
	while ! on sd fuser -s -m /srv/fset0; do sleep 0.1; done
	s_pid=$(daemon_pid)
	fails "restart while somebody works there" 0 'started' init sd restart
	try "has a new daemon" renewed "$s_pid"
	s_pid=$(daemon_pid)
	try "systemctl reload intersync" on sd systemctl reload intersync
	try "has, too" renewed "$s_pid"
	s_pid=$(daemon_pid)
	s_fuse=$(on sd pgrep -x intermezzo-fuse)
	try "the package is installed again" local_apt sd install --reinstall intersync
	try "has once more" renewed "$s_pid"
	[ "$(on sd pgrep -x intermezzo-fuse)" = "$s_fuse" ] && ok "the file system is as it was" ||
		not_ok "the file system is as it was"
	fails "stop while somebody works there" 1 'stays mounted' init sd stop
	fails "status then" 3 'is mounted' init sd status
	fails "start" 0 'started' init sd start
	on sd pkill -x sleep
	wait $s_user
}

# In a temporary directory, which a sandbox usually hides.
odd_place()
{
	printf '%s\n' FSET=odd CACHE='"/tmp/a cache%"' SIZE=1G 'CLIENT_OPTS="--server=127.0.0.1:402 --fset=fset0"' \
		>"$(root_of sd)/etc/default/intersync.d/odd.conf"
	fails "start one more" 0 'odd: started \(client' init sd start
	echo x >"$(root_of sd)/srv/fset0/x"
	try "it is equal" on sd izoctl sync --timeout=300 '/tmp/a cache%'
	[ -s "$(root_of sd)/tmp/a cache%/x" ] && ok "the file is there" || not_ok "the file is there"
	rm "$(root_of sd)/etc/default/intersync.d/odd.conf"
	try "systemctl stop stops also what nobody configures any more" \
		on sd systemctl stop intersync
	try "its daemon" unit_is sd intersync@odd.service inactive
	fails "start the other one again" 0 'fset0: started' init sd start
}

pull_plug()
{
	power_off sd
	power_on sd
	boot sd
}

# Lines of fstab are units; the old form, too.
fstab_units()
{
	f_root=$(root_of sd)
	mkdir -p "$f_root/var/lib/tree" "$f_root/srv/tree" "$f_root/srv/old"
	echo here >"$f_root/var/lib/tree/file"
	try "a directory becomes a fileset" on sd mkizofs -r tree /var/lib/tree
	try "an image becomes one" on sd mkizofs -r old -s 40M /var/lib/old.img
	cat >>"$f_root/etc/fstab" <<-END
	/var/lib/tree /srv/tree intermezzo _netdev,nofail 0 0
	/var/lib/old.img /srv/old intermezzo loop,fileset=old,mtpt=/srv/old,prestodev=/dev/intermezzo9,cache_type=ext3,noauto 0 0
	/var/lib/missing.img /srv/missing intermezzo nofail 0 0
	END
	on sd systemctl daemon-reload
	for f_name in tree old; do
		try "systemctl start srv-$f_name.mount" on sd systemctl start srv-$f_name.mount
		fails "findmnt shows it" 0 'intermezzo' on sd findmnt -n -o FSTYPE /srv/$f_name
		try "umount" on sd umount /srv/$f_name
		try "the unit knows it" unit_is sd srv-$f_name.mount inactive
	done
	try "both again" on sd systemctl start srv-tree.mount srv-old.mount
}

both_roles()
{
	fstab_units
	printf '%s\n' FSET=copy SIZE=1G 'CLIENT_OPTS="--server=127.0.0.1:402 --fset=fset0"' \
		>"$(root_of sd)/etc/default/intersync.d/copy.conf"
	fails "start a client" 0 'copy: (started|runs already)' init sd start
	# for comes_back
	# shellcheck disable=SC2034
	WRITERS="sd:/srv/fset0 sd:/srv/copy"
	s_units="intersync@fset0.service intersync@copy.service"
	comes_back reboot sd "$s_units" reboot sd
	try "fstab is mounted at boot" unit_is sd srv-tree.mount active
	try "but noauto" unit_is sd srv-old.mount inactive
	comes_back "pulled plug" sd "$s_units" pull_plug
}

autopkgtest()
{
	cp "$TOP_SRCDIR/packaging/debian/tests/service" "$(root_of sd)/root/service"
	try "debian/tests/service" on sd timeout 900 sh /root/service
}

systemd_scenario()
{
	machine sd "$1"
	try "$1: repository" give_repository sd "$2"
	try "$1: install" apt sd install intersync procps psmisc
	try "$1: boot" boot sd || return
	units_are_sound
	autopkgtest
	hand_over
	sandbox_is_real
	stays_in_use
	supervision
	odd_place
	both_roles
	fails "stop" 0 'stopped' init sd stop
	try "purge" local_apt sd purge intersync
	try "no unit is left" sh -c "! ls -d $(root_of sd)/run/systemd/generator/intersync* 2>/dev/null"
	fails "systemd knows it no more" any 'could not be found' on sd systemctl status intersync.service
}
