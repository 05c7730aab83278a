/* SPDX-License-Identifier: Apache-2.0 */
#include "ranges.h"

void tare_ranges_make(tare_ranges *ranges, int64_t pieces, int32_t threads) {
  ranges->pieces = pieces;
  ranges->count = threads < TARE_MAX_RANGES ? threads : TARE_MAX_RANGES;
  for (int32_t i = 0; i < ranges->count; i++) atomic_init(&ranges->taken[i], 0);
  for (int32_t i = 0; i <= (ranges->count - 1) / 64; i++) atomic_init(&ranges->has_owner[i], 0);
}

/** Whether the range had no owner before. */
static int become_owner(tare_ranges *ranges, int32_t range) {
  const uint64_t bit = UINT64_C(1) << (range % 64);
  return !(atomic_fetch_or(&ranges->has_owner[range / 64], bit) & bit);
}

int32_t tare_own_range(tare_ranges *ranges, tare_place place) {
  const int32_t count = ranges->count, node = place.node < place.nodes ? place.node : 0;
  const int32_t first = count * node / place.nodes, of_node = count * (node + 1) / place.nodes - first;
  const int32_t preferred = first + (of_node ? place.processor % of_node : 0);
  for (int32_t i = preferred; i < first + of_node; i++)
    if (become_owner(ranges, i)) return i;
  for (int32_t i = 0; i < count; i++) { /* from the node's first */
    const int32_t range = (first + i) % count;
    if (become_owner(ranges, range)) return range;
  }
  return -1;
}

/** Where a range starts; that of `count` is the end. */
static int64_t start_of(const tare_ranges *ranges, int64_t range) {
  const int64_t whole = ranges->pieces / ranges->count, rest = ranges->pieces % ranges->count;
  return whole * range + rest * range / ranges->count;
}

int64_t tare_take_piece(tare_ranges *ranges, int32_t *range) {
  for (int32_t seen = 0; seen < ranges->count; seen++) {
    _Atomic int64_t *taken = &ranges->taken[*range];
    const int64_t start = start_of(ranges, *range), pieces = start_of(ranges, *range + 1) - start;
    const int64_t piece = atomic_load(taken) < pieces ? atomic_fetch_add(taken, 1) : pieces;
    if (piece < pieces) return start + piece;
    *range = *range + 1 < ranges->count ? *range + 1 : 0;
  }
  return -1;
}
