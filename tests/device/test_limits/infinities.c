/* SPDX-License-Identifier: Apache-2.0 */
/* Infinite, NaN and saturated logits. */
#include "limits.h"

/* ---- Sigmoid losses -------------------------------------------------------------------------------------------- */

/* The header's words: z = -inf gives +inf and a gradient of -alpha_t by z; z = +inf gives 0 and 0; NaN gives NaN. */
static void check_infinite(const test_device *device, int32_t kind, int32_t dtype, double gamma, double label) {
  const bool positive = label >= 0;
  const double sign = positive ? 1 : -1; /* z = sign * x */
  const double x[] = {-INFINITY * sign, INFINITY * sign, NAN, 0};
  problem *p = single_elements(kind, dtype, x, 4, (int64_t)label);
  if (set_gamma(p, gamma)) {
    const double alpha = alpha_of(p) < 0 ? 1 : positive ? alpha_of(p) : 1 - alpha_of(p);
    outcome *o = problem_run(p, device);
    cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
    CHECK_NEAR(problem_text(p), o->element_loss[0], INFINITY, ((tolerance){0, 0}));
    CHECK_NEAR(problem_text(p), o->gradient[0], -alpha * sign, ((tolerance){0, 5e-3}));
    cr_assert(o->element_loss[1] == 0 && o->gradient[1] == 0, "%s: %g %g", problem_text(p), o->element_loss[1],
              o->gradient[1]);
    cr_assert(isnan(o->element_loss[2]) && isnan(o->gradient[2]), "%s: %g %g", problem_text(p), o->element_loss[2],
              o->gradient[2]);
    cr_assert(isfinite(o->element_loss[3]) && o->element_loss[3] > 0 && isfinite(o->gradient[3]));
    cr_assert(isnan(o->loss), "a NaN must show in the sum: %g", o->loss);
    outcome_free(o);
    CHECK_PROBLEM(p, device);
  }
  problem_free(p);
}

Test(limits, sigmoid_infinities_and_nan) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_SIGMOID_CE; kind <= TARE_LOSS_SIGMOID_POLY1; kind++) {
      for (size_t d = 0; d < DTYPES; d++) {
        for (size_t g = 0; g < GAMMAS; g++) {
          check_infinite(device, kind, dtypes[d], gammas[g], 0);
          check_infinite(device, kind, dtypes[d], gammas[g], -1);
        }
      }
    }
  }
}

Test(limits, sum_of_an_infinite_loss_is_infinite) {
  static const double x[] = {-INFINITY, 1, 2, -3};
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_SIGMOID_CE; kind <= TARE_LOSS_SIGMOID_POLY1; kind++) {
      problem *p = single_elements(kind, TARE_DTYPE_F32, x, 4, 0);
      outcome *o = problem_run(p, device);
      cr_assert(isinf(o->loss) && o->loss > 0, "%g", o->loss);
      outcome_free(o);
      problem_free(p);
    }
  }
}

/* Saturated and near-saturated logits: where 1-p is 0, p is 1, exp underflows and exp overflows in single precision. */
Test(limits, saturated_logits) {
  static const double x[] = {-125,  -104, -103.97, -103.3, -100,  -89,  -88.7, -88,   -87.4, -50,   -40,    -17, -16.64,
                             -15,   -1,   -0.5,    -1e-3,  -1e-8, -0.0, 0,     1e-30, 1e-8,  1e-3,  0.5,    1,   15,
                             16.64, 17,   40,      50,     87.4,  88,   88.7,  89,    100,   103.3, 103.97, 104, 125};
  enum { COUNT = sizeof x / sizeof *x };
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_SIGMOID_CE; kind <= TARE_LOSS_SIGMOID_POLY1; kind++) {
      for (size_t g = 0; g < GAMMAS; g++) {
        for (int64_t label = -1; label <= 0; label++) {
          problem *narrow = single_elements(kind, TARE_DTYPE_F32, x, COUNT, label);
          for (int i = 0; i < COUNT; i++) narrow->logits[i] = (double)(float)x[i];
          problem *wide = single_elements(kind, TARE_DTYPE_F64, x, COUNT, label);
          if (set_gamma(narrow, gammas[g]) && set_gamma(wide, gammas[g])) {
            CHECK_PROBLEM(narrow, device);
            CHECK_PROBLEM(wide, device);
          }
          problem_free(narrow);
          problem_free(wide);
        }
      }
    }
  }
}

