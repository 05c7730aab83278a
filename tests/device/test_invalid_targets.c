/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dense targets outside their range: a little is rounding and is moved into [0,1]; more, or a NaN, and the row adds
 * nothing and is counted as invalid. On a CPU the call says so itself, on a GPU tare_context_synchronize does.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/head.h"
#include "support/numbers.h"
#include "support/problem.h"

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

#define COUNT(array) (sizeof(array) / sizeof *(array))

static bool is_half(int32_t dtype) { return dtype == TARE_DTYPE_F16 || dtype == TARE_DTYPE_BF16; }

/* Targets at random and no labels. */
static void make_dense(problem *p, int32_t target_dtype) {
  problem_draw_targets(p, target_dtype);
  free(p->labels);
  p->labels = NULL;
  p->slack = p->loss.kind == TARE_LOSS_GHM_C ? 0 : p->dtype == TARE_DTYPE_F64 ? 1e-13 : 2e-5;
  for (int64_t i = 0; i < p->rows * p->classes && p->loss.kind == TARE_LOSS_GHM_C; i++) /* on no edge of a bin */
    p->targets[i] = round_to_dtype(target_dtype, p->targets[i] > 0.5 ? 1 : 0);
}

static problem *dense(int32_t kind, int32_t dtype, int32_t target_dtype, int64_t rows, int64_t classes) {
  problem *p = problem_new(kind, dtype, rows, classes);
  make_dense(p, target_dtype);
  return p;
}

/* The oracle's outcome, and the status that names row and class. Keeps the problem. */
static void expect_invalid(problem *p, const test_device *device, int64_t row, int64_t cls) {
  outcome *o = problem_run(p, device), *want = problem_expect(p);
  const bool on_cpu = o->device->kind == TARE_DEVICE_CPU;
  char name[64];
  cr_assert_eq(on_cpu ? o->status : o->check_status, TARE_STATUS_INVALID_TARGET, "%s: %s, %s: %s", problem_text(p),
               tare_status_name(o->status), tare_status_name(o->check_status), o->text);
  cr_assert_eq(on_cpu ? o->check_status : o->status, TARE_STATUS_OK, "%s: %s", problem_text(p), o->text);
  snprintf(name, sizeof name, on_cpu ? "row %" PRId64 ", class %" PRId64 " " : "row %" PRId64 " ", row, cls);
  cr_assert_not_null(strstr(o->text, name), "no '%s' in: %s", name, o->text);
  cr_assert_gt(want->counts.invalid, 0);
  o->status = TARE_STATUS_OK; /* what it wrote is right */
  CHECK_OUTCOME(p, o, want);
  for (int64_t c = 0; c < p->classes && o->gradient; c++) cr_assert_eq(o->gradient[row * p->classes + c], 0);
  outcome_free(o);
  outcome_free(want);
}

/* ---- A little outside ------------------------------------------------------------------------------------------ */

static double moved(double t) { return t < 0 ? 0 : t > 1 ? 1 : t; }

/* As if the targets had been moved into [0,1] before. */
Test(invalid_targets, rounding_is_taken_for_0_and_1) {
  static const double near[] = {1 + 1e-7, 1.001, 1.0005, -1e-3, -1e-9, -0.0, -5e-4}, near_half[] = {1.0078125, -0.01};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES * DTYPES && takes_targets(kind) && !is_softmax(kind); d++) {
        const int32_t target_dtype = taken_target_dtype(kind, dtypes[d % DTYPES]);
        problem *p = dense(kind, dtypes[d / DTYPES], target_dtype, 40, 9);
        for (int64_t i = 0; i < p->rows * p->classes; i += 2) {
          const size_t n = (size_t)i / 2;
          p->targets[i] = is_half(target_dtype) ? near_half[n % 2] : near[n % COUNT(near)];
          p->targets[i] = round_to_dtype(target_dtype, p->targets[i]);
        }
        p->want &= ~(unsigned)WANT_COUNTS;
        outcome *o = problem_run(p, device);
        cr_assert_eq(o->check_status, TARE_STATUS_OK, "%s: %s", problem_text(p), o->text);
        CHECK_PROBLEM(p, device);
        const unsigned want = p->want;
        p->want = WANT_LOSS | WANT_GRADIENT; /* which alone may go through vectors */
        CHECK_PROBLEM(p, device);
        p->want = want;
        for (int64_t i = 0; i < p->rows * p->classes; i++) p->targets[i] = moved(p->targets[i]);
        outcome *inside = problem_run(p, device);
        CHECK_SAME_OUTCOME(p, o, inside);
        outcome_free(o);
        outcome_free(inside);
        problem_free(p);
      }
    }
  }
}

