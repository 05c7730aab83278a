/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done in double whatever the type of the logits: margins of softmax rows, and gradient norms of dense targets.
 * Compiled with the kernels for f64. The kernels for f32 reach it through struct tare_double_kernels, with an array a
 * call.
 */

/** Margins of n rows. A second +inf among the other classes shows as a sum above 1, and has no limit: NaN. */
static void find_margins(int32_t n, tare_margins *margins) {
  const double *restrict label_x = margins->label_x, *restrict maximum = margins->maximum;
  const double *restrict sum = margins->sum;
  double *restrict margin = margins->margin;
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: softmax margins (any) */
    const double m = maximum[i];
    const double s = ((m > DBL_MAX) & (sum[i] > 1.5)) ? (double)NAN : sum[i];
    const log_parts log_s = log_positive(s);
    margin[i] = (label_x[i] - m) - (log_s.hi + log_s.lo);
  }
}

/** Seesaw loss: max(x_y, LSE + log epsilon) of n rows, in the place of their margins. */
static void find_bases_in_double(const tare_problem *problem, int32_t n, tare_margins *margins) {
  const double *restrict label_x = margins->label_x, *restrict maximum = margins->maximum;
  const double *restrict sum = margins->sum, floor = log(problem->least_probability);
  double *restrict base = margins->margin;
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: seesaw bases (any) */
    const log_parts log_s = log_positive(sum[i]);
    const double others = maximum[i] + (log_s.hi + log_s.lo), x = label_x[i];
    const double low = (x > others ? x : others) + terms_of(x - others).log1p_e + floor;
    base[i] = x > low ? x : low;
  }
}

typedef pair margin_formula(double margin, double weight, const formula_parameters *, int power);

/** Losses and derivatives of n rows, by one formula with one power. */
TARE_INLINE void margin_loop(margin_formula *formula, int power, const formula_parameters *parameters, int32_t n,
                             const double *restrict weight, tare_margins *margins) {
  const formula_parameters p = *parameters;
  const double *restrict margin = margins->margin;
  double *restrict loss = margins->loss, *restrict derivative = margins->derivative;
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: softmax rows */
    const pair value = formula(margin[i], weight[i], &p, power);
    loss[i] = weight[i] != 0 ? value.loss : 0.0;
    derivative[i] = weight[i] != 0 ? value.derivative : 0.0;
  }
}

/** The same, by the instance for a power; `has_powers` is a constant. */
TARE_INLINE void margin_loops(margin_formula *formula, int has_powers, int power, const formula_parameters *parameters,
                              int32_t n, const double *weight, tare_margins *margins) {
  switch (has_powers ? power : TARE_POWER_0) {
    case TARE_POWER_0:
      margin_loop(formula, TARE_POWER_0, parameters, n, weight, margins);
      break;
    case TARE_POWER_1:
      margin_loop(formula, TARE_POWER_1, parameters, n, weight, margins);
      break;
    case TARE_POWER_2:
      margin_loop(formula, TARE_POWER_2, parameters, n, weight, margins);
      break;
    case TARE_POWER_HALF:
      margin_loop(formula, TARE_POWER_HALF, parameters, n, weight, margins);
      break;
    case TARE_POWER_3_HALVES:
      margin_loop(formula, TARE_POWER_3_HALVES, parameters, n, weight, margins);
      break;
    default:
      margin_loop(formula, TARE_POWER_GENERAL, parameters, n, weight, margins);
  }
}

/** Losses and derivatives with label smoothing. The logarithm of S is the margin's. `all` is a constant. */
TARE_INLINE void smoothed_loop(int all, const row_smoothing *smoothing, double others, int32_t n,
                               const double *restrict weight, tare_margins *margins) {
  const row_smoothing by = *smoothing;
  const double *restrict margin = margins->margin, *restrict spread = margins->spread, *restrict sum = margins->sum;
  double *restrict loss = margins->loss, *restrict derivative = margins->derivative;
  double *restrict factor = margins->modulator;
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: smoothed softmax rows */
    const log_parts log_s = log_positive(sum[i]);
    const double more = by.share * (spread[i] + others * (log_s.hi + log_s.lo));
    const smoothed_row value = softmax_smoothed(margin[i], 0, more, weight[i], &by, all);
    loss[i] = weight[i] != 0 ? value.loss : 0.0;
    derivative[i] = weight[i] != 0 ? value.derivative : 0.0;
    factor[i] = value.modulator; /* of a row that is skipped nobody asks for it */
  }
}

