/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gradient's scale at its ends. An element whose gradient is 0 without the scale is 0 under any scale, infinite and
 * NaN too; every other carries an infinite or NaN scale. A finite scale over a divisor may leave single precision where
 * the gradient does not.
 */
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/head.h"
#include "support/numbers.h"
#include "support/problem.h"

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
static const double scales[] = {INFINITY, -INFINITY, NAN};
enum { DTYPES = sizeof dtypes / sizeof *dtypes, SCALES = sizeof scales / sizeof *scales };

/* How a batch lies, which decides the way that a backend goes over it. */
enum way { PLAIN, EVERY_OUTPUT, CHANNELS_FIRST, CHANNELS_FIRST_PLAIN, DENSE, WAYS };

static bool takes(int32_t kind, int way) { return way != DENSE || takes_targets(kind); }

static problem *problem_in(int32_t kind, int32_t dtype, int way) {
  static const level_shape planes[] = {{6, 8, 2}, {3, 5, 2}};
  const bool first = way == CHANNELS_FIRST || way == CHANNELS_FIRST_PLAIN;
  problem *p = first ? problem_new_levels(kind, dtype, 2, 20, 2, planes) : problem_new(kind, dtype, 90, 20);
  if (way == DENSE) problem_draw_targets(p, TARE_DTYPE_F32);
  p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_GRADIENT].channels_first = first;
  if (way == PLAIN || way == CHANNELS_FIRST_PLAIN) p->want = WANT_LOSS | WANT_GRADIENT;
  return p;
}

/* Rows that add nothing, NaN and all, and elements that are sure of themselves. */
static void plant_zeros(problem *p) {
  problem_draw_labels(p, 0.4, 0.2);
  problem_draw_row_weights(p);
  for (int64_t row = 0; row < p->rows; row++) {
    double *x = p->logits + row * p->classes;
    if (p->loss.kind == TARE_LOSS_GHM_R && row % 5 == 0) x[1] = p->targets[row * p->classes + 1];
    if (p->loss.kind == TARE_LOSS_GHM_R) continue;
    if (p->labels[row] == p->ignore_label || p->row_weights[row] == 0)
      x[row % p->classes] = NAN;
    else if (p->labels[row] != row % p->classes)
      x[row % p->classes] = -INFINITY;
  }
}

static void expect_carried(const problem *p, const char *what, const double *got, const double *unscaled, int64_t count,
                           double scale) {
  int64_t zeros = 0;
  for (int64_t i = 0; i < count; i++) {
    zeros += unscaled[i] == 0;
    const double want = unscaled[i] == 0 ? 0 : unscaled[i] * scale;
    if (isnan(want) ? isnan(got[i]) : got[i] == want) continue;
    cr_assert_fail("%s, %s %lld: %g times a scale of %g is %g, not %g", problem_text(p), what, (long long)i,
                   unscaled[i], scale, want, got[i]);
  }
  cr_assert(count == 0 || zeros < count, "%s, %s: all zeros", problem_text(p), what);
}

Test(scale, zeros_stay_zeros) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES; d++) {
        for (int way = PLAIN; way < WAYS; way++) {
          if (!takes(kind, way)) continue;
          problem *p = problem_in(kind, dtypes[d], way);
          plant_zeros(p);
          outcome *unscaled = problem_run(p, device);
          cr_assert_eq(unscaled->status, TARE_STATUS_OK, "%s: %s", problem_text(p), unscaled->text);
          for (size_t s = 0; s < SCALES; s++) {
            p->device_scale = scales[s];
            outcome *o = problem_run(p, device);
            cr_assert_eq(o->status, TARE_STATUS_OK, "%s: %s", problem_text(p), o->text);
            expect_carried(p, "gradient", o->gradient, unscaled->gradient, o->elements, scales[s]);
            CHECK_NEAR("loss", o->loss, unscaled->loss, ((tolerance){0, 1e-6}));
            outcome_free(o);
          }
          outcome_free(unscaled);
          problem_free(p);
        }
      }
    }
  }
}

