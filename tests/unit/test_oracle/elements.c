/* SPDX-License-Identifier: Apache-2.0 */
/* The oracle's elements, rows and weights are the textbook formulas, in MPFR. */
#include "points.h"

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
