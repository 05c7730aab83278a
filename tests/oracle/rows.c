/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each row of a batch is and weighs, and how many rows are what.
 */
#include "rows.h"

#include <math.h>

/* Whether labels name no class, and every one from the first on marks a row. */
static bool labels_are_flags(const struct oracle_problem *problem) {
  return problem->loss->is_regression || (problem->loss->bins == 1 && problem->scores);
}

/* The class a label names, or -1. The difference is formed unsigned: labels may be anywhere in 64 bits. */
static int64_t class_of(const struct oracle_problem *problem, int64_t label) {
  uint64_t offset = (uint64_t)label - (uint64_t)problem->first_label;
  if (labels_are_flags(problem)) return label >= problem->first_label ? 0 : -1;
  return label >= problem->first_label && offset < (uint64_t)problem->classes ? (int64_t)offset : -1;
}

/* Whether a loss of rows leaves a class out. */
static bool is_excluded(const struct oracle_problem *problem, int64_t class) {
  if (!problem->loss->row || class < 0) return false;
  if (problem->offset && problem->offset[class] == -INFINITY) return true;
  return problem->margins && problem->margins[class] == INFINITY;
}

/* A label of a class that is left out is none, unless targets say what the row is. */
enum oracle_row_kind oracle_row_kind(const struct oracle_problem *problem, int64_t label) {
  if (label == problem->ignore_label) return ORACLE_IGNORED;
  if (!problem->targets && is_excluded(problem, class_of(problem, label))) return ORACLE_INVALID;
  if (label == problem->background_label) return ORACLE_BACKGROUND;
  return class_of(problem, label) >= 0 ? ORACLE_POSITIVE : ORACLE_INVALID;
}

/* Softmax treats a background label in the range of the classes as that class, a sigmoid loss never. */
static int64_t row_class(const struct oracle_problem *problem, int64_t label) {
  const bool has_no_class = !problem->loss->row || labels_are_flags(problem);
  if (oracle_row_kind(problem, label) == ORACLE_BACKGROUND && has_no_class) return -1;
  return class_of(problem, label);
}

static bool row_counts(const struct oracle_problem *problem, int64_t label) {
  enum oracle_row_kind kind = oracle_row_kind(problem, label);
  if (kind == ORACLE_IGNORED || kind == ORACLE_INVALID) return false;
  if (labels_are_flags(problem)) return kind == ORACLE_POSITIVE;
  return problem->targets || !problem->loss->row || row_class(problem, label) >= 0;
}

/* Row weight x class weight; GHM takes the row weight as a mask, targets know no class. */
static double row_weight(const struct oracle_problem *problem, int64_t i, int64_t class) {
  double weight = problem->row_weights ? problem->row_weights[i] : 1;
  if (problem->loss->has_density) return weight > 0;
  if (problem->targets) return weight;
  if (class < 0) return weight * problem->background_weight;
  return problem->class_weights ? weight * problem->class_weights[class] : weight;
}

bool is_masked(const struct oracle_problem *problem, int64_t i, int64_t c) {
  return problem->counts && !problem->counts[i * problem->classes + c];
}

static bool is_valid_target(const struct oracle_problem *problem, double t) {
  if (problem->loss->row) return t >= 0 && !isinf(t);
  return t >= problem->target_least && t <= problem->target_most;
}

/* Whether a target spoils row i, whose weight is not 0. Elements of weight 0 are not looked at. */
static bool has_invalid_target(const struct oracle_problem *problem, int64_t i) {
  for (int64_t at = i * problem->classes; at < (i + 1) * problem->classes; ++at) {
    if (problem->element_weights && problem->element_weights[at] == 0) continue;
    if (is_masked(problem, i, at - i * problem->classes)) continue;
    if (!is_valid_target(problem, problem->targets[at])) return true;
    if (problem->targets[at] != 0 && is_excluded(problem, at - i * problem->classes)) return true;
  }
  return false;
}

/* Whether a row's numbers are a target between bins. */
static bool are_bins(const struct oracle_problem *problem, const double *numbers, int64_t label) {
  if (problem->loss->bins == 1) return isfinite(numbers[0]);
  for (int k = 0; k < 2; ++k)
    if (!(numbers[k] >= 0 && numbers[k] <= 1e30)) return false;
  return label + 1 < problem->classes || numbers[1] == 0;
}

/* Whether the score of row i, whose class and weight are given, spoils it. That of an element of weight 0 does not. */
static bool has_invalid_score(const struct oracle_problem *problem, int64_t i, int64_t class) {
  if (!problem->scores || class < 0) return false;
  if (problem->loss->bins) return !are_bins(problem, problem->scores + i * problem->loss->bins, class);
  if (problem->element_weights && problem->element_weights[i * problem->classes + class] == 0) return false;
  if (is_masked(problem, i, class)) return false;
  return !(problem->scores[i] >= problem->score_least && problem->scores[i] <= problem->score_most);
}

struct row_role row_role(const struct oracle_problem *problem, int64_t i) {
  struct row_role row = {.counts = true, .class = -1};
  if (problem->labels) {
    row.counts = row_counts(problem, problem->labels[i]);
    row.class = row_class(problem, problem->labels[i]);
  } else if (problem->loss->bins && problem->scores) {
    row.class = 0;
  }
  row.weight = row.counts ? row_weight(problem, i, row.class) : 0;
  bool spoilt = problem->targets && !problem->loss->is_regression ? has_invalid_target(problem, i)
                                                                  : has_invalid_score(problem, i, row.class);
  if (row.weight != 0 && spoilt) {
    row.counts = false;
    row.weight = 0;
    row.spoilt = true;
  }
  return row;
}

struct oracle_counts row_counts_of(const struct oracle_problem *problem, int64_t first, int64_t end) {
  struct oracle_counts counts = {.rows = end - first};
  for (int64_t i = first; i < end; ++i) {
    struct row_role row = row_role(problem, i);
    counts.counted += row.counts;
    counts.invalid += row.spoilt;
    counts.positives += !problem->labels && row.class >= 0 && !row.spoilt;
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
  labels_only.loss = &ORACLE_SIGMOID_CE;
  labels_only.targets = NULL;
  labels_only.scores = NULL;
  for (int64_t c = 0; per_class && c < problem->classes; ++c) per_class[c] = 0;
  for (int64_t i = 0; per_class && i < problem->rows; ++i)
    if (oracle_row_kind(problem, problem->labels[i]) == ORACLE_POSITIVE)
      per_class[class_of(problem, problem->labels[i])] += 1;
  return row_counts_of(&labels_only, 0, problem->rows);
}

double row_target(const struct oracle_problem *problem, struct row_role row, int64_t i, int64_t c) {
  const bool has_scores = problem->scores && !problem->loss->bins;
  if (!problem->targets && has_scores && row.class == c) return fmin(fmax(problem->scores[i], 0), 1);
  if (!problem->targets) return row.class == c ? 1 : 0;
  double t = problem->targets[i * problem->classes + c];
  return problem->loss->is_regression ? t : fmin(fmax(t, 0), 1);
}
