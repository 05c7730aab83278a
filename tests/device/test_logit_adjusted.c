/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Logit-adjusted softmax cross-entropy: offsets are added to the logits and nothing else changes. What holds for every
 * loss (layouts, labels, weights, scales) is tested for this one by the tests that go over all of them.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/npy.h"
#include "support/numbers.h"
#include "support/problem.h"
#include "support/random.h"

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
/* Each walk of the kernels: a few classes, registers, planes held and read again, a warp, a block, many chunks. */
static const int64_t widths[] = {1, 2, 3, 15, 16, 81, 91, 130, 1203, 1600, 2100, 17000};
enum { DTYPES = sizeof dtypes / sizeof *dtypes, WIDTHS = sizeof widths / sizeof *widths };

enum manner { FLAT, IN_PLACE, PLANES, PADDED, TARGETS, ONE_HOT, MANNERS };

static int64_t rows_for(int64_t classes) { return classes > 1000 ? 3 : test_size(70, 35); }

/* Logits and offsets are multiples of 1/4 below 32, so that every type holds their sums. */
static problem *exact_problem(int32_t kind, int32_t dtype, int64_t classes, enum manner manner) {
  const level_shape shape = {.height = rows_for(classes), .width = 2, .anchors = 1};
  problem *p = problem_new_levels(kind, dtype, 1, classes, 1, &shape);
  random_source source = random_from((uint64_t)classes);
  for (int64_t i = 0; i < p->rows * classes; i++) p->logits[i] = (double)random_below(&source, 200) / 4 - 25;
  for (int64_t c = 0; c < classes && p->offset != NULL; c++) p->offset[c] = (double)(c * 7 % 23) / -4;
  p->in_place = manner == IN_PLACE;
  for (int a = 0; a < ARRAY_KINDS; a++) {
    p->place[a].channels_first = manner == PLANES;
    if (manner == PADDED) p->place[a].pad[AXIS_CLASS] = p->place[a].pad[AXIS_X] = 3;
  }
  if (manner == TARGETS || manner == ONE_HOT) problem_draw_targets(p, TARE_DTYPE_F32);
  for (int64_t i = 0; manner == ONE_HOT && i < p->rows * classes; i++)
    p->targets[i] = i % classes == i / classes % classes ? 0.75 : 0;
  return p;
}

static void add_offsets(problem *p, const double *offset) {
  for (int64_t i = 0; i < p->rows * p->classes; i++) p->logits[i] += offset[i % p->classes];
}

/* softmax-ce of logits to which the same has been added beforehand, bit for bit. */
Test(logit_adjusted, is_softmax_ce_of_the_sums) {
  FOR_EACH_DEVICE(device) {
    for (int d = 0; d < DTYPES; d++) {
      for (int w = 0; w < WIDTHS; w++) {
        for (int manner = FLAT; manner < MANNERS; manner++) {
          problem *adjusted =
              exact_problem(TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, dtypes[d], widths[w], (enum manner)manner);
          problem *plain = exact_problem(TARE_LOSS_SOFTMAX_CE, dtypes[d], widths[w], (enum manner)manner);
          add_offsets(plain, adjusted->offset);
          check_same_bits(adjusted, plain, device);
        }
      }
    }
  }
}

Test(logit_adjusted, no_offsets_are_softmax_ce) {
  FOR_EACH_DEVICE(device) {
    for (int d = 0; d < DTYPES; d++) {
      problem *p = problem_new(TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, dtypes[d], 50, 81);
      problem *plain = problem_new(TARE_LOSS_SOFTMAX_CE, dtypes[d], 50, 81);
      free(p->offset);
      p->offset = NULL;
      check_same_bits(p, plain, device);
    }
  }
}