/* As an upstream gradient that is kept until it is multiplied would have it, the divisor applied before. */
Test(scale, zeros_stay_zeros_over_every_normalizer) {
  FOR_EACH_DEVICE(device) {
    for (int32_t normalizer = TARE_NORMALIZER_SUM; normalizer <= TARE_NORMALIZER_VALUE; normalizer++) {
      problem *p = problem_in(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, PLAIN);
      plant_zeros(p);
      p->normalizer = normalizer;
      p->normalizer_value = 1e36; /* what is tiny becomes 0 before the scale */
      outcome *unscaled = problem_run(p, device);
      p->device_scale = INFINITY;
      outcome *o = problem_run(p, device);
      expect_carried(p, "gradient", o->gradient, unscaled->gradient, o->elements, INFINITY);
      outcome_free(unscaled);
      outcome_free(o);
      problem_free(p);
    }
  }
}

/* ---- Fused head ------------------------------------------------------------------------------------------------- */

static double previous_of(int64_t i) { return (double)(i % 13 - 6) / 4; } /* as support/head.c has it */

static void without_previous(const problem *p, head_gradient *g) {
  for (int64_t i = 0; p->head->accumulate && i < g->count; i++) g->value[i] -= previous_of(i);
}

static void check_head(const test_device *device, problem *p) {
  for (int64_t row = 0; row < p->rows; row++) p->head->features[row * p->head->dimensions + 1] = 0; /* a dead feature */
  for (int64_t row = 0; row < p->rows; row += 7) p->labels[row] = p->ignore_label;
  head_multiply(p);
  outcome *unscaled = problem_run(p, device);
  cr_assert_eq(unscaled->status, TARE_STATUS_OK, "%s", unscaled->text);
  without_previous(p, &unscaled->head->weights);
  without_previous(p, &unscaled->head->bias);
  for (size_t s = 0; s < SCALES; s++) {
    p->device_scale = scales[s];
    outcome *o = problem_run(p, device);
    cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
    without_previous(p, &o->head->weights);
    without_previous(p, &o->head->bias);
    const struct head_outcome *got = o->head, *from = unscaled->head;
    expect_carried(p, "features_gradient", got->features.value, from->features.value, got->features.count, scales[s]);
    expect_carried(p, "weights_gradient", got->weights.value, from->weights.value, got->weights.count, scales[s]);
    expect_carried(p, "bias_gradient", got->bias.value, from->bias.value, got->bias.count, scales[s]);
    outcome_free(o);
  }
  outcome_free(unscaled);
}

Test(scale, zeros_of_a_fused_head_stay_zeros) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    for (int32_t dtype = TARE_DTYPE_F32; dtype <= TARE_DTYPE_BF16; dtype++) {
      for (int way = 0; way < 4; way++) {
        problem *p = head_problem(way == 3 ? TARE_LOSS_SOFTMAX_CE : TARE_LOSS_SIGMOID_FOCAL, dtype, 300, 40, 12);
        p->head->accumulate = way == 1;
        p->head->in_place = way == 2;
        p->head->room = 0.1;
        check_head(device, p);
        problem_free(p);
      }
    }
  }
}

/* ---- Finite, but beyond single precision ------------------------------------------------------------------------- */

typedef struct far_factor {
  double scale, value, weight; /* weight x scale / value is what counts */
} far_factor;

static const far_factor far_factors[] = {{1e-20, 1e30, 1e30},  {1e38, 1e-5, 1e-20}, {1, 1e40, 1e20},
                                         {1e30, 1e-30, 1e-25}, {1e30, 1, 1e30},     {1e-30, 1e9, 1e25},
                                         {3.4e38, 1e60, 1e25}};

