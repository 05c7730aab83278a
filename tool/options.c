/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of `tare eval`. Values go directly into the library's structs, and the library checks their
 * ranges. Here it is only checked that an option belongs to the loss, so that no option is silently ignored.
 */
#define _GNU_SOURCE
#include "options.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "maps.h"
#include "parameters.h"
#include "reading.h"
#include "sample.h"
#include "tool/base/parse.h"
#include "tool/base/problem.h"

const struct argp_option eval_described[] = {
    {0, 0, 0, 0, "Input (.npy, little-endian, C order; - is standard input):", 1},
    {"loss", LOSS, "NAME", 0, NULL, 0}, /* the library's names: see all_options */
    {"logits", LOGITS, "X.npy", 0,
     "[rows, classes] f2, f4, f8, or u2 (the bits of bf16) with --dtype bf16; or maps: see --layout. Give "
     "it once for each level of a head. ghm-r: the predictions",
     0},
    {"labels", LABELS, "Y.npy", 0,
     "[rows] i4 or i8. With several --logits: a file for each, or one file of all rows, level after level. ghm-r: only "
     "rows with a class count",
     0},
    {"targets", TARGETS, "T.npy", 0,
     "[rows, classes] f2, f4, f8: soft targets in [0,1]; ghm-r: targets of the predictions", 0},
    {"scores", SCORES, "S.npy", 0,
     "[rows] f2, f4, f8 (rounded to f4): score in [0,1] of each label, such as an IoU; not read in rows without a "
     "class. softmax-distribution-focal: the target of each row that has a label, in bins; --labels may be left out. "
     "softmax-two-hot: [rows, 2], the weights of the label's bin and of the next",
     0},
    {"row-weights", ROW_WEIGHTS, "F.npy", 0,
     "[rows] f2, f4, f8: weight of each row; GHM: a row of weight 0 does not count", 0},
    {"background", BACKGROUND, "L", 0, "Label of background rows (-1)", 0},
    {"ignore", IGNORE, "L", 0, "Label of rows that add nothing (-2)", 0},
    {"first-label", FIRST_LABEL, "L", 0, "Label of class 0 (0)", 0},
    {"layout", LAYOUT, "HOW", 0,
     "Axes of logits, targets and gradient: rows; nchw, [images, anchors*classes, height, width]; or nhwc, [images, "
     "height, width, anchors*classes]. Labels of maps are [images, height, width, anchors], or flat in this order "
     "(rows)",
     0},
    {"classes", CLASSES, "C", 0, "With --layout nchw or nhwc: the number of classes (ghm-r: columns)", 0},
    {"dtype", DTYPE, "TYPE", 0, "f32, f16, bf16: round the logits to this type first (the file's type)", 0},
    {0, 0, 0, 0, "The loss:", 2},
    {"class-counts", CLASS_COUNTS, "F", 0,
     "Samples of each class, for --beta, --tau, softmax-seesaw or softmax-ldam: .npy, or .csv, the count in the last "
     "column",
     0},
    {"beta", BETA, "B", 0, "Class-balanced weights from --class-counts: beta in [0,1)", 0},
    {"tau", TAU, "T", 0, "softmax-logit-adjusted: offsets tau*log(n/sum n) from --class-counts; 1 is balanced softmax",
     0},
    {"max-margin", MAX_MARGIN, "M", 0,
     "softmax-ldam: margin of the rarest class, others M*(n/n_min)^(-1/4) from --class-counts, default 0.5", 0},
    {"empty-classes", EMPTY_CLASSES, "HOW", 0,
     "softmax-logit-adjusted and softmax-ldam: classes with a count of 0 in --class-counts count as one sample, or are "
     "excluded; then their label is an error (one)",
     0},
    {"positive-weights", COLUMNS + POSITIVE_COLUMNS, "W.npy", 0,
     "[classes] f2, f4, f8: weight of the label's element in each class", 0},
    {"negative-weights", COLUMNS + NEGATIVE_COLUMNS, "W.npy", 0,
     "[classes] f2, f4, f8: weight of every other element in each class; sigmoid-ce and sigmoid-focal", 0},
    {"background-negative-weights", COLUMNS + BACKGROUND_COLUMNS, "W.npy", 0,
     "[classes] f2, f4, f8: the same in background rows, whose elements have it instead", 0},
    {"alpha-per-class", COLUMNS + ALPHA_COLUMNS, "A.npy", 0, "[classes] f2, f4, f8: alpha of each class", 0},
    {"gamma-per-class", COLUMNS + GAMMA_COLUMNS, "G.npy", 0, "[classes] f2, f4, f8: sigmoid-focal: gamma of each class",
     0},
    {"offsets", OFFSETS, "O.npy", 0, "softmax-logit-adjusted: [classes] f2, f4, f8, added to the logits of each class",
     0},
    {"class-mask", CLASS_MASK, "M.npy", 0,
     "[classes] or [images, classes] u1 or bool: 0 leaves a class out of all rows, or of an image's; sigmoid losses "
     "and "
     "ghm-c",
     0},
    {"background-weight", BACKGROUND_WEIGHT, "W", 0, "Weight of background rows (1)", 0},
    {"hard-negatives", HARD_NEGATIVES, "R", 0,
     "In each image use all P rows with a class, and only the R*P background rows with the largest loss", 0},
    {"least-negatives", LEAST_NEGATIVES, "K", 0,
     "With --hard-negatives: use at least K background rows of an image (0)", 0},
    {"hard-rows", HARD_ROWS, "K", 0, "Use only the K rows of the batch with the largest loss (OHEM)", 0},
    {"hard-fraction", HARD_FRACTION, "F", 0,
     "Use only this share, in (0,1], of the rows that count: those with the largest loss (OHEM)", 0},
    {"images", IMAGES, "N", 0,
     "With --hard-negatives or --class-mask: the number of images; each has the same number of rows, in order (1)", 0},
    {"normalizer", NORMALIZER, "HOW", 0,
     "Divide by: sum (nothing), elements, rows, positives, targets (the sum of the targets; a label has its score, or "
     "1), ones (the number of targets of 1), weights (the sum of row weight times class weight), or a NUMBER (sum)",
     0},
    {"normalizer-addend", NORMALIZER_ADDEND, "A", 0, "Number that is added to the sum of --normalizer (0)", 0},
    {"normalizer-minimum", NORMALIZER_MINIMUM, "M", 0, "Smallest divisor that --normalizer may form (0)", 0},
    {"level-weight", LEVEL_WEIGHT, "W", 0,
     "Factor of a level's loss and gradient; once for each --logits, in their order (1)", 0},
    {0, 0, 0, 0, "Parameters (with the losses that take them, and their defaults):", 3},
    {0, 0, 0, 0, "Output:", 4},
    {"grad-out", GRAD_OUT, "G.npy", 0, "Write the gradient, in the logits' type (bf16 as u2)", 0},
    {"row-loss-out", ROW_LOSS_OUT, "R.npy", 0, "Write the loss of each row, before the normalizer, as f4", 0},
    {"plot", PLOT, "P.svg", 0,
     "Draw the histogram of gradient norms, objects and background separately, and the weights, as .svg, .png or .pdf. "
     "With --scores also draw the histogram without scores. For ghm-c also draw its gradient and those of CE and "
     "focal. "
     "Needs gnuplot, which may take 20 seconds",
     0},
    {"class-sums", CLASS_SUMS, 0, 0,
     "Show for each class its rows, loss, and sums of |gradient| over positives and negatives, before the normalizer",
     0},
    {"norm-histogram", NORM_HISTOGRAM, "N", 0,
     "For a sigmoid loss, show how many elements have a gradient norm |p-t| in each of N equal bins", 0},
    {"json", JSON, 0, 0, "Print one JSON object instead of a table", 0},
    {0, 0, 0, 0, "Where it runs:", 5},
    {"device", DEVICE, "WHERE", 0, "auto, cpu or cuda (auto)", 0},
    {"threads", THREADS, "T", 0, "CPU threads (all)", 0},
    {0, 0, 0, 0, 0, 0}};

