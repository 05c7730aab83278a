/* SPDX-License-Identifier: Apache-2.0 */
/* Weights from the effective number of samples. */
#include "weights.h"

/* ---- Class-balanced weights ------------------------------------------------------------------------------------ */

Test(weights, effective_numbers) {
  static const double betas[] = {0, 5e-324, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.999999, 0.999999999, 1 - 1e-16};
  static const double counts[] = {0,  1e-320, 1e-300, 1e-20, 1e-10, 0.5,  1,      2,
                                  10, 500,    1e4,    1e6,   1e9,   1e15, 0x1p63, 1e308};
  for (size_t b = 0; b < sizeof betas / sizeof *betas; b++) {
    for (size_t n = 0; n < sizeof counts / sizeof *counts; n++) {
      double got = NAN;
      cr_assert_eq(tare_effective_number(counts[n], betas[b], &got), TARE_STATUS_OK, "%s", tare_error_text(NULL));
      CHECK_NEAR("effective number", got, oracle_effective_number(counts[n], betas[b]), ((tolerance){5e-324, 1e-14}));
    }
  }
}

/* What the paper's limits say: E = 1 at beta 0, E -> n as beta -> 1, E_1 = 1. */
Test(weights, effective_numbers_at_the_limits) {
  double number = 0;
  cr_assert_eq(tare_effective_number(1000, 0, &number), TARE_STATUS_OK);
  CHECK_NEAR("beta 0", number, 1, ((tolerance){0, 1e-15}));
  cr_assert_eq(tare_effective_number(1, 0.999, &number), TARE_STATUS_OK);
  CHECK_NEAR("one sample", number, 1, ((tolerance){0, 1e-12}));
  cr_assert_eq(tare_effective_number(100, 1 - 0x1p-53, &number), TARE_STATUS_OK);
  CHECK_NEAR("beta next to 1", number, 100, ((tolerance){0, 1e-12}));
  cr_assert_eq(tare_effective_number(0, 0, &number), TARE_STATUS_OK);
  cr_assert_eq(number, 0);
}

Test(weights, betas_from_volumes) {
  static const double volumes[] = {1, 1.5, 2, 10, 1e4, 1e12};
  for (size_t v = 0; v < sizeof volumes / sizeof *volumes; v++) {
    double beta = NAN;
    cr_assert_eq(tare_beta_from_volume(volumes[v], &beta), TARE_STATUS_OK);
    CHECK_NEAR("beta", beta, (volumes[v] - 1) / volumes[v], ((tolerance){0, 1e-15}));
  }
}

static void check_balanced(int64_t classes, const int64_t *counts, double beta, const double *betas) {
  float *got = calloc((size_t)classes, sizeof *got);
  double *values = calloc((size_t)classes, sizeof *values);
  double *want = calloc((size_t)classes, sizeof *want);
  double sum = 0;
  int64_t present = 0;
  cr_assert_eq(tare_class_balanced_weights(classes, counts, beta, betas, got), TARE_STATUS_OK, "%s",
               tare_error_text(NULL));
  oracle_class_balanced(classes, counts, beta, betas, want);
  for (int64_t c = 0; c < classes; c++) {
    values[c] = (double)got[c];
    sum += values[c];
    present += counts[c] > 0;
    if (counts[c] == 0) cr_assert_eq(got[c], 0.0f, "a class that does not occur");
  }
  CHECK_CLOSE("weights", values, want, (size_t)classes, ((tolerance){0, 1e-7}));
  CHECK_NEAR("sum", sum, (double)present, ((tolerance){0, 1e-6}));
  free(got);
  free(values);
  free(want);
}

Test(weights, class_balanced) {
  static const int64_t even[] = {7, 7, 7};
  static const int64_t tail[] = {1169, 90, 28};
  static const int64_t zeros[] = {0, 500, 0, 3, 0};
  static const int64_t huge[] = {INT64_C(1) << 60, 1, 1000000};
  static const double betas[] = {0, 0.9, 0.99, 0.999, 0.9999, 0.999999};
  for (size_t b = 0; b < sizeof betas / sizeof *betas; b++) {
    check_balanced(3, even, betas[b], NULL);
    check_balanced(3, tail, betas[b], NULL);
    check_balanced(5, zeros, betas[b], NULL);
    check_balanced(3, huge, betas[b], NULL);
    check_balanced(1, tail, betas[b], NULL);
  }
  check_balanced(3, tail, 0.5, (const double[]){0.999, 0, 0.9});
  check_balanced(5, zeros, 7, (const double[]){0.999, 0.1, 0.9, 0.99, 0}); /* beta itself is not looked at */
}

