/* SPDX-License-Identifier: Apache-2.0 */
/* Weights of negatives and exponents, one for each class, beside positive weights and alpha: against the oracle. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/numbers.h"
#include "support/parameters.h"
#include "support/problem.h"

static const int32_t kinds[] = {TARE_LOSS_SIGMOID_CE, TARE_LOSS_SIGMOID_FOCAL};
static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
enum {
  COLUMN_NEGATIVES = 1,
  COLUMN_GAMMAS = 2,
  COLUMN_POSITIVES = 4,
  COLUMN_ALPHAS = 8,
  COLUMN_SETS = 16,
  COLUMN_BACKGROUND = 16
};

/** Exponents of classes: also those that have a loop of their own as a number. */
static double *gammas_of(const problem *p) {
  static const double given[] = {0, 2, 0.5, 1, 1.5, 3.25, 7, 0.01};
  double *gammas = malloc((size_t)p->classes * sizeof *gammas);
  for (int64_t c = 0; c < p->classes; c++) gammas[c] = (double)(float)given[c % 8];
  return gammas;
}

static void add_columns(problem *p, int which) {
  if (which & COLUMN_NEGATIVES) p->negative_weights = random_class_weights(p, 11);
  if (which & COLUMN_BACKGROUND) p->background_negative_weights = random_class_weights(p, 14);
  if (which & COLUMN_POSITIVES) p->positive_weights = random_class_weights(p, 12);
  if (which & COLUMN_GAMMAS && p->loss.kind == TARE_LOSS_SIGMOID_FOCAL) p->gamma_per_class = gammas_of(p);
  if (!(which & COLUMN_ALPHAS)) return;
  p->alpha_per_class = random_class_weights(p, 13);
  for (int64_t c = 0; c < p->classes; c++) p->alpha_per_class[c] = (double)(float)(p->alpha_per_class[c] / 2.2);
}

static const level_shape levels[] = {{5, 3, 2}, {0, 3, 2}, {1, 1, 3}};

static problem *drawn(int32_t kind, int32_t dtype, int64_t classes, int which) {
  problem *p = problem_new_levels(kind, dtype, 2, classes, 3, levels);
  problem_draw_row_weights(p);
  add_columns(p, which);
  p->want |= WANT_CLASS_SUMS;
  return p;
}

Test(columns, labels) {
  static const int64_t classes[] = {1, 3, 8, 81, 91, 1203};
  FOR_EACH_DEVICE(device) {
    for (size_t k = 0; k < 2; k++)
      for (size_t d = 0; d < 4; d++)
        for (int which = 1; which < COLUMN_SETS; which++) {
          if (!device_computes(device, kinds[k], dtypes[d]) || !(which & (COLUMN_NEGATIVES | COLUMN_GAMMAS))) continue;
          problem *p = drawn(kinds[k], dtypes[d], classes[((size_t)which + d) % 6], which);
          CHECK_PROBLEM(p, device);
          problem_free(p);
        }
  }
}

