/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of twice the precision of double: sums of two doubles, where the second is the rounding error of the first.
 * They need only double arithmetic and fma, so results do not depend on a platform's long double. A value that two
 * doubles can hold is exact; else the error is about 2^-104 of the number. */
#ifndef TARE_LOSSES_TWOFOLD_H
#define TARE_LOSSES_TWOFOLD_H

#include <math.h>

typedef struct tare_twofold {
  double hi, lo; /* hi is hi + lo rounded */
} tare_twofold;

static inline tare_twofold tare_twofold_sum(double a, double b) {
  const double sum = a + b, of_b = sum - a;
  return (tare_twofold){sum, (a - (sum - of_b)) + (b - of_b)};
}

static inline tare_twofold tare_twofold_product(double a, double b) {
  const double product = a * b;
  return (tare_twofold){product, fma(a, b, -product)};
}

static inline tare_twofold tare_twofold_times(tare_twofold a, tare_twofold b) {
  const tare_twofold whole = tare_twofold_product(a.hi, b.hi);
  return tare_twofold_sum(whole.hi, whole.lo + (a.hi * b.lo + a.lo * b.hi));
}

/** a/b: the quotient in double, corrected by its remainder, which is exact. */
static inline tare_twofold tare_twofold_quotient(tare_twofold a, tare_twofold b) {
  const double quotient = a.hi / b.hi;
  const double rest = fma(-quotient, b.hi, a.hi) + (a.lo - quotient * b.lo);
  return tare_twofold_sum(quotient, rest / b.hi);
}

static inline tare_twofold tare_twofold_root(tare_twofold a) {
  const double root = sqrt(a.hi);
  const double rest = fma(-root, root, a.hi) + a.lo;
  return tare_twofold_sum(root, rest / (2 * root));
}

/** e^x for |x| <= 7: the series of x/256, squared eight times. */
static inline tare_twofold tare_twofold_exp(double x) {
  const tare_twofold part = {x / 256, 0};
  tare_twofold power = {1, 0};
  for (int n = 14; n > 0; n--) { /* (7/256)^15/15! is 2^-118 */
    const tare_twofold term = tare_twofold_quotient(tare_twofold_times(part, power), (tare_twofold){n, 0});
    const tare_twofold sum = tare_twofold_sum(1, term.hi);
    power = tare_twofold_sum(sum.hi, sum.lo + term.lo);
  }
  for (int i = 0; i < 8; i++) power = tare_twofold_times(power, power);
  return power;
}

/** The first double, and the first float, that is not below a number. */
static inline double tare_first_double(tare_twofold at_least) {
  return at_least.lo > 0 ? nextafter(at_least.hi, (double)INFINITY) : at_least.hi;
}

static inline float tare_first_float(tare_twofold at_least) {
  const float nearest = (float)at_least.hi;
  const double rest = (double)nearest - at_least.hi; /* exact */
  return rest < at_least.lo ? nextafterf(nearest, INFINITY) : nearest;
}

#endif
