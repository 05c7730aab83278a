#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# header.sh INCLUDE CC CXX: include/tare.h compiles alone, twice over, as strict C11 and C++17. So does the program in
# its introduction, as C11.
set -eu
include=$1 cc=$2 cxx=$3
warnings="-pedantic-errors -Wall -Wextra -Wshadow -Wconversion -Werror"
source='#include "tare.h"
#include "tare.h"
'
# shellcheck disable=SC2086
{
  printf '%s' "$source" | "$cc" -std=c11 $warnings -Wstrict-prototypes -I"$include" -fsyntax-only -xc -
  printf '%s' "$source" | "$cxx" -std=c++17 $warnings -I"$include" -fsyntax-only -xc++ -
}
program=$(sed -n '/^ \*   #include <stdio.h>/,/^ \*   }$/s/^ \* *//p' "$include/tare.h")
[ "$(printf '%s\n' "$program" | grep -c .)" -gt 10 ] || { echo "no program in the introduction of tare.h"; exit 1; }
# shellcheck disable=SC2086
printf '%s\n' "$program" | "$cc" -std=c11 $warnings -Wstrict-prototypes -I"$include" -fsyntax-only -xc -
echo "tare.h compiles alone as C11 ($cc) and C++17 ($cxx)"
