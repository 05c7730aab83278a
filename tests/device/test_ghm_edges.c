/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where GHM's bins begin: each threshold is the first number whose exact norm reaches its edge, k/M or mmdetection's
 * float of it, which MPFR decides; and what is counted at these thresholds, and between an edge and its float.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <mpfr.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "losses/ghm.h"
#include "support/numbers.h"
#include "support/problem.h"

enum { PRECISION = 512, MOST_BINS = 1024 };

/* The edge of bin k of M as a ratio of two doubles. */
typedef struct ratio {
  double part, whole;
} ratio;

static ratio edge(int k, int bins, int variant) {
  if (variant == TARE_GHM_VARIANT_MMDET) return (ratio){(double)(float)((double)k / bins), 1};
  return (ratio){k, bins};
}

static double edge_value(int k, int bins, int variant) {
  return oracle_ghm_edge(k, bins, variant == TARE_GHM_VARIANT_MMDET);
}

/* Whether the exact norm of a key reaches the edge: each returns the sign of norm - edge. */
typedef int norm_order(double key, ratio edge, double mu);

/* sigmoid(u) against a/b, which is u against log(a) - log(b - a). */
static int compare_logit(double key, ratio edge, double mu) {
  static _Thread_local ratio of = {0, 0};
  static _Thread_local mpfr_t logit, rest;
  (void)mu;
  if (of.whole == 0) mpfr_inits2(PRECISION, logit, rest, (mpfr_ptr)NULL);
  if (of.part != edge.part || of.whole != edge.whole) {
    mpfr_set_d(logit, edge.part, MPFR_RNDN);
    mpfr_log(logit, logit, MPFR_RNDN);
    mpfr_set_d(rest, edge.whole, MPFR_RNDN);
    mpfr_sub_d(rest, rest, edge.part, MPFR_RNDN);
    mpfr_log(rest, rest, MPFR_RNDN);
    mpfr_sub(logit, logit, rest, MPFR_RNDN);
    of = edge;
  }
  return -mpfr_cmp_d(logit, key);
}

/* d/sqrt(d^2 + mu^2) against a/b, which is d^2*(b^2 - a^2) against mu^2*a^2: exact. */
static int compare_difference(double key, ratio edge, double mu) {
  mpfr_t left, right, square;
  mpfr_inits2(PRECISION, left, right, square, (mpfr_ptr)NULL);
  mpfr_set_d(left, edge.whole, MPFR_RNDN);
  mpfr_sqr(left, left, MPFR_RNDN);
  mpfr_set_d(square, edge.part, MPFR_RNDN);
  mpfr_sqr(square, square, MPFR_RNDN);
  mpfr_sub(left, left, square, MPFR_RNDN);
  mpfr_mul_d(left, left, key, MPFR_RNDN);
  mpfr_mul_d(left, left, key, MPFR_RNDN);
  mpfr_mul_d(right, square, mu, MPFR_RNDN);
  mpfr_mul_d(right, right, mu, MPFR_RNDN);
  const int order = mpfr_cmp(left, right);
  mpfr_clears(left, right, square, (mpfr_ptr)NULL);
  return order;
}

/* The norm itself. */
static int compare_norm(double key, ratio edge, double mu) {
  mpfr_t product;
  (void)mu;
  mpfr_init2(product, PRECISION);
  mpfr_set_d(product, edge.whole, MPFR_RNDN);
  mpfr_mul_d(product, product, key, MPFR_RNDN);
  const int order = mpfr_cmp_d(product, edge.part);
  mpfr_clear(product);
  return order;
}

static void expect_first(norm_order *compare, double key, double before, int k, int bins, int variant, double mu) {
  const ratio e = edge(k, bins, variant);
  const bool is_first = compare(key, e, mu) >= 0 && compare(before, e, mu) < 0;
  if (!is_first)
    cr_assert_fail("variant %d, mu %g: bin %d of %d begins at %.17g, which is not the first", variant, mu, k, bins,
                   key);
}

static int64_t common_divisor(int64_t a, int64_t b) { return b == 0 ? a : common_divisor(b, a % b); }

