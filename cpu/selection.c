/* SPDX-License-Identifier: Apache-2.0 */
#include "selection.h"

#include "threads.h"

static void measure(tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem,
                    const tare_selection_room *room) {
  tare_problem measured;
  tare_selection_to_measure(problem, room, &measured);
  const tare_job job = {.problem = &measured, .pass = TARE_PASS_EVALUATE, .gradient = {.factor = 1}};
  tare_cpu_run_pass(cpu, tiling, &job);
}

/** Data that the pieces of the work share. Each piece writes its own labels. */
typedef struct settling {
  const tare_cpu *cpu;
  const tare_tiling *tiling;
  const tare_problem *problem;
  tare_selection_room room;
  int32_t background;
} settling;

/** The caller's labels of a tile in the room, as classes. An ignored row is one that is not selected. */
static void gather_labels_of_tile(void *argument, int64_t number, int32_t thread) {
  const settling *s = argument;
  tare_tile tile;
  int32_t found[TARE_TILE_ROWS];
  (void)thread;
  tare_tile_at(s->tiling, s->problem, number, &tile);
  s->cpu->kernels->all->classify_labels(s->problem, &tile, found);
  const int64_t step = tile.view->array[TARE_ARRAY_ROW_INDEX].stride[TARE_AXES - 1];
  int32_t *label = s->room.label + tile.view->first_row + tile.offset[TARE_ARRAY_ROW_INDEX];
  for (int32_t i = 0; i < tile.rows; i++) {
    const int32_t without_class = found[i] == TARE_ROW_BACKGROUND ? s->background : TARE_NOT_SELECTED;
    label[i * step] = found[i] >= 0 ? found[i] : without_class;
  }
}

static void settle_image(void *argument, int64_t image, int32_t thread) {
  const settling *s = argument;
  (void)thread;
  tare_selection_settle(s->problem, &s->room, image);
}

void tare_cpu_select(tare_cpu *cpu, const tare_tiling *tiling, const tare_plan *plan, tare_problem *selected) {
  const tare_problem *problem = plan->problem;
  settling s = {cpu, tiling, problem, plan->selection, tare_selection_background(problem)};
  measure(cpu, tiling, problem, &s.room);
  tare_share(cpu->threads, tiling->tiles, gather_labels_of_tile, &s);
  tare_share(cpu->threads, tare_selection_image_count(problem), settle_image, &s);
  tare_selection_to_evaluate(problem, &s.room, selected);
}
