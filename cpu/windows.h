/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many of n sorted gradient norms lie in the window around each of some that follow one another. Both ends of the
 * window only move up, so they are followed step by step. Most often one of them stays where it is for many norms: the
 * lower end at 0, where most norms of a detector are.
 */
#include <math.h>
#include <stdint.h>

#define TARE_INLINE static inline __attribute__((always_inline))
#include "losses/window.h"

/** Norms [below, within) of the sorted ones. */
typedef struct norm_window {
  int64_t below, within;
} norm_window;

/** Of the first norm of a piece, by bisection. */
static norm_window find_window(const double *norm, int64_t n, double half, int64_t at) {
  norm_window w = {0, at};
  for (int64_t high = at; w.below < high;) {
    const int64_t middle = w.below + (high - w.below) / 2;
    if (tare_norm_distance(norm[middle], norm[at]) > half)
      w.below = middle + 1;
    else
      high = middle;
  }
  for (int64_t high = n; w.within < high;) {
    const int64_t middle = w.within + (high - w.within) / 2;
    if (tare_norm_distance(norm[at], norm[middle]) <= half)
      w.within = middle + 1;
    else
      high = middle;
  }
  return w;
}

TARE_INLINE int64_t move_lower_end(const double *norm, int64_t below, double of, double half) {
  while (tare_norm_distance(norm[below], of) > half) below++;
  return below;
}

TARE_INLINE int64_t move_upper_end(const double *norm, int64_t n, int64_t within, double of, double half) {
  while (within < n && tare_norm_distance(of, norm[within]) <= half) within++;
  return within;
}

/** How many norms lie in the windows around m of them. `at`: the window of the one before, then of the last. */
static void count_in_windows(const double *norm, int64_t n, double half, const double *of, int32_t m, norm_window *at,
                             double *count) {
  norm_window w = *at;
  const double last = of[m - 1];
  const int lower_stays = tare_norm_distance(norm[w.below], last) <= half;
  const int upper_stays = w.within == n || tare_norm_distance(last, norm[w.within]) > half;
  if (lower_stays && upper_stays) {
    for (int32_t i = 0; i < m; i++) count[i] = (double)(w.within - w.below);
  } else if (lower_stays) {
    for (int32_t i = 0; i < m; i++) {
      w.within = move_upper_end(norm, n, w.within, of[i], half);
      count[i] = (double)(w.within - w.below);
    }
  } else {
    for (int32_t i = 0; i < m; i++) {
      w.below = move_lower_end(norm, w.below, of[i], half);
      w.within = move_upper_end(norm, n, w.within, of[i], half);
      count[i] = (double)(w.within - w.below);
    }
  }
  *at = w;
}
