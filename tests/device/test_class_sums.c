/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums of each class: those of the oracle, the same bits whatever the threads and other outputs are, and no other
 * output changed by them.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/numbers.h"
#include "support/problem.h"

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

static const level_shape levels[] = {{9, 7, 3}, {0, 3, 2}, {5, 1, 3}, {1, 1, 4}};
enum { LEVELS = sizeof levels / sizeof *levels };

/** GHM-R has columns and no classes. */
static bool has_class_sums(int32_t kind) { return kind != TARE_LOSS_GHM_R; }

/** Everything that the loss can weigh, and a divisor and a scale, which the sums do not know. */
static problem *weighted_problem(int32_t kind, int32_t dtype) {
  problem *p = problem_new_levels(kind, dtype, 2, 5, LEVELS, levels);
  p->want |= WANT_CLASS_SUMS;
  p->gradient_scale = 3;
  problem_draw_row_weights(p);
  if (is_ghm(kind)) return p;
  p->normalizer = TARE_NORMALIZER_ROWS;
  p->class_weights = random_class_weights(p, 1);
  p->background_weight = 0.5;
  if (is_softmax(kind)) return p;
  problem_draw_element_weights(p);
  p->positive_weights = random_class_weights(p, 2);
  return p;
}

Test(class_sums, every_loss_and_type) {
  FOR_EACH_DEVICE(device) FOR_EACH_LOSS(kind) for (int i = 0; i < DTYPES; i++) {
    if (!has_class_sums(kind) || !device_computes(device, kind, dtypes[i])) continue;
    if (i > 0 && !test_is_due(kind, i)) continue;
    problem *p = weighted_problem(kind, dtypes[i]);
    CHECK_PROBLEM(p, device);
    p->want = WANT_CLASS_SUMS;
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

/* More slices than one, more tiles than slices, fewer classes than lanes and more than a block has. */
Test(class_sums, sizes) {
  static const int64_t shapes[][2] = {{1, 1},    {511, 1},   {512, 2},   {5000, 3}, {2049, 81},
                                      {700, 91}, {40, 1300}, {3, 20000}, {1025, 16}};
  FOR_EACH_DEVICE(device) for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    static const int32_t kinds[] = {TARE_LOSS_SIGMOID_FOCAL, TARE_LOSS_SOFTMAX_CE, TARE_LOSS_GHM_C};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
      if (test_small() && shapes[i][0] * shapes[i][1] > 50000) continue;
      problem *p = problem_new(kinds[k], i % 2 ? TARE_DTYPE_BF16 : TARE_DTYPE_F32, shapes[i][0], shapes[i][1]);
      p->want = WANT_CLASS_SUMS | WANT_LOSS;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

Test(class_sums, dense_targets) {
  FOR_EACH_DEVICE(device) FOR_EACH_LOSS(kind) for (int i = 0; i < DTYPES; i++) {
    if (!has_class_sums(kind) || is_softmax(kind) || !device_computes(device, kind, dtypes[i])) continue;
    problem *p = weighted_problem(kind, dtypes[i]);
    free(p->class_weights);
    p->class_weights = NULL;
    p->background_weight = 1;
    problem_draw_targets(p, dtypes[i] == TARE_DTYPE_F64 ? TARE_DTYPE_F64 : TARE_DTYPE_F32);
    p->slack = dtypes[i] == TARE_DTYPE_F64 ? 1e-13 : 2e-5;
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

Test(class_sums, scores) {
  FOR_EACH_DEVICE(device) FOR_EACH_LOSS(kind) for (int i = 0; i < DTYPES; i++) {
    if (!takes_scores(kind) || !device_computes(device, kind, dtypes[i])) continue;
    problem *p = weighted_problem(kind, dtypes[i]);
    problem_draw_scores(p, dtypes[i] == TARE_DTYPE_F64 ? TARE_DTYPE_F32 : dtypes[i]);
    p->slack = dtypes[i] == TARE_DTYPE_F64 ? 1e-13 : 2e-5;
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

Test(class_sums, layouts) {
  FOR_EACH_DEVICE(device) FOR_EACH_LOSS(kind) for (int layout = 0; layout < 4; layout++) {
    if (!test_is_due(kind, layout)) continue;
    if (!has_class_sums(kind)) continue;
    problem *p = weighted_problem(kind, layout % 2 ? TARE_DTYPE_F16 : TARE_DTYPE_F32);
    for (int a = 0; a < ARRAY_KINDS; a++) p->place[a].channels_first = layout > 0;
    p->place[ARRAY_LOGITS].flip = layout == 2 ? 1u << AXIS_CLASS | 1u << AXIS_X : 0;
    p->place[ARRAY_LOGITS].pad[AXIS_X] = layout == 3 ? 2 : 0;
    p->image_major = layout == 1;
    CHECK_PROBLEM(p, device);
    p->in_place = true;
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

Test(class_sums, gradient_density) {
  FOR_EACH_DEVICE(device) for (int way = 0; way < 4; way++) {
    problem *p = problem_new(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 700, 4);
    p->want |= WANT_CLASS_SUMS;
    p->loss.ghm.density = way == 0 ? TARE_GHM_DENSITY_EXACT : TARE_GHM_DENSITY_UNIT_REGION;
    if (way == 1) problem_draw_targets(p, TARE_DTYPE_F32);
    p->slack = way == 1 ? 1e-5 : 0;
    if (way >= 2) p->loss.ghm.momentum = 0.75;
    if (way >= 2) problem_add_ghm_state(p);
    CHECK_PROBLEM(p, device);
    if (way == 3) p->loss.ghm.use_stored_density = 1;
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

/* Rows that do not count, weights of 0, and infinite logits beside them. */
Test(class_sums, extremes) {
  static const double extremes[] = {INFINITY, -INFINITY, NAN, 3e38, -3e38, 125, -125};
  FOR_EACH_DEVICE(device) FOR_EACH_LOSS(kind) {
    if (!has_class_sums(kind)) continue;
    for (size_t e = 0; e < sizeof extremes / sizeof *extremes; e++) {
      if (test_small() && !test_is_due(kind, (int)e)) continue;
      problem *p = weighted_problem(kind, TARE_DTYPE_F32);
      for (int64_t row = 0; row < p->rows; row++) {
        if (row % 3) p->labels[row] = p->ignore_label;
        if (row % 3 == 1) p->logits[row * p->classes + row % p->classes] = extremes[e];
      }
      p->logits[3 * p->classes + 1] = extremes[e]; /* of one class that counts */
      p->row_weights[3] = 1;
      p->drawn = true; /* zeros may pass: few rows count */
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

Test(class_sums, no_rows) {
  FOR_EACH_DEVICE(device) FOR_EACH_LOSS(kind) {
    if (!has_class_sums(kind)) continue;
    problem *p = problem_new(kind, TARE_DTYPE_F32, 0, 3);
    p->want |= WANT_CLASS_SUMS;
    outcome *o = problem_run(p, device);
    cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
    for (int i = 0; i < 12; i++) cr_assert_eq(o->class_sums[i], 0);
    outcome_free(o);
    problem_free(p);
  }
}

static int32_t threads_of(const test_device *device, int32_t threads) {
  return device->kind == TARE_DEVICE_CPU ? threads : 0;
}

/* Neither threads nor other outputs change a bit; nor do the sums change the other outputs. */
Test(class_sums, the_same_bits) {
  FOR_EACH_DEVICE(device) FOR_EACH_LOSS(kind) {
    if (!has_class_sums(kind)) continue;
    problem *p = problem_new(kind, TARE_DTYPE_BF16, test_size(6000, 1500), 7);
    p->want |= WANT_CLASS_SUMS;
    outcome *first = problem_run(p, device);
    for (int32_t threads = 1; threads <= 7; threads += 2) {
      if (!test_is_due(kind, threads)) continue;
      p->context = device_context(device, threads_of(device, threads));
      p->normalizer_value = p->gradient_scale = 1;
      outcome *again = problem_run(p, device);
      CHECK_SAME_OUTCOME(p, again, first);
      outcome_free(again);
      tare_context_destroy(p->context);
      p->context = NULL;
    }
    p->want &= ~(unsigned)WANT_CLASS_SUMS;
    outcome *without = problem_run(p, device);
    CHECK_SAME_OUTCOME(p, without, first);
    outcome_free(without);
    p->want = WANT_CLASS_SUMS;
    if (!is_ghm(kind)) p->normalizer = TARE_NORMALIZER_POSITIVES;
    p->gradient_scale = 1e-30;
    outcome *alone = problem_run(p, device);
    CHECK_SAME_OUTCOME(p, alone, first);
    outcome_free(alone);
    outcome_free(first);
    problem_free(p);
  }
}

Test(class_sums, invalid_rows_add_nothing) {
  FOR_EACH_DEVICE(device) for (int scored = 0; scored < 2; scored++) {
    problem *p = problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 900, 3);
    p->want |= WANT_CLASS_SUMS;
    p->slack = 2e-5;
    if (scored)
      problem_draw_scores(p, TARE_DTYPE_F32);
    else
      problem_draw_targets(p, TARE_DTYPE_F32);
    for (int64_t row = 0; row < p->rows; row += 50) {
      p->labels[row] = p->first_label + 1;
      *(scored ? &p->scores[row] : &p->targets[3 * row + 2]) = row % 100 ? NAN : 7;
    }
    outcome *got = problem_run(p, device), *want = problem_expect(p);
    const bool later = device->kind == TARE_DEVICE_CUDA;
    cr_assert_eq(later ? got->check_status : got->status, TARE_STATUS_INVALID_TARGET, "%s", got->text);
    CHECK_CLOSE("class sums", got->class_sums, want->class_sums, 12, class_sums_tolerance(p));
    outcome_free(got);
    outcome_free(want);
    problem_free(p);
  }
}

/* ---- With a selection -------------------------------------------------------------------------------------------- */

static tare_status evaluate_selected(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                     const tare_output *output, void *user) {
  const test_device *device = user;
  tare_batch selected = *batch;
  uint64_t bytes = 0;
  selected.selection = TARE_SELECTION_HARD_NEGATIVES;
  tare_status status = tare_workspace_size(context, loss, &selected, output, &bytes);
  if (status) return status;
  void *const workspace = device->allocate(bytes);
  cr_assert_eq(tare_context_set_workspace(context, workspace, bytes), TARE_STATUS_OK);
  status = tare_evaluate(context, loss, &selected, output, NULL);
  tare_context_synchronize(context, NULL);
  tare_context_set_workspace(context, NULL, 0);
  device->release(workspace);
  return status;
}

/* The sums are those of the rows selected: with every negative taken, of all rows; with none, of the positives. */
Test(class_sums, selected_rows) {
  FOR_EACH_DEVICE(device) for (int64_t i = 0; i < DTYPES; i++) {
    if (!device_computes(device, TARE_LOSS_SIGMOID_FOCAL, dtypes[i])) continue;
    problem *p = problem_new(TARE_LOSS_SIGMOID_FOCAL, dtypes[i], 2101, 5);
    p->want |= WANT_CLASS_SUMS;
    problem_draw_labels(p, 0.3, 0.1); /* three times the positives are more than there are negatives */
    p->call = evaluate_selected;
    p->user = (void *)(uintptr_t)device;
    CHECK_PROBLEM(p, device);
    problem_free(p);
    problem *none = problem_new(TARE_LOSS_SIGMOID_FOCAL, dtypes[i], 2101, 5);
    none->want |= WANT_CLASS_SUMS;
    problem_draw_labels(none, 0, 0.1);
    none->call = evaluate_selected;
    none->user = (void *)(uintptr_t)device;
    outcome *o = problem_run(none, device);
    cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
    for (int64_t k = 0; k < 4 * none->classes; k++) cr_assert_eq(o->class_sums[k], 0);
    outcome_free(o);
    problem_free(none);
  }
}

/* ---- Refusals and workspace -------------------------------------------------------------------------------------- */

static void expect_refused(problem *p, const test_device *device, tare_status status, const char *word) {
  p->want |= WANT_CLASS_SUMS;
  CHECK_REFUSED(p, device, status, word);
}

static tare_status misplaced(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                             const tare_output *output, void *user) {
  tare_output moved = *output;
  const char *const place = user;
  if (strcmp(place, "aligned") == 0) moved.class_sums = (tare_class_sums *)(void *)((char *)output->class_sums + 4);
  if (strcmp(place, "logits") == 0) moved.class_sums = (tare_class_sums *)(uintptr_t)batch->levels[0].logits;
  return tare_evaluate(context, loss, batch, &moved, NULL);
}

Test(class_sums, refusals) {
  FOR_EACH_DEVICE(device) {
    expect_refused(problem_new(TARE_LOSS_GHM_R, TARE_DTYPE_F32, 9, 4), device, TARE_STATUS_UNSUPPORTED,
                   "output->class_sums with ghm-r: its columns are not classes");
    problem *dense = problem_new(TARE_LOSS_SOFTMAX_CE, TARE_DTYPE_F32, 9, 3);
    problem_draw_targets(dense, TARE_DTYPE_F32);
    expect_refused(dense, device, TARE_STATUS_UNSUPPORTED, "a row's loss belongs to no class; use labels");
    static char aligned[] = "aligned", logits[] = "logits";
    problem *p = problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F64, 9, 3);
    p->dtype = TARE_DTYPE_F32;
    p->call = misplaced;
    p->user = aligned;
    expect_refused(p, device, TARE_STATUS_INVALID_ARGUMENT, "must be aligned to 8 bytes");
    problem *overlapping = problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 9, 3);
    overlapping->call = misplaced;
    overlapping->user = logits;
    expect_refused(overlapping, device, TARE_STATUS_INVALID_ARGUMENT, "overlaps batch->levels[0].logits");
  }
}

static uint64_t workspace_of(const test_device *device, int64_t rows, int64_t classes, bool sums) {
  tare_loss_spec loss;
  tare_loss_spec_init(&loss, TARE_LOSS_SIGMOID_CE);
  tare_level level;
  tare_level_init_rows(&level, rows, classes);
  level.logits = level.labels = (const void *)(uintptr_t)(1 << 20); /* never read */
  tare_batch batch;
  tare_batch_init(&batch);
  batch.levels = &level;
  batch.level_count = 1;
  batch.classes = classes;
  tare_output output;
  tare_output_init(&output);
  static double room[8];
  output.class_sums = sums ? (tare_class_sums *)(void *)room : NULL;
  uint64_t bytes = 99;
  cr_assert_eq(tare_workspace_size(device->context, &loss, &batch, &output, &bytes), TARE_STATUS_OK, "%s",
               tare_error_text(device->context));
  return bytes;
}

static tare_status without_workspace(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                     const tare_output *output, void *user) {
  (void)user;
  tare_context_set_workspace(context, NULL, 0);
  return tare_evaluate(context, loss, batch, output, NULL);
}

Test(class_sums, workspace) {
  FOR_EACH_DEVICE(device) {
    cr_assert_eq(workspace_of(device, 100000, 1, false), 0);
    cr_assert_eq(workspace_of(device, 511, 1, true), 0);
    cr_assert_eq(workspace_of(device, 512, 1, true), 32);
    cr_assert_eq(workspace_of(device, 100000000, 1, true), 511 * 32);
    problem *p = problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 600, 3);
    p->want |= WANT_CLASS_SUMS;
    p->call = without_workspace;
    outcome *o = problem_run(p, device);
    cr_assert_eq(o->status, TARE_STATUS_WORKSPACE_TOO_SMALL, "%s", o->text);
    outcome_free(o);
    problem_free(p);
  }
}
