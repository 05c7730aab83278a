/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The oracle itself: against the textbook formulas in MPFR, against numbers worked by hand, at its limits, and for a
 * whole batch against finite differences, brute force and mmdetection's modules. The library takes no part.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "oracle/literal.h"
#include "oracle/mmdet.h"
#include "oracle/oracle.h"
#include "support/random.h"

/* ---- Errors ---------------------------------------------------------------------------------------------------- */

struct worst {
  long points;
  double error;
  char where[128];
};

/* Takes note of the relative error beyond `absolute`. Below 1e-290 double itself has no digits left. */
__attribute__((format(printf, 5, 6))) static void note(struct worst *worst, double got, double want, double absolute,
                                                       const char *where, ...) {
  worst->points += 1;
  double beyond = got == want ? 0 : fabs(got - want) - fmax(absolute, 1e-290);
  double error = beyond > 0 ? beyond / fabs(want) : isnan(beyond) ? INFINITY : 0;
  if (error <= worst->error) return;
  worst->error = error;
  va_list arguments;
  va_start(arguments, where);
  vsnprintf(worst->where, sizeof worst->where, where, arguments);
  va_end(arguments);
}

static void conclude(const char *what, const struct worst *worst, double bound) {
  printf("%s: %ld points, worst relative error %.2g at %s\n", what, worst->points, worst->error, worst->where);
  cr_assert(worst->points > 0, "%s: nothing was checked", what);
  cr_assert(worst->error <= bound, "%s: error %g above %g at %s", what, worst->error, bound, worst->where);
}

/* ---- Points ---------------------------------------------------------------------------------------------------- */

static const double fixed_points[] = {0,   1e-300, 1e-30, 1e-16, 1e-8, 1e-3,  0.1, 0.25, 0.5, 0.6931, 1,
                                      2,   3.66,   5,     8.32,  10,   17,    20,  37,   40,  88.72,  100,
                                      128, 300,    400,   500,   700,  708.4, 745, 750,  800};
enum { FIXED = sizeof fixed_points / sizeof *fixed_points, DRAWN = 70, POINTS = 2 * FIXED + DRAWN };

/* Both signs of the fixed points, and draws of every size up to 800. */
static const double *points(void) {
  static double all[POINTS];
  random_source random = random_from(1);
  for (size_t i = 0; i < FIXED; ++i) {
    all[2 * i] = fixed_points[i];
    all[2 * i + 1] = -fixed_points[i];
  }
  for (int i = 2 * FIXED; i < POINTS; ++i)
    all[i] = (random_uniform(&random) < 0.5 ? 1 : -1) * exp(log(1e-4) + random_uniform(&random) * log(8e6));
  return all;
}

static const double gammas[] = {0, 0.5, 1, 1.5, 2, 3.7, 5};
enum { GAMMAS = sizeof gammas / sizeof *gammas };

/* ---- Sigmoid losses -------------------------------------------------------------------------------------------- */

Test(oracle, hard_targets_are_the_textbook_formula) {
  struct worst value = {0}, derivative = {0};
  const double *z = points();
  for (int g = 0; g < GAMMAS; ++g) {
    for (int i = 0; i < POINTS; ++i) {
      struct oracle_pair want = literal_sigmoid(z[i], 1, gammas[g], 0);
      struct oracle_pair got = oracle_focal(oracle_point(z[i]), gammas[g]);
      note(&value, got.value, want.value, 0, "z %.17g gamma %g", z[i], gammas[g]);
      note(&derivative, got.derivative, want.derivative, 0, "z %.17g gamma %g", z[i], gammas[g]);
    }
  }
  conclude("focal", &value, 1e-14);
  conclude("focal, derivative", &derivative, 1e-14);
}

Test(oracle, a_hard_negative_mirrors_a_positive) {
  const double *x = points();
  for (int i = 0; i < POINTS; ++i) {
    struct oracle_pair positive = oracle_soft_poly1_extra(-x[i], 1, 1.5, 0.7);
    struct oracle_pair negative = oracle_soft_poly1_extra(x[i], 0, 1.5, 0.7);
    cr_assert_eq(positive.value, negative.value);
    cr_assert_eq(positive.derivative, -negative.derivative);
    cr_assert_eq(oracle_soft_focal(x[i], 0, 3.7).value, oracle_focal(oracle_point(-x[i]), 3.7).value);
    cr_assert_eq(oracle_soft_ce(x[i], 1).derivative, oracle_ce(oracle_point(x[i])).derivative);
  }
  struct oracle_pair want = literal_sigmoid(1.25, 0, 2, 0);
  cr_assert_float_eq(oracle_soft_focal(1.25, 0, 2).value, want.value, 1e-15);
  cr_assert_float_eq(oracle_soft_focal(1.25, 0, 2).derivative, want.derivative, 1e-15);
}

Test(oracle, cross_entropy_is_focal_without_gamma) {
  const double *z = points();
  for (int i = 0; i < POINTS; ++i) {
    struct oracle_pair ce = oracle_ce(oracle_point(z[i])), focal = oracle_focal(oracle_point(z[i]), 0);
    cr_assert_eq(ce.value, focal.value, "z %g", z[i]);
    cr_assert_eq(ce.derivative, focal.derivative, "z %g", z[i]);
  }
}

