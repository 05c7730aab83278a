/* SPDX-License-Identifier: Apache-2.0 */
/* Tiles of a problem, and what labels and weights make of their rows. */
#include "rows.h"

#include <string.h>

enum { INVALID = -3, IGNORED = -4 };

static int32_t rows_of_tile(const tare_view *view, int64_t classes) {
  int64_t rows = TARE_TILE_ROWS;
  if (!tare_view_by_class(view, classes)) {
    rows = TARE_TILE_ELEMENTS / classes;
    if (rows < 1) rows = 1;
    if (rows > TARE_TILE_ROWS) rows = TARE_TILE_ROWS;
  }
  return (int32_t)rows;
}

void tare_tiling_make(tare_tiling *tiling, const tare_problem *problem) {
  tiling->tiles = 0;
  for (int i = 0; i < problem->level_count; i++) {
    const tare_view *view = &problem->view[i];
    tiling->first_tile[i] = tiling->tiles;
    tiling->tile_rows[i] = 1;
    if (!view->rows) continue;
    const int64_t inner = view->dim[TARE_AXES - 1];
    tiling->tile_rows[i] = rows_of_tile(view, problem->batch.classes);
    tiling->tiles += view->rows / inner * ((inner + tiling->tile_rows[i] - 1) / tiling->tile_rows[i]);
  }
  for (int i = problem->level_count; i <= TARE_MAX_LEVELS; i++) tiling->first_tile[i] = tiling->tiles;
  tiling->groups = (int32_t)(tiling->tiles < TARE_MAX_GROUPS ? tiling->tiles : TARE_MAX_GROUPS);
}

void tare_tile_at(const tare_tiling *tiling, const tare_problem *problem, int64_t number, tare_tile *tile) {
  int level = 0;
  while (number >= tiling->first_tile[level + 1]) level++;
  const tare_view *view = &problem->view[level];
  const int64_t inner = view->dim[TARE_AXES - 1], size = tiling->tile_rows[level];
  const int64_t chunks = (inner + size - 1) / size;
  int64_t rest = number - tiling->first_tile[level];
  int64_t index[TARE_AXES];
  index[3] = rest % chunks * size;
  rest /= chunks;
  index[2] = rest % view->dim[2];
  rest /= view->dim[2];
  index[1] = rest % view->dim[1];
  index[0] = rest / view->dim[1];
  tile->view = view;
  tile->rows = (int32_t)(inner - index[3] < size ? inner - index[3] : size);
  for (int a = 0; a < TARE_ARRAYS; a++) {
    tile->offset[a] = 0;
    for (int axis = 0; axis < TARE_AXES; axis++) tile->offset[a] += index[axis] * view->array[a].stride[axis];
  }
}

static int64_t label_at(const tare_problem *problem, const tare_tile *tile, int32_t row) {
  const tare_array *labels = &tile->view->array[TARE_LABELS];
  const int64_t at = tile->offset[TARE_LABELS] + row * labels->stride[TARE_AXES - 1];
  return problem->batch.label_dtype == TARE_I64 ? ((const int64_t *)labels->data)[at]
                                                : ((const int32_t *)labels->data)[at];
}

/** label - first_label if that is a class, else INVALID: checked in 64 bits before it is narrowed. */
static int32_t class_of(const tare_batch *batch, int64_t label) {
  int64_t cls;
  if (__builtin_sub_overflow(label, batch->first_label, &cls)) return INVALID;
  return cls >= 0 && cls < batch->classes ? (int32_t)cls : INVALID;
}

/** Class, TARE_ROW_BACKGROUND, IGNORED or INVALID. The columns of GHM-R are no classes: there every label from the first
 *  on is a class, and which one does not matter. */
static int32_t classify(const tare_problem *problem, int64_t label) {
  const tare_batch *batch = &problem->batch;
  if (label == batch->ignore_label) return IGNORED;
  if (label == batch->background_label) return TARE_ROW_BACKGROUND;
  if (problem->shape == TARE_SHAPE_REGRESSION) return label >= batch->first_label ? 0 : INVALID;
  return class_of(batch, label);
}

/** The class that a background label is itself, in a softmax loss; TARE_ROW_BACKGROUND otherwise. */
static int32_t background_class(const tare_problem *problem) {
  if (problem->shape != TARE_SHAPE_SOFTMAX) return TARE_ROW_BACKGROUND;
  const int32_t cls = class_of(&problem->batch, problem->batch.background_label);
  return cls == INVALID ? TARE_ROW_BACKGROUND : cls;
}

