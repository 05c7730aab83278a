/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exact density where its words take several ranges of a sort, several pieces, or keys of which a word holds the
 * upper half alone: against the oracle, and bit for bit on any number of threads.
 */
#include <criterion/criterion.h>
#include <math.h>

#include "support/numbers.h"
#include "support/problem.h"
#include "support/random.h"

typedef enum keys { OF_LABELS, OF_TARGETS, OF_DIFFERENCES, KEYS } keys;

static problem *exact_problem(keys of, int32_t dtype, int64_t rows, int64_t classes) {
  problem *p = problem_new(of == OF_DIFFERENCES ? TARE_LOSS_GHM_R : TARE_LOSS_GHM_C, dtype, rows, classes);
  p->loss.ghm.density = TARE_GHM_DENSITY_EXACT;
  p->loss_dtype = TARE_DTYPE_F64;
  if (of == OF_TARGETS) {
    problem_draw_targets(p, dtype);
    p->slack = dtype == TARE_DTYPE_F64 ? 1e-13 : 1e-6;
  }
  return p;
}

static outcome *run_in(problem *p, const test_device *device, tare_context *context) {
  p->context = context;
  outcome *o = problem_run(p, device);
  p->context = NULL;
  return o;
}

static void check_threads(const test_device *device, problem *p) {
  tare_context *contexts[] = {device_context(device, 1), device_context(device, 2), device_context(device, 5)};
  outcome *first = run_in(p, device, contexts[0]);
  cr_assert_eq(first->status, TARE_STATUS_OK, "%s", first->text);
  for (size_t c = 1; c < sizeof contexts / sizeof *contexts; c++) {
    outcome *again = run_in(p, device, contexts[c]);
    CHECK_SAME_OUTCOME(p, again, first);
    outcome_free(again);
  }
  outcome_free(first);
  for (size_t c = 0; c < sizeof contexts / sizeof *contexts; c++) tare_context_destroy(contexts[c]);
}

Test(exact_density, many_elements) {
  static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_BF16, TARE_DTYPE_F16, TARE_DTYPE_F64};
  FOR_EACH_DEVICE(device) {
    for (keys of = OF_LABELS; of < KEYS; of++) {
      for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++) {
        problem *p = exact_problem(of, dtypes[d], test_size(9000, 70), 7);
        problem_draw_row_weights(p);
        if (of == OF_LABELS || dtypes[d] == TARE_DTYPE_F64) CHECK_PROBLEM(p, device);
        check_threads(device, p);
        problem_free(p);
      }
    }
  }
}

/* Steps so small that the upper halves of many keys are equal. Windows end between two steps. */
static void check_steps(const test_device *device, int64_t rows, int64_t different) {
  problem *p = exact_problem(OF_LABELS, TARE_DTYPE_F64, rows, 4);
  const double step = 0x1p-41, g = 1 / (1 + exp(4.5));
  random_source source = random_from(3);
  problem_draw_labels(p, 0, 0);
  p->loss.ghm.epsilon = 7 * step * g * (1 - g);
  p->slack = 1e-36;
  for (int64_t i = 0; i < rows * 4; i++)
    p->logits[i] = i % 50 == 7 ? 3 : floor(random_uniform(&source) * (double)different) * step - 4.5;
  CHECK_PROBLEM(p, device);
  check_threads(device, p);
  problem_free(p);
}

Test(exact_density, keys_whose_upper_halves_are_equal) {
  FOR_EACH_DEVICE(device) {
    check_steps(device, 3, 20);
    check_steps(device, 20, 100000);
    check_steps(device, test_size(9000, 70), 30);
    check_steps(device, test_size(9000, 70), 10000);
  }
}
