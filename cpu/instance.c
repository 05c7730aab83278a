/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of one instruction set: compiled once for each, with TARE_ISA_NAME and the compiler's flags for it. */
#include <float.h>
#include <math.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "core/divide.h"
#include "half.h"
#include "losses/powers.h"
#include "rows.h"

#define TARE_INLINE static inline __attribute__((always_inline, unused))

#include "keys.h"
#include "labels.h"
#include "scale.h"
#include "targets.h"

#define REAL_BITS 64
#include "template.h"

#define REAL_BITS 32
#include "template.h"

#include "regression.h"

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#define KERNELS_(isa) tare_kernels_##isa
#define KERNELS(isa) KERNELS_(isa)

const tare_kernels KERNELS(TARE_ISA_NAME) = {
    .name = TEXT(TARE_ISA_NAME),
    .sigmoid = {sigmoid_tile_f32, sigmoid_tile_f64},
    .softmax = {softmax_tile_f32, softmax_tile_f64},
    .regression = regression_tile,
    .scan_labels = tare_tile_scan_labels,
    .classify_labels = classify_tile,
};
