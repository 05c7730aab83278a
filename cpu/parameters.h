/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters of a formula, from a checked call. */

/** Columns of losses.def as numbers. */
enum { NO_GAMMA = 0, GAMMA = 1, WHOLE = 0, PART = 1 };

static void set_shape_parameters(const tare_problem *problem, formula_parameters *p) {
  p->smoothed = (real)tare_smoothed_rest(problem);
  p->unsmoothed = (real)(1 - tare_smoothed_rest(problem));
  p->label_gamma_hi = (real)problem->label_gamma;
  p->label_gamma_lo = (real)(problem->label_gamma - (double)p->label_gamma_hi);
  p->label_derivative_gamma = problem->modulator_is_detached ? (real)0 : p->label_gamma_hi;
  p->margin = (real)problem->margin;
  p->margin_rest = (real)(1 - problem->margin);
  p->margin_logit = problem->margin < 1 ? (real)problem->margin_logit : LARGEST;
  p->margin_logit_lo =
      problem->margin < 1 ? (real)((problem->margin_logit - (double)p->margin_logit) + problem->margin_logit_lo) : 0;
  p->threshold = TARE_REAL_BITS == 64 ? (real)problem->threshold_logit : (real)problem->threshold_logit_f32;
  p->log_threshold = (real)problem->log_threshold;
  p->shift = (real)problem->shift;
  p->shift_lo = (real)(problem->shift - (double)p->shift);
  p->inverse_gamma = (real)(problem->shape == TARE_SHAPE_STAR ? 1 / problem->gamma : 0);
}

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
  set_shape_parameters(problem, &p);
  return p;
}

static inline row_smoothing smoothing_of(const tare_problem *problem) {
  row_smoothing by;
  by.parameters = parameters_of(problem);
  by.share = (real)tare_smoothed_share(problem);
  by.unshared = (real)(1 - tare_smoothed_share(problem));
  by.distance = (real)(1 - problem->label_smoothing);
  return by;
}
