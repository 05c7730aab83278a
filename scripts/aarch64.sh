# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2154 # dev sets build and may_install, packages.sh packages
# ./dev test --aarch64: the library, the tool, the tests and the examples, built for 64-bit ARM by Debian's cross
# compiler and run under qemu-user. Its libraries are Debian's packages of arm64, unpacked in ~/.cache/tare/aarch64:
# this machine's own list of packages, and what is installed on it, stay as they are.

aarch64_packages="libjansson-dev libjansson4 libcsv-dev libcsv3 libmpfr-dev libmpfr6 libgmp-dev libgmp10 \
libopenblas0-pthread libgfortran5"
aarch64_root=${XDG_CACHE_HOME:-$HOME/.cache}/tare/aarch64

want_aarch64() {
  want gcc-aarch64-linux-gnu command -v aarch64-linux-gnu-gcc
  want g++-aarch64-linux-gnu command -v aarch64-linux-gnu-g++
  want qemu-user command -v qemu-aarch64
}

# Needs no rights: apt-get works in a folder of its own, as if on a machine of arm64 with nothing installed.
fetch_aarch64_libraries() {
  if [ "$(cat "$aarch64_root/packages" 2>/dev/null)" = "$aarch64_packages" ]; then return 0; fi
  echo "dev: fetching Debian's libraries for arm64 to $aarch64_root, once" >&2
  apt=$(mktemp -d)
  rm -rf "$aarch64_root"
  mkdir -p "$aarch64_root" "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/packages"
  : >"$apt/status"
  cat >"$apt/apt.conf" <<TEXT
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "$(id -un)";
Dir::State "$apt";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
TEXT
  # shellcheck disable=SC2086
  if ! (export APT_CONFIG="$apt/apt.conf" && cd "$apt/packages" &&
    apt-get update && apt-get download $aarch64_packages &&
    for package in *.deb; do dpkg-deb -x "$package" "$aarch64_root"; done) >"$apt/log" 2>&1; then
    cat "$apt/log" >&2
    echo "dev: could not fetch the packages for arm64: $aarch64_packages" >&2
    rm -rf "$apt"
    exit 77 # nothing was tested; Ubuntu's archive of x86-64 has no arm64
  fi
  rm -rf "$apt"
  echo "$aarch64_packages" >"$aarch64_root/packages"
}

prepare_aarch64() { # sets up the machine and configures
  want_build
  want_aarch64
  install_wanted
  fetch_aarch64_libraries
  rm -f "$build-aarch64/tally"/*.count
  configure "$build-aarch64" --toolchain "$PWD/cmake/aarch64-linux-gnu.cmake" -DTARE_TARGET_ROOT="$aarch64_root" \
    -DTARE_CUDA=OFF -DTARE_TESTS=ON -DTARE_TOOL=ON -DTARE_MPI=OFF -DTARE_NCCL=OFF -DTARE_TEST_TIMEOUT=7200
  echo "dev: building for aarch64 in $build-aarch64" >&2
}

# Small sizes: qemu takes about ten times as long as the machine.
test_aarch64() { # test_aarch64 [--smoke | NAME]
  export TARE_TEST_SMALL=1
  prepare_aarch64
  case "${1:-}" in
    '')
      compile "$build-aarch64" all
      run_tests "$build-aarch64"
      tests/harness/total.sh "$build-aarch64/tally"
      ;;
    --smoke) # the build, vector loops, every loss against the oracle, the tool on a batch
      compile "$build-aarch64" tare_tool test_values example_imbalance
      ctest --test-dir "$build-aarch64" --output-on-failure --no-tests=error \
        -R '^(smoke|emulated_demo|vectorisation)$'
      ;;
    *)
      name=test_${1#test_}
      grep -q "^$name " "$build-aarch64/tally/expected" || name=$1
      grep -q "^$name " "$build-aarch64/tally/expected" || {
        echo "dev: no test '$1' in the build for aarch64" >&2
        exit 2
      }
      case $name in test_*) compile "$build-aarch64" "$name" ;; *) compile "$build-aarch64" all ;; esac
      ctest --test-dir "$build-aarch64" --verbose -R "^$name\$"
      ;;
  esac
}
