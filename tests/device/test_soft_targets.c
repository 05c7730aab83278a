/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dense targets: any t in [0,1] in every type for the sigmoid losses and GHM-C, rows of non-negative numbers for
 * softmax cross-entropy; exact 0 and 1 are hard targets; labels beside them mark ignored rows and nothing else.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/numbers.h"
#include "support/problem.h"
#include "support/random.h"

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))
enum { DTYPES = COUNT(dtypes) };

/* Near p = t the gradient p - t cancels, so its error is measured against the operands. */
static double slack_of(int32_t dtype) { return dtype == TARE_DTYPE_F64 ? 1e-14 : 2e-6; }

static problem *soft_problem(int32_t kind, int32_t dtype, int32_t target_dtype, int64_t rows, int64_t classes) {
  problem *p = problem_new(kind, dtype, rows, classes);
  problem_draw_targets(p, target_dtype);
  free(p->labels);
  p->labels = NULL;
  p->slack = slack_of(dtype);
  return p;
}

/* With soft targets a norm within rounding of an edge may fall on either side: leave such elements out of the logits
 * by moving them away. */
static void keep_off_edges(problem *p) {
  for (int64_t i = 0; i < p->rows * p->classes; i++) {
    const double place = oracle_ghm_c_norm(p->logits[i], p->targets[i]) * p->loss.ghm.bins;
    if (fabs(place - nearbyint(place)) < 1e-3) p->logits[i] = round_to_dtype(p->dtype, p->logits[i] + 0.25);
  }
}

Test(soft_targets, every_type) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES && takes_targets(kind); d++) {
        for (size_t t = 0; t < DTYPES; t++) {
          problem *p = soft_problem(kind, dtypes[d], dtypes[t], test_size(400, 50), 13);
          if (is_ghm(kind)) keep_off_edges(p);
          CHECK_PROBLEM(p, device);
          problem_free(p);
        }
      }
    }
  }
}

Test(soft_targets, every_power) {
  static const double gammas[] = {0, 0.5, 1, 1.5, 2, 3.7, 5};
  static const double alphas[] = {-1, 0.25};
  FOR_EACH_DEVICE(device) {
    for (size_t g = 0; g < sizeof gammas / sizeof *gammas; g++) {
      for (size_t a = 0; a < 2; a++) {
        problem *focal = soft_problem(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, TARE_DTYPE_F32, test_size(500, 50), 9);
        focal->loss.focal.gamma = gammas[g];
        focal->loss.focal.alpha = alphas[a];
        CHECK_PROBLEM(focal, device);
        problem_free(focal);
        problem *poly = soft_problem(TARE_LOSS_SIGMOID_POLY1, TARE_DTYPE_F64, TARE_DTYPE_F32, test_size(500, 50), 9);
        poly->loss.poly1.gamma = gammas[g];
        poly->loss.poly1.alpha = alphas[a];
        CHECK_PROBLEM(poly, device);
        problem_free(poly);
      }
    }
  }
}

Test(soft_targets, sizes) {
  static const int64_t classes[] = {1, 2, 3, 16, 17, 80, 81, 1203, 20011};
  static const int64_t rows[] = {1, 2, 17};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t c = 0; c < sizeof classes / sizeof *classes && takes_targets(kind); c++) {
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
          if (rows[r] * classes[c] > test_size(1000000, 30000)) continue;
          problem *p = soft_problem(kind, TARE_DTYPE_F32, TARE_DTYPE_F16, rows[r], classes[c]);
          if (is_ghm(kind)) keep_off_edges(p);
          CHECK_PROBLEM(p, device);
          problem_free(p);
        }
      }
    }
  }
}

/* ---- Exact 0 and 1 --------------------------------------------------------------------------------------------- */

/* One-hot targets of the labels; an ignored row stays in the labels. */
static void targets_from_labels(problem *p) {
  p->targets = calloc((size_t)(p->rows * p->classes), sizeof *p->targets);
  for (int64_t row = 0; row < p->rows; row++) {
    if (p->labels[row] >= 0) p->targets[row * p->classes + p->labels[row]] = 1;
  }
}

