/* SPDX-License-Identifier: Apache-2.0 */
/* Weights of running gradients on the CPU. */
#include "core/gradient_balance.h"

#include <math.h>

#include "backend.h"

#define TARE_INLINE static inline
#include "losses/gradient_balance.h"

void tare_cpu_balance_gradients(const tare_gradient_step *step) {
  const tare_gradient_balance *b = &step->balance;
  int64_t *steps = tare_gradient_steps(b);
  double *of_step = tare_gradient_step_sums(b), *running = tare_gradient_sums(b);
  for (int64_t c = 0; c < b->classes; c++) {
    if (step->action == TARE_GRADIENT_WEIGH) tare_write_factors(b, c, tare_factors_of_class(b, *steps, running, c));
    if (step->action != TARE_GRADIENT_COLLECT) continue;
    of_step[2 * c] = tare_sound_sum(step->sums[c].positive_gradient);
    of_step[2 * c + 1] = tare_sound_sum(step->sums[c].negative_gradient);
  }
  if (step->action != TARE_GRADIENT_STEP) return;
  for (int64_t i = 0; i < 2 * b->classes; i++) running[i] = tare_next_sum(running[i], of_step[i]);
  *steps = *steps < 0 ? 1 : *steps + (*steps < INT64_MAX);
}
