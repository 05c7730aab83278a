/* SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"

#include "class_sums.h"
#include "flags.h"
#include "norms.h"

static void place_keys(tare_plan *plan, uint64_t own_bytes, void *workspace) {
  plan->keys = plan->problem->rows * plan->problem->batch.classes;
  if (!plan->keys) return;
  plan->own_bytes = own_bytes;
  plan->bytes = own_bytes + 3 * sizeof(double) * (uint64_t)plan->keys;
  if (!workspace) return;
  plan->own = workspace;
  plan->key = (double *)((char *)workspace + own_bytes);
  plan->weight = plan->key + plan->keys;
  plan->spare = plan->weight + plan->keys;
}

static int evaluates(const tare_problem *problem) {
  const tare_output *output = &problem->output;
  int wanted = !output->normalizer_sums || tare_selects(problem) || output->loss || output->class_sums ||
               tare_has_flags(output) || tare_counts_norms(problem);
  for (int i = 0; i < problem->level_count; i++) {
    const tare_array *array = problem->view[i].array;
    wanted |= problem->scalars[i].loss || array[TARE_ARRAY_GRADIENT].data || array[TARE_ARRAY_ROW_LOSS].data ||
              array[TARE_ARRAY_ELEMENT_LOSS].data;
  }
  return wanted;
}

void tare_plan_make(tare_plan *plan, const tare_problem *problem, uint64_t own_bytes, void *workspace) {
  *plan = (tare_plan){.problem = problem,
                      .density = tare_density_source(problem),
                      .selects = tare_selects(problem),
                      .evaluates = evaluates(problem)};
  if (plan->density == TARE_DENSITY_SOURCE_KEYS) place_keys(plan, own_bytes, workspace);
  if (plan->selects) plan->bytes = tare_selection_bytes(problem);
  if (plan->selects && workspace) plan->selection = tare_selection_room_at(problem, workspace);
  if (!tare_sums_classes(problem)) return;
  if (workspace) plan->class_sums = tare_class_sum_room(problem, workspace, plan->bytes);
  plan->bytes = tare_with_class_sums(problem, plan->bytes);
}
