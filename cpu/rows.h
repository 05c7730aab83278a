/* SPDX-License-Identifier: Apache-2.0 */
/* Tiles of a problem, and what labels and weights make of their rows. */
#ifndef TARE_CPU_ROWS_H
#define TARE_CPU_ROWS_H

#include "job.h"

/** How a problem is cut into tiles: a matter of its shape alone, so that sums do not depend on threads. */
typedef struct tare_tiling {
  int64_t tiles;                           /* of all levels */
  int64_t first_tile[TARE_MAX_LEVELS + 1]; /* of each level, and the end */
  int32_t tile_rows[TARE_MAX_LEVELS];
  int32_t groups;
} tare_tiling;

/** Whether blocks run along rows, class after class (NCHW), rather than along classes. */
static inline int tare_view_by_class(const tare_view *view, int64_t classes) {
  const int64_t row = view->array[TARE_LOGITS].stride[TARE_AXES - 1], cls = view->array[TARE_LOGITS].cls;
  return classes == 1 || (row < 0 ? -row : row) < (cls < 0 ? -cls : cls);
}

void tare_tiling_make(tare_tiling *tiling, const tare_problem *problem);

/** The tile of a number in [0, tiles). */
void tare_tile_at(const tare_tiling *tiling, const tare_problem *problem, int64_t number, tare_tile *tile);

/** Class (or TARE_ROW_...) and weight of each row of a tile, for the losses. */
void tare_tile_rows_decode(const tare_problem *problem, const tare_tile *tile, tare_tile_rows *rows);

/** What a pass over the labels finds. */
typedef struct tare_label_scan {
  tare_counts counts;
  double weights;        /* sum of row weight x class weight over rows that count */
  int64_t weighted_rows; /* rows that count and whose row weight is > 0 */
  int64_t weighted_positives;
  int64_t first_invalid; /* in row order; INT64_MAX if none */
  int64_t invalid_label;
} tare_label_scan;

/** Adds what a tile's labels say to `scan`; `per_class` (may be NULL) gets one more for each class met. */
void tare_tile_scan_labels(const tare_problem *problem, const tare_tile *tile, tare_label_scan *scan,
                           int64_t *per_class);

#endif