Test(oracle, poly1_is_the_textbook_formula) {
  struct worst value = {0}, derivative = {0};
  const double *z = points();
  static const double epsilons[] = {1, -0.4, 3};
  for (int e = 0; e < 3; ++e) {
    for (int i = 0; i < POINTS; ++i) {
      double gamma = gammas[(i + e) % GAMMAS];
      struct oracle_pair want = literal_sigmoid(z[i], 1, gamma, epsilons[e]);
      struct oracle_pair focal = oracle_focal(oracle_point(z[i]), gamma);
      struct oracle_pair extra = oracle_poly1_extra(oracle_point(z[i]), gamma, epsilons[e]);
      double absolute = 1e-15 * (fabs(extra.value) + fabs(extra.derivative)); /* a negative epsilon truly cancels */
      note(&value, focal.value + extra.value, want.value, absolute, "z %.17g gamma %g", z[i], gamma);
      note(&derivative, focal.derivative + extra.derivative, want.derivative, absolute, "z %.17g gamma %g", z[i],
           gamma);
    }
  }
  conclude("Poly-1", &value, 1e-14);
  conclude("Poly-1, derivative", &derivative, 1e-14);
}

Test(oracle, soft_targets_are_the_textbook_formula) {
  static const double targets[] = {1e-6, 1e-3, 0.1, 0.5, 0.9, 0.999};
  struct worst value = {0}, derivative = {0};
  const double *x = points();
  for (int k = 0; k < 6; ++k) {
    for (int i = 0; i < POINTS; ++i) {
      double t = targets[k], gamma = gammas[(i + k) % GAMMAS];
      struct oracle_pair want = literal_sigmoid(x[i], t, gamma, 0.5);
      struct oracle_pair focal = oracle_soft_focal(x[i], t, gamma);
      struct oracle_pair extra = oracle_soft_poly1_extra(x[i], t, gamma, 0.5);
      note(&value, focal.value + extra.value, want.value, 0, "x %.17g t %g gamma %g", x[i], t, gamma);
      note(&derivative, focal.derivative + extra.derivative, want.derivative, 1e-15, "x %.17g t %g gamma %g", x[i], t,
           gamma);
    }
  }
  conclude("soft focal and Poly-1", &value, 1e-14);
  conclude("soft focal and Poly-1, derivative (beyond 1e-15)", &derivative, 1e-14);
}

static struct oracle_pair varifocal(double x, double t, double gamma, int detached) {
  if (t > 0) return oracle_varifocal_label(x, t);
  const struct oracle_detached negative = oracle_scored_negative(x, gamma, detached, NAN);
  return (struct oracle_pair){negative.value, negative.derivative};
}

Test(oracle, varifocal_is_the_textbook_formula) {
  static const double targets[] = {0, 1e-30, 1e-3, 0.5, 0.999, 1};
  struct worst value = {0}, derivative = {0};
  const double *x = points();
  for (int k = 0; k < 6; ++k) {
    for (int i = 0; i < POINTS; ++i) {
      double t = targets[k], gamma = gammas[(i + k) % GAMMAS];
      for (int detached = 0; detached < 2; ++detached) {
        struct oracle_pair want = literal_varifocal(x[i], t, gamma, detached);
        struct oracle_pair got = varifocal(x[i], t, gamma, detached);
        note(&value, got.value, want.value, 0, "x %.17g t %g gamma %g", x[i], t, gamma);
        note(&derivative, got.derivative, want.derivative, t > 0 && t < 1 ? 1e-15 * t : 0,
             "x %.17g t %g gamma %g, detached %d", x[i], t, gamma, detached);
      }
    }
  }
  conclude("varifocal", &value, 1e-14);
  conclude("varifocal, derivative (beyond 1e-15*t)", &derivative, 1e-14);
  cr_assert_eq(varifocal(INFINITY, 0, 2, 0).derivative, 1);
  cr_assert_eq(varifocal(INFINITY, 0, 2, 1).derivative, 1);
  cr_assert_eq(varifocal(-INFINITY, 0, 0.5, 0).value, 0);
  cr_assert_eq(varifocal(-INFINITY, 0, 0.5, 1).value, 0);
  cr_assert_eq(varifocal(-INFINITY, 0.25, 0.5, 0).value, INFINITY);
}

/* The label's elements of three losses. The third has the exponent of p, at most 1. */
static struct oracle_pair scored_label(int loss, double x, double t, double exponent) {
  if (loss == 0) return oracle_quality_focal(x, t, exponent);
  if (loss == 1) return oracle_matchability_label(x, t, exponent);
  const struct oracle_detached pair = oracle_iou_aware_label(x, t, exponent, NAN);
  return (struct oracle_pair){pair.value, pair.derivative};
}

static struct oracle_pair literal_label(int loss, double x, double t, double exponent) {
  if (loss == 0) return literal_quality_focal(x, t, exponent);
  return loss == 1 ? literal_matchability(x, t, exponent) : literal_iou_aware(x, t, exponent);
}

/* What a difference p - target loses, and s^(beta-1) makes of it, is the oracle's error too. */
Test(oracle, labels_with_scores_are_the_textbook_formula) {
  static const double scores[] = {0, 1e-30, 1e-3, 0.3, 0.5, 0.999, 1}, exponents[] = {0, 0.25, 0.5, 1};
  static const char *const names[] = {"quality focal", "matchability", "IoU-aware"};
  const double *x = points();
  for (int loss = 0; loss < 3; ++loss) {
    struct worst value = {0}, derivative = {0};
    for (int k = 0; k < 7; ++k) {
      for (int i = k % 3; i < POINTS; i += 3) {
        double t = scores[k], exponent = loss < 2 ? gammas[(i + k) % GAMMAS] : exponents[(i + k) % 4];
        double s = fabs(oracle_point(x[i]).p - t);
        if (loss == 0 && s < 1e-3 && t > 1e-30 && t < 1) continue;
        struct oracle_pair want = literal_label(loss, x[i], t, exponent), got = scored_label(loss, x[i], t, exponent);
        double lost = 4e-16 * fmax(x[i], 1), of_s = loss == 0 && exponent < 1 ? exponent * pow(s, exponent - 2) : 1;
        double terms = t == 1 ? loss == 2 && exponent == 1 : t > 0 || loss == 2;
        note(&value, got.value, want.value, lost * terms, "x %.17g t %g exponent %g", x[i], t, exponent);
        note(&derivative, got.derivative, want.derivative, lost * of_s * terms, "x %.17g t %g exponent %g", x[i], t,
             exponent);
      }
    }
    conclude(names[loss], &value, 1e-14);
    conclude(names[loss], &derivative, 1e-14);
  }
}

