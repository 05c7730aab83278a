/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every way to call Tare wrongly gives the status that the header names and a text that names the argument and its
 * value, and writes nothing. One line a case. Structs of another version's size mean what the header says.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/buffers.h"
#include "support/problem.h"

/* ---- A call in which everything is right ----------------------------------------------------------------------- */

enum { LEVELS = 2, ROWS = 6, CLASSES = 4, ELEMENTS = ROWS * CLASSES, BINS = 5, ARRAYS = 17 };

typedef struct level_buffers {
  buffer *logits, *gradient, *labels, *row_loss;
} level_buffers;

typedef struct base {
  const test_device *device;
  tare_context *context;
  tare_loss_spec loss;
  tare_level levels[LEVELS + 1]; /* one more than counts, for cases that give another stride */
  tare_batch batch;
  tare_output output;
  level_buffers memory[LEVELS];
  buffer *loss_out, *counts, *weights, *per_class, *scalar, *state, *targets, *spare;
} base;

static buffer *zeros(const test_device *device, size_t bytes) {
  buffer *b = buffer_new(device, bytes, 0);
  memset(b->before, 0, bytes);
  buffer_upload(b);
  return b;
}

static void open_level(base *b, int l) {
  level_buffers *m = &b->memory[l];
  tare_level *level = &b->levels[l];
  m->logits = zeros(b->device, ELEMENTS * 4);
  m->gradient = buffer_new(b->device, ELEMENTS * 4, 0);
  m->labels = zeros(b->device, ROWS * 8);
  m->row_loss = buffer_new(b->device, ROWS * 4, 0);
  tare_level_init_rows(level, ROWS, CLASSES);
  level->logits = m->logits->memory;
  level->gradient = m->gradient->memory;
  level->labels = m->labels->memory;
  level->row_loss = m->row_loss->memory;
}

static void base_open(base *b, const test_device *device, int32_t kind) {
  memset(b, 0, sizeof *b);
  b->device = device;
  b->context = device->context;
  b->loss_out = buffer_new(device, 8, 0);
  b->counts = buffer_new(device, sizeof(tare_counts), 0);
  b->weights = zeros(device, ELEMENTS * 8);
  b->per_class = buffer_new(device, CLASSES * 8, 0);
  b->scalar = zeros(device, 8);
  b->state = zeros(device, tare_ghm_state_bytes(BINS) + 8);
  b->targets = zeros(device, ELEMENTS * 8);
  b->spare = buffer_new(device, ELEMENTS * 8, 0);
  for (int l = 0; l < LEVELS; l++) open_level(b, l);
  tare_loss_spec_init(&b->loss, (tare_loss_kind)kind);
  if (is_ghm(kind)) b->loss.ghm.bins = BINS;
  if (kind == TARE_LOSS_GHM_R) {
    for (int l = 0; l < LEVELS; l++) b->levels[l].targets = b->targets->memory;
  }
  tare_batch_init(&b->batch);
  b->batch.levels = b->levels;
  b->batch.level_count = LEVELS;
  b->batch.classes = CLASSES;
  tare_output_init(&b->output);
  b->output.loss = b->loss_out->memory;
  b->output.counts = b->counts->memory;
}

static int base_buffers(const base *b, buffer *all[ARRAYS]) {
  int count = 0;
  for (int l = 0; l < LEVELS; l++) {
    all[count++] = b->memory[l].logits;
    all[count++] = b->memory[l].gradient;
    all[count++] = b->memory[l].labels;
    all[count++] = b->memory[l].row_loss;
  }
  buffer *const rest[] = {b->loss_out, b->counts, b->weights, b->per_class, b->scalar, b->state, b->targets, b->spare};
  for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) all[count++] = rest[i];
  return count;
}

static void base_close(base *b) {
  buffer *all[ARRAYS];
  const int count = base_buffers(b, all);
  for (int i = 0; i < count; i++) buffer_free(all[i]);
}

typedef enum which_call { EVALUATE, WORKSPACE_SIZE, LABEL_COUNTS, HISTOGRAM, DENSITY_UPDATE } which_call;

static tare_status make_call(base *b, which_call which) {
  uint64_t bytes = 0;
  switch (which) {
    case EVALUATE:
      return tare_evaluate(b->context, &b->loss, &b->batch, &b->output, NULL);
    case WORKSPACE_SIZE:
      return tare_workspace_size(b->context, &b->loss, &b->batch, &b->output, &bytes);
    case LABEL_COUNTS:
      return tare_label_counts(b->context, &b->batch, b->counts->memory, b->per_class->memory, NULL);
    case HISTOGRAM:
      return tare_ghm_histogram(b->context, &b->loss, &b->batch, NULL);
    case DENSITY_UPDATE:
      return tare_ghm_density_update(b->context, &b->loss, NULL);
  }
  return TARE_STATUS_OK;
}

static void expect_text(int line, const char *text, const char *name, const char *value) {
  if (strstr(text, name) == NULL) cr_assert_fail("line %d: the text does not name '%s': %s", line, name, text);
  if (value != NULL && strstr(text, value) == NULL) {
    cr_assert_fail("line %d: the text does not say '%s': %s", line, value, text);
  }
  if (strlen(text) <= strlen(name) + (value == NULL ? 0 : strlen(value)) + 2) {
    cr_assert_fail("line %d: the text does not say what is allowed: %s", line, text);
  }
}

static void expect_refused(base *b, which_call which, tare_status want, const char *name, const char *value, int line) {
  buffer *all[ARRAYS];
  const tare_status status = make_call(b, which);
  const char *text = tare_error_text(b->context);
  if (status != want) {
    cr_assert_fail("line %d: got %s, want %s: %s", line, tare_status_name(status), tare_status_name(want), text);
  }
  expect_text(line, text, name, value);
  const int count = base_buffers(b, all);
  for (int i = 0; i < count; i++) buffer_expect_unchanged(all[i], name);
}

/* One case: a base call of `kind`, one change to it (`b` is the base), what comes back. */
#define REFUSED(which, kind, status, name, value, change)                         \
  do {                                                                            \
    base b;                                                                       \
    base_open(&b, device, (kind));                                                \
    change;                                                                       \
    expect_refused(&b, (which), TARE_STATUS_##status, (name), (value), __LINE__); \
    base_close(&b);                                                               \
  } while (0)
#define INVALID(kind, name, value, change) REFUSED(EVALUATE, kind, INVALID_ARGUMENT, name, value, change)
#define UNSUPPORTED(kind, name, change) REFUSED(EVALUATE, kind, UNSUPPORTED, name, NULL, change)

Test(errors, the_base_call_itself_is_right) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      base b;
      base_open(&b, device, kind);
      for (int which = EVALUATE; which <= (is_ghm(kind) ? HISTOGRAM : LABEL_COUNTS); which++) {
        if (which == HISTOGRAM) b.loss.ghm.state = b.state->memory;
        cr_assert_eq(make_call(&b, (which_call)which), TARE_STATUS_OK, "%s %d: %s", tare_loss_name(kind), which,
                     tare_error_text(device->context));
      }
      base_close(&b);
    }
  }
}

/* A later version may give them a meaning. */
Test(errors, reserved_fields_are_zero) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      INVALID(kind, "loss->reserved", "7", b.loss.reserved = 7);
      INVALID(kind, "loss->reserved_words[15]", NULL, b.loss.reserved_words[15] = 1);
    }
    INVALID(TARE_LOSS_SIGMOID_MATCHABILITY, "loss->matchability.reserved", "-1", b.loss.matchability.reserved = -1);
  }
}

/* ---- Losses ---------------------------------------------------------------------------------------------------- */

