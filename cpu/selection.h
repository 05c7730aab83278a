/* SPDX-License-Identifier: Apache-2.0 */
/* Selection of rows on the CPU: see core/selection.h. */
#ifndef TARE_CPU_SELECTION_H
#define TARE_CPU_SELECTION_H

#include "backend.h"
#include "core/selection.h"

/** Measures, settles, and makes the problem to evaluate. Its labels lie in the workspace. */
void tare_cpu_select(tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem, void *workspace,
                     tare_problem *selected);

#endif
