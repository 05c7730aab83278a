/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tare mask`: the loss of masks on arrays of your own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "provenance.h"
#include "report.h"
#include "tare.h"
#include "tool/base/device.h"
#include "tool/base/npy.h"
#include "tool/base/outfile.h"
#include "tool/base/parse.h"
#include "tool/base/problem.h"
#include "verbs.h"

enum { LOGITS = 256, TARGETS, VALID, WEIGHTS, IGNORE, NORMALIZER, SQUARED, GRADIENT, DEVICE, JSON, FIRST_NUMBER };

static const struct argp_option described[] = {
    {"logits", LOGITS, "X.npy", 0, "Logits [masks, pixels] or [masks, height, width], f2, f4 or f8", 0},
    {"targets", TARGETS, "T.npy", 0, "Targets of the same shape, in [0,1], f2, f4 or f8; or bool or u1, 0 or 1", 0},
    {"valid", VALID, "V.npy", 0, "bool or u1 of the same shape: 0 where a pixel does not count (all count)", 0},
    {"weights", WEIGHTS, "W.npy", 0, "A factor of each mask's loss, f4 [masks] (1)", 0},
    {"ignore-target", IGNORE, "N", 0, "Pixels with this target do not count; of u1 targets, 2 to 255 (none)", 0},
    {"normalizer", NORMALIZER, "HOW", 0, "Divide by: sum (nothing), or masks (the number of masks that count) (sum)",
     0},
    {"squared", SQUARED, 0, 0, "Square p and t in the denominator, as in V-Net and mmdetection", 0},
    {"gradient", GRADIENT, "G.npy", 0, "Write the gradient, in the logits' type and shape", 0},
    {"device", DEVICE, "WHERE", 0, "auto, cpu or cuda (auto)", 0},
    {"json", JSON, 0, 0, "Print one JSON object instead of a table", 0},
    {"false-positive-weight", FIRST_NUMBER, "W", 0, "Factor of FP (0.5)", 1},
    {"false-negative-weight", FIRST_NUMBER + 1, "W", 0, "Factor of FN (0.5)", 1},
    {"exponent", FIRST_NUMBER + 2, "E", 0, "Exponent of 1-T; 0.75 is focal Tversky loss (1)", 1},
    {"numerator-smoothing", FIRST_NUMBER + 3, "S", 0,
     "Added to the numerator of T; 0.5 is a smoothing of 1 in the usual dice loss (0.5)", 1},
    {"denominator-smoothing", FIRST_NUMBER + 4, "S", 0, "Added to the denominator of T (0.5)", 1},
    {"overlap-weight", FIRST_NUMBER + 5, "W", 0, "Factor of (1-T)^exponent (1)", 1},
    {"focal-weight", FIRST_NUMBER + 6, "W", 0, "Factor of the focal loss; 0: no focal loss (0)", 1},
    {"alpha", FIRST_NUMBER + 7, "A", 0, "Alpha of the focal loss; negative: off (0.25)", 1},
    {"gamma", FIRST_NUMBER + 8, "G", 0, "Gamma of the focal loss (2)", 1},
    {0, 0, 0, 0, 0, 0}};

/* The numbers of a spec, in the order of the options. */
static const size_t places[] = {offsetof(tare_mask_spec, false_positive_weight),
                                offsetof(tare_mask_spec, false_negative_weight),
                                offsetof(tare_mask_spec, exponent),
                                offsetof(tare_mask_spec, numerator_smoothing),
                                offsetof(tare_mask_spec, denominator_smoothing),
                                offsetof(tare_mask_spec, overlap_weight),
                                offsetof(tare_mask_spec, focal_weight),
                                offsetof(tare_mask_spec, alpha),
                                offsetof(tare_mask_spec, gamma)};
enum { NUMBERS = sizeof places / sizeof *places };

struct options {
  const char *logits, *targets, *valid, *weights, *gradient;
  int32_t device, normalizer;
  int64_t ignore_target;
  bool json;
  tare_mask_spec spec;
};

static error_t read_number(int key, const char *text, struct options *options) {
  const char *name = NULL;
  for (const struct argp_option *one = described; one->name; one++)
    if (one->key == key) name = one->name;
  char option[64];
  snprintf(option, sizeof option, "--%s", name);
  double value;
  if (parse_double(option, text, &value)) return EINVAL;
  memcpy((char *)&options->spec + places[key - FIRST_NUMBER], &value, sizeof value);
  return 0;
}

static error_t read_option(int key, char *text, struct argp_state *state) {
  static const struct choice normalizers[] = {{"sum", TARE_NORMALIZER_SUM}, {"masks", TARE_NORMALIZER_ROWS}, {NULL, 0}};
  struct options *options = state->input;
  if (key >= FIRST_NUMBER && key < FIRST_NUMBER + NUMBERS) return read_number(key, text, options);
  switch (key) {
    case LOGITS:
      options->logits = text;
      return 0;
    case TARGETS:
      options->targets = text;
      return 0;
    case VALID:
      options->valid = text;
      return 0;
    case WEIGHTS:
      options->weights = text;
      return 0;
    case IGNORE:
      return parse_int64("--ignore-target", text, 2, 255, &options->ignore_target) ? EINVAL : 0;
    case NORMALIZER:
      return parse_choice("--normalizer", text, normalizers, &options->normalizer) ? EINVAL : 0;
    case SQUARED:
      options->spec.squared = 1;
      return 0;
    case GRADIENT:
      return parse_output("--gradient", text, ".npy", &options->gradient) ? EINVAL : 0;
    case DEVICE:
      return parse_choice("--device", text, device_choices, &options->device) ? EINVAL : 0;
    case JSON:
      options->json = true;
      return 0;
    default:
      return ARGP_ERR_UNKNOWN;
  }
}

/* Arrays on the host and on the device. */
struct work {
  struct npy logits, targets, valid, weights;
  struct device device;
  void *x, *t, *counts, *factors, *gradient, *losses, *sums, *room;
  double found[3];
  tare_mask_sums *of_masks;
  void *by_x;
};

static int check_shape(const char *role, const struct npy *array, const struct npy *logits) {
  for (int axis = 0; axis < logits->dimensions; axis++)
    if (logits->shape[axis] != array->shape[axis])
      return complain("%s and --logits differ along axis %d: %" PRId64 " and %" PRId64, role, axis, array->shape[axis],
                      logits->shape[axis]);
  return TOOL_OK;
}

static int read_optional(const struct options *options, struct work *w) {
  int status = TOOL_OK;
  if (options->valid) status = npy_read("--valid", options->valid, NPY_U1, w->logits.dimensions, &w->valid);
  if (status == TOOL_OK && options->valid) status = check_shape("--valid", &w->valid, &w->logits);
  if (status == TOOL_OK && options->weights) status = npy_read("--weights", options->weights, NPY_F4, 1, &w->weights);
  if (status == TOOL_OK && options->weights && w->weights.count != w->logits.shape[0])
    status = complain("--weights has %" PRId64 " numbers; --logits has %" PRId64 " masks", w->weights.count,
                      w->logits.shape[0]);
  if (status == TOOL_OK && options->ignore_target >= 0 && w->targets.type != NPY_U1)
    status = misuse("--ignore-target goes with u1 targets; leave pixels out by --valid");
  return status;
}

static int read_arrays(const struct options *options, struct work *w) {
  int status = npy_read("--logits", options->logits, NPY_FLOATS, NPY_ANY_DIMENSIONS, &w->logits);
  if (status == TOOL_OK)
    status = npy_read("--targets", options->targets, NPY_FLOATS | NPY_U1, w->logits.dimensions, &w->targets);
  if (status != TOOL_OK) return status;
  if (w->logits.dimensions < 2) return complain("--logits has %d axes; it must have at least 2", w->logits.dimensions);
  status = check_shape("--targets", &w->targets, &w->logits);
  return status == TOOL_OK ? read_optional(options, w) : status;
}

static int32_t dtype_of(const struct npy *array) {
  return array->type == NPY_F8 ? TARE_DTYPE_F64 : array->type == NPY_F2 ? TARE_DTYPE_F16 : TARE_DTYPE_F32;
}

/* Memory on the device with an array's data, or none if there is no array. */
static int put(struct work *w, const struct npy *array, void **place) {
  if (!array->data) return TOOL_OK;
  const uint64_t bytes = (uint64_t)array->count * npy_size(array->type);
  int status = device_alloc(&w->device, bytes, place);
  if (status == TOOL_OK) device_put(&w->device, *place, array->data, bytes);
  return status;
}

static int allocate(struct work *w, uint64_t room) {
  const uint64_t x = (uint64_t)w->logits.count * npy_size(w->logits.type);
  const uint64_t sums = (uint64_t)w->logits.shape[0] * sizeof(tare_mask_sums);
  int status = put(w, &w->logits, &w->x);
  if (status == TOOL_OK) status = put(w, &w->targets, &w->t);
  if (status == TOOL_OK) status = put(w, &w->valid, &w->counts);
  if (status == TOOL_OK) status = put(w, &w->weights, &w->factors);
  if (status == TOOL_OK) status = device_alloc(&w->device, x, &w->gradient);
  if (status == TOOL_OK) status = device_alloc(&w->device, sizeof w->found, &w->losses);
  if (status == TOOL_OK) status = device_alloc(&w->device, sums, &w->sums);
  if (status == TOOL_OK) status = device_alloc(&w->device, room, &w->room);
  w->of_masks = calloc((size_t)sums + 1, 1);
  w->by_x = malloc((size_t)x + 1);
  if (status == TOOL_OK && (!w->of_masks || !w->by_x)) status = complain("out of memory");
  if (status != TOOL_OK) return status;
  return device_check(&w->device, tare_context_set_workspace(w->device.context, w->room, room));
}

static int evaluate(const struct options *options, struct work *w, tare_masks *masks) {
  const int64_t count = w->logits.shape[0];
  tare_mask_output output;
  masks->logits = w->x;
  masks->targets = w->t;
  masks->valid = w->counts;
  masks->mask_weights = w->factors;
  masks->ignore_target = (int32_t)options->ignore_target;
  tare_mask_output_init(&output, masks->pixels);
  output.loss = w->losses;
  output.overlap_loss = (double *)w->losses + 1;
  output.focal_loss = (double *)w->losses + 2;
  output.loss_dtype = TARE_DTYPE_F64;
  output.normalizer = options->normalizer;
  output.gradient = w->gradient;
  output.sums = w->sums;
  int status = device_check(&w->device, tare_mask_evaluate(w->device.context, &options->spec, masks, &output, NULL));
  if (status == TOOL_OK) status = device_wait(&w->device);
  if (status != TOOL_OK) return status;
  device_get(&w->device, w->found, w->losses, sizeof w->found);
  device_get(&w->device, w->of_masks, w->sums, (uint64_t)count * sizeof(tare_mask_sums));
  device_get(&w->device, w->by_x, w->gradient, (uint64_t)w->logits.count * npy_size(w->logits.type));
  return TOOL_OK;
}

static int compute(const struct options *options, struct work *w) {
  tare_masks masks;
  uint64_t room = 0;
  int status = read_arrays(options, w);
  if (status == TOOL_OK) status = device_open(&w->device, options->device, 0);
  if (status != TOOL_OK) return status;
  const int64_t count = w->logits.shape[0];
  int64_t pixels = 1;
  for (int axis = 1; axis < w->logits.dimensions; axis++) pixels *= w->logits.shape[axis];
  tare_masks_init(&masks, count, pixels);
  masks.dtype = dtype_of(&w->logits);
  masks.target_dtype = w->targets.type == NPY_U1 ? TARE_MASK_TARGET_U8 : dtype_of(&w->targets);
  status = device_check(&w->device, tare_mask_workspace_size(w->device.context, &masks, &room));
  if (status == TOOL_OK) status = allocate(w, room);
  return status == TOOL_OK ? evaluate(options, w, &masks) : status;
}

static int write_gradient(const char *path, const struct work *w) {
  if (!path) return TOOL_OK;
  FILE *file = outfile_open("--gradient", path);
  if (!file) return TOOL_FAILED;
  if (npy_write(file, w->logits.type, w->logits.dimensions, w->logits.shape, w->by_x) != 0)
    return outfile_failed("--gradient", path);
  return TOOL_OK;
}

static void print_table(const struct work *w) {
  struct table table = {.alignment = "rrrrrr"};
  static const char *const heading[] = {"mask", "pixels", "true positives", "false positives", "false negatives",
                                        "focal"};
  for (size_t i = 0; i < sizeof heading / sizeof *heading; i++) table_cell(&table, "%s", heading[i]);
  for (int64_t mask = 0; mask < w->logits.shape[0]; mask++) {
    const tare_mask_sums *s = &w->of_masks[mask];
    table_cell(&table, "%" PRId64, mask);
    table_cell(&table, "%s", grouped(s->pixels).of);
    table_cell(&table, "%.6g", s->true_positives);
    table_cell(&table, "%.6g", s->false_positives);
    table_cell(&table, "%.6g", s->false_negatives);
    table_cell(&table, "%.6g", s->focal);
  }
  table_print(&table, true);
  printf("\n  loss %.9g, overlap %.9g, focal %.9g\n", w->found[0], w->found[1], w->found[2]);
}

static json_t *as_json(const struct work *w, json_t *command) {
  json_t *sums = json_array();
  for (int64_t mask = 0; mask < w->logits.shape[0]; mask++) {
    const tare_mask_sums *s = &w->of_masks[mask];
    json_append(sums, json_pack("{s:I, s:o, s:o, s:o, s:o}", "pixels", (json_int_t)s->pixels, "true_positives",
                                json_number(s->true_positives), "false_positives", json_number(s->false_positives),
                                "false_negatives", json_number(s->false_negatives), "focal", json_number(s->focal)));
  }
  json_t *object =
      json_pack("{s:O, s:o, s:o, s:o, s:o}", "command", command, "loss", json_number(w->found[0]), "overlap_loss",
                json_number(w->found[1]), "focal_loss", json_number(w->found[2]), "masks", sums);
  provenance_add(object);
  return object;
}

static void release(struct work *w) {
  void *const memory[] = {w->x, w->t, w->counts, w->factors, w->gradient, w->losses, w->sums, w->room};
  for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
    if (memory[i]) device_free(&w->device, memory[i]);
  if (w->device.context) device_close(&w->device);
  free(w->logits.data);
  free(w->targets.data);
  free(w->valid.data);
  free(w->weights.data);
  free(w->of_masks);
  free(w->by_x);
}

static int evaluate_masks(int argc, char **argv, json_t *command) {
  static const struct argp argp = {
      described,
      read_option,
      "--logits X.npy --targets T.npy",
      "Evaluates dice, Tversky or focal Tversky loss of masks, and focal loss.\v"
      "Defaults are in parentheses. A mask has T = (TP + numerator smoothing)/(TP + w*FP + w*FN + denominator "
      "smoothing). Its loss is (1-T)^exponent.",
      NULL,
      NULL,
      NULL};
  struct options options = {.device = TARE_DEVICE_AUTO, .ignore_target = -1};
  struct work work = {0};
  tare_mask_spec_init(&options.spec);
  int status = parse_arguments(&argp, NULL, argc, argv, &options);
  if (status == TOOL_OK && !options.logits) status = misuse("--logits is missing");
  if (status == TOOL_OK && !options.targets) status = misuse("--targets is missing");
  if (status != TOOL_OK) return status;
  status = compute(&options, &work);
  if (status == TOOL_OK) status = write_gradient(options.gradient, &work);
  if (status == TOOL_OK) status = outfile_complete();
  if (status == TOOL_OK && options.json)
    status = json_print(as_json(&work, command));
  else if (status == TOOL_OK)
    print_table(&work);
  if (status == TOOL_OK) status = finish_output();
  if (status == TOOL_OK) status = outfile_commit();
  release(&work);
  return status;
}

int verb_mask(int argc, char **argv) {
  json_t *command = provenance_command(argc, argv);
  const int status = evaluate_masks(argc, argv, command);
  json_decref(command);
  return status;
}
