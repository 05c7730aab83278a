/* SPDX-License-Identifier: Apache-2.0 */
/* Alphas that the tests of weights share. */
#ifndef TEST_WEIGHTS_H
#define TEST_WEIGHTS_H
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/numbers.h"
#include "support/parameters.h"
#include "support/problem.h"
#include "support/random.h"

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

static inline void set_alpha(problem *p, double alpha) {
  switch (p->loss.kind) {
    case TARE_LOSS_SIGMOID_CE:
      p->loss.ce.alpha = alpha;
      break;
    case TARE_LOSS_SIGMOID_FOCAL:
    case TARE_LOSS_SOFTMAX_FOCAL:
      p->loss.focal.alpha = alpha;
      break;
    case TARE_LOSS_SIGMOID_POLY1:
      p->loss.poly1.alpha = alpha;
      break;
    default:
      break;
  }
}

static inline bool takes_alpha(int32_t kind) { return kind != TARE_LOSS_SOFTMAX_CE && !is_ghm(kind); }

static inline bool takes_alpha_per_class(int32_t kind) {
  tare_parameter_description parameter;
  return find_parameter(kind, "alpha_per_class", &parameter);
}

static inline double *random_alphas(const problem *p) {
  double *alphas = random_class_weights(p, 9);
  for (int64_t c = 0; c < p->classes; c++) alphas[c] = (double)(float)(alphas[c] / 2.2);
  alphas[0] = 0;
  if (p->classes > 1) alphas[1] = 1;
  return alphas;
}

#endif
