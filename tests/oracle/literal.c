/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The textbook formulas in MPFR. 3000 bits hold 1 - sigmoid(800), which lies 1154 bits below 1, and leave enough for a
 * central difference with a step of 2^-200.
 */
#include "literal.h"

#include "literal_formula.h"

#include <math.h>
#include <mpfr.h>
#include <stdlib.h>

enum { PRECISION = LITERAL_PRECISION, STEP_EXPONENT = -200 };

typedef literal_formula formula;

static double evaluate(formula f, double x, const void *parameters) {
  mpfr_t at, value;
  mpfr_inits2(PRECISION, at, value, (mpfr_ptr)NULL);
  mpfr_set_d(at, x, MPFR_RNDN);
  f(value, at, parameters);
  double result = mpfr_get_d(value, MPFR_RNDN);
  mpfr_clears(at, value, (mpfr_ptr)NULL);
  return result;
}

/* (f(x+h) - f(x-h)) / 2h */
static double differentiate(formula f, double x, const void *parameters) {
  mpfr_t at, step, above, below;
  mpfr_inits2(PRECISION, at, step, above, below, (mpfr_ptr)NULL);
  mpfr_set_ui_2exp(step, 1, STEP_EXPONENT, MPFR_RNDN);
  mpfr_set_d(at, x, MPFR_RNDN);
  mpfr_add(at, at, step, MPFR_RNDN);
  f(above, at, parameters);
  mpfr_set_d(at, x, MPFR_RNDN);
  mpfr_sub(at, at, step, MPFR_RNDN);
  f(below, at, parameters);
  mpfr_sub(above, above, below, MPFR_RNDN);
  mpfr_div_2si(above, above, STEP_EXPONENT + 1, MPFR_RNDN);
  double result = mpfr_get_d(above, MPFR_RNDN);
  mpfr_clears(at, step, above, below, (mpfr_ptr)NULL);
  return result;
}

static struct oracle_pair value_and_derivative(formula f, double x, const void *parameters) {
  return (struct oracle_pair){.value = evaluate(f, x, parameters), .derivative = differentiate(f, x, parameters)};
}

struct oracle_pair literal_value_and_derivative(literal_formula f, double x, const void *parameters) {
  return value_and_derivative(f, x, parameters);
}

void literal_sigmoid_of(mpfr_t p, const mpfr_t x) {
  mpfr_neg(p, x, MPFR_RNDN);
  mpfr_exp(p, p, MPFR_RNDN);
  mpfr_add_ui(p, p, 1, MPFR_RNDN);
  mpfr_ui_div(p, 1, p, MPFR_RNDN);
}

/* ---- Sigmoid losses -------------------------------------------------------------------------------------------- */

struct sigmoid_parameters {
  double t, gamma, epsilon;
};

/* a*t + b*(1-t) */
static void mix(mpfr_t result, const mpfr_t a, const mpfr_t b, double t) {
  mpfr_t rest, part;
  mpfr_inits2(PRECISION, rest, part, (mpfr_ptr)NULL);
  mpfr_set_d(rest, t, MPFR_RNDN);
  mpfr_mul(part, a, rest, MPFR_RNDN);
  mpfr_ui_sub(rest, 1, rest, MPFR_RNDN);
  mpfr_mul(rest, b, rest, MPFR_RNDN);
  mpfr_add(result, part, rest, MPFR_RNDN);
  mpfr_clears(rest, part, (mpfr_ptr)NULL);
}

void literal_power(mpfr_t result, const mpfr_t base, double exponent) {
  mpfr_t e;
  mpfr_init2(e, 64);
  mpfr_set_d(e, exponent, MPFR_RNDN);
  mpfr_pow(result, base, e, MPFR_RNDN);
  mpfr_clear(e);
}