static const struct choice dtypes[] = {
    {"f32", TARE_DTYPE_F32}, {"f16", TARE_DTYPE_F16}, {"bf16", TARE_DTYPE_BF16}, {NULL, 0}};

static const struct choice empty_classes[] = {
    {"one", TARE_EMPTY_CLASSES_COUNT_ONE}, {"excluded", TARE_EMPTY_CLASSES_EXCLUDED}, {NULL, 0}};

/* The options above, with the parameters of the losses under their heading. */
static const struct argp_option *all_options(void) {
  enum { OURS = sizeof eval_described / sizeof eval_described[0] };
  static struct argp_option all[OURS + MAX_PARAMETERS];
  static char *names; /* argp keeps the texts */
  if (!names) names = all_loss_names(" ");
  int32_t count = parameter_options()->count, used = 0;
  for (int32_t index = 0; index < (int32_t)OURS; index++) {
    all[used] = eval_described[index];
    if (eval_described[index].key == LOSS) all[used].doc = names;
    used++;
    bool heading = eval_described[index].doc && strncmp(eval_described[index].doc, "Parameters", 10) == 0;
    for (int32_t parameter = 0; heading && parameter < count; parameter++) {
      all[used++] = parameter_argp(parameter, PARAMETER + parameter);
    }
  }
  return all;
}

