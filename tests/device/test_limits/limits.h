/* SPDX-License-Identifier: Apache-2.0 */
/* Gammas and alphas that the tests of limits share. */
#ifndef TEST_LIMITS_H
#define TEST_LIMITS_H
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/problem.h"

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
static const double gammas[] = {0, 0.5, 1, 1.5, 2, 3.7, 5};
enum { DTYPES = sizeof dtypes / sizeof *dtypes, GAMMAS = sizeof gammas / sizeof *gammas };

static inline double alpha_of(const problem *p) {
  switch (p->loss.kind) {
    case TARE_LOSS_SIGMOID_CE:
      return p->loss.ce.alpha;
    case TARE_LOSS_SIGMOID_FOCAL:
    case TARE_LOSS_SOFTMAX_FOCAL:
      return p->loss.focal.alpha;
    default:
      return p->loss.poly1.alpha;
  }
}

static inline bool set_gamma(problem *p, double gamma) {
  switch (p->loss.kind) {
    case TARE_LOSS_SIGMOID_FOCAL:
    case TARE_LOSS_SOFTMAX_FOCAL:
      p->loss.focal.gamma = gamma;
      return true;
    case TARE_LOSS_SIGMOID_POLY1:
      p->loss.poly1.gamma = gamma;
      return true;
    default:
      return gamma == gammas[0]; /* one round for a loss without a power */
  }
}

/* One row of one class each, so that nothing else decides: logits x, label 0 (t = 1) or background (t = 0). */
static inline problem *single_elements(int32_t kind, int32_t dtype, const double *x, int64_t count, int64_t label) {
  problem *p = problem_new(kind, dtype, count, 1);
  memcpy(p->logits, x, (size_t)count * sizeof *x);
  for (int64_t i = 0; i < count; i++) p->labels[i] = label;
  return p;
}

static inline void expect_zeros(problem *p, const test_device *device) {
  for (int32_t normalizer = TARE_NORMALIZER_SUM;
       normalizer <= (is_ghm(p->loss.kind) ? TARE_NORMALIZER_SUM : TARE_NORMALIZER_VALUE); normalizer++) {
    p->normalizer = normalizer;
    outcome *o = problem_run(p, device);
    cr_assert_eq(o->status, TARE_STATUS_OK, "%s: %s", problem_text(p), o->text);
    cr_assert(o->loss == 0, "%s: loss %g", problem_text(p), o->loss);
    for (int64_t i = 0; i < p->rows * p->classes; i++) cr_assert(o->gradient[i] == 0, "gradient %g", o->gradient[i]);
    for (int64_t i = 0; i < p->rows; i++) cr_assert(o->row_loss[i] == 0, "row loss %g", o->row_loss[i]);
    outcome_free(o);
    CHECK_PROBLEM(p, device);
  }
}

#endif
