/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The number types of the library as the tool reads, converts and writes them. Every conversion goes through double,
 * which holds each of the types exactly, and rounds once, to nearest even.
 */
#ifndef TARE_TOOL_CONVERT_H
#define TARE_TOOL_CONVERT_H

#include <stddef.h>
#include <stdint.h>

#include "tare.h"

size_t dtype_size(int32_t dtype);
const char *dtype_name(int32_t dtype); /**< "f32" and the like */

uint16_t f16_from_double(double value);
uint16_t bf16_from_double(double value);
double f16_to_double(uint16_t bits);
double bf16_to_double(uint16_t bits);

/** Element `index` of an array of `dtype`. */
double number_at(int32_t dtype, const void *array, int64_t index);
void number_put(int32_t dtype, void *array, int64_t index, double value);

/** Label `index` of an array of a tare_label_dtype. */
int64_t label_at(int32_t dtype, const void *array, int64_t index);

#endif
