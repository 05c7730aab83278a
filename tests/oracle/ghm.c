/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GHM's elements: gradient norms, and the unit region each falls in. An edge is a ratio a/b of two exactly known
 * numbers (k and bins, or mmdetection's float and 1), carried to the space of the inputs in long double. What lies so
 * near to an edge that this does not decide it is decided by the exact norm.
 */
#include <math.h>
#include <stdbool.h>

#include "literal.h"

double oracle_ghm_c_norm(double x, double t) {
  if (t == 1) return oracle_point(x).q;
  if (t == 0) return oracle_point(x).p;
  return fabs(oracle_point(x).p - t);
}

double oracle_ghm_r_norm(double d, double mu) { return isinf(d) ? 1 : fabs(d) / hypot(d, mu); }

double oracle_ghm_edge(int k, int bins, int mmdet) {
  double edge = (double)k / bins;
  return mmdet ? (double)(float)edge : edge;
}

struct ratio {
  long double a, b;
};

static struct ratio edge_ratio(int k, int bins, int mmdet) {
  if (mmdet) return (struct ratio){.a = oracle_ghm_edge(k, bins, 1), .b = 1};
  return (struct ratio){.a = k, .b = bins};
}

/* log(e/(1-e)); near e = 1/2 through atanh, which keeps the digits there. */
static long double logit(struct ratio edge) {
  long double twice = 2 * edge.a - edge.b;
  if (2 * fabsl(twice) < edge.b) return 2 * atanhl(twice / edge.b);
  return logl(edge.a / (edge.b - edge.a));
}

/* |d| at which the norm is e: mu*e/sqrt(1-e^2). */
static long double distance(struct ratio edge, double mu) {
  return mu * edge.a / sqrtl((edge.b - edge.a) * (edge.b + edge.a));
}

/* Where the bins begin, by `u` for GHM-C (mu 0) and by |d| for GHM-R. */
struct thresholds {
  int bins, mmdet;
  double mu;
  long double begin[ORACLE_MAX_BINS];
};

static void prepare(struct thresholds *table, int bins, int mmdet, double mu) {
  if (table->bins == bins && table->mmdet == mmdet && table->mu == mu) return;
  for (int k = 1; k < bins; ++k) {
    struct ratio edge = edge_ratio(k, bins, mmdet);
    table->begin[k] = mu > 0 ? distance(edge, mu) : logit(edge);
  }
  table->bins = bins;
  table->mmdet = mmdet;
  table->mu = mu;
}

/* Nearer to where a bin begins than long double can tell; the exact norm has to say. */
static bool is_unsure(long double value, long double begin) { return fabsl(value - begin) < 0x1p-58L * fabsl(begin); }

static int exact_bin(const struct thresholds *table, double value) {
  if (table->mu > 0) return literal_ghm_r_bin(value, table->mu, table->bins, table->mmdet);
  return literal_ghm_c_bin(value, 0, table->bins, table->mmdet);
}

/* The largest k with begin[k] <= value, bin 0 having no lower end. NaN compares false and lands there too. */
static int find(const struct thresholds *table, double value) {
  int low = 0, high = table->bins;
  while (high - low > 1) {
    int middle = low + (high - low) / 2;
    if (is_unsure(value, table->begin[middle])) return exact_bin(table, value);
    if (value >= table->begin[middle])
      low = middle;
    else
      high = middle;
  }
  return low;
}

static int soft_bin(double norm, int bins, int mmdet) {
  int k = 0;
  while (k + 1 < bins && norm >= oracle_ghm_edge(k + 1, bins, mmdet)) ++k;
  return k;
}

int oracle_ghm_c_bin(double x, double t, int bins, int mmdet) {
  static _Thread_local struct thresholds table;
  if (t != 0 && t != 1) return soft_bin(oracle_ghm_c_norm(x, t), bins, mmdet);
  prepare(&table, bins, mmdet, 0);
  return find(&table, t == 1 ? -x : x);
}

int oracle_ghm_r_bin(double d, double mu, int bins, int mmdet) {
  static _Thread_local struct thresholds table;
  prepare(&table, bins, mmdet, mu);
  return find(&table, fabs(d));
}
