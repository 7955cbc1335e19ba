#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# mkizofs: every kind of target, every refusal, and the catalog of an adopted tree.

# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"
need_root
need_program flock "$MKIZOFS" mkfs.ext4 setfattr setfacl losetup

CATLIST=$TOP_BUILDDIR/tests/tools/catlist

# look FILE: mount the image privately for us, print what a fileset must have
look()
{
	mkdir -p "$TMP/look"
	mount -o loop,ro "$1" "$TMP/look" || return 1
	(cd "$TMP/look/.intermezzo" && find . -printf '%P %m %u %y\n' | sort)
	umount "$TMP/look"
}

cat >"$TMP/expected" <<-END
	 700 root d
	fset0 700 root d
	fset0/base 600 root f
	fset0/incoming 700 root d
	fset0/kml 600 root f
	fset0/last_rcvd 600 root f
END

# Image files of each type

for type in ext4 xfs btrfs; do
	img=$TMP/$type.img
	"$MKIZOFS" -r fset0 -t "$type" -s 400M "$img" >"$TMP/out" 2>"$TMP/err"
	if [ $? -eq 0 ] && [ ! -s "$TMP/err" ]; then
		ok "image with $type: made without a word on standard error"
	else
		not_ok "image with $type: made without a word on standard error" "$TMP/err"
	fi
	[ "$(blkid -p -o value -s TYPE "$img")" = "$type" ] && ok "$type: it is one" ||
		not_ok "$type: it is one"
	look "$img" >"$TMP/look.out"
	try "$type: what a fileset consists of" diff "$TMP/expected" "$TMP/look.out"
	[ "$(stat -c %s "$img")" -eq $((400 << 20)) ] && ok "$type: as large as -s says" ||
		not_ok "$type: as large as -s says"
	[ "$(du -m "$img" | cut -f1)" -lt 200 ] && ok "$type: sparse" || not_ok "$type: sparse"
done
[ -z "$(losetup -n -O BACK-FILE | grep "$TMP/")" ] && ok "no loop device is left" ||
	not_ok "no loop device is left"

"$MKIZOFS" -s 20M "$TMP/default.img" >/dev/null 2>&1
look "$TMP/default.img" | grep -q '^rootfset/kml ' && ok "default: rootfset, ext4" ||
	not_ok "default: rootfset, ext4"
try "kml can be read" sh -c "mount -o loop,ro '$TMP/default.img' '$TMP/look' &&
	'$KMLPRINT' --verify '$TMP/look/.intermezzo/rootfset/kml'; s=\$?; umount '$TMP/look'; exit \$s"

# Refusals

fails "a file system is not overwritten" 1 '\-f overwrites' "$MKIZOFS" "$TMP/ext4.img"
fails "nor with -s" 1 '\-f overwrites' "$MKIZOFS" -s 500M "$TMP/ext4.img"
[ "$(stat -c %s "$TMP/ext4.img")" -eq $((400 << 20)) ] && ok "its size is as before" ||
	not_ok "its size is as before"
try "-f overwrites it" "$MKIZOFS" -f -t xfs "$TMP/ext4.img"
[ "$(blkid -p -o value -s TYPE "$TMP/ext4.img")" = xfs ] && ok "it is xfs now" ||
	not_ok "it is xfs now"

truncate -s 20M "$TMP/table.img"
# a DOS partition table: one Linux partition from sector 2048
printf '\000\040\041\000\203\202\003\000\000\010\000\000\000\020\000\000' |
	dd of="$TMP/table.img" bs=1 seek=446 conv=notrunc 2>/dev/null
printf '\125\252' | dd of="$TMP/table.img" bs=1 seek=510 conv=notrunc 2>/dev/null
fails "a partition table is not overwritten" 1 'partition table.*-f overwrites' \
	"$MKIZOFS" "$TMP/table.img"
try "-f overwrites it" "$MKIZOFS" -f "$TMP/table.img"

