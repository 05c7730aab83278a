/* SPDX-License-Identifier: Apache-2.0 */
/* Losses whose negatives are not focal's: label smoothing, asymmetric, reduced, star and heatmap focal loss. */
#ifndef TEST_NEGATIVES_H
#define TEST_NEGATIVES_H
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/numbers.h"
#include "support/parameters.h"
#include "support/problem.h"

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
static const double exponents[] = {0, 0.05, 0.5, 1, 1.5, 2, 5, 50};
static const double far_logits[] = {INFINITY, -INFINITY, NAN, 125, -125, 90, -90, 3e4, -3e4, 0, 1e-30, -1e-30, -16, 16};
#define COUNT(array) (sizeof(array) / sizeof *(array))

static inline void set(problem *p, const char *name, double value) {
  tare_parameter_description parameter;
  cr_assert(find_parameter(p->loss.kind, name, &parameter), "%s", name);
  parameter_set(&p->loss, &parameter, value);
}

/* A smoothed gradient is a difference: its error is measured against its operands. */
static inline double slack_of(int32_t dtype) { return dtype == TARE_DTYPE_F64 ? 1e-14 : 2e-6; }

/* Far out in both columns; labels of class 1, then none. */
static inline problem *far_out(int32_t kind, int32_t dtype) {
  problem *p = problem_new(kind, dtype, 2 * (int64_t)COUNT(far_logits), 2);
  for (int64_t row = 0; row < p->rows; row++) {
    p->logits[2 * row] = p->logits[2 * row + 1] = round_to_dtype(dtype, far_logits[row % (int64_t)COUNT(far_logits)]);
    p->labels[row] = row < (int64_t)COUNT(far_logits) ? 1 : -1;
  }
  p->want &= ~(unsigned)WANT_LOSS;
  return p;
}

/* Every output, then the gradient alone, to which a GPU has a shorter way. Frees the problem. */
static inline void check(problem *p, const test_device *device) {
  const unsigned losses = WANT_ROW_LOSS | WANT_ELEMENT_LOSS;
  CHECK_PROBLEM(p, device);
  p->want &= ~losses;
  CHECK_PROBLEM(p, device);
  problem_free(p);
}

/* Near and far. `set_up` sets the parameters of a loss by a number. */
static inline void check_both(int32_t kind, int32_t dtype, size_t n, void (*set_up)(problem *, size_t), double slack,
                              const test_device *device) {
  problem *near = problem_new(kind, dtype, test_size(240, 40), 19), *far = far_out(kind, dtype);
  near->slack = far->slack = slack;
  set_up(near, n);
  set_up(far, n);
  if (named_parameter(&near->loss, "gamma", named_parameter(&near->loss, "gamma_negative", 0)) > 5)
    near->want &= ~(unsigned)WANT_LOSS; /* whose error grows with gamma */
  check(near, device);
  check(far, device);
}

#endif
