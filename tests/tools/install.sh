#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# make install DESTDIR=: everything is where the file system hierarchy wants it, and
# nothing is outside of DESTDIR.

# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"
need_program make
# what a make that runs this hands on would be said twice
unset MAKEFLAGS MAKELEVEL MFLAGS
[ -f "$TOP_BUILDDIR/config.status" ] || skip_all "no build tree"

# where: what configure decided
where()
{
	echo "show: ; @echo \$($1)" | make -s --no-print-directory -C "$TOP_BUILDDIR" -f init/Makefile -f - show 2>/dev/null
}

root=$TMP/root
if ! make -C "$TOP_BUILDDIR" install DESTDIR="$root" >"$TMP/out" 2>&1; then
	tail -n 30 "$TMP/out" >"$TMP/end"
	not_ok "make install" "$TMP/end"
	done_testing
fi
ok "make install"
(cd "$root" && find . ! -type d | sed 's/^\.//') >"$TMP/files"

sbindir=$(where sbindir)
bindir=$(where bindir)
mandir=$(where mandir)
while read -r file; do
	if grep -qxF "$file" "$TMP/files"; then
		ok "$file"
	else
		not_ok "$file" "$TMP/files"
	fi
done <<END
$sbindir/mkizofs
$sbindir/intermezzo-fuse
$sbindir/intersync
$sbindir/izoctl
$bindir/kmlprint
$(where mountdir)/mount.intermezzo
$(where mountdir)/mount.vintermezzo
$(where initdir)/intersync
$(where pkglibexecdir)/intersync-service
$(where systemdunitdir)/intersync.service
$(where systemdunitdir)/intersync@.service
$(where systemdunitdir)/intersync-mount@.service
$(where systemdgeneratordir)/intersync-generator
$(where sysusersdir)/intersync.conf
$(where tmpfilesdir)/intersync.conf
$(where logrotatedir)/intersync
$(where datadir)/bash-completion/completions/izoctl
$(where datadir)/bash-completion/completions/mkizofs
$(where defaultsdir)/intersync
$mandir/man1/kmlprint.1
$mandir/man7/intermezzo.7
$mandir/man8/mkizofs.8
$mandir/man8/mount.intermezzo.8
$mandir/man8/mount.vintermezzo.8
$mandir/man8/intermezzo-fuse.8
$mandir/man8/intersync.8
$mandir/man8/izoctl.8
END
grep -q '/mod_intersync\.so$' "$TMP/files" && ok "mod_intersync.so" ||
	not_ok "mod_intersync.so" "$TMP/files"
sh -n "$root$(where initdir)/intersync" && ok "the init script is one" ||
	not_ok "the init script is one"
if grep -n '@[a-z]*@' "$root$(where initdir)/intersync" >"$TMP/left"; then
	not_ok "nothing is left to be replaced" "$TMP/left"
else
	ok "nothing is left to be replaced"
fi

echo 'DEVICE=/mine' >"$root$(where defaultsdir)/intersync"
make -C "$TOP_BUILDDIR" install DESTDIR="$root" >/dev/null 2>&1
[ "$(cat "$root$(where defaultsdir)/intersync")" = DEVICE=/mine ] &&
	ok "an administrator's file is kept" || not_ok "an administrator's file is kept"
rm "$root$(where defaultsdir)/intersync"

make -C "$TOP_BUILDDIR" uninstall DESTDIR="$root" >"$TMP/out" 2>&1
if [ -z "$(cd "$root" && find . ! -type d)" ]; then
	ok "make uninstall"
else
	(cd "$root" && find . ! -type d) >"$TMP/left"
	not_ok "make uninstall" "$TMP/left"
fi

done_testing
