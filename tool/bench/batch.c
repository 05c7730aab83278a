/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the benchmark runs on: one batch, made up or from a file, and a run of each loss that borrows it.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "layouts.h"
#include "tool/base/convert.h"
#include "tool/base/gpu.h"
#include "tool/base/problem.h"
#include "tool/base/progress.h"
#include "tool/load.h"

/* Drawing a number takes longer than a GPU takes for hundreds. So a large batch repeats a smaller one. */
static int64_t distinct_rows(const struct bench_options *options) {
  int64_t most = (INT64_C(1) << 24) / options->classes;
  if (most < 1) most = 1;
  return options->rows < most ? options->rows : most;
}

/* Repeats the rows until there are as many as requested. */
static int repeat_rows(struct sample *sample, int64_t rows) {
  if (rows == sample->rows) return TOOL_OK;
  if (sample->rows == 0) return complain("--distribution: the file has no rows");
  size_t row_bytes = dtype_size(sample->dtype) * (size_t)sample->classes,
         label_bytes = sample->label_dtype == TARE_LABEL_DTYPE_I64 ? 8 : 4;
  char *logits = reallocarray(NULL, (size_t)rows, row_bytes), *labels = reallocarray(NULL, (size_t)rows, label_bytes);
  if (!logits || !labels) {
    free(logits);
    free(labels);
    return complain("no memory for %" PRId64 " rows", rows);
  }
  for (int64_t row = 0; row < rows; row++) {
    size_t to = (size_t)row, from = (size_t)(row % sample->rows);
    memcpy(logits + to * row_bytes, (char *)sample->logits + from * row_bytes, row_bytes);
    memcpy(labels + to * label_bytes, (char *)sample->labels + from * label_bytes, label_bytes);
  }
  free(sample->logits);
  free(sample->labels);
  sample->logits = logits;
  sample->labels = labels;
  sample->rows = rows;
  return TOOL_OK;
}

/* More classes than the file has: to each row its own logits, and then the file's logits of targets 0 over and over, so
 * that the batch stays what the file is: mostly easy negatives of a detector in that state. */
static int widen_rows(struct sample *sample, int64_t classes) {
  if (sample->classes == classes) return TOOL_OK;
  int64_t own = sample->classes, elements = sample->rows * own, next = 0;
  size_t size = dtype_size(sample->dtype), row_bytes = (size_t)own * size;
  char *from = sample->logits, *to = reallocarray(NULL, (size_t)sample->rows, (size_t)classes * size);
  if (!to) return complain("no memory for %" PRId64 " rows of %" PRId64 " classes", sample->rows, classes);
  for (int64_t row = 0; row < sample->rows; row++) {
    char *line = to + (size_t)(row * classes) * size;
    memcpy(line, from + (size_t)row * row_bytes, row_bytes);
    for (int64_t class = own; class < classes; class ++) {
      int64_t tries = 0; /* a file may have none */
      while (next % own == sample_row(sample, TARE_LOSS_SIGMOID_CE, next / own) && tries++ < elements) {
        next = (next + 1) % elements;
      }
      memcpy(line + (size_t) class * size, from + (size_t)next * size, size);
      next = (next + 1) % elements;
    }
  }
  free(from);
  sample->logits = to;
  sample->classes = classes;
  return TOOL_OK;
}

static int load_batch(struct bench *bench) {
  const struct bench_options *options = &bench->options;
  sample_init(&bench->batch);
  int status = load_logits("--distribution", options->file, options->dtype == TARE_DTYPE_BF16, &bench->batch);
  if (status == TOOL_OK && options->classes_given && options->classes < bench->batch.classes) {
    status = complain("--distribution %s: found %" PRId64 " classes, expected at most %" PRId64,
                      options->distribution_text, bench->batch.classes, options->classes);
  }
  if (status == TOOL_OK && options->labels)
    status = load_labels(options->labels, &bench->batch);
  else if (status == TOOL_OK)
    status = synthetic_labels(&bench->batch);
  if (status == TOOL_OK && options->classes_given) status = widen_rows(&bench->batch, options->classes);
  if (status == TOOL_OK && options->rows_given) status = repeat_rows(&bench->batch, options->rows);
  return status;
}

