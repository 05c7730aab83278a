# SPDX-License-Identifier: Apache-2.0
# Lengths of vector loops in `objdump -d --no-show-raw-insn`: "loops FUNCTION TYPE length...", the innermost loops with 8
# vector instructions or more of a function a line, the shortest first. `vector` is the pattern of an instruction that
# counts as one, `jump` that of a jump's mnemonic; both, and `type`, are set on the command line.

# The address that a jump names: the operand before the symbol in angle brackets.
function target(   i) {
  for (i = NF; i > 2; i--)
    if ($i ~ /^[0-9a-f]+$/) return $i
  return ""
}
function flush(   i, j, k, inner, line, swap) {
  kept = 0
  for (i = 1; i <= jumps; i++) {
    inner = vectors[last[i]] - vectors[first[i] - 1] >= 8
    for (j = 1; j <= jumps && inner; j++)
      if (j != i && first[j] >= first[i] && last[j] <= last[i] && \
          (first[j] > first[i] || last[j] < last[i] || j < i)) inner = 0
    if (inner) size[++kept] = last[i] - first[i] + 1
  }
  for (i = 2; i <= kept; i++)
    for (k = i; k > 1 && size[k] < size[k - 1]; k--) { swap = size[k]; size[k] = size[k - 1]; size[k - 1] = swap }
  line = ""
  for (i = 1; i <= kept; i++) line = line " " size[i]
  if (kept) print "loops " name " " type line
  jumps = n = 0
  split("", at)
}
/^[0-9a-f]+ <.*>:$/ { flush(); name = $2; gsub(/[<>:]/, "", name); next }
/^ *[0-9a-f]+:\t/ {
  address = $1; sub(/:$/, "", address)
  at[address] = ++n
  vectors[n] = vectors[n - 1] + ($0 ~ vector)
  if ($2 ~ jump && (target() in at)) { first[++jumps] = at[target()]; last[jumps] = n }
}
END { flush() }