Test(soft_targets, zeros_and_ones_are_hard) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES && takes_targets(kind); d++) {
        problem *p = problem_new(kind, dtypes[d], test_size(300, 60), 17);
        p->want &= ~(unsigned)WANT_COUNTS;                      /* without labels there are no positives to count */
        if (is_softmax(kind)) problem_draw_labels(p, 0.9, 0.1); /* a row of zeros is no softmax background */
        outcome *hard = problem_run(p, device);
        cr_assert_eq(hard->status, TARE_STATUS_OK, "%s", hard->text);
        targets_from_labels(p);
        outcome *soft = problem_run(p, device);
        /* Same formulas, possibly another loop: as near as one formula is to itself. */
        CHECK_OUTCOME(p, soft, hard);
        outcome_free(hard);
        outcome_free(soft);
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* Where a hard target is confident, the tiny value survives: x = -40 with t = 0 is 4e-18, not 0. */
Test(soft_targets, hard_ones_keep_tiny_values) {
  FOR_EACH_DEVICE(device) {
    for (int kind = TARE_LOSS_SIGMOID_CE; kind <= TARE_LOSS_SIGMOID_POLY1; kind++) {
      problem *p = soft_problem(kind, TARE_DTYPE_F32, TARE_DTYPE_F32, 4, 2);
      p->slack = 0;
      for (int i = 0; i < 8; i++) {
        p->targets[i] = i % 2;
        p->logits[i] = (i % 2 == 1 ? 1.0 : -1.0) * (5 * i + 5);
      }
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* ---- Ends of the number line ----------------------------------------------------------------------------------- */

/* A modulator s^gamma too small to be written beside a CE that is large or infinite; kappa = p(1-p)/s where s is all
 * but 0; targets down to the smallest. What can be written is right, and an infinite CE stays infinite. */
static const double far_logits[] = {INFINITY, 3e38, 1e30, 3e4, 700, 200, 100, 87, 50, 20, 1};
static const double near_targets[] = {1e-45, 1e-40, 1e-30, 1e-20, 1.35e-3, 0.132, 0.5, 0.999, 1 - 0x1p-23, 1 - 0x1p-24};
static const double far_powers[] = {0, 0.01, 0.05, 0.5, 1, 1.5, 2, 3.7, 50, 300, 1e4};
enum { FAR = COUNT(far_logits), NEAR = COUNT(near_targets) };

static problem *far_problem(int32_t kind, int32_t dtype, double gamma) {
  problem *p = soft_problem(kind, dtype, TARE_DTYPE_F32, (int64_t)2 * FAR * NEAR, 1);
  for (int i = 0; i < 2 * FAR * NEAR; i++) {
    const double x = far_logits[i / 2 % FAR];
    const double largest = dtype == TARE_DTYPE_F16 ? 6e4 : INFINITY; /* x is not to become infinite */
    p->logits[i] = (i % 2 == 0 ? -1 : 1) * round_to_dtype(dtype, isinf(x) ? x : fmin(x, largest));
    p->targets[i] = (double)(float)near_targets[i / 2 / FAR];
  }
  if (kind == TARE_LOSS_SIGMOID_FOCAL) p->loss.focal.gamma = gamma;
  if (kind == TARE_LOSS_SIGMOID_POLY1) p->loss.poly1.gamma = gamma;
  return p;
}

Test(soft_targets, large_losses_times_small_modulators) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_SIGMOID_CE; kind <= TARE_LOSS_SIGMOID_POLY1; kind++) {
      for (size_t d = 0; d < DTYPES; d++) {
        for (int g = 0; g < COUNT(far_powers); g++) {
          problem *p = far_problem(kind, dtypes[d], far_powers[g]);
          p->want = WANT_GRADIENT;
          CHECK_PROBLEM(p, device);
          p->want = WANT_ELEMENT_LOSS; /* nothing cancels in it */
          p->slack = 0;
          CHECK_PROBLEM(p, device);
          problem_free(p);
        }
      }
    }
  }
}

/* The examples as numbers: gamma 50, t = .00135, x = -inf is +inf; t = .132, x = -3e38 is 4.4e-7. */
Test(soft_targets, worked_large_losses) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_SIGMOID_FOCAL; kind <= TARE_LOSS_SIGMOID_POLY1; kind++) {
      problem *p = soft_problem(kind, TARE_DTYPE_F32, TARE_DTYPE_F32, 1, 2);
      p->loss.focal.alpha = p->loss.poly1.alpha = -1;
      p->loss.focal.gamma = p->loss.poly1.gamma = 50;
      p->targets[0] = (double)0.00135f, p->targets[1] = (double)0.132f;
      p->logits[0] = -INFINITY, p->logits[1] = (double)-3e38f;
      outcome *o = problem_run(p, device);
      cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
      cr_assert(o->element_loss[0] == INFINITY, "%s: %g", problem_text(p), o->element_loss[0]);
      CHECK_NEAR(problem_text(p), o->element_loss[1], 4.2305e-7, ((tolerance){0, 2e-5}));
      CHECK_NEAR(problem_text(p), o->gradient[0], 0, ((tolerance){1e-30, 0}));
      CHECK_NEAR(problem_text(p), o->gradient[1], 0, ((tolerance){1e-30, 0}));
      outcome_free(o);
      problem_free(p);
    }
  }
}