static void sigmoid_formula(mpfr_t value, const mpfr_t x, const void *parameters) {
  const struct sigmoid_parameters *with = parameters;
  mpfr_t p, q, s, ce;
  mpfr_inits2(PRECISION, p, q, s, ce, (mpfr_ptr)NULL);
  literal_sigmoid_of(p, x);
  mpfr_ui_sub(q, 1, p, MPFR_RNDN);
  mix(s, q, p, with->t);
  mpfr_log(p, p, MPFR_RNDN);
  mpfr_log(q, q, MPFR_RNDN);
  mix(ce, p, q, with->t);
  mpfr_neg(ce, ce, MPFR_RNDN);
  literal_power(p, s, with->gamma);
  mpfr_mul(value, p, ce, MPFR_RNDN);
  mpfr_mul(p, p, s, MPFR_RNDN);
  mpfr_mul_d(p, p, with->epsilon, MPFR_RNDN);
  mpfr_add(value, value, p, MPFR_RNDN);
  mpfr_clears(p, q, s, ce, (mpfr_ptr)NULL);
}

struct oracle_pair literal_sigmoid(double x, double t, double gamma, double epsilon) {
  struct sigmoid_parameters with = {.t = t, .gamma = gamma, .epsilon = epsilon};
  return value_and_derivative(sigmoid_formula, x, &with);
}

struct varifocal_parameters {
  double t, gamma;
  int detached;
  double x; /* where a detached modulator stands still */
};

static void varifocal_formula(mpfr_t value, const mpfr_t x, const void *parameters) {
  const struct varifocal_parameters *with = parameters;
  const struct sigmoid_parameters ce = {.t = with->t, .gamma = 0, .epsilon = 0};
  mpfr_t p;
  mpfr_init2(p, PRECISION);
  sigmoid_formula(value, x, &ce);
  mpfr_set(p, x, MPFR_RNDN);
  if (with->detached) mpfr_set_d(p, with->x, MPFR_RNDN);
  literal_sigmoid_of(p, p);
  literal_power(p, p, with->gamma);
  if (with->t > 0) mpfr_set_d(p, with->t, MPFR_RNDN);
  mpfr_mul(value, value, p, MPFR_RNDN);
  mpfr_clear(p);
}

struct oracle_pair literal_varifocal(double x, double t, double gamma, int detached) {
  struct varifocal_parameters with = {.t = t, .gamma = gamma, .detached = detached, .x = x};
  return value_and_derivative(varifocal_formula, x, &with);
}

/* -t*log p - (1-t)*log(1-p) */
static void cross_entropy(mpfr_t ce, const mpfr_t p, const mpfr_t t) {
  mpfr_t rest;
  mpfr_init2(rest, PRECISION);
  mpfr_log(ce, p, MPFR_RNDN);
  mpfr_mul(ce, ce, t, MPFR_RNDN);
  mpfr_ui_sub(rest, 1, p, MPFR_RNDN);
  mpfr_log(rest, rest, MPFR_RNDN);
  mpfr_add(ce, ce, rest, MPFR_RNDN);
  mpfr_fms(ce, rest, t, ce, MPFR_RNDN);
  mpfr_clear(rest);
}

struct score_parameters {
  double t, exponent;
  double x; /* where what is detached stands still */
};

static void quality_focal_formula(mpfr_t value, const mpfr_t x, const void *parameters) {
  const struct score_parameters *with = parameters;
  mpfr_t p, t;
  mpfr_inits2(PRECISION, p, t, (mpfr_ptr)NULL);
  literal_sigmoid_of(p, x);
  mpfr_set_d(t, with->t, MPFR_RNDN);
  cross_entropy(value, p, t);
  mpfr_sub(p, p, t, MPFR_RNDN);
  mpfr_abs(p, p, MPFR_RNDN);
  literal_power(p, p, with->exponent);
  mpfr_mul(value, value, p, MPFR_RNDN);
  mpfr_clears(p, t, (mpfr_ptr)NULL);
}

static void matchability_formula(mpfr_t value, const mpfr_t x, const void *parameters) {
  const struct score_parameters *with = parameters;
  mpfr_t p, t;
  mpfr_inits2(PRECISION, p, t, (mpfr_ptr)NULL);
  literal_sigmoid_of(p, x);
  mpfr_set_d(t, with->t, MPFR_RNDN);
  literal_power(t, t, with->exponent);
  cross_entropy(value, p, t);
  mpfr_clears(p, t, (mpfr_ptr)NULL);
}

