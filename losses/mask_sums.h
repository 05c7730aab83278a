/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of a mask, and what follows from them: see losses/mask_overlap.h. */
#ifndef TARE_LOSSES_MASK_SUMS_H
#define TARE_LOSSES_MASK_SUMS_H

#include <stdint.h>

/** Sums over some pixels of a mask. Whole masks have them too. */
typedef struct tare_mask_partial {
  double true_positives, false_positives, false_negatives, focal;
  int64_t pixels;        /* that count */
  int64_t first_invalid; /* pixel with a target that no formula takes; INT64_MAX: none */
} tare_mask_partial;

/** The parameters as the formula reads them. */
typedef struct tare_overlap_setting {
  double false_positive_weight, false_negative_weight, exponent, numerator_smoothing, denominator_smoothing;
  int32_t squared, reserved;
} tare_overlap_setting;

/**
 * (1-T)^exponent, and its derivative by p: factor*(of_zeros*(1-t) - of_ones*t), or with squares, u = p-t,
 * factor*((u > 0 ? of_zeros : of_ones)*u - of_hits*t). The three lie in [0,1], so that they fit a float.
 */
typedef struct tare_overlap {
  double loss, factor, of_zeros, of_ones, of_hits;
} tare_overlap;

/** What a mask gives. Its loss is weight*(overlap + focal); gradients are by x, without scale and divisor. */
typedef struct tare_mask_result {
  tare_overlap overlap; /* its factor has the mask's weight and overlap_weight */
  double mean_focal;    /* times the mask's weight, as is the overlap's loss */
  double focal_factor;  /* of a pixel's derivative */
  int64_t counts, first_invalid;
} tare_mask_result;

#endif
