#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# gpu_check.sh [--dry-run]: everything that needs a GPU, in one go: build, the tests on the device, compute-sanitizer
# over a few of them, the benchmarks. Results are written as they come, into $OUT or build-gpu/check: check.log, check.json
# and one bench-*.json for each table. A test that was skipped for want of a GPU or of data is a failure here.
# --dry-run takes the same steps with the emulated device and tiny sizes. What the machine lacks comes from .gpu
# (tests/gpu_pack.sh).
set -u
cd "$(dirname "$0")/.." || exit 1
dry='' is_dry=false
[ "${1:-}" != --dry-run ] || dry=1 is_dry=true
build=${TARE_BUILD_DIR:-build-gpu}
out=${OUT:-$build/check}
mkdir -p "$build" "$out"
log=$out/check.log steps=$build/check-steps
: >"$log"
: >"$steps"
failures=0

if [ -d .gpu ]; then
  export LD_LIBRARY_PATH="$PWD/.gpu/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
  [ ! -d .gpu/bccd ] || export TARE_DATA="${TARE_DATA:-$PWD/.gpu/bccd}"
fi
data=${TARE_DATA:-../shared/data/bccd}

text() { tr -d '"\\\n' | cut -c 1-200; }
write_json() {
  {
    printf '{"commit": "%s", "date": "%s", "gpu": "%s", "nvcc": "%s", "dry_run": %s, "failures": %d,\n "steps": [\n' \
      "$commit" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$gpu" "$toolkit" "$is_dry" "$failures"
    sed '$!s/$/,/' "$steps"
    printf ']}\n'
  } >"$out/check.json"
}
step() { # step NAME COMMAND...: runs it into the log, and says how it went
  name=$1
  shift
  started=$(date +%s)
  echo "==== $name: $*" >>"$log"
  "$@" >"$build/step.log" 2>&1
  status=$?
  cat "$build/step.log" >>"$log"
  took=$(($(date +%s) - started))
  [ "$status" -eq 0 ] || failures=$((failures + 1))
  printf '{"step": "%s", "status": %d, "seconds": %d, "last": "%s"}\n' "$name" "$status" "$took" \
    "$(tail -n 1 "$build/step.log" | text)" >>"$steps"
  write_json
  if [ "$status" -eq 0 ]; then
    echo "ok      $name ($took s): $(tail -n 1 "$build/step.log" | text)"
  else
    echo "FAILED  $name ($took s, status $status)"
    tail -n 15 "$build/step.log"
  fi
  return "$status"
}

commit=$(git rev-parse HEAD 2>/dev/null || cat .gpu/commit 2>/dev/null || echo unknown)
gpu=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -n 1 | text)
toolkit=$(nvcc --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p')
write_json
echo "commit $commit, GPU '${gpu:-none}', nvcc '${toolkit:-none}', into $out"

# ---- build ------------------------------------------------------------------------------------------------------------

jobs=$(nproc)
generator=
if [ ! -f "$build/CMakeCache.txt" ] && command -v ninja >/dev/null; then generator="-G Ninja"; fi
cuda=ON
[ -z "$dry" ] || cuda=AUTO
# shellcheck disable=SC2086
step configure cmake -S . -B "$build" $generator -DCMAKE_PREFIX_PATH="$PWD/.gpu" -DCMAKE_CUDA_ARCHITECTURES=90 \
  -DTARE_CUDA=$cuda -DTARE_TESTS=ON -DTARE_TOOL=ON ${TARE_CMAKE_ARGS:-} || exit 1
step build cmake --build "$build" --parallel "$jobs" || exit 1

if [ -n "$dry" ]; then
  suffix=_emulated label=emulated tool=$build/emulated/bin/tare
  export TARE_TEST_DEVICES=emulated TARE_TEST_SMALL=1 TARE_EMULATOR_SEED="${TARE_EMULATOR_SEED:-1}"
else
  suffix='' label=cuda tool=$build/bin/tare
  export TARE_TEST_DEVICES=cuda
fi

# ---- tests ------------------------------------------------------------------------------------------------------------

# One at a time: each test is a process, and makes its own context on the GPU. Nothing may be skipped as a whole.
device_tests() {
  rm -f "$build"/tally/*_"$label".*
  ctest --test-dir "$build" -L "^$label\$" --output-on-failure --parallel 1 || return 1
  cat "$build"/tally/*_"$label".count | awk '
    $1 == 0 { empty++ } { p += $1; f += $2; s += $3 }
    END { print p + 0 " passed, " f + 0 " failed, " s + 0 " skipped"; exit !(p > 0) || f > 0 || empty > 0 }'
}
has_data() { [ -f "$data/labels.npy" ] && echo "real data in $data"; }
step data has_data
step tests device_tests
TARE_TOOL=$tool step tool "$build/tests/test_tool"

# ---- compute-sanitizer --------------------------------------------------------------------------------------------------

few() { # few COMMAND...: a small set of tests, every kernel shape among them, each behind COMMAND
  for test in values/each_output_alone_is_the_same levels/element_alignment_suffices levels/sixteen_levels \
    soft_targets/layouts ghm/counts_easy_batches labels/counts_per_class limits/all_ignored; do
    TARE_TEST_SMALL=1 "$@" "$build/tests/test_${test%/*}$suffix" --filter "$test" -j1 || return 1
  done
  echo "7 tests clean"
}
for checker in memcheck racecheck initcheck synccheck; do
  if [ -n "$dry" ]; then
    step "$checker" few env
  else
    step "$checker" few timeout 120 compute-sanitizer --tool "$checker" --target-processes all --error-exitcode 9
  fi
done

# ---- benchmarks -----------------------------------------------------------------------------------------------------------

bench() { # bench NAME ARGUMENTS...
  file=$out/bench-$1.json
  shift
  "$tool" bench --device cuda --json "$@" >"$file.part" && mv "$file.part" "$file" && basename "$file"
}
small='' few_rounds=''
[ -z "$dry" ] || small=200 few_rounds="--repeat 2"
for dtype in f32 f16 bf16; do
  # shellcheck disable=SC2086
  {
    step "bench $dtype 100k x 80" bench "$dtype-100k-80" --dtype "$dtype" --rows "${small:-100000}" $few_rounds
    step "bench $dtype 100k x 80 nchw" bench "$dtype-100k-80-nchw" --dtype "$dtype" --rows "${small:-100000}" --layout nchw $few_rounds
    step "bench $dtype 1.6M x 80" bench "$dtype-1600k-80" --dtype "$dtype" --rows "${small:-1600000}" --loss sigmoid-ce \
      --loss sigmoid-focal --gamma 2 --loss ghm-c --bins 30 $few_rounds
    step "bench $dtype 100k x 81 softmax" bench "$dtype-100k-81" --dtype "$dtype" --rows "${small:-100000}" --classes 81 \
      --loss softmax-ce --loss softmax-focal $few_rounds
    step "bench $dtype 100k x 1203 softmax" bench "$dtype-100k-1203" --dtype "$dtype" --rows "${small:-100000}" \
      --classes 1203 --loss softmax-ce --loss softmax-focal $few_rounds
  }
done

write_json
echo "gpu-check: $failures steps failed; see $out"
[ "$failures" -eq 0 ]
