/* SPDX-License-Identifier: Apache-2.0 */
/* Authentic smooth L1 of GHM-R (arXiv 1811.05181, eq. 10): sqrt(d^2+mu^2)-mu without cancellation. The derivative is
 * d/sqrt(d^2+mu^2). Far outside mu, where d^2 could overflow, the root is |d|. Included as losses/formulas.h is. */

TARE_INLINE pair ghm_r(real difference, real weight, real mu) {
  const real magnitude = difference < 0 ? -difference : difference;
  const int far = magnitude > ROOT_IS_MAGNITUDE * mu;
  const real near_magnitude = far ? (real)0 : magnitude;
  const real near_root = square_root(near_magnitude * near_magnitude + mu * mu);
  const real root = far ? magnitude : near_root;
  pair result;
  result.loss = weight * (far ? magnitude - mu : near_magnitude * near_magnitude / (near_root + mu));
  result.derivative = weight * (magnitude > LARGEST ? (difference < 0 ? (real)-1 : (real)1) : difference / root);
  return result;
}
