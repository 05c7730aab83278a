/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which options of `tare eval` go together: an option that has no effect is refused.
 */
#include "reading.h"

#include <string.h>

#include "maps.h"
#include "sample.h"
#include "tool/base/problem.h"

/* The options beside its parameters that only some losses take. */
static int check_taken(const struct reading *reading) {
  const tare_loss_description loss = loss_described(reading->kind);
  uint64_t wrong = 0;
  if (!loss.takes_scores && !loss.takes_bins) wrong |= BIT(SCORES);
  if (!loss.takes_normalizer) wrong |= BIT(NORMALIZER);
  if (!loss.takes_class_weights) wrong |= BIT(CLASS_COUNTS) | BIT(BETA) | BIT(BACKGROUND_WEIGHT);
  if (!loss_has(reading->kind, "offset")) wrong |= BIT(TAU) | BIT(OFFSETS);
  if (!loss_has(reading->kind, "margins")) wrong |= BIT(MAX_MARGIN);
  if (!loss_has(reading->kind, "offset") && !loss_has(reading->kind, "margins")) wrong |= BIT(EMPTY_CLASSES);
  for (int which = 0; which < COLUMN_VECTORS; which++)
    if (!columns_taken(reading->kind, which)) wrong |= BIT(COLUMNS + which);
  if (loss.family != TARE_LOSS_FAMILY_SIGMOID) wrong |= BIT(CLASS_MASK);
  wrong &= reading->options->given;
  for (const struct argp_option *option = eval_described; wrong; option++) {
    if (option->key < LOSS || !(wrong & BIT(option->key))) continue;
    return misuse("--%s does not belong to %s%s", option->name, loss.name,
                  option->key == NORMALIZER ? ", which has its own normalizer" : "");
  }
  if (loss.takes_bins && reading->options->scores && reading->options->plot)
    return misuse("--plot with --scores of %s: a target between two bins is not drawn", loss.name);
  return TOOL_OK;
}

/* A row of targets has no class. */
static int check_dense(const struct reading *reading) {
  const struct eval_options *options = reading->options;
  if (!loss_described(reading->kind).takes_targets) {
    return misuse("%s takes --labels, not --targets; softmax-ce takes --targets", tare_loss_name(reading->kind));
  }
  if (options->hard_negatives >= 0)
    return misuse("--hard-negatives with --targets: a row of targets is never background");
  if (options->given & (BIT(HARD_ROWS) | BIT(HARD_FRACTION)))
    return misuse("--hard-rows or --hard-fraction with --targets: rows are selected by labels");
  if (options->scores) return misuse("--scores with --targets: a score belongs to a label; give one of them");
  if (options->has_beta)
    return misuse("--class-counts with --targets: a row of targets has no class; use --row-weights");
  if (options->background_weight != 1) {
    return misuse("--background-weight with --targets: a row of targets is never background; use --row-weights");
  }
  if (options->normalizer == TARE_NORMALIZER_POSITIVES) {
    return misuse("--normalizer positives with --targets: a row of targets is never positive; use targets or ones");
  }
  return TOOL_OK;
}

static bool is_given(const struct reading *reading, const char *option) {
  const struct parameter_options *options = parameter_options();
  for (int32_t index = 0; index < options->count; index++)
    if (strcmp(options->of[index].option, option) == 0) return reading->parameters[index].given;
  return false;
}

static int check_density(const struct reading *reading) {
  const tare_ghm_parameters *ghm = &reading->options->loss.ghm;
  if (ghm->density != TARE_GHM_DENSITY_EXACT) {
    return is_given(reading, "epsilon") ? misuse("--epsilon is the window of --density exact") : TOOL_OK;
  }
  if (ghm->momentum > 0) return misuse("--momentum with --density exact: the exact density has no counts to keep");
  if (ghm->variant == TARE_GHM_VARIANT_MMDET) {
    return misuse("--ghm-variant mmdet with --density exact: mmdetection only has unit regions");
  }
  return TOOL_OK;
}

/* Rows of several levels are joined, so what has their layout, or an order of their images, is not there. */
static int check_levels(const struct eval_options *options) {
  const struct {
    const char *name;
    bool given;
  } alone[] = {{"--targets", options->targets},
               {"--grad-out", options->grad_out},
               {"--row-loss-out", options->row_loss_out},
               {"--hard-negatives", options->hard_negatives >= 0}};
  for (size_t index = 0; index < sizeof alone / sizeof alone[0]; index++)
    if (alone[index].given)
      return misuse("%s goes with one --logits; evaluate the levels one by one", alone[index].name);
  for (int32_t index = 0; options->more_labels[0] && index < TARE_MAX_LEVELS - 1; index++)
    if (!options->more_logits[index] != !options->more_labels[index])
      return misuse("--logits and --labels are given for different numbers of levels");
  return TOOL_OK;
}

/* One weight for each level, or none. */
static int check_level_weights(const struct eval_options *options) {
  int32_t levels = 1;
  for (int32_t index = 0; index < TARE_MAX_LEVELS - 1; index++) levels += options->more_logits[index] != NULL;
  if (!options->level_weight_count || (levels > 1 && options->level_weight_count == levels)) return TOOL_OK;
  if (levels == 1) return misuse("--level-weight goes with several --logits");
  return misuse("--level-weight is given %d times and --logits %d times; give one for each",
                options->level_weight_count, levels);
}

