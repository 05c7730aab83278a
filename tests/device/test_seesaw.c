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

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
static const int64_t widths[] = {1, 2, 3, 15, 16, 81, 91, 130, 1203, 2100, 17000};
enum { DTYPES = sizeof dtypes / sizeof *dtypes, WIDTHS = sizeof widths / sizeof *widths };

enum manner { FLAT, IN_PLACE, PLANES, PADDED, MANNERS };

static problem *problem_of(int32_t dtype, int64_t classes, enum manner manner) {
  const level_shape shape = {.height = classes > 1000 ? 3 : test_size(70, 35), .width = 2, .anchors = 1};
  problem *p = problem_new_levels(TARE_LOSS_SOFTMAX_SEESAW, dtype, 1, classes, 1, &shape);
  problem_draw_labels(p, 0.8, 0.1);
  p->in_place = manner == IN_PLACE;
  for (int a = 0; a < ARRAY_KINDS; a++) {
    p->place[a].channels_first = manner == PLANES;
    if (manner == PADDED) p->place[a].pad[AXIS_CLASS] = p->place[a].pad[AXIS_X] = 3;
  }
  return p;
}

Test(seesaw, every_width) {
  FOR_EACH_DEVICE(device) {
    for (int d = 0; d < DTYPES; d++) {
      for (int w = 0; w < WIDTHS; w++) {
        for (int manner = FLAT; manner < MANNERS; manner++) {
          problem *p = problem_of(dtypes[d], widths[w], (enum manner)manner);
          CHECK_PROBLEM(p, device);
          problem_free(p);
        }
      }
    }
  }
}

Test(seesaw, every_factor) {
  static const double ps[] = {0, 0.8, 3}, qs[] = {0, 0.5, 2, 7}, epsilons[] = {1, 0.01, 1e-12};
  FOR_EACH_DEVICE(device) {
    for (int way = 0; way < 72; way++) {
      problem *p = problem_of(dtypes[way % 4], way % 2 ? 91 : 7, way % 5 ? FLAT : PLANES);
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
    for (int d = 0; d < DTYPES; d++) {
      problem *p = problem_of(dtypes[d], 81, FLAT), *plain = problem_new(TARE_LOSS_SOFTMAX_CE, dtypes[d], p->rows, 81);
      p->loss.seesaw.p = p->loss.seesaw.q = 0;
      for (int64_t i = 0; i < p->rows * 81; i++) plain->logits[i] = p->logits[i];
      for (int64_t i = 0; i < p->rows; i++) plain->labels[i] = p->labels[i];
      outcome *got = problem_run(p, device), *want = problem_run(plain, device);
      CHECK_SAME_OUTCOME(p, got, want);
      outcome_free(got);
      outcome_free(want);
      problem_free(p);
      problem_free(plain);
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
      problem *p = problem_new(TARE_LOSS_SOFTMAX_SEESAW, dtypes[way % 4], ROWS, 3);
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
