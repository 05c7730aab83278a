/* SPDX-License-Identifier: Apache-2.0 */
/* Class-balanced weights of running counts: steps, ranks, states that were not written by Tare, and what is refused. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "oracle/oracle.h"
#include "support/buffers.h"
#include "support/devices.h"
#include "support/random.h"

enum { MOST = 1203, ROWS = 500 };

/* A state and its weights on a device, and what the counts must be. */
typedef struct running {
  const test_device *device;
  tare_class_balance balance;
  buffer *state, *weights, *labels;
  double counts[MOST];
} running;

static running *running_new(const test_device *device, int64_t classes) {
  running *r = calloc(1, sizeof *r);
  const size_t bytes = (size_t)tare_class_balance_state_bytes(classes);
  void *zeros = calloc(1, bytes);
  r->device = device;
  r->state = buffer_of(device, zeros, bytes);
  r->weights = buffer_new(device, (size_t)classes * sizeof(float), 4);
  tare_class_balance_init(&r->balance, classes);
  r->balance.state = r->state->memory;
  r->balance.weights = r->weights->memory;
  free(zeros);
  return r;
}

static void running_free(running *r) {
  buffer_free(r->state);
  buffer_free(r->weights);
  buffer_free(r->labels);
  free(r);
}

static void check_ok(const running *r, tare_status status) {
  cr_assert_eq(status, TARE_STATUS_OK, "%s", tare_error_text(r->device->context));
}

/* Rows of the first `seen` classes, background and ignored rows. They are added to `counts`. */
static void count(running *r, int64_t seen, uint64_t seed) {
  int32_t labels[ROWS];
  random_source random = random_from(seed);
  for (int i = 0; i < ROWS; i++) {
    labels[i] = (int32_t)(random_below(&random, seen * 3 / 2 + 2) - 2);
    if (labels[i] >= seen) labels[i] = (int32_t)(seen / 2);
    if (labels[i] >= 0) r->counts[labels[i]] += 1;
  }
  buffer_free(r->labels);
  r->labels = buffer_of(r->device, labels, sizeof labels);
  tare_level level;
  tare_batch batch;
  tare_level_init_rows(&level, ROWS, r->balance.classes);
  tare_batch_init(&batch);
  level.labels = r->labels->memory;
  batch.levels = &level;
  batch.level_count = 1;
  batch.classes = r->balance.classes;
  check_ok(r, tare_class_balance_count(r->device->context, &r->balance, &batch, NULL));
}

/* The words [1+classes, 1+2*classes) of the state. */
static const double *counts_of(const running *r) {
  return (const double *)(const void *)(r->state->now + 8 * (1 + r->balance.classes));
}

static void check_weights(running *r) {
  static double least[MOST], want[MOST];
  double largest = 0;
  buffer_download(r->weights, "weights");
  for (int64_t c = 0; c < r->balance.classes; c++) {
    least[c] = fmax(r->counts[c], r->balance.least_count);
    largest = fmax(largest, least[c]);
  }
  if (largest > 0) oracle_class_balanced_real(r->balance.classes, least, r->balance.beta, NULL, want);
  for (int64_t c = 0; c < r->balance.classes; c++) {
    const double weight = largest > 0 ? want[c] : 1;
    float got;
    memcpy(&got, r->weights->now + 4 * c, sizeof got);
    cr_assert_float_eq((double)got, weight, 1e-6 * weight, "class %d of %d: %.9g, not %.9g", (int)c,
                       (int)r->balance.classes, (double)got, weight);
  }
}

static void check_state(running *r, int64_t steps) {
  int64_t found;
  buffer_download(r->state, "state");
  memcpy(&found, r->state->now, sizeof found);
  cr_assert_eq(found, steps);
  for (int64_t c = 0; c < r->balance.classes; c++)
    cr_assert_float_eq(counts_of(r)[c], r->counts[c], 1e-12 * r->counts[c], "class %d: %g", (int)c, counts_of(r)[c]);
}

Test(class_balance, weights_follow_the_counts) {
  static const int64_t classes[] = {1, 2, 80, MOST};
  static const double betas[] = {0, 0.9, 0.999, 0.999999}, decays[] = {1, 0.5}, leasts[] = {0, 10, 0.25};
  FOR_EACH_DEVICE(device) {
    for (int way = 0; way < 24; way++) {
      running *r = running_new(device, classes[way % 4]);
      r->balance.beta = betas[way / 2 % 4];
      r->balance.decay = decays[way % 2];
      r->balance.least_count = leasts[way % 3];
      check_ok(r, tare_class_balance_weigh(device->context, &r->balance, NULL));
      check_weights(r); /* all 1 */
      for (int step = 1; step <= 3; step++) {
        for (int64_t c = 0; c < r->balance.classes; c++) r->counts[c] *= r->balance.decay;
        count(r, step == 1 ? (r->balance.classes + 1) / 2 : r->balance.classes, (uint64_t)(way * 10 + step));
        check_ok(r, tare_class_balance_step(device->context, &r->balance, NULL));
        check_weights(r);
        check_state(r, step);
      }
      check_ok(r, tare_class_balance_weigh(device->context, &r->balance, NULL));
      check_weights(r);
      check_state(r, 3);
      running_free(r);
    }
  }
}

