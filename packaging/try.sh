#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# try.sh bookworm|trixie|noble FOLDER: what a user does, in two empty systems under FOLDER (2 GB, removed afterwards). In
# one of them this commit's packages and wheel are built, and the demo, a test and the documentation. In the other they
# are installed and used. Needs root, debootstrap, and access to the archives of Debian and PyPI. TARE_TRY_QUICKLY=1:
# all but the wheel, whose size has a limit, is compiled without optimization, in a tenth of the time.
set -eu
suite=$1 folder=$2
cd "$(dirname "$0")/.."
mkdir -p "$folder"
build=$folder/$suite-build use=$folder/$suite-use
case $suite in
  noble) mirror=http://archive.ubuntu.com/ubuntu script=gutsy ;; # all of Ubuntu's are one script; Debian 12 knows no noble
  *) mirror=http://deb.debian.org/debian script= ;;
esac

leave() {
  for root in "$build" "$use"; do
    umount "$root/proc" "$root/dev" 2>/dev/null || true
    mountpoint -q "$root/dev" || mountpoint -q "$root/proc" || rm -rf --one-file-system "$root"
  done
}
trap leave EXIT
trap 'exit 1' HUP INT TERM # EXIT alone leaves the mounts after Ctrl-C

launcher=
inside() { # inside ROOT COMMAND...: in /tare, with a clean environment
  root=$1
  shift
  chroot "$root" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    PIP_CERT="${PIP_CERT:+/tare/certificates}" CMAKE_C_COMPILER_LAUNCHER="$launcher" \
    CMAKE_CXX_COMPILER_LAUNCHER="$launcher" sh -c 'cd /tare && exec "$@"' sh "$@"
}
step() {
  echo "== $suite: $*"
}

begin() { # begin ROOT: an empty system
  mkdir -p "$1/tare"
  mount -t proc proc "$1/proc"
  mount --bind /dev "$1/dev"
  cp -L /etc/resolv.conf /etc/hosts "$1/etc/"
  [ -z "${PIP_CERT:-}" ] || cp -L "$PIP_CERT" "$1/tare/certificates"
}

step "debootstrap"
debootstrap --variant=minbase "$suite" "$build" "$mirror" ${script:+"$script"} >"$folder/$suite.log"
[ "$suite" != noble ] || echo "deb $mirror noble main universe" >"$build/etc/apt/sources.list"
cp -a "$build" "$use"
begin "$build"
begin "$use"
git archive HEAD | tar -x -C "$build/tare"
printf '#!/bin/sh\nexec "$@" -O0\n' >"$build/tare/quickly"
chmod +x "$build/tare/quickly"

quickly=${TARE_TRY_QUICKLY:+/tare/quickly}
for command in "demo" "test errors" "package deb" "package tarball" "wheel" "docs"; do
  step "./dev $command"
  case $command in wheel) launcher= ;; *) launcher=$quickly ;; esac
  # shellcheck disable=SC2086
  inside "$build" ./dev $command
done

step "conan create packaging/conan"
launcher=$quickly
# shellcheck disable=SC2016
inside "$build" sh -c 'python3 -m venv /opt/conan && PATH=/opt/conan/bin:$PATH && pip install --quiet conan &&
  conan profile detect >/tmp/log 2>&1 && conan create packaging/conan >>/tmp/log 2>&1 || { cat /tmp/log; exit 1; }
  tail -n 3 /tmp/log'

step "install and use"
mkdir "$use/tare/dist"
cp "$build"/tare/dist/*.deb "$build"/tare/dist/*.whl "$build"/tare/dist/*.tar.gz "$use/tare/dist/"
cp "$build/tare/tests/install/main.c" "$use/tare/"
cp "$build/tare/packaging/use.sh" "$use/tare/"
inside "$use" sh use.sh
