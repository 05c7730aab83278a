/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One element of the sigmoid losses: hard targets by the signed logit, soft targets by the logit, and GHM-R's smooth
 * L1. Every expression adds terms of one sign or of known size, so that nothing is lost to cancellation.
 */
#include <math.h>

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

/* ---- Losses with scores ---------------------------------------------------------------------------------------- */

struct oracle_detached oracle_scored_negative(double x, double gamma, int detached, double given) {
  struct oracle_point p = oracle_point(x);
  struct oracle_pair through = by_logit(oracle_focal(oracle_point(-x), gamma), 0), ce = oracle_soft_ce(x, 0);
  if (!detached) return (struct oracle_detached){through.value, through.derivative, 1};
  double factor = isnan(given) ? pow(p.p, gamma) : given;
  return (struct oracle_detached){vanishing(factor, ce.value), factor * p.p, factor};
}

struct oracle_pair oracle_varifocal_label(double x, double t) {
  struct oracle_pair ce = oracle_soft_ce(x, t);
  return (struct oracle_pair){oracle_times(t, ce.value), oracle_times(t, ce.derivative)};
}

/* p - t, from the side where less is lost. */
static double distance(double x, double t) {
  struct oracle_point at = oracle_point(x);
  return x > 0 ? (1 - t) - at.q : at.p - t;
}

struct oracle_pair oracle_quality_focal(double x, double t, double beta) {
  struct oracle_point at = oracle_point(x);
  double d = distance(x, t), s = fabs(d), sign = (d > 0) - (d < 0), ce = oracle_soft_ce(x, t).value;
  if (isnan(x)) return (struct oracle_pair){NAN, NAN};
  if (s == 0) return (struct oracle_pair){beta == 0 ? ce : 0, 0};
  double slope = d + beta * sign * vanishing(at.p * at.q / s, ce);
  return (struct oracle_pair){modulated(s, beta, ce), modulated(s, beta, slope)};
}

/* CE of the target e^log_target, whose distance to 1 is formed by expm1, since it may round to 1. */
static struct oracle_pair ce_of_exponent(double x, double log_target) {
  double rest = -expm1(log_target);
  if (!(x > 0) || rest > 0.5) return oracle_soft_ce(x, exp(log_target));
  return (struct oracle_pair){vanishing(rest, x) + log1p(exp(-x)), rest - oracle_point(x).q};
}

struct oracle_pair oracle_matchability_label(double x, double t, double gamma) {
  if (t == 0 || t == 1 || gamma == 0) return oracle_soft_ce(x, t == 0 && gamma > 0 ? 0 : 1);
  if (x == -INFINITY) return (struct oracle_pair){INFINITY, -pow(t, gamma)}; /* also if the target underflows */
  return ce_of_exponent(x, gamma * log(t));
}

struct oracle_detached oracle_iou_aware_label(double x, double t, double a, double given) {
  struct oracle_point at = oracle_point(x);
  double log_target = -vanishing(a, at.l) + (t > 0 ? (1 - a) * log(t) : a < 1 ? -INFINITY : 0);
  double own = fmax(exp(log_target), 0.01), target = isnan(given) ? own : given;
  if (isnan(x)) return (struct oracle_detached){NAN, NAN, NAN};
  struct oracle_pair ce = own == target && own > 0.01 ? ce_of_exponent(x, log_target) : oracle_soft_ce(x, target);
  return (struct oracle_detached){ce.value, ce.derivative, target};
}

double oracle_alpha(double alpha, double t) { return alpha < 0 ? 1 : alpha * t + (1 - alpha) * (1 - t); }

struct oracle_pair oracle_asl1(double d, double mu) {
  if (isinf(d)) return (struct oracle_pair){.value = INFINITY, .derivative = d > 0 ? 1 : -1};
  double root = hypot(d, mu);
  return (struct oracle_pair){.value = fabs(d) * (fabs(d) / (root + mu)), .derivative = d / root};
}

/* ---- The losses of a batch ------------------------------------------------------------------------------------ */

double oracle_times(double factor, double value) { return factor == 0 ? 0 : factor * value; }

