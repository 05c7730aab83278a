/* SPDX-License-Identifier: Apache-2.0 */
/* The oracle's losses by the side of their target are the textbook formulas, in MPFR. */
#include "points.h"

struct settings {
  const struct oracle_loss *loss;
  const char *name;
  struct literal_sides sides[4];
};

static const struct settings all_settings[] = {
    {&ORACLE_SIGMOID_FOCAL,
     "smoothed",
     {{.smoothing = 0.1}, {.smoothing = 1e-9, .all = 1}, {.smoothing = 0.999}, {.smoothing = 0.5, .all = 1}}},
    {&ORACLE_SIGMOID_ASYMMETRIC,
     "asymmetric",
     {{.margin = 0.05}, {.margin = 0}, {.margin = 1e-9, .detached = 1}, {.margin = 0.5}}},
    {&ORACLE_SIGMOID_REDUCED_FOCAL,
     "reduced",
     {{.threshold = 0.5}, {.threshold = 0.75}, {.threshold = 0.999999}, {.threshold = 0.6}}},
    {&ORACLE_SIGMOID_FOCAL_STAR, "star", {{.shift = 1}, {.shift = 0}, {.shift = -3}, {.shift = 10}}}};

static struct oracle_pair got_of(const struct oracle_loss *loss, double x, int one, struct literal_sides s) {
  if (loss == &ORACLE_SIGMOID_FOCAL) return oracle_smoothed(x, one, s.smoothing, s.gamma, s.all);
  if (loss == &ORACLE_SIGMOID_REDUCED_FOCAL) return oracle_reduced(x, one, s.gamma, s.threshold);
  if (loss == &ORACLE_SIGMOID_FOCAL_STAR) return oracle_star(x, one, s.gamma, s.shift);
  struct oracle_detached pair = oracle_asymmetric(x, one, s.gamma, one ? 0 : s.margin, s.detached, NAN);
  return (struct oracle_pair){pair.value, pair.derivative};
}

/* Where the derivative of max(p-margin,0), or of a weight that jumps, is none, or the other side has it. */
static bool is_corner(const struct oracle_loss *loss, double x, int one, struct literal_sides s) {
  struct oracle_point at = oracle_point(one ? x : -x);
  if (loss == &ORACLE_SIGMOID_REDUCED_FOCAL) return fabs(at.p - s.threshold) < 1e-12;
  return loss == &ORACLE_SIGMOID_ASYMMETRIC && !one && s.margin > 0 && fabs(at.q - s.margin) < 1e-6 * s.margin;
}

Test(oracle, sides_are_the_textbook_formula) {
  const double *x = points();
  for (size_t k = 0; k < sizeof all_settings / sizeof *all_settings; ++k) {
    struct worst value = {0}, derivative = {0};
    for (int i = 0; i < POINTS; ++i) {
      for (int n = 0; n < 8; ++n) {
        struct literal_sides s = all_settings[k].sides[n / 2];
        s.gamma = gammas[(i + n) % GAMMAS];
        if (k == 3) s.gamma += 0.1; /* it divides */
        if (is_corner(all_settings[k].loss, x[i], n % 2, s)) continue;
        struct oracle_pair want = literal_side(all_settings[k].loss, x[i], n % 2, s);
        struct oracle_pair got = got_of(all_settings[k].loss, x[i], n % 2, s);
        /* A smoothed gradient is a difference of p and t; r of the margin carries long double's rounding. */
        double lost = k == 0 ? 1e-15 : k == 1 && s.margin > 0 ? 1e-18 : 0;
        note(&value, got.value, want.value, lost, "x %.17g one %d gamma %g setting %d", x[i], n % 2, s.gamma, n / 2);
        note(&derivative, got.derivative, want.derivative, lost, "x %.17g one %d gamma %g setting %d", x[i], n % 2,
             s.gamma, n / 2);
      }
    }
    conclude(all_settings[k].name, &value, 1e-13);
    conclude(all_settings[k].name, &derivative, 1e-13);
  }
}

Test(oracle, heatmaps_are_the_textbook_formula) {
  static const double targets[] = {0, 1e-30, 0.3, 0.999, 1}, betas[] = {0, 1, 4, 2.5};
  struct worst value = {0}, derivative = {0};
  const double *x = points();
  for (int k = 0; k < 5; ++k) {
    for (int i = k % 2; i < POINTS; i += 2) {
      double gamma = gammas[(i + k) % GAMMAS], beta = betas[(i + k) % 4];
      struct oracle_pair want = literal_heatmap(x[i], targets[k], gamma, beta);
      struct oracle_pair got = oracle_heatmap(x[i], targets[k], gamma, beta);
      note(&value, got.value, want.value, 0, "x %.17g t %g gamma %g beta %g", x[i], targets[k], gamma, beta);
      note(&derivative, got.derivative, want.derivative, 0, "x %.17g t %g gamma %g beta %g", x[i], targets[k], gamma,
           beta);
    }
  }
  conclude("heatmap", &value, 1e-14);
  conclude("heatmap, derivative", &derivative, 1e-14);
}

