/* SPDX-License-Identifier: Apache-2.0 */
/* Problems with scores, and their settings. */
#ifndef TEST_SCORES_H
#define TEST_SCORES_H
#include <criterion/criterion.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/boxes.h"
#include "support/head.h"
#include "support/numbers.h"
#include "support/parameters.h"
#include "support/problem.h"

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
#define COUNT(array) (sizeof(array) / sizeof *(array))

#define FOR_EACH_SCORED_LOSS(kind) FOR_EACH_LOSS(kind) if (takes_scores(kind))

/* Near p = q the gradient cancels: its error is measured against its operands. */
static inline double slack_of(int32_t dtype) { return dtype == TARE_DTYPE_F64 ? 1e-14 : 2e-6; }

static inline problem *scored(int32_t kind, int32_t dtype, int32_t score_dtype, int64_t rows, int64_t classes) {
  problem *p = problem_new(kind, dtype, rows, classes);
  problem_draw_scores(p, score_dtype);
  p->slack = slack_of(dtype);
  return p;
}

static inline void set_alpha(problem *p, double alpha) {
  tare_parameter_description parameter;
  if (find_parameter(p->loss.kind, "alpha", &parameter)) parameter_set(&p->loss, &parameter, alpha);
}

static inline void set_if(problem *p, const char *name, double value) {
  tare_parameter_description parameter;
  if (find_parameter(p->loss.kind, name, &parameter)) parameter_set(&p->loss, &parameter, value);
}

static inline void set_exponent(problem *p, double exponent) {
  set_if(p, "gamma", exponent);
  set_if(p, "beta", exponent);
}

/* Each choice and each exponent that a loss has, by a number. */
static inline void set_dialect(problem *p, size_t n) {
  set_if(p, "modulator", (double)(n % 2));
  set_if(p, "positives", (double)(n / 2 % 2));
  set_if(p, "p_exponent", (double)(n % 3) / 2);
}

static inline double most_alpha(int32_t kind) {
  tare_parameter_description alpha;
  return find_parameter(kind, "alpha", &alpha) ? alpha.high : 0;
}

#endif
