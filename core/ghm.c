/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bins of the gradient norm as thresholds of keys, and the density that counts lead to.
 *
 * For a hard label g = sigmoid(u) is monotone in the signed logit u, so the bin of g = k/M starts at the first float
 * that is not below log(e/(1-e)), e the edge. The only rational g that a float reaches exactly is 1/2, at 0, where the
 * logarithm is exact too; elsewhere no float lies within a long double's rounding of the threshold.
 */
#include "ghm.h"

#include <math.h>

#define TARE_INLINE static inline
#include "momentum.h"

/** The edge at which bin k starts: k/M, or what mmdetection's single-precision division makes of it. */
static long double edge(const tare_problem *problem, int32_t k) {
  const tare_ghm_parameters *ghm = &problem->loss.ghm;
  if (ghm->variant == TARE_GHM_MMDET) return (long double)((float)k / (float)ghm->bins);
  return (long double)k / (long double)ghm->bins;
}

/** log(e/(1-e)) of the edge of bin k, from whole numbers where the edge is a ratio of such. */
static long double logit_of_edge(const tare_problem *problem, int32_t k) {
  const int32_t bins = problem->loss.ghm.bins;
  if (problem->loss.ghm.variant == TARE_GHM_PAPER) return log1pl((long double)(2 * k - bins) / (long double)(bins - k));
  const long double e = edge(problem, k);
  return log1pl((2 * e - 1) / (1 - e));
}

/** mu*e/sqrt(1-e^2), from whole numbers where the edge is a ratio of such: 3/5 gives 3/4 and no less. */
static long double difference_of_edge(const tare_problem *problem, int32_t k) {
  const tare_ghm_parameters *ghm = &problem->loss.ghm;
  const long double e = edge(problem, k);
  if (ghm->variant == TARE_GHM_MMDET) return ghm->mu * e / sqrtl((1 - e) * (1 + e));
  return (long double)ghm->mu * k / sqrtl((long double)(ghm->bins - k) * (ghm->bins + k));
}

/** The key whose gradient norm is the edge of bin k. */
static long double key_of_edge(const tare_problem *problem, int32_t k) {
  const long double e = edge(problem, k);
  if (problem->loss.kind == TARE_GHM_R) return difference_of_edge(problem, k);
  return problem->soft ? e : logit_of_edge(problem, k);
}

static float first_float(long double at_least) {
  const float nearest = (float)at_least;
  return nearest < at_least ? nextafterf(nearest, INFINITY) : nearest;
}

static double first_double(long double at_least) {
  const double nearest = (double)at_least;
  return nearest < at_least ? nextafter(nearest, (double)INFINITY) : nearest;
}

void tare_bins_make(tare_bins *bins, const tare_problem *problem) {
  bins->count = problem->loss.ghm.bins;
  bins->lower_f32[0] = -INFINITY;
  bins->lower_f64[0] = -(double)INFINITY;
  for (int32_t k = 1; k < bins->count; k++) {
    const long double key = key_of_edge(problem, k);
    bins->lower_f32[k] = first_float(key);
    bins->lower_f64[k] = first_double(key);
  }
  bins->lower_f64[bins->count] = (double)NAN;
  bins->lower_f32[bins->count] = NAN;
  for (int32_t k = bins->count + 1; k < TARE_FEW_BINS; k++) bins->lower_f32[k] = NAN;
}

void tare_bins_set_weights(tare_bins *bins, const double *inverse_density) {
  for (int32_t k = 0; k < bins->count; k++) {
    bins->weight_f64[k] = inverse_density[k];
    bins->weight_f32[k] = (float)inverse_density[k];
  }
  for (int32_t k = bins->count; k < TARE_FEW_BINS; k++) bins->weight_f32[k] = 0;
}

tare_ghm_state tare_ghm_state_at(void *state, int32_t bins) {
  int64_t *words = state;
  double *sums = (double *)(void *)(words + 2 + bins);
  return (tare_ghm_state){words, words + 1, words + 2, sums, sums + bins};
}

void tare_ghm_density_from_counts(const tare_ghm_parameters *ghm, tare_ghm_state state) {
  if (*state.total == 0) return;
  int32_t occupied = 0;
  for (int32_t k = 0; k < ghm->bins; k++) occupied += state.counts[k] > 0;
  const double regions = ghm->variant == TARE_GHM_MMDET ? occupied : ghm->bins;
  for (int32_t k = 0; k < ghm->bins; k++) {
    state.sums[k] = tare_momentum_sum(ghm, *state.steps == 0, state.sums[k], (double)state.counts[k]);
    const double density = state.sums[k] * regions;
    state.inverse_density[k] = density > 0 ? 1 / density : 0;
  }
  if (ghm->momentum > 0.0) ++*state.steps;
}
