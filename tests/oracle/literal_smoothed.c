/* SPDX-License-Identifier: Apache-2.0 */
/* The textbook formula of a softmax row with label smoothing, in MPFR. */
#include <mpfr.h>

#include "literal.h"
#include "literal_formula.h"

struct parameters {
  int64_t classes, label, moving;
  const double *x;
  struct oracle_smoothing by;
};

static void exponential(mpfr_t e, const struct parameters *with, int64_t k, const mpfr_t moved) {
  if (k == with->moving)
    mpfr_set(e, moved, MPFR_RNDN);
  else
    mpfr_set_d(e, with->x[k], MPFR_RNDN);
  mpfr_exp(e, e, MPFR_RNDN);
}

/* s/C, and 1-s more at the label. */
static void target(mpfr_t t, const struct parameters *with, int64_t k) {
  mpfr_set_d(t, with->by.s, MPFR_RNDN);
  mpfr_div_si(t, t, (long)with->classes, MPFR_RNDN);
  if (k != with->label) return;
  mpfr_add_ui(t, t, 1, MPFR_RNDN);
  mpfr_sub_d(t, t, with->by.s, MPFR_RNDN);
}

/* sum t_k*(-log p_k), and 1 - sum t_k*p_k or 1 - p of the label. */
static void cross_entropy(mpfr_t value, mpfr_t error, const mpfr_t x, const struct parameters *with) {
  mpfr_t sum, p, t;
  mpfr_inits2(LITERAL_PRECISION, sum, p, t, (mpfr_ptr)NULL);
  mpfr_set_zero(sum, 1);
  for (int64_t k = 0; k < with->classes; ++k) {
    exponential(p, with, k, x);
    mpfr_add(sum, sum, p, MPFR_RNDN);
  }
  mpfr_set_zero(value, 1);
  mpfr_set_ui(error, 1, MPFR_RNDN);
  for (int64_t k = 0; k < with->classes; ++k) {
    exponential(p, with, k, x);
    mpfr_div(p, p, sum, MPFR_RNDN);
    target(t, with, k);
    if (!with->by.all && k == with->label) mpfr_sub(error, error, p, MPFR_RNDN);
    if (with->by.all) mpfr_fms(error, t, p, error, MPFR_RNDN), mpfr_neg(error, error, MPFR_RNDN);
    mpfr_log(p, p, MPFR_RNDN);
    mpfr_mul(p, p, t, MPFR_RNDN);
    mpfr_sub(value, value, p, MPFR_RNDN);
  }
  mpfr_clears(sum, p, t, (mpfr_ptr)NULL);
}

static void formula(mpfr_t value, const mpfr_t x, const void *parameters) {
  const struct parameters *with = parameters;
  mpfr_t error;
  mpfr_init2(error, LITERAL_PRECISION);
  cross_entropy(value, error, x, with);
  literal_power(error, error, with->by.gamma);
  mpfr_mul(value, value, error, MPFR_RNDN);
  mpfr_clear(error);
}

/* (log sum e^x)^2. */
static void squared_lse(mpfr_t value, const mpfr_t x, const void *parameters) {
  const struct parameters *with = parameters;
  mpfr_t e;
  mpfr_init2(e, LITERAL_PRECISION);
  mpfr_set_zero(value, 1);
  for (int64_t k = 0; k < with->classes; ++k) {
    exponential(e, with, k, x);
    mpfr_add(value, value, e, MPFR_RNDN);
  }
  mpfr_log(value, value, MPFR_RNDN);
  mpfr_sqr(value, value, MPFR_RNDN);
  mpfr_clear(e);
}

double literal_squared_lse(int64_t classes, const double *x, double *dx) {
  struct parameters with = {.classes = classes, .x = x};
  double value = 0;
  for (with.moving = 0; with.moving < classes; ++with.moving) {
    struct oracle_pair pair = literal_value_and_derivative(squared_lse, x[with.moving], &with);
    value = pair.value;
    dx[with.moving] = pair.derivative;
  }
  return value;
}

double literal_smoothed_softmax(int64_t classes, const double *x, int64_t label, struct oracle_smoothing by,
                                double *dx) {
  struct parameters with = {.classes = classes, .label = label, .x = x, .by = by};
  double value = 0;
  for (with.moving = 0; with.moving < classes; ++with.moving) {
    struct oracle_pair pair = literal_value_and_derivative(formula, x[with.moving], &with);
    value = pair.value;
    dx[with.moving] = pair.derivative;
  }
  return value;
}