static int read_normalizer(const char *text, struct eval_options *options) {
  static const struct choice names[] = {{"sum", TARE_NORMALIZER_SUM},         {"elements", TARE_NORMALIZER_ELEMENTS},
                                        {"rows", TARE_NORMALIZER_ROWS},       {"positives", TARE_NORMALIZER_POSITIVES},
                                        {"targets", TARE_NORMALIZER_TARGETS}, {"ones", TARE_NORMALIZER_ONES},
                                        {"weights", TARE_NORMALIZER_WEIGHTS}, {NULL, 0}};
  for (const struct choice *choice = names; choice->name; choice++) {
    if (strcmp(text, choice->name) == 0) {
      options->normalizer = choice->value;
      return TOOL_OK;
    }
  }
  options->normalizer = TARE_NORMALIZER_VALUE;
  enum number found = text_number(text, &options->normalizer_value);
  if (found == NUMBER_FINE) return TOOL_OK;
  if (found != NUMBER_NONE) return parse_double("--normalizer", text, &options->normalizer_value);
  return misuse(
      "--normalizer '%s': expected sum, elements, rows, positives, targets, ones, weights or a finite decimal "
      "number",
      text);
}

/* A file more of an option that may be given for each level. */
static int add_file(const char *option, const char *text, const char **first, const char **more) {
  if (!*first) {
    *first = text;
    return TOOL_OK;
  }
  for (int32_t index = 0; index < TARE_MAX_LEVELS - 1; index++) {
    if (more[index]) continue;
    more[index] = text;
    return TOOL_OK;
  }
  return misuse("%s is given more than %d times; a batch has at most as many levels", option, TARE_MAX_LEVELS);
}

