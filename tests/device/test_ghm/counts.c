/* SPDX-License-Identifier: Apache-2.0 */
/* GHM counts every element in its exact bin, number by number as the oracle does. */
#include "ghm.h"

/* ---- Counts ---------------------------------------------------------------------------------------------------- */

Test(ghm, counts_every_element_in_its_bin) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_GHM_C; kind <= TARE_LOSS_GHM_R; kind++) {
      for (size_t d = 0; d < DTYPES; d++) {
        for (size_t b = 0; b < BIN_COUNTS; b++) {
          problem *p = ghm_problem(kind, dtypes[d], test_size(3000, 100), 11, bin_counts[b]);
          check_with_state(p, device);
          problem_free(p);
        }
      }
    }
  }
}

/* The trained detector's case: nearly everything far below the first threshold. */
Test(ghm, counts_easy_batches) {
  FOR_EACH_DEVICE(device) {
    for (size_t b = 0; b < BIN_COUNTS; b++) {
      problem *p = ghm_problem(TARE_LOSS_GHM_C, TARE_DTYPE_F32, test_size(5000, 100), 16, bin_counts[b]);
      random_source source = random_from(21);
      for (int64_t i = 0; i < p->rows * 16; i++) p->logits[i] = (double)(float)(-7 + 1.5 * random_normal(&source));
      check_with_state(p, device);
      problem_free(p);
    }
  }
}

/* A masked row of NaN before the only norms beyond the first bin must not hide them. */
Test(ghm, counts_beside_masked_nan) {
  FOR_EACH_DEVICE(device) {
    for (size_t b = 0; b < BIN_COUNTS; b++) {
      problem *p = ghm_problem(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 67, 16, bin_counts[b]);
      for (int64_t i = 0; i < p->rows * 16; i++) {
        const bool is_masked = i / 16 % 4 == 0, is_hard = i / 16 % 4 == 2 && i % 16 == i / 64 % 16;
        p->labels[i / 16] = is_masked ? p->ignore_label : p->background_label;
        p->logits[i] = is_masked ? (double)NAN : is_hard ? 1.5 : -12.0;
      }
      check_with_state(p, device);
      problem_free(p);
    }
  }
}

static double step_float(double x, int steps) {
  float at = (float)x;
  for (; steps > 0; steps--) at = nextafterf(at, INFINITY);
  for (; steps < 0; steps++) at = nextafterf(at, -INFINITY);
  return (double)at;
}

/* Logits at every threshold log(e/(1-e)) and up to two floats on either side, as t = 0 and as t = 1. */
Test(ghm, counts_at_the_thresholds) {
  FOR_EACH_DEVICE(device) {
    for (size_t b = 0; b < BIN_COUNTS; b++) {
      const int bins = bin_counts[b];
      for (int variant = TARE_GHM_VARIANT_PAPER; variant <= TARE_GHM_VARIANT_MMDET; variant++) {
        const int64_t rows = (int64_t)bins * 10;
        problem *p = ghm_problem(TARE_LOSS_GHM_C, TARE_DTYPE_F32, rows, 1, bins);
        p->loss.ghm.variant = variant;
        for (int64_t row = 0; row < rows; row++) {
          const double edge = oracle_ghm_edge((int)(row / 10), bins, variant == TARE_GHM_VARIANT_MMDET);
          const double u = row / 10 == 0 ? -90 : log(edge / (1 - edge));
          const bool positive = row % 2 == 1;
          p->labels[row] = positive ? 0 : -1;
          p->logits[row] = step_float(positive ? -u : u, (int)(row % 10) / 2 - 2);
        }
        check_with_state(p, device);
        problem_free(p);
      }
    }
  }
}

/* The same for the regression: |d| at mu*e/sqrt(1-e^2), targets 0 so that d is the prediction itself. */
Test(ghm, counts_at_the_thresholds_of_a_regression) {
  static const double mus[] = {0.02, 0.1, 1, 3};
  FOR_EACH_DEVICE(device) {
    for (size_t m = 0; m < sizeof mus / sizeof *mus; m++) {
      for (size_t b = 0; b < BIN_COUNTS; b++) {
        const int bins = bin_counts[b];
        const int64_t rows = (int64_t)bins * 10;
        problem *p = ghm_problem(TARE_LOSS_GHM_R, TARE_DTYPE_F32, rows, 1, bins);
        p->loss.ghm.mu = mus[m];
        for (int64_t row = 0; row < rows; row++) {
          const double edge = oracle_ghm_edge((int)(row / 10), bins, 0);
          const double d = mus[m] * edge / sqrt(1 - edge * edge);
          p->labels[row] = 0;
          p->targets[row] = 0;
          p->logits[row] = step_float(row % 2 == 1 ? -d : d, (int)(row % 10) / 2 - 2);
        }
        check_with_state(p, device);
        problem_free(p);
      }
    }
  }
}

