/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax focal loss of a row, by its margin z = (x_y - m) - log S over the other classes: the sigmoid formula.
 * Included as losses/formulas.h is. */

TARE_INLINE pair softmax_focal(real z, real weight, const formula_parameters *parameters, int power) {
  return sigmoid_focal(z, weight, weight, parameters, power);
}
