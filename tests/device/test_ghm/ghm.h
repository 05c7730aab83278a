/* SPDX-License-Identifier: Apache-2.0 */
/* GHM states word by word, which the tests of this folder share. */
#ifndef TEST_GHM_H
#define TEST_GHM_H
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/buffers.h"
#include "support/numbers.h"
#include "support/problem.h"
#include "support/random.h"

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
static const int32_t bin_counts[] = {1, 2, 3, 10, 16, 17, 30, 32, 33, 255, 256, 1000, 1024};
enum { DTYPES = sizeof dtypes / sizeof *dtypes, BIN_COUNTS = sizeof bin_counts / sizeof *bin_counts };

/* ---- The state, word by word ----------------------------------------------------------------------------------- */

static inline double state_double(const problem *p, int word) {
  double value;
  memcpy(&value, &p->ghm_state[word], sizeof value);
  return value;
}

/* The library's words against the oracle's state: counts exactly, sums and densities to rounding. */
static inline void check_state(const problem *p, const char *when) {
  const struct oracle_ghm_state *want = p->oracle_state;
  const int bins = p->loss.ghm.bins;
  int64_t counted = 0;
  cr_assert_eq((int64_t)p->ghm_state[0], want->steps, "%s: %lld steps, want %lld", when, (long long)p->ghm_state[0],
               (long long)want->steps);
  cr_assert_eq((int64_t)p->ghm_state[1], want->total, "%s: N %lld, want %lld", when, (long long)p->ghm_state[1],
               (long long)want->total);
  for (int k = 0; k < bins; k++) {
    const int64_t got = (int64_t)p->ghm_state[2 + k];
    cr_assert_eq(got, want->counts[k], "%s: %s: bin %d of %d: %lld, want %lld", when, problem_text(p), k, bins,
                 (long long)got, (long long)want->counts[k]);
    counted += got;
    CHECK_NEAR("sum", state_double(p, 2 + bins + k), want->sums[k], ((tolerance){0, 1e-13}));
    CHECK_NEAR("1/GD", state_double(p, 2 + 2 * bins + k), want->weights[k], ((tolerance){0, 1e-13}));
  }
  cr_assert_eq(counted, want->total, "%s: the bins hold %lld of %lld", when, (long long)counted,
               (long long)want->total);
}

static inline void check_with_state(problem *p, const test_device *device) {
  CHECK_PROBLEM(p, device);
  check_state(p, "after an evaluation");
}

static inline problem *ghm_problem(int32_t kind, int32_t dtype, int64_t rows, int64_t classes, int32_t bins) {
  problem *p = problem_new(kind, dtype, rows, classes);
  p->loss.ghm.bins = bins;
  problem_add_ghm_state(p);
  return p;
}

/* Another batch of the same sizes: logits and labels of another row order, shifted. */
static inline void next_batch(problem *p, int step) {
  random_source source = random_from(1000 + (uint64_t)step);
  for (int64_t i = 0; i < p->rows * p->classes; i++) {
    const double x = -3 + 0.5 * step + 2 * random_normal(&source);
    p->logits[i] = round_to_dtype(p->dtype, p->targets == NULL ? x : p->targets[i] + 0.01 * step * x);
  }
  for (int64_t i = 0; i < p->rows; i++) {
    p->labels[i] = random_below(&source, 4) == 0 ? random_below(&source, p->classes) : -1;
  }
}

#endif
