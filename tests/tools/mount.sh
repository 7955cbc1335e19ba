#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The mount helper: its options, every kind of source, every refusal.  A
# stand-in for intermezzo-fuse shows what it is given; tests/fs and tests/e2e
# mount with the real one.

# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"
need_root
need_program "$MKIZOFS" "$MOUNT_IZO" mkfs.ext4 losetup

cat >"$TMP/fuse" <<'END'
#!/bin/sh
# what it was given, and what it finds behind the descriptor
for arg; do
	echo "arg: $arg"
	case $arg in
	--lower-fd=*) ls -A "/proc/self/fd/${arg#*=}/" | sed 's/^/lower: /' ;;
	esac
done
grep " $LOOK_FOR" /proc/self/mountinfo | sed 's/^/seen: /'
exit "${FUSE_STATUS:-0}"
END
chmod +x "$TMP/fuse"
INTERMEZZO_FUSE=$TMP/fuse
LOOK_FOR=$TMP
export INTERMEZZO_FUSE LOOK_FOR

dir=$TMP/mnt
mkdir "$dir" "$TMP/tree"
echo hello >"$TMP/tree/file"
"$MKIZOFS" -r fset0 "$TMP/tree" >/dev/null
"$MKIZOFS" -r fset0 -s 20M "$TMP/image" >/dev/null
"$MKIZOFS" -r fset0 -s 400M -t xfs "$TMP/xfs" >/dev/null

# gives TEXT PATTERN... -- COMMAND...: succeeds, and its output has all patterns
gives()
{
	g_text=$1
	shift
	: >"$TMP/patterns"
	while [ "$1" != -- ]; do
		echo "$1" >>"$TMP/patterns"
		shift
	done
	shift
	if ! "$@" >"$TMP/gives.out" 2>&1; then
		not_ok "$g_text" "$TMP/gives.out"
		return
	fi
	while IFS= read -r g_pattern; do
		grep -Eq -e "$g_pattern" "$TMP/gives.out" && continue
		echo "no line matches: $g_pattern" >>"$TMP/gives.out"
		not_ok "$g_text" "$TMP/gives.out"
		return
	done <"$TMP/patterns"
	ok "$g_text"
}

gives "a directory" '^arg: --fileset=fset0$' '^lower: file$' "^arg: $TMP/tree$" "^arg: $dir$" \
	-- "$MOUNT_IZO" "$TMP/tree" "$dir"
gives "an image" '^lower: \.intermezzo$' '^lower: lost.found$' "^arg: $TMP/image$" \
	-- "$MOUNT_IZO" "$TMP/image" "$dir" -o loop
gives "an image, without loop" '^lower: lost.found$' -- "$MOUNT_IZO" "$TMP/image" "$dir"
gives "xfs" '^lower: \.intermezzo$' -- "$MOUNT_IZO" "$TMP/xfs" "$dir" -o cache_type=xfs
gives "the line of old" '^arg: --minor=0$' '^arg: --fileset=fset0$' \
	-- "$MOUNT_IZO" "$TMP/image" "$dir" -o \
	"rw,loop,fileset=fset0,mtpt=$dir,prestodev=/dev/intermezzo0,cache_type=ext3,noauto"
gives "channel=" '^arg: --minor=12$' -- "$MOUNT_IZO" "$TMP/tree" "$dir" -o channel=12
gives "lowerdir=" '^lower: file$' -- "$MOUNT_IZO" none "$dir" -o "lowerdir=$TMP/tree"
gives "flags of the mount" '^arg: --options=ro,nosuid,nodev,noexec$' \
	-- "$MOUNT_IZO" "$TMP/tree" "$dir" -o noexec,nodev,suid,nosuid,ro,relatime
gives "the last one counts" '^arg: --options=nosuid$' \
	-- "$MOUNT_IZO" "$TMP/tree" "$dir" -o ro,dev,nosuid -o rw,exec
gives "-r" '^arg: --options=ro$' -- "$MOUNT_IZO" -r "$TMP/tree" "$dir"
gives "what is for fstab" '^arg: --fileset' -- "$MOUNT_IZO" "$TMP/tree" "$dir" -n -s -o \
	defaults,auto,user,nofail,_netdev,x-systemd.automount,comment=x,x-gvfs-show
gives "options of the lower file system" '^lower: lost.found$' \
	-- "$MOUNT_IZO" "$TMP/image" "$dir" -o commit=3,noatime
gives "-v tells" 'fileset fset0 of .*tree on .*FUSE' -- "$MOUNT_IZO" -v "$TMP/tree" "$dir"
gives "-t vintermezzo" '^arg: --fileset=rootfset$' -- "$MOUNT_IZO" none "$dir" -t vintermezzo
gives "mount.vintermezzo" '^lower: \.intermezzo$' '^arg: --fileset=v$' '^arg: none$' \
	-- "${MOUNT_IZO%/*}/mount.vintermezzo" none "$dir" -o size=4M,fileset=v
if "$MOUNT_IZO" -f "$TMP/tree" "$dir" | grep -q arg:; then
	not_ok "-f mounts nothing"
else
	ok "-f mounts nothing"
fi
"$MOUNT_IZO" "$TMP/image" "$dir" | grep -q '^seen:' &&
	not_ok "the lower mount cannot be seen" || ok "the lower mount cannot be seen"

