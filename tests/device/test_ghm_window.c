/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The window of GHM's exact density, [g-epsilon/2, g+epsilon/2] inside [0,1], however narrow it is: its length keeps
 * all its digits, and it holds what lies in it, at both ends of [0,1].
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "support/numbers.h"
#include "support/problem.h"
#include "support/random.h"

static const double epsilons[] = {1e-300, 1e-30, 1e-25, 1e-20, 1e-18, 1e-17, 1e-16, 1e-12, 1e-9, 1e-6, 1e-3, 0.3, 2};
enum { EPSILONS = sizeof epsilons / sizeof *epsilons, CLASSES = 3 };

static problem *exact_problem(int32_t kind, int32_t dtype, int64_t rows, double epsilon) {
  problem *p = problem_new(kind, dtype, rows, CLASSES);
  p->loss.ghm.density = TARE_GHM_DENSITY_EXACT;
  p->loss.ghm.epsilon = epsilon;
  p->loss_dtype = TARE_DTYPE_F64;
  return p;
}

/* Within 1e-36 absolute in single precision, as every result below 1e-30. */
static void check(problem *p, const test_device *device) {
  if (p->dtype != TARE_DTYPE_F64) p->slack = 1e-36;
  CHECK_PROBLEM(p, device);
  problem_free(p);
}

/* Logits at both ends: whole numbers, so that norms are equal or far apart beside the narrowest windows. */
Test(ghm_window, both_ends_of_the_norms) {
  static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F64};
  FOR_EACH_DEVICE(device) {
    for (size_t e = 0; e < EPSILONS; e++) {
      for (size_t d = 0; d < 2; d++) {
        problem *p = exact_problem(TARE_LOSS_GHM_C, dtypes[d], 90, epsilons[e]);
        for (int64_t i = 0; i < p->rows * CLASSES; i++)
          p->logits[i] = (double)(i * 7 % 61 - 30) * (i % 5 == 0 ? 2.5 : 1);
        check(p, device);
      }
    }
  }
}

/* The gradient of an element of logit -21, or +21 where mirrored, over its norm: 1/GD. */
static double weight_at_21(const test_device *device, int32_t dtype, double epsilon, bool mirrored) {
  problem *p = exact_problem(TARE_LOSS_GHM_C, dtype, 40, epsilon);
  problem_draw_labels(p, 0, 0);
  for (int64_t i = 0; i < p->rows * CLASSES; i++) p->logits[i] = (double)(i % 60 + 1) * (mirrored ? 1 : -1);
  outcome *o = problem_run(p, device);
  cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
  const double weight = o->gradient[20] * (1 + exp(-p->logits[20]));
  outcome_free(o);
  check(p, device);
  return weight;
}

/* What lies near 1 is to what lies near 0 as its mirror image: the same window, the same number of norms in it. */
Test(ghm_window, a_norm_near_1_is_one_near_0_mirrored) {
  FOR_EACH_DEVICE(device) {
    for (size_t e = 0; e < EPSILONS; e++) {
      CHECK_NEAR("1/GD", weight_at_21(device, TARE_DTYPE_F64, epsilons[e], true),
                 weight_at_21(device, TARE_DTYPE_F64, epsilons[e], false), ((tolerance){0, 1e-14}));
      if (epsilons[e] < 1e-20) continue; /* too small for single precision */
      CHECK_NEAR("1/GD", weight_at_21(device, TARE_DTYPE_F32, epsilons[e], true),
                 weight_at_21(device, TARE_DTYPE_F32, epsilons[e], false), ((tolerance){0, 1e-6}));
    }
  }
}

/* Differences from none to all of mu and far beyond, every other one twice. */
static void check_regression(const test_device *device, int32_t dtype, double epsilon, double mu) {
  problem *p = exact_problem(TARE_LOSS_GHM_R, dtype, 60, epsilon);
  p->loss.ghm.mu = mu;
  for (int64_t i = 0; i < p->rows * CLASSES; i++) {
    const double size = mu * ldexp(1 + (double)(i % 3) / 4, (int)(i / 2 % 80) - 40);
    p->targets[i] = 0;
    p->logits[i] = round_to_dtype(dtype, size) * (i % 7 == 0 ? -1 : 1);
  }
  check(p, device);
}

Test(ghm_window, norms_of_a_regression) {
  static const double mus[] = {0.02, 1, 1e-30, 1e30};
  FOR_EACH_DEVICE(device) {
    for (size_t e = 0; e < EPSILONS; e++) {
      for (size_t m = 0; m < sizeof mus / sizeof *mus; m++) {
        check_regression(device, TARE_DTYPE_F64, epsilons[e], mus[m]);
        if (m < 2) check_regression(device, TARE_DTYPE_F32, epsilons[e], mus[m]);
      }
    }
  }
}

static void check_soft(const test_device *device, int32_t dtype, double epsilon, double slack) {
  problem *p = exact_problem(TARE_LOSS_GHM_C, dtype, 50, epsilon);
  random_source source = random_from(5);
  problem_draw_targets(p, dtype);
  for (int64_t i = 0; i < p->rows * CLASSES; i++) p->logits[i] = round_to_dtype(dtype, 4 * random_normal(&source));
  p->slack = slack;
  if (dtype == TARE_DTYPE_F32)
    p->want &= ~(unsigned)WANT_LOSS; /* for which no slack is given: on a GPU such a g is a float */
  CHECK_PROBLEM(p, device);
  problem_free(p);
}

/* Targets between 0 and 1, and of 0 and 1. Norms are equal, or further apart than the narrowest window. */
Test(ghm_window, norms_of_soft_targets) {
  static const double doubles[] = {1e-12, 1e-9, 1e-6, 1e-3, 0.3, 2}, floats[] = {1e-3, 0.3, 2};
  FOR_EACH_DEVICE(device) {
    for (size_t e = 0; e < sizeof doubles / sizeof *doubles; e++) check_soft(device, TARE_DTYPE_F64, doubles[e], 1e-14);
    for (size_t e = 0; e < sizeof floats / sizeof *floats; e++) check_soft(device, TARE_DTYPE_F32, floats[e], 1e-6);
  }
}

/* Below the spacing of g a window holds equal norms alone, and its length is epsilon all the same. */
Test(ghm_window, narrower_than_the_spacing) {
  FOR_EACH_DEVICE(device) {
    problem *p = exact_problem(TARE_LOSS_GHM_C, TARE_DTYPE_F64, 4, 1e-17);
    problem_draw_labels(p, 0, 0);
    for (int64_t i = 0; i < 4 * CLASSES; i++) p->logits[i] = i < 3 ? 0.7 : 1 + (double)i;
    outcome *o = problem_run(p, device);
    cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
    double loss = log1p(exp(0.7)) * 1e-17; /* three of them share it */
    for (int64_t i = 3; i < 4 * CLASSES; i++) loss += log1p(exp(p->logits[i])) * 1e-17;
    CHECK_NEAR("loss", o->loss, loss, ((tolerance){0, 1e-14}));
    outcome_free(o);
    problem_free(p);
  }
}
