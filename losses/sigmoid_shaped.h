/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Losses whose negatives are not focal's, by their shape (losses/shapes.h). Each has a value for a target of 1 and for
 * a target of 0, by the signed logit. A target between them mixes these two values. The exponent is never looked up:
 * such a loss has one loop, with the general power. Included as losses/formulas.h is.
 */

/** Focal loss with these gammas; the second is that of the gradient. */
TARE_INLINE pair focal_with_gamma(terms t, real gamma_hi, real gamma_lo, real derivative_gamma) {
  const real a = t.positive_z > GAMMA_LOG_CLAMP ? GAMMA_LOG_CLAMP : t.positive_z;
  const log_parts y = exponent_in_parts(a, t.log1p_e, gamma_hi, gamma_lo);
  const real factor = exp_sum(-y.hi, -y.lo);
  return make_pair(factor * t.l, factor * multiply_add(derivative_gamma, p_times_l(t), t.q));
}

/** Cross-entropy of a smoothed target. */
TARE_INLINE real smoothed_ce(real z, terms t, const formula_parameters *parameters) {
  return t.log1p_e + (z > 0 ? z * parameters->smoothed : -z * parameters->unsmoothed);
}

/** q^gamma*CE. The power falls like e^(-gamma*z), and CE rises like z: their product is not 0 where focal's is. */
TARE_INLINE pair smoothed(real z, const formula_parameters *parameters) {
  const terms t = terms_of(z);
  const real far = (real)0x1p100, a = t.positive_z > far ? far : t.positive_z;
  const real ce = smoothed_ce(z, t, parameters);
  const log_parts y = general_exponent(a, t.log1p_e, parameters);
  const modulator m = modulator_of_exponent(y.hi, y.lo);
  const real of_ce = z > 0 ? t.q - parameters->smoothed : parameters->unsmoothed - t.p;
  const real of_modulator = parameters->gamma_hi * (t.p * (ce > LARGEST ? LARGEST : ce));
  const int is_none = m.first == 0;
  return make_pair(is_none ? (real)0 : modulated(ce, m), is_none ? (real)0 : modulated(of_ce + of_modulator, m));
}

/** Focal loss of the soft target: of a negative, and mirrored of a label. */
TARE_INLINE pair smoothed_all(real z, const formula_parameters *parameters) {
  const terms t = terms_of(z);
  soft_terms soft;
  soft.p = t.q;
  soft.q = t.p;
  soft.ce = smoothed_ce(z, t, parameters);
  soft.s = t.q * parameters->unsmoothed + t.p * parameters->smoothed;
  return focal_soft_of_terms(soft, parameters->smoothed, modulator_of(soft.s, parameters, TARE_POWER_GENERAL),
                             parameters);
}

/**
 * A negative with a margin m: r^gamma*(-log(1-r)) with r = max(q-m,0), where q = sigmoid(x) and p = 1-q. Its gradient
 * by x is q*p*r^gamma*(1/(1-r) + gamma*(-log(1-r))/r). With d = x - logit(m) r is q*(1-m)*(1-exp(-d)), where nothing
 * cancels. Where r is small, log1p comes from the logarithm of 1-r as it is rounded.
 */
TARE_INLINE pair margin_negative(real z, const formula_parameters *parameters) {
  const terms t = terms_of(z);
  const real d = (-z - parameters->margin_logit) - parameters->margin_logit_lo;
  const int is_none = d <= 0;
  const real r = is_none ? (real)0 : t.q * parameters->margin_rest * distance_to_1(exp_nonpositive(-d), d);
  const int is_low = r < (real)0.5;
  const real rest = is_low ? (real)1 - r : t.p + parameters->margin;
  const log_parts log_rest = log_positive(rest), log_r = log_of_modulator(is_none ? (real)1 : r);
  const real ce = -(log_rest.hi + log_rest.lo), below = is_low ? (real)1 - rest : r;
  const real slope = below > 0 ? ce * reciprocal(below) : (real)1; /* ce/r */
  const log_parts y = general_exponent(-log_r.hi, -log_r.lo, parameters);
  const modulator m = modulator_of_exponent(y.hi, y.lo);
  const real share = t.p * reciprocal(rest);
  const real gradient = t.q * multiply_add(parameters->derivative_gamma * t.p, slope, share);
  return make_pair(is_none ? (real)0 : modulated(is_low ? r * slope : ce, m),
                   is_none ? (real)0 : modulated(gradient, m));
}

