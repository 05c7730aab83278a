/* SPDX-License-Identifier: Apache-2.0 */
/* Checks the parameters of a loss. */
#include <string.h>

#include "core/backend.h"
#include "core/losses.h"
#include "core/parameters.h"
#include "core/problem.h"
#include "core/structs.h"
#include "losses/powers.h"

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
  return TARE_STATUS_OK;
}

static tare_status check_parameters(tare_problem *problem, tare_error *error) {
  const tare_loss_spec *loss = &problem->loss;
  const tare_status status = tare_parameters_read(problem, error);
  if (status) return status;
  if (problem->alpha_per_class || problem->alpha < 0) problem->alpha = -1.0;
  problem->power = tare_power_of_gamma(problem->gamma);
  if (loss->kind == TARE_LOSS_SOFTMAX_CE) return check_softmax_ce(&loss->ce, error);
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
