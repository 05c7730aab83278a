/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The picture of a batch under a loss.
 */
#ifndef TARE_TOOL_PLOT_H
#define TARE_TOOL_PLOT_H

#include <stdio.h>

#include "curves.h"

struct plot {
  const tare_loss_spec *loss;
  const char *source;  /**< where the logits come from */
  const char *result;  /**< "loss 1.25, divided by rows" */
  const char *element; /**< what is counted: "logits", "rows", "coordinates" */
  const char *plain;   /**< "cross-entropy: g" */
  const struct histogram *histogram;
  const struct curves *curves; /**< drawn in place of weights and gradients; or NULL */
};

/** Draws to `file`, which must have a descriptor. TOOL_OK, or TOOL_FAILED after complaining. */
int plot_draw(FILE *file, const char *path, struct plot *plot);

#endif
