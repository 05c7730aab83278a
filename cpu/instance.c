/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels of one instruction set for one type: compiled once for each pair, with the compiler's flags for the
 * instruction set, TARE_REAL_BITS (see cpu/real.h), and TARE_KERNELS as the name of the table, such as
 * tare_kernels_avx2_f32. Everything else has the same name in all of them, and is static.
 */
#include <float.h>
#include <math.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "core/divide.h"
#include "half.h"
#include "losses/powers.h"
#include "past_caches.h"
#include "radix_sort.h"
#include "real.h"
#include "rows.h"

#include "keys.h"
#include "labels.h"
#include "row_loss.h"
#include "scale.h"
#include "targets.h"

#include "primitives.h"
#include "scratch.h"

#include "class_mask.h"

#include "losses/all.h"
#include "losses/mask_pixel.h"

#if TARE_REAL_BITS == 32 && defined(__AVX512BW__) && defined(__AVX512DQ__)
#define HAS_VECTORS
#define HAS_FEW_BINS
#include "few_bins.h"
#include "vectors_avx512.h"
#elif TARE_REAL_BITS == 32 && defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define HAS_VECTORS
#include "vectors_avx2.h"
#endif
#include "density.h"
#include "transpose.h"

#ifdef HAS_VECTORS
#include "halves.h"
#endif

#include "transfer.h"

#include "parameters.h"
#include "target_sums.h"
#include "two_hot.h"

#include "targets_row.h"

#include "adjust.h"
#include "blocks.h"

#include "sigmoid_loops.h"
#ifdef HAS_VECTORS
#include "binned_negatives.h"
#endif
#include "density_counts.h"
#include "sigmoid_weights.h"

#include "sigmoid_terms.h"

#include "class_sums.h"
#include "density_keys.h"
#include "sigmoid.h"
#include "softmax.h"

#include "masks.h"

const tare_kernels_of_type TARE_KERNELS = {
    .sigmoid = sigmoid_tile,
    .softmax = softmax_tile,
    .sum_mask = sum_mask_chunk,
    .write_mask = write_mask_chunk,
};
