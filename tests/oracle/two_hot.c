/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows with a target between two bins: a row of targets with two entries, and the cross-entropy of it.
 *
 * Distribution focal loss (arXiv 2006.04388, eq. 6): DFL = -((y_(i+1)-y)*log S_i + (y-y_i)*log S_(i+1)), y_i <= y <=
 * y_(i+1), bins 1 apart. FGL (arXiv 2410.13842): the weights are given.
 */
#include <math.h>
#include <stdlib.h>

#include "density.h"
#include "oracle.h"

/* The entries at bins l and l+1. An entry of 0 adds nothing, and bin l+1 need not exist then. */
static double two_hot_row(const struct oracle_problem *problem, struct oracle_row row, const double entries[2],
                          double *dx) {
  double *t = density_allocate(problem->classes, sizeof *t);
  t[row.label] = entries[0];
  if (entries[1] != 0) t[row.label + 1] = entries[1];
  double loss = oracle_soft_softmax_row(problem->classes, row.x, t, dx);
  free(t);
  return loss;
}

static double distribution_focal(const struct oracle_problem *problem, struct oracle_row row, double *dx) {
  if (!row.scores) return oracle_softmax_row(problem->classes, row.x, row.label, 0, dx);
  double last = fmax((double)(problem->classes - 1) - problem->delta, 0);
  double y = fmin(fmax(row.scores[0], 0), last), left = floor(y);
  row.label = (int64_t)left;
  return two_hot_row(problem, row, (const double[2]){left + 1 - y, y - left}, dx);
}
const struct oracle_loss ORACLE_SOFTMAX_DISTRIBUTION_FOCAL = {.row = distribution_focal, .bins = 1};

static double two_hot(const struct oracle_problem *problem, struct oracle_row row, double *dx) {
  if (!row.scores) return oracle_softmax_row(problem->classes, row.x, row.label, 0, dx);
  return two_hot_row(problem, row, row.scores, dx);
}
const struct oracle_loss ORACLE_SOFTMAX_TWO_HOT = {.row = two_hot, .bins = 2};
