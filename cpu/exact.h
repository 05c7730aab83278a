/* SPDX-License-Identifier: Apache-2.0 */
/* The exact gradient density on the CPU: keys in order, and 1/GD of each. */
#ifndef TARE_CPU_EXACT_H
#define TARE_CPU_EXACT_H

#include "job.h"

/** Sorts `key`, writes 1/GD of each sorted key into `weight`, and describes both; what that needs lies in `spare`. */
void tare_exact_density(const tare_problem *problem, int64_t n, double *key, double *spare, double *weight,
                        tare_sorted_keys *sorted);

#endif
