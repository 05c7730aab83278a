/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cross-entropy, focal loss and GHM-C beside each other.
 */
#define _GNU_SOURCE
#include "curves.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tool/base/problem.h"

void curves_free(struct curves *curves) {
  free(curves->norms);
  free(curves->focal);
  free(curves->harmonised);
  *curves = (struct curves){0};
}

static int allocate(struct curves *curves, int32_t bins) {
  size_t size = (size_t)bins * sizeof(double);
  *curves = (struct curves){bins, 0, malloc(size), malloc(size), malloc(size)};
  if (curves->norms && curves->focal && curves->harmonised) return TOOL_OK;
  return complain("out of memory");
}

/* GHM takes a row weight as a mask. The other two losses are measured with the same mask. */
static int mask_rows(const struct sample *sample, struct sample *masked) {
  *masked = *sample;
  masked->row_weights = NULL;
  if (!sample->row_weights) return TOOL_OK;
  masked->row_weights = malloc((size_t)(sample->rows ? sample->rows : 1) * sizeof(float));
  if (!masked->row_weights) return complain("out of memory");
  for (int64_t row = 0; row < sample->rows; row++) masked->row_weights[row] = sample->row_weights[row] > 0 ? 1 : 0;
  return TOOL_OK;
}

/* Each loss is divided by its own mean, so that a curve compares an element with the average one, on any scale.
 * Returns the mean. `values` may be the histogram's own gradients. */
static double over_mean(const struct histogram *histogram, double *values) {
  double sum = 0, elements = 0;
  for (int32_t bin = 0; bin < histogram->bins; bin++) {
    if (isnan(histogram->gradients[bin])) continue;
    sum += histogram->gradients[bin] * (double)histogram->counts[bin];
    elements += (double)histogram->counts[bin];
  }
  for (int32_t bin = 0; bin < histogram->bins; bin++) {
    values[bin] = sum > 0 ? histogram->gradients[bin] * elements / sum : (double)NAN;
  }
  return elements > 0 ? sum / elements : 0;
}

static int measure(struct device *device, const struct sample *sample, tare_loss_kind kind, int32_t bins,
                   struct histogram *histogram) {
  tare_loss_spec loss;
  tare_output output;
  tare_loss_spec_init(&loss, kind);
  if (kind == TARE_LOSS_SIGMOID_FOCAL) loss.focal.alpha = -1;
  tare_output_init(&output);
  return histogram_measure(device, sample, &loss, &output, 1, bins, histogram);
}

int curves_measure(struct device *device, const struct sample *sample, const struct histogram *ghm,
                   struct curves *curves) {
  struct sample masked = {0};
  struct histogram plain = {0}, focal = {0};
  int status = allocate(curves, ghm->bins);
  if (status == TOOL_OK) status = mask_rows(sample, &masked);
  if (status == TOOL_OK) status = measure(device, &masked, TARE_LOSS_SIGMOID_CE, ghm->bins, &plain);
  if (status == TOOL_OK) status = measure(device, &masked, TARE_LOSS_SIGMOID_FOCAL, ghm->bins, &focal);
  if (status == TOOL_OK) {
    memcpy(curves->norms, plain.gradients, (size_t)ghm->bins * sizeof(double)); /* of cross-entropy: g itself */
    curves->mean = over_mean(&plain, plain.gradients);
    over_mean(&focal, curves->focal);
    over_mean(ghm, curves->harmonised);
  }
  histogram_free(&plain);
  histogram_free(&focal);
  free(masked.row_weights);
  return status;
}
