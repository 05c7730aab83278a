/* SPDX-License-Identifier: Apache-2.0 */
/* Cross-entropy of a signed logit: l, with derivative q. Included as losses/formulas.h is. */

TARE_INLINE pair sigmoid_ce(real z, real weight, real base_weight, const formula_parameters *parameters, int power) {
  const terms t = terms_of(z);
  (void)base_weight, (void)parameters, (void)power;
  return make_pair(weight * t.l, weight * t.q);
}

TARE_INLINE pair sigmoid_ce_soft(real x, real target, real weight, real base_weight,
                                 const formula_parameters *parameters, int power) {
  const soft_terms t = soft_terms_of(x, target);
  (void)base_weight, (void)parameters, (void)power;
  return make_pair(weight * t.ce, weight * (t.p - target));
}
