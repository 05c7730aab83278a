/* SPDX-License-Identifier: Apache-2.0 */
/* What the oracle expects of the elements of a sweep, in the units of the header's bounds. */
#ifndef TEST_ACCURACY_EXPECTED_H
#define TEST_ACCURACY_EXPECTED_H

#include "accuracy.h"
#include "points.h"

/* ---- The sigmoid family ---------------------------------------------------------------------------------------- */

/* How the points become logits and targets. A hard negative has the logits mirrored, so that z is the same. */
struct side {
  double t;
  bool dense;  /* the target is given as a number: for each element, or as the score of a label */
  bool scored; /* the number is a label's score */
  bool alone;  /* only the gradient is asked for, which a GPU has a shorter way to */
};

static const struct side hard_sides[] = {{1, false, false, false}, {0, false, false, false}};
static const struct side alone_sides[] = {{0, false, false, true}};
static const struct side soft_sides[] = {{0, true, false, false},   {1e-3, true, false, false},
                                         {0.1, true, false, false}, {0.5, true, false, false},
                                         {0.9, true, false, false}, {1, true, false, false}};
static const struct side score_sides[] = {{1e-30, true, true, false},
                                          {1e-3, true, true, false},
                                          {0.5, true, true, false},
                                          {0.9, true, true, false},
                                          {1, true, true, false}};

static inline bool is_mirrored(const struct side *side) { return !side->dense && side->t == 0; }

static inline struct oracle_pair combine(struct oracle_pair main, double factor, struct oracle_pair extra) {
  return (struct oracle_pair){factor * main.value + extra.value, factor * main.derivative + extra.derivative};
}

/* By x, of a loss whose labels have a formula of their own. */
static inline struct oracle_detached own_pair(const struct sweep *sweep, double x, double t, bool is_label) {
  const struct oracle_problem problem = {
      .gamma = sweep->gamma,
      .beta = sweep->kind == TARE_LOSS_SIGMOID_HEATMAP_FOCAL ? sweep->epsilon : sweep->gamma,
      .p_exponent = sweep->epsilon,
      .modulator = takes_modulator(sweep) && sweep->epsilon > 0,
      .label_smoothing = is_smoothed(sweep) ? sweep->epsilon : 0,
      .gamma_positive = sweep->gamma,
      .gamma_negative = sweep->gamma,
      .margin = sweep->epsilon,
      .threshold = sweep->epsilon,
      .steepness = sweep->gamma,
      .shift = sweep->epsilon};
  const struct oracle_element element = {x, t, is_label ? 1 : t, sweep->alpha, NAN};
  return oracle_loss_of((int32_t)sweep->kind)->element(&problem, element);
}

/* By z, for a hard target. */
static inline struct oracle_pair hard_pair(const struct sweep *sweep, const struct side *side, double z,
                                           struct oracle_point at) {
  double alpha = oracle_alpha(sweep->alpha, side->t);
  struct oracle_pair none = {0, 0};
  if (has_own_labels(sweep)) {
    struct oracle_detached by_x = own_pair(sweep, side->t == 1 ? z : -z, side->t, false);
    return (struct oracle_pair){by_x.value, side->t == 1 ? by_x.derivative : -by_x.derivative};
  }
  if (sweep->kind == TARE_LOSS_SIGMOID_FOCAL) return combine(oracle_focal(at, sweep->gamma), alpha, none);
  if (sweep->kind == TARE_LOSS_SIGMOID_POLY1)
    return combine(oracle_focal(at, sweep->gamma), alpha, oracle_poly1_extra(at, sweep->gamma, sweep->epsilon));
  return combine(oracle_ce(at), alpha, none);
}

/* By x, for a target given as a number. */
static inline struct oracle_pair soft_pair(const struct sweep *sweep, const struct side *side, double x, double t) {
  double alpha = oracle_alpha(sweep->alpha, side->scored ? 1 : t);
  struct oracle_pair none = {0, 0};
  if (has_own_labels(sweep)) {
    struct oracle_detached own = own_pair(sweep, x, t, side->scored);
    return (struct oracle_pair){own.value, own.derivative};
  }
  if (sweep->kind == TARE_LOSS_GHM_R) return oracle_asl1(x - t, sweep->epsilon);
  if (sweep->kind == TARE_LOSS_SIGMOID_FOCAL) return combine(oracle_soft_focal(x, t, sweep->gamma), alpha, none);
  if (sweep->kind == TARE_LOSS_SIGMOID_POLY1)
    return combine(oracle_soft_focal(x, t, sweep->gamma), alpha,
                   oracle_soft_poly1_extra(x, t, sweep->gamma, sweep->epsilon));
  return combine(oracle_soft_ce(x, t), alpha, none);
}

/* Soft targets cancel truly near p = t: the error is measured against the terms of the sums (max(x,0), x*t and the
 * tail; p, t and the derivative of the modulator) instead of against what is left of them. */
