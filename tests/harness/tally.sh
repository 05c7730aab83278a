#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs one test and writes down how many cases passed, failed and were skipped; tests/harness/total.sh adds them up.
#
#   tally.sh FOLDER NAME criterion EXECUTABLE    counts Criterion's cases, from its TAP report
#   tally.sh FOLDER NAME pytest PYTHON ARG...    the same of python/tests/run.py: conftest.py writes that report
#   tally.sh FOLDER NAME gpu PROBE EXECUTABLE    the same if PROBE finds a GPU; else all its cases are skipped
#   tally.sh FOLDER NAME absent COUNT WHY        counts COUNT cases as skipped: their executables were not built
#   tally.sh FOLDER NAME script COMMAND...       counts one: status 0 passed, 77 skipped (last line says why), else failed
#
# Leaves FOLDER/NAME.count ("passed failed skipped") and FOLDER/NAME.skipped (lines of "cases, which, why" between tabs;
# a why that begins with "no GPU" is counted separately). What the test leaves in TMPDIR is removed. Exit status: 1 if
# something failed or nothing ran, 77 if everything was skipped, else 0.
set -u
folder=$1 name=$2 kind=$3
shift 3
base=$folder/$name
mkdir -p "$folder"
rm -f "$base".*
echo "0 1 0" >"$base.count" # what stands if this script is killed by a timeout

all_skipped() { # all_skipped COUNT WHY
  echo "0 0 $1" >"$base.count"
  printf '%s\tall %s cases\t%s\n' "$1" "$1" "$2" >"$base.skipped"
  echo "$name: 0 passed, 0 failed, $1 skipped: $2"
  exit 77
}
[ "$kind" != absent ] || all_skipped "$1" "$2"
if [ "$kind" = gpu ]; then
  why=$("$1") && status=0 || status=$?
  [ "$status" -ne 77 ] || all_skipped "$("$2" --list | awk '/: [0-9]+ tests?$/ { n += $2 } END { print n + 0 }')" \
    "no GPU: $why"
  shift
  set -- "$@" -j1 # every case makes its own context on the GPU
  kind=criterion
fi

if [ "$kind" = pytest ]; then
  export TARE_TAP="$base.tap"
  python=$1
  shift
  set -- "$python" -B "$@"
fi

TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
export LC_ALL=C
# Tests share the cores: a thread of PyTorch that waits must sleep, or it takes the processor from another test.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:+$UBSAN_OPTIONS:}print_stacktrace=1"
if [ "$kind" = criterion ]; then
  # Leaks in the processes that Criterion forks do not change its exit status, so the sanitizers write into files.
  export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}log_path=$base.sanitizer"
  export UBSAN_OPTIONS="$UBSAN_OPTIONS:log_path=$base.sanitizer"
  export LSAN_OPTIONS="${LSAN_OPTIONS:+$LSAN_OPTIONS:}print_suppressions=0"
  set -- "$@" "--tap=$base.tap"
fi
{
  "$@"
  echo $? >"$base.status"
} 2>&1 | tee "$base.log"
status=$(cat "$base.status")

one_failed_unseen() { # something failed; count it, unless a failure has been counted already
  [ "$failed" -eq 0 ] || return 0
  failed=1
  [ "$passed" -eq 0 ] || passed=$((passed - 1))
}

passed=0 failed=0 skipped=0
: >"$base.skipped"
if [ "$kind" = criterion ] || [ "$kind" = pytest ]; then
  if [ -f "$base.tap" ]; then
    skipped=$(grep -c '^ok - .*# SKIP' "$base.tap")
    passed=$(($(grep -c '^ok ' "$base.tap") - skipped))
    failed=$(grep -c '^not ok ' "$base.tap")
    # Of each file of Python, and of Criterion, one line.
    planned=$(sed -n 's/^1\.\.\([0-9]*\)$/\1/p' "$base.tap" | awk '{ n += $1 } END { if (NR > 0) print n }')
    sed -n "s/^ok - \(.*[^ ]\) *# SKIP \(.*\)/1\t\1\t\2/p" "$base.tap" |
      awk -F '\t' -v OFS='\t' '$3 !~ /^no GPU/ { print; next } !n[$3]++ { why[++k] = $3 }
        END { for (i = 1; i <= k; i++) print n[why[i]], n[why[i]] " cases", why[i] }' \
        >"$base.skipped"
    if [ $((passed + failed + skipped)) -ne "${planned:-0}" ]; then
      echo "$name: ${planned:-no} cases were planned, $((passed + failed + skipped)) reported"
      failed=$((failed + 1))
    fi
  fi
  if [ $((passed + failed + skipped)) -eq 0 ]; then
    echo "$name: no test case was run"
    failed=1
  fi
  [ "$status" -eq 0 ] || one_failed_unseen
elif [ "$status" -eq 0 ]; then
  passed=1
elif [ "$status" -eq 77 ]; then
  skipped=1
  printf '1\tall of it\t%s\n' "$(tail -n 1 "$base.log")" >"$base.skipped"
else
  failed=1
fi

for report in "$base".sanitizer*; do
  [ -s "$report" ] || continue
  echo "$name: $report"
  cat "$report"
  one_failed_unseen
done

echo "$passed $failed $skipped" >"$base.count"
echo "$name: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] || exit 1
[ "$passed" -gt 0 ] || exit 77