static void iou_aware_formula(mpfr_t value, const mpfr_t x, const void *parameters) {
  const struct score_parameters *with = parameters;
  mpfr_t p, t, part;
  mpfr_inits2(PRECISION, p, t, part, (mpfr_ptr)NULL);
  mpfr_set_d(p, with->x, MPFR_RNDN);
  literal_sigmoid_of(p, p);
  literal_power(t, p, with->exponent);
  mpfr_set_d(part, with->t, MPFR_RNDN);
  literal_power(part, part, 1 - with->exponent);
  mpfr_mul(t, t, part, MPFR_RNDN);
  if (mpfr_cmp_d(t, 0.01) < 0) mpfr_set_d(t, 0.01, MPFR_RNDN);
  literal_sigmoid_of(p, x);
  cross_entropy(value, p, t);
  mpfr_clears(p, t, part, (mpfr_ptr)NULL);
}

static struct oracle_pair with_score(formula f, double x, double t, double exponent) {
  const struct score_parameters with = {.t = t, .exponent = exponent, .x = x};
  return value_and_derivative(f, x, &with);
}

struct oracle_pair literal_quality_focal(double x, double t, double beta) {
  return with_score(quality_focal_formula, x, t, beta);
}

struct oracle_pair literal_matchability(double x, double t, double gamma) {
  return with_score(matchability_formula, x, t, gamma);
}

struct oracle_pair literal_iou_aware(double x, double t, double a) {
  return with_score(iou_aware_formula, x, t, a);
}

/* ---- Softmax losses -------------------------------------------------------------------------------------------- */

/* The row as a function of its logit number `moving`. */
struct softmax_parameters {
  int64_t classes, moving;
  const double *x, *offset, *t;
  double gamma;
};

static void softmax_logit(mpfr_t e, const struct softmax_parameters *with, int64_t k, const mpfr_t moved) {
  if (k == with->moving)
    mpfr_set(e, moved, MPFR_RNDN);
  else
    mpfr_set_d(e, with->x[k], MPFR_RNDN);
  if (with->offset) mpfr_add_d(e, e, with->offset[k], MPFR_RNDN);
  mpfr_exp(e, e, MPFR_RNDN);
}

static void softmax_formula(mpfr_t value, const mpfr_t x, const void *parameters) {
  const struct softmax_parameters *with = parameters;
  mpfr_t sum, p, q;
  mpfr_inits2(PRECISION, sum, p, q, (mpfr_ptr)NULL);
  mpfr_set_zero(sum, 1);
  for (int64_t k = 0; k < with->classes; ++k) {
    softmax_logit(p, with, k, x);
    mpfr_add(sum, sum, p, MPFR_RNDN);
  }
  mpfr_set_zero(value, 1);
  for (int64_t k = 0; k < with->classes; ++k) {
    if (with->t[k] == 0) continue;
    softmax_logit(p, with, k, x);
    mpfr_div(p, p, sum, MPFR_RNDN);
    mpfr_ui_sub(q, 1, p, MPFR_RNDN);
    literal_power(q, q, with->gamma);
    mpfr_log(p, p, MPFR_RNDN);
    mpfr_mul(p, p, q, MPFR_RNDN);
    mpfr_mul_d(p, p, with->t[k], MPFR_RNDN);
    mpfr_sub(value, value, p, MPFR_RNDN);
  }
  mpfr_clears(sum, p, q, (mpfr_ptr)NULL);
}

double literal_softmax(int64_t classes, const double *x, const double *t, double gamma, double *dx) {
  return literal_adjusted_softmax(classes, x, NULL, t, gamma, dx);
}

double literal_adjusted_softmax(int64_t classes, const double *x, const double *offset, const double *t, double gamma,
                                double *dx) {
  struct softmax_parameters with = {.classes = classes, .x = x, .offset = offset, .t = t, .gamma = gamma};
  for (with.moving = 0; with.moving < classes; ++with.moving)
    dx[with.moving] = differentiate(softmax_formula, x[with.moving], &with);
  with.moving = 0;
  return evaluate(softmax_formula, x[0], &with);
}

/* ---- GHM ------------------------------------------------------------------------------------------------------- */

static void root_formula(mpfr_t root, const mpfr_t d, const void *mu) {
  mpfr_t square;
  mpfr_init2(square, PRECISION);
  mpfr_sqr(root, d, MPFR_RNDN);
  mpfr_set_d(square, *(const double *)mu, MPFR_RNDN);
  mpfr_sqr(square, square, MPFR_RNDN);
  mpfr_add(root, root, square, MPFR_RNDN);
  mpfr_sqrt(root, root, MPFR_RNDN);
  mpfr_clear(square);
}

