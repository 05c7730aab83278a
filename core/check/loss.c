/* SPDX-License-Identifier: Apache-2.0 */
/* Checks the parameters of a loss. */
#include <math.h>
#include <string.h>

#include "core/backend.h"
#include "core/losses.h"
#include "core/parameters.h"
#include "core/problem.h"
#include "core/structs.h"
#include "losses/powers.h"
#include "losses/twofold.h"

static tare_status check_ghm(const tare_ghm_parameters *ghm, tare_error *error) {
  if (ghm->density == TARE_GHM_DENSITY_EXACT &&
      (ghm->use_stored_density || ghm->momentum > 0.0 || ghm->variant == TARE_GHM_VARIANT_MMDET))
    return tare_fail(error, TARE_STATUS_UNSUPPORTED,
                     "loss->ghm.density is TARE_GHM_DENSITY_EXACT with use_stored_density %d, momentum %g, variant %d; "
                     "the exact density has no "
                     "bins; set these to 0, 0 and TARE_GHM_VARIANT_PAPER",
                     ghm->use_stored_density, ghm->momentum, ghm->variant);
  if (!ghm->state && (ghm->use_stored_density || ghm->momentum > 0.0))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "loss->ghm.state is NULL with use_stored_density %d and momentum %g; both need a state of "
                     "tare_ghm_state_bytes(%d) bytes",
                     ghm->use_stored_density, ghm->momentum, ghm->bins);
  return TARE_STATUS_OK;
}

static tare_status check_softmax_ce(const tare_ce_parameters *ce, tare_error *error) {
  if (ce->alpha >= 0.0 || ce->alpha_per_class)
    return tare_fail(
        error, TARE_STATUS_UNSUPPORTED,
        "loss->ce.alpha is %g (alpha_per_class %p); TARE_LOSS_SOFTMAX_CE has no alpha: leave it -1 and NULL, and "
        "use batch->class_weights",
        ce->alpha, (const void *)ce->alpha_per_class);
  if (ce->smoothed)
    return tare_fail(
        error, TARE_STATUS_UNSUPPORTED,
        "loss->ce.smoothed is %d; TARE_LOSS_SOFTMAX_CE has neither modulator nor alpha to smooth: leave it 0",
        ce->smoothed);
  if (ce->weighting)
    return tare_fail(
        error, TARE_STATUS_UNSUPPORTED,
        "loss->ce.weighting is %d; TARE_LOSS_SOFTMAX_CE has neither positive nor negative weights: leave it 0",
        ce->weighting);
  return TARE_STATUS_OK;
}

static tare_status check_sigmoid_ce(const tare_ce_parameters *ce, tare_error *error) {
  if (ce->z_loss == 0.0) return TARE_STATUS_OK;
  return tare_fail(error, TARE_STATUS_UNSUPPORTED,
                   "loss->ce.z_loss is %g; TARE_LOSS_SIGMOID_CE has no sum of exponentials: leave it 0", ce->z_loss);
}

static tare_status check_smoothing(const tare_problem *problem, tare_error *error) {
  const double s = problem->label_smoothing;
  if (s > 0.0 && s < 1e-30)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "loss->label_smoothing is %g; it must be 0, or in [1e-30,1)",
                     s);
  if (problem->smooths_all && problem->alpha_per_class && s > 0.0)
    return tare_fail(error, TARE_STATUS_UNSUPPORTED,
                     "loss->alpha_per_class is %p with smoothed TARE_SMOOTHED_ALL; an alpha of each class is not "
                     "smoothed: use alpha, or TARE_SMOOTHED_CROSS_ENTROPY",
                     (const void *)problem->alpha_per_class);
  return TARE_STATUS_OK;
}

static tare_status check_margin(double margin, tare_error *error) {
  if (margin == 0.0 || margin >= 1e-6) return TARE_STATUS_OK;
  return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "loss->asymmetric.margin is %g; it must be 0, or in [1e-6,1]",
                   margin);
}