int reading_check_files(const struct reading *reading) {
  const struct eval_options *options = reading->options;
  uint64_t given = options->given;
  if (!(given & BIT(LOSS))) return misuse("--loss is missing");
  if (!options->logits) return misuse("--logits is missing");
  const bool has_bins = options->scores && loss_described(reading->kind).takes_bins == 1;
  if (!options->labels && !options->targets && !has_bins) return misuse("--labels or --targets is missing");
  if (loss_described(reading->kind).family == TARE_LOSS_FAMILY_REGRESSION && (!options->labels || !options->targets)) {
    return misuse("%s needs --targets, and --labels to say which rows count", tare_loss_name(reading->kind));
  }
  if (given & BIT(LEAST_NEGATIVES) && !(given & BIT(HARD_NEGATIVES)))
    return misuse("--least-negatives goes with --hard-negatives");
  if (given & BIT(IMAGES) && !(given & (BIT(HARD_NEGATIVES) | BIT(CLASS_MASK))))
    return misuse("--images goes with --hard-negatives or --class-mask");
  const uint64_t selections = given & (BIT(HARD_NEGATIVES) | BIT(HARD_ROWS) | BIT(HARD_FRACTION));
  if (selections & (selections - 1))
    return misuse("--hard-negatives, --hard-rows and --hard-fraction: give one of them");
  if (options->more_logits[0] && check_levels(options) != TOOL_OK) return TOOL_MISUSED;
  if (check_level_weights(options) != TOOL_OK) return TOOL_MISUSED;
  if (options->more_labels[0] && !options->more_logits[0])
    return misuse("--labels is given twice, and --logits once; give both for each level");
  if (options->layout != AXES_ROWS && !(given & BIT(CLASSES)))
    return misuse("--layout %s needs --classes: channel = anchor * classes + class", axes_name(options->layout));
  if (options->layout == AXES_ROWS && given & BIT(CLASSES))
    return misuse("--classes goes with --layout nchw or nhwc; rows have their classes as their last axis");
  if (options->layout != AXES_ROWS && given & BIT(IMAGES))
    return misuse("--images with --layout %s: the shape says how many there are", axes_name(options->layout));
  if ((options->has_beta || options->has_tau) && !options->class_counts)
    return misuse("--%s needs --class-counts", options->has_beta ? "beta" : "tau");
  if (given & (BIT(MAX_MARGIN) | BIT(EMPTY_CLASSES)) && !options->class_counts)
    return misuse("--%s needs --class-counts", given & BIT(MAX_MARGIN) ? "max-margin" : "empty-classes");
  return TOOL_OK;
}

/* What the counts are for, and where the offsets of a loss that has them come from. */
static int check_counts(const struct reading *reading) {
  const struct eval_options *options = reading->options;
  const bool takes_offset = loss_has(reading->kind, "offset");
  const bool takes_counts = loss_has(reading->kind, "log_counts") || loss_has(reading->kind, "margins");
  if (options->class_counts && !options->has_beta && !options->has_tau && !takes_counts)
    return misuse("--class-counts needs --beta%s", takes_offset ? " or --tau" : "");
  if (options->given & BIT(EMPTY_CLASSES) && takes_offset && !options->has_tau)
    return misuse("--empty-classes with %s needs --tau", tare_loss_name(reading->kind));
  if (options->offsets && options->has_tau) return misuse("--offsets and --tau: give one of them");
  if (takes_offset && !options->offsets && !options->has_tau)
    return misuse("%s needs --class-counts and --tau, or --offsets", tare_loss_name(reading->kind));
  return TOOL_OK;
}

static int check_class_sums(const struct reading *reading) {
  const int32_t family = loss_described(reading->kind).family;
  if (!reading->options->class_sums) return TOOL_OK;
  if (family == TARE_LOSS_FAMILY_REGRESSION)
    return misuse("--class-sums with %s: its columns are not classes", tare_loss_name(reading->kind));
  if (family == TARE_LOSS_FAMILY_SOFTMAX && reading->options->targets)
    return misuse("--class-sums with %s and --targets: a row's loss belongs to no class; use --labels",
                  tare_loss_name(reading->kind));
  return TOOL_OK;
}

static int check_norms(const struct reading *reading) {
  const int32_t kind = reading->kind;
  if (!reading->options->norm_bins) return TOOL_OK;
  if (kind_is_ghm(kind)) return misuse("--norm-histogram with %s, which shows its own", tare_loss_name(kind));
  if (loss_described(kind).family != TARE_LOSS_FAMILY_SIGMOID)
    return misuse("--norm-histogram with %s: |p-t| belongs to a sigmoid loss", tare_loss_name(kind));
  return TOOL_OK;
}

int reading_check_together(const struct reading *reading) {
  const struct eval_options *options = reading->options;
  const bool dense = options->targets && loss_described(reading->kind).family != TARE_LOSS_FAMILY_REGRESSION;
  int status = dense ? check_dense(reading) : TOOL_OK;
  if (status == TOOL_OK && kind_is_ghm(reading->kind)) status = check_density(reading);
  if (status == TOOL_OK) status = check_taken(reading);
  if (status == TOOL_OK) status = check_class_sums(reading);
  if (status == TOOL_OK) status = check_norms(reading);
  return status == TOOL_OK ? check_counts(reading) : status;
}