Test(errors, loss) {
  FOR_EACH_DEVICE(device) {
    INVALID(TARE_LOSS_SIGMOID_CE, "kind", "99", b.loss.kind = 99);
    INVALID(TARE_LOSS_SIGMOID_CE, "kind", "-1", b.loss.kind = -1);
    INVALID(TARE_LOSS_SIGMOID_CE, "alpha", "1.5", b.loss.ce.alpha = 1.5);
    INVALID(TARE_LOSS_SIGMOID_CE, "alpha", "nan", b.loss.ce.alpha = NAN);
    INVALID(TARE_LOSS_SIGMOID_FOCAL, "alpha", "1.01", b.loss.focal.alpha = 1.01);
    INVALID(TARE_LOSS_SIGMOID_FOCAL, "alpha", "inf", b.loss.focal.alpha = INFINITY);
    INVALID(TARE_LOSS_SIGMOID_FOCAL, "gamma", "-0.5", b.loss.focal.gamma = -0.5);
    INVALID(TARE_LOSS_SIGMOID_FOCAL, "gamma", "nan", b.loss.focal.gamma = NAN);
    INVALID(TARE_LOSS_SIGMOID_FOCAL, "gamma", "inf", b.loss.focal.gamma = INFINITY);
    INVALID(TARE_LOSS_SIGMOID_FOCAL, "gamma", "10001", b.loss.focal.gamma = 10001);
    INVALID(TARE_LOSS_SOFTMAX_FOCAL, "gamma", "-1", b.loss.focal.gamma = -1);
    INVALID(TARE_LOSS_SOFTMAX_FOCAL, "alpha", "nan", b.loss.focal.alpha = NAN);
    INVALID(TARE_LOSS_SOFTMAX_FOCAL, "alpha", "inf", b.loss.focal.alpha = INFINITY);
    INVALID(TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, "logit_adjusted.offset", "aligned to 4",
            b.loss.logit_adjusted.offset = (const float *)(const void *)((const char *)b.weights->memory + 2));
    INVALID(TARE_LOSS_SIGMOID_POLY1, "alpha", "2", b.loss.poly1.alpha = 2);
    INVALID(TARE_LOSS_SIGMOID_POLY1, "gamma", "-2", b.loss.poly1.gamma = -2);
    INVALID(TARE_LOSS_SIGMOID_POLY1, "epsilon", "inf", b.loss.poly1.epsilon = INFINITY);
    INVALID(TARE_LOSS_SIGMOID_POLY1, "epsilon", "nan", b.loss.poly1.epsilon = NAN);
  }
}

Test(errors, ghm) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_GHM_C; kind <= TARE_LOSS_GHM_R; kind++) {
      INVALID(kind, "bins", "0", b.loss.ghm.bins = 0);
      INVALID(kind, "bins", "1025", b.loss.ghm.bins = 1025);
      INVALID(kind, "bins", "-3", b.loss.ghm.bins = -3);
      INVALID(kind, "density", "2", b.loss.ghm.density = 2);
      INVALID(kind, "variant", "-1", b.loss.ghm.variant = -1);
      INVALID(kind, "use_stored_density", "2", (b.loss.ghm.use_stored_density = 2, b.loss.ghm.state = b.state->memory));
      INVALID(kind, "momentum", "1", (b.loss.ghm.momentum = 1, b.loss.ghm.state = b.state->memory));
      INVALID(kind, "momentum", "-0.1", (b.loss.ghm.momentum = -0.1, b.loss.ghm.state = b.state->memory));
      INVALID(kind, "momentum", "nan", (b.loss.ghm.momentum = NAN, b.loss.ghm.state = b.state->memory));
      INVALID(kind, "state", "NULL", b.loss.ghm.momentum = 0.5);
      INVALID(kind, "state", "NULL", b.loss.ghm.use_stored_density = 1);
      INVALID(kind, "state", NULL, b.loss.ghm.state = (char *)b.state->memory + 4);
      INVALID(kind, "epsilon", "0", (b.loss.ghm.density = TARE_GHM_DENSITY_EXACT, b.loss.ghm.epsilon = 0));
      INVALID(kind, "epsilon", "2.5", (b.loss.ghm.density = TARE_GHM_DENSITY_EXACT, b.loss.ghm.epsilon = 2.5));
      INVALID(kind, "epsilon", "nan", (b.loss.ghm.density = TARE_GHM_DENSITY_EXACT, b.loss.ghm.epsilon = NAN));
      UNSUPPORTED(kind, "normalizer", b.output.normalizer = TARE_NORMALIZER_ROWS);
      UNSUPPORTED(kind, "normalizer", b.output.normalizer = TARE_NORMALIZER_VALUE);
      UNSUPPORTED(kind, "class_weights", b.batch.class_weights = b.weights->memory);
      UNSUPPORTED(kind, "positive_weights", b.batch.positive_weights = b.weights->memory);
      UNSUPPORTED(kind, "element_weights", b.levels[1].element_weights = b.weights->memory);
      UNSUPPORTED(kind, "background_weight", b.batch.background_weight = 0.5);
      UNSUPPORTED(kind, "use_stored_density",
                  (b.loss.ghm.density = TARE_GHM_DENSITY_EXACT, b.loss.ghm.use_stored_density = 1,
                   b.loss.ghm.state = b.state->memory));
      UNSUPPORTED(
          kind, "momentum",
          (b.loss.ghm.density = TARE_GHM_DENSITY_EXACT, b.loss.ghm.momentum = 0.5, b.loss.ghm.state = b.state->memory));
    }
    INVALID(TARE_LOSS_GHM_R, "mu", "0", b.loss.ghm.mu = 0);
    INVALID(TARE_LOSS_GHM_R, "mu", "-1", b.loss.ghm.mu = -1);
    INVALID(TARE_LOSS_GHM_R, "mu", "nan", b.loss.ghm.mu = NAN);
    INVALID(TARE_LOSS_GHM_R, "mu", "1e-31", b.loss.ghm.mu = 1e-31);
    INVALID(TARE_LOSS_GHM_R, "mu", "1e+31", b.loss.ghm.mu = 1e31);
    INVALID(TARE_LOSS_GHM_R, "targets", "NULL", b.levels[1].targets = NULL);
  }
}

/* ---- Batches --------------------------------------------------------------------------------------------------- */

Test(errors, batch) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      INVALID(kind, "levels", "NULL", b.batch.levels = NULL);
      INVALID(kind, "level_count", "0", b.batch.level_count = 0);
      INVALID(kind, "level_count", "17", b.batch.level_count = 17);
      INVALID(kind, "level_count", "-1", b.batch.level_count = -1);
      INVALID(kind, "dtype", "4", b.batch.dtype = 4);
      INVALID(kind, "dtype", "-1", b.batch.dtype = -1);
      INVALID(kind, "label_dtype", "2", b.batch.label_dtype = 2);
      INVALID(kind, "score_dtype", "4", b.batch.score_dtype = 4);
      INVALID(kind, "score_dtype", "-1", b.batch.score_dtype = -1);
      INVALID(kind, "selection", "2", b.batch.selection = 2);
      INVALID(kind, "selection", "-1", b.batch.selection = -1);
      INVALID(kind, "scores", NULL, b.levels[0].scores = (const char *)b.weights->memory + 2);
      INVALID(kind, "images", "-1", b.batch.images = -1);
      INVALID(kind, "classes", "0", b.batch.classes = 0);
      INVALID(kind, "classes", "-4", b.batch.classes = -4);
      INVALID(kind, "classes", "2147483648", b.batch.classes = INT64_C(1) << 31);
      INVALID(kind, "ignore_label", "-1", b.batch.ignore_label = -1);
      INVALID(kind, "height", "-1", b.levels[1].height = -1);
      INVALID(kind, "width", "-2", b.levels[0].width = -2);
      INVALID(kind, "anchors", "-3", b.levels[1].anchors = -3);
      INVALID(kind, "logits", "NULL", b.levels[1].logits = NULL);
      INVALID(kind, "logits", NULL, b.levels[1].logits = (const char *)b.levels[1].logits + 1);
      INVALID(kind, "gradient", NULL, b.levels[0].gradient = (char *)b.levels[0].gradient + 2);
      INVALID(kind, "labels", NULL, b.levels[0].labels = (const char *)b.levels[0].labels + 1);
      INVALID(kind, "row_loss", NULL, b.levels[0].row_loss = (char *)b.levels[0].row_loss + 3);
      INVALID(kind, "level_stride", "0", b.batch.level_stride = 0);
      if (kind != TARE_LOSS_GHM_R) INVALID(kind, "labels", "NULL", b.levels[1].labels = NULL);
    }
    INVALID(TARE_LOSS_SIGMOID_CE, "target_dtype", "4",
            (b.batch.target_dtype = 4, b.levels[0].targets = b.levels[1].targets = b.targets->memory));
    INVALID(TARE_LOSS_SIGMOID_CE, "class_weights", NULL,
            b.batch.class_weights = (float *)((char *)b.weights->memory + 2));
    INVALID(TARE_LOSS_SIGMOID_CE, "alpha_per_class", NULL,
            b.loss.ce.alpha_per_class = (float *)((char *)b.weights->memory + 2));
  }
}

