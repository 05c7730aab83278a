/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The window of the exact gradient density, in double. For C and CUDA: the includer defines TARE_INLINE.
 *
 * A gradient norm is kept *folded*, as its distance to the nearer end of [0,1]: g up to 1/2, and -(1-g) beyond, where
 * 1-g has a formula of its own. So no digits are lost at either end. The sign tells the end: g = 1 is -0.
 */

TARE_INLINE int tare_is_upper_norm(double folded) { return copysign(1.0, folded) < 0; }

/** The gradient norm of GHM-C's key, the signed logit u: sigmoid(u). */
TARE_INLINE double tare_norm_of_logit(double u) {
  const double e = exp(-fabs(u)), nearer = e / (1.0 + e);
  return u > 0 ? -nearer : nearer;
}

/** The gradient norm of GHM-R's key, |difference|: r/sqrt(r^2+1) with r = key/mu. */
TARE_INLINE double tare_norm_of_difference(double key, double mu) {
  const double ratio = key / mu;
  if (ratio > 1e150) return -(0.5 / ratio / ratio);
  const double root = sqrt(ratio * ratio + 1.0);
  return 3.0 * ratio * ratio <= 1.0 ? ratio / root : -(1.0 / (root * (root + ratio)));
}

/** The distance from one norm up to another. */
TARE_INLINE double tare_norm_distance(double low, double high) {
  if (tare_is_upper_norm(low) == tare_is_upper_norm(high)) return high - low;
  return (0.5 - low) + (0.5 + high);
}

/** The length of [g-half, g+half] inside [0,1]. */
TARE_INLINE double tare_window_length(double folded, double half) {
  const double nearer = fabs(folded), farther = 1.0 - nearer;
  return (nearer < half ? nearer : half) + (farther < half ? farther : half);
}