mount -o loop "$TMP/default.img" "$TMP/look"
fails "a mounted image is refused" 1 'in use' "$MKIZOFS" -f "$TMP/default.img"
dev=$(losetup -n -O NAME -j "$TMP/default.img")
fails "a mounted device is refused" 1 'in use' "$MKIZOFS" -f "$dev"
umount "$TMP/look"

fails "no file, no size" 1 '\-s SIZE makes' "$MKIZOFS" "$TMP/none"
: >"$TMP/empty"
fails "an empty file, no size" 1 '\-s SIZE says' "$MKIZOFS" "$TMP/empty"
fails "no directory for the file" 1 'No such file' "$MKIZOFS" -s 20M "$TMP/no/file"
fails "too small" 1 'no xfs file system was made' "$MKIZOFS" -t xfs -s 1M "$TMP/small"
[ ! -e "$TMP/small" ] && ok "and nothing is left" || not_ok "and nothing is left"
fails "a bad size" 1 'no size' "$MKIZOFS" -s 10Q "$TMP/x"
fails "a size out of range" 1 'no size' "$MKIZOFS" -s 99999999T "$TMP/x"
fails "size 0" 1 'no size' "$MKIZOFS" -s 0 "$TMP/x"
fails "an unknown type" 1 'not known' "$MKIZOFS" -t ntfs -s 20M "$TMP/x"
fails "a bad name" 1 'no name for a fileset' "$MKIZOFS" -r .x -s 20M "$TMP/x"
fails "a name with a slash" 1 'no name for a fileset' "$MKIZOFS" -r a/b -s 20M "$TMP/x"
fails "no target" 1 'Usage' "$MKIZOFS"
fails "two targets" 1 'Usage' "$MKIZOFS" a b
fails "a fifo" 1 'no block device' sh -c "mkfifo '$TMP/fifo'; '$MKIZOFS' '$TMP/fifo'"
fails "no mkfs" 1 'install xfsprogs' unshare -m sh -c '
	for d in /usr/sbin /sbin; do [ -L $d ] || mount -t tmpfs none $d; done
	exec "$0" -t xfs -s 400M "$1"' "$MKIZOFS" "$TMP/x"
fails "not root" 1 'must be run as root' setpriv --reuid=65534 --clear-groups \
	"$MKIZOFS" -s 20M "$TMP/x"
try "--help" "$MKIZOFS" --help
try "--version" "$MKIZOFS" --version

# A device

truncate -s 300M "$TMP/disk"
dev=$(losetup -f --show "$TMP/disk")
at_exit "losetup -d $dev"
try "a block device" "$MKIZOFS" -r fset0 "$dev"
fails "-s is not for devices" 1 'image files' "$MKIZOFS" -f -s 10M "$dev"

# A directory as it is

tree=$TMP/tree
mkdir -p "$tree/a/b/c" "$tree/lost+found/x" "$tree/empty"
echo one >"$tree/a/one"
ln "$tree/a/one" "$tree/a/b/two"
ln "$tree/a/one" "$tree/three"
ln -s 'some where' "$tree/a/link"
mkfifo -m 620 "$tree/fifo"
mknod "$tree/null" c 1 3
mknod "$tree/disk" b 7 200
: >"$tree/$(printf 'new\nline \\ \001\377')"
: >"$tree/$(printf '%0255d' 0)"
chmod 4711 "$tree/a/one"
chown 12:34 "$tree/a/b/c"
touch -d '1999-12-31 23:59:59.123456789Z' "$tree/a/b/c" "$tree/fifo"
touch -h -d '2040-01-01 00:00:00.000000001Z' "$tree/a/link"
setfattr -n user.one -v 1 "$tree/a/one"
setfattr -n trusted.two -v 2 "$tree/a/one"
setfattr -n trusted.three -v 3 "$tree/empty"
setfacl -m u:77:rx "$tree/empty"
setfacl -d -m u:77:rx "$tree/empty"
setfattr -h -n trusted.link -v 4 "$tree/a/link"
truncate -s 5G "$tree/a/b/sparse"
touch -d '2001-02-03 04:05:06.7Z' "$tree"

# a path longer than PATH_MAX: one half is moved to the bottom of the other
deep=$tree/deep
name=$(printf '%0200d' 7)
chain=$name
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do
	chain=$chain/$name