/* Sizes whose product leaves 64 bits, or whose offsets do. */
Test(errors, sizes_that_overflow) {
  const int64_t big = INT64_C(1) << 40;
  FOR_EACH_DEVICE(device) {
    INVALID(TARE_LOSS_SIGMOID_CE, "height", NULL, (b.levels[0].height = big, b.levels[0].width = big));
    INVALID(TARE_LOSS_SIGMOID_CE, "images", NULL, (b.batch.images = INT64_MAX));
    INVALID(TARE_LOSS_SIGMOID_CE, "stride", NULL,
            (b.batch.images = 2, b.levels[0].logits_strides.image = INT64_MAX / 2, b.levels[0].gradient = NULL));
  }
}

Test(errors, overlaps) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      INVALID(kind, "gradient", NULL, b.levels[0].gradient = (char *)b.memory[0].logits->memory + 4);
      INVALID(kind, "gradient", NULL, b.levels[0].gradient = b.memory[1].logits->memory);
      INVALID(kind, "gradient", NULL, b.levels[0].gradient = b.memory[1].gradient->memory);
      INVALID(kind, "gradient", NULL, b.levels[0].gradient = (char *)b.memory[1].gradient->memory + 4);
      INVALID(kind, "row_loss", NULL, b.levels[0].row_loss = (char *)b.memory[1].row_loss->memory + 4);
      INVALID(kind, "gradient", NULL, b.levels[0].gradient = b.memory[0].labels->memory);
      INVALID(kind, "gradient", NULL, b.levels[0].gradient_strides.cls = 0);
      INVALID(kind, "gradient", NULL, b.levels[0].gradient_strides.cls = CLASSES);
      INVALID(kind, "row_loss", NULL,
              (b.levels[0].row_loss_strides = (tare_strides){0, 0, 0, 0, 0}, b.levels[0].row_loss = b.spare->memory));
      /* in place, but not with the logits' strides */
      INVALID(kind, "gradient", NULL,
              (b.levels[0].gradient = b.memory[0].logits->memory,
               b.levels[0].gradient_strides = (tare_strides){ELEMENTS, 1, 1, 1, ROWS}));
      INVALID(kind, "gradient", NULL, /* nor where the classes alone lie otherwise */
              (b.levels[0].gradient = b.memory[0].logits->memory,
               b.levels[0].logits_strides = b.levels[0].gradient_strides =
                   (tare_strides){2 * ELEMENTS, 2 * CLASSES, 2 * CLASSES, 2 * CLASSES, 1},
               b.levels[0].gradient_strides.cls = 2));
    }
    INVALID(TARE_LOSS_SIGMOID_CE, "gradient", NULL, b.levels[1].gradient = b.memory[0].row_loss->memory);
    INVALID(TARE_LOSS_SIGMOID_CE, "gradient", NULL,
            (b.levels[0].row_weights = b.spare->memory, b.levels[0].gradient = b.spare->memory));
    INVALID(TARE_LOSS_SIGMOID_CE, "scores", NULL,
            (b.levels[0].scores = b.spare->memory, b.levels[0].gradient = b.spare->memory));
    INVALID(TARE_LOSS_SIGMOID_CE, "scores_strides", "2^58",
            (b.levels[0].scores = b.spare->memory, b.levels[0].scores_strides.x = INT64_MAX / 2));
    INVALID(TARE_LOSS_SIGMOID_CE, "gradient", NULL,
            (b.levels[0].element_weights = b.spare->memory, b.levels[0].gradient = b.spare->memory));
    INVALID(TARE_LOSS_SIGMOID_CE, "gradient", NULL,
            (b.levels[0].element_loss = b.spare->memory, b.levels[0].gradient = b.spare->memory));
    INVALID(TARE_LOSS_SIGMOID_CE, "gradient", NULL,
            (b.levels[0].targets = b.levels[1].targets = b.spare->memory, b.levels[0].gradient = b.spare->memory));
  }
}

/* Arrays that only interleave do not overlap: the halves of rows twice as wide. */
Test(errors, interleaved_arrays_are_no_overlap) {
  FOR_EACH_DEVICE(device) {
    base b;
    base_open(&b, device, TARE_LOSS_SIGMOID_CE);
    buffer *wide = zeros(device, ELEMENTS * 8);
    b.batch.level_count = 1;
    b.levels[0].logits = wide->memory;
    b.levels[0].gradient = (float *)wide->memory + CLASSES;
    tare_strides *const both[] = {&b.levels[0].logits_strides, &b.levels[0].gradient_strides};
    for (int i = 0; i < 2; i++) {
      both[i]->image *= 2;
      both[i]->y *= 2;
      both[i]->x *= 2;
      both[i]->anchor *= 2;
    }
    cr_assert_eq(make_call(&b, EVALUATE), TARE_STATUS_OK, "%s", tare_error_text(device->context));
    buffer_free(wide);
    base_close(&b);
  }
}

Test(errors, softmax_takes_no_element_arrays) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_SOFTMAX_CE; kind <= TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED; kind++) {
      UNSUPPORTED(kind, "element_weights", b.levels[1].element_weights = b.weights->memory);
      UNSUPPORTED(kind, "element_loss", b.levels[1].element_loss = b.spare->memory);
      UNSUPPORTED(kind, "positive_weights", b.batch.positive_weights = b.weights->memory);
    }
  }
}

Test(errors, targets_take_no_class) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      if (takes_scores(kind)) {
        UNSUPPORTED(
            kind, "targets",
            (b.levels[1].scores = b.weights->memory, b.levels[0].targets = b.levels[1].targets = b.targets->memory));
        INVALID(kind, "score_dtype", "3",
                (b.levels[0].scores = b.weights->memory, b.batch.score_dtype = TARE_DTYPE_F64));
      } else {
        UNSUPPORTED(kind, "scores", b.levels[1].scores = b.weights->memory);
      }
    }
    UNSUPPORTED(TARE_LOSS_SOFTMAX_FOCAL, "targets", b.levels[0].targets = b.levels[1].targets = b.targets->memory);
    UNSUPPORTED(
        TARE_LOSS_SIGMOID_CE, "class_weights",
        (b.levels[0].targets = b.levels[1].targets = b.targets->memory, b.batch.class_weights = b.weights->memory));
    UNSUPPORTED(
        TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, "class_weights",
        (b.levels[0].targets = b.levels[1].targets = b.targets->memory, b.batch.class_weights = b.weights->memory));
    UNSUPPORTED(TARE_LOSS_SOFTMAX_CE, "normalizer",
                (b.levels[0].targets = b.levels[1].targets = b.targets->memory,
                 b.output.normalizer = TARE_NORMALIZER_POSITIVES));
  }
}

/* ---- Output ---------------------------------------------------------------------------------------------------- */

