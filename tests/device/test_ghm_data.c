/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GHM on a real detector's outputs, early and late in its training: every count is the oracle's, number by number, and
 * losses agree to 1e-6; and twenty steps beside mmdetection's own modules.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "oracle/mmdet.h"
#include "support/npy.h"
#include "support/numbers.h"
#include "support/problem.h"
#include "support/random.h"

/* ---- Real data --------------------------------------------------------------------------------------------------- */

static const char *const states[] = {"early", "late"};
enum { STATES = sizeof states / sizeof *states };

static void read_numbers(const char *name, double *numbers, size_t count) {
  npy_array array = npy_real(name);
  cr_assert_eq(array.count, count, "%s: %zu numbers, want %zu", name, array.count, count);
  for (size_t i = 0; i < count; i++) numbers[i] = npy_number(&array, i);
  npy_free(&array);
}

/* Class logits for GHM-C, boxes for GHM-R. */
static problem *real_problem(int32_t kind, const char *state) {
  char name[64];
  snprintf(name, sizeof name, "%s_%s.npy", state, kind == TARE_LOSS_GHM_C ? "logits" : "boxes");
  npy_array outputs = npy_real(name), labels = npy_real("labels.npy");
  problem *p = problem_new(kind, TARE_DTYPE_F32, outputs.shape[0], outputs.shape[1]);
  cr_assert_gt(p->rows, 1000);
  cr_assert_eq(labels.count, (size_t)p->rows);
  for (size_t i = 0; i < outputs.count; i++) p->logits[i] = npy_number(&outputs, i);
  for (size_t i = 0; i < labels.count; i++) p->labels[i] = (int64_t)npy_number(&labels, i);
  if (kind == TARE_LOSS_GHM_R) read_numbers("box_targets.npy", p->targets, outputs.count);
  p->want = WANT_LOSS | WANT_GRADIENT;
  npy_free(&outputs);
  npy_free(&labels);
  return p;
}

static void check_loss(problem *p, const outcome *got, const outcome *want) {
  CHECK_OUTCOME(p, got, want);
  CHECK_NEAR("loss", got->loss, want->loss, ((tolerance){0, 1e-6}));
}

static void check_counts_and_loss(problem *p, const test_device *device, int32_t bins) {
  p->loss.ghm.bins = bins;
  problem_add_ghm_state(p);
  outcome *got = problem_run(p, device), *want = problem_expect(p);
  cr_assert_eq(got->status, TARE_STATUS_OK, "%s", got->text);
  for (int32_t k = 0; k < bins; k++) {
    cr_assert_eq((int64_t)p->ghm_state[2 + k], p->oracle_state->counts[k], "%s: bin %d: %lld, want %lld",
                 problem_text(p), (int)k, (long long)p->ghm_state[2 + k], (long long)p->oracle_state->counts[k]);
  }
  check_loss(p, got, want);
  outcome_free(got);
  outcome_free(want);
  problem_free(p);
}

/* Row losses take another way over a GPU. */
static void check_every_number_of_bins(int32_t kind, unsigned more) {
  static const int32_t bins[] = {1, 2, 10, 30, 255, 256, 1000, 1024};
  FOR_EACH_DEVICE(device) {
    for (size_t s = 0; s < STATES; s++) {
      for (size_t b = 0; b < sizeof bins / sizeof *bins; b++) {
        if (test_small() && (b + s) % 2 == 1) continue; /* the other numbers with the other state */
        problem *p = real_problem(kind, states[s]);
        p->want |= more;
        check_counts_and_loss(p, device, bins[b]);
      }
    }
  }
}

Test(ghm_data, counts) { check_every_number_of_bins(TARE_LOSS_GHM_C, 0); }
Test(ghm_data, counts_with_row_losses) { check_every_number_of_bins(TARE_LOSS_GHM_C, WANT_ROW_LOSS); }
Test(ghm_data, counts_of_boxes) { check_every_number_of_bins(TARE_LOSS_GHM_R, 0); }

Test(ghm_data, exact_density) {
  static const double epsilons[] = {0.02, 0.1, 0.5, 2};
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_GHM_C; kind <= TARE_LOSS_GHM_R; kind++) {
      for (size_t s = 0; s < STATES; s++) {
        for (size_t e = 0; e < sizeof epsilons / sizeof *epsilons; e++) {
          problem *p = real_problem(kind, states[s]);
          p->loss.ghm.density = TARE_GHM_DENSITY_EXACT;
          p->loss.ghm.epsilon = epsilons[e];
          outcome *got = problem_run(p, device), *want = problem_expect(p);
          check_loss(p, got, want);
          outcome_free(got);
          outcome_free(want);
          problem_free(p);
        }
      }
    }
  }
}

