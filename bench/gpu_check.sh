#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# gpu_check.sh [--dry-run] [PART]...: runs everything that needs a GPU, or these parts. In order of importance:
#   smoke       every loss once, on a few rows
#   bench       tare bench on the sizes that have a target
#   ncu         counters of the three furthest from their targets
#   tests       every test that loops over devices, except the sweeps, several at a time
#   python      the tests of the Python package that need a GPU
#   sanitizer   compute-sanitizer over the tool, then over a small set of tests
#   peers       PyTorch and other installed libraries, on the same tensors: bench/peers.py
#   accuracy    the sweeps of accuracy
#   more        all other sizes, types and layouts, and the fused head
#   tool        the tests of the command-line tool
# Results go into $OUT, or build-gpu/check, as they come. They are few files, as only few may be brought back:
#   check-PARTS.log, .json, .now   every step with status, time and last line; the output of the current step
#   README.md, accuracy.md         the tables of bench/results.py; errors of the sweeps in ulp
#   results.tar.gz                 all results: bench-*.json, head-*.json, peers-*.json, ncu-*.txt, *.tap and the above
# It runs the programs that bench/gpu_pack.sh left in .gpu, if their sources are unchanged. Otherwise, or with the part
# `build`, it builds them first. A test that is skipped because of a missing GPU or missing data is a failure here. A
# step that would begin later than TARE_CHECK_SECONDS (540) after the start is left out, and a line says so. No step
# runs longer than 45 s after that. A case that hangs is killed after TARE_TEST_SECONDS (40), and the tests after 200 s.
# --dry-run runs the same steps with the emulated device and tiny sizes; of tests, sweeps and sizes a few.
set -u
cd "$(dirname "$0")/.." || exit 1
dry='' is_dry=false
[ "${1:-}" != --dry-run ] || { dry=1 is_dry=true && shift; }
[ $# -gt 0 ] || set -- smoke bench ncu tests python sanitizer peers accuracy more tool
parts=$*
for part in $parts; do
  case $part in
    build | smoke | bench | ncu | tests | python | sanitizer | peers | accuracy | more | tool) ;;
    *)
      echo "gpu-check: no part '$part'; there are build, smoke, bench, ncu, tests, python, sanitizer, peers, accuracy, more, tool" >&2
      exit 2
      ;;
  esac
