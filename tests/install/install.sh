#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# install.sh CONSUMER BUILD CMAKE CC CXX READELF: installs BUILD into a folder of its own, moves that folder, and builds
# and runs the program in CONSUMER against it: by find_package (shared, static, C and C++) and by pkg-config. Before that,
# what was installed can be removed, and a component installed alone.
set -eu
consumer=$1 build=$2 cmake=$3 cc=$4 cxx=$5 readelf=$6
work=$build/install-test
rm -rf "$work"
mkdir -p "$work"

quiet() {
  "$@" >"$work/log" 2>&1 || { cat "$work/log"; echo "failed: $*"; exit 1; }
}

run() { # run HOW PROGRAM ARGUMENTS...
  how=$1
  shift
  text=$("$@") || { echo "failed, $how: $text"; exit 1; }
  echo "$how: $text" | head -n 1
}

quiet "$cmake" --install "$build" --prefix "$work/gone"
quiet "$cmake" --build "$build" --target uninstall
left=$(find "$work/gone" ! -type d -o -name tare)
[ -z "$left" ] || { echo "uninstall leaves $left"; exit 1; }
quiet "$cmake" --install "$build" --prefix "$work/part" --component runtime
installed=$(cd "$work/part" && find . ! -type d | sed 's|.*/||; s|[.0-9]*$||' | sort -u | tr '\n' ' ')
[ "$installed" = "LICENSE NOTICE libtare.so " ] || { echo "the component runtime has $installed"; exit 1; }
quiet "$cmake" --install "$build" --prefix "$work/first"
mv "$work/first" "$work/prefix" # nothing may remember where it was installed
quiet "$consumer/../checks/runpath.sh" "$readelf" "$work/prefix"
quiet "$cmake" -S "$consumer" -B "$work/consumer" -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_C_COMPILER="$cc" \
  -DCMAKE_CXX_COMPILER="$cxx"
quiet "$cmake" --build "$work/consumer"
for program in c_shared c_static cxx_shared cxx_static; do
  run "find_package, $program" "$work/consumer/$program"
done

run "a plugin, static" "$work/consumer/unload" "$work/consumer/libplugin.so"

if ! command -v pkg-config >/dev/null; then
  echo "pkg-config is not installed: not checked"
  exit 1
fi
pc=$(find "$work/prefix" -name tare.pc)
libdir=$(dirname "$(dirname "$pc")")
export PKG_CONFIG_PATH="${pc%/*}"
[ "$(cd "$(pkg-config --variable=prefix tare)" && pwd)" = "$(cd "$work/prefix" && pwd)" ] || {
  echo "pkg-config has the prefix $(pkg-config --variable=prefix tare)"
  exit 1
}
if [ -x "$work/prefix/bin/tare" ]; then
  run "the tool" "$work/prefix/bin/tare" info
  for file in bash-completion/completions/tare zsh/site-functions/_tare; do
    [ -f "$work/prefix/share/$file" ] || { echo "$file is not installed"; exit 1; }
  done
  if [ -d "$build/man" ]; then
    for page in tare tare-eval tare-weights; do
      grep -q '^\.SH DESCRIPTION' "$work/prefix/share/man/man1/$page.1" || { echo "no man page of $page"; exit 1; }
    done
  fi
fi
# shellcheck disable=SC2046
quiet "$cc" "$consumer/main.c" $(pkg-config --cflags --libs tare) \
  "-Wl,-rpath,$(pkg-config --variable=libdir tare)" -o "$work/pc_shared"
run "pkg-config, shared" "$work/pc_shared"
rm "$libdir"/libtare.so* # pkg-config --static leaves the choice of library to the linker
# shellcheck disable=SC2046
quiet "$cc" "$consumer/main.c" $(pkg-config --cflags --static --libs tare) -o "$work/pc_static"
run "pkg-config, static" "$work/pc_static"
