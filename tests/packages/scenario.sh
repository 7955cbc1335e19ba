# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# What a person does with the packages on two machines without systemd, from install to
# purge.  `run` sources it; scenario SUITE REPOSITORY NEWER-REPOSITORY.

SERVER=192.0.2.1
CLIENT=192.0.2.2
EDIT_SERVER="s/^#SERVER_OPTS=.*/SERVER_OPTS=\"--listen=$SERVER --insecure\"/"
EDIT_CLIENT="s/^#CLIENT_OPTS=.*/CLIENT_OPTS=\"--server=$SERVER --insecure\"/"

init()
{
	on "$1" timeout 600 /etc/init.d/intersync "$2"
}

# The tree of NAME, seen from here.
tree()
{
	echo "$(root_of "$1")/srv/fset0"
}

synced()
{
	on client izoctl sync --timeout=300 /srv/fset0 && diff -r "$(tree server)" "$(tree client)"
}

# quiet NAME: nothing of ours runs there, nothing is mounted, no fileset was made
quiet()
{
	! on "$1" pgrep -l 'intersync|apache2|intermezzo-fuse' &&
		! on "$1" grep intermezzo /proc/self/mounts && [ ! -e "$(root_of "$1")/srv/fset0" ]
}

is_unstarted()
{
	try "$1: installing starts, mounts and makes nothing" quiet "$1"
	fails "$1: status, not configured" 3 'no fileset is configured' init "$1" status
	fails "$1: start, not configured" 6 'set SERVER_OPTS or CLIENT_OPTS' init "$1" start
	fails "$1: stop, not configured" 0 '' init "$1" stop
	try "$1: there is an account" on "$1" id intersync
	try "$1: no web server was installed" sh -c \
		"[ ! -e $(root_of "$1")/etc/init.d/apache2 ] && [ ! -e $(root_of "$1")/lib/systemd/system/apache2.service ]"
}

install_both()
{
	for s_name in server client; do
		machine $s_name "$1"
		try "$s_name: repository" give_repository $s_name "$2"
		try "$s_name: apt install intersync" apt $s_name install intersync
		is_unstarted $s_name
	done
	# what the test itself needs
	try "tools of the test" apt server install procps psmisc
	try "tools of the test" apt client install procps psmisc
	wire server $SERVER client $CLIENT
}

first_files()
{
	try "server: one line" sed -i "$EDIT_SERVER" "$(root_of server)/etc/default/intersync"
	try "client: one line" sed -i "$EDIT_CLIENT" "$(root_of client)/etc/default/intersync"
	fails "server: start" 0 'fset0: started \(server, /srv/fset0\)' init server start
	fails "client: start" 0 'fset0: started \(client, /srv/fset0\)' init client start
	echo one >"$(tree server)/one"
	mkdir "$(tree client)/dir"
	echo two >"$(tree client)/dir/two"
	try "files go both ways" synced
	try "the server has the client's" grep -qx two "$(tree server)/dir/two"
	fails "server: status has the role" 0 'role +server' init server status
	fails "server: status has its peer" 0 'client' init server status
	fails "client: status has the lag" 0 'behind +nothing' init client status
	fails "client: status has conflicts" 0 'conflicts +0' init client status
	fails "kmlprint" 0 'CREATE /dir/two' on server kmlprint /srv/fset0
	httpd_account=$(on server ps -C apache2 -o user= | sort -u | tr '\n' ' ')
	[ "$httpd_account" = "intersync root " ] || [ "$httpd_account" = "intersy+ root " ] &&
		ok "httpd runs under its own account" || not_ok "httpd runs under $httpd_account"
}

# The daemon is another process, the file system is not.
upgrade_one()
{
	u_daemon=$(on "$1" cat /run/intersync/fset0.pid)
	u_fuse=$(on "$1" pgrep -x intermezzo-fuse)
	rm -rf "$(root_of "$1")/srv/packages"
	try "$1: repository with a newer version" give_repository "$1" "$2"
	try "$1: upgrade" local_apt "$1" dist-upgrade
	fails "$1: is the newer version" 0 'upgrade' on "$1" dpkg-query -W intersync
	[ "$(on "$1" pgrep -x intermezzo-fuse)" = "$u_fuse" ] && ok "$1: stays mounted" ||
		not_ok "$1: stays mounted"
	[ "$(on "$1" cat /run/intersync/fset0.pid)" != "$u_daemon" ] &&
		ok "$1: has a new daemon" || not_ok "$1: has a new daemon"
	fails "$1: status after the upgrade" 0 'runs' init "$1" status
	try "$1: configuration is kept" grep -q "$SERVER --insecure" \
		"$(root_of "$1")/etc/default/intersync"
}