/** What a row is that has no label: of dense targets nothing more is known; in GHM-R it counts. */
static int32_t unlabelled(const tare_problem *problem) {
  return problem->shape == TARE_SHAPE_REGRESSION ? 0 : TARE_ROW_BACKGROUND;
}

static double row_weight_at(const tare_tile *tile, int32_t row) {
  const tare_array *weights = &tile->view->array[TARE_ROW_WEIGHTS];
  if (!weights->data) return 1.0;
  return ((const float *)weights->data)[tile->offset[TARE_ROW_WEIGHTS] + row * weights->stride[TARE_AXES - 1]];
}

static double class_weight_of(const tare_batch *batch, int32_t cls) {
  if (cls < 0) return batch->background_weight;
  return batch->class_weights ? batch->class_weights[cls] : 1.0;
}

/** What the loss makes of a classified row: its class or TARE_ROW_BACKGROUND, or TARE_ROW_SKIPPED. */
static int32_t role_of(const tare_problem *problem, int32_t found, int32_t if_background) {
  if (found == IGNORED || found == INVALID) return TARE_ROW_SKIPPED;
  if (problem->soft && problem->shape != TARE_SHAPE_REGRESSION) return TARE_ROW_BACKGROUND;
  if (found != TARE_ROW_BACKGROUND) return found;
  if (problem->shape == TARE_SHAPE_REGRESSION) return TARE_ROW_SKIPPED;
  if (problem->shape == TARE_SHAPE_SOFTMAX && if_background == TARE_ROW_BACKGROUND) return TARE_ROW_SKIPPED;
  return if_background;
}

void tare_tile_rows_decode(const tare_problem *problem, const tare_tile *tile, tare_tile_rows *rows) {
  const int32_t if_background = background_class(problem);
  const int has_labels = tile->view->array[TARE_LABELS].data != NULL, is_mask = tare_is_ghm(problem);
  rows->positives = 0;
  rows->uniform = 1;
  for (int32_t i = 0; i < tile->rows; i++) {
    const int32_t found = has_labels ? classify(problem, label_at(problem, tile, i)) : unlabelled(problem);
    int32_t role = role_of(problem, found, if_background);
    double weight = row_weight_at(tile, i);
    if (is_mask) weight = weight > 0.0 ? 1.0 : 0.0;
    if (!problem->soft) weight *= class_weight_of(&problem->batch, role);
    if (weight == 0.0) role = TARE_ROW_SKIPPED;
    if (role == TARE_ROW_SKIPPED) weight = 0.0;
    rows->cls[i] = role;
    rows->weight[i] = weight;
    rows->uniform &= weight == 1.0;
    if (role >= 0) rows->positive[rows->positives++] = i;
  }
}

static void count_row(const tare_problem *problem, int has_labels, int32_t found, int32_t role, double row_weight,
                      tare_label_scan *scan) {
  tare_counts *counts = &scan->counts;
  counts->rows++;
  counts->ignored += found == IGNORED;
  counts->invalid += found == INVALID;
  const int labelled = has_labels && (!problem->soft || problem->shape == TARE_SHAPE_REGRESSION);
  counts->background += labelled && found == TARE_ROW_BACKGROUND;
  counts->positives += labelled && found >= 0;
  const int counted = role != TARE_ROW_SKIPPED;
  counts->counted += counted;
  scan->weighted_rows += counted && row_weight > 0.0;
  scan->weighted_positives += counted && found >= 0 && row_weight > 0.0;
  if (counted) scan->weights += row_weight * (problem->soft ? 1.0 : class_weight_of(&problem->batch, role));
}

void tare_tile_scan_labels(const tare_problem *problem, const tare_tile *tile, tare_label_scan *scan,
                           int64_t *per_class) {
  const int32_t if_background = background_class(problem);
  const int has_labels = tile->view->array[TARE_LABELS].data != NULL;
  tare_label_scan sum = *scan; /* a copy, which stays in registers */
  for (int32_t i = 0; i < tile->rows; i++) {
    const int64_t label = has_labels ? label_at(problem, tile, i) : 0;
    const int32_t found = has_labels ? classify(problem, label) : unlabelled(problem);
    count_row(problem, has_labels, found, role_of(problem, found, if_background), row_weight_at(tile, i), &sum);
    if (per_class && found >= 0) per_class[found]++;
    if (found != INVALID) continue;
    const int64_t row = tile->view->first_row + tile->offset[TARE_ROW_INDEX] +
                        i * tile->view->array[TARE_ROW_INDEX].stride[TARE_AXES - 1];
    if (row < sum.first_invalid) {
      sum.first_invalid = row;
      sum.invalid_label = label;
    }
  }
  *scan = sum;
}
