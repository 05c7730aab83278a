/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hard negative mining. What is selected is found here by sorting the library's own row losses, and the loss is that of
 * the same batch in which the other rows are ignored: bit for bit, and as the oracle has it.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/npy.h"
#include "support/numbers.h"
#include "support/problem.h"

typedef struct mining {
  const test_device *device;
  double ratio;
  int64_t minimum;
} mining;

static tare_status evaluate_selected(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                     const tare_output *output, void *user) {
  const mining *m = user;
  tare_batch selected = *batch;
  uint64_t bytes = 0;
  selected.selection = TARE_SELECTION_HARD_NEGATIVES;
  selected.selection_ratio = m->ratio;
  selected.selection_minimum = m->minimum;
  tare_status status = tare_workspace_size(context, loss, &selected, output, &bytes);
  if (status) return status;
  void *const workspace = bytes > 0 ? m->device->allocate(bytes) : NULL;
  if (workspace != NULL) cr_assert_eq(tare_context_set_workspace(context, workspace, bytes), TARE_STATUS_OK);
  status = tare_evaluate(context, loss, &selected, output, NULL);
  if (workspace != NULL) {
    tare_context_synchronize(context, NULL);
    tare_context_set_workspace(context, NULL, 0);
    m->device->release(workspace);
  }
  return status;
}

/* ---- What is to be selected -------------------------------------------------------------------------------------- */

typedef struct ranked {
  float loss;
  int64_t row;
} ranked;

static int by_loss(const void *a, const void *b) {
  const ranked *x = a, *y = b;
  const bool x_nan = isnan(x->loss), y_nan = isnan(y->loss);
  if (x_nan != y_nan) return x_nan ? -1 : 1;
  if (!x_nan && x->loss != y->loss) return x->loss > y->loss ? -1 : 1;
  return x->row < y->row ? -1 : 1;
}

static bool is_background(const problem *p, int64_t row) { return p->labels[row] == p->background_label; }
static bool is_positive(const problem *p, int64_t row) {
  return !is_background(p, row) && p->labels[row] != p->ignore_label;
}

/** The row losses before weights. */
static double *unweighted_losses(const problem *p, const test_device *device) {
  problem bare = *p;
  bare.row_weights = bare.element_weights = bare.class_weights = NULL;
  bare.background_weight = 1;
  bare.want = WANT_ROW_LOSS;
  bare.normalizer = TARE_NORMALIZER_SUM;
  bare.gradient_scale = 1;
  bare.call = NULL;
  outcome *o = problem_run(&bare, device);
  double *losses = malloc(((size_t)p->rows + 1) * sizeof *losses);
  if (p->rows > 0) memcpy(losses, o->row_loss, (size_t)p->rows * sizeof *losses);
  outcome_free(o);
  return losses;
}

/** Ignores the background rows of an image that are not among the largest losses. Returns how many stay. */
static int64_t settle_image(problem *p, const double *losses, int64_t image, const mining *m) {
  ranked *all = malloc(((size_t)p->rows + 1) * sizeof *all);
  int64_t negatives = 0, positives = 0, first = 0;
  for (int32_t l = 0; l < p->level_count; l++) {
    const int64_t each = p->levels[l].height * p->levels[l].width * p->levels[l].anchors;
    for (int64_t row = first + image * each; row < first + (image + 1) * each; row++) {
      positives += is_positive(p, row);
      if (is_background(p, row)) all[negatives++] = (ranked){(float)losses[row], row};
    }
    first += each * p->images;
  }
  qsort(all, (size_t)negatives, sizeof *all, by_loss);
  const double wanted = fmax(ceil(m->ratio * (double)positives), (double)m->minimum);
  const int64_t taken = wanted < (double)negatives ? (int64_t)wanted : negatives;
  for (int64_t i = taken; i < negatives; i++) p->labels[all[i].row] = p->ignore_label;
  free(all);
  return taken;
}

static int64_t settle(problem *p, const test_device *device, const mining *m) {
  double *losses = unweighted_losses(p, device);
  int64_t taken = 0;
  for (int64_t image = 0; image < p->images; image++) taken += settle_image(p, losses, image, m);
  free(losses);
  return taken;
}

