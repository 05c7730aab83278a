/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every way to call the fused head wrongly gives a status and a text that names the argument and its value, and writes
 * nothing. Without a BLAS everything else still works.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/buffers.h"
#include "support/head.h"

/* ---- A call in which everything is right ----------------------------------------------------------------------- */

enum { ROWS = 6, CLASSES = 4, DIMENSIONS = 5, BINS = 5, SPARE = 1 << 17 };

enum {
  FEATURES,
  WEIGHTS,
  BIAS,
  FEATURES_GRADIENT,
  WEIGHTS_GRADIENT,
  BIAS_GRADIENT,
  LABELS,
  TARGETS,
  ROW_LOSS,
  LOSS,
  STATE,
  BUFFERS
};

static const size_t sizes[BUFFERS] = {
    [FEATURES] = ROWS * DIMENSIONS * 4,
    [WEIGHTS] = CLASSES * DIMENSIONS * 4,
    [BIAS] = CLASSES * 4,
    [FEATURES_GRADIENT] = ROWS * DIMENSIONS * 4,
    [WEIGHTS_GRADIENT] = CLASSES * DIMENSIONS * 4,
    [BIAS_GRADIENT] = CLASSES * 4,
    [LABELS] = ROWS * 8,
    [TARGETS] = ROWS * CLASSES * 4,
    [ROW_LOSS] = ROWS * 4,
    [LOSS] = 8,
    [STATE] = 8 * (2 + 3 * BINS),
};

typedef struct base {
  tare_context *context;
  tare_loss_spec loss;
  tare_level levels[2];
  tare_batch batch;
  tare_output output;
  tare_linear linear;
  buffer *memory[BUFFERS];
  buffer *workspace;
} base;

static void base_open(base *b, const test_device *device, int32_t kind) {
  memset(b, 0, sizeof *b);
  b->context = device->context;
  for (int i = 0; i < BUFFERS; i++) {
    b->memory[i] = buffer_new(device, sizes[i], 0);
    memset(b->memory[i]->before, 0, sizes[i]);
    buffer_upload(b->memory[i]);
  }
  b->workspace = buffer_new(device, SPARE, 0);
  tare_context_set_workspace(b->context, b->workspace->memory, SPARE);
  tare_loss_spec_init(&b->loss, (tare_loss_kind)kind);
  if (is_ghm(kind)) b->loss.ghm.bins = BINS;
  if (is_ghm(kind)) b->loss.ghm.state = b->memory[STATE]->memory;
  for (int l = 0; l < 2; l++) tare_level_init_rows(&b->levels[l], ROWS, CLASSES);
  b->levels[0].labels = b->memory[LABELS]->memory;
  b->levels[0].row_loss = b->memory[ROW_LOSS]->memory;
  if (kind == TARE_LOSS_GHM_R) b->levels[0].targets = b->memory[TARGETS]->memory;
  tare_batch_init(&b->batch);
  b->batch.levels = b->levels;
  b->batch.level_count = 1;
  b->batch.classes = CLASSES;
  tare_output_init(&b->output);
  b->output.loss = b->memory[LOSS]->memory;
  tare_linear_init(&b->linear, DIMENSIONS);
  b->linear.features = b->memory[FEATURES]->memory;
  b->linear.weights = b->memory[WEIGHTS]->memory;
  b->linear.bias = b->memory[BIAS]->memory;
  b->linear.features_gradient = b->memory[FEATURES_GRADIENT]->memory;
  b->linear.weights_gradient = b->memory[WEIGHTS_GRADIENT]->memory;
  b->linear.bias_gradient = b->memory[BIAS_GRADIENT]->memory;
}

static void base_close(base *b) {
  tare_context_set_workspace(b->context, NULL, 0);
  for (int i = 0; i < BUFFERS; i++) buffer_free(b->memory[i]);
  buffer_free(b->workspace);
}

typedef enum which_call { EVALUATE, HISTOGRAM, WORKSPACE_SIZE } which_call;

