/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Number formats: what a value becomes when it is stored as f32, f16, bf16 or f64. Nothing here comes from the library.
 */
#ifndef TARE_TESTS_NUMBERS_H
#define TARE_TESTS_NUMBERS_H

#include <stddef.h>
#include <stdint.h>

#include "tare.h"

/** Bytes of an element of a tare_dtype. */
size_t dtype_size(int32_t dtype);

/** "f32" and so on. */
const char *dtype_name(int32_t dtype);

/** Unit roundoff: half the distance from 1 to the next value (2^-24 for f32). */
double dtype_roundoff(int32_t dtype);

/** The distance between the smallest values (2^-24 for f16). */
double dtype_smallest(int32_t dtype);

/** Writes element `index` of an array of `dtype`, rounded to nearest, ties to even. */
void store_element(void *array, size_t index, int32_t dtype, double value);

double load_element(const void *array, size_t index, int32_t dtype);

/** The value as `dtype` holds it. */
double round_to_dtype(int32_t dtype, double value);

#endif
