#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# hot_flags.sh SOURCE CMAKE CC FOLDER: in every build type the hot loops are compiled with -O3, after whatever the
# build type says, and with the maths flags that let them be vectorised.
set -eu
source=$1 cmake=$2 cc=$3 folder=$4
instances=0
for type in Debug Release RelWithDebInfo MinSizeRel; do
  "$cmake" -S "$source" -B "$folder/$type" -DCMAKE_BUILD_TYPE=$type -DCMAKE_C_COMPILER="$cc" -DTARE_TESTS=OFF \
    -DTARE_TOOL=OFF -DTARE_CUDA=OFF >"$folder-$type.log" 2>&1 || { cat "$folder-$type.log"; exit 1; }
  grep '"command":.*/cpu/\(instance\|doubles\)\.c' "$folder/$type/compile_commands.json" >"$folder/$type/instances"
  while read -r command; do
    instances=$((instances + 1))
    level=$(echo "$command" | tr ' ' '\n' | grep '^-O' | tail -n 1)
    [ "$level" = -O3 ] || { echo "$type: the last optimisation level is ${level:-none}: $command"; exit 1; }
    for flag in -fno-math-errno -fno-trapping-math -ffp-contract=off -fopenmp-simd; do
      case " $command " in
        *" $flag "*) ;;
        *) echo "$type: $flag is missing: $command"; exit 1 ;;
      esac
    done
  done <"$folder/$type/instances"
done
[ "$instances" -ge 8 ] || { echo "only $instances compilations of kernels were found"; exit 1; }
echo "$instances compilations of kernels in 4 build types, all -O3"
