/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A picture of a batch under a loss, as SVG, drawn by gnuplot.
 */
#ifndef TARE_TOOL_PLOT_H
#define TARE_TOOL_PLOT_H

#include <stdio.h>

#include "curves.h"

struct plot_text {
  const char *loss;    /**< "ghm-c" */
  const char *source;  /**< where the logits come from */
  const char *element; /**< what is counted: "logits", "rows", "coordinates" */
  const char *plain;   /**< "plain cross-entropy: g" */
};

/** Draws to `file`, which must have a descriptor: the histogram, and beside it its weights and gradients, or `curves`
 *  if not NULL. TOOL_OK, or TOOL_FAILED after complaining. */
int plot_svg(FILE *file, const char *path, const struct histogram *histogram, const struct curves *curves,
             const struct plot_text *text);

#endif