done
mkdir "$deep"
(cd "$deep" && mkdir -p "$chain" half && cd half && mkdir -p "$chain" && : >"$chain/bottom" &&
	mv "$deep/half" "$deep/$chain")
touch -d '2001-02-03 04:05:06.7Z' "$tree"

# What the catalog must say, from find: xattrs are counted by hand.
expect()
{
	find "$tree" -mindepth 0 \( -path "$tree/.intermezzo" -o -path "$tree/lost+found" \
		-o -path "$deep/*" \) -prune -o \
		-printf '%y %m %U %G %s %T@ /%P%l\0' | tr '\n' '\177' | tr '\0' '\n'
}

"$MKIZOFS" -r fset0 "$tree" >"$TMP/out" 2>&1
[ $? -eq 0 ] && ok "a directory is adopted" || not_ok "a directory is adopted" "$TMP/out"
base=$tree/.intermezzo/fset0/base
try "its catalog is well-formed" sh -c "'$CATLIST' '$base' >'$TMP/list'"
[ "$(stat -c %.9Y "$tree")" = 981173106.700000000 ] && ok "the root's mtime is as before" ||
	not_ok "the root's mtime is as before"
# the same fields from both; directories have no size here, odd bytes compare as one kind
expect | awk '{ split($6, t, "."); $6 = t[1] "." substr(t[2], 1, 9)
	if ($1 == "d") $5 = 0; print $1, $2, $3, $4, $5, $6 }' | sort >"$TMP/find.fields"
grep -v '^x \|/deep/' "$TMP/list" | awk '{ print $1, $2, $3, $4, $5, $6 }' |
	sort >"$TMP/cat.fields"
try "types, modes, owners, sizes and times are those of the tree" \
	diff "$TMP/find.fields" "$TMP/cat.fields"

has()
{
	if grep -Eq -- "$2" "$TMP/list"; then
		ok "$1"
	else
		cut -c1-200 "$TMP/list" >"$TMP/list.cut"
		not_ok "$1" "$TMP/list.cut"
	fi
}
has "symbolic link with its text and attribute" '^l 777 .* 1 /a/link -> some where$'
has "ACLs are attributes" '^d .* 3 /empty$'
has "odd bytes in names" ' /new\\012line\\040\\134\\040\\001\\377$'
has "a name of 255 bytes" ' /0{255}$'
has "a path longer than PATH_MAX" '^f .*/deep(/0{199}7){17}/half(/0{199}7){17}/bottom$'
for name in /a/one /a/b/two /three; do
	has "hard link $name" "^f 4711 .* 4 .* 2 $name\$"
done
grep -q 'lost+found\|\.intermezzo' "$TMP/list" && not_ok "hidden names are hidden" "$TMP/list" ||
	ok "hidden names are hidden"

fails "a second fileset is refused" 1 'holds the fileset fset0 already' "$MKIZOFS" "$tree"
[ -e "$base" ] && ok "and the first one is whole" || not_ok "and the first one is whole"
try "-f makes a new log" "$MKIZOFS" -f -r other "$tree"
[ "$(ls -A "$tree/.intermezzo")" = other ] && ok "and the old one is gone" ||
	not_ok "and the old one is gone"
fails "-s is not for directories" 1 'without -s' "$MKIZOFS" -f -s 1G "$tree"
fails "-t is not for directories" 1 'without -t' "$MKIZOFS" -f -t ext4 "$tree"

exec 8<"$tree/.intermezzo/other/kml"
flock -x 8
fails "a mounted fileset is refused" 1 'is mounted' "$MKIZOFS" -f "$tree"
exec 8<&-

