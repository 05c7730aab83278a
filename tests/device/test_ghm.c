/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GHM counts every element in its exact bin, number by number as the oracle does, and keeps its state as the header
 * says: momentum, saving, several ranks, a given density; mmdetection's variant; the exact density.
 */
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

static double state_double(const problem *p, int word) {
  double value;
  memcpy(&value, &p->ghm_state[word], sizeof value);
  return value;
}

/* The library's words against the oracle's state: counts exactly, sums and densities to rounding. */
static void check_state(const problem *p, const char *when) {
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

static void check_with_state(problem *p, const test_device *device) {
  CHECK_PROBLEM(p, device);
  check_state(p, "after an evaluation");
}

static problem *ghm_problem(int32_t kind, int32_t dtype, int64_t rows, int64_t classes, int32_t bins) {
  problem *p = problem_new(kind, dtype, rows, classes);
  p->loss.ghm.bins = bins;
  problem_add_ghm_state(p);
  return p;
}

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

/* ---- Momentum -------------------------------------------------------------------------------------------------- */

/* Another batch of the same sizes: logits and labels of another row order, shifted. */
static void next_batch(problem *p, int step) {
  random_source source = random_from(1000 + (uint64_t)step);
  for (int64_t i = 0; i < p->rows * p->classes; i++) {
    const double x = -3 + 0.5 * step + 2 * random_normal(&source);
    p->logits[i] = round_to_dtype(p->dtype, p->targets == NULL ? x : p->targets[i] + 0.01 * step * x);
  }
  for (int64_t i = 0; i < p->rows; i++) {
    p->labels[i] = random_below(&source, 4) == 0 ? random_below(&source, p->classes) : -1;
  }
}

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

/* ---- Several ranks --------------------------------------------------------------------------------------------- */

typedef struct ghm_step {
  buffer *logits, *labels, *state;
  tare_level level;
  tare_batch batch;
} ghm_step;

/* The rows [first, first + rows) of a GHM-C problem in f32 as a batch of their own. */
static void step_open(ghm_step *s, const test_device *device, const problem *p, int64_t first, int64_t rows) {
  const size_t count = (size_t)(rows * p->classes);
  float *logits = malloc(count * sizeof *logits);
  for (size_t i = 0; i < count; i++) logits[i] = (float)p->logits[(size_t)(first * p->classes) + i];
  s->logits = buffer_of(device, logits, count * sizeof *logits);
  s->labels = buffer_of(device, p->labels + first, (size_t)rows * sizeof *p->labels);
  s->state = buffer_of(device, p->ghm_state, tare_ghm_state_bytes(p->loss.ghm.bins));
  free(logits);
  tare_level_init_rows(&s->level, rows, p->classes);
  s->level.logits = s->logits->memory;
  s->level.labels = s->labels->memory;
  tare_batch_init(&s->batch);
  s->batch.levels = &s->level;
  s->batch.level_count = 1;
  s->batch.classes = p->classes;
  s->batch.label_dtype = TARE_LABEL_DTYPE_I64;
}

static void step_close(ghm_step *s) {
  buffer_free(s->logits);
  buffer_free(s->labels);
  buffer_free(s->state);
}

static tare_loss_spec loss_with_state(const problem *p, const buffer *state) {
  tare_loss_spec loss = p->loss;
  loss.ghm.state = state->memory;
  return loss;
}

static void expect_ok(tare_status status, const test_device *device) {
  cr_assert_eq(status, TARE_STATUS_OK, "%s: %s", tare_status_name(status), tare_error_text(device->context));
}

/* Histogram and density update, then an evaluation of the given density, are one evaluation. */
static void check_three_calls(const test_device *device, int32_t variant, double momentum) {
  problem *p = ghm_problem(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 400, 5, 20);
  const uint64_t bytes = tare_ghm_state_bytes(20);
  p->label_dtype = TARE_LABEL_DTYPE_I64;
  p->loss.ghm.variant = variant;
  p->loss.ghm.momentum = momentum;
  uint64_t *apart = calloc(1, bytes), *together = calloc(1, bytes);
  for (int step = 0; step < 3; step++) {
    next_batch(p, step);
    memcpy(p->ghm_state, together, bytes);
    outcome *whole = problem_run(p, device);
    memcpy(together, p->ghm_state, bytes);

    memcpy(p->ghm_state, apart, bytes);
    ghm_step s;
    step_open(&s, device, p, 0, p->rows);
    const tare_loss_spec loss = loss_with_state(p, s.state);
    expect_ok(tare_ghm_histogram(device->context, &loss, &s.batch, NULL), device);
    buffer_expect_unchanged(s.logits, "logits");
    expect_ok(tare_ghm_density_update(device->context, &loss, NULL), device);
    buffer_download(s.state, "state");
    memcpy(p->ghm_state, s.state->now, bytes);
    memcpy(apart, p->ghm_state, bytes);
    cr_assert_arr_eq(apart, together, bytes, "states differ after step %d", step);
    step_close(&s);

    p->loss.ghm.use_stored_density = 1;
    outcome *given = problem_run(p, device);
    cr_assert_arr_eq(p->ghm_state, apart, bytes, "a given state was written to");
    CHECK_SAME_OUTCOME(p, given, whole);
    p->loss.ghm.use_stored_density = 0;
    outcome_free(whole);
    outcome_free(given);
  }
  free(apart);
  free(together);
  problem_free(p);
}

Test(ghm, histogram_update_and_given_are_one_evaluation) {
  FOR_EACH_DEVICE(device) {
    const test_device *able = device_able(device, TARE_LOSS_GHM_C, TARE_DTYPE_F32);
    check_three_calls(able, TARE_GHM_VARIANT_PAPER, 0);
    check_three_calls(able, TARE_GHM_VARIANT_PAPER, 0.75);
    check_three_calls(able, TARE_GHM_VARIANT_MMDET, 0);
    check_three_calls(able, TARE_GHM_VARIANT_MMDET, 0.75);
  }
}

/* The histogram writes words [1, 2+bins) and nothing else. */
Test(ghm, histogram_leaves_the_rest_of_the_state) {
  FOR_EACH_DEVICE(device) {
    problem *p = ghm_problem(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 400, 5, 20);
    for (int w = 0; w < 62; w++) p->ghm_state[w] = 0x4010101010101010u + (uint64_t)w;
    ghm_step s;
    const test_device *able = device_able(device, TARE_LOSS_GHM_C, TARE_DTYPE_F32);
    step_open(&s, able, p, 0, p->rows);
    const tare_loss_spec loss = loss_with_state(p, s.state);
    expect_ok(tare_ghm_histogram(able->context, &loss, &s.batch, NULL), able);
    buffer_download(s.state, "state");
    uint64_t words[62];
    memcpy(words, s.state->now, sizeof words);
    int64_t sum = 0;
    for (int w = 2; w < 22; w++) sum += (int64_t)words[w];
    cr_assert_eq(sum, (int64_t)words[1]);
    cr_assert_gt(sum, 0);
    cr_assert_eq(words[0], p->ghm_state[0]);
    for (int w = 22; w < 62; w++) cr_assert_eq(words[w], p->ghm_state[w], "word %d", w);
    step_close(&s);
    problem_free(p);
  }
}

/* Two ranks with a part each: the sum of their counts, words [1, 2+bins), is one machine's state, and what they
 * compute with it is their part of one machine's result. */
static void check_two_ranks(const test_device *device, int64_t rows_of_first, double momentum) {
  problem *p = ghm_problem(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 500, 5, 16);
  const uint64_t bytes = tare_ghm_state_bytes(16);
  p->label_dtype = TARE_LABEL_DTYPE_I64;
  p->loss.ghm.momentum = momentum;
  ghm_step ranks[2];
  step_open(&ranks[0], device, p, 0, rows_of_first);
  step_open(&ranks[1], device, p, rows_of_first, p->rows - rows_of_first);
  int64_t sum[18] = {0};
  for (int r = 0; r < 2; r++) {
    const tare_loss_spec loss = loss_with_state(p, ranks[r].state);
    expect_ok(tare_ghm_histogram(device->context, &loss, &ranks[r].batch, NULL), device);
    buffer_download(ranks[r].state, "state");
    int64_t words[18];
    memcpy(words, ranks[r].state->now, sizeof words);
    for (int w = 1; w < 18; w++) sum[w] += words[w];
  }
  outcome *whole = problem_run(p, device);
  cr_assert_eq(whole->status, TARE_STATUS_OK, "%s", whole->text);
  double loss_sum = 0;
  for (int r = 0; r < 2; r++) {
    buffer *state = ranks[r].state;
    memcpy(state->before, state->now, bytes);
    memcpy(state->before + 8, sum + 1, 17 * 8);
    buffer_upload(state);
    tare_loss_spec loss = loss_with_state(p, state);
    expect_ok(tare_ghm_density_update(device->context, &loss, NULL), device);
    buffer_download(state, "state");
    cr_assert_arr_eq(state->now, p->ghm_state, bytes, "rank %d has another state than one machine", r);

    loss.ghm.use_stored_density = 1;
    buffer *value = buffer_new(device, sizeof(double), 0);
    tare_output output;
    tare_output_init(&output);
    output.loss = value->memory;
    output.loss_dtype = TARE_DTYPE_F64;
    expect_ok(tare_evaluate(device->context, &loss, &ranks[r].batch, &output, NULL), device);
    buffer_download(value, "loss");
    loss_sum += load_element(value->now, 0, TARE_DTYPE_F64);
    buffer_free(value);
  }
  CHECK_NEAR("loss of both", loss_sum, whole->loss, ((tolerance){0, 1e-6}));
  step_close(&ranks[0]);
  step_close(&ranks[1]);
  outcome_free(whole);
  problem_free(p);
}

Test(ghm, two_ranks_that_add_their_counts_agree_with_one) {
  FOR_EACH_DEVICE(device) {
    const test_device *able = device_able(device, TARE_LOSS_GHM_C, TARE_DTYPE_F32);
    check_two_ranks(able, 250, 0);
    check_two_ranks(able, 123, 0.9);
    check_two_ranks(able, 0, 0);
  }
}

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
