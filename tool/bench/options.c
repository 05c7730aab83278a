/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of `tare bench`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "tool/base/problem.h"

enum {
  ROWS = 256,
  CLASSES,
  DTYPE,
  LOSS,
  DEVICE,
  THREADS,
  LAYOUT,
  HEAD,
  WORKSPACE,
  IN_PLACE,
  APART,
  BINS,
  GAMMA,
  DISTRIBUTION,
  LABELS,
  REPEAT,
  PLOT,
  SWEEP,
  COMPARE,
  CSV,
  JSON
};
const struct choice bench_layouts[] = {
    {"rows", LAYOUT_ROWS}, {"nchw", LAYOUT_NCHW}, {"nhwc", LAYOUT_NHWC}, {"levels", LAYOUT_LEVELS}, {NULL, 0}};
static const struct choice sweeps[] = {
    {"rows", SWEEP_ROWS}, {"classes", SWEEP_CLASSES}, {"threads", SWEEP_THREADS}, {NULL, 0}};
#define CB_FOCAL "cb-focal"

static const struct argp_option described[] = {
    {0, 0, 0, 0, "What:", 1},
    {"loss", LOSS, "NAME", 0, "Only this loss; may be repeated. " CB_FOCAL " is class-balanced focal loss (all)", 0},
    {"gamma", GAMMA, "G", 0, "Exponent of the focal losses (sigmoid-focal 2, 1.5 and 3.7, else 2)", 0},
    {"bins", BINS, "M", 0, "Number of unit regions of GHM (ghm-c 10 and 30, ghm-r 10)", 0},
    {0, 0, 0, 0, "On what:", 2},
    {"rows", ROWS, "N", 0, "Number of anchors (100000)", 0},
    {"classes", CLASSES, "C", 0, "Number of classes (80)", 0},
    {"dtype", DTYPE, "TYPE", 0, "f32, f16, bf16 or f64 (f32)", 0},
    {"layout", LAYOUT, "HOW", 0, "rows; nchw or nhwc maps, as from a detector's head; or levels: five nchw maps (rows)",
     0},
    {"head", HEAD, "D", 0,
     "Compare a fused head of D features with the separate steps: a product, the loss, two products", 0},
    {"workspace", WORKSPACE, "MB", 0, "Size of the fused head's workspace (the ample size)", 0},
    {"distribution", DISTRIBUTION, "D", 0,
     "detector: N(-4.6,1.5), 0.5 % positives; normal:MEAN,SD; file:X.npy, repeated to fill --rows and --classes "
     "(detector)",
     0},
    {"labels", LABELS, "Y.npy", 0, "The labels of file:X.npy (random labels)", 0},
    {0, 0, 0, 0, "How:", 3},
    {"in-place", IN_PLACE, 0, 0, "The gradient overwrites the logits (the default)", 0},
    {"apart", APART, 0, 0, "The gradient has an array of its own", 0},
    {"device", DEVICE, "WHERE", 0, "auto, cpu or cuda (auto)", 0},
    {"threads", THREADS, "T", 0, "CPU threads of the losses; a BLAS has threads of its own (all)", 0},
    {"repeat", REPEAT, "R", 0, "Number of rounds (as many as fit in a few seconds, at least 15)", 0},
    {"plot", PLOT, "P.svg", 0, "Draw the times as .svg, .png or .pdf. Needs gnuplot", 0},
    {"sweep", SWEEP, "WHAT", 0,
     "Time an element at growing sizes: rows (1,024 to 16,777,216, or --rows), classes (1 to 4,096, or --classes; rows "
     "so that there are 8 million elements) or threads (1 to --threads). Four losses unless --loss names others",
     0},
    {"compare", COMPARE, "OLD.json", 0,
     "Compare with an earlier run on the same batch and device, which --json wrote, and say which losses are faster or "
     "slower",
     0},
    {"csv", CSV, 0, 0, "Print a header and a line for each loss instead of a table", 0},
    {"json", JSON, 0, 0, "Print one JSON object instead of a table", 0},
    {0, 0, 0, 0, 0, 0}};

static int read_distribution(const char *text, struct bench_options *options) {
  options->distribution_text = text;
  if (strcmp(text, "detector") == 0) {
    options->distribution = detector_distribution;
    return TOOL_OK;
  }
  if (strncmp(text, "file:", 5) == 0 && text[5]) {
    options->file = text + 5;
    return TOOL_OK;
  }
  const char *comma = strchr(text, ',');
  char mean[64];
  struct distribution *distribution = &options->distribution;
  if (strncmp(text, "normal:", 7) == 0 && comma && (size_t)(comma - text - 7) < sizeof mean) {
    snprintf(mean, sizeof mean, "%.*s", (int)(comma - text - 7), text + 7);
    distribution->detector = false;
    if (text_to_double(mean, &distribution->mean) && text_to_double(comma + 1, &distribution->deviation) &&
        distribution->deviation >= 0) {
      return TOOL_OK;
    }
  }
  return misuse("--distribution %s: expected detector, normal:MEAN,SD or file:X.npy", text);
}

static int read_loss(const char *text, struct contender_filter *filter) {
  if (filter->kind_count == MAX_CONTENDERS) return misuse("--loss %s: too many", text);
  int32_t *kind = &filter->kinds[filter->kind_count];
  bool balanced = strcmp(text, CB_FOCAL) == 0;
  filter->class_balanced[filter->kind_count] = balanced;
  int status = parse_loss(balanced ? "sigmoid-focal" : text, kind);
  if (status == TOOL_OK) filter->kind_count++;
  return status;
}

