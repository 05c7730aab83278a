/* SPDX-License-Identifier: Apache-2.0 */
/* Class-balanced weights of running counts: what a backend gets, and where a state has its words. */
#ifndef TARE_CORE_CLASS_BALANCE_H
#define TARE_CORE_CLASS_BALANCE_H

#include "problem.h"

/** A checked call. `steps`: the counts of the step are added to the running ones first. */
typedef struct tare_balance_step {
  tare_class_balance balance;
  int32_t steps;
  double log_beta; /* finite for a beta of 0, with which every class that was seen weighs the same */
} tare_balance_step;

static inline int64_t *tare_balance_steps(const tare_class_balance *balance) { return (int64_t *)balance->state; }

/** [classes], of the step. */
static inline int64_t *tare_balance_step_counts(const tare_class_balance *balance) {
  return tare_balance_steps(balance) + 1;
}

/** [classes], running. */
static inline double *tare_balance_counts(const tare_class_balance *balance) {
  return (double *)(tare_balance_step_counts(balance) + balance->classes);
}

#endif
