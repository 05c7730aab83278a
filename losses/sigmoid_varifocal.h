/* SPDX-License-Identifier: Apache-2.0 */
/* Varifocal loss of a label's element: its score weighs its own cross-entropy. A score of 0 leaves nothing.
 * Included as losses/formulas.h is. */

TARE_INLINE pair sigmoid_varifocal_label(real x, real score, real weight, const formula_parameters *parameters,
                                         int power) {
  const pair ce = cross_entropy(terms_of(x), x, score, (real)1 - score);
  (void)parameters, (void)power;
  return make_pair(score > 0 ? weight * (score * ce.loss) : (real)0,
                   score > 0 ? weight * (score * ce.derivative) : (real)0);
}
