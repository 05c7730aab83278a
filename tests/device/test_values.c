/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every loss in every type gives the oracle's loss, gradient, row and element losses and counts, at sizes around
 * vector widths and at the class counts that detectors have; with every normalizer and gradient scale; and asking for
 * less does not change what is given.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "support/buffers.h"
#include "support/parameters.h"
#include "support/problem.h"

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

/* The work of one call over the whole grid of sizes; more rows only where the classes are few. */
static void check_sizes(int32_t dtype) {
  static const int64_t rows[] = {1, 2, 15, 16, 17, 1000};
  static const int64_t classes[] = {1, 2, 3, 16, 17, 80, 81, 91, 1203, 4096, 20011};
  const int64_t limit = test_size(1300000, 20000);
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        for (size_t c = 0; c < sizeof classes / sizeof *classes; c++) {
          const int64_t elements = rows[r] * classes[c];
          if (elements > limit || !test_is_due(kind, (int)(100 * r + c) + 1000 * dtype)) continue;
          if (elements > 200000 && !test_is_due(kind, (int)c + 77 * dtype)) continue; /* the oracle's time */
          problem *p = problem_new(kind, dtype, rows[r], classes[c]);
          CHECK_PROBLEM(p, device);
          problem_free(p);
        }
      }
    }
  }
}

Test(values, sizes_f32) { check_sizes(TARE_DTYPE_F32); }
Test(values, sizes_f16) { check_sizes(TARE_DTYPE_F16); }
Test(values, sizes_bf16) { check_sizes(TARE_DTYPE_BF16); }
Test(values, sizes_f64) { check_sizes(TARE_DTYPE_F64); }

/* Every length around the vector and tile widths, where a body hands over to its tail. */
Test(values, every_length_up_to_200) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (int64_t n = 1; n <= test_size(200, 40); n++) {
        problem *tall = problem_new(kind, TARE_DTYPE_F32, n, 3);
        problem *wide = problem_new(kind, TARE_DTYPE_F32, 3, n);
        CHECK_PROBLEM(tall, device);
        CHECK_PROBLEM(wide, device);
        problem_free(tall);
        problem_free(wide);
      }
    }
  }
}

/* False if the loss has no gamma. */
static bool set_gamma(problem *p, double gamma) {
  tare_parameter_description parameter;
  if (!find_parameter(p->loss.kind, "gamma", &parameter)) return false;
  parameter_set(&p->loss, &parameter, gamma);
  return true;
}

Test(values, every_power) {
  static const double gammas[] = {0, 0.25, 0.5, 1, 1.5, 2, 3, 3.7, 5};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t g = 0; g < sizeof gammas / sizeof *gammas; g++) {
        for (size_t d = 0; d < DTYPES; d++) {
          problem *p = problem_new(kind, dtypes[d], test_size(1500, 60), 19);
          if (set_gamma(p, gammas[g])) CHECK_PROBLEM(p, device);
          problem_free(p);
        }
      }
    }
  }
}

Test(values, poly_epsilon) {
  static const double epsilons[] = {-1, 0, 0.5, 2, 7};
  FOR_EACH_DEVICE(device) {
    for (size_t e = 0; e < sizeof epsilons / sizeof *epsilons; e++) {
      problem *p = problem_new(TARE_LOSS_SIGMOID_POLY1, TARE_DTYPE_F32, 300, 7);
      p->loss.poly1.epsilon = epsilons[e];
      p->slack = epsilons[e] < 0 ? 1e-6 : 0; /* two terms of opposite sign cancel */
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* ---- Normalizer and scale -------------------------------------------------------------------------------------- */

static void check_normalizers(const test_device *device, int32_t kind, int32_t dtype) {
  problem *p = problem_new(kind, dtype, test_size(1234, 70), 13);
  problem_draw_row_weights(p);
  p->class_weights = random_class_weights(p, 1);
  p->background_weight = 0.75;
  p->gradient_scale = dtype != TARE_DTYPE_F16 ? 1 : kind == TARE_LOSS_SOFTMAX_LDAM ? 128 : 4096;
  for (int32_t normalizer = TARE_NORMALIZER_SUM; normalizer <= TARE_NORMALIZER_VALUE; normalizer++) {
    p->normalizer = normalizer;
    p->normalizer_value = 123.25;
    CHECK_PROBLEM(p, device);
  }
  p->normalizer_value = -0.37;
  CHECK_PROBLEM(p, device);
  p->normalizer_on_device = true;
  CHECK_PROBLEM(p, device);
  problem_free(p);
}

Test(values, every_normalizer) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES && !is_ghm(kind); d++) check_normalizers(device, kind, dtypes[d]);
    }
  }
}

