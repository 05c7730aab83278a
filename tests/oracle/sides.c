/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Losses whose negatives are not focal's: label smoothing, asymmetric, reduced, star and heatmap focal loss.
 */
#include <math.h>

#include "oracle.h"

/* a*b where a falls to 0 faster than b grows: 0 where a is 0, also against an infinite b. */
static double vanishing(double a, double b) { return a == 0 ? 0 : a * b; }

/* ---- Losses by the side of their target ------------------------------------------------------------------------ */

/* sigmoid(x)^gamma, also where sigmoid(x) is too small for a double. */
static long double power_of_p(double x, double gamma) {
  if (gamma == 0) return isnan(x) ? NAN : 1;
  return expl(-(long double)gamma * (long double)oracle_point(x).l);
}

/* CE(x,t) and p - t of a target with its distance to 1, either of which may be small. */
static struct oracle_pair ce_between(double x, double t, double rest) {
  struct oracle_point at = oracle_point(x);
  double line = x > 0 ? x * rest : -x * t;
  return (struct oracle_pair){line + log1p(exp(-fabs(x))), x > 0 ? rest - at.q : at.p - t};
}

struct oracle_pair oracle_smoothed(double x, int one, double s, double gamma, int all) {
  double t = one ? 1 - s / 2 : s / 2, rest = one ? s / 2 : 1 - s / 2;
  struct oracle_point at = oracle_point(x);
  struct oracle_pair ce = ce_between(x, t, rest);
  long double error = all ? at.p * (long double)rest + at.q * (long double)t : one ? at.q : at.p;
  long double modulator = all ? powl(error, gamma) : power_of_p(one ? -x : x, gamma);
  /* The derivative of log(modulator) is gamma times this. */
  double slope = all ? (double)((1 - 2 * (long double)t) * at.p * at.q / error) : one ? -at.p : at.q;
  if (modulator == 0 || (isinf(x) && !all && gamma > 0 && (x > 0) == one)) return (struct oracle_pair){0, 0};
  double of_modulator = gamma == 0 ? 0 : gamma * vanishing(slope, ce.value);
  return (struct oracle_pair){(double)(modulator * ce.value), (double)(modulator * (ce.derivative + of_modulator))};
}

/* max(p-m,0), p = sigmoid(x): also where p and m are nearly the same. */
static double beyond(double x, double margin) {
  long double p = x > 0 ? 1 / (1 + expl(-x)) : expl(x) / (1 + expl(x));
  long double d = x - (logl(margin) - log1pl(-margin));
  if (d <= 0) return 0;
  return (double)(d < 1e-3 ? p * (1 - margin) * -expm1l(-d) : p - margin);
}

struct oracle_detached oracle_asymmetric(double x, int one, double gamma, double margin, int detached, double given) {
  struct oracle_point at = oracle_point(x);
  if (isnan(x)) return (struct oracle_detached){NAN, NAN, NAN};
  double r = one ? at.q : margin == 0 ? at.p : beyond(x, margin), rest = one ? at.p : at.q + margin;
  if (r == 0 && !one) return (struct oracle_detached){0, 0, detached ? isnan(given) ? pow(0, gamma) : given : 1};
  long double own = one ? power_of_p(-x, gamma) : margin == 0 ? power_of_p(x, gamma) : powl(r, gamma);
  double modulator = detached && !isnan(given) ? given : (double)own;
  /* -log(1-r), and its derivative by x over r's own. */
  double ce = one ? at.l : margin == 0 ? oracle_point(-x).l : r < 0.5 ? -log1p(-r) : -log(rest);
  double by_ce = one ? -at.q : margin == 0 ? at.p : at.p * (at.q / rest);
  double by_modulator = one ? -gamma * vanishing(at.p, ce) : gamma * at.p * vanishing(at.q, ce) / r;
  if (margin == 0 && !one) by_modulator = gamma * vanishing(at.q, ce);
  double slope = by_ce + (detached ? 0 : by_modulator);
  return (struct oracle_detached){vanishing(modulator, ce), modulator * slope, detached ? modulator : 1};
}

struct oracle_pair oracle_reduced(double x, int one, double gamma, double threshold) {
  double z = one ? x : -x, sign = one ? 1 : -1;
  struct oracle_point at = oracle_point(z);
  if (z < 0 || at.q > 1 - threshold) return (struct oracle_pair){at.l, -sign * at.q};
  long double of_threshold = gamma * logl(threshold);
  long double modulator = power_of_p(-z, gamma) * expl(-of_threshold);
  if (modulator == 0) return (struct oracle_pair){0, 0};
  return (struct oracle_pair){(double)(modulator * at.l),
                              (double)(-sign * modulator * (at.q + gamma * vanishing(at.p, at.l)))};
}

