/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Softmax rows on both sides of each width at which a GPU takes them another way, wherever they begin and end in
 * memory: rows of whole vectors and others, that follow each other or not, with a gradient that lies as they do or not.
 * Labels stand at the first and the last classes. Rows with a NaN have no weight.
 */
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>

#include "support/numbers.h"
#include "support/problem.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16};
static const int32_t kinds[] = {TARE_LOSS_SOFTMAX_CE,   TARE_LOSS_SOFTMAX_FOCAL, TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED,
                                TARE_LOSS_SOFTMAX_LDAM, TARE_LOSS_SOFTMAX_CE,    TARE_LOSS_SOFTMAX_SEESAW};
static const int64_t widths[] = {1,   2,   3,   4,   8,   17,  20,  21,   33,   40,   44,   46,   47,
                                 48,  64,  80,  81,  88,  91,  92,  93,   94,   100,  128,  180,  184,
                                 187, 188, 365, 374, 375, 748, 749, 1203, 1495, 1496, 1497, 1500, 2051};

enum way { TOGETHER, SHIFTED, SHIFTED_APART, APART, APART_IN_VECTORS, IN_PLACE, WAYS };

static void draw_rows(problem *p) {
  for (int64_t row = 0; row < p->rows; row++) {
    double *const x = p->logits + row * p->classes;
    p->labels[row] = p->first_label + (row % 3 == 0 ? 0 : row % 3 == 1 ? p->classes - 1 : (row * 7) % p->classes);
    if (row % 7 == 3) x[(row * 5) % p->classes] = -INFINITY;
    if (row % 5 != 4) continue;
    p->labels[row] = p->ignore_label;
    for (int64_t k = 0; k < p->classes; k++) x[k] = k % 2 ? (double)NAN : (double)-INFINITY;
  }
}

static void lie(problem *p, enum way way) {
  p->in_place = way == IN_PLACE || way == APART_IN_VECTORS;
  placement *const logits = &p->place[ARRAY_LOGITS], *const gradient = &p->place[ARRAY_GRADIENT];
  if (way == SHIFTED || way == SHIFTED_APART) logits->phase = gradient->phase = 1 + p->classes % 3;
  if (way == SHIFTED_APART) gradient->phase = 0;
  if (way == APART) logits->pad[AXIS_CLASS] = 3, gradient->pad[AXIS_CLASS] = 1;
  if (way == APART_IN_VECTORS) logits->pad[AXIS_CLASS] = gradient->pad[AXIS_CLASS] = 8;
}