done
build=${TARE_BUILD_DIR:-build-gpu}
case $build in /*) ;; *) build=$PWD/$build ;; esac
seconds=${TARE_CHECK_SECONDS:-540}
[ -z "$dry" ] || seconds=1000000
[ -n "$dry" ] || export TARE_TEST_SECONDS="${TARE_TEST_SECONDS:-40}"
out=${OUT:-$build/check}
results=$build/results # of all parts that ran here, for the tables; $OUT may be another folder each time
mkdir -p "$results" "$out"
name=$(echo "$parts" | tr ' ' '-')
[ $# -lt 4 ] || name=all
log=$out/check-$name.log now=$out/check-$name.now steps=$build/check-steps
: >"$log"
: >"$steps"
failures=0 left_out=0 begun=$(date +%s)

# Libraries of .gpu for what was built here or there, and for nothing else: Python and NVIDIA's tools have their own.
libraries=$PWD/.gpu/lib
for cublas in "$(dirname "$(readlink -f "$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)")")/../lib64" \
  /usr/lib/x86_64-linux-gnu \
  "$(python3 -c 'import nvidia.cu13, os; print(os.path.join(list(nvidia.cu13.__path__)[0], "lib"))' 2>/dev/null)"; do
  [ ! -e "$cublas/libcublas.so.13" ] || break # loaded by name
done
libraries=$libraries${cublas:+:$cublas}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
ours() { env LD_LIBRARY_PATH="$libraries" "$@"; }
[ ! -d .gpu/bccd ] || export TARE_DATA="${TARE_DATA:-$PWD/.gpu/bccd}"
data=${TARE_DATA:-../shared/data/bccd}

text() { tr -d '"\\\n' | cut -c 1-200; }
keep() { # what there is, for whoever may be stopped at any time
  {
    printf '{"commit": "%s", "date": "%s", "gpu": "%s", "nvcc": "%s",\n' \
      "$commit" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$gpu" "$toolkit"
    printf ' "dry_run": %s, "failures": %d, "left_out": %d, "steps": [\n' "$is_dry" "$failures" "$left_out"
    sed '$!s/$/,/' "$steps"
    printf ']}\n'
  } >"$out/check-$name.json"
  cp "$out/check-$name.json" "$log" "$results/"
  tar -C "$results" -czf "$build/results.tar.gz" . && mv "$build/results.tar.gz" "$out/"
}
note() { # note STEP STATUS SECONDS LAST-LINE
  printf '{"step": "%s", "status": "%s", "seconds": %d, "last": "%s"}\n' "$1" "$2" "$3" "$4" >>"$steps"
  keep
}
within() { # within SECONDS COMMAND...: no longer than this, nor than there is time
  most=$(($1 * patience < end - $(date +%s) ? $1 * patience : end - $(date +%s)))
  shift
  timeout -k 5 "$most" "$@"
}
end=$((begun + seconds + 45))
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
keep
echo "commit $commit, GPU '${gpu:-none}', nvcc '${toolkit:-none}', into $out: $parts"

# ---- build -----------------------------------------------------------------------------------------------------------

if [ -n "$dry" ]; then
  cuda=OFF suffix=_emulated targets="gpu_tests_emulated tare_tool_emulated test_tool tare" # kernels build longest
  patience=20 some='@(values|gpu)/*' sweeps=accuracy/f32_cross_entropy types=f16 rounds=2 # slow; ./dev test runs all tests
  export TARE_TEST_DEVICES=emulated TARE_TEST_SMALL=1 TARE_EMULATOR_SEED="${TARE_EMULATOR_SEED:-1}"
else
  cuda=ON suffix='' targets="gpu_tests tare_tool test_tool tare device_probe"
  patience=1 some='!(accuracy)/*' sweeps='accuracy/*' types='f32 bf16 f16' rounds=30
  export TARE_TEST_DEVICES=cuda
fi

is_packed() { [ -z "$dry" ] && [ -f .gpu/bin/gpu_tests ] && chmod +x .gpu/bin/* && sha256sum --quiet -c .gpu/sources; }
part_build() {
  generator=
  if [ ! -f "$build/CMakeCache.txt" ] && command -v ninja >/dev/null; then generator="-G Ninja"; fi
  # shellcheck disable=SC2086
  step configure cmake -S . -B "$build" $generator -DCMAKE_PREFIX_PATH="$PWD/.gpu" -DCMAKE_CUDA_ARCHITECTURES=90 \
    -DTARE_CUDA=$cuda -DTARE_TESTS=ON -DTARE_TOOL=ON ${TARE_CMAKE_ARGS:-} || exit 1
  # shellcheck disable=SC2086
  step build cmake --build "$build" --parallel "$(nproc)" --target $targets || exit 1
}
case " $parts " in *" build "*) wants_build=1 ;; *) wants_build='' ;; esac
if [ -z "$wants_build" ] && is_packed >"$now" 2>&1; then
  tests=$PWD/.gpu/bin/gpu_tests tool=$PWD/.gpu/bin/tare tool_tests=$PWD/.gpu/bin/test_tool
  library=$PWD/.gpu/lib/libtare.so probe=$PWD/.gpu/bin/device_probe
else
  [ -z "$dry" ] && [ -f .gpu/bin/gpu_tests ] && echo "built here: .gpu has other sources, or is not wanted"
  part_build
  tests=$build/tests/gpu_tests$suffix tool=$build/${dry:+emulated/}bin/tare tool_tests=$build/tests/test_tool
  library=$build/libtare.so probe=$build/tests/device_probe
fi

# ---- tests -----------------------------------------------------------------------------------------------------------

# Each case is a process and makes its own context on the GPU; most of its time goes to the reference on the CPU.
jobs=$(($(nproc) < 12 ? $(nproc) : 12))
capped() { # capped SECONDS COMMAND...: within them on a GPU; an emulated one is slow
  if [ -n "$dry" ]; then shift; else set -- within "$@"; fi
  "$@"
}
run_tests() { # run_tests NAME SECONDS PATTERN: of suite/case
  tap=$results/$1.tap
  rm -f "$tap"
  folder=$(mktemp -d)
  TMPDIR=$folder LC_ALL=C capped "$2" env LD_LIBRARY_PATH="$libraries" "$tests" --filter "$3" --tap="$tap" -j"$jobs"
  status=$?
  rm -rf "$folder"
  [ -f "$tap" ] || return 1
  grep '^not ok' "$tap" | head -n 20
  awk -v status=$status -v dry="$dry" '
    /# SKIP test was skipped/ { next } # by the pattern
    !dry && /^ok .*# SKIP (no GPU|no device|.*data)/ { missing++; print }
    /^ok .*# SKIP/ { s++; next } /^ok/ { p++ } /^not ok/ { f++ }
    END {
      print p + 0 " passed, " f + 0 " failed, " s + 0 " skipped, " missing + 0 " of them for want of a GPU or data"
      exit status != 0 || !p || f || missing
    }' "$tap"
}
has_gpu() { # as the library sees it; without one there is no use in going on
  [ -z "$dry" ] || return 0
  nvidia-smi
  ours "$probe"
}
has_data() { [ -f "$data/labels.npy" ] && echo "real data in $data"; }
part_smoke() { # a hang costs 40 s, and shows before anything else is tried
  for dtype in f32 bf16 f16; do
    step "smoke $dtype" ours timeout $((40 * patience)) "$tool" bench --device cuda --repeat 1 --rows "$(scaled 1000)" --classes 91 --dtype $dtype
  done
  step "smoke levels" ours timeout $((40 * patience)) "$tool" bench --device cuda --repeat 1 --rows "$(scaled 1000)" --classes 21 --layout levels
}
part_tests() {
  step data has_data
  step tests run_tests tests 200 "$some"
}
accuracy() {
  rm -f "$build/accuracy.md"
  TARE_ACCURACY_TABLE=$build/accuracy.md run_tests accuracy 150 "$sweeps"
  status=$?
  {
    echo "| loss | dtype | device | points | worst loss, ulp | at | worst gradient, ulp | at | bounds |"
    echo "|---|---|---|---|---|---|---|---|---|"
    sort "$build/accuracy.md"
  } >"$out/accuracy.md"
  cp "$out/accuracy.md" "$results/"
  return $status
}
part_accuracy() { step accuracy accuracy; }
tool_test() { TARE_TOOL=$tool capped 100 env LD_LIBRARY_PATH="$libraries" "$tool_tests" -j"$jobs"; }
part_tool() { step tool tool_test; }

# ---- compute-sanitizer -----------------------------------------------------------------------------------------------

few() { # few COMMAND...: a small set of tests, every kernel shape among them, behind COMMAND
  tap=$build/few.tap
  rm -f "$tap"
  TARE_TEST_SMALL=1 capped 100 "$@" env LD_LIBRARY_PATH="$libraries" "$tests" -j"$jobs" --tap="$tap" --filter "@(values/\
each_output_alone_is_the_same|levels/element_alignment_suffices|levels/sixteen_levels|soft_targets/layouts|ghm/\
counts_easy_batches|labels/counts_per_class|limits/all_ignored|gpu/a_graph_of_every_loss|gpu/\
two_contexts_on_two_streams_at_once)"
  status=$?
  [ -f "$tap" ] || return 1
  awk -v status=$status '/# SKIP test was skipped/ { next } /^ok .*# SKIP/ { s++; next } /^ok/ { p++ } /^not ok/ { f++; print }
    END { print p + 0 " tests clean, " f + 0 " not, " s + 0 " skipped"; exit status != 0 || f > 0 || p + 0 != 9 }' "$tap"
}
checked() { # checked LAYOUT COMMAND...: every loss in the tool, which does not fork, behind COMMAND
  layout=$1
  shift
  within 60 "$@" env LD_LIBRARY_PATH="$libraries" "$tool" bench --device cuda --repeat 1 --rows "$(scaled 300)" --classes 21 \
    --layout "$layout"
}
part_sanitizer() { # the tests last, because Criterion forks
  for checker in memcheck racecheck initcheck synccheck; do
    behind="compute-sanitizer --tool $checker --target-processes all --error-exitcode 9"
    [ -z "$dry" ] || behind='env'
    # shellcheck disable=SC2086
    step "$checker rows" checked rows $behind && step "$checker levels" checked levels $behind &&
      step "$checker tests" few $behind
  done
}

# ---- benchmarks ------------------------------------------------------------------------------------------------------

scaled() { # scaled ROWS: in a dry run a few, but as many different sizes
  if [ -z "$dry" ]; then echo "$1"; else echo "$1" | awk '{ print int(20 + sqrt($1) / 10) }'; fi
}
into() { # into FILE COMMAND...: its output, whole or not at all
  file=$1
  shift
  "$@" >"$build/part" || return 1
  mv "$build/part" "$results/$file" && echo "$file"
}
bench() { # bench DTYPE ROWS CLASSES LAYOUT
  step "bench $1 $2 x $3 $4" into "bench-$1-$2-$3-$4.json" ours timeout $((60 * patience)) "$tool" bench --device cuda --json \
    --repeat $rounds --dtype "$1" --rows "$(scaled "$2")" --classes "$3" --layout "$4"
}
fused() { # fused DTYPE CLASSES: the fused head beside product, loss and two products
  step "head $1 100000 x 256 x $2" fused_or_why "head-$1-100000-$2.json" "$1" "$2"
}
fused_or_why() {
  if [ -n "$dry" ]; then
    echo "an emulated GPU has no cuBLAS for the tool"
    return 77
  fi
  into "$1" ours timeout $((60 * patience)) "$tool" bench --device cuda --json --repeat 10 --head 256 --dtype "$2" --rows 100000 \
    --classes "$3"
}
real() { # real STATE: a trained detector's logits, in which GHM has less to do
  step "bench f32 100000 x 80 $1" into "bench-f32-100000-80-$1.json" ours timeout $((60 * patience)) "$tool" bench --device cuda --json \
    --repeat $rounds --rows "$(scaled 100000)" --classes 80 --distribution "file:$data/$1_logits.npy" \
    --labels "$data/labels.npy" --loss sigmoid-focal --loss ghm-c
}
python() { python3 "$@"; }
tables() {
  python bench/results.py "$results" ${dry:+--dry-run} >"$build/README.md" || return 1
  cp "$build/README.md" "$out/" && cp "$build/README.md" "$results/" && sed -n '/^## Targets/,/^## [^T]/p' "$out/README.md"
  echo README.md
}
part_bench() {
  rm -f "$results"/bench-*.json "$results"/head-*.json
  for dtype in f32 bf16; do
    for classes in 80 81 91 1203; do bench $dtype 100000 $classes rows; done
    bench $dtype 1600000 80 rows
    bench $dtype 100000 80 levels
    bench $dtype 100000 81 levels
    bench $dtype 1600000 80 levels # of maps with an odd number of positions
  done
  real late
  step tables tables
}
part_more() {
  for dtype in f32 bf16; do
    fused $dtype 80
    fused $dtype 1203
    bench $dtype 100000 1203 levels
  done
  for classes in 80 81 1203; do
    for layout in rows levels; do bench f16 100000 $classes $layout; done
  done
  for layout in rows levels; do bench f16 1600000 80 $layout; done
  real early
  for dtype in $types; do
    for classes in 80 81 91 1203; do
      bench "$dtype" 1000 $classes rows
      bench "$dtype" 10000 $classes rows
    done
    bench "$dtype" 100000 91 levels
    bench "$dtype" 1600000 81 rows
    bench "$dtype" 1600000 91 rows
  done
  bench f16 100000 91 rows
  for dtype in $types; do bench "$dtype" 1600000 1203 rows; done
  step tables tables
}

# ---- Python ----------------------------------------------------------------------------------------------------------

python_tests() { # skipped for want of a GPU: failed
  PYTHONPATH=$PWD/python TARE_LIBRARY=$library capped 90 python3 -B -m pytest -q -rs -p no:cacheprovider \
    python/tests/test_cuda.py || return 1
  [ -n "$dry" ] || ! grep -q 'SKIPPED.*no GPU' "$now"
}
part_python() {
  step torch has_torch || return 0
  step pytest has_pytest || return 0
  step python python_tests
}
has_pytest() {
  python -c 'import pytest; print("pytest", pytest.__version__)' && return 0
  echo "no pytest here"
  return 77
}

# ---- peers -----------------------------------------------------------------------------------------------------------

has_torch() {
  python -c 'import torch; print("torch", torch.__version__, "CUDA", torch.version.cuda)' && return 0
  echo "no PyTorch here"
  return 77
}
peers() { # peers DTYPE ROWS CLASSES LOSSES: two that take long to compile are left out
  device=${dry:+cpu}
  step "peers $1 $2 x $3" into "peers-$1-$2-$3.json" timeout $((90 * patience)) python3 bench/peers.py --library "$library" \
    --device "${device:-cuda}" --repeat $rounds --dtype "$1" --rows "$(scaled "$2")" --classes "$3" --losses "$4" \
    --without "F.binary_cross_entropy_with_logits, torch.compile" --without "focal's formula, torch.compile"
}
part_peers() {
  step torch has_torch || return 0
  rm -f "$results"/peers-*.json
  for dtype in f32 bf16; do
    peers $dtype 100000 80 sigmoid
    peers $dtype 100000 1203 all
    peers $dtype 100000 81 softmax
    peers $dtype 1600000 80 sigmoid
  done
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
counters() { # counters NUMBER BENCH-ARGUMENTS...: of the second call; the first has warmed up
  number=$1
  shift
  into "ncu-$number.txt" within 60 ncu --clock-control none --target-processes all --launch-skip 1 --launch-count 2 \
    --section SpeedOfLight --section Occupancy --section MemoryWorkloadAnalysis --section SchedulerStats \
    --section WarpStateStats --section LaunchStats \
    --metrics sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active,dram__bytes_read.sum,dram__bytes_write.sum \
    env LD_LIBRARY_PATH="$libraries" "$tool" bench --device cuda --repeat 1 "$@"
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

step device has_gpu || [ -n "$dry" ] || exit 1
for part in $parts; do [ "$part" = build ] || "part_$part"; done
rm -f "$now"
keep
echo "gpu-check: $failures steps failed, $left_out left out, $(($(date +%s) - begun)) s; see $out"
[ "$failures" -eq 0 ] && [ "$left_out" -eq 0 ]
