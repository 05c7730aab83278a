/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One row of the softmax losses, in long double. Hard labels: z = x_y - log(sum of the others' e^x) and then the
 * sigmoid formulas, which keep the digits of confident rows. Soft targets: -log p_k as a sum of two positive terms.
 */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "density.h"
#include "oracle.h"

/* Rows without a limit: a NaN, several +inf, or nothing but -inf. */
static bool undefined_row(int64_t classes, const long double *x) {
  int64_t up = 0, down = 0;
  for (int64_t k = 0; k < classes; ++k) {
    if (isnan(x[k])) return true;
    up += x[k] == INFINITY;
    down += x[k] == -INFINITY;
  }
  return up > 1 || down == classes;
}

static double fill_nan(int64_t classes, double *dx) {
  for (int64_t k = 0; dx && k < classes; ++k) dx[k] = NAN;
  return NAN;
}

/* The largest x but x[without] (-inf if there is none), or of all if without is -1. */
static int64_t largest(int64_t classes, const long double *x, int64_t without) {
  int64_t best = -1;
  for (int64_t k = 0; k < classes; ++k)
    if (k != without && (best < 0 || x[k] > x[best])) best = k;
  return best;
}

/* e^(x-m), with the maximum itself exactly 1 even where both are infinite. */
static long double relative(long double x, long double m) { return x == m ? 1 : expl(x - m); }

static long double sum_relative(int64_t classes, const long double *x, int64_t without, long double m) {
  long double sum = 0;
  for (int64_t k = 0; k < classes; ++k)
    if (k != without) sum += relative(x[k], m);
  return sum;
}

struct long_point {
  long double p, q, l;
};

static struct long_point long_point(long double z) {
  long double e = expl(-fabsl(z));
  if (z >= 0) return (struct long_point){.p = 1 / (1 + e), .q = e / (1 + e), .l = log1pl(e)};
  return (struct long_point){.p = e / (1 + e), .q = 1 / (1 + e), .l = log1pl(e) - z};
}

static double hard_row(int64_t classes, const long double *x, int64_t y, double gamma, double *dx) {
  if (undefined_row(classes, x)) return fill_nan(classes, dx);
  int64_t rival = largest(classes, x, y);
  long double m = rival < 0 ? -INFINITY : x[rival];
  bool alone = m == -INFINITY;
  long double sum = alone ? 1 : sum_relative(classes, x, y, m);
  long double z = alone ? INFINITY : x[y] - m - logl(sum);
  struct long_point at = long_point(z);
  long double modulator = powl(at.q, gamma);
  long double slope = modulator * (at.q + (at.p == 0 ? 0 : gamma * at.p * at.l));
  for (int64_t k = 0; dx && k < classes; ++k)
    dx[k] = (double)(k == y ? -slope : alone ? 0 : slope * relative(x[k], m) / sum);
  return (double)(modulator * at.l);
}

/* Targets of 1-s+s/C at the label and s/C elsewhere: -sum t_k*log p_k, log p_k = -(tail + m - x_k), and its derivative
 * p_k - t_k. */
static long double smoothed_ce(int64_t classes, const long double *x, int64_t y, double s, long double *dx) {
  int64_t top = largest(classes, x, -1);
  long double others = sum_relative(classes, x, top, x[top]), loss = 0;
  for (int64_t k = 0; k < classes; ++k) {
    long double t = (long double)s / classes + (k == y ? 1 - (long double)s : 0);
    loss += t * (log1pl(others) + (x[k] == x[top] ? 0 : x[top] - x[k]));
    dx[k] = (k == top ? 1 : relative(x[k], x[top])) / (1 + others) - t;
  }
  return loss;
}

/* m^gamma*CE. m = 1-p_y, or with `all` 1 - sum t_k*p_k = (1-s)*(1-p_y) + s*(C-1)/C; dm/dx_k = (1-s or 1)*p_y*p_k off
 * the label, and minus their sum there. */
static double smoothed_row(int64_t classes, const long double *x, int64_t y, struct oracle_smoothing by, double *dx) {
  if (undefined_row(classes, x)) return fill_nan(classes, dx);
  long double *ce_dx = density_allocate(classes, sizeof *ce_dx);
  long double ce = smoothed_ce(classes, x, y, by.s, ce_dx);
  long double m = x[largest(classes, x, y)], sum = sum_relative(classes, x, y, m);
  struct long_point at = long_point(m == -INFINITY ? (long double)INFINITY : x[y] - m - logl(sum));
  long double slope = by.all ? 1 - (long double)by.s : 1;
  long double error = by.all ? slope * at.q + (long double)by.s * (classes - 1) / classes : at.q;
  long double modulator = powl(error, by.gamma);
  long double through = by.gamma == 0 || at.p == 0 || at.q == 0 ? 0 : by.gamma * slope * at.p * at.q / error * ce;
  for (int64_t k = 0; dx && k < classes; ++k) {
    long double share = k == y ? -1 : m == -INFINITY ? 0 : relative(x[k], m) / sum;
    long double moved = share == 0 ? 0 : through * share;
    dx[k] = (double)(modulator == 0 ? 0 : modulator * (ce_dx[k] + moved));
  }
  free(ce_dx);
  return (double)(modulator == 0 ? 0 : modulator * ce);
}

double oracle_smoothed_softmax_row(int64_t classes, const double *x, int64_t y, struct oracle_smoothing by,
                                   double *dx) {
  long double *z = density_allocate(classes, sizeof *z);
  for (int64_t k = 0; k < classes; ++k) z[k] = x[k];
  double loss = smoothed_row(classes, z, y, by, dx);
  free(z);
  return loss;
}

/* How many targets of a row are not 0, and the class of the last of them. */
static int64_t count_masses(int64_t classes, const double *t, int64_t *last) {
  int64_t count = 0;
  for (int64_t k = 0; k < classes; ++k) {
    if (t[k] == 0) continue;
    *last = k;
    ++count;
  }
  return count;
}

/* All mass on class y: a hard row, times the mass. */
static double sole_mass_row(int64_t classes, const long double *x, int64_t y, double mass, double *dx) {
  double loss = hard_row(classes, x, y, 0, dx);
  for (int64_t k = 0; dx && k < classes; ++k) dx[k] *= mass;
  return mass * loss;
}

static double soft_row(int64_t classes, const long double *x, const double *t, double *dx) {
  int64_t last = 0, masses = count_masses(classes, t, &last);
  if (masses == 1) return sole_mass_row(classes, x, last, t[last], dx);
  for (int64_t k = 0; dx && masses == 0 && k < classes; ++k) dx[k] = 0;
  if (masses == 0) return 0;
  if (undefined_row(classes, x)) return fill_nan(classes, dx);
  int64_t top = largest(classes, x, -1);
  long double others = sum_relative(classes, x, top, x[top]);
  long double total = 0, loss = 0;
  for (int64_t k = 0; k < classes; ++k) {
    if (t[k] == 0) continue;
    total += t[k];
    loss += t[k] * (log1pl(others) + (k == top ? 0 : x[top] - x[k]));
  }
  for (int64_t k = 0; dx && k < classes; ++k)
    dx[k] = (double)(total * (k == top ? 1 : relative(x[k], x[top])) / (1 + others) - t[k]);
  return (double)loss;
}

/* z = x + offset, exact for logits and offsets of a size; an offset of -inf takes its class out, whatever its logit. */
static long double *adjusted(int64_t classes, const double *x, const double *offset) {
  long double *z = density_allocate(classes, sizeof *z);
  for (int64_t k = 0; k < classes; ++k) {
    z[k] = x[k];
    if (offset) z[k] = offset[k] == -INFINITY ? -INFINITY : z[k] + offset[k];
  }
  return z;
}

double oracle_adjusted_softmax_row(int64_t classes, const double *x, const double *offset, int64_t y, double gamma,
                                   double *dx) {
  long double *z = adjusted(classes, x, offset);
  double loss = hard_row(classes, z, y, gamma, dx);
  free(z);
  return loss;
}

double oracle_adjusted_soft_softmax_row(int64_t classes, const double *x, const double *offset, const double *t,
                                        double *dx) {
  long double *z = adjusted(classes, x, offset);
  double loss = soft_row(classes, z, t, dx);
  free(z);
  return loss;
}

/* With the maximum apart, so that nothing overflows. A class of no probability has no derivative. */
double oracle_add_z_loss(int64_t classes, const double *x, const double *offset, double factor, double loss,
                         double *dx) {
  if (factor == 0) return loss;
  long double *z = adjusted(classes, x, offset);
  const bool undefined = undefined_row(classes, z);
  int64_t top = largest(classes, z, -1);
  long double others = sum_relative(classes, z, top, z[top]), lse = z[top] + log1pl(others);
  for (int64_t k = 0; dx && k < classes && !undefined; ++k) {
    long double p = (k == top ? 1 : relative(z[k], z[top])) / (1 + others);
    dx[k] = (double)(dx[k] + (p == 0 ? 0 : 2 * (long double)factor * lse * p));
  }
  free(z);
  return undefined ? NAN : (double)(loss + factor * lse * lse);
}

double oracle_softmax_row(int64_t classes, const double *x, int64_t y, double gamma, double *dx) {
  return oracle_adjusted_softmax_row(classes, x, NULL, y, gamma, dx);
}

double oracle_soft_softmax_row(int64_t classes, const double *x, const double *t, double *dx) {
  return oracle_adjusted_soft_softmax_row(classes, x, NULL, t, dx);
}

/* log softmax(x) of each class; of two infinite logits nothing is known. */
static void log_softmax(int64_t classes, const long double *x, long double *out) {
  int64_t top = largest(classes, x, -1);
  long double rest = log1pl(sum_relative(classes, x, top, x[top]));
  for (int64_t k = 0; k < classes; ++k) out[k] = (x[k] == x[top] ? 0 : x[k] - x[top]) - rest;
}

/* Where the maximum is -inf or no number, nothing is added: the row has no limit, whatever S is. */
double oracle_seesaw_row(int64_t classes, const double *x, const double *log_counts, int64_t y, const double by[3],
                         double *dx) {
  long double *z = density_allocate(classes, sizeof *z), *log_p = density_allocate(classes, sizeof *log_p);
  for (int64_t k = 0; k < classes; ++k) z[k] = x[k];
  if (undefined_row(classes, z)) {
    free(z);
    free(log_p);
    return fill_nan(classes, dx);
  }
  log_softmax(classes, z, log_p);
  for (int64_t j = 0; j < classes; ++j) {
    if (j == y) continue;
    long double ratio = log_counts ? (long double)log_counts[j] - (long double)log_counts[y] : 0;
    long double above = log_p[j] - fmaxl(log_p[y], logl(by[2]));
    if (by[0] != 0 && ratio < 0) z[j] += by[0] * ratio;
    if (by[1] != 0 && above > 0) z[j] += by[1] * above;
  }
  double loss = hard_row(classes, z, y, 0, dx);
  free(z);
  free(log_p);
  return loss;
}

/* s*x, and a margin taken from x_y before. A margin of +inf takes its class out. */
double oracle_ldam_row(int64_t classes, const double *x, const double *margins, double scale, int64_t y, double *dx) {
  long double *z = density_allocate(classes, sizeof *z);
  for (int64_t k = 0; k < classes; ++k) {
    long double margin = margins && k == y ? margins[k] : 0;
    z[k] = margins && margins[k] == INFINITY ? -INFINITY : (long double)scale * (x[k] - margin);
  }
  double loss = hard_row(classes, z, y, 0, dx);
  for (int64_t k = 0; dx && k < classes; ++k) dx[k] *= scale;
  free(z);
  return loss;
}

/* ---- The losses of a batch ------------------------------------------------------------------------------------ */

static double logit_adjusted(const struct oracle_problem *problem, struct oracle_row row, double *dx) {
  const double *offset = problem->offset;
  if (row.t) return oracle_adjusted_soft_softmax_row(problem->classes, row.x, offset, row.t, dx);
  double loss = oracle_adjusted_softmax_row(problem->classes, row.x, offset, row.label, 0, dx);
  return oracle_add_z_loss(problem->classes, row.x, offset, problem->z_loss, loss, dx);
}
const struct oracle_loss ORACLE_SOFTMAX_LOGIT_ADJUSTED = {.row = logit_adjusted};

static double seesaw(const struct oracle_problem *problem, struct oracle_row row, double *dx) {
  const double by[3] = {problem->p, problem->q, problem->epsilon};
  return oracle_seesaw_row(problem->classes, row.x, problem->log_counts, row.label, by, dx);
}
const struct oracle_loss ORACLE_SOFTMAX_SEESAW = {.row = seesaw};

static double ldam(const struct oracle_problem *problem, struct oracle_row row, double *dx) {
  return oracle_ldam_row(problem->classes, row.x, problem->margins, problem->scale, row.label, dx);
}
const struct oracle_loss ORACLE_SOFTMAX_LDAM = {.row = ldam};

static double labelled_row(const struct oracle_problem *problem, struct oracle_row row, double gamma, double *dx) {
  struct oracle_smoothing by = {problem->label_smoothing, gamma, problem->smoothed};
  if (by.s == 0 || problem->classes == 1) return oracle_softmax_row(problem->classes, row.x, row.label, gamma, dx);
  return oracle_smoothed_softmax_row(problem->classes, row.x, row.label, by, dx);
}

static double ce(const struct oracle_problem *problem, struct oracle_row row, double *dx) {
  if (row.t) return oracle_soft_softmax_row(problem->classes, row.x, row.t, dx);
  double loss = labelled_row(problem, row, 0, dx);
  return oracle_add_z_loss(problem->classes, row.x, NULL, problem->z_loss, loss, dx);
}
const struct oracle_loss ORACLE_SOFTMAX_CE = {.row = ce};

static double focal(const struct oracle_problem *problem, struct oracle_row row, double *dx) {
  double alpha = row.alpha < 0 ? 1 : row.alpha;
  double loss = labelled_row(problem, row, problem->gamma, dx);
  for (int64_t k = 0; k < problem->classes; ++k) dx[k] = oracle_times(alpha, dx[k]);
  return oracle_times(alpha, loss);
}
const struct oracle_loss ORACLE_SOFTMAX_FOCAL = {.row = focal};
