/* SPDX-License-Identifier: Apache-2.0 */
/* Bins of the gradient norm, as thresholds of keys, and the gradient density from counts. */
#ifndef TARE_LOSSES_GHM_H
#define TARE_LOSSES_GHM_H

#include "tare.h"

#define TARE_MAX_BINS 1024 /* a macro, because texts name it */
enum { TARE_FEW_BINS = 32 };

/** Bins of the gradient norm by their first keys: bin k holds the keys in [lower[k], lower[k+1]). A key is the signed
 *  logit of a hard target (x where t = 0, -x where t = 1), or |difference| in GHM-R. The g of a target between 0 and 1
 *  has no such key and is compared with norm[k]. lower[0] is -infinity. lower[count] is NaN, which no key reaches. The
 *  f32 arrays are padded to TARE_FEW_BINS entries (threshold NaN, weight 0), so a reader of fixed width is safe. */
typedef struct tare_bins {
  int32_t count, kind, variant; /* parameters of the thresholds; a count of 0: none yet */
  float edge_error;             /* relative distance of the edges from k/count */
  double mu;
  float lower_f32[TARE_MAX_BINS + 1], norm_f32[TARE_MAX_BINS + 1], weight_f32[TARE_MAX_BINS];
  double lower_f64[TARE_MAX_BINS + 1], norm_f64[TARE_MAX_BINS + 1], weight_f64[TARE_MAX_BINS]; /* weight: 1/GD */
} tare_bins;

/** Finds the first key of each bin, unless `bins` already has the keys of these parameters. */
void tare_bins_make(tare_bins *bins, const tare_loss_spec *loss);

/** Copies 1/GD into the bins. */
void tare_bins_set_weights(tare_bins *bins, const double *inverse_density);

/** The words of a state: see tare_ghm_parameters. */
typedef struct tare_ghm_state {
  int64_t *steps, *total, *counts;
  double *sums, *inverse_density;
} tare_ghm_state;

tare_ghm_state tare_ghm_state_at(void *state, int32_t bins);

/** Computes momentum sums and 1/GD from the counts, and adds one step. With N = 0 it does nothing. */
void tare_ghm_density_from_counts(const tare_ghm_parameters *ghm, tare_ghm_state state);

#endif
