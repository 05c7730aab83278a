/* SPDX-License-Identifier: Apache-2.0 */
/* Positive and negative weights of cross-entropy's two terms (PyTorch's pos_weight): against the oracle. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "support/numbers.h"
#include "support/problem.h"

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
static const level_shape levels[] = {{5, 3, 2}, {0, 3, 2}, {1, 1, 3}};
enum { POSITIVES = 1, NEGATIVES = 2, ALPHA = 4, ALPHAS = 8, SETS = 16 };
enum kind { DENSE, SCORED, SMOOTHED, SMOOTHED_ALL, KINDS };

/** A problem whose targets lie between 0 and 1, or are smoothed. */
static problem *drawn(enum kind kind, int32_t dtype, int64_t classes, int which) {
  problem *p = problem_new_levels(TARE_LOSS_SIGMOID_CE, dtype, 2, classes, 3, levels);
  p->loss.ce.weighting = TARE_WEIGHTING_TERMS;
  p->want |= WANT_CLASS_SUMS;
  p->slack = dtype == TARE_DTYPE_F64 ? 1e-13 : 2e-5;
  problem_draw_row_weights(p);
  if (which & POSITIVES) p->positive_weights = random_class_weights(p, 11);
  if (which & NEGATIVES) p->negative_weights = random_class_weights(p, 12);
  if (which & ALPHA) p->loss.ce.alpha = 0.25;
  if (which & ALPHAS && kind != SMOOTHED_ALL) p->alpha_per_class = random_class_weights(p, 13);
  for (int64_t c = 0; p->alpha_per_class != NULL && c < classes; c++)
    p->alpha_per_class[c] = (double)(float)(p->alpha_per_class[c] / 2.2);
  if (kind == DENSE) problem_draw_targets(p, TARE_DTYPE_F32);
  if (kind == SCORED) problem_draw_scores(p, TARE_DTYPE_F32);
  if (kind >= SMOOTHED) p->loss.ce.label_smoothing = 0.1;
  if (kind == SMOOTHED_ALL) p->loss.ce.smoothed = TARE_SMOOTHED_ALL;
  return p;
}

Test(weighting, targets) {
  static const int64_t classes[] = {1, 3, 8, 81, 91, 1203};
  FOR_EACH_DEVICE(device) {
    for (int kind = 0; kind < KINDS; kind++)
      for (size_t d = 0; d < 4; d++)
        for (int which = 1; which < SETS; which++) {
          if (!device_computes(device, TARE_LOSS_SIGMOID_CE, dtypes[d])) continue;
          problem *p = drawn(kind, dtypes[d], classes[((size_t)which + d) % (size_t)test_size(6, 5)], which);
          if (which % 2) problem_draw_element_weights(p);
          CHECK_PROBLEM(p, device);
          problem_free(p);
        }
  }
}

Test(weighting, layouts) {
  FOR_EACH_DEVICE(device) {
    for (int kind = 0; kind < KINDS; kind++)
      for (int layout = 0; layout < 8; layout++) {
        problem *p = drawn(kind, TARE_DTYPE_F32, layout < 4 ? 7 : 40, POSITIVES | NEGATIVES | ALPHA);
        p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_GRADIENT].channels_first = layout % 2;
        p->place[ARRAY_LOGITS].phase = layout % 4 / 2;
        p->place[ARRAY_GRADIENT].pad[AXIS_CLASS] = layout / 4;
        if (layout / 2 % 2) p->want &= ~(unsigned)(WANT_ROW_LOSS | WANT_ELEMENT_LOSS);
        p->in_place = layout == 6;
        if (p->in_place) p->place[ARRAY_GRADIENT] = p->place[ARRAY_LOGITS];
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
  }
}

