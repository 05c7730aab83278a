/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One array of a problem as it lies in device memory, over all levels: written there from row order, read back into it.
 */
#ifndef TARE_TESTS_LAYOUT_H
#define TARE_TESTS_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "buffers.h"
#include "problem.h"

/* Image-major arrays share the buffer of level 0. */
typedef struct placed_array {
  bool present, is_output, has_classes;
  int64_t columns;    /* of an array with classes: as many, if not 0 */
  int32_t dtype;      /* of a float array; -1: labels */
  size_t size;        /* bytes of an element; set by layout_place */
  const double *data; /* an input's numbers in row order */
  const char *name;
  buffer *buffers[TARE_MAX_LEVELS];
  bool owned[TARE_MAX_LEVELS];
  int64_t origin[TARE_MAX_LEVELS]; /* elements from the buffer's start to index 0 of every axis */
  tare_strides strides[TARE_MAX_LEVELS];
} placed_array;

/** Makes the buffers of array `kind` of the problem and fills an input's. */
void layout_place(placed_array *a, const problem *p, int kind, const test_device *device);

/** What tare_level gets for a level: NULL for an array that is not present. */
void *layout_memory(const placed_array *a, int32_t level);

/** An output (or, in place, an input) in row order; fails the test where something else was written. */
double *layout_read(const placed_array *a, const problem *p);

/** Fails the test where a byte of the array has changed. */
void layout_expect_unchanged(const placed_array *a);

void layout_free(placed_array *a);

#endif