Test(oracle, labels_with_scores_at_their_limits) {
  static const double beyond[] = {0.05, 0.5, 1, 2, 50};
  for (int i = 0; i < 5; ++i) {
    cr_assert_eq(oracle_quality_focal(0, 0.5, beyond[i]).derivative, 0, "beta %g at p = t", beyond[i]);
    cr_assert_eq(oracle_quality_focal(0, 0.5, beyond[i]).value, 0);
    cr_assert_eq(oracle_quality_focal(-INFINITY, 1, beyond[i]).derivative, -1);
    cr_assert_eq(oracle_quality_focal(INFINITY, 1, beyond[i]).value, 0);
    cr_assert_float_eq(oracle_quality_focal(INFINITY, 0.25, beyond[i]).derivative, pow(0.75, beyond[i] + 1), 1e-15);
    cr_assert_eq(oracle_matchability_label(INFINITY, 0, beyond[i]).derivative, 1);
    cr_assert_eq(oracle_matchability_label(-INFINITY, 0, beyond[i]).value, 0);
  }
  cr_assert_eq(oracle_quality_focal(0, 0.5, 0).value, log(2));
  cr_assert_eq(oracle_varifocal_label(NAN, 0).value, 0);
  cr_assert_eq(oracle_iou_aware_label(-INFINITY, 1, 0.25, NAN).derivative, -0.01);
  cr_assert_eq(oracle_iou_aware_label(-INFINITY, 0.5, 0, NAN).derivative, -0.5);
  cr_assert_eq(oracle_iou_aware_label(INFINITY, 1, 0.25, NAN).value, 0);
  cr_assert_eq(oracle_iou_aware_label(0, 0, 1, NAN).derivative, 0);
}

Test(oracle, sigmoid_limits) {
  for (int g = 0; g < GAMMAS; ++g) {
    struct oracle_pair down = oracle_focal(oracle_point(-INFINITY), gammas[g]);
    struct oracle_pair up = oracle_focal(oracle_point(INFINITY), gammas[g]);
    cr_assert_eq(down.value, INFINITY);
    cr_assert_eq(down.derivative, -1);
    cr_assert_eq(up.value, 0);
    cr_assert_eq(up.derivative, 0);
    struct oracle_pair soft = oracle_soft_focal(INFINITY, 0.25, gammas[g]);
    cr_assert_eq(soft.value, INFINITY);
    cr_assert_float_eq(soft.derivative, pow(0.75, gammas[g] + 1), 1e-15);
    cr_assert(isnan(oracle_focal(oracle_point(NAN), gammas[g] + 0.1).value));
  }
  struct oracle_pair extra = oracle_poly1_extra(oracle_point(-INFINITY), 2, 1.5);
  cr_assert_eq(extra.value, 1.5);
  cr_assert_eq(extra.derivative, 0);
}

/* p of the textbook example, and its labels. */
static const double worked_p[] = {0.9, 0.1, 0.3, 0.2, 0.6};
static const int worked_y[] = {1, 0, 0, 0, 1};

Test(oracle, worked_numbers) {
  static const double ce[] = {0.105361, 0.105361, 0.356675, 0.223144, 0.510826};
  static const double focal[] = {0.000263, 0.000790, 0.024076, 0.006694, 0.020433};
  double ce_mean = 0, focal_mean = 0;
  for (int i = 0; i < 5; ++i) {
    double x = log(worked_p[i] / (1 - worked_p[i]));
    double own_ce = oracle_soft_ce(x, worked_y[i]).value;
    double own_focal = oracle_alpha(0.25, worked_y[i]) * oracle_soft_focal(x, worked_y[i], 2).value;
    cr_assert_float_eq(own_ce, ce[i], 5.1e-7);
    cr_assert_float_eq(own_focal, focal[i], 5.1e-7);
    ce_mean += own_ce / 5;
    focal_mean += own_focal / 5;
  }
  cr_assert_float_eq(ce_mean, 0.260273, 5.1e-7);
  cr_assert_float_eq(focal_mean, 0.010451, 5.1e-7);
}

/* ---- Softmax losses -------------------------------------------------------------------------------------------- */

enum { WIDTH = 5 };
static const double softmax_rows[][WIDTH] = {{20, 0, 0, 0, 0},         {0, 0, 0, 0, 0},      {-3, 2.5, 0.125, 7, -7},
                                             {800, -800, 0, 1, 2},     {-50, 40, 40, 39, 0}, {1e-3, -1e-3, 0, 2e-3, 1},
                                             {300, 299, 298, 200, 100}};
enum { SOFTMAX_ROWS = sizeof softmax_rows / sizeof *softmax_rows };

static void check_softmax_row(const double *x, int64_t y, double gamma, struct worst *value, struct worst *slope) {
  double t[WIDTH] = {0}, want_dx[WIDTH], dx[WIDTH];
  t[y] = 1;
  double want = literal_softmax(WIDTH, x, t, gamma, want_dx);
  note(value, oracle_softmax_row(WIDTH, x, y, gamma, dx), want, 0, "x0 %g y %d gamma %g", x[0], (int)y, gamma);
  for (int c = 0; c < WIDTH; ++c)
    note(slope, dx[c], want_dx[c], 0, "x0 %g y %d gamma %g, class %d", x[0], (int)y, gamma, c);
}

