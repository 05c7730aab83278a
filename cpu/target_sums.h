/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of targets, by TARE_PASS_TARGETS: of rows that count, whatever they weigh. In double, in an order that depends
 * on the shape alone. */

/** The target of a row's label: its score in [0,1], NaN as 0; or 1, as of a row with its target between bins. */
static double target_of_label(const tare_problem *problem, const tare_tile *tile, int32_t row) {
  const tare_array *scores = &tile->view->array[TARE_ARRAY_SCORES];
  real score = 1;
  if (scores->data && !tare_has_bins(problem))
    load(problem->batch.score_dtype, scores->data,
         tile->offset[TARE_ARRAY_SCORES] + row * scores->stride[TARE_AXES - 1], 1, 1, &score);
  score = score > 0 ? score : (real)0;
  return (double)(score < 1 ? score : (real)1);
}

static void sum_labels(const tare_problem *problem, const tare_tile *tile, const int32_t *cls,
                       tare_group_result *result) {
  for (int32_t i = 0; i < tile->rows; i++) {
    if (cls[i] < 0 || is_masked(tile, i, cls[i])) continue;
    const double target = target_of_label(problem, tile, i);
    result->targets_sum += target;
    result->ones += target == 1;
  }
}

/** Adds n targets, clamped as the formulas take them; those of a softmax loss have no bound but their type's. */
static void sum_line_of_targets(int32_t n, real most, const real *restrict counts, const real *restrict target,
                                tare_group_result *result) {
  double sum = 0, ones = 0;
#pragma omp simd reduction(+ : sum, ones)
  for (int32_t i = 0; i < n; i++) { /* hot: sums of targets (any) */
    const real count = counts[i], given = target[i];
    const real positive = given > 0 ? given : (real)0;
    const real t = positive < most ? positive : most;
    sum += (double)(count * t);
    ones += (double)(t == 1 ? count : (real)0);
  }
  result->targets_sum += sum;
  result->ones += ones;
}

/** What n elements of a line count: 1, or as their rows do, but 0 where their class is masked. */
static __attribute__((noinline)) void count_line(const tare_tile *tile, int by_class, int64_t line, int64_t first,
                                                 int32_t n, const real *of_rows, real *restrict counts) {
  for (int32_t i = 0; i < n; i++) counts[i] = by_class ? of_rows[first + i] : (real)1;
  for (int32_t i = 0; has_mask(tile) && i < n; i++)
    if (by_class ? is_masked(tile, first + i, line) : is_masked(tile, line, first + i)) counts[i] = 0;
}

/** Class after class where a class's targets lie nearer to each other than a row's; else row after row. */
static void sum_dense(const tare_problem *problem, const tare_tile *tile, const real *counts, real_scratch *s,
                      tare_group_result *result) {
  const tare_array *targets = &tile->view->array[TARE_ARRAY_TARGETS];
  const int64_t classes = problem->batch.classes, row = targets->stride[TARE_AXES - 1];
  const int by_class = (row < 0 ? -row : row) < (targets->cls < 0 ? -targets->cls : targets->cls);
  const int64_t lines = by_class ? classes : tile->rows, length = by_class ? tile->rows : classes;
  const int64_t line_stride = by_class ? targets->cls : row, stride = by_class ? row : targets->cls;
  const real most = problem->family == TARE_LOSS_FAMILY_SOFTMAX ? (real)problem->target_most : (real)1;
  for (int64_t line = 0; line < lines; line++) {
    if (!by_class && counts[line] == 0) continue;
    for (int64_t first = 0; first < length; first += TARE_BLOCK) {
      const int32_t n = (int32_t)(length - first < TARE_BLOCK ? length - first : TARE_BLOCK);
      if (!by_class || has_mask(tile)) count_line(tile, by_class, line, first, n, counts, s->loss);
      load(problem->batch.target_dtype, targets->data,
           tile->offset[TARE_ARRAY_TARGETS] + line * line_stride + first * stride, stride, n, s->target);
      sum_line_of_targets(n, most, by_class && !has_mask(tile) ? counts + first : s->loss, s->target, result);
    }
  }
}

/** Sums the targets of a tile, and counts its elements where classes are masked. `weight` [rows]: of each row, before
 *  spoilt ones were skipped. */
static void sum_targets(const tare_problem *problem, const tare_tile *tile, const double *weight, tare_scratch *scratch,
                        tare_group_result *result) {
  real_scratch *s = real_scratch_of(scratch);
  int32_t *const cls = scratch->picked_at;
  find_roles(problem, tile, cls);
  for (int32_t i = 0; i < tile->rows; i++) {
    if (weight[i] != 0 && scratch->rows.weight[i] == 0) cls[i] = TARE_ROW_SKIPPED;
    s->derivative[i] = cls[i] == TARE_ROW_SKIPPED ? (real)0 : (real)1;
  }
  if (has_mask(tile)) result->elements += unmasked_elements(tile, problem->batch.classes, s->derivative);
  if (!tare_sums_targets(&problem->output)) return;
  if (problem->soft)
    sum_dense(problem, tile, s->derivative, s, result);
  else
    sum_labels(problem, tile, cls, result);
}
