# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2154 # dev sets build and may_install, packages.sh packages
# ./dev package: what is given to others as files, in dist/: Debian packages, an archive of the installed tree, and an
# archive of the source. Why they are made this way: docs/decisions/0021-packages.md.

package() {
  case "${1:-}" in
    deb) package_deb ;;
    tarball) package_tarball ;;
    source) package_source ;;
    *)
      echo "dev: package takes deb, tarball or source, not '${1:-}'" >&2
      exit 2
      ;;
  esac
}

source_version() { # 0.1.0, from the header
  sed -n 's/^#define TARE_VERSION_\(MAJOR\|MINOR\|PATCH\) \([0-9]*\)$/\2/p' include/tare.h | paste -sd . -
}
in_git() { [ "$(git rev-parse --show-toplevel 2>/dev/null)" = "$(pwd -P)" ]; }
# The time of the newest commit is that of everything that is made from it, so that making it again gives the same bytes.
source_date() { if in_git; then git log -1 --format=%ct; else stat -c %Y CHANGELOG.md; fi; }

copy_source() { # copy_source FOLDER: the files that git knows, as they are now; or all but builds
  mkdir -p "$1"
  if in_git; then git ls-files -z; else find . -type f ! -path './build*' ! -path './dist/*' ! -path '*/__pycache__/*' -print0; fi |
    tar -c --null --files-from=- | tar -x -C "$1"
}

package_source() { # what is committed, byte by byte the same from the same commit
  in_git || {
    echo "dev: a source archive is made in a git checkout" >&2
    exit 1
  }
  name=tare-$(source_version)
  mkdir -p dist
  git archive --format=tar --prefix="$name/" HEAD | gzip -9n >"dist/$name.tar.gz"
  (cd dist && sha256sum "$name.tar.gz")
}

package_tarball() {
  want_build
  want help2man command -v help2man
  install_wanted
  SOURCE_DATE_EPOCH=$(source_date)
  export SOURCE_DATE_EPOCH
  set -- -DTARE_CUDA="${TARE_CUDA:-OFF}" -DTARE_TOOL=ON -DTARE_TESTS=OFF -DTARE_EXAMPLES=OFF
  mkdir -p "$build"
  # shellcheck disable=SC2086
  if ! { cmake -S . -B "$build/tarball" "$@" ${TARE_CMAKE_ARGS:-} &&
    cmake --build "$build/tarball" --parallel "$(nproc)" &&
    cpack --config "$build/tarball/CPackConfig.cmake" -B "$build/tarball/cpack"; } >"$build/tarball.log" 2>&1; then
    cat "$build/tarball.log" >&2
    exit 1
  fi
  mkdir -p dist
  find "$build/tarball/cpack" -maxdepth 1 -name 'tare-*.tar.gz' -exec cp {} dist/ \; -exec basename {} \;
}

want_deb() {
  want_build
  want dpkg-dev command -v dpkg-buildpackage
  want debhelper command -v dh
  want dh-python command -v dh_python3
  want fakeroot command -v fakeroot
  want help2man command -v help2man
  want lintian command -v lintian
}

package_deb() {
  want_deb
  install_wanted
  rm -rf "$build/deb"
  folder=$build/deb/tare
  copy_source "$folder"
  cp -r packaging/debian "$folder/debian"
  # The package of a library is called by its soname (cmake/library.cmake).
  soversion=$(source_version)
  case $soversion in 0.*) soversion=${soversion%.*} ;; *) soversion=${soversion%%.*} ;; esac
  find "$folder/debian" -name 'libtareSOVERSION.*' | while read -r file; do
    mv "$file" "$(echo "$file" | sed "s/SOVERSION/$soversion/")"
  done
  sed -i "s/SOVERSION/$soversion/" "$folder/debian/control" "$folder/debian/rules"
  deb_changelog >"$folder/debian/changelog"
  # nvcc is none of Debian's build dependencies: -d
  (cd "$folder" && TARE_CUDA=${TARE_CUDA:-OFF} DEB_BUILD_OPTIONS="parallel=$(nproc) ${DEB_BUILD_OPTIONS:-}" \
    dpkg-buildpackage -us -uc -b -d) >"$build/deb/log" 2>&1 || {
    tail -n 60 "$build/deb/log" >&2
    exit 1
  }
  lintian --fail-on error,warning "$build"/deb/*.changes || exit 1
  mkdir -p dist
  find "$build/deb" -maxdepth 1 -name '*.deb' ! -name '*-dbgsym_*' -exec cp {} dist/ \; -exec basename {} \; | sort
}

# The Debian revision begins with 0, so that a package of Debian's own is newer. Between two releases the version is that of
# the coming one, with the date, which sorts before it.
deb_changelog() {
  upstream=$(source_version)
  date=$(source_date)
  if in_git && [ -z "$(git tag --points-at HEAD "v$upstream")" ]; then upstream=$upstream~git$(date -u -d "@$date" +%Y%m%d); fi
  # shellcheck disable=SC1091
  system=$(. /etc/os-release && echo "$ID${VERSION_ID:-}")
  # shellcheck disable=SC1091
  suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-unstable}")
  case ${TARE_CUDA:-OFF} in OFF) cuda= ;; *) cuda=+cuda$(cuda_version) ;; esac
  cat <<TEXT
tare ($upstream-0+$system$cuda) $suite; urgency=medium

  * See /usr/share/doc/libtare-dev/changelog.gz.

 -- The Tare maintainers <maintainers@tare.invalid>  $(LC_ALL=C date -u -R -d "@$date")
TEXT
}
cuda_version() {
  "$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)" --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p'
}