Test(oracle, softmax_rows_are_the_textbook_formula) {
  struct worst value = {0}, slope = {0};
  for (int r = 0; r < SOFTMAX_ROWS; ++r)
    for (int y = 0; y < WIDTH; ++y)
      for (int g = 0; g < GAMMAS; g += 1 + y % 2) check_softmax_row(softmax_rows[r], y, gammas[g], &value, &slope);
  conclude("softmax", &value, 1e-15);
  conclude("softmax, gradient", &slope, 1e-15);
}

Test(oracle, soft_softmax_rows_are_the_textbook_formula) {
  static const double targets[][WIDTH] = {
      {0.9, 0.025, 0.025, 0.025, 0.025}, {0.5, 0, 0.5, 0, 0}, {0, 2, 0, 0.25, 0}, {0, 0, 0, 0, 0.5}, {0, 0, 0, 0, 0}};
  struct worst value = {0}, slope = {0};
  for (int r = 0; r < SOFTMAX_ROWS; ++r) {
    for (int k = 0; k < 5; ++k) {
      double want_dx[WIDTH], dx[WIDTH];
      double want = literal_softmax(WIDTH, softmax_rows[r], targets[k], 0, want_dx);
      note(&value, oracle_soft_softmax_row(WIDTH, softmax_rows[r], targets[k], dx), want, 0, "row %d t %d", r, k);
      for (int c = 0; c < WIDTH; ++c) note(&slope, dx[c], want_dx[c], 1e-18, "row %d t %d class %d", r, k, c);
    }
  }
  conclude("soft softmax", &value, 1e-15);
  conclude("soft softmax, gradient (beyond 1e-18)", &slope, 1e-15);
}

/* Small, large and equal offsets, with labels and with dense targets. */
Test(oracle, adjusted_softmax_rows_are_the_textbook_formula) {
  static const double offsets[][WIDTH] = {{-0.5, -2, -7, -0.01, -12}, {30, -30, 0, 1e-9, 5}, {-3, -3, -3, -3, -3}};
  static const double targets[][WIDTH] = {
      {1, 0, 0, 0, 0}, {0, 0, 0, 1, 0}, {0, 0, 0, 0, 1}, {0.9, 0.025, 0.025, 0.025, 0.025}, {0, 2, 0, 0.25, 0}};
  static const int labels[] = {0, 3, 4};
  struct worst value = {0}, slope = {0};
  for (int r = 0; r < SOFTMAX_ROWS; ++r) {
    for (int o = 0; o < 3; ++o) {
      for (int k = 0; k < 5; ++k) {
        double want_dx[WIDTH], dx[WIDTH];
        const double *x = softmax_rows[r], *t = targets[k];
        double want = literal_adjusted_softmax(WIDTH, x, offsets[o], t, 0, want_dx);
        double got = oracle_adjusted_soft_softmax_row(WIDTH, x, offsets[o], t, dx);
        note(&value, got, want, 0, "row %d offsets %d t %d", r, o, k);
        if (k < 3) {
          got = oracle_adjusted_softmax_row(WIDTH, x, offsets[o], labels[k], 0, dx);
          note(&value, got, want, 0, "row %d offsets %d label %d", r, o, k);
        }
        for (int c = 0; c < WIDTH; ++c)
          note(&slope, dx[c], want_dx[c], 1e-18, "row %d offsets %d t %d class %d", r, o, k, c);
      }
    }
  }
  conclude("adjusted softmax", &value, 1e-15);
  conclude("adjusted softmax, gradient (beyond 1e-18)", &slope, 1e-15);
}

Test(oracle, logit_adjustment_is_the_textbook_formula) {
  static const double counts[][WIDTH] = {{1, 1, 1, 1, 1},
                                         {1e9, 1, 0, 3, 20},
                                         {0, 0, 0, 0, 0},
                                         {0.3, 0.2, 0.1, 0.35, 0.05},
                                         {1e300, 1e-300, 1e300, 2e299, 1},
                                         {1e15, 1, 1, 1, 1}};
  struct worst worst = {0};
  for (int k = 0; k < 6; ++k) {
    for (int i = 0; i < 3; ++i) {
      const double tau = (double[]){1, 0.5, -2.5}[i];
      double offset[WIDTH];
      oracle_logit_adjustment(WIDTH, counts[k], tau, offset);
      for (int c = 0; c < WIDTH; ++c)
        note(&worst, offset[c], literal_logit_adjustment(WIDTH, counts[k], tau, c), 0, "counts %d tau %g class %d", k,
             tau, c);
    }
  }
  conclude("logit adjustment", &worst, 1e-15);
}

static void expect_row(const char *what, const double x[3], double loss, const double dx[3]) {
  double got[3];
  double value = oracle_softmax_row(3, x, 0, 2, got);
  cr_assert(value == loss || (isnan(value) && isnan(loss)), "%s: loss %g", what, value);
  for (int c = 0; c < 3; ++c)
    cr_assert(fabs(got[c] - dx[c]) < 1e-15 || (isnan(got[c]) && isnan(dx[c])), "%s: dx[%d] %g", what, c, got[c]);
}

Test(oracle, softmax_limits) {
  const double i = INFINITY, n = NAN;
  expect_row("-inf at the label", (double[]){-i, 1, 1}, i, (double[]){-1, 0.5, 0.5});
  expect_row("+inf at the label", (double[]){i, 1, 2}, 0, (double[]){0, 0, 0});
  expect_row("one +inf off the label", (double[]){1, i, 2}, i, (double[]){-1, 1, 0});
  expect_row("several +inf", (double[]){1, i, i}, n, (double[]){n, n, n});
  expect_row("+inf at the label and off it", (double[]){i, i, 0}, n, (double[]){n, n, n});
  expect_row("all -inf", (double[]){-i, -i, -i}, n, (double[]){n, n, n});
  expect_row("all others -inf", (double[]){-5, -i, -i}, 0, (double[]){0, 0, 0});
  expect_row("NaN off the label", (double[]){1, n, 2}, n, (double[]){n, n, n});
  double x = 3, dx = 7;
  cr_assert_eq(oracle_softmax_row(1, &x, 0, 0, &dx), 0);
  cr_assert_eq(dx, 0);
  double soft[3];
  cr_assert_eq(oracle_soft_softmax_row(3, (double[]){i, 0, 0}, (double[]){0.5, 0.5, 0}, soft), i);
  cr_assert_eq(soft[0], 0.5);
  cr_assert_eq(soft[1], -0.5);
}

