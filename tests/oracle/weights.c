/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Class-balanced weights: the effective number of samples (arXiv 1901.05555, eq. 2) and the weights made of it.
 */
#include <math.h>

#include "oracle.h"

static long double effective_number(long double n, double beta) {
  if (n == 0) return 0;
  if (beta == 0) return 1;
  long double rest = 1 - (long double)beta;
  return -expm1l(n * log1pl(-rest)) / rest;
}

double oracle_effective_number(double n, double beta) { return (double)effective_number(n, beta); }

void oracle_class_balanced(int64_t classes, const int64_t *counts, double beta, const double *beta_per_class,
                           double *weights) {
  long double sum = 0;
  int64_t present = 0;
  for (int64_t c = 0; c < classes; ++c) {
    if (counts[c] == 0) continue;
    sum += 1 / effective_number((long double)counts[c], beta_per_class ? beta_per_class[c] : beta);
    present += 1;
  }
  for (int64_t c = 0; c < classes; ++c) {
    long double number = effective_number((long double)counts[c], beta_per_class ? beta_per_class[c] : beta);
    weights[c] = counts[c] == 0 ? 0 : (double)((long double)present / (number * sum));
  }
}
