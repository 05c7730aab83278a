/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gradient norms in bins.
 */
#define _GNU_SOURCE
#include "histogram.h"

#include <math.h>
#include <stdlib.h>

#include "tool/base/convert.h"
#include "tool/base/problem.h"

static int allocate(struct histogram *histogram, int32_t bins) {
  size_t size = (size_t)bins;
  *histogram = (struct histogram){.bins = bins};
  histogram->edges = calloc(size + 1, sizeof(double));
  histogram->counts = calloc(size, sizeof(int64_t));
  histogram->weights = calloc(size, sizeof(double));
  histogram->gradients = calloc(size, sizeof(double));
  if (!histogram->edges || !histogram->counts || !histogram->weights || !histogram->gradients) {
    return complain("out of memory");
  }
  for (int32_t edge = 0; edge <= bins; edge++) histogram->edges[edge] = (double)edge / bins;
  return TOOL_OK;
}

void histogram_free(struct histogram *histogram) {
  free(histogram->edges);
  free(histogram->counts);
  free(histogram->unscored);
  free(histogram->objects);
  free(histogram->weights);
  free(histogram->gradients);
  *histogram = (struct histogram){0};
}

/* The state in 8-byte words, as the header lays it out: steps, N, counts, sums, 1/GD. */
static int read_state(struct device *device, const void *state, int32_t bins, struct histogram *histogram) {
  uint64_t bytes = tare_ghm_state_bytes(bins);
  int64_t *words = malloc((size_t)bytes);
  if (!words) return complain("out of memory");
  device_get(device, words, state, bytes);
  histogram->elements = words[1];
  const double *inverse = (const double *)(words + 2 + 2 * (int64_t)bins);
  for (int32_t bin = 0; bin < bins; bin++) {
    histogram->counts[bin] = words[2 + bin];
    histogram->weights[bin] = (double)words[1] * inverse[bin];
  }
  free(words);
  return TOOL_OK;
}

int histogram_of_run(const struct run *run, struct histogram *histogram) {
  const tare_ghm_parameters *ghm = &run->loss.ghm;
  int status = allocate(histogram, ghm->bins);
  if (status == TOOL_OK) status = read_state(run->device, run->state, ghm->bins, histogram);
  for (int32_t edge = 0; status == TOOL_OK && ghm->variant == TARE_GHM_VARIANT_MMDET && edge <= ghm->bins; edge++) {
    histogram->edges[edge] = (float)histogram->edges[edge];
  }
  free(histogram->gradients);
  histogram->gradients = NULL;
  return status;
}

/* -- elements one by one, in double -------------------------------------------------------------------------------- */

static double sigmoid(double x) { return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)); }

static int32_t bin_of(double norm, int32_t bins) {
  if (!(norm > 0)) return 0;
  int32_t bin = (int32_t)(norm * bins);
  return bin < bins ? bin : bins - 1;
}

struct sums {
  int64_t *unscored; /* NULL without scores */
  int64_t *objects;  /* NULL of GHM-R */
  int64_t *counts;
  double *weights, *gradients;
};

static void add(struct sums *sums, int32_t bins, double norm, double gradient, bool is_object) {
  int32_t bin = bin_of(norm, bins);
  sums->counts[bin]++;
  if (is_object && sums->objects) sums->objects[bin]++;
  sums->gradients[bin] += gradient;
  if (norm > 0) sums->weights[bin] += gradient / norm;
}

static double target_of(const struct sample *sample, int64_t row, int64_t class, int64_t label) {
  if (sample->targets) return number_at(sample->target_dtype, sample->targets, row * sample->classes + class);
  if (class == label && sample->scores) return fmin(fmax(number_at(sample->score_dtype, sample->scores, row), 0), 1);
  return class == label;
}

/* One element a row: g = 1-p of the label, which is half of sum |p-t|; its gradient likewise. */
static void add_softmax_row(const struct sample *sample, const float *gradient, int64_t row, int64_t label,
                            int32_t bins, struct sums *sums) {
  const float *logits = (const float *)sample->logits + row * sample->classes;
  double largest = -INFINITY, total = 0, norm = 0, size = 0;
  for (int64_t class = 0; class < sample->classes; class ++) { /* no fmax: gcc 12 for aarch64 breaks down over it */
    if (logits[class] > largest) largest = logits[class];
  }
  for (int64_t class = 0; class < sample->classes; class ++) total += exp(logits[class] - largest);
  for (int64_t class = 0; class < sample->classes; class ++) {
    norm += fabs(exp(logits[class] - largest) / total - target_of(sample, row, class, label)) / 2;
    size += fabs((double)gradient[row * sample->classes + class]) / 2;
  }
  const bool has_labels = sample->labels && !sample->targets;
  add(sums, bins, norm, size,
      !has_labels || label_at(sample->label_dtype, sample->labels, row) != sample->background_label);
}