/* ---- Class-balanced weights ------------------------------------------------------------------------------------ */

Test(oracle, effective_number) {
  static const double betas[] = {0, 0.5, 0.9, 0.999, 0.9999, 0.999999, 0.999999999};
  static const double counts[] = {0, 1, 2, 3, 10, 333, 1000, 123456, 1e6, 1e9, 1e15};
  struct worst worst = {0};
  for (int b = 0; b < 7; ++b)
    for (int n = 0; n < 11; ++n)
      note(&worst, oracle_effective_number(counts[n], betas[b]), literal_effective_number(counts[n], betas[b]), 0,
           "n %g beta %g", counts[n], betas[b]);
  conclude("effective number", &worst, 1e-15);
  cr_assert_float_eq(oracle_effective_number(1, 0.999), 1, 1e-15);
  cr_assert_float_eq(oracle_effective_number(1000, 0.999), 632.305, 5e-4);
  cr_assert_float_eq(oracle_effective_number(INFINITY, 0.999), 1000, 1e-9);
}

Test(oracle, class_balanced_weights_sum_to_the_classes_present) {
  static const int64_t counts[] = {10, 0, 1000, 1};
  double w[4];
  oracle_class_balanced(4, counts, 0.999, NULL, w);
  cr_assert_float_eq(w[0] + w[2] + w[3], 3, 1e-14);
  cr_assert_eq(w[1], 0);
  cr_assert_float_eq(w[0] / w[2], oracle_effective_number(1000, 0.999) / oracle_effective_number(10, 0.999), 1e-12);
  oracle_class_balanced(4, counts, 0, NULL, w);
  cr_assert_float_eq(w[0], 1, 1e-15);
}

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

/* ---- Batches --------------------------------------------------------------------------------------------------- */

enum { ROWS = 6, CLASSES = 3 };

/* One row of each kind: class 0, class 2, background, ignored over NaN, class 1 of weight 0 over NaN, class 1. */
struct small_batch {
  double logits[ROWS * CLASSES], row_weights[ROWS], element_weights[ROWS * CLASSES];
  int64_t labels[ROWS];
};

static struct small_batch small_batch(void) {
  struct small_batch batch = {.row_weights = {1, 0.5, 2, 1, 0, 0.25}, .labels = {0, 2, -1, -2, 1, 1}};
  random_source random = random_from(2);
  for (int i = 0; i < ROWS * CLASSES; ++i) {
    batch.logits[i] = 2 * random_normal(&random);
    batch.element_weights[i] = 0.5 + random_uniform(&random);
  }
  batch.logits[(size_t)3 * CLASSES] = NAN;
  batch.logits[(size_t)4 * CLASSES + 1] = NAN;
  return batch;
}

static struct oracle_problem problem_of(struct small_batch *batch, enum oracle_loss loss) {
  struct oracle_problem problem;
  oracle_problem_init(&problem, loss, ROWS, CLASSES);
  problem.logits = batch->logits;
  problem.labels = batch->labels;
  problem.row_weights = batch->row_weights;
  return problem;
}

static double loss_of(const struct oracle_problem *problem) {
  struct oracle_result result;
  oracle_evaluate(problem, &result);
  double loss = result.loss;
  oracle_result_free(&result);
  return loss;
}

/* The gradient of a whole batch, and that row and element losses add up to the loss. */
static void check_differences(struct oracle_problem *problem, struct small_batch *batch) {
  struct oracle_result result;
  oracle_evaluate(problem, &result);
  double rows = 0, elements = 0;
  for (int i = 0; i < ROWS; ++i) rows += result.row_loss[i];
  cr_assert_float_eq(rows / result.divisor, result.loss, 1e-14);
  for (int i = 0; i < ROWS * CLASSES; ++i) {
    if (result.element_loss) elements += result.element_loss[i];
    if (isnan(batch->logits[i])) {
      cr_assert_eq(result.gradient[i], 0);
      continue;
    }
    double x = batch->logits[i], h = 1e-5;
    problem->factors = result.factors;
    batch->logits[i] = x + h;
    double above = loss_of(problem);
    batch->logits[i] = x - h;
    double below = loss_of(problem);
    batch->logits[i] = x;
    cr_assert_float_eq(result.gradient[i], problem->gradient_scale * (above - below) / (2 * h), 1e-9,
                       "loss %d element %d: %g", (int)problem->loss, i, result.gradient[i]);
  }
  if (result.element_loss) cr_assert_float_eq(elements, rows, 1e-14);
  problem->factors = NULL;
  oracle_result_free(&result);
}

Test(oracle, batch_gradients_are_finite_differences) {
  struct small_batch batch = small_batch();
  static const double per_class[] = {0.3, 1.5, 2}, alphas[] = {0.25, 0.5, 0.9}, positive[] = {3, 1, 0.5};
  static const double offsets[] = {-0.5, -4, 1.25};
  for (int loss = ORACLE_SIGMOID_CE; loss <= ORACLE_SOFTMAX_LOGIT_ADJUSTED; ++loss) {
    for (int normalizer = ORACLE_SUM; normalizer <= ORACLE_VALUE; ++normalizer) {
      struct oracle_problem problem = problem_of(&batch, (enum oracle_loss)loss);
      bool softmax = loss >= ORACLE_SOFTMAX_CE;
      problem.normalizer = (enum oracle_normalizer)normalizer;
      problem.normalizer_value = 2.5;
      problem.class_offset = offsets;
      problem.class_weights = per_class;
      problem.background_weight = 0.7;
      problem.alpha_per_class = normalizer % 2 ? alphas : NULL;
      problem.alpha = 0.4;
      problem.gradient_scale = -8;
      problem.element_weights = softmax ? NULL : batch.element_weights;
      problem.positive_weights = softmax ? NULL : positive;
      check_differences(&problem, &batch);
    }
  }
}

