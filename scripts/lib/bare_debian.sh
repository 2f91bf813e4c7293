# A bare Debian that boots with systemd, for the scripts that install the packages there; sourced by bash after common.sh.
# bare_debian FOLDER [BINARIES]   makes it once in FOLDER, and the packages (of BINARIES instead of a build); sets FOLDER, SYSTEM, NSPAWN
# throw_away                      an overlay of it that is removed at the end, with packages, names and sources of apt; sets ROOTFS

skip() { echo "skipped: $*" >&2; exit 77; }

bare_debian() {
  [ "$(id -u)" = 0 ] || skip "not root: systemd-nspawn needs it"
  NSPAWN=${NSPAWN:-$(command -v systemd-nspawn || true)}
  [ -x "$NSPAWN" ] || skip "systemd-nspawn is missing: apt-get install --no-install-recommends systemd-container"
  command -v debootstrap >/dev/null || skip "debootstrap is missing: apt-get install debootstrap"
  [ -x "$EMULATOR" ] || scripts/setup demo
  mkdir -p "$1"
  FOLDER=$(cd "$1" && pwd)
  SYSTEM=$FOLDER/system
  if ! [ -e "$FOLDER/.done" ]; then
    say "a bare Debian with systemd"
    local mirror
    mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/*.sources 2>/dev/null | head -1)
    rm -rf "$SYSTEM"
    debootstrap --variant=minbase --include=ca-certificates,systemd-sysv,dbus bookworm "$SYSTEM" "${mirror:-http://deb.debian.org/debian}" \
      >"$FOLDER/debootstrap.log" 2>&1 || skip "debootstrap failed: $(tail -1 "$FOLDER/debootstrap.log")"
    touch "$FOLDER/.done"
  fi
  say "packages"
  rm -rf "$FOLDER/packages"
  scripts/package ${2:+--binaries "$2"} "$FOLDER/packages"
}

remove_overlay() {
  umount -l "$RUN/root/proc" 2>/dev/null || true
  umount -l "$RUN/root" 2>/dev/null || true
  if grep -q " $RUN/" /proc/mounts; then echo "left mounted, not removed: $RUN" >&2; else rm -rf --one-file-system "$RUN"; fi
}

throw_away() {
  RUN=$(mktemp -d "$FOLDER/run.XXXXXX")
  ROOTFS=$RUN/root
  mkdir "$RUN/upper" "$RUN/work" "$ROOTFS"
  trap remove_overlay EXIT
  mount -t overlay overlay -o "lowerdir=$SYSTEM,upperdir=$RUN/upper,workdir=$RUN/work" "$ROOTFS" 2>/dev/null || cp -a "$SYSTEM/." "$ROOTFS/"
  mkdir "$ROOTFS/packages"
  cp "$FOLDER"/packages/*.deb "$ROOTFS/packages/"
  cp /etc/resolv.conf /etc/hosts "$ROOTFS/etc/"
  if cp /etc/apt/sources.list.d/debian.sources "$ROOTFS/etc/apt/sources.list.d/" 2>/dev/null; then rm -f "$ROOTFS/etc/apt/sources.list"; fi
}
