/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of `tare eval` while it is read: the keys of its options, and what was given.
 */
#ifndef TARE_TOOL_READING_H
#define TARE_TOOL_READING_H

#include <argp.h>

#include "columns.h"
#include "options.h"
#include "parameters.h"

enum {
  LOSS = 256,
  LOGITS,
  LABELS,
  TARGETS,
  SCORES,
  CLASS_COUNTS,
  BETA,
  TAU,
  MAX_MARGIN,
  EMPTY_CLASSES,
  OFFSETS,
  COLUMNS, /* and those after it, in the order of columns.h */
  LAST_COLUMNS = COLUMNS + COLUMN_VECTORS - 1,
  CLASS_MASK,
  BACKGROUND_WEIGHT,
  ROW_WEIGHTS,
  BACKGROUND,
  IGNORE,
  FIRST_LABEL,
  HARD_NEGATIVES,
  LEAST_NEGATIVES,
  HARD_ROWS,
  HARD_FRACTION,
  IMAGES,
  NORMALIZER,
  NORMALIZER_ADDEND,
  NORMALIZER_MINIMUM,
  DEVICE,
  DTYPE,
  LAYOUT,
  CLASSES,
  THREADS,
  GRAD_OUT,
  ROW_LOSS_OUT,
  PLOT,
  CLASS_SUMS,
  NORM_HISTOGRAM,
  LEVEL_WEIGHT,
  JSON,
  PARAMETER /* and those after it: the parameters of the losses */
};
#define BIT(key) (UINT64_C(1) << ((key)-LOSS))

/* Parameters are kept separately until the loss is known, because they share a union. */
struct reading {
  struct eval_options *options;
  int32_t kind;
  struct parameter_value parameters[MAX_PARAMETERS];
};

/** The options of `tare eval` but for the losses' parameters; the last has key 0 and no text. */
extern const struct argp_option eval_described[];

/** Whether what was given goes together. TOOL_OK or TOOL_MISUSED, after complaining. */
int reading_check_files(const struct reading *reading);
int reading_check_together(const struct reading *reading);

#endif