Test(limits, largest_finite_logits) {
  static const double largest[] = {3.4028234663852886e38, 65504, 3.3895313892515355e38, 1.7976931348623157e308};
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_SIGMOID_CE; kind <= TARE_LOSS_SIGMOID_POLY1; kind++) {
      for (size_t d = 0; d < DTYPES; d++) {
        for (int64_t label = -1; label <= 0; label++) {
          const double x[] = {largest[d], -largest[d], largest[d] / 2, -largest[d] / 2};
          problem *p = single_elements(kind, dtypes[d], x, 4, label);
          p->want &= ~(unsigned)WANT_LOSS; /* the sum of such losses leaves single precision */
          CHECK_PROBLEM(p, device);
          problem_free(p);
        }
      }
    }
  }
}

/* ---- Softmax losses -------------------------------------------------------------------------------------------- */

typedef struct softmax_row {
  double x[5]; /* the label is class 0 */
  double loss; /* INFINITY and NAN as they are; -1: finite, what the oracle says */
  bool finite_gradient;
} softmax_row;

static void check_softmax_row(const test_device *device, int32_t kind, int32_t dtype, double gamma, softmax_row row) {
  problem *p = problem_new(kind, dtype, 1, 5);
  memcpy(p->logits, row.x, sizeof row.x);
  p->labels[0] = 0;
  if (set_gamma(p, gamma)) {
    outcome *o = problem_run(p, device);
    cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
    if (row.loss != -1) CHECK_NEAR(problem_text(p), o->row_loss[0], row.loss, ((tolerance){0, 0}));
    for (int c = 0; c < 5; c++) {
      cr_assert_eq(isfinite(o->gradient[c]) != 0, row.finite_gradient, "%s: gradient[%d] is %g for %g %g %g",
                   problem_text(p), c, o->gradient[c], row.x[0], row.x[1], row.x[2]);
    }
    outcome_free(o);
    CHECK_PROBLEM(p, device);
  }
  problem_free(p);
}

Test(limits, softmax_infinities) {
  static const double inf = INFINITY;
  const softmax_row rows[] = {
      {{1, -inf, 0, 2, -1}, -1, true},          /* off the label: probability 0 */
      {{1, -inf, -inf, -inf, -inf}, 0, true},   /* nothing but the label left */
      {{-inf, 1, 0, 2, -1}, inf, true},         /* at the label */
      {{1, inf, 0, 2, -1}, inf, true},          /* one off the label */
      {{inf, 1, 0, 2, -1}, 0, true},            /* one at the label */
      {{inf, -inf, -inf, -inf, -inf}, 0, true}, /* and nothing else */
      {{-inf, inf, 0, 2, -1}, inf, true},       /* at and off the label */
      {{1, inf, inf, 2, -1}, NAN, false},       /* several */
      {{inf, inf, 0, 2, -1}, NAN, false},       /* several, one at the label */
      {{-inf, -inf, -inf, -inf, -inf}, NAN, false},
      {{NAN, 1, 0, 2, -1}, NAN, false},
      {{1, 0, NAN, 2, -1}, NAN, false},
      {{1, -inf, NAN, inf, 2}, NAN, false},
  };
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_SOFTMAX_CE; kind <= TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED; kind++) {
      for (size_t d = 0; d < DTYPES; d++) {
        for (size_t g = 0; g < GAMMAS; g++) {
          for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            check_softmax_row(device, kind, dtypes[d], gammas[g], rows[r]);
          }
        }
      }
    }
  }
}

Test(limits, softmax_saturated_rows) {
  static const double spreads[] = {1e-8, 1e-3, 1, 15, 17, 20, 40, 80, 88, 100, 104, 125, 250};
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_SOFTMAX_CE; kind <= TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED; kind++) {
      for (size_t s = 0; s < sizeof spreads / sizeof *spreads; s++) {
        for (size_t g = 0; g < GAMMAS; g++) {
          problem *p = problem_new(kind, TARE_DTYPE_F32, 3, 3);
          const double d = (double)(float)spreads[s];
          const double x[9] = {d, 0, 0, 0, d, d, 0, -d, d};
          memcpy(p->logits, x, sizeof x);
          p->labels[0] = p->labels[1] = p->labels[2] = 0;
          if (set_gamma(p, gammas[g])) CHECK_PROBLEM(p, device);
          problem_free(p);
        }
      }
    }
  }
}

/* x = [20,0,0] is 4.1e-9, where LSE - x_y says 0; a common offset changes nothing. */
Test(limits, softmax_keeps_tiny_losses) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_SOFTMAX_CE, TARE_DTYPE_F32, 2, 3);
    const double x[6] = {20, 0, 0, 1020, 1000, 1000};
    memcpy(p->logits, x, sizeof x);
    p->labels[0] = p->labels[1] = 0;
    outcome *o = problem_run(p, device);
    CHECK_NEAR("[20,0,0]", o->row_loss[0], 4.1223072363804e-9, ((tolerance){0, 3e-6}));
    CHECK_NEAR("the same plus 1000", o->row_loss[1], o->row_loss[0], ((tolerance){0, 0}));
    outcome_free(o);
    problem_free(p);
  }
}
