/* SPDX-License-Identifier: Apache-2.0 */
#include "selection.h"

static void measure(tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem,
                    const tare_selection_room *room) {
  tare_problem measured;
  tare_selection_to_measure(problem, room, &measured);
  const tare_job job = {.problem = &measured, .pass = TARE_PASS_EVALUATE, .gradient = {.factor = 1}};
  tare_cpu_run_pass(cpu, tiling, &job);
}

/** The caller's labels in the room, as classes. An ignored row is one that is not selected. */
static void gather_labels(const tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem,
                          const tare_selection_room *room) {
  const int32_t background = tare_selection_background(problem);
  for (int64_t number = 0; number < tiling->tiles; number++) {
    tare_tile tile;
    int32_t found[TARE_TILE_ROWS];
    tare_tile_at(tiling, problem, number, &tile);
    cpu->kernels->f64->classify_labels(problem, &tile, found);
    const int64_t step = tile.view->array[TARE_ROW_INDEX].stride[TARE_AXES - 1];
    int32_t *label = room->label + tile.view->first_row + tile.offset[TARE_ROW_INDEX];
    for (int32_t i = 0; i < tile.rows; i++) {
      const int32_t without_class = found[i] == TARE_ROW_BACKGROUND ? background : TARE_NOT_SELECTED;
      label[i * step] = found[i] >= 0 ? found[i] : without_class;
    }
  }
}

void tare_cpu_select(tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem, void *workspace,
                     tare_problem *selected) {
  const tare_selection_room room = tare_selection_room_at(problem, workspace);
  measure(cpu, tiling, problem, &room);
  gather_labels(cpu, tiling, problem, &room);
  for (int64_t image = 0; image < problem->batch.images; image++) tare_selection_settle(problem, &room, image);
  tare_selection_to_evaluate(problem, &room, selected);
}
