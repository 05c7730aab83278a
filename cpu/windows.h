/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many of n sorted gradient norms lie in the window around each of some that follow one another. Both ends of the
 * window only move up. To follow them step by step would take a branch a step, half of them guessed wrong. So it is
 * first found how far an end moves until the last of some norms. If it stays, as the lower end at 0 does for most norms
 * of a detector, that is all. If it passes a few, each of these finds the first norm whose window leaves it behind or
 * takes it in. If it passes many, each window finds its own end among them.
 */
#include <math.h>
#include <stdint.h>

#define TARE_INLINE static inline __attribute__((always_inline))
#include "losses/window.h"

enum { WINDOWS = 64 }; /* norms whose windows are found together */

/** Norms [below, within) of the sorted ones. */
typedef struct norm_window {
  int64_t below, within;
} norm_window;

/** The distance from one norm up to another; below 0 if that lies below it. */
TARE_INLINE double signed_distance(double from, double to) {
  return tare_is_upper_norm(from) && !tare_is_upper_norm(to) ? -tare_norm_distance(to, from)
                                                             : tare_norm_distance(from, to);
}

/** Whether the upper or the lower end of the window around `of` has passed another norm. `same`: both are at the same
 *  end of [0,1]. It and `upper` are constants. */
TARE_INLINE int is_passed(int upper, int same, double norm, double of, double half) {
  const double from = upper ? of : norm, to = upper ? norm : of;
  const double distance = same ? to - from : signed_distance(from, to);
  return upper ? distance <= half : distance > half;
}

/** The first of the norms [low, high) that an end has not passed. */
TARE_INLINE int64_t find_end(int upper, const double *norm, int64_t low, int64_t high, double of, double half) {
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (is_passed(upper, 0, norm[middle], of, half))
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/** How many of the norms [start, n) an end passes until it is that of `of`. */
TARE_INLINE int64_t reach(int upper, const double *norm, int64_t start, int64_t n, double of, double half) {
  int64_t length = 1; /* most often little */
  while (start + length <= n && is_passed(upper, 0, norm[start + length - 1], of, half)) length *= 2;
  return length == 1
             ? 0
             : find_end(upper, norm, start + length / 2, start + length <= n ? start + length - 1 : n, of, half) -
                   start;
}

/** Where an end is for each of WINDOWS norms, by bisection of the norms that it passes. */
TARE_INLINE void find_each_end(int upper, int same, const double *norm, int64_t reached, const double *of, double half,
                               int64_t *restrict passed) {
  for (int32_t i = 0; i < WINDOWS; i++) passed[i] = 0;
  for (int64_t length = reached; length > 1; length -= length / 2)
    for (int32_t i = 0; i < WINDOWS; i++)
      passed[i] += length / 2 * is_passed(upper, same, norm[passed[i] + length / 2 - 1], of[i], half);
  for (int32_t i = 0; i < WINDOWS; i++) passed[i] += is_passed(upper, same, norm[passed[i]], of[i], half);
}

/** The same by bisection of the WINDOWS norms, for each norm that it passes. */
TARE_INLINE void find_each_passing(int upper, int same, const double *norm, int64_t reached, const double *of,
                                   double half, int64_t *restrict passed) {
  uint8_t passing[WINDOWS] = {0};
  int64_t sum = 0;
  for (int64_t k = 0; k < reached; k++) {
    int64_t first = 0;
    for (int32_t step = WINDOWS / 2; step > 0; step /= 2)
      first += step * !is_passed(upper, same, norm[k], of[first + step - 1], half);
    passing[first]++;
  }
  for (int32_t i = 0; i < WINDOWS; i++) passed[i] = sum += passing[i];
}

TARE_INLINE void find_ends(int upper, int same, const double *norm, int64_t reached, const double *of, double half,
                           int64_t *passed) {
  if (reached <= WINDOWS)
    find_each_passing(upper, same, norm, reached, of, half, passed);
  else
    find_each_end(upper, same, norm, reached, of, half, passed);
}

static int are_at_one_end(double a, double b, double c, double d) {
  const int is_upper = tare_is_upper_norm(a);
  return tare_is_upper_norm(b) == is_upper && tare_is_upper_norm(c) == is_upper && tare_is_upper_norm(d) == is_upper;
}

/** Moves an end on to that of the last of m <= WINDOWS norms. What it has passed for each of them is in the window, or
 *  no longer. Many parameters: all is with the caller. */
TARE_INLINE void move_end(int upper, const double *norm, int64_t *end, int64_t n, const double *of, int32_t m,
                          double half, double *count) {
  const int64_t start = *end, reached = reach(upper, norm, start, n, of[m - 1], half);
  int64_t passed[WINDOWS];
  if (!reached) return;
  *end += reached;
  if (m < WINDOWS) { /* the last ones */
    for (int32_t i = 0; i < m; i++) passed[i] = find_end(upper, norm, start, *end, of[i], half) - start;
  } else if (are_at_one_end(of[0], of[m - 1], norm[start], norm[*end - 1])) {
    find_ends(upper, 1, norm + start, reached, of, half, passed);
  } else {
    find_ends(upper, 0, norm + start, reached, of, half, passed);
  }
  for (int32_t i = 0; i < m; i++) count[i] += (double)(upper ? passed[i] : -passed[i]);
}

/** How many norms lie in the windows around m <= WINDOWS of them. `at`: the window before, then the last one. */
static void count_in_windows(const double *norm, int64_t n, double half, const double *of, int32_t m, norm_window *at,
                             double *count) {
  const double before = (double)(at->within - at->below);
  for (int32_t i = 0; i < m; i++) count[i] = before;
  move_end(0, norm, &at->below, n, of, m, half, count);
  move_end(1, norm, &at->within, n, of, m, half, count);
}

/** Of one norm. */
static norm_window find_window(const double *norm, int64_t n, double half, int64_t at) {
  return (norm_window){find_end(0, norm, 0, at, norm[at], half), find_end(1, norm, at, n, norm[at], half)};
}