/* ---- What people do with them ---------------------------------------------------------------------------------- */

Test(soft_targets, label_smoothing) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      if (!takes_targets(kind)) continue;
      problem *p = problem_new(kind, TARE_DTYPE_F32, test_size(300, 60), 10);
      problem_draw_labels(p, 1, 0);
      targets_from_labels(p);
      for (int64_t i = 0; i < p->rows * p->classes; i++) p->targets[i] = (double)(float)(p->targets[i] * 0.9 + 0.01);
      p->slack = slack_of(p->dtype);
      if (is_ghm(kind)) keep_off_edges(p);
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* Quality focal's case: one soft target in a row of zeros. */
Test(soft_targets, quality_scores) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F16, test_size(300, 60), 12);
    random_source source = random_from(3);
    targets_from_labels(p);
    for (int64_t i = 0; i < p->rows * p->classes; i++) {
      p->targets[i] = (double)(float)(p->targets[i] * random_uniform(&source));
    }
    p->slack = slack_of(p->dtype);
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

Test(soft_targets, labels_only_mark_ignored_rows) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      if (!takes_targets(kind)) continue;
      problem *p = problem_new(kind, TARE_DTYPE_F32, test_size(300, 60), 8);
      problem_draw_targets(p, TARE_DTYPE_F32);
      problem_draw_labels(p, 0.3, 0.3);
      p->slack = slack_of(p->dtype);
      if (is_ghm(kind)) keep_off_edges(p);
      for (int64_t row = 0; row < p->rows; row++) {
        if (p->labels[row] == p->ignore_label) p->logits[row * 8] = NAN;
      }
      CHECK_PROBLEM(p, device);
      if (!is_ghm(kind)) {
        p->normalizer = TARE_NORMALIZER_ROWS;
        CHECK_PROBLEM(p, device);
        p->normalizer = TARE_NORMALIZER_ELEMENTS;
        CHECK_PROBLEM(p, device);
      }
      problem_free(p);
    }
  }
}

Test(soft_targets, without_labels_every_row_counts) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      if (!takes_targets(kind)) continue;
      problem *p = soft_problem(kind, TARE_DTYPE_F32, TARE_DTYPE_F32, 30, 4);
      if (is_ghm(kind)) keep_off_edges(p);
      outcome *o = problem_run(p, device);
      cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
      cr_assert_eq(o->counts.rows, 30);
      cr_assert_eq(o->counts.counted, 30);
      cr_assert_eq(o->counts.positives, 0);
      cr_assert_eq(o->counts.background, 0);
      outcome_free(o);
      problem_free(p);
    }
  }
}

