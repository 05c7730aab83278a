/* SPDX-License-Identifier: Apache-2.0 */
/* Class-balanced weights of running counts on the CPU. */
#include "core/class_balance.h"

#include <math.h>

#include "backend.h"

#define TARE_INLINE static inline
#include "losses/class_balance.h"

static void add_step(const tare_balance_step *step) {
  const tare_class_balance *b = &step->balance;
  const int64_t *more = tare_balance_step_counts(b);
  double *n = tare_balance_counts(b);
  for (int64_t c = 0; c < b->classes; c++) n[c] = tare_next_count(n[c], more[c], b->decay);
  int64_t *steps = tare_balance_steps(b);
  *steps = *steps < 0 ? 1 : *steps + (*steps < INT64_MAX);
}

void tare_cpu_balance_classes(const tare_balance_step *step) {
  const tare_class_balance *b = &step->balance;
  const double log_beta = step->log_beta, *n = tare_balance_counts(b);
  if (step->steps) add_step(step);
  for (int64_t c = 0; b->log_counts && c < b->classes; c++)
    b->log_counts[c] = tare_log_of_count(tare_sound_count(n[c]));
  if (!b->weights) return;
  double sum = 0, present = 0;
  for (int64_t c = 0; c < b->classes; c++) {
    const double inverse = tare_inverse_of_count(tare_sound_count(n[c]), b->least_count, log_beta);
    sum += inverse;
    present += inverse > 0 ? 1 : 0;
  }
  for (int64_t c = 0; c < b->classes; c++) {
    const double inverse = tare_inverse_of_count(tare_sound_count(n[c]), b->least_count, log_beta);
    b->weights[c] = present > 0 ? (float)(inverse * (present / sum)) : 1.0f;
  }
}
