/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole batch: what each row is and weighs, what the sum is divided by, and the losses and gradients of all elements.
 */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "density.h"
#include "oracle.h"

void oracle_problem_init(struct oracle_problem *problem, enum oracle_loss loss, int64_t rows, int64_t classes) {
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
                                     .poly_epsilon = 1,
                                     .p_exponent = 0.25,
                                     .background_weight = 1,
                                     .normalizer = ORACLE_SUM,
                                     .normalizer_value = 1,
                                     .gradient_scale = 1,
                                     .bins = loss == ORACLE_GHM_R ? 10 : 30,
                                     .ghm_epsilon = 0.1,
                                     .mu = 0.02};
}

/* ---- Rows ------------------------------------------------------------------------------------------------------ */

static bool is_softmax(const struct oracle_problem *problem) {
  return problem->loss == ORACLE_SOFTMAX_CE || problem->loss == ORACLE_SOFTMAX_FOCAL ||
         problem->loss == ORACLE_SOFTMAX_LOGIT_ADJUSTED;
}

static bool is_ghm(const struct oracle_problem *problem) {
  return problem->loss == ORACLE_GHM_C || problem->loss == ORACLE_GHM_R;
}

/* The class a label names, or -1. The difference is formed unsigned: labels may be anywhere in 64 bits. The columns of
 * GHM-R are no classes, and any label from the first on is one. */
static int64_t class_of(const struct oracle_problem *problem, int64_t label) {
  uint64_t offset = (uint64_t)label - (uint64_t)problem->first_label;
  if (problem->loss == ORACLE_GHM_R) return label >= problem->first_label ? 0 : -1;
  return label >= problem->first_label && offset < (uint64_t)problem->classes ? (int64_t)offset : -1;
}

enum oracle_row_kind oracle_row_kind(const struct oracle_problem *problem, int64_t label) {
  if (label == problem->ignore_label) return ORACLE_IGNORED;
  if (label == problem->background_label) return ORACLE_BACKGROUND;
  return class_of(problem, label) >= 0 ? ORACLE_POSITIVE : ORACLE_INVALID;
}

/* A row as the loss sees it: class -1 is none; weight 0 adds nothing. */
struct row {
  bool counts, spoilt; /* spoilt: by a target */
  int64_t class;
  double weight;
};

/* Softmax treats a background label in the range of the classes as that class, a sigmoid loss never. */
static int64_t row_class(const struct oracle_problem *problem, int64_t label) {
  if (oracle_row_kind(problem, label) == ORACLE_BACKGROUND && !is_softmax(problem)) return -1;
  return class_of(problem, label);
}

static bool row_counts(const struct oracle_problem *problem, int64_t label) {
  enum oracle_row_kind kind = oracle_row_kind(problem, label);
  if (kind == ORACLE_IGNORED || kind == ORACLE_INVALID) return false;
  if (problem->loss == ORACLE_GHM_R) return kind == ORACLE_POSITIVE;
  return problem->targets || !is_softmax(problem) || row_class(problem, label) >= 0;
}

/* Row weight x class weight; GHM takes the row weight as a mask, targets know no class. */
static double row_weight(const struct oracle_problem *problem, int64_t i, int64_t class) {
  double weight = problem->row_weights ? problem->row_weights[i] : 1;
  if (is_ghm(problem)) return weight > 0;
  if (problem->targets) return weight;
  if (class < 0) return weight * problem->background_weight;
  return problem->class_weights ? weight * problem->class_weights[class] : weight;
}

static bool is_valid_target(const struct oracle_problem *problem, double t) {
  if (is_softmax(problem)) return t >= 0 && !isinf(t);
  return t >= problem->target_least && t <= problem->target_most;
}

/* Whether a target spoils row i, whose weight is not 0. Elements of weight 0 are not looked at. */
static bool has_invalid_target(const struct oracle_problem *problem, int64_t i) {
  for (int64_t at = i * problem->classes; at < (i + 1) * problem->classes; ++at) {
    if (problem->element_weights && problem->element_weights[at] == 0) continue;
    if (!is_valid_target(problem, problem->targets[at])) return true;
  }
  return false;
}

