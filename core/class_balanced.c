/* SPDX-License-Identifier: Apache-2.0 */
/* Class-balanced weights from the effective number of samples (arXiv 1901.05555). */
#include <math.h>

#include "backend.h"

/** 1-beta^n is all rounding error when formed as written with beta near 1; expm1 and log1p are not. */
static double effective_number(double n, double beta) {
  if (n == 0.0) return 0.0;
  if (beta == 0.0) return 1.0;
  return -expm1(n * log(beta)) / (1.0 - beta);
}

static int is_beta(double beta) { return beta >= 0.0 && beta < 1.0; }

tare_status tare_effective_number(double n, double beta, double *result) {
  tare_error *error = tare_thread_error();
  if (!result) return tare_fail(error, TARE_INVALID_ARGUMENT, "effective_number is NULL");
  if (!(n >= 0.0)) return tare_fail(error, TARE_INVALID_ARGUMENT, "n is %g; it must be >= 0", n);
  if (!is_beta(beta)) return tare_fail(error, TARE_INVALID_ARGUMENT, "beta is %.17g; it must be in [0,1)", beta);
  *result = effective_number(n, beta);
  return TARE_OK;
}

tare_status tare_beta_from_volume(double volume, double *beta) {
  tare_error *error = tare_thread_error();
  if (!beta) return tare_fail(error, TARE_INVALID_ARGUMENT, "beta is NULL");
  if (!(volume >= 1.0 && volume <= 0x1p52))
    return tare_fail(error, TARE_INVALID_ARGUMENT, "volume is %g; it must be in [1,2^52], where (N-1)/N is below 1",
                     volume);
  *beta = (volume - 1.0) / volume;
  return TARE_OK;
}

static tare_status check(int64_t classes, const int64_t *counts, double beta, const double *beta_per_class,
                         const float *weights, tare_error *error) {
  if (classes < 1)
    return tare_fail(error, TARE_INVALID_ARGUMENT, "classes is %lld; it must be >= 1", (long long)classes);
  if (!counts) return tare_fail(error, TARE_INVALID_ARGUMENT, "counts is NULL");
  if (!weights) return tare_fail(error, TARE_INVALID_ARGUMENT, "weights is NULL");
  if (!beta_per_class && !is_beta(beta))
    return tare_fail(error, TARE_INVALID_ARGUMENT, "beta is %.17g; it must be in [0,1)", beta);
  int64_t present = 0;
  for (int64_t c = 0; c < classes; c++) {
    if (counts[c] < 0)
      return tare_fail(error, TARE_INVALID_ARGUMENT, "counts[%lld] is %lld; it must be >= 0", (long long)c,
                       (long long)counts[c]);
    if (beta_per_class && !is_beta(beta_per_class[c]))
      return tare_fail(error, TARE_INVALID_ARGUMENT, "beta_per_class[%lld] is %.17g; it must be in [0,1)", (long long)c,
                       beta_per_class[c]);
    present += counts[c] > 0;
  }
  if (!present)
    return tare_fail(error, TARE_INVALID_ARGUMENT, "counts are all 0; at least one class must have samples");
  return TARE_OK;
}

tare_status tare_class_balanced_weights(int64_t classes, const int64_t *counts, double beta,
                                        const double *beta_per_class, float *weights) {
  const tare_status status = check(classes, counts, beta, beta_per_class, weights, tare_thread_error());
  if (status) return status;
  double sum = 0.0, present = 0.0;
  for (int64_t c = 0; c < classes; c++)
    if (counts[c] > 0) {
      sum += 1.0 / effective_number((double)counts[c], beta_per_class ? beta_per_class[c] : beta);
      present += 1.0;
    }
  for (int64_t c = 0; c < classes; c++) {
    const double inverse =
        counts[c] > 0 ? 1.0 / effective_number((double)counts[c], beta_per_class ? beta_per_class[c] : beta) : 0.0;
    weights[c] = (float)(inverse * (present / sum));
  }
  return TARE_OK;
}
