/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quality focal loss of a label's element: s^beta*CE with s = |p - score|, and gradient
 * s^beta*(p - score) + beta*s^(beta-1)*sgn(p - score)*p*(1-p)*CE. At p = score both are 0, unless beta is 0.
 * Included as losses/formulas.h is.
 */

TARE_INLINE pair sigmoid_quality_focal_label(real x, real score, real weight, const formula_parameters *parameters,
                                             int power) {
  const terms t = terms_of(x);
  const pair ce = cross_entropy(t, x, score, (real)1 - score);
  const real s = magnitude(ce.derivative);
  const modulator m = modulator_of(s, parameters, power);
  const int is_infinite = ce.loss > LARGEST;
  const real kappa = s >= SMALLEST_NORMAL ? t.p * t.q * reciprocal(s) : (real)0;
  const real rest = parameters->gamma_hi * (kappa * (is_infinite ? LARGEST : ce.loss));
  const real derivative = ce.derivative + (ce.derivative < 0 ? -rest : rest);
  return make_pair(weight * (is_infinite ? ce.loss : modulated(ce.loss, m)), weight * modulated(derivative, m));
}