/* Whether the score of row i, whose class and weight are given, spoils it. That of an element of weight 0 does not. */
static bool has_invalid_score(const struct oracle_problem *problem, int64_t i, int64_t class) {
  if (!problem->scores || class < 0) return false;
  if (problem->element_weights && problem->element_weights[i * problem->classes + class] == 0) return false;
  return !(problem->scores[i] >= problem->score_least && problem->scores[i] <= problem->score_most);
}

static struct row look(const struct oracle_problem *problem, int64_t i) {
  struct row row = {.counts = true, .class = -1};
  if (problem->labels) {
    row.counts = row_counts(problem, problem->labels[i]);
    row.class = row_class(problem, problem->labels[i]);
  }
  row.weight = row.counts ? row_weight(problem, i, row.class) : 0;
  bool spoilt = problem->targets && problem->loss != ORACLE_GHM_R ? has_invalid_target(problem, i)
                                                                  : has_invalid_score(problem, i, row.class);
  if (row.weight != 0 && spoilt) {
    row.counts = false;
    row.weight = 0;
    row.spoilt = true;
  }
  return row;
}

static struct oracle_counts count_rows(const struct oracle_problem *problem) {
  struct oracle_counts counts = {.rows = problem->rows};
  for (int64_t i = 0; i < problem->rows; ++i) {
    struct row row = look(problem, i);
    counts.counted += row.counts;
    counts.invalid += row.spoilt;
    if (!problem->labels || row.spoilt) continue;
    enum oracle_row_kind kind = oracle_row_kind(problem, problem->labels[i]);
    counts.positives += kind == ORACLE_POSITIVE;
    counts.background += kind == ORACLE_BACKGROUND;
    counts.ignored += kind == ORACLE_IGNORED;
    counts.invalid += kind == ORACLE_INVALID;
  }
  return counts;
}

struct oracle_counts oracle_label_counts(const struct oracle_problem *problem, int64_t *per_class) {
  struct oracle_problem labels_only = *problem;
  labels_only.loss = ORACLE_SIGMOID_CE;
  labels_only.targets = NULL;
  for (int64_t c = 0; per_class && c < problem->classes; ++c) per_class[c] = 0;
  for (int64_t i = 0; per_class && i < problem->rows; ++i)
    if (oracle_row_kind(problem, problem->labels[i]) == ORACLE_POSITIVE)
      per_class[class_of(problem, problem->labels[i])] += 1;
  return count_rows(&labels_only);
}

static double weight_sum(const struct oracle_problem *problem) {
  long double sum = 0;
  for (int64_t i = 0; i < problem->rows; ++i) sum += look(problem, i).weight;
  return (double)sum;
}

static double divisor_of(const struct oracle_problem *problem, const struct oracle_counts *counts) {
  double divisor = 1;
  switch (problem->normalizer) {
    case ORACLE_SUM:
      divisor = 1;
      break;
    case ORACLE_ELEMENTS:
      divisor = (double)counts->counted * (is_softmax(problem) ? 1 : (double)problem->classes);
      break;
    case ORACLE_ROWS:
      divisor = (double)counts->counted;
      break;
    case ORACLE_POSITIVES:
      divisor = (double)counts->positives;
      break;
    case ORACLE_WEIGHTS:
      divisor = weight_sum(problem);
      break;
    case ORACLE_VALUE:
      divisor = problem->normalizer_value;
      break;
  }
  return divisor == 0 ? 1 : divisor;
}

/* ---- Elements -------------------------------------------------------------------------------------------------- */

static double target_of(const struct oracle_problem *problem, struct row row, int64_t i, int64_t c) {
  if (!problem->targets && problem->scores && row.class == c) return fmin(fmax(problem->scores[i], 0), 1);
  if (!problem->targets) return row.class == c ? 1 : 0;
  double t = problem->targets[i * problem->classes + c];
  return problem->loss == ORACLE_GHM_R ? t : fmin(fmax(t, 0), 1);
}

static double alpha_of(const struct oracle_problem *problem, int64_t c) {
  return problem->alpha_per_class ? problem->alpha_per_class[c] : problem->alpha;
}

