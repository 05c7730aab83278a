/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gradient density: unit regions with momentum, in the paper's and mmdetection's variant, and the exact density.
 */
#include "density.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

static int ascending(const void *left, const void *right) {
  double a = *(const double *)left, b = *(const double *)right;
  return (a > b) - (a < b);
}

/* How many of the sorted values are below `limit`, or not above it if `closed`. */
static int64_t rank(int64_t n, const double *sorted, double limit, int closed) {
  int64_t low = 0, high = n;
  while (low < high) {
    int64_t middle = low + (high - low) / 2;
    if (sorted[middle] < limit || (closed && sorted[middle] == limit))
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static double norm_or_zero(double norm) { return isnan(norm) ? 0 : norm; }

void density_exact(int64_t n, const double *norms, double epsilon, double *inverse_density) {
  double *sorted = density_allocate(n, sizeof *sorted);
  for (int64_t i = 0; i < n; ++i) sorted[i] = norm_or_zero(norms[i]);
  qsort(sorted, (size_t)n, sizeof *sorted, ascending);
  for (int64_t i = 0; i < n; ++i) {
    double g = norm_or_zero(norms[i]);
    double low = g - epsilon / 2, high = g + epsilon / 2;
    int64_t inside = rank(n, sorted, high, 1) - rank(n, sorted, low, 0);
    inverse_density[i] = (fmin(high, 1) - fmax(low, 0)) / (double)inside;
  }
  free(sorted);
}