/* ---- Comparison -------------------------------------------------------------------------------------------------- */

/** Evaluates with the selection, and without it on the labels that are to be selected. Returns the negatives taken. */
static int64_t check_mining(problem *p, const test_device *device, double ratio, int64_t minimum) {
  mining m = {device, ratio, minimum};
  p->call = evaluate_selected;
  p->user = &m;
  outcome *got = problem_run(p, device);
  cr_assert_eq(got->status, TARE_STATUS_OK, "%s", got->text);
  p->call = NULL;
  const tare_counts counts = got->counts;
  int64_t *labels = malloc(((size_t)p->rows + 1) * sizeof *labels);
  if (p->rows > 0) memcpy(labels, p->labels, (size_t)p->rows * sizeof *labels);
  outcome *whole = problem_run(p, device);
  cr_assert_eq(memcmp(&counts, &whole->counts, sizeof counts), 0, "the counts are those of the caller's labels");
  outcome_free(whole);
  const int64_t taken = settle(p, device, &m);
  outcome *selected = problem_run(p, device), *want = problem_expect(p);
  got->counts = selected->counts;
  CHECK_SAME_OUTCOME(p, got, selected);
  CHECK_OUTCOME(p, got, want);
  outcome_free(got);
  outcome_free(selected);
  outcome_free(want);
  if (p->rows > 0) memcpy(p->labels, labels, (size_t)p->rows * sizeof *labels);
  free(labels);
  return taken;
}

static const level_shape levels[] = {{7, 5, 4}, {0, 3, 2}, {3, 3, 4}, {1, 1, 6}};
enum { LEVELS = sizeof levels / sizeof *levels };

/* SSD: class 0 is the background. */
static problem *ssd(int32_t dtype, int64_t images) {
  problem *p = problem_new_levels(TARE_LOSS_SOFTMAX_CE, dtype, images, 21, LEVELS, levels);
  p->background_label = 0;
  p->ignore_label = -1;
  problem_draw_labels(p, 0.05, 0.1);
  p->normalizer = TARE_NORMALIZER_POSITIVES;
  return p;
}

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};

Test(selection, three_to_one_per_image) {
  FOR_EACH_DEVICE(device) {
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
      if (!device_computes(device, TARE_LOSS_SOFTMAX_CE, dtypes[i])) continue;
      problem *p = ssd(dtypes[i], 3);
      p->label_dtype = i % 2 ? TARE_LABEL_DTYPE_I64 : TARE_LABEL_DTYPE_I32;
      const int64_t taken = check_mining(p, device, 3, 0);
      cr_assert_gt(taken, 0);
      problem_free(p);
    }
  }
}

Test(selection, every_loss_and_normalizer) {
  FOR_EACH_DEVICE(device) FOR_EACH_LOSS(kind) {
    if (is_ghm(kind)) continue;
    for (int32_t normalizer = TARE_NORMALIZER_SUM; normalizer <= TARE_NORMALIZER_WEIGHTS; normalizer++) {
      problem *p = problem_new_levels(kind, TARE_DTYPE_F32, 2, 5, LEVELS, levels);
      if (is_softmax(kind)) p->background_label = p->first_label + 2;
      problem_draw_labels(p, 0.1, 0.1);
      problem_draw_row_weights(p);
      if (!is_softmax(kind)) problem_draw_element_weights(p);
      p->class_weights = random_class_weights(p, 3);
      p->normalizer = normalizer;
      p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_GRADIENT].channels_first = normalizer % 2;
      check_mining(p, device, 2.5, 0);
      problem_free(p);
    }
  }
}

Test(selection, ratios_and_minimum) {
  static const double ratios[] = {0, 1e-9, 0.5, 1, 3, 1e9};
  FOR_EACH_DEVICE(device) {
    for (size_t i = 0; i < sizeof ratios / sizeof *ratios; i++)
      for (int64_t minimum = 0; minimum <= 40; minimum += 20) {
        problem *p = ssd(TARE_DTYPE_F32, 2);
        check_mining(p, device, ratios[i], minimum);
        problem_free(p);
      }
  }
}

