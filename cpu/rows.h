/* SPDX-License-Identifier: Apache-2.0 */
/* How a problem is cut into tiles. */
#ifndef TARE_CPU_ROWS_H
#define TARE_CPU_ROWS_H

#include "job.h"

/** How a problem is cut into tiles, and these are grouped. It depends on the sizes alone, so sums do not depend on
 *  threads. Of a level it depends on that level alone, so its sum is that of a problem of its own. */
typedef struct tare_tiling {
  int64_t tiles;                            /* of all levels */
  int64_t first_tile[TARE_MAX_LEVELS + 1];  /* of each level, and the end */
  int32_t first_group[TARE_MAX_LEVELS + 1]; /* the same of groups */
  int32_t tile_rows[TARE_MAX_LEVELS];
  int32_t groups; /* of all levels */
} tare_tiling;

/** Whether blocks run along rows, class after class (NCHW), rather than along classes. */
static inline int tare_view_by_class(const tare_view *view, int64_t classes) {
  const int64_t row = view->array[TARE_ARRAY_LOGITS].stride[TARE_AXES - 1], cls = view->array[TARE_ARRAY_LOGITS].cls;
  return classes == 1 || (row < 0 ? -row : row) < (cls < 0 ? -cls : cls);
}

void tare_tiling_make(tare_tiling *tiling, const tare_problem *problem);

/** The level of a group. */
int32_t tare_level_of_group(const tare_tiling *tiling, int32_t group);

/** The tiles of a group are those from here to the start of the next group. */
int64_t tare_group_start(const tare_tiling *tiling, int32_t group);

/** The first tile of a part, of so many parts of `tiles`; part `parts` is the end. */
int64_t tare_part_start(int64_t tiles, int32_t parts, int64_t part);

/** The tile of a number in [0, tiles). */
void tare_tile_at(const tare_tiling *tiling, const tare_problem *problem, int64_t number, tare_tile *tile);

#endif
