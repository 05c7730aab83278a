/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loss of a mask from its papers' formulas: Tversky's index (arXiv 1706.05721), its power (arXiv 1810.07842),
 * V-Net's dice (arXiv 1606.04797). Sums and quotients are in long double, so that 1 - T may cancel.
 */
#include "masks.h"

#include <math.h>

#include "oracle.h"

/* Numerator and denominator of T, and their derivatives by p of a pixel. */
struct quotient {
  long double numerator, denominator;
};

static struct quotient derivatives(const struct oracle_mask_setting *s, struct oracle_point at, double t) {
  const long double p = at.p, q = at.q;
  struct quotient by = {t, 0};
  if (!s->squared) {
    by.denominator = t + s->false_positive_weight * (1.0L - t) - s->false_negative_weight * (long double)t;
    return by;
  }
  const long double distance = t == 1 ? -q : t == 0 ? p : p - t;
  by.denominator = t + 2 * (distance > 0 ? s->false_positive_weight : s->false_negative_weight) * distance;
  return by;
}

static void add_pixel(const struct oracle_mask_setting *s, struct oracle_point at, double t, long double sums[3]) {
  const long double p = at.p, q = at.q;
  sums[0] += p * t;
  if (!s->squared) {
    sums[1] += p * (1 - (long double)t);
    sums[2] += q * t;
    return;
  }
  const long double distance = t == 1 ? -q : t == 0 ? p : p - t;
  sums[distance > 0 ? 1 : 2] += distance * distance;
}

static void derive(int64_t n, const double *x, const double *t, const uint8_t *valid,
                   const struct oracle_mask_setting *s, struct quotient whole, const struct oracle_mask *mask) {
  const long double rest = (whole.denominator - whole.numerator) / whole.denominator;
  for (int64_t i = 0; i < n; i++) {
    mask->overlap_by_x[i] = 0;
    if (whole.denominator == 0 || rest == 0 || (valid && !valid[i])) continue;
    const struct oracle_point at = oracle_point(x[i]);
    const struct quotient by = derivatives(s, at, t[i]);
    const long double of_index =
        (by.numerator - by.denominator * (whole.numerator / whole.denominator)) / whole.denominator;
    mask->overlap_by_x[i] = (double)(-s->exponent * powl(rest, s->exponent - 1) * of_index * at.p * at.q);
  }
}

void oracle_mask(int64_t n, const double *x, const double *t, const uint8_t *valid, const struct oracle_mask_setting *s,
                 struct oracle_mask *mask) {
  long double sums[3] = {0, 0, 0}, focal = 0;
  mask->pixels = 0;
  for (int64_t i = 0; i < n; i++) {
    if (valid && !valid[i]) continue;
    const double alpha = oracle_alpha(s->alpha, t[i]);
    mask->pixels++;
    add_pixel(s, oracle_point(x[i]), t[i], sums);
    focal += alpha == 0 ? 0 : alpha * oracle_soft_focal(x[i], t[i], s->gamma).value;
  }
  mask->true_positives = (double)sums[0];
  mask->false_positives = (double)sums[1];
  mask->false_negatives = (double)sums[2];
  mask->focal_sum = (double)focal;
  mask->focal = mask->pixels ? (double)(focal / mask->pixels) : 0;
  const struct quotient whole = {
      sums[0] + s->numerator_smoothing,
      sums[0] + s->false_positive_weight * sums[1] + s->false_negative_weight * sums[2] + s->denominator_smoothing};
  const long double rest = (whole.denominator - whole.numerator) / whole.denominator;
  mask->overlap = whole.denominator == 0 || rest == 0 || !mask->pixels ? 0 : (double)powl(rest, s->exponent);
  if (mask->overlap_by_x) derive(n, x, t, valid, s, whole, mask);
  for (int64_t i = 0; i < n && mask->focal_by_x; i++) {
    const double alpha = oracle_alpha(s->alpha, t[i]);
    mask->focal_by_x[i] = 0;
    if ((valid && !valid[i]) || alpha == 0) continue;
    mask->focal_by_x[i] = alpha * oracle_soft_focal(x[i], t[i], s->gamma).derivative / (double)mask->pixels;
  }
}
