/* SPDX-License-Identifier: Apache-2.0 */
/* Varifocal loss. A negative is focal's, and the gradient may leave its modulator out. A target above 0 weighs its own
 * cross-entropy: t*CE. Included as losses/formulas.h is. */

TARE_INLINE pair sigmoid_varifocal(real z, real weight, real base_weight, const formula_parameters *parameters,
                                   int power) {
  const terms t = terms_of(z);
  const real q_power = power_of_q(t, parameters, power);
  const real through = q_power * multiply_add(parameters->derivative_gamma, p_times_l(t), t.q);
  (void)base_weight;
  return make_pair(weight * (q_power * t.l), weight * (power == TARE_POWER_0 ? t.q : through));
}

/** A target of 1. */
TARE_INLINE pair sigmoid_varifocal_positive(real z, real weight, real base_weight, const formula_parameters *parameters,
                                            int power) {
  return sigmoid_ce(z, weight, base_weight, parameters, power);
}

TARE_INLINE pair sigmoid_varifocal_soft(real x, real target, real weight, real base_weight,
                                        const formula_parameters *parameters, int power) {
  const pair ce = sigmoid_ce_soft(x, target, 1, base_weight, parameters, power);
  return make_pair(weight * (target * ce.loss), weight * (target * ce.derivative));
}
