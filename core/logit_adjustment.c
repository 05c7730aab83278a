/* SPDX-License-Identifier: Apache-2.0 */
/* Offsets of logit adjustment and margins of LDAM from class counts: arguments, and the margins. The formula of offsets
 * is in losses/log_prior.h. */
#include <float.h>
#include <math.h>

#include "backend.h"
#include "losses/log_prior.h"

static tare_status check_zeros(int64_t classes, const double *counts, tare_error *error) {
  int64_t empty = -1, fraction = -1;
  for (int64_t c = 0; c < classes; c++) {
    if (counts[c] == 0.0) empty = c;
    if (counts[c] > 0.0 && counts[c] < 1.0) fraction = c;
  }
  if (empty < 0 || fraction < 0) return TARE_STATUS_OK;
  return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                   "counts[%lld] is 0, which counts as 1 sample, and counts[%lld] is %.17g: pass counts instead of "
                   "frequencies, or a frequency above 0 for every class",
                   (long long)empty, (long long)fraction, counts[fraction]);
}

static tare_status check_counts(int64_t classes, const double *counts, int32_t empty, tare_error *error) {
  double largest = 0.0;
  for (int64_t c = 0; c < classes; c++) {
    if (!(counts[c] >= 0.0 && counts[c] <= DBL_MAX))
      return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "counts[%lld] is %.17g; it must be finite and >= 0",
                       (long long)c, counts[c]);
    largest = fmax(largest, counts[c]);
  }
  if (empty == TARE_EMPTY_CLASSES_COUNT_ONE) return check_zeros(classes, counts, error);
  if (empty != TARE_EMPTY_CLASSES_EXCLUDED)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "empty is %d; it must be a tare_empty_classes", empty);
  if (largest > 0.0) return TARE_STATUS_OK;
  return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "every count is 0; a class that is not excluded needs one");
}

static tare_status check_arguments(int64_t classes, const double *counts, int32_t empty, const char *name,
                                   const float *result) {
  tare_error *error = tare_thread_error();
  if (classes < 1)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "classes is %lld; it must be >= 1", (long long)classes);
  if (!counts) return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "counts is NULL");
  if (!result) return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "%s is NULL", name);
  return check_counts(classes, counts, empty, error);
}

/** What a count of 0 counts as. */
static double least_of(int32_t empty) { return empty == TARE_EMPTY_CLASSES_EXCLUDED ? 0.0 : 1.0; }

tare_status tare_logit_offsets(int64_t classes, const double *counts, double tau, int32_t empty, float *offset) {
  if (!(fabs(tau) <= 1e30))
    return tare_fail(tare_thread_error(), TARE_STATUS_INVALID_ARGUMENT, "tau is %.10g; it must be in [-1e30,1e30]",
                     tau);
  const tare_status status = check_arguments(classes, counts, empty, "offset", offset);
  if (status) return status;
  const double least = least_of(empty);
  const tare_total all = tare_total_of(classes, counts, least);
  for (int64_t c = 0; c < classes; c++) {
    const int is_out = tare_samples_of(counts[c], least) == 0.0;
    offset[c] = is_out ? -INFINITY : (float)(tau * tare_log_prior(classes, counts, all, c));
  }
  return TARE_STATUS_OK;
}

tare_status tare_logit_adjustment(int64_t classes, const double *counts, double tau, float *offset) {
  return tare_logit_offsets(classes, counts, tau, TARE_EMPTY_CLASSES_COUNT_ONE, offset);
}

tare_status tare_ldam_margins(int64_t classes, const double *counts, double max_margin, int32_t empty, float *margins) {
  if (!(max_margin >= 0.0 && max_margin <= 1e6))
    return tare_fail(tare_thread_error(), TARE_STATUS_INVALID_ARGUMENT, "max_margin is %.10g; it must be in [0,1e6]",
                     max_margin);
  const tare_status status = check_arguments(classes, counts, empty, "margins", margins);
  if (status) return status;
  double rarest = INFINITY;
  for (int64_t c = 0; c < classes; c++) {
    const double samples = tare_samples_of(counts[c], least_of(empty));
    if (samples > 0.0) rarest = fmin(rarest, samples);
  }
  for (int64_t c = 0; c < classes; c++) {
    const double samples = tare_samples_of(counts[c], least_of(empty));
    /* (n/rarest)^(-1/4), by roots: no ratio overflows */
    margins[c] = samples > 0.0 ? (float)(max_margin * sqrt(sqrt(rarest) / sqrt(samples))) : INFINITY;
  }
  return TARE_STATUS_OK;
}
