/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bins of the gradient norm, as thresholds of keys, and the gradient density from counts.
 *
 * For a hard label g = sigmoid(u) is monotone in the signed logit u, so the bin of g = e starts at the first float that
 * is not below log(e/(1-e)). For about a hundred edges k/M that logarithm is so near to a double that 64 bits cannot
 * decide on which side it is. Twice the precision of a double can: with up to 1024 bins, none is nearer than 2^-73 of
 * itself. An edge is exactly a double only at the logit 0, and at some differences of GHM-R. These are exact here.
 */
#include "ghm.h"

#include <math.h>

#include "twofold.h"

#define TARE_INLINE static inline
#include "momentum.h"

/** The lower edge of bin k as a ratio of two doubles: k/M, or mmdetection's quotient in f32 over 1. The sum and the
 *  difference of the two are exact. */
typedef struct edge {
  double part, whole;
} edge;

static edge edge_of(const tare_ghm_parameters *ghm, int32_t k) {
  if (ghm->variant == TARE_GHM_VARIANT_MMDET) return (edge){(double)((float)k / (float)ghm->bins), 1};
  return (edge){k, ghm->bins};
}

static tare_twofold twofold(double x) { return (tare_twofold){x, 0}; }

/** The edge itself. */
static tare_twofold norm_of_edge(edge e) { return tare_twofold_quotient(twofold(e.part), twofold(e.whole)); }

/** log(e/(1-e)): in double, corrected by one Newton step. */
static tare_twofold logit_of_edge(edge e) {
  const double rest = e.whole - e.part, near = log(e.part / rest);
  const tare_twofold odds = tare_twofold_quotient(twofold(e.part), twofold(rest));
  const tare_twofold ratio = tare_twofold_quotient(odds, tare_twofold_exp(near));
  return tare_twofold_sum(near, (ratio.hi - 1) + ratio.lo);
}

/** mu*e/sqrt(1-e^2). Exact values stay exact: 3/5 gives 3/4. */
static tare_twofold difference_of_edge(edge e, double mu) {
  const tare_twofold square = tare_twofold_product(e.whole - e.part, e.whole + e.part);
  return tare_twofold_quotient(tare_twofold_product(mu, e.part), tare_twofold_root(square));
}

/** Whether `bins` already has the thresholds of these parameters. */
static int are_made(const tare_bins *bins, int32_t kind, const tare_ghm_parameters *ghm) {
  return bins->count == ghm->bins && bins->kind == kind && bins->variant == ghm->variant &&
         (kind != TARE_LOSS_GHM_R || bins->mu == ghm->mu);
}

void tare_bins_make(tare_bins *bins, const tare_loss_spec *loss) {
  const tare_ghm_parameters *ghm = &loss->ghm;
  const int32_t kind = loss->kind, count = ghm->bins;
  if (are_made(bins, kind, ghm)) return;
  bins->count = count;
  bins->kind = kind;
  bins->variant = ghm->variant;
  bins->mu = ghm->mu;
  bins->edge_error = ghm->variant == TARE_GHM_VARIANT_MMDET ? 0x1p-24f : 0;
  for (int32_t k = 1; k < count; k++) {
    const edge e = edge_of(ghm, k);
    const tare_twofold key = kind == TARE_LOSS_GHM_R ? difference_of_edge(e, ghm->mu) : logit_of_edge(e);
    bins->lower_f32[k] = tare_first_float(key);
    bins->lower_f64[k] = tare_first_double(key);
    bins->norm_f32[k] = tare_first_float(norm_of_edge(e));
    bins->norm_f64[k] = tare_first_double(norm_of_edge(e));
  }
  bins->lower_f32[0] = bins->norm_f32[0] = -INFINITY;
  bins->lower_f64[0] = bins->norm_f64[0] = -(double)INFINITY;
  bins->lower_f32[count] = bins->norm_f32[count] = NAN;
  bins->lower_f64[count] = bins->norm_f64[count] = (double)NAN;
  for (int32_t k = count + 1; k < TARE_FEW_BINS; k++) bins->lower_f32[k] = NAN;
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
  const double regions = ghm->variant == TARE_GHM_VARIANT_MMDET ? occupied : ghm->bins;
  for (int32_t k = 0; k < ghm->bins; k++) {
    state.sums[k] = tare_momentum_sum(ghm, *state.steps <= 0, state.sums[k], (double)state.counts[k]);
    const double density = state.sums[k] * regions;
    state.inverse_density[k] = density > 0 ? 1 / density : 0;
  }
  if (ghm->momentum > 0.0) *state.steps = tare_next_step(*state.steps);
}
