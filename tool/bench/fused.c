/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fused head against the same in steps: product, loss with its gradient in place, two products, with the same BLAS.
 * In every round each loss runs both ways, one after the other, and the three products alone once. Memory is measured
 * apart from time, in a run of its own whose working memory comes fresh from the system.
 */
#define _GNU_SOURCE
#include "fused.h"

#include <math.h>
#include <stdlib.h>

#include "compare.h"
#include "tool/base/convert.h"
#include "tool/base/gpu.h"
#include "tool/base/memory.h"
#include "tool/base/problem.h"
#include "tool/base/progress.h"
#include "tool/report.h"

/* ---- What it runs on --------------------------------------------------------------------------------------------- */

/** An array of normal numbers on the device. */
static int make_normals(struct fused *bench, int64_t count, double deviation, uint64_t seed, void **memory) {
  int32_t dtype = bench->options->dtype;
  uint64_t bytes = (uint64_t)count * dtype_size(dtype);
  int status = device_alloc(bench->device, bytes, memory);
  char *host = malloc((size_t)bytes);
  if (status == TOOL_OK && !host) status = complain("no memory for %lld numbers", (long long)count);
  if (status == TOOL_OK) {
    synthetic_normals(dtype, host, count, deviation, seed);
    device_put(bench->device, *memory, host, bytes);
  }
  free(host);
  return status;
}

static int make_classifier(struct fused *bench) {
  struct classifier *c = &bench->classifier;
  const struct bench_options *o = bench->options;
  *c = (struct classifier){.rows = o->rows, .classes = o->classes, .dimensions = o->dimensions, .dtype = o->dtype};
  uint64_t features = (uint64_t)c->rows * (uint64_t)c->dimensions, weights = (uint64_t)(c->classes * c->dimensions);
  double deviation = o->distribution.deviation / sqrt((double)c->dimensions); /* the logits have the distribution's */
  int status = make_normals(bench, (int64_t)features, 1, 11, &c->features);
  if (status == TOOL_OK) status = make_normals(bench, (int64_t)weights, deviation, 12, &c->weights);
  if (status == TOOL_OK) status = device_alloc(bench->device, features * dtype_size(c->dtype), &c->features_gradient);
  if (status == TOOL_OK) status = device_alloc(bench->device, weights * sizeof(float), &c->weights_gradient);
  if (status != TOOL_OK) return status;
  device_clear(bench->device, c->features_gradient, features * dtype_size(c->dtype));
  device_clear(bench->device, c->weights_gradient, weights * sizeof(float));
  tare_linear_init(&bench->linear, c->dimensions);
  bench->linear.dtype = c->dtype;
  bench->linear.features = c->features;
  bench->linear.weights = c->weights;
  bench->linear.features_gradient = c->features_gradient;
  bench->linear.weights_gradient = c->weights_gradient;
  return TOOL_OK;
}

static int make_batch(struct fused *bench) {
  struct sample *sample = &bench->sample;
  sample_init(sample);
  sample->rows = bench->options->rows;
  sample->classes = bench->options->classes;
  uint64_t bytes = (uint64_t)sample->rows * sizeof(int32_t);
  int status = synthetic_labels(sample);
  if (status == TOOL_OK) status = device_alloc(bench->device, bytes, &bench->labels);
  if (status == TOOL_OK) status = device_alloc(bench->device, sizeof(double), &bench->scalar);
  if (status != TOOL_OK) return status;
  device_put(bench->device, bench->labels, sample->labels, bytes);
  tare_level_init_rows(&bench->level, sample->rows, sample->classes);
  bench->level.labels = bench->labels;
  tare_batch_init(&bench->batch);
  bench->batch.levels = &bench->level;
  bench->batch.level_count = 1;
  bench->batch.classes = sample->classes;
  bench->batch.background_label = sample->background_label;
  bench->batch.ignore_label = sample->ignore_label;
  return TOOL_OK;
}

/** One of the losses, and the workspace that it takes. */
static int make_lane(struct fused *bench, struct fused_lane *lane) {
  uint64_t least, ample;
  tare_output_init(&lane->output);
  lane->output.loss = bench->scalar;
  lane->output.loss_dtype = TARE_DTYPE_F64;
  lane->output.normalizer = kind_is_ghm(lane->contender.loss.kind) ? TARE_NORMALIZER_SUM : TARE_NORMALIZER_POSITIVES;
  int status = device_check(bench->device,
                            tare_linear_workspace_size(bench->device->context, &lane->contender.loss, &bench->batch,
                                                       &bench->linear, &lane->output, &least, &ample));
  if (status != TOOL_OK) return status;
  double bound = bench->options->workspace * 1e6;
  lane->workspace_bytes = bound > 0 && bound < (double)ample ? (uint64_t)bound : ample;
  if (lane->workspace_bytes > bench->workspace_bytes) bench->workspace_bytes = lane->workspace_bytes;
  return TOOL_OK;
}

