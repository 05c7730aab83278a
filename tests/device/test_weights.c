/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every weight multiplies what the header says it does: alpha, class, background, row, element and positive weights,
 * alone and together; weight 0 silences even NaN; class-balanced weights follow the effective number of samples.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/numbers.h"
#include "support/parameters.h"
#include "support/problem.h"
#include "support/random.h"

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

static void set_alpha(problem *p, double alpha) {
  switch (p->loss.kind) {
    case TARE_LOSS_SIGMOID_CE:
      p->loss.ce.alpha = alpha;
      break;
    case TARE_LOSS_SIGMOID_FOCAL:
    case TARE_LOSS_SOFTMAX_FOCAL:
      p->loss.focal.alpha = alpha;
      break;
    case TARE_LOSS_SIGMOID_POLY1:
      p->loss.poly1.alpha = alpha;
      break;
    default:
      break;
  }
}

static bool takes_alpha(int32_t kind) { return kind != TARE_LOSS_SOFTMAX_CE && !is_ghm(kind); }

static bool takes_alpha_per_class(int32_t kind) {
  tare_parameter_description parameter;
  return find_parameter(kind, "alpha_per_class", &parameter);
}

static double *random_alphas(const problem *p) {
  double *alphas = random_class_weights(p, 9);
  for (int64_t c = 0; c < p->classes; c++) alphas[c] = (double)(float)(alphas[c] / 2.2);
  alphas[0] = 0;
  if (p->classes > 1) alphas[1] = 1;
  return alphas;
}

Test(weights, alpha) {
  static const double alphas[] = {-1, 0, 0.25, 0.3, 0.5, 1};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t a = 0; a < sizeof alphas / sizeof *alphas && takes_alpha(kind); a++) {
        for (size_t d = 0; d < DTYPES; d++) {
          problem *p = problem_new(kind, dtypes[d], 300, 11);
          set_alpha(p, alphas[a]);
          CHECK_PROBLEM(p, device);
          problem_free(p);
        }
      }
    }
  }
}

/* A softmax alpha is a plain factor and may exceed 1. */
Test(weights, softmax_alpha_above_one) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_SOFTMAX_FOCAL, TARE_DTYPE_F32, 100, 5);
    set_alpha(p, 3.5);
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

Test(weights, alpha_per_class) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES && takes_alpha_per_class(kind); d++) {
        problem *p = problem_new(kind, dtypes[d], 300, 23);
        p->alpha_per_class = random_alphas(p);
        CHECK_PROBLEM(p, device);
        set_alpha(p, 0.25); /* the array stands instead of it */
        outcome *with = problem_run(p, device);
        set_alpha(p, -1);
        outcome *without = problem_run(p, device);
        CHECK_SAME_OUTCOME(p, with, without);
        outcome_free(with);
        outcome_free(without);
        problem_free(p);
      }
    }
  }
}

/* Of rows so wide that they are taken in several blocks, which weigh differently. */
Test(weights, alpha_per_class_of_wide_rows) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES && takes_alpha_per_class(kind); d++) {
        problem *p = problem_new(kind, dtypes[d], 3, 3100);
        p->alpha_per_class = random_alphas(p);
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* Each kind of weight alone, then pairs, up to all of them; what a loss does not take is left out. */
enum { ROW = 1, CLASS = 2, BACKGROUND = 4, ELEMENT = 8, POSITIVE = 16, PER_CLASS_ALPHA = 32, EVERY = 63 };

static unsigned allowed_weights(int32_t kind) {
  if (is_ghm(kind)) return ROW;
  if (is_softmax(kind)) return ROW | CLASS | BACKGROUND | (kind == TARE_LOSS_SOFTMAX_FOCAL ? PER_CLASS_ALPHA : 0);
  return EVERY;
}

static void add_weights(problem *p, unsigned which) {
  if (which & ROW) problem_draw_row_weights(p);
  if (which & CLASS) p->class_weights = random_class_weights(p, 1);
  if (which & BACKGROUND) p->background_weight = 0.625;
  if (which & ELEMENT) problem_draw_element_weights(p);
  if (which & POSITIVE) p->positive_weights = random_class_weights(p, 2);
  if (which & PER_CLASS_ALPHA) p->alpha_per_class = random_alphas(p);
}

Test(weights, every_combination) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (unsigned which = 1; which <= EVERY; which++) {
        if (which & ~allowed_weights(kind)) continue;
        if (which & PER_CLASS_ALPHA && !takes_alpha_per_class(kind)) continue;
        for (size_t d = 0; d < DTYPES; d++) {
          problem *p = problem_new(kind, dtypes[d], test_size(210, 40), 14);
          add_weights(p, which);
          CHECK_PROBLEM(p, device);
          problem_free(p);
        }
      }
    }
  }
}

