#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# packed_floats.sh RECORD_CALL WORK: a kernel that takes two floats at once, as from sm_100 on, writes the same gradients
# and element losses, bit for bit, as one that takes them one by one. Logits are random bits, so NaN and infinities are
# among them, and numbers of any size.
set -eu
call=$1 work=$2
rm -rf "$work"
mkdir -p "$work"
cd "$work"
rows=64 classes=80

# bytes SEED COUNT MOST: random bytes below MOST.
bytes() { LC_ALL=C awk -v seed="$1" -v count="$2" -v most="$3" 'BEGIN { srand(seed)
  for (i = 0; i < count; i++) printf "%c", int(rand() * most) }'; }
LC_ALL=C awk 'BEGIN { for (i = 0; i < 256; i++) printf "%c", i }' | wc -c | grep -qx '256' # an awk that writes bytes
bytes 1 $((rows * classes * 4)) 256 >any
LC_ALL=C awk -v rows=$rows 'BEGIN { for (i = 0; i < rows; i++) printf "%c%c%c%c", i % 80, 0, 0, 0 }' >labels
# Logits between -32 and 32, whose last byte (the exponent's) is one of a few.
LC_ALL=C awk -v count=$((rows * classes)) 'BEGIN { srand(2)
  for (i = 0; i < count; i++) printf "%c%c%c%c", int(rand() * 256), int(rand() * 256), int(rand() * 256),
    (i % 2 ? 128 : 0) + 60 + int(rand() * 6) }' >ordinary
bytes 3 $((rows * 4)) 64 >scores # floats from 0 to about 0.2: their last byte is below 64

# numbers FILE TYPE: in hexadecimal, one a line. Any NaN is the same to a GPU.
numbers() {
  case $2 in f32) size=4 largest=f800000 ;; f16) size=2 largest=c00 ;; *) size=2 largest=f80 ;; esac
  od -v -An -tx$size -w$size "$1" | awk -v largest=$largest '{
    magnitude = substr($1, 2)
    print $1 ~ /^[7f]/ && (magnitude "") > (largest "") ? "NaN" : $1 }'
}

failures=0
for loss in sigmoid-ce sigmoid-focal sigmoid-poly1 sigmoid-varifocal sigmoid-quality-focal; do
  for dtype in f32 f16 bf16; do
    for logits in any ordinary; do
      for layout in rows nchw; do
        for packs in 0 1; do
          scores=''
          case $loss in *varifocal | *quality*) scores=scores=scores ;; esac
          # shellcheck disable=SC2086 # none or one word
          TARE_EMULATOR_PACKS_FLOATS=$packs "$call" loss=$loss dtype=$dtype rows=$rows classes=$classes layout=$layout \
            logits=$logits labels=labels $scores gradient=gradient-$packs
        done
        numbers gradient-0 $dtype >one
        numbers gradient-1 $dtype >other
        cmp one other || {
          echo "$loss $dtype $layout: not the same gradient of $logits logits"
          failures=$((failures + 1))
        }
      done
    done
  done
done
[ $failures -eq 0 ] && echo "the same gradients with two floats at once"