/** The formulas of losses/sigmoid_shaped.h that the loss has. */
static int32_t find_shape(const tare_problem *problem) {
  switch (problem->loss.kind) {
    case TARE_LOSS_SIGMOID_ASYMMETRIC:
      return problem->margin > 0.0 ? TARE_SHAPE_MARGIN : TARE_SHAPE_TWO_GAMMAS;
    case TARE_LOSS_SIGMOID_REDUCED_FOCAL:
      return TARE_SHAPE_REDUCED;
    case TARE_LOSS_SIGMOID_FOCAL_STAR:
      return TARE_SHAPE_STAR;
    default:
      if (problem->label_smoothing == 0.0 || problem->family == TARE_LOSS_FAMILY_SOFTMAX) return TARE_SHAPE_NONE;
      return problem->smooths_all ? TARE_SHAPE_SMOOTHED_ALL : TARE_SHAPE_SMOOTHED;
  }
}

static void set_margin(tare_problem *problem) {
  const long double margin = problem->margin, logit = logl(margin) - log1pl(-margin);
  problem->margin_logit = (double)logit;
  if (problem->margin < 1.0) problem->margin_logit_lo = (double)(logit - (long double)problem->margin_logit);
}

static void set_threshold(tare_problem *problem) {
  const double p = problem->threshold;
  problem->log_threshold = log(p);
  problem->threshold_logit = log(p) - log1p(-p);
  problem->threshold_logit_f32 = tare_first_float((tare_twofold){problem->threshold_logit, 0});
}

/** At a target t alpha_t = t*alpha + (1-t)*(1-alpha). The smoothed targets are 1-h and h. */
static void set_alpha(tare_problem *problem) {
  const double h = problem->shape == TARE_SHAPE_SMOOTHED_ALL ? problem->label_smoothing / 2 : 0.0;
  const double alpha = problem->alpha_per_class ? -1.0 : problem->alpha;
  problem->alpha = alpha < 0 ? -1.0 : alpha * (1 - h) + (1 - alpha) * h;
  problem->alpha_of_0 = alpha < 0 ? 1.0 : (1 - alpha) * (1 - h) + alpha * h;
}

static tare_status set_shape(tare_problem *problem, tare_error *error) {
  tare_status status = check_smoothing(problem, error);
  if (!status) status = check_margin(problem->margin, error);
  problem->shape = find_shape(problem);
  if (problem->shape == TARE_SHAPE_MARGIN) set_margin(problem);
  if (problem->shape == TARE_SHAPE_REDUCED) set_threshold(problem);
  if (problem->shape != TARE_SHAPE_NONE) problem->labels_apart = 1;
  return status;
}

static tare_status check_parameters(tare_problem *problem, tare_error *error) {
  const tare_loss_spec *loss = &problem->loss;
  tare_status status = tare_parameters_read(problem, error);
  if (!status) status = set_shape(problem, error);
  if (status) return status;
  set_alpha(problem);
  problem->power = problem->gamma_per_class ? TARE_POWER_GENERAL : tare_power_of_gamma(problem->gamma);
  if (loss->kind == TARE_LOSS_SOFTMAX_FOCAL && loss->focal.gamma_per_class)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "loss->focal.gamma_per_class is %p; in softmax-focal it must be NULL: a row has one gamma",
                     (const void *)loss->focal.gamma_per_class);
  if (loss->kind == TARE_LOSS_SOFTMAX_CE) return check_softmax_ce(&loss->ce, error);
  if (loss->kind == TARE_LOSS_SIGMOID_CE) return check_sigmoid_ce(&loss->ce, error);
  return tare_is_ghm(problem) ? check_ghm(&loss->ghm, error) : TARE_STATUS_OK;
}

tare_status tare_problem_set_loss(tare_problem *problem, const tare_loss_spec *loss, tare_error *error) {
  int32_t kind = TARE_LOSS_SIGMOID_CE;
  if (loss && loss->struct_size >= offsetof(tare_loss_spec, ce)) kind = loss->kind;
  const tare_layout layout = tare_loss_layout(kind);
  tare_loss_spec_init(&problem->loss, (tare_loss_kind)kind);
  const tare_status status = tare_read_struct(&problem->loss, loss, &layout, error);
  if (status) return status;
  const tare_listed_loss *listed = tare_find_loss(kind);
  if (!listed) return tare_fail_unknown_loss(error, "loss->", kind);
  const tare_status reserved = tare_check_reserved(&problem->loss, listed, error);
  if (reserved) return reserved;
  problem->family = listed->family;
  problem->passes = listed->passes;
  problem->takes = listed->takes;
  problem->alpha_is_part = listed->alpha_is_part;
  problem->labels_apart = listed->labels_apart;
  problem->alpha_of_negatives = listed->alpha_of_negatives;
  problem->alpha = -1.0;
  return check_parameters(problem, error);
}
