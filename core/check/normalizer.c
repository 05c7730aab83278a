/* SPDX-License-Identifier: Apache-2.0 */
#include "normalizer.h"

#include <math.h>

static tare_status check_value(const tare_output *output, tare_error *error) {
  if (!isfinite(output->normalizer_value) || output->normalizer_value == 0.0)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "output->normalizer_value is %g; it must be finite and not 0",
                     output->normalizer_value);
  if (!isfinite(1.0 / output->normalizer_value))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "output->normalizer_value is %g; its reciprocal must be finite: use a value of at least 1e-308",
                     output->normalizer_value);
  if (output->normalizer == TARE_NORMALIZER_VALUE && !output->normalizer_pointer &&
      !isfinite(output->gradient_scale / output->normalizer_value))
    return tare_fail(
        error, TARE_STATUS_INVALID_ARGUMENT,
        "output->gradient_scale %g over output->normalizer_value %g is not finite; it must be below 1.8e308",
        output->gradient_scale, output->normalizer_value);
  return TARE_STATUS_OK;
}

/** What is added to a sum, and its least value. */
static tare_status check_bounds(const tare_output *output, tare_error *error) {
  const double given[] = {output->normalizer_addend, output->normalizer_minimum};
  const char *const names[] = {"normalizer_addend", "normalizer_minimum"};
  for (int i = 0; i < 2; i++) {
    if (!(given[i] >= 0 && given[i] <= 1e30))
      return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "output->%s is %g; it must be in [0,1e30]", names[i],
                       given[i]);
    if (given[i] != 0 && !tare_counts_rows(output))
      return tare_fail(
          error, TARE_STATUS_INVALID_ARGUMENT,
          "output->%s is %g with output->normalizer %s; it must be 0: only a divisor that is formed from "
          "rows takes it",
          names[i], given[i],
          output->normalizer == TARE_NORMALIZER_SUM ? "TARE_NORMALIZER_SUM (0)" : "TARE_NORMALIZER_VALUE (5)");
  }
  return TARE_STATUS_OK;
}

tare_status tare_check_normalizer(const tare_output *output, tare_error *error) {
  if (output->normalizer < TARE_NORMALIZER_SUM || output->normalizer > TARE_NORMALIZER_ONES)
    return tare_fail(
        error, TARE_STATUS_INVALID_ARGUMENT,
        "output->normalizer is %d; it must be a tare_normalizer, TARE_NORMALIZER_SUM (0) to TARE_NORMALIZER_ONES (7)",
        output->normalizer);
  const tare_status status = check_value(output, error);
  if (status) return status;
  if ((uintptr_t)output->normalizer_pointer % 4)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "output->normalizer_pointer is %p; it must be aligned to 4 bytes",
                     (const void *)output->normalizer_pointer);
  if ((uintptr_t)output->normalizer_sums % 8)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "output->normalizer_sums is %p; it must be aligned to 8 bytes", (void *)output->normalizer_sums);
  return check_bounds(output, error);
}

tare_status tare_check_normalizer_of(const tare_problem *problem, tare_error *error) {
  if (problem->output.normalizer_sums && !(problem->takes & TARE_TAKES_NORMALIZER))
    return tare_fail(error, TARE_STATUS_UNSUPPORTED,
                     "output->normalizer_sums with %s, which has its own normalizer; leave normalizer_sums NULL",
                     tare_loss_name(problem->loss.kind));
  if (problem->output.normalizer == TARE_NORMALIZER_POSITIVES && problem->soft &&
      problem->family != TARE_LOSS_FAMILY_REGRESSION)
    return tare_fail(error, TARE_STATUS_UNSUPPORTED,
                     "output->normalizer TARE_NORMALIZER_POSITIVES with %s and dense targets: a row of dense targets "
                     "has no class; use TARE_NORMALIZER_TARGETS, TARE_NORMALIZER_ONES or TARE_NORMALIZER_VALUE",
                     tare_loss_name(problem->loss.kind));
  return TARE_STATUS_OK;
}
