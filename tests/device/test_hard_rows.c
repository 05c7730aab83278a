/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OHEM. What is selected is found here by sorting the library's own row losses over the whole batch. The loss is that
 * of the same batch in which the other rows are ignored: bit for bit, and as the oracle has it.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/numbers.h"
#include "support/problem.h"

typedef struct mining {
  const test_device *device;
  int64_t count;
  double fraction;
  bool no_workspace;
} mining;

static tare_status evaluate_selected(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                     const tare_output *output, void *user) {
  const mining *m = user;
  tare_batch selected = *batch;
  uint64_t bytes = 0;
  selected.selection = TARE_SELECTION_HARD_ROWS;
  selected.selection_count = m->count;
  selected.selection_fraction = m->fraction;
  tare_status status = tare_workspace_size(context, loss, &selected, output, &bytes);
  if (status) return status;
  void *const workspace = bytes > 0 && !m->no_workspace ? m->device->allocate(bytes) : NULL;
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

static bool is_class(const problem *p, int64_t label) {
  return label >= p->first_label && label - p->first_label < p->classes;
}

/** Whether a row counts: in a softmax loss a background row does if its label is a class. */
static bool counts(const problem *p, int64_t row) {
  const int64_t label = p->labels[row];
  if (label == p->ignore_label) return false;
  return label != p->background_label || !is_softmax(p->loss.kind) || is_class(p, label);
}

static double count_positives(const problem *p) {
  double positives = 0;
  for (int64_t row = 0; row < p->rows; row++)
    positives += p->labels[row] != p->ignore_label && p->labels[row] != p->background_label;
  return positives;
}

/** The row losses before weights. */
static double *unweighted_losses(const problem *p, const test_device *device) {
  problem bare = *p;
  bare.row_weights = bare.element_weights = bare.class_weights = bare.positive_weights = NULL;
  bare.background_weight = 1;
  bare.want = WANT_ROW_LOSS;
  bare.normalizer = TARE_NORMALIZER_SUM;
  bare.normalizer_scope = TARE_NORMALIZER_SCOPE_BATCH;
  bare.gradient_scale = 1;
  bare.call = NULL;
  outcome *o = problem_run(&bare, device);
  double *losses = malloc(((size_t)p->rows + 1) * sizeof *losses);
  if (p->rows > 0) memcpy(losses, o->row_loss, (size_t)p->rows * sizeof *losses);
  outcome_free(o);
  return losses;
}

/** Ignores the rows that are not among the largest losses. Returns how many stay. */
static int64_t settle(problem *p, const test_device *device, const mining *m) {
  double *losses = unweighted_losses(p, device);
  ranked *all = malloc(((size_t)p->rows + 1) * sizeof *all);
  int64_t found = 0;
  for (int64_t row = 0; row < p->rows; row++)
    if (counts(p, row)) all[found++] = (ranked){(float)losses[row], row};
  qsort(all, (size_t)found, sizeof *all, by_loss);
  const int64_t wanted = m->count > 0 ? m->count : (int64_t)ceil(m->fraction * (double)found);
  const int64_t taken = wanted < found ? wanted : found;
  for (int64_t i = taken; i < found; i++) p->labels[all[i].row] = p->ignore_label;
  free(all);
  free(losses);
  return taken;
}

/* ---- Comparison -------------------------------------------------------------------------------------------------- */

/** The same batch with the labels that are to be selected. The divisor of POSITIVES is that of all labels. */
static void check_against_ignored(problem *p, const test_device *device, outcome *got, double positives) {
  const bool by_positives = p->normalizer == TARE_NORMALIZER_POSITIVES;
  if (by_positives) {
    p->normalizer = TARE_NORMALIZER_VALUE;
    p->normalizer_value = positives > 0 ? positives : 1;
  }
  outcome *selected = problem_run(p, device), *want = problem_expect(p);
  cr_assert_eq(selected->status, TARE_STATUS_OK, "%s", selected->text);
  got->counts = selected->counts;
  CHECK_SAME_OUTCOME(p, got, selected);
  CHECK_OUTCOME(p, got, want);
  if (by_positives) p->normalizer = TARE_NORMALIZER_POSITIVES;
  outcome_free(selected);
  outcome_free(want);
}

/** Evaluates with the selection, and without it on the labels that are to be selected. Returns the rows taken. */
static int64_t check_mining(problem *p, const test_device *device, int64_t count, double fraction) {
  mining m = {.device = device, .count = count, .fraction = fraction};
  p->call = evaluate_selected;
  p->user = &m;
  outcome *got = problem_run(p, device);
  cr_assert_eq(got->status, TARE_STATUS_OK, "%s", got->text);
  p->call = NULL;
  const tare_counts given = got->counts;
  int64_t *labels = malloc(((size_t)p->rows + 1) * sizeof *labels);
  if (p->rows > 0) memcpy(labels, p->labels, (size_t)p->rows * sizeof *labels);
  outcome *whole = problem_run(p, device);
  cr_assert_eq(memcmp(&given, &whole->counts, sizeof given), 0, "the counts are those of the caller's labels");
  outcome_free(whole);
  const double positives = count_positives(p);
  const int64_t taken = settle(p, device, &m);
  check_against_ignored(p, device, got, positives);
  outcome_free(got);
  if (p->rows > 0) memcpy(p->labels, labels, (size_t)p->rows * sizeof *labels);
  free(labels);
  return taken;
}

static const level_shape levels[] = {{7, 5, 4}, {0, 3, 2}, {3, 3, 4}, {1, 1, 6}};
enum { LEVELS = sizeof levels / sizeof *levels };
static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};

