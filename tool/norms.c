/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "norms.h"

#include <stdlib.h>

#include "tool/base/problem.h"

int norms_measure(struct run *run, int32_t bins, int64_t **counts) {
  struct run counting;
  const uint64_t bytes = (uint64_t)bins * sizeof **counts;
  void *memory = NULL;
  *counts = NULL;
  int status = run_borrow(&counting, run, &run->loss);
  for (int32_t level = 0; level < counting.batch.level_count; level++) counting.levels[level].gradient = NULL;
  if (status == TOOL_OK) status = device_alloc(run->device, bytes, &memory);
  counting.output.norm_bins = bins;
  counting.output.norm_histogram = memory;
  if (status == TOOL_OK) status = run_once(&counting);
  if (status == TOOL_OK) {
    *counts = malloc(bytes);
    if (*counts)
      device_get(run->device, *counts, memory, bytes);
    else
      status = complain("no memory for the counts of %d bins", bins);
  }
  device_free(run->device, memory);
  run_release(&counting);
  return status;
}

void print_norms(const int64_t *counts, int32_t bins) {
  struct table table = {.alignment = "lr"};
  table_cell(&table, "gradient norm");
  table_cell(&table, "elements");
  for (int32_t bin = 0; bin < bins; bin++) {
    table_cell(&table, "%.3f - %.3f", (double)bin / bins, (double)(bin + 1) / bins);
    table_cell(&table, "%s", grouped(counts[bin]).of);
  }
  table_print(&table, true);
}

json_t *json_norms(const int64_t *counts, int32_t bins) {
  json_t *array = json_array();
  for (int32_t bin = 0; bin < bins; bin++) json_append(array, json_integer((json_int_t)counts[bin]));
  return array;
}