static int read_file_or_flag(int key, const char *text, struct eval_options *options) {
  if (key >= COLUMNS && key <= LAST_COLUMNS) {
    options->columns[key - COLUMNS] = text;
    return TOOL_OK;
  }
  switch (key) {
    case LOGITS:
      return add_file("--logits", text, &options->logits, options->more_logits);
    case LABELS:
      return add_file("--labels", text, &options->labels, options->more_labels);
    case TARGETS:
      options->targets = text;
      return TOOL_OK;
    case SCORES:
      options->scores = text;
      return TOOL_OK;
    case ROW_WEIGHTS:
      options->row_weights = text;
      return TOOL_OK;
    case CLASS_COUNTS:
      options->class_counts = text;
      return TOOL_OK;
    case OFFSETS:
      options->offsets = text;
      return TOOL_OK;
    case CLASS_MASK:
      options->class_mask = text;
      return TOOL_OK;
    case GRAD_OUT:
      return parse_output("--grad-out", text, ".npy", &options->grad_out);
    case ROW_LOSS_OUT:
      return parse_output("--row-loss-out", text, ".npy", &options->row_loss_out);
    case PLOT:
      return parse_picture(text, &options->plot);
    case CLASS_SUMS:
      options->class_sums = true;
      return TOOL_OK;
    default:
      options->json = true;
      return TOOL_OK;
  }
}

static int add_level_weight(const char *text, struct eval_options *options) {
  double weight = 0;
  const int status = parse_double("--level-weight", text, &weight);
  if (status != TOOL_OK) return status;
  if (weight == 0) return misuse("--level-weight 0: leave the level out instead");
  if (options->level_weight_count == TARE_MAX_LEVELS)
    return misuse("--level-weight is given more than %d times; a batch has at most as many levels", TARE_MAX_LEVELS);
  options->level_weights[options->level_weight_count++] = weight;
  return TOOL_OK;
}

static int parse_ratio(const char *option, const char *text, double *ratio) {
  const int status = parse_double(option, text, ratio);
  if (status != TOOL_OK || (*ratio >= 0 && *ratio <= 1e9)) return status;
  return misuse("%s %s: expected a number in [0,1e9]", option, text);
}

static int parse_fraction(const char *option, const char *text, double *fraction) {
  const int status = parse_double(option, text, fraction);
  if (status != TOOL_OK || (*fraction > 0 && *fraction <= 1)) return status;
  return misuse("%s %s: expected a number in (0,1]", option, text);
}

static int read_tau(const char *text, struct eval_options *options) {
  options->has_tau = true;
  int status = parse_double("--tau", text, &options->tau);
  if (status != TOOL_OK || (options->tau >= -1e30 && options->tau <= 1e30)) return status;
  return misuse("--tau is %g; it must be in [-1e30,1e30]", options->tau);
}

static int read_value(int key, const char *text, struct reading *reading) {
  struct eval_options *options = reading->options;
  switch (key) {
    case LOSS:
      return parse_loss(text, &reading->kind);
    case BETA:
      options->has_beta = true;
      return parse_beta(text, &options->beta);
    case TAU:
      return read_tau(text, options);
    case MAX_MARGIN:
      return parse_double("--max-margin", text, &options->max_margin); /* the library checks it */
    case EMPTY_CLASSES:
      return parse_choice("--empty-classes", text, empty_classes, &options->empty_classes);
    case BACKGROUND_WEIGHT:
      return parse_double("--background-weight", text, &options->background_weight);
    case HARD_NEGATIVES:
      return parse_ratio("--hard-negatives", text, &options->hard_negatives);
    case LEAST_NEGATIVES:
      return parse_int64("--least-negatives", text, 0, INT64_MAX, &options->least_negatives);
    case HARD_ROWS:
      return parse_int64("--hard-rows", text, 1, INT64_MAX, &options->hard_rows);
    case HARD_FRACTION:
      return parse_fraction("--hard-fraction", text, &options->hard_fraction);
    case IMAGES:
      return parse_int64("--images", text, 1, INT64_MAX, &options->images);
    case NORMALIZER:
      return read_normalizer(text, options);
    case NORMALIZER_ADDEND:
      return parse_double("--normalizer-addend", text, &options->normalizer_addend);
    case NORMALIZER_MINIMUM:
      return parse_double("--normalizer-minimum", text, &options->normalizer_minimum);
    case BACKGROUND:
      return parse_int64("--background", text, INT64_MIN, INT64_MAX, &options->background);
    case IGNORE:
      return parse_int64("--ignore", text, INT64_MIN, INT64_MAX, &options->ignore);
    case FIRST_LABEL:
      return parse_int64("--first-label", text, INT64_MIN, INT64_MAX, &options->first_label);
    case DEVICE:
      return parse_choice("--device", text, device_choices, &options->device);
    case DTYPE:
      return parse_choice("--dtype", text, dtypes, &options->dtype);
    case LAYOUT:
      return parse_choice("--layout", text, axes_choices, &options->layout);
    case CLASSES:
      return parse_int64("--classes", text, 1, INT32_MAX, &options->classes);
    case LEVEL_WEIGHT:
      return add_level_weight(text, options);
    case NORM_HISTOGRAM:
      return parse_int32("--norm-histogram", text, 1, 1024, &options->norm_bins);
    case THREADS:
      return parse_int32("--threads", text, 1, 1024, &options->threads);
    default:
      return read_file_or_flag(key, text, options);
  }
}