static problem *drawn(int32_t kind, int32_t dtype, int64_t images) {
  problem *p = problem_new_levels(kind, dtype, images, 9, LEVELS, levels);
  problem_draw_labels(p, 0.2, 0.1);
  return p;
}

Test(hard_rows, number_and_fraction) {
  static const double fractions[] = {1e-9, 0.1, 0.5, 1};
  FOR_EACH_DEVICE(device) {
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
      if (!device_computes(device, TARE_LOSS_SIGMOID_FOCAL, dtypes[i])) continue;
      problem *p = drawn(TARE_LOSS_SIGMOID_FOCAL, dtypes[i], 2);
      p->label_dtype = i % 2 ? TARE_LABEL_DTYPE_I64 : TARE_LABEL_DTYPE_I32;
      cr_assert_eq(check_mining(p, device, 1, 0), 1);
      cr_assert_eq(check_mining(p, device, 100, 0), 100);
      cr_assert_lt(check_mining(p, device, INT64_MAX, 0), p->rows); /* all that count */
      for (size_t f = 0; f < sizeof fractions / sizeof *fractions; f++)
        cr_assert_geq(check_mining(p, device, 0, fractions[f]), 1);
      problem_free(p);
    }
  }
}

Test(hard_rows, every_loss_and_normalizer) {
  FOR_EACH_DEVICE(device) FOR_EACH_LOSS(kind) {
    if (is_ghm(kind)) continue;
    for (int32_t normalizer = TARE_NORMALIZER_SUM; normalizer <= TARE_NORMALIZER_WEIGHTS; normalizer++) {
      if (test_small() && !test_is_due(kind, normalizer)) continue;
      problem *p = drawn(kind, TARE_DTYPE_F32, 2);
      if (is_softmax(kind) && normalizer % 2) p->background_label = p->first_label + 2;
      problem_draw_labels(p, 0.2, 0.1);
      problem_draw_row_weights(p);
      if (!is_softmax(kind)) {
        problem_draw_element_weights(p);
        p->positive_weights = random_class_weights(p, 5);
      }
      p->class_weights = random_class_weights(p, 3);
      p->normalizer = normalizer;
      p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_GRADIENT].channels_first = normalizer % 2;
      check_mining(p, device, 0, 0.3);
      problem_free(p);
    }
  }
}

Test(hard_rows, a_divisor_for_each_level) {
  FOR_EACH_DEVICE(device) {
    problem *p = drawn(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 2);
    p->normalizer = TARE_NORMALIZER_ROWS;
    p->normalizer_scope = TARE_NORMALIZER_SCOPE_LEVEL;
    check_mining(p, device, 60, 0);
    problem_free(p);
  }
}

Test(hard_rows, ties_go_by_row_order) {
  FOR_EACH_DEVICE(device) {
    const level_shape one = {3, 500, 1}; /* several chunks */
    problem *p = problem_new_levels(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 2, 3, 1, &one);
    problem_draw_labels(p, 0, 0.1);
    for (int64_t i = 0; i < p->rows * p->classes; i++) p->logits[i] = i / p->classes % 3 == 0 ? 1 : 0;
    check_mining(p, device, 1700, 0);
    check_mining(p, device, 300, 0);
    for (int64_t i = 0; i < p->rows * p->classes; i++) p->logits[i] = 0;
    check_mining(p, device, 0, 0.5);
    problem_free(p);
  }
}