struct oracle_pair oracle_star(double x, int one, double gamma, double shift) {
  long double u = gamma * (long double)(one ? x : -x) + shift, e = expl(-fabsl(u));
  long double value = (u < 0 ? -u : 0) + log1pl(e), q = u < 0 ? 1 / (1 + e) : e / (1 + e);
  return (struct oracle_pair){(double)(value / gamma), (double)(one ? -q : q)};
}

struct oracle_pair oracle_heatmap(double x, double t, double gamma, double beta) {
  struct oracle_pair negative = oracle_focal(oracle_point(-x), gamma);
  if (t == 1) return oracle_focal(oracle_point(x), gamma);
  double weight = pow(1 - t, beta);
  double value = isinf(negative.value) ? negative.value : weight * negative.value;
  return (struct oracle_pair){value, -weight * negative.derivative};
}

/* ---- The losses of a batch --------------------------------------------------------------------------------------- */

static struct oracle_detached scaled(struct oracle_detached element, double factor) {
  return (struct oracle_detached){oracle_times(factor, element.value), oracle_times(factor, element.derivative),
                                  element.factor};
}

/* Nothing of it is a constant of the derivative. */
static struct oracle_detached whole(struct oracle_pair pair) {
  return (struct oracle_detached){pair.value, pair.derivative, 1};
}

struct oracle_detached oracle_smoothed_element(const struct oracle_problem *problem, struct oracle_element e,
                                               double gamma) {
  double s = problem->label_smoothing, t = problem->smoothed ? e.t * (1 - s) + s / 2 : e.of_alpha;
  return scaled(whole(oracle_smoothed(e.x, e.t == 1, s, gamma, problem->smoothed)), oracle_alpha(e.alpha, t));
}

/* One side of a loss. */
typedef struct oracle_detached side(const struct oracle_problem *problem, struct oracle_element e, int one);

/* A target between 0 and 1 mixes them. Of a mixture no one factor is a constant of the derivative. */
static struct oracle_detached mixed(const struct oracle_problem *problem, struct oracle_element e, side *of) {
  double alpha = oracle_alpha(e.alpha, e.of_alpha);
  if (e.t == 0 || e.t == 1) return scaled(of(problem, e, e.t == 1), alpha);
  e.given = NAN;
  struct oracle_detached one = of(problem, e, 1), none = of(problem, e, 0);
  struct oracle_detached mixture = {e.t * one.value + (1 - e.t) * none.value,
                                    e.t * one.derivative + (1 - e.t) * none.derivative, 1};
  return scaled(mixture, alpha);
}

static struct oracle_detached asymmetric_side(const struct oracle_problem *problem, struct oracle_element e, int one) {
  double gamma = one ? problem->gamma_positive : problem->gamma_negative;
  return oracle_asymmetric(e.x, one, gamma, one ? 0 : problem->margin, problem->modulator, e.given);
}

static struct oracle_detached asymmetric(const struct oracle_problem *problem, struct oracle_element e) {
  return mixed(problem, e, asymmetric_side);
}
const struct oracle_loss ORACLE_SIGMOID_ASYMMETRIC = {.element = asymmetric};

static struct oracle_detached reduced_side(const struct oracle_problem *problem, struct oracle_element e, int one) {
  return whole(oracle_reduced(e.x, one, problem->gamma, problem->threshold));
}

static struct oracle_detached reduced(const struct oracle_problem *problem, struct oracle_element e) {
  return mixed(problem, e, reduced_side);
}
const struct oracle_loss ORACLE_SIGMOID_REDUCED_FOCAL = {.element = reduced};

static struct oracle_detached star_side(const struct oracle_problem *problem, struct oracle_element e, int one) {
  return whole(oracle_star(e.x, one, problem->steepness, problem->shift));
}

static struct oracle_detached star(const struct oracle_problem *problem, struct oracle_element e) {
  return mixed(problem, e, star_side);
}
const struct oracle_loss ORACLE_SIGMOID_FOCAL_STAR = {.element = star};

static struct oracle_detached heatmap(const struct oracle_problem *problem, struct oracle_element e) {
  return whole(oracle_heatmap(e.x, e.t, problem->gamma, problem->beta));
}
const struct oracle_loss ORACLE_SIGMOID_HEATMAP_FOCAL = {.element = heatmap, .has_peaks = 1};
