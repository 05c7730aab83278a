/* SPDX-License-Identifier: Apache-2.0 */
/* Offsets of logit adjustment from class counts (arXiv 2007.07314, eq. 10; tau = 1: balanced softmax, 2007.10740). */
#include <float.h>
#include <math.h>

#include "core/backend.h"

/** A class without samples counts as one with a single sample, so that its logarithm is finite. */
static double samples_of(double count) { return count == 0.0 ? 1.0 : count; }

static tare_status check_counts(int64_t classes, const double *counts, tare_error *error) {
  int64_t empty = -1, fraction = -1;
  for (int64_t c = 0; c < classes; c++) {
    if (!(counts[c] >= 0.0 && counts[c] <= DBL_MAX))
      return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "counts[%lld] is %.17g; it must be finite and >= 0",
                       (long long)c, counts[c]);
    if (counts[c] == 0.0) empty = c;
    if (counts[c] > 0.0 && counts[c] < 1.0) fraction = c;
  }
  if (empty < 0 || fraction < 0) return TARE_STATUS_OK;
  return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                   "counts[%lld] is 0, which counts as 1 sample, and counts[%lld] is %.17g: pass counts instead of "
                   "frequencies, or a frequency above 0 for every class",
                   (long long)empty, (long long)fraction, counts[fraction]);
}

/** The counts' sum, in units of 2^exponent, so that it is finite. */
typedef struct total {
  double sum;
  int exponent;
} total;

static total total_of(int64_t classes, const double *counts) {
  double largest = 0.0;
  for (int64_t c = 0; c < classes; c++) largest = fmax(largest, samples_of(counts[c]));
  total all = {0.0, 0};
  frexp(largest, &all.exponent);
  for (int64_t c = 0; c < classes; c++) all.sum += ldexp(samples_of(counts[c]), -all.exponent);
  return all;
}

/** log(n_c/sum n). Near 1 that ratio's logarithm is all rounding error; there the share of the other classes serves. */
static double log_prior(int64_t classes, const double *counts, total all, int64_t c) {
  const double samples = samples_of(counts[c]);
  if (ldexp(samples, -all.exponent) <= all.sum / 2) return log(samples) - (log(all.sum) + all.exponent * log(2.0));
  double others = 0.0;
  for (int64_t k = 0; k < classes; k++)
    if (k != c) others += ldexp(samples_of(counts[k]), -all.exponent);
  return log1p(-others / all.sum);
}

tare_status tare_logit_adjustment(int64_t classes, const double *counts, double tau, float *offset) {
  tare_error *error = tare_thread_error();
  if (classes < 1)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "classes is %lld; it must be >= 1", (long long)classes);
  if (!counts) return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "counts is NULL");
  if (!offset) return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "offset is NULL");
  if (!(fabs(tau) <= 1e30))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "tau is %.10g; it must be in [-1e30,1e30]", tau);
  const tare_status status = check_counts(classes, counts, error);
  if (status) return status;
  const total all = total_of(classes, counts);
  for (int64_t c = 0; c < classes; c++) offset[c] = (float)(tau * log_prior(classes, counts, all, c));
  return TARE_STATUS_OK;
}