/* Row 2 and 3 have no class, and row 4 no weight: their scores are not read. */
Test(oracle, gradients_with_scores_are_finite_differences) {
  struct small_batch batch = small_batch();
  static const double positive[] = {3, 1, 0.5}, scores[ROWS] = {0.75, 0, NAN, NAN, NAN, 1.0005};
  static const enum oracle_loss losses[] = {ORACLE_SIGMOID_CE, ORACLE_SIGMOID_VARIFOCAL, ORACLE_SIGMOID_QUALITY_FOCAL,
                                            ORACLE_SIGMOID_MATCHABILITY, ORACLE_SIGMOID_IOU_AWARE};
  for (int k = 0; k < 10; ++k) {
    struct oracle_problem problem = problem_of(&batch, losses[k % 5]);
    problem.scores = scores;
    problem.alpha = losses[k % 5] == ORACLE_SIGMOID_IOU_AWARE ? -1 : 0.6;
    problem.gamma = 1.5;
    problem.detached = problem.by_label = k >= 5;
    problem.positive_weights = positive;
    problem.normalizer = ORACLE_POSITIVES;
    check_differences(&problem, &batch);
    struct oracle_result result;
    oracle_evaluate(&problem, &result);
    cr_assert_eq(result.counts.positives, 4);
    cr_assert_eq(result.divisor, 4);
    double x = batch.logits[CLASSES + 2], p = 1 / (1 + exp(-x)), ce = log1p(exp(x)); /* of a label with score 0 */
    double want[] = {0.6 * ce, k < 5 ? 0.6 * pow(p, 1.5) * ce : 0, 0.6 * pow(p, 1.5) * ce, ce, ce - 0.01 * x};
    cr_assert_float_eq(result.element_loss[CLASSES + 2], 0.5 * 0.5 * want[k % 5], 1e-14, "loss %d", k);
    oracle_result_free(&result);
  }
}

Test(oracle, a_score_out_of_range_spoils_its_row) {
  struct small_batch batch = small_batch();
  double scores[ROWS] = {0.75, -0.5, NAN, NAN, NAN, NAN};
  struct oracle_problem problem = problem_of(&batch, ORACLE_SIGMOID_VARIFOCAL);
  struct oracle_result result;
  problem.scores = scores;
  problem.element_weights = NULL;
  oracle_evaluate(&problem, &result);
  cr_assert_eq(result.counts.invalid, 2);
  cr_assert_eq(result.counts.positives, 2); /* the row of weight 0 is one */
  for (int c = 0; c < CLASSES; ++c) cr_assert_eq(result.gradient[CLASSES + c], 0);
  cr_assert_eq(result.row_loss[5], 0);
  oracle_result_free(&result);
}

Test(oracle, soft_batch_gradients_are_finite_differences) {
  struct small_batch batch = small_batch();
  double targets[ROWS * CLASSES];
  for (int i = 0; i < ROWS * CLASSES; ++i) targets[i] = i % 4 / 3.0;
  for (int loss = ORACLE_SIGMOID_CE; loss <= ORACLE_SOFTMAX_CE; ++loss) {
    struct oracle_problem problem = problem_of(&batch, (enum oracle_loss)loss);
    problem.targets = targets;
    problem.normalizer = ORACLE_WEIGHTS;
    check_differences(&problem, &batch);
  }
  struct oracle_problem adjusted = problem_of(&batch, ORACLE_SOFTMAX_LOGIT_ADJUSTED);
  adjusted.targets = targets;
  adjusted.class_offset = (const double[]){-0.5, -4, 1.25};
  check_differences(&adjusted, &batch);
}

/* Every factor of an element by hand: row, class or background, element, positive, alpha; ignored and weight-0 rows 0. */
Test(oracle, weights_multiply) {
  struct small_batch batch = small_batch();
  static const double per_class[] = {0.3, 1.5, 2}, alphas[] = {0.25, 0.5, 0.9}, positive[] = {3, 1, 0.5};
  static const double row_class_weight[ROWS] = {0.3, 2 * 0.5, 0.7 * 2, 0, 0, 1.5 * 0.25};
  struct oracle_problem problem = problem_of(&batch, ORACLE_SIGMOID_FOCAL);
  problem.class_weights = per_class;
  problem.background_weight = 0.7;
  problem.alpha_per_class = alphas;
  problem.element_weights = batch.element_weights;
  problem.positive_weights = positive;
  struct oracle_result sigmoid, softmax;
  oracle_evaluate(&problem, &sigmoid);
  problem.loss = ORACLE_SOFTMAX_FOCAL;
  problem.element_weights = problem.positive_weights = NULL;
  oracle_evaluate(&problem, &softmax);
  for (int i = 0; i < ROWS; ++i) {
    for (int c = 0; c < CLASSES; ++c) {
      int at = i * CLASSES + c, t = batch.labels[i] == c;
      double factor = row_class_weight[i] * batch.element_weights[at] * (t ? positive[c] * alphas[c] : 1 - alphas[c]);
      double want = factor == 0 ? 0 : factor * literal_sigmoid(batch.logits[at], t, 2, 0).value;
      cr_assert_float_eq(sigmoid.element_loss[at], want, 1e-14 * want);
    }
    int64_t y = batch.labels[i];
    double want = row_class_weight[i] == 0 || y < 0 ? 0 : row_class_weight[i] * alphas[y];
    if (want > 0) want *= oracle_softmax_row(CLASSES, batch.logits + (ptrdiff_t)i * CLASSES, y, 2, NULL);
    cr_assert_float_eq(softmax.row_loss[i], want, 1e-14 * want);
  }
  oracle_result_free(&sigmoid);
  oracle_result_free(&softmax);
}

