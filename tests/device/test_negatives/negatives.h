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

/* What lies where, and what is wanted, by a number. */
static inline void lay_out(problem *p, size_t way) {
  p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_GRADIENT].channels_first = way & 1;
  p->place[ARRAY_LOGITS].phase = way % 5 == 0 ? 3 : 0;
  p->image_major = (way & 2) != 0;
  p->in_place = way % 3 == 0;
  p->normalizer = (int32_t)way % 4;
  if (way % 7 == 0) problem_draw_row_weights(p);
  if (way & 8) p->want = WANT_LOSS | WANT_GRADIENT | WANT_COUNTS;
  if (way & 16) p->want |= WANT_CLASS_SUMS;
}

/* Of softmax rows. Frees the problem. */
static inline void check_in_layout(problem *p, size_t way, const test_device *device) {
  lay_out(p, way);
  if (way % 7 == 2) p->class_weights = random_class_weights(p, 2);
  CHECK_PROBLEM(p, device);
  problem_free(p);
}

/* Each number at the label, then at another class; and softmax rows of one number. */
static inline void put_far_rows(problem *p) {
  for (int64_t row = 0; row < p->rows; row++) {
    const double x = round_to_dtype(p->dtype, far_logits[row / 3 % (int64_t)COUNT(far_logits)]);
    double *const logits = p->logits + row * p->classes;
    p->labels[row] = (row % 2) * (p->classes - 1);
    for (int64_t c = 0; c < p->classes && row % 3 == 2; c++) logits[c] = x;
    if (row % 3 < 2) logits[row % 3 ? 1 : p->labels[row]] = x;
  }
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
