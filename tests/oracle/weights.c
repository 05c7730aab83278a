/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Class-balanced weights: the effective number of samples (arXiv 1901.05555, eq. 2) and the weights made of it; and the
 * offsets of logit adjustment (arXiv 2007.07314, eq. 10).
 */
#include <math.h>
#include <stdlib.h>

#include "oracle.h"

static long double effective_number(long double n, double beta) {
  if (n == 0) return 0;
  if (beta == 0) return 1;
  return -expm1l(n * logl((long double)beta)) / (1 - (long double)beta);
}

double oracle_effective_number(double n, double beta) { return (double)effective_number(n, beta); }

/* Weights of the classes by their effective numbers; 0 where there are none. */
static void balance(int64_t classes, const long double *numbers, double *weights) {
  long double sum = 0;
  int64_t present = 0;
  for (int64_t c = 0; c < classes; ++c) {
    if (numbers[c] == 0) continue;
    sum += 1 / numbers[c];
    present += 1;
  }
  for (int64_t c = 0; c < classes; ++c) {
    weights[c] = numbers[c] == 0 ? 0 : (double)((long double)present / (numbers[c] * sum));
  }
}

void oracle_class_balanced(int64_t classes, const int64_t *counts, double beta, const double *beta_per_class,
                           double *weights) {
  long double *numbers = calloc((size_t)classes, sizeof *numbers);
  for (int64_t c = 0; c < classes; ++c) {
    numbers[c] = effective_number((long double)counts[c], beta_per_class ? beta_per_class[c] : beta);
  }
  balance(classes, numbers, weights);
  free(numbers);
}

void oracle_class_balanced_real(int64_t classes, const double *counts, double beta, const double *beta_per_class,
                                double *weights) {
  long double *numbers = calloc((size_t)classes, sizeof *numbers);
  for (int64_t c = 0; c < classes; ++c) {
    numbers[c] = effective_number((long double)counts[c], beta_per_class ? beta_per_class[c] : beta);
  }
  balance(classes, numbers, weights);
  free(numbers);
}

void oracle_ldam_margins(int64_t classes, const double *counts, double max_margin, double *margins) {
  double least = INFINITY;
  for (int64_t c = 0; c < classes; ++c) least = fmin(least, counts[c] == 0 ? 1 : counts[c]);
  for (int64_t c = 0; c < classes; ++c) {
    long double n = counts[c] == 0 ? 1 : counts[c];
    margins[c] = (double)(max_margin * expl((logl(least) - logl(n)) / 4));
  }
}

void oracle_logit_adjustment(int64_t classes, const double *counts, double tau, double *offset) {
  for (int64_t c = 0; c < classes; ++c) {
    long double of_class = counts[c] == 0 ? 1 : counts[c], others = 0;
    for (int64_t k = 0; k < classes; ++k) {
      if (k != c) others += counts[k] == 0 ? 1 : counts[k];
    }
    offset[c] = (double)-(tau * log1pl(others / of_class)); /* n/(n+m) = 1/(1+m/n) */
  }
}
