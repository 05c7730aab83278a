/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The losses that the benchmark and the demonstration show, with the parameters that people use.
 */
#ifndef TARE_TOOL_CONTENDERS_H
#define TARE_TOOL_CONTENDERS_H

#include <stdbool.h>
#include <stdint.h>

#include "tool/base/device.h"
#include "tool/sample.h"

enum { MAX_CONTENDERS = 64 };

struct contender {
  char label[64]; /**< "focal, gamma 1.5" */
  tare_loss_spec loss;
  bool class_balanced; /**< with weights from the batch's own counts */
};

struct contender_filter {
  int32_t kinds[MAX_CONTENDERS]; /**< only these, in this order; none: the standard list */
  bool class_balanced[MAX_CONTENDERS];
  int32_t kind_count;
  double gamma; /**< negative: the standard ones */
  int32_t bins; /**< 0: the standard ones */
};

/** Fills at most MAX_CONTENDERS and returns how many. */
int32_t contenders_list(const struct contender_filter *filter, struct contender *contenders);

/** Class-balanced weights (beta 0.999) from the positives of the batch. TOOL_OK or TOOL_FAILED after complaining. */
int contenders_weigh(struct device *device, const tare_batch *batch, float **class_weights);

/** Where a loss has its gamma; NULL: it has none. */
double *gamma_of(tare_loss_spec *loss);

#endif
