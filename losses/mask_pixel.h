/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One pixel of a mask, with p = sigmoid(x) and q = 1-p. A pixel that does not count has p = q = 0, which makes every
 * term 0. Included as losses/formulas.h is.
 */

/** What a pixel adds to its mask's sums of false positives and false negatives. */
typedef struct mask_misses {
  real positive, negative;
} mask_misses;

TARE_INLINE mask_misses mask_misses_of(real p, real q, real t) {
  mask_misses m;
  m.positive = p * ((real)1 - t);
  m.negative = q * t;
  return m;
}

/** The same with squares, where p - t = p*(1-t) - q*t, which cancels for no t of 0 or 1. */
TARE_INLINE mask_misses mask_squares_of(real p, real q, real t) {
  const real u = p * ((real)1 - t) - q * t;
  mask_misses m;
  m.positive = u > 0 ? u * u : (real)0;
  m.negative = u > 0 ? (real)0 : u * u;
  return m;
}

/** A tare_overlap as pixels need it: its factor is first*second, both normal numbers of `real`. */
typedef struct mask_slope {
  real of_zeros, of_ones, of_hits, first, second, focal;
} mask_slope;

/** A base of 0 gives 0 under every factor. */
TARE_INLINE real mask_scaled(real base, const mask_slope *s) {
  return base == 0 ? (real)0 : base * s->first * s->second;
}

/** The derivative of the overlap loss by x. */
TARE_INLINE real mask_derivative(real p, real q, real t, const mask_slope *s) {
  return mask_scaled((s->of_zeros * ((real)1 - t) - s->of_ones * t) * (p * q), s);
}

TARE_INLINE real mask_squared_derivative(real p, real q, real t, const mask_slope *s) {
  const real u = p * ((real)1 - t) - q * t;
  return mask_scaled(((u > 0 ? s->of_zeros : s->of_ones) * u - s->of_hits * t) * (p * q), s);
}
