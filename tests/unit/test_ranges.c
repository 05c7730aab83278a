/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which thread takes which piece, on machines of one and more nodes with up to 256 threads. The threads are played:
 * each has a clock, and the one whose clock is behind takes the next piece. So counts are the same on any machine.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/ranges.h"
#include "support/random.h"

enum { MOST_THREADS = 256, MOST_PIECES = 4096 };

typedef struct played {
  int32_t threads, nodes;
  int64_t pieces;
  double late[MOST_THREADS]; /* when each thread begins */
  int32_t taken_by[MOST_PIECES], count[MOST_THREADS];
  int64_t stolen; /* pieces of another node's range */
  double busy;
} played;

/* Processors are numbered node by node, or in turn. */
static tare_place place_of(const played *p, int32_t thread, bool in_turn) {
  const int32_t node = in_turn ? thread % p->nodes : thread * p->nodes / p->threads;
  return (tare_place){thread, node, p->nodes};
}

/** Threads find their ranges in the order in which they begin. Every piece takes 1, give or take `spread`. */
static void play(played *p, bool in_turn, double spread, random_source *source) {
  tare_ranges ranges;
  double clock[MOST_THREADS];
  int32_t range[MOST_THREADS];
  bool has_begun[MOST_THREADS] = {false}, is_done[MOST_THREADS] = {false};
  tare_ranges_make(&ranges, p->pieces, p->threads);
  memcpy(clock, p->late, sizeof clock);
  memset(p->taken_by, 0xff, sizeof p->taken_by);
  memset(p->count, 0, sizeof p->count);
  p->stolen = 0, p->busy = 0;
  for (int32_t left = p->threads; left > 0;) {
    int32_t t = -1;
    for (int32_t i = 0; i < p->threads; i++)
      if (!is_done[i] && (t < 0 || clock[i] < clock[t])) t = i;
    const tare_place place = place_of(p, t, in_turn);
    if (!has_begun[t]) range[t] = tare_own_range(&ranges, place);
    has_begun[t] = true;
    const int64_t piece = tare_take_piece(&ranges, &range[t]);
    if (piece < 0) {
      is_done[t] = true, left--;
      continue;
    }
    cr_assert(piece < p->pieces && p->taken_by[piece] < 0, "piece %lld is taken twice", (long long)piece);
    const double cost = 1 + spread * (2 * random_uniform(source) - 1);
    p->taken_by[piece] = t, p->count[t]++, clock[t] += cost, p->busy += cost;
    p->stolen += piece * p->nodes / p->pieces != place.node;
  }
  for (int64_t i = 0; i < p->pieces; i++) cr_assert_geq(p->taken_by[i], 0, "piece %lld is left", (long long)i);
}

static void begin_at_random(played *p, double latest, random_source *source) {
  for (int32_t i = 0; i < p->threads; i++) p->late[i] = latest * random_uniform(source);
}

static const int32_t thread_counts[] = {1, 2, 3, 4, 8, 16, 32, 64, 96, 128, 129, 200, 256};

Test(ranges, every_piece_is_taken_once) {
  static const int64_t piece_counts[] = {0, 1, 2, 3, 7, 64, 100, 489, 4096};
  random_source source = random_from(1);
  played *p = calloc(1, sizeof *p);
  for (size_t t = 0; t < sizeof thread_counts / sizeof *thread_counts; t++)
    for (size_t n = 0; n < sizeof piece_counts / sizeof *piece_counts; n++)
      for (p->nodes = 1; p->nodes <= 8; p->nodes = 2 * p->nodes + 1) {
        p->threads = thread_counts[t], p->pieces = piece_counts[n];
        begin_at_random(p, 20, &source);
        play(p, n % 2, 0.5, &source);
      }
  free(p);
}

/* Where nobody takes from others, as all begin within a piece's time. On any node's numbering and in any order. */
Test(ranges, a_thread_meets_the_same_pieces_again) {
  random_source source = random_from(2);
  played *p = calloc(1, sizeof *p);
  int32_t before[MOST_PIECES];
  for (size_t t = 0; thread_counts[t] <= 129; t++)
    for (p->nodes = 1; p->nodes <= 4 && p->nodes <= thread_counts[t]; p->nodes *= 2) {
      if (thread_counts[t] % p->nodes) continue;
      p->threads = thread_counts[t], p->pieces = 30 * (int64_t)p->threads;
      for (int call = 0; call < 5; call++) {
        begin_at_random(p, 0.9, &source);
        play(p, false, 0, &source);
        cr_assert_eq(p->stolen, 0, "%d threads, %d nodes", p->threads, p->nodes);
        for (int64_t i = 0; i < p->pieces && call; i++)
          cr_assert_eq(p->taken_by[i], before[i], "piece %lld of %d threads", (long long)i, p->threads);
        memcpy(before, p->taken_by, sizeof before);
        begin_at_random(p, 0.9, &source);
        play(p, true, 0, &source);
        cr_assert_eq(p->stolen, 0, "%d threads, %d nodes in turn", p->threads, p->nodes);
      }
    }
  free(p);
}

/* Others do what a thread leaves that begins late, or not at all. None gets much more than its share. */
Test(ranges, a_late_thread_holds_up_nobody) {
  random_source source = random_from(3);
  played *p = calloc(1, sizeof *p);
  for (size_t t = 1; thread_counts[t] <= 128; t++)
    for (p->nodes = 1; p->nodes <= 2; p->nodes++) {
      p->threads = thread_counts[t], p->pieces = 16 * (int64_t)p->threads;
      begin_at_random(p, 1, &source);
      p->late[p->threads / 2] = 1e6;
      play(p, false, 0.3, &source);
      const double others = (double)p->threads - 1;
      cr_assert_eq(p->count[p->threads / 2], 0);
      for (int64_t i = 0; i < p->threads; i++)
        cr_assert_leq(p->count[i], p->busy / others * 1.5 + 3, "thread %lld of %d", (long long)i, p->threads);
    }
  free(p);
}

/* A mask of a second socket's processors alone, and nodes that the machine does not say it has. */
Test(ranges, places_that_do_not_fit) {
  tare_ranges ranges;
  uint64_t seen = 0;
  tare_ranges_make(&ranges, 100, 8);
  for (int32_t i = 0; i < 8; i++) seen |= UINT64_C(1) << tare_own_range(&ranges, (tare_place){64 + i % 3, 1, 2});
  cr_assert_eq(seen, 255, "each range has one owner");
  cr_assert_eq(tare_own_range(&ranges, (tare_place){64, 1, 2}), -1, "one thread too many");
  tare_ranges_make(&ranges, 100, 2);
  cr_assert_lt(tare_own_range(&ranges, (tare_place){1, 7, 8}), 2);
  cr_assert_lt(tare_own_range(&ranges, (tare_place){1, 9, 2}), 2);
}
