/* SPDX-License-Identifier: Apache-2.0 */
/* How many rows a chunk of the fused head has, and what its parts take of the workspace. */
#ifndef TARE_CPU_LINEAR_SIZES_H
#define TARE_CPU_LINEAR_SIZES_H

#include "rows.h"

enum { AMPLE_BYTES = 3 << 25 }; /* of a chunk's logits and features: more makes the products no faster */

static inline uint64_t rounded_up(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

static inline int is_half(const tare_linear *linear) { return linear->dtype != TARE_DTYPE_F32; }

/** What is added to a caller's gradient lies apart until a scale that is not finite is applied to it alone. */
static inline uint64_t apart_bytes(const tare_problem *problem, const tare_linear *linear) {
  if (!linear->accumulate || !linear->weights_gradient) return 0;
  return rounded_up(4 * (uint64_t)problem->batch.classes * (uint64_t)linear->dimensions);
}

static inline uint64_t fixed_bytes(const tare_problem *problem, const tare_linear *linear) {
  const uint64_t c = (uint64_t)problem->batch.classes, d = (uint64_t)linear->dimensions;
  const uint64_t converted = is_half(linear) ? rounded_up(4 * c * d) + rounded_up(4 * c) : 0;
  return converted + apart_bytes(problem, linear) + rounded_up(8 * c) +
         64; /* 64 for what rounding up a chunk's logits takes */
}

static inline uint64_t row_bytes(const tare_problem *problem, const tare_linear *linear) {
  return 4 * (uint64_t)(problem->batch.classes + (is_half(linear) ? linear->dimensions : 0));
}

/** A tile: chunks are cut where tiles are. */
static inline int64_t least_rows(const tare_problem *problem) {
  tare_tiling tiling;
  tare_tiling_make(&tiling, problem);
  return tiling.tile_rows[0];
}

/** The most rows, a multiple of `step` unless they are all, of at most `bytes`. */
static inline int64_t rows_within(int64_t rows, int64_t step, uint64_t bytes, uint64_t each) {
  const int64_t fit = (int64_t)(bytes / each);
  return fit >= rows ? rows : fit / step * step;
}

static inline int64_t ample_rows(const tare_problem *problem, const tare_linear *linear) {
  const int64_t step = least_rows(problem);
  const uint64_t each = 4 * (uint64_t)(problem->batch.classes + linear->dimensions);
  const int64_t rows = rows_within(problem->rows, step, AMPLE_BYTES, each);
  if (rows) return rows;
  return step < problem->rows ? step : problem->rows;
}

#endif
