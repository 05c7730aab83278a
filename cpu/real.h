/* SPDX-License-Identifier: Apache-2.0 */
/* The type that this compilation of cpu/instance.c computes in. TARE_REAL_BITS, from the command line, is 32 or 64. */
#ifndef TARE_CPU_REAL_H
#define TARE_CPU_REAL_H

#include "job.h"

#define TARE_INLINE static inline __attribute__((always_inline, unused))

#if TARE_REAL_BITS == 32

typedef float real;
enum { REAL_DTYPE = TARE_DTYPE_F32 };

/** The bins' thresholds and weights. */
TARE_INLINE const float *lower_of(const tare_bins *bins) { return bins->lower_f32; }
TARE_INLINE const float *weight_of(const tare_bins *bins) { return bins->weight_f32; }

#elif TARE_REAL_BITS == 64

typedef double real;
enum { REAL_DTYPE = TARE_DTYPE_F64 };

TARE_INLINE const double *lower_of(const tare_bins *bins) { return bins->lower_f64; }
TARE_INLINE const double *weight_of(const tare_bins *bins) { return bins->weight_f64; }

#else
#error "TARE_REAL_BITS must be 32 or 64"
#endif

#endif
