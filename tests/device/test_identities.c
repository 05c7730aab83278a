/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must hold between losses, whatever the oracle says: special cases of one loss are another, and a gradient is
 * the slope of its loss.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/problem.h"
#include "support/random.h"

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
enum { DTYPES = sizeof dtypes / sizeof *dtypes, ROWS = 400, CLASSES = 9 };

/* Runs both and compares the second with the first, in the first's tolerances. */
static void expect_equal(problem *p, problem *q, const test_device *device) {
  outcome *a = problem_run(p, device);
  outcome *b = problem_run(q, device);
  cr_assert_eq(a->status, TARE_STATUS_OK, "%s", a->text);
  cr_assert(a->loss != 0 && isfinite(a->loss), "%s: loss %g", problem_text(p), a->loss);
  CHECK_OUTCOME(p, b, a);
  outcome_free(a);
  outcome_free(b);
  problem_free(p);
  problem_free(q);
}

/* ---- Focal ----------------------------------------------------------------------------------------------------- */

Test(identities, focal_of_gamma_0_is_balanced_cross_entropy) {
  static const double alphas[] = {-1, 0.25, 0.7};
  FOR_EACH_DEVICE(device) {
    for (size_t d = 0; d < DTYPES; d++) {
      for (size_t a = 0; a < 3; a++) {
        problem *focal = problem_new(TARE_LOSS_SIGMOID_FOCAL, dtypes[d], ROWS, CLASSES);
        problem *ce = problem_new(TARE_LOSS_SIGMOID_CE, dtypes[d], ROWS, CLASSES);
        focal->loss.focal.gamma = 0;
        focal->loss.focal.alpha = alphas[a];
        ce->loss.ce.alpha = alphas[a];
        expect_equal(focal, ce, device);
      }
    }
  }
}

Test(identities, softmax_focal_of_gamma_0_is_cross_entropy) {
  FOR_EACH_DEVICE(device) {
    for (size_t d = 0; d < DTYPES; d++) {
      problem *focal = problem_new(TARE_LOSS_SOFTMAX_FOCAL, dtypes[d], ROWS, CLASSES);
      problem *ce = problem_new(TARE_LOSS_SOFTMAX_CE, dtypes[d], ROWS, CLASSES);
      focal->loss.focal.gamma = 0;
      expect_equal(focal, ce, device);
    }
  }
}

Test(identities, poly1_of_epsilon_0_is_focal) {
  static const double gammas[] = {0, 0.5, 1, 1.5, 2, 3.7, 5};
  FOR_EACH_DEVICE(device) {
    for (size_t d = 0; d < DTYPES; d++) {
      for (size_t g = 0; g < sizeof gammas / sizeof *gammas; g++) {
        problem *poly = problem_new(TARE_LOSS_SIGMOID_POLY1, dtypes[d], ROWS, CLASSES);
        problem *focal = problem_new(TARE_LOSS_SIGMOID_FOCAL, dtypes[d], ROWS, CLASSES);
        poly->loss.poly1.epsilon = 0;
        poly->loss.poly1.gamma = focal->loss.focal.gamma = gammas[g];
        poly->loss.poly1.alpha = focal->loss.focal.alpha = 0.25;
        expect_equal(poly, focal, device);
      }
    }
  }
}

/* A power that has its own code and the general one next to it agree: nothing jumps at 0.5, 1, 1.5, 2. */
Test(identities, powers_are_continuous) {
  static const double gammas[] = {0.5, 1, 1.5, 2};
  FOR_EACH_DEVICE(device) {
    for (size_t g = 0; g < sizeof gammas / sizeof *gammas; g++) {
      problem *exact = problem_new(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F64, ROWS, CLASSES);
      problem *near = problem_new(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F64, ROWS, CLASSES);
      exact->loss.focal.gamma = gammas[g];
      near->loss.focal.gamma = gammas[g] * (1 + 0x1p-52);
      expect_equal(exact, near, device);
    }
  }
}

/* ---- Softmax and sigmoid --------------------------------------------------------------------------------------- */

