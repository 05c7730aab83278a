/* SPDX-License-Identifier: Apache-2.0 */
/* Cross-entropy of a signed logit: l, with derivative q. Included as losses/formulas.h is. */

TARE_INLINE pair sigmoid_ce_of_terms(terms t, real weight, real base_weight, const formula_parameters *parameters,
                                     int power) {
  (void)base_weight, (void)parameters, (void)power;
  return make_pair(weight * t.l, weight * t.q);
}

TARE_INLINE pair sigmoid_ce(real z, real weight, real base_weight, const formula_parameters *parameters, int power) {
  return sigmoid_ce_of_terms(terms_of(z), weight, base_weight, parameters, power);
}

/** The terms of targets 1 and 0 with weights of their own: of_1*(-log p) + of_0*(-log(1-p)), with the derivative by x.
 *  Where one is 0 these are, bit for bit, those of the other target. A weight of 0 leaves nothing of its term. */
TARE_INLINE pair ce_of_terms(real x, real of_1, real of_0) {
  const terms t = terms_of(x);
  const real from_1 = of_1 != 0 ? of_1 * t.l : (real)0;
  const real from_0 = of_0 != 0 ? of_0 * (t.log1p_e + t.positive_z) : (real)0;
  const real toward_1 = of_1 * t.q, toward_0 = of_0 * t.p;
  return make_pair(from_1 + from_0, of_0 == 0 ? -toward_1 : of_1 == 0 ? toward_0 : toward_0 - toward_1);
}

TARE_INLINE pair sigmoid_ce_soft(real x, real target, real weight, real base_weight,
                                 const formula_parameters *parameters, int power) {
  const soft_terms t = soft_terms_of(x, target);
  (void)base_weight, (void)parameters, (void)power;
  return make_pair(weight * t.ce, weight * (t.p - target));
}
