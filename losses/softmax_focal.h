/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax focal loss of a row, by its margin z = (x_y - m) - log S over the other classes: the sigmoid formula.
 * A template: see losses/formulas.h. */

TARE_INLINE F(pair) F(softmax_focal)(real z, real weight, const F(formula_parameters) * parameters, int power) {
  return F(sigmoid_focal)(z, weight, weight, parameters, power);
}