if [ -x "$FUSE_IZO" ] && "$MOUNT_IZO" "$tree" "$tree"; then
	fails "nor is it made over in the mounted fileset" 1 'is a mounted fileset' \
		"$MKIZOFS" -f "$tree"
	umount "$tree"
	# its process still has to leave
	for kml in "$tree"/.intermezzo/*/kml; do
		flock -w 300 "$kml" true
	done
else
	skip "nor is it made over in the mounted fileset" "intermezzo-fuse does not mount"
fi

mkdir "$tree/mnt"
mount -t tmpfs none "$tree/mnt"
fails "a mount point within is refused" 1 'mnt: is a mount point' "$MKIZOFS" -f -r new "$tree"
umount "$tree/mnt"
: >"$tree/file"
mount --bind "$TMP/out" "$tree/file"
fails "a mounted file, too" 1 'file: is a mount point' "$MKIZOFS" -f -r new "$tree"
umount "$tree/file"
[ "$(ls -A "$tree/.intermezzo")" = other ] && ok "the old fileset is still there" ||
	not_ok "the old fileset is still there"

ln "$tree/a/one" "$TMP/outside"
fails "names outside are told" 0 'warning: 1 hard-linked file .*outside' "$MKIZOFS" -f "$tree"

# Attributes that do not fit into one record, where the file system can have so many

mkdir "$TMP/xmnt"
"$MKIZOFS" -f -t xfs -s 400M "$TMP/ext4.img" >/dev/null 2>&1 &&
	mount -o loop "$TMP/ext4.img" "$TMP/xmnt" && at_exit "umount $TMP/xmnt"
mkdir "$TMP/xmnt/t"
: >"$TMP/xmnt/t/many"
value=$(printf '%050000d' 0)
for i in 1 2 3 4 5; do
	setfattr -n "user.big$i" -v "$value" "$TMP/xmnt/t/many"
done
"$MKIZOFS" -r big "$TMP/xmnt/t" >/dev/null
"$CATLIST" "$TMP/xmnt/t/.intermezzo/big/base" >"$TMP/list"
has "many large attributes: two in the record" ' 2 /many$'
[ "$(grep -c '^x /many$' "$TMP/list")" -eq 3 ] && ok "three behind it" ||
	not_ok "three behind it" "$TMP/list"

# Failing and interrupted runs leave nothing, the next one heals

mkdir "$TMP/small"
mount -t tmpfs -o size=300k none "$TMP/small"
at_exit "umount $TMP/small"
i=0
while [ $i -lt 800 ]; do
	: >"$TMP/small/file-with-a-long-name-that-fills-the-catalog-$i"
	i=$((i + 1))
done
dd if=/dev/zero of="$TMP/small/filler" bs=1k count=200 2>/dev/null
fails "disk full" 1 'No space' "$MKIZOFS" "$TMP/small"
[ ! -e "$TMP/small/.intermezzo" ] && ok "and nothing is left" || not_ok "and nothing is left"

many=$TMP/many
mkdir "$many"
(cd "$many" && seq -f 'f%06g' 60000 | xargs touch)
# killed SIGNAL: kill mkizofs while it writes the catalog; fails if it was done before
killed()
{
	"$MKIZOFS" "$many" >/dev/null 2>&1 &
	pid=$!
	while [ ! -e "$many/.intermezzo/.new/base" ] && kill -0 $pid 2>/dev/null; do
		sleep 0.01
	done
	kill -"$1" $pid 2>/dev/null
	! wait $pid 2>/dev/null
}

for sig in TERM KILL; do
	i=0
	until killed $sig; do
		rm -rf "$many/.intermezzo"
		i=$((i + 1))
		[ $i -lt 50 ] || bail "mkizofs is always faster than kill"
	done
	ls -d "$many"/.intermezzo/*/kml >/dev/null 2>&1 && not_ok "SIG$sig: no fileset is left" ||
		ok "SIG$sig: no fileset is left"
done
try "the next run heals" "$MKIZOFS" "$many"
[ "$(ls -A "$many/.intermezzo")" = rootfset ] && ok "and nothing old remains" ||
	not_ok "and nothing old remains"
"$CATLIST" "$many/.intermezzo/rootfset/base" | wc -l >"$TMP/n"
[ "$(cat "$TMP/n")" -eq 60001 ] && ok "all 60000 files are in the catalog" ||
	not_ok "all 60000 files are in the catalog" "$TMP/n"

done_testing
