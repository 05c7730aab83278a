/* SPDX-License-Identifier: Apache-2.0 */
/* Weights of running gradients (EQLv2, EFL): what a backend gets, and where a state has its words. */
#ifndef TARE_CORE_GRADIENT_BALANCE_H
#define TARE_CORE_GRADIENT_BALANCE_H

#include "problem.h"

enum tare_gradient_action { TARE_GRADIENT_WEIGH, TARE_GRADIENT_COLLECT, TARE_GRADIENT_STEP };

/** A checked call. */
typedef struct tare_gradient_step {
  tare_gradient_balance balance;
  int32_t action;              /* a tare_gradient_action */
  const tare_class_sums *sums; /* of TARE_GRADIENT_COLLECT */
} tare_gradient_step;

static inline int64_t *tare_gradient_steps(const tare_gradient_balance *balance) { return (int64_t *)balance->state; }

/** [2*classes], of the step. */
static inline double *tare_gradient_step_sums(const tare_gradient_balance *balance) {
  return (double *)balance->state + 1;
}

/** [2*classes], running. */
static inline double *tare_gradient_sums(const tare_gradient_balance *balance) {
  return tare_gradient_step_sums(balance) + 2 * balance->classes;
}

#endif
