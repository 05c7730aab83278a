/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Synthetic batches. The generator is SplitMix64 with the Box-Muller transform. Each array has its own seed, so that it
 * does not depend on the size of another.
 */
#define _GNU_SOURCE
#include "synthetic.h"

#include <math.h>
#include <stdlib.h>

#include "tool/base/convert.h"
#include "tool/base/problem.h"

const struct distribution detector_distribution = {true, -4.6, 1.5};

struct generator {
  uint64_t state;
  double spare;
  bool has_spare;
};

static double uniform(struct generator *generator) { /* (0,1) */
  uint64_t z = generator->state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  z ^= z >> 31;
  return ((double)(z >> 12) + 0.5) * 0x1p-52;
}

static double normal(struct generator *generator, double mean, double deviation) {
  if (generator->has_spare) {
    generator->has_spare = false;
    return mean + deviation * generator->spare;
  }
  double radius = sqrt(-2 * log(uniform(generator))), angle = 2 * 3.14159265358979323846 * uniform(generator);
  generator->spare = radius * sin(angle);
  generator->has_spare = true;
  return mean + deviation * radius * cos(angle);
}

static int allocate(void **memory, int64_t rows, int64_t columns, size_t size) {
  int64_t elements, bytes;
  *memory = NULL;
  if (!__builtin_mul_overflow(rows, columns, &elements) && !__builtin_mul_overflow(elements, (int64_t)size, &bytes)) {
    *memory = malloc(bytes ? (size_t)bytes : 1);
  }
  return *memory ? TOOL_OK : complain("no memory for a batch of that size; use fewer rows or classes");
}

int synthetic_labels(struct sample *sample) {
  struct generator generator = {.state = 1};
  int status = allocate(&sample->labels, sample->rows, 1, sizeof(int32_t));
  if (status != TOOL_OK) return status;
  sample->label_dtype = TARE_LABEL_DTYPE_I32;
  int32_t *labels = sample->labels;
  for (int64_t row = 0; row < sample->rows; row++) {
    double kind = uniform(&generator), place = uniform(&generator);
    if (kind < 0.005)
      labels[row] = (int32_t)((double)sample->classes * place * place); /* low classes are frequent */
    else
      labels[row] = (int32_t)(kind < 0.025 ? sample->ignore_label : sample->background_label);
  }
  return TOOL_OK;
}

int synthetic_batch(struct sample *sample, int64_t rows, int64_t classes, const struct distribution *distribution) {
  sample_init(sample);
  sample->rows = rows;
  sample->classes = classes;
  sample->dtype = TARE_DTYPE_F32;
  int status = synthetic_labels(sample);
  if (status == TOOL_OK) status = allocate(&sample->logits, rows, classes, sizeof(float));
  if (status != TOOL_OK) return status;
  struct generator generator = {.state = 2};
  float *logits = sample->logits;
  for (int64_t index = 0; index < rows * classes; index++) {
    logits[index] = (float)normal(&generator, distribution->mean, distribution->deviation);
  }
  for (int64_t row = 0; distribution->detector && row < rows; row++) {
    int32_t label = ((int32_t *)sample->labels)[row];
    if (label >= 0) logits[row * classes + label] = (float)normal(&generator, 0.5, 2);
  }
  return TOOL_OK;
}

void synthetic_normals(int32_t dtype, void *array, int64_t count, double deviation, uint64_t seed) {
  struct generator generator = {.state = seed};
  for (int64_t index = 0; index < count; index++) number_put(dtype, array, index, normal(&generator, 0, deviation));
}

int synthetic_boxes(struct sample *sample, const struct sample *batch) {
  sample_init(sample);
  sample->rows = batch->rows;
  sample->classes = 4;
  sample->dtype = sample->target_dtype = TARE_DTYPE_F32;
  sample->label_dtype = TARE_LABEL_DTYPE_I32;
  int status = allocate(&sample->labels, batch->rows, 1, sizeof(int32_t));
  if (status == TOOL_OK) status = allocate(&sample->logits, batch->rows, 4, sizeof(float));
  if (status == TOOL_OK) status = allocate(&sample->targets, batch->rows, 4, sizeof(float));
  if (status != TOOL_OK) return status;
  struct generator generator = {.state = 3};
  float *predictions = sample->logits, *targets = sample->targets;
  for (int64_t row = 0; row < batch->rows; row++) {
    bool counts = sample_row(batch, TARE_LOSS_GHM_R, row) != ROW_SKIPPED;
    ((int32_t *)sample->labels)[row] = counts ? 0 : -1;
    for (int64_t column = 4 * row; column < 4 * row + 4; column++) {
      targets[column] = counts ? (float)normal(&generator, 0, 0.5) : 0;
      predictions[column] = targets[column] + (float)normal(&generator, 0, 0.1);
    }
  }
  return TOOL_OK;
}