/* Offsets of a long tail, in every type, by the oracle. */
Test(logit_adjusted, every_width) {
  FOR_EACH_DEVICE(device) {
    for (int d = 0; d < DTYPES; d++) {
      for (int w = 0; w < WIDTHS; w++) {
        for (int manner = FLAT; manner <= PADDED; manner++) {
          const level_shape shape = {.height = rows_for(widths[w]), .width = 2, .anchors = 1};
          problem *p = problem_new_levels(TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, dtypes[d], 1, widths[w], 1, &shape);
          p->in_place = manner == IN_PLACE;
          for (int a = 0; a < ARRAY_KINDS; a++) {
            p->place[a].channels_first = manner == PLANES;
            if (manner == PADDED) p->place[a].pad[AXIS_CLASS] = p->place[a].pad[AXIS_X] = 1;
          }
          CHECK_PROBLEM(p, device);
          problem_free(p);
        }
      }
    }
  }
}

/* mmdetection's background: a class behind the others, with an offset of its own. Detectron's: the first. */
Test(logit_adjusted, background_that_is_a_class) {
  FOR_EACH_DEVICE(device) {
    for (int last = 0; last < 2; last++) {
      problem *p = problem_new(TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, TARE_DTYPE_F32, 100, 81);
      p->background_label = last ? 80 : 0;
      problem_draw_labels(p, 0.3, 0.1);
      p->offset[p->background_label] = -0.01;
      p->normalizer = TARE_NORMALIZER_ROWS;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* ---- Derivatives ------------------------------------------------------------------------------------------------- */

static double loss_at(problem *p, const test_device *device) {
  outcome *o = problem_run(p, device);
  const double loss = o->loss;
  cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
  outcome_free(o);
  return loss;
}

Test(logit_adjusted, gradient_is_the_finite_difference) {
  FOR_EACH_DEVICE(device) {
    for (int soft = 0; soft < 2; soft++) {
      problem *p = problem_new(TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, TARE_DTYPE_F64, 6, 7);
      const test_device *able = device_able(device, p->loss.kind, p->dtype);
      if (soft) problem_draw_targets(p, TARE_DTYPE_F64);
      p->loss_dtype = TARE_DTYPE_F64;
      outcome *o = problem_run(p, able);
      p->want = WANT_LOSS;
      for (int64_t i = 0; i < p->rows * p->classes; i++) {
        const double x = p->logits[i], step = 1e-5;
        p->logits[i] = x + step;
        const double above = loss_at(p, able);
        p->logits[i] = x - step;
        const double below = loss_at(p, able);
        p->logits[i] = x;
        cr_assert_float_eq(o->gradient[i], (above - below) / (2 * step), 1e-9, "%s: element %d", problem_text(p),
                           (int)i);
      }
      outcome_free(o);
      problem_free(p);
    }
  }
}

/* ---- The ends ---------------------------------------------------------------------------------------------------- */

typedef struct end {
  double x[5], offset[5]; /* the label is class 0 */
  double loss;            /* -1: finite, what the oracle says */
} end;

static void check_end(const test_device *device, int32_t dtype, const end *e, bool planes) {
  const level_shape shape = {.height = 1, .width = 33, .anchors = 1};
  problem *p = problem_new_levels(TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, dtype, 1, 5, 1, &shape);
  for (int64_t i = 0; i < p->rows * 5; i++) p->logits[i] = e->x[i % 5];
  for (int64_t i = 0; i < p->rows; i++) p->labels[i] = 0;
  p->drawn = true; /* a certain row has a gradient of zeros */
  memcpy(p->offset, e->offset, sizeof e->offset);
  for (int a = 0; a < ARRAY_KINDS; a++) p->place[a].channels_first = planes;
  outcome *o = problem_run(p, device);
  cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
  if (e->loss != -1) CHECK_NEAR(problem_text(p), o->row_loss[0], e->loss, ((tolerance){0, 1e-6}));
  for (int c = 1; c < 5; c++) {
    if (e->offset[c] == -INFINITY && !isnan(e->loss))
      cr_assert_eq(o->gradient[c], 0, "%s: gradient %d of an excluded class: %g", problem_text(p), c, o->gradient[c]);
  }
  outcome_free(o);
  CHECK_PROBLEM(p, device);
  problem_free(p);
}

Test(logit_adjusted, ends) {
  const double inf = INFINITY, far = (double)1e30f;
  const end ends[] = {
      {{1, 2, 0, 1, -1}, {0, -inf, 0, -1, 0}, -1},            /* a class left out */
      {{1, NAN, 0, inf, -inf}, {0, -inf, 0, -inf, -inf}, -1}, /* whatever its logit is */
      {{1, 2, 0, 1, -1}, {0, -inf, -inf, -inf, -inf}, 0},     /* all but the label */
      {{1, 2, 0, 1, -1}, {far, 0, 0, 0, 0}, 0},
      {{1, 2, 0, 1, -1}, {-far, 0, 0, 0, 0}, far},
      {{1, 2, 0, 1, -1}, {0, far, 0, 0, 0}, far},
      {{1, 2, 0, 1, -1}, {far, -far, -far, -far, -far}, 0},
      {{1, 2, 0, 1, -1}, {-far, far, 0, 0, 0}, 2 * far},
      {{1, inf, 0, 2, -1}, {-3, -4, -5, -6, -7}, inf}, /* logits as of softmax-ce */
      {{inf, 1, 0, 2, -1}, {-3, -4, -5, -6, -7}, 0},
      {{-inf, 1, 0, 2, -1}, {-3, -4, -5, -6, -7}, inf},
      {{1, inf, inf, 2, -1}, {-3, -4, -5, -6, -7}, NAN},
      {{1, NAN, 0, 2, -1}, {-3, -4, -5, -6, -7}, NAN},
      {{1, -inf, 0, 2, -1}, {0, inf, 0, 0, 0}, NAN}, /* offsets that act as such logits */
      {{1, 2, 0, 2, -1}, {0, inf, 0, 0, 0}, inf},
      {{1, 2, 0, 2, -1}, {inf, 0, 0, 0, 0}, 0},
      {{1, 2, 0, 2, -1}, {0, 0, NAN, 0, 0}, NAN},
  };
  FOR_EACH_DEVICE(device) {
    for (int d = 0; d < DTYPES; d++) {
      for (size_t e = 0; e < sizeof ends / sizeof *ends; e++) {
        check_end(device, dtypes[d], &ends[e], false);
        check_end(device, dtypes[d], &ends[e], true);
      }
    }
  }
}

/* A sum that no float holds is infinite, in f32; double holds it. */
Test(logit_adjusted, a_sum_beyond_the_type) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, TARE_DTYPE_F32, 1, 3);
    const double x[] = {0, 3e38, -3e38}, offset[] = {0, 3e38, -3e38};
    for (int c = 0; c < 3; c++) {
      p->logits[c] = (double)(float)x[c];
      p->offset[c] = (double)(float)offset[c];
    }
    p->labels[0] = 0;
    outcome *o = problem_run(p, device);
    cr_assert_eq(o->row_loss[0], INFINITY);
    cr_assert(o->gradient[0] == -1 && o->gradient[1] == 1 && o->gradient[2] == 0, "%g %g %g", o->gradient[0],
              o->gradient[1], o->gradient[2]);
    outcome_free(o);
    problem_free(p);
  }
}