# Somebody writes on both sides all the time, with files open.
upgrade()
{
	for s_name in server client; do
		on $s_name sh -c 'while [ ! -e /tmp/stop ]; do
			n=$((n + 1)); echo $n >/srv/fset0/$(hostname).$n; echo $n >&3; sleep 0.05
		done 3>/srv/fset0/$(hostname).open; echo $n >/tmp/written' &
		eval "s_$s_name=$!"
	done
	upgrade_one server "$1"
	upgrade_one client "$1"
	for s_name in server client; do
		: >"$(root_of $s_name)/tmp/stop"
		eval "wait \$s_$s_name"
	done
	try "all is equal after the upgrade" synced
	for s_name in server client; do
		s_n=$(cat "$(root_of $s_name)/tmp/written")
		s_files=$(find "$(tree client)" -name "$s_name.[0-9]*" | wc -l)
		[ "$s_n" -gt 0 ] && [ "$s_files" -eq "$s_n" ] &&
			ok "nothing that $s_name wrote was lost ($s_n files)" ||
			not_ok "$s_name wrote $s_n files, there are $s_files"
		[ "$(tail -n 1 "$(tree client)/$s_name.open")" = "$s_n" ] &&
			ok "nor of the file that was open" || not_ok "nor of the file that was open"
	done
}

remove_and_purge()
{
	on client sh -c 'cd /srv/fset0 && exec sleep 3600' &
	s_user=$!
	while ! on client fuser -s -m /srv/fset0; do sleep 0.1; done
	fails "client: somebody works there, it is not removed" any 'still in use and stays mounted' \
		local_apt client remove intersync
	on client sh -c 'kill $(pgrep -x sleep)'
	wait $s_user
	s_image=$(root_of client)/var/lib/intermezzo/fset0.img
	try "client: remove" local_apt client remove intersync
	try "client: nothing runs" sh -c "! $(command -v nsenter) -t $(machine_pid client) -p -m pgrep -x 'intersync|intermezzo-fuse'"
	fails "client: its script says that it is gone" 5 'not installed' on client sh /etc/init.d/intersync start
	[ -s "$s_image" ] && ok "client: the fileset is still there" || not_ok "client: the fileset is gone"
	echo three >"$(tree server)/three"
	try "client: install again" local_apt client install intersync
	fails "client: start again" 0 'fset0: started \(client' init client start
	try "it goes on where it was" synced
	for s_name in client server; do
		try "$s_name: purge" local_apt $s_name purge intersync intermezzo-utils libapache2-mod-intersync
		s_root=$(root_of $s_name)
		find "$s_root/etc" "$s_root/usr" "$s_root/var" "$s_root/run" -xdev \
			\( -name '*intersync*' -o -name '*intermezzo*' \) ! -path '*/srv/*' \
			! -path '*/var/lib/intermezzo' ! -path '*/apt/*' ! -path '*/dpkg/*' \
			! -path '*/var/log/*' >"$WORK/left"
		find "$s_root/var/log/intersync" >>"$WORK/left" 2>/dev/null
		[ ! -s "$WORK/left" ] && ok "$s_name: nothing is left" ||
			not_ok "$s_name: nothing is left" "$WORK/left"
		fails "$s_name: no account is left" 1 'no such user' on $s_name id intersync
		[ -s "$s_root/var/lib/intermezzo/fset0.img" ] && ok "$s_name: but the fileset" ||
			not_ok "$s_name: but the fileset"
	done
}

scenario()
{
	install_both "$1" "$2"
	first_files
	upgrade "$3"
	remove_and_purge
}

# The module's source becomes a module for the suite's kernel.
dkms_scenario()
{
	machine dkms "$1"
	try "$1: repository" give_repository dkms "$2"
	try "$1: install intermezzo-dkms" apt dkms install \
		"linux-headers-$(dpkg --print-architecture)" intermezzo-dkms
	cp "$TOP_SRCDIR/packaging/debian/tests/dkms" "$(root_of dkms)/root/dkms"
	try "$1: debian/tests/dkms" on dkms sh /root/dkms
	try "$1: purge intermezzo-dkms" local_apt dkms purge intermezzo-dkms
	fails "$1: no module is left" 0 '^0$' on dkms sh -c \
		'find /lib/modules /var/lib/dkms/intermezzo -name "intermezzo*" 2>/dev/null | wc -l'
}