Test(scale, factors_beyond_single_precision) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t f = 0; f < sizeof far_factors / sizeof *far_factors && !is_ghm(kind); f++) {
        for (int way = PLAIN; way < DENSE; way++) {
          problem *p = problem_in(kind, TARE_DTYPE_F32, way);
          if (kind == TARE_LOSS_SIGMOID_ASYMMETRIC) p->loss.asymmetric.margin = 0; /* beside it a gradient is tiny */
          if (kind == TARE_LOSS_SOFTMAX_LDAM) p->loss.ldam.scale = 1;              /* with 30 some are, too */
          const far_factor *far = &far_factors[f];
          p->normalizer = TARE_NORMALIZER_VALUE;
          p->normalizer_value = far->value;
          p->gradient_scale = far->scale;
          p->row_weights = calloc((size_t)p->rows, sizeof *p->row_weights);
          for (int64_t i = 0; i < p->rows; i++) p->row_weights[i] = (double)(float)far->weight;
          for (int64_t i = 0; i < p->rows * p->classes; i++) p->logits[i] = fmax(-5, fmin(5, p->logits[i]));
          p->logits[0] = p->logits[p->classes + 1] = is_softmax(kind) ? -400 : -INFINITY; /* whose gradient is 0 */
          p->want = WANT_GRADIENT;
          p->labels[0] = p->labels[1] = p->background_label;
          if (is_softmax(kind)) p->labels[0] = p->labels[1] = 5;
          if (far->weight * far->scale / far->value < 1e36) CHECK_PROBLEM(p, device);
          outcome *o = problem_run(p, device);
          cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
          for (int64_t i = 0; i < o->elements; i++) cr_assert(!isnan(o->gradient[i]), "%s: NaN", problem_text(p));
          cr_assert(o->gradient[0] == 0, "%s: %g", problem_text(p), o->gradient[0]);
          outcome_free(o);
          problem_free(p);
        }
      }
    }
  }
}

/* Weight x scale is no float, and the largest class's gradient neither; the others' are, each class's alike. */
Test(scale, softmax_gradients_of_factors_beyond_single_precision) {
  static const int64_t widths[] = {3, 5, 15, 16, 40};
  FOR_EACH_DEVICE(device) {
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
      const int64_t classes = widths[w];
      problem *p = problem_new(TARE_LOSS_SOFTMAX_CE, TARE_DTYPE_F32, 2 * classes, classes);
      p->row_weights = calloc((size_t)p->rows, sizeof *p->row_weights);
      for (int64_t row = 0; row < p->rows; row++) {
        p->row_weights[row] = (double)1e20f;
        p->labels[row] = row % classes;
        for (int64_t c = 0; c < classes; c++) p->logits[row * classes + c] = c == (row + 1) % classes ? 0 : -30;
      }
      p->gradient_scale = 1e20;
      p->want = WANT_GRADIENT;
      outcome *got = problem_run(p, device), *want = problem_expect(p);
      cr_assert_eq(got->status, TARE_STATUS_OK, "%s", got->text);
      for (int64_t i = 0; i < got->elements; i++) {
        const double exact = want->gradient[i], sign = exact < 0 ? -1 : 1;
        CHECK_NEAR(problem_text(p), got->gradient[i], fabs(exact) > FLT_MAX ? sign * INFINITY : exact,
                   ((tolerance){0, 1e-5}));
      }
      outcome_free(got);
      outcome_free(want);
      problem_free(p);
    }
  }
}

/* ---- Sums of losses near the largest float ----------------------------------------------------------------------- */

/* Every element's loss is a float, their sum is none, and over its divisor it is one again. */
static void check_sum(const test_device *device, int32_t kind, int32_t dtype, int way, bool on_device) {
  problem *p = problem_in(kind, dtype, way);
  const double far = dtype == TARE_DTYPE_F16 ? 65504 : dtype == TARE_DTYPE_BF16 ? 0x1.fap127 : (double)3e38f;
  for (int64_t i = 0; i < p->rows * p->classes; i++)
    p->logits[i] = round_to_dtype(dtype, (i % 3 == 0 ? far : i % 3 == 1 ? -far : far / 2));
  p->want &= ~(unsigned)WANT_ROW_LOSS; /* no floats */
  p->want &= ~(unsigned)WANT_GRADIENT;
  p->loss_dtype = on_device ? TARE_DTYPE_F32 : TARE_DTYPE_F64;
  p->normalizer = TARE_NORMALIZER_VALUE;
  p->normalizer_value = on_device ? 3e38 : 1e6;
  p->normalizer_on_device = on_device;
  outcome *got = problem_run(p, device), *want = problem_expect(p);
  cr_assert_eq(got->status, TARE_STATUS_OK, "%s", got->text);
  cr_assert(isfinite(want->loss) && want->loss > 0);
  CHECK_NEAR(problem_text(p), got->loss, want->loss, ((tolerance){0, 1e-6}));
  outcome_free(got);
  outcome_free(want);
  problem_free(p);
}

