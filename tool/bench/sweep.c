/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sweep is a benchmark for each size, one after the other, each with a batch and a device of its own. What a step
 * needs is estimated before, so that a size that does not fit ends the sweep and not the program.
 */
#define _GNU_SOURCE
#include "sweep.h"

#include <inttypes.h>
#include <stdlib.h>

#include "tool/base/convert.h"
#include "tool/base/gpu.h"
#include "tool/base/memory.h"
#include "tool/base/outfile.h"
#include "tool/base/problem.h"
#include "tool/base/progress.h"
#include "tool/report.h"

/* ---- The sizes --------------------------------------------------------------------------------------------------- */

static void add_size(struct sweep *sweep, int64_t size) {
  if (sweep->size_count < SWEEP_STEPS) sweep->sizes[sweep->size_count++] = size;
}

/* first, first * factor, ... below `most`; and `most`. */
static void add_powers(struct sweep *sweep, int64_t first, int64_t factor, int64_t most) {
  for (int64_t size = first; size < most; size *= factor) add_size(sweep, size);
  add_size(sweep, most);
}

/* 1, 2, 3, 4, 6, 8, 12, ...: machines have 6 and 12 cores, too. */
static void add_threads(struct sweep *sweep, int64_t most) {
  for (int64_t size = 1; size < most; size *= 2) {
    add_size(sweep, size);
    if (size > 1 && size / 2 * 3 < most) add_size(sweep, size / 2 * 3);
  }
  add_size(sweep, most);
}

/* What is swept has its option's value as its largest. */
static void choose_sizes(struct sweep *sweep, const struct device *device) {
  const struct bench_options *options = sweep->options;
  if (options->sweep == SWEEP_ROWS)
    add_powers(sweep, 1024, 4, options->rows_given ? options->rows : 1 << 24);
  else if (options->sweep == SWEEP_CLASSES)
    add_powers(sweep, 1, 2, options->classes_given ? options->classes : 4096);
  else
    add_threads(sweep, device->about.threads);
}

const char *sweep_name(const struct sweep *sweep) {
  return sweep->options->sweep == SWEEP_ROWS ? "rows" : sweep->options->sweep == SWEEP_CLASSES ? "classes" : "threads";
}

static struct bench_options options_of(const struct sweep *sweep, int64_t size) {
  const int64_t elements = INT64_C(1) << 23;
  struct bench_options options = *sweep->options;
  if (options.sweep == SWEEP_ROWS) options.rows = size;
  if (options.sweep == SWEEP_CLASSES) {
    options.classes = size;
    options.rows = size < elements ? elements / size : 1;
  }
  if (options.sweep == SWEEP_THREADS) options.threads = (int32_t)size;
  return options;
}

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

/* Logits as the batch, on the device, and as the copy's target; the gradient. A GPU has the logits again in place of
 * the batch. Labels, boxes and sums of rows; numbers as they are drawn; the rest of the program. */
static double bytes_needed(const struct bench_options *options, bool gpu) {
  const double rows = (double)options->rows, elements = rows * (double)options->classes, drawn = 1 << 24;
  const double of_logits = elements * (double)dtype_size(options->dtype);
  const double arrays = of_logits * (3 + options->apart) + 96 * rows + 128 * (double)options->classes;
  if (gpu) return arrays + 4 * (double)gpu_cache_bytes() + (64 << 20);
  return arrays + 12 * (elements < drawn ? elements : drawn) + (64 << 20);
}

/* Whether there is memory for a step. If not, the sweep has its end, with its reason. */
static bool fits(struct sweep *sweep, const struct bench_options *options, const struct device *device, int64_t size) {
  const double needed = bytes_needed(options, device_is_gpu(device)), free_bytes = memory_free_bytes(device);
  const bool lacks = free_bytes >= 0 && free_bytes < needed;
  if (!lacks && (device_is_gpu(device) || memory_is_allowed(needed))) return true;
  char enough[64];
  snprintf(enough, sizeof enough, lacks ? "%.2f GB are free" : "the process may not have them", free_bytes * 1e-9);
  sweep->ended_before = size;
  snprintf(sweep->reason, sizeof sweep->reason, "%s %s need about %.2f GB of memory, and %s", grouped(size).of,
           sweep_name(sweep), needed * 1e-9, enough);
  return false;
}

/* ---- The steps --------------------------------------------------------------------------------------------------- */

/* What changes from step to step is in the step, the rest in the setting. */
static void keep_step(struct sweep *sweep, struct bench *bench) {
  static const char *const own[] = {"rows", "classes", "threads", "logits_bytes", "cache"};
  json_t *setting = bench_setting_json(bench), *step = json_object();
  for (size_t index = 0; index < sizeof own / sizeof own[0]; index++) {
    json_set(step, own[index], json_incref(json_object_get(setting, own[index])));
    json_object_del(setting, own[index]);
  }
  bench_add_results(step, bench);
  json_append(sweep->steps, step);
  if (sweep->setting)
    json_decref(setting);
  else
    sweep->setting = setting;
}

static int run_step(struct sweep *sweep, int64_t size) {
  struct bench *bench = calloc(1, sizeof *bench);
  if (!bench) return complain("out of memory");
  bench->options = options_of(sweep, size);
  int status = device_open(&bench->device, bench->options.device, bench->options.threads);
  if (status == TOOL_OK && fits(sweep, &bench->options, &bench->device, size)) {
    status = bench_prepare(bench);
    if (status == TOOL_OK) status = bench_measure(bench);
    if (status == TOOL_OK) keep_step(sweep, bench);
  }
  bench_release(bench);
  free(bench);
  return status;
}

static int run_steps(struct sweep *sweep) {
  int status = TOOL_OK;
  for (int32_t index = 0; status == TOOL_OK && !sweep->ended_before && index < sweep->size_count; index++) {
    progress_part(index, sweep->size_count);
    status = run_step(sweep, sweep->sizes[index]);
  }
  progress_part(0, 0);
  if (status == TOOL_OK && json_array_size(sweep->steps) == 0)
    return complain("--sweep %s: %s", sweep_name(sweep), sweep->reason);
  return status;
}

static int report(struct sweep *sweep, FILE *plot) {
  const struct bench_options *options = sweep->options;
  int status = plot ? sweep_chart(plot, sweep) : TOOL_OK;
  if (status == TOOL_OK) status = outfile_complete();
  if (status == TOOL_OK) status = bench_write(options, &(struct bench_report){sweep_json(sweep), sweep_print, sweep});
  if (status == TOOL_OK && plot && !options->json && !options->csv) printf("picture: %s\n", options->plot);
  if (status == TOOL_OK) status = finish_output();
  return status == TOOL_OK ? outfile_commit() : status;
}

int sweep_bench(const struct bench_options *options, struct device *device) {
  struct sweep sweep = {.options = options, .steps = json_array()};
  if (options->sweep == SWEEP_THREADS && device_is_gpu(device))
    return misuse("--sweep threads is of the CPU, and the device is a GPU; add --device cpu");
  choose_sizes(&sweep, device);
  FILE *plot = options->plot ? outfile_open("--plot", options->plot) : NULL;
  int status = options->plot && !plot ? TOOL_FAILED : run_steps(&sweep);
  if (status == TOOL_OK) status = report(&sweep, plot);
  outfile_discard();
  json_decref(sweep.setting);
  json_decref(sweep.steps);
  return status;
}
