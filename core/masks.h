/* SPDX-License-Identifier: Apache-2.0 */
/* The loss of masks: a checked call as the backends read it, and where the parts of its workspace lie. */
#ifndef TARE_CORE_MASKS_H
#define TARE_CORE_MASKS_H

#include "losses/mask_sums.h"
#include "problem.h"

/** A mask is summed in chunks of so many pixels, whatever the device, its threads and its blocks. */
enum { TARE_MASK_CHUNK = 8192 };

/** Of all masks together. */
typedef struct tare_mask_totals {
  double overlap, focal, loss; /* sums, undivided */
  double divisor;
  int64_t counted, invalid, first_invalid; /* masks; the last is INT64_MAX where there is none */
  int64_t reserved;
} tare_mask_totals;

typedef struct tare_mask_problem {
  tare_mask_spec spec;
  tare_masks masks;
  tare_mask_output output;
  tare_overlap_setting setting;
  int32_t power;        /* a tare_power, of the focal loss */
  int32_t has_gradient; /* of a pixel at least */
  double target_least, target_most;
  int64_t chunks; /* of each mask */

  /* The workspace. */
  uint64_t bytes;
  tare_mask_totals *totals;
  tare_mask_result *results;   /* [masks] */
  tare_mask_partial *partials; /* [masks, chunks] */
} tare_mask_problem;

/** The number of pixels of a chunk. */
static inline int64_t tare_mask_chunk_pixels(const tare_mask_problem *problem, int64_t chunk) {
  const int64_t left = problem->masks.pixels - chunk * TARE_MASK_CHUNK;
  return left < TARE_MASK_CHUNK ? left : (int64_t)TARE_MASK_CHUNK;
}

/** Bytes of a mask's loss. */
static inline int64_t tare_mask_loss_bytes(const tare_mask_problem *problem) {
  return problem->masks.dtype == TARE_DTYPE_F64 ? 8 : 4;
}

/** Bytes of an element of the targets. */
static inline int64_t tare_mask_target_bytes(int32_t dtype) {
  return dtype == TARE_MASK_TARGET_U8 ? 1 : tare_dtype_bytes(dtype);
}

#endif
