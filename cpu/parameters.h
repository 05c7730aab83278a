/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters of a formula, from a checked call. */

static formula_parameters parameters_of(const tare_problem *problem) {
  formula_parameters p;
  p.gamma_hi = (real)problem->gamma;
  p.gamma_lo = (real)(problem->gamma - (double)p.gamma_hi);
  p.epsilon = (real)problem->poly_epsilon;
  p.derivative_gamma = problem->modulator_is_detached ? (real)0 : p.gamma_hi;
  p.p_hi = (real)problem->p_exponent;
  p.p_lo = (real)(problem->p_exponent - (double)p.p_hi);
  p.rest_hi = (real)(1 - problem->p_exponent);
  p.rest_lo = (real)(1 - problem->p_exponent - (double)p.rest_hi);
  return p;
}
