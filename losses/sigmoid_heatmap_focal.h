/* SPDX-License-Identifier: Apache-2.0 */
/* Heatmap focal loss of an element of a map: focal loss of a peak, where the target is exactly 1, and (1-t)^beta times
 * that of a negative elsewhere. Included as losses/formulas.h is. */

TARE_INLINE pair sigmoid_heatmap_focal_label(real x, real target, real weight, const formula_parameters *parameters,
                                             int power) {
  const int is_peak = target == 1;
  const pair focal = focal_of_terms(terms_of(is_peak ? x : -x), parameters, TARE_POWER_GENERAL);
  const log_parts log_rest = log_of_modulator(is_peak ? (real)1 : (real)1 - target);
  const log_parts y =
      exponent_in_parts(-log_rest.hi, -log_rest.lo, parameters->label_gamma_hi, parameters->label_gamma_lo);
  const modulator m = modulator_of_exponent(y.hi, y.lo);
  const real loss = focal.loss > LARGEST ? focal.loss : modulated(focal.loss, m);
  const real derivative = modulated(focal.derivative, m);
  (void)power;
  return make_pair(weight * loss, weight * (is_peak ? -derivative : derivative));
}
