# SPDX-License-Identifier: GPL-2.0-or-later
# bash completion for izoctl(8)

_izoctl()
{
	local cur=${COMP_WORDS[COMP_CWORD]}

	case $cur in
	-*)
		mapfile -t COMPREPLY < <(compgen -W '--json --timeout= --keep= --help --version' -- "$cur")
		return
		;;
	esac
	if [ "$COMP_CWORD" -eq 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W 'status sync check peers conflicts resolve' -- "$cur")
	else
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
	fi
}
complete -F _izoctl izoctl
