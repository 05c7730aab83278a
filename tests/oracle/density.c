/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gradient density: unit regions with momentum, in the paper's and mmdetection's variant, and the exact density.
 */
#include "density.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rows.h"

void *density_allocate(int64_t count, size_t size) {
  void *memory = calloc(count > 0 ? (size_t)count : 1, size);
  if (!memory) abort();
  return memory;
}

/* The paper starts with S = R. mmdetection starts at S = 0 and leaves empty bins as they are. */
static double momentum_sum(const struct oracle_ghm_state *state, int k, double momentum, int mmdet) {
  double count = (double)state->counts[k];
  if (momentum == 0 || (!mmdet && state->steps == 0)) return count;
  if (mmdet && state->counts[k] == 0) return state->sums[k];
  return momentum * state->sums[k] + (1 - momentum) * count;
}

void density_update(struct oracle_ghm_state *state, int bins, double momentum, int mmdet) {
  int occupied = 0;
  if (state->total == 0) return;
  for (int k = 0; k < bins; ++k) {
    occupied += state->counts[k] > 0;
    state->sums[k] = momentum_sum(state, k, momentum, mmdet);
  }
  int factor = !mmdet ? bins : occupied > 0 ? occupied : 1;
  for (int k = 0; k < bins; ++k) state->weights[k] = state->sums[k] > 0 ? 1 / (state->sums[k] * factor) : 0;
  state->steps += momentum > 0;
}

struct oracle_norm density_norm_c(double x, double t) {
  if (isnan(x)) return (struct oracle_norm){0, 1};
  long double e = expl(-fabsl(x)), small = e / (1 + e), large = 1 / (1 + e);
  long double p = x > 0 ? large : small, q = x > 0 ? small : large;
  if (t == 0) return (struct oracle_norm){p, q};
  if (t == 1) return (struct oracle_norm){q, p};
  return p > t ? (struct oracle_norm){p - t, q + t} : (struct oracle_norm){t - p, (1 - (long double)t) + p};
}

struct oracle_norm density_norm_r(double d, double mu) {
  if (isnan(d)) return (struct oracle_norm){0, 1};
  if (isinf(d)) return (struct oracle_norm){1, 0};
  long double root = hypotl(d, mu);
  return (struct oracle_norm){fabsl(d) / root, (long double)mu * mu / (root * (root + fabsl(d)))};
}

static int ascending(const void *left, const void *right) {
  const struct oracle_norm *a = left, *b = right;
  if (a->g != b->g) return a->g > b->g ? 1 : -1;
  return (a->rest < b->rest) - (a->rest > b->rest);
}

/* b.g - a.g for a <= b, from those of the four numbers that are small. */
static long double distance(struct oracle_norm a, struct oracle_norm b) {
  if (b.g <= 0.5L) return b.g - a.g;
  if (a.g > 0.5L) return a.rest - b.rest;
  return (0.5L - a.g) + (0.5L - b.rest);
}

/* Of the sorted norms, the first that is not more than `half` below number i, and the first that is more above it. */
static int64_t first_within(const struct oracle_norm *sorted, int64_t i, long double half) {
  int64_t low = 0, high = i;
  while (low < high) {
    int64_t middle = low + (high - low) / 2;
    if (distance(sorted[middle], sorted[i]) > half)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static int64_t first_beyond(int64_t n, const struct oracle_norm *sorted, int64_t i, long double half) {
  int64_t low = i, high = n;
  while (low < high) {
    int64_t middle = low + (high - low) / 2;
    if (distance(sorted[i], sorted[middle]) <= half)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static int64_t place_of(int64_t n, const struct oracle_norm *sorted, const struct oracle_norm *norm) {
  const struct oracle_norm *found = bsearch(norm, sorted, (size_t)n, sizeof *sorted, ascending);
  if (!found) abort();
  return found - sorted;
}

void density_exact(int64_t n, const struct oracle_norm *norms, double epsilon, double *inverse_density) {
  struct oracle_norm *sorted = density_allocate(n, sizeof *sorted);
  long double half = (long double)epsilon / 2;
  memcpy(sorted, norms, (size_t)n * sizeof *sorted);
  qsort(sorted, (size_t)n, sizeof *sorted, ascending);
  for (int64_t k = 0; k < n; ++k) {
    int64_t i = place_of(n, sorted, &norms[k]);
    int64_t inside = first_beyond(n, sorted, i, half) - first_within(sorted, i, half);
    long double length = fminl(norms[k].g, half) + fminl(norms[k].rest, half);
    inverse_density[k] = (double)(length / (long double)inside);
  }
  free(sorted);
}

/* ---- A batch --------------------------------------------------------------------------------------------------- */

static int bin_of(const struct oracle_problem *problem, double x, double t) {
  if (problem->loss->is_regression) return oracle_ghm_r_bin(x - t, problem->mu, problem->bins, problem->variant);
  return oracle_ghm_c_bin(x, t, problem->bins, problem->variant);
}

static struct oracle_norm norm_of(const struct oracle_problem *problem, double x, double t) {
  return problem->loss->is_regression ? density_norm_r(x - t, problem->mu) : density_norm_c(x, t);
}

/* Calls `visit` with each element that belongs to N. */
typedef void (*element_visitor)(const struct oracle_problem *problem, int64_t at, double x, double t, void *user);

static void each_ghm_element(const struct oracle_problem *problem, element_visitor visit, void *user) {
  for (int64_t i = 0; i < problem->rows; ++i) {
    struct row_role row = row_role(problem, i);
    if (row.weight == 0) continue;
    for (int64_t c = 0; c < problem->classes; ++c) {
      int64_t at = i * problem->classes + c;
      if (!is_masked(problem, i, c)) visit(problem, at, problem->logits[at], row_target(problem, row, i, c), user);
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
  if (!problem->use_stored_density) {
    state->total = 0;
    for (int k = 0; k < problem->bins; ++k) state->counts[k] = 0;
    each_ghm_element(problem, count_element, state);
    density_update(state, problem->bins, problem->momentum, problem->variant);
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
  density_exact(all.n, all.norms, problem->epsilon, all.weights);
  for (int64_t k = 0; k < all.n; ++k) result->inverse_density[all.places[k]] = all.weights[k];
  result->ghm.total = all.n;
  free(all.norms);
  free(all.weights);
  free(all.places);
}

void density_of_batch(const struct oracle_problem *problem, struct oracle_result *result) {
  if (problem->density)
    exact_density(problem, result);
  else
    unit_regions(problem, result);
}