static int prepare(struct fused *bench) {
  progress_begin("making the batch");
  struct contender contenders[MAX_CONTENDERS];
  bench->lane_count = contenders_list(&bench->options->filter, contenders);
  bench->logits_bytes =
      (uint64_t)bench->options->rows * (uint64_t)bench->options->classes * (uint64_t)dtype_size(bench->options->dtype);
  int status = product_open(bench->device, bench->options->dtype);
  if (status == TOOL_OK) status = make_classifier(bench);
  if (status == TOOL_OK) status = make_batch(bench);
  for (int32_t index = 0; status == TOOL_OK && index < bench->lane_count; index++) {
    bench->lanes[index].contender = contenders[index];
    status = make_lane(bench, &bench->lanes[index]);
  }
  if (status == TOOL_OK && device_is_gpu(bench->device)) {
    bench->flushed_bytes = 4 * gpu_cache_bytes();
    status = device_alloc(bench->device, bench->flushed_bytes, &bench->flushed);
  }
  return status;
}

/* ---- The two ways ------------------------------------------------------------------------------------------------ */

static int run_fused(struct fused *bench, struct fused_lane *lane) {
  tare_context *context = bench->device->context;
  int status =
      device_check(bench->device, tare_context_set_workspace(context, bench->workspace, lane->workspace_bytes));
  if (status != TOOL_OK) return status;
  return device_check(bench->device, tare_linear_evaluate(context, &lane->contender.loss, &bench->batch, &bench->linear,
                                                          &lane->output, NULL));
}

static int run_unfused(struct fused *bench, struct fused_lane *lane) {
  tare_level level = bench->level;
  level.logits = level.gradient = bench->logits;
  tare_batch batch = bench->batch;
  batch.levels = &level;
  batch.dtype = bench->classifier.dtype;
  product_logits(&bench->classifier, bench->logits);
  int status = device_check(bench->device,
                            tare_evaluate(bench->device->context, &lane->contender.loss, &batch, &lane->output, NULL));
  if (status != TOOL_OK) return status;
  product_weights_gradient(&bench->classifier, bench->logits);
  product_features_gradient(&bench->classifier, bench->logits);
  return TOOL_OK;
}

static int run_products(struct fused *bench, struct fused_lane *lane) {
  (void)lane;
  product_logits(&bench->classifier, bench->logits);
  product_weights_gradient(&bench->classifier, bench->logits);
  product_features_gradient(&bench->classifier, bench->logits);
  return TOOL_OK;
}

typedef int run_function(struct fused *, struct fused_lane *);

static int time_run(struct fused *bench, run_function *run, struct fused_lane *lane, struct times *times) {
  bool gpu = device_is_gpu(bench->device);
  if (gpu) gpu_flush(bench->flushed, bench->flushed_bytes);
  if (gpu) gpu_timer_start();
  double before = seconds_now();
  int status = run(bench, lane);
  double taken = gpu ? gpu_timer_stop() : seconds_now() - before;
  if (status == TOOL_OK) status = device_wait(bench->device);
  return status == TOOL_OK && times ? times_add(times, taken) : status;
}

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

static int measure_peak(struct fused *bench, run_function *run, struct fused_lane *lane, void **memory, uint64_t bytes,
                        struct cost *cost) {
  memory_mark(bench->device);
  int status = working_alloc(bench->device, bytes, memory);
  if (status == TOOL_OK) status = run(bench, lane);
  if (status == TOOL_OK) status = device_wait(bench->device);
  cost->peak = memory_peak(bench->device);
  if (status == TOOL_OK) device_get(bench->device, &cost->loss, bench->scalar, sizeof cost->loss);
  working_free(bench->device, *memory, bytes);
  *memory = NULL;
  return status;
}

/** Both ways must have computed the same. */
static int compare_losses(const struct fused *bench, const struct fused_lane *lane) {
  double allowed = bench->options->dtype == TARE_DTYPE_F32 ? 1e-4 : 2e-2;
  if (fabs(lane->fused.loss - lane->unfused.loss) <= allowed * fabs(lane->unfused.loss)) return TOOL_OK;
  return complain("--head: %s is %g fused and %g not", lane->contender.label, lane->fused.loss, lane->unfused.loss);
}

