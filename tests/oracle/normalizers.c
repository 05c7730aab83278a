/* SPDX-License-Identifier: Apache-2.0 */
#include "normalizers.h"

#include <math.h>

#include "rows.h"

struct oracle_normalizer_sums normalizer_sums_of(const struct oracle_problem *problem, int64_t first, int64_t end) {
  struct oracle_counts counts = row_counts_of(problem, first, end);
  struct oracle_normalizer_sums sums = {.elements = (double)counts.counted * (double)problem->classes,
                                        .rows = (double)counts.counted,
                                        .positives = (double)counts.positives};
  if (problem->loss->row) sums.elements = sums.rows;
  if (problem->counts) sums.elements = 0;
  long double weights = 0, targets = 0;
  for (int64_t i = first; i < end; ++i) {
    struct row_role row = row_role(problem, i);
    weights += row.weight;
    for (int64_t c = 0; row.counts && c < problem->classes; ++c) {
      if (is_masked(problem, i, c)) continue;
      if (problem->counts) sums.elements += 1;
      double t = row_target(problem, row, i, c);
      if (problem->targets && problem->loss->row) t = fmax(problem->targets[i * problem->classes + c], 0); /* no 1 */
      targets += t;
      sums.ones += t == 1;
    }
  }
  sums.weights = (double)weights;
  sums.targets = (double)targets;
  return sums;
}

static double sum_of(enum oracle_normalizer normalizer, const struct oracle_normalizer_sums *sums) {
  switch (normalizer) {
    case ORACLE_ELEMENTS:
      return sums->elements;
    case ORACLE_ROWS:
      return sums->rows;
    case ORACLE_POSITIVES:
      return sums->positives;
    case ORACLE_WEIGHTS:
      return sums->weights;
    case ORACLE_TARGETS:
      return sums->targets;
    case ORACLE_ONES:
      return sums->ones;
    case ORACLE_SUM:
    case ORACLE_VALUE:
      break;
  }
  return 1;
}

double normalizer_divisor(const struct oracle_problem *problem, const struct oracle_normalizer_sums *sums) {
  if (problem->normalizer == ORACLE_SUM) return 1;
  if (problem->normalizer == ORACLE_VALUE) return problem->normalizer_value == 0 ? 1 : problem->normalizer_value;
  double divisor = sum_of(problem->normalizer, sums) + problem->normalizer_addend;
  if (divisor < problem->normalizer_minimum) divisor = problem->normalizer_minimum;
  return divisor == 0 ? 1 : divisor;
}
