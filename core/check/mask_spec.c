/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of the parameters of the loss of masks. */
#include "masks.h"

/** A parameter: off at 0, else in [low, high]. */
typedef struct range {
  const char *name;
  double value, low, high;
  int32_t may_be_0;
} range;

static tare_status check_range(const range *r, tare_error *error) {
  if ((r->may_be_0 && r->value == 0) || (r->value >= r->low && r->value <= r->high)) return TARE_STATUS_OK;
  return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "spec->%s is %.17g; it must be in [%g,%g]%s", r->name, r->value,
                   r->low, r->high, r->may_be_0 && r->low > 0 ? ", or 0" : "");
}

tare_status tare_check_mask_spec(const tare_mask_spec *s, tare_error *error) {
  const range ranges[] = {{"false_positive_weight", s->false_positive_weight, 1e-30, 1e30, 1},
                          {"false_negative_weight", s->false_negative_weight, 1e-30, 1e30, 1},
                          {"exponent", s->exponent, 0.01, 100, 0},
                          {"numerator_smoothing", s->numerator_smoothing, 1e-30, 1e30, 1},
                          {"denominator_smoothing", s->denominator_smoothing, 1e-30, 1e30, 1},
                          {"overlap_weight", s->overlap_weight, 1e-30, 1e30, 1},
                          {"focal_weight", s->focal_weight, 1e-30, 1e30, 1},
                          {"gamma", s->gamma, 0, 10000, 1}};
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
    const tare_status status = check_range(&ranges[i], error);
    if (status) return status;
  }
  if (s->numerator_smoothing > s->denominator_smoothing)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "spec->numerator_smoothing is %.17g; it must be at most spec->denominator_smoothing, %.17g: with "
                     "more, 1-T could be negative",
                     s->numerator_smoothing, s->denominator_smoothing);
  if (!(s->alpha <= 1)) /* NaN too */
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "spec->alpha is %.17g; it must be in [0,1], or negative for off", s->alpha);
  if (s->squared != 0 && s->squared != 1)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "spec->squared is %d; it must be 0 or 1", s->squared);
  if (s->reserved)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "spec->reserved is %d; it must be 0", s->reserved);
  return TARE_STATUS_OK;
}