/* ---- Offsets from counts ----------------------------------------------------------------------------------------- */

static void check_offsets(int64_t classes, const double *counts, double tau) {
  float *got = calloc((size_t)classes, sizeof *got);
  double *want = calloc((size_t)classes, sizeof *want);
  cr_assert_eq(tare_logit_adjustment(classes, counts, tau, got), TARE_STATUS_OK, "%s", tare_error_text(NULL));
  oracle_logit_adjustment(classes, counts, tau, want);
  for (int64_t c = 0; c < classes; c++) {
    cr_assert(fabs((double)got[c] - want[c]) <= 0x1.0001p-24 * fabs(want[c]) + 0x1p-150,
              "class %d of counts %g, tau %g: got %.9g, want %.17g", (int)c, counts[c], tau, (double)got[c], want[c]);
  }
  free(got);
  free(want);
}

Test(logit_adjusted, offsets_from_counts) {
  static const double taus[] = {1, 0, 0.5, 1.5, -1, 1e30, -1e30, 1e-30};
  static const double sets[][5] = {{1169, 90, 28, 5, 1},
                                   {7, 7, 7, 7, 7},
                                   {0, 0, 0, 0, 0},
                                   {0, 500, 0, 3, 0},
                                   {1e9, 1, 1, 1, 1},
                                   {1e15, 1, 0, 0, 2},
                                   {0.3, 0.2, 0.1, 0.35, 0.05},
                                   {1e300, 1e-300, 2e299, 1, 3},
                                   {1e308, 1e308, 1e308, 1e308, 1},
                                   {5e-324, 1e-323, 5e-324, 1, 2},
                                   {1, 1e-9, 1e-9, 1e-9, 1e-9}};
  for (size_t t = 0; t < sizeof taus / sizeof *taus; t++) {
    for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) check_offsets(5, sets[s], taus[t]);
    check_offsets(1, sets[0], taus[t]);
  }
}

