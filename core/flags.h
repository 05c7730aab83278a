/* SPDX-License-Identifier: Apache-2.0 */
/* The flags of an output: a gradient or a loss that is not finite, tested as it was written. */
#ifndef TARE_CORE_FLAGS_H
#define TARE_CORE_FLAGS_H

#include "problem.h"

static inline int tare_has_flags(const tare_output *output) {
  return output->nonfinite_gradient || output->nonfinite_loss;
}

/** Refuses a flag of what the call does not write. `unseen`: the logits are a fused head's. */
tare_status tare_check_flags(const tare_problem *problem, int unseen, tare_error *error);

#endif
