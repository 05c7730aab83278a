/* SPDX-License-Identifier: Apache-2.0 */
/* Focal loss q^gamma*l of a signed logit; derivative q^gamma*(q + gamma*p*l), two terms of one sign.
 * Included as losses/formulas.h is. */

TARE_INLINE pair focal_of_terms(terms t, const formula_parameters *parameters, int power) {
  const real q_to_gamma = power_of_q(t, parameters, power);
  pair result;
  result.loss = q_to_gamma * t.l;
  result.derivative = power == TARE_POWER_0 ? t.q : q_to_gamma * multiply_add(parameters->gamma_hi, p_times_l(t), t.q);
  return result;
}

TARE_INLINE pair sigmoid_focal_of_terms(terms t, real weight, real base_weight, const formula_parameters *parameters,
                                        int power) {
  const pair focal = focal_of_terms(t, parameters, power);
  (void)base_weight;
  return make_pair(weight * focal.loss, weight * focal.derivative);
}

TARE_INLINE pair sigmoid_focal(real z, real weight, real base_weight, const formula_parameters *parameters, int power) {
  return sigmoid_focal_of_terms(terms_of(z), weight, base_weight, parameters, power);
}

/** s^gamma*CE with gradient s^gamma*[(p-t) + gamma*(1-2t)*kappa*CE], kappa = p(1-p)/s. An infinite CE stays infinite
 *  for any s^gamma; kappa is then 0. If s is subnormal, so are p and kappa*CE. */
TARE_INLINE pair focal_soft_of_terms(soft_terms t, real target, modulator m, const formula_parameters *parameters) {
  const int is_infinite = t.ce > LARGEST;
  const real ce = is_infinite ? LARGEST : t.ce;
  const real kappa = t.s >= SMALLEST_NORMAL ? t.p * t.q * reciprocal(t.s) : (real)0;
  const real rest = parameters->gamma_hi * ((real)1 - 2 * target) * (kappa * ce);
  pair result;
  result.loss = is_infinite ? t.ce : modulated(t.ce, m);
  result.derivative = modulated((t.p - target) + rest, m);
  return result;
}

TARE_INLINE pair sigmoid_focal_soft(real x, real target, real weight, real base_weight,
                                    const formula_parameters *parameters, int power) {
  const soft_terms t = soft_terms_of(x, target);
  const pair focal = focal_soft_of_terms(t, target, modulator_of(t.s, parameters, power), parameters);
  (void)base_weight;
  return make_pair(weight * focal.loss, weight * focal.derivative);
}