/* Positive weight and alpha are those of a target, or of a label whatever its score is. */
static double kind_of_target(const struct oracle_problem *problem, struct row row, int64_t c, double t) {
  return problem->targets || row.class != c ? t : 1;
}

static double element_weight(const struct oracle_problem *problem, struct row row, int64_t i, int64_t c) {
  double weight = row.weight, t = kind_of_target(problem, row, c, target_of(problem, row, i, c));
  if (weight == 0 || is_ghm(problem)) return weight;
  if (problem->element_weights) weight *= problem->element_weights[i * problem->classes + c];
  if (problem->positive_weights) weight *= t * problem->positive_weights[c] + (1 - t);
  return weight;
}

/* Columns that are no classes have no sums. A target of 0 leaves nothing of a gradient that is not finite. */
static bool sums_classes(const struct oracle_problem *problem) {
  return problem->loss != ORACLE_GHM_R && !(is_softmax(problem) && problem->targets);
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
    struct row row = look(problem, i);
    for (int64_t c = 0; row.counts && c < problem->classes; ++c)
      if (!is_softmax(problem) || row.class == c) result->class_sums[c].count += 1;
  }
}

/* Fills the row of a sigmoid or GHM loss; returns its weighted loss. `scale` belongs to the gradient alone. */
static double fill_elements(const struct oracle_problem *problem, int64_t i, double scale,
                            struct oracle_result *result) {
  struct row row = look(problem, i);
  long double sum = 0;
  for (int64_t c = 0; c < problem->classes; ++c) {
    int64_t at = i * problem->classes + c;
    double t = target_of(problem, row, i, c);
    double weight = element_weight(problem, row, i, c);
    if (weight == 0) continue;
    if (is_ghm(problem)) weight = result->inverse_density[at];
    if (weight == 0) continue; /* also of a NaN */
    struct oracle_element element = {.x = problem->logits[at],
                                     .t = t,
                                     .of_alpha = kind_of_target(problem, row, c, t),
                                     .alpha = alpha_of(problem, c),
                                     .given = problem->factors ? problem->factors[at] : NAN};
    struct oracle_detached loss = oracle_element(problem, element);
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
  struct row row = look(problem, i);
  if (row.weight == 0) return 0;
  const double *x = problem->logits + i * problem->classes;
  double *dx = result->gradient + i * problem->classes;
  const double *offset = problem->loss == ORACLE_SOFTMAX_LOGIT_ADJUSTED ? problem->class_offset : NULL;
  double weight = row.weight;
  double loss;
  if (problem->targets) {
    loss = oracle_adjusted_soft_softmax_row(problem->classes, x, offset, problem->targets + i * problem->classes, dx);
  } else {
    bool focal = problem->loss == ORACLE_SOFTMAX_FOCAL;
    double alpha = alpha_of(problem, row.class);
    if (focal && alpha >= 0) weight *= alpha;
    loss = oracle_adjusted_softmax_row(problem->classes, x, offset, row.class, focal ? problem->gamma : 0, dx);
  }
  for (int64_t c = 0; c < problem->classes; ++c) {
    const bool is_label = c == row.class;
    dx[c] = oracle_times(weight, dx[c]);
    add_element(problem, result, c, is_label, is_label ? oracle_times(weight, loss) : 0, dx[c]);
    dx[c] *= scale;
  }
  return oracle_times(weight, loss);
}

/* ---- GHM ------------------------------------------------------------------------------------------------------- */

static int bin_of(const struct oracle_problem *problem, double x, double t) {
  if (problem->loss == ORACLE_GHM_R) return oracle_ghm_r_bin(x - t, problem->mu, problem->bins, problem->mmdet);
  return oracle_ghm_c_bin(x, t, problem->bins, problem->mmdet);
}

static struct oracle_norm norm_of(const struct oracle_problem *problem, double x, double t) {
  return problem->loss == ORACLE_GHM_R ? density_norm_r(x - t, problem->mu) : density_norm_c(x, t);
}

/* Calls `visit` with each element that belongs to N. */
typedef void (*element_visitor)(const struct oracle_problem *problem, int64_t at, double x, double t, void *user);

static void each_ghm_element(const struct oracle_problem *problem, element_visitor visit, void *user) {
  for (int64_t i = 0; i < problem->rows; ++i) {
    struct row row = look(problem, i);
    if (row.weight == 0) continue;
    for (int64_t c = 0; c < problem->classes; ++c) {
      int64_t at = i * problem->classes + c;
      visit(problem, at, problem->logits[at], target_of(problem, row, i, c), user);
    }
  }
}

static void count_element(const struct oracle_problem *problem, int64_t at, double x, double t, void *user) {
  struct oracle_ghm_state *state = user;
  (void)at;
  state->counts[bin_of(problem, x, t)] += 1;
  state->total += 1;
}

static void take_weight(const struct oracle_problem *problem, int64_t at, double x, double t, void *user) {
  struct oracle_result *result = user;
  result->inverse_density[at] = result->ghm.weights[bin_of(problem, x, t)];
}

static void unit_regions(const struct oracle_problem *problem, struct oracle_result *result) {
  struct oracle_ghm_state *state = &result->ghm;
  if (problem->state) *state = *problem->state;
  if (!problem->given) {
    state->total = 0;
    for (int k = 0; k < problem->bins; ++k) state->counts[k] = 0;
    each_ghm_element(problem, count_element, state);
    density_update(state, problem->bins, problem->momentum, problem->mmdet);
    if (problem->state) *problem->state = *state;
  }
  each_ghm_element(problem, take_weight, result);
}

/* The elements of N side by side. */
struct gathered {
  int64_t n;
  struct oracle_norm *norms;
  double *weights;
  int64_t *places;
};

static void gather(const struct oracle_problem *problem, int64_t at, double x, double t, void *user) {
  struct gathered *all = user;
  all->norms[all->n] = norm_of(problem, x, t);
  all->places[all->n] = at;
  all->n += 1;
}

static void exact_density(const struct oracle_problem *problem, struct oracle_result *result) {
  int64_t most = problem->rows * problem->classes;
  struct gathered all = {.norms = density_allocate(most, sizeof(struct oracle_norm)),
                         .weights = density_allocate(most, sizeof(double)),
                         .places = density_allocate(most, sizeof(int64_t))};
  each_ghm_element(problem, gather, &all);
  density_exact(all.n, all.norms, problem->ghm_epsilon, all.weights);
  for (int64_t k = 0; k < all.n; ++k) result->inverse_density[all.places[k]] = all.weights[k];
  result->ghm.total = all.n;
  free(all.norms);
  free(all.weights);
  free(all.places);
}

/* ---- The batch ------------------------------------------------------------------------------------------------- */

static void allocate(const struct oracle_problem *problem, struct oracle_result *result) {
  int64_t elements = problem->rows * problem->classes;
  *result = (struct oracle_result){.gradient = density_allocate(elements, sizeof(double)),
                                   .row_loss = density_allocate(problem->rows, sizeof(double)),
                                   .class_sums = density_allocate(problem->classes, sizeof *result->class_sums)};
  if (!is_softmax(problem)) {
    result->element_loss = density_allocate(elements, sizeof(double));
    result->factors = density_allocate(elements, sizeof(double));
  }
  if (is_ghm(problem)) result->inverse_density = density_allocate(elements, sizeof(double));
}

void oracle_evaluate(const struct oracle_problem *problem, struct oracle_result *result) {
  allocate(problem, result);
  result->counts = count_rows(problem);
  count_for_classes(problem, result);
  result->divisor = divisor_of(problem, &result->counts);
  if (is_ghm(problem) && problem->exact_density)
    exact_density(problem, result);
  else if (is_ghm(problem))
    unit_regions(problem, result);

  double scale = problem->gradient_scale / result->divisor;
  long double sum = 0;
  for (int64_t i = 0; i < problem->rows; ++i) {
    result->row_loss[i] =
        is_softmax(problem) ? fill_softmax(problem, i, scale, result) : fill_elements(problem, i, scale, result);
    sum += result->row_loss[i];
  }
  result->loss = (double)(sum / result->divisor);
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