static int read_value(int key, const char *text, struct bench_options *options) {
  switch (key) {
    case ROWS:
      options->rows_given = true;
      return parse_int64("--rows", text, 1, INT64_C(1) << 40, &options->rows);
    case CLASSES:
      options->classes_given = true;
      return parse_int64("--classes", text, 1, INT32_MAX, &options->classes);
    case DTYPE:
      return parse_choice("--dtype", text, dtype_choices, &options->dtype);
    case LOSS:
      return read_loss(text, &options->filter);
    case DEVICE:
      return parse_choice("--device", text, device_choices, &options->device);
    case THREADS:
      return parse_int32("--threads", text, 1, 1024, &options->threads);
    case LAYOUT:
      return parse_choice("--layout", text, bench_layouts, &options->layout);
    case HEAD:
      return parse_int64("--head", text, 1, INT32_MAX, &options->dimensions);
    case WORKSPACE:
      options->workspace_given = true;
      return parse_double("--workspace", text, &options->workspace);
    case IN_PLACE:
      options->apart = false;
      return TOOL_OK;
    case APART:
      options->apart = true;
      return TOOL_OK;
    case BINS:
      return parse_int32("--bins", text, 1, 1024, &options->filter.bins);
    case DISTRIBUTION:
      return read_distribution(text, options);
    case LABELS:
      options->labels = text;
      return TOOL_OK;
    case REPEAT:
      return parse_int64("--repeat", text, 1, 1000000, &options->repeat);
    case PLOT:
      return parse_picture(text, &options->plot);
    case SWEEP:
      return parse_choice("--sweep", text, sweeps, &options->sweep);
    case COMPARE:
      options->compare = text;
      return TOOL_OK;
    case CSV:
      options->csv = true;
      return TOOL_OK;
    case JSON:
      options->json = true;
      return TOOL_OK;
    default:
      break;
  }
  int status = parse_double("--gamma", text, &options->filter.gamma);
  if (status == TOOL_OK && options->filter.gamma < 0) status = misuse("--gamma %s: expected 0 or more", text);
  return status;
}

static error_t read_option(int key, char *text, struct argp_state *state) {
  if (key < ROWS || key > JSON) return ARGP_ERR_UNKNOWN;
  return read_value(key, text, state->input) == TOOL_OK ? 0 : EINVAL;
}

/* What takes long is measured for a few losses from number `first` on, unless others are named. */
static void use_main_losses(struct contender_filter *filter, int32_t first) {
  static const int32_t usual[] = {TARE_LOSS_SIGMOID_CE, TARE_LOSS_SIGMOID_FOCAL, TARE_LOSS_SOFTMAX_CE, TARE_LOSS_GHM_C};
  if (filter->kind_count) return;
  filter->kind_count = (int32_t)(sizeof usual / sizeof usual[0]) - first;
  for (int32_t index = 0; index < filter->kind_count; index++) filter->kinds[index] = usual[first + index];
  if (filter->gamma < 0) filter->gamma = 2;
  if (filter->bins == 0) filter->bins = 30;
}

/* The products of a head take long: three losses unless others are named. Boxes come from no classifier. */
static int check_head(struct bench_options *options) {
  struct contender_filter *filter = &options->filter;
  if (options->layout != LAYOUT_ROWS || options->file || options->apart || options->dtype == TARE_DTYPE_F64) {
    return misuse("--head forms its own logits; it takes no --layout, --apart, --distribution file: or --dtype f64");
  }
  if (options->plot) return misuse("--head is not drawn; leave out --plot");
  for (int32_t index = 0; index < filter->kind_count; index++) {
    if (filter->kinds[index] == TARE_LOSS_GHM_R || filter->class_balanced[index]) {
      return misuse("--head: ghm-r and " CB_FOCAL " cannot be compared");
    }
  }
  use_main_losses(filter, 1);
  return TOOL_OK;
}

/* A sweep makes a batch for each size. */
static int check_sweep(struct bench_options *options) {
  if (options->dimensions) return misuse("--sweep with --head: a head is not swept; leave out one of them");
  if (options->compare) return misuse("--sweep with --compare: a sweep is not compared; leave out one of them");
  if (options->file) return misuse("--sweep makes its own batches; it takes no --distribution file:");
  if (options->sweep == SWEEP_CLASSES && options->rows_given)
    return misuse("--sweep classes with --rows: rows follow from classes, so that there are 8 million elements");
  use_main_losses(&options->filter, 0);
  options->budget = 2;
  return TOOL_OK;
}

int bench_options_read(struct bench_options *options, int argc, char **argv) {
  static const struct argp argp = {
      described,
      read_option,
      NULL,
      "Times loss and gradient in one call. Compares them with a plain copy of the same bytes, with the "
      "same number of threads in the same run.\v"
      "Defaults are in parentheses.",
      NULL,
      NULL,
      NULL};
  *options = (struct bench_options){.filter = {.gamma = -1},
                                    .rows = 100000,
                                    .classes = 80,
                                    .budget = 5,
                                    .dtype = TARE_DTYPE_F32,
                                    .distribution = detector_distribution,
                                    .distribution_text = "detector",
                                    .command = options->command};
  int status = parse_arguments(&argp, (const char *const[]){"loss", NULL}, argc, argv, options);
  if (status == TOOL_OK && options->labels && !options->file) {
    status = misuse("--labels belongs to --distribution file:X.npy");
  }
  if (status == TOOL_OK && options->workspace_given && !(options->dimensions && options->workspace >= 1e-6)) {
    status = misuse("--workspace belongs to --head and must be at least 0.000001 MB, one byte");
  }
  if (status == TOOL_OK && options->csv && options->json) status = misuse("--csv with --json: give one of them");
  if (status == TOOL_OK && options->sweep) status = check_sweep(options);
  if (status == TOOL_OK && options->dimensions) status = check_head(options);
  return status;
}
