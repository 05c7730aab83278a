/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters of a formula, from a checked call. */

static formula_parameters parameters_of(const tare_problem *problem) {
  formula_parameters p;
  p.gamma_hi = (real)problem->gamma;
  p.gamma_lo = (real)(problem->gamma - (double)p.gamma_hi);
  p.epsilon = (real)problem->poly_epsilon;
  p.derivative_gamma = problem->modulator_is_detached ? (real)0 : p.gamma_hi;
  return p;
}