Test(oracle, weighted_terms_are_the_textbook_formula) {
  static const double weights[][2] = {{1, 0}, {0, 1}, {0.3, 0.7}, {3e4, 0.01}, {1e-30, 1}, {1, 1e-9}};
  struct worst value = {0}, derivative = {0};
  const double *x = points();
  for (int k = 0; k < 6; ++k) {
    for (int i = k % 2; i < POINTS; i += 2) {
      struct oracle_pair want = literal_terms(x[i], weights[k][0], weights[k][1]);
      struct oracle_pair got = oracle_terms(x[i], weights[k][0], weights[k][1]);
      struct oracle_point at = oracle_point(x[i]);
      double lost = 1e-15 * fmin(weights[k][0] * at.q, weights[k][1] * at.p); /* the two are subtracted */
      note(&value, got.value, want.value, 0, "x %.17g weights %g, %g", x[i], weights[k][0], weights[k][1]);
      note(&derivative, got.derivative, want.derivative, lost, "x %.17g weights %g, %g", x[i], weights[k][0],
           weights[k][1]);
    }
  }
  conclude("weighted terms", &value, 1e-14);
  conclude("weighted terms, derivative", &derivative, 1e-14);
}

/* LSE near 0 is a difference. */
Test(oracle, z_loss_is_the_textbook_formula) {
  enum { WIDTH = 5 };
  static const double rows[][WIDTH] = {
      {20, 0, 0, 0, 0},       {0, 0, 0, 0, 0},           {-3, 2.5, 0.125, 7, -7},       {-9, -9, 0.5, -0.5, 0},
      {-2, -1.5, -1, -3, -2}, {300, 299, 298, 200, 100}, {-800, -800, -801, -1e3, -900}};
  struct worst value = {0}, derivative = {0};
  for (size_t n = 0; n < sizeof rows / sizeof *rows; ++n) {
    double want_dx[WIDTH], dx[WIDTH] = {0}, want = literal_squared_lse(WIDTH, rows[n], want_dx);
    note(&value, oracle_add_z_loss(WIDTH, rows[n], NULL, 1, 0, dx), want, 1e-16, "row %d", (int)n);
    for (int c = 0; c < WIDTH; ++c) note(&derivative, dx[c], want_dx[c], 1e-16, "row %d class %d", (int)n, c);
  }
  conclude("z-loss", &value, 1e-15);
  conclude("z-loss, gradient", &derivative, 1e-15);
}

Test(oracle, smoothed_softmax_rows_are_the_textbook_formula) {
  enum { WIDTH = 5 };
  static const double rows[][WIDTH] = {{20, 0, 0, 0, 0},      {0, 0, 0, 0, 0},          {-3, 2.5, 0.125, 7, -7},
                                       {800, -800, 0, 1, 2},  {-50, 40, 40, 39, 0},     {1e-3, -1e-3, 0, 2e-3, 1},
                                       {-9, 0, 0.5, -0.5, 0}, {300, 299, 298, 200, 100}};
  static const double smoothings[] = {1e-30, 1e-9, 0.1, 0.9};
  struct worst value = {0}, derivative = {0};
  for (int n = 0; n < 8 * WIDTH * GAMMAS; ++n) {
    const double *x = rows[n % 8];
    const int y = n / 8 % WIDTH;
    const struct oracle_smoothing by = {smoothings[n / 3 % 4], gammas[n / 8 / WIDTH], n % 2};
    double want_dx[WIDTH], dx[WIDTH], want = literal_smoothed_softmax(WIDTH, x, y, by, want_dx);
    note(&value, oracle_smoothed_softmax_row(WIDTH, x, y, by, dx), want, 0, "row %d y %d s %g gamma %g all %d", n % 8,
         y, by.s, by.gamma, by.all);
    for (int c = 0; c < WIDTH; ++c) /* a difference of p and t */
      note(&derivative, dx[c], want_dx[c], 1e-17 * (1 + fabs(want)), "row %d y %d s %g gamma %g all %d class %d", n % 8,
           y, by.s, by.gamma, by.all, c);
  }
  conclude("smoothed softmax", &value, 1e-15);
  conclude("smoothed softmax, gradient (beyond 1e-17)", &derivative, 1e-14);
}

Test(oracle, sides_at_their_limits) {
  for (int g = 0; g < GAMMAS; ++g) {
    struct oracle_pair down = oracle_smoothed(-INFINITY, 1, 0.1, gammas[g], 0);
    struct oracle_pair up = oracle_smoothed(INFINITY, 1, 0.1, gammas[g], 0);
    cr_assert_eq(down.value, INFINITY);
    cr_assert_eq(down.derivative, 0.05 - 1);
    cr_assert_eq(up.value, gammas[g] == 0 ? (double)INFINITY : 0);
    cr_assert_float_eq(up.derivative, gammas[g] == 0 ? 0.05 : 0, 1e-16);
    struct oracle_detached at = oracle_asymmetric(INFINITY, 0, gammas[g], 0.05, 0, NAN);
    cr_assert_float_eq(at.value, -pow(0.95, gammas[g]) * log(0.05), 1e-14);
    cr_assert_eq(at.derivative, 0);
    cr_assert_eq(oracle_asymmetric(-3, 0, gammas[g], 0.05, 0, NAN).value, 0);
    cr_assert(isnan(oracle_asymmetric(NAN, 0, gammas[g], 0.05, 0, NAN).value));
  }
  cr_assert_eq(oracle_star(-INFINITY, 1, 2, 1).value, INFINITY);
  cr_assert_eq(oracle_star(-INFINITY, 1, 2, 1).derivative, -1);
}
