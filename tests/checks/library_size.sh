#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# library_size.sh READELF SOURCE LIBRARY ARCHITECTURES: whether the shared library is small enough for its losses.
# Machine code and tables for the CPU have one limit, the kernels of each GPU architecture another. A sigmoid loss with
# powers has 36 loops for the CPU: six powers, three instruction sets, two types. cuda/budget.txt has the limits of each
# loss's kernels, which are compressed here.
set -eu
readelf=$1 source=$2 library=$3 architectures=$4
losses=$(grep -c '^TARE_LOSS(' "$source/losses/losses.def")
with_powers=$(grep -c '^TARE_LOSS(.*SIGMOID, GAMMA,' "$source/losses/losses.def")
limit=$((1000 + 450 * with_powers + 60 * (losses - with_powers))) # kB for the CPU

# kB in sections whose names match a pattern.
kilobytes() {
  "$readelf" -SW "$library" | sed -n 's/^ *\[ *[0-9]*\] *//p' | awk -v pattern="^[.]($1)$" '
    function number(hex,   i, value) {
      for (i = 1; i <= length(hex); i++) value = value * 16 + index("0123456789abcdef", substr(hex, i, 1)) - 1
      return value
    }
    $1 ~ pattern { sum += number($5) }
    END { printf "%d", sum / 1000 }'
}

failed=0
hold() { # hold WHAT KB LIMIT
  echo "$1: $2 kB of at most $3"
  [ "$2" -le "$3" ] || failed=1
}

kernels=$(kilobytes nv_fatbin)
cpu=$(kilobytes 'text|rodata|eh_frame')
[ "$cpu" -gt 0 ] || {
  echo "no machine code in $library"
  exit 1
}
if [ "$kernels" -gt 0 ]; then # with CUDA's runtime and the host side of the backend
  hold "CPU, $losses losses" "$cpu" $((limit + 800))
  hold "GPU, each of $architectures architectures" $((kernels / architectures)) $((1500 + 300 * losses))
else
  hold "CPU, $losses losses" "$cpu" "$limit"
fi
exit "$failed"
