/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The form of the report that the command line asks for.
 */
#define _GNU_SOURCE
#include "bench.h"
#include "compare.h"
#include "csv.h"
#include "tool/base/problem.h"
#include "tool/report.h"

int bench_write(const struct bench_options *options, const struct bench_report *report) {
  json_t *object = report->object;
  if (options->old) json_set(object, "comparison", comparison_of(options->compare, options->old, object));
  if (options->json) return json_print(object);
  if (options->csv) {
    csv_print(object);
  } else {
    report->print(report->contents);
    if (options->old) comparison_print(json_object_get(object, "comparison"), object);
  }
  json_decref(object);
  return TOOL_OK;
}