Test(oracle, an_alpha_of_zero_takes_infinity_but_not_nan) {
  double logits[] = {-INFINITY, NAN};
  int64_t labels[] = {0, 0};
  struct oracle_problem problem;
  struct oracle_result result;
  oracle_problem_init(&problem, ORACLE_SIGMOID_POLY1, 2, 1);
  problem.logits = logits;
  problem.labels = labels;
  problem.alpha = 0;
  oracle_evaluate(&problem, &result);
  cr_assert_eq(result.element_loss[0], problem.poly_epsilon);
  cr_assert_eq(result.gradient[0], 0);
  cr_assert(isnan(result.element_loss[1]) && isnan(result.gradient[1]));
  oracle_result_free(&result);
}

static double divisor_with(struct small_batch *batch, enum oracle_loss loss, enum oracle_normalizer normalizer) {
  static const double per_class[] = {0.3, 1.5, 2};
  struct oracle_problem problem = problem_of(batch, loss);
  problem.class_weights = per_class;
  problem.background_weight = 0.7;
  problem.normalizer = normalizer;
  struct oracle_result result;
  oracle_evaluate(&problem, &result);
  double divisor = result.divisor;
  oracle_result_free(&result);
  return divisor;
}

Test(oracle, divisors) {
  struct small_batch batch = small_batch();
  cr_assert_eq(divisor_with(&batch, ORACLE_SIGMOID_CE, ORACLE_ELEMENTS), 15);
  cr_assert_eq(divisor_with(&batch, ORACLE_SOFTMAX_CE, ORACLE_ELEMENTS), 4);
  cr_assert_eq(divisor_with(&batch, ORACLE_SIGMOID_CE, ORACLE_ROWS), 5);
  cr_assert_eq(divisor_with(&batch, ORACLE_SOFTMAX_CE, ORACLE_ROWS), 4);
  cr_assert_eq(divisor_with(&batch, ORACLE_SIGMOID_CE, ORACLE_POSITIVES), 4);
  double positives = 0.3 + 0.5 * 2 + 0.25 * 1.5;
  cr_assert_float_eq(divisor_with(&batch, ORACLE_SOFTMAX_CE, ORACLE_WEIGHTS), positives, 1e-15);
  cr_assert_float_eq(divisor_with(&batch, ORACLE_SIGMOID_CE, ORACLE_WEIGHTS), positives + 2 * 0.7, 1e-15);
  for (int i = 0; i < ROWS; ++i) batch.labels[i] = -2;
  cr_assert_eq(divisor_with(&batch, ORACLE_SIGMOID_CE, ORACLE_ROWS), 1);
  cr_assert_eq(divisor_with(&batch, ORACLE_SIGMOID_CE, ORACLE_POSITIVES), 1);
}

Test(oracle, labels) {
  struct small_batch batch = small_batch();
  struct oracle_problem problem = problem_of(&batch, ORACLE_SIGMOID_CE);
  problem.first_label = 1;
  problem.background_label = 0;
  cr_assert_eq(oracle_row_kind(&problem, 0), ORACLE_BACKGROUND);
  cr_assert_eq(oracle_row_kind(&problem, 1), ORACLE_POSITIVE);
  cr_assert_eq(oracle_row_kind(&problem, CLASSES), ORACLE_POSITIVE);
  cr_assert_eq(oracle_row_kind(&problem, CLASSES + 1), ORACLE_INVALID);
  cr_assert_eq(oracle_row_kind(&problem, ((int64_t)1 << 32) + 1), ORACLE_INVALID);
  cr_assert_eq(oracle_row_kind(&problem, INT64_MIN), ORACLE_INVALID);
  cr_assert_eq(oracle_row_kind(&problem, INT64_MAX), ORACLE_INVALID);
  cr_assert_eq(oracle_row_kind(&problem, -2), ORACLE_IGNORED);
  batch = (struct small_batch){.labels = {0, 1, 3, 3, -2, 77}};
  int64_t per_class[CLASSES];
  struct oracle_counts counts = oracle_label_counts(&problem, per_class);
  cr_assert_eq(counts.rows, 6);
  cr_assert_eq(counts.counted, 4);
  cr_assert_eq(counts.positives, 3);
  cr_assert_eq(counts.background, 1);
  cr_assert_eq(counts.ignored, 1);
  cr_assert_eq(counts.invalid, 1);
  cr_assert(per_class[0] == 1 && per_class[1] == 0 && per_class[2] == 2);
}

