/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tare demo`: every loss on one synthetic detector batch, and the histogram of its gradient norms.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "report.h"
#include "run.h"
#include "synthetic.h"
#include "tool/base/parse.h"
#include "tool/base/problem.h"
#include "tool/base/progress.h"
#include "tool/bench/contenders.h"
#include "verbs.h"

enum { DEVICE = 256, THREADS };
enum { DEMO_ROWS = 100000, DEMO_CLASSES = 80 };

static const struct argp_option described[] = {{"device", DEVICE, "WHERE", 0, "auto, cpu or cuda (auto)", 0},
                                               {"threads", THREADS, "T", 0, "CPU threads (all)", 0},
                                               {0, 0, 0, 0, 0, 0}};

struct demo {
  int32_t device_kind, threads;
  struct device device;
  struct sample batch, boxes;
  struct run base, box_base;
  struct histogram histogram;
  bool has_histogram;
};

static error_t read_option(int key, char *text, struct argp_state *state) {
  struct demo *demo = state->input;
  switch (key) {
    case DEVICE:
      return parse_choice("--device", text, device_choices, &demo->device_kind) ? EINVAL : 0;
    case THREADS:
      return parse_int32("--threads", text, 1, 1024, &demo->threads) ? EINVAL : 0;
    default:
      return ARGP_ERR_UNKNOWN;
  }
}

static void print_device(const struct demo *demo) {
  const tare_context_description *about = &demo->device.about;
  if (about->device == TARE_DEVICE_CPU) {
    printf("Running on the CPU: %s, %s, %d thread%s.\n", about->device_name, about->instruction_set, about->threads,
           about->threads == 1 ? "" : "s");
  } else {
    printf("Running on a GPU: %s, %s.\n", about->device_name, about->instruction_set);
  }
  if (*about->reason) printf("Not on a GPU: %s\n", about->reason);
}

static int prepare(struct demo *demo) {
  progress_begin("making the batch");
  tare_loss_spec loss;
  tare_loss_spec_init(&loss, TARE_LOSS_SIGMOID_CE);
  int status = synthetic_batch(&demo->batch, DEMO_ROWS, DEMO_CLASSES, &detector_distribution);
  if (status == TOOL_OK) status = synthetic_boxes(&demo->boxes, &demo->batch);
  if (status == TOOL_OK) status = run_prepare(&demo->base, &demo->device, &demo->batch, &loss, true);
  tare_loss_spec_init(&loss, TARE_LOSS_GHM_R);
  if (status == TOOL_OK) status = run_prepare(&demo->box_base, &demo->device, &demo->boxes, &loss, true);
  float *weights = NULL;
  uint64_t bytes = DEMO_CLASSES * sizeof(float);
  if (status == TOOL_OK) status = contenders_weigh(&demo->device, &demo->base.batch, &weights);
  if (status == TOOL_OK) status = device_alloc(&demo->device, bytes, &demo->base.class_weights);
  if (status == TOOL_OK) device_put(&demo->device, demo->base.class_weights, weights, bytes);
  free(weights);
  progress_end();
  return status;
}

static int show_loss(struct demo *demo, const struct contender *contender, struct table *table) {
  bool boxes = contender->loss.kind == TARE_LOSS_GHM_R;
  struct run run = {0};
  struct result result;
  struct timing timing = {.seconds = 0};
  progress_begin(contender->label);
  int status = run_borrow(&run, boxes ? &demo->box_base : &demo->base, &contender->loss);
  if (contender->class_balanced) run.batch.class_weights = demo->base.class_weights;
  if (!kind_is_ghm(contender->loss.kind)) run.output.normalizer = TARE_NORMALIZER_POSITIVES;
  if (status == TOOL_OK) status = run_once(&run);
  if (status == TOOL_OK) status = run_result(&run, &result);
  if (status == TOOL_OK) status = run_time(&run, 0.2, &timing);
  if (status == TOOL_OK && contender->loss.kind == TARE_LOSS_GHM_C && contender->loss.ghm.bins == 30) {
    status = histogram_of_run(&run, &demo->histogram);
    demo->has_histogram = true;
  }
  progress_end();
  if (status == TOOL_OK) {
    double elements = (double)DEMO_ROWS * (double)run.batch.classes;
    table_cell(table, "%s", contender->label);
    table_cell(table, "%.6g", result.loss);
    table_cell(table, "%.6g", result.grad_l1);
    table_cell(table, "%.6g", result.grad_l2);
    table_cell(table, "%.2f", timing.seconds * 1e3);
    table_cell(table, "%.2f", timing.seconds / elements * 1e9);
    table_cell(table, "%.1f", run_bytes(&run) / timing.seconds * 1e-9);
  }
  run_release(&run);
  return status;
}

static int show_losses(struct demo *demo) {
  struct contender contenders[MAX_CONTENDERS];
  int32_t count = contenders_list(&(struct contender_filter){.gamma = -1}, contenders);
  static const char *const heading[] = {"loss", "value", "gradient L1", "gradient L2", "ms", "ns/element", "GB/s"};
  struct table table = {.alignment = "lrrrrrr"};
  for (size_t index = 0; index < sizeof heading / sizeof heading[0]; index++) table_cell(&table, "%s", heading[index]);
  int status = TOOL_OK;
  for (int32_t index = 0; status == TOOL_OK && index < count; index++) {
    status = show_loss(demo, &contenders[index], &table);
  }
  if (status != TOOL_OK) return status;
  printf(
      "\nOne call computes each loss and its gradient. Losses are divided by the number of positive rows; GHM\n"
      "divides by gradient density instead. softmax-*: background rows have no class and add nothing.\n"
      "cb: class-balanced weights, beta 0.999. ghm-r: box regression, 4 coordinates per row. GB/s: bytes read and\n"
      "written.\n\n");
  table_print(&table, true);
  return TOOL_OK;
}

static void show_histogram(const struct demo *demo) {
  const struct histogram *histogram = &demo->histogram;
  printf(
      "\nThe gradient norm g = |sigmoid(x)-t| of %s logits that count: 0 is right, 1 is wrong.\n"
      "%.1f %% are in the first of %d bins: easy background, which would outweigh everything else. GHM-C gives each\n"
      "logit the weight N/GD, so rare gradient norms count more. The bars have a logarithmic scale.\n\n",
      grouped(histogram->elements).of,
      histogram->elements ? 100.0 * (double)histogram->counts[0] / (double)histogram->elements : 0, histogram->bins);
  print_bars(histogram);
}

static int show(struct demo *demo) {
  print_device(demo);
  const struct tare_counts *counts;
  struct result result;
  int status = run_once(&demo->base);
  if (status == TOOL_OK) status = run_result(&demo->base, &result);
  if (status != TOOL_OK) return status;
  counts = &result.counts;
  printf(
      "\nA synthetic detector batch: %s anchors x %d classes in f32, %s of them objects, %s background, %s ignored.\n",
      grouped(counts->rows).of, DEMO_CLASSES, grouped(counts->positives).of, grouped(counts->background).of,
      grouped(counts->ignored).of);
  status = show_losses(demo);
  if (status == TOOL_OK && demo->has_histogram) show_histogram(demo);
  if (status == TOOL_OK) {
    printf("\nNext: tare eval --help (your own arrays), tare bench (speed), tare info.\n");
  }
  return status;
}

int verb_demo(int argc, char **argv) {
  static const struct argp argp = {
      described, read_option, NULL, "Shows every loss on a synthetic batch of 100,000 anchors and 80 classes.",
      NULL,      NULL,        NULL};
  struct demo demo = {.device_kind = TARE_DEVICE_AUTO};
  int status = parse_arguments(&argp, NULL, argc, argv, &demo);
  if (status == TOOL_OK) status = device_open(&demo.device, demo.device_kind, demo.threads);
  if (status != TOOL_OK) return status;
  status = prepare(&demo);
  if (status == TOOL_OK) status = show(&demo);
  if (status == TOOL_OK) status = finish_output();
  histogram_free(&demo.histogram);
  run_release(&demo.box_base);
  run_release(&demo.base);
  sample_free(&demo.batch);
  sample_free(&demo.boxes);
  device_close(&demo.device);
  return status;
}
