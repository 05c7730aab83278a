/* SPDX-License-Identifier: Apache-2.0 */
/* GHM of infinities, NaN and nothing. */
#include "limits.h"

/* ---- GHM ------------------------------------------------------------------------------------------------------- */

/* g = 1 falls in the last bin and a NaN in the first, where they count; the loss of z = -inf is infinite. */
Test(limits, ghm_infinities_and_nan) {
  static const double x[] = {INFINITY, -INFINITY, NAN, 0, 200, -200, 3, -3};
  FOR_EACH_DEVICE(device) {
    for (int64_t label = -1; label <= 0; label++) {
      problem *p = single_elements(TARE_LOSS_GHM_C, TARE_DTYPE_F32, x, 8, label);
      problem_add_ghm_state(p);
      CHECK_PROBLEM(p, device);
      int64_t counted = 0;
      for (int k = 0; k < p->loss.ghm.bins; k++) {
        cr_assert_eq((int64_t)p->ghm_state[2 + k], p->oracle_state->counts[k], "bin %d", k);
        counted += (int64_t)p->ghm_state[2 + k];
      }
      cr_assert_eq(counted, 8);
      problem_free(p);
    }
  }
}

Test(limits, ghm_r_infinities_and_nan) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_GHM_R, TARE_DTYPE_F32, 5, 2);
    for (int i = 0; i < 5; i++) p->labels[i] = 0;
    p->logits[0] = INFINITY;
    p->logits[1] = -INFINITY;
    p->logits[2] = NAN;
    p->logits[3] = 3e38;
    p->targets[4] = INFINITY;
    problem_add_ghm_state(p);
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

Test(limits, ghm_without_a_counted_element) {
  FOR_EACH_DEVICE(device) {
    for (int32_t density = TARE_GHM_DENSITY_UNIT_REGION; density <= TARE_GHM_DENSITY_EXACT; density++) {
      for (int32_t kind = TARE_LOSS_GHM_C; kind <= TARE_LOSS_GHM_R; kind++) {
        problem *p = problem_new(kind, TARE_DTYPE_F32, 30, 4);
        for (int64_t i = 0; i < p->rows; i++) p->labels[i] = p->ignore_label;
        p->loss.ghm.density = density;
        expect_zeros(p, device);
        problem_free(p);
      }
    }
  }
}
