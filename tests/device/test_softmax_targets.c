/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Softmax rows with dense targets: rows with targets of several classes, of one and of none, and rows that are skipped
 * or spoilt, beside each other in one batch, at every width and in every layout.
 */
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "support/numbers.h"
#include "support/problem.h"
#include "support/random.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
static const int64_t widths[] = {1, 2, 3, 15, 16, 17, 63, 64, 80, 81, 130, 365, 1024, 1025, 1203, 2049, 2100};

/* Near p = t the gradient p - t cancels, so its error is measured against the operands. */
static double slack_of(int32_t dtype) { return dtype == TARE_DTYPE_F64 ? 1e-14 : 4e-6; }

/* One of the kinds of rows after the other, or `kind` alone if it is not below 0. */
enum { SEVERAL, ONE, NONE, FEW, SKIPPED, LAST_TWO, KINDS };

static void draw_row_of(problem *p, int64_t row, int kind, random_source *source) {
  double *const t = p->targets + row * p->classes;
  for (int64_t k = 0; k < p->classes; k++) {
    const double any = round_to_dtype(p->target_dtype, random_uniform(source));
    const int is_some = kind == SEVERAL    ? k % 3 != 1
                        : kind == ONE      ? k == row * 7 % p->classes
                        : kind == FEW      ? k % 16 == 3
                        : kind == LAST_TWO ? k >= p->classes - 2
                                           : kind == SKIPPED;
    t[k] = is_some ? any : 0;
  }
  if (kind != SKIPPED) return;
  p->labels[row] = p->ignore_label;
  for (int64_t k = 0; k < p->classes; k++) p->logits[row * p->classes + k] = k % 2 ? (double)NAN : (double)INFINITY;
}

static problem *mixed_problem(int32_t loss, int32_t dtype, int32_t target_dtype, int64_t classes) {
  const level_shape shape = {.height = classes > 1000 ? 3 : test_size(40, 20), .width = 4, .anchors = 1};
  problem *p = problem_new_levels(loss, dtype, 1, classes, 1, &shape);
  problem_draw_targets(p, target_dtype);
  for (int64_t row = 0; row < p->rows; row++) p->labels[row] = p->background_label;
  p->slack = slack_of(dtype);
  return p;
}

static void draw_kinds(problem *p, int only) {
  random_source source = random_from(11);
  for (int64_t row = 0; row < p->rows; row++) {
    const int kind = only >= 0 ? only : (int)(random_uniform(&source) * KINDS);
    draw_row_of(p, row, kind, &source);
  }
}

static void lie(problem *p, int way) {
  p->in_place = way % 3 == 1;
  for (int a = 0; a < ARRAY_KINDS; a++) {
    p->place[a].channels_first = way / 2 % 2;
    if (way % 3 == 2) p->place[a].pad[AXIS_CLASS] = p->place[a].pad[AXIS_X] = 3;
  }
  if (way == 4) p->place[ARRAY_TARGETS].channels_first = false;
  if (way == 5) p->place[ARRAY_TARGETS].channels_first = true;
}

Test(softmax_targets, kinds_of_rows_beside_each_other) {
  FOR_EACH_DEVICE(device) {
    for (int w = 0; w < COUNT(widths); w++) {
      for (int way = 0; way < 6; way++) {
        const int32_t dtype = dtypes[(w + way) % COUNT(dtypes)];
        const int32_t of_targets = way % 2 || dtype == TARE_DTYPE_F64 ? TARE_DTYPE_F32 : dtype;
        const int32_t loss = w % 2 ? TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED : TARE_LOSS_SOFTMAX_CE;
        problem *p = mixed_problem(loss, dtype, of_targets, widths[w]);
        draw_kinds(p, -1);
        lie(p, way);
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

Test(softmax_targets, rows_of_one_kind) {
  static const int64_t few[] = {2, 3, 21, 80, 1203};
  FOR_EACH_DEVICE(device) {
    for (int w = 0; w < COUNT(few); w++) {
      for (int kind = 0; kind < KINDS; kind++) {
        problem *p = mixed_problem(TARE_LOSS_SOFTMAX_CE, dtypes[kind % 2 * 3], TARE_DTYPE_F32, few[w]);
        draw_kinds(p, kind);
        lie(p, (w + kind) % 6);
        problem_draw_row_weights(p);
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* A class that is infinitely far below adds nothing without a target, and an infinite loss with one. */
Test(softmax_targets, infinite_logits) {
  static const int64_t few[] = {3, 21, 80, 81, 1203, 2100};
  FOR_EACH_DEVICE(device) {
    for (int w = 0; w < COUNT(few); w++) {
      for (int way = 0; way < 4; way++) {
        problem *p = mixed_problem(TARE_LOSS_SOFTMAX_CE, dtypes[way % 2 * 3], TARE_DTYPE_F32, few[w]);
        draw_kinds(p, SEVERAL);
        for (int64_t row = 0; row < p->rows; row++) {
          double *const x = p->logits + row * p->classes;
          if (row % 6 == 0) x[1] = -INFINITY; /* no target */
          if (row % 6 == 1) x[0] = -INFINITY; /* a target */
          if (row % 6 == 2) x[row % p->classes] = INFINITY;
          if (row % 6 == 3) x[0] = x[1] = INFINITY; /* no limit */
          if (row % 6 == 4) x[p->classes - 1] = NAN;
          if (row % 6 == 5 && row % 4 == 1)
            for (int64_t k = 0; k < p->classes; k++) x[k] = -INFINITY;
        }
        lie(p, way);
        p->want = WANT_GRADIENT | WANT_ROW_LOSS;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* A row with a spoilt target is named, its gradient is 0, and its neighbours are computed. */
Test(softmax_targets, spoilt_rows_among_others) {
  static const int64_t few[] = {2, 3, 21, 80, 1203, 2100};
  static const double spoilt[] = {-0.25, NAN, INFINITY};
  FOR_EACH_DEVICE(device) {
    for (int w = 0; w < COUNT(few); w++) {
      for (int way = 0; way < 6; way++) {
        problem *p = mixed_problem(TARE_LOSS_SOFTMAX_CE, TARE_DTYPE_F32, TARE_DTYPE_F32, few[w]);
        draw_kinds(p, SEVERAL);
        const int64_t row = p->rows / 2 + 1, cls = p->classes - 1;
        outcome *good = problem_run(p, device);
        for (int64_t k = 0; k < p->classes && way >= 3; k++) p->targets[row * p->classes + k] = 0;
        p->targets[row * p->classes + cls] = spoilt[way % COUNT(spoilt)];
        lie(p, way);
        outcome *got = problem_run(p, device);
        cr_assert_eq(device->kind == TARE_DEVICE_CPU ? got->status : got->check_status, TARE_STATUS_INVALID_TARGET,
                     "%s: %s", problem_text(p), got->text);
        for (int64_t i = 0; i < got->elements; i++) {
          const double want = i / p->classes == row ? 0 : good->gradient[i];
          CHECK_NEAR(problem_text(p), got->gradient[i], want, ((tolerance){4e-6, 1e-5}));
        }
        outcome_free(got);
        outcome_free(good);
        problem_free(p);
      }
    }
  }
}