static void evaluate_smoothed_margins(const tare_problem *problem, int32_t n, const double *weight,
                                      tare_margins *margins) {
  const row_smoothing by = smoothing_of(problem);
  const double others = (double)(problem->batch.classes - 1);
  find_margins(n, margins);
  if (problem->smooths_all)
    smoothed_loop(1, &by, others, n, weight, margins);
  else
    smoothed_loop(0, &by, others, n, weight, margins);
}

/** LDAM: the derivative by x is s times that by z. */
static __attribute__((noinline)) void scale_derivatives(const tare_problem *problem, int32_t n, tare_margins *margins) {
  const double scale = tare_scale_of_rows(problem);
  for (int32_t i = 0; i < n; i++) margins->derivative[i] *= scale;
}

/** Losses and derivatives of rows with z-loss. What p or q is 0 of stays 0, also if LSE is infinite. */
static void add_z_loss(const tare_problem *problem, int32_t n, const double *restrict weight, tare_margins *margins) {
  const double *restrict margin = margins->margin, *restrict label_x = margins->label_x;
  const double *restrict maximum = margins->maximum, *restrict sum = margins->sum, lambda = problem->z_loss;
  double *restrict loss = margins->loss, *restrict derivative = margins->derivative;
  double *restrict of_label = margins->of_label;
  for (int32_t i = 0; i < n; i++) { /* a row a turn: beside its classes that is little */
    const log_parts log_s = log_positive(sum[i]);
    const terms t = terms_of(margin[i]);
    const z_loss_part z = z_loss_of(label_x[i], maximum[i] + (log_s.hi + log_s.lo), margin[i], t.log1p_e, lambda);
    const double w = weight[i], more = w * z.loss, of_others = w * t.q * z.slope, of_own = w * t.p * z.slope;
    loss[i] += w != 0 ? more : 0.0;
    derivative[i] += ((w != 0) & (t.q != 0)) ? of_others : 0.0;
    of_label[i] += ((w != 0) & (t.p != 0)) ? of_own : 0.0;
  }
}

/** Of rows with terms of their own. */
static __attribute__((noinline)) void finish_row_terms(const tare_problem *problem, int32_t n, const double *weight,
                                                       tare_margins *margins) {
  const int smooths = tare_smooths_rows(problem);
  const double rest = tare_smoothed_rest(problem);
  for (int32_t i = 0; i < n; i++)
    margins->of_label[i] = (smooths ? rest * margins->modulator[i] : 0.0) - margins->derivative[i];
  if (problem->z_loss > 0.0) add_z_loss(problem, n, weight, margins);
}

static void evaluate_margins(const tare_problem *problem, int32_t n, const double *weight, tare_margins *margins) {
  const formula_parameters p = parameters_of(problem);
  if (tare_smooths_rows(problem)) {
    evaluate_smoothed_margins(problem, n, weight, margins);
    finish_row_terms(problem, n, weight, margins);
    return;
  }
  find_margins(n, margins);
  switch (problem->loss.kind) {
#define CASE_SIGMOID(kind, formula, powers)
#define CASE_SOFTMAX(kind, formula, powers)                                \
  case TARE_LOSS_##kind:                                                   \
    margin_loops(formula, powers, problem->power, &p, n, weight, margins); \
    break;
#define CASE_REGRESSION(kind, formula, powers)
#define TARE_LOSS(kind, formula, name, family, powers, alpha, ...) CASE_##family(kind, formula, powers)
#include "losses/losses.def"
#undef TARE_LOSS
#undef CASE_SIGMOID
#undef CASE_SOFTMAX
#undef CASE_REGRESSION
  }
  if (tare_is_ldam(problem)) scale_derivatives(problem, n, margins);
  if (tare_has_row_terms(problem)) finish_row_terms(problem, n, weight, margins);
}

static double logarithm(double x) {
  const log_parts log_x = log_positive(x);
  return log_x.hi + log_x.lo;
}

static void find_soft_norms_in_double(int32_t n, const double *restrict x, const double *restrict target,
                                      double *restrict norm) {
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: norms of dense targets (any) */
    const double difference = terms_of(x[i]).p - target[i];
    norm[i] = difference < 0 ? -difference : difference;
  }
}

static void find_norms_in_double(int32_t n, const double *restrict logit, double *restrict norm) {
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: norms of sorted logits (any) */
    const double u = logit[i], e = exp_nonpositive(u < 0 ? u : -u), nearer = e / (1.0 + e);
    norm[i] = u > 0 ? -nearer : nearer;
  }
}