/* ---- Beyond ---------------------------------------------------------------------------------------------------- */

/* The n-th value that a loss does not take; false behind the last. */
static bool bad_value(int32_t kind, int32_t target_dtype, size_t n, double *value) {
  static const double bad[] = {NAN, INFINITY, -INFINITY, 2, -5, 1.00101, -0.00101, 1e4};
  static const double bad_half[] = {NAN, INFINITY, -INFINITY, 2, -5, 1.02, -0.0102};
  static const double bad_softmax[] = {NAN, INFINITY, -INFINITY, -1e-6, -5};
  const double *all = is_softmax(kind) ? bad_softmax : is_half(target_dtype) ? bad_half : bad;
  const size_t count = is_softmax(kind) ? COUNT(bad_softmax) : is_half(target_dtype) ? COUNT(bad_half) : COUNT(bad);
  if (n < count) *value = round_to_dtype(target_dtype, all[n]);
  return n < count;
}

/* Of a class that is excluded a softmax row takes no target but 0. Each walk of dense rows. */
Test(invalid_targets, of_an_excluded_class) {
  static const int64_t widths[] = {9, 200, 1100};
  FOR_EACH_DEVICE(device) {
    for (size_t way = 0; way < DTYPES * COUNT(widths) * 2; way++) {
      const int64_t classes = widths[way / DTYPES % COUNT(widths)];
      problem *p = dense(TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, dtypes[way % DTYPES], dtypes[way % DTYPES], 20, classes);
      p->offset[4] = -INFINITY;
      for (int64_t i = 0; i < p->rows; i++) p->targets[i * classes + 4] = 0;
      p->targets[13 * classes + 4] = p->targets[17 * classes + 4] = 0.5;
      for (int64_t c = 0; c < classes; c++) p->targets[17 * classes + c] = c == 4; /* all its mass */
      p->normalizer = way % 3 ? TARE_NORMALIZER_ROWS : TARE_NORMALIZER_TARGETS;
      if (way >= DTYPES * COUNT(widths)) p->want = WANT_LOSS | WANT_GRADIENT | WANT_COUNTS;
      expect_invalid(p, device, 13, 4);
      problem_free(p);
    }
  }
}

Test(invalid_targets, the_row_adds_nothing) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      double value;
      for (size_t d = 0; d < DTYPES && takes_targets(kind); d++) {
        for (size_t n = 0; bad_value(kind, dtypes[(d + n) % DTYPES], n, &value); n++) {
          problem *p = dense(kind, dtypes[d], dtypes[(d + n) % DTYPES], 40, 9);
          p->targets[13 * 9 + 4] = p->targets[13 * 9 + 7] = p->targets[31 * 9] = p->targets[39 * 9] = value;
          p->in_place = n % 2 == 0;
          expect_invalid(p, device, 13, 4);
          p->want = WANT_LOSS | WANT_GRADIENT | WANT_COUNTS; /* without row losses, another way */
          expect_invalid(p, device, 13, 4);
          problem_free(p);
        }
      }
    }
  }
}

