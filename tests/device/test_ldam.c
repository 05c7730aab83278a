/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LDAM: every width, layout and scale by the oracle, the oracle by the formula as it is printed, rows at the ends, and
 * margins from counts. What holds for every loss is tested for this one by the tests that go over all of them.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "support/head.h"
#include "support/numbers.h"
#include "support/problem.h"
#include "support/random.h"
#include "support/softmax_rows.h"

static problem *problem_of(int32_t dtype, int64_t classes, enum manner manner) {
  return softmax_problem(TARE_LOSS_SOFTMAX_LDAM, dtype, classes, manner);
}

Test(ldam, every_width) { FOR_EACH_DEVICE(device) check_softmax_widths(TARE_LOSS_SOFTMAX_LDAM, device); }

/* A scale that no float holds is rounded. Of large ones most gradients are 0. */
Test(ldam, every_scale) {
  static const double scales[] = {1e-6, 0.07, 1, 16.3, 30, 64, 1000, 1e6};
  FOR_EACH_DEVICE(device) {
    for (int way = 0; way < 64; way++) {
      problem *p = problem_of(softmax_dtypes[way % 4], way % 3 ? 91 : 7, way % 5 ? FLAT : PLANES);
      p->loss.ldam.scale = scales[way / 4 % 8];
      p->drawn = true;
      p->normalizer = TARE_NORMALIZER_WEIGHTS;
      if (way % 3 == 1) p->class_weights = random_class_weights(p, 1);
      if (way % 7 == 6) free(p->margins), p->margins = NULL;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* Rows whose z lies far from 0 and whose classes lie close together: rounding z would show. */
Test(ldam, nothing_is_rounded_to_an_ulp_of_z) {
  FOR_EACH_DEVICE(device) {
    for (int manner = FLAT; manner <= PLANES; manner++) {
      problem *p = problem_of(TARE_DTYPE_F32, 20, (enum manner)manner);
      p->loss.ldam.scale = 1e6;
      for (int64_t i = 0; i < p->rows * p->classes; i++) p->logits[i] = (double)(1 - (float)(i * 7 % 23) * 0x1p-24f);
      for (int64_t c = 0; c < p->classes; c++) p->margins[c] = (double)((float)(c % 3) * 0x1p-22f);
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* Without margins and with scale 1 the bits of softmax cross-entropy. */
Test(ldam, no_margins_are_softmax_ce) {
  FOR_EACH_DEVICE(device) {
    if (device->kind != TARE_DEVICE_CPU) continue;
    for (int d = 0; d < SOFTMAX_DTYPES; d++) {
      problem *p = problem_of(softmax_dtypes[d], 81, FLAT);
      p->loss.ldam.scale = 1;
      free(p->margins), p->margins = NULL;
      check_is_softmax_ce(p, device);
    }
  }
}

/* The authors' LDAMLoss, written down: x_m = x - margin_y*onehot, cross_entropy(s*x_m). */
static long double authors_loss(int64_t classes, const double *x, const double *margins, double s, int64_t y) {
  long double sum = 0;
  for (int64_t j = 0; j < classes; j++) sum += expl(s * (x[j] - (j == y ? margins[j] : 0.0L)));
  return logl(sum) - s * ((long double)x[y] - margins[y]);
}

Test(ldam, the_oracle_is_the_authors_formula) {
  enum { CLASSES = 5 };
  random_source random = random_from(41);
  double x[CLASSES], margins[CLASSES], dx[CLASSES], counts[CLASSES];
  for (int i = 0; i < 2000; i++) {
    for (int c = 0; c < CLASSES; c++) {
      x[c] = 2 * random_uniform(&random) - 1;
      counts[c] = 1 + (double)random_below(&random, 5000);
    }
    oracle_ldam_margins(CLASSES, counts, 0.5, margins);
    const int64_t y = i % CLASSES;
    const double got = oracle_ldam_row(CLASSES, x, margins, 30, y, dx),
                 want = (double)authors_loss(5, x, margins, 30, y);
    cr_assert(fabs(got - want) <= 1e-12 * fabs(want) + 1e-16, "row %d: got %.17g, want %.17g", i, got, want);
    for (int c = 0; c < CLASSES; c++) {
      const double kept = x[c], step = 1e-6;
      x[c] = kept + step;
      const long double above = authors_loss(5, x, margins, 30, y);
      x[c] = kept - step;
      const double slope = (double)((above - authors_loss(5, x, margins, 30, y)) / (2 * step));
      x[c] = kept;
      cr_assert(fabs(dx[c] - slope) <= 1e-6, "row %d class %d: got %.17g, want %.17g", i, c, dx[c], slope);
    }
  }
}

#define NOTHING (-INFINITY)

/* The label is class 0. Class 1 is left out in the last way. */
Test(ldam, ends) {
  static const double rows[][3] = {
      {INFINITY, 1, 2},      {1, INFINITY, 2},  {1, INFINITY, INFINITY}, {INFINITY, INFINITY, 1},
      {NOTHING, 1, 2},       {1, NOTHING, 2},   {1, NOTHING, NOTHING},   {NOTHING, NOTHING, NOTHING},
      {NAN, 1, 2},           {1, 2, NAN},       {32768, -32768, -32768}, {-32768, 32768, 0},
      {NOTHING, NOTHING, 0}, {0, NOTHING, NAN}, {0, NOTHING, INFINITY},  {0, 0, 0}};
  enum { ROWS = sizeof rows / sizeof *rows };
  FOR_EACH_DEVICE(device) {
    for (int way = 0; way < 32; way++) {
      const level_shape shape = {.height = 1, .width = ROWS, .anchors = 1};
      problem *p = problem_new_levels(TARE_LOSS_SOFTMAX_LDAM, softmax_dtypes[way % 4], 1, 3, 1, &shape);
      for (int64_t i = 0; i < ROWS * 3; i++) p->logits[i] = rows[i / 3][i % 3];
      for (int i = 0; i < ROWS; i++) p->labels[i] = 0;
      if (way / 4 % 4 == 1) p->loss.ldam.scale = 1;
      if (way / 4 % 4 == 2) free(p->margins), p->margins = NULL;
      if (way / 4 % 4 == 3) p->margins[1] = INFINITY;
      for (int a = 0; a < ARRAY_KINDS; a++) p->place[a].channels_first = way >= 16;
      p->want &= ~(unsigned)WANT_LOSS;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* What no float holds is infinite, and no NaN. */
Test(ldam, a_loss_beyond_the_type) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_SOFTMAX_LDAM, TARE_DTYPE_F32, 1, 3);
    const double x[] = {-3e38, 3e38, -3e38};
    for (int c = 0; c < 3; c++) p->logits[c] = (double)(float)x[c];
    p->labels[0] = 0;
    outcome *o = problem_run(p, device);
    cr_assert_eq(o->row_loss[0], INFINITY, "%g", o->row_loss[0]);
    cr_assert(o->gradient[0] == -30 && o->gradient[1] == 30 && o->gradient[2] == 0, "%g %g %g", o->gradient[0],
              o->gradient[1], o->gradient[2]);
    outcome_free(o);
    problem_free(p);
  }
}

/* Rows that are ignored, or of no class, get zeros over NaN. */
Test(ldam, rows_that_add_nothing) {
  FOR_EACH_DEVICE(device) {
    for (int manner = FLAT; manner < MANNERS; manner++) {
      problem *p = problem_of(TARE_DTYPE_F32, 20, (enum manner)manner);
      for (int64_t i = 0; i < p->rows * p->classes; i++)
        if (p->labels[i / p->classes] < 0) p->logits[i] = NAN;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* ---- The fused head ---------------------------------------------------------------------------------------------- */

/* To length 1, but for rounding. */
static void normalize(int32_t dtype, double *values, int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < rows; i++) {
    double square = 0;
    for (int64_t c = 0; c < columns; c++) square += values[i * columns + c] * values[i * columns + c];
    for (int64_t c = 0; c < columns; c++)
      values[i * columns + c] = round_to_dtype(dtype, values[i * columns + c] / sqrt(square + 1e-30));
  }
}

/* A classifier of cosines. Its logits round, and the scale multiplies what they lose. */
Test(ldam, head_of_cosines) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    for (int way = 0; way < 6; way++) {
      problem *p = head_problem(TARE_LOSS_SOFTMAX_LDAM, way % 3, test_size(300, 90), 60, 64);
      free(p->head->bias), p->head->bias = NULL;
      normalize(p->head->dtype, p->head->features, p->rows, 64);
      normalize(p->head->dtype, p->head->weights, 60, 64);
      head_multiply(p);
      if (way == 4) p->margins[p->labels[0] == 7 ? 8 : 7] = INFINITY;
      for (int64_t i = 0; i < p->rows; i++)
        if (p->labels[i] >= 0 && p->margins[p->labels[i]] == INFINITY) p->labels[i] = 9;
      p->head->room = way / 3 ? 0 : 0.5;
      p->class_weights = random_class_weights(p, 2);
      p->normalizer = TARE_NORMALIZER_WEIGHTS;
      p->want = WANT_GRADIENT | WANT_COUNTS;
      p->slack = 2e-6;
      CHECK_PROBLEM(p, device);
      p->want = WANT_LOSS;
      outcome *got = problem_run(p, device), *want = problem_expect(p);
      CHECK_NEAR(problem_text(p), got->loss, want->loss, ((tolerance){0, 1e-5}));
      outcome_free(got);
      outcome_free(want);
      problem_free(p);
    }
  }
}

/* ---- Margins ----------------------------------------------------------------------------------------------------- */

Test(ldam, margins_from_counts) {
  static const double sets[][5] = {{1169, 90, 28, 5, 1}, {7, 7, 7, 7, 7},          {0, 0, 0, 0, 0},
                                   {0, 500, 0, 3, 0},    {1e15, 1, 0, 0, 2},       {0.3, 0.2, 0.1, 0.35, 0.05},
                                   {1e308, 1, 1, 1, 1},  {1e300, 1e-300, 1, 1, 3}, {5e-324, 1e-323, 5e-324, 1, 2}};
  for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
    float got[5];
    double want[5];
    cr_assert_eq(tare_ldam_margins(5, sets[s], 0.5, TARE_EMPTY_CLASSES_COUNT_ONE, got), TARE_STATUS_OK, "%s",
                 tare_error_text(NULL));
    oracle_ldam_margins(5, sets[s], 0.5, want);
    for (int c = 0; c < 5; c++)
      cr_assert(fabs((double)got[c] - want[c]) <= 0x1.001p-24 * want[c] + 0x1p-150, "set %d class %d: %.9g, want %.17g",
                (int)s, c, (double)got[c], want[c]);
  }
}

Test(ldam, margins_of_excluded_classes) {
  float got[4];
  cr_assert_eq(tare_ldam_margins(4, (const double[]){0, 16, 0.25, 0}, 2, TARE_EMPTY_CLASSES_EXCLUDED, got),
               TARE_STATUS_OK);
  cr_assert(got[0] == INFINITY && got[3] == INFINITY && got[2] == 2.0f, "%g %g %g", got[0], got[3], got[2]);
  cr_assert_float_eq(got[1], 2 / sqrt(8), 1e-7, "%g", got[1]);
}