/* g = 1/2 exactly belongs to the upper bin, for every number of bins that has such an edge. */
Test(ghm, a_logit_of_zero_is_an_edge) {
  FOR_EACH_DEVICE(device) {
    for (int bins = 2; bins <= 64; bins += 2) {
      problem *p = ghm_problem(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 40, 3, bins);
      for (int64_t i = 0; i < p->rows * 3; i++) p->logits[i] = i % 2 == 0 ? 0.0 : -0.0;
      problem_draw_labels(p, 0.5, 0);
      outcome *o = problem_run(p, device);
      cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
      cr_assert_eq((int64_t)p->ghm_state[2 + bins / 2], 120, "%d bins", bins);
      outcome_free(o);
      problem_free(p);
    }
  }
}

/* Every f16 and bf16 logit there is, in one batch, on both sides. */
Test(ghm, counts_every_half) {
  static const int32_t halves[] = {TARE_DTYPE_F16, TARE_DTYPE_BF16};
  FOR_EACH_DEVICE(device) {
    for (size_t h = 0; h < 2; h++) {
      for (int label = -1; label <= 0; label++) {
        problem *p = ghm_problem(TARE_LOSS_GHM_C, halves[h], 65536, 1, 30);
        for (int64_t i = 0; i < 65536; i++) {
          const uint16_t bits = (uint16_t)i;
          p->logits[i] = load_element(&bits, 0, halves[h]);
          p->labels[i] = label;
        }
        p->want = WANT_LOSS;
        outcome_free(problem_run(p, device));
        outcome_free(problem_expect(p));
        check_state(p, "every half");
        problem_free(p);
      }
    }
  }
}

/* N and the counts take no more than the rows that count, and only those of weight > 0. */
Test(ghm, row_weights_are_masks) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_GHM_C; kind <= TARE_LOSS_GHM_R; kind++) {
      problem *p = ghm_problem(kind, TARE_DTYPE_F32, 500, 6, 10);
      problem_draw_row_weights(p);
      check_with_state(p, device);
      outcome *weighted = problem_run(p, device);
      int64_t silent = 0;
      for (int64_t i = 0; i < p->rows; i++) {
        silent += p->row_weights[i] == 0;
        p->row_weights[i] = p->row_weights[i] > 0 ? 1 : 0;
      }
      cr_assert_gt(silent, 10);
      outcome *masked = problem_run(p, device);
      CHECK_SAME_OUTCOME(p, masked, weighted);
      outcome_free(weighted);
      outcome_free(masked);
      problem_free(p);
    }
  }
}

/* A negative row weight is not above 0. */
Test(ghm, row_weights_below_zero_mask_too) {
  FOR_EACH_DEVICE(device) {
    problem *p = ghm_problem(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 100, 6, 10);
    p->row_weights = calloc(100, sizeof *p->row_weights);
    for (int i = 0; i < 100; i++) p->row_weights[i] = i % 3 - 1;
    check_with_state(p, device);
    problem_free(p);
  }
}

/* Soft targets are binned by g itself; elements within rounding of an edge are left out. */
Test(ghm, soft_targets) {
  FOR_EACH_DEVICE(device) {
    for (size_t b = 0; b < BIN_COUNTS; b++) {
      problem *p = ghm_problem(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 400, 7, bin_counts[b]);
      problem_draw_targets(p, TARE_DTYPE_F32);
      for (int64_t i = 0; i < p->rows * 7; i++) {
        const double place = oracle_ghm_c_norm(p->logits[i], p->targets[i]) * bin_counts[b];
        if (fabs(place - nearbyint(place)) < 1e-3 && p->targets[i] != 0 && p->targets[i] != 1) p->targets[i] = 1;
      }
      p->slack = 2e-6;
      check_with_state(p, device);
      problem_free(p);
    }
  }
}
