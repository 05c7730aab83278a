/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax cross-entropy of a row, by its margin z = (x_y - m) - log S over the other classes: the sigmoid formula.
 * Included as losses/formulas.h is. */

TARE_INLINE pair softmax_ce(real z, real weight, const formula_parameters *parameters, int power) {
  return sigmoid_ce(z, weight, weight, parameters, power);
}