Test(columns, layouts) {
  FOR_EACH_DEVICE(device) {
    for (int layout = 0; layout < 8; layout++) {
      problem *p = drawn(kinds[layout % 2], TARE_DTYPE_F32, layout < 4 ? 7 : 40, COLUMN_SETS - 1);
      p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_GRADIENT].channels_first = layout % 2;
      p->place[ARRAY_LOGITS].phase = layout % 4 / 2;
      p->place[ARRAY_GRADIENT].pad[AXIS_CLASS] = layout / 4;
      if (layout / 2 % 2) p->want &= ~(unsigned)(WANT_ROW_LOSS | WANT_ELEMENT_LOSS);
      problem_draw_element_weights(p);
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

Test(columns, scores_and_targets) {
  FOR_EACH_DEVICE(device) {
    for (size_t k = 0; k < 2; k++)
      for (size_t d = 0; d < 4; d++)
        for (int which = 1; which < COLUMN_SETS; which++) {
          if (!device_computes(device, kinds[k], dtypes[d]) || !(which & (COLUMN_NEGATIVES | COLUMN_GAMMAS))) continue;
          problem *scored = drawn(kinds[k], dtypes[d], 9, which), *dense = drawn(kinds[k], dtypes[d], 9, which);
          scored->slack = dense->slack = dtypes[d] == TARE_DTYPE_F64 ? 1e-13 : 2e-5;
          problem_draw_scores(scored, TARE_DTYPE_F32);
          problem_draw_targets(dense, TARE_DTYPE_F32);
          problem_draw_element_weights(dense);
          dense->place[ARRAY_LOGITS].channels_first = which % 2;
          CHECK_PROBLEM(scored, device);
          CHECK_PROBLEM(dense, device);
          problem_free(scored);
          problem_free(dense);
        }
  }
}

/* Background rows have weights of their own: beside negative weights, or alone. */
Test(columns, background) {
  static const int64_t classes[] = {1, 3, 8, 81, 91, 1203};
  FOR_EACH_DEVICE(device) {
    for (size_t k = 0; k < 2; k++)
      for (size_t d = 0; d < 4; d++)
        for (int which = 0; which < COLUMN_SETS; which++) {
          if (!device_computes(device, kinds[k], dtypes[d])) continue;
          problem *p = drawn(kinds[k], dtypes[d], classes[((size_t)which + d) % (size_t)test_size(6, 5)],
                             which | COLUMN_BACKGROUND);
          p->slack = dtypes[d] == TARE_DTYPE_F64 ? 1e-13 : 2e-5;
          if (which % 3 == 0) problem_draw_scores(p, TARE_DTYPE_F32);
          if (which % 3 == 1) problem_draw_element_weights(p);
          if (which % 3 == 2) p->background_weight = 0.5;
          p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_GRADIENT].channels_first = which / 2 % 2;
          CHECK_PROBLEM(p, device);
          problem_free(p);
        }
  }
}

/* Those that are the negative weights change nothing. */
Test(columns, background_of_all_rows) {
  FOR_EACH_DEVICE(device) {
    for (size_t k = 0; k < 2; k++) {
      problem *p = drawn(kinds[k], TARE_DTYPE_F32, 12, COLUMN_NEGATIVES | COLUMN_POSITIVES);
      outcome *plain = problem_run(p, device);
      p->background_negative_weights = malloc(12 * sizeof(double));
      memcpy(p->background_negative_weights, p->negative_weights, 12 * sizeof(double));
      outcome *got = problem_run(p, device);
      CHECK_OUTCOME(p, got, plain);
      cr_expect_arr_eq(got->gradient, plain->gradient, (size_t)p->rows * 12 * sizeof(double));
      outcome_free(plain);
      outcome_free(got);
      problem_free(p);
    }
  }
}

Test(columns, in_place_and_divided) {
  FOR_EACH_DEVICE(device) {
    for (int32_t normalizer = TARE_NORMALIZER_SUM; normalizer <= TARE_NORMALIZER_WEIGHTS; normalizer++) {
      const int background = normalizer % 2 ? COLUMN_BACKGROUND : 0;
      problem *p = drawn(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 20, (COLUMN_SETS - 1) | background);
      p->in_place = true;
      p->normalizer = normalizer;
      p->gradient_scale = -3;
      p->class_weights = random_class_weights(p, 3);
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* Weights of 1 and exponents of gamma are the loss without them, to rounding. */
Test(columns, ones_change_nothing) {
  FOR_EACH_DEVICE(device) {
    problem *p = drawn(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 12, 0);
    outcome *plain = problem_run(p, device);
    p->negative_weights = malloc(12 * sizeof(double));
    p->gamma_per_class = malloc(12 * sizeof(double));
    for (int c = 0; c < 12; c++) p->negative_weights[c] = 1, p->gamma_per_class[c] = 2;
    outcome *got = problem_run(p, device);
    CHECK_OUTCOME(p, got, plain);
    outcome_free(plain);
    outcome_free(got);
    problem_free(p);
  }
}

/* A weight of 0 leaves nothing of an element, whatever its logit is. */
Test(columns, extremes) {
  static const double extremes[] = {INFINITY, -INFINITY, NAN, 125, -125, 1e30};
  FOR_EACH_DEVICE(device) {
    for (size_t e = 0; e < 6; e++)
      for (int which = 1; which <= 3; which++) {
        problem *p = drawn(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 5, which | COLUMN_POSITIVES);
        for (int64_t row = 0; row < p->rows; row += 2) p->logits[row * 5 + row % 5] = extremes[e];
        if (e % 2) add_columns(p, COLUMN_BACKGROUND);
        if (e % 2) p->background_negative_weights[1] = p->background_negative_weights[4] = 0;
        if (p->negative_weights) p->negative_weights[1] = 0, p->negative_weights[2] = (double)1e-9f;
        p->positive_weights[3] = 0;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
  }
}

Test(columns, refusals) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      if (describe_loss(kind).takes_negative_weights) continue;
      problem *p = problem_new(kind, TARE_DTYPE_F32, 6, 3);
      p->negative_weights = random_class_weights(p, 1);
      CHECK_REFUSED(p, device, TARE_STATUS_UNSUPPORTED, "negative_weights");
    }
    problem *smoothed = drawn(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 3, COLUMN_NEGATIVES);
    smoothed->loss.ce.label_smoothing = 0.1;
    CHECK_REFUSED(smoothed, device, TARE_STATUS_UNSUPPORTED, "negative_weights and loss->label_smoothing");
    problem *dense = drawn(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 3, COLUMN_BACKGROUND);
    problem_draw_targets(dense, TARE_DTYPE_F32);
    CHECK_REFUSED(dense, device, TARE_STATUS_UNSUPPORTED, "batch->background_negative_weights with sigmoid-ce and");
    problem *both = drawn(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 3, COLUMN_BACKGROUND | COLUMN_POSITIVES);
    both->loss.ce.label_smoothing = 0.1;
    both->loss.ce.weighting = TARE_WEIGHTING_TERMS;
    CHECK_REFUSED(both, device, TARE_STATUS_UNSUPPORTED, "background_negative_weights and loss->label_smoothing");
    problem *other = problem_new(TARE_LOSS_SIGMOID_POLY1, TARE_DTYPE_F32, 6, 3);
    other->background_negative_weights = random_class_weights(other, 1);
    CHECK_REFUSED(other, device, TARE_STATUS_UNSUPPORTED, "background_negative_weights");
    problem *focal = drawn(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 3, COLUMN_GAMMAS);
    focal->loss.focal.label_smoothing = 0.1;
    CHECK_REFUSED(focal, device, TARE_STATUS_UNSUPPORTED, "gamma_per_class and label_smoothing");
    static const float gammas[3] = {1, 2, 3};
    problem *row = problem_new(TARE_LOSS_SOFTMAX_FOCAL, TARE_DTYPE_F32, 6, 3);
    row->loss.focal.gamma_per_class = gammas;
    CHECK_REFUSED(row, device, TARE_STATUS_INVALID_ARGUMENT, "gamma_per_class");
  }
}
