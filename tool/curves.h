/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gradient of one batch under cross-entropy, focal loss and GHM-C, by gradient norm: the GHM paper's second picture
 * (arXiv 1811.05181, figure 3), from measured gradients.
 */
#ifndef TARE_TOOL_CURVES_H
#define TARE_TOOL_CURVES_H

#include "histogram.h"

struct curves {
  int32_t bins;
  double mean;                /**< mean gradient norm g over the whole batch: cross-entropy is g/mean */
  double *norms;              /**< [bins]: mean g of the elements of a bin; NaN in an empty bin */
  double *focal, *harmonised; /**< [bins]: mean gradient there over the loss's mean over the whole batch; or NaN */
};

/** Evaluates cross-entropy and focal (gamma 2, no alpha) on the sample, in the bins of `ghm`, which has its gradients.
 *  TOOL_OK, or TOOL_FAILED after complaining; curves_free is right in both cases. */
int curves_measure(struct device *device, const struct sample *sample, const struct histogram *ghm,
                   struct curves *curves);

void curves_free(struct curves *curves);

#endif