static int make_batch(struct bench *bench) {
  const struct bench_options *options = &bench->options;
  int status = options->file
                   ? load_batch(bench)
                   : synthetic_batch(&bench->batch, distinct_rows(options), options->classes, &options->distribution);
  if (status == TOOL_OK) status = sample_convert(&bench->batch, options->dtype);
  if (status == TOOL_OK && !options->file) status = repeat_rows(&bench->batch, options->rows);
  if (status == TOOL_OK) status = synthetic_boxes(&bench->boxes, &bench->batch);
  if (status == TOOL_OK) status = sample_convert(&bench->boxes, options->dtype);
  return status;
}

/* -- setting up ---------------------------------------------------------------------------------------------------- */

/* Offsets of softmax-logit-adjusted, log counts of softmax-seesaw, margins of softmax-ldam: of a long tail whose class
 * c has 1/(c+1) of the samples of class 0. */
static int make_offsets(struct sample *batch) {
  batch->offset = malloc((size_t)batch->classes * sizeof(float));
  batch->log_counts = malloc((size_t)batch->classes * sizeof(float));
  batch->margins = malloc((size_t)batch->classes * sizeof(float));
  if (!batch->offset || !batch->log_counts || !batch->margins) return complain("out of memory");
  for (int64_t cls = 0; cls < batch->classes; cls++) {
    batch->offset[cls] = -logf((float)(cls + 1));
    batch->log_counts[cls] = logf(1e6f) + batch->offset[cls];
    batch->margins[cls] = 0.5f * powf((float)(cls + 1) / (float)batch->classes, 0.25f);
  }
  return TOOL_OK;
}

static int prepare_base(struct bench *bench) {
  tare_loss_spec any;
  tare_loss_spec_init(&any, TARE_LOSS_SIGMOID_CE);
  struct head head;
  int status = head_arrange(&head, bench->options.layout, &bench->batch);
  if (status == TOOL_OK) status = make_offsets(&bench->batch);
  if (status == TOOL_OK) status = run_prepare(&bench->base, &bench->device, &bench->batch, &any, bench->options.apart);
  if (status != TOOL_OK) return status;
  head_place(&head, &bench->base);
  return TOOL_OK;
}

/* A run's own evaluation checks the labels once, so that a wrong file is named before the clock starts. */
static int prepare_boxes(struct bench *bench) {
  if (bench->has_boxes) return TOOL_OK;
  bench->has_boxes = true;
  tare_loss_spec regression;
  tare_loss_spec_init(&regression, TARE_LOSS_GHM_R);
  int status = run_prepare(&bench->box_base, &bench->device, &bench->boxes, &regression, bench->options.apart);
  if (status == TOOL_OK && !bench->options.apart) bench->box_base.levels[0].gradient = bench->box_base.logits;
  return status;
}

static int prepare_balanced(struct bench *bench) {
  if (bench->has_balanced) return TOOL_OK;
  bench->has_balanced = true;
  float *weights = NULL;
  uint64_t bytes = (uint64_t)bench->batch.classes * sizeof(float);
  int status = contenders_weigh(&bench->device, &bench->base.batch, &weights);
  if (status == TOOL_OK) status = run_borrow(&bench->balanced_base, &bench->base, &bench->base.loss);
  if (status == TOOL_OK) status = device_alloc(&bench->device, bytes, &bench->base.class_weights);
  if (status == TOOL_OK) {
    device_put(&bench->device, bench->base.class_weights, weights, bytes);
    bench->balanced_base.batch.class_weights = bench->base.class_weights;
  }
  free(weights);
  return status;
}

static int prepare_lane(struct bench *bench, struct lane *lane) {
  struct run *owner = &bench->base;
  int status = TOOL_OK;
  if (lane->contender.loss.kind == TARE_LOSS_GHM_R) {
    owner = &bench->box_base;
    status = prepare_boxes(bench);
  } else if (lane->contender.class_balanced) {
    owner = &bench->balanced_base;
    status = prepare_balanced(bench);
  }
  if (status == TOOL_OK) status = run_borrow(&lane->run, owner, &lane->contender.loss);
  if (status != TOOL_OK) return status;
  /* Loss and gradient are what is timed: no counting of labels, which on a GPU is a launch of its own, and no state to
   * be cleared before each call. */
  lane->run.output.counts = NULL;
  if (kind_is_ghm(lane->contender.loss.kind)) lane->run.loss.ghm.state = NULL;
  lane->run.state_bytes = 0;
  return TOOL_OK;
}

