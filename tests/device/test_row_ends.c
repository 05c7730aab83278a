/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vectors of 16 bytes that end one row and begin the next, and maps whose rows are not a whole number of vectors. Loss
 * and gradient alone are asked for, because a GPU then takes such vectors without choices. Labels stand at the first
 * and the last classes, rows with a NaN have no weight, and weights differ from row to row.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "numbers.h"
#include "parameters.h"
#include "problem.h"
#include "random.h"

static const int32_t kinds[] = {TARE_LOSS_SIGMOID_CE,        TARE_LOSS_SIGMOID_FOCAL,      TARE_LOSS_SIGMOID_POLY1,
                                TARE_LOSS_SIGMOID_VARIFOCAL, TARE_LOSS_SIGMOID_ASYMMETRIC, TARE_LOSS_GHM_C};
static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16};

/* A third of the rows with the first or the last class; every fifth row has no weight and holds a NaN. */
static void draw_rows(problem *p, bool weights) {
  if (weights) problem_draw_row_weights(p);
  for (int64_t row = 0; row < p->rows; row++) {
    const int64_t cls = row % 6 == 0 ? 0 : row % 6 == 3 ? p->classes - 1 : -1;
    p->labels[row] = cls < 0 ? p->background_label : p->first_label + cls;
    if (row % 5 != 4) continue;
    p->labels[row] = p->ignore_label;
    for (int64_t k = 0; k < p->classes; k++) p->logits[row * p->classes + k] = k % 2 ? (double)NAN : (double)-INFINITY;
  }
}

static void check_both_ways(problem *p, const test_device *device) {
  p->want = WANT_LOSS | WANT_GRADIENT;
  CHECK_PROBLEM(p, device);
  p->in_place = true;
  CHECK_PROBLEM(p, device);
  problem_free(p);
}

Test(row_ends, flat) {
  static const int64_t classes[] = {1, 3, 7, 9, 20, 81, 91, 257};
  FOR_EACH_DEVICE(device) {
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
      for (size_t n = 0; n < sizeof classes / sizeof *classes; n++) {
        problem *p = problem_new(kinds[k], dtypes[(k + n) % 3], 8192 / classes[n] > 70 ? 70 : 29, classes[n]);
        draw_rows(p, kinds[k] != TARE_LOSS_GHM_C && n % 2);
        check_both_ways(p, device);
      }
    }
  }
}

static double *random_between(int64_t n, double low, double high, uint64_t salt) {
  random_source random = random_from(salt);
  double *numbers = malloc((size_t)n * sizeof *numbers);
  for (int64_t i = 0; i < n; i++) numbers[i] = (double)(float)(low + (high - low) * random_uniform(&random));
  return numbers;
}

/* Of elements, some 0; an alpha of each class, 0 and 1 among them; positive weights; all at once. */
Test(row_ends, weights) {
  static const int64_t classes[] = {8, 20, 91};
  FOR_EACH_DEVICE(device) {
    for (size_t k = 0; k < 4; k++) {
      for (int which = 1; which < 8; which++) {
        problem *p = problem_new(kinds[k], dtypes[(k + (size_t)which) % 3], 35, classes[which % 3]);
        draw_rows(p, which % 2);
        if (which & 1) problem_draw_element_weights(p);
        if (which & 2 && kinds[k] != TARE_LOSS_SIGMOID_VARIFOCAL)
          p->alpha_per_class = random_between(p->classes, 0, 1, 7), p->alpha_per_class[1] = 1,
          p->alpha_per_class[2] = 0;
        if (which & 4) p->positive_weights = random_between(p->classes, 0.5, 3, 8);
        check_both_ways(p, device);
      }
    }
  }
}

/* A weight that is no factor of the gradient, beside others: these elements go another way. */
Test(row_ends, large_weights) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 30, 21);
    draw_rows(p, false);
    problem_draw_element_weights(p);
    p->gradient_scale = 1e10;
    for (int64_t row = 0; row < p->rows; row++) p->labels[row] = p->background_label;
    for (int64_t i = 0; i < p->rows * p->classes; i += 37) p->element_weights[i] = (double)3e30f, p->logits[i] = -40;
    check_both_ways(p, device);
  }
}

