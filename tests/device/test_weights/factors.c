/* SPDX-License-Identifier: Apache-2.0 */
/* Every weight is a factor, alone and with the others. */
#include "weights.h"

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