static tare_status make_call(base *b, which_call which) {
  uint64_t least = 0, ample = 0;
  switch (which) {
    case EVALUATE:
      return tare_linear_evaluate(b->context, &b->loss, &b->batch, &b->linear, &b->output, NULL);
    case HISTOGRAM:
      return tare_linear_ghm_histogram(b->context, &b->loss, &b->batch, &b->linear, NULL);
    case WORKSPACE_SIZE:
      return tare_linear_workspace_size(b->context, &b->loss, &b->batch, &b->linear, &b->output, &least, &ample);
  }
  return TARE_STATUS_OK;
}

static void expect_text(const char *text, const char *name, const char *value, int line) {
  if (strstr(text, name) == NULL) cr_assert_fail("line %d: the text does not name '%s': %s", line, name, text);
  if (value != NULL && strstr(text, value) == NULL)
    cr_assert_fail("line %d: the text does not say '%s': %s", line, value, text);
}

static void expect_refused(base *b, which_call which, tare_status want, const char *name, const char *value, int line) {
  const tare_status status = make_call(b, which);
  const char *text = tare_error_text(b->context);
  if (status != want)
    cr_assert_fail("line %d: got %s, want %s: %s", line, tare_status_name(status), tare_status_name(want), text);
  expect_text(text, name, value, line);
  for (int i = 0; i < BUFFERS; i++) buffer_expect_unchanged(b->memory[i], name);
  buffer_download(b->workspace, "workspace");
}

/* One case: a call with one change to it (`b` is the base), by each of the verbs that it is wrong for. */
#define REFUSED(which, kind, status, name, value, ...)                            \
  do {                                                                            \
    base b;                                                                       \
    base_open(&b, device, (kind));                                                \
    __VA_ARGS__;                                                                  \
    expect_refused(&b, (which), TARE_STATUS_##status, (name), (value), __LINE__); \
    base_close(&b);                                                               \
  } while (0)
#define WRONG(kind, status, name, value, ...)                        \
  do {                                                               \
    REFUSED(EVALUATE, kind, status, name, value, __VA_ARGS__);       \
    REFUSED(WORKSPACE_SIZE, kind, status, name, value, __VA_ARGS__); \
  } while (0)
#define INVALID(name, value, ...) WRONG(TARE_LOSS_SIGMOID_FOCAL, INVALID_ARGUMENT, name, value, __VA_ARGS__)

Test(linear_errors, the_base_call_itself_is_right) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    FOR_EACH_LOSS(kind) {
      for (int which = EVALUATE; which <= WORKSPACE_SIZE; which++) {
        if (which == HISTOGRAM && !is_ghm(kind)) continue;
        base b;
        base_open(&b, device, kind);
        cr_assert_eq(make_call(&b, (which_call)which), TARE_STATUS_OK, "%s %d: %s", tare_loss_name(kind), which,
                     tare_error_text(device->context));
        base_close(&b);
      }
    }
  }
}

/* ---- The classifier -------------------------------------------------------------------------------------------- */

Test(linear_errors, sizes_and_types) {
  FOR_EACH_DEVICE(device) {
    INVALID("linear->struct_size", "8", b.linear.struct_size = 8);
    INVALID("linear->struct_size", "0", b.linear.struct_size = 0);
    INVALID("linear->dimensions", "0", b.linear.dimensions = 0);
    INVALID("linear->dimensions", "-5", b.linear.dimensions = -5);
    INVALID("linear->dimensions", "2147483648", b.linear.dimensions = 2147483648);
    INVALID("linear->dtype", "3", b.linear.dtype = TARE_DTYPE_F64);
    INVALID("linear->dtype", "-1", b.linear.dtype = -1);
    INVALID("linear->accumulate", "2", b.linear.accumulate = 2);
    INVALID("linear->features_stride", "4", b.linear.features_stride = 4);
    INVALID("linear->features_stride", "2147483648", b.linear.features_stride = 2147483648);
    INVALID("linear->features_gradient_stride", "0", b.linear.features_gradient_stride = 0);
    INVALID("linear->features_gradient_stride", "2147483648", b.linear.features_gradient_stride = 2147483648);
  }
}

