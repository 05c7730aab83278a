/* SPDX-License-Identifier: Apache-2.0 */
/* The logarithm of a class's prior probability, from counts (logit adjustment: arXiv 2007.07314, eq. 10). */
#ifndef TARE_LOSSES_LOG_PRIOR_H
#define TARE_LOSSES_LOG_PRIOR_H

#include <math.h>
#include <stdint.h>

/** What a class without samples counts as: 1, so that its logarithm is finite; or 0, if it is left out. */
static inline double tare_samples_of(double count, double least) { return count == 0.0 ? least : count; }

/** The counts' sum, in units of 2^exponent, so that it is finite. */
typedef struct tare_total {
  double sum, least;
  int exponent;
} tare_total;

static inline tare_total tare_total_of(int64_t classes, const double *counts, double least) {
  double largest = 0.0;
  for (int64_t c = 0; c < classes; c++) largest = fmax(largest, tare_samples_of(counts[c], least));
  tare_total all = {0.0, least, 0};
  frexp(largest, &all.exponent);
  for (int64_t c = 0; c < classes; c++) all.sum += ldexp(tare_samples_of(counts[c], least), -all.exponent);
  return all;
}

/** log(n_c/sum n). Near 1 the logarithm of that ratio is rounding error alone; there the share of the other classes is
 *  used. */
static inline double tare_log_prior(int64_t classes, const double *counts, tare_total all, int64_t c) {
  const double samples = tare_samples_of(counts[c], all.least);
  if (ldexp(samples, -all.exponent) <= all.sum / 2) return log(samples) - (log(all.sum) + all.exponent * log(2.0));
  double others = 0.0;
  for (int64_t k = 0; k < classes; k++)
    if (k != c) others += ldexp(tare_samples_of(counts[k], all.least), -all.exponent);
  return log1p(-others / all.sum);
}

#endif
