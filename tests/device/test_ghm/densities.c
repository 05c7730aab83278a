/* SPDX-License-Identifier: Apache-2.0 */
/* The variant of mmdetection, the exact density, and regression. */
#include "ghm.h"

/* ---- Variants and densities ------------------------------------------------------------------------------------ */

Test(ghm, mmdetection_variant) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_GHM_C; kind <= TARE_LOSS_GHM_R; kind++) {
      for (size_t d = 0; d < DTYPES; d++) {
        for (size_t b = 0; b < BIN_COUNTS; b++) {
          problem *p = ghm_problem(kind, dtypes[d], test_size(400, 60), 7, bin_counts[b]);
          p->loss.ghm.variant = TARE_GHM_VARIANT_MMDET;
          check_with_state(p, device);
          problem_free(p);
        }
      }
    }
  }
}

static void check_exact(const test_device *device, problem *p, double epsilon) {
  p->loss.ghm.density = TARE_GHM_DENSITY_EXACT;
  p->loss.ghm.epsilon = epsilon;
  CHECK_PROBLEM(p, device);
  problem_free(p);
}

static const double epsilons[] = {1e-6, 0.02, 0.1, 0.5, 1, 1.5, 2};
enum { EPSILONS = sizeof epsilons / sizeof *epsilons };

Test(ghm, exact_density) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_GHM_C; kind <= TARE_LOSS_GHM_R; kind++) {
      for (size_t d = 0; d < DTYPES; d++) {
        for (size_t e = 0; e < EPSILONS; e++) {
          check_exact(device, problem_new(kind, dtypes[d], test_size(900, 60), 7), epsilons[e]);
        }
      }
    }
  }
}

/* Many equal norms, window ends that hit them, and both sides of one logit. */
Test(ghm, exact_density_of_equal_norms) {
  FOR_EACH_DEVICE(device) {
    for (size_t e = 0; e < EPSILONS; e++) {
      problem *p = problem_new(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 300, 4);
      for (int64_t i = 0; i < p->rows * 4; i++) p->logits[i] = (double)(i % 7 - 3);
      check_exact(device, p, epsilons[e]);
      problem *same = problem_new(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 50, 4);
      for (int64_t i = 0; i < same->rows * 4; i++) same->logits[i] = 0;
      check_exact(device, same, epsilons[e]);
    }
  }
}

Test(ghm, exact_density_with_masks_levels_and_sizes) {
  static const level_shape shapes[] = {{5, 7, 3}, {2, 3, 3}};
  static const int64_t rows[] = {1, 2, 3, 64, 1000};
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_GHM_C; kind <= TARE_LOSS_GHM_R; kind++) {
      problem *p = problem_new_levels(kind, TARE_DTYPE_F32, 2, 5, 2, shapes);
      problem_draw_row_weights(p);
      p->place[ARRAY_LOGITS].channels_first = true;
      p->image_major = true;
      check_exact(device, p, 0.1);
      for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        check_exact(device, problem_new(kind, TARE_DTYPE_F32, rows[r], 3), 0.1);
      }
    }
  }
}

Test(ghm, exact_density_in_place) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_GHM_C; kind <= TARE_LOSS_GHM_R; kind++) {
      problem *p = problem_new(kind, TARE_DTYPE_F32, 200, 5);
      p->in_place = true;
      check_exact(device, p, 0.1);
    }
  }
}

Test(ghm, exact_density_of_soft_targets) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_GHM_C, TARE_DTYPE_F64, 200, 5);
    problem_draw_targets(p, TARE_DTYPE_F64);
    p->slack = 1e-13;
    check_exact(device, p, 0.1);
  }
}

/* ---- Regression ------------------------------------------------------------------------------------------------ */

Test(ghm, regression_widths) {
  static const double mus[] = {1e-4, 0.02, 0.5, 10};
  FOR_EACH_DEVICE(device) {
    for (size_t m = 0; m < sizeof mus / sizeof *mus; m++) {
      for (size_t d = 0; d < DTYPES; d++) {
        for (size_t t = 0; t < DTYPES; t++) {
          problem *p = ghm_problem(TARE_LOSS_GHM_R, dtypes[d], test_size(500, 60), 4, 10);
          p->loss.ghm.mu = mus[m];
          p->target_dtype = dtypes[t];
          for (int64_t i = 0; i < p->rows * 4; i++) {
            const double target =
                round_to_dtype(TARE_DTYPE_F32, p->targets[i]); /* exact in what computes the difference */
            p->targets[i] = round_to_dtype(dtypes[t], target);
          }
          check_with_state(p, device);
          problem_free(p);
        }
      }
    }
  }
}

/* Rows without a class are not regressed, whatever their numbers. */
Test(ghm, regression_takes_rows_with_a_class) {
  FOR_EACH_DEVICE(device) {
    problem *p = ghm_problem(TARE_LOSS_GHM_R, TARE_DTYPE_F32, 100, 4, 10);
    int64_t positives = 0;
    for (int64_t row = 0; row < p->rows; row++) {
      if (p->labels[row] < 0) p->logits[row * 4] = NAN;
      positives += p->labels[row] >= 0;
    }
    check_with_state(p, device);
    cr_assert_eq((int64_t)p->ghm_state[1], 4 * positives);
    problem_free(p);
  }
}

/* A row that is taken in several pieces has one loss. */
Test(ghm, regression_of_wide_rows) {
  FOR_EACH_DEVICE(device) {
    problem *p = ghm_problem(TARE_LOSS_GHM_R, TARE_DTYPE_F32, 7, 2100, 10);
    check_with_state(p, device);
    problem_free(p);
  }
}

Test(ghm, regression_without_labels_takes_every_row) {
  FOR_EACH_DEVICE(device) {
    problem *p = ghm_problem(TARE_LOSS_GHM_R, TARE_DTYPE_F32, 100, 4, 10);
    free(p->labels);
    p->labels = NULL;
    check_with_state(p, device);
    cr_assert_eq((int64_t)p->ghm_state[1], 400);
    problem_free(p);
  }
}