/* ---- mmdetection's modules --------------------------------------------------------------------------------------- */

/* What mmdetection's heads would pass: dense targets, and a weight of 1 or 0 for each element. */
typedef struct tensors {
  double *target, *weight;
} tensors;

static tensors tensors_of(const problem *p) {
  const size_t count = (size_t)(p->rows * p->classes);
  tensors t = {calloc(count, sizeof(double)), calloc(count, sizeof(double))};
  for (int64_t row = 0; row < p->rows; row++) {
    for (int64_t c = 0; c < p->classes; c++) {
      const int64_t at = row * p->classes + c;
      const bool regression = p->loss.kind == TARE_LOSS_GHM_R;
      t.target[at] = regression ? p->targets[at] : p->labels[row] == c;
      t.weight[at] = regression ? p->labels[row] >= 0 : p->labels[row] != p->ignore_label;
    }
  }
  return t;
}

/* A training that goes somewhere: from an untrained detector's outputs to a trained one's. */
static void next_step(problem *p, int step) {
  random_source source = random_from(500 + (uint64_t)step);
  const double mean = -1 - 0.25 * step, spread = p->loss.kind == TARE_LOSS_GHM_R ? 0.3 / (1 + step) : 2;
  for (int64_t i = 0; i < p->rows * p->classes; i++) {
    const double around = p->loss.kind == TARE_LOSS_GHM_R ? p->targets[i] : mean;
    p->logits[i] = round_to_dtype(p->dtype, around + spread * random_normal(&source));
  }
  problem_draw_labels(p, 0.2, 0.05);
}

/* The state's sums and weights against the module's: w = tot / (S * non-empty bins). The library keeps w/tot. */
static void check_weights(const problem *p, const struct mmdet_module *module, int step) {
  const int bins = p->loss.ghm.bins;
  int non_empty = 0;
  for (int k = 0; k < bins; k++) non_empty += p->ghm_state[2 + k] > 0;
  for (int k = 0; k < bins; k++) {
    double sum, weight;
    memcpy(&sum, &p->ghm_state[2 + bins + k], sizeof sum);
    memcpy(&weight, &p->ghm_state[2 + 2 * bins + k], sizeof weight);
    char what[64];
    snprintf(what, sizeof what, "step %d, bin %d", step, k);
    CHECK_NEAR(what, sum, module->acc_sum[k], ((tolerance){0, 1e-14}));
    const double want = module->acc_sum[k] > 0 ? 1 / (module->acc_sum[k] * non_empty) : 0;
    CHECK_NEAR(what, weight, want, ((tolerance){0, 1e-14}));
  }
}

static void check_twenty_steps(const test_device *device, int32_t kind, int bins) {
  problem *p = problem_new(kind, TARE_DTYPE_F32, test_size(600, 200), 5);
  struct mmdet_module module = {.bins = bins, .momentum = 0.75, .mu = kind == TARE_LOSS_GHM_R ? 0.02 : 0};
  const size_t count = (size_t)(p->rows * p->classes);
  double *gradient = malloc(count * sizeof *gradient);
  p->loss.ghm.bins = bins;
  p->loss.ghm.momentum = 0.75;
  p->loss.ghm.variant = TARE_GHM_VARIANT_MMDET;
  p->want = WANT_LOSS | WANT_GRADIENT;
  problem_add_ghm_state(p);
  for (int step = 0; step < 20; step++) {
    next_step(p, step);
    tensors t = tensors_of(p);
    outcome *got = problem_run(p, device);
    cr_assert_eq(got->status, TARE_STATUS_OK, "%s", got->text);
    const double loss = mmdet_forward(&module, (int64_t)count, p->logits, t.target, t.weight, gradient);
    CHECK_NEAR("loss", got->loss, loss, ((tolerance){0, 1e-6}));
    CHECK_CLOSE("gradient", got->gradient, gradient, count, gradient_tolerance(p));
    check_weights(p, &module, step);
    outcome_free(got);
    free(t.target);
    free(t.weight);
  }
  free(gradient);
  problem_free(p);
}

Test(ghm_data, twenty_steps_of_mmdetections_modules) {
  FOR_EACH_DEVICE(device) {
    check_twenty_steps(device, TARE_LOSS_GHM_C, 30);
    check_twenty_steps(device, TARE_LOSS_GHM_R, 10);
  }
}
