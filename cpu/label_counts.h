/* SPDX-License-Identifier: Apache-2.0 */
/* Counts of labels, and the first invalid one. */

static void note_invalid(const tare_problem *problem, const tare_tile *tile, const int32_t *found,
                         tare_label_scan *scan) {
  const tare_view *view = tile->view;
  const int64_t stride = view->array[TARE_ARRAY_LABELS].stride[TARE_AXES - 1];
  const void *labels = labels_of(problem, tile);
  for (int32_t i = 0; i < tile->rows; i++) {
    const int64_t row = view->first_row + tile->offset[TARE_ARRAY_ROW_INDEX] +
                        i * view->array[TARE_ARRAY_ROW_INDEX].stride[TARE_AXES - 1];
    if (found[i] != TARE_ROW_INVALID || row >= scan->first_invalid) continue;
    scan->first_invalid = row;
    scan->invalid_label = problem->batch.label_dtype == TARE_LABEL_DTYPE_I64 ? ((const int64_t *)labels)[i * stride]
                                                                             : ((const int32_t *)labels)[i * stride];
  }
}

/** Row weight x class weight over the rows that count, as TARE_NORMALIZER_WEIGHTS has it. */
static double sum_of_weights(const tare_problem *problem, const tare_tile *tile, const int32_t *found) {
  const float *given = row_weights_of(tile);
  const int64_t stride = tile->view->array[TARE_ARRAY_ROW_WEIGHTS].stride[TARE_AXES - 1];
  const int32_t of_background = tare_background_role(problem);
  double sum = 0;
  for (int32_t i = 0; i < tile->rows; i++) {
    const int32_t role = found[i] == TARE_ROW_BACKGROUND ? of_background : found[i];
    if (role < 0 && role != TARE_ROW_BACKGROUND) continue;
    sum += (given ? (double)given[i * stride] : 1.0) * (problem->soft ? 1.0 : class_weight_of(&problem->batch, role));
  }
  return sum;
}

/** Adds what a tile's labels say to `scan`; `per_class` (may be NULL) gets one more for each class met. */
static void tare_tile_scan_labels(const tare_problem *problem, const tare_tile *tile, tare_label_scan *scan,
                                  int64_t *per_class) {
  int32_t found[TARE_TILE_ROWS], positives = 0, background = 0, ignored = 0;
  classify_tile(problem, tile, found);
#pragma omp simd reduction(+ : positives, background, ignored)
  for (int32_t i = 0; i < tile->rows; i++) { /* hot: counts of labels (any) */
    positives += found[i] >= 0;
    background += found[i] == TARE_ROW_BACKGROUND;
    ignored += found[i] == TARE_ROW_IGNORED;
  }
  const int32_t invalid = tile->rows - positives - background - ignored;
  const int has_labels = tile->view->array[TARE_ARRAY_LABELS].data || tare_has_bins(problem);
  const int says_class = classes_are_known(problem) && has_labels;
  tare_counts *counts = &scan->counts;
  counts->rows += tile->rows;
  counts->counted += positives + (tare_background_role(problem) == TARE_ROW_SKIPPED ? 0 : background);
  counts->positives += says_class ? positives : 0;
  counts->background += says_class ? background : 0;
  counts->ignored += ignored;
  counts->invalid += invalid;
  if (problem->output.normalizer == TARE_NORMALIZER_WEIGHTS) scan->weights += sum_of_weights(problem, tile, found);
  if (invalid) note_invalid(problem, tile, found, scan);
  for (int32_t i = 0; per_class && i < tile->rows; i++)
    if (found[i] >= 0) per_class[found[i]]++;
}
