/* SPDX-License-Identifier: Apache-2.0 */
/* Offsets of logit adjustment from class counts: arguments. The formula is in losses/log_prior.h. */
#include <float.h>
#include <math.h>

#include "backend.h"
#include "losses/log_prior.h"

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
  const tare_total all = tare_total_of(classes, counts);
  for (int64_t c = 0; c < classes; c++) offset[c] = (float)(tau * tare_log_prior(classes, counts, all, c));
  return TARE_STATUS_OK;
}