/* Returns how many thresholds were checked. */
static int64_t check_thresholds(int32_t kind, int32_t variant, double mu, int bins) {
  static _Thread_local tare_bins made; /* from call to call, as a context keeps them */
  tare_loss_spec loss = {0};
  int64_t checked = 0;
  loss.kind = kind;
  loss.ghm = (tare_ghm_parameters){.bins = bins, .variant = variant, .mu = mu};
  tare_bins_make(&made, &loss);
  norm_order *compare = kind == TARE_LOSS_GHM_R ? compare_difference : compare_logit;
  for (int k = 1; k < bins; k++) {
    if (common_divisor(k, bins) > 1) continue; /* met before */
    const double key = made.lower_f64[k], norm = made.norm_f64[k];
    const float narrow = made.lower_f32[k], narrow_norm = made.norm_f32[k];
    expect_first(compare, key, nextafter(key, -INFINITY), k, bins, variant, mu);
    expect_first(compare, (double)narrow, (double)nextafterf(narrow, -INFINITY), k, bins, variant, mu);
    expect_first(compare_norm, norm, nextafter(norm, 0), k, bins, variant, mu);
    expect_first(compare_norm, (double)narrow_norm, (double)nextafterf(narrow_norm, 0), k, bins, variant, mu);
    checked++;
  }
  return checked;
}

static void check_every_count(int32_t kind, double mu, int step) {
  int64_t checked = 0;
  for (int32_t variant = TARE_GHM_VARIANT_PAPER; variant <= TARE_GHM_VARIANT_MMDET; variant++)
    for (int bins = 1; bins <= MOST_BINS; bins += step) checked += check_thresholds(kind, variant, mu, bins);
  printf("%s, mu %g: %lld thresholds\n", tare_loss_name(kind), mu, (long long)checked);
  cr_assert(checked > 0);
}

Test(ghm_edges, thresholds_of_logits) { check_every_count(TARE_LOSS_GHM_C, 0.02, (int)test_size(1, 61)); }

Test(ghm_edges, thresholds_of_differences) {
  static const double mus[] = {0.02, 1, 0.1, 3, 1e-30, 1e30};
  for (size_t m = 0; m < sizeof mus / sizeof *mus; m++)
    check_every_count(TARE_LOSS_GHM_R, mus[m], (int)test_size(m < 2 ? 1 : 11, 61));
}

/* Other parameters on the same context: thresholds are not those of the call before. */
Test(ghm_edges, thresholds_are_made_again) {
  for (int turn = 0; turn < 2; turn++) {
    cr_assert_gt(check_thresholds(TARE_LOSS_GHM_C, TARE_GHM_VARIANT_PAPER, 0.02, 30), 0);
    cr_assert_gt(check_thresholds(TARE_LOSS_GHM_C, TARE_GHM_VARIANT_MMDET, 0.02, 30), 0);
    cr_assert_gt(check_thresholds(TARE_LOSS_GHM_R, TARE_GHM_VARIANT_MMDET, 0.02, 30), 0);
    cr_assert_gt(check_thresholds(TARE_LOSS_GHM_R, TARE_GHM_VARIANT_MMDET, 0.03, 30), 0);
    cr_assert_gt(check_thresholds(TARE_LOSS_GHM_R, TARE_GHM_VARIANT_MMDET, 0.03, 7), 0);
  }
}

/* ---- What is counted --------------------------------------------------------------------------------------------- */

static void check_counts(problem *p, const test_device *device) {
  CHECK_PROBLEM(p, device);
  for (int k = 0; k < p->loss.ghm.bins; k++) {
    const int64_t got = (int64_t)p->ghm_state[2 + k], want = p->oracle_state->counts[k];
    cr_assert_eq(got, want, "%s: bin %d: %lld, want %lld", problem_text(p), k, (long long)got, (long long)want);
  }
  problem_free(p);
}

static problem *column(int32_t kind, int32_t dtype, int32_t variant, int bins, int64_t rows) {
  problem *p = problem_new(kind, dtype, rows, 1);
  p->loss.ghm.bins = bins;
  p->loss.ghm.variant = variant;
  problem_add_ghm_state(p);
  return p;
}

static double step(double x, int steps) {
  for (; steps > 0; steps--) x = nextafter(x, INFINITY);
  for (; steps < 0; steps++) x = nextafter(x, -INFINITY);
  return x;
}

/* Logits, and differences, in double: at every threshold and up to two doubles on either side. */
Test(ghm_edges, counts_at_the_thresholds_in_double) {
  static const int counts[] = {2, 3, 10, 30, 32, 33, 100, 255, 1000, 1024};
  FOR_EACH_DEVICE(device) {
    for (size_t b = 0; b < sizeof counts / sizeof *counts; b++) {
      const int bins = counts[b];
      for (int32_t variant = TARE_GHM_VARIANT_PAPER; variant <= TARE_GHM_VARIANT_MMDET; variant++) {
        problem *logits = column(TARE_LOSS_GHM_C, TARE_DTYPE_F64, variant, bins, bins * 10);
        problem *differences = column(TARE_LOSS_GHM_R, TARE_DTYPE_F64, variant, bins, bins * 10);
        for (int i = 0; i < bins * 10; i++) {
          const double e = edge_value(i / 10, bins, variant), sign = i % 2 == 1 ? -1 : 1;
          const double u = i < 10 ? -90 : log(e / (1 - e)), d = logits->loss.ghm.mu * e / sqrt((1 - e) * (1 + e));
          logits->labels[i] = i % 2 - 1;
          logits->logits[i] = sign * step(u, i % 10 / 2 - 2);
          differences->labels[i] = 0;
          differences->targets[i] = 0;
          differences->logits[i] = sign * step(d, i % 10 / 2 - 2);
        }
        check_counts(logits, device);
        check_counts(differences, device);
      }
    }
  }
}

