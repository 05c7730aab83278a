/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The three products of a classifier by the BLAS that the library itself uses, for the comparison with one that is not
 * fused.
 */
#ifndef TARE_TOOL_PRODUCT_H
#define TARE_TOOL_PRODUCT_H

#include "tool/base/device.h"

/** Sizes and arrays, all of `dtype` but the gradient by the weights, which is f32; device memory, contiguous. */
struct classifier {
  int64_t rows, classes, dimensions;
  int32_t dtype;
  void *features, *weights, *features_gradient, *weights_gradient;
};

/** Loads it. TOOL_OK, or TOOL_FAILED after complaining. */
int product_open(struct device *device, int32_t dtype);

/** logits [rows, classes] = features weights^T. On a GPU these start the work and wait for nothing. */
void product_logits(const struct classifier *c, void *logits);
/** From the gradient by the logits. */
void product_weights_gradient(const struct classifier *c, const void *slope);
void product_features_gradient(const struct classifier *c, const void *slope);

#endif