/* A softmax over [x, 0] is a sigmoid of x: row by row, with class 0 as t = 1. */
Test(identities, softmax_of_two_is_sigmoid_of_the_difference) {
  static const double gammas[] = {0, 0.5, 1, 1.5, 2, 3.7};
  FOR_EACH_DEVICE(device) {
    for (size_t g = 0; g < sizeof gammas / sizeof *gammas; g++) {
      problem *softmax = problem_new(TARE_LOSS_SOFTMAX_FOCAL, TARE_DTYPE_F32, ROWS, 2);
      problem *sigmoid = problem_new(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, ROWS, 1);
      softmax->loss.focal.gamma = sigmoid->loss.focal.gamma = gammas[g];
      sigmoid->loss.focal.alpha = -1;
      for (int64_t i = 0; i < ROWS; i++) {
        const bool first = softmax->labels[i] == 0;
        softmax->labels[i] = first ? 0 : 1;
        sigmoid->labels[i] = first ? 0 : -1;
        sigmoid->logits[i] = (double)(float)(softmax->logits[2 * i] - softmax->logits[2 * i + 1]);
        softmax->logits[2 * i] = sigmoid->logits[i];
        softmax->logits[2 * i + 1] = 0;
      }
      outcome *a = problem_run(softmax, device);
      outcome *b = problem_run(sigmoid, device);
      CHECK_CLOSE("row loss", a->row_loss, b->row_loss, ROWS, row_tolerance(softmax));
      CHECK_NEAR("loss", a->loss, b->loss, ((tolerance){0, 1e-6}));
      double first[ROWS], second[ROWS];
      for (int i = 0; i < ROWS; i++) {
        first[i] = a->gradient[2 * i];
        second[i] = -a->gradient[2 * i + 1];
      }
      CHECK_CLOSE("gradient of the first", first, b->gradient, ROWS, gradient_tolerance(softmax));
      CHECK_CLOSE("gradient of the second", second, b->gradient, ROWS, gradient_tolerance(softmax));
      outcome_free(a);
      outcome_free(b);
      problem_free(softmax);
      problem_free(sigmoid);
    }
  }
}

/* The gradient of a softmax row sums to 0. */
Test(identities, softmax_gradients_sum_to_zero) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_SOFTMAX_CE; kind <= TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED; kind++) {
      problem *p = problem_new(kind, TARE_DTYPE_F64, ROWS, 81);
      outcome *o = problem_run(p, device);
      for (int64_t row = 0; row < ROWS; row++) {
        double sum = 0;
        for (int c = 0; c < 81; c++) sum += o->gradient[row * 81 + c];
        CHECK_NEAR("sum of a row", sum, 0, ((tolerance){1e-13, 0}));
      }
      outcome_free(o);
      problem_free(p);
    }
  }
}

/* Classes are only names: a permutation of the columns permutes the result. */
Test(identities, class_order_does_not_matter) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = problem_new(kind, TARE_DTYPE_F64, ROWS, CLASSES);
      p->loss_dtype = TARE_DTYPE_F64;
      outcome *straight = problem_run(p, device);
      p->place[ARRAY_LOGITS].flip = p->place[ARRAY_GRADIENT].flip = 1u << AXIS_CLASS;
      p->place[ARRAY_TARGETS].flip = p->place[ARRAY_ELEMENT_LOSS].flip = 1u << AXIS_CLASS;
      outcome *flipped = problem_run(p, device);
      CHECK_OUTCOME(p, flipped, straight);
      outcome_free(straight);
      outcome_free(flipped);
      problem_free(p);
    }
  }
}

/* ---- Weights --------------------------------------------------------------------------------------------------- */

Test(identities, balanced_weights_of_beta_0_are_no_weights) {
  static const int64_t counts[CLASSES] = {1000, 100, 10, 1, 5, 6, 7, 8, 123456789};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      if (is_ghm(kind)) continue;
      for (size_t d = 0; d < DTYPES; d++) {
        problem *plain = problem_new(kind, dtypes[d], ROWS, CLASSES);
        problem *balanced = problem_new(kind, dtypes[d], ROWS, CLASSES);
        float weights[CLASSES];
        cr_assert_eq(tare_class_balanced_weights(CLASSES, counts, 0, NULL, weights), TARE_STATUS_OK);
        balanced->class_weights = calloc(CLASSES, sizeof *balanced->class_weights);
        for (int c = 0; c < CLASSES; c++) {
          cr_assert_eq(weights[c], 1.0f);
          balanced->class_weights[c] = 1;
        }
        expect_equal(plain, balanced, device);
      }
    }
  }
}

