/* SPDX-License-Identifier: Apache-2.0 */
/* What levels have of their own: losses, weights, divisors. */
#ifndef TARE_CORE_LEVELS_H
#define TARE_CORE_LEVELS_H

#include "problem.h"

/** Refuses what a level cannot have. Says in the problem whether any has something. `unseen`: the logits are a fused
 *  head's. */
tare_status tare_check_levels(tare_problem *problem, int unseen, tare_error *error);

/** Whether the normalizer divides a level: it has no divisor of its own. */
static inline int tare_is_normalized(const tare_level_scalars *level) {
  return level->divisor == 0 && !level->divisor_pointer;
}

static inline int tare_has_scope_level(const tare_problem *problem) {
  return problem->output.normalizer_scope == TARE_NORMALIZER_SCOPE_LEVEL;
}

/** Whether two levels have the same divisor and the same weight. */
int tare_levels_agree(const tare_problem *problem, int a, int b);

/** The levels `taken` of a problem, which agree, as a call of their own: their losses and gradients as they are there.
 *  It asks for neither scalar loss, counts, sums nor flags. */
void tare_levels_part(const tare_problem *problem, const int *taken, int count, tare_problem *part);

#endif
