/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the losses share whose labels have a formula of their own. Every other element is a negative: scored_negative.
 * The label's element has a score in [0,1], both ends included. Its derivative is by x.
 * Included as losses/formulas.h is.
 */

/** Focal loss of a negative, by z = -x: q^gamma*l. The gradient may leave the modulator out. */
TARE_INLINE pair scored_negative(real z, real weight, real base_weight, const formula_parameters *parameters,
                                 int power) {
  const terms t = terms_of(z);
  const real q_power = power_of_q(t, parameters, power);
  const real through = q_power * multiply_add(parameters->derivative_gamma, p_times_l(t), t.q);
  (void)base_weight;
  return make_pair(weight * (q_power * t.l), weight * (power == TARE_POWER_0 ? t.q : through));
}

/** Cross-entropy of a target in [0,1], whose distance to 1 is `rest`, with its gradient by x: p - target. `t` are the
 *  terms of x. Where p is near 1 the distances to 1 are subtracted. A share of 0 of an infinite x is 0. */
TARE_INLINE pair cross_entropy(terms t, real x, real target, real rest) {
  const real share = x > 0 ? rest : target;
  const real line = share > 0 ? magnitude(x) * share : (real)0;
  return make_pair(t.log1p_e + line, x > 0 ? rest - t.q : t.p - target);
}

/** 1 - t for t = exp(-y). Near 1 the rounding of t is undone by its own logarithm. */
TARE_INLINE real distance_to_1(real t, real y) {
  const log_parts log_t = log_positive(t);
  const real rest = (real)1 - t;
  const real corrected = t < 1 ? rest * (y * reciprocal(-(log_t.hi + log_t.lo))) : y;
  return t > (real)0.5 ? corrected : rest;
}
