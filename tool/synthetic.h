/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Synthetic batches, the same on every machine: a detector's logits, and boxes for GHM-R.
 */
#ifndef TARE_TOOL_SYNTHETIC_H
#define TARE_TOOL_SYNTHETIC_H

#include <stdbool.h>

#include "sample.h"

struct distribution {
  bool detector;          /**< N(-4.6, 1.5), and N(0.5, 2) at the class of a positive row */
  double mean, deviation; /**< otherwise every logit is of this normal distribution */
};
extern const struct distribution detector_distribution;

/** f32 logits and int32 labels: 0.5 % positives with a long tail of classes, 2 % ignored, the rest background. */
int synthetic_batch(struct sample *sample, int64_t rows, int64_t classes, const struct distribution *distribution);

/** Labels alone, for logits that came from a file. */
int synthetic_labels(struct sample *sample);

/** Numbers of a normal distribution around 0; `seed` above 10. */
void synthetic_normals(int32_t dtype, void *array, int64_t count, double deviation, uint64_t seed);

/** [rows, 4] predictions and targets, beside the positive rows of `batch`. */
int synthetic_boxes(struct sample *sample, const struct sample *batch);

#endif
