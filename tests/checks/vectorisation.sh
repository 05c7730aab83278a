#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# vectorisation.sh SOURCE BUILD COMPILER_ID PROCESSOR OBJDUMP: gcc's own report says that the hot loops are vectorised
# at full width. A hot loop is a `for` line that ends in a comment "hot: NAME", or "hot: NAME (any)" where a narrower
# vector will do. The build writes a report for each instruction set and type (cmake/library.cmake). Where one is
# missing or older than a source, as a compiler cache leaves it, the kernels are compiled once more with the same
# command. The report must name each tagged line, or one within two lines of it, with vectors of 16 (baseline), 32
# (avx2) or 64 (avx512) bytes, or as long as the machine has them (sve: 256 below, the most that there can be). A
# tagged line is compiled for many formulas: with avx2 and avx512 none of them may be left out, and with the baseline
# of aarch64, which is NEON (that of x86-64 has no vector form of some conversions of doubles; what is left out there
# is shown as "-N"). sve has no cpu/doubles.c of its own, so lines of the headers that it alone includes are missing.
#
# With sve, every loop with an OpenMP reduction must have vectors, hot or not. Where one has none, gcc 12 may read the
# result before it is stored. Such a result is read as a vector of one element, which nothing else does.
set -eu
source=$1 build=$2 compiler=$3 processor=$4 objdump=$5
lenient=
[ "$processor" = aarch64 ] || lenient=baseline
if [ "$compiler" != GNU ]; then
  echo "only gcc writes the report that is read here; this build uses $compiler"
  exit 77
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

(cd "$source" && grep -rnE '/\* hot: .+ \*/' cpu core --include='*.h' --include='*.c') |
  sed -E 's|^([^:]*):([0-9]+):.*/\* hot: (.*[^ ]) +\*/.*|\1\t\2\t\3|' >"$scratch/tags"
[ -s "$scratch/tags" ] || { echo "no loop is tagged hot"; exit 1; }

# The commands that write a report, one a line, as the shell would take them.
grep '"command":.*-fopt-info-vec.*/cpu/\(instance\|doubles\)\.c' "$build/compile_commands.json" |
  sed -e 's/^ *"command": "//' -e 's/",\{0,1\}$//' -e 's/\\\(.\)/\1/g' >"$scratch/commands"
directory=$(sed -n 's/^ *"directory": "\(.*\)",$/\1/p' "$build/compile_commands.json" | head -n 1)

# fresh REPORT: no source is newer.
fresh() {
  [ -s "$1" ] && [ -z "$(cd "$source" && find include losses core cpu -newer "$1" -name '*.[ch]' | head -n 1)" ]
}

export CCACHE_DISABLE=1
isas=
while read -r command; do
  report=$build/$(echo "$command" | sed 's/.*-fopt-info-vec-optimized-missed=\([^ ]*\).*/\1/')
  isa=$(basename "$report" .report) && isa=${isa%_*}
  case " $isas " in *" $isa "*) ;; *) isas="$isas $isa" ;; esac
  fresh "$report" || (cd "$directory" && eval "$command -o /dev/null")
  # Tag lines and report lines alike: file, line, rest; the file as the tags name it.
  sed -nE -e 's#^.*/((cpu|core)/[^:]*):([0-9]+):.*loop vectorized using ([0-9]+) byte vectors.*#\1\t\3\t\4#p' \
    -e 's#^.*/((cpu|core)/[^:]*):([0-9]+):.*loop vectorized using variable length vectors.*#\1\t\3\t256#p' \
    -e "s#^.*/((cpu|core)/[^:]*):([0-9]+):.*couldn't vectorize loop.*#\1\t\3\t0#p" \
    "$report" >>"$scratch/$isa.loops"
done <"$scratch/commands"
[ -n "$isas" ] || { echo "no compile command of $build writes a report of the kernels"; exit 1; }

for object in "$build"/CMakeFiles/tare_instance_sve_*.dir/cpu/instance.c.o; do
  [ -f "$object" ] || continue
  "$objdump" -d --no-show-raw-insn "$object" | awk '
    /^[0-9a-f]+ <.*>:$/ { name = $2 }
    /ptrue.*[.]b, vl1$/ { print "a reduction without vectors in " name; bad = 1 }
    END { exit bad }' || { echo "in $object"; exit 1; }
done

# shellcheck disable=SC2086
awk -F '\t' -v isas="${isas# }" -v lenient="$lenient" -v scratch="$scratch" '
  BEGIN {
    full["baseline"] = 16; full["avx2"] = 32; full["avx512"] = 64; full["sve"] = 256
    count = split(isas, isa, " ")
    for (i = 1; i <= count; i++)
      while ((getline line < (scratch "/" isa[i] ".loops")) > 0) {
        split(line, field, "\t")
        key = isa[i] SUBSEP field[1] SUBSEP field[2]
        times[key, field[3]]++
        if (field[3] + 0 > widest[key] + 0) widest[key] = field[3]
      }
    printf "%-28s %-28s", "bytes a vector (loops)", "at"
    for (i = 1; i <= count; i++) printf " %-14s", isa[i]
    print ""
  }
  {
    any = sub(/ \(any\)$/, "", $3)
    printf "%-28s %-28s", $3 (any ? " (any)" : ""), $1 ":" $2
    for (i = 1; i <= count; i++) {
      width = 0
      for (line = $2 - 2; line <= $2 + 2; line++) {
        seen = widest[isa[i], $1, line] + 0
        if (seen > width) width = seen
      }
      loops = 0
      for (line = $2 - 2; line <= $2 + 2; line++) loops += times[isa[i], $1, line, width]
      left = times[isa[i], $1, $2, 0] + times[isa[i], $1, $2 + 1, 0] # the lines above may be an enclosing loop
      absent = isa[i] == "sve" && $1 ~ /^cpu\/(in_double|regression|label_counts)[.]h$/
      good = absent ? 1 : any ? width > 0 : width == full[isa[i]] && (left == 0 || isa[i] == lenient)
      if (!good) bad++
      printf " %-14s", (width ? width " (" loops ")" : "none") (left ? " -" left : "") (good ? "" : " BAD")
    }
    print ""
  }
  END {
    printf "%d hot loops, %d instruction sets, %d not vectorised as they should be\n", NR, count, bad
    exit bad > 0
  }' "$scratch/tags"
