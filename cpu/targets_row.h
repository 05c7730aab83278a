/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of a tile that no formula takes, for a target that no formula takes. */

/** Whether a row has such a target among the elements that have a weight; takes note of the first. */
static int row_is_refused(const tare_problem *problem, const tare_tile *tile, int32_t row, tare_scratch *scratch,
                          tare_target_scan *scan) {
  const tare_array *targets = &tile->view->array[TARE_ARRAY_TARGETS],
                   *weights = &tile->view->array[TARE_ARRAY_ELEMENT_WEIGHTS];
  const real least = (real)problem->target_least, most = (real)problem->target_most;
  const int64_t classes = problem->batch.classes;
  const int64_t from = tile->offset[TARE_ARRAY_TARGETS] + row * targets->stride[TARE_AXES - 1];
  const int64_t of_row = tile->offset[TARE_ARRAY_ELEMENT_WEIGHTS] + row * weights->stride[TARE_AXES - 1];
  real *t = real_scratch_of(scratch)->target;
  for (int64_t first = 0; first < classes; first += TARE_BLOCK) {
    const int64_t n = classes - first < TARE_BLOCK ? classes - first : TARE_BLOCK;
    int32_t outside = 0;
    load(problem->batch.target_dtype, targets->data, from + first * targets->cls, targets->cls, n, t);
#pragma omp simd reduction(| : outside)
    for (int64_t i = 0; i < n; i++) outside |= !((t[i] >= least) & (t[i] <= most)); /* hot: targets in range (any) */
    for (int64_t i = 0; outside && i < n; i++) {
      if (t[i] >= least && t[i] <= most) continue;
      if (weights->data && ((const float *)weights->data)[of_row + (first + i) * weights->cls] == 0) continue;
      if (has_mask(tile) && is_left_out(tile, row, first + i)) continue;
      tare_note_target(scan, tile, row, first + i, (double)t[i]);
      return 1;
    }
  }
  return 0;
}

/** Skips the rows with a target above 0 of a class that the loss excludes. */
static __attribute__((noinline)) void check_excluded_targets(const tare_problem *problem, const tare_tile *tile,
                                                             tare_tile_rows *rows, tare_target_scan *scan) {
  const tare_array *targets = &tile->view->array[TARE_ARRAY_TARGETS];
  for (int64_t c = 0; c < problem->batch.classes; c++)
    for (int32_t i = 0; i < tile->rows && tare_is_excluded(problem, c); i++) {
      real t = 0;
      if (rows->weight[i] != 0)
        load(problem->batch.target_dtype, targets->data,
             tile->offset[TARE_ARRAY_TARGETS] + i * targets->stride[TARE_AXES - 1] + c * targets->cls, 1, 1, &t);
      if (t == 0) continue;
      tare_note_target(scan, tile, i, c, (double)t);
      rows->cls[i] = TARE_ROW_SKIPPED;
      rows->weight[i] = 0;
    }
}

/** Skips such rows. Says in the scratch whether other targets must be moved into [0,1], those without a weight too. */
static void check_targets(const tare_problem *problem, const tare_tile *tile, tare_scratch *scratch,
                          tare_target_scan *scan) {
  tare_tile_rows *rows = &scratch->rows;
  scratch->clamps_targets = 0;
  if (!problem->checks_targets) return;
  if (problem->class_offset) check_excluded_targets(problem, tile, rows, scan);
  if (targets_are_plain(problem, tile)) return;
  scratch->clamps_targets = 1;
  for (int32_t i = 0; i < tile->rows; i++)
    if (rows->weight[i] != 0 && row_is_refused(problem, tile, i, scratch, scan)) {
      rows->cls[i] = TARE_ROW_SKIPPED;
      rows->weight[i] = 0;
    }
}

/** Reads the scores of a tile's labels, and skips the rows whose scores no formula takes, unless their element has no
 *  weight. */
static void look_at_scores(const tare_problem *problem, const tare_tile *tile, tare_scratch *scratch,
                           tare_target_scan *scan) {
  const tare_array *scores = &tile->view->array[TARE_ARRAY_SCORES],
                   *weights = &tile->view->array[TARE_ARRAY_ELEMENT_WEIGHTS];
  const real least = (real)problem->score_least, most = (real)problem->score_most;
  tare_tile_rows *rows = &scratch->rows;
  real *score = real_scratch_of(scratch)->score;
  for (int32_t p = 0; scores->data && p < rows->positives; p++) {
    const int32_t i = rows->positive[p];
    load(problem->batch.score_dtype, scores->data, tile->offset[TARE_ARRAY_SCORES] + i * scores->stride[TARE_AXES - 1],
         1, 1, &score[i]);
    const int64_t element =
        tile->offset[TARE_ARRAY_ELEMENT_WEIGHTS] + i * weights->stride[TARE_AXES - 1] + rows->cls[i] * weights->cls;
    const int is_valid = (score[i] >= least && score[i] <= most) || is_masked(tile, i, rows->cls[i]);
    if (!is_valid && !(weights->data && ((const float *)weights->data)[element] == 0)) {
      tare_note_target(scan, tile, i, rows->cls[i], (double)score[i]);
      rows->cls[i] = TARE_ROW_SKIPPED;
      rows->weight[i] = 0;
    }
    score[i] = score[i] > 0 ? score[i] : (real)0; /* NaN becomes 0 */
    score[i] = score[i] < 1 ? score[i] : (real)1;
  }
}

/** Clamps targets that are outside [0,1] by rounding, or have no weight. NaN becomes 0. */
static void clamp_targets(real *restrict target, int32_t n) {
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: clamp targets (any) */
    const real t = target[i] > 0 ? target[i] : (real)0;
    target[i] = t < 1 ? t : (real)1;
  }
}

/** Finds the roles of a tile's rows in the loss. Returns whether the pass needs more of the tile. */
static int look_at_rows(const tare_job *job, const tare_tile *tile, tare_scratch *scratch, tare_group_result *result) {
  const tare_problem *problem = job->problem;
  const int sums = job->pass == TARE_PASS_TARGETS && tare_sums_elements(problem);
  tare_tile_rows_decode(problem, tile, &scratch->rows);
  if (sums || (scratch->class_sums && has_mask(tile)))
    memcpy(scratch->row_loss, scratch->rows.weight, (size_t)tile->rows * sizeof *scratch->row_loss);
  check_targets(problem, tile, scratch, &result->targets);
  if (tare_has_bins(problem))
    look_at_bins(problem, tile, scratch, &result->targets);
  else if (!problem->soft)
    look_at_scores(problem, tile, scratch, &result->targets);
  if (job->pass != TARE_PASS_TARGETS) return 1;
  for (int32_t i = 0; i < tile->rows; i++) result->weights += scratch->rows.weight[i];
  if (sums) sum_targets(problem, tile, scratch->row_loss, scratch, result);
  return 0;
}