/* Long tail: the counts of 1,203 classes falling from 1,977 to 1. */
Test(weights, class_balanced_long_tail) {
  enum { CATEGORIES = 1203 };
  static int64_t counts[CATEGORIES];
  random_source source = random_from(12);
  for (int i = 0; i < CATEGORIES; i++) counts[i] = 1 + (int64_t)(1976 * pow(random_uniform(&source), 4));
  check_balanced(CATEGORIES, counts, 0.999, NULL);
}

/* Counts that are real numbers, from the smallest double to the largest. */
static void check_balanced_real(int64_t classes, const double *counts, double beta, const double *betas) {
  float got[8];
  double values[8], want[8], sum = 0;
  int64_t present = 0;
  cr_assert_eq(tare_class_balanced_weights_real(classes, counts, beta, betas, got), TARE_STATUS_OK, "%s",
               tare_error_text(NULL));
  oracle_class_balanced_real(classes, counts, beta, betas, want);
  for (int64_t c = 0; c < classes; c++) {
    values[c] = (double)got[c];
    sum += values[c];
    present += counts[c] > 0;
    if (counts[c] == 0) cr_assert_eq(got[c], 0.0f, "a class that does not occur");
  }
  CHECK_CLOSE("weights", values, want, (size_t)classes, ((tolerance){0x1p-149, 1e-7}));
  CHECK_NEAR("sum", sum, (double)present, ((tolerance){0, 1e-6}));
}

Test(weights, class_balanced_by_real_counts) {
  static const double betas[] = {0, 5e-324, 1e-300, 0.5, 0.9, 0.999, 0.999999, 1 - 1e-16};
  static const double sets[][4] = {
      {1169, 90, 28, 0},
      {0.5, 0.25, 3.75, 1e3},
      {0x1p63, 1, 1000, 0x1p53},
      {1e308, 1e308, 1, 2},
      {1e-300, 1e-300, 0, 0},
      {1e-300, 1, 1000, 1e-299},
      {5e-324, 1e-310, 0, 1},
      {5e-324, 5e-324, 1e-323, 0},
      {1e308, 5e-324, -0.0, 1e-20},
      {1.7976931348623157e308, 1, 1, 1},
  };
  for (size_t b = 0; b < sizeof betas / sizeof *betas; b++) {
    for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) check_balanced_real(4, sets[s], betas[b], NULL);
  }
  check_balanced_real(3, (const double[]){0.7, 1e-12, 40.5}, 0.5, (const double[]){0.999, 1 - 1e-16, 0});
}

Test(weights, whole_counts_weigh_the_same_in_both_calls) {
  enum { CLASSES = 40 };
  static const double betas[] = {0, 0.9, 0.99, 0.999, 0.9999, 0.999999, 1 - 0x1p-53};
  random_source source = random_from(31);
  for (size_t b = 0; b < sizeof betas / sizeof *betas; b++) {
    int64_t counts[CLASSES];
    double real[CLASSES];
    float of_counts[CLASSES], of_real[CLASSES];
    for (int c = 0; c < CLASSES; c++) {
      counts[c] = (int64_t)exp2(53 * random_uniform(&source)) - (c % 5 == 0);
      real[c] = (double)counts[c];
    }
    cr_assert_eq(tare_class_balanced_weights(CLASSES, counts, betas[b], NULL, of_counts), TARE_STATUS_OK);
    cr_assert_eq(tare_class_balanced_weights_real(CLASSES, real, betas[b], NULL, of_real), TARE_STATUS_OK);
    cr_assert_arr_eq(of_counts, of_real, sizeof of_counts, "beta %.17g", betas[b]);
  }
}

/* beta 0 weighs every present class 1, so the weighted loss is the unweighted one; see test_identities. Here: the
 * weights on each loss that takes them, against the oracle. */
Test(weights, class_balanced_on_each_loss) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      if (is_ghm(kind)) continue;
      problem *p = problem_new(kind, TARE_DTYPE_F32, 400, 5);
      int64_t counts[5] = {0};
      for (int64_t i = 0; i < p->rows; i++) {
        if (p->labels[i] >= 0) counts[p->labels[i]]++;
      }
      float weights[5];
      cr_assert_eq(tare_class_balanced_weights(5, counts, 0.999, NULL, weights), TARE_STATUS_OK);
      p->class_weights = calloc(5, sizeof *p->class_weights);
      for (int c = 0; c < 5; c++) p->class_weights[c] = (double)weights[c];
      p->background_weight = 0.2;
      for (int32_t normalizer = TARE_NORMALIZER_SUM; normalizer <= TARE_NORMALIZER_WEIGHTS; normalizer++) {
        p->normalizer = normalizer;
        CHECK_PROBLEM(p, device);
      }
      problem_free(p);
    }
  }
}
