/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One element of the sigmoid losses: hard targets by the signed logit, soft targets by the logit, and GHM-R's smooth
 * L1. Every expression adds terms of one sign or of known size, so that nothing is lost to cancellation.
 */
#include <math.h>
#include <string.h>

#include "oracle.h"

struct oracle_point oracle_point(double z) {
  double e = exp(-fabs(z));
  double small = e / (1 + e);
  double large = 1 / (1 + e);
  double tail = log1p(e);
  if (z >= 0) return (struct oracle_point){.p = large, .q = small, .l = tail};
  return (struct oracle_point){.p = small, .q = large, .l = tail - z};
}

/* a*b where a falls to 0 faster than b grows: 0 where a is 0, also against an infinite b. */
static double vanishing(double a, double b) { return a == 0 ? 0 : a * b; }

struct oracle_pair oracle_ce(struct oracle_point at) {
  return (struct oracle_pair){.value = at.l, .derivative = -at.q};
}

struct oracle_pair oracle_focal(struct oracle_point at, double gamma) {
  double modulator = pow(at.q, gamma);
  return (struct oracle_pair){.value = modulator * at.l,
                              .derivative = -modulator * (at.q + gamma * vanishing(at.p, at.l))};
}

struct oracle_pair oracle_poly1_extra(struct oracle_point at, double gamma, double epsilon) {
  double value = epsilon * pow(at.q, gamma + 1);
  return (struct oracle_pair){.value = value, .derivative = -(gamma + 1) * value * at.p};
}

static int hard(double t) { return t == 0 || t == 1; }

static struct oracle_point hard_point(double x, double t) { return oracle_point(t == 1 ? x : -x); }

/* From a derivative by z to one by x. */
static struct oracle_pair by_logit(struct oracle_pair by_z, double t) {
  return (struct oracle_pair){.value = by_z.value, .derivative = t == 1 ? by_z.derivative : -by_z.derivative};
}

struct oracle_pair oracle_soft_ce(double x, double t) {
  if (hard(t)) return by_logit(oracle_ce(hard_point(x, t)), t);
  struct oracle_point at = oracle_point(x);
  double line = x > 0 ? x * (1 - t) : -x * t;
  return (struct oracle_pair){.value = line + log1p(exp(-fabs(x))), .derivative = at.p - t};
}

/* s = |t - p| for a hard t and its soft generalisation, with ds/dx. */
static struct oracle_pair soft_error(struct oracle_point at, double t) {
  return (struct oracle_pair){.value = at.p * (1 - t) + at.q * t, .derivative = (1 - 2 * t) * at.p * at.q};
}

/* s^gamma*value, where s^gamma may be too small for a double and the product is not. s^gamma is above 0. */
static double modulated(double s, double gamma, double value) {
  return isinf(value) ? value : (double)(powl(s, gamma) * value);
}

struct oracle_pair oracle_soft_focal(double x, double t, double gamma) {
  if (hard(t)) return by_logit(oracle_focal(hard_point(x, t), gamma), t);
  struct oracle_pair s = soft_error(oracle_point(x), t);
  struct oracle_pair ce = oracle_soft_ce(x, t);
  double slope = ce.derivative + gamma * vanishing(s.derivative / s.value, ce.value);
  return (struct oracle_pair){.value = modulated(s.value, gamma, ce.value),
                              .derivative = modulated(s.value, gamma, slope)};
}

struct oracle_pair oracle_soft_poly1_extra(double x, double t, double gamma, double epsilon) {
  if (hard(t)) return by_logit(oracle_poly1_extra(hard_point(x, t), gamma, epsilon), t);
  struct oracle_pair s = soft_error(oracle_point(x), t);
  double modulator = modulated(s.value, gamma, epsilon);
  return (struct oracle_pair){.value = modulator * s.value, .derivative = (gamma + 1) * modulator * s.derivative};
}

struct oracle_pair oracle_varifocal(double x, double t, double gamma, int detached) {
  if (t > 0) {
    struct oracle_pair ce = oracle_soft_ce(x, t);
    return (struct oracle_pair){.value = t * ce.value, .derivative = t * ce.derivative};
  }
  struct oracle_pair negative = by_logit(oracle_focal(oracle_point(-x), gamma), 0);
  double p = oracle_point(x).p;
  if (detached) negative.derivative = pow(p, gamma) * p;
  return negative;
}

double oracle_alpha(double alpha, double t) { return alpha < 0 ? 1 : alpha * t + (1 - alpha) * (1 - t); }

struct oracle_pair oracle_asl1(double d, double mu) {
  if (isinf(d)) return (struct oracle_pair){.value = INFINITY, .derivative = d > 0 ? 1 : -1};
  double root = hypot(d, mu);
  return (struct oracle_pair){.value = fabs(d) * (fabs(d) / (root + mu)), .derivative = d / root};
}

/* ---- The losses of a batch ------------------------------------------------------------------------------------ */

double *oracle_parameter(struct oracle_problem *to, const char *option) {
  if (strcmp(option, "alpha") == 0) return &to->alpha;
  if (strcmp(option, "gamma") == 0) return &to->gamma;
  if (strcmp(option, "poly-epsilon") == 0) return &to->poly_epsilon;
  if (strcmp(option, "modulator") == 0) return &to->detached;
  return NULL;
}

double oracle_times(double factor, double value) { return factor == 0 ? 0 : factor * value; }

static struct oracle_pair scaled(struct oracle_pair pair, double factor) {
  return (struct oracle_pair){.value = oracle_times(factor, pair.value),
                              .derivative = oracle_times(factor, pair.derivative)};
}

/* A loss without a case here does not compile. */
#pragma GCC diagnostic error "-Wswitch"
struct oracle_pair oracle_element(const struct oracle_problem *problem, double x, double t, double of_alpha,
                                  double of_1) {
  double alpha = oracle_alpha(of_1, of_alpha);
  switch (problem->loss) {
    case ORACLE_SIGMOID_CE:
      return scaled(oracle_soft_ce(x, t), alpha);
    case ORACLE_SIGMOID_FOCAL:
      return scaled(oracle_soft_focal(x, t, problem->gamma), alpha);
    case ORACLE_SIGMOID_POLY1: {
      struct oracle_pair focal = scaled(oracle_soft_focal(x, t, problem->gamma), alpha);
      struct oracle_pair extra = oracle_soft_poly1_extra(x, t, problem->gamma, problem->poly_epsilon);
      return (struct oracle_pair){focal.value + extra.value, focal.derivative + extra.derivative};
    }
    case ORACLE_SIGMOID_VARIFOCAL: /* alpha is that of the negatives */
      return scaled(oracle_varifocal(x, t, problem->gamma, problem->detached != 0), t > 0 || of_1 < 0 ? 1 : of_1);
    case ORACLE_GHM_R:
      return oracle_asl1(x - t, problem->mu);
    case ORACLE_GHM_C:
      return oracle_soft_ce(x, t);
    case ORACLE_SOFTMAX_CE:
    case ORACLE_SOFTMAX_FOCAL:
    case ORACLE_SOFTMAX_LOGIT_ADJUSTED:
      break; /* rows, not elements */
  }
  return (struct oracle_pair){NAN, NAN};
}
