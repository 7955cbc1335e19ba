# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# What every test script sources: where the programs are, TAP, a temporary
# directory, and cleaning up whatever happens.
#
#	. "$(dirname "$0")/../lib.sh"
#
# Programs come from the build tree TOP_BUILDDIR (default: the source tree);
# nothing has to be installed.

if [ -z "$TOP_SRCDIR" ]; then
	TOP_SRCDIR=$(cd "$(dirname "$0")" && while [ ! -f configure.ac ] &&
		[ "$PWD" != / ]; do cd ..; done && pwd)
fi
: "${TOP_BUILDDIR:=$TOP_SRCDIR}"
TOP_BUILDDIR=$(cd "$TOP_BUILDDIR" && pwd)
export TOP_SRCDIR TOP_BUILDDIR

TREECMP=$TOP_BUILDDIR/tests/treecmp/treecmp
KMLPRINT=$TOP_BUILDDIR/kmlprint/kmlprint
MKIZOFS=$TOP_BUILDDIR/mkizofs/mkizofs
IZOCTL=$TOP_BUILDDIR/izoctl/izoctl
INTERSYNC=$TOP_BUILDDIR/intersync/intersync
MOUNT_IZO=$TOP_BUILDDIR/mount/mount.intermezzo
FUSE_IZO=$TOP_BUILDDIR/fuse/intermezzo-fuse
export TREECMP KMLPRINT MKIZOFS IZOCTL INTERSYNC MOUNT_IZO FUSE_IZO

tap_n=0
tap_failed=0

# ok TEXT, not_ok TEXT [DETAIL-FILE], skip TEXT REASON
ok()
{
	tap_n=$((tap_n + 1))
	echo "ok $tap_n - $1"
}

not_ok()
{
	tap_n=$((tap_n + 1))
	tap_failed=$((tap_failed + 1))
	echo "not ok $tap_n - $1"
	if [ -n "$2" ] && [ -f "$2" ]; then
		head -n "${TAP_DETAIL:-40}" "$2" | sed 's/^/# /'
	fi
}

skip()
{
	tap_n=$((tap_n + 1))
	echo "ok $tap_n - $1 # SKIP $2"
}

note()
{
	echo "# $*"
}

# Stop the whole test here.
bail()
{
	echo "Bail out! $*"
	exit 1
}

# try TEXT COMMAND...: ok if the command succeeds; its output is the detail.
try()
{
	try_text=$1
	shift
	if "$@" >"$TMP/try.out" 2>&1; then
		ok "$try_text"
		return 0
	fi
	not_ok "$try_text" "$TMP/try.out"
	return 1
}

# fails TEXT STATUS PATTERN COMMAND...: ok if it exits with STATUS ("any": not 0)
# and prints something that matches PATTERN (extended regular expression).
fails()
{
	fails_text=$1
	fails_status=$2
	fails_pattern=$3
	shift 3
	"$@" >"$TMP/try.out" 2>&1
	fails_got=$?
	[ "$fails_status" != any ] || [ "$fails_got" = 0 ] || fails_status=$fails_got
	if [ "$fails_got" != "$fails_status" ]; then
		echo "exit status $fails_got, expected $fails_status" >>"$TMP/try.out"
		not_ok "$fails_text" "$TMP/try.out"
	elif ! grep -Eq -- "$fails_pattern" "$TMP/try.out"; then
		echo "no line matches: $fails_pattern" >>"$TMP/try.out"
		not_ok "$fails_text" "$TMP/try.out"
	else
		ok "$fails_text"
	fi
}

# sub NAME COMMAND...: a command with TAP output of its own becomes part of ours.
sub()
{
	sub_name=$1
	shift
	{ "$@" 2>&1; echo "# status $?"; } |
	awk -v n="$tap_n" -v name="$sub_name" -v state="$TMP/sub.state" '
	function result(good, text) {
		n++
		failed += !good
		print (good ? "ok " : "not ok ") n " - " name text
		fflush()
	}
	/^# status [0-9]+$/ { status = $3; next }
	/^ok |^not ok / {
		good = /^ok/
		mine += !good
		sub(/^(not )?ok [0-9]*( - )?/, "")
		result(good, ": " $0)
		next
	}
	/^1\.\.0 # SKIP/ { sub(/^1\.\.0/, ""); planned = 1; result(1, " " $0); next }
	/^1\.\.[0-9]+/ { planned = 1; next }
	/^Bail out!/ { mine++; planned = 1; result(0, ": " $0); next }
	{ print (/^#/ ? "" : "# ") $0; fflush() }
	END {
		if (!planned || (status && status != 77 && !mine))
			result(0, ": ended with status " status)
		print n, failed + 0 > state
	}'
	read -r tap_n sub_failed <"$TMP/sub.state" || sub_failed=1
	tap_failed=$((tap_failed + sub_failed))
	[ "$sub_failed" -eq 0 ]
}

# What sanitizers have written meanwhile (run-tests --sanitizers): each report is a
# failure, and is shown once.
reports()
{
	for reports_f in "$SANITIZER_REPORTS"/*.[0-9]*; do
		[ -f "$reports_f" ] || continue
		not_ok "no report of a sanitizer: ${reports_f##*/}" "$reports_f"
		mv "$reports_f" "$SANITIZER_REPORTS/shown/"
	done
}

# End of a script: the plan, and the exit status.
done_testing()
{
	[ -z "$SANITIZER_REPORTS" ] || reports
	echo "1..$tap_n"
	tap_done=1
	[ "$tap_failed" -eq 0 ]
	exit
}

# Reason to leave everything out.
skip_all()
{
	echo "1..0 # SKIP $*"
	tap_done=1
	exit 77
}

need_root()
{
	[ "$(id -u)" -eq 0 ] || skip_all "must be root"
}

need_program()
{
	for need_p in "$@"; do
		command -v "$need_p" >/dev/null || [ -x "$need_p" ] ||
			skip_all "$need_p is missing"
	done
}

# at_exit COMMAND: run at the end, last one first.
at_exit_list=
at_exit()
{
	at_exit_list="$1
$at_exit_list"
}

run_at_exit()
{
	tap_status=$?
	trap - EXIT
	trap '' INT TERM HUP
	if [ -z "$tap_done" ]; then
		echo "# ended early"
		[ -z "$SANITIZER_REPORTS" ] || reports
		[ "$tap_status" -ne 0 ] || tap_status=1
	fi
	# in this shell, so that the commands see what the script knows
	eval "$at_exit_list"
	cd /
	[ -n "$keep_tmp" ] || rm -rf --one-file-system "$TMP"
	exit "$tap_status"
}

TMP=$(mktemp -d "${TMPDIR:-/tmp}/izo-test-XXXXXX") || exit 1
trap run_at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