static inline struct oracle_pair soft_size(const struct sweep *sweep, const struct side *side, double x, double t,
                                           struct oracle_pair want) {
  if (t == 0 || t == 1 || sweep->kind == TARE_LOSS_GHM_R || !isfinite(x)) return want;
  struct oracle_point at = oracle_point(x);
  double modulator = oracle_alpha(sweep->alpha, side->scored ? 1 : t) * pow(at.p * (1 - t) + at.q * t, sweep->gamma);
  if (sweep->kind == TARE_LOSS_SIGMOID_HEATMAP_FOCAL) return want; /* nothing cancels */
  if (has_own_labels(sweep)) modulator = sweep->kind == TARE_LOSS_SIGMOID_VARIFOCAL ? t : 1;
  if (sweep->kind == TARE_LOSS_SIGMOID_MATCHABILITY) t = pow(t, sweep->gamma);
  if (sweep->kind == TARE_LOSS_SIGMOID_IOU_AWARE) t = own_pair(sweep, x, t, true).factor;
  double rest = want.derivative - modulator * (at.p - t);
  return (struct oracle_pair){.value = want.value + modulator * 2 * fmax(x, 0) * t,
                              .derivative = modulator * (at.p + t) + fabs(rest)};
}

/* The gradient of a smoothed target is a difference too: of p, t and the derivative of the modulator. */
static inline struct oracle_pair smoothed_size(const struct sweep *sweep, double t, struct oracle_point at,
                                               struct oracle_pair want) {
  if (!is_smoothed(sweep) || isinf(want.value)) return want;
  const double modulator = oracle_alpha(sweep->alpha, t) * exp(sweep->gamma * log(at.q));
  return (struct oracle_pair){want.value,
                              fabs(want.derivative) + modulator * 2 * fmin(at.q + sweep->epsilon, sweep->epsilon)};
}

/* |p-t|^beta*CE(x,t) and its derivative, if |p-t| were s. */
static inline struct oracle_pair quality_at(double beta, double x, double t, double s) {
  struct oracle_point at = oracle_point(x);
  double ce = oracle_soft_ce(x, t).value, term = isinf(ce) ? 0 : at.p * at.q * ce;
  return (struct oracle_pair){pow(s, beta) * ce, pow(s, beta + 1) + (beta > 0 ? beta * pow(s, beta - 1) * term : 0)};
}

/* What |p-t| off by 4 ulp of p+t makes of quality focal loss, and 4*(1+beta) ulp of the results. Where it may be 0 and
 * beta is below 1, the derivative may be anything. */
static inline void widen_quality(const struct sweep *sweep, const struct written *written, enum quantity quantity,
                                 double x, double t, double *unit) {
  if (*unit == 0) return; /* not measured */
  const double p = oracle_point(x).p, s = fabs(p - t), alpha = sweep->alpha < 0 ? 1 : sweep->alpha;
  const double off = (written->epsilon < 1e-10 ? 0x1p-50 : 0x1p-21) * (p + t);
  const struct oracle_pair here = quality_at(sweep->gamma, x, t, s), above = quality_at(sweep->gamma, x, t, s + off);
  struct oracle_pair below = quality_at(sweep->gamma, x, t, fmax(s - off, 0));
  if (s <= off) below = (struct oracle_pair){0, -above.derivative};
  const double reach = quantity == LOSS
                           ? fmax(fabs(above.value - here.value), fabs(below.value - here.value))
                           : fmax(fabs(above.derivative - here.derivative), fabs(below.derivative - here.derivative));
  *unit = s <= off && sweep->gamma < 1 && quantity == GRADIENT ? 0 : 1 / (1 / *unit + alpha * reach / written->bound);
}

static inline void expect_chunk(const struct sweep *sweep, const struct side *side, const struct points *points,
                                struct expected expected[QUANTITIES]) {
  struct written loss = written_as(sweep, side->dense, points->dtype, LOSS);
  struct written gradient = written_as(sweep, side->dense, points->dtype, GRADIENT);
  double t = (double)(float)side->t;
  for (size_t i = 0; i < points->n; ++i) {
    struct oracle_pair want =
        side->dense ? soft_pair(sweep, side, points->z[i], t) : hard_pair(sweep, side, points->z[i], points->at[i]);
    struct oracle_pair size = side->dense ? soft_size(sweep, side, points->z[i], t, want)
                                          : smoothed_size(sweep, side->t, points->at[i], want);
    expected[LOSS].want[i] = want.value;
    expected[LOSS].per_unit[i] = per_unit(&loss, want.value, size.value);
    expected[GRADIENT].want[i] = want.derivative;
    expected[GRADIENT].per_unit[i] = per_unit(&gradient, want.derivative, size.derivative);
    if (sweep->kind != TARE_LOSS_SIGMOID_QUALITY_FOCAL || t == 0 || t == 1 || isinf(want.value)) continue;
    widen_quality(sweep, &loss, LOSS, points->z[i], t, &expected[LOSS].per_unit[i]);
    widen_quality(sweep, &gradient, GRADIENT, points->z[i], t, &expected[GRADIENT].per_unit[i]);
  }
}

#endif
