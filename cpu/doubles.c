/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done in double whatever the type of the logits, of one instruction set: compiled once for each, with
 * TARE_KERNELS as the name of the table, such as tare_kernels_avx2_all. Logits of f32, f16 and bf16 need it, so it is
 * compiled for speed.
 */
#define TARE_REAL_BITS 64
#include <float.h>
#include <math.h>
#include <string.h>

#include "core/divide.h"
#include "half.h"
#include "losses/powers.h"
#include "past_caches.h"
#include "real.h"
#include "rows.h"

#include "keys.h"
#include "labels.h"
#include "row_loss.h"
#include "scale.h"

#include "primitives.h"
#include "scratch.h"

#include "losses/all.h"
#include "losses/ghm_r.h"

#include "density.h"
#include "transpose.h"

#include "transfer.h"

#include "parameters.h"

#include "blocks.h"

#include "in_double.h"
#include "label_counts.h"
#include "regression.h"

const tare_kernels_of_all TARE_KERNELS = {
    .regression = regression_tile,
    .scan_labels = tare_tile_scan_labels,
    .classify_labels = classify_tile,
    .in_double = {evaluate_margins, find_bases_in_double, logarithm, find_soft_norms_in_double, find_norms_in_double},
};
