/* SPDX-License-Identifier: Apache-2.0 */
#include "class_sums.h"

#include "view.h"

enum {
  ROWS_OF_SLICE = 256,  /* a slice has no fewer, so that a small batch needs no workspace */
  MOST_SLICES = 512,    /* work for every multiprocessor */
  MOST_PLACES = 1 << 19 /* slices x classes: 16 MiB */
};

static int64_t slices_of(const tare_problem *problem, int64_t rows) {
  const int64_t by_rows = rows / ROWS_OF_SLICE, by_classes = MOST_PLACES / problem->batch.classes;
  int64_t slices = by_rows < by_classes ? by_rows : by_classes;
  slices = slices < MOST_SLICES ? slices : MOST_SLICES;
  return slices > 1 ? slices : 1;
}

int32_t tare_class_sum_slices(const tare_problem *problem) { return (int32_t)slices_of(problem, problem->rows); }

uint64_t tare_class_sum_bytes(const tare_problem *problem, int64_t rows) {
  if (!tare_sums_classes(problem)) return 0;
  return (uint64_t)((slices_of(problem, rows) - 1) * problem->batch.classes) * sizeof(tare_class_sums);
}

static uint64_t room_start(uint64_t bytes) { return (bytes + 15) / 16 * 16; }

uint64_t tare_with_class_sums(const tare_problem *problem, uint64_t bytes) {
  const uint64_t of_sums = tare_class_sum_bytes(problem, problem->rows);
  return of_sums ? room_start(bytes) + of_sums : bytes;
}

tare_class_sums *tare_class_sum_room(const tare_problem *problem, void *workspace, uint64_t bytes) {
  if (tare_class_sum_slices(problem) == 1) return NULL;
  return (tare_class_sums *)(void *)((char *)workspace + room_start(bytes));
}

void tare_class_sums_to_measure(const tare_problem *problem, tare_problem *summed) {
  *summed = *problem;
  tare_output_init(&summed->output);
  summed->output.class_sums = problem->output.class_sums;
  for (int i = 0; i < problem->level_count; i++) {
    const int absent[] = {TARE_ARRAY_GRADIENT, TARE_ARRAY_ROW_LOSS, TARE_ARRAY_ELEMENT_LOSS};
    for (size_t k = 0; k < sizeof absent / sizeof *absent; k++) summed->view[i].array[absent[k]].data = NULL;
  }
}

static tare_status check_overlaps(const tare_problem *problem, tare_error *error) {
  const int64_t bytes = (int64_t)sizeof(tare_class_sums);
  const tare_footprint sums = {.data = (intptr_t)problem->output.class_sums,
                               .element = bytes,
                               .length = {problem->batch.classes, 1, 1, 1, 1},
                               .stride = {bytes, 0, 0, 0, 0}};
  for (int i = 0; i < problem->level_count; i++)
    for (int name = 0; name < TARE_ARRAY_ROW_INDEX && problem->view[i].rows; name++) {
      if (!problem->view[i].array[name].data) continue;
      const tare_footprint array = tare_view_footprint(problem, &problem->view[i], name);
      if (tare_footprints_overlap(&sums, &array))
        return tare_fail(
            error, TARE_STATUS_INVALID_ARGUMENT, "output->class_sums (%p) overlaps %s (%p); it must overlap no array",
            (void *)problem->output.class_sums, tare_array_path(i, name).text, problem->view[i].array[name].data);
    }
  return TARE_STATUS_OK;
}

tare_status tare_check_class_sums(const tare_problem *problem, tare_error *error) {
  const char *const name = tare_loss_name(problem->loss.kind);
  if (!tare_sums_classes(problem)) return TARE_STATUS_OK;
  if (problem->family == TARE_LOSS_FAMILY_REGRESSION)
    return tare_fail(error, TARE_STATUS_UNSUPPORTED,
                     "output->class_sums with %s: its columns are not classes; leave class_sums NULL", name);
  if (problem->family == TARE_LOSS_FAMILY_SOFTMAX && problem->soft)
    return tare_fail(error, TARE_STATUS_UNSUPPORTED,
                     "output->class_sums with %s and dense targets: a row's loss belongs to no class; use labels, or "
                     "leave class_sums NULL",
                     name);
  if (tare_has_bins(problem))
    return tare_fail(error, TARE_STATUS_UNSUPPORTED,
                     "output->class_sums with %s and scores: a target between two bins belongs to no class; leave "
                     "class_sums NULL",
                     name);
  if ((uintptr_t)problem->output.class_sums % 8)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "output->class_sums is %p; it must be aligned to 8 bytes",
                     (void *)problem->output.class_sums);
  return check_overlaps(problem, error);
}