Test(errors, output) {
  FOR_EACH_DEVICE(device) {
    INVALID(TARE_LOSS_SIGMOID_CE, "loss_dtype", "1", b.output.loss_dtype = TARE_DTYPE_F16);
    INVALID(TARE_LOSS_SIGMOID_CE, "loss_dtype", "7", b.output.loss_dtype = 7);
    INVALID(TARE_LOSS_SIGMOID_CE, "normalizer", "6", b.output.normalizer = 6);
    INVALID(TARE_LOSS_SIGMOID_CE, "normalizer", "-1", b.output.normalizer = -1);
    INVALID(TARE_LOSS_SIGMOID_CE, "normalizer_value", "0",
            (b.output.normalizer = TARE_NORMALIZER_VALUE, b.output.normalizer_value = 0));
    INVALID(TARE_LOSS_SIGMOID_CE, "normalizer_value", "nan",
            (b.output.normalizer = TARE_NORMALIZER_VALUE, b.output.normalizer_value = NAN));
    INVALID(TARE_LOSS_SIGMOID_CE, "normalizer_value", "inf",
            (b.output.normalizer = TARE_NORMALIZER_VALUE, b.output.normalizer_value = INFINITY));
    INVALID(TARE_LOSS_SIGMOID_CE, "gradient_scale", "nan", b.output.gradient_scale = NAN);
    INVALID(TARE_LOSS_SIGMOID_CE, "gradient_scale", "inf", b.output.gradient_scale = -INFINITY);
    INVALID(TARE_LOSS_SIGMOID_CE, "loss", NULL, b.output.loss = (char *)b.loss_out->memory + 1);
    INVALID(TARE_LOSS_SIGMOID_CE, "counts", NULL, b.output.counts = (tare_counts *)((char *)b.counts->memory + 4));
  }
}

/* ---- NULL ------------------------------------------------------------------------------------------------------ */

#define NULL_REFUSED(context, name, call)                                                           \
  do {                                                                                              \
    const tare_status status = (call);                                                              \
    cr_assert_eq(status, TARE_STATUS_INVALID_ARGUMENT, "%s: %s", (name), tare_status_name(status)); \
    expect_text(__LINE__, tare_error_text(context), (name), "NULL");                                \
  } while (0)

Test(errors, null_arguments) {
  FOR_EACH_DEVICE(device) {
    base b;
    base_open(&b, device, TARE_LOSS_GHM_C);
    uint64_t bytes = 0;
    NULL_REFUSED(b.context, "loss", tare_evaluate(b.context, NULL, &b.batch, &b.output, NULL));
    NULL_REFUSED(b.context, "batch", tare_evaluate(b.context, &b.loss, NULL, &b.output, NULL));
    NULL_REFUSED(b.context, "output", tare_evaluate(b.context, &b.loss, &b.batch, NULL, NULL));
    NULL_REFUSED(b.context, "loss", tare_workspace_size(b.context, NULL, &b.batch, NULL, &bytes));
    NULL_REFUSED(b.context, "batch", tare_workspace_size(b.context, &b.loss, NULL, NULL, &bytes));
    NULL_REFUSED(b.context, "bytes", tare_workspace_size(b.context, &b.loss, &b.batch, NULL, NULL));
    NULL_REFUSED(b.context, "batch", tare_label_counts(b.context, NULL, NULL, NULL, NULL));
    NULL_REFUSED(b.context, "loss", tare_ghm_histogram(b.context, NULL, &b.batch, NULL));
    NULL_REFUSED(b.context, "batch", tare_ghm_histogram(b.context, &b.loss, NULL, NULL));
    NULL_REFUSED(b.context, "state", tare_ghm_histogram(b.context, &b.loss, &b.batch, NULL));
    NULL_REFUSED(b.context, "loss", tare_ghm_density_update(b.context, NULL, NULL));
    NULL_REFUSED(b.context, "state", tare_ghm_density_update(b.context, &b.loss, NULL));
    NULL_REFUSED(b.context, "description", tare_context_describe(b.context, NULL));
    NULL_REFUSED(b.context, "workspace", tare_context_set_workspace(b.context, NULL, 64));
    base_close(&b);
  }
}

Test(errors, null_contexts) {
  base b;
  test_device *device = devices_first();
  base_open(&b, device, TARE_LOSS_GHM_C);
  tare_context_description description = {.struct_size = sizeof description};
  uint64_t bytes = 0;
  NULL_REFUSED(NULL, "context", tare_evaluate(NULL, &b.loss, &b.batch, &b.output, NULL));
  NULL_REFUSED(NULL, "context", tare_workspace_size(NULL, &b.loss, &b.batch, NULL, &bytes));
  NULL_REFUSED(NULL, "context", tare_label_counts(NULL, &b.batch, NULL, NULL, NULL));
  NULL_REFUSED(NULL, "context", tare_ghm_histogram(NULL, &b.loss, &b.batch, NULL));
  NULL_REFUSED(NULL, "context", tare_ghm_density_update(NULL, &b.loss, NULL));
  NULL_REFUSED(NULL, "context", tare_context_describe(NULL, &description));
  NULL_REFUSED(NULL, "context", tare_context_synchronize(NULL, NULL));
  NULL_REFUSED(NULL, "context", tare_context_set_workspace(NULL, NULL, 0));
  NULL_REFUSED(NULL, "context", tare_context_create(NULL, NULL));
  tare_context_destroy(NULL);
  base_close(&b);
  tare_context_destroy(device->context);
}

/* ---- The other calls ------------------------------------------------------------------------------------------- */

Test(errors, label_counts) {
  FOR_EACH_DEVICE(device) {
    REFUSED(LABEL_COUNTS, TARE_LOSS_SIGMOID_CE, INVALID_ARGUMENT, "labels", "NULL", b.levels[1].labels = NULL);
    REFUSED(LABEL_COUNTS, TARE_LOSS_SIGMOID_CE, INVALID_ARGUMENT, "classes", "0", b.batch.classes = 0);
    REFUSED(LABEL_COUNTS, TARE_LOSS_SIGMOID_CE, INVALID_ARGUMENT, "label_dtype", "9", b.batch.label_dtype = 9);
    REFUSED(LABEL_COUNTS, TARE_LOSS_SIGMOID_CE, INVALID_ARGUMENT, "level_count", "0", b.batch.level_count = 0);
  }
}

Test(errors, label_counts_needs_no_logits) {
  FOR_EACH_DEVICE(device) {
    base b;
    base_open(&b, device, TARE_LOSS_SIGMOID_CE);
    b.levels[0].logits = b.levels[1].logits = NULL;
    b.levels[0].gradient = b.levels[1].gradient = NULL;
    cr_assert_eq(make_call(&b, LABEL_COUNTS), TARE_STATUS_OK, "%s", tare_error_text(device->context));
    base_close(&b);
  }
}

Test(errors, ghm_calls) {
  FOR_EACH_DEVICE(device) {
    REFUSED(HISTOGRAM, TARE_LOSS_GHM_C, UNSUPPORTED, "density", NULL,
            (b.loss.ghm.density = TARE_GHM_DENSITY_EXACT, b.loss.ghm.state = b.state->memory));
    REFUSED(HISTOGRAM, TARE_LOSS_GHM_C, INVALID_ARGUMENT, "bins", "0",
            (b.loss.ghm.bins = 0, b.loss.ghm.state = b.state->memory));
    REFUSED(HISTOGRAM, TARE_LOSS_SIGMOID_CE, INVALID_ARGUMENT, "kind", NULL, (void)0);
    REFUSED(HISTOGRAM, TARE_LOSS_GHM_C, INVALID_ARGUMENT, "logits", "NULL",
            (b.levels[1].logits = NULL, b.loss.ghm.state = b.state->memory));
    REFUSED(DENSITY_UPDATE, TARE_LOSS_SIGMOID_CE, INVALID_ARGUMENT, "kind", NULL, (void)0);
    REFUSED(DENSITY_UPDATE, TARE_LOSS_GHM_C, UNSUPPORTED, "density", NULL,
            (b.loss.ghm.density = TARE_GHM_DENSITY_EXACT, b.loss.ghm.state = b.state->memory));
    REFUSED(DENSITY_UPDATE, TARE_LOSS_GHM_C, INVALID_ARGUMENT, "momentum", "1",
            (b.loss.ghm.momentum = 1, b.loss.ghm.state = b.state->memory));
  }
}

