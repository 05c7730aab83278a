#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# gpu_check.sh [--dry-run] [build] [tests] [sanitizer] [bench] [peers] [ncu]: everything that needs a GPU, or these
# parts of it; each builds first. Results are written as they come, into $OUT or build-gpu/check:
#   check-PART.log, check-PART.json  every step with its status, time and last line; check-PART.now: the one running
#   accuracy.md                      tests: the sweeps' errors in ulp, as the device rounds
#   bench-*.json, head-*.json, peers-*.json  tare bench, tare bench --head and bench/peers.py, one file a size
#   README.md, ncu-*.txt             the tables of bench/results.py; counters of the three furthest from their targets
# A test that was skipped for want of a GPU or of data is a failure here. A step that would begin later than
# TARE_CHECK_SECONDS (540) after the start is left out and says so: the parts fit one by one into ten minutes.
# --dry-run takes the same steps with the emulated device and tiny sizes. What the machine lacks comes from .gpu
# (tests/gpu_pack.sh).
set -u
cd "$(dirname "$0")/.." || exit 1
dry='' is_dry=false
[ "${1:-}" != --dry-run ] || { dry=1 is_dry=true && shift; }
[ $# -gt 0 ] || set -- tests sanitizer bench peers ncu
parts=$*
build=${TARE_BUILD_DIR:-build-gpu}
case $build in /*) ;; *) build=$PWD/$build ;; esac
seconds=${TARE_CHECK_SECONDS:-540}
[ -z "$dry" ] || seconds=1000000
out=${OUT:-$build/check}
results=$build/results # of all parts that ran here, for the tables; $OUT may be another folder each time
mkdir -p "$results" "$out"
name=$(echo "$parts" | tr ' ' '-')
log=$out/check-$name.log now=$out/check-$name.now steps=$build/check-steps
: >"$log"
: >"$steps"
failures=0 left_out=0
begun=$(date +%s)

own_libraries=${LD_LIBRARY_PATH-} # Python must not meet the libraries of .gpu
python() { LD_LIBRARY_PATH=$own_libraries python3 "$@"; }
if [ -d .gpu ]; then
  export LD_LIBRARY_PATH="$PWD/.gpu/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
  [ ! -d .gpu/bccd ] || export TARE_DATA="${TARE_DATA:-$PWD/.gpu/bccd}"
fi
data=${TARE_DATA:-../shared/data/bccd}
cublas=$(dirname "$(readlink -f "$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)")")/../lib64 # loaded by name
[ ! -d "$cublas" ] || export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$cublas"

text() { tr -d '"\\\n' | cut -c 1-200; }
write_json() {
  {
    printf '{"commit": "%s", "date": "%s", "gpu": "%s", "nvcc": "%s",\n' \
      "$commit" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$gpu" "$toolkit"
    printf ' "dry_run": %s, "failures": %d, "left_out": %d, "steps": [\n' "$is_dry" "$failures" "$left_out"
    sed '$!s/$/,/' "$steps"
    printf ']}\n'
  } >"$out/check-$name.json"
  cp "$out/check-$name.json" "$results/"
}
note() { # note STEP STATUS SECONDS LAST-LINE
  printf '{"step": "%s", "status": "%s", "seconds": %d, "last": "%s"}\n' "$1" "$2" "$3" "$4" >>"$steps"
  write_json
}
step() { # step NAME COMMAND...: runs it into the log, and says how it went; status 77: it cannot run here
  step=$1
  shift
  started=$(date +%s)
  if [ $((started - begun)) -gt "$seconds" ]; then
    left_out=$((left_out + 1))
    echo "left out $step: the time is up"
    note "$step" "left out" 0 ""
    return 1
  fi
  echo "==== $step: $*" >>"$log"
  "$@" >"$now" 2>&1 # where a run that is killed leaves it
  status=$?
  cat "$now" >>"$log"
  took=$(($(date +%s) - started))
  last=$(tail -n 1 "$now" | text)
  case $status in
    0) echo "ok       $step ($took s): $last" ;;
    77) echo "skipped  $step: $last" ;;
    *)
      failures=$((failures + 1))
      echo "FAILED   $step ($took s, status $status)"
      tail -n 15 "$now"
      ;;
  esac
  note "$step" "$status" "$took" "$last"
  return "$status"
}

commit=$(git rev-parse HEAD 2>/dev/null || cat .gpu/commit 2>/dev/null || echo unknown)
gpu=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -n 1 | text)
toolkit=$(nvcc --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p')
write_json
echo "commit $commit, GPU '${gpu:-none}', nvcc '${toolkit:-none}', into $out: $parts"

if [ -n "$dry" ]; then
  cuda=AUTO suffix=_emulated label=emulated tool=$build/emulated/bin/tare
  export TARE_TEST_DEVICES=emulated TARE_TEST_SMALL=1 TARE_EMULATOR_SEED="${TARE_EMULATOR_SEED:-1}"
else
  cuda=ON suffix='' label=cuda tool=$build/bin/tare
  export TARE_TEST_DEVICES=cuda
fi

# ---- build -----------------------------------------------------------------------------------------------------------

part_build() {
  generator=
  if [ ! -f "$build/CMakeCache.txt" ] && command -v ninja >/dev/null; then generator="-G Ninja"; fi
  # shellcheck disable=SC2086
  step configure cmake -S . -B "$build" $generator -DCMAKE_PREFIX_PATH="$PWD/.gpu" -DCMAKE_CUDA_ARCHITECTURES=90 \
    -DTARE_CUDA=$cuda -DTARE_TESTS=ON -DTARE_TOOL=ON ${TARE_CMAKE_ARGS:-} || exit 1
  step build cmake --build "$build" --parallel "$(nproc)" || exit 1
}

# ---- tests -----------------------------------------------------------------------------------------------------------

# One case at a time: each is a process, and makes its own context on the GPU. Nothing may be skipped as a whole.
device_tests() {
  rm -f "$build"/tally/*_"$label".* "$build/accuracy.md"
  TARE_ACCURACY_TABLE=$build/accuracy.md \
    ctest --test-dir "$build" -L "^$label\$" --output-on-failure --parallel 1 || return 1
  cat "$build"/tally/*_"$label".count | awk '
    $1 == 0 { empty++ } { p += $1; f += $2; s += $3 }
    END { print p + 0 " passed, " f + 0 " failed, " s + 0 " skipped"; exit !(p > 0) || f > 0 || empty > 0 }'
}
has_data() { [ -f "$data/labels.npy" ] && echo "real data in $data"; }
keep_accuracy() {
  {
    echo "| loss | dtype | device | points | worst loss, ulp | at | worst gradient, ulp | at | bounds |"
    echo "|---|---|---|---|---|---|---|---|---|"
    cat "$build/accuracy.md"
  } >"$out/accuracy.md" && echo accuracy.md
}
part_tests() {
  step data has_data
  step tests device_tests
  step accuracy keep_accuracy
  TARE_TOOL=$tool step tool "$build/tests/test_tool" -j1
}

# ---- compute-sanitizer -----------------------------------------------------------------------------------------------

few() { # few COMMAND...: a small set of tests, every kernel shape among them, each behind COMMAND
  count=0
  for test in values/each_output_alone_is_the_same levels/element_alignment_suffices levels/sixteen_levels \
    soft_targets/layouts ghm/counts_easy_batches labels/counts_per_class limits/all_ignored gpu/a_graph_of_every_loss \
    gpu/two_contexts_on_two_streams_at_once; do
    [ $(($(date +%s) - begun)) -lt "$seconds" ] || {
      echo "the time is up before $test"
      return 1
    }
    TARE_TEST_SMALL=1 "$@" "$build/tests/test_${test%/*}$suffix" --filter "$test" -j1 >"$build/few.log" 2>&1
    status=$?
    cat "$build/few.log"
    [ "$status" -eq 0 ] || return 1
    grep -q 'Tested: 1 ' "$build/few.log" || {
      echo "$test did not run"
      return 1
    }
    count=$((count + 1))
  done
  echo "$count tests clean"
}
part_sanitizer() {
  for checker in memcheck racecheck initcheck synccheck; do
    if [ -n "$dry" ]; then
      step "$checker" few env
    else
      step "$checker" few timeout 60 compute-sanitizer --tool "$checker" --target-processes all --error-exitcode 9
    fi
  done
}

# ---- benchmarks ------------------------------------------------------------------------------------------------------

scaled() { # scaled ROWS: in a dry run a few, but as many different sizes
  if [ -z "$dry" ]; then echo "$1"; else echo "$1" | awk '{ print int(20 + sqrt($1) / 10) }'; fi
}
rounds=30
[ -z "$dry" ] || rounds=2
into() { # into FILE COMMAND...: its output, whole or not at all
  file=$1
  shift
  "$@" >"$out/$file.part" || {
    rm -f "$out/$file.part"
    return 1
  }
  mv "$out/$file.part" "$out/$file" && cp "$out/$file" "$results/" && echo "$file"
}
bench() { # bench DTYPE ROWS CLASSES LAYOUT
  step "bench $1 $2 x $3 $4" into "bench-$1-$2-$3-$4.json" "$tool" bench --device cuda --json --repeat $rounds \
    --dtype "$1" --rows "$(scaled "$2")" --classes "$3" --layout "$4"
}
fused() { # fused DTYPE CLASSES: the fused head beside product, loss and two products
  step "head $1 100000 x 256 x $2" fused_or_why "head-$1-100000-$2.json" "$1" "$2"
}
fused_or_why() {
  if [ -n "$dry" ]; then
    echo "an emulated GPU has no cuBLAS for the tool"
    return 77
  fi
  into "$1" "$tool" bench --device cuda --json --repeat 10 --head 256 --dtype "$2" --rows 100000 --classes "$3"
}
real() { # real STATE: a trained detector's logits, in which GHM has less to do
  step "bench f32 100000 x 80 $1" into "bench-f32-100000-80-$1.json" "$tool" bench --device cuda --json \
    --repeat $rounds --rows "$(scaled 100000)" --classes 80 --distribution "file:$data/$1_logits.npy" \
    --labels "$data/labels.npy" --loss sigmoid-focal --loss ghm-c
}
tables() {
  python bench/results.py "$results" ${dry:+--dry-run} >"$build/README.md" || return 1
  cp "$build/README.md" "$out/" && echo README.md
}
# What the targets name comes first, the largest batch last.
part_bench() {
  rm -f "$results"/bench-*.json "$results"/head-*.json
  for dtype in f32 bf16 f16; do
    for size in "100000 80" "1600000 80" "100000 81" "100000 1203"; do
      for layout in rows levels; do
        # shellcheck disable=SC2086
        bench $dtype $size $layout
      done
    done
  done
  for dtype in f32 bf16 f16; do
    bench $dtype 100000 91 rows
    bench $dtype 100000 91 levels
    for classes in 80 81 91 1203; do
      bench $dtype 1000 $classes rows
      bench $dtype 10000 $classes rows
    done
    bench $dtype 1600000 81 rows
    bench $dtype 1600000 91 rows
  done
  real early
  real late
  for dtype in f32 bf16; do
    fused $dtype 80
    fused $dtype 1203
  done
  for dtype in f32 bf16 f16; do bench $dtype 1600000 1203 rows; done
  step tables tables
}

# ---- peers -----------------------------------------------------------------------------------------------------------

has_torch() {
  python -c 'import torch; print("torch", torch.__version__, "CUDA", torch.version.cuda)' && return 0
  echo "no PyTorch here"
  return 77
}
peers() { # peers DTYPE ROWS CLASSES LOSSES
  device=cuda
  [ -z "$dry" ] || device=cpu
  step "peers $1 $2 x $3" into "peers-$1-$2-$3.json" python bench/peers.py --library "$build/libtare.so" \
    --device $device --repeat $rounds --dtype "$1" --rows "$(scaled "$2")" --classes "$3" --losses "$4"
}
part_peers() {
  step torch has_torch || return 0
  rm -f "$results"/peers-*.json
  for dtype in f32 bf16; do
    peers $dtype 100000 80 sigmoid
    peers $dtype 1600000 80 sigmoid
    peers $dtype 100000 1203 all
    peers $dtype 100000 81 softmax
  done
  peers f16 100000 80 all
  step tables tables
}

# ---- ncu -------------------------------------------------------------------------------------------------------------

has_ncu() {
  why="no ncu here"
  [ -z "$dry" ] || why="an emulated GPU has no counters"
  [ -n "$dry" ] || ! command -v ncu || return 0
  echo "$why"
  return 77
}
counters() { # counters NUMBER BENCH-ARGUMENTS...
  number=$1
  shift
  into "ncu-$number.txt" ncu --clock-control none --target-processes all --section SpeedOfLight --section Occupancy \
    --section MemoryWorkloadAnalysis --section SchedulerStats --section WarpStateStats --section LaunchStats \
    --metrics sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active,dram__bytes_read.sum,dram__bytes_write.sum \
    "$tool" bench --device cuda --repeat 1 "$@"
}
part_ncu() {
  step ncu has_ncu || return 0
  python bench/results.py "$results" --slowest 3 ${dry:+--dry-run} >"$build/slowest" 2>"$build/why" || {
    step "the slowest" sh -c "cat '$build/why'; echo 'run the part bench first'; exit 1"
    return 1
  }
  number=0
  while read -r arguments; do
    number=$((number + 1))
    # shellcheck disable=SC2086
    step "ncu $arguments" counters $number $arguments </dev/null
  done <"$build/slowest"
}

# ----------------------------------------------------------------------------------------------------------------------

for part in $parts; do
  case $part in
    build | tests | sanitizer | bench | peers | ncu) ;;
    *)
      echo "gpu-check: no part '$part'; there are build, tests, sanitizer, bench, peers, ncu" >&2
      exit 2
      ;;
  esac
done
part_build
for part in $parts; do [ "$part" = build ] || "part_$part"; done
rm -f "$now"
write_json
echo "gpu-check: $failures steps failed, $left_out left out; see $out"
[ "$failures" -eq 0 ] && [ "$left_out" -eq 0 ]