Test(soft_targets, weights) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_SIGMOID_CE; kind <= TARE_LOSS_SIGMOID_POLY1; kind++) {
      problem *p = soft_problem(kind, TARE_DTYPE_F32, TARE_DTYPE_BF16, test_size(300, 60), 8);
      problem_draw_row_weights(p);
      problem_draw_element_weights(p);
      p->positive_weights = random_class_weights(p, 2); /* t*w + 1-t */
      p->alpha_per_class = random_class_weights(p, 3);
      for (int c = 0; c < 8; c++) p->alpha_per_class[c] = (double)(float)(p->alpha_per_class[c] / 2.2);
      p->slack *= 4;
      CHECK_PROBLEM(p, device);
      p->normalizer = TARE_NORMALIZER_WEIGHTS;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
    problem *softmax = soft_problem(TARE_LOSS_SOFTMAX_CE, TARE_DTYPE_F32, TARE_DTYPE_F32, test_size(300, 60), 8);
    problem_draw_row_weights(softmax);
    softmax->slack *= 4;
    CHECK_PROBLEM(softmax, device);
    problem_free(softmax);
  }
}

/* Any non-negative row: sums below 1, above 1, and 0. */
Test(soft_targets, softmax_rows_of_any_sum) {
  FOR_EACH_DEVICE(device) {
    for (size_t d = 0; d < DTYPES; d++) {
      problem *p = soft_problem(TARE_LOSS_SOFTMAX_CE, dtypes[d], TARE_DTYPE_F32, 60, 9);
      for (int64_t i = 0; i < p->rows * p->classes; i++)
        p->targets[i] = (double)(float)(p->targets[i] * (double)(i / p->classes % 4));
      p->slack *= 30; /* operands up to the sum of a row */
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

Test(soft_targets, layouts) {
  static const level_shape shapes[] = {{5, 7, 3}, {2, 3, 3}};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      if (!takes_targets(kind)) continue;
      problem *p = problem_new_levels(kind, TARE_DTYPE_F32, 2, 5, 2, shapes);
      problem_draw_targets(p, TARE_DTYPE_F16);
      p->place[ARRAY_LOGITS] = (placement){.channels_first = true, .phase = 1};
      p->place[ARRAY_GRADIENT] = (placement){.channels_first = true, .pad = {0, 1, 2, 0, 0}};
      p->place[ARRAY_TARGETS] = (placement){.channels_first = kind != TARE_LOSS_SIGMOID_FOCAL, .phase = 1};
      p->slack = slack_of(p->dtype);
      if (is_ghm(kind)) keep_off_edges(p);
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* ---- What is refused ------------------------------------------------------------------------------------------- */

static void expect_unsupported(problem *p, const test_device *device) {
  outcome *o = problem_run(p, device);
  cr_assert_eq(o->status, TARE_STATUS_UNSUPPORTED, "%s: %s (%s)", problem_text(p), tare_status_name(o->status),
               o->text);
  cr_assert_neq(o->text[0], '\0');
  outcome_free(o);
  problem_free(p);
}

Test(soft_targets, refused_combinations) {
  FOR_EACH_DEVICE(device) {
    expect_unsupported(soft_problem(TARE_LOSS_SOFTMAX_FOCAL, TARE_DTYPE_F32, TARE_DTYPE_F32, 5, 3), device);
    FOR_EACH_LOSS(kind) {
      if (!takes_targets(kind) || is_ghm(kind)) continue;
      problem *weights = soft_problem(kind, TARE_DTYPE_F32, TARE_DTYPE_F32, 5, 3);
      weights->class_weights = random_class_weights(weights, 1);
      expect_unsupported(weights, device);
      problem *positives = soft_problem(kind, TARE_DTYPE_F32, TARE_DTYPE_F32, 5, 3);
      positives->normalizer = TARE_NORMALIZER_POSITIVES;
      expect_unsupported(positives, device);
    }
  }
}
