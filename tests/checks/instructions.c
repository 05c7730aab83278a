/* SPDX-License-Identifier: Apache-2.0 */
/*
 * instructions: evaluates a fixed batch by each of a list of losses, twice, and prints a name for each. The second call
 * is measure(), whose instructions tests/checks/instructions.sh counts with valgrind. Batches are small: a count does
 * not need many elements.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tare.h"

enum { ROWS = 96, MOST_CLASSES = 80, ELEMENTS = ROWS * MOST_CLASSES };

enum layout { ROW_MAJOR, NCHW };

/** 0: labels. Of dense targets half are between 0 and 1. FEW_LABELS: 2 % of the rows have a class. */
enum targets { DENSE = 1, FEW_LABELS };

/** A case: a loss and what its batch looks like. */
typedef struct instruction_case {
  tare_loss_kind kind;
  double gamma; /* or bins; below 0: the loss's default */
  tare_dtype dtype;
  int layout, targets;
  int64_t classes;
} instruction_case;

static const instruction_case cases[] = {
    {TARE_LOSS_SIGMOID_CE, -1, TARE_DTYPE_F32, ROW_MAJOR, 0, 80},
    {TARE_LOSS_SIGMOID_CE, -1, TARE_DTYPE_F64, ROW_MAJOR, 0, 80},
    {TARE_LOSS_SIGMOID_FOCAL, 2, TARE_DTYPE_F32, ROW_MAJOR, 0, 80},
    {TARE_LOSS_SIGMOID_FOCAL, 2, TARE_DTYPE_F32, NCHW, 0, 80},
    {TARE_LOSS_SIGMOID_FOCAL, 2, TARE_DTYPE_F16, ROW_MAJOR, 0, 80},
    {TARE_LOSS_SIGMOID_FOCAL, 2, TARE_DTYPE_BF16, ROW_MAJOR, 0, 80},
    {TARE_LOSS_SIGMOID_FOCAL, 2, TARE_DTYPE_F64, ROW_MAJOR, 0, 80},
    {TARE_LOSS_SIGMOID_FOCAL, 2, TARE_DTYPE_F32, ROW_MAJOR, 1, 80},
    {TARE_LOSS_SIGMOID_FOCAL, 3.7, TARE_DTYPE_F32, ROW_MAJOR, 0, 80},
    {TARE_LOSS_SIGMOID_FOCAL, 2, TARE_DTYPE_F32, ROW_MAJOR, 0, 1},
    {TARE_LOSS_SIGMOID_FOCAL, 2, TARE_DTYPE_F32, ROW_MAJOR, 0, 3},
    {TARE_LOSS_SIGMOID_POLY1, 2, TARE_DTYPE_F32, ROW_MAJOR, 0, 80},
    {TARE_LOSS_SIGMOID_VARIFOCAL, -1, TARE_DTYPE_F32, ROW_MAJOR, 0, 80},
    {TARE_LOSS_SIGMOID_ASYMMETRIC, -1, TARE_DTYPE_F32, ROW_MAJOR, 0, 80},
    {TARE_LOSS_SOFTMAX_CE, -1, TARE_DTYPE_F32, ROW_MAJOR, 0, 80},
    {TARE_LOSS_SOFTMAX_CE, -1, TARE_DTYPE_F64, ROW_MAJOR, 0, 80},
    {TARE_LOSS_SOFTMAX_CE, -1, TARE_DTYPE_F32, NCHW, 0, 80},
    {TARE_LOSS_SOFTMAX_CE, -1, TARE_DTYPE_F32, ROW_MAJOR, FEW_LABELS, 80},
    {TARE_LOSS_SOFTMAX_CE, -1, TARE_DTYPE_F32, NCHW, FEW_LABELS, 80},
    {TARE_LOSS_SOFTMAX_CE, -1, TARE_DTYPE_F32, ROW_MAJOR, 1, 80},
    {TARE_LOSS_SOFTMAX_CE, -1, TARE_DTYPE_F32, ROW_MAJOR, 0, 3},
    {TARE_LOSS_SOFTMAX_FOCAL, 2, TARE_DTYPE_F32, ROW_MAJOR, 0, 80},
    {TARE_LOSS_GHM_C, 10, TARE_DTYPE_F32, ROW_MAJOR, 0, 80},
    {TARE_LOSS_GHM_C, 30, TARE_DTYPE_F32, ROW_MAJOR, 0, 80},
    {TARE_LOSS_GHM_C, 30, TARE_DTYPE_F32, ROW_MAJOR, 1, 80},
    {TARE_LOSS_GHM_R, 10, TARE_DTYPE_F32, ROW_MAJOR, 1, 4},
};

static double logits[ELEMENTS], gradient[ELEMENTS], loss; /* room for every type */
static float targets[ELEMENTS];
static int32_t labels[ROWS];

/** The same numbers in [0,1) each time. */
static double next_number(uint64_t *state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return (double)(*state >> 11) * 0x1p-53;
}