static error_t read_option(int key, char *text, struct argp_state *state) {
  struct reading *reading = state->input;
  const int32_t parameter = key - PARAMETER;
  if (parameter >= 0 && parameter < parameter_options()->count) {
    return parameter_read(parameter, text, &reading->parameters[parameter]) == TOOL_OK ? 0 : EINVAL;
  }
  if (key < LOSS || key > JSON) return ARGP_ERR_UNKNOWN;
  reading->options->given |= BIT(key);
  return read_value(key, text, reading) == TOOL_OK ? 0 : EINVAL;
}

int eval_options_read(struct eval_options *options, int argc, char **argv) {
  *options = (struct eval_options){.background = -1,
                                   .ignore = -2,
                                   .background_weight = 1,
                                   .max_margin = 0.5,
                                   .hard_negatives = -1,
                                   .images = 1,
                                   .normalizer = TARE_NORMALIZER_SUM,
                                   .normalizer_value = 1,
                                   .device = TARE_DEVICE_AUTO,
                                   .dtype = -1};
  struct reading reading = {.options = options, .kind = -1};
  const struct argp argp = {
      all_options(),
      read_option,
      "--loss NAME --logits X.npy (--labels Y.npy | --targets T.npy)",
      "Evaluates one loss and its gradient on arrays from files.\v"
      "Defaults are in parentheses. The exit status is 0, 1 if an operation failed, 2 for wrong usage. "
      "An output file is written completely or not at all. It must not be an input, or a link to a missing file. "
      "The time is the median of a few repetitions of loss and gradient together. "
      "GB/s counts each byte of logits, gradient, labels, targets and row weights once.\n\n"
      "--json: loss, name, normalizer (the divisor used) and normalizer_kind, rows, classes, positives, background, "
      "ignored, counted, grad_l1, grad_l2 (of the gradient as returned), device, device_name, reason (why no GPU is "
      "used), "
      "instruction_set, threads, dtype, milliseconds, gigabytes_per_second. To repeat the run: command, "
      "parameters (of the loss, with defaults), version, build, date (UTC). GHM adds histogram {edges, counts, "
      "weights}; --class-sums adds class_sums {loss, positive_gradient, negative_gradient, count}; --norm-histogram "
      "adds norm_histogram; several --logits add levels {rows, weights, losses}. A weight of a histogram is N/GD; "
      "in the exact density it is the mean of its bin. "
      "Numbers that JSON cannot express are \"NaN\", \"Infinity\" or \"-Infinity\".",
      NULL,
      NULL,
      NULL};
  int status =
      parse_arguments(&argp, (const char *const[]){"logits", "labels", "level-weight", NULL}, argc, argv, &reading);
  if (status == TOOL_OK) status = reading_check_files(&reading);
  if (status == TOOL_OK) status = parameters_fill(reading.kind, reading.parameters, &options->loss);
  if (status == TOOL_OK) status = reading_check_together(&reading);
  return status;
}
