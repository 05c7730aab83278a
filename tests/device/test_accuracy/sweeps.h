/* SPDX-License-Identifier: Apache-2.0 */
/* What is swept: a loss and its parameters. */
#ifndef TEST_SWEEPS_H
#define TEST_SWEEPS_H
#include <math.h>
#include <stdbool.h>
#include <stdio.h>

#include "support/buffers.h"
#include "tare.h"

struct sweep {
  tare_loss_kind kind;
  double alpha, gamma,
      epsilon; /* alpha below 0: off; gamma: also beta; epsilon: of Poly-1, mu of GHM-R, the exponent of
                                   p of IoU-aware, 1: the modulator is detached; label smoothing of CE and focal;
                                   margin; threshold; shift (gamma: the steepness); beta of heatmaps.
                                   Minus label smoothing of a softmax loss: of the modulator, too. Softmax CE,
                                   logit-adjusted: gamma is z_loss */
};

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static inline bool takes_modulator(const struct sweep *sweep) {
  return sweep->kind == TARE_LOSS_SIGMOID_VARIFOCAL || sweep->kind == TARE_LOSS_SIGMOID_MATCHABILITY;
}

static inline bool is_smoothed(const struct sweep *sweep) {
  return (sweep->kind == TARE_LOSS_SIGMOID_CE || sweep->kind == TARE_LOSS_SIGMOID_FOCAL) && sweep->epsilon > 0;
}

/* A softmax row with a smoothed target. */
static inline bool is_smoothed_row(const struct sweep *sweep) {
  return (sweep->kind == TARE_LOSS_SOFTMAX_CE || sweep->kind == TARE_LOSS_SOFTMAX_FOCAL) && sweep->epsilon != 0;
}

static inline double z_loss_of(const struct sweep *sweep) {
  const bool takes_it = sweep->kind == TARE_LOSS_SOFTMAX_CE || sweep->kind == TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED;
  return takes_it ? sweep->gamma : 0;
}

/* A label's element is no mirror of a negative. */
static inline bool has_own_labels(const struct sweep *sweep) {
  return takes_modulator(sweep) || is_smoothed(sweep) || sweep->kind == TARE_LOSS_SIGMOID_ASYMMETRIC ||
         sweep->kind == TARE_LOSS_SIGMOID_REDUCED_FOCAL || sweep->kind == TARE_LOSS_SIGMOID_FOCAL_STAR ||
         sweep->kind == TARE_LOSS_SIGMOID_HEATMAP_FOCAL || sweep->kind == TARE_LOSS_SIGMOID_QUALITY_FOCAL ||
         sweep->kind == TARE_LOSS_SIGMOID_IOU_AWARE;
}

static inline const char *epsilon_text(const struct sweep *sweep) {
  if (is_smoothed(sweep) || is_smoothed_row(sweep)) return "smoothing";
  if (sweep->kind == TARE_LOSS_SIGMOID_ASYMMETRIC) return "margin";
  if (sweep->kind == TARE_LOSS_SIGMOID_REDUCED_FOCAL) return "threshold";
  if (sweep->kind == TARE_LOSS_SIGMOID_FOCAL_STAR) return "shift";
  if (sweep->kind == TARE_LOSS_SIGMOID_HEATMAP_FOCAL) return "beta";
  return sweep->kind == TARE_LOSS_GHM_R ? "mu" : sweep->kind == TARE_LOSS_SIGMOID_IOU_AWARE ? "exponent of p" : "eps";
}

static inline const char *sweep_text(const struct sweep *sweep, bool soft, bool alone) {
  static char text[96];
  int used = snprintf(text, sizeof text, "%s", tare_loss_name(sweep->kind));
  if (sweep->gamma > 0)
    used += snprintf(text + used, sizeof text - (size_t)used, " %s %g", z_loss_of(sweep) > 0 ? "z-loss" : "gamma",
                     sweep->gamma);
  if (sweep->alpha >= 0) used += snprintf(text + used, sizeof text - (size_t)used, " alpha %g", sweep->alpha);
  if (takes_modulator(sweep) && sweep->epsilon > 0)
    used += snprintf(text + used, sizeof text - (size_t)used, " detached");
  else if (sweep->epsilon > 0 || is_smoothed_row(sweep))
    used += snprintf(text + used, sizeof text - (size_t)used, " %s %g", epsilon_text(sweep), sweep->epsilon);
  snprintf(text + used, sizeof text - (size_t)used, "%s", soft ? ", soft targets" : alone ? ", gradient alone" : "");
  return text;
}

