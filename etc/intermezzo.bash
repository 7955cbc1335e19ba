# SPDX-License-Identifier: GPL-2.0-or-later
# bash completion for mkizofs, intersync, intermezzo-fuse and the mount helpers; those of
# izoctl and kmlprint are with their sources.  tests/packages/options compares the
# options with the commands'.

# _intermezzo_words WORD...: those that begin with what is typed
_intermezzo_words()
{
	mapfile -t COMPREPLY < <(compgen -W "$*" -- "$cur")
	[[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace
}

_mkizofs()
{
	local cur prev words cword

	_init_completion -s || return
	case $prev in
	-t | --type)
		_intermezzo_words ext4 xfs btrfs ;;
	-r | --fileset | -s | --size)
		;;
	*)
		if [[ $cur == -* ]]; then
			_intermezzo_words --fileset= --type= --size= --force --help --version
		else
			_filedir
		fi ;;
	esac
}

_intersync()
{
	local cur prev words cword

	_init_completion -s || return
	case $prev in
	-s | --server)
		_known_hosts_real -- "$cur" ;;
	-c | --conflicts | --pidfile)
		_filedir ;;
	-f | --fset | -l | --listen | -p | --port | -k | --keep-log | -n | --name | -d | --debug)
		;;
	*)
		if [[ $cur == -* ]]; then
			_intermezzo_words --server= --fset= --conflicts= --listen= --port= --keep-log= \
				--insecure --name= --foreground --pidfile= --debug= --help --version
		else
			_filedir -d
		fi ;;
	esac
}

_intermezzo_fuse()
{
	local cur prev words cword

	_init_completion -s || return
	case $prev in
	--lower)
		_filedir -d ;;
	--lower-fd | --fileset | --minor | --options | --lml-size | --close-after | \
		--close-every | --checkpoint-every | --threads | --fault)
		;;
	*)
		if [[ $cur == -* ]]; then
			_intermezzo_words --lower-fd= --lower= --fileset= --minor= --options= \
				--lml-size= --close-after= --close-every= --checkpoint-every= \
				--threads= --foreground --debug --fault= --help --version
		else
			_filedir
		fi ;;
	esac
}

_mount_intermezzo()
{
	local cur prev words cword done=

	_init_completion -n =, || return
	if [[ $prev == -o ]]; then
		[[ $cur != *,* ]] || done=${cur%,*},
		cur=${cur##*,}
		_intermezzo_words fileset= cache_type= channel= prestodev= mtpt= lowerdir= loop \
			backend=auto backend=kernel backend=fuse ro rw nosuid nodev noexec sync \
			dirsync noatime relatime strictatime nodiratime
		COMPREPLY=("${COMPREPLY[@]/#/$done}")
		compopt -o nospace
	elif [[ $cur == -* ]]; then
		_intermezzo_words -f -h -n -o -r -s -t -v -V -w
	else
		_filedir
	fi
}

complete -F _mkizofs mkizofs
complete -F _intersync intersync
complete -F _intermezzo_fuse intermezzo-fuse
complete -F _mount_intermezzo mount.intermezzo mount.vintermezzo
