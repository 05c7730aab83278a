/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which piece a thread takes next.
 *
 * The pieces are cut into ranges of neighbours, one for each thread. A thread takes the pieces of its own range, in
 * order, and then what other ranges have left. Its own range follows from the processor that runs it. So in each call,
 * and in each pass of a call, a processor meets the rows that it met before: in its caches, and in memory of its own
 * socket, where those pages lie that it was the first to write. Neighbouring results, which may share a cache line, are
 * written by one thread. docs/decisions/0034-ranges-of-pieces.md has the reasons.
 */
#ifndef TARE_CPU_RANGES_H
#define TARE_CPU_RANGES_H

#include <stdatomic.h>
#include <stdint.h>

enum { TARE_MAX_RANGES = 1024 };

typedef struct tare_ranges {
  int64_t pieces;
  int32_t count;                          /* of ranges */
  _Atomic int64_t taken[TARE_MAX_RANGES]; /* of each: how many pieces, or more where a thread found none left */
  _Atomic uint64_t has_owner[TARE_MAX_RANGES / 64]; /* a bit for each */
} tare_ranges;

/** Where a thread runs: the number of its processor, and its node of so many NUMA nodes. */
typedef struct tare_place {
  int32_t processor, node, nodes;
} tare_place;

/** For so many threads. */
void tare_ranges_make(tare_ranges *ranges, int64_t pieces, int32_t threads);

/** A range without an owner, for a thread that runs there; -1: all have owners. The nodes divide the ranges in their
 *  order. If all of the node's have owners, it is another's. */
int32_t tare_own_range(tare_ranges *ranges, tare_place place);

/** The next piece for a thread, or -1. `range` is where it takes from: at first its own. */
int64_t tare_take_piece(tare_ranges *ranges, int32_t *range);

#endif