static inline bool is_softmax(const struct sweep *sweep) {
  return sweep->kind == TARE_LOSS_SOFTMAX_CE || sweep->kind == TARE_LOSS_SOFTMAX_FOCAL ||
         sweep->kind == TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED || sweep->kind == TARE_LOSS_SOFTMAX_LDAM;
}

/* GHM with one bin whose 1/GD is 1, handed in: the bare element. Words as the manual lays a state out. */
static const double unit_state[5] = {0, 0, 0, 1, 1};

static inline void fill_loss(tare_loss_spec *loss, const struct sweep *sweep, const buffer *state) {
  tare_loss_spec_init(loss, sweep->kind);
  switch (sweep->kind) {
    case TARE_LOSS_SOFTMAX_CE:
    case TARE_LOSS_SIGMOID_CE:
      loss->ce.alpha = sweep->alpha;
      loss->ce.label_smoothing = fabs(sweep->epsilon);
      loss->ce.z_loss = z_loss_of(sweep);
      break;
    case TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED:
      loss->logit_adjusted.z_loss = z_loss_of(sweep);
      break;
    case TARE_LOSS_SIGMOID_FOCAL:
    case TARE_LOSS_SOFTMAX_FOCAL:
      loss->focal.alpha = sweep->alpha;
      loss->focal.gamma = sweep->gamma;
      loss->focal.label_smoothing = fabs(sweep->epsilon);
      loss->focal.smoothed = sweep->epsilon < 0;
      break;
    case TARE_LOSS_SIGMOID_ASYMMETRIC:
      loss->asymmetric.gamma_positive = loss->asymmetric.gamma_negative = sweep->gamma;
      loss->asymmetric.margin = sweep->epsilon;
      break;
    case TARE_LOSS_SIGMOID_HEATMAP_FOCAL:
      loss->heatmap_focal.gamma = sweep->gamma;
      loss->heatmap_focal.beta = sweep->epsilon;
      break;
    case TARE_LOSS_SIGMOID_REDUCED_FOCAL:
      loss->reduced_focal.gamma = sweep->gamma;
      loss->reduced_focal.threshold = sweep->epsilon;
      break;
    case TARE_LOSS_SIGMOID_FOCAL_STAR:
      loss->focal_star.steepness = sweep->gamma;
      loss->focal_star.shift = sweep->epsilon;
      break;
    case TARE_LOSS_SIGMOID_POLY1:
      loss->poly1.alpha = sweep->alpha;
      loss->poly1.gamma = sweep->gamma;
      loss->poly1.epsilon = sweep->epsilon;
      break;
    case TARE_LOSS_SIGMOID_VARIFOCAL:
      loss->varifocal.alpha = sweep->alpha;
      loss->varifocal.gamma = sweep->gamma;
      loss->varifocal.modulator = sweep->epsilon > 0 ? TARE_MODULATOR_DETACHED : TARE_MODULATOR_DIFFERENTIATED;
      break;
    case TARE_LOSS_SIGMOID_QUALITY_FOCAL:
      loss->quality_focal.alpha = sweep->alpha;
      loss->quality_focal.beta = sweep->gamma;
      break;
    case TARE_LOSS_SIGMOID_MATCHABILITY:
      loss->matchability.alpha = sweep->alpha;
      loss->matchability.gamma = sweep->gamma;
      loss->matchability.modulator = sweep->epsilon > 0 ? TARE_MODULATOR_DETACHED : TARE_MODULATOR_DIFFERENTIATED;
      break;
    case TARE_LOSS_SIGMOID_IOU_AWARE:
      loss->iou_aware.gamma = sweep->gamma;
      loss->iou_aware.p_exponent = sweep->epsilon;
      break;
    case TARE_LOSS_GHM_C:
    case TARE_LOSS_GHM_R:
      loss->ghm.bins = 1;
      loss->ghm.use_stored_density = 1;
      loss->ghm.state = buffer_memory(state);
      if (sweep->kind == TARE_LOSS_GHM_R) loss->ghm.mu = sweep->epsilon;
      break;
    default:
      break;
  }
}

#endif
