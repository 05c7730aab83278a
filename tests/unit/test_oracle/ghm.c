/* SPDX-License-Identifier: Apache-2.0 */
/* The oracle's gradient density is its definition, and mmdetection's modules. */
#include "points.h"

/* ---- GHM elements ---------------------------------------------------------------------------------------------- */

Test(oracle, ghm_elements_are_the_textbook_formula) {
  struct worst norm = {0}, value = {0}, derivative = {0};
  static const double scales[] = {0.02, 1};
  const double *x = points();
  for (int i = 0; i < POINTS; ++i) {
    note(&norm, oracle_ghm_c_norm(x[i], 0), literal_ghm_c_norm(x[i], 0), 0, "x %g t 0", x[i]);
    note(&norm, oracle_ghm_c_norm(x[i], 1), literal_ghm_c_norm(x[i], 1), 0, "x %g t 1", x[i]);
    note(&norm, oracle_ghm_c_norm(x[i], 0.3), literal_ghm_c_norm(x[i], 0.3), 1e-16, "x %g t .3", x[i]);
    for (int k = 0; k < 2; ++k) {
      double d = x[i] / 100;
      struct oracle_pair got = oracle_asl1(d, scales[k]), want = literal_asl1(d, scales[k]);
      note(&norm, oracle_ghm_r_norm(d, scales[k]), literal_ghm_r_norm(d, scales[k]), 0, "d %g", d);
      note(&value, got.value, want.value, 0, "d %g mu %g", d, scales[k]);
      note(&derivative, got.derivative, want.derivative, 0, "d %g mu %g", d, scales[k]);
    }
  }
  conclude("GHM norms", &norm, 1e-15);
  conclude("GHM-R", &value, 2e-15);
  conclude("GHM-R, derivative", &derivative, 2e-15);
  cr_assert_eq(oracle_asl1(-INFINITY, 0.02).value, INFINITY);
  cr_assert_eq(oracle_asl1(-INFINITY, 0.02).derivative, -1);
}

/* Floats on both sides of where bin k begins, bracketed by the literal bins themselves. */
static void check_edge(int k, int bins, int mmdet, struct worst *worst) {
  float u = (float)log((double)k / (bins - k));
  for (int step = 0; step < 4; ++step) u = nextafterf(u, -INFINITY);
  for (int step = 0; step < 9; ++step, u = nextafterf(u, INFINITY)) {
    note(worst, oracle_ghm_c_bin(u, 0, bins, mmdet), literal_ghm_c_bin(u, 0, bins, mmdet), 0, "x %.9g", u);
    note(worst, oracle_ghm_c_bin(-u, 1, bins, mmdet), literal_ghm_c_bin(-u, 1, bins, mmdet), 0, "x %.9g", -u);
  }
}

Test(oracle, ghm_c_bins_are_exact_at_every_edge) {
  static const int bins[] = {1, 2, 3, 10, 30, 1024};
  struct worst worst = {0};
  for (int b = 0; b < 6; ++b)
    for (int k = 1; k < bins[b]; k += 1 + bins[b] / 40)
      for (int mmdet = 0; mmdet < 2; ++mmdet) check_edge(k, bins[b], mmdet, &worst);
  conclude("GHM-C bins", &worst, 0);
  cr_assert_eq(oracle_ghm_c_bin(0, 0, 30, 0), 15, "the only tie belongs to the upper bin");
  cr_assert_eq(oracle_ghm_c_bin(nextafter(0, -1), 0, 30, 0), 14);
  cr_assert_eq(oracle_ghm_c_bin(INFINITY, 0, 30, 0), 29);
  cr_assert_eq(oracle_ghm_c_bin(-INFINITY, 0, 30, 0), 0);
  cr_assert_eq(oracle_ghm_c_bin(NAN, 0, 30, 0), 0);
  cr_assert_eq(oracle_ghm_c_bin(2, 0.5, 10, 0), 3);
  cr_assert_eq(oracle_ghm_c_bin(1e3, 0.5, 10, 0), 5);
}

Test(oracle, ghm_r_bins_are_exact_at_every_edge) {
  struct worst worst = {0};
  for (int k = 1; k < 10; ++k) {
    for (int mmdet = 0; mmdet < 2; ++mmdet) {
      float d = (float)(0.02 * k / sqrt(100.0 - k * k));
      for (int step = 0; step < 4; ++step) d = nextafterf(d, -INFINITY);
      for (int step = 0; step < 9; ++step, d = nextafterf(d, INFINITY))
        note(&worst, oracle_ghm_r_bin(-d, 0.02, 10, mmdet), literal_ghm_r_bin(-d, 0.02, 10, mmdet), 0, "d %.9g", d);
    }
  }
  conclude("GHM-R bins", &worst, 0);
  cr_assert_eq(oracle_ghm_r_bin(0.1875, 0.25, 10, 0), 6, "3-4-5: a tie belongs to the upper bin");
  cr_assert_eq(oracle_ghm_r_bin(nextafter(0.1875, 0), 0.25, 10, 0), 5);
  cr_assert_eq(oracle_ghm_r_bin(INFINITY, 0.25, 10, 0), 9);
  cr_assert_eq(oracle_ghm_r_bin(NAN, 0.25, 10, 0), 0);
}

