# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# What a person does with the packages on two machines, from install to purge.  `run`
# sources it; scenario SUITE REPOSITORY NEWER-REPOSITORY.  They have no systemd here;
# systemd.sh is for that.

SERVER=192.0.2.1
CLIENT=192.0.2.2

init()
{
	on "$1" timeout 600 /etc/init.d/intersync "$2"
}

# readme NAME: what the README says to type on it
readme()
{
	sed -n '/Where they can be installed/,/^The file itself/s/^    //p' "$TOP_SRCDIR/README.md" |
		awk -v name="$1" '/^apt install/ { n++ } n == (name == "server" ? 1 : 2)'
}

# typed NAME LINE: typed there; of "editor FILE   # LINE" the editor puts that line in
typed()
{
	case $2 in
	editor*)
		t_line=${2#*\# }
		t_file=$(echo "$2" | awk '{ print $2 }')
		on "$1" sed -i "s|^#${t_line%%=*}=.*|$t_line|" "$t_file" &&
			on "$1" grep -xF "$t_line" "$t_file" ;;
	"apt install"*)
		# one word each
		# shellcheck disable=SC2086
		apt "$1" ${2#apt } ;;
	*)
		on "$1" sh -c "$2" ;;
	esac
}

# listing NAME DIR: what both sides have equal
listing()
{
	on "$1" sh -c 'cd "$1" && find . -mindepth 1 -path ./.intermezzo -prune -o -type d -printf "%p %y %m %U %G %T@\n" \
		-o -printf "%p %y %m %U %G %n %s %T@ %l\n" | sort &&
		find . -path ./.intermezzo -prune -o -type f -print0 | sort -z | xargs -0 -r sha256sum' sh "$2"
}

# same NAME DIR NAME DIR
same()
{
	listing "$1" "$2" >"$WORK/first" && listing "$3" "$4" >"$WORK/second" &&
		diff "$WORK/first" "$WORK/second" | head -n 40 && cmp -s "$WORK/first" "$WORK/second"
}

synced()
{
	on client izoctl sync --timeout=600 /srv/fset0 && same server /srv/fset0 client /srv/fset0
}

# quiet NAME: nothing of ours runs there, nothing is mounted, no fileset was made
quiet()
{
	! on "$1" pgrep -l 'intersync|apache2|intermezzo-fuse' &&
		! on "$1" grep intermezzo /proc/self/mounts && ! on "$1" test -e /srv/fset0
}

is_unstarted()
{
	try "$1: installing starts, mounts and makes nothing" quiet "$1"
	fails "$1: status, not configured" 3 'no fileset is configured' init "$1" status
	fails "$1: start, not configured" 6 'set SERVER_OPTS or CLIENT_OPTS' init "$1" start
	fails "$1: stop, not configured" 0 '' init "$1" stop
	try "$1: there is an account" on "$1" id intersync
	try "$1: no web server was installed" on "$1" sh -c \
		'[ ! -e /etc/init.d/apache2 ] && [ ! -e /lib/systemd/system/apache2.service ]'
}

install_both()
{
	for s_name in server client; do
		machine $s_name "$1"
		try "$s_name: repository" give_repository $s_name "$2"
		s_line=$(readme $s_name | head -n 1)
		try "$s_name: $s_line" typed $s_name "$s_line"
		# what the test itself needs
		try "$s_name: tools of the test" apt $s_name install procps psmisc
		is_unstarted $s_name
	done
	wire server $SERVER client $CLIENT
}

# As the README has it, after installing.
first_files()
{
	for s_name in server client; do
		readme $s_name | sed 1d >"$WORK/readme"
		while read -r s_line; do
			try "$s_name: $s_line" typed $s_name "$s_line"
		done <"$WORK/readme"
	done
	cp "$TMP/try.out" "$WORK/shown"
	fails "the last one shows what the server wrote" 0 '^hello$' cat "$WORK/shown"
	fails "one line is edited, and four commands are typed" 0 '^3 1 4 1$' echo \
		"$(readme server | grep -vc ^editor) $(readme server | grep -c ^editor)" \
		"$(readme client | grep -vc ^editor) $(readme client | grep -c ^editor)"
	on client sh -c 'mkdir /srv/fset0/dir && echo two >/srv/fset0/dir/two'
	try "files go both ways" synced
	try "the server has the client's" on server grep -qx two /srv/fset0/dir/two
	fails "server: status has the role" 0 'role +server' init server status
	fails "server: status has its peer" 0 'client' init server status
	fails "client: status has the lag" 0 'behind +nothing' init client status
	fails "client: status has conflicts" 0 'conflicts +none' init client status
	fails "kmlprint" 0 'CREATE /dir/two' on server kmlprint /srv/fset0
	httpd_account=$(on server ps -C apache2 -o user= | sort -u | tr '\n' ' ')
	[ "$httpd_account" = "intersync root " ] || [ "$httpd_account" = "intersy+ root " ] &&
		ok "httpd runs under its own account" || not_ok "httpd runs under $httpd_account"
}

# What cannot stay the same if it is unmounted: a mount's number
mount_of()
{
	on "$1" awk '$5 == "/srv/fset0" { print $1, $3 }' /proc/self/mountinfo
}

