/* SPDX-License-Identifier: Apache-2.0 */
/* Focal loss q^gamma*l of a signed logit; slope q^gamma*(q + gamma*p*l), two terms of one sign.
 * A template: see core/formulas.h. */

TARE_INLINE F(pair) F(focal_of_terms)(F(terms) t, const F(formula_parameters) * parameters, int power) {
  const real modulator = F(power_of_q)(t, parameters, power);
  F(pair) result;
  result.loss = modulator * t.l;
  result.slope = power == TARE_POWER_0 ? t.q : modulator * F(multiply_add)(parameters->gamma_hi, F(p_times_l)(t), t.q);
  return result;
}

TARE_INLINE F(pair)
    F(sigmoid_focal)(real z, real weight, real plain_weight, const F(formula_parameters) * parameters, int power) {
  const F(pair) focal = F(focal_of_terms)(F(terms_of)(z), parameters, power);
  (void)plain_weight;
  return F(make_pair)(weight * focal.loss, weight * focal.slope);
}

/** s^gamma*CE with gradient s^gamma*[(p-t) + gamma*(1-2t)*kappa*CE], kappa = p(1-p)/s. */
TARE_INLINE F(pair)
    F(focal_soft_of_terms)(F(soft_terms) t, real target, const F(formula_parameters) * parameters, int power) {
  const real modulator = F(power_of_modulator)(t.s, parameters, power);
  const real ce = t.ce > F(LARGEST) ? F(LARGEST) : t.ce; /* kappa is 0 where CE is infinite */
  const real kappa = t.s > 0 ? t.p * t.q * F(reciprocal)(t.s) : (real)0;
  F(pair) result;
  result.loss = modulator * t.ce;
  result.slope = modulator * ((t.p - target) + parameters->gamma_hi * ((real)1 - 2 * target) * (kappa * ce));
  return result;
}

TARE_INLINE F(pair) F(sigmoid_focal_soft)(real x, real target, real weight, real plain_weight,
                                          const F(formula_parameters) * parameters, int power) {
  const F(pair) focal = F(focal_soft_of_terms)(F(soft_terms_of)(x, target), target, parameters, power);
  (void)plain_weight;
  return F(make_pair)(weight * focal.loss, weight * focal.slope);
}