static void check_workspace(const test_device *device, int32_t kind) {
  base b;
  uint64_t bytes = 0;
  base_open(&b, device, kind);
  b.loss.ghm.density = TARE_GHM_DENSITY_EXACT;
  cr_assert_eq(tare_workspace_size(b.context, &b.loss, &b.batch, NULL, &bytes), TARE_STATUS_OK);
  cr_assert_gt(bytes, 0u);
  expect_refused(&b, EVALUATE, TARE_STATUS_WORKSPACE_TOO_SMALL, "workspace", "0", __LINE__);
  buffer *workspace = buffer_new(device, bytes + 16, 0);
  cr_assert_eq(tare_context_set_workspace(b.context, workspace->memory, bytes - 1), TARE_STATUS_OK);
  expect_refused(&b, EVALUATE, TARE_STATUS_WORKSPACE_TOO_SMALL, "workspace", NULL, __LINE__);
  cr_assert_eq(tare_context_set_workspace(b.context, (char *)workspace->memory + 8, bytes),
               TARE_STATUS_INVALID_ARGUMENT);
  cr_assert_eq(tare_context_set_workspace(b.context, workspace->memory, bytes), TARE_STATUS_OK);
  cr_assert_eq(make_call(&b, EVALUATE), TARE_STATUS_OK, "%s", tare_error_text(b.context));
  buffer_download(workspace, "workspace");
  for (int i = 0; i < 16; i++) cr_assert_eq(workspace->now[bytes + (uint64_t)i], 0xFF, "written beyond what was lent");
  cr_assert_eq(tare_context_set_workspace(b.context, NULL, 0), TARE_STATUS_OK);
  base c;
  base_open(&c, device, kind);
  c.loss.ghm.density = TARE_GHM_DENSITY_EXACT;
  expect_refused(&c, EVALUATE, TARE_STATUS_WORKSPACE_TOO_SMALL, "workspace", NULL, __LINE__);
  base_close(&c);
  buffer_free(workspace);
  base_close(&b);
}

Test(errors, workspace) {
  FOR_EACH_DEVICE(device) {
    check_workspace(device_able(device, TARE_LOSS_GHM_C, TARE_DTYPE_F32), TARE_LOSS_GHM_C);
    check_workspace(device_able(device, TARE_LOSS_GHM_R, TARE_DTYPE_F32), TARE_LOSS_GHM_R);
    FOR_EACH_LOSS(kind) {
      base b;
      uint64_t bytes = 77;
      base_open(&b, device, kind);
      cr_assert_eq(tare_workspace_size(b.context, &b.loss, &b.batch, NULL, &bytes), TARE_STATUS_OK);
      cr_assert_eq(bytes, 0u, "only the exact density needs a workspace");
      base_close(&b);
    }
    REFUSED(WORKSPACE_SIZE, TARE_LOSS_GHM_C, INVALID_ARGUMENT, "bins", "0", b.loss.ghm.bins = 0);
    REFUSED(WORKSPACE_SIZE, TARE_LOSS_GHM_C, INVALID_ARGUMENT, "classes", "0", b.batch.classes = 0);
  }
}

/* The size is asked for first, so it is refused first. */
Test(errors, what_a_gpu_does_not_compute) {
  FOR_EACH_DEVICE(device) {
    if (device_computes(device, TARE_LOSS_GHM_C, TARE_DTYPE_F64)) continue;
    for (int32_t density = TARE_GHM_DENSITY_UNIT_REGION; density <= TARE_GHM_DENSITY_EXACT; density++) {
      for (int which = EVALUATE; which <= WORKSPACE_SIZE; which++) {
        REFUSED((which_call)which, TARE_LOSS_GHM_C, UNSUPPORTED, "batch->dtype", "TARE_DTYPE_F64",
                (b.batch.dtype = TARE_DTYPE_F64, b.loss.ghm.density = density));
      }
    }
  }
}

static tare_status any_simple_call(const base *b, int which, int64_t rows, int64_t classes, tare_dtype dtype,
                                   tare_normalizer normalizer) {
  const void *logits = b->memory[0].logits->memory;
  const int32_t *labels = b->memory[0].labels->memory;
  float *loss = b->loss_out->memory;
  void *gradient = b->memory[0].gradient->memory;
  switch (which) {
    case 0:
      return tare_sigmoid_ce(b->context, rows, classes, dtype, logits, labels, -1, normalizer, loss, gradient, NULL);
    case 1:
      return tare_sigmoid_focal(b->context, rows, classes, dtype, logits, labels, 2, 0.25, normalizer, loss, gradient,
                                NULL);
    case 2:
      return tare_softmax_ce(b->context, rows, classes, dtype, logits, labels, normalizer, loss, gradient, NULL);
    case 3:
      return tare_softmax_focal(b->context, rows, classes, dtype, logits, labels, 2, -1, normalizer, loss, gradient,
                                NULL);
    default:
      return tare_ghm_c(b->context, rows, classes, dtype, logits, labels, 10, loss, gradient, NULL);
  }
}

Test(errors, simple_calls) {
  FOR_EACH_DEVICE(device) {
    base b;
    base_open(&b, device, TARE_LOSS_SIGMOID_CE);
    for (int which = 0; which < 5; which++) {
      const tare_normalizer sum = TARE_NORMALIZER_SUM;
      cr_assert_eq(any_simple_call(&b, which, -1, CLASSES, TARE_DTYPE_F32, sum), TARE_STATUS_INVALID_ARGUMENT);
      expect_text(__LINE__, tare_error_text(b.context), "rows", "-1");
      cr_assert_eq(any_simple_call(&b, which, ROWS, 0, TARE_DTYPE_F32, sum), TARE_STATUS_INVALID_ARGUMENT);
      expect_text(__LINE__, tare_error_text(b.context), "classes", "0");
      cr_assert_eq(any_simple_call(&b, which, ROWS, CLASSES, (tare_dtype)9, sum), TARE_STATUS_INVALID_ARGUMENT);
      expect_text(__LINE__, tare_error_text(b.context), "dtype", "9");
      if (which == 4) continue;
      cr_assert_eq(any_simple_call(&b, which, ROWS, CLASSES, TARE_DTYPE_F32, TARE_NORMALIZER_VALUE),
                   TARE_STATUS_INVALID_ARGUMENT);
      expect_text(__LINE__, tare_error_text(b.context), "normalizer", NULL);
    }
    buffer_expect_unchanged(b.loss_out, "loss");
    buffer_expect_unchanged(b.memory[0].gradient, "gradient");
    cr_assert_eq(tare_sigmoid_ce(NULL, 1, 1, TARE_DTYPE_F32, NULL, NULL, -1, TARE_NORMALIZER_SUM, NULL, NULL, NULL),
                 TARE_STATUS_INVALID_ARGUMENT);
    base_close(&b);
  }
}