static int keep_pristine(struct bench *bench, const struct sample *sample, void **pristine) {
  uint64_t bytes = (uint64_t)sample->rows * (uint64_t)sample->classes * dtype_size(sample->dtype);
  int status = device_alloc(&bench->device, bytes, pristine);
  if (status == TOOL_OK) device_put(&bench->device, *pristine, sample->logits, bytes);
  return status;
}

/* The logits a second time, so that putting them back is no copy from the host; and four times what the cache holds. */
static int prepare_gpu(struct bench *bench) {
  bench->flushed_bytes = 4 * gpu_cache_bytes();
  int status = device_alloc(&bench->device, bench->flushed_bytes, &bench->flushed);
  if (status == TOOL_OK) status = keep_pristine(bench, &bench->batch, &bench->pristine);
  if (status == TOOL_OK && bench->has_boxes) status = keep_pristine(bench, &bench->boxes, &bench->pristine_boxes);
  return status;
}

int bench_prepare(struct bench *bench) {
  progress_begin("making the batch");
  struct contender contenders[MAX_CONTENDERS];
  bench->lane_count = contenders_list(&bench->options.filter, contenders);
  int status = make_batch(bench);
  if (status == TOOL_OK) status = prepare_base(bench);
  for (int32_t index = 0; status == TOOL_OK && index < bench->lane_count; index++) {
    bench->lanes[index].contender = contenders[index];
    status = prepare_lane(bench, &bench->lanes[index]);
  }
  if (status != TOOL_OK) return status;
  if (device_is_gpu(&bench->device))
    status = prepare_gpu(bench);
  else if (!(bench->copier = copier_new(bench->device.about.threads)))
    status = TOOL_FAILED;
  if (status != TOOL_OK) return status;
  progress_end();
  uint64_t bytes = (uint64_t)bench->batch.rows * (uint64_t)bench->batch.classes * dtype_size(bench->batch.dtype);
  return device_alloc(&bench->device, bytes, &bench->copy_target);
}

double bench_logits_bytes(const struct bench *bench) {
  return (double)bench->batch.rows * (double)bench->batch.classes * (double)dtype_size(bench->batch.dtype);
}

void bench_restore(struct bench *bench, struct run *run) {
  bool boxes = run->loss.kind == TARE_LOSS_GHM_R;
  const struct sample *sample = boxes ? &bench->boxes : &bench->batch;
  uint64_t bytes = (uint64_t)sample->rows * (uint64_t)sample->classes * dtype_size(sample->dtype);
  if (!device_is_gpu(&bench->device)) {
    device_put(&bench->device, run->logits, sample->logits, bytes);
    return;
  }
  gpu_start_copy(run->logits, boxes ? bench->pristine_boxes : bench->pristine, bytes);
  gpu_flush(bench->flushed, bench->flushed_bytes);
}

void bench_release(struct bench *bench) {
  for (int32_t index = 0; index < bench->lane_count; index++) {
    run_release(&bench->lanes[index].run);
    times_free(&bench->lanes[index].times);
    times_free(&bench->lanes[index].of_focal);
    times_free(&bench->lanes[index].of_copy);
  }
  run_release(&bench->balanced_base);
  run_release(&bench->box_base);
  run_release(&bench->base);
  void *own[] = {bench->copy_target, bench->pristine, bench->pristine_boxes, bench->flushed};
  for (size_t index = 0; index < sizeof own / sizeof own[0]; index++) device_free(&bench->device, own[index]);
  copier_free(bench->copier);
  times_free(&bench->copies);
  times_free(&bench->first_copies);
  times_free(&bench->last_copies);
  sample_free(&bench->batch);
  sample_free(&bench->boxes);
  device_close(&bench->device);
}
