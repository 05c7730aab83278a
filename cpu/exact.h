/* SPDX-License-Identifier: Apache-2.0 */
/* The exact gradient density on the CPU: 1/GD of each element. */
#ifndef TARE_CPU_EXACT_H
#define TARE_CPU_EXACT_H

#include "backend.h"

/** Puts the gradient density of every element into the job. */
void tare_cpu_use_exact_density(tare_cpu *cpu, const tare_tiling *tiling, const tare_plan *plan, tare_job *job);

#endif
