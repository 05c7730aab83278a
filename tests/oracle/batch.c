/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole batch: the losses and gradients of all elements.
 */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "density.h"
#include "normalizers.h"
#include "oracle.h"
#include "rows.h"

void oracle_problem_init(struct oracle_problem *problem, const struct oracle_loss *loss, int64_t rows,
                         int64_t classes) {
  *problem = (struct oracle_problem){.loss = loss,
                                     .rows = rows,
                                     .classes = classes,
                                     .target_least = -1e-3,
                                     .target_most = 1.001,
                                     .score_least = -1e-3,
                                     .score_most = 1.001,
                                     .background_label = -1,
                                     .ignore_label = -2,
                                     .alpha = -1,
                                     .gamma = 2,
                                     .beta = 2,
                                     .epsilon = loss->has_density ? 0.1 : 1,
                                     .p_exponent = 0.25,
                                     .p = 0.8,
                                     .q = 2,
                                     .scale = 30,
                                     .gamma_positive = 1,
                                     .gamma_negative = 4,
                                     .margin = 0.05,
                                     .threshold = 0.5,
                                     .steepness = 2,
                                     .shift = 1,
                                     .background_weight = 1,
                                     .normalizer = ORACLE_SUM,
                                     .normalizer_value = 1,
                                     .gradient_scale = 1,
                                     .bins = loss->is_regression ? 10 : 30,
                                     .mu = 0.02};
}

/* ---- Elements -------------------------------------------------------------------------------------------------- */

static double alpha_of(const struct oracle_problem *problem, int64_t c) {
  return problem->alpha_per_class ? problem->alpha_per_class[c] : problem->alpha;
}

/* Positive weight and alpha are those of a target, or of a label whatever its score is. */
static double kind_of_target(const struct oracle_problem *problem, struct row_role row, int64_t c, double t) {
  return problem->targets || row.class != c ? t : 1;
}

static double positive_weight(const struct oracle_problem *problem, int64_t c) {
  return problem->positive_weights ? problem->positive_weights[c] : 1;
}

static double negative_weight(const struct oracle_problem *problem, struct row_role row, int64_t c) {
  if (problem->background_negative_weights && row.class < 0) return problem->background_negative_weights[c];
  return problem->negative_weights ? problem->negative_weights[c] : 1;
}

/* With the exponent of the class, if it has one, or the weights of the terms. */
static struct oracle_detached column_element(const struct oracle_problem *problem, struct oracle_element element,
                                             struct row_role row, int64_t c) {
  if (problem->weighting)
    return oracle_terms_element(problem, element, positive_weight(problem, c), negative_weight(problem, row, c));
  if (!problem->gamma_per_class) return problem->loss->element(problem, element);
  struct oracle_problem of_class = *problem;
  of_class.gamma = problem->gamma_per_class[c];
  return problem->loss->element(&of_class, element);
}

static double element_weight(const struct oracle_problem *problem, struct row_role row, int64_t i, int64_t c) {
  double weight = row.weight, t = kind_of_target(problem, row, c, row_target(problem, row, i, c));
  if (weight == 0 || problem->loss->has_density) return weight;
  if (problem->element_weights) weight *= problem->element_weights[i * problem->classes + c];
  if (problem->loss->has_peaks && t < 1) t = 0;
  const bool by_class = problem->positive_weights || problem->negative_weights || problem->background_negative_weights;
  if (problem->weighting || !by_class) return weight;
  return weight *
         (oracle_times(t, positive_weight(problem, c)) + oracle_times(1 - t, negative_weight(problem, row, c)));
}

/* Columns that are no classes have no sums. A target of 0 leaves nothing of a gradient that is not finite. */
static bool sums_classes(const struct oracle_problem *problem) {
  return !problem->loss->is_regression && !(problem->loss->row && (problem->targets || problem->scores));
}

static void add_element(const struct oracle_problem *problem, struct oracle_result *result, int64_t c, double t,
                        double loss, double derivative) {
  struct oracle_class_sums *sums = &result->class_sums[c];
  if (!sums_classes(problem)) return;
  sums->loss += loss;
  sums->positive += oracle_times(t, fabs(derivative));
  sums->negative += oracle_times(1 - t, fabs(derivative));
}

static void count_for_classes(const struct oracle_problem *problem, struct oracle_result *result) {
  for (int64_t i = 0; sums_classes(problem) && i < problem->rows; ++i) {
    struct row_role row = row_role(problem, i);
    for (int64_t c = 0; row.counts && c < problem->classes; ++c)
      if ((!problem->loss->row || row.class == c) && !is_masked(problem, i, c)) result->class_sums[c].count += 1;
  }
}

