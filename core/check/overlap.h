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

/** The bytes from an array's first to its last. */
typedef struct tare_span {
  uint64_t start, bytes;
} tare_span;

tare_span tare_span_of(const tare_footprint *footprint);

/** Whether two arrays can share a byte at all: a look that spares most pairs of arrays tare_footprints_overlap. */
static inline int tare_spans_overlap(const tare_span *a, const tare_span *b) {
  return b->start - a->start < a->bytes || a->start - b->start < b->bytes;
}

/** Whether two ranges of bytes share one. NULL has none. */
static inline int tare_ranges_overlap(const void *a, uint64_t a_bytes, const void *b, uint64_t b_bytes) {
  const uintptr_t one = (uintptr_t)a, other = (uintptr_t)b;
  return one && other && one < other + b_bytes && other < one + a_bytes;
}

#endif
