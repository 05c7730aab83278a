/* SPDX-License-Identifier: Apache-2.0 */
/* The logarithm of a class's prior probability, from counts (logit adjustment: arXiv 2007.07314, eq. 10). */
#ifndef TARE_LOSSES_LOG_PRIOR_H
#define TARE_LOSSES_LOG_PRIOR_H

#include <math.h>
#include <stdint.h>

/** A class without samples counts as one with a single sample, so that its logarithm is finite. */
static inline double tare_samples_of(double count) { return count == 0.0 ? 1.0 : count; }

/** The counts' sum, in units of 2^exponent, so that it is finite. */
typedef struct tare_total {
  double sum;
  int exponent;
} tare_total;

static inline tare_total tare_total_of(int64_t classes, const double *counts) {
  double largest = 0.0;
  for (int64_t c = 0; c < classes; c++) largest = fmax(largest, tare_samples_of(counts[c]));
  tare_total all = {0.0, 0};
  frexp(largest, &all.exponent);
  for (int64_t c = 0; c < classes; c++) all.sum += ldexp(tare_samples_of(counts[c]), -all.exponent);
  return all;
}

/** log(n_c/sum n). Near 1 the logarithm of that ratio is rounding error alone; there the share of the other classes is
 *  used. */
static inline double tare_log_prior(int64_t classes, const double *counts, tare_total all, int64_t c) {
  const double samples = tare_samples_of(counts[c]);
  if (ldexp(samples, -all.exponent) <= all.sum / 2) return log(samples) - (log(all.sum) + all.exponent * log(2.0));
  double others = 0.0;
  for (int64_t k = 0; k < classes; k++)
    if (k != c) others += ldexp(tare_samples_of(counts[k]), -all.exponent);
  return log1p(-others / all.sum);
}

#endif
