/* SPDX-License-Identifier: Apache-2.0 */
/* The effective number of samples (Cui et al., arXiv 1901.05555, eq. 2). */
#ifndef TARE_LOSSES_EFFECTIVE_NUMBER_H
#define TARE_LOSSES_EFFECTIVE_NUMBER_H

#include <math.h>

/** E_n = (1-beta^n)/(1-beta), divided by `unit`, a power of 2. With beta near 1 the formula as written leaves rounding
 *  error alone; expm1 does not. Below 2^-60 expm1(x) is x. There n is divided first, so that no tiny n underflows. */
static inline double tare_effective_number_in(double n, double beta, double unit) {
  if (n == 0.0) return 0.0;
  if (beta == 0.0) return 1.0 / unit;
  const double exponent = n * log(beta);
  if (exponent > -0x1p-60) return n / unit * (log(beta) / (beta - 1.0));
  return -expm1(exponent) / (1.0 - beta) / unit;
}

#endif
