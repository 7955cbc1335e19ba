# SPDX-License-Identifier: GPL-2.0-or-later
# bash completion for kmlprint
_kmlprint() {
	# shellcheck disable=SC2034 # set by _init_completion
	local cur prev words cword
	_init_completion -s -n , || return
	case $prev in
	-o | --op)
		local ops="CREATE MKDIR UNLINK RMDIR CLOSE SYMLINK RENAME SETATTR
			LINK MKNOD SETXATTR REMOVEXATTR RESYNC"
		local done=
		[[ $cur != *,* ]] || done=${cur%,*},
		compopt -o nospace
		mapfile -t COMPREPLY < <(compgen -P "$done" -W "$ops" -- "${cur##*,}")
		return
		;;
	-r | --range | -p | --path)
		return
		;;
	esac
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "--full --json --follow --range=
			--op= --path= --reverse --verify --help --version" -- "$cur")
		[[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace
		return
	fi
	_filedir
} && complete -F _kmlprint kmlprint
