/* SPDX-License-Identifier: Apache-2.0 */
/* Poly-1 focal loss: focal + epsilon*q^(gamma+1). `weight` includes alpha. `base_weight`, the factor of the
 * second term, does not. Included as losses/formulas.h is. */

TARE_INLINE pair sigmoid_poly1_of_terms(terms t, real weight, real base_weight, const formula_parameters *parameters,
                                        int power) {
  const pair focal = focal_of_terms(t, parameters, power);
  const real term = base_weight * parameters->epsilon * (power_of_q(t, parameters, power) * t.q);
  pair result;
  result.loss = (weight == 0 ? (real)0 : weight * focal.loss) + term; /* an alpha of 0 meets an infinite loss */
  result.derivative = weight * focal.derivative + (parameters->gamma_hi + (real)1) * term * t.p;
  return result;
}

TARE_INLINE pair sigmoid_poly1(real z, real weight, real base_weight, const formula_parameters *parameters, int power) {
  return sigmoid_poly1_of_terms(terms_of(z), weight, base_weight, parameters, power);
}

/** With a soft target q becomes s, and ds/dx = (1-2t)*p*(1-p). */
TARE_INLINE pair sigmoid_poly1_soft(real x, real target, real weight, real base_weight,
                                    const formula_parameters *parameters, int power) {
  const soft_terms t = soft_terms_of(x, target);
  const modulator m = modulator_of(t.s, parameters, power);
  const pair focal = focal_soft_of_terms(t, target, m, parameters);
  const real modulated_epsilon = modulated(base_weight * parameters->epsilon, m);
  const real derivative_of_s = ((real)1 - 2 * target) * t.p * t.q;
  pair result;
  result.loss = (weight == 0 ? (real)0 : weight * focal.loss) + modulated_epsilon * t.s;
  result.derivative =
      weight * focal.derivative + (parameters->gamma_hi + (real)1) * modulated_epsilon * derivative_of_s;
  return result;
}
