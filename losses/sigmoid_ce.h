/* SPDX-License-Identifier: Apache-2.0 */
/* Cross-entropy of a signed logit: l, with slope q. A template: see losses/formulas.h. */

TARE_INLINE F(pair)
    F(sigmoid_ce)(real z, real weight, real plain_weight, const F(formula_parameters) * parameters, int power) {
  const F(terms) t = F(terms_of)(z);
  (void)plain_weight, (void)parameters, (void)power;
  return F(make_pair)(weight * t.l, weight * t.q);
}

TARE_INLINE F(pair) F(sigmoid_ce_soft)(real x, real target, real weight, real plain_weight,
                                       const F(formula_parameters) * parameters, int power) {
  const F(soft_terms) t = F(soft_terms_of)(x, target);
  (void)plain_weight, (void)parameters, (void)power;
  return F(make_pair)(weight * t.ce, weight * (t.p - target));
}
