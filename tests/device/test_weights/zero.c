/* SPDX-License-Identifier: Apache-2.0 */
/* A weight of 0 silences what it weighs, NaN and infinity included. */
#include "weights.h"

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
