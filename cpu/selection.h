/* SPDX-License-Identifier: Apache-2.0 */
/* Selection of rows on the CPU: see core/selection.h. */
#ifndef TARE_CPU_SELECTION_H
#define TARE_CPU_SELECTION_H

#include "backend.h"

/** Measures, settles, and makes the problem to evaluate. Its labels lie in the workspace. */
void tare_cpu_select(tare_cpu *cpu, const tare_tiling *tiling, const tare_plan *plan, tare_problem *selected);

#endif