/** Around -4, exact in every type: the bits of a bf16, which f16 and the others can hold, too. */
static void put_logit(tare_dtype dtype, int64_t i, double uniform) {
  const float x = (float)((int)(uniform * 64) - 48) / 8; /* -6 ... 1.9 */
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  uint16_t half = (uint16_t)(bits >> 16);
  if (dtype == TARE_DTYPE_F16) /* 8 bits of exponent become 5; no logit but 0 is near the ends */
    half = x == 0 ? 0 : (uint16_t)((bits >> 16 & 0x8000u) | (((bits >> 13) & 0x3ffffu) - (112u << 10)));
  if (dtype == TARE_DTYPE_F64)
    logits[i] = (double)x;
  else if (dtype == TARE_DTYPE_F32)
    ((float *)(void *)logits)[i] = x;
  else
    ((uint16_t *)(void *)logits)[i] = half;
}

/** 2 % of the rows are ignored. 10 % have a class; of a softmax loss, all others. */
static void draw_batch(const instruction_case *c, int is_softmax) {
  uint64_t state = 1;
  for (int64_t i = 0; i < ROWS * c->classes; i++) {
    put_logit(c->dtype, i, next_number(&state));
    const double kind = next_number(&state), between = next_number(&state);
    targets[i] = (float)(kind < 0.45 ? 0 : kind < 0.5 ? 1 : between);
  }
  for (int64_t i = 0; i < ROWS; i++) {
    const int32_t cls = (int32_t)(next_number(&state) * (double)c->classes);
    const int has_class = c->targets == FEW_LABELS ? i % 50 == 3 : is_softmax || i % 10 == 3;
    labels[i] = i % 50 == 7 ? -2 : has_class ? cls : -1;
  }
}

static void set_loss(const instruction_case *c, tare_loss_spec *spec) {
  tare_loss_spec_init(spec, c->kind);
  if (c->gamma < 0) return;
  if (c->kind == TARE_LOSS_SIGMOID_FOCAL || c->kind == TARE_LOSS_SOFTMAX_FOCAL) spec->focal.gamma = c->gamma;
  if (c->kind == TARE_LOSS_SIGMOID_POLY1) spec->poly1.gamma = c->gamma;
  if (c->kind == TARE_LOSS_GHM_C || c->kind == TARE_LOSS_GHM_R) spec->ghm.bins = (int32_t)c->gamma;
}

/** Its own function, and not static, so that valgrind can find it. */
tare_status measure(tare_context *context, const tare_loss_spec *spec, const tare_batch *batch,
                    const tare_output *output);

__attribute__((noinline)) tare_status measure(tare_context *context, const tare_loss_spec *spec,
                                              const tare_batch *batch, const tare_output *output) {
  const tare_status status = tare_evaluate(context, spec, batch, output, NULL);
  __asm__ volatile("" ::: "memory"); /* no jump into tare_evaluate in place of a call */
  return status;
}

static int run_case(tare_context *context, const instruction_case *c) {
  tare_loss_spec spec;
  set_loss(c, &spec);
  draw_batch(c, c->kind == TARE_LOSS_SOFTMAX_CE || c->kind == TARE_LOSS_SOFTMAX_FOCAL);
  tare_level level;
  if (c->layout == NCHW)
    tare_level_init_nchw(&level, 1, c->classes, 8, ROWS / 8);
  else
    tare_level_init_rows(&level, ROWS, c->classes);
  level.logits = logits;
  level.gradient = gradient;
  level.labels = labels;
  if (c->targets == DENSE) level.targets = targets;
  tare_batch batch;
  tare_batch_init(&batch);
  batch.levels = &level;
  batch.level_count = 1;
  batch.classes = c->classes;
  batch.dtype = c->dtype;
  tare_output output;
  tare_output_init(&output);
  output.loss = &loss;
  output.loss_dtype = TARE_DTYPE_F64;
  if (tare_evaluate(context, &spec, &batch, &output, NULL) || measure(context, &spec, &batch, &output)) {
    fprintf(stderr, "%s: %s\n", tare_loss_name(c->kind), tare_error_text(context));
    return 1;
  }
  static const char *const dtypes[] = {"f32", "f16", "bf16", "f64"};
  printf("%s", tare_loss_name(c->kind));
  if (c->gamma >= 0) printf("-%g", c->gamma);
  const char *const how = c->targets == DENSE ? "targets/" : c->layout == NCHW ? "nchw/" : "";
  printf("/%s/%s%s%dx%d\n", dtypes[c->dtype], how, c->targets == FEW_LABELS ? "few-labels/" : "", ROWS,
         (int)c->classes);
  return 0;
}

int main(void) {
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CPU;
  options.threads = 1;
  tare_context *context;
  if (tare_context_create(&context, &options) != TARE_STATUS_OK) {
    fprintf(stderr, "%s\n", tare_error_text(NULL));
    return 1;
  }
  int failed = 0;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) failed |= run_case(context, &cases[i]);
  tare_context_destroy(context);
  return failed;
}
