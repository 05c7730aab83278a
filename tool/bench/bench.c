/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tare bench`: how long loss and gradient take. In every round each loss runs once, between two plain copies of the
 * same bytes by as many threads, so that whatever else the machine does hits all of them alike. Before each run the
 * logits are put back, outside the measured time. On a GPU time is the device's own, the copy is the driver's, and the
 * cache is flushed before each run.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <stdlib.h>

#include "compare.h"
#include "fused.h"
#include "sweep.h"
#include "tool/base/convert.h"
#include "tool/base/gpu.h"
#include "tool/base/outfile.h"
#include "tool/base/problem.h"
#include "tool/base/progress.h"
#include "tool/provenance.h"
#include "tool/report.h"
#include "tool/verbs.h"

static int copy_once(struct bench *bench, struct times *also) {
  const struct sample *sample = &bench->batch;
  size_t bytes = (size_t)(sample->rows * sample->classes) * dtype_size(sample->dtype);
  bench_restore(bench, &bench->base);
  double seconds = 0;
  if (device_is_gpu(&bench->device)) {
    gpu_timer_start();
    gpu_start_copy(bench->copy_target, bench->base.logits, bytes);
    seconds = gpu_timer_stop();
  } else {
    seconds = copier_run(bench->copier, bench->copy_target, bench->base.logits, bytes);
  }
  int status = also ? times_add(&bench->copies, seconds) : TOOL_OK;
  return also && status == TOOL_OK ? times_add(also, seconds) : status;
}

static int run_lane(struct bench *bench, struct lane *lane, bool warm_up) {
  bench_restore(bench, &lane->run);
  bool gpu = device_is_gpu(&bench->device);
  if (gpu) gpu_timer_start();
  double before = seconds_now();
  int status = run_start(&lane->run);
  double taken = gpu ? gpu_timer_stop() : seconds_now() - before;
  if (status == TOOL_OK) status = device_wait(&bench->device);
  return status == TOOL_OK && !warm_up ? times_add(&lane->times, taken) : status;
}

static int run_round(struct bench *bench, bool warm_up) {
  int status = copy_once(bench, warm_up ? NULL : &bench->first_copies);
  for (int32_t index = 0; status == TOOL_OK && index < bench->lane_count; index++) {
    status = run_lane(bench, &bench->lanes[index], warm_up);
  }
  return status == TOOL_OK ? copy_once(bench, warm_up ? NULL : &bench->last_copies) : status;
}

/* At least 15 rounds, and more while they fit in the budget; a round that is very long is taken less often. */
int64_t bench_rounds_within(double round, double budget) {
  const double patience = 12 * budget;
  double rounds = round > 0 ? budget / round : 200;
  if (rounds > 200) rounds = 200;
  if (rounds < 15) rounds = 15;
  if (rounds * round > patience) rounds = patience / round;
  return rounds < 6 ? 6 : (int64_t)rounds;
}

/* Round by round, so that whatever else the machine did hits both alike. */
static int compare_with_focal(struct bench *bench) {
  const struct lane *focal = NULL;
  for (int32_t index = 0; index < bench->lane_count && !focal; index++) {
    const struct contender *contender = &bench->lanes[index].contender;
    if (contender->loss.kind == TARE_LOSS_SIGMOID_FOCAL && !contender->class_balanced) focal = &bench->lanes[index];
  }
  int status = TOOL_OK;
  for (int32_t index = 0; focal && index < bench->lane_count; index++) {
    struct lane *lane = &bench->lanes[index];
    if (lane->contender.loss.kind == TARE_LOSS_GHM_R) continue;
    for (size_t round = 0; status == TOOL_OK && round < lane->times.count; round++) {
      status = times_add(&lane->of_focal, lane->times.of[round] / focal->times.of[round]);
    }
  }
  return status;
}

static int compare_with_copies(struct bench *bench) {
  int status = TOOL_OK;
  for (int32_t index = 0; index < bench->lane_count; index++) {
    struct lane *lane = &bench->lanes[index];
    for (size_t round = 0; status == TOOL_OK && round < lane->times.count; round++) {
      const double copies = (bench->first_copies.of[round] + bench->last_copies.of[round]) / 2;
      status = times_add(&lane->of_copy, lane->times.of[round] / copies);
    }
  }
  return status;
}

int bench_measure(struct bench *bench) {
  progress_begin("warming up");
  int status = run_round(bench, true);
  double before = seconds_now();
  if (status == TOOL_OK) status = run_round(bench, true);
  double round = seconds_now() - before;
  bench->rounds = bench->options.repeat ? bench->options.repeat : bench_rounds_within(round, bench->options.budget);
  progress_begin("measuring");
  for (int64_t number = 0; status == TOOL_OK && number < bench->rounds; number++) {
    progress_at(number, bench->rounds);
    status = run_round(bench, false);
  }
  progress_end();
  if (status == TOOL_OK) status = compare_with_copies(bench);
  return status == TOOL_OK ? compare_with_focal(bench) : status;
}

/* The file of --plot is opened before the measuring, and gets its name after the report. */
static int run_bench(struct bench *bench) {
  const struct bench_options *options = &bench->options;
  FILE *plot = options->plot ? outfile_open("--plot", options->plot) : NULL;
  int status = options->plot && !plot ? TOOL_FAILED : bench_prepare(bench);
  json_t *object = status == TOOL_OK ? bench_setting_json(bench) : NULL;
  if (status == TOOL_OK && options->old) status = comparison_check(options->compare, options->old, object);
  if (status == TOOL_OK) status = bench_measure(bench);
  if (status == TOOL_OK && plot) status = bench_chart(plot, bench);
  if (status == TOOL_OK) status = outfile_complete();
  if (status == TOOL_OK) {
    bench_add_results(object, bench);
    status = bench_write(options, &(struct bench_report){json_incref(object), bench_print, bench});
  }
  json_decref(object);
  if (status == TOOL_OK && plot && !options->json && !options->csv) printf("picture: %s\n", options->plot);
  if (status == TOOL_OK) status = finish_output();
  if (status == TOOL_OK) status = outfile_commit();
  outfile_discard();
  return status;
}

static int read_old(struct bench_options *options) {
  if (options->compare) options->old = comparison_read(options->compare);
  return options->compare && !options->old ? TOOL_FAILED : TOOL_OK;
}

int verb_bench(int argc, char **argv) {
  struct bench *bench = calloc(1, sizeof *bench);
  if (!bench) return complain("out of memory");
  bench->options.command = provenance_command(argc, argv);
  int status = bench_options_read(&bench->options, argc, argv);
  if (status == TOOL_OK) status = read_old(&bench->options);
  if (status == TOOL_OK) status = device_open(&bench->device, bench->options.device, bench->options.threads);
  if (status == TOOL_OK) {
    status = bench->options.dimensions ? fused_bench(&bench->options, &bench->device)
             : bench->options.sweep    ? sweep_bench(&bench->options, &bench->device)
                                       : run_bench(bench);
  }
  bench_release(bench);
  json_decref(bench->options.command);
  json_decref(bench->options.old);
  free(bench);
  return status;
}