/** Each way twice: what a BLAS keeps from its first product on is neither's. */
static int measure_memory(struct fused *bench) {
  int status = TOOL_OK;
  progress_begin("measuring memory");
  for (int32_t index = 0; status == TOOL_OK && index < bench->lane_count; index++) {
    struct fused_lane *lane = &bench->lanes[index];
    progress_at(index, bench->lane_count);
    for (int again = index ? 1 : 0; status == TOOL_OK && again < 2; again++) {
      status = measure_peak(bench, run_fused, lane, &bench->workspace, lane->workspace_bytes, &lane->fused);
      if (status == TOOL_OK)
        status = measure_peak(bench, run_unfused, lane, &bench->logits, bench->logits_bytes, &lane->unfused);
    }
    if (status == TOOL_OK) status = compare_losses(bench, lane);
  }
  progress_end();
  return status;
}

/* ---- Time -------------------------------------------------------------------------------------------------------- */

static int run_round(struct fused *bench, bool warm_up) {
  int status = time_run(bench, run_products, NULL, warm_up ? NULL : &bench->products);
  for (int32_t index = 0; status == TOOL_OK && index < bench->lane_count; index++) {
    struct fused_lane *lane = &bench->lanes[index];
    status = time_run(bench, run_fused, lane, warm_up ? NULL : &lane->fused.times);
    if (status == TOOL_OK) status = time_run(bench, run_unfused, lane, warm_up ? NULL : &lane->unfused.times);
  }
  return status;
}

static int measure_time(struct fused *bench) {
  int status = working_alloc(bench->device, bench->workspace_bytes, &bench->workspace);
  if (status == TOOL_OK) status = working_alloc(bench->device, bench->logits_bytes, &bench->logits);
  progress_begin("warming up");
  double before = seconds_now();
  if (status == TOOL_OK) status = run_round(bench, true);
  bench->rounds = bench->options->repeat ? bench->options->repeat
                                         : bench_rounds_within(seconds_now() - before, bench->options->budget);
  progress_begin("measuring");
  for (int64_t number = 0; status == TOOL_OK && number < bench->rounds; number++) {
    progress_at(number, bench->rounds);
    status = run_round(bench, false);
  }
  progress_end();
  return status;
}

/* Before anything sorts the times. */
static int compare_with_products(const struct fused *bench, struct cost *cost) {
  int status = TOOL_OK;
  for (size_t round = 0; status == TOOL_OK && round < cost->times.count; round++) {
    status = times_add(&cost->of_products, cost->times.of[round] / bench->products.of[round]);
  }
  return status;
}

/* ---- The benchmark ----------------------------------------------------------------------------------------------- */

static void cost_free(struct cost *cost) {
  times_free(&cost->times);
  times_free(&cost->of_products);
}

static void release(struct fused *bench) {
  struct classifier *c = &bench->classifier;
  void *own[] = {c->features,   c->weights,    c->features_gradient, c->weights_gradient,
                 bench->labels, bench->scalar, bench->flushed};
  for (size_t index = 0; index < sizeof own / sizeof own[0]; index++) device_free(bench->device, own[index]);
  working_free(bench->device, bench->workspace, bench->workspace_bytes);
  working_free(bench->device, bench->logits, bench->logits_bytes);
  for (int32_t index = 0; index < bench->lane_count; index++) {
    cost_free(&bench->lanes[index].fused);
    cost_free(&bench->lanes[index].unfused);
  }
  times_free(&bench->products);
  sample_free(&bench->sample);
}

int fused_bench(const struct bench_options *options, struct device *device) {
  struct fused *bench = calloc(1, sizeof *bench);
  if (!bench) return complain("out of memory");
  bench->options = options;
  bench->device = device;
  int status = prepare(bench);
  json_t *object = status == TOOL_OK ? fused_setting_json(bench) : NULL;
  if (status == TOOL_OK && options->old) status = comparison_check(options->compare, options->old, object);
  if (status == TOOL_OK) status = measure_memory(bench);
  if (status == TOOL_OK) status = measure_time(bench);
  for (int32_t index = 0; status == TOOL_OK && index < bench->lane_count; index++) {
    status = compare_with_products(bench, &bench->lanes[index].fused);
    if (status == TOOL_OK) status = compare_with_products(bench, &bench->lanes[index].unfused);
  }
  if (status == TOOL_OK) {
    fused_add_results(object, bench);
    status = bench_write(options, &(struct bench_report){json_incref(object), fused_print, bench});
  }
  json_decref(object);
  if (status == TOOL_OK) status = finish_output();
  release(bench);
  free(bench);
  return status;
}