/** Cross-entropy below the threshold, (q/p_threshold)^gamma times it from there on. */
TARE_INLINE pair reduced(real z, const formula_parameters *parameters) {
  const terms t = terms_of(z);
  const int is_whole = z < parameters->threshold;
  const real a = t.positive_z > GAMMA_LOG_CLAMP ? GAMMA_LOG_CLAMP : t.positive_z;
  const log_parts y = general_exponent(a, t.log1p_e + parameters->log_threshold, parameters);
  const real factor = exp_sum(-y.hi, -y.lo);
  const real through = factor * multiply_add(parameters->gamma_hi, p_times_l(t), t.q);
  return make_pair(is_whole ? t.l : factor * t.l, is_whole ? t.q : through);
}

/** -log sigmoid(u)/gamma with u = gamma*z + shift, which is kept in two parts. Far out the loss is -z, or 0. */
TARE_INLINE pair star(real z, const formula_parameters *parameters) {
  const real far = (real)0x1p60;
  const real near_z = z > far ? far : z < -far ? -far : z;
  const real product = parameters->gamma_hi * near_z, u = product + parameters->shift, part = u - product;
  const real rest_of_sum = (product - (u - part)) + (parameters->shift - part);
  const real lo = product_error(parameters->gamma_hi, near_z, product) + parameters->gamma_lo * near_z + rest_of_sum +
                  parameters->shift_lo;
  const real e = exp_sum(-magnitude(u), u < 0 ? lo : -lo);
  const real larger = reciprocal((real)1 + e), smaller = smaller_part(e, larger);
  const real line = u < 0 ? -u - lo : (real)0;
  const real loss = (log1p_unit(e) + line) * parameters->inverse_gamma;
  return make_pair(z < -far ? -z : loss, u < 0 ? larger : smaller);
}

/** The value of a target of 1 (`is_label`) or 0, by its signed logit. `shape` is a constant after inlining. */
TARE_INLINE pair shaped_element(real z, int is_label, const formula_parameters *parameters, int shape) {
  switch (shape) {
    case TARE_SHAPE_SMOOTHED:
      return smoothed(z, parameters);
    case TARE_SHAPE_SMOOTHED_ALL:
      return smoothed_all(z, parameters);
    case TARE_SHAPE_REDUCED:
      return reduced(z, parameters);
    case TARE_SHAPE_STAR:
      return star(z, parameters);
    default: /* asymmetric */
      if (is_label)
        return focal_with_gamma(terms_of(z), parameters->label_gamma_hi, parameters->label_gamma_lo,
                                parameters->label_derivative_gamma);
      if (shape == TARE_SHAPE_MARGIN) return margin_negative(z, parameters);
      return focal_with_gamma(terms_of(z), parameters->gamma_hi, parameters->gamma_lo, parameters->derivative_gamma);
  }
}

TARE_INLINE pair shaped_negative(real z, real weight, real base_weight, const formula_parameters *parameters,
                                 int shape) {
  const pair value = shaped_element(z, 0, parameters, shape);
  (void)base_weight;
  return make_pair(weight * value.loss, weight * value.derivative);
}

/** Any target in [0,1], by x. What a target of 0 or 1 leaves out is not multiplied: it may be infinite. */
TARE_INLINE pair shaped_label(real x, real target, real weight, const formula_parameters *parameters, int shape) {
  const pair of_1 = shaped_element(x, 1, parameters, shape), of_0 = shaped_element(-x, 0, parameters, shape);
  const real rest = (real)1 - target;
  const real loss = (target > 0 ? target * of_1.loss : (real)0) + (rest > 0 ? rest * of_0.loss : (real)0);
  const real derivative =
      (rest > 0 ? rest * of_0.derivative : (real)0) - (target > 0 ? target * of_1.derivative : (real)0);
  return make_pair(weight * loss, weight * derivative);
}