/* Logits in float at every threshold, up to two floats on either side, and far from all. There vectors tell bins by the
 * sigmoid, and keys near to an edge by the threshold. */
Test(ghm_edges, counts_at_the_thresholds_in_float) {
  static const int counts[] = {2, 30, 32, 33, 100, 1024};
  static const float far[] = {0, -0.0f, 104, -104, 17, -17, INFINITY, -INFINITY, NAN, 1e-40f};
  static tare_bins made;
  FOR_EACH_DEVICE(device) {
    for (size_t b = 0; b < 2 * sizeof counts / sizeof *counts; b++) {
      const int bins = counts[b / 2];
      problem *p = column(TARE_LOSS_GHM_C, TARE_DTYPE_F32, b % 2 ? TARE_GHM_VARIANT_MMDET : TARE_GHM_VARIANT_PAPER,
                          bins, bins * 10);
      tare_bins_make(&made, &p->loss);
      for (int i = 0; i < bins * 10; i++) {
        float u = i < 10 ? far[i] : made.lower_f32[i / 10];
        for (int k = i % 10 / 2; i >= 10 && k != 2; k += k < 2 ? 1 : -1)
          u = nextafterf(u, k < 2 ? -INFINITY : INFINITY);
        p->labels[i] = i % 2 - 1;
        p->logits[i] = (double)(i % 2 == 1 ? -u : u);
      }
      check_counts(p, device);
    }
  }
}

/* Between k/M and the float of it. So many bins are not compared each: a bin is guessed first, then corrected. */
Test(ghm_edges, edges_of_mmdetection_are_floats) {
  FOR_EACH_DEVICE(device) {
    for (int bins = 2; bins <= MOST_BINS; bins += test_size(7, 97)) {
      problem *p = column(TARE_LOSS_GHM_C, TARE_DTYPE_F64, TARE_GHM_VARIANT_MMDET, bins, 3 * (bins - 1));
      problem *dense = column(TARE_LOSS_GHM_C, TARE_DTYPE_F64, TARE_GHM_VARIANT_MMDET, bins, 3 * (bins - 1));
      dense->targets = calloc((size_t)dense->rows, sizeof *dense->targets);
      dense->target_dtype = TARE_DTYPE_F64;
      for (int i = 0; i < 3 * (bins - 1); i++) {
        const int k = 1 + i / 3;
        const double exact = (double)k / bins, rounded = (double)(float)exact;
        const double nearest = rounded == exact ? exact + 1e-9 : rounded;
        const double e =
            exact + (nearest - exact) * (i % 3 * 0.75 + 0.1); /* at k/M almost, and on both sides of its float */
        p->labels[i] = i % 2 - 1;
        p->logits[i] = (i % 2 == 1 ? -1 : 1) * log(e / (1 - e));
        dense->labels[i] = -1;
        dense->targets[i] = 0.5;
        dense->logits[i] = k < bins / 2 ? log((0.5 + e) / (0.5 - e)) : -60; /* g = e, or 1/2 */
      }
      check_counts(p, device);
      check_counts(dense, device);
    }
  }
}

/* The norm of this logit is 0.3199999964: below 32/100, not below the float of it. */
Test(ghm_edges, a_logit_between_an_edge_and_its_float) {
  FOR_EACH_DEVICE(device) {
    for (int32_t variant = TARE_GHM_VARIANT_PAPER; variant <= TARE_GHM_VARIANT_MMDET; variant++) {
      problem *p = column(TARE_LOSS_GHM_C, TARE_DTYPE_F64, variant, 100, 1);
      p->labels[0] = 0;
      p->logits[0] = 0.75377182;
      outcome *o = problem_run(p, device);
      cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
      cr_assert_eq(p->ghm_state[2 + (variant == TARE_GHM_VARIANT_MMDET ? 32 : 31)], 1u);
      outcome_free(o);
      problem_free(p);
    }
  }
}