Test(row_ends, odd_maps) {
  static const int64_t classes[] = {1, 3, 8, 11, 20};
  static const level_shape maps[] = {{7, 5, 1}, {1, 3, 3}, {19, 19, 2}};
  FOR_EACH_DEVICE(device) {
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
      for (size_t n = 0; n < sizeof classes / sizeof *classes; n++) {
        problem *p = problem_new_levels(kinds[k], dtypes[(k + n) % 3], 2, classes[n], n % 2 ? 2 : 3, maps);
        draw_rows(p, kinds[k] != TARE_LOSS_GHM_C && n % 2);
        for (int kind = 0; kind < ARRAY_KINDS; kind++) p->place[kind].channels_first = !is_row_array(kind);
        check_both_ways(p, device);
      }
    }
  }
}

/* Dense targets that are mostly 0 or -0; rows without a weight hold a NaN. */
Test(row_ends, few_targets) {
  static const int64_t classes[] = {1, 3, 20, 91};
  FOR_EACH_DEVICE(device) {
    for (size_t k = 0; k < 5; k++) {
      for (size_t n = 0; n < sizeof classes / sizeof *classes; n++) {
        problem *p = problem_new(kinds[k], dtypes[(k + n) % 3], 45, classes[n]);
        problem_draw_targets(p, n % 2 ? TARE_DTYPE_F32 : p->dtype);
        for (int64_t i = 0; i < p->rows * p->classes; i++)
          if (i / 8 % 4) p->targets[i] = i % 3 ? 0.0 : -0.0;
        if (n % 2) {
          problem_draw_row_weights(p);
          for (int64_t row = 4; row < p->rows; row += 5) {
            p->row_weights[row] = 0;
            for (int64_t c = 0; c < p->classes; c++) p->logits[row * p->classes + c] = c % 2 ? (double)NAN : 3;
          }
        }
        p->slack = 2e-5; /* of targets between 0 and 1 */
        check_both_ways(p, device);
      }
    }
  }
}

/* Dense targets of any kind, which a GPU takes in pieces of a vector, beside rows of many lengths. */
Test(row_ends, targets) {
  static const int64_t classes[] = {1, 3, 7, 20, 80, 81, 90, 91, 100, 365, 1203};
  static const int32_t target_dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_BF16, TARE_DTYPE_F16};
  FOR_EACH_DEVICE(device) {
    for (size_t n = 0; n < sizeof classes / sizeof *classes; n++) {
      for (size_t k = 0; k < 6; k++) {
        problem *p = problem_new(kinds[k % 2], dtypes[k % 3], 2 + 2000 / classes[n] % 41, classes[n]);
        problem_draw_targets(p, target_dtypes[(k + n) % 3]);
        if (n % 2) problem_draw_row_weights(p);
        p->slack = 2e-5; /* of targets between 0 and 1 */
        check_both_ways(p, device);
      }
    }
  }
}

/* Most negatives lie below the margin of asymmetric loss, where loss and gradient are 0: in some maps nearly all do, in
 * others half. Some lie on it. */
Test(row_ends, few_above_the_margin) {
  static const int64_t classes[] = {1, 3, 20, 91};
  FOR_EACH_DEVICE(device) {
    for (size_t n = 0; n < sizeof classes / sizeof *classes; n++) {
      for (int every = 1; every < 40; every = 3 * every + 1) {
        problem *p = problem_new(TARE_LOSS_SIGMOID_ASYMMETRIC, dtypes[(n + (size_t)every) % 3], 61, classes[n]);
        for (int64_t i = 0; i < p->rows * p->classes; i++)
          if (i % every) p->logits[i] = round_to_dtype(p->dtype, i % 5 ? -3 - (double)(i % 7) : -2.9444389791664403);
        draw_rows(p, n % 2);
        check_both_ways(p, device);
      }
    }
  }
}

/* Losses of rows: a warp takes a row, and only its label's element is looked at by itself; or rows are taken together,
 * some tiles of them, unless a class is alone. One loss is too large to be added to others as a float. */
Test(row_ends, row_losses) {
  static const int64_t classes[] = {1, 20, 91};
  FOR_EACH_DEVICE(device) {
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
      for (size_t n = 0; n < sizeof classes / sizeof *classes; n++) {
        problem *p = problem_new(kinds[k], dtypes[(k + n) % 3], n == 2 ? 101 : 35, classes[n]);
        draw_rows(p, kinds[k] != TARE_LOSS_GHM_C && n % 2);
        if (n == 1 && p->dtype != TARE_DTYPE_F16 && kinds[k] != TARE_LOSS_GHM_C)
          p->logits[30] = round_to_dtype(p->dtype, 2e30);
        p->in_place = n == 2;
        p->want = WANT_LOSS | WANT_GRADIENT | WANT_ROW_LOSS;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}