Test(scale, sums_beyond_single_precision) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES; d++) {
        for (int way = PLAIN; way < WAYS; way++) {
          if (is_ghm(kind) || !takes(kind, way)) continue;
          check_sum(device, kind, dtypes[d], way, false);
          check_sum(device, kind, dtypes[d], way, true);
        }
      }
    }
  }
}

/* Softmax: a row's loss is twice the largest float; with dense targets a share of it. */
Test(scale, softmax_losses_beyond_single_precision) {
  FOR_EACH_DEVICE(device) {
    for (int soft = 0; soft < 2; soft++) {
      problem *p = problem_new(TARE_LOSS_SOFTMAX_CE, TARE_DTYPE_F32, 3, 4);
      for (int i = 0; i < 12; i++) p->logits[i] = (double)(i % 4 == 1 ? -3e38f : 3e38f);
      for (int i = 0; i < 3; i++) p->labels[i] = 1;
      if (soft) p->targets = calloc(12, sizeof *p->targets);
      for (int i = 0; i < 12 && soft; i++) p->targets[i] = i % 4 == 1 ? 0.25 : i % 4 == 2 ? 0.75 : 0;
      p->want = WANT_LOSS | (soft ? WANT_ROW_LOSS : 0);
      p->normalizer = TARE_NORMALIZER_ROWS;
      p->loss_dtype = TARE_DTYPE_F64;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* What is divided by lies on the device, and its reciprocal is no normal float. */
Test(scale, divisors_at_the_ends) {
  static const double divisors[] = {3e38, 1e38, 1e37, 1e36, 1e-36, 1e-38, 1e-40, 1e-45, -2e38};
  FOR_EACH_DEVICE(device) {
    for (size_t i = 0; i < sizeof divisors / sizeof *divisors; i++) {
      problem *p = problem_in(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, PLAIN);
      p->normalizer = TARE_NORMALIZER_VALUE;
      p->normalizer_on_device = true;
      p->normalizer_value = (double)(float)divisors[i];
      p->loss_dtype = TARE_DTYPE_F64;
      p->want = WANT_LOSS;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* ---- An element that the density gives no weight ----------------------------------------------------------------- */

/* It adds nothing, whatever its logit is, as with any weight of 0: 1/GD is 0 in the first bin and the last. */
Test(scale, no_density_no_part) {
  static const double x[] = {NAN, INFINITY, -INFINITY, -30, 30, 0.1, -0.1, 0.5};
  enum { COUNT = sizeof x / sizeof *x };
  FOR_EACH_DEVICE(device) {
    for (size_t d = 0; d < DTYPES; d++) {
      for (int way = PLAIN; way < WAYS; way++) {
        for (int zero = 0; zero < 3; zero++) { /* of the first bin, the last, both */
          problem *p = problem_in(TARE_LOSS_GHM_C, dtypes[d], way);
          p->loss.ghm.bins = 10;
          p->loss.ghm.use_stored_density = 1;
          problem_add_ghm_state(p);
          double weights[10];
          for (int k = 0; k < 10; k++) weights[k] = (k == 0 && zero != 1) || (k == 9 && zero != 0) ? 0 : 0.25 + k;
          memcpy(p->ghm_state + 2 + 20, weights, sizeof weights);
          memcpy(p->oracle_state->weights, weights, sizeof weights);
          for (int64_t i = 0; i < p->rows * p->classes; i++) p->logits[i] = round_to_dtype(dtypes[d], x[i * 5 % COUNT]);
          for (int64_t i = 0; i < p->rows * p->classes && p->targets; i++) p->targets[i] = (double)(i % 2);
          CHECK_PROBLEM(p, device);
          problem_free(p);
        }
      }
    }
    problem *r = problem_new(TARE_LOSS_GHM_R, TARE_DTYPE_F32, 4, 2);
    r->loss.ghm.bins = 10;
    r->loss.ghm.use_stored_density = 1;
    problem_add_ghm_state(r);
    for (int i = 0; i < 4; i++) r->labels[i] = 0;
    r->logits[0] = NAN, r->logits[3] = INFINITY;
    outcome *o = problem_run(r, device);
    for (int i = 0; i < 8; i++) cr_assert(o->gradient[i] == 0 && o->element_loss[i] == 0, "%d: %g", i, o->gradient[i]);
    cr_assert(o->loss == 0, "%g", o->loss);
    outcome_free(o);
    problem_free(r);
  }
}

/* An ignored row, or one of weight 0, gets no NaN from any density either. 1/GD of a bin that has long been empty is
 * infinite in single precision, and a 1/GD that the caller gives may be NaN. So may be that of the logit 0, which pads
 * vectors. */
static void check_starved_bins(const test_device *device, int32_t dtype, int way, int32_t bins,
                               double inverse_density) {
  static const double counted[] = {0.6, -0.6, 2, -2, 1.2, -1.2}, others[] = {NAN, -INFINITY, -30, 30, 0, INFINITY};
  problem *p = problem_in(TARE_LOSS_GHM_C, dtype, way);
  p->loss.ghm.bins = bins;
  p->loss.ghm.use_stored_density = 1;
  problem_add_ghm_state(p);
  problem_draw_labels(p, 0.4, 0.2);
  problem_draw_row_weights(p);
  double *weights = p->oracle_state->weights;
  for (int k = 0; k < bins; k++) weights[k] = k == 0 || k == bins / 2 || k == bins - 1 ? inverse_density : 0.25 + k;
  memcpy(p->ghm_state + 2 + 2 * bins, weights, (size_t)bins * sizeof *weights);
  for (int64_t i = 0; i < p->rows * p->classes; i++) {
    const int64_t row = i / p->classes;
    const bool counts = p->labels[row] != p->ignore_label && p->row_weights[row] > 0;
    p->logits[i] = round_to_dtype(dtype, counts ? counted[i % 6] : others[i % 6]);
    if (p->targets) p->targets[i] = (double)(i % 2);
  }
  CHECK_PROBLEM(p, device);
  problem_free(p);
}

Test(scale, no_weight_no_part) {
  static const double inverse_densities[] = {INFINITY, 1e60, NAN};
  FOR_EACH_DEVICE(device) {
    for (size_t d = 0; d < DTYPES; d++)
      for (int way = PLAIN; way < WAYS; way++)
        for (size_t i = 0; i < 3; i++)
          for (int many = 0; many < 2; many++)
            check_starved_bins(device, dtypes[d], way, many ? 41 : 11, inverse_densities[i]);
  }
}

/* ---- What is refused --------------------------------------------------------------------------------------------- */

static void expect_refused(const test_device *device, double scale, int32_t normalizer, double value,
                           const char *named) {
  problem *p = problem_in(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, PLAIN);
  p->gradient_scale = scale;
  p->normalizer = normalizer;
  p->normalizer_value = value;
  outcome *o = problem_run(p, device);
  cr_assert_eq(o->status, TARE_STATUS_INVALID_ARGUMENT, "scale %g, value %g: %s", scale, value,
               tare_status_name(o->status));
  cr_assert(strstr(o->text, named), "%s", o->text);
  outcome_free(o);
  problem_free(p);
}

Test(scale, refused) {
  FOR_EACH_DEVICE(device) {
    expect_refused(device, 1e39, TARE_NORMALIZER_SUM, 1, "gradient_scale is 1e+39");
    expect_refused(device, -3.5e38, TARE_NORMALIZER_SUM, 1, "gradient_scale is -3.5e+38");
    expect_refused(device, 1, TARE_NORMALIZER_VALUE, 1e-310, "normalizer_value is 1e-310");
    expect_refused(device, 3e38, TARE_NORMALIZER_VALUE, 1e-300,
                   "gradient_scale 3e+38 over output->normalizer_value 1e-300");
  }
}
