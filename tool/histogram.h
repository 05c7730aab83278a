/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gradient norms of a batch in equal bins of [0,1], as the GHM paper draws them, for any loss: how many elements
 * fall in a bin, by how much the loss scales the plain cross-entropy gradient there, and the gradient that results.
 *
 * An element is a logit with g = |sigmoid(x)-t|; in a softmax loss a row with g = 1-p of its label (half the sum of
 * |p-t|); for GHM-R a coordinate with g = |d|/sqrt(d^2+mu^2).
 */
#ifndef TARE_TOOL_HISTOGRAM_H
#define TARE_TOOL_HISTOGRAM_H

#include "run.h"

struct histogram {
  int32_t bins;
  int64_t elements;  /**< in all bins */
  double *edges;     /**< [bins+1] */
  int64_t *counts;   /**< [bins] */
  int64_t *unscored; /**< [bins]: what counts would be if every score were 1; NULL without scores */
  int64_t *objects;  /**< [bins]: the part of counts that is an object's: its class's element, targets above 0, rows
                          with a class; NULL of GHM-R, and if not wanted */
  double *weights;   /**< [bins]: gradient over plain gradient; of GHM: beta = N/GD. 0 in an empty bin */
  double *gradients; /**< [bins]: mean gradient norm after weighting; NaN in an empty bin; NULL if not wanted */
};

/** From the state after a unit-region GHM run: counts and beta exactly as the loss used them. */
int histogram_of_run(const struct run *run, struct histogram *histogram);

/** Counts by the library (softmax: here), weights and gradients measured from an f32 evaluation of `loss` whose
 *  gradient is multiplied by `divisor`, so that neither the normalizer nor a half type hides them. */
int histogram_measure(struct device *device, const struct sample *sample, const tare_loss_spec *loss,
                      const tare_output *output, double divisor, int32_t bins, struct histogram *histogram);

void histogram_free(struct histogram *histogram);

#endif
