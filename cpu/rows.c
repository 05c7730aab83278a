/* SPDX-License-Identifier: Apache-2.0 */
/* How a problem is cut into tiles. */
#include "rows.h"

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
  tiling->groups = 0;
  for (int i = 0; i < TARE_MAX_LEVELS; i++) {
    const int64_t tiles = tiling->first_tile[i + 1] - tiling->first_tile[i];
    tiling->first_group[i] = tiling->groups;
    tiling->groups += (int32_t)(tiles < TARE_LEVEL_GROUPS ? tiles : TARE_LEVEL_GROUPS);
  }
  tiling->first_group[TARE_MAX_LEVELS] = tiling->groups;
}

int32_t tare_level_of_group(const tare_tiling *tiling, int32_t group) {
  int32_t level = 0;
  while (group >= tiling->first_group[level + 1]) level++;
  return level;
}

int64_t tare_part_start(int64_t tiles, int32_t parts, int64_t part) {
  const int64_t whole = tiles / parts, rest = tiles % parts;
  return whole * part + rest * part / parts;
}

int64_t tare_group_start(const tare_tiling *tiling, int32_t group) {
  if (group == tiling->groups) return tiling->tiles;
  const int32_t level = tare_level_of_group(tiling, group), first = tiling->first_group[level];
  const int64_t tiles = tiling->first_tile[level + 1] - tiling->first_tile[level];
  return tiling->first_tile[level] + tare_part_start(tiles, tiling->first_group[level + 1] - first, group - first);
}

void tare_tile_at(const tare_tiling *tiling, const tare_problem *problem, int64_t number, tare_tile *tile) {
  int level = 0;
  int64_t row = 0;
  while (number >= tiling->first_tile[level + 1]) row += problem->view[level++].rows;
  const tare_view *view = &problem->view[level];
  const int64_t inner = view->dim[TARE_AXES - 1], size = tiling->tile_rows[level];
  const int64_t chunks = (inner + size - 1) / size;
  int64_t rest = number - tiling->first_tile[level];
  int64_t index[TARE_AXES];
  index[3] = rest % chunks * size;
  rest /= chunks;
  tile->place = (row + rest * inner + index[3]) * problem->batch.classes;
  index[2] = rest % view->dim[2];
  rest /= view->dim[2];
  index[1] = rest % view->dim[1];
  index[0] = rest / view->dim[1];
  tile->view = view;
  tile->rows = (int32_t)(inner - index[3] < size ? inner - index[3] : size);
  for (int a = 0; a < TARE_ARRAY_COUNT; a++) {
    tile->offset[a] = 0;
    for (int axis = 0; axis < TARE_AXES; axis++) tile->offset[a] += index[axis] * view->array[a].stride[axis];
  }
}
