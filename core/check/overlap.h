/* SPDX-License-Identifier: Apache-2.0 */
/* Whether two strided arrays share a byte. */
#ifndef TARE_CORE_OVERLAP_H
#define TARE_CORE_OVERLAP_H

#include <stdint.h>

enum { TARE_FOOTPRINT_AXES = 5 };

/** The bytes of an array: elements of `element` bytes at data + sum of index x stride. */
typedef struct tare_footprint {
  intptr_t data;
  int64_t element;
  int64_t length[TARE_FOOTPRINT_AXES], stride[TARE_FOOTPRINT_AXES]; /* lengths >= 1; strides in bytes */
} tare_footprint;

/** Exact where that is fast; else true if an overlap cannot be excluded. Arrays whose elements interleave without
 *  touching, such as slices of one tensor, do not overlap. */
int tare_footprints_overlap(const tare_footprint *a, const tare_footprint *b);

/** Whether two ranges of bytes share one. NULL has none. */
static inline int tare_ranges_overlap(const void *a, uint64_t a_bytes, const void *b, uint64_t b_bytes) {
  const uintptr_t one = (uintptr_t)a, other = (uintptr_t)b;
  return one && other && one < other + b_bytes && other < one + a_bytes;
}

#endif