/* A value given on the device counts, and not the one beside it. */
Test(values, normalizer_pointer_stands_instead_of_the_value) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 50, 4);
    p->normalizer = TARE_NORMALIZER_VALUE;
    p->normalizer_value = 8;
    outcome *by_value = problem_run(p, device);
    p->normalizer_on_device = true;
    outcome *by_pointer = problem_run(p, device);
    CHECK_SAME_OUTCOME(p, by_pointer, by_value);
    outcome_free(by_value);
    outcome_free(by_pointer);
    problem_free(p);
  }
}

Test(values, gradient_scale) {
  static const double scales[][2] = {{2, 0}, {-1, 0}, {1, 0.37}, {0.25, -3}, {65536, 0}, {0, 0}};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t s = 0; s < sizeof scales / sizeof *scales; s++) {
        problem *p = problem_new(kind, TARE_DTYPE_F32, 100, 9);
        p->gradient_scale = scales[s][0];
        p->device_scale = scales[s][1];
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* The scale is applied before rounding: a gradient that would be 0 in f16 is there when it is scaled. */
Test(values, scale_comes_before_rounding) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F16, 200, 5);
    p->normalizer = TARE_NORMALIZER_VALUE;
    p->normalizer_value = 1e7;
    p->gradient_scale = 32768;
    CHECK_PROBLEM(p, device);
    p->gradient_scale = 1;
    p->device_scale = 32768;
    CHECK_PROBLEM(p, device);
    p->want &= ~(unsigned)(WANT_ROW_LOSS | WANT_ELEMENT_LOSS); /* other paths on a GPU */
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

/* ---- Asking for less ------------------------------------------------------------------------------------------- */

/* A GPU may go over the elements in another order where other outputs are wanted, and its sum is rounded otherwise.
 * Where only loss and gradient are, a gradient of 16 bits is computed to some 20: near the middle between two of its
 * numbers the other one may be nearer. */
static void expect_same_but_for_order(const problem *p, outcome *part, const outcome *whole) {
  if (p->want & WANT_LOSS) {
    CHECK_NEAR("loss", part->loss, whole->loss, ((tolerance){1e-30, 1e-6}));
    part->loss = whole->loss;
  }
  if (p->want & WANT_GRADIENT && p->dtype != TARE_DTYPE_F32) {
    const tolerance step = p->dtype == TARE_DTYPE_F16 ? (tolerance){0x1p-24, 0x1p-10} : (tolerance){0, 0x1p-7};
    CHECK_CLOSE("gradient", part->gradient, whole->gradient, (size_t)whole->elements, step);
    memcpy(part->gradient, whole->gradient, (size_t)whole->elements * sizeof *whole->gradient);
  }
}

Test(values, each_output_alone_is_the_same) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES; d++) {
        if (!test_is_due(kind, (int)d)) continue;
        problem *p = problem_new(kind, dtypes[d], test_size(700, 50), 21);
        p->loss_dtype = TARE_DTYPE_F64;
        const unsigned all = p->want;
        outcome *whole = problem_run(p, device);
        for (unsigned want = 1; want <= all; want++) {
          if ((want & ~all) != 0) continue;
          p->want = want;
          outcome *part = problem_run(p, device);
          if (device->kind == TARE_DEVICE_CUDA && dtypes[d] != TARE_DTYPE_F64)
            expect_same_but_for_order(p, part, whole);
          CHECK_SAME_OUTCOME(p, part, whole);
          outcome_free(part);
        }
        outcome_free(whole);
        problem_free(p);
      }
    }
  }
}

