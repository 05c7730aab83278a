/* SPDX-License-Identifier: Apache-2.0 */
/* The choice of an instruction set. */
#ifndef TARE_CPU_ISA_H
#define TARE_CPU_ISA_H

#include "job.h"

/** The best instance that this machine runs, or the one that the environment variable TARE_ISA names. */
tare_status tare_kernels_select(const tare_kernels **kernels, tare_error *error);

#endif
