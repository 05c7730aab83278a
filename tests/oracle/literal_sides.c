/* SPDX-License-Identifier: Apache-2.0 */
/* The textbook formulas of losses by the side of their target, of heatmaps and of weighted terms, in MPFR. */
#include <mpfr.h>

#include "literal.h"
#include "literal_formula.h"

struct parameters {
  struct literal_sides sides;
  int one;
  double x, t; /* x: where what is detached stands still */
};

/* p_t: sigmoid(x) where the target is 1, else 1 - sigmoid(x). */
static void p_of_target(mpfr_t p, const mpfr_t x, int one) {
  literal_sigmoid_of(p, x);
  if (!one) mpfr_ui_sub(p, 1, p, MPFR_RNDN);
}

/* -log */
static void minus_log(mpfr_t value, const mpfr_t of) {
  mpfr_log(value, of, MPFR_RNDN);
  mpfr_neg(value, value, MPFR_RNDN);
}

/* error*a + (1-error)*b, where error is half the smoothing: the smoothed target's share of the other side. */
static void smooth(mpfr_t result, const mpfr_t a, const mpfr_t b, double smoothing) {
  mpfr_t part;
  mpfr_init2(part, LITERAL_PRECISION);
  mpfr_sub(part, a, b, MPFR_RNDN);
  mpfr_mul_d(part, part, smoothing / 2, MPFR_RNDN);
  mpfr_add(result, b, part, MPFR_RNDN);
  mpfr_clear(part);
}

static void smoothed_formula(mpfr_t value, const mpfr_t x, const void *parameters) {
  const struct parameters *with = parameters;
  mpfr_t p, q, own, other;
  mpfr_inits2(LITERAL_PRECISION, p, q, own, other, (mpfr_ptr)NULL);
  p_of_target(p, x, with->one);
  mpfr_ui_sub(q, 1, p, MPFR_RNDN);
  minus_log(own, p);
  minus_log(other, q);
  smooth(value, other, own, with->sides.smoothing);
  if (with->sides.all) smooth(q, p, q, with->sides.smoothing);
  literal_power(q, q, with->sides.gamma);
  mpfr_mul(value, value, q, MPFR_RNDN);
  mpfr_clears(p, q, own, other, (mpfr_ptr)NULL);
}

/* 1 - p_t, less the margin where the target is 0. */
static void error_of(mpfr_t r, const mpfr_t x, const struct parameters *with) {
  p_of_target(r, x, with->one);
  mpfr_ui_sub(r, 1, r, MPFR_RNDN);
  if (!with->one) mpfr_sub_d(r, r, with->sides.margin, MPFR_RNDN);
  if (mpfr_sgn(r) < 0) mpfr_set_zero(r, 1);
}

static void asymmetric_formula(mpfr_t value, const mpfr_t x, const void *parameters) {
  const struct parameters *with = parameters;
  mpfr_t r, at;
  mpfr_inits2(LITERAL_PRECISION, r, at, (mpfr_ptr)NULL);
  error_of(r, x, with);
  mpfr_ui_sub(value, 1, r, MPFR_RNDN);
  minus_log(value, value);
  mpfr_set_d(at, with->x, MPFR_RNDN);
  if (with->sides.detached) error_of(r, at, with);
  literal_power(r, r, with->sides.gamma);
  mpfr_mul(value, value, r, MPFR_RNDN);
  mpfr_clears(r, at, (mpfr_ptr)NULL);
}

static void reduced_formula(mpfr_t value, const mpfr_t x, const void *parameters) {
  const struct parameters *with = parameters;
  mpfr_t p;
  mpfr_init2(p, LITERAL_PRECISION);
  p_of_target(p, x, with->one);
  minus_log(value, p);
  if (mpfr_cmp_d(p, with->sides.threshold) >= 0) {
    mpfr_ui_sub(p, 1, p, MPFR_RNDN);
    mpfr_div_d(p, p, with->sides.threshold, MPFR_RNDN);
    literal_power(p, p, with->sides.gamma);
    mpfr_mul(value, value, p, MPFR_RNDN);
  }
  mpfr_clear(p);
}

static void star_formula(mpfr_t value, const mpfr_t x, const void *parameters) {
  const struct parameters *with = parameters;
  mpfr_t u;
  mpfr_init2(u, LITERAL_PRECISION);
  mpfr_mul_d(u, x, with->one ? with->sides.gamma : -with->sides.gamma, MPFR_RNDN);
  mpfr_add_d(u, u, with->sides.shift, MPFR_RNDN);
  literal_sigmoid_of(u, u);
  minus_log(value, u);
  mpfr_div_d(value, value, with->sides.gamma, MPFR_RNDN);
  mpfr_clear(u);
}

static void heatmap_formula(mpfr_t value, const mpfr_t x, const void *parameters) {
  const struct parameters *with = parameters;
  mpfr_t p;
  mpfr_init2(p, LITERAL_PRECISION);
  p_of_target(p, x, with->t == 1);
  minus_log(value, p);
  mpfr_ui_sub(p, 1, p, MPFR_RNDN);
  literal_power(p, p, with->sides.gamma);
  mpfr_mul(value, value, p, MPFR_RNDN);
  if (with->t < 1) {
    mpfr_set_d(p, with->t, MPFR_RNDN);
    mpfr_ui_sub(p, 1, p, MPFR_RNDN);
    literal_power(p, p, with->sides.beta);
    mpfr_mul(value, value, p, MPFR_RNDN);
  }
  mpfr_clear(p);
}

struct oracle_pair literal_side(const struct oracle_loss *loss, double x, int one, struct literal_sides sides) {
  const struct parameters with = {.sides = sides, .one = one, .x = x};
  const literal_formula f = loss == &ORACLE_SIGMOID_ASYMMETRIC      ? asymmetric_formula
                            : loss == &ORACLE_SIGMOID_REDUCED_FOCAL ? reduced_formula
                            : loss == &ORACLE_SIGMOID_FOCAL_STAR    ? star_formula
                                                                    : smoothed_formula;
  return literal_value_and_derivative(f, x, &with);
}

struct oracle_pair literal_heatmap(double x, double t, double gamma, double beta) {
  const struct parameters with = {.sides = {.gamma = gamma, .beta = beta}, .t = t};
  return literal_value_and_derivative(heatmap_formula, x, &with);
}

static void terms_formula(mpfr_t value, const mpfr_t x, const void *parameters) {
  const double *weights = parameters;
  mpfr_t p, q;
  mpfr_inits2(LITERAL_PRECISION, p, q, (mpfr_ptr)NULL);
  literal_sigmoid_of(p, x);
  mpfr_ui_sub(q, 1, p, MPFR_RNDN);
  minus_log(p, p);
  minus_log(q, q);
  mpfr_mul_d(p, p, weights[0], MPFR_RNDN);
  mpfr_mul_d(q, q, weights[1], MPFR_RNDN);
  mpfr_add(value, p, q, MPFR_RNDN);
  mpfr_clears(p, q, (mpfr_ptr)NULL);
}

struct oracle_pair literal_terms(double x, double of_1, double of_0) {
  return literal_value_and_derivative(terms_formula, x, (const double[]){of_1, of_0});
}