/* An invalid row is none that counts, in every divisor. */
Test(invalid_targets, no_divisor_counts_the_row) {
  static const int32_t normalizers[] = {TARE_NORMALIZER_SUM, TARE_NORMALIZER_ELEMENTS, TARE_NORMALIZER_ROWS,
                                        TARE_NORMALIZER_WEIGHTS, TARE_NORMALIZER_VALUE};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t n = 0; n < COUNT(normalizers) && takes_targets(kind) && !is_ghm(kind); n++) {
        problem *p = problem_new(kind, TARE_DTYPE_F32, test_size(3000, 300), 11);
        problem_draw_targets(p, TARE_DTYPE_F32); /* labels stay and mark ignored rows */
        p->slack = 2e-5;
        problem_draw_row_weights(p);
        p->normalizer = normalizers[n];
        p->normalizer_value = 7;
        for (int64_t row = 5; row < p->rows; row += 17) {
          p->row_weights[row] = 1.5;
          p->labels[row] = p->background_label;
          p->targets[row * 11 + row % 11] = NAN;
        }
        expect_invalid(p, device, 5, 5);
        problem_free(p);
      }
    }
  }
}

/* N, counts and weights of GHM, with a state and without. */
Test(invalid_targets, no_density_counts_the_row) {
  FOR_EACH_DEVICE(device) {
    for (size_t d = 0; d < DTYPES; d++) {
      for (int way = 0; way < 3; way++) {
        problem *p = dense(TARE_LOSS_GHM_C, dtypes[d], TARE_DTYPE_F32, test_size(400, 60), 7);
        p->targets[3 * 7 + 6] = 7;
        if (way == 0) problem_add_ghm_state(p);
        if (way == 2) p->loss.ghm.density = TARE_GHM_DENSITY_EXACT;
        expect_invalid(p, device, 3, 6);
        if (way == 0) cr_assert_eq(p->ghm_state[1], (uint64_t)(p->rows - 1) * 7);
        problem_free(p);
      }
    }
  }
}

static tare_status histogram_alone(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                   const tare_output *output, void *user) {
  (void)output, (void)user;
  return tare_ghm_histogram(context, loss, batch, NULL);
}

Test(invalid_targets, a_histogram_of_its_own_says_so) {
  FOR_EACH_DEVICE(device) {
    problem *p = dense(TARE_LOSS_GHM_C, TARE_DTYPE_F32, TARE_DTYPE_F32, 30, 7);
    problem_add_ghm_state(p);
    p->want = 0;
    p->call = histogram_alone;
    p->targets[9 * 7 + 2] = -1;
    outcome *o = problem_run(p, device);
    cr_assert_eq(o->device->kind == TARE_DEVICE_CPU ? o->status : o->check_status, TARE_STATUS_INVALID_TARGET, "%s",
                 o->text);
    cr_assert_not_null(strstr(o->text, "row 9"), "%s", o->text);
    cr_assert_eq(p->ghm_state[1], 29u * 7);
    outcome_free(o);
    problem_free(p);
  }
}

/* ---- What is not checked --------------------------------------------------------------------------------------- */

/* NaN where nothing counts: ignored rows, rows and elements of weight 0. */
Test(invalid_targets, what_does_not_count_may_be_anything) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES && takes_targets(kind); d++) {
        problem *p = problem_new(kind, dtypes[d], 60, 8);
        problem_draw_targets(p, TARE_DTYPE_F32);
        p->slack = 2e-5;
        problem_draw_row_weights(p);
        if (!is_softmax(kind) && !is_ghm(kind)) {
          problem_draw_element_weights(p);
          p->positive_weights = random_class_weights(p, 2);
          p->alpha_per_class = random_class_weights(p, 3);
        }
        for (int64_t i = 0; i < p->rows * 8; i++) {
          if (is_ghm(kind)) p->targets[i] = p->targets[i] > 0.5;
          const bool is_silent = p->labels[i / 8] == p->ignore_label || p->row_weights[i / 8] == 0 ||
                                 (p->element_weights && p->element_weights[i] == 0);
          if (is_silent) p->targets[i] = i % 2 ? NAN : -1e30;
        }
        p->place[ARRAY_TARGETS].channels_first = d % 2 == 1;
        outcome *o = problem_run(p, device);
        cr_assert_eq(o->check_status, TARE_STATUS_OK, "%s: %s", problem_text(p), o->text);
        outcome_free(o);
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

Test(invalid_targets, a_regression_takes_any) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_GHM_R, TARE_DTYPE_F32, 50, 4);
    for (int i = 0; i < 200; i++) p->targets[i] = (double)(float)(p->targets[i] * 1000);
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