/* A positive weight is an element weight of the label's element. */
Test(identities, positive_weights_are_element_weights) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_SIGMOID_CE; kind <= TARE_LOSS_SIGMOID_POLY1; kind++) {
      problem *positive = problem_new(kind, TARE_DTYPE_F32, ROWS, CLASSES);
      problem *element = problem_new(kind, TARE_DTYPE_F32, ROWS, CLASSES);
      positive->positive_weights = random_class_weights(positive, 2);
      element->element_weights = calloc(ROWS * CLASSES, sizeof *element->element_weights);
      for (int i = 0; i < ROWS * CLASSES; i++) {
        const bool label = element->labels[i / CLASSES] == i % CLASSES;
        element->element_weights[i] = label ? positive->positive_weights[i % CLASSES] : 1;
      }
      expect_equal(positive, element, device);
    }
  }
}

/* A class weight is a row weight of the class's rows. */
Test(identities, class_weights_are_row_weights) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      if (is_ghm(kind)) continue;
      problem *by_class = problem_new(kind, TARE_DTYPE_F32, ROWS, CLASSES);
      problem *by_row = problem_new(kind, TARE_DTYPE_F32, ROWS, CLASSES);
      by_class->class_weights = random_class_weights(by_class, 1);
      by_class->background_weight = 0.375;
      by_row->row_weights = calloc(ROWS, sizeof *by_row->row_weights);
      for (int i = 0; i < ROWS; i++) {
        const int64_t y = by_row->labels[i];
        by_row->row_weights[i] = y >= 0 ? by_class->class_weights[y] : y == -1 ? 0.375 : 1;
      }
      by_class->normalizer = by_row->normalizer = TARE_NORMALIZER_WEIGHTS;
      expect_equal(by_class, by_row, device);
    }
  }
}

/* ---- GHM ------------------------------------------------------------------------------------------------------- */

/* The mean over the elements that count, which the one region's density leaves of the loss. */
static problem *mean_cross_entropy(const problem *ghm) {
  problem *ce = problem_new(TARE_LOSS_SIGMOID_CE, ghm->dtype, ROWS, CLASSES);
  ce->normalizer = TARE_NORMALIZER_ELEMENTS;
  ce->want = WANT_LOSS | WANT_GRADIENT | WANT_COUNTS;
  return ce;
}

Test(identities, ghm_of_one_bin_is_mean_cross_entropy) {
  FOR_EACH_DEVICE(device) {
    for (size_t d = 0; d < DTYPES; d++) {
      problem *ghm = problem_new(TARE_LOSS_GHM_C, dtypes[d], ROWS, CLASSES);
      ghm->loss.ghm.bins = 1;
      ghm->want = WANT_LOSS | WANT_GRADIENT | WANT_COUNTS;
      expect_equal(ghm, mean_cross_entropy(ghm), device);
    }
  }
}

/* A window as wide as [0,1] on either side holds every element. */
Test(identities, exact_density_of_epsilon_2_is_mean_cross_entropy) {
  FOR_EACH_DEVICE(device) {
    for (size_t d = 0; d < DTYPES; d++) {
      problem *ghm = problem_new(TARE_LOSS_GHM_C, dtypes[d], ROWS, CLASSES);
      ghm->loss.ghm.density = TARE_GHM_DENSITY_EXACT;
      ghm->loss.ghm.epsilon = 2;
      ghm->want = WANT_LOSS | WANT_GRADIENT | WANT_COUNTS;
      expect_equal(ghm, mean_cross_entropy(ghm), device);
    }
  }
}

/* Summed over the elements, (1/GD)*(number in the bin) is 1/bins a bin that is not empty. */
Test(identities, ghm_weighs_every_region_the_same) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_GHM_C, TARE_DTYPE_F64, ROWS, CLASSES);
    problem_add_ghm_state(p);
    outcome *o = problem_run(p, device);
    cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
    const int bins = p->loss.ghm.bins;
    int filled = 0;
    for (int k = 0; k < bins; k++) {
      double inverse;
      memcpy(&inverse, &p->ghm_state[2 + 2 * bins + k], sizeof inverse);
      const double count = (double)(int64_t)p->ghm_state[2 + k];
      if (count > 0) CHECK_NEAR("mass of a bin", inverse * count * bins, 1, ((tolerance){0, 1e-14}));
      if (count == 0) cr_assert_eq(inverse, 0.0);
      filled += count > 0;
    }
    cr_assert_gt(filled, bins / 2);
    outcome_free(o);
    problem_free(p);
  }
}