Test(errors, class_balanced_calls) {
  double number = 7;
  float weights[3] = {7, 7, 7};
  const int64_t counts[3] = {5, 0, 9}, none[3] = {0, 0, 0}, negative[3] = {5, -1, 9};
  const double betas[3] = {0.9, 1, 0.9};
  const tare_status bad = TARE_STATUS_INVALID_ARGUMENT;
#define HOST_REFUSED(name, value, call)                                              \
  do {                                                                               \
    cr_assert_eq((call), bad);                                                       \
    expect_text(__LINE__, tare_error_text(NULL), (name), (value));                   \
    cr_assert(number == 7 && weights[0] == 7 && weights[1] == 7 && weights[2] == 7); \
  } while (0)
  HOST_REFUSED("n", "-1", tare_effective_number(-1, 0.9, &number));
  HOST_REFUSED("n", "nan", tare_effective_number(NAN, 0.9, &number));
  HOST_REFUSED("beta", "1", tare_effective_number(5, 1, &number));
  HOST_REFUSED("beta", "-0.1", tare_effective_number(5, -0.1, &number));
  HOST_REFUSED("beta", "nan", tare_effective_number(5, NAN, &number));
  HOST_REFUSED("effective_number", "NULL", tare_effective_number(5, 0.9, NULL));
  HOST_REFUSED("volume", "0.5", tare_beta_from_volume(0.5, &number));
  HOST_REFUSED("volume", NULL, tare_beta_from_volume(0x1p53, &number));
  HOST_REFUSED("volume", "inf", tare_beta_from_volume(INFINITY, &number));
  HOST_REFUSED("volume", "nan", tare_beta_from_volume(NAN, &number));
  HOST_REFUSED("beta", "NULL", tare_beta_from_volume(2, NULL));
  HOST_REFUSED("classes", "0", tare_class_balanced_weights(0, counts, 0.9, NULL, weights));
  HOST_REFUSED("classes", "-3", tare_class_balanced_weights(-3, counts, 0.9, NULL, weights));
  HOST_REFUSED("counts", "NULL", tare_class_balanced_weights(3, NULL, 0.9, NULL, weights));
  HOST_REFUSED("weights", "NULL", tare_class_balanced_weights(3, counts, 0.9, NULL, NULL));
  HOST_REFUSED("counts[1]", "-1", tare_class_balanced_weights(3, negative, 0.9, NULL, weights));
  HOST_REFUSED("counts", "0", tare_class_balanced_weights(3, none, 0.9, NULL, weights));
  HOST_REFUSED("beta", "1", tare_class_balanced_weights(3, counts, 1, NULL, weights));
  HOST_REFUSED("beta_per_class[1]", "1", tare_class_balanced_weights(3, counts, 0.9, betas, weights));
  const double real[3] = {5, 0.5, 9}, no_real[3] = {0, -0.0, 0};
  HOST_REFUSED("classes", "0", tare_class_balanced_weights_real(0, real, 0.9, NULL, weights));
  HOST_REFUSED("counts", "NULL", tare_class_balanced_weights_real(3, NULL, 0.9, NULL, weights));
  HOST_REFUSED("weights", "NULL", tare_class_balanced_weights_real(3, real, 0.9, NULL, NULL));
  HOST_REFUSED("counts", "0", tare_class_balanced_weights_real(3, no_real, 0.9, NULL, weights));
  HOST_REFUSED("beta", "1", tare_class_balanced_weights_real(3, real, 1, NULL, weights));
  HOST_REFUSED("beta_per_class[1]", "1", tare_class_balanced_weights_real(3, real, 0.9, betas, weights));
  const double wrong[] = {-1, -5e-324, NAN, INFINITY, -INFINITY};
  const char *const said[] = {"-1", "-4.9", "nan", "inf", "-inf"};
  for (int i = 0; i < 5; i++) {
    HOST_REFUSED("counts[1]", said[i],
                 tare_class_balanced_weights_real(3, (const double[]){5, wrong[i], 9}, 0.9, NULL, weights));
  }
}

Test(errors, logit_adjustment_calls) {
  double number = 7;
  float weights[3] = {7, 7, 7};
  const double counts[3] = {5, 0, 9};
  const tare_status bad = TARE_STATUS_INVALID_ARGUMENT;
  HOST_REFUSED("classes", "0", tare_logit_adjustment(0, counts, 1, weights));
  HOST_REFUSED("classes", "-3", tare_logit_adjustment(-3, counts, 1, weights));
  HOST_REFUSED("counts", "NULL", tare_logit_adjustment(3, NULL, 1, weights));
  HOST_REFUSED("offset", "NULL", tare_logit_adjustment(3, counts, 1, NULL));
  HOST_REFUSED("tau", "nan", tare_logit_adjustment(3, counts, NAN, weights));
  HOST_REFUSED("tau", "inf", tare_logit_adjustment(3, counts, INFINITY, weights));
  HOST_REFUSED("tau", "-1.01e+30", tare_logit_adjustment(3, counts, -1.01e30, weights));
  const double wrong[] = {-1, -5e-324, NAN, INFINITY, -INFINITY};
  const char *const said[] = {"-1", "-4.9", "nan", "inf", "-inf"};
  for (int i = 0; i < 5; i++)
    HOST_REFUSED("counts[1]", said[i], tare_logit_adjustment(3, (const double[]){5, wrong[i], 9}, 1, weights));
  /* Frequencies: a single sample is not 1 there. */
  HOST_REFUSED("counts[2]", "counts[1] is 0.25", tare_logit_adjustment(3, (const double[]){0.75, 0.25, 0}, 1, weights));
  HOST_REFUSED("counts[0]", "0.5", tare_logit_adjustment(3, (const double[]){0, 0.5, 100}, 1, weights));
}

/* ---- Contexts -------------------------------------------------------------------------------------------------- */

static void expect_no_context(tare_context_options options, tare_status want, const char *name, const char *value,
                              int line) {
  tare_context *context = (tare_context *)&options; /* anything but NULL */
  const tare_status status = tare_context_create(&context, &options);
  if (status != want) cr_assert_fail("line %d: %s", line, tare_status_name(status));
  cr_assert_null(context);
  expect_text(line, tare_error_text(NULL), name, value);
}

#define NO_CONTEXT(name, value, change)                                            \
  do {                                                                             \
    tare_context_options o;                                                        \
    tare_context_options_init(&o);                                                 \
    change;                                                                        \
    expect_no_context(o, TARE_STATUS_INVALID_ARGUMENT, (name), (value), __LINE__); \
  } while (0)

Test(errors, context_options) {
  NO_CONTEXT("struct_size", "0", o.struct_size = 0);
  NO_CONTEXT("device", "7", o.device = 7);
  NO_CONTEXT("device", "-1", o.device = -1);
  NO_CONTEXT("threads", "-1", o.threads = -1);
  NO_CONTEXT("threads", "1025", o.threads = 1025);
  NO_CONTEXT("device_index", "-2", o.device_index = -2);
  NO_CONTEXT("reserved", "1", o.reserved = 1);
}

Test(errors, unknown_instruction_set) {
  setenv("TARE_ISA", "sse9", 1);
  NO_CONTEXT("TARE_ISA", "sse9", o.device = TARE_DEVICE_CPU);
  setenv("TARE_ISA", "baseline", 1);
  tare_context *context = NULL;
  cr_assert_eq(tare_context_create(
                   &context, &(tare_context_options){.struct_size = 16, .device = TARE_DEVICE_CPU, .device_index = -1}),
               TARE_STATUS_OK, "%s", tare_error_text(NULL));
  tare_context_destroy(context);
}

/* Asked for CUDA: a context, or a status that says which part is missing and a text that says what to do. */
Test(errors, cuda_that_is_not_there) {
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CUDA;
  tare_context *context = NULL;
  const tare_status status = tare_context_create(&context, &options);
  const char *text = tare_error_text(NULL);
  if (status == TARE_STATUS_OK) {
    tare_context_destroy(context);
    cr_skip_test("a GPU works here");
  }
  cr_assert_null(context);
  switch (status) {
    case TARE_STATUS_NOT_BUILT:
      expect_text(__LINE__, text, "built", NULL);
      break;
    case TARE_STATUS_NO_DRIVER:
    case TARE_STATUS_DRIVER_TOO_OLD:
      expect_text(__LINE__, text, "driver", NULL);
      break;
    case TARE_STATUS_NO_DEVICE:
      expect_text(__LINE__, text, "GPU", NULL);
      break;
    default:
      cr_assert_fail("%s: %s", tare_status_name(status), text);
  }
}

Test(errors, auto_says_why_not_the_gpu) {
  tare_context *context = NULL;
  cr_assert_eq(tare_context_create(&context, NULL), TARE_STATUS_OK, "%s", tare_error_text(NULL));
  tare_context_description d = {.struct_size = sizeof d};
  cr_assert_eq(tare_context_describe(context, &d), TARE_STATUS_OK, "%s", tare_error_text(context));
  if (d.device == TARE_DEVICE_CPU) {
    cr_assert_neq(d.reason[0], '\0', "no reason");
    cr_assert_eq(d.device_index, -1);
    cr_assert_geq(d.threads, 1);
  } else {
    cr_assert_eq(d.device, TARE_DEVICE_CUDA);
    cr_assert_geq(d.device_index, 0);
    cr_assert_eq(d.reason[0], '\0');
  }
  cr_assert(d.device_name[0] != '\0' && d.instruction_set[0] != '\0');
  tare_context_destroy(context);
}

