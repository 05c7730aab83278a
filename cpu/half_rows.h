/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of f16 or bf16 as f32 and back. */
#ifndef TARE_CPU_HALF_ROWS_H
#define TARE_CPU_HALF_ROWS_H

#include "half.h"
#include "tare.h"

/** `count` elements from place `at` of an array of this type. */
static inline void tare_read_half(int32_t dtype, const void *from, int64_t at, int64_t count, float *to) {
  const uint16_t *half = (const uint16_t *)from + at;
  for (int64_t i = 0; i < count; i++)
    to[i] = dtype == TARE_DTYPE_F16 ? tare_from_f16(half[i]) : tare_from_bf16(half[i]);
}

static inline void tare_write_half(int32_t dtype, void *to, int64_t at, int64_t count, const float *from) {
  uint16_t *half = (uint16_t *)to + at;
  for (int64_t i = 0; i < count; i++) half[i] = dtype == TARE_DTYPE_F16 ? tare_to_f16(from[i]) : tare_to_bf16(from[i]);
}

#endif