static struct oracle_detached scaled(struct oracle_detached element, double factor) {
  return (struct oracle_detached){oracle_times(factor, element.value), oracle_times(factor, element.derivative),
                                  element.factor};
}

/* Nothing of it is a constant of the derivative. */
static struct oracle_detached whole(struct oracle_pair pair) {
  return (struct oracle_detached){pair.value, pair.derivative, 1};
}

static struct oracle_detached with_alpha(struct oracle_element e, struct oracle_pair pair) {
  return scaled(whole(pair), oracle_alpha(e.alpha, e.of_alpha));
}

static struct oracle_detached ce(const struct oracle_problem *problem, struct oracle_element e) {
  if (problem->label_smoothing > 0) return oracle_smoothed_element(problem, e, 0);
  return with_alpha(e, oracle_soft_ce(e.x, e.t));
}
const struct oracle_loss ORACLE_SIGMOID_CE = {.element = ce};

static struct oracle_detached focal(const struct oracle_problem *problem, struct oracle_element e) {
  if (problem->label_smoothing > 0) return oracle_smoothed_element(problem, e, problem->gamma);
  return with_alpha(e, oracle_soft_focal(e.x, e.t, problem->gamma));
}
const struct oracle_loss ORACLE_SIGMOID_FOCAL = {.element = focal};

static struct oracle_detached poly1(const struct oracle_problem *problem, struct oracle_element e) {
  struct oracle_detached main = focal(problem, e);
  struct oracle_pair extra = oracle_soft_poly1_extra(e.x, e.t, problem->gamma, problem->epsilon);
  return (struct oracle_detached){main.value + extra.value, main.derivative + extra.derivative, 1};
}
const struct oracle_loss ORACLE_SIGMOID_POLY1 = {.element = poly1};

static struct oracle_detached quality_focal(const struct oracle_problem *problem, struct oracle_element e) {
  return with_alpha(e, oracle_quality_focal(e.x, e.t, problem->beta));
}
const struct oracle_loss ORACLE_SIGMOID_QUALITY_FOCAL = {.element = quality_focal};

/* Alpha is a factor of the negatives alone. */
static struct oracle_detached scored_negative(const struct oracle_problem *problem, struct oracle_element e,
                                              int detached) {
  return scaled(oracle_scored_negative(e.x, problem->gamma, detached, e.given), e.alpha < 0 ? 1 : e.alpha);
}

static struct oracle_detached varifocal(const struct oracle_problem *problem, struct oracle_element e) {
  int is_positive = problem->positives ? e.of_alpha > 0 : e.t > 0;
  return is_positive ? whole(oracle_varifocal_label(e.x, e.t)) : scored_negative(problem, e, problem->modulator);
}
const struct oracle_loss ORACLE_SIGMOID_VARIFOCAL = {.element = varifocal};

static struct oracle_detached matchability(const struct oracle_problem *problem, struct oracle_element e) {
  if (e.of_alpha > 0) return whole(oracle_matchability_label(e.x, e.t, problem->gamma));
  return scored_negative(problem, e, problem->modulator);
}
const struct oracle_loss ORACLE_SIGMOID_MATCHABILITY = {.element = matchability};

static struct oracle_detached iou_aware(const struct oracle_problem *problem, struct oracle_element e) {
  if (e.of_alpha > 0) return oracle_iou_aware_label(e.x, e.t, problem->p_exponent, e.given);
  return scored_negative(problem, e, 0);
}
const struct oracle_loss ORACLE_SIGMOID_IOU_AWARE = {.element = iou_aware};

static struct oracle_detached ghm_c(const struct oracle_problem *problem, struct oracle_element e) {
  (void)problem;
  return whole(oracle_soft_ce(e.x, e.t));
}
const struct oracle_loss ORACLE_GHM_C = {.element = ghm_c, .has_density = 1};

static struct oracle_detached ghm_r(const struct oracle_problem *problem, struct oracle_element e) {
  return whole(oracle_asl1(e.x - e.t, problem->mu));
}
const struct oracle_loss ORACLE_GHM_R = {.element = ghm_r, .has_density = 1, .is_regression = 1};