Test(values, loss_in_double) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES; d++) {
        problem *p = problem_new(kind, dtypes[d], test_size(999, 50), 6);
        p->loss_dtype = TARE_DTYPE_F64;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* ---- The simple calls ------------------------------------------------------------------------------------------ */

typedef struct simple_arrays {
  buffer *logits, *labels, *loss, *gradient;
} simple_arrays;

static simple_arrays simple_new(const problem *p, const test_device *device) {
  const size_t elements = (size_t)(p->rows * p->classes);
  float *logits = malloc(elements * sizeof *logits);
  int32_t *labels = malloc((size_t)p->rows * sizeof *labels);
  for (size_t i = 0; i < elements; i++) logits[i] = (float)p->logits[i];
  for (int64_t i = 0; i < p->rows; i++) labels[i] = (int32_t)p->labels[i];
  const simple_arrays arrays = {.logits = buffer_of(device, logits, elements * sizeof *logits),
                                .labels = buffer_of(device, labels, (size_t)p->rows * sizeof *labels),
                                .loss = buffer_new(device, sizeof(float), 0),
                                .gradient = buffer_new(device, elements * sizeof(float), 0)};
  free(logits);
  free(labels);
  return arrays;
}

static tare_status simple_call(const problem *p, tare_context *context, const void *logits, const int32_t *labels,
                               float *loss, void *gradient) {
  const tare_normalizer normalizer = (tare_normalizer)p->normalizer;
  switch (p->loss.kind) {
    case TARE_LOSS_SIGMOID_CE:
      return tare_sigmoid_ce(context, p->rows, p->classes, TARE_DTYPE_F32, logits, labels, p->loss.ce.alpha, normalizer,
                             loss, gradient, NULL);
    case TARE_LOSS_SIGMOID_FOCAL:
      return tare_sigmoid_focal(context, p->rows, p->classes, TARE_DTYPE_F32, logits, labels, p->loss.focal.gamma,
                                p->loss.focal.alpha, normalizer, loss, gradient, NULL);
    case TARE_LOSS_SOFTMAX_CE:
      return tare_softmax_ce(context, p->rows, p->classes, TARE_DTYPE_F32, logits, labels, normalizer, loss, gradient,
                             NULL);
    case TARE_LOSS_SOFTMAX_FOCAL:
      return tare_softmax_focal(context, p->rows, p->classes, TARE_DTYPE_F32, logits, labels, p->loss.focal.gamma,
                                p->loss.focal.alpha, normalizer, loss, gradient, NULL);
    default:
      return tare_ghm_c(context, p->rows, p->classes, TARE_DTYPE_F32, logits, labels, p->loss.ghm.bins, loss, gradient,
                        NULL);
  }
}

/* Runs the simple call, gradient in `gradient`, and compares with tare_evaluate bit for bit. */
static void check_simple(problem *p, const test_device *in_turn, bool in_place) {
  const test_device *device = device_able(in_turn, p->loss.kind, p->dtype);
  p->want = WANT_LOSS | WANT_GRADIENT;
  simple_arrays a = simple_new(p, device);
  buffer *gradient = in_place ? a.logits : a.gradient;
  const tare_status status =
      simple_call(p, device->context, a.logits->memory, a.labels->memory, a.loss->memory, gradient->memory);
  cr_assert_eq(status, TARE_STATUS_OK, "%s: %s", problem_text(p), tare_error_text(device->context));
  if (!in_place) buffer_expect_unchanged(a.logits, "logits");
  buffer_expect_unchanged(a.labels, "labels");
  buffer_download(a.loss, "loss");
  buffer_download(gradient, "gradient");

  float loss;
  memcpy(&loss, a.loss->now, sizeof loss);
  double *got = malloc((size_t)(p->rows * p->classes) * sizeof *got);
  for (int64_t i = 0; i < p->rows * p->classes; i++) {
    float value;
    memcpy(&value, gradient->now + (size_t)i * sizeof value, sizeof value);
    got[i] = (double)value;
  }
  outcome *same = problem_run(p, device);
  outcome simple = *same;
  simple.loss = (double)loss;
  simple.gradient = got;
  CHECK_SAME_OUTCOME(p, &simple, same);
  outcome *want = problem_expect(p);
  CHECK_OUTCOME(p, &simple, want);
  outcome_free(want);
  outcome_free(same);
  free(got);
  buffer_free(a.logits);
  buffer_free(a.labels);
  buffer_free(a.loss);
  buffer_free(a.gradient);
}

Test(values, simple_calls) {
  static const int32_t kinds[] = {TARE_LOSS_SIGMOID_CE, TARE_LOSS_SIGMOID_FOCAL, TARE_LOSS_SOFTMAX_CE,
                                  TARE_LOSS_SOFTMAX_FOCAL, TARE_LOSS_GHM_C};
  FOR_EACH_DEVICE(device) {
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
      problem *p = problem_new(kinds[k], TARE_DTYPE_F32, 211, 11);
      p->normalizer = kinds[k] == TARE_LOSS_GHM_C ? TARE_NORMALIZER_SUM : TARE_NORMALIZER_POSITIVES;
      switch (kinds[k]) {
        case TARE_LOSS_SIGMOID_CE:
          p->loss.ce.alpha = 0.4;
          break;
        case TARE_LOSS_SIGMOID_FOCAL:
        case TARE_LOSS_SOFTMAX_FOCAL:
          p->loss.focal.alpha = 0.3;
          p->loss.focal.gamma = 1.5;
          break;
        case TARE_LOSS_GHM_C:
          p->loss.ghm.bins = 12;
          break;
        default:
          break;
      }
      check_simple(p, device, false);
      check_simple(p, device, true);
      problem_free(p);
    }
  }
}

/* Neither output is wanted by force. */
Test(values, simple_calls_without_outputs) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_SOFTMAX_CE, TARE_DTYPE_F32, 10, 3);
    simple_arrays a = simple_new(p, device);
    cr_assert_eq(simple_call(p, device->context, a.logits->memory, a.labels->memory, NULL, NULL), TARE_STATUS_OK);
    cr_assert_eq(simple_call(p, device->context, a.logits->memory, a.labels->memory, a.loss->memory, NULL),
                 TARE_STATUS_OK);
    cr_assert_eq(simple_call(p, device->context, a.logits->memory, a.labels->memory, NULL, a.gradient->memory),
                 TARE_STATUS_OK);
    buffer_free(a.logits);
    buffer_free(a.labels);
    buffer_free(a.loss);
    buffer_free(a.gradient);
    problem_free(p);
  }
}