Test(selection, an_image_without_objects_adds_nothing) {
  FOR_EACH_DEVICE(device) {
    problem *p = ssd(TARE_DTYPE_F32, 1);
    problem_draw_labels(p, 0, 0.1);
    cr_assert_eq(check_mining(p, device, 3, 0), 0);
    cr_assert_eq(check_mining(p, device, 3, 7), 7);
    problem_free(p);
  }
}

Test(selection, ties_go_by_row_order) {
  FOR_EACH_DEVICE(device) {
    problem *p = ssd(TARE_DTYPE_F32, 2);
    for (int64_t i = 0; i < p->rows * p->classes; i++) p->logits[i] = i / p->classes % 3 == 0 ? 1 : 0;
    check_mining(p, device, 3, 0);
    for (int64_t i = 0; i < p->rows * p->classes; i++) p->logits[i] = 0;
    cr_assert_gt(check_mining(p, device, 3, 0), 0);
    problem_free(p);
  }
}

Test(selection, extreme_losses) {
  static const double extremes[] = {INFINITY, -INFINITY, NAN, 125, -125, 1e30};
  FOR_EACH_DEVICE(device) {
    for (size_t e = 0; e < sizeof extremes / sizeof *extremes; e++) {
      problem *p = problem_new_levels(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 2, 3, LEVELS, levels);
      problem_draw_labels(p, 0.05, 0.1);
      for (int64_t row = 0; row < p->rows; row += 9) p->logits[row * p->classes] = extremes[e];
      check_mining(p, device, 3, 1);
      problem_free(p);
    }
  }
}

/* More rows of an image than a block has threads, and thresholds at every digit. */
Test(selection, many_rows) {
  FOR_EACH_DEVICE(device) {
    const level_shape one = {test_size(61, 37), 53, 3};
    problem *p = problem_new_levels(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 2, 1, 1, &one);
    problem_draw_labels(p, 0.01, 0.01);
    for (int64_t row = 0; row < p->rows; row++) p->logits[row] = round_to_dtype(TARE_DTYPE_F32, p->logits[row] * 1e-3);
    check_mining(p, device, 3, 0);
    check_mining(p, device, 50, 0);
    problem_free(p);
  }
}

Test(selection, in_place_and_on_many_threads) {
  FOR_EACH_DEVICE(device) {
    problem *p = ssd(TARE_DTYPE_F32, 3);
    p->in_place = true;
    p->context = device_context(device, device->kind == TARE_DEVICE_CPU ? 3 : 0);
    check_mining(p, device, 3, 0);
    tare_context_destroy(p->context);
    problem_free(p);
  }
}

Test(selection, no_rows) {
  FOR_EACH_DEVICE(device) {
    problem *p = ssd(TARE_DTYPE_F32, 0);
    mining m = {device, 3, 5};
    p->call = evaluate_selected;
    p->user = &m;
    outcome *o = problem_run(p, device);
    cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
    cr_assert_eq(o->loss, 0);
    outcome_free(o);
    problem_free(p);
  }
}

/* ---- Real data --------------------------------------------------------------------------------------------------- */

/* Two images of a detector's anchors, thinned out to `each` rows an image. In a softmax loss the background is class 3,
 * whose logit is 0. */
static problem *real_batch(int32_t kind, const char *logits_name, int64_t each) {
  npy_array logits = npy_real(logits_name), labels = npy_real("labels.npy");
  const level_shape one = {1, each, 1};
  const int64_t thinning = logits.shape[0] / 2 / each, classes = is_softmax(kind) ? 4 : 3;
  problem *p = problem_new_levels(kind, TARE_DTYPE_F32, 2, classes, 1, &one);
  if (is_softmax(kind)) p->background_label = 3;
  for (int64_t row = 0; row < p->rows; row++) {
    const int64_t label = (int64_t)npy_number(&labels, (size_t)(row * thinning));
    p->labels[row] = label == -1 ? p->background_label : label;
    for (int64_t c = 0; c < classes; c++)
      p->logits[row * classes + c] = c == 3 ? 0 : npy_number(&logits, (size_t)(row * thinning * 3 + c));
  }
  npy_free(&logits);
  npy_free(&labels);
  return p;
}