/* ---- Gradient density ------------------------------------------------------------------------------------------ */

enum { N_ROWS = 40, N_CLASSES = 5, N = N_ROWS * N_CLASSES };

struct ghm_batch {
  double logits[N], targets[N], row_weights[N_ROWS];
  int64_t labels[N_ROWS];
};

static void draw(struct ghm_batch *batch, random_source *random) {
  for (int i = 0; i < N_ROWS; ++i) {
    batch->labels[i] = random_below(random, N_CLASSES + 3) - 1;
    if (batch->labels[i] >= N_CLASSES) batch->labels[i] = -1;
    batch->row_weights[i] = random_uniform(random) < 0.2 ? 0 : random_uniform(random);
  }
  for (int i = 0; i < N; ++i) {
    batch->logits[i] = -2 + 2 * random_normal(random);
    batch->targets[i] = batch->logits[i] + 0.05 * random_normal(random);
  }
}

static struct oracle_problem ghm_problem(struct ghm_batch *batch, const struct oracle_loss *loss) {
  struct oracle_problem problem;
  oracle_problem_init(&problem, loss, N_ROWS, N_CLASSES);
  problem.logits = batch->logits;
  problem.labels = batch->labels;
  problem.row_weights = batch->row_weights;
  problem.targets = loss == &ORACLE_GHM_R ? batch->targets : NULL;
  return problem;
}

/* Whether element i belongs to N, and its gradient norm. */
static bool in_n(const struct ghm_batch *batch, const struct oracle_loss *loss, int i) {
  int row = i / N_CLASSES;
  return batch->row_weights[row] > 0 && (loss == &ORACLE_GHM_C || batch->labels[row] >= 0);
}

static double norm_at(const struct ghm_batch *batch, const struct oracle_loss *loss, int i) {
  if (loss == &ORACLE_GHM_R) return oracle_ghm_r_norm(batch->logits[i] - batch->targets[i], 0.02);
  return oracle_ghm_c_norm(batch->logits[i], batch->labels[i / N_CLASSES] == i % N_CLASSES);
}

/* 1 - g, not by that subtraction. */
static double rest_at(const struct ghm_batch *batch, const struct oracle_loss *loss, int i) {
  double difference = batch->logits[i] - batch->targets[i];
  if (loss == &ORACLE_GHM_C) return oracle_ghm_c_norm(batch->logits[i], batch->labels[i / N_CLASSES] != i % N_CLASSES);
  return 0.02 * 0.02 / (0.02 * 0.02 + difference * difference) / (1 + norm_at(batch, loss, i));
}

static double exact_by_definition(const struct ghm_batch *batch, const struct oracle_loss *loss, int i,
                                  double epsilon) {
  double g = norm_at(batch, loss, i);
  int inside = 0;
  for (int k = 0; k < N; ++k) inside += in_n(batch, loss, k) && fabs(norm_at(batch, loss, k) - g) <= epsilon / 2;
  return inside / (fmin(epsilon / 2, rest_at(batch, loss, i)) + fmin(epsilon / 2, g));
}

Test(oracle, exact_density_is_its_definition) {
  static const double epsilons[] = {0.01, 0.1, 1, 2};
  random_source random = random_from(3);
  struct ghm_batch batch;
  struct oracle_result result;
  int checked = 0;
  const struct oracle_loss *const losses[] = {&ORACLE_GHM_C, &ORACLE_GHM_R};
  for (int k = 0; k < 2; ++k) {
    const struct oracle_loss *loss = losses[k];
    for (int e = 0; e < 4; ++e) {
      draw(&batch, &random);
      struct oracle_problem problem = ghm_problem(&batch, loss);
      problem.density = 1;
      problem.epsilon = epsilons[e];
      oracle_evaluate(&problem, &result);
      for (int i = 0; i < N; ++i) {
        double density = exact_by_definition(&batch, loss, i, epsilons[e]);
        double want = in_n(&batch, loss, i) ? 1 / density : 0;
        cr_assert_float_eq(result.inverse_density[i], want, 1e-14 * want);
        checked += want > 0;
        if (want > 0 && epsilons[e] == 2) cr_assert_float_eq(density, (double)result.ghm.total, 1e-9);
      }
      oracle_result_free(&result);
    }
  }
  printf("exact density: %d elements\n", checked);
  cr_assert(checked > 500);
}

