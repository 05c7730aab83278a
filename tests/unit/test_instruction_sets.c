/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every instruction set of the CPU counts, weighs and decodes as the oracle does. The other tests run on the best one
 * that the machine has, and some loops exist for one set alone, so that the rest of them would be seen nowhere.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "support/numbers.h"
#include "support/problem.h"
#include "support/random.h"

/* The CPU with this instruction set, for the rest of the test's process. */
static const test_device *cpu_with(const char *instruction_set) {
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CPU;
  tare_context *context = NULL;
  setenv("TARE_ISA", instruction_set, 1);
  setenv("TARE_TEST_DEVICES", "cpu", 1);
  if (tare_context_create(&context, &options) != TARE_STATUS_OK) cr_skip_test("%s", tare_error_text(NULL));
  tare_context_destroy(context);
  return devices_first();
}

/* Numbers of bins around 32, and of keys around the chunks of 64 and the blocks of 1,024 that the loops have. Few, some
 * or most of the logits lie beyond the first bin. Some rows are masked. */
static void check_density(const char *instruction_set) {
  static const int32_t bin_counts[] = {1, 2, 10, 16, 17, 31, 32, 33, 64, 1024};
  static const struct { double mean, deviation; } logits[] = {{-7, 1.5}, {-4.6, 1.5}, {-1, 3}};
  static const int64_t shapes[][2] = {{150, 80}, {41, 25}, {64, 1}, {3, 1203}};
  const test_device *device = cpu_with(instruction_set);
  for (size_t b = 0; b < sizeof bin_counts / sizeof *bin_counts; b++) {
    for (size_t l = 0; l < sizeof logits / sizeof *logits; l++) {
      for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        problem *p = problem_new(TARE_LOSS_GHM_C, TARE_DTYPE_F32, test_size(shapes[s][0], 30), shapes[s][1]);
        random_source source = random_from(31 + l);
        for (int64_t i = 0; i < p->rows * p->classes; i++) {
          const double x = logits[l].mean + logits[l].deviation * random_normal(&source);
          p->logits[i] = i % 31 == 0 ? 0 : (double)(float)x; /* 0 is where g = 1/2 begins */
        }
        p->loss.ghm.bins = bin_counts[b];
        problem_draw_row_weights(p);
        problem_add_ghm_state(p);
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}
Test(instruction_sets, baseline_density) { check_density("baseline"); }
Test(instruction_sets, avx2_density) { check_density("avx2"); }
Test(instruction_sets, avx512_density) { check_density("avx512"); }
Test(instruction_sets, sve_density) { check_density("sve"); }

/* Few classes, so that rows and their weights are most of the work, in both label types, where they lie one behind the
 * other and where they do not. */
static void check_rows(const char *instruction_set) {
  const test_device *device = cpu_with(instruction_set);
  FOR_EACH_LOSS(kind) {
    for (int64_t classes = 1; classes <= 17; classes++) {
      for (int32_t type = TARE_LABEL_DTYPE_I32; type <= TARE_LABEL_DTYPE_I64; type++) {
        const level_shape shapes[] = {{9, 7, 3}, {1, test_size(400, 70), 1}};
        problem *p = problem_new_levels(kind, TARE_DTYPE_F32, 2, classes, 2, shapes);
        p->label_dtype = type;
        p->image_major = classes % 2 == 0;
        p->place[ARRAY_LOGITS].channels_first = classes % 3 == 0;
        p->background_weight = is_ghm(kind) ? 1 : 0.5;
        CHECK_PROBLEM(p, device);
        problem_draw_row_weights(p);
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}
Test(instruction_sets, baseline_rows) { check_rows("baseline"); }
Test(instruction_sets, avx2_rows) { check_rows("avx2"); }
Test(instruction_sets, avx512_rows) { check_rows("avx512"); }
Test(instruction_sets, sve_rows) { check_rows("sve"); }

/* Negatives of cross-entropy and focal loss have loops with the vectors of an instruction set. Dense targets of 0 take
 * the loops for any loss. Both give the same bits: at each logit, in each place of a turn, with and without a gradient,
 * and where the gradient takes the place of the logits. */
static void check_negatives(const char *instruction_set) {
  static const double special[] = {0.0,        -0.0,  1e-30, -1e-30, 0.375, -0.25, 17,       -17,
                                   86.9,       -86.9, 87.5,  -87.5,  87.68, 87.69, -87.68,   -87.683113,
                                   -87.683121, -88.5, 3e38,  -3e38,  4.6,   -4.6,  INFINITY, -INFINITY};
  enum { SPECIAL = sizeof special / sizeof *special };
  const test_device *device = cpu_with(instruction_set);
  for (int64_t rows = 1; rows < 1100; rows += rows < 50 ? 1 : 477) {
    for (int way = 0; way < 12; way++) {
      problem *p = problem_new(way < 4 ? TARE_LOSS_SIGMOID_CE : TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, rows, 1);
      if (way >= 4) p->loss.focal.gamma = way < 8 ? 2 : 0;
      p->in_place = way % 4 == 1;
      p->want = way % 4 == 3 ? WANT_ROW_LOSS : WANT_ROW_LOSS | WANT_GRADIENT;
      for (int64_t i = 0; i < rows; i++) {
        p->labels[i] = p->background_label;
        if (i % 3 != 1) p->logits[i] = (double)(float)special[(i + rows) % SPECIAL];
      }
      outcome *label = problem_run(p, device);
      p->target_dtype = TARE_DTYPE_F32;
      p->targets = calloc((size_t)rows, sizeof *p->targets);
      outcome *dense = problem_run(p, device);
      cr_assert_eq(label->status, TARE_STATUS_OK, "%s", label->text);
      cr_assert_eq(dense->status, TARE_STATUS_OK, "%s", dense->text);
      CHECK_SAME("row losses", dense->row_loss, label->row_loss, (size_t)rows);
      if (p->want & WANT_GRADIENT) CHECK_SAME("gradients", dense->gradient, label->gradient, (size_t)rows);
      outcome_free(label);
      outcome_free(dense);
      problem_free(p);
    }
  }
}
Test(instruction_sets, baseline_negatives) { check_negatives("baseline"); }
Test(instruction_sets, avx2_negatives) { check_negatives("avx2"); }
Test(instruction_sets, avx512_negatives) { check_negatives("avx512"); }
Test(instruction_sets, sve_negatives) { check_negatives("sve"); }

/* A NaN stays one, in the gradient too, whatever its sign and its place, and is alone: its neighbours keep their
 * numbers. Vectors that are held within bounds may lose one. */
static void check_nan(const char *instruction_set) {
  enum { ROWS = 50 };
  const test_device *device = cpu_with(instruction_set);
  for (int way = 0; way < 6; way++) {
    problem *p = problem_new(way < 2 ? TARE_LOSS_SIGMOID_CE : TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, ROWS, 1);
    if (way >= 2) p->loss.focal.gamma = way < 4 ? 2 : 0;
    p->want = way % 2 ? WANT_ROW_LOSS : WANT_ROW_LOSS | WANT_GRADIENT;
    for (int i = 0; i < ROWS; i++) {
      p->labels[i] = p->background_label;
      if (i % 3 == 1) p->logits[i] = i % 2 ? NAN : copysign(NAN, -1);
    }
    outcome *o = problem_run(p, device);
    cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
    for (int i = 0; i < ROWS; i++) {
      cr_assert_eq(isnan(o->row_loss[i]) != 0, i % 3 == 1, "%s: row loss %d is %g", problem_text(p), i, o->row_loss[i]);
      if (p->want & WANT_GRADIENT)
        cr_assert_eq(isnan(o->gradient[i]) != 0, i % 3 == 1, "%s: [%d] is %g", problem_text(p), i, o->gradient[i]);
    }
    outcome_free(o);
    problem_free(p);
  }
}
Test(instruction_sets, baseline_nan) { check_nan("baseline"); }
Test(instruction_sets, avx2_nan) { check_nan("avx2"); }
Test(instruction_sets, avx512_nan) { check_nan("avx512"); }
Test(instruction_sets, sve_nan) { check_nan("sve"); }