/* Balanced softmax as its paper prints it: n_y*e^x_y over the sum of n_k*e^x_k. */
Test(logit_adjusted, balanced_softmax) {
  static const double counts[3] = {1169, 90, 28};
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, TARE_DTYPE_F32, 60, 3);
    float offset[3];
    cr_assert_eq(tare_logit_adjustment(3, counts, 1, offset), TARE_STATUS_OK);
    for (int c = 0; c < 3; c++) p->offset[c] = (double)offset[c];
    outcome *o = problem_run(p, device);
    for (int64_t i = 0; i < p->rows; i++) {
      long double sum = 0;
      if (p->labels[i] < 0) continue;
      for (int c = 0; c < 3; c++) sum += counts[c] * expl(p->logits[i * 3 + c]);
      const long double q = counts[p->labels[i]] * expl(p->logits[i * 3 + p->labels[i]]) / sum;
      cr_assert_float_eq(o->row_loss[i], (double)-logl(q), 1e-5, "row %d", (int)i);
    }
    outcome_free(o);
    problem_free(p);
  }
}

/* ---- Real data --------------------------------------------------------------------------------------------------- */

/* A detector's logits late in its training, with the offsets of its batch. Background is a class of its own there: the
 * three logits and one of 0. */
Test(logit_adjusted, real_batch) {
  npy_array logits = npy_real("late_logits.npy"), labels = npy_real("labels.npy"), counts = npy_real("counts.npy");
  const int64_t rows = test_size(logits.shape[0], 5000);
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, TARE_DTYPE_F32, rows, 4);
    double seen[4];
    float offset[4];
    for (int c = 0; c < 3; c++) seen[c] = npy_number(&counts, (size_t)c);
    seen[3] = 111651;
    cr_assert_eq(tare_logit_adjustment(4, seen, 1, offset), TARE_STATUS_OK);
    for (int64_t i = 0; i < rows * 4; i++)
      p->logits[i] = i % 4 == 3 ? 0 : npy_number(&logits, (size_t)(i / 4 * 3 + i % 4));
    p->background_label = 3;
    for (int64_t i = 0; i < rows; i++) {
      const int64_t label = (int64_t)npy_number(&labels, (size_t)i);
      p->labels[i] = label == -1 ? 3 : label;
    }
    for (int c = 0; c < 4; c++) p->offset[c] = (double)offset[c];
    p->normalizer = TARE_NORMALIZER_ROWS;
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
  npy_free(&logits);
  npy_free(&labels);
  npy_free(&counts);
}
