/* SPDX-License-Identifier: Apache-2.0 */
/* The state of GHM: momentum, saving, no state at all. */
#include "ghm.h"

/* ---- Momentum -------------------------------------------------------------------------------------------------- */

static void check_momentum(const test_device *device, int32_t kind, int32_t variant, double momentum, int32_t bins) {
  problem *p = ghm_problem(kind, TARE_DTYPE_F32, test_size(600, 100), 5, bins);
  p->loss.ghm.momentum = momentum;
  p->loss.ghm.variant = variant;
  for (int step = 0; step < 6; step++) {
    next_batch(p, step);
    check_with_state(p, device);
  }
  problem_free(p);
}

Test(ghm, momentum_over_several_steps) {
  static const double momenta[] = {0, 0.25, 0.75, 0.99};
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_GHM_C; kind <= TARE_LOSS_GHM_R; kind++) {
      for (int32_t variant = TARE_GHM_VARIANT_PAPER; variant <= TARE_GHM_VARIANT_MMDET; variant++) {
        for (size_t m = 0; m < sizeof momenta / sizeof *momenta; m++) {
          check_momentum(device, kind, variant, momenta[m], 10);
          check_momentum(device, kind, variant, momenta[m], 300);
        }
      }
    }
  }
}

/* S = R on the first step, then m*S + (1-m)*R, with the counts that the state itself reports. */
Test(ghm, momentum_by_hand) {
  FOR_EACH_DEVICE(device) {
    problem *p = ghm_problem(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 200, 5, 4);
    p->loss.ghm.momentum = 0.75;
    double sums[4] = {0};
    for (int step = 0; step < 4; step++) {
      next_batch(p, step);
      outcome *o = problem_run(p, device);
      cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
      outcome_free(o);
      cr_assert_eq((int64_t)p->ghm_state[0], step + 1);
      for (int k = 0; k < 4; k++) {
        const double count = (double)(int64_t)p->ghm_state[2 + k];
        sums[k] = step == 0 ? count : 0.75 * sums[k] + 0.25 * count;
        CHECK_NEAR("S", state_double(p, 6 + k), sums[k], ((tolerance){0, 1e-14}));
        CHECK_NEAR("1/GD", state_double(p, 10 + k), sums[k] > 0 ? 1 / (4 * sums[k]) : 0, ((tolerance){0, 1e-14}));
      }
    }
    problem_free(p);
  }
}

Test(ghm, without_momentum_no_step_is_taken) {
  FOR_EACH_DEVICE(device) {
    problem *p = ghm_problem(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 200, 5, 7);
    check_with_state(p, device);
    check_with_state(p, device);
    cr_assert_eq(p->ghm_state[0], 0u);
    problem_free(p);
  }
}

/* A state saved as bytes and restored goes on as if nothing had happened. */
Test(ghm, a_state_is_saved_and_restored_as_bytes) {
  FOR_EACH_DEVICE(device) {
    problem *p = ghm_problem(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 200, 5, 12);
    const uint64_t bytes = tare_ghm_state_bytes(12);
    uint64_t *saved = malloc(bytes);
    p->loss.ghm.momentum = 0.5;
    outcome *results[3];
    for (int step = 0; step < 2; step++) {
      next_batch(p, step);
      outcome_free(problem_run(p, device));
    }
    memcpy(saved, p->ghm_state, bytes);
    next_batch(p, 2);
    results[0] = problem_run(p, device);
    memcpy(p->ghm_state, saved, bytes);
    results[1] = problem_run(p, device);
    CHECK_SAME_OUTCOME(p, results[1], results[0]);
    memset(p->ghm_state, 0, bytes);
    results[2] = problem_run(p, device);
    cr_assert_neq(results[2]->loss, results[0]->loss, "a fresh state gives the same: the momentum is not felt");
    for (int i = 0; i < 3; i++) outcome_free(results[i]);
    free(saved);
    problem_free(p);
  }
}

/* The context's own scratch serves where nothing is to be kept. */
Test(ghm, no_state_is_a_fresh_state) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_GHM_C; kind <= TARE_LOSS_GHM_R; kind++) {
      for (size_t b = 0; b < BIN_COUNTS; b++) {
        problem *with = ghm_problem(kind, TARE_DTYPE_F32, 300, 5, bin_counts[b]);
        problem *without = problem_new(kind, TARE_DTYPE_F32, 300, 5);
        without->loss.ghm.bins = bin_counts[b];
        outcome *a = problem_run(with, device);
        outcome *c = problem_run(without, device);
        CHECK_SAME_OUTCOME(without, c, a);
        CHECK_PROBLEM(without, device);
        outcome_free(a);
        outcome_free(c);
        problem_free(with);
        problem_free(without);
      }
    }
  }
}

Test(ghm, state_bytes) {
  cr_assert_eq(tare_ghm_state_bytes(1), 40u);
  cr_assert_eq(tare_ghm_state_bytes(30), 8u * 92);
  cr_assert_eq(tare_ghm_state_bytes(1024), 8u * 3074);
  cr_assert_eq(tare_ghm_state_bytes(0), 0u);
  cr_assert_eq(tare_ghm_state_bytes(-1), 0u);
  cr_assert_eq(tare_ghm_state_bytes(1025), 0u);
}