/* ---- Slopes ---------------------------------------------------------------------------------------------------- */

/* No kinks to leave out: every loss is smooth in its logits, and GHM's density, which jumps, is held where it is. */

static double loss_with(problem *p, const test_device *device, int64_t i, double x) {
  const double kept = p->logits[i];
  p->logits[i] = x;
  outcome *o = problem_run(p, device);
  const double loss = o->loss;
  cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
  outcome_free(o);
  p->logits[i] = kept;
  return loss;
}

/* Central differences of the loss in double, of few rows so that no digits are lost. */
static void check_slopes(problem *p, const test_device *device) {
  const double h = 1e-5;
  p->loss_dtype = TARE_DTYPE_F64;
  outcome *o = problem_run(p, device);
  cr_assert_eq(o->status, TARE_STATUS_OK, "%s: %s", problem_text(p), o->text);
  const unsigned want = p->want;
  p->want = WANT_LOSS;
  const int64_t count = p->rows * p->classes;
  double *slopes = calloc((size_t)count, sizeof *slopes);
  for (int64_t i = 0; i < count; i++) {
    const double x = p->logits[i];
    slopes[i] = (loss_with(p, device, i, x + h) - loss_with(p, device, i, x - h)) / (2 * h);
  }
  CHECK_CLOSE(problem_text(p), o->gradient, slopes, (size_t)count, ((tolerance){1e-8, 1e-6}));
  free(slopes);
  p->want = want;
  outcome_free(o);
}

static problem *small_problem(int32_t kind) {
  problem *p = problem_new(kind, TARE_DTYPE_F64, 8, 5);
  random_source source = random_from(77);
  for (int i = 0; i < 40; i++) p->logits[i] = 2 * random_normal(&source);
  problem_draw_labels(p, 0.6, 0);
  return p;
}

Test(identities, gradients_are_slopes) {
  static const double gammas[] = {0, 0.5, 1, 1.5, 2, 3.7};
  FOR_EACH_DEVICE(device) {
    for (size_t g = 0; g < sizeof gammas / sizeof *gammas; g++) {
      for (int soft = 0; soft < 2; soft++) {
        problem *focal = small_problem(TARE_LOSS_SIGMOID_FOCAL);
        focal->loss.focal.gamma = gammas[g];
        if (soft) problem_draw_targets(focal, TARE_DTYPE_F64);
        check_slopes(focal, device);
        problem_free(focal);
        problem *poly = small_problem(TARE_LOSS_SIGMOID_POLY1);
        poly->loss.poly1.gamma = gammas[g];
        if (soft) problem_draw_targets(poly, TARE_DTYPE_F64);
        check_slopes(poly, device);
        problem_free(poly);
      }
      problem *softmax = small_problem(TARE_LOSS_SOFTMAX_FOCAL);
      softmax->loss.focal.gamma = gammas[g];
      check_slopes(softmax, device);
      problem_free(softmax);
    }
  }
}

Test(identities, gradients_are_slopes_of_cross_entropy) {
  static const int32_t kinds[] = {TARE_LOSS_SIGMOID_CE, TARE_LOSS_SOFTMAX_CE};
  FOR_EACH_DEVICE(device) {
    for (int k = 0; k < 2; k++) {
      for (int soft = 0; soft < 2; soft++) {
        problem *p = small_problem(kinds[k]);
        if (soft) problem_draw_targets(p, TARE_DTYPE_F64);
        p->normalizer = TARE_NORMALIZER_ROWS;
        problem_draw_row_weights(p);
        check_slopes(p, device);
        problem_free(p);
      }
    }
  }
}

/* GHM holds the density constant in its gradient: so does a given density, whose loss then has that slope, as long as
 * no element changes its bin. One bin for GHM-C and GHM-R keeps it so. */
Test(identities, gradients_are_slopes_under_a_given_density) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_GHM_C; kind <= TARE_LOSS_GHM_R; kind++) {
      problem *p = small_problem(kind);
      p->loss.ghm.bins = 1;
      p->loss.ghm.mu = 0.5; /* smooth on the scale of the step */
      problem_add_ghm_state(p);
      outcome *o = problem_run(p, device);
      cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
      outcome_free(o);
      p->loss.ghm.use_stored_density = 1;
      check_slopes(p, device);
      problem_free(p);
    }
  }
}