Test(errors, description_sizes) {
  FOR_EACH_DEVICE(device) {
    tare_context_description d;
    memset(&d, 0x5A, sizeof d);
    d.struct_size = 0;
    cr_assert_eq(tare_context_describe(device->context, &d), TARE_STATUS_INVALID_ARGUMENT);
    expect_text(__LINE__, tare_error_text(device->context), "struct_size", "0");
    memset(&d, 0x5A, sizeof d);
    d.struct_size = offsetof(tare_context_description, device_name);
    cr_assert_eq(tare_context_describe(device->context, &d), TARE_STATUS_OK);
    cr_assert_eq(d.device, device->kind);
    for (size_t i = 0; i < sizeof d.device_name; i++) cr_assert_eq(d.device_name[i], 0x5A, "written past struct_size");
  }
}

/* ---- Error texts ----------------------------------------------------------------------------------------------- */

Test(errors, texts_belong_to_their_context) {
  FOR_EACH_DEVICE(device) {
    tare_context *other = device_context(device, 0);
    cr_assert_str_eq(tare_error_text(other), "");
    base b;
    base_open(&b, device, TARE_LOSS_SIGMOID_FOCAL);
    b.loss.focal.gamma = -3;
    cr_assert_eq(make_call(&b, EVALUATE), TARE_STATUS_INVALID_ARGUMENT);
    b.context = other;
    b.loss.focal.gamma = 2;
    b.loss.focal.alpha = 77;
    cr_assert_eq(make_call(&b, EVALUATE), TARE_STATUS_INVALID_ARGUMENT);
    expect_text(__LINE__, tare_error_text(device->context), "gamma", "-3");
    expect_text(__LINE__, tare_error_text(other), "alpha", "77");
    cr_assert_null(strstr(tare_error_text(NULL), "gamma"));
    base_close(&b);
    tare_context_destroy(other);
  }
}

static void *fail_in_a_thread(void *argument) {
  (void)argument;
  double beta = 0;
  if (*tare_error_text(NULL) != '\0') return (void *)"a new thread has a text";
  if (tare_beta_from_volume(0.125, &beta) != TARE_STATUS_INVALID_ARGUMENT) return (void *)"no error";
  return strstr(tare_error_text(NULL), "0.125") != NULL ? NULL : (void *)"another text";
}

Test(errors, texts_without_a_context_belong_to_their_thread) {
  double number = 0;
  pthread_t thread;
  void *complaint = NULL;
  cr_assert_str_eq(tare_error_text(NULL), "");
  cr_assert_eq(tare_effective_number(1, 8.5, &number), TARE_STATUS_INVALID_ARGUMENT);
  cr_assert_eq(pthread_create(&thread, NULL, fail_in_a_thread, NULL), 0);
  pthread_join(thread, &complaint);
  cr_assert_null(complaint, "%s", (char *)complaint);
  expect_text(__LINE__, tare_error_text(NULL), "beta", "8.5");
}

Test(errors, status_names) {
  static const struct {
    tare_status status;
    const char *name;
  } names[] = {{TARE_STATUS_OK, "TARE_STATUS_OK"},
               {TARE_STATUS_INVALID_ARGUMENT, "TARE_STATUS_INVALID_ARGUMENT"},
               {TARE_STATUS_INVALID_LABEL, "TARE_STATUS_INVALID_LABEL"},
               {TARE_STATUS_UNSUPPORTED, "TARE_STATUS_UNSUPPORTED"},
               {TARE_STATUS_WORKSPACE_TOO_SMALL, "TARE_STATUS_WORKSPACE_TOO_SMALL"},
               {TARE_STATUS_OUT_OF_MEMORY, "TARE_STATUS_OUT_OF_MEMORY"},
               {TARE_STATUS_NOT_BUILT, "TARE_STATUS_NOT_BUILT"},
               {TARE_STATUS_NO_DRIVER, "TARE_STATUS_NO_DRIVER"},
               {TARE_STATUS_DRIVER_TOO_OLD, "TARE_STATUS_DRIVER_TOO_OLD"},
               {TARE_STATUS_NO_DEVICE, "TARE_STATUS_NO_DEVICE"},
               {TARE_STATUS_CUDA_ERROR, "TARE_STATUS_CUDA_ERROR"},
               {TARE_STATUS_CAPTURING, "TARE_STATUS_CAPTURING"},
               {TARE_STATUS_NO_BLAS, "TARE_STATUS_NO_BLAS"}};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    cr_assert_str_eq(tare_status_name(names[i].status), names[i].name);
  }
  cr_assert_str_eq(tare_status_name((tare_status)999), "unknown status");
  cr_assert_str_eq(tare_status_name((tare_status)-1), "unknown status");
}

/* ---- Names ----------------------------------------------------------------------------------------------------- */

Test(errors, loss_names_go_both_ways) {
  int32_t seen = 0;
  FOR_EACH_LOSS(kind) {
    const char *name = tare_loss_name(kind);
    cr_assert_not_null(name);
    cr_assert_eq(tare_loss_kind_from_name(name), kind, "%s", name);
    seen++;
  }
  cr_assert_eq(seen, tare_loss_count());
  cr_assert_str_eq(tare_loss_name(TARE_LOSS_SIGMOID_FOCAL), "sigmoid-focal");
  cr_assert_str_eq(tare_loss_name(TARE_LOSS_GHM_R), "ghm-r");
  cr_assert_null(tare_loss_name(99));
  cr_assert_null(tare_loss_name(-1));
  cr_assert_eq(tare_loss_kind_from_name("sigmoid_focal"), -1);
  cr_assert_eq(tare_loss_kind_from_name(""), -1);
  cr_assert_eq(tare_loss_kind_from_name(NULL), -1);
  cr_assert_eq(tare_loss_kind_at(-1), -1);
  cr_assert_eq(tare_loss_kind_at(tare_loss_count()), -1);
  cr_assert_eq(tare_version(), TARE_VERSION_NUMBER);
  cr_assert_not_null(strstr(tare_build_description(), "0.1.0"), "%s", tare_build_description());
}

/* ---- Structs of other versions --------------------------------------------------------------------------------- */

typedef struct longer_loss {
  tare_loss_spec loss;
  uint64_t tail[3];
} longer_loss;

typedef struct longer_batch {
  tare_batch batch;
  uint64_t tail[3];
} longer_batch;

typedef struct longer_output {
  tare_output output;
  uint64_t tail[3];
} longer_output;

typedef struct longer_level {
  tare_level level;
  uint64_t tail[3];
} longer_level;

Test(errors, longer_structs_with_an_empty_tail_are_taken) {
  FOR_EACH_DEVICE(device) {
    base b;
    base_open(&b, device, TARE_LOSS_SIGMOID_FOCAL);
    longer_loss loss = {.loss = b.loss};
    longer_batch batch = {.batch = b.batch};
    longer_output output = {.output = b.output};
    longer_level levels[LEVELS] = {{.level = b.levels[0]}, {.level = b.levels[1]}};
    loss.loss.struct_size = sizeof loss;
    batch.batch.struct_size = sizeof batch;
    batch.batch.level_stride = sizeof *levels;
    batch.batch.levels = &levels[0].level;
    output.output.struct_size = sizeof output;
    const tare_status fine = tare_evaluate(b.context, &loss.loss, &batch.batch, &output.output, NULL);
    cr_assert_eq(fine, TARE_STATUS_OK, "%s", tare_error_text(b.context));
    struct {
      uint64_t *word;
      const char *name;
    } tails[] = {
        {&loss.tail[2], "loss"}, {&batch.tail[0], "batch"}, {&output.tail[1], "output"}, {&levels[1].tail[2], "level"}};
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
      *tails[i].word = 1;
      const tare_status status = tare_evaluate(b.context, &loss.loss, &batch.batch, &output.output, NULL);
      cr_assert_eq(status, TARE_STATUS_INVALID_ARGUMENT, "a tail of %s: %s", tails[i].name, tare_status_name(status));
      expect_text(__LINE__, tare_error_text(b.context), tails[i].name, NULL);
      *tails[i].word = 0;
    }
    base_close(&b);
  }
}