static void asl1_formula(mpfr_t value, const mpfr_t d, const void *mu) {
  root_formula(value, d, mu);
  mpfr_sub_d(value, value, *(const double *)mu, MPFR_RNDN);
}

struct oracle_pair literal_asl1(double d, double mu) {
  return value_and_derivative(asl1_formula, d, &mu);
}

static void ghm_r_formula(mpfr_t norm, const mpfr_t d, const void *mu) {
  root_formula(norm, d, mu);
  mpfr_div(norm, d, norm, MPFR_RNDN);
  mpfr_abs(norm, norm, MPFR_RNDN);
}

static void ghm_c_formula(mpfr_t norm, const mpfr_t x, const void *t) {
  literal_sigmoid_of(norm, x);
  mpfr_sub_d(norm, norm, *(const double *)t, MPFR_RNDN);
  mpfr_abs(norm, norm, MPFR_RNDN);
}

double literal_ghm_c_norm(double x, double t) { return evaluate(ghm_c_formula, x, &t); }

double literal_ghm_r_norm(double d, double mu) { return evaluate(ghm_r_formula, d, &mu); }

static int compare_edge(const mpfr_t norm, int k, int bins, int mmdet) {
  if (mmdet) return mpfr_cmp_d(norm, (float)((double)k / bins));
  mpfr_t scaled;
  mpfr_init2(scaled, PRECISION + 64);
  mpfr_mul_si(scaled, norm, bins, MPFR_RNDN);
  int order = mpfr_cmp_si(scaled, k);
  mpfr_clear(scaled);
  return order;
}

static int bin(formula f, double x, const void *parameters, int bins, int mmdet) {
  mpfr_t at, norm;
  mpfr_inits2(PRECISION, at, norm, (mpfr_ptr)NULL);
  mpfr_set_d(at, x, MPFR_RNDN);
  f(norm, at, parameters);
  int k = bins - 1;
  while (k > 0 && compare_edge(norm, k, bins, mmdet) < 0) --k;
  mpfr_clears(at, norm, (mpfr_ptr)NULL);
  return k;
}

int literal_ghm_c_bin(double x, double t, int bins, int mmdet) { return bin(ghm_c_formula, x, &t, bins, mmdet); }

int literal_ghm_r_bin(double d, double mu, int bins, int mmdet) { return bin(ghm_r_formula, d, &mu, bins, mmdet); }

/* ---- Class-balanced weights ------------------------------------------------------------------------------------ */

static void effective_formula(mpfr_t number, const mpfr_t n, const void *beta) {
  mpfr_t rest;
  mpfr_init2(rest, PRECISION);
  mpfr_set_d(rest, *(const double *)beta, MPFR_RNDN);
  mpfr_pow(number, rest, n, MPFR_RNDN);
  mpfr_ui_sub(number, 1, number, MPFR_RNDN);
  mpfr_ui_sub(rest, 1, rest, MPFR_RNDN);
  mpfr_div(number, number, rest, MPFR_RNDN);
  mpfr_clear(rest);
}

double literal_effective_number(double n, double beta) { return evaluate(effective_formula, n, &beta); }

/* ---- Logit adjustment ------------------------------------------------------------------------------------------ */

double literal_logit_adjustment(int64_t classes, const double *counts, double tau, int64_t c) {
  mpfr_t sum, prior;
  mpfr_inits2(PRECISION, sum, prior, (mpfr_ptr)NULL);
  mpfr_set_zero(sum, 1);
  for (int64_t k = 0; k < classes; ++k) mpfr_add_d(sum, sum, counts[k] == 0 ? 1 : counts[k], MPFR_RNDN);
  mpfr_set_d(prior, counts[c] == 0 ? 1 : counts[c], MPFR_RNDN);
  mpfr_div(prior, prior, sum, MPFR_RNDN);
  mpfr_log(prior, prior, MPFR_RNDN);
  mpfr_mul_d(prior, prior, tau, MPFR_RNDN);
  double offset = mpfr_get_d(prior, MPFR_RNDN);
  mpfr_clears(sum, prior, (mpfr_ptr)NULL);
  return offset;
}
