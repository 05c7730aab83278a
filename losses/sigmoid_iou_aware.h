/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IoU-aware cross-entropy of a label's element: CE of the target t = max(p^a*score^(1-a), 0.01), where p = sigmoid(x).
 * The target is a constant of the gradient. Included as losses/formulas.h is.
 */

/** -log t before the maximum, in two parts. Beyond the clamp of max(-x,0), t is below 0.01 for every a > 1e-29. */
TARE_INLINE log_parts iou_aware_exponent(terms t, real x, real score, const formula_parameters *parameters) {
  const real clamp = LARGEST * (real)0x1p-30, a = x < 0 ? -x : (real)0;
  const log_parts log_score = log_of_modulator(score);
  const log_parts by_p = exponent_in_parts(a > clamp ? clamp : a, t.log1p_e, parameters->p_hi, parameters->p_lo);
  const log_parts by_score = exponent_in_parts(-log_score.hi, -log_score.lo, parameters->rest_hi, parameters->rest_lo);
  log_parts y;
  y.hi = by_p.hi + by_score.hi;
  y.lo = (by_p.hi > by_score.hi ? (by_p.hi - y.hi) + by_score.hi : (by_score.hi - y.hi) + by_p.hi);
  y.lo += by_p.lo + by_score.lo;
  return y;
}

TARE_INLINE pair sigmoid_iou_aware_label(real x, real score, real weight, const formula_parameters *parameters,
                                         int power) {
  const terms t = terms_of(x);
  const log_parts y = iou_aware_exponent(t, x, score, parameters);
  const int is_none = score == 0 && parameters->rest_hi > 0;
  const real mixed = exp_sum(-y.hi, -y.lo);
  const int is_least = is_none | (mixed < (real)0.01);
  const real target = is_least ? (real)0.01 : mixed;
  const real rest = is_least ? (real)0.99 : distance_to_1(mixed, y.hi + y.lo);
  const pair ce = cross_entropy(t, x, target, rest);
  (void)power;
  return make_pair(weight * ce.loss, weight * ce.derivative);
}
