/* SPDX-License-Identifier: Apache-2.0 */
/* The points of a sweep, bit patterns of a format, in steps. */
#ifndef TEST_ACCURACY_POINTS_H
#define TEST_ACCURACY_POINTS_H

#include "accuracy.h"

/* ---- Points: bit patterns of a format, in steps ---------------------------------------------------------------- */

struct segment {
  uint64_t first, last, step;
};

static inline uint64_t bits_of(int32_t dtype, double value) {
  uint64_t bits = 0;
  store_element(&bits, 0, dtype, value);
  return bits;
}

static inline uint64_t float_step(bool sparse) {
  const char *sweep = getenv("TARE_SWEEP");
  if (sweep && strcmp(sweep, "all") == 0) return sparse ? 64 : 1;
  return (sparse ? 8009 : 257) * (uint64_t)test_size(1, 15); /* odd: with all patterns of the last bits */
}

/* Of the 16-bit formats: every number in the full sweeps and of the losses that most train with. */
static inline uint64_t half_step(void) {
  const char *sweep = getenv("TARE_SWEEP");
  return sweep && strcmp(sweep, "all") == 0 ? 1 : 3;
}

/* Segment number `index` of the magnitudes of a format. f32: +-128, what lies beyond, every binade's edge. */
static inline bool f32_segment(int index, bool sparse, struct segment *segment) {
  uint64_t reach = bits_of(TARE_DTYPE_F32, 128), end = bits_of(TARE_DTYPE_F32, FLT_MAX);
  if (index == 0)
    *segment = (struct segment){0, reach, float_step(sparse)};
  else if (index == 1)
    *segment = (struct segment){reach, end, 16381};
  else {
    uint64_t edge = (uint64_t)(index - 1) << 23;
    *segment = (struct segment){edge - 64, edge + 64, sparse ? 8 : 1};
    return edge < end;
  }
  return true;
}

static inline bool f64_segment(int index, bool sparse, struct segment *segment) {
  static const double ends[] = {0, 0x1p-30, 1024, DBL_MAX};
  static const uint64_t steps[] = {20000, 1000000, 20000}; /* points */
  if (index >= 3) return false;
  uint64_t first = bits_of(TARE_DTYPE_F64, ends[index]), last = bits_of(TARE_DTYPE_F64, ends[index + 1]);
  uint64_t points = steps[index] / (uint64_t)test_size(sparse ? 20 : 1, 100);
  *segment = (struct segment){first, last, (last - first) / points | 1};
  return true;
}

static inline bool next_segment(int32_t dtype, int index, bool sparse, struct segment *segment) {
  if (dtype == TARE_DTYPE_F32) return f32_segment(index, sparse, segment);
  if (dtype == TARE_DTYPE_F64) return f64_segment(index, sparse, segment);
  *segment = (struct segment){0, 0x7fff, sparse ? half_step() : 1};
  return index == 0;
}

enum { CHUNK = 8192 };

/* A run of points, and where the next begins. */
struct points {
  int32_t dtype;
  bool sparse;
  int sign, index;
  uint64_t position; /* within the segment */
  size_t n;
  double z[CHUNK];
  double logits[2][CHUNK]; /* as stored in the format: z and -z */
  struct oracle_point at[CHUNK];
};

static inline void add_point(struct points *points, uint64_t magnitude) {
  uint64_t sign = UINT64_C(1) << (8 * dtype_size(points->dtype) - 1);
  size_t size = dtype_size(points->dtype);
  uint64_t bits = points->sign ? magnitude | sign : magnitude, mirrored = bits ^ sign;
  memcpy((char *)points->logits[0] + points->n * size, &bits, size);
  memcpy((char *)points->logits[1] + points->n * size, &mirrored, size);
  points->z[points->n] = read_one(points->dtype, points->logits[0], points->n);
  points->at[points->n] = oracle_point(points->z[points->n]);
  points->n += 1;
}

/* Fills the next chunk; false when there is none. */
static inline bool next_points(struct points *points) {
  struct segment segment;
  points->n = 0;
  for (; points->sign < 2; points->sign += 1, points->index = 0) {
    for (; next_segment(points->dtype, points->index, points->sparse, &segment); points->index += 1) {
      uint64_t magnitude = segment.first + points->position * segment.step;
      for (; magnitude <= segment.last && points->n < CHUNK; magnitude += segment.step, points->position += 1)
        add_point(points, magnitude);
      if (points->n == CHUNK) return true;
      points->position = 0;
    }
  }
  return points->n > 0;
}

#endif
