/* SPDX-License-Identifier: Apache-2.0 */
/* Class-balanced weights from the effective number of samples (arXiv 1901.05555): arguments and sums. The formula is in
 * losses/effective_number.h. */
#include <math.h>

#include "backend.h"
#include "losses/effective_number.h"

static int is_beta(double beta) { return beta >= 0.0 && beta < 1.0; }

tare_status tare_effective_number(double n, double beta, double *result) {
  tare_error *error = tare_thread_error();
  if (!result) return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "effective_number is NULL");
  if (!(n >= 0.0)) return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "n is %g; it must be >= 0", n);
  if (!is_beta(beta)) return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "beta is %.17g; it must be in [0,1)", beta);
  *result = tare_effective_number_in(n, beta, 1.0);
  return TARE_STATUS_OK;
}

tare_status tare_beta_from_volume(double volume, double *beta) {
  tare_error *error = tare_thread_error();
  if (!beta) return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "beta is NULL");
  if (!(volume >= 1.0 && volume <= 0x1p52))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "volume is %g; it must be in [1,2^52], so that (N-1)/N is below 1", volume);
  *beta = (volume - 1.0) / volume;
  return TARE_STATUS_OK;
}

/* The counts of a call: whole numbers or real ones. */
typedef struct {
  int64_t classes;
  const int64_t *whole;
  const double *real;
  double beta;
  const double *beta_per_class;
} samples;

static double count_of(const samples *of, int64_t c) { return of->whole ? (double)of->whole[c] : of->real[c]; }

static double beta_of(const samples *of, int64_t c) { return of->beta_per_class ? of->beta_per_class[c] : of->beta; }

static tare_status check_class(const samples *of, int64_t c, tare_error *error) {
  const long long number = c;
  if (of->whole && of->whole[c] < 0)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "counts[%lld] is %lld; it must be >= 0", number,
                     (long long)of->whole[c]);
  if (of->real && !(of->real[c] >= 0.0 && of->real[c] <= 0x1.fffffffffffffp1023))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "counts[%lld] is %.17g; it must be finite and >= 0", number,
                     of->real[c]);
  if (of->beta_per_class && !is_beta(of->beta_per_class[c]))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "beta_per_class[%lld] is %.17g; it must be in [0,1)", number,
                     of->beta_per_class[c]);
  return TARE_STATUS_OK;
}

static tare_status check(const samples *of, const float *weights, tare_error *error) {
  if (of->classes < 1)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "classes is %lld; it must be >= 1", (long long)of->classes);
  if (!of->whole && !of->real) return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "counts is NULL");
  if (!weights) return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "weights is NULL");
  if (!of->beta_per_class && !is_beta(of->beta))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "beta is %.17g; it must be in [0,1)", of->beta);
  int64_t present = 0;
  for (int64_t c = 0; c < of->classes; c++) {
    const tare_status status = check_class(of, c, error);
    if (status) return status;
    present += count_of(of, c) > 0.0;
  }
  if (!present)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "counts are all 0; at least one class must have samples");
  return TARE_STATUS_OK;
}

/* 1/E of a count far below 1 may overflow, so E is measured in a unit: the power of 2 at the smallest E. A power of 2
 * changes no bit of a weight that needs no unit. */
static double unit_of(const samples *of) {
  double smallest = 1.0;
  for (int64_t c = 0; c < of->classes; c++) {
    const double number = tare_effective_number_in(count_of(of, c), beta_of(of, c), 1.0);
    if (number > 0.0 && number < smallest) smallest = number;
  }
  int exponent;
  frexp(smallest, &exponent);
  return ldexp(1.0, exponent - 1);
}

static double inverse_of(const samples *of, int64_t c, double unit) {
  const double n = count_of(of, c);
  return n > 0.0 ? 1.0 / tare_effective_number_in(n, beta_of(of, c), unit) : 0.0;
}

static tare_status weigh(const samples *of, float *weights) {
  const tare_status status = check(of, weights, tare_thread_error());
  if (status) return status;
  const double unit = unit_of(of);
  double sum = 0.0, present = 0.0;
  for (int64_t c = 0; c < of->classes; c++)
    if (count_of(of, c) > 0.0) {
      sum += inverse_of(of, c, unit);
      present += 1.0;
    }
  for (int64_t c = 0; c < of->classes; c++) weights[c] = (float)(inverse_of(of, c, unit) * (present / sum));
  return TARE_STATUS_OK;
}

tare_status tare_class_balanced_weights(int64_t classes, const int64_t *counts, double beta,
                                        const double *beta_per_class, float *weights) {
  return weigh(&(samples){classes, counts, NULL, beta, beta_per_class}, weights);
}

tare_status tare_class_balanced_weights_real(int64_t classes, const double *counts, double beta,
                                             const double *beta_per_class, float *weights) {
  return weigh(&(samples){classes, NULL, counts, beta, beta_per_class}, weights);
}