# a directory's mount is what it is without what is mounted in it
mkdir "$TMP/tree/sub"
mount -t tmpfs none "$TMP/tree/sub"
: >"$TMP/tree/sub/above"
cat >"$TMP/look" <<'END'
#!/bin/sh
ls -A "/proc/self/fd/${1#*=}/sub"
END
chmod +x "$TMP/look"
[ -z "$(INTERMEZZO_FUSE="$TMP/look" "$MOUNT_IZO" "$TMP/tree" "$dir" 2>&1)" ] &&
	ok "mounts within a directory are not part of it" ||
	not_ok "mounts within a directory are not part of it"
umount "$TMP/tree/sub"

# Refusals, with the statuses of mount(8)

: >"$TMP/plain"
mkdir "$TMP/nothing"
truncate -s 20M "$TMP/blank"
truncate -s 20M "$TMP/plain-ext4"
mkfs.ext4 -q -F "$TMP/plain-ext4"
fails "no fileset in a directory" 32 'run mkizofs first' "$MOUNT_IZO" "$TMP/nothing" "$dir"
fails "no fileset in an image" 32 'run mkizofs first' "$MOUNT_IZO" "$TMP/plain-ext4" "$dir"
fails "no file system" 32 'run mkizofs first' "$MOUNT_IZO" "$TMP/blank" "$dir"
fails "an empty file" 32 '.' "$MOUNT_IZO" "$TMP/plain" "$dir"
fails "no source" 32 'No such file' "$MOUNT_IZO" "$TMP/none" "$dir"
fails "no mount point" 32 'No such file' "$MOUNT_IZO" "$TMP/tree" "$TMP/none"
fails "a file as mount point" 32 'not a directory' "$MOUNT_IZO" "$TMP/tree" "$TMP/plain"
fails "another fileset" 32 'holds the fileset fset0, not other' \
	"$MOUNT_IZO" "$TMP/tree" "$dir" -o fileset=other
fails "another type" 32 'holds xfs, not ext4' "$MOUNT_IZO" "$TMP/xfs" "$dir" -o cache_type=ext4
fails "mtpt= elsewhere" 1 'is not the mount point' "$MOUNT_IZO" "$TMP/tree" "$dir" -o mtpt=/izo0
fails "a bad channel" 1 'must be /dev/intermezzo0' "$MOUNT_IZO" "$TMP/tree" "$dir" -o channel=/dev/x
fails "a large channel" 1 'must be' "$MOUNT_IZO" "$TMP/tree" "$dir" -o channel=1024
fails "a bad backend" 1 'auto, kernel or fuse' "$MOUNT_IZO" "$TMP/tree" "$dir" -o backend=x
fails "a bad name" 1 'no name' "$MOUNT_IZO" "$TMP/tree" "$dir" -o fileset=/x
fails "an empty name" 1 'needs a value' "$MOUNT_IZO" "$TMP/tree" "$dir" -o fileset=
fails "unknown to the lower file system" 32 'bogus' "$MOUNT_IZO" "$TMP/image" "$dir" -o bogus
fails "unknown over a directory" 1 'bogus is not known' "$MOUNT_IZO" "$TMP/tree" "$dir" -o bogus
fails "lowerdir= of a vintermezzo" 1 'is for the type intermezzo' \
	"$MOUNT_IZO" none "$dir" -t vintermezzo -o "lowerdir=$TMP/tree"
fails "one argument" 1 'Usage' "$MOUNT_IZO" "$TMP/tree"
fails "another -t" 1 'not a type of ours' "$MOUNT_IZO" "$TMP/tree" "$dir" -t ext4
fails "not root" 1 'must be run as root' setpriv --reuid=65534 --clear-groups \
	"$MOUNT_IZO" "$TMP/tree" "$dir"
grep -qw intermezzo /proc/filesystems ||
	fails "no kernel module" 32 'No such device|unknown' \
		"$MOUNT_IZO" "$TMP/tree" "$dir" -o backend=kernel
FUSE_STATUS=7
export FUSE_STATUS
fails "a failure of intermezzo-fuse" 32 . "$MOUNT_IZO" "$TMP/tree" "$dir"
unset FUSE_STATUS
fails "no intermezzo-fuse" 2 'cannot run' env INTERMEZZO_FUSE="$TMP/none" \
	"$MOUNT_IZO" "$TMP/tree" "$dir"

# In use: at once if it can be seen, after a while if not

mkdir "$TMP/other"
mount -o loop "$TMP/image" "$TMP/other"
dev=$(losetup -n -O NAME -j "$TMP/image")
fails "a device that is mounted" 32 'in use' "$MOUNT_IZO" "$dev" "$dir"
fails "an image that is mounted" 32 'in use' "$MOUNT_IZO" "$TMP/image" "$dir"
umount "$TMP/other"
exec 8<"$TMP/tree/.intermezzo/fset0/kml"
flock -x 8
fails "a fileset that is mounted" 32 'mounted already' "$MOUNT_IZO" "$TMP/tree" "$dir"
(
	sleep 1
	flock -u 8
) &
gives "one that becomes free" '^arg: --fileset=fset0$' -- "$MOUNT_IZO" "$TMP/tree" "$dir"
wait
exec 8<&-

"$MOUNT_IZO" "$TMP/image" "$dir" >/dev/null
if losetup -n -O BACK-FILE | grep -q "^$TMP/"; then
	not_ok "no loop device is left"
else
	ok "no loop device is left"
fi

done_testing
