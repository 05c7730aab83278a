/* SPDX-License-Identifier: Apache-2.0 */
/* The oracle's loss of a mask: dice, Tversky and focal Tversky, and the focal loss beside them. */
#ifndef TARE_TESTS_ORACLE_MASKS_H
#define TARE_TESTS_ORACLE_MASKS_H

#include <stdint.h>

struct oracle_mask_setting {
  double false_positive_weight, false_negative_weight, exponent, numerator_smoothing, denominator_smoothing;
  double alpha, gamma; /* of the focal loss; alpha negative: off */
  int squared;
};

/** One mask. The losses have no weights; focal is a mean. Derivatives are by x. */
struct oracle_mask {
  double overlap, focal;
  double true_positives, false_positives, false_negatives, focal_sum;
  int64_t pixels;
  double *overlap_by_x, *focal_by_x; /* [n], or NULL */
};

/** valid: 0 where a pixel does not count; or NULL. */
void oracle_mask(int64_t n, const double *x, const double *t, const uint8_t *valid,
                 const struct oracle_mask_setting *setting, struct oracle_mask *mask);

#endif
