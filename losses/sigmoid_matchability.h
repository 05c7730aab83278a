/* SPDX-License-Identifier: Apache-2.0 */
/* Matchability-aware loss of a label's element: cross-entropy of the target score^gamma.
 * Included as losses/formulas.h is. */

/** |x| times the target, also where the target itself is too small for its type. */
TARE_INLINE real matchability_line(real x, real score, modulator m, int power) {
  const real size = magnitude(x), line = size > LARGEST ? size : modulated(size, m);
  return (score > 0) | (power == TARE_POWER_0) ? line : (real)0;
}

TARE_INLINE pair sigmoid_matchability_label(real x, real score, real weight, const formula_parameters *parameters,
                                            int power) {
  const terms t = terms_of(x);
  const modulator m = modulator_of(score, parameters, power);
  const log_parts log_score = log_of_modulator(score);
  const log_parts y = general_exponent(-log_score.hi, -log_score.lo, parameters);
  const real target = m.first * m.second;
  const pair ce = cross_entropy(t, x, target, distance_to_1(target, y.hi + y.lo));
  const real loss = x > 0 ? ce.loss : t.log1p_e + matchability_line(x, score, m, power);
  return make_pair(weight * loss, weight * ce.derivative);
}
