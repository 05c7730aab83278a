/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "class_sums.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tool/base/problem.h"

/** A run of its own with the sums' memory, so that what another run has left is not touched. */
static int evaluate(struct run *with_sums, void *memory) {
  struct device *device = with_sums->device;
  with_sums->output.class_sums = memory;
  device_free(device, with_sums->workspace);
  with_sums->workspace = NULL;
  tare_status found = tare_workspace_size(device->context, &with_sums->loss, &with_sums->batch, &with_sums->output,
                                          &with_sums->workspace_bytes);
  int status = device_check(device, found);
  if (status == TOOL_OK && with_sums->workspace_bytes)
    status = device_alloc(device, with_sums->workspace_bytes, &with_sums->workspace);
  return status == TOOL_OK ? run_once(with_sums) : status;
}

int class_sums_measure(struct run *run, tare_class_sums **sums) {
  struct run with_sums;
  const uint64_t bytes = (uint64_t)run->batch.classes * sizeof **sums;
  void *memory = NULL;
  *sums = NULL;
  int status = run_borrow(&with_sums, run, &run->loss);
  for (int32_t level = 0; level < with_sums.batch.level_count; level++) with_sums.levels[level].gradient = NULL;
  if (status == TOOL_OK) status = device_alloc(run->device, bytes, &memory);
  if (status == TOOL_OK) status = evaluate(&with_sums, memory);
  if (status == TOOL_OK) {
    *sums = malloc(bytes);
    if (*sums)
      device_get(run->device, *sums, memory, bytes);
    else
      status = complain("no memory for the sums of %" PRId64 " classes", run->batch.classes);
  }
  device_free(run->device, memory);
  run_release(&with_sums);
  return status;
}

void print_class_sums(const tare_class_sums *sums, int64_t classes) {
  struct table table = {.alignment = "rrrrr"};
  static const char *const heads[] = {"class", "rows", "loss", "|gradient| of positives", "|gradient| of negatives"};
  for (int i = 0; i < 5; i++) table_cell(&table, "%s", heads[i]);
  for (int64_t c = 0; c < classes; c++) {
    table_cell(&table, "%" PRId64, c);
    table_cell(&table, "%s", grouped((int64_t)sums[c].count).of);
    table_cell(&table, "%.9g", sums[c].loss);
    table_cell(&table, "%.9g", sums[c].positive_gradient);
    table_cell(&table, "%.9g", sums[c].negative_gradient);
  }
  table_print(&table, true);
}

json_t *json_class_sums(const tare_class_sums *sums, int64_t classes) {
  json_t *loss = json_array(), *positive = json_array(), *negative = json_array(), *count = json_array();
  for (int64_t c = 0; c < classes; c++) {
    json_append(loss, json_number(sums[c].loss));
    json_append(positive, json_number(sums[c].positive_gradient));
    json_append(negative, json_number(sums[c].negative_gradient));
    json_append(count, json_integer((json_int_t)sums[c].count));
  }
  return json_pack("{s:o, s:o, s:o, s:o}", "loss", loss, "positive_gradient", positive, "negative_gradient", negative,
                   "count", count);
}
