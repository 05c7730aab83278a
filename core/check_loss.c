/* SPDX-License-Identifier: Apache-2.0 */
/* Checks the parameters of a loss. */
#include <math.h>
#include <string.h>

#include "backend.h"
#include "powers.h"
#include "problem.h"
#include "structs.h"

enum { ALPHA_WHOLE, ALPHA_PART };

static const struct {
  int32_t kind, shape, alpha;
} losses[] = {
#define TARE_LOSS(kind, formula, name, shape, powers, alpha, parameters) \
  {TARE_##kind, TARE_SHAPE_##shape, ALPHA_##alpha},
#include "losses.def"
#undef TARE_LOSS
};

/** The loss's place in the list, or -1. */
static int find_loss(int32_t kind) {
  for (int i = 0; i < (int)(sizeof losses / sizeof *losses); i++)
    if (losses[i].kind == kind) return i;
  return -1;
}

static tare_status set_alpha(tare_problem *problem, const char *where, double alpha, const float *per_class,
                             tare_error *error) {
  const double most = problem->shape == TARE_SHAPE_SOFTMAX ? 1e30 : 1.0;
  if (!(alpha <= most))
    return tare_fail(error, TARE_INVALID_ARGUMENT, "loss->%s.alpha is %g; it must be in [0,%g], or negative for off",
                     where, alpha, most);
  if ((uintptr_t)per_class % sizeof(float))
    return tare_fail(error, TARE_INVALID_ARGUMENT, "loss->%s.alpha_per_class is %p; it must be aligned to 4 bytes",
                     where, (const void *)per_class);
  problem->alpha = per_class || alpha < 0 ? -1.0 : alpha;
  problem->alpha_per_class = per_class;
  return TARE_OK;
}

static tare_status set_gamma(tare_problem *problem, const char *where, double gamma, tare_error *error) {
  if (!(gamma >= 0.0 && gamma <= 1e4))
    return tare_fail(error, TARE_INVALID_ARGUMENT, "loss->%s.gamma is %g; it must be in [0,10000]", where, gamma);
  problem->gamma = gamma;
  problem->power = tare_power_of_gamma(gamma);
  return TARE_OK;
}

static tare_status check_ghm_range(const tare_ghm_parameters *ghm, int regression, tare_error *error) {
  if (ghm->bins < 1 || ghm->bins > 1024)
    return tare_fail(error, TARE_INVALID_ARGUMENT, "loss->ghm.bins is %d; it must be in 1..1024", ghm->bins);
  if (ghm->density != TARE_UNIT_REGION && ghm->density != TARE_EXACT)
    return tare_fail(error, TARE_INVALID_ARGUMENT,
                     "loss->ghm.density is %d; it must be TARE_UNIT_REGION (0) or "
                     "TARE_EXACT (1)",
                     ghm->density);
  if (ghm->variant != TARE_GHM_PAPER && ghm->variant != TARE_GHM_MMDET)
    return tare_fail(error, TARE_INVALID_ARGUMENT,
                     "loss->ghm.variant is %d; it must be TARE_GHM_PAPER (0) or "
                     "TARE_GHM_MMDET (1)",
                     ghm->variant);
  if (ghm->given != 0 && ghm->given != 1)
    return tare_fail(error, TARE_INVALID_ARGUMENT, "loss->ghm.given is %d; it must be 0 or 1", ghm->given);
  if (!(ghm->momentum >= 0.0 && ghm->momentum < 1.0))
    return tare_fail(error, TARE_INVALID_ARGUMENT, "loss->ghm.momentum is %g; it must be in [0,1)", ghm->momentum);
  if (ghm->density == TARE_EXACT && !(ghm->epsilon > 0.0 && ghm->epsilon <= 2.0))
    return tare_fail(error, TARE_INVALID_ARGUMENT, "loss->ghm.epsilon is %g; it must be in (0,2]", ghm->epsilon);
  if (regression && !(ghm->mu >= 1e-30 && ghm->mu <= 1e30))
    return tare_fail(error, TARE_INVALID_ARGUMENT, "loss->ghm.mu is %g; it must be in [1e-30,1e30]", ghm->mu);
  if ((uintptr_t)ghm->state % 8)
    return tare_fail(error, TARE_INVALID_ARGUMENT, "loss->ghm.state is %p; it must be aligned to 8 bytes", ghm->state);
  return TARE_OK;
}

static tare_status check_ghm(const tare_ghm_parameters *ghm, int regression, tare_error *error) {
  const tare_status status = check_ghm_range(ghm, regression, error);
  if (status) return status;
  if (ghm->density == TARE_EXACT && (ghm->given || ghm->momentum > 0.0 || ghm->variant == TARE_GHM_MMDET))
    return tare_fail(error, TARE_UNSUPPORTED,
                     "loss->ghm.density is TARE_EXACT with given %d, momentum %g, variant %d; the exact density has no "
                     "bins and takes 0, 0 and TARE_GHM_PAPER",
                     ghm->given, ghm->momentum, ghm->variant);
  if (!ghm->state && (ghm->given || ghm->momentum > 0.0))
    return tare_fail(error, TARE_INVALID_ARGUMENT,
                     "loss->ghm.state is NULL with given %d and momentum %g; both need a state of "
                     "tare_ghm_state_bytes(%d) bytes",
                     ghm->given, ghm->momentum, ghm->bins);
  return TARE_OK;
}

static tare_status check_softmax_ce(const tare_ce_parameters *ce, tare_error *error) {
  if (ce->alpha >= 0.0 || ce->alpha_per_class)
    return tare_fail(error, TARE_UNSUPPORTED,
                     "loss->ce.alpha is %g (alpha_per_class %p); TARE_SOFTMAX_CE has no alpha: leave -1 and NULL, and "
                     "use batch->class_weights",
                     ce->alpha, (const void *)ce->alpha_per_class);
  return TARE_OK;
}

static tare_status check_parameters(tare_problem *problem, tare_error *error) {
  const tare_loss *loss = &problem->loss;
  tare_status status = TARE_OK;
  switch ((tare_loss_kind)loss->kind) {
    case TARE_SOFTMAX_CE:
      return check_softmax_ce(&loss->ce, error);
    case TARE_SIGMOID_CE:
      return set_alpha(problem, "ce", loss->ce.alpha, loss->ce.alpha_per_class, error);
    case TARE_SIGMOID_FOCAL:
    case TARE_SOFTMAX_FOCAL:
      status = set_alpha(problem, "focal", loss->focal.alpha, loss->focal.alpha_per_class, error);
      return status ? status : set_gamma(problem, "focal", loss->focal.gamma, error);
    case TARE_SIGMOID_POLY1:
      problem->poly_epsilon = loss->poly1.epsilon;
      if (!isfinite(loss->poly1.epsilon))
        return tare_fail(error, TARE_INVALID_ARGUMENT, "loss->poly1.epsilon is %g; it must be finite",
                         loss->poly1.epsilon);
      status = set_alpha(problem, "poly1", loss->poly1.alpha, loss->poly1.alpha_per_class, error);
      return status ? status : set_gamma(problem, "poly1", loss->poly1.gamma, error);
    case TARE_GHM_C:
    case TARE_GHM_R:
      return check_ghm(&loss->ghm, loss->kind == TARE_GHM_R, error);
  }
  return status;
}

tare_status tare_problem_set_loss(tare_problem *problem, const tare_loss *loss, tare_error *error) {
  int32_t kind = TARE_SIGMOID_CE;
  if (loss && loss->struct_size >= offsetof(tare_loss, ce)) kind = loss->kind;
  const tare_layout layout = tare_loss_layout(kind);
  tare_loss_init(&problem->loss, (tare_loss_kind)kind);
  const tare_status status = tare_read_struct(&problem->loss, loss, &layout, error);
  if (status) return status;
  const int found = find_loss(kind);
  if (found < 0)
    return tare_fail(error, TARE_INVALID_ARGUMENT,
                     "loss->kind is %d; it must be a tare_loss_kind (tare_loss_kind_at lists them)", kind);
  problem->shape = losses[found].shape;
  problem->alpha_is_part = losses[found].alpha == ALPHA_PART;
  problem->alpha = -1.0;
  return check_parameters(problem, error);
}
