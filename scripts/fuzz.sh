# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2154 # dev sets build and may_install, packages.sh python
# ./dev fuzz: libFuzzer, in a build of its own. New inputs stay in the build folder; what breaks a target stays here.
fuzz() { # fuzz NAME [SECONDS]
  if [ ! -f "tests/fuzz/fuzz_${1:-}.c" ]; then
    echo "dev: no fuzz target '${1:-}'; there are:" tests/fuzz/fuzz_*.c | sed 's,tests/fuzz/fuzz_\([a-z_]*\).c,\1,g' >&2
    exit 2
  fi
  want_build
  want_test
  want_fuzz
  install_wanted
  CC=clang CXX=clang++ configure "$build-fuzz" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTARE_FUZZER=ON -DTARE_SANITIZE=ON \
    -DTARE_CUDA=OFF -DTARE_TESTS=ON -DTARE_TOOL=ON
  compile "$build-fuzz" "fuzz_$1"
  mkdir -p "$build-fuzz/found/$1"
  exec "$build-fuzz/tests/fuzz/fuzz_$1" -max_total_time="${2:-60}" -max_len=4096 -timeout=20 -print_final_stats=1 \
    "$build-fuzz/found/$1" "tests/fuzz/corpus/$1"
}
