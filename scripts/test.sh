# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2154 # dev sets build and may_install, packages.sh python
# ./dev test and ./dev debug.

# run_tests FOLDER: every test of a built folder, without the closing total.
run_tests() {
  rm -rf "$1"/tally/*.*
  unset TARE_TEST_FILE
  ctest --test-dir "$1" --output-on-failure --parallel "$(nproc)" || true
}

prepare_tests() { # prepare_tests [SECONDS]: sets up the machine and configures
  want_build
  want_test
  install_wanted
  prepare_python
  rm -f "$build/tally"/*.count # a failing build must not leave the last run's counts to be read
  configure "$build" -DTARE_TESTS=ON -DTARE_TOOL=ON -DTARE_TEST_TIMEOUT="${1:-1800}" -DTARE_PYTHON="$python"
  echo "dev: building in $build" >&2
}

# Everything, and beside it the disassembler, where a test reads machine code.
build_tests() {
  if grep -q '^cuda_report ' "$build/tally/expected"; then fetch_disassembler "$build/disassembler" & fi
  compile "$build" all
  wait
}

test_everything() {
  prepare_tests
  grep '^-- Tare\|^--   ' "$build/configure.log" | cut -c 4-
  build_tests
  run_tests "$build"
  tests/harness/total.sh "$build/tally"
}

test_all_variants() {
  prepare_tests 86400
  build_tests
  TARE_SWEEP=all run_tests "$build"
  configure "$build-asan" --preset asan -DTARE_TESTS=ON -DTARE_TOOL=ON
  compile "$build-asan" all
  set -- "$build/tally"
  for seed in 1 2 3; do
    TARE_TEST_SMALL=1 TARE_TEST_SEED=$seed TARE_EMULATOR_SEED=$seed run_tests "$build-asan"
    rm -rf "$build-asan/tally-$seed"
    cp -r "$build-asan/tally" "$build-asan/tally-$seed"
    set -- "$@" "$build-asan/tally-$seed"
  done
  prepare_aarch64
  compile "$build-aarch64" all
  TARE_TEST_SMALL=1 run_tests "$build-aarch64"
  tests/harness/total.sh "$@" "$build-aarch64/tally"
}

# ---- one test -------------------------------------------------------------------------------------------------------

# read_name NAME[/CASE] [--device D]: sets `name`, as CMake knows the test, `case` and `device`.
read_name() {
  device=
  case=
  name=${1%%/*}
  [ "$name" = "$1" ] || case=${1#*/}
  shift
  if [ "${1:-}" = --device ]; then
    device=${2:-}
    shift "$(($# < 2 ? $# : 2))"
    case $device in
      cpu | emulated | cuda) ;;
      *)
        echo "dev: --device is '$device'; it is cpu, emulated or cuda" >&2
        exit 2
        ;;
    esac
  fi
  if [ $# -gt 0 ]; then
    echo "dev: '$1' is not understood; the form is NAME[/CASE] [--device cpu|emulated|cuda]" >&2
    exit 2
  fi
  source=$(find tests -name "test_${name#test_}.c" -o -type d -name "test_${name#test_}")
  if [ -n "$source" ]; then
    name=test_${name#test_}
  fi
  case $source in *tests/gpu/*) device=${device:-emulated} ;; esac
  case $device in emulated | cuda) suffix=_$device ;; *) suffix= ;; esac
}

all_names() { sed 's/ .*//' "$build/tally/expected" | sort | tr '\n' ' ' | fold -s -w 118; }

# python_FILE is a file of python/tests: one of those that the tests python_numpy and python_torch run.
find_python_file() {
  file=test_${name#python_}.py
  if [ "$name" = "${name#python_}" ] || [ ! -f "python/tests/$file" ]; then return 0; fi
  case $file in test_c.py | test_numpy*) name=python_numpy ;; *) name=python_torch ;; esac
  export TARE_TEST_FILE="$file"
}

test_one() {
  read_name "$@"
  prepare_tests
  find_python_file
  if ! grep -q "^$name$suffix " "$build/tally/expected"; then
    echo "dev: no test '$name$suffix' in this build; there are" >&2
    all_names >&2
    echo >&2
    exit 2
  fi
  # A Criterion test is one target; the others test what all targets make.
  if [ -n "$source" ]; then compile "$build" "$(program_of)"; else compile "$build" all; fi
  if [ -n "$source" ] && [ -n "$case" ]; then
    list_cases | grep -qx "$case" || {
      echo "dev: no case '$case' in $name; there are $(list_cases | tr '\n' ' ')" >&2
      exit 2
    }
    run_program --verbose --filter "*/$case"
  elif [ -n "$case" ]; then
    PYTEST_ADDOPTS="-k $case" exec ctest --test-dir "$build" --verbose -R "^$name\$"
  else
    exec ctest --test-dir "$build" --verbose -R "^$name$suffix\$"
  fi
}

# On a GPU the program is that of the CPU, with another device.
program_of() { case $device in emulated) echo "${name}_emulated" ;; *) echo "$name" ;; esac; }
list_cases() { "$build/tests/$(program_of)" --list | sed -n 's/^.*[├└]── //p' | sed 's/\x1b\[[0-9;]*m//g' | sort -u; }
run_program() {
  case $device in
    emulated) TARE_TEST_DEVICES=emulated TARE_TEST_SMALL=1 exec "$build/tests/$(program_of)" "$@" ;;
    cuda) TARE_TEST_DEVICES=cuda exec "$build/tests/$(program_of)" "$@" ;;
    *) exec "$build/tests/$(program_of)" "$@" ;;
  esac
}

# Criterion runs a case in a process of its own, which gdb follows.
debug() {
  case "${1:-}" in
    */*) ;;
    *)
      echo "dev: debug takes NAME/CASE [--device emulated], as in: ./dev debug values/sizes_f32" >&2
      exit 2
      ;;
  esac
  read_name "$@"
  if [ -z "$source" ]; then
    echo "dev: no Criterion test '$name'; ./dev debug is for those" >&2
    exit 2
  fi
  want_build
  want_test
  want gdb command -v gdb
  install_wanted
  configure "$build-debug" -DCMAKE_BUILD_TYPE=Debug -DTARE_TESTS=ON -DTARE_CUDA=OFF
  build=$build-debug
  compile "$build" "$(program_of)"
  [ "$device" != emulated ] || export TARE_TEST_DEVICES=emulated TARE_TEST_SMALL=1
  exec gdb -q -iex 'set breakpoint pending on' -ex 'set follow-fork-mode child' \
    -ex 'handle SIGSTOP SIGCONT nostop noprint pass' -ex 'echo Set breakpoints, then: run\n' --args "$build/tests/$(program_of)" --jobs 1 --filter "*/$case"
}