/* Of a softmax row any number that is not negative is a mass. */
Test(invalid_targets, softmax_takes_any_mass) {
  FOR_EACH_DEVICE(device) {
    problem *p = dense(TARE_LOSS_SOFTMAX_CE, TARE_DTYPE_F32, TARE_DTYPE_F32, 50, 4);
    for (int i = 0; i < 200; i++) p->targets[i] = i % 3 == 0 ? -0.0 : (double)(float)(p->targets[i] * 50);
    p->slack *= 100;
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

/* ---- Where they lie -------------------------------------------------------------------------------------------- */

Test(invalid_targets, rows_and_classes_are_named_in_every_layout) {
  static const level_shape shapes[] = {{4, 5, 3}, {2, 3, 3}};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (int way = 0; way < 4 && takes_targets(kind); way++) {
        problem *p = problem_new_levels(kind, TARE_DTYPE_F32, 2, 5, 2, shapes);
        make_dense(p, TARE_DTYPE_F16);
        p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_GRADIENT].channels_first = way & 1;
        p->place[ARRAY_TARGETS].channels_first = way & 2;
        if (way == 3) p->place[ARRAY_TARGETS].pad[AXIS_CLASS] = p->place[ARRAY_TARGETS].pad[AXIS_X] = 1;
        p->targets[133 * 5 + 3] = p->targets[150 * 5 + 1] = -3; /* of level 1 */
        expect_invalid(p, device, 133, 3);
        p->targets[77 * 5 + 4] = INFINITY; /* of level 0 */
        expect_invalid(p, device, 77, 4);
        problem_free(p);
      }
    }
  }
}

/* The first row is named, whatever thread met which; rows longer than a block are left out as a whole. */
Test(invalid_targets, the_first_of_many_is_named) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      if (!takes_targets(kind)) continue;
      problem *p = dense(kind, TARE_DTYPE_F32, TARE_DTYPE_F32, test_size(40000, 4000), 5);
      for (int64_t row = p->rows - 1; row >= 977; row -= 1000) p->targets[row * 5 + 2] = -7;
      p->targets[977 * 5 + 1] = p->targets[977 * 5 + 3] = NAN;
      expect_invalid(p, device, 977, 1);
      problem_free(p);
      problem *wide = dense(kind, TARE_DTYPE_F32, TARE_DTYPE_F32, 3, 20011);
      wide->slack *= 30;
      wide->targets[20011 + 20000] = 1e4;
      if (is_softmax(kind)) wide->targets[20011 + 20000] = -1;
      expect_invalid(wide, device, 1, 20000);
      problem_free(wide);
    }
  }
}

/* ---- The fused head -------------------------------------------------------------------------------------------- */

Test(invalid_targets, a_fused_head_leaves_the_row_out) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    FOR_EACH_LOSS(kind) {
      for (int n = 0; n < 2 && takes_targets(kind); n++) {
        problem *p = head_problem(kind, TARE_DTYPE_F32, test_size(3000, 1300), 9, 6);
        make_dense(p, TARE_DTYPE_F32);
        p->head->room = 0; /* several chunks */
        if (n == 1 && !is_ghm(kind)) p->normalizer = TARE_NORMALIZER_ROWS;
        p->targets[1299 * 9 + 4] = NAN;
        p->targets[1111 * 9 + 8] = -1; /* beyond the first chunk of any device */
        expect_invalid(p, device, 1111, 8);
        problem_free(p);
      }
    }
  }
}