/* Background named as class 1: softmax computes that class, sigmoid a row of zeros; it is positive for neither. */
Test(oracle, background_inside_the_classes) {
  double logits[] = {1, 2, -1};
  int64_t label = 1;
  struct oracle_problem problem;
  struct oracle_result result;
  oracle_problem_init(&problem, ORACLE_SOFTMAX_CE, 1, 3);
  problem.logits = logits;
  problem.labels = &label;
  problem.background_label = 1;
  oracle_evaluate(&problem, &result);
  cr_assert_eq(result.loss, oracle_softmax_row(3, logits, 1, 0, NULL));
  cr_assert(result.counts.counted == 1 && result.counts.positives == 0 && result.counts.background == 1);
  oracle_result_free(&result);
  problem.loss = ORACLE_SIGMOID_CE;
  oracle_evaluate(&problem, &result);
  cr_assert_eq(result.element_loss[1], oracle_soft_ce(2, 0).value);
  cr_assert(result.counts.counted == 1 && result.counts.positives == 0);
  oracle_result_free(&result);
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

static struct oracle_problem ghm_problem(struct ghm_batch *batch, enum oracle_loss loss) {
  struct oracle_problem problem;
  oracle_problem_init(&problem, loss, N_ROWS, N_CLASSES);
  problem.logits = batch->logits;
  problem.labels = batch->labels;
  problem.row_weights = batch->row_weights;
  problem.targets = loss == ORACLE_GHM_R ? batch->targets : NULL;
  return problem;
}

/* Whether element i belongs to N, and its gradient norm. */
static bool in_n(const struct ghm_batch *batch, enum oracle_loss loss, int i) {
  int row = i / N_CLASSES;
  return batch->row_weights[row] > 0 && (loss == ORACLE_GHM_C || batch->labels[row] >= 0);
}

static double norm_at(const struct ghm_batch *batch, enum oracle_loss loss, int i) {
  if (loss == ORACLE_GHM_R) return oracle_ghm_r_norm(batch->logits[i] - batch->targets[i], 0.02);
  return oracle_ghm_c_norm(batch->logits[i], batch->labels[i / N_CLASSES] == i % N_CLASSES);
}

/* 1 - g, not by that subtraction. */
static double rest_at(const struct ghm_batch *batch, enum oracle_loss loss, int i) {
  double difference = batch->logits[i] - batch->targets[i];
  if (loss == ORACLE_GHM_C) return oracle_ghm_c_norm(batch->logits[i], batch->labels[i / N_CLASSES] != i % N_CLASSES);
  return 0.02 * 0.02 / (0.02 * 0.02 + difference * difference) / (1 + norm_at(batch, loss, i));
}

static double exact_by_definition(const struct ghm_batch *batch, enum oracle_loss loss, int i, double epsilon) {
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
  for (int loss = ORACLE_GHM_C; loss <= ORACLE_GHM_R; ++loss) {
    for (int e = 0; e < 4; ++e) {
      draw(&batch, &random);
      struct oracle_problem problem = ghm_problem(&batch, (enum oracle_loss)loss);
      problem.exact_density = 1;
      problem.ghm_epsilon = epsilons[e];
      oracle_evaluate(&problem, &result);
      for (int i = 0; i < N; ++i) {
        double density = exact_by_definition(&batch, (enum oracle_loss)loss, i, epsilons[e]);
        double want = in_n(&batch, (enum oracle_loss)loss, i) ? 1 / density : 0;
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
    struct oracle_problem problem = ghm_problem(&batch, ORACLE_GHM_C);
    problem.bins = BINS;
    problem.momentum = 0.75;
    problem.state = &state;
    struct oracle_result result;
    oracle_evaluate(&problem, &result);
    double counts[BINS] = {0}, loss = 0;
    for (int i = 0; i < N; ++i)
      if (in_n(&batch, ORACLE_GHM_C, i)) counts[(int)(BINS * norm_at(&batch, ORACLE_GHM_C, i))] += 1;
    for (int k = 0; k < BINS; ++k) sums[k] = step == 0 ? counts[k] : 0.75 * sums[k] + 0.25 * counts[k];
    for (int i = 0; i < N; ++i) {
      if (!in_n(&batch, ORACLE_GHM_C, i)) continue;
      double t = batch.labels[i / N_CLASSES] == i % N_CLASSES;
      loss += oracle_soft_ce(batch.logits[i], t).value / (BINS * sums[(int)(BINS * norm_at(&batch, ORACLE_GHM_C, i))]);
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
  struct oracle_problem problem = ghm_problem(&batch, ORACLE_GHM_C);
  problem.given = 1;
  problem.state = &state;
  struct oracle_result result;
  oracle_evaluate(&problem, &result);
  int checked = 0;
  for (int i = 0; i < N; ++i) {
    if (!in_n(&batch, ORACLE_GHM_C, i)) continue;
    cr_assert_eq(result.inverse_density[i], 1 + (int)(30 * norm_at(&batch, ORACLE_GHM_C, i)));
    checked += 1;
  }
  cr_assert(checked > 0 && state.total == 3 && state.steps == 0);
  oracle_result_free(&result);
}

/* ---- mmdetection ----------------------------------------------------------------------------------------------- */

/* The tensors that mmdetection's heads would pass: one-hot targets, label weights per element. */
static void as_tensors(const struct ghm_batch *batch, enum oracle_loss loss, double *target, double *weight) {
  for (int i = 0; i < N; ++i) {
    target[i] = loss == ORACLE_GHM_R ? batch->targets[i] : batch->labels[i / N_CLASSES] == i % N_CLASSES;
    weight[i] = in_n(batch, loss, i) ? batch->row_weights[i / N_CLASSES] : 0;
  }
}

static void compare_modules(enum oracle_loss loss, int bins, double momentum) {
  struct mmdet_module module = {.bins = bins, .momentum = momentum, .mu = loss == ORACLE_GHM_R ? 0.02 : 0};
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
    problem.mmdet = 1;
    problem.bins = bins;
    problem.momentum = momentum;
    problem.state = &state;
    struct oracle_result result;
    oracle_evaluate(&problem, &result);
    note(&worst, result.loss, want, 0, "step %d, loss", step);
    for (int i = 0; i < N; ++i) note(&worst, result.gradient[i], gradient[i], 1e-17, "step %d, element %d", step, i);
    oracle_result_free(&result);
  }
  conclude(loss == ORACLE_GHM_R ? "mmdetection GHM-R" : "mmdetection GHM-C", &worst, 1e-12);
}

Test(oracle, mmdetection_modules) {
  compare_modules(ORACLE_GHM_C, 30, 0.75);
  compare_modules(ORACLE_GHM_C, 10, 0);
  compare_modules(ORACLE_GHM_R, 10, 0.75);
  compare_modules(ORACLE_GHM_R, 10, 0);
}