/* Unit regions of the paper: S = R first, then the running mean; loss = sum CE/GD. */
Test(oracle, momentum_starts_from_the_first_histogram) {
  enum { BINS = 10 };
  random_source random = random_from(4);
  struct ghm_batch batch;
  struct oracle_ghm_state state = {0};
  double sums[BINS] = {0};
  for (int step = 0; step < 5; ++step) {
    draw(&batch, &random);
    struct oracle_problem problem = ghm_problem(&batch, &ORACLE_GHM_C);
    problem.bins = BINS;
    problem.momentum = 0.75;
    problem.state = &state;
    struct oracle_result result;
    oracle_evaluate(&problem, &result);
    double counts[BINS] = {0}, loss = 0;
    for (int i = 0; i < N; ++i)
      if (in_n(&batch, &ORACLE_GHM_C, i)) counts[(int)(BINS * norm_at(&batch, &ORACLE_GHM_C, i))] += 1;
    for (int k = 0; k < BINS; ++k) sums[k] = step == 0 ? counts[k] : 0.75 * sums[k] + 0.25 * counts[k];
    for (int i = 0; i < N; ++i) {
      if (!in_n(&batch, &ORACLE_GHM_C, i)) continue;
      double t = batch.labels[i / N_CLASSES] == i % N_CLASSES;
      loss += oracle_soft_ce(batch.logits[i], t).value / (BINS * sums[(int)(BINS * norm_at(&batch, &ORACLE_GHM_C, i))]);
    }
    for (int k = 0; k < BINS; ++k) cr_assert_eq(state.counts[k], (int64_t)counts[k]);
    cr_assert_float_eq(result.loss, loss, 1e-12 * loss);
    cr_assert_eq(state.steps, step + 1);
    oracle_result_free(&result);
  }
}

Test(oracle, given_weights_are_used_as_they_are) {
  random_source random = random_from(5);
  struct ghm_batch batch;
  draw(&batch, &random);
  struct oracle_ghm_state state = {.total = 3};
  for (int k = 0; k < 30; ++k) state.weights[k] = k + 1;
  struct oracle_problem problem = ghm_problem(&batch, &ORACLE_GHM_C);
  problem.use_stored_density = 1;
  problem.state = &state;
  struct oracle_result result;
  oracle_evaluate(&problem, &result);
  int checked = 0;
  for (int i = 0; i < N; ++i) {
    if (!in_n(&batch, &ORACLE_GHM_C, i)) continue;
    cr_assert_eq(result.inverse_density[i], 1 + (int)(30 * norm_at(&batch, &ORACLE_GHM_C, i)));
    checked += 1;
  }
  cr_assert(checked > 0 && state.total == 3 && state.steps == 0);
  oracle_result_free(&result);
}

/* ---- mmdetection ----------------------------------------------------------------------------------------------- */

/* The tensors that mmdetection's heads would pass: one-hot targets, label weights per element. */
static void as_tensors(const struct ghm_batch *batch, const struct oracle_loss *loss, double *target, double *weight) {
  for (int i = 0; i < N; ++i) {
    target[i] = loss == &ORACLE_GHM_R ? batch->targets[i] : batch->labels[i / N_CLASSES] == i % N_CLASSES;
    weight[i] = in_n(batch, loss, i) ? batch->row_weights[i / N_CLASSES] : 0;
  }
}

static void compare_modules(const struct oracle_loss *loss, int bins, double momentum) {
  struct mmdet_module module = {.bins = bins, .momentum = momentum, .mu = loss == &ORACLE_GHM_R ? 0.02 : 0};
  struct oracle_ghm_state state = {0};
  random_source random = random_from(6);
  struct ghm_batch batch;
  struct worst worst = {0};
  double target[N], weight[N], gradient[N];
  for (int step = 0; step < 20; ++step) {
    draw(&batch, &random);
    as_tensors(&batch, loss, target, weight);
    double want = mmdet_forward(&module, N, batch.logits, target, weight, gradient);
    struct oracle_problem problem = ghm_problem(&batch, loss);
    problem.variant = 1;
    problem.bins = bins;
    problem.momentum = momentum;
    problem.state = &state;
    struct oracle_result result;
    oracle_evaluate(&problem, &result);
    note(&worst, result.loss, want, 0, "step %d, loss", step);
    for (int i = 0; i < N; ++i) note(&worst, result.gradient[i], gradient[i], 1e-17, "step %d, element %d", step, i);
    oracle_result_free(&result);
  }
  conclude(loss == &ORACLE_GHM_R ? "mmdetection GHM-R" : "mmdetection GHM-C", &worst, 1e-12);
}

Test(oracle, mmdetection_modules) {
  compare_modules(&ORACLE_GHM_C, 30, 0.75);
  compare_modules(&ORACLE_GHM_C, 10, 0);
  compare_modules(&ORACLE_GHM_R, 10, 0.75);
  compare_modules(&ORACLE_GHM_R, 10, 0);
}