# The daemon is another process, the file system is not.
upgrade_one()
{
	u_daemon=$(on "$1" cat /run/intersync/fset0.pid)
	u_mount=$(mount_of "$1")
	try "$1: repository with a newer version" give_repository "$1" "$2"
	try "$1: upgrade" local_apt "$1" dist-upgrade
	fails "$1: is the newer version" 0 'upgrade' on "$1" dpkg-query -W intersync
	[ -n "$u_mount" ] && [ "$(mount_of "$1")" = "$u_mount" ] && ok "$1: stays mounted" ||
		not_ok "$1: stays mounted"
	[ "$(on "$1" cat /run/intersync/fset0.pid)" != "$u_daemon" ] &&
		ok "$1: has a new daemon" || not_ok "$1: has a new daemon"
	fails "$1: status after the upgrade" 0 'runs' init "$1" status
	try "$1: configuration is kept" on "$1" grep -q "$SERVER --insecure" /etc/default/intersync
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
		on $s_name touch /tmp/stop
		eval "wait \$s_$s_name"
	done
	try "all is equal after the upgrade" synced
	for s_name in server client; do
		s_n=$(on $s_name cat /tmp/written)
		s_files=$(on client find /srv/fset0 -name "$s_name.[0-9]*" | wc -l)
		[ "$s_n" -gt 0 ] && [ "$s_files" -eq "$s_n" ] &&
			ok "nothing that $s_name wrote was lost ($s_n files)" ||
			not_ok "$s_name wrote $s_n files, there are $s_files"
		[ "$(on client tail -n 1 "/srv/fset0/$s_name.open")" = "$s_n" ] &&
			ok "nor of the file that was open" || not_ok "nor of the file that was open"
	done
}

# soon NAME COMMAND...: it succeeds there within some minutes
soon()
{
	for _ in $(seq 600); do
		! on "$@" >"$WORK/soon" 2>&1 || return 0
		sleep 0.5
	done
	cat "$WORK/soon"
	return 1
}

# unit_is NAME UNIT STATE: is it, soon?
unit_is()
{
	soon "$1" sh -c '[ "$(systemctl is-active "$1")" = "$2" ]' sh "$2" "$3" && return
	on "$1" systemctl status --no-pager "$2"
	return 1
}

# comes_back TEXT NAME UNITS COMMAND...: WRITERS (machine:mount point, the first is the server's)
# write all the time, NAME goes down and up by the command, and its units are active
comes_back()
{
	c_text=$1
	c_name=$2
	c_units=$3
	shift 3
	c_n=0
	for c_writer in $WRITERS; do
		c_n=$((c_n + 1))
		# not our children: what ends one of the machines would end them
		on "${c_writer%:*}" systemd-run -q --unit="writer-$c_n" --collect sh -c \
			"while echo \$((n += 1)) >${c_writer#*:}/from-$c_n.\$n; do sleep 0.02; done"
	done
	c_server=${WRITERS%% *}
	c_client=${WRITERS#* }
	try "$c_text: both write" soon "${c_server%:*}" test -e "${c_server#*:}/from-2.20"
	try "$c_text: up again" "$@" || return
	for c_unit in $c_units; do
		try "$c_text: $c_unit is back by itself" unit_is "$c_name" "$c_unit" active
	done
	# there is another side only on another machine
	[ "${c_client%:*}" = "$c_name" ] ||
		try "$c_text: the other side goes on" soon "${c_server%:*}" \
			test -e "${c_server#*:}/from-2.30"
	for c_writer in $WRITERS; do
		on "${c_writer%:*}" systemctl stop 'writer-*' 2>/dev/null
	done
	try "$c_text: both converge" on "${c_client%:*}" izoctl sync --timeout=600 "${c_client#*:}"
	try "$c_text: nothing differs" same "${c_server%:*}" "${c_server#*:}" "${c_client%:*}" "${c_client#*:}"
	try "$c_text: kmlprint --verify" on "${c_server%:*}" kmlprint --verify "${c_server#*:}"
	on "${c_server%:*}" sh -c "rm -f ${c_server#*:}/from-*"
	try "$c_text: removed on both sides" on "${c_client%:*}" izoctl sync --timeout=600 "${c_client#*:}"
}

remove_and_purge()
{
	on client sh -c 'cd /srv/fset0 && exec sleep 3600' &
	s_user=$!
	soon client fuser -s -m /srv/fset0
	fails "client: somebody works there, it is not removed" any 'still in use and stays mounted' \
		local_apt client remove intersync
	on client sh -c 'kill $(pgrep -x sleep)'
	wait $s_user
	try "client: remove" local_apt client remove intersync
	fails "client: nothing runs" 1 '^$' on client sh -c 'pgrep -x "intersync|intermezzo-fuse" || { echo; exit 1; }'
	fails "client: its script says that it is gone" 5 'not installed' on client sh /etc/init.d/intersync start
	try "client: the fileset is still there" on client test -s /var/lib/intermezzo/fset0.img
	on server sh -c 'echo three >/srv/fset0/three'
	try "client: install again" local_apt client install intersync
	fails "client: start again" 0 'fset0: started \(client' init client start
	try "it goes on where it was" synced
	for s_name in client server; do
		try "$s_name: purge" local_apt $s_name purge intersync intermezzo-utils \
			libapache2-mod-intersync intermezzo-dkms
		fails "$s_name: nothing is left" 0 '^nothing$' on $s_name sh -c '
			find /etc /usr /var /run -xdev \( -name "*intersync*" -o -name "*intermezzo*" \) \
				! -path "*/srv/*" ! -path "*/var/lib/intermezzo" ! -path "*/apt/*" \
				! -path "*/dpkg/*" ! -path "*/var/log/*" >/tmp/left
			find /var/log/intersync >>/tmp/left 2>/dev/null
			[ -s /tmp/left ] && cat /tmp/left || echo nothing'
		fails "$s_name: no account is left" 1 'no such user' on $s_name id intersync
		try "$s_name: but the fileset" on $s_name test -s /var/lib/intermezzo/fset0.img
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