Test(linear_errors, an_array_of_more_than_2_to_58_elements) {
  FOR_EACH_DEVICE(device) {
    const int64_t wide = 2147483647;
    INVALID("linear->dimensions", "2147483647", {
      tare_level_init_rows(&b.levels[0], 1 << 28, CLASSES);
      b.levels[0].labels = b.memory[LABELS]->memory;
      b.levels[0].labels_strides = (tare_strides){0, 0, 0, 0, 0};
      b.linear.dimensions = b.linear.features_stride = b.linear.features_gradient_stride = wide;
    });
    INVALID("linear->dimensions", "classes", {
      b.batch.classes = 1 << 28;
      b.linear.dimensions = b.linear.features_stride = b.linear.features_gradient_stride = wide;
    });
  }
}

Test(linear_errors, arrays_that_are_missing_or_misaligned) {
  FOR_EACH_DEVICE(device) {
    INVALID("linear->features", "NULL", b.linear.features = NULL);
    INVALID("linear->weights", "NULL", b.linear.weights = NULL);
#define MISALIGNED(field, type) \
  INVALID("linear->" #field, "aligned to", b.linear.field = (type)(void *)((char *)b.memory[STATE]->memory + 2))
    MISALIGNED(features, const void *);
    MISALIGNED(weights, const void *);
    MISALIGNED(bias, const void *);
    MISALIGNED(features_gradient, void *);
    MISALIGNED(weights_gradient, float *);
    MISALIGNED(bias_gradient, float *);
#undef MISALIGNED
    INVALID("linear->features", "aligned to 2", {
      b.linear.dtype = TARE_DTYPE_F16;
      b.linear.features = (const char *)b.memory[FEATURES]->memory + 1;
    });
  }
}

Test(linear_errors, outputs_that_overlap) {
  FOR_EACH_DEVICE(device) {
    INVALID("features_gradient", "overlaps", b.linear.features_gradient = (float *)b.memory[FEATURES]->memory + 1);
    INVALID("features_gradient", "overlaps", {
      b.linear.features_gradient = b.memory[FEATURES]->memory;
      b.linear.features_gradient_stride = DIMENSIONS + 1;
    });
    INVALID("weights_gradient", "overlaps", b.linear.weights_gradient = b.memory[WEIGHTS]->memory);
    INVALID("weights_gradient", "overlaps", b.linear.weights_gradient = b.memory[FEATURES_GRADIENT]->memory);
    INVALID("bias_gradient", "overlaps", b.linear.bias_gradient = b.memory[BIAS]->memory);
    INVALID("bias_gradient", "overlaps", b.linear.bias_gradient = b.linear.weights_gradient + 2);
    INVALID("features_gradient", "labels", b.levels[0].labels = b.memory[FEATURES_GRADIENT]->memory);
    INVALID("bias_gradient", "row_loss", b.linear.bias_gradient = b.memory[ROW_LOSS]->memory);
    INVALID("features", "row_loss", b.levels[0].row_loss = b.memory[FEATURES]->memory);
    INVALID("bias", "row_loss", b.levels[0].row_loss = b.memory[BIAS]->memory);
    INVALID("weights_gradient", "output->class_sums", b.output.class_sums = b.memory[WEIGHTS_GRADIENT]->memory);
    INVALID("weights", "output->class_sums", b.output.class_sums = b.memory[WEIGHTS]->memory);
    INVALID("row_loss", "output->class_sums", b.output.class_sums = b.memory[ROW_LOSS]->memory);
  }
}

/* ---- The batch, the loss and the rest -------------------------------------------------------------------------- */

Test(linear_errors, batches_that_are_no_flat_rows) {
  FOR_EACH_DEVICE(device) {
    const int32_t kind = TARE_LOSS_SIGMOID_CE;
    INVALID("logits", "must be NULL", b.levels[0].logits = b.memory[FEATURES]->memory);
    INVALID("gradient", "must be NULL", b.levels[0].gradient = b.memory[FEATURES]->memory);
    INVALID("labels", "NULL", b.levels[0].labels = NULL);
    WRONG(kind, UNSUPPORTED, "level_count", "2", b.batch.level_count = 2);
    WRONG(kind, UNSUPPORTED, "dtype", "1", b.batch.dtype = TARE_DTYPE_F16);
    WRONG(kind, UNSUPPORTED, "dtype", "3", b.batch.dtype = TARE_DTYPE_F64);
    WRONG(kind, UNSUPPORTED, "levels[0]", "tare_level_init_rows", {
      tare_level_init_nchw(&b.levels[0], 1, CLASSES, 2, 3);
      b.levels[0].labels = b.memory[LABELS]->memory;
      b.levels[0].labels_strides = (tare_strides){6, 1, 2, 1, 0};
    });
  }
}

Test(linear_errors, losses_and_outputs) {
  FOR_EACH_DEVICE(device) {
    INVALID("gamma", "-1", b.loss.focal.gamma = -1);
    INVALID("normalizer", "9", b.output.normalizer = 9);
    INVALID("struct_size", "3", b.output.struct_size = 3);
    WRONG(TARE_LOSS_GHM_C, UNSUPPORTED, "TARE_GHM_DENSITY_EXACT", "logits", {
      b.loss.ghm.density = TARE_GHM_DENSITY_EXACT;
      b.loss.ghm.state = NULL;
    });
    REFUSED(HISTOGRAM, TARE_LOSS_SIGMOID_CE, INVALID_ARGUMENT, "loss->kind", "0", (void)b);
    REFUSED(HISTOGRAM, TARE_LOSS_GHM_C, INVALID_ARGUMENT, "state", "NULL", b.loss.ghm.state = NULL);
    REFUSED(HISTOGRAM, TARE_LOSS_GHM_R, INVALID_ARGUMENT, "targets", "NULL", b.levels[0].targets = NULL);
  }
}

Test(linear_errors, pointers_that_are_missing) {
  FOR_EACH_DEVICE(device) {
    base b;
    base_open(&b, device, TARE_LOSS_GHM_C);
    tare_context *c = b.context;
    uint64_t least = 0;
#define MISSING(context, name, call)                                  \
  do {                                                                \
    cr_assert_eq((call), TARE_STATUS_INVALID_ARGUMENT, "%s", (name)); \
    expect_text(tare_error_text(context), (name), "NULL", __LINE__);  \
  } while (0)
    MISSING(NULL, "context", tare_linear_evaluate(NULL, &b.loss, &b.batch, &b.linear, &b.output, NULL));
    MISSING(c, "loss", tare_linear_evaluate(c, NULL, &b.batch, &b.linear, &b.output, NULL));
    MISSING(c, "batch", tare_linear_evaluate(c, &b.loss, NULL, &b.linear, &b.output, NULL));
    MISSING(c, "linear", tare_linear_evaluate(c, &b.loss, &b.batch, NULL, &b.output, NULL));
    MISSING(c, "output", tare_linear_evaluate(c, &b.loss, &b.batch, &b.linear, NULL, NULL));
    MISSING(NULL, "context", tare_linear_ghm_histogram(NULL, &b.loss, &b.batch, &b.linear, NULL));
    MISSING(c, "linear", tare_linear_ghm_histogram(c, &b.loss, &b.batch, NULL, NULL));
    MISSING(NULL, "context", tare_linear_workspace_size(NULL, &b.loss, &b.batch, &b.linear, NULL, &least, NULL));
    MISSING(c, "linear", tare_linear_workspace_size(c, &b.loss, &b.batch, NULL, NULL, &least, NULL));
#undef MISSING
    base_close(&b);
  }
}

/* ---- The workspace ----------------------------------------------------------------------------------------------- */

static void expect_too_small(const test_device *device, which_call which, int32_t dtype, uint64_t short_by) {
  base b;
  uint64_t least = 0, ample = 0;
  base_open(&b, device, TARE_LOSS_GHM_C);
  b.linear.dtype = dtype;
  cr_assert_eq(tare_linear_workspace_size(b.context, &b.loss, &b.batch, &b.linear, &b.output, &least, &ample),
               TARE_STATUS_OK);
  cr_assert(least > 0 && least <= ample && least <= SPARE, "least %llu", (unsigned long long)least);
  const uint64_t bytes = short_by < least ? least - short_by : 0;
  tare_context_set_workspace(b.context, bytes > 0 ? b.workspace->memory : NULL, bytes);
  char value[32];
  snprintf(value, sizeof value, "%llu", (unsigned long long)least);
  if (short_by == 0) cr_assert_eq(make_call(&b, which), TARE_STATUS_OK, "%s", tare_error_text(b.context));
  if (short_by != 0) expect_refused(&b, which, TARE_STATUS_WORKSPACE_TOO_SMALL, "workspace", value, __LINE__);
  base_close(&b);
}

Test(linear_errors, workspaces) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    for (int which = EVALUATE; which <= HISTOGRAM; which++) {
      for (int32_t dtype = TARE_DTYPE_F32; dtype <= TARE_DTYPE_BF16; dtype++) {
        expect_too_small(device, (which_call)which, dtype, 0);
        expect_too_small(device, (which_call)which, dtype, 1);
        expect_too_small(device, (which_call)which, dtype, UINT64_MAX);
      }
    }
  }
}