Test(hard_rows, extreme_losses) {
  static const double extremes[] = {INFINITY, -INFINITY, NAN, 125, -125, 1e30};
  FOR_EACH_DEVICE(device) {
    for (size_t e = 0; e < sizeof extremes / sizeof *extremes; e++) {
      problem *p = drawn(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 2);
      for (int64_t row = 0; row < p->rows; row += 9) p->logits[row * p->classes] = extremes[e];
      check_mining(p, device, 20, 0);
      check_mining(p, device, 60, 0);
      problem_free(p);
    }
  }
}

Test(hard_rows, in_place_on_many_threads_and_without_rows) {
  FOR_EACH_DEVICE(device) {
    problem *p = drawn(TARE_LOSS_SOFTMAX_CE, TARE_DTYPE_F32, 3);
    p->background_label = 0;
    problem_draw_labels(p, 0.2, 0.1);
    p->in_place = true;
    p->context = device_context(device, device->kind == TARE_DEVICE_CPU ? 3 : 0);
    check_mining(p, device, 0, 0.25);
    tare_context_destroy(p->context);
    problem_free(p);
    problem *ignored = drawn(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 1);
    problem_draw_labels(ignored, 0, 1);
    cr_assert_eq(check_mining(ignored, device, 0, 1), 0);
    problem_free(ignored);
    problem *none = drawn(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 0);
    mining m = {.device = device, .count = 7};
    none->call = evaluate_selected;
    none->user = &m;
    outcome *o = problem_run(none, device);
    cr_assert(o->status == TARE_STATUS_OK && o->loss == 0, "%s", o->text);
    outcome_free(o);
    problem_free(none);
  }
}

/* ---- Positives that are not selected ----------------------------------------------------------------------------- */

Test(hard_rows, sums_of_normalizers) {
  FOR_EACH_DEVICE(device) {
    for (int32_t scope = TARE_NORMALIZER_SCOPE_BATCH; scope <= TARE_NORMALIZER_SCOPE_LEVEL; scope++) {
      problem *p = drawn(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 2);
      mining m = {.device = device, .count = 40};
      p->normalizer = TARE_NORMALIZER_POSITIVES;
      p->normalizer_scope = scope;
      p->want |= WANT_NORMALIZER_SUMS;
      outcome *whole = problem_run(p, device);
      p->call = evaluate_selected;
      p->user = &m;
      outcome *got = problem_run(p, device);
      cr_assert_eq(got->status, TARE_STATUS_OK, "%s", got->text);
      double rows = 0, targets = 0;
      for (int i = 0; i < (scope == TARE_NORMALIZER_SCOPE_LEVEL ? p->level_count : 1); i++) {
        cr_assert_eq(got->normalizer_sums[i].positives, whole->normalizer_sums[i].positives);
        rows += got->normalizer_sums[i].rows;
        targets += got->normalizer_sums[i].targets;
      }
      cr_assert_eq(rows, 40);
      cr_assert_leq(targets, 40);
      cr_assert_lt(targets, count_positives(p));
      outcome_free(got);
      outcome_free(whole);
      problem_free(p);
    }
  }
}

/* ---- Refusals ---------------------------------------------------------------------------------------------------- */

static void expect_refused(problem *p, mining m, tare_status status, const char *word) {
  p->call = evaluate_selected;
  p->user = &m;
  CHECK_REFUSED(p, m.device, status, word);
}

static problem *plain(void) { return problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 9, 3); }

Test(hard_rows, refusals) {
  FOR_EACH_DEVICE(device) {
    const mining usual = {.device = device, .count = 3};
    const tare_status wrong = TARE_STATUS_INVALID_ARGUMENT;
    expect_refused(problem_new(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 9, 3), usual, TARE_STATUS_UNSUPPORTED, "density");
    problem *dense = plain();
    problem_draw_targets(dense, TARE_DTYPE_F32);
    expect_refused(dense, usual, TARE_STATUS_UNSUPPORTED, "use labels");
    expect_refused(plain(), (mining){.device = device}, wrong, "give one of them");
    expect_refused(plain(), (mining){.device = device, .count = 2, .fraction = 0.5}, wrong, "give one of them");
    expect_refused(plain(), (mining){.device = device, .count = -1}, wrong, "selection_count is -1");
    expect_refused(plain(), (mining){.device = device, .fraction = 1.5}, wrong, "selection_fraction is 1.5");
    expect_refused(plain(), (mining){.device = device, .fraction = NAN}, wrong, "selection_fraction is nan");
    expect_refused(plain(), (mining){.device = device, .count = 3, .no_workspace = true},
                   TARE_STATUS_WORKSPACE_TOO_SMALL, "workspace");
  }
}
