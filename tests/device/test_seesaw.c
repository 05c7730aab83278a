/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seesaw loss: every width and layout by the oracle, the oracle by the paper's products, and rows at the ends. What
 * holds for every loss is tested for this one by the tests that go over all of them.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "support/problem.h"
#include "support/random.h"
#include "support/softmax_rows.h"

static problem *problem_of(int32_t dtype, int64_t classes, enum manner manner) {
  return softmax_problem(TARE_LOSS_SOFTMAX_SEESAW, dtype, classes, manner);
}

Test(seesaw, every_width) { FOR_EACH_DEVICE(device) check_softmax_widths(TARE_LOSS_SOFTMAX_SEESAW, device); }

Test(seesaw, every_factor) {
  static const double ps[] = {0, 0.8, 3}, qs[] = {0, 0.5, 2, 7}, epsilons[] = {1, 0.01, 1e-12};
  FOR_EACH_DEVICE(device) {
    for (int way = 0; way < 72; way++) {
      problem *p = problem_of(softmax_dtypes[way % 4], way % 2 ? 91 : 7, way % 5 ? FLAT : PLANES);
      p->loss.seesaw.p = ps[way % 3];
      p->loss.seesaw.q = qs[way / 3 % 4];
      p->loss.seesaw.epsilon = epsilons[way / 12 % 3];
      if (way >= 60) free(p->log_counts), p->log_counts = NULL;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* Without factors the bits of softmax cross-entropy, where both go the same way through memory. */
Test(seesaw, no_factors_are_softmax_ce) {
  FOR_EACH_DEVICE(device) {
    if (device->kind != TARE_DEVICE_CPU) continue;
    for (int d = 0; d < SOFTMAX_DTYPES; d++) {
      problem *p = problem_of(softmax_dtypes[d], 81, FLAT);
      p->loss.seesaw.p = p->loss.seesaw.q = 0;
      check_is_softmax_ce(p, device);
    }
  }
}

/* S_j = min(1,(n_j/n_y)^p)*max(1,(s_j/max(s_y,eps))^q), as equations 4 to 6 have it; -log(e_y/(e_y + sum S_j*e_j)). */
static double literal_row(const double *x, const double *n, int classes, int y, const double by[3], double *dx) {
  double all = 0, weighted = exp(x[y]);
  for (int j = 0; j < classes; j++) all += exp(x[j]);
  for (int j = 0; j < classes; j++) {
    const double mitigation = fmin(1, pow(n[j] / n[y], by[0]));
    const double compensation = fmax(1, pow(exp(x[j]) / all / fmax(exp(x[y]) / all, by[2]), by[1]));
    dx[j] = j == y ? exp(x[y]) : mitigation * compensation * exp(x[j]);
    if (j != y) weighted += dx[j];
  }
  for (int j = 0; j < classes; j++) dx[j] = dx[j] / weighted - (j == y);
  return log(weighted) - x[y];
}

Test(seesaw, the_oracle_is_the_papers_formula) {
  enum { CLASSES = 9 };
  random_source source = random_from(5);
  for (int i = 0; i < 2000; i++) {
    double x[CLASSES], n[CLASSES], logs[CLASSES], want_dx[CLASSES], dx[CLASSES];
    const double by[3] = {2 * random_uniform(&source), 4 * random_uniform(&source), i % 2 ? 0.01 : 0.3};
    for (int j = 0; j < CLASSES; j++) {
      x[j] = 3 * random_normal(&source);
      n[j] = 1 + floor(exp(9 * random_uniform(&source)));
      logs[j] = log(n[j]);
    }
    const double want = literal_row(x, n, CLASSES, i % CLASSES, by, want_dx);
    const double got = oracle_seesaw_row(CLASSES, x, logs, i % CLASSES, by, dx);
    cr_assert_float_eq(got, want, 1e-12 * (1 + want));
    for (int j = 0; j < CLASSES; j++) cr_assert_float_eq(dx[j], want_dx[j], 1e-12);
  }
}

/* ---- The ends ---------------------------------------------------------------------------------------------------- */

#define NOTHING (-INFINITY)

Test(seesaw, ends) {
  static const double rows[][3] = {{NOTHING, 0, 1}, {INFINITY, 0, 1},  {0, INFINITY, 1},       {0, NOTHING, NOTHING},
                                   {0, NAN, 1},     {-125, 125, 0},    {125, -125, -125},      {NOTHING, NOTHING, 0},
                                   {0, 0, 0},       {-90, NOTHING, 3}, {INFINITY, NOTHING, 0}, {0, INFINITY, INFINITY}};
  enum { ROWS = sizeof rows / sizeof *rows };
  FOR_EACH_DEVICE(device) {
    for (int way = 0; way < 16; way++) {
      problem *p = problem_new(TARE_LOSS_SOFTMAX_SEESAW, softmax_dtypes[way % 4], ROWS, 3);
      for (int i = 0; i < ROWS * 3; i++) p->logits[i] = rows[i / 3][i % 3];
      for (int i = 0; i < ROWS; i++) p->labels[i] = 0;
      if (way / 4 == 1) p->loss.seesaw.p = 0;
      if (way / 4 == 2) p->loss.seesaw.q = 0;
      if (way / 4 == 3) p->log_counts[1] = NOTHING; /* left out */
      p->want &= ~(unsigned)WANT_LOSS;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* Rows that are ignored, or of no class, get zeros over NaN. */
Test(seesaw, rows_that_add_nothing) {
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