/* More rows than the blocks of a small GPU count at a time: a weight is added once. */
Test(weights, sum_over_many_rows) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 20000, 1);
    problem_draw_row_weights(p);
    p->normalizer = TARE_NORMALIZER_WEIGHTS;
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

Test(weights, background_weight_zero_leaves_positives) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      if (is_ghm(kind)) continue;
      problem *p = problem_new(kind, TARE_DTYPE_F32, 100, 6);
      p->background_weight = 0;
      CHECK_PROBLEM(p, device);
      p->normalizer = TARE_NORMALIZER_WEIGHTS;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* A background that is a class of a softmax loss has that class's weight; in a sigmoid loss, the background's. */
Test(weights, background_inside_the_range) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      if (is_ghm(kind)) continue;
      problem *p = problem_new(kind, TARE_DTYPE_F32, 100, 6);
      p->background_label = 2;
      problem_draw_labels(p, 0.5, 0.1);
      p->class_weights = random_class_weights(p, 1);
      p->background_weight = 0.3;
      CHECK_PROBLEM(p, device);
      p->normalizer = TARE_NORMALIZER_WEIGHTS; /* the sum of the same weights */
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* ---- Weight 0 -------------------------------------------------------------------------------------------------- */

static void expect_zero(const double *values, int64_t count, const char *what) {
  for (int64_t i = 0; i < count; i++) {
    cr_assert(values[i] == 0, "%s: [%lld] is %g", what, (long long)i, values[i]);
  }
}

/* Row 4 is silent, full of NaN and infinities. */
static void check_silent_row(problem *p, const test_device *device) {
  static const double wild[] = {NAN, INFINITY, -INFINITY};
  for (int64_t c = 0; c < p->classes; c++) p->logits[4 * p->classes + c] = wild[c % 3];
  CHECK_PROBLEM(p, device);
  outcome *o = problem_run(p, device);
  cr_assert(isfinite(o->loss) && o->loss != 0, "%s: loss %g", problem_text(p), o->loss);
  expect_zero(o->gradient + 4 * p->classes, p->classes, problem_text(p));
  if (o->row_loss != NULL) expect_zero(o->row_loss + 4, 1, problem_text(p));
  if (o->element_loss != NULL) expect_zero(o->element_loss + 4 * p->classes, p->classes, problem_text(p));
  outcome_free(o);
  p->want = WANT_LOSS | WANT_GRADIENT; /* alone, they are computed another way */
  CHECK_PROBLEM(p, device);
}

Test(weights, row_weight_zero_silences_nan) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES; d++) {
        problem *p = problem_new(kind, dtypes[d], 20, 37);
        p->labels[4] = 1;
        p->row_weights = calloc(20, sizeof *p->row_weights);
        for (int i = 0; i < 20; i++) p->row_weights[i] = i == 4 ? 0 : 1.5;
        check_silent_row(p, device);
        problem_free(p);
      }
    }
  }
}

Test(weights, ignored_row_silences_nan) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES; d++) {
        problem *p = problem_new(kind, dtypes[d], 20, 37);
        p->labels[4] = p->ignore_label;
        check_silent_row(p, device);
        problem_free(p);
      }
    }
  }
}

/* A background row of a softmax loss does not count either, so its logits are as silent. */
Test(weights, softmax_background_silences_nan) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_SOFTMAX_FOCAL, TARE_DTYPE_F32, 20, 37);
    p->labels[4] = p->background_label;
    check_silent_row(p, device);
    problem_free(p);
  }
}

Test(weights, class_and_background_weight_zero_silence_nan) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      if (is_ghm(kind)) continue;
      problem *p = problem_new(kind, TARE_DTYPE_F32, 20, 37);
      p->class_weights = random_class_weights(p, 1);
      p->class_weights[1] = 0;
      p->labels[4] = 1;
      check_silent_row(p, device);
      p->background_weight = 0;
      p->labels[4] = p->background_label;
      check_silent_row(p, device);
      problem_free(p);
    }
  }
}

