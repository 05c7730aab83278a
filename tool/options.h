/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of `tare eval`: which files, which loss with which parameters, what to write.
 */
#ifndef TARE_TOOL_OPTIONS_H
#define TARE_TOOL_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "columns.h"
#include "tare.h"

struct eval_options {
  const char *logits, *labels, *targets, *scores, *row_weights, *class_counts, *offsets, *class_mask;
  const char *columns[COLUMN_VECTORS];                                             /**< of the classes, or NULL */
  const char *more_logits[TARE_MAX_LEVELS - 1], *more_labels[TARE_MAX_LEVELS - 1]; /**< of further levels, or NULL */
  const char *grad_out, *row_loss_out, *plot;
  tare_loss_spec loss; /**< kind and parameters; only their text has been checked */
  double beta, tau, max_margin, background_weight;
  bool has_beta, has_tau;
  double hard_negatives; /**< per positive; below 0: all rows are taken */
  int64_t least_negatives, images;
  int64_t hard_rows;    /**< 0: see hard_fraction */
  double hard_fraction; /**< of the rows that count; 0: hard_rows, and if both are 0 there is no OHEM */
  int32_t layout;       /**< an enum axes */
  int64_t classes;      /**< of maps */
  int64_t first_label, background, ignore;
  int32_t normalizer, empty_classes; /**< a tare_normalizer, a tare_empty_classes */
  double normalizer_value, normalizer_addend, normalizer_minimum;
  int32_t device, dtype, threads; /**< dtype -1: as the file has it */
  double level_weights[TARE_MAX_LEVELS];
  int32_t level_weight_count, norm_bins; /**< norm_bins 0: no histogram */
  bool json, class_sums;
  uint64_t given; /**< which options stood on the command line; options.c knows the bits */
};

/** Returns TOOL_OK or TOOL_MISUSED, after complaining. */
int eval_options_read(struct eval_options *options, int argc, char **argv);

#endif
