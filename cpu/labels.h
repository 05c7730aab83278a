/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What labels and weights make of a tile's rows. First each label becomes a class, TARE_ROW_BACKGROUND, _IGNORED or
 * _INVALID, in 64 bits before it is narrowed; then the loss decides what such a row is to it. The loops have no branch,
 * so that they are vectorised: with few classes there are nearly as many labels as logits.
 */

static int32_t class_of(const tare_batch *batch, int64_t label) {
  const uint64_t cls = (uint64_t)label - (uint64_t)batch->first_label;
  return ((label >= batch->first_label) & (cls < (uint64_t)batch->classes)) ? (int32_t)cls : TARE_ROW_INVALID;
}

static int32_t classify(const tare_batch *batch, int64_t label) {
  const int32_t cls = class_of(batch, label);
  return label == batch->ignore_label ? TARE_ROW_IGNORED : label == batch->background_label ? TARE_ROW_BACKGROUND : cls;
}

/** The usual labels, in 32 bits throughout: first_label fits. No label equals a special label that does not fit. */
static void classify_narrow(const tare_batch *batch, const int32_t *restrict label, int32_t n,
                            int32_t *restrict found) {
  const int32_t first = (int32_t)batch->first_label, classes = (int32_t)batch->classes;
  const int32_t background = (int32_t)batch->background_label, ignore = (int32_t)batch->ignore_label;
  const int has_background = background == batch->background_label, has_ignore = ignore == batch->ignore_label;
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: labels */
    const int32_t x = label[i], cls = (int32_t)((uint32_t)x - (uint32_t)first);
    int32_t what = ((x >= first) & (cls >= 0) & (cls < classes)) ? cls : TARE_ROW_INVALID;
    what = ((x == background) & has_background) ? TARE_ROW_BACKGROUND : what;
    found[i] = ((x == ignore) & has_ignore) ? TARE_ROW_IGNORED : what;
  }
}

static void classify_wide(const tare_batch *batch, int32_t dtype, const void *labels, int64_t stride, int32_t n,
                          int32_t *restrict found) {
  const tare_batch b = *batch;
  const int64_t *restrict wide = labels;
  const int32_t *restrict narrow = labels;
  if (dtype == TARE_LABEL_DTYPE_I64 && stride == 1)
    for (int32_t i = 0; i < n; i++) found[i] = classify(&b, wide[i]); /* vectorised where 64 bits can be compared so */
  else if (dtype == TARE_LABEL_DTYPE_I64)
    for (int32_t i = 0; i < n; i++) found[i] = classify(&b, wide[i * stride]);
  else
    for (int32_t i = 0; i < n; i++) found[i] = classify(&b, narrow[i * stride]);
}

/** Where labels name no class every one from the first on is a class, and which one does not matter. */
static void classify_flags(const tare_batch *batch, int32_t dtype, const void *labels, int64_t stride, int32_t n,
                           int32_t *restrict found) {
  const int64_t *wide = labels;
  const int32_t *narrow = labels;
  for (int32_t i = 0; i < n; i++) {
    const int64_t label = dtype == TARE_LABEL_DTYPE_I64 ? wide[i * stride] : narrow[i * stride];
    const int32_t cls = label >= batch->first_label ? 0 : TARE_ROW_INVALID;
    found[i] = label == batch->ignore_label       ? TARE_ROW_IGNORED
               : label == batch->background_label ? TARE_ROW_BACKGROUND
                                                  : cls;
  }
}

/** What a row is that has no label: of dense targets nothing more is known; where labels are flags it counts. */
static int32_t unlabelled(const tare_problem *problem) {
  return tare_labels_are_flags(problem) ? 0 : TARE_ROW_BACKGROUND;
}

static const void *labels_of(const tare_problem *problem, const tare_tile *tile) {
  const tare_array *labels = &tile->view->array[TARE_ARRAY_LABELS];
  const ptrdiff_t size = problem->batch.label_dtype == TARE_LABEL_DTYPE_I64 ? 8 : 4;
  return labels->data ? (const char *)labels->data + tile->offset[TARE_ARRAY_LABELS] * size : NULL;
}

/** A label of an excluded class is invalid, background's too where it is one. Beside targets no label names a class. */
static __attribute__((noinline)) void refuse_excluded(const tare_problem *problem, int32_t n, int32_t *found) {
  const int32_t of_background = tare_background_class(problem);
  if (problem->soft || !(problem->class_offset || problem->class_margins)) return;
  for (int32_t i = 0; i < n; i++) {
    const int32_t cls = found[i] == TARE_ROW_BACKGROUND ? of_background : found[i];
    if (cls >= 0 && tare_is_excluded(problem, cls)) found[i] = TARE_ROW_INVALID;
  }
}