Test(errors, structs_of_size_0_are_refused) {
  FOR_EACH_DEVICE(device) {
    INVALID(TARE_LOSS_SIGMOID_CE, "struct_size", "0", b.loss.struct_size = 0);
    INVALID(TARE_LOSS_SIGMOID_CE, "struct_size", "0", b.batch.struct_size = 0);
    INVALID(TARE_LOSS_SIGMOID_CE, "struct_size", "0", b.output.struct_size = 0);
  }
}

/* What a shorter struct lacks has its default, whatever the bytes beyond it hold. */
Test(errors, shorter_structs_have_defaults) {
  FOR_EACH_DEVICE(device) {
    base b;
    base_open(&b, device, TARE_LOSS_SIGMOID_FOCAL);
    for (int i = 0; i < ELEMENTS; i++) ((float *)(void *)b.memory[0].logits->before)[i] = (float)i / 8 - 1;
    buffer_upload(b.memory[0].logits);
    cr_assert_eq(make_call(&b, EVALUATE), TARE_STATUS_OK, "%s", tare_error_text(b.context));
    buffer_download(b.loss_out, "loss");
    float whole, part;
    memcpy(&whole, b.loss_out->now, sizeof whole);
    cr_assert(whole > 0);

    b.loss.struct_size = offsetof(tare_loss_spec, focal.gamma);
    b.loss.focal.gamma = -123;
    b.output.struct_size = offsetof(tare_output, normalizer);
    b.output.normalizer = 99;
    b.output.gradient_scale = NAN;
    b.output.counts = (void *)1;
    b.batch.struct_size = offsetof(tare_batch, class_weights);
    b.batch.class_weights = (void *)1;
    b.batch.positive_weights = (void *)1;
    b.batch.background_weight = NAN;
    cr_assert_eq(make_call(&b, EVALUATE), TARE_STATUS_OK, "%s", tare_error_text(b.context));
    buffer_download(b.loss_out, "loss");
    memcpy(&part, b.loss_out->now, sizeof part);
    cr_assert_eq(part, whole);
    base_close(&b);
  }
}

/* Levels of an older, shorter struct lie at its stride. */
Test(errors, shorter_levels_lie_at_their_stride) {
  FOR_EACH_DEVICE(device) {
    base b;
    base_open(&b, device, TARE_LOSS_SIGMOID_FOCAL);
    const size_t stride = offsetof(tare_level, element_loss);
    char *packed = malloc(stride * LEVELS + sizeof(tare_level));
    memset(packed, 0x11, stride * LEVELS + sizeof(tare_level));
    for (int l = 0; l < LEVELS; l++) memcpy(packed + stride * (size_t)l, &b.levels[l], stride);
    b.batch.levels = (const tare_level *)(const void *)packed;
    b.batch.level_stride = stride;
    cr_assert_eq(make_call(&b, EVALUATE), TARE_STATUS_OK, "%s", tare_error_text(b.context));
    buffer_download(b.memory[1].gradient, "gradient");
    float first;
    memcpy(&first, b.memory[1].gradient->now, sizeof first);
    cr_assert(isfinite(first) && first != 0);
    free(packed);
    base_close(&b);
  }
}

/* The init functions write no more than the caller's struct has. */
Test(errors, inits_respect_the_callers_size) {
  _Alignas(16) unsigned char bytes[512];
#define WRITES_ONLY(size, call)                                                                         \
  do {                                                                                                  \
    memset(bytes, 0x5A, sizeof bytes);                                                                  \
    call;                                                                                               \
    uint64_t first;                                                                                     \
    memcpy(&first, bytes, sizeof first);                                                                \
    for (size_t i = (size); i < sizeof bytes; i++) cr_assert_eq(bytes[i], 0x5A, #call " wrote %zu", i); \
    cr_assert_neq(first, UINT64_C(0x5A5A5A5A5A5A5A5A), #call " wrote nothing");                         \
  } while (0)
  WRITES_ONLY(16, tare_loss_spec_init_sized((tare_loss_spec *)(void *)bytes, TARE_LOSS_SIGMOID_FOCAL, 16));
  WRITES_ONLY(48, tare_batch_init_sized((tare_batch *)(void *)bytes, 48, sizeof(tare_level)));
  WRITES_ONLY(24, tare_output_init_sized((tare_output *)(void *)bytes, 24));
  WRITES_ONLY(16, tare_context_options_init_sized((tare_context_options *)(void *)bytes, 16));
  WRITES_ONLY(64, tare_level_init_rows_sized((tare_level *)(void *)bytes, 5, 3, 64));
  WRITES_ONLY(64, tare_level_init_nchw_sized((tare_level *)(void *)bytes, 3, 5, 2, 2, 64));
  WRITES_ONLY(64, tare_level_init_nhwc_sized((tare_level *)(void *)bytes, 3, 5, 2, 2, 64));
}

/* The defaults that the header names. */
Test(errors, defaults) {
  tare_loss_spec loss;
  tare_batch batch;
  tare_output output;
  tare_context_options options;
  memset(&loss, 0xFF, sizeof loss);
  tare_loss_spec_init(&loss, TARE_LOSS_SIGMOID_CE);
  cr_assert(loss.struct_size == sizeof loss && loss.kind == TARE_LOSS_SIGMOID_CE && loss.ce.alpha == -1 &&
            loss.ce.alpha_per_class == NULL);
  tare_loss_spec_init(&loss, TARE_LOSS_SIGMOID_FOCAL);
  cr_assert(loss.focal.alpha == 0.25 && loss.focal.gamma == 2 && loss.focal.alpha_per_class == NULL);
  tare_loss_spec_init(&loss, TARE_LOSS_SOFTMAX_FOCAL);
  cr_assert(loss.focal.alpha < 0 && loss.focal.gamma == 2);
  tare_loss_spec_init(&loss, TARE_LOSS_SIGMOID_POLY1);
  cr_assert(loss.poly1.alpha < 0 && loss.poly1.gamma == 2 && loss.poly1.epsilon == 1);
  for (int32_t kind = TARE_LOSS_GHM_C; kind <= TARE_LOSS_GHM_R; kind++) {
    memset(&loss, 0xFF, sizeof loss);
    tare_loss_spec_init(&loss, (tare_loss_kind)kind);
    cr_assert(loss.ghm.bins == (kind == TARE_LOSS_GHM_C ? 30 : 10) &&
              loss.ghm.density == TARE_GHM_DENSITY_UNIT_REGION && loss.ghm.variant == TARE_GHM_VARIANT_PAPER &&
              loss.ghm.use_stored_density == 0 && loss.ghm.momentum == 0 && loss.ghm.epsilon == 0.1 &&
              loss.ghm.mu == 0.02 && loss.ghm.state == NULL);
  }
  tare_loss_spec_init(&loss, (tare_loss_kind)77);
  cr_assert_eq(loss.kind, 77);
  memset(&batch, 0xFF, sizeof batch);
  tare_batch_init(&batch);
  cr_assert(batch.struct_size == sizeof batch && batch.level_stride == sizeof(tare_level) && batch.levels == NULL &&
            batch.dtype == TARE_DTYPE_F32 && batch.label_dtype == TARE_LABEL_DTYPE_I32 &&
            batch.target_dtype == TARE_DTYPE_F32 && batch.images == 1 && batch.first_label == 0 &&
            batch.background_label == -1 && batch.ignore_label == -2 && batch.class_weights == NULL &&
            batch.background_weight == 1 && batch.positive_weights == NULL);
  memset(&output, 0xFF, sizeof output);
  tare_output_init(&output);
  cr_assert(output.struct_size == sizeof output && output.loss == NULL && output.loss_dtype == TARE_DTYPE_F32 &&
            output.normalizer == TARE_NORMALIZER_SUM && output.normalizer_value == 1 &&
            output.normalizer_pointer == NULL && output.gradient_scale == 1 && output.gradient_scale_pointer == NULL &&
            output.counts == NULL);
  memset(&options, 0xFF, sizeof options);
  tare_context_options_init(&options);
  cr_assert(options.struct_size == sizeof options && options.device == TARE_DEVICE_AUTO && options.device_index == -1 &&
            options.threads == 0 && options.reserved == 0);
}
