/* SPDX-License-Identifier: Apache-2.0 */
/* A call in which everything is right, and what becomes of it if one thing is wrong. */
#ifndef TEST_ERRORS_H
#define TEST_ERRORS_H
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

static inline buffer *zeros(const test_device *device, size_t bytes) {
  buffer *b = buffer_new(device, bytes, 0);
  memset(b->before, 0, bytes);
  buffer_upload(b);
  return b;
}

static inline void open_level(base *b, int l) {
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

static inline void base_open(base *b, const test_device *device, int32_t kind) {
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

static inline int base_buffers(const base *b, buffer *all[ARRAYS]) {
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

static inline void base_close(base *b) {
  buffer *all[ARRAYS];
  const int count = base_buffers(b, all);
  for (int i = 0; i < count; i++) buffer_free(all[i]);
}

typedef enum which_call { EVALUATE, WORKSPACE_SIZE, LABEL_COUNTS, HISTOGRAM, DENSITY_UPDATE } which_call;

static inline tare_status make_call(base *b, which_call which) {
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

static inline void expect_text(int line, const char *text, const char *name, const char *value) {
  if (strstr(text, name) == NULL) cr_assert_fail("line %d: the text does not name '%s': %s", line, name, text);
  if (value != NULL && strstr(text, value) == NULL) {
    cr_assert_fail("line %d: the text does not say '%s': %s", line, value, text);
  }
  if (strlen(text) <= strlen(name) + (value == NULL ? 0 : strlen(value)) + 2) {
    cr_assert_fail("line %d: the text does not say what is allowed: %s", line, text);
  }
}

static inline void expect_refused(base *b, which_call which, tare_status want, const char *name, const char *value,
                                  int line) {
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

#endif