/* Fills the row of a sigmoid or GHM loss; returns its weighted loss. `scale` belongs to the gradient alone. */
static double fill_elements(const struct oracle_problem *problem, int64_t i, double scale,
                            struct oracle_result *result) {
  struct row_role row = row_role(problem, i);
  long double sum = 0;
  for (int64_t c = 0; c < problem->classes; ++c) {
    int64_t at = i * problem->classes + c;
    if (is_masked(problem, i, c)) continue;
    double t = row_target(problem, row, i, c);
    double weight = element_weight(problem, row, i, c);
    if (weight == 0) continue;
    if (problem->loss->has_density) weight = result->inverse_density[at];
    if (weight == 0) continue; /* also of a NaN */
    struct oracle_element element = {.x = problem->logits[at],
                                     .t = t,
                                     .of_alpha = kind_of_target(problem, row, c, t),
                                     .alpha = alpha_of(problem, c),
                                     .given = problem->factors ? problem->factors[at] : NAN};
    struct oracle_detached loss = column_element(problem, element, row, c);
    result->element_loss[at] = weight * loss.value;
    result->gradient[at] = scale * weight * loss.derivative;
    result->factors[at] = loss.factor;
    add_element(problem, result, c, t, result->element_loss[at], weight * loss.derivative);
    sum += result->element_loss[at];
  }
  return (double)sum;
}

static double fill_softmax(const struct oracle_problem *problem, int64_t i, double scale,
                           struct oracle_result *result) {
  struct row_role row = row_role(problem, i);
  if (row.weight == 0) return 0;
  struct oracle_row form = {.x = problem->logits + i * problem->classes,
                            .t = problem->targets ? problem->targets + i * problem->classes : NULL,
                            .scores = problem->scores ? problem->scores + i * problem->loss->bins : NULL,
                            .label = row.class,
                            .alpha = problem->targets ? -1 : alpha_of(problem, row.class)};
  double *dx = result->gradient + i * problem->classes;
  double loss = problem->loss->row(problem, form, dx);
  for (int64_t c = 0; c < problem->classes; ++c) {
    const bool is_label = c == row.class;
    dx[c] = oracle_times(row.weight, dx[c]);
    add_element(problem, result, c, is_label, is_label ? oracle_times(row.weight, loss) : 0, dx[c]);
    dx[c] *= scale;
  }
  return oracle_times(row.weight, loss);
}

/* ---- The batch ------------------------------------------------------------------------------------------------- */

static void allocate(const struct oracle_problem *problem, struct oracle_result *result) {
  int64_t elements = problem->rows * problem->classes;
  *result = (struct oracle_result){.gradient = density_allocate(elements, sizeof(double)),
                                   .row_loss = density_allocate(problem->rows, sizeof(double)),
                                   .class_sums = density_allocate(problem->classes, sizeof *result->class_sums)};
  if (!problem->loss->row) {
    result->element_loss = density_allocate(elements, sizeof(double));
    result->factors = density_allocate(elements, sizeof(double));
  }
  if (problem->loss->has_density) result->inverse_density = density_allocate(elements, sizeof(double));
}

/* Rows [first, end) of one divisor and weight. Returns their loss. */
static double evaluate_rows(const struct oracle_problem *problem, int64_t first, int64_t end, double divisor,
                            double weight, struct oracle_result *result) {
  double scale = problem->gradient_scale * weight / divisor;
  long double sum = 0;
  for (int64_t i = first; i < end; ++i) {
    result->row_loss[i] =
        problem->loss->row ? fill_softmax(problem, i, scale, result) : fill_elements(problem, i, scale, result);
    sum += result->row_loss[i];
  }
  return (double)(weight * sum / divisor);
}

static void evaluate_levels(const struct oracle_problem *problem, struct oracle_result *result) {
  long double all = 0;
  int64_t first = 0;
  for (int k = 0; k < problem->level_count; ++k) {
    const struct oracle_level *level = &problem->levels[k];
    int64_t end = first + level->rows;
    double divisor = result->divisor;
    result->level_sums[k] = normalizer_sums_of(problem, first, end);
    if (problem->scope_is_level) divisor = normalizer_divisor(problem, &result->level_sums[k]);
    if (level->divisor != 0) divisor = level->divisor;
    result->level_loss[k] = evaluate_rows(problem, first, end, divisor, level->weight, result);
    all += result->level_loss[k];
    first = end;
  }
  result->loss = (double)all;
}

void oracle_evaluate(const struct oracle_problem *problem, struct oracle_result *result) {
  allocate(problem, result);
  result->counts = row_counts_of(problem, 0, problem->rows);
  count_for_classes(problem, result);
  result->normalizer_sums = normalizer_sums_of(problem, 0, problem->rows);
  result->divisor = normalizer_divisor(problem, &result->normalizer_sums);
  if (problem->loss->has_density) density_of_batch(problem, result);
  if (problem->level_count)
    evaluate_levels(problem, result);
  else
    result->loss = evaluate_rows(problem, 0, problem->rows, result->divisor, 1, result);
}

void oracle_result_free(struct oracle_result *result) {
  free(result->gradient);
  free(result->row_loss);
  free(result->element_loss);
  free(result->factors);
  free(result->inverse_density);
  free(result->class_sums);
  *result = (struct oracle_result){0};
}