Test(selection, real_batch) {
  static const int32_t kinds[] = {TARE_LOSS_SOFTMAX_CE, TARE_LOSS_SIGMOID_FOCAL, TARE_LOSS_SIGMOID_VARIFOCAL};
  static const char *const states[] = {"init_logits.npy", "early_logits.npy", "late_logits.npy"};
  FOR_EACH_DEVICE(device) {
    for (int k = 0; k < 3; k++) {
      for (int s = 0; s < 3; s++) {
        problem *p = real_batch(kinds[k], states[s], test_size(57600, 3840));
        p->normalizer = TARE_NORMALIZER_POSITIVES;
        cr_assert_gt(check_mining(p, device, 3, 0), 0);
        problem_free(p);
      }
    }
  }
}

/* ---- Refusals ---------------------------------------------------------------------------------------------------- */

static void expect_refused(problem *p, const test_device *device, mining m, tare_status status, const char *word) {
  p->call = evaluate_selected;
  p->user = &m;
  CHECK_REFUSED(p, device, status, word);
}

Test(selection, refusals) {
  FOR_EACH_DEVICE(device) {
    const mining usual = {device, 3, 0};
    expect_refused(problem_new(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 9, 3), device, usual, TARE_STATUS_UNSUPPORTED,
                   "density");
    problem *dense = problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 9, 3);
    problem_draw_targets(dense, TARE_DTYPE_F32);
    expect_refused(dense, device, usual, TARE_STATUS_UNSUPPORTED, "use labels");
    problem *no_class = problem_new(TARE_LOSS_SOFTMAX_CE, TARE_DTYPE_F32, 9, 3);
    expect_refused(no_class, device, usual, TARE_STATUS_INVALID_ARGUMENT, "background_label is -1");
    static const double ratios[] = {-1, NAN, INFINITY, 2e9};
    for (size_t i = 0; i < sizeof ratios / sizeof *ratios; i++)
      expect_refused(ssd(TARE_DTYPE_F32, 1), device, (mining){device, ratios[i], 0}, TARE_STATUS_INVALID_ARGUMENT,
                     "selection_ratio");
    expect_refused(ssd(TARE_DTYPE_F32, 1), device, (mining){device, 3, -1}, TARE_STATUS_INVALID_ARGUMENT,
                   "selection_minimum is -1");
  }
}

static tare_status without_workspace(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                     const tare_output *output, void *user) {
  tare_batch selected = *batch;
  (void)user;
  selected.selection = TARE_SELECTION_HARD_NEGATIVES;
  return tare_evaluate(context, loss, &selected, output, NULL);
}

Test(selection, a_workspace_is_needed) {
  FOR_EACH_DEVICE(device) {
    problem *p = ssd(TARE_DTYPE_F32, 1);
    p->call = without_workspace;
    outcome *o = problem_run(p, device);
    cr_assert_eq(o->status, TARE_STATUS_WORKSPACE_TOO_SMALL, "%s", o->text);
    outcome_free(o);
    problem_free(p);
  }
}

/* A row with the label of an excluded class is never selected, as an ignored one; on a CPU it is an error. */
Test(selection, excluded_labels) {
  FOR_EACH_DEVICE(device) {
    mining m = {device, 3, 1};
    if (device->host_memory) continue;
    problem *p = problem_new_levels(TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, TARE_DTYPE_F32, 2, 21, LEVELS, levels);
    p->background_label = 0;
    problem_draw_labels(p, 0.3, 0.1);
    p->offset[7] = p->offset[11] = -INFINITY;
    p->call = evaluate_selected;
    p->user = &m;
    outcome *got = problem_run(p, device);
    cr_assert_not_null(strstr(got->text, "excludes"), "%s", got->text); /* evaluate_selected has waited */
    for (int64_t i = 0; i < p->rows; i++)
      if (p->labels[i] == 7 || p->labels[i] == 11) p->labels[i] = p->ignore_label;
    outcome *want = problem_run(p, device);
    cr_assert(got->counts.invalid > 0 && got->counts.invalid + got->counts.ignored == want->counts.ignored);
    got->counts = want->counts;
    CHECK_SAME_OUTCOME(p, got, want);
    outcome_free(got);
    outcome_free(want);
    problem_free(p);
  }
}
