/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exact gradient density: GD(g) = #{k: |g_k - g| <= eps/2} over the length of that window inside [0,1].
 *
 * Keys (signed logits, which have more resolution than g near 1) are sorted; then both ends of the window only ever
 * move up. The sort is a radix sort of ours, since the C library's may allocate, and a call of Tare never does: see
 * docs/cpu.md.
 */
#include "exact.h"

#include <math.h>
#include <string.h>

#define TARE_INLINE static inline
#include "losses/window.h"

enum { DIGIT_BITS = 8, DIGITS = 1 << DIGIT_BITS, PASSES = 64 / DIGIT_BITS };

/** The bits of a double in an order that unsigned integers have: -NaN, -inf, ..., +inf, NaN. */
static uint64_t ordered_bits(double key) {
  uint64_t bits;
  memcpy(&bits, &key, sizeof bits);
  return bits >> 63 ? ~bits : bits | UINT64_C(1) << 63;
}

static unsigned digit_of(double key, int pass) {
  return (unsigned)(ordered_bits(key) >> (pass * DIGIT_BITS)) & (DIGITS - 1);
}

/** One stable pass by one digit; false if every key has the same, and nothing was moved. */
static int sort_by_digit(int64_t n, const double *from, double *to, int pass) {
  int64_t start[DIGITS + 1] = {0};
  for (int64_t i = 0; i < n; i++) start[digit_of(from[i], pass) + 1]++;
  for (int d = 0; d < DIGITS; d++) {
    if (start[d + 1] == n) return 0;
    start[d + 1] += start[d];
  }
  for (int64_t i = 0; i < n; i++) to[start[digit_of(from[i], pass)]++] = from[i];
  return 1;
}

static void sort(int64_t n, double *key, double *spare) {
  double *from = key, *to = spare;
  for (int pass = 0; pass < PASSES && n > 0; pass++)
    if (sort_by_digit(n, from, to, pass)) {
      double *swap = from;
      from = to;
      to = swap;
    }
  if (from != key) memcpy(key, from, (size_t)n * sizeof *key);
}

/** The gradient norm of a key, folded. */
static double norm_of_key(const tare_problem *problem, double key) {
  if (problem->loss.kind == TARE_LOSS_GHM_R) return tare_norm_of_difference(key, problem->loss.ghm.mu);
  return tare_norm_of_logit(key);
}

/** Levels of every 64th key. They follow each other in `room`. */
static void describe(int64_t n, const double *key, const double *weight, double *room, tare_sorted_keys *sorted) {
  *sorted = (tare_sorted_keys){.level = {key}, .count = {n}, .levels = 1, .weight = weight};
  while (sorted->count[sorted->levels - 1] > TARE_KEY_STEP && sorted->levels < TARE_KEY_LEVELS) {
    const double *below = sorted->level[sorted->levels - 1];
    const int64_t count = (sorted->count[sorted->levels - 1] + TARE_KEY_STEP - 1) / TARE_KEY_STEP;
    for (int64_t i = 0; i < count; i++) room[i] = below[i * TARE_KEY_STEP];
    sorted->level[sorted->levels] = room;
    sorted->count[sorted->levels++] = count;
    room += count;
  }
}

void tare_exact_density(const tare_problem *problem, int64_t n, double *key, double *spare, double *weight,
                        tare_sorted_keys *sorted) {
  sort(n, key, spare);
  double *norm = spare;
  for (int64_t i = 0; i < n; i++) norm[i] = norm_of_key(problem, key[i]);
  const double half = problem->loss.ghm.epsilon / 2;
  int64_t below = 0, within = 0; /* norms under the window, and up to its upper end */
  for (int64_t i = 0; i < n; i++) {
    while (tare_norm_distance(norm[below], norm[i]) > half) below++;
    while (within < n && tare_norm_distance(norm[i], norm[within]) <= half) within++;
    weight[i] = tare_window_length(norm[i], half) / (double)(within - below);
  }
  describe(n, key, weight, spare, sorted);
}