static void check_width(const test_device *device, int64_t classes, int n) {
  for (int k = 0; k < COUNT(kinds); k++) {
    const int64_t rows = classes < 100 ? 141 : classes < 400 ? 37 : 11;
    problem *p = problem_new(kinds[k], dtypes[(k + n) % COUNT(dtypes)], rows, classes);
    draw_rows(p);
    if (k == 4) p->loss.ce.z_loss = 0.001;
    if (k == 4 && n % 2) p->loss.ce.label_smoothing = 0.1, p->slack = 1e-6; /* of terms that cancel */
    lie(p, (enum way)((k + n / COUNT(dtypes)) % WAYS));
    p->want = WANT_LOSS | WANT_GRADIENT | (n % 2 ? WANT_ROW_LOSS : 0);
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

Test(softmax_rows, widths) {
  FOR_EACH_DEVICE(device) {
    for (int w = 0; w < COUNT(widths); w++)
      for (int n = w; n < w + (int)test_size(9, 3); n++) check_width(device, widths[w], n);
  }
}

/* The gradient's bits do not depend on where the rows lie. */
Test(softmax_rows, same_bits_in_every_place) {
  static const int64_t few[] = {4, 20, 33, 80, 81, 100, 365};
  FOR_EACH_DEVICE(device) {
    for (int w = 0; w < COUNT(few); w++) {
      for (int k = 0; k < COUNT(kinds); k++) {
        problem *p = problem_new(kinds[k], dtypes[(k + w) % COUNT(dtypes)], 41, few[w]);
        outcome *want = problem_run(p, device);
        for (enum way way = SHIFTED; way < WAYS; way++) {
          p->place[ARRAY_LOGITS] = p->place[ARRAY_GRADIENT] = (placement){0};
          lie(p, way);
          outcome *got = problem_run(p, device);
          CHECK_SAME_OUTCOME(p, got, want);
          outcome_free(got);
        }
        outcome_free(want);
        problem_free(p);
      }
    }
  }
}

/* Logits of finite size whose difference is as large as a float can be, or larger. */
Test(softmax_rows, far_below_the_maximum) {
  static const double far[] = {-FLT_MAX, -2.5e38, -1e38, 3e38, -1e4, -88.5, -87.0};
  static const int64_t few[] = {3, 21, 81, 128, 1203, 1497};
  FOR_EACH_DEVICE(device) {
    for (int w = 0; w < COUNT(few); w++) {
      for (int k = 0; k < COUNT(kinds); k++) {
        problem *p = problem_new(kinds[k], TARE_DTYPE_F32, 23, few[w]);
        for (int64_t row = 0; row < p->rows; row++) {
          double *const x = p->logits + row * p->classes;
          p->labels[row] = p->first_label + (row * 5 + 2) % p->classes;
          x[row % p->classes] = (float)far[row % COUNT(far)];
          if (row % 3 == 0) x[(row + 1) % p->classes] = (float)far[row / 3 % COUNT(far)];
        }
        if (w % 2) lie(p, APART);
        p->want = WANT_GRADIENT; /* a label far below has a loss that is no float */
        outcome *got = problem_run(p, device), *want = problem_expect(p);
        cr_assert_eq(got->status, TARE_STATUS_OK, "%s", got->text);
        for (int64_t i = 0; i < got->elements; i++)
          CHECK_NEAR(problem_text(p), got->gradient[i], want->gradient[i], ((tolerance){1e-6, 1e-4}));
        outcome_free(got);
        outcome_free(want);
        problem_free(p);
      }
    }
  }
}

/* A label that is nearly certain, and a class that is nearly nothing beside the others. Their product is smaller than a
 * normal float, and the scale is larger than any. */
Test(softmax_rows, small_products_and_a_large_scale) {
  static const int64_t few[] = {3, 20, 81, 1203, 1600};
  FOR_EACH_DEVICE(device) {
    for (int w = 0; w < COUNT(few); w++) {
      for (enum way way = TOGETHER; way < WAYS; way++) {
        problem *p = problem_new(TARE_LOSS_SOFTMAX_CE, TARE_DTYPE_F32, 9, few[w]);
        for (int64_t row = 0; row < p->rows; row++) {
          double *const x = p->logits + row * p->classes;
          const int64_t label = row % p->classes;
          p->labels[row] = p->first_label + label;
          for (int64_t k = 0; k < p->classes; k++) x[k] = k == label ? 45 : k == (label + 1) % p->classes ? -45 : 0;
        }
        lie(p, way);
        p->want = WANT_GRADIENT;
        p->normalizer = TARE_NORMALIZER_VALUE;
        p->normalizer_value = 1e-10;
        p->gradient_scale = 1e30;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* All rows but one are skipped, or all of them. */
Test(softmax_rows, few_have_a_weight) {
  FOR_EACH_DEVICE(device) {
    for (int64_t labelled = 0; labelled < 2; labelled++) {
      for (int k = 0; k < COUNT(kinds); k++) {
        problem *p = problem_new(kinds[k], dtypes[k % COUNT(dtypes)], 67, k % 2 ? 80 : 21);
        for (int64_t row = labelled; row < p->rows; row++) p->labels[row] = p->ignore_label;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* Planes of classes of which few rows have a label. The others' logits are NaN or infinite, and their gradient is 0. */
Test(softmax_rows, few_of_planes_have_a_label) {
  static const int64_t few[] = {2, 7, 21, 80, 260};
  FOR_EACH_DEVICE(device) {
    for (int w = 0; w < COUNT(few); w++) {
      for (int k = 0; k < COUNT(kinds); k++) {
        const level_shape shapes[] = {{7, 19, 1}, {3, 5, 1}};
        problem *p = problem_new_levels(kinds[k], dtypes[(k + w) % COUNT(dtypes)], 2, few[w], 2, shapes);
        draw_rows(p);
        for (int64_t row = 0; row < p->rows; row++)
          if (row % 23 != 5) p->labels[row] = p->ignore_label;
        p->place[ARRAY_LOGITS].channels_first = true;
        p->place[ARRAY_GRADIENT].channels_first = (k + w) % 3 != 0;
        if ((k + w) % 3 == 1) p->place[ARRAY_GRADIENT].pad[AXIS_X] = 1;
        p->in_place = (k + w) % 3 == 2;
        if (k == 4) p->loss.ce.z_loss = 0.001;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}
