#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# kmlprint's output and exit codes, compared with what is stored in golden/.
# After a wanted change of the output: kmlprint-test.sh --update, and look at
# the difference.
here=$(cd "$(dirname "$0")" && pwd)
kmlprint=${TOP_BUILDDIR:-../..}/kmlprint/kmlprint
sample=$here/samples/v1.kml
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
# times are printed in UTC, whatever is set here
TZ=Asia/Kolkata
export TZ
update=${1-}
points=0

point() {
	points=$((points + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $points - $2"
	else
		echo "not ok $points - $2"
		sed 's/^/# /' "$dir/err"
	fi
}

# golden NAME ARGUMENT...: standard output is golden/NAME, the exit code 0
golden() {
	name=$1
	shift
	"$kmlprint" "$@" >"$dir/out" 2>"$dir/err"
	code=$?
	if [ "$update" = --update ]; then
		cp "$dir/out" "$here/golden/$name"
	fi
	cmp "$dir/out" "$here/golden/$name" >>"$dir/err" 2>&1 && [ "$code" -eq 0 ]
	point $? "output $name"
}

# fails CODE TEXT ARGUMENT...: that exit code, and a message with TEXT
fails() {
	want=$1
	text=$2
	shift 2
	"$kmlprint" "$@" >"$dir/out" 2>"$dir/err"
	code=$?
	[ "$code" -eq "$want" ] && grep -q -e "$text" "$dir/err"
	point $? "exit code $want: $text"
}

# put FILE OFFSET: standard input into a file, nothing else changed
put() {
	dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}

golden brief "$sample"
golden full --full "$sample"
golden json --json "$sample"
golden reverse --reverse "$sample"
golden range --range=3-5 "$sample"
golden range-from -r 18- "$sample"
golden range-to -R -r -2 "$sample"
golden range-one -r 9 "$sample"
golden ops --op=rename,LINK "$sample"
golden path --path='/a/*' "$sample"
golden target -p '/b/c/new' "$sample"
golden all-of-them -R -r 5-12 -o CLOSE,RENAME -p '*a*' "$sample"
golden clean --verify "$sample"

# what is not whole yet is no error; what is damaged, is
head -c 10000 "$sample" >"$dir/torn"
golden torn "$dir/torn"
golden torn-reverse -R "$dir/torn"
golden torn-verify -c "$dir/torn"
cp "$sample" "$dir/damaged"
printf X | put "$dir/damaged" 5000
fails 1 'damaged at offset 4936' "$dir/damaged"
cp "$dir/out" "$dir/printed"
head -n 3 "$here/golden/brief" | cmp - "$dir/printed" >"$dir/err" 2>&1
point $? "what is before the damage is printed"
fails 1 'record 4 at offset 4936 is damaged' --verify "$dir/damaged"
fails 1 'damaged at offset 5192' --reverse "$dir/damaged"

# directories
mkdir -p "$dir/d/.intermezzo/fset0" "$dir/none"
cp "$sample" "$dir/d/.intermezzo/fset0/kml"
golden brief "$dir/d"
mkdir "$dir/d/.intermezzo/other"
cp "$sample" "$dir/d/.intermezzo/other/kml"
fails 2 'd/.intermezzo/other/kml' "$dir/d"
fails 1 'no fileset is here' "$dir/none"
# as if it were mounted
if setfattr -n trusted.intermezzo.fileset -v fset0 "$dir/d" 2>"$dir/err"; then
	golden brief "$dir/d"
else
	points=$((points + 1))
	echo "ok $points # SKIP cannot set a trusted attribute: $(cat "$dir/err")"
fi

# following

# shows N: wait until process $pid has printed N lines, or has ended
shows()
{
	while kill -0 "$pid" 2>/dev/null && [ "$(wc -l <"$dir/out")" -lt "$1" ]; do
		sleep 0.05
	done
}

# whole BYTES: how many records are whole in so many bytes of the sample
whole()
{
	head -c "$1" "$sample" >"$dir/piece"
	"$kmlprint" "$dir/piece" 2>/dev/null | wc -l
}

head -c 5000 "$sample" >"$dir/log"
"$kmlprint" --follow --range=1-19 "$dir/log" >"$dir/out" 2>"$dir/err" &
pid=$!
shows "$(whole 5000)"
tail -c +5001 "$sample" | head -c 700 >>"$dir/log"
shows "$(whole 5700)"
tail -c +5701 "$sample" >>"$dir/log"
wait "$pid"
point $? "following ends with the range"
cmp "$dir/out" "$here/golden/brief" >"$dir/err" 2>&1
point $? "and shows what comes"
: >"$dir/out"
"$kmlprint" --follow "$dir/log" >"$dir/out" 2>"$dir/err" &
pid=$!
# what is there is printed only after the log is open and watched
shows 1
rm "$dir/log"
wait "$pid"
point $? "or when the log is gone"

# wrong use
fails 1 'No such file' "$dir/nothing"
fails 1 'no kml file' "$0"
"$kmlprint" "$sample" >/dev/full 2>"$dir/err"
[ $? -eq 1 ] && grep -q 'standard output' "$dir/err"
point $? "a full disk is reported"
fails 2 'one file or directory'
fails 2 'one file or directory' a b
fails 2 'no operation FOO' -o CLOSE,FOO "$sample"
fails 2 'range' -r 5-3 "$sample"
fails 2 'range' -r x "$sample"
fails 2 'range' -r - "$sample"
fails 2 'neither' --follow --reverse "$sample"
fails 2 'unrecognized' --wrong "$sample"
"$kmlprint" --help >"$dir/out" 2>"$dir/err"
code=$?
for option in full json follow range op path reverse verify help version; do
	grep -q -e "--$option" "$dir/out" || code=1
	grep -q -e "Fl -$option" "$here/../../man/kmlprint.1" || code=1
	grep -q -e "--$option" "$here/../../kmlprint/kmlprint.bash" || code=1
done
point "$code" "help, man page and completion name every option"
"$kmlprint" -V | grep -q '^kmlprint .*[0-9]'
point $? "the version"
echo "1..$points"