static void classify_tile(const tare_problem *problem, const tare_tile *tile, int32_t *found) {
  const tare_batch *batch = &problem->batch;
  const int64_t stride = tile->view->array[TARE_ARRAY_LABELS].stride[TARE_AXES - 1];
  const void *labels = labels_of(problem, tile);
  if (!labels)
    for (int32_t i = 0; i < tile->rows; i++) found[i] = unlabelled(problem);
  else if (tare_labels_are_flags(problem))
    classify_flags(batch, batch->label_dtype, labels, stride, tile->rows, found);
  else if (batch->label_dtype == TARE_LABEL_DTYPE_I32 && stride == 1 &&
           batch->first_label == (int32_t)batch->first_label)
    classify_narrow(batch, labels, tile->rows, found);
  else
    classify_wide(batch, batch->label_dtype, labels, stride, tile->rows, found);
  refuse_excluded(problem, tile->rows, found);
}

static int classes_are_known(const tare_problem *problem) {
  return !problem->soft || problem->family == TARE_LOSS_FAMILY_REGRESSION;
}

/* Rows: what the loss makes of them. */

static const float *row_weights_of(const tare_tile *tile) {
  const tare_array *weights = &tile->view->array[TARE_ARRAY_ROW_WEIGHTS];
  return weights->data ? (const float *)weights->data + tile->offset[TARE_ARRAY_ROW_WEIGHTS] : NULL;
}

static double class_weight_of(const tare_batch *batch, int32_t cls) {
  if (cls < 0) return batch->background_weight;
  return batch->class_weights ? batch->class_weights[cls] : 1.0;
}

static void find_roles(const tare_problem *problem, const tare_tile *tile, int32_t *restrict cls) {
  const int32_t of_background = tare_background_role(problem), has_classes = classes_are_known(problem);
  classify_tile(problem, tile, cls);
#pragma omp simd
  for (int32_t i = 0; i < tile->rows; i++) { /* hot: roles of rows (any) */
    const int32_t found = (has_classes | (cls[i] < 0)) ? cls[i] : TARE_ROW_BACKGROUND;
    const int32_t without_class = found == TARE_ROW_BACKGROUND ? of_background : TARE_ROW_SKIPPED;
    cls[i] = found >= 0 ? found : without_class;
  }
}

static void weigh_rows(const tare_problem *problem, const tare_tile *tile, tare_tile_rows *rows) {
  const float *given = row_weights_of(tile);
  const int64_t stride = tile->view->array[TARE_ARRAY_ROW_WEIGHTS].stride[TARE_AXES - 1];
  const int is_mask = tare_is_ghm(problem);
  const double of_background = problem->soft ? 1.0 : problem->batch.background_weight;
  const int by_class = problem->batch.class_weights && !problem->soft;
  double *restrict weight = rows->weight;
  if (!given && !by_class) {
#pragma omp simd
    for (int32_t i = 0; i < tile->rows; i++)
      weight[i] = rows->cls[i] < 0 ? of_background : 1.0; /* hot: weights (any) */
    return;
  }
  for (int32_t i = 0; i < tile->rows; i++) {
    double w = given ? (double)given[i * stride] : 1.0;
    if (is_mask) w = w > 0.0 ? 1.0 : 0.0;
    weight[i] = problem->soft ? w : w * class_weight_of(&problem->batch, rows->cls[i]);
  }
}

/** Most stretches of rows have no positive, and are left after one look. */
static int32_t list_positives(const int32_t *restrict cls, int32_t rows, int32_t *restrict positive) {
  enum { STRETCH = 64 };
  int32_t listed = 0;
  for (int32_t start = 0; start < rows; start += STRETCH) {
    const int32_t end = rows - start < STRETCH ? rows : start + STRETCH;
    int32_t any = 0;
#pragma omp simd reduction(| : any)
    for (int32_t i = start; i < end; i++) any |= cls[i] >= 0; /* hot: rows with a class (any) */
    for (int32_t i = start; any && i < end; i++) {
      positive[listed] = i;
      listed += cls[i] >= 0;
    }
  }
  return listed;
}

/** Class (or TARE_ROW_...) and weight of each row of a tile, for the losses. */
static void tare_tile_rows_decode(const tare_problem *problem, const tare_tile *tile, tare_tile_rows *rows) {
  find_roles(problem, tile, rows->cls);
  weigh_rows(problem, tile, rows);
#pragma omp simd
  for (int32_t i = 0; i < tile->rows; i++) { /* hot: skipped rows (any) */
    const double weight = rows->cls[i] == TARE_ROW_SKIPPED ? 0.0 : rows->weight[i];
    rows->cls[i] = weight == 0.0 ? TARE_ROW_SKIPPED : rows->cls[i];
    rows->weight[i] = weight;
  }
  const int is_listed = problem->family != TARE_LOSS_FAMILY_SOFTMAX; /* whose rows nearly all have a class */
  rows->positives = is_listed ? list_positives(rows->cls, tile->rows, rows->positive) : 0;
}