/* At targets of 0 and 1, and at labels, both ways are the same to the last bit on a CPU. */
Test(weighting, agrees_at_the_ends) {
  FOR_EACH_DEVICE(device) {
    for (int dense = 0; dense < 2; dense++)
      for (size_t d = 0; d < 4; d++) {
        if (!device_computes(device, TARE_LOSS_SIGMOID_CE, dtypes[d])) continue;
        problem *p = drawn(dense ? DENSE : SCORED, dtypes[d], 9, POSITIVES | (dense ? NEGATIVES : 0) | ALPHA);
        p->gradient_scale = -3;
        for (int64_t i = 0; dense && i < p->rows * 9; i++) p->targets[i] = p->targets[i] > 0.5;
        for (int64_t row = 0; !dense && row < p->rows; row++) p->scores[row] = 1;
        outcome *terms = problem_run(p, device);
        p->loss.ce.weighting = TARE_WEIGHTING_BLENDED;
        outcome *blended = problem_run(p, device);
        CHECK_OUTCOME(p, terms, blended);
        const size_t elements = (size_t)p->rows * 9;
        if (device->kind == TARE_DEVICE_CPU) {
          cr_expect_arr_eq(terms->gradient, blended->gradient, elements * sizeof(double));
          cr_expect_arr_eq(terms->element_loss, blended->element_loss, elements * sizeof(double));
        }
        outcome_free(terms);
        outcome_free(blended);
        problem_free(p);
      }
  }
}

/* Logits over the whole range, in units of the terms: nothing but the gradient's difference cancels. */
Test(weighting, sweep) {
  static const double targets[] = {1e-30, 1e-3, 0.1, 0.5, 0.9, 0.9999};
  enum { ROWS = 2000, CLASSES = 6 };
  FOR_EACH_DEVICE(device) {
    for (size_t d = 0; d < 4; d++)
      for (int t = 0; t < 6 && device_computes(device, TARE_LOSS_SIGMOID_CE, dtypes[d]); t++) {
        problem *p = problem_new(TARE_LOSS_SIGMOID_CE, dtypes[d], ROWS, CLASSES);
        p->loss.ce.weighting = TARE_WEIGHTING_TERMS;
        problem_draw_targets(p, TARE_DTYPE_F32);
        p->positive_weights = random_class_weights(p, 1);
        p->negative_weights = random_class_weights(p, 2);
        p->positive_weights[0] = 1000, p->positive_weights[1] = (double)1e-9f, p->negative_weights[2] = 1000;
        for (int64_t i = 0; i < p->rows * CLASSES; i++) {
          p->targets[i] = (double)(float)targets[t];
          p->logits[i] = round_to_dtype(dtypes[d], -125 + 250.0 * (double)(i / CLASSES) / ROWS);
        }
        outcome *got = problem_run(p, device), *want = problem_expect(p);
        cr_assert_eq(got->status, TARE_STATUS_OK, "%s", got->text);
        const double tiny = 1000 * 0x1p-126; /* an exponential below that is 0 */
        const double ulp = dtypes[d] == TARE_DTYPE_F64 ? 2e-14 : 0x1p-23;
        for (int64_t i = 0; i < p->rows * CLASSES; i++) {
          const struct oracle_point at = oracle_point(p->logits[i]);
          const double of_1 = p->targets[i] * p->positive_weights[i % CLASSES];
          const double of_0 = (1 - p->targets[i]) * p->negative_weights[i % CLASSES];
          const double rounding = dtypes[d] == TARE_DTYPE_F16 || dtypes[d] == TARE_DTYPE_BF16
                                      ? dtype_roundoff(dtypes[d]) * fabs(want->gradient[i]) + dtype_smallest(dtypes[d])
                                      : 0;
          cr_expect_leq(fabs(got->element_loss[i] - want->element_loss[i]), 5 * ulp * want->element_loss[i] + tiny);
          cr_expect_leq(fabs(got->gradient[i] - want->gradient[i]),
                        5 * ulp * (of_1 * at.q + of_0 * at.p) + 1.001 * rounding + tiny);
        }
        outcome_free(got);
        outcome_free(want);
        problem_free(p);
      }
  }
}

