/* SPDX-License-Identifier: Apache-2.0 */
/* Focal loss q^gamma*l of a signed logit; slope q^gamma*(q + gamma*p*l), two terms of one sign.
 * A template: see losses/formulas.h. */

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

/** s^gamma*CE with gradient s^gamma*[(p-t) + gamma*(1-2t)*kappa*CE], kappa = p(1-p)/s. An infinite CE stays infinite,
 *  however small s^gamma is; kappa is 0 there. Where s is subnormal, p and so kappa*CE is too. */
TARE_INLINE F(pair)
    F(focal_soft_of_terms)(F(soft_terms) t, real target, F(modulator) m, const F(formula_parameters) * parameters) {
  const int is_infinite = t.ce > F(LARGEST);
  const real ce = is_infinite ? F(LARGEST) : t.ce;
  const real kappa = t.s >= F(SMALLEST_NORMAL) ? t.p * t.q * F(reciprocal)(t.s) : (real)0;
  const real rest = parameters->gamma_hi * ((real)1 - 2 * target) * (kappa * ce);
  F(pair) result;
  result.loss = is_infinite ? t.ce : F(modulated)(t.ce, m);
  result.slope = F(modulated)((t.p - target) + rest, m);
  return result;
}

TARE_INLINE F(pair) F(sigmoid_focal_soft)(real x, real target, real weight, real plain_weight,
                                          const F(formula_parameters) * parameters, int power) {
  const F(soft_terms) t = F(soft_terms_of)(x, target);
  const F(pair) focal = F(focal_soft_of_terms)(t, target, F(modulator_of)(t.s, parameters, power), parameters);
  (void)plain_weight;
  return F(make_pair)(weight * focal.loss, weight * focal.slope);
}
