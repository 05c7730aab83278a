# SPDX-License-Identifier: Apache-2.0
# Instructions on the paths of a kernel's hot loop, from what nvdisasm -c prints. For each function that reads vectors of
# 16 bytes, a line NAME LEAST MOST TURN: the shortest and the longest way from the first such load to such a store (both
# counted, no branch back taken), and the shortest from that load by a store to the load again, which is a turn of the
# loop. A - stands for what there is not; a kernel that writes no vectors has only the turn. Where vectors are copied to
# shared memory ahead of their turn (LDGSTS), the load is the one from there, after the wait for them (DEPBAR.LE).

# Shortest distances, in instructions, from `from` along the edges; returns that of `from` itself, by a loop.
function shortest(from, distance,   queue, head, tail, i, k, next_one, around) {
  around = 0
  for (i = 1; i <= count; i++) distance[i] = -1
  queue[tail = 1] = from
  distance[from] = 0
  for (head = 1; head <= tail; head++) {
    i = queue[head]
    for (k = 1; k <= degree[i]; k++) {
      next_one = at[edge[i, k]]
      if (next_one == from && !around) around = distance[i] + 1
      if (distance[next_one] < 0) {
        distance[next_one] = distance[i] + 1
        queue[++tail] = next_one
      }
    }
  }
  return around
}

function longest(from, distance,   i, k, next_one) {
  for (i = 1; i <= count; i++) distance[i] = -1
  distance[from] = 0
  for (i = from; i <= count; i++) {
    if (distance[i] < 0) continue
    for (k = 1; k <= degree[i]; k++) {
      next_one = at[edge[i, k]]
      if (next_one > i && distance[next_one] < distance[i] + 1) distance[next_one] = distance[i] + 1
    }
  }
}

function finish(   load, i, least, most, turn, round_trip, near, far, back) {
  for (load = 1; load <= count && code[load] !~ /^DEPBAR\.LE/; load++);
  for (; load <= count && code[load] !~ /^LDS.*\.128/; load++);
  if (load > count) for (load = 1; load <= count && code[load] !~ /^LDG\..*\.128/; load++);
  if (load > count) return
  round_trip = shortest(load, near)
  longest(load, far)
  least = most = turn = 0
  for (i = 1; i <= count; i++) {
    if (code[i] !~ /^STG.*\.128/ || near[i] < 0) continue
    if (!least || near[i] + 1 < least) least = near[i] + 1
    if (far[i] + 1 > most) most = far[i] + 1
    shortest(i, back)
    if (back[load] > 0 && (!turn || near[i] + back[load] < turn)) turn = near[i] + back[load]
  }
  if (!least) turn = round_trip
  print name, least ? least : "-", most ? most : "-", turn ? turn : "-"
}

# An edge to a label, to an address (given by name) or to the next instruction.
function add_edge(where) { edge[count, ++degree[count]] = where }

function instruction(text,   predicated, targets, n, i) {
  predicated = sub(/^@!?U?P[0-9T]+ +/, "", text)
  code[++count] = text
  degree[count] = 0
  while (pending > 0) at[labels[pending--]] = count
  at["#" count] = count
  if (text ~ /^(BRA|BRX)/) {
    n = split(text, targets, /[^.A-Za-z0-9_]+/)
    for (i = 1; i <= n; i++) if (targets[i] ~ /^\.L_x_/) add_edge(targets[i])
  }
  if (text !~ /^(BRA|BRX|EXIT|RET)/ || predicated || text ~ /^BRA *!?U?P/) add_edge("#" (count + 1))
}

/^\t\.section/ {
  if (name != "") finish()
  name = ""
}
/^\t\.section[ \t]+\.text\./ {
  name = $2
  sub(/^\.text\./, "", name)
  sub(/,.*/, "", name)
  count = pending = 0
}
name != "" && /^\.L_x_[0-9]+:/ {
  sub(/:.*/, "")
  labels[++pending] = $0
}
name != "" && /^ *\/\*[0-9a-f]+\*\/ / {
  sub(/^ *\/\*[0-9a-f]+\*\/ */, "")
  instruction($0)
}
END { if (name != "") finish() }