Test(weights, element_weight_zero_silences_nan) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      if (is_ghm(kind) || is_softmax(kind)) continue;
      for (size_t d = 0; d < DTYPES; d++) {
        problem *p = problem_new(kind, dtypes[d], 40, 5);
        problem_draw_element_weights(p);
        int64_t silent = 0;
        for (int64_t i = 0; i < p->rows * p->classes; i++) {
          if (p->element_weights[i] != 0) continue;
          p->logits[i] = i % 2 == 0 ? NAN : INFINITY;
          silent++;
        }
        cr_assert_gt(silent, 5);
        CHECK_PROBLEM(p, device);
        outcome *o = problem_run(p, device);
        for (int64_t i = 0; i < p->rows * p->classes; i++) {
          if (p->element_weights[i] == 0) expect_zero(o->gradient + i, 1, "element of weight 0");
        }
        outcome_free(o);
        problem_free(p);
      }
    }
  }
}

/* A weight of 0 is one however it comes about: alpha 0 silences the t = 1 elements, alpha 1 the others, a positive
 * weight of 0 its class's. */
static void check_silent_elements(problem *p, const test_device *device, bool positives) {
  int64_t silent = 0;
  for (int64_t i = 0; i < p->rows * p->classes; i++) {
    const bool positive = p->labels[i / p->classes] == i % p->classes;
    if (positive != positives) continue;
    p->logits[i] = i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : -INFINITY;
    silent++;
  }
  cr_assert_gt(silent, 5);
  CHECK_PROBLEM(p, device);
  outcome *o = problem_run(p, device);
  cr_assert(isfinite(o->loss) && o->loss != 0, "%s: loss %g", problem_text(p), o->loss);
  outcome_free(o);
  p->want = WANT_LOSS | WANT_GRADIENT; /* alone, they are computed another way */
  CHECK_PROBLEM(p, device);
  problem_free(p);
}

Test(weights, alpha_that_leaves_nothing_silences_nan) {
  static const int32_t kinds[] = {TARE_LOSS_SIGMOID_CE, TARE_LOSS_SIGMOID_FOCAL};
  FOR_EACH_DEVICE(device) {
    for (size_t k = 0; k < 2; k++) {
      for (size_t d = 0; d < DTYPES; d++) {
        for (int positives = 0; positives < 2; positives++) {
          problem *p = problem_new(kinds[k], dtypes[d], 60, 5);
          set_alpha(p, positives ? 0 : 1);
          check_silent_elements(p, device, positives == 1);
          problem *per_class = problem_new(kinds[k], dtypes[d], 60, 5);
          per_class->alpha_per_class = calloc(5, sizeof *per_class->alpha_per_class);
          for (int c = 0; c < 5; c++) per_class->alpha_per_class[c] = positives ? 0 : 1;
          check_silent_elements(per_class, device, positives == 1);
        }
      }
    }
  }
}

Test(weights, positive_weight_zero_silences_nan) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_SIGMOID_CE; kind <= TARE_LOSS_SIGMOID_POLY1; kind++) {
      problem *p = problem_new(kind, TARE_DTYPE_F32, 60, 5);
      p->positive_weights = calloc(5, sizeof *p->positive_weights);
      check_silent_elements(p, device, true);
    }
  }
}

/* Only the t = 1 elements feel a positive weight. */
Test(weights, positive_weights_leave_negatives) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 50, 8);
    outcome *plain = problem_run(p, device);
    p->positive_weights = random_class_weights(p, 2);
    outcome *weighted = problem_run(p, device);
    int64_t positives = 0;
    for (int64_t i = 0; i < p->rows * p->classes; i++) {
      const bool positive = p->labels[i / p->classes] == i % p->classes;
      const double want = plain->gradient[i] * (positive ? p->positive_weights[i % p->classes] : 1);
      CHECK_NEAR("gradient", weighted->gradient[i], want, ((tolerance){1e-36, 1e-6}));
      positives += positive;
    }
    cr_assert_gt(positives, 5);
    outcome_free(plain);
    outcome_free(weighted);
    problem_free(p);
  }
}

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