static void add_elements(const struct sample *sample, const tare_loss_spec *loss, const float *gradient, int64_t row,
                         int64_t label, int32_t bins, struct sums *sums) {
  for (int64_t class = 0; class < sample->classes; class ++) {
    int64_t index = row * sample->classes + class;
    double x = ((const float *)sample->logits)[index], target = target_of(sample, row, class, label);
    double norm;
    if (sums->unscored) sums->unscored[bin_of(sigmoid(class == label ? -x : x), bins)]++;
    if (loss->kind == TARE_LOSS_GHM_R)
      norm = fabs(x - target) / hypot(x - target, loss->ghm.mu);
    else
      norm = target == 1 ? sigmoid(-x) : fabs(sigmoid(x) - target); /* sigmoid(-x) keeps what 1-sigmoid(x) loses */
    add(sums, bins, norm, fabs((double)gradient[index]), sample->targets ? target > 0 : class == label);
  }
}

/* Whether the tool counts the elements: the library counts no rows of a softmax loss, and takes no scores. */
static bool counts_here(int32_t kind, const struct sample *sample) { return kind_is_softmax(kind) || sample->scores; }

static int sum_gradients(const struct run *run, const struct sample *sample, struct histogram *histogram) {
  int32_t bins = histogram->bins;
  if (sample->scores) histogram->unscored = calloc((size_t)bins, sizeof(int64_t));
  const bool has_objects = run->loss.kind != TARE_LOSS_GHM_R;
  if (has_objects) histogram->objects = calloc((size_t)bins, sizeof(int64_t));
  struct sums sums = {histogram->unscored, histogram->objects, calloc((size_t)bins, sizeof(int64_t)),
                      histogram->weights, histogram->gradients};
  void *gradient = NULL;
  const bool has_room = sums.counts && !sums.unscored == !sample->scores && !sums.objects == !has_objects;
  int status = has_room ? run_gradient(run, &gradient) : complain("out of memory");
  for (int64_t row = 0; status == TOOL_OK && row < sample->rows; row++) {
    int64_t label = sample_row(sample, run->loss.kind, row);
    if (label == ROW_SKIPPED) continue;
    if (kind_is_softmax(run->loss.kind))
      add_softmax_row(sample, gradient, row, label, bins, &sums);
    else
      add_elements(sample, &run->loss, gradient, row, label, bins, &sums);
  }
  bool own_counts = counts_here(run->loss.kind, sample);
  for (int32_t bin = 0; status == TOOL_OK && bin < bins; bin++) {
    int64_t count = sums.counts[bin];
    histogram->weights[bin] = count ? sums.weights[bin] / (double)count : 0;
    histogram->gradients[bin] = count ? sums.gradients[bin] / (double)count : (double)NAN;
    if (own_counts) histogram->elements += histogram->counts[bin] = count;
  }
  free(gradient);
  free(sums.counts);
  return status;
}

/* The library counts: exact for every loss. */
static int count(struct device *device, const struct run *evaluated, struct histogram *histogram) {
  tare_loss_spec loss;
  bool regression = evaluated->loss.kind == TARE_LOSS_GHM_R;
  tare_loss_spec_init(&loss, regression ? TARE_LOSS_GHM_R : TARE_LOSS_GHM_C);
  loss.ghm.bins = histogram->bins;
  if (regression) loss.ghm.mu = evaluated->loss.ghm.mu;
  void *state = NULL;
  uint64_t bytes = tare_ghm_state_bytes(histogram->bins);
  int status = device_alloc(device, bytes, &state);
  if (status != TOOL_OK) return status;
  device_clear(device, state, bytes);
  loss.ghm.state = state;
  tare_batch batch = evaluated->batch;
  batch.class_weights = NULL; /* gradient norms do not depend on them, and GHM refuses them */
  batch.background_weight = 1;
  status = device_check(device, tare_ghm_histogram(device->context, &loss, &batch, NULL));
  if (status == TOOL_OK) status = device_wait(device);
  if (status == TOOL_OK) status = read_state(device, state, histogram->bins, histogram);
  device_free(device, state);
  return status;
}

int histogram_measure(struct device *device, const struct sample *sample, const tare_loss_spec *loss,
                      const tare_output *output, double divisor, int32_t bins, struct histogram *histogram) {
  struct sample wide;
  struct run run = {0};
  int status = sample_share_f32(sample, &wide);
  if (status != TOOL_OK) return status;
  status = allocate(histogram, bins);
  if (status == TOOL_OK) status = run_prepare(&run, device, &wide, loss, true);
  if (status == TOOL_OK && !counts_here(loss->kind, &wide)) status = count(device, &run, histogram);
  if (status == TOOL_OK) {
    run_divide(&run, &(struct divisor){output->normalizer, output->normalizer_value, output->normalizer_addend,
                                       output->normalizer_minimum});
    run.output.gradient_scale = kind_is_ghm(loss->kind) ? (double)histogram->elements : divisor;
    if (run.output.gradient_scale == 0) run.output.gradient_scale = 1;
    status = run_once(&run);
  }
  if (status == TOOL_OK) status = sum_gradients(&run, &wide, histogram);
  if (status == TOOL_OK && run.state && loss->ghm.bins == bins) status = read_state(device, run.state, bins, histogram);
  run_release(&run);
  free(wide.logits);
  return status;
}
