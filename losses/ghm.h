/* SPDX-License-Identifier: Apache-2.0 */
/* Bins of the gradient norm as thresholds of keys, and the density that counts lead to. */
#ifndef TARE_LOSSES_GHM_H
#define TARE_LOSSES_GHM_H

#include "tare.h"

enum { TARE_MAX_BINS = 1024, TARE_FEW_BINS = 32 };

/** Bins of the gradient norm by their first keys: bin k holds the keys in [lower[k], lower[k+1]). A key is the signed
 *  logit of a target of 0 or 1 (x where t = 0, -x where t = 1), or |difference| in GHM-R. The g of a target between 0 and 1
 *  has no such key and is compared with norm[k]. [0] is -infinity and [count] NaN, which nothing reaches. Of fewer than
 *  TARE_FEW_BINS so many can be read in f32: the rest have a threshold of NaN and a weight of 0. */
typedef struct tare_bins {
  int32_t count, kind, variant; /* what the thresholds were made for; a count of 0: for nothing yet */
  float edge_error;             /* relative: how far edges lie from k/count */
  double mu;
  float lower_f32[TARE_MAX_BINS + 1], norm_f32[TARE_MAX_BINS + 1], weight_f32[TARE_MAX_BINS];
  double lower_f64[TARE_MAX_BINS + 1], norm_f64[TARE_MAX_BINS + 1], weight_f64[TARE_MAX_BINS]; /* weight: 1/GD */
} tare_bins;

/** Finds the first key of each bin, unless `bins` has those of the same parameters from a call before. */
void tare_bins_make(tare_bins *bins, const tare_loss_spec *loss);

/** Copies 1/GD into the bins. */
void tare_bins_set_weights(tare_bins *bins, const double *inverse_density);

/** The words of a state: see tare_ghm_parameters. */
typedef struct tare_ghm_state {
  int64_t *steps, *total, *counts;
  double *sums, *inverse_density;
} tare_ghm_state;

tare_ghm_state tare_ghm_state_at(void *state, int32_t bins);

/** Momentum sums, 1/GD and one more step from the counts; nothing where N is 0. */
void tare_ghm_density_from_counts(const tare_ghm_parameters *ghm, tare_ghm_state state);

#endif
