/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A softmax row whose targets are smoothed: 1-s+s/C at the label, s/C elsewhere. With k = s*(C-1)/C its cross-entropy
 * is that of the label's signed logit z with target 1-k, and `more`: s/C times the sum of log S + m - x_j over the
 * other classes. No term is below 0. Included as losses/formulas.h is.
 */

typedef struct row_smoothing {
  formula_parameters parameters; /* with k as `smoothed` */
  real share, unshared;          /* s/C, and its distance to 1 */
  real distance;                 /* 1-s */
} row_smoothing;

/** The gradient by x_j is derivative*e_j/S - share*modulator, and at the label k*modulator - derivative. */
typedef struct smoothed_row {
  real loss, derivative, modulator; /* the weight is a factor of each */
} smoothed_row;

/** q^gamma of the label; or with `all` s^gamma of the smoothed target, s = 1 - sum t_j*p_j = q*(1-share) + p*k. */
TARE_INLINE modulator modulator_of_row(terms t, real lo, real s, const row_smoothing *by, int all) {
  if (all) return modulator_of(s, &by->parameters, TARE_POWER_GENERAL);
  const real far = (real)0x1p100, a = t.positive_z > far ? far : t.positive_z;
  const log_parts y = general_exponent(a, t.log1p_e + lo, &by->parameters);
  return modulator_of_exponent(y.hi, y.lo);
}

/** lo: what rounding took from z. It matters where z is large. `all`: the modulator is that of the smoothed target. */
TARE_INLINE smoothed_row softmax_smoothed(real z, real lo, real more, real weight, const row_smoothing *by, int all) {
  terms t = terms_of(z);
  const real rest = (z > 0) & (z <= LARGEST) ? lo : (real)0, plain_q = t.q;
  t.q = multiply_add(-plain_q, rest, plain_q);
  t.log1p_e = multiply_add(-plain_q, rest, t.log1p_e);
  const real s = t.q * by->unshared + t.p * by->parameters.smoothed;
  const modulator m = modulator_of_row(t, rest, s, by, all);
  const real slope = by->parameters.gamma_hi * (t.p * (all ? by->distance * (t.q * reciprocal(s)) : (real)1));
  const real any = smoothed_ce(z, t, &by->parameters) + more;
  const real most = m.first > 0 ? (real)INFINITY : (real)1; /* a modulator of 0 leaves nothing of an infinite one */
  const real ce = any > most ? most : any;
  smoothed_row row;
  row.modulator = weight * modulated((real)1, m);
  row.loss = weight * modulated(ce, m);
  row.derivative = weight * modulated(t.q + (slope > 0 ? slope * ce : (real)0), m);
  return row;
}