/* ---- Structs of another version ---------------------------------------------------------------------------------- */

Test(linear_errors, a_longer_struct) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    struct {
      tare_linear linear;
      unsigned char later[16];
    } longer;
    base b;
    base_open(&b, device, TARE_LOSS_SIGMOID_CE);
    memset(&longer, 0, sizeof longer);
    longer.linear = b.linear;
    longer.linear.struct_size = sizeof longer;
    cr_assert_eq(tare_linear_evaluate(b.context, &b.loss, &b.batch, &longer.linear, &b.output, NULL), TARE_STATUS_OK,
                 "%s", tare_error_text(b.context));
    longer.later[7] = 1;
    cr_assert_eq(tare_linear_evaluate(b.context, &b.loss, &b.batch, &longer.linear, &b.output, NULL),
                 TARE_STATUS_INVALID_ARGUMENT);
    expect_text(tare_error_text(b.context), "linear->struct_size", "is set", __LINE__);
    base_close(&b);
  }
}

/* ---- No BLAS ----------------------------------------------------------------------------------------------------- */

static void expect_no_blas(const char *name, const char *in_text) {
  setenv("TARE_BLAS", name, 1); /* read once a process: each case is one */
  FOR_EACH_DEVICE(device) {
    if (device->kind != TARE_DEVICE_CPU) continue;
    REFUSED(EVALUATE, TARE_LOSS_SIGMOID_CE, NO_BLAS, in_text, "CBLAS", (void)b);
    REFUSED(HISTOGRAM, TARE_LOSS_GHM_C, NO_BLAS, in_text, "CBLAS", (void)b);
    problem *p = problem_new(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 100, 7);
    CHECK_PROBLEM(p, device);
    problem_free(p);
    problem *none = head_problem(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 0, 7, 3);
    CHECK_PROBLEM(none, device);
    problem_free(none);
  }
}

Test(linear_errors, no_blas) { expect_no_blas("libtare-no-such-blas.so.7", "libtare-no-such-blas.so.7"); }

Test(linear_errors, a_library_that_is_no_blas) { expect_no_blas("libm.so.6", "cblas_sgemm"); }

Test(linear_errors, no_blas_wanted) { expect_no_blas("", "TARE_BLAS"); }