/* Two ranks add their counts of the step: the words between the number of steps and the running counts. */
Test(class_balance, ranks_add_the_counts_of_a_step) {
  FOR_EACH_DEVICE(device) {
    running *a = running_new(device, 7), *b = running_new(device, 7);
    count(a, 5, 1);
    count(b, 7, 2);
    buffer_download(a->state, "state");
    buffer_download(b->state, "state");
    for (size_t c = 1; c <= 7; c++) {
      int64_t mine, theirs;
      memcpy(&mine, a->state->now + 8 * c, sizeof mine);
      memcpy(&theirs, b->state->now + 8 * c, sizeof theirs);
      mine += theirs;
      memcpy(a->state->before + 8 * c, &mine, sizeof mine);
      a->counts[c - 1] += b->counts[c - 1];
    }
    buffer_upload(a->state);
    check_ok(a, tare_class_balance_step(device->context, &a->balance, NULL));
    check_weights(a);
    check_state(a, 1);
    running_free(a);
    running_free(b);
  }
}

/* Words that no step wrote add nothing. */
Test(class_balance, what_is_not_finite_adds_nothing) {
  static const double words[7] = {NAN, INFINITY, -INFINITY, -3, 1e-40, 1e301, 4};
  FOR_EACH_DEVICE(device) {
    running *r = running_new(device, 7);
    const int64_t negative = -5;
    memcpy(r->state->before, &negative, sizeof negative);     /* the number of steps */
    memcpy(r->state->before + 8, &negative, sizeof negative); /* of the first class */
    memcpy(r->state->before + 8 * 8, words, sizeof words);
    buffer_upload(r->state);
    r->counts[6] = 4;
    check_ok(r, tare_class_balance_weigh(device->context, &r->balance, NULL));
    check_weights(r);
    check_ok(r, tare_class_balance_step(device->context, &r->balance, NULL));
    check_weights(r);
    check_state(r, 1);
    running_free(r);
  }
}

/* What Seesaw loss takes: the step comes first, and a count below 1 counts as 1. */
Test(class_balance, log_counts) {
  FOR_EACH_DEVICE(device) {
    running *r = running_new(device, 300);
    buffer *logs = buffer_new(device, 300 * sizeof(float), 4);
    r->balance.log_counts = logs->memory;
    for (int step = 0; step < 3; step++) {
      if (step == 2) r->balance.weights = NULL;
      if (step) count(r, step == 1 ? 40 : 300, (uint64_t)step);
      check_ok(r, (step ? tare_class_balance_step : tare_class_balance_weigh)(device->context, &r->balance, NULL));
      buffer_download(logs, "log counts");
      for (int c = 0; c < 300; c++) {
        float got;
        memcpy(&got, logs->now + 4 * c, sizeof got);
        cr_assert_float_eq((double)got, log(fmax(r->counts[c], 1)), 2e-7 * (double)got, "class %d: %g", c, (double)got);
      }
    }
    check_ok(r, tare_class_balance_weigh(device->context, &r->balance, NULL));
    buffer_free(logs);
    running_free(r);
  }
}

Test(class_balance, a_step_without_weights) {
  FOR_EACH_DEVICE(device) {
    running *r = running_new(device, 80);
    r->balance.weights = NULL;
    count(r, 80, 3);
    check_ok(r, tare_class_balance_step(device->context, &r->balance, NULL));
    check_state(r, 1);
    cr_assert_eq(tare_class_balance_weigh(device->context, &r->balance, NULL), TARE_STATUS_INVALID_ARGUMENT);
    running_free(r);
  }
}

static void expect_refused(const running *r, const tare_class_balance *balance, const char *text) {
  const tare_status status = tare_class_balance_step(r->device->context, balance, NULL);
  const char *found = tare_error_text(r->device->context);
  cr_assert_eq(status, TARE_STATUS_INVALID_ARGUMENT, "%s: %s", text, found);
  cr_assert(strstr(found, text), "no '%s' in: %s", text, found);
}

Test(class_balance, what_is_refused) {
  FOR_EACH_DEVICE(device) {
    running *r = running_new(device, 7);
    const tare_class_balance sound = r->balance;
    tare_class_balance b = sound;
#define REFUSE(field, value, text) \
  b = sound;                       \
  b.field = value;                 \
  expect_refused(r, &b, text)
    REFUSE(classes, 0, "balance->classes is 0");
    REFUSE(beta, 1, "balance->beta is 1");
    REFUSE(beta, NAN, "balance->beta is nan");
    REFUSE(decay, 0, "balance->decay is 0");
    REFUSE(decay, 1.5, "balance->decay is 1.5");
    REFUSE(least_count, -1, "balance->least_count is -1");
    REFUSE(least_count, 1e-40, "balance->least_count is");
    REFUSE(state, NULL, "balance->state is");
    REFUSE(state, (char *)sound.state + 4, "aligned to 8");
    REFUSE(weights, (float *)sound.state, "overlaps balance->state");
    REFUSE(log_counts, (float *)sound.state + 1, "balance->log_counts (");
    REFUSE(log_counts, sound.weights, "overlaps balance->weights");
    REFUSE(log_counts, (float *)(void *)((char *)sound.weights + 2), "aligned to 4");
    REFUSE(struct_size, 16, "struct_size is 16");
    expect_refused(r, NULL, "balance is NULL");
    tare_batch batch;
    tare_level level;
    tare_level_init_rows(&level, 0, 8);
    tare_batch_init(&batch);
    batch.levels = &level;
    batch.level_count = 1;
    batch.classes = 8;
    cr_assert_eq(tare_class_balance_count(device->context, &sound, &batch, NULL), TARE_STATUS_INVALID_ARGUMENT);
    cr_assert(strstr(tare_error_text(device->context), "batch->classes 8"));
    cr_assert_eq(tare_class_balance_step(NULL, &sound, NULL), TARE_STATUS_INVALID_ARGUMENT);
    cr_assert_eq(tare_class_balance_state_bytes(0), 0);
    cr_assert_eq(tare_class_balance_state_bytes(80), 8 * 161);
    running_free(r);
  }
}