/* A weight of 0 leaves nothing of a term, whatever the logit is. */
Test(weighting, extremes) {
  static const double extremes[] = {INFINITY, -INFINITY, NAN, 125, -125, 1e30};
  FOR_EACH_DEVICE(device) {
    for (int kind = 0; kind < KINDS; kind++)
      for (size_t e = 0; e < 6; e++) {
        problem *p = drawn(kind, TARE_DTYPE_F32, 5, POSITIVES | NEGATIVES);
        for (int64_t row = 0; row < p->rows; row += 2) p->logits[row * 5 + row % 5] = extremes[e];
        p->negative_weights[1] = p->positive_weights[1] = 0;
        p->negative_weights[2] = p->positive_weights[3] = 0;
        p->negative_weights[4] = (double)1e-9f;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
  }
}

/** Which rows are selected, with label smoothing: a background row then has a term of a target of 1. */
static void select_rows(const test_device *device, int32_t selection, const float *weights, float *row_loss) {
  enum { ROWS = 40, CLASSES = 4 };
  static float logits[ROWS * CLASSES];
  static int32_t labels[ROWS];
  static _Alignas(16) char workspace[65536];
  for (int i = 0; i < ROWS * CLASSES; i++) logits[i] = (float)(i * 37 % 101) / 20 - 2.5f;
  for (int i = 0; i < ROWS; i++) labels[i] = i % 5 ? -1 : i % CLASSES;
  tare_context *context = device_context(device, 0);
  tare_loss_spec loss;
  tare_level level;
  tare_batch batch;
  tare_output output;
  tare_loss_spec_init(&loss, TARE_LOSS_SIGMOID_CE);
  tare_level_init_rows(&level, ROWS, CLASSES);
  tare_batch_init(&batch);
  tare_output_init(&output);
  loss.ce.label_smoothing = 0.2;
  loss.ce.weighting = TARE_WEIGHTING_TERMS;
  level.logits = logits, level.labels = labels, level.row_loss = row_loss;
  batch.levels = &level, batch.level_count = 1, batch.classes = CLASSES;
  batch.positive_weights = weights;
  batch.selection = selection;
  batch.selection_ratio = 1;
  if (selection == TARE_SELECTION_HARD_ROWS) batch.selection_count = 10;
  cr_assert_eq(tare_context_set_workspace(context, workspace, sizeof workspace), TARE_STATUS_OK);
  const tare_status status = tare_evaluate(context, &loss, &batch, &output, NULL);
  cr_assert_eq(status, TARE_STATUS_OK, "%s", tare_error_text(context));
  tare_context_destroy(context);
}

/* Rows are selected by their loss without these weights: by the core, so one device is enough. */
Test(weighting, selections) {
  static const float weights[] = {3, 0.5f, 100, 1};
  float plain[40], weighed[40];
  FOR_EACH_DEVICE(device) {
    for (int32_t selection = TARE_SELECTION_HARD_NEGATIVES; selection <= TARE_SELECTION_HARD_ROWS; selection++) {
      int selected = 0;
      if (device->kind != TARE_DEVICE_CPU) continue;
      select_rows(device, selection, NULL, plain);
      select_rows(device, selection, weights, weighed);
      for (int i = 0; i < 40; i++) {
        cr_expect_eq(plain[i] == 0, weighed[i] == 0, "row %d", i);
        selected += plain[i] != 0;
      }
      cr_expect_eq(selected, selection == TARE_SELECTION_HARD_ROWS ? 10 : 16);
    }
  }
}

Test(weighting, refusals) {
  FOR_EACH_DEVICE(device) {
    problem *p = drawn(DENSE, TARE_DTYPE_F32, 3, POSITIVES);
    p->loss.ce.weighting = 2;
    CHECK_REFUSED(p, device, TARE_STATUS_INVALID_ARGUMENT, "loss->ce.weighting is 2; it must be 0 (blended) or 1");
    problem *row = problem_new(TARE_LOSS_SOFTMAX_CE, TARE_DTYPE_F32, 6, 3);
    row->loss.ce.weighting = TARE_WEIGHTING_TERMS;
    CHECK_REFUSED(row, device, TARE_STATUS_UNSUPPORTED, "loss->ce.weighting is 1");
    problem *focal = problem_new(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 6, 3);
    focal->loss.focal.reserved = TARE_WEIGHTING_TERMS;
    CHECK_REFUSED(focal, device, TARE_STATUS_INVALID_ARGUMENT, "reserved");
  }
}
